//! What becomes of flows that the rules ask about.
//!
//! Owns which question a flow belongs to, what its [`Decisions`](super::decisions) make of it, and
//! the verdict about a flow to a placeholder, whose name alone is known. The flows themselves are
//! held by the stack.
//!
//! # What is asked about
//!
//! A flow to a placeholder is about the placeholder's name. A flow to an address is about the name
//! that the address is bound to, if that is a single one, else about the address.
//!
//! A flow to a placeholder that may go on is looked up by the stack, and each address that is found
//! has to pass [`leads_to`](Judge::leads_to), see [`ways`](super::ways).

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::approval::{DecideError, Decision, QuestionId, Subject};
use super::decisions::{Covered, Key};
use super::evaluation::Outcome;
use super::judge::Judge;
use super::name::Name;
use super::ports::{Kind, Said, both};
use super::questions::{ASK_TIMEOUT, Question};
use super::rule::{
    Action, AddressSet, Direction, EgressRule, NamePattern, PortRange, Prefix, RuleDestination,
    RuleProtocol, Source, Verify,
};
use super::sets::{Fitness, embedded};
use super::verdict::{Cause, FlowVerdict, Judged, Verification};
use crate::event::FlowId;
use crate::protocol::Protocol;
use crate::time::Instant;

/// Addresses of one name that are tried at most.
const TRIED_CAP: usize = 4;
/// How long the addresses of an allowed name are believed: its time to live within these bounds
/// (arbitrary; programs that open several connections at once share a lookup).
const FOUND_FOR: (u32, u32) = (5, 300);

/// What an own lookup of an allowed name has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// These addresses, in the order in which they are to be tried.
    Addresses(Vec<IpAddr>),
    /// Nothing that the name may have: [`Cause::Rule`] if it leads through a name that is denied,
    /// [`Cause::Rebinding`] if all its addresses are unfit.
    Refused(Cause),
    /// The name has no addresses, or no resolver answered.
    Nothing,
}

impl Judge {
    /// What the decisions make of a flow about which the rules ask.
    pub(super) fn decided(
        &self,
        protocol: Protocol,
        reached: SocketAddr,
        outcome: Outcome,
        now: Instant,
    ) -> Outcome {
        let (address, port) = (reached.ip(), reached.port());
        let names = &self.policy().compiled().names;
        if let Some(action) = self.decisions.about_address(address, port, protocol, now) {
            let is_sniffed = protocol == Protocol::Tcp && matches!(port, 80 | 443);
            let is_sniffed = is_sniffed && (names.restrict() || self.decisions.deny_names(now));
            let verify = match outcome.said.map(|said| said.verify) {
                Some(Verify::Auto) | None if is_sniffed => Verification::SniffDenied,
                Some(Verify::Auto | Verify::Off) | None => Verification::None,
            };
            return Outcome { action, cause: Cause::Decision, verify, ..outcome };
        }
        // What an address embeds has rules of its own, about which no name says anything.
        if embedded(address).iter().any(Option::is_some) {
            return outcome;
        }
        let place = self.place(address, self.fitness(address), &[]);
        if place.fitness == Fitness::Never {
            return outcome;
        }
        let kind = Kind::from(protocol);
        let compiled = self.policy().compiled();
        let at = compiled.out.tally(&place, kind, port).said;
        let is_private = place.fitness == Fitness::Private;
        let (mut allowed, mut denied, mut open) = (0, 0, 0);
        // Whether the first bytes need not say which of the names is meant.
        let mut is_off = true;
        for (class, name) in self.bindings.live(address, now) {
            // A yes about a name opens no private address that the name may not have.
            if is_private && !names.admits_private(class) {
                continue;
            }
            let said = both(at, names.tally(class, kind, port, is_private).said);
            is_off &= said.is_some_and(|said| said.verify == Verify::Off);
            if said.map_or(compiled.default, |said| said.action) != Action::Ask {
                continue;
            }
            match self.decisions.about_name(name, port, protocol, now) {
                Some(Action::Allow) => allowed += 1,
                Some(Action::Deny) => denied += 1,
                Some(Action::Ask) | None => open += 1,
            }
        }
        let is_verified = protocol == Protocol::Tcp && matches!(port, 80 | 443);
        let action = match (allowed, denied, open) {
            // The first bytes decide which of the names is meant.
            (1.., _, _) if is_verified => Action::Allow,
            (_, 1.., _) if !is_verified => Action::Deny,
            (1.., 0, 0) => Action::Allow,
            (0, 1.., 0) => Action::Deny,
            _ => return outcome,
        };
        let is_off = is_off && denied == 0 && open == 0;
        let verify = if is_off { Verify::Off } else { Verify::Auto };
        let verify = verification(protocol, port, verify);
        Outcome { action, cause: Cause::Decision, verify, ..outcome }
    }

