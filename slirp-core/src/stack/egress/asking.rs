//! Flows that wait for somebody's decision.
//!
//! Owns who may decide, which questions are open, and how they end. What a question is about, and
//! what a decision covers, is known to the guest's [`Judge`](crate::egress::Judge). How a flow goes
//! on is in [`release`](super::release).
//!
//! # Life of a held flow
//!
//! | it waits for | then |
//! | --- | --- |
//! | a decision | it is judged again; without one in time it is refused |
//! | the lookup of its name | up to four addresses are tried in turn |
//!
//! A TCP flow that waits holds its SYN as one that connects does, and has no host socket. Each
//! refusal is told at once. Datagrams that would wait are dropped instead: programs repeat them.
//!
//! Without anybody who may decide a flow is refused at once. When the last one leaves, open
//! questions wait [`ALONE_FOR`] for another one.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use super::{Egress, Guest};
use crate::egress::{
    Action, Approver, Cause, DecideError, Decided, Decision, Judged, PendingQuestion, Question,
    QuestionId,
};
use crate::event::FlowId;
use crate::flow::Flow;
use crate::flow::table::Meta;
use crate::journal::{Ends, Event, QuestionEnding};
use crate::policy::Protocol;
use crate::share::Holder;
use crate::stack::Stack;
use crate::time::Instant;

/// How long open questions wait for somebody when the last one who may decide has left.
const ALONE_FOR: Duration = Duration::from_secs(5);
/// Decided questions that are remembered, so that a late decision can be told why it is none
/// (arbitrary: as many as one guest may have open).
const DECIDED_CAP: usize = 64;

/// What a TCP flow waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::stack) enum Wait {
    /// A decision.
    Decision(QuestionId),
    /// The addresses of its name.
    Lookup,
}

/// Who may decide.
#[derive(Default)]
pub(in crate::stack) struct Approvers {
    count: usize,
    /// How long questions wait for somebody to come back.
    alone_until: Option<Instant>,
}

impl Approvers {
    /// How many there are.
    pub(in crate::stack) const fn count(&self) -> usize {
        self.count
    }

    fn is_attended(&self, now: Instant) -> bool {
        self.count > 0 || self.alone_until.is_some_and(|until| now < until)
    }
}

/// What is asked.
#[derive(Default)]
pub(super) struct Asking {
    next: u64,
    /// The last questions that were decided, the oldest first.
    decided: VecDeque<(QuestionId, Action)>,
}

impl Egress {
    /// Forgets a flow that has ended.
    pub(in crate::stack) fn forget_flow(&mut self, meta: &Meta, flow: &Flow, now: Instant) {
        let Flow::Tcp(flow) = flow else { return };
        let remote = meta.key.remote.ip();
        if let Some(guest) = self.guests.get_mut(&meta.permit.holder) {
            guest.judge.close_placeholder(remote, now);
            if flow.is_asking() {
                guest.judge.let_go(meta.id);
            }
        }
        self.releases.forget(meta.id);
    }
}

impl Stack {
    /// Says how many are there who may decide.
    pub fn set_approvers(&mut self, count: usize, now: Instant) {
        let approvers = &mut self.approvers;
        if count > 0 {
            approvers.alone_until = None;
        } else if approvers.count > 0 {
            approvers.alone_until = Some(now + ALONE_FOR);
        }
        approvers.count = count;
        self.schedule_egress(now);
    }

    /// The questions that wait for a decision, the oldest first.
    pub fn questions(&self, now: Instant) -> Vec<PendingQuestion> {
        let guests = self.egress.iter().flat_map(|egress| &egress.guests);
        let questions = guests.flat_map(|(&holder, guest)| {
            guest.judge.questions().map(move |question| question.pending(holder, now))
        });
        let mut questions: Vec<_> = questions.collect();
        questions.sort_unstable_by_key(|question| question.id);
        questions
    }

