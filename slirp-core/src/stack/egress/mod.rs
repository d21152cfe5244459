//! The egress policy in force: who is judged by what, and what a refusal looks like.
//!
//! Owns the [`Judge`] of each guest, how many refusals a guest is told of, and what a listener
//! hears of verdicts; in `first_bytes` the look at the names in first bytes, in `changes` the
//! second look at every flow when another policy comes into force, in `room` the memory of all
//! judges, in `counts` what is counted, and in `views` what people see of it. On a shared network
//! each member has a judge of its own, found by the guest's address as its share of every limit is;
//! a member without a policy of its own is judged by the instance's. What the rules mean is left to
//! [`egress`](crate::egress), what the DNS service asks its judge to [`dns`](super::dns).
//!
//! Without a policy there is no [`Egress`], and each packet costs one comparison more.
//!
//! # What is judged
//! What [`Policy`](crate::policy::Policy) sends to the host: the first segment of a connection,
//! each datagram, each echo request, and each datagram and echo reply that comes back, since the
//! mapping of a UDP port lets every remote in. A verdict about a mapping is kept with it for as
//! long as the remote is the same and the judge's revision too. What the link's services and the
//! DNS service answer is never judged, nor is what members say to each other, nor answers within a
//! flow.
//!
//! # Names in use
//! A flow holds the names that lead to its destination in use: a connection for as long as it
//! exists, a mapping those of the destination that it was let through to last.

mod asking;
mod audited;
#[cfg(feature = "host")]
mod bridged;
mod changes;
mod counts;
mod first_bytes;
mod release;
mod room;
mod views;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use super::Stack;
use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::egress::{
    Action, Cause, EgressPolicy, FlowVerdict, Judge, JudgeConfig, Judged, Prefix, Verification,
};
use crate::event::{FlowId, Origin};
use crate::flow::Flow;
use crate::flow::table::{Entry, Meta, Passed};
use crate::journal::{Ends, Judgement, NAMES_TOLD, QuestionEnding, Refusal};
use crate::mac::MacAddr;
use crate::member::MemberId;
use crate::nat::{Opener, as_seen_by_guest};
use crate::plan::AddressPlan;
use crate::policy::Protocol;
use crate::rng::Rng;
use crate::share::{Holder, PARTS};
use crate::stats::PolicyStats;
use crate::time::Instant;
use crate::timer::TimerOwner;
use crate::wire::icmp::IcmpError;
use asking::Asking;
pub(super) use asking::{Approvers, Wait};
pub use audited::AuditDuty;
use changes::Review;
pub use changes::{EgressState, Established, Revision};
use release::Releases;

/// Refused datagrams and echo requests that a guest is told of in [`TOLD_WITHIN`] (arbitrary: a
/// program needs one, and a flood of errors helps nobody). Refused connections are always told of.
const TOLD_CAP: usize = 20;
/// See [`TOLD_CAP`].
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Tells the seeds of the judges from those of the stack's tables.
const OWN_SEED: u64 = u64::from_be_bytes(*b"egress\0\0");

/// What is judged for one guest.
struct Guest {
    judge: Judge,
    /// Whether the policy is its own, not the instance's.
    is_own: bool,
    revision: Revision,
    /// What was decided so far.
    counted: Box<PolicyStats>,
    /// When it was told of its last refusals, and where the next one goes.
    told: [Option<Instant>; TOLD_CAP],
    next: usize,
}

impl Guest {
    fn new(judge: Judge, is_own: bool) -> Self {
        let (revision, counted) = (Revision(1), Box::default());
        Self { judge, is_own, revision, counted, told: [None; TOLD_CAP], next: 0 }
    }
}

/// What was let through: for the flow that it opens, or that it is of.
#[derive(Debug)]
pub(super) struct Clearance {
    reached: SocketAddr,
    /// What is to be looked at in the first bytes of a connection.
    verify: Verification,
    /// What a listener is to hear, if it has not yet.
    judgement: Option<Box<Judgement>>,
}

impl Clearance {
    /// Where it goes, on the host's side.
    pub(super) const fn reached(&self) -> SocketAddr {
        self.reached
    }
}

