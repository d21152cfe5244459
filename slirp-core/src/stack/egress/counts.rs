//! What the policies of all guests have decided, and what they hold.

use core::time::Duration;

use super::{Egress, Guest};
use crate::egress::{Action, Cause, FlowVerdict, Judged, Shown};
use crate::journal::QuestionEnding;
use crate::member::MemberId;
use crate::policy::Protocol;
use crate::share::Holder;
use crate::stats::{Outcome, PolicyStats};

impl Guest {
    fn stats(&self) -> PolicyStats {
        let policy = self.judge.policy();
        let mut questions = self.counted.questions.clone();
        questions.open = self.judge.questions().count() as u64;
        PolicyStats {
            questions,
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

    /// Counts the end of a question, which was open for `held`.
    pub(super) fn count_ended(&mut self, holder: Holder, ending: &QuestionEnding, held: Duration) {
        let outcome = match ending {
            QuestionEnding::Decided { decision, .. } => match decision.action {
                Action::Allow => Outcome::Allowed,
                Action::Ask | Action::Deny => Outcome::Denied,
            },
            QuestionEnding::TimedOut => Outcome::TimedOut,
            QuestionEnding::NoApprover => Outcome::NoApprover,
            QuestionEnding::PolicyChanged | QuestionEnding::MemberLeft => Outcome::Revoked,
        };
        if let Some(guest) = self.guests.get_mut(&holder) {
            guest.counted.questions.count(outcome, held);
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
            let mut stats = guest.stats();
            (stats.bindings, stats.names, stats.distinct_names) = (0, 0, 0);
            stats.questions.open = 0;
            self.gone.add(&stats);
        }
    }
}
