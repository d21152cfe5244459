//! `pasta` as its callers know it: the daemon's start and end, ports, and the command lines of
//! known callers.
//!
//! The program confines itself always, so `.ci/run` has no second run of this binary.

mod callers;
mod lifetime;
mod ports;
