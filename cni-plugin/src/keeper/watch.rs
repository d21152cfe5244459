//! Whether the container still lives.
//!
//! # Theory of operation
//! Our TAP device keeps the network namespace alive, so the namespace itself does not tell.
//! Instead, one of its other holders is watched ([`TargetWatch`]): a process in it, or a file to
//! which it is bound. When that holder goes, another one is searched for: a second container may
//! have joined the namespace of the first and outlive it. The container has ended when no holder is
//! left.
//!
//! A process that its runtime hides (see [`waiting`](super::waiting)) is known by its descriptor
//! alone until it becomes accessible.
//!
//! An idle keeper never wakes up, unless inotify(7) has no instance left for us; then it checks
//! once a second.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use slirp_core::internals::process::ProcessFd;
use slirp_core::netns::{NamespaceId, NamespaceTarget, TargetWatch};

/// How often a file is checked when it cannot be watched (pasta's interval).
const LOOK_EVERY_MS: u16 = 1_000;
/// Most symbolic links on the way to one file (path_resolution(7)).
const LINKS_CAP: usize = 40;

/// A holder: it keeps the namespace alive.
#[derive(Debug)]
struct Holder {
    /// `/proc/PID/ns/net`, or a file to which the namespace is bound.
    path: PathBuf,
    teller: Teller,
}

/// How the end of a holder is noticed.
#[derive(Debug)]
enum Teller {
    Watch(TargetWatch),
    /// By the process itself, which is not accessible for the time being.
    HiddenProcess(ProcessFd),
    /// It is polled.
    Nobody,
}

impl Teller {
    fn is_gone(&self) -> bool {
        match self {
            Self::Watch(watch) => watch.is_gone(),
            Self::HiddenProcess(process) => process.wait(Duration::ZERO).unwrap_or(true),
            Self::Nobody => false,
        }
    }

    fn polled(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Watch(watch) => Some(watch.as_fd()),
            Self::HiddenProcess(process) => Some(process.as_fd()),
            Self::Nobody => None,
        }
    }
}

impl Holder {
    /// The holder at `path`, if that is the namespace.
    fn open(path: PathBuf, id: NamespaceId) -> Option<Self> {
        let target = NamespaceTarget::from_paths(&path, None).ok()?;
        (target.network_id().ok()? == id).then_some(())?;
        let watch = target.watch();
        if let Err(error) = &watch {
            tracing::warn!(%error, "the container is polled instead");
        }
        Some(Self { path, teller: watch.map_or(Teller::Nobody, Teller::Watch) })
    }

    fn holds(&self, id: NamespaceId) -> bool {
        !self.teller.is_gone()
            && match NamespaceId::of_path(&self.path) {
                Ok(found) => found == id,
                Err(error) => {
                    // The process was in the namespace when it was hidden, and has not changed.
                    error.kind() == io::ErrorKind::PermissionDenied
                        && matches!(self.teller, Teller::HiddenProcess(_))
                }
            }
    }
}

fn of_process(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// A watched network namespace.
#[derive(Debug)]
pub(super) struct Watch {
    id: NamespaceId,
    holder: Holder,
}

impl Watch {
    /// Watches the namespace at `path`; `None` when it does not exist any more.
    ///
    /// # Errors
    /// The errors of readlink(2).
    pub(super) fn start(path: &Path, id: NamespaceId) -> io::Result<Option<Self>> {
        let holder = match resolve(path)? {
            Place::Process(pid) => Holder::open(of_process(pid), id),
            Place::File(path) => Holder::open(path, id),
        };
        Ok(holder.map(|holder| Self { id, holder }))
    }

    /// Watches a process in the namespace that is not accessible, at `/proc/PID/ns/net`.
    pub(super) fn of_hidden_process(path: &Path, process: ProcessFd, id: NamespaceId) -> Self {
        let teller = Teller::HiddenProcess(process);
        Self { id, holder: Holder { path: path.to_owned(), teller } }
    }

    /// The descriptor to wait for.
    pub(super) fn polled(&self) -> Option<PollFd<'_>> {
        self.holder.teller.polled().map(|fd| PollFd::new(fd, PollFlags::POLLIN))
    }

    /// How long to wait for it.
    pub(super) fn timeout(&self) -> PollTimeout {
        match &self.holder.teller {
            Teller::Watch(_) | Teller::HiddenProcess(_) => PollTimeout::NONE,
            Teller::Nobody => PollTimeout::from(LOOK_EVERY_MS),
        }
    }

    /// Whether anything but us keeps the namespace alive; if not, the keeper ends. Call it after
    /// each wait.
    pub(super) fn is_held(&mut self) -> bool {
        if self.holder.holds(self.id) {
            return true;
        }
        match find_holder(self.id) {
            Some(holder) => {
                tracing::info!(?holder, "the network namespace is held by another");
                self.holder = holder;
                true
            }
            None => false,
        }
    }
}

