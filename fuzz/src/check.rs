//! The requirements of every frame to the guest.
//!
//! Owns the judgement of one frame: that it parses, fits, and has the checksums that its virtio-net
//! header promises (virtio 1.2 section 5.1.6.2). Panics with the frame otherwise.

use core::net::{IpAddr, SocketAddr};

use etherparse::SlicedPacket;
use slirp_core::config::StackConfig;
use slirp_core::internals::wire::{FLAG_NEEDS_CSUM, Gso, VnetHeader};

use crate::packet::{ETHERNET_LEN, ICMP, ICMPV6, TCP, UDP, VNET_LEN, pseudo_sum, sum};

/// A TCP segment that the guest received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpSeen<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: &'a [u8],
}

/// Judges one frame; returns the TCP segment that it carries, if any.
pub(crate) fn judge<'a>(config: &StackConfig, frame: &'a [u8]) -> Option<TcpSeen<'a>> {
    let (vnet, ethernet) = if config.offload.vnet_header {
        let header = frame.first_chunk().expect("a frame has its virtio-net header");
        (VnetHeader::parse(header).expect("a known header"), &frame[VNET_LEN..])
    } else {
        (VnetHeader::default(), frame)
    };
    SlicedPacket::from_ethernet(ethernet)
        .unwrap_or_else(|error| panic!("{error}: {ethernet:02x?}"));
    let packet = &ethernet[ETHERNET_LEN..];
    let (from, to, protocol, at, is_fragment) = match half(ethernet, 12) {
        0x0806 => {
            assert_eq!(packet.len(), 28, "an ARP packet has 28 bytes");
            return None;
        }
        0x0800 => {
            let at = usize::from(packet[0] & 0x0f) * 4;
            assert_eq!(usize::from(half(packet, 2)), packet.len(), "the IPv4 length is right");
            assert_eq!(sum(0, &packet[..at]), 0xffff, "the IPv4 checksum is right");
            let address = |at: usize| {
                IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
            };
            (address(12), address(16), packet[9], at, half(packet, 6) & 0x3fff != 0)
        }
        0x86dd => {
            assert!(config.plan.ipv6().is_some(), "no IPv6 unless it is enabled");
            assert_eq!(40 + usize::from(half(packet, 4)), packet.len(), "the IPv6 length is right");
            let address = |at: usize| {
                IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"))
            };
            (address(8), address(24), packet[6], 40, packet[6] == 44)
        }
        other => panic!("ethertype {other:#06x} to the guest"),
    };
    let mtu = usize::from(config.mtu);
    if vnet.gso == Gso::None {
        assert!(packet.len() <= mtu, "{} bytes over an MTU of {mtu}: {vnet:?}", packet.len());
    }
    if is_fragment {
        assert_eq!(vnet, VnetHeader::default(), "a fragment has no offload");
        return None;
    }
    let transport = &packet[at..];
    let pseudo = pseudo_sum(from, to, protocol, transport.len());
    let checksum_at = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        other => panic!("protocol {other} to the guest"),
    };
    if vnet.flags & FLAG_NEEDS_CSUM != 0 {
        assert!(config.offload.checksum, "a checksum is left only where the device wants it");
        assert_eq!(usize::from(vnet.csum_start), ETHERNET_LEN + at, "{vnet:?}");
        assert_eq!(usize::from(vnet.csum_offset), checksum_at, "{vnet:?}");
        assert_eq!(half(transport, checksum_at), pseudo, "the partial checksum is right");
    } else if protocol == ICMP {
        assert_eq!(sum(0, transport), 0xffff, "the ICMP checksum is right");
    } else {
        assert_eq!(sum(pseudo, transport), 0xffff, "the checksum is right: {packet:02x?}");
        assert!(protocol != UDP || half(transport, 6) != 0, "a checksum is there");
    }
    let header_len = match protocol {
        TCP => usize::from(transport[12] >> 4) * 4,
        _ => 8,
    };
    if vnet.gso != Gso::None {
        let expected = match (protocol, from) {
            (TCP, IpAddr::V4(_)) => Gso::TcpV4,
            (TCP, IpAddr::V6(_)) => Gso::TcpV6,
            _ => Gso::Udp,
        };
        assert_eq!(vnet.gso, expected);
        assert!(vnet.flags & FLAG_NEEDS_CSUM != 0, "segments get their checksums from the device");
        assert_ne!(vnet.gso_size, 0);
        let largest = at + header_len + usize::from(vnet.gso_size);
        assert!(largest <= mtu, "segments of {largest} bytes over an MTU of {mtu}");
        let is_offered = match expected {
            Gso::TcpV4 | Gso::TcpV6 => config.offload.tcp_segmentation,
            Gso::Udp | Gso::None => config.offload.udp_segmentation,
        };
        assert!(is_offered, "{expected:?} is cut by the device only where it can");
    }
    (protocol == TCP).then(|| TcpSeen {
        from: SocketAddr::new(from, half(transport, 0)),
        to: SocketAddr::new(to, half(transport, 2)),
        seq: word(transport, 4),
        ack: word(transport, 8),
        flags: transport[13],
        payload: &transport[header_len..],
    })
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
