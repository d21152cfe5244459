//! Flows that remotes begin: connections and datagrams that arrived on a forward rule.
//!
//! Owns how a remote is shown to the guest, and the opening of such flows. The host side owns the
//! rules and their sockets; [`whereabouts`](super::whereabouts) tells which address the guest has
//! now, and the [services of the link](super::link) which MAC address.
//!
//! # Who the guest sees
//! The remote itself, so that the guest's logs and access rules mean what they say. A remote that
//! the guest cannot answer appears as the gateway: the host's loopback, link-local addresses,
//! addresses that the guest takes for neighbours of its own, and addresses of the other IP version.
//! The port is the remote's too, unless the guest has a conversation with the same four numbers
//! already.
//!
//! # Services of one IP version
//! The host's kernel has completed the handshake before we see a connection, so a client that tried
//! IPv6 first would not fall back to IPv4 if the guest refused. We do it in its place: a rule for
//! both IP versions leads a refused connection to the guest's other address.
//!
//! # Limits
//! Connections count as half open until the guest answers.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use super::Stack;
use super::link::HeldDatagram;
use super::outbox::UdpToGuest;
use crate::discard::DiscardReason;
use crate::event::{DatagramError, FlowId, ForwardId, Origin};
use crate::flow::inbound_udp::InboundUdp;
use crate::flow::permit::Kind;
use crate::flow::tcp::TcpFlow;
use crate::flow::{Flow, FlowKey, GuestSide};
use crate::journal::{Ending, Ends, Peer, Refusal};
use crate::mac::MacAddr;
use crate::nat::{self, Opener};
use crate::policy::Protocol;
use crate::time::Instant;

/// Ports that are tried when the remote's own is taken (arbitrary).
const PORT_ATTEMPTS: u16 = 256;
/// How long a guest that has refused may take to answer at its other address (arbitrary). One that
/// has none is silent, and its clients are not to wait long for the refusal.
const SECOND_PATIENCE: Duration = Duration::from_millis(250);
/// First of the ports that are shown instead of one that is taken, and how many there are: the
/// dynamic ports (RFC 6335 section 6).
const OTHER_PORTS: (u16, u16) = (49_152, 16_384);

impl Stack {
    /// A host listener has accepted a connection, from and to where `origin` says, that is to be
    /// forwarded to `guest`. Its socket is to be kept for the flow that is returned; the guest is
    /// connected to from now on.
    ///
    /// # Errors
    /// Why it cannot be; the socket is to be reset.
    pub fn handle_tcp_accepted(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        self.accept(origin, guest, self.config.timeouts.guest_connect, now)
    }

    /// As [`handle_tcp_accepted`](Self::handle_tcp_accepted), for a connection that the guest has
    /// refused at another address. It is to answer within a quarter of a second.
    ///
    /// # Errors
    /// As there.
    pub fn handle_tcp_refused(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        self.accept(origin, guest, SECOND_PATIENCE, now)
    }

    fn accept(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        patience: Duration,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        let opened = self.open_inbound(origin, guest, patience, now);
        self.note(opened.map(|_| ()));
        self.tell_refused(Protocol::Tcp, origin.client, guest, opened.err());
        opened
    }

    fn open_inbound(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        patience: Duration,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        let guest = self.current_guest(guest);
        let seen = self.as_seen_by(guest, origin.client)?;
        let guest = self.whereabouts.facing(guest, seen.ip());
        let key = self
            .keys(Protocol::Tcp, guest, seen)
            .find(|key| self.flows.lookup(key).is_none())
            .ok_or(DiscardReason::ForwardAddressInvalid)?;
        let judgement = match self.egress {
            Some(_) => self.judge_inbound(Protocol::Tcp, &origin, guest, now)?,
            None => None,
        };
        let holder = self.admission.holder(guest.ip());
        // Asked before another flow makes room for one that could not wait for the guest.
        self.link.check_waiting(guest.ip(), holder)?;
        let mac = self.link.mac_of(guest.ip()).unwrap_or_default();
        let side = GuestSide { address: guest, mac };
        let our_mac = self.outbox.our_mac(guest.ip());
        let flow = TcpFlow::accepted(side, our_mac, key.remote, origin, patience, now);
        let way = (key.remote, Peer::Inbound { rule: origin.rule, client: origin.client });
        let flow = Flow::Tcp(Box::new(flow));
        let id = self.open_flow(Kind::InboundOpening, key, flow, way, now)?;
        self.tell_judged(id, judgement);
        match self.link.wait_for(guest.ip(), holder, id, &mut self.outbox, now) {
            Ok(Some(mac)) => self.locate(id, mac),
            Ok(None) => {}
            Err(reason) => self.note_discard(reason),
        }
        self.schedule_link();
        Ok(id)
    }

