//! The flow table: from a 5-tuple to a flow in one hash.
//!
//! # Theory of operation
//!
//! *Goals.* A packet finds its flow at the same cost whether there is one or 65,536. An id that the
//! host side still holds after its flow is gone finds nothing, never another flow. The guest cannot
//! choose keys that collide: the hasher is seeded.
//!
//! *Life cycle.* `insert` gives a flow a [`FlowId`]: a slot that is reused and a generation that is
//! not. `remove` frees the slot. The host side keeps its sockets in an array indexed by the slot.
//!
//! *Limits.* None of its own: each entry holds a [`Permit`] of `stack::admission`, which bounds how
//! many there are.

use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;

use foldhash::quality::FixedState;
use slab::Slab;

use super::echo::EchoFlow;
use super::inbound_udp::InboundUdp;
use super::permit::Permit;
use super::tcp::TcpFlow;
use super::udp::UdpFlow;
use super::{Flow, FlowKey};
use crate::egress::Name;
use crate::event::FlowId;
use crate::journal::{Course, Ends};
use crate::policy::Protocol;
use crate::time::Instant;
use crate::traffic::Traffic;

/// A flow with what the table keeps beside it.
pub(crate) struct Entry {
    pub(crate) meta: Meta,
    pub(crate) flow: Flow,
}

impl Entry {
    /// Who talks to whom. The remote of a mapping is the one that the guest has addressed last.
    pub(crate) fn ends(&self) -> Ends {
        let FlowKey { protocol, guest, remote } = self.meta.key;
        let remote = match &self.flow {
            Flow::Tcp(_) | Flow::InboundUdp(_) => remote,
            Flow::Udp(flow) => flow.latest(),
            Flow::Echo(flow) => SocketAddr::new(flow.latest(), 0),
        };
        Ends::new(protocol, guest, remote)
    }

    /// Where it goes, if a listener has heard a verdict about it.
    pub(crate) fn course(&self) -> Option<Course> {
        let opener = match &self.flow {
            Flow::Tcp(flow) => flow.opener(),
            Flow::InboundUdp(flow) => {
                let origin = flow.origin();
                Some((origin.client, origin.local.port()))
            }
            Flow::Udp(_) | Flow::Echo(_) => None,
        };
        let reached = match opener {
            Some((client, port)) => SocketAddr::new(client.ip(), port),
            None => self.meta.passed.as_deref()?.reached,
        };
        self.meta.is_told.then(|| Course::new(self.meta.permit.holder, reached))
    }
}

/// What every flow has, whatever its protocol.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) id: FlowId,
    pub(crate) key: FlowKey,
    pub(crate) permit: Permit,
    pub(crate) created_at: Instant,
    pub(crate) traffic: Traffic,
    /// Whether the flow stands in the queue of flows that are to be pumped.
    pub(crate) is_ready: bool,
    /// Whether a listener has heard a verdict about it, and is to hear of its end.
    pub(crate) is_told: bool,
    /// What the egress policy has last let pass, if there is a policy.
    pub(crate) passed: Option<Box<Passed>>,
}

/// A destination that the egress policy lets a flow have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    /// The destination on the host's side. The names that lead there are in use while the flow
    /// lasts.
    pub(crate) reached: SocketAddr,
    /// The [revision](crate::egress::Judge::revision) under which it passed.
    pub(crate) revision: u64,
    /// The name that its first bytes have to have, if the guest knows the destination by a
    /// placeholder.
    pub(crate) name: Option<Name>,
}

/// A key as the index keeps it. Flow labels and scopes, which packets do not have, would add a
/// third to its size.
#[derive(PartialEq, Eq, Hash)]
struct IndexKey {
    protocol: Protocol,
    ips: [IpAddr; 2],
    ports: [u16; 2],
}

impl From<&FlowKey> for IndexKey {
    fn from(&FlowKey { protocol, guest, remote }: &FlowKey) -> Self {
        let (ips, ports) = ([guest.ip(), remote.ip()], [guest.port(), remote.port()]);
        Self { protocol, ips, ports }
    }
}

/// For each protocol, access to a flow of which the caller knows that it is one.
macro_rules! accessors {
    ($($variant:ident($flow:ident): $shared:ident, $exclusive:ident;)*) => {
        $(
            pub(crate) fn $shared(&self, id: FlowId) -> Option<(&Meta, &$flow)> {
                match self.entry(id)? {
                    Entry { meta, flow: Flow::$variant(flow) } => Some((meta, flow)),
                    Entry { .. } => None,
                }
            }

            pub(crate) fn $exclusive(&mut self, id: FlowId) -> Option<(&mut Meta, &mut $flow)> {
                match self.entry_mut(id)? {
                    Entry { meta, flow: Flow::$variant(flow) } => Some((meta, flow)),
                    Entry { .. } => None,
                }
            }
        )*
    };
}

/// See the [module](self).
pub(crate) struct FlowTable {
    by_key: HashMap<IndexKey, u32, FixedState>,
    entries: Slab<Entry>,
    generation: u32,
}

