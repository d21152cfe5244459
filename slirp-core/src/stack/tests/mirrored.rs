//! A guest with the host's own addresses, frame by frame.

use core::net::Ipv4Addr;

use etherparse::PacketBuilder;

use super::*;
use crate::config::{Personality, Told};
use crate::event::Datagram;
use crate::plan::{MIRROR_MAC, Mirrored, MirroredFamily};
use crate::service::{arp, ndp};
use crate::wire::frame::is_transport_checksum_valid;
use crate::wire::udp::emit_datagram;

const GUEST: [u8; 4] = [192, 0, 2, 77];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Podman's plan: neither gateway nor loopback means the host, 169.254.1.2 does.
fn config() -> StackConfig {
    let v4 = MirroredFamily {
        gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
        host_itself: Some(Ipv4Addr::new(169, 254, 1, 2)),
        resolver: Some(Ipv4Addr::new(169, 254, 1, 1)),
        ..MirroredFamily::new(GUEST.into(), 24)
    };
    let v6 = MirroredFamily {
        gateway: Some("fe80::1".parse().unwrap()),
        ..MirroredFamily::new("2001:db8::77".parse().unwrap(), 64)
    };
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let personality = Personality::Single(Told::default());
    StackConfig { plan, personality, ..StackConfig::default() }
}

/// An ARP request of `sender` at `mac` for `target`.
fn who_has(mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = [[255; 6], mac].concat();
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target);
    frame
}

fn ping(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(MAC.0, MIRROR_MAC.0)
        .ipv4(from, to, 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, b"echo")
        .unwrap();
    frame
}

fn udp(from: &str, to: &str) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut frame = [MIRROR_MAC.0, MAC.0].concat();
    frame.extend_from_slice(if from.is_ipv4() { &[8, 0] } else { &[0x86, 0xdd] });
    emit_datagram(&mut frame, from, to, 64, 0, b"word").unwrap();
    frame
}

/// Where a datagram of the guest goes.
fn sent_to(ladder: &mut Ladder, mut frame: Vec<u8>) -> Option<SocketAddr> {
    match ladder.stack.handle_frame(&mut frame, ladder.now)? {
        Datagram::Udp { remote, .. } => Some(remote),
        Datagram::Echo { remote, .. } => Some(SocketAddr::new(remote, 0)),
        other @ Datagram::InboundUdp { .. } => panic!("{other:?}"),
    }
}

/// The ARP reply to a request: its MAC address and whom it is about.
fn arp_reply(ladder: &mut Ladder, request: &[u8]) -> Option<([u8; 6], [u8; 4])> {
    let mut frame = request.to_vec();
    assert!(ladder.stack.handle_frame(&mut frame, ladder.now).is_none());
    let reply = ladder.stack.poll_frame(ladder.now)?;
    assert_eq!(reply[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    assert_eq!(reply[6..12], reply[22..28], "the frame comes from whom the reply names");
    Some((reply[22..28].try_into().unwrap(), reply[28..32].try_into().unwrap()))
}

#[test]
fn arp_is_answered_for_everyone_but_the_stations_on_the_link() {
    let mut ladder = Ladder::with(config());
    let ours = |target| Some((MIRROR_MAC.0, target));
    for target in [[192, 0, 2, 1], [192, 0, 2, 5], [203, 0, 113, 1], [169, 254, 1, 2]] {
        assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, target)), ours(target));
    }
    let (probed, unset) = ([192, 0, 2, 9], [0; 4]);
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, unset, probed)), ours(probed));
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, unset, GUEST)), None);
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, probed, probed)), None);
    // It has announced that address, which is its own from now on: to others, and to a probe.
    assert_eq!(arp_reply(&mut ladder, &who_has(OTHER, [192, 0, 2, 8], probed)), None);
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, unset, probed)), None);
    // A station that asks for an address which it had itself has given it up.
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, probed)), ours(probed));
}

