//! The services of the link without a stack around them.

use super::*;
use crate::plan::Ipv6Plan;
use crate::service::ndp::announcement;
use crate::wire::frame::{IpHeader, pseudo_header_sum};
use crate::wire::ip::IPV6_HEADER_LEN;
use core::time::Duration;
use smoltcp::wire::{IpProtocol, checksum};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: [u8; 4] = [10, 0, 2, 100];
const NOW: Instant = Instant::ZERO;

struct Scene {
    link: LinkServices,
    outbox: Outbox,
    discards: DiscardCounters,
}

fn scene() -> Scene {
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let config = StackConfig { plan, ..StackConfig::default() };
    Scene {
        link: LinkServices::new(&config, 1),
        outbox: Outbox::new(&config, 2),
        discards: DiscardCounters::default(),
    }
}

fn flow(index: u32) -> FlowId {
    FlowId { index, generation: 1 }
}

impl Scene {
    fn frames(&mut self) -> usize {
        let mut count = 0;
        while self.outbox.pop().is_some() {
            count += 1;
        }
        count
    }

    fn wait_for(&mut self, guest: [u8; 4], flow: FlowId) -> Option<MacAddr> {
        self.link.wait_for(guest.into(), None, flow, &mut self.outbox, NOW).unwrap()
    }

    fn hold(&mut self, guest: [u8; 4], flow: FlowId, payload: &[u8]) {
        let udp = UdpToGuest {
            from: ([192, 0, 2, 1], 53).into(),
            to: (guest, 9).into(),
            mac: MacAddr::default(),
            payload,
            segment_len: None,
            traffic_class: 0,
        };
        let Self { link, outbox, discards } = self;
        link.hold(flow, None, udp, outbox, discards, NOW).unwrap();
    }

    /// The timer of inquiries, for flows of which the even ones still wait.
    fn ask_again(&mut self, now: Instant) {
        let Self { link, outbox, discards } = self;
        link.handle_inquiry_timeout(|flow| flow.index % 2 == 0, outbox, discards, now);
    }
}

#[test]
fn guest_is_asked_for_until_nothing_waits_for_it() {
    let mut scene = scene();
    assert_eq!(scene.link.ask_at(), None);
    assert_eq!(scene.wait_for(GUEST, flow(2)), None);
    assert_eq!(scene.wait_for([10, 0, 2, 101], flow(3)), None);
    assert_eq!((scene.link.ask_at(), scene.frames()), (Some(NOW + ASK_INTERVAL), 2));
    scene.ask_again(NOW + ASK_INTERVAL);
    let next = NOW + ASK_INTERVAL * 2;
    assert_eq!((scene.link.ask_at(), scene.frames()), (Some(next), 1), "flow 3 has gone");
    let Scene { link, outbox, discards } = &mut scene;
    link.handle_inquiry_timeout(|_| false, outbox, discards, next);
    assert_eq!((scene.link.ask_at(), scene.frames()), (None, 0));
}

#[test]
fn what_waits_is_told_once_per_question() {
    let mut scene = scene();
    scene.wait_for(GUEST, flow(2));
    scene.hold(GUEST, flow(4), b"first");
    scene.hold([10, 0, 2, 101], flow(6), b"another's");
    scene.hold(GUEST, flow(4), b"second");
    assert_eq!(scene.frames(), 2, "one question for each guest");
    let found = scene.link.learn(GUEST.into(), MAC, None);
    assert_eq!(found.flows, [flow(2)]);
    let payloads: Vec<_> = found.datagrams.iter().map(|held| &held.payload[..]).collect();
    assert_eq!(payloads, [&b"first"[..], b"second"]);
    let again = scene.link.learn(GUEST.into(), MAC, None);
    assert!(again.flows.is_empty() && again.datagrams.is_empty());
    scene.ask_again(NOW + ASK_INTERVAL);
    assert_eq!(scene.link.learn(GUEST.into(), MAC, None).flows, [flow(2)], "it may have moved");
    assert_eq!(scene.discards.value(DiscardReason::GuestNotFound), 1, "the other guest's");
}

