//! What an egress policy makes of queries.

use proptest::prelude::*;

use super::guest::{A, Fate, Guest, NOW, POLICY, a, question, record};
use super::*;
use crate::journal::{Event, Lookup};
use crate::member::{Member, MemberId};

const PTR: u16 = 12;
const TXT: u16 = 16;

#[test]
fn query_leaves_in_our_own_words() {
    let name = wire("wWw.iNDEX.example");
    let mut query = question(&name, A);
    let plain = query.clone();
    // RD, Z, AD and CD; an answer, an authority and three additional records are announced.
    (query[2], query[3]) = (0x07, 0x7f);
    (query[7], query[9], query[11]) = (1, 1, 3);
    query.extend_from_slice(&record(&[0], 16, b"\x05hello"));
    query.extend_from_slice(&record(&[0xc0, 12], 2, &[0]));
    query.extend_from_slice(&record(&wire("secret.example"), 16, b"\x06secret"));
    // EDNS version 0, size 1400, DO and other flags, with a cookie.
    query.extend_from_slice(b"\0\0\x29\x05\x78\0\0\xff\xff\0\x0c\0\x0a\0\x08secret!!");
    query.extend_from_slice(b"\0\0\xfa\0\xff\0\0\0\0\0\0");
    query.extend_from_slice(b"bytes behind the message");
    let mut expected = plain.clone();
    (expected[3], expected[11]) = (0x10, 1);
    expected.extend_from_slice(b"\0\0\x29\x05\x78\0\0\x80\0\0\0");
    let mut guest = Guest::new(POLICY);
    assert_eq!(guest.ask(&query), Fate::Asked(expected));
    assert_eq!(guest.ask(&plain), Fate::Asked(plain));
}

#[test]
fn name_that_no_rule_opens_does_not_exist_and_stays_here() {
    let mut guest = Guest::new(POLICY);
    let long = format!("{0}.{0}.{0}.attacker.example", "x".repeat(63));
    for name in ["x.attacker.example", &long, "example.com", "xindex.example", "localhost", "com"] {
        for kind in [A, 2, 5, 6, 10, 15, TXT, 28, 33, 64, 65, 257, 65_535] {
            assert_eq!(guest.code(name, kind), Some(3), "{name} {kind}");
        }
    }
    // A rule about other destinations opens no name.
    assert_eq!(guest.code("10.9.8.7", A), Some(3));
}

#[test]
fn blocked_name_says_why_where_the_guest_speaks_edns() {
    let mut guest = Guest::new(POLICY);
    for (name, text) in
        [("Evil.example", "egress policy"), ("admin.corp.example", "ask the admins")]
    {
        let mut query = question(&wire(name), A);
        let mut expected = query.clone();
        (expected[2], expected[3]) = (0x81, 0x83);
        assert_eq!(guest.ask(&query), Fate::Answered(expected.clone(), Lookup::NoSuchName));
        query[11] = 1;
        query.extend_from_slice(b"\0\0\x29\x10\0\0\0\x80\0\0\0");
        expected[11] = 1;
        expected.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0");
        let len = u8::try_from(text.len()).unwrap();
        expected.extend_from_slice(&[0, len + 6, 0, 15, 0, len + 2, 0, 15]);
        expected.extend_from_slice(text.as_bytes());
        assert_eq!(guest.ask(&query), Fate::Answered(expected, Lookup::NoSuchName));
    }
}

#[test]
fn names_of_rules_are_asked_for_and_those_above_have_no_records() {
    let mut guest = Guest::new(POLICY);
    for (name, code) in [
        ("index.example", None),
        ("INDEX.Example", None),
        ("a.b.index.example", None),
        ("_443._tcp.index.example", None),
        ("db.corp.example", None),
        ("admin.corp.example", Some(3)),
        ("corp.example", Some(0)),
        ("example", Some(0)),
        ("", Some(0)),
    ] {
        for kind in [A, 28, TXT] {
            assert_eq!(guest.code(name, kind), code, "{name} {kind}");
        }
    }
}

