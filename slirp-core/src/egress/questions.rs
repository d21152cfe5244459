//! The open questions of one guest.
//!
//! Owns which questions are open, which flows wait for each, and the caps on both. What was decided
//! is kept in [`decisions`](super::decisions); whether anybody is there to decide is for the stack
//! to know.
//!
//! A question is about a name or address, a port and a protocol. Flows with the same key wait for
//! the same question, and its time runs from the first of them. It stays open until it is decided
//! or its time is over, even if no flow waits any more: programs retry. Nothing is remembered of a
//! question that nobody has decided.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::approval::{PendingQuestion, QuestionId};
use super::decisions::Key;
use super::rule::Source;
use super::verdict::Cause;
use crate::event::FlowId;
use crate::member::MemberId;
use crate::time::Instant;

/// Questions that one guest may have open (arbitrary: more than anybody can read).
const QUESTIONS_CAP: usize = 64;
/// Flows of one guest that may wait for decisions (arbitrary: a browser opens some six for each
/// host; about 1 KiB each).
const HELD_CAP: usize = 256;
/// How long a question is open if the policy does not say. Linux gives a connection up after 127 s.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_mins(1);

/// An open question.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) id: QuestionId,
    /// The address of the flow that it was opened for.
    pub(crate) guest: IpAddr,
    pub(crate) key: Key,
    rule: Option<Source>,
    asked_at: Instant,
    expires_at: Instant,
    /// TCP flows that wait.
    pub(crate) flows: Vec<FlowId>,
}

impl Question {
    /// How long it has been open.
    pub(crate) fn held(&self, now: Instant) -> Duration {
        now.saturating_since(self.asked_at)
    }

    /// The question as people see it.
    pub(crate) fn pending(&self, member: Option<MemberId>, now: Instant) -> PendingQuestion {
        PendingQuestion {
            id: self.id,
            member,
            guest: self.guest,
            subject: self.key.subject.clone(),
            port: self.key.port,
            protocol: self.key.protocol,
            rule: self.rule.clone(),
            held: self.held(now),
            expires_in: self.expires_at.saturating_since(now),
            flows: u32::try_from(self.flows.len()).unwrap_or(u32::MAX),
        }
    }
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Questions {
    open: BTreeMap<QuestionId, Question>,
}

impl Questions {
    /// Finds the question with this key, or opens one with the id `next`, for at most `timeout`.
    /// With `holds` one more flow is about to wait for it.
    ///
    /// # Errors
    /// [`Cause::AskFull`].
    pub(super) fn ask(
        &mut self,
        guest: IpAddr,
        key: Key,
        rule: Option<Source>,
        (next, timeout, holds): (QuestionId, Duration, bool),
        now: Instant,
    ) -> Result<QuestionId, Cause> {
        if holds && self.held() >= HELD_CAP {
            return Err(Cause::AskFull);
        }
        if let Some(open) = self.open.values().find(|open| open.key == key) {
            return Ok(open.id);
        }
        if self.open.len() >= QUESTIONS_CAP {
            return Err(Cause::AskFull);
        }
        let expires_at = now + timeout;
        let (id, asked_at, flows) = (next, now, Vec::new());
        let question = Question { id, guest, key, rule, asked_at, expires_at, flows };
        self.open.insert(id, question);
        Ok(id)
    }

    /// Flows that wait.
    fn held(&self) -> usize {
        self.open.values().map(|question| question.flows.len()).sum()
    }

    /// A flow waits for a question.
    pub(super) fn hold(&mut self, id: QuestionId, flow: FlowId) {
        if let Some(question) = self.open.get_mut(&id) {
            question.flows.push(flow);
        }
    }

    /// A flow waits no more.
    pub(super) fn let_go(&mut self, flow: FlowId) {
        for question in self.open.values_mut() {
            question.flows.retain(|&held| held != flow);
        }
    }

    pub(super) fn get(&self, id: QuestionId) -> Option<&Question> {
        self.open.get(&id)
    }

