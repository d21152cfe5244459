//! What `slirp policy explain` is asked about.
//!
//! Owns how a target is written: like the target of a rule, with exactly one destination and port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use slirp_core::egress::{Destination, Name};
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};
use slirp_core::policy::Protocol;

/// An attempt of the guest, or of a client at a published port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Lookup(Name),
    Name { protocol: Protocol, name: Name, port: u16 },
    Address { protocol: Protocol, reached: SocketAddr },
    Client { protocol: Protocol, client: IpAddr, host_port: u16 },
}

/// Why a text is no target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("{0:?} is neither an address nor a name")]
    NoHost(String),
    #[error("{0} has no port: write {0}:443, or dns:{0} for its lookup alone")]
    NameWithoutPort(String),
    #[error("{0} has no port: write {0}:443")]
    AddressWithoutPort(String),
    #[error("{0:?} is no port: 1 to 65535")]
    NoPort(String),
    #[error("{0} has no ports")]
    Portless(&'static str),
    #[error("\"in\" takes the address of a client, not a name")]
    ClientName,
    #[error("\"dns\" takes a name, not an address")]
    LookupAddress,
    #[error("a target is one address or name, without scheme, path or prefix: a.example:443")]
    Slash,
    #[error("{0} is an IPv4 address: write {1}")]
    Mapped(Ipv6Addr, Ipv4Addr),
}

/// A destination without its port.
enum Host {
    Name(Name),
    Address(IpAddr),
}

impl Target {
    /// Reads `index.example:443`, `udp:203.0.113.7:53`, `icmp:[2001:db8::1]`, `dns:index.example`
    /// or `in:203.0.113.7:8080`.
    pub(super) fn parse(text: &str) -> Result<Self, TargetError> {
        if text.contains('/') {
            return Err(TargetError::Slash);
        }
        let (is_client, rest) = text.strip_prefix("in:").map_or((false, text), |rest| (true, rest));
        if let Some(rest) = rest.strip_prefix("dns:").filter(|_| !is_client) {
            return match split(rest) {
                (_, Some(_)) => Err(TargetError::Portless("dns")),
                (host, None) => match read(host)? {
                    Host::Name(name) => Ok(Self::Lookup(name)),
                    Host::Address(_) => Err(TargetError::LookupAddress),
                },
            };
        }
        let words = [("tcp:", Protocol::Tcp), ("udp:", Protocol::Udp), ("icmp:", Protocol::Echo)];
        let prefixed = words
            .into_iter()
            .find_map(|(word, protocol)| Some((protocol, rest.strip_prefix(word)?)));
        let (protocol, rest) = prefixed.unwrap_or((Protocol::Tcp, rest));
        let (host, port) = split(rest);
        let read = read(host)?;
        let port = match (port, protocol) {
            (Some(_), Protocol::Echo) => return Err(TargetError::Portless("icmp")),
            (None, Protocol::Echo) => 0,
            (Some(port), _) => match port.parse() {
                Ok(0) | Err(_) => return Err(TargetError::NoPort(port.to_owned())),
                Ok(port) => port,
            },
            (None, _) => {
                return Err(match read {
                    Host::Name(name) => TargetError::NameWithoutPort(name.to_string()),
                    Host::Address(IpAddr::V6(v6)) => {
                        TargetError::AddressWithoutPort(format!("[{v6}]"))
                    }
                    Host::Address(_) => TargetError::AddressWithoutPort(host.to_owned()),
                });
            }
        };
        match read {
            Host::Name(_) if is_client => Err(TargetError::ClientName),
            Host::Name(name) => Ok(Self::Name { protocol, name, port }),
            Host::Address(client) if is_client => {
                Ok(Self::Client { protocol, client, host_port: port })
            }
            Host::Address(written) => {
                let reached = SocketAddr::new(reached(written), port);
                Ok(Self::Address { protocol, reached })
            }
        }
    }

    /// The same for the engine.
    pub(super) const fn destination(&self) -> Destination<'_> {
        match *self {
            Self::Lookup(ref name) => Destination::Lookup(name),
            Self::Name { protocol, ref name, port } => Destination::Name { protocol, name, port },
            Self::Address { protocol, reached } => Destination::Address { protocol, reached },
            Self::Client { protocol, client, host_port } => {
                Destination::Client { protocol, client, host_port }
            }
        }
    }
}

