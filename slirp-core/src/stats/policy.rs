//! Counters of an egress policy.

use core::time::Duration;

use super::histogram::Histogram;
use crate::egress::{Action, Cause, Shown};
use crate::protocol::Protocol;

/// What the egress policy of one guest, or of all guests together, has decided and holds.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct PolicyStats {
    /// Verdicts about what guests and remotes begin.
    pub verdicts: VerdictCounters,
    /// Verdicts about first bytes.
    pub verified: VerifiedCounters,
    /// Bindings that had to make room for others.
    pub bindings_evicted: u64,
    /// How questions about flows have ended.
    pub questions: QuestionStats,
    /// How many bindings of names to addresses there are at this moment.
    pub bindings: u64,
    /// How many names have one.
    pub names: u64,
    /// The most different names that were looked up under one wildcard within the hour, about. Of
    /// all guests together: those of the guest with most.
    pub distinct_names: u64,
    /// How many rules of each action are in force, in the order of [`Action::ALL`]. Of all guests
    /// together: those of the policy that holds where a member has none of its own.
    pub rules: [u64; Action::ALL.len()],
    /// How often a policy has come into force.
    pub revision: u64,
}

impl PolicyStats {
    /// Adds what another guest's policy has decided and holds. Rules and revision stay.
    pub(crate) fn add(&mut self, other: &Self) {
        self.verdicts.add(&other.verdicts);
        self.verified.add(&other.verified);
        self.questions.add(&other.questions);
        self.bindings_evicted += other.bindings_evicted;
        self.bindings += other.bindings;
        self.names += other.names;
        self.distinct_names = self.distinct_names.max(other.distinct_names);
    }
}

/// Verdicts by what the rules say, why, and for which protocol. In audit mode a verdict may say
/// otherwise than what was done.
#[derive(Clone, Debug)]
pub struct VerdictCounters([[[u64; Protocol::ALL.len()]; Cause::ALL.len()]; Action::ALL.len()]);

impl VerdictCounters {
    pub(crate) const fn count(&mut self, action: Action, cause: Cause, protocol: Protocol) {
        self.0[action as usize][cause as usize][protocol as usize] += 1;
    }

    /// How often that was the verdict.
    pub const fn value(&self, action: Action, cause: Cause, protocol: Protocol) -> u64 {
        self.0[action as usize][cause as usize][protocol as usize]
    }

    /// Every verdict that there can be, with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (Action, Cause, Protocol, u64)> {
        Action::ALL.into_iter().flat_map(move |action| {
            Cause::ALL.iter().flat_map(move |&cause| {
                Protocol::ALL.iter().map(move |&protocol| {
                    (action, cause, protocol, self.value(action, cause, protocol))
                })
            })
        })
    }

    fn add(&mut self, other: &Self) {
        let own = self.0.as_flattened_mut().as_flattened_mut();
        for (own, more) in own.iter_mut().zip(other.0.as_flattened().as_flattened()) {
            *own += more;
        }
    }
}

impl Default for VerdictCounters {
    fn default() -> Self {
        Self([[[0; Protocol::ALL.len()]; Cause::ALL.len()]; Action::ALL.len()])
    }
}

/// Verdicts about first bytes by what they were, and why they were refused, if they were.
#[derive(Clone, Debug)]
pub struct VerifiedCounters([[u64; 1 + Cause::ALL.len()]; Shown::ALL.len()]);

impl VerifiedCounters {
    pub(crate) fn count(&mut self, shown: Shown, result: Result<(), Cause>) {
        let result = result.map_or_else(|cause| 1 + cause as usize, |()| 0);
        self.0[shown as usize][result] += 1;
    }

    /// Every verdict that there can be, with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (Shown, Result<(), Cause>, u64)> {
        Shown::ALL.iter().zip(&self.0).flat_map(|(&shown, counts)| {
            let results = [Ok(())].into_iter().chain(Cause::ALL.iter().map(|&cause| Err(cause)));
            results.zip(counts).map(move |(result, &count)| (shown, result, count))
        })
    }

    fn add(&mut self, other: &Self) {
        for (own, more) in self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened()) {
            *own += more;
        }
    }
}

impl Default for VerifiedCounters {
    fn default() -> Self {
        Self([[0; 1 + Cause::ALL.len()]; Shown::ALL.len()])
    }
}

crate::words::words! {
    /// How a question about flows ended.
    pub enum Outcome:
    /// Somebody has allowed it.
    Allowed => "allow",
    /// Somebody has denied it.
    Denied => "deny",
    /// Nobody has decided in time.
    TimedOut => "ask-timeout",
    /// The last one who may decide has left.
    NoApprover => "no-approver",
    /// Another policy does not ask, or the member of a shared network has left.
    Revoked => "revoked",
}

/// Questions about flows.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct QuestionStats {
    ended: [u64; Outcome::ALL.len()],
    /// How long they were open.
    pub held: Histogram,
    /// Those that are open at this moment.
    pub open: u64,
}

impl QuestionStats {
    pub(crate) fn count(&mut self, outcome: Outcome, held: Duration) {
        self.ended[outcome as usize] += 1;
        self.held.note(held);
    }

    /// How often they ended in each way.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.iter().copied().zip(self.ended)
    }

    fn add(&mut self, other: &Self) {
        for (own, more) in self.ended.iter_mut().zip(other.ended) {
            *own += more;
        }
        self.held.add(&other.held);
        self.open += other.open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_a_counter_of_its_own() {
        let (mut one, mut other) = (PolicyStats::default(), PolicyStats::default());
        one.verdicts.count(Action::Deny, Cause::NoName, Protocol::Udp);
        other.verdicts.count(Action::Deny, Cause::NoName, Protocol::Udp);
        other.verdicts.count(Action::Allow, Cause::Rule, Protocol::Tcp);
        other.verified.count(Shown::Tls, Ok(()));
        other.verified.count(Shown::Http, Err(Cause::Revoked));
        other.questions.count(Outcome::TimedOut, Duration::from_mins(1));
        one.add(&other);
        let ended: Vec<_> = one.questions.iter().filter(|ended| ended.1 > 0).collect();
        assert_eq!((ended, one.questions.held.count()), (vec![(Outcome::TimedOut, 1)], 1));
        let verdicts: Vec<_> = one.verdicts.iter().filter(|verdict| verdict.3 > 0).collect();
        let expected = [
            (Action::Allow, Cause::Rule, Protocol::Tcp, 1),
            (Action::Deny, Cause::NoName, Protocol::Udp, 2),
        ];
        assert_eq!(verdicts, expected);
        let verified: Vec<_> = one.verified.iter().filter(|verified| verified.2 > 0).collect();
        assert_eq!(verified, [(Shown::Tls, Ok(()), 1), (Shown::Http, Err(Cause::Revoked), 1)]);
    }

    #[test]
    fn words_have_the_order_of_their_counters() {
        for (index, &cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action as usize, index);
        }
    }
}