#[test]
fn neighbor_solicitation_is_answered_for_everyone_and_not_where_that_is_off() {
    let solicit = |target: &str| {
        let mac = MacAddr(OTHER);
        let asker = AddressPlan::mirrored(&Mirrored {
            ipv6: Some(MirroredFamily::new("fe80::9".parse().unwrap(), 64)),
            our_mac: mac,
            ..Mirrored::default()
        });
        let asked = ndp::solicitation(&asker.unwrap(), target.parse().unwrap()).unwrap();
        let mut frame = [asked.destination_mac.0, asked.source_mac.0].concat();
        frame.extend_from_slice(&[0x86, 0xdd]);
        frame.extend_from_slice(&asked.packet);
        frame
    };
    for (target, is_answered) in
        [("2001:db8::5", true), ("2606::1", true), ("fe80::1", true), ("2001:db8::77", false)]
    {
        let mut ladder = Ladder::with(config());
        let heard = ladder.frame(&solicit(target));
        assert_eq!(heard.len(), usize::from(is_answered), "{target}");
        for reply in heard {
            assert_eq!(reply.ethernet.source, MIRROR_MAC);
            // Router, solicited and override; then the target, and our MAC address.
            let icmp = &reply.packet[40..];
            assert_eq!((icmp[0], icmp[4]), (136, 0xe0));
            assert_eq!(icmp[8..24], target.parse::<core::net::Ipv6Addr>().unwrap().octets());
            assert_eq!(icmp[24..32], [&[2, 1], &MIRROR_MAC.0[..]].concat());
        }
    }
    let mut silent = config();
    silent.silence.ndp = true;
    assert!(Ladder::with(silent).frame(&solicit("fe80::1")).is_empty());
}

#[test]
fn gateway_and_neighbors_are_pinged_themselves_and_the_hosts_other_name_here() {
    let mut ladder = Ladder::with(config());
    for remote in [[192, 0, 2, 1], [192, 0, 2, 5], [169, 254, 1, 1]] {
        let to = sent_to(&mut ladder, ping(GUEST, remote));
        assert_eq!(to, Some(SocketAddr::from((remote, 0))));
    }
    let heard = ladder.frame(&ping(GUEST, [169, 254, 1, 2]));
    assert_eq!(heard[0].packet[20], 0, "an echo reply");
}

#[test]
fn loopback_is_dropped_on_either_side_without_a_word() {
    let mut ladder = Ladder::with(config());
    for (from, to, reason) in [
        ("127.0.0.1:9", "198.51.100.1:9", DiscardReason::SourceAddressInvalid),
        ("192.0.2.77:9", "127.0.0.1:9", DiscardReason::DestinationUnroutable),
        ("[::1]:9", "[2001:db8::1]:9", DiscardReason::SourceAddressInvalid),
        ("[2001:db8::77]:9", "[::1]:9", DiscardReason::DestinationUnroutable),
    ] {
        let before = ladder.discards(reason);
        assert!(ladder.frame(&udp(from, to)).is_empty(), "{from} to {to}");
        assert_eq!(ladder.discards(reason), before + 1, "{from} to {to}");
    }
    let own = sent_to(&mut ladder, udp("192.0.2.77:9", "169.254.1.2:9"));
    assert_eq!(own, Some("192.0.2.77:9".parse().unwrap()));
}

/// The destination of the SYN to the guest for a connection of `client`, and its shown source.
fn reached(ladder: &mut Ladder, client: &str, guest: &str) -> (SocketAddr, SocketAddr) {
    let origin = came_through(1, client.parse().unwrap());
    ladder.stack.handle_tcp_accepted(origin, guest.parse().unwrap(), ladder.now).unwrap();
    let heard = ladder.turn();
    ends(&heard).expect("the guest was heard")
}

/// Destination and source of the first segment.
fn ends(heard: &[Heard]) -> Option<(SocketAddr, SocketAddr)> {
    let packet = &heard.iter().find(|heard| heard.tcp.is_some())?.packet;
    let ip = IpHeader::parse(packet).unwrap();
    let segment = crate::tcp::Segment::parse(&ip, packet).unwrap();
    Some((segment.destination, segment.source))
}

