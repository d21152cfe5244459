//! Rings that are reused by the next connection.

use super::packet::FIN;
use super::*;
use crate::rng::Rng;

const RING_LEN: usize = 128 * 1024;
const SEGMENT: usize = 1000;

fn opening() -> Opening {
    Opening { ring_len: RING_LEN, ..Opening::default() }
}

fn syn(peer: &Peer) -> Vec<u8> {
    let options = packet::LINUX_OPTIONS.to_vec();
    Draft { seq: ISN, flags: SYN, options, ..Draft::new(peer.from, peer.to) }.packet()
}

/// Ends the guest's connection and returns the engine.
fn end(peer: Peer) -> Engine {
    let Peer { mut engine, connection, .. } = peer;
    engine.retire(connection);
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
        let waiting = engine.pool.free();
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
    let (syn, now) = (syn(&peer), peer.now);
    let mut engine = end(peer);
    assert_eq!(engine.pool.free().len(), 2);
    let connection = accept(&mut engine, &syn, now).unwrap();
    assert!(engine.pool.free().is_empty());
    engine.retire(connection);
    assert_eq!(engine.pool.free().len(), 2);
    assert!(!engine.is_in_use());
}

#[test]
fn larger_ring_of_a_grown_connection_waits_for_another_that_grows() {
    let mut peer = Peer::open(&opening());
    let now = peer.now;
    peer.engine.grow(&mut peer.connection, now);
    assert!(peer.connection.is_grown());
    // It grew into other rings, and its former rings are free.
    let lens = |engine: &Engine| {
        let rings = engine.pool.free();
        assert!(rings.iter().flatten().all(|&byte| byte == 0));
        rings.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lens(&peer.engine), [RING_LEN; 2]);
    assert!(peer.queue(&vec![7; 8 * RING_LEN]) > RING_LEN);
    let syn = syn(&peer);
    let mut engine = end(peer);
    let [usual @ .., grown] = &lens(&engine)[..] else {
        panic!("no rings wait");
    };
    assert_eq!((usual, *grown), (&[RING_LEN; 3][..], 8 * RING_LEN));

    let connection = accept(&mut engine, &syn, now).unwrap();
    assert!(!connection.is_grown());
    assert_eq!(lens(&engine), [RING_LEN, 8 * RING_LEN], "it begins with rings of the usual length");
}

#[test]
fn rings_of_a_connection_that_the_engine_failed_are_not_used_again() {
    let mut peer = Peer::open(&opening());
    peer.connection.kill();
    assert!(end(peer).pool.free().is_empty());
}

#[test]
fn rings_of_a_connection_whose_engine_panicked_are_given_back_and_not_used_again() {
    let mut peer = Peer::open(&Opening { is_guarded: false, ..opening() });
    for at in 0..5 {
        // Beyond the window: see defect B1.
        peer.send(ACK, 60_000 * at, 0, &[1; 60_000]);
    }
    assert!(peer.is_engine_failed);
    let engine = end(peer);
    assert!(engine.pool.free().is_empty());
    assert!(!engine.is_in_use());
}

/// Otherwise a guest could hold far more memory than is counted, by opening and closing
/// connections.
#[test]
fn pages_that_another_connection_wrote_to_are_counted_and_not_used_again_when_memory_is_tight() {
    const WRITTEN: usize = 60 * 1024;
    let fill = |peer: &mut Peer| {
        let data = vec![1; WRITTEN];
        for (at, piece) in data.chunks(1000).enumerate() {
            peer.send(ACK, u32::try_from(1000 * at).unwrap(), 0, piece);
        }
        assert_eq!(peer.connection.held(), WRITTEN);
    };
    for (ring_memory, is_tight) in [(usize::MAX, false), (2 * WRITTEN - 1, true)] {
        let mut peer = Peer::open(&Opening { ring_memory, ..opening() });
        let (syn, now) = (syn(&peer), peer.now);
        let two = [(); 2].map(|()| accept(&mut peer.engine, &syn, now).unwrap());
        two.into_iter().for_each(|connection| peer.engine.retire(connection));
        assert_eq!(peer.engine.pool.free().len(), 4);
        fill(&mut peer);
        let other = accept(&mut peer.engine, &syn, now).unwrap();
        assert_eq!(peer.engine.pool.free().len(), if is_tight { 0 } else { 2 });
        peer.engine.retire(other);
        assert_eq!(peer.engine.pool.free().is_empty(), is_tight);
        let mut engine = end(peer);
        assert_eq!(engine.pool.free().is_empty(), is_tight);
        let next = accept(&mut engine, &syn, now).unwrap();
        assert_eq!(next.held(), if is_tight { 0 } else { WRITTEN });
    }
}

/// What one member of a shared network wrote must not use up another's part.
#[test]
fn guest_that_holds_an_eighth_of_its_memory_gets_untouched_rings() {
    const WRITTEN: usize = 60 * 1024;
    for (ring_memory, is_roomy) in [(8 * WRITTEN, true), (8 * WRITTEN - 8, false)] {
        let opening = Opening { ring_memory, ..opening() };
        let mut first = Peer::open(&opening);
        assert_eq!(first.queue(&[1; WRITTEN]), WRITTEN);
        let Peer { engine, connection: first, .. } = first;
        let mut second = Peer::open_with(engine, &opening);
        assert_eq!(second.queue(&[1; WRITTEN]), WRITTEN);
        second.engine.retire(first);
        assert_eq!(second.engine.pool.free().len(), 2);
        let (syn, now) = (syn(&second), second.now);
        let third = accept(&mut second.engine, &syn, now).unwrap();
        assert_eq!(third.held(), if is_roomy { WRITTEN } else { 0 });
        assert_eq!(second.engine.pool.free().len(), if is_roomy { 0 } else { 2 });
    }
}

#[test]
fn connection_that_stays_exchanges_what_it_does_not_need_for_new_rings() {
    const WRITTEN: usize = 100 * 1024;
    let mut bulk = Peer::open(&opening());
    assert_eq!(bulk.queue(&[1; WRITTEN]), WRITTEN);
    let mut peer = Peer::open_with(end(bulk), &opening());
    peer.send(ACK, 0, 0, b"request");
    peer.drain(&mut Vec::new());
    peer.queue(b"answer");
    assert!(peer.poll().is_some());
    assert_eq!(peer.connection.held(), WRITTEN + 4096);

    let mut at = peer.now;
    for ticks in 0..4 {
        let is_quiet = ticks == 3;
        if is_quiet {
            assert!(peer.send(ACK, 7, 6, &[]).is_none());
        }
        peer.engine.renew_early(&mut peer.connection, at);
        let is_renewed = peer.connection.held() == 0;
        assert_eq!(is_renewed, is_quiet, "after {ticks} ticks");
        at = peer.engine.poll_timeout().unwrap();
        peer.engine.handle_timeout(at);
    }
    peer.now = at;
    peer.send(ACK, 7, 6, b"again");
    let mut taken = Vec::new();
    peer.drain(&mut taken);
    assert_eq!(taken, b"again");
    peer.queue(b"and back");
    assert_eq!(&peer.poll().unwrap().payload[..], b"and back");
}

#[test]
fn unneeded_rings_are_freed_within_seconds_and_then_the_engine_rests() {
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
    assert!(engine.pool.free().is_empty());
    assert!(at <= start + Duration::from_secs(4));
}
