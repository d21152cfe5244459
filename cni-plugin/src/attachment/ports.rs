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

/// A rule for a person: `0.0.0.0:8080->80/tcp`.
pub(crate) fn shown(forward: &Forward) -> String {
    format!("{}->{}/{}", forward.host, forward.guest.port(), protocol(forward))
}

pub(crate) fn to_json(forward: &Forward) -> Value {
    json!({
        "protocol": protocol(forward),
        "host": forward.host.to_string(),
        "guest": forward.guest.to_string(),
    })
}

pub(crate) fn from_json(value: &Value) -> Option<Forward> {
    let protocol = match value["protocol"].as_str()? {
        "tcp" => ForwardProtocol::Tcp,
        "udp" => ForwardProtocol::Udp,
        _ => return None,
    };
    let address = |name: &str| value[name].as_str()?.parse().ok();
    Some(Forward { protocol, host: address("host")?, guest: address("guest")? })
}
