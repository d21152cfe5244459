//! The end of a target.
//!
//! Owns [`TargetWatch`]. A network namespace itself cannot be watched: it lives as long as anything
//! holds it, and our own TAP device holds it. So the process or path that named the target is
//! watched.
//!
//! * A process, or `/proc/PID/ns/net`: that process (pidfd_open(2)). Other processes may live on in
//!   its namespace. The same for other files of a process that lead to a namespace without a name,
//!   such as `/proc/PID/task/TID/ns/net`.
//! * Any other path, usually a bind mount such as `/run/netns/NAME`: the name. The name is gone
//!   when it was unmounted, removed, renamed or means another namespace. It is seen through our own
//!   mount namespace: events in other mount namespaces count only if they propagate to ours
//!   (mount_namespaces(7)). For a symbolic link, the file that it led to at the start is watched.
//!
//! Everything is open when [`NamespaceTarget::watch`](super::NamespaceTarget::watch) returns, so a
//! system call filter that is applied later does not interfere. Watching a name takes the
//! descriptor of its folder, which would lead out of a sandbox; in a sandbox the process outside
//! watches instead ([`Sandbox::target`](crate::sandbox::Sandbox::target)).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::read;

use super::process::Process;
use crate::sys::errno::text_of;
use crate::sys::file::Identity;

/// Why the end of a target cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The process ended during the look-up.
    #[error("cannot watch process {0}: it is gone")]
    ProcessGone(i32),
    /// The kernel does not support process descriptors.
    #[error("cannot watch a process: the kernel lacks pidfd_open(2) (Linux 5.3)")]
    Kernel,
    /// The process cannot be watched through a descriptor.
    #[error("cannot watch process {pid}: {}", text_of(source))]
    Process {
        /// Its number.
        pid: i32,
        /// The error of pidfd_open(2) or epoll_ctl(2).
        source: io::Error,
    },
    /// The path is not a stable name, such as other files in `/proc` and our own descriptors.
    #[error(
        "cannot watch {}: give a PID, /proc/PID/ns/net or a path outside of /proc",
        .0.display()
    )]
    Unwatchable(PathBuf),
    /// The path or its folder cannot be watched.
    #[error("cannot watch {}: {}", path.display(), text_of(source))]
    Path {
        /// The path.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
}

/// Reports when a target is gone. The descriptor ([`AsFd`]) becomes readable when
/// [`is_gone`](Self::is_gone) should be asked.
#[derive(Debug)]
pub struct TargetWatch {
    what: String,
    watched: Watched,
}

#[derive(Debug)]
enum Watched {
    /// Becomes readable, or hangs up, with the end.
    End(OwnedFd),
    Name(NameWatch),
}

/// A name under observation.
#[derive(Debug)]
pub(crate) struct NameWatch {
    epoll: Epoll,
    folder: OwnedFd,
    name: OsString,
    /// Device and inode of the namespace.
    identity: Identity,
    changes: Inotify,
    /// `/proc/self/mountinfo`, which is never read: the kernel reports changes of it.
    mounts: File,
}

impl TargetWatch {
    pub(super) fn of_process(process: &Process) -> Result<Self, WatchError> {
        let pid = process.pid;
        let descriptor = process.descriptor().map_err(|errno| {
            if matches!(errno, Errno::ESRCH | Errno::ENOENT) {
                WatchError::ProcessGone(pid)
            } else if errno == Errno::ENOSYS {
                WatchError::Kernel
            } else {
                WatchError::Process { pid, source: errno.into() }
            }
        })?;
        Ok(Self { what: format!("process {pid}"), watched: Watched::End(descriptor) })
    }

    /// Watches the name `path` of the namespace `net`.
    pub(super) fn of_name(path: &Path, net: &OwnedFd) -> Result<Self, WatchError> {
        let failed_io = |source| WatchError::Path { path: path.to_owned(), source };
        let failed = |errno: Errno| failed_io(errno.into());
        let unwatchable = || WatchError::Unwatchable(path.to_owned());
        // A link in `/proc` leads straight to the file, not to a name.
        let is_link = fs::symlink_metadata(path).map_err(failed_io)?.is_symlink();
        let real = if is_link { fs::canonicalize(path) } else { std::path::absolute(path) };
        let real = real.map_err(|_| unwatchable())?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(unwatchable());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(parent, flags, Mode::empty()).map_err(failed)?;
        let changes =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
        let of_interest = AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        changes.add_watch(parent, of_interest).map_err(failed)?;
        let mounts = File::open("/proc/self/mountinfo").map_err(failed_io)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(&changes, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        epoll.add(&mounts, EpollEvent::new(EpollFlags::EPOLLPRI, 0)).map_err(failed)?;
        let identity = identity(&fstat(net).map_err(failed)?);
        if name_means(&folder, name) != Ok(identity) {
            return Err(unwatchable());
        }
        let name = name.to_owned();
        let watched = NameWatch { epoll, folder, name, identity, changes, mounts };
        Ok(Self { what: path.display().to_string(), watched: Watched::Name(watched) })
    }

    /// Whether the target is gone by now. Never waits.
    pub fn is_gone(&self) -> bool {
        match &self.watched {
            Watched::End(end) => {
                let mut polled = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
                matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
            }
            Watched::Name(name) => name.is_gone(),
        }
    }

    /// What is watched, in words.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What a process outside of a sandbox has to watch.
    pub(crate) fn by_name(&self) -> Option<&NameWatch> {
        match &self.watched {
            Watched::End(_) => None,
            Watched::Name(name) => Some(name),
        }
    }

    /// The target, whose end is now signalled by `end`.
    pub(crate) fn seen_from_outside(self, end: OwnedFd) -> Self {
        Self { watched: Watched::End(end), ..self }
    }
}

impl AsFd for TargetWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.watched {
            Watched::End(end) => end.as_fd(),
            Watched::Name(name) => name.as_fd(),
        }
    }
}

impl NameWatch {
    /// Whether the name is gone by now, or means something else. Never waits, and does only what a
    /// signal handler may (signal-safety(7)).
    pub(crate) fn is_gone(&self) -> bool {
        // Clears pending events; their kind does not matter.
        let _ = self.epoll.wait(&mut [EpollEvent::empty(); 2], EpollTimeout::ZERO);
        let mut events = [0; 4096];
        while read(&self.changes, &mut events).is_ok_and(|len| len > 0) {}
        match name_means(&self.folder, &self.name) {
            Ok(now) => now != self.identity,
            // A folder that can no longer be read tells nothing.
            Err(errno) => matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE),
        }
    }

    /// The descriptors that this needs besides the one of [`AsFd`].
    pub(crate) fn needs(&self) -> [BorrowedFd<'_>; 3] {
        [self.folder.as_fd(), self.changes.as_fd(), self.mounts.as_fd()]
    }
}

impl AsFd for NameWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

fn name_means(folder: &OwnedFd, name: &OsStr) -> Result<Identity, Errno> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(|found| identity(&found))
}

const fn identity(file: &FileStat) -> Identity {
    (file.st_dev, file.st_ino)
}
