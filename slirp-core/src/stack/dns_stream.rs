//! The DNS service's end of one TCP connection of the guest.
//!
//! Owns the stream's state between the TCP flow, which pumps it like a host socket, and the
//! [`DnsService`](crate::service::dns::DnsService), which knows the queries. Framing and back-pressure are
//! those of [`DnsTcpFramer`] (RFC 7766).

use core::net::IpAddr;

use crate::event::FlowId;
use crate::flow::{HostStream, Transfer};
use crate::service::dns::DnsTcpFramer;
use crate::time::Instant;

/// Bytes of answers that may wait for the guest to take them. Beyond that nothing is read from the
/// guest, so that one which asks and never listens holds at most this and its queries in flight.
const ANSWERS_CAP: usize = 256 * 1024;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct DnsStream {
    /// Whose it is.
    pub(crate) flow: FlowId,
    /// The address that the guest, or one of several, asked from.
    pub(crate) asker: IpAddr,
    /// When the guest asked for it.
    pub(crate) opened_at: Instant,
    framer: DnsTcpFramer,
    messages: Vec<Vec<u8>>,
    answers: Vec<u8>,
    is_guest_ended: bool,
}

impl DnsStream {
    pub(crate) const fn new(flow: FlowId, asker: IpAddr, now: Instant) -> Self {
        Self {
            flow,
            asker,
            opened_at: now,
            framer: DnsTcpFramer::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            is_guest_ended: false,
        }
    }

    /// The queries that have become whole.
    pub(crate) fn take_messages(&mut self) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.messages)
    }

    /// A query came to nothing.
    pub(crate) const fn handle_discard(&mut self) {
        self.framer.handle_done();
    }

    /// A query was answered.
    pub(crate) fn handle_answer(&mut self, answer: &[u8]) {
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

    fn stream() -> DnsStream {
        let asker = "10.0.2.100".parse().unwrap();
        DnsStream::new(FlowId { index: 1, generation: 1 }, asker, Instant::from_micros(0))
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
}
