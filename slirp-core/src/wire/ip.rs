//! IP headers that we write, and the walk to the upper-layer header of packets that arrive.
//!
//! Owns the fixed headers of IPv4 (RFC 791 section 3.1) and IPv6 (RFC 8200 section 3) in front of
//! packets that the stack makes itself, their pseudo-header sums, and the bounded walk over IPv6
//! extension headers (RFC 8200 section 4). Which packets are acceptable is decided by their
//! receivers.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, checksum};

use crate::discard::DiscardReason;

/// Length of an IPv4 header without options, in bytes.
pub(crate) const IPV4_HEADER_LEN: usize = 20;
/// Length of the fixed IPv6 header, in bytes.
pub(crate) const IPV6_HEADER_LEN: usize = 40;
/// Length of an IPv6 fragment header, in bytes (RFC 8200 section 4.5).
pub(crate) const FRAGMENT_HEADER_LEN: usize = 8;
/// Protocol number of ICMP.
pub(crate) const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of UDP.
pub(crate) const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

/// Longest chain of IPv6 extension headers that is walked. RFC 8200 section 4.1 names five kinds,
/// of which one may occur twice; the rest is slack.
pub(crate) const EXTENSION_HEADERS_CAP: usize = 8;

/// A pair of addresses of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IpPair {
    /// IPv4, source first.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6, source first.
    V6(Ipv6Addr, Ipv6Addr),
}

impl IpPair {
    /// The pair, unless the families differ.
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6(source, destination)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// Length of the header in front of the payload, in bytes.
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4(..) => IPV4_HEADER_LEN,
            Self::V6(..) => IPV6_HEADER_LEN,
        }
    }

    /// Longest payload that a packet can announce, in bytes.
    pub const fn payload_cap(self) -> usize {
        match self {
            Self::V4(..) => u16::MAX as usize - IPV4_HEADER_LEN,
            Self::V6(..) => u16::MAX as usize,
        }
    }

    /// One's complement sum of the pseudo-header for a payload of `len` bytes.
    pub fn pseudo_header_sum(self, protocol: u8, len: u16) -> u16 {
        let protocol = IpProtocol::from(protocol);
        match self {
            Self::V4(source, destination) => {
                checksum::pseudo_header_v4(&source, &destination, protocol, u32::from(len))
            }
            Self::V6(source, destination) => {
                checksum::pseudo_header_v6(&source, &destination, protocol, u32::from(len))
            }
        }
    }

    /// Appends the header of a packet whose payload has `payload_len` bytes.
    ///
    /// IPv4: identification 0, DF clear (RFC 6864 leaves the identification of an unfragmented
    /// packet to us; the code that fragments it later chooses one). IPv6: flow label 0. A payload
    /// beyond [`payload_cap`](Self::payload_cap) is a mistake of the caller and announces 65,535
    /// bytes.
    pub fn emit_header(self, out: &mut Vec<u8>, fields: HeaderFields, payload_len: usize) {
        let HeaderFields { protocol, hop_limit, traffic_class } = fields;
        match self {
            Self::V4(source, destination) => {
                let total = u16::try_from(IPV4_HEADER_LEN + payload_len).unwrap_or(u16::MAX);
                let at = out.len();
                let [t0, t1] = total.to_be_bytes();
                out.extend_from_slice(&[0x45, traffic_class, t0, t1]);
                out.extend_from_slice(&[0, 0, 0, 0, hop_limit, protocol, 0, 0]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
                fill_ipv4_checksum(&mut out[at..]);
            }
            Self::V6(source, destination) => {
                let [l0, l1] = u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes();
                let class = u16::from(traffic_class) << 4 | 0x6000;
                out.extend_from_slice(&class.to_be_bytes());
                out.extend_from_slice(&[0, 0, l0, l1, protocol, hop_limit]);
                out.extend_from_slice(&source.octets());
                out.extend_from_slice(&destination.octets());
            }
        }
    }

    /// Fills in the ICMP or ICMPv6 checksum of the message `icmp` in its bytes 2..4.
    pub(crate) fn fill_icmp_checksum(self, icmp: &mut [u8]) {
        icmp[2..4].fill(0);
        let sum = self.icmp_sum(icmp);
        icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
    }

    /// Whether the checksum of the ICMP or ICMPv6 message `icmp` is right.
    pub(crate) fn is_icmp_checksum_valid(self, icmp: &[u8]) -> bool {
        self.icmp_sum(icmp) == u16::MAX
    }

    fn icmp_sum(self, icmp: &[u8]) -> u16 {
        match self {
            Self::V4(..) => checksum::data(icmp),
            Self::V6(..) => checksum::combine(&[
                self.pseudo_header_sum(PROTOCOL_ICMPV6, saturating_u16(icmp.len())),
                checksum::data(icmp),
            ]),
        }
    }
}

/// The fields of an IP header that both families have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFields {
    /// Protocol or next header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
}

/// Computes the checksum of the IPv4 header at the start of `header` (exactly the header).
pub(crate) fn fill_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !checksum::data(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The big-endian number at `at`; zero beyond the end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        Some(_) | None => 0,
    }
}

fn saturating_u16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// What a packet is, down to the start of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located<'a> {
    /// Source and destination.
    pub pair: IpPair,
    /// The packet without bytes behind its announced end.
    pub packet: &'a [u8],
    /// Protocol of the upper-layer header.
    pub protocol: u8,
    /// Where the upper-layer header starts.
    pub payload_at: usize,
    /// Offset of the next-header field that names the payload or, in a fragmented IPv6 packet, the
    /// fragment header.
    pub next_header_at: usize,
    /// Present when the packet says that it is a fragment.
    pub fragment: Option<FragmentInfo>,
}

