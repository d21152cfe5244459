//! Questions about flows that the policy wants asked about, and what people decide.
//!
//! Owns plain values. Which flows wait for which question is kept by the judge and the stack; who
//! may decide is left to the host side.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::name::Name;
use super::rule::{Action, EgressRule, Source};
use super::warning::is_everybodys;
use crate::member::MemberId;
use crate::protocol::Protocol;

/// Identifier of one question; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuestionId(pub u64);

/// What a question is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// A name, which nobody has looked up yet.
    Name(Name),
    /// An address.
    Address(IpAddr),
}

impl Subject {
    /// What a decision [for the parent](Decision::parent) covers, with everything below: the name
    /// above this one, or this name itself if anybody can have a name there. `None` for an address.
    pub fn parent(&self) -> Option<Name> {
        let Self::Name(name) = self else { return None };
        let above = name.as_str().split_once('.').and_then(|(_, above)| Name::new(above));
        Some(above.filter(|above| !is_everybodys(above)).unwrap_or_else(|| name.clone()))
    }
}

/// A question that waits for a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PendingQuestion {
    /// Its name.
    pub id: QuestionId,
    /// The member of a shared network that asks.
    pub member: Option<MemberId>,
    /// The guest's address.
    pub guest: IpAddr,
    /// Where it wants to go.
    pub subject: Subject,
    /// The port there.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The rule that wants it asked; `None` for the default.
    pub rule: Option<Source>,
    /// How long it has been open.
    pub held: Duration,
    /// How long it may still wait.
    pub expires_in: Duration,
    /// Connections that wait for it.
    pub flows: u32,
}

/// How long a decision holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// For the flows that wait, and for equal ones that begin within 30 s. After a deny nobody is
    /// asked about equal ones for 60 s.
    Once,
    /// For this long.
    For(Duration),
    /// For as long as the guest is there, where the policy asks.
    Session,
}

/// A decision about a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Allow or deny; [`Action::Ask`] is no decision.
    pub action: Action,
    /// How long it holds.
    pub scope: Scope,
    /// Whether it holds for all ports of the protocol, not for the one that was asked about alone.
    pub all_ports: bool,
    /// Whether it holds for everything below the parent of the name too: `.example.com` where
    /// `www.example.com` was asked about. Where anybody can have a name below the parent it is the
    /// name and everything below that: `.api.example` where `api.example` was asked about.
    pub parent: bool,
}

/// Who has decided, as far as it is known.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Approver {
    /// The user.
    pub uid: Option<u32>,
    /// The process.
    pub pid: Option<u32>,
    /// What it calls itself.
    pub label: Option<Arc<str>>,
}

/// What came of a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Decided {
    /// The question as it was.
    pub question: PendingQuestion,
    /// The rule that says the same for good.
    pub rule: EgressRule,
}

/// Why a decision was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// There is no such question, or it has expired.
    #[error("there is no such question")]
    Unknown,
    /// Somebody else was quicker.
    #[error("already decided: {}", .0.as_str())]
    AlreadyDecided(Action),
    /// The decision is [`Action::Ask`], is about the parent of an address, or about all ports of a
    /// protected address.
    #[error("this is no decision for that question")]
    Unfit,
    /// The instance has ended.
    #[error("the network has ended")]
    Ended,
}
