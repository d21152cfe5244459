//! What a listener hears of flows, names and discards.

use super::*;
use crate::event::{Datagram, Origin, QueryOrigin};
use crate::journal::{
    Answer, Detail, Ending, Ends, Event, PacketEnds, Peer, Question, Refusal, Report,
};
use crate::member::Member;
use crate::policy::Protocol;
use crate::switch::Released;
use crate::tcp::tests::packet::{FIN, RST};
use crate::traffic::Traffic;
use crate::wire::icmp::emit_echo_quote;
use crate::wire::udp::emit_datagram;

const GUEST: &str = "10.0.2.100:5000";
const REMOTE: &str = "192.0.2.1:9";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ends(protocol: Protocol, guest: &str, remote: &str) -> Ends {
    Ends::new(protocol, address(guest), address(remote))
}

/// The ends of a [`Talk`].
fn tcp_ends() -> Ends {
    let (guest, remote) = Talk::addresses(false);
    Ends::new(Protocol::Tcp, guest, remote)
}

/// A stack with a listener.
fn heard(config: StackConfig, detail: Detail) -> Ladder {
    let mut ladder = Ladder::with(config);
    ladder.stack.set_detail(detail);
    ladder
}

fn ladder() -> Ladder {
    heard(config(), Detail::Flows)
}

/// What has happened since the last look.
fn events(ladder: &mut Ladder) -> Vec<Event> {
    core::iter::from_fn(|| ladder.stack.poll_event())
        .map(|Report { lost, event }| {
            assert_eq!(lost, 0);
            event
        })
        .collect()
}

fn refused(flow: Option<FlowId>, ends: Ends, by: Refusal) -> Event {
    Event::Refused { flow, ends, by, traffic: Traffic::default(), judged: None }
}

/// The endings of the flows that have closed since the last look.
fn endings(ladder: &mut Ladder) -> Vec<Ending> {
    let closed = |event| match event {
        Event::Closed { ending, .. } => Some(ending),
        Event::Opened { .. }
        | Event::Connected { .. }
        | Event::Refused { .. }
        | Event::Unsent { .. }
        | Event::Asked { .. }
        | Event::Answered { .. }
        | Event::Judged { .. }
        | Event::PolicySet { .. }
        | Event::ManyNames { .. }
        | Event::Verified { .. }
        | Event::QuestionOpened(_)
        | Event::QuestionEnded { .. }
        | Event::RateLimited { .. }
        | Event::Discarded { .. } => None,
    };
    events(ladder).into_iter().filter_map(closed).collect()
}

fn datagram(ladder: &mut Ladder, from: &str, to: &str, payload: &[u8]) -> Option<FlowId> {
    let mut packet = Vec::new();
    emit_datagram(&mut packet, address(from), address(to), 64, 0, payload).unwrap();
    match ladder.stack.handle_frame(&mut frame_around(&packet, MAC), ladder.now)? {
        Datagram::Udp { flow, .. } | Datagram::InboundUdp { flow, .. } => Some(flow),
        other @ Datagram::Echo { .. } => panic!("{other:?}"),
    }
}

fn ping(ladder: &mut Ladder) -> FlowId {
    let mut packet = Vec::new();
    let (from, to) = (address(GUEST).ip(), address(REMOTE).ip());
    emit_echo_quote(&mut packet, from, to, 77, 3);
    match ladder.stack.handle_frame(&mut frame_around(&packet, MAC), ladder.now) {
        Some(Datagram::Echo { flow, .. }) => flow,
        other => panic!("{other:?}"),
    }
}

