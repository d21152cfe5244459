//! Counters of one stack.
//!
//! Owns plain numbers; who reads them and how they are shown is decided elsewhere. "Guest" and
//! "host" name the side that a frame, byte or event came from.

use crate::discard::DiscardCounters;

/// What one stack has done so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Frames read from the TAP device.
    pub frames_from_guest: u64,
    /// Frames written to the TAP device.
    pub frames_to_guest: u64,
    /// Bytes of these frames, link header included, from the guest.
    pub bytes_from_guest: u64,
    /// Bytes of these frames, link header included, to the guest.
    pub bytes_to_guest: u64,
    /// TCP flows that were opened by the guest.
    pub tcp_opened: u64,
    /// TCP flows of the guest that the host refused or could not reach.
    pub tcp_failed: u64,
    /// TCP flows whose engine was put to sleep to give its memory back.
    pub tcp_parked: u64,
    /// TCP flows that woke up again.
    pub tcp_unparked: u64,
    /// TCP flows that remotes opened through a forward rule.
    pub tcp_accepted: u64,
    /// UDP conversations that remotes opened through a forward rule.
    pub udp_accepted: u64,
    /// UDP mappings that were opened by the guest.
    pub udp_opened: u64,
    /// ICMP echo mappings that were opened by the guest.
    pub echo_opened: u64,
    /// DNS queries that were passed on.
    pub dns_queries: u64,
    /// Flows that exist at this moment.
    pub flows: u64,
    /// Frames from member to member of a shared network.
    pub frames_between_members: u64,
    /// Bytes of these frames, link header included.
    pub bytes_between_members: u64,
    /// Discards by reason.
    pub discards: DiscardCounters,
}
