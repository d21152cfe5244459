//! What clients of the control socket ask for.
//!
//! Owns the names and arguments of requests, and the words of their refusals. A request is an
//! object on one line, `{"id":7,"execute":"policy_get","arguments":{}}`; the reply has its `id`.
//! An argument that a request does not have is refused, so that a misspelt one does not go
//! unnoticed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::hub::KINDS;
use crate::egress::{Action, Attempt, Decision, EgressPolicy, QuestionId, Scope};
use crate::event::FlowId;
use crate::member::MemberId;
use crate::rates::{Rate, Rates};
use crate::stack::{Established, Revision};

/// Rows of a reply, at most and unless a request says how many.
pub(super) const ROWS_CAP: usize = 256;
/// Bytes of an `id` that is text (arbitrary; it is repeated in the reply).
const ID_CAP: usize = 128;
/// Bytes of a client's label (arbitrary; logs repeat it).
const LABEL_CAP: usize = 64;
/// The longest time that a rule or a decision may be limited to (arbitrary).
const FOR_CAP: Duration = Duration::from_hours(24 * 365);

/// A request.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Request {
    /// Who the client is, and whether it may decide.
    Hello { label: Option<String>, decide: bool },
    /// The policy in force.
    PolicyGet { member: Option<MemberId>, from: usize },
    /// Another policy.
    PolicySet {
        member: Option<MemberId>,
        policy: EgressPolicy,
        replaced: Option<Revision>,
        established: Established,
    },
    /// One more rule, perhaps for some time.
    PolicyAdd { member: Option<MemberId>, rule: String, limit: Option<Duration> },
    /// One rule less.
    PolicyRemove { member: Option<MemberId>, which: RuleName },
    /// Why something is allowed or not.
    Explain { attempt: Attempt, guest: Option<IpAddr> },
    /// Names that a guest has learned, or all guests.
    Names { member: Option<MemberId>, part: Part<NameOrder> },
    /// Flows.
    Flows(Part<FlowOrder>),
    /// Open questions.
    Questions,
    /// A decision about a question.
    Decide { question: QuestionId, decision: Decision },
    /// The end of a flow.
    Cut(FlowId),
    /// Limits.
    RateGet { member: Option<MemberId> },
    /// Other limits.
    RateSet { member: Option<MemberId>, rates: Rates },
    /// Events from now on, and whether the client may decide.
    Subscribe { kinds: Option<BTreeSet<&'static str>>, decide: bool, since: Option<u64> },
    /// An overview.
    Info,
    /// Another file for the audit log.
    LogReopen,
    /// What collectors read.
    Metrics,
}

/// Which rows of a list are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part<O> {
    /// The next ones, in no order.
    Next { from: u32, limit: usize },
    /// The first ones in this order.
    First { order: O, limit: usize },
}

/// The order of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NameOrder {
    /// By their letters.
    Name,
    /// Those with most flows first.
    Flows,
}

/// The order of flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlowOrder {
    /// Those with most payload, both ways together, first.
    Bytes,
    /// The oldest first.
    Age,
    /// Those first that have been idle longest.
    Idle,
}

/// Which rule is to be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RuleName {
    /// The one that was written there: `api:3`, `policy.txt:2`.
    Id(String),
    /// All with this text.
    Text(String),
}

/// Why a request is not granted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a line is a JSON object")]
    NotObject,
    #[error("a line has at most 1 MiB")]
    TooLong,
    #[error("bad id: a whole number, or text of at most {ID_CAP} bytes")]
    Id,
    #[error("a request has no {0:?}: id, execute, arguments")]
    UnknownKey(String),
    #[error("execute is missing: the name of the request")]
    NoExecute,
    #[error("unknown request")]
    UnknownRequest,
    #[error("bad arguments: an object is wanted")]
    NotArguments,
    #[error("bad arguments: {request} has no {argument:?}")]
    UnknownArgument { request: &'static str, argument: String },
    #[error("bad arguments.{name}: {wanted}")]
    Argument { name: &'static str, wanted: &'static str },
    #[error("{0}")]
    Words(String),
    #[error("no policy is in force: policy_set brings one")]
    NoPolicy,
    #[error("no policy is in force for all members: say which member, or bring one by policy_set")]
    OwnPolicies,
    #[error("no rule has that id or text")]
    NoRule,
    #[error("the policy has changed: its revision is {0}")]
    Changed(u64),
    #[error("there is no such member")]
    UnknownMember,
    #[error("there is no such flow")]
    UnknownFlow,
    #[error("this connection does not decide: say \"decide\":true in hello or subscribe")]
    MayNotDecide,
    #[error("there is no audit log")]
    NoLog,
    #[error("a descriptor is wanted, sent along with the request (SCM_RIGHTS)")]
    NoDescriptor,
    #[error("the network is ending")]
    Ended,
}

