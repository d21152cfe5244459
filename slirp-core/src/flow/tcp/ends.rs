//! How far each direction of a connection has ended, and how the whole does.
//!
//! | end | arrives by | is passed on by |
//! | --- | --- | --- |
//! | the guest's | its FIN, which the connection remembers | `shutdown_write` of the host |
//! | the host's | [`Transfer::Ended`] | our FIN |
//! | a broken host | [`Transfer::Failed`] | our reset |
//!
//! Each is passed on behind the last byte that came before it.
//!
//! [`Transfer::Ended`]: crate::flow::Transfer::Ended
//! [`Transfer::Failed`]: crate::flow::Transfer::Failed
//!
//! Owns these marks and the verdict, an [`Ending`].

use crate::journal::Ending;
use crate::tcp::Connection;
use crate::time::Instant;

/// How far the end of one direction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Open,
    Arrived,
    Relayed,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Ends {
    is_guest_relayed: bool,
    host: End,
    /// Since when the host is known to be broken, or when it gave the guest something last after
    /// that. What it had said goes to the guest, then a reset.
    failed_at: Option<Instant>,
    /// Why we have reset the connection, if we have.
    aborted: Option<Ending>,
    /// Whether TIME-WAIT was reached and its acknowledgement is out: the engine is not polled any
    /// more, since the end of TIME-WAIT would throw away what the host has not taken yet.
    pub(super) is_lingering: bool,
}

impl Ends {
    pub(super) const fn new() -> Self {
        Self {
            is_guest_relayed: false,
            host: End::Open,
            failed_at: None,
            aborted: None,
            is_lingering: false,
        }
    }

    /// Whether the host has been told of the guest's end.
    pub(super) const fn is_guest_relayed(&self) -> bool {
        self.is_guest_relayed
    }

    /// Whether the host takes bytes: it has not been told of the guest's end, and is not broken.
    /// What a guest sends behind its own end is discarded (RFC 9293 section 3.10.7.4).
    pub(super) const fn is_host_taking(&self) -> bool {
        !self.is_guest_relayed && self.failed_at.is_none()
    }

    pub(super) const fn relay_guest(&mut self) {
        self.is_guest_relayed = true;
    }

    /// Whether the host has ended its direction.
    pub(super) fn is_host_ended(&self) -> bool {
        self.host != End::Open
    }

    /// The host has ended its direction. Behind a failure the kernel reports a reset as an end.
    pub(super) fn on_host_ended(&mut self) {
        if self.host == End::Open && self.failed_at.is_none() {
            self.host = End::Arrived;
        }
    }

    /// Whether the host's end is to be passed on now; then it counts as passed on. `may_end` says
    /// whether the engine can be told.
    pub(super) fn relay_host(&mut self, may_end: bool) -> bool {
        let is_due = self.host == End::Arrived && may_end;
        if is_due {
            self.host = End::Relayed;
        }
        is_due
    }

    pub(super) const fn failed_at(&self) -> Option<Instant> {
        self.failed_at
    }

    pub(super) fn on_host_failed(&mut self, now: Instant) {
        self.failed_at.get_or_insert(now);
    }

    /// The guest has been given bytes of the host: if that is broken, more may be left of it.
    pub(super) const fn on_given(&mut self, now: Instant) {
        if let Some(failed_at) = &mut self.failed_at {
            *failed_at = now;
        }
    }

    /// Whether the host can still say something new: it is neither ended nor broken.
    pub(super) fn is_host_open(&self) -> bool {
        self.host == End::Open && self.failed_at.is_none()
    }

    /// Whether we have reset the connection.
    pub(super) const fn is_aborted(&self) -> bool {
        self.aborted.is_some()
    }

    /// We reset the connection; the first reason stays.
    pub(super) fn abort(&mut self, why: Ending) {
        self.aborted.get_or_insert(why);
    }

    /// How the flow ended, if it did and has nothing more to say. Both directions may have ended on
    /// the guest's side while its last bytes still wait for a slow host: those are delivered first.
    pub(super) fn ending(&self, connection: &Connection, is_asked: bool) -> Option<Ending> {
        if !connection.is_dead() && !connection.is_time_wait() {
            return None;
        }
        if self.is_guest_relayed && is_asked {
            // The guest has ended in order and forgotten the rest.
            return Some(Ending::Orderly);
        }
        if self.aborted.is_some() {
            return self.aborted;
        }
        if !self.is_host_ended() || !connection.is_guest_finished() {
            let is_failed = connection.is_killed();
            return Some(if is_failed { Ending::EngineFailed } else { Ending::GuestReset });
        }
        // The end is passed on only behind the last byte.
        self.is_guest_relayed.then_some(Ending::Orderly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_the_host_is_passed_on_once_and_as_soon_as_the_engine_can_be_told() {
        let mut ends = Ends::new();
        assert!(!ends.relay_host(true), "it has not ended");
        ends.on_host_ended();
        assert!(ends.is_host_ended() && !ends.is_host_open());
        assert!(!ends.relay_host(false));
        assert!(ends.relay_host(true));
        ends.on_host_ended();
        assert!(!ends.relay_host(true));
        assert!(ends.is_host_ended());
    }

    #[test]
    fn end_behind_a_failure_is_a_reset() {
        let mut ends = Ends::new();
        ends.on_host_failed(Instant::ZERO);
        ends.on_host_ended();
        assert!(!ends.is_host_ended() && !ends.is_host_open() && !ends.is_host_taking());
        let later = Instant::ZERO + core::time::Duration::from_secs(1);
        ends.on_host_failed(later);
        assert_eq!(ends.failed_at(), Some(Instant::ZERO));
    }

    #[test]
    fn first_reason_for_a_reset_stays() {
        let mut ends = Ends::new();
        ends.abort(Ending::TimedOut);
        ends.abort(Ending::HostFailed);
        assert!(ends.is_aborted());
        assert_eq!(ends.aborted, Some(Ending::TimedOut));
        assert!(Ending::TimedOut.is_reset() && !Ending::Orderly.is_reset());
    }
}
