//! `slirp policy`: what policies say, without a network.
//!
//! Owns the command line, the texts and the exit statuses. Rules are read and judged by the code of
//! the engine.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use slirp_core::egress::{
    Action, Attempt, EgressPolicy, Explanation, Mode, RuleErrorKind, RuleErrors,
};
use slirp_core::policy::Policy;

use super::nearest::nearest;
use super::target::{self, ascii};
use crate::console::{eprint_line, print};
use crate::egress::{EgressFailure, parse, parse_from};

const USAGE: &str = "\
Usage: slirp policy check [--canonical] FILE...
       slirp policy explain FILE... TARGET

check reads policy files as a network would, all together as one policy.
  --canonical  print the policy, too: one spelling, sorted, without comments
  Exit status: 0 if it is in order, 1 if it is not, 2 for a bad command line.

explain tells what becomes of an attempt, by which rule, and why.
  TARGET is what the guest opens or looks up, or who comes in:
    index.example:443, tcp:index.example:443   a name is looked up first
    203.0.113.7:22, [2001:db8::1]:22           an address without a lookup
    host-loopback:8000, 10.0.2.2:8000          a port of the host's loopback
    udp:203.0.113.7:53, icmp:203.0.113.7       another protocol
    dns:index.example                          the lookup alone
    in:203.0.113.7:8080                        a client at published port 8080
  Exit status: 0 if it is allowed, 1 if it is denied or asked about, 2 if the
  policy or the command line is bad.

FILE is - for standard input. What rules mean is in slirp-egress(7).
";

/// Exit status of `check` for a policy with errors, and of `explain` for what is not allowed.
const NO: u8 = 1;
/// Exit status where there is no answer.
const TROUBLE: u8 = 2;

const WORDS: [&str; 3] = ["check", "explain", "help"];

/// What is asked for.
enum Command {
    Help,
    Check { files: Vec<PathBuf>, is_canonical: bool },
    Explain { files: Vec<PathBuf>, target: Attempt },
}

/// Runs `slirp policy` with the arguments behind these words.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Command::parse(arguments) {
        Ok(Command::Help) => finish(USAGE, ExitCode::SUCCESS),
        Ok(Command::Check { files, is_canonical }) => match load(&files, "policy") {
            Some(policy) => finish(&summary(&policy, is_canonical), ExitCode::SUCCESS),
            None => NO.into(),
        },
        Ok(Command::Explain { files, target }) => match load(&files, "policy") {
            Some(policy) => {
                let explanation = policy.explain(&target.destination(target::reached));
                let is_allowed = explanation.verdict == Action::Allow;
                let status = if is_allowed { ExitCode::SUCCESS } else { NO.into() };
                finish(&shown(&explanation), status)
            }
            None => TROUBLE.into(),
        },
        Err(problem) => {
            eprint_line(format_args!("slirp policy: {problem}\nTry 'slirp policy --help'."));
            TROUBLE.into()
        }
    }
}

impl Command {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let Some(word) = arguments.next() else {
            return Err("a word is missing: check or explain".into());
        };
        let word = word.to_string_lossy();
        let is_check = match &*word {
            "check" => true,
            "explain" => false,
            "help" | "--help" | "-h" => return Ok(Self::Help),
            _ => return Err(unknown("word", &word, &WORDS)),
        };
        let mut is_canonical = false;
        let mut positionals = Vec::new();
        let mut has_options = true;
        for argument in arguments {
            match argument.to_str() {
                Some("--") if has_options => has_options = false,
                Some("--help" | "-h") if has_options => return Ok(Self::Help),
                Some("--canonical") if has_options && is_check => is_canonical = true,
                Some(text) if has_options && text.len() > 1 && text.starts_with('-') => {
                    let options: &[_] =
                        if is_check { &["--canonical", "--help"] } else { &["--help"] };
                    return Err(unknown("option", text, options));
                }
                Some(_) | None => positionals.push(argument),
            }
        }
        let target = if is_check { None } else { positionals.pop() };
        let files: Vec<_> = positionals.into_iter().map(PathBuf::from).collect();
        if files.is_empty() {
            let missing = if is_check { "a file is" } else { "a file and a target are" };
            return Err(format!("{missing} needed"));
        }
        let Some(target) = target else { return Ok(Self::Check { files, is_canonical }) };
        let target = target::parse(&target.to_string_lossy());
        Ok(Self::Explain { files, target: target.map_err(|error| error.to_string())? })
    }
}

fn unknown(what: &str, text: &str, known: &[&str]) -> String {
    let meant = nearest(text, known);
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    format!("{text:?} is no {what} of slirp policy{meant}")
}

/// The sum of all files. What is wrong with them, and what should be known about them, is told in
/// the name of this word of the program.
pub(super) fn load(files: &[PathBuf], word: &str) -> Option<EgressPolicy> {
    let mut policies = Vec::new();
    for path in files {
        let policy = if path == Path::new("-") {
            parse_from(io::stdin(), Path::new("stdin"))
        } else {
            parse(path)
        };
        match policy {
            Ok(policy) => policies.push(policy),
            Err(EgressFailure::Rules(errors)) => complain(&errors),
            Err(failure) => eprint_line(format_args!("slirp {word}: {failure}")),
        }
    }
    if policies.len() < files.len() {
        return None;
    }
    let sum = EgressPolicy::merge_all(&policies);
    let policy = sum.and_then(|policy| policy.check(&Policy::default()).map(|()| policy));
    let policy = policy.map_err(|errors| complain(&errors)).ok()?;
    for warning in policy.warnings() {
        eprint_line(format_args!("warning: {warning}"));
    }
    Some(policy)
}

fn complain(errors: &RuleErrors) {
    for error in errors {
        if let RuleErrorKind::NotAscii { name } = error.kind()
            && let Some(instead) = ascii(name)
        {
            eprint_line(format_args!("{error}, {instead}"));
        } else {
            eprint_line(error);
        }
    }
}

fn summary(policy: &EgressPolicy, is_canonical: bool) -> String {
    let rules = policy.rules().len();
    let plural = if rules == 1 { "" } else { "s" };
    let mode = match policy.settings().mode.unwrap_or_default() {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    };
    let line = format!("{rules} rule{plural}, default {}, mode {mode}\n", policy.default_action());
    // So that all of it is a policy file.
    if is_canonical { format!("# {line}{}", policy.to_text()) } else { line }
}

fn shown(explanation: &Explanation) -> String {
    let verdict = match explanation.verdict {
        Action::Allow => "allowed",
        Action::Ask => "asked",
        Action::Deny => "denied",
    };
    let mut text = format!("{verdict}: {}", explanation.cause.as_str());
    if let Some(source) = &explanation.rule {
        text += &format!(", {source}");
    }
    for step in &explanation.steps {
        text += &format!("\n  {step}");
    }
    text + "\n"
}

/// Prints the whole output.
fn finish(text: &str, status: ExitCode) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => status,
        Err(error) => {
            eprint_line(format_args!("slirp policy: write error: {error}"));
            TROUBLE.into()
        }
    }
}
