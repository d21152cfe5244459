//! What a listener hears of verdicts.

use super::names::look_up;
use super::*;
use crate::journal::{Claim, Judgement};
use crate::stack::AuditDuty;

const TLS: &str = "203.0.113.7:443";
const HTTP: &str = "203.0.113.7:80";

/// What has been told of verdicts and of ends since the last look, a line each.
fn lines(ladder: &mut Ladder) -> Vec<String> {
    let events = core::iter::from_fn(|| ladder.stack.poll_event()).map(|report| {
        assert_eq!(report.lost, 0);
        report.event
    });
    events.filter_map(line).collect()
}

fn line(event: Event) -> Option<String> {
    let verdict = |judgement: &Judgement| {
        let Judgement { reached, action, cause, rule, is_enforced, names, .. } = judgement;
        let rule = rule.as_ref().map_or(String::new(), |rule| format!(" {rule}"));
        let names: String = names.iter().map(|name| format!(" {name}")).collect();
        let how = if *is_enforced { "is" } else { "would be" };
        format!("{reached} {how} {action} {}{rule}{names}", cause.as_str())
    };
    Some(match event {
        Event::Judged { flow, judgement } => {
            let place = if flow.is_some() { "flow" } else { "no flow" };
            format!("{place}: {}", verdict(&judgement))
        }
        Event::Verified { claim, judgement, .. } => {
            let claim = match claim {
                Some(Claim::Sni(name)) => format!("sni {name}"),
                Some(Claim::Host(name)) => format!("host {name}"),
                None => "no name".into(),
            };
            format!("{claim}: {}", verdict(&judgement))
        }
        Event::Closed { judged: Some(course), traffic, .. }
        | Event::Refused { flow: Some(_), judged: Some(course), traffic, .. } => {
            format!("end: {} {}/{}", course.reached, traffic.from_guest, traffic.to_guest)
        }
        Event::PolicySet { policy, revision, .. } => {
            format!("policy {revision}: {}", policy.rules().len())
        }
        Event::Answered { lookup: Some(lookup), would, guest, .. } => {
            let would = would.map_or(String::new(), |would| format!(" would be {would}"));
            format!("{} asked: {}{would}", guest.unwrap(), lookup.as_str())
        }
        Event::ManyNames { rule, pattern, count, .. } => format!("{rule} {pattern:?} {count}"),
        Event::QuestionOpened(_)
        | Event::QuestionEnded { .. }
        | Event::Opened { .. }
        | Event::Connected { .. }
        | Event::Refused { .. }
        | Event::Unsent { .. }
        | Event::Closed { .. }
        | Event::Asked { .. }
        | Event::Answered { .. }
        | Event::RateLimited { .. }
        | Event::Discarded { .. } => return None,
    })
}

#[test]
fn each_verdict_is_told_with_its_flow_and_the_flow_with_its_end() {
    let mut ladder = under("allow 192.0.2.1");
    assert_eq!(lines(&mut ladder), [""; 0]);
    let refused = Fate::Refused(3, 13);
    assert_eq!(try_all(&mut ladder, "192.0.2.9:80"), [refused.clone(), refused.clone(), refused]);
    assert_eq!(
        lines(&mut ladder),
        [
            "no flow: 192.0.2.9:80 is deny default",
            "no flow: 192.0.2.9:80 is deny default",
            "no flow: 192.0.2.9:0 is deny default",
        ]
    );
    try_all(&mut ladder, "192.0.2.1:80");
    assert_eq!(
        lines(&mut ladder),
        [
            "flow: 192.0.2.1:80 is allow rule test:1",
            "flow: 192.0.2.1:80 is allow rule test:1",
            "flow: 192.0.2.1:0 is allow rule test:1",
        ]
    );
    ladder.pass(Duration::from_secs(600));
    let mut ends = lines(&mut ladder);
    ends.sort_unstable();
    // A refused connect has an end, too; its SYN had no payload.
    assert_eq!(ends, ["end: 192.0.2.1:0 0/0", "end: 192.0.2.1:80 0/0", "end: 192.0.2.1:80 4/0"]);
}

