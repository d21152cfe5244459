//! The list of system calls and its translation for the kernel.
//!
//! Owns [`CALLS`]: whoever makes a system call after the start finds the line here, or adds it.
//! `strace -f -c` shows what is missing.

use std::collections::BTreeMap;

use core::ffi::{c_int, c_long};

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Which arguments a call may have.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Any.
    Always,
    /// The argument of this index (from 0) is one of these.
    OneOf(u8, &'static [u64]),
    /// Each argument of this index has, of the bits of the mask, exactly these.
    Bits(&'static [(u8, u64, u64)]),
    /// The first argument is our own process id.
    Ourselves,
}

use When::{Always, Bits, OneOf, Ourselves};

/// A constant of the kernel as the filter sees it: the low 32 bits of a register.
const fn word(number: c_int) -> u64 {
    number.cast_unsigned() as u64
}

const WITHOUT_EXEC: When = Bits(&[(2, word(libc::PROT_EXEC), 0)]);

/// What makes a clone(2) a thread, and what would make it more.
const THREAD: When = Bits(&[(
    0,
    word(
        libc::CLONE_THREAD
            | libc::CLONE_VM
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWPID,
    ),
    word(libc::CLONE_THREAD | libc::CLONE_VM),
)]);

/// Reading a file that exists.
const READ_ONLY: When = Bits(&[
    (0, 0xffff_ffff, word(libc::AT_FDCWD)),
    (
        2,
        word(
            libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY,
        ),
        0,
    ),
]);

/// By name, not relative to a descriptor that may lead out of the root.
const BY_NAME: When = Bits(&[(0, 0xffff_ffff, word(libc::AT_FDCWD))]);

const IP_AND_UNIX: When =
    OneOf(0, &[word(libc::AF_INET), word(libc::AF_INET6), word(libc::AF_UNIX)]);

/// `SIOCGIFINDEX`, `FIONBIO`, `FIONREAD`: netdevice(7), ioctl_list(2).
const HARMLESS_REQUESTS: When = OneOf(1, &[0x8933, 0x5421, 0x541b]);

/// `PR_SET_VMA` names a mapping, which glibc does for its heaps.
const HARMLESS_OPTIONS: When = OneOf(0, &[word(libc::PR_SET_NAME), word(libc::PR_SET_VMA)]);

const DESCRIPTOR_FLAGS: When = OneOf(
    1,
    &[
        word(libc::F_GETFD),
        word(libc::F_SETFD),
        word(libc::F_GETFL),
        word(libc::F_SETFL),
        word(libc::F_DUPFD_CLOEXEC),
    ],
);

/// Every call that the process may make, with the reason.
const CALLS: &[(c_long, When, &str)] = &[
    // The packet path.
    (libc::SYS_read, Always, "TAP frames, TCP bytes, wake-ups, files, changes of a watched folder"),
    (libc::SYS_readv, Always, "TAP frames behind their header, TCP into a ring that wraps"),
    (libc::SYS_write, Always, "TAP frames, TCP bytes, wake-ups, log lines, a recording"),
    (libc::SYS_writev, Always, "TAP frames in parts, TCP from a ring that wraps"),
    (libc::SYS_recvfrom, Always, "flows, frames of a socket"),
    (libc::SYS_recvmsg, Always, "datagrams with their addresses and errors"),
    (libc::SYS_recvmmsg, Always, "batches of datagrams"),
    (libc::SYS_sendto, Always, "flows, frames of a socket"),
    (libc::SYS_sendmsg, Always, "datagrams with their source or segment size"),
    (libc::SYS_sendmmsg, Always, "batches of datagrams"),
    (libc::SYS_epoll_create1, Always, "event loops of both threads, started after us"),
    (libc::SYS_epoll_ctl, Always, "event loops"),
    (libc::SYS_epoll_pwait, Always, "event loops"),
    (libc::SYS_eventfd2, Always, "wake-ups of event loops"),
    (libc::SYS_timerfd_create, Always, "timers of event loops"),
    (libc::SYS_timerfd_settime, Always, "timers of event loops"),
    (libc::SYS_ppoll, Always, "the wait for exit descriptor and signals; C libraries"),
    (libc::SYS_clock_gettime, Always, "machines without a vDSO clock"),
    (libc::SYS_clock_nanosleep, Always, "waiting threads"),
    (libc::SYS_nanosleep, Always, "waiting threads"),
    (libc::SYS_gettimeofday, Always, "machines without a vDSO clock"),
    // Sockets.
    (libc::SYS_socket, IP_AND_UNIX, "flows, DNS, interface names (if_nametoindex)"),
    (libc::SYS_socketpair, OneOf(0, &[word(libc::AF_UNIX)]), "wake-ups of event loops"),
    (libc::SYS_connect, Always, "flows, DNS"),
    (libc::SYS_bind, Always, "outbound addresses, forwarded ports"),
    (libc::SYS_listen, Always, "forwarded ports"),
    (libc::SYS_accept4, Always, "forwarded ports, API clients"),
    (libc::SYS_getsockopt, Always, "the outcome of a connect"),
    (libc::SYS_setsockopt, Always, "no delay, TTL, error queues"),
    (libc::SYS_getsockname, Always, "the source that the host chose"),
    (libc::SYS_getpeername, Always, "the address of a client"),
    (libc::SYS_shutdown, Always, "half-closed connections"),
    (libc::SYS_fcntl, DESCRIPTOR_FLAGS, "non-blocking sockets"),
    (libc::SYS_ioctl, HARMLESS_REQUESTS, "scopes of IPv6 resolvers, non-blocking sockets"),
    (libc::SYS_close, Always, "everything"),
    (libc::SYS_dup3, Always, "/dev/null in the place of a standard stream"),
    (libc::SYS_pipe2, Always, "the end of the instance"),
    // Files: resolv.conf, and removing the API socket.
    (libc::SYS_openat, READ_ONLY, "resolv.conf"),
    (libc::SYS_newfstatat, Always, "resolv.conf, whether a watched name is still there"),
    (libc::SYS_fstat, Always, "resolv.conf"),
    (libc::SYS_statx, Always, "resolv.conf"),
    (libc::SYS_lseek, Always, "resolv.conf"),
    (libc::SYS_unlinkat, BY_NAME, "the API socket at the end"),
    (libc::SYS_readlinkat, Always, "back traces of a panic"),
    (libc::SYS_getcwd, Always, "back traces of a panic"),
    // Memory.
    (libc::SYS_mmap, WITHOUT_EXEC, "rings, allocator, stacks"),
    (libc::SYS_mprotect, WITHOUT_EXEC, "allocator, guard pages of stacks"),
    (libc::SYS_munmap, Always, "rings, allocator, stacks"),
    (libc::SYS_mremap, Always, "allocator"),
    (libc::SYS_madvise, Always, "allocator, stacks"),
    (libc::SYS_brk, Always, "allocator"),
    // Threads.
    (libc::SYS_clone3, Always, "C libraries try it first; it fails, see below"),
    (libc::SYS_clone, THREAD, "the threads that are started after us"),
    (libc::SYS_set_robust_list, Always, "start of a thread"),
    (libc::SYS_rseq, Always, "start of a thread"),
    (libc::SYS_set_tid_address, Always, "start of a thread"),
    (libc::SYS_prctl, HARMLESS_OPTIONS, "names of threads and heaps"),
    (libc::SYS_sched_getaffinity, Always, "start of a thread, size of the allocator"),
    (libc::SYS_sched_yield, Always, "contended locks"),
    (libc::SYS_futex, Always, "locks, joining a thread"),
    (libc::SYS_getrandom, Always, "seeds, query ids"),
    (libc::SYS_membarrier, Always, "C libraries"),
    // Signals and the end.
    (libc::SYS_rt_sigprocmask, Always, "start of a thread, releasing a held signal"),
    (libc::SYS_rt_sigaction, Always, "abort"),
    (libc::SYS_rt_sigreturn, Always, "return from a handler (stack overflow)"),
    (libc::SYS_sigaltstack, Always, "start and end of a thread"),
    (libc::SYS_restart_syscall, Always, "a call that was stopped and continued"),
    (libc::SYS_getpid, Always, "a signal to ourselves"),
    (libc::SYS_gettid, Always, "a signal to ourselves"),
    (libc::SYS_tgkill, Ourselves, "ending as the signal that we were sent"),
    (libc::SYS_exit, Always, "end of a thread"),
    (libc::SYS_exit_group, Always, "end of the process"),
];

/// Calls that only the oldest architecture still has.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(c_long, When, &str)] = &[
    (libc::SYS_epoll_wait, Always, "event loops"),
    (libc::SYS_poll, Always, "the wait for exit descriptor and signals; C libraries"),
    (libc::SYS_dup2, Always, "/dev/null in the place of a standard stream"),
    (libc::SYS_unlink, Always, "the API socket at the end"),
    (libc::SYS_readlink, Always, "back traces of a panic"),
    (libc::SYS_time, Always, "machines without a vDSO clock"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(c_long, When, &str)] = &[];

/// musl sends signals to a thread by this call.
#[cfg(target_env = "musl")]
const LIBRARY_CALLS: &[(c_long, When, &str)] =
    &[(libc::SYS_tkill, Always, "ending as the signal that we were sent")];
#[cfg(not(target_env = "musl"))]
const LIBRARY_CALLS: &[(c_long, When, &str)] = &[];

fn calls() -> impl Iterator<Item = &'static (c_long, When, &'static str)> {
    CALLS.iter().chain(OLD_CALLS).chain(LIBRARY_CALLS)
}