#[test]
fn published_port_follows_a_guest_that_takes_another_address() {
    let mut ladder = Ladder::with(config());
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (to, rule) = ([198, 51, 100, 1], "192.0.2.77:80");
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, [192, 0, 2, 1])).is_some());
    let first = reached(&mut ladder, "198.51.100.9:5000", rule);
    assert_eq!(first, (socket(rule), socket("198.51.100.9:5000")));
    // Another address, which it never announces.
    sent_to(&mut ladder, ping([192, 0, 2, 99], to)).unwrap();
    let origin = came_through(1, socket("198.51.100.9:5001"));
    ladder.stack.handle_tcp_accepted(origin, socket(rule), ladder.now).unwrap();
    let heard = ladder.turn();
    assert_eq!(heard[0].packet[24..28], [192, 0, 2, 99], "it is asked for: {heard:?}");
    // It answers, by an ARP request of its own.
    let heard = ladder.frame(&who_has(MAC.0, [192, 0, 2, 99], [192, 0, 2, 1]));
    let (to, _) = ends(&heard).expect("it gets the connection");
    assert_eq!(to, socket("192.0.2.99:80"));
}

/// It need not ask for anybody: its router's address may be in its cache.
#[test]
fn published_port_follows_a_guest_out_of_its_network() {
    let mut ladder = Ladder::with(config());
    sent_to(&mut ladder, ping([10, 77, 0, 5], [198, 51, 100, 1])).unwrap();
    let (to, from) = reached(&mut ladder, "198.51.100.9:5000", "192.0.2.77:80");
    assert_eq!((to, from), ("10.77.0.5:80".parse().unwrap(), "198.51.100.9:5000".parse().unwrap()));
}

#[test]
fn datagrams_of_a_remote_follow_the_guest_and_are_answered() {
    let mut ladder = Ladder::with(config());
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let (client, rule) = ("198.51.100.9:5000", socket("192.0.2.77:80"));
    let origin = came_through(1, socket(client));
    for guest in [[192, 0, 2, 77], [192, 0, 2, 99]] {
        ladder.frame(&who_has(MAC.0, guest, [192, 0, 2, 1]));
        ladder.stack.handle_inbound_udp(origin, rule, b"word", None, 0, ladder.now);
        let heard = ladder.turn();
        assert_eq!(heard[0].packet[16..20], guest);
        assert_eq!(heard[0].ethernet.source, MIRROR_MAC);
        let answer = udp(&SocketAddr::from((guest, 80)).to_string(), client);
        let mut frame = answer;
        let sent = ladder.stack.handle_frame(&mut frame, ladder.now);
        assert!(matches!(sent, Some(Datagram::InboundUdp { origin: to, .. }) if to == origin));
    }
}

#[test]
fn remote_on_the_hosts_link_is_answered_under_the_address_that_the_guest_wrote() {
    let mut config = config();
    let mirrored = Mirrored {
        ipv6: Some(MirroredFamily::new("2001:db8::77".parse().unwrap(), 64)),
        host_link: Some(7),
        ..Mirrored::default()
    };
    config.plan = AddressPlan::mirrored(&mirrored).unwrap();
    let mut ladder = Ladder::with(config);
    let mut frame = udp("[fe80::9]:9", "[fe80::5]:53");
    let sent = ladder.stack.handle_frame(&mut frame, ladder.now);
    let Some(Datagram::Udp { flow, remote, .. }) = sent else { panic!("{sent:?}") };
    assert_eq!(remote, "[fe80::5%7]:53".parse().unwrap());
    ladder.stack.handle_udp_from_host(flow, remote, b"answer", None, 0, ladder.now);
    let heard = ladder.turn();
    let from: core::net::Ipv6Addr = "fe80::5".parse().unwrap();
    assert_eq!(heard[0].packet[8..24], from.octets());
}

