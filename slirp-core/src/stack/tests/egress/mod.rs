//! A guest under an egress policy: what reaches the host, and what the guest hears.
//!
//! This file judges by address. What the DNS ties to names is in `names`, first bytes are in
//! `first_bytes`, members of a shared network in `members`, changes of the policy in `changes`,
//! what people are asked in `ask`, where the addresses of asked names lead in `placeholders`, and
//! what a listener hears in `told`.

mod ask;
mod changes;
mod first_bytes;
mod members;
mod names;
mod placeholders;
mod told;

use super::*;
use crate::egress::{Cause, EgressPolicy};
use crate::event::Datagram;
use crate::journal::{Detail, Ends, Event, Refusal, Report};
use crate::policy::Protocol;
use crate::stack::Established;
use crate::wire::icmp::emit_echo_quote;
use crate::wire::udp::emit_datagram;

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(text, "test").unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A guest whose policy has these lines.
fn under(text: &str) -> Ladder {
    let mut ladder = Ladder::with(StackConfig { egress: Some(policy(text)), ..config() });
    ladder.stack.set_detail(Detail::Flows);
    ladder
}

fn guest_of(to: SocketAddr, port: u16) -> SocketAddr {
    let guest: IpAddr =
        if to.is_ipv4() { [10, 0, 2, 100].into() } else { "fd00::64".parse().unwrap() };
    SocketAddr::new(guest, port)
}

/// The first segment of a connection to `to`.
fn syn_to(to: &str, port: u16) -> Draft {
    let to = address(to);
    let from = guest_of(to, port);
    Draft { seq: ISN, flags: SYN, options: LINUX_OPTIONS.to_vec(), ..Draft::new(from, to) }
}

/// What became of something that the guest sent.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    /// It goes there.
    Host(SocketAddr),
    /// The guest hears this ICMP error.
    Refused(u8, u8),
    /// Nobody hears anything.
    Silence,
    /// Another answer.
    Answered,
}

fn told(heard: &[Heard]) -> Fate {
    match heard {
        [] => Fate::Silence,
        [one] if one.tcp.is_none() && is_error(&one.packet) => {
            let (kind, code, _) = only_icmp(heard);
            Fate::Refused(kind, code)
        }
        _ => Fate::Answered,
    }
}

fn is_error(packet: &[u8]) -> bool {
    let ip = IpHeader::parse(packet).unwrap();
    let icmp =
        matches!(ip.protocol, smoltcp::wire::IpProtocol::Icmp | smoltcp::wire::IpProtocol::Icmpv6);
    icmp && matches!((ip.source.is_ipv4(), packet[ip.header_len]), (true, 3) | (false, 1))
}

fn connect(ladder: &mut Ladder, to: &str, port: u16) -> Fate {
    let heard = ladder.guest(&syn_to(to, port));
    let connect = ladder.connects.pop();
    connect.map_or_else(|| told(&heard), |(_, remote)| Fate::Host(remote))
}

/// The frame of a datagram.
fn datagram(from: SocketAddr, to: &str, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    emit_datagram(&mut packet, from, address(to), 64, 0, payload).unwrap();
    frame_around(&packet, MAC)
}

fn lend(ladder: &mut Ladder, mut frame: Vec<u8>) -> Result<(FlowId, SocketAddr), Fate> {
    let lent = match ladder.stack.handle_frame_of(ladder.member, &mut frame, ladder.now) {
        Some(Datagram::Udp { flow, remote, .. }) => Some((flow, remote)),
        Some(Datagram::Echo { flow, remote, .. }) => Some((flow, SocketAddr::new(remote, 0))),
        Some(other @ Datagram::InboundUdp { .. }) => panic!("{other:?}"),
        None => None,
    };
    let heard = ladder.turn();
    lent.ok_or_else(|| told(&heard))
}

fn send(ladder: &mut Ladder, to: &str, port: u16) -> Fate {
    let from = guest_of(address(to), port);
    lend(ladder, datagram(from, to, b"text")).map_or_else(|fate| fate, |(_, to)| Fate::Host(to))
}

fn ping(ladder: &mut Ladder, to: &str, ident: u16) -> Result<(FlowId, SocketAddr), Fate> {
    let to = address(to);
    let mut packet = Vec::new();
    emit_echo_quote(&mut packet, guest_of(to, 0).ip(), to.ip(), ident, 3);
    lend(ladder, frame_around(&packet, MAC))
}

