//! What holds for all policies.

use core::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::judge::{Judge, JudgeConfig};
use super::super::rule::Action;
use super::super::verdict::{Cause, FlowVerdict, NameVerdict};
use super::reference::{Reference, strictness};
use super::{GATEWAY, at, ip, name, policy};
use crate::protocol::Protocol;
use crate::rng::Rng;
use crate::time::Instant;

const NAMES: [&str; 8] = [
    "example",
    "a.example",
    "b.example",
    "x.a.example",
    "y.x.a.example",
    "b.test",
    "x.b.test",
    "c.test",
];
const PATTERNS: [&str; 9] = [
    "a.example",
    ".a.example",
    "*.a.example",
    "*.example wide=yes",
    ".b.test",
    "x.b.test",
    "x.a.example",
    "b.example",
    "*.test wide=yes",
];
const ADDRESSES: [&str; 35] = [
    "203.0.113.1",
    "203.0.113.2",
    "203.0.114.1",
    "192.0.2.1",
    "10.0.0.1",
    "10.0.1.1",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "198.18.0.1",
    "198.19.200.1",
    "127.0.0.1",
    "127.1.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "169.254.1.1",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fd00::9",
    "ff02::1",
    "2001:db8::1",
    "64:ff9b::203.0.113.1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::1",
    "2001:0:cb00:7101::f5ff:fffe",
    "64:ff9b:1::192.0.2.1",
];
const PLACES: [&str; 27] = [
    "host-loopback",
    "host",
    "private",
    "link-local",
    "metadata",
    "multicast",
    "internet",
    "any",
    "203.0.113.1",
    "203.0.113.0/24",
    "203.0.0.0/8",
    "192.0.0.0/2",
    "10.0.0.0/24",
    "10.0.0.0/8",
    "127.0.0.1",
    "127.0.0.0/16",
    "0.0.0.0/1",
    "128.0.0.0/1",
    "169.254.169.254",
    "169.254.0.0/16",
    "168.63.129.16",
    "10.0.2.2",
    "[2001:db8::/32]",
    "[64:ff9b::/96]",
    "[2000::/3]",
    "[fe80::/10]",
    "[fc00::/7]",
];
const PORTS: [&str; 9] = ["", "", ":*", ":80", ":443", ":22", ":22,443", ":1-1023", ":1000-65535"];
const PROBED: [u16; 7] = [1, 22, 53, 80, 443, 1010, 65_535];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];

/// A rule about what the guest opens.
fn rule(action: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    let protocols = select(vec!["", "", "", "tcp:", "udp:", "icmp:"]);
    let options = select(vec!["", "", "", " private=yes", " verify=off"]);
    (action, protocols, any::<bool>(), 0..PATTERNS.len(), 0..PLACES.len(), 0..PORTS.len(), options)
        .prop_map(|(action, protocol, is_name, pattern, place, ports, options)| {
            let ports = if protocol == "icmp:" { "" } else { PORTS[ports] };
            if is_name {
                let (pattern, wide) = PATTERNS[pattern].split_once(' ').map_or_else(
                    || (PATTERNS[pattern], String::new()),
                    |(pattern, wide)| (pattern, format!(" {wide}")),
                );
                format!("{action} {protocol}{pattern}{ports}{wide}{options}")
            } else if PLACES[place] == "any" && protocol.is_empty() && ports.is_empty() {
                // That would be a default.
                format!("{action} any:*")
            } else {
                format!("{action} {protocol}{}{ports}", PLACES[place])
            }
        })
}

fn lookup_rule() -> impl Strategy<Value = String> {
    (select(vec!["allow", "deny"]), 0..PATTERNS.len())
        .prop_map(|(action, pattern)| format!("{action} dns:{}", PATTERNS[pattern]))
}

fn inbound_rule() -> impl Strategy<Value = String> {
    let actions = select(vec!["allow", "deny", "ask"]);
    (actions, 0..PLACES.len(), 0..PORTS.len())
        .prop_map(|(action, place, ports)| format!("{action} in {}{}", PLACES[place], PORTS[ports]))
}

fn rules() -> impl Strategy<Value = Vec<String>> {
    let any = || rule(select(vec!["allow", "allow", "deny", "ask"]));
    vec(prop_oneof![6 => any(), 1 => lookup_rule(), 1 => inbound_rule()], 0..12)
}