/// Cuts the port off.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((host, behind)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, behind.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        Some(_) | None => (text, None),
    }
}

fn read(host: &str) -> Result<Host, TargetError> {
    if let Ok(address) = host.parse() {
        return match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Err(TargetError::Mapped(v6, v4)),
                None => Ok(Host::Address(address)),
            },
            IpAddr::V4(_) => Ok(Host::Address(address)),
        };
    }
    if ["host-loopback", "gateway"].contains(&host) {
        return Ok(Host::Address(Ipv4Addr::LOCALHOST.into()));
    }
    let ascii = ascii(host);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let name = ascii.as_deref().and_then(Name::new);
    match name.filter(|name| !name.as_str().rsplit('.').next().is_none_or(is_number)) {
        Some(name) => Ok(Host::Name(name)),
        None => Err(TargetError::NoHost(host.to_owned())),
    }
}

/// What the address plan makes of an address: the gateway's address is the host's loopback.
fn reached(written: IpAddr) -> IpAddr {
    match written {
        IpAddr::V4(v4) if v4 == SlirpNetwork::default().gateway() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6 == Ipv6Plan::default().gateway() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => written,
    }
}

/// A name as DNS has it: `xn--mnchen-3ya.example` of `münchen.example`.
pub(super) fn ascii(name: &str) -> Option<String> {
    if name.is_ascii() { Some(name.to_owned()) } else { idna::domain_to_ascii(name).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("it is a name")
    }

    #[test]
    fn targets_are_read() {
        let (tcp, udp, echo) = (Protocol::Tcp, Protocol::Udp, Protocol::Echo);
        let address = |protocol, text: &str| {
            let reached = text.parse().expect("it is an address");
            Ok(Target::Address { protocol, reached })
        };
        let named = |protocol, text, port| Ok(Target::Name { protocol, name: name(text), port });
        let v6 = "[2001:db8::1]:443";
        for (text, target) in [
            ("index.example:443", named(tcp, "index.example", 443)),
            ("udp:Index.Example.:443", named(udp, "index.example", 443)),
            ("münchen.example:80", named(tcp, "xn--mnchen-3ya.example", 80)),
            ("icmp:index.example", named(echo, "index.example", 0)),
            ("dns:index.example", Ok(Target::Lookup(name("index.example")))),
            ("203.0.113.7:22", address(tcp, "203.0.113.7:22")),
            ("udp:203.0.113.7:53", address(udp, "203.0.113.7:53")),
            ("icmp:203.0.113.7", address(echo, "203.0.113.7:0")),
            ("icmp:2001:db8::1", address(echo, "[2001:db8::1]:0")),
            (v6, address(tcp, v6)),
            ("10.0.2.2:8000", address(tcp, "127.0.0.1:8000")),
            ("[fd00::2]:8000", address(tcp, "[::1]:8000")),
            ("host-loopback:8000", address(tcp, "127.0.0.1:8000")),
            (
                "in:udp:203.0.113.7:5353",
                Ok(Target::Client {
                    protocol: udp,
                    client: IpAddr::from([203, 0, 113, 7]),
                    host_port: 5353,
                }),
            ),
        ] {
            assert_eq!(Target::parse(text), target, "{text}");
        }
        for (text, message) in [
            ("", "\"\" is neither an address nor a name"),
            ("203.0.113", "\"203.0.113\" is neither an address nor a name"),
            ("a b:80", "\"a b\" is neither an address nor a name"),
            (
                "https://a.example/",
                "a target is one address or name, without scheme, path or prefix: a.example:443",
            ),
            (
                "a.example",
                "a.example has no port: write a.example:443, or dns:a.example for its lookup alone",
            ),
            ("2001:db8::1", "[2001:db8::1] has no port: write [2001:db8::1]:443"),
            ("a.example:0", "\"0\" is no port: 1 to 65535"),
            ("a.example:80-90", "\"80-90\" is no port: 1 to 65535"),
            ("icmp:a.example:7", "icmp has no ports"),
            ("dns:a.example:53", "dns has no ports"),
            ("dns:203.0.113.7", "\"dns\" takes a name, not an address"),
            ("in:a.example:80", "\"in\" takes the address of a client, not a name"),
            ("[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1 is an IPv4 address: write 10.0.0.1"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message, "{text}");
        }
    }
}
