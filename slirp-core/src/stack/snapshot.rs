//! The counters, with what the stack holds at one moment.
//!
//! Owns the look at each component. Costs as much as there are kinds of things to count, and a
//! little for each guest that is judged, but nothing for each flow.

use super::Stack;
use crate::member::MemberId;
use crate::stats::{MemberStats, PerProtocol, Stats};

impl Stack {
    /// The counters so far, with what the stack holds now.
    pub fn snapshot(&self) -> Stats {
        Stats {
            names: self.dns.stats().clone(),
            open: self.admission.open(None),
            approvers: self.approvers.count() as u64,
            rates: self.rates(None),
            ring_memory: self.engine.ring_memory() as u64,
            policy: self.egress.as_ref().map(|egress| egress.stats()),
            ..self.stats.clone()
        }
    }

    /// What a member of a shared network holds now.
    pub fn member_stats(&self, id: MemberId) -> MemberStats {
        let open: PerProtocol<u64> = self.admission.open(Some(Some(id)));
        let policy = self.egress.as_ref().and_then(|egress| egress.stats_of(Some(id)));
        MemberStats::new(id, open, policy)
    }
}
