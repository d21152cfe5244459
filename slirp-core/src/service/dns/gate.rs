//! What an egress policy makes of a query and of its answer.
//!
//! Owns the table of queries that are asked, answered here, or refused, and the answers that say
//! so. The guest's [`Judge`] decides about names. Which addresses an answer binds to a name is in
//! [`answers`](super::answers).
//!
//! | query | what becomes of it |
//! | --- | --- |
//! | no standard query, no single question, another class than IN | REFUSED |
//! | a type that stands for no record (OPT, 128..=254: TSIG, AXFR, IXFR, …) | REFUSED |
//! | type ANY | NOTIMP |
//! | a reverse name | asked if the guest can reach the address now, else NXDOMAIN |
//! | a name that may be asked for | asked, in [our own words](super::rebuild) |
//! | a name that somebody is to be asked about: A | a placeholder, for one second |
//! | the same: AAAA, HTTPS and SVCB | NODATA |
//! | the same: other types | NXDOMAIN |
//! | HTTPS and SVCB of such a name, while a rule names hosts, and in audit mode | NODATA |
//! | a name above one that may be asked for, the root, a reverse zone | NODATA |
//! | any other name, and names that are no host names | NXDOMAIN |
//! | any query, while a required audit log cannot be written | SERVFAIL |
//!
//! A name that is no host name can match no rule. It is asked for where everything is: under
//! `allow any`, and in audit mode. There it is judged with `_` for its other bytes, so that a deny
//! rule still holds for what lies below a denied name.
//!
//! HTTPS and SVCB records hold the keys of Encrypted ClientHello, which hide the names that first
//! bytes have to show, so they are withheld from clients that ask for them. Additional records of
//! other answers are left as they are: clients do not look for keys there.
//!
//! NXDOMAIN and NODATA have no SOA record, so that nothing caches them (RFC 2308 section 5): rules
//! may change. Where the guest speaks EDNS, NXDOMAIN says why (RFC 8914 section 4.16).

use core::net::Ipv4Addr;
use std::sync::Arc;

use super::answers::read_chain;
use super::message::{
    CLASS_IN, QueryShape, ResponseCode, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_OPT, append_option,
    make_answer, make_answer_with,
};
use super::question::{Question, Reverse, host_name, nearest_host_name};
use super::rebuild::rebuild;
use crate::egress::{Action, EgressPolicy, Judge, ManyNames, Mode, Name, NameVerdict};
use crate::journal::Lookup;
use crate::time::Instant;

/// Types that stand for no record (RFC 6895 section 3.1), without ANY.
const META_TYPES: core::ops::RangeInclusive<u16> = 128..=254;
const TYPE_SVCB: u16 = 64;
const TYPE_HTTPS: u16 = 65;
/// EDNS option of an extended error (RFC 8914 section 2).
const OPTION_EXTENDED_ERROR: u16 = 15;
/// "The server is unable to respond because the domain is blocked" (RFC 8914 section 4.16).
const ERROR_BLOCKED: u16 = 15;
/// How long a placeholder may be kept, in seconds: a decision changes what the name means.
const PLACEHOLDER_TTL: u32 = 1;
/// What the guest reads where the rule has no note.
const BLOCKED_TEXT: &str = "egress policy";

/// What becomes of a query.
#[derive(Debug)]
pub(super) enum Passage {
    /// This goes upstream. The addresses of the answer belong to `name`, if it has one. A policy
    /// that was obeyed would say `would` instead. The guest has looked up `many` names.
    Ask { upstream: Vec<u8>, name: Option<Name>, would: Option<Action>, many: Option<ManyNames> },
    /// Nothing goes upstream.
    Answer { answer: Vec<u8>, lookup: Lookup },
}

/// Judges a query that is not about a member.
pub(super) fn judge_query(
    judge: &mut Judge,
    query: &[u8],
    shape: &QueryShape,
    now: Instant,
) -> Passage {
    let answer = |code, lookup| {
        let answer = make_answer(query, Some(shape), code);
        Passage::Answer { answer, lookup }
    };
    let question = Question::read(query, shape).filter(|question| question.class == CLASS_IN);
    let Some(question) = question else {
        return answer(ResponseCode::Refused, Lookup::Refused);
    };
    if question.kind == TYPE_ANY {
        return answer(ResponseCode::NotImplemented, Lookup::Refused);
    }
    if question.kind == TYPE_OPT || META_TYPES.contains(&question.kind) {
        return answer(ResponseCode::Refused, Lookup::Refused);
    }
    let (verdict, name) = judge_name(judge, &question, now);
    match verdict {
        NameVerdict::Ask => {
            if matches!(question.kind, TYPE_SVCB | TYPE_HTTPS) && looks_at_names(judge.policy()) {
                return answer(ResponseCode::NoError, Lookup::NoData);
            }
            let would = name.as_ref().and_then(|name| judge.would_say(name));
            let many = name.as_ref().and_then(|name| judge.note_lookup(name, now));
            Passage::Ask { upstream: rebuild(query, shape, &question), name, would, many }
        }
        NameVerdict::NoData => answer(ResponseCode::NoError, Lookup::NoData),
        NameVerdict::Placeholder => match (question.kind, name) {
            (TYPE_A, Some(name)) if let Some(address) = judge.placeholder(&name, now) => {
                let answer = placeholder_answer(query, shape, address);
                Passage::Answer { answer, lookup: Lookup::Placeholder }
            }
            (TYPE_AAAA | TYPE_SVCB | TYPE_HTTPS, _) => {
                answer(ResponseCode::NoError, Lookup::NoData)
            }
            _ => {
                Passage::Answer { answer: blocked(query, shape, None), lookup: Lookup::NoSuchName }
            }
        },
        NameVerdict::Refuse { note } => {
            Passage::Answer { answer: blocked(query, shape, note), lookup: Lookup::NoSuchName }
        }
    }
}

