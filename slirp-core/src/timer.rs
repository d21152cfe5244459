//! When each owner of a deadline is to be looked at.
//!
//! Owns a binary heap of hints with lazy deletion, and for each owner its one live hint. An owner
//! keeps its true deadline to itself and asks to be looked at by then. Moving a deadline to a later
//! time is free: the owner is looked at once in vain, and asks again. An earlier time overtakes the
//! live hint, which stays in the heap as a stale one and is dropped when its time comes, or when
//! there are too many of them. Hints of equal time fire in the order in which they were added, so
//! that runs repeat byte for byte.

use core::cmp::Reverse;
use core::num::NonZeroU64;
use std::collections::BinaryHeap;

use crate::event::FlowId;
use crate::time::Instant;

/// Stale hints that the heap may hold beyond one for each live hint: 32 bytes each (arbitrary).
const STALE_CAP: usize = 1024;
/// Hints, and places of live hints, for which memory is kept (arbitrary: 192 KiB together).
const KEPT: usize = 4096;
/// Owners that are no flows.
const SERVICES: usize = 7;

/// Who asked to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
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
    /// The egress policy: addresses that the DNS has tied to names, and flows that are to be judged
    /// anew.
    Egress,
    /// The shaper: a flow that waits for its part of a limited rate.
    Shaper,
}

