//! Words of the program `slirp`.

#[cfg(feature = "tui")]
pub(crate) mod approve;
mod client;
pub(crate) mod events;
pub(crate) mod learn;
pub(crate) mod nearest;
pub(crate) mod policy;
#[cfg(feature = "tui")]
mod question;
mod record;
mod shown;
mod target;
#[cfg(feature = "tui")]
mod terminal;
#[cfg(feature = "tui")]
pub(crate) mod top;
