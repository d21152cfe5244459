//! How connections are opened, and how they fail to open.

use super::*;
use crate::flow::permit::Kind;
use crate::member::{Member, MemberId};
use crate::tcp::tests::packet::{RST, URG};

const NO_OPTIONS: &[u8] = &[];

#[test]
fn syn_is_held_until_the_host_is_connected() {
    let mut ladder = Ladder::new();
    assert!(ladder.guest(&Talk::syn(false, LINUX_OPTIONS)).is_empty());
    assert_eq!(ladder.connects.len(), 1);
    assert!(ladder.pass(Duration::from_secs(30)).is_empty(), "no word before the host's answer");
    let (flow, _) = ladder.connects[0];
    let heard = ladder.connected(flow, Ok(()));
    let seen = only(&heard);
    assert!(seen.has(SYN | ACK));
    assert_eq!(seen.ack, ISN.wrapping_add(1));
    assert_eq!(ladder.stack.stats().tcp_opened, 1);
}

#[test]
fn repeated_syn_is_swallowed_and_counted() {
    let mut ladder = Ladder::new();
    let syn = Talk::syn(false, LINUX_OPTIONS);
    for _ in 0..3 {
        assert!(ladder.guest(&syn).is_empty());
    }
    assert_eq!(ladder.connects.len(), 1);
    assert_eq!(ladder.discards(DiscardReason::TcpSynRepeated), 2);
    // Also while the SYN|ACK waits for its answer.
    let (flow, _) = ladder.connects[0];
    assert_eq!(ladder.connected(flow, Ok(())).len(), 1);
    assert!(ladder.guest(&syn).is_empty());
    assert_eq!(ladder.discards(DiscardReason::TcpSynRepeated), 3);
    assert_eq!((ladder.connects.len(), ladder.closes.len()), (1, 0));
    // The SYN|ACK that the guest has missed comes again by timer.
    assert!(only(&ladder.pass(Duration::from_millis(250))).has(SYN | ACK));
}

#[test]
fn another_syn_on_a_live_tuple_starts_anew_and_resets_the_old_host() {
    let mut ladder = Ladder::new();
    let talk = Talk::open(&mut ladder);
    for number in 1..=3 {
        let syn = Draft { seq: ISN.wrapping_add(number * 1000), ..Talk::syn(false, LINUX_OPTIONS) };
        let before = ladder.closes.len();
        let again = Talk::open_with(&mut ladder, &syn);
        assert_ne!(again.flow, talk.flow);
        assert_eq!(ladder.closes.len(), before + 1);
        assert!(ladder.closes[before].1, "with a reset");
        assert_eq!(ladder.stack.stats().flows, 1);
    }
    // What the old host says now is nobody's.
    assert!(ladder.host(talk.flow, |host| host.to_guest.extend(b"old")).is_empty());
}

#[test]
fn syn_to_refused_port_gets_rst() {
    for is_ipv6 in [false, true] {
        let mut ladder = Ladder::new();
        ladder.guest(&Talk::syn(is_ipv6, LINUX_OPTIONS));
        let (flow, _) = ladder.connects[0];
        let heard = ladder.connected(flow, Err(HostError::Refused));
        let seen = only(&heard);
        assert_eq!(seen.flags, RST | ACK);
        assert_eq!((seen.seq, seen.ack), (0, ISN.wrapping_add(1)));
        assert!(seen.is_checksum_valid);
        assert_eq!(heard[0].ethernet.destination, MAC);
        assert_eq!(ladder.stack.stats().flows, 0);
        assert_eq!(ladder.stack.stats().tcp_failed, 1);
    }
}

#[test]
fn unreachable_host_is_told_by_icmp_that_quotes_the_syn() {
    for (error, is_ipv6, expected) in [
        (HostError::HostUnreachable, false, (3, 1)),
        (HostError::NetworkUnreachable, false, (3, 0)),
        (HostError::TimedOut, false, (3, 1)),
        (HostError::HostUnreachable, true, (1, 3)),
        (HostError::NetworkUnreachable, true, (1, 0)),
    ] {
        let mut ladder = Ladder::new();
        let syn = Talk::syn(is_ipv6, LINUX_OPTIONS);
        ladder.guest(&syn);
        let (flow, _) = ladder.connects[0];
        let heard = ladder.connected(flow, Err(error));
        let (kind, code, quoted) = only_icmp(&heard);
        assert_eq!((kind, code), expected, "{error:?}");
        let packet = syn.packet();
        // Addresses, ports and sequence number: what a guest finds its socket by.
        let end = if is_ipv6 { 48 } else { 28 };
        assert_eq!(quoted[12..end], packet[12..end], "{error:?}");
        assert_eq!(ladder.stack.stats().flows, 0);
    }
}

