//! Verdicts, and their causes.
//!
//! Owns the words that logs, events and explanations use.

use super::rule::Action;

crate::words::words! {
    /// Why something was allowed or refused.
    pub enum Cause:
    /// A rule says so.
    Rule => "rule",
    /// No rule does.
    Default => "default",
    /// A protected set, which a rule has to name.
    Protected => "protected",
    /// No lookup of an allowed name has given this address.
    NoName => "no-name",
    /// A rule allows the destination on other ports.
    Port => "port",
    /// A rule allows the destination for another protocol.
    Protocol => "protocol",
    /// The name's address is unfit: private, or the host's.
    Rebinding => "rebinding",
    /// The first bytes name another host.
    Name => "name",
    /// The first bytes are no TLS.
    NoTls => "no-tls",
    /// The ClientHello is malformed, too long or too slow.
    Hello => "hello",
    /// The HTTP request is malformed, or cannot be followed.
    Http => "http",
    /// The ClientHello hides its name.
    Ech => "ech",
    /// Nobody is connected who may decide.
    NoApprover => "no-approver",
    /// Nobody has decided in time.
    AskTimeout => "ask-timeout",
    /// Too many questions are open.
    AskFull => "ask-full",
    /// Somebody has decided it.
    Decision => "decision",
    /// The policy has changed.
    Revoked => "revoked",
    /// The audit log cannot be written, which the operator has made a condition.
    NoAudit => "no-audit",
}

/// What the judge says about a flow at its first packet, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What is to be done.
    pub(crate) verdict: FlowVerdict,
    /// What the rules say. A flow that passes although it is not allowed does so in audit mode.
    pub(crate) action: Action,
    pub(crate) cause: Cause,
    /// The number of the rule that decided, if one did.
    pub(crate) rule: Option<u32>,
}

impl Judged {
    /// A refusal by no rule.
    pub(crate) const fn refusal(cause: Cause) -> Self {
        Self { verdict: FlowVerdict::Refuse(cause), action: Action::Deny, cause, rule: None }
    }

    /// The same, refused.
    pub(crate) const fn refused(self, cause: Cause) -> Self {
        Self { verdict: FlowVerdict::Refuse(cause), action: Action::Deny, cause, ..self }
    }
}

/// What becomes of a flow at its first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowVerdict {
    /// It may go on; its first bytes are to be looked at as `verify` says.
    Pass { verify: Verification },
    /// It goes to a placeholder whose name is allowed: the name is to be looked up, and the first
    /// bytes have to name it as `verify` says.
    Named { verify: Verification },
    /// It is led to the DNS service.
    Resolver,
    /// Somebody is to be asked; it waits.
    Hold,
    /// It is refused.
    Refuse(Cause),
}

/// What is looked at in the first bytes of a TCP flow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Verification {
    /// Nothing.
    #[default]
    None,
    /// They must be a ClientHello with an allowed name (a name rule on port 443).
    Tls,
    /// They must be HTTP/1 requests for an allowed host (a name rule on port 80).
    Http,
    /// If they are one of both, the name must be allowed; anything else passes (a name rule on
    /// other ports).
    Sniff,
    /// If they are one of both, the name must not be denied; anything else passes (an address rule
    /// or default, while a name is denied).
    SniffDenied,
}

crate::words::words! {
    /// What the first bytes of a connection were.
    pub enum Shown:
    /// A TLS ClientHello.
    Tls => "tls",
    /// An HTTP request.
    Http => "http",
    /// Neither, as far as they were read.
    Other => "other",
}

/// What the judge says about a lookup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NameVerdict {
    /// It may be asked upstream.
    Ask,
    /// Somebody is to decide about flows to it: it gets a placeholder.
    Placeholder,
    /// There is no such type (NODATA): names below may be allowed.
    NoData,
    /// There is no such name (NXDOMAIN), with this explanation.
    Refuse { note: Option<std::sync::Arc<str>> },
}
