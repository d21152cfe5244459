//! What a start refuses, checks, and gives up before the first frame.
//!
//! Every test chooses the program's confinement itself, so `.ci/run` has no second run of this binary.

mod checks;
mod cli_errors;
mod sandbox;