fn default() -> impl Strategy<Value = &'static str> {
    select(vec!["deny any", "deny any", "ask any", "allow any"])
}

/// A guest after some lookups, and the same for the reference.
fn guest(rules: &[String], default: &str, seed: u64) -> (Judge, Reference) {
    let text = format!("{default}\n{}", rules.join("\n"));
    let gateways = [Some(ip(GATEWAY)), None];
    let config = JudgeConfig { gateways, ..JudgeConfig::default() };
    let mut judge = Judge::new(policy(&text), config);
    let host = vec![ip("192.168.1.1"), ip("203.0.113.2"), ip("169.254.1.1"), ip("127.0.0.1")];
    judge.set_host_addresses(&host);
    let mut reference = Reference { policy: policy(&text), host, bound: Vec::new() };
    let mut rng = Rng::new(seed);
    for _ in 0..rng.next_u16() % 16 {
        let name = name(NAMES[usize::from(rng.next_u16()) % NAMES.len()]);
        let address = ip(ADDRESSES[usize::from(rng.next_u16()) % ADDRESSES.len()]);
        if judge.on_answer(&name, &[], &[(address, 60)], Instant::ZERO) {
            reference.answer(&name, address);
        }
    }
    (judge, reference)
}

/// The verdict and its cause. Of several rules that say the same, any may be named.
fn said(judge: &Judge, protocol: Protocol, reached: SocketAddr) -> (FlowVerdict, Action, Cause) {
    let judged = judge.on_flow(protocol, reached, reached, at(1));
    (judged.verdict, judged.action, judged.cause)
}

/// The verdict in an order: the stricter, the greater.
fn verdict(judge: &Judge, protocol: Protocol, reached: SocketAddr) -> (Action, u8) {
    let judged = judge.on_flow(protocol, reached, reached, at(1));
    match judged.verdict {
        FlowVerdict::Pass { verify } => (Action::Allow, strictness(verify)),
        // An echo is never asked about.
        FlowVerdict::Hold | FlowVerdict::Refuse(_) => (judged.action, 0),
        FlowVerdict::Named { .. } => panic!("{judged:?}"),
        FlowVerdict::Resolver => {
            let explanation = judge.outcome(protocol, reached.ip(), reached, at(1));
            (explanation.action, 0)
        }
    }
}

fn flows() -> impl Iterator<Item = (Protocol, SocketAddr)> {
    ADDRESSES.into_iter().flat_map(|address| {
        PROTOCOLS.into_iter().flat_map(move |protocol| {
            let ports = if protocol == Protocol::Echo { &[0][..] } else { &PROBED };
            ports.iter().map(move |&port| (protocol, SocketAddr::new(ip(address), port)))
        })
    })
}

