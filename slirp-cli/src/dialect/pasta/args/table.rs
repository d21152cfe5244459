//! The options, as data.
//!
//! Owns the one table from which the parser, `--help`, the manual page and the completions are
//! made. The parent module decides what an option *does*. Callers and scripts search `--help` for
//! names, so an option is listed only once it works. Options of pasta(1), for namespaces, and of
//! passt(1), for virtual machines, are in one table: their prefixes count in both, and an option of
//! the other program is refused by name.

use crate::dialect::getopt::Origin::Upstream;
use crate::dialect::getopt::{OptionSpec, options};
use crate::dialect::pasta::options::Mode;
use crate::words::Offers::{Files, Interfaces, Words};

const MTUS: &[&str] = &["1500", "65520"];
const PORTS: &[&str] = &["none", "auto", "all"];
const NONE: &[&str] = &["none"];

options! {
    ConfigNet: Upstream(0), "config-net",
        "set the guest's interface up: addresses, routes, MTU";
    Debug: Upstream(0), [b'd'] "debug",
        "say more, on stderr";
    Trace: Upstream(0), "trace",
        "say something about every packet as well";
    Quiet: Upstream(0), [b'q'] "quiet",
        "say only what is wrong";
    Foreground: Upstream(0), [b'f'] "foreground",
        "stay in the foreground (default: a daemon, once the network is ready)";
    Stderr: Upstream(0), [b'e'] "stderr";
    LogFile: Upstream(0), [b'l'] "log-file" = "PATH" of Files,
        "log to this file instead of to the system's log";
    LogSize: Upstream(0), "log-size" = "BYTES",
        "largest size of that file (default=1048576, min=40960)";
    RunAs: Upstream(0), "runas" = "USER[:GROUP]",
        "run as this user, if started as root";
    ConfPath: Upstream(0), [b'c'] "conf-path" = "PATH" of Files,
        "path of the socket at which pesto(1) changes ports";
    Help: Upstream(0), [b'h'] "help",
        "print this text and exit";
    Version: Upstream(0), "version",
        "print the version and exit";
    Pcap: Upstream(0), [b'p'] "pcap" = "FILE" of Files,
        "record the guest's frames, for Wireshark or tcpdump";
    Pid: Upstream(0), [b'P'] "pid" = "FILE" of Files,
        "write the number of the process to this file";
    Mtu: Upstream(0), [b'm'] "mtu" = "MTU" of Words(MTUS),
        "MTU of the guest's interface (default=65520, max=65521, 0: not told)";
    Address: Upstream(0), [b'a'] "address" = "ADDR[/LEN]",
        "the guest's address, once a family (default: those of the host)";
    Netmask: Upstream(0), [b'n'] "netmask" = "MASK",
        "its IPv4 netmask, with dots or in bits";
    MacAddr: Upstream(0), [b'M'] "mac-addr" = "MAC",
        "our MAC address on the link (default=9a:55:9a:55:9a:55)";
    Gateway: Upstream(0), [b'g'] "gateway" = "ADDR",
        "the guest's default gateway, once a family (default: the host's routes)";
    Interface: Upstream(0), [b'i'] "interface" = "NAME" of Interfaces,
        "interface to copy addresses and routes of (default: of the default route)";
    Outbound: Upstream(0), [b'o'] "outbound" = "ADDR",
        "address of the host that traffic leaves from, once a family";
    OutboundIf4: Upstream(0), "outbound-if4" = "NAME" of Interfaces,
        "interface that IPv4 traffic leaves by, copied unless -i is given";
    OutboundIf6: Upstream(0), "outbound-if6" = "NAME" of Interfaces,
        "interface that IPv6 traffic leaves by, copied unless -i is given";
    Dns: Upstream(0), [b'D'] "dns" = "ADDR|none" of Words(NONE),
        "resolver to tell the guest of (repeatable; default: those of the host)";
    Search: Upstream(0), [b'S'] "search" = "DOMAIN|none" of Words(NONE),
        "search domain to tell the guest of (repeatable; default: those of the host)";
    DhcpDns: Upstream(0), "dhcp-dns",
        "tell the guest of resolvers by DHCP, DHCPv6 and NDP";
    DhcpSearch: Upstream(0), "dhcp-search",
        "tell the guest of search domains by DHCP, DHCPv6 and NDP";
    DnsForward: Upstream(0), "dns-forward" = "ADDR",
        "answer DNS queries to this address, once a family";
    DnsHost: Upstream(0), "dns-host" = "ADDR",
        "resolver that they go to, once a family (default: those of the host)";
    Hostname: Upstream(0), [b'H'] "hostname" = "NAME",
        "host name to tell the guest, and of COMMAND";
    Fqdn: Upstream(0), "fqdn" = "NAME",
        "full name to tell the guest";
    NoTcp: Upstream(0), "no-tcp",
        "carry no TCP";
    NoUdp: Upstream(0), "no-udp",
        "carry no UDP";
    NoIcmp: Upstream(0), "no-icmp",
        "carry no ICMP and ICMPv6 (implies --no-ndp)";
    NoDhcp: Upstream(0), "no-dhcp",
        "offer no DHCP";
    NoNdp: Upstream(0), "no-ndp",
        "answer no neighbour solicitations";
    NoDhcpv6: Upstream(0), "no-dhcpv6",
        "offer no DHCPv6";
    NoRa: Upstream(0), "no-ra",
        "send no router advertisements (implied by --config-net)";
    Freebind: Upstream(0), "freebind",
        "open ports also at addresses that the host does not have";
    MapHostLoopback: Upstream(0), "map-host-loopback" = "ADDR|none" of Words(NONE),
        "the host's loopback has this address (default: the gateway's)";
    NoMapGw: Upstream(0), "no-map-gw",
        "keep the guest away from the host's loopback by the gateway's address";
    MapGuestAddr: Upstream(0), "map-guest-addr" = "ADDR|none" of Words(NONE),
        "the host's own address, which the guest has as well, has this address";
    Ipv4Only: Upstream(0), [b'4'] "ipv4-only",
        "IPv4 alone";
    Ipv6Only: Upstream(0), [b'6'] "ipv6-only",
        "IPv6 alone";
    TcpPorts: Upstream(0), [b't'] "tcp-ports" = "SPEC" of Words(PORTS),
        "TCP ports of the host that lead to the guest (repeatable, default=auto)";
    UdpPorts: Upstream(0), [b'u'] "udp-ports" = "SPEC" of Words(PORTS),
        "UDP ports of the host that lead to the guest (repeatable, default=auto)";
    TcpNs: Upstream(0), [b'T'] "tcp-ns" = "SPEC" of Words(PORTS),
        "TCP ports of the guest's 127.0.0.1 that lead to the host's (repeatable)";
    UdpNs: Upstream(0), [b'U'] "udp-ns" = "SPEC" of Words(PORTS),
        "UDP ports of the guest's 127.0.0.1 that lead to the host's (repeatable)";
    NsIfname: Upstream(0), [b'I'] "ns-ifname" = "NAME",
        "name of the guest's interface (default: as on the host)";
    NsMacAddr: Upstream(0), "ns-mac-addr" = "MAC",
        "MAC address of the guest's interface";
    Userns: Upstream(0), "userns" = "PATH" of Files,
        "user namespace to join (default: the one of PID)";
    Netns: Upstream(0), "netns" = "PATH|NAME" of Files,
        "network namespace to join, instead of that of PID";
    NetnsOnly: Upstream(0), "netns-only",
        "stay in the user namespace of the caller (implied by --netns)";
    NoNetnsQuit: Upstream(0), "no-netns-quit",
        "do not exit when the network namespace is gone";
    HostLoToNsLo: Upstream(0), "host-lo-to-ns-lo",
        "connections of the host's loopback arrive at the guest's loopback";
    NoSplice: Upstream(0), "no-splice",
        "connections of the host's loopback arrive by the guest's interface";
    SpliceOnly: Upstream(0), "splice-only",
        "join the loopbacks and give the guest no interface";
    ChrootFallback: Upstream(0), "chroot-fallback";
    NoCopyRoutes: Upstream(0), "no-copy-routes";
    NoCopyAddrs: Upstream(0), "no-copy-addrs";
    Stats: Upstream(0), "stats" = "SECONDS";
    Fd: Upstream(0), [b'F'] "fd" = "FD",
        "connected socket of the virtual machine, whose end ends the program";
    Socket: Upstream(0), [b's'] "socket" = "PATH" of Files,
        "socket at which it connects (default: first free of /tmp/passt_1.socket ...)";
    SocketPath: Upstream(0), "socket-path" = "PATH" of Files;
    OneOff: Upstream(0), [b'1'] "one-off",
        "exit when the first virtual machine has hung up";
    NoDhcpDns: Upstream(0), "no-dhcp-dns",
        "do not tell the guest of resolvers";
    NoDhcpSearch: Upstream(0), "no-dhcp-search",
        "do not tell the guest of search domains";
    VhostUser: Upstream(0), "vhost-user";
    PrintCapabilities: Upstream(0), "print-capabilities";
    RepairPath: Upstream(0), "repair-path" = "PATH|none" of Files;
    MigrateExit: Upstream(0), "migrate-exit";
    MigrateNoLinger: Upstream(0), "migrate-no-linger";
}

