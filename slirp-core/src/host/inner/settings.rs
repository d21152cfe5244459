//! What an instance joins socket to socket, past the guest's link.
//!
//! Owns the settings ([`Splices`]), and why they cannot be met ([`SplicesError`]).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use super::Inner;
use super::inward::Inward;
use crate::host::forward::{Forward, ForwardProtocol};
use crate::sys::errno::text_of;
use crate::sys::privilege::Identity;

/// Connections and datagrams between the loopback interfaces of the host and the guest's network
/// namespace. They are joined socket to socket and never become packets on the guest's link.
///
/// Clients on the host's loopback reach forwarded ports this way; clients on the namespace's
/// loopback reach the ports of the host that [`to_host`](Self::to_host) names.
#[derive(Debug)]
pub struct Splices {
    pub(crate) place: Place,
    pub(crate) joins_clients: bool,
    pub(crate) to_guest_loopback: bool,
    pub(crate) is_changeable: bool,
    pub(crate) guest: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    pub(crate) rules: SpliceRules,
}

/// Which ports are joined socket to socket, besides forwarded ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SpliceRules {
    /// See [`Splices::scanned`].
    pub scanned: Vec<Forward>,
    /// See [`Splices::to_host`].
    pub to_host: Vec<HostPorts>,
}

/// How far the way into the namespace is gone.
#[derive(Debug)]
pub(crate) enum Place {
    /// The namespace, which is still to be entered.
    Network(OwnedFd),
    /// A thread is there.
    Entered(Inner),
}

/// Ports of the namespace's loopback that lead to ports of the host's loopback: what connects to
/// 127.0.0.5 there reaches 127.0.0.5 of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPorts {
    /// Connections or datagrams.
    pub protocol: ForwardProtocol,
    /// The first port in the namespace.
    pub guest: u16,
    /// The first port of the host.
    pub host: u16,
    /// How many ports there are; the n-th port of the namespace leads to the n-th of the host.
    pub ports: u16,
    /// Whether a port that cannot be opened is left out. Otherwise the instance does not start.
    pub is_weak: bool,
    /// Whether a port is open only while something on the host receives at the port of the same
    /// number, outside of this instance. Looked up each second.
    pub is_scanned: bool,
}

impl HostPorts {
    /// The port of the host that `guest`, a port of the namespace, leads to.
    pub(crate) fn host_port(&self, guest: u16) -> Option<u16> {
        let index = guest.checked_sub(self.guest).filter(|&index| index < self.ports)?;
        self.host.checked_add(index)
    }

    /// The ports in the namespace.
    pub(crate) fn guest_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let last = u32::from(self.guest) + u32::from(self.ports);
        (u32::from(self.guest)..last).filter_map(|port| u16::try_from(port).ok())
    }
}

impl Splices {
    /// Nothing but clients on the host's loopback at forwarded ports, in the network namespace
    /// `network` ([`NamespaceTarget::network`](crate::netns::NamespaceTarget::network)). No user
    /// namespace is joined for it: when the network is [confined](crate::launch) or, without a
    /// sandbox, [started](crate::instance::Builder::spawn), the process has to be in a user
    /// namespace from which it may enter the network namespace (CAP_SYS_ADMIN in both, setns(2)).
    pub fn new(network: OwnedFd) -> Self {
        Self {
            place: Place::Network(network),
            joins_clients: true,
            to_guest_loopback: false,
            is_changeable: false,
            guest: (None, None),
            rules: SpliceRules::default(),
        }
    }

    /// Whether clients on the host's loopback are joined (default: yes). Otherwise they arrive by
    /// the guest's link as other clients do.
    #[must_use]
    pub fn joins_clients(mut self, is_joined: bool) -> Self {
        self.joins_clients = is_joined;
        self
    }

    /// Whether a client on the host's loopback reaches the namespace's loopback, at the address
    /// that it has used (default: it reaches the guest's own address on the link).
    #[must_use]
    pub fn to_guest_loopback(mut self, is_loopback: bool) -> Self {
        self.to_guest_loopback = is_loopback;
        self
    }

