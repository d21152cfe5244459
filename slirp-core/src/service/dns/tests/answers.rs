//! Which addresses an answer binds to the name that was asked for.

use core::net::IpAddr;

use super::*;
use crate::egress::Name;
use crate::service::dns::answers::{Chain, read_chain};
use crate::service::dns::message::{TYPE_A, TYPE_AAAA, TYPE_CNAME};

/// An answer to an A query for `name`, with these records. Names are written out.
fn answer(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    message[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    message.extend_from_slice(&asked(name, TYPE_A));
    message.extend_from_slice(&records.concat());
    message
}

fn asked(name: &str, kind: u16) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [wire(name).as_slice(), &kind, &[0, 1]].concat()
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap();
    let mut record = owner.to_vec();
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&[0, 1]);
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&len.to_be_bytes());
    record.extend_from_slice(data);
    record
}

fn a(owner: &str, ttl: u32, last: u8) -> Vec<u8> {
    record(&wire(owner), TYPE_A, ttl, &[203, 0, 113, last])
}

fn cname(owner: &str, ttl: u32, target: &str) -> Vec<u8> {
    record(&wire(owner), TYPE_CNAME, ttl, &wire(target))
}

fn chain(aliases: &[&str], addresses: &[(&str, u32)]) -> Option<Chain> {
    let address = |&(text, ttl): &(&str, u32)| (text.parse::<IpAddr>().unwrap(), ttl);
    Some(Chain {
        aliases: aliases.iter().map(|name| Name::new(name).unwrap()).collect(),
        addresses: addresses.iter().map(address).collect(),
    })
}

fn read(answer: &[u8]) -> Option<Chain> {
    read_chain(answer, &asked("www.index.example", TYPE_A))
}

#[test]
fn addresses_of_the_last_name_are_taken_from_what_dnsmasq_answers() {
    let plain = "123485800001000100000000\
        0377777705696e646578076578616d706c650000050001\
        c00c000500010000003c00130363646e05696e646578076578616d706c6500";
    let kind = TYPE_CNAME;
    let read = read_chain(&hex(plain), &asked("www.index.example", kind));
    assert_eq!(read, chain(&["cdn.index.example"], &[]));
    let spelled = "123485800001000400000000\
        0377577705696e646578076578616d706c650000010001\
        c00c000500010000003c00130363646e05696e646578076578616d706c6500\
        c02f0005000100000005001204656467650363646e076578616d706c6500\
        c04e000100010000012c0004cb007107c04e00010001000000000004cb007108";
    let read = read_chain(&hex(spelled), &asked("wWw.index.example", TYPE_A));
    let aliases = ["cdn.index.example", "edge.cdn.example"];
    assert_eq!(read, chain(&aliases, &[("203.0.113.7", 5), ("203.0.113.8", 0)]));
    let six = "123485800001000300000001\
        0377777705696e646578076578616d706c6500001c0001\
        c00c000500010000003c00130363646e05696e646578076578616d706c6500\
        c02f0005000100000005001204656467650363646e076578616d706c6500\
        c04e001c00010000012c001020010db800000000000000000000000700002904d0000080000000";
    let read = read_chain(&hex(six), &asked("www.index.example", TYPE_AAAA));
    assert_eq!(read, chain(&aliases, &[("2001:db8::7", 5)]));
    // The addresses in the additional section belong to another name.
    let service = "123485800001000100000002\
        025f78045f74637005696e646578076578616d706c650000210001\
        c00c002100010000000000180000000001bb04656467650363646e076578616d706c6500\
        c03900010001000000000004cb007108c039000100010000012c0004cb007107";
    let read = read_chain(&hex(service), &asked("_x._tcp.index.example", 33));
    assert_eq!(read, chain(&[], &[]));
}

#[test]
fn records_of_other_owners_bind_nothing() {
    let answer = answer(
        "www.index.example",
        &[
            a("bank.example", 60, 1),
            a("index.example", 60, 2),
            a("www.index.example", 60, 3),
            cname("bank.example", 60, "www.index.example"),
            a("a.www.index.example", 60, 4),
        ],
    );
    assert_eq!(read(&answer), chain(&[], &[("203.0.113.3", 60)]));
}

