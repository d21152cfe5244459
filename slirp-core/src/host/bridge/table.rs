//! All bridges of an instance, and their rows in the list of flows.
//!
//! Owns the names: places of the table have the highest bit in a [`FlowId`]'s index set, which no
//! place of the flow table has. Each way has its own cap, so that a guest which opens as many as it
//! can keeps no client of the host away. Owns as well which bridges have to end because nothing
//! moves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::SockRef;

use super::tcp::TcpBridge;
use super::udp::UdpBridge;
use crate::config::Timeouts;
use crate::event::{FlowId, ForwardId};
use crate::flow::{FlowState, FlowSummary, JudgedFlow};
use crate::host::forward::ForwardProtocol;
use crate::host::inner::ask::Bridged;
use crate::journal::{Ending, Ends, Event, Peer, Refusal};
use crate::protocol::Protocol;
use crate::traffic::Traffic;

/// The index of the first place.
pub(crate) const FIRST: u32 = 1 << 31;
/// Places that one part of the list covers: three getsockname(2) each.
const PAGE: u32 = 256;
/// Places whose memory is kept when all are empty (arbitrary).
const KEPT: usize = 256;
/// How long a sender that has reset the connection may wait for a receiver that takes nothing
/// (arbitrary).
const GRACE: Duration = Duration::from_secs(5);
/// Divisor: of the bridges of one way, one in this many make room at a time, so that room is looked
/// for seldom (arbitrary).
const EVICTED_PART: usize = 64;
/// How often room is looked for at most where none was found (arbitrary).
const PAUSE: Duration = Duration::from_secs(1);
/// Descriptors of one bridge.
const DESCRIPTORS: usize = 2;

/// A joined connection, or the joined datagrams of a client.
#[derive(Debug)]
pub(crate) enum Bridge {
    Tcp(Box<TcpBridge>),
    Udp(Box<UdpBridge>),
}

/// A bridge with its name.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: FlowId,
    pub(crate) bridged: Bridged,
    pub(crate) bridge: Bridge,
    /// The remote as the guest knows it.
    pub(crate) remote: SocketAddr,
    pub(crate) created_at: Instant,
    pub(crate) active_at: Instant,
    /// Whether it stands in the queue of those that have something to do.
    pub(crate) is_ready: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Bridges {
    slots: Slab<Entry>,
    last_generation: u32,
    /// Bridges of each way, inbound ones last.
    counts: [usize; 2],
    cap: usize,
    /// Until when nobody of a way is asked to make room.
    packed_until: [Option<Instant>; 2],
}

impl Bridges {
    /// An empty table for bridges that may have so many descriptors.
    pub(crate) const fn new(descriptors: usize) -> Self {
        Self {
            slots: Slab::new(),
            last_generation: FIRST,
            counts: [0; 2],
            cap: cap(descriptors),
            packed_until: [None; 2],
        }
    }

    /// Has bridges have so many descriptors from now on. Those that exist stay.
    pub(crate) const fn set_descriptors(&mut self, descriptors: usize) {
        self.cap = cap(descriptors);
    }

    /// How many descriptors bridges have.
    pub(crate) fn descriptors(&self) -> usize {
        self.slots.len() * DESCRIPTORS
    }

    /// Whether one more of that way may be added.
    pub(crate) const fn has_room(&self, is_inbound: bool) -> bool {
        self.counts[is_inbound as usize] < self.cap
    }

    /// Adds a bridge. Returns its place.
    pub(crate) fn add(
        &mut self,
        bridged: Bridged,
        remote: SocketAddr,
        bridge: Bridge,
        now: Instant,
    ) -> usize {
        self.last_generation = self.last_generation.wrapping_add(1).max(FIRST);
        let place = self.slots.vacant_entry();
        let at = place.key();
        let index = u32::try_from(at).unwrap_or(u32::MAX) | FIRST;
        let id = FlowId { index, generation: self.last_generation };
        let (created_at, active_at) = (now, now);
        place.insert(Entry { id, bridged, bridge, remote, created_at, active_at, is_ready: false });
        self.counts[usize::from(bridged.is_inbound())] += 1;
        at
    }

