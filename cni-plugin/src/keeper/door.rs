//! The socket at which our other processes send requests.
//!
//! Owns admission, and how long a client may delay us. Clients are processes of our own user, as
//! the kernel reports it (SO_PEERCRED); messages have a bounded length and a bounded time. The
//! owner of the door decides which requests there are.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::hang_up;
use crate::attachment::contact::ANSWER_TIMEOUT;
use crate::attachment::error::Error;
use crate::attachment::{message, open};

/// How long a client may take over a message: as long as a client waits for an answer, because a
/// client has to wait for a processor on a busy host.
const CLIENT_TIMEOUT: Duration = ANSWER_TIMEOUT;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Door(UnixListener);

impl Door {
    /// Listens at `path`. Its folder is closed to other users.
    ///
    /// # Errors
    /// The errors of bind(2).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // A killed process leaves its socket behind. There is no living one, because our starter
        // holds the lock.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The next client; `None` when no client waits, or when it is not admitted.
    ///
    /// # Errors
    /// The errors of accept(2).
    pub(super) fn accept(&self) -> io::Result<Option<Connection>> {
        let stream = match self.0.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let client = Connection::new(stream);
        Ok(client.inspect_err(|error| tracing::warn!(%error, "a client is refused")).ok())
    }
}

impl AsFd for Door {
    /// Readable when a client waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An admitted client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Number of its process; 0 if it is not visible in our PID namespace.
    pub(super) pid: i32,
}

impl Connection {
    /// Lets a client in.
    ///
    /// # Errors
    /// `PermissionDenied` for a process of another user.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let pid = open::pid_of_own(&stream)?;
        stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        Ok(Self { stream, pid })
    }

    /// Reads one message. The inner error is for the client.
    ///
    /// # Errors
    /// When the client has gone, or stops in the middle of a message.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Result<T, Error>> {
        message::receive_order(&self.stream)
    }

    /// Sends an answer. It does not matter whether the client is still there.
    pub(super) fn answer<T: Serialize>(&self, answer: Result<T, Error>) {
        let _ = message::answer(&self.stream, answer);
    }

    /// Hangs up: no more answers follow.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::store::tests::Scratch;

    #[test]
    fn client_is_not_hung_up_on_before_it_gives_up_itself() {
        let scratch = Scratch::new("door");
        let path = scratch.files("a").socket();
        let door = Door::open(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let stream = door.accept().unwrap().unwrap().into_stream();
        assert!(stream.read_timeout().unwrap() >= Some(ANSWER_TIMEOUT));
        assert!(stream.write_timeout().unwrap() >= Some(ANSWER_TIMEOUT));
    }
}
