//! One object of an audit log, as the tools read it.
//!
//! Owns which keys the tools know and how they are checked. A key that is not known is ignored, and
//! a value of the wrong type is taken for absent: a log may come from a later version. Texts are
//! the guest's and are shown by [`foreign`](super::shown::foreign) only.

use std::net::IpAddr;

use serde_json::Value;
use slirp_core::egress::Action;

/// The schema that this program reads.
const SCHEMA: u64 = 1;

/// What is known of one event.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Record {
    /// RFC 3339, in UTC.
    pub(super) ts: String,
    /// Its place in what one network wrote.
    pub(super) seq: Option<u64>,
    /// What kind of event it is.
    pub(super) event: String,
    pub(super) guest: Option<String>,
    pub(super) member: Option<u64>,
    /// `tcp`, `udp` or `icmp`.
    pub(super) proto: Option<String>,
    /// The destination as it was reached.
    pub(super) dst: Option<IpAddr>,
    pub(super) port: u16,
    /// Names that the guest has looked up for the destination.
    pub(super) names: Vec<String>,
    /// The name in a ClientHello or an HTTP request.
    pub(super) claim: Option<String>,
    pub(super) verdict: Option<Action>,
    /// Whether the guest had to obey the verdict; not in audit mode.
    pub(super) is_enforced: bool,
    pub(super) cause: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) flow: Option<String>,
    pub(super) bytes_out: u64,
    pub(super) bytes_in: u64,
    /// Events that this one stands for, at least 1.
    pub(super) count: u64,
    /// The name of a lookup, its type and what became of it.
    pub(super) name: Option<String>,
    pub(super) qtype: Option<String>,
    pub(super) answer: Option<String>,
    /// The question that it opens or closes.
    pub(super) question: Option<u64>,
    /// Whether a remote began the flow, at a published port.
    pub(super) is_inbound: bool,
}

impl Record {
    /// Reads a line of a log; `None` if it is no event of a schema that this program knows.
    pub(super) fn parse(line: &str) -> Option<Self> {
        Self::of(&serde_json::from_str(line).ok()?)
    }

    /// Reads an object.
    pub(super) fn of(object: &Value) -> Option<Self> {
        // The control socket's `lost` is an event without the log's first keys.
        if object.get("v").is_some_and(|schema| schema.as_u64() != Some(SCHEMA)) {
            return None;
        }
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| object.get(key).and_then(Value::as_u64);
        // Of type A, a query may have its number where its type has no word.
        let word = |key: &str| text(key).or_else(|| number(key).map(|number| number.to_string()));
        let names = object.get("names").and_then(Value::as_array).map(Vec::as_slice);
        let names = names.unwrap_or_default().iter().filter_map(Value::as_str);
        let would = text("would");
        Some(Self {
            ts: text("ts").unwrap_or_default(),
            event: text("event")?,
            guest: text("guest"),
            member: number("member"),
            proto: text("proto"),
            dst: text("dst").and_then(|address| address.parse().ok()),
            port: number("port").and_then(|port| port.try_into().ok()).unwrap_or(0),
            names: names.map(str::to_owned).collect(),
            claim: text("sni").or_else(|| text("host")),
            is_enforced: would.is_none(),
            verdict: would.or_else(|| text("verdict")).and_then(|word| action(&word)),
            cause: text("cause"),
            rule: text("rule"),
            flow: text("flow"),
            bytes_out: number("bytes_out").unwrap_or(0),
            bytes_in: number("bytes_in").unwrap_or(0),
            count: number("count").unwrap_or(1).max(1),
            seq: number("seq"),
            name: text("name"),
            qtype: word("qtype"),
            answer: text("answer"),
            question: number("question"),
            is_inbound: object.get("inbound").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// Whether the guest was refused what it wanted.
    pub(super) fn is_refused(&self) -> bool {
        self.is_enforced && self.verdict == Some(Action::Deny)
    }
}

/// The verdict that a word stands for.
pub(super) fn action(word: &str) -> Option<Action> {
    [Action::Allow, Action::Ask, Action::Deny].into_iter().find(|action| action.as_str() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_schema_are_read() {
        let line = r#"{"v":1,"ts":"2026-11-29T02:35:16.220101Z","seq":42,"event":"verify",
            "guest":"10.0.2.100","proto":"tcp","dst":"203.0.113.7","port":443,
            "names":["index.example"],"sni":"other.example","verdict":"deny","cause":"name",
            "flow":"17.3","a_later_key":[1,{"x":null}]}"#;
        let record = Record::parse(line).expect("it is an event");
        assert_eq!(record.event, "verify");
        assert_eq!(record.dst, Some(IpAddr::from([203, 0, 113, 7])));
        assert_eq!((record.port, record.count), (443, 1));
        assert_eq!(record.claim.as_deref(), Some("other.example"));
        assert!(record.is_refused());
        let would = line.replace("\"verdict\"", "\"would\"");
        let record = Record::parse(&would).expect("it is an event");
        assert!(!record.is_refused() && record.verdict == Some(Action::Deny));
    }

    #[test]
    fn what_is_no_event_is_none_and_odd_values_are_absent() {
        for line in ["", "{", "[]", "7", "{}", r#"{"v":1}"#, r#"{"v":2,"event":"flow"}"#] {
            assert_eq!(Record::parse(line), None, "{line}");
        }
        let odd = r#"{"v":1,"event":"flow","port":70000,"dst":"x","names":"a","count":-1,"ts":[]}"#;
        let record = Record::parse(odd).expect("it is an event");
        assert_eq!((record.port, record.dst, record.count), (0, None, 1));
        assert!(record.names.is_empty());
    }
}
