//! Where flows to placeholders may lead.
//!
//! Owns the verdict about an address at which a name was found, for a flow that may go on as far as
//! the name is concerned: what a rule says about the address holds as well. Which address stands
//! for which name is in [`placeholders`](super::placeholders), and what the name alone comes to in
//! [`asking`](super::asking).
//!
//! | rules and decisions say of the address | the flow |
//! | --- | --- |
//! | allow | goes there |
//! | ask, and somebody has allowed the name or the address | goes there |
//! | ask, and a rule has allowed the name | waits for a decision |
//! | deny, or only a rule for the address could open it | does not go there |

use core::net::{IpAddr, SocketAddr};

use super::judge::Judge;
use super::name::Name;
use super::rule::Action;
use super::sets::{Fitness, embedded};
use super::verdict::{Cause, FlowVerdict};
use crate::protocol::Protocol;
use crate::time::Instant;

/// Where a flow to a placeholder may lead.
pub(crate) enum Ways {
    /// To these addresses, in the order in which they are to be tried.
    Open(Vec<SocketAddr>),
    /// Nowhere before somebody has decided about this address.
    Asked(SocketAddr),
    /// Nowhere.
    Closed(Cause),
}

impl Judge {
    /// Whether `address` is one of those at which `name` was found, as far as that still holds.
    pub(crate) fn is_at(&self, name: &Name, address: IpAddr, now: Instant) -> bool {
        self.bindings.live(address, now).any(|(_, bound)| bound == name)
            || self.found(name, now).is_some_and(|found| found.contains(&address))
    }

    /// What becomes of a flow to a placeholder of `name`, which may go on, at `reached`, and why:
    /// it is denied if a rule denies the address, or nothing but a rule could open it. Somebody is
    /// asked if a rule asks about the address and another one has allowed the name: who allows a
    /// name has allowed its addresses.
    pub(crate) fn leads_to(
        &self,
        name: &Name,
        protocol: Protocol,
        reached: SocketAddr,
        now: Instant,
    ) -> (Action, Cause) {
        let (address, port) = (reached.ip(), reached.port());
        let fitness = self.fitness(address);
        let compiled = self.policy().compiled();
        let class = compiled.names.class(name);
        let is_fit = match fitness {
            Fitness::Public => true,
            Fitness::Private => compiled.names.admits_private(class),
            Fitness::Never => false,
        };
        if !is_fit || self.is_audit() {
            let action = if is_fit { Action::Allow } else { Action::Deny };
            return (action, Cause::Rule);
        }
        let action_at = |address: IpAddr| {
            let place = self.place(address, fitness, &[]);
            compiled.flow(protocol, &place, port, core::iter::once(class), false).action
        };
        let inner = embedded(address).into_iter().flatten();
        let action = inner.map(|inner| action_at(inner.into())).fold(action_at(address), Ord::max);
        if action != Action::Ask {
            return (action, Cause::Rule);
        }
        let of_address = self.decisions.about_address(address, port, protocol, now);
        let decided = of_address.or_else(|| self.decisions.about_name(name, port, protocol, now));
        match decided {
            Some(action) => (action, Cause::Decision),
            // The yes about the name may have ended since.
            None if self.rules_say(name, protocol, port).0 == Action::Ask => {
                (Action::Allow, Cause::Decision)
            }
            None => (Action::Ask, Cause::Rule),
        }
    }

    /// Which of `addresses` a flow to `port` of a placeholder of `name` may lead to.
    pub(crate) fn ways(
        &self,
        name: &Name,
        protocol: Protocol,
        (addresses, port): (&[IpAddr], u16),
        now: Instant,
    ) -> Ways {
        let (mut open, mut asked, mut cause) = (Vec::new(), None, Cause::Rule);
        for reached in addresses.iter().map(|&address| SocketAddr::new(address, port)) {
            match self.leads_to(name, protocol, reached, now) {
                (Action::Allow, _) => open.push(reached),
                (Action::Ask, _) => asked = asked.or(Some(reached)),
                (Action::Deny, why) => cause = why,
            }
        }
        match asked {
            _ if !open.is_empty() => Ways::Open(open),
            Some(reached) => Ways::Asked(reached),
            None => Ways::Closed(cause),
        }
    }

    /// Whether a datagram of `remote`, which the guest knows as `seen`, may come: the guest may
    /// send there.
    pub(crate) fn lets_answer(
        &self,
        protocol: Protocol,
        seen: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> bool {
        // A placeholder may have gone to another name since.
        let name = self.placeholder_name(seen.ip());
        let name = name.filter(|name| self.is_at(name, remote.ip(), now));
        let reached = if name.is_some() { seen } else { remote };
        match self.on_flow(protocol, seen, reached, now).verdict {
            FlowVerdict::Pass { .. } => true,
            FlowVerdict::Named { .. } => name
                .is_some_and(|name| self.leads_to(name, protocol, remote, now).0 == Action::Allow),
            FlowVerdict::Resolver | FlowVerdict::Hold | FlowVerdict::Refuse(_) => false,
        }
    }
}
