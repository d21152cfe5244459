//! Who may open a flow, and which flow makes room for it.
//!
//! Owns every count of flows: by kind, by direction, and by member of a shared network. It issues a
//! [`Permit`] for each flow, which stands in the flow table and comes back when the flow ends.
//! Leaves the eviction itself to the [`Stack`](super::Stack).
//!
//! # Theory of operation
//!
//! *Goals.* A flood evicts its own flows only. Remotes do not evict the guest's flows, a member of
//! a shared network does not evict another member's flows, and datagrams do not evict connections.
//! No flow is evicted for an opening that is refused in the end.
//!
//! *Bounds.* A flow counts against the bounds of its kind, of its direction, and of the table; on a
//! shared network first against the member's part of each. Where a bound is reached, a flow that
//! counts against it makes room. At a member's own bound that is one of the member's flows; at a
//! common bound it is a flow of the member with most of them.
//!
//! | bound | which flow makes room |
//! | --- | --- |
//! | kind | a flow of the kind |
//! | inbound | a datagram or a connection of a remote that is not answered |
//! | all, for a remote | as for inbound; for a connection, failing that, a UDP mapping |
//! | all, for the guest | as for inbound, or a UDP or echo mapping |
//!
//! Of these, brief exchanges go before lasting conversations, and then whatever is idle longest. A
//! conversation in use does not make room for other kinds, and open connections never make room. If
//! no other flow is there, the new flow is refused.
//!
//! *Cost.* Traffic only notes a time in the permit. The order of eviction is a tree per member and
//! kind; its first entry may be out of date, and is then put where it belongs. Each such move is
//! paid for by the packet that made it necessary, so an opening costs O(log n) on average.
//!
//! RFC 4987 section 3, RFC 4787 section 4.3 (why mappings should live, and may not have to).

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::Limits;
use crate::discard::DiscardReason;
use crate::event::FlowId;
use crate::flow::permit::{Kind, Permit, Place};
use crate::flow::table::FlowTable;
use crate::member::MemberId;
use crate::share::{Holder, PARTS};
use crate::stats::PerProtocol;
use crate::time::Instant;

/// Remotes may open this part of the table (arbitrary: as much as the guest has to itself).
const INBOUND_PART: usize = 2;
/// A lasting conversation makes room for flows of other kinds once it has been idle for so long
/// (arbitrary: a call or a tunnel in use says something more often).
const SPARED_FOR: Duration = Duration::from_secs(10);

/// What is counted for one member, or for all.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([usize; Kind::ALL.len()]);

impl Counts {
    fn within(&self, group: Group) -> usize {
        let counted = Kind::ALL.into_iter().filter(|&kind| group.contains(kind));
        counted.map(|kind| self.0[kind as usize]).sum()
    }

    const fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    const fn take(&mut self, kind: Kind) {
        self.0[kind as usize] = self.0[kind as usize].saturating_sub(1);
    }
}

/// Kinds that have a cap together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Group {
    Kind(Kind),
    Inbound,
    All,
}

impl Group {
    fn contains(self, kind: Kind) -> bool {
        match self {
            Self::Kind(own) => kind == own,
            Self::Inbound => kind.is_inbound(),
            Self::All => true,
        }
    }
}

/// What one member has.
#[derive(Debug, Default)]
struct Held {
    counts: Counts,
    /// By kind: the order of eviction.
    orders: [BTreeSet<Place>; Kind::ALL.len()],
}

/// A flow that is to make room.
struct Victim {
    kind: Kind,
    holder: Holder,
    flow: FlowId,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    is_shared: bool,
    /// Members by the addresses that they have been assigned or have used.
    members: BTreeMap<IpAddr, MemberId>,
    counts: Counts,
    held: BTreeMap<Holder, Held>,
}

impl Admission {
    pub(super) const fn new(limits: &Limits, is_shared: bool) -> Self {
        Self {
            limits: *limits,
            is_shared,
            members: BTreeMap::new(),
            counts: Counts([0; Kind::ALL.len()]),
            held: BTreeMap::new(),
        }
    }

    /// Later flows of these addresses count for the member `id`.
    pub(super) fn assign(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        self.members.extend(addresses.map(|address| (address, id)));
    }

    /// A packet of the member `id` came from `address`; how many addresses a member can use is
    /// bounded by the switch. Returns whether that is news.
    pub(super) fn learn(&mut self, id: MemberId, address: IpAddr) -> bool {
        if address.is_unspecified() || self.holder(address) == Some(id) {
            return false;
        }
        self.members.insert(address, id);
        true
    }

