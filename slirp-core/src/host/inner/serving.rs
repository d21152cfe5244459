//! What arrives on the namespace's loopback.
//!
//! Owns how much is taken from one port in a turn, and that only loopback is led to loopback: what
//! the namespace sends to its other addresses goes over `lo` as well.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::ask::SocketKind;
use super::listeners::{Listener, ListenerSocket};
use super::pool::Stock;
use super::worker::Worker;
use crate::host::forward::ForwardProtocol;
use crate::host::socket::tcp::TcpStream;

/// Connections or datagrams that are taken from one port in a turn at most (arbitrary).
const SHARE: usize = 64;

/// What is left of a port after its turn.
enum Left {
    Nothing,
    /// There may be more.
    Some,
    /// There is more, which has to wait for sockets of the host or for descriptors.
    Held,
}

impl Worker {
    /// Serves the ports that are queued.
    pub(super) fn serve_listeners(&mut self, now: Instant) {
        for at in self.listeners.take_queue() {
            let Some(listener) = self.listeners.at(at) else { continue };
            let left = match listener.socket.protocol() {
                ForwardProtocol::Tcp => self.accept_all(at, now),
                ForwardProtocol::Udp => self.receive_all(at, now),
            };
            match left {
                Left::Nothing => {}
                Left::Some => self.listeners.queue(at),
                Left::Held => self.listeners.hold(at),
            }
        }
    }

    /// Whether there are sockets of the host for what came over a listener, or never will be.
    pub(super) fn has_stock(&mut self, protocol: ForwardProtocol, is_ipv6: bool) -> bool {
        let kind = SocketKind { protocol, is_ipv6 };
        if self.pool.stock(kind) == Stock::Soon {
            self.ask_for_more(kind);
            return false;
        }
        true
    }

    fn accept_all(&mut self, at: usize, now: Instant) -> Left {
        for _ in 0..SHARE {
            let Some(&Listener { is_ipv6, host_port, .. }) = self.listeners.at(at) else {
                return Left::Nothing;
            };
            if !self.has_stock(ForwardProtocol::Tcp, is_ipv6) {
                return Left::Held;
            }
            let Some(Listener { socket: ListenerSocket::Tcp(socket), .. }) = self.listeners.at(at)
            else {
                return Left::Nothing;
            };
            let (accepted, client) = match socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Left::Nothing,
                Err(error) if is_exhausted(&error) => return Left::Held,
                // The connection was gone before it was accepted (accept(2)).
                Err(_) => continue,
            };
            let local = accepted.local_addr().ok().and_then(|local| local.as_socket());
            let (Ok(stream), Some(client), Some(local)) =
                (TcpStream::accepted(accepted), client.as_socket(), local)
            else {
                continue;
            };
            if !client.ip().is_loopback() || !local.ip().is_loopback() {
                stream.reset();
                continue;
            }
            let reached = SocketAddr::new(local.ip(), host_port);
            self.on_client(stream, (client, local), reached, now);
        }
        Left::Some
    }

    fn receive_all(&mut self, at: usize, now: Instant) -> Left {
        let mut buffer = core::mem::take(&mut self.means.buffer);
        let left = self.receive_into(&mut buffer, at, now);
        self.means.buffer = buffer;
        left
    }

    fn receive_into(&mut self, buffer: &mut [u8], at: usize, now: Instant) -> Left {
        for _ in 0..SHARE {
            let Some(&Listener { is_ipv6, host_port, port, .. }) = self.listeners.at(at) else {
                return Left::Nothing;
            };
            if !self.has_stock(ForwardProtocol::Udp, is_ipv6) {
                return Left::Held;
            }
            let Some(Listener { socket: ListenerSocket::Udp(socket), .. }) = self.listeners.at(at)
            else {
                return Left::Nothing;
            };
            let Ok(received) = socket.recv(buffer) else { return Left::Nothing };
            let Some(local) = received.local.filter(IpAddr::is_loopback) else { continue };
            if !received.from.ip().is_loopback() {
                continue;
            }
            let local = SocketAddr::new(local, port);
            let reached = SocketAddr::new(local.ip(), host_port);
            let (payload, segment_len) = (received.payload, received.segment_len);
            self.on_client_datagram(at, (received.from, local), reached, payload, segment_len, now);
        }
        Left::Some
    }
}

/// Whether the process or the system has no descriptor or memory left.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
