//! Segments of a guest, written and read byte by byte.
//!
//! Owns the parts of packet ladders: a [`Draft`] becomes an IP packet with correct checksums, and a
//! packet or frame of the stack becomes a [`Seen`].

use core::net::SocketAddr;

use smoltcp::wire::{IpProtocol, checksum};

use crate::mac::MacAddr;
use crate::tcp::segment::{Segment, SynOptions};
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IpHeader,
    is_transport_checksum_valid, pseudo_header_sum,
};
use crate::wire::ip::{HeaderFields, IpPair};
use crate::wire::vnet::{VNET_HEADER_LEN, VnetHeader};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// MSS 1460, window scale 7, SACK permitted: what Linux offers.
pub(crate) const LINUX_OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2];

/// A segment that a guest is about to send.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    /// A multiple of four bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Draft {
    pub(crate) fn new(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            from,
            to,
            seq: 0,
            ack: 0,
            flags: ACK,
            window: 65_535,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// The IP packet.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let tcp_len = header_len + self.payload.len();
        let pair = IpPair::new(self.from.ip(), self.to.ip()).unwrap();
        let mut packet = Vec::new();
        let fields =
            HeaderFields { protocol: u8::from(IpProtocol::Tcp), hop_limit: 64, traffic_class: 0 };
        pair.emit_header(&mut packet, fields, tcp_len);
        let at = packet.len();
        packet.extend_from_slice(&self.from.port().to_be_bytes());
        packet.extend_from_slice(&self.to.port().to_be_bytes());
        packet.extend_from_slice(&self.seq.to_be_bytes());
        packet.extend_from_slice(&self.ack.to_be_bytes());
        packet.push(u8::try_from(header_len / 4).unwrap() << 4);
        packet.push(self.flags);
        packet.extend_from_slice(&self.window.to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&self.urgent.to_be_bytes());
        packet.extend_from_slice(&self.options);
        packet.extend_from_slice(&self.payload);
        let len = u32::try_from(tcp_len).unwrap();
        let pseudo = pseudo_header_sum(self.from.ip(), self.to.ip(), IpProtocol::Tcp, len);
        let sum = !checksum::combine(&[pseudo, checksum::data(&packet[at..])]);
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The Ethernet frame from `mac`, without a virtio-net header.
    pub(crate) fn frame(&self, mac: MacAddr) -> Vec<u8> {
        frame_around(&self.packet(), mac)
    }
}

/// The Ethernet frame from `mac` around an IP packet.
pub(crate) fn frame_around(packet: &[u8], mac: MacAddr) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let destination = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
    let mut frame = EthernetHeader { destination, source: mac, ethertype }.emit().to_vec();
    frame.extend_from_slice(packet);
    frame
}

/// A segment that the guest has received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) has_options: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) is_checksum_valid: bool,
}

impl Seen {
    pub(crate) fn of_packet(packet: &[u8]) -> Self {
        let ip = IpHeader::parse(packet).unwrap();
        let packet = &packet[..ip.packet_len];
        let segment = Segment::parse(&ip, packet).unwrap();
        let options = SynOptions::parse(&segment, packet);
        Self {
            seq: segment.seq,
            ack: segment.ack,
            flags: packet[segment.at + 13],
            window: segment.window,
            mss: options.mss,
            window_scale: options.window_scale,
            sack_permitted: options.sack_permitted,
            has_options: segment.header_len > 20,
            payload: packet[segment.at + segment.header_len..].to_vec(),
            is_checksum_valid: is_transport_checksum_valid(&ip, &packet[segment.at..]),
        }
    }

    /// The sequence number after the segment.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(u32::try_from(self.payload.len()).unwrap()).wrapping_add(flags)
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

/// The headers in front of the packet in a frame of the stack, and where the packet starts.
pub(crate) fn open_frame(frame: &[u8], has_vnet: bool) -> (VnetHeader, EthernetHeader, usize) {
    let (vnet, at) = if has_vnet {
        (VnetHeader::parse(frame.first_chunk().unwrap()).unwrap(), VNET_HEADER_LEN)
    } else {
        (VnetHeader::default(), 0)
    };
    (vnet, EthernetHeader::parse(&frame[at..]).unwrap(), at + ETHERNET_HEADER_LEN)
}

/// Bytes from which their position in a stream can be told.
pub(crate) fn stream(len: usize) -> Vec<u8> {
    let mut rng = crate::rng::Rng::new(0x5eed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
