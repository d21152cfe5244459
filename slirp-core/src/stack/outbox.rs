//! Frames to the guest that do not come out of the TCP engine.
//!
//! Owns a bounded queue of finished frames with recycled buffers, the Ethernet and virtio-net
//! headers in front of them, and how packets beyond the guest's MTU are cut: by the device where it
//! can, else into datagrams or IP fragments.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

use smoltcp::wire::{IpProtocol, checksum};

use crate::config::{Offload, StackConfig};
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::AddressPlan;
use crate::rng::Rng;
use crate::service::ndp::NdpPacket;
use crate::tcp::{Segment, checksum_and_segment, emit_reset};
use crate::wire::fragmentation::fragments;
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IpHeader,
    pseudo_header_sum,
};
use crate::wire::icmp::{IcmpError, emit_error, may_report};
use crate::wire::ip::{HeaderFields, IpPair};
use crate::wire::udp::UDP_HEADER_LEN;
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};

/// Frames that may wait (64 KiB each at most, typically 100 bytes). They are taken after every
/// input; only a broken caller fills the queue.
const FRAMES_CAP: usize = 1024;
/// Buffers that are kept for reuse.
const SPARE_CAP: usize = 8;
/// TTL and hop limit of what we send on behalf of remotes (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// A UDP datagram, or several of equal length, for the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct UdpToGuest<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) mac: MacAddr,
    pub(super) payload: &'a [u8],
    pub(super) segment_len: Option<u16>,
    /// TOS or traffic class that it arrived with.
    pub(super) traffic_class: u8,
}

/// See the [module](self).
pub(super) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    current: Vec<u8>,
    packet: Vec<u8>,
    offload: Offload,
    plan: AddressPlan,
    mtu: u16,
    rng: Rng,
}

impl Outbox {
    pub(super) fn new(config: &StackConfig, seed: u64) -> Self {
        Self {
            frames: VecDeque::new(),
            spare: Vec::new(),
            current: Vec::new(),
            packet: Vec::new(),
            offload: config.offload,
            plan: config.plan,
            mtu: config.mtu,
            rng: Rng::new(seed),
        }
    }

    pub(super) const fn adopt_plan(&mut self, plan: AddressPlan) {
        self.plan = plan;
    }