#[test]
fn chain_stands_in_any_order_and_its_middle_owns_nothing() {
    let answer = answer(
        "www.index.example",
        &[
            a("edge.example", 900, 1),
            cname("cdn.example", 800, "edge.example"),
            a("cdn.example", 60, 2),
            a("www.index.example", 60, 3),
            cname("WWW.Index.example", 700, "cdn.EXAMPLE"),
        ],
    );
    assert_eq!(read(&answer), chain(&["cdn.example", "edge.example"], &[("203.0.113.1", 700)]));
}

#[test]
fn of_two_aliases_of_a_name_the_first_is_followed() {
    let answer = answer(
        "www.index.example",
        &[
            cname("www.index.example", 60, "a.example"),
            cname("www.index.example", 60, "b.example"),
            a("b.example", 60, 2),
            a("a.example", 60, 1),
        ],
    );
    assert_eq!(read(&answer), chain(&["a.example"], &[("203.0.113.1", 60)]));
}

#[test]
fn loop_and_more_than_sixteen_aliases_bind_nothing() {
    let once = answer(
        "www.index.example",
        &[cname("www.index.example", 60, "www.index.example"), a("www.index.example", 60, 1)],
    );
    assert_eq!(read(&once), None);
    let twice = answer(
        "www.index.example",
        &[
            cname("www.index.example", 60, "b.example"),
            cname("b.example", 60, "www.index.example"),
            a("b.example", 60, 1),
        ],
    );
    assert_eq!(read(&twice), None);
    for len in [16, 17] {
        let name =
            |n| if n == 0 { "www.index.example".to_owned() } else { format!("n{n}.example") };
        let mut records: Vec<_> = (0..len).map(|n| cname(&name(n), 60, &name(n + 1))).collect();
        records.push(a(&name(len), 60, 1));
        records.reverse();
        let read = read(&answer("www.index.example", &records));
        assert_eq!(
            read.map(|chain| (chain.aliases.len(), chain.addresses.len())),
            (len == 16).then_some((16, 1))
        );
    }
}

#[test]
fn alias_that_is_no_host_name_is_followed_but_not_told() {
    let odd = [b"\x03a.b".as_slice(), &wire("example")].concat();
    let answer = answer(
        "www.index.example",
        &[
            record(&wire("www.index.example"), TYPE_CNAME, 60, &odd),
            record(&odd, TYPE_A, 60, &[203, 0, 113, 1]),
            // The same text, but other labels.
            a("a.b.example", 60, 2),
        ],
    );
    assert_eq!(read(&answer), chain(&[], &[("203.0.113.1", 60)]));
}

#[test]
fn time_to_live_with_the_high_bit_is_zero() {
    let answer = answer(
        "www.index.example",
        &[
            a("www.index.example", 1 << 31, 1),
            a("www.index.example", u32::MAX, 2),
            a("www.index.example", i32::MAX as u32, 3),
        ],
    );
    let addresses = [("203.0.113.1", 0), ("203.0.113.2", 0), ("203.0.113.3", i32::MAX as u32)];
    assert_eq!(read(&answer), chain(&[], &addresses));
}

#[test]
fn only_a_successful_answer_to_the_question_is_read() {
    let good = answer("www.index.example", &[a("www.index.example", 60, 1)]);
    assert!(read(&good).is_some());
    let change = |at: usize, byte: u8| {
        let mut changed = good.clone();
        changed[at] = byte;
        read(&changed)
    };
    assert_eq!(change(2, 0x01), None, "a query");
    assert_eq!(change(2, 0x89), None, "another operation");
    for code in 1..16 {
        assert_eq!(change(3, 0x80 | code), None, "response code {code}");
    }
    assert_eq!(change(5, 0), None, "no question");
    assert_eq!(change(5, 2), None, "two questions");
    assert_eq!(change(13, b'v'), None, "another name");
    assert_eq!(change(12, 2), None, "other labels");
    assert_eq!(change(32, 28), None, "another type");
    assert_eq!(change(34, 3), None, "another class");
    assert!(change(13, b'W').is_some(), "another spelling");
    assert_eq!(read_chain(&good, b""), None);
}

