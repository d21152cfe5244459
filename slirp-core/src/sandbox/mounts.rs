//! The file system of the sandbox: a read-only root with `/etc` and the folder of resolv.conf.
//!
//! Owns the layout of the new root and the way into it. pivot_root(2), mount_namespaces(7).
//!
//! # Theory of operation
//! The name servers change while we run, and `/etc/resolv.conf` is often a symbolic link into a
//! folder below `/run`. So `/etc` and that folder, and no other of `/run`, where the sockets of
//! services are, are bound into the new root with everything that is mounted below them, and as
//! slaves, so that what the host mounts there later shows up here, too. Everything of them is
//! read-only, without devices, programs and set-user-ID bits.
//!
//! A link may lead elsewhere (WSL: `/mnt/wsl/resolv.conf`) or take a way through elsewhere
//! (`/var/run -> /run`). The links on the way are made again in the new root. A file that is neither
//! in `/etc` nor in a folder below `/run` is bound by itself, not with its folder, which could be
//! somebody's home: it is followed when it is rewritten in place, not when another file takes its
//! name. [`Layout::resolv_conf`] names it, so that a person can be told.
//!
//! The new root is made on top of a folder that exists everywhere, entered by pivot_root(2), and
//! the old one is unmounted. Where the kernel or a security module refuses that call (a root on the
//! initramfs, a root whose parent mount is shared, LXD), the new root is moved on top of the old
//! one and entered by chroot(2), as switch_root(8) does. The old root is then covered and not
//! unmounted; uncovering it would take CAP_SYS_ADMIN, and leaving by chroot(2) CAP_SYS_CHROOT, which
//! are both gone afterwards.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, pivot_root};

use super::SandboxStep as Step;
use crate::sys::privilege::seal_mount_tree;

/// The folder that is kept whatever the way to resolv.conf is.
const KEPT: &str = "/etc";

/// The folder of which those on the way to resolv.conf are kept, but not itself.
const KEPT_IN_PART: &str = "/run";

/// The file that they are kept for.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Folders that the new root may be made on, the usual first. It covers them, so the one chosen must
/// not be on the way to resolv.conf.
const BASES: [&str; 8] = ["/tmp", "/mnt", "/srv", "/opt", "/proc", "/sys", "/dev", "/usr"];

/// Links on the way to one file (path_resolution(7)).
const LINKS_CAP: usize = 40;

/// The root needs no room: empty files, folders and short links are all that it holds.
const ROOT_OPTIONS: &str = "size=64k,mode=0755";

/// What the root and the folders in it never allow.
const SEALED: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// What to make in the new root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layout {
    /// The folders that are kept.
    kept: Vec<PathBuf>,
    /// Links outside the kept folders, with what they say.
    links: Vec<(PathBuf, PathBuf)>,
    /// The file that holds the name servers, if it is outside the kept folders.
    pub(super) resolv_conf: Option<PathBuf>,
}

impl Layout {
    /// Follows `file` link by link. `kept` is kept, and what the way meets in folders of `in_part`.
    /// A link that leads nowhere ends the search: the file may come to exist, and the links lead to
    /// it if it does so in a kept folder.
    fn of(file: &Path, kept: &Path, in_part: &Path) -> Self {
        let mut layout = Self { kept: vec![kept.to_owned()], ..Self::default() };
        let mut links = 0;
        let mut walked = PathBuf::from("/");
        let mut ahead = parts(file);
        while let Some(part) = ahead.pop() {
            if part.as_os_str() == ".." {
                walked.pop();
                continue;
            }
            walked.push(&part);
            let Ok(target) = fs::read_link(&walked) else { continue };
            links += 1;
            if links > LINKS_CAP {
                break;
            }
            layout.keep_folder_of(&walked, in_part);
            let link = (walked.clone(), target.clone());
            if !layout.links.contains(&link) {
                layout.links.push(link);
            }
            if target.is_absolute() {
                walked = PathBuf::from("/");
            } else {
                walked.pop();
            }
            ahead.extend(parts(&target));
        }
        if links <= LINKS_CAP {
            layout.keep_folder_of(&walked, in_part);
            if !layout.keeps(&walked) && fs::metadata(&walked).is_ok_and(|file| file.is_file()) {
                layout.resolv_conf = Some(walked);
            }
        }
        // The kept folders themselves are bound through whatever link they are.
        let links = core::mem::take(&mut layout.links);
        layout.links = links.into_iter().filter(|(at, _)| !layout.keeps(at)).collect();
        layout
    }

