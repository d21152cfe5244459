//! A second reader of what a client of TLS sends.
//!
//! It shares no code with the product's, works on a whole stream, and copies as it likes: first a
//! list of records, then messages out of them.

use slirp_core::egress::Cause;

use super::{Outcome, is_allowed};

struct Record {
    kind: u8,
    is_3: bool,
    content: Vec<u8>,
    /// What the header says; the content may be cut.
    len: usize,
    begins_at: usize,
    ends_at: usize,
}

/// All records of a stream; the last may be cut, but has its header.
fn records(stream: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = 0;
    while at + 5 <= stream.len() {
        let len = usize::from(stream[at + 3]) * 256 + usize::from(stream[at + 4]);
        let ends_at = at + 5 + len;
        let content = stream[at + 5..ends_at.min(stream.len())].to_vec();
        let (kind, is_3) = (stream[at], stream[at + 1] == 3);
        records.push(Record { kind, is_3, content, len, begins_at: at, ends_at });
        at = ends_at;
    }
    records
}

struct Hello {
    name: Option<String>,
    early_data: bool,
    versions: bool,
    hidden: bool,
}

/// Takes `len` bytes off the front.
fn cut<'b>(from: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    if from.len() < len {
        return None;
    }
    let (front, behind) = from.split_at(len);
    *from = behind;
    Some(front)
}

fn number(from: &mut &[u8], bytes: usize) -> Option<usize> {
    Some(cut(from, bytes)?.iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte)))
}

fn vector<'b>(from: &mut &'b [u8], bytes: usize) -> Option<&'b [u8]> {
    let len = number(from, bytes)?;
    cut(from, len)
}

fn hello(mut body: &[u8]) -> Option<Hello> {
    cut(&mut body, 34)?;
    let session = vector(&mut body, 1)?;
    let suites = vector(&mut body, 2)?;
    let compressions = vector(&mut body, 1)?;
    let is_bad = session.len() > 32 || suites.len() < 2 || suites.len() % 2 == 1;
    if is_bad || compressions.is_empty() {
        return None;
    }
    let mut extensions: Vec<(usize, &[u8])> = Vec::new();
    if !body.is_empty() {
        let mut list = vector(&mut body, 2)?;
        if !body.is_empty() {
            return None;
        }
        while !list.is_empty() {
            let kind = number(&mut list, 2)?;
            extensions.push((kind, vector(&mut list, 2)?));
        }
    }
    let mut kinds: Vec<usize> = extensions.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let mut name = None;
    if let Some((_, content)) = extensions.iter().find(|(kind, _)| *kind == 0) {
        let mut content = *content;
        let mut list = vector(&mut content, 2)?;
        let kind = number(&mut list, 1)?;
        let text = vector(&mut list, 2)?;
        if !content.is_empty() || !list.is_empty() || kind != 0 {
            return None;
        }
        name = host(std::str::from_utf8(text).ok()?)?;
    }
    let has = |kind: usize| kinds.contains(&kind);
    let hidden = has(0xfe0d) || has(0xffce);
    Some(Hello { name, early_data: has(42), versions: has(43), hidden })
}

/// `None` if it is no name; `Some(None)` if it is an address.
pub(super) fn host(text: &str) -> Option<Option<String>> {
    if text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(None);
    }
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('.').unwrap_or(&lower);
    let mut label_len = 0;
    for byte in plain.bytes() {
        match byte {
            b'.' if label_len > 0 => label_len = 0,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' if label_len < 63 => label_len += 1,
            _ => return None,
        }
    }
    (label_len > 0 && plain.len() < 254).then(|| Some(plain.to_owned()))
}

/// The hello that begins with the first of `records`, and how many of them it takes.
fn take_hello(records: &[Record]) -> Option<(Hello, usize)> {
    let mut bytes = Vec::new();
    for (nth, record) in records.iter().enumerate() {
        let is_whole = record.content.len() == record.len;
        let is_fit = record.kind == 22 && record.is_3 && (1..=16_384).contains(&record.len);
        if !is_whole || !is_fit || nth >= 64 {
            return None;
        }
        bytes.extend_from_slice(&record.content);
        if bytes[0] != 1 {
            return None;
        }
        if bytes.len() < 4 {
            continue;
        }
        let len = 4 + bytes[1..4].iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte));
        if len > 16_384 || bytes.len() > len {
            return None;
        }
        if bytes.len() == len {
            return Some((hello(&bytes[4..])?, nth + 1));
        }
    }
    None
}

pub(super) fn outcome(stream: &[u8], may_hide_name: bool) -> Outcome {
    let mut outcome = Outcome::default();
    if stream.is_empty() {
        return outcome;
    }
    let refuse = |outcome: Outcome, cause| Outcome { refused: Some(cause), ..outcome };
    if stream[0] != 22 || stream.len() > 1 && stream[1] != 3 {
        return refuse(outcome, Cause::NoTls);
    }
    let records = records(stream);
    let Some((first, mut at)) = take_hello(&records) else {
        return refuse(outcome, Cause::Hello);
    };
    if first.hidden && !may_hide_name {
        return refuse(outcome, Cause::Ech);
    }
    let name = first.name.clone().unwrap_or("-".into());
    outcome.asked.push(name.clone());
    if !is_allowed(&name) {
        return refuse(outcome, Cause::Name);
    }
    let (mut second, mut ccs) = (None, false);
    let mut early = if first.early_data { 64 * 1024 } else { 0 };
    let all = Outcome { left: stream.len(), ..outcome.clone() };
    if !first.versions {
        return all;
    }
    loop {
        outcome.left = records[at - 1].ends_at.min(stream.len());
        let Some(record) = records.get(at) else {
            // What is behind the last record is less than a header.
            let is_over = outcome.left == stream.len();
            return if is_over { outcome } else { refuse(outcome, Cause::Hello) };
        };
        assert_eq!(record.begins_at, outcome.left);
        if !record.is_3 || record.len > 16_384 + 2048 {
            return refuse(outcome, Cause::Hello);
        }
        at += 1;
        match (record.kind, record.len) {
            (20, 1) => ccs = true,
            (21, 2) => {}
            (21, 18..) if ccs => return all,
            (23, ..9) => return refuse(outcome, Cause::Hello),
            (23, len) if 5 + len >= early => return all,
            (23, len) => early -= 5 + len,
            (22, 1..) => {
                let content = &record.content;
                if content.is_empty() {
                    return refuse(outcome, Cause::Hello);
                }
                if content[0] != 1 {
                    return all;
                }
                if ccs && record.len >= 4 {
                    if content.len() < 4 {
                        return refuse(outcome, Cause::Hello);
                    }
                    let len = content[1..4].iter().fold(0, |sum, &b| sum * 256 + usize::from(b));
                    if len >= 1 << 18 {
                        return all;
                    }
                }
                let Some((hello, taken)) = take_hello(&records[at - 1..]) else {
                    return refuse(outcome, Cause::Hello);
                };
                if hello.hidden && !may_hide_name {
                    return refuse(outcome, Cause::Ech);
                }
                if second.is_some() {
                    return refuse(outcome, Cause::Hello);
                }
                if hello.name != first.name {
                    return refuse(outcome, Cause::Name);
                }
                (second, early) = (Some(hello), 0);
                at += taken - 1;
            }
            _ => return refuse(outcome, Cause::Hello),
        }
    }
}
