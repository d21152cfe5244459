//! A question about a flow, as a person sees it and answers it.
//!
//! Owns which key stands for which decision. No key is a default: Enter and Space decide nothing.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use slirp_core::egress::{Name, Subject};

use super::shown::{clock, counted, foreign};

/// How long the key `f` allows something.
const FOR_A_WHILE: Duration = Duration::from_secs(600);

/// A key decides about a question once it has stood on the screen for so long: one that is pressed
/// sooner was meant for what stood there before (about what a person needs to see and to react;
/// arbitrary).
pub(super) const KEYS_AFTER: Duration = Duration::from_millis(700);

/// Which question stands on the screen, and since when.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct OnScreen(Option<(u64, Instant)>);

impl OnScreen {
    /// The screen was drawn, with the question of this number or without one.
    pub(super) fn on_drawn(&mut self, question: Option<u64>, now: Instant) {
        if self.0.map(|(shown, _)| shown) != question {
            self.0 = question.map(|question| (question, now));
        }
    }

    /// Whether a key that is pressed now can be meant for this question.
    pub(super) fn may_decide(self, question: u64, now: Instant) -> bool {
        self.0.is_some_and(|(shown, since)| {
            shown == question && now.saturating_duration_since(since) >= KEYS_AFTER
        })
    }
}

/// A question that is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    pub(super) id: u64,
    pub(super) guest: String,
    /// The name or address.
    pub(super) subject: String,
    is_name: bool,
    port: u64,
    proto: String,
    /// The rule that wants it asked.
    pub(super) rule: Option<String>,
    /// Connections that wait.
    flows: u64,
    opened_at: Instant,
    expires_at: Instant,
}

/// What a key means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    Once,
    Session,
    ForAWhile,
    Parent,
    Deny,
    DenySession,
}

impl Question {
    /// The open questions of an answer to `questions`, the oldest first.
    pub(super) fn list(answer: &Value, now: Instant) -> Vec<Self> {
        let rows = answer.get("questions").and_then(Value::as_array).map(Vec::as_slice);
        let rows = rows.unwrap_or_default().iter();
        let mut questions: Vec<_> = rows.filter_map(|row| Self::of(row, now)).collect();
        questions.sort_by_key(|question| question.id);
        questions
    }

    fn of(row: &Value, now: Instant) -> Option<Self> {
        let text = |key: &str| row.get(key).and_then(Value::as_str).map(|text| foreign(text, 253));
        let number = |key: &str| row.get(key).and_then(Value::as_u64);
        let span = |key: &str| Duration::from_millis(number(key).unwrap_or(0));
        let name = text("name");
        let guest = text("guest").unwrap_or_default();
        let guest = match number("member") {
            Some(member) => format!("member {member} ({guest})"),
            None => guest,
        };
        Some(Self {
            id: number("question")?,
            guest,
            is_name: name.is_some(),
            subject: name.or_else(|| text("address"))?,
            port: number("port")?,
            proto: text("proto").unwrap_or_default(),
            rule: text("rule"),
            flows: number("flows").unwrap_or(1),
            opened_at: now.checked_sub(span("held_ms")).unwrap_or(now),
            expires_at: now.checked_add(span("expires_ms")).unwrap_or(now),
        })
    }

    /// `api.example:443/tcp`.
    pub(super) fn target(&self) -> String {
        format!("{}:{}/{}", self.host(), self.port, self.proto)
    }

    fn host(&self) -> String {
        let is_ipv6 = self.subject.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        if is_ipv6 { format!("[{}]", self.subject) } else { self.subject.clone() }
    }

    /// `held 0:07 of 1:00, 3 connections`.
    pub(super) fn status(&self, now: Instant) -> String {
        let held = now.saturating_duration_since(self.opened_at);
        let whole = self.expires_at.saturating_duration_since(self.opened_at);
        let flows = counted(self.flows, "connection");
        format!("held {} of {}, {flows}", clock(held), clock(whole))
    }

    /// What a decision for the parent covers: `.corp.example` of `db.corp.example`, but
    /// `.api.example` of `api.example`, since anybody can be below `example`.
    pub(super) fn parent(&self) -> Option<String> {
        let name = Name::new(&self.subject).filter(|_| self.is_name)?;
        Subject::Name(name).parent().map(|zone| format!(".{zone}"))
    }

    /// The keys, and what each means.
    pub(super) fn keys(&self) -> String {
        let parent = self.parent().map(|parent| format!("  [p]arent {parent} session"));
        format!(
            "[a]llow once  [s]ession  [f]or 10m{}  [d]eny  [D]eny session  [e]xplain",
            parent.unwrap_or_default(),
        )
    }

    /// The decision that a key stands for.
    pub(super) fn choice(&self, key: char) -> Option<Choice> {
        match key {
            'a' => Some(Choice::Once),
            's' => Some(Choice::Session),
            'f' => Some(Choice::ForAWhile),
            'p' => self.parent().map(|_| Choice::Parent),
            'd' => Some(Choice::Deny),
            'D' => Some(Choice::DenySession),
            _ => None,
        }
    }

    /// Arguments of `decide`.
    pub(super) fn decision(&self, choice: Choice) -> Value {
        let (verdict, scope) = match choice {
            Choice::Once => ("allow", "once"),
            Choice::Session | Choice::Parent => ("allow", "session"),
            Choice::ForAWhile => ("allow", "for"),
            Choice::Deny => ("deny", "once"),
            Choice::DenySession => ("deny", "session"),
        };
        let mut arguments = json!({ "question": self.id, "verdict": verdict, "scope": scope });
        if choice == Choice::ForAWhile {
            arguments["for"] = FOR_A_WHILE.as_secs().into();
        }
        if choice == Choice::Parent {
            arguments["names"] = "parent".into();
        }
        arguments
    }

