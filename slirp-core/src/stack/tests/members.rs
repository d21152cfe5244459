//! What begins and ends in the stack with a member of a shared network.

use core::net::SocketAddr;

use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::event::{Datagram, ForwardId, HostAction, Origin};
use crate::mac::MacAddr;
use crate::member::{Member, MemberId};
use crate::plan::AddressPlan;
use crate::stack::Stack;
use crate::stack::tests::came_through;
use crate::switch::Released;
use crate::time::Instant;
use crate::wire::udp::emit_datagram;

const NOW: Instant = Instant::ZERO;

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn member(last: u8, name: &str) -> Member {
    Member {
        mac: mac(last),
        address: [10, 0, 2, last].into(),
        address6: None,
        names: vec![name.parse().unwrap()],
        aliases: Vec::new(),
    }
}

fn released(last: u8) -> Released {
    Released { macs: vec![mac(last)], addresses: vec![[10, 0, 2, last].into()] }
}

fn stack() -> Stack {
    let mut config = StackConfig { plan: AddressPlan::default(), ..StackConfig::default() };
    config.is_shared = true;
    let mut stack = Stack::new(config);
    stack.handle_member_added(MemberId(1), &member(100, "web"), NOW);
    stack.handle_member_added(MemberId(2), &member(101, "db"), NOW);
    stack
}

fn send(stack: &mut Stack, last: u8, to: &str, payload: &[u8]) -> bool {
    let from = SocketAddr::from(([10, 0, 2, last], 5000));
    let mut frame = [[0x52, 0x55, 10, 0, 2, 2], mac(last).0].concat();
    frame.extend_from_slice(&[8, 0]);
    emit_datagram(&mut frame, from, to.parse().unwrap(), 64, 0, payload).unwrap();
    matches!(stack.handle_frame(&mut frame, NOW), Some(Datagram::Udp { .. }))
}

fn ask(stack: &mut Stack, name: &str) -> bool {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    assert!(!send(stack, 101, "10.0.2.3:53", &query));
    let is_asked_outside = matches!(stack.poll_action(), Some(HostAction::QueryDns { .. }));
    let answer = stack.poll_frame(NOW).map(<[u8]>::to_vec);
    assert_ne!(is_asked_outside, answer.is_some());
    !is_asked_outside
}

#[test]
fn end_of_a_member_ends_its_flows_alone() {
    let mut stack = stack();
    assert!(send(&mut stack, 100, "192.0.2.1:9", b"a"));
    assert!(send(&mut stack, 101, "192.0.2.1:9", b"b"));
    assert_eq!(stack.stats().flows, 2);
    stack.handle_member_removed(MemberId(1), &member(100, "web"), &released(100), NOW);
    assert_eq!(stack.stats().flows, 1);
    assert!(matches!(stack.poll_action(), Some(HostAction::Close { .. })));
    assert_eq!(stack.poll_action(), None);
    assert!(send(&mut stack, 101, "192.0.2.1:9", b"b"));
    assert_eq!(stack.stats().flows, 1, "the other's goes on");
}

#[test]
fn name_is_answered_as_long_as_its_member_is_there() {
    let mut stack = stack();
    assert!(ask(&mut stack, "web") && ask(&mut stack, "db"));
    assert!(!ask(&mut stack, "other"));
    stack.handle_member_removed(MemberId(1), &member(100, "web"), &released(100), NOW);
    assert!(!ask(&mut stack, "web"));
    assert!(ask(&mut stack, "db"));
}

#[test]
fn addresses_of_members_are_not_looked_for_outside() {
    let mut stack = stack();
    assert!(!send(&mut stack, 101, "10.0.2.100:9", b"by way of the gateway"));
    let refusal = stack.poll_frame(NOW).map(<[u8]>::to_vec).unwrap();
    assert_eq!(refusal[34..36], [3, 0], "network unreachable");
}

