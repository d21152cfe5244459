//! Ports of the host that lead into the container: the key and the capability `portMappings`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use slirp_core::instance::{Forward, ForwardProtocol};

use crate::protocol::error::CniError;
use crate::protocol::field;

/// The rules of a list of mappings, one for each port, for a guest with these addresses. A mapping
/// without a host address is open at all of the host's addresses: one rule per IP version of the
/// guest, or one rule for both if the guest has IPv4 only.
///
/// # Errors
/// For an invalid list of mappings, an invalid port, or a protocol that cannot be forwarded.
pub(super) fn parse(
    value: &Value,
    guest: Ipv4Addr,
    guest6: Option<Ipv6Addr>,
) -> Result<Vec<Forward>, CniError> {
    let list = value
        .as_array()
        .ok_or_else(|| CniError::config(format!("portMappings: {value} is not a list")))?;
    let mut forwards = Vec::new();
    for mapping in list {
        forwards.extend(one(mapping, guest, guest6)?);
    }
    Ok(forwards)
}

/// Merges rules. A mapping that is in both configuration and capability counts once, and adjacent
/// ports become one rule.
pub(super) fn joined(forwards: Vec<Forward>) -> Vec<Forward> {
    let mut seen = HashSet::new();
    let mut joined: Vec<Forward> = Vec::new();
    // The IP versions of a mapping alternate, so the last rule of each version is kept.
    let mut last: HashMap<(ForwardProtocol, IpAddr, bool, IpAddr), usize> = HashMap::new();
    for forward in forwards.into_iter().filter(|forward| seen.insert(*forward)) {
        let kind = (forward.protocol, forward.host.ip(), forward.also_ipv6, forward.guest.ip());
        let before = last.get(&kind).and_then(|&index| joined.get_mut(index));
        if let Some(before) = before
            && before.host.port().checked_add(before.ports) == Some(forward.host.port())
            && before.guest.port().checked_add(before.ports) == Some(forward.guest.port())
        {
            before.ports += forward.ports;
        } else {
            last.insert(kind, joined.len());
            joined.push(forward);
        }
    }
    joined
}

