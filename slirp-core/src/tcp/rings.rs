//! The rings of a connection, and the pool that keeps them for the next one.
//!
//! Owns the memory in which smoltcp's socket keeps bytes, and the socket, which only borrows that
//! memory. A socket is never reused (defect B8), but its rings are. Rings are as large as the
//! window that the guest is offered, while most connections write to a small part of them.
//! Returning the pages of that part to the kernel and faulting them in again for the next
//! connection takes longer than overwriting them (measured with answers of 30 kB: a fifth of all
//! processor time that a connection costs).
//!
//! A ring in the pool reads as zeros. How far it was written to is known, because the [memory] that
//! a connection holds is counted. Above an eighth of the cap the pool is bypassed: new rings start
//! with no resident pages. Under memory pressure the pool is emptied. A long-lived connection that
//! was given touched rings it does not need exchanges them for new ones; otherwise every ring in
//! the pool would become fully resident over time.
//!
//! Rings move by value: from the pool into the socket, and from [`RingedSocket::into_rings`] back
//! into the pool. `Engine::retire` is the one place that gives them back.
//!
//! [memory]: super::memory

use core::net::IpAddr;

use self_cell::{MutBorrow, self_cell};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

use super::memory::{Extent, Lease, Level, RingMemory, in_pages};

/// Most bytes that free rings of the usual length may hold: a page of each ring of 500 connections,
/// or as much as the rings of eight that moved bulk data.
const SPARE_CAP: usize = 4 * 1024 * 1024;
/// Most bytes that free larger rings to the guest may hold: four of them.
const SPARE_GROWN_CAP: usize = 8 * 1024 * 1024;
/// Bytes that a connection may hold beyond what it has written itself once it has outlived
/// [`EXCESS_TICKS`] ticks (both arbitrary: few compared with its rings, and long compared with a
/// short connection).
const EXCESS: usize = 64 * 1024;
const EXCESS_TICKS: u64 = 2;

/// A ring; its bytes are zero unless it is in use.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Box<[u8]>,
    /// How far it was ever written to; that part of it is resident.
    touched: usize,
}

impl Ring {
    fn new(len: usize) -> Self {
        Self { bytes: vec![0; len].into_boxed_slice(), touched: 0 }
    }

    fn extent(&self) -> Extent {
        Extent::new(self.bytes.len(), self.touched)
    }

    /// Bytes of memory that it holds. An untouched ring counts as a page, so that the number of
    /// untouched rings is bounded, too.
    fn held(&self) -> usize {
        in_pages(self.touched.max(1))
    }
}

/// A connection's two rings.
#[derive(Debug)]
pub(super) struct Rings {
    /// From the guest.
    receive: Ring,
    /// To the guest.
    send: Ring,
}

impl Rings {
    /// Starts to count the rings, which were taken at the pool's tick `taken_at`, for a new
    /// connection of `guest`.
    pub(super) fn lease(&self, memory: &mut RingMemory, guest: IpAddr, taken_at: u64) -> Lease {
        let extents = [self.receive.extent(), self.send.extent()];
        memory.lease(guest, extents, taken_at)
    }
}

/// The rings of one length that are not in use.
#[derive(Debug)]
struct FreeList {
    len: usize,
    cap: usize,
    /// A stack: the ring that was in use last is in the processor's caches.
    rings: Vec<Ring>,
    held: usize,
    /// Low-water mark since the last tick; that many rings were not needed and can be freed.
    low_water: usize,
}

impl FreeList {
    const fn new(len: usize, cap: usize) -> Self {
        Self { len, cap, rings: Vec::new(), held: 0, low_water: 0 }
    }

    fn take(&mut self, level: Level) -> Ring {
        if level >= Level::Tight {
            self.clear();
        }
        if level > Level::Low {
            return Ring::new(self.len);
        }
        let Some(ring) = self.rings.pop() else {
            return Ring::new(self.len);
        };
        self.held -= ring.held();
        self.low_water = self.low_water.min(self.rings.len());
        ring
    }

    /// Takes back a ring whose first `written` bytes may differ from zero.
    fn give_back(&mut self, mut ring: Ring, written: usize) {
        ring.touched = ring.touched.max(written);
        if self.held + ring.held() <= self.cap {
            ring.bytes[..written].fill(0);
            self.held += ring.held();
            self.rings.push(ring);
        }
    }

    fn clear(&mut self) {
        self.rings.clear();
        (self.held, self.low_water) = (0, 0);
    }

    /// Frees the rings that were not needed since the last tick.
    fn tick(&mut self) {
        let freed: usize = self.rings.drain(..self.low_water).map(|ring| ring.held()).sum();
        self.held -= freed;
        self.low_water = self.rings.len();
    }
}

/// Makes rings of two lengths, and keeps those that are no longer in use.
#[derive(Debug)]
pub(super) struct RingPool {
    usual: FreeList,
    grown: FreeList,
    /// How often [`tick`](Self::tick) was called.
    pub(super) ticks: u64,
}

impl RingPool {
    /// Rings of `len` bytes, and larger ones of `grown_len`.
    pub(super) const fn new(len: usize, grown_len: usize) -> Self {
        let usual = FreeList::new(len, SPARE_CAP);
        let grown = FreeList::new(grown_len, SPARE_GROWN_CAP);
        Self { usual, grown, ticks: 0 }
    }

    /// Two rings of the usual length for a connection whose guest's memory is at `level`.
    pub(super) fn rings(&mut self, level: Level) -> Rings {
        let (receive, send) = (self.usual.take(level), self.usual.take(level));
        Rings { receive, send }
    }

    /// Two rings of the usual length without resident pages.
    pub(super) fn new_rings(&self) -> Rings {
        let (receive, send) = (Ring::new(self.usual.len), Ring::new(self.usual.len));
        Rings { receive, send }
    }