#[test]
fn life_of_a_connection_is_opened_connected_and_closed_with_its_bytes() {
    let mut ladder = ladder();
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    let (flow, remote) = ladder.connects[0];
    let ends = tcp_ends();
    assert_eq!(events(&mut ladder), [Event::Opened { flow, ends, peer: Peer::Host(remote) }]);
    ladder.pass(Duration::from_millis(30));
    let heard = ladder.connected(flow, Ok(()));
    let after = Duration::from_millis(30);
    assert_eq!(events(&mut ladder), [Event::Connected { flow, ends, after }]);
    let syn_ack = only(&heard).clone();
    let (seq, ack) = (syn_ack.ack, syn_ack.seq.wrapping_add(1));
    let (from, to) = (ends.guest, ends.remote);
    let mut talk = Talk { flow, from, to, seq, ack, window: 65_535, syn_ack };
    talk.acknowledge(&mut ladder);
    talk.say(&mut ladder, ACK | FIN, b"request");
    let heard = ladder.host(flow, |host| host.to_guest.extend(b"a longer answer"));
    assert_eq!(talk.take(&heard), b"a longer answer");
    talk.acknowledge(&mut ladder);
    let age = after + Duration::from_secs(1);
    ladder.pass(Duration::from_secs(1));
    let heard = ladder.host(flow, |host| host.is_ended = true);
    talk.take(&heard);
    assert_eq!(events(&mut ladder), [], "nothing is told of bytes");
    talk.acknowledge(&mut ladder);
    let traffic = Traffic { from_guest: 7, to_guest: 15 };
    let ending = Ending::Orderly;
    assert_eq!(
        events(&mut ladder),
        [Event::Closed { flow, ends, ending, age, traffic, judged: None }]
    );
}

#[test]
fn connect_that_failed_is_refused_by_the_host() {
    let mut ladder = ladder();
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    let (flow, _) = ladder.connects[0];
    ladder.connected(flow, Err(HostError::Refused));
    let by = Refusal::Host(HostError::Refused);
    assert_eq!(events(&mut ladder)[1..], [refused(Some(flow), tcp_ends(), by)]);
    ladder.guest(&Talk::syn(false, LINUX_OPTIONS));
    let (flow, _) = ladder.connects[1];
    ladder.pass(Duration::from_secs(76));
    let by = Refusal::Host(HostError::TimedOut);
    assert_eq!(events(&mut ladder)[1..], [refused(Some(flow), tcp_ends(), by)]);
}

#[test]
fn what_policy_and_limits_refuse_has_no_flow() {
    let mut config = config();
    config.policy.allow_host_loopback = false;
    config.limits.flows = 1;
    let mut ladder = heard(config, Detail::Flows);
    let refused = |protocol, guest, remote, by| [refused(None, ends(protocol, guest, remote), by)];
    let gateway = "10.0.2.2:80";
    let (from, to) = (address(GUEST), address(gateway));
    ladder.guest(&Draft { seq: ISN, flags: SYN, ..Draft::new(from, to) });
    let by = Refusal::Policy(DiscardReason::DestinationNotAllowed);
    assert_eq!(events(&mut ladder), refused(Protocol::Tcp, GUEST, gateway, by));
    assert_eq!(datagram(&mut ladder, GUEST, gateway, b"text"), None);
    assert_eq!(events(&mut ladder), refused(Protocol::Udp, GUEST, gateway, by));
    ladder.turn();
    // A connection that is open makes no room.
    let mut syn = Talk::syn(false, LINUX_OPTIONS);
    syn.from.set_port(1);
    Talk::open_with(&mut ladder, &syn);
    events(&mut ladder);
    syn.from.set_port(2);
    ladder.guest(&syn);
    let by = Refusal::Limit(DiscardReason::FlowTableFull);
    let guest = "10.0.2.100:2";
    assert_eq!(events(&mut ladder), refused(Protocol::Tcp, guest, "192.0.2.1:80", by));
}

#[test]
fn each_end_of_a_connection_has_its_reason() {
    let mut ladder = ladder();
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, RST, &[]);
    assert_eq!(endings(&mut ladder), [Ending::GuestReset]);

    let syn = Talk::syn(false, LINUX_OPTIONS);
    ladder.guest(&syn);
    ladder.guest(&Draft { seq: 77, ..syn });
    assert_eq!(endings(&mut ladder), [Ending::Replaced]);
    let (flow, _) = ladder.connects.pop().unwrap();
    ladder.connected(flow, Ok(()));
    ladder.pass(Duration::from_secs(21));
    assert_eq!(endings(&mut ladder), [Ending::TimedOut], "the guest never answered");

    let talk = Talk::open(&mut ladder);
    ladder.host(talk.flow, |host| host.is_broken = true);
    assert_eq!(endings(&mut ladder), [Ending::HostFailed]);
}

