//! The command line: from `argv` to what is to be done.
//!
//! Owns what each option means, the order in which things are checked and the texts of refusals,
//! all of them known to callers of slirp4netns. The grammar is in [`getopt`], the list of options
//! in [`table`], the reading of values in [`options`].
//!
//! A value is checked when its option is reached, and `--help` and `--version` act when they are
//! reached, so what stands further right is never looked at. Four things wait until the whole line
//! was read: whether options come with those that they need, the last value of `--target-type`, the
//! operands, and then the values of `--cidr`, `--outbound-addr`, `--outbound-addr6` and
//! `--macaddress`.

mod getopt;
mod table;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use slirp_core::instance::{BUSY_POLL, OutboundAddresses};
use slirp_core::plan::{AddressPlan, Ipv6Plan};
use slirp_core::policy::Policy;
use tracing_subscriber::filter::LevelFilter;

use crate::address;
use crate::options::{self, Options, Target, ValueError};
use crate::publish::Publish;
use getopt::{GrammarError, Token, Tokens};
use table::{OptionId, OptionSpec};

/// What the command line asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Connect a network namespace.
    Run(Box<Options>),
}

/// A remark that does not stop anything; printed on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Warning {
    /// `--enable-ipv6`.
    #[error("WARNING: Support for IPv6 is experimental")]
    Ipv6Experimental,
    /// `--no-host-loopback`.
    #[error("WARNING: --no-host-loopback is deprecated, use --disable-host-loopback instead")]
    NoHostLoopbackDeprecated,
    /// `--create-sandbox`.
    #[error("WARNING: --create-sandbox is deprecated, use --enable-sandbox instead")]
    CreateSandboxDeprecated,
    /// `--enable-seccomp`.
    #[error("WARNING: Support for seccomp is experimental")]
    SeccompExperimental,
    /// `--target-type=bess`.
    #[error("WARNING: BESS mode is experimental")]
    BessExperimental,
    /// `--outbound-addr`.
    #[error("WARNING: Support for --outbound-addr is experimental")]
    OutboundAddrExperimental,
    /// `--outbound-addr6`.
    #[error("WARNING: Support for --outbound-addr6 is experimental")]
    OutboundAddr6Experimental,
    /// More operands than anyone needs.
    #[error("WARNING: too many arguments")]
    TooManyArguments,
    /// `-c` with a descriptor: its device is somewhere we cannot enter.
    #[error("WARNING: --configure has no effect with --netns-type=tapfd")]
    ConfigureWithTapFd,
    /// `--dns` with `--disable-dns`.
    #[error("WARNING: --dns has no effect with --disable-dns")]
    DnsDisabled,
}

/// A command line that was read as far as possible.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Remarks, in the order of what caused them.
    pub(crate) warnings: Vec<Warning>,
    /// What to do, or why nothing.
    pub(crate) command: Result<Command, ArgumentError>,
}

/// Why a command line was refused. The exit code is 1 for all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ArgumentError {
    /// A violation of the grammar; the text begins with the name of the program.
    Grammar(GrammarError),
    /// An operand is missing. Only the usage is shown.
    OperandMissing,
    /// `--mtu`.
    Mtu,
    /// `--exit-fd`.
    ExitFd,
    /// `--ready-fd`.
    ReadyFd,
    /// `--userns-path`.
    UsernsPath(PathBuf),
    /// `--target-type`.
    TargetType,
    /// `--macaddress` without `--configure`.
    MacWithoutConfigure,
    /// The operand of `--netns-type=pid`.
    Pid,
    /// The operand of `--netns-type=path`.
    NetnsPath(Errno),
    /// The operand of `--netns-type=tapfd`.
    TapFd,
    /// Two options, or an option and a value, that exclude each other.
    Conflict(&'static str, &'static str),
    /// More operands than `--target-type=bess` takes.
    TooManyArguments,
    /// An option that is about IPv6 without `--enable-ipv6`.
    WithoutIpv6(&'static str),
    /// A value that is refused without showing the usage.
    Value(ValueError),
}

