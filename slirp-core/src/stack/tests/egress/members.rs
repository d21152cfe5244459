//! Members of a shared network, each under a policy of its own.

use super::*;
use crate::egress::{Action, Decision, Scope};
use crate::member::Member;
use crate::switch::Released;

fn member(last: u8) -> Member {
    Member {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        address: [10, 0, 2, last].into(),
        address6: None,
        names: Vec::new(),
        aliases: Vec::new(),
    }
}

fn id(last: u8) -> MemberId {
    MemberId(last.into())
}

/// The members 100, 101 and 102; the first two have these policies.
fn network(of_all: Option<&str>, own: [&str; 2]) -> Ladder {
    let mut config = StackConfig { egress: of_all.map(policy), ..config() };
    config.is_shared = true;
    let mut ladder = Ladder::with(config);
    for last in 100..103 {
        ladder.stack.handle_member_added(id(last), &member(last), ladder.now);
    }
    for (last, lines) in (100..).zip(own) {
        let cut = Established::Cut;
        ladder.stack.set_egress(Some(id(last)), policy(lines), cut, ladder.now);
    }
    ladder
}

/// The member sends to `to`.
fn send_as(ladder: &mut Ladder, last: u8, to: &str) -> Fate {
    ladder.member = Some(id(last));
    let from = SocketAddr::from(([10, 0, 2, last], 5000));
    lend(ladder, datagram(from, to, b"text")).map_or_else(|fate| fate, |(_, to)| Fate::Host(to))
}

#[test]
fn each_member_is_judged_by_its_own_policy_or_by_that_of_all() {
    let (one, two) = ("192.0.2.1:9", "192.0.2.2:9");
    let [to_one, to_two] = [one, two].map(|to| Fate::Host(address(to)));
    let refused = Fate::Refused(3, 13);
    let own = ["allow 192.0.2.1", "allow 192.0.2.2"];
    let mut ladder = network(None, own);
    for (last, fates) in
        [(100, [&to_one, &refused]), (101, [&refused, &to_two]), (102, [&to_one, &to_two])]
    {
        let fates = fates.map(Clone::clone);
        assert_eq!([one, two].map(|to| send_as(&mut ladder, last, to)), fates, "{last}");
    }
    let mut ladder = network(Some("deny any"), own);
    assert_eq!(send_as(&mut ladder, 100, one), to_one);
    assert_eq!(send_as(&mut ladder, 102, one), refused);
    // The policy of all comes into force for those without one of their own.
    ladder.stack.set_egress(None, policy("allow any"), Established::Cut, ladder.now);
    assert_eq!(send_as(&mut ladder, 102, one), to_one);
    assert_eq!(send_as(&mut ladder, 100, two), refused);
}

#[test]
fn policy_of_all_says_whom_it_is_not_about() {
    let mut ladder = network(Some("deny any"), ["allow 192.0.2.1", "allow 192.0.2.2"]);
    let mut exceptions = |member| ladder.stack.egress(member).unwrap().exceptions;
    assert_eq!(exceptions(None), [id(100), id(101)]);
    assert_eq!(exceptions(Some(id(100))), []);
    assert_eq!(exceptions(Some(id(102))), []);
    assert!(network(None, ["", ""]).stack.egress(None).is_none());
}

#[test]
fn member_has_nothing_of_what_another_has_looked_up() {
    let lines = "allow udp:index.example:9";
    let mut ladder = network(None, [lines, lines]);
    ladder.member = Some(id(100));
    names::look_up(&mut ladder, "index.example", [203, 0, 113, 7], 60);
    let to = "203.0.113.7:9";
    assert_eq!(send_as(&mut ladder, 100, to), Fate::Host(address(to)));
    assert_eq!(send_as(&mut ladder, 101, to), Fate::Refused(3, 13));
}

