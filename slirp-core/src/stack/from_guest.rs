//! What the guest sends: from a frame to the flow or service that it is for.
//!
//! Owns the checks that every packet passes (virtio-net header, addresses, checksums, fragments)
//! and the opening of UDP and echo flows; TCP goes on in [`tcp_from_guest`](super::tcp_from_guest).
//! Refusals that the guest is to hear of become ICMP errors or resets here.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::borrow::Cow;

use smoltcp::wire::IpProtocol;

use super::Stack;
use super::egress::Way;
use super::link::Outcome;
use crate::discard::DiscardReason;
use crate::event::{Datagram, Envelope, FlowId, Origin, QueryOrigin};
use crate::flow::echo::EchoFlow;
use crate::flow::permit::Kind;
use crate::flow::udp::UdpFlow;
use crate::flow::{Flow, FlowKey, GuestSide};
use crate::journal::{Ends, PacketEnds, Peer, Refusal};
use crate::mac::MacAddr;
use crate::member::MemberId;
use crate::policy::{EchoTarget, Protocol, Target};
use crate::service::echo::handle_echo_request;
use crate::share::Holder;
use crate::time::Instant;
use crate::timer::TimerOwner;
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IpHeader,
    check_offload, drop_extension_headers, is_transport_checksum_valid,
};
use crate::wire::icmp::{
    ICMP_HEADER_LEN, ICMPV4_ECHO_REQUEST, ICMPV6_ECHO_REQUEST, IcmpError, NDP_TYPES,
};
use crate::wire::udp::{UDP_HEADER_LEN, UdpHeader};
use crate::wire::vnet::{Gso, VNET_HEADER_LEN, VnetHeader};

/// The longest IP packet whose "don't fragment" is believed, in bytes: Ethernet's MTU (RFC 894).
/// The MTU of our link may be 65,520, which no path has. The guest's kernel sets the flag on every
/// packet that fits the link, so on a longer packet it means nothing: the host side may fragment
/// it.
const DONT_FRAGMENT_CAP: usize = 1500;

/// A datagram for the host, as a range of its carrier.
struct Lent {
    flow: FlowId,
    kind: LentKind,
    carrier: Carrier,
    payload: Range<usize>,
    envelope: Envelope,
}

/// What is to be done with a datagram for the host.
#[derive(Clone, Copy, Debug)]
pub(super) enum LentKind {
    Udp { guest: SocketAddr, remote: SocketAddr, segment_len: Option<u16> },
    InboundUdp { origin: Origin, segment_len: Option<u16> },
    Echo { remote: IpAddr, ident: u16, sequence: u16 },
}

impl LentKind {
    /// Lends `payload` to the host.
    pub(super) const fn lend<'a>(
        self,
        flow: FlowId,
        payload: &'a [u8],
        envelope: Envelope,
    ) -> Datagram<'a> {
        match self {
            Self::Udp { guest, remote, segment_len } => {
                Datagram::Udp { flow, guest, remote, payload, segment_len, envelope }
            }
            Self::InboundUdp { origin, segment_len } => {
                Datagram::InboundUdp { flow, origin, payload, segment_len, envelope }
            }
            Self::Echo { remote, ident, sequence } => {
                Datagram::Echo { flow, remote, ident, sequence, payload, envelope }
            }
        }
    }
}

/// Where a packet lies.
#[derive(Clone, Copy)]
enum Carrier {
    /// In the frame.
    Frame,
    /// In the reassembled datagram.
    Reassembled,
}

/// What is known of a packet before its transport header is looked at.
pub(super) struct Arrival<'p> {
    pub(super) packet: &'p mut [u8],
    carrier: Carrier,
    /// Where `packet` starts in the carrier.
    start: usize,
    pub(super) ip: IpHeader,
    pub(super) mac: MacAddr,
    vnet: Option<VnetHeader>,
}