/// The answer to a query that could not be written down.
pub(super) fn unaudited(query: &[u8], shape: &QueryShape) -> Passage {
    let answer = make_answer(query, Some(shape), ResponseCode::ServerFailure);
    Passage::Answer { answer, lookup: Lookup::NoAudit }
}

/// The verdict about the name of a question, and the name that addresses of its answer belong to.
fn judge_name(
    judge: &mut Judge,
    question: &Question<'_>,
    now: Instant,
) -> (NameVerdict, Option<Name>) {
    let refused = NameVerdict::Refuse { note: None };
    let reverse = question.reverse();
    if let Some(Reverse::Address(address)) = reverse {
        let is_asked = judge.is_reachable(address, now);
        return (if is_asked { NameVerdict::Ask } else { refused }, None);
    }
    let is_parent = question.is_root() || reverse == Some(Reverse::Zone);
    let host = host_name(question.name);
    let judged = if let Some(host) = &host {
        judge.on_lookup(host, now)
    } else if !asks_for_all(judge.policy()) {
        refused
    } else if question.is_root() {
        NameVerdict::Ask
    } else {
        nearest_host_name(question.name).map_or(refused, |nearest| judge.on_lookup(&nearest, now))
    };
    match judged {
        NameVerdict::Refuse { .. } if is_parent => (NameVerdict::NoData, None),
        NameVerdict::Ask
        | NameVerdict::Placeholder
        | NameVerdict::NoData
        | NameVerdict::Refuse { .. } => (judged, host),
    }
}

/// Binds the addresses of `answer` to the name that was asked for. Returns what became of the
/// lookup: [`Lookup::NoSuchName`] if the guest may not have the answer.
pub(super) fn judge_answer(
    judge: &mut Judge,
    name: &Name,
    query: &[u8],
    shape: &QueryShape,
    answer: &[u8],
    now: Instant,
) -> Lookup {
    let chain = query.get(shape.questions.clone()).and_then(|asked| read_chain(answer, asked));
    let Some(chain) = chain else { return Lookup::Asked };
    if !judge.on_answer(name, &chain.aliases, &chain.addresses, now) {
        Lookup::NoSuchName
    } else if chain.addresses.is_empty() {
        Lookup::Asked
    } else if chain.addresses.iter().any(|&(address, _)| judge.names(address).any(|n| n == name)) {
        Lookup::Bound
    } else {
        Lookup::Unfit
    }
}

/// The answer that a name has `address`, for a second.
fn placeholder_answer(query: &[u8], shape: &QueryShape, address: Ipv4Addr) -> Vec<u8> {
    // The owner is the question's name, which stands behind the header of 12 bytes.
    let mut record = vec![0xc0, 12];
    record.extend_from_slice(&TYPE_A.to_be_bytes());
    record.extend_from_slice(&CLASS_IN.to_be_bytes());
    record.extend_from_slice(&PLACEHOLDER_TTL.to_be_bytes());
    record.extend_from_slice(&[0, 4]);
    record.extend_from_slice(&address.octets());
    make_answer_with(query, Some(shape), ResponseCode::NoError, 1, &record)
}

/// The answer that a name is blocked, and why.
pub(super) fn blocked(query: &[u8], shape: &QueryShape, note: Option<Arc<str>>) -> Vec<u8> {
    let mut answer = make_answer(query, Some(shape), ResponseCode::NoSuchName);
    if shape.edns.is_some() {
        let text = note.as_deref().unwrap_or(BLOCKED_TEXT);
        let error = [&ERROR_BLOCKED.to_be_bytes(), text.as_bytes()].concat();
        append_option(&mut answer, OPTION_EXTENDED_ERROR, &error);
    }
    answer
}

/// Whether first bytes have to show their names, now or when what was learned is enforced.
fn looks_at_names(policy: &EgressPolicy) -> bool {
    is_audited(policy) || policy.default_action() == Action::Ask || policy.names_hosts()
}

/// Whether names are asked for that no rule is about.
fn asks_for_all(policy: &EgressPolicy) -> bool {
    is_audited(policy) || policy.default_action() == Action::Allow
}

fn is_audited(policy: &EgressPolicy) -> bool {
    policy.settings().mode == Some(Mode::Audit)
}
