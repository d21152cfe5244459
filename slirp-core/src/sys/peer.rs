//! The network namespace that the client of a UNIX socket connected from (socket(7), unix(7)).
//!
//! A connection that was accepted belongs to the network namespace of the client's socket, not to
//! that of the listener, so its cookie tells where the client is. No privilege is needed, and the
//! answer does not depend on the file system or on the client's process being there still.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// A number for the network namespace of a socket, which no other namespace has until the next boot
/// (`SO_NETNS_COOKIE`, Linux 5.14).
///
/// # Errors
/// `ENOPROTOOPT` from older kernels.
pub(crate) fn network_of(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    /// `asm-generic/socket.h`.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the kernel writes at most `len` bytes to `cookie`, which has as many, and the length
    // of what it wrote to `len`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| cookie)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a socket")]
    fn sockets_of_one_namespace_have_one_number() {
        let (a, b) = UnixStream::pair().unwrap();
        match network_of(a.as_fd()) {
            Ok(number) => assert!(number != 0 && network_of(b.as_fd()) == Ok(number)),
            Err(errno) => assert_eq!(errno, Errno::ENOPROTOOPT),
        }
    }
}
