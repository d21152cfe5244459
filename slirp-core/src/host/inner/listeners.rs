//! Ports of the namespace's loopback that lead to the host.
//!
//! Owns their sockets, and which of them have something to serve. A port has a socket for each IP
//! version, at all addresses of the interface `lo`: 127.0.0.5 is as good as 127.0.0.1. A kernel
//! that does not let us bind to an interface (before Linux 5.7) gets 127.0.0.1 and ::1 instead.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use slab::Slab;
use smoltcp::wire::IpVersion;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::settings::{HostPorts, SplicesError};
use super::token::Source;
use crate::host::forward::ForwardProtocol;
use crate::host::socket::udp::UdpSocket;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// Ports that are served in a turn at most (arbitrary); the others have theirs after the bridges.
const SERVED_CAP: usize = 16;
/// Sockets of a port at most: one for each IP version.
pub(super) const PORT_SOCKETS: usize = 2;

crate::sys::calls::system_calls! {
    SYS_socket if crate::sys::calls::IP => "ports of the namespace's loopback";
    SYS_setsockopt => "ports that are open on loopback alone";
    SYS_bind => "ports of the namespace's loopback";
    SYS_listen => "ports of the namespace's loopback";
    SYS_accept4 => "connections to ports of the namespace's loopback";
}

/// An open port in one IP version.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: ListenerSocket,
    /// The port in the namespace.
    pub(super) port: u16,
    /// The port of the host that it leads to.
    pub(super) host_port: u16,
    pub(super) is_ipv6: bool,
    is_queued: bool,
}

#[derive(Debug)]
pub(super) enum ListenerSocket {
    Tcp(Socket),
    Udp(UdpSocket),
}

impl ListenerSocket {
    pub(super) const fn protocol(&self) -> ForwardProtocol {
        match self {
            Self::Tcp(_) => ForwardProtocol::Tcp,
            Self::Udp(_) => ForwardProtocol::Udp,
        }
    }
}

impl AsFd for ListenerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// All of them.
#[derive(Default, Debug)]
pub(super) struct Listeners {
    slots: Slab<Listener>,
    queue: Vec<usize>,
    /// Listeners that are served again once there are sockets of the host, or descriptors.
    held: Vec<usize>,
}

