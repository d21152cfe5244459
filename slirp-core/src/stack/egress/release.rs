//! How a flow that has waited goes on.
//!
//! Owns the second verdict about it, the lookup of a name that was allowed, and the addresses that
//! are tried in turn. A flow to a placeholder keeps it as its remote, whichever address it reaches,
//! and its first bytes have to name the placeholder's name.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

use super::Clearance;
use crate::discard::DiscardReason;
use crate::egress::{Action, Cause, FlowVerdict, Found, Judge, Judged, Name, Verification, Ways};
use crate::event::{FlowId, HostAction, HostError};
use crate::flow::Flow;
use crate::journal::{Ends, Refusal};
use crate::member::MemberId;
use crate::policy::{Protocol, Target};
use crate::service::dns::read_own;
use crate::share::Holder;
use crate::stack::Stack;
use crate::time::Instant;
use crate::wire::icmp::IcmpError;

/// What goes on and is not connected yet.
#[derive(Default)]
pub(super) struct Releases {
    next_lookup: u64,
    lookups: BTreeMap<u64, NameLookup>,
    /// Flows that connect, with the addresses that are tried next, the last one first.
    tries: BTreeMap<FlowId, Vec<SocketAddr>>,
}

/// A name that is being looked up. Flows and datagrams to one name of a guest share a lookup.
struct NameLookup {
    holder: Holder,
    name: Name,
    /// Answers that have not come.
    left: usize,
    aliases: Vec<Name>,
    /// With their time to live in seconds.
    addresses: Vec<(IpAddr, u32)>,
    /// With what is looked at in their first bytes.
    waiting: BTreeMap<FlowId, Verification>,
}

impl Releases {
    /// Forgets a flow that has ended.
    pub(super) fn forget(&mut self, flow: FlowId) {
        for lookup in self.lookups.values_mut() {
            lookup.waiting.remove(&flow);
        }
        self.tries.remove(&flow);
    }

    /// Forgets what was looked up for a member that has gone.
    pub(super) fn forget_member(&mut self, member: MemberId) {
        self.lookups.retain(|_, lookup| lookup.holder != Some(member));
    }
}

/// A flow that waits, and what is to become of it.
struct Held {
    holder: Holder,
    reached: SocketAddr,
    judged: Judged,
}

impl Stack {
    /// Judges a flow that waits once more; `None` if it does not wait.
    fn judge_again(&mut self, id: FlowId, now: Instant) -> Option<Held> {
        let (meta, flow) = self.flows.tcp(id)?;
        if !flow.is_asking() {
            return None;
        }
        let (holder, key) = (meta.permit.holder, meta.key);
        let Ok(Target::Host(reached)) = self.config.target(Protocol::Tcp, key.remote) else {
            return None;
        };
        let egress = self.egress.as_mut()?;
        let judged = egress.on_flow(holder, key.protocol, key.remote, reached, now);
        let judged = egress.audited(judged, &self.events);
        Some(Held { holder, reached, judged })
    }

    /// Does with a flow that waits what the present verdict says.
    pub(super) fn go_on(&mut self, id: FlowId, now: Instant) {
        let Some(Held { holder, reached, judged }) = self.judge_again(id, now) else {
            return;
        };
        match judged.verdict {
            FlowVerdict::Pass { verify } => {
                self.connect_to(id, reached, (judged, verify), None, now)
            }
            FlowVerdict::Named { verify } => {
                let judge = self.egress.as_mut().and_then(|egress| egress.judge(holder));
                let name = judge.and_then(|judge| {
                    let name = judge.placeholder_name(reached.ip())?.clone();
                    Some((judge.found(&name, now).map(<[_]>::to_vec), name))
                });
                match name {
                    Some((Some(addresses), name)) => {
                        self.try_all(id, &name, &addresses, (judged, verify), now);
                    }
                    Some((None, name)) => self.look_up(holder, name, Some((id, verify)), now),
                    None => self.refuse_held(id, judged.refused(Cause::NoName)),
                }
            }
            FlowVerdict::Hold => self.ask_for(id, reached, judged, now),
            FlowVerdict::Refuse(_) => self.refuse_held(id, judged),
            // It was not opened as a connection to the DNS service.
            FlowVerdict::Resolver => self.refuse_held(id, judged.refused(Cause::Revoked)),
        }
    }

