//! Fragmented datagrams of the guest.
//!
//! Owns the [`Reassembler`] and the last datagram that became whole, which is lent to the host side
//! out of here.

use core::net::IpAddr;

use super::outbox::Outbox;
use crate::config::StackConfig;
use crate::discard::{DiscardCounters, DiscardReason};
use crate::mac::MacAddr;
use crate::share::Holder;
use crate::time::Instant;
use crate::wire::frame::IpHeader;
use crate::wire::icmp::IcmpError;
use crate::wire::reassembly::Reassembler;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Reassembly {
    reassembler: Reassembler,
    whole: Vec<u8>,
}

impl Reassembly {
    pub(super) const fn new(config: &StackConfig) -> Self {
        let reassembler = Reassembler::new(&config.limits, &config.timeouts);
        Self { reassembler, whole: Vec::new() }
    }

    /// One fragment, which counts for `holder`. Returns the datagram that it makes whole.
    ///
    /// # Errors
    /// Why the fragment, or the whole datagram, was discarded.
    pub(super) fn handle_fragment(
        &mut self,
        holder: Holder,
        packet: &[u8],
        discards: &mut DiscardCounters,
        now: Instant,
    ) -> Result<Option<(Vec<u8>, IpHeader)>, DiscardReason> {
        let owner = holder.map_or(0, |member| member.0);
        let whole = self.reassembler.handle_fragment_of(owner, packet, now);
        for _ in 0..self.reassembler.take_evicted() {
            discards.count(DiscardReason::FragmentMemoryExhausted);
        }
        let Some(whole) = whole? else {
            return Ok(None);
        };
        let mut ip = IpHeader::parse(&whole)?;
        // The guest has cut it itself.
        ip.dont_fragment = false;
        if ip.is_fragment || ip.packet_len != whole.len() {
            return Err(DiscardReason::FragmentInvalid);
        }
        Ok(Some((whole, ip)))
    }

    /// Keeps a datagram while it is lent.
    pub(super) fn keep(&mut self, whole: Vec<u8>) {
        self.whole = whole;
    }

    /// The datagram that was kept.
    pub(super) fn kept(&self) -> &[u8] {
        &self.whole
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.reassembler.poll_timeout()
    }

    /// Gives up datagrams that did not become whole in time. Their senders are told, at the MAC
    /// address that `mac_of` says.
    pub(super) fn handle_timeout(
        &mut self,
        mac_of: impl Fn(IpAddr) -> Option<MacAddr>,
        outbox: &mut Outbox,
        discards: &mut DiscardCounters,
        now: Instant,
    ) {
        for expired in self.reassembler.handle_timeout(now) {
            discards.count(DiscardReason::FragmentTimedOut);
            let Some(first) = expired.first_fragment else { continue };
            let Ok(ip) = IpHeader::parse(&first) else { continue };
            if let Some(mac) = mac_of(ip.source) {
                discards.note(outbox.push_error(IcmpError::ReassemblyTimeExceeded, &first, mac));
            }
        }
    }
}