    /// Takes the decision of somebody, `by` if it is known, about a question. The flows that wait
    /// for it go on or are refused within this call, and so are those of other questions of the
    /// guest that it covers.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn decide(
        &mut self,
        question: QuestionId,
        decision: &Decision,
        by: Option<&Approver>,
        now: Instant,
    ) -> Result<Decided, DecideError> {
        let egress = self.egress.as_mut().ok_or(DecideError::Unknown)?;
        let asks = |(_, guest): &(&Holder, &mut Guest)| guest.judge.question(question).is_some();
        let Some((&holder, guest)) = egress.guests.iter_mut().find(asks) else {
            let mut decided = egress.asking.decided.iter();
            let known = decided.find(|(id, _)| *id == question);
            return Err(known
                .map_or(DecideError::Unknown, |&(_, action)| DecideError::AlreadyDecided(action)));
        };
        let (rule, decided) = guest.judge.decide(question, decision, now)?;
        for other in &decided {
            if egress.asking.decided.len() >= DECIDED_CAP {
                egress.asking.decided.pop_front();
            }
            egress.asking.decided.push_back((other.id, decision.action));
        }
        let own = decided.iter().find(|other| other.id == question);
        let pending = own.map(|own| own.pending(holder, now)).ok_or(DecideError::Unknown)?;
        let ending = QuestionEnding::Decided { decision: *decision, by: by.cloned() };
        self.end_questions(holder, decided, &ending, now);
        self.schedule_egress(now);
        Ok(Decided { question: pending, rule })
    }

    /// Ends questions: their flows go on or are refused.
    pub(super) fn end_questions(
        &mut self,
        holder: Holder,
        questions: Vec<Question>,
        ending: &QuestionEnding,
        now: Instant,
    ) {
        for question in questions {
            if let Some(egress) = &mut self.egress {
                egress.count_ended(holder, ending, question.held(now));
            }
            self.events.tell(|| Event::QuestionEnded {
                question: Box::new(question.pending(holder, now)),
                ending: ending.clone(),
            });
            for flow in question.flows {
                match ending {
                    QuestionEnding::Decided { .. } | QuestionEnding::PolicyChanged => {
                        self.go_on(flow, now);
                    }
                    QuestionEnding::TimedOut => {
                        self.refuse_held(flow, Judged::refusal(Cause::AskTimeout));
                    }
                    QuestionEnding::NoApprover => {
                        self.refuse_held(flow, Judged::refusal(Cause::NoApprover));
                    }
                    QuestionEnding::MemberLeft => {}
                }
            }
        }
    }

    /// Ends the questions that nobody decides any more.
    pub(super) fn end_due_questions(&mut self, now: Instant) {
        let is_left = self.approvers.alone_until.is_some_and(|until| until <= now);
        if is_left {
            self.approvers.alone_until = None;
        }
        let Some(egress) = &mut self.egress else { return };
        let mut due = Vec::new();
        for (&holder, guest) in &mut egress.guests {
            due.push((holder, guest.judge.take_expired(now), QuestionEnding::TimedOut));
            if is_left {
                due.push((holder, guest.judge.take_questions(), QuestionEnding::NoApprover));
            }
        }
        for (holder, questions, ending) in due {
            self.end_questions(holder, questions, &ending, now);
        }
    }

    /// Another policy is in force for these guests: ends the questions that it does not ask.
    pub(super) fn end_unasked(&mut self, guests: &BTreeSet<Holder>, now: Instant) {
        for &holder in guests {
            let guest = self.egress.as_mut().and_then(|egress| egress.guests.get_mut(&holder));
            let unasked = guest.map_or(Vec::new(), |guest| guest.judge.take_unasked(now));
            self.end_questions(holder, unasked, &QuestionEnding::PolicyChanged, now);
        }
    }

    /// When [`end_due_questions`](Self::end_due_questions) has something to do but for questions
    /// whose time is over.
    pub(super) const fn alone_until(&self) -> Option<Instant> {
        self.approvers.alone_until
    }

    /// Finds or opens the question about a flow to `reached`, which `rule` asks about.
    ///
    /// # Errors
    /// Why nobody is asked.
    pub(super) fn ask(
        &mut self,
        holder: Holder,
        ends: Ends,
        reached: SocketAddr,
        rule: Option<u32>,
        now: Instant,
    ) -> Result<QuestionId, Cause> {
        if !self.approvers.is_attended(now) {
            return Err(Cause::NoApprover);
        }
        let egress = self.egress.as_mut().ok_or(Cause::NoApprover)?;
        let next = QuestionId(egress.asking.next);
        let judge = egress.judge(holder).ok_or(Cause::NoApprover)?;
        let id = judge.ask(ends.guest.ip(), ends.protocol, reached, rule, next, now)?;
        if id == next {
            let question = judge.question(id).map(|question| question.pending(holder, now));
            egress.asking.next += 1;
            if let Some(mut question) = question {
                question.flows += u32::from(ends.protocol == Protocol::Tcp);
                self.events.tell(|| Event::QuestionOpened(Box::new(question)));
            }
            self.schedule_egress(now);
        }
        Ok(id)
    }

    /// A flow that was opened has to wait.
    pub(in crate::stack) fn hold(&mut self, id: FlowId, wait: Wait, now: Instant) {
        let (Some(egress), Some(entry)) = (&mut self.egress, self.flows.entry(id)) else { return };
        let remote = entry.meta.key.remote.ip();
        if let Some(judge) = egress.judge(entry.meta.permit.holder) {
            judge.open_placeholder(remote);
            if let Wait::Decision(question) = wait {
                judge.hold(question, id);
            }
        }
        if wait == Wait::Lookup {
            self.go_on(id, now);
        }
    }
}
