//! The value of `--publish`: `[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT`.
//!
//! Owns its grammar and what is assumed for the parts that are left out. IPv6 addresses stand in
//! brackets. A range leads to as many ports of the guest, from the one that is given on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use slirp_core::instance::{Forward, ForwardProtocol};
use slirp_core::plan::AssumedGuest;

/// One `--publish`, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    protocol: ForwardProtocol,
    host: Option<IpAddr>,
    host_ports: RangeInclusive<u16>,
    guest: Option<IpAddr>,
    guest_port: u16,
}

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("expected [PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT")]
    Form,
    #[error("the guest has no ports beyond 65535 for the rest of the range")]
    Range,
    #[error("ADDR and GUEST need to be both IPv4 or both IPv6")]
    Versions,
}

impl Publish {
    /// Reads a value.
    pub(crate) fn parse(text: &str) -> Result<Self, PublishError> {
        let publish = Self::of_form(text).ok_or(PublishError::Form)?;
        let Self { host, ref host_ports, guest, guest_port, .. } = publish;
        if guest_port.checked_add(host_ports.end() - host_ports.start()).is_none() {
            return Err(PublishError::Range);
        }
        match (host, guest) {
            (Some(host), Some(guest)) if host.is_ipv4() != guest.is_ipv4() => {
                Err(PublishError::Versions)
            }
            (Some(_) | None, Some(_) | None) => Ok(publish),
        }
    }

    /// Whether the ports are IPv6 ones. What is left out is IPv4, unless the other side says otherwise.
    pub(crate) fn is_ipv6(&self) -> bool {
        self.host.or(self.guest).is_some_and(|address| address.is_ipv6())
    }

    fn of_form(text: &str) -> Option<Self> {
        let mut parts = split(text);
        let protocol = match parts.first() {
            Some(&"udp") => ForwardProtocol::Udp,
            Some(_) | None => ForwardProtocol::Tcp,
        };
        if matches!(parts.first(), Some(&("tcp" | "udp"))) {
            parts.remove(0);
        }
        let (host, host_ports, guest, guest_port) = match parts[..] {
            [ports, to] => (None, ports_of(ports)?, None, to),
            [ports, guest, to] if ports_of(ports).is_some() => {
                (None, ports_of(ports)?, Some(address(guest)?), to)
            }
            [host, ports, to] => (Some(address(host)?), ports_of(ports)?, None, to),
            [host, ports, guest, to] => {
                (Some(address(host)?), ports_of(ports)?, Some(address(guest)?), to)
            }
            _ => return None,
        };
        let guest_port = port(guest_port)?;
        Some(Self { protocol, host, host_ports, guest, guest_port })
    }

    /// The rule that it stands for; `assumed` is meant where it names no guest. There is none of IPv6
    /// for a guest without.
    pub(crate) fn forward(&self, assumed: AssumedGuest) -> Option<Forward> {
        let assumed =
            if self.is_ipv6() { assumed.ipv6.map(IpAddr::V6) } else { Some(assumed.ipv4.into()) };
        let guest = self.guest.or(assumed)?;
        let everywhere: IpAddr = match guest {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let host = SocketAddr::new(self.host.unwrap_or(everywhere), *self.host_ports.start());
        let guest = SocketAddr::new(guest, self.guest_port);
        // Ports begin with 1, so that there are never more than fit the type.
        let ports = (self.host_ports.end() - self.host_ports.start()).saturating_add(1);
        Some(Forward { ports, ..Forward::new(self.protocol, host, guest) })
    }
}

/// Cuts at the colons outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let mut is_inside = false;
    text.split(|c| {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ => {}
        }
        c == ':' && !is_inside
    })
    .collect()
}

fn address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

fn ports_of(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

fn port(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        let publish = Publish::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let ipv6 = Some("fd00::5054:ff:fe12:3456".parse().unwrap());
        publish
            .forward(AssumedGuest { ipv4: Ipv4Addr::new(10, 0, 2, 100), ipv6 })
            .map(|rule| format!("{:?} {} {} {}", rule.protocol, rule.host, rule.guest, rule.ports))
            .into_iter()
            .collect()
    }

    #[test]
    fn what_is_left_out_is_assumed() {
        for (text, rule) in [
            ("8080:80", "Tcp 0.0.0.0:8080 10.0.2.100:80"),
            ("udp:53:53", "Udp 0.0.0.0:53 10.0.2.100:53"),
            ("127.0.0.1:8080:80", "Tcp 127.0.0.1:8080 10.0.2.100:80"),
            ("8080:10.0.2.15:80", "Tcp 0.0.0.0:8080 10.0.2.15:80"),
            ("tcp:127.0.0.1:8080:10.0.2.15:80", "Tcp 127.0.0.1:8080 10.0.2.15:80"),
            ("8080:[fd00::64]:80", "Tcp [::]:8080 [fd00::64]:80"),
            ("[::1]:8080:80", "Tcp [::1]:8080 [fd00::5054:ff:fe12:3456]:80"),
            ("udp:[::]:53:53", "Udp [::]:53 [fd00::5054:ff:fe12:3456]:53"),
            ("udp:[::1]:8080:[fd00::64]:80", "Udp [::1]:8080 [fd00::64]:80"),
        ] {
            assert_eq!(rules(text), [format!("{rule} 1")], "{text}");
        }
    }

    #[test]
    fn range_leads_to_as_many_ports() {
        assert_eq!(rules("8000-8002:80"), ["Tcp 0.0.0.0:8000 10.0.2.100:80 3"]);
        assert_eq!(rules("1-1:65535"), ["Tcp 0.0.0.0:1 10.0.2.100:65535 1"]);
        assert_eq!(rules("1-65535:1"), ["Tcp 0.0.0.0:1 10.0.2.100:1 65535"]);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "80:+80",
            "65536:80",
            "80:x",
            "a:80:80",
            "sctp:80:80",
            "90-80:80",
            "1:2:3:4:5",
            "[::1:80:80",
            "80:fd00::64:80",
        ] {
            assert_eq!(Publish::parse(text), Err(PublishError::Form), "{text}");
        }
        for (text, error) in [
            ("80-82:65534", PublishError::Range),
            ("127.0.0.1:80:[fd00::64]:80", PublishError::Versions),
            ("[::1]:80:10.0.2.15:80", PublishError::Versions),
        ] {
            assert_eq!(Publish::parse(text), Err(error), "{text}");
        }
    }
}
