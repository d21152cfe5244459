//! Rules in a form that is fast to ask.
//!
//! Owns the tables that a policy is compiled into: networks by length, so that only lengths that
//! exist are looked for; names by suffix, so that a name of k labels costs k hashes, at its lookup
//! only; and ports, in [`ports`](super::ports). No verdict walks over rules.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::quality::FixedState;

use super::name::Name;
use super::ports::{ALL_PORTS, Access, Entry, Kind, Said, both};
use super::rule::{
    Action, AddressSet, Direction, EgressRule, NamePattern, PortRange, Prefix, RuleDestination,
    RuleProtocol,
};
use super::sets;
use super::sets::Place;

/// All rules of a policy.
#[derive(Debug)]
pub(super) struct Compiled {
    /// About what the guest opens.
    pub(super) out: Addresses,
    /// About clients of published ports.
    pub(super) inbound: Addresses,
    /// What is done with a client that no rule is about.
    pub(super) inbound_default: Action,
    pub(super) names: Names,
    /// What is done with everything else that the guest opens.
    pub(super) default: Action,
    /// How many rules there are of each action.
    pub(super) counts: [usize; Action::ALL.len()],
}

impl Compiled {
    /// Compiles `rules`, among which the default is not.
    pub(super) fn new(rules: &[EgressRule], default: Action) -> Self {
        let of = |direction| {
            rules.iter().zip(0_u32..).filter(move |(rule, _)| rule.direction == direction)
        };
        let mut counts = [0; Action::ALL.len()];
        for rule in rules {
            counts[rule.action as usize] += 1;
        }
        let is_closed = of(Direction::In).any(|(rule, _)| rule.action == Action::Allow);
        Self {
            out: Addresses::new(of(Direction::Out), false),
            inbound: Addresses::new(of(Direction::In), true),
            inbound_default: if is_closed { Action::Deny } else { Action::Allow },
            names: Names::new(of(Direction::Out)),
            default,
            counts,
        }
    }
}

/// The protocols and ports that a rule is about.
fn entries(rule: &EgressRule, number: u32) -> Vec<Entry> {
    let opens_name =
        rule.action == Action::Allow && matches!(rule.destination, RuleDestination::Name(_));
    let kinds: &[Kind] = match rule.protocol {
        Some(RuleProtocol::Tcp) => &[Kind::Tcp],
        Some(RuleProtocol::Udp) => &[Kind::Udp],
        Some(RuleProtocol::Icmp) => &[Kind::Echo],
        Some(RuleProtocol::Dns) => &[Kind::Lookup],
        // A name is verified over TCP only.
        None if opens_name => &[Kind::Tcp],
        None if rule.ports.is_some() => &[Kind::Tcp, Kind::Udp],
        None => &[Kind::Tcp, Kind::Udp, Kind::Echo],
    };
    let said = Said { action: rule.action, verify: rule.verify, rule: number };
    let mut entries = Vec::new();
    for &kind in kinds {
        let ports: &[PortRange] = match (&rule.ports, kind) {
            (None, Kind::Tcp) if opens_name => {
                &[PortRange { first: 80, last: 80 }, PortRange { first: 443, last: 443 }]
            }
            (Some(ports), Kind::Tcp | Kind::Udp) if !ports.is_empty() => ports,
            (Some(_) | None, Kind::Tcp | Kind::Udp | Kind::Echo | Kind::Lookup) => &[ALL_PORTS],
        };
        let entry = |&ports| Entry { said, private: rule.private, kind, ports };
        entries.extend(ports.iter().map(entry));
    }
    entries
}

/// What all rules about an address say about one of its ports.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    pub(super) said: Option<Said>,
    /// Whether a rule allows another port of the protocol.
    pub(super) opens_port: bool,
    /// Whether a rule allows another protocol.
    pub(super) opens_protocol: bool,
}

impl Tally {
    fn add(&mut self, access: &Access, kind: Kind, port: u16, may_open: bool) {
        let said = access.at(kind, port, false);
        if may_open {
            self.said = both(self.said, said);
            self.opens_port |= access.opens(kind, false);
            self.opens_protocol |= access.opens_any(false);
        } else {
            self.said = both(self.said, said.filter(|said| said.action == Action::Deny));
        }
    }
}

/// The rules about addresses of one direction.
#[derive(Debug)]
pub(super) struct Addresses {
    any: Access,
    /// By [`sets::index_of`].
    sets: [Access; sets::ALL.len()],
    networks: HashMap<(bool, u8, u128), Network, FixedState>,
    /// The lengths of IPv4 and IPv6 networks that occur.
    lengths: [Vec<u8>; 2],
    /// Whether `any` means protected addresses too: they are protected from the guest, not from
    /// other clients.
    is_inbound: bool,
}