#[test]
fn host_is_shown_by_its_other_name_or_as_the_gateway() {
    let mut ladder = Ladder::with(config());
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, [192, 0, 2, 1])).is_some());
    for (client, shown) in [
        ("192.0.2.77:5000", "169.254.1.2:5000"),
        ("127.0.0.1:5001", "192.0.2.1:5001"),
        ("192.0.2.5:5002", "192.0.2.5:5002"),
    ] {
        let (_, from) = reached(&mut ladder, client, "192.0.2.77:80");
        assert_eq!(from, shown.parse().unwrap(), "{client}");
    }
}

#[test]
fn silent_protocols_are_dropped_and_the_link_still_works() {
    let mut config = config();
    config.silence.tcp = true;
    config.silence.udp = true;
    config.silence.echo = true;
    let mut ladder = Ladder::with(config);
    let syn = Draft {
        flags: SYN,
        ..Draft::new("192.0.2.77:9".parse().unwrap(), "198.51.100.1:80".parse().unwrap())
    };
    for frame in [
        syn.frame(MAC),
        udp("192.0.2.77:9", "198.51.100.1:9"),
        udp("192.0.2.77:9", "169.254.1.1:53"),
        ping(GUEST, [198, 51, 100, 1]),
        ping(GUEST, [169, 254, 1, 2]),
    ] {
        assert!(ladder.frame(&frame).is_empty());
    }
    assert_eq!(ladder.discards(DiscardReason::ProtocolDisabled), 5);
    assert!(ladder.connects.is_empty() && ladder.queries.is_empty());
    let gateway = [192, 0, 2, 1];
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, gateway)).is_some());
    assert_eq!(ladder.frame(&discover()).len(), 1, "the guest gets an address");
}

#[test]
fn file_transfer_service_is_only_where_slirp4netns_has_it() {
    let mut ladder = Ladder::with(config());
    let to = sent_to(&mut ladder, udp("192.0.2.77:9", "192.0.2.1:69"));
    assert_eq!(to, Some("192.0.2.1:69".parse().unwrap()));
}

#[test]
fn frames_ask_for_a_guest_as_the_gateway() {
    let config = config();
    let asked = arp::who_has(&config.plan, GUEST.into());
    assert_eq!(asked[6..12], MIRROR_MAC.0);
    assert_eq!(asked[28..32], [192, 0, 2, 1]);
}

/// The same guest after its host has moved to another network.
fn moved() -> AddressPlan {
    let v4 = MirroredFamily {
        gateway: Some(Ipv4Addr::new(198, 51, 100, 254)),
        host_itself: Some(Ipv4Addr::new(169, 254, 1, 2)),
        resolver: Some(Ipv4Addr::new(169, 254, 1, 1)),
        ..MirroredFamily::new(Ipv4Addr::new(198, 51, 100, 7), 24)
    };
    let v6 = MirroredFamily {
        gateway: Some("fe80::1".parse().unwrap()),
        ..MirroredFamily::new("2001:db8:7::7".parse().unwrap(), 64)
    };
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    AddressPlan::mirrored(&mirrored).unwrap()
}

impl Ladder {
    /// The host has another network, and the guest is told of this resolver.
    fn adopt(&mut self, plan: AddressPlan) {
        let told = Told { dns: vec!["203.0.113.53".parse().unwrap()], ..Told::default() };
        self.stack.adopt_plan(plan, Personality::Single(told), Vec::new(), self.now);
    }
}