impl Arrival<'_> {
    /// The transport header and payload.
    fn segment(&self) -> &[u8] {
        &self.packet[self.ip.header_len..]
    }

    fn guest(&self, port: u16) -> GuestSide {
        GuestSide { address: SocketAddr::new(self.ip.source, port), mac: self.mac }
    }

    fn drop_extension_headers(&mut self) {
        let moved = drop_extension_headers(self.packet, &mut self.ip);
        self.packet = &mut core::mem::take(&mut self.packet)[moved..];
        self.start += moved;
    }

    /// Lends `payload`, a range of the packet.
    fn lend(
        &self,
        flow: FlowId,
        kind: LentKind,
        payload: Range<usize>,
        envelope: Envelope,
    ) -> Lent {
        let payload = self.start + payload.start..self.start + payload.end;
        Lent { flow, kind, carrier: self.carrier, payload, envelope }
    }
}

impl Stack {
    /// Takes one frame as it was read from the device, virtio-net header included where the device
    /// has one. Returns the datagram that is to be sent over a host socket, if it carried one.
    pub fn handle_frame<'a>(
        &'a mut self,
        frame: &'a mut [u8],
        now: Instant,
    ) -> Option<Datagram<'a>> {
        self.handle_frame_of(None, frame, now)
    }

    /// Takes one frame of a `member` of a shared network. Frames from networks that are nested
    /// behind the member count as the member's own.
    #[doc(hidden)]
    pub fn handle_frame_of<'a>(
        &'a mut self,
        member: Option<MemberId>,
        frame: &'a mut [u8],
        now: Instant,
    ) -> Option<Datagram<'a>> {
        self.stats.frames_from_guest += 1;
        self.stats.bytes_from_guest += frame.len() as u64;
        match self.on_frame(member, frame, now) {
            Ok(None) => None,
            Ok(Some(lent)) => {
                let Lent { flow, kind, carrier, payload, envelope } = lent;
                if self.shaping.is_some() {
                    let payload = match carrier {
                        Carrier::Frame => Cow::Borrowed(&frame[payload.clone()]),
                        Carrier::Reassembled => {
                            Cow::Owned(self.reassembly.kept()[payload.clone()].to_vec())
                        }
                    };
                    if !self.admits_datagram(flow, kind, &payload, envelope, now) {
                        return None;
                    }
                }
                let payload = match carrier {
                    Carrier::Frame => &frame[payload],
                    Carrier::Reassembled => &self.reassembly.kept()[payload],
                };
                Some(kind.lend(flow, payload, envelope))
            }
            Err(reason) => {
                let at = if self.config.offload.vnet_header { VNET_HEADER_LEN } else { 0 };
                self.discard(reason, || ends_of(frame.get(at + ETHERNET_HEADER_LEN..)?));
                None
            }
        }
    }

    fn on_frame(
        &mut self,
        member: Option<MemberId>,
        frame: &mut [u8],
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let mut at = 0;
        let mut vnet = None;
        if self.config.offload.vnet_header {
            let bytes = frame.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
            vnet = Some(VnetHeader::parse(bytes)?);
            at = VNET_HEADER_LEN;
        }
        let ethernet = EthernetHeader::parse(&frame[at..])?;
        match ethernet.ethertype {
            ETHERTYPE_ARP => {
                let outcome = self.link.handle_arp(&frame[at..])?;
                self.act_on(outcome, member)?;
                return Ok(None);
            }
            ETHERTYPE_IPV4 => {}
            ETHERTYPE_IPV6 if self.config.plan.ipv6().is_some() => {}
            ETHERTYPE_IPV6 => return Err(DiscardReason::Ipv6Disabled),
            _ => return Err(DiscardReason::EtherTypeUnsupported),
        }
        at += ETHERNET_HEADER_LEN;
        let packet = &mut frame[at..];
        let ip = IpHeader::parse(packet)?;
        if ip.source.is_ipv4() != (ethernet.ethertype == ETHERTYPE_IPV4) {
            return Err(DiscardReason::IpHeaderInvalid);
        }
        self.learn_address(member, ip.source);
        let packet = &mut packet[..ip.packet_len];
        if ip.is_fragment {
            return self.on_fragment(packet, ip.source, ethernet.source, now);
        }
        let (carrier, start, mac) = (Carrier::Frame, at, ethernet.source);
        self.on_packet(Arrival { packet, carrier, start, ip, mac, vnet }, now)
    }

    fn on_fragment(
        &mut self,
        packet: &[u8],
        source: IpAddr,
        mac: MacAddr,
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let (holder, discards) = (self.admission.holder(source), &mut self.stats.discards);
        let whole = self.reassembly.handle_fragment(holder, packet, discards, now);
        self.schedule.ask(TimerOwner::Reassembly, self.reassembly.poll_timeout());
        let Some((mut whole, ip)) = whole? else {
            return Ok(None);
        };
        let (packet, carrier, start, vnet) = (&mut whole[..], Carrier::Reassembled, 0, None);
        let lent = self.on_packet(Arrival { packet, carrier, start, ip, mac, vnet }, now);
        self.reassembly.keep(whole);
        lent
    }

    /// Handles one complete IP packet.
    fn on_packet(
        &mut self,
        mut arrival: Arrival<'_>,
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let Arrival { ip, vnet, .. } = &arrival;
        // A source of 0.0.0.0 or :: is valid only for link services: NDP, and DHCP, where it is
        // checked again once the port is known.
        let is_link_only = ip.source.is_unspecified()
            && !matches!(ip.protocol, IpProtocol::Icmpv6 | IpProtocol::Udp);
        if is_link_only || !is_possible_source(&self.config.plan, ip.source) {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        self.whereabouts.note(ip.source);
        self.link.note(arrival.mac);
        check_offload(vnet.as_ref(), ip, arrival.packet)?;
        let is_trusted = vnet.is_some_and(|vnet| vnet.is_checksum_trusted());
        arrival.drop_extension_headers();
        match arrival.ip.protocol {
            IpProtocol::Tcp if self.config.silence.tcp => Err(DiscardReason::ProtocolDisabled),
            IpProtocol::Tcp => {
                verify(is_trusted, &arrival)?;
                self.on_tcp(arrival, now)?;
                Ok(None)
            }
            IpProtocol::Udp => self.on_udp(&arrival, is_trusted, now),
            IpProtocol::Icmp if arrival.ip.source.is_ipv4() => {
                if smoltcp::wire::checksum::data(arrival.segment()) != !0 {
                    return Err(DiscardReason::TransportChecksumInvalid);
                }
                self.on_icmp(&arrival, ICMPV4_ECHO_REQUEST, now)
            }
            IpProtocol::Icmpv6 if arrival.ip.source.is_ipv6() => {
                verify(false, &arrival)?;
                match arrival.segment().first() {
                    Some(kind) if NDP_TYPES.contains(kind) => self.on_ndp(&arrival, now),
                    Some(_) | None => self.on_icmp(&arrival, ICMPV6_ECHO_REQUEST, now),
                }
            }
            IpProtocol::HopByHop
            | IpProtocol::Icmp
            | IpProtocol::Igmp
            | IpProtocol::Ipv6Route
            | IpProtocol::Ipv6Frag
            | IpProtocol::IpSecEsp
            | IpProtocol::IpSecAh
            | IpProtocol::Icmpv6
            | IpProtocol::Ipv6NoNxt
            | IpProtocol::Ipv6Opts
            | IpProtocol::Unknown(_) => Err(DiscardReason::ProtocolUnsupported),
        }
    }

    fn on_udp(
        &mut self,
        arrival: &Arrival<'_>,
        is_trusted: bool,
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let udp = arrival.segment();
        let header = UdpHeader::parse(udp).ok_or(DiscardReason::TransportHeaderInvalid)?;
        let len = usize::from(header.len);
        let has_ports = header.source != 0 && header.destination != 0;
        if len < UDP_HEADER_LEN || len > udp.len() || !has_ports {
            return Err(DiscardReason::TransportHeaderInvalid);
        }
        // RFC 768: zero means that the sender did not compute one; RFC 8200 section 8.1 forbids it.
        let is_absent = header.checksum == 0 && arrival.ip.source.is_ipv4();
        if !is_trusted && !is_absent && !is_transport_checksum_valid(&arrival.ip, &udp[..len]) {
            return Err(DiscardReason::TransportChecksumInvalid);
        }
        let guest = arrival.guest(header.source);
        let original_dst = SocketAddr::new(arrival.ip.destination, header.destination);
        let start = arrival.ip.header_len + UDP_HEADER_LEN;
        let payload = start..arrival.ip.header_len + len;
        if let Some((id, origin)) = self.answer_inbound(guest, original_dst, payload.len(), now) {
            let segment_len = segment_len_of(arrival, payload.len());
            let envelope = self.envelope(arrival, payload.start, segment_len)?;
            let kind = LentKind::InboundUdp { origin, segment_len };
            return Ok(Some(arrival.lend(id, kind, payload, envelope)));
        }
        if let Some(service) = self.link.service_at(original_dst) {
            let payload = &arrival.packet[payload];
            let outcome = self.link.handle_datagram(service, guest, original_dst, payload, now)?;
            self.act_on(outcome, None)?;
            return Ok(None);
        }
        if guest.address.ip().is_unspecified() {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        if self.config.silence.udp {
            return Err(DiscardReason::ProtocolDisabled);
        }
        let mut target = self.config.target(Protocol::Udp, original_dst);
        let mut clearance = None;
        if let (Ok(Target::Host(reached)), true) = (target, self.egress.is_some()) {
            let ends = Ends::new(Protocol::Udp, guest.address, original_dst);
            match self.judge(ends, reached, arrival.packet, arrival.mac, now)? {
                Way::Host(cleared) => {
                    target = Ok(Target::Host(cleared.reached()));
                    clearance = Some(cleared);
                }
                Way::Resolver => target = Ok(Target::Resolver),
                Way::Wait(_) => return Err(DiscardReason::EgressAsked),
            }
        }
        let translated_dst = match target {
            Ok(Target::Host(translated_dst)) => translated_dst,
            Ok(Target::Resolver) => {
                let origin = QueryOrigin::Udp {
                    guest: guest.address,
                    server: original_dst,
                    guest_mac: guest.mac,
                };
                let holder = self.admission.holder(guest.address.ip());
                let query = &arrival.packet[payload];
                let judge = self.egress.as_mut().and_then(|egress| egress.judge(holder));
                let asked = self.dns.ask(origin, holder, judge, query, &mut self.stats, now);
                self.deliver_dns(now);
                asked?;
                return Ok(None);
            }
            Err(reason) => {
                let ends = Ends::new(Protocol::Udp, guest.address, original_dst);
                return Err(self.refuse(reason, ends, arrival.packet, arrival.mac));
            }
        };
        let segment_len = segment_len_of(arrival, payload.len());
        let envelope = self.envelope(arrival, payload.start, segment_len)?;
        let key = FlowKey::of_guest(Protocol::Udp, guest.address);
        let id = match self.flows.lookup(&key) {
            Some(id) => id,
            None => {
                let flow = Flow::Udp(Box::new(UdpFlow::new(guest, now)));
                let way = (original_dst, Peer::Host(translated_dst));
                self.open_flow(Kind::Udp, key, flow, way, now)?
            }
        };
        if let Some((meta, flow)) = self.flows.udp_mut(id) {
            let (plan, timeouts) = (&self.config.plan, &self.config.timeouts);
            flow.on_guest_datagram(guest, original_dst, translated_dst, plan, timeouts, now);
            meta.permit.note_traffic(flow.is_lasting(), now);
            meta.traffic.add_from_guest(payload.len());
            self.stats.traffic[Protocol::Udp].add_from_guest(payload.len());
            let wake_at = Some(flow.expires_at());
            self.schedule_flow(id, wake_at);
        }
        if let Some(clearance) = clearance {
            self.note_passed(id, clearance, now);
        }
        let kind = LentKind::Udp { guest: guest.address, remote: translated_dst, segment_len };
        Ok(Some(arrival.lend(id, kind, payload, envelope)))
    }

    fn on_icmp(
        &mut self,
        arrival: &Arrival<'_>,
        echo_request: u8,
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let icmp = arrival.segment();
        let header: &[u8; ICMP_HEADER_LEN] =
            icmp.first_chunk().ok_or(DiscardReason::TransportHeaderInvalid)?;
        let [kind, code, _, _, i0, i1, s0, s1] = *header;
        if kind != echo_request || code != 0 {
            return Err(DiscardReason::IcmpUnsupported);
        }
        if self.config.silence.echo {
            return Err(DiscardReason::ProtocolDisabled);
        }
        let (ident, sequence) = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]));
        let guest = arrival.guest(ident);
        if guest.address.ip().is_unspecified() {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        let original_dst = SocketAddr::new(arrival.ip.destination, 0);
        let remote = match self.config.echo_target(original_dst.ip()) {
            Ok(EchoTarget::Ours) => {
                let mut reply = Vec::new();
                handle_echo_request(arrival.packet, &mut reply)?;
                self.outbox.push_packet(&reply, arrival.mac)?;
                return Ok(None);
            }
            Ok(EchoTarget::Host(remote)) => remote,
            Err(reason) => {
                let ends = Ends::new(Protocol::Echo, guest.address, original_dst);
                return Err(self.refuse(reason, ends, arrival.packet, arrival.mac));
            }
        };
        if remote.is_multicast() {
            return Err(DiscardReason::DestinationUnroutable);
        }
        let reached = SocketAddr::new(remote, 0);
        let mut clearance = None;
        if self.egress.is_some() {
            let ends = Ends::new(Protocol::Echo, guest.address, original_dst);
            match self.judge(ends, reached, arrival.packet, arrival.mac, now)? {
                Way::Host(cleared) => clearance = Some(cleared),
                Way::Resolver | Way::Wait(_) => return Err(DiscardReason::EgressAsked),
            }
        }
        let envelope = self.envelope(arrival, 0, None)?;
        let key = FlowKey::of_guest(Protocol::Echo, guest.address);
        let id = match self.flows.lookup(&key) {
            Some(id) => id,
            None => {
                let flow = Flow::Echo(Box::new(EchoFlow::new(guest, now)));
                let way = (original_dst, Peer::Host(reached));
                self.open_flow(Kind::Echo, key, flow, way, now)?
            }
        };
        let payload = arrival.ip.header_len + ICMP_HEADER_LEN..arrival.ip.packet_len;
        if let Some((meta, flow)) = self.flows.echo_mut(id) {
            flow.on_request(guest, remote, &self.config.timeouts, now);
            meta.permit.note_traffic(false, now);
            meta.traffic.add_from_guest(payload.len());
            self.stats.traffic[Protocol::Echo].add_from_guest(payload.len());
            let wake_at = Some(flow.expires_at());
            self.schedule_flow(id, wake_at);
        }
        if let Some(clearance) = clearance {
            self.note_passed(id, clearance, now);
        }
        let kind = LentKind::Echo { remote, ident, sequence };
        Ok(Some(arrival.lend(id, kind, payload, envelope)))
    }

    fn on_ndp(
        &mut self,
        arrival: &Arrival<'_>,
        now: Instant,
    ) -> Result<Option<Lent>, DiscardReason> {
        let outcome = self.link.handle_ndp(arrival.mac, arrival.packet, now)?;
        self.schedule_link();
        // An advertisement may be about another address than the one that it comes from.
        self.act_on(outcome, self.admission.holder(arrival.ip.source))?;
        Ok(None)
    }

    /// Does what a service of the link wants. An address that it has learned counts for `holder`
    /// from now on.
    fn act_on(&mut self, outcome: Outcome, holder: Holder) -> Result<(), DiscardReason> {
        if let Some((address, mac)) = outcome.learned {
            self.learn_address(holder, address);
            self.whereabouts.note(address);
            self.on_neighbor(address, mac);
        }
        outcome.answer.map_or(Ok(()), |answer| answer.send(&mut self.outbox))
    }

    /// The IP header fields that a host socket puts around a datagram that we, as a router, pass
    /// on. If it is one of several in a packet, `header_len` bytes stand before each.
    fn envelope(
        &mut self,
        arrival: &Arrival<'_>,
        header_len: usize,
        segment_len: Option<u16>,
    ) -> Result<Envelope, DiscardReason> {
        let hop_limit = self.next_hop_limit(arrival)?;
        let ip = &arrival.ip;
        let len = segment_len.map_or(ip.packet_len, |len| header_len + usize::from(len));
        let dont_fragment = ip.dont_fragment && len <= DONT_FRAGMENT_CAP;
        Ok(Envelope { hop_limit, traffic_class: ip.traffic_class, dont_fragment })
    }

    /// TTL or hop limit of a packet that we, as a router, pass on (RFC 1812 section 5.3.1).
    ///
    /// To a group it is passed on unchanged. Service discovery sends with 1, for its link alone,
    /// and for groups the guest's link is the host's (as with an RFC 4605 proxy that stands on
    /// both).
    fn next_hop_limit(&mut self, arrival: &Arrival<'_>) -> Result<u8, DiscardReason> {
        if arrival.ip.destination.is_multicast() {
            return Ok(arrival.ip.hop_limit.max(1));
        }
        if arrival.ip.hop_limit > 1 {
            return Ok(arrival.ip.hop_limit - 1);
        }
        self.outbox.push_error(IcmpError::TimeExceeded, arrival.packet, arrival.mac)?;
        Err(DiscardReason::HopLimitExceeded)
    }

    /// Tells the guest that policy refuses its packet, unless `reason` is a silent one.
    pub(super) fn refuse(
        &mut self,
        reason: DiscardReason,
        ends: Ends,
        packet: &[u8],
        mac: MacAddr,
    ) -> DiscardReason {
        self.events.refused(ends, Refusal::by_stack(reason));
        if reason != DiscardReason::DestinationUnroutable {
            // A full outbox is counted by the refusal itself.
            let _ = self.outbox.push_error(IcmpError::NetworkUnreachable, packet, mac);
        }
        reason
    }
}

