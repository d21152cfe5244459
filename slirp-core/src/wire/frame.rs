//! From an Ethernet frame down to where its transport header starts.
//!
//! Owns the walk over Ethernet II, IPv4 (RFC 791) and IPv6 with its extension headers (RFC 8200
//! section 4), with every length checked against the bytes that are there. The transport header is
//! read by the flows. Nothing here allocates.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IpProtocol, checksum};

use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::wire::ip::EXTENSION_HEADERS_CAP;
pub(crate) use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::wire::tcp::TCP_CHECKSUM_AT;
use crate::wire::udp::{UDP_CHECKSUM_AT, UDP_HEADER_LEN};
use crate::wire::vnet::{Gso, VnetHeader};

/// Length of an Ethernet II header in bytes.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Ethernet type of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethernet type of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet type of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The Ethernet header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EthernetHeader {
    /// Destination; not checked, because every frame on a TAP device is for us.
    pub destination: MacAddr,
    /// Source.
    pub source: MacAddr,
    /// What is inside.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Parses the first 14 bytes of `frame`.
    ///
    /// # Errors
    /// [`DiscardReason::FrameTruncated`] and [`DiscardReason::SourceMacInvalid`].
    pub fn parse(frame: &[u8]) -> Result<Self, DiscardReason> {
        let header: &[u8; ETHERNET_HEADER_LEN] =
            frame.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        let source = MacAddr([s0, s1, s2, s3, s4, s5]);
        if !source.is_valid_source() {
            return Err(DiscardReason::SourceMacInvalid);
        }
        Ok(Self {
            destination: MacAddr([d0, d1, d2, d3, d4, d5]),
            source,
            ethertype: u16::from_be_bytes([t0, t1]),
        })
    }

    /// The 14 bytes.
    pub fn emit(&self) -> [u8; ETHERNET_HEADER_LEN] {
        let mut out = [0; ETHERNET_HEADER_LEN];
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..].copy_from_slice(&self.ethertype.to_be_bytes());
        out
    }
}

/// What the IP header of a packet says, extension headers included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpHeader {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TOS or traffic class.
    pub traffic_class: u8,
    /// Whether routers may not fragment the packet; always so in IPv6 (RFC 8200 section 5).
    pub dont_fragment: bool,
    /// Protocol of the transport header (IANA number).
    pub protocol: IpProtocol,
    /// Offset of the transport header from the start of the IP header.
    pub header_len: usize,
    /// Length of the whole packet; link-layer padding lies beyond.
    pub packet_len: usize,
    /// Whether the packet is one fragment of several.
    pub is_fragment: bool,
}

