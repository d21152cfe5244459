//! A TAP device in another network namespace.
//!
//! Owns the target ([`NamespaceTarget`]), what to do there ([`TapRequest`]) and the way it can fail
//! ([`AttachError`]). The process that joins the namespaces is in `sys`, the device itself in
//! [`Tap`]. namespaces(7), setns(2), user_namespaces(7).

#![expect(clippy::disallowed_methods, reason = "namespaces are files")]

mod configuration;
pub(crate) mod difference;
mod error;
mod process;
pub(crate) mod setup;
mod watch;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

pub use configuration::{Configuration, Ipv6Configuration};
pub use error::AttachError;
pub use setup::{Refusal, Setup};
pub(crate) use watch::NameWatch;
pub use watch::{TargetWatch, WatchError};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use process::{Process, in_proc, open_file};

use crate::host::link::{OffloadCeiling, Tap};
use crate::mac::MacAddr;
use crate::sys::attach::{self, Order, open_in_namespaces};
use crate::sys::ifreq::InterfaceRequest;
pub use crate::sys::step::AttachStep;
use crate::sys::{nsfs, owner_of};

/// Namespaces to put a TAP device into; both are open, so they exist as long as this does.
#[derive(Debug)]
pub struct NamespaceTarget {
    net: OwnedFd,
    user: Option<OwnedFd>,
    path: PathBuf,
    /// The process that the network namespace was taken from.
    process: Option<Process>,
    /// Whether the network namespace may be our own; otherwise it is refused.
    may_be_own: bool,
}

impl NamespaceTarget {
    /// The network namespace of the process `pid`, and the user namespace to join first. Both come
    /// from one process, even if it ends meanwhile and its number is reused.
    ///
    /// The user namespace is the owner of the network namespace if this process may look it up,
    /// otherwise the target process's own. The two differ if the target has entered a further user
    /// namespace since, as processes under bubblewrap do. A process in that inner user namespace
    /// cannot enter a network namespace of the outer one.
    ///
    /// # Errors
    /// [`AttachError::OpenNamespace`] when there is no such process, or it is not accessible.
    pub fn of_pid(pid: i32) -> Result<Self, AttachError> {
        let path = |kind: &str| PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        let mut target = Self::from_paths(&path("net"), Some(&path("user")))?;
        if let Ok(owner) = owner_of(target.net.as_fd()) {
            target.user = Some(owner);
        }
        Ok(target)
    }

    /// The network namespace at `net` and, if it is to be joined first, the user namespace at
    /// `user`. Paths of one process below `/proc` are as good as [`of_pid`](Self::of_pid).
    ///
    /// # Errors
    /// [`AttachError::OpenNamespace`] or [`AttachError::OpenUserNamespace`] when one cannot be
    /// opened.
    pub fn from_paths(net: &Path, user: Option<&Path>) -> Result<Self, AttachError> {
        let error = |path: &Path, source| AttachError::OpenNamespace { path: path.into(), source };
        let process = in_proc(net)
            .map(|(pid, _)| Process::open(pid))
            .transpose()
            .map_err(|errno| error(net, errno.into()))?;
        let open = |path: &Path| match (in_proc(path), &process) {
            (Some((pid, rest)), Some(process)) if pid == process.pid => process.file(rest),
            _ => open_file(AT_FDCWD, path),
        };
        let net_fd = open(net).map_err(|errno| error(net, errno.into()))?;
        let open_user = |path: &Path| open(path).map_err(|errno| no_user_namespace(path, errno));
        let user = user.map(open_user).transpose()?;
        Ok(Self { net: net_fd, user, path: net.to_owned(), process, may_be_own: false })
    }

    /// Lets the target be the caller's own network namespace. A device with a default route there
    /// cuts the caller off from its network.
    #[must_use]
    pub fn even_our_own(mut self) -> Self {
        self.may_be_own = true;
        self
    }

    /// Refuses what was opened at `path`, to be joined first, if it is no user namespace. To join
    /// such a thing has the errno of joining our own namespace once more, so nobody would be told.
    ///
    /// # Errors
    /// [`AttachError::OpenUserNamespace`] with `EINVAL`.
    pub fn verify_user(&self, path: &Path) -> Result<(), AttachError> {
        match self.user.as_ref().map(|user| nsfs::kind(user.as_fd())) {
            None | Some(Ok(libc::CLONE_NEWUSER)) => Ok(()),
            Some(Ok(_) | Err(_)) => Err(no_user_namespace(path, Errno::EINVAL)),
        }
    }

