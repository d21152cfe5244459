//! Whole command lines: their commands and their refusals.

mod callers;
mod documentation;
mod lines;
mod machines;

use super::*;
use crate::dialect::pasta::options::PastaOptions;
use crate::dialect::pasta::ports::rules::{EPHEMERAL, PortRule};

fn read(line: &[&str]) -> Parsed {
    parse(Mode::Pasta, line.iter().map(OsString::from), &EPHEMERAL)
}

/// What `line` means; it has no word with a blank in it.
fn run(line: &str) -> PastaOptions {
    let words: Vec<_> = line.split_whitespace().collect();
    run_words(&words)
}

fn run_words(line: &[&str]) -> PastaOptions {
    match read(line).command {
        Ok(Command::Run(options)) => *options,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// The text of the refusal and whether the usage follows.
fn refusal(line: &[&str]) -> (String, bool) {
    let error = read(line).command.expect_err(&line.join(" "));
    let text = error.text(OsStr::new("pasta"));
    (String::from_utf8(text).unwrap(), error.shows_usage())
}

/// The rules of `-t`, `-u`, `-T` and `-U`, as they are shown; `auto` for the rule of that word.
fn ports(options: &PastaOptions) -> [String; 4] {
    PortOption::ALL.map(|option| {
        let PortRules { inbound, outbound } = &options.ports;
        let rules = if option.is_inbound() { inbound } else { outbound };
        let rules = rules.iter().filter(|rule| rule.protocol == option.protocol());
        rules.map(spelled).collect::<Vec<_>>().join("; ")
    })
}

fn spelled(rule: &PortRule) -> String {
    let text = rule.to_string();
    match text.split_once("]:").map(|(_, rest)| rest) {
        Some("1-49151  =>  1-49151  (best effort)  (auto-scan)") => "auto".to_owned(),
        Some(_) | None => text.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap(),
    }
}
