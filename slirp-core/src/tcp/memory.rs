//! What the rings of all connections hold of the machine's memory.
//!
//! Owns the count and its cap. A ring costs only the pages that were written to, so these are counted, not
//! what was allocated: a connection that carried one request holds two pages, one that moved bulk data up to
//! both of its rings. What another connection wrote to a ring before counts as well; beyond an eighth of the
//! cap, connections get new ones.
//!
//! | state of the count | what follows |
//! | --- | --- |
//! | below half of the cap | nothing |
//! | tight | quiet connections are parked or get new rings at once, and the host is read in pieces of [`TIGHT_LEN`] |
//! | exhausted | the connection that asks for another page is reset |
//!
//! Rings to the guest that have grown are counted by number as well: in one part and in the whole, no more than
//! its cap.
//!
//! An honest guest does not get there. A hostile one that opens connections to a remote which does not
//! read, and fills the window of each, could otherwise have us hold `flows` times both rings. Each member of
//! a shared network has a part of the cap, so that it hurts only itself.

use core::cell::Cell;
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::member::MemberId;

/// The smallest page of any machine that Linux runs on; larger ones are counted too low.
const PAGE: usize = 4096;
/// What is taken from the host for a connection at a time while memory is tight (arbitrary: the largest
/// segment, so that each is still worth its system calls).
pub(crate) const TIGHT_LEN: usize = 64 * 1024;
/// What a connection may hold for its next bytes however tight memory is: a page of each ring.
pub(super) const LEAST: usize = 2 * PAGE;

/// A count with its cap, and the larger one that it is a part of.
#[derive(Debug)]
struct Pool {
    used: AtomicUsize,
    cap: usize,
    /// Connections whose ring to the guest has grown.
    grown: AtomicUsize,
    grown_cap: usize,
    whole: Option<Arc<Self>>,
}

