//! A guest without an interface of ours.
//!
//! Owns a link on which no frame ever comes, and which drops those that are written. What joins the
//! guest to the host is left to `host::bridge`.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, BorrowedFd};

/// No link: the guest has only its loopback interface, and
/// [`splices`](crate::instance::Builder::splices) are all that joins it to the host. Clients of
/// forwarded ports that do not come over loopback are refused.
#[derive(Debug)]
pub struct NoLink {
    /// Never readable.
    end: PipeReader,
    /// Keeps the other end from hanging up.
    _held: PipeWriter,
}

impl NoLink {
    /// Makes one.
    ///
    /// # Errors
    /// Those of pipe(2).
    pub fn new() -> io::Result<Self> {
        let (end, held) = pipe()?;
        Ok(Self { end, _held: held })
    }
}

impl AsFd for NoLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}