impl Refusal {
    /// The reply.
    pub(super) fn reply(&self, id: Option<&Value>) -> Value {
        reply(id, "error", json!({ "desc": self.to_string() }))
    }
}

/// A reply with the id of its request, if that had one.
pub(super) fn reply(id: Option<&Value>, key: &str, value: Value) -> Value {
    let mut object = Map::new();
    if let Some(id) = id {
        object.insert("id".to_owned(), id.clone());
    }
    object.insert(key.to_owned(), value);
    Value::Object(object)
}

/// The reply to a line that is not a request, or a wrong one; `None` for a request.
pub fn refusal_of(line: &[u8]) -> Option<String> {
    let (id, request) = parse(line);
    Some(request.err()?.reply(id.as_ref()).to_string())
}

/// The request on a line, and its id.
pub(super) fn parse(line: &[u8]) -> (Option<Value>, Result<Request, Refusal>) {
    let Ok(Value::Object(object)) = serde_json::from_slice(line) else {
        return (None, Err(Refusal::NotObject));
    };
    let id = match object.get("id") {
        None | Some(Value::Null) => None,
        Some(id @ Value::Number(number)) if !number.is_f64() => Some(id.clone()),
        Some(id @ Value::String(text)) if text.len() <= ID_CAP => Some(id.clone()),
        Some(_) => return (None, Err(Refusal::Id)),
    };
    (id, request(&object))
}

fn request(object: &Map<String, Value>) -> Result<Request, Refusal> {
    let is_known = |key: &str| ["id", "execute", "arguments"].contains(&key);
    if let Some(unknown) = object.keys().find(|key| !is_known(key)) {
        return Err(Refusal::UnknownKey(excerpt(unknown)));
    }
    let execute = object.get("execute").and_then(Value::as_str).ok_or(Refusal::NoExecute)?;
    let none = Map::new();
    let map = match object.get("arguments") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refusal::NotArguments),
    };
    let of = |request, names| Arguments::new(request, map, names);
    match execute {
        "hello" => hello(&of("hello", &["label", "protocol", "decide"])?),
        "policy_get" => {
            let arguments = of("policy_get", &["member", "from"])?;
            let from = arguments.number("from", NUMBER)?.unwrap_or(0);
            Ok(Request::PolicyGet { member: arguments.member()?, from })
        }
        "policy_set" => {
            policy_set(&of("policy_set", &["policy", "if_revision", "established", "member"])?)
        }
        "policy_add" => {
            let arguments = of("policy_add", &["rule", "for", "member"])?;
            let rule = arguments.text("rule")?.ok_or(WANTED_RULE)?.to_owned();
            let (member, limit) = (arguments.member()?, arguments.limit()?);
            Ok(Request::PolicyAdd { member, rule, limit })
        }
        "policy_remove" => policy_remove(&of("policy_remove", &["rule", "id", "member"])?),
        "explain" => explain(&of("explain", &["target", "guest"])?),
        "names" => {
            let arguments = of("names", &["from", "limit", "sort", "member"])?;
            let orders = [("name", NameOrder::Name), ("flows", NameOrder::Flows)];
            let part = arguments.part("name or flows", &orders)?;
            Ok(Request::Names { member: arguments.member()?, part })
        }
        "flows" => {
            let orders =
                [("bytes", FlowOrder::Bytes), ("age", FlowOrder::Age), ("idle", FlowOrder::Idle)];
            let arguments = of("flows", &["from", "limit", "sort"])?;
            Ok(Request::Flows(arguments.part("bytes, age or idle", &orders)?))
        }
        "questions" => of("questions", &[]).map(|_| Request::Questions),
        "decide" => {
            decide(&of("decide", &["question", "verdict", "scope", "for", "ports", "names"])?)
        }
        "cut" => cut(&of("cut", &["flow"])?),
        "rate_get" => Ok(Request::RateGet { member: of("rate_get", &["member"])?.member()? }),
        "rate_set" => rate_set(&of("rate_set", &["in", "out", "in_burst", "out_burst", "member"])?),
        "subscribe" => subscribe(&of("subscribe", &["events", "decide", "since"])?),
        "info" => of("info", &[]).map(|_| Request::Info),
        "log_reopen" => of("log_reopen", &[]).map(|_| Request::LogReopen),
        "metrics" => of("metrics", &[]).map(|_| Request::Metrics),
        _ => Err(Refusal::UnknownRequest),
    }
}

const NUMBER: &str = "a number from 0 on";
const WANTED_RULE: Refusal =
    Refusal::Argument { name: "rule", wanted: "the text of a rule: allow files.example" };

