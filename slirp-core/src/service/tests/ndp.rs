//! Neighbour discovery as a guest sees it.

use super::*;
use crate::plan::Ipv6Plan;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscNeighborFlags, NdiscRepr};

const GUEST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);

fn plan() -> AddressPlan {
    AddressPlan::default().with_ipv6(Ipv6Plan::default())
}

fn handle(packet: &[u8]) -> Result<NdpOutcome, DiscardReason> {
    handle_ndp(&plan(), GUEST_MAC, packet)
}

/// A message of `icmp_type` about `target`, with the option `option` if there is one.
fn message(icmp_type: u8, flags: u8, target: Option<Ipv6Addr>, option: Option<u8>) -> Vec<u8> {
    let mut icmp = vec![icmp_type, 0, 0, 0, flags, 0, 0, 0];
    if let Some(target) = target {
        icmp.extend_from_slice(&target.octets());
    }
    if let Some(kind) = option {
        push_link_layer(&mut icmp, kind, GUEST_MAC);
    }
    icmp
}

fn solicit(source: Ipv6Addr, target: &str, option: Option<u8>) -> Vec<u8> {
    let target = target.parse().unwrap();
    let icmp = message(NEIGHBOR_SOLICITATION, 0, Some(target), option);
    icmpv6_packet(source, solicited_node(target), &icmp)
}

#[test]
fn each_of_our_addresses_is_answered() {
    for target in ["fd00::2", "fd00::3", "fe80::2", "fe80::3"] {
        let outcome = handle(&solicit(GUEST, target, Some(SOURCE_LINK_LAYER))).unwrap();
        assert_eq!(outcome.learned, Some((GUEST, GUEST_MAC)));
        assert!(!outcome.advertise);
        let reply = outcome.reply.unwrap();
        assert_eq!(reply.destination_mac, GUEST_MAC);
        let target: Ipv6Addr = target.parse().unwrap();
        assert_eq!(reply.source_mac, AddressPlan::mac_of(target.into()));
        let ip = Ipv6Packet::new_checked(&reply.packet[..]).unwrap();
        assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (target, GUEST, 255));
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        let repr = Icmpv6Repr::parse(&target, &GUEST, &icmp, &caps).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = repr
        else {
            panic!("{repr:?}");
        };
        assert_eq!(flags, NdiscNeighborFlags::all());
        assert_eq!(target_addr, target);
        assert_eq!(lladdr.unwrap().as_bytes(), reply.source_mac.0);
    }
}

