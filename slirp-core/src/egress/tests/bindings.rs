//! How long bindings last, and how many there are.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::judge::{Judge, JudgeConfig};
use super::super::verdict::FlowVerdict;
use super::{at, ip, judge, name, policy, socket};
use crate::protocol::Protocol;
use crate::time::Instant;

fn is_open(judge: &Judge, address: &str, seconds: u64) -> bool {
    let reached = SocketAddr::new(ip(address), 443);
    match judge.on_flow(Protocol::Tcp, reached, reached, at(seconds)).verdict {
        FlowVerdict::Pass { .. } => true,
        FlowVerdict::Named { .. }
        | FlowVerdict::Hold
        | FlowVerdict::Resolver
        | FlowVerdict::Refuse(_) => false,
    }
}

fn answer(judge: &mut Judge, asked: &str, address: &str, ttl: u32, seconds: u64) {
    assert!(judge.on_answer(&name(asked), &[], &[(ip(address), ttl)], at(seconds)));
}

#[test]
fn lifetime_is_at_least_five_minutes_and_at_most_a_day() {
    let mut judge = judge("allow .example wide=yes");
    for (asked, ttl, lasts) in [
        ("a.example", 0, 300),
        ("b.example", 299, 300),
        ("c.example", 301, 301),
        ("d.example", u32::MAX, 86_400),
    ] {
        answer(&mut judge, asked, "203.0.113.1", ttl, 0);
        assert_eq!(judge.poll_timeout(), Some(at(lasts)));
        assert!(is_open(&judge, "203.0.113.1", lasts - 1));
        assert!(!is_open(&judge, "203.0.113.1", lasts), "even before the timeout is handled");
        judge.handle_timeout(at(lasts));
        assert_eq!(judge.names(ip("203.0.113.1")).count(), 0);
        assert_eq!(judge.poll_timeout(), None);
    }
}

#[test]
fn answer_with_a_shorter_time_to_live_does_not_shorten_a_binding() {
    let mut judge = judge("allow .example wide=yes");
    answer(&mut judge, "a.example", "203.0.113.1", 3600, 0);
    answer(&mut judge, "a.example", "203.0.113.1", 10, 60);
    assert!(is_open(&judge, "203.0.113.1", 3599));
    answer(&mut judge, "a.example", "203.0.113.1", 3600, 60);
    assert!(is_open(&judge, "203.0.113.1", 3659));
    assert_eq!(judge.poll_timeout(), Some(at(3660)));
}

#[test]
fn binding_lasts_while_a_flow_is_open_and_five_minutes_longer() {
    let mut judge = judge("allow .example wide=yes");
    let reached = socket("203.0.113.1:443");
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    judge.on_opened(reached, at(10));
    judge.on_opened(reached, at(10));
    for seconds in (300..3000).step_by(100) {
        judge.handle_timeout(at(seconds));
        assert!(is_open(&judge, "203.0.113.1", seconds));
    }
    judge.on_closed(reached, at(3000));
    judge.handle_timeout(at(3500));
    assert!(is_open(&judge, "203.0.113.1", 3500), "one is open");
    judge.on_closed(reached, at(3500));
    judge.handle_timeout(at(3799));
    assert!(is_open(&judge, "203.0.113.1", 3799));
    judge.handle_timeout(at(3800));
    assert!(!is_open(&judge, "203.0.113.1", 3800));
    assert_eq!(judge.poll_timeout(), None);
}

#[test]
fn close_without_an_open_does_no_harm() {
    let mut judge = judge("allow .example wide=yes");
    let reached = socket("203.0.113.1:443");
    judge.on_opened(reached, at(0));
    judge.on_closed(reached, at(0));
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    judge.on_closed(reached, at(0));
    judge.on_closed(reached, at(1));
    judge.handle_timeout(at(301));
    assert!(!is_open(&judge, "203.0.113.1", 301));
}

