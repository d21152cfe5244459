//! One client of the control socket.
//!
//! Owns its requests one after the other, its events, and whether it may decide. A client that does
//! not read stops its own requests; its events wait in a bounded queue of the [`hub`](super::hub).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::follow::Beginning;
use super::hub::{Approver, Hub, Subscription};
use super::lines::{self, Incoming, Lines};
use super::lists;
use super::metrics;
use super::requests::{self, Refusal, Request, reply};
use super::rows;
use super::rules::Rules;
use super::verdicts::{Peer, Verdicts};
use crate::host::handle::Handle;
use crate::member::MemberId;
use crate::plan::AssumedGuest;
use crate::stack::EgressState;

/// What every connection needs to answer requests.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) assumed: AssumedGuest,
    pub(super) started_at: Instant,
    pub(super) born_at: SystemTime,
    pub(super) rules: Rules,
    pub(super) hub: Arc<Hub>,
    pub(super) verdicts: Verdicts,
    pub(super) beginning: Beginning,
}

/// A client.
pub(super) struct Connection {
    shared: Arc<Shared>,
    stream: UnixStream,
    peer: Peer,
    approver: Option<Approver>,
    subscription: Option<Subscription>,
}

impl Connection {
    pub(super) const fn new(shared: Arc<Shared>, stream: UnixStream, peer: Peer) -> Self {
        Self { shared, stream, peer, approver: None, subscription: None }
    }

