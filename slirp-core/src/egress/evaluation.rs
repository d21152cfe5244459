//! The order of evaluation: deny, ask, allow, default.
//!
//! Owns what the rules make of one flow, one lookup or one claim. Whether the guest is to obey is
//! left to [`judge`](super::judge), which keeps what these depend on.
//!
//! # Several names
//!
//! An address may have several names, and only the first bytes say which is meant. On a port whose
//! first bytes always have to name a host (443, 80) one allowed name lets the flow through, and the
//! first bytes decide. Elsewhere the strictest of all names holds.

use super::compile::{Compiled, NameClass, Tally};
use super::ports::{Access, Kind, Said, both};
use super::rule::{Action, AddressSet, Verify};
use super::sets::{Fitness, Place};
use super::verdict::{Cause, Verification};
use crate::protocol::Protocol;

const HTTP: u16 = 80;
const HTTPS: u16 = 443;

/// What the rules make of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) action: Action,
    pub(super) cause: Cause,
    /// The rule that decided, if one did.
    pub(super) said: Option<Said>,
    /// What is looked at in its first bytes, if it is allowed.
    pub(super) verify: Verification,
    pub(super) is_protected: bool,
}

impl Outcome {
    /// The stricter of both.
    pub(super) fn stricter(self, other: Self) -> Self {
        let strictness = |outcome: &Self| {
            let verify = match outcome.verify {
                Verification::None => 0,
                Verification::SniffDenied => 1,
                Verification::Sniff => 2,
                Verification::Tls | Verification::Http => 3,
            };
            (outcome.action, outcome.said.is_some(), verify, outcome.is_protected)
        };
        let is_protected = self.is_protected || other.is_protected;
        let stricter = if strictness(&other) > strictness(&self) { other } else { self };
        Self { is_protected, ..stricter }
    }
}

/// What all names of an address say about one port.
#[derive(Clone, Copy, Debug)]
struct NamesSay {
    /// The strictest of each action.
    deny: Option<Said>,
    ask: Option<Said>,
    allow: Option<Said>,
    /// The most lenient that one name and the address come to, if there are names.
    best: Option<(Action, Option<Said>)>,
    opens_port: bool,
    opens_protocol: bool,
}

impl Compiled {
    /// Judges a flow to `port` of `place`, whose names are of the classes `names`. With
    /// `is_watched` first bytes may have to show that they have no denied name, although no rule
    /// denies one.
    pub(super) fn flow(
        &self,
        protocol: Protocol,
        place: &Place<'_>,
        port: u16,
        names: impl Iterator<Item = NameClass>,
        is_watched: bool,
    ) -> Outcome {
        let kind = Kind::from(protocol);
        let is_protected = place.sets.is_protected();
        let at = self.out.tally(place, kind, port);
        let say = self.names_say(at, place, kind, port, names);
        let default = if is_protected { Action::Deny } else { self.default };
        let is_verified = protocol == Protocol::Tcp && (port == HTTP || port == HTTPS);
        let (action, said) = match (is_verified, say.best) {
            (true, Some(best)) => best,
            (true, None) | (false, _) => {
                let said = both(at.said, say.deny.or(say.ask).or(say.allow));
                (said.map_or(default, |said| said.action), said)
            }
        };
        let (cause, verify) = match action {
            Action::Allow => {
                let verify = if protocol == Protocol::Tcp {
                    self.verification(at, &say, port, is_watched)
                } else {
                    Verification::None
                };
                (if said.is_some() { Cause::Rule } else { Cause::Default }, verify)
            }
            Action::Ask if said.is_none() => (Cause::Default, Verification::None),
            Action::Ask => (Cause::Rule, Verification::None),
            Action::Deny if said.is_some() => (Cause::Rule, Verification::None),
            Action::Deny => (self.why_undecided(at, &say, place, kind, port), Verification::None),
        };
        Outcome { action, cause, said, verify, is_protected }
    }

    fn names_say(
        &self,
        at: Tally,
        place: &Place<'_>,
        kind: Kind,
        port: u16,
        names: impl Iterator<Item = NameClass>,
    ) -> NamesSay {
        let mut say = NamesSay {
            deny: None,
            ask: None,
            allow: None,
            best: None,
            opens_port: false,
            opens_protocol: false,
        };
        if place.fitness == Fitness::Never {
            return say;
        }
        for class in names {
            let name = self.names.tally(class, kind, port, place.fitness == Fitness::Private);
            say.opens_port |= name.opens_port;
            say.opens_protocol |= name.opens_protocol;
            match name.said.map(|said| said.action) {
                Some(Action::Deny) => say.deny = both(say.deny, name.said),
                Some(Action::Ask) => say.ask = both(say.ask, name.said),
                Some(Action::Allow) => say.allow = both(say.allow, name.said),
                None => {}
            }
            let said = both(at.said, name.said);
            let action = said.map_or(self.default, |said| said.action);
            if say.best.is_none_or(|(best, by)| (action, said.is_none()) < (best, by.is_none())) {
                say.best = Some((action, said));
            }
        }
        say
    }

