//! The command line of `slirp run`: from `argv` to [`Invocation`].
//!
//! Options end at `--` or at the first word that is none, as in env(1). Values have the grammar of
//! the other dialect.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use slirp_core::plan::Ipv6Plan;

use crate::command::{Ids, Place};
use crate::dialect::slirp4netns::{ValueError, address, network, values};
use crate::options::Options;
use crate::publish::Publish;
use crate::words::{Given, RUN};

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
    #[error("{0}")]
    Line(String),
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
    #[error("invalid {0}: {1} (stdin and stdout are the command's: give a file or a FIFO)")]
    Standard(String, String),
    #[error(transparent)]
    Refused(#[from] ValueError),
}

/// Reads `arguments`, which follow the word `run`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Line, LineError> {
    let given = match RUN.parse(arguments.into_iter()).map_err(LineError::Line)? {
        Given::Help => return Ok(Line::Help),
        Given::Line(given) => given,
    };
    let mut line = Invocation {
        options: Options {
            configure: true,
            mtu: MTU,
            has_fixed_ipv6: true,
            lingers: true,
            sandbox: true,
            enters_userns: false,
            seccomp: true,
            ..Options::default()
        },
        ipv6: None,
        cidr6: None,
        place: Place::New { ids: Some(Ids::Kept), machine: None },
        command: Vec::new(),
    };
    line.options.policy.allow_host_loopback = false;
    let mut as_root = false;
    let mut net_of = None;
    for (flag, value) in given.options() {
        let value = value.unwrap_or_default();
        match flag.long {
            "ipv6" => line.ipv6 = Some(true),
            "no-ipv6" => line.ipv6 = Some(false),
            "cidr6" => line.cidr6 = Some(values::cidr6(value)?),
            "map-root" => as_root = true,
            "net-of" => net_of = Some(place_of(value)?),
            long => network_option(&mut line.options, long, value)?,
        }
    }
    line.place = match (net_of, as_root) {
        (Some(_), true) => return Err(LineError::Conflict("--net-of", "--map-root")),
        (Some(place), false) => place,
        (None, as_root) => {
            let ids = if as_root { Ids::Root } else { Ids::Kept };
            Place::New { ids: Some(ids), machine: None }
        }
    };
    line.command = given.operands().to_vec();
    check(&line)?;
    if line.cidr6.is_some() {
        line.ipv6 = Some(true);
    }
    Ok(Line::Run(Box::new(line)))
}

