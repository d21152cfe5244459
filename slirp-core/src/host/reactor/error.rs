//! Why the event loop ended by itself.

use std::io;

/// Why an instance ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The TAP device cannot be read or written any more: its interface was deleted, or the
    /// namespace is gone.
    #[error("the TAP device is gone")]
    TapGone(#[source] io::Error),
    /// The other end of the socket that carried the guest's frames was closed.
    #[error("the other end of the guest's socket has hung up")]
    PeerGone,
    /// The poller failed.
    #[error("the event loop failed: {0}")]
    Poller(#[source] io::Error),
    /// A thread panicked; that is a defect of ours.
    #[error("the data thread panicked; please report this")]
    Panicked,
}

impl RunError {
    /// What the loss of the guest's link means.
    pub(crate) fn of_link(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::PeerGone
        } else {
            Self::TapGone(error)
        }
    }
}
