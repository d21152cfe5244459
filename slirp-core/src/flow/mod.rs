//! Flows: what the guest talks to, one entry per conversation.
//!
//! Owns the flow table and the four kinds of flow: TCP, UDP and echo, and UDP that a remote began.
//! A flow knows the guest's side of one conversation and decides what is said there; its host
//! socket lives on the other side of the wall, in an array with the same index.

pub(crate) mod eager;
pub(crate) mod echo;
pub(crate) mod inbound_udp;
pub(crate) mod permit;
mod question;
mod state;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod tcp;
mod transfer;
pub(crate) mod udp;

pub use state::FlowState;
pub use summary::{FlowSummary, JudgedFlow};
pub(crate) use transfer::{Allowance, Wants};
pub use transfer::{HostStream, Transfer};

use core::net::SocketAddr;

use crate::mac::MacAddr;
use crate::nat::unspecified;
use crate::policy::Protocol;
use crate::time::Instant;

/// What makes two packets belong to the same flow.
///
/// UDP and echo flows of the guest are keyed by its side alone ([`of_guest`](Self::of_guest)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FlowKey {
    pub(crate) protocol: Protocol,
    pub(crate) guest: SocketAddr,
    pub(crate) remote: SocketAddr,
}

impl FlowKey {
    /// Of a conversation with one remote.
    pub(crate) const fn new(protocol: Protocol, guest: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol, guest, remote }
    }

    /// Of all that the guest sends from one port (RFC 4787 section 4.1, endpoint-independent
    /// mapping). The remote is the unspecified address of the guest's family.
    pub(crate) const fn of_guest(protocol: Protocol, guest: SocketAddr) -> Self {
        Self::new(protocol, guest, SocketAddr::new(unspecified(guest.ip()), 0))
    }
}

/// The guest's side of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GuestSide {
    /// Its address and port; an echo flow's port is the ICMP identifier.
    pub(crate) address: SocketAddr,
    /// The MAC address that its frames come from and ours go to. If the guest routes for others it
    /// is the guest's, so that replies reach networks that are nested behind the guest.
    pub(crate) mac: MacAddr,
}

/// One flow. Boxed, so that each takes what its own kind needs.
pub(crate) enum Flow {
    Tcp(Box<tcp::TcpFlow>),
    Udp(Box<udp::UdpFlow>),
    Echo(Box<echo::EchoFlow>),
    InboundUdp(Box<inbound_udp::InboundUdp>),
}

impl Flow {
    /// The guest's side of it.
    pub(crate) fn guest(&self) -> GuestSide {
        match self {
            Self::Tcp(flow) => flow.guest(),
            Self::Udp(flow) => flow.guest(),
            Self::Echo(flow) => flow.guest(),
            Self::InboundUdp(flow) => flow.guest(),
        }
    }

    /// When the flow wants to be looked at.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Tcp(flow) => flow.wake_at(),
            Self::Udp(flow) => Some(flow.expires_at()),
            Self::Echo(flow) => Some(flow.expires_at()),
            Self::InboundUdp(flow) => Some(flow.expires_at()),
        }
    }
}
