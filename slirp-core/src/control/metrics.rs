//! Counters for Prometheus and other collectors that read OpenMetrics.
//!
//! Owns the listening socket and the answers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::host::outside::RemovedFile;
use crate::sys::file::OwnFile;

/// A socket on which metrics are served; dropping it removes its file.
#[derive(Debug)]
pub struct MetricsSocket {
    door: Door,
    per_member: bool,
}

#[derive(Debug)]
enum Door {
    /// Removed before the listener is closed.
    Unix {
        file: OwnFile,
        listener: UnixListener,
    },
    Tcp(TcpListener),
}

impl MetricsSocket {
    /// Binds `path`. Its mode is 0600.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { door: Door::Unix { file: OwnFile::at(path), listener }, per_member: false })
    }

    /// Binds a loopback address and port.
    ///
    /// # Errors
    /// `InvalidInput` if `address` is no loopback address, and the errors of bind(2) and
    /// listen(2).
    pub fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { door: Door::Tcp(listener), per_member: false })
    }

    /// Whether members of a shared network are counted one by one (default: together).
    #[must_use]
    pub fn per_member(self, per_member: bool) -> Self {
        Self { per_member, ..self }
    }

    /// The socket's file, if it has one, for a process that is about to enter a sandbox.
    pub fn file(&self) -> Option<RemovedFile> {
        match &self.door {
            Door::Unix { file, .. } => {
                Some(RemovedFile { path: file.path().to_owned(), identity: file.identity()? })
            }
            Door::Tcp(_) => None,
        }
    }
}
