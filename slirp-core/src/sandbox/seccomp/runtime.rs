//! System calls of Rust's standard library, the C library and tokio, which any program makes.
//!
//! `strace -f -c` shows what is missing after a new version of one of them.

use crate::sys::calls::{Arguments, WITHOUT_EXEC, system_calls, word};

/// The clone(2) flags that a new thread needs, and the flags that would make it more than a thread.
const THREAD: Arguments = Arguments::Bits(&[(
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

/// `PR_SET_VMA` names a mapping; glibc names its heaps.
const NAMING: Arguments = Arguments::OneOf(0, &[word(libc::PR_SET_NAME), word(libc::PR_SET_VMA)]);

const DESCRIPTOR_FLAGS: Arguments = Arguments::OneOf(
    1,
    &[
        word(libc::F_GETFD),
        word(libc::F_SETFD),
        word(libc::F_GETFL),
        word(libc::F_SETFL),
        word(libc::F_DUPFD_CLOEXEC),
    ],
);

/// `FIONBIO`, `FIONREAD`: ioctl_list(2).
const QUEUE_REQUESTS: Arguments = Arguments::OneOf(1, &[0x5421, 0x541b]);

system_calls! {
    // Threads.
    SYS_clone3 => "C libraries try it first; it fails all the same";
    SYS_clone if THREAD => "start of a thread";
    SYS_set_robust_list => "start of a thread";
    SYS_rseq => "start of a thread";
    SYS_set_tid_address => "start of a thread";
    SYS_prctl if NAMING => "names of threads and heaps";
    SYS_sched_getaffinity => "start of a thread";
    SYS_sched_yield => "contended locks";
    SYS_futex => "locks, joining a thread";
    SYS_membarrier => "C libraries";
    SYS_rt_sigprocmask => "start of a thread, abort";
    SYS_sigaltstack => "start and end of a thread";
    SYS_exit => "end of a thread";
    // Memory.
    SYS_mmap if WITHOUT_EXEC => "stacks, allocator";
    SYS_mprotect if WITHOUT_EXEC => "guard pages of stacks, allocator";
    SYS_munmap => "stacks, allocator";
    SYS_mremap => "allocator";
    SYS_madvise => "stacks, allocator";
    SYS_brk => "allocator";
    // Time and chance.
    SYS_clock_gettime => "machines without a vDSO clock";
    SYS_gettimeofday => "machines without a vDSO clock";
    SYS_clock_nanosleep => "waiting threads";
    SYS_nanosleep => "waiting threads";
    #[cfg(target_arch = "x86_64")]
    SYS_time => "machines without a vDSO clock";
    SYS_getrandom => "seeds of hash maps";
    // Descriptors.
    SYS_read => "wake-ups of event loops";
    SYS_write => "wake-ups of event loops, log lines";
    SYS_readv => "scattered reads";
    SYS_writev => "log lines, messages of a panic";
    SYS_close => "everything that was opened";
    SYS_fcntl if DESCRIPTOR_FLAGS => "non-blocking and duplicated descriptors";
    SYS_ioctl if QUEUE_REQUESTS => "non-blocking sockets";
    SYS_ppoll => "C libraries";
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "C libraries";
    // Signals, and the end of the process.
    SYS_rt_sigaction => "abort";
    SYS_rt_sigreturn => "return from a handler (stack overflow)";
    SYS_restart_syscall => "a call that was stopped and continued";
    SYS_getpid => "a signal to ourselves";
    SYS_gettid => "a signal to ourselves";
    SYS_tgkill if Arguments::Ourselves => "abort";
    #[cfg(target_env = "musl")]
    SYS_tkill => "abort";
    SYS_exit_group => "end of the process";
    // The message of a panic.
    SYS_readlinkat => "back traces";
    #[cfg(target_arch = "x86_64")]
    SYS_readlink => "back traces";
    SYS_getcwd => "back traces";
}
