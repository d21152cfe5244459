//! The question whether the guest still has a half-closed connection.
//!
//! A guest's kernel forgets a connection that its program has closed while the remote has not
//! (Linux after `tcp_fin_timeout`, 60 s), without a word. A guest that has only ended its direction
//! may wait for the remote as long as it likes. From here both look the same, so the guest is
//! asked: a segment in front of what it gets next is answered with an acknowledgement by a guest
//! that has the connection, and with a reset by one that does not (RFC 9293 section 3.10.7, RFC
//! 1122 section 4.2.3.6).
//!
//! Owns when to ask. The [flow](super::tcp) decides what becomes of it when no answer comes.

use core::time::Duration;

use crate::time::Instant;

/// Idleness before the first question, in seconds: longer than Linux keeps what its program has
/// closed (60 s). It doubles with each question, up to [`LONGEST`].
const FIRST: u32 = 75;
/// The interval of keep-alive probes in seconds (RFC 1122 section 4.2.3.6: at least 2 hours by
/// default).
const LONGEST: u32 = 2 * 3600;
/// How soon an unanswered question is repeated, as frames get lost (arbitrary).
const REPEAT: Duration = Duration::from_secs(30);

/// See the [module](self).
pub(super) struct Question {
    /// In seconds, which take a quarter of the space of a `Duration`.
    idle_for: u32,
    at: Option<Instant>,
    is_open: bool,
}

impl Question {
    pub(super) const fn new() -> Self {
        Self { idle_for: FIRST, at: None, is_open: false }
    }

    /// Whether the guest has been asked and has not answered.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// When the guest is to be asked next.
    pub(super) const fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether the guest is to be asked now; then it counts as asked.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.at.is_none_or(|at| at > now) {
            return false;
        }
        if !self.is_open {
            self.idle_for = (self.idle_for * 2).min(LONGEST);
        }
        self.is_open = true;
        self.at = Some(now + REPEAT);
        true
    }

    /// The guest has said something.
    pub(super) const fn on_heard(&mut self) {
        self.is_open = false;
        self.at = None;
    }

    /// Bytes have moved, so that the guest may be about to close.
    pub(super) const fn on_moved(&mut self) {
        self.idle_for = FIRST;
        self.at = None;
    }

    /// Works out when to ask about a flow that was active last at `active_at`, if at all.
    pub(super) fn settle(&mut self, may_ask: bool, active_at: Instant) {
        self.at = may_ask
            .then(|| self.at.unwrap_or(active_at + Duration::from_secs(self.idle_for.into())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn question_is_repeated_until_the_guest_answers_and_comes_later_each_time() {
        let mut question = Question::new();
        question.settle(true, at(0));
        assert_eq!(question.at(), Some(at(75)));
        assert!(!question.is_due(at(74)) && !question.is_open());
        assert!(question.is_due(at(75)) && question.is_open());
        assert!(!question.is_due(at(104)) && question.is_due(at(105)), "it may have been lost");
        question.on_heard();
        assert!(!question.is_open());
        question.settle(true, at(105));
        assert_eq!(question.at(), Some(at(105 + 150)), "twice as long, however often repeated");
    }

    #[test]
    fn bytes_begin_the_wait_anew_and_an_open_direction_ends_it() {
        let mut question = Question::new();
        question.settle(true, at(0));
        assert!(question.is_due(at(75)));
        question.on_moved();
        question.settle(true, at(80));
        assert_eq!(question.at(), Some(at(80 + 75)));
        question.settle(false, at(80));
        assert_eq!(question.at(), None);
    }
}