    /// Forgets the addresses of `id`.
    pub(super) fn unassign(&mut self, id: MemberId) {
        self.members.retain(|_, &mut member| member != id);
    }

    /// The member that flows of `guest` count for.
    pub(super) fn holder(&self, guest: IpAddr) -> Holder {
        self.members.get(&guest).copied()
    }

    /// Flows at this moment, of all or of one holder.
    pub(super) fn open(&self, of: Option<Holder>) -> PerProtocol<u64> {
        let mut open = PerProtocol::default();
        for kind in Kind::ALL {
            open[kind.protocol()] += self.used(Group::Kind(kind), of) as u64;
        }
        open
    }

    /// How many flows of `kind` there are.
    pub(super) const fn count(&self, kind: Kind) -> usize {
        self.counts.0[kind as usize]
    }

    /// The flows of `kind`, which is one that can be evicted.
    pub(super) fn flows_of(&self, kind: Kind) -> impl Iterator<Item = FlowId> {
        let orders = self.held.values().map(move |held| &held.orders[kind as usize]);
        orders.flatten().map(|place| place.flow())
    }

    /// Which flows are to be evicted for a new one of `kind` for `guest`.
    ///
    /// # Errors
    /// [`DiscardReason::FlowTableFull`]; then nothing is to be evicted.
    pub(super) fn make_room(
        &mut self,
        flows: &mut FlowTable,
        kind: Kind,
        guest: IpAddr,
        now: Instant,
    ) -> Result<Vec<FlowId>, DiscardReason> {
        let holder = self.holder(guest);
        let mut victims: Vec<Victim> = Vec::new();
        let groups = [Group::Kind(kind), Group::Inbound, Group::All];
        for is_own in [true, false] {
            for group in groups.into_iter().filter(|group| group.contains(kind)) {
                let leaves = |victim: &&Victim| {
                    group.contains(victim.kind) && (!is_own || victim.holder == holder)
                };
                let leaving = victims.iter().filter(leaves).count();
                if self.used(group, is_own.then_some(holder)) - leaving < self.cap(group, is_own) {
                    continue;
                }
                let victim = self.victim(flows, kind, group, (holder, is_own), now);
                victims.push(victim.ok_or(DiscardReason::FlowTableFull)?);
            }
        }
        Ok(victims.into_iter().map(|victim| victim.flow).collect())
    }

    /// Counts a flow for which there is room.
    pub(super) fn admit(&mut self, kind: Kind, guest: IpAddr, id: FlowId, now: Instant) -> Permit {
        let permit = Permit::new(kind, self.holder(guest), now);
        self.enter(&permit, id);
        permit
    }

    /// Counts a TCP connection as open from now on; nothing for other flows.
    pub(super) fn note_open(&mut self, permit: &mut Permit, id: FlowId) {
        let opened = match permit.kind {
            Kind::Opening => Kind::Open,
            Kind::InboundOpening => Kind::InboundOpen,
            Kind::Open | Kind::InboundOpen | Kind::Udp | Kind::InboundUdp | Kind::Echo => return,
        };
        self.leave(permit, id);
        permit.kind = opened;
        self.enter(permit, id);
    }

    /// A flow has ended: it does not count any more.
    pub(super) fn release(&mut self, permit: &Permit, id: FlowId) {
        self.leave(permit, id);
    }

    fn enter(&mut self, permit: &Permit, id: FlowId) {
        self.counts.add(permit.kind);
        let held = self.held.entry(permit.holder).or_default();
        held.counts.add(permit.kind);
        if permit.kind.is_evictable() {
            held.orders[permit.kind as usize].insert(Place::new(permit.queued, id));
        }
    }

    fn leave(&mut self, permit: &Permit, id: FlowId) {
        self.counts.take(permit.kind);
        let Some(held) = self.held.get_mut(&permit.holder) else { return };
        held.counts.take(permit.kind);
        held.orders[permit.kind as usize].remove(&Place::new(permit.queued, id));
        if held.counts.within(Group::All) == 0 {
            self.held.remove(&permit.holder);
        }
    }

    /// Number of flows in a group, of all members or of one.
    fn used(&self, group: Group, of: Option<Holder>) -> usize {
        match of {
            None => self.counts.within(group),
            Some(holder) => self.held.get(&holder).map_or(0, |held| held.counts.within(group)),
        }
    }

