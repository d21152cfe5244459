//! The policy at run time: exchanged as a whole, or rule by rule, for good or for some time.
//!
//! Owns the numbers of rules that clients give (`api:7`) and when such a rule ends. The policy in
//! force is the data thread's; each change replaces the revision that it was made from, so that no
//! change of another client or program is lost. Nothing of it outlives the instance.
//!
//! A text has no ends of rules. So a policy that repeats a rule that ends repeats its end, too: who
//! edits the text around such a rule does not make it last.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::requests::{Refusal, RuleName};
use crate::egress::{Action, Direction, EgressPolicy, EgressRule, Source};
use crate::host::handle::Handle;
use crate::instance::EgressError;
use crate::member::MemberId;
use crate::policy::Policy;
use crate::stack::{EgressState, Established, Revision};

/// The door of clients' rules.
const DOOR: &str = "api";
/// How long a rule that could not be removed at its end is left alone (arbitrary).
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Rules {
    handle: Handle,
    /// What no policy can allow.
    switches: Policy,
    state: Mutex<State>,
    /// There is a rule that ends.
    has_news: Notify,
}

#[derive(Default, Debug)]
struct State {
    /// The number of the last rule that a client gave.
    last: u32,
    limited: Vec<Limited>,
}

/// A rule that ends.
#[derive(Clone, Debug)]
struct Limited {
    member: Option<MemberId>,
    rule: EgressRule,
    ends: Instant,
}

impl Limited {
    /// Whether it may be in the policy of `member`: a member may have that of all.
    fn holds_for(&self, member: Option<MemberId>) -> bool {
        self.member.is_none() || self.member == member
    }
}

impl Rules {
    pub(super) fn new(handle: Handle, switches: Policy) -> Self {
        Self { handle, switches, state: Mutex::default(), has_news: Notify::new() }
    }

    /// The policy in force.
    pub(super) async fn state(&self, member: Option<MemberId>) -> Result<EgressState, Refusal> {
        self.handle.egress(member).await.map_err(refusal)?.ok_or(Refusal::NoPolicy)
    }

    /// For how long rules will hold that end.
    pub(super) async fn ends(&self, member: Option<MemberId>) -> Vec<(Source, Duration)> {
        let state = self.state.lock().await;
        let now = Instant::now();
        let limited = state.limited.iter().filter(|limited| limited.holds_for(member));
        limited.map(|limited| (limited.rule.source.clone(), limited.ends - now)).collect()
    }

    /// Puts `policy` in place of all rules. A rule that ends keeps its end if the policy has it.
    /// Returns how many flows were cut.
    pub(super) async fn set(
        &self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        replaced: Option<Revision>,
        established: Established,
    ) -> Result<(Revision, u64), Refusal> {
        let mut state = self.state.lock().await;
        self.check(&policy)?;
        state.last = last_number(&policy).max(state.last);
        let limited = if state.limited.is_empty() {
            Vec::new()
        } else {
            match self.state(member).await {
                Ok(before) => repeated(&state.limited, member, &before.policy, &policy),
                Err(Refusal::NoPolicy) => state.limited.clone(),
                Err(refusal) => return Err(refusal),
            }
        };
        let set = match replaced {
            Some(replaced) => {
                self.handle.replace_egress(member, replaced, policy, established).await
            }
            None => self.handle.set_egress(member, policy, established).await,
        };
        let revision = set.map_err(refusal)?;
        state.limited = limited;
        drop(state);
        match established {
            Established::Cut => Ok((revision, self.cut(member).await?)),
            Established::Keep => Ok((revision, 0)),
        }
    }

    /// Adds a rule, for as long as `limit` says. Returns its id.
    pub(super) async fn add(
        &self,
        member: Option<MemberId>,
        rule: &str,
        limit: Option<Duration>,
    ) -> Result<(Source, Revision), Refusal> {
        let mut state = self.state.lock().await;
        loop {
            let before = self.state(member).await?;
            let number = last_number(&before.policy).max(state.last).saturating_add(1);
            let one = EgressPolicy::from_entry(DOOR, number, "bad arguments.rule", rule)
                .map_err(|errors| Refusal::Words(errors.to_string()))?;
            let [new] = one.rules() else {
                let wanted = "a rule, neither a setting nor a default";
                return Err(Refusal::Argument { name: "rule", wanted });
            };
            let sum = before.policy.merge(&one);
            let sum = sum.map_err(|errors| Refusal::Words(errors.to_string()))?;
            self.check(&sum)?;
            // What is allowed besides takes nothing from anybody, but a first rule about clients
            // has all others refused.
            let established = match (new.action, new.direction) {
                (Action::Allow, Direction::Out) => Established::Keep,
                (Action::Allow, Direction::In) | (Action::Ask | Action::Deny, _) => {
                    Established::Cut
                }
            };
            match self.handle.replace_egress(member, before.revision, sum, established).await {
                Err(EgressError::Changed(_)) => {}
                Err(error) => return Err(refusal(error)),
                Ok(revision) => {
                    state.last = number;
                    if let Some(limit) = limit {
                        let ends = Instant::now() + limit;
                        state.limited.push(Limited { member, rule: new.clone(), ends });
                        self.has_news.notify_one();
                    }
                    return Ok((new.source.clone(), revision));
                }
            }
        }
    }

