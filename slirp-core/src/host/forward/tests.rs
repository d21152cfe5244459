//! Ranges of ports: how they open, lead and close.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket as Client};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use mio::{Events, Poll};

use super::*;
use crate::plan::SlirpNetwork;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

fn forwards(poll: &Poll, descriptors: Option<usize>) -> Forwards {
    Forwards::new(poll.registry().try_clone().unwrap(), false, descriptors)
}

/// Ports of the sockets of both protocols and IP versions, with their states (proc(5)). Unlike
/// bind(2) this takes no port, so a fork of another test inherits no copy of a socket.
fn sockets() -> Vec<(u16, String)> {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default()
    });
    let socket = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (_, port) = fields.next().unwrap().rsplit_once(':').unwrap();
        (u16::from_str_radix(port, 16).unwrap(), fields.nth(1).unwrap().to_owned())
    };
    tables.iter().flat_map(|table| table.lines().skip(1)).map(socket).collect()
}

/// `count` adjacent ports that are free in both protocols, as far as `/proc` tells. No other test
/// of this process gets any of them.
fn free(count: u16) -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    loop {
        let first = base + GIVEN.fetch_add(count, Ordering::Relaxed);
        if !sockets().iter().any(|(port, _)| (first..first + count).contains(port)) {
            return first;
        }
    }
}

/// Waits until `count` ports from `first` on are closed. A program that another test starts holds
/// copies of our sockets until its execve(2).
fn await_closed(first: u16, count: u16) {
    // TCP_LISTEN, and TCP_CLOSE, which UDP sockets have that are not connected.
    let is_open = |(port, state): &(u16, String)| {
        (first..first + count).contains(port) && ["0A", "07"].contains(&state.as_str())
    };
    // A table is read in pieces: a reading misses a socket when an earlier one closes meanwhile.
    let find_open = || (0..3).find_map(|_| sockets().into_iter().find(is_open));
    let started_at = std::time::Instant::now();
    while let Some(open) = find_open() {
        assert!(started_at.elapsed() < Duration::from_secs(10), "{open:?} is still open");
        std::thread::yield_now();
    }
}

fn range(protocol: ForwardProtocol, first: u16, guest: u16, ports: u16) -> Forward {
    let host = (Ipv4Addr::LOCALHOST, first).into();
    Forward { ports, ..Forward::new(protocol, host, (GUEST, guest).into()) }
}

fn everywhere(protocol: ForwardProtocol, first: u16, ports: u16) -> Forward {
    Forward { ports, ..Forward::everywhere(protocol, first, (GUEST, 5000).into()) }
}

fn await_event(poll: &mut Poll, forwards: &mut Forwards) -> (PortId, ForwardProtocol) {
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
    forwards.on_event(port_of(events.iter().next().expect("something waits")));
    forwards.take_queue(Instant::ZERO)[0]
}

/// The number of the port that an event is about.
fn port_of(event: &mio::event::Event) -> usize {
    let Some(Source::Port(number)) = Source::of(event.token()) else {
        panic!("not a port: {event:?}");
    };
    number
}

const ENVELOPE: Envelope = Envelope { hop_limit: 64, traffic_class: 0, dont_fragment: false };

