//! Whether to poll for events for a moment before the thread sleeps.
//!
//! A small request with its answer crosses the data thread twice, and the thread is woken each
//! time. A wake-up costs 2 us on one machine and 20 us on another, where it is a good part of a
//! round trip. A thread that polls for events instead of sleeping need not be woken, but it keeps a
//! processor busy meanwhile. If the answer takes longer than the poll lasts, polling only adds to
//! the delay. So both ways are timed while they are in use, and the quicker one is kept.
//!
//! | phase | which way | left |
//! | --- | --- | --- |
//! | settled | the preferred one | after a number of turns, sooner if polling finds nothing |
//! | defence | the preferred one, timed | after [`TRIAL`] turns |
//! | challenge | the other one, timed | after [`TRIAL`] turns: the quicker one is settled on |
//!
//! A whole turn of the loop is timed, from the end of one wait to the end of the next, because
//! polling may take the processor from the very program that has to answer. Only turns in close
//! succession are timed and polled in: if events are rare, the cost of sleeping is not noticeable.
//! A confirmed verdict holds twice as long as the last one, so that trials become rare. On a single
//! processor there is no polling.

use std::time::Duration;

use crate::time::Instant;

/// Longest turn that follows its predecessor closely (arbitrary: twenty times a round trip of one
/// small segment and its answer over loopback, and far below what a user notices).
const CLOSE: Duration = Duration::from_micros(500);
/// Close turns in a row after which polling and trials may begin (arbitrary).
const RUN: u32 = 16;
/// Turns of a trial (arbitrary: a few milliseconds, and enough for one late turn not to decide it).
const TRIAL: u32 = 64;
/// Turns that a verdict holds, at first and at most (arbitrary). In the end fewer than one turn in
/// two hundred tries the other way, so trials do not show even in the 99th percentile of round
/// trips.
const HOLD: (u32, u32) = (256, 16_384);
/// An unsuccessful poll counts as this many turns of a verdict (arbitrary), so that an outdated
/// verdict ends soon.
const MISS: u32 = 16;
/// Polling is preferred if its turn takes at most this many tenths of a turn with sleep. Polling
/// costs a tenth to a third more processor time (measured), so it must gain something.
const WORTH: u32 = 9;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct BusyPoll {
    limit: Duration,
    /// Close turns in a row, up to [`RUN`].
    run: u32,
    is_looking_preferred: bool,
    phase: Phase,
    /// Turns for which the next verdict holds if it confirms the last one.
    hold: u32,
    turned_at: Instant,
}

#[derive(Debug)]
enum Phase {
    Settled { left: u32 },
    Defence(Trial),
    Challenge { trial: Trial, defence: Duration },
}

#[derive(Debug, Default)]
struct Trial {
    turns: u32,
    took: Duration,
}

impl Trial {
    /// Adds one turn. Returns the total time when this turn is the trial's last.
    fn note(&mut self, took: Duration) -> Option<Duration> {
        self.turns += 1;
        self.took += took;
        (self.turns == TRIAL).then_some(self.took)
    }
}

impl BusyPoll {
    /// Polls for up to `limit` (zero: never) if there are several `processors`.
    pub(crate) const fn new(limit: Duration, processors: usize) -> Self {
        Self {
            limit: if processors > 1 { limit } else { Duration::ZERO },
            run: 0,
            is_looking_preferred: false,
            phase: Phase::Settled { left: 1 },
            hold: HOLD.0,
            turned_at: Instant::ZERO,
        }
    }

    /// How long to poll before the next sleep, if at all.
    pub(super) fn span(&self) -> Option<Duration> {
        let is_looking = match self.phase {
            Phase::Settled { .. } | Phase::Defence(_) => self.is_looking_preferred,
            Phase::Challenge { .. } => !self.is_looking_preferred,
        };
        (is_looking && self.run == RUN && !self.limit.is_zero()).then_some(self.limit)
    }

    /// A wait has ended that neither polled nor slept, because there was more to do.
    pub(super) const fn note_gathered(&mut self, now: Instant) {
        self.turned_at = now;
    }

    /// A wait has ended; `is_missed` tells that it polled without success.
    pub(super) fn note_turn(&mut self, is_missed: bool, now: Instant) {
        let took = now.saturating_since(self.turned_at);
        self.turned_at = now;
        if took > CLOSE {
            self.run = 0;
            return;
        }
        if self.run < RUN {
            self.run += 1;
            return;
        }
        match &mut self.phase {
            Phase::Settled { left } => {
                *left = left.saturating_sub(if is_missed { MISS } else { 1 });
                if *left == 0 {
                    self.phase = Phase::Defence(Trial::default());
                }
            }
            Phase::Defence(trial) => {
                if let Some(defence) = trial.note(took) {
                    self.phase = Phase::Challenge { trial: Trial::default(), defence };
                }
            }
            Phase::Challenge { trial, defence } => {
                let defence = *defence;
                if let Some(challenge) = trial.note(took) {
                    self.decide(defence, challenge);
                }
            }
        }
    }

