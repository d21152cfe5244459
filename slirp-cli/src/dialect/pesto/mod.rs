//! The dialect of pesto(1): it changes the rules for ports of a network that pasta(1) has made.
//!
//! Owns its command line and what a change is: rules are added to those in force or taken from
//! them, in the order of the command line, and the network gets the outcome as a whole. The bytes
//! are in [`wire`](super::pasta::control::wire), ports in [`ports`](super::pasta::ports).

#[cfg(test)]
mod manual;
mod table;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::getopt::{self, GrammarError, Token, Tokens};
use super::pasta::VERSION_TEXT;
use super::pasta::control::Timed;
use super::pasta::control::change::add;
use super::pasta::control::wire::{self, Table};
use super::pasta::ports::rules::{PortError, PortOption, PortRule, PortRules, ephemeral};
use crate::console::{self, eprint_bytes, eprint_line, print};
use table::{OPTIONS, OptionId};

/// The width of the left column of `--help`.
const LEFT_COLUMN: usize = 24;

/// How long the network may take (arbitrary; it takes milliseconds).
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What is done with rules.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Add(PortOption, String),
    Delete(PortOption, String),
    Clear(Table),
}

/// A command line.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Command {
    Help,
    Version,
    Change { steps: Vec<Step>, shows: bool, path: PathBuf },
}

