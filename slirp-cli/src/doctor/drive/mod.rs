//! The real thing: a network, made as `slirp run` makes it, and driven.
//!
//! Owns the order and the bounds of time, and what is told of each step.
//!
//! # Theory of operation
//! Three processes take part. The doctor has small [`servers`] on the host's loopback. It starts
//! `slirp run`, which makes the namespaces and is the engine, with its sandbox and its filter. The
//! command there is this program again, as [`inside`]: it talks to the servers by the addresses
//! that a guest has for them, and tells how that went on its standard output, which the doctor
//! reads. The doctor itself visits the port that it has published. Nothing leaves loopback and the
//! namespaces. Whoever sends bytes knows whether they have arrived ([`stream`]), so the figures of
//! a transfer are always its sender's.

mod inside;
mod servers;
mod stream;

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;
use slirp_core::internals::policy_file::VARIABLE;

use super::finding::{Finding, Moved, State};
use super::pipe::Lines;
use crate::log::LOG_VARIABLE;
use servers::Servers;
use stream::SPAN;

pub(super) use inside::main as inside;

/// The private word of the process in the namespaces.
pub(super) const INSIDE: &str = "inside";

/// The port in the guest that the published port leads to.
const GUEST_PORT: u16 = 8080;
/// How long the guest may be silent: the longest of its steps is the wait for an IPv6 address.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is driven, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    TcpOut,
    TcpIn,
    Udp,
    Dns,
    Ping,
    Published,
    Ipv6,
}

impl Check {
    const ALL: [Self; 7] =
        [Self::TcpOut, Self::TcpIn, Self::Udp, Self::Dns, Self::Ping, Self::Published, Self::Ipv6];

    const fn name(self) -> &'static str {
        match self {
            Self::TcpOut => "tcp-out",
            Self::TcpIn => "tcp-in",
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::Ping => "ping-gateway",
            Self::Published => "published-port",
            Self::Ipv6 => "tcp-ipv6",
        }
    }

    /// What is said when it worked.
    fn praise(self, moved: Moved) -> String {
        let rate = || moved.rate();
        let after = || format!("after {:.1} ms", moved.span.as_secs_f64() * 1e3);
        match self {
            Self::TcpOut => format!("{} from the guest to the host", rate()),
            Self::TcpIn => format!("{} from the host to the guest", rate()),
            Self::Udp => format!("a datagram of {} bytes comes back {}", moved.bytes, after()),
            Self::Dns => format!("10.0.2.3 answers {}", after()),
            Self::Ping => format!("10.0.2.2 answers {}", after()),
            Self::Published => format!("{} through a port of the host", rate()),
            Self::Ipv6 => format!("{} from the guest to the host", rate()),
        }
    }
}

/// The name of the finding about the network as a whole.
const NETWORK: &str = "network";

/// What no network starts without.
const GROUNDS: [&str; 4] = ["proc", "user-namespaces", "tun", "loopback"];
/// What a network does without if it is told so.
const CONFINEMENT: [(&str, &str); 2] = [("sandbox", "--no-sandbox"), ("filter", "--no-seccomp")];

/// Makes a network and drives it, unless `known` tells that there can be none.
pub(super) fn drive(known: &[Finding]) -> Vec<Finding> {
    let is_bad = |check: &str| {
        known.iter().any(|finding| finding.check == check && finding.state != State::Ok)
    };
    if let Some(ground) = GROUNDS.into_iter().find(|ground| is_bad(ground)) {
        let what = format!("no network was made and driven, as {ground} is not ok");
        return vec![Finding::warning(NETWORK, what, format!("mend {ground} first"))];
    }
    let without: Vec<_> = CONFINEMENT.into_iter().filter(|(check, _)| is_bad(check)).collect();
    match Run::start(&without) {
        Ok(run) => run.finish(),
        Err(error) => {
            let what = format!("cannot be started: {}", inside::text(&error));
            vec![Finding::failure(NETWORK, what, "try slirp run -- true, which may tell more")]
        }
    }
}