/// Each protocol in turn.
fn try_all(ladder: &mut Ladder, to: &str) -> [Fate; 3] {
    let tcp_and_udp = (connect(ladder, to, 40_000), send(ladder, to, 40_000));
    let echo = ping(ladder, to, 7).map_or_else(|fate| fate, |(_, to)| Fate::Host(to));
    [tcp_and_udp.0, tcp_and_udp.1, echo]
}

/// What was refused since the last look.
fn refusals(ladder: &mut Ladder) -> Vec<(Ends, Refusal)> {
    core::iter::from_fn(|| ladder.stack.poll_event())
        .filter_map(|Report { event, .. }| match event {
            Event::Refused { ends, by, .. } => Some((ends, by)),
            Event::Opened { .. }
            | Event::Connected { .. }
            | Event::Unsent { .. }
            | Event::Closed { .. }
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
        })
        .collect()
}

#[test]
fn each_protocol_reaches_what_is_allowed_and_nothing_else() {
    let allowed = "allow 192.0.2.1\nallow [2001:db8::1]\nallow [64:ff9b::/96]";
    let (v4, v6) = (Fate::Refused(3, 13), Fate::Refused(1, 1));
    for (to, refused) in [
        ("192.0.2.1:80", None),
        ("[2001:db8::1]:80", None),
        ("192.0.2.2:80", Some(&v4)),
        ("[2001:db8::2]:80", Some(&v6)),
        // An address that embeds another is both.
        ("[64:ff9b::c000:202]:80", Some(&v6)),
    ] {
        let mut ladder = under(allowed);
        let fates = try_all(&mut ladder, to);
        let reached = address(to);
        let echo = SocketAddr::new(reached.ip(), 0);
        match refused {
            None => {
                let passed = [reached, reached, echo].map(Fate::Host);
                assert_eq!(fates, passed, "{to}");
                assert_eq!(ladder.discards(DiscardReason::EgressDenied), 0);
            }
            Some(refused) => {
                assert_eq!(fates, [0; 3].map(|_| refused.clone()), "{to}");
                assert_eq!(ladder.discards(DiscardReason::EgressDenied), 3);
                assert_eq!(ladder.stack.stats().flows, 0);
                let told = refusals(&mut ladder);
                let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Echo].into_iter();
                for (protocol, (ends, by)) in protocols.zip(&told) {
                    let port = if protocol == Protocol::Echo { 0 } else { 80 };
                    assert_eq!(ends.remote, SocketAddr::new(reached.ip(), port));
                    assert_eq!(*by, Refusal::Egress(Cause::Default));
                }
                assert_eq!(told.len(), 3);
            }
        }
    }
}

#[test]
fn protected_sets_stay_closed_in_every_spelling() {
    let mut ladder = under("allow any");
    for to in ["10.0.2.2:80", "127.0.0.1:80", "0.1.2.3:80", "[::1]:80", "[fd00::2]:80"] {
        let refused = Fate::Refused(if to.starts_with('[') { 1 } else { 3 }, 13);
        let refused = if to.starts_with('[') { Fate::Refused(1, 1) } else { refused };
        assert_eq!(connect(&mut ladder, to, 40_000), refused, "{to}");
        assert_eq!(send(&mut ladder, to, 40_000), refused, "{to}");
    }
    let told = refusals(&mut ladder);
    assert!(told.iter().all(|(_, by)| *by == Refusal::Egress(Cause::Protected)), "{told:?}");
    assert_eq!(connect(&mut ladder, "192.0.2.1:80", 40_001), Fate::Host(address("192.0.2.1:80")));
    let mut open = under("allow host-loopback:80");
    let loopback = Fate::Host(address("127.0.0.1:80"));
    assert_eq!(connect(&mut open, "10.0.2.2:80", 40_000), loopback);
    assert_eq!(send(&mut open, "10.0.2.2:80", 40_000), loopback);
    assert_eq!(connect(&mut open, "10.0.2.2:81", 40_000), Fate::Refused(3, 13));
}

#[test]
fn services_of_the_link_and_our_own_echo_are_never_judged() {
    let mut ladder = under("");
    let heard = ping(&mut ladder, "10.0.2.2:0", 7).unwrap_err();
    assert_eq!(heard, Fate::Answered, "an echo reply");
    let [discover, ..] = [datagram(address("0.0.0.0:68"), "255.255.255.255:67", &[0; 300])];
    // Not a DHCP message, but one for the DHCP service.
    assert_eq!(lend(&mut ladder, discover), Err(Fate::Silence));
    assert_eq!(ladder.discards(DiscardReason::EgressDenied), 0);
    assert_eq!(refusals(&mut ladder), []);
    // What was refused without a policy is so in the same words.
    let config = StackConfig { egress: Some(policy("allow any")), ..config() };
    let mut closed = Ladder::with(config);
    assert_eq!(connect(&mut closed, "[fe80::99]:80", 40_000), Fate::Refused(1, 0));
}