#[test]
fn mappings_tell_of_what_was_not_sent_and_end_when_they_are_idle() {
    let mut ladder = ladder();
    let flow = datagram(&mut ladder, GUEST, "10.0.2.2:9", b"question").unwrap();
    let first = ends(Protocol::Udp, GUEST, "10.0.2.2:9");
    let to = address("127.0.0.1:9");
    let opened = Event::Opened { flow, ends: first, peer: Peer::Host(to) };
    assert_eq!(events(&mut ladder), [opened]);
    // Another remote belongs to the same mapping.
    datagram(&mut ladder, GUEST, REMOTE, b"question");
    let ends = ends(Protocol::Udp, GUEST, REMOTE);
    let error = HostError::NetworkUnreachable;
    ladder.stack.handle_udp_unsent(flow, ends.remote, error, b"question", 8, 2);
    assert_eq!(events(&mut ladder), [Event::Unsent { flow, ends, error, count: 2 }]);
    ladder.stack.handle_udp_from_host(flow, ends.remote, b"answer", None, 0, ladder.now);
    ladder.pass(Duration::from_secs(301));
    let (ending, age) = (Ending::Idle, Duration::from_secs(300));
    let traffic = Traffic { from_guest: 16, to_guest: 6 };
    assert_eq!(
        events(&mut ladder),
        [Event::Closed { flow, ends, ending, age, traffic, judged: None }]
    );
}

#[test]
fn echo_tells_of_its_mapping_and_of_a_host_that_allows_none() {
    let mut ladder = ladder();
    let flow = ping(&mut ladder);
    let ends = ends(Protocol::Echo, "10.0.2.100:77", "192.0.2.1:0");
    let opened = Event::Opened { flow, ends, peer: Peer::Host(ends.remote) };
    assert_eq!(events(&mut ladder), [opened]);
    ladder.stack.handle_echo_unsent(flow, ends.remote.ip(), 3, HostError::Exhausted);
    let error = HostError::Exhausted;
    assert_eq!(events(&mut ladder), [Event::Unsent { flow, ends, error, count: 1 }]);
    ladder.stack.handle_echo_not_permitted(flow);
    let told = events(&mut ladder);
    assert!(
        matches!(told[..], [Event::Refused { flow: Some(id), by: Refusal::EchoNotPermitted, .. }]
            if id == flow),
        "{told:?}"
    );
}

#[test]
fn oldest_mapping_is_evicted_before_the_new_one_opens() {
    let mut config = config();
    config.limits.udp_mappings = 1;
    let mut ladder = heard(config, Detail::Flows);
    let first = datagram(&mut ladder, GUEST, REMOTE, b"text").unwrap();
    events(&mut ladder);
    let second = datagram(&mut ladder, "10.0.2.100:5001", REMOTE, b"text").unwrap();
    let told = events(&mut ladder);
    let [Event::Closed { flow, ending, .. }, Event::Opened { flow: opened, .. }] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((flow, ending, opened), (first, Ending::Evicted, second));
}

#[test]
fn remotes_open_flows_through_a_rule_and_are_connected_once_the_guest_has_answered() {
    let mut ladder = ladder();
    let (client, guest) = (address("127.0.0.1:700"), address("10.0.2.100:80"));
    let flow =
        ladder.stack.handle_tcp_accepted(came_through(3, client), guest, ladder.now).unwrap();
    // The guest knows its host as the gateway.
    let ends = ends(Protocol::Tcp, "10.0.2.100:80", "10.0.2.2:700");
    let peer = Peer::Inbound { rule: ForwardId(3), client };
    assert!(peer.is_inbound());
    assert_eq!(events(&mut ladder), [Event::Opened { flow, ends, peer }]);
    ladder.stack.on_neighbor(guest.ip(), MAC);
    ladder.hosts.insert(flow, Script { room: usize::MAX, ..Script::default() });
    let syn = ladder.turn().into_iter().find_map(|heard| heard.tcp).unwrap();
    assert_eq!(events(&mut ladder), []);
    ladder.pass(Duration::from_millis(2));
    let seq = 5000;
    let answer = Draft {
        seq,
        ack: syn.seq.wrapping_add(1),
        flags: SYN | ACK,
        options: LINUX_OPTIONS.to_vec(),
        ..Draft::new(guest, ends.remote)
    };
    ladder.guest(&answer);
    let after = Duration::from_millis(2);
    assert_eq!(events(&mut ladder), [Event::Connected { flow, ends, after }]);
    let reset = Draft { seq: seq + 1, flags: RST | ACK, options: Vec::new(), ..answer };
    ladder.guest(&reset);
    assert_eq!(endings(&mut ladder), [Ending::GuestReset]);
    let flow =
        ladder.stack.handle_tcp_accepted(came_through(3, client), guest, ladder.now).unwrap();
    ladder.turn();
    ladder.stack.handle_remote_gone(flow);
    ladder.turn();
    assert_eq!(endings(&mut ladder), [Ending::RemoteGone], "and never connected");
}