impl Pool {
    fn new(cap: usize, grown_cap: usize, whole: Option<Arc<Self>>) -> Arc<Self> {
        let (used, grown) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { used, cap, grown, grown_cap, whole })
    }

    /// This one and the one that it is a part of.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        core::iter::once(self).chain(self.whole.as_deref())
    }

    fn is_any(&self, is_so: impl Fn(usize, usize) -> bool) -> bool {
        self.chain().any(|pool| is_so(pool.used.load(Ordering::Relaxed), pool.cap))
    }

    fn add(&self, bytes: usize) {
        for pool in self.chain() {
            pool.used.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn take(&self, bytes: usize) {
        for pool in self.chain() {
            pool.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The counts of all connections.
#[derive(Debug)]
pub(super) struct RingMemory {
    whole: Arc<Pool>,
    /// The part of guests who have none of their own.
    others: Arc<Pool>,
    members: BTreeMap<MemberId, Arc<Pool>>,
    addresses: BTreeMap<IpAddr, MemberId>,
    parts: usize,
}

impl RingMemory {
    /// At most `cap` bytes and `grown_cap` rings that have grown, of which each guest who is
    /// [`assign`](Self::assign)ed a part, and all others together, may hold one in `parts`.
    pub(super) fn new(cap: usize, grown_cap: usize, parts: usize) -> Self {
        let whole = Pool::new(cap, grown_cap, None);
        let others = part(&whole, parts);
        let (members, addresses) = (BTreeMap::new(), BTreeMap::new());
        Self { whole, others, members, addresses, parts }
    }

    /// Gives the guest `id`, who has these addresses among others, a part of its own.
    pub(super) fn assign(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        self.members.entry(id).or_insert_with(|| part(&self.whole, self.parts));
        self.addresses.extend(addresses.map(|address| (address, id)));
    }

    /// Forgets that guest. What its connections hold is given back as they are dropped.
    pub(super) fn unassign(&mut self, id: MemberId) {
        self.members.remove(&id);
        self.addresses.retain(|_, &mut member| member != id);
    }

    /// The share of a connection of `guest`: nothing yet.
    pub(super) fn share(&self, guest: IpAddr) -> RingShare {
        let own = self.addresses.get(&guest).and_then(|id| self.members.get(id));
        let pool = Arc::clone(own.unwrap_or(&self.others));
        let (from_guest, to_guest) = (Extent::default(), Extent::default());
        RingShare { pool, from_guest, to_guest, is_grown: Cell::new(false) }
    }
}

fn part(whole: &Arc<Pool>, parts: usize) -> Arc<Pool> {
    if parts <= 1 {
        return Arc::clone(whole);
    }
    Pool::new(whole.cap / parts, whole.grown_cap.div_ceil(parts), Some(Arc::clone(whole)))
}

/// What one connection holds; given back when it is dropped.
#[derive(Debug)]
pub(super) struct RingShare {
    pool: Arc<Pool>,
    from_guest: Extent,
    to_guest: Extent,
    is_grown: Cell<bool>,
}

/// How far one ring was written to.
#[derive(Debug, Default)]
struct Extent {
    /// By this connection.
    written: Cell<usize>,
    /// By whomever, in whole pages.
    held: Cell<usize>,
}

impl Extent {
    fn note_written(&self, len: usize, pool: &Pool) {
        if len > self.written.get() {
            self.written.set(len);
            self.note_held(in_pages(len), pool);
        }
    }

    fn note_held(&self, pages: usize, pool: &Pool) {
        let before = self.held.get();
        if pages > before {
            self.held.set(pages);
            pool.add(pages - before);
        }
    }
}

impl RingShare {
    /// The ring from the guest was written to as far as `len`, counted from its start.
    pub(super) fn note_from_guest(&self, len: usize) {
        self.from_guest.note_written(len, &self.pool);
    }

    /// The same of the ring to the guest.
    pub(super) fn note_to_guest(&self, len: usize) {
        self.to_guest.note_written(len, &self.pool);
    }

    /// The rings, that from the guest and that to it, were written to so far before.
    pub(super) fn note_touched(&self, from_guest: usize, to_guest: usize) {
        self.from_guest.note_held(in_pages(from_guest), &self.pool);
        self.to_guest.note_held(in_pages(to_guest), &self.pool);
    }

    /// How far this connection has written to the ring from the guest and to the one to it.
    pub(super) const fn written(&self) -> (usize, usize) {
        (self.from_guest.written.get(), self.to_guest.written.get())
    }

    /// Bytes of both rings, in whole pages.
    pub(super) const fn held(&self) -> usize {
        self.from_guest.held.get() + self.to_guest.held.get()
    }

    /// The ring to the guest is a larger one.
    pub(super) fn note_grown(&self) {
        if !self.is_grown.replace(true) {
            for pool in self.pool.chain() {
                pool.grown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether the ring to the guest is a larger one.
    pub(super) const fn is_grown(&self) -> bool {
        self.is_grown.get()
    }

    /// Whether another of the guest's connections may have a larger ring.
    pub(super) fn may_grow(&self) -> bool {
        self.pool.chain().all(|pool| pool.grown.load(Ordering::Relaxed) < pool.grown_cap)
    }

    /// Whether the guest's connections had better hold less.
    pub(super) fn is_tight(&self) -> bool {
        self.pool.is_any(|used, cap| used > cap / 2)
    }

    /// Whether they hold so little that pages which others wrote to may count as theirs. On a shared network that
    /// is all that one member's bytes can take of another's part.
    pub(super) fn is_roomy(&self) -> bool {
        !self.pool.is_any(|used, cap| used > cap / 8)
    }

    /// Whether the guest's connections hold more than they may.
    pub(super) fn is_exhausted(&self) -> bool {
        self.pool.is_any(|used, cap| used > cap)
    }
}

impl Drop for RingShare {
    fn drop(&mut self) {
        self.pool.take(self.held());
        if self.is_grown() {
            for pool in self.pool.chain() {
                pool.grown.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// `len` bytes in whole pages.
pub(super) const fn in_pages(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 100));
    const OTHER: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 101));

    #[test]
    fn pages_are_counted_once_and_given_back() {
        let memory = RingMemory::new(8 * PAGE, 0, 1);
        let first = memory.share(GUEST);
        first.note_from_guest(1);
        first.note_from_guest(PAGE);
        first.note_to_guest(PAGE - 1);
        assert_eq!(first.held(), 2 * PAGE);
        first.note_to_guest(3 * PAGE);
        first.note_to_guest(2 * PAGE);
        assert_eq!(first.held(), 4 * PAGE);
        assert!(!first.is_tight());
        let second = memory.share(OTHER);
        second.note_from_guest(4 * PAGE);
        assert!(second.is_tight() && !second.is_exhausted());
        second.note_from_guest(4 * PAGE + 1);
        assert!(second.is_exhausted() && first.is_exhausted());
        drop(first);
        assert!(second.is_tight() && !second.is_exhausted());
        drop(second);
        let third = memory.share(GUEST);
        assert!(!third.is_tight());
        third.note_touched(PAGE + 1, 3 * PAGE);
        third.note_from_guest(2 * PAGE);
        assert_eq!((third.held(), third.written()), (5 * PAGE, (2 * PAGE, 0)));
        third.note_to_guest(4 * PAGE);
        assert_eq!(third.held(), 6 * PAGE);
    }

    #[test]
    fn member_has_a_quarter_of_the_rings_that_may_grow() {
        let mut memory = RingMemory::new(usize::MAX, 8, 4);
        memory.assign(MemberId(1), [GUEST].into_iter());
        memory.assign(MemberId(2), [OTHER].into_iter());
        let grown = |memory: &RingMemory, guest| {
            let share = memory.share(guest);
            assert!(share.may_grow());
            share.note_grown();
            share
        };
        let first = grown(&memory, GUEST);
        let second = grown(&memory, GUEST);
        assert!(!memory.share(GUEST).may_grow(), "two of eight are a quarter");
        let others = [grown(&memory, OTHER), grown(&memory, OTHER)];
        drop(first);
        let _third = grown(&memory, GUEST);
        assert!(!memory.share(GUEST).may_grow() && !memory.share(OTHER).may_grow());
        // Where there are more members than parts, the whole is the limit.
        let mut rest = Vec::new();
        for last in 102..104 {
            let guest = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, last));
            memory.assign(MemberId(last.into()), [guest].into_iter());
            rest.extend([grown(&memory, guest), grown(&memory, guest)]);
        }
        drop(second);
        let another = grown(&memory, GUEST);
        assert!(!memory.share(IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 2, 9))).may_grow());
        drop((others, rest, another));
        assert!(memory.share(OTHER).may_grow());
    }

    #[test]
    fn member_that_has_used_up_its_part_leaves_the_others_theirs() {
        let mut memory = RingMemory::new(32 * PAGE, 0, 4);
        memory.assign(MemberId(1), [GUEST].into_iter());
        memory.assign(MemberId(2), [OTHER].into_iter());
        let hostile = memory.share(GUEST);
        hostile.note_from_guest(9 * PAGE);
        assert!(hostile.is_exhausted() && memory.share(GUEST).is_exhausted());
        let other = memory.share(OTHER);
        other.note_to_guest(3 * PAGE);
        assert!(!other.is_exhausted() && !other.is_tight());
        let nested = IpAddr::V4(core::net::Ipv4Addr::new(10, 9, 9, 9));
        assert!(!memory.share(nested).is_exhausted());
        // An address behind it is one of its own.
        memory.assign(MemberId(1), [nested].into_iter());
        assert!(memory.share(nested).is_exhausted() && !memory.share(OTHER).is_exhausted());
        // Connections outlive their member for a moment.
        memory.unassign(MemberId(1));
        drop(hostile);
        memory.assign(MemberId(3), [GUEST].into_iter());
        assert!(!memory.share(nested).is_tight());
        assert!(!memory.share(GUEST).is_tight());
    }
}
