//! What the screen shows after answers, events and keys.

use std::time::{Duration, Instant};

use crossterm::event::KeyCode;
use ratatui::backend::TestBackend;
use serde_json::Value;

use super::feed::Bytes;
use super::view::Purpose;
use super::*;
use crate::tool::client::tests::server;
use crate::tool::question::KEYS_AFTER;
use crate::tool::question::tests::row;

/// A network that is looked at.
struct Desk {
    feed: Feed,
    view: View,
    now: Instant,
}

fn flow(id: &str, name: &str, out: u64, back: u64) -> Value {
    json!({ "flow": id, "guest": "10.0.2.100:4000", "proto": "tcp", "remote": "203.0.113.7:443",
        "dst": "203.0.113.7", "port": 443, "names": [name], "verdict": "allow", "cause": "rule",
        "rule": "policy.txt:2", "state": "open", "age_ms": 5000, "idle_ms": 0,
        "bytes_out": out, "bytes_in": back })
}

fn end(id: &str, name: &str, out: u64, back: u64) -> Value {
    json!({ "v": 1, "event": "end", "flow": id, "proto": "tcp", "dst": "203.0.113.7", "port": 443,
        "names": [name], "bytes_out": out, "bytes_in": back })
}

fn denial(name: &str) -> Value {
    json!({ "v": 1, "event": "flow", "guest": "10.0.2.100", "proto": "tcp", "dst": "203.0.113.9",
        "port": 22, "names": [name], "verdict": "deny", "cause": "port" })
}

impl Desk {
    fn new(may_decide: bool) -> Self {
        let mut desk =
            Self { feed: Feed::default(), view: View::new(may_decide), now: Instant::now() };
        desk.feed.on_info(&json!({
            "version": "0.2", "uptime_ms": 192_000, "flows": 42, "denied": 17,
            "policy": { "revision": 7, "rules": 24, "default": "deny", "mode": "enforce" },
            "members": [{ "member": 3, "addresses": ["10.0.2.100"] }],
        }));
        desk
    }

    /// A second passes, and these are the flows then.
    fn refresh(&mut self, flows: &[Value]) {
        self.now += Duration::from_secs(1);
        let names = [json!({ "name": "git.example", "addresses": ["203.0.113.9"],
            "verdict": "allow", "rule": "policy.txt:3", "flows": 0, "expires_s": 280 })];
        self.feed.on_traffic(&names, flows, self.now);
    }

    /// A person looks at the screen.
    fn look(&mut self) {
        self.view.on_drawn(&self.feed, self.now);
        self.now += KEYS_AFTER;
    }

    fn press(&mut self, keys: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for key in keys.chars() {
            let key = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                'v' if keys == "v" => KeyCode::Down,
                key => KeyCode::Char(key),
            };
            effects.extend(self.view.on_key(key, &self.feed, self.now));
        }
        effects
    }

    fn screen_of(&self, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("it is in memory");
        let draw = |frame: &mut ratatui::Frame<'_>| {
            draw::draw(frame, &self.view, &self.feed, self.now, true);
        };
        terminal.draw(draw).expect("it is in memory");
        let buffer = terminal.backend().buffer();
        let line = |y| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn screen(&self) -> Vec<String> {
        self.screen_of(80, 24)
    }

    /// The rows of the table.
    fn rows(&self) -> Vec<String> {
        let screen = self.screen();
        screen[3..23].iter().filter(|line| !line.is_empty()).cloned().collect()
    }

    /// Bytes of a destination.
    fn bytes(&self, name: &str) -> (u64, u64) {
        let Bytes { out, back } = self.feed.places[name].bytes;
        (out, back)
    }
}