    /// The guest's own addresses on the link (default: those of the forward rules). Forward rules
    /// to another address are left to the link. Without an address of the client's IP version, the
    /// other one is used.
    #[must_use]
    pub fn guest(mut self, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Self {
        self.guest = (ipv4, ipv6);
        self
    }

    /// Forward rules of which only those ports of the host are open whose numbers something in the
    /// namespace receives at, outside of this instance (default none). Looked up each second. A
    /// port that cannot be opened is left out.
    #[must_use]
    pub fn scanned(mut self, rules: impl IntoIterator<Item = Forward>) -> Self {
        self.rules.scanned = rules.into_iter().collect();
        self
    }

    /// Ports of the namespace's loopback that lead to the host's loopback (default none), whatever
    /// [`Policy::allow_host_loopback`](crate::policy::Policy::allow_host_loopback) says. An [egress
    /// policy](crate::instance::Builder::egress) judges them as destinations of the guest.
    #[must_use]
    pub fn to_host(mut self, ports: impl IntoIterator<Item = HostPorts>) -> Self {
        self.rules.to_host = ports.into_iter().collect();
        self
    }

    /// Whether the rules may become others while the instance runs
    /// ([`Handle::set_splices`](crate::instance::Handle::set_splices); default: not).
    #[must_use]
    pub fn changeable(mut self, is_changeable: bool) -> Self {
        self.is_changeable = is_changeable;
        self
    }

    /// Has a thread enter the namespace, unless one has, which takes on `identity`.
    ///
    /// # Errors
    /// See [`SplicesError`].
    pub(crate) fn enter(self, identity: Option<Identity>) -> Result<Self, SplicesError> {
        let inner = match self.place {
            Place::Network(network) => Inner::enter(network, identity)?,
            Place::Entered(inner) => inner,
        };
        Ok(Self { place: Place::Entered(inner), ..self })
    }

    /// The thread in the namespace, if it is there.
    pub(crate) const fn inner(&self) -> Option<&Inner> {
        match &self.place {
            Place::Network(_) => None,
            Place::Entered(inner) => Some(inner),
        }
    }

    /// Whether it is looked which ports are in use, or may be later.
    pub(crate) fn is_scanning(&self) -> bool {
        self.is_changeable
            || !self.rules.scanned.is_empty()
            || self.rules.to_host.iter().any(|ports| ports.is_scanned)
    }

    /// Where clients on the host's loopback are led to, unless they are left to the link.
    pub(crate) fn inward(&self) -> Option<Inward> {
        self.joins_clients.then(|| Inward::new(self.to_guest_loopback, self.guest))
    }
}

/// Why nothing can be joined socket to socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplicesError {
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The network namespace cannot be entered from the user namespace that the process is in.
    #[error("cannot enter the guest's network namespace: {}", text_of(.0))]
    Enter(#[source] io::Error),
    /// The thread in the namespace could not give up its privileges.
    #[error("cannot give up privileges in the guest's network namespace: {}", text_of(.0))]
    Privileges(#[source] io::Error),
    /// The poller could not be set up, or a socket that tells which ports are in use.
    #[error("cannot set up the thread in the guest's network namespace: {0}")]
    SetUp(#[source] io::Error),
    /// A port of the namespace cannot be opened.
    #[error(
        "cannot listen on {protocol} port {port} of the guest's loopback: {}", text_of(.source)
    )]
    Listen {
        /// The protocol.
        protocol: ForwardProtocol,
        /// The port.
        port: u16,
        /// What bind(2) or listen(2) said.
        source: io::Error,
    },
    /// A range of ports is empty, begins with port 0, or ends above port 65,535.
    #[error("ports of the guest's loopback, or of the host's, are not within 1 to 65535")]
    Range,
    /// The instance joins nothing, or its rules are those of the start.
    #[error("no rule for what is joined socket to socket can be changed")]
    Unchangeable,
    /// The thread has ended.
    #[error("the thread in the guest's network namespace has ended")]
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lead_to_ports_one_by_one() {
        let ports = HostPorts {
            protocol: ForwardProtocol::Tcp,
            guest: 65_534,
            host: 80,
            ports: 2,
            is_weak: false,
            is_scanned: false,
        };
        assert_eq!(ports.guest_ports().collect::<Vec<_>>(), [65_534, 65_535]);
        assert_eq!(ports.host_port(65_535), Some(81));
        assert_eq!(ports.host_port(65_533), None);
    }
}
