//! The handle of a running instance, for embedders and the API socket.
//!
//! Owns [`Handle`], through which other threads send requests to the data thread. They go through
//! its [mailbox](super::mailbox).

mod blocking;

use std::net::IpAddr;
use std::os::fd::OwnedFd;

pub use blocking::Blocking;
use tokio::sync::oneshot;

use super::events::{EventStream, Observer};
use super::forward::{Forward, ForwardError, Opening};
use super::inner::settings::{SpliceRules, SplicesError};
use super::mailbox::{
    Deciders, EgressError, FlowPage, JudgedFlowPage, Mailbox, Message, NamePage, NewMember,
};
use crate::egress::{
    Approver, Attempt, DecideError, Decided, Decision, EgressPolicy, Explanation, PendingQuestion,
    QuestionId,
};
use crate::event::{FlowId, ForwardId};
use crate::journal::Event;
use crate::member::{Member, MemberError, MemberId};
use crate::rates::Rates;
use crate::stack::{EgressState, Established, Revision};
use crate::stats::Stats;

/// The most events that may wait in one [`EventStream`] (arbitrary).
const EVENTS_CAP: usize = 65_536;

/// Controls a running instance. Its requests are futures that work in any runtime;
/// [`blocking`](Self::blocking) has them for threads without one.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: Mailbox,
}

impl Handle {
    pub(crate) const fn new(mailbox: Mailbox) -> Self {
        Self { mailbox }
    }

