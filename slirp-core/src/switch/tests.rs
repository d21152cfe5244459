//! The switch, frame by frame: who gets what, and what a hostile member gets away with.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::tenure::{ADDRESSES_CAP, MACS_CAP};
use super::*;
use crate::plan::{Ipv6Plan, SlirpNetwork};
use crate::service::{arp, ndp};
use crate::wire::udp::emit_datagram;
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VnetHeader};

const GATEWAY: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);

fn plan() -> AddressPlan {
    AddressPlan::default().with_ipv6(Ipv6Plan::default())
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn v6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last))
}

fn member(last: u8) -> Member {
    Member {
        mac: mac(last),
        address: Ipv4Addr::new(10, 0, 2, last),
        address6: Some(v6(last)),
        names: Vec::new(),
        aliases: Vec::new(),
    }
}

/// A switch with the members .100, .101 and .102 on ports 0, 1 and 2.
fn switch() -> Switch {
    let mut switch = Switch::new(plan());
    for last in 100..103 {
        assert_eq!(switch.connect(&member(last)), Ok(usize::from(last - 100)));
    }
    switch
}

fn framed(from: MacAddr, to: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = VnetHeader::default().emit().to_vec();
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn datagram(from: MacAddr, to: MacAddr, source: &str, destination: &str) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let mut packet = Vec::new();
    emit_datagram(&mut packet, source, destination, 64, 0, b"payload").unwrap();
    framed(from, to, if source.is_ipv4() { 0x0800 } else { 0x86dd }, &packet)
}

fn arp(
    request: bool,
    sender: (MacAddr, &str),
    target: &str,
    from: MacAddr,
    to: MacAddr,
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, if request { 1 } else { 2 }];
    packet.extend_from_slice(&sender.0.0);
    packet.extend_from_slice(&sender.1.parse::<Ipv4Addr>().unwrap().octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target.parse::<Ipv4Addr>().unwrap().octets());
    framed(from, to, 0x0806, &packet)
}

fn to_port(port: PortIndex) -> Result<Route, DiscardReason> {
    Ok(Route { to_stack: false, to: Recipients::Port(port) })
}

const TO_STACK: Result<Route, DiscardReason> = Ok(Route { to_stack: true, to: Recipients::Nobody });
const TO_OTHERS: Result<Route, DiscardReason> =
    Ok(Route { to_stack: false, to: Recipients::Others });
const TO_ALL: Result<Route, DiscardReason> = Ok(Route { to_stack: true, to: Recipients::Others });

#[test]
fn frames_go_to_whom_they_are_for() {
    let mut switch = switch();
    for (to, destination, route) in [
        (mac(101), "10.0.2.101:9", to_port(1)),
        (mac(102), "10.0.2.102:9", to_port(2)),
        (GATEWAY, "192.0.2.1:9", TO_STACK),
        (MacAddr::BROADCAST, "10.0.2.255:9", TO_ALL),
        (MacAddr([1, 0, 0x5e, 0, 0, 1]), "224.0.0.1:9", TO_ALL),
        (mac(77), "10.0.2.101:9", Err(DiscardReason::MemberUnknown)),
        (mac(100), "10.0.2.100:9", Err(DiscardReason::MemberUnknown)),
    ] {
        let frame = datagram(mac(100), to, "10.0.2.100:5", destination);
        assert_eq!(switch.handle_frame(0, &frame), route, "{to}");
    }
    let frame = datagram(mac(100), mac(101), "[fd00::64]:5", "[fd00::65]:9");
    assert_eq!(switch.handle_frame(0, &frame), to_port(1));
    let frame = datagram(mac(101), mac(100), "[fe80::1:5]:5", "[fe80::1:6]:9");
    assert_eq!(switch.handle_frame(1, &frame), to_port(0), "link-local addresses work");
}