    fn decide(&mut self, defence: Duration, challenge: Duration) {
        let (looking, sleeping) =
            if self.is_looking_preferred { (defence, challenge) } else { (challenge, defence) };
        let is_looking_better = looking * 10 <= sleeping * WORTH;
        self.hold = if is_looking_better == self.is_looking_preferred {
            (self.hold * 2).min(HOLD.1)
        } else {
            HOLD.0
        };
        self.is_looking_preferred = is_looking_better;
        self.phase = Phase::Settled { left: self.hold };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(20);

    /// A loop whose turns take a given time, with a record of its turns.
    struct Loop {
        busy_poll: BusyPoll,
        now: Instant,
        looks: u32,
    }

    impl Loop {
        fn new(limit: Duration, processors: usize) -> Self {
            let busy_poll = BusyPoll::new(limit, processors);
            // The first turn comes long after the start, as the first packet does.
            Self { busy_poll, now: Instant::ZERO + Duration::from_secs(1), looks: 0 }
        }

        /// Makes `turns` turns. Returns in how many of them the loop polled.
        fn turn(&mut self, turns: u32, sleeping: u64, looking: u64, is_missed: bool) -> u32 {
            let before = self.looks;
            for _ in 0..turns {
                let is_looking = self.busy_poll.span().is_some();
                self.looks += u32::from(is_looking);
                let took = if is_looking { looking } else { sleeping };
                self.now = self.now + Duration::from_micros(took);
                self.busy_poll.note_turn(is_looking && is_missed, self.now);
            }
            self.looks - before
        }
    }

    #[test]
    fn quicker_way_is_taken_and_kept() {
        let mut quick_to_wake = Loop::new(LIMIT, 2);
        quick_to_wake.turn(1000, 12, 32, true);
        // Only trials poll: as a rule at most one turn in two hundred.
        let looks = quick_to_wake.turn(100_000, 12, 32, true);
        assert!((1..=700).contains(&looks), "{looks}");

        let mut slow_to_wake = Loop::new(LIMIT, 2);
        slow_to_wake.turn(1000, 30, 22, false);
        let sleeps = 100_000 - slow_to_wake.turn(100_000, 30, 22, false);
        assert!((1..=700).contains(&sleeps), "{sleeps}");
    }

    #[test]
    fn look_that_gains_next_to_nothing_is_not_worth_its_processor() {
        let mut turns = Loop::new(LIMIT, 2);
        turns.turn(1000, 100, 95, false);
        let looks = turns.turn(100_000, 100, 95, false);
        assert!(looks <= 700, "{looks}");
    }

    #[test]
    fn looks_end_soon_when_they_become_vain_and_come_back_when_they_pay_again() {
        let mut turns = Loop::new(LIMIT, 2);
        turns.turn(100_000, 30, 22, false);
        turns.turn(HOLD.1 / MISS + 2 * TRIAL, 30, 50, true);
        assert!(turns.turn(200, 30, 50, true) <= TRIAL);
        turns.turn(4 * HOLD.1, 30, 22, false);
        assert!(turns.turn(1000, 30, 22, false) >= 1000 - TRIAL);
    }

    #[test]
    fn rare_events_are_slept_for() {
        let mut turns = Loop::new(LIMIT, 2);
        turns.turn(100_000, 30, 22, false);
        let looks: u32 = (0..1000)
            .map(|_| turns.turn(1, 501, 501, true) + turns.turn(RUN - 1, 30, 22, false))
            .sum();
        // The very first pause ends a run in which the loop polled.
        assert_eq!(looks, 1);
    }

    #[test]
    fn turns_with_much_to_do_are_not_timed() {
        let mut turns = Loop::new(LIMIT, 2);
        for _ in 0..10_000 {
            turns.turn(1, 30, 22, false);
            turns.now = turns.now + Duration::from_millis(1);
            turns.busy_poll.note_gathered(turns.now);
        }
        assert!(turns.looks > 5000, "{}", turns.looks);
    }

    #[test]
    fn limit_may_be_as_long_as_it_likes() {
        let mut turns = Loop::new(Duration::MAX, 2);
        turns.turn(1000, 30, 22, false);
        assert_eq!(turns.busy_poll.span(), Some(Duration::MAX));
    }

    #[test]
    fn never_looks_on_one_processor_or_without_a_limit() {
        for mut turns in [Loop::new(LIMIT, 1), Loop::new(Duration::ZERO, 8)] {
            assert_eq!(turns.turn(10_000, 30, 1, false), 0);
        }
    }
}
