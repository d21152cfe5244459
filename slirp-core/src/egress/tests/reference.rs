//! The rules of the game once more, as slow and plain as they can be told.
//!
//! Walks over all rules for each verdict and knows no table. What it says is what the compiled form
//! has to say.

use core::net::{IpAddr, SocketAddr};

use super::super::name::Name;
use super::super::policy::EgressPolicy;
use super::super::rule::{
    Action, AddressSet, Direction, EgressRule, NamePattern, Prefix, RuleDestination, RuleProtocol,
    Verify,
};
use super::super::sets::embedded;
use super::super::verdict::{NameVerdict, Verification};
use super::{GATEWAY, ip};
use crate::protocol::Protocol;

/// The members of each set, range by range.
const NETWORKS: [(AddressSet, &[&str]); 5] = [
    (AddressSet::HostLoopback, &["127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"]),
    (AddressSet::LinkLocal, &["169.254.0.0/16", "fe80::/10"]),
    (
        AddressSet::Metadata,
        &[
            "169.254.169.254/32",
            "169.254.170.2/32",
            "169.254.170.23/32",
            "fd00:ec2::23/128",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
            "100.100.100.200/32",
            "192.0.0.192/32",
            "168.63.129.16/32",
        ],
    ),
    (AddressSet::Multicast, &["224.0.0.0/4", "ff00::/8", "255.255.255.255/32"]),
    (
        AddressSet::Private,
        &[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "198.18.0.0/15",
            "fc00::/7",
            "fec0::/10",
        ],
    ),
];
/// The first of them, which only a rule that names them opens.
const PROTECTED: usize = 4;

