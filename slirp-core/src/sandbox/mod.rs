//! Giving up what a running network does not need, in case a guest ever gets hold of the process.
//!
//! Owns [`Sandbox`]: namespaces and capabilities, in this file the order of the steps, in `mounts`
//! the file system, in `capabilities` the privileges, in `host::outside` the process that stays;
//! and the filter of system calls ([`seccomp`]). Nothing here knows a packet. user_namespaces(7),
//! capabilities(7).
//!
//! # Theory of operation
//! A sandbox is entered once, before the process has a second thread: capabilities, mount
//! namespaces and system call filters belong to threads and are inherited by those started later,
//! so [`Instance`](crate::instance::Instance) and everything beside it is started afterwards. What
//! needs privileges or the file system is opened before: TAP device, API socket, capture files.
//!
//! 1. a process that stays outside, for what needs the host's files: it reads resolv.conf, watches
//!    the name of the target, and removes the files of our sockets. It serves no other
//!    request
//! 2. user namespace, if not root: the guest's, where we become root, or else a new one. Its
//!    capabilities are void outside
//! 3. mount namespace: an empty, read-only root
//! 4. the thread in the guest's network namespace, if there is one to be
//!    ([`Splices`](crate::instance::Splices)), enters it and gives up its own capabilities
//! 5. capabilities: only CAP_NET_BIND_SERVICE is left, and no way to get others; the identity, if
//!    there is another to take on
//! 6. abstract UNIX sockets of the host are out of reach, from Linux 6.12 on: they belong to the
//!    network namespace. landlock(7)
//! 7. memory: neither core files nor ptrace(2)
//!
//! The network namespace stays the host's, because the traffic leaves there. Deliberately left
//! alone: process ids, since a PID namespace takes a fork; and inherited descriptors, which only a
//! program that owns its whole process may close (`internals::process::close_inherited_fds`).
//!
//! Without CAP_NET_RAW the guest's echo requests need ping sockets (`net.ipv4.ping_group_range`)
//! even when we were started by root.
//!
//! A caller's PR_SET_PDEATHSIG survives, though the kernel clears it when a process changes its
//! user.

#![expect(clippy::disallowed_methods, reason = "the root directory and id maps are files")]

mod capabilities;
mod mounts;
pub mod seccomp;

pub use crate::host::outside::{Outside, RemovedFile};
pub use crate::sys::privilege::Identity;

use core::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::raise;
use nix::unistd::{Gid, Uid, getegid, geteuid, getppid, setresgid, setresuid};

use crate::netns::{NameWatch, TargetWatch};
use crate::sys::errno::{errno_of, text_of};
use crate::sys::outside::Watched;
use crate::sys::privilege::scope_abstract_sockets;
use crate::sys::process::thread_count;

/// A step on the way into the sandbox. Its text names the system call or its purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SandboxStep {
    /// Starting the process that stays outside.
    StartHelper,
    /// Joining the user namespace.
    EnterUser,
    /// Making a user namespace.
    MakeUser,
    /// Becoming group 0 of the user namespace.
    BecomeGroup,
    /// Becoming user 0 of the user namespace.
    BecomeUser,
    /// Making a mount namespace.
    UnshareMounts,
    /// Keeping our mounts from the host.
    DetachMounts,
    /// Making the new root.
    MakeRoot,
    /// Entering the new root.
    SwitchRoot,
    /// Unmounting the old root.
    LeaveOldRoot,
    /// Emptying the bounding set.
    DropBoundingSet,
    /// Forbidding new privileges.
    NoNewPrivileges,
    /// Emptying the ambient set.
    ClearAmbientSet,
    /// Becoming another user and group.
    ChangeIdentity,
    /// Reducing the effective, permitted and inheritable sets.
    SetCapabilities,
    /// Forbidding core files.
    LimitCore,
    /// Forbidding ptrace(2).
    SetDumpable,
}

