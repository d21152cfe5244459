//! A machine of its own for COMMAND: process numbers, IPC, mounts and a host name apart from the
//! caller's.
//!
//! Owns the processes that this takes. A process cannot change its own PID namespace, so the
//! process inside makes two more, both of them children of the supervisor:
//! * Process 1 takes over orphans. When it ends, the kernel ends all others (pid_namespaces(7)).
//! * Process 2 becomes COMMAND. A signal without a handler has its usual effect on it; process 1
//!   would not notice that signal.
//!
//! The process inside has done its part then, and the supervisor ends it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pause, pipe2, read, sethostname};

use slirp_core::internals::process::{close_inherited_fds, fork_sibling, set_ignored};

use super::failure::{EntryFailure, EntryStep as Step};
use super::inside::{ENTERED, Handover};

const NONE: Option<&str> = None;

/// Makes the namespaces of a machine. The next processes are the first in them.
pub(super) fn make() -> Result<(), EntryFailure> {
    let make = |flags, step| unshare(flags).map_err(|errno| EntryFailure::Step(step, errno));
    make(CloneFlags::CLONE_NEWNS, Step::MakeMounts)?;
    let rest = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    make(rest, Step::MakeMachine)
}

/// Goes on as process 2 of the machine, and tells the supervisor the numbers of the two.
pub(super) fn split(handover: &Handover) -> Result<(), EntryFailure> {
    let fork = || {
        let failed = |errno| EntryFailure::Step(Step::Split, errno);
        fork_sibling().map_err(|error| failed(errno_of(&error)))
    };
    let pipe = pipe2(OFlag::O_CLOEXEC).map_err(|errno| EntryFailure::Step(Step::Split, errno));
    let (settled, tell) = pipe?;
    let Some(first) = fork()? else { be_first(handover, tell) };
    drop(tell);
    // It asks the caller's /proc, on which the machine's is mounted soon. The hang-up says that it
    // has done so.
    while read(&settled, &mut [0]) == Err(Errno::EINTR) {}
    let Some(command) = fork()? else { return Ok(()) };
    let [first, command] = [first, command].map(i32::to_ne_bytes);
    handover.say(&[ENTERED, &first, &command].concat());
    loop {
        pause();
    }
}

/// The numbers of processes 1 and 2 in what the supervisor has heard.
pub(super) fn numbers(heard: &[u8]) -> Option<[i32; 2]> {
    let numbers = heard.strip_prefix(ENTERED)?;
    let (first, command) = numbers.split_first_chunk()?;
    Some([i32::from_ne_bytes(*first), i32::from_ne_bytes(command.try_into().ok()?)])
}

/// Process 1. Signals without a handler do not end it, the end of the supervisor does.
fn be_first(handover: &Handover, settled: OwnedFd) -> ! {
    if handover.die_with_supervisor().is_err() {
        process::exit(1);
    }
    // Nobody waits for the end of a stream that we hold.
    let null = File::options().read(true).write(true).open("/dev/null");
    let is_silent = null.is_ok_and(|null| {
        dup2_stdin(&null).and(dup2_stdout(&null)).and(dup2_stderr(&null)).is_ok()
    });
    if !is_silent || close_inherited_fds().is_err() {
        process::exit(1);
    }
    drop(settled);
    let _ = prctl::set_name(c"pasta-init");
    // Then the kernel forgets orphans as they end.
    set_ignored(libc::SIGCHLD, true);
    loop {
        pause();
    }
}

/// Names the machine, and shows its processes in `/proc`. `are_slaves` tells that no mount reaches
/// back to the caller. What is refused is told by `warn`: COMMAND can do without.
pub(super) fn settle(host_name: &OsStr, are_slaves: bool, warn: &dyn Fn(&str)) {
    if let Err(errno) = sethostname(host_name) {
        warn(&format!("cannot set the host name: {}", errno.desc()));
    }
    let separated = match mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE) {
        // The root is no mount, as in a chroot(2).
        Err(Errno::EINVAL) if are_slaves => Ok(()),
        separated => separated,
    };
    let options = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted =
        separated.and_then(|()| mount(Some("proc"), "/proc", Some("proc"), options, NONE));
    if let Err(errno) = mounted {
        warn(&format!("cannot mount /proc, which shows the caller's processes: {}", errno.desc()));
    }
}

/// The number of this process's parent, as `/proc` counts: where the parent is in another PID
/// namespace, getppid(2) has none.
pub(super) fn parent() -> Option<i32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_the_word() {
        let told = [ENTERED, &7_i32.to_ne_bytes(), &8_i32.to_ne_bytes()].concat();
        assert_eq!(numbers(&told), Some([7, 8]));
        assert_eq!(numbers(ENTERED), None);
        assert_eq!(numbers(&told[..6]), None);
    }

    #[test]
    fn parent_is_that_of_getppid() {
        assert_eq!(parent(), Some(nix::unistd::getppid().as_raw()));
    }
}