    /// What is looked at in the first bytes of a TCP flow that is allowed.
    fn verification(&self, at: Tally, say: &NamesSay, port: u16, is_watched: bool) -> Verification {
        let allows = |said: Option<Said>| said.is_some_and(|said| said.action == Action::Allow);
        let is_off = |said: Option<Said>| said.is_some_and(|said| said.verify == Verify::Off);
        let has_others = say.deny.is_some() || say.ask.is_some();
        let is_off = (is_off(at.said) || is_off(say.allow)) && !has_others;
        let is_by_address = allows(at.said) || (at.said.is_none() && self.default == Action::Allow);
        match port {
            _ if is_off => Verification::None,
            HTTP | HTTPS if is_by_address && (self.names.restrict() || is_watched) => {
                Verification::SniffDenied
            }
            _ if is_by_address => Verification::None,
            HTTPS => Verification::Tls,
            HTTP => Verification::Http,
            _ => Verification::Sniff,
        }
    }

    /// Why a flow is refused that no rule decides.
    fn why_undecided(
        &self,
        at: Tally,
        say: &NamesSay,
        place: &Place<'_>,
        kind: Kind,
        port: u16,
    ) -> Cause {
        let is_private = place.fitness == Fitness::Private;
        if at.opens_port || say.opens_port {
            Cause::Port
        } else if at.opens_protocol || say.opens_protocol {
            Cause::Protocol
        } else if place.sets.is_protected() {
            Cause::Protected
        } else if place.fitness != Fitness::Never && self.names.open_some(kind, port, is_private) {
            Cause::NoName
        } else {
            Cause::Default
        }
    }

    /// Judges the lookup of a name of a class: the most lenient that it comes to on any port, and
    /// the rule that says so.
    pub(super) fn lookup(&self, class: NameClass) -> (Action, Option<Said>) {
        let rules = || self.names.about(class).chain([self.out.any()]);
        let of_lookups = rules().fold(None, |said, access| both(said, access.lookup()));
        if of_lookups.is_some_and(|said| said.action != Action::Allow) {
            return (Action::Deny, of_lookups);
        }
        let internet = self.out.set(AddressSet::Internet);
        let said_at = |kind, port| {
            let said = rules().fold(None, |said, access| both(said, access.at(kind, port, false)));
            let outside = internet.at(kind, port, false);
            // The name's address may be one that is not on the Internet.
            both(said, outside.filter(|said| said.action != Action::Deny))
        };
        let best = self.best(|| rules().chain([internet]), said_at);
        let is_undecided = best.1.is_none() && best.0 != Action::Allow;
        match of_lookups {
            // One more deny, of the ports that are asked about, must not open the lookup.
            Some(_) if is_undecided && rules().chain([internet]).any(Access::asks) => {
                (Action::Ask, of_lookups)
            }
            Some(_) if is_undecided => (Action::Allow, of_lookups),
            Some(_) | None => best,
        }
    }

    /// Whether something of an address may be reached, by its own rules or those of its names,
    /// without asking anybody.
    pub(super) fn is_reachable(
        &self,
        place: &Place<'_>,
        names: impl Iterator<Item = NameClass>,
    ) -> bool {
        let mut rules = Vec::new();
        self.out.matching(place, |access, may_open| {
            rules.push((access, false, may_open));
        });
        if place.fitness != Fitness::Never {
            let is_private = place.fitness == Fitness::Private;
            let names = names.flat_map(|class| self.names.about(class));
            rules.extend(names.map(|access| (access, is_private, true)));
        }
        let said_at = |kind, port| {
            let said = rules.iter().map(|&(access, is_private, may_open)| {
                let said = access.at(kind, port, is_private);
                said.filter(|said| may_open || said.action == Action::Deny)
            });
            said.fold(None, both)
        };
        let (action, said) = self.best(|| rules.iter().map(|&(access, ..)| access), said_at);
        action == Action::Allow && (said.is_some() || !place.sets.is_protected())
    }

    /// The most lenient that `rules` come to on any port. A rule that asks counts before a default
    /// that asks, and a default that denies before a rule that denies: it leaves more open.
    fn best<'a, I: Iterator<Item = &'a Access>>(
        &self,
        rules: impl Fn() -> I,
        said_at: impl Fn(Kind, u16) -> Option<Said>,
    ) -> (Action, Option<Said>) {
        let leniency = |&(action, said): &(Action, Option<Said>)| {
            (action, said.is_some() == (action == Action::Deny))
        };
        let mut best = None;
        for kind in [Kind::Tcp, Kind::Udp, Kind::Echo] {
            // The usual port first: most names are allowed there, and the search ends.
            let turns = rules().flat_map(|access| access.turns(kind));
            for port in [HTTPS, 1].into_iter().chain(turns) {
                let said = said_at(kind, port.max(1));
                let found = (said.map_or(self.default, |said| said.action), said);
                if found.0 == Action::Allow {
                    return found;
                }
                if best.is_none_or(|best| leniency(&found) < leniency(&best)) {
                    best = Some(found);
                }
            }
        }
        best.unwrap_or((self.default, None))
    }
}