#[test]
fn mapping_is_told_of_again_for_another_remote_and_under_another_policy_alone() {
    let mut ladder = under("allow 192.0.2.0/24");
    let send = |ladder: &mut Ladder, to| {
        let _ = send(ladder, to, 5000);
    };
    for _ in 0..3 {
        send(&mut ladder, "192.0.2.1:9");
    }
    assert_eq!(lines(&mut ladder), ["flow: 192.0.2.1:9 is allow rule test:1"]);
    send(&mut ladder, "192.0.2.2:9");
    send(&mut ladder, "192.0.2.2:9");
    assert_eq!(lines(&mut ladder), ["flow: 192.0.2.2:9 is allow rule test:1"]);
    let set = policy("allow 192.0.2.0/24\nallow 192.0.2.2");
    ladder.stack.set_egress(None, set, Established::Keep, ladder.now);
    send(&mut ladder, "192.0.2.2:9");
    send(&mut ladder, "192.0.2.2:9");
    assert_eq!(lines(&mut ladder), ["policy 2: 2", "flow: 192.0.2.2:9 is allow rule test:1"]);
}

#[test]
fn rule_that_is_not_to_be_logged_is_not() {
    let mut ladder = under("allow 192.0.2.1 log=no\ndeny 192.0.2.2 log=no");
    try_all(&mut ladder, "192.0.2.1:80");
    try_all(&mut ladder, "192.0.2.2:80");
    ladder.pass(Duration::from_secs(600));
    assert_eq!(lines(&mut ladder), [""; 0]);
}

#[test]
fn names_of_first_bytes_are_told_once() {
    let mut ladder = under("allow index.example\nallow other.example");
    look_up(&mut ladder, "index.example", [203, 0, 113, 7], 60);
    assert_eq!(lines(&mut ladder), ["10.0.2.100 asked: bound"]);
    let mut talk = Talk::open_with(&mut ladder, &syn_to(HTTP, 40_000));
    for host in ["index.example", "index.example", "other.example", "evil.example"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        talk.say(&mut ladder, ACK, &request);
    }
    assert_eq!(
        lines(&mut ladder),
        [
            "flow: 203.0.113.7:80 is allow rule test:1 index.example",
            "host index.example: 203.0.113.7:80 is allow rule test:1 index.example",
            "host other.example: 203.0.113.7:80 is allow rule test:2 index.example",
            "host evil.example: 203.0.113.7:80 is deny name index.example",
            "end: 203.0.113.7:80 117/0",
        ]
    );
    let mut talk = Talk::open_with(&mut ladder, &syn_to(TLS, 40_001));
    talk.say(&mut ladder, ACK, b"SSH-2.0-client\r\n");
    assert_eq!(
        lines(&mut ladder),
        [
            "flow: 203.0.113.7:443 is allow rule test:1 index.example",
            "no name: 203.0.113.7:443 is deny no-tls index.example",
            "end: 203.0.113.7:443 0/0",
        ]
    );
}

#[test]
fn audit_mode_tells_what_would_be_and_lets_it_be() {
    let mut ladder = under("set mode audit\nallow index.example");
    look_up(&mut ladder, "other.example", [203, 0, 113, 7], 60);
    let mut talk = Talk::open_with(&mut ladder, &syn_to(HTTP, 40_000));
    let request = b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n";
    talk.say(&mut ladder, ACK, request);
    assert_eq!(ladder.taken(talk.flow), request);
    let mut plain = Talk::open_with(&mut ladder, &syn_to("203.0.113.7:22", 40_001));
    plain.say(&mut ladder, ACK, b"SSH-2.0-client\r\n");
    assert_eq!(connect(&mut ladder, "169.254.169.254:80", 40_002), Fate::Refused(3, 13));
    assert_eq!(
        lines(&mut ladder),
        [
            "10.0.2.100 asked: bound would be deny",
            "flow: 203.0.113.7:80 would be deny no-name other.example",
            "host other.example: 203.0.113.7:80 would be deny no-name other.example",
            "flow: 203.0.113.7:22 would be deny default other.example",
            "no flow: 169.254.169.254:80 is deny protected",
        ]
    );
}

