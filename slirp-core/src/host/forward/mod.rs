//! Forward rules: ports of the host that lead to the guest.
//!
//! Owns the rules, their listeners and UDP sockets, and the queue of sockets with pending work. A
//! rule is a range of ports (often a single one). Each port has one socket. Datagrams of a rule for
//! both IP versions take two, of which that of IPv6 takes no IPv4 (`IPV6_V6ONLY`): what the kernel
//! tells of a datagram differs between the versions. A client's address is never IPv4-mapped.
//! The sockets are opened in `open`, often before there is an instance. The pure side decides about
//! accepted connections and datagrams; the reactor decides when each socket is served.
//!
//! A datagram that the guest sends first from a published UDP port leaves from the published port
//! as well, so remotes see one port whichever side began. `Forwards::published` finds the rule.
//! Remotes answer to the rule's socket.
//!
//! Sockets are edge-triggered, so a port that was not drained stays queued. When the process is out
//! of descriptors, accepting pauses for 100 ms instead of failing repeatedly.

pub(crate) mod open;
mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use self::open::{InUse, OpenRule, RuleSocket};
pub use self::open::{OpenForwards, Opening};
pub use self::rule::{Forward, ForwardError, ForwardProtocol};
use super::socket::outbound;
use super::socket::tcp::TcpStream;
use super::socket::udp::{Departure, NotSent, Received};
use super::token::Source;
use crate::event::{DatagramError, Envelope, ForwardId, HostError, Origin};
use crate::nat::unspecified;
use crate::sys::calls::INTERFACE_INDEX;
use crate::time::Instant;

/// Forwarded ports at one time: every port of one protocol (RFC 9293 section 3.1, RFC 768). Each
/// takes a descriptor and about 50 bytes; a UDP port takes 200 bytes, and twice as much of both if
/// it is open in both IP versions. The process's limit of descriptors may lower the cap.
pub(crate) const PORTS_CAP: usize = 65_535;
/// How long accepting pauses when there is no descriptor or memory left (arbitrary).
const PAUSE: Duration = Duration::from_millis(100);
/// Shortest interval between two log lines about that (arbitrary).
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

crate::sys::calls::system_calls! {
    SYS_setsockopt => "datagrams of one client may be joined";
    SYS_ioctl if INTERFACE_INDEX => "the interface by which a published port sends first";
    SYS_accept4 => "connections to forwarded ports";
    SYS_epoll_ctl => "the poller is told of a port";
}

/// Identifier of one port of a rule; the ports of one rule have consecutive identifiers. Never
/// reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PortId(usize);

#[derive(Debug)]
struct Port {
    socket: RuleSocket,
    is_queued: bool,
}

#[derive(Debug)]
struct Rule {
    forward: Forward,
    first: PortId,
    /// Port by port, those of IPv6 alone after the others. A port that was skipped is missing.
    ports: Vec<Option<Port>>,
}

impl Rule {
    /// What one of its ports forwards.
    fn forward_of(&self, id: PortId) -> Forward {
        let index = id.0 - self.first.0;
        let count = usize::from(self.forward.ports);
        let (forward, index) = match self.forward.apart_in_ipv6() {
            Some(ipv6) if index >= count => (ipv6, index - count),
            Some(_) | None => (self.forward, index),
        };
        // A rule has as many ports as fit the type.
        forward.port(u16::try_from(index).unwrap_or(u16::MAX))
    }
}

/// The rules of one instance.
#[derive(Debug)]
pub(crate) struct Forwards {
    rules: BTreeMap<ForwardId, Rule>,
    /// The rules by their first ports.
    firsts: BTreeMap<PortId, ForwardId>,
    /// The rules for datagrams by the guest address that they lead to, port by port.
    targets: BTreeSet<(SocketAddr, ForwardId)>,
    in_use: InUse,
    registry: Registry,
    coalesce_udp: bool,
    /// The process's limit of descriptors; `None` for no limit.
    descriptors: Option<usize>,
    last_id: u64,
    next_port: usize,
    queue: Vec<PortId>,
    paused_until: Option<Instant>,
    /// When the last warning about missing descriptors was logged.
    warned_at: Option<Instant>,
    /// Whether rules that lack IPv6 were logged already, so that it is logged once.
    is_ipv6_warned: bool,
}

