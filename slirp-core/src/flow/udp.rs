//! One UDP flow: a guest address and port, and whoever it talks to.
//!
//! Owns the mapping's idle time (RFC 4787 section 4.3) and the addresses under which the guest
//! knows its remotes. There is one flow per guest endpoint, not per pair (endpoint-independent
//! mapping, RFC 4787 section 4.1), and any remote may answer (section 5, endpoint-independent
//! filtering), as peer-to-peer programs expect.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::GuestSide;
use crate::config::Timeouts;
use crate::plan::AddressPlan;
use crate::time::Instant;

/// Remotes of one flow whose address the guest writes differently from the host; the oldest is
/// forgotten (arbitrary: a program that uses more loopback services from one port is not known).
const ALIAS_CAP: usize = 8;
/// Datagrams of the guest in one exchange of a request and its answer: two questions, as a resolver
/// asks for IPv4 and IPv6, and each of them repeated (arbitrary).
const EXCHANGE_CAP: u8 = 4;

/// See the [module](self).
pub(crate) struct UdpFlow {
    guest: GuestSide,
    expires_at: Instant,
    is_dns_only: bool,
    /// Datagrams of the guest, counted up to one more than [`EXCHANGE_CAP`].
    sent: u8,
    is_answered: bool,
    /// Whom the guest has addressed last.
    latest: SocketAddr,
    /// `(as the host sees it, as the guest wrote it)` where the two differ.
    aliases: Vec<(SocketAddr, SocketAddr)>,
}

impl UdpFlow {
    pub(crate) const fn new(guest: GuestSide, now: Instant) -> Self {
        let latest = SocketAddr::new(guest.address.ip(), 0);
        Self {
            guest,
            expires_at: now,
            is_dns_only: true,
            sent: 0,
            is_answered: false,
            latest,
            aliases: Vec::new(),
        }
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The remote that the guest has addressed last, as it wrote it.
    pub(crate) const fn latest(&self) -> SocketAddr {
        self.latest
    }

    /// Whether this is a conversation that either side may want to go on with, not a request that
    /// has or has not been answered.
    pub(crate) const fn is_lasting(&self) -> bool {
        self.is_answered && self.sent > EXCHANGE_CAP
    }

    /// How long the mapping lives without traffic.
    pub(crate) const fn idle_timeout(&self, timeouts: &Timeouts) -> Duration {
        if self.is_dns_only { timeouts.udp_dns } else { timeouts.udp }
    }

    /// Notes a datagram of the guest to `written`, which the host reaches as `reached`.
    pub(crate) fn on_guest_datagram(
        &mut self,
        guest: GuestSide,
        written: SocketAddr,
        reached: SocketAddr,
        timeouts: &Timeouts,
        now: Instant,
    ) {
        self.guest = guest;
        self.latest = written;
        self.sent = self.sent.saturating_add(1).min(EXCHANGE_CAP + 1);
        self.is_dns_only &= written.port() == 53;
        self.extend(timeouts, now);
        let known = self.aliases.iter().position(|&(host, _)| host == reached);
        if let Some(known) = known {
            if self.aliases[known].1 == written {
                return;
            }
            self.aliases.remove(known);
        } else if written == reached && !reached.ip().is_loopback() {
            return;
        }
        if self.aliases.len() == ALIAS_CAP {
            self.aliases.remove(0);
        }
        self.aliases.push((reached, written));
    }

    /// Notes a datagram of `remote`; returns the address that the guest knows it by.
    ///
    /// Loopback addresses mean nothing to a guest: what it never wrote itself comes from the gateway.
    pub(crate) fn on_host_datagram(
        &mut self,
        remote: SocketAddr,
        plan: &AddressPlan,
        timeouts: &Timeouts,
        now: Instant,
    ) -> SocketAddr {
        self.is_answered = true;
        self.extend(timeouts, now);
        self.known_as(remote, plan)
    }

    /// The address that the guest knows `remote` by.
    pub(crate) fn known_as(&self, remote: SocketAddr, plan: &AddressPlan) -> SocketAddr {
        if let Some(written) = self.alias_of(remote) {
            return written;
        }
        match (remote.ip(), plan.ipv6()) {
            (IpAddr::V4(v4), _) if v4.is_loopback() => {
                SocketAddr::new(IpAddr::V4(plan.gateway()), remote.port())
            }
            (IpAddr::V6(v6), Some(plan)) if v6.is_loopback() => {
                SocketAddr::new(IpAddr::V6(plan.gateway()), remote.port())
            }
            _ => remote,
        }
    }

    /// The address that the guest has written for `remote`, where that is remembered.
    pub(crate) fn alias_of(&self, remote: SocketAddr) -> Option<SocketAddr> {
        self.aliases.iter().find(|&&(host, _)| host == remote).map(|&(_, written)| written)
    }

    fn extend(&mut self, timeouts: &Timeouts, now: Instant) {
        self.expires_at = now + self.idle_timeout(timeouts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MacAddr;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn flow() -> (UdpFlow, GuestSide) {
        let guest = GuestSide { address: address("10.0.2.100:5000"), mac: MacAddr::default() };
        (UdpFlow::new(guest, Instant::ZERO), guest)
    }

    #[test]
    fn reply_source_is_what_the_guest_wrote_even_when_two_names_share_a_port() {
        let (mut flow, guest) = flow();
        let (plan, times) = (AddressPlan::default(), Timeouts::default());
        let mut send = |written: &str, reached: &str| {
            let (written, reached) = (address(written), address(reached));
            flow.on_guest_datagram(guest, written, reached, &times, Instant::ZERO);
        };
        send("10.0.2.2:7", "127.0.0.1:7");
        send("192.0.2.1:7", "192.0.2.1:7");
        send("127.0.0.9:9", "127.0.0.9:9");
        for (host, expected) in [
            ("127.0.0.1:7", "10.0.2.2:7"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("127.0.0.9:9", "127.0.0.9:9"),
            ("127.0.0.1:8", "10.0.2.2:8"),
            ("198.51.100.1:8", "198.51.100.1:8"),
        ] {
            assert_eq!(flow.known_as(address(host), &plan), address(expected), "{host}");
        }
    }

    #[test]
    fn a_mapping_used_only_for_dns_expires_early() {
        let (mut flow, guest) = flow();
        let times = Timeouts::default();
        let dns = address("192.0.2.1:53");
        flow.on_guest_datagram(guest, dns, dns, &times, Instant::ZERO);
        assert_eq!(flow.expires_at(), Instant::ZERO + times.udp_dns);
        let other = address("192.0.2.1:443");
        flow.on_guest_datagram(guest, other, other, &times, Instant::ZERO);
        assert_eq!(flow.expires_at(), Instant::ZERO + times.udp);
    }

    #[test]
    fn aliases_are_bounded_and_the_oldest_goes() {
        let (mut flow, guest) = flow();
        let (plan, times) = (AddressPlan::default(), Timeouts::default());
        for port in 1..=20 {
            let written = SocketAddr::from(([127, 0, 0, 1], port));
            flow.on_guest_datagram(guest, written, written, &times, Instant::ZERO);
        }
        assert_eq!(flow.aliases.len(), ALIAS_CAP);
        assert_eq!(flow.known_as(address("127.0.0.1:20"), &plan), address("127.0.0.1:20"));
        assert_eq!(flow.known_as(address("127.0.0.1:1"), &plan), address("10.0.2.2:1"));
    }
}
