//! Addresses of the host and of resolvers, as options name them: literally, or by an interface.
//!
//! Parses the values of `--outbound-addr`, `--outbound-addr6` and `--dns`.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

use slirp_core::instance::OutboundAddresses;

use super::values::{ValueError, is_digits};

/// The port of a resolver when the value names none.
const DNS_PORT: u16 = 53;

/// An IPv4 address, or the first one of the interface with this name.
pub(crate) fn outbound_ipv4(text: &OsStr) -> Result<Option<Ipv4Addr>, ValueError> {
    let text = text.to_str().ok_or(ValueError::OutboundAddr)?;
    let address = text.parse().ok().or_else(|| of_interface(text).ipv4);
    address.map(Some).ok_or(ValueError::OutboundAddr)
}

/// An IPv6 address, or the first one of the interface with this name, with its scope.
pub(crate) fn outbound_ipv6(text: &OsStr) -> Result<OutboundAddresses, ValueError> {
    let text = text.to_str().ok_or(ValueError::OutboundAddr6)?;
    let found = match text.parse() {
        Ok(address) => OutboundAddresses { ipv6: Some(address), ..OutboundAddresses::default() },
        Err(_) => of_interface(text),
    };
    if found.ipv6.is_some() { Ok(found) } else { Err(ValueError::OutboundAddr6) }
}

/// The addresses of an interface; none if interfaces cannot be listed.
fn of_interface(name: &str) -> OutboundAddresses {
    OutboundAddresses::of_interface(name).unwrap_or_default()
}

/// The address of a resolver: `ADDR`, `ADDR:PORT`, `[ADDR]` or `[ADDR]:PORT`, with port 53 by
/// default. An IPv6 address may end in `%` and the name or number of its interface; a link-local
/// address must.
pub(crate) fn resolver(text: &OsStr) -> Result<SocketAddr, ValueError> {
    let shown = || text.display().to_string();
    let invalid = || ValueError::Dns(shown());
    let (host, port) = text.to_str().and_then(split_port).ok_or_else(invalid)?;
    let (host, scope) = match host.split_once('%') {
        Some((host, interface)) => (host, interface_index(interface).ok_or_else(invalid)?),
        None => (host, 0),
    };
    let address: IpAddr = host.parse().map_err(|_| invalid())?;
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if is_link_local && scope == 0 {
        return Err(ValueError::DnsScope(shown()));
    }
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let is_scope_odd = scope != 0 && !is_link_local;
    if port == 0
        || address.is_unspecified()
        || address.is_multicast()
        || is_broadcast
        || is_mapped
        || is_scope_odd
    {
        return Err(invalid());
    }
    Ok(match address {
        IpAddr::V4(_) => SocketAddr::new(address, port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    })
}

/// Cuts off the port, 53 by default.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let port = |digits: &str| is_digits(digits, 5).then(|| digits.parse().ok())?;
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        // Brackets are for IPv6 alone.
        host.contains(':').then_some(())?;
        return match rest.strip_prefix(':') {
            Some(digits) => Some((host, port(digits)?)),
            None => rest.is_empty().then_some((host, DNS_PORT)),
        };
    }
    match text.split_once(':') {
        Some((host, digits)) if !digits.contains(':') => Some((host, port(digits)?)),
        Some(_) | None => Some((text, DNS_PORT)),
    }
}

fn interface_index(text: &str) -> Option<u32> {
    let index = match text.parse() {
        Ok(index) => index,
        Err(_) => nix::net::if_::if_nametoindex(text).ok()?,
    };
    Some(index).filter(|&index| index != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn resolvers_have_a_port_or_the_usual_one() {
        for (text, expected) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("127.0.0.53", "127.0.0.53:53"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[2001:db8::53]:65535", "[2001:db8::53]:65535"),
            ("fe80::1%7", "[fe80::1%7]:53"),
            ("[fe80::1%7]:54", "[fe80::1%7]:54"),
        ] {
            assert_eq!(resolver(OsStr::new(text)), Ok(expected.parse().unwrap()), "{text}");
        }
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let expected = format!("[fe80::1%{lo}]:53").parse().unwrap();
        assert_eq!(resolver(OsStr::new("fe80::1%lo")), Ok(expected));
    }

    #[test]
    fn anything_but_a_single_resolver_is_refused() {
        for text in [
            "",
            "dns.example.org",
            "192.0.2.53:",
            "192.0.2.53:0",
            "192.0.2.53:65536",
            "192.0.2.53:+53",
            "192.0.2.53:53:53",
            "192.0.2.053",
            ":53",
            "[192.0.2.53]",
            "[192.0.2.53]:53",
            "[::1",
            "[::1]53",
            "[::1]:",
            "::1]:53",
            "0.0.0.0",
            "::",
            "224.0.0.251",
            "255.255.255.255",
            "ff02::fb%7",
            "::ffff:192.0.2.53",
            "fe80::1%",
            "fe80::1%0",
            "fe80::1%no-such-if",
            "2001:db8::1%7",
            "192.0.2.53%7",
        ] {
            let error = ValueError::Dns(text.to_owned());
            assert_eq!(resolver(OsStr::new(text)), Err(error), "{text}");
        }
        assert_eq!(
            resolver(OsStr::new("fe80::1")).unwrap_err().to_string(),
            "invalid --dns: fe80::1 is link-local (expected ADDR%INTERFACE)"
        );
        assert!(resolver(OsStr::from_bytes(b"\xff")).is_err());
    }
}