    /// Serves the client until it goes.
    pub(super) async fn serve(mut self) {
        let mut lines = Lines::default();
        if self.send(&rows::greeting()).await.is_err() {
            return;
        }
        loop {
            let incoming = tokio::select! {
                incoming = lines.next(&self.stream) => incoming,
                event = next_of(self.subscription.as_ref()) => {
                    if lines::send(&self.stream, &event).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let sent = match incoming {
                Ok(Incoming::Line(line)) if line.trim_ascii().is_empty() => continue,
                Ok(Incoming::Line(line)) => {
                    let answer = self.answer(&line, lines.take_fd()).await;
                    self.send(&answer).await
                }
                Ok(Incoming::TooLong) => {
                    let _ = self.send(&Refusal::TooLong.reply(None)).await;
                    return;
                }
                Ok(Incoming::End) => return,
                Err(error) => {
                    tracing::debug!(%error, "a client of the control socket");
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn send(&self, value: &Value) -> std::io::Result<()> {
        let mut line = value.to_string();
        line.push('\n');
        lines::send(&self.stream, &line).await
    }

    async fn answer(&mut self, line: &[u8], fd: Option<OwnedFd>) -> Value {
        let (id, request) = requests::parse(line);
        let outcome = match request {
            Ok(request) => self.perform(request, fd).await,
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(value) => reply(id.as_ref(), "return", value),
            Err(refusal) => refusal.reply(id.as_ref()),
        }
    }

    async fn perform(&mut self, request: Request, fd: Option<OwnedFd>) -> Result<Value, Refusal> {
        let shared = Arc::clone(&self.shared);
        let Shared { handle, rules, hub, .. } = &*shared;
        match request {
            Request::Hello { label, decide } => {
                self.peer.label = label.or(self.peer.label.take());
                self.may_decide(decide).await;
                Ok(rows::greeting())
            }
            Request::PolicyGet { member, from } => {
                let state = self.policy(member).await?;
                Ok(rows::policy(&state, &rules.ends(member).await, from))
            }
            Request::PolicySet { member, policy, replaced, established } => {
                let (revision, cut) = rules.set(member, policy, replaced, established).await?;
                Ok(json!({ "revision": revision.0, "cut": cut }))
            }
            Request::PolicyAdd { member, rule, limit } => {
                let (id, revision) = rules.add(member, &rule, limit).await?;
                Ok(json!({ "id": id.to_string(), "revision": revision.0 }))
            }
            Request::PolicyRemove { member, which } => {
                let (id, revision) = rules.remove(member, &which).await?;
                Ok(json!({ "id": id.to_string(), "revision": revision.0 }))
            }
            Request::Explain { attempt, guest } => {
                // A policy may be in force for some members alone.
                let explanation = handle.explain(attempt, guest).await;
                explanation.as_ref().map(rows::explanation).ok_or(Refusal::NoPolicy)
            }
            Request::Names { member, part } => {
                if member.is_some()
                    && let Err(refusal @ (Refusal::UnknownMember | Refusal::Ended)) =
                        rules.state(member).await
                {
                    return Err(refusal);
                }
                lists::names(handle, member, part).await
            }
            Request::Flows(part) => lists::flows(handle, part).await,
            Request::Questions => {
                let questions = handle.questions().await.ok_or(Refusal::Ended)?;
                let questions: Vec<_> = questions.iter().map(rows::question).collect();
                Ok(json!({ "questions": questions }))
            }
            Request::Decide { question, decision } => {
                if self.approver.is_none() {
                    return Err(Refusal::MayNotDecide);
                }
                shared.verdicts.decide(handle, question, decision, &self.peer).await
            }
            Request::Cut(flow) => match handle.cut(flow).await {
                Some(true) => Ok(json!({})),
                Some(false) => Err(Refusal::UnknownFlow),
                None => Err(Refusal::Ended),
            },
            Request::RateGet { member } => {
                let rates = handle.rates(member).await.ok_or(Refusal::UnknownMember)?;
                Ok(rows::rates(&rates, member))
            }
            Request::RateSet { member, rates } => {
                let is_set = handle.set_rates(member, rates).await;
                if is_set { Ok(json!({})) } else { Err(Refusal::UnknownMember) }
            }
            Request::Subscribe { kinds, decide, since } => {
                shared.beginning.begin(handle).await;
                let (subscription, seq) = hub.subscribe(kinds, since);
                self.subscription = Some(subscription);
                self.may_decide(decide).await;
                Ok(json!({ "seq": seq }))
            }
            Request::Info => self.info().await,
            Request::LogReopen => {
                let fd = fd.ok_or(Refusal::NoDescriptor)?;
                if handle.reopen_audit(fd).await { Ok(json!({})) } else { Err(Refusal::NoLog) }
            }
            Request::Metrics => {
                let text = metrics::text(handle.clone(), shared.born_at).await;
                text.map(|text| json!({ "text": text })).ok_or(Refusal::Ended)
            }
        }
    }

    /// The client is asked from when this returns on, if it decides.
    async fn may_decide(&mut self, decide: bool) {
        if decide && self.approver.is_none() {
            let Shared { handle, hub, .. } = &*self.shared;
            self.approver = Some(hub.approver());
            handle.set_deciding_clients(hub.approvers()).await;
        }
    }

    /// The policy in force, or why there is not the one that was asked for.
    async fn policy(&self, member: Option<MemberId>) -> Result<EgressState, Refusal> {
        let Shared { handle, rules, .. } = &*self.shared;
        let state = rules.state(member).await;
        if member.is_none() && matches!(state, Err(Refusal::NoPolicy)) {
            for (id, _) in handle.members().await.ok_or(Refusal::Ended)? {
                if rules.state(Some(id)).await.is_ok() {
                    return Err(Refusal::OwnPolicies);
                }
            }
        }
        state
    }

    async fn info(&self) -> Result<Value, Refusal> {
        let Shared { handle, assumed, started_at, rules, .. } = &*self.shared;
        let stats = handle.stats().await.ok_or(Refusal::Ended)?;
        let policy = match rules.state(None).await {
            Ok(state) => rows::policy_in_short(&state),
            Err(Refusal::NoPolicy) => Value::Null,
            Err(refusal) => return Err(refusal),
        };
        let members = handle.members().await.ok_or(Refusal::Ended)?;
        let members: Vec<_> =
            members.iter().map(|(id, member)| rows::member_of(*id, member)).collect();
        let questions = handle.questions().await.ok_or(Refusal::Ended)?.len();
        let (counters, discards) = rows::counters(&stats);
        let uptime = u64::try_from(started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let denied = ["egress_denied", "egress_unverified"];
        let denied: u64 = denied.iter().filter_map(|reason| discards[reason].as_u64()).sum();
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": uptime,
            "guest": assumed.ipv4.to_string(),
            "stats": counters,
            "discards": discards,
            "policy": policy,
            "approvers": stats.approvers,
            "questions": questions,
            "denied": denied,
            "flows": stats.flows,
            "members": members,
        }))
    }
}

/// The next event, if the client hears of any.
async fn next_of(subscription: Option<&Subscription>) -> String {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}
