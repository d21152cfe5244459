//! What people see of an egress policy: names, flows and explanations.
//!
//! Owns the rows of the lists, as far as they need a judge. Nothing here changes a verdict, and a
//! long list is read in parts, so that no turn takes long.

use core::net::IpAddr;

use super::Egress;
use crate::config::StackConfig;
use crate::egress::{Attempt, Explanation, LearnedName};
use crate::flow::table::Entry;
use crate::flow::{Flow, FlowSummary, JudgedFlow};
use crate::journal::NAMES_TOLD;
use crate::member::MemberId;
use crate::policy::{Protocol, Target};
use crate::stack::Stack;
use crate::time::Instant;

/// Slots that each guest has where the names of all guests are numbered: more than any has names,
/// and few enough for 4,096 guests.
const SLOTS: u32 = 1 << 20;

impl Stack {
    /// The flows in `count` slots of the table from slot `first` on, with what the egress policy
    /// makes of them, and the slot to go on from; `None` when there are no more. See
    /// [`flows`](Self::flows).
    pub fn judged_flows(
        &self,
        first: u32,
        count: u32,
        now: Instant,
    ) -> (impl Iterator<Item = JudgedFlow>, Option<u32>) {
        let (entries, next) = self.flows.in_slots(first, count);
        let flows =
            entries.map(move |entry| judged(entry, self.egress.as_deref(), &self.config, now));
        (flows, next)
    }

    /// The names that a member, or the guest, has learned, in `count` slots from slot `first` on,
    /// and the slot to go on from; `None` when there are no more. On a shared network the names of
    /// no member are those of all members. Where one of them comes or leaves between two parts,
    /// names may be missed or come twice.
    pub fn learned_names(
        &self,
        member: Option<MemberId>,
        first: u32,
        count: u32,
        now: Instant,
    ) -> (Vec<LearnedName>, Option<u32>) {
        let Some(egress) = self.egress.as_deref() else { return Default::default() };
        let (rank, first, found) = match member {
            Some(_) => (0, first, egress.guests.get_key_value(&member)),
            None => {
                let rank = first / SLOTS;
                let at = usize::try_from(rank).unwrap_or(usize::MAX);
                (rank, first % SLOTS, egress.guests.iter().nth(at))
            }
        };
        let Some((&holder, guest)) = found else { return Default::default() };
        let (mut names, next) = guest.judge.learned(first, count, now);
        for name in &mut names {
            name.member = holder;
        }
        let last = u32::try_from(egress.guests.len() - 1).unwrap_or(u32::MAX);
        let next = match next {
            Some(slot) => Some(rank * SLOTS + slot),
            None if member.is_none() && rank < last => Some((rank + 1) * SLOTS),
            None => None,
        };
        (names, next)
    }

    /// What becomes of an attempt now, and why: of the guest with the address `guest`, or of a
    /// client at its ports. `None` if no policy is in force for that guest.
    pub fn explain(
        &mut self,
        attempt: &Attempt,
        guest: Option<IpAddr>,
        now: Instant,
    ) -> Option<Explanation> {
        let holder = guest.and_then(|guest| self.admission.holder(guest));
        let judge = self.egress.as_deref_mut()?.judge(holder)?;
        let protocol = match *attempt {
            Attempt::Address { protocol: Protocol::Udp, .. } => Protocol::Udp,
            Attempt::Address { .. }
            | Attempt::Lookup(_)
            | Attempt::Name { .. }
            | Attempt::Client { .. } => Protocol::Tcp,
        };
        let reached = |written| match self.config.target(protocol, written) {
            Ok(Target::Host(reached)) => reached,
            Ok(Target::Resolver) | Err(_) => written,
        };
        Some(judge.explain(&attempt.destination(reached), now))
    }
}

fn judged(
    entry: &Entry,
    egress: Option<&Egress>,
    config: &StackConfig,
    now: Instant,
) -> JudgedFlow {
    let summary = FlowSummary::of(entry, &config.timeouts, now);
    let member = entry.meta.permit.holder;
    let judge = egress.and_then(|egress| egress.guests.get(&member)).map(|guest| &guest.judge);
    let unjudged =
        JudgedFlow { summary, member, reached: None, names: Vec::new(), verdict: None, rule: None };
    let Some(judge) = judge else { return unjudged };
    let (claim, opener) = match &entry.flow {
        Flow::Tcp(flow) => (flow.claim(), flow.opener()),
        Flow::InboundUdp(flow) => (None, Some((flow.origin().client, flow.origin().local.port()))),
        Flow::Udp(_) | Flow::Echo(_) => (None, None),
    };
    let protocol = summary.protocol;
    if let Some((client, port)) = opener {
        let (action, cause, rule) = judge.opinion_of_client(protocol, client.ip(), port);
        return JudgedFlow {
            reached: Some(client),
            verdict: Some((action, cause)),
            rule,
            ..unjudged
        };
    }
    // What goes to the DNS service is not judged.
    let Some(passed) = entry.meta.passed.as_deref() else { return unjudged };
    let reached = passed.reached;
    let (action, cause, rule) = judge.opinion(protocol, summary.remote, reached, now);
    let learned = judge.names(reached.ip()).filter(|&name| Some(name) != claim);
    let names = claim.into_iter().chain(learned).take(NAMES_TOLD).cloned().collect();
    JudgedFlow { reached: Some(reached), names, verdict: Some((action, cause)), rule, ..unjudged }
}