/// `slirp run` at work.
struct Run {
    child: Child,
    lines: Lines,
    servers: Servers,
    published: SocketAddr,
    began: Instant,
    /// How the engine is confined, in words.
    confinement: String,
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended, or does not answer. What it runs ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is known of each check.
type Outcomes = Vec<(Check, Result<Moved, String>)>;

impl Run {
    /// Starts it, `without` what does not work here.
    fn start(without: &[(&str, &str)]) -> io::Result<Self> {
        let servers = Servers::start()?;
        // Free again at once; a port that another program takes until then is told as such.
        let published = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let began = Instant::now();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("slirp").arg("run").arg("--host-loopback");
        command.arg(if servers.sink6.is_some() { "--ipv6" } else { "--no-ipv6" });
        command.arg(format!("--dns=127.0.0.1:{}", servers.resolver));
        command.arg(format!("--publish={published}:{GUEST_PORT}"));
        command.args(without.iter().map(|(_, option)| option));
        command.args(["--", "/proc/self/exe", "doctor", INSIDE]);
        for port in [servers.sink, servers.source, servers.echo].into_iter().chain(servers.sink6) {
            command.arg(port.to_string());
        }
        // A policy or a log of the caller's is not for this network.
        command.env_remove(VARIABLE).env_remove(LOG_VARIABLE);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let names: Vec<_> = without.iter().map(|&(check, _)| check).collect();
        let confinement = match names.as_slice() {
            [] => "with sandbox and filter".to_owned(),
            names => format!("without {}", names.join(" and ")),
        };
        Ok(Self { child, lines: Lines::new(stdout), servers, published, began, confinement })
    }

    /// Reads what the guest tells until it has ended.
    fn finish(mut self) -> Vec<Finding> {
        let mut ready = None;
        let mut outcomes = Outcomes::new();
        let mut visited = None;
        let problem = loop {
            let line = match self.lines.next(PATIENCE) {
                Ok(Some(line)) => line,
                Ok(None) => break self.ended(),
                Err(error) => break inside::text(&error),
            };
            let Ok(told) = serde_json::from_str::<Value>(&line) else { continue };
            match told.get("at").and_then(Value::as_str) {
                Some("ready") => ready = Some(self.began.elapsed()),
                Some("published") => visited = Some(self.visit()),
                Some(_) | None => outcomes.extend(outcome(&told)),
            }
        };
        for (check, seen) in
            [(Check::TcpIn, self.servers.sent.try_recv().ok()), (Check::Published, visited)]
        {
            let Some(seen) = seen else { continue };
            let known = outcomes.iter_mut().find(|(known, _)| *known == check);
            let Some((_, known @ Ok(_))) = known else { continue };
            *known = seen.map_err(|error| inside::text(&error));
        }
        let ready = ready.map(|span| (span, &*self.confinement));
        findings(ready, &outcomes, &problem, self.servers.sink6.is_some())
    }

    /// Visits the published port, as any client would.
    fn visit(&self) -> io::Result<Moved> {
        let stream = TcpStream::connect_timeout(&self.published, stream::PATIENCE)?;
        stream::send(stream, SPAN)
    }

    /// How the run has ended, in the words of its own.
    fn ended(&mut self) -> String {
        const TEXT_CAP: u64 = 4096;
        let mut text = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // A message that cannot be read is none.
            let _ = stderr.take(TEXT_CAP).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty());
        match (line, self.child.wait()) {
            (Some(line), _) => line.escape_debug().to_string(),
            (None, Ok(status)) => format!("slirp run has ended: {status}"),
            (None, Err(error)) => inside::text(&error),
        }
    }
}

/// What a line tells of a check.
fn outcome(told: &Value) -> Option<(Check, Result<Moved, String>)> {
    let name = told.get("check")?.as_str()?;
    let check = Check::ALL.into_iter().find(|check| check.name() == name)?;
    if let Some(error) = told.get("error").and_then(Value::as_str) {
        return Some((check, Err(error.to_owned())));
    }
    let number = |key: &str| told.get(key).and_then(Value::as_u64);
    let span = Duration::from_micros(number("microseconds")?);
    Some((check, Ok(Moved { bytes: number("bytes")?, span })))
}

