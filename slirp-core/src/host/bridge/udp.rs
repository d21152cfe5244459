//! The datagrams of one client, joined.
//!
//! Owns two connected sockets. The near one takes over what the client sends to a listener, so the
//! listener sees a client's first datagrams alone, and answers leave from the address that the
//! client has used.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{SockAddr, SockRef};

use crate::event::{Envelope, HostError};
use crate::host::socket::udp::UdpSocket;

/// Datagrams that one direction passes on before others get their turn (arbitrary).
const SHARE: usize = 64;

/// What a host sends with by default. Loopback has no hop and a large MTU.
const ENVELOPE: Envelope = Envelope { hop_limit: 64, traffic_class: 0, dont_fragment: false };

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct UdpBridge {
    near: UdpSocket,
    far: UdpSocket,
    client: SocketAddr,
    /// The address that the client sends to.
    local: SocketAddr,
    target: SocketAddr,
    /// What has to wait for a verdict, with the length of its segments.
    held: Option<(Vec<u8>, Option<u16>)>,
    /// Bytes from the near socket to the far one, and back.
    moved: (u64, u64),
}

/// How a bridge stands after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relayed {
    /// There is nothing more.
    All,
    /// There may be more.
    Some,
    /// Nothing receives at the target.
    Refused,
}

impl UdpBridge {
    /// Joins `client`, that sends to `local`, where `listener` receives, to `target`. The sockets
    /// are neither bound nor connected.
    ///
    /// # Errors
    /// Those of setsockopt(2), bind(2) and connect(2).
    pub(crate) fn join(
        listener: impl AsFd,
        (near, local, client): (UdpSocket, SocketAddr, SocketAddr),
        (far, target): (UdpSocket, SocketAddr),
    ) -> io::Result<Self> {
        SockRef::from(&far).connect(&SockAddr::from(target))?;
        take_over(listener, &near, local, client)?;
        Ok(Self { near, far, client, local, target, held: None, moved: (0, 0) })
    }

    /// Passes on what came to the listener.
    pub(crate) fn send(&mut self, payload: &[u8], segment_len: Option<u16>) {
        if self.held.is_some() {
            return;
        }
        self.moved.0 += payload.len() as u64;
        // A lost datagram is no news to those who send datagrams.
        let _ = self.far.send(self.target, payload, segment_len, ENVELOPE);
    }

    /// Passes nothing on until [`release`](Self::release), and then what came to the listener.
    pub(crate) fn hold(&mut self, payload: &[u8], segment_len: Option<u16>) {
        self.held = Some((payload.to_vec(), segment_len));
    }

    /// Goes on after [`hold`](Self::hold).
    pub(crate) fn release(&mut self) {
        if let Some((payload, segment_len)) = self.held.take() {
            self.send(&payload, segment_len);
        }
    }

    /// Passes on what has arrived, through `buffer`.
    pub(crate) fn relay(&mut self, buffer: &mut [u8]) -> Relayed {
        if self.held.is_some() {
            return Relayed::All;
        }
        let Self { near, far, client, target, moved, .. } = self;
        let there = pass_on(near, far, *target, buffer);
        let back = pass_on(far, near, *client, buffer);
        moved.0 += there.0;
        moved.1 += back.0;
        while let Some(error) = far.take_error() {
            if error.error == HostError::Refused {
                return Relayed::Refused;
            }
        }
        while near.take_error().is_some() {}
        if there.1 && back.1 { Relayed::All } else { Relayed::Some }
    }

    /// Who sends to the near socket.
    pub(crate) const fn client(&self) -> SocketAddr {
        self.client
    }

    /// The address that the client sends to.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Bytes that went from the near socket to the far one, and back.
    pub(crate) const fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// The near socket.
    pub(crate) fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// The far socket.
    pub(crate) fn far(&self) -> BorrowedFd<'_> {
        self.far.as_fd()
    }
}

/// Bytes that were passed on, and whether nothing more has arrived.
fn pass_on(
    from: &UdpSocket,
    to: &mut UdpSocket,
    remote: SocketAddr,
    buffer: &mut [u8],
) -> (u64, bool) {
    let mut moved = 0;
    for _ in 0..SHARE {
        let Ok(received) = from.recv(buffer) else { return (moved, true) };
        moved += received.payload.len() as u64;
        let _ = to.send(remote, received.payload, received.segment_len, ENVELOPE);
    }
    (moved, false)
}

/// Binds `near` to an address and port that `listener` has as well, or a wildcard of it, and
/// connects it to `client`: the kernel prefers a connected socket for what `client` sends there.
///
/// Two sockets share a port only if both say so (`SO_REUSEADDR`, socket(7)). The listener says so
/// for no longer than it takes, or any program could share it.
fn take_over(
    listener: impl AsFd,
    near: &UdpSocket,
    local: SocketAddr,
    client: SocketAddr,
) -> io::Result<()> {
    let (listener, near) = (SockRef::from(&listener), SockRef::from(near));
    near.set_reuse_address(true)?;
    listener.set_reuse_address(true)?;
    let bound = near.bind(&SockAddr::from(local));
    listener.set_reuse_address(false)?;
    bound?;
    near.connect(&SockAddr::from(client))
}
