//! The orders of one command line of pasta(1), as values.
//!
//! Owns [`PastaOptions`]. Knows neither how a command line spells them
//! ([`args`](super::args)) nor how they are carried out. What is left to the host has no value
//! here: its interface, addresses, routes and resolvers are looked at when the network starts.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use slirp_core::MacAddr;

use super::ports::rules::PortRules;

/// MTU of the guest's interface without `--mtu`: the largest frame that the device carries, less
/// its Ethernet header, in whole words.
pub(crate) const MTU: u16 = 65_520;

/// Our MAC address on the link without `--mac-addr`, as this dialect has it.
pub(crate) const GATEWAY_MAC: MacAddr = MacAddr([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);

/// Size of the log file without `--log-size`, in bytes.
pub(crate) const LOG_SIZE: u64 = 1 << 20;

/// Everything that one run needs to know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PastaOptions {
    pub(crate) target: Target,
    pub(crate) process: ProcessOptions,
    pub(crate) guest: GuestOptions,
    pub(crate) addresses: AddressOptions,
    /// Which families the network has.
    pub(crate) families: Families,
    pub(crate) mapping: MappingOptions,
    pub(crate) services: ServiceOptions,
    /// Which ports lead where.
    pub(crate) ports: PortRules,
}

/// The program that is spoken as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mode {
    /// pasta(1), for namespaces.
    #[default]
    Pasta,
    /// passt(1), for virtual machines.
    Passt,
}

impl Mode {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Passt => "passt",
        }
    }
}

/// What is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) userns: Userns,
    /// Whether the end of the network namespace's name ends the run.
    pub(crate) quits_with_netns: bool,
}

impl Default for Target {
    fn default() -> Self {
        Self { place: Place::Command(Vec::new()), userns: Userns::OfPlace, quits_with_netns: true }
    }
}

/// A network namespace, or the socket of a virtual machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A new one, for this command with its arguments. Empty: the user's shell, as a login shell.
    Command(Vec<OsString>),
    /// The one of this process.
    Process(i32),
    /// The one of this path.
    Netns(PathBuf),
    /// A socket at which virtual machines connect, one after the other.
    Socket {
        /// Its path; the first one of `/tmp/passt_1.socket` and so on that is free without it.
        path: Option<PathBuf>,
        /// Whether the run ends with the first of them.
        is_one_off: bool,
    },
    /// The connected socket of this number.
    Descriptor(i32),
}

/// The user namespace to enter before the network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Userns {
    /// The one of the process, or a new one for a command.
    OfPlace,
    /// The one of this path.
    Path(PathBuf),
    /// None: the caller's own.
    Callers,
}

/// How the process behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProcessOptions {
    pub(crate) verbosity: Verbosity,
    /// Whether the process stays in the foreground. Otherwise its end tells that the network is
    /// ready, and a daemon carries the packets.
    pub(crate) is_foreground: bool,
    /// The identity to take on, if root has started the process.
    pub(crate) runas: Option<RunAs>,
    /// Where messages go instead of to the system's log.
    pub(crate) log_file: Option<PathBuf>,
    /// Largest size of that file in bytes.
    pub(crate) log_size: u64,
    /// Where the number of the process is written.
    pub(crate) pid_file: Option<PathBuf>,
    /// Where the guest's frames are recorded.
    pub(crate) pcap: Option<PathBuf>,
    /// Path of the socket that takes changes of the rules for ports.
    pub(crate) control_socket: Option<PathBuf>,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Normal,
            is_foreground: false,
            runas: None,
            log_file: None,
            log_size: LOG_SIZE,
            pid_file: None,
            pcap: None,
            control_socket: None,
        }
    }
}

/// How much is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verbosity {
    /// Only what is wrong.
    Quiet,
    Normal,
    Debug,
    /// Every packet.
    Trace,
}

/// An identity: names or numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunAs {
    pub(crate) user: Name,
    /// The group; the user's own one, or the one of the user's number, without it.
    pub(crate) group: Option<Name>,
}

/// A user or a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    Id(u32),
    Name(String),
}

