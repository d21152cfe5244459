//! What a stack tells of its work: flows, names and discards as they come and go.
//!
//! Owns the values that [`Stack::poll_event`](crate::stack::Stack::poll_event) hands out. They are
//! for logs, live views, audits and counters; what the host side has to *do* is in
//! [`event`](crate::event). No value here holds text, except the names that guests ask for.
//!
//! A flow's events are one [`Opened`](Event::Opened), at most one [`Connected`](Event::Connected),
//! any number of [`Unsent`](Event::Unsent), and one [`Refused`](Event::Refused) or
//! [`Closed`](Event::Closed) at its end. What is refused before it becomes a flow has one `Refused`
//! alone.
//!
//! Under an egress policy a verdict that lets a flow begin is [`Judged`](Event::Judged) with the
//! flow's id, behind its `Opened`; the event of its end says so, too. A UDP or echo mapping is
//! judged again for another remote. What is refused is `Judged` without a flow, before its
//! `Refused`. A verdict of a rule with `log=no` is not told, nor are queries to other name servers
//! that are led to the DNS service: what comes of them is told as `Answered`.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::discard::DiscardReason;
use crate::egress::{
    Action, Approver, Cause, Decision, EgressPolicy, Name, NamePattern, PendingQuestion, Source,
};
use crate::event::{DnsQueryId, FlowId, ForwardId, HostError, QueryOrigin};
use crate::member::MemberId;
use crate::policy::Protocol;
use crate::rates::RateDirection;
use crate::traffic::Traffic;

/// How much a stack tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[non_exhaustive]
pub enum Detail {
    /// Nothing, which costs nothing.
    #[default]
    Nothing,
    /// What becomes of flows and of the names that guests ask for.
    Flows,
    /// Discarded packets, too. Each is parsed once more.
    Discards,
}

/// An event, and how many others before it were lost because the listener was too slow.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Events that were lost between the last report and this one.
    pub lost: u64,
    /// What happened.
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A flow was opened: policy allows it or has somebody asked about it, and it has a place in
    /// the table.
    Opened {
        /// The flow.
        flow: FlowId,
        /// Its ends. The remote of a UDP or echo mapping is that of the first packet.
        ends: Ends,
        /// What stands behind the remote's address.
        peer: Peer,
    },
    /// A TCP flow has both sides: the host has connected, or the guest has answered a remote.
    Connected {
        /// The flow.
        flow: FlowId,
        /// Its ends.
        ends: Ends,
        /// How long that took.
        after: Duration,
    },
    /// Something that was to be a flow came to nothing.
    Refused {
        /// The flow, if there was one already. Its host socket is closed, and no other event
        /// follows.
        flow: Option<FlowId>,
        /// Who wanted to talk to whom. Where a remote's connection or datagram was refused, the
        /// remote is the one that the host has seen.
        ends: Ends,
        /// By whom, and why.
        by: Refusal,
        /// Its payload both ways, if it was a flow.
        traffic: Traffic,
        /// Where it was to go, if a verdict was told of it as a flow.
        judged: Option<Course>,
    },
    /// The host did not send datagrams of a flow. The flow goes on.
    Unsent {
        /// The flow.
        flow: FlowId,
        /// Its ends.
        ends: Ends,
        /// Why.
        error: HostError,
        /// How many datagrams.
        count: u64,
    },
    /// A flow ended.
    Closed {
        /// The flow.
        flow: FlowId,
        /// Its ends. The remote of a UDP or echo mapping is that of the guest's last packet.
        ends: Ends,
        /// How it ended.
        ending: Ending,
        /// How long it existed.
        age: Duration,
        /// Its payload both ways.
        traffic: Traffic,
        /// Where it went, if a verdict was told of it.
        judged: Option<Course>,
    },
    /// An egress policy has judged something that a guest or a remote began.
    Judged {
        /// The flow, if there is one.
        flow: Option<FlowId>,
        /// The verdict.
        judgement: Box<Judgement>,
    },
    /// An egress policy has judged the name in the first bytes of a connection.
    Verified {
        /// The flow.
        flow: FlowId,
        /// What was read there; `None` if there was no name.
        claim: Option<Claim>,
        /// What the policy makes of it.
        judgement: Box<Judgement>,
    },
    /// An egress policy has come into force.
    PolicySet {
        /// For which member; `None` for the guest, or for all members without one of their own.
        member: Option<MemberId>,
        /// The policy.
        policy: EgressPolicy,
        /// How often one has come into force there.
        revision: u64,
    },
    /// Guests have looked up many different names that one rule with a wildcard allows, within an
    /// hour.
    ManyNames {
        /// The member of a shared network that did.
        member: Option<MemberId>,
        /// Where the rule was written.
        rule: Source,
        /// The names that it matches.
        pattern: NamePattern,
        /// How many names, about.
        count: u32,
    },
    /// The egress policy wants somebody to be asked about a flow.
    QuestionOpened(Box<PendingQuestion>),
    /// Such a question is over.
    QuestionEnded {
        /// The question as it was.
        question: Box<PendingQuestion>,
        /// How it ended.
        ending: QuestionEnding,
    },
    /// A guest asked the DNS service.
    Asked {
        /// Name of the query. A repeated query has the name of the first one.
        query: DnsQueryId,
        /// Who asked, and over which transport.
        origin: QueryOrigin,
        /// The member of a shared network that asked.
        member: Option<MemberId>,
        /// What was asked; `None` if it cannot be read.
        question: Option<Question>,
    },
    /// A query that was [`Asked`](Self::Asked) is over.
    Answered {
        /// Name of the query.
        query: DnsQueryId,
        /// Who asked, and over which transport.
        origin: QueryOrigin,
        /// The guest's address; `None` if its connection has ended.
        guest: Option<IpAddr>,
        /// The member of a shared network that asked.
        member: Option<MemberId>,
        /// What was asked; `None` if it cannot be read.
        question: Option<Question>,
        /// What the answer says; `None` if no resolver answered, which the guest hears as a
        /// failure.
        answer: Option<Answer>,
        /// What the egress policy made of it; `None` without a policy, and for what is answered
        /// whatever a policy says: malformed queries and the names of members.
        lookup: Option<Lookup>,
        /// What the policy says of the name, where the guest does not have to obey.
        would: Option<Action>,
        /// How long that took.
        after: Duration,
    },
    /// A limit of a guest's rate has begun to make its traffic wait, after a second or more in
    /// which it did not.
    RateLimited {
        /// The member of a shared network that is limited.
        member: Option<MemberId>,
        /// Which way.
        direction: RateDirection,
    },
    /// A packet or datagram was discarded. Told with [`Detail::Discards`] alone.
    Discarded {
        /// Why.
        reason: DiscardReason,
        /// What it was, where it was a guest's packet that can be parsed.
        packet: Option<PacketEnds>,
    },
}

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Ends {
    /// The protocol; the family is that of `guest`.
    pub protocol: Protocol,
    /// The guest's side. An echo flow's port is the ICMP identifier.
    pub guest: SocketAddr,
    /// The remote as the guest knows it: for what the guest began, the destination that it wrote.
    /// Echo has no ports: 0.
    pub remote: SocketAddr,
}