impl ArgumentError {
    /// The line for stderr, without its end; nothing if the usage alone says it.
    pub(crate) fn text(&self, program: &OsStr) -> Option<Vec<u8>> {
        let with_program = |text: &[u8]| [program.as_bytes(), b": ", text].concat();
        Some(match self {
            Self::Grammar(error) => with_program(&error.text()),
            Self::OperandMissing => return None,
            Self::Mtu => b"MTU must be a positive integer (< 65522)".to_vec(),
            Self::ExitFd => b"exit-fd must be a non-negative integer".to_vec(),
            Self::ReadyFd => b"ready-fd must be a non-negative integer".to_vec(),
            Self::UsernsPath(path) => {
                [b"userns path doesn't exist: ", path.as_os_str().as_bytes()].concat()
            }
            Self::TargetType => b"--target-type must be either \"netns\" or \"bess\"".to_vec(),
            Self::MacWithoutConfigure => {
                b"--macaddr cannot be specified when --configure or -c is not specified".to_vec()
            }
            Self::WithoutIpv6(option) => {
                format!("{option} cannot be specified when --enable-ipv6 or -6 is not specified")
                    .into_bytes()
            }
            Self::Pid => b"PID must be a positive integer".to_vec(),
            Self::NetnsPath(errno) => {
                format!("existing path expected when --netns-type=path: {}", errno.desc())
                    .into_bytes()
            }
            Self::TapFd => b"TAPFD must a file descriptor".to_vec(),
            Self::Conflict(option, other) => {
                format!("{option} conflicts with {other}").into_bytes()
            }
            Self::TooManyArguments => b"too many arguments".to_vec(),
            Self::Value(error) => error.to_string().into_bytes(),
        })
    }

    /// Whether the text ends its line. Two texts of slirp4netns do not.
    pub(crate) const fn ends_line(&self) -> bool {
        !matches!(self, Self::Value(ValueError::OutboundAddr | ValueError::OutboundAddr6))
    }

    /// Whether the usage follows on stdout.
    pub(crate) const fn shows_usage(&self) -> bool {
        !matches!(self, Self::Value(_))
    }
}

impl From<GrammarError> for ArgumentError {
    fn from(error: GrammarError) -> Self {
        Self::Grammar(error)
    }
}

impl From<ValueError> for ArgumentError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

/// The text of `--help`. `program` is repeated as it was called.
pub(crate) fn usage(program: &OsStr) -> Vec<u8> {
    let mut text = b"Usage: ".to_vec();
    text.extend_from_slice(program.as_bytes());
    text.extend_from_slice(b" [OPTION]... PID|PATH|FD [TAPNAME]\n");
    text.extend_from_slice(b"Network for an unprivileged network namespace, in user mode.\n\n");
    text.extend_from_slice(table::listing().as_bytes());
    text
}

/// Reads `arguments`, which do not include the name of the program.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Parsed {
    let mut line = Line::default();
    let command = line.read(arguments);
    Parsed { warnings: line.warnings, command }
}

/// The kind of the first operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum NetnsType {
    #[default]
    Pid,
    Path,
    TapFd,
}

/// The first operand, checked.
#[derive(Debug)]
enum Located {
    Process(i32),
    Netns(PathBuf),
}

/// What has been read of a command line.
#[derive(Debug, Default)]
struct Line {
    warnings: Vec<Warning>,
    operands: Vec<OsString>,
    configure: bool,
    exit_fd: Option<i32>,
    ready_fd: Option<i32>,
    mtu: Option<u16>,
    api_socket: Option<PathBuf>,
    cidr: Option<OsString>,
    cidr6: Option<Ipv6Plan>,
    mac: Option<OsString>,
    outbound_addr: Option<OsString>,
    outbound_addr6: Option<OsString>,
    publish: Vec<Publish>,
    target_type: Option<OsString>,
    netns_type: Option<NetnsType>,
    pcap: Option<PathBuf>,
    exit_with_netns: bool,
    busy_poll: Option<Duration>,
    dns: Vec<SocketAddr>,
    search_domains: Vec<String>,
    log_level: Option<LevelFilter>,
    userns_path: Option<PathBuf>,
    enable_ipv6: bool,
    disable_host_loopback: bool,
    disable_dns: bool,
    enable_sandbox: bool,
    enable_seccomp: bool,
}