#[test]
fn member_that_opens_all_it_can_leaves_the_others_theirs() {
    let mut config = StackConfig { plan: AddressPlan::default(), ..StackConfig::default() };
    config.is_shared = true;
    config.limits.flows = 40;
    config.limits.dns_queries = 8;
    let mut stack = Stack::new(config);
    stack.handle_member_added(MemberId(1), &member(100, "web"), NOW);
    stack.handle_member_added(MemberId(2), &member(101, "db"), NOW);
    let datagram = |stack: &mut Stack, last: u8, port: u16, to: &str, payload: &[u8]| {
        let from = SocketAddr::from(([10, 0, 2, last], port));
        let mut frame = [[0x52, 0x55, 10, 0, 2, 2], mac(last).0].concat();
        frame.extend_from_slice(&[8, 0]);
        emit_datagram(&mut frame, from, to.parse().unwrap(), 64, 0, payload).unwrap();
        stack.handle_frame(&mut frame, NOW).is_some()
    };
    assert!((1..=40).all(|port| datagram(&mut stack, 100, port, "192.0.2.1:9", b"x")));
    assert_eq!(stack.stats().flows, 10, "a quarter: its own make room");
    assert!(datagram(&mut stack, 101, 1, "192.0.2.1:9", b"x"));
    for id in 0..8 {
        datagram(&mut stack, 100, 500, "10.0.2.3:53", &query(id));
    }
    datagram(&mut stack, 101, 500, "10.0.2.3:53", &query(9));
    let mut asked = 0;
    while let Some(action) = stack.poll_action() {
        asked += usize::from(matches!(action, HostAction::QueryDns { .. }));
    }
    assert_eq!(asked, 2 + 1);
    // What it had is free again with it.
    stack.handle_member_removed(MemberId(1), &member(100, "web"), &released(100), NOW);
    stack.handle_member_added(MemberId(3), &member(100, "web"), NOW);
    assert!(datagram(&mut stack, 100, 1, "192.0.2.1:9", b"x"));
}

/// A query for a name outside, under this number.
fn query(id: u8) -> Vec<u8> {
    let mut query = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7];
    query.extend_from_slice(b"outside\0\0\x01\0\x01");
    query
}

