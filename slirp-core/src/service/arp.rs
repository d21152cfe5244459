//! ARP towards the guest (RFC 826, RFC 5227).
//!
//! Owns the answers for our addresses, and what is learnt about guests. Which addresses those are
//! is decided by the plan ([`AddressPlan::answers_for`]): by default the ones with a meaning, so
//! that a guest's probe for its own address finds no conflict. The table of what was learnt is
//! [`NeighborTable`](super::neighbor::NeighborTable).

use core::net::{IpAddr, Ipv4Addr};

use super::neighbor::is_single_guest;
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::plan::{AddressPlan, Family};

/// Length of an Ethernet frame with an ARP packet in bytes, without padding.
pub(crate) const ARP_FRAME_LEN: usize = 42;

/// Ethernet type of ARP, then: Ethernet, IPv4, their address lengths.
const PREFIX: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// What an ARP packet led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArpOutcome {
    /// The sender, when it told its own address.
    pub learned: Option<(Ipv4Addr, MacAddr)>,
    /// The whole frame to answer with.
    pub reply: Option<[u8; ARP_FRAME_LEN]>,
}

/// Takes a whole Ethernet frame that carries ARP.
///
/// # Errors
/// [`DiscardReason::ArpInvalid`] when it is truncated or not Ethernet/IPv4 ARP,
/// [`DiscardReason::ArpNotForUs`] when there is nothing to answer and nothing to learn.
pub(crate) fn handle_arp(plan: &AddressPlan, frame: &[u8]) -> Result<ArpOutcome, DiscardReason> {
    let arp = frame.first_chunk::<ARP_FRAME_LEN>().ok_or(DiscardReason::ArpInvalid)?;
    let sender_mac = mac_at(arp, 22);
    if arp[12..20] != PREFIX || arp[20] != 0 || !sender_mac.is_valid_source() {
        return Err(DiscardReason::ArpInvalid);
    }
    let (sender, target) = (address_at(arp, 28), address_at(arp, 38));
    let broadcast = plan.ipv4().and_then(Family::broadcast);
    let learned = (is_single_guest(IpAddr::V4(sender))
        && Some(sender) != broadcast
        && !plan.is_ours(IpAddr::V4(sender)))
    .then_some((sender, sender_mac));
    match arp[21] {
        REQUEST if plan.answers_for(IpAddr::V4(target), IpAddr::V4(sender)) => {
            let reply = emit(
                REPLY,
                (plan.mac_for(IpAddr::V4(target)), target),
                (sender_mac, sender),
                mac_at(arp, 6),
            );
            Ok(ArpOutcome { learned, reply: Some(reply) })
        }
        REQUEST if sender == target && learned.is_some() => Ok(ArpOutcome { learned, reply: None }),
        REPLY if learned.is_some() => Ok(ArpOutcome { learned, reply: None }),
        REQUEST | REPLY => Err(DiscardReason::ArpNotForUs),
        _ => Err(DiscardReason::ArpInvalid),
    }
}

/// The address that a reply is about, and who has asked for it.
pub(crate) fn answered(reply: &[u8; ARP_FRAME_LEN]) -> (Ipv4Addr, (Ipv4Addr, MacAddr)) {
    (address_at(reply, 28), (address_at(reply, 38), mac_at(reply, 32)))
}

/// A frame in which the gateway asks everyone for the MAC address of `target`.
pub(crate) fn who_has(plan: &AddressPlan, target: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    // Without a gateway this is a probe, which a guest answers too (RFC 5227 section 1.1).
    let gateway = plan.ipv4().and_then(Family::stand_in).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let ours = (plan.our_mac(IpAddr::V4(target)), gateway);
    emit(REQUEST, ours, (MacAddr([0; 6]), target), MacAddr::BROADCAST)
}

/// A frame in which the station at `mac` tells everyone that it has `address` from now on (RFC
/// 5227 section 3).
#[cfg(feature = "host")]
pub(crate) fn announcement(mac: MacAddr, address: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    emit(REQUEST, (mac, address), (MacAddr([0; 6]), address), MacAddr::BROADCAST)
}

fn emit(
    operation: u8,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
    destination: MacAddr,
) -> [u8; ARP_FRAME_LEN] {
    let mut frame = [0; ARP_FRAME_LEN];
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&sender.0.0);
    frame[12..20].copy_from_slice(&PREFIX);
    frame[21] = operation;
    frame[22..28].copy_from_slice(&sender.0.0);
    frame[28..32].copy_from_slice(&sender.1.octets());
    frame[32..38].copy_from_slice(&target.0.0);
    frame[38..42].copy_from_slice(&target.1.octets());
    frame
}

