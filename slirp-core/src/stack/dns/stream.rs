//! The DNS service's end of TCP connections of the guest.
//!
//! Owns each stream's state between the TCP flow, which pumps it like a host socket, and the
//! [`DnsService`](crate::service::dns::DnsService), which knows the queries. Owns the choice of the
//! connection that goes when there are too many, or too many bytes of answers, too. Framing and
//! back-pressure are left to [`DnsTcpFramer`] (RFC 7766).

use std::collections::BTreeMap;

use crate::event::FlowId;
use crate::flow::{HostStream, Transfer};
use crate::service::dns::DnsTcpFramer;
use crate::share::{Holder, Shares};
use crate::time::Instant;

/// Bytes of answers that may wait for the guest on one connection. Beyond that nothing is read from
/// the guest: a guest that asks and never listens holds at most this and the answers to its queries
/// in flight. All connections together hold at most this times the cap on connections.
const ANSWERS_CAP: usize = 256 * 1024;

/// The connections to the service, by the slot of their flow.
#[derive(Debug)]
pub(super) struct DnsStreams {
    streams: BTreeMap<u32, DnsStream>,
    connections: Shares,
    answers: Shares,
}

impl DnsStreams {
    /// At most `cap` connections, of which each member may have a part if the network `is_shared`.
    pub(super) fn new(cap: usize, is_shared: bool) -> Self {
        Self {
            streams: BTreeMap::new(),
            connections: Shares::new(cap, is_shared),
            answers: Shares::new(cap.saturating_mul(ANSWERS_CAP), is_shared),
        }
    }

    pub(super) fn insert(&mut self, stream: DnsStream) {
        self.connections.add(stream.holder, 1);
        self.streams.insert(stream.flow.index, stream);
    }

    pub(super) fn get_mut(&mut self, flow: FlowId) -> Option<&mut DnsStream> {
        self.streams.get_mut(&flow.index).filter(|stream| stream.flow == flow)
    }

    pub(super) fn remove(&mut self, flow: FlowId) {
        if self.get_mut(flow).is_some()
            && let Some(stream) = self.streams.remove(&flow.index)
        {
            self.connections.remove(stream.holder, 1);
            self.answers.remove(stream.holder, stream.counted);
        }
    }

    /// Notes how many bytes of answers a connection holds, after some came or went.
    pub(super) fn recount(&mut self, flow: FlowId) {
        let Some(stream) = self.streams.get_mut(&flow.index) else { return };
        self.answers.remove(stream.holder, stream.counted);
        stream.counted = stream.answers.len();
        self.answers.add(stream.holder, stream.counted);
    }

    /// The connection that goes before `holder` may have one more: the one that was asked for
    /// first, of the holder that has most. A resolver that still uses it opens another.
    pub(super) fn surplus(&self, holder: Holder) -> Option<FlowId> {
        let crowder = self.connections.crowded_by(holder, 1)?;
        let of_crowder = self.streams.values().filter(|stream| stream.holder == crowder);
        of_crowder.min_by_key(|stream| stream.opened_at).map(|stream| stream.flow)
    }

    /// The connection that goes before one of `holder` may hold `len` more bytes of answers: the
    /// one with most of them, of the holder that has most.
    pub(super) fn surplus_of_answers(&self, holder: Holder, len: usize) -> Option<FlowId> {
        let crowder = self.answers.crowded_by(holder, len)?;
        let of_crowder = self.streams.values().filter(|stream| stream.holder == crowder);
        of_crowder.max_by_key(|stream| stream.answers.len()).map(|stream| stream.flow)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::stack) struct DnsStream {
    /// The TCP flow that it serves.
    pub(super) flow: FlowId,
    /// The member that it counts for.
    pub(super) holder: Holder,
    /// When the guest asked for it.
    pub(super) opened_at: Instant,
    framer: DnsTcpFramer,
    messages: Vec<Vec<u8>>,
    answers: Vec<u8>,
    /// How many of `answers` are counted.
    counted: usize,
    is_guest_ended: bool,
}

impl DnsStream {
    pub(super) const fn new(flow: FlowId, holder: Holder, now: Instant) -> Self {
        Self {
            flow,
            holder,
            opened_at: now,
            framer: DnsTcpFramer::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            counted: 0,
            is_guest_ended: false,
        }
    }

