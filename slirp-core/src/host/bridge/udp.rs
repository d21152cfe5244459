//! The datagrams of one client, joined.
//!
//! Owns two connected sockets. The near one takes over what the client sends to a listener, so the
//! listener sees a client's first datagrams alone, and answers leave from the address that the
//! client has used. What others sent to that address before the socket was connected is in its
//! queue as well, and is given back.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{SockAddr, SockRef};

use crate::event::{Envelope, HostError};
use crate::host::socket::udp::{Received, UdpSocket};

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

/// What a bridge has received from others than its client: sender, payload, length of segments.
pub(crate) type Strays = Vec<(SocketAddr, Vec<u8>, Option<u16>)>;

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

    /// Passes on what has arrived, through `buffer`, and gives others' datagrams to `stray`: the
    /// sender, the payload, and the length of its segments.
    pub(crate) fn relay(
        &mut self,
        buffer: &mut [u8],
        mut stray: impl FnMut(SocketAddr, &[u8], Option<u16>),
    ) -> Relayed {
        if self.held.is_some() {
            return Relayed::All;
        }
        let Self { near, far, client, target, moved, .. } = self;
        let there = pass_on((near, *client), (far, *target), buffer, &mut stray);
        // Nobody else has a reason to send to a port that the kernel has chosen.
        let back = pass_on((far, *target), (near, *client), buffer, |_, _, _| {});
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

/// Passes on what `sender` has sent. Returns bytes, and whether nothing more has arrived.
fn pass_on(
    (from, sender): (&UdpSocket, SocketAddr),
    (to, remote): (&mut UdpSocket, SocketAddr),
    buffer: &mut [u8],
    mut stray: impl FnMut(SocketAddr, &[u8], Option<u16>),
) -> (u64, bool) {
    let mut moved = 0;
    for _ in 0..SHARE {
        let Ok(received) = from.recv(buffer) else { return (moved, true) };
        let Received { from, payload, segment_len, .. } = received;
        if (from.ip(), from.port()) == (sender.ip(), sender.port()) {
            moved += payload.len() as u64;
            let _ = to.send(remote, payload, segment_len, ENVELOPE);
        } else {
            stray(from, payload, segment_len);
        }
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

#[cfg(test)]
mod tests {
    use std::net;

    use smoltcp::wire::IpVersion;

    use super::*;

    #[test]
    fn what_others_sent_before_the_socket_was_connected_is_given_back() {
        let bind = || net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (client, other, service) = (bind(), bind(), bind());
        let at = |socket: &net::UdpSocket| socket.local_addr().unwrap();
        let open = || UdpSocket::open_unbound(IpVersion::Ipv4).unwrap();
        let (near, far) = (open(), open());
        let bind = |socket: &UdpSocket| {
            SockRef::from(socket).bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
        };
        bind(&near).unwrap();
        bind(&far).unwrap();
        let of = |socket: &UdpSocket| SockRef::from(socket).local_addr().unwrap().as_socket();
        let (local, local_far) = (of(&near).unwrap(), of(&far).unwrap());
        other.send_to(b"theirs", local).unwrap();
        other.send_to(b"forged", local_far).unwrap();
        client.send_to(b"ours", local).unwrap();
        SockRef::from(&near).connect(&SockAddr::from(at(&client))).unwrap();
        SockRef::from(&far).connect(&SockAddr::from(at(&service))).unwrap();
        let (held, moved) = (None, (0, 0));
        let (client, target) = (at(&client), at(&service));
        let mut bridge = UdpBridge { near, far, client, local, target, held, moved };
        let mut strays = Vec::new();
        let stray = |from, payload: &[u8], _| strays.push((from, payload.to_vec()));
        assert_eq!(bridge.relay(&mut [0; 65_536], stray), Relayed::All);
        assert_eq!(strays, [(at(&other), b"theirs".to_vec())]);
        assert_eq!(bridge.moved(), (4, 0));
        let mut buffer = [0; 8];
        let len = service.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"ours");
    }
}