fn mac_at(frame: &[u8; ARP_FRAME_LEN], at: usize) -> MacAddr {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[at..at + 6]);
    MacAddr(mac)
}

const fn address_at(frame: &[u8; ARP_FRAME_LEN], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame};

    const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ask(operation: u8, sender: &str, target: &str) -> [u8; ARP_FRAME_LEN] {
        let sender = (GUEST, sender.parse().unwrap());
        emit(operation, sender, (MacAddr([0; 6]), target.parse().unwrap()), MacAddr::BROADCAST)
    }

    fn handle(operation: u8, sender: &str, target: &str) -> Result<ArpOutcome, DiscardReason> {
        handle_arp(&AddressPlan::default(), &ask(operation, sender, target))
    }

    #[test]
    fn gateway_and_dns_are_answered_with_their_own_mac() {
        for last in [2, 3] {
            let target = Ipv4Addr::new(10, 0, 2, last);
            let outcome = handle(REQUEST, "10.0.2.100", &target.to_string()).unwrap();
            assert_eq!(outcome.learned, Some((Ipv4Addr::new(10, 0, 2, 100), GUEST)));
            let frame = outcome.reply.unwrap();
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            assert_eq!(ethernet.dst_addr(), EthernetAddress(GUEST.0));
            let repr = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap());
            let ours = EthernetAddress([0x52, 0x55, 10, 0, 2, last]);
            assert_eq!(ethernet.src_addr(), ours);
            assert_eq!(
                repr,
                Ok(ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr: ours,
                    source_protocol_addr: target,
                    target_hardware_addr: EthernetAddress(GUEST.0),
                    target_protocol_addr: Ipv4Addr::new(10, 0, 2, 100),
                })
            );
        }
    }

    #[test]
    fn probe_for_our_address_is_answered_and_teaches_nothing() {
        let outcome = handle(REQUEST, "0.0.0.0", "10.0.2.2").unwrap();
        assert!(outcome.reply.is_some());
        assert_eq!(outcome.learned, None);
    }

    #[test]
    fn probe_for_the_guests_own_address_finds_no_conflict() {
        for target in ["10.0.2.100", "10.0.2.50", "192.0.2.1"] {
            assert_eq!(handle(REQUEST, "0.0.0.0", target), Err(DiscardReason::ArpNotForUs));
        }
    }

    #[test]
    fn gratuitous_requests_and_replies_teach_the_sender() {
        let learned = Some((Ipv4Addr::new(10, 0, 2, 77), GUEST));
        let outcome = Ok(ArpOutcome { learned, reply: None });
        assert_eq!(handle(REQUEST, "10.0.2.77", "10.0.2.77"), outcome);
        assert_eq!(handle(REPLY, "10.0.2.77", "10.0.2.2"), outcome);
    }

    #[test]
    fn nobody_becomes_our_address_or_a_broadcast() {
        for sender in ["10.0.2.2", "10.0.2.3", "0.0.0.0", "255.255.255.255", "10.0.2.255"] {
            assert_eq!(handle(REPLY, sender, "10.0.2.2"), Err(DiscardReason::ArpNotForUs));
            assert_eq!(handle(REQUEST, sender, "10.0.2.2").unwrap().learned, None);
        }
    }

    #[test]
    fn truncated_frames_of_every_length_are_discarded() {
        let frame = ask(REQUEST, "10.0.2.100", "10.0.2.2");
        for len in 0..ARP_FRAME_LEN {
            let result = handle_arp(&AddressPlan::default(), &frame[..len]);
            assert_eq!(result, Err(DiscardReason::ArpInvalid));
        }
    }

    #[test]
    fn gateway_asks_everyone() {
        let frame = who_has(&AddressPlan::default(), Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(frame[..12], [255, 255, 255, 255, 255, 255, 0x52, 0x55, 10, 0, 2, 2]);
        assert_eq!(frame[20..22], [0, REQUEST]);
        assert_eq!(frame[38..], [10, 0, 2, 100]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered_or_discarded(bytes: Vec<u8>, operation in 0_u8..4) {
            let _ = handle_arp(&AddressPlan::default(), &bytes);
            let mut frame = ask(operation, "10.0.2.100", "10.0.2.2").to_vec();
            for (to, from) in frame[21..].iter_mut().zip(&bytes) {
                *to = *from;
            }
            let _ = handle_arp(&AddressPlan::default(), &frame);
        }
    }
}
