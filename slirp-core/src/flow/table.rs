//! The flow table: from a 5-tuple to a flow in one hash.
//!
//! # Theory of operation
//!
//! *Goals.* A packet finds its flow at the same cost whether there is one or 65,536. A name that the
//! host side still holds after its flow is gone finds nothing, never somebody else's flow. The guest
//! cannot choose keys that collide: the hasher is seeded.
//!
//! *Life cycle.* `insert` gives a flow a [`FlowId`]: a slot that is reused and a generation that is
//! not. `remove` frees the slot. The host side keeps its sockets in an array indexed by the slot.
//!
//! *Limits.* [`Limits::flows`](crate::config::Limits::flows) of all kinds together. A full table
//! refuses; nothing old is thrown out, so a flood cannot end conversations that were there before.
//!
//! *Deliberate omissions.* No least-recently-used eviction; idle UDP and echo flows expire by their
//! own timers, and idle TCP flows cost little because they are parked.

use std::collections::HashMap;

use foldhash::quality::FixedState;
use slab::Slab;

use super::summary::Traffic;
use super::{Flow, FlowKey};
use crate::discard::DiscardReason;
use crate::event::FlowId;
use crate::time::Instant;

/// A flow with what the table keeps beside it.
pub(crate) struct Entry {
    pub(crate) id: FlowId,
    pub(crate) key: FlowKey,
    pub(crate) flow: Flow,
    pub(crate) created_at: Instant,
    pub(crate) traffic: Traffic,
    /// The earliest hint for this flow in the timer heap.
    pub(crate) hinted_at: Option<Instant>,
    /// Whether the flow stands in the queue of flows that are to be pumped.
    pub(crate) is_ready: bool,
}

/// See the [module](self).
pub(crate) struct FlowTable {
    by_key: HashMap<FlowKey, u32, FixedState>,
    entries: Slab<Entry>,
    generation: u32,
    cap: usize,
}

impl FlowTable {
    pub(crate) fn new(cap: usize, seed: u64) -> Self {
        Self {
            by_key: HashMap::with_hasher(FixedState::with_seed(seed)),
            entries: Slab::new(),
            generation: 0,
            cap: cap.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a flow.
    ///
    /// # Errors
    /// [`DiscardReason::FlowTableFull`].
    pub(crate) fn insert(
        &mut self,
        key: FlowKey,
        flow: Flow,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        if self.entries.len() >= self.cap {
            return Err(DiscardReason::FlowTableFull);
        }
        let slot = self.entries.vacant_entry();
        // The cap fits 32 bits, and slots are handed out densely.
        let index = u32::try_from(slot.key()).map_err(|_| DiscardReason::FlowTableFull)?;
        self.generation = self.generation.wrapping_add(1);
        let id = FlowId { index, generation: self.generation };
        let traffic = Traffic::default();
        let entry =
            Entry { id, key, flow, created_at: now, traffic, hinted_at: None, is_ready: false };
        slot.insert(entry);
        self.by_key.insert(key, index);
        Ok(id)
    }

    pub(crate) fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        let &index = self.by_key.get(key)?;
        self.entries.get(slot(index)).map(|entry| entry.id)
    }

    pub(crate) fn entry_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries.get_mut(slot(id.index)).filter(|entry| entry.id == id)
    }

    pub(crate) fn entry(&self, id: FlowId) -> Option<&Entry> {
        self.entries.get(slot(id.index)).filter(|entry| entry.id == id)
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Entry> {
        self.entry(id)?;
        let entry = self.entries.remove(slot(id.index));
        self.by_key.remove(&entry.key);
        self.give_memory_back();
        Some(entry)
    }

    /// Every flow.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// The flows in the slots of `range`, and the slot to go on from; `None` at the end.
    ///
    /// Costs as much as there are slots in the range, whether or not they are in use.
    pub(crate) fn in_slots(
        &self,
        first: u32,
        count: u32,
    ) -> (impl Iterator<Item = &Entry>, Option<u32>) {
        let end = first.saturating_add(count);
        let has_more = slot(end) < self.entries.capacity();
        let entries = (first..end).filter_map(|index| self.entries.get(slot(index)));
        (entries, has_more.then_some(end))
    }

    /// After a burst the table shrinks to what is in use; a slab can only do that from its end.
    fn give_memory_back(&mut self) {
        if self.by_key.capacity() > 4096 && self.by_key.capacity() / 8 > self.by_key.len() {
            self.by_key.shrink_to(self.by_key.len() * 2);
            self.entries.shrink_to_fit();
        }
    }
}

fn slot(index: u32) -> usize {
    // Lossless on every platform that this runs on (16-bit ones have no TAP devices).
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{GuestSide, echo::EchoFlow};
    use crate::policy::Protocol;
    use crate::wire::MacAddr;
    use core::net::SocketAddr;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            protocol: Protocol::Echo,
            guest: SocketAddr::from(([10, 0, 2, 100], port)),
            remote: SocketAddr::from(([0, 0, 0, 0], 0)),
        }
    }

    fn flow(port: u16) -> Flow {
        let guest = GuestSide { address: key(port).guest, mac: MacAddr::default() };
        Flow::Echo(EchoFlow::new(guest, Instant::ZERO))
    }

    #[test]
    fn full_table_refuses_and_keeps_what_it_has() {
        let mut table = FlowTable::new(2, 7);
        let first = table.insert(key(1), flow(1), Instant::ZERO).unwrap();
        table.insert(key(2), flow(2), Instant::ZERO).unwrap();
        assert_eq!(table.insert(key(3), flow(3), Instant::ZERO), Err(DiscardReason::FlowTableFull));
        assert_eq!(table.lookup(&key(1)), Some(first));
        table.remove(first);
        assert!(table.insert(key(3), flow(3), Instant::ZERO).is_ok());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn old_name_does_not_find_the_next_user_of_its_slot() {
        let mut table = FlowTable::new(2, 7);
        let old = table.insert(key(1), flow(1), Instant::ZERO).unwrap();
        table.remove(old);
        let new = table.insert(key(1), flow(1), Instant::ZERO).unwrap();
        assert_eq!(old.index, new.index);
        assert!(table.entry(old).is_none());
        assert!(table.entry_mut(old).is_none());
        assert!(table.remove(old).is_none());
        assert!(table.entry(new).is_some());
    }
}
