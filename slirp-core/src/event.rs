//! What the pure side and the host side tell each other.
//!
//! Owns the identifiers of flows, rules and queries, and the values that cross the wall: actions
//! that the stack asks the host side for, datagrams that are lent out of the frame that carried
//! them, and what host sockets reported. No value here holds a file descriptor or a clock.

use core::net::{IpAddr, SocketAddr};

use crate::mac::MacAddr;

/// Identifier of one flow: an index that is reused, with a generation that is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowId {
    /// Slot in the flow table; dense, so that the host side can keep a plain array beside it.
    pub index: u32,
    /// Distinguishes this use of the slot from earlier ones.
    pub generation: u32,
}

/// Identifier of a forward rule; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ForwardId(pub u64);

/// Where a forwarded connection or datagram came from, as the host saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The rule on whose socket it arrived.
    pub rule: ForwardId,
    /// The sender.
    pub client: SocketAddr,
    /// The host's address and port that it was sent to; answers leave from there. Of a connection,
    /// where the rule listens.
    pub local: SocketAddr,
}

/// Identifier of a DNS query in flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DnsQueryId(pub u64);

/// How the guest's query arrived; the upstream side may use it as a hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DnsTransport {
    /// One datagram; the answer fits what the query's EDNS option allows.
    Udp,
    /// A message on a TCP connection; any length up to 65,535 bytes.
    Tcp,
}

/// Where a query came from, and so where its answer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum QueryOrigin {
    /// A datagram.
    Udp {
        /// Source of the query.
        guest: SocketAddr,
        /// The virtual address that was asked; the answer comes from it.
        server: SocketAddr,
        /// Link-layer source of the query, destination of the answer.
        guest_mac: MacAddr,
    },
    /// A message on a TCP connection.
    Tcp {
        /// The connection; it may be gone when the answer arrives.
        flow: FlowId,
    },
    /// The stack itself: flows to a name wait, about which somebody was asked and has said yes.
    Own {
        /// Number of the lookup, which has a query for each IP version.
        lookup: u64,
    },
}

/// Something that the stack asks the host side to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostAction {
    /// Connect a TCP socket and report with `handle_tcp_connected`.
    #[non_exhaustive]
    ConnectTcp {
        /// The flow that waits for it.
        flow: FlowId,
        /// Where to.
        remote: SocketAddr,
        /// Whether the guest is likely to speak first, and at once: the acknowledgement of the
        /// remote's SYN may wait for its bytes, until
        /// [`HostStream::acknowledge`](crate::HostStream::acknowledge).
        is_guest_eager: bool,
    },
    /// The flow needs its host socket no more: close it, whatever its protocol, if there is one.
    #[non_exhaustive]
    Close {
        /// The flow. It is gone, its guest is told why its bytes were refused, or another address
        /// is to be tried.
        flow: FlowId,
        /// Whether a TCP peer is to see a reset instead of an orderly end.
        reset: bool,
    },
    /// The guest has refused a connection that a remote opened, and has another address. The flow
    /// is gone; pass its socket to `handle_tcp_refused`.
    #[non_exhaustive]
    AskElsewhere {
        /// The flow.
        flow: FlowId,
        /// As it was passed to `handle_tcp_accepted`.
        origin: Origin,
        /// The other address.
        guest: SocketAddr,
    },
    /// Answer this DNS query and report with `handle_dns_answer`.
    #[non_exhaustive]
    QueryDns {
        /// Name of the query.
        query: DnsQueryId,
        /// How it arrived.
        transport: DnsTransport,
        /// The message, without a TCP length prefix.
        message: Vec<u8>,
    },
    /// Give this DNS query up: it was answered here, to make room for another member's.
    #[non_exhaustive]
    CancelDns {
        /// Name of the query.
        query: DnsQueryId,
    },
}

/// What the IP header around a datagram of the guest says, as it is to be on the host's side too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// TTL or hop limit to send with.
    pub hop_limit: u8,
    /// TOS or traffic class: DSCP and ECN (RFC 2474, RFC 3168).
    pub traffic_class: u8,
    /// Whether nobody may cut the datagram on its way: what is too large is refused, and the guest
    /// is told (RFC 1191, RFC 8201).
    pub dont_fragment: bool,
}

