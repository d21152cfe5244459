//! A policy in the making.
//!
//! Owns how lines, entries and whole policies add up. Order does not matter, so the doors need no
//! precedence; only what can be said once must not be said twice differently. Errors are collected,
//! up to [`ERRORS_CAP`], and so are warnings: a container's author may have written the text.

use std::sync::Arc;

use super::error::{ERRORS_CAP, Excerpt, Place, RuleError, RuleErrorKind, RuleErrors};
use super::parse::{Statement, Wrong};
use super::rule::{EgressRule, Setting, Source};
use super::warning::RuleWarning;

/// Bytes of a policy's text: more than 10,000 rules of a usual length need.
pub const TEXT_CAP: usize = 1024 * 1024;
/// Rules of a policy, those of all doors together.
const RULES_CAP: usize = 10_000;

/// A setting, and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) setting: Setting,
    pub(super) source: Source,
    place: Place,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Draft {
    pub(super) rules: Vec<EgressRule>,
    pub(super) given: Vec<Given>,
    pub(super) warnings: Vec<RuleWarning>,
    errors: Vec<RuleError>,
}

/// What reads one line.
type Reader<'a> =
    &'a dyn Fn(&str, Source, &mut Vec<RuleWarning>) -> Result<Option<Statement>, Wrong>;

impl Draft {
    /// Adds a file.
    pub(super) fn add_file(&mut self, text: &str, name: &str, read: Reader<'_>) {
        let name: Arc<str> = printable(name).into();
        let place = |line, column| Place::File { name: Arc::clone(&name), line, column };
        if text.len() > TEXT_CAP {
            return self.fail(place(1, 1), RuleErrorKind::LongText);
        }
        for (line, number) in text.lines().zip(1..) {
            if self.errors.len() >= ERRORS_CAP {
                return;
            }
            let source = Source::File { name: Arc::clone(&name), line: number };
            self.add_line(line, source, &|column| place(number, column), read);
        }
    }

    /// Adds an entry that messages call `label`.
    pub(super) fn add_entry(&mut self, text: &str, label: &str, source: Source, read: Reader<'_>) {
        let label: Arc<str> = label.into();
        let place = |column| Place::Entry { label: Arc::clone(&label), column };
        if self.errors.len() >= ERRORS_CAP {
        } else if text.len() > TEXT_CAP {
            self.fail(place(1), RuleErrorKind::LongText);
        } else if let Some(end) = text.find(['\n', '\r']) {
            self.fail(place(column(text, end)), RuleErrorKind::OneLine);
        } else {
            self.add_line(text, source, &place, read);
        }
    }

    fn add_line(
        &mut self,
        line: &str,
        source: Source,
        place: &dyn Fn(u32) -> Place,
        read: Reader<'_>,
    ) {
        match read(line, source.clone(), &mut self.warnings) {
            Ok(None) => {}
            Ok(Some(Statement::Rule(rule))) => self.add_rule(rule, place(1)),
            Ok(Some(Statement::Setting(setting))) => {
                let at = line.len() - line.trim_start().len();
                self.add_setting(Given { setting, source, place: place(column(line, at)) });
            }
            Err(Wrong { at, kind }) => self.fail(place(column(line, at)), kind),
        }
        self.warnings.truncate(ERRORS_CAP);
    }

    fn add_rule(&mut self, rule: EgressRule, place: Place) {
        if self.rules.len() < RULES_CAP {
            self.rules.push(rule);
        } else if !self.errors.iter().any(|error| error.kind == RuleErrorKind::TooManyRules) {
            self.fail(place, RuleErrorKind::TooManyRules);
        }
    }

    fn add_setting(&mut self, new: Given) {
        let what = new.setting.what();
        match self.given.iter().find(|old| old.setting.what() == what) {
            None => self.given.push(new),
            Some(old) if old.setting == new.setting => {}
            Some(old) => {
                let value = Excerpt::new(&old.setting.value());
                let kind = RuleErrorKind::AlreadyGiven { what, at: old.source.clone(), value };
                self.fail(new.place, kind);
            }
        }
    }

    /// Adds the rules and settings of a whole policy.
    pub(super) fn add(&mut self, rules: &[EgressRule], given: &[Given], warnings: &[RuleWarning]) {
        for rule in rules {
            self.add_rule(rule.clone(), Place::Rule(rule.source.clone()));
        }
        for given in given {
            self.add_setting(given.clone());
        }
        self.warnings.extend_from_slice(warnings);
        self.warnings.truncate(ERRORS_CAP);
    }

    fn fail(&mut self, place: Place, kind: RuleErrorKind) {
        self.errors.push(RuleError { place, kind });
    }

    /// The draft, if nothing is wrong with it.
    pub(super) fn checked(mut self) -> Result<Self, RuleErrors> {
        match RuleErrors::new(core::mem::take(&mut self.errors)) {
            None => Ok(self),
            Some(errors) => Err(errors),
        }
    }
}

/// The number of the character at the byte `at`, from 1.
fn column(line: &str, at: usize) -> u32 {
    let before = line.get(..at).unwrap_or(line).chars().count();
    u32::try_from(before).map_or(u32::MAX, |before| before + 1)
}

/// The name of a file without control characters: it is shown on terminals and in logs.
fn printable(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}
