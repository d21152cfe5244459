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
use crate::words::{Line, POLICY, TROUBLE};

/// Exit status of `check` for a policy with errors, and of `explain` for what is not allowed.
const NO: u8 = 1;

/// What is asked for.
enum Command {
    Check { files: Vec<PathBuf>, is_canonical: bool },
    Explain { files: Vec<PathBuf>, target: Attempt },
}

/// Runs `slirp policy` with the arguments behind these words.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match POLICY.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    match Command::of(&line) {
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
        Err(problem) => POLICY.refuse(problem),
    }
}

impl Command {
    fn of(line: &Line) -> Result<Self, String> {
        let Some((word, operands)) = line.operands().split_first() else {
            return Err("a word is missing: check or explain".into());
        };
        let word = word.to_string_lossy();
        let is_canonical = line.has("canonical");
        let files = |files: &[OsString]| files.iter().map(PathBuf::from).collect();
        match (&*word, operands) {
            ("check", []) => Err("a file is needed".into()),
            ("check", operands) => Ok(Self::Check { files: files(operands), is_canonical }),
            ("explain", _) if is_canonical => Err("--canonical goes with check".into()),
            ("explain", [operands @ .., target]) if !operands.is_empty() => {
                let target = target::parse(&target.to_string_lossy());
                let target = target.map_err(|error| error.to_string())?;
                Ok(Self::Explain { files: files(operands), target })
            }
            ("explain", _) => Err("a file and a target are needed".into()),
            _ => {
                let meant = nearest(&word, POLICY.subwords);
                let meant = meant.map(|meant| format!("; did you mean {meant}?"));
                Err(format!("{word:?} is no word of slirp policy{}", meant.unwrap_or_default()))
            }
        }
    }
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
