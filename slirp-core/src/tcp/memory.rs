//! The memory that the rings of all connections hold.
//!
//! Owns the count and its cap. A ring costs only the pages that were written to, so these pages are
//! counted instead of the allocation. A connection that carried one request holds two pages; a
//! connection that moved bulk data holds up to both of its rings. Pages that an earlier connection
//! wrote to count as well; above an eighth of the cap, connections get new rings.
//!
//! | [`Level`] | at most | what follows |
//! | --- | --- | --- |
//! | low | an eighth of the cap | rings are reused |
//! | moderate | half of the cap | connections get new rings |
//! | tight | the cap | quiet connections are parked or get new rings at once |
//! | exhausted | - | the connection that asks for another page is reset |
//!
//! While memory is tight the host is read in pieces of [`TIGHT_LEN`].
//!
//! Rings to the guest that have grown are counted by number as well. That number has a cap, too,
//! for each part and for the whole.
//!
//! An ordinary guest does not reach the cap. A hostile guest could open connections to a remote
//! that does not read, and fill the window of each; without a cap we would then hold `flows` times
//! both rings. Each member of a shared network has a part of the cap, so a hostile member hurts
//! only itself.
//!
//! Each connection holds one [`Lease`]. [`RingMemory::release`] takes the lease back by value when
//! the connection ends. A part whose member has left stays until its last lease is back.

use core::net::IpAddr;
use std::collections::BTreeMap;

use slab::Slab;

use crate::member::MemberId;

/// The smallest page of any machine that Linux runs on; larger pages are counted too low.
const PAGE: usize = 4096;
/// Most bytes that are read from the host at a time for a connection while memory is tight
/// (arbitrary: the largest segment, so that each read is still worth its system call).
pub(crate) const TIGHT_LEN: usize = 64 * 1024;
/// Bytes that a connection may hold for its next data however tight memory is: a page of each ring.
pub(super) const MIN_HELD: usize = 2 * PAGE;

/// How much of its cap a count has reached; see the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Level {
    Low,
    Moderate,
    Tight,
    Exhausted,
}

/// A count with its cap: the whole, or one part of it.
#[derive(Debug)]
struct Count {
    used: usize,
    cap: usize,
    /// Connections whose ring to the guest has grown.
    grown: usize,
    grown_cap: usize,
    leases: usize,
    /// Whether new connections may be counted here; false once the part's member has left.
    is_assigned: bool,
}

impl Count {
    const fn new(cap: usize, grown_cap: usize) -> Self {
        Self { used: 0, cap, grown: 0, grown_cap, leases: 0, is_assigned: true }
    }

    const fn part(&self, parts: usize) -> Self {
        Self::new(self.cap / parts, self.grown_cap.div_ceil(parts))
    }

    const fn level(&self) -> Level {
        if self.used <= self.cap / 8 {
            Level::Low
        } else if self.used <= self.cap / 2 {
            Level::Moderate
        } else if self.used <= self.cap {
            Level::Tight
        } else {
            Level::Exhausted
        }
    }
}

/// Index of a part; `None` for a guest without one.
type PartId = Option<usize>;

/// The counts of all connections.
#[derive(Debug)]
pub(super) struct RingMemory {
    whole: Count,
    parts: Slab<Count>,
    /// The part of guests without a part of their own.
    others: PartId,
    members: BTreeMap<MemberId, usize>,
    addresses: BTreeMap<IpAddr, MemberId>,
    /// One part is the whole divided by this; 1 when the whole is not split.
    divisor: usize,
}

impl RingMemory {
    /// At most `cap` bytes and `grown_cap` rings that have grown. Each guest with a part of its own
    /// (see [`assign`](Self::assign)), and all others together, may hold one in `divisor` of both.
    pub(super) fn new(cap: usize, grown_cap: usize, divisor: usize) -> Self {
        let whole = Count::new(cap, grown_cap);
        let mut parts = Slab::new();
        let others = (divisor > 1).then(|| parts.insert(whole.part(divisor)));
        let (members, addresses) = (BTreeMap::new(), BTreeMap::new());
        Self { whole, parts, others, members, addresses, divisor }
    }

    /// Gives the guest `id`, which has these addresses among others, a part of its own.
    pub(super) fn assign(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        if self.divisor > 1 && !self.members.contains_key(&id) {
            self.members.insert(id, self.parts.insert(self.whole.part(self.divisor)));
        }
        self.addresses.extend(addresses.map(|address| (address, id)));
    }

