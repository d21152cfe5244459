//! The rules that the options for ports add up to.
//!
//! Owns how values become rules: what `all`, `auto` and exclusions stand for, and which rules
//! exclude each other. A rule covers a range of ports, however long: nothing here counts ports one
//! by one.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use slirp_core::instance::ForwardProtocol;

use super::{Chunk, Listener, PortRange, PortSpec, SpecError};

/// Ports that the system gives out by itself where `net.ipv4.ip_local_port_range` cannot be read
/// (RFC 6335, section 6).
pub(crate) const EPHEMERAL: RangeInclusive<u16> = 49_152..=65_535;

/// The ports that the system gives out by itself (ip(7)).
pub(crate) fn ephemeral() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    text.ok().and_then(|text| range(&text)).unwrap_or(EPHEMERAL)
}

/// The two numbers of `text`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(|port| port.parse().ok());
    let (first, last) = (ports.next()??, ports.next()??);
    (first <= last).then_some(first..=last)
}

/// Most rules of one direction, as the control socket of this dialect counts them.
pub(crate) const MAX_RULES: usize = 255;

/// One of the four options.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortOption {
    /// `-t`
    TcpToGuest,
    /// `-u`
    UdpToGuest,
    /// `-T`
    TcpToHost,
    /// `-U`
    UdpToHost,
}

impl PortOption {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::TcpToGuest, Self::UdpToGuest, Self::TcpToHost, Self::UdpToHost];

    /// Its short form.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::TcpToGuest => 't',
            Self::UdpToGuest => 'u',
            Self::TcpToHost => 'T',
            Self::UdpToHost => 'U',
        }
    }

    /// Whether it is about connections of the host to the guest.
    pub(crate) const fn is_inbound(self) -> bool {
        matches!(self, Self::TcpToGuest | Self::UdpToGuest)
    }

    /// The protocol.
    pub(crate) const fn protocol(self) -> ForwardProtocol {
        match self {
            Self::TcpToGuest | Self::TcpToHost => ForwardProtocol::Tcp,
            Self::UdpToGuest | Self::UdpToHost => ForwardProtocol::Udp,
        }
    }
}

/// Ports at one address that lead to as many ports elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PortRule {
    pub(crate) protocol: ForwardProtocol,
    pub(crate) listener: Listener,
    pub(crate) ports: PortRange,
    /// Where they lead, if not to the guest (or to the host, from the guest).
    pub(crate) target: Option<IpAddr>,
    /// The port that the first one leads to. The others follow.
    pub(crate) to: u16,
    /// Whether a port that cannot be bound is skipped with a warning. Otherwise it ends the start.
    pub(crate) is_weak: bool,
    /// Whether a port is open only while the same port is bound on the other side.
    pub(crate) is_scanned: bool,
}

/// The rules of both directions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PortRules {
    /// Ports of the host that lead to the guest.
    pub(crate) inbound: Vec<PortRule>,
    /// Ports of the guest's loopback that lead to the host's.
    pub(crate) outbound: Vec<PortRule>,
}

/// Why a value is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PortError {
    #[error("Invalid port specifier '{0}'")]
    Form(String),
    #[error("Invalid port specifier '{0}' (both ranges need the same number of ports)")]
    Length(String),
    #[error(
        "Invalid port specifier '{0}' (a target address needs a listening address of its family)"
    )]
    TargetFamily(String),
    #[error("Invalid port specifier '{0}' (the target has to be the address of one host)")]
    Target(String),
    #[error("Listening address not allowed for -{0} {1}")]
    Listener(char, String),
    #[error("-{0} none conflicts with previous options")]
    None(char),
    #[error("Failed to bind any port for '-{0} {1}', exiting")]
    NoPort(char, String),
    #[error("Forwarding configuration conflict: {0} versus {1}")]
    Conflict(Box<PortRule>, Box<PortRule>),
    #[error("Too many port forwarding rules (max {MAX_RULES} a direction)")]
    Full,
    #[error("Too many port forwarding rules for '-{0} {1}' (max {MAX_RULES} a direction)")]
    TooMany(char, String),
}

impl PortRules {
    /// The rules that `given` adds up to. An option that is not given stands for `auto`.
    /// `ephemeral` are the ports that the system gives out by itself.
    pub(crate) fn new<'a>(
        given: impl IntoIterator<Item = (PortOption, &'a str)>,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<Self, PortError> {
        let mut missing = PortOption::ALL.to_vec();
        let given = given.into_iter().inspect(|(option, _)| missing.retain(|it| it != option));
        let mut rules = Self::given(given, ephemeral)?;
        for option in missing {
            rules.add(option, "auto", ephemeral)?;
        }
        Ok(rules)
    }

    /// The rules that `given` adds up to, and no others.
    pub(crate) fn given<'a>(
        given: impl IntoIterator<Item = (PortOption, &'a str)>,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<Self, PortError> {
        let mut rules = Self::default();
        for (option, text) in given {
            rules.add(option, text, ephemeral)?;
        }
        Ok(rules)
    }

