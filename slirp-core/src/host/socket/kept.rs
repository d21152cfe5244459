//! Ports of the host that have the guest's own number.
//!
//! Owns where such a port may be bound, and from which remotes it takes datagrams. A guest chooses
//! the number, so the port is no door to it: the port is bound to the one address that the host's
//! routes choose towards the remote, never to loopback, and only remotes that the guest has written
//! to from there may answer (address and port-dependent filtering, RFC 4787 section 5). Services on
//! the host's loopback keep their ports, and nobody takes the guest for one of them.

use std::net::{IpAddr, SocketAddr};

use super::outbound;

/// Lowest port of the guest that is kept. A guest that sends from a lower one, as for DNS or NTP,
/// would take the host's own services their ports.
const FIRST_KEPT_PORT: u16 = 1024;

/// Remotes of one port that may answer (arbitrary: 8 KiB). One more replaces the one that was
/// written to first.
const REMOTES_CAP: usize = 256;

/// Where `port` of the guest is bound to send to `remote`; `None` if it is not kept. `source` is
/// the address that everything leaves from, and `interface` the way there, if one was chosen.
pub(super) fn place(
    port: u16,
    source: Option<SocketAddr>,
    interface: Option<&str>,
    remote: SocketAddr,
) -> Option<SocketAddr> {
    if port < FIRST_KEPT_PORT || is_group(remote.ip()) {
        return None;
    }
    let mut place = source.or_else(|| outbound::towards(remote, interface).ok())?;
    let is_this_host = place.ip().is_loopback() || place.ip() == remote.ip();
    place.set_port(port);
    (!is_this_host).then_some(place)
}

/// Whether answers come from other addresses than `remote`.
const fn is_group(remote: IpAddr) -> bool {
    match remote {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// The remotes that the guest has written to, the latest last.
#[derive(Debug, Default)]
pub(super) struct Remotes(Vec<SocketAddr>);

impl Remotes {
    /// Notes that the guest writes to `remote`.
    pub(super) fn note(&mut self, remote: SocketAddr) {
        if self.0.last() == Some(&remote) || self.contains(remote) {
            return;
        }
        if self.0.len() >= REMOTES_CAP {
            self.0.remove(0);
        }
        self.0.push(remote);
    }

    /// Whether the guest has written to `remote`.
    pub(super) fn contains(&self, remote: SocketAddr) -> bool {
        self.0.iter().rev().any(|known| is_same(*known, remote))
    }
}

/// The kernel fills in flow labels and scopes that nobody has written.
fn is_same(known: SocketAddr, remote: SocketAddr) -> bool {
    known.port() == remote.port() && known.ip() == remote.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_remotes_may_answer_at_their_own_ports() {
        let remote = |port| SocketAddr::from(([192, 0, 2, 9], port));
        let mut remotes = Remotes::default();
        assert!(!remotes.contains(remote(1)));
        for port in [1, 2, 1, 2] {
            remotes.note(remote(port));
        }
        assert_eq!(remotes.0, [remote(1), remote(2)]);
        assert!(remotes.contains(remote(1)) && !remotes.contains(remote(3)));
        assert!(!remotes.contains(([192, 0, 2, 10], 1).into()));
        (0..REMOTES_CAP).zip(3..).for_each(|(_, port)| remotes.note(remote(port)));
        assert_eq!((remotes.0.len(), remotes.contains(remote(2))), (REMOTES_CAP, false));
        assert!(remotes.contains(remote(3)));
    }
}
