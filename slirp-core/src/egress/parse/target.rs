//! What a rule is about: protocol, destination, ports.
//!
//! ```text
//! target = [ ( "tcp" | "udp" | "icmp" | "dns" ) , ":" ] , dest , [ ":" , ports ]
//! dest   = "any" | set | IPv4 , [ "/" , length ] | "[" , IPv6 , [ "/" , length ] , "]"
//!        | IPv6 , [ "/" , length ]                    (* only when no ports follow *)
//!        | name
//! set    = "host-loopback" | "gateway" | "host" | "private" | "link-local" | "metadata"
//!        | "multicast" | "internet" | "dns"
//! name   = [ "*." | "**." | "." ] , label , { "." , label } , [ "." ]
//! ports  = "*" | port , [ "-" , port ] , { "," , port , [ "-" , port ] }
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::words::{Word, Wrong};
use crate::egress::error::{Excerpt, RuleErrorKind};
use crate::egress::name::Name;
use crate::egress::rule::{
    Action, AddressSet, Direction, NamePattern, PORT_ITEMS_CAP, PortRange, Prefix, RuleDestination,
    RuleProtocol,
};

#[derive(Debug)]
pub(super) struct Target {
    pub(super) protocol: Option<RuleProtocol>,
    pub(super) destination: RuleDestination,
    pub(super) ports: Option<Vec<PortRange>>,
}

/// Reads a target of a rule.
pub(super) fn target(
    word: Word<'_>,
    action: Action,
    direction: Direction,
) -> Result<Target, Wrong> {
    let target = if word.is("dns") {
        let protocol = Some(RuleProtocol::Dns);
        Target { protocol, destination: RuleDestination::Any, ports: None }
    } else {
        let (protocol, rest) = protocol(word);
        no_url(rest)?;
        let (dest, ports) = split(rest)?;
        let everything = || {
            let verb = match direction {
                Direction::Out => Excerpt::new(&action.to_string()),
                Direction::In => Excerpt::new(&format!("{action} in")),
            };
            dest.wrong(RuleErrorKind::Everything { verb })
        };
        let destination = destination(dest, everything)?;
        let ports = ports.map(|word| ports_of(word, protocol)).transpose()?;
        Target { protocol, destination, ports }
    };
    let is_lookup = target.protocol == Some(RuleProtocol::Dns);
    let is_name = matches!(target.destination, RuleDestination::Name(_));
    if direction == Direction::In && (is_name || is_lookup) {
        return Err(word.wrong(RuleErrorKind::InName));
    }
    if is_lookup && action == Action::Ask {
        return Err(word.wrong(RuleErrorKind::AskLookup));
    }
    if is_lookup && !is_name && target.destination != RuleDestination::Any {
        return Err(word.wrong(RuleErrorKind::DnsAddress));
    }
    Ok(target)
}

/// The protocol in front, and the rest.
fn protocol(word: Word<'_>) -> (Option<RuleProtocol>, Word<'_>) {
    if let Some(colon) = word.text.find(':') {
        let (front, rest) = word.split_at_separator(colon);
        if let Some(protocol) = front.find(&RuleProtocol::WORDS) {
            return (Some(protocol), rest);
        }
    }
    (None, word)
}

/// Refuses what a browser's address bar would take.
fn no_url(word: Word<'_>) -> Result<(), Wrong> {
    let (scheme, rest) = word
        .text
        .split_once("://")
        .map_or((None, word.text), |(scheme, rest)| (Some(scheme.to_ascii_lowercase()), rest));
    let host = rest.split('/').next().unwrap_or(rest);
    let colons = host.bytes().filter(|byte| *byte == b':').count();
    let is_path = host.len() < rest.len()
        && colons < 2
        && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    if scheme.is_none() && !is_path {
        return Ok(());
    }
    let port = match scheme.as_deref() {
        Some("https") if colons == 0 => ":443",
        Some("http") if colons == 0 => ":80",
        _ => "",
    };
    let instead = Excerpt::new(&format!("{host}{port}"));
    Err(word.wrong(RuleErrorKind::SchemeOrPath { instead }))
}

