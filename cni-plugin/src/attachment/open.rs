//! Opening files and sockets by names that another program may have taken, without long waits.
//!
//! Owns reading files, where open(2) would wait for the writer of a FIFO, and connecting to
//! sockets, where connect(2) would wait while a listener's queue is full.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_socket, getsockopt, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::geteuid;

/// How long a listener's queue may stay full (arbitrary; our listeners accept at once).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens any file at `path` for reading, even a FIFO without a writer.
///
/// # Errors
/// The errors of open(2).
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The content of the file at `path`, at most `cap` bytes.
///
/// # Errors
/// The errors of open(2) and read(2); `InvalidInput` for a file that is not regular.
pub(crate) fn read(path: &Path, cap: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(cap).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Connects to the listener at `path`.
///
/// # Errors
/// The errors of connect(2); `WouldBlock` when the listener's queue stays full.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_within(path, CONNECT_TIMEOUT)
}

fn connect_within(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The send time-out applies to connect(2) as well (socket(7)).
    let limit = TimeVal::new(timeout.as_secs().cast_signed(), timeout.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    connect_socket(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(0, 0))?;
    Ok(socket.into())
}

/// The number of the process at the other end, which must run as our own user; 0 if it is not
/// visible in our PID namespace.
///
/// # Errors
/// `PermissionDenied` when it runs as another user.
pub(crate) fn pid_of_own(stream: &UnixStream) -> io::Result<i32> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() {
        Ok(peer.pid())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Whether connecting failed because there is no listener.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};
    use nix::sys::stat::Mode;

    use super::*;

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("slirp-open-{}-{name}", std::process::id()))
    }

    #[test]
    fn files_are_read_up_to_the_cap_and_nothing_else_is() {
        let path = path("file");
        std::fs::write(&path, "content").unwrap();
        assert_eq!(read(&path, 100).unwrap(), b"content");
        assert_eq!(read(&path, 4).unwrap(), b"cont");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path, 100).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path, 100).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn listener_that_accepts_nothing_is_not_waited_for_forever() {
        let path = path("socket");
        assert!(is_absent(&connect(&path).unwrap_err()));
        let kind = SockType::Stream;
        let listener = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_within(&path, Duration::from_millis(1)) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!is_absent(&error));
        std::fs::remove_file(&path).unwrap();
    }
}
