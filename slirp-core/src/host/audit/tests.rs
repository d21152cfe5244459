//! The log from the data thread to the file.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::egress::{Cause, Name};
use crate::event::FlowId;
use crate::journal::{Claim, Ends, Judgement};
use crate::protocol::Protocol;

/// How long a test waits for something that will come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("slirp-audit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn log(&self) -> AuditLog {
        AuditLog::append(&self.0).unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn judgement(port: u16, action: Action) -> Box<Judgement> {
    let remote = ([192, 0, 2, 1], port).into();
    Box::new(Judgement {
        ends: Ends::new(Protocol::Tcp, ([10, 0, 2, 100], 4000).into(), remote),
        member: None,
        reached: remote,
        is_inbound: false,
        action,
        cause: Cause::Default,
        rule: None,
        is_enforced: true,
        names: Vec::new(),
    })
}

fn flow(index: u32) -> FlowId {
    FlowId { index, generation: 1 }
}

fn allowed(index: u32) -> Event {
    let judgement = judgement(443, Action::Allow);
    Event::Judged { flow: Some(flow(index)), judgement }
}

fn denied(port: u16) -> Event {
    Event::Judged { flow: None, judgement: judgement(port, Action::Deny) }
}

fn tell(audit: &mut Audit, event: Event) {
    audit.tell(SystemTime::now(), &Report { lost: 0, event });
}

