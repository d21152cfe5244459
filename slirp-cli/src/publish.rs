//! The value of `--publish`: `[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT`.
//!
//! Owns its grammar and the defaults of its optional parts. IPv6 addresses stand in brackets. A
//! range leads to as many ports of the guest, from the given one on. Port 0 of the host lets the
//! system pick a port.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use slirp_core::instance::{Forward, ForwardProtocol, Opening};
use slirp_core::plan::AssumedGuest;

/// One parsed `--publish`, or a rule of another dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    pub(crate) protocol: ForwardProtocol,
    /// Where the host listens; everywhere without it.
    pub(crate) host: Option<IpAddr>,
    /// Whether clients that come over IPv6 are led to the guest's IPv6 address, if the host listens
    /// everywhere. The guest sees them as the gateway's IPv4 address otherwise.
    pub(crate) keeps_version: bool,
    pub(crate) host_ports: RangeInclusive<u16>,
    /// Where the ports lead, if not to the assumed guest.
    pub(crate) guest: Option<IpAddr>,
    /// The port that the first one leads to.
    pub(crate) guest_port: u16,
    /// How the ports are opened.
    pub(crate) opening: Opening,
}

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("expected [PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT")]
    Form,
    #[error("the guest has no ports beyond 65535 for the rest of the range")]
    Range,
}

impl Publish {
    /// Parses a value.
    pub(crate) fn parse(text: &str) -> Result<Self, PublishError> {
        let publish = Self::of_form(text).ok_or(PublishError::Form)?;
        let Self { ref host_ports, guest_port, .. } = publish;
        if guest_port.checked_add(host_ports.end() - host_ports.start()).is_none() {
            return Err(PublishError::Range);
        }
        Ok(publish)
    }

    /// Whether the rule needs a guest with IPv6; without one it is refused.
    pub(crate) fn needs_ipv6(&self) -> bool {
        self.guest.is_some_and(|guest| guest.is_ipv6())
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
        let opening = Opening::default();
        let keeps_version = false;
        Some(Self { protocol, host, keeps_version, host_ports, guest, guest_port, opening })
    }

    /// The rule that it stands for. If it names no guest, `assumed` is used: the IPv6 address for
    /// IPv6 addresses of the host, if the guest has one, or else the IPv4 address.
    pub(crate) fn forward(&self, assumed: AssumedGuest) -> Forward {
        let ipv6 = assumed.ipv6.filter(|_| self.host.is_some_and(|host| host.is_ipv6()));
        let guest = self.guest.unwrap_or(ipv6.map_or(assumed.ipv4.into(), IpAddr::V6));
        let guest = SocketAddr::new(guest, self.guest_port);
        let port = *self.host_ports.start();
        let forward = match (self.host, guest) {
            (Some(host), _) => Forward::new(self.protocol, SocketAddr::new(host, port), guest),
            (None, SocketAddr::V4(_)) => Forward::everywhere(self.protocol, port, guest),
            (None, SocketAddr::V6(_)) => {
                Forward::new(self.protocol, (Ipv6Addr::UNSPECIFIED, port).into(), guest)
            }
        };
        // A range does not begin with 0, so the number of ports always fits the type.
        let ports = (self.host_ports.end() - self.host_ports.start()).saturating_add(1);
        let guest_ipv6 = assumed.ipv6.filter(|_| self.keeps_version && self.host.is_none());
        Forward { ports, guest_ipv6, ..forward }
    }

    /// Whether the system picks the port; the pick is then reported.
    pub(crate) fn is_picked(&self) -> bool {
        *self.host_ports.start() == 0
    }
}

/// A rule in this grammar.
pub(crate) fn spelled(rule: &Forward) -> String {
    let protocol = match rule.protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
    };
    match rule.also_ipv6 {
        true => format!("{protocol}:{}:{}", rule.host.port(), rule.guest),
        false => format!("{protocol}:{}:{}", rule.host, rule.guest),
    }
}