#[test]
fn another_plan_holds_for_what_begins_and_flows_go_on() {
    let mut ladder = Ladder::with(config());
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let host_itself = udp("192.0.2.77:9", "169.254.1.2:9");
    assert_eq!(sent_to(&mut ladder, host_itself), Some(socket("192.0.2.77:9")));
    let flow = ladder.stack.flows(0, 8, ladder.now).0.next().unwrap().id;
    ladder.adopt(moved());

    // The host is another one for what begins now, and the same for what has begun.
    let host_itself = udp("198.51.100.7:9", "169.254.1.2:9");
    assert_eq!(sent_to(&mut ladder, host_itself), Some(socket("198.51.100.7:9")));
    let host = socket("192.0.2.77:9");
    ladder.stack.handle_udp_from_host(flow, host, b"late", None, 0, ladder.now);
    let heard = ladder.turn();
    let reply = heard.iter().find(|heard| heard.packet.ends_with(b"late")).expect("it arrives");
    assert_eq!(reply.packet[12..20], [169, 254, 1, 2, 192, 0, 2, 77]);

    // The guest's new address is its own; its old one is anybody's.
    let new = [198, 51, 100, 7];
    assert_eq!(arp_reply(&mut ladder, &who_has(MAC.0, [0; 4], new)), None);
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, new, GUEST)).is_some());
    let heard = ladder.frame(&discover());
    assert_eq!(heard[0].packet[28 + 16..][..4], new, "DHCP offers it");
    let resolver = [6, 4, 203, 0, 113, 53];
    assert!(heard[0].packet.windows(6).any(|option| option == resolver), "and the resolver");
}

#[test]
fn published_port_leads_to_the_address_of_another_plan() {
    let mut ladder = Ladder::with(config());
    let socket = |text: &str| -> SocketAddr { text.parse().unwrap() };
    let rule = "192.0.2.77:80";
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, GUEST, [192, 0, 2, 1])).is_some());
    reached(&mut ladder, "203.0.113.9:5000", rule);
    ladder.adopt(moved());
    let new = [198, 51, 100, 7];
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, new, [198, 51, 100, 254])).is_some());
    let (to, _) = reached(&mut ladder, "203.0.113.9:5001", rule);
    assert_eq!(to, socket("198.51.100.7:80"));
    // A guest that has taken another address by itself is still followed.
    assert!(arp_reply(&mut ladder, &who_has(MAC.0, [10, 0, 0, 9], GUEST)).is_some());
    sent_to(&mut ladder, ping([10, 0, 0, 9], [203, 0, 113, 1])).unwrap();
    ladder.adopt(AddressPlan::mirrored(&again()).unwrap());
    assert_eq!(reached(&mut ladder, "203.0.113.9:5002", rule).0, socket("10.0.0.9:80"));
}

/// A third network, of IPv4.
fn again() -> Mirrored {
    let v4 = MirroredFamily::new(Ipv4Addr::new(203, 0, 113, 77), 24);
    Mirrored { ipv4: Some(v4), ..Mirrored::default() }
}

/// A DHCP client's first message.
fn discover() -> Vec<u8> {
    discover_from("0.0.0.0:68", "255.255.255.255:67")
}

fn discover_from(from: &str, to: &str) -> Vec<u8> {
    let mut discover = vec![0; 236];
    discover[..4].copy_from_slice(&[1, 1, 6, 0]);
    discover[28..34].copy_from_slice(&MAC.0);
    discover.extend_from_slice(&[99, 130, 83, 99, 53, 1, 1, 255]);
    let mut frame = [[255; 6], MAC.0].concat();
    frame.extend_from_slice(&[8, 0]);
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    emit_datagram(&mut frame, from, to, 64, 0, &discover).unwrap();
    frame
}

#[test]
fn lease_is_told_to_a_guest_with_any_address_or_none() {
    for from in ["0.0.0.0:68", "192.0.2.77:68", "192.0.2.9:68", "10.9.8.7:1068"] {
        for to in ["255.255.255.255:67", "192.0.2.1:67"] {
            let mut ladder = Ladder::with(config());
            let heard = ladder.frame(&discover_from(from, to));
            let [offer] = &heard[..] else { panic!("{from} to {to}: {heard:?}") };
            assert_eq!((offer.ethernet.source, offer.ethernet.destination), (MIRROR_MAC, MAC));
            assert_eq!(offer.packet[12..24], [192, 0, 2, 1, 192, 0, 2, 77, 0, 67, 0, 68]);
            let ip = IpHeader::parse(&offer.packet).unwrap();
            assert!(is_transport_checksum_valid(&ip, &offer.packet[20..]));
            assert_eq!(ladder.stack.stats().discards.total(), 0, "{from} to {to}");
        }
    }
}

