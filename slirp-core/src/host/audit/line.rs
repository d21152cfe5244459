//! One line of an audit log: a JSON object with its keys in a fixed order.
//!
//! Owns the words and the order of the keys. A line is printable ASCII of at most [`LINE_CAP`]
//! bytes, whatever a guest sends: other characters are escaped, and long texts are cut. Absent keys
//! do not apply, and readers ignore keys that they do not know.
//!
//! | key | |
//! | --- | --- |
//! | `v`, `ts`, `seq`, `event` | this table's version, 1; RFC 3339, UTC; the number; the kind |
//! | `version`, `rules`, `sha256`, `default`, `mode`, `revision` | of the policy in force |
//! | `guest`, `member` | who |
//! | `proto`, `dst`, `port`, `written` | where to; `written` if the guest wrote another address |
//! | `inbound` | `true`: `dst` has come in by the published `port` |
//! | `names`, `sni`, `host` | what `dst` is called, and what first bytes say |
//! | `name`, `qtype`, `answer` | of a lookup |
//! | `direction` | `in` or `out`: the guest's limit that began to make traffic wait |
//! | `verdict` or `would`, `cause`, `rule` | what the policy says |
//! | `flow`, `bytes_out`, `bytes_in`, `ms` | the flow's id, which joins its lines, and its end |
//! | `question`, `expires_ms`, `flows` | of a question, with the flows that wait for it |
//! | `by`, `scope`, `for`, `ports`, `parent`, `held_ms` | of a decision: who, how long, what for |
//! | `count` | events that the line stands for; of `lost`, events that have no line |

use core::fmt::{self, Write as _};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::digest::sha256;
use crate::egress::{
    Action, Approver, Decision, EgressPolicy, Mode, NamePattern, PendingQuestion, Scope, Source,
    Subject,
};
use crate::event::FlowId;
use crate::journal::{Claim, Course, Ends, Event, Judgement, Lookup, QuestionEnding};
use crate::member::MemberId;
use crate::protocol::Protocol;

/// Bytes of a line, with its end of line.
pub(super) const LINE_CAP: usize = 2048;
/// Bytes of a text in a line, escaped: as long as a name (RFC 1035 section 2.3.4).
const TEXT_CAP: usize = 256;
/// Bytes of a name in a query, escaped: 255 bytes, each of which may become `\\255`.
const QUERIED_CAP: usize = 5 * 255;

/// The line about an event, without its end of line; `None` for an event that no audit log has. If
/// `count` is not 1, it stands for that many equal ones.
pub(crate) fn of_event(at: SystemTime, seq: u64, event: &Event, count: u64) -> Option<String> {
    let begin = |event| Line::new(at, seq, event);
    let mut line = match event {
        Event::Judged { flow, judgement } => {
            let mut line = begin("flow");
            line.judgement(judgement, None);
            line.flow(*flow);
            line
        }
        Event::Verified { flow, claim, judgement } => {
            let mut line = begin("verify");
            line.judgement(judgement, claim.as_ref());
            line.flow(Some(*flow));
            line
        }
        Event::Closed { flow, ends, age, traffic, judged: Some(course), .. } => {
            let mut line = begin("end");
            line.course(ends, course);
            line.flow(Some(*flow));
            line.number("bytes_out", traffic.from_guest);
            line.number("bytes_in", traffic.to_guest);
            line.number("ms", millis(*age));
            line
        }
        Event::Refused { flow: Some(flow), ends, judged: Some(course), .. } => {
            let mut line = begin("end");
            line.course(ends, course);
            line.flow(Some(*flow));
            line.number("bytes_out", 0);
            line.number("bytes_in", 0);
            line
        }
        Event::Answered { guest, member, question, lookup: Some(lookup), would, .. } => {
            let mut line = begin("dns");
            line.who(*guest, *member);
            if let Some(question) = question {
                line.text_of("name", &question.name, QUERIED_CAP);
                line.text("qtype", &kind(question.kind));
            }
            line.text("answer", lookup.as_str());
            if let Some(would) = would {
                line.text("would", would.as_str());
            } else if is_denied(*lookup) {
                line.text("verdict", Action::Deny.as_str());
            }
            line
        }
        Event::PolicySet { member, policy, revision } => {
            let mut line = begin("policy");
            line.policy(policy);
            line.number("revision", *revision);
            line.who(None, *member);
            line
        }
        Event::ManyNames { member, rule, pattern, count } => {
            let mut line = begin("dns_many");
            line.who(None, *member);
            line.text("name", &written(pattern));
            line.text("rule", &rule.to_string());
            line.number("count", u64::from(*count));
            line
        }
        Event::QuestionOpened(question) => {
            let mut line = begin("ask");
            line.subject(question);
            line.text("verdict", Action::Ask.as_str());
            line.rule(question.rule.as_ref());
            line.number("question", question.id.0);
            line.number("expires_ms", millis(question.expires_in));
            line.number("flows", u64::from(question.flows));
            line
        }
        Event::QuestionEnded { question, ending } => {
            let mut line = begin("decision");
            line.subject(question);
            if let Some(action) = ending.action() {
                line.text("verdict", action.as_str());
            }
            line.text("cause", ending.cause().as_str());
            line.rule(question.rule.as_ref());
            line.number("question", question.id.0);
            if let QuestionEnding::Decided { decision, by } = ending {
                if let Some(by) = by {
                    line.by(by);
                }
                line.scope(decision);
            }
            line.number("held_ms", millis(question.held));
            line.number("flows", u64::from(question.flows));
            line
        }
        Event::RateLimited { member, direction } => {
            let mut line = begin("rate");
            line.who(None, *member);
            line.text("direction", direction.as_str());
            line
        }
        Event::Opened { .. }
        | Event::Connected { .. }
        | Event::Refused { .. }
        | Event::Unsent { .. }
        | Event::Closed { .. }
        | Event::Asked { .. }
        | Event::Answered { .. }
        | Event::Discarded { .. } => return None,
    };
    if count != 1 {
        line.number("count", count);
    }
    Some(line.end())
}

