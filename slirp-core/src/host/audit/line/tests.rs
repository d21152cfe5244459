//! Lines as they are documented, and what a guest can put into them.

use std::time::Duration;

use super::*;
use crate::egress::{Cause, Name, Source};
use crate::event::{DnsQueryId, QueryOrigin};
use crate::journal::{Ending, Question, Refusal};
use crate::mac::MacAddr;
use crate::rates::RateDirection;
use crate::traffic::Traffic;

const FLOW: FlowId = FlowId { index: 17, generation: 3 };

/// 2026-11-29T02:35:16.220101Z.
fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_795_919_716_220_101)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn ends(protocol: Protocol, remote: &str) -> Ends {
    Ends::new(protocol, "10.0.2.100:4000".parse().unwrap(), remote.parse().unwrap())
}

fn judgement() -> Judgement {
    Judgement {
        ends: ends(Protocol::Tcp, "203.0.113.7:443"),
        member: None,
        reached: "203.0.113.7:443".parse().unwrap(),
        is_inbound: false,
        action: Action::Deny,
        cause: Cause::Name,
        rule: None,
        is_enforced: true,
        names: vec![name("index.example")],
    }
}

fn answered(name: &str, kind: u16, lookup: Lookup, would: Option<Action>) -> Event {
    let guest = "10.0.2.100:4000".parse().unwrap();
    let server = "10.0.2.3:53".parse().unwrap();
    Event::Answered {
        query: DnsQueryId(7),
        origin: QueryOrigin::Udp { guest, server, guest_mac: MacAddr::default() },
        guest: Some(guest.ip()),
        member: None,
        question: Some(Question { name: name.into(), kind }),
        answer: None,
        lookup: Some(lookup),
        would,
        after: Duration::ZERO,
    }
}

fn line(event: &Event) -> String {
    let line = of_event(at(), 42, event, 1).unwrap();
    let start = r#"{"v":1,"ts":"2026-11-29T02:35:16.220101Z","seq":42,"#;
    line.strip_prefix(start).unwrap_or_else(|| panic!("{line}")).into()
}

#[test]
fn verdict_on_first_bytes_reads_as_documented() {
    let claim = Some(Claim::Sni(name("other.example")));
    let event = Event::Verified { flow: FLOW, claim, judgement: Box::new(judgement()) };
    assert_eq!(
        of_event(at(), 42, &event, 1).unwrap(),
        concat!(
            r#"{"v":1,"ts":"2026-11-29T02:35:16.220101Z","seq":42,"event":"verify","#,
            r#""guest":"10.0.2.100","proto":"tcp","dst":"203.0.113.7","port":443,"#,
            r#""names":["index.example"],"sni":"other.example","verdict":"deny","#,
            r#""cause":"name","flow":"17.3"}"#,
        )
    );
}

