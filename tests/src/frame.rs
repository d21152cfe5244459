//! Packets that no kernel socket would send: raw IPv4 with a header of our own.

use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// `IPPROTO_RAW`: the caller brings the IPv4 header.
const IPPROTO_RAW: i32 = 255;

/// A raw socket in `namespace` whose packets start with their own IPv4 header.
///
/// # Panics
/// When the namespace refuses raw sockets to root.
pub fn raw_ipv4_socket(namespace: &Namespace) -> Socket {
    namespace
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))))
        .expect("root may open raw sockets")
}

/// A SYN with valid checksums; the kernel fills the IPv4 one.
pub fn syn_packet(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&64240_u16.to_be_bytes());
    let checksum = tcp_checksum(*from.ip(), *to.ip(), &packet[20..]);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 9293 section 3.1: ones' complement over pseudo header and segment.
fn tcp_checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let len = u16::try_from(segment.len()).expect("segments are short");
    let mut pseudo = Vec::from(from.octets());
    pseudo.extend(to.octets());
    pseudo.extend([0, 6]);
    pseudo.extend(len.to_be_bytes());
    pseudo.extend(segment);
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice")
}
