//! Forward rules: ports of the host that lead to the guest.
//!
//! Owns the rules, their listeners and UDP sockets, and which of these have something waiting.
//! What becomes of an accepted connection or a datagram is decided on the pure side; when to look
//! at which socket is the reactor's business.
//!
//! A guest that speaks first from a published UDP port leaves from there as well, so that remotes see
//! one port whoever began: `Forwards::published` finds the rule. Remotes answer to the rule's socket.
//!
//! Sockets are edge-triggered, so a rule that was not drained stays queued. When the process is
//! out of descriptors, accepting pauses for 100 ms instead of failing over and over.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::tcp::TcpStream;
use super::udp::{NotSent, Received, UdpSocket};
use crate::event::{DatagramError, Envelope, ForwardId, HostError, Origin};
use crate::time::Instant;

/// Rules at one time (one descriptor each; a published port range is one rule per port).
pub const FORWARDS_CAP: usize = 4096;
/// Connections that wait for us to accept them; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// How long accepting pauses when there is no descriptor or memory left (arbitrary).
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about that (arbitrary).
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Tokens of rules start here, far above those of flows.
const FIRST_TOKEN: usize = 1 << (usize::BITS - 2);

crate::sys::calls::system_calls! {
    SYS_socket if crate::sys::calls::IP => "forwarded ports";
    SYS_setsockopt => "a port that was in use a moment ago, IPv6 apart from IPv4";
    SYS_bind => "forwarded ports";
    SYS_listen => "forwarded ports";
    SYS_accept4 => "connections to forwarded ports";
    SYS_epoll_ctl => "the poller is told of a port";
}

/// What a rule forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// One rule: what arrives at `host` goes to `guest`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// What is forwarded.
    pub protocol: ForwardProtocol,
    /// Where the host listens; the unspecified address stands for all of this IP version.
    pub host: SocketAddr,
    /// Where the guest listens.
    pub guest: SocketAddr,
}

/// Why a rule could not be added or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The two addresses are not of the same IP version.
    #[error("{} and {} are of different IP versions", .0.host, .0.guest)]
    Versions(Forward),
    /// Port 0 means nothing here.
    #[error("port 0 cannot be forwarded")]
    PortZero,
    /// The guest cannot have this address: it is ours, a group, or IPv6 is not enabled.
    #[error("{0} is no address that the guest can have")]
    GuestAddress(IpAddr),
    /// The host does not let us listen there.
    #[error("cannot listen on {} for {}: {source}{}", .forward.host, .forward.protocol, hint(.source))]
    Bind {
        /// The rule.
        forward: Forward,
        /// What the kernel said.
        source: io::Error,
    },
    /// There are [`FORWARDS_CAP`] rules already.
    #[error("there are {FORWARDS_CAP} forward rules already")]
    TooMany,
    /// No rule has this name (any more).
    #[error("there is no forward rule {}", .0.0)]
    Unknown(ForwardId),
    /// The instance has ended.
    #[error("the network has ended")]
    Ended,
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        // bind(2) of an IP socket says so of privileged ports alone, and where those end is set there.
        Some(libc::EACCES) => " (see the sysctl net.ipv4.ip_unprivileged_port_start)",
        Some(libc::EADDRNOTAVAIL) => " (no interface of the host has this address)",
        Some(_) | None => "",
    }
}

#[derive(Debug)]
enum RuleSocket {
    Tcp(Socket),
    Udp(UdpSocket),
}

#[derive(Debug)]
struct Rule {
    forward: Forward,
    socket: RuleSocket,
    is_queued: bool,
}

/// The rules of one instance.
#[derive(Debug)]
pub(crate) struct Forwards {
    rules: BTreeMap<ForwardId, Rule>,
    /// UDP rules by the guest's address and port, the first added first.
    published: BTreeSet<(SocketAddr, ForwardId)>,
    registry: Registry,
    coalesce_udp: bool,
    last_id: u64,
    queue: Vec<ForwardId>,
    paused_until: Option<Instant>,
    /// When a line about that was logged for the last time.
    warned_at: Option<Instant>,
}

/// What accepting came to.
pub(crate) enum Accepted {
    /// A connection of `remote`, to be forwarded to `guest`.
    Connection { stream: TcpStream, remote: SocketAddr, guest: SocketAddr },
    /// One that was gone again; there may be more.
    Lost,
    /// Nothing more for now.
    Drained,
}

