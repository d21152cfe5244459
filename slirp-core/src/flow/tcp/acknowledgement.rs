//! The acknowledgement of a small segment, held for an answer that could carry it.
//!
//! A request of at most one segment is usually answered within microseconds, and the answer carries
//! the acknowledgement. The acknowledgement of a small segment is therefore held for [`ACK_HOLD`].
//! When that time passes without an answer, the flow acknowledges at once for a while, longer each
//! time, as the guest might be waiting for it (Nagle's algorithm against RFC 1122 section 4.2.3.2,
//! whose limit is 500 ms).
//!
//! Owns the count and the deadline. Whether an answer is likely is the flow's judgement.

use core::time::Duration;

use crate::tcp::Segment;
use crate::time::Instant;

/// How long the acknowledgement of a small segment waits for data that could carry it. Long against
/// the answer of a local service, short against anything that a person or a timer would notice.
pub(crate) const ACK_HOLD: Duration = Duration::from_millis(5);
/// Segments that are acknowledged at once after a held acknowledgement went out alone; doubles up
/// to [`QUICK_CAP`] (arbitrary; Linux starts with 16 as well).
const QUICK_START: u16 = 16;
const QUICK_CAP: u16 = 4096;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct HeldAck {
    /// Sequence numbers (payload bytes, the end) that arrived since a segment left.
    unacknowledged: u32,
    /// When the acknowledgement that is held leaves alone.
    at: Option<Instant>,
    /// Segments that are still to be acknowledged at once.
    quickacks_left: u16,
    /// What `quickacks_left` becomes the next time.
    quickacks_next: u16,
}

impl HeldAck {
    pub(super) const fn new() -> Self {
        Self { unacknowledged: 0, at: None, quickacks_left: 0, quickacks_next: QUICK_START }
    }

    /// When the acknowledgement that is held leaves alone; `None` while none is held.
    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// A segment of the guest has arrived.
    pub(super) fn on_segment(&mut self, segment: &Segment) {
        let taken = segment.payload_len.saturating_add(u32::from(segment.is_fin()));
        self.unacknowledged = self.unacknowledged.saturating_add(taken);
        if segment.payload_len > 0 {
            self.quickacks_left = self.quickacks_left.saturating_sub(1);
        }
    }

    /// A segment has left, and carried the acknowledgement.
    pub(super) const fn on_sent(&mut self) {
        self.unacknowledged = 0;
    }

    /// Whether there is something to acknowledge that is small enough to wait: at most one segment
    /// of `mss` bytes.
    pub(super) fn is_small(&self, mss: u16) -> bool {
        self.unacknowledged > 0 && self.quickacks_left == 0 && self.unacknowledged <= u32::from(mss)
    }

    /// Whether the acknowledgement is held now; `may_hold` says whether an answer is likely.
    pub(super) fn holds(&mut self, may_hold: bool, now: Instant) -> bool {
        if may_hold {
            if self.at.is_none_or(|at| at > now) {
                self.at.get_or_insert(now + ACK_HOLD);
                return true;
            }
            self.quickacks_left = self.quickacks_next;
            self.quickacks_next = (self.quickacks_next * 2).min(QUICK_CAP);
        }
        self.at = None;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u16 = 1460;

    /// A segment with `len` bytes of payload.
    fn segment(len: u32) -> Segment {
        let end = core::net::SocketAddr::from(([10, 0, 2, 100], 5000));
        let mut segment = Segment::syn(end, end, 0, 0);
        segment.payload_len = len;
        segment
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn acknowledgement_of_one_small_segment_waits_and_leaves_alone_in_the_end() {
        let mut ack = HeldAck::new();
        assert!(!ack.is_small(MSS), "nothing has arrived");
        ack.on_segment(&segment(100));
        assert!(ack.is_small(MSS));
        assert!(ack.holds(true, at(0)));
        assert_eq!(ack.at(), Some(at(5)));
        assert!(ack.holds(true, at(4)));
        assert!(!ack.holds(true, at(5)));
        assert_eq!(ack.at(), None);
    }

    #[test]
    fn answer_that_carries_the_acknowledgement_ends_the_wait() {
        let mut ack = HeldAck::new();
        ack.on_segment(&segment(100));
        assert!(ack.holds(true, at(0)));
        ack.on_sent();
        assert!(!ack.is_small(MSS));
        assert!(!ack.holds(false, at(1)));
        assert_eq!(ack.at(), None);
    }

    #[test]
    fn more_than_a_segment_is_not_small() {
        let mut ack = HeldAck::new();
        ack.on_segment(&segment(1460));
        assert!(ack.is_small(MSS));
        ack.on_segment(&segment(1));
        assert!(!ack.is_small(MSS));
    }

    #[test]
    fn wait_in_vain_makes_the_next_segments_quick_and_twice_as_many_the_next_time() {
        let mut ack = HeldAck::new();
        for quick in [16, 32, 64] {
            ack.on_segment(&segment(1));
            assert!(ack.is_small(MSS) && ack.holds(true, at(0)) && !ack.holds(true, at(5)));
            for _ in 0..quick {
                ack.on_sent();
                assert!(!ack.is_small(MSS));
                ack.on_segment(&segment(0));
                ack.on_segment(&segment(1));
            }
            assert!(ack.is_small(MSS), "after {quick} segments");
            ack.on_sent();
        }
    }
}
