//! From an accepted connection to a joined one.
//!
//! Owns the far socket's way: the verdict, the connect, and another address where the first one
//! refuses. A client whose far side refuses is reset.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mio::event::Event;
use socket2::{Domain, SockRef};

use super::ask::{Ask, Bridged, SocketKind};
use super::inward::Targets;
use super::pool::HostSocket;
use super::token::Source;
use super::worker::{STREAM, Worker, watch};
use crate::discard::DiscardReason;
use crate::event::{FlowId, HostError, Origin};
use crate::host::bridge::table::{Bridge, Entry, refused};
use crate::host::bridge::tcp::{Far, TcpBridge};
use crate::host::forward::ForwardProtocol;
use crate::host::socket::tcp::{self, Connecting, TcpStream};
use crate::journal::{Ending, Refusal};
use crate::protocol::Protocol;

impl Worker {
    /// A client on the host's loopback has connected to a forwarded port.
    pub(super) fn on_accepted(
        &mut self,
        stream: TcpStream,
        origin: Origin,
        targets: Targets,
        now: Instant,
    ) {
        let (protocol, guest) = (ForwardProtocol::Tcp, targets.first);
        let bridged = Bridged::Inbound { protocol, origin, guest };
        if let Some(at) = self.add_tcp(stream, bridged, origin.client, targets, now) {
            self.connect(at, targets, now);
        }
    }

    /// A client on the namespace's loopback has connected to `local`, which leads to `reached`.
    pub(super) fn on_client(
        &mut self,
        stream: TcpStream,
        (client, local): (SocketAddr, SocketAddr),
        reached: SocketAddr,
        now: Instant,
    ) {
        let bridged = Bridged::Outbound { protocol: ForwardProtocol::Tcp, guest: client, reached };
        let is_judged = self.signs.is_judged();
        // What is judged is one address. Whoever names another one than a `localhost` means it.
        let has_other = !is_judged && is_localhost(reached.ip());
        let other = has_other.then(|| SocketAddr::new(other_loopback(reached), reached.port()));
        let targets = Targets { first: reached, other };
        let Some(at) = self.add_tcp(stream, bridged, local, targets, now) else { return };
        if is_judged {
            self.ask_about(at);
        } else {
            self.connect(at, targets, now);
        }
    }

    fn add_tcp(
        &mut self,
        stream: TcpStream,
        bridged: Bridged,
        remote: SocketAddr,
        targets: Targets,
        now: Instant,
    ) -> Option<usize> {
        if !self.has_room(bridged, remote, now) {
            stream.reset();
            return None;
        }
        let bridge = Bridge::Tcp(Box::new(TcpBridge::new(stream, targets)));
        let at = self.add(bridged, remote, bridge, now);
        self.watch(at, Source::Near(at), now).then_some(at)
    }

    /// Adds a bridge, counts it, and tells of it. Returns its place.
    pub(super) fn add(
        &mut self,
        bridged: Bridged,
        remote: SocketAddr,
        bridge: Bridge,
        now: Instant,
    ) -> usize {
        let opened = match (bridged.protocol(), bridged.is_inbound()) {
            (ForwardProtocol::Tcp, false) => &mut self.stats.tcp_opened,
            (ForwardProtocol::Tcp, true) => &mut self.stats.tcp_accepted,
            (ForwardProtocol::Udp, false) => &mut self.stats.udp_opened,
            (ForwardProtocol::Udp, true) => &mut self.stats.udp_accepted,
        };
        *opened += 1;
        let at = self.bridges.add(bridged, remote, bridge, now);
        if let Some(entry) = self.bridges.at(at) {
            self.stats.open[entry.protocol()] += 1;
            self.stats.flows += 1;
            let opened = entry.opened();
            self.tell(|| opened);
        }
        at
    }

    /// Whether there may be one more bridge. Others make room if they may. A refusal is counted and
    /// told.
    pub(super) fn has_room(&mut self, bridged: Bridged, remote: SocketAddr, now: Instant) -> bool {
        let is_inbound = bridged.is_inbound();
        if !self.bridges.has_room(is_inbound) {
            for at in self.bridges.longest_idle(is_inbound, now) {
                self.stats.discards.count(match bridged.protocol() {
                    ForwardProtocol::Tcp => DiscardReason::HalfOpenLimit,
                    ForwardProtocol::Udp => DiscardReason::MappingEvicted,
                });
                self.end(at, Ending::Evicted, now);
            }
        }
        if self.bridges.has_room(is_inbound) {
            return true;
        }
        if !core::mem::replace(&mut self.is_full_logged, true) {
            tracing::warn!(is_inbound, "too many connections over loopback (ulimit -n)");
        }
        let reason = DiscardReason::BridgesFull;
        self.stats.discards.count(reason);
        self.tell(|| refused(&bridged, remote, Refusal::by_stack(reason)));
        false
    }

    /// Has the poller watch a socket of a bridge. Returns whether it does; otherwise the bridge has
    /// ended.
    fn watch(&mut self, at: usize, source: Source, now: Instant) -> bool {
        let Some(Entry { bridge: Bridge::Tcp(tcp), .. }) = self.bridges.at(at) else {
            return false;
        };
        let socket = if source == Source::Near(at) { Some(tcp.near()) } else { tcp.far() };
        let watched = socket.map_or(Ok(()), |it| watch(self.poll.registry(), it, source, STREAM));
        if let Err(error) = &watched {
            tracing::debug!(%error, "a connection was lost");
            self.end(at, Ending::HostFailed, now);
        }
        watched.is_ok()
    }

