//! Error numbers, and the kernel's texts for them.
//!
//! Owns how the number and the text of an [`io::Error`] of a system call are found.

use std::io;

use nix::errno::Errno;

/// The number of an error; `UnknownErrno` for an error that did not come from the kernel.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// The kernel's text, without the number that [`io::Error`] appends.
pub(crate) fn text_of(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |number| Errno::from_raw(number).desc().to_owned())
}