#[test]
fn audit_mode_does_not_hold_bytes_for_long() {
    let mut ladder = under("set mode audit\nallow index.example");
    look_up(&mut ladder, "index.example", [203, 0, 113, 7], 60);
    // Neither TLS nor HTTP yet, where no rule allows anything.
    let mut talk = Talk::open_with(&mut ladder, &syn_to("203.0.113.7:22", 40_000));
    talk.say(&mut ladder, ACK, b"words");
    assert_eq!(ladder.taken(talk.flow), b"words");
    talk.say(&mut ladder, ACK, b" and more");
    assert_eq!(ladder.taken(talk.flow), b"words and more");
    // The beginning of what a rule wants to see.
    for (to, port, half) in [(TLS, 40_001, &[22, 3, 1, 0, 90, 1][..]), (HTTP, 40_002, b"GET / HT")]
    {
        let mut talk = Talk::open_with(&mut ladder, &syn_to(to, port));
        talk.say(&mut ladder, ACK, half);
        assert_eq!(ladder.taken(talk.flow), b"");
        ladder.pass(Duration::from_millis(1001));
        assert_eq!(ladder.taken(talk.flow), half);
    }
    let told = lines(&mut ladder);
    let is_verify = |line: &&String| line.starts_with("no name: ");
    assert_eq!(
        told.iter().filter(is_verify).collect::<Vec<_>>(),
        [
            "no name: 203.0.113.7:22 would be deny http index.example",
            "no name: 203.0.113.7:443 would be deny hello index.example",
            "no name: 203.0.113.7:80 would be deny http index.example",
        ]
    );
}

#[test]
fn remote_is_told_of_where_an_in_rule_is_about_it() {
    let guest = address("10.0.2.100:80");
    for (rules, told) in [
        ("allow 192.0.2.1", [""; 0].as_slice()),
        ("allow in 198.51.100.2:8080", &["flow: 198.51.100.2:8080 is allow rule test:1"]),
        ("allow in 198.51.100.2:8081", &["no flow: 198.51.100.2:8080 is deny port"]),
    ] {
        let mut ladder = under(rules);
        ladder.stack.on_neighbor(guest.ip(), MAC);
        let origin = through("198.51.100.2:700", 8080);
        let _ = ladder.stack.handle_tcp_accepted(origin, guest, ladder.now);
        assert_eq!(lines(&mut ladder), told, "{rules}");
        ladder.stack.handle_inbound_udp(origin, guest, b"text", None, 0, ladder.now);
        assert_eq!(lines(&mut ladder), told, "{rules}");
        ladder.pass(Duration::from_secs(600));
        let ends = lines(&mut ladder);
        let is_open = told.iter().any(|line| line.starts_with("flow"));
        assert_eq!(ends.len(), if is_open { 2 } else { 0 }, "{ends:?}");
        assert!(ends.iter().all(|end| end.starts_with("end: 198.51.100.2:8080 ")), "{ends:?}");
    }
}

#[test]
fn nothing_begins_while_the_log_cannot_be_written_and_what_is_open_goes_on() {
    let mut ladder = under("allow 192.0.2.1\nallow in 198.51.100.2");
    let guest = address("10.0.2.100:80");
    ladder.stack.on_neighbor(guest.ip(), MAC);
    let mut talk = Talk::open_with(&mut ladder, &syn_to("192.0.2.1:22", 40_000));
    send(&mut ladder, "192.0.2.1:9", 5000);
    lines(&mut ladder);
    ladder.stack.set_audit_duty(AuditDuty::Failing);
    talk.say(&mut ladder, ACK, b"goes on");
    assert_eq!(ladder.taken(talk.flow), b"goes on");
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5000), Fate::Host(address("192.0.2.1:9")));
    assert_eq!(connect(&mut ladder, "192.0.2.1:22", 40_001), Fate::Refused(3, 13));
    assert_eq!(send(&mut ladder, "192.0.2.1:9", 5001), Fate::Refused(3, 13));
    let origin = through("198.51.100.2:700", 8080);
    ladder.stack.handle_tcp_accepted(origin, guest, ladder.now).unwrap_err();
    assert_eq!(
        lines(&mut ladder),
        [
            "no flow: 192.0.2.1:22 is deny no-audit",
            "no flow: 192.0.2.1:9 is deny no-audit",
            "no flow: 198.51.100.2:8080 is deny no-audit",
        ]
    );
    ladder.stack.set_audit_duty(AuditDuty::Required);
    assert_eq!(connect(&mut ladder, "192.0.2.1:22", 40_002), Fate::Host(address("192.0.2.1:22")));
}