/// The first line: `policy` is in force, if there is one.
pub(super) fn start(at: SystemTime, seq: u64, policy: Option<&EgressPolicy>) -> String {
    let mut line = Line::new(at, seq, "start");
    line.text("version", env!("CARGO_PKG_VERSION"));
    if let Some(policy) = policy {
        line.policy(policy);
    }
    line.end()
}

/// The last line.
pub(super) fn stop(at: SystemTime, seq: u64) -> String {
    Line::new(at, seq, "stop").end()
}

/// `count` events before this line have none.
pub(crate) fn lost(at: SystemTime, seq: u64, count: u64) -> String {
    let mut line = Line::new(at, seq, "lost");
    line.number("count", count);
    line.end()
}

/// Whether the guest does not get what it looked up.
pub(super) const fn is_denied(lookup: Lookup) -> bool {
    match lookup {
        Lookup::Refused | Lookup::NoSuchName | Lookup::NoAudit => true,
        Lookup::NoData | Lookup::Placeholder | Lookup::Asked | Lookup::Bound | Lookup::Unfit => {
            false
        }
    }
}

/// A line that is being written.
struct Line(String);

impl Line {
    fn new(at: SystemTime, seq: u64, event: &str) -> Self {
        let mut line = Self("{\"v\":1,\"ts\":\"".into());
        // Writing to a string does not fail.
        let _ = write!(line.0, "{}\"", Rfc3339(at));
        line.number("seq", seq);
        line.text("event", event);
        line
    }

    fn end(mut self) -> String {
        self.0.push('}');
        debug_assert!(self.0.len() < LINE_CAP, "{}", self.0);
        self.0
    }

    fn number(&mut self, key: &str, value: u64) {
        let _ = write!(self.0, ",\"{key}\":{value}");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.text_of(key, value, TEXT_CAP);
    }

    fn text_of(&mut self, key: &str, value: &str, cap: usize) {
        let _ = write!(self.0, ",\"{key}\":");
        self.quoted(value, cap);
    }