fn one(
    mapping: &Value,
    guest: Ipv4Addr,
    guest6: Option<Ipv6Addr>,
) -> Result<Vec<Forward>, CniError> {
    if !mapping.is_object() {
        return Err(CniError::config(format!("portMappings: {mapping} is not a mapping")));
    }
    let port = |name: &str, side: &str| {
        let value = field::of(mapping, name).cloned().unwrap_or_else(|| Value::from(0));
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        port.filter(|&port| port != 0)
            .ok_or_else(|| CniError::config(format!("Invalid {side} port number: {value}")))
    };
    let (host_port, guest_port) = (port("hostPort", "host")?, port("containerPort", "container")?);
    let protocol = field::of(mapping, "protocol").and_then(Value::as_str).unwrap_or_default();
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => ForwardProtocol::Tcp,
        "udp" => ForwardProtocol::Udp,
        _ => {
            let message =
                format!("portMappings: protocol {protocol:?} of port {host_port} is not supported");
            return Err(CniError::unsupported(message));
        }
    };
    let rule = |host: IpAddr, guest: IpAddr| {
        Forward::new(protocol, SocketAddr::new(host, host_port), SocketAddr::new(guest, guest_port))
    };
    let host = field::of(mapping, "hostIP").and_then(Value::as_str).unwrap_or_default();
    if host.is_empty() {
        return Ok(match guest6 {
            Some(guest6) => vec![
                rule(Ipv4Addr::UNSPECIFIED.into(), guest.into()),
                rule(Ipv6Addr::UNSPECIFIED.into(), guest6.into()),
            ],
            None => vec![Forward::everywhere(protocol, host_port, (guest, guest_port).into())],
        });
    }
    let invalid = |_| {
        let message =
            format!("portMappings: hostIP {host:?} of port {host_port}: not an IP address");
        CniError::config(message)
    };
    let host: IpAddr = host.parse().map_err(invalid)?;
    let guest6 = guest6.filter(|_| host.is_ipv6());
    Ok(vec![rule(host, guest6.map_or(guest.into(), IpAddr::V6))])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attachment::ports::shown;

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);

    fn rules(value: &Value, guest6: Option<&str>) -> Result<Vec<String>, (u16, String)> {
        let guest6 = guest6.map(|text| text.parse().unwrap());
        match parse(value, GUEST, guest6) {
            Ok(forwards) => Ok(joined(forwards).iter().map(shown).collect()),
            Err(error) => Err((error.code, error.message)),
        }
    }

    #[test]
    fn mappings_are_read_in_any_case() {
        for value in [
            json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]),
            json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "TCP", "HostIP": "" }]),
            json!([
                { "hostPort": 8080, "containerPort": 80 },
                { "hostPort": 8080, "containerPort": 80 },
            ]),
        ] {
            assert_eq!(rules(&value, None), Ok(vec!["0.0.0.0:8080->80/tcp".to_owned()]));
        }
    }

    #[test]
    fn mapping_without_address_is_one_rule_per_version() {
        let value = json!([{ "hostPort": 53, "containerPort": 5353, "protocol": "udp" }]);
        assert_eq!(
            rules(&value, Some("fd00::100")),
            Ok(vec!["0.0.0.0:53->5353/udp".to_owned(), "[::]:53->5353/udp".to_owned()])
        );
        let value = json!([{ "hostPort": 1, "containerPort": 2, "hostIP": "127.0.0.1" }]);
        assert_eq!(rules(&value, Some("fd00::100")), Ok(vec!["127.0.0.1:1->2/tcp".to_owned()]));
        let value = json!([{ "hostPort": 1, "containerPort": 2, "hostIP": "::1" }]);
        assert_eq!(rules(&value, Some("fd00::100")), Ok(vec!["[::1]:1->2/tcp".to_owned()]));
        assert_eq!(rules(&value, None), Ok(vec!["[::1]:1->2/tcp".to_owned()]));
    }

    #[test]
    fn guest_without_ipv6_is_open_at_ipv6_addresses_of_the_host() {
        let parsed = |value, guest6: Option<&str>| {
            parse(&value, GUEST, guest6.map(|text| text.parse().unwrap())).unwrap()
        };
        let everywhere = json!([{ "hostPort": 1, "containerPort": 2 }]);
        let guest = (GUEST, 2).into();
        let rule = Forward::everywhere(ForwardProtocol::Tcp, 1, guest);
        assert_eq!(parsed(everywhere.clone(), None), [rule]);
        assert!(parsed(everywhere, Some("fd00::100")).iter().all(|rule| !rule.also_ipv6));
        let ipv4 = json!([{ "hostPort": 1, "containerPort": 2, "hostIP": "0.0.0.0" }]);
        assert_eq!(parsed(ipv4, None), [Forward { also_ipv6: false, ..rule }]);
        let ipv6 = json!([{ "hostPort": 1, "containerPort": 2, "hostIP": "::" }]);
        let host = "[::]:1".parse().unwrap();
        assert_eq!(parsed(ipv6, None), [Forward::new(ForwardProtocol::Tcp, host, guest)]);
    }

    #[test]
    fn ports_in_a_row_are_one_rule_per_version() {
        let mapping = |port: u16| json!({ "hostPort": port, "containerPort": port + 10 });
        let list = |ports: &[u16]| Value::Array(ports.iter().map(|&port| mapping(port)).collect());
        assert_eq!(
            rules(&list(&[1, 2, 3, 2, 5]), Some("fd00::100")),
            Ok([
                "0.0.0.0:1-3->11-13/tcp",
                "[::]:1-3->11-13/tcp",
                "0.0.0.0:5->15/tcp",
                "[::]:5->15/tcp"
            ]
            .map(str::to_owned)
            .to_vec())
        );
    }

    #[test]
    fn mapping_that_cannot_be_forwarded_is_named() {
        for (mapping, code, message) in [
            (json!({ "containerPort": 80 }), 7, "Invalid host port number: 0"),
            (
                json!({ "hostPort": 65536, "containerPort": 80 }),
                7,
                "Invalid host port number: 65536",
            ),
            (json!({ "hostPort": -1, "containerPort": 80 }), 7, "Invalid host port number: -1"),
            (
                json!({ "hostPort": 80, "containerPort": "x" }),
                7,
                "Invalid container port number: \"x\"",
            ),
            (
                json!({ "hostPort": 80, "containerPort": 80, "protocol": "sctp" }),
                2,
                "portMappings: protocol \"sctp\" of port 80 is not supported",
            ),
            (
                json!({ "hostPort": 80, "containerPort": 80, "hostIP": "here" }),
                7,
                "portMappings: hostIP \"here\" of port 80: not an IP address",
            ),
            (json!(7), 7, "portMappings: 7 is not a mapping"),
        ] {
            assert_eq!(rules(&json!([mapping]), None), Err((code, message.to_owned())));
        }
        assert!(rules(&json!({}), None).is_err());
    }
}