impl IpHeader {
    /// Parses the header of `packet`, which starts at the IP header and may be followed by padding.
    ///
    /// # Errors
    /// [`DiscardReason::FrameTruncated`], [`DiscardReason::IpHeaderInvalid`],
    /// [`DiscardReason::IpChecksumInvalid`], [`DiscardReason::ExtensionHeaderInvalid`].
    pub fn parse(packet: &[u8]) -> Result<Self, DiscardReason> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::parse_ipv4(packet),
            Some(6) => Self::parse_ipv6(packet),
            Some(_) => Err(DiscardReason::IpHeaderInvalid),
            None => Err(DiscardReason::FrameTruncated),
        }
    }

    fn parse_ipv4(packet: &[u8]) -> Result<Self, DiscardReason> {
        let fixed: &[u8; IPV4_HEADER_LEN] =
            packet.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let packet_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if header_len < IPV4_HEADER_LEN || packet_len < header_len {
            return Err(DiscardReason::IpHeaderInvalid);
        }
        if packet_len > packet.len() {
            return Err(DiscardReason::FrameTruncated);
        }
        if checksum::data(&packet[..header_len]) != !0 {
            return Err(DiscardReason::IpChecksumInvalid);
        }
        // RFC 791: "don't fragment", more-fragments bit and the 13-bit offset.
        let place = u16::from_be_bytes([fixed[6], fixed[7]]);
        Ok(Self {
            source: IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15])),
            destination: IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19])),
            hop_limit: fixed[8],
            traffic_class: fixed[1],
            dont_fragment: place & 0x4000 != 0,
            protocol: IpProtocol::from(fixed[9]),
            header_len,
            packet_len,
            is_fragment: place & 0x3fff != 0,
        })
    }

    fn parse_ipv6(packet: &[u8]) -> Result<Self, DiscardReason> {
        let fixed: &[u8; IPV6_HEADER_LEN] =
            packet.first_chunk().ok_or(DiscardReason::FrameTruncated)?;
        let packet_len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if packet_len > packet.len() {
            return Err(DiscardReason::FrameTruncated);
        }
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&fixed[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let mut header = Self {
            source: address(8),
            destination: address(24),
            hop_limit: fixed[7],
            traffic_class: fixed[0] << 4 | fixed[1] >> 4,
            dont_fragment: true,
            protocol: IpProtocol::from(fixed[6]),
            header_len: IPV6_HEADER_LEN,
            packet_len,
            is_fragment: false,
        };
        header.walk_extension_headers(&packet[..packet_len])?;
        Ok(header)
    }

    /// Moves `protocol` and `header_len` past extension headers; stops at a fragment header.
    fn walk_extension_headers(&mut self, packet: &[u8]) -> Result<(), DiscardReason> {
        for _ in 0..EXTENSION_HEADERS_CAP {
            match self.protocol {
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                    let [next, len, ..] = packet[self.header_len..] else {
                        return Err(DiscardReason::ExtensionHeaderInvalid);
                    };
                    self.header_len += (usize::from(len) + 1) * 8;
                    if self.header_len > packet.len() {
                        return Err(DiscardReason::ExtensionHeaderInvalid);
                    }
                    self.protocol = IpProtocol::from(next);
                }
                IpProtocol::Ipv6Frag => {
                    self.is_fragment = true;
                    return Ok(());
                }
                IpProtocol::Icmp
                | IpProtocol::Igmp
                | IpProtocol::Tcp
                | IpProtocol::Udp
                | IpProtocol::Icmpv6
                | IpProtocol::Ipv6NoNxt
                | IpProtocol::IpSecEsp
                | IpProtocol::IpSecAh
                | IpProtocol::Unknown(_) => return Ok(()),
            }
        }
        Err(DiscardReason::ExtensionHeaderInvalid)
    }
}

/// Moves the fixed IPv6 header over the extension headers between it and the transport header, so
/// that the packet has none. Returns how many bytes the packet now starts later.
pub(crate) fn drop_extension_headers(packet: &mut [u8], header: &mut IpHeader) -> usize {
    let moved = match header.destination {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => header.header_len - IPV6_HEADER_LEN,
    };
    if moved == 0 {
        return 0;
    }
    packet.copy_within(..IPV6_HEADER_LEN, moved);
    header.header_len = IPV6_HEADER_LEN;
    header.packet_len -= moved;
    packet[moved + 6] = u8::from(header.protocol);
    // A packet length that was parsed from 16 bits and became smaller still fits.
    let payload_len = u16::try_from(header.packet_len - IPV6_HEADER_LEN).unwrap_or(0);
    packet[moved + 4..moved + 6].copy_from_slice(&payload_len.to_be_bytes());
    moved
}

/// Checks a virtio-net header against the frame behind it, whose IP packet is `packet`.
///
/// # Errors
/// [`DiscardReason::VnetHeaderInvalid`].
pub(crate) fn check_offload(
    vnet: Option<&VnetHeader>,
    ip: &IpHeader,
    packet: &[u8],
) -> Result<(), DiscardReason> {
    let Some(vnet) = vnet else {
        return Ok(());
    };
    let transport_at = ETHERNET_HEADER_LEN + ip.header_len;
    let rest = packet.len() - ip.header_len;
    if ip.protocol == IpProtocol::Tcp {
        let gso = if ip.source.is_ipv4() { Gso::TcpV4 } else { Gso::TcpV6 };
        vnet.validate(transport_at, TCP_CHECKSUM_AT, gso, rest)
    } else if ip.protocol == IpProtocol::Udp {
        vnet.validate(transport_at, UDP_CHECKSUM_AT, Gso::Udp, rest.saturating_sub(UDP_HEADER_LEN))
    } else if vnet.gso == Gso::None {
        Ok(())
    } else {
        Err(DiscardReason::VnetHeaderInvalid)
    }
}

