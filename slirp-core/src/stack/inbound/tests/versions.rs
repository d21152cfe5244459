//! Remotes of another IP version than the guest's.

use super::*;
use crate::event::HostError;

const CLIENTS: [&str; 2] = ["[2001:db8::1]:5000", "[2001:db8::2]:5000"];

fn ask(scene: &mut Scene, client: &str) -> Origin {
    let local = "[2001:db8::9]:53".parse().unwrap();
    let origin = Origin { rule: ForwardId(1), client: client.parse().unwrap(), local };
    let guest = SocketAddr::from((GUEST, 80));
    scene.stack.handle_inbound_udp(origin, guest, b"ask", None, 0, scene.now);
    scene.turn();
    origin
}

/// Source and its port of the IPv4 datagram in the last frame.
fn source(scene: &Scene) -> ([u8; 4], u16) {
    let frame = scene.frames.last().unwrap();
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("{frame:x?}") };
    (frame[26..30].try_into().unwrap(), udp.source_port())
}

/// What the guest's answer to this address and port goes out as.
fn answer(scene: &mut Scene, (address, port): ([u8; 4], u16)) -> Option<(FlowId, Origin)> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, GATEWAY_MAC)
        .ipv4(GUEST, address, 64)
        .udp(80, port)
        .write(&mut frame, b"answer")
        .unwrap();
    match scene.stack.handle_frame(&mut frame, scene.now)? {
        Datagram::InboundUdp { flow, origin, .. } => Some((flow, origin)),
        Datagram::Udp { .. } | Datagram::Echo { .. } => None,
    }
}

#[test]
fn clients_of_one_port_are_told_apart_and_each_gets_its_answer() {
    let mut scene = Scene::new(|config| config.policy.allow_host_loopback = false);
    scene.tell_mac();
    let mut known = Vec::new();
    for client in CLIENTS {
        let origin = ask(&mut scene, client);
        let source = source(&scene);
        assert_eq!(source.0, [10, 0, 2, 2]);
        known.push((origin, source));
    }
    assert_eq!(known[0].1.1, 5000);
    assert_ne!(known[1].1.1, 5000, "taken");
    for (origin, source) in known {
        assert_eq!(answer(&mut scene, source).map(|(_, to)| to), Some(origin));
    }
}

#[test]
fn errors_of_the_other_versions_network_are_told_in_the_guests_terms() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    let origin = ask(&mut scene, CLIENTS[0]);
    let (flow, _) = answer(&mut scene, ([10, 0, 2, 2], 5000)).unwrap();
    let icmp = |scene: &mut Scene| {
        scene.turn();
        let frame = scene.frames.last().unwrap();
        assert_eq!((&frame[23..24], &frame[26..30]), (&[1][..], &[10, 0, 2, 2][..]));
        // Type, code, and the MTU where it is about that.
        (frame[34], frame[35], u16::from_be_bytes([frame[40], frame[41]]))
    };
    let too_large = HostError::TooLarge(Some(1400));
    scene.stack.handle_udp_unsent(flow, origin.client, too_large, b"answer", 6, 1);
    assert_eq!(icmp(&mut scene), (3, 4, 1380), "an IPv4 header is 20 bytes shorter");
    let error = |error, icmp_type, icmp_code, offender: &str| DatagramError {
        error,
        remote: origin.client,
        offender: Some(offender.parse().unwrap()),
        icmp_type,
        icmp_code,
        info: 0,
    };
    let guest = SocketAddr::from((GUEST, 80));
    // "Address unreachable" and "port unreachable" have other numbers in IPv4.
    let host = error(HostError::HostUnreachable, 1, 3, "2001:db8::9");
    scene.stack.handle_inbound_udp_undelivered(guest, &host);
    assert_eq!(icmp(&mut scene), (3, 1, 0));
    let port = error(HostError::Refused, 1, 4, "2001:db8::1");
    scene.stack.handle_inbound_udp_undelivered(guest, &port);
    assert_eq!(icmp(&mut scene), (3, 3, 0));
    // Nobody that the guest knows.
    let before = scene.frames.len();
    let stranger = DatagramError { remote: "[2001:db8::7]:9".parse().unwrap(), ..port };
    scene.stack.handle_inbound_udp_undelivered(guest, &stranger);
    scene.turn();
    assert_eq!(scene.frames.len(), before);
}

#[test]
fn connection_of_the_other_version_comes_from_the_gateway() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    scene.accept(CLIENTS[0]).unwrap();
    let (source, syn, _) = scene.segments().remove(0);
    assert!(syn.syn);
    assert_eq!((source, syn.source_port), ([10, 0, 2, 2], 5000));
}