    /// Forgets the guest `id`. Its connections count against its part until they end.
    pub(super) fn unassign(&mut self, id: MemberId) {
        self.addresses.retain(|_, &mut member| member != id);
        if let Some(part) = self.members.remove(&id) {
            if let Some(count) = self.parts.get_mut(part) {
                count.is_assigned = false;
            }
            self.forget_if_unused(part);
        }
    }

    fn forget_if_unused(&mut self, part: usize) {
        if self.parts.get(part).is_some_and(|count| !count.is_assigned && count.leases == 0) {
            self.parts.remove(part);
        }
    }

    /// The level that decides about a new connection of `guest`.
    pub(super) fn level_for(&self, guest: IpAddr) -> Level {
        self.level_of(self.part_of(guest))
    }

    /// The level that decides about a connection of the guest that holds `lease`.
    pub(super) fn level(&self, lease: &Lease) -> Level {
        self.level_of(lease.part)
    }

    fn level_of(&self, part: PartId) -> Level {
        let whole = self.whole.level();
        self.part(part).map_or(whole, |part| part.level().max(whole))
    }

    fn part_of(&self, guest: IpAddr) -> PartId {
        let own = self.addresses.get(&guest).and_then(|id| self.members.get(id));
        own.copied().or(self.others)
    }

    fn part(&self, part: PartId) -> Option<&Count> {
        part.and_then(|part| self.parts.get(part))
    }

    /// Starts to count the rings of a new connection of `guest` with the pages that they hold
    /// already. They were taken at the pool's tick `leased_at`.
    pub(super) fn lease(
        &mut self,
        guest: IpAddr,
        [from_guest, to_guest]: [Extent; 2],
        leased_at: u64,
    ) -> Lease {
        let lease = Lease { part: self.part_of(guest), from_guest, to_guest, leased_at };
        let (held, grown) = (lease.held(), usize::from(lease.is_grown()));
        self.change(lease.part, |count| {
            count.used += held;
            count.grown += grown;
            count.leases += 1;
        });
        lease
    }

    /// Stops counting the memory of a connection.
    #[expect(clippy::needless_pass_by_value, reason = "a lease is given back once")]
    pub(super) fn release(&mut self, lease: Lease) {
        let (held, grown) = (lease.held(), usize::from(lease.is_grown()));
        self.change(lease.part, |count| {
            count.used -= held;
            count.grown -= grown;
            count.leases -= 1;
        });
        if let Some(part) = lease.part {
            self.forget_if_unused(part);
        }
    }

    /// The ring from the guest was written to as far as `end`, counted from its start.
    pub(super) fn note_from_guest(&mut self, lease: &mut Lease, end: usize) {
        let more = lease.from_guest.note_written(end);
        self.add(lease.part, more);
    }

    /// The ring to the guest was written to as far as `end`, counted from its start.
    pub(super) fn note_to_guest(&mut self, lease: &mut Lease, end: usize) {
        let more = lease.to_guest.note_written(end);
        self.add(lease.part, more);
    }

    fn add(&mut self, part: PartId, bytes: usize) {
        if bytes > 0 {
            self.change(part, |count| count.used += bytes);
        }
    }

    fn change(&mut self, part: PartId, change: impl Fn(&mut Count)) {
        change(&mut self.whole);
        if let Some(part) = part.and_then(|part| self.parts.get_mut(part)) {
            change(part);
        }
    }

    /// Whether another connection of the guest that holds `lease` may have a larger ring.
    pub(super) fn may_grow(&self, lease: &Lease) -> bool {
        core::iter::once(&self.whole)
            .chain(self.part(lease.part))
            .all(|count| count.grown < count.grown_cap)
    }

    /// Bytes that all rings hold.
    pub(super) const fn used(&self) -> usize {
        self.whole.used
    }

    /// Whether any connection has rings.
    pub(super) const fn is_in_use(&self) -> bool {
        self.whole.leases > 0
    }
}

/// What one connection holds. [`RingMemory`] writes it, and takes it back by value.
#[derive(Debug)]
pub(super) struct Lease {
    part: PartId,
    from_guest: Extent,
    to_guest: Extent,
    /// The ring pool's number of ticks when the rings were taken.
    leased_at: u64,
}

/// How far one ring was written to.
#[derive(Debug)]
pub(super) struct Extent {
    ring_len: usize,
    /// Bytes from the start of the ring, by this connection.
    written: usize,
    /// Bytes of whole pages that this connection or an earlier one wrote to.
    held: usize,
}

