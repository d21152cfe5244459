//! The language of the API socket: JSON requests, and why they are refused.
//!
//! Owns the reading of requests and the wording of refusals, which clients compare byte for byte;
//! other replies are in [`reply`](super::reply). Knows no socket. The contract is the section "API
//! SOCKET" of slirp4netns(1). IPv6 uses the names that existing clients know: `tcp6`, `udp6`,
//! `host_addr6`, `guest_addr6`. `host_addr` takes either version, because Podman passes the user's
//! address there. Podman also passes 0.0.0.0 when the user gave no address, so 0.0.0.0 stands for
//! all addresses, unless `proto` says `tcp4` or `udp4`. Our own arguments have names that no
//! existing client sends, and a rule is a range of ports only with one of them.

use core::ops::RangeInclusive;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::host::forward::{Forward, ForwardProtocol};
use crate::plan::AssumedGuest;

/// A request of this many bytes is too large.
pub(crate) const REQUEST_CAP: usize = 4096;

/// Flows in one reply to `list_flows` at most, unless fewer are asked for (about 250 bytes each).
pub(crate) const FLOWS_CAP: usize = 1000;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    /// `add_hostfwd`; a range of ports with `host_port_end`, which is our own extension.
    AddForward(Forward),
    /// `remove_hostfwd`; more than one rule with `id_end`, which is our own extension.
    RemoveForwards(RangeInclusive<u64>),
    /// `list_hostfwd`
    ListForwards,
    /// `list_flows`: our own extension.
    ListFlows {
        /// Where the requested part begins.
        from: u32,
        /// How many flows at most, 1..=[`FLOWS_CAP`].
        limit: usize,
    },
    /// `info`: our own extension.
    Info,
}

/// Why a request is refused; the text is the `desc` of the reply behind `bad request: `.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// [`REQUEST_CAP`] bytes or more.
    #[error("too large message")]
    TooLarge,
    /// Invalid JSON, or the client closed before the value was complete.
    #[error("cannot parse JSON")]
    NotJson,
    /// A JSON value other than an object.
    #[error("json_object() failed")]
    NotObject,
    /// `execute` is missing or not a string.
    #[error("no execute found")]
    NoExecute,
    /// A command that does not exist.
    #[error("unknown execute")]
    UnknownExecute,
    /// An argument of `add_hostfwd` is missing or out of range.
    #[error("add_hostfwd: bad arguments.{0}")]
    AddArgument(&'static str),
    /// The port, or one port of a range, could not be opened. Clients know this text; the reason
    /// follows it.
    #[error("add_hostfwd: slirp_add_hostfwd failed: {0}")]
    AddFailed(String),
    /// The id of `remove_hostfwd` is missing or names no rule.
    #[error("remove_hostfwd: bad arguments.id")]
    RemoveId,
    /// The last id of a range is not a number, or names no rule.
    #[error("remove_hostfwd: bad arguments.id_end")]
    RemoveIdEnd,
    /// The rule could not be removed because the instance is ending.
    #[error("remove_hostfwd: slirp_remove_hostfwd failed")]
    RemoveFailed,
    /// An argument of `list_flows` is out of range.
    #[error("list_flows: bad arguments.{0}")]
    FlowsArgument(&'static str),
    /// The instance is ending.
    #[error("the network is ending")]
    Ended,
}

impl Refusal {
    /// The reply.
    pub(crate) fn reply(&self) -> String {
        let desc = Value::String(format!("bad request: {self}"));
        format!("{{\"error\":{{\"desc\":{desc}}}}}")
    }
}

/// Parses the first JSON value of `bytes` and ignores the rest. `None` when the value is incomplete
/// and the client may still send the rest. A rule without a guest address leads to `assumed`.
pub(crate) fn parse(
    bytes: &[u8],
    is_ended: bool,
    assumed: AssumedGuest,
) -> Option<Result<Request, Refusal>> {
    if bytes.len() >= REQUEST_CAP {
        return Some(Err(Refusal::TooLarge));
    }
    // Other writers of JSON may put a byte order mark in front (RFC 8259 section 8.1).
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next();
    match first {
        Some(Ok(value)) => Some(request(&value, assumed)),
        Some(Err(error)) if !error.is_eof() => Some(Err(Refusal::NotJson)),
        Some(Err(_)) | None => is_ended.then_some(Err(Refusal::NotJson)),
    }
}

fn request(value: &Value, assumed: AssumedGuest) -> Result<Request, Refusal> {
    let object = value.as_object().ok_or(Refusal::NotObject)?;
    let execute = object.get("execute").and_then(Value::as_str).ok_or(Refusal::NoExecute)?;
    let arguments = object.get("arguments").unwrap_or(&Value::Null);
    match execute {
        "add_hostfwd" => add_range(arguments, assumed),
        "remove_hostfwd" => remove_forwards(arguments),
        "list_hostfwd" => Ok(Request::ListForwards),
        "list_flows" => list_flows(arguments),
        "info" => Ok(Request::Info),
        _ => Err(Refusal::UnknownExecute),
    }
}

fn remove_forwards(arguments: &Value) -> Result<Request, Refusal> {
    let first = arguments.get("id").and_then(number).ok_or(Refusal::RemoveId)?;
    let last = match optional(arguments, "id_end") {
        Some(end) => number(end).filter(|&end| end >= first).ok_or(Refusal::RemoveIdEnd)?,
        None => first,
    };
    Ok(Request::RemoveForwards(first..=last))
}

fn list_flows(arguments: &Value) -> Result<Request, Refusal> {
    let from = match optional(arguments, "from") {
        Some(from) => number(from)
            .and_then(|from| u32::try_from(from).ok())
            .ok_or(Refusal::FlowsArgument("from"))?,
        None => 0,
    };
    let limit = match optional(arguments, "limit") {
        Some(limit) => number(limit)
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=FLOWS_CAP).contains(limit))
            .ok_or(Refusal::FlowsArgument("limit"))?,
        None => FLOWS_CAP,
    };
    Ok(Request::ListFlows { from, limit })
}