/// The outcome of one accept.
pub(crate) enum Accepted {
    /// A connection on the port and of the remote that `origin` names, to be forwarded to `guest`,
    /// or to `other` if that refuses.
    Connection { stream: TcpStream, origin: Origin, guest: SocketAddr, other: Option<SocketAddr> },
    /// A connection that was already gone; there may be more.
    Lost,
    /// No more connections for now.
    Drained,
}

impl Forwards {
    /// An empty set of rules, in a process that may have this many descriptors.
    pub(crate) const fn new(
        registry: Registry,
        coalesce_udp: bool,
        descriptors: Option<usize>,
    ) -> Self {
        Self {
            rules: BTreeMap::new(),
            firsts: BTreeMap::new(),
            targets: BTreeSet::new(),
            in_use: InUse { ports: 0, sockets: 0 },
            registry,
            coalesce_udp,
            descriptors,
            last_id: 0,
            next_port: 0,
            queue: Vec::new(),
            paused_until: None,
            warned_at: None,
            is_ipv6_warned: false,
        }
    }

    /// Opens the ports of all rules and adds the rules, or none. Their ids are consecutive. Returns
    /// the rules as they are listed.
    ///
    /// # Errors
    /// [`ForwardError`], for the first rule that cannot be added; the caller has checked the
    /// guests' addresses against the plan.
    pub(crate) fn add_all(
        &mut self,
        forwards: &[Forward],
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        self.adopt(OpenForwards::open_beside(self.in_use, forwards, self.descriptors)?)
    }

    /// The same, with how each rule's ports are opened, up to all ports there are.
    ///
    /// # Errors
    /// As for [`add_all`](Self::add_all).
    pub(crate) fn add_each(
        &mut self,
        rules: &[(Forward, Opening)],
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        self.adopt(OpenForwards::open_as_beside(self.in_use, rules, self.descriptors)?)
    }

    /// Adds rules whose ports are open, as [`add_all`](Self::add_all) does.
    ///
    /// # Errors
    /// [`ForwardError::Bind`] when the poller takes no more sockets.
    pub(crate) fn adopt(
        &mut self,
        opened: OpenForwards,
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        if let Some(cap) = opened.ipv6_cap
            && !std::mem::replace(&mut self.is_ipv6_warned, true)
        {
            tracing::warn!(
                "forwarded in IPv4 only, from here on: IPv6 may have {cap} descriptors (ulimit -n)"
            );
        }
        let first = ForwardId(self.last_id + 1);
        for rule in opened.rules {
            if let Err(error) = self.add(rule) {
                self.list_from(first).into_iter().for_each(|(id, _)| self.remove(id));
                return Err(error);
            }
        }
        Ok(self.list_from(first))
    }

    /// Adds one rule. After an error the rule exists, and the caller removes it.
    fn add(&mut self, opened: OpenRule) -> Result<(), ForwardError> {
        if opened.lacks_ipv6() {
            let host = opened.forward.host;
            tracing::warn!(%host, "forwarded in IPv4 only: the host has no IPv6");
        }
        let OpenRule { forward, sockets } = opened;
        let first = PortId(self.next_port);
        self.next_port += forward.sockets();
        self.last_id += 1;
        let id = ForwardId(self.last_id);
        let in_poller = (first.0..).map(PortId).zip(&sockets).try_for_each(|(port, socket)| {
            socket.as_ref().map_or(Ok(()), |socket| self.register(port, socket))
        });
        let port = |socket: RuleSocket| Port { socket, is_queued: false };
        let ports: Vec<_> = sockets.into_iter().map(|socket| socket.map(port)).collect();
        self.in_use.ports += usize::from(forward.ports);
        self.in_use.sockets += ports.iter().flatten().count();
        self.targets.extend(targets(id, forward));
        self.firsts.insert(first, id);
        self.rules.insert(id, Rule { forward, first, ports });
        in_poller.map_err(|source| ForwardError::Bind { forward, interface: None, source })
    }

