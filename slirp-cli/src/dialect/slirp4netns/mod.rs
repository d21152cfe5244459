//! The dialect of slirp4netns(1): its options, texts and exit statuses.
//!
//! Owns the way from `argv` to the exit status. Callers read what is printed here, so texts that
//! slirp4netns has are kept byte for byte.

pub(crate) mod address;
mod args;
mod banner;
mod failure;
pub(crate) mod network;
mod progress;
pub(crate) mod values;
pub(crate) mod version;

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use crate::console::{self, eprint_bytes, eprint_line, print, print_line};
use crate::options::{Options, Target};
use crate::{egress, log, run};
#[cfg(test)]
pub(crate) use args::OPTIONS;
pub(crate) use args::usage;
use args::{ArgumentError, Command};
pub(crate) use values::ValueError;

/// Carries out a command line. The first argument is the name by which the program was called.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = arguments.next().unwrap_or_else(|| OsString::from("slirp4netns"));
    let parsed = args::parse(arguments);
    for warning in parsed.warnings {
        print_line(warning);
    }
    match parsed.command {
        Ok(Command::Help) => finish(&usage(&program)),
        Ok(Command::Version) => finish(version::TEXT.as_bytes()),
        Ok(Command::Run(target, mut options)) => {
            options.egress.variable = env::var_os(egress::VARIABLE);
            connect(&target, &options)
        }
        Err(error) => refuse(&program, &error),
    }
}

/// Connects a guest until the end of the run.
fn connect(target: &Target, options: &Options) -> ExitCode {
    console::prepare(options.ready_fd);
    log::start(options.log_level);
    let code = match run::run(target, options, &|milestone| progress::report(options, milestone)) {
        Ok(code) => code,
        Err(failure) => {
            failure::report(&failure);
            ExitCode::FAILURE
        }
    };
    console::flush();
    code
}

/// Prints `text`, the whole output of the run.
fn finish(text: &[u8]) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(format_args!("slirp4netns: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Reports what is wrong with the command line.
fn refuse(program: &OsStr, error: &ArgumentError) -> ExitCode {
    if let Some(mut text) = error.text(program) {
        if error.ends_line() {
            text.push(b'\n');
        }
        eprint_bytes(&text);
    }
    if error.shows_usage() {
        // The exit status already tells that this run failed.
        let _ = print(&usage(program));
    }
    ExitCode::FAILURE
}