#[test]
fn every_port_of_a_range_leads_to_its_own_port_of_the_guest() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(40);
    let rule = range(ForwardProtocol::Udp, first, 5000, 40);
    let added = rules.add_all(&[rule]).unwrap();
    assert_eq!((added.len(), added[0].1), (1, rule));
    assert_eq!(rules.list(), added, "one rule");
    let client = Client::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(b"ask", (Ipv4Addr::LOCALHOST, first + 39)).unwrap();
    let (port, protocol) = await_event(&mut poll, &mut rules);
    assert_eq!(protocol, ForwardProtocol::Udp);
    let mut buffer = [0; 16];
    let (origin, guest, received) = rules.receive(port, &mut buffer).unwrap();
    assert_eq!((received.payload, guest), (&b"ask"[..], (GUEST, 5039).into()));
    assert_eq!(origin.local, (Ipv4Addr::LOCALHOST, first + 39).into());
    // The answer leaves from the port that was asked.
    rules.send(&origin, None, b"answer", None, ENVELOPE).unwrap();
    let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, origin.local);
    for wrong in [first - 1, first + 40] {
        let origin = Origin { local: (Ipv4Addr::LOCALHOST, wrong).into(), ..origin };
        let unreachable = NotSent::all(HostError::NetworkUnreachable, b"answer", None);
        assert_eq!(
            rules.send(&origin, None, b"answer", None, ENVELOPE),
            Err(unreachable),
            "{wrong}"
        );
    }
}

#[test]
fn connection_is_for_the_port_that_was_called() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(3);
    let ids = rules.add_all(&[range(ForwardProtocol::Tcp, first, 80, 3)]).unwrap()[0].0;
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
    let (port, _) = await_event(&mut poll, &mut rules);
    let Accepted::Connection { guest, .. } = rules.accept(port, Instant::ZERO) else {
        panic!("a connection waits");
    };
    assert_eq!(guest, (GUEST, 81).into());
    // The rule is removed as a whole.
    assert_eq!(rules.remove_all(ids.0..=ids.0).unwrap(), [ids]);
    await_closed(first, 3);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, first + 2)).is_err());
    assert!(is_empty(&rules));
}

#[test]
fn range_that_cannot_be_opened_as_a_whole_leaves_nothing_open() {
    let poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(8);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 6)).unwrap();
    let (one, other) =
        (range(ForwardProtocol::Tcp, first, 80, 2), range(ForwardProtocol::Tcp, first + 2, 90, 6));
    let error = rules.add_all(&[one, other]).unwrap_err();
    let ForwardError::Bind { forward, .. } = &error else { panic!("{error}") };
    assert_eq!(*forward, range(ForwardProtocol::Tcp, first + 6, 94, 1), "the one that is taken");
    assert!(is_empty(&rules));
    drop(taken);
    await_closed(first, 8);
    rules.add_all(&[one, other]).unwrap();
}

#[test]
fn ranges_that_do_not_fit_are_refused_with_their_numbers() {
    let poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, Some(4_000));
    let udp = |first, guest, ports| range(ForwardProtocol::Udp, first, guest, ports);
    for (ranges, text) in [
        (
            vec![udp(10_000, 10_000, 10_001)],
            "forwarded ports would need 10001 descriptors, and 3000 may be used for ports: the \
             limit of the process is 4000 (ulimit -n)",
        ),
        (
            vec![udp(1, 1, 65_535), udp(1, 1, 1)],
            "65536 ports would be forwarded; the most is 65535",
        ),
        (
            vec![udp(65_000, 1, 537)],
            "ports of 127.0.0.1:65000 and 10.0.2.100:1 end at 65535: 537 from there on cannot be \
             forwarded",
        ),
        (
            vec![udp(1, 65_535, 2)],
            "ports of 127.0.0.1:1 and 10.0.2.100:65535 end at 65535: 2 from there on cannot be \
             forwarded",
        ),
        (
            vec![Forward { also_ipv6: true, ..everywhere(ForwardProtocol::Udp, 10_000, 3_001) }],
            "forwarded ports would need 3001 descriptors, and 3000 may be used for ports: the \
             limit of the process is 4000 (ulimit -n)",
        ),
        (vec![udp(1, 0, 1)], "port 0 cannot be forwarded"),
        (vec![udp(0, 1, 2)], "port 0 lets the system pick one port: a range of 2 needs its first"),
    ] {
        assert_eq!(rules.add_all(&ranges).unwrap_err().to_string(), text);
    }
    assert!(matches!(rules.add_all(&[udp(80, 80, 0)]), Err(ForwardError::Range(_))));
}

