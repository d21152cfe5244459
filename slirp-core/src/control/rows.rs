//! What replies of the control socket say, as JSON values.
//!
//! Owns their fields. A reply is one line, so lists come in parts that fit.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::lines::LINE_CAP;
use crate::egress::{
    EgressPolicy, Explanation, LearnedName, Mode, PendingQuestion, Source, Subject,
};
use crate::flow::JudgedFlow;
use crate::member::{Member, MemberId};
use crate::protocol::Protocol;
use crate::rates::Rates;
use crate::stack::EgressState;
use crate::stats::Stats;

/// Bytes of a policy's text that fit into a reply, beside as much of the list of its rules. A
/// longer text is left out, and read rule by rule.
const TEXT_CAP: usize = LINE_CAP / 2;
/// Bytes of a list of rules in one reply.
const RULES_CAP: usize = LINE_CAP / 4;

/// An object out of fields, of which those that are not there are left out.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let present = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(present.collect())
}

fn millis(duration: Duration) -> Value {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).into()
}

/// Seconds, of which no part is lost.
fn seconds(duration: Duration) -> Value {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).into()
}

fn protocol(protocol: Protocol) -> Value {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Echo => "icmp",
    }
    .into()
}

fn member(member: Option<MemberId>) -> Option<Value> {
    member.map(|member| member.0.into())
}

fn source(source: Option<&Source>) -> Option<Value> {
    source.map(|source| source.to_string().into())
}

/// An address, with the port where there is one.
fn shown(address: SocketAddr, kind: Protocol) -> Value {
    match kind {
        Protocol::Echo => address.ip().to_string(),
        Protocol::Tcp | Protocol::Udp => address.to_string(),
    }
    .into()
}

fn mode(policy: &EgressPolicy) -> &'static str {
    match policy.settings().mode {
        Some(Mode::Audit) => "audit",
        Some(Mode::Enforce) | None => "enforce",
    }
}

/// `policy_get`: the policy, and its rules from the one with the index `from` on.
pub(super) fn policy(state: &EgressState, ends: &[(Source, Duration)], from: usize) -> Value {
    let policy = &state.policy;
    let text = Value::from(policy.to_text());
    let text = if text.to_string().len() > TEXT_CAP { Value::Null } else { text };
    let mut rules = Vec::new();
    let mut len = 0;
    let mut next = Value::Null;
    for (index, rule) in policy.rules().iter().enumerate().skip(from) {
        let expires = ends.iter().find(|(id, _)| *id == rule.source);
        let row = object([
            ("id", source(Some(&rule.source))),
            ("text", Some(rule.to_string().into())),
            ("expires_s", expires.map(|&(_, left)| seconds(left))),
        ]);
        len += row.to_string().len() + 1;
        if len > RULES_CAP && !rules.is_empty() {
            next = index.into();
            break;
        }
        rules.push(row);
    }
    let exceptions: Vec<_> = state.exceptions.iter().map(|member| member.0).collect();
    object([
        ("text", Some(text)),
        ("rules", Some(rules.into())),
        ("next", Some(next)),
        ("revision", Some(state.revision.0.into())),
        ("default", Some(policy.default_action().as_str().into())),
        ("mode", Some(mode(policy).into())),
        ("sources", Some(policy.doors().take(64).collect::<Vec<_>>().into())),
        ("exceptions", (!exceptions.is_empty()).then(|| exceptions.into())),
    ])
}

/// `explain`.
pub(super) fn explanation(explanation: &Explanation) -> Value {
    object([
        ("verdict", Some(explanation.verdict.as_str().into())),
        ("cause", Some(explanation.cause.as_str().into())),
        ("rule", source(explanation.rule.as_ref())),
        ("steps", Some(explanation.steps.clone().into())),
    ])
}

/// A row of `names`.
pub(super) fn name(row: &LearnedName) -> Value {
    let addresses: Vec<_> = row.addresses.iter().map(|address| address.to_string()).collect();
    object([
        ("name", Some(row.name.as_str().into())),
        ("member", member(row.member)),
        ("addresses", Some(addresses.into())),
        ("verdict", Some(row.action.as_str().into())),
        ("rule", source(row.rule.as_ref())),
        ("flows", Some(row.flows.into())),
        ("expires_s", Some(seconds(row.expires_in))),
    ])
}

