//! The addresses and interfaces of the host that the guest's traffic leaves from.
//!
//! Owns [`OutboundAddresses`], finding them by the name of an interface (getifaddrs(3)), the check
//! that the host has them, and which of them a remote gets. Binding is done where sockets are made:
//! [`tcp`](super::tcp), [`udp`](super::udp), [`echo`](super::echo), [`dns`](crate::host::dns).
//!
//! An address says what remotes see, not which way packets take: where the route to a remote does
//! not follow from the source, the host needs a rule for it (`ip rule add from ADDRESS table …`),
//! or an interface is named as well.
//!
//! Sockets are bound to an interface (`SO_BINDTODEVICE`, socket(7)), for datagrams too. The index
//! of an interface that is given for each datagram (`IPV6_UNICAST_IF`, `IPV6_PKTINFO`) is only a
//! preference where the socket has a source address: a route of a lower metric by another interface
//! wins (`ip6_route_output_flags` is strict for a bound socket alone). A socket that is bound to
//! one cannot be released without `CAP_NET_RAW` and reaches no loopback, so a guest's port that
//! speaks to the host itself as well has two sockets ([`table`](super::table)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::BorrowedFd;

use nix::ifaddrs::getifaddrs;
use socket2::{Domain, SockAddr, Socket, Type};

use super::control::socket_addr;
use crate::event::HostError;
use crate::sys::ifreq::{self, InterfaceRequest, NAME_CAP};

/// Which addresses of the host TCP connections, UDP datagrams, echo requests and DNS queries of the
/// guest leave from. The default leaves the choice to the host's routes, for either IP version.
///
/// It holds for every remote, those on the host's loopback included (which then see this address
/// and not 127.0.0.1, as with slirp4netns), because one UDP socket talks to all of them. Only
/// resolvers on the host's loopback and link-local ones are asked from where routes say. Forwarded
/// ports are not concerned: their replies leave from the address that the client used.
///
/// An interface holds for every remote but the host itself: its loopback, and the address that a
/// plan's [`MirroredFamily::host_itself`](crate::plan::MirroredFamily::host_itself) leads to. An
/// IPv6 address with a scope names its interface itself. Answers that come by another interface are
/// not heard, but at a published UDP port. What a guest says first from such a port leaves by the
/// interface as well. The name is looked up for each new socket, and for each call at such a port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OutboundAddresses {
    /// Source towards IPv4 remotes.
    pub ipv4: Option<Ipv4Addr>,
    /// Source towards IPv6 remotes.
    pub ipv6: Option<Ipv6Addr>,
    /// Index of the interface that `ipv6` is valid on, if that is a link-local address; 0
    /// otherwise.
    pub ipv6_scope: u32,
    /// Name of the interface by which IPv4 traffic leaves (default none: routes decide).
    pub ipv4_interface: Option<String>,
    /// The same for IPv6.
    pub ipv6_interface: Option<String>,
}

/// Why traffic cannot leave from an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboundError {
    /// No interface has it.
    #[error("no interface of the host has the outbound address {0}")]
    NotAvailable(IpAddr),
    /// It does not belong to a single host.
    #[error("the outbound address {0} is not that of a single host")]
    NotUnicast(IpAddr),
    /// It says nothing without an interface.
    #[error("the outbound address {0} is link-local: give the name of its interface instead")]
    NoScope(Ipv6Addr),
    /// No interface has this name.
    #[error("no interface of the host is called {0}")]
    NoInterface(String),
    /// The host refused a socket that is bound to this interface.
    #[error("cannot send by the interface {name}: {source}")]
    InterfaceRefused {
        /// Its name.
        name: String,
        /// What socket(2) or setsockopt(2) said.
        source: io::Error,
    },
    /// The host refused a socket with this address.
    #[error("cannot send from the outbound address {address}: {source}")]
    Refused {
        /// The address.
        address: IpAddr,
        /// What socket(2) or bind(2) said.
        source: io::Error,
    },
}

impl OutboundAddresses {
    /// The first address of each IP version that the interface `name` has at this moment. For IPv6
    /// a link-local address is taken only when there is no other.
    ///
    /// # Errors
    /// Those of getifaddrs(3). An interface without addresses, or one that does not exist, is none.
    pub fn of_interface(name: &str) -> io::Result<Self> {
        let addresses = getifaddrs()?
            .filter(|entry| entry.interface_name == name)
            .filter_map(|entry| entry.address.as_ref().and_then(socket_addr));
        Ok(Self::first_of(addresses))
    }

    fn first_of(addresses: impl Iterator<Item = SocketAddr>) -> Self {
        let mut first = Self::default();
        for address in addresses {
            match address {
                SocketAddr::V4(v4) => first.ipv4 = first.ipv4.or(Some(*v4.ip())),
                SocketAddr::V6(v6) => {
                    let is_better = first.ipv6.is_none_or(|known| {
                        known.is_unicast_link_local() && !v6.ip().is_unicast_link_local()
                    });
                    if is_better {
                        first.ipv6 = Some(*v6.ip());
                        let is_scoped = v6.ip().is_unicast_link_local();
                        first.ipv6_scope = if is_scoped { v6.scope_id() } else { 0 };
                    }
                }
            }
        }
        first
    }

