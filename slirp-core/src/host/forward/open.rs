//! Open ports of the host that do not lead to a guest yet.
//!
//! Owns opening the sockets of rules, all of them or none: the checks of a rule, its IP versions,
//! how its ports are opened ([`Opening`]), the port that is picked for port 0, and the limit of
//! descriptors. A program opens its ports
//! before it makes a device, so that it learns of a conflict in time, and hands the sockets to the
//! instance. Ports that are added later are opened here as well. `Forwards` owns them once they are
//! open.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{Forward, ForwardError, ForwardProtocol, PORTS_CAP};
use crate::host::socket::descriptors;
use crate::host::socket::udp::UdpSocket;
use crate::plan::AddressPlan;

/// Divisor: of the descriptors that ports may take, one in this many may be used for IPv6 beside
/// IPv4 (arbitrary: a range that fits in IPv4 is not refused because of its IPv6).
const IPV6_PART: usize = 8;
/// Divisor: where not all ports of weak rules fit, they get one in this many of the descriptors
/// that ports and flows may take (arbitrary: flows need descriptors as well).
const WEAK_PART: usize = 2;
/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Kinds of ports: two protocols, in two IP versions.
const ALL_KINDS: usize = 4;
/// How often a port is picked anew when the one that is free in IPv4 is taken in IPv6 (arbitrary).
const PICKS_CAP: usize = 16;

crate::sys::calls::system_calls! {
    SYS_socket if crate::sys::calls::IP => "forwarded ports";
    SYS_setsockopt => "a port that was in use a moment ago, IPv6 apart from IPv4";
    SYS_bind => "forwarded ports";
    SYS_getsockname => "the port that the kernel has picked";
    SYS_getsockopt => "whether a port is open in IPv6";
    SYS_listen => "forwarded ports";
}

/// How the ports of a rule are opened.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Opening {
    /// The interface of the host at which clients arrive (`SO_BINDTODEVICE`, socket(7); without
    /// privileges since Linux 5.7). Any interface without it.
    pub interface: Option<String>,
    /// Whether the host may lack the address (`IP_FREEBIND`, ip(7)).
    pub freebind: bool,
    /// Whether a port that cannot be opened is skipped. A rule of which no port can
    /// be opened is refused even then. If the process has too few descriptors, its last ports are
    /// skipped.
    pub is_weak: bool,
}

/// Rules whose ports are open, for [`Builder::forwards`](crate::instance::Builder::forwards).
/// Clients can already connect and send: the kernel queues their data until the instance runs.
/// Dropping it closes the ports.
#[derive(Default, Debug)]
pub struct OpenForwards {
    pub(super) rules: Vec<OpenRule>,
    /// The cap of descriptors for IPv6 beside IPv4, if it made some rules IPv4-only.
    pub(super) ipv6_cap: Option<usize>,
}

impl OpenForwards {
    /// Opens the ports of all of `forwards`, or none, for an instance with this `plan`. Each port
    /// takes a descriptor, or two if it is a UDP port that is open in both IP versions, so raise
    /// `RLIMIT_NOFILE` before.
    ///
    /// # Errors
    /// [`ForwardError`], for the first rule that cannot be added.
    pub fn open(forwards: &[Forward], plan: impl Into<AddressPlan>) -> Result<Self, ForwardError> {
        refuse_guests(forwards.iter(), &plan.into())?;
        Self::open_beside(InUse::default(), forwards, descriptors::limit())
    }