impl FlowTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            by_key: HashMap::with_hasher(FixedState::with_seed(seed)),
            entries: Slab::new(),
            generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a flow, with the permit that `permit` issues for it.
    pub(crate) fn insert(
        &mut self,
        key: FlowKey,
        flow: Flow,
        permit: impl FnOnce(FlowId) -> Permit,
        now: Instant,
    ) -> FlowId {
        let slot = self.entries.vacant_entry();
        // Slots are handed out densely, and memory ends long before 32 bits do.
        let index = u32::try_from(slot.key()).unwrap_or(u32::MAX);
        self.generation = self.generation.wrapping_add(1);
        let id = FlowId { index, generation: self.generation };
        let meta = Meta {
            id,
            key,
            permit: permit(id),
            created_at: now,
            traffic: Traffic::default(),
            is_ready: false,
            is_told: false,
            passed: None,
        };
        slot.insert(Entry { meta, flow });
        self.by_key.insert(IndexKey::from(&key), index);
        id
    }

    pub(crate) fn lookup(&self, key: &FlowKey) -> Option<FlowId> {
        let &index = self.by_key.get(&IndexKey::from(key))?;
        self.entries.get(slot(index)).map(|entry| entry.meta.id)
    }

    /// The flow of everything that the guest sends from `guest`; there is none for TCP.
    pub(crate) fn mapping(&self, protocol: Protocol, guest: SocketAddr) -> Option<&Entry> {
        let id = self.lookup(&FlowKey::of_guest(protocol, guest))?;
        self.entry(id)
    }

    pub(crate) fn entry_mut(&mut self, id: FlowId) -> Option<&mut Entry> {
        self.entries.get_mut(slot(id.index)).filter(|entry| entry.meta.id == id)
    }

    pub(crate) fn entry(&self, id: FlowId) -> Option<&Entry> {
        self.entries.get(slot(id.index)).filter(|entry| entry.meta.id == id)
    }

    accessors! {
        Tcp(TcpFlow): tcp, tcp_mut;
        Udp(UdpFlow): udp, udp_mut;
        Echo(EchoFlow): echo, echo_mut;
        InboundUdp(InboundUdp): inbound_udp, inbound_udp_mut;
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Entry> {
        self.entry(id)?;
        let entry = self.entries.remove(slot(id.index));
        self.by_key.remove(&IndexKey::from(&entry.meta.key));
        self.give_memory_back();
        Some(entry)
    }

    /// Every flow.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// The flows in the slots of `range`, and the slot to go on from; `None` at the end.
    ///
    /// Costs as much as there are slots in the range, whether or not they are in use.
    pub(crate) fn in_slots(
        &self,
        first: u32,
        count: u32,
    ) -> (impl Iterator<Item = &Entry>, Option<u32>) {
        let end = first.saturating_add(count);
        let has_more = slot(end) < self.entries.capacity();
        let entries = (first..end).filter_map(|index| self.entries.get(slot(index)));
        (entries, has_more.then_some(end))
    }

    /// After a burst the table shrinks to what is in use; a slab can only do that from its end.
    fn give_memory_back(&mut self) {
        if self.by_key.capacity() > 4096 && self.by_key.capacity() / 8 > self.by_key.len() {
            self.by_key.shrink_to(self.by_key.len() * 2);
            self.entries.shrink_to_fit();
        }
    }
}

fn slot(index: u32) -> usize {
    // Lossless on every platform that this runs on (16-bit ones have no TAP devices).
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::GuestSide;
    use crate::flow::permit::Kind;
    use crate::mac::MacAddr;
    use core::net::SocketAddr;

    fn key(port: u16) -> FlowKey {
        FlowKey::of_guest(Protocol::Echo, SocketAddr::from(([10, 0, 2, 100], port)))
    }

    fn flow(port: u16) -> Flow {
        let guest = GuestSide { address: key(port).guest, mac: MacAddr::default() };
        Flow::Echo(Box::new(EchoFlow::new(guest, Instant::ZERO)))
    }

    fn insert(table: &mut FlowTable, port: u16) -> FlowId {
        let permit = |_| Permit::new(Kind::Echo, None, Instant::ZERO);
        table.insert(key(port), flow(port), permit, Instant::ZERO)
    }

    #[test]
    fn old_name_does_not_find_the_next_user_of_its_slot() {
        let mut table = FlowTable::new(7);
        let old = insert(&mut table, 1);
        table.remove(old);
        let new = insert(&mut table, 1);
        assert_eq!(old.index, new.index);
        assert!(table.entry(old).is_none());
        assert!(table.entry_mut(old).is_none());
        assert!(table.remove(old).is_none());
        assert!(table.entry(new).is_some());
    }

    #[test]
    fn flow_takes_no_more_memory_than_it_did() {
        assert!(size_of::<(IndexKey, u32)>() <= 44);
        assert!(size_of::<Entry>() <= 184);
        assert!(size_of::<TcpFlow>() <= 256);
    }
}
