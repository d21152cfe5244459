//! What the programs of this workspace do for the person or the program that calls them.
//!
//! `slirp4netns`, `pasta` and `pesto` are thin programs of this package, `slirp` is one of
//! `slirp-cni`; all call the functions below. These are no interface for others: `slirp-core` is,
//! and has everything that touches a packet.
//!
//! ```text
//!  words                 the words of the program `slirp` and their options, as data
//!  dialect               argv to options, and all texts: slirp4netns, pasta, pesto, run
//!  command               the processes of `slirp run`
//!  tool                  what the other words do
//!  doctor                what works on this machine
//!  run                   the order of start and end
//!  guest checks          what connects the guest; what else a start needs of the host
//!  lifetime inherited    what ends a run; descriptors that the caller handed over
//!  egress                the policy of all doors: options, files, environment
//!  operator              audit log, control socket, metrics
//!  options publish       values: what is to be done
//!  wording               values that programs share, as people write them
//!  milestone failure     values: what has happened, why a run failed
//!  console log           stdout, stderr
//!  internals             what the fuzz targets reach
//! ```

#![doc(hidden)]

mod checks;
mod command;
mod console;
mod dialect;
mod doctor;
mod egress;
mod failure;
mod guest;
mod inherited;
pub mod internals;
mod lifetime;
mod log;
mod milestone;
mod operator;
mod options;
mod publish;
mod run;
mod tool;
pub mod wording;
pub mod words;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

pub use command::{INSIDE_WORD, NETWORK_WORD};
pub use doctor::main as doctor;
#[cfg(feature = "tui")]
pub use tool::approve::main as approve;
pub use tool::events::main as events;
pub use tool::learn::main as learn;
pub use tool::nearest::{distance, nearest};
pub use tool::policy::main as policy;
#[cfg(feature = "tui")]
pub use tool::top::main as top;

/// The release of slirp4netns whose command line and API the programs offer.
pub const SLIRP4NETNS_INTERFACE: &str = dialect::slirp4netns::version::INTERFACE;

/// The program `slirp4netns`, with its name as the first argument.
pub fn slirp4netns(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::slirp4netns::main(arguments)
}

/// The program `pasta`, with its name as the first argument.
pub fn pasta(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::pasta::main(arguments)
}

/// The program `pesto`, with its name as the first argument.
pub fn pesto(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::pesto::main(arguments)
}

/// Whether a program of this name speaks as pasta(1) or passt(1) does. [`pasta`] tells them apart.
pub fn is_pasta(name: &OsStr) -> bool {
    name.as_bytes().windows(5).any(|part| part == b"pasta" || part == b"passt")
}

/// `slirp run`; `arguments` follow the word.
pub fn run_command(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::run::main(arguments)
}

/// The process that becomes the command of `slirp run`; `arguments` follow [`INSIDE_WORD`].
pub fn run_inside(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::run::inside(arguments)
}

/// The process of the network of `slirp run`; `arguments` follow [`NETWORK_WORD`].
pub fn run_network(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    dialect::run::network(arguments)
}
