//! The command line: from `argv` to a command.
//!
//! Owns the meaning of each option and the order of the checks. The grammar is in
//! [`getopt`](crate::dialect::getopt), the list of options in [`table`], the parsing of values in
//! [`values`], the texts of warnings and refusals in [`refusal`], that of ports in
//! [`ports`](super::ports).
//!
//! A value is checked when its option is reached. `--help` and `--version` act when they are
//! reached, so anything further right is ignored: callers find out whether an option exists by
//! `pasta --OPTION --version`. Operands, options that need or exclude each other, and then ports
//! are checked at the end. Of an option that is repeated, the last one counts, if its description
//! does not say otherwise.

mod refusal;
mod table;
mod values;

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::options::{
    Addresses, Families, Mode, PastaOptions, Place, ServiceOptions, Splice, Target, Userns,
    Verbosity,
};
use super::ports::rules::{PortOption, PortRules};
use crate::dialect::getopt::{self, OptionSpec, Token, Tokens};
pub(crate) use refusal::{ArgumentError, Warning};
use table::{OPTIONS, OptionId};
use values::Kind;

/// The width of the left column of `--help`: descriptions start in the column after it.
const LEFT_COLUMN: usize = 30;

/// Length of the prefix of an IPv6 address that is given without it.
const IPV6_PREFIX_LEN: u8 = 64;

/// Smallest MTU of IPv6 (RFC 8200, section 5). Below that of IPv4 no MTU is taken.
const IPV6_MTU_MIN: u16 = 1280;

/// The command of a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Connect a guest.
    Run(Box<PastaOptions>),
}

/// A command line that was read as far as possible.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Warnings, in the order of their causes; none of a run that is to be quiet.
    pub(crate) warnings: Vec<Warning>,
    /// The command, or why there is none.
    pub(crate) command: Result<Command, ArgumentError>,
}

/// The text of `--help`, and of a bad command line.
pub(crate) fn usage(program: &OsStr, mode: Mode) -> Vec<u8> {
    let (forms, about): (&[&[u8]], &[u8]) = match mode {
        Mode::Pasta => (
            &[
                b" [OPTION]... [COMMAND] [ARGS]...\n",
                b" [OPTION]... PID\n",
                b" [OPTION]... --netns PATH|NAME\n",
            ],
            b"\nRuns COMMAND, or a shell, in a new network and user namespace, or joins the \
              namespaces of\nPID or of a path, and connects them to the host's network.\n\n",
        ),
        Mode::Passt => (
            &[b" [OPTION]...\n"],
            b"\nConnects a virtual machine to the host's network, by a Unix socket that carries \
              its\nframes, such as QEMU's -netdev stream.\n\n",
        ),
    };
    let mut text = Vec::new();
    for (at, form) in forms.iter().enumerate() {
        let start: &[u8] = if at == 0 { b"Usage: " } else { b"       " };
        text.extend_from_slice(&[start, program.as_bytes(), form].concat());
    }
    text.extend_from_slice(about);
    text.extend_from_slice(getopt::listing(table::listed(mode), LEFT_COLUMN).as_bytes());
    text
}

/// Reads `arguments` of a program, without its name. `ephemeral` are the ports that
/// the system gives out by itself.
pub(crate) fn parse(
    mode: Mode,
    arguments: impl IntoIterator<Item = OsString>,
    ephemeral: &RangeInclusive<u16>,
) -> Parsed {
    let mut line = Line { mode, ..Line::default() };
    if mode == Mode::Passt {
        line.options.services.tells_resolvers = true;
        line.options.services.tells_search_domains = true;
    }
    let command = line.read(arguments, ephemeral);
    if let Ok(Command::Run(options)) = &command
        && options.process.verbosity == Verbosity::Quiet
    {
        line.warnings.clear();
    }
    Parsed { warnings: line.warnings, command }
}

/// The parsed part of a command line.
#[derive(Debug, Default)]
struct Line {
    mode: Mode,
    warnings: Vec<Warning>,
    operands: Vec<OsString>,
    options: PastaOptions,
    ports: Vec<(PortOption, String)>,
    /// `--netmask`.
    netmask: Option<u8>,
    netns: Option<Place>,
    /// `--fd`.
    fd: Option<i32>,
    /// `--socket`.
    socket: Option<PathBuf>,
    /// `--one-off`.
    is_one_off: bool,
    userns: Option<Userns>,
    is_netns_only: bool,
}