    /// Connects the far socket of a bridge to the first target that does not refuse at once.
    fn connect(&mut self, at: usize, targets: Targets, now: Instant) {
        let mut error = HostError::NetworkUnreachable;
        let mut left = Some(targets);
        while let Some(Targets { first, other }) = left {
            match self.try_connect(at, first) {
                Ok(Connecting::Done(stream)) => return self.join(at, stream, None, now),
                Ok(Connecting::InProgress(stream)) => {
                    if let Some(Entry { bridge: Bridge::Tcp(tcp), .. }) = self.bridges.at(at) {
                        tcp.far = Far::Connecting { stream, targets: Targets { first, other } };
                    }
                    self.watch(at, Source::Far(at), now);
                    return;
                }
                Err(refusal) => error = refusal,
            }
            left = other.map(|first| Targets { first, other: None });
        }
        self.refuse(at, error);
    }

    fn try_connect(&mut self, at: usize, target: SocketAddr) -> Result<Connecting, HostError> {
        let entry = self.bridges.at(at).ok_or(HostError::Exhausted)?;
        entry.bridged.lead_to(target);
        let socket = if entry.bridged.is_inbound() {
            tcp::open(Domain::for_address(target)).map_err(|error| HostError::from_io(&error))?
        } else {
            if self.is_own(ForwardProtocol::Tcp, target) {
                return Err(HostError::Refused);
            }
            let protocol = ForwardProtocol::Tcp;
            match self.host_socket(SocketKind { protocol, is_ipv6: target.is_ipv6() }) {
                Some(HostSocket::Tcp(socket)) => socket,
                Some(HostSocket::Udp(_)) | None => return Err(HostError::Exhausted),
            }
        };
        tcp::start_connect(socket, target).map_err(|error| HostError::from_io(&error))
    }

    /// Whether this instance itself listens there: a connection would come back to us, or reach
    /// what no guest may reach.
    pub(super) fn is_own(&self, protocol: ForwardProtocol, target: SocketAddr) -> bool {
        self.own.of(protocol).contains(target.port())
            || self.closed.iter().any(|closed| closed.port() == target.port())
    }

    /// The far socket of a bridge has news of its connect.
    pub(super) fn finish_connect(&mut self, at: usize, event: &Event, now: Instant) {
        let Some(Entry { bridge: Bridge::Tcp(tcp), .. }) = self.bridges.at(at) else { return };
        let Far::Connecting { stream, targets } = &tcp.far else { return };
        let targets = *targets;
        match stream.finish_connect() {
            Ok(false) => {}
            Ok(true) => {
                if let Far::Connecting { stream, .. } =
                    core::mem::replace(&mut tcp.far, Far::Held(targets))
                {
                    self.join(at, stream, Some(event), now);
                }
            }
            Err(error) => {
                tcp.far = Far::Held(targets);
                match targets.other {
                    Some(first) => self.connect(at, Targets { first, other: None }, now),
                    None => self.refuse(at, error),
                }
            }
        }
    }

    /// The far socket is connected. Without an event it is not watched yet.
    fn join(&mut self, at: usize, stream: TcpStream, event: Option<&Event>, now: Instant) {
        let Some(entry) = self.bridges.at(at) else { return };
        let Bridge::Tcp(tcp) = &mut entry.bridge else { return };
        tcp.join(stream);
        if let (Bridged::Inbound { .. }, Some(far)) = (entry.bridged, tcp.far()) {
            // The guest sees this end of the connection.
            let local = SockRef::from(&far).local_addr().ok().and_then(|it| it.as_socket());
            entry.remote = local.unwrap_or(entry.remote);
        }
        let connected = entry.connected(now);
        self.tell(|| connected);
        match event {
            Some(event) => self.on_far_event(at, event, now),
            None if self.watch(at, Source::Far(at), now) => self.wake(at),
            None => {}
        }
    }

    /// Nothing has accepted the connection on the far side.
    pub(super) fn refuse(&mut self, at: usize, error: HostError) {
        let Some(entry) = self.bridges.remove(at) else { return };
        if !entry.bridged.is_inbound() {
            self.stats.tcp_failed += 1;
            self.stats.connect_failures.count(error);
        }
        self.tell(|| entry.refused(Refusal::Host(error)));
        self.forget(entry, true);
    }

    /// Has the egress policy asked about a bridge.
    pub(super) fn ask_about(&mut self, at: usize) {
        let Some(Entry { id, bridged, .. }) = self.bridges.at(at) else { return };
        let ask = Ask::Judge { bridge: *id, bridged: *bridged };
        self.ask(ask);
    }

    /// The egress policy has spoken about a bridge.
    pub(super) fn on_verdict(&mut self, bridge: FlowId, is_allowed: bool, now: Instant) {
        let Some(at) = self.bridges.place(bridge) else { return };
        if !is_allowed {
            return self.end(at, Ending::Revoked, now);
        }
        let Some(entry) = self.bridges.at(at) else { return };
        let before = entry.traffic();
        match &mut entry.bridge {
            Bridge::Tcp(tcp) => {
                if let Far::Held(targets) = tcp.far {
                    self.connect(at, targets, now);
                }
            }
            Bridge::Udp(udp) => {
                udp.release();
                let after = entry.traffic();
                self.stats.traffic[Protocol::Udp].add_growth(before, after);
                self.wake(at);
            }
        }
    }

    /// Has the egress policy asked about every bridge.
    pub(super) fn judge_anew(&mut self) {
        for (_, Entry { id, bridged, .. }) in self.bridges.iter() {
            self.ask(Ask::Judge { bridge: *id, bridged: *bridged });
        }
    }
}

/// Whether a program that looks `localhost` up finds this address.
fn is_localhost(address: IpAddr) -> bool {
    address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST
}

/// The loopback address of the other IP version.
fn other_loopback(address: SocketAddr) -> IpAddr {
    match address {
        SocketAddr::V4(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}