/// The destination, and the ports behind it.
fn split(word: Word<'_>) -> Result<(Word<'_>, Option<Word<'_>>), Wrong> {
    let text = word.text;
    let no_name = || word.wrong(RuleErrorKind::NoName { word: word.excerpt() });
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(no_name)?;
        let inside = word.part(1, end);
        if !inside.text.contains(':') {
            return Err(no_name());
        }
        return match word.part(end + 1, text.len()) {
            Word { text: "", .. } => Ok((inside, None)),
            behind if behind.text.starts_with(':') => {
                Ok((inside, Some(behind.split_at_separator(0).1)))
            }
            _ => Err(no_name()),
        };
    }
    let (Some(first), Some(last)) = (text.find(':'), text.rfind(':')) else {
        return Ok((word, None));
    };
    let (dest, ports) = word.split_at_separator(last);
    if first == last {
        return Ok((dest, Some(ports)));
    }
    let whole = network(word);
    if let Some(Ok(_)) = whole {
        return Ok((word, None));
    }
    if let Some(Ok(_)) = network(dest) {
        let (address, ports) = (dest.excerpt(), ports.excerpt());
        return Err(word.wrong(RuleErrorKind::Brackets { address, ports }));
    }
    if let Some(Err(wrong)) = whole {
        return Err(wrong);
    }
    let front = word.part(0, first);
    if !front.text.is_empty() && front.text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(front.wrong(RuleErrorKind::NoProtocol { word: front.excerpt() }));
    }
    Err(no_name())
}

fn destination(word: Word<'_>, everything: impl Fn() -> Wrong) -> Result<RuleDestination, Wrong> {
    if word.text.is_empty() {
        return Err(word.wrong(RuleErrorKind::NoDestination));
    }
    if word.is("any") {
        return Ok(RuleDestination::Any);
    }
    if let Some(set) = word.find(&AddressSet::WORDS) {
        return Ok(RuleDestination::Set(set));
    }
    if word.is("*") || word.is("**") {
        return Err(everything());
    }
    match network(word) {
        Some(Ok(Prefix { len: 0, .. })) => Err(everything()),
        // No guest reaches the IPv6 form: the rule would match nothing.
        Some(Ok(Prefix { address: IpAddr::V6(v6), len: 96.. }))
            if v6.to_ipv4_mapped().is_some() =>
        {
            let v4 = IpAddr::V6(v6).to_canonical();
            Err(word.wrong(RuleErrorKind::Mapped { address: v6, v4 }))
        }
        Some(network) => network.map(RuleDestination::Prefix),
        None => pattern(word).map(RuleDestination::Name),
    }
}

/// An address or network; `None` if the text is neither.
pub(super) fn network(word: Word<'_>) -> Option<Result<Prefix, Wrong>> {
    let (address, len) = match word.text.find('/') {
        Some(slash) => {
            let (address, len) = word.split_at_separator(slash);
            (address, Some(len))
        }
        None => (word, None),
    };
    let address: IpAddr = address.text.parse().ok()?;
    let (family, longest) = match address {
        IpAddr::V4(_) => ("IPv4", 32),
        IpAddr::V6(_) => ("IPv6", 128),
    };
    let Some(len) = len else {
        return Some(Ok(Prefix { address, len: longest }));
    };
    let number = number(len.text).and_then(|len| u8::try_from(len).ok());
    let Some(number) = number.filter(|number| *number <= longest) else {
        return Some(Err(len.wrong(RuleErrorKind::PrefixLength { family, longest })));
    };
    let network = network_of(address, number);
    if network.address != address {
        return Some(Err(word.wrong(RuleErrorKind::HostBits { address, network })));
    }
    Some(Ok(network))
}

/// The network of `len` bits that the address is in.
fn network_of(address: IpAddr, len: u8) -> Prefix {
    let address = match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    };
    Prefix { address, len }
}

