//! Counters of one stack.
//!
//! Owns plain numbers and their names; who reads them and how they are shown is decided elsewhere.
//! "Guest" and "host" name the side that a frame, byte or event came from.

use crate::discard::DiscardCounters;

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident, )+) => {
        /// What one stack has done so far.
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $( $(#[$doc])* pub $name: u64, )+
            /// Discards by reason.
            pub discards: DiscardCounters,
        }

        impl Stats {
            /// Every counter but the discards, with its name, in the order of the fields.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [ $( (stringify!($name), self.$name), )+ ].into_iter()
            }
        }
    };
}

counters! {
    /// Frames read from the TAP device.
    frames_from_guest,
    /// Frames written to the TAP device.
    frames_to_guest,
    /// Bytes of these frames, link header included, from the guest.
    bytes_from_guest,
    /// Bytes of these frames, link header included, to the guest.
    bytes_to_guest,
    /// TCP flows that were opened by the guest.
    tcp_opened,
    /// TCP flows of the guest that the host refused or could not reach.
    tcp_failed,
    /// TCP flows that remotes opened through a forward rule.
    tcp_accepted,
    /// TCP flows whose engine was put to sleep to give its memory back.
    tcp_parked,
    /// TCP flows that woke up again.
    tcp_unparked,
    /// UDP mappings that were opened by the guest.
    udp_opened,
    /// UDP conversations that remotes opened through a forward rule.
    udp_accepted,
    /// ICMP echo mappings that were opened by the guest.
    echo_opened,
    /// DNS queries that were passed on.
    dns_queries,
    /// Flows that exist at this moment.
    flows,
    /// Frames from member to member of a shared network.
    frames_between_members,
    /// Bytes of these frames, link header included.
    bytes_between_members,
}
