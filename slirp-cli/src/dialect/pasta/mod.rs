//! The dialect of pasta(1): its options, texts and exit statuses.
//!
//! Owns the way from `argv` to the exit status. Callers read what is printed here, and so do people
//! who search for a text, so texts of pasta(1) are kept where the situation is the same.
//!
//! ```text
//!  args       the command line: options, values, refusals
//!  ports      the grammar of -t, -u, -T and -U, and the rules that it makes
//!  options    values: what is to be done
//!  control    the rules for ports are changed while the network runs
//!  command    COMMAND in namespaces of its own
//!  network    from these to the orders of a run
//!  daemon     the caller's process ends once the network is ready
//!  pid_file   the number of the network's process
//!  log        where messages go
//!  runas      the identity that a process of root takes on
//!  progress failure   the texts of a run
//!  version    the text of --version
//! ```

mod args;
mod command;
pub(crate) mod control;
mod daemon;
mod failure;
mod log;
mod network;
mod options;
mod pid_file;
pub(crate) mod ports;
mod progress;
mod runas;
mod version;

use std::cell::Cell;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{self, ExitCode};

use crate::command::{INSIDE_WORD, NETWORK_WORD};
use crate::console::{self, eprint_bytes, eprint_line, print};
use crate::milestone::Milestone;
use crate::{egress, run};
pub(crate) use args::usage;
use args::{ArgumentError, Command};
use control::Door;
use control::change::Ports;
use network::{Host, NetworkFailure};
pub(crate) use options::Mode;
use options::{PastaOptions, Place};
use pid_file::PidFile;
use ports::rules::ephemeral;
pub(crate) use version::TEXT as VERSION_TEXT;

/// Carries out a command line. The first argument is the name by which the program was called.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = arguments.next().unwrap_or_else(|| OsString::from("pasta"));
    let Some(mode) = mode(&program) else {
        eprint_line("Cannot determine mode, invoke as \"passt\" or \"pasta\"");
        return ExitCode::FAILURE;
    };
    let arguments: Vec<_> = arguments.collect();
    match arguments.first().and_then(|word| word.to_str()) {
        Some(INSIDE_WORD) => return command::inside(arguments.into_iter().skip(1)),
        Some(NETWORK_WORD) => return command::network(arguments.into_iter().skip(1)),
        Some(_) | None => {}
    }
    let parsed = args::parse(mode, arguments.iter().cloned(), &ephemeral());
    for warning in parsed.warnings {
        eprint_line(warning);
    }
    match parsed.command {
        Ok(Command::Help) => finish(&usage(&program, mode)),
        Ok(Command::Version) => finish(version::TEXT.replacen("pasta", mode.name(), 1).as_bytes()),
        Ok(Command::Run(options)) if matches!(options.target.place, Place::Command(_)) => {
            command::main(&options, &arguments)
        }
        Ok(Command::Run(options)) => start(&options),
        Err(error) => refuse(&program, mode, &error),
    }
}

/// The program that one of this name is, if it is one of ours.
fn mode(program: &OsStr) -> Option<Mode> {
    let name = Path::new(program).file_name().unwrap_or(program).as_bytes();
    let has = |word: &[u8]| name.windows(word.len()).any(|part| part == word);
    if has(b"pasta") {
        return Some(Mode::Pasta);
    }
    has(b"passt").then_some(Mode::Passt)
}

