//! What the host side reports: sockets that connected or failed, datagrams, errors, DNS answers.
//!
//! Owns what the guest sees of each. Errors of host sockets become the reset or ICMP message that
//! the remote's network would have sent. What the DNS service wants is done here as well
//! (`deliver_dns`), whether the answer came from a resolver or from the service itself.

use core::net::{IpAddr, SocketAddr};

use super::Stack;
use super::dns::Want;
use super::outbox::UdpToGuest;
use crate::discard::DiscardReason;
use crate::event::{DatagramError, DnsQueryId, FlowId, HostError, QueryOrigin};
use crate::flow::table::Entry;
use crate::flow::{Allowance, Flow};
use crate::journal::{Ending, Event, Refusal};
use crate::mac::MacAddr;
use crate::nat;
use crate::policy::Protocol;
use crate::time::Instant;
use crate::timer::TimerOwner;
use crate::wire::icmp::{
    GuestSignal, IcmpError, emit_echo_quote, emit_echo_reply, emit_error, emit_udp_quote,
};

/// TTL that a reply gets when the host does not tell the one it arrived with.
const ECHO_REPLY_HOP_LIMIT: u8 = 64;
/// How much longer an IPv6 header is than an IPv4 header, in bytes (RFC 8200 section 3, RFC 791
/// section 3.1). Towards a remote of the other IP version, the guest's MTU differs by as much (RFC
/// 7915 sections 4.2 and 5.2).
const HEADERS_DIFFER_BY: u16 = 20;

impl Stack {
    /// A host socket that [`ConnectTcp`](crate::event::HostAction::ConnectTcp) asked for is
    /// connected, or has failed.
    pub fn handle_tcp_connected(
        &mut self,
        id: FlowId,
        outcome: Result<(), HostError>,
        now: Instant,
    ) {
        if let Err(error) = outcome {
            if self.egress.is_none() || !self.try_next(id, now) {
                self.fail_connect(id, error);
            }
            return;
        }
        let Some((meta, flow)) = self.flows.tcp_mut(id) else {
            return;
        };
        if flow.on_connected(&mut self.engine, now) {
            self.events.connected(meta, now);
            self.turns.wake_first(meta);
        } else {
            self.note_discard(DiscardReason::TcpEngineFailed);
            self.close_flow(id, Ending::EngineFailed, now);
        }
    }

    /// The flow's SYN is answered with what became of the host's connect.
    pub(super) fn fail_connect(&mut self, id: FlowId, error: HostError) {
        let Some((_, flow)) = self.flows.tcp_mut(id) else {
            return;
        };
        let Some(syn) = flow.take_syn() else {
            return;
        };
        let mac = flow.guest().mac;
        self.stats.tcp_failed += 1;
        self.stats.connect_failures.count(error);
        if error == HostError::Exhausted {
            self.note_discard(DiscardReason::HostResourcesExhausted);
        }
        let told = match GuestSignal::for_error(error, Protocol::Tcp) {
            GuestSignal::TcpReset => self.outbox.push_reset(&syn.segment, mac),
            GuestSignal::Icmp(icmp) => self.outbox.push_error(icmp, &syn.headers, mac),
            GuestSignal::Silence => Ok(()),
        };
        self.note(told);
        self.refuse_flow(id, Refusal::Host(error));
    }

    /// A datagram, or several of `segment_len` bytes each, arrived on the UDP socket of a flow,
    /// with TOS or traffic class `traffic_class`.
    pub fn handle_udp_from_host(
        &mut self,
        id: FlowId,
        remote: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        traffic_class: u8,
        now: Instant,
    ) {
        if self.egress.is_some() && !self.may_answer(id, remote, now) {
            self.note_discard(DiscardReason::EgressDenied);
            return;
        }
        let Some((meta, flow)) = self.flows.udp_mut(id) else {
            self.note_discard(DiscardReason::HostDatagramNoFlow);
            return;
        };
        let timeouts = &self.config.timeouts;
        let from = flow.on_host_datagram(remote, &self.config.plan, timeouts, now);
        meta.permit.note_traffic(flow.is_lasting(), now);
        meta.traffic.add_to_guest(payload.len());
        self.stats.traffic[Protocol::Udp].add_to_guest(payload.len());
        let guest = flow.guest();
        let Some(from) = from else {
            self.note_discard(DiscardReason::HostDatagramNoFlow);
            return;
        };
        let udp = UdpToGuest {
            from,
            to: guest.address,
            mac: guest.mac,
            payload,
            segment_len,
            traffic_class,
        };
        if self.shaping.is_some() && !self.admits_udp(id, remote, udp, now) {
            return;
        }
        let sent = self.outbox.push_udp(udp);
        self.note(sent);
    }

