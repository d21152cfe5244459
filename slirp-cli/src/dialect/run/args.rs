//! The command line of `slirp run`: from `argv` to [`Invocation`].
//!
//! Options end at `--` or at the first word that is none, as in env(1). Values have the grammar of
//! the other dialect.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use slirp_core::egress::{Action, EgressPolicy};
use slirp_core::plan::Ipv6Plan;

use super::table::{OPTIONS, OptionId, OptionSpec};
use crate::command::Place;
use crate::dialect::slirp4netns::{ValueError, address, values};
use crate::options::Options;
use crate::publish::Publish;
use crate::tool::nearest::nearest;

/// The MTU: the largest that is a whole number of words for all, as slirp4netns's callers have it.
const MTU: u16 = 65_520;

/// A command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    Help,
    Run(Box<Invocation>),
}

/// What is to be run, and on which network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Invocation {
    pub(crate) options: Options,
    /// Whether there is IPv6, if the line says so.
    pub(crate) ipv6: Option<bool>,
    pub(crate) cidr6: Option<Ipv6Plan>,
    pub(crate) place: Place,
    /// COMMAND and its arguments; empty for the user's shell.
    pub(crate) command: Vec<OsString>,
}

impl Invocation {
    /// The options of the network. `host_has_ipv6` decides where the line does not.
    pub(crate) fn options(&self, host_has_ipv6: bool) -> Result<Options, LineError> {
        let mut options = self.options.clone();
        if self.ipv6.unwrap_or(host_has_ipv6) {
            options.plan = options.plan.with_ipv6(self.cidr6.unwrap_or_default());
        } else if options.publish.iter().any(Publish::needs_ipv6) {
            return Err(LineError::WithoutIpv6);
        }
        Ok(options)
    }
}

