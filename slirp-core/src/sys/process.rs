//! Descriptors that stand for a process (pidfd_open(2)).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// A descriptor of the process that has the number `pid` now; it becomes readable when that process
/// has ended, whoever gets the number next. Close-on-exec.
///
/// # Errors
/// `ESRCH` when there is no such process, `EINVAL` or `ENOENT` for a thread that leads no process,
/// `ENOSYS` before Linux 5.3.
pub(crate) fn open_process(pid: i32) -> Result<OwnedFd, Errno> {
    const NO_FLAGS: libc::c_uint = 0;
    // SAFETY: pidfd_open(2) takes two numbers and makes a new descriptor.
    let opened = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, NO_FLAGS) })?;
    let number = RawFd::try_from(opened).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