    /// The requests as blocking calls, for a thread outside of any runtime.
    pub const fn blocking(&self) -> Blocking<'_> {
        Blocking(self)
    }

    /// Asks the instance to end. Returns at once; see
    /// [`Instance::wait`](crate::instance::Instance::wait).
    pub fn shutdown(&self) {
        self.mailbox.send(Message::Shutdown);
    }

    /// The present counters; `None` when the instance has ended.
    pub async fn stats(&self) -> Option<Stats> {
        self.ask(|reply| Message::Stats { by_member: false, reply })?.await.ok()
    }

    /// The present counters, with those of each member of a shared network; `None` when the
    /// instance has ended.
    pub async fn stats_by_member(&self) -> Option<Stats> {
        self.ask(|reply| Message::Stats { by_member: true, reply })?.await.ok()
    }

    /// Opens a port of the host that leads to the guest. The port is open when this returns.
    /// Returns the rule's id, and the rule with the port that was picked for port 0.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn add_forward(
        &self,
        forward: Forward,
    ) -> Result<(ForwardId, Forward), ForwardError> {
        self.add_forwards(vec![forward]).await?.pop().ok_or(ForwardError::Ended)
    }

    /// Opens several ports, or none when one of them cannot be opened. Returns the rules in the
    /// given order, each with its id and with the port that was picked for port 0. The ids are
    /// consecutive numbers.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn add_forwards(
        &self,
        forwards: Vec<Forward>,
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        let answer = self.ask(|reply| Message::AddForwards { forwards, reply });
        answer.ok_or(ForwardError::Ended)?.await.unwrap_or(Err(ForwardError::Ended))
    }

    /// Opens the ports of several rules, or none, as
    /// [`OpenForwards::open_as`](crate::instance::OpenForwards::open_as) does at the start.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn open_forwards(
        &self,
        rules: Vec<(Forward, Opening)>,
    ) -> Result<Vec<(ForwardId, Forward)>, ForwardError> {
        let answer = self.ask(|reply| Message::OpenForwards { rules, reply });
        answer.ok_or(ForwardError::Ended)?.await.unwrap_or(Err(ForwardError::Ended))
    }

    /// Has other rules hold for what is joined socket to socket, or changes nothing. Ports that are
    /// open before and afterwards stay open, and connections live on. Needs
    /// [`Splices::changeable`](crate::instance::Splices::changeable).
    ///
    /// # Errors
    /// See [`SplicesError`].
    pub async fn set_splices(&self, rules: SpliceRules) -> Result<(), SplicesError> {
        let answer = self.ask(|reply| Message::SetSplices { rules, reply });
        answer.ok_or(SplicesError::Ended)?.await.unwrap_or(Err(SplicesError::Ended))
    }

    /// Closes the port of a forward rule. Connections that came through
    /// it live on.
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] and [`ForwardError::Ended`].
    pub async fn remove_forward(&self, id: ForwardId) -> Result<(), ForwardError> {
        self.remove_forwards(id, id).await
    }

    /// Closes the ports of the rules from `first` to `last`, or none when one of them does not
    /// exist.
    ///
    /// # Errors
    /// [`ForwardError::Unknown`] and [`ForwardError::Ended`].
    pub async fn remove_forwards(
        &self,
        first: ForwardId,
        last: ForwardId,
    ) -> Result<(), ForwardError> {
        let answer = self.ask(|reply| Message::RemoveForwards { ids: first.0..=last.0, reply });
        answer.ok_or(ForwardError::Ended)?.await.unwrap_or(Err(ForwardError::Ended))
    }

    /// A part of the list of flows, from slot `first` of the flow table on (0 for the beginning);
    /// `None` when the instance has ended. A part takes a fraction of a millisecond, however many
    /// flows there are. A flow that opens and closes between two parts may be missed.
    pub async fn flows(&self, first: u32) -> Option<FlowPage> {
        self.ask(|reply| Message::ListFlows { first, reply })?.await.ok()
    }

    /// The forward rules by age; `None` when the instance has ended.
    pub async fn list_forwards(&self) -> Option<Vec<(ForwardId, Forward)>> {
        self.ask(Message::ListForwards)?.await.ok()
    }

    /// Connects a member to the network. The member is on the network when this returns. From then
    /// on forward rules to its address may be added; they end with the membership.
    ///
    /// The membership ends by [`remove_member`](Self::remove_member), when its device is gone, or
    /// with the instance.
    ///
    /// # Errors
    /// See [`MemberError`]; the device is closed.
    pub async fn add_member(&self, member: NewMember) -> Result<MemberId, MemberError> {
        let answer = self.ask(|reply| Message::AddMember { member: Box::new(member), reply });
        answer.ok_or(MemberError::Ended)?.await.unwrap_or(Err(MemberError::Ended))
    }

    /// Disconnects a member. When this returns its device, forward rules and names are gone and its
    /// connections are reset.
    ///
    /// # Errors
    /// [`MemberError::NotShared`], [`MemberError::Unknown`] and [`MemberError::Ended`].
    pub async fn remove_member(&self, id: MemberId) -> Result<(), MemberError> {
        let answer = self.ask(|reply| Message::RemoveMember { id, reply });
        answer.ok_or(MemberError::Ended)?.await.unwrap_or(Err(MemberError::Ended))
    }

    /// Brings an egress policy into force: for a member, or for the guest. On a shared network the
    /// policy of no member holds for all members that have none of their own.
    ///
    /// Returns how often a policy has come into force there. With [`Established::Cut`] the flows
    /// that the policy does not allow are reset soon afterwards.
    ///
    /// # Errors
    /// See [`EgressError`]; the policy before stays in force.
    pub async fn set_egress(
        &self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        established: Established,
    ) -> Result<Revision, EgressError> {
        self.change_egress(member, None, policy, established).await
    }

    /// Brings an egress policy into force as [`set_egress`](Self::set_egress) does, if the one
    /// before has the revision `replaced`; 0 stands for no policy.
    ///
    /// # Errors
    /// See [`EgressError`]; the policy before stays in force.
    pub async fn replace_egress(
        &self,
        member: Option<MemberId>,
        replaced: Revision,
        policy: EgressPolicy,
        established: Established,
    ) -> Result<Revision, EgressError> {
        self.change_egress(member, Some(replaced), policy, established).await
    }

    async fn change_egress(
        &self,
        member: Option<MemberId>,
        replaced: Option<Revision>,
        policy: EgressPolicy,
        established: Established,
    ) -> Result<Revision, EgressError> {
        let answer =
            self.ask(|reply| Message::SetEgress { member, policy, established, replaced, reply });
        answer.ok_or(EgressError::Ended)?.await.unwrap_or(Err(EgressError::Ended))
    }

    /// The egress policy in force for a member, or for the guest; `None` if there is none.
    ///
    /// # Errors
    /// [`EgressError::UnknownMember`] and [`EgressError::Ended`].
    pub async fn egress(
        &self,
        member: Option<MemberId>,
    ) -> Result<Option<EgressState>, EgressError> {
        let answer = self.ask(|reply| Message::Egress { member, reply });
        answer.ok_or(EgressError::Ended)?.await.unwrap_or(Err(EgressError::Ended))
    }

    /// What becomes of an attempt at this moment, and why: of the guest with the address `guest`
    /// where there are several. `None` if no egress policy is in force, or the instance has ended.
    pub async fn explain(&self, attempt: Attempt, guest: Option<IpAddr>) -> Option<Explanation> {
        self.ask(|reply| Message::Explain { attempt, guest, reply })?.await.ok()?
    }

    /// A part of the list of the names that a member, or the guest, has learned; on a shared
    /// network those of all members where none is given. A part has at most `count` and 128 of
    /// them, from slot `first` on (0 for the beginning); `None` when the instance has ended. It is
    /// empty without an egress policy.
    pub async fn learned_names(
        &self,
        member: Option<MemberId>,
        first: u32,
        count: u32,
    ) -> Option<NamePage> {
        self.ask(|reply| Message::ListNames { member, first, count, reply })?.await.ok()
    }

    /// A part of the list of flows like [`flows`](Self::flows), with what the egress policy makes
    /// of them.
    pub async fn judged_flows(&self, first: u32) -> Option<JudgedFlowPage> {
        self.ask(|reply| Message::ListJudgedFlows { first, reply })?.await.ok()
    }

    /// Ends a flow: a connection is reset, a mapping forgotten. Returns whether there was one;
    /// `None` when the instance has ended.
    pub async fn cut(&self, flow: FlowId) -> Option<bool> {
        self.ask(|reply| Message::Cut { flow, reply })?.await.ok()
    }

    /// The questions that wait for a decision, the oldest first; `None` when the instance has
    /// ended.
    pub async fn questions(&self) -> Option<Vec<PendingQuestion>> {
        self.ask(Message::ListQuestions)?.await.ok()
    }

    /// Decides a question. The first decision holds. The flows that waited for it have been let go
    /// or refused when this returns.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn decide(
        &self,
        question: QuestionId,
        decision: Decision,
    ) -> Result<Decided, DecideError> {
        self.decide_as(question, decision, None).await
    }

    /// The same, for somebody who is known.
    pub(crate) async fn decide_as(
        &self,
        question: QuestionId,
        decision: Decision,
        by: Option<Approver>,
    ) -> Result<Decided, DecideError> {
        let answer = self.ask(|reply| Message::Decide { question, decision, by, reply });
        answer.ok_or(DecideError::Ended)?.await.unwrap_or(Err(DecideError::Ended))
    }

    /// Says how many the embedding program has who may decide (0 at first); clients of the control
    /// socket who may decide are counted besides. Without anybody, what is to be asked about is
    /// refused at once. When the last one leaves, open questions wait five seconds for another one.
    pub async fn set_approvers(&self, count: usize) {
        self.set_deciders(Deciders::Program, count).await;
    }

    /// Says how many clients of the control socket may decide.
    pub(crate) async fn set_deciding_clients(&self, count: usize) {
        self.set_deciders(Deciders::Clients, count).await;
    }

    async fn set_deciders(&self, among: Deciders, count: usize) {
        if let Some(answer) = self.ask(|reply| Message::SetApprovers { among, count, reply }) {
            // The instance may have ended.
            let _ = answer.await;
        }
    }

    /// Limits a member, or the guest; on a shared network all members without limits of their own.
    /// Another limit goes on with what is left of the burst. Returns whether there is such a
    /// member.
    pub async fn set_rates(&self, member: Option<MemberId>, rates: Rates) -> bool {
        match self.ask(|reply| Message::SetRates { member, rates, reply }) {
            Some(answer) => answer.await.unwrap_or(false),
            None => false,
        }
    }

    /// The limits of a member, or of the guest; `None` if there is no such member, or when the
    /// instance has ended.
    pub async fn rates(&self, member: Option<MemberId>) -> Option<Rates> {
        self.ask(|reply| Message::Rates { member, reply })?.await.ok()?
    }

    /// The members in the order of their arrival; `None` when the instance has ended. The list is
    /// empty on a network with a single guest.
    pub async fn members(&self) -> Option<Vec<(MemberId, Member)>> {
        self.ask(Message::ListMembers)?.await.ok()
    }

    /// Has the audit log go on in `file`, which is open for writing: as after the file that it had
    /// was renamed. Returns whether there is a log. A line that was not written as a whole begins
    /// anew there.
    pub async fn reopen_audit(&self, file: OwnedFd) -> bool {
        match self.ask(|reply| Message::ReopenAudit { file, reply }) {
            Some(answer) => answer.await.unwrap_or(false),
            None => false,
        }
    }

    /// What becomes of flows and of the names that guests ask for, and what an egress policy makes
    /// of them, from now on. At most `cap` events wait to be taken: 1 to 65,536, of some hundred
    /// bytes each. What happens while as many wait is lost, and the stream says how many events
    /// were: no packet waits for it.
    ///
    /// ```no_run
    /// use slirp_core::instance::Handle;
    /// use slirp_core::journal::Event;
    ///
    /// fn watch(handle: &Handle) {
    ///     let mut events = handle.events(4096);
    ///     while let Some(observed) = events.blocking_next() {
    ///         if observed.lost > 0 {
    ///             println!("{} events are missing here", observed.lost);
    ///         }
    ///         if let Some(Event::Judged { judgement, .. }) = observed.event {
    ///             println!("{}: {}", judgement.reached, judgement.action.as_str());
    ///         }
    ///     }
    /// }
    /// ```
    pub fn events(&self, cap: usize) -> EventStream {
        self.observe(cap.clamp(1, EVENTS_CAP), |event| !matches!(event, Event::Discarded { .. }))
    }

    /// What happens from now on, as far as it `wants` it: what was asked for before this call may
    /// have happened already. `cap` events may wait; those beyond are lost and counted. Dropping
    /// the receiver ends it, and so does the end of the instance.
    pub(crate) fn observe(&self, cap: usize, wants: fn(&Event) -> bool) -> EventStream {
        let (observer, stream) = Observer::new(cap, wants);
        // An instance that has ended drops the observer.
        self.mailbox.send(Message::Observe(observer));
        stream
    }

    /// Sends a message and waits for its answer.
    fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Option<oneshot::Receiver<T>> {
        let (reply, receiver) = oneshot::channel();
        self.mailbox.send(message(reply)).then_some(receiver)
    }
}

#[cfg(test)]
mod tests;
