//! What people have decided about questions.
//!
//! Owns the table of decisions of one guest, and which of them holds for a flow. A decision is only
//! looked for where the rules ask ([`judge`](super::judge)), so that it opens nothing that a rule
//! or the default denies, and no protected address that no rule names. It stays when the policy
//! changes and holds where the new one asks.
//!
//! | scope | an allow holds for | a deny holds for |
//! | --- | --- | --- |
//! | once | [`ONCE_ALLOWED_FOR`] | [`ONCE_DENIED_FOR`] |
//! | for | the given time | the given time |
//! | session | as long as the guest is there | the same |
//!
//! Of several decisions about a flow the latest holds. At [`DECISIONS_CAP`] the oldest is
//! forgotten: the next flow is asked about again.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use super::approval::{Decision, Scope, Subject};
use super::name::Name;
use super::rule::{Action, NamePattern};
use crate::protocol::Protocol;
use crate::time::Instant;

/// Decisions that are remembered for one guest (arbitrary; about 100 bytes each).
const DECISIONS_CAP: usize = 1024;
/// How long equal flows pass after a flow was allowed once: programs retry.
const ONCE_ALLOWED_FOR: Duration = Duration::from_secs(30);
/// How long nobody is asked about equal flows after one was denied by hand, so that a guest cannot
/// tire people out.
const ONCE_DENIED_FOR: Duration = Duration::from_secs(60);

/// What a question is about: flows with the same key share one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) subject: Subject,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

/// The destinations that a decision is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Covered {
    Names(NamePattern),
    Address(IpAddr),
}

impl Covered {
    /// What a decision about `subject` is about; with `parent` it covers the neighbours of a name.
    /// `None` for the parent of an address.
    pub(super) fn new(subject: &Subject, parent: bool) -> Option<Self> {
        match subject {
            _ if parent => subject.parent().map(|zone| Self::Names(NamePattern::Tree(zone))),
            Subject::Name(name) => Some(Self::Names(NamePattern::Exact(name.clone()))),
            Subject::Address(address) => Some(Self::Address(*address)),
        }
    }

    fn contains_name(&self, name: &Name) -> bool {
        match self {
            Self::Names(NamePattern::Exact(own)) => own == name,
            Self::Names(NamePattern::Tree(zone)) => zone == name || is_below(name, zone),
            Self::Names(NamePattern::Below(zone)) => is_below(name, zone),
            Self::Address(_) => false,
        }
    }

    fn contains_address(&self, address: IpAddr) -> bool {
        *self == Self::Address(address)
    }
}

fn is_below(name: &Name, zone: &Name) -> bool {
    let above = name.as_str().strip_suffix(zone.as_str());
    above.is_some_and(|above| above.ends_with('.'))
}

/// One decision.
#[derive(Debug)]
struct Made {
    covered: Covered,
    /// `None` for all ports.
    port: Option<u16>,
    protocol: Protocol,
    action: Action,
    /// `None` for the session.
    until: Option<Instant>,
    /// Whether it outlasts the flows that waited, so that the name is looked up as others are.
    is_lasting: bool,
}