    /// Has a flow that waits wait for a decision about `reached`.
    fn ask_for(&mut self, id: FlowId, reached: SocketAddr, judged: Judged, now: Instant) {
        let Some((meta, _)) = self.flows.tcp(id) else { return };
        let (holder, key) = (meta.permit.holder, meta.key);
        let ends = Ends::new(key.protocol, key.guest, key.remote);
        let asked = self.ask(holder, ends, reached, judged.rule, now);
        let judge = self.egress.as_mut().and_then(|egress| egress.judge(holder));
        match (asked, judge) {
            (Ok(question), Some(judge)) => judge.hold(question, id),
            (Ok(_), None) => {}
            (Err(cause), _) => self.refuse_held(id, judged.refused(cause)),
        }
    }

    /// Refuses a flow that waits.
    pub(super) fn refuse_held(&mut self, id: FlowId, judged: Judged) {
        let Some((meta, _)) = self.flows.tcp(id) else { return };
        let (holder, key) = (meta.permit.holder, meta.key);
        let reached = match self.config.target(Protocol::Tcp, key.remote) {
            Ok(Target::Host(reached)) => reached,
            Ok(Target::Resolver) | Err(_) => key.remote,
        };
        let ends = Ends::new(key.protocol, key.guest, key.remote);
        let judgement = self.judgement(holder, ends, reached, judged);
        self.events.judged(Some(id), judgement);
        self.refuse_syn(id, judged.cause);
    }

    /// Refuses a flow whose SYN is held.
    pub(super) fn refuse_syn(&mut self, id: FlowId, cause: Cause) {
        let Some((_, flow)) = self.flows.tcp_mut(id) else { return };
        let Some(syn) = flow.take_syn() else { return };
        let mac = flow.guest().mac;
        let prohibited = IcmpError::AdministrativelyProhibited;
        let told = self.outbox.push_error(prohibited, &syn.headers, mac);
        self.note(told);
        self.note_discard(DiscardReason::EgressDenied);
        self.refuse_flow(id, Refusal::Egress(cause));
    }

    /// Where a datagram of `guest` to a placeholder goes: where the last one went, as long as the
    /// mapping lives and the name is still there. `None` while that is being looked up, or somebody
    /// is asked about it.
    ///
    /// # Errors
    /// Why it goes nowhere.
    pub(super) fn datagram_target(
        &mut self,
        holder: Holder,
        guest: SocketAddr,
        placeholder: SocketAddr,
        now: Instant,
    ) -> Result<Option<SocketAddr>, Cause> {
        let known = self.flows.mapping(Protocol::Udp, guest).and_then(|entry| match &entry.flow {
            Flow::Udp(flow) => flow.translated_dst(placeholder),
            Flow::Tcp(_) | Flow::Echo(_) | Flow::InboundUdp(_) => None,
        });
        let judge = self.egress.as_mut().and_then(|egress| egress.judge(holder));
        let judge = judge.ok_or(Cause::NoName)?;
        judge.note_datagram(placeholder.ip(), now);
        let name = judge.placeholder_name(placeholder.ip()).ok_or(Cause::NoName)?.clone();
        let is_open = |&to: &SocketAddr| {
            // The placeholder may have gone to another name.
            judge.is_at(&name, to.ip(), now)
                && judge.leads_to(&name, Protocol::Udp, to, now).0 == Action::Allow
        };
        if let Some(known) = known.filter(is_open) {
            return Ok(Some(known));
        }
        let Some(found) = judge.found(&name, now) else {
            self.look_up(holder, name, None, now);
            return Ok(None);
        };
        match judge.ways(&name, Protocol::Udp, (found, placeholder.port()), now) {
            Ways::Open(reached) => Ok(reached.first().copied()),
            Ways::Asked(reached) => {
                let rule = judge.on_flow(Protocol::Udp, reached, reached, now).rule;
                let ends = Ends::new(Protocol::Udp, guest, placeholder);
                self.ask(holder, ends, reached, rule, now).map(|_| None)
            }
            Ways::Closed(cause) => Err(cause),
        }
    }