#[test]
fn rule_is_found_by_the_port_of_the_guest() {
    let poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(30);
    let (long, short) = (
        range(ForwardProtocol::Udp, first, 5000, 20),
        range(ForwardProtocol::Udp, first + 20, 5010, 10),
    );
    let added = rules.add_all(&[long, short]).unwrap();
    let (a, b) = (added[0].0, added[1].0);
    let remote: SocketAddr = (Ipv4Addr::LOCALHOST, 9).into();
    let from = |rules: &Forwards, port| {
        let origin = rules.published((GUEST, port).into(), remote)?;
        Some((origin.rule, origin.local.port()))
    };
    assert_eq!(from(&rules, 5000), Some((a, first)));
    assert_eq!(from(&rules, 5012), Some((a, first + 12)), "the oldest");
    assert_eq!((from(&rules, 4999), from(&rules, 5020)), (None, None));
    rules.remove_all(a.0..=a.0).unwrap();
    assert_eq!(from(&rules, 5000), None);
    assert_eq!(from(&rules, 5012), Some((b, first + 22)));
}

#[test]
fn ports_that_are_open_before_there_is_an_instance_are_handed_over() {
    let first = free(3);
    let wanted =
        [range(ForwardProtocol::Tcp, first, 80, 3), range(ForwardProtocol::Udp, first, 5000, 3)];
    let mut opened = OpenForwards::open(&wanted, SlirpNetwork::default()).unwrap();
    assert!(opened.rules().eq(wanted));
    let inode = |socket: &RuleSocket| {
        let link = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
        std::fs::read_link(link).unwrap()
    };
    let before: Vec<_> =
        opened.rules.iter().flat_map(|rule| rule.sockets.iter().flatten()).map(inode).collect();
    assert_eq!(before.len(), 6);
    // No other program can take the ports, and clients wait.
    let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
    let client = Client::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(b"ask", (Ipv4Addr::LOCALHOST, first + 2)).unwrap();

    let guest = Ipv4Addr::new(10, 0, 2, 15);
    let other = |rule: Forward| Forward { guest: (guest, 1).into(), ..rule };
    let others: Vec<_> = opened.rules().map(other).collect();
    opened.lead_like(others);
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let added = rules.adopt(opened).unwrap();
    assert_eq!(rules.list(), added);
    let after: Vec<_> = rules
        .rules
        .values()
        .flat_map(|rule| rule.ports.iter().flatten())
        .map(|port| inode(&port.socket))
        .collect();
    assert_eq!(after, before, "the same sockets, each of them opened once");
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        assert!(!events.is_empty());
        events.iter().for_each(|event| rules.on_event(port_of(event)));
        for (port, protocol) in rules.take_queue(Instant::ZERO) {
            let guest = match (protocol, rules.accept(port, Instant::ZERO)) {
                (ForwardProtocol::Tcp, Accepted::Connection { guest, .. }) => guest,
                (ForwardProtocol::Tcp, _) => panic!("a connection waits"),
                (ForwardProtocol::Udp, _) => rules.receive(port, &mut [0; 16]).unwrap().1,
            };
            heard.push((protocol, guest));
        }
    }
    heard.sort_unstable();
    let expected = [
        (ForwardProtocol::Tcp, SocketAddr::new(guest.into(), 81)),
        (ForwardProtocol::Udp, SocketAddr::new(guest.into(), 5002)),
    ];
    assert_eq!(heard, expected, "from the port that was called");
}

