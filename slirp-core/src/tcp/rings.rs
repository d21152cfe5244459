//! The rings of a connection, and those that wait for the next one.
//!
//! Owns the memory that smoltcp's socket keeps bytes in, and the socket, which only borrows it: a socket is
//! never used again (defect B8), but its rings are. They are as large as the window that the guest is offered,
//! while most connections write to a small part of them. To have the kernel take the pages of that part back,
//! only to ask for them again with the next connection, takes longer than to overwrite it (measured with
//! answers of 30 kB: a fifth of all processor time that a connection costs).
//!
//! A ring that waits reads as zeros. How far it was written to is known, because that is counted as
//! [memory](super::memory) that is held. Who holds much of that gets new rings, which hold less, and while it is
//! tight nothing waits. A connection
//! that stays and does not need what it was given exchanges it for new rings, or else all that ever were in use
//! would be written to in the end.

use core::cell::Cell;
use core::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self_cell::{MutBorrow, self_cell};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

use super::memory::{RingShare, in_pages};

/// Bytes that rings of the usual length hold at most while they wait: a page of each ring of 500 connections, or
/// as much as the rings of eight that moved bulk data.
const SPARE_CAP: usize = 4 * 1024 * 1024;
/// The same of the larger rings to the guest: four.
const SPARE_GROWN_CAP: usize = 8 * 1024 * 1024;
/// Bytes that a connection may hold beyond what it has written itself once it has outlived this many calls of
/// [`RingSupply::release_unused`] (both arbitrary: little beside its rings, and long beside a short connection).
const EXCESS: usize = 64 * 1024;
const EXCESS_LOOKS: u64 = 2;

/// Makes rings of two lengths, and keeps those that are no longer in use.
#[derive(Debug)]
pub(super) struct RingSupply {
    usual: Mutex<Shelf>,
    grown: Mutex<Shelf>,
    looks: AtomicU64,
}

/// The rings of one length that wait.
#[derive(Debug)]
struct Shelf {
    len: usize,
    cap: usize,
    /// The one that was in use last is the next to be used: its bytes are in the processor's caches.
    rings: Vec<Ring>,
    held: usize,
    /// The fewest that there were since [`release_unused`](Self::release_unused) looked last: nobody needed
    /// these.
    least: usize,
}

/// A ring that reads as zeros, unless it is in use.
#[derive(Debug, Default)]
struct Ring {
    bytes: Box<[u8]>,
    /// How far it was ever written to: so much of it is in memory.
    touched: usize,
}

impl Ring {
    fn new(len: usize) -> Self {
        Self { bytes: vec![0; len].into_boxed_slice(), touched: 0 }
    }

    /// Bytes of memory that it holds; one that was not touched yet counts as a page, so that there are not too
    /// many of those either.
    fn held(&self) -> usize {
        in_pages(self.touched.max(1))
    }
}

impl Shelf {
    const fn new(len: usize, cap: usize) -> Self {
        Self { len, cap, rings: Vec::new(), held: 0, least: 0 }
    }

    fn take(&mut self, share: &RingShare) -> Ring {
        if share.is_tight() {
            self.clear();
        }
        if !share.is_roomy() {
            return Ring::new(self.len);
        }
        let Some(ring) = self.rings.pop() else {
            return Ring::new(self.len);
        };
        self.held -= ring.held();
        self.least = self.least.min(self.rings.len());
        ring
    }

    /// Takes back a ring of which the first `written` bytes are not zero any more.
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
        (self.held, self.least) = (0, 0);
    }

    /// Gives up the rings that waited all the time since the last call. Returns whether others wait.
    fn release_unused(&mut self) -> bool {
        let released: usize = self.rings.drain(..self.least).map(|ring| ring.held()).sum();
        self.held -= released;
        self.least = self.rings.len();
        !self.rings.is_empty()
    }
}

