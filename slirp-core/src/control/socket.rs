//! The control socket: policy, questions, events and limits, for a launcher or a person.
//!
//! Owns the socket. Lines of JSON go both ways.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::host::outside::RemovedFile;
use crate::sys::file::OwnFile;

/// A control socket; dropping it removes its file.
#[derive(Debug)]
pub struct ControlSocket {
    door: Door,
}

#[derive(Debug)]
enum Door {
    /// Removed before the listener is closed.
    Listener { file: OwnFile, listener: UnixListener },
    /// One connection, which has no name that a guest could find.
    Stream(UnixStream),
}

impl ControlSocket {
    /// Binds `path`, in place of a socket that nobody serves. Its mode is 0600.
    ///
    /// # Errors
    /// The errors of bind(2) and listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { door: Door::Listener { file: OwnFile::at(path), listener } })
    }

    /// Serves the peer of `stream`, one end of a socketpair(2), and nobody else.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub fn from_stream(stream: OwnedFd) -> io::Result<Self> {
        let stream = UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        Ok(Self { door: Door::Stream(stream) })
    }

    /// The socket's file, if it has one, for a process that is about to enter a sandbox, see
    /// [`Sandbox::removed_file`](crate::sandbox::Sandbox::removed_file).
    pub fn file(&self) -> Option<RemovedFile> {
        match &self.door {
            Door::Listener { file, .. } => {
                Some(RemovedFile { path: file.path().to_owned(), identity: file.identity()? })
            }
            Door::Stream(_) => None,
        }
    }
}