#[test]
fn ports_that_are_not_handed_over_are_closed_again() {
    let plan = SlirpNetwork::default();
    let first = free(4);
    let rules =
        [range(ForwardProtocol::Tcp, first, 80, 3), range(ForwardProtocol::Udp, first, 80, 3)];
    drop(OpenForwards::open(&rules, plan).unwrap());
    await_closed(first, 3);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2)).unwrap();
    let error = OpenForwards::open(&rules, plan).unwrap_err();
    let ForwardError::Bind { forward, source, .. } = error else { panic!("{error}") };
    assert_eq!((forward.host.port(), source.kind()), (first + 2, io::ErrorKind::AddrInUse));
    drop(taken);
    await_closed(first, 3);
    // One port cannot be opened twice.
    let twice = [rules[0], range(ForwardProtocol::Tcp, first + 2, 90, 1)];
    let error = OpenForwards::open(&twice, plan).unwrap_err();
    let ForwardError::Bind { forward, .. } = error else { panic!("{error}") };
    assert_eq!(forward, twice[1]);
    await_closed(first, 3);
    OpenForwards::open(&rules, plan).unwrap();
    let gateway = Forward { guest: (plan.gateway(), 80).into(), ..rules[0] };
    let refused = OpenForwards::open(&[gateway], plan);
    assert!(matches!(refused, Err(ForwardError::GuestAddress(_))));
}

#[test]
fn weak_rule_skips_taken_ports_and_is_refused_only_without_any() {
    let plan = SlirpNetwork::default();
    let first = free(3);
    let weak = Opening { is_weak: true, ..Opening::default() };
    for protocol in [ForwardProtocol::Tcp, ForwardProtocol::Udp] {
        let rule = range(protocol, first, 80, 3);
        let middle = range(protocol, first + 1, 80, 1);
        let taken = OpenForwards::open(&[middle], plan).unwrap();
        let opened = OpenForwards::open_as(&[(rule, weak.clone())], plan).unwrap();
        let is_open: Vec<_> = opened.rules[0].sockets.iter().map(Option::is_some).collect();
        assert_eq!(is_open, [true, false, true]);
        let poll = Poll::new().unwrap();
        let mut rules = forwards(&poll, None);
        let (id, _) = rules.adopt(opened).unwrap()[0];
        assert_eq!((rules.list(), rules.in_use.sockets), (vec![(id, rule)], 2));
        rules.remove_all(id.0..=id.0).unwrap();
        assert!(is_empty(&rules));

        let error = OpenForwards::open_as(&[(middle, weak.clone())], plan).unwrap_err();
        assert!(error.is_in_use(), "{error}");
        let strong = (rule, Opening::default());
        let error = OpenForwards::open_as(&[strong], plan).unwrap_err();
        assert!(error.is_in_use(), "{error}");
        drop(taken);
        await_closed(first, 3);
    }
}

#[test]
fn weak_rules_are_shortened_where_descriptors_are_few() {
    let first = free(61);
    let weak = Opening { is_weak: true, ..Opening::default() };
    let strong = Opening::default();
    let udp = |first, ports| range(ForwardProtocol::Udp, first, 80, ports);
    let open = |rules: &[(Forward, &Opening)]| {
        let forwards: Vec<_> = rules.iter().map(|(forward, _)| *forward).collect();
        let openings = rules.iter().map(|(_, opening)| *opening);
        // Half of them, less the reserve: 48 for ports and flows.
        let opened = OpenForwards::open_each(InUse::default(), &forwards, openings, 100, Some(96));
        opened.map(|opened| opened.rules().map(|rule| rule.ports).collect::<Vec<_>>())
    };
    let rules =
        [(udp(first, 8), &strong), (udp(first + 8, 40), &weak), (udp(first + 48, 10), &weak)];
    assert_eq!(open(&rules).unwrap(), [8, 16, 4], "20 of the 40 that the strong rule leaves");
    await_closed(first, 61);
    let rules = [(udp(first, 20), &strong), (udp(first + 20, 20), &weak)];
    assert_eq!(open(&rules).unwrap(), [20, 20], "all of them fit");
    await_closed(first, 61);
    let rules = [(udp(first, 49), &strong), (udp(first + 49, 10), &weak)];
    assert!(matches!(open(&rules), Err(ForwardError::Descriptors { .. })));
}

