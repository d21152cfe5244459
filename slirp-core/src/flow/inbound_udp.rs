//! One UDP conversation that a remote has begun by way of a forward rule.
//!
//! Owns the way back for the guest's answers and how long the conversation may be idle (RFC 4787
//! section 4.3). The key in the flow table is the guest's address and the remote as the guest sees
//! it, so that an answer finds its rule before policy and the guest's own mappings are asked.

use super::GuestSide;
use crate::config::Timeouts;
use crate::event::Origin;
use crate::mac::MacAddr;
use crate::time::Instant;

/// See the [module](self).
pub(crate) struct InboundUdp {
    guest: GuestSide,
    origin: Origin,
    expires_at: Instant,
}

impl InboundUdp {
    pub(crate) fn new(guest: GuestSide, origin: Origin, timeouts: &Timeouts, now: Instant) -> Self {
        Self { guest, origin, expires_at: now + timeouts.udp }
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn origin(&self) -> Origin {
        self.origin
    }

    pub(crate) const fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// The guest is at `mac`.
    pub(crate) const fn locate(&mut self, mac: MacAddr) {
        self.guest.mac = mac;
    }

    /// A datagram went one way or the other.
    pub(crate) fn on_datagram(&mut self, timeouts: &Timeouts, now: Instant) {
        self.expires_at = now + timeouts.udp;
    }
}
