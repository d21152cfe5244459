//! The process that the caller waits for.
//!
//! Owns the two others, from their start to their end, and one wait: poll(2) over signals, the
//! connection to the process inside and the readiness of the network.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, getpid, pipe2, read, write};

use slirp_core::internals::process::{close_inherited_fds, set_ignored};

use super::failure::CommandFailure;
use super::identity::Maps;
use super::inside::{ENTERED, GO, MAPPED};
use super::occupant::Occupant;
use super::signals::{self, Held};
use super::{INSIDE_WORD, NETWORK_WORD, Place, machine};
use crate::lifetime::is_ignored;

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// COMMAND has ended, after everything else.
    Command(ExitStatus),
    /// There never was a network. The process that is to run it has told why, unless this signal
    /// ended it.
    NoNetwork(Option<i32>),
    /// This signal has ended the start of COMMAND, or everything.
    Signal(Signal),
}

/// How a dialect has COMMAND run.
#[derive(Debug)]
pub(crate) struct Conduct<'a> {
    /// The name of this program. The other two processes have it until they have a better one.
    pub(crate) program: &'a str,
    pub(crate) place: &'a Place,
    /// The caller's arguments, which the other two processes read again.
    pub(crate) arguments: &'a [OsString],
    /// Signals that end everything when they are sent to the supervisor, and are not COMMAND's.
    pub(crate) ends: &'a [Signal],
}

/// Runs COMMAND to its end. `warn` tells that the network has ended before COMMAND.
///
/// # Errors
/// See [`CommandFailure`]. Nothing is left running then.
pub(crate) fn supervise(
    conduct: &Conduct<'_>,
    warn: &dyn Fn(&str),
) -> Result<(Ending, Signals), CommandFailure> {
    if has_foreign_proc() {
        return Err(CommandFailure::ForeignProc);
    }
    let ignores_children = is_ignored(Signal::SIGCHLD);
    if ignores_children {
        // Otherwise the kernel forgets how they ended.
        set_ignored(libc::SIGCHLD, false);
    }
    let held = Held::hold().map_err(CommandFailure::Signals)?;
    let (here, there) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(CommandFailure::Pipe)?;
    let mut numbers: Vec<String> = held.blocked_before().map(|number| number.to_string()).collect();
    if ignores_children {
        numbers.push(format!("-{}", libc::SIGCHLD));
    }
    let mut inside = Command::new(OURSELVES);
    inside.arg0(conduct.program).arg(INSIDE_WORD).arg(there.as_raw_fd().to_string());
    inside.arg(getpid().to_string()).arg(numbers.join(",")).args(conduct.arguments);
    hand_over(&there)?;
    let inside = Occupant::new(inside.spawn().map_err(CommandFailure::Start)?);
    drop(there);
    let connection = Some(here);
    let mut supervisor =
        Supervisor { conduct, held, inside, connection, network: None, is_never_ready: false };
    let result = supervisor.start_network().and_then(|()| supervisor.run(warn));
    if matches!(result, Err(_) | Ok(Ending::Signal(_))) {
        supervisor.inside.end();
        supervisor.end_network();
    }
    result.map(|ending| (ending, Signals(supervisor.held)))
}

/// The signals that are held back.
#[derive(Debug)]
pub(crate) struct Signals(Held);

/// Ends this process by the signal that ended COMMAND; returns if that is not possible.
pub(crate) fn end_like(signals: &Signals, number: i32) {
    if let Ok(signal) = Signal::try_from(number) {
        signals.0.end_by(signal);
    }
}

/// The longest that the process inside says: [`ENTERED`] and two numbers.
const HEARD_CAP: usize = 9;

const OURSELVES: &str = "/proc/self/exe";

/// The process of the network.
struct Network {
    process: Child,
    /// Says that the network is ready, until it has.
    ready: Option<OwnedFd>,
    /// The number of the process inside lets it attach; the hang-up ends it.
    lifeline: OwnedFd,
    /// Whether it attaches.
    is_let_in: bool,
}