    /// Adds the rules of one value.
    fn add(
        &mut self,
        option: PortOption,
        text: &str,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<(), PortError> {
        let letter = option.letter();
        let rules = if option.is_inbound() { &mut self.inbound } else { &mut self.outbound };
        let (listener, chunks) = match PortSpec::parse(text) {
            Ok(PortSpec::Ports(listener, chunks)) => (listener, chunks),
            Ok(PortSpec::None) => {
                return match rules.iter().any(|rule| rule.protocol == option.protocol()) {
                    true => Err(PortError::None(letter)),
                    false => Ok(()),
                };
            }
            Err(error) => return Err(PortError::of(error, text)),
        };
        if !option.is_inbound() && listener != Listener::default() {
            return Err(PortError::Listener(letter, text.to_owned()));
        }
        let added = ranges(&chunks, ephemeral);
        if added.is_empty() {
            return Err(PortError::NoPort(letter, text.to_owned()));
        }
        let is_scanned = chunks.contains(&Chunk::Auto);
        for Lead { ports, target, to, is_weak } in added {
            let listener = listener.clone();
            let protocol = option.protocol();
            let rule = PortRule { protocol, listener, ports, target, to, is_weak, is_scanned };
            if let Some(other) = rules.iter().find(|other| other.conflicts(&rule)) {
                return Err(PortError::Conflict(Box::new(rule), Box::new(other.clone())));
            }
            if rules.len() == MAX_RULES {
                return Err(PortError::TooMany(letter, text.to_owned()));
            }
            rules.push(rule);
        }
        Ok(())
    }
}

impl PortError {
    fn of(error: SpecError, text: &str) -> Self {
        let text = text.to_owned();
        match error {
            SpecError::Form => Self::Form(text),
            SpecError::Length => Self::Length(text),
            SpecError::TargetFamily => Self::TargetFamily(text),
            SpecError::Target => Self::Target(text),
        }
    }
}

/// Ports and where they lead.
struct Lead {
    ports: PortRange,
    target: Option<IpAddr>,
    to: u16,
    is_weak: bool,
}

/// What a list stands for, without its exclusions.
fn ranges(chunks: &[Chunk], ephemeral: &RangeInclusive<u16>) -> Vec<Lead> {
    let mut excluded: Vec<_> = chunks
        .iter()
        .filter_map(|chunk| match chunk {
            Chunk::Except(ports) => Some(*ports),
            Chunk::All(_) | Chunk::Auto | Chunk::Range { .. } => None,
        })
        .collect();
    excluded.sort_by_key(|ports| ports.first());
    let mut found = Vec::new();
    let mut names_ports = false;
    for chunk in chunks {
        match *chunk {
            Chunk::All(target) => {
                names_ports = true;
                everything(&mut found, &excluded, ephemeral, target);
            }
            Chunk::Range { ports, target, to } => {
                names_ports = true;
                let to = to.unwrap_or(ports).first();
                for part in without(ports, &excluded) {
                    let to = to + (part.first() - ports.first());
                    found.push(Lead { ports: part, target, to, is_weak: false });
                }
            }
            Chunk::Auto | Chunk::Except(_) => {}
        }
    }
    if !names_ports {
        everything(&mut found, &excluded, ephemeral, None);
    }
    found
}

/// Adds all ports that the system does not give out by itself.
fn everything(
    found: &mut Vec<Lead>,
    excluded: &[PortRange],
    ephemeral: &RangeInclusive<u16>,
    target: Option<IpAddr>,
) {
    let below = PortRange::new(1, ephemeral.start().saturating_sub(1));
    let above = ephemeral.end().checked_add(1).and_then(|first| PortRange::new(first, u16::MAX));
    for ports in below.into_iter().chain(above) {
        for part in without(ports, excluded) {
            found.push(Lead { ports: part, target, to: part.first(), is_weak: true });
        }
    }
}

/// `ports` without those of `excluded`, which are sorted by their first port.
fn without(ports: PortRange, excluded: &[PortRange]) -> Vec<PortRange> {
    let mut parts = Vec::new();
    let mut rest = Some(ports);
    for hole in excluded {
        let Some(left) = rest.filter(|left| left.overlaps(*hole)) else { continue };
        parts.extend(PortRange::new(left.first(), hole.first() - 1));
        rest = hole.last().checked_add(1).and_then(|first| PortRange::new(first, left.last()));
    }
    parts.extend(rest);
    parts
}

impl PortRule {
    /// Whether both would be bound to one port. Sockets of two interfaces are not in each other's
    /// way (`SO_BINDTODEVICE`).
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.ports.overlaps(other.ports)
            && match (&self.listener.interface, &other.listener.interface) {
                (Some(interface), Some(other)) => interface == other,
                (None, _) | (_, None) => true,
            }
            && match (self.listener.address, other.listener.address) {
                (Some(address), Some(other)) => {
                    address == other
                        || address.is_ipv4() == other.is_ipv4()
                            && (address.is_unspecified() || other.is_unspecified())
                }
                (None, _) | (_, None) => true,
            }
    }
}

/// As in the summary at the start: `TCP [*]:8080-8081  =>  80-81  (best effort)`.
impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            ForwardProtocol::Tcp => "TCP [",
            ForwardProtocol::Udp => "UDP [",
        })?;
        match self.listener.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("*")?,
        }
        if let Some(interface) = &self.listener.interface {
            write!(f, "%{interface}")?;
        }
        write!(f, "]:{}  =>  ", self.ports)?;
        if let Some(target) = self.target {
            write!(f, "[{target}]:")?;
        }
        let last = self.to + (self.ports.last() - self.ports.first());
        match last == self.to {
            true => write!(f, "{}", self.to)?,
            false => write!(f, "{}-{last}", self.to)?,
        }
        f.write_str(if self.is_weak { "  (best effort)" } else { "" })?;
        f.write_str(if self.is_scanned { "  (auto-scan)" } else { "" })
    }
}