#[test]
fn frames_of_the_stack_leave_by_the_port_of_their_destination() {
    let mut switch = switch();
    let frame = |to| framed(GATEWAY, to, 0x0800, &[]);
    assert_eq!(switch.route_from_stack(&frame(mac(102))), Ok(Recipients::Port(2)));
    assert_eq!(switch.route_from_stack(&frame(MacAddr::BROADCAST)), Ok(Recipients::Others));
    let unknown = Err(DiscardReason::MemberUnknown);
    assert_eq!(switch.route_from_stack(&frame(mac(77))), unknown);
    switch.disconnect(2);
    assert_eq!(switch.route_from_stack(&frame(mac(102))), unknown);
    assert_eq!(switch.route_from_stack(&[0; 12]), Err(DiscardReason::FrameTruncated));
}

#[test]
fn questions_about_our_addresses_are_the_stacks_and_others_the_members() {
    let mut switch = switch();
    let own = (mac(100), "10.0.2.100");
    let ask = |target| arp(true, own, target, mac(100), MacAddr::BROADCAST);
    assert_eq!(switch.handle_frame(0, &ask("10.0.2.2")), TO_STACK);
    assert_eq!(switch.handle_frame(0, &ask("10.0.2.3")), TO_STACK);
    assert_eq!(switch.handle_frame(0, &ask("10.0.2.101")), TO_OTHERS);
    assert_eq!(switch.handle_frame(0, &ask("10.0.2.100")), TO_ALL, "it announces itself");
    let probe = arp(true, (mac(100), "0.0.0.0"), "10.0.2.100", mac(100), MacAddr::BROADCAST);
    assert_eq!(switch.handle_frame(0, &probe), TO_OTHERS);
    let answer = arp(false, own, "10.0.2.101", mac(100), mac(101));
    assert_eq!(switch.handle_frame(0, &answer), to_port(1));
}

#[test]
fn nobody_uses_the_ethernet_address_of_others_or_ours() {
    let mut switch = switch();
    for foreign in [mac(101), GATEWAY, MacAddr([0x52, 0x55, 10, 0, 2, 3])] {
        let frame = datagram(foreign, mac(102), "10.0.2.100:5", "10.0.2.102:9");
        assert_eq!(switch.handle_frame(0, &frame), Err(DiscardReason::MemberMacForeign));
        let claim = arp(false, (foreign, "10.0.2.100"), "10.0.2.102", mac(100), mac(102));
        assert_eq!(switch.handle_frame(0, &claim), Err(DiscardReason::MemberMacForeign));
    }
    for ours in [Ipv6Plan::default().gateway(), Ipv6Plan::GATEWAY_LINK_LOCAL] {
        let mac = AddressPlan::mac_of(IpAddr::V6(ours));
        let frame = datagram(mac, GATEWAY, "10.0.2.100:5", "192.0.2.1:9");
        assert_eq!(switch.handle_frame(0, &frame), Err(DiscardReason::MemberMacForeign));
    }
}

#[test]
fn addresses_made_from_a_members_ethernet_address_are_its_alone_from_the_start() {
    let mut switch = Switch::new(plan());
    switch.connect(&member(100)).unwrap();
    // Whoever took them beforehand has them no longer.
    let made = ["fe80::ff:fe00:65", "fd00::ff:fe00:65"];
    let speak = |last: u8, source: &str| {
        datagram(mac(last), mac(100 + (101 - last)), &format!("[{source}]:5"), "[fe80::1:6]:9")
    };
    assert_eq!(switch.handle_frame(0, &speak(100, made[0])), Err(DiscardReason::MemberUnknown));
    switch.connect(&member(101)).unwrap();
    for source in made {
        let refused = Err(DiscardReason::MemberAddressForeign);
        assert_eq!(switch.handle_frame(0, &speak(100, source)), refused, "{source}");
        assert_eq!(switch.handle_frame(1, &speak(101, source)), to_port(0), "{source}");
    }
    let released = switch.disconnect(1);
    for source in made {
        assert!(released.addresses.contains(&source.parse().unwrap()), "{source}");
    }
}

#[test]
fn ethernet_address_stays_with_who_used_it_first() {
    let mut switch = switch();
    let extra = mac(9);
    let frame = |port: u8| datagram(extra, GATEWAY, &format!("10.0.2.{port}:5"), "192.0.2.1:9");
    assert_eq!(switch.handle_frame(0, &frame(100)), TO_STACK);
    assert_eq!(switch.handle_frame(1, &frame(101)), Err(DiscardReason::MemberMacForeign));
    let released = switch.disconnect(0);
    assert!(released.macs.contains(&extra) && released.macs.contains(&mac(100)));
    assert_eq!(switch.handle_frame(1, &frame(101)), TO_STACK, "free again with its member");
}