#[test]
fn revision_changes_with_everything_that_changes_a_verdict() {
    let mut judge = judge("allow .example wide=yes");
    let mut seen = vec![judge.revision()];
    let mut is_new = |judge: &Judge| {
        let is_new = !seen.contains(&judge.revision());
        seen.push(judge.revision());
        is_new
    };
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    assert!(is_new(&judge), "a binding");
    answer(&mut judge, "a.example", "203.0.113.1", 600, 0);
    assert!(!is_new(&judge), "the same binding, for longer");
    judge.on_opened(socket("203.0.113.1:443"), at(0));
    assert!(!is_new(&judge));
    judge.set_host_addresses(&[ip("203.0.113.9")]);
    assert!(is_new(&judge), "the host's addresses");
    judge.set_policy(policy("deny any"), at(0));
    assert!(is_new(&judge), "the policy");
    judge.on_closed(socket("203.0.113.1:443"), at(0));
    judge.handle_timeout(at(1000));
    assert!(is_new(&judge), "the binding's end");
}

#[test]
fn bound_names_are_judged_by_the_new_policy() {
    let mut judge = judge("allow .example wide=yes");
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    answer(&mut judge, "b.example", "203.0.113.2", 60, 0);
    judge.set_policy(policy("allow b.example"), at(1));
    assert!(!is_open(&judge, "203.0.113.1", 1));
    assert!(is_open(&judge, "203.0.113.2", 1));
}

#[test]
fn address_that_becomes_the_hosts_is_no_longer_reached_by_name() {
    let mut judge = judge("allow .example wide=yes");
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    judge.set_host_addresses(&[ip("203.0.113.1")]);
    assert!(!is_open(&judge, "203.0.113.1", 1));
    judge.set_host_addresses(&[]);
    assert!(is_open(&judge, "203.0.113.1", 1));
}

#[test]
fn denied_alias_refuses_the_answer() {
    let mut judge = judge("allow a.example\nallow c.test:443\ndeny .tracker.test\ndeny c.test:80");
    let addresses = [(ip("203.0.113.1"), 60)];
    let aliases = [name("b.test"), name("x.tracker.test")];
    assert!(!judge.on_answer(&name("a.example"), &aliases, &addresses, at(0)));
    assert!(!is_open(&judge, "203.0.113.1", 0));
    // Nobody allows these, but only a deny counts.
    let aliases = [name("b.test"), name("c.test")];
    assert!(judge.on_answer(&name("a.example"), &aliases, &addresses, at(0)));
    assert!(is_open(&judge, "203.0.113.1", 0));
}

#[test]
fn answer_for_a_name_that_is_not_allowed_binds_nothing() {
    let mut judge = judge("allow a.example\nask b.example");
    for asked in ["b.example", "c.example"] {
        assert!(!judge.on_answer(&name(asked), &[], &[(ip("203.0.113.1"), 60)], at(0)));
    }
    assert!(!is_open(&judge, "203.0.113.1", 0));
}

fn address(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(0xcb00_0000 + u32::try_from(number).unwrap()).into()
}

fn small(cap: usize) -> Judge {
    let config = JudgeConfig { bindings_cap: cap, ..JudgeConfig::default() };
    Judge::new(policy("allow .example wide=yes"), config)
}

fn is_bound(judge: &Judge, address: IpAddr) -> bool {
    judge.names(address).next().is_some()
}

#[test]
fn first_to_end_goes_when_a_name_has_too_many_addresses() {
    let mut judge = judge("allow .example wide=yes");
    let of = |numbers: core::ops::Range<usize>, ttl| -> Vec<_> {
        numbers.map(|number| (address(number), ttl)).collect()
    };
    let a = name("a.example");
    assert!(judge.on_answer(&a, &[], &of(0..10, 400), at(0)));
    assert!(judge.on_answer(&a, &[], &of(10..1024, 800), at(0)));
    judge.on_opened(SocketAddr::new(address(3), 443), at(0));
    assert!(judge.on_answer(&a, &[], &of(2000..2010, 600), at(0)));
    for number in 0..10 {
        assert_eq!(is_bound(&judge, address(number)), number == 3, "{number}");
    }
    let later = (10..1024).filter(|&number| is_bound(&judge, address(number))).count();
    assert_eq!(later, 1013, "one had to go instead of the one in use");
    assert_eq!(judge.bindings_len(), 1024);
    // One answer with far too many.
    assert!(judge.on_answer(&a, &[], &of(5000..9000, 900), at(0)));
    assert_eq!(judge.bindings_len(), 1024);
    assert!(is_bound(&judge, address(3)));
}

