//! The smoltcp device: one packet in, at most one packet out, no queue.
//!
//! Owns nothing. For one call into the engine it borrows the packet that is being handled and the
//! buffer for an answer.

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// The device of one call.
pub(super) struct Slot<'a> {
    /// The packet to be handled, from its IP header on.
    pub(super) packet: Option<&'a [u8]>,
    /// The buffer for an emitted packet; as long as the largest IP packet.
    pub(super) out: &'a mut [u8],
    /// How much of `out` was written.
    pub(super) written: Option<usize>,
    /// Largest IP packet that the engine may emit.
    pub(super) mtu: usize,
}

impl Device for Slot<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.packet.take()?;
        Some((Incoming(packet), Outgoing { out: self.out, written: &mut self.written }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        if self.written.is_some() {
            return None;
        }
        Some(Outgoing { out: self.out, written: &mut self.written })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::ignored();
        // The kernel verifies the IPv4 header of every frame, so it must be real; the fence fills
        // in the TCP checksum.
        checksum.ipv4 = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = checksum;
        capabilities
    }
}

/// The packet to be handled.
pub(super) struct Incoming<'a>(&'a [u8]);

impl smoltcp::phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The buffer for an emitted packet.
pub(super) struct Outgoing<'a> {
    out: &'a mut [u8],
    written: &'a mut Option<usize>,
}

impl smoltcp::phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        *self.written = Some(len);
        f(&mut self.out[..len])
    }
}
