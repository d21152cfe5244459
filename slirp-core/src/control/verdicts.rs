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

/// Who is at the other end, as far as the kernel says it, and as the client says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Peer {
    uid: Option<u32>,
    pid: Option<u32>,
    pub(super) label: Option<String>,
}

impl Peer {
    pub(super) fn of(credentials: &UnixCredentials) -> Self {
        // What the kernel does not know is -1, and a process of another PID namespace is 0
        // (unix(7), `cred_to_ucred` in net/core/sock.c).
        let uid = Some(credentials.uid()).filter(|&uid| uid != u32::MAX);
        let pid = u32::try_from(credentials.pid()).ok().filter(|&pid| pid != 0);
        Self { uid, pid, label: None }
    }

    /// Who it is for the audit log, if anything is known.
    fn approver(&self) -> Option<Approver> {
        let label = self.label.as_deref().map(Into::into);
        (*self != Self::default()).then_some(Approver { uid: self.uid, pid: self.pid, label })
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
        match handle.decide_as(question, decision, peer.approver()).await {
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
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid}, pid {pid}")?,
            (Some(uid), None) => write!(f, "uid {uid}")?,
            (None, Some(pid)) => write!(f, "pid {pid}")?,
            (None, None) => f.write_str("a client that the kernel does not know")?,
        }
        self.label.as_ref().map_or(Ok(()), |label| write!(f, " ({label})"))
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::ucred;

    use super::*;

    #[test]
    fn nobody_is_taken_for_root_because_the_kernel_does_not_know_the_peer() {
        let of = |uid, pid| Peer::of(&UnixCredentials::from(ucred { uid, gid: uid, pid }));
        let unknown = of(u32::MAX, 0);
        assert_eq!(unknown, Peer::default());
        assert_eq!(unknown.approver(), None);
        assert_eq!(unknown.to_string(), "a client that the kernel does not know");
        let elsewhere = Peer { label: Some("gate".into()), ..of(0, 0) };
        assert_eq!(elsewhere.to_string(), "uid 0 (gate)");
        let by = elsewhere.approver().unwrap();
        assert_eq!((by.uid, by.pid, by.label.as_deref()), (Some(0), None, Some("gate")));
        assert_eq!(of(1000, 88).to_string(), "uid 1000, pid 88");
    }
}
