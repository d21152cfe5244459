//! One ICMP echo flow: a guest address and ICMP identifier.
//!
//! Owns the mapping's idle time (RFC 5508 section 3.2) and the remote that the guest addressed
//! last. Echo requests to virtual addresses open no flow: `service::echo` answers them on the spot.

use core::net::IpAddr;

use super::GuestSide;
use crate::config::Timeouts;
use crate::time::Instant;

/// See the [module](self).
pub(crate) struct EchoFlow {
    guest: GuestSide,
    expires_at: Instant,
    /// The remote that the guest has addressed last.
    latest: IpAddr,
}

impl EchoFlow {
    pub(crate) const fn new(guest: GuestSide, now: Instant) -> Self {
        Self { guest, expires_at: now, latest: guest.address.ip() }
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The remote that the guest has addressed last.
    pub(crate) const fn latest(&self) -> IpAddr {
        self.latest
    }

    /// Notes a request of the guest to `remote`.
    pub(crate) fn on_request(
        &mut self,
        guest: GuestSide,
        remote: IpAddr,
        timeouts: &Timeouts,
        now: Instant,
    ) {
        self.guest = guest;
        self.latest = remote;
        self.expires_at = now + timeouts.echo;
    }

    /// Whether a reply of `remote` can belong to this flow.
    pub(crate) const fn is_same_family(&self, remote: IpAddr) -> bool {
        self.guest.address.is_ipv4() == remote.is_ipv4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddr;
    use core::net::SocketAddr;
    use core::time::Duration;

    fn guest(mac: u8) -> GuestSide {
        let address = SocketAddr::from(([10, 0, 2, 100], 77));
        GuestSide { address, mac: MacAddr([2, 0, 0, 0, 0, mac]) }
    }

    #[test]
    fn mapping_lives_for_a_minute_after_the_last_request() {
        let timeouts = Timeouts::default();
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let mut flow = EchoFlow::new(guest(1), at(1));
        assert_eq!(flow.latest(), flow.guest().address.ip(), "nobody was addressed yet");
        for (secs, last) in [(1, 1), (31, 2)] {
            let remote = IpAddr::from([192, 0, 2, last]);
            flow.on_request(guest(last), remote, &timeouts, at(secs));
            assert_eq!(flow.expires_at(), at(secs + 60));
            // Replies go where the last request came from.
            assert_eq!((flow.latest(), flow.guest()), (remote, guest(last)));
        }
    }

    #[test]
    fn reply_of_the_other_family_belongs_to_another_flow() {
        let flow = EchoFlow::new(guest(1), Instant::ZERO);
        assert!(flow.is_same_family([192, 0, 2, 1].into()));
        assert!(!flow.is_same_family("2001:db8::1".parse().unwrap()));
        // The same address, but it arrived on a socket of the other family.
        assert!(!flow.is_same_family("::ffff:192.0.2.1".parse().unwrap()));
    }
}