    /// The UDP socket of a flow could not be opened, or refused to send `count` datagrams to
    /// `remote`: the first had `payload_len` bytes, of which `payload` is the start.
    pub fn handle_udp_unsent(
        &mut self,
        id: FlowId,
        remote: SocketAddr,
        error: HostError,
        payload: &[u8],
        payload_len: usize,
        count: u64,
    ) {
        let reason = match error {
            HostError::Exhausted => DiscardReason::HostResourcesExhausted,
            HostError::Refused
            | HostError::Reset
            | HostError::NetworkUnreachable
            | HostError::HostUnreachable
            | HostError::TimedOut
            | HostError::TooLarge(_) => DiscardReason::HostSendFailed,
        };
        for _ in 0..count {
            self.note_discard(reason);
        }
        self.tell_unsent(id, error, count);
        let signal = GuestSignal::for_error(error, Protocol::Udp);
        self.tell_udp(id, remote, None, signal, payload, payload_len);
    }

    /// The error queue of a flow's UDP socket told about an earlier datagram, of which `payload`
    /// is as much as is known.
    pub fn handle_udp_undelivered(&mut self, id: FlowId, error: &DatagramError, payload: &[u8]) {
        let is_foreign = |entry: &Entry| entry.meta.key.guest.is_ipv4() != error.remote.is_ipv4();
        let signal = if self.flows.entry(id).is_some_and(is_foreign) {
            // The numbers of the other IP version's messages mean something else to this guest.
            GuestSignal::for_error(error.error, Protocol::Udp)
        } else {
            GuestSignal::for_datagram_error(error, Protocol::Udp)
        };
        self.tell_udp(id, error.remote, error.offender, signal, payload, payload.len());
    }

    fn tell_unsent(&mut self, id: FlowId, error: HostError, count: u64) {
        if let Some(entry) = self.flows.entry(id) {
            self.events.unsent(entry, error, count);
        }
    }

    fn tell_udp(
        &mut self,
        id: FlowId,
        remote: SocketAddr,
        offender: Option<IpAddr>,
        signal: GuestSignal,
        payload: &[u8],
        payload_len: usize,
    ) {
        let Some(entry) = self.flows.entry(id) else {
            return;
        };
        let (guest, original_dst) = match &entry.flow {
            Flow::Udp(flow) => match flow.as_seen_by_guest(remote, &self.config.plan) {
                Some(original_dst) => (flow.guest(), original_dst),
                // Nothing that the guest knows of.
                None => return,
            },
            Flow::InboundUdp(flow) => (flow.guest(), entry.meta.key.remote),
            Flow::Tcp(_) | Flow::Echo(_) => return,
        };
        let GuestSignal::Icmp(icmp) = signal else {
            return;
        };
        let icmp = match (icmp, remote, original_dst) {
            (IcmpError::TooBig { mtu }, SocketAddr::V6(_), SocketAddr::V4(_)) => {
                IcmpError::TooBig { mtu: mtu.saturating_sub(HEADERS_DIFFER_BY) }
            }
            (IcmpError::TooBig { mtu }, SocketAddr::V4(_), SocketAddr::V6(_)) if mtu != 0 => {
                IcmpError::TooBig { mtu: mtu.saturating_add(HEADERS_DIFFER_BY) }
            }
            (icmp, ..) => icmp,
        };
        let mut quote = Vec::new();
        emit_udp_quote(&mut quote, guest.address, original_dst, payload, payload_len);
        self.tell(
            icmp,
            offender,
            remote.ip(),
            original_dst.ip(),
            guest.address.ip(),
            guest.mac,
            &quote,
        );
    }

    /// An echo reply arrived on the socket of a flow.
    pub fn handle_echo_reply(
        &mut self,
        id: FlowId,
        remote: IpAddr,
        sequence: u16,
        payload: &[u8],
        hop_limit: Option<u8>,
        now: Instant,
    ) {
        if self.egress.is_some() && !self.may_answer(id, SocketAddr::new(remote, 0), now) {
            self.note_discard(DiscardReason::EgressDenied);
            return;
        }
        let flow = self.flows.echo_mut(id).filter(|(_, flow)| flow.is_same_family(remote));
        let Some((meta, flow)) = flow else {
            self.note_discard(DiscardReason::HostDatagramNoFlow);
            return;
        };
        meta.traffic.add_to_guest(payload.len());
        self.stats.traffic[Protocol::Echo].add_to_guest(payload.len());
        let guest = flow.guest();
        let (to, ident) = (guest.address.ip(), guest.address.port());
        let hop_limit = hop_limit.unwrap_or(ECHO_REPLY_HOP_LIMIT);
        let mut packet = Vec::new();
        let emitted = emit_echo_reply(&mut packet, remote, to, ident, sequence, payload, hop_limit);
        if self.shaping.is_some() && emitted.is_ok() && !self.admits_reply(id, remote, &packet, now)
        {
            return;
        }
        let outcome = emitted.and_then(|()| self.outbox.push_packet(&packet, guest.mac));
        self.note(outcome);
    }

    /// The echo socket of a flow could not be opened, or refused to send.
    pub fn handle_echo_unsent(
        &mut self,
        id: FlowId,
        remote: IpAddr,
        sequence: u16,
        error: HostError,
    ) {
        self.note_discard(DiscardReason::HostSendFailed);
        self.tell_unsent(id, error, 1);
        let signal = GuestSignal::for_error(error, Protocol::Echo);
        self.tell_echo(id, remote, sequence, None, signal);
    }