/// Prints `text`, the whole output of the run.
fn finish(text: &[u8]) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(format_args!("pasta: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Reports what is wrong with the command line.
fn refuse(program: &OsStr, mode: Mode, error: &ArgumentError) -> ExitCode {
    let mut text = error.text(program);
    text.push(b'\n');
    eprint_bytes(&text);
    if error.shows_usage() {
        eprint_bytes(&usage(program, mode));
    }
    ExitCode::FAILURE
}

/// Connects a guest, in the foreground until the end or by a daemon. Files are opened as the caller
/// before anything else is looked at.
fn start(options: &PastaOptions) -> ExitCode {
    console::prepare(None);
    let process = &options.process;
    if let Err(error) = log::start(process) {
        eprint_line(log::refusal(process, &error));
        return ExitCode::FAILURE;
    }
    let pid_file = match process.pid_file.as_deref().map(PidFile::open).transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => {
            let path = process.pid_file.as_deref().unwrap_or("".as_ref());
            tracing::error!("Couldn't open PID file {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    if process.is_foreground {
        return connect(options, Ends::default(), pid_file);
    }
    let of_daemon = |ready_fd| Ends { ready_fd: Some(ready_fd), exit_fd: None, detaches: true };
    let network = |ready_fd, pid_file| connect(options, of_daemon(ready_fd), pid_file);
    match daemon::start(pid_file, network) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("Couldn't start a daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Binds the control socket. A command sees our files, so that it is told apart by its network.
fn open_door(options: &PastaOptions, ends: Ends) -> Result<Option<Door>, NetworkFailure> {
    let Some(path) = &options.process.control_socket else { return Ok(None) };
    let has_command = ends.exit_fd.is_some();
    let failed = |error| NetworkFailure::ControlSocket(path.clone(), error);
    Door::bind(path, has_command).map(Some).map_err(failed)
}

/// What another process of ours sees of a run, and does to it.
#[derive(Clone, Copy, Default, Debug)]
struct Ends {
    /// Number of the descriptor on which readiness is told.
    ready_fd: Option<RawFd>,
    /// Number of the descriptor whose hang-up ends the run.
    exit_fd: Option<RawFd>,
    /// Whether the run leaves the caller's streams once it is ready.
    detaches: bool,
}

/// Connects a guest until the end of the run.
fn connect(options: &PastaOptions, ends: Ends, pid_file: Option<PidFile>) -> ExitCode {
    let orders = Host::read(options).and_then(|host| {
        for line in progress::interfaces(options, &host) {
            tracing::info!("{line}");
        }
        network::orders(options, &host)
    });
    let ready = orders.and_then(|orders| Ok((orders, open_door(options, ends)?)));
    let ((target, mut orders), door) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            tracing::error!("{error}");
            pid_file.iter().for_each(PidFile::discard);
            return ExitCode::FAILURE;
        }
    };
    if let Some(door) = &door {
        orders.removed_file = door.file();
        orders.system_calls.extend(control::SYSTEM_CALLS);
    }
    let door = Cell::new(door);
    orders.ready_fd = ends.ready_fd;
    orders.exit_fd = ends.exit_fd;
    orders.lingers = ends.exit_fd.is_some();
    orders.detaches = ends.detaches;
    orders.egress.variable = env::var_os(egress::VARIABLE);
    let report = |milestone: Milestone<'_>| {
        progress::report(options, &orders, milestone);
        let Milestone::Started { handle, .. } = milestone else { return };
        // Nobody could find or steer this network, which ends with its process.
        let give_up = |what: &str, error: &io::Error| {
            tracing::error!("{what}: {error}");
            pid_file.iter().for_each(PidFile::discard);
            console::flush();
            process::exit(1);
        };
        if let Some(door) = door.take() {
            let ports = Ports::new(options, orders.address_plan(), handle.clone());
            if let Err(error) = door.serve(ports) {
                give_up("Couldn't serve the control socket", &error);
            }
        }
        if let Some(Err(error)) =
            pid_file.as_ref().map(|file| file.write(process::id().cast_signed()))
        {
            give_up("Couldn't write the PID file", &error);
        }
    };
    let result = run::run(&target, &orders, &report);
    let code = match result {
        Ok(code) => {
            // Nobody has waited for the daemon, which ends.
            if ends.detaches && code != ExitCode::SUCCESS {
                pid_file.iter().for_each(PidFile::discard);
            }
            code
        }
        Err(failure) => {
            failure::report(&failure);
            // In a sandbox by now, or nothing was made.
            pid_file.iter().for_each(PidFile::discard);
            ExitCode::FAILURE
        }
    };
    console::flush();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_file_is_the_mode() {
        for (name, expected) in [
            ("pasta", Some(Mode::Pasta)),
            ("/usr/bin/pasta.avx2", Some(Mode::Pasta)),
            ("/usr/bin/passt", Some(Mode::Passt)),
            ("passt-pasta", Some(Mode::Pasta)),
            ("/usr/lib/pasta/network", None),
            ("", None),
        ] {
            assert_eq!(mode(name.as_ref()), expected, "{name}");
        }
    }
}
