//! As much of the DNS message format as a relay has to understand.
//!
//! Owns the walk over questions and records, the guest's EDNS option, answers that are made here,
//! and the cut to a UDP size. Everything else in a message is passed on unread.
//!
//! RFC 1035 section 4.1 (format), RFC 2181 section 9 (TC), RFC 6891 section 6 (OPT), RFC 4035
//! section 3.2.2 (CD), RFC 9619 (one question).

use core::fmt::Write as _;
use core::ops::Range;

use crate::egress::Name;
use crate::journal::{Answer, Question};

/// Length of the fixed header (RFC 1035 section 4.1.1).
pub(super) const HEADER_LEN: usize = 12;
/// Longest message: its length on TCP is 16 bits (RFC 1035 section 4.2.2).
pub(super) const MESSAGE_CAP: usize = 65_535;
/// What a UDP client takes without EDNS (RFC 1035 section 4.2.1).
const UDP_LEN_WITHOUT_EDNS: usize = 512;
/// Longest payload of a UDP datagram over IPv4: 65,535 less 20 and 8 bytes of headers.
const UDP_LEN_CAP: usize = 65_507;
/// UDP size that answers made here announce (the value of the DNS flag day of 2020).
const OWN_UDP_LEN: u16 = 1232;
/// Longest name (RFC 1035 section 2.3.4).
pub(super) const NAME_CAP: usize = 255;
/// IPv4 address (RFC 1035 section 3.4.1).
pub(super) const TYPE_A: u16 = 1;
/// Alias (RFC 1035 section 3.3.1).
pub(super) const TYPE_CNAME: u16 = 5;
/// Name of an address (RFC 1035 section 3.3.12).
pub(super) const TYPE_PTR: u16 = 12;
/// IPv6 address (RFC 3596 section 2.1).
pub(super) const TYPE_AAAA: u16 = 28;
/// Type of the EDNS pseudo-record (RFC 6891 section 6.1.1).
pub(super) const TYPE_OPT: u16 = 41;
/// Every type (RFC 1035 section 3.2.3).
pub(super) const TYPE_ANY: u16 = 255;
/// The Internet (RFC 1035 section 3.2.4).
pub(super) const CLASS_IN: u16 = 1;
/// Every class (RFC 1035 section 3.2.5).
pub(super) const CLASS_ANY: u16 = 255;
/// Length of an OPT record without options.
const EMPTY_OPT_LEN: usize = 11;

/// Response bit in byte 2.
const FLAG_RESPONSE: u8 = 0x80;
/// Operation code in byte 2.
const OPCODE_MASK: u8 = 0x78;
/// Truncation bit in byte 2.
pub(super) const FLAG_TRUNCATED: u8 = 0x02;
/// Recursion desired bit in byte 2.
pub(super) const FLAG_RECURSION_DESIRED: u8 = 0x01;
/// Recursion available bit in byte 3.
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
/// Checking disabled bit in byte 3.
pub(super) const FLAG_CHECKING_DISABLED: u8 = 0x10;

/// Response codes of answers that are made here (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ResponseCode {
    /// There are records, or there is none of this type.
    NoError = 0,
    /// The query makes no sense.
    FormatError = 1,
    /// No upstream resolver answered.
    ServerFailure = 2,
    /// There is no such name.
    NoSuchName = 3,
    /// This kind of query is not supported.
    NotImplemented = 4,
    /// Policy refuses this kind of query.
    Refused = 5,
}

/// What the guest said about its own abilities (RFC 6891 section 6.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Edns {
    /// Longest UDP payload that it takes, in bytes, as it was announced.
    pub(super) udp_len: u16,
    /// The DO bit (RFC 3225).
    pub(super) dnssec_ok: bool,
}

/// What a relay needs to know about a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct QueryShape {
    /// Where the question section lies; empty when there is none.
    pub(super) questions: Range<usize>,
    /// The OPT record, when there is a readable one.
    pub(super) edns: Option<Edns>,
}

impl QueryShape {
    /// Longest answer that the guest takes over UDP, in bytes. Announcements below 512 count as
    /// 512 (RFC 6891 section 6.2.3).
    pub(super) fn udp_answer_cap(&self) -> usize {
        self.edns.map_or(UDP_LEN_WITHOUT_EDNS, |edns| {
            usize::from(edns.udp_len).clamp(UDP_LEN_WITHOUT_EDNS, UDP_LEN_CAP)
        })
    }
}

/// Whether `message` can be a query at all: a whole header without the response bit.
pub(super) fn is_query(message: &[u8]) -> bool {
    (HEADER_LEN..=MESSAGE_CAP).contains(&message.len()) && message[2] & FLAG_RESPONSE == 0
}

/// Whether `message` can be an answer at all: a whole header with the response bit.
pub(super) fn is_answer(message: &[u8]) -> bool {
    (HEADER_LEN..=MESSAGE_CAP).contains(&message.len()) && message[2] & FLAG_RESPONSE != 0
}