impl Extent {
    /// Of a ring of `ring_len` bytes, whose first `touched` were written to by earlier connections.
    pub(super) const fn new(ring_len: usize, touched: usize) -> Self {
        Self { ring_len, written: 0, held: in_pages(touched) }
    }

    /// Returns how many bytes more are held than before.
    fn note_written(&mut self, end: usize) -> usize {
        let end = end.min(self.ring_len);
        if end <= self.written {
            return 0;
        }
        self.written = end;
        let more = in_pages(end).saturating_sub(self.held);
        self.held += more;
        more
    }
}

impl Lease {
    /// Bytes of the ring from the guest; they decide the scale of our windows.
    pub(super) const fn receive_len(&self) -> usize {
        self.from_guest.ring_len
    }

    /// Bytes of the ring to the guest.
    pub(super) const fn send_len(&self) -> usize {
        self.to_guest.ring_len
    }

    /// How far this connection has written to the ring from the guest and to the ring to the guest.
    pub(super) const fn written(&self) -> (usize, usize) {
        (self.from_guest.written, self.to_guest.written)
    }

    /// Bytes of both rings, in whole pages.
    pub(super) const fn held(&self) -> usize {
        self.from_guest.held + self.to_guest.held
    }

    /// Bytes that new rings would hold less.
    pub(super) const fn excess(&self) -> usize {
        let (from_guest, to_guest) = self.written();
        self.held() - in_pages(from_guest) - in_pages(to_guest)
    }

    /// Whether the ring to the guest is a larger one.
    pub(super) const fn is_grown(&self) -> bool {
        self.send_len() > self.receive_len()
    }

    /// The pool's number of ticks when the rings were taken.
    pub(super) const fn leased_at(&self) -> u64 {
        self.leased_at
    }
}

