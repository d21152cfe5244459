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
