//! A forked helper process that does one thing and reports.
//!
//! Owns the process: its birth, its report (a record and perhaps a file descriptor), its end. Its
//! work is a closure. It is a process, because setns(2) into a user namespace needs a single
//! thread. It is forked without execve(2), because any program may embed this library.
//!
//! # Theory of operation
//! The parent may have many threads, so between fork(2) and its end the child may only do what a
//! signal handler may (signal-safety(7)): no allocation, no lock, no panic, no standard stream. All
//! signals are blocked around the fork, so that no handler of the embedding program runs in the
//! child. The child is undumpable: it carries a snapshot of the parent's memory into namespaces
//! whose owner could otherwise trace it. The parent waits twice, for the report and for the child's
//! end, so it leaves no zombie behind. An embedding program that reaps or ignores its children does
//! no harm, since the report alone decides.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::fd::{receive_with_fd, send_with_fd};

/// Why there is no report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The helper could not be started, or its report could not be received.
    NotStarted(Errno),
    /// A signal ended it.
    Killed(Signal),
    /// It ended without a report, with this status if it is known.
    Silent(Option<i32>),
}

/// Runs `work` in a child process and returns its report of `N` bytes and the descriptor that came
/// with it.
///
/// # Safety
/// `work` runs in the child of a program that may have several threads: it must be
/// async-signal-safe (signal-safety(7)), so it may neither allocate, nor take a lock, nor panic.
pub(super) unsafe fn run<const N: usize, W>(work: W) -> Result<([u8; N], Option<OwnedFd>), Failure>
where
    W: FnOnce() -> ([u8; N], Option<OwnedFd>),
{
    let (here, there) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(Failure::NotStarted)?;
    let mask =
        SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(Failure::NotStarted)?;
    // SAFETY: the child only calls `work`, for which the caller vouches, and thin wrappers of one
    // system call each; it leaves by _exit(2) without running any destructor of the program.
    let born = unsafe { nix::unistd::fork() };
    if let Ok(ForkResult::Child) = born {
        // Failure would only mean less protection against the owner of the namespaces.
        let _protected = prctl::set_dumpable(false);
        let (report, fd) = work();
        let status = match send_with_fd(there.as_fd(), &report, fd.as_ref().map(AsFd::as_fd)) {
            Ok(()) => 0,
            Err(_) => 1,
        };
        // SAFETY: _exit(2) ends the process at once.
        unsafe { libc::_exit(status) };
    }
    // It can only fail for an invalid `how`, and the mask is the one that was saved.
    let _restored = mask.thread_set_mask();
    drop(there);
    match born {
        Ok(ForkResult::Parent { child }) => await_report(here.as_fd(), child),
        // The child has left above.
        Ok(ForkResult::Child) => Err(Failure::Silent(None)),
        Err(errno) => Err(Failure::NotStarted(errno)),
    }
}

fn await_report<const N: usize>(
    socket: BorrowedFd<'_>,
    child: Pid,
) -> Result<([u8; N], Option<OwnedFd>), Failure> {
    let mut report = [0; N];
    let received = receive_with_fd(socket, &mut report);
    let end = loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    match received.map_err(Failure::NotStarted)? {
        (len, fd) if len == N => Ok((report, fd)),
        _ => Err(match end {
            Ok(WaitStatus::Signaled(_, signal, _)) => Failure::Killed(signal),
            Ok(WaitStatus::Exited(_, status)) => Failure::Silent(Some(status)),
            Ok(
                WaitStatus::Stopped(..)
                | WaitStatus::PtraceEvent(..)
                | WaitStatus::PtraceSyscall(_)
                | WaitStatus::Continued(_)
                | WaitStatus::StillAlive,
            )
            | Err(_) => Failure::Silent(None),
        }),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "descriptors to play with are files")]
mod tests {
    use super::*;

    #[test]
    fn report_and_descriptor_come_back() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        // SAFETY: the closure only moves values.
        let (report, fd) = unsafe { run(move || (*b"eight ok", Some(file))) }.unwrap();
        assert_eq!(&report, b"eight ok");
        assert!(fd.is_some());
    }

    #[test]
    fn helper_killed_by_a_signal_is_told_from_one_that_leaves_silently() {
        // SAFETY: kill(2), pause(2) and _exit(2) are async-signal-safe; SIGKILL cannot be blocked.
        let killed = unsafe {
            run::<8, _>(|| {
                libc::kill(libc::getpid(), libc::SIGKILL);
                loop {
                    libc::pause();
                }
            })
        };
        assert_eq!(killed.unwrap_err(), Failure::Killed(Signal::SIGKILL));
        // SAFETY: as above.
        let silent = unsafe { run::<8, _>(|| libc::_exit(7)) };
        assert_eq!(silent.unwrap_err(), Failure::Silent(Some(7)));
    }

    #[test]
    fn signal_mask_is_as_before() {
        let before = SigSet::thread_get_mask().unwrap();
        // SAFETY: the closure only returns a value.
        unsafe { run(|| ([0; 8], None)) }.unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
