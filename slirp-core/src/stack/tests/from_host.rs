//! What host sockets report, and how the guest hears of it.

use super::*;
use crate::event::{Datagram, DatagramError, ForwardId, Origin};
use crate::wire::icmp::emit_echo_quote;
use crate::wire::udp::emit_datagram;

const ROUTER: &str = "198.51.100.7";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The guest sends a datagram. Returns its flow, and where it leaves for.
fn send(ladder: &mut Ladder, from: &str, to: &str) -> (FlowId, SocketAddr) {
    let mut packet = Vec::new();
    emit_datagram(&mut packet, address(from), address(to), 64, 0, b"question").unwrap();
    match ladder.stack.handle_frame(&mut frame_around(&packet, MAC), ladder.now) {
        Some(Datagram::Udp { flow, remote, .. }) => (flow, remote),
        other => panic!("{other:?}"),
    }
}

/// The guest sends an echo request with identifier 77 and sequence number 3.
fn ping(ladder: &mut Ladder, from: &str, to: &str) -> FlowId {
    let mut packet = Vec::new();
    emit_echo_quote(&mut packet, ip(from), ip(to), 77, 3);
    match ladder.stack.handle_frame(&mut frame_around(&packet, MAC), ladder.now) {
        Some(Datagram::Echo { flow, .. }) => flow,
        other => panic!("{other:?}"),
    }
}

/// A remote sends a datagram to a published port; the guest is known already.
fn receive(ladder: &mut Ladder, client: &str, guest: &str) -> FlowId {
    ladder.stack.on_neighbor(ip("10.0.2.100"), MAC);
    let (client, guest) = (address(client), address(guest));
    let origin = Origin { rule: ForwardId(1), client, local: client };
    ladder.stack.handle_inbound_udp(origin, guest, b"question", None, 0, ladder.now);
    assert_eq!(ladder.turn().len(), 1);
    ladder.stack.flows.iter().last().unwrap().meta.id
}

/// An ICMP error that the guest has received.
#[derive(PartialEq, Eq, Debug)]
struct Told {
    from: IpAddr,
    kind: (u8, u8),
    info: u32,
    quote: Vec<u8>,
}

/// The only packet of a turn; `None` when there is no packet.
fn told(ladder: &mut Ladder) -> Option<Told> {
    let heard = ladder.turn();
    assert!(heard.len() <= 1, "{heard:?}");
    let packet = &heard.first()?.packet;
    let header = IpHeader::parse(packet).unwrap();
    let icmp = &packet[header.header_len..];
    assert_eq!(heard[0].ethernet.destination, MAC);
    assert_eq!(icmp[8] >> 4, packet[0] >> 4, "a packet of the guest is quoted");
    Some(Told {
        from: header.source,
        kind: (icmp[0], icmp[1]),
        info: u32::from_be_bytes(*icmp[4..].first_chunk().unwrap()),
        quote: icmp[8..].to_vec(),
    })
}

/// Where the quoted packet of the guest went.
fn quoted_destination(told: &Told) -> SocketAddr {
    let header = IpHeader::parse(&told.quote).unwrap();
    let at = header.header_len + 2;
    SocketAddr::new(header.destination, u16::from_be_bytes([told.quote[at], told.quote[at + 1]]))
}

const fn refusal(remote: SocketAddr) -> DatagramError {
    DatagramError {
        remote,
        offender: None,
        icmp_type: 0,
        icmp_code: 0,
        info: 0,
        error: HostError::Refused,
    }
}

#[test]
fn refused_datagram_is_told_by_the_address_that_the_guest_wrote() {
    for (from, written, reached, kind) in [
        ("10.0.2.100:5000", "10.0.2.2:7", "127.0.0.1:7", (3, 3)),
        ("10.0.2.100:5000", "192.0.2.1:9", "192.0.2.1:9", (3, 3)),
        ("[fd00::64]:5000", "[fd00::2]:7", "[::1]:7", (1, 4)),
    ] {
        let mut ladder = Ladder::new();
        let (flow, remote) = send(&mut ladder, from, written);
        assert_eq!(remote, address(reached));
        ladder.stack.handle_udp_undelivered(flow, &refusal(remote), b"question");
        let told = told(&mut ladder).unwrap();
        assert_eq!((told.from, told.kind), (address(written).ip(), kind));
        assert_eq!(quoted_destination(&told), address(written));
        assert!(told.quote.ends_with(b"question"));
        assert_eq!(ladder.stack.stats().discards.total(), 0);
    }
}

