//! Host names as rules, lookups and first bytes spell them.
//!
//! Owns their normal form: ASCII in lower case, labels of 1..=63 bytes (letters, digits, `-`, `_`),
//! at most 253 bytes, no dot at the end.

use core::fmt;
use std::sync::Arc;

/// A host name in its normal form; cloning it is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a name as people and programs write it: any case, with or without the last dot.
    /// `None` if it is no host name: an empty or overlong label, another byte, more than 253 bytes,
    /// or nothing but a dot.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        (text.len() <= 253 && text.split('.').all(is_label))
            .then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has no dot, such as `com`.
    pub(super) fn is_one_label(&self) -> bool {
        !self.0.contains('.')
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
