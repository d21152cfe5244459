//! Counters of one stack, and what it holds at one moment.
//!
//! Owns plain numbers and their names. How they are shown is decided elsewhere. "Guest" and "host"
//! name the side that a frame, byte or event came from. Counting costs an addition: no counter
//! allocates, and each has its place in an array whose index is an enum.
//!
//! What is joined past the link counts as flows do.
//!
//! What can be read off the stack is not counted. It is looked up when the numbers are asked for,
//! by [`Stack::snapshot`](crate::stack::Stack::snapshot).

mod histogram;
mod names;
mod policy;

use core::ops::{Index, IndexMut};

use crate::discard::DiscardCounters;
use crate::event::HostError;
use crate::member::MemberId;
use crate::protocol::Protocol;
use crate::rates::Rates;
use crate::traffic::Traffic;
pub use histogram::Histogram;
pub use names::{Answered, NameStats};
pub use policy::{Outcome, PolicyStats, QuestionStats, VerdictCounters, VerifiedCounters};

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident, )+) => {
        /// What one stack has done so far.
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct Stats {
            $( $(#[$doc])* pub $name: u64, )+
            /// Discards by reason.
            pub discards: DiscardCounters,
            /// TCP flows of the guest that failed, by reason.
            pub connect_failures: ConnectFailures,
            /// Payload of all flows, of those that are over too.
            pub traffic: PerProtocol<Traffic>,
            /// What became of DNS queries. In a snapshot only.
            pub names: NameStats,
            /// Flows that exist at this moment. In a snapshot only.
            pub open: PerProtocol<u64>,
            /// Bytes that the rings of TCP flows hold at this moment. In a snapshot only.
            pub ring_memory: u64,
            /// What the egress policies of all guests have decided; `None` without a policy. In a
            /// snapshot only.
            pub policy: Option<PolicyStats>,
            /// What was given to the audit log; `None` without one. In a snapshot only.
            pub audit: Option<AuditStats>,
            /// Who may decide questions at this moment. In a snapshot only.
            pub approvers: u64,
            /// The limits of every guest that has none of its own. In a snapshot only.
            pub rates: Rates,
            /// Members of a shared network at this moment. In a snapshot only.
            pub members: u64,
            /// The members one by one, if a snapshot was asked for them.
            pub by_member: Option<Vec<MemberStats>>,
        }

        impl Stats {
            /// Every counter that is a number of its own, with its name, in the order of the
            /// fields.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [ $( (stringify!($name), self.$name), )+ ].into_iter()
            }

            /// Adds what was counted of flows elsewhere.
            #[cfg(feature = "host")]
            pub(crate) fn add(&mut self, other: &Self) {
                $( self.$name += other.$name; )+
                self.discards.add(&other.discards);
                self.connect_failures.add(&other.connect_failures);
                for (protocol, more) in other.traffic.iter() {
                    self.traffic[protocol].add_growth(Traffic::default(), *more);
                    self.open[protocol] += other.open[protocol];
                }
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
    /// Datagrams and echo replies that did not get to a guest because of its limit.
    rate_dropped_to_guest,
    /// Datagrams and echo requests of a guest that did not leave because of its limit.
    rate_dropped_from_guest,
    /// Microseconds in which something had to wait for a guest's limit on what it receives; of
    /// several guests, the sum.
    rate_limited_micros_to_guest,
    /// Microseconds in which something had to wait for a guest's limit on what it sends; of several
    /// guests, the sum.
    rate_limited_micros_from_guest,
    /// Flows that exist at this moment.
    flows,
    /// Frames from member to member of a shared network.
    frames_between_members,
    /// Bytes of these frames, link header included.
    bytes_between_members,
}

/// What one member of a shared network holds at this moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberStats {
    /// The member.
    pub id: MemberId,
    /// Its flows.
    pub open: PerProtocol<u64>,
    /// What its egress policy has decided, if it has one.
    pub policy: Option<PolicyStats>,
}

impl MemberStats {
    pub(crate) const fn new(
        id: MemberId,
        open: PerProtocol<u64>,
        policy: Option<PolicyStats>,
    ) -> Self {
        Self { id, open, policy }
    }
}

/// Events for the audit log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct AuditStats {
    /// Those that it was given.
    pub taken: u64,
    /// Those that found no place in its queue.
    pub lost: u64,
}

/// A value for each [`Protocol`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PerProtocol<T>([T; Protocol::ALL.len()]);

impl<T> PerProtocol<T> {
    /// Each protocol with its value.
    pub fn iter(&self) -> impl Iterator<Item = (Protocol, &T)> {
        Protocol::ALL.iter().copied().zip(&self.0)
    }
}

impl<T> Index<Protocol> for PerProtocol<T> {
    type Output = T;

    fn index(&self, protocol: Protocol) -> &T {
        &self.0[protocol as usize]
    }
}

impl<T> IndexMut<Protocol> for PerProtocol<T> {
    fn index_mut(&mut self, protocol: Protocol) -> &mut T {
        &mut self.0[protocol as usize]
    }
}

/// A counter for each [`HostError`].
#[derive(Clone, Default, Debug)]
pub struct ConnectFailures([u64; HostError::ALL.len()]);

impl ConnectFailures {
    pub(crate) const fn count(&mut self, error: HostError) {
        self.0[error.index()] += 1;
    }

    #[cfg(feature = "host")]
    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, more)| *own += more);
    }

    /// Each error with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (HostError, u64)> {
        HostError::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discard::DiscardReason;

    #[test]
    fn failures_are_counted_by_their_kind() {
        let mut failures = ConnectFailures::default();
        failures.count(HostError::TooLarge(Some(1400)));
        failures.count(HostError::Exhausted);
        failures.count(HostError::TooLarge(None));
        let counted: Vec<_> = failures.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(HostError::TooLarge(None), 2), (HostError::Exhausted, 1)]);
        for (index, error) in HostError::ALL.into_iter().enumerate() {
            assert_eq!(error.index(), index);
        }
    }

    #[test]
    fn flows_that_are_counted_elsewhere_are_added() {
        let mut stats = Stats { tcp_opened: 1, ..Stats::default() };
        let mut more = Stats { tcp_opened: 2, flows: 3, ..Stats::default() };
        more.discards.count(DiscardReason::BridgesFull);
        more.connect_failures.count(HostError::Refused);
        more.traffic[Protocol::Udp].to_guest = 5;
        more.open[Protocol::Udp] = 3;
        for _ in 0..2 {
            stats.add(&more);
        }
        assert_eq!((stats.tcp_opened, stats.flows), (5, 6));
        assert_eq!(stats.discards.value(DiscardReason::BridgesFull), 2);
        assert_eq!(stats.connect_failures.iter().map(|(_, count)| count).sum::<u64>(), 2);
        assert_eq!((stats.traffic[Protocol::Udp].to_guest, stats.open[Protocol::Udp]), (10, 6));
    }

    #[test]
    fn protocols_have_a_place_each() {
        let mut open = PerProtocol::<u64>::default();
        open[Protocol::Echo] += 2;
        let all: Vec<_> = open.iter().map(|(protocol, &count)| (protocol, count)).collect();
        assert_eq!(all, [(Protocol::Tcp, 0), (Protocol::Udp, 0), (Protocol::Echo, 2)]);
    }
}
