//! What a flow looks like from outside: the rows of a list for people and programs.
//!
//! Owns the words for the states of flows and what is counted per flow. Reading a row changes
//! nothing; who may ask, and how often, is the callers' business.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Flow;
use super::table::Entry;
use crate::config::Timeouts;
use crate::event::FlowId;
use crate::policy::Protocol;
use crate::time::Instant;

/// Where a flow stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FlowState {
    /// The host is connecting to the remote.
    Connecting,
    /// A remote has come, and the guest's link-layer address is asked for.
    Locating,
    /// The guest has not finished the handshake.
    Handshaking,
    /// Open; the only state of a UDP or echo flow.
    Open,
    /// Open and idle for so long that its memory has been given back.
    Parked,
    /// One direction has ended, or both.
    Closing,
}

impl FlowState {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Locating => "locating",
            Self::Handshaking => "handshaking",
            Self::Open => "open",
            Self::Parked => "parked",
            Self::Closing => "closing",
        }
    }
}

/// Payload bytes of a flow since its beginning, headers and repetitions not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// From the guest to the remote.
    pub from_guest: u64,
    /// From the remote to the guest.
    pub to_guest: u64,
}

impl Traffic {
    pub(crate) const fn add_from_guest(&mut self, len: usize) {
        self.from_guest = self.from_guest.saturating_add(len as u64);
    }

    pub(crate) const fn add_to_guest(&mut self, len: usize) {
        self.to_guest = self.to_guest.saturating_add(len as u64);
    }
}

/// One flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FlowSummary {
    /// Its name.
    pub id: FlowId,
    /// The protocol; the family is that of `guest`.
    pub protocol: Protocol,
    /// The guest's side. An echo flow's port is the ICMP identifier.
    pub guest: SocketAddr,
    /// The remote as the guest knows it. A UDP or echo flow may have several: the one that the
    /// guest has addressed last. Echo has no ports: 0.
    pub remote: SocketAddr,
    /// The host's side of the host's socket, where there is one. Filled in by the host side.
    pub local: Option<SocketAddr>,
    /// Whether the remote has opened the flow, through a forwarded port.
    pub is_inbound: bool,
    /// Where it stands.
    pub state: FlowState,
    /// How long it has existed.
    pub age: Duration,
    /// How long nothing has happened.
    pub idle: Duration,
    /// What has passed.
    pub traffic: Traffic,
}

impl FlowSummary {
    pub(crate) fn of(entry: &Entry, timeouts: &Timeouts, now: Instant) -> Self {
        let key = &entry.key;
        let age = now.saturating_since(entry.created_at);
        // Idle flows expire when their time is over: what is left of it tells how long they are idle.
        let idle = |expires_at: Instant, timeout: Duration| {
            timeout.saturating_sub(expires_at.saturating_since(now))
        };
        let (remote, is_inbound, state, idle) = match &entry.flow {
            Flow::Tcp(flow) => (
                key.remote,
                flow.is_inbound(),
                flow.state(),
                now.saturating_since(flow.active_at()),
            ),
            Flow::Udp(flow) => {
                let idle = idle(flow.expires_at(), flow.idle_timeout(timeouts));
                (flow.latest(), false, FlowState::Open, idle)
            }
            Flow::Echo(flow) => {
                let idle = idle(flow.expires_at(), timeouts.echo);
                (echo_remote(flow.latest()), false, FlowState::Open, idle)
            }
            Flow::Forwarded(flow) => {
                let idle = idle(flow.expires_at(), timeouts.udp);
                (key.remote, true, FlowState::Open, idle)
            }
        };
        Self {
            id: entry.id,
            protocol: key.protocol,
            guest: key.guest,
            remote,
            local: None,
            is_inbound,
            state,
            age,
            idle: idle.min(age),
            traffic: entry.traffic,
        }
    }
}

const fn echo_remote(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 0)
}
