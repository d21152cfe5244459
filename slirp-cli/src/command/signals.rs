//! Signals to the supervisor, as COMMAND would have got them.
//!
//! Owns which are passed on. What is typed on the terminal goes to a whole process group, so
//! COMMAND gets it by itself; what somebody sends to the supervisor is meant for COMMAND. The
//! kernel tells the two apart (`si_code` in sigaction(2)). A signal that COMMAND itself sends is
//! not passed back, as with sudo(8): it is for the process group, which has COMMAND in it. Whether
//! another process has sent a signal to the group or to the supervisor cannot be told: then COMMAND
//! gets it twice. Real-time signals are not passed on.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpid, getsid};

use slirp_core::internals::process::set_ignored;

use crate::lifetime::is_ignored;

/// Signals that the supervisor's own mistakes raise, or that cannot be held.
const LEFT_ALONE: [Signal; 9] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
];

/// Signals that ask a process to end.
const ENDS_A_START: [Signal; 4] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// All other signals, held back.
#[derive(Debug)]
pub(super) struct Held {
    /// The mask before.
    before: SigSet,
    held: SigSet,
    fd: SignalFd,
}

/// A signal that has come.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) signal: Signal,
    /// The process that sent it, or 0 for the kernel.
    pub(super) sender: Pid,
    /// Whether it is to be passed on, unless COMMAND sent it.
    pub(super) is_for_command: bool,
    /// Whether it would have ended this process, had it not been held back.
    pub(super) ends_a_start: bool,
}

impl Held {
    /// Holds them back.
    ///
    /// # Errors
    /// Those of sigprocmask(2) and signalfd(2).
    pub(super) fn hold() -> Result<Self, Errno> {
        let before = SigSet::thread_get_mask()?;
        let held: SigSet =
            Signal::iterator().filter(|signal| !LEFT_ALONE.contains(signal)).collect();
        held.thread_block()?;
        let fd = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { before, held, fd })
    }

    /// The numbers of the signals that the caller had blocked.
    pub(super) fn blocked_before(&self) -> impl Iterator<Item = i32> {
        self.before.iter().map(|signal| signal as i32)
    }

    /// Takes the next signal.
    pub(super) fn next(&self) -> Option<Heard> {
        let info = self.fd.read_signal().ok()??;
        let signal = Signal::try_from(i32::try_from(info.ssi_signo).ok()?).ok()?;
        let sender = Pid::from_raw(info.ssi_pid.cast_signed());
        let is_leader = getsid(None) == Ok(getpid());
        let is_for_command = is_passed_on(signal, info.ssi_code, is_leader);
        let ends_a_start =
            ENDS_A_START.contains(&signal) && !self.before.contains(signal) && !is_ignored(signal);
        Some(Heard { signal, sender, is_for_command, ends_a_start })
    }

    /// Stops this process as COMMAND was stopped, and returns when it is continued. The signal that
    /// continues it is passed on like any.
    pub(super) fn stop_like(&self, stopped_by: i32) {
        let signal = match Signal::try_from(stopped_by) {
            Ok(signal @ (Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)) => signal,
            Ok(_) | Err(_) => Signal::SIGSTOP,
        };
        let alone: SigSet = [signal].into_iter().collect();
        let _ = raise(signal);
        // Its default action is taken here.
        let _ = alone.thread_unblock();
        let _ = alone.thread_block();
    }

    /// Ends this process by `signal`, without a core file. Returns if that does not end it.
    pub(super) fn end_by(&self, signal: Signal) {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        // It may be ignored here, and std has handlers of its own.
        set_ignored(signal as i32, false);
        let _ = self.held.thread_unblock();
        let _ = raise(signal);
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether `signal` is passed on. `code` is its `si_code`; `is_leader` tells whether this process
/// leads its session, in which case the end of the terminal is told to it alone.
fn is_passed_on(signal: Signal, code: i32, is_leader: bool) -> bool {
    let is_sent = code <= 0;
    let may_be_typed = matches!(
        signal,
        Signal::SIGINT
            | Signal::SIGQUIT
            | Signal::SIGTSTP
            | Signal::SIGTTIN
            | Signal::SIGTTOU
            | Signal::SIGCONT
            | Signal::SIGWINCH
    );
    if signal == Signal::SIGHUP {
        is_sent || is_leader
    } else if may_be_typed {
        is_sent
    } else {
        // Timers are COMMAND's affair as well: alarm(2) survives execve(2).
        signal != Signal::SIGCHLD
    }
}

/// Sends `signal` to COMMAND.
pub(super) fn send(command: Pid, signal: Signal) {
    // It may have ended, or belong to another user by now, as under su(1).
    let _ = nix::sys::signal::kill(command, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_not_passed_on_and_what_is_sent_is() {
        const FROM_KERNEL: i32 = 0x80;
        const FROM_KILL: i32 = 0;
        const FROM_TGKILL: i32 = -6;
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH] {
            assert!(!is_passed_on(signal, FROM_KERNEL, true), "{signal}");
            assert!(is_passed_on(signal, FROM_KILL, false), "{signal}");
            assert!(is_passed_on(signal, FROM_TGKILL, false), "{signal}");
        }
        assert!(!is_passed_on(Signal::SIGHUP, FROM_KERNEL, false));
        assert!(is_passed_on(Signal::SIGHUP, FROM_KERNEL, true));
        assert!(is_passed_on(Signal::SIGALRM, FROM_KERNEL, false));
        assert!(is_passed_on(Signal::SIGTERM, FROM_KILL, false));
        assert!(!is_passed_on(Signal::SIGCHLD, FROM_KILL, false));
    }
}
