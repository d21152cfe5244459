//! What can be wrong with a policy, and where.
//!
//! Owns the messages that an operator reads, and how text of theirs or of a stranger is quoted in
//! them: as printable ASCII, cut after [`EXCERPT_CAP`] characters.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::rule::{Prefix, Source};

/// Errors or warnings that one policy reports (arbitrary; a screen of them).
pub(super) const ERRORS_CAP: usize = 20;
/// Characters of an [`Excerpt`] (arbitrary; more would hide the message).
const EXCERPT_CAP: usize = 80;

/// One error, with its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    pub(super) place: Place,
    pub(super) kind: RuleErrorKind,
}

/// Where an error is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In a file.
    File { name: Arc<str>, line: u32, column: u32 },
    /// In an option, or in an entry of a list: `--allow`, `policy[2]`.
    Entry { label: Arc<str>, column: u32 },
    /// A rule is at odds with something else.
    Rule(Source),
    /// The whole policy.
    Policy,
}

impl RuleError {
    /// What is wrong.
    pub fn kind(&self) -> &RuleErrorKind {
        &self.kind
    }

    /// The line of a file that the error is in, from 1.
    pub fn line(&self) -> Option<u32> {
        match self.place {
            Place::File { line, .. } => Some(line),
            Place::Entry { .. } | Place::Rule(_) | Place::Policy => None,
        }
    }

    /// The character of the line or entry at which the error begins, from 1.
    pub fn column(&self) -> Option<u32> {
        match self.place {
            Place::File { column, .. } | Place::Entry { column, .. } => Some(column),
            Place::Rule(_) | Place::Policy => None,
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { name, line, column } => write!(f, "{name}:{line}:{column}: ")?,
            Place::Entry { label, column } => write!(f, "{label}: column {column}: ")?,
            Place::Rule(source) => write!(f, "{source}: ")?,
            Place::Policy => {}
        }
        self.kind.fmt(f)
    }
}

impl core::error::Error for RuleError {}

/// What is wrong. Its text is the message without the place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says it")]
pub enum RuleErrorKind {
    #[error("\"{word}\" is no action: allow, deny or ask")]
    NoAction { word: Excerpt },
    #[error("a destination is missing")]
    NoDestination,
    #[error("{address}/{} has bits behind its prefix; did you mean {network}?", network.len)]
    HostBits { address: IpAddr, network: Prefix },
    #[error("the prefix of an {family} network is 0 to {longest}")]
    PrefixLength { family: &'static str, longest: u8 },
    #[error("say \"{verb} any\" (all destinations) or \"{verb} internet\"")]
    Everything { verb: Excerpt },
    #[error("\"*\" stands only in front, followed by a dot: *.example.com")]
    Star,
    #[error("{pattern} is everybody's; add wide=yes if you mean it")]
    Wide { pattern: Excerpt },
    #[error("a rule has no scheme or path: {instead}")]
    SchemeOrPath { instead: Excerpt },
    #[error("ports are 1 to 65535")]
    Port,
    #[error("the range {first}-{last} ends before it begins")]
    PortRange { first: u16, last: u16 },
    #[error("a rule has at most {cap} ports and ranges", cap = super::rule::PORT_ITEMS_CAP)]
    TooManyPorts,
    #[error("an IPv6 address with ports needs brackets: [{address}]:{ports}")]
    Brackets { address: Excerpt, ports: Excerpt },
    #[error("{address} is an IPv4 address: write {v4}")]
    Mapped { address: Ipv6Addr, v4: IpAddr },
    /// The name as it was written, for programs that can convert it.
    #[error("names are ASCII: write the xn-- form")]
    NotAscii { name: Box<str> },
    #[error("a label is empty")]
    EmptyLabel,
    #[error("a label has at most 63 bytes")]
    LongLabel,
    #[error("a label neither begins nor ends with \"-\"")]
    Hyphen,
    #[error("a name has at most 253 bytes")]
    LongName,
    #[error("\"{word}\" is neither an address nor a name")]
    NoName { word: Excerpt },
    #[error("{protocol} has no ports")]
    NoPorts { protocol: &'static str },
    #[error("\"{word}\" is no protocol: tcp, udp, icmp or dns")]
    NoProtocol { word: Excerpt },
    #[error("\"in\" takes addresses, not names")]
    InName,
    #[error("\"dns\" takes names, not addresses")]
    DnsAddress,
    #[error("{key} is {values}")]
    Value { key: &'static str, values: &'static str },
    #[error("\"{word}\" is no option: verify, private, wide, log or note")]
    NoOption { word: Excerpt },
    #[error("{key} was already given")]
    OptionTwice { key: &'static str },
    #[error("{key}={value} is for names")]
    NeedsName { key: &'static str, value: &'static str },
    #[error("a setting is missing: mode, ech, dns-redirect, ask-timeout or placeholder")]
    SettingMissing,
    #[error("\"{word}\" is no setting: mode, ech, dns-redirect, ask-timeout or placeholder")]
    NoSetting { word: Excerpt },
    #[error("\"{word}\" stands behind the end of the setting")]
    Behind { word: Excerpt },
    #[error("{what} was already given at {source}: {value}", source = at)]
    AlreadyGiven { what: &'static str, at: Source, value: Excerpt },
    #[error("a lookup is allowed or denied, not asked")]
    AskLookup,
    #[error("this policy only denies: add \"allow any\" for a deny list")]
    OnlyDenies,
    #[error("{}", one_label(word, *near))]
    OneLabel { word: Excerpt, near: Option<&'static str> },
    #[error("a policy has at most 1 MiB")]
    LongText,
    #[error("a policy has at most 10,000 rules")]
    TooManyRules,
    #[error("an entry is one line")]
    OneLine,
    #[error("the host's loopback is disabled")]
    HostLoopbackDisabled,
    #[error("a rule for a name needs the DNS service, which is disabled")]
    NeedsDns,
}

fn one_label(word: &Excerpt, near: Option<&'static str>) -> String {
    match near {
        Some(near) => format!(
            "\"{word}\" is a name of one label; did you mean the set \"{near}\"? (write {word}. \
             for the name)"
        ),
        None => format!("\"{word}\" is a name of one label (write {word}. for it)"),
    }
}

/// Some text as messages show it: printable ASCII, quotes and everything else escaped, and cut
/// where it is long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt(Box<str>);

impl Excerpt {
    pub(super) fn new(text: &str) -> Self {
        let mut shown = String::new();
        for (index, character) in text.chars().enumerate() {
            if index == EXCERPT_CAP {
                shown.push_str("...");
                break;
            }
            match character {
                '"' | '\\' => shown.extend(['\\', character]),
                ' '..='~' => shown.push(character),
                _ => shown.extend(character.escape_default()),
            }
        }
        Self(shown.into())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The errors of one policy, at least one and at most 20. Its text has one a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleErrors(Vec<RuleError>);

impl RuleErrors {
    /// `None` of no errors; the first 20 of many.
    pub(super) fn new(mut errors: Vec<RuleError>) -> Option<Self> {
        errors.truncate(ERRORS_CAP);
        (!errors.is_empty()).then_some(Self(errors))
    }

    /// The errors, in the order of the text.
    pub fn iter(&self) -> core::slice::Iter<'_, RuleError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a RuleErrors {
    type Item = &'a RuleError;
    type IntoIter = core::slice::Iter<'a, RuleError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl core::error::Error for RuleErrors {}