    /// Registers a socket with the poller.
    fn register(&self, id: PortId, socket: &RuleSocket) -> io::Result<()> {
        if let (RuleSocket::Udp(socket), true) = (socket, self.coalesce_udp) {
            socket.coalesce();
        }
        let token = Source::Port(id.0).token()?;
        let fd = socket.as_fd().as_raw_fd();
        self.registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Removes a rule. Closing its sockets ends their registration with the poller.
    fn remove(&mut self, id: ForwardId) {
        let Some(Rule { forward, first, ports }) = self.rules.remove(&id) else { return };
        self.firsts.remove(&first);
        self.in_use.ports -= usize::from(forward.ports);
        self.in_use.sockets -= ports.iter().flatten().count();
        for target in targets(id, forward) {
            self.targets.remove(&target);
        }
    }

    /// Removes all of the rules, or none, and closes their ports. Accepted connections live on.
    /// Returns the removed rules.
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] for the first id without a rule.
    pub(crate) fn remove_all(
        &mut self,
        ids: RangeInclusive<u64>,
    ) -> Result<Vec<ForwardId>, ForwardError> {
        let unknown = |id| ForwardError::Unknown(ForwardId(id));
        let (first, last) = (*ids.start(), *ids.end());
        // Only existing rules, however long the range is.
        let known: Vec<ForwardId> = self
            .rules
            .range(ForwardId(first)..)
            .map(|(&id, _)| id)
            .take_while(|id| id.0 <= last)
            .collect();
        let missing = (first..=last).zip(&known).find(|(id, known)| known.0 != *id);
        if let Some((id, _)) = missing {
            return Err(unknown(id));
        }
        if known.last().is_none_or(|id| id.0 != last) {
            return Err(unknown(known.last().map_or(first, |id| id.0 + 1)));
        }
        for &id in &known {
            self.remove(id);
        }
        Ok(known)
    }

    pub(crate) fn list(&self) -> Vec<(ForwardId, Forward)> {
        self.list_from(ForwardId(0))
    }