    /// Looks up a name, for `flow` if there is one.
    fn look_up(
        &mut self,
        holder: Holder,
        name: Name,
        flow: Option<(FlowId, Verification)>,
        now: Instant,
    ) {
        let Some(egress) = &mut self.egress else { return };
        let Releases { next_lookup, lookups, .. } = &mut egress.releases;
        let mut known = lookups.values_mut();
        if let Some(known) = known.find(|other| other.holder == holder && other.name == name) {
            known.waiting.extend(flow);
            return;
        }
        let number = *next_lookup;
        *next_lookup += 1;
        let left = self.dns.resolve(number, holder, &name, now);
        let (aliases, addresses, waiting) = (Vec::new(), Vec::new(), flow.into_iter().collect());
        lookups.insert(number, NameLookup { holder, name, left, aliases, addresses, waiting });
        self.deliver_dns(now);
        if left == 0 {
            self.finish_lookup(number, now);
        }
    }

    /// An answer to a lookup has come; an empty one if there is none.
    pub(in crate::stack) fn on_found(&mut self, number: u64, answer: &[u8], now: Instant) {
        let Some(egress) = &mut self.egress else { return };
        let Some(lookup) = egress.releases.lookups.get_mut(&number) else { return };
        if let Some(chain) = read_own(answer, &lookup.name) {
            lookup.aliases.extend(chain.aliases);
            lookup.addresses.extend(chain.addresses);
        }
        lookup.left = lookup.left.saturating_sub(1);
        if lookup.left == 0 {
            self.finish_lookup(number, now);
        }
    }

    fn finish_lookup(&mut self, number: u64, now: Instant) {
        let Some(egress) = &mut self.egress else { return };
        let Some(lookup) = egress.releases.lookups.remove(&number) else { return };
        let NameLookup { holder, name, aliases, addresses, waiting, .. } = lookup;
        let judge = egress.judge_of_answer(holder);
        let found =
            judge.map_or(Found::Nothing, |judge| judge.on_found(&name, &aliases, &addresses, now));
        for (flow, verify) in waiting {
            let Some(Held { judged, .. }) = self.judge_again(flow, now) else { continue };
            match (judged.verdict, &found) {
                // Somebody has said yes, even if that has ended meanwhile.
                (FlowVerdict::Named { .. } | FlowVerdict::Hold, Found::Addresses(addresses)) => {
                    self.try_all(flow, &name, addresses, (judged, verify), now);
                }
                (FlowVerdict::Named { .. } | FlowVerdict::Hold, Found::Refused(cause)) => {
                    self.refuse_held(flow, judged.refused(*cause));
                }
                (FlowVerdict::Named { .. } | FlowVerdict::Hold, Found::Nothing) => {
                    self.fail_connect(flow, HostError::HostUnreachable);
                }
                // The policy has changed meanwhile.
                (FlowVerdict::Pass { .. } | FlowVerdict::Refuse(_) | FlowVerdict::Resolver, _) => {
                    self.go_on(flow, now)
                }
            }
        }
        self.schedule_egress(now);
    }

