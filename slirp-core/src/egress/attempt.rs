//! Attempts of guests and clients as people write them, to have them explained.
//!
//! Owns the notation: like the target of a rule, with exactly one destination and port.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::explain::Destination;
use super::name::Name;
use crate::protocol::Protocol;

/// An attempt of the guest, or of a client at a published port. See [`Destination`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Attempt {
    /// The guest looks a name up.
    Lookup(Name),
    /// The guest looks a name up, and opens a flow to its address.
    Name {
        /// The flow's protocol.
        protocol: Protocol,
        /// The name.
        name: Name,
        /// 0 for an echo.
        port: u16,
    },
    /// The guest opens a flow to an address.
    Address {
        /// The flow's protocol.
        protocol: Protocol,
        /// The address as the guest writes it; 127.0.0.1 for `host-loopback`. The port of an echo
        /// is 0.
        written: SocketAddr,
    },
    /// A client opens a flow to the guest.
    Client {
        /// The flow's protocol.
        protocol: Protocol,
        /// The client's address.
        client: IpAddr,
        /// The published port of the host.
        host_port: u16,
    },
}

/// Why a text is no attempt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says it")]
pub enum AttemptError {
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

impl Attempt {
    /// Reads `index.example:443`, `udp:203.0.113.7:53`, `icmp:[2001:db8::1]`, `dns:index.example`
    /// or `in:203.0.113.7:8080`. Names are ASCII.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, AttemptError> {
        Self::parse_with(text, &|name| name.is_ascii().then(|| name.to_owned()))
    }

    /// The same, with names that `to_ascii` converts to the form that the DNS has.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_with(
        text: &str,
        to_ascii: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, AttemptError> {
        if text.contains('/') {
            return Err(AttemptError::Slash);
        }
        let (is_client, rest) = text.strip_prefix("in:").map_or((false, text), |rest| (true, rest));
        if let Some(rest) = rest.strip_prefix("dns:").filter(|_| !is_client) {
            return match split(rest) {
                (_, Some(_)) => Err(AttemptError::Portless("dns")),
                (host, None) => match read(host, to_ascii)? {
                    Host::Name(name) => Ok(Self::Lookup(name)),
                    Host::Address(_) => Err(AttemptError::LookupAddress),
                },
            };
        }
        let words = [("tcp:", Protocol::Tcp), ("udp:", Protocol::Udp), ("icmp:", Protocol::Echo)];
        let prefixed = words
            .into_iter()
            .find_map(|(word, protocol)| Some((protocol, rest.strip_prefix(word)?)));
        let (protocol, rest) = prefixed.unwrap_or((Protocol::Tcp, rest));
        let (host, port) = split(rest);
        let read = read(host, to_ascii)?;
        let port = match (port, protocol) {
            (Some(_), Protocol::Echo) => return Err(AttemptError::Portless("icmp")),
            (None, Protocol::Echo) => 0,
            (Some(port), _) => match port.parse() {
                Ok(0) | Err(_) => return Err(AttemptError::NoPort(port.to_owned())),
                Ok(port) => port,
            },
            (None, _) => {
                return Err(match read {
                    Host::Name(name) => AttemptError::NameWithoutPort(name.to_string()),
                    Host::Address(IpAddr::V6(v6)) => {
                        AttemptError::AddressWithoutPort(format!("[{v6}]"))
                    }
                    Host::Address(_) => AttemptError::AddressWithoutPort(host.to_owned()),
                });
            }
        };
        match read {
            Host::Name(_) if is_client => Err(AttemptError::ClientName),
            Host::Name(name) => Ok(Self::Name { protocol, name, port }),
            Host::Address(client) if is_client => {
                Ok(Self::Client { protocol, client, host_port: port })
            }
            Host::Address(written) => {
                Ok(Self::Address { protocol, written: SocketAddr::new(written, port) })
            }
        }
    }

    /// The same for a judge. `reached` tells what the address plan makes of an address that the
    /// guest writes.
    pub fn destination(&self, reached: impl FnOnce(SocketAddr) -> SocketAddr) -> Destination<'_> {
        match *self {
            Self::Lookup(ref name) => Destination::Lookup(name),
            Self::Name { protocol, ref name, port } => Destination::Name { protocol, name, port },
            Self::Address { protocol, written } => {
                Destination::Address { protocol, reached: reached(written) }
            }
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

fn read(host: &str, to_ascii: &dyn Fn(&str) -> Option<String>) -> Result<Host, AttemptError> {
    if let Ok(address) = host.parse() {
        return match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Err(AttemptError::Mapped(v6, v4)),
                None => Ok(Host::Address(address)),
            },
            IpAddr::V4(_) => Ok(Host::Address(address)),
        };
    }
    if ["host-loopback", "gateway"].contains(&host) {
        return Ok(Host::Address(Ipv4Addr::LOCALHOST.into()));
    }
    let ascii = to_ascii(host);
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let name = ascii.as_deref().and_then(Name::new);
    match name.filter(|name| !name.as_str().rsplit('.').next().is_none_or(is_number)) {
        Some(name) => Ok(Host::Name(name)),
        None => Err(AttemptError::NoHost(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn targets_are_read() {
        let (tcp, udp, echo) = (Protocol::Tcp, Protocol::Udp, Protocol::Echo);
        let address = |protocol, text: &str| {
            let written = text.parse().unwrap();
            Ok(Attempt::Address { protocol, written })
        };
        let named = |protocol, text, port| Ok(Attempt::Name { protocol, name: name(text), port });
        let v6 = "[2001:db8::1]:443";
        for (text, target) in [
            ("index.example:443", named(tcp, "index.example", 443)),
            ("udp:Index.Example.:443", named(udp, "index.example", 443)),
            ("icmp:index.example", named(echo, "index.example", 0)),
            ("dns:index.example", Ok(Attempt::Lookup(name("index.example")))),
            ("203.0.113.7:22", address(tcp, "203.0.113.7:22")),
            ("udp:203.0.113.7:53", address(udp, "203.0.113.7:53")),
            ("icmp:203.0.113.7", address(echo, "203.0.113.7:0")),
            ("icmp:2001:db8::1", address(echo, "[2001:db8::1]:0")),
            (v6, address(tcp, v6)),
            ("10.0.2.2:8000", address(tcp, "10.0.2.2:8000")),
            ("[fd00::2]:8000", address(tcp, "[fd00::2]:8000")),
            ("host-loopback:8000", address(tcp, "127.0.0.1:8000")),
            (
                "in:udp:203.0.113.7:5353",
                Ok(Attempt::Client {
                    protocol: udp,
                    client: IpAddr::from([203, 0, 113, 7]),
                    host_port: 5353,
                }),
            ),
        ] {
            assert_eq!(Attempt::parse(text), target, "{text}");
        }
        for (text, message) in [
            ("", "\"\" is neither an address nor a name"),
            ("203.0.113", "\"203.0.113\" is neither an address nor a name"),
            ("a b:80", "\"a b\" is neither an address nor a name"),
            ("münchen.example:80", "\"münchen.example\" is neither an address nor a name"),
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
            let error = Attempt::parse(text).unwrap_err();
            assert_eq!(error.to_string(), message, "{text}");
        }
    }
}
