//! The values that a policy is made of.
//!
//! Owns their shapes and words; how rules are written is in `parse` and `text`.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::name::Name;

/// Items of a rule's list of ports (arbitrary; the longest lists in use have 5).
pub(super) const PORT_ITEMS_CAP: usize = 16;
/// Bytes of a note (arbitrary; one line of a terminal, and it fits into a DNS message).
pub(super) const NOTE_CAP: usize = 120;

/// What a rule does with what it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Have somebody decide.
    Ask,
    /// Refuse it.
    Deny,
}

impl Action {
    /// Every action, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Ask, Self::Deny];

    pub(super) const WORDS: [(&str, Self); 3] =
        [("allow", Self::Allow), ("ask", Self::Ask), ("deny", Self::Deny)];

    /// The word for it, as rules and events have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// Who opens what the rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The guest.
    Out,
    /// A remote, through a published port: `in`.
    In,
}

/// The protocol that a rule names. A rule without one is about TCP, UDP and ICMP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RuleProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6 echo.
    Icmp,
    /// Looking a name up, and nothing else.
    Dns,
}

impl RuleProtocol {
    pub(super) const WORDS: [(&str, Self); 4] =
        [("tcp", Self::Tcp), ("udp", Self::Udp), ("icmp", Self::Icmp), ("dns", Self::Dns)];
}

/// A named set of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum AddressSet {
    /// Every spelling that leads to the host's loopback; also written `gateway`.
    HostLoopback,
    /// Any address of the host's interfaces, and `host-loopback`.
    Host,
    /// 10/8, 172.16/12, 192.168/16, 100.64/10, 198.18/15, fc00::/7, fec0::/10.
    Private,
    /// 169.254/16, fe80::/10.
    LinkLocal,
    /// The metadata services of the usual clouds.
    Metadata,
    /// 224/4, ff00::/8, 255.255.255.255.
    Multicast,
    /// Unicast that is in no other set, nor reserved.
    Internet,
}

impl AddressSet {
    /// The first word of a set is the one that it is shown with.
    pub(super) const WORDS: [(&str, Self); 8] = [
        ("host-loopback", Self::HostLoopback),
        ("gateway", Self::HostLoopback),
        ("host", Self::Host),
        ("private", Self::Private),
        ("link-local", Self::LinkLocal),
        ("metadata", Self::Metadata),
        ("multicast", Self::Multicast),
        ("internet", Self::Internet),
    ];
}

/// A network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// Its first address: no bits behind the prefix.
    pub address: IpAddr,
    /// 0..=32, or 0..=128 for IPv6.
    pub len: u8,
}

/// Which names a rule matches.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum NamePattern {
    /// `example.com`: this name alone.
    Exact(Name),
    /// `*.example.com`: all names below, at any depth.
    Below(Name),
    /// `.example.com`: the name and all below.
    Tree(Name),
}

/// What a rule is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RuleDestination {
    /// Everything but the protected sets.
    Any,
    /// A named set.
    Set(AddressSet),
    /// A network, or one address.
    Prefix(Prefix),
    /// Names.
    Name(NamePattern),
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortRange {
    /// 1..=65535.
    pub first: u16,
    /// At least `first`.
    pub last: u16,
}

/// Whether the first bytes of a connection have to name an allowed host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Verify {
    /// On the ports where they do: `verify=auto`.
    #[default]
    Auto,
    /// Never: `verify=off`.
    Off,
}

/// Where a rule was written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A line of a file; shown as `FILE:LINE`.
    File {
        /// As the operator named it.
        name: Arc<str>,
        /// From 1.
        line: u32,
    },
    /// The nth entry of a list that a door gives: shown as `cli:N`, `cni:N`, `oci:N`, `api:N`.
    Entry {
        /// `cli`, `cni`, `oci`, `api` or `library`.
        door: &'static str,
        /// From 1.
        number: u32,
    },
}

impl Source {
    /// The name of the file, or the door.
    pub fn door(&self) -> &str {
        match self {
            Self::File { name, .. } => name,
            Self::Entry { door, .. } => door,
        }
    }
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EgressRule {
    /// What it does.
    pub action: Action,
    /// Who opens what it is about.
    pub direction: Direction,
    /// Its protocol, if it names one.
    pub protocol: Option<RuleProtocol>,
    /// Its destination; the client of an `in` rule.
    pub destination: RuleDestination,
    /// Its ports, if it names some: at most 16, in order and without overlaps. Empty for `*`: all
    /// ports of TCP where the destination is a name, and all ports elsewhere.
    pub ports: Option<Vec<PortRange>>,
    /// `verify=`.
    pub verify: Verify,
    /// `private=yes`: the name may have private addresses.
    pub private: bool,
    /// `wide=yes`: a whole top-level domain is meant.
    pub wide: bool,
    /// Not `log=no`.
    pub log: bool,
    /// `note="…"`: what the guest is told; at most 120 bytes of printable ASCII.
    pub note: Option<Arc<str>>,
    /// Where it was written.
    pub source: Source,
}

impl EgressRule {
    /// Whether it is about all that a guest opens, so that it states the default.
    pub(super) fn is_about_all(&self) -> bool {
        self.direction == Direction::Out
            && self.protocol.is_none()
            && self.destination == RuleDestination::Any
            && self.ports.is_none()
    }

    /// Whether it is about names, or looking them up.
    pub(super) fn is_about_names(&self) -> bool {
        self.protocol == Some(RuleProtocol::Dns)
            || matches!(self.destination, RuleDestination::Name(_))
    }
}

/// Whether verdicts are obeyed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Mode {
    /// They are: `set mode enforce`.
    #[default]
    Enforce,
    /// They are told, and all but the protected sets passes: `set mode audit`.
    Audit,
}

/// What a policy sets besides its rules. `None` where it says nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// `set mode`; [`Mode::Enforce`] by default.
    pub mode: Option<Mode>,
    /// `set ech`: whether a ClientHello with encrypted_client_hello may pass. By default it may
    /// where the default action is to allow.
    pub ech: Option<bool>,
    /// `set dns-redirect`: whether queries to other servers are led to our service. By default they
    /// are.
    pub dns_redirect: Option<bool>,
    /// `set ask-timeout`: 5 to 120 seconds, 60 by default.
    pub ask_timeout: Option<Duration>,
    /// `set placeholder`: addresses that stand for names that are asked about. By default, and
    /// where the guest has addresses there, 198.19.192.0/18 or another network that it does not
    /// have.
    pub placeholder: Option<Prefix>,
}

/// One of the [`Settings`], or the default action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    /// `allow any`, `ask any`, `deny any`.
    Default(Action),
    /// `set mode`.
    Mode(Mode),
    /// `set ech`.
    Ech(bool),
    /// `set dns-redirect`.
    DnsRedirect(bool),
    /// `set ask-timeout`.
    AskTimeout(Duration),
    /// `set placeholder`.
    Placeholder(Prefix),
}
