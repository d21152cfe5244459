//! How much of the stack's caps one member of a shared network may use.
//!
//! Owns the count of flows by member. A single guest that fills a table hurts itself; on a shared
//! network it would hurt the others, so that each member gets a part of every cap. A flow belongs
//! to whoever was assigned its guest's address; those of all other addresses (networks nested
//! behind members) count as one more member.

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::config::Limits;
use crate::member::MemberId;

/// One member may use this part of a cap (arbitrary: enough for a busy container, and three of them
/// cannot leave a fourth one without).
pub(super) const PARTS: usize = 4;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A flow of any kind.
    Flow,
    /// A TCP flow that is being opened.
    HalfOpen,
    /// An echo flow.
    Echo,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    flows: usize,
    half_open: usize,
    echo: usize,
}

impl Used {
    const fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Flow => &mut self.flows,
            Kind::HalfOpen => &mut self.half_open,
            Kind::Echo => &mut self.echo,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Quotas {
    cap: Used,
    members: BTreeMap<IpAddr, MemberId>,
    used: BTreeMap<Option<MemberId>, Used>,
}

impl Quotas {
    pub(super) fn new(limits: &Limits) -> Self {
        let part = |cap: usize| (cap / PARTS).max(1);
        let cap = Used {
            flows: part(limits.flows),
            half_open: part(limits.half_open),
            echo: part(limits.echo_flows),
        };
        Self { cap, members: BTreeMap::new(), used: BTreeMap::new() }
    }

    /// Counts flows of these addresses as those of `id`. There are none yet.
    pub(super) fn assign(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        self.members.extend(addresses.map(|address| (address, id)));
    }

    /// Forgets `id`, whose flows have ended.
    pub(super) fn unassign(&mut self, id: MemberId) {
        self.members.retain(|_, &mut member| member != id);
        self.used.remove(&Some(id));
    }

    /// Whose flows those of `guest` are.
    pub(super) fn holder(&self, guest: IpAddr) -> Option<MemberId> {
        self.members.get(&guest).copied()
    }

    pub(super) fn has_room(&self, guest: IpAddr, kind: Kind) -> bool {
        let mut used = self.used.get(&self.holder(guest)).copied().unwrap_or_default();
        let mut cap = self.cap;
        *used.of(kind) < *cap.of(kind)
    }

    pub(super) fn add(&mut self, guest: IpAddr, kind: Kind) {
        let holder = self.holder(guest);
        *self.used.entry(holder).or_default().of(kind) += 1;
    }

    pub(super) fn remove(&mut self, guest: IpAddr, kind: Kind) {
        let holder = self.holder(guest);
        if let Some(used) = self.used.get_mut(&holder) {
            let count = used.of(kind);
            *count = count.saturating_sub(1);
        }
    }
}