/// Place of a fragment in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FragmentInfo {
    /// Offset of the payload in the datagram's payload, in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// Identification.
    pub ident: u32,
}

impl<'a> Located<'a> {
    /// Locates the payload of `bytes`, one IP packet with or without padding behind it.
    ///
    /// The IPv4 header checksum is not looked at. The walk over IPv6 extension headers ends behind
    /// a fragment header, because what follows may be the middle of anything.
    ///
    /// # Errors
    /// [`DiscardReason::IpHeaderInvalid`] or [`DiscardReason::ExtensionHeaderInvalid`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DiscardReason> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::parse_ipv4(bytes),
            Some(6) => Self::parse_ipv6(bytes),
            Some(_) | None => Err(DiscardReason::IpHeaderInvalid),
        }
    }

    /// The bytes behind the IP headers.
    pub fn payload(&self) -> &'a [u8] {
        self.packet.get(self.payload_at..).unwrap_or_default()
    }

    fn parse_ipv4(bytes: &'a [u8]) -> Result<Self, DiscardReason> {
        let header_len = usize::from(bytes[0] & 0x0f) * 4;
        let total = usize::from(u16_at(bytes, 2));
        if header_len < IPV4_HEADER_LEN || total < header_len || bytes.len() < total {
            return Err(DiscardReason::IpHeaderInvalid);
        }
        let address =
            |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let flags = u16_at(bytes, 6);
        let offset = usize::from(flags & 0x1fff) * 8;
        let more = flags & 0x2000 != 0;
        let fragment = (more || offset > 0).then(|| FragmentInfo {
            offset,
            more,
            ident: u32::from(u16_at(bytes, 4)),
        });
        Ok(Self {
            pair: IpPair::V4(address(12), address(16)),
            packet: &bytes[..total],
            protocol: bytes[9],
            payload_at: header_len,
            next_header_at: 9,
            fragment,
        })
    }

    fn parse_ipv6(bytes: &'a [u8]) -> Result<Self, DiscardReason> {
        let total = IPV6_HEADER_LEN + usize::from(u16_at(bytes, 4));
        if bytes.len() < total {
            return Err(DiscardReason::IpHeaderInvalid);
        }
        let packet = &bytes[..total];
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&packet[at..at + 16]);
            Ipv6Addr::from(octets)
        };
        let mut located = Self {
            pair: IpPair::V6(address(8), address(24)),
            packet,
            protocol: packet[6],
            payload_at: IPV6_HEADER_LEN,
            next_header_at: 6,
            fragment: None,
        };
        for _ in 0..EXTENSION_HEADERS_CAP {
            let at = located.payload_at;
            match located.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let Some(&[next, units]) = packet.get(at..at + 2) else {
                        return Err(DiscardReason::ExtensionHeaderInvalid);
                    };
                    located.protocol = next;
                    located.next_header_at = at;
                    located.payload_at = at + 8 + usize::from(units) * 8;
                    if located.payload_at > total {
                        return Err(DiscardReason::ExtensionHeaderInvalid);
                    }
                }
                FRAGMENT => {
                    let Some(&[next, _, o0, o1, i0, i1, i2, i3]) =
                        packet.get(at..at + FRAGMENT_HEADER_LEN)
                    else {
                        return Err(DiscardReason::ExtensionHeaderInvalid);
                    };
                    let place = u16::from_be_bytes([o0, o1]);
                    located.protocol = next;
                    located.payload_at = at + FRAGMENT_HEADER_LEN;
                    located.fragment = Some(FragmentInfo {
                        offset: usize::from(place & 0xfff8),
                        more: place & 1 != 0,
                        ident: u32::from_be_bytes([i0, i1, i2, i3]),
                    });
                    return Ok(located);
                }
                _ => return Ok(located),
            }
        }
        Err(DiscardReason::ExtensionHeaderInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_chain_of_extension_headers_is_refused() {
        let mut packet = vec![0; IPV6_HEADER_LEN + 8 * 20];
        packet[0] = 0x60;
        packet[5] = 160;
        packet[6] = DESTINATION_OPTIONS;
        for header in packet[IPV6_HEADER_LEN..].chunks_mut(8) {
            header[0] = DESTINATION_OPTIONS;
        }
        assert_eq!(Located::parse(&packet), Err(DiscardReason::ExtensionHeaderInvalid));
    }

    #[test]
    fn upper_layer_behind_hop_by_hop_is_found() {
        let pair = IpPair::V6(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let fields = HeaderFields { protocol: HOP_BY_HOP, hop_limit: 1, traffic_class: 0 };
        let mut packet = Vec::new();
        pair.emit_header(&mut packet, fields, 12);
        packet.extend_from_slice(&[PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0]);
        let located = Located::parse(&packet).unwrap();
        assert_eq!((located.protocol, located.payload_at), (PROTOCOL_ICMPV6, 48));
        assert_eq!(located.next_header_at, 40);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_located_or_refused(bytes: Vec<u8>, version in 0_u8..16) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x0f | version << 4;
            }
            if let Ok(located) = Located::parse(&bytes) {
                assert!(located.payload_at <= located.packet.len());
            }
        }
    }
}