#[derive(Debug)]
struct Network {
    access: Access,
    /// Whether all of it is in one protected set.
    is_inside_protected: bool,
}

impl Addresses {
    fn new<'r>(rules: impl Iterator<Item = (&'r EgressRule, u32)>, is_inbound: bool) -> Self {
        let mut any = Vec::new();
        let mut sets = sets::ALL.map(|_| Vec::new());
        let mut networks = BTreeMap::new();
        for (rule, number) in rules {
            let list = match &rule.destination {
                RuleDestination::Any => &mut any,
                RuleDestination::Set(set) => &mut sets[sets::index_of(*set)],
                RuleDestination::Prefix(network) => {
                    &mut networks.entry(key(*network)).or_insert((*network, Vec::new())).1
                }
                RuleDestination::Name(_) => continue,
            };
            list.extend(entries(rule, number));
        }
        let mut lengths = [Vec::new(), Vec::new()];
        for &(is_ipv6, len, _) in networks.keys() {
            let lengths: &mut Vec<u8> = &mut lengths[usize::from(is_ipv6)];
            if lengths.last() != Some(&len) {
                lengths.push(len);
            }
        }
        let networks = networks.into_iter().map(|(key, (network, entries))| {
            let is_inside_protected = sets::is_inside_protected(network);
            (key, Network { access: Access::new(&entries), is_inside_protected })
        });
        Self {
            any: Access::new(&any),
            sets: sets.map(|entries| Access::new(&entries)),
            networks: networks.collect(),
            lengths,
            is_inbound,
        }
    }

    /// What the rules say about a port of `place`.
    pub(super) fn tally(&self, place: &Place<'_>, kind: Kind, port: u16) -> Tally {
        let mut tally = Tally::default();
        self.matching(place, |access, may_open| {
            tally.add(access, kind, port, may_open);
        });
        tally
    }

    /// The rules about `place`, each list with whether it may open the place or only close it.
    pub(super) fn matching<'a>(
        &'a self,
        place: &Place<'_>,
        mut found: impl FnMut(&'a Access, bool),
    ) {
        let is_protected = place.sets.is_protected() && !self.is_inbound;
        if !is_protected {
            found(&self.any, true);
        }
        for (set, access) in sets::ALL.into_iter().zip(&self.sets) {
            if place.sets.contains(set) {
                found(access, self.is_inbound || place.sets.opens(set));
            }
        }
        if let Some(address) = place.address {
            for &len in &self.lengths[usize::from(address.is_ipv6())] {
                if let Some(network) = self.networks.get(&key(Prefix { address, len })) {
                    found(&network.access, !is_protected || network.is_inside_protected);
                }
            }
        }
        for &spelling in place.spellings {
            let len = if spelling.is_ipv6() { 128 } else { 32 };
            if let Some(network) = self.networks.get(&key(Prefix { address: spelling, len })) {
                found(&network.access, true);
            }
        }
    }

    /// The rules about any address.
    pub(super) const fn any(&self) -> &Access {
        &self.any
    }

    /// The rules about a set.
    pub(super) const fn set(&self, set: AddressSet) -> &Access {
        &self.sets[sets::index_of(set)]
    }
}

fn key(network: Prefix) -> (bool, u8, u128) {
    (network.address.is_ipv6(), network.len, sets::masked(network.address, network.len))
}

/// The rules about names.
#[derive(Debug)]
pub(super) struct Names {
    nodes: Vec<Node>,
    by_suffix: HashMap<Box<str>, u32, FixedState>,
    /// Names above one that a rule may open.
    parents: HashSet<Box<str>, FixedState>,
    /// What rules allow of some name.
    opened: Access,
    /// Whether a rule denies some name or asks about it.
    restrict: bool,
    /// Whether a rule is about more of some name than its lookup.
    name_hosts: bool,
}

/// The rules about a name, and about all names below it.
#[derive(Debug)]
struct Node {
    /// The next name above that has a node.
    parent: Option<u32>,
    at: Access,
    below: Access,
}

/// Names about which the rules say the same: those at a node, or those below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NameClass(u32);

impl NameClass {
    /// Names that no rule is about.
    pub(super) const NONE: Self = Self(u32::MAX);

    const fn at(node: u32) -> Self {
        Self(node << 1 | 1)
    }

    const fn below(node: u32) -> Self {
        Self(node << 1)
    }
}

