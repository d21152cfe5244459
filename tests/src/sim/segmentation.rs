//! What the guest's kernel does behind a TAP device: checks and completes checksums, cuts
//! super-frames, and builds them.
//!
//! Owns no state. Every frame of the stack passes [`receive`], which fails the test when a
//! checksum, a length or a virtio-net header is wrong.

use std::net::IpAddr;

use slirp_core::config::Offload;
use slirp_core::internals::wire::{
    ETHERNET_HEADER_LEN, ETHERTYPE_ARP, EthernetHeader, IpHeader, is_transport_checksum_valid,
    pseudo_header_sum,
};
use slirp_core::internals::wire::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};
use smoltcp::wire::{IpProtocol, checksum};

/// Longest super-frame that is built.
const SUPER_FRAME_CAP: usize = 60_000;
const FIN_OR_PSH: u8 = 0x09;
const ONLY_ACK: u8 = 0x10;

/// The frames that one frame of the stack stands for, with whole checksums and without virtio-net
/// header.
///
/// # Panics
/// When the stack has emitted something that a kernel would refuse.
pub(super) fn receive(frame: &[u8], offload: Offload, mtu: usize) -> Vec<Vec<u8>> {
    if !offload.vnet_header {
        check(frame, mtu);
        return vec![frame.to_vec()];
    }
    let header = frame.first_chunk().expect("a virtio-net header");
    let vnet = VnetHeader::parse(header).expect("a virtio-net header");
    let mut frame = frame[VNET_HEADER_LEN..].to_vec();
    if vnet.flags & FLAG_NEEDS_CSUM == 0 {
        assert_eq!(vnet.gso, Gso::None, "segmentation without checksum");
        check(&frame, mtu);
        return vec![frame];
    }
    assert!(offload.checksum, "a partial checksum that nobody completes");
    let ip = IpHeader::parse(&frame[ETHERNET_HEADER_LEN..]).expect("an IP packet");
    let transport_at = ETHERNET_HEADER_LEN + ip.header_len;
    let checksum_at = if ip.protocol == IpProtocol::Tcp { 16 } else { 6 };
    let rest = frame.len() - transport_at;
    let gso = match (ip.protocol, ip.source) {
        (IpProtocol::Udp, _) => Gso::Udp,
        (_, IpAddr::V4(_)) => Gso::TcpV4,
        (_, IpAddr::V6(_)) => Gso::TcpV6,
    };
    vnet.validate(transport_at, checksum_at, gso, rest).expect("offsets that fit the frame");
    let at = transport_at + usize::from(checksum_at);
    assert_eq!(
        u16::from_be_bytes([frame[at], frame[at + 1]]),
        pseudo(&ip, rest),
        "the checksum field holds the pseudo-header's sum"
    );
    let cut = if vnet.gso == Gso::None {
        fill_checksum(&mut frame, &ip);
        vec![frame]
    } else {
        assert!(offload.tcp_segmentation || vnet.gso == Gso::Udp, "nobody cuts this frame");
        segments(&frame, &ip, usize::from(vnet.gso_size))
    };
    for frame in &cut {
        check(frame, mtu);
    }
    cut
}