impl fmt::Display for SandboxStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartHelper => "cannot start the process that stays outside",
            Self::EnterUser => "setns(CLONE_NEWUSER)",
            Self::MakeUser => "unshare(CLONE_NEWUSER)",
            Self::BecomeGroup => "setegid(0)",
            Self::BecomeUser => "seteuid(0)",
            Self::UnshareMounts => "unshare(CLONE_NEWNS)",
            Self::DetachMounts => "cannot make the mounts slaves",
            Self::MakeRoot => "cannot make a root directory",
            Self::SwitchRoot => "cannot switch to the new root directory",
            Self::LeaveOldRoot => "cannot unmount the old root directory",
            Self::DropBoundingSet => "prctl(PR_CAPBSET_DROP)",
            Self::NoNewPrivileges => "prctl(PR_SET_NO_NEW_PRIVS)",
            Self::ClearAmbientSet => "prctl(PR_CAP_AMBIENT_CLEAR_ALL)",
            Self::ChangeIdentity => "cannot become the other user and group",
            Self::SetCapabilities => "capset",
            Self::LimitCore => "setrlimit(RLIMIT_CORE)",
            Self::SetDumpable => "prctl(PR_SET_DUMPABLE)",
        })
    }
}

/// Why there is no sandbox. Some steps may have been taken, so the process should end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The process has this many threads; all but the calling one would stay outside.
    #[error("the process has {0} threads; enter the sandbox before any is started")]
    SeveralThreads(usize),
    /// A step failed.
    #[error("sandbox: {step}: {}", text_of(source))]
    Step {
        /// Which one.
        step: SandboxStep,
        /// The error of the system call.
        source: io::Error,
    },
}

impl SandboxError {
    /// What a person can do about it, where that is not obvious; goes on a line of its own.
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Step { step, source } = self else { return None };
        match (step, errno_of(source)) {
            (SandboxStep::EnterUser, Errno::EPERM) => {
                Some("only the owner of a user namespace can enter it; run as the guest's owner")
            }
            (SandboxStep::MakeUser, Errno::EPERM | Errno::EACCES) => Some(
                "unprivileged user namespaces are forbidden here \
                 (kernel.unprivileged_userns_clone, \
                 kernel.apparmor_restrict_unprivileged_userns); give the guest's user namespace \
                 (--userns-path) or run without the sandbox",
            ),
            (SandboxStep::MakeUser, Errno::ENOSPC) => {
                Some("no more user namespaces are allowed (user.max_user_namespaces)")
            }
            (SandboxStep::BecomeUser | SandboxStep::BecomeGroup, Errno::EINVAL) => {
                Some("the user namespace has no user and group 0; map them (newuidmap, newgidmap)")
            }
            (SandboxStep::ChangeIdentity, Errno::EPERM) => {
                Some("only root may become another user (CAP_SETUID and CAP_SETGID)")
            }
            (SandboxStep::ChangeIdentity, Errno::EINVAL) => Some(
                "the user namespace has no such user or group; map them (newuidmap, newgidmap)",
            ),
            (SandboxStep::UnshareMounts, Errno::EPERM) => Some(
                "no right to make a mount namespace: give the guest's user namespace \
                 (--userns-path), grant CAP_SYS_ADMIN, or run without the sandbox",
            ),
            (SandboxStep::UnshareMounts, Errno::ENOSPC) => Some(
                "no more mount namespaces are allowed: raise the sysctl user.max_mnt_namespaces",
            ),
            (SandboxStep::DetachMounts, Errno::EINVAL) => Some(
                "the root directory is not a mount point; bind it onto itself before chroot(1)",
            ),
            (
                SandboxStep::DetachMounts
                | SandboxStep::MakeRoot
                | SandboxStep::SwitchRoot
                | SandboxStep::LeaveOldRoot,
                Errno::EACCES | Errno::EPERM,
            ) => Some(
                "a security module (AppArmor, SELinux) or an outer container forbids mounts here; \
                 allow them or run without the sandbox",
            ),
            (SandboxStep::DropBoundingSet | SandboxStep::SetCapabilities, Errno::EPERM) => Some(
                "the caller took CAP_SETPCAP or CAP_NET_BIND_SERVICE away; leave them to us, we \
                 drop all others",
            ),
            _ => None,
        }
    }
}

