//! The orders for one run, as values.
//!
//! Owns [`Options`] and [`Target`]. Knows neither how a command line spells them (a
//! [`dialect`](crate::dialect)) nor how they are carried out ([`run`](crate::run)).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use slirp_core::instance::{BUSY_POLL, OutboundAddresses};
use slirp_core::link::Framing;
use slirp_core::plan::SlirpNetwork;
use slirp_core::policy::Policy;
use slirp_core::{MacAddr, Rates};
use tracing_subscriber::filter::LevelFilter;

use crate::egress::EgressOptions;
use crate::operator::OperatorOptions;
use crate::publish::Publish;

/// Size of a Unix socket's path with its final NUL (unix(7)).
pub(crate) const SOCKET_PATH_CAP: usize = 108;

/// Everything that one run needs to know besides its [`Target`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// Whether to set the TAP device up.
    pub(crate) configure: bool,
    /// MTU of the TAP device in bytes, 1..=65521.
    pub(crate) mtu: u16,
    /// Which addresses the guest sees.
    pub(crate) plan: SlirpNetwork,
    /// What the guest may reach.
    pub(crate) policy: Policy,
    /// Where the guest may go.
    pub(crate) egress: EgressOptions,
    /// How fast the guest may send and receive.
    pub(crate) rates: Rates,
    /// How the network is watched and steered.
    pub(crate) operator: OperatorOptions,
    /// MAC address of the TAP device; with `None` the kernel picks a random one.
    pub(crate) mac: Option<MacAddr>,
    /// Path of the API socket.
    pub(crate) api_socket: Option<PathBuf>,
    /// Ports of the host that lead to the guest from the start.
    pub(crate) publish: Vec<Publish>,
    /// Source addresses of the guest's traffic on the host.
    pub(crate) outbound: OutboundAddresses,
    /// Resolvers to ask instead of the resolvers in `/etc/resolv.conf`.
    pub(crate) dns: Vec<SocketAddr>,
    /// Domains in which the guest looks up short names.
    pub(crate) search_domains: Vec<String>,
    /// The log level, which overrides the environment.
    pub(crate) log_level: Option<LevelFilter>,
    /// File in which the guest's frames are recorded.
    pub(crate) pcap: Option<PathBuf>,
    /// Whether the end of the target ends the run; otherwise the run outlives the target.
    pub(crate) exit_with_netns: bool,
    /// How long to poll for events before sleeping.
    pub(crate) busy_poll: Duration,
    /// Whether an IPv6 guest gets its recommended address at once, instead of making one from
    /// router advertisements.
    pub(crate) has_fixed_ipv6: bool,
    /// Number of the descriptor on which readiness is reported.
    pub(crate) ready_fd: Option<i32>,
    /// Whether the run goes on after a hang-up of the exit descriptor until the guest is silent.
    pub(crate) lingers: bool,
    /// Number of the descriptor whose hang-up ends the run.
    pub(crate) exit_fd: Option<i32>,
    /// Whether to enter a sandbox before the first packet, which hides the host's files.
    pub(crate) sandbox: bool,
    /// Whether the sandbox is in the guest's user namespace, where root has to exist; otherwise it
    /// has one of its own.
    pub(crate) enters_userns: bool,
    /// Whether to filter system calls; a call that is not needed then ends the process.
    pub(crate) seccomp: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            configure: false,
            mtu: 1500,
            plan: SlirpNetwork::default(),
            policy: Policy::default(),
            egress: EgressOptions::default(),
            rates: Rates::default(),
            operator: OperatorOptions::default(),
            mac: None,
            api_socket: None,
            publish: Vec::new(),
            outbound: OutboundAddresses::default(),
            dns: Vec::new(),
            search_domains: Vec::new(),
            log_level: None,
            pcap: None,
            exit_with_netns: false,
            busy_poll: BUSY_POLL,
            has_fixed_ipv6: false,
            ready_fd: None,
            lingers: false,
            exit_fd: None,
            sandbox: false,
            enters_userns: true,
            seccomp: false,
        }
    }
}

/// What connects the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A TAP device in the network namespace of a process.
    Pid {
        /// The process.
        pid: i32,
        /// The user namespace to enter first, instead of the process's own.
        userns: Option<PathBuf>,
        /// Name of the device; empty lets the kernel choose.
        tap: String,
    },
    /// A TAP device in a network namespace that is named by a path.
    Path {
        /// The network namespace.
        netns: PathBuf,
        /// The user namespace to enter first.
        userns: Option<PathBuf>,
        /// Name of the device; empty lets the kernel choose.
        tap: String,
    },
    /// A TAP device that is open already, under this descriptor number.
    TapFd(i32),
    /// No device: a socket of this path that carries frames.
    Socket(PathBuf, Framing),
}
