//! The words of the program `slirp`, as data: `run`, `doctor`, `policy` and the others.
//!
//! Owns the one table from which the command line of a word is read ([`line`]), and from which
//! `--help` (`help`), the list of options in slirp(1) and the completions of the shells are made.
//! The last two are files; a test compares them, and writes them anew where `SLIRP_RENEW=1`.

mod help;
mod line;
#[cfg(all(test, feature = "tui"))]
mod manual;
mod run;
#[cfg(test)]
pub(crate) mod shells;
mod table;
pub(crate) mod values;

pub use help::{help, overview, refuse};
pub use line::{Given, Line};
pub(crate) use run::RUN;
#[cfg(feature = "tui")]
pub(crate) use table::{APPROVE, TOP};
pub(crate) use table::{DOCTOR, EVENTS, LEARN, POLICY};
pub use table::{LS, OCI_HOOK, RM};

/// Exit status of a word for a bad command line, or where there is no answer.
pub(crate) const TROUBLE: u8 = 2;

/// A word of the program.
#[derive(Debug)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it is for, in one line of `slirp --help`.
    pub about: &'static str,
    /// What follows the word, once for each form of the command line.
    pub usage: &'static [&'static str],
    /// What `--help` says before the options, in lines of at most 80 columns.
    pub text: &'static str,
    /// The options.
    pub groups: &'static [Group],
    /// What `--help` says after the options.
    pub notes: &'static str,
    /// What comes first among the operands, if there is a choice.
    pub subwords: &'static [&'static str],
    /// What the operands are.
    pub operands: Offers,
    /// Whether all behind the first operand is an operand, too.
    pub ends_at_operand: bool,
}

/// Options that belong together.
#[derive(Debug)]
pub struct Group {
    /// The heading in `--help`; empty where there is a single group.
    pub heading: &'static str,
    /// The options.
    pub flags: &'static [Flag],
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// The long form without its dashes.
    pub long: &'static str,
    /// The short form.
    pub short: Option<char>,
    /// The placeholder of the value.
    pub value: Value,
    /// What it does, in one line of `--help` and of the completions.
    pub about: &'static str,
    /// What a shell offers for the value.
    pub offers: Offers,
    /// Whether it may be given several times.
    pub is_repeatable: bool,
    /// Whether `--help` only names it, and leaves the rest to the manual page.
    pub is_rare: bool,
}

/// Whether an option has a value, with its placeholder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// It has none.
    None,
    /// It needs one.
    Needed(&'static str),
    /// It takes one behind `=`.
    Optional(&'static str),
}

/// What a shell offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offers {
    /// Nothing: a person knows it.
    Nothing,
    /// These words.
    Words(&'static [&'static str]),
    /// Files.
    Files,
    /// Interfaces of the host.
    Interfaces,
    /// Processes.
    Processes,
    /// Commands, and then their arguments.
    Command,
}

impl Flag {
    /// An option without a value.
    pub const fn switch(long: &'static str, about: &'static str) -> Self {
        let (short, value, offers) = (None, Value::None, Offers::Nothing);
        Self { long, short, value, about, offers, is_repeatable: false, is_rare: false }
    }

    /// An option with a value.
    pub const fn value(long: &'static str, value: &'static str, about: &'static str) -> Self {
        Self { value: Value::Needed(value), ..Self::switch(long, about) }
    }

    /// An option that is true or false, and true without a value.
    pub const fn boolean(long: &'static str, about: &'static str) -> Self {
        Self {
            value: Value::Optional("BOOL"),
            offers: Offers::Words(&["true", "false"]),
            ..Self::switch(long, about)
        }
    }

    /// The same option with a short form.
    pub const fn or(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// The same option, which may be given several times.
    pub const fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    /// The same option, seldom needed.
    pub const fn rare(self) -> Self {
        Self { is_rare: true, ..self }
    }

    /// The same option with values that a shell offers.
    pub const fn offers(self, offers: Offers) -> Self {
        Self { offers, ..self }
    }
}

/// All words, in the order of `slirp --help`.
fn words() -> impl Iterator<Item = &'static Word> {
    table::TOPICS.iter().flat_map(|(_, words)| words.iter().copied())
}

/// The names of all words.
pub fn names() -> impl Iterator<Item = &'static str> {
    words().map(|word| word.name)
}

impl Flag {
    /// What it does, and whether it may be given several times.
    fn text(&self) -> String {
        let repeatable = if self.is_repeatable { " (repeatable)" } else { "" };
        format!("{}{repeatable}", self.about)
    }
}

impl Word {
    /// All options, in the order of `--help`.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.groups.iter().flat_map(|group| group.flags)
    }
}
