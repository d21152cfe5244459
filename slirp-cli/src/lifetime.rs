//! The events that end a run.
//!
//! Owns the wait of the main thread: one poll(2) over the exit descriptor, the signals, the target
//! and the end of the instance, without a timeout. `run` acts on the result.
//!
//! A signal that the process was started to ignore (nohup, background jobs of a shell without job
//! control) stays ignored. A signal that we handled still ends the process the way it would have by
//! default, so that a supervisor sees the same status as from slirp4netns: killed by that signal,
//! 128+n in a shell.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use slirp_core::instance::Handle;
use slirp_core::netns::TargetWatch;
use slirp_core::policy::Protocol;
use slirp_core::sandbox::seccomp::SystemCall;

use crate::inherited::ExitFd;

/// The system calls of this module once the network runs.
pub(crate) const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_ppoll, "the wait for the end"),
    #[cfg(target_arch = "x86_64")]
    SystemCall::new(libc::SYS_poll, "the wait for the end"),
    SystemCall::new(libc::SYS_read, "which signal has come"),
    SystemCall::new(libc::SYS_rt_sigprocmask, "releasing the signal that was held back"),
    SystemCall::new(libc::SYS_getpid, "ending as the signal that we were sent"),
    SystemCall::new(libc::SYS_gettid, "ending as the signal that we were sent"),
    SystemCall::new(libc::SYS_tgkill, "ending as the signal that we were sent").on_ourselves(),
    #[cfg(target_env = "musl")]
    SystemCall::new(libc::SYS_tkill, "ending as the signal that we were sent"),
];

/// The signals that ask for an orderly end.
const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Why the run is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The exit descriptor hung up, failed or was never open.
    ExitFd,
    /// A signal asked for the end.
    Signal(Signal),
    /// The target is gone.
    Target,
    /// The awaited event: the end of the instance, or a peer.
    Awaited,
}

/// The signals that ask for an orderly end, held back from their default action.
#[derive(Debug)]
pub(crate) struct Signals {
    held: SigSet,
    fd: SignalFd,
}

impl Signals {
    /// Holds the signals and `more` back, in this thread and in threads that it starts from now on.
    ///
    /// # Errors
    /// The errors of sigprocmask(2) and signalfd(2).
    pub(crate) fn hold(more: &[Signal]) -> io::Result<Self> {
        let held = SIGNALS.iter().chain(more).copied();
        let held: SigSet = held.filter(|&signal| !is_ignored(signal)).collect();
        held.thread_block()?;
        let fd = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { held, fd })
    }

    /// Lets `signal` take its default action. Returns only if that is to do nothing.
    pub(crate) fn release(self, signal: Signal) {
        let _ = self.held.thread_unblock();
        let _ = raise(signal);
    }

    /// Waits until `fd` can be written to. Returns false if a signal comes first; the signal stays
    /// pending.
    ///
    /// # Errors
    /// Those of poll(2), except `EINTR`.
    pub(crate) fn allow_write(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        loop {
            let mut polled = [
                PollFd::new(fd, PollFlags::POLLOUT),
                PollFd::new(self.fd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => return Ok(polled[0].any() != Some(false)),
            }
        }
    }

    fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok()??;
        Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()
    }
}

/// What can end a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// The caller's exit descriptor.
    pub(crate) exit: Option<&'a ExitFd>,
    /// The target, if its end ends the run.
    pub(crate) target: Option<&'a TargetWatch>,
    /// The signals that ask for an end.
    pub(crate) signals: &'a Signals,
}

/// Waits until something ends the run, or until `awaited` is readable or hangs up.
///
/// # Errors
/// Those of poll(2), except `EINTR`.
pub(crate) fn wait(sources: Sources<'_>, awaited: BorrowedFd<'_>) -> io::Result<End> {
    let Sources { exit, target, signals } = sources;
    let exit = match exit {
        Some(ExitFd::Closed) => return Ok(End::ExitFd),
        Some(ExitFd::Open(fd)) => Some(fd.as_fd()),
        None => None,
    };
    loop {
        if target.is_some_and(TargetWatch::is_gone) {
            return Ok(End::Target);
        }
        let mut polled = vec![
            (None, PollFd::new(signals.fd.as_fd(), PollFlags::POLLIN)),
            (Some(End::Awaited), PollFd::new(awaited, PollFlags::POLLIN)),
        ];
        // No events are asked for: hang-ups and errors are reported anyway, data is ignored.
        polled.extend(exit.map(|fd| (Some(End::ExitFd), PollFd::new(fd, PollFlags::empty()))));
        // Checked above.
        polled.extend(target.map(|it| (None, PollFd::new(it.as_fd(), PollFlags::POLLIN))));
        let (ends, mut polled): (Vec<_>, Vec<_>) = polled.into_iter().unzip();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(signal) = signals.next() {
            return Ok(End::Signal(signal));
        }
        for (end, polled) in ends.into_iter().zip(&polled) {
            if let Some(end) = end
                && polled.revents().is_none_or(|events| !events.is_empty())
            {
                return Ok(end);
            }
        }
    }
}

/// Whether this process ignores `signal`; no if that cannot be read.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has(ignored_signals(&status), signal)
}

/// How often it is looked whether the guest is silent.
const SILENCE: Duration = Duration::from_millis(10);

/// How long a connection may be silent that has more to send: then the guest's kernel repeats what
/// was not acknowledged (`TCP_RTO_MIN` of Linux).
const CONNECTION_SILENCE: Duration = Duration::from_millis(200);

/// How long the guest may go on (arbitrary: its last bytes take milliseconds, and what is left
/// behind may talk for ever).
const LINGER_CAP: Duration = Duration::from_secs(5);

/// Waits until the guest is silent: the kernel sends what a program has written after the end of
/// the program, too. What a remote does not take for so long is lost.
pub(crate) fn linger(handle: &Handle) {
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < LINGER_CAP {
        let Some(stats) = handle.blocking().stats() else { return };
        let is_silent = last == Some(stats.frames_from_guest);
        if stats.flows == 0 || is_silent && !has_busy_connection(handle) {
            return;
        }
        last = Some(stats.frames_from_guest);
        // Not a sleep, which is another system call.
        let _ = poll(&mut [], PollTimeout::try_from(SILENCE).unwrap_or(PollTimeout::ZERO));
    }
}

/// Whether a TCP connection may have more to send: on a busy machine the guest's kernel pauses.
fn has_busy_connection(handle: &Handle) -> bool {
    let mut next = Some(0);
    while let Some(page) = next.and_then(|first| handle.blocking().flows(first)) {
        let mut flows = page.flows.iter();
        if flows.any(|flow| flow.protocol == Protocol::Tcp && flow.idle < CONNECTION_SILENCE) {
            return true;
        }
        next = page.next;
    }
    false
}

/// The mask of ignored signals from the text of proc_pid_status(5); none if it cannot be read.
fn ignored_signals(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Whether `signal` is in `mask`, where bit 0 is signal 1.
const fn has(mask: u64, signal: Signal) -> bool {
    mask >> (signal as u64 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status_of_the_process() {
        let mask = ignored_signals("Name:\tx\nSigBlk:\tffff\nSigIgn:\t0000000000001002\n");
        assert!(has(mask, Signal::SIGINT));
        assert!(has(mask, Signal::SIGPIPE));
        assert!(!has(mask, Signal::SIGTERM));
        assert_eq!(ignored_signals(""), 0);
    }
}