/// How strict the verdict of a lookup is.
const fn lookup_strictness(verdict: &NameVerdict) -> u8 {
    match verdict {
        NameVerdict::Ask => 0,
        NameVerdict::Placeholder => 1,
        NameVerdict::NoData | NameVerdict::Refuse { .. } => 2,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn compiled_rules_say_what_the_reference_says(
        rules in rules(), default in default(), seed in any::<u64>(),
    ) {
        let (judge, reference) = guest(&rules, default, seed);
        for (protocol, reached) in flows() {
            let (action, verify) = reference.flow(protocol, reached);
            let found = verdict(&judge, protocol, reached);
            prop_assert_eq!(found, (action, strictness(verify)), "{:?} {}", protocol, reached);
            let client = reached.ip();
            let action = reference.inbound(protocol, client, reached.port());
            let inbound = judge.on_inbound(protocol, reached, reached.port());
            let is_let_in = inbound.action == Action::Allow;
            prop_assert_eq!(is_let_in, action == Action::Allow, "in {:?} {}", protocol, reached);
        }
        for asked in NAMES.map(name) {
            let found = judge.on_lookup(&asked, at(1));
            prop_assert_eq!(&found, &reference.lookup(&asked), "lookup of {}", asked);
        }
    }

    #[test]
    fn order_of_rules_never_matters(
        rules in rules(), default in default(), seed in any::<u64>(), by in any::<u64>(),
    ) {
        let (judge, _) = guest(&rules, default, seed);
        let mut rng = Rng::new(by);
        let mut shuffled = rules.clone();
        shuffled.sort_by_cached_key(|_| rng.next_u64());
        let (other, _) = guest(&shuffled, default, seed);
        for (protocol, reached) in flows() {
            prop_assert_eq!(
                said(&judge, protocol, reached),
                said(&other, protocol, reached),
                "{:?} {}", protocol, reached
            );
        }
        for asked in NAMES.map(name) {
            prop_assert_eq!(judge.on_lookup(&asked, at(1)), other.on_lookup(&asked, at(1)));
        }
    }

    #[test]
    fn one_more_deny_never_opens_and_one_more_allow_never_closes(
        rules in rules(),
        deny in rule(Just("deny")),
        allow in rule(Just("allow")),
        default in default(),
        seed in any::<u64>(),
    ) {
        let (mut judge, _) = guest(&rules, default, seed);
        let before: Vec<_> =
            flows().map(|(protocol, reached)| verdict(&judge, protocol, reached)).collect();
        let lookups = NAMES.map(|asked| judge.on_lookup(&name(asked), at(1)));
        for (one_more, is_deny) in [(deny, true), (allow, false)] {
            let text = format!("{default}\n{}\n{one_more}", rules.join("\n"));
            judge.set_policy(policy(&text), at(1));
            for ((protocol, reached), before) in flows().zip(&before) {
                let after = verdict(&judge, protocol, reached);
                prop_assert!(
                    if is_deny { after >= *before } else { after <= *before },
                    "{:?} {}: {:?} becomes {:?} with {}", protocol, reached, before, after, one_more
                );
            }
            for (asked, before) in NAMES.into_iter().zip(&lookups) {
                let before = lookup_strictness(before);
                let after = lookup_strictness(&judge.on_lookup(&name(asked), at(1)));
                let is_right = if is_deny { after >= before } else { after <= before };
                prop_assert!(is_right, "lookup of {} with {}", asked, one_more);
            }
        }
    }

    #[test]
    fn bindings_stay_within_their_cap_and_fit(
        rules in rules(), default in default(), seed in any::<u64>(), cap in 0_usize..20,
    ) {
        let text = format!("{default}\n{}", rules.join("\n"));
        let config = JudgeConfig { bindings_cap: cap, ..JudgeConfig::default() };
        let mut judge = Judge::new(policy(&text), config);
        let reference = Reference { policy: policy(&text), host: Vec::new(), bound: Vec::new() };
        let mut rng = Rng::new(seed);
        let mut now = 0;
        for _ in 0..200 {
            now += u64::from(rng.next_u16() % 100);
            let pick = |len: usize, rng: &mut Rng| usize::from(rng.next_u16()) % len;
            let asked = name(NAMES[pick(NAMES.len(), &mut rng)]);
            let addresses: Vec<(IpAddr, u32)> = (0..rng.next_u16() % 8)
                .map(|_| (ip(ADDRESSES[pick(ADDRESSES.len(), &mut rng)]), rng.next_u32() % 1000))
                .collect();
            let reached = SocketAddr::new(ip(ADDRESSES[pick(ADDRESSES.len(), &mut rng)]), 443);
            match rng.next_u16() % 5 {
                0 => judge.handle_timeout(at(now)),
                1 => judge.on_opened(reached, at(now)),
                2 => judge.on_closed(reached, at(now)),
                _ => {
                    judge.on_answer(&asked, &[], &addresses, at(now));
                }
            }
            prop_assert!(judge.bindings_len() <= cap);
            let bound = ADDRESSES.map(|address| judge.names(ip(address)).count());
            prop_assert_eq!(bound.iter().sum::<usize>(), judge.bindings_len());
            prop_assert_eq!(judge.poll_timeout().is_some(), judge.bindings_len() > 0);
        }
        for address in ADDRESSES.map(ip) {
            for bound in judge.names(address) {
                let mut reference =
                    Reference { policy: reference.policy.clone(), host: Vec::new(), bound: vec![] };
                prop_assert!(reference.answer(bound, address), "{} at {}", bound, address);
            }
        }
        judge.handle_timeout(at(now + 100_000));
        judge.handle_timeout(at(now + 200_000));
    }
}
