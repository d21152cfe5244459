//! DNS messages in a TCP stream: cuts what the guest sends into messages.
//!
//! Owns the two-byte length prefix and the back-pressure of one connection. Leaves the connection
//! itself to its flow and the messages to [`DnsService`](super::DnsService).
//!
//! RFC 1035 section 4.2.2 (length prefix), RFC 7766 section 6.2.1.1 (pipelining), section 8 (a
//! prefix and its message may arrive in any pieces).

/// Queries of one connection that may be in flight; beyond them nothing is taken from the stream,
/// so that TCP slows the guest down (arbitrary; stub resolvers pipeline two).
pub(crate) const QUERIES_PER_CONNECTION_CAP: usize = 16;

/// State of the stream from the guest.
///
/// | state | takes bytes | left by |
/// | --- | --- | --- |
/// | `Prefix` | up to 2 | the second byte of the length; zero is skipped |
/// | `Body` | what is missing | the last byte of the message |
/// | `Whole` | none | [`DnsTcpFramer::poll_message`] |
#[derive(Debug)]
enum State {
    Prefix(Option<u8>),
    Body { missing: usize, message: Vec<u8> },
    Whole(Vec<u8>),
}

/// Cuts one guest's TCP stream into DNS messages, with at most one of them held (64 KiB, grown as
/// the bytes arrive and not when the length is announced).
#[derive(Debug)]
pub(crate) struct DnsTcpFramer {
    state: State,
    in_flight: usize,
}

impl DnsTcpFramer {
    /// The state of a fresh connection.
    pub(crate) const fn new() -> Self {
        Self { state: State::Prefix(None), in_flight: 0 }
    }

    /// Takes bytes of the stream and returns how many it took. If fewer than all were taken, poll
    /// the message that is whole now, then offer the rest again. If none were taken and no message
    /// can be polled, wait for an answer.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            match &mut self.state {
                State::Prefix(high @ None) => {
                    *high = Some(byte);
                    taken += 1;
                }
                State::Prefix(Some(high)) => {
                    let missing = usize::from(u16::from_be_bytes([*high, byte]));
                    taken += 1;
                    self.state = if missing == 0 {
                        State::Prefix(None)
                    } else {
                        State::Body { missing, message: Vec::new() }
                    };
                }
                State::Body { missing, message } => {
                    let rest = &bytes[taken..];
                    let piece = &rest[..rest.len().min(*missing)];
                    message.extend_from_slice(piece);
                    taken += piece.len();
                    *missing -= piece.len();
                    if *missing == 0 {
                        self.state = State::Whole(core::mem::take(message));
                    }
                }
                State::Whole(_) => break,
            }
        }
        taken
    }

    /// The message that is whole, without its prefix; it counts as in flight from now on. `None`
    /// while there is none or [`QUERIES_PER_CONNECTION_CAP`] are in flight.
    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        if self.in_flight >= QUERIES_PER_CONNECTION_CAP {
            return None;
        }
        let State::Whole(message) = &mut self.state else { return None };
        let message = core::mem::take(message);
        self.state = State::Prefix(None);
        self.in_flight += 1;
        Some(message)
    }

    /// Tells that a polled message was answered or discarded, so that another may be polled.
    pub(crate) const fn handle_done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Polled messages that wait for their answer.
    #[cfg(test)]
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether no message waits to be polled or answered, so that the connection may be closed.
    /// Bytes of an unfinished message do not count, since a guest that ended its stream will not
    /// finish it.
    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0 && !matches!(self.state, State::Whole(_))
    }

    /// `message` with its length prefix, ready for the stream to the guest; `None` when it is
    /// longer than 65,535 bytes.
    pub(crate) fn frame(message: &[u8]) -> Option<Vec<u8>> {
        let len = u16::try_from(message.len()).ok()?;
        let mut framed = Vec::with_capacity(2 + message.len());
        framed.extend_from_slice(&len.to_be_bytes());
        framed.extend_from_slice(message);
        Some(framed)
    }
}