impl Names {
    fn new<'r>(rules: impl Iterator<Item = (&'r EgressRule, u32)>) -> Self {
        let mut nodes: BTreeMap<&'r Name, [Vec<Entry>; 2]> = BTreeMap::new();
        let mut parents = HashSet::default();
        let mut opened = Vec::new();
        let mut restrict = false;
        let mut name_hosts = false;
        for (rule, number) in rules {
            let RuleDestination::Name(pattern) = &rule.destination else { continue };
            let entries = entries(rule, number);
            let (name, is_at, is_below) = match pattern {
                NamePattern::Exact(name) => (name, true, false),
                NamePattern::Below(name) => (name, false, true),
                NamePattern::Tree(name) => (name, true, true),
            };
            if rule.action == Action::Allow || rule.action == Action::Ask {
                let own = is_below.then_some(name.as_str());
                parents.extend(own.into_iter().chain(above(name.as_str())).map(Box::from));
            }
            if rule.action == Action::Allow {
                opened.extend_from_slice(&entries);
            }
            let is_about_host = rule.protocol != Some(RuleProtocol::Dns);
            restrict |= rule.action != Action::Allow && is_about_host;
            name_hosts |= is_about_host;
            let [at, below] = nodes.entry(name).or_default();
            if is_at {
                at.extend_from_slice(&entries);
            }
            if is_below {
                below.extend_from_slice(&entries);
            }
        }
        let by_suffix: HashMap<Box<str>, u32, FixedState> =
            nodes.keys().map(|name| Box::from(name.as_str())).zip(0..).collect();
        let node = |(name, [at, below]): (&Name, [Vec<Entry>; 2])| Node {
            parent: above(name.as_str()).find_map(|above| by_suffix.get(above).copied()),
            at: Access::new(&at),
            below: Access::new(&below),
        };
        Self {
            nodes: nodes.into_iter().map(node).collect(),
            by_suffix,
            parents,
            opened: Access::new(&opened),
            restrict,
            name_hosts,
        }
    }

    /// The class of `name`.
    pub(super) fn class(&self, name: &Name) -> NameClass {
        if let Some(&node) = self.by_suffix.get(name.as_str()) {
            return NameClass::at(node);
        }
        above(name.as_str())
            .find_map(|above| self.by_suffix.get(above))
            .map_or(NameClass::NONE, |&node| NameClass::below(node))
    }

    /// The rules about names of a class.
    pub(super) fn about(&self, class: NameClass) -> impl Iterator<Item = &Access> {
        let node = |number: u32| self.nodes.get(usize::try_from(number).ok()?);
        let first = node(class.0 >> 1);
        let is_at = class.0 & 1 == 1 && class != NameClass::NONE;
        let above = core::iter::successors(first, move |below| below.parent.and_then(node));
        above.enumerate().map(
            move |(distance, node)| {
                if distance == 0 && is_at { &node.at } else { &node.below }
            },
        )
    }

    /// What the rules say about a port of a name, at a `private` address or at any other.
    pub(super) fn tally(&self, class: NameClass, kind: Kind, port: u16, private: bool) -> Tally {
        let mut tally = Tally::default();
        for access in self.about(class) {
            tally.said = both(tally.said, access.at(kind, port, private));
            tally.opens_port |= access.opens(kind, private);
            tally.opens_protocol |= access.opens_any(private);
        }
        tally
    }

    /// Whether a rule with `private=yes` allows something of a name, or asks about it: the name may
    /// have private addresses.
    pub(super) fn admits_private(&self, class: NameClass) -> bool {
        self.about(class).any(|access| access.opens_any(true) || access.asks_private())
    }

    /// Whether a rule says something of a name at a private address.
    pub(super) fn count_at_private(&self, class: NameClass) -> bool {
        self.about(class).any(Access::counts_at_private)
    }

    /// Whether a rule may open a name below `name`.
    pub(super) fn is_parent(&self, name: &Name) -> bool {
        self.parents.contains(name.as_str())
    }

    /// Whether a rule allows the port of some name.
    pub(super) fn open_some(&self, kind: Kind, port: u16, private: bool) -> bool {
        self.opened.at(kind, port, private).is_some()
    }

    /// Whether a rule denies some name or asks about it.
    pub(super) const fn restrict(&self) -> bool {
        self.restrict
    }

    /// Whether a rule is about more of some name than its lookup.
    pub(super) const fn name_hosts(&self) -> bool {
        self.name_hosts
    }
}

/// The names above `name`, the nearest first.
fn above(name: &str) -> impl Iterator<Item = &str> {
    core::iter::successors(name.split_once('.'), |(_, above)| above.split_once('.'))
        .map(|(_, above)| above)
}
