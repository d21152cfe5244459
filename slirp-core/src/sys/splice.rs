//! Bytes between a socket and a pipe without a copy: splice(2).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// Moves up to `len` bytes from a socket into a pipe or back, as far as that does not block.
/// Raises SIGPIPE in the calling thread where `to` is a connection that is over.
///
/// # Errors
/// `EAGAIN` where nothing can be moved; otherwise that of the socket.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> io::Result<usize> {
    const FLAGS: libc::c_uint = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let no_offset = core::ptr::null_mut();
    // SAFETY: splice(2) takes two descriptors; without offsets, which only files have, it reads and
    // writes no memory of ours.
    let moved =
        unsafe { libc::splice(from.as_raw_fd(), no_offset, to.as_raw_fd(), no_offset, len, FLAGS) };
    Ok(usize::try_from(Errno::result(moved)?).unwrap_or(0))
}