    /// The verdict about a flow to `reached`, if that is a placeholder or could be one.
    pub(super) fn on_placeholder(
        &self,
        protocol: Protocol,
        reached: SocketAddr,
        now: Instant,
    ) -> Option<Judged> {
        if !self.placeholders.may_be(reached.ip()) {
            return None;
        }
        let Some(name) = self.placeholders.name(reached.ip()) else {
            if !self.policy().asks() {
                return None;
            }
            let (action, cause, rule) = (Action::Deny, Cause::NoName, None);
            return Some(Judged { verdict: FlowVerdict::Refuse(cause), action, cause, rule });
        };
        let (action, cause, said) = self.named(name, protocol, reached.port(), now);
        let verdict = match action {
            Action::Deny if !self.is_audit() => FlowVerdict::Refuse(cause),
            // An echo is never asked about.
            Action::Allow | Action::Ask | Action::Deny if protocol == Protocol::Echo => {
                FlowVerdict::Refuse(Cause::Protocol)
            }
            Action::Ask if !self.is_audit() => FlowVerdict::Hold,
            Action::Allow | Action::Ask | Action::Deny => {
                FlowVerdict::Named { verify: self.named_verify(protocol, reached, said) }
            }
        };
        Some(Judged { verdict, action, cause, rule: said.map(|said| said.rule) })
    }

    fn named_verify(
        &self,
        protocol: Protocol,
        reached: SocketAddr,
        said: Option<Said>,
    ) -> Verification {
        if self.is_audit() && protocol == Protocol::Tcp {
            // Looked at all the same, so that the name can be told.
            return Verification::Sniff;
        }
        verification(protocol, reached.port(), said.map_or(Verify::Auto, |said| said.verify))
    }

    /// What the rules and the decisions say about a name whose address nobody knows.
    fn named(
        &self,
        name: &Name,
        protocol: Protocol,
        port: u16,
        now: Instant,
    ) -> (Action, Cause, Option<Said>) {
        let (action, said) = self.rules_say(name, protocol, port);
        if action == Action::Ask
            && let Some(action) = self.decisions.about_name(name, port, protocol, now)
        {
            return (action, Cause::Decision, said);
        }
        (action, if said.is_some() { Cause::Rule } else { Cause::Default }, said)
    }

    /// What the rules alone say about such a name.
    pub(super) fn rules_say(
        &self,
        name: &Name,
        protocol: Protocol,
        port: u16,
    ) -> (Action, Option<Said>) {
        let compiled = self.policy().compiled();
        let kind = Kind::from(protocol);
        let port = if protocol == Protocol::Echo { 0 } else { port };
        let said = compiled.names.tally(compiled.names.class(name), kind, port, false).said;
        let said = both(said, compiled.out.any().at(kind, port, false));
        // The name's address may be one that is not on the Internet.
        let outside = compiled.out.set(AddressSet::Internet).at(kind, port, false);
        let said = both(said, outside.filter(|said| said.action != Action::Deny));
        (said.map_or(compiled.default, |said| said.action), said)
    }

    /// The name that a placeholder stands for.
    pub(crate) fn placeholder_name(&self, address: IpAddr) -> Option<&Name> {
        self.placeholders.name(address)
    }

    /// The address that stands for a name. `None` if there is no room for another name.
    pub(crate) fn placeholder(&mut self, name: &Name, now: Instant) -> Option<Ipv4Addr> {
        self.placeholders.address(name, now)
    }

    /// A connection to a placeholder was opened.
    pub(crate) fn open_placeholder(&mut self, address: IpAddr) {
        self.placeholders.open(address);
    }

    /// Such a connection is over.
    pub(crate) fn close_placeholder(&mut self, address: IpAddr, now: Instant) {
        self.placeholders.close(address, now);
    }

    /// A datagram goes to a placeholder.
    pub(crate) fn note_datagram(&mut self, address: IpAddr, now: Instant) {
        self.placeholders.note_datagram(address, now);
    }

    /// What an own lookup of `name` has found lately.
    pub(crate) fn found(&self, name: &Name, now: Instant) -> Option<&[IpAddr]> {
        self.placeholders.found(name, now)
    }