/// Whether the transport checksum over `segment` (transport header and payload) is right.
pub fn is_transport_checksum_valid(header: &IpHeader, segment: &[u8]) -> bool {
    let Ok(len) = u32::try_from(segment.len()) else {
        return false;
    };
    let pseudo = pseudo_header_sum(header.source, header.destination, header.protocol, len);
    checksum::combine(&[pseudo, checksum::data(segment)]) == !0
}

/// The one's complement sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1), not
/// inverted: what a checksum field holds before `NEEDS_CSUM` hardware completes it.
pub fn pseudo_header_sum(
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    len: u32,
) -> u16 {
    checksum::pseudo_header(&source.into(), &destination.into(), protocol, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with a right header checksum around `payload`.
    fn ipv4(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 100, 192, 0, 2, 1];
        let len = u16::try_from(packet.len() + payload.len()).unwrap();
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        let sum = !checksum::data(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&"fd00::100".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn padding_behind_a_packet_is_not_part_of_it() {
        let mut packet = ipv4(17, 0, &[0; 8]);
        packet.resize(46, 0xaa);
        let header = IpHeader::parse(&packet).unwrap();
        assert_eq!((header.header_len, header.packet_len), (20, 28));
        assert!(!header.is_fragment);
    }

    #[test]
    fn wrong_lengths_and_checksums_have_their_own_reasons() {
        let good = ipv4(6, 0, &[0; 20]);
        let altered = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            IpHeader::parse(&packet)
        };
        assert_eq!(altered(0, 0x44), Err(DiscardReason::IpHeaderInvalid));
        assert_eq!(altered(0, 0x55), Err(DiscardReason::IpHeaderInvalid));
        assert_eq!(altered(2, 0xff), Err(DiscardReason::FrameTruncated));
        assert_eq!(altered(3, 19), Err(DiscardReason::IpHeaderInvalid));
        assert_eq!(altered(8, 1), Err(DiscardReason::IpChecksumInvalid));
        assert_eq!(IpHeader::parse(&good[..19]), Err(DiscardReason::FrameTruncated));
        assert_eq!(IpHeader::parse(&[]), Err(DiscardReason::FrameTruncated));
    }

    #[test]
    fn fragments_are_recognised_in_both_families() {
        assert!(IpHeader::parse(&ipv4(17, 0x2000, &[0; 8])).unwrap().is_fragment);
        assert!(IpHeader::parse(&ipv4(17, 0x0001, &[0; 8])).unwrap().is_fragment);
        assert!(!IpHeader::parse(&ipv4(17, 0x4000, &[0; 8])).unwrap().is_fragment);
        let header = IpHeader::parse(&ipv6(44, &[17, 0, 0, 1, 0, 0, 0, 9, 1, 2, 3])).unwrap();
        assert!(header.is_fragment);
    }

    #[test]
    fn extension_headers_are_walked_and_dropped() {
        let mut chain = vec![60, 0, 1, 4, 0, 0, 0, 0, 6, 1];
        chain.extend_from_slice(&[0; 14]);
        chain.extend_from_slice(b"transport");
        let mut packet = ipv6(0, &chain);
        let mut header = IpHeader::parse(&packet).unwrap();
        assert_eq!((header.protocol, header.header_len), (IpProtocol::Tcp, 64));
        let moved = drop_extension_headers(&mut packet, &mut header);
        assert_eq!(moved, 24);
        let again = IpHeader::parse(&packet[moved..]).unwrap();
        assert_eq!(again, header);
        assert_eq!(&packet[moved + again.header_len..], b"transport");
    }

    #[test]
    fn endless_or_truncated_extension_chains_are_refused() {
        let endless: Vec<u8> = [0, 0, 0, 0, 0, 0, 0, 0].repeat(9);
        assert_eq!(IpHeader::parse(&ipv6(0, &endless)), Err(DiscardReason::ExtensionHeaderInvalid));
        assert_eq!(
            IpHeader::parse(&ipv6(60, &[6, 9, 0, 0])),
            Err(DiscardReason::ExtensionHeaderInvalid)
        );
        assert_eq!(IpHeader::parse(&ipv6(60, &[])), Err(DiscardReason::ExtensionHeaderInvalid));
    }
}