/// Whether `message` is a standard query or its answer: operation code 0 (RFC 1035 section 4.1.1).
pub(super) fn is_standard(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & OPCODE_MASK == 0)
}

/// The message id; zero when even that is missing.
pub(super) fn message_id(message: &[u8]) -> u16 {
    u16_at(message, 0).unwrap_or(0)
}

/// Reads what a relay needs out of a message that passed [`is_query`].
///
/// `None` for a malformed query: its question cannot be walked, or a standard query (opcode 0)
/// holds more than one (RFC 9619 section 4). Other opcodes have the same first section (RFC 2136
/// section 2.3), but any number of entries in it. A query may have no question (RFC 7873 section
/// 5.4).
pub(super) fn read_query(message: &[u8]) -> Option<QueryShape> {
    let is_standard = is_standard(message);
    let count = u16_at(message, 4)?;
    let Some(end) = skip_plain_questions(message, count) else {
        return (!is_standard)
            .then_some(QueryShape { questions: HEADER_LEN..HEADER_LEN, edns: None });
    };
    if is_standard && count > 1 {
        return None;
    }
    let edns = find_opt(message).map(|opt| Edns {
        udp_len: u16_at(message, opt.start + 3).unwrap_or(0),
        dnssec_ok: message.get(opt.start + 7).is_some_and(|flags| flags & 0x80 != 0),
    });
    Some(QueryShape { questions: HEADER_LEN..end, edns })
}

/// The first question of a query or an answer; `None` when there is none that can be read.
pub(super) fn first_question(message: &[u8]) -> Option<Question> {
    if u16_at(message, 4)? == 0 || is_compressed(message, HEADER_LEN) {
        return None;
    }
    let end = skip_name(message, HEADER_LEN).filter(|&end| end - HEADER_LEN <= NAME_CAP)?;
    let kind = u16_at(message, end)?;
    let mut name = String::new();
    let mut labels = message.get(HEADER_LEN..end - 1)?;
    while let Some((&len, rest)) = labels.split_first() {
        let (label, rest) = rest.split_at_checked(usize::from(len))?;
        if !name.is_empty() {
            name.push('.');
        }
        for &byte in label {
            if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
                name.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(name, "\\{byte:03}");
            }
        }
        labels = rest;
    }
    if name.is_empty() {
        name.push('.');
    }
    Some(Question { name, kind })
}

/// What an answer says to a person.
pub(super) fn read_answer(message: &[u8]) -> Option<Answer> {
    Some(Answer { code: message.get(3)? & 0x0f, records: u16_at(message, 6)? })
}

/// A query for the records of this type of `name`, to be answered by a resolver.
pub(super) fn make_query(name: &Name, kind: u16) -> Vec<u8> {
    let mut query = vec![0; HEADER_LEN];
    query[2] = FLAG_RECURSION_DESIRED;
    query[5] = 1;
    for label in name.as_str().split('.') {
        // A label of a name has at most 63 bytes.
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&CLASS_IN.to_be_bytes());
    query
}

/// An answer to `query` that says `code` and nothing else. `shape` is missing when the query could
/// not be read; its question is not echoed then.
pub(super) fn make_answer(query: &[u8], shape: Option<&QueryShape>, code: ResponseCode) -> Vec<u8> {
    make_answer_with(query, shape, code, 0, &[])
}

/// The same with `count` records in its answer section, which may point to the question's name.
pub(super) fn make_answer_with(
    query: &[u8],
    shape: Option<&QueryShape>,
    code: ResponseCode,
    count: u16,
    records: &[u8],
) -> Vec<u8> {
    let mut answer = vec![0; HEADER_LEN];
    if let Some(header) = query.get(..HEADER_LEN) {
        answer[..2].copy_from_slice(&header[..2]);
        answer[2] = FLAG_RESPONSE | header[2] & (OPCODE_MASK | FLAG_RECURSION_DESIRED);
        answer[3] = FLAG_RECURSION_AVAILABLE | header[3] & FLAG_CHECKING_DISABLED;
    }
    answer[3] |= code as u8;
    let Some(shape) = shape else { return answer };
    if let Some(questions) = query.get(shape.questions.clone())
        && !questions.is_empty()
    {
        answer[4..6].copy_from_slice(&query[4..6]);
        answer.extend_from_slice(questions);
    }
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    answer.extend_from_slice(records);
    if let Some(edns) = shape.edns {
        append_opt(&mut answer, Edns { udp_len: OWN_UDP_LEN, ..edns });
    }
    answer
}

