//! The verdicts about one guest.
//!
//! Owns the policy in force for a guest, its bindings, the host's addresses, and what becomes of an
//! [`Outcome`]: audit mode, and queries to other name servers. The order of evaluation is in
//! [`evaluation`](super::evaluation). Asked by the stack for each new flow, each datagram, each
//! lookup, each answer and each name in first bytes.

use core::net::{IpAddr, SocketAddr};

use super::bindings::{Bindings, LearnedName};
use super::decisions::Decisions;
use super::distinct::Distinct;
use super::evaluation::Outcome;
use super::name::Name;
use super::placeholders::Placeholders;
use super::policy::EgressPolicy;
use super::ports::{Kind, Said};
use super::questions::Questions;
use super::rule::{Action, Mode, NamePattern, Prefix, RuleDestination, Source};
use super::sets::Place;
use super::sets::{Fitness, Sets, embedded};
use super::verdict::{Cause, FlowVerdict, Judged, NameVerdict, Verification};
use super::verifier::Denial;
use crate::nat::DNS_PORT;
use crate::protocol::Protocol;
use crate::time::Instant;

/// What a judge has to know besides the policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JudgeConfig {
    /// Whether the guest has a DNS service, to which queries to other servers can be led.
    pub(crate) has_resolver: bool,
    /// The guest's IPv4 and IPv6 address for the host's loopback. A rule for one of them is one for
    /// `host-loopback`.
    pub(crate) gateways: [Option<IpAddr>; 2],
    /// Bindings that the guest may have at a time.
    pub(crate) bindings_cap: usize,
    /// Names that may have a placeholder at a time.
    pub(crate) placeholders_cap: usize,
    /// The guest's network, and other addresses that mean something to it: no placeholder is one
    /// of them.
    pub(crate) taken: Vec<Prefix>,
    /// Seeds the hashes of names and addresses.
    pub(crate) seed: u64,
}

impl Default for JudgeConfig {
    /// A guest of its own: 16,384 bindings, at about 430 bytes each if each has another name and
    /// another address (measured: 4.6 MiB for 10,000 of them and 1,000 rules). 4,096 placeholders,
    /// at about 250 bytes each.
    fn default() -> Self {
        Self {
            has_resolver: true,
            gateways: [None; 2],
            bindings_cap: 16_384,
            placeholders_cap: 4096,
            taken: Vec::new(),
            seed: 0,
        }
    }
}

/// A guest has looked up many names that one rule allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ManyNames {
    /// The rule, and the names that it matches.
    pub(crate) rule: Source,
    pub(crate) pattern: NamePattern,
    /// How many, about.
    pub(crate) count: u32,
}

/// The verdicts about one guest.
#[derive(Debug)]
pub struct Judge {
    policy: EgressPolicy,
    config: JudgeConfig,
    pub(super) bindings: Bindings,
    distinct: Distinct,
    pub(super) placeholders: Placeholders,
    pub(super) questions: Questions,
    pub(super) decisions: Decisions,
    /// In order.
    host_addresses: Vec<IpAddr>,
    /// Counts the changes of all but the bindings.
    revision: u64,
}

impl Judge {
    /// A judge by `policy`, of a guest that has learned no name so far.
    pub fn new(policy: EgressPolicy, config: JudgeConfig) -> Self {
        let bindings = Bindings::new(config.bindings_cap, config.seed);
        Self {
            placeholders: placeholders(&policy, &config),
            policy,
            distinct: Distinct::new(config.seed),
            config,
            bindings,
            questions: Questions::default(),
            decisions: Decisions::default(),
            host_addresses: Vec::new(),
            revision: 0,
        }
    }

    /// The policy in force.
    pub(crate) fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// Changes whenever an earlier [`FlowVerdict`] may no longer hold: with the policy, the host's
    /// addresses, and when a binding or a decision comes or goes.
    pub(crate) const fn revision(&self) -> u64 {
        self.revision.wrapping_add(self.bindings.revision()).wrapping_add(self.decisions.revision())
    }

