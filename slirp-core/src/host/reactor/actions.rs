//! What the stack asks for: connections, their ends, and DNS queries.
//!
//! Owns the way of a TCP socket from connect(2) to the stack, and that of a query to the control
//! thread. Datagrams are sent in [`datagrams`](super::datagrams).

use super::Reactor;
use crate::event::{FlowId, HostAction, HostError};
use crate::host::dns::Query;
use crate::host::socket::table::{HostSocket, TcpHost};
use crate::host::socket::tcp::{Connecting, HandshakeAck};
use crate::time::Instant;

impl Reactor {
    /// Does what the stack asks for.
    pub(super) fn perform_all(&mut self, now: Instant) {
        self.perform_actions(now);
        self.ask_elsewhere(now);
    }

    /// As [`perform_all`](Self::perform_all), except that what is to be asked elsewhere is kept.
    pub(super) fn perform_actions(&mut self, now: Instant) {
        while let Some(action) = self.stack.poll_action() {
            self.perform(action, now);
        }
    }

    fn perform(&mut self, action: HostAction, now: Instant) {
        match action {
            HostAction::ConnectTcp { flow, remote, is_guest_eager } => {
                let ack =
                    if is_guest_eager { HandshakeAck::WithData } else { HandshakeAck::AtOnce };
                let connected = self.sockets.connect(remote, ack).and_then(|connecting| {
                    let (socket, is_done) = match connecting {
                        Connecting::Done(stream) => (HostSocket::Tcp(TcpHost::new(stream)), true),
                        Connecting::InProgress(stream) => (HostSocket::Connecting(stream), false),
                    };
                    let inserted = self.sockets.insert(flow, socket);
                    inserted.map(|()| is_done).map_err(|error| HostError::from_io(&error))
                });
                match connected {
                    Ok(false) => {}
                    Ok(true) => self.stack.handle_tcp_connected(flow, Ok(()), now),
                    Err(error) => self.stack.handle_tcp_connected(flow, Err(error), now),
                }
            }
            HostAction::Close { flow, reset } => match self.sockets.remove(flow) {
                Some(HostSocket::Tcp(host)) if reset => host.reset(),
                Some(
                    HostSocket::Tcp(_)
                    | HostSocket::Connecting(_)
                    | HostSocket::Udp(_)
                    | HostSocket::Echo(_),
                )
                | None => {}
            },
            HostAction::AskElsewhere { flow, origin, guest } => {
                if let Some(stream) = self.sockets.release(flow) {
                    self.refused.push((stream, origin, guest));
                }
            }
            HostAction::QueryDns { query, transport, message } => {
                let (wanted, is_wanted) = tokio::sync::oneshot::channel();
                self.wanted.insert(query, wanted);
                let asked =
                    self.queries.try_send(Query { id: query, transport, message, is_wanted });
                if asked.is_err() {
                    self.on_dns_answer(query, None, now);
                }
            }
            HostAction::CancelDns { query } => {
                self.wanted.remove(&query);
            }
        }
    }

    pub(super) fn finish_connect(&mut self, flow: FlowId, event: &mio::event::Event, now: Instant) {
        let Some(HostSocket::Connecting(stream)) = self.sockets.of(flow) else {
            return;
        };
        match stream.finish_connect() {
            Ok(false) => {}
            Ok(true) => {
                if let Some(host) = self.sockets.connected(flow) {
                    host.on_event(event);
                }
                self.stack.handle_tcp_connected(flow, Ok(()), now);
            }
            Err(error) => {
                self.sockets.remove(flow);
                self.stack.handle_tcp_connected(flow, Err(error), now);
            }
        }
    }
}