#[test]
fn name_that_is_asked_about_has_an_address_that_stands_for_it() {
    let mut guest = Guest::new(POLICY);
    for spelling in ["api.example", "API.Example", "api.example"] {
        let query = question(&wire(spelling), A);
        let Fate::Answered(answer, lookup) = guest.ask(&query) else { panic!("asked") };
        assert_eq!((answer[3] & 15, lookup), (0, Lookup::Placeholder));
        let (echoed, record) = answer[12..].split_at(query.len() - 12);
        assert_eq!(echoed, &query[12..], "in the guest's spelling");
        assert_eq!(record[..12], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        assert_eq!(record[12..], [198, 19, 192, 1]);
    }
    for (kind, code) in [(28, 0), (64, 0), (65, 0), (TXT, 3), (15, 3), (255, 4)] {
        assert_eq!(guest.code("api.example", kind), Some(code), "{kind}");
    }
    // Above it nothing is known.
    let mut guest = Guest::new("ask any\ndeny evil.example\nset placeholder 100.127.0.0/30");
    assert_eq!(guest.code("evil.example", A), Some(3));
    for number in 0..20 {
        let name = format!("n{number}.example");
        let Fate::Answered(answer, lookup) = guest.ask(&question(&wire(&name), A)) else {
            panic!("asked")
        };
        let last = answer.last().copied();
        assert_eq!((lookup, last), (Lookup::Placeholder, Some(1 + number % 2)));
    }
    // A name that no rule can be about gets none.
    let odd = [b"\x03a b\x07example\0".as_slice(), &[0, 1, 0, 1]].concat();
    let Fate::Answered(answer, _) = guest.ask(&[&question(&[], A)[..12], &odd].concat()) else {
        panic!("asked")
    };
    assert_eq!(answer[3] & 15, 3);
}

#[test]
fn keys_that_hide_names_are_withheld_while_a_rule_names_hosts() {
    for (policy, code) in [
        (POLICY, Some(0)),
        ("allow any\ndeny evil.example", Some(0)),
        ("set mode audit", Some(0)),
        ("allow internet:443", None),
        ("allow internet:443\nallow dns:index.example", None),
    ] {
        let mut guest = Guest::new(policy);
        for kind in [64, 65] {
            assert_eq!(guest.code("index.example", kind), code, "{policy} {kind}");
        }
        assert_eq!(guest.code("index.example", A), None, "{policy}");
    }
}

#[test]
fn name_is_asked_for_where_a_rule_needs_all_names() {
    for policy in ["allow any", "allow internet", "allow any:443", "allow dns:any"] {
        let mut guest = Guest::new(policy);
        assert_eq!(guest.code("index.example", A), None, "{policy}");
    }
    let mut guest = Guest::new("allow any\ndeny .evil.example");
    assert_eq!(guest.code("evil.example", A), Some(3));
    assert_eq!(guest.code("www.evil.example", A), Some(3));
    let mut guest = Guest::new("ask any\nallow index.example");
    assert_eq!(guest.code("index.example", A), None);
    assert_eq!(guest.code("other.example", TXT), Some(3));
    let mut guest = Guest::new("");
    assert_eq!(guest.code("index.example", A), Some(3));
}

#[test]
fn other_kinds_of_queries_are_refused_and_stay_here() {
    let mut guest = Guest::new("allow any");
    let good = question(&wire("index.example"), A);
    for opcode in 1..16 {
        let mut query = good.clone();
        query[2] |= opcode << 3;
        let Fate::Answered(answer, lookup) = guest.ask(&query) else { panic!("{opcode}") };
        assert_eq!((answer[2], answer[3], lookup), (0x81 | opcode << 3, 0x85, Lookup::Refused));
        // Neither does one that cannot be read.
        query.truncate(15);
        let Fate::Answered(answer, _) = guest.ask(&query) else { panic!("{opcode}") };
        assert_eq!(answer[3] & 15, 5);
    }
    for class in [0, 2, 3, 4, 254, 255] {
        let mut query = good.clone();
        *query.last_mut().unwrap() = class;
        let Fate::Answered(answer, lookup) = guest.ask(&query) else { panic!("{class}") };
        assert_eq!((answer[3] & 15, lookup), (5, Lookup::Refused));
    }
    for kind in [41, 128, 249, 250, 251, 252, 253, 254] {
        assert_eq!(guest.code("index.example", kind), Some(5), "{kind}");
    }
    assert_eq!(guest.code("index.example", 255), Some(4));
    // A cookie alone asks nothing.
    let mut nothing = good[..12].to_vec();
    nothing[5] = 0;
    let Fate::Answered(answer, _) = guest.ask(&nothing) else { panic!("asked") };
    assert_eq!(answer[3] & 15, 5);
}

#[test]
fn malformed_query_is_answered_as_without_a_policy() {
    let good = question(&wire("index.example"), A);
    let mut two = [&good[..], &wire("secret.example"), &[0, 1, 0, 1]].concat();
    two[5] = 2;
    let mut compressed = question(&[0xc0, 14], A);
    let mut mixed = question(&[1, b'a', 0xc0, 12], A);
    compressed.push(0);
    mixed.push(0);
    for query in [two, compressed, mixed, good[..20].to_vec()] {
        let mut guest = Guest::new(POLICY);
        let judge = Some(&mut guest.judge);
        guest.service.handle_query(tcp_origin(), None, judge, &query, NOW).unwrap();
        assert_eq!(guest.service.poll_action(), None);
        let (_, answer) = guest.service.poll_answer().unwrap();
        assert_eq!(answer[3] & 15, 1);
    }
}

#[test]
fn names_that_are_no_host_names_are_asked_for_where_everything_is() {
    let odd: [&[u8]; 6] = [
        b"\x09www.index\x07example\0",
        b"\x01*\x05index\x07example\0",
        b"\x03a b\x05index\x07example\0",
        b"\x01\0\x05index\x07example\0",
        b"\x02\xc3\xa4\x05index\x07example\0",
        b"\x03a\nb\x05index\x07example\0",
    ];
    let mut guest = Guest::new(POLICY);
    for name in odd {
        let Fate::Answered(answer, _) = guest.ask(&question(name, A)) else { panic!("{name:?}") };
        assert_eq!(answer[3] & 15, 3, "{name:?}");
    }
    for policy in ["allow any", "set mode audit", "allow any\ndeny evil.example"] {
        let mut guest = Guest::new(policy);
        for name in odd {
            let query = question(name, A);
            assert_eq!(guest.ask(&query), Fate::Asked(query), "{policy} {name:?}");
        }
        assert_eq!(guest.code("", 2), None, "{policy}: the root");
    }
    let mut guest = Guest::new("allow any\ndeny *.index.example");
    let below = question(odd[1], A);
    assert!(matches!(guest.ask(&below), Fate::Answered(..)), "below a denied name");
    assert!(matches!(guest.ask(&question(odd[0], A)), Fate::Asked(_)), "elsewhere");
}

#[test]
fn name_of_an_address_is_asked_for_if_the_guest_can_reach_it() {
    let mut guest = Guest::new("allow 10.9.8.0/24:5432\nallow index.example\nallow [2001:db8::1]");
    let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.D.0.1.0.0.2.ip6.arpa";
    for (name, code) in [
        ("7.8.9.10.in-addr.arpa", None),
        ("7.8.9.10.IN-ADDR.Arpa", None),
        (six, None),
        (&six.replacen('1', "2", 1), Some(3)),
        ("7.9.9.10.in-addr.arpa", Some(3)),
        ("7.113.0.203.in-addr.arpa", Some(3)),
        ("007.8.9.10.in-addr.arpa", Some(3)),
        ("1.7.8.9.10.in-addr.arpa", Some(3)),
        ("300.8.9.10.in-addr.arpa", Some(3)),
        ("x.10.in-addr.arpa", Some(3)),
        ("9.10.in-addr.arpa", Some(0)),
        ("in-addr.arpa", Some(0)),
        ("8.b.d.0.1.0.0.2.ip6.arpa", Some(0)),
        ("arpa", Some(0)),
        ("e164.arpa", Some(3)),
    ] {
        assert_eq!(guest.code(name, PTR), code, "{name}");
    }
    guest.look_up("index.example", &[a([203, 0, 113, 7])]);
    assert_eq!(guest.code("7.113.0.203.in-addr.arpa", PTR), None, "it is bound now");
    assert_eq!(guest.code("8.113.0.203.in-addr.arpa", PTR), Some(3));
}

#[test]
fn names_of_members_come_before_any_policy() {
    let mut guest = Guest::new("");
    let member = Member {
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        address: [10, 0, 2, 101].into(),
        address6: None,
        names: vec!["db".parse().unwrap()],
        aliases: Vec::new(),
    };
    guest.service.names.add(MemberId(1), &member);
    let query = question(&wire("db"), A);
    let judge = Some(&mut guest.judge);
    guest.service.handle_query(udp_origin(5), None, judge, &query, NOW).unwrap();
    let (_, answer) = guest.service.poll_answer().unwrap();
    assert_eq!((answer[3] & 15, answer[7]), (0, 1));
    assert_eq!(answer[answer.len() - 4..], [10, 0, 2, 101]);
    let told = core::iter::from_fn(|| guest.service.poll_event()).last();
    assert!(matches!(told, Some(Event::Answered { lookup: None, .. })), "{told:?}");
}

#[test]
fn audit_asks_for_everything() {
    let mut guest = Guest::new("set mode audit\nallow index.example\ndeny evil.example");
    for name in ["index.example", "evil.example", "other.example", "7.113.0.203.in-addr.arpa"] {
        assert_eq!(guest.code(name, A), None, "{name}");
    }
    let (heard, lookup) = guest.look_up("other.example", &[a([203, 0, 113, 7])]);
    assert_eq!((heard[7], lookup), (1, Lookup::Bound));
}

#[test]
fn resolvers_that_are_silent_fail_the_lookup_and_policy_never_does() {
    let mut guest = Guest::new(POLICY);
    let query = question(&wire("index.example"), A);
    let by = Some(&mut guest.judge);
    let id = guest.service.handle_query(tcp_origin(), None, by, &query, NOW).unwrap();
    let judge = Some(&mut guest.judge);
    let (_, answer) = guest.service.handle_answer(id, None, |_| judge, NOW).unwrap();
    assert_eq!(answer[3] & 15, 2);
}

proptest! {
    #[test]
    fn nothing_but_the_question_leaves(
        name in prop::collection::vec("[a-zA-Z0-9_-]{1,10}", 0..3),
        kind in any::<u16>(),
        flags in any::<[u8; 2]>(),
        counts in any::<[u8; 3]>(),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut guest = Guest::new(POLICY);
        let name = wire(&[&name[..], &["index".into(), "example".into()]].concat().join("."));
        let mut query = question(&name, kind);
        let len = query.len();
        (query[2], query[3]) = (flags[0] & 0x7f, flags[1]);
        for (at, count) in [7, 9, 11].into_iter().zip(counts) {
            query[at] = count % 4;
        }
        query.extend_from_slice(&tail);
        match guest.ask(&query) {
            Fate::Answered(answer, _) => prop_assert!(answer[3] & 15 != 2),
            Fate::Asked(message) => {
                prop_assert_eq!(query[2] & 0x78, 0);
                prop_assert_eq!(&message[..2], &query[..2]);
                prop_assert_eq!(&message[2..4], &[query[2] & 1, query[3] & 0x10]);
                prop_assert_eq!(&message[4..11], &[0, 1, 0, 0, 0, 0, 0]);
                prop_assert_eq!(&message[12..len], &query[12..len]);
                let opt = &message[len..];
                let is_opt = opt.len() == 11
                    && opt[..3] == [0, 0, 41]
                    && opt[5..7] == [0, 0]
                    && matches!(opt[7], 0 | 0x80)
                    && opt[8..] == [0, 0, 0];
                prop_assert!((message[11] == 0 && opt.is_empty()) || (message[11] == 1 && is_opt));
            }
        }
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        mut query in prop::collection::vec(any::<u8>(), 12..100),
        reply in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        query[2] &= 0x07;
        query[4..6].copy_from_slice(&[0, 1]);
        let mut guest = Guest::new("allow any");
        let by = Some(&mut guest.judge);
        if let Ok(id) = guest.service.handle_query(tcp_origin(), None, by, &query, NOW) {
            let judge = Some(&mut guest.judge);
            let told = guest.service.handle_answer(id, Some(reply), |_| judge, NOW);
            prop_assert!(told.or_else(|| guest.service.poll_answer()).is_some());
        }
    }
}
