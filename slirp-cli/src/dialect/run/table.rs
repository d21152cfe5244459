//! The options of `slirp run`, as plain data.
//!
//! Owns names, values, texts and groups. `--help` is made of them; a test holds the manual page to
//! them.

use OptionId as Id;

/// What an option is for. Options are listed group by group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    /// What COMMAND reaches, and what reaches COMMAND.
    Network,
    /// Where COMMAND runs.
    Place,
    /// Where COMMAND may go.
    Rules,
    /// What can be seen of it.
    Insight,
}

impl Group {
    /// All of them, in the order of `--help`.
    pub(crate) const ALL: [Self; 4] = [Self::Network, Self::Rules, Self::Insight, Self::Place];

    /// The heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Network => "Ports, names and addresses:",
            Self::Place => "Where it runs:",
            Self::Rules => "Where it may go:",
            Self::Insight => "What can be seen:",
        }
    }
}

/// One option.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    pub(crate) id: OptionId,
    /// The letter of the short form.
    pub(crate) short: Option<char>,
    /// The long form, without dashes.
    pub(crate) long: &'static str,
    /// What its value is called, if it takes one.
    pub(crate) value: Option<&'static str>,
    /// What it does, in a few words.
    pub(crate) about: &'static str,
    pub(crate) group: Group,
    /// Whether `--help` has a line for it; the names of the others are listed together.
    pub(crate) is_everyday: bool,
}

/// The name of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OptionId {
    Publish,
    HostLoopback,
    Ipv6,
    NoIpv6,
    Dns,
    NoDns,
    SearchDomain,
    Mtu,
    Cidr,
    Cidr6,
    OutboundAddr,
    OutboundAddr6,
    RateIn,
    RateOut,
    Allow,
    Deny,
    Ask,
    Policy,
    PolicyMode,
    ControlSocket,
    AuditLog,
    Audit,
    AuditRequired,
    Metrics,
    Pcap,
    LogLevel,
    MapRoot,
    NetOf,
    NoSandbox,
    NoSeccomp,
    Help,
}

const fn everyday(
    group: Group,
    id: OptionId,
    long: &'static str,
    value: Option<&'static str>,
    about: &'static str,
) -> OptionSpec {
    OptionSpec { id, short: None, long, value, about, group, is_everyday: true }
}

const fn rare(
    group: Group,
    id: OptionId,
    long: &'static str,
    value: Option<&'static str>,
    about: &'static str,
) -> OptionSpec {
    OptionSpec { id, short: None, long, value, about, group, is_everyday: false }
}

impl OptionSpec {
    const fn or(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }
}

/// Every option, group by group, in the order of `--help`.
#[rustfmt::skip]
pub(crate) const OPTIONS: &[OptionSpec] = &{
    use Group::{Insight, Network, Place, Rules};
    [
        everyday(Network, Id::Publish, "publish", Some("SPEC"),
            "[PROTO:][ADDR:]PORT[-PORT]:PORT, of the host to it").or('p'),
        everyday(Network, Id::HostLoopback, "host-loopback", None,
            "let it reach the host's own 127.0.0.1, at 10.0.2.2"),
        everyday(Network, Id::NoIpv6, "no-ipv6", None,
            "IPv4 alone (default: IPv6 too if the host has it)"),
        rare(Network, Id::Ipv6, "ipv6", None,
            "IPv6 too, whatever the host has"),
        everyday(Network, Id::Dns, "dns", Some("ADDR[:PORT]"),
            "ask this resolver instead of the host's"),
        rare(Network, Id::NoDns, "no-dns", None,
            "answer no DNS queries, and leave /etc/resolv.conf as it is"),
        rare(Network, Id::SearchDomain, "search-domain", Some("DOMAIN"),
            "look up short names there instead of in the host's domains (repeatable)"),
        rare(Network, Id::Mtu, "mtu", Some("MTU"),
            "MTU of its interface (default=65520)"),
        rare(Network, Id::Cidr, "cidr", Some("CIDR"),
            "its IPv4 network (default=10.0.2.0/24)"),
        rare(Network, Id::Cidr6, "cidr6", Some("PREFIX/64"),
            "its IPv6 network (default=fd00::/64)"),
        rare(Network, Id::OutboundAddr, "outbound-addr", Some("IPv4"),
            "address or interface of the host that IPv4 leaves from"),
        rare(Network, Id::OutboundAddr6, "outbound-addr6", Some("IPv6"),
            "address or interface of the host that IPv6 leaves from"),
        rare(Network, Id::RateIn, "rate-in", Some("RATE"),
            "let it receive this many bits a second: N[k|M|G][,burst=BYTES]"),
        rare(Network, Id::RateOut, "rate-out", Some("RATE"),
            "let it send this many bits a second: N[k|M|G][,burst=BYTES]"),
        everyday(Rules, Id::Allow, "allow", Some("RULE"),
            "there, and nowhere else that no rule allows"),
        everyday(Rules, Id::Deny, "deny", Some("RULE"),
            "not there, whatever else is allowed"),
        rare(Rules, Id::Ask, "ask", Some("RULE"),
            "have somebody decide, by the control socket"),
        everyday(Rules, Id::Policy, "policy", Some("FILE"),
            "rules from a file"),
        rare(Rules, Id::PolicyMode, "policy-mode", Some("MODE"),
            "obey the rules or only tell of them ([enforce|audit], default=enforce)"),
        rare(Rules, Id::ControlSocket, "control-socket", Some("PATH"),
            "path of the socket for policy, questions, events and rates"),
        everyday(Insight, Id::Pcap, "pcap", Some("FILE"),
            "record its packets, for Wireshark or tcpdump"),
        everyday(Insight, Id::AuditLog, "audit-log", Some("FILE"),
            "append what the rules decide, to a file or to fd:N"),
        rare(Insight, Id::Audit, "audit", Some("LEVEL"),
            "how much that log has ([denied|decisions|all], default=decisions)"),
        rare(Insight, Id::AuditRequired, "audit-required", None,
            "refuse new connections while that log cannot be written"),
        rare(Insight, Id::Metrics, "metrics", Some("ADDRESS"),
            "serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT"),
        everyday(Insight, Id::LogLevel, "log-level", Some("LEVEL"),
            "error, warn (default), info, debug (connections), ..."),
        everyday(Place, Id::MapRoot, "map-root", None,
            "be root inside (default: the same user)"),
        everyday(Place, Id::NetOf, "net-of", Some("PID|PATH"),
            "in this network namespace instead of a new one"),
        rare(Place, Id::NoSandbox, "no-sandbox", None,
            "leave the host's files and rights to the process that carries packets"),
        rare(Place, Id::NoSeccomp, "no-seccomp", None,
            "allow that process all system calls"),
        everyday(Place, Id::Help, "help", None,
            "print this text and exit").or('h'),
    ]
};

/// How an option is written: `-p, --publish=SPEC`.
pub(crate) fn spelled(option: &OptionSpec) -> String {
    let short = option.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
    let value = option.value.map(|value| format!("={value}")).unwrap_or_default();
    format!("{short}--{}{value}", option.long)
}