    /// The open questions, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Question> {
        self.open.values()
    }

    /// Takes the questions out that `is_over` says so of.
    pub(super) fn take(&mut self, mut is_over: impl FnMut(&Question) -> bool) -> Vec<Question> {
        self.open.extract_if(.., |_, question| is_over(question)).map(|(_, over)| over).collect()
    }

    /// Takes the questions out whose time is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Question> {
        self.take(|question| question.expires_at <= now)
    }

    /// When the first question's time is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|question| question.expires_at).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::approval::Subject;
    use super::*;
    use crate::protocol::Protocol;

    const NOW: Instant = Instant::ZERO;
    const TIMEOUT: Duration = Duration::from_secs(60);

    fn key(port: u16) -> Key {
        let subject = Subject::Address([192, 0, 2, 1].into());
        Key { subject, port, protocol: Protocol::Tcp }
    }

    fn flow(index: u32) -> FlowId {
        FlowId { index, generation: 1 }
    }

    fn ask(questions: &mut Questions, next: u64, port: u16, now: Instant) -> Result<u64, Cause> {
        let guest = [10, 0, 2, 100].into();
        let opened = (QuestionId(next), TIMEOUT, true);
        questions.ask(guest, key(port), None, opened, now).map(|id| id.0)
    }

    #[test]
    fn equal_keys_share_a_question_whose_time_runs_from_the_first() {
        let mut questions = Questions::default();
        assert_eq!(ask(&mut questions, 0, 443, NOW), Ok(0));
        questions.hold(QuestionId(0), flow(1));
        let later = NOW + Duration::from_secs(7);
        assert_eq!(ask(&mut questions, 1, 443, later), Ok(0));
        questions.hold(QuestionId(0), flow(2));
        assert_eq!(ask(&mut questions, 1, 80, later), Ok(1));
        let pending = questions.get(QuestionId(0)).unwrap().pending(None, later);
        assert_eq!((pending.flows, pending.held.as_secs()), (2, 7));
        assert_eq!(pending.expires_in.as_secs(), 53);
        assert_eq!(questions.poll_timeout(), Some(NOW + TIMEOUT));
        let expired = questions.take_expired(NOW + TIMEOUT);
        assert_eq!(expired.len(), 1);
        assert_eq!(expired[0].flows, [flow(1), flow(2)]);
        // Nothing is remembered.
        assert_eq!(ask(&mut questions, 2, 443, NOW + TIMEOUT), Ok(2));
    }

    proptest! {
        #[test]
        fn caps_hold_whatever_comes(
            steps in prop::collection::vec((0_u8..4, 0_u16..100, 0_u32..400), 0..2000),
        ) {
            let mut questions = Questions::default();
            let (mut next, mut now, mut held) = (0, NOW, BTreeMap::new());
            for (number, (step, port, index)) in (1..).zip(steps) {
                match step {
                    0 | 1 => {
                        let before = questions.held();
                        match ask(&mut questions, next, port, now) {
                            Ok(id) => {
                                next = next.max(id + 1);
                                let waiting = FlowId { index, generation: number };
                                questions.hold(QuestionId(id), waiting);
                                held.insert(waiting, id);
                            }
                            Err(cause) => {
                                prop_assert_eq!(cause, Cause::AskFull);
                                let is_full = questions.open.len() == QUESTIONS_CAP;
                                prop_assert!(is_full || before == HELD_CAP);
                            }
                        }
                    }
                    2 => {
                        if let Some((waiting, _)) = held.pop_first() {
                            questions.let_go(waiting);
                        }
                    }
                    _ => {
                        now = now + Duration::from_secs(1);
                        for over in questions.take_expired(now) {
                            held.retain(|_, id| *id != over.id.0);
                        }
                    }
                }
                prop_assert!(questions.open.len() <= QUESTIONS_CAP);
                prop_assert!(questions.held() <= HELD_CAP);
                prop_assert_eq!(questions.held(), held.len());
            }
        }
    }
}
