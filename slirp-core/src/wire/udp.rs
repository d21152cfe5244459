//! The UDP header (RFC 768), and whole datagrams that services write themselves.
//!
//! Owns the header's length and fields, and the checksum of what services send. Datagrams that are
//! relayed for a remote are written by the stack's outbox, which may leave checksum and
//! segmentation to the device.

use core::net::SocketAddr;

use smoltcp::wire::checksum;

use crate::discard::DiscardReason;
use crate::wire::ip::{HeaderFields, IpPair, PROTOCOL_UDP};

/// Length of a UDP header in bytes.
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Offset of the checksum.
pub(crate) const UDP_CHECKSUM_AT: u16 = 6;

/// The fields of a UDP header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UdpHeader {
    /// Port of the sender.
    pub source: u16,
    /// Port of the receiver.
    pub destination: u16,
    /// Length of header and payload in bytes, as announced.
    pub len: u16,
    /// Checksum; zero means that the sender computed none.
    pub checksum: u16,
}

impl UdpHeader {
    /// Reads the first 8 bytes of `datagram`; `None` when there are fewer. Nothing is checked.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let &[s0, s1, d0, d1, l0, l1, c0, c1] = datagram.first_chunk::<UDP_HEADER_LEN>()?;
        Some(Self {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
            len: u16::from_be_bytes([l0, l1]),
            checksum: u16::from_be_bytes([c0, c1]),
        })
    }
}

/// Appends the IP packet that carries `payload` to `out`, complete with its checksum: clients of
/// DHCP read packets off the link, where a checksum that is left to the device looks wrong.
///
/// # Errors
/// [`DiscardReason::HostDatagramTooLarge`] when `payload` does not fit into a packet, and
/// [`DiscardReason::IpHeaderInvalid`] when the address families differ. Then nothing is appended.
pub(crate) fn emit_datagram(
    out: &mut Vec<u8>,
    from: SocketAddr,
    to: SocketAddr,
    hop_limit: u8,
    traffic_class: u8,
    payload: &[u8],
) -> Result<(), DiscardReason> {
    let pair = IpPair::new(from.ip(), to.ip()).ok_or(DiscardReason::IpHeaderInvalid)?;
    let len = UDP_HEADER_LEN + payload.len();
    let len_field = u16::try_from(len)
        .ok()
        .filter(|_| len <= pair.payload_cap())
        .ok_or(DiscardReason::HostDatagramTooLarge)?;
    pair.emit_header(out, HeaderFields { protocol: PROTOCOL_UDP, hop_limit, traffic_class }, len);
    let at = out.len();
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&len_field.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let pseudo = pair.pseudo_header_sum(PROTOCOL_UDP, len_field);
    let sum = !checksum::combine(&[pseudo, checksum::data(&out[at..])]);
    // Zero would say that there is none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    out[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

    #[test]
    fn datagram_equals_that_of_an_independent_writer() {
        let (from, to) = ([10, 0, 2, 2], [10, 0, 2, 15]);
        for payload in [&b""[..], b"odd", b"even"] {
            let mut expected = Vec::new();
            PacketBuilder::ipv4(from, to, 64).udp(67, 68).write(&mut expected, payload).unwrap();
            let mut out = Vec::new();
            emit_datagram(&mut out, (from, 67).into(), (to, 68).into(), 64, 0, payload).unwrap();
            // The builder sets DF.
            expected[6] = 0;
            crate::wire::ip::fill_ipv4_checksum(&mut expected[..20]);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn ipv6_datagram_has_a_right_checksum() {
        let (from, to) = ([1_u16, 2, 3, 4, 5, 6, 7, 8], [9_u16, 10, 11, 12, 13, 14, 15, 16]);
        let mut out = Vec::new();
        emit_datagram(&mut out, (from, 547).into(), (to, 546).into(), 64, 0, b"payload").unwrap();
        let sliced = SlicedPacket::from_ip(&out).unwrap();
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("{sliced:?}") };
        let header = udp.to_header();
        let address = |words: [u16; 8]| core::net::Ipv6Addr::from(words).octets();
        let sum = header.calc_checksum_ipv6_raw(address(from), address(to), b"payload").unwrap();
        assert_eq!((udp.payload(), header.checksum), (&b"payload"[..], sum));
    }

    #[test]
    fn what_fits_no_packet_is_refused() {
        let (from, to) = (([10, 0, 2, 2], 1).into(), ([10, 0, 2, 3], 1).into());
        let mut out = Vec::new();
        let longest = vec![0; 65_507];
        assert_eq!(emit_datagram(&mut out, from, to, 64, 0, &longest), Ok(()));
        assert_eq!(
            emit_datagram(&mut Vec::new(), from, to, 64, 0, &vec![0; 65_508]),
            Err(DiscardReason::HostDatagramTooLarge)
        );
        let six = (core::net::Ipv6Addr::LOCALHOST, 1).into();
        let mixed = emit_datagram(&mut Vec::new(), from, six, 64, 0, b"");
        assert_eq!(mixed, Err(DiscardReason::IpHeaderInvalid));
    }
}