/// Appends an OPT record without options to a message that has no additional records.
pub(super) fn append_opt(message: &mut Vec<u8>, edns: Edns) {
    message[11] = 1;
    message.push(0);
    message.extend_from_slice(&TYPE_OPT.to_be_bytes());
    message.extend_from_slice(&edns.udp_len.to_be_bytes());
    message.extend_from_slice(&[0, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Gives the OPT record that [`append_opt`] has just appended its one option (RFC 6891 section
/// 6.1.2). `data` is short.
pub(super) fn append_option(message: &mut Vec<u8>, code: u16, data: &[u8]) {
    let len = u16::try_from(data.len()).unwrap_or(0);
    let at = message.len() - 2;
    message[at..].copy_from_slice(&(len + 4).to_be_bytes());
    message.extend_from_slice(&code.to_be_bytes());
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(&data[..usize::from(len)]);
}

/// Cuts `answer` to at most `cap` bytes: header with TC set, question section and OPT record stay
/// (RFC 2181 section 9, RFC 6891 section 7), so that the guest asks again over TCP. An answer that
/// fits is left as it is.
pub(super) fn truncate_answer(mut answer: Vec<u8>, cap: usize) -> Vec<u8> {
    if answer.len() <= cap || answer.len() < HEADER_LEN {
        return answer;
    }
    let opt = find_opt(&answer).and_then(|range| answer.get(range)).map(<[u8]>::to_vec);
    let questions_end = u16_at(&answer, 4)
        .and_then(|count| skip_questions(&answer, count))
        .filter(|&end| end + EMPTY_OPT_LEN <= cap);
    answer.truncate(questions_end.unwrap_or(HEADER_LEN));
    if questions_end.is_none() {
        answer[4..6].fill(0);
    }
    answer[2] |= FLAG_TRUNCATED;
    answer[6..HEADER_LEN].fill(0);
    if let Some(mut opt) = opt {
        if answer.len() + opt.len() > cap {
            // Options that do not fit are dropped; what the record itself says is not.
            opt.truncate(EMPTY_OPT_LEN);
            opt[EMPTY_OPT_LEN - 2..].fill(0);
        }
        answer.extend_from_slice(&opt);
        answer[11] = 1;
    }
    answer
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Where the name that starts at `at` ends. A compression pointer ends it.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let len = *message.get(at)?;
        match len >> 6 {
            0 if len == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(len),
            3 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// Where `count` questions end, in a message that may compress names.
fn skip_questions(message: &[u8], count: u16) -> Option<usize> {
    let mut at = HEADER_LEN;
    for _ in 0..count {
        at = skip_name(message, at)? + 4;
    }
    (at <= message.len()).then_some(at)
}

/// Where `count` questions end; none of their names may be compressed, because nothing lies before
/// them, or too long.
fn skip_plain_questions(message: &[u8], count: u16) -> Option<usize> {
    let mut at = HEADER_LEN;
    for _ in 0..count {
        let end = skip_name(message, at)?;
        if end - at > NAME_CAP || is_compressed(message, at) {
            return None;
        }
        at = end + 4;
    }
    (at <= message.len()).then_some(at)
}

/// Whether the name that starts at `at` uses a compression pointer.
fn is_compressed(message: &[u8], mut at: usize) -> bool {
    while let Some(&len) = message.get(at) {
        match len >> 6 {
            0 if len == 0 => return false,
            0 => at += 1 + usize::from(len),
            _ => return true,
        }
    }
    true
}

/// The OPT record: the first of its type in the additional section, owned by the root. `None` when
/// there is none or the way to it cannot be walked.
fn find_opt(message: &[u8]) -> Option<Range<usize>> {
    let mut at = skip_questions(message, u16_at(message, 4)?)?;
    let before = u32::from(u16_at(message, 6)?) + u32::from(u16_at(message, 8)?);
    for _ in 0..before {
        at = read_record(message, at)?.data.end;
    }
    for _ in 0..u16_at(message, 10)? {
        let record = read_record(message, at)?;
        if message[at] == 0 && record.kind == TYPE_OPT {
            return Some(at..record.data.end);
        }
        at = record.data.end;
    }
    None
}

/// A resource record (RFC 1035 section 4.1.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Where its owner's name starts.
    pub(super) owner: usize,
    pub(super) kind: u16,
    pub(super) class: u16,
    /// Its time to live in seconds.
    pub(super) ttl: u32,
    /// Where its data lies. The next record starts behind it.
    pub(super) data: Range<usize>,
}

/// The record that starts at `at`, whole.
pub(super) fn read_record(message: &[u8], at: usize) -> Option<Record> {
    let fixed = skip_name(message, at)?;
    let &[k0, k1, c0, c1, t0, t1, t2, t3, l0, l1] = message.get(fixed..)?.first_chunk()?;
    let start = fixed + 10;
    let data = start..start + usize::from(u16::from_be_bytes([l0, l1]));
    (data.end <= message.len()).then_some(Record {
        owner: at,
        kind: u16::from_be_bytes([k0, k1]),
        class: u16::from_be_bytes([c0, c1]),
        ttl: u32::from_be_bytes([t0, t1, t2, t3]),
        data,
    })
}
