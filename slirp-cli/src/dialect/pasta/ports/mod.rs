//! The value of `-t`, `-u`, `-T` and `-U`: which ports lead where.
//!
//! Owns the grammar, as [`PortSpec`]; [`rules`] makes rules of it.
//!
//! ```text
//! SPEC   = "none" | [[ADDR] ["%" IFNAME] "/"] CHUNK *("," CHUNK)
//! CHUNK  = "all" [":" TADDR] | "auto" | "~" RANGE
//!        | RANGE [":" [TADDR "/"] RANGE | ":" TADDR]
//! RANGE  = FIRST ["-" LAST]
//! ADDR   = IPv4 | IPv6 | "[" IPv4 | IPv6 "]" | "*"
//! ```
//!
//! ADDR and IFNAME are where connections are accepted, TADDR is where they lead. White space before
//! the value or a chunk is skipped: entries of `containers.conf` bring it along.

pub(crate) mod rules;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

/// Longest name of a network interface in bytes (`IFNAMSIZ` less its final NUL).
pub(crate) const MAX_INTERFACE_LEN: usize = 15;

/// A parsed value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PortSpec {
    /// `none`: no port.
    None,
    /// Ports at an address.
    Ports(Listener, Vec<Chunk>),
}

/// Where connections are accepted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Listener {
    /// The address; all addresses of both families without one.
    pub(crate) address: Option<IpAddr>,
    /// The interface on which they arrive; any without one.
    pub(crate) interface: Option<String>,
}

/// One part of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Chunk {
    /// All ports that the system does not give out, to this address or to the guest.
    All(Option<IpAddr>),
    /// Only while something listens at the same port of the other side.
    Auto,
    /// Not these ports, whatever else the list has.
    Except(PortRange),
    /// These ports.
    Range {
        ports: PortRange,
        /// Where they lead, if not to the guest.
        target: Option<IpAddr>,
        /// As many ports there, if not those of the same numbers.
        to: Option<PortRange>,
    },
}

/// Ports from `first` to `last`, which is not lower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SpecError {
    /// Not of the form.
    Form,
    /// The target has another number of ports.
    Length,
    /// A target address without an address at which to listen, or of the other family.
    TargetFamily,
    /// No unicast address.
    Target,
}

impl PortSpec {
    /// Reads a value.
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let text = text.trim_ascii_start();
        if text == "none" {
            return Ok(Self::None);
        }
        let (listener, list) = match text.split_once('/') {
            // A target has a slash of its own, and no comma or port stands in an address.
            Some((head, list)) => match Listener::parse(head) {
                Some(listener) => (listener, list),
                None => (Listener::default(), text),
            },
            None => (Listener::default(), text),
        };
        let chunks: Vec<_> = list.split(',').map(Chunk::parse).collect::<Result<_, _>>()?;
        for target in chunks.iter().filter_map(Chunk::target) {
            if !is_of_one_host(target) {
                return Err(SpecError::Target);
            }
            if listener.address.is_none_or(|address| address.is_ipv4() != target.is_ipv4()) {
                return Err(SpecError::TargetFamily);
            }
        }
        Ok(Self::Ports(listener, chunks))
    }
}

impl Listener {
    fn parse(text: &str) -> Option<Self> {
        let (address, interface) = match text.split_once('%') {
            Some((address, name)) => (address, Some(interface(name)?)),
            None => (text, None),
        };
        let address = match address {
            "" | "*" => None,
            address => Some(bare_or_bracketed(address)?),
        };
        Some(Self { address, interface })
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Chunk {
    fn parse(text: &str) -> Result<Self, SpecError> {
        let text = text.trim_ascii_start();
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(range) = text.strip_prefix('~') {
            return PortRange::parse(range).map(Self::Except).ok_or(SpecError::Form);
        }
        let (ports, rest) = match text.split_once(':') {
            Some((ports, rest)) => (ports, Some(rest)),
            None => (text, None),
        };
        if ports == "all" {
            let target = rest.map(|rest| bare_or_bracketed(rest).ok_or(SpecError::Form));
            return Ok(Self::All(target.transpose()?));
        }
        let ports = PortRange::parse(ports).ok_or(SpecError::Form)?;
        let (target, to) = match rest {
            Some(rest) => target(rest).ok_or(SpecError::Form)?,
            None => (None, None),
        };
        if to.is_some_and(|to| to.len() != ports.len()) {
            return Err(SpecError::Length);
        }
        Ok(Self::Range { ports, target, to })
    }

    fn target(&self) -> Option<IpAddr> {
        match self {
            Self::All(target) | Self::Range { target, .. } => *target,
            Self::Auto | Self::Except(_) => None,
        }
    }
}

/// What stands behind the colon of a range.
fn target(text: &str) -> Option<(Option<IpAddr>, Option<PortRange>)> {
    if let Some((address, ports)) = text.split_once('/') {
        return Some((Some(bare_or_bracketed(address)?), Some(PortRange::parse(ports)?)));
    }
    match PortRange::parse(text) {
        Some(ports) => Some((None, Some(ports))),
        None => Some((Some(bare_or_bracketed(text)?), None)),
    }
}

impl PortRange {
    /// Ports from `first` to `last`; `None` if there are none, or if port 0 is among them.
    pub(crate) fn new(first: u16, last: u16) -> Option<Self> {
        let (first, last) = (NonZeroU16::new(first)?, NonZeroU16::new(last)?);
        (first <= last).then_some(Self { first, last })
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(port(first)?, port(last)?)
    }

    /// The lowest port.
    pub(crate) fn first(self) -> u16 {
        self.first.get()
    }

    /// The highest port.
    pub(crate) fn last(self) -> u16 {
        self.last.get()
    }

    /// How many ports there are, less one: all of them are one more than fits.
    fn len(self) -> u16 {
        self.last() - self.first()
    }

    /// Whether a port is in both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// An address. An IPv4 address that is mapped into IPv6 (RFC 4291, section 2.5.5.2) is IPv4: the
/// control socket has no other form for it.
fn bare_or_bracketed(text: &str) -> Option<IpAddr> {
    let text = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => text,
    };
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Whether ports can lead to this address.
pub(crate) fn is_of_one_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !is_broadcast
}

/// The name of an interface, as the kernel allows it.
pub(crate) fn interface(text: &str) -> Option<String> {
    let is_name = (1..=MAX_INTERFACE_LEN).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    is_name.then(|| text.to_owned())
}

/// As it can be read again.
impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ports(listener, chunks) = self else { return f.write_str("none") };
        if !listener.is_default() {
            if let Some(address) = listener.address {
                write!(f, "{address}")?;
            }
            if let Some(interface) = &listener.interface {
                write!(f, "%{interface}")?;
            }
            f.write_str("/")?;
        }
        for (at, chunk) in chunks.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            chunk.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(None) => f.write_str("all"),
            Self::All(Some(target)) => write!(f, "all:{target}"),
            Self::Auto => f.write_str("auto"),
            Self::Except(ports) => write!(f, "~{ports}"),
            Self::Range { ports, target: None, to: None } => ports.fmt(f),
            Self::Range { ports, target: None, to: Some(to) } => write!(f, "{ports}:{to}"),
            Self::Range { ports, target: Some(target), to: None } => write!(f, "{ports}:{target}"),
            Self::Range { ports, target: Some(target), to: Some(to) } => {
                write!(f, "{ports}:{target}/{to}")
            }
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests;