#[test]
fn screen_of_80_by_24_has_everything() {
    let mut desk = Desk::new(true);
    desk.refresh(&[flow("1.1", "files.example", 1000, 10_000_000)]);
    desk.refresh(&[flow("1.1", "files.example", 13_100, 24_700_000)]);
    desk.feed.on_event(&denial("other.example"), desk.now);
    desk.feed.on_questions(&json!({ "questions": [row(7, "api.example")] }), desk.now);
    desk.now += Duration::from_secs(4);
    let screen = desk.screen();
    assert_eq!(
        screen[0],
        " slirp 0.2  up 3:12  r7 deny  out 12.1k/s  in 14.7M/s  flows 42  denied 17 (4s)"
    );
    assert_eq!(
        screen[1],
        " >1]names  [2]flows  [3]denied  [4]dns  [5]rules  [6]questions(1)  [7]members"
    );
    let rows = &screen[2..6];
    for (row, start, end) in [
        (&rows[0], " NAME ", "VERDICT  OUT/s   IN/s    OUT    *IN  IDLE"),
        (&rows[1], " files.example ", " 443           1 allow    12.1k  14.7M  13.1k  24.7M    4s"),
        (&rows[2], " git.example ", "  0 allow        0      0      0      0     -"),
        (&rows[3], " other.example ", " 22            0 deny         -      -      -      -    4s"),
    ] {
        assert!(row.starts_with(start) && row.ends_with(end), "{row}");
    }
    assert_eq!(
        screen[22],
        " QUESTION  api.example:443/tcp  held 0:11 of 1:00, 3 connections  6 to answer"
    );
    assert_eq!(
        screen[23],
        " s sort  / filter  Enter  x cut  + -  w write  space freeze  ? help  q quit"
    );
    let wide = desk.screen_of(140, 24);
    assert!(wide[0].contains("  policy r7 deny (24 rules)  "), "{}", wide[0]);
    assert!(wide[0].ends_with("flows 42  denied 17 (last 4s ago)"), "{}", wide[0]);
    assert!(wide[3].contains(" allow   policy.txt:2 "), "{}", wide[3]);
    assert!(wide[23].ends_with("? help  q quit"), "{}", wide[23]);
}

#[test]
fn no_size_of_the_screen_is_too_small() {
    let mut desk = Desk::new(true);
    desk.refresh(&[flow("1.1", "files.example", 1, 1)]);
    desk.feed.on_questions(&json!({ "questions": [row(7, "api.example")] }), desk.now);
    for keys in ["", "?", "?/abc", "\u{1b}\n", "x2x"] {
        desk.press(keys);
        for (width, height) in [(1, 1), (3, 2), (20, 5), (79, 6), (300, 100)] {
            desk.screen_of(width, height);
        }
    }
}

#[test]
fn totals_stay_after_flows_have_ended() {
    let mut desk = Desk::new(false);
    let name = "files.example";
    desk.refresh(&[flow("1.1", name, 100, 1000), flow("2.1", name, 10, 10)]);
    // One ends with its event, and its row is read once more although it is over.
    desk.feed.on_event(&end("1.1", name, 150, 1500), desk.now);
    desk.refresh(&[flow("1.1", name, 140, 1400), flow("2.1", name, 20, 20)]);
    assert_eq!(desk.bytes(name), (170, 1520));
    // One disappears, and its event comes later.
    desk.refresh(&[]);
    assert_eq!(desk.bytes(name), (170, 1520));
    desk.feed.on_event(&end("2.1", name, 25, 30), desk.now);
    desk.refresh(&[]);
    assert_eq!(desk.bytes(name), (175, 1530));
    // One is so short that no row ever has it.
    desk.feed.on_event(&end("3.1", name, 5, 5), desk.now);
    desk.refresh(&[]);
    assert_eq!(desk.bytes(name), (180, 1535));
    let place = &desk.feed.places[name];
    assert_eq!((place.flows, place.rate), (0, Bytes { out: 5, back: 5 }));
    // An event without names counts for what the flow's first event has named.
    let begin = json!({ "v": 1, "event": "flow", "flow": "4.1", "proto": "tcp", "port": 443,
        "dst": "203.0.113.7", "names": [name], "verdict": "allow" });
    desk.feed.on_event(&begin, desk.now);
    let mut nameless = end("4.1", name, 1, 1);
    nameless["names"] = json!([]);
    desk.feed.on_event(&nameless, desk.now);
    desk.refresh(&[]);
    assert_eq!(desk.bytes(name), (181, 1536));
}

#[test]
fn rates_are_of_the_last_second() {
    let mut desk = Desk::new(false);
    desk.refresh(&[flow("1.1", "a.example", 0, 5000)]);
    assert_eq!(desk.feed.rate, Bytes::default(), "nothing to compare with");
    desk.refresh(&[flow("1.1", "a.example", 10, 7000), flow("2.1", "b.example", 1, 100)]);
    assert_eq!(desk.feed.rate, Bytes { out: 11, back: 2100 });
    assert_eq!(desk.feed.flows[0].rate, Bytes { out: 10, back: 2000 });
    desk.refresh(&[flow("1.1", "a.example", 10, 7000)]);
    assert_eq!(desk.feed.rate, Bytes::default());
}