#[test]
fn no_flow_begins_that_finds_no_place_among_the_events_of_a_turn() {
    for duty in [AuditDuty::Free, AuditDuty::Required] {
        let mut ladder = under("allow 192.0.2.1");
        ladder.stack.set_audit_duty(duty);
        let fates = (0..900).map(|n| send(&mut ladder, "192.0.2.1:9", 5000 + n));
        let passed = fates.filter(|fate| *fate == Fate::Host(address("192.0.2.1:9"))).count();
        let events: Vec<_> = core::iter::from_fn(|| ladder.stack.poll_event()).collect();
        let is_told =
            |report: &&Report| matches!(report.event, Event::Judged { flow: Some(_), .. });
        let told = events.iter().filter(is_told).count();
        assert!(events.iter().all(|report| report.lost == 0));
        assert!(ladder.stack.take_lost_events() > 0, "its number is not forgotten");
        assert_eq!(ladder.stack.take_lost_events(), 0);
        match duty {
            AuditDuty::Free => assert!(passed == 900 && told < 900, "{told} are told"),
            AuditDuty::Required | AuditDuty::Failing => {
                assert!(told == passed && (400..900).contains(&passed), "{told} of {passed}");
            }
        }
        // There is room again.
        assert_eq!(send(&mut ladder, "192.0.2.1:9", 4000), Fate::Host(address("192.0.2.1:9")));
        assert!(core::iter::from_fn(|| ladder.stack.poll_event()).all(|report| report.lost == 0));
    }
}

#[test]
fn nothing_is_looked_up_while_the_log_cannot_be_written() {
    let mut ladder = under("allow index.example:22\nask asked.example:22");
    ladder.stack.set_approvers(1, ladder.now);
    let look_up = |ladder: &mut Ladder, server: &str, name: &str| {
        let frame = datagram(address("10.0.2.100:4999"), server, &query(name));
        let heard = ladder.frame(&frame);
        let asked = ladder.queries.pop().is_some();
        // Behind the headers of IPv4 and UDP.
        (asked, heard.first().map(|heard| heard.packet[28 + 3] & 15))
    };
    ladder.stack.set_audit_duty(AuditDuty::Failing);
    let refused = (false, Some(2));
    // Queries to other servers are answered by our service.
    for server in ["10.0.2.3:53", "192.0.2.53:53"] {
        for name in ["index.example", "asked.example", "denied.example"] {
            assert_eq!(look_up(&mut ladder, server, name), refused, "{server} {name}");
        }
    }
    let told = lines(&mut ladder);
    assert_eq!(told, ["10.0.2.100 asked: no-audit"; 6]);
    let names = ladder.stack.snapshot().names;
    let counted = names.iter().filter(|&(_, count)| count > 0);
    let counted: Vec<_> = counted.map(|(answered, count)| (answered.as_str(), count)).collect();
    assert_eq!(counted, [("no-audit", 6)]);
    ladder.stack.set_audit_duty(AuditDuty::Required);
    assert_eq!(look_up(&mut ladder, "10.0.2.3:53", "index.example"), (true, None));
}

#[test]
fn many_names_under_a_wildcard_are_told_once() {
    let mut ladder = under("allow *.wild.example\nallow index.example");
    ladder.stack.set_detail(Detail::Flows);
    let mut told = Vec::new();
    for number in 0..1200 {
        let name = format!("n{number}.wild.example");
        look_up(&mut ladder, &name, [203, 0, 113, 7], 60);
        look_up(&mut ladder, "index.example", [203, 0, 113, 7], 60);
        told.extend(lines(&mut ladder).into_iter().filter(|line| line.starts_with("test:")));
    }
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.ends_with(" 1000"), "{told}");
}

#[test]
fn nothing_is_made_for_a_listener_that_there_is_not() {
    let mut ladder = under("allow 192.0.2.1");
    ladder.stack.set_detail(Detail::Nothing);
    try_all(&mut ladder, "192.0.2.1:80");
    try_all(&mut ladder, "192.0.2.9:80");
    ladder.stack.set_detail(Detail::Flows);
    ladder.pass(Duration::from_secs(600));
    assert_eq!(lines(&mut ladder), [""; 0], "its flow lines are missing, and so are its ends");
}
