//! A tally as the text of a policy.
//!
//! Owns which destinations become rules and which become comments that a person has to turn into
//! rules: addresses without a name, private and protected addresses, what was refused, and what
//! was seen too seldom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use slirp_core::egress::{Action, Destination as Attempt, EgressPolicy, Name, Subject, Verify};
use slirp_core::policy::Protocol;

use super::tally::{Destination, Place, Ports, Proto, Sum, Tally};
use crate::tool::shown::{bytes, counted, foreign};

/// Items of a rule's list of ports; the grammar of rules has this limit.
const PORT_ITEMS_CAP: usize = 16;
/// Names below one parent for which a wildcard is suggested.
const SIBLINGS: usize = 5;
/// Lookups without a connection that are told (arbitrary; a guest can look up what it likes).
const LOOKUPS_CAP: usize = 1000;

/// What is wanted of the text.
#[derive(Default, Debug)]
pub(super) struct Wanted {
    /// Destinations with fewer connections become comments.
    pub(super) min: u64,
    /// What this policy allows is left out.
    pub(super) against: Option<EgressPolicy>,
}

/// The text of a policy that allows what passed.
pub(super) fn policy(tally: &Tally, wanted: &Wanted) -> String {
    let missing = missing(&tally.passed, wanted.against.as_ref());
    let mut rules = String::new();
    let mut comments = String::new();
    for (destination, ports) in &missing {
        let connections = ports.values().map(|sum| sum.connections).fold(0, u64::saturating_add);
        let doubt = doubt(destination).or_else(|| (connections < wanted.min).then_some("seldom"));
        for (ports, sum) in chunks(destination.proto, ports) {
            let rule = rule(destination, &ports);
            let mut line = format!("{rule}  # {}", told(sum));
            if destination.is_nameless {
                line += ", first bytes without a name";
            }
            match doubt {
                // What the engine does not take for a rule must not spoil the others.
                None if EgressPolicy::parse(&rule, "").is_ok() => rules += &format!("{line}\n"),
                None => comments += &format!("# {line}: no rule can say this\n"),
                Some(doubt) => comments += &format!("# {line}: {doubt}\n"),
            }
        }
    }
    let refused = self::missing(&tally.refused, wanted.against.as_ref());
    let mut text = rules;
    section(&mut text, "Wildcards instead of the names below them:", &wildcards(&missing));
    if tally.hidden > 0 && wanted.against.as_ref().is_none_or(|policy| !lets_ech_pass(policy)) {
        let told = counted(tally.hidden, "connection");
        let line = format!("# set ech allow  # {told} with encrypted_client_hello\n");
        section(&mut text, "Refused without this line, as browsers send it always:", &line);
    }
    section(&mut text, "Not allowed as it stands; remove the \"# \" of what is meant:", &comments);
    section(&mut text, "Refused while the log was written:", &refusals(&refused));
    section(&mut text, "Looked up without a connection:", &lookups(tally, wanted));
    text
}

fn section(text: &mut String, title: &str, lines: &str) {
    if !lines.is_empty() {
        let gap = if text.is_empty() { "" } else { "\n" };
        // Writing to a text does not fail.
        let _ = write!(text, "{gap}# {title}\n{lines}");
    }
}

/// Why a destination is not allowed without a person's word.
fn doubt(destination: &Destination) -> Option<&'static str> {
    match &destination.place {
        Place::Name(_) if destination.is_private => Some("a private address"),
        Place::Name(_) => None,
        Place::Odd(_) => Some("no rule can name this"),
        Place::Address(address) if is_in("allow private", *address) => Some("a private address"),
        Place::Address(address) if !is_in("allow any", *address) => Some("a protected address"),
        Place::Address(_) => Some("an address without a name"),
    }
}

/// Whether the policy of one rule allows an address.
fn is_in(rule: &str, address: IpAddr) -> bool {
    let attempt = Attempt::Address { protocol: Protocol::Tcp, reached: (address, 9).into() };
    let policy = EgressPolicy::parse(rule, "");
    policy.is_ok_and(|policy| policy.explain(&attempt).verdict == Action::Allow)
}

/// The destinations and ports that `policy` does not allow yet.
fn missing(
    sums: &BTreeMap<Destination, Ports>,
    policy: Option<&EgressPolicy>,
) -> BTreeMap<Destination, Ports> {
    let mut missing = sums.clone();
    if let Some(policy) = policy {
        for (destination, ports) in &mut missing {
            ports.retain(|&port, _| !allows(policy, destination, port));
        }
        missing.retain(|_, ports| !ports.is_empty());
    }
    missing
}

fn allows(policy: &EgressPolicy, destination: &Destination, port: u16) -> bool {
    let protocol = match destination.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Icmp => Protocol::Echo,
    };
    let attempt = match &destination.place {
        Place::Name(name) => Attempt::Name { protocol, name, port },
        Place::Address(address) => {
            Attempt::Address { protocol, reached: SocketAddr::new(*address, port) }
        }
        Place::Odd(_) => return false,
    };
    let explanation = policy.explain(&attempt);
    let rule = policy.rules().iter().find(|rule| Some(&rule.source) == explanation.rule.as_ref());
    explanation.verdict == Action::Allow
        && (!destination.is_nameless || rule.is_none_or(|rule| rule.verify == Verify::Off))
        && (!destination.is_private || rule.is_some_and(|rule| rule.private))
}

fn lets_ech_pass(policy: &EgressPolicy) -> bool {
    policy.settings().ech.unwrap_or(policy.default_action() == Action::Allow)
}

