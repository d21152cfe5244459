//! The text of the page, line by line. That a collector's own parser takes it is tested in the
//! workspace's `tests`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::discard::DiscardReason;
use crate::egress::{Cause, Shown};
use crate::event::HostError;
use crate::journal::Lookup;
use crate::member::MemberId;
use crate::protocol::Protocol;
use crate::stats::{Answered, AuditStats, Outcome};

/// Something of everything.
fn stats() -> Stats {
    let mut stats = Stats { frames_from_guest: 7, ..Stats::default() };
    stats.discards.count(DiscardReason::ArpInvalid);
    stats.connect_failures.count(HostError::Refused);
    stats.traffic[Protocol::Udp].from_guest = 42;
    stats.names.count(Answered::Judged(Lookup::Bound));
    stats.names.upstream.note(Duration::from_micros(1_500));
    stats.names.upstream.note(Duration::from_secs(300));
    stats.open[Protocol::Tcp] = 3;
    let mut policy = PolicyStats::default();
    policy.verdicts.count(Action::Deny, Cause::NoName, Protocol::Tcp);
    policy.verified.count(Shown::Tls, Ok(()));
    policy.verified.count(Shown::Tls, Err(Cause::Name));
    policy.rules = [5, 0, 1];
    policy.questions.count(Outcome::Denied, Duration::from_secs(7));
    policy.questions.open = 2;
    stats.policy = Some(policy);
    stats.audit = Some(AuditStats { taken: 9, lost: 2 });
    stats
}

fn members() -> Stats {
    let mut all = stats();
    let policy = all.policy.clone();
    let one = MemberStats::new(MemberId(1), all.open, policy);
    let other = MemberStats::new(MemberId(2), PerProtocol::default(), None);
    all.by_member = Some(vec![one, other]);
    all
}

fn page(dialect: Dialect) -> String {
    write(&stats(), Duration::from_millis(1_700_000_000_250), dialect)
}

/// The family of a sample's name.
fn family<'n>(name: &'n str, types: &BTreeMap<&'n str, &'n str>) -> Option<&'n str> {
    let suffixes = ["", "_total", "_info", "_bucket", "_sum", "_count"];
    suffixes
        .iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|name| types.contains_key(name))
}

#[test]
fn each_family_has_help_and_type_once_and_its_samples_behind() {
    for dialect in [Dialect::OpenMetrics, Dialect::Prometheus] {
        for stats in [Stats::default(), stats(), members()] {
            let page = write(&stats, Duration::ZERO, dialect);
            let (mut types, mut samples) = (BTreeMap::new(), BTreeSet::new());
            let mut helped = "";
            let mut current = "";
            for line in page.lines() {
                if let Some(help) = line.strip_prefix("# HELP ") {
                    let (name, text) = help.split_once(' ').unwrap();
                    assert!(text.ends_with('.') && text.len() > 10, "{line}");
                    helped = name;
                } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                    let (name, kind) = kind.split_once(' ').unwrap();
                    assert_eq!(name, helped);
                    assert!(types.insert(name, kind).is_none(), "{name} comes twice");
                    current = name;
                } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                    let (name, unit) = unit.split_once(' ').unwrap();
                    assert!(name == current && name.ends_with(unit), "{line}");
                } else if line != "# EOF" {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    assert!(value.parse::<f64>().is_ok(), "{line}");
                    assert!(samples.insert(series), "{series} comes twice");
                    let name = series.split('{').next().unwrap();
                    assert_eq!(family(name, &types), Some(current), "{line}");
                    let is_counter = types[current] == "counter";
                    assert_eq!(is_counter, name.ends_with("_total"), "{line}");
                }
            }
            let has_end = page.ends_with("\n# EOF\n");
            assert_eq!(has_end, dialect == Dialect::OpenMetrics);
            assert_eq!(page.matches("# EOF").count(), usize::from(has_end));
        }
    }
}

#[test]
fn samples_say_what_was_counted() {
    let page = page(Dialect::OpenMetrics);
    for line in [
        "slirp_start_time_seconds 1700000000.25",
        "slirp_frames_total{direction=\"from_guest\"} 7",
        "slirp_discards_total{reason=\"arp_invalid\"} 1",
        "slirp_discards_total{reason=\"ndp_invalid\"} 0",
        "slirp_connect_failures_total{reason=\"refused\"} 1",
        "slirp_flow_bytes_total{proto=\"udp\",direction=\"from_guest\"} 42",
        "slirp_flows{proto=\"tcp\"} 3",
        "slirp_dns_queries_total{answer=\"bound\"} 1",
        "slirp_dns_queries_total{answer=\"failed\"} 0",
        "slirp_dns_upstream_seconds_bucket{le=\"0.001\"} 0",
        "slirp_dns_upstream_seconds_bucket{le=\"0.0025\"} 1",
        "slirp_dns_upstream_seconds_bucket{le=\"1.0\"} 1",
        "slirp_dns_upstream_seconds_bucket{le=\"+Inf\"} 2",
        "slirp_dns_upstream_seconds_sum 300.0015",
        "slirp_dns_upstream_seconds_count 2",
        "slirp_audit_events_total 9",
        "slirp_questions 2",
        "slirp_questions_ended_total{outcome=\"deny\"} 1",
        "slirp_question_held_seconds_bucket{le=\"10.0\"} 1",
        "slirp_rate_dropped_total{direction=\"to_guest\"} 0",
        "slirp_audit_lost_total 2",
        "slirp_policy_rules{action=\"allow\"} 5",
        "slirp_policy_verdicts_total{verdict=\"deny\",cause=\"no-name\",proto=\"tcp\"} 1",
        "slirp_policy_verified_total{kind=\"tls\",result=\"pass\"} 1",
        "slirp_policy_verified_total{kind=\"tls\",result=\"name\"} 1",
        "# TYPE slirp_frames counter",
        "# UNIT slirp_frame_bytes bytes",
        concat!("slirp_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(page.lines().any(|each| each == line), "{line} in\n{page}");
    }
}

#[test]
fn members_stand_alone_where_they_are_counted_one_by_one() {
    let page = write(&members(), Duration::ZERO, Dialect::OpenMetrics);
    let flows: Vec<_> = page.lines().filter(|line| line.starts_with("slirp_flows{")).collect();
    assert_eq!(flows.len(), 6);
    assert_eq!(flows[0], "slirp_flows{member=\"1\",proto=\"tcp\"} 3");
    assert_eq!(flows[3], "slirp_flows{member=\"2\",proto=\"tcp\"} 0");
    let rules: Vec<_> =
        page.lines().filter(|line| line.starts_with("slirp_policy_rules{")).collect();
    assert_eq!(rules.len(), 3, "the second member has no policy: {rules:?}");
    assert!(rules[0].contains("member=\"1\""), "{rules:?}");
}

#[test]
fn nothing_that_a_guest_chooses_is_on_the_page() {
    let names: BTreeSet<_> = page(Dialect::OpenMetrics)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| {
            let labels = line.split_once('{').map_or("", |(_, labels)| labels);
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels).to_owned();
            let names = labels.split(',').filter_map(|label| label.split_once('='));
            names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let known = [
        "action",
        "answer",
        "by",
        "cause",
        "direction",
        "kind",
        "le",
        "outcome",
        "proto",
        "reason",
        "result",
        "verdict",
        "version",
    ];
    assert_eq!(names, known.map(str::to_owned).into());
}