/// Why a command line is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
enum LineError {
    #[error("{}", String::from_utf8_lossy(&.0.text()))]
    Grammar(GrammarError),
    #[error("No path of a control socket: give the one of pasta --conf-path")]
    NoPath,
    #[error("Extra non-option argument: {0}")]
    Extra(String),
    #[error("No table {0}: HOST has the ports of -t and -u, SPLICE those of -T and -U")]
    NoTable(String),
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("Couldn't connect to {}: {}", .0.display(), .1)]
    Connect(PathBuf, #[source] io::Error),
    #[error("{}: {}", .0.display(), exchange_text(.1))]
    Exchange(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Ports(#[from] PortError),
    #[error("No such rule: {0}")]
    Unknown(Box<PortRule>),
    #[error("{0}")]
    Refused(String),
}

/// Carries out a command line. The first argument is the name by which the program was called.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = arguments.next().unwrap_or_else(|| OsString::from("pesto"));
    console::prepare(None);
    let text = match parse(arguments) {
        Ok(Command::Help) => usage(&program),
        Ok(Command::Version) => VERSION_TEXT.replacen("pasta", "pesto", 1).into_bytes(),
        Ok(Command::Change { steps, shows, path }) => match change(&steps, &path) {
            Ok(rules) if shows => listed(&rules),
            Ok(_) => return ExitCode::SUCCESS,
            Err(failure) => {
                eprint_line(format_args!("pesto: {failure}"));
                return ExitCode::FAILURE;
            }
        },
        Err(error) => {
            eprint_line(format_args!("pesto: {error}"));
            if matches!(error, LineError::Grammar(_)) {
                eprint_bytes(&usage(&program));
            }
            return ExitCode::FAILURE;
        }
    };
    match print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(format_args!("pesto: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The text of `--help`, and of a bad command line.
pub(crate) fn usage(program: &OsStr) -> Vec<u8> {
    let mut text = [b"Usage: ", program.as_bytes(), b" [OPTION]... PATH\n\n"].concat();
    text.extend_from_slice(
        b"Changes the ports of a network that pasta --conf-path=PATH has made, all of them or\n\
          none. SPEC is as in pasta(1).\n\n",
    );
    text.extend_from_slice(getopt::listing(OPTIONS, LEFT_COLUMN).as_bytes());
    text
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, LineError> {
    let (mut steps, mut shows, mut deletes, mut paths) = (Vec::new(), false, false, Vec::new());
    for token in Tokens::new(OPTIONS, arguments) {
        let (option, value) = match token.map_err(LineError::Grammar)? {
            Token::Operand(word) => {
                paths.push(word);
                continue;
            }
            Token::Option(option, value) => (option, value.to_string_lossy().into_owned()),
        };
        let ports = match option.id {
            OptionId::Help => return Ok(Command::Help),
            OptionId::Version => return Ok(Command::Version),
            OptionId::Add | OptionId::Delete => {
                deletes = option.id == OptionId::Delete;
                continue;
            }
            OptionId::Clear => {
                let table = Table::ALL.into_iter().find(|it| it.name() == value);
                steps.push(Step::Clear(table.ok_or(LineError::NoTable(value))?));
                continue;
            }
            OptionId::Show => {
                shows = true;
                continue;
            }
            OptionId::Debug => continue,
            OptionId::TcpPorts => PortOption::TcpToGuest,
            OptionId::UdpPorts => PortOption::UdpToGuest,
            OptionId::TcpNs => PortOption::TcpToHost,
            OptionId::UdpNs => PortOption::UdpToHost,
        };
        steps.push(if deletes { Step::Delete(ports, value) } else { Step::Add(ports, value) });
    }
    let mut paths = paths.into_iter();
    let path = paths.next().ok_or(LineError::NoPath)?;
    match paths.next() {
        Some(extra) => Err(LineError::Extra(extra.display().to_string())),
        None => {
            // Without a change there is nothing to do but to show.
            let shows = shows || steps.is_empty();
            Ok(Command::Change { steps, shows, path: path.into() })
        }
    }
}

/// Has the network at `path` make the change. Returns the rules that are in force then.
fn change(steps: &[Step], path: &Path) -> Result<PortRules, Failure> {
    let exchange = |error| Failure::Exchange(path.to_owned(), error);
    let stream = UnixStream::connect(path);
    let stream = stream.map_err(|error| Failure::Connect(path.to_owned(), error))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(exchange)?;
    let mut reader = Timed { stream: &stream, until: Instant::now() + ANSWER_WITHIN };
    let mut rules = wire::read_greeting(&mut reader).map_err(exchange)?;
    if steps.is_empty() {
        return Ok(rules);
    }
    apply(&mut rules, steps)?;
    (&stream).write_all(&wire::change(&rules)).map_err(exchange)?;
    match wire::read_status(&mut reader).map_err(exchange)? {
        Some(Err(text)) => Err(Failure::Refused(text)),
        // passt itself says nothing.
        Some(Ok(())) | None => Ok(rules),
    }
}

fn apply(rules: &mut PortRules, steps: &[Step]) -> Result<(), Failure> {
    let ephemeral = ephemeral();
    for step in steps {
        let (option, spec, deletes) = match step {
            Step::Clear(table) => {
                table.rules_mut(rules).clear();
                continue;
            }
            Step::Add(option, spec) => (*option, spec.as_str(), false),
            Step::Delete(option, spec) => (*option, spec.as_str(), true),
        };
        let named = PortRules::given([(option, spec)], &ephemeral)?;
        for table in Table::ALL {
            let rules = table.rules_mut(rules);
            for rule in table.rules(&named) {
                if !deletes {
                    add(rules, rule)?;
                    continue;
                }
                match rules.iter().position(|other| other == rule) {
                    Some(at) => drop(rules.remove(at)),
                    None => return Err(Failure::Unknown(Box::new(rule.clone()))),
                }
            }
        }
    }
    Ok(())
}

/// The rules as a person reads them.
fn listed(rules: &PortRules) -> Vec<u8> {
    let mut text = Vec::new();
    for table in Table::ALL {
        text.extend_from_slice(format!("{}\n", table.name()).as_bytes());
        for rule in table.rules(rules) {
            text.extend_from_slice(format!("    {rule}\n").as_bytes());
        }
    }
    text
}

fn exchange_text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        "the network does not answer".to_owned()
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        "the network has hung up".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::getopt::documentation;
    use crate::words::Offers;
    use crate::words::shells::{self, Operands, Program};

    #[test]
    fn manual_and_completions_are_made_from_the_table() {
        const PAGE: &str = include_str!("../../../man/pesto.1");
        const LIST: &str = ".Bl -tag -width Ds\n";
        let (before, rest) = PAGE.split_once(LIST).expect("the page has a list");
        let (_, after) = rest.split_once("\n.El\n.Sh ").expect("the section ends with it");
        let list = documentation::list(OPTIONS, manual::manual);
        shells::compare("man/pesto.1", &format!("{before}{LIST}{list}.El\n.Sh {after}"));
        let command = shells::Command {
            word: "",
            about: "",
            flags: documentation::flags(OPTIONS),
            operands: Operands::Of(&[], Offers::Files),
        };
        let program = Program { name: "pesto", commands: vec![command] };
        shells::compare("completions/pesto.bash", &program.bash());
        shells::compare("completions/pesto.fish", &program.fish());
        shells::compare("completions/_pesto", &program.zsh());
    }

    #[test]
    fn help_fits_into_a_terminal() {
        let text = String::from_utf8(usage(OsStr::new("pesto"))).unwrap();
        assert!(text.starts_with("Usage: pesto [OPTION]... PATH\n"));
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.len() <= 100), "{text}");
    }

    fn of(line: &str) -> Result<Command, LineError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn applied(line: &str, rules: &mut PortRules) -> Result<(), String> {
        let Ok(Command::Change { steps, .. }) = of(line) else { panic!("{line}") };
        apply(rules, &steps).map_err(|failure| failure.to_string())
    }

    #[test]
    fn steps_are_taken_in_order() {
        let mut rules = PortRules::default();
        assert_eq!(applied("-t 8080:80 --add -u 53 -T 22 /s", &mut rules), Ok(()));
        assert_eq!((rules.inbound.len(), rules.outbound.len()), (2, 1));
        assert_eq!(applied("-D -t 8080:80 -A -t 8080:81 -D -T22 /s", &mut rules), Ok(()));
        assert_eq!((rules.inbound.len(), rules.outbound.len()), (2, 0));
        assert_eq!(applied("-C HOST -t [::]/8080:80 -t 0.0.0.0/8080:80 /s", &mut rules), Ok(()));
        assert_eq!(rules.inbound.len(), 2);
    }

    #[test]
    fn rule_that_is_in_the_way_or_missing_is_named() {
        let mut rules = PortRules::default();
        applied("-t 80-90 /s", &mut rules).unwrap();
        for (line, expected) in [
            (
                "-t 127.0.0.1/85:80 /s",
                "Forwarding configuration conflict: TCP [127.0.0.1]:85  =>  80 versus TCP \
                 [*]:80-90  =>  80-90",
            ),
            ("-D -t 80 /s", "No such rule: TCP [*]:80  =>  80"),
            ("-t 0 /s", "Invalid port specifier '0'"),
        ] {
            assert_eq!(applied(line, &mut rules).unwrap_err(), expected, "{line}");
        }
    }

    #[test]
    fn bad_lines_are_refused() {
        for (line, expected) in [
            ("-t 80", "No path of a control socket: give the one of pasta --conf-path"),
            ("/s /t", "Extra non-option argument: /t"),
            (
                "-C TAP /s",
                "No table TAP: HOST has the ports of -t and -u, SPLICE those of -T and -U",
            ),
            ("--ad --frob /s", "unrecognized option '--frob'"),
        ] {
            assert_eq!(of(line).unwrap_err().to_string(), expected, "{line}");
        }
        let shown = Command::Change { steps: Vec::new(), shows: true, path: "/s".into() };
        assert_eq!(of("/s"), Ok(shown));
        assert_eq!(of("--version --frob"), Ok(Command::Version));
    }
}
