//! Rings that go from one connection to the next.

use super::packet::FIN;
use super::*;
use crate::rng::Rng;

const RING_LEN: usize = 128 * 1024;
const SEGMENT: usize = 1000;

fn opening() -> Opening {
    Opening { ring_len: RING_LEN, ..Opening::default() }
}

/// Makes the guest's connection end, and has the engine make another for it.
fn end(peer: Peer) -> Engine {
    let Peer { engine, connection, .. } = peer;
    drop(connection);
    engine
}

/// Moves up to `rounds` pieces in both directions, some of the guest's with a gap in front of them.
fn talk(peer: &mut Peer, rng: &mut Rng, rounds: u32) {
    let (mut sent, mut acked) = (0_u32, 0_u32);
    for _ in 0..rounds {
        let piece = [0xa5_u8; 2 * SEGMENT];
        let (first, second) = piece.split_at(SEGMENT);
        let len = u32::try_from(SEGMENT).unwrap();
        let is_reordered = rng.next_u64().is_multiple_of(2);
        if is_reordered {
            peer.send(ACK, sent + len, acked, second);
        }
        peer.send(ACK, sent, acked, first);
        peer.send(ACK, sent + len, acked, second);
        sent += 2 * len;
        if !rng.next_u64().is_multiple_of(3) {
            peer.drain(&mut Vec::new());
        }
        let queued = peer.queue(&vec![0x5a; usize::try_from(rng.next_u64() % 5000).unwrap()]);
        peer.poll_all();
        if !rng.next_u64().is_multiple_of(3) {
            acked += u32::try_from(queued).unwrap();
            peer.send(ACK, sent, acked, &[]);
        }
    }
}

#[test]
fn rings_that_wait_read_as_zeros_whatever_the_connection_did_with_them() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut peer = Peer::open(&opening());
        // From a single piece to once around both rings and more.
        talk(&mut peer, &mut rng, 1 << (seed % 8));
        if seed % 5 == 0 {
            peer.send(FIN | ACK, 0, 0, &[]);
        }
        let engine = end(peer);
        let waiting = engine.supply.waiting();
        assert_eq!(waiting.len(), 2, "seed {seed}");
        for ring in waiting {
            assert_eq!(ring.len(), RING_LEN);
            assert!(ring.iter().all(|&byte| byte == 0), "seed {seed}");
        }
    }
}

#[test]
fn next_connection_gets_the_rings_of_the_last_one() {
    let mut peer = Peer::open(&opening());
    peer.send(ACK, 0, 0, b"of the first");
    let (from, to, now) = (peer.from, peer.to, peer.now);
    let mut engine = end(peer);
    assert_eq!(engine.supply.waiting().len(), 2);
    let syn = Draft {
        seq: ISN,
        flags: SYN,
        options: packet::LINUX_OPTIONS.to_vec(),
        ..Draft::new(from, to)
    };
    let connection = engine.accept(&syn.packet(), now).unwrap();
    assert!(engine.supply.waiting().is_empty());
    drop(connection);
    assert_eq!(engine.supply.waiting().len(), 2);
}

#[test]
fn larger_ring_of_a_grown_connection_waits_for_another_that_grows() {
    let mut peer = Peer::open(&opening());
    let now = peer.now;
    peer.engine.grow(&mut peer.connection, now);
    assert!(peer.connection.is_grown());
    // It grew into rings of its own, and those that it had before wait.
    let lens = |engine: &Engine| {
        let rings = engine.supply.waiting();
        assert!(rings.iter().flatten().all(|&byte| byte == 0));
        rings.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lens(&peer.engine), [RING_LEN; 2]);
    assert!(peer.queue(&vec![7; 8 * RING_LEN]) > RING_LEN);
    let (from, to) = (peer.from, peer.to);
    let mut engine = end(peer);
    let [usual @ .., grown] = &lens(&engine)[..] else {
        panic!("no rings wait");
    };
    assert_eq!((usual, *grown), (&[RING_LEN; 3][..], 8 * RING_LEN));

    let syn = Draft {
        seq: ISN,
        flags: SYN,
        options: packet::LINUX_OPTIONS.to_vec(),
        ..Draft::new(from, to)
    };
    let connection = engine.accept(&syn.packet(), now).unwrap();
    assert!(!connection.is_grown());
    assert_eq!(lens(&engine), [RING_LEN, 8 * RING_LEN], "it begins with rings of the usual length");
}

#[test]
fn rings_that_nobody_needs_are_given_up_within_seconds_and_then_the_engine_rests() {
    let mut peer = Peer::open(&opening());
    let start = peer.now;
    peer.send(ACK, 0, 0, b"data");
    let at = peer.engine.poll_timeout().unwrap();
    peer.engine.handle_timeout(at);
    let mut engine = end(peer);
    let mut at = at;
    while let Some(next) = engine.poll_timeout() {
        assert!(next > at, "a timer never rests");
        at = next;
        engine.handle_timeout(at);
    }
    assert!(engine.supply.waiting().is_empty());
    assert!(at <= start + Duration::from_secs(8));
}
