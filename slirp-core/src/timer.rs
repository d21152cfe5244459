//! Deadlines with the names of their owners.
//!
//! Owns a binary heap with lazy deletion: an entry is only a hint that its owner wanted to be
//! looked at. The owner keeps its true deadline and the time of its earliest hint: one that stands for
//! another time has been overtaken, and is dropped. So a moved deadline costs nothing until the old
//! hint fires, and an owner leaves at most one hint behind for each time that it fires. Entries of equal time fire in the order
//! in which they were added, so that runs repeat byte for byte.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::event::FlowId;
use crate::time::Instant;

/// Who asked to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerOwner {
    /// One flow: retransmission, delayed acknowledgement, idle expiry, parking, give-up.
    Flow(FlowId),
    /// The reassembler: a datagram that did not become whole.
    Reassembly,
    /// The DNS service: a query without an answer.
    Dns,
    /// Guests whose MAC address is asked for.
    Inquiries,
    /// The router advertiser.
    RouterAdvertisement,
    /// The TCP engine: memory that no connection needs any more.
    Engine,
}

/// A heap of hints, earliest first.
#[derive(Debug, Default)]
pub struct TimerHeap {
    heap: BinaryHeap<Reverse<Entry>>,
    added: u64,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    order: u64,
    owner: TimerOwner,
}

impl TimerHeap {
    /// Asks that `owner` be looked at once `at` has passed.
    pub fn push(&mut self, at: Instant, owner: TimerOwner) {
        self.added = self.added.wrapping_add(1);
        self.heap.push(Reverse(Entry { at, order: self.added, owner }));
    }

    /// The earliest hint.
    pub fn next(&self) -> Option<(Instant, TimerOwner)> {
        self.heap.peek().map(|Reverse(entry)| (entry.at, entry.owner))
    }

    /// Takes the earliest hint that is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, TimerOwner)> {
        if self.heap.peek()?.0.at > now {
            return None;
        }
        self.pop()
    }

    /// Takes the earliest hint.
    pub fn pop(&mut self) -> Option<(Instant, TimerOwner)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.owner))
    }

    /// Keeps the hints of which `is_awaited` says so.
    pub fn retain(&mut self, is_awaited: impl Fn(Instant, TimerOwner) -> bool) {
        self.heap.retain(|Reverse(entry)| is_awaited(entry.at, entry.owner));
    }

    /// How many hints are held, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no hint is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Gives memory back after a burst: keeps at most twice what is in use.
    pub fn shrink(&mut self) {
        let in_use = self.heap.len();
        if self.heap.capacity() > 4096 && self.heap.capacity() / 4 > in_use {
            self.heap.shrink_to(in_use * 2);
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_fire_by_time_and_then_by_order_of_arrival() {
        let mut heap = TimerHeap::default();
        let at = Instant::from_micros;
        heap.push(at(20), TimerOwner::Dns);
        heap.push(at(10), TimerOwner::Reassembly);
        heap.push(at(10), TimerOwner::RouterAdvertisement);
        assert_eq!(heap.next(), Some((at(10), TimerOwner::Reassembly)));
        assert_eq!(heap.pop_due(at(9)), None);
        assert_eq!(heap.pop_due(at(10)), Some((at(10), TimerOwner::Reassembly)));
        assert_eq!(heap.pop_due(at(10)), Some((at(10), TimerOwner::RouterAdvertisement)));
        assert_eq!(heap.pop_due(at(10)), None);
        assert_eq!(heap.pop_due(at(30)), Some((at(20), TimerOwner::Dns)));
        assert!(heap.is_empty());
    }
}