/// See the [module](self).
pub(super) struct Egress {
    /// The instance's.
    policy: Option<EgressPolicy>,
    /// What every judge knows besides its policy.
    known: JudgeConfig,
    /// Bindings that all guests may have together.
    bindings_cap: usize,
    rng: Rng,
    guests: BTreeMap<Holder, Guest>,
    /// What was decided for members that have gone.
    gone: Box<PolicyStats>,
    host_addresses: Vec<IpAddr>,
    review: Review,
    duty: AuditDuty,
    /// Flows that the last policy change has cut.
    cut: u64,
    asking: Asking,
    releases: Releases,
}

/// What becomes of what a guest begins, if it is not refused.
pub(super) enum Way {
    /// It goes there.
    Host(Clearance),
    /// It is led to the DNS service.
    Resolver,
    /// It has to wait: a connection holds its SYN, a datagram is dropped.
    Wait(Wait),
}

impl Egress {
    pub(super) fn new(config: &StackConfig) -> Self {
        let JudgeConfig { bindings_cap, placeholders_cap, .. } = JudgeConfig::default();
        let part = |cap: usize| if config.is_shared { cap / PARTS } else { cap };
        let known = JudgeConfig {
            has_resolver: config.policy.dns_service,
            gateways: gateways(&config.plan),
            bindings_cap: part(bindings_cap),
            placeholders_cap: part(placeholders_cap),
            taken: taken(&config.plan),
            seed: 0,
        };
        Self {
            policy: config.egress.clone(),
            known,
            bindings_cap,
            rng: Rng::new(config.seed ^ OWN_SEED),
            guests: BTreeMap::new(),
            gone: Box::default(),
            host_addresses: Vec::new(),
            review: Review::default(),
            duty: AuditDuty::Free,
            cut: 0,
            asking: Asking::default(),
            releases: Releases::default(),
        }
    }

    fn guest(&mut self, holder: Holder) -> Option<&mut Guest> {
        if !self.guests.contains_key(&holder) {
            let judge = self.new_judge(self.policy.clone()?);
            self.guests.insert(holder, Guest::new(judge, false));
        }
        self.guests.get_mut(&holder)
    }

    fn new_judge(&mut self, policy: EgressPolicy) -> Judge {
        let known = JudgeConfig { seed: self.rng.next_u64(), ..self.known.clone() };
        let mut judge = Judge::new(policy, known);
        judge.set_host_addresses(&self.host_addresses);
        judge
    }

    /// The addresses of `plan` count from now on. A placeholder that was handed out stays.
    pub(super) fn adopt_plan(&mut self, plan: &AddressPlan) {
        self.known.gateways = gateways(plan);
        self.known.taken = taken(plan);
        for guest in self.guests.values_mut() {
            guest.judge.set_gateways(self.known.gateways);
        }
    }

    /// Who judges what `holder` does; `None` if nobody does.
    pub(super) fn judge(&mut self, holder: Holder) -> Option<&mut Judge> {
        self.guest(holder).map(|guest| &mut guest.judge)
    }

    /// The verdict about what a guest of `holder` begins.
    fn on_flow(
        &mut self,
        holder: Holder,
        protocol: Protocol,
        written: SocketAddr,
        reached: SocketAddr,
        now: Instant,
    ) -> Judged {
        let unjudged = Judged {
            verdict: FlowVerdict::Pass { verify: Verification::None },
            action: Action::Allow,
            cause: Cause::Default,
            rule: None,
        };
        self.judge(holder).map_or(unjudged, |judge| judge.on_flow(protocol, written, reached, now))
    }

    /// A verdict as a listener hears it; `None` if the rule that decided is not to be logged.
    fn judgement(
        &mut self,
        holder: Holder,
        ends: Ends,
        reached: SocketAddr,
        judged: Judged,
        is_inbound: bool,
    ) -> Option<Box<Judgement>> {
        let judge = self.judge(holder)?;
        let rule = judged.rule.and_then(|rule| usize::try_from(rule).ok());
        let rule = rule.and_then(|rule| judge.policy().rules().get(rule));
        if rule.is_some_and(|rule| !rule.log) {
            return None;
        }
        let is_refused = matches!(judged.verdict, FlowVerdict::Refuse(_));
        Some(Box::new(Judgement {
            ends,
            member: holder,
            reached,
            is_inbound,
            action: if is_refused { Action::Deny } else { judged.action },
            cause: judged.cause,
            rule: rule.map(|rule| rule.source.clone()),
            is_enforced: is_refused || !judge.is_audit(),
            names: judge.names(reached.ip()).take(NAMES_TOLD).cloned().collect(),
        }))
    }

