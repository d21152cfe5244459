//! `slirp learn`: a policy out of what a guest did.
//!
//! Owns the command line, the reading of logs and the exit statuses. What the events of a log add
//! up to is in `tally`, how that becomes rules is in `rules`.

mod rules;
mod tally;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use rules::Wanted;
use tally::Tally;

use super::policy::load;
use super::record::Record;
use super::shown::{counted, parse_span, timestamp};
use crate::console::{eprint_line, print};
use crate::words::{LEARN, Line, TROUBLE};

/// Exit status where lines were left out or are mixed up.
const BROKEN: u8 = 1;
/// Bytes of a line (contract of the log: 2 KiB); a longer one is broken.
const LINE_CAP: u64 = 64 << 10;
/// Rules of a policy; the engine refuses more.
const RULES_CAP: usize = 10_000;

/// What is told of a log whose flows cannot be told apart.
const MIXED: &str = "several networks wrote to one log at the same time, and their flows are mixed \
                     up: give each a log of its own (the path in a CNI configuration may contain \
                     {containerID})";

/// What is asked for.
#[derive(Default, Debug)]
struct Options {
    logs: Vec<PathBuf>,
    against: Option<PathBuf>,
    min: u64,
    since: Option<String>,
}

/// Runs `slirp learn` with the arguments behind this word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match LEARN.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    let options = match Options::of(&line, SystemTime::now()) {
        Ok(options) => options,
        Err(problem) => return LEARN.refuse(problem),
    };
    let against =
        match options.against.as_ref().map(|file| load(std::slice::from_ref(file), "learn")) {
            // What is wrong with it has been told.
            Some(None) => return TROUBLE.into(),
            Some(Some(policy)) => Some(policy),
            None => None,
        };
    let mut logs = Logs { since: options.since, ..Logs::default() };
    for path in &options.logs {
        if let Err(error) = logs.read_file(path) {
            eprint_line(format_args!("slirp learn: {}: {error}", path.display()));
            return TROUBLE.into();
        }
    }
    let wanted = Wanted { min: options.min, against };
    let text = logs.policy(&wanted);
    let lost = logs.tally.lost;
    if lost > 0 {
        eprint_line(format_args!("slirp learn: the logs lack {}", counted(lost, "event")));
    }
    let rules = text.lines().filter(|line| line.starts_with("allow ")).count();
    if rules > RULES_CAP {
        eprint_line(format_args!("slirp learn: {rules} rules; a policy has {RULES_CAP} at most"));
    }
    if logs.broken > 0 {
        let broken = counted(logs.broken, "line");
        eprint_line(format_args!("slirp learn: {broken} left out: not of an audit log"));
    }
    if logs.is_mixed {
        eprint_line(format_args!("slirp learn: {MIXED}"));
    }
    let is_whole = logs.broken == 0 && !logs.is_mixed;
    finish(&text, if is_whole { ExitCode::SUCCESS } else { BROKEN.into() })
}

impl Options {
    fn of(line: &Line, now: SystemTime) -> Result<Self, String> {
        let text = |long| line.value(long).map(|value| value.to_string_lossy());
        let number =
            |text: Cow<'_, str>| text.parse().map_err(|_| format!("--min: {text:?} is no number"));
        if line.operands().is_empty() {
            return Err("a log is needed".into());
        }
        Ok(Self {
            logs: line.operands().iter().map(PathBuf::from).collect(),
            against: line.value("against").map(PathBuf::from),
            min: text("min").map_or(Ok(1), number)?,
            since: text("since").map(|text| since(&text, now)).transpose()?,
        })
    }
}

/// The beginning of the timestamps from which on events count.
fn since(text: &str, now: SystemTime) -> Result<String, String> {
    if let Some(ago) = parse_span(text) {
        return Ok(timestamp(now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)));
    }
    let form = "0000-00-00T00:00:00.000000";
    // A Z at the end sorts behind a fraction.
    let time = text.trim_end_matches('Z').replace(' ', "T");
    let fits = |(byte, wanted): (u8, u8)| {
        if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted }
    };
    let is_time =
        (10..=form.len()).contains(&time.len()) && time.bytes().zip(form.bytes()).all(fits);
    is_time.then_some(time).ok_or_else(|| {
        format!("{text:?} is no time: write 2026-11-29, 2026-11-29T02:35:16 (UTC), or 2h for ago")
    })
}

/// Logs that are read one after the other.
#[derive(Default, Debug)]
struct Logs {
    since: Option<String>,
    tally: Tally,
    /// Lines that are no events.
    broken: u64,
    /// The number of the last event of this log.
    last: Option<u64>,
    /// Whether several networks wrote to one log at once: the numbers of one rise.
    is_mixed: bool,
    /// Times of the first and the last event.
    times: Option<(String, String)>,
}

impl Logs {
    fn read_file(&mut self, path: &Path) -> io::Result<()> {
        if path == Path::new("-") {
            return self.read(io::stdin().lock());
        }
        self.read(BufReader::new(File::open(path)?))
    }

    fn read(&mut self, mut log: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        self.last = None;
        loop {
            line.clear();
            if log.by_ref().take(LINE_CAP).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let is_whole = line.ends_with(b"\n");
            let is_long = !is_whole && line.len() as u64 == LINE_CAP;
            if is_long {
                log.skip_until(b'\n')?;
            }
            let record = std::str::from_utf8(&line).ok().and_then(Record::parse);
            match record.filter(|_| !is_long) {
                Some(record) => self.add(&record),
                // A last line without its end is still being written.
                None if is_whole || is_long => {
                    self.broken += u64::from(!line.trim_ascii().is_empty())
                }
                None => {}
            }
        }
    }

    fn add(&mut self, record: &Record) {
        if record.seq.is_some() {
            self.is_mixed |= record.event != "start" && record.seq <= self.last;
            self.last = record.seq;
        }
        if self.since.as_ref().is_some_and(|since| record.ts < *since) {
            return;
        }
        if !record.ts.is_empty() {
            let (first, _) = self.times.take().unwrap_or((record.ts.clone(), String::new()));
            self.times = Some((first, record.ts.clone()));
        }
        self.tally.add(record);
    }

    /// The text of the policy that allows what the logs have.
    fn policy(&mut self, wanted: &Wanted) -> String {
        self.tally.finish();
        let times = self.times.as_ref().map(|(first, last)| {
            let shown = |time| super::shown::foreign(time, 32);
            format!(" from {} to {}", shown(first), shown(last))
        });
        let policy = rules::policy(&self.tally, wanted);
        format!(
            "# What a guest did{}. One run does not show everything:\n\
             # look it over, and learn from other runs too.\n{policy}",
            times.unwrap_or_default(),
        )
    }
}

fn finish(text: &str, status: ExitCode) -> ExitCode {
    match print(text.as_bytes()) {
        Ok(()) => status,
        Err(error) => {
            eprint_line(format_args!("slirp learn: write error: {error}"));
            TROUBLE.into()
        }
    }
}