#[test]
fn what_cannot_be_forwarded_is_refused() {
    let mut ladder = ladder();
    let (client, guest) = (address("127.0.0.1:700"), address("10.0.2.2:80"));
    ladder.stack.handle_tcp_accepted(came_through(3, client), guest, ladder.now).unwrap_err();
    let origin = Origin { rule: ForwardId(3), client, local: client };
    ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
    let by = Refusal::Policy(DiscardReason::ForwardAddressInvalid);
    let refused = |protocol| refused(None, Ends::new(protocol, guest, client), by);
    assert_eq!(events(&mut ladder), [refused(Protocol::Tcp), refused(Protocol::Udp)]);
}

#[test]
fn conversations_of_remotes_end_with_their_rule() {
    let mut ladder = ladder();
    ladder.stack.on_neighbor(address(GUEST).ip(), MAC);
    let origin = Origin {
        rule: ForwardId(3),
        client: address("198.51.100.2:700"),
        local: address("198.51.100.1:8080"),
    };
    let (stack, now) = (&mut ladder.stack, ladder.now);
    stack.handle_inbound_udp(origin, address(GUEST), b"text", None, 0, now);
    stack.handle_forwards_removed(&[ForwardId(3)].into(), now);
    let told = events(&mut ladder);
    let [Event::Opened { ends, peer, .. }, Event::Closed { ending, traffic, .. }] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(ends, self::ends(Protocol::Udp, GUEST, "198.51.100.2:700"));
    assert_eq!(peer, Peer::Inbound { rule: ForwardId(3), client: origin.client });
    assert_eq!((ending, traffic.to_guest), (Ending::ForwardRemoved, 4));
}

#[test]
fn flows_of_a_member_end_when_it_leaves() {
    let mut config = config();
    config.is_shared = true;
    let mut ladder = heard(config, Detail::Flows);
    let member = Member {
        mac: MAC,
        address: [10, 0, 2, 100].into(),
        address6: None,
        names: Vec::new(),
        aliases: Vec::new(),
    };
    ladder.stack.handle_member_added(MemberId(1), &member, ladder.now);
    datagram(&mut ladder, GUEST, REMOTE, b"text").unwrap();
    let released = Released { macs: vec![MAC], addresses: vec![address(GUEST).ip()] };
    ladder.stack.handle_member_removed(MemberId(1), &member, &released, ladder.now);
    assert_eq!(endings(&mut ladder), [Ending::MemberLeft]);
}

/// A query for the address of `name`, with message id 7.
fn query(name: &[u8]) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(name);
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The name and type that an event tells of.
fn question(name: &str) -> Option<Question> {
    Some(Question { name: name.to_owned(), kind: 1 })
}

const SERVER: &str = "10.0.2.3:53";

fn origin() -> QueryOrigin {
    QueryOrigin::Udp { guest: address(GUEST), server: address(SERVER), guest_mac: MAC }
}

#[test]
fn names_are_told_with_what_became_of_them() {
    let mut ladder = ladder();
    datagram(&mut ladder, GUEST, SERVER, &query(b"\x03www\x07example"));
    ladder.turn();
    let (query_id, message) = ladder.queries.pop().unwrap();
    let (origin, member, question) = (origin(), None, question("www.example"));
    let asked = Event::Asked { query: query_id, origin, member, question: question.clone() };
    assert_eq!(events(&mut ladder), [asked], "no flow is opened for a datagram");
    ladder.pass(Duration::from_millis(20));
    let mut reply = message;
    (reply[2], reply[3], reply[7]) = (0x80, 3, 2);
    ladder.stack.handle_dns_answer(query_id, Some(reply), ladder.now);
    let answer = Some(Answer { code: 3, records: 2 });
    let after = Duration::from_millis(20);
    let told = events(&mut ladder);
    let guest = Some(address(GUEST).ip());
    let (query, lookup, would) = (query_id, None, None);
    let answered =
        Event::Answered { query, origin, guest, member, question, answer, lookup, would, after };
    assert_eq!(told, [answered]);
}

