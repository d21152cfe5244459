//! Remotes that connect through forward rules.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};

use super::scene::{Scene, free_port, rule, source};
use super::*;
use crate::event::ForwardId;
use crate::host::forward::{ForwardError, ForwardProtocol};

/// A scene with one rule on 127.0.84.`last`, and where it listens.
fn scene(protocol: ForwardProtocol, last: u8, config: StackConfig) -> (Scene, SocketAddr) {
    let mut scene = Scene::new(config);
    let host = free_port([127, 0, 84, last], protocol);
    scene.reactor.add_forwards(&[rule(protocol, host, 80)]).unwrap();
    scene.tell_address();
    scene.heard();
    (scene, host)
}

/// Waits until a port of TCP is closed. A process that another test is just starting may have it
/// open, too, up to its execve(2).
fn await_end_of(host: SocketAddr) {
    while let Ok(mut client) = TcpStream::connect(host) {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn connection_reaches_the_guest_as_the_gateways() {
    let (mut scene, host) = scene(ForwardProtocol::Tcp, 1, StackConfig::default());
    let client = TcpStream::connect(host).unwrap();
    let heard = scene.turn_until(1);
    let port = client.local_addr().unwrap().port();
    assert_eq!(source(&heard[0]), ([10, 0, 2, 2], port).into());
    assert_eq!((heard[0][22..24].to_vec(), heard[0][33]), (vec![0, 80], 2), "a SYN to port 80");
    assert_eq!(scene.reactor.stack.stats().tcp_accepted, 1);
}

#[test]
fn rule_with_many_connections_is_served_in_pieces() {
    let (mut scene, host) = scene(ForwardProtocol::Tcp, 2, StackConfig::default());
    let clients: Vec<_> = (0..=ACCEPTS_CAP).map(|_| TcpStream::connect(host).unwrap()).collect();
    scene.note();
    scene.serve();
    let cap = u64::try_from(ACCEPTS_CAP).unwrap();
    assert_eq!(scene.reactor.stack.stats().tcp_accepted, cap);
    assert!(!scene.reactor.forwards.is_idle(), "it is served again without an event");
    scene.serve();
    assert_eq!(scene.reactor.stack.stats().tcp_accepted, cap + 1);
    assert!(scene.reactor.forwards.is_idle());
    drop(clients);
}

#[test]
fn connection_that_the_stack_refuses_is_reset() {
    let mut config = StackConfig::default();
    config.limits.flows = 0;
    let (mut scene, host) = scene(ForwardProtocol::Tcp, 3, config);
    let mut client = TcpStream::connect(host).unwrap();
    scene.note();
    scene.serve();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((scene.flows(), scene.reactor.stack.stats().tcp_accepted), (0, 0));
}

#[test]
fn remote_that_is_evicted_is_reset_before_its_place_is_taken() {
    let mut config = StackConfig::default();
    config.limits.half_open = 1;
    let (mut scene, host) = scene(ForwardProtocol::Tcp, 4, config);
    let mut first = TcpStream::connect(host).unwrap();
    scene.note();
    scene.serve();
    let second = TcpStream::connect(host).unwrap();
    scene.note();
    scene.serve();
    let error = first.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(scene.flows(), 1);
    // The connection that took its place lives.
    second.set_nonblocking(true).unwrap();
    assert_eq!((&second).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn remote_that_makes_room_for_datagrams_is_reset_before_its_place_is_taken() {
    for (last, ports) in [(9, &[2][..]), (10, &[2, 3])] {
        let mut config = StackConfig::default();
        config.limits.flows = 2;
        let (mut scene, host) = scene(ForwardProtocol::Tcp, last, config);
        let mut remote = TcpStream::connect(host).unwrap();
        scene.note();
        scene.serve();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::from(([10, 0, 2, 2], server.local_addr().unwrap().port()));
        scene.send(1, to, b"first");
        assert_eq!(scene.flows(), 2);
        scene.send_each(ports, to, b"more");
        assert_eq!(scene.discards(DiscardReason::HalfOpenLimit), 1);
        let error = remote.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(error, Err(io::ErrorKind::ConnectionReset), "{ports:?}");
    }
}

#[test]
fn port_with_many_datagrams_is_served_in_pieces() {
    let (mut scene, host) = scene(ForwardProtocol::Udp, 5, StackConfig::default());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..=DATAGRAMS_CAP {
        // Of different lengths, so that the kernel does not coalesce them.
        client.send_to(&vec![7; 1 + number], host).unwrap();
    }
    scene.note();
    scene.serve();
    let heard = scene.heard();
    assert_eq!(heard.len(), DATAGRAMS_CAP);
    assert_eq!(source(&heard[0]), ([10, 0, 2, 2], client.local_addr().unwrap().port()).into());
    assert!(!scene.reactor.forwards.is_idle());
    scene.serve();
    assert_eq!(scene.heard().len(), 1);
    assert!(scene.reactor.forwards.is_idle());
    assert_eq!((scene.flows(), scene.reactor.stack.stats().udp_accepted), (1, 1));
}

#[test]
fn answer_leaves_from_the_published_port_and_its_refusal_comes_back() {
    let (mut scene, host) = scene(ForwardProtocol::Udp, 6, StackConfig::default());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", host).unwrap();
    let heard = scene.turn_until(1);
    scene.send(80, source(&heard[0]), b"answer");
    let mut room = [0; 16];
    assert_eq!(client.recv_from(&mut room).unwrap(), (6, host));
    drop(client);
    scene.send(80, source(&heard[0]), b"answer");
    let heard = scene.turn_until(1);
    assert_eq!((heard[0][9], &heard[0][20..22]), (1, &[3, 3][..]));
}

#[test]
fn rules_are_added_all_or_none() {
    let mut scene = Scene::new(StackConfig::default());
    let good = rule(ForwardProtocol::Tcp, free_port([127, 0, 84, 7], ForwardProtocol::Tcp), 80);
    let mut bad = rule(ForwardProtocol::Tcp, free_port([127, 0, 84, 7], ForwardProtocol::Tcp), 80);
    bad.guest.set_ip([10, 0, 2, 2].into());
    let refused = scene.reactor.add_forwards(&[good, bad]).unwrap_err();
    assert!(matches!(refused, ForwardError::GuestAddress(guest) if guest == bad.guest.ip()));
    assert!(scene.reactor.forwards.list().is_empty());
    await_end_of(good.host);
}

#[test]
fn end_of_a_rule_ends_its_datagrams_and_leaves_its_connections() {
    let (mut scene, udp) = scene(ForwardProtocol::Udp, 8, StackConfig::default());
    let tcp = free_port([127, 0, 84, 8], ForwardProtocol::Tcp);
    scene.reactor.add_forwards(&[rule(ForwardProtocol::Tcp, tcp, 80)]).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", udp).unwrap();
    let connection = TcpStream::connect(tcp).unwrap();
    scene.turn_until(2);
    assert_eq!(scene.flows(), 2);
    let ids: Vec<_> = scene.reactor.forwards.list().into_iter().map(|(id, _)| id.0).collect();
    let (first, last) = (ids[0], ids[1]);
    let beyond = scene.reactor.remove_forwards(first..=last + 1).unwrap_err();
    assert!(matches!(beyond, ForwardError::Unknown(ForwardId(id)) if id == last + 1));
    assert_eq!((scene.reactor.forwards.list().len(), scene.flows()), (2, 2), "all or none");
    scene.reactor.remove_forwards(first..=last).unwrap();
    scene.serve();
    assert_eq!(scene.flows(), 1);
    await_end_of(tcp);
    connection.set_nonblocking(true).unwrap();
    assert_eq!((&connection).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}