fn verify(is_trusted: bool, arrival: &Arrival<'_>) -> Result<(), DiscardReason> {
    if is_trusted || is_transport_checksum_valid(&arrival.ip, arrival.segment()) {
        Ok(())
    } else {
        Err(DiscardReason::TransportChecksumInvalid)
    }
}

/// Length of each datagram when a packet holds several.
fn segment_len_of(arrival: &Arrival<'_>, payload_len: usize) -> Option<u16> {
    arrival
        .vnet
        .filter(|vnet| vnet.gso == Gso::Udp)
        .map(|vnet| vnet.gso_size)
        .filter(|&len| usize::from(len) < payload_len)
}

/// What a discarded packet says of itself, as far as it can be parsed.
fn ends_of(packet: &[u8]) -> Option<PacketEnds> {
    let ip = IpHeader::parse(packet).ok()?;
    let has_ports = !ip.is_fragment && matches!(ip.protocol, IpProtocol::Tcp | IpProtocol::Udp);
    let first = packet.get(ip.header_len..).and_then(<[u8]>::first_chunk);
    let ports = first
        .filter(|_| has_ports)
        .map(|&[s0, s1, d0, d1]| (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])));
    Some(PacketEnds {
        protocol: ip.protocol.into(),
        source: ip.source,
        destination: ip.destination,
        ports,
    })
}

/// Whether a packet may come from `source`, which is not a group, a loopback address, or ours.
fn is_possible_source(plan: &crate::plan::AddressPlan, source: IpAddr) -> bool {
    let is_possible = match source {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_loopback() && v6.to_ipv4_mapped().is_none(),
    };
    is_possible && !plan.is_ours(source)
}
