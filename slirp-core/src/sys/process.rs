//! Processes by descriptor (pidfd_open(2)), and a clean start for long-lived ones.
//!
//! Owns [`ProcessFd`], which identifies a process even after its number is reused, and the clean-up
//! of what a process inherits: descriptors, ignored signals, a signal mask.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::unistd::ForkResult;

/// A process, running or ended, that can be waited for and signalled even if its number is reused.
/// It becomes readable, in the sense of poll(2), when the process ends, whether or not its parent
/// has waited for it.
#[derive(Debug)]
pub struct ProcessFd(OwnedFd);

impl ProcessFd {
    /// The process that has the number `pid` at this moment.
    ///
    /// # Errors
    /// `ESRCH` when there is no such process, `ENOSYS` before Linux 5.3.
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(Self(open_process(pid)?))
    }

    /// Sends the signal of this number (signal(7)).
    ///
    /// # Errors
    /// `ESRCH` when the process has ended, `EPERM` when it is not ours to signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: pidfd_send_signal(2) takes a descriptor, a number, no signal information and no
        // flags.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal,
                core::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Ok(Errno::result(sent).map(drop)?)
    }

    /// Waits until the process has ended. Returns whether it ended within `timeout` (at most 24
    /// days).
    ///
    /// # Errors
    /// The errors of poll(2), except `EINTR`.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut polled, timeout) {
                Err(Errno::EINTR) => {}
                other => return Ok(other? > 0),
            }
        }
    }
}

impl AsFd for ProcessFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor of the process that has the number `pid` now; it becomes readable when that process
/// has ended, even if the number is reused. Close-on-exec.
///
/// # Errors
/// `ESRCH` when there is no such process, `EINVAL` or `ENOENT` for a thread that is not a thread
/// group leader, `ENOSYS` before Linux 5.3.
pub(crate) fn open_process(pid: i32) -> Result<OwnedFd, Errno> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: pidfd_open(2) takes two numbers and makes a new descriptor.
    let opened = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, NO_FLAGS) })?;
    let number = RawFd::try_from(opened).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Goes on as two processes. Returns the number of the child in the parent, and `None` in the
/// child.
///
/// For programs that own their whole process, before they start a thread: a lock that another
/// thread holds would never be released in the child.
///
/// # Errors
/// `EBUSY` when the process has several threads; the errors of fork(2).
pub fn fork_process() -> io::Result<Option<i32>> {
    if thread_count().is_some_and(|count| count > 1) {
        return Err(Errno::EBUSY.into());
    }
    // SAFETY: there is no other thread whose lock the child would find taken for ever (fork(2)), so
    // the child may do whatever its parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child.as_raw())),
        ForkResult::Child => Ok(None),
    }
}

/// Goes on as two processes, as [`fork_process`] does, but the new process is a child of our
/// parent. It may be in a PID namespace that we have made and cannot enter ourselves (unshare(2)).
///
/// # Errors
/// `EBUSY` when the process has several threads; the errors of clone(2).
pub fn fork_sibling() -> io::Result<Option<i32>> {
    if thread_count().is_some_and(|count| count > 1) {
        return Err(Errno::EBUSY.into());
    }
    const FLAGS: libc::c_int = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the new process has a copy of this memory, and goes on with its copy
    // of this stack if no other is given (clone(2)). No other thread holds a lock in that copy.
    let made = Errno::result(unsafe { libc::syscall(libc::SYS_clone, FLAGS, 0, 0, 0, 0) })?;
    let number = i32::try_from(made).map_err(|_| Errno::EOVERFLOW)?;
    Ok((number != 0).then_some(number))
}

/// How the child with this number has ended, if it has. The number is free then.
///
/// # Errors
/// The errors of waitpid(2): `ECHILD` for a process that is no child of ours.
pub fn try_wait(child: i32) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one number into `status`, which outlives the call.
    let ended = Errno::result(unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) })?;
    Ok((ended != 0).then(|| ExitStatus::from_raw(status)))
}

/// How many threads the process has, if `/proc` tells.
#[expect(clippy::disallowed_methods, reason = "the state of the process is a file")]
pub(crate) fn thread_count() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// Gives every signal except SIGPIPE its default action, and unblocks all. SIGPIPE stays ignored.
///
/// For the start of a program that outlives the one that starts it: ignored and blocked signals
/// survive execve(2), and a container runtime may have blocked all of them.
///
/// # Errors
/// The errors of sigprocmask(2).
pub fn reset_signals() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if number == libc::SIGPIPE || number == libc::SIGSEGV || number == libc::SIGBUS {
            // std uses the last two to detect a stack overflow.
            continue;
        }
        // SAFETY: SIG_DFL runs none of our code; numbers that cannot be changed (SIGKILL, SIGSTOP,
        // the C library's own) are refused with EINVAL.
        let _refused = unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Ignores the signal of this number, or gives it its default action. A handler that this process
/// has for it is lost.
pub fn set_ignored(number: i32, is_ignored: bool) {
    let action = if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither action runs code of ours; a number that cannot be changed is refused.
    let _refused = unsafe { libc::signal(number, action) };
}

/// Marks every descriptor but the standard streams close-on-exec, so that no program that we start
/// inherits our inherited descriptors.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_descriptors_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed; only marks are set, and no owner of a
    // descriptor relies on a missing mark (close_range(2)).
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    Ok(Errno::result(done).map(drop)?)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "processes to look at")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn process_is_signalled_and_its_end_is_seen_before_it_is_waited_for() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let process = ProcessFd::open(child.id().cast_signed()).unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap(), "it runs");
        process.signal(libc::SIGKILL).unwrap();
        assert!(process.wait(Duration::from_secs(5)).unwrap(), "it has ended");
        child.wait().unwrap();
        let error = process.signal(libc::SIGKILL).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn process_with_several_threads_is_not_split() {
        // The test runner is another thread.
        for error in [fork_process().unwrap_err(), fork_sibling().unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
        }
    }

    #[test]
    fn end_of_a_child_is_seen_once() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(try_wait(pid).unwrap(), None);
        let process = ProcessFd::open(pid).unwrap();
        child.kill().unwrap();
        assert!(process.wait(Duration::from_secs(5)).unwrap());
        assert_eq!(try_wait(pid).unwrap().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(try_wait(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        child.wait().unwrap_err();
    }

    #[test]
    fn number_without_a_process_is_refused() {
        assert_eq!(ProcessFd::open(999_999_999).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