    /// The queries that have become whole.
    pub(super) fn take_messages(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.messages)
    }

    /// A query came to nothing.
    pub(super) const fn handle_discard(&mut self) {
        self.framer.handle_done();
    }

    /// A query was answered.
    pub(super) fn handle_answer(&mut self, answer: &[u8]) {
        self.framer.handle_done();
        if let Some(framed) = DnsTcpFramer::frame(answer) {
            self.answers.extend_from_slice(&framed);
        }
    }
}

impl HostStream for DnsStream {
    fn send(&mut self, data: &[u8]) -> Transfer {
        if self.answers.len() >= ANSWERS_CAP {
            return Transfer::Blocked;
        }
        let mut taken = 0;
        loop {
            taken += self.framer.handle_bytes(&data[taken..]);
            match self.framer.poll_message() {
                Some(message) => self.messages.push(message),
                None if taken > 0 => return Transfer::Moved(taken),
                None => return Transfer::Blocked,
            }
        }
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        if self.answers.is_empty() {
            let is_done = self.is_guest_ended && self.framer.is_idle() && self.messages.is_empty();
            return if is_done { Transfer::Ended } else { Transfer::Blocked };
        }
        let len = room.len().min(self.answers.len());
        room[..len].copy_from_slice(&self.answers[..len]);
        self.answers.drain(..len);
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {
        self.is_guest_ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::MemberId;

    fn stream() -> DnsStream {
        DnsStream::new(FlowId { index: 1, generation: 1 }, None, Instant::from_micros(0))
    }

    #[test]
    fn answers_follow_queries_and_the_stream_ends_after_the_last() {
        let mut stream = stream();
        assert_eq!(stream.send(&[0, 2, b'a']), Transfer::Moved(3));
        assert!(stream.take_messages().is_empty());
        assert_eq!(stream.send(b"b"), Transfer::Moved(1));
        assert_eq!(stream.take_messages(), vec![b"ab".to_vec()]);
        stream.shutdown_write();
        let mut room = [0; 16];
        assert_eq!(stream.recv(&mut room), Transfer::Blocked);
        stream.handle_answer(b"xyz");
        assert_eq!(stream.recv(&mut room), Transfer::Moved(5));
        assert_eq!(&room[..5], &[0, 3, b'x', b'y', b'z']);
        assert_eq!(stream.recv(&mut room), Transfer::Ended);
    }

    #[test]
    fn a_guest_that_never_listens_is_not_read_any_more() {
        let mut stream = stream();
        for _ in 0..5 {
            stream.handle_answer(&[0; 65_000]);
        }
        assert_eq!(stream.send(&[0, 1, 1]), Transfer::Blocked);
    }

    #[test]
    fn member_that_never_listens_holds_a_quarter_of_all_answers() {
        const CONNECTIONS: usize = 16;
        let mut streams = DnsStreams::new(CONNECTIONS, true);
        let [a, b] = [1, 2].map(|id| Some(MemberId(id)));
        let flow = |index| FlowId { index, generation: 1 };
        for index in 0..4 {
            assert_eq!(streams.surplus(a), None);
            streams.insert(DnsStream::new(flow(index), a, Instant::from_micros(index.into())));
        }
        assert_eq!(streams.surplus(a), Some(flow(0)), "the oldest of its own");
        assert_eq!(streams.surplus(b), None);
        let mut held = 0;
        while streams.surplus_of_answers(a, 65_000).is_none() {
            streams.get_mut(flow(1)).unwrap().handle_answer(&[0; 65_000]);
            streams.recount(flow(1));
            held += 65_002;
        }
        assert!(held <= CONNECTIONS * ANSWERS_CAP / 4);
        assert_eq!(streams.surplus_of_answers(a, 65_000), Some(flow(1)));
        assert_eq!(streams.surplus_of_answers(b, 65_000), None);
        // What the guest takes is its own again, and so is what goes with a connection.
        streams.get_mut(flow(1)).unwrap().recv(&mut [0; 65_536]);
        streams.recount(flow(1));
        assert_eq!(streams.surplus_of_answers(a, 65_000), None);
        streams.remove(flow(1));
        assert_eq!((streams.answers.total(), streams.connections.total()), (0, 3));
    }
}