#[test]
fn nobody_speaks_from_the_address_of_others_or_ours() {
    let mut switch = switch();
    for source in ["10.0.2.101:5", "10.0.2.2:5", "10.0.2.3:53", "10.0.2.200:5", "10.0.2.255:5"] {
        for to in [mac(102), GATEWAY, MacAddr::BROADCAST] {
            let frame = datagram(mac(100), to, source, "10.0.2.102:9");
            let refused = Err(DiscardReason::MemberAddressForeign);
            assert_eq!(switch.handle_frame(0, &frame), refused, "{source}");
        }
    }
    for source in ["[fd00::65]:5", "[fd00::2]:5", "[fe80::3]:5"] {
        let frame = datagram(mac(100), mac(102), source, "[fd00::66]:9");
        let refused = Err(DiscardReason::MemberAddressForeign);
        assert_eq!(switch.handle_frame(0, &frame), refused, "{source}");
    }
    for source in ["127.0.0.1:5", "224.0.0.1:5", "255.255.255.255:5", "0.0.0.0:5"] {
        let frame = datagram(mac(100), mac(102), source, "10.0.2.102:9");
        let refused = Err(DiscardReason::SourceAddressInvalid);
        assert_eq!(switch.handle_frame(0, &frame), refused, "{source}");
    }
}

#[test]
fn nested_address_stays_with_who_used_it_first() {
    let mut switch = switch();
    let frame = |last| datagram(mac(last), GATEWAY, "172.17.0.2:5", "192.0.2.1:9");
    assert_eq!(switch.handle_frame(0, &frame(100)), TO_STACK);
    assert_eq!(switch.handle_frame(1, &frame(101)), Err(DiscardReason::MemberAddressForeign));
    switch.disconnect(0);
    assert_eq!(switch.handle_frame(1, &frame(101)), TO_STACK);
}

#[test]
fn announcements_of_what_others_or_we_have_are_discarded() {
    let mut switch = switch();
    for claimed in ["10.0.2.101", "10.0.2.2", "10.0.2.3", "10.0.2.50"] {
        for request in [true, false] {
            let gratuitous =
                arp(request, (mac(100), claimed), claimed, mac(100), MacAddr::BROADCAST);
            let refused = Err(DiscardReason::MemberAddressForeign);
            assert_eq!(switch.handle_frame(0, &gratuitous), refused, "{claimed}");
        }
    }
    for claimed in [v6(101), v6(2), v6(3), Ipv6Plan::GATEWAY_LINK_LOCAL] {
        let announced = ndp::announcement(mac(100), claimed);
        // From an address of its own, about somebody else's.
        let mut packet = announced.packet.clone();
        packet[8..24].copy_from_slice(&v6(100).octets());
        for packet in [announced.packet, packet] {
            let frame = framed(mac(100), announced.destination_mac, 0x86dd, &packet);
            let refused = Err(DiscardReason::MemberAddressForeign);
            assert_eq!(switch.handle_frame(0, &frame), refused, "{claimed}");
        }
    }
    let own = ndp::announcement(mac(100), v6(100));
    let frame = framed(mac(100), own.destination_mac, 0x86dd, &own.packet);
    assert_eq!(switch.handle_frame(0, &frame), TO_ALL);
    let other_mac = ndp::announcement(mac(101), v6(100));
    let frame = framed(mac(100), own.destination_mac, 0x86dd, &other_mac.packet);
    assert_eq!(switch.handle_frame(0, &frame), Err(DiscardReason::MemberMacForeign));
    let own = arp::announcement(mac(100), Ipv4Addr::new(10, 0, 2, 100));
    let frame = [&VnetHeader::default().emit()[..], &own].concat();
    assert_eq!(switch.handle_frame(0, &frame), TO_ALL);
}