    /// Whether the flow was let through to `reached`, and that still holds.
    fn has_passed(&mut self, holder: Holder, meta: &Meta, reached: SocketAddr) -> bool {
        // An address may have changed hands.
        let passed = meta.passed.as_deref().filter(|_| meta.permit.holder == holder);
        let Some(passed) = passed.filter(|passed| passed.reached == reached) else { return false };
        self.judge(holder).is_some_and(|judge| judge.revision() == passed.revision)
    }

    /// Notes that the flow was let through to `reached`: its names are in use now instead of those
    /// of the last destination.
    fn note_passed(&mut self, holder: Holder, meta: &mut Meta, reached: SocketAddr, now: Instant) {
        // An address may have changed hands.
        if holder != meta.permit.holder {
            return;
        }
        let Some(judge) = self.judge(holder) else { return };
        match &mut meta.passed {
            Some(passed) => {
                if passed.reached != reached {
                    judge.on_closed(passed.reached, now);
                    judge.on_opened(reached, now);
                    passed.reached = reached;
                }
                passed.revision = judge.revision();
            }
            None => {
                judge.on_opened(reached, now);
                let revision = judge.revision();
                meta.passed = Some(Box::new(Passed { reached, revision, name: None }));
            }
        }
    }

    /// Whether one more refusal may be told.
    fn may_tell(&mut self, holder: Holder, now: Instant) -> bool {
        let Some(guest) = self.guest(holder) else { return true };
        let place = &mut guest.told[guest.next];
        if place.is_some_and(|at| now < at + TOLD_WITHIN) {
            return false;
        }
        *place = Some(now);
        guest.next = (guest.next + 1) % TOLD_CAP;
        true
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        // In the next turn.
        let soon = (!self.review.is_over()).then(|| now + Duration::from_micros(1));
        let ends = self.guests.values().filter_map(|guest| guest.judge.poll_timeout());
        ends.chain(soon).min()
    }
}

impl Stack {
    /// Whether an egress policy is in force for anybody, so that
    /// [`set_host_addresses`](Self::set_host_addresses) is to be called.
    pub const fn has_egress(&self) -> bool {
        self.egress.is_some()
    }

    /// Has the egress policy looked at when it wants to be.
    pub(super) fn schedule_egress(&mut self, now: Instant) {
        if let Some(egress) = &self.egress {
            let at = egress.poll_timeout(now).into_iter().chain(self.alone_until()).min();
            self.schedule.ask(TimerOwner::Egress, at);
        }
    }

    /// Time has come for the egress policy.
    pub(super) fn on_egress_timer(&mut self, now: Instant) {
        self.review(now);
        self.end_due_questions(now);
        if let Some(egress) = &mut self.egress {
            for guest in egress.guests.values_mut() {
                if guest.judge.poll_timeout().is_some_and(|at| at <= now) {
                    guest.judge.handle_timeout(now);
                }
            }
        }
        self.schedule_egress(now);
    }

    /// Forgets the judge of a member that has gone.
    pub(super) fn forget_judge(&mut self, member: MemberId, now: Instant) {
        let Some(egress) = &mut self.egress else { return };
        egress.review.guests.remove(&Some(member));
        let judge = egress.guests.get_mut(&Some(member)).map(|guest| &mut guest.judge);
        let questions = judge.map_or(Vec::new(), Judge::take_questions);
        egress.forget(member);
        egress.releases.forget_member(member);
        self.end_questions(Some(member), questions, &QuestionEnding::MemberLeft, now);
    }

