//! The command line of a word.
//!
//! Owns how it is cut into options and operands, and what is said about a bad one. What a value
//! means is the word's.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::process::ExitCode;

use lexopt::Arg;

use super::{Flag, TROUBLE, Value, Word};
use crate::console::{eprint_line, print};
use crate::nearest;

/// A command line that was read.
#[derive(Default, Debug)]
pub struct Line {
    given: Vec<(&'static Flag, Option<OsString>)>,
    operands: Vec<OsString>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Given {
    /// The text of `--help`.
    Help,
    /// The word's work.
    Line(Line),
}

impl Line {
    /// Whether the option was given.
    pub fn has(&self, long: &str) -> bool {
        self.values(long).next().is_some()
    }

    /// The option's last value.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.values(long).last().flatten()
    }

    /// What was given with each of the option's appearances.
    pub fn values(&self, long: &str) -> impl Iterator<Item = Option<&OsStr>> {
        self.given
            .iter()
            .filter(move |(flag, _)| flag.long == long)
            .map(|(_, value)| value.as_deref())
    }

    /// The options in their order.
    pub fn options(&self) -> impl Iterator<Item = (&'static Flag, Option<&OsStr>)> {
        self.given.iter().map(|(flag, value)| (*flag, value.as_deref()))
    }

    /// What is no option.
    pub fn operands(&self) -> &[OsString] {
        &self.operands
    }
}

impl Word {
    /// Reads the arguments behind the word. After `--help` and after a bad command line all has
    /// been said, and the program ends with the exit status.
    ///
    /// # Errors
    /// The exit status.
    pub fn read(&self, arguments: impl Iterator<Item = OsString>) -> Result<Line, ExitCode> {
        match self.parse(arguments) {
            Ok(Given::Line(line)) => Ok(line),
            Ok(Given::Help) if print(self.help().as_bytes()).is_ok() => Err(ExitCode::SUCCESS),
            Ok(Given::Help) => Err(ExitCode::FAILURE),
            Err(problem) => Err(self.refuse(problem)),
        }
    }

    /// Says why the command line is bad, and returns the exit status of that.
    pub fn refuse(&self, problem: impl Display) -> ExitCode {
        let name = self.name;
        eprint_line(format_args!("slirp {name}: {problem}\nTry 'slirp {name} --help'."));
        TROUBLE.into()
    }

    /// Reads the arguments behind the word.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(&self, arguments: impl Iterator<Item = OsString>) -> Result<Given, String> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut line = Line::default();
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            let found = match argument {
                Arg::Long("help") | Arg::Short('h') => return Ok(Given::Help),
                Arg::Long(long) => {
                    self.flags().find(|flag| flag.long == long).ok_or_else(|| self.unknown(long))
                }
                Arg::Short(short) => self
                    .flags()
                    .find(|flag| flag.short == Some(short))
                    .ok_or_else(|| format!("-{short} is no option of slirp {}", self.name)),
                Arg::Value(operand) => {
                    line.operands.push(operand);
                    if self.ends_at_operand {
                        line.operands.extend(parser.raw_args().map_err(|it| it.to_string())?);
                        break;
                    }
                    continue;
                }
            };
            let flag = found?;
            let value = match flag.value {
                Value::None => None,
                Value::Optional(_) => parser.optional_value(),
                Value::Needed(what) => Some(
                    parser.value().map_err(|_| format!("--{} needs a value: {what}", flag.long))?,
                ),
            };
            line.given.push((flag, value));
        }
        Ok(Given::Line(line))
    }

    fn unknown(&self, long: &str) -> String {
        let known: Vec<_> = self.flags().map(|flag| flag.long).chain(["help"]).collect();
        let meant = nearest(long, &known).map(|meant| format!("; did you mean --{meant}?"));
        format!("--{long} is no option of slirp {}{}", self.name, meant.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{EVENTS, Group, LEARN, Offers};

    const COMMAND: Word = Word {
        name: "do",
        about: "",
        usage: &["COMMAND"],
        text: "",
        groups: &[Group {
            heading: "",
            flags: &[
                Flag::value("publish", "SPEC", "").or('p'),
                Flag::boolean("ipv6", ""),
                Flag::switch("quiet", "").or('q'),
            ],
        }],
        notes: "",
        subwords: &[],
        operands: Offers::Command,
        ends_at_operand: true,
    };

    fn parse(word: &Word, arguments: &[&str]) -> Result<Given, String> {
        word.parse(arguments.iter().map(OsString::from))
    }

    fn line(word: &Word, arguments: &[&str]) -> Line {
        match parse(word, arguments) {
            Ok(Given::Line(line)) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_stand_before_and_behind_operands() {
        let line = line(&LEARN, &["--min=3", "a", "--since", "2h", "-", "b"]);
        assert_eq!(line.value("min"), Some(OsStr::new("3")));
        assert_eq!(line.value("since"), Some(OsStr::new("2h")));
        assert!(!line.has("against"));
        assert_eq!(line.operands(), ["a", "-", "b"]);
    }

    #[test]
    fn command_has_its_own_options() {
        let line = line(&COMMAND, &["-qp8080:80", "--ipv6", "ls", "--publish", "-q"]);
        assert_eq!(line.operands(), ["ls", "--publish", "-q"]);
        assert_eq!(line.value("publish"), Some(OsStr::new("8080:80")));
        assert!(line.has("ipv6") && line.has("quiet") && line.value("ipv6").is_none());
        let line = self::line(&COMMAND, &["--ipv6=false", "-p", "1:1", "-p2:2", "--", "-x", "--"]);
        assert_eq!(line.operands(), ["-x", "--"]);
        assert_eq!(line.value("ipv6"), Some(OsStr::new("false")));
        let all: Vec<_> = line.values("publish").flatten().collect();
        assert_eq!(all, ["1:1", "2:2"]);
    }

    #[test]
    fn bad_line_says_what_is_meant() {
        for (word, arguments, expected) in [
            (&EVENTS, &["--jsn"][..], "--jsn is no option of slirp events; did you mean --json?"),
            (&EVENTS, &["--quite-another"], "--quite-another is no option of slirp events"),
            (&EVENTS, &["-x"], "-x is no option of slirp events"),
            (&LEARN, &["--min"], "--min needs a value: N"),
            (&EVENTS, &["--json=1"], "unexpected argument for option '--json': \"1\""),
        ] {
            assert_eq!(parse(word, arguments).unwrap_err(), expected, "{arguments:?}");
        }
        assert!(matches!(parse(&LEARN, &["a", "-h"]), Ok(Given::Help)));
    }
}