    /// Like [`open`](Self::open), but each rule says how its ports are opened, and there may be all
    /// ports of both protocols in both IP versions.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_as(
        rules: &[(Forward, Opening)],
        plan: impl Into<AddressPlan>,
    ) -> Result<Self, ForwardError> {
        refuse_guests(rules.iter().map(|(forward, _)| forward), &plan.into())?;
        Self::open_as_beside(InUse::default(), rules, descriptors::limit())
    }

    /// The same beside the ports in use, in a process that may have `limit` descriptors, for guests
    /// that were checked.
    pub(super) fn open_as_beside(
        in_use: InUse,
        rules: &[(Forward, Opening)],
        limit: Option<usize>,
    ) -> Result<Self, ForwardError> {
        let forwards: Vec<_> = rules.iter().map(|(forward, _)| *forward).collect();
        let openings = rules.iter().map(|(_, opening)| opening);
        Self::open_each(in_use, &forwards, openings, PORTS_CAP * ALL_KINDS, limit)
    }

    /// Opens the ports of all of `forwards`, or none, beside the ports in use, in a process that
    /// may have `limit` descriptors (`None`: any number).
    pub(super) fn open_beside(
        in_use: InUse,
        forwards: &[Forward],
        limit: Option<usize>,
    ) -> Result<Self, ForwardError> {
        let plain = Opening::default();
        Self::open_each(in_use, forwards, std::iter::repeat(&plain), PORTS_CAP, limit)
    }

    pub(super) fn open_each<'a>(
        in_use: InUse,
        forwards: &[Forward],
        openings: impl Iterator<Item = &'a Opening> + Clone,
        cap: usize,
        limit: Option<usize>,
    ) -> Result<Self, ForwardError> {
        let ports = |forward: &Forward| usize::from(forward.ports);
        let ports = in_use.ports + forwards.iter().map(ports).sum::<usize>();
        if ports > cap {
            return Err(ForwardError::TooMany(ports));
        }
        let available = descriptors::left_to_flows(limit);
        let ipv6_cap = available / IPV6_PART;
        let within = within_ipv6_cap(in_use, forwards, ipv6_cap);
        let is_ipv4_only = within != forwards;
        let left = available.saturating_sub(in_use.sockets);
        let shares = shares_of(&within, openings.clone(), left);
        let sockets = within.iter().zip(&shares);
        let sockets = sockets.map(|(forward, &ports)| Forward { ports, ..*forward }.sockets());
        let needed = in_use.sockets + sockets.sum::<usize>();
        let too_few = |available| {
            let limit = limit.unwrap_or(usize::MAX);
            ForwardError::Descriptors { needed, available, limit }
        };
        if needed > available {
            return Err(too_few(available));
        }
        let ipv6_cap = is_ipv4_only.then_some(ipv6_cap);
        let mut opened = Self { rules: Vec::new(), ipv6_cap };
        for ((forward, share), opening) in within.into_iter().zip(shares).zip(openings) {
            match OpenRule::open(forward, share, opening) {
                Ok(rule) => opened.rules.push(rule),
                // Flows have used the descriptors that the ports need.
                Err(ForwardError::Bind { source, .. })
                    if source.raw_os_error() == Some(libc::EMFILE) =>
                {
                    let sockets = opened.rules.iter().map(|rule| rule.sockets.len());
                    return Err(too_few(in_use.sockets + sockets.sum::<usize>()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    /// The rules in order, with the ports that were picked for port 0.
    pub fn rules(&self) -> impl Iterator<Item = Forward> {
        self.rules.iter().map(|rule| rule.forward)
    }

    /// Points the rules at the guest addresses of others, one for each rule in order, with
    /// unchanged guest ports. The guest's address may be known only once there is a device.
    pub fn lead_like(&mut self, others: impl IntoIterator<Item = Forward>) {
        for (rule, other) in self.rules.iter_mut().zip(others) {
            rule.forward.guest.set_ip(other.guest.ip());
            rule.forward.guest_ipv6 = other.guest_ipv6;
        }
    }
}

/// The open ports of an instance.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct InUse {
    pub(super) ports: usize,
    /// One for each port, or two if it is a UDP port that is open in both IP versions.
    pub(super) sockets: usize,
}

/// Refuses a rule for an address that no guest can have.
fn refuse_guests<'f>(
    forwards: impl Iterator<Item = &'f Forward>,
    plan: &AddressPlan,
) -> Result<(), ForwardError> {
    let mut guests = forwards.flat_map(Forward::guests).map(|guest| guest.ip());
    let invalid = guests.find(|&guest| !plan.is_guest_address(guest));
    invalid.map_or(Ok(()), |guest| Err(ForwardError::GuestAddress(guest)))
}

/// The rules. A rule becomes IPv4-only if IPv6 sockets beside IPv4 would exceed `cap`.
fn within_ipv6_cap(in_use: InUse, forwards: &[Forward], cap: usize) -> Vec<Forward> {
    let mut open = in_use.sockets.saturating_sub(in_use.ports);
    let within = |forward: &Forward| {
        let more = forward.sockets().saturating_sub(usize::from(forward.ports));
        if open + more <= cap {
            open += more;
            return *forward;
        }
        Forward { also_ipv6: false, ..*forward }
    };
    forwards.iter().map(within).collect()
}

/// How many ports of each rule may be open: all of them, or if the rules need more than `available`
/// descriptors, a part of those of weak rules, in proportion.
fn shares_of<'a>(
    forwards: &[Forward],
    openings: impl Iterator<Item = &'a Opening> + Clone,
    available: usize,
) -> Vec<u16> {
    let sockets = |is_weak: bool| {
        let rules = forwards.iter().zip(openings.clone());
        let rules = rules.filter(|(_, opening)| opening.is_weak == is_weak);
        rules.map(|(forward, _)| forward.sockets()).sum::<usize>()
    };
    let (weak, strong) = (sockets(true), sockets(false));
    if weak == 0 || weak + strong <= available {
        return forwards.iter().map(|forward| forward.ports).collect();
    }
    let share = available.saturating_sub(strong) / WEAK_PART;
    tracing::warn!(
        wanted = weak,
        open = share,
        "not all ports of best-effort rules are open: the limit of descriptors is too low"
    );
    let of = |(forward, opening): (&Forward, &Opening)| {
        let ports = usize::from(forward.ports) * share / weak;
        let ports = u16::try_from(ports).unwrap_or(forward.ports).max(1);
        if opening.is_weak { ports } else { forward.ports }
    };
    forwards.iter().zip(openings).map(of).collect()
}

/// A rule whose ports are open.
#[derive(Debug)]
pub(super) struct OpenRule {
    pub(super) forward: Forward,
    /// Port by port, the IPv6 sockets after the IPv4 sockets. The IPv6 sockets are missing on a
    /// host without IPv6, and a port that was skipped has no socket.
    pub(super) sockets: Vec<Option<RuleSocket>>,
}

impl OpenRule {
    /// Opens `share` of its ports: the first ones that can be opened, if the rule is weak.
    fn open(forward: Forward, share: u16, opening: &Opening) -> Result<Self, ForwardError> {
        if forward.guest.port() == 0 {
            return Err(ForwardError::PortZero);
        }
        if !forward.is_in_range() {
            return Err(ForwardError::Range(forward));
        }
        let is_picked = forward.host.port() == 0;
        if is_picked && forward.ports > 1 {
            return Err(ForwardError::RangeOfZero(forward.ports));
        }
        let mut picks = 0;
        loop {
            picks += 1;
            match Self::open_all(forward, share, opening) {
                Err(error) if is_picked && error.is_in_use() && picks < PICKS_CAP => {}
                opened => return opened,
            }
        }
    }

    fn open_all(mut forward: Forward, share: u16, opening: &Opening) -> Result<Self, ForwardError> {
        let mut sockets = Vec::with_capacity(usize::from(share));
        let mut first_error = None;
        let (mut opened, mut tried) = (0, 0);
        for port in forward.each() {
            if opened == share {
                break;
            }
            tried += 1;
            match RuleSocket::open(port, opening) {
                Err(error) if opening.is_weak && error.is_of_port() => {
                    first_error.get_or_insert(error);
                    sockets.push(None);
                }
                socket => {
                    sockets.push(Some(socket?));
                    opened += 1;
                }
            }
        }
        forward.ports = tried;
        if let Some(error) = first_error {
            let skipped = sockets.iter().filter(|socket| socket.is_none()).count();
            if skipped == sockets.len() {
                return Err(error);
            }
            tracing::info!(%error, skipped, "ports of a rule are not forwarded");
        }
        if forward.host.port() == 0
            && let Some(Some(socket)) = sockets.first()
        {
            let port = socket.port().map_err(|source| opening.refused(forward, source))?;
            forward.host.set_port(port);
        }
        for port in forward.apart_in_ipv6().iter().flat_map(Forward::each) {
            match RuleSocket::open(port, opening) {
                Ok(socket) => sockets.push(Some(socket)),
                Err(ForwardError::Bind { source, .. })
                    if source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
                {
                    break;
                }
                Err(error) if opening.is_weak && error.is_of_port() => sockets.push(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Self { forward, sockets })
    }

    /// Whether the rule is for both IP versions, and the host has no IPv6.
    pub(super) fn lacks_ipv6(&self) -> bool {
        let is_ipv4 = |socket: &RuleSocket| {
            SockRef::from(socket).domain().is_ok_and(|domain| domain == Domain::IPV4)
        };
        match (self.forward.in_ipv6(), self.forward.apart_in_ipv6()) {
            (None, _) => false,
            (Some(_), Some(_)) => self.sockets.len() < self.forward.sockets(),
            (Some(_), None) => self.sockets.iter().flatten().next().is_some_and(is_ipv4),
        }
    }
}

/// The socket of one port in one IP version.
#[derive(Debug)]
pub(super) enum RuleSocket {
    Tcp(Socket),
    Udp(Box<UdpSocket>),
}

impl RuleSocket {
    fn open(port: Forward, opening: &Opening) -> Result<Self, ForwardError> {
        let opened = match port.protocol {
            ForwardProtocol::Tcp => {
                if let Some(ipv6) = port.in_ipv6() {
                    match listen(ipv6.host, false, opening) {
                        // The host has no IPv6.
                        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(source) => {
                            let is_free_in_ipv4 = listen(port.host, true, opening).is_ok();
                            let forward = if is_free_in_ipv4 { ipv6 } else { port };
                            return Err(opening.refused(forward, source));
                        }
                    }
                }
                listen(port.host, true, opening).map(Self::Tcp)
            }
            ForwardProtocol::Udp => {
                let prepare = |socket: &Socket| opening.prepare(socket, port.host);
                UdpSocket::listen(port.host, prepare).map(Box::new).map(Self::Udp)
            }
        };
        opened.map_err(|source| opening.refused(port, source))
    }

    /// The port that the kernel has picked.
    fn port(&self) -> io::Result<u16> {
        let local = SockRef::from(self).local_addr()?;
        Ok(local.as_socket().map_or(0, |local| local.port()))
    }
}

impl AsFd for RuleSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Listens at `address`, and with `is_alone` in no other IP version. It does so at once, although
/// no connection is accepted yet: if two sockets are only bound with `SO_REUSEADDR`, listen(2)
/// refuses the second (`inet_csk_listen_start` asks for the port again).
fn listen(address: SocketAddr, is_alone: bool, opening: &Opening) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier listener in TIME-WAIT do not keep the port closed.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the host's default is (`net.ipv6.bindv6only`).
        socket.set_only_v6(is_alone)?;
    }
    opening.prepare(&socket, address)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

impl Opening {
    /// Sets what a socket has to have before it is bound to `address`.
    fn prepare(&self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        if let Some(interface) = &self.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        match address {
            _ if !self.freebind => Ok(()),
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            SocketAddr::V6(_) => socket.set_freebind_v6(true),
        }
    }

    fn refused(&self, forward: Forward, source: io::Error) -> ForwardError {
        ForwardError::Bind { forward, interface: self.interface.clone(), source }
    }
}
