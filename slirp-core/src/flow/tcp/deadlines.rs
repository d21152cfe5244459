//! When a TCP flow is to be looked at again, and what becomes of it then.
//!
//! Owns the choice of the one deadline that a flow has, and the giving up of flows whose time is
//! over.

use core::time::Duration;

use super::{ACK_HOLD, State, TcpFlow};
use crate::config::Timeouts;
use crate::discard::DiscardReason;
use crate::journal::Ending;
use crate::tcp::Engine;
use crate::time::Instant;

/// Retry interval for an engine that asks to be polled at once but emits nothing.
pub(super) const ENGINE_PAUSE: Duration = Duration::from_millis(10);

impl TcpFlow {
    /// Works out when to look at the flow again; to be called when it has nothing more to say.
    pub(crate) fn settle(&mut self, engine: &mut Engine, timeouts: &Timeouts, now: Instant) {
        let handshake_timeout = self.handshake_timeout(timeouts);
        let State::Awake(awake) = &mut self.state else {
            return;
        };
        let ack_at = self.ack.at();
        if ack_at.is_none()
            && !awake.ends.is_host_ended()
            && let Some(parked) = engine.park_early(&awake.connection, now)
        {
            self.park(engine, parked);
            return;
        }
        engine.revive(&mut awake.connection, now);
        let (connection, watch) = (&awake.connection, &mut awake.watch);
        watch.engine_at = if ack_at.is_some() || awake.ends.is_lingering {
            // The engine would want to acknowledge at once, or is not to be polled any more.
            None
        } else {
            let at = engine.poll_at(connection, now);
            at.map(|at| if at <= now { now + ENGINE_PAUSE } else { at })
        };
        let failed_at = awake.ends.failed_at();
        let is_idle = watch.engine_at.is_none()
            && ack_at.is_none()
            && !awake.ends.is_lingering
            && failed_at.is_none()
            && connection.queued_to_host() == 0
            && connection.queued_to_guest() == 0;
        let is_half_closed = !connection.is_open_both_ways() && !connection.is_handshaking();
        let is_relayed = awake.ends.is_guest_relayed() == connection.is_guest_finished();
        watch.question.settle(is_idle && is_half_closed && is_relayed, self.active_at);
        let limit = if connection.is_handshaking() {
            Some(self.opened_at + handshake_timeout)
        } else if watch.engine_at.is_some() || watch.question.is_open() {
            Some(*watch.waiting_since.get_or_insert(now) + timeouts.guest_unresponsive)
        } else {
            watch.waiting_since = None;
            is_half_closed.then(|| self.active_at + timeouts.tcp_half_closed)
        };
        let park_at = connection.is_open_both_ways().then(|| {
            let idle_at = self.active_at + timeouts.tcp_park;
            // What could not be parked when it was due is tried again later.
            if idle_at > now { idle_at } else { now + timeouts.tcp_park }
        });
        let told_at = failed_at.map(|at| at + timeouts.guest_unresponsive);
        let verdict_at = self.gate.as_deref().and_then(|gate| gate.due_at(connection, now));
        let speak_at = self.first_speaker.is_ack_held().then(|| self.opened_at + ACK_HOLD);
        self.wake_at = [
            watch.engine_at,
            ack_at,
            speak_at,
            limit,
            park_at,
            connection.stalled_at(),
            told_at,
            verdict_at,
            watch.question.at(),
        ]
        .into_iter()
        .flatten()
        .min();
    }

    fn handshake_timeout(&self, timeouts: &Timeouts) -> Duration {
        self.arrival.as_ref().map_or(timeouts.guest_handshake, |arrival| arrival.patience)
    }

    /// A deadline has passed.
    ///
    /// # Errors
    /// Why the flow is to end.
    pub(crate) fn on_timer(
        &mut self,
        engine: &mut Engine,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        match &self.state {
            State::Connecting(_) if self.wake_at.is_some_and(|at| at <= now) => {
                Err(DiscardReason::HostConnectTimedOut)
            }
            State::Locating { .. } if now >= self.opened_at + self.handshake_timeout(timeouts) => {
                self.state = State::Broken(Ending::TimedOut);
                Err(DiscardReason::GuestNotFound)
            }
            State::Asking(_) | State::Connecting(_) | State::Locating { .. } => Ok(()),
            State::Awake(_) => self.on_awake_timer(engine, timeouts, now),
            State::Parked(_) | State::Broken(_) => {
                self.wake_at = None;
                Ok(())
            }
        }
    }

    fn on_awake_timer(
        &mut self,
        engine: &mut Engine,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let handshake_timeout = self.handshake_timeout(timeouts);
        let State::Awake(awake) = &mut self.state else {
            return Ok(());
        };
        // A guest that only shuts its window does not keep a broken host for ever.
        let since = awake.watch.waiting_since.into_iter().chain(awake.ends.failed_at()).min();
        let connection = &awake.connection;
        let expired = if connection.is_handshaking() && now >= self.opened_at + handshake_timeout {
            Some(DiscardReason::TcpHandshakeTimedOut)
        } else if since.is_some_and(|since| now >= since + timeouts.guest_unresponsive) {
            Some(DiscardReason::TcpGuestUnresponsive)
        } else if !connection.is_open_both_ways()
            && now >= self.active_at + timeouts.tcp_half_closed
        {
            Some(DiscardReason::TcpHalfClosedIdle)
        } else {
            None
        };
        if let Some(reason) = expired {
            awake.abort(Ending::TimedOut);
            return Err(reason);
        }
        if now >= self.active_at + timeouts.tcp_park
            && self.ack.at().is_none()
            && !awake.ends.is_host_ended()
            && let Some(parked) = engine.park(&awake.connection, now)
        {
            self.park(engine, parked);
        }
        Ok(())
    }
}