#[test]
fn query_without_an_answer_is_told_and_one_that_nobody_can_read() {
    let mut ladder = ladder();
    datagram(&mut ladder, GUEST, SERVER, &query(b"\x03a.\\\x02\xc3\xa4"));
    ladder.turn();
    ladder.pass(Duration::from_secs(61));
    let told = events(&mut ladder);
    let [Event::Asked { .. }, Event::Answered { question, answer, after, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(*question, self::question(r"a\046\092.\195\164"));
    assert_eq!((*answer, *after), (None, Duration::from_secs(60)));
    datagram(&mut ladder, GUEST, SERVER, &query(b"\x40"));
    let told = events(&mut ladder);
    let [Event::Asked { question: None, .. }, Event::Answered { answer, after, .. }] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!((*answer, *after), (Some(Answer { code: 1, records: 0 }), Duration::ZERO));
    datagram(&mut ladder, GUEST, SERVER, &query(b""));
    let told = events(&mut ladder);
    let [Event::Asked { question, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*question, self::question("."));
}

#[test]
fn connection_to_the_resolver_is_a_flow_and_its_queries_name_it() {
    let mut ladder = ladder();
    let (from, to) = (address(GUEST), address(SERVER));
    let options = LINUX_OPTIONS.to_vec();
    let heard = ladder.guest(&Draft { seq: ISN, flags: SYN, options, ..Draft::new(from, to) });
    let syn_ack = only(&heard).clone();
    let told = events(&mut ladder);
    let [Event::Opened { flow, peer: Peer::Resolver, .. }, Event::Connected { after, .. }] =
        told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(after, Duration::ZERO);
    let (seq, ack) = (syn_ack.ack, syn_ack.seq.wrapping_add(1));
    let mut talk = Talk { flow, from, to, seq, ack, window: 65_535, syn_ack };
    talk.acknowledge(&mut ladder);
    let message = query(b"\x04name");
    let framed = [&u16::try_from(message.len()).unwrap().to_be_bytes(), &message[..]].concat();
    talk.say(&mut ladder, ACK, &framed);
    let told = events(&mut ladder);
    let [Event::Asked { origin, .. }] = told[..] else { panic!("{told:?}") };
    assert_eq!(origin, QueryOrigin::Tcp { flow });
}

#[test]
fn discards_are_told_with_protocol_and_ends_to_a_listener_that_wants_them() {
    let mut ladder = heard(config(), Detail::Discards);
    let (from, to) = Talk::addresses(false);
    ladder.guest(&Draft { flags: ACK, ..Draft::new(from, to) });
    let packet = PacketEnds {
        protocol: 6,
        source: from.ip(),
        destination: to.ip(),
        ports: Some((from.port(), to.port())),
    };
    let discarded = |reason, packet| Event::Discarded { reason, packet };
    assert_eq!(events(&mut ladder), [discarded(DiscardReason::TcpNoFlow, Some(packet))]);
    ladder.frame(&[0; 10]);
    ladder.stack.note_discard(DiscardReason::HostBufferFull);
    let expected = [DiscardReason::FrameTruncated, DiscardReason::HostBufferFull]
        .map(|reason| discarded(reason, None));
    assert_eq!(events(&mut ladder), expected);
    assert_eq!(ladder.discards(DiscardReason::TcpNoFlow), 1);
    // A listener that wants flows alone hears nothing of it.
    ladder.stack.set_detail(Detail::Flows);
    ladder.guest(&Draft { flags: ACK, ..Draft::new(from, to) });
    assert_eq!(events(&mut ladder), []);
    assert_eq!(ladder.discards(DiscardReason::TcpNoFlow), 2);
}

#[test]
fn nothing_is_told_unless_somebody_listens() {
    let mut ladder = Ladder::new();
    Talk::open(&mut ladder);
    datagram(&mut ladder, GUEST, REMOTE, b"text");
    datagram(&mut ladder, GUEST, SERVER, &query(b"\x04name"));
    ladder.frame(&[0; 10]);
    assert_eq!(events(&mut ladder), []);
}
