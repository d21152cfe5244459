//! What a forward rule is, and why it may be refused.
//!
//! Owns the arithmetic of ranges and of rules for both IP versions. Opens nothing.

use core::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::PORTS_CAP;
use crate::event::ForwardId;

/// What a rule forwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ForwardProtocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for ForwardProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// One rule: what arrives at `host` goes to `guest`, from one port or from several in a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: ForwardProtocol,
    /// Where the host listens, at the first port; the unspecified address stands for all addresses
    /// of its IP version. In a rule for one port, port 0 lets the kernel pick one.
    pub host: SocketAddr,
    /// Whether the host listens at `[::]` as well, if `host` has the address 0.0.0.0. On a host
    /// without IPv6 the rule stays IPv4-only.
    pub also_ipv6: bool,
    /// Where the guest listens, with the port that the host's first port leads to. The guest sees a
    /// client of the other IP version as the gateway.
    pub guest: SocketAddr,
    /// Where the guest listens for the clients of `[::]`, at the same ports, in a rule that is
    /// `also_ipv6`. They are led to `guest` without it. With it, a connection that the guest
    /// refuses at one address is led to the other.
    pub guest_ipv6: Option<Ipv6Addr>,
    /// How many ports there are; the n-th port of the host leads to the n-th port of the guest.
    pub ports: u16,
}

impl Forward {
    /// A rule for one port.
    pub const fn new(protocol: ForwardProtocol, host: SocketAddr, guest: SocketAddr) -> Self {
        Self { protocol, host, also_ipv6: false, guest, guest_ipv6: None, ports: 1 }
    }

    /// A rule for one port of every address of the host, IPv4 and IPv6.
    pub const fn everywhere(protocol: ForwardProtocol, port: u16, guest: SocketAddr) -> Self {
        let host = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        Self { also_ipv6: true, ..Self::new(protocol, host, guest) }
    }

    /// The last port of the host; equal to the first in a rule for one port.
    pub const fn last_host_port(&self) -> u16 {
        self.host.port().saturating_add(self.ports.saturating_sub(1))
    }

    /// The rules of its ports, one by one.
    pub fn each(&self) -> impl Iterator<Item = Self> + use<> {
        let rule = *self;
        (0..rule.ports).map(move |index| rule.port(index))
    }

    /// The rule of one of its ports, counted from 0.
    pub(crate) fn port(&self, index: u16) -> Self {
        let nth =
            |first: SocketAddr| SocketAddr::new(first.ip(), first.port().saturating_add(index));
        Self { host: nth(self.host), guest: nth(self.guest), ports: 1, ..*self }
    }

    /// Where the guest listens, in either IP version.
    pub(crate) fn guests(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let in_ipv6 = self.in_ipv6().map(|ipv6| ipv6.guest).filter(|guest| *guest != self.guest);
        core::iter::once(self.guest).chain(in_ipv6)
    }

    /// What a rule for both IP versions forwards in IPv6.
    pub(super) fn in_ipv6(&self) -> Option<Self> {
        let host = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), self.host.port());
        let is_everywhere = self.also_ipv6 && self.host.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut guest = self.guest;
        if let Some(ipv6) = self.guest_ipv6 {
            guest.set_ip(ipv6.into());
        }
        is_everywhere.then_some(Self { host, also_ipv6: false, guest, guest_ipv6: None, ..*self })
    }

    /// What its sockets of IPv6 alone forward, if it has such. Connections of both IP versions
    /// arrive at one socket.
    pub(super) fn apart_in_ipv6(&self) -> Option<Self> {
        self.in_ipv6().filter(|_| self.protocol == ForwardProtocol::Udp)
    }

    /// How many sockets it takes.
    pub(crate) fn sockets(&self) -> usize {
        usize::from(self.ports) * if self.apart_in_ipv6().is_some() { 2 } else { 1 }
    }

    /// Whether the rule has at least one port, and none above 65,535.
    pub(super) fn is_in_range(&self) -> bool {
        let fits = |first: u16| first.checked_add(self.ports.saturating_sub(1)).is_some();
        self.ports != 0 && fits(self.host.port()) && fits(self.guest.port())
    }
}

/// Why a rule could not be added or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// Port 0 of the guest is invalid.
    #[error("port 0 cannot be forwarded")]
    PortZero,
    /// A port is picked only for rules of one port: the ports of a range must be adjacent.
    #[error("port 0 lets the system pick one port: a range of {0} needs its first")]
    RangeOfZero(u16),
    /// The guest cannot have this address: it is ours or a multicast group, or IPv6 is not enabled.
    #[error("{0} is not an address that the guest can have")]
    GuestAddress(IpAddr),
    /// The host refuses to let us listen there.
    #[error(
        "cannot listen on {}{} for {}: {source}{}",
        .forward.host, at_interface(.interface.as_deref()), .forward.protocol, hint(.source)
    )]
    Bind {
        /// The rule.
        forward: Forward,
        /// The interface at which clients were to arrive.
        interface: Option<String>,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The range is empty, or ends above port 65,535.
    #[error(
        "ports of {} and {} end at 65535: {} from there on cannot be forwarded",
        .0.host, .0.guest, .0.ports
    )]
    Range(Forward),
    /// There would be more than 65,535 ports.
    #[error("{0} ports would be forwarded; the most is {PORTS_CAP}")]
    TooMany(usize),
    /// The process may not open as many sockets as the forwarded ports would need.
    #[error(
        "forwarded ports would need {needed} descriptors, and {available} may be used for ports: \
         the limit of the process is {limit} (ulimit -n)"
    )]
    Descriptors {
        /// Sockets that all rules together would need.
        needed: usize,
        /// Sockets that all rules together may have.
        available: usize,
        /// The limit of open descriptors.
        limit: usize,
    },
    /// No rule has this id (any more).
    #[error("there is no forward rule {}", .0.0)]
    Unknown(ForwardId),
    /// The instance has ended.
    #[error("the network has ended")]
    Ended,
}

impl ForwardError {
    /// Whether the port is already in use.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    /// Whether the host refuses this port, and may open others.
    pub(super) fn is_of_port(&self) -> bool {
        let Self::Bind { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EADDRINUSE | libc::EACCES | libc::EPERM))
    }
}

fn at_interface(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" at interface {name}"))
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // For an IP socket, bind(2) returns this for privileged ports only; the sysctl sets where
        // they end.
        Some(libc::EACCES) => " (see the sysctl net.ipv4.ip_unprivileged_port_start)",
        Some(libc::EADDRNOTAVAIL) => " (no interface of the host has this address)",
        Some(_) | None => "",
    }
}