    /// Should the guest refuse the connection that was accepted as `id`, the host side is asked to
    /// ask once more, at `guest`.
    pub fn set_other_guest(&mut self, id: FlowId, guest: SocketAddr) {
        if let Some((_, flow)) = self.flows.tcp_mut(id) {
            flow.set_other_guest(guest);
        }
    }

    /// Whether a remote waits for the guest's answer on this flow.
    pub fn is_unanswered(&self, id: FlowId) -> bool {
        self.flows.tcp(id).is_some_and(|(_, flow)| flow.is_unanswered())
    }

    /// The host socket of a flow has failed, or its remote has gone entirely, and has left nothing
    /// for the guest. Matters only while the guest has not answered; later the flow finds out when
    /// it uses the socket.
    pub fn handle_remote_gone(&mut self, id: FlowId) {
        if let Some((meta, flow)) = self.flows.tcp_mut(id)
            && flow.is_unanswered()
        {
            flow.abort(Ending::RemoteGone);
            self.turns.wake(meta);
        }
    }

    /// A datagram, or several of `segment_len` bytes each, has arrived on the socket of a forward
    /// rule, from and to where `origin` says, with TOS or traffic class `traffic_class`. Goes to
    /// `guest`.
    pub fn handle_inbound_udp(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        traffic_class: u8,
        now: Instant,
    ) {
        let forwarded = self.forward_udp(origin, guest, payload, segment_len, traffic_class, now);
        self.note(forwarded);
        if forwarded == Err(DiscardReason::ForwardAddressInvalid) {
            self.tell_refused(Protocol::Udp, origin.client, guest, forwarded.err());
        }
    }

    /// Tells of what a remote wanted and did not get.
    fn tell_refused(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        guest: SocketAddr,
        reason: Option<DiscardReason>,
    ) {
        // The opening of a flow has told of a full table, and the judge of its verdict.
        let is_told = [DiscardReason::FlowTableFull, DiscardReason::EgressDenied];
        if let Some(reason) = reason.filter(|reason| !is_told.contains(reason)) {
            let ends = Ends::new(protocol, guest, remote);
            self.events.refused(ends, Refusal::by_stack(reason));
        }
    }