    /// What a socket towards `remote` is to be bound to, with port 0; `None` leaves it to routes.
    pub fn source_for(&self, remote: IpAddr) -> Option<SocketAddr> {
        let source = match remote {
            IpAddr::V4(_) => SocketAddr::from((self.ipv4?, 0)),
            IpAddr::V6(_) => SocketAddrV6::new(self.ipv6?, 0, 0, self.ipv6_scope).into(),
        };
        (!source.ip().is_unspecified()).then_some(source)
    }

    /// The same for a resolver: not for those on the host's loopback, which are reached from there,
    /// and not for link-local ones, whose answers find only an address of the same link.
    pub(crate) fn source_for_resolver(&self, resolver: IpAddr) -> Option<SocketAddr> {
        let is_near = match resolver {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
        };
        if is_near { None } else { self.source_for(resolver) }
    }

    /// The interface by which a socket towards `remote` leaves; `None` leaves it to routes.
    pub(crate) fn interface_for(&self, remote: SocketAddr) -> Option<&str> {
        match remote {
            _ if remote.ip().is_loopback() => None,
            SocketAddr::V4(_) => self.ipv4_interface.as_deref(),
            SocketAddr::V6(v6) if v6.scope_id() != 0 => None,
            SocketAddr::V6(_) => self.ipv6_interface.as_deref(),
        }
    }

    /// Whether the host, as the calling thread sees it, has all of this right now. With
    /// `net.ipv4.ip_nonlocal_bind` (ip(7)) it has them all.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub fn verify(&self) -> Result<(), OutboundError> {
        self.ipv4.map_or(Ok(()), |v4| verify(SocketAddr::from((v4, 0))))?;
        self.ipv6
            .map_or(Ok(()), |v6| verify(SocketAddrV6::new(v6, 0, 0, self.ipv6_scope).into()))?;
        self.ipv4_interface.iter().try_for_each(|name| verify_interface(name))?;
        self.ipv6_interface.iter().try_for_each(|name| verify_interface(name))
    }
}

fn verify_interface(name: &str) -> Result<(), OutboundError> {
    // An empty name would unbind, and the kernel cuts a long one.
    if name.is_empty() || name.len() > NAME_CAP {
        return Err(OutboundError::NoInterface(name.to_owned()));
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    let bound = socket.and_then(|socket| socket.bind_device(Some(name.as_bytes())));
    bound.map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => OutboundError::NoInterface(name.to_owned()),
        Some(_) | None => OutboundError::InterfaceRefused { name: name.to_owned(), source: error },
    })
}

fn verify(source: SocketAddr) -> Result<(), OutboundError> {
    let address = source.ip();
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(OutboundError::NotUnicast(address));
    }
    if let SocketAddr::V6(v6) = source
        && v6.ip().is_unicast_link_local()
        && v6.scope_id() == 0
    {
        return Err(OutboundError::NoScope(*v6.ip()));
    }
    try_bind(source).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => OutboundError::NotAvailable(address),
        Some(_) | None => OutboundError::Refused { address, source: error },
    })
}

fn try_bind(source: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(source), Type::DGRAM, None)?;
    if source.is_ipv6() {
        // A v4-mapped address is no address of IPv6 traffic.
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(source))
}

/// Binds the socket of a flow to its source. The errors are told apart for the guest's sake:
/// without the address, which may have gone since the start and may come back, there is no network
/// (`ENETUNREACH`); without a free port the host is exhausted (`ENOBUFS`).
pub(crate) fn bind(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    socket.bind(&SockAddr::from(source)).map_err(|error| match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => io::Error::from_raw_os_error(libc::ENETUNREACH),
        Some(libc::EADDRINUSE) => io::Error::from_raw_os_error(libc::ENOBUFS),
        Some(_) | None => error,
    })
}

/// Binds the socket of a flow to the interface by which it leaves, if there is one.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn bind_to(socket: &Socket, interface: Option<&str>) -> io::Result<()> {
    interface.map_or(Ok(()), |name| socket.bind_device(Some(name.as_bytes())))
}

/// The index of the interface `name`, asked over `socket` as if_nametoindex(3) asks over another.
///
/// # Errors
/// What the guest is to be told: there is no such interface.
pub(crate) fn index(socket: BorrowedFd<'_>, name: &str) -> Result<u32, HostError> {
    let index = ifreq::index(socket, InterfaceRequest::new(name.as_bytes()));
    index.map_err(|errno| HostError::from_errno(errno as i32))
}

/// The address that the host's routes choose towards `remote`, by `interface` where one is given.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and connect(2).
pub(super) fn towards(remote: SocketAddr, interface: Option<&str>) -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
    bind_to(&socket, interface)?;
    socket.connect(&SockAddr::from(remote))?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
