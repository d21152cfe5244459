//! `pasta COMMAND`: a command on a machine of its own, with the network of the host.
//!
//! Owns what this dialect has of [`command`](crate::command): the machine, what is run, statuses
//! and texts. Nothing is printed while everything works.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{gethostname, setsid};

use super::network::GOOD_ENDS;
use super::options::{Mode, PastaOptions, Place, RunAs, Target, Userns};
use super::pid_file::PidFile;
use super::ports::rules::ephemeral;
use super::runas::become_wholly;
use super::{Ends, args, connect, log};
use crate::command::{
    self, Conduct, Ending, EntryFailure, Handover, Ids, Program, end_like, enter, process_inside,
    supervise, take_supervisor,
};
use crate::console::{self, eprint_line};

/// The longest host name in bytes (gethostname(2)).
const HOST_NAME_CAP: usize = 64;

/// Runs the command of `options` to its end. `arguments` are those that `options` were read from.
pub(super) fn main(options: &PastaOptions, arguments: &[OsString]) -> ExitCode {
    let Some(place) = place(options) else {
        return refuse("--userns needs PID or --netns: a command has a new user namespace", None);
    };
    let path = options.process.pid_file.as_deref();
    let pid_file = path.map(|path| {
        let file = PidFile::open(path)?;
        file.write(std::process::id().cast_signed())?;
        Ok::<_, io::Error>(file)
    });
    let pid_file = match pid_file.transpose() {
        Ok(pid_file) => pid_file,
        Err(error) => {
            let path = path.unwrap_or("".as_ref());
            return refuse(&format!("Couldn't open PID file {}: {error}", path.display()), None);
        }
    };
    // Whoever runs COMMAND may become any user of its machine, so all of it runs as that user.
    let identity = options.process.runas.as_ref().map(RunAs::to_take_on).transpose();
    let taken = identity.and_then(|identity| identity.flatten().map_or(Ok(()), become_wholly));
    if let Err(error) = taken {
        pid_file.iter().for_each(PidFile::discard);
        return refuse(&error.to_string(), None);
    }
    let conduct = Conduct { program: "pasta", place: &place, arguments, ends: GOOD_ENDS };
    let code = match supervise(&conduct, &warn) {
        Ok((Ending::Command(status), _)) => {
            let code = status.code().unwrap_or(128 + status.signal().unwrap_or_default());
            return u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from);
        }
        Ok((Ending::Signal(signal), _)) if GOOD_ENDS.contains(&signal) => ExitCode::SUCCESS,
        Ok((Ending::Signal(signal), signals)) => {
            end_like(&signals, signal as i32);
            ExitCode::FAILURE
        }
        Ok((Ending::NoNetwork(None), _)) => ExitCode::FAILURE,
        Ok((Ending::NoNetwork(Some(number)), _)) => {
            refuse(&format!("The network was killed by signal {number}"), None)
        }
        Err(failure) => refuse(&failure.to_string(), failure.hint().as_deref()),
    };
    pid_file.iter().for_each(PidFile::discard);
    code
}

/// The process inside. Returns only if it does not become the command.
pub(super) fn inside(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let failure = match Handover::take(&mut arguments).zip(options(arguments)) {
        None => EntryFailure::NotForPeople,
        Some((handover, options)) => match (place(&options), options.target.place) {
            (Some(place), Place::Command(words)) => {
                let program = program(words, env::var_os("SHELL"));
                let Err(failure) = enter(&handover, &place, None, &program, &warn);
                failure
            }
            (
                _,
                Place::Command(_)
                | Place::Process(_)
                | Place::Netns(_)
                | Place::Socket { .. }
                | Place::Descriptor(_),
            ) => EntryFailure::NotForPeople,
        },
    };
    match &failure {
        EntryFailure::GivenUp => ExitCode::FAILURE,
        EntryFailure::Execute(_, errno) => {
            let text = format!("Failed to start command or shell: {}", errno.desc());
            refuse(&text, failure.hint().as_deref())
        }
        EntryFailure::NotForPeople | EntryFailure::Step(..) | EntryFailure::Target(_) => {
            refuse(&failure.to_string(), failure.hint().as_deref())
        }
    }
}

