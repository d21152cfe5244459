//! Sockets of the host's network namespace, made ahead for the inner thread.
//!
//! Owns the pool. A socket belongs to the namespace of the thread that makes it, whoever binds and
//! connects it, so the data thread makes them, some at a time, before the last one is used.

use smoltcp::wire::IpVersion;
use socket2::{Domain, Socket};

use super::ask::SocketKind;
use crate::host::forward::ForwardProtocol;
use crate::host::socket::tcp;
use crate::host::socket::udp::UdpSocket;

/// Sockets of one kind that are made at a time; half as many are left when others are asked for
/// (arbitrary).
const BATCH_LEN: usize = 16;
/// Descriptors of a pool that is full: two protocols in two IP versions.
pub(super) const DESCRIPTORS_CAP: usize = 4 * (BATCH_LEN + BATCH_LEN / 2);

/// Sockets of one kind; none if the host has no such sockets.
#[derive(Debug)]
pub(crate) struct Batch {
    kind: SocketKind,
    sockets: Vec<HostSocket>,
}

/// A socket that is neither bound nor connected.
#[derive(Debug)]
pub(crate) enum HostSocket {
    Tcp(Socket),
    Udp(Box<UdpSocket>),
}

impl Batch {
    /// Makes sockets in the network namespace of the calling thread.
    pub(crate) fn make(kind: SocketKind) -> Self {
        let make = || match kind {
            SocketKind { protocol: ForwardProtocol::Tcp, is_ipv6 } => {
                let domain = if is_ipv6 { Domain::IPV6 } else { Domain::IPV4 };
                tcp::open(domain).ok().map(HostSocket::Tcp)
            }
            SocketKind { protocol: ForwardProtocol::Udp, is_ipv6 } => {
                let version = if is_ipv6 { IpVersion::Ipv6 } else { IpVersion::Ipv4 };
                UdpSocket::open_unbound(version).ok().map(|it| HostSocket::Udp(it.into()))
            }
        };
        Self { kind, sockets: core::iter::from_fn(make).take(BATCH_LEN).collect() }
    }
}

/// The sockets of all kinds.
#[derive(Default, Debug)]
pub(crate) struct Pool {
    shelves: [Shelf; 4],
}

#[derive(Default, Debug)]
struct Shelf {
    sockets: Vec<HostSocket>,
    /// Whether others have been asked for.
    is_asked: bool,
    /// Whether the last batch was empty.
    is_barren: bool,
}

/// What a look into the pool finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stock {
    /// There is one.
    Some,
    /// There will be.
    Soon,
    /// The host has no such sockets, at present.
    None,
}

const fn index(kind: SocketKind) -> usize {
    kind.protocol as usize * 2 + kind.is_ipv6 as usize
}

impl Pool {
    /// Adds sockets.
    pub(crate) fn put(&mut self, batch: Batch) {
        let shelf = &mut self.shelves[index(batch.kind)];
        shelf.is_barren = batch.sockets.is_empty();
        shelf.is_asked = false;
        shelf.sockets.extend(batch.sockets);
    }

    /// Forgets that the host had no sockets: it may have some by now.
    pub(crate) fn retry(&mut self) {
        self.shelves.iter_mut().for_each(|shelf| shelf.is_barren = false);
    }

    /// What there is of a kind.
    pub(crate) fn stock(&self, kind: SocketKind) -> Stock {
        let shelf = &self.shelves[index(kind)];
        match (shelf.sockets.is_empty(), shelf.is_barren) {
            (false, _) => Stock::Some,
            (true, true) => Stock::None,
            (true, false) => Stock::Soon,
        }
    }

    /// Takes one out.
    pub(crate) fn take(&mut self, kind: SocketKind) -> Option<HostSocket> {
        self.shelves[index(kind)].sockets.pop()
    }

    /// Whether others are to be asked for; from then on they count as asked for.
    pub(crate) fn needs(&mut self, kind: SocketKind) -> bool {
        let shelf = &mut self.shelves[index(kind)];
        let is_low = shelf.sockets.len() <= BATCH_LEN / 2;
        is_low && !shelf.is_barren && !core::mem::replace(&mut shelf.is_asked, true)
    }
}