impl From<(SandboxStep, Errno)> for SandboxError {
    fn from((step, errno): (SandboxStep, Errno)) -> Self {
        Self::Step { step, source: errno.into() }
    }
}

/// What the sandboxed process keeps of its sandbox.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "without the process outside no resolv.conf is found"]
pub struct Entered {
    /// What stays outside, for [`Builder::outside`](crate::instance::Builder::outside).
    pub outside: Outside,
    /// The target that [`Sandbox::target`] was given.
    pub target: Option<TargetWatch>,
}

/// A sandbox that the whole process is about to enter. There is no way out.
#[derive(Debug)]
pub struct Sandbox {
    user_namespace: Option<OwnedFd>,
    resolv_conf: Option<PathBuf>,
    removed: Vec<RemovedFile>,
    target: Option<TargetWatch>,
    identity: Option<Identity>,
}

impl Default for Sandbox {
    fn default() -> Self {
        let resolv_conf = Some(PathBuf::from("/etc/resolv.conf"));
        Self {
            user_namespace: None,
            resolv_conf,
            removed: Vec::new(),
            target: None,
            identity: None,
        }
    }
}

impl Sandbox {
    /// A sandbox of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file that names the resolvers (default `/etc/resolv.conf`), wherever it is; `None` where
    /// it is not needed. It is followed as outside.
    #[must_use]
    pub fn resolv_conf(mut self, file: Option<PathBuf>) -> Self {
        self.resolv_conf = file;
        self
    }

    /// One more file that the process outside removes at the end, even after SIGKILL: the file of a
    /// socket of ours, such as the [API socket](crate::control::server::ApiSocket::file).
    #[must_use]
    pub fn removed_file(mut self, file: Option<RemovedFile>) -> Self {
        self.removed.extend(file);
        self
    }

    /// A target that is watched from inside. A target named by a path is watched by the process
    /// outside, and counts as gone when that process is gone.
    #[must_use]
    pub fn target(mut self, target: Option<TargetWatch>) -> Self {
        self.target = target;
        self
    }

    /// The user namespace of the guest, in which a process that is not root becomes root. Without
    /// it such a process makes a user namespace of its own. Not used by root.
    #[must_use]
    pub fn user_namespace(mut self, namespace: Option<OwnedFd>) -> Self {
        self.user_namespace = namespace;
        self
    }