impl Ends {
    pub(crate) const fn new(protocol: Protocol, guest: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol, guest, remote }
    }
}

/// What stands behind the remote's address of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Peer {
    /// The guest began it, and a host socket goes here.
    Host(SocketAddr),
    /// The guest began it, and the built-in DNS service answers.
    Resolver,
    /// A remote began it through a forward rule.
    Inbound {
        /// The rule.
        rule: ForwardId,
        /// The remote as the host sees it.
        client: SocketAddr,
    },
}

impl Peer {
    /// Whether a remote began the flow.
    pub const fn is_inbound(self) -> bool {
        matches!(self, Self::Inbound { .. })
    }
}

/// Where a flow goes of which a verdict was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Course {
    /// The member of a shared network that was judged.
    pub member: Option<MemberId>,
    /// See [`Judgement::reached`].
    pub reached: SocketAddr,
}

impl Course {
    pub(crate) const fn new(member: Option<MemberId>, reached: SocketAddr) -> Self {
        Self { member, reached }
    }
}

/// By whom something was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// By policy, or because the addresses do not fit together.
    Policy(DiscardReason),
    /// By the egress policy.
    Egress(Cause),
    /// By a limit.
    Limit(DiscardReason),
    /// By the host, or by what the host tried to reach.
    Host(HostError),
    /// By the host, which lets no program here send echo requests.
    EchoNotPermitted,
}

impl Refusal {
    /// A refusal by the stack itself.
    pub(crate) const fn by_stack(reason: DiscardReason) -> Self {
        if matches!(
            reason,
            DiscardReason::FlowTableFull
                | DiscardReason::GuestQueueFull
                | DiscardReason::BridgesFull
        ) {
            Self::Limit(reason)
        } else {
            Self::Policy(reason)
        }
    }
}

/// How a flow ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Both directions in order.
    Orderly,
    /// The guest has reset it.
    GuestReset,
    /// The host's socket broke, or was never connected.
    HostFailed,
    /// The remote went before the guest had answered.
    RemoteGone,
    /// A time limit passed.
    TimedOut,
    /// A UDP or echo mapping was not used for its idle timeout.
    Idle,
    /// Another flow needed its place.
    Evicted,
    /// The guest began a new connection with the same addresses and ports.
    Replaced,
    /// The member of a shared network left, or its addresses were given to another member.
    MemberLeft,
    /// The forward rule that it came through was removed.
    ForwardRemoved,
    /// Another egress policy does not allow it any more, or somebody cut it.
    Revoked,
    /// The guest's connections held more memory than they may.
    MemoryExhausted,
    /// The TCP engine failed.
    EngineFailed,
}

