//! Forwarded ports as JSON and as words.

use serde_json::{Value, json};
use slirp_core::instance::{Forward, ForwardProtocol};

/// The protocol's name.
pub(crate) fn protocol(forward: &Forward) -> &'static str {
    match forward.protocol {
        ForwardProtocol::Tcp => "tcp",
        ForwardProtocol::Udp => "udp",
    }
}

/// A rule for a person: `0.0.0.0:8080->80/tcp`, `0.0.0.0:8000-8009->80-89/tcp`.
pub(crate) fn shown(forward: &Forward) -> String {
    let (first, last) = (forward.host.port(), forward.last_host_port());
    let guest = forward.guest.port();
    let (end, guest_end) = match forward.ports {
        1 => (String::new(), String::new()),
        _ => (format!("-{last}"), format!("-{}", guest.saturating_add(last - first))),
    };
    format!("{}{end}->{guest}{guest_end}/{}", forward.host, protocol(forward))
}

pub(crate) fn to_json(forward: &Forward) -> Value {
    json!({
        "protocol": protocol(forward),
        "host": forward.host.to_string(),
        "guest": forward.guest.to_string(),
        "ports": forward.ports,
        "alsoIpv6": forward.also_ipv6,
    })
}

pub(crate) fn from_json(value: &Value) -> Option<Forward> {
    let protocol = match value["protocol"].as_str()? {
        "tcp" => ForwardProtocol::Tcp,
        "udp" => ForwardProtocol::Udp,
        _ => return None,
    };
    let address = |name: &str| value[name].as_str()?.parse().ok();
    let ports = match value.get("ports") {
        Some(ports) => u16::try_from(ports.as_u64()?).ok()?,
        // A record of an earlier version.
        None => 1,
    };
    // Records of earlier versions say nothing of it.
    let also_ipv6 = value["alsoIpv6"].as_bool().unwrap_or_default();
    let forward = Forward::new(protocol, address("host")?, address("guest")?);
    Some(Forward { ports, also_ipv6, ..forward })
}