impl Forwards {
    pub(crate) const fn new(registry: Registry, coalesce_udp: bool) -> Self {
        Self {
            rules: BTreeMap::new(),
            published: BTreeSet::new(),
            registry,
            coalesce_udp,
            last_id: 0,
            queue: Vec::new(),
            paused_until: None,
            warned_at: None,
        }
    }

    /// Adds a rule; the port is open when this returns.
    ///
    /// # Errors
    /// [`ForwardError`], whose addresses have been checked against the plan by the caller.
    pub(crate) fn add(&mut self, forward: Forward) -> Result<ForwardId, ForwardError> {
        if forward.host.is_ipv4() != forward.guest.is_ipv4() {
            return Err(ForwardError::Versions(forward));
        }
        if forward.host.port() == 0 || forward.guest.port() == 0 {
            return Err(ForwardError::PortZero);
        }
        if self.rules.len() >= FORWARDS_CAP {
            return Err(ForwardError::TooMany);
        }
        let id = ForwardId(self.last_id + 1);
        let socket =
            self.open(id, &forward).map_err(|source| ForwardError::Bind { forward, source })?;
        self.last_id = id.0;
        if forward.protocol == ForwardProtocol::Udp {
            self.published.insert((endpoint(forward.guest), id));
        }
        self.rules.insert(id, Rule { forward, socket, is_queued: false });
        Ok(id)
    }

    fn open(&self, id: ForwardId, forward: &Forward) -> io::Result<RuleSocket> {
        let socket = match forward.protocol {
            ForwardProtocol::Tcp => RuleSocket::Tcp(listen(forward.host)?),
            ForwardProtocol::Udp => {
                RuleSocket::Udp(UdpSocket::listen(forward.host, self.coalesce_udp)?)
            }
        };
        let fd = match &socket {
            RuleSocket::Tcp(socket) => socket.as_raw_fd(),
            RuleSocket::Udp(socket) => socket.as_raw_fd(),
        };
        let token = usize::try_from(id.0).ok().and_then(|id| id.checked_add(FIRST_TOKEN));
        let token = Token(token.ok_or(io::ErrorKind::QuotaExceeded)?);
        self.registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(socket)
    }

    /// Adds all of the rules, under names that follow each other, or none; returns the first name.
    ///
    /// # Errors
    /// Those of [`add`](Self::add), for the first rule that cannot be added.
    pub(crate) fn add_all(&mut self, forwards: &[Forward]) -> Result<ForwardId, ForwardError> {
        let first = ForwardId(self.last_id + 1);
        for &forward in forwards {
            if let Err(error) = self.add(forward) {
                for (id, rule) in self.rules.split_off(&first) {
                    self.published.remove(&(endpoint(rule.forward.guest), id));
                }
                return Err(error);
            }
        }
        Ok(first)
    }

