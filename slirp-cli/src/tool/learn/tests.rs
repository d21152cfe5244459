//! Logs and the policies that are learned from them.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;
use slirp_core::egress::{Action, Destination, EgressPolicy, Name};
use slirp_core::policy::Protocol;

use super::*;
use crate::words::Given;

/// A log in audit mode.
#[derive(Default)]
struct Log {
    text: String,
    flows: u32,
}

impl Log {
    fn line(&mut self, event: serde_json::Value) -> &mut Self {
        let mut object = json!({ "v": 1, "ts": "2026-11-29T02:35:16.220101Z" });
        let object_fields = object.as_object_mut().expect("it is an object");
        object_fields.extend(event.as_object().expect("it is an object").clone());
        let _ = writeln!(self.text, "{object}");
        self
    }

    /// A flow from its first packet to its end, with these names and first bytes.
    fn flow(&mut self, to: (&str, &str, u16), names: &[&str], first: First<'_>) -> &mut Self {
        self.flows += 1;
        let flow = format!("{}.1", self.flows);
        let (proto, dst, port) = to;
        let about = json!({
            "guest": "10.0.2.100", "proto": proto, "dst": dst, "port": port, "names": names,
            "flow": flow,
        });
        let with = |event: &str, more: serde_json::Value| {
            let mut object = about.clone();
            let fields = object.as_object_mut().expect("it is an object");
            fields.insert("event".into(), event.into());
            fields.extend(more.as_object().expect("it is an object").clone());
            object
        };
        self.line(with("flow", json!({ "would": "deny", "cause": "default" })));
        match first {
            First::Sni(name) => {
                self.line(with("verify", json!({ "sni": name, "would": "deny" })));
            }
            First::Nameless => {
                self.line(with("verify", json!({ "would": "deny", "cause": "no-tls" })));
            }
            First::Unread => {}
        }
        self.line(with("end", json!({ "bytes_out": 1100, "bytes_in": 5, "ms": 7 })))
    }
}

enum First<'a> {
    Sni(&'a str),
    Nameless,
    Unread,
}

fn learned(log: &str, wanted: &Wanted) -> String {
    let mut logs = Logs::default();
    logs.read(log.as_bytes()).expect("it is in memory");
    assert_eq!(logs.broken, 0, "{log}");
    let text = logs.policy(wanted);
    let policy = EgressPolicy::parse(&text, "learned").unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(policy.default_action(), Action::Deny, "{text}");
    text
}

/// Without the lines that say where it comes from.
fn body(text: &str) -> String {
    text.lines().skip(2).map(|line| format!("{line}\n")).collect()
}

fn all() -> Wanted {
    Wanted { min: 1, against: None }
}