    /// Judges a packet that opens a flow, or any datagram. `written` is the destination as the
    /// guest wrote it, `reached` what the address plan made of it. An echo's port is not looked at.
    pub fn on_flow(
        &self,
        protocol: Protocol,
        written: SocketAddr,
        reached: SocketAddr,
        now: Instant,
    ) -> Judged {
        if let Some(judged) = self.on_placeholder(protocol, reached, now) {
            return judged;
        }
        let outcome = self.outcome(protocol, written.ip(), reached, now);
        let Outcome { action, cause, said, .. } = outcome;
        let verdict = match action {
            Action::Allow => FlowVerdict::Pass { verify: outcome.verify },
            Action::Ask | Action::Deny if self.leads_to_resolver(protocol, reached, outcome) => {
                FlowVerdict::Resolver
            }
            Action::Ask | Action::Deny if self.is_audit() && !outcome.is_protected => {
                // First bytes are looked at all the same, so that their name can be told.
                let is_tcp = protocol == Protocol::Tcp;
                let verify = if is_tcp { Verification::Sniff } else { Verification::None };
                FlowVerdict::Pass { verify }
            }
            Action::Ask if protocol != Protocol::Echo => FlowVerdict::Hold,
            // An echo is never asked about.
            Action::Ask => FlowVerdict::Refuse(Cause::Protocol),
            Action::Deny => FlowVerdict::Refuse(cause),
        };
        Judged { verdict, action, cause, rule: said.map(|said| said.rule) }
    }

    /// Whether a refused flow is a query to another name server about which no rule says anything.
    fn leads_to_resolver(&self, protocol: Protocol, reached: SocketAddr, outcome: Outcome) -> bool {
        reached.port() == DNS_PORT
            && protocol != Protocol::Echo
            && outcome.said.is_none()
            && self.config.has_resolver
            && self.policy.compiled().default != Action::Allow
            && self.policy.settings().dns_redirect != Some(false)
            && self.sets(reached.ip()).is_unicast()
    }

    /// The guest has other addresses for the host's loopback.
    pub(crate) const fn set_gateways(&mut self, gateways: [Option<IpAddr>; 2]) {
        self.config.gateways = gateways;
    }

    /// What the rules make of a flow: of its destination and of what the destination embeds; where
    /// they ask, what was decided.
    pub(super) fn outcome(
        &self,
        protocol: Protocol,
        written: IpAddr,
        reached: SocketAddr,
        now: Instant,
    ) -> Outcome {
        let port = if protocol == Protocol::Echo { 0 } else { reached.port() };
        let compiled = self.policy.compiled();
        let names = self.bindings.classes(reached.ip(), now);
        let fitness = self.fitness(reached.ip());
        let [ipv4, ipv6] = self.config.gateways.map(|gateway| gateway.unwrap_or(written));
        let spellings = [written, ipv4, ipv6];
        // First bytes are looked at on these ports alone.
        let is_watched =
            protocol == Protocol::Tcp && matches!(port, 80 | 443) && self.decisions.deny_names(now);
        let judge = |address| {
            let place = self.place(address, fitness, &spellings);
            compiled.flow(protocol, &place, port, names.clone(), is_watched)
        };
        let outcome = embedded(reached.ip())
            .into_iter()
            .flatten()
            .fold(judge(reached.ip()), |outcome, inner| outcome.stricter(judge(inner.into())));
        let is_unexplained = matches!(outcome.cause, Cause::Default | Cause::NoName);
        if is_unexplained && outcome.action == Action::Deny && self.bindings.is_unfit(reached.ip())
        {
            return Outcome { cause: Cause::Rebinding, ..outcome };
        }
        if outcome.action == Action::Ask && !self.decisions.is_empty() {
            return self.decided(protocol, reached, outcome, now);
        }
        outcome
    }

