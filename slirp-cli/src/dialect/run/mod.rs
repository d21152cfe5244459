//! The dialect of `slirp run`: its options, texts and exit statuses.
//!
//! Owns the way from `argv` to the exit status of the three processes of a run
//! ([`command`](crate::command)). All three read the same arguments. Nothing is printed while
//! everything works; our own failures have status 125, as with env(1).

mod args;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;

use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::setsid;
use slirp_core::internals::process::inherited_fd;

use crate::command::{
    self, Conduct, Ending, EntryFailure, Handover, Names, Program, end_like, host_has_ipv6,
    process_inside, supervise, take_supervisor,
};
use crate::console::{self, eprint_line, print};
use crate::milestone::Milestone;
use crate::options::Target;
use crate::words::RUN;
use crate::{egress, log, publish, run};
use args::{Invocation, Line};

/// Status of our own failures.
const FAILURE: u8 = 125;

/// Carries out a command line; `arguments` follow the word `run`.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    let line = args::parse(arguments.iter().cloned()).and_then(|line| {
        if let Line::Run(invocation) = &line {
            invocation.options(host_has_ipv6())?;
            if let Some(path) = env::var_os(egress::VARIABLE) {
                args::check_stream(egress::VARIABLE, &path)?;
            }
        }
        Ok(line)
    });
    let invocation = match line {
        Ok(Line::Help) => {
            return match print(RUN.help().as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => refuse(&format!("write error: {error}"), None),
            };
        }
        Ok(Line::Run(invocation)) => invocation,
        Err(error) => {
            return refuse(&error.to_string(), Some("slirp run --help lists the options"));
        }
    };
    let place = &invocation.place;
    let conduct = Conduct { program: "slirp", place, arguments: &arguments, ends: &[] };
    match supervise(&conduct, &warn) {
        Ok((Ending::Command(status), signals)) => {
            let number = status.signal().unwrap_or_default();
            if number != 0 {
                end_like(&signals, number);
            }
            let code = status.code().unwrap_or(128 + number);
            ExitCode::from(u8::try_from(code).unwrap_or(FAILURE))
        }
        Ok((Ending::Signal(signal), signals)) => {
            end_like(&signals, signal as i32);
            ExitCode::from(FAILURE)
        }
        Ok((Ending::NoNetwork(signal), _)) => {
            if let Some(signal) = signal {
                let hint = (signal == libc::SIGSYS).then_some(
                    "it made a system call that its filter forbids: report that as a fault of \
                     slirp, and go on with --no-seccomp",
                );
                refuse(&format!("the network was killed by signal {signal}"), hint);
            }
            ExitCode::from(FAILURE)
        }
        Err(failure) => refuse(&failure.to_string(), failure.hint().as_deref()),
    }
}

/// The process inside. Returns only if it does not become COMMAND.
pub(crate) fn inside(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let failure = match Handover::take(&mut arguments).zip(invocation(arguments)) {
        None => EntryFailure::NotForPeople,
        Some((handover, invocation)) => {
            let names = names(&invocation);
            for number in invocation.options.operator.descriptors() {
                // They are the network's. Standard streams stay open.
                drop(inherited_fd(number));
            }
            let mut command = invocation.command;
            if command.is_empty() {
                command.push(command::shell(env::var_os("SHELL")));
            }
            let program = Program::of(command);
            let Err(failure) =
                command::enter(&handover, &invocation.place, names.as_ref(), &program, &warn);
            failure
        }
    };
    if !matches!(failure, EntryFailure::GivenUp) {
        refuse(&failure.to_string(), failure.hint().as_deref());
    }
    ExitCode::from(failure.status())
}

/// The process of the network.
pub(crate) fn network(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(invocation) = take_supervisor(&mut arguments).and_then(|_| invocation(arguments))
    else {
        return refuse(&EntryFailure::NotForPeople.to_string(), None);
    };
    // Nothing that is typed is for us.
    let _ = setsid();
    // Until the device is open we may wait for a file, and do not watch the supervisor.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(c"slirp-network");
    let Some(pid) = process_inside() else {
        // The supervisor has given up, and has told why.
        return ExitCode::from(FAILURE);
    };
    let mut options = match invocation.options(host_has_ipv6()) {
        Ok(options) => options,
        Err(error) => return refuse(&error.to_string(), None),
    };
    options.ready_fd = Some(io::stdout().as_raw_fd());
    options.exit_fd = Some(io::stdin().as_raw_fd());
    options.egress.variable = env::var_os(egress::VARIABLE);
    console::prepare(None);
    log::start(options.log_level);
    let target = Target::Pid { pid, userns: None, tap: "tap0".to_owned() };
    let code = match run::run(&target, &options, &report) {
        Ok(code) => code,
        // The process inside has failed and has told why.
        Err(_) if has_ended(pid) => ExitCode::from(FAILURE),
        Err(failure) => refuse(&failure.to_string(), failure.hint().as_deref()),
    };
    console::flush();
    code
}

/// Whether the process inside has ended: then it has no namespaces any more.
fn has_ended(pid: i32) -> bool {
    let link = fs::read_link(format!("/proc/{pid}/ns/net"));
    link.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The command line that the supervisor has checked.
fn invocation(arguments: impl Iterator<Item = OsString>) -> Option<Box<Invocation>> {
    match args::parse(arguments) {
        Ok(Line::Run(invocation)) => Some(invocation),
        Ok(Line::Help) | Err(_) => None,
    }
}

/// How names are looked up, unless that is left as it is.
fn names(invocation: &Invocation) -> Option<Names> {
    let options = &invocation.options;
    options
        .policy
        .dns_service
        .then(|| Names { resolver: options.plan.dns(), domains: options.search_domains.clone() })
}

/// Tells what a person cannot know.
fn report(milestone: Milestone<'_>) {
    match milestone {
        Milestone::Started { picked, .. } => {
            for rule in picked {
                eprint_line(format_args!("slirp run: published {}", publish::spelled(rule)));
            }
        }
        Milestone::DeviceOpened(..) => {
            // From here on the end of the supervisor is noticed, and our files become complete.
            let _ = prctl::set_pdeathsig(None::<Signal>);
        }
        Milestone::ReadyFdClosed(_)
        | Milestone::ExitFdClosed(_)
        | Milestone::PeerAwaited(_)
        | Milestone::PeerConnected(..)
        | Milestone::ExitFdHungUp
        | Milestone::TargetGone(_)
        | Milestone::PeerGone(_) => {}
    }
}

fn warn(text: &str) {
    eprint_line(format_args!("slirp run: {text}"));
}

fn refuse(text: &str, hint: Option<&str>) -> ExitCode {
    warn(text);
    if let Some(hint) = hint {
        eprint_line(format_args!("hint: {hint}"));
    }
    ExitCode::from(FAILURE)
}
