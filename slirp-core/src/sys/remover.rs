//! A helper process that removes one file when this process has ended.
//!
//! Owns the process and the way to tell it. It is for files that this process will not reach any
//! more, because it is about to give up its file system: to keep a descriptor of their folder instead
//! would leave a way out. Which file, and whether there is need, is decided above.
//!
//! # Theory of operation
//! Helper and parent hold the two ends of a socket pair, which tell both of each other's end, however
//! it comes: the helper reads until its parent has closed or lost its end, removes the file if it is
//! still the same one, and exits, which the parent may wait for. As in [`fork`](super::fork), the
//! child only does what a signal handler may. It keeps no other descriptor, so that nobody who waits
//! for the end of ours is kept waiting by it, takes no signal, and cannot be traced.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};

super::calls::system_calls! {
    SYS_shutdown => "the helper is told";
    SYS_ppoll => "the helper's end";
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "the helper's end";
    SYS_wait4 => "the helper's end";
}

/// What tells one file from another: its device and inode.
pub(crate) type Identity = (u64, u64);

/// How long its end is waited for, in milliseconds (arbitrary; it takes less than one).
const PATIENCE: u16 = 2000;

/// The helper. Dropping it lets it remove the file, and waits until it has.
#[derive(Debug)]
pub(crate) struct Remover {
    /// Our end of the pair.
    alive: OwnedFd,
    helper: Pid,
}

impl Remover {
    /// Starts a helper for the file `path`, which is left alone if it is another one by then.
    ///
    /// # Errors
    /// Those of socketpair(2) and fork(2).
    pub(crate) fn start(path: CString, identity: Identity) -> Result<Self, Errno> {
        let (alive, there) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child only calls `serve`, which makes plain system calls on values that exist
        // already, and leaves by _exit(2) without running any destructor of the program.
        let born = unsafe { nix::unistd::fork() };
        if let Ok(ForkResult::Child) = born {
            serve(there.as_fd(), &path, identity);
            // SAFETY: _exit(2) ends the process at once.
            unsafe { libc::_exit(0) };
        }
        // It can only fail for an invalid `how`, and the mask is the one that we were given.
        let _restored = mask.thread_set_mask();
        match born? {
            ForkResult::Parent { child } => Ok(Self { alive, helper: child }),
            // The child has left above.
            ForkResult::Child => Err(Errno::EINVAL),
        }
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        let _told =
            nix::sys::socket::shutdown(self.alive.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        let mut hung_up = [PollFd::new(self.alive.as_fd(), PollFlags::POLLIN)];
        if poll(&mut hung_up, PollTimeout::from(PATIENCE)) == Ok(1) {
            // Whoever ignores its children has reaped it already.
            let _reaped = waitpid(self.helper, None);
        }
    }
}

/// What the helper does.
fn serve(parent: BorrowedFd<'_>, path: &CStr, identity: Identity) {
    // Failure of these would mean less tidiness or protection, but no harm to what it is for.
    let _protected = prctl::set_dumpable(false);
    let _named = prctl::set_name(c"slirp-remover");
    close_all_but(parent.as_raw_fd());
    let mut byte = [0_u8; 1];
    loop {
        match nix::unistd::read(parent, &mut byte) {
            Ok(0) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
    if identity_of(path) == Some(identity) {
        // SAFETY: the path is a C string; nothing can be done about a failure.
        let _removed = unsafe { libc::unlink(path.as_ptr()) };
    }
}

/// Device and inode of `path` itself, not of what it links to.
fn identity_of(path: &CStr) -> Option<Identity> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: lstat(2) reads a C string and writes one `struct stat` when it succeeds.
    let stat = unsafe {
        if libc::lstat(path.as_ptr(), stat.as_mut_ptr()) != 0 {
            return None;
        }
        stat.assume_init()
    };
    Some((stat.st_dev, stat.st_ino))
}

fn close_all_but(kept: RawFd) {
    let kept = kept.unsigned_abs();
    for (first, last) in [(0, kept.wrapping_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        if last < first || (first == 0 && kept == 0) {
            continue;
        }
        // SAFETY: closing descriptors touches no memory, and this process uses none of them.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed != 0 {
            close_one_by_one(first, last);
        }
    }
}

/// Before Linux 5.9.
fn close_one_by_one(first: libc::c_uint, last: libc::c_uint) {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let end = limit.map_or(1024, |(soft, _)| soft).min(u64::from(last).saturating_add(1));
    for number in u64::from(first)..end {
        // SAFETY: as above; a number that is not open is refused.
        let _closed = RawFd::try_from(number).map(|number| unsafe { libc::close(number) });
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what is removed are files")]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::PathBuf;

    use super::*;

    fn file(name: &str) -> (PathBuf, CString, Identity) {
        let path =
            std::env::temp_dir().join(format!("slirp-remover-{}-{name}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let identity = identity_of(&name).unwrap();
        (path, name, identity)
    }

    #[test]
    fn file_is_gone_when_it_has_been_dropped_and_no_process_is_left() {
        let (path, name, identity) = file("gone");
        let remover = Remover::start(name, identity).unwrap();
        let helper = remover.helper;
        assert!(path.exists());
        drop(remover);
        assert!(!path.exists());
        assert_eq!(nix::sys::signal::kill(helper, None), Err(Errno::ESRCH));
    }

    #[test]
    fn another_file_of_the_same_name_stays() {
        let (path, name, identity) = file("other");
        let remover = Remover::start(name, identity).unwrap();
        // The first one exists on, so that its inode is not given to the second.
        let kept = path.with_extension("kept");
        std::fs::rename(&path, &kept).unwrap();
        std::fs::write(&path, "").unwrap();
        drop(remover);
        assert!(path.exists() && kept.exists());
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(kept).unwrap();
    }
}
