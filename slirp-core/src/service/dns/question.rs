//! The question of a standard query: its name, and what the name says.
//!
//! Owns the walk over the labels of a name, the host name that they spell, and the address that a
//! reverse name stands for. RFC 1035 sections 3.5 and 4.1.2, RFC 3596 section 2.5.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{QueryShape, is_standard};
use crate::egress::Name;

/// Labels of the longest reverse name: 32 nibbles and `ip6.arpa`.
const REVERSE_LABELS_CAP: usize = 34;

/// The one question of a standard query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Question<'m> {
    /// The labels with their lengths and the empty label at the end, in the guest's spelling.
    pub(super) name: &'m [u8],
    /// The type that is asked for.
    pub(super) kind: u16,
    /// The class that is asked for.
    pub(super) class: u16,
}

/// What a name below `arpa` stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reverse {
    /// One address.
    Address(IpAddr),
    /// A network, or all addresses of a family: names of addresses lie below it.
    Zone,
}

impl<'m> Question<'m> {
    /// Reads the question of a standard query that has exactly one.
    pub(super) fn read(query: &'m [u8], shape: &QueryShape) -> Option<Self> {
        if !is_standard(query) || query.get(4..6)? != [0, 1] {
            return None;
        }
        let (name, &[k0, k1, c0, c1]) = query.get(shape.questions.clone())?.split_last_chunk()?;
        let (kind, class) = (u16::from_be_bytes([k0, k1]), u16::from_be_bytes([c0, c1]));
        Some(Self { name, kind, class })
    }

    /// Whether the name is that of the root.
    pub(super) fn is_root(&self) -> bool {
        self.name == [0]
    }

    /// The name, if it is one label.
    pub(super) fn only_label(&self) -> Option<&'m [u8]> {
        let mut labels = labels(self.name);
        labels.next().filter(|_| labels.next().is_none())
    }

    /// What the name stands for, if it belongs to the reverse zones.
    pub(super) fn reverse(&self) -> Option<Reverse> {
        let labels: Vec<_> = labels(self.name).take(REVERSE_LABELS_CAP + 1).collect();
        let (arpa, labels) = labels.split_last()?;
        if !arpa.eq_ignore_ascii_case(b"arpa") {
            return None;
        }
        let Some((family, digits)) = labels.split_last() else { return Some(Reverse::Zone) };
        if family.eq_ignore_ascii_case(b"in-addr") {
            reverse4(digits)
        } else if family.eq_ignore_ascii_case(b"ip6") {
            reverse6(digits)
        } else {
            None
        }
    }
}

fn reverse4(labels: &[&[u8]]) -> Option<Reverse> {
    let mut octets = [0; 4];
    // The label next to the zone is the first octet.
    for (at, label) in labels.iter().rev().enumerate() {
        let text = core::str::from_utf8(label).ok()?;
        let octet: u8 = text.parse().ok()?;
        // One spelling an address: no sign, no zeros in front.
        (octet.to_string() == text).then_some(())?;
        *octets.get_mut(at)? = octet;
    }
    let address = IpAddr::V4(Ipv4Addr::from(octets));
    Some(if labels.len() == 4 { Reverse::Address(address) } else { Reverse::Zone })
}

fn reverse6(labels: &[&[u8]]) -> Option<Reverse> {
    let mut bits = 0;
    for label in labels.iter().rev() {
        let [digit] = label else { return None };
        bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
    }
    match labels.len() {
        0..32 => Some(Reverse::Zone),
        32 => Some(Reverse::Address(IpAddr::V6(Ipv6Addr::from_bits(bits)))),
        _ => None,
    }
}

/// The labels of an uncompressed name.
pub(super) fn labels(mut name: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let (&len, rest) = name.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(len))?;
        name = rest;
        (!label.is_empty()).then_some(label)
    })
}

/// The host name that an uncompressed name spells. `None` for the root, and for names with other
/// bytes than host names have, such as a dot within a label.
pub(super) fn host_name(name: &[u8]) -> Option<Name> {
    spell(name, |byte| is_host_byte(byte).then_some(byte))
}

/// The same with `_` in the place of bytes that host names do not have. `None` for the root.
pub(super) fn nearest_host_name(name: &[u8]) -> Option<Name> {
    spell(name, |byte| Some(if is_host_byte(byte) { byte } else { b'_' }))
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn spell(name: &[u8], mut letter: impl FnMut(u8) -> Option<u8>) -> Option<Name> {
    let mut text = String::with_capacity(name.len());
    for label in labels(name) {
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            text.push(char::from(letter(byte)?));
        }
    }
    Name::new(&text)
}