    /// The answers to an own lookup of `name`, which somebody has allowed: the names of its chains
    /// of aliases, and the addresses at the end with their time to live in seconds. Binds what is
    /// fit.
    pub(crate) fn on_found(
        &mut self,
        name: &Name,
        aliases: &[Name],
        addresses: &[(IpAddr, u32)],
        now: Instant,
    ) -> Found {
        if !self.is_audit() && aliases.iter().any(|alias| self.is_denied(alias)) {
            return Found::Refused(Cause::Rule);
        }
        let fit = self.bind_fit(name, addresses, now);
        if fit.is_empty() {
            let is_unfit = !addresses.is_empty();
            return if is_unfit { Found::Refused(Cause::Rebinding) } else { Found::Nothing };
        }
        let ttl =
            fit.iter().map(|&(_, ttl)| ttl).min().unwrap_or(0).clamp(FOUND_FOR.0, FOUND_FOR.1);
        let of_family =
            |is_ipv4| fit.iter().map(|&(ip, _)| ip).filter(move |ip| ip.is_ipv4() == is_ipv4);
        let (ipv4, mut ipv6) = (of_family(true), of_family(false));
        // In turns, so that a host without one of the families gets through.
        let mut in_turns: Vec<IpAddr> =
            ipv4.flat_map(|ip| [Some(ip), ipv6.next()]).flatten().collect();
        in_turns.extend(ipv6);
        in_turns.truncate(TRIED_CAP);
        let until = now + Duration::from_secs(ttl.into());
        self.placeholders.note_found(name, in_turns.clone(), until);
        Found::Addresses(in_turns)
    }

    fn subject(&self, reached: IpAddr, now: Instant) -> Subject {
        if let Some(name) = self.placeholder_name(reached) {
            return Subject::Name(name.clone());
        }
        // A name that may not have a private address is not what its address is asked about as.
        let is_private = self.fitness(reached) == Fitness::Private;
        let compiled = &self.policy().compiled().names;
        let live = self.bindings.live(reached, now);
        let mut names = live
            .filter(|&(class, _)| !is_private || compiled.admits_private(class))
            .map(|(_, name)| name);
        match (names.next(), names.next()) {
            (Some(name), None) if embedded(reached) == [None, None] => Subject::Name(name.clone()),
            (Some(_) | None, _) => Subject::Address(reached),
        }
    }

    /// Finds the question of a flow that is to be held, or opens one with the id `next`. `rule` is
    /// the rule that asks.
    ///
    /// # Errors
    /// [`Cause::AskFull`].
    pub(crate) fn ask(
        &mut self,
        guest: IpAddr,
        protocol: Protocol,
        reached: SocketAddr,
        rule: Option<u32>,
        next: QuestionId,
        now: Instant,
    ) -> Result<QuestionId, Cause> {
        let subject = self.subject(reached.ip(), now);
        let key = Key { subject, port: reached.port(), protocol };
        let number = rule.and_then(|rule| usize::try_from(rule).ok());
        let rule = number.and_then(|number| self.policy().rules().get(number));
        let source = rule.map(|rule| rule.source.clone());
        let timeout = self.policy().settings().ask_timeout.unwrap_or(ASK_TIMEOUT);
        let holds = protocol == Protocol::Tcp;
        self.questions.ask(guest, key, source, (next, timeout, holds), now)
    }

    /// A flow waits for a question.
    pub(crate) fn hold(&mut self, question: QuestionId, flow: FlowId) {
        self.questions.hold(question, flow);
    }

    /// A flow waits no more.
    pub(crate) fn let_go(&mut self, flow: FlowId) {
        self.questions.let_go(flow);
    }

