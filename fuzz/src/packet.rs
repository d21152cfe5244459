//! Packets of a guest, built by hand.
//!
//! Owns the few headers that the targets and the seeds of their corpus need, with correct
//! checksums. It shares no code with the product: a mistake in shared code would never be found.

use core::net::{IpAddr, SocketAddr};

/// The guest's MAC address.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// The gateway's MAC address.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
/// Length of the virtio-net header.
pub const VNET_LEN: usize = 10;
/// Length of the Ethernet header.
pub const ETHERNET_LEN: usize = 14;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;
/// TCP flag URG.
pub const URG: u8 = 0x20;

/// One TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window field.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options; padded with zeros to a multiple of four.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// The ones' complement sum of `bytes` on top of `start`, not inverted.
pub fn sum(start: u16, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded above")
}

/// The sum of the pseudo-header.
pub fn pseudo_sum(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u16 {
    let mut bytes = octets(from);
    bytes.extend_from_slice(&octets(to));
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&[0, protocol]);
    sum(0, &bytes)
}

/// An IP packet with `payload`; IPv4 without options, IPv6 without extension headers.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match from {
        IpAddr::V4(_) => ipv4(from, to, protocol, 0, 0, payload),
        IpAddr::V6(_) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend_from_slice(&len16(payload.len()));
            packet.extend_from_slice(&[protocol, if protocol == ICMPV6 { 255 } else { 64 }]);
            packet.extend_from_slice(&octets(from));
            packet.extend_from_slice(&octets(to));
            packet.extend_from_slice(payload);
            packet
        }
    }
}

/// An IPv4 packet with an identification and a fragment field (flags and offset in eights).
pub fn ipv4(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    ident: u16,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&len16(20 + payload.len()));
    packet.extend_from_slice(&ident.to_be_bytes());
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&octets(from));
    packet.extend_from_slice(&octets(to));
    let header = !sum(0, &packet);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// One fragment of an IPv6 packet; `at` in bytes.
pub fn ipv6_fragment(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    at: u16,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut body = vec![protocol, 0];
    body.extend_from_slice(&((at & !7) | u16::from(more)).to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 7]);
    body.extend_from_slice(payload);
    ip(from, to, 44, &body)
}

/// A UDP header and payload with its checksum.
pub fn udp_segment(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut udp = from.port().to_be_bytes().to_vec();
    udp.extend_from_slice(&to.port().to_be_bytes());
    udp.extend_from_slice(&len16(8 + payload.len()));
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    seal(&mut udp, 6, pseudo_sum(from.ip(), to.ip(), UDP, 8 + payload.len()));
    udp
}

/// A UDP datagram as an IP packet.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    ip(from.ip(), to.ip(), UDP, &udp_segment(from, to, payload))
}

/// A TCP segment as an IP packet.
pub fn tcp(segment: &Tcp<'_>) -> Vec<u8> {
    let mut options = segment.options.to_vec();
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), 0);
    let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes of options");
    let mut tcp = segment.from.port().to_be_bytes().to_vec();
    tcp.extend_from_slice(&segment.to.port().to_be_bytes());
    tcp.extend_from_slice(&segment.seq.to_be_bytes());
    tcp.extend_from_slice(&segment.ack.to_be_bytes());
    tcp.extend_from_slice(&[words << 4, segment.flags]);
    tcp.extend_from_slice(&segment.window.to_be_bytes());
    tcp.extend_from_slice(&[0, 0]);
    tcp.extend_from_slice(&segment.urgent.to_be_bytes());
    tcp.extend_from_slice(&options);
    tcp.extend_from_slice(segment.payload);
    let (from, to) = (segment.from.ip(), segment.to.ip());
    let pseudo = pseudo_sum(from, to, TCP, tcp.len());
    seal(&mut tcp, 16, pseudo);
    ip(from, to, TCP, &tcp)
}

/// An ICMP or ICMPv6 message (type, code, zeroed checksum, rest) as an IP packet.
pub fn icmp(from: IpAddr, to: IpAddr, message: &[u8]) -> Vec<u8> {
    let mut icmp = message.to_vec();
    icmp[2..4].fill(0);
    let (protocol, pseudo) = match from {
        IpAddr::V4(_) => (ICMP, 0),
        IpAddr::V6(_) => (ICMPV6, pseudo_sum(from, to, ICMPV6, icmp.len())),
    };
    seal(&mut icmp, 2, pseudo);
    ip(from, to, protocol, &icmp)
}

/// An echo request as an IP packet.
pub fn echo(from: IpAddr, to: IpAddr, ident: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![if from.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend_from_slice(&ident.to_be_bytes());
    message.extend_from_slice(&sequence.to_be_bytes());
    message.extend_from_slice(payload);
    icmp(from, to, &message)
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let ethertype =
        if packet.first().is_some_and(|first| first >> 4 == 6) { 0x86dd } else { 0x0800 };
    ethernet_of(ethertype, packet)
}

/// An Ethernet frame around anything.
pub fn ethernet_of(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = GATEWAY_MAC.to_vec();
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Corrects the checksums of an Ethernet frame if there is room for them, so that mutated frames
/// pass the checks.
pub fn fix_checksums(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(ETHERNET_LEN..) else {
        return;
    };
    let (from, to, protocol, at, end) = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => {
            let at = usize::from(packet[0] & 0x0f) * 4;
            let end = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            if at < 20 || at > packet.len() {
                return;
            }
            seal(&mut packet[..at], 10, 0);
            let address = |at: usize| {
                IpAddr::from([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
            };
            (address(12), address(16), packet[9], at, end)
        }
        Some(6) if packet.len() >= 40 => {
            let address = |at: usize| {
                IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).expect("16 bytes"))
            };
            let end = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (address(8), address(24), packet[6], 40, end)
        }
        Some(_) | None => return,
    };
    let Some(transport) = packet.get_mut(at..end) else {
        return;
    };
    let field = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    let pseudo = if protocol == ICMP { 0 } else { pseudo_sum(from, to, protocol, transport.len()) };
    if transport.len() >= field + 2 {
        seal(transport, field, pseudo);
    }
}

fn seal(bytes: &mut [u8], at: usize, pseudo: u16) {
    bytes[at..at + 2].fill(0);
    let checksum = !sum(pseudo, bytes);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
