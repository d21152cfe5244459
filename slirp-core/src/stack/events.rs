//! What the stack tells a listener: a bounded queue of events.
//!
//! Owns the queue, and what is lost when the listener does not empty it in time. Without a listener
//! each method is one comparison. What the events say is in [`journal`](crate::journal).

use std::collections::VecDeque;

use crate::discard::DiscardReason;
use crate::event::{FlowId, HostError};
use crate::flow::table::{Entry, Meta};
use crate::journal::{Detail, Ending, Ends, Event, Judgement, PacketEnds, Peer, Refusal, Report};
use crate::time::Instant;
use crate::traffic::Traffic;

/// Events that wait for the listener at most. Those of one turn are to fit: 64 frames, of which
/// each may discard, open and evict, and a few hundred sockets of the host (arbitrary; about 200
/// bytes each).
const EVENTS_CAP: usize = 1024;

/// Places that are left when there is no [room](Events::has_room) (arbitrary: more than one packet
/// makes events).
const RESERVE: usize = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Events {
    detail: Detail,
    queue: VecDeque<Report>,
    /// Events that found no place since the last one that did.
    lost: u64,
}

impl Events {
    /// Chooses how much is told from now on. What waits already is forgotten.
    pub(super) fn set_detail(&mut self, detail: Detail) {
        let cap = if detail == Detail::Nothing { 0 } else { EVENTS_CAP };
        *self = Self { detail, queue: VecDeque::with_capacity(cap), lost: 0 };
    }

    /// Whether a listener wants flows and names.
    pub(super) fn has_listener(&self) -> bool {
        self.detail >= Detail::Flows
    }

    pub(super) fn poll(&mut self) -> Option<Report> {
        self.queue.pop_front()
    }

    /// How many events were lost behind the last one that is told, or will be.
    pub(super) const fn take_lost(&mut self) -> u64 {
        core::mem::replace(&mut self.lost, 0)
    }

    /// Whether what one more packet causes can be told as a whole.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() + RESERVE <= EVENTS_CAP
    }

    /// Tells of a flow or a name.
    pub(super) fn tell(&mut self, event: impl FnOnce() -> Event) {
        if self.has_listener() {
            self.push(event());
        }
    }

    pub(super) fn opened(&mut self, flow: FlowId, ends: Ends, peer: Peer) {
        self.tell(|| Event::Opened { flow, ends, peer });
    }

    /// A TCP flow has both sides.
    pub(super) fn connected(&mut self, meta: &Meta, now: Instant) {
        self.tell(|| {
            let key = &meta.key;
            let ends = Ends::new(key.protocol, key.guest, key.remote);
            let after = now.saturating_since(meta.created_at);
            Event::Connected { flow: meta.id, ends, after }
        });
    }

    /// Something was refused before it became a flow.
    pub(super) fn refused(&mut self, ends: Ends, by: Refusal) {
        let traffic = Traffic::default();
        self.tell(|| Event::Refused { flow: None, ends, by, traffic, judged: None });
    }

    /// A flow has come to nothing.
    pub(super) fn flow_refused(&mut self, entry: &Entry, by: Refusal) {
        self.tell(|| Event::Refused {
            flow: Some(entry.meta.id),
            ends: entry.ends(),
            by,
            traffic: entry.meta.traffic,
            judged: entry.course(),
        });
    }

    /// A verdict, about a flow if there is one. Without a listener there is no `judgement`.
    pub(super) fn judged(&mut self, flow: Option<FlowId>, judgement: Option<Box<Judgement>>) {
        if let Some(judgement) = judgement {
            self.tell(|| Event::Judged { flow, judgement });
        }
    }

    /// The host did not send `count` datagrams of a flow.
    pub(super) fn unsent(&mut self, entry: &Entry, error: HostError, count: u64) {
        self.tell(|| Event::Unsent { flow: entry.meta.id, ends: entry.ends(), error, count });
    }

    pub(super) fn closed(&mut self, entry: &Entry, ending: Ending, now: Instant) {
        self.tell(|| Event::Closed {
            flow: entry.meta.id,
            ends: entry.ends(),
            ending,
            age: now.saturating_since(entry.meta.created_at),
            traffic: entry.meta.traffic,
            judged: entry.course(),
        });
    }

    /// Tells of a discard. `packet` parses what was discarded. Returns whether a listener hears of
    /// it.
    pub(super) fn discarded(
        &mut self,
        reason: DiscardReason,
        packet: impl FnOnce() -> Option<PacketEnds>,
    ) -> bool {
        let is_wanted = self.detail >= Detail::Discards;
        if is_wanted {
            self.push(Event::Discarded { reason, packet: packet() });
        }
        is_wanted
    }

    fn push(&mut self, event: Event) {
        if self.queue.len() < EVENTS_CAP {
            let lost = core::mem::take(&mut self.lost);
            self.queue.push_back(Report { lost, event });
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(index: u32) -> (FlowId, Ends, Peer) {
        let guest = ([10, 0, 2, 100], 4000).into();
        let remote = ([192, 0, 2, 1], 80).into();
        let ends = Ends::new(crate::policy::Protocol::Tcp, guest, remote);
        (FlowId { index, generation: 1 }, ends, Peer::Host(remote))
    }

    fn tell(events: &mut Events, index: u32) {
        let (flow, ends, peer) = opened(index);
        events.opened(flow, ends, peer);
    }

    #[test]
    fn nothing_is_kept_or_parsed_without_a_listener() {
        let mut events = Events::default();
        tell(&mut events, 1);
        assert!(!events.discarded(DiscardReason::ArpInvalid, || panic!("not asked for")));
        events.set_detail(Detail::Flows);
        assert!(!events.discarded(DiscardReason::ArpInvalid, || panic!("not asked for")));
        assert_eq!(events.poll(), None);
        events.set_detail(Detail::Discards);
        tell(&mut events, 1);
        assert!(events.discarded(DiscardReason::ArpInvalid, || None));
        assert_eq!(core::iter::from_fn(|| events.poll()).count(), 2);
        assert_eq!(events.queue.capacity(), EVENTS_CAP);
        tell(&mut events, 1);
        events.set_detail(Detail::Nothing);
        assert_eq!((events.poll(), events.queue.capacity()), (None, 0));
    }

    #[test]
    fn losses_are_counted_and_told_with_the_next_event() {
        let mut events = Events::default();
        events.set_detail(Detail::Flows);
        for index in 0..u32::try_from(EVENTS_CAP).unwrap() + 3 {
            tell(&mut events, index);
        }
        assert_eq!(events.poll().unwrap().lost, 0);
        tell(&mut events, 9999);
        let reports: Vec<_> = core::iter::from_fn(|| events.poll()).collect();
        assert_eq!(reports.len(), EVENTS_CAP);
        let (last, others) = reports.split_last().unwrap();
        assert!(others.iter().all(|report| report.lost == 0));
        let (flow, ends, peer) = opened(9999);
        assert_eq!(*last, Report { lost: 3, event: Event::Opened { flow, ends, peer } });
        tell(&mut events, 1);
        assert_eq!(events.poll().unwrap().lost, 0);
    }
}