#[test]
fn exhausted_host_is_told_and_counted() {
    let mut ladder = Ladder::new();
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    let (flow, _) = ladder.connects[0];
    assert_eq!(ladder.connected(flow, Err(HostError::Exhausted)).len(), 1);
    assert_eq!(ladder.discards(DiscardReason::HostResourcesExhausted), 1);
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn connect_that_takes_75_seconds_has_failed() {
    let mut ladder = Ladder::new();
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    assert!(ladder.pass(Duration::from_micros(74_999_999)).is_empty());
    let heard = ladder.pass(Duration::from_micros(1));
    assert_eq!(only_icmp(&heard).0, 3);
    assert_eq!(only_icmp(&heard).1, 1);
    assert_eq!(ladder.discards(DiscardReason::HostConnectTimedOut), 1);
    let (flow, _) = ladder.connects[0];
    assert_eq!(ladder.closes, [(flow, true)]);
    // The answer comes after all.
    assert!(ladder.connected(flow, Ok(())).is_empty());
}

#[test]
fn reset_while_connecting_ends_the_flow() {
    let mut ladder = Ladder::new();
    let syn = Talk::syn(false, LINUX_OPTIONS);
    ladder.guest(&syn);
    let reset = Draft { seq: ISN.wrapping_add(1), flags: RST, ..Draft::new(syn.from, syn.to) };
    assert!(ladder.guest(&reset).is_empty());
    assert_eq!(ladder.closes, [(ladder.connects[0].0, true)]);
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn guest_that_never_finishes_the_handshake_is_given_up() {
    let mut ladder = Ladder::new();
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    let (flow, _) = ladder.connects[0];
    ladder.connected(flow, Ok(()));
    let heard = ladder.pass(Duration::from_secs(21));
    assert!(heard.len() <= 10, "{} segments", heard.len());
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(RST));
    assert_eq!(ladder.discards(DiscardReason::TcpHandshakeTimedOut), 1);
    assert_eq!(ladder.closes, [(flow, true)]);
    assert!(ladder.stack.flows.len() == 0 && ladder.stack.admission.count(Kind::Opening) == 0);
}

#[test]
fn options_are_answered_only_where_they_were_offered() {
    let mut ladder = Ladder::new();
    let talk = Talk::open(&mut ladder);
    assert_eq!(talk.syn_ack.window_scale, Some(3), "a ring of 256 KiB");
    assert!(talk.syn_ack.sack_permitted);

    let mut ladder = Ladder::new();
    let talk = Talk::open_with(&mut ladder, &Talk::syn(false, NO_OPTIONS));
    assert_eq!(talk.syn_ack.window_scale, None);
    assert!(!talk.syn_ack.sack_permitted);
    assert!(talk.syn_ack.mss.is_some());
}

#[test]
fn payload_of_a_syn_is_sent_again_and_arrives_once() {
    let mut ladder = Ladder::new();
    let data = stream(500);
    let syn = Draft { payload: data.clone(), ..Talk::syn(false, LINUX_OPTIONS) };
    let mut talk = Talk::open_with(&mut ladder, &syn);
    assert!(ladder.taken(talk.flow).is_empty());
    talk.say(&mut ladder, ACK, &data);
    assert_eq!(ladder.taken(talk.flow), data);
}

#[test]
fn segment_of_no_connection_gets_rst() {
    let mut ladder = Ladder::new();
    let (from, to) = Talk::addresses(false);
    let stray = Draft { seq: 7, ack: 1234, payload: vec![1; 10], ..Draft::new(from, to) };
    let heard = ladder.guest(&stray);
    let seen = only(&heard);
    assert_eq!((seen.flags, seen.seq), (RST, 1234));
    let stray = Draft { flags: RST | ACK, ..stray };
    assert!(ladder.guest(&stray).is_empty(), "a reset is never answered");
    assert_eq!(ladder.discards(DiscardReason::TcpNoFlow), 2);
}

#[test]
fn wrong_checksum_is_discarded_unless_the_device_vouches_for_it() {
    let mut ladder = Ladder::new();
    let mut frame = Talk::syn(false, LINUX_OPTIONS).frame(MAC);
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert!(ladder.frame(&frame).is_empty());
    assert_eq!(ladder.discards(DiscardReason::TransportChecksumInvalid), 1);
    assert!(ladder.connects.is_empty());

    let mut ladder = Ladder::with(StackConfig { offload: Offload::FULL, ..config() });
    assert!(ladder.frame(&frame).is_empty());
    assert_eq!(ladder.discards(DiscardReason::TransportChecksumInvalid), 1);
    let vnet = VnetHeader { flags: 2, ..VnetHeader::default() };
    let mut bytes = vnet.emit().to_vec();
    bytes.extend_from_slice(&frame);
    assert!(ladder.stack.handle_frame(&mut bytes, ladder.now).is_none());
    let _ = ladder.turn();
    assert_eq!(ladder.connects.len(), 1);
}

#[test]
fn urgent_byte_is_delivered_in_its_place() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    let urgent = Draft { urgent: 3, ..talk.draft(ACK | URG, b"abcdef") };
    ladder.guest(&urgent);
    talk.seq = talk.seq.wrapping_add(6);
    talk.say(&mut ladder, ACK, b"ghi");
    assert_eq!(ladder.taken(talk.flow), b"abcdefghi");
}

