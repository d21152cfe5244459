//! What the inner thread asks of the data thread, and tells it.
//!
//! Owns the values. They go by the data thread's mailbox; answers come back as
//! [`Order`](super::order::Order)s.

use std::net::SocketAddr;

use crate::event::{FlowId, Origin};
use crate::host::forward::{Forward, ForwardProtocol};
use crate::journal::Event;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Ask {
    /// Sockets of the host are running out.
    HostSockets(SocketKind),
    /// Whether the egress policy allows a bridge.
    Judge {
        /// Which.
        bridge: FlowId,
        /// What it is.
        bridged: Bridged,
    },
    /// What has become of a bridge.
    Tell(Box<Event>),
    /// A bridge has received what somebody else has sent to the forwarded port.
    Stray {
        /// The rule, the sender, and the port that it has used.
        origin: Origin,
        /// What it has sent.
        payload: Vec<u8>,
        /// The length of its segments, if they are several.
        segment_len: Option<u16>,
    },
    /// Ports of the host are to open and to close.
    Scanned {
        /// Rules of one port each. Those that cannot be opened are left out.
        open: Vec<Forward>,
        /// Rules that were to open earlier.
        close: Vec<Forward>,
    },
    /// The thread cannot go on: a defect of ours.
    Panicked,
}

/// Sockets that wait in the host's network namespace until they are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SocketKind {
    pub(crate) protocol: ForwardProtocol,
    pub(crate) is_ipv6: bool,
}

/// What a bridge joins, as an egress policy sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bridged {
    /// A client on the host's loopback came through a forward rule.
    Inbound {
        /// The protocol.
        protocol: ForwardProtocol,
        /// The rule, the client, and the port that it has used.
        origin: Origin,
        /// Where the guest listens.
        guest: SocketAddr,
    },
    /// A client on the namespace's loopback.
    Outbound {
        /// The protocol.
        protocol: ForwardProtocol,
        /// The client.
        guest: SocketAddr,
        /// The address of the host.
        reached: SocketAddr,
    },
}

impl Bridged {
    /// The protocol.
    pub(crate) const fn protocol(&self) -> ForwardProtocol {
        match *self {
            Self::Inbound { protocol, .. } | Self::Outbound { protocol, .. } => protocol,
        }
    }
}
