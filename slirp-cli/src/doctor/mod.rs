//! `slirp doctor`: what works here, what does not, and what to do about it.
//!
//! Owns the order: look, judge, drive, report. Facts are read by [`gather`], from which [`judge`]
//! makes findings without another look at the world, so tests can invent any world. [`drive`] makes
//! a real network and adds what it sees. [`report`] prints.
//!
//! ```text
//!  gather --- Facts --> judge --- Findings --> report
//!                          \-- may there be a network? --> drive -- Findings --/
//! ```

mod drive;
mod facts;
mod finding;
mod gather;
mod judge;
mod pipe;
mod report;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use nix::errno::Errno;

use crate::console::{eprint_line, print};
use crate::words::DOCTOR;
use facts::NoNamespaces;
use finding::State;
use gather::attempt::Trial;

pub(crate) use facts::Step;

/// Why `slirp run` cannot make its namespaces, and what helps. Called by the process that has tried
/// this step, or by its parent.
pub(crate) fn hint_of_namespaces(step: Step, errno: Errno) -> String {
    let mut known = gather::namespaces(Err(NoNamespaces::Step(step, errno)));
    if step != Step::MakeUser {
        // A process in a new user namespace reads the limits of that one.
        (known.network_cap, known.mount_cap) = (None, None);
    }
    let (cause, remedy) = judge::namespaces::cause(&known, &gather::user(), step, errno);
    format!("{cause}; {remedy}")
}

/// Runs `slirp doctor` with the arguments behind this word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    // Processes of ours, which are this program again.
    match arguments.peek().and_then(|word| word.to_str()) {
        Some(drive::INSIDE) => return drive::inside(arguments.skip(1)),
        Some(word) => {
            if let Some(trial) = Trial::of(word) {
                return trial.main();
            }
        }
        None => {}
    }
    let line = match DOCTOR.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    if !line.operands().is_empty() {
        return DOCTOR.refuse("it takes no argument");
    }
    let mut findings = judge::judge(&gather::gather());
    if !line.has("no-drive") {
        findings.extend(drive::drive(&findings));
    }
    let text = if line.has("json") {
        report::json(&findings)
    } else {
        report::table(&findings, has_color())
    };
    let status = match report::worst(&findings) {
        State::Ok | State::Warning => ExitCode::SUCCESS,
        State::Failure => ExitCode::FAILURE,
    };
    finish(&text, status)
}

fn has_color() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints `text` and ends with `status`.
fn finish(text: &str, status: ExitCode) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => status,
        Err(error) => {
            eprint_line(format_args!("slirp doctor: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}
