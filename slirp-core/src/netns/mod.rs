//! A TAP device in somebody else's network namespace.
//!
//! Owns the target ([`NamespaceTarget`]), what to do there ([`TapRequest`]) and the way it can fail
//! ([`AttachError`]). The process that joins the namespaces is in `sys`, the device itself in
//! [`host::tap`](crate::host::tap). namespaces(7), setns(2), user_namespaces(7).

#![expect(clippy::disallowed_methods, reason = "namespaces are files")]

mod error;
mod process;
mod watch;

use core::net::Ipv4Addr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use error::AttachError;
pub use watch::{TargetWatch, WatchError};

use process::{Process, in_proc};

use crate::host::tap::{OffloadCeiling, Tap};
use crate::plan::AddressPlan;
pub use crate::sys::attach::AttachStep;
use crate::sys::attach::{Order, Settings, open_in_namespaces};
use crate::sys::ifreq::InterfaceRequest;
use crate::sys::owner_of;
use crate::wire::MacAddr;

/// Namespaces to put a TAP device into; both are open, so they exist as long as this does.
#[derive(Debug)]
pub struct NamespaceTarget {
    net: OwnedFd,
    user: Option<OwnedFd>,
    path: PathBuf,
    /// The process that the network namespace was taken from.
    process: Option<Process>,
}

impl NamespaceTarget {
    /// The network namespace of the process `pid` and the user namespace that goes with it, both of
    /// one and the same process, even when it ends meanwhile and another one gets its number.
    ///
    /// The user namespace is the one that owns the network namespace, where this process may know
    /// it, and else the process's own. They differ when the process has entered a further user
    /// namespace since, as those of bubblewrap do: nobody gets from there into a network namespace
    /// of the outer one.
    ///
    /// # Errors
    /// [`AttachError::OpenNamespace`] when there is no such process or it may not be looked into.
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
    /// [`AttachError::OpenNamespace`] when either cannot be opened.
    pub fn from_paths(net: &Path, user: Option<&Path>) -> Result<Self, AttachError> {
        let error = |path: &Path, source| AttachError::OpenNamespace { path: path.into(), source };
        let process = in_proc(net)
            .map(|(pid, _)| Process::open(pid))
            .transpose()
            .map_err(|errno| error(net, errno.into()))?;
        let open = |path: &Path| {
            match (in_proc(path), &process) {
                (Some((pid, rest)), Some(process)) if pid == process.pid => {
                    process.file(rest).map_err(io::Error::from)
                }
                _ => File::open(path).map(OwnedFd::from),
            }
            .map_err(|source| error(path, source))
        };
        let (net_fd, user) = (open(net)?, user.map(open).transpose()?);
        Ok(Self { net: net_fd, user, path: net.to_owned(), process })
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
            _ => TargetWatch::of_name(&self.path, &self.net),
        }
    }

    /// The user namespace, for [`Sandbox::user_namespace`](crate::sandbox::Sandbox::user_namespace).
    pub fn into_user_namespace(self) -> Option<OwnedFd> {
        self.user
    }
}

/// Which interface to open, and what to do with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapRequest {
    /// Name of the interface, cut to 15 bytes; empty lets the kernel pick `tap0`, `tap1`, ... A
    /// persistent interface of that name is attached to.
    pub name: String,
    /// How to configure the interface and bring it up; without it, it is left as it is.
    pub configure: Option<Configuration>,
}

/// The guest's side of the link.
///
/// IPv6 addresses are not among it: the guest makes its own from our router advertisements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// MTU in bytes, 68..=65521.
    pub mtu: u16,
    /// IPv4 address of the interface.
    pub address: Ipv4Addr,
    /// Length of its network's prefix in bits, 0..=32.
    pub prefix_len: u8,
    /// Where the default route leads.
    pub gateway: Ipv4Addr,
    /// Ethernet address; a random one of the kernel's choice without it.
    pub mac: Option<MacAddr>,
}

impl Configuration {
    /// What an address plan recommends to a guest.
    pub fn for_plan(plan: &AddressPlan, mtu: u16) -> Self {
        Self {
            mtu,
            address: plan.recommended_guest(),
            prefix_len: plan.prefix_len(),
            gateway: plan.gateway(),
            mac: None,
        }
    }

    fn settings(&self) -> Settings {
        let host_bits = 32_u32.saturating_sub(u32::from(self.prefix_len));
        let netmask = Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0));
        Settings {
            mtu: self.mtu,
            address: self.address,
            netmask,
            gateway: self.gateway,
            mac: self.mac,
        }
    }
}

/// Opens a TAP device inside the target's namespaces with all the offloads that the kernel has.
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
    let order = Order {
        net: target.net.as_fd(),
        user: target.user.as_ref().map(AsFd::as_fd),
        interface: InterfaceRequest::new(request.name.as_bytes()),
        vnet_header: ceiling > OffloadCeiling::Nothing,
        settings: request.configure.as_ref().map(Configuration::settings),
    };
    let fd = open_in_namespaces(order).map_err(AttachError::from)?;
    Ok(Tap::adopt_up_to(fd, ceiling)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_configuration_follows_the_plan() {
        let configuration = Configuration::for_plan(&AddressPlan::default(), 1500);
        assert_eq!(configuration.address, Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(configuration.gateway, Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(configuration.settings().netmask, Ipv4Addr::new(255, 255, 255, 0));
    }

    #[test]
    fn any_prefix_length_has_a_netmask() {
        let base = Configuration::for_plan(&AddressPlan::default(), 1500);
        for (prefix_len, netmask) in
            [(0, 0), (1, 1 << 31), (25, 0xffff_ff80), (32, u32::MAX), (99, u32::MAX)]
        {
            let settings = Configuration { prefix_len, ..base }.settings();
            assert_eq!(settings.netmask, Ipv4Addr::from_bits(netmask), "/{prefix_len}");
        }
    }

    #[test]
    fn unknown_process_is_named_as_a_path() {
        let error = NamespaceTarget::of_pid(999_999_999).unwrap_err();
        assert_eq!(error.to_string(), "/proc/999999999/ns/net: No such file or directory");
    }
}