#[test]
fn ports_that_cannot_be_opened_are_no_part_of_the_share_of_a_weak_rule() {
    let first = free(60);
    let weak = Opening { is_weak: true, ..Opening::default() };
    let udp = |ports| range(ForwardProtocol::Udp, first, 80, ports);
    let _taken = OpenForwards::open(&[udp(30)], SlirpNetwork::default()).unwrap();
    let opened =
        OpenForwards::open_each(InUse::default(), &[udp(60)], [&weak].into_iter(), 100, Some(96));
    let rule = &opened.unwrap().rules[0];
    assert_eq!(rule.forward.ports, 30 + 24, "the first 24 that are free, half of 48");
    assert_eq!(rule.sockets.iter().flatten().count(), 24);
}

#[test]
fn interface_and_foreign_address_are_set_before_a_port_is_bound() {
    let plan = SlirpNetwork::default();
    let first = free(1);
    for protocol in [ForwardProtocol::Tcp, ForwardProtocol::Udp] {
        let rule = range(protocol, first, 80, 1);
        let at = |interface: &str| {
            let interface = Some(interface.to_owned());
            OpenForwards::open_as(&[(rule, Opening { interface, ..Opening::default() })], plan)
        };
        let opened = at("lo").unwrap();
        let socket = opened.rules[0].sockets[0].as_ref().unwrap();
        let device = socket2::SockRef::from(socket).device().unwrap();
        assert_eq!(device.as_deref(), Some(&b"lo"[..]));
        drop(opened);
        let error = at("no-such-if").unwrap_err();
        let ForwardError::Bind { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENODEV));

        // An address for documentation, which no host has (RFC 5737).
        let elsewhere = Forward { host: ([192, 0, 2, 1], first).into(), ..rule };
        let error = OpenForwards::open(&[elsewhere], plan).unwrap_err();
        let ForwardError::Bind { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        let freely = Opening { freebind: true, ..Opening::default() };
        OpenForwards::open_as(&[(elsewhere, freely)], plan).unwrap();
    }
}

/// Whether there is no rule, and nothing is left of one.
fn is_empty(rules: &Forwards) -> bool {
    let Forwards { rules, firsts, targets, in_use, .. } = rules;
    let counts = (in_use.ports, in_use.sockets);
    rules.is_empty() && firsts.is_empty() && targets.is_empty() && counts == (0, 0)
}

/// A client of each IP version at the last port of `rule`, and where it finds it.
fn clients(rule: &Forward) -> [(Client, SocketAddr); 2] {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(|loopback| {
        let at = SocketAddr::new(loopback, rule.last_host_port());
        (Client::bind((loopback, 0)).unwrap(), at)
    })
}

#[test]
fn rule_for_both_versions_is_one_rule_that_answers_each_client_in_its_own() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let rule = everywhere(ForwardProtocol::Udp, free(4), 4);
    let added = rules.add_all(&[rule]).unwrap();
    assert_eq!((rules.list(), added[0].1), (added.clone(), rule));
    assert_eq!(rules.in_use.sockets, 8);
    let mut buffer = [0; 16];
    for (client, at) in clients(&rule) {
        client.send_to(b"ask", at).unwrap();
        let (port, _) = await_event(&mut poll, &mut rules);
        let (origin, guest, received) = rules.receive(port, &mut buffer).unwrap();
        assert_eq!((received.payload, guest), (&b"ask"[..], (GUEST, 5003).into()));
        assert_eq!((origin.client, origin.local), (client.local_addr().unwrap(), at));
        rules.send(&origin, None, b"answer", None, ENVELOPE).unwrap();
        assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, at);
        rules.queue(rules.port_of(&origin).unwrap());
        assert_eq!(rules.take_queue(Instant::ZERO), [(port, ForwardProtocol::Udp)]);
    }
    let guest = (GUEST, 5001).into();
    for remote in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let remote: SocketAddr = remote.parse().unwrap();
        let local = rules.published(guest, remote).unwrap().local;
        assert_eq!((local.is_ipv4(), local.port()), (remote.is_ipv4(), rule.host.port() + 1));
    }
    let id = added[0].0.0;
    rules.remove_all(id..=id).unwrap();
    assert!(is_empty(&rules));
    await_closed(rule.host.port(), 4);
    for (_, at) in clients(&rule) {
        Client::bind(at).expect("free again");
    }
}

