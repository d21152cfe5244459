//! The names in the first bytes of connections: who looks at them, and what is told of them.
//!
//! Owns the asking of the judge, and the end of a connection whose bytes were refused. What stands
//! between the bytes and the host is the flow's [gate](crate::flow::tcp). In audit mode a refusal
//! is told, and the bytes leave.

use super::Egress;
use crate::discard::DiscardReason;
use crate::egress::{Action, Cause, FlowVerdict, Judged, Name, Shown, Verification, Verifier};
use crate::event::{FlowId, HostAction};
use crate::flow::tcp::Passage;
use crate::journal::{Claim, Ends, Event, Refusal};
use crate::share::Holder;
use crate::stack::Stack;
use crate::time::Instant;

impl Stack {
    /// Has what the guest of a connection has sent looked at, if its first bytes are to be. Returns
    /// whether the connection may be pumped.
    pub(in crate::stack) fn verify(&mut self, id: FlowId, now: Instant) -> bool {
        let Some(egress) = &mut self.egress else { return true };
        let Some((meta, flow)) = self.flows.tcp_mut(id) else { return true };
        if !flow.is_gated() {
            return true;
        }
        let (holder, reached) = (meta.permit.holder, meta.passed.as_deref());
        let (Some(reached), Some(judge)) =
            (reached.map(|passed| passed.reached), egress.judge(holder))
        else {
            return !flow.is_shut();
        };
        let is_enforced = !judge.is_audit();
        let is_told = meta.is_told && self.events.has_listener();
        let known = is_told.then(|| flow.claim().cloned()).flatten();
        let wanted = meta.passed.as_deref().and_then(|passed| passed.name.as_ref());
        // What was asked about last, and the rule that decided.
        let mut asked = None;
        let mut is_allowed = false;
        let mut claim = |claim: Option<&Name>| {
            let judged = match wanted {
                None => judge.on_claim(claim, reached, now),
                Some(name) if claim == Some(name) => Ok(None),
                Some(_) => Err(Cause::Name.into()),
            };
            if is_told {
                let rule = judged.as_ref().map_or_else(|denial| denial.rule, |&rule| rule);
                asked = Some((claim.cloned(), rule));
            }
            is_allowed |= judged.is_ok();
            judged.map(|_| ())
        };
        let (passage, shown) = flow.verify(&mut claim, is_enforced, now);
        match passage {
            Passage::Open if is_allowed => egress.count_verified(holder, shown, Ok(())),
            Passage::Open | Passage::Shut => {}
            Passage::Refused(cause) | Passage::Excused(cause) => {
                egress.count_verified(holder, shown, Err(cause));
            }
        }
        let cause = match passage {
            Passage::Shut => return false,
            // Requests with the name of the one before are not told.
            Passage::Open if asked.is_none() || flow.claim() == known.as_ref() => return true,
            Passage::Open => None,
            Passage::Refused(cause) | Passage::Excused(cause) => Some(cause),
        };
        if is_told {
            let (name, rule) = asked.unwrap_or_default();
            let judged = Judged {
                verdict: match passage {
                    Passage::Refused(cause) => FlowVerdict::Refuse(cause),
                    Passage::Open | Passage::Excused(_) | Passage::Shut => {
                        FlowVerdict::Pass { verify: Verification::None }
                    }
                },
                action: if cause.is_some() { Action::Deny } else { Action::Allow },
                cause: cause.unwrap_or(if rule.is_some() { Cause::Rule } else { Cause::Default }),
                rule,
            };
            let key = &meta.key;
            let ends = Ends::new(key.protocol, key.guest, key.remote);
            let claim = name.map(match shown {
                Shown::Http => Claim::Host,
                Shown::Tls | Shown::Other => Claim::Sni,
            });
            if let Some(judgement) = egress.judgement(holder, ends, reached, judged, false) {
                self.events.tell(|| Event::Verified { flow: id, claim, judgement });
            }
        }
        let Passage::Refused(cause) = passage else { return true };
        self.turns.wake(meta);
        if let Some(entry) = self.flows.entry(id) {
            self.events.flow_refused(entry, Refusal::Egress(cause));
        }
        self.actions.push_back(HostAction::Close { flow: id, reset: false });
        self.note_discard(DiscardReason::EgressUnverified);
        false
    }

    /// Gives a guest whose first bytes were refused its reply and the end; nothing for other flows.
    pub(in crate::stack) fn pump_refused(&mut self, id: FlowId, now: Instant) {
        if let Some((_, flow)) = self.flows.tcp_mut(id) {
            let pumped = flow.pump_refused(&mut self.engine, now);
            self.note(pumped);
        }
    }
}

impl Egress {
    /// Who looks at the first bytes of a connection to `port`, if anybody does.
    pub(super) fn verifier(
        &mut self,
        holder: Holder,
        verification: Verification,
        port: u16,
    ) -> Option<Verifier> {
        let judge = self.judge(holder)?;
        let policy = judge.policy();
        let is_open = policy.default_action() == Action::Allow;
        let may_hide_name = policy.settings().ech.unwrap_or(is_open);
        let mut verifier = Verifier::new(verification, port, may_hide_name)?;
        if judge.is_audit() {
            verifier.be_hasty();
        }
        Some(verifier)
    }
}
