//! When the ring to the guest of a flow grows.
//!
//! With a larger ring the host is read while the guest works on what it got before. The ring can be
//! exchanged only while it is empty, so a flow that is to grow lets it run empty, once.

use crate::tcp::{Connection, Engine, TIGHT_LEN};
use crate::time::Instant;

/// A flow that was given this many bytes since it woke moves bulk data, and its ring to the guest
/// grows (1 MiB: by then the few dozen microseconds that this takes are nothing).
const GROW_AFTER: usize = 1024 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Growth {
    /// Bytes that the guest was given since the flow woke or tried to grow.
    bytes: usize,
}

impl Growth {
    pub(super) const fn new() -> Self {
        Self { bytes: 0 }
    }

    pub(super) const fn on_given(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Exchanges the rings of `connection` where that is due and possible. Returns how many bytes
    /// may be read from the host now: none while the ring is to run empty. While memory is tight
    /// every flow lets its ring run empty and goes on with new rings: the guest's acknowledgement
    /// wakes it.
    pub(super) fn make_room(
        &mut self,
        connection: &mut Connection,
        engine: &mut Engine,
        now: Instant,
    ) -> usize {
        let wants_growth = self.bytes >= GROW_AFTER && engine.may_grow(connection);
        if wants_growth && connection.queued_to_guest() == 0 {
            self.bytes = 0;
            engine.grow(connection, now);
        }
        engine.renew_early(connection, now);
        let is_tight = engine.is_memory_tight(connection);
        let waits_to_grow = wants_growth && self.bytes > 0;
        if waits_to_grow || (is_tight && connection.queued_to_guest() > 0) {
            0
        } else if is_tight {
            TIGHT_LEN
        } else {
            usize::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::tests::packet::ACK;
    use crate::tcp::tests::{Opening, Peer};

    /// How many bytes `growth` lets the connection of `peer` read from the host now.
    fn room(growth: &mut Growth, peer: &mut Peer) -> usize {
        growth.make_room(&mut peer.connection, &mut peer.engine, peer.now)
    }

    #[test]
    fn ring_grows_once_it_is_empty_after_a_mebibyte() {
        let mut peer = Peer::open(&Opening::default());
        let mut growth = Growth::new();
        growth.on_given(1024 * 1024 - 1);
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        assert!(!peer.connection.is_grown(), "a byte too early");

        peer.queue(b"x");
        growth.on_given(1);
        assert_eq!(room(&mut growth, &mut peer), 0, "the ring is to run empty");
        assert!(!peer.connection.is_grown());

        peer.poll().unwrap();
        assert!(peer.send(ACK, 0, 1, &[]).is_none());
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        assert!(peer.connection.is_grown());
    }

    #[test]
    fn flow_that_may_not_grow_does_not_let_its_ring_run_empty() {
        let mut peer = Peer::open(&Opening { bulk_flows: 0, ..Opening::default() });
        let mut growth = Growth::new();
        growth.on_given(10 * 1024 * 1024);
        peer.queue(b"x");
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        assert!(!peer.connection.is_grown());
    }

    #[test]
    fn flow_that_could_not_grow_tries_again_after_another_mebibyte() {
        let mut peer = Peer::open(&Opening::default());
        let mut growth = Growth::new();
        growth.on_given(1024 * 1024);
        // The stack owes the guest an acknowledgement, so the rings cannot be exchanged.
        peer.send(ACK, 0, 0, b"data");
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        peer.drain(&mut Vec::new());
        peer.poll().unwrap();
        growth.on_given(1024 * 1024 - 1);
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        assert!(!peer.connection.is_grown());
        growth.on_given(1);
        assert_eq!(room(&mut growth, &mut peer), usize::MAX);
        assert!(peer.connection.is_grown());
    }

    #[test]
    fn tight_memory_lets_the_ring_run_empty_and_small_pieces_follow() {
        let mut peer = Peer::open(&Opening { ring_memory: 3 * 4096, ..Opening::default() });
        let mut growth = Growth::new();
        assert_eq!(peer.queue(&[b'x'; 5000]), 5000);
        assert_eq!(room(&mut growth, &mut peer), 0, "two pages of three");
        while peer.poll().is_some() {}
        assert!(peer.send(ACK, 0, 5000, &[]).is_none());
        assert_eq!(room(&mut growth, &mut peer), 64 * 1024);
    }
}
