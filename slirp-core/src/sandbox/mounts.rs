//! The file system of the sandbox: an empty, read-only root.
//!
//! Owns the way into it. pivot_root(2), mount_namespaces(7).
//!
//! # Theory of operation
//! A running network needs one file of the host, `/etc/resolv.conf`. It is replaced by renaming,
//! led by links into `/run` or elsewhere, removed and made again, so a mount of the file alone
//! would not follow it, and a mount of its folder would bring all of `/etc` along. A Landlock rule
//! has the same choice: it holds for one inode or for a whole folder. So nothing of the host is
//! here, and a helper process outside reads the file ([`Outside`](super::Outside)).
//!
//! The new root is made on top of a folder that exists everywhere, entered by pivot_root(2), and
//! the old one is unmounted. Where the kernel or a security module refuses that call (a root on the
//! initramfs, a root whose parent mount is shared, LXD), the new root is moved on top of the old
//! one and entered by chroot(2), as switch_root(8) does. The old root is then covered and not
//! unmounted; uncovering it would take CAP_SYS_ADMIN, and leaving by chroot(2) CAP_SYS_CHROOT,
//! which are both gone afterwards.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot, pivot_root};

use super::SandboxStep as Step;

/// Folders that the new root may be mounted on, the usual one first. A link would do as well,
/// unless it leads out of a chroot(1).
const BASES: [&str; 8] = ["/tmp", "/mnt", "/srv", "/opt", "/proc", "/sys", "/dev", "/usr"];

/// The root holds nothing.
const ROOT_OPTIONS: &str = "size=4k,mode=0555";

/// What the root never allows.
const SEALED: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

type StepResult<T> = Result<T, (Step, Errno)>;

/// Moves this process into a mount namespace of its own with nothing but an empty root.
/// `is_ours` says that the user namespace was entered only now: all mounts are slaves there.
pub(super) fn enter_empty_root(is_ours: bool) -> StepResult<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(at(Step::UnshareMounts))?;
    // From here on no other process sees our mounts.
    match mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none) {
        Ok(()) => {}
        Err(Errno::EINVAL) if is_ours => {}
        Err(errno) => return Err((Step::DetachMounts, errno)),
    }
    let base = BASES
        .iter()
        .map(Path::new)
        .find(|base| fs::canonicalize(base).is_ok_and(|real| real == **base && real.is_dir()))
        .ok_or((Step::MakeRoot, Errno::ENOENT))?;
    mount(Some("tmpfs"), base, Some("tmpfs"), SEALED, Some(ROOT_OPTIONS))
        .map_err(at(Step::MakeRoot))?;
    chdir(base).map_err(at(Step::MakeRoot))?;
    switch_root()
}

/// Makes the working folder, which is a mount, the root.
fn switch_root() -> StepResult<()> {
    // The new and the old root may be the same folder: the old one then lies on top (pivot_root(2),
    // "pivot_root(".", ".")").
    if pivot_root(".", ".").is_ok() {
        umount2(".", MntFlags::MNT_DETACH).map_err(at(Step::LeaveOldRoot))?;
    } else {
        let none = None::<&str>;
        mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(at(Step::SwitchRoot))?;
        chroot(".").map_err(at(Step::SwitchRoot))?;
    }
    chdir("/").map_err(at(Step::SwitchRoot))
}

fn at(step: Step) -> impl FnOnce(Errno) -> (Step, Errno) {
    move |errno| (step, errno)
}