/// The guest's interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GuestOptions {
    /// Its name, instead of the one of the host's interface.
    pub(crate) interface: Option<String>,
    /// Its MAC address; the kernel picks one without it.
    pub(crate) mac: Option<MacAddr>,
    /// Our MAC address on the link.
    pub(crate) gateway_mac: MacAddr,
    /// The MTU in bytes; the guest is not told one without it.
    pub(crate) mtu: Option<u16>,
    /// The host's interface that is copied, instead of the one of the default route.
    pub(crate) template: Option<String>,
    /// Whether the guest's interface is set up. Otherwise the guest does that, by DHCP for example.
    pub(crate) configure: bool,
    /// Whether the addresses of the template are copied where none is given.
    pub(crate) copies_addresses: bool,
    /// Whether the routes of the template are copied where no gateway is given.
    pub(crate) copies_routes: bool,
    /// Host name that DHCP tells, and the one of a command's namespace.
    pub(crate) hostname: Option<String>,
    /// Full name that DHCP and DHCPv6 tell.
    pub(crate) fqdn: Option<String>,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            interface: None,
            mac: None,
            gateway_mac: GATEWAY_MAC,
            mtu: Some(MTU),
            template: None,
            configure: false,
            copies_addresses: true,
            copies_routes: true,
            hostname: None,
            fqdn: None,
        }
    }
}

/// One address of each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    /// Sets the address of its family.
    pub(crate) fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
    }

    /// Whether there is an address of this one's family.
    pub(crate) const fn has_like(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.ipv4.is_some(),
            IpAddr::V6(_) => self.ipv6.is_some(),
        }
    }
}

/// Addresses of the guest and of the host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AddressOptions {
    /// The guest's addresses; those of the template where there is none.
    pub(crate) guest: Addresses,
    /// Length of the prefix of the guest's IPv4 address; the template's without it.
    pub(crate) ipv4_prefix_len: Option<u8>,
    /// Length of the prefix of the guest's IPv6 address; the template's without it.
    pub(crate) ipv6_prefix_len: Option<u8>,
    /// The default gateways; the template's where there is none.
    pub(crate) gateway: Addresses,
    /// Source addresses of the host's sockets. The host's routes decide where there is none.
    pub(crate) outbound: Addresses,
    /// Interface of the host that IPv4 is copied of, without one for both families.
    pub(crate) outbound_if4: Option<String>,
    /// Interface of the host that IPv6 is copied of, without one for both families.
    pub(crate) outbound_if6: Option<String>,
    /// Queries to these addresses go to a resolver of the host.
    pub(crate) dns_forward: Addresses,
    /// That resolver; the host's first one of the family where there is none.
    pub(crate) dns_host: Addresses,
    /// These addresses lead to the host's loopback.
    pub(crate) host_loopback: Addresses,
    /// These addresses lead to the host's own address.
    pub(crate) host_address: Addresses,
}

/// Address families.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Families {
    /// Both, as far as the host has them.
    #[default]
    Both,
    Ipv4,
    Ipv6,
}

/// How the host's own addresses are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MappingOptions {
    /// Whether the gateway's address leads to the host's loopback where no other address does.
    pub(crate) maps_gateway: bool,
    /// Whether connections of the host's loopback arrive at the guest's loopback. Otherwise they
    /// arrive at the guest's own address.
    pub(crate) keeps_loopback: bool,
    /// How connections of the loopback are carried.
    pub(crate) splice: Splice,
    /// Whether ports may be opened at addresses that the host does not have.
    pub(crate) freebind: bool,
}

impl Default for MappingOptions {
    fn default() -> Self {
        Self {
            maps_gateway: true,
            keeps_loopback: false,
            splice: Splice::Loopback,
            freebind: false,
        }
    }
}

/// How connections between the loopbacks are carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Splice {
    /// From socket to socket.
    Loopback,
    /// As all others, by the guest's interface.
    Never,
    /// From socket to socket, and there is no interface for others.
    Only,
}

/// What the link offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServiceOptions {
    pub(crate) tcp: bool,
    pub(crate) udp: bool,
    pub(crate) icmp: bool,
    pub(crate) dhcp: bool,
    pub(crate) dhcpv6: bool,
    pub(crate) ndp: bool,
    pub(crate) router_advertisements: bool,
    /// Resolvers that the guest is told of; the host's ones without a list.
    pub(crate) resolvers: Option<Vec<IpAddr>>,
    /// Domains that the guest is told of; the host's ones without a list.
    pub(crate) search_domains: Option<Vec<String>>,
    /// Whether the guest is told of resolvers at all.
    pub(crate) tells_resolvers: bool,
    /// Whether the guest is told of search domains at all.
    pub(crate) tells_search_domains: bool,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            tcp: true,
            udp: true,
            icmp: true,
            dhcp: true,
            dhcpv6: true,
            ndp: true,
            router_advertisements: true,
            resolvers: None,
            search_domains: None,
            tells_resolvers: false,
            tells_search_domains: false,
        }
    }
}
