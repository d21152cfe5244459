//! Ranges of ports: how they open, lead and close.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket as Client};

use mio::{Events, Poll};

use super::*;
use crate::plan::AddressPlan;

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

fn forwards(poll: &Poll, descriptors: Option<usize>) -> Forwards {
    Forwards::new(poll.registry().try_clone().unwrap(), false, descriptors)
}

/// `count` ports in a row that are free, in both protocols, as far as can be told.
fn free(count: u16) -> u16 {
    let is_free = |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && Client::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let mut first = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    while !(first..first + count).all(is_free) {
        first += 1;
    }
    first
}

fn range(protocol: ForwardProtocol, first: u16, guest: u16, ports: u16) -> Forward {
    let host = (Ipv4Addr::LOCALHOST, first).into();
    Forward { ports, ..Forward::new(protocol, host, (GUEST, guest).into()) }
}

fn await_event(poll: &mut Poll, forwards: &mut Forwards) -> (PortId, ForwardProtocol) {
    let mut events = Events::with_capacity(8);
    poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
    assert!(forwards.on_event(events.iter().next().expect("something waits").token()));
    forwards.take_queue(Instant::ZERO)[0]
}

const ENVELOPE: Envelope = Envelope { hop_limit: 64, traffic_class: 0, dont_fragment: false };

#[test]
fn every_port_of_a_range_leads_to_its_own_port_of_the_guest() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(40);
    let rule = range(ForwardProtocol::Udp, first, 5000, 40);
    let id = rules.add_all(&[rule]).unwrap();
    assert_eq!(rules.list(), [(id, rule)], "one rule");
    let client = Client::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.send_to(b"ask", (Ipv4Addr::LOCALHOST, first + 39)).unwrap();
    let (port, protocol) = await_event(&mut poll, &mut rules);
    assert_eq!(protocol, ForwardProtocol::Udp);
    let mut buffer = [0; 16];
    let (origin, guest, received) = rules.receive(port, &mut buffer).unwrap();
    assert_eq!((received.payload, guest), (&b"ask"[..], (GUEST, 5039).into()));
    assert_eq!(origin.local, (Ipv4Addr::LOCALHOST, first + 39).into());
    // The answer leaves from the port that was asked.
    rules.send(&origin, b"answer", None, ENVELOPE).unwrap();
    let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, origin.local);
    for wrong in [first - 1, first + 40] {
        let origin = Origin { local: (Ipv4Addr::LOCALHOST, wrong).into(), ..origin };
        let unreachable = NotSent::all(HostError::NetworkUnreachable, b"answer", None);
        assert_eq!(rules.send(&origin, b"answer", None, ENVELOPE), Err(unreachable), "{wrong}");
    }
}

#[test]
fn connection_is_for_the_port_that_was_called() {
    let mut poll = Poll::new().unwrap();
    let mut rules = forwards(&poll, None);
    let first = free(3);
    let ids = rules.add_all(&[range(ForwardProtocol::Tcp, first, 80, 3)]).unwrap();
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
    let (port, _) = await_event(&mut poll, &mut rules);
    let Accepted::Connection { guest, .. } = rules.accept(port, Instant::ZERO) else {
        panic!("a connection waits");
    };
    assert_eq!(guest, (GUEST, 81).into());
    // Removed as a whole.
    assert_eq!(rules.remove_all(ids.0..=ids.0).unwrap(), [ids]);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, first + 2)).is_err());
    assert!(rules.ports.is_empty() && rules.targets.is_empty());
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
    assert!(rules.list().is_empty() && rules.ports.is_empty() && rules.targets.is_empty());
    drop(taken);
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
            "10001 forwarded ports need as many descriptors, and 3000 may be used for ports: the \
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
        (vec![udp(0, 1, 1)], "port 0 cannot be forwarded"),
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
    let a = rules.add_all(&[long, short]).unwrap();
    let b = ForwardId(a.0 + 1);
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
fn ports_that_were_only_looked_at_are_closed_again() {
    let plan = AddressPlan::default();
    let first = free(4);
    let rules =
        [range(ForwardProtocol::Tcp, first, 80, 3), range(ForwardProtocol::Udp, first, 80, 3)];
    verify_forwards(&rules, &plan).unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2)).unwrap();
    let error = verify_forwards(&rules, &plan).unwrap_err();
    let ForwardError::Bind { forward, source } = error else { panic!("{error}") };
    assert_eq!((forward.host.port(), source.kind()), (first + 2, io::ErrorKind::AddrInUse));
    drop(taken);
    // What could be opened is closed again, and one port cannot be had twice.
    verify_forwards(&rules, &plan).unwrap();
    let twice = [rules[0], range(ForwardProtocol::Tcp, first + 2, 90, 1)];
    assert!(matches!(verify_forwards(&twice, &plan), Err(ForwardError::Bind { .. })));
    let gateway = Forward { guest: (plan.gateway(), 80).into(), ..rules[0] };
    assert!(matches!(verify_forwards(&[gateway], &plan), Err(ForwardError::GuestAddress(_))));
}