    /// A string of JSON (RFC 8259 section 7) that is printable ASCII and takes `cap` bytes at most
    /// between its quotes. One that is cut ends in "...".
    fn quoted(&mut self, value: &str, cap: usize) {
        self.0.push('"');
        let start = self.0.len();
        let mut fitting = start;
        for character in value.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                ' '..='~' => self.0.push(character),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0, "\\u{unit:04x}");
                    }
                }
            }
            let len = self.0.len() - start;
            if len > cap {
                self.0.truncate(fitting);
                self.0.push_str("...");
                break;
            }
            if len + 3 <= cap {
                fitting = self.0.len();
            }
        }
        self.0.push('"');
    }

    fn who(&mut self, guest: Option<IpAddr>, member: Option<MemberId>) {
        if let Some(guest) = guest {
            self.text("guest", &guest.to_string());
        }
        if let Some(MemberId(member)) = member {
            self.number("member", member);
        }
    }

    fn course(&mut self, ends: &Ends, course: &Course) {
        self.who(Some(ends.guest.ip()), course.member);
        self.destination(ends, course.reached);
    }

    fn destination(&mut self, ends: &Ends, reached: SocketAddr) {
        self.text("proto", protocol(ends.protocol));
        self.text("dst", &reached.ip().to_string());
        if ends.protocol != Protocol::Echo {
            self.number("port", u64::from(reached.port()));
        }
        if ends.remote.ip() != reached.ip() {
            self.text("written", &ends.remote.ip().to_string());
        }
    }

    fn judgement(&mut self, judgement: &Judgement, claim: Option<&Claim>) {
        let Judgement { ends, member, reached, is_inbound, .. } = judgement;
        self.course(ends, &Course::new(*member, *reached));
        if *is_inbound {
            self.0.push_str(",\"inbound\":true");
        }
        if let Some((first, others)) = judgement.names.split_first() {
            self.0.push_str(",\"names\":[");
            self.quoted(first.as_str(), TEXT_CAP);
            for name in others {
                self.0.push(',');
                self.quoted(name.as_str(), TEXT_CAP);
            }
            self.0.push(']');
        }
        match claim {
            Some(Claim::Sni(name)) => self.text("sni", name.as_str()),
            Some(Claim::Host(name)) => self.text("host", name.as_str()),
            None => {}
        }
        self.text(
            if judgement.is_enforced { "verdict" } else { "would" },
            judgement.action.as_str(),
        );
        self.text("cause", judgement.cause.as_str());
        self.rule(judgement.rule.as_ref());
    }

    fn rule(&mut self, rule: Option<&Source>) {
        if let Some(rule) = rule {
            self.text("rule", &rule.to_string());
        }
    }

    /// What a question is about.
    fn subject(&mut self, question: &PendingQuestion) {
        self.who(Some(question.guest), question.member);
        self.text("proto", protocol(question.protocol));
        if let Subject::Address(address) = &question.subject {
            self.text("dst", &address.to_string());
        }
        self.number("port", u64::from(question.port));
        if let Subject::Name(name) = &question.subject {
            self.0.push_str(",\"names\":[");
            self.quoted(name.as_str(), TEXT_CAP);
            self.0.push(']');
        }
    }

    /// Who has decided.
    fn by(&mut self, by: &Approver) {
        self.0.push_str(",\"by\":{");
        let numbers = [("uid", by.uid), ("pid", by.pid)];
        for (key, value) in numbers.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            let _ = write!(self.0, "\"{key}\":{value},");
        }
        if let Some(label) = &by.label {
            self.0.push_str("\"label\":");
            self.quoted(label, TEXT_CAP);
        } else if self.0.ends_with(',') {
            self.0.pop();
        }
        self.0.push('}');
    }

    fn scope(&mut self, decision: &Decision) {
        let (scope, time) = match decision.scope {
            Scope::Once => ("once", None),
            Scope::For(time) => ("for", Some(time)),
            Scope::Session => ("session", None),
        };
        self.text("scope", scope);
        if let Some(time) = time {
            self.number("for", time.as_secs());
        }
        if decision.all_ports {
            self.text("ports", "all");
        }
        if decision.parent {
            self.0.push_str(",\"parent\":true");
        }
    }

    fn flow(&mut self, flow: Option<FlowId>) {
        if let Some(FlowId { index, generation }) = flow {
            let _ = write!(self.0, ",\"flow\":\"{index}.{generation}\"");
        }
    }

    fn policy(&mut self, policy: &EgressPolicy) {
        self.number("rules", u64::try_from(policy.rules().len()).unwrap_or(u64::MAX));
        let _ = write!(self.0, ",\"sha256\":\"");
        for byte in sha256(policy.to_text().as_bytes()) {
            let _ = write!(self.0, "{byte:02x}");
        }
        self.0.push('"');
        self.text("default", policy.default_action().as_str());
        let mode = match policy.settings().mode.unwrap_or_default() {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        };
        self.text("mode", mode);
    }
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Echo => "icmp",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn written(pattern: &NamePattern) -> String {
    match pattern {
        NamePattern::Exact(name) => name.to_string(),
        NamePattern::Below(name) => format!("*.{name}"),
        NamePattern::Tree(name) => format!(".{name}"),
    }
}

/// The word for a type of a query; RFC 3597 section 5 for those without one here.
fn kind(kind: u16) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        255 => "ANY",
        other => return format!("TYPE{other}").into(),
    })
}

/// A time as RFC 3339 has it: in UTC, with microseconds. Times before 1970 are shown as its start.
struct Rfc3339(SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let micros = since.subsec_micros();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// The date of a day that is counted from 1970-01-01. Years begin in March here, so that the day
/// that some have more is their last one.
const fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    // 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let is_next = month >= 10;
    let month = if is_next { month - 9 } else { month + 3 };
    (era * 400 + year + is_next as u64, month, day)
}

#[cfg(test)]
mod tests;
