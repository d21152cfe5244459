//! Decisions of clients, and who made them.
//!
//! Owns the memory of the last [`KEPT_CAP`] decisions, so that a client that is late hears who was
//! quicker. What a decision does is the engine's.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::UnixCredentials;
use serde_json::{Value, json};

use super::requests::Refusal;
use crate::egress::{Approver, DecideError, Decision, QuestionId};
use crate::host::handle::Handle;

/// Decisions whose authors are remembered (arbitrary; a late client is late by seconds).
const KEPT_CAP: usize = 256;

/// Who is at the other end, as the kernel says, and as the client says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: i32,
    pub(super) label: Option<String>,
}

impl Peer {
    pub(super) fn of(credentials: &UnixCredentials) -> Self {
        Self { uid: credentials.uid(), pid: credentials.pid(), label: None }
    }
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Verdicts {
    last: Mutex<VecDeque<(QuestionId, Peer)>>,
}

impl Verdicts {
    /// Has `peer` decide a question.
    pub(super) async fn decide(
        &self,
        handle: &Handle,
        question: QuestionId,
        decision: Decision,
        peer: &Peer,
    ) -> Result<Value, Refusal> {
        let by = Approver {
            uid: Some(peer.uid),
            pid: u32::try_from(peer.pid).ok(),
            label: peer.label.as_deref().map(Into::into),
        };
        match handle.decide_as(question, decision, Some(by)).await {
            Ok(decided) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() >= KEPT_CAP {
                    last.pop_front();
                }
                last.push_back((question, peer.clone()));
                Ok(json!({ "rule": decided.rule.to_string() }))
            }
            Err(DecideError::Ended) => Err(Refusal::Ended),
            Err(error @ DecideError::AlreadyDecided(_)) => {
                let by = self.author(question).map(|peer| peer.to_string());
                let by = by.map(|peer| format!(" by {peer}")).unwrap_or_default();
                Err(Refusal::Words(format!("{error}{by}")))
            }
            Err(error @ (DecideError::Unknown | DecideError::Unfit)) => {
                Err(Refusal::Words(error.to_string()))
            }
        }
    }

    fn author(&self, question: QuestionId) -> Option<Peer> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().rev().find(|(of, _)| *of == question).map(|(_, peer)| peer.clone())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)?;
        self.label.as_ref().map_or(Ok(()), |label| write!(f, " ({label})"))
    }
}
