//! Words of the program `slirp`.

pub(crate) mod nearest;
pub(crate) mod policy;
mod target;