/// An ICMPv6 message of `kind` with `options`, behind `extension` bytes of extension headers.
fn icmpv6(kind: u8, options: &[u8], extension: usize) -> Vec<u8> {
    let body = if kind == 133 { 8 } else { 24 };
    let mut payload = Vec::new();
    if extension > 0 {
        payload.extend_from_slice(&[58, 0, 1, 4, 0, 0, 0, 0]);
    }
    payload.push(kind);
    payload.resize(payload.len() + 7, 0);
    payload.extend_from_slice(&v6(101).octets());
    payload.truncate(extension + body);
    payload.extend_from_slice(options);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend_from_slice(&[if extension > 0 { 60 } else { 58 }, 255]);
    packet.extend_from_slice(&v6(100).octets());
    packet.extend_from_slice(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend_from_slice(&payload);
    framed(mac(100), MacAddr([0x33, 0x33, 0, 0, 0, 1]), 0x86dd, &packet)
}

#[test]
fn neighbour_discovery_hides_nothing() {
    let mut switch = switch();
    let own = [&[1, 1][..], &mac(100).0].concat();
    let foreign = [&[1, 1][..], &mac(101).0].concat();
    assert_eq!(switch.handle_frame(0, &icmpv6(135, &own, 0)), TO_OTHERS);
    assert_eq!(switch.handle_frame(0, &icmpv6(133, &own, 0)), TO_STACK);
    for (frame, reason) in [
        (icmpv6(135, &foreign, 0), DiscardReason::MemberMacForeign),
        (icmpv6(135, &[own.clone(), foreign].concat(), 0), DiscardReason::NdpInvalid),
        (icmpv6(135, &[1, 0], 0), DiscardReason::NdpInvalid),
        (icmpv6(135, &[1, 9], 0), DiscardReason::NdpInvalid),
        (icmpv6(135, &own, 8), DiscardReason::NdpInvalid),
    ] {
        assert_eq!(switch.handle_frame(0, &frame), Err(reason));
    }
}

#[test]
fn no_member_is_a_router_or_a_dhcp_server() {
    let mut switch = switch();
    let forbidden = Err(DiscardReason::MemberRoleForbidden);
    for kind in [134, 137] {
        for extension in [0, 8] {
            assert_eq!(switch.handle_frame(0, &icmpv6(kind, &[], extension)), forbidden);
        }
    }
    let offer = datagram(mac(100), mac(101), "10.0.2.100:67", "255.255.255.255:68");
    assert_eq!(switch.handle_frame(0, &offer), forbidden);
    let offer = datagram(mac(100), mac(101), "[fe80::9]:547", "[fe80::8]:546");
    assert_eq!(switch.handle_frame(0, &offer), forbidden);
    let mut redirect = datagram(mac(100), mac(101), "10.0.2.100:1280", "10.0.2.101:9");
    // The UDP header becomes that of an ICMP redirect: type 5 is the first byte of port 1280.
    redirect[10 + 14 + 9] = 1;
    redirect[10 + 14 + 10..10 + 14 + 12].fill(0);
    let sum = !smoltcp::wire::checksum::data(&redirect[24..44]);
    redirect[34..36].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(switch.handle_frame(0, &redirect), forbidden);
}

#[test]
fn fragments_hide_no_role() {
    let mut switch = switch();
    // A fragment header in front of an ICMPv6 message: offset 0, more fragments follow.
    let fragmented = |mut frame: Vec<u8>, next: u8| {
        frame[10 + 14 + 6] = 44;
        let len = u16::from_be_bytes([frame[28], frame[29]]) + 8;
        frame[28..30].copy_from_slice(&len.to_be_bytes());
        let header = [next, 0, 0, 1, 0, 0, 0, 9];
        frame.splice(64..64, header);
        frame
    };
    for kind in [134, 135, 136, 137] {
        let frame = fragmented(icmpv6(kind, &[], 0), 58);
        assert_eq!(switch.handle_frame(0, &frame), Err(DiscardReason::NdpInvalid), "{kind}");
    }
    let chained = fragmented(icmpv6(134, &[], 8), 60);
    let refused = Err(DiscardReason::ExtensionHeaderInvalid);
    assert_eq!(switch.handle_frame(0, &chained), refused);
    let to_all = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    let offer = datagram(mac(100), to_all, "[fe80::9]:547", "[ff02::1]:546");
    let forbidden = Err(DiscardReason::MemberRoleForbidden);
    assert_eq!(switch.handle_frame(0, &fragmented(offer, 17)), forbidden);
    let plain = datagram(mac(100), mac(101), "[fd00::64]:5", "[fd00::65]:9");
    assert_eq!(switch.handle_frame(0, &fragmented(plain, 17)), to_port(1));
}

#[test]
fn question_for_an_address_goes_to_the_stack_alone() {
    let mut switch = switch();
    let discover = datagram(mac(100), MacAddr::BROADCAST, "0.0.0.0:68", "255.255.255.255:67");
    assert_eq!(switch.handle_frame(0, &discover), TO_STACK);
    let to = MacAddr([0x33, 0x33, 0, 1, 0, 2]);
    let solicit = datagram(mac(100), to, "[fe80::9]:546", "[ff02::1:2]:547");
    assert_eq!(switch.handle_frame(0, &solicit), TO_STACK);
}

#[test]
fn header_that_does_not_fit_its_frame_goes_nowhere() {
    let mut switch = switch();
    let invalid = Err(DiscardReason::VnetHeaderInvalid);
    let good = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso: Gso::Udp,
        hdr_len: 0,
        gso_size: 4,
        csum_start: 34,
        csum_offset: 6,
    };
    let mut frame = datagram(mac(100), mac(101), "10.0.2.100:5", "10.0.2.101:9");
    for (vnet, route) in [
        (good, to_port(1)),
        (VnetHeader { gso_size: 0, ..good }, invalid),
        (VnetHeader { gso: Gso::TcpV4, ..good }, invalid),
        (VnetHeader { csum_start: 60_000, ..good }, invalid),
        (VnetHeader { flags: 0, ..good }, invalid),
    ] {
        frame[..10].copy_from_slice(&vnet.emit());
        assert_eq!(switch.handle_frame(0, &frame), route, "{vnet:?}");
    }
    let mut asks = arp(true, (mac(100), "10.0.2.100"), "10.0.2.101", mac(100), mac(101));
    asks[..10].copy_from_slice(&good.emit());
    assert_eq!(switch.handle_frame(0, &asks), invalid);
    let other = framed(mac(100), mac(101), 0x8100, &[0; 60]);
    assert_eq!(switch.handle_frame(0, &other), Err(DiscardReason::EtherTypeUnsupported));
}

