//! Another policy comes into force while flows are open.

use super::*;
use crate::tcp::tests::packet::RST;

fn set(ladder: &mut Ladder, lines: &str, established: Established) -> Vec<Heard> {
    ladder.stack.set_egress(None, policy(lines), established, ladder.now);
    ladder.pass(Duration::from_millis(1))
}

fn is_reset(heard: &[Heard]) -> bool {
    heard.iter().filter_map(|heard| heard.tcp.as_ref()).any(|tcp| tcp.has(RST))
}

#[test]
fn connection_that_is_not_allowed_any_more_is_reset_unless_it_is_kept() {
    for is_parked in [false, true] {
        let mut ladder = under("allow 192.0.2.0/24");
        let talk = Talk::open_with(&mut ladder, &syn_to("192.0.2.1:22", 40_000));
        let other = Talk::open_with(&mut ladder, &syn_to("192.0.2.2:22", 40_001));
        if is_parked {
            ladder.pass(Duration::from_secs(10));
            assert_eq!(ladder.stack.stats().tcp_parked, 2);
        }
        assert!(!is_reset(&set(&mut ladder, "", Established::Keep)));
        assert_eq!(ladder.stack.stats().flows, 2);
        let heard = set(&mut ladder, "allow 192.0.2.2", Established::Cut);
        assert!(is_reset(&heard), "{heard:?}");
        assert_eq!(ladder.closes, [(talk.flow, true)]);
        assert_eq!(ladder.stack.stats().flows, 1);
        let closed = core::iter::from_fn(|| ladder.stack.poll_event()).any(|report| {
            matches!(report.event, Event::Closed { flow, ending: Ending::Revoked, .. }
                if flow == talk.flow)
        });
        assert!(closed);
        let mut other = other;
        other.say(&mut ladder, ACK, b"goes on");
        assert_eq!(ladder.taken(other.flow), b"goes on");
    }
}

#[test]
fn nothing_that_waits_leaves_once_a_connection_is_cut() {
    let mut ladder = under("allow 192.0.2.1");
    let mut talk = Talk::open_with(&mut ladder, &syn_to("192.0.2.1:22", 40_000));
    ladder.host(talk.flow, |host| host.room = 4);
    talk.say(&mut ladder, ACK, b"one two three");
    assert_eq!(ladder.taken(talk.flow), b"one ");
    ladder.stack.set_egress(None, policy(""), Established::Cut, ladder.now);
    ladder.hosts.get_mut(&talk.flow).unwrap().room = usize::MAX;
    let heard = ladder.pass(Duration::from_millis(1));
    assert!(is_reset(&heard));
    assert_eq!(ladder.taken(talk.flow), b"one ");
}

#[test]
fn connection_that_waits_for_its_host_is_refused() {
    let mut ladder = under("allow 192.0.2.1");
    ladder.guest(&syn_to("192.0.2.1:22", 40_000));
    let heard = set(&mut ladder, "", Established::Cut);
    assert_eq!(told(&heard), Fate::Refused(3, 13));
    assert_eq!(ladder.closes.len(), 1);
    assert!(refusals(&mut ladder).iter().any(|(_, by)| *by == Refusal::Egress(Cause::Revoked)));
}

#[test]
fn first_policy_of_a_network_holds_for_what_is_open() {
    let mut ladder = Ladder::new();
    let talk = Talk::open_with(&mut ladder, &syn_to("192.0.2.1:22", 40_000));
    let to = "192.0.2.1:9";
    assert_eq!(send(&mut ladder, to, 5000), Fate::Host(address(to)));
    assert!(is_reset(&set(&mut ladder, "allow 192.0.2.2", Established::Cut)));
    assert_eq!(ladder.closes, [(talk.flow, true)]);
    assert_eq!(send(&mut ladder, to, 5000), Fate::Refused(3, 13));
}