/// One finding for the network, and one for each check. `ready` tells how long the network took and
/// how it is confined; `problem` is what is said of a check that was not reached.
fn findings(
    ready: Option<(Duration, &str)>,
    outcomes: &Outcomes,
    problem: &str,
    has_ipv6: bool,
) -> Vec<Finding> {
    const REMEDY: &str = "see whether nft list ruleset has a rule that refuses traffic of lo; if \
                          not, report this with the output of slirp run --log-level=debug -- true";
    let Some((ready, confinement)) = ready else {
        let remedy = "try slirp run -- true, which tells more; report it if that works";
        return vec![Finding::failure(NETWORK, format!("not made: {problem}"), remedy)];
    };
    let what = format!("made within {} ms, {confinement}", ready.as_millis());
    let mut findings = vec![Finding::ok(NETWORK, what).with(Moved { bytes: 0, span: ready })];
    for check in Check::ALL {
        let known = outcomes.iter().find(|(known, _)| *known == check);
        let name = check.name();
        findings.push(match known {
            Some((_, Ok(moved))) => Finding::ok(name, check.praise(*moved)).with(*moved),
            // slirp run could not set net.ipv4.ping_group_range there.
            Some((Check::Ping, Err(error))) if error == Errno::EACCES.desc() => Finding::warning(
                name,
                "the command may not ping, as /proc/sys is read-only",
                "start the outer container with --security-opt=unmask=ALL (Docker: \
                 --security-opt=systempaths=unconfined)",
            ),
            Some((_, Err(error))) => Finding::failure(name, error.as_str(), REMEDY),
            None if check == Check::Ipv6 && !has_ipv6 => {
                let what = "not driven, as the host has no ::1";
                Finding::warning(name, what, "mend ipv6 first")
            }
            None => Finding::failure(name, format!("not reached: {problem}"), REMEDY),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lines_of_the_guest_are_read() {
        let moved = Moved { bytes: 7, span: Duration::from_micros(9) };
        let line = json!({ "check": "udp", "bytes": 7, "microseconds": 9 });
        assert_eq!(outcome(&line), Some((Check::Udp, Ok(moved))));
        let line = json!({ "check": "dns", "error": "no answer in time" });
        assert_eq!(outcome(&line), Some((Check::Dns, Err("no answer in time".to_owned()))));
        for line in [json!({ "check": "dance" }), json!({ "check": "udp" }), json!(7)] {
            assert_eq!(outcome(&line), None, "{line}");
        }
    }

    #[test]
    fn each_check_has_a_line_whatever_was_told() {
        let moved = Moved { bytes: 125_000_000, span: SECOND };
        let outcomes = vec![(Check::TcpOut, Ok(moved)), (Check::TcpIn, Err("gone".to_owned()))];
        let findings =
            findings(Some((SECOND / 50, "without filter")), &outcomes, "it ended", false);
        let said: Vec<_> =
            findings.iter().map(|found| (found.check, found.state, &*found.what)).collect();
        assert_eq!(
            said[..4],
            [
                ("network", State::Ok, "made within 20 ms, without filter"),
                ("tcp-out", State::Ok, "1.0 Gbit/s from the guest to the host"),
                ("tcp-in", State::Failure, "gone"),
                ("udp", State::Failure, "not reached: it ended"),
            ]
        );
        assert_eq!((said.len(), said[7].1), (8, State::Warning));
        assert!(findings.iter().all(|found| (found.state == State::Ok) == found.remedy.is_none()));
    }

    #[test]
    fn command_that_may_not_ping_is_no_failure() {
        let denied = Errno::EACCES.desc().to_owned();
        let outcomes = vec![(Check::Ping, Err(denied.clone())), (Check::Udp, Err(denied))];
        let findings = findings(Some((SECOND, "")), &outcomes, "it ended", true);
        let state =
            |check| findings.iter().find(|found| found.check == check).map(|found| found.state);
        assert_eq!(state("ping-gateway"), Some(State::Warning));
        assert_eq!(state("udp"), Some(State::Failure));
    }

    #[test]
    fn network_that_was_not_made_is_one_line() {
        let findings = findings(None, &Vec::new(), "slirp run: no", true);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].what, "not made: slirp run: no");
    }

    #[test]
    fn nothing_is_driven_without_its_grounds() {
        let known = [Finding::warning("ping", "no", "do"), Finding::failure("tun", "no", "do")];
        let findings = drive(&known);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].remedy.as_deref(), Some("mend tun first"));
        assert_eq!(findings[0].state, State::Warning);
    }
}