struct Supervisor<'a> {
    conduct: &'a Conduct<'a>,
    held: Held,
    inside: Occupant,
    /// To the process inside, until it becomes COMMAND.
    connection: Option<OwnedFd>,
    network: Option<Network>,
    /// Whether the network has ended before it was ready.
    is_never_ready: bool,
}

impl Supervisor<'_> {
    fn run(&mut self, warn: &dyn Fn(&str)) -> Result<Ending, CommandFailure> {
        loop {
            while let Some(heard) = self.held.next() {
                if heard.ends_a_start && self.connection.is_some() {
                    return Ok(Ending::Signal(heard.signal));
                }
                if heard.is_for_command && heard.sender != self.command() {
                    if self.conduct.ends.contains(&heard.signal) {
                        return Ok(Ending::Signal(heard.signal));
                    }
                    signals::send(self.command(), heard.signal);
                }
            }
            self.reap_orphans();
            if let Some(status) = self.inside.try_wait().map_err(of_io)? {
                self.inside.end();
                let network = self.end_network();
                // A signal that was typed may have ended both.
                let is_refused = self.is_never_ready && status.signal().is_none();
                return Ok(match network {
                    Some(network) if is_refused => Ending::NoNetwork(network.signal()),
                    Some(_) | None => Ending::Command(status),
                });
            }
            if let Some(signal) = self.stopped()? {
                self.held.stop_like(signal);
                continue;
            }
            if let Some(status) = self.network_that_ended()? {
                let by = status.signal().map(|number| format!(" by signal {number}"));
                let by = by.unwrap_or_default();
                warn(&format!("the network has ended{by}; the command goes on without one"));
            }
            match self.wait()? {
                By::Signal => {}
                By::Inside => self.hear_inside()?,
                By::Network => {
                    if !self.hear_network() {
                        self.is_never_ready = true;
                        // The process inside leaves.
                        self.connection = None;
                    }
                }
            }
        }
    }

    /// As process 1 of a PID namespace we are the parent of all that have lost theirs. Their ends
    /// are of no interest, but each stays a zombie until we have seen it.
    fn reap_orphans(&self) {
        if getpid().as_raw() != 1 {
            return;
        }
        let network = self.network.as_ref().map(|network| &network.process);
        let network = network.map(Child::id);
        let is_ours = |number: &u32| self.inside.has(*number) || network == Some(*number);
        // Not by wait(2) for any child, which would take the status of our own.
        let children = fs::read_to_string("/proc/self/task/1/children").unwrap_or_default();
        let orphans = children.split(' ').filter_map(|number| number.parse().ok());
        for orphan in orphans.filter(|number| !is_ours(number)) {
            let pid = Pid::from_raw(orphan.cast_signed());
            // An error is that of a status which nix does not know: a real-time signal's.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        }
    }

    fn command(&self) -> Pid {
        self.inside.command()
    }

    /// The number of the signal that has stopped COMMAND since this was asked last.
    fn stopped(&self) -> Result<Option<i32>, CommandFailure> {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        match waitid(Id::Pid(self.command()), flags) {
            Ok(WaitStatus::Stopped(_, signal)) => Ok(Some(signal as i32)),
            // ECHILD: it has ended, which is noticed next.
            Ok(_) | Err(Errno::EINTR | Errno::ECHILD) => Ok(None),
            // A real-time signal cannot stop it.
            Err(errno) => Err(CommandFailure::Wait(errno)),
        }
    }

    /// How the network has ended by itself although it was ready. Told once.
    fn network_that_ended(&mut self) -> Result<Option<ExitStatus>, CommandFailure> {
        let Some(network) = &mut self.network else { return Ok(None) };
        if network.ready.is_some() {
            return Ok(None);
        }
        let status = network.process.try_wait().map_err(of_io)?;
        if status.is_some() {
            self.network = None;
        }
        Ok(status)
    }

    fn wait(&self) -> Result<By, CommandFailure> {
        let mut polled = vec![(By::Signal, self.held.as_fd())];
        if let (Some(connection), Some(network)) = (&self.connection, &self.network) {
            match &network.ready {
                Some(ready) if network.is_let_in => polled.push((By::Network, ready.as_fd())),
                Some(_) | None => polled.push((By::Inside, connection.as_fd())),
            }
        }
        let (woken, fds): (Vec<_>, Vec<_>) = polled.into_iter().unzip();
        let mut fds: Vec<_> =
            fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(CommandFailure::Wait(errno)),
        }
        let found = woken.iter().zip(&fds).find(|(_, fd)| fd.any() != Some(false));
        Ok(found.map_or(By::Signal, |(woken, _)| *woken))
    }

    /// The process inside has entered its namespaces, or is about to end.
    fn hear_inside(&mut self) -> Result<(), CommandFailure> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let mut heard = [0; HEARD_CAP];
        let len = read(connection, &mut heard).unwrap_or(0);
        let heard = &heard[..len];
        if let Some(machine) = machine::numbers(heard) {
            self.inside.replace(machine);
        } else if heard != ENTERED {
            self.connection = None;
            return Ok(());
        }
        let command = self.inside.command();
        match self.conduct.place {
            Place::New { ids: Some(ids), .. } => {
                Maps::new(*ids).give(command).map_err(CommandFailure::Maps)?;
            }
            Place::New { ids: None, .. } | Place::OfProcess(_) | Place::OfPath(_) => {}
        }
        say(connection, MAPPED);
        if let Some(network) = &mut self.network {
            say(&network.lifeline, &command.as_raw().to_ne_bytes());
            network.is_let_in = true;
        }
        Ok(())
    }

    /// Starts the process of the network beside the process inside; both take their time.
    fn start_network(&mut self) -> Result<(), CommandFailure> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(CommandFailure::Pipe);
        let ((ready, tell), (watch, lifeline)) = (pipe()?, pipe()?);
        let mut network = Command::new(OURSELVES);
        network.arg0(self.conduct.program).arg(NETWORK_WORD).arg(getpid().to_string());
        network.args(self.conduct.arguments);
        network.stdin(Stdio::from(watch)).stdout(Stdio::from(tell));
        let process = network.spawn().map_err(CommandFailure::Start)?;
        // With our copies we would never see the ends of these pipes.
        drop(network);
        self.network = Some(Network { process, ready: Some(ready), lifeline, is_let_in: false });
        // COMMAND has its copies; with ours the other ends of its pipes would wait for us.
        let _ = close_inherited_fds();
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = dup2_stdin(&null);
            let _ = dup2_stdout(&null);
        }
        Ok(())
    }

    /// The network is ready, or has ended before it was: then this returns false.
    fn hear_network(&mut self) -> bool {
        let Some(network) = &mut self.network else { return false };
        let Some(ready) = network.ready.take() else { return true };
        if read(&ready, &mut [0]).ok() != Some(1) {
            network.ready = Some(ready);
            return false;
        }
        if let Some(connection) = self.connection.take() {
            say(&connection, GO);
        }
        true
    }

    /// Ends the network, if there is one, and waits until it has ended.
    fn end_network(&mut self) -> Option<ExitStatus> {
        let Network { mut process, ready, lifeline, .. } = self.network.take()?;
        if ready.is_some() && !self.is_never_ready {
            // It does not watch the pipe yet, and may wait for a file that never comes.
            let _ = process.kill();
        }
        drop((ready, lifeline));
        process.wait().ok()
    }
}

/// Whether `/proc` is of another PID namespace: its numbers name other processes than ours do.
fn has_foreign_proc() -> bool {
    // Without /proc the start of the others fails, and tells it.
    fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() != getpid().to_string().as_str())
}

/// What the supervisor is woken by.
#[derive(Clone, Copy)]
enum By {
    Signal,
    Inside,
    Network,
}

/// Lets the next program that is started have `fd`.
fn hand_over(fd: &OwnedFd) -> Result<(), CommandFailure> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(CommandFailure::Pipe)?;
    Ok(())
}

fn say(connection: &OwnedFd, word: &[u8]) {
    // If nobody hears it, the end of the process inside is noticed next. SIGPIPE is ignored.
    let _ = write(connection, word);
}

fn of_io(error: io::Error) -> CommandFailure {
    CommandFailure::Wait(Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}
