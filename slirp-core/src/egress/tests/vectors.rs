//! The table of cases in `vectors.txt`.

use core::net::SocketAddr;

use super::super::explain::{Destination, Explanation};
use super::super::judge::Judge;
use super::super::rule::Action;
use super::super::verdict::{Cause, FlowVerdict, NameVerdict, Verification};
use super::reference::Reference;
use super::{at, ip, judge, name, socket};
use crate::protocol::Protocol;
use crate::time::Instant;

const VECTORS: &str = include_str!("vectors.txt");

/// One guest of the table.
struct Guest {
    judge: Judge,
    reference: Reference,
    now: Instant,
}

impl Guest {
    fn new(policy: &str) -> Self {
        let judge = judge(policy);
        let reference =
            Reference { policy: judge.policy().clone(), host: Vec::new(), bound: Vec::new() };
        Self { judge, reference, now: Instant::ZERO }
    }

    /// What comes of one step, as the table has it.
    fn step(&mut self, step: &str) -> String {
        let words: Vec<_> = step.split_whitespace().collect();
        match words[..] {
            ["answer", asked, address, ttl] => self.answer(asked, address, ttl.parse().unwrap()),
            ["lookup", asked] => self.lookup(asked),
            ["flow", kind, address] => self.flow(protocol(kind), destination(address)),
            ["claim", claim, address] => self.claim(claim, socket(address)),
            ["in", kind, client, port] => self.inbound(protocol(kind), client, port),
            ["name", kind, asked, port] => {
                let (protocol, name) = (protocol(kind), &name(asked));
                let port = port.parse().unwrap();
                told(&self.explain(&Destination::Name { protocol, name, port }))
            }
            _ => panic!("what is this: {step}"),
        }
    }

    fn explain(&self, destination: &Destination<'_>) -> Explanation {
        let explanation = self.judge.explain(destination, self.now);
        assert!(!explanation.steps.is_empty() && !explanation.steps.contains(&String::new()));
        let is_by_rule = explanation.rule.is_some();
        assert_eq!(is_by_rule, explanation.cause == Cause::Rule, "{explanation:?}");
        explanation
    }

    fn answer(&mut self, asked: &str, address: &str, ttl: u32) -> String {
        let (name, address) = (name(asked), ip(address));
        if !self.judge.on_answer(&name, &[], &[(address, ttl)], self.now) {
            return "refused".into();
        }
        let is_bound = self.judge.names(address).any(|bound| *bound == name);
        assert_eq!(is_bound, self.reference.answer(&name, address));
        if is_bound { "bound" } else { "unfit" }.into()
    }

    fn lookup(&mut self, asked: &str) -> String {
        let asked = name(asked);
        let verdict = self.judge.on_lookup(&asked, self.now);
        let explained = self.explain(&Destination::Lookup(&asked)).verdict;
        let (word, action) = match &verdict {
            NameVerdict::Ask => ("ask", Action::Allow),
            NameVerdict::Placeholder => ("placeholder", Action::Ask),
            NameVerdict::NoData => ("nodata", Action::Deny),
            NameVerdict::Refuse { .. } => ("nxdomain", Action::Deny),
        };
        assert_eq!(explained, action);
        let plain = |verdict| match verdict {
            NameVerdict::Refuse { .. } => NameVerdict::Refuse { note: None },
            NameVerdict::Ask | NameVerdict::Placeholder | NameVerdict::NoData => verdict,
        };
        assert_eq!(plain(verdict), self.reference.lookup(&asked));
        word.into()
    }

