//! What a flow counts as, and how soon it makes room for another one.
//!
//! Owns the values only: a [`Permit`] stands in the flow table beside its flow, and goes back to
//! `stack::admission`, which issues and counts permits, when the flow ends.

use crate::event::FlowId;
use crate::protocol::Protocol;
use crate::share::Holder;
use crate::time::Instant;

/// What a flow counts as. Each kind has its own counter and its own bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A TCP connection that the guest is opening.
    Opening,
    /// A TCP connection that the guest has opened.
    Open,
    /// A TCP connection that a remote is opening; the guest has not answered.
    InboundOpening,
    /// A TCP connection that a remote has opened.
    InboundOpen,
    /// A UDP mapping of the guest.
    Udp,
    /// A UDP conversation that a remote has begun.
    InboundUdp,
    /// An echo mapping of the guest.
    Echo,
}

impl Kind {
    /// Every kind, in the order of their counters.
    pub(crate) const ALL: [Self; 7] = [
        Self::Opening,
        Self::Open,
        Self::InboundOpening,
        Self::InboundOpen,
        Self::Udp,
        Self::InboundUdp,
        Self::Echo,
    ];

    /// The protocol.
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Opening | Self::Open | Self::InboundOpening | Self::InboundOpen => Protocol::Tcp,
            Self::Udp | Self::InboundUdp => Protocol::Udp,
            Self::Echo => Protocol::Echo,
        }
    }

    /// Whether a remote has begun it.
    pub(crate) const fn is_inbound(self) -> bool {
        matches!(self, Self::InboundOpening | Self::InboundOpen | Self::InboundUdp)
    }

    /// Whether it may be evicted. An open TCP connection never is: it could not be taken up again.
    pub(crate) const fn is_evictable(self) -> bool {
        !matches!(self, Self::Open | Self::InboundOpen)
    }
}

/// Where a flow stands among the flows of its kind; the least makes room first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Standing {
    /// Whether both sides have a conversation that they may want to go on with.
    pub(crate) is_lasting: bool,
    /// When it was used last; when it began, for a connection that is being opened.
    pub(crate) active_at: Instant,
}

/// A flow in the order of eviction; of equal standing, the older one comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) standing: Standing,
    generation: u32,
    index: u32,
}

impl Place {
    pub(crate) const fn new(standing: Standing, flow: FlowId) -> Self {
        Self { standing, generation: flow.generation, index: flow.index }
    }

    pub(crate) const fn flow(self) -> FlowId {
        FlowId { index: self.index, generation: self.generation }
    }
}

/// See the [module](self). Not to be copied: each counts once.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(crate) kind: Kind,
    /// The member of a shared network that it is counted for.
    pub(crate) holder: Holder,
    /// Where its flow stands now.
    pub(crate) standing: Standing,
    /// Where it stood when it was put into the order of eviction: no higher than now.
    pub(crate) queued: Standing,
}

impl Permit {
    pub(crate) const fn new(kind: Kind, holder: Holder, now: Instant) -> Self {
        let standing = Standing { is_lasting: false, active_at: now };
        Self { kind, holder, standing, queued: standing }
    }

    /// Notes that the flow is in use, and whether it is a lasting conversation by now. It moves to
    /// its new place only when a flow has to make room, so this costs nothing.
    pub(crate) fn note_traffic(&mut self, is_lasting: bool, now: Instant) {
        self.standing.is_lasting |= is_lasting;
        self.standing.active_at = self.standing.active_at.max(now);
    }
}
