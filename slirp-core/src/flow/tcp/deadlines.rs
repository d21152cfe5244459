//! When a TCP flow is to be looked at again, and what becomes of it then.
//!
//! Owns the choice of the one deadline that a flow has, and the giving up of flows whose time is
//! over.

use core::time::Duration;

use super::{ACK_HOLD, State, TcpFlow};
use crate::config::Timeouts;
use crate::discard::DiscardReason;
use crate::tcp::Engine;
use crate::time::Instant;

/// How soon an engine is looked at again that wants to be polled but has nothing to say.
const ENGINE_PAUSE: Duration = Duration::from_millis(10);

impl TcpFlow {
    /// Works out when to look at the flow again; to be called when it has nothing more to say.
    pub(crate) fn settle(&mut self, engine: &mut Engine, timeouts: &Timeouts, now: Instant) {
        let handshake_timeout = self.handshake_timeout(timeouts);
        let State::Awake(connection) = &mut self.state else {
            return;
        };
        if self.ack_at.is_none()
            && !self.is_host_ended
            && let Some(parked) = engine.park_early(connection, now)
        {
            self.park(parked);
            return;
        }
        engine.revive(connection, now);
        self.engine_at = if self.ack_at.is_some() || self.is_lingering {
            // The engine would want to acknowledge at once, or is not to be polled any more.
            None
        } else {
            let at = engine.poll_at(connection, now);
            at.map(|at| if at <= now { now + ENGINE_PAUSE } else { at })
        };
        let is_idle = self.engine_at.is_none()
            && self.ack_at.is_none()
            && !self.is_lingering
            && self.failed_at.is_none()
            && connection.queued_to_host() == 0
            && connection.queued_to_guest() == 0;
        let is_half_closed = !connection.is_open_both_ways() && !connection.is_handshaking();
        let is_relayed = self.is_guest_end_relayed == connection.is_guest_finished();
        self.question.settle(is_idle && is_half_closed && is_relayed, self.active_at);
        let limit = if connection.is_handshaking() {
            Some(self.opened_at + handshake_timeout)
        } else if self.engine_at.is_some() || self.question.is_open() {
            Some(*self.waiting_since.get_or_insert(now) + timeouts.guest_unresponsive)
        } else {
            self.waiting_since = None;
            is_half_closed.then(|| self.active_at + timeouts.tcp_half_closed)
        };
        let park_at = connection.is_open_both_ways().then(|| {
            let idle_at = self.active_at + timeouts.tcp_park;
            // What could not be parked when it was due is tried again later.
            if idle_at > now { idle_at } else { now + timeouts.tcp_park }
        });
        let stalled_at = connection.stalled_at();
        let told_at = self.failed_at.map(|at| at + timeouts.guest_unresponsive);
        let speak_at = self.first_word.is_ack_held().then(|| self.opened_at + ACK_HOLD);
        let ask_at = self.question.at();
        self.wake_at =
            [self.engine_at, self.ack_at, speak_at, limit, park_at, stalled_at, told_at, ask_at]
                .into_iter()
                .flatten()
                .min();
    }

    const fn handshake_timeout(&self, timeouts: &Timeouts) -> Duration {
        if self.is_inbound { timeouts.guest_connect } else { timeouts.guest_handshake }
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
        let handshake_timeout = self.handshake_timeout(timeouts);
        match &mut self.state {
            State::Connecting { .. } => {
                if now >= self.opened_at + timeouts.host_connect {
                    return Err(DiscardReason::HostConnectTimedOut);
                }
            }
            State::Locating { .. } => {
                if now >= self.opened_at + timeouts.guest_connect {
                    self.abort();
                    return Err(DiscardReason::GuestNotFound);
                }
            }
            State::Awake(connection) => {
                if connection.is_handshaking() && now >= self.opened_at + handshake_timeout {
                    self.is_aborted = true;
                    connection.abort();
                    return Err(DiscardReason::TcpHandshakeTimedOut);
                }
                // A guest that only shuts its window does not keep a broken host for ever.
                let since = self.waiting_since.into_iter().chain(self.failed_at).min();
                if since.is_some_and(|since| now >= since + timeouts.guest_unresponsive) {
                    self.is_aborted = true;
                    connection.abort();
                    return Err(DiscardReason::TcpGuestUnresponsive);
                }
                if !connection.is_open_both_ways()
                    && now >= self.active_at + timeouts.tcp_half_closed
                {
                    self.is_aborted = true;
                    connection.abort();
                    return Err(DiscardReason::TcpHalfClosedIdle);
                }
                if now >= self.active_at + timeouts.tcp_park
                    && self.ack_at.is_none()
                    && !self.is_host_ended
                    && let Some(parked) = engine.park(connection, now)
                {
                    self.park(parked);
                }
            }
            State::Parked(_) | State::Broken => self.wake_at = None,
        }
        Ok(())
    }
}
