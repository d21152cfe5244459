//! Datagrams between guest and host sockets.
//!
//! Owns how much is taken from one socket in a turn, and what the guest is told about a datagram
//! that could not be sent. The stack decides which flow a datagram belongs to.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::error::RunError;
use super::{DATAGRAMS_CAP, ERRORS_CAP, QUOTE_CAP, Reactor};
use crate::discard::DiscardReason;
use crate::event::{Datagram, FlowId, HostError};
use crate::host::forward::{Forwards, PortId};
use crate::host::socket::datagram::SendError;
use crate::host::socket::echo::EchoOpenError;
use crate::host::socket::table::{HostSocket, SocketTable};
use crate::host::socket::udp::NotSent;
use crate::time::Instant;

impl Reactor {
    /// Tells the guest about a datagram that was not sent, if it should know.
    pub(super) fn note_sent(&mut self, sent: Result<(), Unsent>) {
        match sent {
            Ok(()) => {}
            Err(Unsent::Udp { flow, port, remote, error, quote, len, count }) => {
                if matches!(error, HostError::TooLarge(_)) {
                    // Reading the MTU may have revealed errors of other datagrams.
                    match port {
                        Some(port) => self.forwards.queue(port),
                        None if self.sockets.set_queued(flow, true) => self.backlog.push(flow),
                        None => {}
                    }
                }
                self.stack.handle_udp_unsent(flow, remote, error, &quote, len, count);
            }
            Err(Unsent::Echo { flow, remote, sequence, error }) => {
                self.stack.handle_echo_unsent(flow, remote, sequence, error);
            }
            Err(Unsent::EchoNotPermitted { flow }) => {
                if !self.is_echo_refusal_logged {
                    self.is_echo_refusal_logged = true;
                    tracing::warn!("guests cannot ping: {}", EchoOpenError::NotPermitted);
                }
                self.stack.handle_echo_not_permitted(flow);
            }
            Err(Unsent::BufferFull { count }) => {
                for _ in 0..count {
                    self.stack.note_discard(DiscardReason::HostBufferFull);
                }
            }
        }
    }

    /// Sends the gathered datagrams.
    pub(super) fn send_train(&mut self) {
        if let Some(train) = self.train.take() {
            let sent = send(&mut self.sockets, &mut self.forwards, train);
            self.note_sent(sent);
        }
    }

    /// Sends the datagrams of the guest that have waited for their part of a limited rate.
    pub(super) fn send_released(&mut self, now: Instant) {
        while let Some(datagram) = self.stack.poll_datagram(now) {
            let sent = send(&mut self.sockets, &mut self.forwards, datagram);
            self.note_sent(sent);
        }
    }

    /// Receives from ready datagram sockets, at most one share from each.
    pub(super) fn serve_backlog(&mut self, now: Instant) -> Result<(), RunError> {
        if self.link.is_full() {
            // The host's kernel holds the datagrams meanwhile.
            return Ok(());
        }
        for flow in std::mem::take(&mut self.backlog) {
            let is_drained = match self.sockets.of(flow) {
                Some(HostSocket::Udp(_)) => self.receive_udp(flow, now)?,
                Some(HostSocket::Echo(_)) => self.receive_echo(flow, now)?,
                Some(HostSocket::Connecting(_) | HostSocket::Tcp(_)) | None => true,
            };
            if is_drained {
                self.sockets.set_queued(flow, false);
            } else {
                self.backlog.push(flow);
            }
        }
        Ok(())
    }

    /// Returns whether everything was taken.
    fn receive_udp(&mut self, flow: FlowId, now: Instant) -> Result<bool, RunError> {
        for _ in 0..ERRORS_CAP {
            let Some(HostSocket::Udp(socket)) = self.sockets.of(flow) else {
                return Ok(true);
            };
            let Some(error) = socket.take_error() else {
                break;
            };
            // A datagram that was too large for the local kernel was refused and reported when it
            // was sent.
            if error.offender.is_some() || !matches!(error.error, HostError::TooLarge(_)) {
                self.stack.handle_udp_undelivered(flow, &error, &[]);
            }
        }
        for _ in 0..DATAGRAMS_CAP {
            let Some(HostSocket::Udp(socket)) = self.sockets.of(flow) else {
                return Ok(true);
            };
            match socket.recv(&mut self.datagram) {
                Ok(received) if !received.is_welcome => {
                    self.stack.note_discard(DiscardReason::HostDatagramNoFlow);
                }
                Ok(received) => self.stack.handle_udp_from_host(
                    flow,
                    received.from,
                    received.payload,
                    received.segment_len,
                    received.traffic_class,
                    now,
                ),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_frames(now)?;
                    return Ok(true);
                }
                Err(error) => tracing::debug!(%error, "receive"),
            }
            self.write_frames(now)?;
        }
        Ok(false)
    }

    /// Returns whether everything was taken.
    fn receive_echo(&mut self, flow: FlowId, now: Instant) -> Result<bool, RunError> {
        for _ in 0..ERRORS_CAP {
            let Some(HostSocket::Echo(socket)) = self.sockets.of(flow) else {
                return Ok(true);
            };
            let Some(error) = socket.take_error() else {
                break;
            };
            if let Some(sequence) = error.sequence {
                self.stack.handle_echo_undelivered(flow, &error.error, sequence);
            }
        }
        for _ in 0..DATAGRAMS_CAP {
            let Some(HostSocket::Echo(socket)) = self.sockets.of(flow) else {
                return Ok(true);
            };
            match socket.recv(&mut self.datagram) {
                Ok(Some(reply)) => self.stack.handle_echo_reply(
                    flow,
                    reply.from,
                    reply.sequence,
                    reply.payload,
                    reply.hop_limit,
                    now,
                ),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.write_frames(now)?;
                    return Ok(true);
                }
                Err(error) => tracing::debug!(%error, "receive"),
            }
            self.write_frames(now)?;
        }
        Ok(false)
    }
}

