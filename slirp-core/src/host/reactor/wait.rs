//! How the loop waits: in the poller, after a while of polling, and never past a deadline.
//!
//! Owns the clock and the timer descriptor. How long polling is worth it is decided by
//! [`busy_poll`](super::busy_poll).

use std::io;
use std::time::Duration;

use mio::Events;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

use super::{Reactor, RunError};
use crate::time::Instant;

/// How long an observer without room waits at most until it is told what it has lost (arbitrary).
const LOSS_RETRY: Duration = Duration::from_secs(1);

impl Reactor {
    /// Waits until there is an event or pending work. Returns the time at which the wait ended.
    pub(super) fn wait(&mut self, events: &mut Events) -> Result<Instant, RunError> {
        let patience = self.patience();
        if std::mem::take(&mut self.is_gathering) || patience == Some(Duration::ZERO) {
            self.poll(events, patience)?;
            let now = self.now();
            self.busy_poll.note_gathered(now);
            return Ok(now);
        }
        let span = self.busy_poll.span();
        let is_found = match span {
            Some(span) => self.look(events, span)?,
            None => false,
        };
        if !is_found {
            self.poll(events, patience)?;
        }
        let now = self.now();
        self.busy_poll.note_turn(span.is_some() && !is_found, now);
        Ok(now)
    }

    /// Polls for events for up to `span`, without sleeping. Returns whether there are any.
    fn look(&mut self, events: &mut Events, span: Duration) -> Result<bool, RunError> {
        let until = self.now() + span;
        loop {
            self.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() || self.now() >= until {
                return Ok(!events.is_empty());
            }
        }
    }

    pub(super) fn poll(
        &mut self,
        events: &mut Events,
        patience: Option<Duration>,
    ) -> Result<(), RunError> {
        match self.poll.poll(events, patience) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            Err(error) => Err(RunError::Poller(error)),
        }
    }

    pub(super) fn now(&self) -> Instant {
        let micros = self.started_at.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// How long the next wait may take: zero while there is work, else until the next event, the
    /// timer included.
    pub(super) fn patience(&mut self) -> Option<Duration> {
        let has_work = self.stack.has_work() || !self.backlog.is_empty();
        // Work for the guest has to wait while the link is full.
        if has_work && !self.link.is_full() {
            return Some(Duration::ZERO);
        }
        let pause = if self.forwards.is_idle() { None } else { self.forwards.patience(self.now()) };
        let pause = if self.has_untold_losses() {
            Some(pause.map_or(LOSS_RETRY, |pause| pause.min(LOSS_RETRY)))
        } else {
            pause
        };
        let Some((at, _)) = self.stack.poll_timeout() else {
            return pause;
        };
        if self.timer_at.is_some_and(|timer_at| timer_at <= at) {
            return pause;
        }
        // Zero would disarm the timer (timerfd_create(2)).
        let wait = at.saturating_since(self.now()).max(Duration::from_micros(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        if let Err(error) = self.timer.set(expiration, TimerSetTimeFlags::empty()) {
            tracing::debug!(%error, "the timer was not set");
            return Some(pause.map_or(wait, |pause| pause.min(wait)));
        }
        self.timer_at = Some(at);
        pause
    }
}
