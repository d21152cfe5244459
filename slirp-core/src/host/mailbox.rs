//! Messages to the data thread.
//!
//! Owns the channel and the waking: a message is never left lying, because sending one always wakes
//! the event loop. The data thread never waits for a sender.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;

use mio::Waker;
use tokio::sync::oneshot;

use super::events::Observer;
use super::forward::{Forward, ForwardError, Opening};
use super::inner::ask::Ask;
use super::inner::settings::{SpliceRules, SplicesError};
use super::link::tap::Tap;
use crate::config::Personality;
use crate::egress::{
    Approver, Attempt, DecideError, Decided, Decision, EgressPolicy, Explanation, LearnedName,
    PendingQuestion, QuestionId,
};
use crate::event::{DnsQueryId, FlowId, ForwardId};
use crate::flow::{FlowSummary, JudgedFlow};
use crate::member::{Member, MemberError, MemberId};
use crate::plan::AddressPlan;
use crate::rates::Rates;
use crate::stack::{EgressState, Established, Revision};
use crate::stats::Stats;

/// What the data thread can be told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A DNS query was answered, or came to nothing.
    DnsAnswer {
        /// Which.
        query: DnsQueryId,
        /// The upstream answer.
        answer: Option<Vec<u8>>,
    },
    /// Asks for the counters.
    Stats {
        /// Whether the members of a shared network are wanted one by one.
        by_member: bool,
        /// Where they go.
        reply: oneshot::Sender<Stats>,
    },
    /// Ports of the host are to lead to the guest, all of them or none.
    AddForwards {
        /// The rules; at least one.
        forwards: Vec<Forward>,
        /// Where they go as they are listed from now on.
        reply: oneshot::Sender<Result<Vec<(ForwardId, Forward)>, ForwardError>>,
    },
    /// The same, with how each rule's ports are opened.
    OpenForwards {
        /// The rules.
        rules: Vec<(Forward, Opening)>,
        /// Where they go as they are listed from now on.
        reply: oneshot::Sender<Result<Vec<(ForwardId, Forward)>, ForwardError>>,
    },
    /// Other rules are to hold for what is joined socket to socket.
    SetSplices {
        /// The rules.
        rules: SpliceRules,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), SplicesError>>,
    },
    /// Forward rules are to end, all of them or none.
    RemoveForwards {
        /// Which.
        ids: RangeInclusive<u64>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), ForwardError>>,
    },
    /// Asks for a part of the flows.
    ListFlows {
        /// The slot of the flow table to begin with.
        first: u32,
        /// Where they go, with the slot to go on from.
        reply: oneshot::Sender<FlowPage>,
    },
    /// Asks for the forward rules.
    ListForwards(oneshot::Sender<Vec<(ForwardId, Forward)>>),
    /// A member joins a shared network.
    AddMember {
        /// The member and its device.
        member: Box<NewMember>,
        /// Where its name goes.
        reply: oneshot::Sender<Result<MemberId, MemberError>>,
    },
    /// A member is to leave.
    RemoveMember {
        /// Which.
        id: MemberId,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<(), MemberError>>,
    },
    /// An egress policy is to come into force.
    SetEgress {
        /// For which member; `None` for the guest, or for all members without one of their own.
        member: Option<MemberId>,
        /// The policy.
        policy: EgressPolicy,
        /// What becomes of the flows that it does not allow.
        established: Established,
        /// The revision that it is to replace; `None` for any.
        replaced: Option<Revision>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<Revision, EgressError>>,
    },
    /// Asks for the egress policy in force for a member or the guest.
    Egress {
        /// For which member.
        member: Option<MemberId>,
        /// Where it goes.
        reply: oneshot::Sender<Result<Option<EgressState>, EgressError>>,
    },
    /// Asks what becomes of an attempt, and why.
    Explain {
        /// What is attempted.
        attempt: Attempt,
        /// By which guest.
        guest: Option<IpAddr>,
        /// Where the explanation goes; `None` without a policy.
        reply: oneshot::Sender<Option<Explanation>>,
    },
    /// Asks for a part of the names that a member or the guest has learned.
    ListNames {
        /// Which member.
        member: Option<MemberId>,
        /// The slot to begin with.
        first: u32,
        /// How many slots at most.
        count: u32,
        /// Where they go.
        reply: oneshot::Sender<NamePage>,
    },
    /// Asks for a part of the flows, with what the egress policy makes of them.
    ListJudgedFlows {
        /// The slot of the flow table to begin with.
        first: u32,
        /// Where they go.
        reply: oneshot::Sender<JudgedFlowPage>,
    },
    /// A flow is to end.
    Cut {
        /// Which.
        flow: FlowId,
        /// Whether there was one.
        reply: oneshot::Sender<bool>,
    },
    /// Asks for the questions that wait for a decision.
    ListQuestions(oneshot::Sender<Vec<PendingQuestion>>),
    /// A question is decided.
    Decide {
        /// Which.
        question: QuestionId,
        /// The decision.
        decision: Decision,
        /// Who has decided, if that is known.
        by: Option<Approver>,
        /// Where the outcome goes.
        reply: oneshot::Sender<Result<Decided, DecideError>>,
    },
    /// So many are there who may decide.
    SetApprovers {
        /// Among whom.
        among: Deciders,
        /// How many.
        count: usize,
        /// Where it is said that it is known.
        reply: oneshot::Sender<()>,
    },
    /// A guest is to be limited.
    SetRates {
        /// Which member; `None` for the guest, or for all members without limits of their own.
        member: Option<MemberId>,
        /// The limits.
        rates: Rates,
        /// Where it goes whether there is such a member.
        reply: oneshot::Sender<bool>,
    },
    /// Asks for the limits of a guest.
    Rates {
        /// Which member; `None` for the guest, or for all members without limits of their own.
        member: Option<MemberId>,
        /// Where they go; `None` if there is no such member.
        reply: oneshot::Sender<Option<Rates>>,
    },
    /// Asks for the members.
    ListMembers(oneshot::Sender<Vec<(MemberId, Member)>>),
    /// An observer wants to hear what happens from now on.
    Observe(Observer),
    /// The audit log is to go on in another file.
    ReopenAudit {
        /// Open for writing.
        file: OwnedFd,
        /// Where it goes whether there is a log.
        reply: oneshot::Sender<bool>,
    },
    /// The guest has other addresses from now on, on a link of its own.
    SetPlan {
        /// Its addresses, and what they mean.
        plan: Box<AddressPlan>,
        /// What it is told besides.
        personality: Personality,
        /// The search domains that it is told.
        search_domains: Vec<String>,
    },
    /// The thread in the guest's network namespace wants something.
    Inner(Ask),
    /// The device of a member is gone.
    MemberLost(MemberId),
    /// The instance is to end.
    Shutdown,
}

