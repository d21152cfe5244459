//! What the judge promises: a table of cases, a slow reference evaluator, and properties.

mod bindings;
mod properties;
mod reference;
mod vectors;

use core::net::{IpAddr, SocketAddr};

use super::approval::{Decision, QuestionId, Scope};
use super::judge::{Judge, JudgeConfig};
use super::name::Name;
use super::policy::EgressPolicy;
use super::rule::{Action, Prefix};
use super::sets::contains;
use super::verdict::{Cause, FlowVerdict, NameVerdict, Verification};
use crate::protocol::Protocol;
use crate::time::Instant;

pub(super) const GATEWAY: &str = "10.0.2.2";

pub(super) fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(text, "test.policy").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

pub(super) fn judge(text: &str) -> Judge {
    let gateways = [Some(ip(GATEWAY)), Some(ip("fd00::2"))];
    Judge::new(policy(text), JudgeConfig { gateways, ..JudgeConfig::default() })
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap_or_else(|| panic!("{text} is a name"))
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an address with a port"))
}

pub(super) const fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

#[test]
fn audit_lets_all_pass_but_what_is_protected() {
    let mut judge =
        judge("set mode audit\nallow a.example\ndeny 203.0.113.9\nallow in 10.0.0.1:80");
    let flow = |judge: &Judge, reached: &str| {
        let reached = socket(reached);
        let judged = judge.on_flow(Protocol::Tcp, reached, reached, at(0));
        (judged.verdict, judged.action, judged.cause)
    };
    let passed = FlowVerdict::Pass { verify: Verification::Sniff };
    assert_eq!(flow(&judge, "203.0.113.9:443"), (passed, Action::Deny, Cause::Rule));
    assert_eq!(flow(&judge, "203.0.113.1:443"), (passed, Action::Deny, Cause::NoName));
    assert_eq!(flow(&judge, "203.0.113.1:53").0, FlowVerdict::Resolver);
    for protected in ["127.0.0.1:80", "169.254.169.254:80", "[64:ff9b::7f00:1]:80"] {
        assert_eq!(flow(&judge, protected).0, FlowVerdict::Refuse(Cause::Protected));
    }
    assert_eq!(judge.on_lookup(&name("b.test"), at(0)), NameVerdict::Ask);
    assert!(judge.on_answer(&name("b.test"), &[], &[(ip("203.0.113.1"), 60)], at(0)));
    assert_eq!(judge.names(ip("203.0.113.1")).count(), 1);
    assert_eq!(judge.would_say(&name("b.test")), Some(Action::Deny));
    assert_eq!(judge.would_say(&name("a.example")), None);
    // Whether that is obeyed is for the stack to say.
    let claimed = judge.on_claim(Some(&name("b.test")), socket("203.0.113.1:443"), at(0));
    assert_eq!(claimed.unwrap_err().cause, Cause::NoName);
    let inbound = judge.on_inbound(Protocol::Tcp, socket("198.51.100.1:40000"), 22);
    let passed = FlowVerdict::Pass { verify: Verification::None };
    assert_eq!((inbound.verdict, inbound.action), (passed, Action::Deny));
}

/// Somebody decides about flows to `reached` for the session.
fn decide(judge: &mut Judge, reached: &str, action: Action, parent: bool) {
    let id = QuestionId(1);
    let asked = judge.ask(ip("10.0.2.100"), Protocol::Tcp, socket(reached), None, id, at(0));
    assert_eq!(asked, Ok(id));
    let decision = Decision { action, scope: Scope::Session, all_ports: false, parent };
    judge.decide(id, &decision, at(0)).unwrap();
}

#[test]
fn denial_by_a_person_holds_for_the_name_in_first_bytes_too() {
    let shared = "203.0.113.1:443";
    for (lines, passes) in [
        ("ask any\ndeny c.test", true),
        ("ask any\nallow b.test:22", true),
        ("ask any\nallow 203.0.113.0/24", true),
        // Of a name that a rule asks about, a yes about the address says nothing.
        ("ask 203.0.113.0/24\nask .b.test", false),
    ] {
        for is_denied in [false, true] {
            let mut judge = judge(lines);
            let stands = judge.placeholder(&name("y.b.test"), at(0)).unwrap();
            if is_denied {
                decide(&mut judge, &format!("{stands}:443"), Action::Deny, true);
            }
            decide(&mut judge, shared, Action::Allow, false);
            let claim =
                |text| judge.on_claim(Name::new(text).as_ref(), socket(shared), at(0)).is_ok();
            assert_eq!(claim("x.b.test"), passes && !is_denied, "{lines}");
            assert!(claim("") && claim("d.test"), "{lines}");
            assert!(!claim("c.test") || !lines.contains("c.test"), "{lines}");
        }
    }
}

#[test]
fn placeholders_are_no_addresses_of_the_guests_network() {
    let prefix = |text: &str, len| Prefix { address: ip(text), len };
    for (taken, lines) in [
        (vec![prefix("198.19.192.0", 24)], ""),
        (vec![prefix("198.18.0.0", 15)], ""),
        (vec![prefix("198.19.255.3", 32), prefix("198.18.1.0", 24)], ""),
        (vec![prefix("172.20.0.0", 16)], "set placeholder 172.20.128.0/20\n"),
    ] {
        let config = JudgeConfig { taken: taken.clone(), ..JudgeConfig::default() };
        let mut judge = Judge::new(policy(&format!("{lines}ask any")), config);
        for other in ["", "set placeholder 192.0.2.0/30\n", lines] {
            let stands = judge.placeholder(&name("a.test"), at(0)).expect("there is one");
            let is_taken = taken.iter().any(|&taken| contains(taken, stands.into()));
            assert!(!is_taken, "{stands} is in {taken:?}");
            judge.set_policy(policy(&format!("{other}ask any")), at(0));
        }
    }
}