#[test]
fn error_comes_from_the_complainant_unless_a_guest_would_drop_it_as_a_martian() {
    let unreachable = |offender: Option<&str>| DatagramError {
        offender: offender.map(ip),
        icmp_type: 3,
        icmp_code: 1,
        error: HostError::HostUnreachable,
        ..refusal(address("192.0.2.1:9"))
    };
    for (offender, from) in [
        (Some(ROUTER), ROUTER),
        (Some("192.0.2.1"), "192.0.2.1"),
        (Some("127.0.0.1"), "10.0.2.2"),
        (Some("2001:db8::7"), "10.0.2.2"),
        (None, "10.0.2.2"),
    ] {
        let mut ladder = Ladder::new();
        let (flow, _) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
        ladder.stack.handle_udp_undelivered(flow, &unreachable(offender), b"");
        let told = told(&mut ladder).unwrap();
        assert_eq!((told.from, told.kind), (ip(from), (3, 1)), "{offender:?}");
    }
    // A loopback address is ours alone: the guest has written another one for it.
    for (from, written, offender) in
        [("10.0.2.100:5000", "10.0.2.2:7", "127.0.0.1"), ("[fe80::64]:5000", "[fe80::2]:7", "::1")]
    {
        let mut ladder = Ladder::new();
        let (flow, remote) = send(&mut ladder, from, written);
        assert_eq!(remote.ip(), ip(offender));
        let own = DatagramError { remote, ..unreachable(Some(offender)) };
        ladder.stack.handle_udp_undelivered(flow, &own, b"");
        assert_eq!(told(&mut ladder).unwrap().from, address(written).ip());
    }
}

#[test]
fn word_of_a_router_is_passed_on_as_it_came() {
    let mut ladder = Ladder::new();
    let (flow, remote) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
    let too_big = DatagramError {
        offender: Some(ip(ROUTER)),
        icmp_type: 3,
        icmp_code: 4,
        info: 1280,
        error: HostError::TooLarge(Some(1280)),
        ..refusal(remote)
    };
    ladder.stack.handle_udp_undelivered(flow, &too_big, b"");
    let word = told(&mut ladder).unwrap();
    assert_eq!((word.from, word.kind, word.info), (ip(ROUTER), (3, 4), 1280));
    // A traceroute of the guest lives on these.
    let echo = ping(&mut ladder, "10.0.2.100", "192.0.2.1");
    let expired = DatagramError {
        offender: Some(ip(ROUTER)),
        icmp_type: 11,
        error: HostError::HostUnreachable,
        ..refusal(address("192.0.2.1:0"))
    };
    ladder.stack.handle_echo_undelivered(echo, &expired, 3);
    let word = told(&mut ladder).unwrap();
    assert_eq!((word.from, word.kind), (ip(ROUTER), (11, 0)));
    // Type, identifier and sequence number: what ping finds its request by.
    assert_eq!((word.quote[20], &word.quote[24..28]), (8, &[0, 77, 0, 3][..]));
    assert_eq!(word.quote[16..20], [192, 0, 2, 1]);
}

#[test]
fn each_datagram_that_was_not_sent_counts_and_the_guest_is_told_once() {
    let mut ladder = Ladder::new();
    let (flow, remote) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
    let fail = |ladder: &mut Ladder, error, count| {
        ladder.stack.handle_udp_unsent(flow, remote, error, b"start", 1400, count);
        told(ladder)
    };
    let told = fail(&mut ladder, HostError::NetworkUnreachable, 3).unwrap();
    assert_eq!((told.from, told.kind), (ip("10.0.2.2"), (3, 0)));
    assert_eq!(told.quote[2..4], 1428_u16.to_be_bytes(), "as long as the datagram was");
    assert!(told.quote.ends_with(b"start"));
    assert_eq!(ladder.discards(DiscardReason::HostSendFailed), 3);
    let told = fail(&mut ladder, HostError::TooLarge(Some(1300)), 1).unwrap();
    assert_eq!((told.kind, told.info), ((3, 4), 1300));
    assert_eq!(ladder.discards(DiscardReason::HostSendFailed), 4);
    // That the host has no room is no fault of the remote's.
    assert_eq!(fail(&mut ladder, HostError::Exhausted, 2), None);
    assert_eq!(ladder.discards(DiscardReason::HostResourcesExhausted), 2);
    assert_eq!(ladder.discards(DiscardReason::HostSendFailed), 4);
    assert_eq!(ladder.stack.stats().flows, 1, "the next one may get through");
}

#[test]
fn answer_to_a_remote_that_is_gone_is_told_by_the_address_that_the_guest_knows() {
    for (client, shown) in
        [("198.51.100.2:700", "198.51.100.2:700"), ("127.0.0.1:700", "10.0.2.2:700")]
    {
        let mut ladder = Ladder::new();
        let flow = receive(&mut ladder, client, "10.0.2.100:53");
        ladder.stack.handle_udp_undelivered(flow, &refusal(address(client)), b"answer");
        let told = told(&mut ladder).unwrap();
        assert_eq!((told.from, told.kind), (address(shown).ip(), (3, 3)), "{client}");
        assert_eq!(quoted_destination(&told), address(shown), "{client}");
    }
}

