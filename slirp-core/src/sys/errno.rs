//! Numbers of errors, and what the kernel means by them.
//!
//! Owns the two questions that texts and hints have about an [`io::Error`] of a system call.

use std::io;

use nix::errno::Errno;

/// The number of an error; `UnknownErrno` for an error that did not come from the kernel.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// What the kernel says, without the number that [`io::Error`] writes behind it.
pub(crate) fn text_of(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| Errno::from_raw(number).desc().to_owned())
}