/// Why a command line is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("unknown option {0}")]
    Unknown(String),
    #[error("unknown option {0}; did you mean --{1}?")]
    Misspelt(String, &'static str),
    #[error("--{0} needs a value: --{0}={1}")]
    NoValue(&'static str, &'static str),
    #[error("--{0} takes no value")]
    Value(&'static str),
    #[error("invalid --mtu: {0} (expected a number up to 65521)")]
    Mtu(String),
    #[error("invalid --net-of: {0} (expected the number of a process, or a path)")]
    NetOf(String),
    #[error("{0} and {1} exclude each other")]
    Conflict(&'static str, &'static str),
    #[error("{0} needs {1}")]
    Without(&'static str, &'static str),
    #[error("--publish leads to an IPv6 address, but there is no IPv6: give --ipv6")]
    WithoutIpv6,
    #[error(transparent)]
    Refused(#[from] ValueError),
}

/// Reads `arguments`, which follow the word `run`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Line, LineError> {
    let mut reader = Reader { rest: arguments.into_iter().collect(), rules: 0 };
    let mut line = Invocation {
        options: Options {
            configure: true,
            mtu: MTU,
            has_fixed_ipv6: true,
            sandbox: true,
            enters_userns: false,
            seccomp: true,
            ..Options::default()
        },
        ipv6: None,
        cidr6: None,
        place: Place::New { as_root: false },
        command: Vec::new(),
    };
    line.options.policy.allow_host_loopback = false;
    let mut as_root = false;
    let mut net_of = None;
    while let Some((option, value)) = reader.next_option()? {
        match option.id {
            OptionId::Help => return Ok(Line::Help),
            OptionId::Ipv6 => line.ipv6 = Some(true),
            OptionId::NoIpv6 => line.ipv6 = Some(false),
            OptionId::Cidr6 => line.cidr6 = Some(values::cidr6(&value)?),
            OptionId::MapRoot => as_root = true,
            OptionId::NetOf => net_of = Some(place_of(&value)?),
            OptionId::Publish
            | OptionId::HostLoopback
            | OptionId::Dns
            | OptionId::NoDns
            | OptionId::SearchDomain
            | OptionId::Mtu
            | OptionId::Cidr
            | OptionId::OutboundAddr
            | OptionId::OutboundAddr6
            | OptionId::RateIn
            | OptionId::RateOut
            | OptionId::Allow
            | OptionId::Deny
            | OptionId::Ask
            | OptionId::Policy
            | OptionId::PolicyMode
            | OptionId::ControlSocket
            | OptionId::AuditLog
            | OptionId::Audit
            | OptionId::AuditRequired
            | OptionId::Metrics
            | OptionId::Pcap
            | OptionId::LogLevel
            | OptionId::NoSandbox
            | OptionId::NoSeccomp => reader.network_option(&mut line.options, option.id, value)?,
        }
    }
    line.place = match (net_of, as_root) {
        (Some(_), true) => return Err(LineError::Conflict("--net-of", "--map-root")),
        (Some(place), false) => place,
        (None, as_root) => Place::New { as_root },
    };
    line.command = reader.rest.into();
    check(&line)?;
    if line.cidr6.is_some() {
        line.ipv6 = Some(true);
    }
    Ok(Line::Run(Box::new(line)))
}

/// Options that come with each other or not.
fn check(line: &Invocation) -> Result<(), LineError> {
    let operator = &line.options.operator;
    for (is_given, option, is_there, needed) in [
        (operator.audit_level.is_some(), "--audit", operator.audit_log.is_some(), "--audit-log"),
        (
            operator.is_audit_required,
            "--audit-required",
            operator.audit_log.is_some(),
            "--audit-log",
        ),
    ] {
        if is_given && !is_there {
            return Err(LineError::Without(option, needed));
        }
    }
    if line.cidr6.is_some() && line.ipv6 == Some(false) {
        return Err(LineError::Conflict("--no-ipv6", "--cidr6"));
    }
    if !line.options.policy.dns_service && !line.options.dns.is_empty() {
        return Err(LineError::Conflict("--no-dns", "--dns"));
    }
    Ok(())
}

/// The value of `--net-of`.
fn place_of(value: &OsStr) -> Result<Place, LineError> {
    let invalid = || LineError::NetOf(value.display().to_string());
    match value.as_bytes() {
        [] => Err(invalid()),
        bytes if bytes.iter().all(u8::is_ascii_digit) => {
            values::pid(value).map(Place::OfProcess).ok_or_else(invalid)
        }
        _ => Ok(Place::OfPath(PathBuf::from(value))),
    }
}

/// The words that are not read yet.
struct Reader {
    rest: VecDeque<OsString>,
    /// How many rules there were so far.
    rules: u32,
}

impl Reader {
    /// The next option and its value; `None` where COMMAND begins.
    fn next_option(&mut self) -> Result<Option<(&'static OptionSpec, OsString)>, LineError> {
        let Some(word) = self.rest.front() else { return Ok(None) };
        let bytes = word.as_bytes();
        if bytes.len() < 2 || bytes[0] != b'-' {
            return Ok(None);
        }
        let word = self.rest.pop_front().unwrap_or_default();
        let bytes = word.as_bytes();
        if bytes == b"--" {
            return Ok(None);
        }
        let Some(body) = bytes.strip_prefix(b"--") else { return self.short(&word).map(Some) };
        let (name, inline) = match body.iter().position(|&byte| byte == b'=') {
            Some(at) => (&body[..at], Some(OsString::from_vec(body[at + 1..].to_vec()))),
            None => (body, None),
        };
        let Some(option) = OPTIONS.iter().find(|option| option.long.as_bytes() == name) else {
            let name = String::from_utf8_lossy(name);
            let longs: Vec<_> = OPTIONS.iter().map(|option| option.long).collect();
            let written = format!("--{name}");
            return Err(match nearest(&name, &longs) {
                Some(meant) => LineError::Misspelt(written, meant),
                None => LineError::Unknown(written),
            });
        };
        match inline {
            Some(_) if option.value.is_none() => Err(LineError::Value(option.long)),
            Some(value) => Ok(Some((option, value))),
            None => self.value_of(option).map(|value| Some((option, value))),
        }
    }

    /// An option by its letter; its value may follow at once.
    fn short(&mut self, word: &OsStr) -> Result<(&'static OptionSpec, OsString), LineError> {
        let bytes = word.as_bytes();
        let letter = char::from(bytes[1]);
        let unknown = || LineError::Unknown(word.display().to_string());
        let option =
            OPTIONS.iter().find(|option| option.short == Some(letter)).ok_or_else(unknown)?;
        match &bytes[2..] {
            [] => self.value_of(option).map(|value| (option, value)),
            _ if option.value.is_none() => Err(unknown()),
            value => Ok((option, OsString::from_vec(value.to_vec()))),
        }
    }

    fn value_of(&mut self, option: &OptionSpec) -> Result<OsString, LineError> {
        let Some(value) = option.value else { return Ok(OsString::new()) };
        self.rest.pop_front().ok_or(LineError::NoValue(option.long, value))
    }

    /// Takes an option about the network itself.
    fn network_option(
        &mut self,
        options: &mut Options,
        option: OptionId,
        value: OsString,
    ) -> Result<(), LineError> {
        match option {
            OptionId::Publish => {
                let publish = Publish::parse(&value.to_string_lossy())
                    .map_err(|error| ValueError::Publish(value.display().to_string(), error))?;
                options.publish.push(publish);
            }
            OptionId::HostLoopback => options.policy.allow_host_loopback = true,
            OptionId::Dns => options.dns.push(address::resolver(&value)?),
            OptionId::NoDns => options.policy.dns_service = false,
            OptionId::SearchDomain => options.search_domains.push(values::search_domain(&value)?),
            OptionId::Mtu => {
                let invalid = || LineError::Mtu(value.display().to_string());
                options.mtu = values::mtu(&value).ok_or_else(invalid)?;
            }
            OptionId::Cidr => options.plan = values::cidr(&value)?,
            OptionId::OutboundAddr => options.outbound.ipv4 = address::outbound_ipv4(&value)?,
            OptionId::OutboundAddr6 => {
                let found = address::outbound_ipv6(&value)?;
                options.outbound.ipv6 = found.ipv6;
                options.outbound.ipv6_scope = found.ipv6_scope;
            }
            OptionId::RateIn => options.rates.to_guest = Some(values::rate("--rate-in", &value)?),
            OptionId::RateOut => {
                options.rates.from_guest = Some(values::rate("--rate-out", &value)?);
            }
            OptionId::Allow => self.rule(options, Action::Allow, &value)?,
            OptionId::Deny => self.rule(options, Action::Deny, &value)?,
            OptionId::Ask => self.rule(options, Action::Ask, &value)?,
            OptionId::Policy => options.egress.files.push(PathBuf::from(value)),
            OptionId::PolicyMode => options.egress.rules.push(values::policy_mode(&value)?),
            OptionId::ControlSocket => options.operator.control_socket = Some(value.into()),
            OptionId::AuditLog => options.operator.audit_log = Some(values::audit_log(&value)?),
            OptionId::Audit => options.operator.audit_level = Some(values::audit_level(&value)?),
            OptionId::AuditRequired => options.operator.is_audit_required = true,
            OptionId::Metrics => options.operator.metrics = Some(values::metrics(&value)?),
            OptionId::Pcap if value == "-" => return Err(ValueError::PcapStdout.into()),
            OptionId::Pcap => options.pcap = Some(PathBuf::from(value)),
            OptionId::LogLevel => options.log_level = Some(values::log_level(&value)?),
            OptionId::NoSandbox => options.sandbox = false,
            OptionId::NoSeccomp => options.seccomp = false,
            // Taken by the caller.
            OptionId::Help
            | OptionId::Ipv6
            | OptionId::NoIpv6
            | OptionId::Cidr6
            | OptionId::MapRoot
            | OptionId::NetOf => {}
        }
        Ok(())
    }

    fn rule(
        &mut self,
        options: &mut Options,
        action: Action,
        value: &OsStr,
    ) -> Result<(), ValueError> {
        self.rules += 1;
        let rule = EgressPolicy::from_option(action, &value.to_string_lossy(), self.rules)?;
        options.egress.rules.push(rule);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Line, LineError> {
        parse(line.iter().map(OsString::from))
    }

    fn run(line: &[&str]) -> Invocation {
        match read(line).unwrap() {
            Line::Run(invocation) => *invocation,
            Line::Help => panic!("help"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        for (line, command) in [
            (&[][..], &[][..]),
            (&["--"], &[]),
            (&["true"], &["true"]),
            (&["--", "true", "--", "-p"], &["true", "--", "-p"]),
            (&["-p", "80:80", "ls", "--mtu", "9"], &["ls", "--mtu", "9"]),
            (&["-p80:80", "--", "-x"], &["-x"]),
            (&["--mtu=1500", "-"], &["-"]),
        ] {
            assert_eq!(run(line).command, command, "{line:?}");
        }
        assert_eq!(read(&["--help", "--nope"]), Ok(Line::Help));
        assert_eq!(read(&["-h"]), Ok(Line::Help));
        assert_eq!(run(&["ls", "--help"]).command, ["ls", "--help"]);
    }

    #[test]
    fn the_network_is_closed_and_large_by_default() {
        let options = run(&[]).options;
        assert!(!options.policy.allow_host_loopback && options.configure);
        assert!(options.sandbox && options.seccomp && !options.enters_userns);
        assert_eq!(options.mtu, 65_520);
        let opened = run(&["--host-loopback", "--no-sandbox", "--no-seccomp"]).options;
        assert!(opened.policy.allow_host_loopback && !opened.sandbox && !opened.seccomp);
    }

    #[test]
    fn ipv6_follows_the_host_unless_the_line_decides() {
        let has = |line: &[&str], host| run(line).options(host).map(|it| it.plan.ipv6().is_some());
        for (line, host, expected) in [
            (&[][..], true, Ok(true)),
            (&[], false, Ok(false)),
            (&["--ipv6"], false, Ok(true)),
            (&["--no-ipv6"], true, Ok(false)),
            (&["--cidr6=fd01::/64"], false, Ok(true)),
            (&["-p", "80:[fd00::100]:80"], false, Err(LineError::WithoutIpv6)),
            (&["-p", "80:[fd00::100]:80"], true, Ok(true)),
        ] {
            assert_eq!(has(line, host), expected, "{line:?} {host}");
        }
    }

    #[test]
    fn place_is_new_or_of_a_process_or_of_a_path() {
        for (line, place) in [
            (&[][..], Place::New { as_root: false }),
            (&["--map-root"], Place::New { as_root: true }),
            (&["--net-of=42"], Place::OfProcess(42)),
            (&["--net-of", "/run/netns/x"], Place::OfPath("/run/netns/x".into())),
        ] {
            assert_eq!(run(line).place, place, "{line:?}");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (line, text) in [
            (&["--publsh", "x"][..], "unknown option --publsh; did you mean --publish?"),
            (&["-x"], "unknown option -x"),
            (&["-p"], "--publish needs a value: --publish=SPEC"),
            (&["--map-root=1"], "--map-root takes no value"),
            (&["--mtu=70000"], "invalid --mtu: 70000 (expected a number up to 65521)"),
            (&["--net-of="], "invalid --net-of:  (expected the number of a process, or a path)"),
            (&["--net-of=1", "--map-root"], "--net-of and --map-root exclude each other"),
            (&["--no-ipv6", "--cidr6=fd01::/64"], "--no-ipv6 and --cidr6 exclude each other"),
            (&["--no-dns", "--dns=192.0.2.1"], "--no-dns and --dns exclude each other"),
            (&["--audit=all"], "--audit needs --audit-log"),
            (&["--cidr=x"], "invalid CIDR: x"),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), text, "{line:?}");
        }
    }
}