#[test]
fn word_about_a_flow_that_is_gone_reaches_nobody() {
    let mut ladder = Ladder::new();
    let (first, remote) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
    ladder.stack.close_flow(first, Ending::Idle, ladder.now);
    // Its slot belongs to another guest's port by now.
    let (next, _) = send(&mut ladder, "10.0.2.100:5001", "192.0.2.1:9");
    assert_eq!(first.index, next.index);
    let (stack, now) = (&mut ladder.stack, ladder.now);
    stack.handle_udp_from_host(first, remote, b"answer", None, 0, now);
    stack.handle_echo_reply(first, remote.ip(), 3, b"answer", None, now);
    stack.handle_udp_undelivered(first, &refusal(remote), b"");
    stack.handle_echo_undelivered(first, &refusal(remote), 3);
    stack.handle_tcp_connected(first, Ok(()), now);
    stack.handle_tcp_connected(first, Err(HostError::Refused), now);
    assert!(ladder.turn().is_empty());
    assert_eq!(ladder.discards(DiscardReason::HostDatagramNoFlow), 2);
    assert_eq!(ladder.stack.stats().discards.total(), 2);
    assert_eq!((ladder.stack.stats().flows, ladder.stack.stats().tcp_failed), (1, 0));
}

#[test]
fn word_about_a_flow_of_another_kind_reaches_nobody() {
    let mut ladder = Ladder::new();
    let tcp = Talk::open(&mut ladder).flow;
    let (udp, remote) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
    let echo = ping(&mut ladder, "10.0.2.100", "192.0.2.1");
    let now = ladder.now;
    for flow in [tcp, echo] {
        ladder.stack.handle_udp_from_host(flow, remote, b"answer", None, 0, now);
        ladder.stack.handle_udp_undelivered(flow, &refusal(remote), b"");
    }
    for flow in [tcp, udp] {
        ladder.stack.handle_echo_reply(flow, remote.ip(), 3, b"answer", None, ladder.now);
        ladder.stack.handle_echo_undelivered(flow, &refusal(remote), 3);
    }
    for flow in [udp, echo] {
        ladder.stack.handle_tcp_connected(flow, Ok(()), now);
        ladder.stack.handle_tcp_connected(flow, Err(HostError::Refused), now);
    }
    // IPv6 has no business on the socket of an IPv4 flow.
    ladder.stack.handle_echo_reply(echo, ip("2001:db8::1"), 3, b"answer", None, ladder.now);
    assert!(ladder.turn().is_empty());
    assert_eq!(ladder.discards(DiscardReason::HostDatagramNoFlow), 5);
    assert_eq!((ladder.stack.stats().flows, ladder.stack.stats().tcp_failed), (3, 0));
}

#[test]
fn second_word_about_a_connect_changes_nothing() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    ladder.stack.handle_tcp_connected(talk.flow, Err(HostError::Refused), ladder.now);
    assert!(ladder.turn().is_empty() && ladder.closes.is_empty());
    talk.say(&mut ladder, ACK, b"still here");
    assert_eq!(ladder.taken(talk.flow), b"still here");
}

#[test]
fn echo_reply_reaches_the_guest_as_it_came() {
    for (from, remote, arrived_with, hop_limit) in [
        ("10.0.2.100", "192.0.2.1", Some(9), 9),
        ("10.0.2.100", "192.0.2.1", None, 64),
        ("fd00::64", "2001:db8::1", Some(9), 9),
    ] {
        let mut ladder = Ladder::new();
        let flow = ping(&mut ladder, from, remote);
        ladder.stack.handle_echo_reply(flow, ip(remote), 3, b"payload", arrived_with, ladder.now);
        let heard = ladder.turn();
        assert_eq!(heard.len(), 1);
        let packet = &heard[0].packet;
        let header = IpHeader::parse(packet).unwrap();
        let is_ipv4 = header.source.is_ipv4();
        assert_eq!((header.source, header.destination), (ip(remote), ip(from)));
        assert_eq!(packet[if is_ipv4 { 8 } else { 7 }], hop_limit);
        let icmp = &packet[header.header_len..];
        assert_eq!((icmp[0], &icmp[4..8]), (if is_ipv4 { 0 } else { 129 }, &[0, 77, 0, 3][..]));
        assert_eq!(&icmp[8..], b"payload");
        let traffic = ladder.stack.flows.entry(flow).unwrap().meta.traffic;
        assert_eq!((traffic.from_guest, traffic.to_guest), (0, 7));
    }
}