    /// The bridge at a place.
    pub(crate) fn at(&mut self, at: usize) -> Option<&mut Entry> {
        self.slots.get_mut(at)
    }

    /// The place of a bridge that is still there.
    pub(crate) fn place(&self, id: FlowId) -> Option<usize> {
        let at = usize::try_from(id.index & !FIRST).ok()?;
        self.slots.get(at).filter(|entry| entry.id == id).map(|_| at)
    }

    /// Takes a bridge out.
    pub(crate) fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.slots.try_remove(at)?;
        self.counts[usize::from(entry.bridged.is_inbound())] -= 1;
        if self.slots.is_empty() && self.slots.capacity() > KEPT {
            self.slots = Slab::new();
        }
        Some(entry)
    }

    /// All bridges, with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.slots.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The bridges that have to end now, and why.
    pub(crate) fn overdue(&mut self, timeouts: &Timeouts, now: Instant) -> Vec<(usize, Ending)> {
        let entries = self.slots.iter_mut();
        entries.filter_map(|(at, entry)| Some((at, entry.overdue(timeouts, now)?))).collect()
    }

    /// The bridges of a way that are to make room: those that are idle for longest, and never an
    /// open connection, which could not be taken up again.
    pub(crate) fn longest_idle(&mut self, is_inbound: bool, now: Instant) -> Vec<usize> {
        let packed_until = &mut self.packed_until[usize::from(is_inbound)];
        if packed_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let mut idle: Vec<(Instant, usize)> = self
            .slots
            .iter()
            .filter(|(_, entry)| entry.bridged.is_inbound() == is_inbound && entry.is_evictable())
            .map(|(at, entry)| (entry.active_at, at))
            .collect();
        *packed_until = idle.is_empty().then(|| now + PAUSE);
        let count = (self.cap / EVICTED_PART + 1).min(idle.len());
        if count < idle.len() {
            idle.select_nth_unstable(count);
        }
        idle.truncate(count);
        idle.into_iter().map(|(_, at)| at).collect()
    }

    /// Rows of the list from place `first` on, and the place to go on from.
    pub(crate) fn page<R>(&self, first: u32, row: impl Fn(&Entry) -> R) -> (Vec<R>, Option<u32>) {
        let first = first & !FIRST;
        let end = first.saturating_add(PAGE);
        let at = |place: u32| self.slots.get(usize::try_from(place).ok()?);
        let rows = (first..end).filter_map(at).map(row).collect();
        let is_last = usize::try_from(end).is_ok_and(|end| end >= self.slots.capacity());
        (rows, (!is_last).then_some(end | FIRST))
    }
}

impl Bridged {
    /// Whether a client of the host has opened it.
    pub(crate) const fn is_inbound(&self) -> bool {
        matches!(self, Self::Inbound { .. })
    }

    /// Notes where the far socket goes.
    pub(crate) const fn lead_to(&mut self, target: SocketAddr) {
        match self {
            Self::Inbound { guest, .. } => *guest = target,
            Self::Outbound { reached, .. } => *reached = target,
        }
    }

    /// The rule that it came through.
    pub(crate) const fn rule(&self) -> Option<ForwardId> {
        match self {
            Self::Inbound { origin, .. } => Some(origin.rule),
            Self::Outbound { .. } => None,
        }
    }
}

impl Entry {
    /// Why it has to end now, if it has to.
    fn overdue(&mut self, timeouts: &Timeouts, now: Instant) -> Option<Ending> {
        let idle = now.duration_since(self.active_at);
        let tcp = match &mut self.bridge {
            Bridge::Udp(_) => return (idle >= timeouts.udp).then_some(Ending::Idle),
            Bridge::Tcp(tcp) => tcp,
        };
        if idle >= GRACE && tcp.is_forsaken() {
            return Some(Ending::HostFailed);
        }
        let is_over = (tcp.is_opening() && idle >= timeouts.host_connect)
            || (tcp.is_closing() && idle >= timeouts.tcp_half_closed);
        is_over.then_some(Ending::TimedOut)
    }

