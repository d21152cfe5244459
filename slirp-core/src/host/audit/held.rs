//! Equal refusals within a second: one line with a count.
//!
//! Owns which refusals are equal (guest, destination or name, port, protocol and cause) and how
//! long the first of them waits for others. The line is about the first. A program that tries again
//! and again, or a guest that floods, costs one line a second for each of its destinations. What
//! passes is never held: each flow has lines of its own.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::line::is_denied;
use crate::egress::{Action, Cause, Name};
use crate::journal::{Claim, Event, Lookup};
use crate::member::MemberId;
use crate::protocol::Protocol;

/// How long a refusal waits for equal ones.
const WITHIN: Duration = Duration::from_secs(1);
/// Different refusals that wait (arbitrary; some 600 bytes each). Beyond, the oldest waits no
/// longer.
const HELD_CAP: usize = 1024;

/// What equal refusals have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Flow {
        guest: IpAddr,
        member: Option<MemberId>,
        protocol: Protocol,
        reached: SocketAddr,
        is_inbound: bool,
        cause: Cause,
        claim: Option<Name>,
    },
    Lookup {
        guest: Option<IpAddr>,
        member: Option<MemberId>,
        name: Option<String>,
        kind: Option<u16>,
        lookup: Lookup,
    },
}

impl Key {
    fn of(event: &Event) -> Option<Self> {
        let (judgement, claim) = match event {
            Event::Judged { flow: None, judgement } => (judgement, None),
            Event::Verified { claim, judgement, .. } => (judgement, claim.as_ref()),
            Event::Answered { guest, member, question, lookup: Some(lookup), would, .. } => {
                let question = question.as_ref();
                return (is_denied(*lookup) || would.is_some()).then(|| Self::Lookup {
                    guest: *guest,
                    member: *member,
                    name: question.map(|question| question.name.clone()),
                    kind: question.map(|question| question.kind),
                    lookup: *lookup,
                });
            }
            Event::Opened { .. }
            | Event::Connected { .. }
            | Event::Refused { .. }
            | Event::Unsent { .. }
            | Event::Closed { .. }
            | Event::Judged { flow: Some(_), .. }
            | Event::PolicySet { .. }
            | Event::QuestionOpened(_)
            | Event::QuestionEnded { .. }
            | Event::ManyNames { .. }
            | Event::RateLimited { .. }
            | Event::Asked { .. }
            | Event::Answered { lookup: None, .. }
            | Event::Discarded { .. } => return None,
        };
        let is_refused = judgement.is_enforced && judgement.action == Action::Deny;
        is_refused.then(|| Self::Flow {
            guest: judgement.ends.guest.ip(),
            member: judgement.member,
            protocol: judgement.ends.protocol,
            reached: judgement.reached,
            is_inbound: judgement.is_inbound,
            cause: judgement.cause,
            claim: claim.map(|(Claim::Sni(name) | Claim::Host(name))| name.clone()),
        })
    }
}

/// A refusal that waits, and how many equal ones there were.
#[derive(Debug)]
pub(super) struct Waiting {
    /// When the first one was.
    pub(super) at: SystemTime,
    pub(super) event: Event,
    pub(super) count: u64,
    until: Instant,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Held {
    waiting: HashMap<Key, Waiting>,
    /// The first to be written first.
    order: VecDeque<Key>,
}

impl Held {
    /// Keeps `event` if it is a refusal. Gives it back if it is not, and the oldest refusal where
    /// there are too many.
    pub(super) fn hold(&mut self, at: SystemTime, event: Event, now: Instant) -> Option<Waiting> {
        let key = Key::of(&event);
        let waiting = Waiting { at, event, count: 1, until: now + WITHIN };
        let Some(key) = key else { return Some(waiting) };
        if let Some(known) = self.waiting.get_mut(&key) {
            known.count += 1;
            return None;
        }
        let oldest = if self.waiting.len() < HELD_CAP { None } else { self.pop() };
        self.order.push_back(key.clone());
        self.waiting.insert(key, waiting);
        oldest
    }

    /// When the next refusal has waited long enough.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.waiting.get(self.order.front()?).map(|waiting| waiting.until)
    }

    /// The next refusal that has waited long enough.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Waiting> {
        if self.due_at()? <= now { self.pop() } else { None }
    }

    /// The next refusal.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.remove(&self.order.pop_front()?)
    }
}
