//! One ICMP echo flow: a guest address and ICMP identifier.
//!
//! Owns the mapping's idle time (RFC 5508 section 3.2) and the address under which the guest knows
//! a loopback remote. Echo to virtual addresses never gets here; it is answered on the spot.

use core::net::IpAddr;

use super::GuestSide;
use crate::config::Timeouts;
use crate::time::Instant;

/// See the [module](self).
pub(crate) struct EchoFlow {
    guest: GuestSide,
    expires_at: Instant,
    /// Whom the guest has addressed last.
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