    /// The open questions, the oldest first.
    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter()
    }

    /// An open question.
    pub(crate) fn question(&self, id: QuestionId) -> Option<&Question> {
        self.questions.get(id)
    }

    /// Remembers the decision about an open question. Returns the rule that says the same for good,
    /// and all questions that it decides: at least this one.
    ///
    /// # Errors
    /// [`DecideError::Unknown`] and [`DecideError::Unfit`].
    pub(crate) fn decide(
        &mut self,
        id: QuestionId,
        decision: &Decision,
        now: Instant,
    ) -> Result<(EgressRule, Vec<Question>), DecideError> {
        let key = self.questions.get(id).ok_or(DecideError::Unknown)?.key.clone();
        let is_protected = match key.subject {
            Subject::Address(address) => self.sets(address).is_protected(),
            Subject::Name(_) => false,
        };
        // A rule has opened one port of a protected address to questions, not the others.
        if decision.action == Action::Ask || (is_protected && decision.all_ports) {
            return Err(DecideError::Unfit);
        }
        let covered = Covered::new(&key.subject, decision.parent).ok_or(DecideError::Unfit)?;
        let names = &self.policy().compiled().names;
        let admits_private = match &key.subject {
            Subject::Name(name) => names.admits_private(names.class(name)),
            Subject::Address(_) => false,
        };
        let private = decision.action == Action::Allow && admits_private;
        let rule = rule_of(&covered, &key, decision, private);
        self.decisions.add(covered, &key, decision, now);
        let decisions = &self.decisions;
        let decided =
            self.questions.take(|open| open.id == id || decisions.about(&open.key, now).is_some());
        Ok((rule, decided))
    }

    /// Ends questions whose time is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Question> {
        self.questions.take_expired(now)
    }

    /// Ends all questions.
    pub(crate) fn take_questions(&mut self) -> Vec<Question> {
        self.questions.take(|_| true)
    }

    /// Ends the questions that the policy does not ask any more.
    pub(crate) fn take_unasked(&mut self, now: Instant) -> Vec<Question> {
        let mut questions = core::mem::take(&mut self.questions);
        let unasked = questions.take(|question| {
            let Key { subject, port, protocol } = &question.key;
            let action = match subject {
                Subject::Name(name) => self.named(name, *protocol, *port, now).0,
                Subject::Address(address) => {
                    let reached = SocketAddr::new(*address, *port);
                    self.outcome(*protocol, *address, reached, now).action
                }
            };
            self.is_audit() || action != Action::Ask
        });
        self.questions = questions;
        unasked
    }

    /// Whether a lookup of `name`, about which the rules ask, is one as any other.
    pub(super) fn is_lookup_decided(&self, name: &Name, now: Instant) -> bool {
        self.decisions.allow_lookup(name, now)
    }

    /// What somebody has decided about the name in the first bytes.
    pub(super) fn decided_claim(&self, claim: &Name, port: u16, now: Instant) -> Option<Action> {
        self.decisions.about_name(claim, port, Protocol::Tcp, now)
    }

    /// Whether a rule denies a name of a chain of aliases.
    pub(super) fn is_denied(&self, alias: &Name) -> bool {
        let compiled = self.policy().compiled();
        let (action, said) = compiled.lookup(compiled.names.class(alias));
        action == Action::Deny && said.is_some()
    }
}

/// What is looked at in the first bytes of a flow that a name lets through.
const fn verification(protocol: Protocol, port: u16, verify: Verify) -> Verification {
    match (protocol, verify, port) {
        (Protocol::Udp | Protocol::Echo, ..) | (_, Verify::Off, _) => Verification::None,
        (Protocol::Tcp, Verify::Auto, 443) => Verification::Tls,
        (Protocol::Tcp, Verify::Auto, 80) => Verification::Http,
        (Protocol::Tcp, Verify::Auto, _) => Verification::Sniff,
    }
}

/// The rule that says the same as a decision about `key`.
fn rule_of(covered: &Covered, key: &Key, decision: &Decision, private: bool) -> EgressRule {
    let port = PortRange { first: key.port, last: key.port };
    let (destination, ports, is_name) = match covered {
        Covered::Names(pattern) => {
            // No ports are all of a name's: `*`.
            let ports = if decision.all_ports { Vec::new() } else { vec![port] };
            (RuleDestination::Name(pattern.clone()), Some(ports), true)
        }
        Covered::Address(address) => {
            let len = if address.is_ipv4() { 32 } else { 128 };
            let network = Prefix { address: *address, len };
            let ports = (!decision.all_ports).then(|| vec![port]);
            (RuleDestination::Prefix(network), ports, false)
        }
    };
    let protocol = match key.protocol {
        // To allow a name is to allow TCP.
        Protocol::Tcp if is_name && decision.action == Action::Allow => None,
        Protocol::Tcp => Some(RuleProtocol::Tcp),
        Protocol::Udp => Some(RuleProtocol::Udp),
        Protocol::Echo => Some(RuleProtocol::Icmp),
    };
    let wide = matches!(covered, Covered::Names(NamePattern::Tree(zone)) if zone.is_one_label());
    EgressRule {
        action: decision.action,
        direction: Direction::Out,
        protocol,
        destination,
        ports,
        verify: Verify::Auto,
        private,
        wide,
        log: true,
        note: None,
        source: Source::Entry { door: "api", number: 0 },
    }
}