    /// Number of flows that a group may have, as a whole or of one member.
    fn cap(&self, group: Group, is_own: bool) -> usize {
        let all = self.limits.flows;
        let inbound = all / INBOUND_PART;
        // Connections that are being opened leave room for those that are open.
        let most = |of: usize| of - of / 4;
        let cap = match group {
            Group::All | Group::Kind(Kind::Open) => all,
            Group::Inbound | Group::Kind(Kind::InboundOpen) => inbound,
            Group::Kind(Kind::Opening) => self.limits.half_open.min(most(all)),
            Group::Kind(Kind::InboundOpening) => self.limits.half_open.min(most(inbound)),
            Group::Kind(Kind::Udp) => self.limits.udp_mappings,
            Group::Kind(Kind::InboundUdp) => self.limits.inbound_udp,
            Group::Kind(Kind::Echo) => self.limits.echo_flows,
        };
        let parts = if is_own && self.is_shared { PARTS } else { 1 };
        if cap == 0 { 0 } else { (cap / parts).max(1) }
    }

    /// The flow that makes room for one of `kind`, of `opener`, in a group that is full.
    fn victim(
        &mut self,
        flows: &mut FlowTable,
        kind: Kind,
        group: Group,
        (opener, is_own): (Holder, bool),
        now: Instant,
    ) -> Option<Victim> {
        let unanswered: &[Kind] = &[Kind::InboundUdp, Kind::InboundOpening];
        let tiers: [&[Kind]; 2] = match (group, kind) {
            (Group::Kind(_), _) => [&[], &[]],
            (Group::Inbound, _) | (Group::All, Kind::InboundUdp) => [unanswered, &[]],
            (Group::All, Kind::InboundOpening | Kind::InboundOpen) => [unanswered, &[Kind::Udp]],
            (Group::All, Kind::Opening | Kind::Open | Kind::Udp | Kind::Echo) => {
                [&[Kind::InboundUdp, Kind::Udp, Kind::InboundOpening, Kind::Echo], &[]]
            }
        };
        for tier in tiers {
            let mut first: Option<(Place, Victim)> = None;
            for &candidate in tier {
                let holder = if is_own { opener } else { self.holder_of_most(candidate, opener) };
                let Some(place) = self.first(flows, candidate, holder) else { continue };
                let standing = place.standing;
                let is_spared = standing.is_lasting && now < standing.active_at + SPARED_FOR;
                if !is_spared && first.as_ref().is_none_or(|(other, _)| standing < other.standing) {
                    first = Some((place, Victim { kind: candidate, holder, flow: place.flow() }));
                }
            }
            if let Some((_, victim)) = first {
                return Some(victim);
            }
        }
        // A connection that is being opened does not make room for the next one where the table is
        // full of open ones.
        if group == Group::Kind(kind) || matches!(kind, Kind::Udp | Kind::InboundUdp | Kind::Echo) {
            let holder = if is_own { opener } else { self.holder_of_most(kind, opener) };
            let place = self.first(flows, kind, holder)?;
            return Some(Victim { kind, holder, flow: place.flow() });
        }
        None
    }

    /// The member with most flows of `kind`; `opener`, if no other has more. There are no more
    /// members than [`MEMBERS_CAP`](crate::member::MEMBERS_CAP).
    fn holder_of_most(&self, kind: Kind, opener: Holder) -> Holder {
        let group = Group::Kind(kind);
        let rank =
            |(holder, held): &(&Holder, &Held)| (held.counts.within(group), **holder == opener);
        self.held.iter().max_by_key(rank).and_then(|(holder, _)| *holder)
    }

    /// The flow of `kind` that comes first in the order of eviction.
    fn first(&mut self, flows: &mut FlowTable, kind: Kind, holder: Holder) -> Option<Place> {
        let order = &mut self.held.get_mut(&holder)?.orders[kind as usize];
        loop {
            let place = *order.first()?;
            let Some(entry) = flows.entry_mut(place.flow()) else {
                order.remove(&place);
                continue;
            };
            let permit = &mut entry.meta.permit;
            if permit.standing == permit.queued {
                return Some(place);
            }
            order.remove(&place);
            permit.queued = permit.standing;
            order.insert(Place::new(permit.queued, place.flow()));
        }
    }
}
