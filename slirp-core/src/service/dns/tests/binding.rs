//! What the answers to lookups open, and what they do not.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::guest::{A, Guest, NOW, POLICY, a, judge, question, record};
use super::*;
use crate::config::StackConfig;
use crate::egress::{Cause, FlowVerdict};
use crate::journal::Lookup;
use crate::member::MemberId;
use crate::policy::Protocol;
use crate::service::dns::DnsService;

#[test]
fn answer_to_a_reverse_lookup_binds_nothing() {
    let mut guest = Guest::new("allow 10.9.8.7:5432\nallow .in-addr.arpa");
    let (_, lookup) = guest.look_up("7.8.9.10.in-addr.arpa", &[a([203, 0, 113, 7])]);
    assert_eq!(lookup, Lookup::Asked);
    assert_eq!(guest.connect("203.0.113.7:443"), Err(Cause::NoName));
}

#[test]
fn addresses_are_bound_before_the_guest_has_them() {
    let mut guest = Guest::new(POLICY);
    assert_eq!(guest.connect("203.0.113.7:443"), Err(Cause::NoName));
    let records = [a([203, 0, 113, 7]), record(&wire("other.example"), 1, &[203, 0, 113, 8])];
    let (heard, lookup) = guest.look_up("wWw.Index.example", &records);
    let asked = question(&wire("wWw.Index.example"), A);
    assert_eq!(heard[12..], [&asked[12..], &records.concat()].concat(), "byte for byte");
    assert_eq!(lookup, Lookup::Bound);
    assert_eq!(guest.connect("203.0.113.7:443"), Ok(()));
    assert_eq!(guest.connect("203.0.113.7:22"), Err(Cause::Port));
    assert_eq!(guest.connect("203.0.113.8:443"), Err(Cause::NoName));
}

#[test]
fn alias_allows_nothing_and_a_denied_one_hides_the_answer() {
    let mut guest = Guest::new("allow index.example\ndeny .tracker.example");
    let chain = |target: &str| {
        vec![record(&[0xc0, 12], 5, &wire(target)), record(&wire(target), 1, &[203, 0, 113, 7])]
    };
    let (heard, lookup) = guest.look_up("index.example", &chain("x.tracker.example"));
    assert_eq!((heard[3], lookup), (0x83, Lookup::NoSuchName));
    assert_eq!(heard[6..12], [0; 6]);
    assert_eq!(guest.connect("203.0.113.7:443"), Err(Cause::NoName));
    let (heard, lookup) = guest.look_up("index.example", &chain("cdn.example"));
    assert_eq!((heard[7], lookup), (2, Lookup::Bound));
    assert_eq!(guest.connect("203.0.113.7:443"), Ok(()));
    assert_eq!(guest.code("cdn.example", A), Some(3));
}

#[test]
fn unfit_addresses_are_passed_on_and_not_bound() {
    let mut guest = Guest::new(POLICY);
    let unfit =
        [[127, 0, 0, 1], [10, 1, 2, 3], [169, 254, 169, 254], [192, 168, 1, 1], [0, 0, 0, 0]];
    let records = unfit.map(a);
    let (heard, lookup) = guest.look_up("index.example", &records);
    assert_eq!((heard[3] & 15, heard[7], lookup), (0, 5, Lookup::Unfit));
    let (_, lookup) =
        guest.look_up("index.example", &[&records[..], &[a([203, 0, 113, 9])]].concat());
    assert_eq!(lookup, Lookup::Bound);
    for address in unfit {
        assert!(guest.connect(&format!("{}:443", IpAddr::from(address))).is_err(), "{address:?}");
    }
    assert_eq!(guest.connect("203.0.113.9:443"), Ok(()));
    guest.look_up("db.corp.example", &[a([10, 1, 2, 3]), a([127, 0, 0, 1])]);
    assert_eq!(guest.connect("10.1.2.3:443"), Ok(()));
    assert!(guest.connect("127.0.0.1:443").is_err());
}

#[test]
fn bound_address_stays_for_five_minutes_and_while_a_flow_uses_it() {
    let after = |seconds| NOW + Duration::from_secs(seconds);
    let (idle, used) = ("203.0.113.7:443".parse().unwrap(), "203.0.113.8:443".parse().unwrap());
    for ttl in [[0; 4], [0x80, 0, 0, 0], [0xff; 4]] {
        let mut guest = Guest::new(POLICY);
        let records = [7, 8].map(|last| {
            let mut record = a([203, 0, 113, last]);
            record[6..10].copy_from_slice(&ttl);
            record
        });
        guest.look_up("index.example", &records);
        guest.judge.on_opened(used, NOW);
        assert_eq!(guest.connect_at(idle, after(299)), Ok(()));
        guest.judge.handle_timeout(after(301));
        assert_eq!(guest.connect_at(idle, after(301)), Err(Cause::NoName));
        assert_eq!(guest.connect_at(used, after(301)), Ok(()));
    }
}

#[test]
fn name_with_twenty_thousand_addresses_binds_a_bounded_number() {
    let mut guest = Guest::new(POLICY);
    let address = |n: u32| (0xcb00_0000 + n).to_be_bytes();
    for part in 0..5 {
        let records: Vec<_> = (0..4_000).map(|n| a(address(part * 4_000 + n))).collect();
        let (_, lookup) = guest.look_up("index.example", &records);
        assert_eq!(lookup, Lookup::Bound);
    }
    let to = |n| SocketAddr::new(IpAddr::from(address(n)), 443);
    let bound = (0..20_000).filter(|&n| guest.connect_at(to(n), NOW).is_ok()).count();
    assert_eq!(bound, 1_024);
}

#[test]
fn answer_that_is_not_understood_binds_nothing_and_is_passed_on() {
    let mut guest = Guest::new(POLICY);
    let odd = vec![a([203, 0, 113, 7]), record(&[0xc0, 12], 1, &[1, 2, 3])];
    let (heard, lookup) = guest.look_up("index.example", &odd);
    assert_eq!((heard[7], lookup), (2, Lookup::Asked));
    assert_eq!(guest.connect("203.0.113.7:443"), Err(Cause::NoName));
}

#[test]
fn answer_binds_for_the_guest_that_asked() {
    let mut service = DnsService::new(&StackConfig::default());
    let [asks, other] = [1, 2].map(|id| Some(MemberId(id)));
    let mut judges = [(asks, judge("allow index.example")), (other, judge("allow index.example"))];
    let query = question(&wire("index.example"), A);
    let by = Some(&mut judges[0].1);
    let id = service.handle_query(udp_origin(5), asks, by, &query, NOW).unwrap();
    let mut answer = [&query[..], &a([203, 0, 113, 7])].concat();
    (answer[2], answer[7]) = (0x81, 1);
    let [(_, judge), _] = &mut judges;
    service
        .handle_answer(
            id,
            Some(answer),
            |holder| {
                assert_eq!(holder, asks);
                Some(judge)
            },
            NOW,
        )
        .unwrap();
    let to = "203.0.113.7:443".parse().unwrap();
    let verdicts = judges.each_mut().map(|(_, judge)| {
        matches!(judge.on_flow(Protocol::Tcp, to, to, NOW).verdict, FlowVerdict::Pass { .. })
    });
    assert_eq!(verdicts, [true, false]);
}
