//! Whether the first bytes of a connection are TLS or HTTP/1 at all.
//!
//! Owns the guess alone, which is loose on purpose: what a lenient server may take for HTTP counts
//! as HTTP here, so that the strict parser gets to refuse it.

use super::http::{HEAD_CAP, is_token_byte};

/// Types of records in TLS (RFC 8446 section 5.1). None of them begins a line of text.
const RECORDS: core::ops::RangeInclusive<u8> = 20..=23;
const HANDSHAKE: u8 = 22;

/// What the first bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tls,
    Http,
    Other,
}

/// Where the reader of a first line is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Place {
    /// In empty lines or blanks, which some servers skip.
    #[default]
    Blank,
    Method,
    /// Behind the method.
    Line,
}

/// Reads until it knows.
#[derive(Default, Debug)]
pub(super) struct Sniffer {
    place: Place,
    scanned: usize,
}

impl Sniffer {
    /// What the bytes are; `None` while they may still become TLS or HTTP/1. `is_ended` says that
    /// no more can come.
    pub(super) fn read(&mut self, unread: &[u8], is_ended: bool) -> Option<Kind> {
        let kind = if RECORDS.contains(&unread[0]) { tls(unread) } else { self.line(unread) };
        match kind {
            None if is_ended && names_http(unread) => Some(Kind::Http),
            None if is_ended => Some(Kind::Other),
            known => known,
        }
    }

    fn line(&mut self, unread: &[u8]) -> Option<Kind> {
        let end = unread.len().min(HEAD_CAP);
        for &byte in &unread[self.scanned..end] {
            self.place = match (self.place, byte) {
                (Place::Blank, b'\r' | b'\n' | b'\t' | b' ') => Place::Blank,
                (Place::Blank | Place::Method, byte) if is_token_byte(byte) => Place::Method,
                (Place::Method, b' ' | b'\t' | 0x0b | 0x0c) => Place::Line,
                (Place::Line, b'\r' | b'\n') if names_http(unread) => return Some(Kind::Http),
                (Place::Line, b'\t' | 0x0b | 0x0c | b' '..=0x7e | 0x80..) => Place::Line,
                // A control character, which some servers take in a target.
                (Place::Line, 0..=0x1f | 0x7f)
                    if !matches!(byte, b'\r' | b'\n') && is_request(unread) =>
                {
                    return Some(Kind::Http);
                }
                _ => return Some(Kind::Other),
            };
        }
        self.scanned = end;
        (unread.len() > HEAD_CAP).then_some(Kind::Http)
    }
}

/// Whether they begin with a record of a ClientHello, or with one that a server may skip in front
/// of it: an empty one, an alert, change_cipher_spec.
fn tls(unread: &[u8]) -> Option<Kind> {
    match *unread {
        [_, major, ..] if major != 3 => Some(Kind::Other),
        [_, _, _, 0, 0..=2, ..] => Some(Kind::Tls),
        [HANDSHAKE, _, _, _, _, 1, ..] => Some(Kind::Tls),
        [HANDSHAKE, _, _, _, _, _, ..] => Some(Kind::Other),
        [kind, _, _, _, _, ..] if kind != HANDSHAKE => Some(Kind::Other),
        _ => None,
    }
}

/// Whether the first line begins like a request: a word, and a path or an address.
fn is_request(unread: &[u8]) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | 0x0b | 0x0c);
    let mut words = unread.trim_ascii_start().split(is_blank).filter(|word| !word.is_empty());
    let is_method = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    words.next().is_some_and(|word| word.iter().all(is_method))
        && words.next().is_some_and(|target| matches!(target[0], b'/' | b'*' | b'h' | b'H'))
}

/// Whether the first line that is not empty has `HTTP/` in it, in any case.
fn names_http(unread: &[u8]) -> bool {
    let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let line = unread.split(is_end).find(|line| !line.is_empty());
    line.is_some_and(|line| line.windows(5).any(|w| w.eq_ignore_ascii_case(b"HTTP/")))
}