    /// As [`rings`](Self::rings), with a larger ring to the guest.
    pub(super) fn grown_rings(&mut self, level: Level) -> Rings {
        let (receive, send) = (self.usual.take(level), self.grown.take(level));
        Rings { receive, send }
    }

    /// Takes back the rings of the connection that holds `lease`.
    pub(super) fn give_back(&mut self, rings: Rings, lease: &Lease) {
        let (from_guest, to_guest) = lease.written();
        self.usual.give_back(rings.receive, from_guest);
        let send = if lease.is_grown() { &mut self.grown } else { &mut self.usual };
        send.give_back(rings.send, to_guest);
    }

    /// Whether the rings of `lease` should be exchanged: new rings would hold much less, and the
    /// connection has lived long enough.
    pub(super) const fn hold_excess(&self, lease: &Lease) -> bool {
        lease.excess() > EXCESS && self.ticks >= lease.leased_at() + EXCESS_TICKS
    }

    /// Frees the rings that were not needed since the last tick. Returns whether any are left.
    pub(super) fn tick(&mut self) -> bool {
        self.ticks += 1;
        self.usual.tick();
        self.grown.tick();
        !self.usual.rings.is_empty() || !self.grown.rings.is_empty()
    }
}

/// The socket of a connection in a set of its own.
pub(super) struct OneSocket<'r> {
    pub(super) set: SocketSet<'r>,
    handle: SocketHandle,
}

impl<'r> OneSocket<'r> {
    /// smoltcp cuts segments out of contiguous bytes, so a ring of whole segments does not end in a
    /// runt in each round.
    fn new(rings: &'r mut Rings, segment_len: usize) -> Self {
        let whole = rings.send.bytes.len() / segment_len * segment_len;
        let mut socket = Socket::new(
            SocketBuffer::new(&mut rings.receive.bytes[..]),
            SocketBuffer::new(&mut rings.send.bytes[..whole]),
        );
        // The flow times acknowledgements, and with a rewritten MSS Nagle's algorithm would hold
        // back everything below 64 KiB.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self { set, handle }
    }

    pub(super) fn get(&self) -> &Socket<'r> {
        self.set.get(self.handle)
    }

    pub(super) fn get_mut(&mut self) -> &mut Socket<'r> {
        self.set.get_mut(self.handle)
    }
}

self_cell!(
    /// A socket together with the rings that it borrows.
    pub(super) struct RingedSocket {
        owner: MutBorrow<Rings>,

        #[not_covariant]
        dependent: OneSocket,
    }
);

impl RingedSocket {
    /// A closed socket that sends segments of at most `segment_len` bytes.
    pub(super) fn closed(rings: Rings, segment_len: usize) -> Self {
        Self::new(MutBorrow::new(rings), |rings| OneSocket::new(rings.borrow_mut(), segment_len))
    }

    /// The rings without the socket.
    pub(super) fn into_rings(self) -> Rings {
        self.into_owner().into_inner()
    }
}

#[cfg(test)]
impl RingPool {
    /// The bytes of the rings that are not in use, the larger ones last.
    pub(super) fn free(&self) -> Vec<Vec<u8>> {
        let rings = self.usual.rings.iter().chain(&self.grown.rings);
        rings.map(|ring| ring.bytes.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 256 * 1024;

    fn used(list: &mut FreeList, written: usize) -> Ring {
        let mut ring = list.take(Level::Low);
        ring.bytes[..written].fill(1);
        ring
    }

    #[test]
    fn free_rings_hold_no_more_than_the_cap() {
        for (written, count) in [(LEN, 16), (1, 1024), (0, 1024), (40_000, 102)] {
            let mut list = FreeList::new(LEN, SPARE_CAP);
            let rings: Vec<_> = (0..1100).map(|_| used(&mut list, written)).collect();
            for ring in rings {
                list.give_back(ring, written);
            }
            assert_eq!(list.rings.len(), count, "{written} bytes each");
        }
    }

    #[test]
    fn pages_that_were_touched_once_count_while_the_ring_lives() {
        let mut list = FreeList::new(LEN, SPARE_CAP);
        let ring = used(&mut list, LEN);
        list.give_back(ring, LEN);
        let ring = used(&mut list, 1);
        assert_eq!(list.held, 0);
        list.give_back(ring, 1);
        assert_eq!(list.held, LEN, "it had been written to as a whole before");
    }

    #[test]
    fn pool_is_bypassed_above_the_low_level_and_emptied_when_memory_is_tight() {
        let mut list = FreeList::new(LEN, SPARE_CAP);
        let ring = used(&mut list, 1);
        list.give_back(ring, 1);
        assert_eq!(list.take(Level::Moderate).touched, 0);
        assert_eq!(list.rings.len(), 1);
        assert_eq!(list.take(Level::Tight).touched, 0);
        assert_eq!((list.rings.len(), list.held), (0, 0));
    }

    #[test]
    fn only_rings_that_are_needed_stay() {
        let mut list = FreeList::new(LEN, SPARE_CAP);
        let rings: Vec<_> = (0..10).map(|_| used(&mut list, 5000)).collect();
        for ring in rings {
            list.give_back(ring, 5000);
        }
        list.tick();
        assert_eq!(list.rings.len(), 10, "they have not been free for the whole time");
        for _ in 0..3 {
            let (one, other) = (used(&mut list, 1), used(&mut list, 1));
            list.give_back(one, 1);
            list.give_back(other, 1);
            list.tick();
            assert_eq!((list.rings.len(), list.held), (2, 2 * 8192));
        }
        list.tick();
        assert_eq!((list.rings.len(), list.held), (0, 0));
    }
}