impl Line {
    fn read(
        &mut self,
        arguments: impl IntoIterator<Item = OsString>,
        ephemeral: &RangeInclusive<u16>,
    ) -> Result<Command, ArgumentError> {
        for token in Tokens::new(OPTIONS, arguments).until_operand() {
            match token? {
                Token::Operand(word) => self.operands.push(word),
                Token::Option(option, value) => {
                    if let Some(command) = self.option(option, &value)? {
                        return Ok(command);
                    }
                }
            }
        }
        self.options.target = self.target()?;
        self.finish()?;
        let given = self.ports.iter().map(|(option, text)| (*option, text.as_str()));
        self.options.ports = match self.mode {
            Mode::Pasta => PortRules::new(given, ephemeral)?,
            Mode::Passt => {
                // What is not given is none there.
                let missing = PortOption::ALL
                    .into_iter()
                    .filter(|option| self.ports.iter().all(|(other, _)| other != option));
                let rules =
                    PortRules::new(given.chain(missing.map(|option| (option, "none"))), ephemeral)?;
                if rules.inbound.iter().any(|rule| rule.is_scanned) {
                    return Err(ArgumentError::AutoForPasta);
                }
                rules
            }
        };
        Ok(Command::Run(Box::new(std::mem::take(&mut self.options))))
    }