/// A process in the namespace, or else a file that it is bound to.
fn find_holder(id: NamespaceId) -> Option<Holder> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut paths = pids.map(of_process);
    // Most processes are in other namespaces, and are not worth a descriptor.
    let is_there = |path: &PathBuf| NamespaceId::of_path(path).is_ok_and(|found| found == id);
    let process = paths.find_map(|path| is_there(&path).then(|| Holder::open(path, id)).flatten());
    process.or_else(|| {
        let mounts = fs::read("/proc/self/mountinfo").ok()?;
        bound_to(&mounts, id.inode).into_iter().find_map(|path| Holder::open(path, id))
    })
}

/// Files to which network namespace `inode` is bound, from the text of proc_pid_mountinfo(5).
fn bound_to(mounts: &[u8], inode: u64) -> Vec<PathBuf> {
    let wanted = format!("net:[{inode}]");
    let of_line = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ').skip(3);
        let is_wanted = fields.next()? == wanted.as_bytes();
        let path = fields.next()?;
        is_wanted.then(|| PathBuf::from(OsString::from_vec(unescape(path))))
    };
    mounts.split(|&byte| byte == b'\n').filter_map(of_line).collect()
}

/// Blanks and similar characters are written as a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [byte, behind @ ..] = rest {
        let digits = behind.first_chunk::<3>().filter(|_| *byte == b'\\');
        let escaped = digits
            .and_then(|digits| u8::from_str_radix(core::str::from_utf8(digits).ok()?, 8).ok());
        out.push(escaped.unwrap_or(*byte));
        rest = match escaped {
            Some(_) => behind.get(3..).unwrap_or_default(),
            None => behind,
        };
    }
    out
}

/// The destination of a path.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    /// To a namespace of this process.
    Process(i32),
    /// To a file.
    File(PathBuf),
}

/// Follows the links of `path` up to the file itself, or to `/proc/PID/ns/net`.
fn resolve(path: &Path) -> io::Result<Place> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_CAP {
        if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            path = fs::canonicalize(folder)?.join(name);
        }
        if let Some(pid) = process_of(&path) {
            return Ok(Place::Process(pid));
        }
        // Links in other folders of /proc lead to files without a name.
        if path.starts_with("/proc") || !fs::symlink_metadata(&path)?.is_symlink() {
            return Ok(Place::File(path));
        }
        let target = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    Err(nix::errno::Errno::ELOOP.into())
}

/// The process of `/proc/PID/ns/net` and `/proc/PID/task/TID/ns/net`.
pub(super) fn process_of(path: &Path) -> Option<i32> {
    let mut parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_bytes()),
        Component::RootDir | Component::CurDir | Component::ParentDir | Component::Prefix(_) => {
            None
        }
    });
    (parts.next()? == b"proc").then_some(())?;
    let pid = core::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let rest: Vec<&[u8]> = parts.collect();
    matches!(rest.as_slice(), [b"ns", b"net"] | [b"task", _, b"ns", b"net"]).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_processes_are_told_from_files() {
        for (path, pid) in [
            ("/proc/12/ns/net", Some(12)),
            ("/proc/12/task/13/ns/net", Some(12)),
            ("/proc/self/ns/net", None),
            ("/proc/12/fd/3", None),
            ("/run/netns/blue", None),
        ] {
            assert_eq!(process_of(Path::new(path)), pid, "{path}");
        }
    }

    #[test]
    fn own_namespace_is_found_through_links() {
        let folder = std::env::temp_dir().join(format!("slirp-watch-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let own = format!("/proc/{}/ns/net", std::process::id());
        std::os::unix::fs::symlink(&own, folder.join("a")).unwrap();
        std::os::unix::fs::symlink("a", folder.join("b")).unwrap();
        let place = resolve(&folder.join("b"));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(place.unwrap(), Place::Process(std::process::id().cast_signed()));
    }

    #[test]
    fn bound_namespaces_are_found_in_the_mount_table() {
        let mounts = b"22 1 0:21 / /proc rw - proc proc rw\n\
            90 1 0:4 net:[4026532281] /run/netns/a\\040b rw shared:9 - nsfs nsfs rw\n\
            91 1 0:4 mnt:[4026532281] /run/mnt rw - nsfs nsfs rw\n";
        assert_eq!(bound_to(mounts, 4_026_532_281), [PathBuf::from("/run/netns/a b")]);
        assert!(bound_to(mounts, 1).is_empty());
    }

    #[test]
    fn own_process_holds_its_namespace_and_no_other() {
        let own = of_process(std::process::id().cast_signed());
        let id = NamespaceId::of_path(&own).unwrap();
        assert!(Holder::open(own.clone(), id).is_some_and(|holder| holder.holds(id)));
        assert!(Holder::open(own, NamespaceId { inode: 1, ..id }).is_none());
    }
}