    /// The protocol.
    pub(crate) fn protocol(&self) -> Protocol {
        protocol(&self.bridged)
    }

    /// Whether its far socket is not connected yet.
    pub(crate) const fn is_opening(&self) -> bool {
        match &self.bridge {
            Bridge::Tcp(tcp) => tcp.is_opening(),
            Bridge::Udp(_) => false,
        }
    }

    /// Whether it may end to make room.
    fn is_evictable(&self) -> bool {
        match &self.bridge {
            Bridge::Tcp(tcp) => tcp.is_opening() || tcp.is_closing(),
            Bridge::Udp(_) => true,
        }
    }

    /// Payload both ways.
    pub(crate) const fn traffic(&self) -> Traffic {
        let (outward, homeward) = match &self.bridge {
            Bridge::Tcp(tcp) => tcp.moved(),
            Bridge::Udp(udp) => udp.moved(),
        };
        match self.bridged {
            Bridged::Inbound { .. } => Traffic { from_guest: homeward, to_guest: outward },
            Bridged::Outbound { .. } => Traffic { from_guest: outward, to_guest: homeward },
        }
    }

    /// Who talks to whom.
    pub(crate) fn ends(&self) -> Ends {
        ends(&self.bridged, self.remote)
    }

    /// Its opening, as a listener hears it.
    pub(crate) fn opened(&self) -> Event {
        let peer = match self.bridged {
            Bridged::Inbound { origin, .. } => {
                Peer::Inbound { rule: origin.rule, client: origin.client }
            }
            Bridged::Outbound { reached, .. } => Peer::Host(reached),
        };
        Event::Opened { flow: self.id, ends: self.ends(), peer }
    }

    /// That its far socket is connected, as a listener hears it.
    pub(crate) fn connected(&self, now: Instant) -> Event {
        let after = now.duration_since(self.created_at);
        Event::Connected { flow: self.id, ends: self.ends(), after }
    }

    /// Its end, as a listener hears it.
    pub(crate) fn closed(&self, ending: Ending, now: Instant) -> Event {
        let (flow, ends, traffic) = (self.id, self.ends(), self.traffic());
        let age = now.duration_since(self.created_at);
        Event::Closed { flow, ends, ending, age, traffic, judged: None }
    }

    /// That it came to nothing, as a listener hears it.
    pub(crate) fn refused(&self, by: Refusal) -> Event {
        let (flow, ends, traffic) = (Some(self.id), self.ends(), self.traffic());
        Event::Refused { flow, ends, by, traffic, judged: None }
    }

    /// Its row without a verdict.
    pub(crate) fn summary(&self, now: Instant) -> FlowSummary {
        let Ends { protocol, guest, remote } = self.ends();
        let (near, far, state) = match &self.bridge {
            Bridge::Tcp(tcp) => (tcp.near(), tcp.far(), tcp.state()),
            Bridge::Udp(udp) => (udp.near(), Some(udp.far()), FlowState::Open),
        };
        let is_inbound = self.bridged.is_inbound();
        // The socket that is in the host's network namespace.
        let host = if is_inbound { Some(near) } else { far };
        let local = host.and_then(|host| SockRef::from(&host).local_addr().ok()?.as_socket());
        FlowSummary {
            id: self.id,
            protocol,
            guest,
            remote,
            local,
            is_inbound,
            state,
            age: now.duration_since(self.created_at),
            idle: now.duration_since(self.active_at),
            traffic: self.traffic(),
        }
    }

    /// Its row. Its verdict is not kept.
    pub(crate) fn judged(&self, now: Instant) -> JudgedFlow {
        let reached = match self.bridged {
            Bridged::Inbound { origin, .. } => origin.client,
            Bridged::Outbound { reached, .. } => reached,
        };
        JudgedFlow {
            summary: self.summary(now),
            member: None,
            reached: Some(reached),
            names: Vec::new(),
            verdict: None,
            rule: None,
        }
    }
}

