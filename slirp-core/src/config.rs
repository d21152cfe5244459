//! What the pure side is told once, at its start.
//!
//! Owns [`StackConfig`] with [`Offload`], [`Limits`] and [`Timeouts`]. Every table and
//! queue of the stack has its cap here, with the memory that one entry costs.

use core::net::SocketAddr;
use core::time::Duration;

use crate::egress::EgressPolicy;
pub use crate::personality::{Personality, Silence, Told};
use crate::plan::AddressPlan;
use crate::rates::Rates;
pub use crate::service::search_domain::SearchDomain;
pub use crate::switches::Policy;

/// Configuration of one stack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StackConfig {
    /// Which addresses the guest sees.
    pub plan: AddressPlan,
    /// What the guest may reach.
    pub policy: Policy,
    /// Whether the network is shared: addresses inside the plan belong to its members and are never
    /// forwarded to the host, and no member may fill a table alone (default false; an instance for
    /// members sets it).
    pub is_shared: bool,
    /// Which of the destinations that `policy` allows the guest may use, by address, port and name
    /// (default `None`: all of them). On a shared network it holds for the members that have no
    /// policy of their own.
    pub egress: Option<EgressPolicy>,
    /// TCP listeners on the host's loopback that no guest reaches, whatever the policy says
    /// (default none): the doors of the operator. With such an address, all addresses are meant
    /// that lead to the loopback of its IP version.
    pub own_listeners: Vec<SocketAddr>,
    /// How fast the guest may send and receive.
    pub rates: Rates,
    /// MTU of the guest's interface in bytes, IP header included; 68..=65521 (default 1500).
    pub mtu: u16,
    /// Domains in which the guest looks up short names; told over DHCP and DHCPv6 to clients that
    /// ask, and in router advertisements (default none). Invalid names, and names that do not fit
    /// into one message, are skipped.
    pub search_domains: Vec<String>,
    /// How the services of the link speak.
    pub personality: Personality,
    /// What of the guest's packets is dropped silently.
    pub silence: Silence,
    /// What the TAP device can do for us.
    pub offload: Offload,
    /// Caps on everything that grows with what the guest does.
    pub limits: Limits,
    /// How long things may stay idle.
    pub timeouts: Timeouts,
    /// Seed of everything random (sequence numbers, identifiers, hash).
    pub seed: u64,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            plan: AddressPlan::default(),
            policy: Policy::default(),
            is_shared: false,
            egress: None,
            own_listeners: Vec::new(),
            rates: Rates::default(),
            mtu: 1500,
            search_domains: Vec::new(),
            personality: Personality::default(),
            silence: Silence::default(),
            offload: Offload::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            seed: 0,
        }
    }
}

/// What the TAP device does for us; found out step by step when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// Every frame is preceded by a virtio-net header (`IFF_VNET_HDR`).
    pub vnet_header: bool,
    /// Transport checksums may be left to the receiver (`TUN_F_CSUM`); needs the header.
    pub checksum: bool,
    /// TCP frames of up to 64 KiB may cross the device, whatever its MTU (`TUN_F_TSO4`,
    /// `TUN_F_TSO6`); needs checksums to be left.
    pub tcp_segmentation: bool,
    /// UDP frames that hold several datagrams may cross the device (`TUN_F_USO4`, `TUN_F_USO6`).
    pub udp_segmentation: bool,
}

impl Offload {
    /// Nothing: each frame is one packet with its checksums.
    pub const NOTHING: Self = Self {
        vnet_header: false,
        checksum: false,
        tcp_segmentation: false,
        udp_segmentation: false,
    };
    /// Everything a current kernel offers.
    pub const FULL: Self =
        Self { vnet_header: true, checksum: true, tcp_segmentation: true, udp_segmentation: true };
}