/// Splits at the colons outside of brackets.
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
    if text == "0" {
        return Some(0..=0);
    }
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
    use std::net::Ipv4Addr;

    use super::*;

    fn rule_for(text: &str, ipv6: Option<Ipv6Addr>) -> String {
        let publish = Publish::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let rule = publish.forward(AssumedGuest { ipv4: Ipv4Addr::new(10, 0, 2, 100), ipv6 });
        let also = if rule.also_ipv6 { " and [::]" } else { "" };
        format!("{:?} {}{also} {} {}", rule.protocol, rule.host, rule.guest, rule.ports)
    }

    fn rule(text: &str) -> String {
        rule_for(text, Some("fd00::5054:ff:fe12:3456".parse().unwrap()))
    }

    #[test]
    fn what_is_left_out_is_assumed() {
        for (text, expected) in [
            ("8080:80", "Tcp 0.0.0.0:8080 and [::] 10.0.2.100:80"),
            ("0:80", "Tcp 0.0.0.0:0 and [::] 10.0.2.100:80"),
            ("udp:53:53", "Udp 0.0.0.0:53 and [::] 10.0.2.100:53"),
            ("0.0.0.0:8080:80", "Tcp 0.0.0.0:8080 10.0.2.100:80"),
            ("127.0.0.1:8080:80", "Tcp 127.0.0.1:8080 10.0.2.100:80"),
            ("8080:10.0.2.15:80", "Tcp 0.0.0.0:8080 and [::] 10.0.2.15:80"),
            ("tcp:127.0.0.1:8080:10.0.2.15:80", "Tcp 127.0.0.1:8080 10.0.2.15:80"),
            ("8080:[fd00::64]:80", "Tcp [::]:8080 [fd00::64]:80"),
            ("[::1]:8080:80", "Tcp [::1]:8080 [fd00::5054:ff:fe12:3456]:80"),
            ("udp:[::]:53:53", "Udp [::]:53 [fd00::5054:ff:fe12:3456]:53"),
            ("udp:[::1]:8080:[fd00::64]:80", "Udp [::1]:8080 [fd00::64]:80"),
            ("[::1]:0:10.0.2.15:80", "Tcp [::1]:0 10.0.2.15:80"),
            ("127.0.0.1:80:[fd00::64]:80", "Tcp 127.0.0.1:80 [fd00::64]:80"),
        ] {
            assert_eq!(rule(text), format!("{expected} 1"), "{text}");
        }
        assert_eq!(rule_for("[::]:53:53", None), "Tcp [::]:53 10.0.2.100:53 1");
    }

    #[test]
    fn range_leads_to_as_many_ports() {
        let from =
            |host: &str, rest: &str| format!("Tcp 0.0.0.0:{host} and [::] 10.0.2.100:{rest}");
        assert_eq!(rule("8000-8002:80"), from("8000", "80 3"));
        assert_eq!(rule("1-1:65535"), from("1", "65535 1"));
        assert_eq!(rule("1-65535:1"), from("1", "1 65535"));
    }

    #[test]
    fn rule_is_spelled_as_it_can_be_published_again() {
        let ipv4 = Ipv4Addr::new(10, 0, 2, 100);
        for text in
            ["tcp:8080:10.0.2.100:80", "udp:[::1]:53:10.0.2.100:5353", "tcp:0.0.0.0:1:10.0.2.15:2"]
        {
            let rule = Publish::parse(text).unwrap().forward(AssumedGuest { ipv4, ipv6: None });
            assert_eq!(spelled(&rule), text);
        }
    }

    #[test]
    fn invalid_values_are_refused() {
        for text in [
            "",
            "80",
            ":",
            "80:",
            ":80",
            "80:0",
            "0-0:80",
            "0-5:80",
            "00:80",
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
        assert_eq!(Publish::parse("80-82:65534"), Err(PublishError::Range));
    }
}