#[test]
fn flows_that_remotes_have_opened_are_judged_anew() {
    let guest = address("10.0.2.100:80");
    let mut ladder = under("");
    ladder.stack.on_neighbor(guest.ip(), MAC);
    for client in ["198.51.100.2:700", "198.51.100.3:700"] {
        let origin = through(client, 8080);
        ladder.stack.handle_tcp_accepted(origin, guest, ladder.now).unwrap();
        ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
    }
    ladder.turn();
    assert_eq!(ladder.stack.stats().flows, 4);
    set(&mut ladder, "allow in 198.51.100.2:8080", Established::Cut);
    assert_eq!(ladder.stack.stats().flows, 2);
    set(&mut ladder, "allow in 198.51.100.2:8081", Established::Cut);
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn many_flows_are_judged_in_parts() {
    let mut config = StackConfig { egress: Some(policy("allow any")), ..config() };
    config.limits.udp_mappings = 1000;
    let mut ladder = Ladder::with(config);
    let guest = address("10.0.2.100:53");
    ladder.stack.on_neighbor(guest.ip(), MAC);
    for port in 1..=600 {
        let origin = through(&format!("198.51.100.2:{port}"), 53);
        ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
        ladder.turn();
    }
    assert_eq!(ladder.stack.stats().flows, 600);
    let none = policy("allow in 203.0.113.1");
    ladder.stack.set_egress(None, none, Established::Cut, ladder.now);
    let mut left = Vec::new();
    while ladder.stack.stats().flows > 0 {
        ladder.pass(Duration::from_micros(1));
        left.push(ladder.stack.stats().flows);
    }
    assert_eq!(left, [344, 88, 0]);
}

#[test]
fn revision_counts_the_policies_of_a_guest() {
    let mut ladder = under("");
    for revision in 2..5 {
        let set = ladder.stack.set_egress(None, policy(""), Established::Keep, ladder.now);
        assert_eq!(set.0, revision);
    }
    let mut ladder = Ladder::new();
    let set = ladder.stack.set_egress(None, policy(""), Established::Keep, ladder.now);
    assert_eq!(set.0, 1);
}

/// The host's addresses are these from now on.
fn have(ladder: &mut Ladder, addresses: &[&str]) -> Vec<Heard> {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    ladder.stack.set_host_addresses(&addresses, ladder.now);
    ladder.pass(Duration::from_millis(1))
}

#[test]
fn connection_to_an_address_that_becomes_the_hosts_is_judged_anew() {
    for is_parked in [false, true] {
        let mut ladder = under("allow any\ndeny host");
        let direct = Talk::open_with(&mut ladder, &syn_to("203.0.113.9:22", 40_000));
        let translated = Talk::open_with(&mut ladder, &syn_to("[64:ff9b::cb00:7109]:22", 40_001));
        let mut other = Talk::open_with(&mut ladder, &syn_to("203.0.113.8:22", 40_002));
        if is_parked {
            ladder.pass(Duration::from_secs(10));
            assert_eq!(ladder.stack.stats().tcp_parked, 3);
        }
        assert!(!is_reset(&have(&mut ladder, &["192.0.2.77"])));
        assert!(is_reset(&have(&mut ladder, &["192.0.2.77", "203.0.113.9"])));
        let mut closed: Vec<_> = ladder.closes.iter().map(|&(flow, _)| flow).collect();
        closed.sort_by_key(|flow| flow.index);
        assert_eq!(closed, [direct.flow, translated.flow]);
        other.say(&mut ladder, ACK, b"goes on");
        assert_eq!(ladder.taken(other.flow), b"goes on");
    }
}

#[test]
fn connection_that_only_the_hosts_address_allowed_ends_with_it() {
    let mut ladder = under("allow host\nallow in host");
    have(&mut ladder, &["203.0.113.9"]);
    let talk = Talk::open_with(&mut ladder, &syn_to("203.0.113.9:22", 40_000));
    let guest = address("10.0.2.100:80");
    ladder.stack.on_neighbor(guest.ip(), MAC);
    let origin = through("203.0.113.9:700", 8080);
    ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
    ladder.turn();
    assert_eq!(ladder.stack.stats().flows, 2);
    have(&mut ladder, &[]);
    assert!(ladder.closes.contains(&(talk.flow, true)), "{:?}", ladder.closes);
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn kept_connection_goes_on_when_other_addresses_of_the_host_change() {
    let mut ladder = under("allow any");
    Talk::open_with(&mut ladder, &syn_to("203.0.113.9:22", 40_000));
    set(&mut ladder, "", Established::Keep);
    have(&mut ladder, &["203.0.113.8"]);
    assert_eq!(ladder.stack.stats().flows, 1);
    have(&mut ladder, &["203.0.113.8", "203.0.113.9"]);
    assert_eq!(ladder.stack.stats().flows, 0);
}
