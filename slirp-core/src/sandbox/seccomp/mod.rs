//! The system calls that a running network makes; all others end the process.
//!
//! Owns the list, as data: each call beside whoever needs it. seccomp(2).
//!
//! # Theory of operation
//! [`apply`] filters the calling thread and all that it starts, so it is called after everything
//! was opened and before [`Builder::spawn`](crate::instance::Builder::spawn). A call that is not
//! listed, or listed and made with other arguments, kills the process with `SIGSYS`: it can only
//! come from code that is not ours. So does a call by another ABI of the machine (32-bit, x32).
//!
//! Arguments are looked at where that closes a door at no cost: no executable memory, no new
//! process (only threads), no file but for reading, sockets of IP and UNIX only, signals only to
//! ourselves. Two calls pass their arguments in memory, where a filter cannot see them: clone3(2)
//! fails with `ENOSYS`, upon which C libraries fall back to clone(2).
//!
//! Linux keeps for each filter which calls pass whatever their arguments are (5.11 and newer), so
//! that the calls of the packet path, none of which is looked into, cost next to nothing.

use std::io;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
mod list;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// There is no list for this architecture.
    #[error("seccomp: no list of system calls for this architecture; run without --enable-seccomp")]
    Architecture,
    /// The list cannot be compiled; that is a defect of ours.
    #[error("seccomp: the list of system calls is defective; please report this")]
    List(#[source] seccompiler::Error),
    /// The kernel refuses the filter.
    #[error("seccomp: the kernel has no system call filters (CONFIG_SECCOMP_FILTER)")]
    Kernel(#[source] io::Error),
}

/// Allows only the listed system calls from here on, to this thread and those that it starts.
/// Sets no_new_privs as well.
///
/// # Errors
/// See [`SeccompError`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub fn apply() -> Result<(), SeccompError> {
    for program in list::programs().map_err(SeccompError::List)? {
        seccompiler::apply_filter(&program).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                SeccompError::Kernel(error)
            }
            other @ (seccompiler::Error::Backend(_)
            | seccompiler::Error::EmptyFilter
            | seccompiler::Error::ThreadSync(_)) => SeccompError::List(other),
        })?;
    }
    Ok(())
}

/// Allows only the listed system calls from here on; there is no list for this architecture.
///
/// # Errors
/// [`SeccompError::Architecture`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub fn apply() -> Result<(), SeccompError> {
    Err(SeccompError::Architecture)
}