impl RingSupply {
    /// Rings of `len` bytes, and larger ones of `grown_len`.
    pub(super) fn new(len: usize, grown_len: usize) -> Arc<Self> {
        let usual = Mutex::new(Shelf::new(len, SPARE_CAP));
        let grown = Mutex::new(Shelf::new(grown_len, SPARE_GROWN_CAP));
        Arc::new(Self { usual, grown, looks: AtomicU64::new(0) })
    }

    /// Two rings of the usual length for a connection.
    pub(super) fn rings(self: &Arc<Self>, share: RingShare) -> Rings {
        let mut usual = lock(&self.usual);
        let (receive, send) = (usual.take(&share), usual.take(&share));
        drop(usual);
        Rings::new(Buffers { receive, send }, share, Arc::clone(self))
    }

    /// The same, but rings that nobody has written to.
    pub(super) fn new_rings(self: &Arc<Self>, share: RingShare) -> Rings {
        let len = lock(&self.usual).len;
        let buffers = Buffers { receive: Ring::new(len), send: Ring::new(len) };
        Rings::new(buffers, share, Arc::clone(self))
    }

    /// The same as [`rings`](Self::rings) with a larger ring to the guest.
    pub(super) fn grown_rings(self: &Arc<Self>, share: RingShare) -> Rings {
        share.note_grown();
        let (receive, send) = (lock(&self.usual).take(&share), lock(&self.grown).take(&share));
        Rings::new(Buffers { receive, send }, share, Arc::clone(self))
    }

    /// Gives up the rings that waited all the time since the last call. Returns whether there may be some to
    /// give up later.
    pub(super) fn release_unused(self: &Arc<Self>) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let do_wait = [&self.usual, &self.grown].map(|shelf| lock(shelf).release_unused());
        let is_used = Arc::strong_count(self) > 1;
        is_used || do_wait.contains(&true)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Buffers {
    receive: Ring,
    send: Ring,
}

/// A connection's two rings, and what they hold of the machine's memory.
pub(super) struct Rings {
    buffers: MutBorrow<Buffers>,
    receive_len: usize,
    send_len: usize,
    share: RingShare,
    supply: Arc<RingSupply>,
    /// The supply's number of looks when the connection got them.
    since: u64,
    is_spoilt: Cell<bool>,
}

impl Rings {
    fn new(buffers: Buffers, share: RingShare, supply: Arc<RingSupply>) -> Self {
        let (receive_len, send_len) = (buffers.receive.bytes.len(), buffers.send.bytes.len());
        share.note_touched(buffers.receive.touched, buffers.send.touched);
        let buffers = MutBorrow::new(buffers);
        let since = supply.looks.load(Ordering::Relaxed);
        let is_spoilt = Cell::new(false);
        Self { buffers, receive_len, send_len, share, supply, since, is_spoilt }
    }

    /// Bytes of the one from the guest; it decides the scale of our windows.
    pub(super) const fn receive_len(&self) -> usize {
        self.receive_len
    }

    /// Bytes of the one to the guest.
    pub(super) const fn send_len(&self) -> usize {
        self.send_len
    }

    /// Whether the ring to the guest is larger than others'.
    pub(super) const fn is_grown(&self) -> bool {
        self.share.is_grown()
    }

    /// Whether new rings would hold a good deal less, and the connection has stayed long enough for that.
    pub(super) fn are_excessive(&self) -> bool {
        let (from_guest, to_guest) = self.share.written();
        let needed = in_pages(from_guest) + in_pages(to_guest);
        self.share.held() > needed + EXCESS
            && self.supply.looks.load(Ordering::Relaxed) >= self.since + EXCESS_LOOKS
    }

    /// Nobody is sure any more what was written to them: they are not to be used again.
    pub(super) fn spoil(&self) {
        self.is_spoilt.set(true);
    }

    pub(super) const fn share(&self) -> &RingShare {
        &self.share
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        if self.is_spoilt.get() || self.share.is_tight() {
            return;
        }
        let (from_guest, to_guest) = self.share.written();
        let buffers = mem::replace(&mut self.buffers, MutBorrow::new(Buffers::default()));
        let Buffers { receive, send } = buffers.into_inner();
        let send_shelf = if self.is_grown() { &self.supply.grown } else { &self.supply.usual };
        lock(&self.supply.usual).give_back(receive, from_guest);
        lock(send_shelf).give_back(send, to_guest);
    }
}

/// The socket of a connection in a set of its own.
pub(super) struct OneSocket<'r> {
    pub(super) set: SocketSet<'r>,
    handle: SocketHandle,
}