/// The arguments of one request.
struct Arguments<'v> {
    map: &'v Map<String, Value>,
}

impl<'v> Arguments<'v> {
    fn new(
        request: &'static str,
        map: &'v Map<String, Value>,
        names: &[&str],
    ) -> Result<Self, Refusal> {
        match map.keys().find(|key| !names.contains(&key.as_str())) {
            Some(unknown) => Err(Refusal::UnknownArgument { request, argument: excerpt(unknown) }),
            None => Ok(Self { map }),
        }
    }

    /// `null` counts as missing.
    fn value(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<&'v str>, Refusal> {
        let wanted = Refusal::Argument { name, wanted: "text" };
        self.value(name).map(|value| value.as_str().ok_or(wanted)).transpose()
    }

    fn number<N: TryFrom<u64>>(
        &self,
        name: &'static str,
        wanted: &'static str,
    ) -> Result<Option<N>, Refusal> {
        let read = |value: &Value| value.as_u64().and_then(|number| N::try_from(number).ok());
        let wanted = Refusal::Argument { name, wanted };
        self.value(name).map(|value| read(value).ok_or(wanted)).transpose()
    }

    fn is_set(&self, name: &'static str) -> Result<bool, Refusal> {
        let wanted = Refusal::Argument { name, wanted: "true or false" };
        self.value(name).map_or(Ok(false), |value| value.as_bool().ok_or(wanted))
    }

    /// One of several words; the first if there is none.
    fn word<T: Copy>(
        &self,
        name: &'static str,
        wanted: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        found.map(|&(_, value)| Some(value)).ok_or(Refusal::Argument { name, wanted })
    }

    fn member(&self) -> Result<Option<MemberId>, Refusal> {
        Ok(self.number("member", "the number of a member")?.map(MemberId))
    }

    fn limit(&self) -> Result<Option<Duration>, Refusal> {
        let wanted = "seconds, from 1 to a year";
        let limit = self.number("for", wanted)?.map(Duration::from_secs);
        match limit {
            Some(limit) if limit.is_zero() || limit > FOR_CAP => {
                Err(Refusal::Argument { name: "for", wanted })
            }
            limit => Ok(limit),
        }
    }

    /// Which rows of a list are wanted, perhaps in one of these orders.
    fn part<O: Copy>(
        &self,
        wanted: &'static str,
        orders: &[(&str, O)],
    ) -> Result<Part<O>, Refusal> {
        let from = self.number("from", NUMBER)?;
        let order = self.word("sort", wanted, orders)?;
        let wanted = "a number from 1 to 256";
        let limit = self.number("limit", wanted)?.unwrap_or(ROWS_CAP);
        if !(1..=ROWS_CAP).contains(&limit) {
            return Err(Refusal::Argument { name: "limit", wanted });
        }
        match (order, from) {
            (None, from) => Ok(Part::Next { from: from.unwrap_or(0), limit }),
            (Some(order), None | Some(0)) => Ok(Part::First { order, limit }),
            (Some(_), Some(_)) => {
                let wanted = "not beside sort, which has the first rows alone";
                Err(Refusal::Argument { name: "from", wanted })
            }
        }
    }
}

fn hello(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let label = arguments.text("label")?.map(str::to_owned);
    let is_printable = |label: &String| {
        label.len() <= LABEL_CAP && label.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    };
    if label.as_ref().is_some_and(|label| !is_printable(label)) {
        let wanted = "at most 64 bytes of printable ASCII";
        return Err(Refusal::Argument { name: "label", wanted });
    }
    // The reply says which protocol it is going to be.
    arguments.number::<u32>("protocol", "a number from 1 on")?;
    Ok(Request::Hello { label, decide: arguments.is_set("decide")? })
}

fn policy_set(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let label = "bad arguments.policy";
    let wanted = Refusal::Argument { name: "policy", wanted: "text, or a list of rules" };
    let policy = match arguments.value("policy") {
        Some(Value::String(text)) => {
            EgressPolicy::from_list("api", label, EgressPolicy::entries(text))
        }
        Some(Value::Array(entries)) => {
            let entries: Option<Vec<_>> = entries.iter().map(Value::as_str).collect();
            EgressPolicy::from_list("api", label, entries.ok_or(wanted)?)
        }
        Some(_) | None => return Err(wanted),
    };
    let words = [("cut", Established::Cut), ("keep", Established::Keep)];
    let established = arguments.word("established", "cut or keep", &words)?;
    Ok(Request::PolicySet {
        member: arguments.member()?,
        policy: policy.map_err(|errors| Refusal::Words(errors.to_string()))?,
        replaced: arguments.number("if_revision", "the number of a revision")?.map(Revision),
        established: established.unwrap_or(Established::Cut),
    })
}