    /// Keeps the folder that `path` is in, if that is a folder below `in_part`.
    fn keep_folder_of(&mut self, path: &Path, in_part: &Path) {
        let Some(folder) = path.parent() else { return };
        let is_part = folder != in_part && folder.starts_with(in_part);
        if is_part && folder.is_dir() && !self.keeps(folder) {
            self.kept.retain(|inner| !inner.starts_with(folder));
            self.kept.push(folder.to_owned());
        }
    }

    fn keeps(&self, path: &Path) -> bool {
        self.kept.iter().any(|folder| path.starts_with(folder))
    }

    /// Whether something of the layout is at or below `folder`.
    fn touches(&self, folder: &Path) -> bool {
        self.links
            .iter()
            .map(|(at, _)| at)
            .chain(&self.resolv_conf)
            .chain(&self.kept)
            .any(|at| at.starts_with(folder))
    }
}

/// The names of a path, the last first; `..` is one of them.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<_> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| PathBuf::from(part.as_os_str()))
        .collect();
    parts.reverse();
    parts
}

type StepResult<T> = Result<T, (Step, Errno)>;

/// Moves this process into a mount namespace of its own with nothing but the new root.
/// `is_ours` says that the user namespace was entered only now: all mounts are slaves there.
pub(super) fn enter_minimal_root(is_ours: bool) -> StepResult<Layout> {
    let layout = Layout::of(RESOLV_CONF.as_ref(), KEPT.as_ref(), KEPT_IN_PART.as_ref());
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(Step::UnshareMounts))?;
    // From here on nothing that we mount is seen by anybody else.
    match set_flags("/", MsFlags::MS_SLAVE | MsFlags::MS_REC) {
        Ok(()) => {}
        Err(Errno::EINVAL) if is_ours => {}
        Err(errno) => return Err((Step::DetachMounts, errno)),
    }
    let base = BASES
        .iter()
        .map(Path::new)
        .find(|base| {
            fs::canonicalize(base).is_ok_and(|real| real == **base && real.is_dir())
                && !layout.touches(base)
        })
        .ok_or((Step::MakeRoot, Errno::ENOENT))?;
    let flags = SEALED.difference(MsFlags::MS_RDONLY);
    mount(Some("tmpfs"), base, Some("tmpfs"), flags, Some(ROOT_OPTIONS))
        .map_err(at(Step::MakeRoot))?;
    populate(base, &layout)?;
    chdir(base).map_err(at(Step::MakeRoot))?;
    switch_root()?;
    // The flags of the file system would stay; those of the mount are enough.
    let _writable_but_tiny = set_flags("/", SEALED | MsFlags::MS_BIND | MsFlags::MS_REMOUNT);
    Ok(layout)
}

/// Fills the new root at `base`.
fn populate(base: &Path, layout: &Layout) -> StepResult<()> {
    let inside = |path: &Path| base.join(path.strip_prefix("/").unwrap_or(path));
    for folder in &layout.kept {
        if !folder.is_dir() {
            continue;
        }
        fs::create_dir_all(inside(folder)).map_err(io_at(Step::MakeRoot))?;
        bind(folder, &inside(folder))?;
    }
    for (path, target) in &layout.links {
        make_parent(&inside(path))?;
        symlink(target, inside(path)).map_err(io_at(Step::MakeRoot))?;
    }
    if let Some(file) = &layout.resolv_conf {
        make_parent(&inside(file))?;
        fs::File::create_new(inside(file)).map_err(io_at(Step::MakeRoot))?;
        bind(file, &inside(file))?;
    }
    Ok(())
}

fn make_parent(path: &Path) -> StepResult<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(io_at(Step::MakeRoot))
}

/// Binds a folder with all that is mounted below it, or a file, and seals it.
fn bind(from: &Path, to: &Path) -> StepResult<()> {
    let none = None::<&Path>;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .map_err(at(Step::BindFolder))?;
    let path =
        CString::new(to.as_os_str().as_bytes()).map_err(|_| (Step::SealFolder, Errno::EINVAL))?;
    if seal_mount_tree(&path).is_ok() {
        return Ok(());
    }
    // An older kernel: what is mounted further down keeps the flags that it has.
    set_flags(to, SEALED | MsFlags::MS_BIND | MsFlags::MS_REMOUNT).map_err(at(Step::SealFolder))
}

/// Makes the working folder, which is a mount, the root.
fn switch_root() -> StepResult<()> {
    // The new and the old root may be one and the same place: the old one then lies on top
    // (pivot_root(2), "pivot_root(".", ".")").
    if pivot_root(".", ".").is_ok() {
        umount2(".", MntFlags::MNT_DETACH).map_err(at(Step::LeaveOldRoot))?;
    } else {
        let none = None::<&str>;
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(at(Step::SwitchRoot))?;
        chroot(".").map_err(at(Step::SwitchRoot))?;
    }
    chdir("/").map_err(at(Step::SwitchRoot))
}