#[test]
fn letters_sort_and_the_selection_stays_on_its_row() {
    let mut desk = Desk::new(false);
    desk.refresh(&[
        flow("1.1", "a.example", 1, 300),
        flow("2.1", "b.example", 3, 200),
        flow("3.1", "c.example", 2, 100),
    ]);
    let order = |desk: &Desk| -> String {
        desk.rows().iter().filter_map(|row| row.trim_start().chars().next()).collect()
    };
    assert_eq!(order(&desk), "abcg", "by bytes to the guest");
    desk.press("o");
    assert_eq!(order(&desk), "bcag");
    desk.press("o");
    assert_eq!(order(&desk), "gacb");
    desk.press("n");
    assert_eq!(order(&desk), "abcg");
    desk.press("v");
    desk.press("S");
    assert_eq!(order(&desk), "gcba");
    desk.press("\n");
    let screen = desk.screen().join("\n");
    assert!(screen.contains("name       b.example"), "{screen}");
    desk.press("q");
    assert!(desk.view.dialog.is_none(), "a key closes what is read, and does nothing else");
}

#[test]
fn filter_shows_rows_that_contain_a_text() {
    let mut desk = Desk::new(false);
    desk.refresh(&[flow("1.1", "a.example", 1, 1), flow("2.1", "b.example", 1, 1)]);
    assert_eq!(desk.press("/B.Ex\n"), []);
    assert_eq!(desk.rows().len(), 1);
    assert!(desk.screen()[23].contains("/B.Ex (1 row)"));
    desk.press("\u{1b}");
    assert_eq!(desk.rows().len(), 3);
    // Letters that are commands elsewhere are text here.
    assert_eq!(desk.press("/q"), []);
    assert_eq!(
        desk.view.dialog,
        Some(Dialog::Input { purpose: Purpose::Filter, text: "q".into() })
    );
}

#[test]
fn frozen_screen_stands_still_while_totals_go_on() {
    let mut desk = Desk::new(false);
    desk.refresh(&[flow("1.1", "a.example", 1, 100)]);
    desk.press(" ");
    let before = desk.rows();
    desk.refresh(&[flow("1.1", "a.example", 1, 999), flow("2.1", "b.example", 1, 1)]);
    desk.now += Duration::from_secs(60);
    assert_eq!(desk.rows(), before);
    assert!(desk.screen()[0].contains("  FROZEN  "));
    desk.press(" ");
    let after = desk.rows();
    assert_eq!(after.len(), before.len() + 1);
    assert!(after[0].contains("999"), "{after:?}");
}

#[test]
fn changes_need_the_right_to_decide() {
    let mut desk = Desk::new(false);
    desk.refresh(&[flow("1.1", "a.example", 1, 1)]);
    desk.feed.on_questions(&json!({ "questions": [row(7, "api.example")] }), desk.now);
    for keys in ["+\n", "-\n", "2xy", "6a", "s", "D"] {
        assert_eq!(desk.press(keys), [], "{keys}");
        desk.press("\u{1b}1");
    }
    let screen = desk.screen().join("\n");
    for word in ["cut", "+ -", "6 to answer"] {
        assert!(!screen.contains(word), "{screen}");
    }
}

#[test]
fn rules_flows_and_questions_are_decided() {
    let mut desk = Desk::new(true);
    desk.refresh(&[flow("1.1", "a.example", 1, 1)]);
    let change = |effects: Vec<Effect>| match effects.as_slice() {
        [Effect::Change { request, arguments, .. }] => (*request, arguments.clone()),
        effects => panic!("{effects:?}"),
    };
    let rule = |text: &str| ("policy_add", json!({ "rule": text }));
    assert_eq!(change(desk.press("+\n")), rule("allow a.example:443"));
    assert_eq!(change(desk.press("-0\n")), rule("deny a.example:4430"));
    assert_eq!(desk.press("+\u{1b}"), []);
    assert_eq!(desk.press("x"), [], "a name is no flow");
    assert_eq!(desk.press("2xn"), []);
    assert_eq!(change(desk.press("xy")), ("cut", json!({ "flow": "1.1" })));
    let questions = json!({ "questions": [row(7, "api.example"), row(8, "b.corp.example")] });
    desk.feed.on_questions(&questions, desk.now);
    // Elsewhere the keys mean other things.
    assert_eq!(desk.press("1ad"), []);
    assert_eq!(desk.press("6\n\n "), [], "no key is a default");
    desk.press(" ");
    desk.look();
    let decided = json!({ "question": 7, "verdict": "deny", "scope": "session" });
    assert_eq!(change(desk.press("D")), ("decide", decided));
    desk.view.on_key(KeyCode::Down, &desk.feed, desk.now);
    desk.look();
    let decided =
        json!({ "question": 8, "verdict": "allow", "scope": "session", "names": "parent" });
    assert_eq!(change(desk.press("p")), ("decide", decided));
    let explained = json!({ "target": "tcp:b.corp.example:443" });
    assert_eq!(desk.press("e"), [Effect::Explain(explained)]);
    assert_eq!(desk.press("1w/tmp/rules\n"), [Effect::WriteRules("/tmp/rules".into())]);
    assert_eq!(desk.press("q"), [Effect::Quit]);
}