impl Made {
    fn is_live(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn is_about(&self, port: u16, protocol: Protocol, now: Instant) -> bool {
        self.protocol == protocol && self.port.is_none_or(|own| own == port) && self.is_live(now)
    }
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Decisions {
    /// The oldest first.
    made: VecDeque<Made>,
    /// Counts the decisions that have come and gone.
    revision: u64,
}

impl Decisions {
    /// Remembers a decision about a question with the port and protocol of `key`.
    pub(super) fn add(&mut self, covered: Covered, key: &Key, decision: &Decision, now: Instant) {
        let until = match decision.scope {
            Scope::Once if decision.action == Action::Allow => Some(now + ONCE_ALLOWED_FOR),
            Scope::Once => Some(now + ONCE_DENIED_FOR),
            Scope::For(time) => Some(now + time),
            Scope::Session => None,
        };
        if self.made.len() >= DECISIONS_CAP {
            self.made.pop_front();
        }
        self.made.push_back(Made {
            covered,
            port: (!decision.all_ports).then_some(key.port),
            protocol: key.protocol,
            action: decision.action,
            until,
            is_lasting: decision.scope != Scope::Once,
        });
        self.revision += 1;
    }

    /// What was decided about flows to a name.
    pub(super) fn about_name(
        &self,
        name: &Name,
        port: u16,
        protocol: Protocol,
        now: Instant,
    ) -> Option<Action> {
        let mut latest = self.made.iter().rev();
        let found = latest
            .find(|made| made.is_about(port, protocol, now) && made.covered.contains_name(name));
        found.map(|made| made.action)
    }

    /// What was decided about flows to an address.
    pub(super) fn about_address(
        &self,
        address: IpAddr,
        port: u16,
        protocol: Protocol,
        now: Instant,
    ) -> Option<Action> {
        let mut latest = self.made.iter().rev();
        let found = latest.find(|made| {
            made.is_about(port, protocol, now) && made.covered.contains_address(address)
        });
        found.map(|made| made.action)
    }

    /// What was decided about a question.
    pub(super) fn about(&self, key: &Key, now: Instant) -> Option<Action> {
        match &key.subject {
            Subject::Name(name) => self.about_name(name, key.port, key.protocol, now),
            Subject::Address(at) => self.about_address(*at, key.port, key.protocol, now),
        }
    }

    /// Whether a name may be looked up as one is that no rule asks about: a decision that lasts
    /// allows something of it, and no later one denies that.
    pub(super) fn allow_lookup(&self, name: &Name, now: Instant) -> bool {
        let mut denials: Vec<&Made> = Vec::new();
        let latest = self.made.iter().rev();
        let mut about = latest.filter(|made| made.is_live(now) && made.covered.contains_name(name));
        about.any(|made| {
            if made.action != Action::Allow {
                denials.push(made);
                return false;
            }
            let is_overruled = denials.iter().any(|denial| {
                denial.protocol == made.protocol
                    && denial.port.is_none_or(|port| made.port == Some(port))
            });
            made.is_lasting && !is_overruled
        })
    }

    /// Whether some name is denied, so that first bytes have to show that they have another one.
    pub(super) fn deny_names(&self, now: Instant) -> bool {
        self.made.iter().any(|made| {
            let is_named = matches!(made.covered, Covered::Names(_));
            is_named && made.action == Action::Deny && made.is_live(now)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// When the first decision ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.made.iter().filter_map(|made| made.until).min()
    }

    /// Forgets decisions that have ended.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let before = self.made.len();
        self.made.retain(|made| made.is_live(now));
        self.revision += u64::from(self.made.len() < before);
    }

    /// Counts the decisions that have come and gone.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn key(text: &str) -> Key {
        Key { subject: Subject::Name(name(text)), port: 443, protocol: Protocol::Tcp }
    }

    fn decision(action: Action, scope: Scope) -> Decision {
        Decision { action, scope, all_ports: false, parent: false }
    }

    fn add(decisions: &mut Decisions, text: &str, decision: &Decision, now: Instant) {
        let key = key(text);
        let covered = Covered::new(&key.subject, decision.parent).unwrap();
        decisions.add(covered, &key, decision, now);
    }

    #[test]
    fn each_scope_has_its_time() {
        for (action, scope, time) in [
            (Action::Allow, Scope::Once, Some(30)),
            (Action::Deny, Scope::Once, Some(60)),
            (Action::Allow, Scope::For(Duration::from_secs(7)), Some(7)),
            (Action::Deny, Scope::Session, None),
        ] {
            let mut decisions = Decisions::default();
            add(&mut decisions, "a.example", &decision(action, scope), NOW);
            let lasts = Duration::from_secs(time.unwrap_or(1_000_000));
            let (end, last) = (time.map(|_| NOW + lasts), NOW + lasts);
            assert_eq!(decisions.poll_timeout(), end);
            for now in [NOW, NOW + lasts.saturating_sub(Duration::from_micros(1))] {
                assert_eq!(decisions.about(&key("a.example"), now), Some(action), "{scope:?}");
                assert_eq!(decisions.about(&key("b.example"), now), None);
            }
            let revision = decisions.revision();
            decisions.handle_timeout(last);
            assert_eq!(decisions.about(&key("a.example"), last).is_none(), end.is_some());
            assert_eq!(decisions.is_empty(), end.is_some());
            assert_eq!(decisions.revision() > revision, end.is_some());
        }
    }

    #[test]
    fn lookups_are_opened_by_what_lasts() {
        for (action, scope, opens) in [
            (Action::Allow, Scope::Once, false),
            (Action::Allow, Scope::For(Duration::from_secs(7)), true),
            (Action::Allow, Scope::Session, true),
            (Action::Deny, Scope::Session, false),
        ] {
            let mut decisions = Decisions::default();
            add(&mut decisions, "a.example", &decision(action, scope), NOW);
            assert_eq!(decisions.allow_lookup(&name("a.example"), NOW), opens, "{scope:?}");
            assert!(!decisions.allow_lookup(&name("b.example"), NOW));
        }
    }

    #[test]
    fn later_denial_closes_the_lookup_unless_it_leaves_something_open() {
        let (session, once) = (Scope::Session, Scope::Once);
        let allowed = Decision { parent: true, ..decision(Action::Allow, session) };
        let denied = decision(Action::Deny, session);
        let all_ports = |made| Decision { all_ports: true, ..made };
        let brief = decision(Action::Deny, once);
        for (first, second, opens) in [
            (allowed, denied, false),
            (allowed, brief, false),
            (allowed, all_ports(denied), false),
            (allowed, Decision { parent: true, ..denied }, false),
            // Other ports are still allowed.
            (all_ports(allowed), denied, true),
            (all_ports(allowed), all_ports(denied), false),
            (denied, allowed, true),
            (denied, decision(Action::Allow, once), false),
        ] {
            let mut decisions = Decisions::default();
            for made in [first, second] {
                add(&mut decisions, "x.a.example", &made, NOW);
            }
            let found = decisions.allow_lookup(&name("x.a.example"), NOW);
            assert_eq!(found, opens, "{first:?} {second:?}");
            let later = NOW + ONCE_DENIED_FOR;
            let opens_later = opens || second == brief;
            assert_eq!(decisions.allow_lookup(&name("x.a.example"), later), opens_later);
        }
        // A denial about another name or protocol closes nothing.
        let mut decisions = Decisions::default();
        add(&mut decisions, "a.example", &allowed, NOW);
        add(&mut decisions, "b.example", &denied, NOW);
        let udp = Key { protocol: Protocol::Udp, ..key("a.example") };
        decisions.add(Covered::new(&udp.subject, false).unwrap(), &udp, &denied, NOW);
        assert!(decisions.allow_lookup(&name("a.example"), NOW));
    }

    #[test]
    fn decision_is_about_one_port_or_all_of_one_protocol() {
        for all_ports in [false, true] {
            let mut decisions = Decisions::default();
            let made = Decision { all_ports, ..decision(Action::Allow, Scope::Session) };
            add(&mut decisions, "a.example", &made, NOW);
            let about = |port, protocol| {
                decisions.about_name(&name("a.example"), port, protocol, NOW).is_some()
            };
            assert!(about(443, Protocol::Tcp) && !about(443, Protocol::Udp));
            assert_eq!(about(22, Protocol::Tcp), all_ports);
        }
    }

    #[test]
    fn parent_covers_neighbours_unless_anybody_can_be_one() {
        for (asked, covers, not) in [
            ("www.a.example", vec!["a.example", "b.c.a.example"], vec!["example", "ba.example"]),
            ("api.example", vec!["api.example", "x.api.example"], vec!["example", "b.example"]),
            ("mine.co.uk", vec!["mine.co.uk", "x.mine.co.uk"], vec!["co.uk", "other.co.uk"]),
            ("mine.github.io", vec!["x.mine.github.io"], vec!["other.github.io"]),
            ("localhost", vec!["localhost", "a.localhost"], vec!["b"]),
        ] {
            let covered = Covered::new(&Subject::Name(name(asked)), true).unwrap();
            for other in covers.into_iter().chain([asked]) {
                assert!(covered.contains_name(&name(other)), "{asked} covers {other}");
            }
            for other in not {
                assert!(!covered.contains_name(&name(other)), "{asked} does not cover {other}");
            }
        }
        assert_eq!(Covered::new(&Subject::Address([192, 0, 2, 1].into()), true), None);
    }

    #[test]
    fn latest_decision_holds_and_the_oldest_makes_room() {
        let mut decisions = Decisions::default();
        add(&mut decisions, "first.example", &decision(Action::Allow, Scope::Session), NOW);
        add(&mut decisions, "a.example", &decision(Action::Allow, Scope::Session), NOW);
        add(&mut decisions, "a.example", &decision(Action::Deny, Scope::Session), NOW);
        assert_eq!(decisions.about(&key("a.example"), NOW), Some(Action::Deny));
        for number in 0..DECISIONS_CAP - 2 {
            let other = format!("n{number}.example");
            add(&mut decisions, &other, &decision(Action::Allow, Scope::Session), NOW);
        }
        assert_eq!(decisions.made.len(), DECISIONS_CAP);
        assert_eq!(decisions.about(&key("first.example"), NOW), None);
        assert_eq!(decisions.about(&key("a.example"), NOW), Some(Action::Deny));
    }
}