fn is_in(network: &str, address: IpAddr) -> bool {
    let (first, len) = network.split_once('/').unwrap();
    let len: u8 = len.parse().unwrap();
    match (ip(first), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            len == 0 || (a.to_bits() ^ b.to_bits()) >> (32 - len) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            len == 0 || (a.to_bits() ^ b.to_bits()) >> (128 - len) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn is_within(inner: Prefix, outer: &str) -> bool {
    let (_, len) = outer.split_once('/').unwrap();
    inner.len >= len.parse().unwrap() && is_in(outer, inner.address)
}

/// A guest as the reference sees it.
pub(super) struct Reference {
    pub(super) policy: EgressPolicy,
    pub(super) host: Vec<IpAddr>,
    pub(super) bound: Vec<(IpAddr, Name)>,
}

impl Reference {
    fn rules(&self, direction: Direction) -> impl Iterator<Item = &EgressRule> {
        self.policy.rules().iter().filter(move |rule| rule.direction == direction)
    }

    fn default(&self) -> Action {
        self.policy.default_action()
    }

    fn is_in_set(&self, set: AddressSet, address: IpAddr) -> bool {
        let listed = |set| {
            let (_, networks) = NETWORKS.iter().find(|(listed, _)| *listed == set).unwrap();
            networks.iter().any(|network| is_in(network, address))
        };
        let is_hosts = self.host.contains(&address) || listed(AddressSet::HostLoopback);
        match set {
            AddressSet::Host => is_hosts,
            AddressSet::Internet => {
                let reserved = ["192.0.0.0/24", "240.0.0.0/4", "::ffff:0:0/96"];
                !is_hosts
                    && !NETWORKS.iter().any(|(set, _)| listed(*set))
                    && !reserved.iter().any(|network| is_in(network, address))
            }
            AddressSet::HostLoopback
            | AddressSet::LinkLocal
            | AddressSet::Metadata
            | AddressSet::Multicast
            | AddressSet::Private => listed(set),
        }
    }

    fn protections(&self, address: IpAddr) -> Vec<AddressSet> {
        let sets = NETWORKS[..PROTECTED].iter().map(|(set, _)| *set);
        sets.filter(|&set| self.is_in_set(set, address)).collect()
    }

    /// Whether a rule about addresses matches one.
    fn is_about(&self, rule: &EgressRule, address: IpAddr) -> bool {
        let protections = self.protections(address);
        let is_free = protections.is_empty() || rule.direction == Direction::In;
        let is_free_or_deny = is_free || rule.action == Action::Deny;
        match &rule.destination {
            RuleDestination::Any => is_free,
            RuleDestination::Set(AddressSet::Host) => {
                let is_loopback = protections == [AddressSet::HostLoopback];
                self.is_in_set(AddressSet::Host, address) && (is_free_or_deny || is_loopback)
            }
            RuleDestination::Set(set) => {
                self.is_in_set(*set, address) && (is_free_or_deny || protections.contains(set))
            }
            RuleDestination::Prefix(network) => {
                let text = format!("{}/{}", network.address, network.len);
                let mut protected = NETWORKS[..PROTECTED].iter().flat_map(|(_, all)| *all);
                let is_inside = protected.any(|outer| is_within(*network, outer));
                let is_gateway = network.address == ip(GATEWAY)
                    && network.len == 32
                    && protections.contains(&AddressSet::HostLoopback)
                    && rule.direction == Direction::Out;
                is_gateway || (is_in(&text, address) && (is_free_or_deny || is_inside))
            }
            RuleDestination::Name(_) => false,
        }
    }

    /// The rules about `address` alone, or about `name` at an address that is `private` or not.
    fn about_address(&self, address: IpAddr) -> Vec<&EgressRule> {
        self.rules(Direction::Out).filter(|rule| self.is_about(rule, address)).collect()
    }

    fn about_name(&self, name: &Name, private: bool) -> Vec<&EgressRule> {
        let is_meant = |rule: &&EgressRule| {
            is_name(rule, name) && (!private || rule.private || rule.action != Action::Allow)
        };
        self.rules(Direction::Out).filter(is_meant).collect()
    }

    /// 0 for an address that any name may have, 1 for one that `private=yes` admits, 2 for others.
    fn unfitness(&self, address: IpAddr) -> u8 {
        let inner = embedded(address).into_iter().flatten().map(IpAddr::V4);
        let all = [address].into_iter().chain(inner);
        all.map(|address| {
            let never = ["198.19.192.0/18", "::ffff:0:0/96"];
            if !self.protections(address).is_empty() || never.iter().any(|no| is_in(no, address)) {
                2
            } else if self.is_in_set(AddressSet::Host, address) {
                1
            } else {
                let is_fit = self.is_in_set(AddressSet::Internet, address)
                    || is_in("198.18.0.0/15", address);
                u8::from(!is_fit)
            }
        })
        .max()
        .unwrap()
    }

    /// An answer: whether it is bound.
    pub(super) fn answer(&mut self, name: &Name, address: IpAddr) -> bool {
        let about = self.about_name(name, true);
        let is_fit = match self.unfitness(address) {
            0 => true,
            // A deny counts there, and an allow that may.
            1 => about.iter().any(|rule| rule.protocol != Some(RuleProtocol::Dns)),
            _ => false,
        };
        if is_fit && !self.bound.contains(&(address, name.clone())) {
            self.bound.push((address, name.clone()));
        }
        is_fit
    }

    /// A flow: what is done, and what is looked at in its first bytes.
    pub(super) fn flow(&self, protocol: Protocol, reached: SocketAddr) -> (Action, Verification) {
        let asks = self.rules(Direction::Out).any(|rule| rule.action == Action::Ask);
        if (asks || self.default() == Action::Ask) && is_in("198.19.192.0/18", reached.ip()) {
            // It could stand for a name, and stands for none.
            return (Action::Deny, Verification::None);
        }
        let unfitness = self.unfitness(reached.ip());
        let names: Vec<&Name> = self
            .bound
            .iter()
            .filter(|(address, _)| *address == reached.ip() && unfitness < 2)
            .map(|(_, name)| name)
            .collect();
        let inner = embedded(reached.ip()).into_iter().flatten().map(IpAddr::V4);
        let all = [reached.ip()].into_iter().chain(inner);
        all.map(|address| self.judge(protocol, reached.port(), address, &names, unfitness == 1))
            .max_by_key(|(action, verify)| (*action, strictness(*verify)))
            .unwrap()
    }

    fn judge(
        &self,
        protocol: Protocol,
        port: u16,
        address: IpAddr,
        names: &[&Name],
        private: bool,
    ) -> (Action, Verification) {
        let covering = |mut rules: Vec<_>| {
            rules.retain(|rule: &&EgressRule| covers(rule, protocol, port));
            rules
        };
        let of_address = covering(self.about_address(address));
        let of_names: Vec<_> =
            names.iter().map(|name| covering(self.about_name(name, private))).collect();
        let is_protected = !self.protections(address).is_empty();
        let default = if is_protected { Action::Deny } else { self.default() };
        let is_always_verified = protocol == Protocol::Tcp && [80, 443].contains(&port);
        let action = if is_always_verified && !names.is_empty() {
            let each = of_names
                .iter()
                .map(|of_name| strictest(of_address.iter().chain(of_name)).unwrap_or(default));
            each.min().unwrap()
        } else {
            strictest(of_address.iter().chain(of_names.iter().flatten())).unwrap_or(default)
        };
        if action != Action::Allow || protocol != Protocol::Tcp {
            return (action, Verification::None);
        }
        let is_by_address = strictest(of_address.iter()).unwrap_or(default) == Action::Allow;
        let is_mixed = of_names
            .iter()
            .any(|of_name| strictest(of_name.iter()).is_some_and(|action| action != Action::Allow));
        let allows = of_address.iter().chain(of_names.iter().flatten());
        let is_off = !is_mixed
            && allows
                .clone()
                .any(|rule| rule.action == Action::Allow && rule.verify == Verify::Off);
        let restricts = self.rules(Direction::Out).any(|rule| {
            matches!(rule.destination, RuleDestination::Name(_))
                && rule.action != Action::Allow
                && rule.protocol != Some(RuleProtocol::Dns)
        });
        (
            action,
            match (is_by_address, port) {
                _ if is_off => Verification::None,
                (true, 80 | 443) if restricts => Verification::SniffDenied,
                (true, _) => Verification::None,
                (false, 443) => Verification::Tls,
                (false, 80) => Verification::Http,
                (false, _) => Verification::Sniff,
            },
        )
    }

    /// A client of a published port.
    pub(super) fn inbound(&self, protocol: Protocol, client: IpAddr, host_port: u16) -> Action {
        let mut rules = self.rules(Direction::In);
        let is_closed = rules.any(|rule| rule.action == Action::Allow);
        let default = if is_closed { Action::Deny } else { Action::Allow };
        let of = self
            .rules(Direction::In)
            .filter(|rule| self.is_about(rule, client) && covers(rule, protocol, host_port));
        of.map(|rule| rule.action).max().unwrap_or(default)
    }

    /// A lookup.
    pub(super) fn lookup(&self, name: &Name) -> NameVerdict {
        let of_name = self.about_name(name, false);
        let any = self.rules(Direction::Out).filter(|r| r.destination == RuleDestination::Any);
        let closing: Vec<_> = of_name.into_iter().chain(any).collect();
        let is_internet =
            |rule: &&EgressRule| rule.destination == RuleDestination::Set(AddressSet::Internet);
        let internet: Vec<_> = self.rules(Direction::Out).filter(is_internet).collect();
        let all: Vec<_> = closing.iter().chain(&internet).copied().collect();
        let of_lookups = closing.iter().filter(|rule| rule.protocol == Some(RuleProtocol::Dns));
        let of_lookups = strictest(of_lookups);
        let is_asked_about = all.iter().any(|rule| rule.action == Action::Ask);
        let ranges = all.iter().filter_map(|rule| rule.ports.as_ref()).flatten();
        let mut ports: Vec<u16> = ranges
            .flat_map(|range| [range.first, range.last, range.last.saturating_add(1)])
            .chain([1, 80, 81, 443, 444])
            .collect();
        ports.dedup();
        let best =
            [Protocol::Tcp, Protocol::Udp, Protocol::Echo].into_iter().flat_map(|protocol| {
                let (closing, internet) = (&closing, &internet);
                ports.iter().map(move |&port| {
                    let covering = |rule: &&&EgressRule| covers(rule, protocol, port);
                    // The name's address may be one that is not on the Internet.
                    let outside = strictest(internet.iter().filter(covering));
                    let outside = outside.filter(|&action| action != Action::Deny);
                    let said = strictest(closing.iter().filter(covering)).max(outside);
                    match (said, self.default()) {
                        (Some(Action::Allow), _) | (None, Action::Allow) => Lookup::Allowed,
                        (Some(Action::Ask), _) => Lookup::Asked,
                        (None, Action::Ask) => Lookup::AskedByDefault,
                        (None, Action::Deny) => Lookup::DeniedByDefault,
                        (Some(Action::Deny), _) => Lookup::Denied,
                    }
                })
            });
        let verdict = match (best.min().unwrap(), of_lookups) {
            (_, Some(Action::Deny)) | (Lookup::Denied, _) => Action::Deny,
            (Lookup::Asked, _) => Action::Ask,
            (Lookup::AskedByDefault | Lookup::DeniedByDefault, Some(_)) if is_asked_about => {
                Action::Ask
            }
            (_, Some(_)) | (Lookup::Allowed, _) => Action::Allow,
            (Lookup::AskedByDefault, None) => Action::Ask,
            (Lookup::DeniedByDefault, None) => Action::Deny,
        };
        match verdict {
            Action::Allow => NameVerdict::Ask,
            Action::Ask => NameVerdict::Placeholder,
            Action::Deny if self.is_parent(name) => NameVerdict::NoData,
            Action::Deny => NameVerdict::Refuse { note: None },
        }
    }

    fn is_parent(&self, name: &Name) -> bool {
        let below = format!(".{}", name.as_str());
        self.rules(Direction::Out).filter(|rule| rule.action != Action::Deny).any(|rule| {
            let RuleDestination::Name(pattern) = &rule.destination else { return false };
            match pattern {
                NamePattern::Exact(of) => of.as_str().ends_with(&below),
                NamePattern::Below(of) | NamePattern::Tree(of) => {
                    of == name || of.as_str().ends_with(&below)
                }
            }
        })
    }
}

/// What a lookup comes to on one port, the most lenient first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    Allowed,
    Asked,
    AskedByDefault,
    DeniedByDefault,
    Denied,
}

fn strictest<'a>(rules: impl Iterator<Item = &'a &'a EgressRule>) -> Option<Action> {
    rules.map(|rule| rule.action).max()
}