#[test]
fn malformed_records_bind_nothing() {
    let name = wire("www.index.example");
    for (kind, data) in [
        (TYPE_A, &[1, 2, 3][..]),
        (TYPE_A, &[1, 2, 3, 4, 5]),
        (TYPE_A, &[0; 16]),
        (TYPE_AAAA, &[1, 2, 3, 4]),
        (TYPE_CNAME, b""),
        (TYPE_CNAME, b"\x01a"),
        (TYPE_CNAME, b"\x01a\0\0"),
        (TYPE_CNAME, b"\x40a\0"),
    ] {
        let good = a("www.index.example", 60, 1);
        let bad = record(&name, kind, 60, data);
        assert_eq!(read(&answer("www.index.example", &[good, bad])), None, "{kind} {data:?}");
    }
    // Another class is another world.
    let mut chaos = a("www.index.example", 60, 1);
    chaos[name.len() + 3] = 3;
    assert_eq!(read(&answer("www.index.example", &[chaos])), chain(&[], &[]));
}

#[test]
fn truncated_answer_binds_what_it_holds() {
    let whole = answer(
        "www.index.example",
        &[a("www.index.example", 60, 1), a("www.index.example", 60, 2)],
    );
    let mut cut = whole[..whole.len() - 7].to_vec();
    assert_eq!(read(&cut), None);
    cut[2] |= 0x02;
    assert_eq!(read(&cut), chain(&[], &[("203.0.113.1", 60)]));
}

#[test]
fn compression_is_followed_backwards_and_not_for_ever() {
    let question_len = asked("www.index.example", TYPE_A).len();
    let start = 12 + question_len;
    let pointer = |to: usize| (0xc000 | u16::try_from(to).unwrap()).to_be_bytes();
    let one = |owner: &[u8]| {
        read(&answer("www.index.example", &[record(owner, TYPE_A, 60, &[203, 0, 113, 1])]))
    };
    assert_eq!(one(&pointer(12)), chain(&[], &[("203.0.113.1", 60)]));
    let half = [b"\x03wWw".as_slice(), &pointer(16)].concat();
    assert_eq!(one(&half), chain(&[], &[("203.0.113.1", 60)]));
    assert_eq!(one(&pointer(start)), None, "to itself");
    assert_eq!(one(&pointer(start + 2)), None, "forwards");
    assert_eq!(one(&pointer(0)), None, "into the header");
    assert_eq!(one(&[b"\x01a".as_slice(), &pointer(start)].concat()), None, "grows without end");
    // Pointers to pointers: 127 are followed.
    for jumps in [127, 128] {
        let mut steps = pointer(12).to_vec();
        for step in 0..jumps - 2 {
            steps.extend_from_slice(&pointer(start + 11 + 2 * step));
        }
        let text = record(&[0], 16, 0, &steps);
        let last = pointer(start + 11 + steps.len() - 2);
        let owned = record(&last, TYPE_A, 60, &[203, 0, 113, 1]);
        let read = read(&answer("www.index.example", &[text, owned]));
        assert_eq!(read.is_some(), jumps == 127, "{jumps}");
    }
}

#[test]
fn four_thousand_records_are_read_once() {
    let records: Vec<_> = (0..4_000_u32)
        .map(|n| record(&[0xc0, 12], TYPE_A, 60, &(0xcb00_0000 + n).to_be_bytes()))
        .collect();
    let mut long = answer("a.example", &[]);
    long[6..8].copy_from_slice(&4_000_u16.to_be_bytes());
    long.extend_from_slice(&records.concat());
    assert!(long.len() <= 65_535);
    let read = read_chain(&long, &asked("a.example", TYPE_A)).unwrap();
    assert_eq!(read.addresses.len(), 4_000);
    assert_eq!(read.addresses[3_999].0, IpAddr::from([203, 0, 15, 159]));
}
