//! What the policies of all guests have decided, and what they hold.

use super::{Egress, Guest};
use crate::egress::{Cause, FlowVerdict, Judged, Shown};
use crate::member::MemberId;
use crate::policy::Protocol;
use crate::share::Holder;
use crate::stats::PolicyStats;

impl Guest {
    fn stats(&self) -> PolicyStats {
        let policy = self.judge.policy();
        PolicyStats {
            bindings_evicted: self.judge.bindings_evicted(),
            bindings: self.judge.bindings_len() as u64,
            names: self.judge.names_len() as u64,
            distinct_names: self.judge.most_names().into(),
            rules: policy.rule_counts().map(|count| count as u64),
            revision: self.revision.0,
            ..(*self.counted).clone()
        }
    }
}

impl Egress {
    /// Counts a verdict about what a guest begins. What is led to the DNS service is counted as a
    /// query.
    pub(super) fn count(&mut self, holder: Holder, protocol: Protocol, judged: Judged) {
        let is_counted = match judged.verdict {
            FlowVerdict::Pass { .. } | FlowVerdict::Refuse(_) => true,
            // What waits is counted when it is decided.
            FlowVerdict::Resolver | FlowVerdict::Hold | FlowVerdict::Named { .. } => false,
        };
        if is_counted && let Some(guest) = self.guests.get_mut(&holder) {
            guest.counted.verdicts.count(judged.action, judged.cause, protocol);
        }
    }

    /// Counts a verdict about first bytes.
    pub(super) fn count_verified(
        &mut self,
        holder: Holder,
        shown: Shown,
        result: Result<(), Cause>,
    ) {
        if let Some(guest) = self.guests.get_mut(&holder) {
            guest.counted.verified.count(shown, result);
        }
    }

    /// All guests together.
    pub(in crate::stack) fn stats(&self) -> PolicyStats {
        let mut all = (*self.gone).clone();
        for guest in self.guests.values() {
            all.add(&guest.stats());
        }
        if let Some(policy) = &self.policy {
            all.rules = policy.rule_counts().map(|count| count as u64);
            all.revision = self.guests.get(&None).map_or(1, |guest| guest.revision.0);
        }
        all
    }

    /// One guest; `None` if nobody has judged it yet.
    pub(in crate::stack) fn stats_of(&self, holder: Holder) -> Option<PolicyStats> {
        self.guests.get(&holder).map(Guest::stats)
    }

    /// Forgets a member, but not what was decided for it.
    pub(super) fn forget(&mut self, member: MemberId) {
        if let Some(guest) = self.guests.remove(&Some(member)) {
            self.gone.add(&PolicyStats {
                bindings: 0,
                names: 0,
                distinct_names: 0,
                ..guest.stats()
            });
        }
    }
}