#[test]
fn member_with_most_queries_gives_one_up_for_a_member_with_less() {
    let mut config = StackConfig { plan: AddressPlan::default(), ..StackConfig::default() };
    config.is_shared = true;
    config.limits.dns_queries = 8;
    let mut stack = Stack::new(config);
    for last in 100..105 {
        stack.handle_member_added(MemberId(last.into()), &member(last, &format!("m{last}")), NOW);
    }
    let ask = |stack: &mut Stack, last: u8, id: u8| {
        send(stack, last, "10.0.2.3:53", &query(id));
        core::iter::from_fn(|| stack.poll_action()).collect::<Vec<_>>()
    };
    let exhausted =
        |stack: &Stack| stack.stats().discards.value(DiscardReason::DnsQueriesExhausted);
    let mut first = Vec::new();
    for last in 100..104 {
        for id in 0..2 {
            let actions = ask(&mut stack, last, id);
            let [HostAction::QueryDns { query, .. }] = actions[..] else { panic!("{actions:?}") };
            first.extend((id == 0).then_some(query));
        }
    }
    assert!(stack.poll_frame(NOW).is_none());
    let actions = ask(&mut stack, 104, 9);
    let [HostAction::CancelDns { query: ended }, HostAction::QueryDns { .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    let loser = first.iter().position(|&query| query == ended).expect("the oldest of a member");
    let failure = stack.poll_frame(NOW).map(<[u8]>::to_vec).expect("its member is told");
    assert_eq!(failure[..6], mac(100 + u8::try_from(loser).unwrap()).0);
    assert_eq!((failure[43], failure[45] & 15), (0, 2), "SERVFAIL to its first query");
    assert_eq!(exhausted(&stack), 1);
    // Nobody has two more than another now: to change places would help nobody, and cost the
    // resolvers.
    assert_eq!(ask(&mut stack, 104, 10), []);
    assert_eq!(exhausted(&stack), 2);
    // A query that is not asked outside ends no other.
    assert!(!send(&mut stack, 104, "10.0.2.3:53", &query(11)[..20]));
    assert_eq!((stack.poll_action(), exhausted(&stack)), (None, 2));
    assert!(stack.poll_frame(NOW).is_some(), "FORMERR");
}

#[test]
fn address_of_a_newcomer_is_looked_for_where_it_is() {
    let mut stack = stack();
    let guest = SocketAddr::from(([10, 0, 2, 100], 80));
    let frame_to = |stack: &mut Stack| {
        stack
            .handle_tcp_accepted(came_through(1, "192.0.2.1:7".parse().unwrap()), guest, NOW)
            .unwrap();
        while stack.poll_ready(NOW).is_some() {
            if let Some(frame) = stack.poll_frame(NOW) {
                return frame[..6].to_vec();
            }
        }
        panic!("nothing is sent");
    };
    assert_eq!(frame_to(&mut stack), mac(100).0);
    stack.handle_member_removed(MemberId(1), &member(100, "web"), &released(100), NOW);
    let next = Member { mac: mac(77), ..member(100, "web") };
    stack.handle_member_added(MemberId(3), &next, NOW);
    assert_eq!(frame_to(&mut stack), mac(77).0);
}

/// A member tells that it has `address`.
fn tell(stack: &mut Stack, last: u8, address: [u8; 4]) {
    tell_of(stack, last, mac(last), address);
}

/// The same of a station that it bridges here.
fn tell_of(stack: &mut Stack, last: u8, mac: MacAddr, address: [u8; 4]) {
    let mut arp = [[0x52, 0x55, 10, 0, 2, 2], mac.0].concat();
    arp.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    arp.extend_from_slice(&mac.0);
    arp.extend_from_slice(&address);
    arp.extend_from_slice(&[0x52, 0x55, 10, 0, 2, 2, 10, 0, 2, 2]);
    let member = MemberId(u64::from(last - 99));
    assert!(stack.handle_frame_of(Some(member), &mut arp, NOW).is_none());
}

/// So many addresses that the stack forgets where the member's own one is.
fn tell_of_many(stack: &mut Stack, last: u8) {
    for index in 0..2_000_u16 {
        let [high, low] = index.to_be_bytes();
        tell(stack, last, [172, last, high, low]);
    }
}

#[test]
fn stations_behind_a_member_push_out_its_own() {
    let mut stack = stack();
    let station = |last| MacAddr([2, 0, 0, 0, 1, last]);
    tell_of(&mut stack, 101, station(101), [172, 101, 0, 1]);
    tell_of(&mut stack, 100, station(100), [172, 100, 0, 1]);
    tell_of_many(&mut stack, 100);
    for index in 0..2_000_u16 {
        let [high, low] = index.to_be_bytes();
        tell_of(&mut stack, 100, station(100), [173, 100, high, low]);
    }
    let is_known = |stack: &Stack, address: [u8; 4]| stack.link.mac_of(address.into()).is_some();
    assert!(is_known(&stack, [172, 101, 0, 1]), "the other member's");
    assert!(is_known(&stack, [10, 0, 2, 101]));
    assert!(!is_known(&stack, [172, 100, 0, 1]));
}

/// A remote sends to the published UDP port of a member. Returns how many datagrams leave for it.
fn publish(stack: &mut Stack, last: u8, port: u16) -> usize {
    let client = SocketAddr::from(([192, 0, 2, 1], port));
    let origin = Origin { rule: ForwardId(u64::from(last)), client, local: client };
    let guest = SocketAddr::from(([10, 0, 2, last], 53));
    stack.handle_inbound_udp(origin, guest, b"question", None, 0, NOW);
    datagrams_to(stack, last)
}

fn datagrams_to(stack: &mut Stack, last: u8) -> usize {
    let mut count = 0;
    while let Some(frame) = stack.poll_frame(NOW) {
        count += usize::from(frame[..6] == mac(last).0 && frame[12..14] == [8, 0]);
    }
    count
}

#[test]
fn member_that_makes_up_addresses_leaves_those_of_others_known() {
    let mut stack = stack();
    tell_of_many(&mut stack, 100);
    assert_eq!(publish(&mut stack, 101, 7), 1, "it is not asked for again");
    assert_eq!(publish(&mut stack, 100, 7), 0);
}

#[test]
fn silent_member_leaves_the_others_room_for_datagrams_that_wait() {
    let mut stack = stack();
    tell_of_many(&mut stack, 100);
    tell_of_many(&mut stack, 101);
    for port in 1..=200 {
        assert_eq!(publish(&mut stack, 100, port), 0);
    }
    assert_eq!(publish(&mut stack, 101, 7), 0);
    tell(&mut stack, 101, [10, 0, 2, 101]);
    assert_eq!(datagrams_to(&mut stack, 101), 1);
    tell(&mut stack, 100, [10, 0, 2, 100]);
    assert_eq!(datagrams_to(&mut stack, 100), 16, "a quarter");
}