fn set_flags(path: impl AsRef<Path>, flags: MsFlags) -> Result<(), Errno> {
    let none = None::<&Path>;
    mount(none, path.as_ref(), none, flags, none)
}

fn at(step: Step) -> impl FnOnce(Errno) -> (Step, Errno) {
    move |errno| (step, errno)
}

fn io_at(step: Step) -> impl FnOnce(io::Error) -> (Step, Errno) {
    move |error| (step, Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that holds `kept/`, perhaps `run/`, and whatever the test makes; removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let name = format!("slirp-mounts-{}-{name}", std::process::id());
            let base = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
            fs::create_dir_all(base.join("kept")).unwrap();
            Self(base)
        }

        fn link(&self, at: &str, target: &str) {
            symlink(target, self.0.join(at)).unwrap();
        }

        fn file(&self, at: &str) {
            let path = self.0.join(at);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "nameserver 192.0.2.1\n").unwrap();
        }

        fn layout(&self) -> Layout {
            let kept = self.0.join("kept");
            Layout::of(&kept.join("resolv.conf"), &kept, &self.0.join("run"))
        }

        /// Nothing but these folders.
        fn only(&self, kept: &[&str]) -> Layout {
            let kept = kept.iter().map(|folder| self.0.join(folder)).collect();
            Layout { kept, ..Layout::default() }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn file_in_a_kept_folder_needs_nothing_else() {
        let tree = Tree::new("plain");
        tree.file("kept/resolv.conf");
        assert_eq!(tree.layout(), tree.only(&["kept"]));
    }

    #[test]
    fn link_within_the_kept_folders_needs_nothing_else() {
        let tree = Tree::new("inner");
        tree.file("kept/systemd/stub");
        tree.link("kept/resolv.conf", "../kept/systemd/stub");
        assert_eq!(tree.layout(), tree.only(&["kept"]));
    }

    #[test]
    fn link_that_leaves_brings_its_file_along() {
        let tree = Tree::new("outer");
        tree.file("wsl/resolv.conf");
        tree.link("kept/resolv.conf", "../wsl/resolv.conf");
        let layout = tree.layout();
        assert_eq!(layout.resolv_conf, Some(tree.0.join("wsl/resolv.conf")));
        assert_eq!(layout.links, []);
        assert!(layout.touches(&tree.0) && !layout.touches(&tree.0.join("other")));
    }

    #[test]
    fn of_run_only_the_folders_on_the_way_are_kept() {
        let tree = Tree::new("parts");
        tree.file("run/user/1000/bus");
        tree.file("run/resolve/stub");
        tree.file("run/manager/other");
        tree.link("kept/resolv.conf", "../run/resolve/link");
        tree.link("run/resolve/link", "stub");
        assert_eq!(tree.layout(), tree.only(&["kept", "run/resolve"]));
        // The file may come to exist.
        fs::remove_file(tree.0.join("run/resolve/link")).unwrap();
        assert_eq!(tree.layout(), tree.only(&["kept", "run/resolve"]));
        tree.link("run/resolve/link", "../manager/other");
        assert_eq!(tree.layout(), tree.only(&["kept", "run/resolve", "run/manager"]));
    }

    #[test]
    fn file_in_run_itself_comes_alone() {
        let tree = Tree::new("bare");
        tree.file("run/resolv.conf");
        tree.link("kept/resolv.conf", "../run/resolv.conf");
        let layout = tree.layout();
        assert_eq!(layout.kept, tree.only(&["kept"]).kept);
        assert_eq!(layout.resolv_conf, Some(tree.0.join("run/resolv.conf")));
    }

    #[test]
    fn way_back_through_an_outer_link_is_made_again() {
        let tree = Tree::new("detour");
        tree.file("kept/resolvers");
        fs::create_dir(tree.0.join("var")).unwrap();
        tree.link("var/run", "../kept");
        tree.link("kept/resolv.conf", tree.0.join("var/run/resolvers").to_str().unwrap());
        let layout = tree.layout();
        assert_eq!(layout.links, [(tree.0.join("var/run"), PathBuf::from("../kept"))]);
        assert_eq!(layout.resolv_conf, None);
    }

    #[test]
    fn dangling_and_endless_links_end_the_search() {
        let tree = Tree::new("dangling");
        tree.link("kept/resolv.conf", "../nowhere/resolv.conf");
        assert_eq!(tree.layout(), tree.only(&["kept"]));
        let tree = Tree::new("endless");
        tree.link("kept/resolv.conf", "../loop");
        tree.link("loop", "kept/resolv.conf");
        assert_eq!(tree.layout().links.len(), 1);
        assert_eq!(tree.layout().resolv_conf, None);
    }
}