impl<'r> OneSocket<'r> {
    /// smoltcp cuts segments out of contiguous bytes: a ring that holds whole ones does not end in a runt
    /// each time around.
    fn new(buffers: &'r mut Buffers, segment_len: usize) -> Self {
        let whole = buffers.send.bytes.len() / segment_len * segment_len;
        let mut socket = Socket::new(
            SocketBuffer::new(&mut buffers.receive.bytes[..]),
            SocketBuffer::new(&mut buffers.send.bytes[..whole]),
        );
        // Acknowledgements are timed by the flow, and with a rewritten MSS Nagle's algorithm would
        // hold everything below 64 KiB back.
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
        owner: Rings,

        #[not_covariant]
        dependent: OneSocket,
    }
);

impl RingedSocket {
    /// A closed socket that sends segments of at most `segment_len` bytes.
    pub(super) fn closed(rings: Rings, segment_len: usize) -> Self {
        Self::new(rings, |rings| OneSocket::new(rings.buffers.borrow_mut(), segment_len))
    }
}

#[cfg(test)]
impl RingSupply {
    /// The bytes of the rings that wait, the larger ones last.
    pub(super) fn waiting(&self) -> Vec<Vec<u8>> {
        let bytes = |shelf: &Mutex<Shelf>| {
            let shelf = lock(shelf);
            shelf.rings.iter().map(|ring| ring.bytes.to_vec()).collect::<Vec<_>>()
        };
        [bytes(&self.usual), bytes(&self.grown)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::RingMemory;
    use super::*;

    const LEN: usize = 256 * 1024;

    fn used(shelf: &mut Shelf, written: usize) -> Ring {
        let share = RingMemory::new(usize::MAX, 0, 1).share([10, 0, 2, 100].into());
        let mut ring = shelf.take(&share);
        ring.bytes[..written].fill(1);
        ring
    }

    #[test]
    fn rings_hold_no_more_than_the_cap_while_they_wait() {
        for (written, count) in [(LEN, 16), (1, 1024), (0, 1024), (40_000, 102)] {
            let mut shelf = Shelf::new(LEN, SPARE_CAP);
            let rings: Vec<_> = (0..1100).map(|_| used(&mut shelf, written)).collect();
            for ring in rings {
                shelf.give_back(ring, written);
            }
            assert_eq!(shelf.rings.len(), count, "{written} bytes each");
        }
    }

    #[test]
    fn pages_that_were_touched_once_count_while_the_ring_lives() {
        let mut shelf = Shelf::new(LEN, SPARE_CAP);
        let ring = used(&mut shelf, LEN);
        shelf.give_back(ring, LEN);
        let ring = used(&mut shelf, 1);
        assert_eq!(shelf.held, 0);
        shelf.give_back(ring, 1);
        assert_eq!(shelf.held, LEN, "it had been written to as a whole before");
    }

    #[test]
    fn only_rings_that_are_needed_stay() {
        let mut shelf = Shelf::new(LEN, SPARE_CAP);
        let rings: Vec<_> = (0..10).map(|_| used(&mut shelf, 5000)).collect();
        for ring in rings {
            shelf.give_back(ring, 5000);
        }
        assert!(shelf.release_unused());
        assert_eq!(shelf.rings.len(), 10, "they have not waited for the whole time");
        for _ in 0..3 {
            let (one, other) = (used(&mut shelf, 1), used(&mut shelf, 1));
            shelf.give_back(one, 1);
            shelf.give_back(other, 1);
            assert!(shelf.release_unused());
            assert_eq!((shelf.rings.len(), shelf.held), (2, 2 * 8192));
        }
        assert!(!shelf.release_unused());
        assert_eq!((shelf.rings.len(), shelf.held), (0, 0));
    }
}
