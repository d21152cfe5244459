//! The addresses that an answer binds to the name that was asked for.
//!
//! Owns the walk over the answer section: from the question's name along its CNAME records, in
//! whatever order they stand, to the A and AAAA records of the last name. Records of other owners
//! bind nothing. An answer that this walk does not understand binds nothing either; it is passed on
//! all the same, since addresses that are bound to no name stay out of reach.
//!
//! The work is bounded whatever the answer says: names are at most 255 bytes long, pointers lead
//! backwards and at most [`JUMPS_CAP`] times a name, and each record's owner is read once.
//!
//! RFC 1035 section 4.1, RFC 2181 sections 8 (TTL) and 9 (TC), RFC 3596 section 2.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{
    CLASS_IN, FLAG_TRUNCATED, HEADER_LEN, NAME_CAP, Record, TYPE_A, TYPE_AAAA, TYPE_CNAME,
    is_answer, is_standard, make_query, read_record,
};
use super::question::host_name;
use crate::egress::Name;

/// CNAME records that one answer may hold (arbitrary; BIND and unbound follow 11). An answer
/// with more binds no address.
const CNAMES_CAP: usize = 16;
/// Compression pointers in one name: as many as it can have labels.
const JUMPS_CAP: usize = 127;
/// A time to live with this bit is one of 0 seconds (RFC 2181 section 8).
const TTL_SIGN: u32 = 1 << 31;

/// What an answer says about the name that was asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Chain {
    /// The names that the question's name leads to. Names that are no host names are left out.
    pub aliases: Vec<Name>,
    /// The addresses of the last name, with the shortest time to live on the way to them, in
    /// seconds.
    pub addresses: Vec<(IpAddr, u32)>,
}

struct Alias {
    owner: Vec<u8>,
    target: Vec<u8>,
    ttl: u32,
}

/// Reads an answer to `question`: an uncompressed name, type and class, as they were asked.
///
/// `None` for an answer that binds nothing: it answers another question, reports an error, or is
/// malformed. A truncated answer binds what it holds.
pub fn read_chain(answer: &[u8], question: &[u8]) -> Option<Chain> {
    let start = HEADER_LEN + question.len();
    let (name, kind_and_class) = question.split_last_chunk::<4>()?;
    // Lengths of labels are no letters.
    let is_answered = is_answer(answer)
        && is_standard(answer)
        && answer[3] & 0x0f == 0
        && answer[4..6] == [0, 1]
        && answer.get(start - 4..start)? == kind_and_class
        && answer.get(HEADER_LEN..start - 4)?.eq_ignore_ascii_case(name);
    if !is_answered {
        return None;
    }
    let (aliases, addresses) = read_records(answer, start)?;
    let mut chain = Chain::default();
    let (mut last, mut ttl) = (name.to_ascii_lowercase(), u32::MAX);
    let mut followed = 0;
    while let Some(alias) = aliases.iter().find(|alias| alias.owner == last) {
        followed += 1;
        if followed > aliases.len() {
            // More steps than there are records: a loop.
            return None;
        }
        chain.aliases.extend(host_name(&alias.target));
        last.clone_from(&alias.target);
        ttl = ttl.min(alias.ttl);
    }
    let mut owner = Vec::with_capacity(NAME_CAP);
    for record in addresses {
        expand(answer, record.owner, &mut owner)?;
        if owner == last {
            let address = address_of(answer.get(record.data)?)?;
            chain.addresses.push((address, ttl.min(record.ttl)));
        }
    }
    Some(chain)
}

/// Reads the answer to one of our own queries for `name`, of either IP version.
pub(crate) fn read_own(answer: &[u8], name: &Name) -> Option<Chain> {
    let of = |kind| read_chain(answer, make_query(name, kind).get(HEADER_LEN..)?);
    of(TYPE_A).or_else(|| of(TYPE_AAAA))
}

/// The CNAME records of the answer section that starts at `at`, and its A and AAAA records.
fn read_records(answer: &[u8], mut at: usize) -> Option<(Vec<Alias>, Vec<Record>)> {
    let is_truncated = answer[2] & FLAG_TRUNCATED != 0;
    let (mut aliases, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        let Some(mut record) = read_record(answer, at) else {
            return is_truncated.then_some((aliases, addresses));
        };
        at = record.data.end;
        if record.ttl & TTL_SIGN != 0 {
            record.ttl = 0;
        }
        match (record.class, record.kind, record.data.len()) {
            (CLASS_IN, TYPE_A, 4) | (CLASS_IN, TYPE_AAAA, 16) => addresses.push(record),
            (CLASS_IN, TYPE_CNAME, _) => {
                if aliases.len() == CNAMES_CAP {
                    return None;
                }
                let (mut owner, mut target) = (Vec::new(), Vec::new());
                expand(answer, record.owner, &mut owner)?;
                let end = expand(answer, record.data.start, &mut target)?;
                (end == record.data.end).then_some(())?;
                aliases.push(Alias { owner, target, ttl: record.ttl });
            }
            (CLASS_IN, TYPE_A | TYPE_AAAA, _) => return None,
            _ => {}
        }
    }
    Some((aliases, addresses))
}

fn address_of(data: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).into())
}

/// Writes the name that starts at `at` to `name`, uncompressed and in lower case, and returns where
/// it ends in the message.
fn expand(message: &[u8], at: usize, name: &mut Vec<u8>) -> Option<usize> {
    name.clear();
    let (mut at, mut end, mut run, mut jumps) = (at, None, at, 0);
    loop {
        let len = *message.get(at)?;
        match len >> 6 {
            0 => {
                let behind = at + 1 + usize::from(len);
                let label = message.get(at..behind)?;
                if name.len() + label.len() > NAME_CAP {
                    return None;
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                at = behind;
                if len == 0 {
                    return Some(end.unwrap_or(at));
                }
            }
            3 => {
                let target = usize::from(len & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
                jumps += 1;
                if !(HEADER_LEN..run).contains(&target) || jumps > JUMPS_CAP {
                    return None;
                }
                end = end.or(Some(at + 2));
                (at, run) = (target, target);
            }
            _ => return None,
        }
    }
}