/// Options that come with each other or not.
fn check(line: &Invocation) -> Result<(), LineError> {
    if let Some((option, needed)) = line.options.operator.lacking() {
        return Err(LineError::Without(option, needed));
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

/// Refuses standard input or output as a file of the network, whose own are not the caller's.
/// `option` gave the value.
pub(super) fn check_stream(option: &str, value: &OsStr) -> Result<(), LineError> {
    const FOLDERS: [&str; 4] = ["fd:", "/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"];
    let text = value.to_string_lossy();
    let number = FOLDERS.into_iter().find_map(|folder| text.strip_prefix(folder)?.parse().ok());
    if matches!(&*text, "-" | "/dev/stdin" | "/dev/stdout") || matches!(number, Some(0 | 1)) {
        return Err(LineError::Standard(option.to_owned(), text.into_owned()));
    }
    Ok(())
}

/// Takes an option about the network itself.
fn network_option(options: &mut Options, long: &str, value: &OsStr) -> Result<(), LineError> {
    match long {
        "host-loopback" => options.policy.allow_host_loopback = true,
        "no-dns" => options.policy.dns_service = false,
        "mtu" => {
            let invalid = || LineError::Mtu(value.display().to_string());
            options.mtu = values::mtu(value).ok_or_else(invalid)?;
        }
        "cidr" => options.plan = values::cidr(value)?,
        "outbound-addr" => options.outbound.ipv4 = address::outbound_ipv4(value)?,
        "outbound-addr6" => {
            let found = address::outbound_ipv6(value)?;
            options.outbound.ipv6 = found.ipv6;
            options.outbound.ipv6_scope = found.ipv6_scope;
        }
        "no-sandbox" => options.sandbox = false,
        "no-seccomp" => options.seccomp = false,
        _ => {
            if matches!(long, "audit-log" | "pcap" | "policy") {
                check_stream(&format!("--{long}"), value)?;
            }
            if !network::take(options, long, value)? {
                return Err(LineError::Line(format!("--{long} is not known")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Value;

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
    fn every_option_of_the_table_is_taken() {
        for flag in RUN.flags() {
            let value = match flag.long {
                "publish" => "80:80",
                "dns" => "192.0.2.1",
                "cidr" => "10.1.2.0/24",
                "cidr6" => "fd01::/64",
                "outbound-addr" => "127.0.0.1",
                "outbound-addr6" => "::1",
                "rate-in" | "rate-out" => "1M",
                "audit" => "all",
                "metrics" => "127.0.0.1:9100",
                "policy-mode" => "audit",
                "log-level" => "debug",
                "mtu" | "net-of" => "1500",
                _ => "any",
            };
            let mut words = vec![format!("--{}", flag.long)];
            words.extend((flag.value != Value::None).then(|| value.to_owned()));
            if flag.long.starts_with("audit-r") || flag.long == "audit" {
                words.push("--audit-log=x".to_owned());
            }
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            assert_ne!(run(&words), run(&[]), "{words:?}");
        }
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
            (&[][..], Place::New { ids: Some(Ids::Kept), machine: None }),
            (&["--map-root"], Place::New { ids: Some(Ids::Root), machine: None }),
            (&["--net-of=42"], Place::OfProcess(42)),
            (&["--net-of", "/run/netns/x"], Place::OfPath("/run/netns/x".into())),
        ] {
            assert_eq!(run(line).place, place, "{line:?}");
        }
    }

    #[test]
    fn standard_input_and_output_are_the_commands() {
        for value in ["fd:0", "fd:01", "/dev/stdin", "/dev/stdout", "/proc/self/fd/1", "-"] {
            for option in ["--audit-log", "--pcap", "--policy"] {
                let error = read(&[option, value]).unwrap_err();
                assert!(matches!(error, LineError::Standard(..)), "{option} {value}");
            }
        }
        for value in ["fd:7", "fd:2", "/dev/stderr", "/dev/fd/10", "/proc/self/fd/63"] {
            assert!(read(&["--audit-log", value]).is_ok(), "{value}");
        }
    }

    #[test]
    fn refusals_say_what_to_write() {
        for (line, text) in [
            (&["--publsh", "x"][..], "--publsh is no option of slirp run; did you mean --publish?"),
            (&["-x"], "-x is no option of slirp run"),
            (&["-p"], "--publish needs a value: SPEC"),
            (&["--map-root=1"], "unexpected argument for option '--map-root': \"1\""),
            (&["--mtu=70000"], "invalid --mtu: 70000 (expected a number up to 65521)"),
            (&["--net-of="], "invalid --net-of:  (expected the number of a process, or a path)"),
            (&["--net-of=1", "--map-root"], "--net-of and --map-root exclude each other"),
            (&["--no-ipv6", "--cidr6=fd01::/64"], "--no-ipv6 and --cidr6 exclude each other"),
            (&["--no-dns", "--dns=192.0.2.1"], "--no-dns and --dns exclude each other"),
            (&["--audit=all"], "--audit needs --audit-log"),
            (&["--cidr=x"], "invalid CIDR: x"),
            (
                &["--audit-log=fd:1"],
                "invalid --audit-log: fd:1 (stdin and stdout are the command's: give a file or a \
                 FIFO)",
            ),
        ] {
            assert_eq!(read(line).unwrap_err().to_string(), text, "{line:?}");
        }
    }
}
