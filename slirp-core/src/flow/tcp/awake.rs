//! A flow with a connection: what one turn moves between the guest's rings and the host.
//!
//! Owns the order of the steps in [`Awake::pump`]; the rules of each part are with the part.

use super::ends::Ends;
use super::growth::Growth;
use super::keep_alive::KeepAlive;
use crate::discard::DiscardReason;
use crate::flow::eager::FirstSpeaker;
use crate::flow::question::Question;
use crate::flow::transfer::{
    Allowance, HostStream, Transfer, Wants, drain_to_host, fill_from_host,
};
use crate::journal::Ending;
use crate::tcp::{Connection, Engine, Segment};
use crate::time::Instant;
use crate::traffic::Traffic;

/// What a flow has only while its connection has a socket and rings.
pub(super) struct Awake {
    pub(super) connection: Connection,
    pub(super) ends: Ends,
    pub(super) growth: Growth,
    pub(super) watch: Watch,
}

/// What the flow waits for on the guest's side; [`deadlines`](super::deadlines) writes it.
pub(super) struct Watch {
    /// When the engine wants to be polled.
    pub(super) engine_at: Option<Instant>,
    /// Since when the guest has owed an answer, to the engine or to the question.
    pub(super) waiting_since: Option<Instant>,
    pub(super) question: Question,
}

impl Watch {
    /// A segment of the guest has arrived.
    pub(super) const fn on_heard(&mut self, segment: &Segment) {
        self.waiting_since = None;
        if !segment.is_rst() {
            self.question.on_heard();
        }
    }
}

/// One call of [`Awake::pump`]: what it works with, and how much it has moved so far.
pub(super) struct Turn<'t, H> {
    pub(super) host: &'t mut H,
    pub(super) engine: &'t mut Engine,
    pub(super) traffic: &'t mut Traffic,
    pub(super) first_speaker: &'t mut FirstSpeaker,
    pub(super) keep_alive: &'t mut KeepAlive,
    /// Whether the acknowledgement of the remote's SYN has been held long enough.
    pub(super) is_late: bool,
    /// How many bytes of the guest the gate lets leave.
    pub(super) limit: usize,
    /// What the rates of the guest allow.
    pub(super) allowance: Allowance,
    pub(super) wants: Wants,
    pub(super) now: Instant,
    pub(super) moved: usize,
}

impl Awake {
    pub(super) const fn new(connection: Connection) -> Self {
        Self {
            connection,
            ends: Ends::new(),
            growth: Growth::new(),
            watch: Watch { engine_at: None, waiting_since: None, question: Question::new() },
        }
    }