impl Line {
    fn read(
        &mut self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Command, ArgumentError> {
        for token in Tokens::new(arguments) {
            match token? {
                Token::Operand(word) => self.operands.push(word),
                Token::Option(option, value) => {
                    if let Some(command) = self.option(option, value)? {
                        return Ok(command);
                    }
                }
            }
        }
        self.finish().map(|options| Command::Run(Box::new(options)))
    }

    /// Takes one option in; a command if it is to be carried out at once.
    fn option(
        &mut self,
        option: &OptionSpec,
        value: OsString,
    ) -> Result<Option<Command>, ArgumentError> {
        match option.id {
            OptionId::Configure => self.configure = true,
            OptionId::ExitFd => {
                self.exit_fd = Some(options::descriptor(&value).ok_or(ArgumentError::ExitFd)?);
            }
            OptionId::ReadyFd => {
                self.ready_fd = Some(options::descriptor(&value).ok_or(ArgumentError::ReadyFd)?);
            }
            OptionId::Mtu => self.mtu = Some(options::mtu(&value).ok_or(ArgumentError::Mtu)?),
            OptionId::EnableIpv6 => {
                self.enable_ipv6 = true;
                self.warnings.push(Warning::Ipv6Experimental);
            }
            OptionId::ApiSocket => self.api_socket = Some(PathBuf::from(value)),
            OptionId::Cidr => self.cidr = Some(value),
            OptionId::Cidr6 => self.cidr6 = Some(options::cidr6(&value)?),
            OptionId::DisableHostLoopback => self.disable_host_loopback = true,
            OptionId::NoHostLoopback => {
                self.disable_host_loopback = true;
                self.warnings.push(Warning::NoHostLoopbackDeprecated);
            }
            OptionId::EnableSandbox => self.enable_sandbox = true,
            OptionId::CreateSandbox => {
                self.enable_sandbox = true;
                self.warnings.push(Warning::CreateSandboxDeprecated);
            }
            OptionId::EnableSeccomp => {
                self.enable_seccomp = true;
                self.warnings.push(Warning::SeccompExperimental);
            }
            OptionId::NetnsType => {
                self.netns_type = Some(match value.as_bytes() {
                    b"pid" => NetnsType::Pid,
                    b"tapfd" => NetnsType::TapFd,
                    // Whatever else it says: it has always meant a path.
                    _ => NetnsType::Path,
                });
            }
            OptionId::UsernsPath => {
                let path = PathBuf::from(value);
                if access(&path, AccessFlags::F_OK).is_err() {
                    return Err(ArgumentError::UsernsPath(path));
                }
                self.userns_path = Some(path);
            }
            OptionId::DisableDns => self.disable_dns = true,
            OptionId::Dns => self.dns.push(address::resolver(&value)?),
            OptionId::SearchDomain => {
                self.search_domains.push(options::search_domain(&value)?);
            }
            OptionId::LogLevel => self.log_level = Some(options::log_level(&value)?),
            OptionId::Publish => {
                // What is no text is no address either.
                let publish = Publish::parse(&value.to_string_lossy())
                    .map_err(|error| ValueError::Publish(value.display().to_string(), error))?;
                self.publish.push(publish);
            }
            OptionId::MacAddress => self.mac = Some(value),
            OptionId::TargetType => self.target_type = Some(value),
            OptionId::Pcap if value == "-" => return Err(ValueError::PcapStdout.into()),
            OptionId::Pcap => self.pcap = Some(PathBuf::from(value)),
            OptionId::ExitWithNetns => self.exit_with_netns = true,
            OptionId::BusyPoll => self.busy_poll = Some(options::busy_poll(&value)?),
            OptionId::Help => return Ok(Some(Command::Help)),
            OptionId::Version => return Ok(Some(Command::Version)),
            OptionId::OutboundAddr => {
                self.outbound_addr = Some(value);
                self.warnings.push(Warning::OutboundAddrExperimental);
            }
            OptionId::OutboundAddr6 => {
                self.outbound_addr6 = Some(value);
                self.warnings.push(Warning::OutboundAddr6Experimental);
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Options, ArgumentError> {
        if self.mac.is_some() && !self.configure {
            return Err(ArgumentError::MacWithoutConfigure);
        }
        if self.cidr6.is_some() && !self.enable_ipv6 {
            return Err(ArgumentError::WithoutIpv6("--cidr6"));
        }
        if self.publish.iter().any(Publish::needs_ipv6) && !self.enable_ipv6 {
            return Err(ArgumentError::WithoutIpv6("--publish with an IPv6 address of the guest"));
        }
        let target = self.target()?;
        let mut plan = match &self.cidr {
            Some(cidr) => options::cidr(cidr)?,
            None => AddressPlan::default(),
        };
        if self.enable_ipv6 {
            plan = plan.with_ipv6(self.cidr6.unwrap_or_default());
        }
        let outbound = self.outbound()?;
        let mac = self.mac.as_deref().map(options::mac).transpose()?;
        let mut policy = Policy::default();
        policy.allow_host_loopback = !self.disable_host_loopback;
        policy.dns_service = !self.disable_dns;
        if self.disable_dns && !self.dns.is_empty() {
            self.warnings.push(Warning::DnsDisabled);
        }
        Ok(Options {
            target,
            api_socket: self.api_socket.take(),
            publish: std::mem::take(&mut self.publish),
            pcap: self.pcap.take(),
            exit_with_netns: self.exit_with_netns,
            busy_poll: self.busy_poll.unwrap_or(BUSY_POLL),
            outbound,
            dns: std::mem::take(&mut self.dns),
            search_domains: std::mem::take(&mut self.search_domains),
            log_level: self.log_level,
            configure: self.configure,
            mtu: self.mtu.unwrap_or(1500),
            plan,
            policy,
            mac,
            ready_fd: self.ready_fd,
            exit_fd: self.exit_fd,
            sandbox: self.enable_sandbox,
            seccomp: self.enable_seccomp,
        })
    }

    /// The one operand of `--target-type=bess`.
    fn bess(&mut self) -> Result<Target, ArgumentError> {
        const BESS: &str = "--target-type=bess";
        let mut operands = std::mem::take(&mut self.operands).into_iter();
        let path = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if operands.len() > 0 {
            return Err(ArgumentError::TooManyArguments);
        }
        for (is_given, option) in [
            (self.configure, "--configure"),
            (self.netns_type.is_some(), "--netns-type"),
            (self.userns_path.is_some(), "--userns-path"),
            (self.exit_with_netns, "--exit-with-netns"),
        ] {
            if is_given {
                return Err(ArgumentError::Conflict(option, BESS));
            }
        }
        self.warnings.push(Warning::BessExperimental);
        Ok(Target::Bess(path.into()))
    }

    fn outbound(&self) -> Result<OutboundAddresses, ValueError> {
        let mut outbound = OutboundAddresses::default();
        if let Some(text) = &self.outbound_addr {
            outbound.ipv4 = address::outbound_ipv4(text)?;
        }
        if let Some(text) = &self.outbound_addr6 {
            let found = address::outbound_ipv6(text)?;
            (outbound.ipv6, outbound.ipv6_scope) = (found.ipv6, found.ipv6_scope);
        }
        Ok(outbound)
    }

    fn target(&mut self) -> Result<Target, ArgumentError> {
        match self.target_type.as_ref().map(|text| text.as_bytes()) {
            None | Some(b"netns") => {}
            Some(b"bess") => return self.bess(),
            Some(_) => return Err(ArgumentError::TargetType),
        }
        let netns_type = self.netns_type.unwrap_or_default();
        let mut operands = std::mem::take(&mut self.operands).into_iter();
        let first = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if netns_type == NetnsType::TapFd {
            if self.exit_with_netns {
                return Err(ArgumentError::Conflict("--exit-with-netns", "--netns-type=tapfd"));
            }
            // A name for the device is one word too many, but harmless.
            if operands.len() > 1 {
                self.warnings.push(Warning::TooManyArguments);
            }
            let fd = options::descriptor(&first).ok_or(ArgumentError::TapFd)?;
            if self.configure {
                self.warnings.push(Warning::ConfigureWithTapFd);
            }
            return Ok(Target::TapFd(fd));
        }
        let name = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if operands.len() > 0 {
            self.warnings.push(Warning::TooManyArguments);
        }
        let located = if netns_type == NetnsType::Pid {
            Located::Process(options::pid(&first).ok_or(ArgumentError::Pid)?)
        } else {
            let netns = PathBuf::from(first);
            access(&netns, AccessFlags::F_OK).map_err(ArgumentError::NetnsPath)?;
            Located::Netns(netns)
        };
        let tap = options::tap_name(&name)?;
        let userns = self.userns_path.take();
        Ok(match located {
            Located::Process(pid) => Target::Pid { pid, userns, tap },
            Located::Netns(netns) => Target::Path { netns, userns, tap },
        })
    }
}

#[cfg(test)]
mod documentation;
#[cfg(test)]
mod tests;
