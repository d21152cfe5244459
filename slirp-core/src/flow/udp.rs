//! One UDP flow: a guest address and port, and the remotes that it talks to.
//!
//! Owns the mapping's idle time (RFC 4787 section 4.3) and the memory of the destinations whose
//! address was translated ([`Translations`]). There is one flow per guest endpoint, not per pair
//! (endpoint-independent mapping, RFC 4787 section 4.1), and any remote may answer (section 5,
//! endpoint-independent filtering), as peer-to-peer programs expect. Under an egress policy the
//! remotes that the guest may send to may answer: `stack::egress` asks before a flow hears of a
//! datagram.

use core::net::SocketAddr;
use core::time::Duration;

use super::GuestSide;
use crate::config::Timeouts;
use crate::nat::{DNS_PORT, Translations};
use crate::plan::AddressPlan;
use crate::time::Instant;

/// Most datagrams that the guest sends in one exchange of a request and its answer: two questions,
/// as a resolver asks for IPv4 and IPv6, each repeated once (arbitrary).
const EXCHANGE_CAP: u8 = 4;

/// See the [module](self).
pub(crate) struct UdpFlow {
    guest: GuestSide,
    expires_at: Instant,
    is_dns_only: bool,
    /// Datagrams of the guest, counted up to one more than [`EXCHANGE_CAP`].
    sent: u8,
    is_answered: bool,
    /// The remote that the guest addressed last.
    latest: SocketAddr,
    translations: Translations,
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
            translations: Translations::new(),
        }
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The remote that the guest addressed last: the original destination.
    pub(crate) const fn latest(&self) -> SocketAddr {
        self.latest
    }

    /// Whether this is an ongoing conversation rather than one request with its answer. An ongoing
    /// one is spared from eviction while it is active.
    pub(crate) const fn is_lasting(&self) -> bool {
        self.is_answered && self.sent > EXCHANGE_CAP
    }

    /// How long the mapping lives without traffic.
    pub(crate) const fn idle_timeout(&self, timeouts: &Timeouts) -> Duration {
        if self.is_dns_only { timeouts.udp_dns } else { timeouts.udp }
    }

    /// Notes a datagram of the guest to `original_dst`, which is `translated_dst` on the host's
    /// side.
    pub(crate) fn on_guest_datagram(
        &mut self,
        guest: GuestSide,
        original_dst: SocketAddr,
        translated_dst: SocketAddr,
        plan: &AddressPlan,
        timeouts: &Timeouts,
        now: Instant,
    ) {
        self.guest = guest;
        self.latest = original_dst;
        self.sent = self.sent.saturating_add(1).min(EXCHANGE_CAP + 1);
        self.is_dns_only &= original_dst.port() == DNS_PORT;
        self.extend(timeouts, now);
        self.translations.note(plan, original_dst, translated_dst);
    }

    /// Notes a datagram of `remote`; returns [how the guest sees it](Self::as_seen_by_guest).
    pub(crate) fn on_host_datagram(
        &mut self,
        remote: SocketAddr,
        plan: &AddressPlan,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.is_answered = true;
        self.extend(timeouts, now);
        self.as_seen_by_guest(remote, plan)
    }

    /// The source address that the guest sees on datagrams of `remote`: the original destination,
    /// if it is remembered. `None` for the other IP version.
    pub(crate) fn as_seen_by_guest(
        &self,
        remote: SocketAddr,
        plan: &AddressPlan,
    ) -> Option<SocketAddr> {
        self.translations.as_seen_by_guest(plan, self.guest.address.ip(), remote)
    }

    /// The address that the guest used for `remote`, if it is remembered.
    pub(crate) fn original_dst(&self, remote: SocketAddr) -> Option<SocketAddr> {
        self.translations.original(remote)
    }

    /// Where datagrams to `original_dst` went, if it is remembered.
    pub(crate) fn translated_dst(&self, original_dst: SocketAddr) -> Option<SocketAddr> {
        self.translations.translated(original_dst)
    }

    fn extend(&mut self, timeouts: &Timeouts, now: Instant) {
        self.expires_at = now + self.idle_timeout(timeouts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddr;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn flow() -> (UdpFlow, GuestSide) {
        let guest = GuestSide { address: address("10.0.2.100:5000"), mac: MacAddr::default() };
        (UdpFlow::new(guest, Instant::ZERO), guest)
    }

    #[test]
    fn a_mapping_used_only_for_dns_expires_early() {
        let (mut flow, guest) = flow();
        let (plan, times) = (AddressPlan::default(), Timeouts::default());
        let dns = address("192.0.2.1:53");
        flow.on_guest_datagram(guest, dns, dns, &plan, &times, Instant::ZERO);
        assert_eq!(flow.expires_at(), Instant::ZERO + times.udp_dns);
        let other = address("192.0.2.1:443");
        flow.on_guest_datagram(guest, other, other, &plan, &times, Instant::ZERO);
        assert_eq!(flow.expires_at(), Instant::ZERO + times.udp);
    }
}
