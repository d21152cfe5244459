//! Talking to the process that keeps an attachment.
//!
//! Owns the client's side of its socket. The other side is in [`keeper`](crate::keeper).

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use slirp_core::{ProcessFd, send_fd};

use super::{frame, open};

/// How long a keeper may take to say something about itself (arbitrary; it takes microseconds).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a keeper may take to bring the network up (arbitrary; it takes some 50 ms).
const ENTER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a keeper may take to end: its engine has a time limit of its own, which this exceeds.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// A connection to a keeper.
#[derive(Debug)]
pub(crate) struct Contact {
    stream: UnixStream,
    /// The keeper itself, if it can be seen from our PID namespace.
    pub(crate) process: Option<ProcessFd>,
}

impl Contact {
    /// Connects to the keeper behind `socket`.
    ///
    /// # Errors
    /// Those of connect(2) where nobody listens; `PermissionDenied` where somebody else does.
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let stream = open::connect(socket)?;
        let peer = getsockopt(&stream.as_fd(), PeerCredentials)?;
        if peer.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // Zero from where it cannot be seen (pid_namespaces(7)).
        let pid = Some(peer.pid()).filter(|&pid| pid > 0);
        let process = pid.map(ProcessFd::open).transpose()?;
        Ok(Self { stream, process })
    }

    fn ask(&self, what: &str, timeout: Duration) -> io::Result<Value> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))?;
        frame::send(&self.stream, &json!({ "execute": what }))?;
        frame::receive(&self.stream)
    }

    /// What the keeper knows: the device and inode of the network namespace that it serves.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) fn info(&self) -> io::Result<Value> {
        self.ask("info", ANSWER_TIMEOUT)
    }

    /// Gives the container's network namespace to a keeper that waits for it. The network works when
    /// this returns; what it returns has a member `error` otherwise.
    ///
    /// # Errors
    /// When the keeper does not answer in time.
    pub(crate) fn enter(&self, namespace: BorrowedFd<'_>) -> io::Result<Value> {
        self.stream.set_read_timeout(Some(ENTER_TIMEOUT))?;
        self.stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        frame::send(&self.stream, &json!({ "execute": "enter" }))?;
        send_fd(self.stream.as_fd(), namespace)?;
        let report = frame::receive(&self.stream)?;
        if report["error"].is_null() && report["waiting"].is_null() {
            frame::send(&self.stream, &json!("commit"))?;
            frame::receive(&self.stream)?;
        }
        Ok(report)
    }

    /// Asks the keeper to end and waits until its engine has, and with it interface and ports, and
    /// then until the keeper has.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.ask("end", END_TIMEOUT)?;
        match (&self.stream).read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(error),
        }
    }
}