    /// The host allows no echo socket at all; the flow ends.
    pub fn handle_echo_not_permitted(&mut self, id: FlowId) {
        self.note_discard(DiscardReason::IcmpEchoNotPermitted);
        self.refuse_flow(id, Refusal::EchoNotPermitted);
    }

    /// The error queue of a flow's echo socket told about an earlier request.
    pub fn handle_echo_undelivered(&mut self, id: FlowId, error: &DatagramError, sequence: u16) {
        let signal = GuestSignal::for_datagram_error(error, Protocol::Echo);
        self.tell_echo(id, error.remote.ip(), sequence, error.offender, signal);
    }

    fn tell_echo(
        &mut self,
        id: FlowId,
        remote: IpAddr,
        sequence: u16,
        offender: Option<IpAddr>,
        signal: GuestSignal,
    ) {
        let Some((_, flow)) = self.flows.echo(id) else {
            return;
        };
        let guest = flow.guest();
        let GuestSignal::Icmp(icmp) = signal else {
            return;
        };
        let to = guest.address.ip();
        let mut quote = Vec::new();
        emit_echo_quote(&mut quote, to, remote, guest.address.port(), sequence);
        self.tell(icmp, offender, remote, remote, to, guest.mac, &quote);
    }

    /// Sends an ICMP error about what a host socket sent for the guest, from the address of the
    /// router that complained as the guest sees it.
    #[expect(clippy::too_many_arguments, reason = "two remotes, one guest, one message")]
    fn tell(
        &mut self,
        icmp: IcmpError,
        offender: Option<IpAddr>,
        remote: IpAddr,
        original_dst: IpAddr,
        to: IpAddr,
        mac: MacAddr,
        quote: &[u8],
    ) {
        // A refused port is the remote's own word even when the kernel does not name it.
        let offender = offender.or((icmp == IcmpError::PortUnreachable).then_some(remote));
        let plan = &self.config.plan;
        let from = nat::offender_as_seen_by_guest(plan, to, offender, remote, original_dst);
        let Some(from) = from else {
            return;
        };
        let mut packet = Vec::new();
        emit_error(&mut packet, icmp, from, to, quote);
        let sent = self.outbox.push_packet(&packet, mac);
        self.note(sent);
    }

    /// The answer to a [`QueryDns`](crate::event::HostAction::QueryDns), or `None` when no
    /// resolver gave one.
    pub fn handle_dns_answer(&mut self, query: DnsQueryId, answer: Option<Vec<u8>>, now: Instant) {
        let egress = &mut self.egress;
        self.dns.handle_answer(
            query,
            answer,
            |holder| egress.as_mut()?.judge_of_answer(holder),
            now,
        );
        self.deliver_dns(now);
        self.schedule_egress(now);
    }

    /// Lets a TCP flow to the DNS service exchange bytes with it; nothing for other flows.
    pub(super) fn pump_dns(&mut self, id: FlowId, now: Instant) {
        let Some(stream) = self.dns.stream(id) else {
            return;
        };
        if let Some((meta, flow)) = self.flows.tcp_mut(id) {
            let (traffic, all) = (&mut meta.traffic, Allowance::UNLIMITED);
            let pumped = flow.pump(stream, &mut self.engine, traffic, all, now);
            self.note(pumped.map(|_| ()));
        }
        let egress = &mut self.egress;
        let stats = &mut self.stats;
        self.dns.handle_pumped(id, |holder| egress.as_mut()?.judge(holder), stats, now);
        self.deliver_dns(now);
    }

    /// Does what the DNS service wants.
    pub(super) fn deliver_dns(&mut self, now: Instant) {
        while let Some(want) = self.dns.poll() {
            match want {
                Want::Answer { from, to, mac, answer } => {
                    let (payload, segment_len, traffic_class) = (&answer[..], None, 0);
                    let udp = UdpToGuest { from, to, mac, payload, segment_len, traffic_class };
                    let sent = self.outbox.push_udp(udp);
                    self.note(sent);
                }
                Want::Wake(id) => self.wake_flow(id),
                Want::Reset(id) => {
                    self.note_discard(DiscardReason::DnsConnectionLimit);
                    if let Some((meta, flow)) = self.flows.tcp_mut(id) {
                        flow.abort(Ending::Evicted);
                        self.turns.wake(meta);
                    }
                }
                Want::Found { lookup, answer } => self.on_found(lookup, &answer, now),
                Want::Host(action) => self.actions.push_back(action),
            }
        }
        while let Some(mut event) = self.dns.poll_event() {
            if let Event::Answered { origin: QueryOrigin::Tcp { flow }, guest, .. } = &mut event {
                *guest = self.flows.entry(*flow).map(|entry| entry.meta.key.guest.ip());
            }
            self.events.tell(|| event);
        }
        self.schedule.ask(TimerOwner::Dns, self.dns.poll_timeout());
    }
}
