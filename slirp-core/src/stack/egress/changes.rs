//! Another policy comes into force while flows are open, or the host's addresses change.
//!
//! Owns the second look at every flow: in parts, so that no turn takes long, and with the judge's
//! present opinion. A connection goes on if its destination is still allowed and the name that its
//! first bytes had too. A connection that has said nothing yet is watched as a new one is. One that
//! was let through without a look, or is no longer looked at although each of its requests would
//! have to name its host now, is reset: its first bytes are gone. The next datagram of a mapping is
//! judged in any case.
//!
//! When the host's addresses change, the flows to and from those that came or went get the same
//! look. All others go on, those too that an earlier policy has let begin and a later one has kept.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use super::{Egress, Guest};
use crate::egress::{Action, Cause, EgressPolicy, FlowVerdict, Verification, embedded};
use crate::event::FlowId;
use crate::flow::Flow;
use crate::flow::table::Entry;
use crate::journal::{Ending, Event};
use crate::member::MemberId;
use crate::policy::{Protocol, Target};
use crate::share::Holder;
use crate::stack::Stack;
use crate::time::Instant;

/// Slots of the flow table that are judged anew in one turn (arbitrary: a fraction of a
/// millisecond).
const REVIEW_PART: u32 = 256;

/// What becomes of flows that a new policy does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Established {
    /// They are reset.
    Cut,
    /// They go on.
    Keep,
}

/// How often a policy has come into force for a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Revision(pub u64);

/// The egress policy in force for a guest.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EgressState {
    /// The policy.
    pub policy: EgressPolicy,
    /// How often one has come into force there.
    pub revision: Revision,
    /// Flows that were reset because the last policy that came into force, for this guest or
    /// another one, does not allow them; `None` while not all flows have been judged anew.
    pub cut: Option<u64>,
    /// The members that have policies of their own, if this is the policy of all others.
    pub exceptions: Vec<MemberId>,
}

/// A look at all flows of some guests, or at those to some addresses, in parts.
#[derive(Default)]
pub(super) struct Review {
    pub(super) guests: BTreeSet<Holder>,
    /// Addresses that the host has now, or has no longer.
    moved: BTreeSet<IpAddr>,
    /// The slot that comes next.
    next: u32,
}

impl Review {
    /// Whether there is nothing to look at.
    pub(super) fn is_over(&self) -> bool {
        self.guests.is_empty() && self.moved.is_empty()
    }

    fn is_due(&self, entry: &Entry) -> bool {
        self.guests.contains(&entry.meta.permit.holder)
            || (!self.moved.is_empty() && self.has_moved(far_end(entry)))
    }

    fn has_moved(&self, address: IpAddr) -> bool {
        let mut inner = embedded(address).into_iter().flatten();
        self.moved.contains(&address) || inner.any(|inner| self.moved.contains(&inner.into()))
    }
}

/// Where a flow leads on the host's side, or comes from.
fn far_end(entry: &Entry) -> IpAddr {
    let reached = entry.meta.passed.as_deref().map_or(entry.meta.key.remote, |to| to.reached);
    let client = match &entry.flow {
        Flow::Tcp(flow) => flow.opener().map(|(client, _)| client),
        Flow::InboundUdp(flow) => Some(flow.origin().client),
        Flow::Udp(_) | Flow::Echo(_) => None,
    };
    client.unwrap_or(reached).ip().to_canonical()
}

impl Egress {
    /// Brings `policy` into force, for a member or for all who have none of their own. Returns the
    /// guests that it is in force for, and how often a policy came into force for the first.
    fn set_policy(
        &mut self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        now: Instant,
    ) -> (BTreeSet<Holder>, Revision) {
        // One that nobody was judged by so far came into force before this one.
        self.guest(member);
        let mut changed = BTreeSet::new();
        for (&holder, guest) in &mut self.guests {
            if holder == member || (member.is_none() && !guest.is_own) {
                guest.judge.set_policy(policy.clone(), now);
                guest.revision.0 += 1;
                guest.is_own |= member.is_some();
                changed.insert(holder);
            }
        }
        if member.is_none() {
            self.policy = Some(policy.clone());
        }
        if changed.insert(member) {
            let judge = self.new_judge(policy);
            self.guests.insert(member, Guest::new(judge, member.is_some()));
        }
        let revision = self.guests.get(&member).map_or(Revision(0), |guest| guest.revision);
        (changed, revision)
    }

