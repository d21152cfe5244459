//! Whether to look for events for a moment before the thread sleeps.
//!
//! A thread that sleeps is woken by an interrupt to its processor, and a small request with its answer
//! crosses the data thread twice: a good part of a round trip is spent on waking us. Whoever looks instead
//! of sleeping is told at once, and keeps a processor busy meanwhile. So it is done only where it pays,
//! which the waits themselves tell.
//!
//! | mode | a wait | next |
//! | --- | --- | --- |
//! | sleeping | was short | looking, after [`needed`](BusyPoll::needed) of them |
//! | sleeping | was long | counts against two short ones |
//! | looking | something was found | stays; a run of finds makes `needed` small again |
//! | looking | nothing was found in time | sleeping, after a few of them; `needed` is doubled |
//!
//! Where nobody answers soon, nobody looks. Where all processors have work, whoever is to answer waits for ours:
//! nothing is found, and the doubling makes the attempts rare. On a single processor there are none.

use std::time::Duration;

/// Short waits after which looking is tried, at least and at most (arbitrary; the latter is a tenth of a
/// second of small requests).
const NEEDED: (u32, u32) = (16, 4096);
/// What looking begins with, what a find adds and a miss takes, and the most there can be: it goes on
/// while four of five looks find something (arbitrary; a find saves about half of what a miss costs).
const SCORE_START: u32 = 8;
const SCORE_CAP: u32 = 16;
const FIND: u32 = 1;
const MISS: u32 = 4;
/// Finds without having given up in between, after which it was right to begin (arbitrary).
const PROVEN: u32 = 64;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct BusyPoll {
    limit: Duration,
    needed: u32,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Sleeping { short: u32 },
    Looking { score: u32, found: u32 },
}

impl BusyPoll {
    /// Looks for up to `limit` (zero: never) where there are several `processors`.
    pub(crate) const fn new(limit: Duration, processors: usize) -> Self {
        let limit = if processors > 1 { limit } else { Duration::ZERO };
        Self { limit, needed: NEEDED.0, mode: Mode::Sleeping { short: 0 } }
    }

    /// For how long to look before the next sleep, if at all.
    pub(super) const fn span(&self) -> Option<Duration> {
        match self.mode {
            Mode::Looking { .. } if !self.limit.is_zero() => Some(self.limit),
            Mode::Looking { .. } | Mode::Sleeping { .. } => None,
        }
    }

    /// A look has found something.
    pub(super) fn note_found(&mut self) {
        if let Mode::Looking { score, found } = &mut self.mode {
            *score = (*score + FIND).min(SCORE_CAP);
            *found += 1;
            if *found == PROVEN {
                *found = 0;
                self.needed = NEEDED.0;
            }
        }
    }

    /// A look has found nothing.
    pub(super) fn note_missed(&mut self) {
        if let Mode::Looking { score, .. } = &mut self.mode {
            *score = score.saturating_sub(MISS);
            if *score == 0 {
                self.needed = (self.needed * 2).min(NEEDED.1);
                self.mode = Mode::Sleeping { short: 0 };
            }
        }
    }

    /// The thread has slept this long without having looked.
    pub(super) fn note_slept(&mut self, waited: Duration) {
        if let Mode::Sleeping { short } = &mut self.mode {
            // It takes the kernel some time to wake a sleeper, which a look would not have to wait for.
            if waited <= self.limit.saturating_mul(2) {
                *short += 1;
            } else {
                *short = short.saturating_sub(2);
            }
            if *short >= self.needed {
                self.mode = Mode::Looking { score: SCORE_START, found: 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(20);
    const SHORT: Duration = Duration::from_micros(30);
    const LONG: Duration = Duration::from_micros(41);

    fn sleep(busy_poll: &mut BusyPoll, waits: u32, waited: Duration) {
        for _ in 0..waits {
            assert_eq!(busy_poll.span(), None);
            busy_poll.note_slept(waited);
        }
    }

    /// How many short waits it takes until it looks.
    fn patience(busy_poll: &mut BusyPoll) -> u32 {
        (0..)
            .find(|_| {
                let is_looking = busy_poll.span().is_some();
                busy_poll.note_slept(SHORT);
                is_looking
            })
            .unwrap()
    }

    #[test]
    fn looks_after_a_run_of_short_waits() {
        let mut busy_poll = BusyPoll::new(LIMIT, 2);
        sleep(&mut busy_poll, NEEDED.0, SHORT);
        assert_eq!(busy_poll.span(), Some(LIMIT));
    }

    #[test]
    fn limit_may_be_as_long_as_it_likes() {
        let mut busy_poll = BusyPoll::new(Duration::MAX, 2);
        sleep(&mut busy_poll, NEEDED.0, LONG);
        assert_eq!(busy_poll.span(), Some(Duration::MAX));
    }

    #[test]
    fn short_waits_among_long_ones_are_none() {
        let mut busy_poll = BusyPoll::new(LIMIT, 2);
        for _ in 0..1000 {
            sleep(&mut busy_poll, 2, SHORT);
            sleep(&mut busy_poll, 1, LONG);
        }
    }

    #[test]
    fn goes_on_while_four_of_five_looks_find_something() {
        let mut busy_poll = BusyPoll::new(LIMIT, 2);
        patience(&mut busy_poll);
        for _ in 0..1000 {
            (0..4).for_each(|_| busy_poll.note_found());
            busy_poll.note_missed();
            assert_eq!(busy_poll.span(), Some(LIMIT));
        }
        for _ in 0..20 {
            (0..3).for_each(|_| busy_poll.note_found());
            busy_poll.note_missed();
        }
        assert_eq!(busy_poll.span(), None);
    }

    #[test]
    fn attempts_in_vain_become_rare_and_a_proven_one_makes_up_for_them() {
        let mut busy_poll = BusyPoll::new(LIMIT, 2);
        let mut needed = Vec::new();
        for _ in 0..11 {
            needed.push(patience(&mut busy_poll));
            while busy_poll.span().is_some() {
                busy_poll.note_missed();
            }
        }
        assert_eq!(needed, [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096]);
        patience(&mut busy_poll);
        (0..PROVEN).for_each(|_| busy_poll.note_found());
        while busy_poll.span().is_some() {
            busy_poll.note_missed();
        }
        assert_eq!(patience(&mut busy_poll), 2 * NEEDED.0);
    }

    #[test]
    fn never_looks_on_one_processor_or_without_a_limit() {
        for mut busy_poll in [BusyPoll::new(LIMIT, 1), BusyPoll::new(Duration::ZERO, 8)] {
            sleep(&mut busy_poll, 10_000, Duration::from_micros(1));
            sleep(&mut busy_poll, 10_000, Duration::ZERO);
        }
    }
}