pub(super) const fn strictness(verification: Verification) -> u8 {
    match verification {
        Verification::None => 0,
        Verification::SniffDenied => 1,
        Verification::Sniff => 2,
        Verification::Tls | Verification::Http => 3,
    }
}

fn is_name(rule: &EgressRule, name: &Name) -> bool {
    let RuleDestination::Name(pattern) = &rule.destination else { return false };
    let is_below = |of: &Name| name.as_str().ends_with(&format!(".{}", of.as_str()));
    match pattern {
        NamePattern::Exact(of) => of == name,
        NamePattern::Below(of) => is_below(of),
        NamePattern::Tree(of) => of == name || is_below(of),
    }
}

fn covers(rule: &EgressRule, protocol: Protocol, port: u16) -> bool {
    let opens_name =
        rule.action == Action::Allow && matches!(rule.destination, RuleDestination::Name(_));
    let is_protocol = match (rule.protocol, protocol) {
        (Some(RuleProtocol::Tcp), protocol) => protocol == Protocol::Tcp,
        (Some(RuleProtocol::Udp), protocol) => protocol == Protocol::Udp,
        (Some(RuleProtocol::Icmp), protocol) => protocol == Protocol::Echo,
        (Some(RuleProtocol::Dns), _) => false,
        (None, Protocol::Tcp) => true,
        (None, Protocol::Udp) => !opens_name,
        (None, Protocol::Echo) => !opens_name && rule.ports.is_none(),
    };
    let is_port = match &rule.ports {
        _ if protocol == Protocol::Echo => true,
        None if opens_name && protocol == Protocol::Tcp => [80, 443].contains(&port),
        None => true,
        Some(ranges) if ranges.is_empty() => true,
        Some(ranges) => ranges.iter().any(|range| (range.first..=range.last).contains(&port)),
    };
    is_protocol && is_port
}