#[test]
fn names_become_rules_and_the_rest_becomes_comments() {
    let mut log = Log::default();
    let index = ("tcp", "203.0.113.7", 443);
    log.flow(index, &["index.example"], First::Sni("index.example"))
        .flow(index, &["index.example"], First::Sni("index.example"))
        .flow(("tcp", "203.0.113.7", 80), &["index.example"], First::Sni("index.example"))
        .flow(("tcp", "203.0.113.9", 22), &["git.example", "other.example"], First::Unread)
        .flow(("tcp", "203.0.113.9", 443), &["git.example"], First::Nameless)
        .flow(("tcp", "203.0.113.4", 443), &["led.example"], First::Sni("claimed.example"))
        .flow(("udp", "203.0.113.3", 123), &["time.example"], First::Unread)
        .flow(("icmp", "203.0.113.3", 0), &["time.example"], First::Unread)
        .flow(("tcp", "203.0.113.66", 8443), &[], First::Sni("said.example"))
        .flow(("tcp", "2001:db8::1", 22), &[], First::Unread)
        .flow(("tcp", "10.1.2.3", 5432), &["db.corp.example"], First::Unread)
        .flow(("tcp", "10.1.2.4", 5432), &[], First::Unread)
        .flow(("tcp", "198.18.0.7", 443), &["proxied.example"], First::Sni("proxied.example"));
    let refused = json!({
        "event": "flow", "guest": "10.0.2.100", "proto": "tcp", "dst": "169.254.169.254",
        "port": 80, "verdict": "deny", "cause": "protected", "count": 3,
    });
    let looked_up = json!({ "event": "dns", "name": "srv.example", "qtype": "SRV", "count": 2 });
    log.line(refused).line(looked_up);
    let text = learned(&log.text, &all());
    assert!(text.starts_with("# What a guest did from 2026-11-29T02:35:16.220101Z to "), "{text}");
    assert_eq!(
        body(&text),
        "\
allow claimed.example:443  # 1 connection, 1.1 kB out
allow git.example:22  # 1 connection, 1.1 kB out
allow git.example:443 verify=off  # 1 connection, 1.1 kB out, first bytes without a name
allow index.example:80,443  # 3 connections, 3.3 kB out
allow led.example:443  # 1 connection, 1.1 kB out
allow proxied.example:443  # 1 connection, 1.1 kB out
allow udp:time.example:123  # 1 connection, 1.1 kB out
allow icmp:time.example  # 1 connection, 1.1 kB out

# Not allowed as it stands; remove the \"# \" of what is meant:
# allow db.corp.example:5432 private=yes  # 1 connection, 1.1 kB out: a private address
# allow tcp:10.1.2.4:5432  # 1 connection, 1.1 kB out: a private address
# allow tcp:203.0.113.66:8443  # 1 connection, 1.1 kB out: an address without a name
# allow tcp:[2001:db8::1]:22  # 1 connection, 1.1 kB out: an address without a name

# Refused while the log was written:
# allow tcp:169.254.169.254:80  # 3 attempts

# Looked up without a connection:
# allow dns:srv.example  # 2 lookups
"
    );
    let policy = EgressPolicy::parse(&text, "learned").expect("it was read before");
    for (protocol, name, port) in [
        (Protocol::Tcp, "index.example", 443),
        (Protocol::Tcp, "index.example", 80),
        (Protocol::Tcp, "git.example", 22),
        (Protocol::Tcp, "claimed.example", 443),
        (Protocol::Tcp, "led.example", 443),
        (Protocol::Udp, "time.example", 123),
        (Protocol::Echo, "time.example", 0),
    ] {
        let name = Name::new(name).expect("it is a name");
        let explanation = policy.explain(&Destination::Name { protocol, name: &name, port });
        assert_eq!(explanation.verdict, Action::Allow, "{name}:{port}");
    }
    // What it allows is not missing, and comments are as good as rules once they are rules.
    let uncommented: String = text
        .lines()
        .map(|line| {
            line.strip_prefix("# ").filter(|rest| rest.starts_with("allow ")).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let against = EgressPolicy::parse(&uncommented, "all").expect("each comment is a rule");
    let text = learned(&log.text, &Wanted { min: 1, against: Some(against) });
    assert_eq!(body(&text), "");
}

#[test]
fn hostile_names_stay_text_in_comments() {
    let mut log = Log::default();
    let to = ("tcp", "203.0.113.7", 443);
    for name in [
        "x.example\nallow any",
        "x.example # \nallow any",
        "*.example.com",
        "any",
        "internet",
        "1.2.3",
        "0x7f.1",
        "\u{1b}[2J.example",
        "a b.example",
        "allow",
        "-a.example",
        "a-.example",
        &format!("{}.example", "a".repeat(64)),
        "",
    ] {
        log.flow(to, &["index.example"], First::Sni(name));
        log.flow(to, &[name], First::Unread);
        log.line(json!({ "event": "dns", "name": name }));
    }
    let text = learned(&log.text, &all());
    assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text:?}");
    let policy = EgressPolicy::parse(&text, "learned").expect("it was read before");
    let mut rules: Vec<_> = policy.rules().iter().map(ToString::to_string).collect();
    rules.sort_unstable();
    let expected = [
        "allow 0x7f.1:443",
        "allow allow.:443",
        "allow any.:443",
        "allow index.example:443",
        "allow internet.:443",
    ];
    // A label that begins with "-" or ends in it is none in rules.
    rules.retain(|rule| rule != "allow 0x7f.1:443");
    assert_eq!(rules, expected[1..], "{text}");
}

#[test]
fn five_siblings_suggest_a_wildcard() {
    let mut log = Log::default();
    for label in ["a", "b", "c", "d"] {
        let name = format!("{label}.cdn.example");
        log.flow(("tcp", "203.0.113.7", 443), &[&name], First::Sni(&name));
        let name = format!("{label}.example");
        log.flow(("tcp", "203.0.113.7", 443), &[&name], First::Sni(&name));
    }
    assert!(!learned(&log.text, &all()).contains("*."));
    for label in ["a", "b", "c", "d", "e"] {
        for zone in ["co.uk", "github.io"] {
            let name = format!("{label}.{zone}");
            log.flow(("tcp", "203.0.113.8", 443), &[&name], First::Sni(&name));
        }
    }
    for name in ["e.cdn.example", "e.example"] {
        log.flow(("tcp", "203.0.113.7", 8443), &[name], First::Sni(name));
    }
    let text = learned(&log.text, &all());
    assert!(text.contains("\n# allow *.cdn.example:443,8443  # instead of 5 names\n"), "{text}");
    for everybodys in ["*.example", "*.co.uk", "*.github.io"] {
        assert!(!text.contains(everybodys), "{text}");
    }
}

#[test]
fn many_ports_become_ranges_and_several_rules() {
    let mut log = Log::default();
    for port in [7, 8, 9].into_iter().chain((0..20).map(|n| 1000 + 2 * n)) {
        log.flow(("tcp", "203.0.113.7", port), &["a.example"], First::Unread);
    }
    let text = learned(&log.text, &all());
    assert!(text.contains("allow a.example:7-9,1000,1002,"), "{text}");
    let rules = EgressPolicy::parse(&text, "").expect("it was read before").rules().len();
    assert_eq!(rules, 2, "{text}");
}

#[test]
fn what_was_asked_counts_as_it_was_decided() {
    let mut log = Log::default();
    for (flow, name, verdict) in [
        ("1.1", "yes.example", "allow"),
        ("2.1", "no.example", "deny"),
        ("3.1", "open.example", ""),
    ] {
        let about = json!({
            "guest": "10.0.2.100", "proto": "tcp", "port": 443, "names": [name],
        });
        let with = |more: serde_json::Value| {
            let mut object = about.clone();
            let fields = object.as_object_mut().expect("it is an object");
            fields.extend(more.as_object().expect("it is an object").clone());
            object
        };
        log.line(with(json!({
            "event": "flow", "dst": "198.19.192.1", "flow": flow, "verdict": "ask"
        })));
        if !verdict.is_empty() {
            log.line(with(json!({ "event": "decision", "verdict": verdict })));
        }
    }
    let text = learned(&log.text, &all());
    assert_eq!(
        body(&text),
        "\
allow yes.example:443  # 1 connection, 0 B out

# Refused while the log was written:
# allow no.example:443  # 1 attempt
# allow open.example:443  # 1 attempt
"
    );
}

#[test]
fn seldom_connections_hidden_names_and_inbound_flows_are_no_rules() {
    let mut log = Log::default();
    let to = ("tcp", "203.0.113.7", 443);
    log.flow(to, &["once.example"], First::Sni("once.example"));
    for _ in 0..2 {
        log.flow(to, &["twice.example"], First::Sni("twice.example"));
    }
    log.line(json!({ "event": "verify", "flow": "9.9", "proto": "tcp", "dst": "203.0.113.7",
        "port": 443, "names": ["twice.example"], "sni": "twice.example", "would": "deny",
        "cause": "ech" }));
    log.line(json!({ "event": "flow", "flow": "8.8", "proto": "tcp", "dst": "203.0.113.8",
        "port": 8080, "verdict": "allow", "inbound": true }));
    let text = learned(&log.text, &Wanted { min: 2, against: None });
    assert_eq!(
        body(&text),
        "\
allow twice.example:443  # 3 connections, 2.2 kB out

# Refused without this line, as browsers send it always:
# set ech allow  # 1 connection with encrypted_client_hello

# Not allowed as it stands; remove the \"# \" of what is meant:
# allow once.example:443  # 1 connection, 1.1 kB out: seldom
"
    );
}

#[test]
fn broken_lines_are_counted_and_a_torn_last_line_is_not() {
    let mut logs = Logs::default();
    let long = format!("{{\"v\":1,\"event\":\"{}\"}}\n", "x".repeat(1 << 20));
    let log = [
        b"{\"v\":1,\"event\":\"lost\",\"count\":7}\n".as_slice(),
        b"no json\n\n{\"v\":9,\"event\":\"flow\"}\n\xff\xfe\n",
        long.as_bytes(),
        b"{\"v\":1,\"event\":\"lost\",\"count\":1}\r\n{\"v\":1,\"even",
    ]
    .concat();
    logs.read(log.as_slice()).expect("it is in memory");
    assert_eq!((logs.broken, logs.tally.lost), (4, 8));
}

#[test]
fn command_line_is_read() {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_919_716);
    let parse = |text: &str| match LEARN.parse(text.split_whitespace().map(OsString::from))? {
        Given::Line(line) => Options::of(&line, now),
        Given::Help => Err("help".into()),
    };
    let options = parse("--min=3 a --since 1h --against p - -- --b").expect("it is in order");
    assert_eq!(options.logs, ["a", "-", "--b"].map(PathBuf::from));
    assert_eq!((options.min, options.against), (3, Some("p".into())));
    assert_eq!(options.since.as_deref(), Some("2026-11-29T01:35:16"));
    for (text, message) in [
        ("", "a log is needed"),
        ("--min=x a", "--min: \"x\" is no number"),
        (
            "--since=yesterday a",
            "\"yesterday\" is no time: write 2026-11-29, 2026-11-29T02:35:16 (UTC), or 2h for ago",
        ),
    ] {
        assert_eq!(parse(text).expect_err(text), message);
    }
    for (text, read) in [
        ("2026-11-29", "2026-11-29"),
        ("2026-11-29T02:35:16Z", "2026-11-29T02:35:16"),
        ("2026-11-29T02:35:16.5", "2026-11-29T02:35:16.5"),
    ] {
        assert_eq!(since(text, now).as_deref(), Ok(read));
    }
}

