//! `slirp doctor` on machines that are in order, and on machines that are not.
//!
//! The drive starts `slirp run`, which chooses its confinement itself, so `.ci/run` has no second
//! run of this binary.

mod broken;
mod healthy;
mod scene;
