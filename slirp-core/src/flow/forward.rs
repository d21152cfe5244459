//! One UDP conversation that a remote has begun by way of a forward rule.
//!
//! Owns whom the guest's answers go back to and how long the conversation may be idle (RFC 4787
//! section 4.3). The key in the flow table is the guest's address and the remote as the guest sees
//! it, so that an answer finds its rule before policy and the guest's own mappings are asked.

use core::net::SocketAddr;

use super::GuestSide;
use crate::config::Timeouts;
use crate::event::ForwardId;
use crate::time::Instant;
use crate::wire::MacAddr;

/// Where a forwarded datagram came from, as the host saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The rule on whose socket it arrived.
    pub rule: ForwardId,
    /// The sender.
    pub client: SocketAddr,
    /// The host's address and port that it was sent to; answers leave from there.
    pub local: SocketAddr,
}

/// See the [module](self).
pub(crate) struct ForwardedUdp {
    guest: GuestSide,
    origin: Origin,
    expires_at: Instant,
}

impl ForwardedUdp {
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