#[test]
fn ipv6_guest_hears_of_its_router_and_gets_its_address_there() {
    let mut ladder = Ladder::with(config());
    let guest: core::net::Ipv6Addr = "fe80::9".parse().unwrap();
    let routers: core::net::Ipv6Addr = "ff02::2".parse().unwrap();
    let mut solicitation = Vec::new();
    PacketBuilder::ethernet2(MAC.0, [0x33, 0x33, 0, 0, 0, 2])
        .ipv6(guest.octets(), routers.octets(), 255)
        .icmpv6_raw(133, 0, [0; 4])
        .write(&mut solicitation, &[])
        .unwrap();
    let heard = ladder.frame(&solicitation);
    let [advertisement] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(advertisement.ethernet.destination, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(advertisement.ethernet.source, MIRROR_MAC);
    let router: core::net::Ipv6Addr = "fe80::1".parse().unwrap();
    assert_eq!(advertisement.packet[8..24], router.octets());
    // Managed, a router for 65535 seconds.
    assert_eq!(advertisement.packet[40..48][4..], [64, 0x80, 255, 255]);

    // The next one, without a question.
    let (due, _) = ladder.stack.poll_timeout().unwrap();
    let interval = due.saturating_since(ladder.now);
    assert!((200..=600).contains(&interval.as_secs()), "{interval:?}");

    // SOLICIT with a client's identifier and an association.
    let solicit = b"\x01\xab\xcd\xef\0\x01\0\x0a\0\x03\0\x01\x02\0\0\0\0\x01\0\x03\0\x0c\0\0\0\x07\
                    \0\0\0\0\0\0\0\0";
    let mut frame = [&[0x33, 0x33, 0, 1, 0, 2], &MAC.0[..], &[0x86, 0xdd]].concat();
    let to = "[ff02::1:2]:547".parse().unwrap();
    emit_datagram(&mut frame, SocketAddr::new(guest.into(), 546), to, 1, 0, solicit).unwrap();
    let heard = ladder.frame(&frame);
    let [advertise] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((advertise.ethernet.source, advertise.ethernet.destination), (MIRROR_MAC, MAC));
    assert_eq!(advertise.packet[8..40], [router.octets(), guest.octets()].concat());
    assert_eq!(advertise.packet[40..44], [0x02, 0x23, 0x02, 0x22], "ports 547 and 546");
    assert_eq!(advertise.packet[48..52], [2, 0xab, 0xcd, 0xef]);
    let address: core::net::Ipv6Addr = "2001:db8::77".parse().unwrap();
    assert!(advertise.packet.windows(16).any(|bytes| bytes == address.octets()));
    assert_eq!(ladder.stack.stats().discards.total(), 0);
}

proptest::proptest! {
    #[test]
    fn no_frame_of_a_mirrored_guest_panics(
        kind in 0_usize..4,
        bytes: Vec<u8>,
        cut in 0_usize..120,
    ) {
        let frames = [
            who_has(MAC.0, GUEST, [192, 0, 2, 5]),
            ping(GUEST, [192, 0, 2, 5]),
            udp("192.0.2.77:68", "255.255.255.255:67"),
            udp("[fe80::9]:546", "[ff02::1:2]:547"),
        ];
        let mut frame = frames[kind].clone();
        frame.truncate(cut);
        frame.extend_from_slice(&bytes);
        let mut stack = Stack::new(config());
        let _ = stack.handle_frame(&mut frame, Instant::ZERO);
        while stack.poll_frame(Instant::ZERO).is_some() {}
    }
}