/// Caps on tables and queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Flows of all kinds at one time (default 65,536). Remotes may open half of them. A sleeping
    /// TCP flow costs about 0.5 KiB, an active one about 9 KiB and, while it moves bulk data, up to
    /// both of its rings.
    pub flows: usize,
    /// TCP flows that the guest is opening, and as many more that remotes are opening to it
    /// (default 4,096; about 1 KiB each). At most three quarters of what either may open.
    pub half_open: usize,
    /// ICMP echo flows (default 256; one host socket each).
    pub echo_flows: usize,
    /// UDP mappings, one for each address and port that the guest sends from (default 14,116, half
    /// of the ports that Linux hands out; about 200 bytes and a host socket each). An instance has
    /// no more than half of the host's `ip_local_port_range`, so that the host keeps some for
    /// itself.
    pub udp_mappings: usize,
    /// UDP conversations that remotes began by way of forward rules (default 4,096; about 200 bytes
    /// each).
    pub inbound_udp: usize,
    /// Size of each of the two rings of an active TCP flow in bytes, a power of two
    /// (default 256 KiB: the round trip over a TAP device is some 50 us, and the bandwidth-delay
    /// product of the path beyond the host is held by the host's own sockets).
    pub ring_len: usize,
    /// TCP flows whose ring to the guest grows to eight times [`ring_len`](Self::ring_len) once
    /// they have received 1 MiB in one go (default 128, hence at most 256 MiB). A member of a
    /// shared network may have a quarter of them.
    pub bulk_flows: usize,
    /// Bytes that the rings of all TCP flows hold (default 1 GiB: both rings of 2,048 flows, all
    /// full). From half of it on quiet flows are parked at once and hosts are read in smaller
    /// pieces; beyond it the flow that asks for more is reset.
    pub ring_memory: usize,
    /// Bytes held in unfinished datagrams (default 4 MiB, what Linux calls `ipfrag_high_thresh`).
    pub reassembly_bytes: usize,
    /// Unfinished datagrams (default 256).
    pub reassembly_datagrams: usize,
    /// DNS queries in flight (default 512; at most 64 KiB each, typically 100 bytes).
    pub dns_queries: usize,
    /// TCP connections to the DNS service (default 256; besides its rings each holds at most a
    /// message of 64 KiB that is not whole, and together they hold at most 256 KiB of answers per
    /// connection). They need no host socket, so the host does not bound them.
    pub dns_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 65_536,
            half_open: 4_096,
            echo_flows: 256,
            udp_mappings: 14_116,
            inbound_udp: 4_096,
            ring_len: 256 * 1024,
            bulk_flows: 128,
            ring_memory: 1024 * 1024 * 1024,
            reassembly_bytes: 4 * 1024 * 1024,
            reassembly_datagrams: 256,
            dns_queries: 512,
            dns_connections: 256,
        }
    }
}

/// How long things may take or stay idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timeouts {
    /// A UDP mapping without traffic (RFC 4787 section 4.3 REQ-5: at least 2 minutes, 5
    /// recommended).
    pub udp: Duration,
    /// A UDP mapping that was only used towards port 53 (RFC 4787 REQ-5 allows shorter timers for
    /// well-known ports).
    pub udp_dns: Duration,
    /// An ICMP echo mapping (RFC 5508 section 3.2 REQ-2: at least 60 seconds).
    pub echo: Duration,
    /// A datagram that is being reassembled (RFC 791: 15 s as a start; Linux: 30 s).
    pub reassembly: Duration,
    /// The host side of a TCP flow that is being connected (BSD's and libslirp's 75 s).
    pub host_connect: Duration,
    /// The guest's part of the handshake (arbitrary: 20 s; the round trip is some 50 us).
    pub guest_handshake: Duration,
    /// A forwarded connection that the guest does not answer (BSD's and libslirp's 75 s).
    pub guest_connect: Duration,
    /// A guest that does not acknowledge data (RFC 1122 section 4.2.3.5 R2: at least 100 seconds).
    pub guest_unresponsive: Duration,
    /// A half-closed TCP flow without traffic (RFC 5382 section 5 REQ-5 names 2 hours 4 minutes for
    /// a connection that may still be in use). A host that reads nothing would otherwise keep it
    /// for ever. If nothing waits for the host, the guest is probed from 75 seconds on, and its
    /// answer counts as traffic.
    pub tcp_half_closed: Duration,
    /// A TCP flow without traffic gives its rings back (arbitrary: 2 s).
    pub tcp_park: Duration,
    /// A DNS query in flight (longer than all attempts upstream together).
    pub dns: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(300),
            udp_dns: Duration::from_secs(10),
            echo: Duration::from_secs(60),
            reassembly: Duration::from_secs(30),
            host_connect: Duration::from_secs(75),
            guest_handshake: Duration::from_secs(20),
            guest_connect: Duration::from_secs(75),
            guest_unresponsive: Duration::from_secs(120),
            tcp_half_closed: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_park: Duration::from_secs(2),
            dns: Duration::from_secs(60),
        }
    }
}