fn policy_remove(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let which = match (arguments.text("rule")?, arguments.text("id")?) {
        (Some(rule), None) => RuleName::Text(rule.to_owned()),
        (None, Some(id)) => RuleName::Id(id.to_owned()),
        (None, None) => return Err(WANTED_RULE),
        (Some(_), Some(_)) => {
            return Err(Refusal::Argument { name: "id", wanted: "either an id or a rule" });
        }
    };
    Ok(Request::PolicyRemove { member: arguments.member()?, which })
}

fn explain(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let wanted =
        Refusal::Argument { name: "target", wanted: "what is attempted: files.example:443" };
    let attempt = Attempt::parse(arguments.text("target")?.ok_or(wanted)?)
        .map_err(|error| Refusal::Words(format!("bad arguments.target: {error}")))?;
    let guest = arguments.text("guest")?.map(|guest| {
        guest.parse().map_err(|_| Refusal::Argument { name: "guest", wanted: "an address" })
    });
    Ok(Request::Explain { attempt, guest: guest.transpose()? })
}

fn decide(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let wanted = "the number of a question";
    let question =
        arguments.number("question", wanted)?.ok_or(Refusal::Argument { name: "question", wanted });
    let verdicts = [("allow", Action::Allow), ("deny", Action::Deny)];
    let wanted = "allow or deny";
    let action = arguments
        .word("verdict", wanted, &verdicts)?
        .ok_or(Refusal::Argument { name: "verdict", wanted })?;
    let limit = arguments.limit()?;
    let scope = match (arguments.text("scope")?, limit) {
        (None | Some("once"), None) => Scope::Once,
        (Some("session"), None) => Scope::Session,
        (None | Some("for"), Some(limit)) => Scope::For(limit),
        (Some("for"), None) => {
            return Err(Refusal::Argument { name: "for", wanted: "seconds, from 1 to a year" });
        }
        (Some("once" | "session"), Some(_)) => {
            return Err(Refusal::Argument { name: "for", wanted: "only beside the scope \"for\"" });
        }
        (Some(_), _) => {
            return Err(Refusal::Argument { name: "scope", wanted: "once, for or session" });
        }
    };
    let all_ports = arguments.word("ports", "this or all", &[("this", false), ("all", true)])?;
    let parent = arguments.word("names", "name or parent", &[("name", false), ("parent", true)])?;
    let (all_ports, parent) = (all_ports.unwrap_or(false), parent.unwrap_or(false));
    let decision = Decision { action, scope, all_ports, parent };
    Ok(Request::Decide { question: QuestionId(question?), decision })
}

fn cut(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let wanted = Refusal::Argument { name: "flow", wanted: "the name of a flow: \"17.3\"" };
    let flow = arguments.text("flow")?.and_then(|flow| flow.split_once('.'));
    let flow = flow.and_then(|(index, generation)| {
        Some(FlowId { index: index.parse().ok()?, generation: generation.parse().ok()? })
    });
    flow.map(Request::Cut).ok_or(wanted)
}

fn rate_set(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let rate = |name, burst_name| {
        let bits = arguments.number(name, "bits a second, or null for no limit")?;
        let burst = arguments.number(burst_name, "bytes")?;
        match (bits, burst) {
            (None | Some(0), None) => Ok(None),
            (None | Some(0), Some(_)) => {
                Err(Refusal::Argument { name: burst_name, wanted: "only beside a rate" })
            }
            (Some(bits_per_second), burst) => Ok(Some(Rate { bits_per_second, burst })),
        }
    };
    let rates = Rates::new(rate("in", "in_burst")?, rate("out", "out_burst")?);
    Ok(Request::RateSet { member: arguments.member()?, rates })
}

fn subscribe(arguments: &Arguments<'_>) -> Result<Request, Refusal> {
    let wanted = Refusal::Argument {
        name: "events",
        wanted: "a list out of start, stop, policy, dns, flow, verify, end, ask, decision, rate, \
                 dns_many and lost",
    };
    let kinds = match arguments.value("events") {
        None => None,
        Some(Value::Array(names)) => {
            let kind = |name: &Value| KINDS.into_iter().find(|&kind| name.as_str() == Some(kind));
            Some(names.iter().map(kind).collect::<Option<_>>().ok_or(wanted)?)
        }
        Some(_) => return Err(wanted),
    };
    let since = arguments.number("since", "the number of an event")?;
    Ok(Request::Subscribe { kinds, decide: arguments.is_set("decide")?, since })
}

/// Some text of a client as messages repeat it.
fn excerpt(text: &str) -> String {
    text.chars().take(32).collect()
}

#[cfg(test)]
mod tests;
