//! The kind of a namespace (ioctl_nsfs(2)).
//!
//! [`netns`](crate::netns) uses the answer.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;

/// The kind of a namespace: one of the `CLONE_NEW*` flags of clone(2).
///
/// # Errors
/// `ENOTTY` when the file is not a namespace.
pub(crate) fn kind(namespace: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument and returns a number; other files refuse it.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_NSTYPE) })
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