    /// Whether a client may use a published port.
    fn lets_in(
        &mut self,
        holder: Holder,
        protocol: Protocol,
        client: SocketAddr,
        port: u16,
    ) -> bool {
        self.judge(holder).is_none_or(|judge| {
            let judged = judge.on_inbound(protocol, client, port);
            matches!(judged.verdict, FlowVerdict::Pass { .. })
        })
    }
}

impl Stack {
    /// Brings an egress policy into force: for a member of a shared network, or for the guest. On a
    /// shared network the policy of no member holds for all members that have none of their own.
    ///
    /// With [`Established::Cut`] the flows that it does not allow are reset within the next turns.
    pub fn set_egress(
        &mut self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        established: Established,
        now: Instant,
    ) -> Revision {
        let egress = self.egress.get_or_insert_with(|| Box::new(Egress::new(&self.config)));
        let (changed, revision) = egress.set_policy(member, policy.clone(), now);
        self.events.tell(|| Event::PolicySet { member, policy, revision: revision.0 });
        if established == Established::Cut {
            egress.cut = 0;
            let is_for_all = member.is_none() && self.config.is_shared;
            // Members that nobody has judged yet are found by their flows.
            let holders = self.flows.iter().map(|entry| entry.meta.permit.holder);
            let follows = |holder: &Holder| {
                is_for_all && egress.guests.get(holder).is_none_or(|guest| !guest.is_own)
            };
            egress.review.guests.extend(holders.filter(follows).chain(changed.iter().copied()));
            egress.review.next = 0;
        }
        self.end_unasked(&changed, now);
        self.schedule_egress(now);
        revision
    }

    /// The host's interfaces have these addresses from now on. Only an egress policy asks for them:
    /// not to be called unless one is in force or about to be.
    ///
    /// Flows to and from addresses that came or went are judged anew within the next turns.
    pub fn set_host_addresses(&mut self, addresses: &[IpAddr], now: Instant) {
        let egress = self.egress.get_or_insert_with(|| Box::new(Egress::new(&self.config)));
        let before: BTreeSet<_> = egress.host_addresses.iter().copied().collect();
        let after: BTreeSet<_> = addresses.iter().copied().collect();
        egress.host_addresses = addresses.to_vec();
        for guest in egress.guests.values_mut() {
            guest.judge.set_host_addresses(addresses);
        }
        // Without a judge nothing was judged that could be judged otherwise now.
        if before != after && !egress.guests.is_empty() {
            egress.review.moved.extend(before.symmetric_difference(&after));
            egress.review.next = 0;
            self.schedule_egress(now);
        }
    }

    /// Judges the next part of the flows that are to be judged anew.
    pub(super) fn review(&mut self, now: Instant) {
        let Some(egress) = &mut self.egress else { return };
        if egress.review.is_over() {
            return;
        }
        let (entries, next) = self.flows.in_slots(egress.review.next, REVIEW_PART);
        let is_due = |entry: &&Entry| egress.review.is_due(entry);
        let flows: Vec<_> = entries.filter(is_due).map(|entry| entry.meta.id).collect();
        match next {
            Some(next) => egress.review.next = next,
            None => egress.review = Review::default(),
        }
        for id in flows {
            if !self.still_passes(id, now) {
                self.revoke(id, now);
                if let Some(egress) = &mut self.egress {
                    egress.cut += 1;
                }
            }
        }
    }

