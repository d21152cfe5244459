//! Who stands in line for tokens, and who comes next.
//!
//! Owns the order: deficit round robin (Shreedhar and Varghese, 1996) with a list of fresh flows
//! ahead of it (RFC 8290 section 4.2). A flow that wants tokens for the first time in a round comes
//! first, so that a login beside downloads waits for one packet and not for one of each download. A
//! flow that was served stays in the line until it would be its turn again, even if it wants
//! nothing more: otherwise a flow that wants little at a time would be fresh each time.
//!
//! Otherwise fresh flows that come all the time would leave nothing to the old ones. So they take
//! no more than a quantum in each round, together, ahead of the old ones. Beyond that each flow has
//! its turn in the order in which it came.
//!
//! | entry | is | left by |
//! | --- | --- | --- |
//! | fresh | mostly ahead of all that were served in this round | its credit or want is used up |
//! | old | behind all that came before it | it was idle when its turn came |
//! | idle, of either | passed over when its turn comes | it wants something again |

use std::collections::BTreeMap;

use super::bucket::PACKET;
use crate::event::FlowId;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum List {
    Fresh,
    Old,
}

/// Where an entry stands: the least of a list comes next there. The number is the time at which it
/// came there.
type Place = (List, u64);

#[derive(Debug)]
struct Entry {
    place: Place,
    /// Bytes that it may still take in this round.
    credit: u64,
    is_idle: bool,
}

/// See the [module](self). Costs the logarithm of its length for every step.
#[derive(Debug)]
pub(super) struct Line {
    /// What each may take in a round, in bytes of IP packets.
    quantum: u64,
    order: BTreeMap<Place, FlowId>,
    entries: BTreeMap<FlowId, Entry>,
    /// Entries that are not idle.
    waiting: usize,
    /// The number of the next place.
    next: u64,
    /// Bytes that fresh flows may still take ahead of old ones in this round.
    ahead: u64,
    /// The round is over when an old flow with this number has its turn, or a later one.
    round_end: u64,
}

impl Line {
    pub(super) const fn new(quantum: u64) -> Self {
        Self {
            quantum,
            order: BTreeMap::new(),
            entries: BTreeMap::new(),
            waiting: 0,
            next: 0,
            ahead: quantum,
            round_end: 0,
        }
    }

    pub(super) const fn set_quantum(&mut self, quantum: u64) {
        self.quantum = quantum;
    }

    /// The flow whose turn it is.
    pub(super) fn head(&mut self) -> Option<FlowId> {
        let fresh = self.first(List::Fresh);
        let Some((old_at, old)) = self.first(List::Old) else { return fresh.map(|(_, flow)| flow) };
        if old_at >= self.round_end {
            (self.round_end, self.ahead) = (self.next + 1, self.quantum);
        }
        let fresh = fresh.filter(|&(at, _)| self.ahead > 0 || at < old_at);
        Some(fresh.map_or(old, |(_, flow)| flow))
    }

    /// The first of a list that wants something, and its number. Those before it leave.
    fn first(&mut self, list: List) -> Option<(u64, FlowId)> {
        loop {
            let (&place, &flow) = self.order.range((list, 0)..=(list, u64::MAX)).next()?;
            if self.entries.get(&flow).is_some_and(|entry| !entry.is_idle) {
                return Some((place.1, flow));
            }
            self.order.remove(&place);
            self.entries.remove(&flow);
        }
    }

    /// Whether it is the turn of `flow`, or would be if it wanted something.
    pub(super) fn is_turn_of(&mut self, flow: FlowId) -> bool {
        self.head().is_none_or(|head| {
            let is_new = !self.entries.contains_key(&flow);
            head == flow || (is_new && !self.is_fresh(head) && self.ahead > 0)
        })
    }

    /// Whether `flow` has not been served in this round.
    pub(super) fn is_fresh(&self, flow: FlowId) -> bool {
        self.entries.get(&flow).is_none_or(|entry| entry.place.0 == List::Fresh)
    }

    /// Bytes that `flow` may take in this round.
    pub(super) fn credit(&self, flow: FlowId) -> u64 {
        self.entries.get(&flow).map_or(self.quantum, |entry| entry.credit)
    }

    /// Whether a flow other than `flow` waits.
    pub(super) fn has_others(&self, flow: FlowId) -> bool {
        let is_waiting = self.entries.get(&flow).is_some_and(|entry| !entry.is_idle);
        self.waiting > usize::from(is_waiting)
    }