    /// Judges what a guest begins, which policy sends to `reached`: the first segment of a
    /// connection, a datagram or an echo request.
    ///
    /// # Errors
    /// [`DiscardReason::EgressDenied`]; the guest has been told.
    pub(super) fn judge(
        &mut self,
        ends: Ends,
        mut reached: SocketAddr,
        packet: &[u8],
        mac: MacAddr,
        now: Instant,
    ) -> Result<Way, DiscardReason> {
        let holder = self.admission.holder(ends.guest.ip());
        let passed = Clearance { reached, verify: Verification::None, judgement: None };
        let Some(egress) = &mut self.egress else { return Ok(Way::Host(passed)) };
        if let Some(entry) = self.flows.mapping(ends.protocol, ends.guest)
            && egress.has_passed(holder, &entry.meta, reached)
        {
            return Ok(Way::Host(passed));
        }
        let judged = egress.on_flow(holder, ends.protocol, ends.remote, reached, now);
        let mut judged = egress.audited(judged, &self.events);
        match judged.verdict {
            FlowVerdict::Resolver => return Ok(Way::Resolver),
            FlowVerdict::Hold => match self.ask(holder, ends, reached, judged.rule, now) {
                Ok(question) => return Ok(Way::Wait(Wait::Decision(question))),
                Err(cause) => judged = judged.refused(cause),
            },
            FlowVerdict::Named { .. } if ends.protocol == Protocol::Tcp => {
                return Ok(Way::Wait(Wait::Lookup));
            }
            FlowVerdict::Named { verify } => {
                match self.datagram_target(holder, ends.guest, reached, now) {
                    Ok(Some(to)) => {
                        judged.verdict = FlowVerdict::Pass { verify };
                        reached = to;
                    }
                    Ok(None) => return Ok(Way::Wait(Wait::Lookup)),
                    Err(cause) => judged = judged.refused(cause),
                }
            }
            FlowVerdict::Pass { .. } | FlowVerdict::Refuse(_) => {}
        }
        let judgement = self.judgement(holder, ends, reached, judged);
        match judged.verdict {
            FlowVerdict::Pass { verify } => Ok(Way::Host(Clearance { reached, verify, judgement })),
            FlowVerdict::Resolver | FlowVerdict::Named { .. } | FlowVerdict::Hold => {
                Ok(Way::Resolver)
            }
            FlowVerdict::Refuse(cause) => {
                self.events.judged(None, judgement);
                let is_told = match (ends.protocol, &mut self.egress) {
                    (Protocol::Tcp, _) | (_, None) => true,
                    (Protocol::Udp | Protocol::Echo, Some(egress)) => egress.may_tell(holder, now),
                };
                self.events.refused(ends, Refusal::Egress(cause));
                if is_told {
                    // A full outbox is counted by the refusal itself.
                    let prohibited = IcmpError::AdministrativelyProhibited;
                    let _ = self.outbox.push_error(prohibited, packet, mac);
                }
                Err(DiscardReason::EgressDenied)
            }
        }
    }

    /// Counts a verdict about what a guest begins, and returns it as a listener is to hear it.
    fn judgement(
        &mut self,
        holder: Holder,
        ends: Ends,
        reached: SocketAddr,
        judged: Judged,
    ) -> Option<Box<Judgement>> {
        let egress = self.egress.as_mut()?;
        egress.count(holder, ends.protocol, judged);
        let is_heard = self.events.has_listener();
        is_heard.then(|| egress.judgement(holder, ends, reached, judged, false)).flatten()
    }

    /// Notes that a flow was let through. What its guest sends is watched if the clearance says so.
    pub(super) fn note_passed(&mut self, id: FlowId, clearance: Clearance, now: Instant) {
        let Clearance { reached, verify, judgement } = clearance;
        self.tell_judged(id, judgement);
        let (Some(egress), Some(entry)) = (&mut self.egress, self.flows.entry_mut(id)) else {
            return;
        };
        let holder = self.admission.holder(entry.meta.key.guest.ip());
        egress.note_passed(holder, &mut entry.meta, reached, now);
        if let Flow::Tcp(flow) = &mut entry.flow {
            flow.watch(egress.verifier(holder, verify, reached.port()));
        }
    }

    /// Tells a listener, if there is one, the verdict that let a flow through.
    pub(super) fn tell_judged(&mut self, id: FlowId, judgement: Option<Box<Judgement>>) {
        if judgement.is_some()
            && let Some(entry) = self.flows.entry_mut(id)
        {
            entry.meta.is_told = true;
            self.events.judged(Some(id), judgement);
        }
    }