#[test]
fn names_of_all_members_are_listed_where_no_member_is_asked_for() {
    let lines = "allow .index.example";
    let mut ladder = network(None, [lines, lines]);
    for (last, names) in [(100, 0..3), (101, 3..5), (102, 5..6)] {
        for number in names {
            ladder.member = Some(id(last));
            let from = SocketAddr::from(([10, 0, 2, last], 4999));
            let name = format!("n{number}.index.example");
            names::look_up_from(&mut ladder, from, &name, [203, 0, 113, 7], 60);
        }
    }
    let list = |member: Option<MemberId>| {
        let (mut names, mut next) = (Vec::new(), Some(0));
        while let Some(first) = next {
            let (page, after) = ladder.stack.learned_names(member, first, 2, ladder.now);
            names.extend(page.iter().map(|row| (row.member, row.name.to_string())));
            assert!(after.is_none_or(|after| after > first));
            next = after;
        }
        names.sort();
        names
    };
    let expected = [(100, 0), (100, 1), (100, 2), (101, 3), (101, 4)]
        .map(|(last, number)| (Some(id(last)), format!("n{number}.index.example")));
    assert_eq!(list(None), expected, "the last one is under no policy");
    assert_eq!(list(Some(id(101))), expected[3..]);
}

#[test]
fn successor_at_an_address_is_judged_by_its_own_policy() {
    let to = "192.0.2.1:9";
    let mut ladder = network(None, ["allow 192.0.2.1", ""]);
    assert_eq!(send_as(&mut ladder, 100, to), Fate::Host(address(to)));
    let released =
        Released { macs: vec![member(100).mac], addresses: vec![[10, 0, 2, 100].into()] };
    ladder.stack.handle_member_removed(id(100), &member(100), &released, ladder.now);
    ladder.turn();
    ladder.stack.handle_member_added(id(200), &member(100), ladder.now);
    ladder.stack.set_egress(Some(id(200)), policy(""), Established::Keep, ladder.now);
    ladder.member = Some(id(200));
    let from = address("10.0.2.100:5000");
    let sent = lend(&mut ladder, datagram(from, to, b"text"));
    assert_eq!(sent, Err(Fate::Refused(3, 13)));
}

#[test]
fn nothing_is_left_of_a_member_that_leaves_while_it_looks_a_name_up() {
    for lines in ["allow index.example", "ask index.example"] {
        let mut ladder = network(None, [lines, ""]);
        ladder.stack.set_approvers(1, ladder.now);
        ladder.member = Some(id(100));
        let frame = datagram(address("10.0.2.100:4999"), "10.0.2.3:53", &query("index.example"));
        let heard = ladder.frame(&frame);
        if let [heard] = &heard[..] {
            // A placeholder, whose name is looked up for a connection.
            let stands = IpAddr::from(*heard.packet.last_chunk::<4>().unwrap());
            ladder.guest(&syn_to(&SocketAddr::new(stands, 443).to_string(), 40_000));
            let asked = ladder.stack.questions(ladder.now);
            let once = Decision {
                action: Action::Allow,
                scope: Scope::Once,
                all_ports: false,
                parent: false,
            };
            ladder.stack.decide(asked[0].id, &once, None, ladder.now).unwrap();
            ladder.turn();
        }
        let asked = ladder.queries.clone();
        assert!(!asked.is_empty(), "{lines}");
        let released =
            Released { macs: vec![member(100).mac], addresses: vec![[10, 0, 2, 100].into()] };
        ladder.stack.handle_member_removed(id(100), &member(100), &released, ladder.now);
        assert!(ladder.turn().is_empty());
        assert!(ladder.queries.is_empty(), "the host side stops to ask");
        for (query, mut answer) in asked {
            answer[2] |= 0x80;
            ladder.stack.handle_dns_answer(query, Some(answer), ladder.now);
        }
        assert!(ladder.turn().is_empty(), "nobody is answered");
        let egress = ladder.stack.egress.as_ref().unwrap();
        assert!(egress.stats_of(Some(id(100))).is_none(), "{lines}");
    }
}

#[test]
fn members_say_to_each_other_what_they_want() {
    let mut ladder = network(None, ["", ""]);
    // What does not go by the switch is refused as without a policy.
    assert_eq!(send_as(&mut ladder, 100, "10.0.2.101:9"), Fate::Refused(3, 0));
}