    fn refuse_our_own(&self) -> Result<(), AttachError> {
        let failed = |source| AttachError::OpenNamespace { path: self.path.clone(), source };
        // Without /proc it cannot be told.
        match NamespaceId::of_path(Path::new("/proc/thread-self/ns/net")) {
            Ok(own) if !self.may_be_own && self.network_id().map_err(failed)? == own => {
                Err(AttachError::OwnNamespace(self.path.clone()))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Watches for the end of the target: see [`TargetWatch`].
    ///
    /// # Errors
    /// See [`WatchError`].
    pub fn watch(&self) -> Result<TargetWatch, WatchError> {
        match (&self.process, in_proc(&self.path)) {
            (Some(process), Some((_, rest))) if rest == Path::new("ns/net") => {
                TargetWatch::of_process(process)
            }
            (process, _) => match (TargetWatch::of_name(&self.path, &self.net), process) {
                (Err(WatchError::Unwatchable(_)), Some(process)) => {
                    TargetWatch::of_process(process)
                }
                (watched, _) => watched,
            },
        }
    }

    /// The network namespace at `net`, wherever that is. Its owning user namespace is joined first,
    /// unless it is our own.
    ///
    /// # Errors
    /// [`AttachError::OpenNamespace`] when it cannot be opened, [`AttachError::NotNetwork`] when it
    /// is something else, [`AttachError::ForeignOwner`] when its owner is neither our user
    /// namespace nor below it.
    pub fn of_path(net: &Path) -> Result<Self, AttachError> {
        let target = Self::from_paths(net, None)?;
        if nsfs::kind(target.net.as_fd()) != Ok(libc::CLONE_NEWNET) {
            return Err(AttachError::NotNetwork(net.to_owned()));
        }
        let owner =
            owner_of(target.net.as_fd()).map_err(|_| AttachError::ForeignOwner(net.to_owned()))?;
        let failed = |source| AttachError::OpenNamespace { path: net.to_owned(), source };
        let ours = NamespaceId::of_path(Path::new("/proc/self/ns/user")).map_err(failed)?;
        let is_ours = NamespaceId::of_file(owner.as_fd()).map_err(failed)? == ours;
        Ok(Self { user: (!is_ours).then_some(owner), ..target })
    }

    /// Identifies the network namespace among all others while this exists.
    ///
    /// # Errors
    /// The errors of fstat(2).
    pub fn network_id(&self) -> io::Result<NamespaceId> {
        NamespaceId::of_file(self.net.as_fd())
    }

    /// The network namespace.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    /// The user namespace that is joined first, if any.
    pub fn user(&self) -> Option<BorrowedFd<'_>> {
        self.user.as_ref().map(AsFd::as_fd)
    }

    /// The user namespace, for
    /// [`Sandbox::user_namespace`](crate::sandbox::Sandbox::user_namespace).
    pub fn into_user_namespace(self) -> Option<OwnedFd> {
        self.user
    }
}

/// Device and inode of a namespace's file: two namespaces that exist at the same time differ in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceId {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl NamespaceId {
    /// The namespace at `path`.
    ///
    /// # Errors
    /// The errors of stat(2).
    pub fn of_path(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    fn of_file(file: BorrowedFd<'_>) -> io::Result<Self> {
        let meta = File::from(file.try_clone_to_owned()?).metadata()?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }
}

/// Which interface to open, and what to do with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapRequest {
    /// Name of the interface, cut to 15 bytes; empty lets the kernel pick `tap0`, `tap1`, ... A
    /// persistent interface of that name is attached to.
    pub name: String,
    /// How to configure the interface and bring it up; with `None` the interface is left as it is.
    pub configure: Option<Configuration>,
}

/// Opens a TAP device inside the target's namespaces with all offloads that the kernel supports.
///
/// A helper process does it; the caller stays in its own namespaces and may have many threads.
///
/// # Errors
/// [`AttachError`]; its text is the line that slirp4netns(1) prints.
pub fn open_tap(target: &NamespaceTarget, request: &TapRequest) -> Result<Tap, AttachError> {
    open_tap_up_to(target, request, OffloadCeiling::default())
}

/// Like [`open_tap`], but asks for no more offloads than `ceiling`.
///
/// # Errors
/// [`AttachError`]; its text is the line that slirp4netns(1) prints.
pub fn open_tap_up_to(
    target: &NamespaceTarget,
    request: &TapRequest,
    ceiling: OffloadCeiling,
) -> Result<Tap, AttachError> {
    open_requested(target, request, ceiling, false)
}

/// Like [`open_tap`], but an interface of that name is an error, even a persistent TAP device.
///
/// # Errors
/// [`AttachError`]; [`AttachStep::CheckName`] with `EEXIST` for an interface that exists.
pub fn create_tap(target: &NamespaceTarget, request: &TapRequest) -> Result<Tap, AttachError> {
    open_requested(target, request, OffloadCeiling::default(), true)
}

/// Opens a TAP device called `name` and configures it as `setup` says. Also returns which parts of
/// the configuration the kernel has refused, if the device is of use without them.
///
/// # Errors
/// [`AttachError`].
pub fn open_tap_with(
    target: &NamespaceTarget,
    name: &str,
    setup: Setup,
) -> Result<(Tap, Vec<Refusal>), AttachError> {
    open(target, name, OffloadCeiling::default(), false, setup)
}

/// Brings the loopback interface of the target's network namespace up, and makes nothing there.
///
/// # Errors
/// [`AttachError`].
pub fn bring_loopback_up(target: &NamespaceTarget) -> Result<(), AttachError> {
    target.refuse_our_own()?;
    Ok(attach::change_in_namespaces(target.network(), target.user(), Setup::loopback().changes())?)
}

/// The Ethernet address of the interface `name` in the target's network namespace; `None` when
/// there is no such interface, zero when it has no Ethernet address.
///
/// # Errors
/// [`AttachError`] when the namespace cannot be entered.
pub fn interface_mac(target: &NamespaceTarget, name: &str) -> Result<Option<MacAddr>, AttachError> {
    let interface = InterfaceRequest::new(name.as_bytes());
    Ok(attach::interface_mac(target.network(), target.user(), interface)?)
}

fn no_user_namespace(path: &Path, errno: Errno) -> AttachError {
    AttachError::OpenUserNamespace { path: path.into(), source: errno.into() }
}

fn open_requested(
    target: &NamespaceTarget,
    request: &TapRequest,
    ceiling: OffloadCeiling,
    exclusive: bool,
) -> Result<Tap, AttachError> {
    let mac = request.configure.and_then(|configuration| configuration.mac);
    if mac.is_some_and(|mac| !mac.is_valid_source()) {
        // The error that the kernel would report once the device exists.
        let source = Errno::EADDRNOTAVAIL.into();
        return Err(AttachError::Step { step: AttachStep::SetMac, source });
    }
    let vnet_header = ceiling > OffloadCeiling::Nothing;
    let setup = request.configure.map(|configuration| configuration.setup(vnet_header));
    let setup = setup.unwrap_or_default();
    let (tap, refusals) = open(target, &request.name, ceiling, exclusive, setup)?;
    for Refusal { what, source } in refusals {
        tracing::debug!(%source, "the guest may lack {what}");
    }
    Ok(tap)
}

fn open(
    target: &NamespaceTarget,
    name: &str,
    ceiling: OffloadCeiling,
    exclusive: bool,
    mut setup: Setup,
) -> Result<(Tap, Vec<Refusal>), AttachError> {
    target.refuse_our_own()?;
    let order = Order {
        exclusive,
        net: target.net.as_fd(),
        user: target.user.as_ref().map(AsFd::as_fd),
        interface: InterfaceRequest::new(name.as_bytes()),
        vnet_header: ceiling > OffloadCeiling::Nothing,
        changes: setup.changes(),
    };
    let (fd, refused) = open_in_namespaces(order).map_err(AttachError::from)?;
    Ok((Tap::adopt_up_to(fd, ceiling)?, setup.refusals(&refused)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_process_is_named_as_a_path() {
        let error = NamespaceTarget::of_pid(999_999_999).unwrap_err();
        assert_eq!(error.to_string(), "/proc/999999999/ns/net: No such file or directory");
    }
}