/// The filters; the stricter verdict counts.
pub(super) fn programs() -> Result<[BpfProgram; 2], Error> {
    let mut allowed = BTreeMap::new();
    for (number, when, _reason) in calls() {
        allowed.insert(*number, rules(*when)?);
    }
    let allowed = filter(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent =
        filter(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))?;
    Ok([absent, allowed])
}

fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// One rule must match as a whole; no rule at all matches always.
fn rules(when: When) -> Result<Vec<SeccompRule>, Error> {
    let condition = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    let mut rules = Vec::new();
    match when {
        Always => {}
        OneOf(index, values) => {
            for &value in values {
                rules.push(SeccompRule::new(vec![condition(index, SeccompCmpOp::Eq, value)?])?);
            }
        }
        Bits(all) => {
            let conditions = all
                .iter()
                .map(|&(index, mask, bits)| condition(index, SeccompCmpOp::MaskedEq(mask), bits))
                .collect::<Result<_, _>>()?;
            rules.push(SeccompRule::new(conditions)?);
        }
        Ourselves => {
            let ourselves = u64::from(std::process::id());
            rules.push(SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, ourselves)?])?);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_listed_once_and_has_a_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for (number, _, reason) in calls() {
            assert!(seen.insert(*number), "{number}");
            assert!(!reason.is_empty());
        }
    }

    #[test]
    fn nothing_that_starts_programs_or_leaves_the_sandbox_is_listed() {
        for forbidden in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_mount,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_chroot,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_kill,
            libc::SYS_process_vm_readv,
            libc::SYS_pidfd_getfd,
            libc::SYS_openat2,
        ] {
            assert!(calls().all(|(number, ..)| *number != forbidden), "{forbidden}");
        }
    }

    #[test]
    fn the_list_compiles() {
        assert!(programs().unwrap().iter().all(|program| !program.is_empty()));
    }
}
