//! What `slirp policy explain` is asked about.
//!
//! Owns what names in other scripts and the addresses of a default network become.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use slirp_core::egress::{Attempt, AttemptError};
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};

/// Reads an attempt; a name may be in any script.
pub(super) fn parse(text: &str) -> Result<Attempt, AttemptError> {
    Attempt::parse_with(text, &ascii)
}

/// What the address plan makes of an address: the gateway's address is the host's loopback.
pub(super) fn reached(written: SocketAddr) -> SocketAddr {
    let ip = match written.ip() {
        IpAddr::V4(v4) if v4 == SlirpNetwork::default().gateway() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6 == Ipv6Plan::default().gateway() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, written.port())
}

/// A name as DNS has it: `xn--mnchen-3ya.example` of `münchen.example`.
pub(super) fn ascii(name: &str) -> Option<String> {
    if name.is_ascii() { Some(name.to_owned()) } else { idna::domain_to_ascii(name).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_read() {
        let ascii = Attempt::parse("xn--mnchen-3ya.example:80");
        assert_eq!(parse("münchen.example:80"), ascii);
    }

    #[test]
    fn gateway_is_the_loopback_of_the_host() {
        for (written, expected) in [
            ("10.0.2.2:8000", "127.0.0.1:8000"),
            ("[fd00::2]:8000", "[::1]:8000"),
            ("203.0.113.7:22", "203.0.113.7:22"),
        ] {
            let written = written.parse().expect("it is an address");
            assert_eq!(reached(written).to_string(), expected);
        }
    }
}
