//! What the IP header around a datagram says, on its way out and in.

use etherparse::{IpHeaders, Ipv4Header, PacketBuilder};

use super::*;
use crate::discard::DiscardReason;
use crate::event::{Datagram, Envelope};

const GUEST: [u8; 4] = [10, 0, 2, 100];
const REMOTE: [u8; 4] = [192, 0, 2, 1];

/// A datagram of the guest with `len` bytes of payload.
fn ipv4(change: impl FnOnce(&mut Ipv4Header), len: usize) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, GUEST, REMOTE).unwrap();
    change(&mut header);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC.0, [0x52, 0x55, 10, 0, 2, 2])
        .ip(IpHeaders::Ipv4(header, Default::default()))
        .udp(5000, 9)
        .write(&mut frame, &vec![7; len])
        .unwrap();
    frame
}

fn ipv6(to: &str, hop_limit: u8, traffic_class: u8, len: usize) -> Vec<u8> {
    let [from, to] = ["fd00::64", to].map(|text| text.parse::<core::net::Ipv6Addr>().unwrap());
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC.0, [0x52, 0x55, 10, 0, 2, 2])
        .ipv6(from.octets(), to.octets(), hop_limit)
        .udp(5000, 9)
        .write(&mut frame, &vec![7; len])
        .unwrap();
    frame[14] |= traffic_class >> 4;
    frame[15] |= traffic_class << 4;
    frame
}

fn envelope(ladder: &mut Ladder, mut frame: Vec<u8>) -> Option<Envelope> {
    match ladder.stack.handle_frame(&mut frame, ladder.now)? {
        Datagram::Udp { envelope, .. } => Some(envelope),
        other @ (Datagram::InboundUdp { .. } | Datagram::Echo { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn header_of_a_datagram_is_passed_on_one_hop_further() {
    let mut ladder = Ladder::new();
    let plain = Envelope { hop_limit: 63, traffic_class: 0, dont_fragment: false };
    assert_eq!(envelope(&mut ladder, ipv4(|ip| ip.dont_fragment = false, 100)), Some(plain));
    let whole = Envelope { dont_fragment: true, ..plain };
    assert_eq!(envelope(&mut ladder, ipv4(|ip| ip.dont_fragment = true, 1472)), Some(whole));
    assert_eq!(envelope(&mut ladder, ipv4(|ip| ip.dont_fragment = true, 1473)), Some(plain));
    let marked = envelope(&mut ladder, ipv6("2001:db8::1", 9, 0xbb, 1452));
    let expected = Envelope { hop_limit: 8, traffic_class: 0xbb, dont_fragment: true };
    assert_eq!(marked, Some(expected));
}

#[test]
fn what_the_guest_has_fragmented_itself_may_be_fragmented() {
    let mut ladder = Ladder::with(config());
    let whole = ipv6("2001:db8::1", 64, 0, 1400);
    let mut lent = None;
    for mut packet in crate::wire::fragmentation::fragments(&whole[14..], 1280, 7) {
        let mut frame = whole[..14].to_vec();
        frame.append(&mut packet);
        assert_eq!(lent, None);
        lent = envelope(&mut ladder, frame);
    }
    assert_eq!(lent.map(|envelope| envelope.dont_fragment), Some(false));
}

#[test]
fn datagrams_to_a_group_keep_their_hop_limit() {
    let mut ladder = Ladder::new();
    for (hop_limit, sent) in [(0, 1), (1, 1), (4, 4), (255, 255)] {
        let mut group = ipv4(|ip| ip.time_to_live = hop_limit, 100);
        group[30..34].copy_from_slice(&[239, 255, 255, 250]);
        let packet = &mut group[14..];
        packet[10..12].fill(0);
        packet[26..28].fill(0);
        let sum = !smoltcp::wire::checksum::data(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let passed = envelope(&mut ladder, group).map(|envelope| envelope.hop_limit);
        assert_eq!(passed, Some(sent));
        let passed = envelope(&mut ladder, ipv6("ff05::c", hop_limit, 0, 100));
        assert_eq!(passed.map(|envelope| envelope.hop_limit), Some(sent));
    }
    assert_eq!(envelope(&mut ladder, ipv4(|ip| ip.time_to_live = 1, 100)), None);
    assert_eq!(ladder.stack.stats().discards.value(DiscardReason::HopLimitExceeded), 1);
}

#[test]
fn marks_of_the_network_reach_the_guest() {
    let mut ladder = Ladder::new();
    let mut frame = ipv4(|_| {}, 100);
    let Some(Datagram::Udp { flow, remote, .. }) =
        ladder.stack.handle_frame(&mut frame, ladder.now)
    else {
        panic!("a datagram");
    };
    ladder.stack.handle_udp_from_host(flow, remote, b"marked", None, 3, ladder.now);
    let heard = ladder.turn();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].packet[1], 3);
}
