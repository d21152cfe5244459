//! The addresses that a guest has now, where the plan lets it choose them.
//!
//! Owns the last source address of each kind that the guest was heard with. A rule that leads to
//! the guest's address in the plan follows the guest from there, unless the plan says that it stays
//! ([`Family::may_move`](crate::plan::Family::may_move)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::plan::AddressPlan;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct Whereabouts {
    /// Whether anything is learnt, which is asked for each packet of the guest.
    is_curious: bool,
    v4: Option<Place<Ipv4Addr>>,
    v6: Option<Place<Ipv6Addr>>,
    /// The guest's link-local address, from which alone it may reach link-local remotes.
    link_local: Option<Ipv6Addr>,
}

/// Where the guest is in one IP version.
#[derive(Clone, Copy, Debug)]
struct Place<A> {
    /// Its address in the first plan, by which rules name it whatever the plan is now.
    named: A,
    /// Its address in the plan.
    planned: A,
    may_move: bool,
    seen: Option<A>,
}

impl<A: Copy + PartialEq> Place<A> {
    const fn new(planned: A, may_move: bool) -> Self {
        Self { named: planned, planned, may_move, seen: None }
    }

    const fn note(&mut self, source: A) {
        if self.may_move {
            self.seen = Some(source);
        }
    }

    /// Where a rule for `guest` leads; `other` is used where the guest was not seen.
    fn current(&self, guest: A, other: Option<A>) -> A {
        if guest == self.planned || guest == self.named {
            self.seen.or(other).unwrap_or(self.planned)
        } else {
            guest
        }
    }

    /// The plan has another address now. The guest is not taken to be
    /// where `is_over` says that it cannot be any more.
    fn replan(&mut self, planned: A, may_move: bool, is_over: impl Fn(A) -> bool) {
        let seen = self.seen.filter(|&seen| may_move && !is_over(seen));
        *self = Self { planned, may_move, seen, ..*self };
    }
}

impl Whereabouts {
    /// A guest that was not heard yet.
    pub(super) fn new(plan: &AddressPlan) -> Self {
        Self {
            is_curious: plan.answers_for_everyone_else(),
            v4: plan.ipv4().map(|family| Place::new(family.guest, family.may_move)),
            v6: plan.ipv6().map(|family| Place::new(family.guest, family.may_move)),
            link_local: None,
        }
    }

    /// `plan` replaces `before`. Addresses that only that one gave to the guest are forgotten.
    pub(super) fn adopt_plan(&mut self, before: &AddressPlan, plan: &AddressPlan) {
        let is_over = |seen: IpAddr| before.is_guests(seen) && !plan.is_guests(seen);
        if let (Some(place), Some(family)) = (&mut self.v4, plan.ipv4()) {
            place.replan(family.guest, family.may_move, |seen| is_over(seen.into()));
        }
        if let (Some(place), Some(family)) = (&mut self.v6, plan.ipv6()) {
            place.replan(family.guest, family.may_move, |seen| is_over(seen.into()));
        }
    }

    /// A packet from `source`, which is a guest's address or unspecified, has arrived.
    pub(super) const fn note(&mut self, source: IpAddr) {
        if !self.is_curious || source.is_unspecified() {
            return;
        }
        match (source, &mut self.v4, &mut self.v6) {
            (IpAddr::V4(v4), Some(place), _) => place.note(v4),
            (IpAddr::V6(v6), _, Some(_)) if v6.is_unicast_link_local() => {
                self.link_local = Some(v6);
            }
            (IpAddr::V6(v6), _, Some(place)) => place.note(v6),
            (IpAddr::V4(_), None, _) | (IpAddr::V6(_), _, None) => {}
        }
    }

    /// Where a rule for `guest` leads now. Scope and flow label, which no key has, are gone.
    pub(super) fn current(&self, guest: SocketAddr) -> SocketAddr {
        match guest {
            SocketAddr::V4(v4) => {
                let place = self.v4.map_or(*v4.ip(), |place| place.current(*v4.ip(), None));
                SocketAddrV4::new(place, v4.port()).into()
            }
            SocketAddr::V6(v6) => {
                let place = self.v6.map_or(*v6.ip(), |place| {
                    // A guest without another address has its link-local one in the plan.
                    let is_local = place.planned.is_unicast_link_local();
                    place.current(*v6.ip(), self.link_local.filter(|_| is_local))
                });
                SocketAddrV6::new(place, v6.port(), 0, 0).into()
            }
        }
    }

    /// Where `guest`, which is [`current`](Self::current), is reached by a remote that it sees as
    /// `seen`: a link-local remote reaches its link-local address, where that is known.
    pub(super) fn facing(&self, guest: SocketAddr, seen: IpAddr) -> SocketAddr {
        let is_link_local = matches!(seen, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let is_followed = self
            .v6
            .is_some_and(|place| guest.ip() == IpAddr::V6(place.seen.unwrap_or(place.planned)));
        match self.link_local {
            Some(link_local) if is_link_local && is_followed && seen != link_local => {
                SocketAddr::new(link_local.into(), guest.port())
            }
            Some(_) | None => guest,
        }
    }
}

#[cfg(test)]
#[path = "tests/whereabouts.rs"]
mod tests;
