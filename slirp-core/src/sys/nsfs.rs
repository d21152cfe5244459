//! Questions to the file of a namespace: of which kind it is, and who owns it (ioctl_nsfs(2)).
//!
//! Owns the calls. What the answers are for is left to [`netns`](crate::netns).

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

/// `NS_GET_USERNS`: `_IO(0xb7, 1)` (`linux/nsfs.h`).
const GET_OWNER: libc::Ioctl = 0xb701;
/// `NS_GET_NSTYPE`: `_IO(0xb7, 3)` (`linux/nsfs.h`).
const GET_TYPE: libc::Ioctl = 0xb703;

/// Which kind of namespace it is: one of the `CLONE_NEW*` flags of clone(2).
///
/// # Errors
/// `ENOTTY` where the file is no namespace.
pub(crate) fn kind(namespace: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number; other files refuse it.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_TYPE) })
}

/// The user namespace that owns this one.
///
/// # Errors
/// `EPERM` where that is not our own user namespace or one below it.
pub(crate) fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: NS_GET_USERNS takes no argument and returns a new descriptor, marked close-on-exec.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), GET_OWNER) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "namespaces are files")]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn own_namespaces_know_their_kind_and_other_files_are_none() {
        for (name, flag) in [("net", libc::CLONE_NEWNET), ("user", libc::CLONE_NEWUSER)] {
            let file = File::open(format!("/proc/self/ns/{name}")).unwrap();
            assert_eq!(kind(file.as_fd()), Ok(flag), "{name}");
        }
        let file = File::open("/proc/self/status").unwrap();
        assert_eq!(kind(file.as_fd()), Err(Errno::ENOTTY));
    }
}
