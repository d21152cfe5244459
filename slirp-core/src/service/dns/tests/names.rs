//! Names of members are answered here, everything else is passed on.

use super::*;
use crate::config::StackConfig;
use crate::member::{Member, MemberId};
use crate::service::dns::{DnsService, message};
use crate::time::Instant;

fn member(last: u8, names: &[&str], aliases: &[&str]) -> Member {
    let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    Member {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        address: [10, 0, 2, last].into(),
        address6: (last.is_multiple_of(2)).then(|| format!("fd00::{last:x}").parse().unwrap()),
        names: parse(names),
        aliases: parse(aliases),
    }
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

fn service() -> DnsService {
    let mut service = DnsService::new(&StackConfig::default());
    service.names.add(MemberId(1), &member(100, &["web"], &["site"]));
    service.names.add(MemberId(2), &member(101, &["db"], &["site", "web"]));
    service
}

/// The data of the records of the answer that is made here; `None` for a query that is passed on.
fn ask(service: &mut DnsService, query: &[u8]) -> Option<Vec<Vec<u8>>> {
    let origin = QueryOrigin::Udp {
        guest: "10.0.2.100:5".parse().unwrap(),
        server: "10.0.2.3:53".parse().unwrap(),
        guest_mac: MacAddr([2, 0, 0, 0, 0, 100]),
    };
    service.handle_query(origin, None, None, query, Instant::ZERO).unwrap();
    if service.poll_action().is_some() {
        assert!(service.poll_answer().is_none());
        return None;
    }
    let (_, answer) = service.poll_answer().unwrap();
    assert_eq!(answer[..2], query[..2], "the guest's own id");
    assert_eq!(answer[3] & 15, 0, "no error");
    assert_eq!(answer[HEADER..query.len()], query[HEADER..], "the question as it was asked");
    let count = usize::from(answer[7]);
    let mut rest = &answer[query.len()..];
    let mut records = Vec::new();
    for _ in 0..count {
        assert_eq!(rest[..2], [0xc0, 12]);
        assert_eq!(rest[6..10], [0; 4], "not to be cached");
        let len = usize::from(rest[11]);
        records.push(rest[12..12 + len].to_vec());
        rest = &rest[12 + len..];
    }
    assert!(rest.is_empty());
    Some(records)
}

const HEADER: usize = message::HEADER_LEN;

#[test]
fn address_is_told_in_any_case_and_the_missing_family_is_empty() {
    let mut service = service();
    assert_eq!(ask(&mut service, &question("wEb", 1)), Some(vec![vec![10, 0, 2, 100]]));
    let v6 = "fd00::64".parse::<core::net::Ipv6Addr>().unwrap().octets().to_vec();
    assert_eq!(ask(&mut service, &question("web", 28)), Some(vec![v6]));
    assert_eq!(ask(&mut service, &question("db", 28)), Some(vec![]));
    assert_eq!(ask(&mut service, &question("db", 15)), Some(vec![]), "a type that nobody has");
}

#[test]
fn own_name_hides_aliases_and_shared_alias_names_all() {
    let mut service = service();
    assert_eq!(ask(&mut service, &question("web", 1)).unwrap().len(), 1);
    let both = vec![vec![10, 0, 2, 100], vec![10, 0, 2, 101]];
    assert_eq!(ask(&mut service, &question("site", 1)), Some(both));
}

#[test]
fn other_names_are_passed_on() {
    let mut service = service();
    for name in ["example.org", "web.example.org", "webx", "101.2.0.10.example"] {
        assert_eq!(ask(&mut service, &question(name, 1)), None, "{name}");
    }
    assert_eq!(ask(&mut service, &question("9.2.0.10.in-addr.arpa", 12)), None);
    let mut of_chaos = question("web", 1);
    *of_chaos.last_mut().unwrap() = 3;
    assert_eq!(ask(&mut service, &of_chaos), None);
}

#[test]
fn addresses_of_members_have_names() {
    let mut service = service();
    let name =
        |text: &[u8]| Some(vec![[&[u8::try_from(text.len()).unwrap()], text, &[0]].concat()]);
    assert_eq!(ask(&mut service, &question("101.2.0.10.in-addr.arpa", 12)), name(b"db"));
    let nibbles = format!("4.6.{}0.0.d.f.ip6.arpa", "0.".repeat(26));
    assert_eq!(ask(&mut service, &question(&nibbles, 12)), name(b"web"));
}

#[test]
fn name_goes_with_its_member() {
    let mut service = service();
    service.names.remove(MemberId(1));
    assert_eq!(ask(&mut service, &question("web", 1)), Some(vec![vec![10, 0, 2, 101]]));
    service.names.remove(MemberId(2));
    assert_eq!(ask(&mut service, &question("web", 1)), None);
}

#[test]
fn answer_of_many_members_fits_what_the_guest_takes() {
    let mut service = DnsService::new(&StackConfig::default());
    for index in 0..100 {
        service.names.add(MemberId(u64::from(index)), &member(100 + index, &[], &["all"]));
    }
    let records = ask(&mut service, &question("all", 1)).unwrap();
    assert_eq!(records.len(), 16);
}

proptest::proptest! {
    #[test]
    fn any_question_is_answered_or_passed_on(bytes: Vec<u8>) {
        let mut service = service();
        let mut query = question("web", 1);
        query.truncate(HEADER);
        query.extend_from_slice(&bytes);
        let origin = QueryOrigin::Tcp { flow: FlowId { index: 0, generation: 0 } };
        let _ = service.handle_query(origin, None, None, &query, Instant::ZERO);
    }
}
