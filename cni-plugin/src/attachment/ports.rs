//! Forwarded ports as text.

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