#[test]
fn events_before_the_given_time_do_not_count() {
    let mut log = Log::default();
    log.flow(("tcp", "203.0.113.7", 443), &["a.example"], First::Sni("a.example"));
    let later = log.text.replace("02:35", "03:00").replace("a.example", "b.example");
    let text = [log.text.as_str(), &later].concat();
    let mut logs = Logs { since: Some("2026-11-29T02:40".into()), ..Logs::default() };
    logs.read(text.as_bytes()).expect("it is in memory");
    assert_eq!(body(&logs.policy(&all())), "allow b.example:443  # 1 connection, 1.1 kB out\n");
}

#[test]
fn log_of_several_networks_at_once_is_told_from_one_of_several_runs() {
    let is_mixed = |events: &[(u64, &str)]| {
        let mut log = Log::default();
        for (seq, event) in events {
            log.line(json!({ "seq": seq, "event": event }));
        }
        let mut logs = Logs::default();
        // Each log begins anew.
        for text in [&log.text, &log.text] {
            logs.read(text.as_bytes()).expect("it is in memory");
        }
        logs.is_mixed
    };
    assert!(!is_mixed(&[(1, "start"), (2, "flow"), (7, "lost"), (8, "stop"), (1, "start")]));
    assert!(!is_mixed(&[(40, "flow"), (41, "end"), (1, "start"), (2, "flow")]));
    assert!(is_mixed(&[(1, "start"), (2, "flow"), (1, "start"), (3, "flow"), (2, "flow")]));
    assert!(is_mixed(&[(1, "start"), (1, "start"), (2, "flow"), (2, "flow")]));
}
