//! The command line: from `argv` to a command.
//!
//! Owns the meaning of each option and the order of the checks; callers of slirp4netns know both.
//! The grammar is in [`getopt`](crate::dialect::getopt), the list of options in [`table`], the
//! parsing of values in [`values`], the texts of warnings and refusals in [`refusal`].
//!
//! A value is checked when its option is reached, and `--help` and `--version` act when they are
//! reached, so anything further right is ignored. Four checks wait until the whole line was read:
//! that options come with the options that they need, the last value of `--target-type`, the
//! operands, and then the values of `--cidr`, `--outbound-addr`, `--outbound-addr6` and
//! `--macaddress`.

mod refusal;
mod table;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::unistd::{AccessFlags, access};
use slirp_core::instance::OutboundAddresses;
use slirp_core::link::Framing;
use slirp_core::plan::Ipv6Plan;

use super::values::{self, ValueError};
use super::{address, network};
use crate::dialect::getopt::{OptionSpec, Token, Tokens};
use crate::options::{Options, Target};
use crate::publish::Publish;
pub(crate) use refusal::{ArgumentError, Warning};
pub(crate) use table::OPTIONS;
use table::OptionId;

/// The command of a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Connect a guest.
    Run(Target, Box<Options>),
}

/// A command line that was read as far as possible.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Warnings, in the order of their causes.
    pub(crate) warnings: Vec<Warning>,
    /// The command, or why there is none.
    pub(crate) command: Result<Command, ArgumentError>,
}

/// The text of `--help`. `program` is the program's name as it was called.
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

/// The parsed part of a command line.
#[derive(Debug, Default)]
struct Line {
    warnings: Vec<Warning>,
    operands: Vec<OsString>,
    /// Values that are checked as soon as they are read.
    options: Options,
    /// Values that are checked at the end of the line.
    cidr: Option<OsString>,
    cidr6: Option<Ipv6Plan>,
    mac: Option<OsString>,
    outbound_addr: Option<OsString>,
    outbound_addr6: Option<OsString>,
    target_type: Option<OsString>,
    netns_type: Option<NetnsType>,
    userns_path: Option<PathBuf>,
    enable_ipv6: bool,
}

