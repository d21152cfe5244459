//! Seeds of the target `dns_answer`.
//!
//! The first are what dnsmasq answers; the others are what no honest resolver does.

use crate::Seed;

/// Questions and answers of dnsmasq 2.
const REAL: &[(&str, &str, &str)] = &[
    (
        "dnsmasq_alias_in_other_case",
        "0377577705696e646578076578616d706c650000010001",
        "1234858000010004000000000377577705696e646578076578616d706c650000010001c00c000500\
         010000003c00130363646e05696e646578076578616d706c6500c02f000500010000000500120465\
         6467650363646e076578616d706c6500c04e000100010000012c0004cb007107c04e000100010000\
         00000004cb007108",
    ),
    (
        "dnsmasq_alias_edns",
        "0377777705696e646578076578616d706c650000010001",
        "1234858000010004000000010377777705696e646578076578616d706c650000010001c00c000500\
         010000003c00130363646e05696e646578076578616d706c6500c02f000500010000000500120465\
         6467650363646e076578616d706c6500c04e00010001000000000004cb007108c04e000100010000\
         012c0004cb00710700002904d0000080000000",
    ),
    (
        "dnsmasq_alias_ipv6",
        "0377777705696e646578076578616d706c6500001c0001",
        "1234858000010003000000010377777705696e646578076578616d706c6500001c0001c00c000500\
         010000003c00130363646e05696e646578076578616d706c6500c02f000500010000000500120465\
         6467650363646e076578616d706c6500c04e001c00010000012c001020010db80000000000000000\
         0000000700002904d0000080000000",
    ),
    (
        "dnsmasq_two_addresses",
        "04656467650363646e076578616d706c650000010001",
        "12348580000100020000000004656467650363646e076578616d706c650000010001c00c00010001\
         0000012c0004cb007107c00c00010001000000000004cb007108",
    ),
    (
        "dnsmasq_text",
        "047777773205696e646578076578616d706c650000100001",
        "123485800001000100000001047777773205696e646578076578616d706c650000100001c00c0010\
         00010000000000060568656c6c6f00002904d0000080000000",
    ),
    (
        "dnsmasq_service",
        "025f78045f74637005696e646578076578616d706c650000210001",
        "123485800001000100000004025f78045f74637005696e646578076578616d706c650000210001c0\
         0c002100010000000000180000000001bb04656467650363646e076578616d706c6500c039000100\
         01000000000004cb007108c039000100010000012c0004cb007107c039001c00010000012c001020\
         010db800000000000000000000000700002904d0000080000000",
    ),
    (
        "dnsmasq_mail",
        "05696e646578076578616d706c6500000f0001",
        "12348580000100010000000305696e646578076578616d706c6500000f0001c00c000f0001000000\
         000014000a04656467650363646e076578616d706c6500c02d000100010000012c0004cb007107c0\
         2d001c00010000012c001020010db8000000000000000000000007c02d00010001000000000004cb\
         007108",
    ),
    (
        "dnsmasq_no_such_name",
        "046e6f7065076578616d706c650000010001",
        "123481830001000000000001046e6f7065076578616d706c65000001000100002904d00000800000\
         00",
    ),
    (
        "dnsmasq_alias_alone",
        "0377777705696e646578076578616d706c650000050001",
        "1234858000010001000000000377777705696e646578076578616d706c650000050001c00c000500\
         010000003c00130363646e05696e646578076578616d706c6500",
    ),
];

/// The question `www.a.example`, type A.
const ASKED: &[u8] = b"\x03www\x01a\x07example\0\0\x01\0\x01";
/// Where the records begin.
const START: usize = 12 + ASKED.len();
/// A pointer to the question's name.
const WWW: &[u8] = &[0xc0, 12];
/// A pointer to `a.example`.
const PARENT: &[u8] = &[0xc0, 16];

/// The first byte of the input, and the rest of it.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for &(name, question, answer) in REAL {
        seeds.push(seed(name, &hex(question), &hex(answer)));
    }
    for (name, flags, records) in crafted() {
        let mut answer = vec![0, 1, 0x80 | flags, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        answer[7] = u8::try_from(records.len()).expect("seeds are small");
        answer.extend_from_slice(ASKED);
        answer.extend_from_slice(&records.concat());
        seeds.push(seed(name, ASKED, &answer));
    }
    seeds
}

fn seed(name: &'static str, question: &[u8], answer: &[u8]) -> Seed {
    let len = u16::try_from(question.len()).expect("a question is short");
    let [high, low] = len.to_be_bytes();
    (name, high, [&[low], question, answer].concat())
}

fn crafted() -> Vec<(&'static str, u8, Vec<Vec<u8>>)> {
    let name = |label: u8| [1, label, 0xc0, 16];
    let chain = |len: u8| -> Vec<Vec<u8>> {
        let mut records = vec![cname(WWW, &name(b'a'))];
        records.extend((1..len).map(|n| cname(&name(b'`' + n), &name(b'a' + n))));
        records.insert(0, a(&name(b'`' + len), 9));
        records
    };
    vec![
        ("crafted_foreign_owners", 0, vec![a(PARENT, 1), a(WWW, 2), a(&[0], 3)]),
        ("crafted_sixteen_aliases", 0, chain(16)),
        ("crafted_seventeen_aliases", 0, chain(17)),
        ("crafted_alias_of_itself", 0, vec![cname(WWW, WWW), a(WWW, 1)]),
        ("crafted_alias_loop", 0, vec![cname(WWW, PARENT), cname(PARENT, WWW), a(WWW, 1)]),
        ("crafted_two_aliases", 0, vec![cname(WWW, PARENT), cname(WWW, &[0]), a(PARENT, 1)]),
        ("crafted_pointer_to_itself", 0, vec![a(&pointer(START), 1)]),
        ("crafted_pointer_forwards", 0, vec![a(&pointer(START + 16), 1), a(WWW, 2)]),
        ("crafted_pointer_that_grows", 0, vec![a(&[&[1, b'x'], &pointer(START)[..]].concat(), 1)]),
        ("crafted_pointer_into_the_header", 0, vec![a(&pointer(2), 1)]),
        ("crafted_pointers_to_pointers", 0, vec![a(WWW, 1), a(&pointer(START), 2)]),
        ("crafted_truncated", 2, vec![a(WWW, 1), a(WWW, 2)[..9].to_vec()]),
        ("crafted_short_address", 0, vec![record(WWW, 1, &[1, 2, 3])]),
        ("crafted_dots_in_a_label", 0, vec![cname(WWW, b"\x03a.b\0"), a(b"\x03A.b\0", 1)]),
    ]
}

fn pointer(to: usize) -> [u8; 2] {
    [0xc0, u8::try_from(to).expect("seeds are small")]
}

fn a(owner: &[u8], last: u8) -> Vec<u8> {
    record(owner, 1, &[203, 0, 113, last])
}

fn cname(owner: &[u8], target: &[u8]) -> Vec<u8> {
    record(owner, 5, target)
}

fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).expect("seeds are small");
    [owner, &[0, kind, 0, 1, 0, 0, 0, 60, 0, len], data].concat()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
