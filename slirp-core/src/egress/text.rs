//! Rules to text.
//!
//! Owns the canonical spelling: lower case, IPv6 in brackets, ports in order, options in the order
//! of the grammar. What `parse` reads from it is what was written.

use core::fmt;
use core::net::IpAddr;

use super::rule::{
    Action, AddressSet, Direction, EgressRule, Mode, NamePattern, PortRange, Prefix,
    RuleDestination, RuleProtocol, Setting, Source, Verify,
};

/// The canonical text of a policy, one statement a line: what it sets, then its rules, sorted.
/// Policies that say the same in another order, or twice, have the same text.
pub(super) fn policy(settings: impl Iterator<Item = Setting>, rules: &[EgressRule]) -> String {
    let mut settings: Vec<String> = settings.map(|setting| setting.to_string()).collect();
    let mut rules: Vec<String> = rules.iter().map(|rule| rule.to_string()).collect();
    settings.sort_unstable();
    rules.sort_unstable();
    rules.dedup();
    let mut text = String::new();
    for line in settings.iter().chain(&rules) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The word of a value in a table of words.
fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, other)| other == value).map_or("", |(word, _)| *word)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, self))
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, self))
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(word(&Self::WORDS, self))
    }
}

impl fmt::Display for Prefix {
    /// `10.0.0.0/8`, or `10.0.0.1` for one address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        let is_one = self.len == if self.address.is_ipv4() { 32 } else { 128 };
        if is_one { Ok(()) } else { write!(f, "/{}", self.len) }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without its dot it would be taken for the misspelt word of a set.
            Self::Exact(name) if name.is_one_label() => write!(f, "{name}."),
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Tree(name) => write!(f, ".{name}"),
        }
    }
}

impl fmt::Display for RuleDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Set(set) => write!(f, "{set}"),
            Self::Prefix(prefix) => match prefix.address {
                IpAddr::V4(_) => write!(f, "{prefix}"),
                IpAddr::V6(_) => write!(f, "[{prefix}]"),
            },
            Self::Name(pattern) => write!(f, "{pattern}"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last) }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Entry { door, number } => write!(f, "{door}:{number}"),
        }
    }
}

impl fmt::Display for EgressRule {
    /// Its canonical text, as a line of a policy file has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.action)?;
        match self.direction {
            Direction::Out => {}
            Direction::In => f.write_str("in ")?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol}:")?;
        }
        write!(f, "{}", self.destination)?;
        match self.ports.as_deref() {
            None => {}
            Some([]) => f.write_str(":*")?,
            Some([first, rest @ ..]) => {
                write!(f, ":{first}")?;
                rest.iter().try_for_each(|range| write!(f, ",{range}"))?;
            }
        }
        match self.verify {
            Verify::Auto => {}
            Verify::Off => f.write_str(" verify=off")?,
        }
        for (is_given, option) in
            [(self.private, " private=yes"), (self.wide, " wide=yes"), (!self.log, " log=no")]
        {
            if is_given {
                f.write_str(option)?;
            }
        }
        if let Some(note) = &self.note {
            write!(f, " note=\"{note}\"")?;
        }
        Ok(())
    }
}

impl Setting {
    /// What it sets, in messages.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Default(_) => "the default",
            Self::Mode(_) => "mode",
            Self::Ech(_) => "ech",
            Self::DnsRedirect(_) => "dns-redirect",
            Self::AskTimeout(_) => "ask-timeout",
            Self::Placeholder(_) => "placeholder",
        }
    }

    /// Its value, as it is written.
    pub(super) fn value(&self) -> String {
        match self {
            Self::Default(action) => action.to_string(),
            Self::Mode(Mode::Enforce) => "enforce".into(),
            Self::Mode(Mode::Audit) => "audit".into(),
            Self::Ech(may_pass) => if *may_pass { "allow" } else { "deny" }.into(),
            Self::DnsRedirect(is_on) => if *is_on { "yes" } else { "no" }.into(),
            Self::AskTimeout(timeout) => timeout.as_secs().to_string(),
            Self::Placeholder(network) => network.to_string(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Default(action) = self {
            return write!(f, "{action} any");
        }
        write!(f, "set {} {}", self.what(), self.value())
    }
}