#[test]
fn duplicate_detection_of_our_address_is_told_to_everyone() {
    let outcome = handle(&solicit(Ipv6Addr::UNSPECIFIED, "fe80::2", None)).unwrap();
    assert_eq!(outcome.learned, None);
    let reply = outcome.reply.unwrap();
    assert_eq!(reply.destination_mac, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(reply.packet[24..40], ALL_NODES.octets());
    assert_eq!(reply.packet[44], FLAG_ROUTER | FLAG_OVERRIDE);
}

#[test]
fn duplicate_detection_of_the_guests_own_address_finds_no_conflict() {
    let packet = solicit(Ipv6Addr::UNSPECIFIED, "fd00::64", None);
    assert_eq!(handle(&packet), Err(DiscardReason::NdpNotForUs));
}

#[test]
fn router_solicitation_asks_for_an_advertisement() {
    let routers = "ff02::2".parse().unwrap();
    let icmp = message(ROUTER_SOLICITATION, 0, None, Some(SOURCE_LINK_LAYER));
    let learned = Some((GUEST, GUEST_MAC));
    let outcome = NdpOutcome { learned, reply: None, advertise: true };
    assert_eq!(handle(&icmpv6_packet(GUEST, routers, &icmp)), Ok(outcome));
    let anonymous = icmpv6_packet(Ipv6Addr::UNSPECIFIED, routers, &icmp);
    assert_eq!(handle(&anonymous), Err(DiscardReason::NdpInvalid));
}

#[test]
fn advertisement_teaches_its_target_unless_it_is_ours() {
    let advert = |target: &str, flags| {
        let target = Some(target.parse().unwrap());
        let icmp = message(NEIGHBOR_ADVERTISEMENT, flags, target, Some(TARGET_LINK_LAYER));
        icmpv6_packet(GUEST, ALL_NODES, &icmp)
    };
    let address = "fd00::77".parse().unwrap();
    assert_eq!(handle(&advert("fd00::77", 0)).unwrap().learned, Some((address, GUEST_MAC)));
    assert_eq!(handle(&advert("fd00::2", 0)), Err(DiscardReason::NdpNotForUs));
    let solicited = handle(&advert("fd00::77", FLAG_SOLICITED));
    assert_eq!(solicited, Err(DiscardReason::NdpInvalid), "solicited, but to a group");
}

#[test]
fn each_rule_of_section_7_1_1_is_kept() {
    let good = solicit(GUEST, "fd00::2", Some(SOURCE_LINK_LAYER));
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        let pair = Located::parse(&packet).unwrap().pair;
        pair.fill_icmp_checksum(&mut packet[IPV6_HEADER_LEN..]);
        handle(&packet)
    };
    assert!(changed(7, 255).is_ok());
    assert_eq!(changed(7, 254), Err(DiscardReason::NdpInvalid), "hop limit");
    assert_eq!(changed(41, 1), Err(DiscardReason::NdpInvalid), "code");
    assert_eq!(changed(48, 0xff), Err(DiscardReason::NdpInvalid), "multicast target");
    assert_eq!(changed(65, 0), Err(DiscardReason::NdpInvalid), "option of no length");
    assert_eq!(changed(65, 2), Err(DiscardReason::NdpInvalid), "option beyond the end");
    let mut packet = good.clone();
    packet[42] ^= 1;
    assert_eq!(handle(&packet), Err(DiscardReason::NdpInvalid), "checksum");
    let anonymous = solicit(Ipv6Addr::UNSPECIFIED, "fd00::2", Some(SOURCE_LINK_LAYER));
    assert_eq!(handle(&anonymous), Err(DiscardReason::NdpInvalid), "option without a source");
    let icmp = message(NEIGHBOR_SOLICITATION, 0, Some("fd00::2".parse().unwrap()), None);
    let unicast = icmpv6_packet(Ipv6Addr::UNSPECIFIED, "fd00::2".parse().unwrap(), &icmp);
    assert_eq!(handle(&unicast), Err(DiscardReason::NdpInvalid), "DAD to one host");
    let short = icmpv6_packet(GUEST, ALL_NODES, &icmp[..20]);
    assert_eq!(handle(&short), Err(DiscardReason::NdpInvalid), "length");
}

#[test]
fn advertisements_of_routers_are_not_listened_to() {
    for icmp_type in [134, 137, 128] {
        let icmp = message(icmp_type, 0, Some(GUEST), None);
        let packet = icmpv6_packet(GUEST, ALL_NODES, &icmp);
        assert_eq!(handle(&packet), Err(DiscardReason::IcmpUnsupported));
    }
}

#[test]
fn without_ipv6_nothing_is_answered() {
    let packet = solicit(GUEST, "fd00::2", None);
    let result = handle_ndp(&AddressPlan::default(), GUEST_MAC, &packet);
    assert_eq!(result, Err(DiscardReason::Ipv6Disabled));
}

#[test]
fn our_own_question_is_well_formed() {
    let sent = solicitation(&plan(), GUEST).unwrap();
    assert_eq!(sent.destination_mac, MacAddr([0x33, 0x33, 0xff, 0, 0, 0x64]));
    assert_eq!(handle(&sent.packet), Err(DiscardReason::NdpNotForUs), "read, but not ours");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered_or_discarded(bytes: Vec<u8>, kind in 130_u8..140) {
        let _ = handle(&bytes);
        let mut icmp = bytes;
        if let Some(first) = icmp.first_mut() {
            *first = kind;
        }
        if icmp.len() >= 4 {
            icmp[1] = 0;
            let _ = handle(&icmpv6_packet(GUEST, ALL_NODES, &icmp));
        }
    }
}
