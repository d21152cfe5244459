//! The target `dns_answer`: what a resolver may answer to a lookup that a policy allows.
//!
//! Owns a second walk over answers, which shares no code with the stack's and takes no short cuts:
//! all names are written out as lists of labels, and the chain of aliases is followed over all
//! records. Both have to agree on every answer. So no address is bound to a name but those of the
//! last name in the chain, and loops of pointers or aliases end.
//!
//! Bytes 0..=1 are the length of the question, then the question follows, then the answer.

use core::net::IpAddr;

use slirp_core::egress::Name;
use slirp_core::internals::dns::{Chain, read_chain};

/// Bytes of an input that are used: the longest answer and its question.
const LEN_CAP: usize = 2 + 260 + 65_535;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// Reads one answer in two ways. Panics when the results differ.
pub fn dns_answer(data: &[u8]) {
    let data = &data[..data.len().min(LEN_CAP)];
    let Some((len, rest)) = data.split_first_chunk() else { return };
    let Some((question, answer)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
    else {
        return;
    };
    // The stack asks whole questions about uncompressed names alone.
    let is_plain = Walk { message: question, floor: 0 }
        .name(0)
        .is_some_and(|name| !name.is_compressed && name.end + 4 == question.len());
    if !is_plain {
        return;
    }
    assert_eq!(read_chain(answer, question), walk(answer, question));
}

type Labels = Vec<Vec<u8>>;

/// Aliases and addresses of an answer.
fn walk(answer: &[u8], question: &[u8]) -> Option<Chain> {
    let message = Walk { message: answer, floor: 12 };
    let asked = Walk { message: question, floor: 0 }.name(0)?.labels;
    let flags = message.number(2)?;
    // A response to a standard query without an error, of at most 64 KiB and with one question.
    if answer.len() > 65_535 || flags & 0xf80f != 0x8000 || message.number(4)? != 1 {
        return None;
    }
    message.number(10)?;
    let name = message.name(12)?;
    let kind_and_class = answer.get(name.end..name.end + 4)?;
    if name.is_compressed || name.labels != asked || !question.ends_with(kind_and_class) {
        return None;
    }
    let mut at = name.end + 4;
    let (mut aliases, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..message.number(6)? {
        let Some(record) = message.record(at) else {
            if flags & 0x0200 == 0 {
                return None;
            }
            break;
        };
        at = record.end;
        if record.class != 1 {
            continue;
        }
        let data = answer.get(record.data..record.end)?;
        match record.kind {
            A => {
                let octets: [u8; 4] = data.try_into().ok()?;
                addresses.push((record.owner, IpAddr::from(octets), record.ttl));
            }
            AAAA => {
                let octets: [u8; 16] = data.try_into().ok()?;
                addresses.push((record.owner, IpAddr::from(octets), record.ttl));
            }
            CNAME => {
                let target = message.name(record.data).filter(|name| name.end == record.end)?;
                let owner = message.name(record.owner)?;
                aliases.push((owner.labels, target.labels, record.ttl));
            }
            _ => {}
        }
    }
    if aliases.len() > 16 {
        return None;
    }
    let (mut last, mut ttl, mut seen) = (asked, u32::MAX, Vec::new());
    let mut names = Vec::new();
    while let Some((_, target, alias_ttl)) = aliases.iter().find(|alias| alias.0 == last) {
        seen.push(last);
        if seen.contains(target) {
            return None;
        }
        names.extend(host_name(target));
        (last, ttl) = (target.clone(), ttl.min(*alias_ttl));
    }
    let mut owned = Vec::new();
    for (owner, address, record_ttl) in addresses {
        if message.name(owner)?.labels == last {
            owned.push((address, ttl.min(record_ttl)));
        }
    }
    Some(Chain { aliases: names, addresses: owned })
}

fn host_name(labels: &Labels) -> Option<Name> {
    let texts: Option<Vec<&str>> = labels
        .iter()
        .map(|label| core::str::from_utf8(label).ok().filter(|text| !text.contains('.')))
        .collect();
    Name::new(&texts?.join("."))
}

/// A message whose names may point to bytes from `floor` on.
#[derive(Clone, Copy)]
struct Walk<'a> {
    message: &'a [u8],
    floor: usize,
}

struct Written {
    /// In lower case.
    labels: Labels,
    /// Where the name ends in the message.
    end: usize,
    is_compressed: bool,
}

struct Record {
    owner: usize,
    kind: u16,
    class: u16,
    ttl: u32,
    data: usize,
    end: usize,
}

impl Walk<'_> {
    fn number(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.message.get(at..at + 2)?.try_into().ok()?))
    }

    /// The name at `at`, by recursion: the labels here, and the name that a pointer leads to.
    fn name(&self, at: usize) -> Option<Written> {
        let written = self.name_after(at, 127)?;
        let len: usize = written.labels.iter().map(|label| label.len() + 1).sum();
        (len < 255).then_some(written)
    }

    fn name_after(&self, start: usize, jumps: usize) -> Option<Written> {
        let (mut labels, mut at) = (Labels::new(), start);
        loop {
            let len = usize::from(*self.message.get(at)?);
            if len == 0 {
                return Some(Written { labels, end: at + 1, is_compressed: false });
            }
            if len < 64 {
                labels.push(self.message.get(at + 1..at + 1 + len)?.to_ascii_lowercase());
                at += 1 + len;
                continue;
            }
            let target = usize::from(self.number(at)?.checked_sub(0xc000)?);
            if target < self.floor || target >= start {
                return None;
            }
            labels.extend(self.name_after(target, jumps.checked_sub(1)?)?.labels);
            return Some(Written { labels, end: at + 2, is_compressed: true });
        }
    }

    /// The record at `at`. Where its pointer leads is not looked at.
    fn record(&self, at: usize) -> Option<Record> {
        let mut fixed = at;
        loop {
            let len = usize::from(*self.message.get(fixed)?);
            match len {
                0 => break fixed += 1,
                1..64 => fixed += 1 + len,
                192.. => break fixed += 2,
                _ => return None,
            }
        }
        let ttl = u32::from(self.number(fixed + 4)?) << 16 | u32::from(self.number(fixed + 6)?);
        let data = fixed + 10;
        let end = data + usize::from(self.number(fixed + 8)?);
        self.message.get(data..end)?;
        Some(Record {
            owner: at,
            kind: self.number(fixed)?,
            class: self.number(fixed + 2)?,
            ttl: if ttl > i32::MAX as u32 { 0 } else { ttl },
            data,
            end,
        })
    }
}