/// A datagram of the guest, lent out of the frame that carried it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram<'a> {
    /// Send over the UDP socket of `flow`, which is opened by the first of them.
    #[non_exhaustive]
    Udp {
        /// The flow; one per guest address and port (RFC 4787 endpoint-independent mapping).
        flow: FlowId,
        /// The guest's address and port. A forward rule that leads there is sent from instead, so
        /// that remotes see the published port whoever speaks first.
        guest: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// One datagram, or several of `segment_len` bytes each (the last may be shorter).
        payload: &'a [u8],
        /// Length of each datagram when `payload` holds several (`UDP_SEGMENT`).
        segment_len: Option<u16>,
        /// What its IP header says.
        envelope: Envelope,
    },
    /// Send over the socket of a forward rule: the guest answers a remote.
    #[non_exhaustive]
    InboundUdp {
        /// The flow.
        flow: FlowId,
        /// The rule, the remote, and the host's address to send from.
        origin: Origin,
        /// One datagram, or several of `segment_len` bytes each (the last may be shorter).
        payload: &'a [u8],
        /// Length of each datagram when `payload` holds several (`UDP_SEGMENT`).
        segment_len: Option<u16>,
        /// What its IP header says.
        envelope: Envelope,
    },
    /// Send an echo request over the ping or raw socket of `flow`, which is opened by the first.
    #[non_exhaustive]
    Echo {
        /// The flow; one per guest address and ICMP identifier.
        flow: FlowId,
        /// Where to.
        remote: IpAddr,
        /// The guest's ICMP identifier.
        ident: u16,
        /// ICMP sequence number.
        sequence: u16,
        /// Echo data.
        payload: &'a [u8],
        /// What its IP header says.
        envelope: Envelope,
    },
}

/// Why a host socket could not do what the guest wanted; the guest is told accordingly.
///
/// The table from `errno` to these values is `HostError::from_errno` on the host side; what the
/// guest sees for each is `wire::icmp::GuestSignal`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostError {
    /// The remote refused (`ECONNREFUSED`).
    Refused,
    /// The remote reset an existing connection (`ECONNRESET`, `EPIPE`).
    Reset,
    /// No way to the network (`ENETUNREACH`, `EPERM`, `EACCES` and everything unexpected).
    NetworkUnreachable,
    /// No answer from the host (`EHOSTUNREACH`, `EHOSTDOWN`).
    HostUnreachable,
    /// The host did not answer in time (`ETIMEDOUT`).
    TimedOut,
    /// The datagram is larger than the path allows (`EMSGSIZE`); the MTU where it is known.
    TooLarge(Option<u16>),
    /// The host side has no file descriptor, port or memory left (`EMFILE`, `ENFILE`, `ENOBUFS`,
    /// `ENOMEM`, `EADDRNOTAVAIL`, `EAGAIN`): nothing that the remote did.
    Exhausted,
}

impl HostError {
    /// One of each kind, in the order of their counters.
    pub(crate) const ALL: [Self; 7] = [
        Self::Refused,
        Self::Reset,
        Self::NetworkUnreachable,
        Self::HostUnreachable,
        Self::TimedOut,
        Self::TooLarge(None),
        Self::Exhausted,
    ];

    /// The place of its kind in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Refused => 0,
            Self::Reset => 1,
            Self::NetworkUnreachable => 2,
            Self::HostUnreachable => 3,
            Self::TimedOut => 4,
            Self::TooLarge(_) => 5,
            Self::Exhausted => 6,
        }
    }

    /// The word for it, in `snake_case`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::NetworkUnreachable => "network_unreachable",
            Self::HostUnreachable => "host_unreachable",
            Self::TimedOut => "timed_out",
            Self::TooLarge(_) => "too_large",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What a host socket's error queue reported about a datagram that was sent earlier
/// (`IP_RECVERR`, `IPV6_RECVERR`; ip(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramError {
    /// Where the datagram went.
    pub remote: SocketAddr,
    /// Who complained, when it was not the local kernel.
    pub offender: Option<IpAddr>,
    /// ICMP type as it arrived, when it came from the network.
    pub icmp_type: u8,
    /// ICMP code as it arrived.
    pub icmp_code: u8,
    /// Extra information: the next-hop MTU of a "packet too big".
    pub info: u32,
    /// The same as a plain error.
    pub error: HostError,
}