/// `len` bytes in whole pages.
pub(super) const fn in_pages(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::rings::{RingPool, Rings};

    const GUEST: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 100));
    const OTHER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 101));

    fn rings() -> Rings {
        RingPool::new(64 * PAGE, 64 * PAGE).new_rings()
    }

    fn lease(memory: &mut RingMemory, guest: IpAddr) -> Lease {
        rings().lease(memory, guest, 0)
    }

    fn grown(memory: &mut RingMemory, guest: IpAddr) -> Lease {
        let rings = RingPool::new(PAGE, 2 * PAGE).grown_rings(Level::Low);
        let lease = lease(memory, guest);
        assert!(memory.may_grow(&lease));
        memory.release(lease);
        rings.lease(memory, guest, 0)
    }

    fn may_grow(memory: &mut RingMemory, guest: IpAddr) -> bool {
        let lease = lease(memory, guest);
        let may_grow = memory.may_grow(&lease);
        memory.release(lease);
        may_grow
    }

    #[test]
    fn pages_are_counted_once_and_given_back() {
        let mut memory = RingMemory::new(8 * PAGE, 0, 1);
        let mut first = lease(&mut memory, GUEST);
        memory.note_from_guest(&mut first, 1);
        memory.note_from_guest(&mut first, PAGE);
        memory.note_to_guest(&mut first, PAGE - 1);
        assert_eq!(first.held(), 2 * PAGE);
        memory.note_to_guest(&mut first, 3 * PAGE);
        memory.note_to_guest(&mut first, 2 * PAGE);
        assert_eq!(first.held(), 4 * PAGE);
        assert_eq!(memory.level(&first), Level::Moderate);
        let mut second = lease(&mut memory, OTHER);
        memory.note_from_guest(&mut second, 4 * PAGE);
        assert_eq!(memory.level(&second), Level::Tight);
        memory.note_from_guest(&mut second, 4 * PAGE + 1);
        assert_eq!(memory.level(&second), Level::Exhausted);
        assert_eq!(memory.level(&first), Level::Exhausted);
        memory.release(first);
        assert_eq!(memory.level(&second), Level::Tight);
        memory.release(second);
        assert!(!memory.is_in_use());
        assert_eq!(memory.level_for(GUEST), Level::Low);
    }

    #[test]
    fn pages_of_an_earlier_connection_count_as_held_and_not_as_written() {
        let mut memory = RingMemory::new(8 * PAGE, 0, 1);
        let mut pool = RingPool::new(64 * PAGE, 64 * PAGE);
        let mut earlier = rings().lease(&mut memory, GUEST, 0);
        memory.note_from_guest(&mut earlier, PAGE + 1);
        memory.note_to_guest(&mut earlier, 3 * PAGE);
        pool.give_back(rings(), &earlier);
        memory.release(earlier);
        let mut lease = pool.rings(Level::Low).lease(&mut memory, GUEST, 0);
        // The free list is a stack: the ring that came back last is the first to be used.
        memory.note_from_guest(&mut lease, 2 * PAGE);
        assert_eq!((lease.held(), lease.written()), (5 * PAGE, (2 * PAGE, 0)));
        assert_eq!(lease.excess(), 3 * PAGE);
        memory.note_to_guest(&mut lease, 4 * PAGE);
        assert_eq!(lease.held(), 7 * PAGE);
    }

    #[test]
    fn member_has_a_quarter_of_the_rings_that_may_grow() {
        let mut memory = RingMemory::new(usize::MAX, 8, 4);
        memory.assign(MemberId(1), [GUEST].into_iter());
        memory.assign(MemberId(2), [OTHER].into_iter());
        let first = grown(&mut memory, GUEST);
        let second = grown(&mut memory, GUEST);
        assert!(!may_grow(&mut memory, GUEST), "two of eight are a quarter");
        let others = [grown(&mut memory, OTHER), grown(&mut memory, OTHER)];
        memory.release(first);
        let third = grown(&mut memory, GUEST);
        assert!(!may_grow(&mut memory, GUEST) && !may_grow(&mut memory, OTHER));
        // With more members than parts, the whole is the limit.
        let mut rest = Vec::new();
        for last in 102..104 {
            let guest = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, last));
            memory.assign(MemberId(last.into()), [guest].into_iter());
            rest.extend([grown(&mut memory, guest), grown(&mut memory, guest)]);
        }
        memory.release(second);
        let another = grown(&mut memory, GUEST);
        let nested = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 9));
        assert!(!may_grow(&mut memory, nested));
        for lease in others.into_iter().chain(rest).chain([another]) {
            memory.release(lease);
        }
        assert!(may_grow(&mut memory, OTHER));
        memory.release(third);
    }

    #[test]
    fn member_that_has_used_up_its_part_does_not_affect_other_parts() {
        let mut memory = RingMemory::new(32 * PAGE, 0, 4);
        memory.assign(MemberId(1), [GUEST].into_iter());
        memory.assign(MemberId(2), [OTHER].into_iter());
        let mut hostile = lease(&mut memory, GUEST);
        memory.note_from_guest(&mut hostile, 9 * PAGE);
        assert_eq!(memory.level(&hostile), Level::Exhausted);
        assert_eq!(memory.level_for(GUEST), Level::Exhausted);
        let mut other = lease(&mut memory, OTHER);
        memory.note_to_guest(&mut other, 3 * PAGE);
        assert!(memory.level(&other) < Level::Tight);
        let nested = IpAddr::V4(core::net::Ipv4Addr::new(10, 9, 9, 9));
        assert!(memory.level_for(nested) < Level::Exhausted);
        // An address behind the member counts as the member's.
        memory.assign(MemberId(1), [nested].into_iter());
        assert_eq!(memory.level_for(nested), Level::Exhausted);
        assert!(memory.level_for(OTHER) < Level::Exhausted);
        // Connections outlive their member for a moment.
        memory.unassign(MemberId(1));
        assert_eq!(memory.level(&hostile), Level::Exhausted);
        memory.release(hostile);
        memory.assign(MemberId(3), [GUEST].into_iter());
        assert!(memory.level_for(nested) < Level::Tight);
        assert!(memory.level_for(GUEST) < Level::Tight);
    }

    #[test]
    fn part_of_a_member_that_has_left_goes_with_its_last_connection() {
        let mut memory = RingMemory::new(32 * PAGE, 0, 4);
        let others = memory.parts.len();
        memory.assign(MemberId(1), [GUEST].into_iter());
        let leases = [lease(&mut memory, GUEST), lease(&mut memory, GUEST)];
        memory.unassign(MemberId(1));
        for lease in leases {
            assert_eq!(memory.parts.len(), others + 1);
            memory.release(lease);
        }
        assert_eq!(memory.parts.len(), others);
        memory.assign(MemberId(1), [GUEST].into_iter());
        memory.unassign(MemberId(1));
        assert_eq!(memory.parts.len(), others);
    }
}