    /// Moves bytes and ends in both directions.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(super) fn pump(
        &mut self,
        turn: &mut Turn<'_, impl HostStream>,
    ) -> Result<(), DiscardReason> {
        let held_before = self.connection.held();
        self.feed_host(turn);
        self.end_host(turn);
        let limit = self.make_room(turn);
        let is_drained = self.feed_guest(limit, turn);
        turn.tell_host();
        self.end_guest();
        if turn.moved > 0 {
            self.watch.question.on_moved();
        }
        self.abort_if_due(is_drained, held_before, turn.engine)
    }

    /// Gives the host what the guest has sent.
    fn feed_host(&mut self, turn: &mut Turn<'_, impl HostStream>) {
        if self.connection.queued_to_host() == 0 || !self.ends.is_host_taking() {
            return;
        }
        let allowed = turn.allowance.from_guest;
        let limit = turn.limit.min(allowed);
        let (bytes, outcome) = drain_to_host(&mut self.connection, turn.host, limit);
        turn.wants.from_guest = bytes == allowed && self.connection.queued_to_host() > 0;
        turn.traffic.add_from_guest(bytes);
        turn.moved += bytes;
        turn.limit -= bytes;
        if bytes > 0 {
            turn.first_speaker.observe(!turn.is_late);
        }
        if outcome == Transfer::Failed {
            self.ends.on_host_failed(turn.now);
        }
    }

    /// Ends the host's direction behind the guest's last byte.
    fn end_host(&mut self, turn: &mut Turn<'_, impl HostStream>) {
        if self.connection.is_guest_finished()
            && self.connection.queued_to_host() == 0
            && self.ends.is_host_taking()
        {
            self.ends.relay_guest();
            turn.first_speaker.observe(false);
            turn.host.shutdown_write();
        }
    }

    /// Exchanges the rings where that is due. Returns how much may be read from the host; `None`
    /// where there is nothing to read.
    fn make_room(&mut self, turn: &mut Turn<'_, impl HostStream>) -> Option<usize> {
        if self.ends.is_host_ended() || self.connection.is_handshaking() {
            return None;
        }
        Some(self.growth.make_room(&mut self.connection, turn.engine, turn.now))
    }

    /// Gives the guest what the host has sent, up to `limit` bytes. Returns whether the host has
    /// nothing more to say for now.
    fn feed_guest(&mut self, limit: Option<usize>, turn: &mut Turn<'_, impl HostStream>) -> bool {
        let Some(limit) = limit else {
            return self.ends.is_host_ended();
        };
        let allowed = turn.allowance.to_guest;
        let most = limit.min(allowed);
        let (bytes, outcome) = fill_from_host(&mut self.connection, turn.host, turn.engine, most);
        turn.wants.to_guest = bytes == allowed
            && bytes < limit
            && self.connection.has_room()
            && turn.host.has_input();
        turn.traffic.add_to_guest(bytes);
        turn.moved += bytes;
        if bytes > 0 {
            turn.first_speaker.observe(false);
            self.ends.on_given(turn.now);
        }
        self.growth.on_given(bytes);
        match outcome {
            Some(Transfer::Failed) => self.ends.on_host_failed(turn.now),
            Some(Transfer::Ended) => self.ends.on_host_ended(),
            Some(Transfer::Moved(_) | Transfer::Blocked) | None => {}
        }
        outcome.is_some()
    }

    /// Ends the guest's direction behind the host's last byte. Once both directions are closing
    /// (LAST-ACK) the engine is deaf to window updates (defect B15): it is told of the second end
    /// when the guest has acknowledged everything before.
    fn end_guest(&mut self) {
        let may_end =
            !self.connection.is_guest_finished() || self.connection.queued_to_guest() == 0;
        if self.ends.relay_host(may_end) {
            self.connection.close();
        }
    }

    /// Resets the guest behind the last byte of a broken host, or where its connections hold too
    /// much memory.
    fn abort_if_due(
        &mut self,
        is_drained: bool,
        held_before: usize,
        engine: &Engine,
    ) -> Result<(), DiscardReason> {
        let is_told = is_drained && self.connection.queued_to_guest() == 0;
        if engine.is_memory_exhausted(&self.connection, held_before) {
            self.abort(Ending::MemoryExhausted);
            return Err(DiscardReason::RingMemoryExhausted);
        }
        if self.ends.failed_at().is_some() && is_told {
            self.abort(Ending::HostFailed);
        }
        Ok(())
    }

    /// Resets the connection.
    pub(super) fn abort(&mut self, why: Ending) {
        self.ends.abort(why);
        self.connection.abort();
    }

    /// Whether an answer is likely that could carry an acknowledgement: nothing else is under way,
    /// and the remote has not ended. Behind the guest's end, the remote's end is that answer.
    pub(super) fn is_answer_likely(&self) -> bool {
        !self.ends.is_host_ended()
            && (self.connection.is_open_both_ways() || self.connection.is_ended_by_guest())
            && self.connection.queued_to_guest() == 0
            && self.connection.queued_to_host() == 0
    }

    /// How the flow ended, if it did and has nothing more to say.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ends.ending(&self.connection, self.watch.question.is_open())
    }
}

impl<H: HostStream> Turn<'_, H> {
    /// What the host's kernel is to know of the guest's probes and of a guest that stays silent.
    fn tell_host(&mut self) {
        if let Some(idle_for) = self.keep_alive.take_report() {
            self.host.keep_alive(idle_for);
        }
        if self.is_late && self.first_speaker.is_ack_held() {
            self.first_speaker.observe(false);
            self.host.acknowledge();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awake_flow_takes_no_more_memory_than_it_did() {
        assert!(size_of::<Awake>() <= 312);
    }
}
