//! `slirp4netns`: connects a network namespace to the network of the host, without privileges.
//!
//! A drop-in replacement for the program of the same name. Owns the way from `argv` to the exit
//! status; everything that touches a packet is in `slirp-core`.

mod address;
mod args;
mod banner;
mod checks;
mod console;
mod failure;
mod guest;
mod inherited;
mod lifetime;
mod options;
mod publish;
mod run;
mod version;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::args::{ArgumentError, Command};
use crate::console::{Log, complain, complain_bytes, print, say};
use slirp_core::LargeAlloc;

#[global_allocator]
static ALLOC: LargeAlloc = LargeAlloc;

/// The environment variable that chooses what is logged, such as `debug` or `slirp_core=trace`.
const LOG_VARIABLE: &str = "SLIRP_LOG";

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_else(|| OsString::from("slirp4netns"));
    let parsed = args::parse(arguments);
    for warning in parsed.warnings {
        say(warning);
    }
    match parsed.command {
        Ok(Command::Help) => finish(&args::usage(&program)),
        Ok(Command::Version) => finish(version::TEXT.as_bytes()),
        Ok(Command::Run(options)) => {
            console::prepare(options.ready_fd);
            start_log(options.log_level);
            let code = run::run(&options);
            console::settle();
            code
        }
        Err(error) => refuse(&program, &error),
    }
}

/// Prints `text`, which is all that was asked for.
fn finish(text: &[u8]) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("slirp4netns: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line.
fn refuse(program: &OsStr, error: &ArgumentError) -> ExitCode {
    if let Some(mut text) = error.text(program) {
        if error.ends_line() {
            text.push(b'\n');
        }
        complain_bytes(&text);
    }
    if error.shows_usage() {
        // The status says already that this run failed.
        let _ = print(&args::usage(program));
    }
    ExitCode::FAILURE
}

/// Sends log lines to stderr: what the command line asks for, otherwise what the environment asks
/// for, otherwise warnings.
fn start_log(level: Option<LevelFilter>) {
    let wanted = if level.is_none() { env::var(LOG_VARIABLE).ok() } else { None };
    let default = Targets::new().with_default(level.unwrap_or(LevelFilter::WARN));
    let (filter, error) = match wanted.as_deref().map(str::parse::<Targets>) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (default, Some(error)),
        None => (default, None),
    };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| Log).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Some(error) = error {
        tracing::warn!(%error, "{LOG_VARIABLE} is not understood");
    }
}
