//! What the rings of all connections hold of the machine's memory.
//!
//! Owns the count and its cap. A ring costs only the pages that were written to since its connection
//! began or woke, so these are counted, not what was allocated: a connection that carried one request
//! holds two pages, one that moved bulk data up to both of its rings.
//!
//! | state of the count | what follows |
//! | --- | --- |
//! | below half of the cap | nothing |
//! | tight | quiet connections are parked or get new rings at once, and the host is read in pieces of [`TIGHT_LEN`] |
//! | exhausted | the connection that asks for another page is reset |
//!
//! An honest guest does not get there. A hostile one that opens connections to a remote which does not
//! read, and fills the window of each, could otherwise have us hold `flows` times both rings.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The smallest page of any machine that Linux runs on; larger ones are counted too low.
const PAGE: usize = 4096;
/// What is taken from the host for a connection at a time while memory is tight (arbitrary: the largest
/// segment, so that each is still worth its system calls).
pub(crate) const TIGHT_LEN: usize = 64 * 1024;
/// What a connection may hold for its next bytes however tight memory is: a page of each ring.
pub(super) const LEAST: usize = 2 * PAGE;

/// The count of all connections.
#[derive(Debug)]
pub(super) struct RingMemory {
    used: Arc<AtomicUsize>,
    cap: usize,
}

impl RingMemory {
    pub(super) fn new(cap: usize) -> Self {
        Self { used: Arc::default(), cap }
    }

    /// A connection's part of it: nothing yet.
    pub(super) fn share(&self) -> RingShare {
        RingShare { used: Arc::clone(&self.used), from_guest: 0, to_guest: 0 }
    }

    pub(super) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.cap / 2
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.cap
    }
}

/// What one connection holds; given back when it is dropped.
#[derive(Debug)]
pub(super) struct RingShare {
    used: Arc<AtomicUsize>,
    from_guest: usize,
    to_guest: usize,
}

impl RingShare {
    /// The ring from the guest was written to as far as `len`, counted from its start.
    pub(super) fn note_from_guest(&mut self, len: usize) {
        raise(&self.used, &mut self.from_guest, len);
    }

    /// The same of the ring to the guest.
    pub(super) fn note_to_guest(&mut self, len: usize) {
        raise(&self.used, &mut self.to_guest, len);
    }

    /// Bytes of both rings, in whole pages.
    pub(super) const fn held(&self) -> usize {
        self.from_guest + self.to_guest
    }
}

impl Drop for RingShare {
    fn drop(&mut self) {
        self.used.fetch_sub(self.held(), Ordering::Relaxed);
    }
}

fn raise(used: &AtomicUsize, held: &mut usize, len: usize) {
    let pages = len.next_multiple_of(PAGE);
    if pages > *held {
        used.fetch_add(pages - *held, Ordering::Relaxed);
        *held = pages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_once_and_given_back() {
        let memory = RingMemory::new(8 * PAGE);
        let mut first = memory.share();
        first.note_from_guest(1);
        first.note_from_guest(PAGE);
        first.note_to_guest(PAGE - 1);
        assert_eq!(first.held(), 2 * PAGE);
        first.note_to_guest(3 * PAGE);
        first.note_to_guest(2 * PAGE);
        assert_eq!(first.held(), 4 * PAGE);
        assert!(!memory.is_tight());
        let mut second = memory.share();
        second.note_from_guest(4 * PAGE);
        assert!(memory.is_tight() && !memory.is_exhausted());
        second.note_from_guest(4 * PAGE + 1);
        assert!(memory.is_exhausted());
        drop(first);
        assert!(memory.is_tight() && !memory.is_exhausted());
        drop(second);
        assert!(!memory.is_tight());
    }
}
