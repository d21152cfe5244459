//! Why a verdict is as it is, for people.
//!
//! Owns the steps that `slirp policy explain` shows. The verdict itself comes from the
//! [`Judge`], by the same calls as in a running network.

use core::net::{IpAddr, SocketAddr};

use super::evaluation::Outcome;
use super::judge::{Judge, JudgeConfig};
use super::name::Name;
use super::policy::EgressPolicy;
use super::ports::Said;
use super::rule::{Action, EgressRule, Source};
use super::sets::Place;
use super::sets::{ALL, Fitness, Sets};
use super::verdict::{Cause, FlowVerdict, Judged, NameVerdict, Verification};
use crate::plan::{Ipv6Plan, SlirpNetwork};
use crate::protocol::Protocol;
use crate::time::Instant;

/// What a guest or a client may want to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Destination<'a> {
    /// The guest looks a name up.
    Lookup(&'a Name),
    /// The guest looks a name up, gets an address on the Internet that no rule mentions, and opens
    /// a flow to it.
    Name {
        /// The flow's protocol.
        protocol: Protocol,
        /// The name.
        name: &'a Name,
        /// Not looked at for an echo.
        port: u16,
    },
    /// The guest opens a flow to an address.
    Address {
        /// The flow's protocol.
        protocol: Protocol,
        /// The address that is reached: 127.0.0.1 where the guest writes its gateway's.
        reached: SocketAddr,
    },
    /// A client opens a flow to the guest.
    Client {
        /// The flow's protocol.
        protocol: Protocol,
        /// The client's address.
        client: IpAddr,
        /// The published port of the host.
        host_port: u16,
    },
}

/// A verdict, and how it came about.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The verdict.
    pub verdict: Action,
    /// Its cause.
    pub cause: Cause,
    /// Where the rule was written that decided.
    pub rule: Option<Source>,
    /// One line for each step.
    pub steps: Vec<String>,
}

impl EgressPolicy {
    /// Explains what becomes of a guest's or a client's attempt, as if it were the first: no name
    /// has been looked up, and the host's interfaces are not known. The guest's gateways are those
    /// of a network with default addresses.
    pub fn explain(&self, destination: &Destination<'_>) -> Explanation {
        let ipv4 = SlirpNetwork::default().gateway();
        let ipv6 = Ipv6Plan::default().gateway();
        let gateways = [Some(ipv4.into()), Some(ipv6.into())];
        let judge = Judge::new(self.clone(), JudgeConfig { gateways, ..JudgeConfig::default() });
        judge.explain(destination, Instant::ZERO)
    }

    fn rule(&self, said: Option<Said>) -> Option<&EgressRule> {
        self.rules().get(usize::try_from(said?.rule).ok()?)
    }

    /// Where the rule was written that decided.
    pub(super) fn source(&self, said: Option<Said>) -> Option<Source> {
        self.rule(said).map(|rule| rule.source.clone())
    }

    /// The line about what decided.
    fn decided_by(&self, said: Option<Said>, default: Action) -> String {
        match self.rule(said) {
            Some(rule) => format!("{}: {rule}", rule.source),
            None => format!("no rule decides, and the default is to {default}"),
        }
    }
}

impl Judge {
    /// Explains what becomes of an attempt now.
    pub(crate) fn explain(&self, destination: &Destination<'_>, now: Instant) -> Explanation {
        match *destination {
            Destination::Lookup(name) => self.explain_lookup(name, now),
            Destination::Name { protocol, name, port } => {
                let lookup = self.explain_lookup(name, now);
                let class = self.policy().compiled().names.class(name);
                let place = Place {
                    address: None,
                    sets: Sets::INTERNET,
                    spellings: &[],
                    fitness: Fitness::Public,
                };
                let port = if protocol == Protocol::Echo { 0 } else { port };
                let names = core::iter::once(class);
                let outcome = self.policy().compiled().flow(protocol, &place, port, names, false);
                let mut steps = lookup.steps;
                if lookup.verdict == Action::Deny {
                    return Explanation { steps, ..lookup };
                }
                self.explain_outcome(outcome, &mut steps)
            }
            Destination::Address { protocol, reached } => {
                if let Some(judged) = self.on_placeholder(protocol, reached, now) {
                    return self.explain_placeholder(judged, reached.ip());
                }
                let outcome = self.outcome(protocol, reached.ip(), reached, now);
                let mut steps = vec![self.sets_line(reached.ip())];
                let names: Vec<_> = self.names(reached.ip()).map(Name::as_str).take(8).collect();
                if !names.is_empty() {
                    steps.push(format!("it was given for {}", names.join(", ")));
                }
                let verdict = self.on_flow(protocol, reached, reached, now).verdict;
                let explanation = self.explain_outcome(outcome, &mut steps);
                if verdict == FlowVerdict::Resolver {
                    let mut steps = explanation.steps;
                    steps.push("the query is led to the DNS service".into());
                    return Explanation { verdict: Action::Allow, steps, ..explanation };
                }
                explanation
            }
            Destination::Client { protocol, client, host_port } => {
                let (action, cause, said) = self.inbound(protocol, client, host_port);
                let default = self.policy().compiled().inbound_default;
                let steps = vec![self.sets_line(client), self.policy().decided_by(said, default)];
                self.explanation(action, cause, said, steps)
            }
        }
    }

