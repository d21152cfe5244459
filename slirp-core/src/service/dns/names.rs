//! The names of a shared network's members: a small zone that is answered here.
//!
//! Owns the names of each member, and the answers to questions about them: A and AAAA, an empty
//! answer for other types (RFC 2308 section 2.2), and PTR for members' addresses. The time to live
//! is zero, since members come and go. A member's own name hides equal aliases of other members; an
//! alias that several members share stands for all of them. Questions about members are never
//! passed on to a resolver. RFC 1035, RFC 3596 section 2.5.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::message::{
    CLASS_ANY, CLASS_IN, QueryShape, ResponseCode, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_PTR,
    make_answer_with,
};
use super::question::{Question, Reverse};
use crate::member::{Member, MemberId};

/// A pointer to the name of the first question (RFC 1035 section 4.1.4).
const QUESTION_NAME: [u8; 2] = [0xc0, 12];
/// Members that one answer lists (arbitrary): their addresses of either family fit into a message
/// of 1,232 bytes.
const ANSWERS_CAP: usize = 16;

/// The names of all members, and the answers to questions about them.
#[derive(Debug, Default)]
pub(crate) struct MemberNames {
    names: BTreeMap<String, Vec<MemberId>>,
    aliases: BTreeMap<String, Vec<MemberId>>,
    members: BTreeMap<MemberId, Member>,
}

impl MemberNames {
    /// Answers questions about `member` from now on.
    pub(crate) fn add(&mut self, id: MemberId, member: &Member) {
        for (table, names) in
            [(&mut self.names, &member.names), (&mut self.aliases, &member.aliases)]
        {
            for name in names {
                table.entry(name.as_str().to_owned()).or_default().push(id);
            }
        }
        self.members.insert(id, member.clone());
    }

    /// Forgets a member.
    pub(crate) fn remove(&mut self, id: MemberId) {
        self.members.remove(&id);
        for table in [&mut self.names, &mut self.aliases] {
            table.retain(|_, holders| {
                holders.retain(|&holder| holder != id);
                !holders.is_empty()
            });
        }
    }

    /// The answer to `query`, if it is about a member.
    pub(super) fn answer(&self, query: &[u8], shape: &QueryShape) -> Option<Vec<u8>> {
        if self.members.is_empty() {
            return None;
        }
        let question = Question::read(query, shape)?;
        if !matches!(question.class, CLASS_IN | CLASS_ANY) {
            return None;
        }
        let records = if let Some(label) = question.only_label() {
            let name = core::str::from_utf8(label).ok()?.to_ascii_lowercase();
            self.addresses_of(&name, question.kind)?
        } else {
            let Some(Reverse::Address(address)) = question.reverse() else { return None };
            self.name_of(address, question.kind)?
        };
        let count = u16::try_from(records.len()).unwrap_or(u16::MAX);
        Some(make_answer_with(query, Some(shape), ResponseCode::NoError, count, &records.concat()))
    }

    fn addresses_of(&self, name: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
        let holders = self.names.get(name).or_else(|| self.aliases.get(name))?;
        let members = holders.iter().filter_map(|id| self.members.get(id)).take(ANSWERS_CAP);
        let mut records = Vec::new();
        for member in members {
            if matches!(kind, TYPE_A | TYPE_ANY) {
                records.push(record(TYPE_A, &member.address.octets()));
            }
            if let Some(address) = member.address6.filter(|_| matches!(kind, TYPE_AAAA | TYPE_ANY))
            {
                records.push(record(TYPE_AAAA, &address.octets()));
            }
        }
        Some(records)
    }

    fn name_of(&self, address: IpAddr, kind: u16) -> Option<Vec<Vec<u8>>> {
        let mut members = self.members.values();
        let member = members.find(|member| member.addresses().any(|own| own == address))?;
        let name = member.names.first().or_else(|| member.aliases.first())?.as_str();
        if !matches!(kind, TYPE_PTR | TYPE_ANY) {
            return Some(Vec::new());
        }
        let mut data = vec![u8::try_from(name.len()).ok()?];
        data.extend_from_slice(name.as_bytes());
        data.push(0);
        Some(vec![record(TYPE_PTR, &data)])
    }
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut record = QUESTION_NAME.to_vec();
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&CLASS_IN.to_be_bytes());
    // Time to live.
    record.extend_from_slice(&[0; 4]);
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    record.extend_from_slice(&len.to_be_bytes());
    record.extend_from_slice(data);
    record
}