/// A row of `flows`.
pub(super) fn flow(row: &JudgedFlow) -> Value {
    let flow = &row.summary;
    let names: Vec<_> = row.names.iter().map(|name| name.as_str()).collect();
    let port = row.reached.filter(|_| flow.protocol != Protocol::Echo).map(|to| to.port().into());
    object([
        ("flow", Some(format!("{}.{}", flow.id.index, flow.id.generation).into())),
        ("guest", Some(shown(flow.guest, flow.protocol))),
        ("member", member(row.member)),
        ("proto", Some(protocol(flow.protocol))),
        ("remote", Some(shown(flow.remote, flow.protocol))),
        ("dst", row.reached.map(|reached| reached.ip().to_string().into())),
        ("port", port),
        ("names", Some(names.into())),
        ("verdict", row.verdict.map(|(action, _)| action.as_str().into())),
        ("cause", row.verdict.map(|(_, cause)| cause.as_str().into())),
        ("rule", source(row.rule.as_ref())),
        ("state", Some(flow.state.as_str().into())),
        ("inbound", flow.is_inbound.then_some(true.into())),
        ("age_ms", Some(millis(flow.age))),
        ("idle_ms", Some(millis(flow.idle))),
        ("bytes_out", Some(flow.traffic.from_guest.into())),
        ("bytes_in", Some(flow.traffic.to_guest.into())),
    ])
}

/// A row of `questions`.
pub(super) fn question(row: &PendingQuestion) -> Value {
    let (name, address) = match &row.subject {
        Subject::Name(name) => (Some(name.as_str().into()), None),
        Subject::Address(address) => (None, Some(address.to_string().into())),
    };
    object([
        ("question", Some(row.id.0.into())),
        ("guest", Some(row.guest.to_string().into())),
        ("member", member(row.member)),
        ("name", name),
        ("address", address),
        ("port", Some(row.port.into())),
        ("proto", Some(protocol(row.protocol))),
        ("rule", source(row.rule.as_ref())),
        ("held_ms", Some(millis(row.held))),
        ("expires_ms", Some(millis(row.expires_in))),
        ("flows", Some(row.flows.into())),
    ])
}

/// `rate_get`.
pub(super) fn rates(rates: &Rates, of: Option<MemberId>) -> Value {
    let bits = |rate: Option<_>| rate.map_or(Value::Null, Value::from);
    object([
        ("in", Some(bits(rates.to_guest.map(|rate| rate.bits_per_second)))),
        ("out", Some(bits(rates.from_guest.map(|rate| rate.bits_per_second)))),
        ("in_burst", rates.to_guest.and_then(|rate| rate.burst).map(Value::from)),
        ("out_burst", rates.from_guest.and_then(|rate| rate.burst).map(Value::from)),
        ("member", member(of)),
    ])
}

/// What `info` tells of the policy.
pub(super) fn policy_in_short(state: &EgressState) -> Value {
    json!({
        "revision": state.revision.0,
        "rules": state.policy.rules().len(),
        "default": state.policy.default_action().as_str(),
        "mode": mode(&state.policy),
    })
}

/// The counters of `info`, and those of discards.
pub(super) fn counters(stats: &Stats) -> (Value, Value) {
    let object = |counters: &mut dyn Iterator<Item = (&'static str, u64)>| {
        let fields = counters.map(|(name, count)| (name.to_owned(), Value::from(count)));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let mut discards = stats.discards.iter().map(|(reason, count)| (reason.as_str(), count));
    (object(&mut stats.iter()), object(&mut discards))
}

/// A row of the members in `info`.
pub(super) fn member_of(id: MemberId, member: &Member) -> Value {
    let addresses: Vec<_> = member.addresses().map(|address| address.to_string()).collect();
    json!({ "member": id.0, "addresses": addresses })
}

/// What the first line says.
pub(super) fn greeting() -> Value {
    json!({ "slirp": env!("CARGO_PKG_VERSION"), "protocol": 1, "can": ["read", "decide"] })
}