    fn explain_placeholder(&self, judged: Judged, address: IpAddr) -> Explanation {
        let Judged { action, cause, rule, .. } = judged;
        let stands_for = match self.placeholder_name(address) {
            Some(name) => format!("{address} stands for {name}, which somebody is asked about"),
            None => format!("{address} is one that stands for a name, and stands for none"),
        };
        let number = rule.and_then(|rule| usize::try_from(rule).ok());
        let rule = number.and_then(|number| self.policy().rules().get(number));
        let rule = rule.map(|rule| rule.source.clone());
        Explanation { verdict: action, cause, rule, steps: vec![stands_for] }
    }

    fn explain_lookup(&self, name: &Name, now: Instant) -> Explanation {
        let compiled = self.policy().compiled();
        let (action, said) = compiled.lookup(compiled.names.class(name));
        let cause = if said.is_some() { Cause::Rule } else { Cause::Default };
        let mut steps = vec![self.policy().decided_by(said, compiled.default)];
        steps.push(match self.on_lookup(name, now) {
            NameVerdict::Ask => format!("the lookup of {name} is asked upstream"),
            NameVerdict::Placeholder => {
                format!("nothing is asked upstream before somebody has decided about {name}")
            }
            NameVerdict::NoData => {
                format!("{name} has no addresses (NODATA), but names below it may be allowed")
            }
            NameVerdict::Refuse { .. } => {
                format!("the lookup of {name} is refused (NXDOMAIN); nothing is asked upstream")
            }
        });
        self.explanation(action, cause, said, steps)
    }

    fn explain_outcome(&self, outcome: Outcome, steps: &mut Vec<String>) -> Explanation {
        let default = self.policy().compiled().default;
        let decided = if outcome.said.is_none() && outcome.is_protected {
            "it is protected, and no rule names it".into()
        } else {
            self.policy().decided_by(outcome.said, default)
        };
        // Often what decides about the lookup decides about the flow.
        if !steps.contains(&decided) {
            steps.push(decided);
        }
        let why = match outcome.cause {
            Cause::Port => "a rule allows the destination, on other ports",
            Cause::Protocol => "a rule allows the destination, for another protocol",
            Cause::NoName => "a rule allows the port for names, and no lookup gave this address",
            Cause::Rebinding => "a name was answered with this address, and may not lead there",
            Cause::Rule
            | Cause::Default
            | Cause::Protected
            | Cause::Name
            | Cause::NoTls
            | Cause::Hello
            | Cause::Http
            | Cause::Ech
            | Cause::NoApprover
            | Cause::AskTimeout
            | Cause::AskFull
            | Cause::Decision
            | Cause::Revoked
            | Cause::NoAudit => "",
        };
        let first_bytes = match outcome.verify {
            Verification::None => "",
            Verification::Tls => "its first bytes must be a ClientHello with an allowed name",
            Verification::Http => "its first bytes must be HTTP/1 for an allowed host",
            Verification::Sniff => "if its first bytes name a host, the name must be allowed",
            Verification::SniffDenied => {
                "if its first bytes name a host, the name must not be denied"
            }
        };
        let lines = [why, first_bytes].into_iter().filter(|line| !line.is_empty());
        steps.extend(lines.map(String::from));
        if outcome.cause == Cause::Decision {
            steps.push(format!("somebody was asked and has decided: {}", outcome.action.as_str()));
        }
        self.explanation(outcome.action, outcome.cause, outcome.said, core::mem::take(steps))
    }

    fn explanation(
        &self,
        verdict: Action,
        cause: Cause,
        said: Option<Said>,
        mut steps: Vec<String>,
    ) -> Explanation {
        if self.is_audit() {
            steps.push("the policy is in audit mode: all but protected addresses pass".into());
        }
        let rule = self.policy().source(said);
        Explanation { verdict, cause, rule, steps }
    }

    fn sets_line(&self, address: IpAddr) -> String {
        let sets = self.sets(address);
        let names: Vec<_> =
            ALL.into_iter().filter(|&set| sets.contains(set)).map(|set| set.to_string()).collect();
        if names.is_empty() {
            format!("{address} is in no set")
        } else {
            format!("{address} is in {}", names.join(", "))
        }
    }
}