    /// Arguments of `explain`.
    pub(super) fn attempt(&self) -> Value {
        json!({ "target": format!("{}:{}:{}", self.proto, self.host(), self.port) })
    }
}

impl Choice {
    /// Whether it holds for longer than the flows that wait, so that it may become a rule.
    pub(super) const fn is_lasting(self) -> bool {
        match self {
            Self::Session | Self::Parent | Self::DenySession => true,
            Self::Once | Self::ForAWhile | Self::Deny => false,
        }
    }

    /// What was decided.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "allowed once",
            Self::Session => "allowed for the session",
            Self::ForAWhile => "allowed for 10 minutes",
            Self::Parent => "allowed with its parent for the session",
            Self::Deny => "denied",
            Self::DenySession => "denied for the session",
        }
    }
}

/// The lines of an answer to `explain`.
pub(super) fn explained(answer: &Value) -> Vec<String> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str).map(|text| foreign(text, 200));
    let mut first = text("verdict").unwrap_or_default();
    for more in ["cause", "rule"].into_iter().filter_map(text) {
        first += &format!(", {more}");
    }
    let steps = answer.get("steps").and_then(Value::as_array).map(Vec::as_slice);
    let steps = steps.unwrap_or_default().iter().filter_map(Value::as_str);
    [first].into_iter().chain(steps.map(|step| format!("  {}", foreign(step, 200)))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An open question about `name`.
    pub(in crate::tool) fn row(id: u64, name: &str) -> Value {
        json!({ "question": id, "guest": "10.0.2.100", "name": name, "port": 443, "proto": "tcp",
            "rule": "policy.txt:9", "held_ms": 7000, "expires_ms": 53000, "flows": 3 })
    }

    #[test]
    fn question_says_what_is_wanted_and_for_how_long() {
        let now = Instant::now();
        let list = json!({ "questions": [
            row(9, "api.example"), row(7, "db.corp.example\u{1b}[2J"), { "question": 3 },
            { "question": 8, "guest": "fd00::100", "member": 2, "address": "2001:db8::1",
                "port": 22, "proto": "udp", "held_ms": 0, "expires_ms": 5000, "flows": 1 },
        ] });
        let questions = Question::list(&list, now);
        let targets: Vec<_> = questions.iter().map(Question::target).collect();
        let expected =
            ["db.corp.example\\u{1b}[2J:443/tcp", "[2001:db8::1]:22/udp", "api.example:443/tcp"];
        assert_eq!(targets, expected);
        let later = now + Duration::from_secs(2);
        assert_eq!(questions[2].status(later), "held 0:09 of 1:00, 3 connections");
        assert_eq!(questions[1].guest, "member 2 (fd00::100)");
        assert_eq!(questions[1].attempt(), json!({ "target": "udp:[2001:db8::1]:22" }));
    }

    #[test]
    fn key_decides_about_what_has_stood_on_the_screen_for_a_while() {
        let mut screen = OnScreen::default();
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        assert!(!screen.may_decide(7, at(0)));
        for (question, drawn) in [(7, 0), (7, 500), (7, 1000)] {
            screen.on_drawn(Some(question), at(drawn));
        }
        assert!(!screen.may_decide(7, at(699)) && screen.may_decide(7, at(700)));
        assert!(!screen.may_decide(8, at(5000)));
        screen.on_drawn(Some(8), at(5000));
        assert!(!screen.may_decide(7, at(9000)), "it is not there any more");
        assert!(!screen.may_decide(8, at(5699)) && screen.may_decide(8, at(5700)));
        screen.on_drawn(None, at(6000));
        assert!(!screen.may_decide(8, at(9000)));
    }

    #[test]
    fn keys_decide_and_only_these() {
        let now = Instant::now();
        let list = json!({ "questions": [row(1, "db.corp.example"), row(2, "api.example"),
            { "question": 3, "address": "192.0.2.1", "port": 22, "proto": "tcp" }] });
        let [deep, flat, address] = Question::list(&list, now).try_into().expect("three questions");
        assert_eq!((address.parent(), address.choice('p')), (None, None));
        let decided = |key| deep.choice(key).map(|choice| deep.decision(choice));
        let base = |verdict: &str, scope: &str| {
            let question = 1;
            json!({ "question": question, "verdict": verdict, "scope": scope })
        };
        assert_eq!(decided('a'), Some(base("allow", "once")));
        assert_eq!(decided('s'), Some(base("allow", "session")));
        assert_eq!(decided('d'), Some(base("deny", "once")));
        assert_eq!(decided('D'), Some(base("deny", "session")));
        let mut expected = base("allow", "for");
        expected["for"] = 600.into();
        assert_eq!(decided('f'), Some(expected));
        let mut expected = base("allow", "session");
        expected["names"] = "parent".into();
        assert_eq!(decided('p'), Some(expected));
        for key in ['\n', '\r', ' ', 'A', 'y', 'n', 'q', 'S', 'x'] {
            assert_eq!(decided(key), None, "{key:?}");
        }
        // Above a name of two labels is a whole top-level domain.
        assert_eq!(flat.parent().as_deref(), Some(".api.example"));
        assert!(deep.keys().contains("[p]arent .corp.example session"));
        // As the engine takes it, below zones of registries and hosting.
        for (name, parent) in [
            ("www.mine.co.uk", ".mine.co.uk"),
            ("mine.co.uk", ".mine.co.uk"),
            ("mine.github.io", ".mine.github.io"),
            ("localhost", ".localhost"),
        ] {
            let list = json!({ "questions": [row(1, name)] });
            let parents: Vec<_> = Question::list(&list, now).iter().map(Question::parent).collect();
            assert_eq!(parents, [Some(parent.to_owned())]);
        }
    }
}