#[test]
fn connections_of_both_versions_arrive_at_one_socket_and_find_their_guest() {
    let six: Ipv6Addr = "2001:db8::64".parse().unwrap();
    for guest_ipv6 in [None, Some(six)] {
        let mut poll = Poll::new().unwrap();
        let mut rules = forwards(&poll, None);
        let rule = Forward { guest_ipv6, ..everywhere(ForwardProtocol::Tcp, free(4), 4) };
        rules.add_all(&[rule]).unwrap();
        assert_eq!(rules.in_use.sockets, 4);
        for (_, at) in clients(&rule) {
            let client = TcpStream::connect(at).unwrap();
            let (port, _) = await_event(&mut poll, &mut rules);
            let Accepted::Connection { origin, guest, .. } = rules.accept(port, Instant::ZERO)
            else {
                panic!("a connection");
            };
            let own = guest_ipv6.filter(|_| at.is_ipv6()).map_or(GUEST.into(), IpAddr::V6);
            assert_eq!(guest, (own, 5003).into(), "{at}");
            assert_eq!(origin.client, client.local_addr().unwrap());
            assert_eq!(origin.local, (unspecified(at.ip()), at.port()).into());
            assert!(matches!(rules.accept(port, Instant::ZERO), Accepted::Drained));
        }
    }
}

#[test]
fn datagrams_of_each_version_find_their_guest_and_leave_from_its_port() {
    let six: Ipv6Addr = "2001:db8::64".parse().unwrap();
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let rule = Forward { guest_ipv6: Some(six), ..everywhere(ForwardProtocol::Udp, free(4), 4) };
    rules.add_all(&[rule]).unwrap();
    let guests = [GUEST.into(), six.into()].map(|ip: IpAddr| SocketAddr::new(ip, 5003));
    for ((client, at), expected) in clients(&rule).into_iter().zip(guests) {
        client.send_to(b"ask", at).unwrap();
        let (port, _) = await_event(&mut poll, &mut rules);
        let (_, guest, _) = rules.receive(port, &mut [0; 16]).unwrap();
        assert_eq!(guest, expected);
        let remote =
            SocketAddr::new(if at.is_ipv4() { [192, 0, 2, 1].into() } else { six.into() }, 9);
        let published = rules.published(expected, remote).unwrap();
        assert_eq!(published.local, (unspecified(at.ip()), at.port()).into());
    }
    let id = rules.list()[0].0.0;
    rules.remove_all(id..=id).unwrap();
    assert!(is_empty(&rules));
}

#[test]
fn ipv6_takes_no_descriptor_that_ipv4_may_need() {
    let poll = Poll::new().unwrap();
    // An eighth of 192 descriptors: 24.
    let mut rules = forwards(&poll, Some(256));
    let first = free(26);
    let udp = |first, ports| everywhere(ForwardProtocol::Udp, first, ports);
    let ipv4_only = |rule: Forward| Forward { also_ipv6: false, ..rule };
    let (fits, one) = (udp(first, 24), udp(first + 24, 1));
    let added = rules.add_all(&[fits, one]).unwrap();
    assert_eq!(rules.list(), added);
    assert_eq!((added[0].1, added[1].1), (fits, ipv4_only(one)));
    assert_eq!(rules.in_use.sockets, 49);
    // A removed rule frees its part for others.
    let (large, small) = (udp(first, 25), udp(first + 25, 1));
    rules.remove_all(added[0].0.0..=added[1].0.0).unwrap();
    await_closed(first, 26);
    let added = rules.add_all(&[large, small]).unwrap();
    assert_eq!((added[0].1, added[1].1), (ipv4_only(large), small));
}