impl TimerOwner {
    /// Where the owner's live hint stands. A flow has the place of its slot in the flow table.
    const fn place(self) -> usize {
        match self {
            Self::Reassembly => 0,
            Self::Dns => 1,
            Self::Inquiries => 2,
            Self::RouterAdvertisement => 3,
            Self::Engine => 4,
            Self::Egress => 5,
            Self::Shaper => 6,
            // Lossless: there are no 16-bit platforms with TAP devices.
            Self::Flow(id) => SERVICES + id.index as usize,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<Hint>>,
    /// By [`place`](TimerOwner::place).
    live: Vec<Option<Live>>,
    /// Number of live hints.
    live_count: usize,
    /// Places that [`tidy`](Self::tidy) may drop: each hint that is forgotten pays for one, so that
    /// a flow that comes and goes in the last of many places does not cost all of them each time.
    forgotten: usize,
    added: NonZeroU64,
}

/// One owner's hint that counts.
#[derive(Clone, Copy, Debug)]
struct Live {
    at: Instant,
    /// Tells the hint from stale ones, also of earlier users of a slot.
    order: NonZeroU64,
}

#[derive(PartialEq, Eq, Debug)]
struct Hint {
    at: Instant,
    order: NonZeroU64,
    owner: TimerOwner,
}

impl Default for Schedule {
    fn default() -> Self {
        let live = vec![None; SERVICES];
        let added = NonZeroU64::MIN;
        Self { heap: BinaryHeap::new(), live, live_count: 0, forgotten: 0, added }
    }
}

impl Schedule {
    /// Asks that `owner` be looked at once `at` has passed. Does nothing without a time, or if the
    /// owner is looked at earlier anyway, as with most packets of a flow.
    #[inline]
    pub(crate) fn ask(&mut self, owner: TimerOwner, at: Option<Instant>) {
        let live = self.live.get(owner.place()).copied().flatten();
        if let Some(at) = at
            && live.is_none_or(|live| at < live.at)
        {
            self.add(owner, at);
        }
    }

    // Apart from the comparison above, which is made for every packet.
    #[inline(never)]
    fn add(&mut self, owner: TimerOwner, at: Instant) {
        let place = owner.place();
        if place >= self.live.len() {
            self.live.resize(place + 1, None);
        }
        let live = &mut self.live[place];
        self.live_count += usize::from(live.is_none());
        self.added = self.added.saturating_add(1);
        *live = Some(Live { at, order: self.added });
        self.heap.push(Reverse(Hint { at, order: self.added, owner }));
    }

    /// Does not look at `owner` any more, until it asks again. A flow's slot is free for another
    /// flow then.
    pub(crate) fn forget(&mut self, owner: TimerOwner) {
        if let Some(live) = self.live.get_mut(owner.place())
            && live.take().is_some()
        {
            self.live_count -= 1;
            self.forgotten = (self.forgotten + 1).min(self.live.len());
        }
    }

    /// The earliest live hint. Drops the stale ones before it.
    pub(crate) fn next(&mut self) -> Option<(Instant, TimerOwner)> {
        loop {
            let Reverse(hint) = self.heap.peek()?;
            if is_live(&self.live, hint) {
                return Some((hint.at, hint.owner));
            }
            self.heap.pop();
        }
    }

    /// Takes the earliest live hint that is due at `now`. Its owner is looked at and asks again.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<TimerOwner> {
        let (at, owner) = self.next()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        self.forget(owner);
        Some(owner)
    }

    /// Drops stale hints if there are too many, and gives memory back after a burst.
    pub(crate) fn tidy(&mut self) {
        if self.heap.len() > 2 * self.live_count + STALE_CAP {
            self.heap.retain(|Reverse(hint)| is_live(&self.live, hint));
        }
        while self.forgotten > 0
            && self.live.len() > SERVICES
            && self.live.pop_if(|last| last.is_none()).is_some()
        {
            self.forgotten -= 1;
        }
        if is_spacious(self.heap.capacity(), self.heap.len()) {
            self.heap.shrink_to(self.heap.len() * 2);
        }
        if is_spacious(self.live.capacity(), self.live.len()) {
            self.live.shrink_to(self.live.len() * 2);
        }
    }

    /// Number of hints, stale ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

/// Whether memory for `capacity` elements is more than enough for the `len` that are left.
const fn is_spacious(capacity: usize, len: usize) -> bool {
    capacity > KEPT && capacity / 4 > len
}

fn is_live(live: &[Option<Live>], hint: &Hint) -> bool {
    live.get(hint.owner.place()).is_some_and(|live| live.is_some_and(|it| it.order == hint.order))
}

impl PartialOrd for Hint {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Hint {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Option<Instant> {
        Some(Instant::from_micros(micros))
    }

    fn flow(index: u32, generation: u32) -> TimerOwner {
        TimerOwner::Flow(FlowId { index, generation })
    }

    fn due(schedule: &mut Schedule, micros: u64) -> Vec<TimerOwner> {
        core::iter::from_fn(|| schedule.pop_due(Instant::from_micros(micros))).collect()
    }

    #[test]
    fn hints_fire_by_time_and_then_by_order_of_arrival() {
        let mut schedule = Schedule::default();
        schedule.ask(TimerOwner::Dns, at(20));
        schedule.ask(TimerOwner::Reassembly, at(10));
        schedule.ask(TimerOwner::RouterAdvertisement, at(10));
        schedule.ask(TimerOwner::Engine, None);
        assert_eq!(schedule.next(), Some((Instant::from_micros(10), TimerOwner::Reassembly)));
        assert_eq!(due(&mut schedule, 9), []);
        let expected = [TimerOwner::Reassembly, TimerOwner::RouterAdvertisement];
        assert_eq!(due(&mut schedule, 10), expected);
        assert_eq!(due(&mut schedule, 30), [TimerOwner::Dns]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn owner_is_looked_at_by_the_earliest_time_it_asked_for() {
        let mut schedule = Schedule::default();
        for micros in [20, 10, 30] {
            schedule.ask(flow(3, 1), at(micros));
        }
        assert_eq!(schedule.len(), 2, "a later time leaves no hint");
        assert_eq!(due(&mut schedule, 10), [flow(3, 1)]);
        // It asks for the time of its stale hint.
        schedule.ask(flow(3, 1), at(20));
        assert_eq!(due(&mut schedule, 20), [flow(3, 1)], "once");
        assert_eq!((schedule.next(), schedule.len()), (None, 0));
    }

    #[test]
    fn next_user_of_a_slot_is_not_mistaken_for_the_last() {
        let mut schedule = Schedule::default();
        schedule.ask(flow(3, 1), at(10));
        schedule.forget(flow(3, 1));
        schedule.ask(flow(3, 2), at(10));
        assert_eq!(due(&mut schedule, 10), [flow(3, 2)]);
        schedule.forget(flow(1000, 1));
    }

    #[test]
    fn stale_hints_are_bounded() {
        let mut schedule = Schedule::default();
        for index in 0..10_000 {
            schedule.ask(flow(index, 1), at(1000));
            schedule.forget(flow(index, 1));
            schedule.tidy();
            assert!(schedule.len() <= STALE_CAP);
        }
        schedule.ask(TimerOwner::Dns, at(5));
        schedule.tidy();
        assert_eq!(due(&mut schedule, 2000), [TimerOwner::Dns]);
    }

    #[test]
    fn memory_of_a_burst_is_given_back() {
        let mut schedule = Schedule::default();
        for index in 0..10_000 {
            schedule.ask(flow(index, 1), at(1));
        }
        assert_eq!(due(&mut schedule, 1).len(), 10_000);
        schedule.ask(flow(7, 2), at(3));
        schedule.tidy();
        assert!(schedule.heap.capacity() < 100 && schedule.live.capacity() < 100);
        assert_eq!(due(&mut schedule, 3), [flow(7, 2)]);
    }

    #[test]
    fn memory_of_places_is_given_back_when_the_last_flow_of_a_burst_ends() {
        let mut schedule = Schedule::default();
        let last = flow(65_535, 1);
        for index in 0..=65_535 {
            schedule.ask(flow(index, 1), at(10));
        }
        for index in 0..65_535 {
            schedule.forget(flow(index, 1));
            schedule.tidy();
        }
        assert!(schedule.heap.capacity() <= KEPT, "{}", schedule.heap.capacity());
        assert!(schedule.live.capacity() > 65_535, "the last place is in use");
        schedule.forget(last);
        schedule.tidy();
        assert!(schedule.live.capacity() <= KEPT, "{}", schedule.live.capacity());
    }

    #[test]
    fn flow_that_comes_and_goes_in_a_high_place_pays_for_few_places() {
        let mut schedule = Schedule::default();
        for _ in 0..10 {
            schedule.ask(flow(65_535, 1), at(10));
            schedule.forget(flow(65_535, 1));
            let places = schedule.live.len();
            schedule.tidy();
            assert!(places - schedule.live.len() <= 1);
        }
    }

    #[test]
    fn live_hint_takes_16_bytes() {
        assert_eq!(size_of::<Option<Live>>(), 16);
    }
}