#[test]
fn host_is_known_by_its_addresses() {
    let mut ladder = under("allow any\ndeny host");
    let host = "203.0.113.9:22";
    assert_eq!(connect(&mut ladder, host, 40_000), Fate::Host(address(host)));
    ladder.stack.set_host_addresses(&[address(host).ip()], ladder.now);
    assert_eq!(connect(&mut ladder, host, 40_001), Fate::Refused(3, 13));
    ladder.stack.set_host_addresses(&[], ladder.now);
    assert_eq!(connect(&mut ladder, host, 40_002), Fate::Host(address(host)));
}

#[test]
fn refused_datagrams_are_told_of_twenty_times_a_second_and_connections_always() {
    let mut ladder = under("");
    let mut told = 0;
    for _ in 0..50 {
        told += u32::from(send(&mut ladder, "192.0.2.1:9", 5000) == Fate::Refused(3, 13));
        told += u32::from(ping(&mut ladder, "192.0.2.1:0", 7) == Err(Fate::Refused(3, 13)));
        assert_eq!(connect(&mut ladder, "192.0.2.1:80", 5000), Fate::Refused(3, 13));
    }
    assert_eq!(told, 20);
    assert_eq!(ladder.discards(DiscardReason::EgressDenied), 150);
    ladder.pass(Duration::from_millis(999));
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), Fate::Silence);
    ladder.pass(Duration::from_millis(1));
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), Fate::Refused(3, 13));
}

#[test]
fn each_datagram_of_a_port_is_judged() {
    let mut ladder = under("allow 192.0.2.1:9\nallow 192.0.2.3");
    let allowed = Fate::Host(address("192.0.2.1:9"));
    for _ in 0..2 {
        assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), allowed);
        assert_eq!(send(&mut ladder, "192.0.2.1:10", 5000), Fate::Refused(3, 13));
        assert_eq!(send(&mut ladder, "192.0.2.2:9", 5000), Fate::Refused(3, 13));
        assert_eq!(send(&mut ladder, "192.0.2.3:9", 5000), Fate::Host(address("192.0.2.3:9")));
    }
    assert_eq!(ladder.stack.stats().udp_opened, 1);
}

#[test]
fn strangers_do_not_come_in_by_a_mapping() {
    let mut ladder = under("allow 192.0.2.1:9\nallow 192.0.2.3:7\nallow host-loopback:7");
    let frame = datagram(address("10.0.2.100:5000"), "192.0.2.1:9", b"text");
    let (flow, remote) = lend(&mut ladder, frame).unwrap();
    for (from, is_heard) in [
        (remote, true),
        (address("192.0.2.1:10"), false),
        (address("192.0.2.2:9"), false),
        (address("192.0.2.3:7"), true),
        (address("127.0.0.1:7"), true),
        (address("127.0.0.1:8"), false),
        // Queries to others are led to our service; nothing comes from there.
        (address("192.0.2.4:53"), false),
    ] {
        ladder.stack.handle_udp_from_host(flow, from, b"text", None, 0, ladder.now);
        assert_eq!(ladder.turn().len(), usize::from(is_heard), "{from}");
    }
    assert_eq!(ladder.discards(DiscardReason::EgressDenied), 4);
    let mut ladder = under("allow 192.0.2.1");
    let (flow, remote) = ping(&mut ladder, "192.0.2.1:0", 7).unwrap();
    for (from, is_heard) in [(remote.ip(), true), ([192, 0, 2, 2].into(), false)] {
        ladder.stack.handle_echo_reply(flow, from, 3, b"", None, ladder.now);
        assert_eq!(ladder.turn().len(), usize::from(is_heard), "{from}");
    }
}

/// A query for the address of `name`.
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