    /// Removes a rule. Returns the id of the first that was removed.
    pub(super) async fn remove(
        &self,
        member: Option<MemberId>,
        which: &RuleName,
    ) -> Result<(Source, Revision), Refusal> {
        let wanted = match which {
            RuleName::Id(_) => None,
            RuleName::Text(text) => {
                let one = EgressPolicy::from_entry(DOOR, 1, "bad arguments.rule", text)
                    .map_err(|errors| Refusal::Words(errors.to_string()))?;
                Some(one.to_text())
            }
        };
        let is_meant = |rule: &EgressRule| match (which, &wanted) {
            (RuleName::Id(id), _) => rule.source.to_string() == *id,
            (RuleName::Text(_), Some(text)) => rule.to_string() == text.trim_end(),
            (RuleName::Text(_), None) => false,
        };
        let mut state = self.state.lock().await;
        let (removed, revision) = self.remove_all(member, &is_meant).await?;
        state.limited.retain(|limited| limited.member != member || !is_meant(&limited.rule));
        Ok((removed, revision))
    }

    async fn remove_all(
        &self,
        member: Option<MemberId>,
        is_meant: &(dyn Fn(&EgressRule) -> bool + Sync),
    ) -> Result<(Source, Revision), Refusal> {
        loop {
            let before = self.state(member).await?;
            let (first, rest, established) =
                without(&before.policy, is_meant).ok_or(Refusal::NoRule)?;
            match self.handle.replace_egress(member, before.revision, rest, established).await {
                Err(EgressError::Changed(_)) => {}
                set => return Ok((first, set.map_err(refusal)?)),
            }
        }
    }

    /// Removes rules when their time is over, for as long as it is polled.
    pub(super) async fn expire(&self) {
        loop {
            let next = self.state.lock().await.limited.iter().map(|limited| limited.ends).min();
            let Some(next) = next else {
                self.has_news.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => self.remove_expired().await,
                () = self.has_news.notified() => {}
            }
        }
    }

    async fn remove_expired(&self) {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        let mut kept = Vec::new();
        for mut limited in std::mem::take(&mut state.limited) {
            if limited.ends > now {
                kept.push(limited);
                continue;
            }
            let is_meant = |rule: &EgressRule| *rule == limited.rule;
            match self.remove_all(limited.member, &is_meant).await {
                // Somebody else has removed it, or the member has left.
                Ok(_) | Err(Refusal::NoRule | Refusal::NoPolicy | Refusal::UnknownMember) => {}
                Err(error) => {
                    tracing::warn!(%error, "a rule cannot be removed at its end");
                    limited.ends = now + AGAIN_AFTER;
                    kept.push(limited);
                }
            }
        }
        state.limited = kept;
    }

    fn check(&self, policy: &EgressPolicy) -> Result<(), Refusal> {
        policy
            .check(&self.switches)
            .map_err(|errors| Refusal::Words(format!("bad arguments.policy: {errors}")))
    }

    /// How many flows a policy has cut that has just come into force.
    async fn cut(&self, member: Option<MemberId>) -> Result<u64, Refusal> {
        loop {
            // Each turn of the data thread looks at some flows.
            if let Some(cut) = self.state(member).await?.cut {
                return Ok(cut);
            }
        }
    }
}

/// The policy without some of its rules, the id of the first of them, and what is to become of
/// flows: what is not denied any more takes nothing from anybody.
fn without(
    policy: &EgressPolicy,
    is_meant: &dyn Fn(&EgressRule) -> bool,
) -> Option<(Source, EgressPolicy, Established)> {
    let meant: Vec<_> = policy.rules().iter().filter(|&rule| is_meant(rule)).collect();
    let first = meant.first()?.source.clone();
    // What was asked about may have been allowed.
    let opens = meant.iter().any(|rule| rule.action != Action::Deny);
    let established = if opens { Established::Cut } else { Established::Keep };
    Some((first, policy.retain(|rule| !is_meant(rule)), established))
}

/// The rules that end once `policy` has replaced `before` for `member`: those of others, and those
/// of the policy that ended before, too. A text stands for several equal rules: as long as one of
/// them lasts, it lasts.
fn repeated(
    limited: &[Limited],
    member: Option<MemberId>,
    before: &EgressPolicy,
    policy: &EgressPolicy,
) -> Vec<Limited> {
    let mut ends = BTreeMap::new();
    for rule in before.rules() {
        let own = limited.iter().find(|limited| limited.holds_for(member) && limited.rule == *rule);
        let own = own.map(|limited| limited.ends);
        let latest = ends.entry(rule.to_string()).or_insert(own);
        *latest = latest.zip(own).map(|(one, other)| one.max(other));
    }
    let of_others = limited.iter().filter(|limited| limited.member != member).cloned();
    let repeated = policy.rules().iter().filter_map(|rule| {
        let ends = (*ends.get(&rule.to_string())?)?;
        Some(Limited { member, rule: rule.clone(), ends })
    });
    of_others.chain(repeated).collect()
}

fn last_number(policy: &EgressPolicy) -> u32 {
    let numbers = policy.rules().iter().filter_map(|rule| match rule.source {
        Source::Entry { door: DOOR, number } => Some(number),
        Source::Entry { .. } | Source::File { .. } => None,
    });
    numbers.max().unwrap_or(0)
}

fn refusal(error: EgressError) -> Refusal {
    match error {
        EgressError::UnknownMember => Refusal::UnknownMember,
        EgressError::Changed(revision) => Refusal::Changed(revision.0),
        EgressError::Ended => Refusal::Ended,
        error @ EgressError::HostAddresses(_) => Refusal::Words(error.to_string()),
    }
}