    /// The socket of a port.
    pub(crate) fn socket(&self, id: PortId) -> Option<BorrowedFd<'_>> {
        self.port(id).map(|(_, port, _)| port.socket.as_fd())
    }

    /// Where the datagrams or connections of a port go.
    pub(crate) fn guest(&self, id: PortId) -> Option<SocketAddr> {
        self.port(id).map(|(.., forward)| forward.guest)
    }

    fn list_from(&self, first: ForwardId) -> Vec<(ForwardId, Forward)> {
        self.rules.range(first..).map(|(&id, rule)| (id, rule.forward)).collect()
    }

    /// Notes that the socket of the port with this number is ready.
    pub(crate) fn on_event(&mut self, number: usize) {
        self.queue(PortId(number));
    }

    /// Queues the port to be served again.
    pub(crate) fn queue(&mut self, id: PortId) {
        if let Some((_, port, _)) = self.port_mut(id)
            && !port.is_queued
        {
            port.is_queued = true;
            self.queue.push(id);
        }
    }

    /// Whether no port is queued.
    pub(crate) const fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// How long the event loop may wait for other events; `None` when no port is queued.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        if self.queue.is_empty() {
            return None;
        }
        Some(self.paused_until.map_or(Duration::ZERO, |until| until.saturating_since(now)))
    }

    /// Serves no port until then. What arrives waits in the kernel.
    pub(crate) const fn pause(&mut self, until: Instant) {
        self.paused_until = Some(until);
    }

    /// Takes the ports to serve now.
    pub(crate) fn take_queue(&mut self, now: Instant) -> Vec<(PortId, ForwardProtocol)> {
        if self.queue.is_empty() || self.paused_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        self.paused_until = None;
        let mut due = Vec::with_capacity(self.queue.len());
        for id in std::mem::take(&mut self.queue) {
            if let Some((_, port, _)) = self.port_mut(id) {
                port.is_queued = false;
                let protocol = match port.socket {
                    RuleSocket::Tcp(_) => ForwardProtocol::Tcp,
                    RuleSocket::Udp(_) => ForwardProtocol::Udp,
                };
                due.push((id, protocol));
            }
        }
        due
    }

    /// The rule that a port is of, unless that was removed.
    fn rule_of(&self, id: PortId) -> Option<ForwardId> {
        self.firsts.range(..=id).next_back().map(|(_, &rule)| rule)
    }

    /// A port, its rule, and what it forwards.
    fn port(&self, id: PortId) -> Option<(ForwardId, &Port, Forward)> {
        let rule_id = self.rule_of(id)?;
        let rule = self.rules.get(&rule_id)?;
        let port = rule.ports.get(id.0 - rule.first.0)?.as_ref()?;
        Some((rule_id, port, rule.forward_of(id)))
    }

    fn port_mut(&mut self, id: PortId) -> Option<(ForwardId, &mut Port, Forward)> {
        let rule_id = self.rule_of(id)?;
        let rule = self.rules.get_mut(&rule_id)?;
        let forward = rule.forward_of(id);
        let port = rule.ports.get_mut(id.0 - rule.first.0)?.as_mut()?;
        Some((rule_id, port, forward))
    }

    /// Takes the next connection of a port.
    pub(crate) fn accept(&mut self, id: PortId, now: Instant) -> Accepted {
        let Some((rule, Port { socket: RuleSocket::Tcp(listener), .. }, forward)) = self.port(id)
        else {
            return Accepted::Drained;
        };
        match listener.accept() {
            Ok((socket, remote)) => match (TcpStream::accepted(socket), remote.as_socket()) {
                (Ok(stream), Some(mut client)) => {
                    client.set_ip(client.ip().to_canonical());
                    let in_ipv6 = forward.in_ipv6().filter(|_| client.is_ipv6());
                    let Forward { host, guest, .. } = in_ipv6.unwrap_or(forward);
                    let origin = Origin { rule, client, local: host };
                    let other = forward.guests().find(|other| *other != guest);
                    Accepted::Connection { stream, origin, guest, other }
                }
                (Ok(_) | Err(_), _) => Accepted::Lost,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Drained,
            Err(error) if HostError::from_io(&error) == HostError::Exhausted => {
                let is_news = |at: Instant| now.saturating_since(at) >= WARNING_INTERVAL;
                if self.warned_at.is_none_or(is_news) {
                    self.warned_at = Some(now);
                    tracing::warn!(%error, host = %forward.host, "cannot accept a connection");
                }
                self.pause(now + PAUSE);
                self.queue(id);
                Accepted::Drained
            }
            // The connection was gone before it was accepted (accept(2): treat like EAGAIN and
            // retry).
            Err(_) => Accepted::Lost,
        }
    }

    /// Takes the next datagram of a port; `None` when there is none.
    pub(crate) fn receive<'b>(
        &mut self,
        id: PortId,
        buffer: &'b mut [u8],
    ) -> Option<(Origin, SocketAddr, Received<'b>)> {
        let (rule, port, forward) = self.port_mut(id)?;
        let RuleSocket::Udp(socket) = &mut port.socket else { return None };
        let received = socket.recv(buffer).ok()?;
        let local = received.local.unwrap_or_else(|| unspecified(forward.host.ip()));
        let local = SocketAddr::new(local, forward.host.port());
        Some((Origin { rule, client: received.from, local }, forward.guest, received))
    }

    /// The next error about a datagram that was sent from a rule's port, with the guest's address.
    pub(crate) fn take_error(&mut self, id: PortId) -> Option<(SocketAddr, DatagramError)> {
        let (_, Port { socket: RuleSocket::Udp(socket), .. }, forward) = self.port_mut(id)? else {
            return None;
        };
        socket.take_error().map(|error| (forward.guest, error))
    }

    /// The rule whose port is the source of datagrams from `guest` to `remote`, if the guest's port
    /// is published. It is the first rule whose host address can reach the remote in the IP version
    /// that the guest used.
    pub(crate) fn published(&self, guest: SocketAddr, remote: SocketAddr) -> Option<Origin> {
        if self.targets.is_empty() {
            return None;
        }
        let guest = endpoint(guest);
        let of = |id| (guest, ForwardId(id));
        let reaches = |rule: &Rule| {
            let halves = [Some(rule.forward), rule.forward.in_ipv6()];
            halves.iter().flatten().any(|half| can_reach(half.host.ip(), remote.ip()))
        };
        let mut rules = self.targets.range(of(0)..=of(u64::MAX));
        let &(.., id) = rules.find(|(.., id)| self.rules.get(id).is_some_and(reaches))?;
        let forward = self.rules.get(&id)?.forward;
        // The rule's listening address, or the kernel's choice, is the right source already.
        let port = forward.port(guest.port().checked_sub(forward.guest.port())?).host.port();
        Some(Origin {
            rule: id,
            client: remote,
            local: SocketAddr::new(unspecified(remote.ip()), port),
        })
    }

    /// Sends to the remote of `origin` what the guest answers, or says first; by `interface` where
    /// one is given.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(crate) fn send(
        &mut self,
        origin: &Origin,
        interface: Option<&str>,
        payload: &[u8],
        segment_len: Option<u16>,
        envelope: Envelope,
    ) -> Result<(), NotSent> {
        let host = self.rules.get(&origin.rule).map(|rule| rule.forward.host.ip());
        match self.port_of(origin).and_then(|id| self.port_mut(id)) {
            Some((_, Port { socket: RuleSocket::Udp(socket), .. }, _)) => {
                let mut from = Departure::default();
                let mut local = Some(origin.local.ip());
                if let Some(name) = interface {
                    from.interface = outbound::index(socket.as_fd(), name)
                        .map_err(|error| NotSent::all(error, payload, segment_len))?;
                    // IPv4 forgets otherwise what the socket is bound to.
                    local = host;
                }
                from.local = local.filter(|local| !local.is_unspecified());
                socket.send_from(from, origin.client, payload, segment_len, envelope)
            }
            Some(_) | None => {
                Err(NotSent::all(HostError::NetworkUnreachable, payload, segment_len))
            }
        }
    }

    /// The port at which a datagram arrived, and from which its answers leave.
    pub(crate) fn port_of(&self, origin: &Origin) -> Option<PortId> {
        let Rule { forward, first, .. } = self.rules.get(&origin.rule)?;
        let index = origin.local.port().checked_sub(forward.host.port())?;
        // Ports of the other IP version come after the rule's own.
        let is_behind = origin.local.is_ipv4() != forward.host.is_ipv4();
        let before = if is_behind { forward.ports } else { 0 };
        (index < forward.ports)
            .then_some(PortId(first.0 + usize::from(before) + usize::from(index)))
    }
}

