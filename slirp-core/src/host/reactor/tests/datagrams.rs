//! Datagrams of the guest and their answers, with sockets of the loopback interface as remotes.

use std::net::UdpSocket;

use super::scene::{GUEST_MAC, Scene, await_readable, source};
use super::*;
use crate::host::reactor::datagrams::Unsent;
use crate::host::tests::{in_new_netns, ip};
use crate::wire::icmp::emit_echo_quote;
use crate::wire::ip::fill_ipv4_checksum;
use crate::wire::udp::emit_datagram;

/// The gateway's port `port`, which is the host's.
fn gateway(port: u16) -> SocketAddr {
    ([10, 0, 2, 2], port).into()
}

/// A remote that has received a datagram of the guest, and the address for its answers.
fn conversation(scene: &mut Scene) -> (UdpSocket, SocketAddr) {
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
        // Of different lengths, so that the kernel does not coalesce them.
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
    // The guest reads, so there is room again.
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

/// The guest sends a packet as it is.
fn say(scene: &mut Scene, packet: &[u8]) {
    let ethernet = [&[0x52, 0x55, 10, 0, 2, 2][..], &GUEST_MAC, &[8, 0]].concat();
    scene.say(&[&ethernet, packet].concat());
}

/// The guest sends an echo request with identifier 77 and sequence number 3.
fn ping(scene: &mut Scene, to: [u8; 4]) {
    let mut packet = Vec::new();
    emit_echo_quote(&mut packet, [10, 0, 2, 100].into(), to.into(), 77, 3);
    say(scene, &packet);
}

#[test]
fn echo_goes_out_and_its_reply_or_its_failure_comes_back() {
    in_new_netns(|| {
        ip("addr add 192.0.2.1/32 dev lo");
        ip("route add unreachable 198.51.100.0/24");
        let mut scene = Scene::new(StackConfig::default());
        ping(&mut scene, [192, 0, 2, 1]);
        let heard = scene.turn_until(1);
        assert_eq!((heard.len(), &heard[0][12..16]), (1, &[192, 0, 2, 1][..]));
        assert_eq!((heard[0][20], &heard[0][24..28]), (0, &[0, 77, 0, 3][..]));
        assert!(scene.reactor.backlog.is_empty(), "it is drained");
        ping(&mut scene, [198, 51, 100, 1]);
        let heard = scene.heard();
        assert_eq!((heard.len(), &heard[0][20..22]), (1, &[3, 1][..]));
        assert_eq!(heard[0][28 + 24..], [0, 77, 0, 3], "the request that it is about");
        assert_eq!(scene.discards(DiscardReason::HostSendFailed), 1);
        // If the host permits no echo, the flow ends with its socket.
        let now = scene.reactor.now();
        let flow = scene.reactor.list_flows(0, now).flows[0].id;
        scene.reactor.note_sent(Err(Unsent::EchoNotPermitted { flow }));
        scene.serve();
        assert_eq!((scene.flows(), scene.reactor.sockets.of(flow).is_none()), (0, true));
        assert_eq!(scene.discards(DiscardReason::IcmpEchoNotPermitted), 1);
    });
}

#[test]
fn datagram_that_is_too_large_for_the_path_is_told_once() {
    in_new_netns(|| {
        ip("addr add 192.0.2.1/32 dev lo");
        ip("link set lo mtu 1300");
        let mut scene = Scene::new(StackConfig::default());
        let mut packet = Vec::new();
        let (from, to) = (([10, 0, 2, 100], 5000).into(), ([192, 0, 2, 1], 9).into());
        emit_datagram(&mut packet, from, to, 64, 0, &[7; 1400]).unwrap();
        // Don't fragment.
        packet[6] = 0x40;
        fill_ipv4_checksum(&mut packet[..20]);
        say(&mut scene, &packet);
        let heard = scene.heard();
        assert_eq!((heard.len(), &heard[0][20..22]), (1, &[3, 4][..]));
        assert_eq!(heard[0][26..28], 1300_u16.to_be_bytes());
        assert_eq!(scene.discards(DiscardReason::HostSendFailed), 1);
        // Reading the MTU may have revealed errors of other datagrams.
        assert_eq!(scene.reactor.backlog.len(), 1, "its socket is looked at without an event");
        scene.serve();
        assert!(scene.heard().is_empty() && scene.reactor.backlog.is_empty());
    });
}
