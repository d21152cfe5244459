//! `slirp4netns`: connects a network namespace to the network of the host, without privileges.
//!
//! A drop-in replacement for the program of the same name. Everything that touches a packet is in
//! `slirp-core`; this program leads there and back:
//!
//! ```text
//!  dialect/slirp4netns   argv to options, and all texts
//!  run                   the order of start and end
//!  guest checks          what connects the guest; what else a start needs of the host
//!  lifetime inherited    what ends a run; descriptors that the caller handed over
//!  options publish       values: what is to be done
//!  milestone failure     values: what has happened, why a run failed
//!  console log           stdout, stderr
//! ```

mod checks;
mod console;
mod dialect;
mod failure;
mod guest;
mod inherited;
mod lifetime;
mod log;
mod milestone;
mod options;
mod publish;
mod run;

use std::env;
use std::process::ExitCode;

use slirp_core::internals::process::LargeAlloc;

#[global_allocator]
static ALLOC: LargeAlloc = LargeAlloc;

fn main() -> ExitCode {
    dialect::slirp4netns::main(env::args_os())
}