    /// The flows that wait, in no particular order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = FlowId> {
        self.entries.iter().filter(|(_, entry)| !entry.is_idle).map(|(&flow, _)| flow)
    }

    /// `flow` has taken `bytes`, which may be none, and `wants` more or not.
    pub(super) fn note(&mut self, flow: FlowId, bytes: u64, wants: bool) {
        let credit = self.credit(flow).saturating_sub(bytes);
        let is_known = self.entries.contains_key(&flow);
        if self.is_fresh(flow) {
            self.ahead = self.ahead.saturating_sub(bytes);
        }
        if bytes == 0 {
            match (is_known, wants) {
                (true, _) => self.set_idle(flow, !wants),
                (false, true) => self.put(flow, List::Fresh, credit, false),
                (false, false) => {}
            }
        } else if !wants {
            let has_others = self.has_others(flow);
            self.remove(flow);
            if has_others {
                self.put(flow, List::Old, self.quantum, true);
            }
        } else if credit < PACKET {
            self.put(flow, List::Old, credit.saturating_add(self.quantum), false);
        } else if let Some(entry) = self.entries.get_mut(&flow) {
            entry.credit = credit;
            self.set_idle(flow, false);
        } else {
            self.put(flow, List::Fresh, credit, false);
        }
    }

    /// The turn of `flow` passes to the next one; `flow` may take more when it comes again.
    pub(super) fn rotate(&mut self, flow: FlowId) {
        let credit = self.credit(flow).saturating_add(self.quantum);
        self.put(flow, List::Old, credit, false);
    }

    pub(super) fn remove(&mut self, flow: FlowId) {
        if let Some(entry) = self.entries.remove(&flow) {
            self.order.remove(&entry.place);
            self.waiting -= usize::from(!entry.is_idle);
        }
    }

    fn set_idle(&mut self, flow: FlowId, is_idle: bool) {
        if let Some(entry) = self.entries.get_mut(&flow) {
            self.waiting += usize::from(entry.is_idle);
            entry.is_idle = is_idle;
            self.waiting -= usize::from(is_idle);
        }
    }

    /// Puts `flow` at the end of a list.
    fn put(&mut self, flow: FlowId, list: List, credit: u64, is_idle: bool) {
        self.remove(flow);
        self.next += 1;
        let place = (list, self.next);
        self.order.insert(place, flow);
        self.entries.insert(flow, Entry { place, credit, is_idle });
        self.waiting += usize::from(!is_idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FlowId = FlowId { index: 1, generation: 1 };
    const B: FlowId = FlowId { index: 2, generation: 2 };
    const C: FlowId = FlowId { index: 3, generation: 3 };

    #[test]
    fn flows_take_turns_of_a_quantum() {
        let mut line = Line::new(3000);
        for flow in [A, B, C] {
            line.note(flow, 0, true);
        }
        let mut served = Vec::new();
        for _ in 0..6 {
            let head = line.head().unwrap();
            served.push(head);
            line.note(head, 3000, true);
        }
        assert_eq!(served, [A, B, C, A, B, C]);
        assert!(line.has_others(A) && line.waiting().count() == 3);
    }

    #[test]
    fn rest_of_the_credit_counts_in_the_next_round() {
        let mut line = Line::new(3000);
        line.note(A, 0, true);
        line.note(A, 1000, true);
        assert_eq!((line.head(), line.credit(A), line.is_fresh(A)), (Some(A), 2000, true));
        line.note(A, 1000, true);
        assert_eq!((line.credit(A), line.is_fresh(A)), (4000, false));
        line.rotate(A);
        assert_eq!(line.credit(A), 7000);
    }

    #[test]
    fn fresh_flow_comes_first_once_a_round() {
        let mut line = Line::new(1500);
        for flow in [A, B] {
            line.note(flow, 1500, true);
        }
        assert!(line.is_turn_of(A) && !line.is_turn_of(B));
        assert!(line.is_turn_of(C), "it has had nothing in this round");
        line.note(C, 100, false);
        assert!(!line.is_turn_of(C), "it was served a moment ago");
        line.note(C, 0, true);
        for head in [A, B, C] {
            assert_eq!(line.head(), Some(head));
            line.note(head, 1500, head != C);
        }
        // Idle when its turn comes: it leaves, and is fresh again.
        assert!(!line.is_turn_of(C));
        line.note(A, 1500, true);
        line.note(B, 1500, true);
        assert_eq!(line.head(), Some(A));
        assert!(line.is_turn_of(C));
    }

    #[test]
    fn last_one_leaves_nothing_behind() {
        let mut line = Line::new(1500);
        line.note(A, 1500, true);
        line.note(B, 0, true);
        line.note(B, 0, false);
        line.note(A, 1500, false);
        assert_eq!((line.head(), line.waiting), (None, 0));
        assert!(line.entries.is_empty() && line.order.is_empty());
        line.note(A, 0, true);
        line.remove(A);
        assert_eq!((line.head(), line.waiting), (None, 0));
    }
}
