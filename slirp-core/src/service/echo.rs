//! Echo replies from the virtual addresses themselves (RFC 792, RFC 4443 section 4.2).
//!
//! Owns the answer to an echo request for an address of ours. Clients take it as a sign of
//! readiness, so it depends on neither policy nor host. Which requests come here is decided in
//! [`policy`](crate::policy).

use core::net::IpAddr;

use crate::discard::DiscardReason;
use crate::wire::icmp::{
    ICMP_HEADER_LEN, ICMP_HOP_LIMIT, ICMPV4_ECHO_REQUEST, ICMPV6_ECHO_REQUEST, emit_echo_reply,
};
use crate::wire::ip::{IpPair, Located, PROTOCOL_ICMP, PROTOCOL_ICMPV6, u16_at};

/// Appends the reply to `packet`, a whole and reassembled IP packet of the guest with an echo
/// request, to `out`. The reply is as long as the request and may need to be fragmented.
///
/// # Errors
/// [`DiscardReason::IcmpUnsupported`] when it is not an echo request,
/// [`DiscardReason::TransportHeaderInvalid`] when it is truncated or a fragment,
/// [`DiscardReason::TransportChecksumInvalid`], or why its IP headers could not be read. Then
/// nothing is appended.
pub(crate) fn handle_echo_request(packet: &[u8], out: &mut Vec<u8>) -> Result<(), DiscardReason> {
    let located = Located::parse(packet)?;
    let icmp = located.payload();
    let (from, to, protocol, request) = match located.pair {
        IpPair::V4(guest, ours) => {
            (IpAddr::V4(ours), IpAddr::V4(guest), PROTOCOL_ICMP, ICMPV4_ECHO_REQUEST)
        }
        IpPair::V6(guest, ours) => {
            (IpAddr::V6(ours), IpAddr::V6(guest), PROTOCOL_ICMPV6, ICMPV6_ECHO_REQUEST)
        }
    };
    if located.fragment.is_some() || icmp.len() < ICMP_HEADER_LEN {
        return Err(DiscardReason::TransportHeaderInvalid);
    }
    if located.protocol != protocol || icmp[0] != request || icmp[1] != 0 {
        return Err(DiscardReason::IcmpUnsupported);
    }
    if !located.pair.is_icmp_checksum_valid(icmp) {
        return Err(DiscardReason::TransportChecksumInvalid);
    }
    let (ident, sequence) = (u16_at(icmp, 4), u16_at(icmp, 6));
    emit_echo_reply(out, from, to, ident, sequence, &icmp[ICMP_HEADER_LEN..], ICMP_HOP_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    fn request_v4(payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([10, 0, 2, 100], [10, 0, 2, 2], 64)
            .icmpv4_echo_request(0x1234, 7)
            .write(&mut packet, payload)
            .unwrap();
        packet
    }

    fn request_v6(payload: &[u8]) -> Vec<u8> {
        let ours = core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets();
        let guest = core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 100).octets();
        let mut packet = Vec::new();
        PacketBuilder::ipv6(guest, ours, 64)
            .icmpv6_echo_request(0x1234, 7)
            .write(&mut packet, payload)
            .unwrap();
        packet
    }

    #[test]
    fn requests_of_every_size_come_back_byte_for_byte() {
        for len in [0, 1, 55, 56, 1472, 65_507] {
            let payload: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
            for request in [request_v4(&payload), request_v6(&payload)] {
                let mut out = vec![0xff; 3];
                handle_echo_request(&request, &mut out).unwrap();
                let sliced = SlicedPacket::from_ip(&out[3..]).unwrap();
                match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                    (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                        assert_eq!(ip.header().destination(), [10, 0, 2, 100]);
                        assert_eq!(ip.header().ttl(), 255);
                        let header = icmp.header();
                        assert_eq!(header.icmp_type.calc_checksum(icmp.payload()), header.checksum);
                        assert_eq!(icmp.payload(), payload);
                    }
                    (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                        let (source, destination) =
                            (ip.header().source(), ip.header().destination());
                        assert_eq!(destination[15], 100);
                        assert!(icmp.is_checksum_valid(source, destination));
                        assert_eq!(icmp.payload(), payload);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn request_that_announces_more_than_is_there_gets_nothing() {
        for mut request in [request_v4(b"payload"), request_v6(b"payload")] {
            request.truncate(request.len() - 1);
            let mut out = Vec::new();
            let result = handle_echo_request(&request, &mut out);
            assert_eq!(result, Err(DiscardReason::IpHeaderInvalid));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn wrong_checksum_gets_nothing() {
        for mut request in [request_v4(b"payload"), request_v6(b"payload")] {
            *request.last_mut().unwrap() ^= 1;
            let result = handle_echo_request(&request, &mut Vec::new());
            assert_eq!(result, Err(DiscardReason::TransportChecksumInvalid));
        }
    }

    #[test]
    fn reply_is_not_answered_again() {
        let mut reply = Vec::new();
        handle_echo_request(&request_v4(b"payload"), &mut reply).unwrap();
        let result = handle_echo_request(&reply, &mut Vec::new());
        assert_eq!(result, Err(DiscardReason::IcmpUnsupported));
    }
}
