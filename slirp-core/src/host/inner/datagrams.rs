//! UDP bridges: the first datagram of a client, and the sockets that take over.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;
use smoltcp::wire::IpVersion;

use super::ask::{Ask, Bridged, SocketKind};
use super::listeners::Listener;
use super::order::Datagram;
use super::pool::{HostSocket, Stock};
use super::token::Source;
use super::worker::{Worker, watch};
use crate::discard::DiscardReason;
use crate::event::Origin;
use crate::host::bridge::table::{Bridge, Entry};
use crate::host::bridge::udp::{Strays, UdpBridge};
use crate::host::forward::ForwardProtocol;
use crate::host::socket::udp::UdpSocket;
use crate::journal::Ending;
use crate::protocol::Protocol;

impl Worker {
    /// A client on the host's loopback has sent to a forwarded port.
    pub(super) fn on_datagram(&mut self, datagram: Datagram, now: Instant) {
        let Datagram { origin, targets, .. } = datagram;
        let key = (true, origin.client, origin.local);
        if let Some(&at) = self.clients.get(&key) {
            return self.send(at, &datagram.payload, datagram.segment_len, now);
        }
        let kind = SocketKind { protocol: ForwardProtocol::Udp, is_ipv6: origin.client.is_ipv6() };
        if self.pool.stock(kind) == Stock::Soon {
            self.ask_for_more(kind);
            return self.waiting.push_back(datagram);
        }
        let (protocol, guest) = (ForwardProtocol::Udp, targets.first);
        let bridged = Bridged::Inbound { protocol, origin, guest };
        if !self.has_room(bridged, origin.client, now) {
            return;
        }
        let Some(HostSocket::Udp(near)) = self.host_socket(kind) else {
            return self.stats.discards.count(DiscardReason::HostResourcesExhausted);
        };
        let candidates = [Some(targets.first), targets.other];
        // The second one is for a namespace without the first one's IP version.
        let found = candidates.into_iter().flatten().find_map(|target| {
            UdpSocket::open_unbound(version(target)).ok().map(|far| (far, target))
        });
        let Some((far, target)) = found else {
            return self.stats.discards.count(DiscardReason::HostResourcesExhausted);
        };
        let near = (*near, origin.local, origin.client);
        let joined = UdpBridge::join(&datagram.listener, near, (far, target));
        let bridged = Bridged::Inbound { protocol, origin, guest: target };
        if let Some(at) = self.add_udp(joined, bridged, origin.client, now) {
            self.send(at, &datagram.payload, datagram.segment_len, now);
        }
    }

    /// A client on the namespace's loopback has sent to `local`, which leads to `reached`, over the
    /// listener at the place `listener`.
    pub(super) fn on_client_datagram(
        &mut self,
        listener: usize,
        (client, local): (SocketAddr, SocketAddr),
        reached: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        now: Instant,
    ) {
        if let Some(&at) = self.clients.get(&(false, client, local)) {
            return self.send(at, payload, segment_len, now);
        }
        let protocol = ForwardProtocol::Udp;
        if self.is_own(protocol, reached) {
            return self.stats.discards.count(DiscardReason::DestinationNotAllowed);
        }
        let bridged = Bridged::Outbound { protocol, guest: client, reached };
        if !self.has_room(bridged, local, now) {
            return;
        }
        let kind = SocketKind { protocol, is_ipv6: reached.is_ipv6() };
        let Some(HostSocket::Udp(far)) = self.host_socket(kind) else {
            return self.stats.discards.count(DiscardReason::HostResourcesExhausted);
        };
        let Some(Listener { socket, .. }) = self.listeners.at(listener) else { return };
        let joined = match UdpSocket::open_unbound(version(local)) {
            Ok(near) => UdpBridge::join(socket, (near, local, client), (*far, reached)),
            Err(error) => Err(error),
        };
        let Some(at) = self.add_udp(joined, bridged, local, now) else { return };
        if self.signs.is_judged() {
            if let Some(Entry { bridge: Bridge::Udp(udp), .. }) = self.bridges.at(at) {
                udp.hold(payload, segment_len);
            }
            self.ask_about(at);
        } else {
            self.send(at, payload, segment_len, now);
        }
    }

    /// Treats what was sent to `local`, as the datagrams of a bridge are, as if the listener had
    /// received it.
    pub(super) fn receive_strays(
        &mut self,
        bridged: Bridged,
        local: SocketAddr,
        strays: Strays,
        now: Instant,
    ) {
        for (client, payload, segment_len) in strays {
            match bridged {
                Bridged::Inbound { origin, .. } => {
                    let origin = Origin { client, ..origin };
                    self.ask(Ask::Stray { origin, payload, segment_len });
                }
                Bridged::Outbound { protocol, reached, .. } => {
                    if !self.has_stock(protocol, reached.is_ipv6()) {
                        let stray = vec![(client, payload, segment_len)];
                        self.waiting_strays.push((bridged, local, stray));
                        continue;
                    }
                    let listener = self.listeners.udp_at(local);
                    let Some(listener) = listener.filter(|_| client.ip().is_loopback()) else {
                        continue;
                    };
                    let ends = (client, local);
                    self.on_client_datagram(listener, ends, reached, &payload, segment_len, now);
                }
            }
        }
    }

    fn add_udp(
        &mut self,
        joined: io::Result<UdpBridge>,
        bridged: Bridged,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<usize> {
        let udp = match joined {
            Ok(udp) => udp,
            Err(error) => {
                tracing::debug!(%error, "a datagram over loopback was lost");
                self.stats.discards.count(DiscardReason::HostResourcesExhausted);
                return None;
            }
        };
        let key = (bridged.is_inbound(), udp.client(), udp.local());
        let at = self.add(bridged, remote, Bridge::Udp(Box::new(udp)), now);
        self.clients.insert(key, at);
        let entry = self.bridges.at(at)?;
        let watched = match &entry.bridge {
            Bridge::Udp(udp) => {
                // A datagram for which there is no room is lost: none waits for room.
                let watch = |socket, source| {
                    watch(self.poll.registry(), socket, source, Interest::READABLE)
                };
                watch(udp.near(), Source::Near(at)).and_then(|()| watch(udp.far(), Source::Far(at)))
            }
            Bridge::Tcp(_) => Ok(()),
        };
        if let Err(error) = watched {
            tracing::debug!(%error, "a datagram over loopback was lost");
            self.end(at, Ending::HostFailed, now);
            return None;
        }
        Some(at)
    }

    fn send(&mut self, at: usize, payload: &[u8], segment_len: Option<u16>, now: Instant) {
        let Some(entry) = self.bridges.at(at) else { return };
        let before = entry.traffic();
        if let Bridge::Udp(udp) = &mut entry.bridge {
            udp.send(payload, segment_len);
            entry.active_at = now;
            let after = entry.traffic();
            self.stats.traffic[Protocol::Udp].add_growth(before, after);
        }
    }
}

const fn version(address: SocketAddr) -> IpVersion {
    match address {
        SocketAddr::V4(_) => IpVersion::Ipv4,
        SocketAddr::V6(_) => IpVersion::Ipv6,
    }
}
