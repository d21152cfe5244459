//! The system calls that a running network makes; all others end the process.
//!
//! Owns the way from declarations to a filter in the kernel. System calls are declared where they
//! are made: every module that calls the kernel once the network runs has its `SYSTEM_CALLS`,
//! [`instance::system_calls`](crate::instance::system_calls) gathers them, programs add their own,
//! and `runtime` lists the calls that any program needs. seccomp(2).
//!
//! # Theory of operation
//! [`apply`] filters the calling thread and every thread that it starts, so it is called after
//! everything was opened and before [`Builder::spawn`](crate::instance::Builder::spawn). The order
//! is kept by [`launch`](crate::launch); a program that keeps it by itself calls
//! [`Builder::measure_host`](crate::instance::Builder::measure_host) before [`apply`]. A call that
//! is not declared, or declared and made with other arguments, kills the process with `SIGSYS`,
//! because it can only come from foreign code. A call through another ABI of the machine (32-bit,
//! x32) kills the process as well.
//!
//! Arguments are checked where that closes a door at no cost: no executable memory, no new process
//! (only threads), no file but for reading, sockets of IP only and pairs of streams, signals only
//! to ourselves. Two calls pass their arguments in memory, where a filter cannot see them:
//! clone3(2) fails with `ENOSYS`, upon which C libraries fall back to clone(2).
//!
//! Linux keeps for each filter which calls pass whatever their arguments are (5.11 and newer), so
//! that the calls of the packet path, none of which has its arguments checked, cost next to
//! nothing.

use std::io;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod program;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod runtime;

pub use crate::sys::calls::SystemCall;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// There is no list for this architecture.
    #[error("seccomp: no list of system calls for this architecture; run without --enable-seccomp")]
    Architecture,
    /// The list cannot be compiled; that is a defect of ours.
    #[error("seccomp: the list of system calls is defective; please report this")]
    List(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kernel refuses the filter.
    #[error("seccomp: the kernel has no system call filters (CONFIG_SECCOMP_FILTER)")]
    Kernel(#[source] io::Error),
}

/// From here on allows this thread, and every thread that it starts, only `calls` and the calls
/// that any program needs. Sets no_new_privs as well.
///
/// # Errors
/// See [`SeccompError`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub fn apply<'c>(calls: impl IntoIterator<Item = &'c SystemCall>) -> Result<(), SeccompError> {
    let calls = calls.into_iter().chain(runtime::SYSTEM_CALLS);
    for program in program::compile(calls).map_err(|error| SeccompError::List(error.into()))? {
        seccompiler::apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                SeccompError::Kernel(error)
            }
            other @ (seccompiler::Error::Backend(_)
            | seccompiler::Error::EmptyFilter
            | seccompiler::Error::ThreadSync(_)) => SeccompError::List(other.into()),
        })?;
    }
    Ok(())
}

/// There is no list for this architecture.
///
/// # Errors
/// [`SeccompError::Architecture`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub fn apply<'c>(_calls: impl IntoIterator<Item = &'c SystemCall>) -> Result<(), SeccompError> {
    Err(SeccompError::Architecture)
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod tests {
    use super::*;
    use crate::sys::calls::Arguments;

    fn calls() -> Vec<&'static SystemCall> {
        crate::instance::system_calls().chain(runtime::SYSTEM_CALLS).collect()
    }

    #[test]
    fn each_call_has_a_reason() {
        assert!(calls().iter().all(|call| !call.reason().is_empty()));
    }

    #[test]
    fn nothing_that_starts_programs_or_leaves_the_sandbox_is_declared() {
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
            assert!(calls().iter().all(|call| call.number() != forbidden), "{forbidden}");
        }
    }

    #[test]
    fn no_declaration_widens_what_another_keeps_narrow() {
        for narrow in [
            libc::SYS_clone,
            libc::SYS_openat,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_mmap,
            libc::SYS_mprotect,
            libc::SYS_prctl,
            libc::SYS_ioctl,
            libc::SYS_tgkill,
            libc::SYS_unlinkat,
        ] {
            let mut found = calls().into_iter().filter(|call| call.number() == narrow).peekable();
            assert!(found.peek().is_some(), "{narrow} is declared");
            assert!(found.all(|call| call.arguments != Arguments::Any), "{narrow}");
        }
    }

    #[test]
    fn the_declarations_compile() {
        let programs = program::compile(calls().into_iter()).unwrap();
        assert!(programs.iter().all(|program| !program.is_empty()));
    }
}