    fn forward_udp(
        &mut self,
        origin: Origin,
        guest: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        traffic_class: u8,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let guest = self.current_guest(guest);
        // A guest that has spoken to the remote first knows it by the address that it used.
        let seen = match self.spoken_to(guest, origin.client) {
            Some(original_dst) => original_dst,
            None => self.as_seen_by(guest, origin.client)?,
        };
        let guest = self.whereabouts.facing(guest, seen.ip());
        let (key, known) = self
            .keys(Protocol::Udp, guest, seen)
            .find_map(|key| match self.flows.lookup(&key) {
                Some(id) => self.is_from(id, &origin).then_some((key, Some(id))),
                None => Some((key, None)),
            })
            .ok_or(DiscardReason::ForwardAddressInvalid)?;
        let id = match known {
            Some(id) => id,
            None => {
                let judgement = match self.egress {
                    Some(_) => self.judge_inbound(Protocol::Udp, &origin, guest, now)?,
                    None => None,
                };
                let mac = self.link.mac_of(guest.ip()).unwrap_or_default();
                let side = GuestSide { address: guest, mac };
                let flow = InboundUdp::new(side, origin, &self.config.timeouts, now);
                let way = (key.remote, Peer::Inbound { rule: origin.rule, client: origin.client });
                let flow = Flow::InboundUdp(Box::new(flow));
                let id = self.open_flow(Kind::InboundUdp, key, flow, way, now)?;
                self.tell_judged(id, judgement);
                id
            }
        };
        let Some((meta, flow)) = self.flows.inbound_udp_mut(id) else {
            return Err(DiscardReason::HostDatagramNoFlow);
        };
        flow.on_datagram(&self.config.timeouts, now);
        meta.permit.note_traffic(false, now);
        meta.traffic.add_to_guest(payload.len());
        self.stats.traffic[Protocol::Udp].add_to_guest(payload.len());
        if let Some(mac) = self.link.mac_of(guest.ip()) {
            flow.locate(mac);
        }
        let (side, wake_at) = (flow.guest(), Some(flow.expires_at()));
        self.schedule_flow(id, wake_at);
        let asked = self.link.note_use(guest.ip(), &mut self.outbox, now);
        self.note(asked);
        let udp = UdpToGuest {
            from: key.remote,
            to: guest,
            mac: side.mac,
            payload,
            segment_len,
            traffic_class,
        };
        if self.shaping.is_some() && !self.admits_udp(id, origin.client, udp, now) {
            return Ok(());
        }
        self.deliver(id, udp, now)
    }

    /// Sends datagrams of a flow to its guest, or holds them until the guest has told its place.
    pub(super) fn deliver(
        &mut self,
        id: FlowId,
        mut udp: UdpToGuest<'_>,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let guest = udp.to.ip();
        if udp.mac == MacAddr::default() {
            udp.mac = self.link.mac_of(guest).unwrap_or_default();
        }
        if udp.mac != MacAddr::default() {
            return self.outbox.push_udp(udp);
        }
        let holder = self.admission.holder(guest);
        let held = self.link.hold(id, holder, udp, &mut self.outbox, &mut self.stats.discards, now);
        self.schedule_link();
        held
    }

    /// The address by which `guest` has spoken to `remote`, if it is another one.
    fn spoken_to(&self, guest: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        let (_, flow) = self.flows.udp(self.mapping(guest)?)?;
        flow.original_dst(remote)
    }

    /// The flow of what `guest` sends by itself.
    fn mapping(&self, guest: SocketAddr) -> Option<FlowId> {
        let guest = SocketAddr::new(guest.ip(), guest.port());
        self.flows.lookup(&FlowKey::of_guest(Protocol::Udp, guest))
    }

    /// The error queue of a forward rule's socket told about an earlier datagram of `guest`.
    pub fn handle_inbound_udp_undelivered(&mut self, guest: SocketAddr, error: &DatagramError) {
        let guest = self.current_guest(guest);
        let answered = self.as_seen_by(guest, error.remote).ok().and_then(|remote| {
            let guest = self.whereabouts.facing(guest, remote.ip());
            self.flows.lookup(&FlowKey::new(Protocol::Udp, guest, remote))
        });
        // Who has not answered yet is known to the guest's own flow alone.
        if let Some(id) = answered.or_else(|| self.mapping(guest)) {
            self.handle_udp_undelivered(id, error, &[]);
        }
    }

    /// The conversation that a datagram from `guest` to `original_dst` belongs to, if a remote
    /// began it.
    pub(super) fn answer_inbound(
        &mut self,
        guest: GuestSide,
        original_dst: SocketAddr,
        payload_len: usize,
        now: Instant,
    ) -> Option<(FlowId, Origin)> {
        if self.admission.count(Kind::InboundUdp) == 0 {
            return None;
        }
        let key = FlowKey::new(Protocol::Udp, guest.address, original_dst);
        let id = self.flows.lookup(&key)?;
        let (meta, flow) = self.flows.inbound_udp_mut(id)?;
        meta.traffic.add_from_guest(payload_len);
        self.stats.traffic[Protocol::Udp].add_from_guest(payload_len);
        flow.locate(guest.mac);
        flow.on_datagram(&self.config.timeouts, now);
        // Answered: conversations without an answer make room first.
        meta.permit.note_traffic(true, now);
        let origin = flow.origin();
        if self.link.mac_of(guest.address.ip()) != Some(guest.mac) {
            self.on_neighbor(guest.address.ip(), guest.mac);
        }
        Some((id, origin))
    }