impl Ending {
    /// Whether the host's TCP socket is to be reset.
    pub(crate) const fn is_reset(self) -> bool {
        match self {
            Self::Orderly | Self::Idle | Self::ForwardRemoved => false,
            Self::GuestReset
            | Self::HostFailed
            | Self::RemoteGone
            | Self::TimedOut
            | Self::Evicted
            | Self::Replaced
            | Self::MemberLeft
            | Self::Revoked
            | Self::MemoryExhausted
            | Self::EngineFailed => true,
        }
    }

    /// The word for it, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orderly => "orderly",
            Self::GuestReset => "guest_reset",
            Self::HostFailed => "host_failed",
            Self::RemoteGone => "remote_gone",
            Self::TimedOut => "timed_out",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Replaced => "replaced",
            Self::MemberLeft => "member_left",
            Self::ForwardRemoved => "forward_removed",
            Self::Revoked => "revoked",
            Self::MemoryExhausted => "memory_exhausted",
            Self::EngineFailed => "engine_failed",
        }
    }
}

/// The first question of a DNS query.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Question {
    /// The name as it is usually written, without the last dot; bytes that are no printable ASCII,
    /// dots within labels and backslashes as `\DDD` (RFC 1035 section 5.1). The root is ".".
    pub name: String,
    /// The type that is asked for, as its number: 1 is A, 28 is AAAA.
    pub kind: u16,
}

/// What a DNS answer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The response code of the header (RFC 1035 section 4.1.1): 0 is success, 3 is "no such name".
    pub code: u8,
    /// Records in the answer section.
    pub records: u16,
}

crate::words::words! {
    /// What an egress policy made of a lookup.
    pub enum Lookup:
    /// This kind of query is asked for nobody. Nothing went upstream.
    Refused => "refused",
    /// The name may not be asked for, or the answer leads through a name that is denied. The guest
    /// hears that there is no such name.
    NoSuchName => "nxdomain",
    /// The guest hears that the name has no such records. Nothing went upstream.
    NoData => "nodata",
    /// The guest gets an address that stands for the name until somebody has decided. Nothing went
    /// upstream.
    Placeholder => "placeholder",
    /// It went upstream, and the answer binds no address to the name.
    Asked => "asked",
    /// It went upstream, and addresses of the answer are bound to the name.
    Bound => "bound",
    /// It went upstream, and none of the answer's addresses is one that the name may have, such as
    /// a private one.
    Unfit => "unfit",
    /// The audit log that has to have it cannot be written. The guest hears of a failure. Nothing
    /// went upstream.
    NoAudit => "no-audit",
}

/// What an egress policy makes of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Judgement {
    /// Who wants to talk to whom.
    pub ends: Ends,
    /// The member of a shared network that is judged.
    pub member: Option<MemberId>,
    /// The remote on the host's side. For a client of a published port: its address as the host
    /// sees it, with the published port.
    pub reached: SocketAddr,
    /// Whether a remote begins it, through a published port.
    pub is_inbound: bool,
    /// The verdict: what is asked about and may not wait for an answer is denied.
    pub action: Action,
    /// Why.
    pub cause: Cause,
    /// The rule that decided, if one did.
    pub rule: Option<Source>,
    /// Whether the guest has to obey. In audit mode it has to only where a protected set is
    /// refused.
    pub is_enforced: bool,
    /// Names that the guest has learned for the remote's address, at most [`NAMES_TOLD`].
    pub names: Vec<Name>,
}

/// Names of one address that a [`Judgement`] tells at most.
pub const NAMES_TOLD: usize = 4;

/// A name in first bytes, and where it stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// In a TLS ClientHello (RFC 6066 section 3).
    Sni(Name),
    /// In an HTTP request.
    Host(Name),
}

/// How a question ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QuestionEnding {
    /// Somebody has decided: this question, or another one by a decision that covers this one.
    Decided {
        /// The decision.
        decision: Decision,
        /// Who has decided.
        by: Option<Approver>,
    },
    /// Nobody has decided in time.
    TimedOut,
    /// The last one who may decide has left.
    NoApprover,
    /// Another policy does not ask.
    PolicyChanged,
    /// The member of a shared network that asked has left.
    MemberLeft,
}

impl QuestionEnding {
    /// Whether the flows that waited may go on; after a change of the policy they are judged anew.
    pub const fn action(&self) -> Option<Action> {
        match self {
            Self::Decided { decision, .. } => Some(decision.action),
            Self::TimedOut | Self::NoApprover | Self::MemberLeft => Some(Action::Deny),
            Self::PolicyChanged => None,
        }
    }

    /// Why, as the audit log has it.
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Decided { .. } => Cause::Decision,
            Self::TimedOut => Cause::AskTimeout,
            Self::NoApprover => Cause::NoApprover,
            Self::PolicyChanged | Self::MemberLeft => Cause::Revoked,
        }
    }
}

/// What a discarded packet says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PacketEnds {
    /// Protocol number of the transport header (IANA).
    pub protocol: u8,
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Source and destination port of TCP and UDP, where they can be read.
    pub ports: Option<(u16, u16)>,
}