/// Datagrams that could not be sent, with what the guest is told about them.
pub(super) enum Unsent {
    /// `count` datagrams. The first one had `len` bytes and began with `quote`. They belonged to a
    /// flow with its own socket, or left from a rule's port.
    Udp {
        flow: FlowId,
        port: Option<PortId>,
        remote: SocketAddr,
        error: HostError,
        quote: Vec<u8>,
        len: usize,
        count: u64,
    },
    Echo {
        flow: FlowId,
        remote: IpAddr,
        sequence: u16,
        error: HostError,
    },
    EchoNotPermitted {
        flow: FlowId,
    },
    BufferFull {
        count: u64,
    },
}

/// Sends a datagram of the guest on the socket of its flow, which is opened if the flow has none
/// yet.
pub(super) fn send(
    sockets: &mut SocketTable,
    forwards: &mut Forwards,
    datagram: Datagram<'_>,
) -> Result<(), Unsent> {
    match datagram {
        Datagram::Udp { flow, guest, remote, payload, segment_len, envelope } => {
            if let Some(origin) = forwards.published(guest, remote) {
                let port = forwards.port_of(&origin);
                let interface = sockets.interface_for(remote);
                let sent = forwards.send(&origin, interface, payload, segment_len, envelope);
                return sent.map_err(|not_sent| unsent(flow, port, remote, payload, not_sent));
            }
            let sent = match sockets.udp(flow, guest.port(), remote) {
                Ok(socket) => socket.send(remote, payload, segment_len, envelope),
                Err(error) => Err(NotSent::all(error, payload, segment_len)),
            };
            sent.map_err(|not_sent| {
                sockets.on_unsent(flow, remote);
                unsent(flow, None, remote, payload, not_sent)
            })
        }
        Datagram::InboundUdp { flow, origin, payload, segment_len, envelope } => {
            let port = forwards.port_of(&origin);
            let sent = forwards.send(&origin, None, payload, segment_len, envelope);
            sent.map_err(|not_sent| unsent(flow, port, origin.client, payload, not_sent))
        }
        Datagram::Echo { flow, remote, ident, sequence, payload, envelope } => {
            let unsent = |error| Unsent::Echo { flow, remote, sequence, error };
            let socket = sockets.echo(flow, remote, ident).map_err(|failure| match failure {
                EchoOpenError::NotPermitted => Unsent::EchoNotPermitted { flow },
                EchoOpenError::Host(error) => unsent(error),
            })?;
            match socket.send(remote, sequence, payload, envelope) {
                Ok(()) => Ok(()),
                Err(SendError::WouldBlock) => Err(Unsent::BufferFull { count: 1 }),
                Err(SendError::Host(error)) => {
                    sockets.on_unsent(flow, SocketAddr::new(remote, 0));
                    Err(unsent(error))
                }
            }
        }
    }
}

fn unsent(
    flow: FlowId,
    port: Option<PortId>,
    remote: SocketAddr,
    payload: &[u8],
    not_sent: NotSent,
) -> Unsent {
    let NotSent { error, first, count } = not_sent;
    match error {
        SendError::WouldBlock => Unsent::BufferFull { count },
        SendError::Host(error) => {
            let first = &payload[first];
            let quote = first[..first.len().min(QUOTE_CAP)].to_vec();
            Unsent::Udp { flow, port, remote, error, quote, len: first.len(), count }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_datagram_that_was_not_sent_is_quoted_as_far_as_an_error_may() {
        let flow = FlowId { index: 1, generation: 1 };
        let remote = "192.0.2.1:9".parse().unwrap();
        let payload = [vec![1; 1400], vec![2; 1400], vec![3; 100]].concat();
        let fail = |error, first: std::ops::Range<usize>, count| {
            unsent(flow, None, remote, &payload, NotSent { error, first, count })
        };
        let refused = SendError::Host(HostError::Refused);
        let Unsent::Udp { quote, len, count, error, .. } = fail(refused, 1400..2800, 2) else {
            panic!("an error of the host's");
        };
        assert_eq!((quote, len, count), (vec![2; QUOTE_CAP], 1400, 2));
        assert_eq!(error, HostError::Refused);
        let Unsent::Udp { quote, len, .. } = fail(refused, 2800..2900, 1) else {
            panic!("an error of the host's");
        };
        assert_eq!((quote, len), (vec![3; 100], 100));
        // Lost, as datagrams may be: the guest is not told.
        let full = fail(SendError::WouldBlock, 0..1400, 3);
        assert!(matches!(full, Unsent::BufferFull { count: 3 }));
    }
}
