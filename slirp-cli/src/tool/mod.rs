//! Words of the program `slirp`.

mod client;
pub(crate) mod events;
pub(crate) mod learn;
pub(crate) mod nearest;
pub(crate) mod policy;
mod record;
mod shown;
mod target;