impl Line {
    fn read(
        &mut self,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Command, ArgumentError> {
        for token in Tokens::new(OPTIONS, arguments) {
            match token? {
                Token::Operand(word) => self.operands.push(word),
                Token::Option(option, value) => {
                    if let Some(command) = self.option(option, value)? {
                        return Ok(command);
                    }
                }
            }
        }
        let target = self.finish()?;
        Ok(Command::Run(target, Box::new(std::mem::take(&mut self.options))))
    }

    /// Takes one option. Returns a command if the option acts at once.
    fn option(
        &mut self,
        option: &OptionSpec<OptionId>,
        value: OsString,
    ) -> Result<Option<Command>, ArgumentError> {
        let options = &mut self.options;
        match option.id {
            OptionId::Configure => options.configure = true,
            OptionId::ExitFd => {
                options.exit_fd = Some(values::descriptor(&value).ok_or(ArgumentError::ExitFd)?);
            }
            OptionId::ReadyFd => {
                options.ready_fd = Some(values::descriptor(&value).ok_or(ArgumentError::ReadyFd)?);
            }
            OptionId::Mtu => options.mtu = values::mtu(&value).ok_or(ArgumentError::Mtu)?,
            OptionId::EnableIpv6 => {
                self.enable_ipv6 = true;
                self.warnings.push(Warning::Ipv6Experimental);
            }
            OptionId::ApiSocket => options.api_socket = Some(PathBuf::from(value)),
            OptionId::Cidr => self.cidr = Some(value),
            OptionId::Cidr6 => self.cidr6 = Some(values::cidr6(&value)?),
            OptionId::DisableHostLoopback => options.policy.allow_host_loopback = false,
            OptionId::NoHostLoopback => {
                options.policy.allow_host_loopback = false;
                self.warnings.push(Warning::NoHostLoopbackDeprecated);
            }
            OptionId::EnableSandbox => options.sandbox = true,
            OptionId::CreateSandbox => {
                options.sandbox = true;
                self.warnings.push(Warning::CreateSandboxDeprecated);
            }
            OptionId::EnableSeccomp => {
                options.seccomp = true;
                self.warnings.push(Warning::SeccompExperimental);
            }
            OptionId::NetnsType => {
                self.netns_type = Some(match value.as_bytes() {
                    b"pid" => NetnsType::Pid,
                    b"tapfd" => NetnsType::TapFd,
                    // Any other word has always meant a path.
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
            OptionId::DisableDns => options.policy.dns_service = false,
            OptionId::MacAddress => self.mac = Some(value),
            OptionId::TargetType => self.target_type = Some(value),
            OptionId::ExitWithNetns => options.exit_with_netns = true,
            OptionId::BusyPoll => options.busy_poll = values::busy_poll(&value)?,
            OptionId::Publish
            | OptionId::Dns
            | OptionId::SearchDomain
            | OptionId::LogLevel
            | OptionId::Pcap
            | OptionId::Allow
            | OptionId::Deny
            | OptionId::Ask
            | OptionId::Policy
            | OptionId::PolicyMode
            | OptionId::AuditLog
            | OptionId::Audit
            | OptionId::AuditRequired
            | OptionId::ControlSocket
            | OptionId::Metrics
            | OptionId::RateIn
            | OptionId::RateOut => {
                let is_taken = network::take(options, option.long, &value)?;
                debug_assert!(is_taken, "--{}", option.long);
            }
            OptionId::ControlFd => {
                let fd = values::descriptor(&value).ok_or(ArgumentError::ControlFd)?;
                options.operator.control_fd = Some(fd);
            }
            OptionId::MetricsMembers => options.operator.has_member_metrics = true,
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

    /// The checks at the end of the line.
    fn finish(&mut self) -> Result<Target, ArgumentError> {
        if self.mac.is_some() && !self.options.configure {
            return Err(ArgumentError::MacWithoutConfigure);
        }
        if self.cidr6.is_some() && !self.enable_ipv6 {
            return Err(ArgumentError::without_ipv6("--cidr6"));
        }
        if self.options.publish.iter().any(Publish::needs_ipv6) && !self.enable_ipv6 {
            return Err(ArgumentError::without_ipv6("--publish with an IPv6 address of the guest"));
        }
        self.operator()?;
        let target = self.target()?;
        let options = &mut self.options;
        if let Some(cidr) = &self.cidr {
            options.plan = values::cidr(cidr)?;
        }
        if self.enable_ipv6 {
            options.plan = options.plan.with_ipv6(self.cidr6.unwrap_or_default());
        }
        self.options.outbound = self.outbound()?;
        self.options.mac = self.mac.as_deref().map(values::mac).transpose()?;
        if !self.options.policy.dns_service && !self.options.dns.is_empty() {
            self.warnings.push(Warning::DnsDisabled);
        }
        Ok(target)
    }

    /// Options about the audit log, the control socket and metrics come with each other or not.
    fn operator(&self) -> Result<(), ArgumentError> {
        let given = &self.options.operator;
        if let Some((option, needed)) = given.lacking() {
            return Err(ArgumentError::Without(option, needed));
        }
        if given.control_socket.is_some() && given.control_fd.is_some() {
            return Err(ArgumentError::Conflict("--control-fd", "--control-socket"));
        }
        Ok(())
    }

    /// The one operand of a target type that is a socket.
    fn socket(
        &mut self,
        target_type: &'static str,
        framing: Framing,
    ) -> Result<Target, ArgumentError> {
        let mut operands = std::mem::take(&mut self.operands).into_iter();
        let path = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if operands.len() > 0 {
            return Err(ArgumentError::TooManyArguments);
        }
        for (is_given, option) in [
            (self.options.configure, "--configure"),
            (self.netns_type.is_some(), "--netns-type"),
            (self.userns_path.is_some(), "--userns-path"),
            (self.options.exit_with_netns, "--exit-with-netns"),
        ] {
            if is_given {
                return Err(ArgumentError::Conflict(option, target_type));
            }
        }
        Ok(Target::Socket(path.into(), framing))
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
            Some(b"bess") => {
                let target = self.socket("--target-type=bess", Framing::Packets)?;
                self.warnings.push(Warning::BessExperimental);
                return Ok(target);
            }
            Some(b"stream") => return self.socket("--target-type=stream", Framing::Lengths),
            Some(_) => return Err(ArgumentError::TargetType),
        }
        let netns_type = self.netns_type.unwrap_or_default();
        let mut operands = std::mem::take(&mut self.operands).into_iter();
        let first = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if netns_type == NetnsType::TapFd {
            if self.options.exit_with_netns {
                return Err(ArgumentError::Conflict("--exit-with-netns", "--netns-type=tapfd"));
            }
            // A device name is superfluous, but harmless.
            if operands.len() > 1 {
                self.warnings.push(Warning::TooManyArguments);
            }
            let fd = values::descriptor(&first).ok_or(ArgumentError::TapFd)?;
            if self.options.configure {
                self.warnings.push(Warning::ConfigureWithTapFd);
            }
            return Ok(Target::TapFd(fd));
        }
        let name = operands.next().ok_or(ArgumentError::OperandMissing)?;
        if operands.len() > 0 {
            self.warnings.push(Warning::TooManyArguments);
        }
        let located = if netns_type == NetnsType::Pid {
            Located::Process(values::pid(&first).ok_or(ArgumentError::Pid)?)
        } else {
            let netns = PathBuf::from(first);
            access(&netns, AccessFlags::F_OK).map_err(ArgumentError::NetnsPath)?;
            Located::Netns(netns)
        };
        let tap = values::tap_name(&name)?;
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
mod manual;
#[cfg(test)]
mod tests;