/// That there was no room for a bridge, as a listener hears it.
pub(crate) fn refused(bridged: &Bridged, remote: SocketAddr, by: Refusal) -> Event {
    let (ends, traffic) = (ends(bridged, remote), Traffic::default());
    Event::Refused { flow: None, ends, by, traffic, judged: None }
}

fn ends(bridged: &Bridged, remote: SocketAddr) -> Ends {
    let guest = match *bridged {
        Bridged::Inbound { guest, .. } | Bridged::Outbound { guest, .. } => guest,
    };
    Ends::new(protocol(bridged), guest, remote)
}

/// Bridges of one way that may have half of so many descriptors.
const fn cap(descriptors: usize) -> usize {
    descriptors / DESCRIPTORS / 2
}

fn protocol(bridged: &Bridged) -> Protocol {
    match bridged.protocol() {
        ForwardProtocol::Tcp => Protocol::Tcp,
        ForwardProtocol::Udp => Protocol::Udp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::inner::inward::Targets;
    use crate::host::socket::tcp::TcpStream;

    fn bridge() -> Bridge {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let first = client.local_addr().unwrap();
        let near = TcpStream::accepted(listener.accept().unwrap().0.into()).unwrap();
        Bridge::Tcp(Box::new(TcpBridge::new(near, Targets { first, other: None })))
    }

    fn outbound(port: u16) -> Bridged {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Bridged::Outbound { protocol: ForwardProtocol::Tcp, guest: at(port), reached: at(1) }
    }

    #[test]
    fn each_way_has_room_of_its_own() {
        let (now, remote) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut bridges = Bridges::new(8);
        let added = [1, 2].map(|port| bridges.add(outbound(port), remote, bridge(), now));
        assert!(!bridges.has_room(false) && bridges.has_room(true));
        bridges.remove(added[0]).unwrap();
        assert!(bridges.has_room(false));
        bridges.set_descriptors(4);
        assert!(!bridges.has_room(false) && bridges.has_room(true));
        assert_eq!(bridges.descriptors(), 2);
    }

    #[test]
    fn bridge_that_is_not_joined_ends_in_time_or_for_lack_of_room() {
        let (now, remote) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let (timeouts, later) = (Timeouts::default(), now + Duration::from_secs(1));
        let mut bridges = Bridges::new(8);
        let [first, second] = [(1, now), (2, later)]
            .map(|(port, at)| bridges.add(outbound(port), remote, bridge(), at));
        assert!(bridges.longest_idle(true, later).is_empty(), "the other way");
        assert_eq!(bridges.longest_idle(false, later), [first]);
        assert!(bridges.overdue(&timeouts, later).is_empty());
        let at = now + timeouts.host_connect;
        assert_eq!(bridges.overdue(&timeouts, at), [(first, Ending::TimedOut)]);
        let at = later + timeouts.host_connect;
        assert!(bridges.overdue(&timeouts, at).contains(&(second, Ending::TimedOut)));
    }

    #[test]
    fn place_that_is_used_again_has_another_name() {
        let (now, remote) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let mut bridges = Bridges::new(8);
        let at = bridges.add(outbound(1), remote, bridge(), now);
        let id = bridges.at(at).unwrap().id;
        assert_eq!(bridges.place(id), Some(at));
        assert!(id.index >= FIRST && id.generation >= FIRST);
        bridges.remove(at).unwrap();
        assert_eq!(bridges.place(id), None);
        assert_eq!(bridges.add(outbound(2), remote, bridge(), now), at);
        assert_eq!(bridges.place(id), None);
        let (rows, next) = bridges.page(FIRST, |entry| entry.summary(now));
        assert_eq!((rows.len(), next), (1, None));
        assert_eq!(rows[0].state, FlowState::Asking);
    }
}