/// The process of the network.
pub(super) fn network(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(mut options) = take_supervisor(&mut arguments).and_then(|_| options(arguments)) else {
        return refuse(&EntryFailure::NotForPeople.to_string(), None);
    };
    // Nothing that is typed is for us.
    let _ = setsid();
    // We may wait for a file, and do not watch the supervisor then.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(c"pasta-network");
    let Some(pid) = process_inside() else {
        // The supervisor has given up, and has told why.
        return ExitCode::FAILURE;
    };
    // The supervisor tells when it is over.
    let quits_with_netns = false;
    options.target =
        Target { place: Place::Process(pid), userns: Userns::OfPlace, quits_with_netns };
    console::prepare(None);
    if let Err(error) = log::start(&options.process) {
        return refuse(&log::refusal(&options.process, &error), None);
    }
    let ready_fd = Some(io::stdout().as_raw_fd());
    let ends = Ends { ready_fd, exit_fd: Some(io::stdin().as_raw_fd()), detaches: false };
    connect(&options, ends, None)
}

/// The command line that the supervisor has checked.
fn options(arguments: impl Iterator<Item = OsString>) -> Option<Box<PastaOptions>> {
    match args::parse(Mode::Pasta, arguments, &ephemeral()).command {
        Ok(args::Command::Run(options)) => Some(options),
        Ok(args::Command::Help | args::Command::Version) | Err(_) => None,
    }
}

/// Where the command runs; `None` if it were in a user namespace that exists.
fn place(options: &PastaOptions) -> Option<command::Place> {
    let ids = match options.target.userns {
        Userns::OfPlace => Some(Ids::RootAlone),
        Userns::Callers => None,
        Userns::Path(_) => return None,
    };
    let told = options.guest.hostname.as_ref().map(OsString::from);
    let machine = told.unwrap_or_else(|| {
        let mut name = OsString::from("pasta-");
        name.push(gethostname().unwrap_or_default());
        name
    });
    Some(command::Place::New { ids, machine: Some(capped(machine)) })
}

/// As much of a host name as the kernel takes.
fn capped(name: OsString) -> OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = name.into_vec();
    bytes.truncate(HOST_NAME_CAP);
    OsString::from_vec(bytes)
}

/// What is run: the command, or the user's shell as a login shell.
fn program(words: Vec<OsString>, shell: Option<OsString>) -> Program {
    if !words.is_empty() {
        return Program::of(words);
    }
    let file = command::shell(shell);
    let mut name = OsString::from("-");
    name.push(&file);
    Program { file, arguments: vec![name] }
}

fn warn(text: &str) {
    eprint_line(text);
}

fn refuse(text: &str, hint: Option<&str>) -> ExitCode {
    eprint_line(text);
    if let Some(hint) = hint {
        eprint_line(format_args!("hint: {hint}"));
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Box<PastaOptions> {
        options(line.split_whitespace().map(OsString::from)).expect("a good line")
    }

    #[test]
    fn shell_is_a_login_shell() {
        let program = program(Vec::new(), Some("/bin/bash".into()));
        assert_eq!(
            (program.file, program.arguments),
            ("/bin/bash".into(), vec!["-/bin/bash".into()])
        );
        let program = self::program(vec!["ls".into(), "-l".into()], None);
        assert_eq!(
            (program.file, program.arguments),
            ("ls".into(), vec!["ls".into(), "-l".into()])
        );
    }

    #[test]
    fn user_namespace_is_new_unless_it_is_to_be_the_callers() {
        let of = |line: &str| place(&of(line));
        let new = |ids| Some(command::Place::New { ids, machine: Some("there".into()) });
        assert_eq!(of("-H there ls"), new(Some(Ids::RootAlone)));
        assert_eq!(of("-H there --netns-only ls"), new(None));
        assert_eq!(of("--userns /u ls"), None);
        let Some(command::Place::New { machine: Some(name), .. }) = of("ls") else {
            panic!("no machine");
        };
        assert!(name.to_string_lossy().starts_with("pasta-") && name.len() <= HOST_NAME_CAP);
    }
}