    /// The policy in force for a member, or for the guest; `None` if there is none.
    pub fn egress(&mut self, member: Option<MemberId>) -> Option<EgressState> {
        let egress = self.egress.as_deref_mut()?;
        let cut = egress.review.guests.is_empty().then_some(egress.cut);
        let guest = egress.guest(member)?;
        let (policy, revision) = (guest.judge.policy().clone(), guest.revision);
        let own = egress.guests.iter().filter(|(_, guest)| member.is_none() && guest.is_own);
        let exceptions = own.filter_map(|(&holder, _)| holder).collect();
        Some(EgressState { policy, revision, cut, exceptions })
    }

    /// Ends a flow that somebody wants ended. Returns whether there is one.
    pub fn cut(&mut self, id: FlowId, now: Instant) -> bool {
        let exists = self.flows.entry(id).is_some();
        if exists {
            self.revoke(id, now);
        }
        exists
    }

    /// Whether the policy lets a flow go on that it, or another one, has let begin.
    fn still_passes(&mut self, id: FlowId, now: Instant) -> bool {
        let (Some(egress), Some(entry)) = (&mut self.egress, self.flows.entry_mut(id)) else {
            return true;
        };
        let holder = entry.meta.permit.holder;
        let key = entry.meta.key;
        let flow = match &mut entry.flow {
            Flow::Tcp(flow) => flow,
            Flow::InboundUdp(flow) => {
                let origin = flow.origin();
                let port = origin.local.port();
                return egress.lets_in(holder, key.protocol, origin.client, port);
            }
            // The next datagram is judged in any case.
            Flow::Udp(_) | Flow::Echo(_) => return true,
        };
        if flow.is_shut() {
            return true;
        }
        if let Some((client, port)) = flow.opener() {
            return egress.lets_in(holder, key.protocol, client, port);
        }
        let Ok(Target::Host(reached)) = self.config.target(Protocol::Tcp, key.remote) else {
            return true;
        };
        let is_resolver = self.dns.stream(id).is_some();
        let judged = egress.on_flow(holder, key.protocol, key.remote, reached, now);
        let verify = match judged.verdict {
            FlowVerdict::Refuse(_) => return false,
            // What was asked about, or would be now, goes on.
            FlowVerdict::Hold | FlowVerdict::Named { .. } => {
                // Unless what the placeholder has led to is denied.
                let Some(passed) = entry.meta.passed.as_deref() else { return true };
                let (Some(name), Some(judge)) = (&passed.name, egress.judge(holder)) else {
                    return true;
                };
                return judge.leads_to(name, key.protocol, passed.reached, now).0 != Action::Deny;
            }
            FlowVerdict::Pass { .. } if is_resolver || flow.is_asking() => return true,
            FlowVerdict::Resolver => return is_resolver,
            FlowVerdict::Pass { verify } => verify,
        };
        egress.note_passed(holder, &mut entry.meta, reached, now);
        if verify == Verification::None || entry.meta.traffic.from_guest == 0 {
            flow.watch(egress.verifier(holder, verify, reached.port()));
            return true;
        }
        let Some(judge) = egress.judge(holder).filter(|judge| !judge.is_audit()) else {
            return true;
        };
        if flow.claim().is_some_and(|claim| judge.on_claim(Some(claim), reached, now).is_err()) {
            return false;
        }
        match verify {
            // A hello comes once, but each request names its host.
            Verification::Tls => flow.watch_strictly() || flow.claim().is_some(),
            Verification::Http => flow.watch_strictly(),
            Verification::Sniff | Verification::SniffDenied | Verification::None => true,
        }
    }

    /// Ends a flow that the policy does not allow any more.
    fn revoke(&mut self, id: FlowId, now: Instant) {
        let Some((meta, flow)) = self.flows.tcp_mut(id) else {
            self.close_flow(id, Ending::Revoked, now);
            return;
        };
        if flow.is_connecting() {
            self.refuse_syn(id, Cause::Revoked);
            return;
        }
        flow.revoke(&mut self.engine, now);
        self.turns.wake(meta);
    }
}
