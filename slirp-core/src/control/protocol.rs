//! The language of the API socket: JSON requests and the bytes that answer them.
//!
//! Owns the reading of requests, the wording of refusals and the shapes of replies, all of which
//! clients compare byte for byte. Knows no socket. The contract is the section "API SOCKET" of
//! slirp4netns(1); where its text and its program differ (`list_hostfwd`), replies satisfy readers
//! of either. IPv6 follows the names that its clients know: `tcp6`, `udp6`, `host_addr6`,
//! `guest_addr6`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use crate::event::ForwardId;
use crate::host::forward::{Forward, ForwardProtocol};
use crate::plan::AddressPlan;
use crate::stats::Stats;

/// A request of this many bytes is too large.
pub const REQUEST_CAP: usize = 4096;

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// `add_hostfwd`
    AddForward(Forward),
    /// `remove_hostfwd`
    RemoveForward(ForwardId),
    /// `list_hostfwd`
    ListForwards,
    /// `info`: our own extension.
    Info,
}

/// Why a request is refused; the text is the `desc` of the reply behind `bad request: `.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// [`REQUEST_CAP`] bytes or more.
    #[error("too large message")]
    TooLarge,
    /// No JSON value, or the client ended before it was complete.
    #[error("cannot parse JSON")]
    NotJson,
    /// A JSON value that is no object.
    #[error("json_object() failed")]
    NotObject,
    /// `execute` is missing or no string.
    #[error("no execute found")]
    NoExecute,
    /// A command that does not exist.
    #[error("unknown execute")]
    UnknownExecute,
    /// An argument of `add_hostfwd` is missing or out of range.
    #[error("add_hostfwd: bad arguments.{0}")]
    AddArgument(&'static str),
    /// The port could not be opened.
    #[error("add_hostfwd: slirp_add_hostfwd failed")]
    AddFailed,
    /// The id of `remove_hostfwd` is missing or names no rule.
    #[error("remove_hostfwd: bad arguments.id")]
    RemoveId,
    /// The rule could not be removed because the instance is ending.
    #[error("remove_hostfwd: slirp_remove_hostfwd failed")]
    RemoveFailed,
    /// The instance is ending.
    #[error("the network is ending")]
    Ended,
}

impl Refusal {
    /// The reply.
    pub fn reply(self) -> String {
        format!("{{\"error\":{{\"desc\":\"bad request: {self}\"}}}}")
    }
}

/// Reads the first JSON value of `bytes`; what comes after it does not matter. `None` when it is
/// not complete and the client may still send the rest.
pub fn parse(bytes: &[u8], is_ended: bool, plan: &AddressPlan) -> Option<Result<Request, Refusal>> {
    if bytes.len() >= REQUEST_CAP {
        return Some(Err(Refusal::TooLarge));
    }
    let first = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>().next();
    match first {
        Some(Ok(value)) => Some(request(&value, plan)),
        Some(Err(error)) if !error.is_eof() => Some(Err(Refusal::NotJson)),
        Some(Err(_)) | None => is_ended.then_some(Err(Refusal::NotJson)),
    }
}

fn request(value: &Value, plan: &AddressPlan) -> Result<Request, Refusal> {
    let object = value.as_object().ok_or(Refusal::NotObject)?;
    let execute = object.get("execute").and_then(Value::as_str).ok_or(Refusal::NoExecute)?;
    let arguments = object.get("arguments").unwrap_or(&Value::Null);
    match execute {
        "add_hostfwd" => add_forward(arguments, plan).map(Request::AddForward),
        "remove_hostfwd" => {
            let id = arguments.get("id").and_then(number).ok_or(Refusal::RemoveId)?;
            Ok(Request::RemoveForward(ForwardId(id)))
        }
        "list_hostfwd" => Ok(Request::ListForwards),
        "info" => Ok(Request::Info),
        _ => Err(Refusal::UnknownExecute),
    }
}

/// The arguments are looked at in this order, so that a request with several mistakes is told of
/// the same one as by slirp4netns.
fn add_forward(arguments: &Value, plan: &AddressPlan) -> Result<Forward, Refusal> {
    let has = |name| text(arguments, name).is_some();
    let is_v6_named =
        (has("host_addr6") || has("guest_addr6")) && !has("host_addr") && !has("guest_addr");
    let (protocol, is_ipv6) = match text(arguments, "proto") {
        Some("tcp") => (ForwardProtocol::Tcp, is_v6_named),
        Some("udp") => (ForwardProtocol::Udp, is_v6_named),
        Some("tcp4") => (ForwardProtocol::Tcp, false),
        Some("udp4") => (ForwardProtocol::Udp, false),
        Some("tcp6") => (ForwardProtocol::Tcp, true),
        Some("udp6") => (ForwardProtocol::Udp, true),
        Some(_) | None => return Err(Refusal::AddArgument("proto")),
    };
    let (host_name, guest_name) =
        if is_ipv6 { ("host_addr6", "guest_addr6") } else { ("host_addr", "guest_addr") };
    let address = |name: &'static str, default: Option<IpAddr>| {
        let parsed = match text(arguments, name) {
            None => default,
            Some(text) if is_ipv6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            Some(text) => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        parsed.ok_or(Refusal::AddArgument(name))
    };
    let port = |name: &'static str| {
        let number = arguments.get(name).and_then(number);
        let port = number.and_then(|number| u16::try_from(number).ok());
        port.filter(|&port| port != 0).ok_or(Refusal::AddArgument(name))
    };
    let everywhere: IpAddr =
        if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // Where an IPv6 guest is, it decides itself: there is nothing to assume.
    let recommended = (!is_ipv6).then_some(IpAddr::V4(plan.recommended_guest()));
    let host = address(host_name, Some(everywhere))?;
    let host = SocketAddr::new(host, port("host_port")?);
    let guest = address(guest_name, recommended)?;
    let guest = SocketAddr::new(guest, port("guest_port")?);
    Ok(Forward { protocol, host, guest })
}

