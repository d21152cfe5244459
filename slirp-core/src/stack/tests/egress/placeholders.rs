//! Where flows to the addresses of asked names lead, as rules, decisions and names change.

use super::ask::*;
use super::*;
use crate::egress::{Decision, Scope, Subject};

/// The policy changes; nothing is told of it.
fn change(ladder: &mut Ladder, lines: &str) {
    ladder.stack.set_egress(None, policy(lines), Established::Cut, ladder.now);
    assert!(ladder.turn().is_empty());
}

#[test]
fn address_that_a_rule_asks_about_is_asked_about_although_a_rule_allows_the_name() {
    for (decision, fate) in [(ONCE, Fate::Silence), (DENIED, REFUSED)] {
        let mut ladder = attended("ask api.example");
        let stands = placeholder(&mut ladder, API);
        change(&mut ladder, "allow api.example\nask 203.0.113.7\ndeny 203.0.113.9");
        assert_eq!(connect(&mut ladder, &to(stands, 443), 40_000), Fate::Silence);
        let heard = answer_lookup(&mut ladder, API, &[[203, 0, 113, 9], REACHED]);
        assert!(heard.is_empty() && ladder.connects.is_empty(), "{:?}", ladder.connects);
        let asked = question(&ladder);
        assert_eq!((asked.subject, asked.flows), (Subject::Name(name(API)), 1));
        assert_eq!(asked.rule.map(|rule| rule.to_string()).as_deref(), Some("test:2"));
        assert_eq!(told(&decide(&mut ladder, decision)), fate);
        let to_reached = ladder.connects.pop().map(|(_, remote)| remote);
        let reached = SocketAddr::from((REACHED, 443));
        assert_eq!(to_reached, (fate == Fate::Silence).then_some(reached));
        if fate == REFUSED {
            let told = refusals(&mut ladder);
            let last = told.last().map(|(_, by)| *by);
            assert_eq!(last, Some(Refusal::Egress(Cause::Decision)));
        }
    }
    // An address about which nobody is asked is taken instead.
    let mut ladder = attended("ask api.example");
    let stands = placeholder(&mut ladder, API);
    change(&mut ladder, "allow api.example\nask 203.0.113.7");
    assert_eq!(connect(&mut ladder, &to(stands, 443), 40_000), Fate::Silence);
    answer_lookup(&mut ladder, API, &[REACHED, [203, 0, 113, 8]]);
    assert_eq!(ladder.connects.pop().unwrap().1, address("203.0.113.8:443"));
    assert!(questions(&ladder).is_empty());
}

#[test]
fn yes_about_a_name_is_one_about_its_addresses() {
    let mut ladder = attended("ask api.example\nask 203.0.113.7");
    let stands = placeholder(&mut ladder, API);
    assert_eq!(connect(&mut ladder, &to(stands, 443), 40_000), Fate::Silence);
    decide(&mut ladder, ONCE);
    // The decision has ended when the answer comes.
    ladder.now = ladder.now + 31 * SECOND;
    answer_lookup(&mut ladder, API, &[REACHED]);
    assert_eq!(ladder.connects.pop().unwrap().1, SocketAddr::from((REACHED, 443)));
}

#[test]
fn datagrams_wait_for_the_decision_about_the_address_too() {
    let mut ladder = attended("ask udp:api.example:5000");
    let stands = placeholder(&mut ladder, API);
    let written = to(stands, 5000);
    change(&mut ladder, "allow udp:api.example:5000\nask 203.0.113.7");
    assert_eq!(send(&mut ladder, &written, 5000), Fate::Silence, "it is looked up");
    answer_lookup(&mut ladder, API, &[REACHED]);
    assert_eq!(send(&mut ladder, &written, 5000), Fate::Silence, "somebody is asked");
    assert_eq!(question(&ladder).protocol, Protocol::Udp);
    decide(&mut ladder, SESSION);
    let frame = datagram(address("10.0.2.100:5000"), &written, b"text");
    let reached = SocketAddr::from((REACHED, 5000));
    let (flow, remote) = lend(&mut ladder, frame).unwrap();
    assert_eq!(remote, reached);
    // Once the address is denied, neither way is open.
    for (lines, passes) in [
        ("allow udp:api.example:5000\nallow 203.0.113.7", true),
        ("allow udp:api.example:5000\ndeny 203.0.113.7", false),
    ] {
        change(&mut ladder, lines);
        ladder.stack.handle_udp_from_host(flow, reached, b"text", None, 0, ladder.now);
        assert_eq!(ladder.turn().len(), usize::from(passes), "{lines}");
    }
}

/// A guest that talks by UDP port 5000 to the placeholder of one name, which stands for another one
/// afterwards. The mapping lives by the answers of the remote.
fn moved(decision: Decision) -> (Ladder, FlowId, String) {
    let mut ladder = attended("set placeholder 198.51.100.0/30\nask udp:.example:5000 wide=yes");
    let stands = placeholder(&mut ladder, API);
    let written = to(stands, 5000);
    send(&mut ladder, &written, 5000);
    decide(&mut ladder, decision);
    send(&mut ladder, &written, 5000);
    answer_lookup(&mut ladder, API, &[REACHED]);
    let frame = datagram(address("10.0.2.100:5000"), &written, b"text");
    let (flow, reached) = lend(&mut ladder, frame).unwrap();
    assert_eq!(reached, SocketAddr::from((REACHED, 5000)));
    for _ in 0..4 {
        ladder.pass(100 * SECOND);
        ladder.stack.handle_udp_from_host(flow, reached, b"text", None, 0, ladder.now);
        assert_eq!(ladder.turn().len(), 1);
    }
    assert_ne!(placeholder(&mut ladder, "b.example"), stands);
    assert_eq!(placeholder(&mut ladder, "c.example"), stands, "it went to another name");
    assert_eq!(send(&mut ladder, &written, 5001), Fate::Silence);
    assert_eq!(question(&ladder).subject, Subject::Name(name("c.example")));
    decide(&mut ladder, SESSION);
    (ladder, flow, written)
}

#[test]
fn mapping_does_not_outlive_the_name_of_its_placeholder() {
    let (mut ladder, flow, written) = moved(SESSION);
    assert_eq!(send(&mut ladder, &written, 5000), Fate::Silence, "the other name is looked up");
    answer_lookup(&mut ladder, "c.example", &[[203, 0, 113, 8]]);
    let frame = datagram(address("10.0.2.100:5000"), &written, b"text");
    assert_eq!(lend(&mut ladder, frame), Ok((flow, address("203.0.113.8:5000"))));
}

#[test]
fn answers_to_a_mapping_do_not_outlive_the_decision_about_their_name() {
    for (scope, passes) in [(Scope::Session, true), (Scope::For(401 * SECOND), false)] {
        let (mut ladder, flow, _) = moved(Decision { scope, ..SESSION });
        ladder.pass(SECOND);
        let reached = SocketAddr::from((REACHED, 5000));
        ladder.stack.handle_udp_from_host(flow, reached, b"text", None, 0, ladder.now);
        assert_eq!(ladder.turn().len(), usize::from(passes), "{scope:?}");
    }
}