    /// `spellings` are other addresses of the host's loopback, if this is one.
    pub(super) fn place<'a>(
        &self,
        address: IpAddr,
        fitness: Fitness,
        spellings: &'a [IpAddr],
    ) -> Place<'a> {
        let sets = self.sets(address);
        let spellings = if sets.is_host_loopback() { spellings } else { &[] };
        Place { address: Some(address), sets, spellings, fitness }
    }

    pub(super) fn sets(&self, address: IpAddr) -> Sets {
        Sets::of(address, self.host_addresses.binary_search(&address).is_ok())
    }

    /// What kind of an answer an address is, with what it embeds.
    pub(super) fn fitness(&self, address: IpAddr) -> Fitness {
        let placeholders = self.placeholders.network();
        let of = |address| Fitness::of(address, self.sets(address), placeholders);
        let embedded = embedded(address).into_iter().flatten().map(|inner| of(inner.into()));
        embedded.fold(of(address), Fitness::max)
    }

    /// Whether what is refused passes nevertheless, all but the protected sets.
    pub(crate) fn is_audit(&self) -> bool {
        self.policy.settings().mode == Some(Mode::Audit)
    }

    /// Judges a remote that opens a flow through the published `host_port`.
    pub(crate) fn on_inbound(
        &self,
        protocol: Protocol,
        client: SocketAddr,
        host_port: u16,
    ) -> Judged {
        let (action, cause, said) = self.inbound(protocol, client.ip(), host_port);
        let is_let_in = action == Action::Allow || self.is_audit();
        let verdict = if is_let_in {
            FlowVerdict::Pass { verify: Verification::None }
        } else {
            FlowVerdict::Refuse(cause)
        };
        Judged { verdict, action, cause, rule: said.map(|said| said.rule) }
    }

    /// What the rules make of a client.
    pub(super) fn inbound(
        &self,
        protocol: Protocol,
        client: IpAddr,
        host_port: u16,
    ) -> (Action, Cause, Option<Said>) {
        let compiled = self.policy.compiled();
        let place = self.place(client.to_canonical(), Fitness::Never, &[]);
        let at = compiled.inbound.tally(&place, Kind::from(protocol), host_port);
        let action = at.said.map_or(compiled.inbound_default, |said| said.action);
        let cause = match (action, at.said) {
            (Action::Ask, _) => Cause::NoApprover,
            (_, Some(_)) => Cause::Rule,
            (Action::Deny, None) if at.opens_port => Cause::Port,
            (Action::Deny, None) if at.opens_protocol => Cause::Protocol,
            (Action::Allow | Action::Deny, None) => Cause::Default,
        };
        (action, cause, at.said)
    }

    /// Judges a lookup.
    pub(crate) fn on_lookup(&self, name: &Name, now: Instant) -> NameVerdict {
        let compiled = self.policy.compiled();
        let (action, said) = compiled.lookup(compiled.names.class(name));
        match action {
            Action::Allow => NameVerdict::Ask,
            Action::Ask | Action::Deny if self.is_audit() => NameVerdict::Ask,
            Action::Ask if self.is_lookup_decided(name, now) => NameVerdict::Ask,
            Action::Ask => NameVerdict::Placeholder,
            Action::Deny if compiled.names.is_parent(name) => NameVerdict::NoData,
            Action::Deny => NameVerdict::Refuse { note: self.note(said) },
        }
    }

    /// What the rules say of a lookup that is let pass in audit mode alone.
    pub(crate) fn would_say(&self, name: &Name) -> Option<Action> {
        let compiled = self.policy.compiled();
        let (action, _) = compiled.lookup(compiled.names.class(name));
        (self.is_audit() && action != Action::Allow).then_some(action)
    }

    /// A name was looked up, and was let pass. Returns the rule that allows it if it is one of
    /// many names under a wildcard: once an hour.
    pub(crate) fn note_lookup(&mut self, name: &Name, now: Instant) -> Option<ManyNames> {
        let compiled = self.policy.compiled();
        let (_, said) = compiled.lookup(compiled.names.class(name));
        let number = said?.rule;
        let rule = self.policy.rules().get(usize::try_from(number).ok()?)?;
        let RuleDestination::Name(pattern) = &rule.destination else { return None };
        match pattern {
            NamePattern::Exact(_) => None,
            NamePattern::Below(_) | NamePattern::Tree(_) => {
                let count = self.distinct.note(number, name, now)?;
                Some(ManyNames { rule: rule.source.clone(), pattern: pattern.clone(), count })
            }
        }
    }

    /// The most different names that were looked up under one wildcard within the hour.
    pub(crate) fn most_names(&self) -> u32 {
        self.distinct.most()
    }

    fn note(&self, said: Option<Said>) -> Option<std::sync::Arc<str>> {
        let number = usize::try_from(said?.rule).ok()?;
        self.policy.rules().get(number)?.note.clone()
    }

    /// Whether the address of a reverse lookup is one that the guest may reach now.
    pub(crate) fn is_reachable(&self, address: IpAddr, now: Instant) -> bool {
        let compiled = self.policy.compiled();
        let fitness = self.fitness(address);
        let names = || self.bindings.classes(address, now);
        let is_reachable = |address| {
            let place = self.place(address, fitness, &[]);
            let is_allowed = compiled.is_reachable(&place, names());
            is_allowed || (self.is_audit() && !place.sets.is_protected())
        };
        let mut embedded = embedded(address).into_iter().flatten();
        is_reachable(address) && embedded.all(|inner| is_reachable(inner.into()))
    }

    /// The answer to an allowed lookup of `name`: the names of its chain of aliases and the
    /// addresses at the end, with their time to live in seconds. Returns whether the guest may have
    /// the answer: not if an alias is denied.
    pub fn on_answer(
        &mut self,
        name: &Name,
        aliases: &[Name],
        addresses: &[(IpAddr, u32)],
        now: Instant,
    ) -> bool {
        // The policy may have changed since the query.
        if self.on_lookup(name, now) != NameVerdict::Ask
            || (!self.is_audit() && aliases.iter().any(|alias| self.is_denied(alias)))
        {
            return false;
        }
        self.bind_fit(name, addresses, now);
        true
    }

    /// Binds those of `addresses` to a name that count for it, and returns those that it may have.
    pub(super) fn bind_fit(
        &mut self,
        name: &Name,
        addresses: &[(IpAddr, u32)],
        now: Instant,
    ) -> Vec<(IpAddr, u32)> {
        let names = &self.policy.compiled().names;
        let class = names.class(name);
        let admits_private = names.admits_private(class);
        // What is denied of a name is denied at its private addresses too.
        let counts_at_private = names.count_at_private(class);
        let (mut fit, mut bound) = (Vec::new(), Vec::new());
        for &(address, ttl) in addresses {
            let (opens, counts) = match self.fitness(address) {
                Fitness::Public => (true, true),
                Fitness::Private => (admits_private, counts_at_private),
                Fitness::Never => (false, false),
            };
            if opens {
                fit.push((address, ttl));
            } else {
                self.bindings.note_unfit(address);
            }
            if counts {
                bound.push((address, ttl));
            }
        }
        self.bindings.bind(name, class, bound.into_iter(), now);
        fit
    }

    /// Judges the name in the first bytes of a flow to `reached` that [`on_flow`](Self::on_flow)
    /// has let pass, or that they have none. Returns the number of the rule that decides, if one
    /// does.
    ///
    /// # Errors
    /// Why it may not go on, with the note of the rule that denies the name. In audit mode it goes
    /// on all the same.
    pub(crate) fn on_claim(
        &self,
        claim: Option<&Name>,
        reached: SocketAddr,
        now: Instant,
    ) -> Result<Option<u32>, Denial> {
        let outcome = self.outcome(Protocol::Tcp, reached.ip(), reached, now);
        if outcome.action != Action::Allow {
            return Err(Denial { rule: rule_of(outcome.said), ..Denial::from(outcome.cause) });
        }
        let needs_name = match outcome.verify {
            Verification::None => return Ok(rule_of(outcome.said)),
            Verification::SniffDenied => false,
            Verification::Tls | Verification::Http | Verification::Sniff => true,
        };
        let Some(claim) = claim else {
            let passed = Ok(rule_of(outcome.said));
            return if needs_name { Err(Cause::Name.into()) } else { passed };
        };
        let names = &self.policy.compiled().names;
        let is_private = self.fitness(reached.ip()) == Fitness::Private;
        let said = names.tally(names.class(claim), Kind::Tcp, reached.port(), is_private).said;
        let is_asked = said.map_or(self.policy.default_action(), |said| said.action) == Action::Ask;
        let is_allowed = match (said, self.decided_claim(claim, reached.port(), now)) {
            // What a person says counts where no rule allows or denies the name.
            (None, Some(Action::Deny)) => false,
            (None | Some(Said { action: Action::Ask, .. }), Some(Action::Allow)) if is_asked => {
                true
            }
            (Some(said), _) => said.action == Action::Allow,
            (None, _) => !needs_name,
        };
        if is_allowed {
            Ok(rule_of(said.or(outcome.said)))
        } else {
            Err(Denial { cause: Cause::Name, note: self.note(said), rule: rule_of(said) })
        }
    }

    /// A flow to `reached` that [`on_flow`](Self::on_flow) has let pass was opened: its binding
    /// stays for as long as it is open.
    pub(crate) fn on_opened(&mut self, reached: SocketAddr, _now: Instant) {
        self.bindings.open(reached.ip());
    }

    /// Such a flow is over.
    pub(crate) fn on_closed(&mut self, reached: SocketAddr, now: Instant) {
        self.bindings.close(reached.ip(), now);
    }

    /// The names that the guest has learned for an address.
    pub(crate) fn names(&self, address: IpAddr) -> impl Iterator<Item = &Name> {
        self.bindings.names(address)
    }

    /// The names that the guest has learned, in `count` slots from slot `first` on, and the slot to
    /// go on from; `None` at the end.
    pub(crate) fn learned(
        &self,
        first: u32,
        count: u32,
        now: Instant,
    ) -> (Vec<LearnedName>, Option<u32>) {
        let [first, count] = [first, count].map(|slot| usize::try_from(slot).unwrap_or(usize::MAX));
        let compiled = self.policy.compiled();
        let (rows, next) = self.bindings.in_slots(first, count, now);
        let rows = rows.map(|(row, class)| {
            let (action, said) = compiled.lookup(class);
            LearnedName { action, rule: self.policy.source(said), ..row }
        });
        (rows.collect(), next.and_then(|next| u32::try_from(next).ok()))
    }

    /// What the rules make of a flow at this moment, by which cause and rule.
    pub(crate) fn opinion(
        &self,
        protocol: Protocol,
        written: SocketAddr,
        reached: SocketAddr,
        now: Instant,
    ) -> (Action, Cause, Option<Source>) {
        let Judged { action, cause, rule, .. } = self.on_flow(protocol, written, reached, now);
        let rule = rule.and_then(|number| self.policy.rules().get(usize::try_from(number).ok()?));
        (action, cause, rule.map(|rule| rule.source.clone()))
    }

    /// What the rules make of a client of the published `host_port` at this moment.
    pub(crate) fn opinion_of_client(
        &self,
        protocol: Protocol,
        client: IpAddr,
        host_port: u16,
    ) -> (Action, Cause, Option<Source>) {
        let (action, cause, said) = self.inbound(protocol, client, host_port);
        (action, cause, self.policy.source(said))
    }

    /// How many addresses of names the guest has learned.
    pub(crate) fn bindings_len(&self) -> usize {
        self.bindings.len()
    }

    /// How many names these are.
    pub(crate) fn names_len(&self) -> usize {
        self.bindings.names_len()
    }

    /// How many addresses were forgotten to make room for others.
    pub(crate) const fn bindings_evicted(&self) -> u64 {
        self.bindings.evicted()
    }

    /// The guest may have so many from now on; those that it has stay.
    pub(crate) const fn set_bindings_cap(&mut self, cap: usize) {
        self.bindings.set_cap(cap);
    }

    /// Forgets the `count` bindings that end first, in use or not.
    pub(crate) fn give_up(&mut self, count: usize) {
        self.bindings.give_up(count);
    }

    /// Another policy is in force from now on.
    pub(crate) fn set_policy(&mut self, policy: EgressPolicy, _now: Instant) {
        let placeholders = placeholders(&policy, &self.config);
        if placeholders.network() != self.placeholders.network() {
            self.placeholders = placeholders;
        }
        // Other addresses may be fit now.
        self.placeholders.forget_found();
        self.distinct.clear();
        self.bindings.classify(|name| policy.compiled().names.class(name));
        self.policy = policy;
        self.revision += 1;
    }

    /// The addresses of the host's interfaces have changed.
    pub(crate) fn set_host_addresses(&mut self, addresses: &[IpAddr]) {
        self.host_addresses = addresses.to_vec();
        self.host_addresses.sort_unstable();
        self.host_addresses.dedup();
        self.revision += 1;
    }

    /// When [`handle_timeout`](Self::handle_timeout) or [`take_expired`](Self::take_expired) is
    /// due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ends = [
            self.bindings.poll_timeout(),
            self.decisions.poll_timeout(),
            self.questions.poll_timeout(),
        ];
        ends.into_iter().flatten().min()
    }

    /// Drops bindings and decisions whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.bindings.handle_timeout(now);
        self.decisions.handle_timeout(now);
    }
}

fn rule_of(said: Option<Said>) -> Option<u32> {
    said.map(|said| said.rule)
}

fn placeholders(policy: &EgressPolicy, config: &JudgeConfig) -> Placeholders {
    let JudgeConfig { taken, placeholders_cap, seed, .. } = config;
    Placeholders::beside(taken, policy.settings().placeholder, *placeholders_cap, *seed)
}