/// A name, or names below it.
fn pattern(word: Word<'_>) -> Result<NamePattern, Wrong> {
    if !word.text.is_ascii() {
        return Err(word.wrong(RuleErrorKind::NotAscii { name: word.text.into() }));
    }
    let no_name = || word.wrong(RuleErrorKind::NoName { word: word.excerpt() });
    let below = word.text.strip_prefix("**.").or_else(|| word.text.strip_prefix("*."));
    let tree = word.text.strip_prefix('.');
    let text = below.or(tree).unwrap_or(word.text);
    if text.contains('*') {
        return Err(word.wrong(RuleErrorKind::Star));
    }
    let relative = text.strip_suffix('.').unwrap_or(text);
    let mut last = "";
    for label in relative.split('.') {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if label.is_empty() {
            return Err(word.wrong(RuleErrorKind::EmptyLabel));
        }
        if !label.bytes().all(is_fit) {
            return Err(no_name());
        }
        if label.len() > 63 {
            return Err(word.wrong(RuleErrorKind::LongLabel));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(word.wrong(RuleErrorKind::Hyphen));
        }
        last = label;
    }
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_name());
    }
    let name = Name::new(text).ok_or_else(|| word.wrong(RuleErrorKind::LongName))?;
    if name.is_one_label() && relative == word.text {
        let kind = RuleErrorKind::OneLabel { word: word.excerpt(), near: near_set(text) };
        return Err(word.wrong(kind));
    }
    Ok(match (below, tree) {
        (Some(_), _) => NamePattern::Below(name),
        (None, Some(_)) => NamePattern::Tree(name),
        (None, None) => NamePattern::Exact(name),
    })
}

/// The set whose word is at most two letters away; one letter if the word is short.
fn near_set(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let sets = AddressSet::WORDS.iter().map(|(word, _)| *word).chain(["any", "dns"]);
    let (distance, word) = sets.map(|word| (distance(&text, word), word)).min()?;
    let longest = if word.len() < 5 { 1 } else { 2 };
    (distance <= longest).then_some(word)
}

/// Letters to insert, remove or replace between the two words (Levenshtein).
fn distance(text: &str, word: &str) -> usize {
    if text.len() > word.len() + 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=word.len()).collect();
    for (index, from) in text.bytes().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], index + 1);
        for (column, to) in word.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[word.len()]
}

/// The ports of a rule, in order and without overlaps.
fn ports_of(word: Word<'_>, protocol: Option<RuleProtocol>) -> Result<Vec<PortRange>, Wrong> {
    match protocol {
        Some(RuleProtocol::Icmp) => {
            return Err(word.wrong(RuleErrorKind::NoPorts { protocol: "icmp" }));
        }
        Some(RuleProtocol::Dns) => {
            return Err(word.wrong(RuleErrorKind::NoPorts { protocol: "dns" }));
        }
        Some(RuleProtocol::Tcp | RuleProtocol::Udp) | None => {}
    }
    if word.text == "*" {
        return Ok(Vec::new());
    }
    let mut ports = Vec::new();
    let mut at = 0;
    for item in word.text.split(',') {
        let item = word.part(at, at + item.len());
        at += item.text.len() + 1;
        if ports.len() == PORT_ITEMS_CAP {
            return Err(item.wrong(RuleErrorKind::TooManyPorts));
        }
        let (first, last) = match item.text.find('-') {
            Some(dash) => {
                let (first, last) = item.split_at_separator(dash);
                (port(first)?, port(last)?)
            }
            None => (port(item)?, port(item)?),
        };
        if last < first {
            return Err(item.wrong(RuleErrorKind::PortRange { first, last }));
        }
        ports.push(PortRange { first, last });
    }
    ports.sort_unstable_by_key(|range| range.first);
    ports.dedup_by(|next, range| {
        let is_joined = u32::from(next.first) <= u32::from(range.last) + 1;
        if is_joined {
            range.last = range.last.max(next.last);
        }
        is_joined
    });
    Ok(ports)
}

fn port(word: Word<'_>) -> Result<u16, Wrong> {
    let port = number(word.text).and_then(|number| u16::try_from(number).ok());
    port.filter(|port| *port != 0).ok_or_else(|| word.wrong(RuleErrorKind::Port))
}

/// A number of digits alone.
pub(super) fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
