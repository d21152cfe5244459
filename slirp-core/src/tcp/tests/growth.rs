//! A ring to the guest that grows under a connection.

use super::*;
use crate::member::MemberId;

const RING_LEN: usize = 128 * 1024;

fn fill(peer: &mut Peer, byte: u8) -> usize {
    let data = vec![byte; 2 * 1024 * 1024];
    let mut queued = 0;
    loop {
        match peer.queue(&data) {
            0 => return queued,
            len => queued += len,
        }
    }
}

#[test]
fn grown_connection_holds_more_and_the_guest_sees_one_stream() {
    let mut peer = Peer::open(&Opening { ring_len: RING_LEN, ..Opening::default() });
    assert_eq!(peer.queue(b"before"), 6);
    let before = peer.poll().unwrap();
    assert_eq!((before.seq, &before.payload[..]), (peer.stack_start, &b"before"[..]));
    assert!(peer.send(ACK, 0, 6, &[]).is_none());

    let now = peer.now;
    assert!(peer.engine.may_grow(&peer.connection));
    peer.engine.grow(&mut peer.connection, now);
    assert!(peer.connection.is_grown());

    assert!(fill(&mut peer, b'x') > 3 * RING_LEN);
    let after = peer.poll().unwrap();
    assert_eq!(after.seq, peer.stack_start.wrapping_add(6));
    assert_eq!(after.ack, peer.start);
    assert!(after.payload.iter().all(|&byte| byte == b'x'));
    // The guest's direction continues as well.
    peer.send(ACK, 0, 6, b"from the guest");
    let mut taken = Vec::new();
    peer.drain(&mut taken);
    assert_eq!(taken, b"from the guest");
}

#[test]
fn connection_with_something_in_flight_keeps_its_ring() {
    let mut peer = Peer::open(&Opening { ring_len: RING_LEN, ..Opening::default() });
    peer.queue(b"in flight");
    peer.poll().unwrap();
    let now = peer.now;
    peer.engine.grow(&mut peer.connection, now);
    assert!(!peer.connection.is_grown());
    // A connection that owes the guest an acknowledgement does not grow either.
    peer.send(ACK, 0, 9, b"data");
    peer.drain(&mut Vec::new());
    peer.engine.grow(&mut peer.connection, now);
    assert!(!peer.connection.is_grown());
    assert!(fill(&mut peer, b'x') <= RING_LEN);
}

#[test]
fn no_more_connections_grow_than_are_allowed_to() {
    let mut peer = Peer::open(&Opening { ring_len: RING_LEN, ..Opening::default() });
    let syn = Draft {
        seq: ISN,
        flags: SYN,
        options: packet::LINUX_OPTIONS.to_vec(),
        ..Draft::new("10.0.2.100:40001".parse().unwrap(), peer.to)
    };
    let now = peer.now;
    let other = accept(&mut peer.engine, &syn.packet(), now).unwrap();
    assert!(peer.engine.may_grow(&other));
    peer.engine.grow(&mut peer.connection, now);
    assert!(!peer.engine.may_grow(&other), "one is allowed");
    let Peer { mut engine, connection, .. } = peer;
    engine.retire(connection);
    assert!(engine.may_grow(&other), "its place is free again");
    assert!(accept(&mut engine, &syn.packet(), now).is_some());
}

#[test]
fn member_that_moves_bulk_data_leaves_the_others_their_part() {
    let engine = Engine::new(EngineConfig {
        mtu: 1500,
        offload: Offload::default(),
        ring_len: RING_LEN,
        bulk_flows: 4,
        ring_memory: usize::MAX,
        parts: 4,
        seed: 42,
    });
    let mut peer = Peer::open_with(engine, &Opening { ring_len: RING_LEN, ..Opening::default() });
    let now = peer.now;
    peer.engine.handle_member(MemberId(1), [peer.from.ip()].into_iter());
    peer.engine.grow(&mut peer.connection, now);
    assert!(peer.connection.is_grown());
    let mut may_grow = |from: &str| {
        let options = packet::LINUX_OPTIONS.to_vec();
        let draft = Draft::new(from.parse().unwrap(), peer.to);
        let syn = Draft { seq: ISN, flags: SYN, options, ..draft }.packet();
        let accepted = accept(&mut peer.engine, &syn, now).unwrap();
        peer.engine.may_grow(&accepted)
    };
    assert!(!may_grow("10.0.2.100:40001"), "one of four is a quarter");
    assert!(may_grow("10.0.2.101:40001"), "the other member has none");
}