/// Ports as rules list them, as many items at a time as one rule may have.
fn chunks(proto: Proto, ports: &Ports) -> Vec<(String, Sum)> {
    if proto == Proto::Icmp {
        let mut all = Sum::default();
        ports.values().for_each(|sum| all.add(*sum));
        return vec![(String::new(), all)];
    }
    let mut ranges: Vec<(u16, u16, Sum)> = Vec::new();
    for (&port, sum) in ports {
        match ranges.last_mut() {
            Some((_, last, all)) if port.checked_sub(1) == Some(*last) => {
                *last = port;
                all.add(*sum);
            }
            Some(_) | None => ranges.push((port, port, *sum)),
        }
    }
    let shown = |&(first, last, _): &(u16, u16, Sum)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let chunk = |ranges: &[(u16, u16, Sum)]| {
        let mut all = Sum::default();
        ranges.iter().for_each(|(.., sum)| all.add(*sum));
        (format!(":{}", ranges.iter().map(shown).collect::<Vec<_>>().join(",")), all)
    };
    ranges.chunks(PORT_ITEMS_CAP).map(chunk).collect()
}

/// `allow files.example:443`.
fn rule(destination: &Destination, ports: &str) -> String {
    let is_name = matches!(destination.place, Place::Name(_));
    let proto = match destination.proto {
        // A name is about TCP alone.
        Proto::Tcp if is_name => "",
        Proto::Tcp => "tcp:",
        Proto::Udp => "udp:",
        Proto::Icmp => "icmp:",
    };
    let place = match &destination.place {
        Place::Name(name) if !name.as_str().contains('.') => format!("{name}."),
        Place::Name(name) => name.to_string(),
        Place::Address(address) if address.is_loopback() => "host-loopback".to_owned(),
        Place::Address(IpAddr::V4(v4)) => v4.to_string(),
        Place::Address(IpAddr::V6(v6)) => format!("[{v6}]"),
        Place::Odd(text) => format!("\"{text}\""),
    };
    let verify = if destination.is_nameless { " verify=off" } else { "" };
    let private = if destination.is_private { " private=yes" } else { "" };
    format!("allow {proto}{place}{ports}{verify}{private}")
}

fn told(sum: Sum) -> String {
    format!("{}, {} out", counted(sum.connections, "connection"), bytes(sum.bytes_out))
}

/// Wildcards for names with many siblings, except those that the engine refuses or warns of.
fn wildcards(sums: &BTreeMap<Destination, Ports>) -> String {
    let mut families: BTreeMap<Name, (BTreeSet<&Name>, Ports)> = BTreeMap::new();
    for (destination, ports) in sums {
        let Place::Name(name) = &destination.place else { continue };
        let is_plain = destination.proto == Proto::Tcp && doubt(destination).is_none();
        let parent = Subject::Name(name.clone()).parent();
        if let Some(parent) = parent.filter(|parent| parent != name && is_plain) {
            let (names, all) = families.entry(parent).or_default();
            names.insert(name);
            for (&port, sum) in ports {
                all.entry(port).or_default().add(*sum);
            }
        }
    }
    let mut text = String::new();
    for (parent, (names, ports)) in families {
        if names.len() < SIBLINGS {
            continue;
        }
        for (ports, _) in chunks(Proto::Tcp, &ports) {
            let rule = format!("allow *.{parent}{ports}");
            let policy = EgressPolicy::parse(&rule, "");
            if policy.is_ok_and(|policy| policy.warnings().next().is_none()) {
                text += &format!("# {rule}  # instead of {} names\n", names.len());
            }
        }
    }
    text
}

fn refusals(sums: &BTreeMap<Destination, Ports>) -> String {
    let mut text = String::new();
    for (destination, ports) in sums {
        for (ports, sum) in chunks(destination.proto, ports) {
            let told = counted(sum.connections, "attempt");
            text += &format!("# {}  # {told}\n", rule(destination, &ports));
        }
    }
    text
}

/// Names that were looked up although nothing was connected to them.
fn lookups(tally: &Tally, wanted: &Wanted) -> String {
    let places = tally.passed.keys().chain(tally.refused.keys());
    let connected: BTreeSet<&Name> = places
        .filter_map(|destination| match &destination.place {
            Place::Name(name) => Some(name),
            Place::Address(_) | Place::Odd(_) => None,
        })
        .collect();
    let is_missing = |name: &Name| {
        let explain = |policy: &EgressPolicy| policy.explain(&Attempt::Lookup(name)).verdict;
        wanted.against.as_ref().is_none_or(|policy| explain(policy) != Action::Allow)
    };
    let mut text = String::new();
    let mut left_out = 0_u64;
    let mut lines = 0;
    for (text_of_name, &count) in &tally.lookups {
        let name = Name::new(text_of_name);
        if name.as_ref().is_some_and(|name| connected.contains(name) || !is_missing(name)) {
            continue;
        }
        if lines == LOOKUPS_CAP {
            left_out += 1;
            continue;
        }
        lines += 1;
        let told = counted(count, "lookup");
        text += &match name {
            Some(name) if name.as_str().contains('.') => format!("# allow dns:{name}  # {told}\n"),
            Some(name) => format!("# allow dns:{name}.  # {told}\n"),
            None => format!("# no host name: \"{}\"  # {told}\n", foreign(text_of_name, 80)),
        };
    }
    if left_out > 0 {
        text += &format!("# and {left_out} more\n");
    }
    text
}
