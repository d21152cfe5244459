//! Datagrams between guest and host sockets.
//!
//! Owns how much is taken from one socket in a turn, and what the guest hears of a datagram that did
//! not leave. Whose datagram it is, is the stack's business.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{DATAGRAMS_CAP, ERRORS_CAP, QUOTE_CAP, Reactor};
use crate::discard::DiscardReason;
use crate::event::{Datagram, FlowId, HostError};
use crate::host::datagram::SendError;
use crate::host::echo::EchoOpenError;
use crate::host::forward::Forwards;
use crate::host::sockets::{EchoFailure, HostSocket, SocketTable};
use crate::instance::RunError;
use crate::time::Instant;

impl Reactor {
    /// Tells the guest what became of a datagram, where it is to know.
    pub(super) fn note_sent(&mut self, sent: Result<(), Unsent>) {
        match sent {
            Ok(()) => {}
            Err(Unsent::Forwarded) => self.stack.note_discard(DiscardReason::HostSendFailed),
            Err(Unsent::Udp { flow, remote, error, quote, len }) => {
                self.stack.handle_udp_failed(flow, remote, error, &quote, len);
            }
            Err(Unsent::Echo { flow, remote, sequence, error }) => {
                self.stack.handle_echo_failed(flow, remote, sequence, error);
            }
            Err(Unsent::EchoNotPermitted { flow, error }) => {
                if !self.is_echo_refusal_logged {
                    self.is_echo_refusal_logged = true;
                    tracing::warn!("guests cannot ping: {error}");
                }
                self.stack.handle_echo_not_permitted(flow);
            }
            Err(Unsent::BufferFull) => self.stack.note_discard(DiscardReason::HostBufferFull),
        }
    }

    /// Receives from datagram sockets that have something, each at most its share.
    pub(super) fn serve_backlog(&mut self, now: Instant) -> Result<(), RunError> {
        if self.link.is_full() {
            // The host's kernel holds them as long.
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
            // What the local kernel found too large was refused when it was sent, and said so then.
            if error.offender.is_some() || !matches!(error.error, HostError::TooLarge(_)) {
                self.stack.handle_udp_error(flow, &error, &[]);
            }
        }
        for _ in 0..DATAGRAMS_CAP {
            let Some(HostSocket::Udp(socket)) = self.sockets.of(flow) else {
                return Ok(true);
            };
            match socket.recv(&mut self.datagram) {
                Ok(received) => self.stack.handle_udp_from_host(
                    flow,
                    received.from,
                    received.payload,
                    received.segment_len,
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
                self.stack.handle_echo_error(flow, &error.error, sequence);
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

/// A datagram that did not leave, with what the guest is told about it.
pub(super) enum Unsent {
    Forwarded,
    Udp { flow: FlowId, remote: SocketAddr, error: HostError, quote: Vec<u8>, len: usize },
    Echo { flow: FlowId, remote: IpAddr, sequence: u16, error: HostError },
    EchoNotPermitted { flow: FlowId, error: EchoOpenError },
    BufferFull,
}

/// Sends a datagram of the guest on the socket of its flow, which is opened if there is none yet.
pub(super) fn send(
    sockets: &mut SocketTable,
    forwards: &mut Forwards,
    datagram: Datagram<'_>,
) -> Result<(), Unsent> {
    match datagram {
        Datagram::Udp { flow, remote, payload, segment_len, hop_limit } => {
            let unsent = |error| {
                let quote = payload[..payload.len().min(QUOTE_CAP)].to_vec();
                Unsent::Udp { flow, remote, error, quote, len: payload.len() }
            };
            let socket = sockets.udp(flow, remote).map_err(unsent)?;
            match socket.send(remote, payload, segment_len, hop_limit) {
                Ok(()) => Ok(()),
                Err(SendError::WouldBlock) => Err(Unsent::BufferFull),
                Err(SendError::Host(error)) => Err(unsent(error)),
            }
        }
        Datagram::Forwarded { origin, payload, segment_len, hop_limit } => {
            forwards.send(&origin, payload, segment_len, hop_limit).map_err(|error| match error {
                SendError::WouldBlock => Unsent::BufferFull,
                SendError::Host(_) => Unsent::Forwarded,
            })
        }
        Datagram::Echo { flow, remote, ident, sequence, payload, hop_limit } => {
            let unsent = |error| Unsent::Echo { flow, remote, sequence, error };
            let socket = sockets.echo(flow, remote, ident).map_err(|failure| match failure {
                EchoFailure::NotPermitted(error) => Unsent::EchoNotPermitted { flow, error },
                EchoFailure::Host(error) => unsent(error),
            })?;
            match socket.send(remote, sequence, payload, hop_limit) {
                Ok(()) => Ok(()),
                Err(SendError::WouldBlock) => Err(Unsent::BufferFull),
                Err(SendError::Host(error)) => Err(unsent(error)),
            }
        }
    }
}
