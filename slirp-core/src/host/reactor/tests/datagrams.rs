//! Datagrams of the guest and their answers, with sockets of the loopback interface as remotes.

use std::net::UdpSocket;

use super::scene::{Scene, await_readable, source};
use super::*;
use crate::host::reactor::datagrams::Unsent;

/// The gateway's port `port`, which is the host's.
fn gateway(port: u16) -> std::net::SocketAddr {
    ([10, 0, 2, 2], port).into()
}

/// A remote that the guest has sent a datagram to, and where answers go to.
fn conversation(scene: &mut Scene) -> (UdpSocket, std::net::SocketAddr) {
    let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
    scene.send(5000, gateway(remote.local_addr().unwrap().port()), b"question");
    await_readable(&remote);
    let mut room = [0; 16];
    let (len, from) = remote.recv_from(&mut room).unwrap();
    assert_eq!(&room[..len], b"question");
    (remote, from)
}

#[test]
fn answer_comes_from_where_the_guest_has_sent_to() {
    let mut scene = Scene::new(StackConfig::default());
    let (remote, from) = conversation(&mut scene);
    remote.send_to(b"answer", from).unwrap();
    let heard = scene.turn_until(1);
    assert_eq!(source(&heard[0]), gateway(remote.local_addr().unwrap().port()));
    assert!(heard[0].ends_with(b"answer"));
    assert!(scene.reactor.backlog.is_empty(), "it is drained");
}

#[test]
fn socket_that_has_much_is_served_in_pieces() {
    let mut scene = Scene::new(StackConfig::default());
    let (remote, from) = conversation(&mut scene);
    for number in 0..=DATAGRAMS_CAP {
        // Of different lengths, so that nobody puts them together.
        remote.send_to(&vec![7; 1 + number], from).unwrap();
    }
    scene.note();
    scene.serve();
    assert_eq!(scene.heard().len(), DATAGRAMS_CAP);
    assert_eq!(scene.reactor.backlog.len(), 1);
    assert_eq!(scene.reactor.patience(), Some(Duration::ZERO), "there is more to do");
    scene.serve();
    assert_eq!(scene.heard().len(), 1);
    assert!(scene.reactor.backlog.is_empty());
}

#[test]
fn datagrams_stay_in_the_hosts_kernel_while_the_link_is_full() {
    let mut scene = Scene::new(StackConfig::default());
    let (remote, from) = conversation(&mut scene);
    while !scene.reactor.link.is_full() {
        scene.reactor.link.write(&[0; 1000]).unwrap();
    }
    remote.send_to(b"answer", from).unwrap();
    scene.note();
    let now = scene.reactor.now();
    scene.reactor.serve_backlog(now).unwrap();
    assert_eq!(scene.reactor.backlog.len(), 1);
    // The guest reads, and so there is room again.
    scene.heard();
    scene.reactor.resume(now).unwrap();
    scene.serve();
    assert!(scene.heard().last().unwrap().ends_with(b"answer"));
    assert_eq!(scene.reactor.stack.stats().discards.total(), 0);
}

#[test]
fn flow_that_ends_while_its_socket_waits_is_passed_over() {
    let mut scene = Scene::new(StackConfig::default());
    let (remote, from) = conversation(&mut scene);
    remote.send_to(b"answer", from).unwrap();
    scene.note();
    let flow = scene.reactor.backlog[0];
    scene.reactor.sockets.remove(flow);
    scene.serve();
    assert!(scene.heard().is_empty() && scene.reactor.backlog.is_empty());
}

#[test]
fn refusal_of_a_port_reaches_the_guest() {
    let mut scene = Scene::new(StackConfig::default());
    let (remote, _) = conversation(&mut scene);
    let port = remote.local_addr().unwrap().port();
    drop(remote);
    scene.send(5000, gateway(port), b"question");
    let heard = scene.turn_until(1);
    let icmp = &heard[0][20..];
    assert_eq!((heard.len(), heard[0][9], &icmp[..2]), (1, 1, &[3, 3][..]));
    assert_eq!(icmp[28 + 2..28 + 4], port.to_be_bytes(), "the port that was refused");
}

#[test]
fn what_no_socket_could_send_is_counted() {
    let mut scene = Scene::new(StackConfig::default());
    conversation(&mut scene);
    scene.reactor.note_sent(Err(Unsent::BufferFull { count: 3 }));
    assert_eq!(scene.discards(DiscardReason::HostBufferFull), 3);
    scene.reactor.note_sent(Ok(()));
    assert_eq!(scene.reactor.stack.stats().discards.total(), 3);
}
