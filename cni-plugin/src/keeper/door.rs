//! The socket at which other processes of ours ask for something.
//!
//! Owns who is let in and how long a client may hold us up: processes of our own user, which the
//! kernel vouches for (SO_PEERCRED), and messages of bounded length in a bounded time. What they
//! may ask for is decided by whoever opens the door.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::hang_up;
use crate::attachment::error::Error;
use crate::attachment::{message, open};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    timeout: Duration,
}

impl Door {
    /// Listens at `path`. Its folder is closed to other users. `timeout` is how long a client may
    /// take over a message that it has begun.
    ///
    /// # Errors
    /// Those of bind(2).
    pub(super) fn open(path: &Path, timeout: Duration) -> io::Result<Self> {
        // A process that was killed leaves its socket behind. A living one cannot be there: the
        // lock is held by whoever starts us.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, timeout })
    }

    /// The next client; none when no client waits, or one that is not let in.
    ///
    /// # Errors
    /// Those of accept(2).
    pub(super) fn accept(&self) -> io::Result<Option<Connection>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let client = Connection::new(stream, self.timeout);
        Ok(client.inspect_err(|error| tracing::warn!(%error, "a client is refused")).ok())
    }
}

impl AsFd for Door {
    /// Readable when a client waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A client that was let in.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Number of its process; 0 if it cannot be seen from our PID namespace.
    pub(super) pid: i32,
}

impl Connection {
    /// Lets a client in that takes at most `timeout` over a message.
    ///
    /// # Errors
    /// `PermissionDenied` for a process of another user.
    pub(super) fn new(stream: UnixStream, timeout: Duration) -> io::Result<Self> {
        let pid = open::pid_of_own(&stream)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream, pid })
    }

    /// Reads one message. The inner error is to be answered.
    ///
    /// # Errors
    /// When the client has gone, or stops in the middle.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Result<T, Error>> {
        message::receive_order(&self.stream)
    }

    /// Answers; whether the client is still there to read it does not matter.
    pub(super) fn answer<T: Serialize>(&self, answer: Result<T, Error>) {
        let _ = message::answer(&self.stream, answer);
    }

    /// Says that no more follows.
    pub(super) fn hang_up(&self) {
        hang_up(&self.stream);
    }

    /// The bare connection, for a conversation that follows.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