#[test]
fn flood_of_addresses_hurts_only_its_member() {
    let mut switch = switch();
    let exhausted = Err(DiscardReason::MemberAddressesExhausted);
    for index in 0..=u8::MAX {
        let from = MacAddr([6, 0, 0, 0, 0, index]);
        let frame = datagram(from, GATEWAY, "10.0.2.100:5", "192.0.2.1:9");
        let expected = if usize::from(index) < MACS_CAP - 1 { TO_STACK } else { exhausted };
        assert_eq!(switch.handle_frame(0, &frame), expected, "{index}");
    }
    for index in 0..2000_u16 {
        let source = format!("172.16.{}.{}:5", index >> 8, index & 0xff);
        let frame = datagram(mac(100), GATEWAY, &source, "192.0.2.1:9");
        // Its own four count as well.
        let expected = if usize::from(index) < ADDRESSES_CAP - 4 { TO_STACK } else { exhausted };
        assert_eq!(switch.handle_frame(0, &frame), expected, "{source}");
    }
    let own = datagram(mac(100), mac(101), "10.0.2.100:5", "10.0.2.101:9");
    assert_eq!(switch.handle_frame(0, &own), to_port(1), "what it was assigned is its own");
    let other = datagram(mac(101), GATEWAY, "172.18.0.1:5", "192.0.2.1:9");
    assert_eq!(switch.handle_frame(1, &other), TO_STACK);
}

