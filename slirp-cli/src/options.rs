//! The orders for one run, as values.
//!
//! Owns [`Options`] and [`Target`]. Knows neither how a command line spells them (a
//! [`dialect`](crate::dialect)) nor how they are carried out ([`run`](crate::run)).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use slirp_core::config::{Personality, Silence};
use slirp_core::instance::{BUSY_POLL, HostPorts, OutboundAddresses, Splices};
use slirp_core::link::Framing;
use slirp_core::mirror::Following;
use slirp_core::netns::{Configuration, Ipv6Configuration, Setup};
use slirp_core::plan::{AddressPlan, AssumedGuest, SlirpNetwork};
use slirp_core::policy::Policy;
use slirp_core::sandbox::seccomp::SystemCall;
use slirp_core::sandbox::{Identity, RemovedFile};
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
    /// Which addresses the guest sees, in a network with slirp4netns's numbers.
    pub(crate) plan: SlirpNetwork,
    /// Which addresses the guest sees in any other network, instead of `plan`.
    pub(crate) own_plan: Option<OwnPlan>,
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
    /// How long a port that is in use is waited for: its holder may be about to end.
    pub(crate) port_patience: Duration,
    /// Source addresses of the guest's traffic on the host.
    pub(crate) outbound: OutboundAddresses,
    /// Whether the guest's datagrams leave from the port that the guest sent them from.
    pub(crate) keeps_udp_ports: bool,
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
    /// A file of the dialect that is removed at the end.
    pub(crate) removed_file: Option<RemovedFile>,
    /// Whether to enter a sandbox before the first packet, which hides the host's files.
    pub(crate) sandbox: bool,
    /// Whether the sandbox is in the guest's user namespace, where root has to exist; otherwise it
    /// has one of its own.
    pub(crate) enters_userns: bool,
    /// The identity to take on in the sandbox, instead of the caller's.
    pub(crate) identity: Option<Identity>,
    /// Whether to filter system calls; a call that is not needed then ends the process.
    pub(crate) seccomp: bool,
    /// System calls of the dialect while the network runs.
    pub(crate) system_calls: Vec<&'static SystemCall>,
    /// Whether the process leaves the caller's streams once the network works. It then ends if
    /// nobody reads that it is ready.
    pub(crate) detaches: bool,
    /// Signals that end the run with status 0. Others kill the process, after cleaning up.
    pub(crate) good_ends: &'static [Signal],
}

/// Addresses that do not follow from slirp4netns's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OwnPlan {
    /// Which addresses the guest sees, and what they mean.
    pub(crate) plan: AddressPlan,
    /// Whether the guest gets an interface. Without one it has its loopback alone.
    pub(crate) has_interface: bool,
    /// How the guest's interface is set up.
    pub(crate) setup: Setup,
    /// How the services of the link speak.
    pub(crate) personality: Personality,
    /// What of the guest's packets is dropped.
    pub(crate) silence: Silence,
    /// What is joined socket to socket, past the guest's interface.
    pub(crate) splicing: Option<Splicing>,
    /// How the guest follows the host's network.
    pub(crate) following: Option<Following>,
    /// Whether the guest's interface is configured then.
    pub(crate) follows_inside: bool,
}

/// Connections between the loopbacks of the host and the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Splicing {
    /// Whether clients on the host's loopback are joined, and not left to the guest's interface.
    pub(crate) joins_clients: bool,
    /// Whether clients on the host's loopback reach the guest's loopback, and not the guest's own
    /// address.
    pub(crate) to_guest_loopback: bool,
    /// Whether ports may change while the network runs.
    pub(crate) is_changeable: bool,
    /// Ports of the host that are open only while they are in use on the guest's side.
    pub(crate) scanned: Vec<Publish>,
    /// Ports of the guest's loopback that lead to the host's.
    pub(crate) to_host: Vec<HostPorts>,
}

impl Splicing {
    /// As the engine takes it, for the guest in the network namespace `network`.
    pub(crate) fn splices(
        &self,
        network: OwnedFd,
        plan: &AddressPlan,
        guest: AssumedGuest,
    ) -> Splices {
        let ipv4 = plan.ipv4().map(|family| family.guest);
        // A link-local address says nothing without its link.
        let ipv6 = plan.ipv6().map(|family| family.guest);
        let ipv6 = ipv6.filter(|address| !address.is_unicast_link_local());
        Splices::new(network)
            .joins_clients(self.joins_clients)
            .to_guest_loopback(self.to_guest_loopback)
            .changeable(self.is_changeable)
            .guest(ipv4, ipv6)
            .scanned(self.scanned.iter().map(|publish| publish.forward(guest)))
            .to_host(self.to_host.iter().copied())
    }
}

impl Options {
    /// Which addresses the guest sees.
    pub(crate) fn address_plan(&self) -> AddressPlan {
        self.own_plan.as_ref().map_or_else(|| self.plan.into(), |own| own.plan)
    }

    /// How the guest's interface is set up in a network with slirp4netns's numbers, if at all.
    pub(crate) fn configuration(&self) -> Option<Configuration> {
        let mut configuration = Configuration::for_plan(&self.plan, self.mtu);
        configuration.mac = self.mac;
        if self.has_fixed_ipv6 {
            configuration.ipv6 = self.plan.ipv6().map(Ipv6Configuration::for_plan);
        }
        self.configure.then_some(configuration)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            configure: false,
            mtu: 1500,
            plan: SlirpNetwork::default(),
            own_plan: None,
            policy: Policy::default(),
            egress: EgressOptions::default(),
            rates: Rates::default(),
            operator: OperatorOptions::default(),
            mac: None,
            api_socket: None,
            publish: Vec::new(),
            port_patience: Duration::ZERO,
            outbound: OutboundAddresses::default(),
            keeps_udp_ports: false,
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
            removed_file: None,
            sandbox: false,
            enters_userns: true,
            identity: None,
            seccomp: false,
            system_calls: Vec::new(),
            detaches: false,
            good_ends: &[],
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
    /// No device: a socket of this path, with frames behind their lengths, that is there before a
    /// peer is.
    Server {
        /// The path; the first one of passt(1) that nobody uses without it.
        path: Option<PathBuf>,
        /// Whether the end of the first peer ends the run. Otherwise the next one is awaited.
        ends_with_peer: bool,
    },
    /// No device: a connected socket that carries frames behind their lengths, under this
    /// descriptor number.
    SocketFd(i32),
}
