//! The requests of a [`Handle`] for threads that block until the answer.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::Handle;
use crate::egress::{
    Attempt, DecideError, Decided, Decision, EgressPolicy, Explanation, PendingQuestion, QuestionId,
};
use crate::event::{FlowId, ForwardId};
use crate::host::forward::{Forward, ForwardError, Opening};
use crate::host::inner::settings::{SpliceRules, SplicesError};
use crate::host::mailbox::{EgressError, FlowPage, JudgedFlowPage, NamePage, NewMember};
use crate::member::{Member, MemberError, MemberId};
use crate::rates::Rates;
use crate::stack::{EgressState, Established, Revision};
use crate::stats::Stats;

/// See [`Handle::blocking`]. Each method mirrors the [`Handle`] method of its name, and returns
/// when the instance has answered. Do not call them from an async task: they would block the
/// runtime's thread.
#[derive(Clone, Copy, Debug)]
pub struct Blocking<'h>(pub(super) &'h Handle);

impl Blocking<'_> {
    /// See [`Handle::stats`].
    pub fn stats(self) -> Option<Stats> {
        wait(self.0.stats())
    }

    /// See [`Handle::stats_by_member`].
    pub fn stats_by_member(self) -> Option<Stats> {
        wait(self.0.stats_by_member())
    }

    /// See [`Handle::add_forward`].
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn add_forward(self, forward: Forward) -> Result<(ForwardId, Forward), ForwardError> {
        wait(self.0.add_forward(forward))
    }

    /// See [`Handle::add_forwards`].
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn add_forwards(
        self,
        forwards: Vec<Forward>,
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        wait(self.0.add_forwards(forwards))
    }

    /// See [`Handle::open_forwards`].
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn open_forwards(
        self,
        rules: Vec<(Forward, Opening)>,
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        wait(self.0.open_forwards(rules))
    }

    /// See [`Handle::set_splices`].
    ///
    /// # Errors
    /// See [`SplicesError`].
    pub fn set_splices(self, rules: SpliceRules) -> Result<(), SplicesError> {
        wait(self.0.set_splices(rules))
    }

    /// See [`Handle::remove_forward`].
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] and [`ForwardError::Ended`].
    pub fn remove_forward(self, id: ForwardId) -> Result<(), ForwardError> {
        wait(self.0.remove_forward(id))
    }

    /// See [`Handle::remove_forwards`].
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] and [`ForwardError::Ended`].
    pub fn remove_forwards(self, first: ForwardId, last: ForwardId) -> Result<(), ForwardError> {
        wait(self.0.remove_forwards(first, last))
    }

    /// See [`Handle::flows`].
    pub fn flows(self, first: u32) -> Option<FlowPage> {
        wait(self.0.flows(first))
    }

    /// See [`Handle::list_forwards`].
    pub fn list_forwards(self) -> Option<Vec<(ForwardId, Forward)>> {
        wait(self.0.list_forwards())
    }

    /// See [`Handle::add_member`].
    ///
    /// # Errors
    /// See [`MemberError`]; the device is closed.
    pub fn add_member(self, member: NewMember) -> Result<MemberId, MemberError> {
        wait(self.0.add_member(member))
    }

    /// See [`Handle::remove_member`].
    ///
    /// # Errors
    /// [`MemberError::NotShared`], [`MemberError::Unknown`] and [`MemberError::Ended`].
    pub fn remove_member(self, id: MemberId) -> Result<(), MemberError> {
        wait(self.0.remove_member(id))
    }

    /// See [`Handle::set_egress`].
    ///
    /// # Errors
    /// See [`EgressError`].
    pub fn set_egress(
        self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        established: Established,
    ) -> Result<Revision, EgressError> {
        wait(self.0.set_egress(member, policy, established))
    }

    /// See [`Handle::replace_egress`].
    ///
    /// # Errors
    /// See [`EgressError`].
    pub fn replace_egress(
        self,
        member: Option<MemberId>,
        replaced: Revision,
        policy: EgressPolicy,
        established: Established,
    ) -> Result<Revision, EgressError> {
        wait(self.0.replace_egress(member, replaced, policy, established))
    }

    /// See [`Handle::egress`].
    ///
    /// # Errors
    /// [`EgressError::UnknownMember`] and [`EgressError::Ended`].
    pub fn egress(self, member: Option<MemberId>) -> Result<Option<EgressState>, EgressError> {
        wait(self.0.egress(member))
    }

    /// See [`Handle::explain`].
    pub fn explain(self, attempt: Attempt, guest: Option<IpAddr>) -> Option<Explanation> {
        wait(self.0.explain(attempt, guest))
    }

    /// See [`Handle::learned_names`].
    pub fn learned_names(
        self,
        member: Option<MemberId>,
        first: u32,
        count: u32,
    ) -> Option<NamePage> {
        wait(self.0.learned_names(member, first, count))
    }

    /// See [`Handle::judged_flows`].
    pub fn judged_flows(self, first: u32) -> Option<JudgedFlowPage> {
        wait(self.0.judged_flows(first))
    }

    /// See [`Handle::cut`].
    pub fn cut(self, flow: FlowId) -> Option<bool> {
        wait(self.0.cut(flow))
    }

    /// See [`Handle::reopen_audit`].
    pub fn reopen_audit(self, file: OwnedFd) -> bool {
        wait(self.0.reopen_audit(file))
    }

    /// See [`Handle::questions`].
    pub fn questions(self) -> Option<Vec<PendingQuestion>> {
        wait(self.0.questions())
    }

    /// See [`Handle::decide`].
    ///
    /// # Errors
    /// See [`DecideError`].
    pub fn decide(self, question: QuestionId, decision: Decision) -> Result<Decided, DecideError> {
        wait(self.0.decide(question, decision))
    }

    /// See [`Handle::set_approvers`].
    pub fn set_approvers(self, count: usize) {
        wait(self.0.set_approvers(count));
    }

    /// See [`Handle::set_rates`].
    pub fn set_rates(self, member: Option<MemberId>, rates: Rates) -> bool {
        wait(self.0.set_rates(member, rates))
    }

    /// See [`Handle::rates`].
    pub fn rates(self, member: Option<MemberId>) -> Option<Rates> {
        wait(self.0.rates(member))
    }

    /// See [`Handle::members`].
    pub fn members(self) -> Option<Vec<(MemberId, Member)>> {
        wait(self.0.members())
    }
}

/// Blocks the thread until `answer` is ready.
fn wait<T>(answer: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut answer = pin!(answer);
    loop {
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