#[test]
fn connection_to_a_known_guest_is_told_its_place_at_once() {
    let mut scene = scene();
    assert!(scene.link.learn(GUEST.into(), MAC, None).flows.is_empty());
    assert_eq!(scene.wait_for(GUEST, flow(2)), Some(MAC));
    assert_eq!(scene.frames(), 0);
    assert!(scene.link.learn(GUEST.into(), MAC, None).flows.is_empty());
    // No answer: perhaps the guest is somewhere else by now.
    scene.ask_again(NOW + ASK_INTERVAL);
    assert_eq!(scene.frames(), 1);
    assert_eq!(scene.link.learn(GUEST.into(), MAC, None).flows, [flow(2)]);
}

#[test]
fn too_many_guests_and_datagrams_are_not_waited_for() {
    let mut scene = scene();
    for index in 0..1_024_u16 {
        let [high, low] = index.to_be_bytes();
        let guest = [10, 1, high, low];
        assert_eq!(scene.link.check_waiting(guest.into(), None), Ok(()));
        scene.wait_for(guest, flow(2));
    }
    let full = Err(DiscardReason::GuestQueueFull);
    assert_eq!(scene.link.check_waiting([10, 2, 0, 0].into(), None), full);
    assert_eq!(scene.link.check_waiting([10, 1, 0, 0].into(), None), Ok(()), "asked for already");
    for _ in 0..=HELD_CAP {
        scene.hold([10, 1, 0, 0], flow(4), b"x");
    }
    assert_eq!(scene.discards.value(DiscardReason::GuestQueueFull), 1);
    let found = scene.link.learn([10, 1, 0, 0].into(), MAC, None);
    assert_eq!(found.datagrams.len(), HELD_CAP);
}

/// An announcement with another ICMPv6 type and without its options and target.
fn router_solicitation() -> Vec<u8> {
    let mut packet = announcement(MAC, crate::plan::link_local_made_from(MAC)).packet;
    packet.truncate(IPV6_HEADER_LEN + 8);
    packet[4..6].copy_from_slice(&[0, 8]);
    packet[IPV6_HEADER_LEN..].copy_from_slice(&[133, 0, 0, 0, 0, 0, 0, 0]);
    let ip = IpHeader::parse(&packet).unwrap();
    let pseudo = pseudo_header_sum(ip.source, ip.destination, IpProtocol::Icmpv6, 8);
    let sum = checksum::combine(&[pseudo, checksum::data(&packet[IPV6_HEADER_LEN..])]);
    packet[IPV6_HEADER_LEN + 2..IPV6_HEADER_LEN + 4].copy_from_slice(&(!sum).to_be_bytes());
    packet
}

#[test]
fn solicited_advertisement_comes_at_once_and_moves_the_next_one() {
    let mut scene = scene();
    let first_at = scene.link.advertise_at().unwrap();
    scene.link.handle_advertiser_timeout(&mut scene.outbox, NOW).unwrap();
    assert_eq!(scene.frames(), 0);
    scene.link.handle_advertiser_timeout(&mut scene.outbox, first_at).unwrap();
    assert_eq!(scene.frames(), 1);
    let solicitation = router_solicitation();
    let now = first_at + Duration::from_secs(5);
    let outcome = scene.link.handle_ndp(MAC, &solicitation, now).unwrap();
    assert!(matches!(outcome.answer, Some(Answer::Ndp(_))));
    // Asked for once more, it comes as soon as it may.
    let outcome = scene.link.handle_ndp(MAC, &solicitation, now).unwrap();
    assert!(outcome.answer.is_none());
    assert_eq!(scene.link.advertise_at(), Some(now + Duration::from_secs(3)));
}
