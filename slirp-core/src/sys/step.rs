//! The steps on the way to a TAP device in another network namespace.
//!
//! Owns [`AttachStep`], its text and its number in a helper's report. Which step comes when is in
//! [`attach`](super::attach) and [`changes`](super::changes).

use core::fmt;

use nix::errno::Errno;

/// A step on the way to a TAP device in another network namespace.
///
/// Its text follows slirp4netns(1); scripts match it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AttachStep {
    /// Joining the network namespace.
    EnterNetwork,
    /// Opening `/dev/net/tun`.
    OpenTun,
    /// Creating the interface, or attaching to a persistent one.
    CreateTap,
    /// Opening the socket through which interfaces are configured.
    OpenSocket,
    /// Bringing the loopback interface or the TAP interface up.
    SetUp,
    /// Setting the MTU.
    SetMtu,
    /// Setting the Ethernet address.
    SetMac,
    /// Setting the IPv4 address.
    SetAddress,
    /// Setting the netmask.
    SetNetmask,
    /// Adding the default route.
    AddRoute,
    /// Checking whether the name of a new interface is taken.
    CheckName,
    /// Setting the IPv6 address.
    SetAddress6,
    /// Adding the IPv6 default route.
    AddRoute6,
}

impl AttachStep {
    /// Every step.
    pub(super) const ALL: [Self; 13] = [
        Self::EnterNetwork,
        Self::OpenTun,
        Self::CreateTap,
        Self::OpenSocket,
        Self::SetUp,
        Self::SetMtu,
        Self::SetMac,
        Self::SetAddress,
        Self::SetNetmask,
        Self::AddRoute,
        Self::CheckName,
        Self::SetAddress6,
        Self::AddRoute6,
    ];
}

impl fmt::Display for AttachStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EnterNetwork => "setns(CLONE_NEWNET)",
            Self::OpenTun => "open(\"/dev/net/tun\")",
            Self::CreateTap => "ioctl(TUNSETIFF)",
            Self::OpenSocket => "cannot create socket",
            Self::SetUp => "cannot set device up",
            Self::SetMtu => "cannot set MTU",
            Self::SetMac => "cannot set MAC address",
            Self::SetAddress => "cannot set device address",
            Self::SetNetmask => "cannot set device netmask",
            Self::AddRoute => "set route",
            Self::CheckName => "interface name",
            Self::SetAddress6 => "cannot set device IPv6 address",
            Self::AddRoute6 => "set IPv6 route",
        })
    }
}

/// The result of a step in the helper process.
pub(super) type StepResult<T> = Result<T, (AttachStep, Errno)>;