    fn flow(&mut self, protocol: Protocol, reached: SocketAddr) -> String {
        let judged = self.judge.on_flow(protocol, reached, reached, self.now);
        let explanation = self.explain(&Destination::Address { protocol, reached });
        let (action, verification) = self.reference.flow(protocol, reached);
        match judged.verdict {
            FlowVerdict::Pass { verify } => {
                let cause = judged.cause;
                assert_eq!((action, verification), (Action::Allow, verify));
                assert_eq!(told(&explanation), format!("allow {}", cause.as_str()));
                format!("allow {} {}", cause.as_str(), word(verify))
            }
            FlowVerdict::Resolver => {
                assert_ne!(action, Action::Allow);
                assert_eq!(explanation.verdict, Action::Allow);
                "resolver".into()
            }
            // An echo is never asked about.
            FlowVerdict::Hold | FlowVerdict::Refuse(_) if action == Action::Ask => {
                assert_eq!((action, explanation.verdict), (Action::Ask, Action::Ask));
                "ask".into()
            }
            FlowVerdict::Hold | FlowVerdict::Named { .. } => panic!("{judged:?}"),
            FlowVerdict::Refuse(cause) => {
                assert_eq!(action, Action::Deny);
                assert_eq!(told(&explanation), format!("deny {}", cause.as_str()));
                format!("deny {}", cause.as_str())
            }
        }
    }

    fn claim(&mut self, claim: &str, reached: SocketAddr) -> String {
        let claim = (claim != "-").then(|| name(claim));
        match self.judge.on_claim(claim.as_ref(), reached, self.now) {
            Ok(_) => "pass".into(),
            Err(denial) => denial.cause.as_str().into(),
        }
    }

    fn inbound(&mut self, protocol: Protocol, client: &str, port: &str) -> String {
        let (client, host_port) = (ip(client), port.parse().unwrap());
        let destination = Destination::Client { protocol, client, host_port };
        let explained = self.explain(&destination).verdict;
        assert_eq!(explained, self.reference.inbound(protocol, client.to_canonical(), host_port));
        let judged = self.judge.on_inbound(protocol, SocketAddr::new(client, 40_000), host_port);
        match judged.verdict {
            FlowVerdict::Pass { .. } | FlowVerdict::Resolver => {
                assert_eq!(explained, Action::Allow);
                "allow".into()
            }
            FlowVerdict::Refuse(cause) => {
                assert_ne!(explained, Action::Allow);
                cause.as_str().into()
            }
            FlowVerdict::Named { .. } | FlowVerdict::Hold => panic!("{judged:?}"),
        }
    }
}

fn told(explanation: &Explanation) -> String {
    format!("{} {}", explanation.verdict, explanation.cause.as_str())
}

const fn word(verification: Verification) -> &'static str {
    match verification {
        Verification::None => "none",
        Verification::Tls => "tls",
        Verification::Http => "http",
        Verification::Sniff => "sniff",
        Verification::SniffDenied => "sniff-denied",
    }
}

fn protocol(word: &str) -> Protocol {
    match word {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Echo,
        _ => panic!("{word} is no protocol"),
    }
}

/// An echo's has no port.
fn destination(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| SocketAddr::new(ip(text), 0))
}

#[test]
fn judge_explanation_and_reference_agree_with_the_table() {
    let mut failures = Vec::new();
    let mut steps = 0;
    for case in VECTORS.split("\ncase ").skip(1) {
        let (title, lines) = case.split_once('\n').unwrap_or((case, ""));
        let lines = || lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let policy: Vec<_> = lines().filter_map(|line| line.strip_prefix("| ")).collect();
        let mut guest = Guest::new(&policy.join("\n"));
        for line in lines().filter(|line| !line.starts_with('|')) {
            if let Some(addresses) = line.strip_prefix("host ") {
                guest.reference.host = addresses.split(' ').map(ip).collect();
                guest.judge.set_host_addresses(&guest.reference.host);
            } else if let Some(seconds) = line.strip_prefix("at ") {
                guest.now = at(seconds.parse().unwrap());
                guest.judge.handle_timeout(guest.now);
                let judge = &guest.judge;
                let is_bound =
                    |(address, name): &(_, _)| judge.names(*address).any(|bound| bound == name);
                guest.reference.bound.retain(is_bound);
            } else {
                let (step, expected) = line.split_once(" = ").unwrap();
                let found = guest.step(step);
                if found != expected {
                    failures.push(format!("{title}: {step} = {found}, not {expected}"));
                }
                steps += 1;
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(steps > 200, "the whole table was read: {steps}");
}