#[test]
fn first_to_end_goes_when_an_address_has_too_many_names() {
    let mut judge = judge("allow .example wide=yes");
    for number in 0..65_u32 {
        let asked = format!("n{number}.example");
        answer(&mut judge, &asked, "203.0.113.1", 1000 - number, 0);
    }
    let names: Vec<_> = judge.names(ip("203.0.113.1")).map(|name| name.as_str()).collect();
    assert_eq!(names.len(), 64);
    assert!(!names.contains(&"n63.example"), "it was the first to end");
    assert!(names.contains(&"n64.example"));
    // Those of an address in use stay.
    judge.on_opened(socket("203.0.113.1:443"), at(0));
    answer(&mut judge, "late.example", "203.0.113.1", 3600, 0);
    assert!(!judge.names(ip("203.0.113.1")).any(|name| name.as_str() == "late.example"));
    assert_eq!(judge.bindings_len(), 64);
}

#[test]
fn first_to_end_goes_when_the_guest_has_too_many_bindings() {
    let mut judge = small(100);
    for number in 0..100 {
        let asked = name(&format!("n{number}.example"));
        let ttl = 400 + u32::try_from(number).unwrap();
        assert!(judge.on_answer(&asked, &[], &[(address(number), ttl)], at(0)));
    }
    judge.on_opened(SocketAddr::new(address(0), 443), at(0));
    assert!(judge.on_answer(&name("x.example"), &[], &[(address(500), 300)], at(0)));
    assert!(is_bound(&judge, address(500)));
    assert!(is_bound(&judge, address(0)), "it is in use");
    assert!(!is_bound(&judge, address(1)));
    assert_eq!(judge.bindings_len(), 100);
    for number in 0..600 {
        judge.on_opened(SocketAddr::new(address(number), 443), at(0));
    }
    assert!(judge.on_answer(&name("y.example"), &[], &[(address(501), 300)], at(0)));
    assert!(!is_bound(&judge, address(501)), "all others are in use");
}

#[test]
fn a_binding_that_makes_room_for_its_own_name_leaves_no_remnant() {
    let mut judge = small(1);
    for number in 0..100 {
        assert!(judge.on_answer(&name("a.example"), &[], &[(address(number), 60)], at(0)));
        assert_eq!((judge.bindings_len(), is_bound(&judge, address(number))), (1, true));
    }
    let mut judge = small(0);
    assert!(judge.on_answer(&name("a.example"), &[], &[(address(1), 60)], at(0)));
    assert_eq!((judge.bindings_len(), judge.poll_timeout()), (0, None));
}

#[test]
fn empty_answer_binds_nothing_and_unbinds_nothing() {
    let mut judge = judge("allow .example wide=yes");
    assert!(judge.on_answer(&name("a.example"), &[], &[], at(0)));
    assert_eq!(judge.poll_timeout(), None);
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    assert!(judge.on_answer(&name("a.example"), &[], &[], at(0)));
    assert!(is_open(&judge, "203.0.113.1", 0));
}

#[test]
fn reverse_names_are_asked_of_reachable_addresses_only() {
    let mut judge = judge(
        "allow a.example\nallow private\ndeny 10.0.0.0/24\nallow 198.51.100.1:22\nask 198.51.100.2",
    );
    answer(&mut judge, "a.example", "203.0.113.1", 60, 0);
    for (address, is_reachable) in [
        ("203.0.113.1", true),
        ("203.0.113.2", false),
        ("10.0.1.1", true),
        ("10.0.0.1", false),
        ("198.51.100.1", true),
        // Nothing leaves before somebody has decided.
        ("198.51.100.2", false),
        ("127.0.0.1", false),
        ("100.100.100.200", false),
        ("64:ff9b::a00:1", false),
    ] {
        assert_eq!(judge.is_reachable(ip(address), Instant::ZERO), is_reachable, "{address}");
    }
    assert!(!judge.is_reachable(ip("203.0.113.1"), at(400)));
    let judge = super::judge("allow any\ndeny 10.0.0.0/24");
    assert!(judge.is_reachable(ip("203.0.113.1"), Instant::ZERO));
    assert!(!judge.is_reachable(ip("10.0.0.1"), Instant::ZERO));
    assert!(!judge.is_reachable(ip("127.0.0.1"), Instant::ZERO));
}