#[test]
fn keys_of_each_event_stand_in_their_order() {
    let rule = Some(Source::File { name: "policy.txt".into(), line: 2 });
    let flow = Event::Judged {
        flow: Some(FLOW),
        judgement: Box::new(Judgement {
            ends: ends(Protocol::Udp, "10.0.2.2:53"),
            reached: "127.0.0.1:53".parse().unwrap(),
            member: Some(MemberId(5)),
            action: Action::Allow,
            cause: Cause::Rule,
            rule,
            is_enforced: false,
            names: vec![name("a.test"), name("b.test")],
            ..judgement()
        }),
    };
    assert_eq!(
        line(&flow),
        concat!(
            r#""event":"flow","guest":"10.0.2.100","member":5,"proto":"udp","#,
            r#""dst":"127.0.0.1","port":53,"written":"10.0.2.2","names":["a.test","#,
            r#""b.test"],"would":"allow","cause":"rule","rule":"policy.txt:2","#,
            r#""flow":"17.3"}"#,
        )
    );
    let client = Event::Judged {
        flow: None,
        judgement: Box::new(Judgement {
            ends: ends(Protocol::Tcp, "198.51.100.2:700"),
            reached: "198.51.100.2:8080".parse().unwrap(),
            is_inbound: true,
            cause: Cause::Default,
            names: Vec::new(),
            ..judgement()
        }),
    };
    assert_eq!(
        line(&client),
        concat!(
            r#""event":"flow","guest":"10.0.2.100","proto":"tcp","dst":"198.51.100.2","#,
            r#""port":8080,"inbound":true,"verdict":"deny","cause":"default"}"#,
        )
    );
    let course = Course::new(None, "192.0.2.1:0".parse().unwrap());
    let traffic = Traffic { from_guest: 64, to_guest: 128 };
    let end = Event::Closed {
        flow: FLOW,
        ends: ends(Protocol::Echo, "192.0.2.1:0"),
        ending: Ending::Idle,
        age: Duration::from_micros(1_234_567),
        traffic,
        judged: Some(course),
    };
    assert_eq!(
        line(&end),
        concat!(
            r#""event":"end","guest":"10.0.2.100","proto":"icmp","dst":"192.0.2.1","#,
            r#""flow":"17.3","bytes_out":64,"bytes_in":128,"ms":1234}"#,
        )
    );
    assert_eq!(
        line(&answered("a.test", 28, Lookup::NoSuchName, None)),
        concat!(
            r#""event":"dns","guest":"10.0.2.100","name":"a.test","qtype":"AAAA","#,
            r#""answer":"nxdomain","verdict":"deny"}"#,
        )
    );
    assert_eq!(
        line(&answered("a.test", 4711, Lookup::Bound, Some(Action::Ask))),
        concat!(
            r#""event":"dns","guest":"10.0.2.100","name":"a.test","qtype":"TYPE4711","#,
            r#""answer":"bound","would":"ask"}"#,
        )
    );
    let many = Event::ManyNames {
        member: None,
        rule: Source::Entry { door: "cli", number: 4 },
        pattern: NamePattern::Below(name("wild.test")),
        count: 1000,
    };
    assert_eq!(
        line(&many),
        r#""event":"dns_many","name":"*.wild.test","rule":"cli:4","count":1000}"#
    );
    let limited = |member, direction| line(&Event::RateLimited { member, direction });
    assert_eq!(
        [
            limited(Some(MemberId(3)), RateDirection::ToGuest),
            limited(None, RateDirection::FromGuest)
        ],
        [r#""event":"rate","member":3,"direction":"in"}"#, r#""event":"rate","direction":"out"}"#]
    );
    let policy = EgressPolicy::parse("set mode audit\nallow a.test\n", "p").unwrap();
    let set = Event::PolicySet { member: None, policy: policy.clone(), revision: 2 };
    let digest = sha256(policy.to_text().as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    let about = format!(r#""rules":1,"sha256":"{digest}","default":"deny","mode":"audit""#);
    assert_eq!(line(&set), format!(r#""event":"policy",{about},"revision":2}}"#));
    let first = start(at(), 1, Some(&policy));
    assert!(first.contains(r#""seq":1,"event":"start","version":""#), "{first}");
    assert!(first.ends_with(&format!("{about}}}")), "{first}");
    assert!(stop(at(), 9).ends_with(r#""seq":9,"event":"stop"}"#));
    assert!(lost(at(), 9, 17).ends_with(r#""seq":9,"event":"lost","count":17}"#));
}

#[test]
fn count_stands_for_several_and_other_events_have_no_line() {
    let refused = Event::Judged { flow: None, judgement: Box::new(judgement()) };
    assert!(of_event(at(), 1, &refused, 7).unwrap().ends_with(r#""cause":"name","count":7}"#));
    let by = Refusal::Egress(Cause::Name);
    let ends = ends(Protocol::Tcp, "203.0.113.7:443");
    let traffic = Traffic::default();
    let event = Event::Refused { flow: None, ends, by, traffic, judged: None };
    assert_eq!(of_event(at(), 1, &event, 1), None);
}

#[test]
fn text_of_a_guest_stays_text() {
    let hostile = "a\"b\\c\nd\u{1b}[2Je\u{7f}f\u{9b}g\u{202e}h\u{1f600}";
    let mut line = Line::new(at(), 1, "dns");
    line.text("name", hostile);
    let line = line.end();
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read["name"], hostile);
}

#[test]
fn long_text_is_cut_at_a_character() {
    for len in 250..270 {
        for character in ['x', '"', '\u{1}', '\u{1f600}'] {
            let text: String = "y".repeat(len) + &character.to_string().repeat(20);
            let mut line = Line(String::new());
            line.quoted(&text, TEXT_CAP);
            assert!(line.0.len() <= TEXT_CAP + 2, "{}", line.0.len());
            let read: String = serde_json::from_str(&line.0).unwrap();
            assert!(text.starts_with(read.strip_suffix("...").unwrap()), "{read}");
        }
    }
    let mut line = Line(String::new());
    line.quoted(&"x".repeat(TEXT_CAP), TEXT_CAP);
    assert_eq!(line.0.len(), TEXT_CAP + 2, "what fits is whole");
}

#[test]
fn longest_line_fits() {
    let long = |first: char| {
        let label = "x".repeat(63);
        name(&format!("{first}{}.{label}.{label}.{}", "x".repeat(62), "x".repeat(61)))
    };
    let judgement = Judgement {
        ends: ends(Protocol::Tcp, "[64:ff9b:1:ffff:ffff:ffff:203.0.113.7]:65535"),
        member: Some(MemberId(u64::MAX)),
        reached: "[2001:db8:ffff:ffff:ffff:ffff:203.0.113.7]:65535".parse().unwrap(),
        is_inbound: true,
        rule: Some(Source::File { name: "/".repeat(4096).into(), line: u32::MAX }),
        names: "abcd".chars().map(long).collect(),
        ..judgement()
    };
    let (flow, claim) = (FlowId { index: u32::MAX, generation: u32::MAX }, Claim::Sni(long('e')));
    let event = Event::Verified { flow, claim: Some(claim), judgement: Box::new(judgement) };
    let line = of_event(at(), u64::MAX, &event, u64::MAX).unwrap();
    assert!(line.len() < LINE_CAP, "{}", line.len());
    let queried = answered(&r"\255".repeat(255), u16::MAX, Lookup::NoSuchName, None);
    let line = of_event(at(), u64::MAX, &queried, u64::MAX).unwrap();
    assert!(line.len() < LINE_CAP && !line.contains("..."), "{}", line.len());
}

#[test]
fn time_is_that_of_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399, "2000-02-28T23:59:59.000000Z"),
        (951_782_400, "2000-02-29T00:00:00.000000Z"),
        (951_868_800, "2000-03-01T00:00:00.000000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
    ] {
        assert_eq!(Rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
    }
    assert_eq!(
        Rfc3339(UNIX_EPOCH - Duration::from_secs(1)).to_string(),
        "1970-01-01T00:00:00.000000Z"
    );
}