    /// These rules are gone, and their sockets with them: so are the flows of their datagrams.
    /// Costs as much as there are such flows, however many rules go.
    pub fn handle_forwards_removed(&mut self, rules: &BTreeSet<ForwardId>, now: Instant) {
        let is_its = |id: &FlowId| {
            let flow = self.flows.inbound_udp(*id);
            flow.is_some_and(|(_, flow)| rules.contains(&flow.origin().rule))
        };
        let flows: Vec<_> = self.admission.flows_of(Kind::InboundUdp).filter(is_its).collect();
        for id in flows {
            self.close_flow(id, Ending::ForwardRemoved, now);
        }
    }

    /// Whether connections and datagrams can be forwarded to `guest`.
    pub fn is_forwardable(&self, guest: SocketAddr) -> bool {
        guest.port() != 0 && self.config.plan.is_guest_address(guest.ip())
    }

    /// Where a rule for `guest` leads now: a guest that chooses its addresses is followed. Scope
    /// and flow label, which no key has, are left out.
    pub fn current_guest(&self, guest: SocketAddr) -> SocketAddr {
        self.whereabouts.current(guest)
    }

    /// The address and port by which `guest` sees `remote`.
    fn as_seen_by(
        &self,
        guest: SocketAddr,
        remote: SocketAddr,
    ) -> Result<SocketAddr, DiscardReason> {
        let is_possible = remote.port() != 0 && self.is_forwardable(guest);
        nat::as_seen_by_guest(&self.config.plan, Opener::Remote, guest.ip(), remote.ip())
            .filter(|_| is_possible)
            .map(|address| SocketAddr::new(address, remote.port()))
            .ok_or(DiscardReason::ForwardAddressInvalid)
    }

    /// The keys that a flow may get, the best first.
    fn keys(
        &self,
        protocol: Protocol,
        guest: SocketAddr,
        seen: SocketAddr,
    ) -> impl Iterator<Item = FlowKey> + use<> {
        let (first, count) = OTHER_PORTS;
        let others = (0..PORT_ATTEMPTS).map(move |attempt| {
            // Spread by a prime, so that two remotes with neighbouring ports do not try the same.
            first + seen.port().wrapping_add(attempt.wrapping_mul(7919)) % count
        });
        core::iter::once(seen.port())
            .chain(others)
            .map(move |port| FlowKey::new(protocol, guest, SocketAddr::new(seen.ip(), port)))
    }

    fn is_from(&self, id: FlowId, origin: &Origin) -> bool {
        self.flows.inbound_udp(id).is_some_and(|(_, flow)| flow.origin() == *origin)
    }

    fn locate(&mut self, id: FlowId, mac: MacAddr) {
        if let Some((meta, flow)) = self.flows.tcp_mut(id) {
            flow.locate(&mut self.engine, mac);
            self.turns.wake(meta);
        }
    }

    /// A guest has told where `address` is: what has waited for that goes on.
    pub(super) fn on_neighbor(&mut self, address: IpAddr, mac: MacAddr) {
        let found = self.link.learn(address, mac, self.admission.holder(address));
        for id in found.flows {
            self.locate(id, mac);
        }
        for datagram in &found.datagrams {
            self.deliver_held(datagram, mac);
        }
    }

    fn deliver_held(&mut self, datagram: &HeldDatagram, mac: MacAddr) {
        let Some((meta, flow)) = self.flows.inbound_udp_mut(datagram.flow) else {
            return;
        };
        flow.locate(mac);
        let udp = UdpToGuest {
            from: meta.key.remote,
            to: meta.key.guest,
            mac,
            payload: &datagram.payload,
            segment_len: datagram.segment_len,
            traffic_class: datagram.traffic_class,
        };
        let sent = self.outbox.push_udp(udp);
        self.note(sent);
    }
}

#[cfg(test)]
mod tests;