    pub(super) fn has_next(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The next frame; it stays valid until the next call.
    pub(super) fn pop(&mut self) -> Option<&[u8]> {
        let next = self.frames.pop_front()?;
        let used = core::mem::replace(&mut self.current, next);
        if self.spare.len() < SPARE_CAP {
            self.spare.push(used);
        }
        Some(&self.current)
    }

    /// The MAC address that our side of `address` has.
    pub(super) const fn our_mac(&self, address: IpAddr) -> MacAddr {
        self.plan.our_mac(address)
    }

    /// A complete Ethernet frame without offload.
    pub(super) fn push_frame(&mut self, frame: &[u8]) -> Result<(), DiscardReason> {
        let mut out = self.start(VnetHeader::default())?;
        out.extend_from_slice(frame);
        self.frames.push_back(out);
        Ok(())
    }

    /// A neighbour discovery packet with link addresses of its own.
    pub(super) fn push_ndp(&mut self, ndp: &NdpPacket) -> Result<(), DiscardReason> {
        let ethernet = EthernetHeader {
            destination: ndp.destination_mac,
            source: ndp.source_mac,
            ethertype: ETHERTYPE_IPV6,
        };
        self.push_plain(ethernet, &ndp.packet)
    }

    /// A frame that already has its virtio-net header where the device has one.
    pub(super) fn push_sealed(&mut self, frame: &[u8]) -> Result<(), DiscardReason> {
        let mut out = self.buffer()?;
        out.extend_from_slice(frame);
        self.frames.push_back(out);
        Ok(())
    }

    /// A complete IP packet, fragmented where it is larger than the guest's MTU.
    pub(super) fn push_packet(&mut self, packet: &[u8], to: MacAddr) -> Result<(), DiscardReason> {
        let Some(from) = packet.first().map(|first| first >> 4) else {
            return Ok(());
        };
        let (source, ethertype) = match from {
            4 => (self.our_mac(IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)), ETHERTYPE_IPV4),
            _ => (self.our_mac(IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)), ETHERTYPE_IPV6),
        };
        let ethernet = EthernetHeader { destination: to, source, ethertype };
        if packet.len() <= usize::from(self.mtu) {
            return self.push_plain(ethernet, packet);
        }
        let ident = self.rng.next_u32();
        for fragment in fragments(packet, self.mtu, ident) {
            self.push_plain(ethernet, &fragment)?;
        }
        Ok(())
    }

    /// One UDP datagram, or several of equal length.
    pub(super) fn push_udp(&mut self, udp: UdpToGuest<'_>) -> Result<(), DiscardReason> {
        let pair =
            IpPair::new(udp.from.ip(), udp.to.ip()).ok_or(DiscardReason::HostDatagramNoFlow)?;
        let headers = pair.header_len() + UDP_HEADER_LEN;
        if let Some(len) = udp.segment_len.filter(|&len| len != 0)
            && usize::from(len) < udp.payload.len()
        {
            let is_device_cut = self.offload.udp_segmentation
                && headers + usize::from(len) <= usize::from(self.mtu)
                && udp.payload.len() + UDP_HEADER_LEN <= pair.payload_cap();
            if !is_device_cut {
                for datagram in udp.payload.chunks(usize::from(len)) {
                    self.push_udp(UdpToGuest { payload: datagram, segment_len: None, ..udp })?;
                }
                return Ok(());
            }
            return self.push_datagrams(udp, pair, Some(len));
        }
        if udp.payload.len() + UDP_HEADER_LEN > pair.payload_cap() {
            return Err(DiscardReason::HostDatagramTooLarge);
        }
        self.push_datagrams(udp, pair, None)
    }

    /// An ICMP error about a packet of the guest, from the gateway; nothing where none may be sent.
    pub(super) fn push_error(
        &mut self,
        error: IcmpError,
        offending: &[u8],
        to: MacAddr,
    ) -> Result<(), DiscardReason> {
        if !may_report(offending) {
            return Ok(());
        }
        let Ok(ip) = IpHeader::parse(offending) else {
            return Ok(());
        };
        let Some(from) = self.gateway_for(ip.source) else {
            return Ok(());
        };
        let mut packet = Vec::new();
        emit_error(&mut packet, error, from, ip.source, offending);
        self.push_packet(&packet, to)
    }

    /// A reset that answers a segment of the guest; nothing where none may be sent.
    pub(super) fn push_reset(
        &mut self,
        segment: &Segment,
        to: MacAddr,
    ) -> Result<(), DiscardReason> {
        let Some(mut packet) = emit_reset(segment) else {
            return Ok(());
        };
        let ip = IpHeader::parse(&packet)?;
        let reset = Segment::parse(&ip, &packet)?;
        checksum_and_segment(&ip, &reset, u16::MAX, &mut packet, Offload::default());
        self.push_packet(&packet, to)
    }

    /// The gateway's address of the same family as `address`.
    pub(super) fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.plan.stand_in(address)
    }

    fn push_datagrams(
        &mut self,
        udp: UdpToGuest<'_>,
        pair: IpPair,
        segment_len: Option<u16>,
    ) -> Result<(), DiscardReason> {
        let mut packet = core::mem::take(&mut self.packet);
        packet.clear();
        let udp_len = UDP_HEADER_LEN + udp.payload.len();
        let fields = HeaderFields {
            protocol: u8::from(IpProtocol::Udp),
            hop_limit: HOP_LIMIT,
            traffic_class: udp.traffic_class,
        };
        pair.emit_header(&mut packet, fields, udp_len);
        let at = packet.len();
        packet.extend_from_slice(&udp.from.port().to_be_bytes());
        packet.extend_from_slice(&udp.to.port().to_be_bytes());
        // Checked against the largest payload by the caller.
        let len_field = u16::try_from(udp_len).unwrap_or(u16::MAX);
        packet.extend_from_slice(&len_field.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(udp.payload);

        let pseudo =
            pseudo_header_sum(udp.from.ip(), udp.to.ip(), IpProtocol::Udp, u32::from(len_field));
        let fits = packet.len() <= usize::from(self.mtu) || segment_len.is_some();
        let outcome = if self.offload.checksum && fits {
            packet[at + 6..at + 8].copy_from_slice(&pseudo.to_be_bytes());
            let start = u16::try_from(ETHERNET_HEADER_LEN + at).unwrap_or(0);
            let mut vnet = VnetHeader {
                flags: FLAG_NEEDS_CSUM,
                csum_start: start,
                csum_offset: 6,
                ..VnetHeader::default()
            };
            if let Some(len) = segment_len {
                vnet.gso = Gso::Udp;
                vnet.gso_size = len;
                vnet.hdr_len = start + 8;
            }
            self.push_offloaded(&packet, vnet, udp.mac)
        } else {
            let sum = !checksum::combine(&[pseudo, checksum::data(&packet[at..])]);
            // RFC 768: a computed zero is sent as all ones.
            let sum = if sum == 0 { 0xffff } else { sum };
            packet[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
            self.push_packet(&packet, udp.mac)
        };
        self.packet = packet;
        outcome
    }

    fn push_offloaded(
        &mut self,
        packet: &[u8],
        vnet: VnetHeader,
        to: MacAddr,
    ) -> Result<(), DiscardReason> {
        let (address, ethertype) = match packet[0] >> 4 {
            4 => (IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), ETHERTYPE_IPV4),
            _ => (IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED), ETHERTYPE_IPV6),
        };
        let ethernet = EthernetHeader { destination: to, source: self.our_mac(address), ethertype };
        let mut out = self.start(vnet)?;
        out.extend_from_slice(&ethernet.emit());
        out.extend_from_slice(packet);
        self.frames.push_back(out);
        Ok(())
    }

    fn push_plain(&mut self, ethernet: EthernetHeader, packet: &[u8]) -> Result<(), DiscardReason> {
        let mut out = self.start(VnetHeader::default())?;
        out.extend_from_slice(&ethernet.emit());
        out.extend_from_slice(packet);
        self.frames.push_back(out);
        Ok(())
    }

    fn start(&mut self, vnet: VnetHeader) -> Result<Vec<u8>, DiscardReason> {
        let mut out = self.buffer()?;
        if self.offload.vnet_header {
            out.reserve(VNET_HEADER_LEN);
            out.extend_from_slice(&vnet.emit());
        }
        Ok(out)
    }

    fn buffer(&mut self) -> Result<Vec<u8>, DiscardReason> {
        if self.frames.len() >= FRAMES_CAP {
            return Err(DiscardReason::TapWriteFailed);
        }
        let mut out = self.spare.pop().unwrap_or_default();
        out.clear();
        Ok(out)
    }
}