#[test]
fn replies_go_where_the_flow_comes_from() {
    let mut ladder = Ladder::new();
    let mut talk = Talk::open(&mut ladder);
    // A network nested behind the guest: other MAC, other subnet.
    ladder.mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let (_, to) = Talk::addresses(false);
    let from = "172.17.0.2:40000".parse().unwrap();
    let nested_syn = Draft { seq: 99, flags: SYN, ..Draft::new(from, to) };
    let nested = Talk::open_with(&mut ladder, &nested_syn);
    for (flow, mac) in [(talk.flow, MAC), (nested.flow, ladder.mac)] {
        let heard = ladder.host(flow, |host| host.to_guest.extend(b"hello"));
        assert_eq!(heard[0].ethernet.destination, mac);
        assert_eq!(heard[0].ethernet.source, MacAddr([0x52, 0x55, 10, 0, 2, 2]));
    }
    // The flow moves to another MAC with its next frame.
    talk.ack = talk.ack.wrapping_add(5);
    let mac = ladder.mac;
    talk.say(&mut ladder, ACK, &[]);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(b"hello"));
    assert_eq!(heard[0].ethernet.destination, mac);
    let icmp_target = frame_around(&Talk::syn(false, NO_OPTIONS).packet(), MAC);
    assert_eq!(icmp_target[6..12], MAC.0);
}

#[test]
fn dns_connection_beyond_the_cap_resets_the_oldest_of_who_has_most() {
    let mut config = config();
    config.is_shared = true;
    config.limits.dns_connections = 8;
    let mut ladder = Ladder::with(config);
    let macs = [1, 2].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    for (id, mac) in (1..).zip(macs) {
        let address = [10, 0, 2, 99 + mac.0[5]].into();
        let (names, aliases) = (Vec::new(), Vec::new());
        let member = Member { mac, address, address6: None, names, aliases };
        ladder.stack.handle_member_added(MemberId(id), &member, ladder.now);
    }
    let dns: SocketAddr = "10.0.2.3:53".parse().unwrap();
    let mut talks = Vec::new();
    // One of the second member, then three of the first: from its own address, and from one behind
    // it, which has the only connection of all to come from there.
    for (id, from) in [
        (2, "10.0.2.101:1024"),
        (1, "10.0.2.100:1024"),
        (1, "192.168.9.9:1025"),
        (1, "192.168.9.10:1026"),
    ] {
        ladder.pass(Duration::from_millis(1));
        ladder.mac = macs[id - 1];
        ladder.member = Some(MemberId(u64::try_from(id).unwrap()));
        let from = from.parse().unwrap();
        let syn = Draft { seq: ISN, flags: SYN, options: vec![], ..Draft::new(from, dns) };
        let heard = ladder.guest(&syn);
        let segments: Vec<_> = heard.iter().filter_map(|heard| heard.tcp.clone()).collect();
        let answer = segments.iter().find(|seen| seen.has(SYN | ACK)).unwrap();
        let draft = Draft {
            seq: ISN.wrapping_add(1),
            ack: answer.seq.wrapping_add(1),
            ..Draft::new(from, dns)
        };
        ladder.guest(&draft);
        // Half of a message, which waits for the rest.
        ladder.guest(&Draft { payload: vec![0, 99, 1], ..draft.clone() });
        let resets = segments.iter().filter(|seen| seen.has(RST)).count();
        assert_eq!((resets, segments.len()), if talks.len() < 3 { (0, 1) } else { (1, 2) });
        talks.push(draft);
    }
    assert_eq!(ladder.discards(DiscardReason::DnsConnectionLimit), 1);
    assert_eq!(ladder.stack.stats().flows, 3);
    // The second one is gone; the first one, which is older and the other member's, lives.
    let more = |talk: &Draft| Draft { seq: ISN.wrapping_add(4), payload: vec![1], ..talk.clone() };
    assert!(only(&ladder.guest(&more(&talks[1]))).has(RST));
    ladder.mac = macs[1];
    assert!(ladder.guest(&more(&talks[0])).is_empty());
    let heard = ladder.pass(Duration::from_millis(10));
    assert!(heard.iter().all(|heard| heard.tcp.as_ref().is_some_and(|seen| seen.flags == ACK)));
    let ack = |heard: &Heard| heard.tcp.as_ref().map(|seen| seen.ack);
    assert!(heard.iter().any(|heard| ack(heard) == Some(ISN.wrapping_add(5))), "{heard:?}");
}