impl OptionId {
    /// The one program that has the option; `None` if both have it.
    pub(super) const fn only_in(self) -> Option<Mode> {
        match self {
            Self::ConfigNet
            | Self::DhcpDns
            | Self::DhcpSearch
            | Self::TcpNs
            | Self::UdpNs
            | Self::NsIfname
            | Self::NsMacAddr
            | Self::Userns
            | Self::Netns
            | Self::NetnsOnly
            | Self::NoNetnsQuit
            | Self::HostLoToNsLo
            | Self::NoSplice
            | Self::SpliceOnly
            | Self::NoCopyRoutes
            | Self::NoCopyAddrs => Some(Mode::Pasta),
            Self::Socket
            | Self::SocketPath
            | Self::OneOff
            | Self::NoDhcpDns
            | Self::NoDhcpSearch
            | Self::VhostUser
            | Self::PrintCapabilities
            | Self::RepairPath
            | Self::MigrateExit
            | Self::MigrateNoLinger => Some(Mode::Passt),
            Self::Debug
            | Self::Trace
            | Self::Quiet
            | Self::Foreground
            | Self::Stderr
            | Self::LogFile
            | Self::LogSize
            | Self::RunAs
            | Self::ConfPath
            | Self::Help
            | Self::Version
            | Self::Pcap
            | Self::Pid
            | Self::Mtu
            | Self::Address
            | Self::Netmask
            | Self::MacAddr
            | Self::Gateway
            | Self::Interface
            | Self::Outbound
            | Self::OutboundIf4
            | Self::OutboundIf6
            | Self::Dns
            | Self::Search
            | Self::DnsForward
            | Self::DnsHost
            | Self::Hostname
            | Self::Fqdn
            | Self::NoTcp
            | Self::NoUdp
            | Self::NoIcmp
            | Self::NoDhcp
            | Self::NoNdp
            | Self::NoDhcpv6
            | Self::NoRa
            | Self::Freebind
            | Self::MapHostLoopback
            | Self::NoMapGw
            | Self::MapGuestAddr
            | Self::Ipv4Only
            | Self::Ipv6Only
            | Self::TcpPorts
            | Self::UdpPorts
            | Self::ChrootFallback
            | Self::Stats
            | Self::Fd => None,
        }
    }
}

/// The options that `--help` of a program may list.
pub(super) fn listed(mode: Mode) -> impl Iterator<Item = &'static OptionSpec<OptionId>> {
    let is_of_it = move |option: &&OptionSpec<OptionId>| {
        // In pasta(1) it has no effect.
        let only = if option.id == OptionId::Fd { Some(Mode::Passt) } else { option.id.only_in() };
        only.is_none_or(|only| only == mode)
    };
    OPTIONS.iter().filter(is_of_it)
}