#[test]
fn assignment_comes_before_first_use() {
    let mut switch = switch();
    let squatted = datagram(mac(103), GATEWAY, "[fd00::67]:5", "[2001:db8::1]:9");
    assert_eq!(switch.handle_frame(0, &squatted), TO_STACK);
    assert_eq!(switch.connect(&member(103)), Ok(3));
    assert_eq!(switch.handle_frame(0, &squatted), Err(DiscardReason::MemberMacForeign));
    let by_address = datagram(mac(100), GATEWAY, "[fd00::67]:5", "[2001:db8::1]:9");
    let refused = Err(DiscardReason::MemberAddressForeign);
    assert_eq!(switch.handle_frame(0, &by_address), refused);
    assert_eq!(switch.handle_frame(3, &squatted), TO_STACK);
}

#[test]
fn second_member_of_the_same_address_is_refused_and_changes_nothing() {
    let mut switch = switch();
    let same_mac = Member { mac: mac(100), ..member(104) };
    assert_eq!(switch.connect(&same_mac), Err(MemberError::MacTaken(mac(100))));
    let same_address = Member { address: member(100).address, ..member(104) };
    let taken = MemberError::AddressTaken(member(100).address.into());
    assert_eq!(switch.connect(&same_address), Err(taken));
    let same_address6 = Member { address6: member(100).address6, ..member(104) };
    let taken = MemberError::AddressTaken(v6(100).into());
    assert_eq!(switch.connect(&same_address6), Err(taken));
    let ours = Member { mac: GATEWAY, ..member(104) };
    assert_eq!(switch.connect(&ours), Err(MemberError::Mac(GATEWAY)));
    assert_eq!(switch.connect(&member(104)), Ok(3), "no part of it was taken before");
}

#[test]
fn full_switch_refuses_and_a_free_port_is_used_again() {
    let mut switch = Switch::new(SlirpNetwork::new(Ipv4Addr::new(10, 0, 0, 0), 16).unwrap().into());
    let nth = |index: u16| {
        let [high, low] = (index + 100).to_be_bytes();
        Member {
            mac: MacAddr([2, 0, 0, 0, high, low]),
            address: Ipv4Addr::new(10, 0, high, low),
            address6: None,
            ..member(0)
        }
    };
    for index in 0..256 {
        assert_eq!(switch.connect(&nth(index)), Ok(usize::from(index)));
    }
    assert_eq!(switch.connect(&nth(256)), Err(MemberError::TooMany));
    let released = switch.disconnect(7);
    assert_eq!(released.macs, [nth(7).mac]);
    assert_eq!(switch.connect(&nth(7)), Ok(7));
}

/// No sender that the frame names is another member or one of us.
fn assert_speaks_for_itself(frame: &[u8]) {
    let frame = &frame[10..];
    let of_others = [mac(101), mac(102), GATEWAY, MacAddr([0x52, 0x55, 10, 0, 2, 3])];
    let is_others = |bytes: &[u8]| of_others.iter().any(|mac| mac.0 == *bytes);
    assert!(!is_others(&frame[6..12]), "Ethernet source");
    let sender = match frame[12..14] {
        [8, 6] => {
            assert!(!is_others(&frame[22..28]), "ARP sender");
            &frame[28..32]
        }
        [8, 0] => &frame[26..30],
        _ => &frame[22..38],
    };
    for last in [101, 102, 2, 3] {
        assert_ne!(sender, &[10, 0, 2, last][..], "IPv4 sender");
        assert_ne!(sender, &v6(last).octets()[..], "IPv6 sender");
    }
}

proptest::proptest! {
    #[test]
    fn any_frame_is_routed_or_discarded(bytes: Vec<u8>, at in 0_usize..60) {
        let mut switch = switch();
        let _ = switch.handle_frame(0, &bytes);
        let _ = switch.route_from_stack(&bytes);
        for mut frame in [
            datagram(mac(100), mac(101), "10.0.2.100:5", "10.0.2.101:9"),
            icmpv6(135, &[1, 1, 2, 0, 0, 0, 0, 100], 0),
            arp(true, (mac(100), "10.0.2.100"), "10.0.2.101", mac(100), mac(101)),
        ] {
            for (to, from) in frame.iter_mut().skip(at).zip(&bytes) {
                *to = *from;
            }
            if switch.handle_frame(0, &frame).is_ok() {
                assert_speaks_for_itself(&frame);
            }
        }
    }
}