/// Among whom those are counted who may decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deciders {
    /// The embedding program's.
    Program,
    /// Clients of the control socket.
    Clients,
}

/// A member that is to join, with its device.
#[derive(Debug)]
pub struct NewMember {
    /// The device in the member's network namespace.
    pub tap: Tap,
    /// What it is known by.
    pub member: Member,
    /// Where it may go; `None` for the [egress policy of the
    /// network](crate::instance::Builder::egress), if there is one.
    pub egress: Option<EgressPolicy>,
    /// How fast it may send and receive; `None` for the [limits of the
    /// network](crate::instance::Builder::rates).
    pub rates: Option<Rates>,
    /// Closed when the membership ends, whatever ends it. If it is one end of a pipe or socket, the
    /// holder of the other end notices.
    pub guard: Option<OwnedFd>,
}

/// Why an egress policy did not come into force. The one before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// No member has this id (any more), or the network is not shared.
    #[error("there is no such member")]
    UnknownMember,
    /// The addresses of the host cannot be read, without which no policy can tell the host from
    /// others.
    #[error("cannot read the addresses of the host: {0}")]
    HostAddresses(#[source] io::Error),
    /// Another policy than the expected one is in force: the one of this revision.
    #[error("the policy in force has revision {}", .0.0)]
    Changed(Revision),
    /// The instance has ended.
    #[error("the network has ended")]
    Ended,
}

/// A part of the list of flows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct FlowPage {
    /// The flows.
    pub flows: Vec<FlowSummary>,
    /// Where the next part begins; `None` at the end.
    pub next: Option<u32>,
}

/// A part of the list of flows, with what the egress policy makes of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct JudgedFlowPage {
    /// The flows.
    pub flows: Vec<JudgedFlow>,
    /// Where the next part begins; `None` at the end.
    pub next: Option<u32>,
}

/// A part of the list of names that a guest has learned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct NamePage {
    /// The names, in no order.
    pub names: Vec<LearnedName>,
    /// Where the next part begins; `None` at the end.
    pub next: Option<u32>,
}

/// The sending end; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    sender: mpsc::Sender<Message>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// A mailbox that wakes its owner with `waker`, and the end that the owner reads.
    pub(crate) fn new(waker: Arc<Waker>) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        (Self { sender, waker }, receiver)
    }

    /// Sends `message`. Returns whether the data thread still reads its mail.
    pub(crate) fn send(&self, message: Message) -> bool {
        if self.sender.send(message).is_err() {
            return false;
        }
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the data thread");
        }
        true
    }
}