    /// Takes one option. Returns a command if the option acts at once.
    fn option(
        &mut self,
        option: &OptionSpec<OptionId>,
        value: &OsStr,
    ) -> Result<Option<Command>, ArgumentError> {
        let PastaOptions { process, guest, addresses, mapping, services, families, .. } =
            &mut self.options;
        match option.id.only_in() {
            Some(Mode::Pasta) if self.mode == Mode::Passt => {
                return Err(ArgumentError::ForPasta(option.long));
            }
            Some(Mode::Passt) if self.mode == Mode::Pasta => {
                return Err(ArgumentError::ForPasst(option.long));
            }
            Some(Mode::Pasta | Mode::Passt) | None => {}
        }
        match option.id {
            OptionId::Help => return Ok(Some(Command::Help)),
            OptionId::Version => return Ok(Some(Command::Version)),

            OptionId::Debug if process.verbosity == Verbosity::Trace => {}
            OptionId::Debug => process.verbosity = Verbosity::Debug,
            OptionId::Trace => process.verbosity = Verbosity::Trace,
            OptionId::Quiet => process.verbosity = Verbosity::Quiet,
            OptionId::Foreground => process.is_foreground = true,
            // RootlessKit passes it. Messages go to stderr until the daemon starts, with or without
            // it.
            OptionId::Stderr => {}
            OptionId::LogFile => {
                process.log_file = Some(values::path("Invalid --log-file:", value)?);
            }
            OptionId::LogSize => process.log_size = values::log_size(value)?,
            OptionId::RunAs => process.runas = Some(values::runas(value)?),
            OptionId::ConfPath => {
                process.control_socket = Some(values::path("Invalid --conf-path:", value)?);
            }
            OptionId::Pcap => process.pcap = Some(values::path("Invalid --pcap:", value)?),
            OptionId::Pid => process.pid_file = Some(values::path("Invalid --pid:", value)?),
            OptionId::Fd => {
                let fd = values::descriptor(value)?;
                match self.mode {
                    Mode::Pasta => self.warnings.push(Warning::NoEffect("--fd")),
                    Mode::Passt => self.fd = Some(fd),
                }
            }
            OptionId::ChrootFallback => {
                self.warnings.push(Warning::NoEffect("--chroot-fallback"));
            }
            OptionId::Stats => {
                if !process.is_foreground {
                    return Err(ArgumentError::Needs("--stats", "--foreground before it"));
                }
                values::seconds(value)?;
                self.warnings.push(Warning::NoEffect("--stats"));
            }

            OptionId::ConfigNet => guest.configure = true,
            OptionId::Mtu => guest.mtu = values::mtu(value)?,
            OptionId::MacAddr => guest.gateway_mac = values::mac(value)?,
            OptionId::NsMacAddr => guest.mac = Some(values::mac(value)?),
            OptionId::Interface => guest.template = Some(values::interface(value)?),
            OptionId::NsIfname => guest.interface = Some(values::interface(value)?),
            OptionId::NoCopyRoutes => guest.copies_routes = false,
            OptionId::NoCopyAddrs => guest.copies_addresses = false,
            OptionId::Hostname => guest.hostname = Some(values::hostname(value)?),
            OptionId::Fqdn => guest.fqdn = Some(values::fqdn(value)?),

            OptionId::Address => {
                const WHAT: &str = "Invalid address:";
                let (address, len) = values::guest_address(value)?;
                once(&mut addresses.guest, address, WHAT, value)?;
                match address {
                    IpAddr::V4(_) => addresses.ipv4_prefix_len = len,
                    IpAddr::V6(_) => addresses.ipv6_prefix_len = len,
                }
            }
            OptionId::Netmask => self.netmask = Some(values::netmask(value)?),
            OptionId::Gateway => {
                const WHAT: &str = "Invalid gateway address:";
                let address = values::address(WHAT, value, Kind::Host)?;
                once(&mut addresses.gateway, address, WHAT, value)?;
            }
            OptionId::Outbound => {
                const WHAT: &str = "Invalid or redundant outbound address:";
                let address = values::address(WHAT, value, Kind::HostOrIpv4Loopback)?;
                once(&mut addresses.outbound, address, WHAT, value)?;
            }
            OptionId::OutboundIf4 => addresses.outbound_if4 = Some(values::interface(value)?),
            OptionId::OutboundIf6 => addresses.outbound_if6 = Some(values::interface(value)?),
            OptionId::DnsForward => {
                const WHAT: &str = "Invalid DNS forwarding address:";
                let address = values::address(WHAT, value, Kind::Host)?;
                once(&mut addresses.dns_forward, address, WHAT, value)?;
            }
            OptionId::DnsHost => {
                const WHAT: &str = "Invalid DNS host address:";
                addresses.dns_host.set(values::address(WHAT, value, Kind::HostOrLoopback)?);
            }
            OptionId::Ipv4Only => *families = Families::Ipv4,
            OptionId::Ipv6Only => *families = Families::Ipv6,

            OptionId::MapHostLoopback => {
                const WHAT: &str = "Invalid --map-host-loopback address:";
                match values::address_or_none(WHAT, value)? {
                    Some(address) => addresses.host_loopback.set(address),
                    None => {
                        addresses.host_loopback = Addresses::default();
                        mapping.maps_gateway = false;
                    }
                }
            }
            OptionId::NoMapGw => mapping.maps_gateway = false,
            OptionId::MapGuestAddr => {
                const WHAT: &str = "Invalid --map-guest-addr address:";
                match values::address_or_none(WHAT, value)? {
                    Some(address) => addresses.host_address.set(address),
                    None => addresses.host_address = Addresses::default(),
                }
            }
            OptionId::HostLoToNsLo => mapping.keeps_loopback = true,
            OptionId::NoSplice if mapping.splice == Splice::Only => {
                return Err(ArgumentError::Conflict("--no-splice", "--splice-only"));
            }
            OptionId::NoSplice => mapping.splice = Splice::Never,
            OptionId::SpliceOnly if mapping.splice == Splice::Never => {
                return Err(ArgumentError::Conflict("--splice-only", "--no-splice"));
            }
            OptionId::SpliceOnly => mapping.splice = Splice::Only,
            OptionId::Freebind => mapping.freebind = true,

            OptionId::Dns => match values::dns(value)? {
                Some(address) => services.resolvers.get_or_insert_default().push(address),
                None => {
                    services.resolvers = Some(Vec::new());
                    addresses.dns_forward = Addresses::default();
                }
            },
            OptionId::Search => match values::search_domain(value)? {
                Some(domain) => services.search_domains.get_or_insert_default().push(domain),
                None => services.search_domains = Some(Vec::new()),
            },
            OptionId::DhcpDns => services.tells_resolvers = true,
            OptionId::DhcpSearch => services.tells_search_domains = true,
            OptionId::NoTcp => services.tcp = false,
            OptionId::NoUdp => services.udp = false,
            OptionId::NoIcmp => (services.icmp, services.ndp) = (false, false),
            OptionId::NoDhcp => services.dhcp = false,
            OptionId::NoDhcpv6 => services.dhcpv6 = false,
            OptionId::NoNdp => services.ndp = false,
            OptionId::NoRa => services.router_advertisements = false,

            OptionId::TcpPorts => self.ports(PortOption::TcpToGuest, value),
            OptionId::UdpPorts => self.ports(PortOption::UdpToGuest, value),
            OptionId::TcpNs => self.ports(PortOption::TcpToHost, value),
            OptionId::UdpNs => self.ports(PortOption::UdpToHost, value),

            OptionId::Userns => {
                self.userns = Some(Userns::Path(values::path("Invalid --userns:", value)?));
            }
            OptionId::Netns => self.netns = Some(Place::Netns(values::netns(value)?)),
            OptionId::NetnsOnly => self.is_netns_only = true,
            OptionId::NoNetnsQuit => self.options.target.quits_with_netns = false,

            OptionId::Socket | OptionId::SocketPath => {
                self.socket = Some(values::path("Invalid socket path:", value)?);
            }
            OptionId::OneOff => self.is_one_off = true,
            OptionId::NoDhcpDns => services.tells_resolvers = false,
            OptionId::NoDhcpSearch => services.tells_search_domains = false,
            OptionId::VhostUser | OptionId::PrintCapabilities => {
                return Err(ArgumentError::Unsupported(option.long));
            }
            OptionId::RepairPath => self.warnings.push(Warning::NoEffect("--repair-path")),
            OptionId::MigrateExit => self.warnings.push(Warning::NoEffect("--migrate-exit")),
            OptionId::MigrateNoLinger => {
                self.warnings.push(Warning::NoEffect("--migrate-no-linger"));
            }
        }
        Ok(None)
    }