/// One rule. With `host_port_end` it covers every port up to that one; they lead to as many ports
/// of the guest, from `guest_port` on.
fn add_range(arguments: &Value, assumed: AssumedGuest) -> Result<Request, Refusal> {
    let mut forward = add_forward(arguments, assumed)?;
    if let Some(end) = optional(arguments, "host_port_end") {
        let first = Some(forward.host.port()).filter(|&first| first != 0);
        let end = number(end).and_then(|end| u16::try_from(end).ok());
        let more = end.zip(first).and_then(|(end, first)| end.checked_sub(first));
        let more = more.ok_or(Refusal::AddArgument("host_port_end"))?;
        forward.guest.port().checked_add(more).ok_or(Refusal::AddArgument("guest_port"))?;
        // Ports begin with 1, so that there are never more than fit the type.
        forward.ports = more.saturating_add(1);
    }
    Ok(Request::AddForward(forward))
}

/// The IP version that `proto` names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V4,
    V6,
    Either,
}

/// The arguments are checked in this order, so that a request with several mistakes gets the
/// refusal that slirp4netns gives.
fn add_forward(arguments: &Value, assumed: AssumedGuest) -> Result<Forward, Refusal> {
    let (protocol, version) = match text(arguments, "proto") {
        Some("tcp") => (ForwardProtocol::Tcp, Version::Either),
        Some("udp") => (ForwardProtocol::Udp, Version::Either),
        Some("tcp4") => (ForwardProtocol::Tcp, Version::V4),
        Some("udp4") => (ForwardProtocol::Udp, Version::V4),
        Some("tcp6") => (ForwardProtocol::Tcp, Version::V6),
        Some("udp6") => (ForwardProtocol::Udp, Version::V6),
        Some(_) | None => return Err(Refusal::AddArgument("proto")),
    };
    // An address has two names: take the one that fits `proto`, or else the only one present.
    let name = |plain: &'static str, six: &'static str| {
        let has = |name| text(arguments, name).is_some();
        match version {
            Version::V4 => plain,
            Version::V6 if has(plain) && !has(six) => plain,
            Version::Either if has(plain) || !has(six) => plain,
            Version::V6 | Version::Either => six,
        }
    };
    let port = |name: &'static str| {
        let number = arguments.get(name).and_then(number);
        number.and_then(|number| u16::try_from(number).ok()).ok_or(Refusal::AddArgument(name))
    };
    let host_name = name("host_addr", "host_addr6");
    let host = match text(arguments, host_name) {
        None => None,
        Some(text) => {
            let is_allowed = |host: &IpAddr| match version {
                Version::V4 => host.is_ipv4(),
                Version::V6 => host.is_ipv6(),
                Version::Either => host.is_ipv6() || host_name == "host_addr",
            };
            let host = text.parse().ok().filter(is_allowed);
            Some(host.ok_or(Refusal::AddArgument(host_name))?)
        }
    };
    let host_port = port("host_port")?;
    let guest_name = name("guest_addr", "guest_addr6");
    let guest = match text(arguments, guest_name) {
        Some(text) => {
            let is_named = |guest: &IpAddr| guest.is_ipv6() == (guest_name == "guest_addr6");
            text.parse().ok().filter(is_named).ok_or(Refusal::AddArgument(guest_name))?
        }
        None => match assumed.ipv6 {
            Some(ipv6) if version == Version::V6 || host_name == "host_addr6" => ipv6.into(),
            Some(_) | None => assumed.ipv4.into(),
        },
    };
    let guest_port = port("guest_port").ok().filter(|&port| port != 0);
    let guest = SocketAddr::new(guest, guest_port.ok_or(Refusal::AddArgument("guest_port"))?);
    let host = host.unwrap_or_else(|| {
        let is_ipv6 = version == Version::V6 || guest.is_ipv6();
        if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    });
    let also_ipv6 = version == Version::Either && host == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let forward = Forward::new(protocol, SocketAddr::new(host, host_port), guest);
    Ok(Forward { also_ipv6, ..forward })
}

/// A non-empty string. A missing, an empty and a mistyped argument are all `None`.
fn text<'v>(arguments: &'v Value, name: &str) -> Option<&'v str> {
    arguments.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// An argument of our own extensions; `null` counts as missing.
fn optional<'v>(arguments: &'v Value, name: &str) -> Option<&'v Value> {
    arguments.get(name).filter(|value| !value.is_null())
}

/// A number, its fraction cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the fraction is cut off on purpose; the range is checked before"
)]
fn number(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    (0.0..=9e15).contains(&number).then_some(number as u64)
}

#[cfg(test)]
mod tests;