/// The guest addresses that a rule leads datagrams to, port by port.
fn targets(id: ForwardId, forward: Forward) -> impl Iterator<Item = (SocketAddr, ForwardId)> {
    let rule = Some(forward).filter(|rule| rule.protocol == ForwardProtocol::Udp);
    let ports = rule.into_iter().flat_map(|rule| rule.each());
    ports.flat_map(|port| port.guests()).map(move |guest| (endpoint(guest), id))
}

/// Address and port alone, without flow label and scope of an IPv6 socket address.
fn endpoint(guest: SocketAddr) -> SocketAddr {
    SocketAddr::new(guest.ip(), guest.port())
}

/// Whether datagrams from `host` (an address of the host, or the unspecified one) reach `remote`,
/// and answers come back. Loopback and link-local addresses reach only their own kind.
const fn can_reach(host: IpAddr, remote: IpAddr) -> bool {
    match (host, remote) {
        (IpAddr::V4(host), IpAddr::V4(remote)) => {
            (!host.is_loopback() || remote.is_loopback())
                && (!host.is_link_local() || remote.is_link_local())
        }
        (IpAddr::V6(host), IpAddr::V6(remote)) => {
            (!host.is_loopback() || remote.is_loopback())
                && (!host.is_unicast_link_local() || remote.is_unicast_link_local())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests;