    /// Keeps a value about ports until the whole line was read.
    fn ports(&mut self, option: PortOption, value: &OsStr) {
        // Non-UTF-8 input cannot be ports; let the parser reject it.
        self.ports.push((option, value.to_string_lossy().into_owned()));
    }

    /// What is connected, by operands and options together.
    fn target(&mut self) -> Result<Target, ArgumentError> {
        let operands = std::mem::take(&mut self.operands);
        if self.mode == Mode::Passt {
            if let Some(operand) = operands.first() {
                return Err(ArgumentError::Extra(operand.display().to_string()));
            }
            let place = match (self.fd, self.socket.take()) {
                (Some(_), Some(_)) => return Err(ArgumentError::Conflict("--fd", "--socket")),
                (Some(fd), None) => Place::Descriptor(fd),
                (None, path) => Place::Socket { path, is_one_off: self.is_one_off },
            };
            return Ok(Target { place, userns: Userns::Callers, quits_with_netns: false });
        }
        let place = match (self.netns.take(), operands.as_slice()) {
            (Some(_), [_, ..]) => return Err(ArgumentError::NetnsAndOperand),
            (Some(place), []) => place,
            (None, [pid]) if pid.as_bytes().iter().all(u8::is_ascii_digit) && !pid.is_empty() => {
                Place::Process(values::pid(pid)?)
            }
            (None, _) => Place::Command(operands),
        };
        let userns = match (self.userns.take(), &place) {
            (Some(_), _) if self.is_netns_only => return Err(ArgumentError::UsernsAndNetnsOnly),
            (Some(userns), _) => userns,
            (None, Place::Netns(_)) => Userns::Callers,
            (None, _) if self.is_netns_only => Userns::Callers,
            (
                None,
                Place::Command(_) | Place::Process(_) | Place::Socket { .. } | Place::Descriptor(_),
            ) => Userns::OfPlace,
        };
        Ok(Target { place, userns, quits_with_netns: self.options.target.quits_with_netns })
    }

    /// The other checks at the end of the line, and what options imply.
    fn finish(&mut self) -> Result<(), ArgumentError> {
        let PastaOptions { target, process, guest, addresses, mapping, services, families, .. } =
            &mut self.options;
        if matches!(target.place, Place::Command(_)) {
            process.is_foreground = true;
            if process.verbosity == Verbosity::Normal {
                process.verbosity = Verbosity::Quiet;
            }
        }
        for (copies, option) in
            [(guest.copies_routes, "--no-copy-routes"), (guest.copies_addresses, "--no-copy-addrs")]
        {
            if !copies && !guest.configure {
                return Err(ArgumentError::Needs(option, "--config-net"));
            }
            self.warnings.extend((!copies).then_some(Warning::Deprecated(option)));
        }
        if guest.configure {
            services.router_advertisements = false;
        }
        match mapping.splice {
            Splice::Loopback => {}
            Splice::Never if mapping.keeps_loopback => {
                return Err(ArgumentError::Conflict("--host-lo-to-ns-lo", "--no-splice"));
            }
            Splice::Never => {}
            Splice::Only => {
                mapping.keeps_loopback = true;
                *services = ServiceOptions {
                    icmp: false,
                    ndp: false,
                    resolvers: Some(Vec::new()),
                    ..std::mem::take(services)
                };
                addresses.dns_forward = Addresses::default();
            }
        }
        if addresses.ipv4_prefix_len.is_some() && self.netmask.is_some() {
            return Err(ArgumentError::PrefixLenTwice);
        }
        let of_class = addresses.guest.ipv4.map(values::class_prefix_len);
        addresses.ipv4_prefix_len = addresses.ipv4_prefix_len.or(self.netmask).or(of_class);
        if addresses.guest.ipv6.is_some() {
            addresses.ipv6_prefix_len.get_or_insert(IPV6_PREFIX_LEN);
        }
        let has_ipv6 = *families != Families::Ipv4;
        if let Some(mtu) = guest.mtu.filter(|&mtu| has_ipv6 && mtu < IPV6_MTU_MIN) {
            self.warnings.push(Warning::SmallMtu(mtu, IPV6_MTU_MIN));
        }
        Ok(())
    }
}

/// Sets the address of a family that has none yet; a second one is refused as an invalid one is.
fn once(
    addresses: &mut Addresses,
    address: IpAddr,
    what: &'static str,
    text: &OsStr,
) -> Result<(), ArgumentError> {
    if addresses.has_like(address) {
        return Err(ArgumentError::Value(what, text.display().to_string()));
    }
    addresses.set(address);
    Ok(())
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