    /// Connects a flow to the first of these addresses that its name may lead to, and keeps the
    /// others.
    fn try_all(
        &mut self,
        id: FlowId,
        name: &Name,
        addresses: &[IpAddr],
        (judged, verify): (Judged, Verification),
        now: Instant,
    ) {
        let Some(egress) = &mut self.egress else { return };
        let Some((meta, _)) = self.flows.tcp(id) else { return };
        let port = meta.key.remote.port();
        let Some(judge) = egress.judge(meta.permit.holder) else { return };
        let mut rest = match judge.ways(name, Protocol::Tcp, (addresses, port), now) {
            Ways::Open(reached) => reached,
            Ways::Asked(reached) => {
                let asked = judge.on_flow(Protocol::Tcp, reached, reached, now);
                return self.ask_for(id, reached, asked, now);
            }
            Ways::Closed(cause) => return self.refuse_held(id, judged.refused(cause)),
        };
        let first = rest.remove(0);
        rest.reverse();
        if !rest.is_empty() {
            egress.releases.tries.insert(id, rest);
        }
        self.connect_to(id, first, (judged, verify), Some(name), now);
    }

    /// The host could not connect a flow: has the next address tried, if there is one.
    pub(in crate::stack) fn try_next(&mut self, id: FlowId, now: Instant) -> bool {
        let Some(egress) = &mut self.egress else { return false };
        let Some((meta, flow)) = self.flows.tcp_mut(id) else { return false };
        if !flow.is_connecting() {
            return false;
        }
        let holder = meta.permit.holder;
        let name = meta.passed.as_deref().and_then(|passed| passed.name.clone());
        let reached = loop {
            let Some(reached) = egress.releases.tries.get_mut(&id).and_then(Vec::pop) else {
                egress.releases.tries.remove(&id);
                return false;
            };
            // The policy may have changed since it was found.
            let may_lead = |judge: &mut Judge| {
                let name = name.as_ref();
                name.is_none_or(|name| {
                    judge.leads_to(name, Protocol::Tcp, reached, now).0 == Action::Allow
                })
            };
            if egress.judge(holder).is_none_or(may_lead) {
                break reached;
            }
        };
        if egress.releases.tries.get(&id).is_some_and(Vec::is_empty) {
            egress.releases.tries.remove(&id);
        }
        egress.note_passed(holder, meta, reached, now);
        self.actions.push_back(HostAction::Close { flow: id, reset: false });
        self.connect(id, reached, now);
        true
    }

    /// Has a flow that waits connect to `reached`, as it was judged. Its first bytes are watched as
    /// `verify` says, and have to have `name` if there is one.
    fn connect_to(
        &mut self,
        id: FlowId,
        reached: SocketAddr,
        (judged, verify): (Judged, Verification),
        name: Option<&Name>,
        now: Instant,
    ) {
        let Some((meta, _)) = self.flows.tcp(id) else { return };
        let (holder, key) = (meta.permit.holder, meta.key);
        let ends = Ends::new(key.protocol, key.guest, key.remote);
        let judged = Judged { verdict: FlowVerdict::Pass { verify }, ..judged };
        let judgement = self.judgement(holder, ends, reached, judged);
        self.note_passed(id, Clearance { reached, verify, judgement }, now);
        if let Some(entry) = self.flows.entry_mut(id)
            && let Some(passed) = &mut entry.meta.passed
        {
            passed.name = name.cloned();
        }
        self.connect(id, reached, now);
    }

    fn connect(&mut self, id: FlowId, remote: SocketAddr, now: Instant) {
        let Some(egress) = &self.egress else { return };
        let has_others = egress.releases.tries.contains_key(&id);
        let Some((_, flow)) = self.flows.tcp_mut(id) else { return };
        let limit = self.config.timeouts.host_connect;
        // The guest has the patience for one connect.
        flow.connect_until(now + if has_others { limit / 4 } else { limit });
        let wake_at = flow.wake_at();
        self.schedule_flow(id, wake_at);
        let connect = HostAction::ConnectTcp { flow: id, remote, is_guest_eager: false };
        self.actions.push_back(connect);
    }
}