/// A string that says something: missing, empty and of another type are the same.
fn text<'v>(arguments: &'v Value, name: &str) -> Option<&'v str> {
    arguments.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A number, its fraction cut off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cutting the fraction off is what is wanted; the range is checked before"
)]
fn number(value: &Value) -> Option<u64> {
    let number = value.as_f64()?;
    (0.0..=9e15).contains(&number).then_some(number as u64)
}

/// The reply to `add_hostfwd`.
pub fn added(id: ForwardId) -> String {
    format!("{{\"return\":{{\"id\":{}}}}}", id.0)
}

/// The reply to `remove_hostfwd`.
pub fn removed() -> String {
    "{\"return\":{}}".to_owned()
}

/// The reply to `list_hostfwd`. slirp4netns's manual promises `return.entries` and its program
/// sends `entries`, so some clients read the one and some the other.
pub fn listed(forwards: &[(ForwardId, Forward)]) -> String {
    let mut entries = String::from("[");
    for (index, (id, forward)) in forwards.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let proto = match forward.protocol {
            ForwardProtocol::Tcp => "tcp",
            ForwardProtocol::Udp => "udp",
        };
        let six = if forward.host.is_ipv6() { "6" } else { "" };
        let (host, guest) = (forward.host, forward.guest);
        // Writing to a string cannot fail.
        let _ = write!(
            entries,
            "{comma}{{\"id\":{},\"proto\":\"{proto}{six}\",\"host_addr{six}\":\"{}\",\
             \"host_port\":{},\"guest_addr{six}\":\"{}\",\"guest_port\":{}}}",
            id.0,
            host.ip(),
            host.port(),
            guest.ip(),
            guest.port(),
        );
    }
    entries.push(']');
    format!("{{\"return\":{{\"entries\":{entries}}},\"entries\":{entries}}}")
}

/// The reply to `info`.
pub fn info(plan: &AddressPlan, stats: &Stats) -> String {
    let mut reply = format!(
        "{{\"return\":{{\"version\":\"{}\",\"network\":\"{}/{}\",\"gateway\":\"{}\",\"dns\":\"{}\",\
         \"recommended_ip\":\"{}\"",
        env!("CARGO_PKG_VERSION"),
        plan.network(),
        plan.prefix_len(),
        plan.gateway(),
        plan.dns(),
        plan.recommended_guest(),
    );
    if let Some(ipv6) = plan.ipv6() {
        let _ = write!(
            reply,
            ",\"network6\":\"{}/{}\",\"gateway6\":\"{}\",\"dns6\":\"{}\"",
            ipv6.prefix(),
            crate::plan::Ipv6Plan::PREFIX_LEN,
            ipv6.gateway(),
            ipv6.dns(),
        );
    }
    let counters = [
        ("frames_from_guest", stats.frames_from_guest),
        ("frames_to_guest", stats.frames_to_guest),
        ("bytes_from_guest", stats.bytes_from_guest),
        ("bytes_to_guest", stats.bytes_to_guest),
        ("tcp_opened", stats.tcp_opened),
        ("tcp_failed", stats.tcp_failed),
        ("tcp_accepted", stats.tcp_accepted),
        ("tcp_parked", stats.tcp_parked),
        ("tcp_unparked", stats.tcp_unparked),
        ("udp_opened", stats.udp_opened),
        ("udp_accepted", stats.udp_accepted),
        ("echo_opened", stats.echo_opened),
        ("dns_queries", stats.dns_queries),
        ("flows", stats.flows),
    ];
    reply.push_str(",\"counters\":{");
    push_counters(&mut reply, counters.into_iter());
    reply.push_str("},\"discards\":{");
    push_counters(
        &mut reply,
        stats.discards.iter().map(|(reason, count)| (reason.as_str(), count)),
    );
    reply.push_str("}}}");
    reply
}

fn push_counters<'n>(reply: &mut String, counters: impl Iterator<Item = (&'n str, u64)>) {
    for (index, (name, count)) in counters.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(reply, "{comma}\"{name}\":{count}");
    }
}

#[cfg(test)]
mod tests;