impl Listeners {
    /// Opens a port in both IP versions, as far as the namespace has them. Returns the places.
    ///
    /// # Errors
    /// [`SplicesError::Listen`]; nothing is open then.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        protocol: ForwardProtocol,
        port: u16,
        host_port: u16,
    ) -> Result<Vec<usize>, SplicesError> {
        let mut places = Vec::with_capacity(2);
        for is_ipv6 in [false, true] {
            let opened = open(protocol, port, is_ipv6).and_then(|socket| {
                let at = self.slots.vacant_key();
                let fd = socket.as_fd().as_raw_fd();
                registry.register(
                    &mut SourceFd(&fd),
                    Source::Listener(at).token(),
                    Interest::READABLE,
                )?;
                let listener = Listener { socket, port, host_port, is_ipv6, is_queued: false };
                Ok(self.slots.insert(listener))
            });
            match opened {
                Ok(at) => places.push(at),
                Err(error) if is_ipv6 && is_without_ipv6(&error) => {}
                Err(source) => {
                    places.into_iter().for_each(|at| self.close(at));
                    return Err(SplicesError::Listen { protocol, port, source });
                }
            }
        }
        Ok(places)
    }

    /// Opens the ports of `rules`, and closes all others but those at the places `kept`. A port
    /// that is open already and leads elsewhere from now on stays open. Weak rules open ports only
    /// while they have `room` for their sockets. Returns the UDP ports that were closed.
    ///
    /// # Errors
    /// [`SplicesError::Listen`]; nothing has changed then.
    pub(super) fn follow(
        &mut self,
        registry: &Registry,
        rules: &[HostPorts],
        kept: &BTreeSet<usize>,
        room: usize,
    ) -> Result<Vec<u16>, SplicesError> {
        let mut wanted = BTreeMap::new();
        for ports in rules {
            for port in ports.guest_ports() {
                let host_port = ports.host_port(port).unwrap_or(port);
                wanted.insert((ports.protocol, port), (host_port, ports.is_weak));
            }
        }
        let before: Vec<usize> =
            self.slots.iter().map(|(at, _)| at).filter(|at| !kept.contains(at)).collect();
        let open: BTreeSet<_> = before.iter().filter_map(|&at| self.key(at)).collect();
        let mut opened = Vec::new();
        let mut left_out = 0;
        for (&(protocol, port), &(host_port, is_weak)) in &wanted {
            if open.contains(&(protocol, port)) {
                continue;
            }
            if is_weak && opened.len() + PORT_SOCKETS > room {
                left_out += 1;
                continue;
            }
            match self.open(registry, protocol, port, host_port) {
                Ok(places) => opened.extend(places),
                Err(error) if is_weak => tracing::warn!(%error, "left out"),
                Err(error) => {
                    opened.into_iter().for_each(|at| self.close(at));
                    return Err(error);
                }
            }
        }
        if left_out > 0 {
            tracing::warn!(left_out, "best-effort ports of the guest's loopback (ulimit -n)");
        }
        let mut closed = Vec::new();
        for at in before {
            let Some(key) = self.key(at) else { continue };
            match (wanted.get(&key), self.slots.get_mut(at)) {
                (Some(&(host_port, _)), Some(listener)) => listener.host_port = host_port,
                (Some(_), None) => {}
                (None, _) => {
                    closed.extend((key.0 == ForwardProtocol::Udp).then_some(key.1));
                    self.close(at);
                }
            }
        }
        Ok(closed)
    }

    fn key(&self, at: usize) -> Option<(ForwardProtocol, u16)> {
        self.slots.get(at).map(|listener| (listener.socket.protocol(), listener.port))
    }

    /// Closes a socket, which ends its registration with the poller.
    pub(super) fn close(&mut self, at: usize) {
        self.queue.retain(|&queued| queued != at);
        self.held.retain(|&held| held != at);
        self.slots.try_remove(at);
    }

    pub(super) fn at(&self, at: usize) -> Option<&Listener> {
        self.slots.get(at)
    }

    /// The place of the UDP socket that receives what is sent to `local`.
    pub(super) fn udp_at(&self, local: SocketAddr) -> Option<usize> {
        let is_it = |listener: &Listener| {
            listener.socket.protocol() == ForwardProtocol::Udp
                && (listener.port, listener.is_ipv6) == (local.port(), local.is_ipv6())
        };
        self.slots.iter().find(|(_, listener)| is_it(listener)).map(|(at, _)| at)
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All sockets.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Listener> {
        self.slots.iter().map(|(_, listener)| listener)
    }

    /// Notes that there is something to serve.
    pub(super) fn queue(&mut self, at: usize) {
        if let Some(listener) = self.slots.get_mut(at)
            && !core::mem::replace(&mut listener.is_queued, true)
        {
            self.queue.push(at);
        }
    }

    /// Has a listener wait for [`resume`](Self::resume).
    pub(super) fn hold(&mut self, at: usize) {
        if let Some(listener) = self.slots.get_mut(at)
            && !core::mem::replace(&mut listener.is_queued, true)
        {
            self.held.push(at);
        }
    }

    /// Queues those that were held.
    pub(super) fn resume(&mut self) {
        self.queue.append(&mut self.held);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes those to be served now.
    pub(super) fn take_queue(&mut self) -> Vec<usize> {
        let count = self.queue.len().min(SERVED_CAP);
        let queue: Vec<usize> = self.queue.drain(..count).collect();
        for &at in &queue {
            if let Some(listener) = self.slots.get_mut(at) {
                listener.is_queued = false;
            }
        }
        queue
    }
}

/// Whether this means that there is no IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn open(protocol: ForwardProtocol, port: u16, is_ipv6: bool) -> io::Result<ListenerSocket> {
    match protocol {
        ForwardProtocol::Tcp => {
            let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
            let kind = Type::STREAM.nonblocking().cloexec();
            let socket = Socket::new_raw(domain, kind, Some(Protocol::TCP))?;
            // Connections of an earlier listener in TIME-WAIT do not keep the port closed.
            socket.set_reuse_address(true)?;
            if is_ipv6 {
                socket.set_only_v6(true)?;
            }
            let address = SocketAddr::new(narrow(&SockRef::from(&socket), is_ipv6), port);
            socket.bind(&SockAddr::from(address))?;
            socket.listen(BACKLOG)?;
            Ok(ListenerSocket::Tcp(socket))
        }
        ForwardProtocol::Udp => {
            let version = if is_ipv6 { IpVersion::Ipv6 } else { IpVersion::Ipv4 };
            let socket = UdpSocket::open_unbound(version)?;
            let address = SocketAddr::new(narrow(&SockRef::from(&socket), is_ipv6), port);
            socket.receive_at(address)?;
            Ok(ListenerSocket::Udp(socket))
        }
    }
}

/// Keeps a socket to loopback. Returns the address to bind it to.
fn narrow(socket: &SockRef<'_>, is_ipv6: bool) -> IpAddr {
    match (socket.bind_device(Some(b"lo")), is_ipv6) {
        (Ok(()), false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (Ok(()), true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (Err(_), false) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (Err(_), true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_ports_with_clients_are_served_in_a_turn() {
        let poll = mio::Poll::new().unwrap();
        let mut listeners = Listeners::default();
        let places: Vec<usize> = core::iter::repeat_with(|| {
            // The kernel picks the ports.
            let opened = listeners.open(poll.registry(), ForwardProtocol::Udp, 0, 80);
            opened.unwrap()
        })
        .take(20)
        .flatten()
        .collect();
        places.iter().for_each(|&at| listeners.queue(at));
        let served = listeners.take_queue();
        assert_eq!(served, places[..SERVED_CAP]);
        served.iter().for_each(|&at| listeners.queue(at));
        let next = listeners.take_queue();
        let expected: Vec<usize> =
            places[SERVED_CAP..].iter().chain(&served).take(SERVED_CAP).copied().collect();
        assert_eq!(next, expected, "those with more wait behind the others");
        assert!(!listeners.is_idle());
    }
}
