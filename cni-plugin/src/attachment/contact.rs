//! Talking to the process that keeps an attachment.
//!
//! Owns the client's side of its socket. The other side is `keeper::serve`.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use slirp_core::internals::process::{ProcessFd, send_fd};

use super::error::Error;
use super::message::{COMMIT, ClientRequest, Ended, Info, receive_answer};
use super::{frame, open};

/// How long a keeper may take to answer a question about itself (arbitrary; it takes microseconds).
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a keeper may take to bring the network up (arbitrary; it takes some 50 ms).
const ENTER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a keeper may take to end: this exceeds its engine's own time limit.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// A keeper's answer to a process that hands it a namespace.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entered {
    /// The network works.
    Started {
        /// The interface's Ethernet address.
        #[serde(rename = "mac")]
        _mac: String,
    },
    /// The keeper waits for another container.
    Waiting {
        /// True.
        #[serde(rename = "waiting")]
        _is_waiting: bool,
    },
}

/// A connection to a keeper.
#[derive(Debug)]
pub(crate) struct Contact {
    stream: UnixStream,
    /// The keeper's process, if it is visible in our PID namespace.
    pub(crate) process: Option<ProcessFd>,
}

impl Contact {
    /// Connects to the keeper behind `socket`.
    ///
    /// # Errors
    /// The errors of connect(2) when there is no listener; `PermissionDenied` when the listener
    /// belongs to another user.
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let stream = open::connect(socket)?;
        let pid = open::pid_of_own(&stream)?;
        // Zero if the process is not visible from here (pid_namespaces(7)).
        let process = Some(pid).filter(|&pid| pid > 0).map(ProcessFd::open).transpose()?;
        Ok(Self { stream, process })
    }

    fn ask<T: DeserializeOwned>(&self, what: ClientRequest, timeout: Duration) -> io::Result<T> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))?;
        frame::send(&self.stream, &what)?;
        frame::receive(&self.stream)
    }

    /// The network namespace that the keeper serves, if it is known already.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) fn info(&self) -> io::Result<Info> {
        self.ask(ClientRequest::Info, ANSWER_TIMEOUT)
    }

    /// Gives the container's network namespace to a keeper that waits for it. The network works
    /// when this returns [`Entered::Started`].
    ///
    /// # Errors
    /// When the keeper does not answer in time. The inner error tells why the network does not
    /// work.
    pub(crate) fn enter(&self, namespace: BorrowedFd<'_>) -> io::Result<Result<Entered, Error>> {
        self.stream.set_read_timeout(Some(ENTER_TIMEOUT))?;
        self.stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        frame::send(&self.stream, &ClientRequest::Enter)?;
        send_fd(self.stream.as_fd(), namespace)?;
        let answer = receive_answer(&self.stream)?;
        if let Ok(Entered::Started { .. }) = answer {
            frame::send(&self.stream, &COMMIT)?;
            frame::receive::<String>(&self.stream)?;
        }
        Ok(answer)
    }

    /// Asks the keeper to end. Waits until its engine has ended, which frees interface and ports,
    /// and then until the keeper has ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.ask::<Ended>(ClientRequest::End, END_TIMEOUT)?;
        match (&self.stream).read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(error),
        }
    }
}
