//! A listening UNIX socket that is for its owner alone.
//!
//! Owns the file's mode, what becomes of a file that an earlier process has left behind, and which
//! clients are [admitted].

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, UnixCredentials, bind, getsockopt,
    listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;

use crate::host::outside::RemovedFile;
use crate::sys::file::OwnFile;
use crate::sys::peer::network_of;

/// Why a client is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unwelcome {
    #[error("who you are cannot be told")]
    Unknown,
    #[error("this socket is for the user who runs slirp, and for root")]
    OtherUser,
    #[error("this socket is for the network namespace that slirp runs in")]
    OtherNetwork,
}

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens at `path`, in place of a socket that nobody serves. The mode of the file is 0600, less
/// the umask, from the first moment. The listener does not block.
///
/// # Errors
/// `AddrInUse` if the socket at `path` is served, or if there is another file; `InvalidInput` for a
/// path of 108 bytes or more; the errors of unlink(2), bind(2) and listen(2).
pub(super) fn listen_at(path: &Path) -> io::Result<(OwnFile, UnixListener)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // bind(2) gives the file the mode of the socket (`unix_bind_bsd` in net/unix/af_unix.c).
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let address = UnixAddr::new(path).map_err(|_| io::ErrorKind::InvalidInput)?;
    match bind(socket.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) if is_left_behind(path) => {
            std::fs::remove_file(path)?;
            bind(socket.as_raw_fd(), &address)?;
        }
        bound => bound?,
    }
    let file = OwnFile::at(path);
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok((file, socket.into()))
}

/// A socket that listens at a file of its own, for a program that serves it by itself. Dropping it
/// removes the file.
#[derive(Debug)]
pub struct PrivateListener {
    /// Removed before the listener is closed.
    file: OwnFile,
    listener: UnixListener,
}

impl PrivateListener {
    /// Binds `path`, in place of a socket that nobody serves. Its mode is 0600.
    ///
    /// # Errors
    /// As for [`ControlSocket::bind`](super::socket::ControlSocket::bind).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (file, listener) = listen_at(path)?;
        listener.set_nonblocking(false)?;
        Ok(Self { file, listener })
    }

    /// Its file, see [`Sandbox::removed_file`](crate::sandbox::Sandbox::removed_file).
    pub fn file(&self) -> Option<RemovedFile> {
        Some(RemovedFile { path: self.file.path().to_owned(), identity: self.file.identity()? })
    }

    /// Waits for the next client, of our user or of root. With `is_near` it has to be of our
    /// network namespace as well, where the kernel can tell.
    ///
    /// # Errors
    /// Those of accept(2); `PermissionDenied` for anybody else.
    pub fn accept(&self, is_near: bool) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        let ours = network_of(self.listener.as_fd()).ok().filter(|_| is_near);
        match admitted(stream.as_fd(), ours) {
            Ok(_) => Ok(stream),
            Err(unwelcome) => Err(io::Error::new(io::ErrorKind::PermissionDenied, unwelcome)),
        }
    }
}

/// Whether there is a socket that nobody serves.
fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(is_refused)
}

/// Who the client is, if it may be here. `ours` is the network namespace of the listener, where the
/// kernel can tell.
pub(super) fn admitted(
    stream: BorrowedFd<'_>,
    ours: Option<u64>,
) -> Result<UnixCredentials, Unwelcome> {
    let peer = peer_of(stream).ok_or(Unwelcome::Unknown)?;
    if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
        return Err(Unwelcome::OtherUser);
    }
    match ours {
        Some(ours) if network_of(stream) != Ok(ours) => Err(Unwelcome::OtherNetwork),
        Some(_) | None => Ok(peer),
    }
}

/// Who the client is, as the kernel says.
pub(super) fn peer_of(stream: BorrowedFd<'_>) -> Option<UnixCredentials> {
    getsockopt(&stream, PeerCredentials).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn file_is_for_its_owner_alone_and_replaces_one_that_nobody_serves() {
        let path = std::env::temp_dir().join(format!("slirp-own-file-{}", std::process::id()));
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let (file, listener) = listen_at(&path).unwrap();
        assert_eq!(mode(), 0o600);
        let error = listen_at(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(UnixStream::connect(&path).unwrap());
        let left_behind = path.with_extension("left");
        std::fs::rename(&path, &left_behind).unwrap();
        drop((file, listener));
        std::fs::rename(&left_behind, &path).unwrap();
        let (file, _listener) = listen_at(&path).unwrap();
        assert_eq!(mode(), 0o600);
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen_at(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
    }
}