/// Cuts a TCP or UDP super-frame.
fn segments(frame: &[u8], ip: &IpHeader, size: usize) -> Vec<Vec<u8>> {
    let at = ETHERNET_HEADER_LEN + ip.header_len;
    let is_tcp = ip.protocol == IpProtocol::Tcp;
    let header_len = if is_tcp { usize::from(frame[at + 12] >> 4) * 4 } else { 8 };
    let (headers, payload) = frame.split_at(at + header_len);
    let count = payload.chunks(size).count();
    let cut = payload.chunks(size).enumerate().map(|(index, chunk)| {
        let mut one = headers.to_vec();
        one.extend_from_slice(chunk);
        let packet_len = one.len() - ETHERNET_HEADER_LEN;
        set_length(&mut one, packet_len);
        if is_tcp {
            let offset = u32::try_from(index * size).expect("an offset in a frame");
            let seq = word(&one, at + 4).wrapping_add(offset);
            one[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
            if index + 1 < count {
                one[at + 13] &= !FIN_OR_PSH;
            }
        } else {
            let len = u16::try_from(one.len() - at).expect("a datagram's length");
            one[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        }
        let ip = IpHeader::parse(&one[ETHERNET_HEADER_LEN..]).expect("a segment's header");
        fill_checksum(&mut one, &ip);
        one
    });
    cut.collect()
}

/// Whether everything about a plain frame is right.
fn check(frame: &[u8], mtu: usize) {
    let ethernet = EthernetHeader::parse(frame).expect("an Ethernet header");
    assert!(frame.len() <= mtu + ETHERNET_HEADER_LEN, "{} bytes above the MTU", frame.len());
    if ethernet.ethertype == ETHERTYPE_ARP {
        return;
    }
    let packet = &frame[ETHERNET_HEADER_LEN..];
    let ip = IpHeader::parse(packet).expect("an IP header with a right checksum");
    assert_eq!(ip.packet_len, packet.len(), "no byte behind the packet");
    if ip.is_fragment {
        return;
    }
    let segment = &packet[ip.header_len..];
    let is_valid = if ip.protocol == IpProtocol::Icmp {
        checksum::data(segment) == !0
    } else {
        is_transport_checksum_valid(&ip, segment)
    };
    assert!(is_valid, "a wrong {} checksum", ip.protocol);
}

/// The frames that a guest's kernel writes for `frames`: segments of one stream that follow each
/// other become super-frames where the device takes them, and checksums are left to it.
pub(super) fn transmit(frames: Vec<Vec<u8>>, offload: Offload) -> Vec<Vec<u8>> {
    if !offload.vnet_header {
        return frames;
    }
    let mut out: Vec<Super> = Vec::new();
    for frame in frames {
        let joined =
            offload.tcp_segmentation && out.last_mut().is_some_and(|last| last.try_join(&frame));
        if !joined {
            out.push(Super::new(frame));
        }
    }
    out.into_iter().map(|one| one.finish(offload)).collect()
}

/// A frame that may grow.
struct Super {
    frame: Vec<u8>,
    /// Where the TCP header and the payload start, for segments that carry data and only ACK or
    /// PSH.
    tcp: Option<(usize, usize)>,
    /// Payload of the first segment.
    size: usize,
    is_closed: bool,
}

impl Super {
    fn new(frame: Vec<u8>) -> Self {
        let tcp = Self::locate(&frame);
        let size = tcp.map_or(0, |(_, payload_at)| frame.len() - payload_at);
        Self { frame, tcp, size, is_closed: false }
    }

    fn locate(frame: &[u8]) -> Option<(usize, usize)> {
        let ip = IpHeader::parse(frame.get(ETHERNET_HEADER_LEN..)?).ok()?;
        if ip.protocol != IpProtocol::Tcp || ip.is_fragment {
            return None;
        }
        let at = ETHERNET_HEADER_LEN + ip.header_len;
        let payload_at = at + usize::from(frame[at + 12] >> 4) * 4;
        let is_plain = frame[at + 13] & !FIN_OR_PSH == ONLY_ACK && frame[at + 13] & 1 == 0;
        (is_plain && payload_at < frame.len()).then_some((at, payload_at))
    }

    fn try_join(&mut self, next: &[u8]) -> bool {
        let (Some((at, payload_at)), Some(found)) = (self.tcp, Self::locate(next)) else {
            return false;
        };
        if found != (at, payload_at) {
            return false;
        }
        let payload = &next[payload_at..];
        let len = u32::try_from(self.frame.len() - payload_at).expect("a frame's length");
        let follows = next[at..at + 4] == self.frame[at..at + 4]
            && next[at - 8..at] == self.frame[at - 8..at]
            && word(next, at + 4) == word(&self.frame, at + 4).wrapping_add(len)
            && next[at + 8..at + 12] == self.frame[at + 8..at + 12]
            && next[at + 14..at + 16] == self.frame[at + 14..at + 16]
            && payload.len() <= self.size
            && self.frame.len() + payload.len() < SUPER_FRAME_CAP;
        if self.is_closed || !follows {
            return false;
        }
        // Only the last segment may be shorter.
        self.is_closed = payload.len() < self.size;
        self.frame[at + 13] |= next[at + 13];
        self.frame.extend_from_slice(payload);
        true
    }

    fn finish(mut self, offload: Offload) -> Vec<u8> {
        let mut vnet = VnetHeader::default();
        if let Some((at, payload_at)) = self.tcp
            && offload.checksum
        {
            let packet_len = self.frame.len() - ETHERNET_HEADER_LEN;
            set_length(&mut self.frame, packet_len);
            let ip = IpHeader::parse(&self.frame[ETHERNET_HEADER_LEN..]).expect("an IP header");
            let sum = pseudo(&ip, self.frame.len() - at);
            self.frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
            vnet.flags = FLAG_NEEDS_CSUM;
            vnet.csum_start = u16::try_from(at).expect("an offset in the headers");
            vnet.csum_offset = 16;
            if self.frame.len() - payload_at > self.size {
                vnet.gso = if ip.source.is_ipv4() { Gso::TcpV4 } else { Gso::TcpV6 };
                vnet.gso_size = u16::try_from(self.size).expect("a segment's length");
                vnet.hdr_len = u16::try_from(payload_at).expect("an offset in the headers");
            }
        }
        let mut out = vnet.emit().to_vec();
        out.extend_from_slice(&self.frame);
        out
    }
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

fn pseudo(ip: &IpHeader, len: usize) -> u16 {
    let len = u32::try_from(len).expect("a packet's length");
    pseudo_header_sum(ip.source, ip.destination, ip.protocol, len)
}

/// Writes the length fields of the IP header.
fn set_length(frame: &mut [u8], packet_len: usize) {
    let ip = &mut frame[ETHERNET_HEADER_LEN..];
    if ip[0] >> 4 == 4 {
        let len = u16::try_from(packet_len).expect("an IPv4 packet's length");
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        ip[10..12].fill(0);
        let sum = !checksum::data(&ip[..20]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = u16::try_from(packet_len - 40).expect("an IPv6 packet's length");
        ip[4..6].copy_from_slice(&len.to_be_bytes());
    }
}

fn fill_checksum(frame: &mut [u8], ip: &IpHeader) {
    let at = ETHERNET_HEADER_LEN + ip.header_len;
    let field = at + if ip.protocol == IpProtocol::Tcp { 16 } else { 6 };
    frame[field..field + 2].fill(0);
    let sum = pseudo(ip, frame.len() - at);
    let sum = !checksum::combine(&[sum, checksum::data(&frame[at..])]);
    let sum = if sum == 0 && ip.protocol == IpProtocol::Udp { 0xffff } else { sum };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}
