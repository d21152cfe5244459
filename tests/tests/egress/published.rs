//! Published ports under a policy: who may come in, and that nobody gets out by them.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{SocketAddr, UdpSocket};

use slirp_tests::*;

use crate::scene::*;

/// A socket of `namespace` that does not wait for ever.
fn udp(namespace: &Namespace, at: SocketAddr) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket
}

/// The next datagram, after any errors.
fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 64];
    for _ in 0..10 {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            return (buffer[..len].to_vec(), from);
        }
    }
    panic!("nothing came");
}

#[test]
fn published_port_of_datagrams_is_no_way_out() {
    let policy = "allow in 198.51.100.2:8080";
    let options = ["--publish=udp:8080:80"];
    let scene = Scene::with(needs!(World::root()), policy, &options, &[]);
    let published = SocketAddr::new(HOST, 8080);
    let service = udp(&scene.guest, "0.0.0.0:80".parse().unwrap());
    let client = udp(&scene.remote, SocketAddr::new(REMOTE, 7000));
    let stranger = udp(&scene.remote, SocketAddr::new(REMOTE_2, 7000));
    stranger.send_to(b"a stranger", published).unwrap();
    client.send_to(b"a question", published).unwrap();
    let (question, from) = next(&service);
    assert_eq!((&question[..], from), (&b"a question"[..], SocketAddr::new(REMOTE, 7000)));
    service.send_to(b"an answer", from).unwrap();
    assert_eq!(next(&client), (b"an answer".to_vec(), published));
    // The same socket reaches nobody else, not even another port of the client.
    for (ip, port) in [(REMOTE, 7001), (REMOTE_2, 7000), (NOBODY, 7000), (HOST, 22)] {
        let sent = service.send_to(b"way out", (ip, port));
        // An error may still be that of the one before.
        sent.or_else(|_| service.send_to(b"way out", (ip, port))).unwrap();
    }
    // What answers the client goes on.
    while service.send_to(b"another answer", from).is_err() {}
    assert_eq!(next(&client).0, b"another answer");
    scene.settle();
    for packet in scene.outside.arrived() {
        let is_out = packet.payload.windows(7).any(|window| window == b"way out");
        assert!(!is_out, "{packet:?}");
    }
}
