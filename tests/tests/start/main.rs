//! Before the first frame: the command line, the checks of a start, and the sandbox.
//!
//! Every test chooses the program's confinement itself, so `.ci/run` has no second run of this
//! binary.

mod checks;
mod cli_errors;
mod sandbox;