    /// Whether a datagram or echo reply of `remote` may come in by a mapping: the guest may send
    /// there.
    pub(super) fn may_answer(&mut self, id: FlowId, remote: SocketAddr, now: Instant) -> bool {
        let (Some(egress), Some(Entry { meta, flow })) = (&mut self.egress, self.flows.entry(id))
        else {
            return true;
        };
        let seen = match flow {
            Flow::Udp(flow) => flow.as_seen_by_guest(remote, &self.config.plan).unwrap_or(remote),
            Flow::Tcp(_) | Flow::Echo(_) | Flow::InboundUdp(_) => remote,
        };
        let holder = meta.permit.holder;
        if egress.has_passed(holder, meta, remote) {
            return true;
        }
        let protocol = meta.key.protocol;
        egress.judge(holder).is_none_or(|judge| judge.lets_answer(protocol, seen, remote, now))
    }

    /// Judges a remote that is about to use a published port to reach `guest`. What answers a
    /// mapping of the guest comes through such a port as well: it may come if the guest may send
    /// there. Returns what a listener is to hear of the flow that it opens: nothing where no `in`
    /// rule is about the remote.
    ///
    /// # Errors
    /// [`DiscardReason::EgressDenied`]; a listener has been told.
    pub(super) fn judge_inbound(
        &mut self,
        protocol: Protocol,
        origin: &Origin,
        guest: SocketAddr,
        now: Instant,
    ) -> Result<Option<Box<Judgement>>, DiscardReason> {
        let holder = self.admission.holder(guest.ip());
        let Some(egress) = &mut self.egress else { return Ok(None) };
        let Some(judge) = egress.judge(holder) else { return Ok(None) };
        let port = origin.local.port();
        let judged = judge.on_inbound(protocol, origin.client, port);
        let judged = egress.audited(judged, &self.events);
        let is_worth_telling = judged.rule.is_some() || judged.action != Action::Allow;
        let ends = Ends::new(protocol, guest, origin.client);
        let reached = SocketAddr::new(origin.client.ip(), port);
        let judgement = (is_worth_telling && self.events.has_listener())
            .then(|| egress.judgement(holder, ends, reached, judged, true))
            .flatten();
        let FlowVerdict::Refuse(cause) = judged.verdict else {
            if is_worth_telling {
                egress.count(holder, protocol, judged);
            }
            return Ok(judgement);
        };
        let mapping = self.flows.mapping(protocol, guest).map(|entry| entry.meta.id);
        if mapping.is_some_and(|id| self.may_answer(id, origin.client, now)) {
            return Ok(None);
        }
        if let Some(egress) = &mut self.egress {
            egress.count(holder, protocol, judged);
        }
        self.events.judged(None, judgement);
        self.events.refused(ends, Refusal::Egress(cause));
        Err(DiscardReason::EgressDenied)
    }
}

impl Egress {
    /// A flow has ended: the names that lead to its destination are not in use by it any more.
    /// Returns when its judge wants to be looked at.
    pub(super) fn on_closed(&mut self, meta: &Meta, now: Instant) -> Option<Instant> {
        let passed = meta.passed.as_ref()?;
        let judge = &mut self.guests.get_mut(&meta.permit.holder)?.judge;
        judge.on_closed(passed.reached, now);
        judge.poll_timeout()
    }
}

/// The IPv4 addresses that mean something to the guest: its network, and others.
fn taken(plan: &AddressPlan) -> Vec<Prefix> {
    let Some(ipv4) = plan.ipv4() else { return Vec::new() };
    let network = Prefix { address: ipv4.network().into(), len: ipv4.prefix_len };
    let others = ipv4.list().map(|(address, _)| Prefix { address: address.into(), len: 32 });
    core::iter::once(network).chain(others).collect()
}

/// The guest's IPv4 and IPv6 address for the host's loopback.
fn gateways(plan: &AddressPlan) -> [Option<IpAddr>; 2] {
    let localhosts = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    localhosts.map(|localhost| as_seen_by_guest(plan, Opener::Guest, localhost, localhost))
}