#[test]
fn question_that_is_over_is_not_answered_in_the_name_of_another() {
    let mut desk = Desk::new(true);
    let questions = json!({ "questions": [row(7, "a.example"), row(8, "b.example")] });
    desk.feed.on_questions(&questions, desk.now);
    desk.press("6 ");
    desk.look();
    desk.feed.on_questions(&json!({ "questions": [row(8, "b.example")] }), desk.now);
    desk.look();
    assert_eq!(desk.press("a"), [], "the frozen screen still shows the first");
    // Where the screen goes on, another one has taken its place and has to be looked at first.
    desk.press(" ");
    let sorted = desk.view.sort();
    assert_eq!(desk.press("asD"), []);
    assert_eq!(desk.view.sort(), sorted, "the keys have no other meaning meanwhile");
    desk.look();
    let effects = desk.press("a");
    let [Effect::Change { arguments, .. }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(arguments["question"], 8);
}

#[test]
fn names_of_all_members_are_there_and_rules_of_others_are_told() {
    let mut desk = Desk::new(false);
    let name = |member: u64, name: &str, address: &str, verdict: &str| {
        json!({ "name": name, "member": member, "addresses": [address], "verdict": verdict,
            "rule": "policy.txt:3", "flows": 0 })
    };
    let names = [
        name(1, "a.example", "203.0.113.1", "allow"),
        name(2, "a.example", "203.0.113.2", "allow"),
        name(1, "b.example", "203.0.113.3", "allow"),
        name(2, "b.example", "203.0.113.3", "deny"),
    ];
    for _ in 0..2 {
        desk.feed.on_traffic(&names, &[], desk.now);
    }
    let place = |name: &str| desk.feed.places[name].clone();
    assert_eq!(place("a.example").addresses, ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(place("a.example").verdict.as_deref(), Some("allow"));
    assert_eq!(place("b.example").addresses, ["203.0.113.3"]);
    assert_eq!(place("b.example").verdict.as_deref(), Some("mixed"));
    desk.feed.on_rules(&[json!({ "id": "policy.txt:2", "text": "allow a.example" })]);
    desk.feed.on_policy(&json!({ "exceptions": [2] }));
    desk.press("5");
    assert!(desk.rows().iter().any(|row| row.contains("(member 2 has other rules)")));
}

#[test]
fn panes_show_what_they_are_about() {
    let mut desk = Desk::new(true);
    desk.refresh(&[flow("1.1", "a.example", 1, 1)]);
    desk.feed.on_event(&denial("d.example"), desk.now);
    desk.feed.on_event(&denial("d.example"), desk.now);
    let lookup = json!({ "v": 1, "event": "dns", "guest": "10.0.2.100", "name": "x.example",
        "qtype": "TXT", "answer": "nxdomain", "count": 5 });
    desk.feed.on_event(&lookup, desk.now);
    desk.feed.on_rules(&[json!({ "id": "policy.txt:2", "text": "allow a.example" })]);
    for (key, words) in [
        ("2", ["10.0.2.100:4000", "a.example:443"]),
        ("3", ["d.example", "port"]),
        ("4", ["x.example", "nxdomain"]),
        ("5", ["allow a.example", "policy.txt:2"]),
        ("7", ["3", "10.0.2.100"]),
    ] {
        desk.press(key);
        let rows = desk.rows();
        assert!(words.iter().all(|word| rows[0].contains(word)), "{key}: {rows:?}");
    }
    desk.press("3");
    assert!(desk.rows()[0].contains(" 2 "), "both are counted");
    desk.press("?");
    let help = desk.screen().join("\n");
    for word in ["c COUNT", "x           cut", "quit"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn hostile_names_leave_the_screen_sane_and_memory_bounded() {
    let mut desk = Desk::new(false);
    let hostile = "\u{1b}[2J\r\n\u{202e}x.example";
    desk.refresh(&[flow("1.1\u{1b}", hostile, 1, 1)]);
    for number in 0..6000 {
        desk.feed.on_event(&denial(&format!("{hostile}{number}")), desk.now);
        let lookup = json!({ "event": "dns", "name": format!("{number}.{hostile}") });
        desk.feed.on_event(&lookup, desk.now);
        desk.feed.on_event(&end(&number.to_string(), &format!("{number}"), 1, 1), desk.now);
    }
    assert!(desk.feed.denied.len() <= 4096 && desk.feed.lookups.len() <= 4096);
    assert!(desk.feed.places.len() <= 4096);
    for key in ["1", "2", "3", "4"] {
        desk.press(key);
        let screen = desk.screen_of(200, 50).concat();
        assert!(screen.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{screen:?}");
    }
}

#[test]
fn picture_for_scripts_has_all_pages() {
    let (socket, network) = server(&["read"], |word, arguments| {
        let answer = match (word, arguments["from"].as_u64()) {
            ("info", _) => json!({ "version": "0.2.0", "flows": 2 }),
            ("flows", None) => json!({ "flows": [flow("1.1", "a.example", 1, 2)], "next": 9 }),
            ("flows", Some(9)) => json!({ "flows": [flow("9.1", "\u{1b}", 3, 4)], "next": null }),
            ("names", _) => json!({ "names": [], "next": null }),
            _ => return vec![json!({ "error": { "desc": "no policy is in force" } })],
        };
        vec![json!({ "return": answer })]
    });
    let mut client = Client::over(socket, "test").expect("it greets");
    let picture = once::picture(&mut client, true).expect("it answers");
    let object: Value = serde_json::from_str(&picture).expect("it is JSON");
    assert_eq!(object["flows"][1]["flow"], "9.1");
    assert_eq!(object["info"]["flows"], 2);
    assert_eq!((&object["rules"], &object["questions"]), (&json!([]), &json!([])));
    let text = once::picture(&mut client, false).expect("it answers");
    assert_eq!(
        text,
        "NAME REMOTE PROTO VERDICT RULE OUT IN\n\
         a.example 203.0.113.7:443 tcp allow policy.txt:2 1 2\n\
         \\u{1b} 203.0.113.7:443 tcp allow policy.txt:2 3 4\n"
    );
    drop(client);
    network.join().expect("the network ends with its client");
}

#[test]
fn rounds_read_every_page_and_rules_once_a_revision() {
    let (socket, network) = server(&["read"], |word, arguments| {
        let answer = match (word, arguments["from"].as_u64()) {
            ("info", _) => json!({ "policy": { "revision": 7 } }),
            ("flows", None) => json!({ "flows": [flow("1.1", "a.example", 1, 2)], "next": 9 }),
            ("flows", Some(9)) => json!({ "flows": [flow("9.1", "b.example", 3, 4)] }),
            ("policy_get", _) => {
                json!({ "rules": [{ "id": "cli:1", "text": "allow a.example" }], "text": "t\n" })
            }
            ("questions" | "names", _) => json!({}),
            _ => return vec![json!({ "error": { "desc": "already decided" } })],
        };
        vec![json!({ "return": answer })]
    });
    let client = Client::over(socket, "test").expect("it greets");
    let (mut requests, mut messages) = client.split();
    let mut refresh = Refresh::default();
    let mut feed = Feed::default();
    let now = Instant::now();
    for round in 1..=2 {
        refresh.begin(&mut requests).expect("it takes requests");
        refresh.begin(&mut requests).expect("a second round waits for the first");
        // Four requests, the second page of flows, and the rules with their first revision.
        for _ in 0..(if round == 1 { 6 } else { 5 }) {
            let Message::Answer(number, answer) = messages.next().expect("it answers") else {
                panic!("no event was expected");
            };
            refresh.on_answer(number, answer, &mut requests, &mut feed, now).expect("in order");
        }
        assert_eq!((feed.flows.len(), feed.rules.len()), (2, 1));
    }
    let effect = Effect::Change { request: "decide", arguments: json!({}), done: "done".into() };
    perform(effect, &mut requests, &mut refresh).expect("it takes requests");
    let Message::Answer(number, answer) = messages.next().expect("it answers") else {
        panic!("no event was expected");
    };
    let told = refresh.on_answer(number, answer, &mut requests, &mut feed, now);
    assert_eq!(told.expect("in order"), Answered::Told("already decided".into()));
    drop((requests, messages));
    network.join().expect("the network ends with its client");
}
