//! Egress policy: where a guest may go, by address, port and name.
//!
//! Owns the rules and how they are written, what they make of an address, a lookup, and the first
//! bytes of a connection, and which addresses a guest has learned for which name. It holds no
//! socket, file, clock or thread, and knows no flow: the [`stack`](crate::stack) asks and obeys.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `name`, `rule` | the values that rules are made of |
//! | `parse`, `error` | the grammar: text to rules, and what is wrong with a text |
//! | `text` | rules to text |
//! | `policy`, `draft` | [`EgressPolicy`], all rules in force; how those of several doors add up |
//! | `warning` | what an operator should know about rules that are in order |
//! | `sets` | named sets of addresses |
//! | `compile`, `ports` | rules in a form that is fast to ask |
//! | `evaluation` | the order of evaluation |
//! | `explain` | why a verdict is as it is |
//! | `attempt` | attempts as people write them, to have them explained |
//! | `bindings` | the addresses that the DNS has tied to names |
//! | `distinct` | how many names are looked up under a wildcard |
//! | `judge` | `Judge`, one per guest: the verdicts |
//! | `verdict` | verdicts, and their causes |
//! | `approval` | questions about flows, and decisions, as people see them |
//! | `asking` | flows that the rules ask about |
//! | `questions`, `decisions` | what is asked, and what was decided |
//! | `placeholders` | addresses that stand for names that are asked about |
//! | `ways` | where flows to these may lead |
//! | `verifier` | names in the first bytes of a connection: TLS and HTTP/1 |

mod approval;
mod asking;
mod attempt;
mod bindings;
mod compile;
mod decisions;
mod distinct;
mod draft;
mod error;
mod evaluation;
mod explain;
pub(crate) mod judge;
mod name;
mod parse;
mod placeholders;
mod policy;
mod ports;
mod questions;
mod rule;
mod sets;
#[cfg(test)]
mod tests;
mod text;
pub(crate) mod verdict;
pub(crate) mod verifier;
mod warning;
mod ways;

pub use approval::{
    Approver, DecideError, Decided, Decision, PendingQuestion, QuestionId, Scope, Subject,
};
pub(crate) use asking::Found;
pub use attempt::{Attempt, AttemptError};
pub use bindings::{ADDRESSES_TOLD, LearnedName};
pub use draft::TEXT_CAP;
pub use error::{Excerpt, RuleError, RuleErrorKind, RuleErrors};
pub use explain::{Destination, Explanation};
pub(crate) use judge::{Judge, JudgeConfig, ManyNames};
pub use name::Name;
pub use policy::EgressPolicy;
pub(crate) use questions::Question;
pub use rule::{
    Action, AddressSet, Direction, EgressRule, Mode, NamePattern, PortRange, Prefix,
    RuleDestination, RuleProtocol, Settings, Source, Verify,
};
pub(crate) use sets::embedded;
pub use verdict::{Cause, Shown};
pub(crate) use verdict::{FlowVerdict, Judged, NameVerdict, Verification};
pub(crate) use verifier::{Ask, Peek, Verifier};
pub use warning::{RuleWarning, RuleWarningKind};
pub(crate) use ways::Ways;