/// Each line of a log.
fn lines(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "the last line is whole");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn words(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// Waits until `is_so`.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let began_at = Instant::now();
    while !is_so() {
        assert!(began_at.elapsed() < PATIENCE, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same number for each line and each event that is missing.
fn assert_numbered(lines: &[Value]) {
    let mut next = 1;
    for line in lines {
        if line["event"] == "lost" {
            next += line["count"].as_u64().unwrap();
        }
        assert_eq!(line["seq"], next);
        next += 1;
    }
}

#[test]
fn equal_refusals_are_one_line_and_what_passes_has_one_each() {
    let scratch = Scratch::new("equal");
    let mut audit = scratch.log().start(None).unwrap();
    for round in 0..5 {
        tell(&mut audit, denied(1));
        tell(&mut audit, denied(2));
        tell(&mut audit, allowed(round));
    }
    drop(audit);
    let lines = lines(&scratch.text());
    let mut expected = vec!["start"];
    expected.extend(["flow"; 7]);
    expected.push("stop");
    assert_eq!(words(&lines), expected);
    assert_numbered(&lines);
    assert!(lines[1..6].iter().all(|line| line["verdict"] == "allow" && line["count"].is_null()));
    let refused = |line: &Value| (line["port"].as_u64(), line["count"].as_u64());
    assert_eq!((refused(&lines[6]), refused(&lines[7])), ((Some(1), Some(5)), (Some(2), Some(5))));
}

#[test]
fn refusal_that_waits_is_written_within_a_second_or_two() {
    let scratch = Scratch::new("waits");
    let mut audit = scratch.log().start(None).unwrap();
    tell(&mut audit, denied(1));
    wait_until(|| scratch.text().lines().count() == 2);
    tell(&mut audit, denied(1));
    wait_until(|| scratch.text().lines().count() == 3);
    drop(audit);
    assert!(lines(&scratch.text())[1..3].iter().all(|line| line["count"].is_null()));
}

#[test]
fn refused_names_are_told_apart() {
    let scratch = Scratch::new("names");
    let mut audit = scratch.log().start(None).unwrap();
    for claim in ["a.test", "b.test", "a.test"] {
        let claim = Some(Claim::Sni(Name::new(claim).unwrap()));
        let judgement = judgement(443, Action::Deny);
        tell(&mut audit, Event::Verified { flow: flow(1), claim, judgement });
    }
    drop(audit);
    let lines = lines(&scratch.text());
    assert_eq!(words(&lines), ["start", "verify", "verify", "stop"]);
    assert_eq!((&lines[1]["count"], &lines[2]["count"]), (&Value::from(2), &Value::Null));
}

#[test]
fn many_different_refusals_are_bounded_and_lose_nothing() {
    let scratch = Scratch::new("many");
    let mut audit = scratch.log().start(None).unwrap();
    for port in 0..5000 {
        tell(&mut audit, denied(port));
    }
    drop(audit);
    let lines = lines(&scratch.text());
    assert_eq!(lines.len(), 5002);
    assert_numbered(&lines);
}

#[test]
fn level_decides_what_is_written() {
    for (level, expected) in [
        (AuditLevel::Denied, &["start", "flow", "stop"][..]),
        (AuditLevel::Decisions, &["start", "flow", "flow", "stop"]),
        (AuditLevel::All, &["start", "flow", "verify", "flow", "stop"]),
    ] {
        let scratch = Scratch::new(&format!("level-{level:?}"));
        let mut audit = scratch.log().level(level).start(None).unwrap();
        tell(&mut audit, allowed(1));
        let judgement = judgement(443, Action::Allow);
        tell(&mut audit, Event::Verified { flow: flow(1), claim: None, judgement });
        tell(&mut audit, denied(1));
        drop(audit);
        assert_eq!(words(&lines(&scratch.text())), expected, "{level:?}");
    }
}

#[test]
fn full_device_delays_nobody_and_forbids_what_must_be_written() {
    let full = || AuditLog::append(Path::new("/dev/full")).unwrap();
    let mut audit = full().start(None).unwrap();
    for index in 0..40_000 {
        tell(&mut audit, allowed(index));
    }
    assert!(!audit.forbids());
    assert!(audit.stats().lost > 0);
    let ends_at = Instant::now();
    drop(audit);
    assert!(ends_at.elapsed() < Duration::from_secs(20), "{:?}", ends_at.elapsed());
    let audit = full().required(true).start(None).unwrap();
    assert!(audit.forbids(), "its first line could not be written");
}

#[test]
fn log_that_can_be_written_forbids_nothing() {
    let scratch = Scratch::new("required");
    let audit = scratch.log().required(true).start(None).unwrap();
    assert!(!audit.forbids());
}

#[test]
fn slow_reader_costs_events_that_are_counted() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut audit = AuditLog::to(writer.into()).required(true).start(None).unwrap();
    let mut sent = 0;
    while audit.stats().lost < 100 {
        tell(&mut audit, allowed(sent));
        sent += 1;
    }
    assert!(audit.forbids(), "there is no room for the events of a turn");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    // Some of them find room now.
    wait_until(|| !audit.forbids());
    tell(&mut audit, allowed(sent));
    drop(audit);
    let text = reading.join().unwrap();
    let lines = lines(&text);
    assert_numbered(&lines);
    let count = |event| lines.iter().filter(|line| line["event"] == event).count();
    let lost: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
    assert_eq!(u64::try_from(count("flow")).unwrap() + lost, u64::from(sent) + 1);
    assert!(lost >= 100 && count("lost") >= 1 && count("stop") == 1);
}

#[test]
fn what_is_lost_last_is_told_at_the_end() {
    let scratch = Scratch::new("last");
    let mut audit = scratch.log().start(None).unwrap();
    let event = Event::Answered {
        query: crate::event::DnsQueryId(1),
        origin: crate::event::QueryOrigin::Tcp { flow: flow(1) },
        guest: None,
        member: None,
        question: None,
        answer: None,
        lookup: None,
        would: None,
        after: Duration::ZERO,
    };
    // The stack has lost some before an event that the log does not want.
    audit.tell(SystemTime::now(), &Report { lost: 7, event });
    drop(audit);
    let lines = lines(&scratch.text());
    assert_eq!(words(&lines), ["start", "lost", "stop"]);
    assert_numbered(&lines);
    assert_eq!(lines[1]["count"], 7);
}

#[test]
fn reader_that_left_is_replaced_by_another_file() {
    let scratch = Scratch::new("replaced");
    let (reader, writer) = io::pipe().unwrap();
    let mut audit = AuditLog::to(writer.into()).required(true).start(None).unwrap();
    assert!(!audit.forbids());
    drop(reader);
    tell(&mut audit, allowed(1));
    wait_until(|| audit.forbids());
    let file = OpenOptions::new().append(true).create(true).open(&scratch.0).unwrap();
    audit.reopen(file.into());
    wait_until(|| !audit.forbids());
    tell(&mut audit, allowed(2));
    drop(audit);
    let lines = lines(&scratch.text());
    assert_eq!(words(&lines), ["flow", "flow", "stop"]);
    assert_eq!(lines[0]["seq"], 2);
}

#[test]
fn line_that_was_written_in_part_begins_anew_in_another_file() {
    let scratch = Scratch::new("anew");
    let (mut reader, writer) = io::pipe().unwrap();
    let mut audit = AuditLog::to(writer.into()).start(None).unwrap();
    for index in 0..2000 {
        tell(&mut audit, allowed(index));
    }
    // The pipe is full: some line is half written.
    wait_until(|| audit.shared.is_failing());
    let file = OpenOptions::new().append(true).create(true).open(&scratch.0).unwrap();
    audit.reopen(file.into());
    wait_until(|| !audit.shared.is_failing());
    drop(audit);
    let mut before = String::new();
    reader.read_to_string(&mut before).unwrap();
    let (whole, cut) = before.rsplit_once('\n').unwrap();
    let (before, after) = (lines(&format!("{whole}\n")), lines(&scratch.text()));
    assert!(!cut.is_empty(), "pieces of 4096 bytes cut lines");
    assert_eq!(before.len() + after.len(), 2002);
    assert_numbered(&[before, after].concat());
}

#[test]
fn five_thousand_events_a_second_are_all_written() {
    let scratch = Scratch::new("rate");
    let mut audit = scratch.log().level(AuditLevel::All).start(None).unwrap();
    for turn in 0..100 {
        for index in 0..100 {
            tell(&mut audit, allowed(turn * 100 + index));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(audit);
    let lines = lines(&scratch.text());
    assert_eq!(lines.len(), 10_002);
    assert!(lines.iter().all(|line| line["event"] != "lost"));
}

#[test]
fn new_file_is_its_owners_alone_and_an_old_one_grows() {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new("mode");
    drop(scratch.log().start(None).unwrap());
    assert_eq!(std::fs::metadata(&scratch.0).unwrap().mode() & 0o777, 0o600);
    drop(scratch.log().start(None).unwrap());
    assert_eq!(words(&lines(&scratch.text())), ["start", "stop", "start", "stop"]);
}