    /// Removes all of the rules or none, and closes their ports; connections that were accepted
    /// live on. Returns what was removed.
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] for the first that does not exist.
    pub(crate) fn remove_all(
        &mut self,
        ids: RangeInclusive<u64>,
    ) -> Result<Vec<ForwardId>, ForwardError> {
        let unknown = |id| ForwardError::Unknown(ForwardId(id));
        let (first, last) = (*ids.start(), *ids.end());
        // No more than FORWARDS_CAP, however long the range is.
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
        for id in &known {
            // Closing the socket also ends its registration.
            if let Some(rule) = self.rules.remove(id) {
                self.published.remove(&(endpoint(rule.forward.guest), *id));
            }
        }
        Ok(known)
    }

    pub(crate) fn list(&self) -> Vec<(ForwardId, Forward)> {
        self.rules.iter().map(|(&id, rule)| (id, rule.forward)).collect()
    }

    /// Notes that something waits on the socket with this token; `false` if it is none of ours.
    pub(crate) fn on_event(&mut self, token: Token) -> bool {
        let Some(id) = token.0.checked_sub(FIRST_TOKEN).and_then(|id| u64::try_from(id).ok())
        else {
            return false;
        };
        self.queue(ForwardId(id));
        true
    }

    /// The rule is to be served again.
    pub(crate) fn queue(&mut self, id: ForwardId) {
        if let Some(rule) = self.rules.get_mut(&id)
            && !rule.is_queued
        {
            rule.is_queued = true;
            self.queue.push(id);
        }
    }

    /// Whether no rule is queued.
    pub(crate) const fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// How long the event loop may wait for other things; `None` where nothing is queued here.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        if self.queue.is_empty() {
            return None;
        }
        Some(self.paused_until.map_or(Duration::ZERO, |until| until.saturating_since(now)))
    }

    /// Takes the rules that are to be served now.
    pub(crate) fn take_queue(&mut self, now: Instant) -> Vec<(ForwardId, ForwardProtocol)> {
        if self.queue.is_empty() || self.paused_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        self.paused_until = None;
        let mut due = Vec::with_capacity(self.queue.len());
        for id in std::mem::take(&mut self.queue) {
            if let Some(rule) = self.rules.get_mut(&id) {
                rule.is_queued = false;
                due.push((id, rule.forward.protocol));
            }
        }
        due
    }

    /// Takes the next connection of a rule.
    pub(crate) fn accept(&mut self, id: ForwardId, now: Instant) -> Accepted {
        let Some(Rule { forward, socket: RuleSocket::Tcp(listener), .. }) = self.rules.get(&id)
        else {
            return Accepted::Drained;
        };
        let guest = forward.guest;
        match listener.accept() {
            Ok((socket, remote)) => match (TcpStream::accepted(socket), remote.as_socket()) {
                (Ok(stream), Some(remote)) => Accepted::Connection { stream, remote, guest },
                (Ok(_) | Err(_), _) => Accepted::Lost,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Drained,
            Err(error) if HostError::from_io(&error) == HostError::Exhausted => {
                let is_news = |at: Instant| now.saturating_since(at) >= WARNING_INTERVAL;
                if self.warned_at.is_none_or(is_news) {
                    self.warned_at = Some(now);
                    tracing::warn!(%error, host = %forward.host, "cannot accept a connection");
                }
                self.paused_until = Some(now + PAUSE);
                self.queue(id);
                Accepted::Drained
            }
            // The connection was gone before we came (accept(2): treat like EAGAIN and retry).
            Err(_) => Accepted::Lost,
        }
    }

    /// Takes the next datagram of a rule; `None` when there is none.
    pub(crate) fn receive<'b>(
        &mut self,
        id: ForwardId,
        buffer: &'b mut [u8],
    ) -> Option<(Origin, SocketAddr, Received<'b>)> {
        let Some(Rule { forward, socket: RuleSocket::Udp(socket), .. }) = self.rules.get_mut(&id)
        else {
            return None;
        };
        let received = socket.recv(buffer).ok()?;
        let unspecified = match forward.host {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let local = received.local.unwrap_or(unspecified);
        Some((Origin { rule: id, client: received.from, local }, forward.guest, received))
    }

    /// The next error that a datagram sent from a rule's port has met, with the guest's address.
    pub(crate) fn take_error(&mut self, id: ForwardId) -> Option<(SocketAddr, DatagramError)> {
        let Rule { forward, socket: RuleSocket::Udp(socket), .. } = self.rules.get_mut(&id)? else {
            return None;
        };
        socket.take_error().map(|error| (forward.guest, error))
    }

    /// The rule that `guest` sends to `remote` from, if it has published this port: the first whose
    /// address on the host can reach there.
    pub(crate) fn published(&self, guest: SocketAddr, remote: SocketAddr) -> Option<Origin> {
        if self.published.is_empty() {
            return None;
        }
        let guest = endpoint(guest);
        let rules = self.published.range((guest, ForwardId(0))..=(guest, ForwardId(u64::MAX)));
        let reaches = |rule: &Rule| can_reach(rule.forward.host.ip(), remote.ip());
        let (_, rule) = rules.copied().find(|(_, id)| self.rules.get(id).is_some_and(reaches))?;
        // The address that the rule listens at, or the kernel's choice, is right by itself.
        let local = match remote {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Some(Origin { rule, client: remote, local })
    }

    /// Sends the guest's answer to whoever `origin` names.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(crate) fn send(
        &mut self,
        origin: &Origin,
        payload: &[u8],
        segment_len: Option<u16>,
        envelope: Envelope,
    ) -> Result<(), NotSent> {
        match self.rules.get_mut(&origin.rule) {
            Some(Rule { socket: RuleSocket::Udp(socket), .. }) => {
                let local = Some(origin.local).filter(|local| !local.is_unspecified());
                socket.send_from(local, origin.client, payload, segment_len, envelope)
            }
            Some(_) | None => {
                Err(NotSent::all(HostError::NetworkUnreachable, payload, segment_len))
            }
        }
    }
}

/// Address and port alone, without what an IPv6 socket address has besides.
fn endpoint(guest: SocketAddr) -> SocketAddr {
    SocketAddr::new(guest.ip(), guest.port())
}

/// Whether datagrams from `host`, an address of the host's or the unspecified one, reach `remote` and
/// its answers find the way back: those of the loopback or of one link stay there.
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

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // Connections of an earlier listener in TIME-WAIT do not keep the port closed.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