#[test]
fn queries_to_other_servers_are_answered_by_ours_in_their_name() {
    let mut ladder = under("allow index.example");
    for (from, to) in
        [("10.0.2.100:5000", "192.0.2.53:53"), ("[fd00::64]:5000", "[2001:db8::53]:53")]
    {
        let frame = datagram(address(from), to, &query("index.example"));
        assert_eq!(lend(&mut ladder, frame), Err(Fate::Silence), "{to}");
        let (id, message) = ladder.queries.pop().unwrap();
        let mut answer = message;
        answer[2] |= 0x80;
        ladder.stack.handle_dns_answer(id, Some(answer), ladder.now);
        let heard = ladder.turn();
        let ip = IpHeader::parse(&heard[0].packet).unwrap();
        assert_eq!((heard.len(), ip.source), (1, address(to).ip()));
    }
    // By TCP, too.
    let to = "192.0.2.53:53";
    let heard = ladder.guest(&syn_to(to, 5000));
    assert!(ladder.connects.is_empty() && only(&heard).has(SYN | ACK));
    // What a rule says anything about goes its way, and so it does elsewhere.
    for (lines, fate) in [
        ("allow 192.0.2.53:53", Fate::Host(address(to))),
        ("deny 192.0.2.53:53\nallow 192.0.2.1", Fate::Refused(3, 13)),
        ("set dns-redirect no", Fate::Refused(3, 13)),
    ] {
        let mut ladder = under(lines);
        assert_eq!(send(&mut ladder, to, 5000), fate, "{lines}");
        assert_eq!(connect(&mut ladder, to, 5000), fate, "{lines}");
    }
    assert_eq!(connect(&mut ladder, "192.0.2.53:853", 5000), Fate::Refused(3, 13));
}

#[test]
fn without_our_service_queries_to_others_are_refused() {
    let mut config = StackConfig { egress: Some(policy("allow 192.0.2.1")), ..config() };
    config.policy.dns_service = false;
    let mut ladder = Ladder::with(config);
    assert_eq!(send(&mut ladder, "192.0.2.53:53", 5000), Fate::Refused(3, 13));
    assert_eq!(connect(&mut ladder, "192.0.2.53:53", 5000), Fate::Refused(3, 13));
}

/// What `client` sends to `port` of the host.
fn through(client: &str, port: u16) -> Origin {
    Origin { rule: ForwardId(1), client: address(client), local: ([0, 0, 0, 0], port).into() }
}

#[test]
fn published_ports_are_open_until_a_rule_says_who_may_come() {
    let guest = address("10.0.2.100:80");
    for (lines, client, port, is_let_in) in [
        ("", "198.51.100.2:700", 8080, true),
        ("deny in 198.51.100.2", "198.51.100.2:700", 8080, false),
        ("deny in 198.51.100.2", "198.51.100.3:700", 8080, true),
        ("allow in 198.51.100.0/24:8080", "198.51.100.2:700", 8080, true),
        ("allow in 198.51.100.0/24:8080", "198.51.100.2:700", 8081, false),
        ("allow in 198.51.100.0/24:8080", "203.0.113.1:700", 8080, false),
    ] {
        let mut ladder = under(lines);
        ladder.stack.on_neighbor(guest.ip(), MAC);
        let origin = through(client, port);
        let accepted = ladder.stack.handle_tcp_accepted(origin, guest, ladder.now);
        let expected = if is_let_in { Ok(()) } else { Err(DiscardReason::EgressDenied) };
        assert_eq!(accepted.map(|_| ()), expected, "{lines} {client} {port}");
        ladder.turn();
        ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
        assert_eq!(ladder.turn().len(), usize::from(is_let_in), "{lines} {client} {port}");
        let refused = refusals(&mut ladder);
        assert_eq!(refused.len(), if is_let_in { 0 } else { 2 });
        // The guest may answer whom it could not call.
        if is_let_in {
            let mut answer = datagram(guest, client, b"text");
            let answered = ladder.stack.handle_frame(&mut answer, ladder.now);
            assert!(matches!(answered, Some(Datagram::InboundUdp { .. })), "{answered:?}");
        }
    }
}

#[test]
fn answers_come_by_a_published_port_whoever_may_call_there() {
    let mut ladder = under("allow 192.0.2.1:9\nallow in 198.51.100.2");
    let guest = address("10.0.2.100:53");
    ladder.stack.on_neighbor(guest.ip(), MAC);
    let come = |ladder: &mut Ladder, client| {
        let origin = through(client, 53);
        ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
        ladder.turn().len()
    };
    assert_eq!(come(&mut ladder, "192.0.2.1:9"), 0, "nobody was asked");
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 53), Fate::Host(address("192.0.2.1:9")));
    assert_eq!(come(&mut ladder, "192.0.2.1:9"), 1);
    assert_eq!(come(&mut ladder, "192.0.2.2:9"), 0);
}