#[test]
fn reply_that_fits_no_packet_is_counted() {
    let mut ladder = Ladder::new();
    let flow = ping(&mut ladder, "10.0.2.100", "192.0.2.1");
    let remote = ip("192.0.2.1");
    ladder.stack.handle_echo_reply(flow, remote, 3, &[0; 65_508], None, ladder.now);
    assert!(ladder.turn().is_empty());
    assert_eq!(ladder.discards(DiscardReason::HostDatagramTooLarge), 1);
    ladder.stack.handle_echo_reply(flow, remote, 3, &[0; 65_507], None, ladder.now);
    assert_eq!(ladder.turn().len(), 45, "the longest one, in fragments");
    let (flow, remote) = send(&mut ladder, "10.0.2.100:5000", "192.0.2.1:9");
    ladder.stack.handle_udp_from_host(flow, remote, &[0; 65_508], None, 0, ladder.now);
    assert!(ladder.turn().is_empty());
    assert_eq!(ladder.discards(DiscardReason::HostDatagramTooLarge), 2);
}

#[test]
fn echo_that_was_not_sent_is_counted_and_told() {
    let mut ladder = Ladder::new();
    let remote = ip("192.0.2.1");
    let flow = ping(&mut ladder, "10.0.2.100", "192.0.2.1");
    ladder.stack.handle_echo_unsent(flow, remote, 3, HostError::HostUnreachable);
    let told = told(&mut ladder).unwrap();
    assert_eq!((told.from, told.kind), (ip("10.0.2.2"), (3, 1)));
    ladder.stack.handle_echo_unsent(flow, remote, 3, HostError::Exhausted);
    assert_eq!(self::told(&mut ladder), None);
    assert_eq!(ladder.discards(DiscardReason::HostSendFailed), 2);
    assert_eq!((ladder.stack.stats().flows, ladder.closes.len()), (1, 0));
    // Where the host allows no echo at all, there is nothing to wait for.
    ladder.stack.handle_echo_not_permitted(flow);
    assert_eq!(self::told(&mut ladder), None);
    assert_eq!(ladder.closes, [(flow, false)]);
    assert_eq!(ladder.discards(DiscardReason::IcmpEchoNotPermitted), 1);
    assert_eq!(ladder.stack.stats().flows, 0);
}

/// The first fragment of a datagram of the guest, and the second one.
fn fragments() -> [Vec<u8>; 2] {
    let mut packet = Vec::new();
    let (from, to) = (address("10.0.2.100:5000"), address("192.0.2.1:9"));
    emit_datagram(&mut packet, from, to, 64, 0, &[7; 2000]).unwrap();
    let mut pieces = crate::wire::fragmentation::fragments(&packet, 1500, 9);
    [pieces.next().unwrap(), pieces.next().unwrap()]
}

#[test]
fn datagram_that_never_becomes_whole_is_told_to_whoever_sent_its_start() {
    // The first fragment quotes the ports, so that the sender can be found; the second one cannot.
    for (which, is_known, is_told) in [(0, true, true), (1, true, false), (0, false, false)] {
        let mut ladder = Ladder::new();
        if is_known {
            ladder.stack.on_neighbor(ip("10.0.2.100"), MAC);
        }
        let fragment = &fragments()[which];
        for round in 1..=2 {
            assert!(ladder.frame(&frame_around(fragment, MAC)).is_empty());
            assert!(ladder.pass(Duration::from_micros(29_999_999)).is_empty());
            let heard = ladder.pass(Duration::from_micros(1));
            assert_eq!(ladder.discards(DiscardReason::FragmentTimedOut), round);
            assert_eq!(heard.len(), usize::from(is_told), "{which} {is_known}");
            if is_told {
                let (kind, code, quote) = only_icmp(&heard);
                assert_eq!((kind, code), (11, 1));
                assert_eq!(quote[..28], fragment[..28]);
            }
        }
    }
}

#[test]
fn router_is_advertised_again_and_again() {
    let advertisements = |plan: AddressPlan| {
        let mut stack = Stack::new(StackConfig { plan, ..StackConfig::default() });
        let mut sent_at = Vec::new();
        while sent_at.len() < 3 {
            let Some((at, _)) = stack.poll_timeout() else { break };
            stack.handle_timeout(at);
            while let Some(frame) = stack.poll_frame(at) {
                assert_eq!((frame[..6].to_vec(), frame[54]), (vec![0x33, 0x33, 0, 0, 0, 1], 134));
                sent_at.push(at);
            }
        }
        sent_at
    };
    let sent_at = advertisements(AddressPlan::default().with_ipv6(Ipv6Plan::default()));
    assert_eq!(sent_at.len(), 3);
    for pair in sent_at.windows(2) {
        let between = pair[1].saturating_since(pair[0]);
        assert!((200..=600).contains(&between.as_secs()), "{between:?}");
    }
    assert_eq!(advertisements(AddressPlan::default()), []);
}