#[test]
fn rule_for_both_versions_opens_in_both_or_not_at_all() {
    let poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let rule = everywhere(ForwardProtocol::Tcp, free(2), 2);
    let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, rule.last_host_port())).unwrap();
    let error = rules.add_all(&[rule]).unwrap_err().to_string();
    let place = format!("cannot listen on [::]:{} for TCP", rule.last_host_port());
    assert!(error.starts_with(&place), "{error}");
    assert!(is_empty(&rules));
    drop(taken);
    await_closed(rule.host.port(), 2);
    rules.add_all(&[rule]).unwrap();
}

#[test]
fn port_that_the_system_picks_is_told_and_leads_to_the_guest() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    for protocol in [ForwardProtocol::Tcp, ForwardProtocol::Udp] {
        let local = Forward { also_ipv6: false, ..range(protocol, 0, 80, 1) };
        let [(id, local), (next, both)] =
            rules.add_all(&[local, everywhere(protocol, 0, 1)]).unwrap()[..]
        else {
            panic!("two rules");
        };
        assert_eq!(next.0, id.0 + 1);
        assert_ne!(local.host.port(), 0);
        assert_ne!(both.host.port(), 0);
        assert_eq!(rules.list(), [(id, local), (next, both)]);
        let [_, (client, at)] = clients(&both);
        let stream = match protocol {
            ForwardProtocol::Tcp => Some(TcpStream::connect(at).unwrap()),
            ForwardProtocol::Udp => client.send_to(b"ask", at).map(|_| None).unwrap(),
        };
        let (port, _) = await_event(&mut poll, &mut rules);
        let guest = match rules.accept(port, Instant::ZERO) {
            Accepted::Connection { guest, .. } => guest,
            Accepted::Lost | Accepted::Drained => rules.receive(port, &mut [0; 16]).unwrap().1,
        };
        assert_eq!((guest, stream.is_some()), (both.guest, protocol == ForwardProtocol::Tcp));
        rules.remove_all(id.0..=next.0).unwrap();
    }
}

/// Counts what is logged.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Has socket(2) refuse IPv6 in this thread, as a kernel without it does.
#[cfg(target_arch = "x86_64")]
fn lose_ipv6() {
    use seccompiler::*;
    let family = u64::try_from(libc::AF_INET6).unwrap();
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family);
    let rule = SeccompRule::new(vec![condition.unwrap()]).unwrap();
    let errno = u32::try_from(libc::EAFNOSUPPORT).unwrap();
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let rules = [(libc::SYS_socket, vec![rule])].into_iter().collect();
    let filter = SeccompFilter::new(rules, allow, refuse, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn host_without_ipv6_forwards_in_ipv4_and_says_so_once() {
    let first = free(2);
    let logged = Arc::new(AtomicUsize::new(0));
    let lines = Lines(Arc::clone(&logged));
    let logged_so_far = Arc::clone(&logged);
    let without_ipv6 = std::thread::spawn(move || {
        lose_ipv6();
        tracing::subscriber::with_default(lines, || {
            let rule = everywhere(ForwardProtocol::Tcp, first, 2);
            let opened = OpenForwards::open(&[rule], SlirpNetwork::default()).unwrap();
            assert_eq!(logged_so_far.load(Ordering::Relaxed), 0, "told once it leads to the guest");
            let poll = Poll::new().unwrap();
            let mut rules = forwards(&poll, None);
            rules.adopt(opened).unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
        });
    });
    without_ipv6.join().unwrap();
    assert_eq!(logged.load(Ordering::Relaxed), 1);
}
