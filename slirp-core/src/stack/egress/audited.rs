//! What an egress policy owes to an audit log.
//!
//! Owns when nothing may begin because it could not be written down: then a flow is refused, and
//! the DNS service fails each lookup that a policy is in force for. What is open goes on.

use super::Egress;
use crate::egress::{Cause, FlowVerdict, Judged};
use crate::stack::Stack;
use crate::stack::events::Events;

/// What an egress policy owes to an audit log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum AuditDuty {
    /// Nothing: what finds no place among the events is counted.
    #[default]
    Free,
    /// No flow begins whose verdict finds no place among the events.
    Required,
    /// No flow and no lookup begins: the log cannot be written.
    Failing,
}

impl Stack {
    /// Says what is owed to an audit log from now on: nothing at first. What is open goes on.
    pub fn set_audit_duty(&mut self, duty: AuditDuty) {
        self.dns.set_unaudited(duty == AuditDuty::Failing);
        if let Some(egress) = &mut self.egress {
            egress.duty = duty;
        }
    }
}

impl Egress {
    /// A verdict, or the refusal of what could not be written down.
    pub(super) fn audited(&self, judged: Judged, events: &Events) -> Judged {
        let is_unaudited = match self.duty {
            AuditDuty::Free => false,
            AuditDuty::Required => !events.has_room(),
            AuditDuty::Failing => true,
        };
        match judged.verdict {
            FlowVerdict::Pass { .. } | FlowVerdict::Named { .. } | FlowVerdict::Hold
                if is_unaudited =>
            {
                Judged::refusal(Cause::NoAudit)
            }
            // Lookups are refused one by one.
            FlowVerdict::Pass { .. }
            | FlowVerdict::Named { .. }
            | FlowVerdict::Resolver
            | FlowVerdict::Hold
            | FlowVerdict::Refuse(_) => judged,
        }
    }
}