    /// The identity of the process inside (default: that of the caller). The process that stays
    /// outside keeps the caller's.
    #[must_use]
    pub fn identity(mut self, identity: Option<Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// The identity of the process inside, if it is another.
    pub(crate) const fn identity_to_be(&self) -> Option<Identity> {
        self.identity
    }

    /// Enters it.
    ///
    /// # Errors
    /// See [`SandboxError`]. Some steps are done then, so the process should end.
    pub fn enter(self) -> Result<Entered, SandboxError> {
        self.enter_after(|| ()).map(|(entered, ())| entered)
    }

    /// The same, and does `last` as the last thing with the capabilities of a root.
    pub(crate) fn enter_after<T>(
        mut self,
        last: impl FnOnce() -> T,
    ) -> Result<(Entered, T), SandboxError> {
        match thread_count() {
            Some(count) if count > 1 => return Err(SandboxError::SeveralThreads(count)),
            Some(_) | None => {}
        }
        let target = self.target.take();
        let (outside, target) =
            start_outside(self.resolv_conf.as_deref(), std::mem::take(&mut self.removed), target)
                .map_err(|source| SandboxError::Step { step: SandboxStep::StartHelper, source })?;
        let (is_root, identity) = (geteuid().is_root(), self.identity);
        if !is_root {
            self.become_root()?;
        }
        mounts::enter_empty_root(!is_root)?;
        let done = last();
        keeping_death_signal(|| capabilities::keep_only_net_bind_service(identity))?;
        // Best effort: older kernels lack this, and the filter achieves the same.
        let _may_be_absent = scope_abstract_sockets();
        capabilities::forbid_memory_dumps()?;
        Ok((Entered { outside, target }, done))
    }

    /// Becomes user and group 0 of a user namespace. Outside, they may be any unprivileged user and
    /// group.
    fn become_root(self) -> Result<(), (SandboxStep, Errno)> {
        match self.user_namespace {
            Some(namespace) => match setns(&namespace, CloneFlags::CLONE_NEWUSER) {
                // EINVAL: we are in it already.
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(errno) => return Err((SandboxStep::EnterUser, errno)),
            },
            None => make_user_namespace().map_err(|errno| (SandboxStep::MakeUser, errno))?,
        }
        let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
        keeping_death_signal(|| {
            setresgid(group, group, group).map_err(|errno| (SandboxStep::BecomeGroup, errno))?;
            setresuid(user, user, user).map_err(|errno| (SandboxStep::BecomeUser, errno))
        })
    }
}

/// Changes the user, at which the kernel forgets a caller's PR_SET_PDEATHSIG, and sets it again.
fn keeping_death_signal<E>(change: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let death_signal = prctl::get_pdeathsig().ok().flatten();
    let parent = getppid();
    change()?;
    if let Some(signal) = death_signal {
        // Not worth failing for: the signal is only a precaution of the caller.
        let _kept = prctl::set_pdeathsig(signal);
        if getppid() != parent {
            // The parent died while no signal was set.
            let _ended = raise(signal);
        }
    }
    Ok(())
}

/// Starts the process that stays outside, if there is anything for it to do. From here on that
/// process watches a target that is watched by its name.
fn start_outside(
    resolv_conf: Option<&Path>,
    removed: Vec<RemovedFile>,
    target: Option<TargetWatch>,
) -> io::Result<(Outside, Option<TargetWatch>)> {
    let by_name = target.as_ref().and_then(TargetWatch::by_name);
    let is_gone = || by_name.is_some_and(NameWatch::is_gone);
    let watched =
        by_name.map(|name| Watched { wakes: name.as_fd(), kept: name.needs(), is_gone: &is_gone });
    let (outside, gone) = Outside::start(resolv_conf, removed, watched.as_ref())?;
    let target = match gone {
        Some(gone) => target.map(|target| target.seen_from_outside(gone)),
        None => target,
    };
    Ok((outside, target))
}

/// A user namespace in which the present user is root.
fn make_user_namespace() -> Result<(), Errno> {
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    let write = |path: &str, text: String| {
        fs::write(path, text)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
    };
    // Before the groups can be mapped without privileges (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/gid_map", format!("0 {group} 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_with_threads_is_refused() {
        // The test runner is another thread.
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || wait.recv().is_err());
        let error = Sandbox::new().enter().unwrap_err();
        drop(done);
        second.join().unwrap();
        assert!(matches!(error, SandboxError::SeveralThreads(2..)), "{error}");
    }

    #[test]
    fn failures_say_what_failed_and_what_to_do() {
        let error = SandboxError::from((SandboxStep::BecomeUser, Errno::EINVAL));
        assert_eq!(error.to_string(), "sandbox: seteuid(0): Invalid argument");
        assert!(error.hint().is_some_and(|hint| hint.contains("newuidmap")));
        let error = SandboxError::from((SandboxStep::UnshareMounts, Errno::EPERM));
        assert!(error.hint().is_some_and(|hint| hint.contains("--userns-path")));
        assert_eq!(SandboxError::SeveralThreads(2).hint(), None);
    }
}
