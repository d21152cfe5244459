//! Which question is asked, and what becomes of an answer.
//!
//! Owns the dialog's state, without a terminal or a socket. A question is asked until it is
//! decided, here or elsewhere, or its time is over. A key is never taken for an answer to a
//! question that came to the screen a moment ago, in the place of the one that it was meant for.
//! The list of open questions is the network's: it is asked for whenever one comes or goes, and
//! each second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crossterm::event::KeyCode;
use serde_json::{Value, json};

use crate::tool::client::Message;
use crate::tool::question::{Choice, OnScreen, Question, explained};
use crate::tool::record::Record;
use crate::tool::shown::{counted, foreign};

/// Subjects that are remembered, to tell what is asked for the first time (arbitrary).
const SEEN_CAP: usize = 4096;

/// Questions that are remembered after they went; a guest has no more open ones.
const GONE_CAP: usize = 64;

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Effect {
    /// A request; its number goes to [`Dialog::on_sent`].
    Ask { request: &'static str, arguments: Value, purpose: Purpose },
    /// A line for the person, which stays.
    Say(String),
    /// A rule for the file of lasting decisions.
    Save(String),
    /// A sound.
    Bell,
    /// The end.
    Quit,
}

/// What an answer is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Subscription,
    List,
    Decision { target: String, question: u64, choice: Choice },
    Explanation { target: String },
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Dialog {
    has_begun: bool,
    /// The oldest first.
    questions: Vec<Question>,
    /// Requests without an answer yet.
    waiting: BTreeMap<u64, Purpose>,
    on_screen: OnScreen,
    /// A question that we have just decided: it is not to be asked until the network says so.
    deciding: Option<u64>,
    /// Questions that we have decided.
    own: BTreeSet<u64>,
    /// The last questions that went, whose events may come later.
    gone: VecDeque<Question>,
    /// Questions that were asked, by their targets, and how often.
    seen: BTreeMap<String, u64>,
    /// The newest question that was counted there.
    counted: Option<u64>,
}

impl Dialog {
    /// Time has passed.
    pub(super) fn on_tick(&mut self) -> Vec<Effect> {
        if !self.has_begun {
            self.has_begun = true;
            let arguments = json!({ "decide": true, "events": ["ask", "decision"] });
            let request = "subscribe";
            return vec![Effect::Ask { request, arguments, purpose: Purpose::Subscription }];
        }
        self.list()
    }

    /// A request has gone out.
    pub(super) fn on_sent(&mut self, number: u64, purpose: Purpose) {
        self.waiting.insert(number, purpose);
    }

    /// The network has said something.
    pub(super) fn on_message(&mut self, message: Message, now: Instant) -> Vec<Effect> {
        match message {
            Message::Event(event) => self.on_event(&event),
            Message::Answer(number, answer) => match self.waiting.remove(&number) {
                Some(purpose) => self.on_answer(purpose, answer, now),
                None => Vec::new(),
            },
        }
    }

    fn on_event(&mut self, event: &Value) -> Vec<Effect> {
        let mut effects = Vec::new();
        let ended = Record::of(event).filter(|record| record.event == "decision");
        let is_own = |id: u64| self.deciding == Some(id) || self.own.contains(&id);
        if let Some(ended) = ended.filter(|ended| !ended.question.is_some_and(is_own))
            && let Some(question) = self
                .questions
                .iter()
                .chain(&self.gone)
                .find(|question| Some(question.id) == ended.question)
        {
            let verdict = ended.verdict.map_or("over", |verdict| verdict.as_str());
            let cause = ended.cause.map(|cause| format!(", {}", foreign(&cause, 40)));
            let by = event.get("by").map(|by| format!(", by {}", foreign(&by.to_string(), 80)));
            effects.push(Effect::Say(format!(
                " {}: {verdict}{}{}",
                question.target(),
                cause.unwrap_or_default(),
                by.unwrap_or_default(),
            )));
        }
        effects.extend(self.list());
        effects
    }

    /// Asks for the open questions, unless that is on its way.
    fn list(&self) -> Vec<Effect> {
        if self.waiting.values().any(|purpose| *purpose == Purpose::List) {
            return Vec::new();
        }
        let request = "questions";
        vec![Effect::Ask { request, arguments: json!({}), purpose: Purpose::List }]
    }

    fn on_answer(
        &mut self,
        purpose: Purpose,
        answer: Result<Value, String>,
        now: Instant,
    ) -> Vec<Effect> {
        match (purpose, answer) {
            (Purpose::Subscription, Ok(_)) => self.list(),
            (Purpose::List, Ok(answer)) => self.on_list(&answer, now),
            (Purpose::Decision { target, choice, question }, Ok(answer)) => {
                self.questions.retain(|open| open.id != question);
                self.own.insert(question);
                let mut effects = vec![Effect::Say(format!(" {target}: {}", choice.as_str()))];
                let rule = answer.get("rule").and_then(Value::as_str);
                if let Some(rule) = rule.filter(|_| choice.is_lasting()) {
                    effects.push(Effect::Save(foreign(rule, 1000)));
                }
                self.deciding = None;
                effects.extend(self.list());
                effects
            }
            (Purpose::Decision { target, .. }, Err(words)) => {
                self.deciding = None;
                let mut effects = vec![Effect::Say(format!(" {target}: {words}"))];
                effects.extend(self.list());
                effects
            }
            (Purpose::Explanation { target }, Ok(answer)) => {
                let lines = explained(&answer).into_iter().map(|line| format!("   {line}"));
                let first = Effect::Say(format!(" {target}:"));
                [first].into_iter().chain(lines.map(Effect::Say)).collect()
            }
            (Purpose::Subscription | Purpose::List, Err(words)) => {
                vec![Effect::Say(words), Effect::Quit]
            }
            (Purpose::Explanation { .. }, Err(words)) => vec![Effect::Say(words)],
        }
    }

    fn on_list(&mut self, answer: &Value, now: Instant) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.questions, Question::list(answer, now));
        let is_open = |id| self.questions.iter().any(|question| question.id == id);
        self.gone.extend(before.into_iter().filter(|question| !is_open(question.id)));
        while self.gone.len() > GONE_CAP {
            self.gone.pop_front();
        }
        let newest = self.questions.iter().map(|question| question.id).max();
        let new: Vec<_> =
            self.questions.iter().filter(|question| Some(question.id) > self.counted).collect();
        let is_new = !new.is_empty();
        for question in new {
            if self.seen.len() < SEEN_CAP {
                *self.seen.entry(question.target()).or_default() += 1;
            }
        }
        self.counted = self.counted.max(newest);
        if is_new { vec![Effect::Bell] } else { Vec::new() }
    }

    /// A key was pressed.
    pub(super) fn on_key(&mut self, key: KeyCode, now: Instant) -> Vec<Effect> {
        let KeyCode::Char(key) = key else { return Vec::new() };
        if key == 'q' {
            return vec![Effect::Quit];
        }
        let Some(question) = self.current() else { return Vec::new() };
        let target = question.target();
        if key == 'e' {
            let (request, arguments) = ("explain", question.attempt());
            return vec![Effect::Ask {
                request,
                arguments,
                purpose: Purpose::Explanation { target },
            }];
        }
        let choice = question.choice(key).filter(|_| self.on_screen.may_decide(question.id, now));
        let Some(choice) = choice else { return Vec::new() };
        let (id, arguments) = (question.id, question.decision(choice));
        self.deciding = Some(id);
        let purpose = Purpose::Decision { target, question: id, choice };
        vec![Effect::Ask { request: "decide", arguments, purpose }]
    }

    /// The question that is asked now.
    fn current(&self) -> Option<&Question> {
        self.questions.first().filter(|_| self.deciding.is_none())
    }

    /// The person sees [these lines](Self::lines) now.
    pub(super) fn on_drawn(&mut self, now: Instant) {
        let question = self.current().map(|question| question.id);
        self.on_screen.on_drawn(question, now);
    }

    /// What the person sees.
    pub(super) fn lines(&self, now: Instant) -> Vec<String> {
        let Some(question) = self.current() else {
            return vec![" No questions. q quits.".to_owned()];
        };
        let target = question.target();
        let times = match self.seen.get(&target) {
            Some(times) if *times > 1 => format!("asked {times} times"),
            Some(_) | None => "first time".to_owned(),
        };
        let rule = question.rule.as_deref().unwrap_or("default");
        let mut lines = vec![format!(
            " {} wants  {target}  {}, {times}, {rule}",
            question.guest,
            question.status(now),
        )];
        let more = self.questions.len() as u64 - 1;
        let more = if more > 0 {
            format!("  and {}", counted(more, "more question"))
        } else {
            String::new()
        };
        lines.push(format!(" {}{more}", question.keys()));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool::question::KEYS_AFTER;
    use crate::tool::question::tests::row;

    /// A dialog that has got a list of questions.
    fn asking(now: Instant, rows: &[Value]) -> Dialog {
        let mut dialog = Dialog::default();
        let effects = dialog.on_tick();
        let [Effect::Ask { request: "subscribe", arguments, purpose }] = effects.as_slice() else {
            panic!("it subscribes first: {effects:?}")
        };
        assert_eq!(arguments["decide"], true);
        dialog.on_sent(1, purpose.clone());
        let effects = dialog.on_message(Message::Answer(1, Ok(json!({}))), now);
        listed(&mut dialog, effects, now, rows);
        dialog
    }

    /// What is there has been looked at; returns the time then.
    fn looked_at(dialog: &mut Dialog, now: Instant) -> Instant {
        dialog.on_drawn(now);
        now + KEYS_AFTER
    }

    /// Answers the request for a list that is the last of `effects`.
    fn listed(
        dialog: &mut Dialog,
        effects: Vec<Effect>,
        now: Instant,
        rows: &[Value],
    ) -> Vec<Effect> {
        let Some(Effect::Ask { request: "questions", purpose, .. }) = effects.last() else {
            panic!("a list is asked for: {effects:?}")
        };
        dialog.on_sent(100, purpose.clone());
        dialog.on_message(Message::Answer(100, Ok(json!({ "questions": rows }))), now)
    }

    #[test]
    fn oldest_question_is_asked_first_with_its_time() {
        let now = Instant::now();
        let dialog = asking(now, &[row(8, "b.example"), row(7, "a.example")]);
        let lines = dialog.lines(now + std::time::Duration::from_secs(2));
        assert_eq!(
            lines[0],
            " 10.0.2.100 wants  a.example:443/tcp  held 0:09 of 1:00, 3 connections, first time, \
             policy.txt:9"
        );
        assert!(lines[1].ends_with("[e]xplain  and 1 more question"), "{lines:?}");
    }

    #[test]
    fn enter_and_other_keys_decide_nothing() {
        let now = Instant::now();
        let mut dialog = asking(now, &[row(7, "a.example")]);
        let now = looked_at(&mut dialog, now);
        for key in
            [KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::Char(' '), KeyCode::Char('y')]
        {
            assert_eq!(dialog.on_key(key, now), []);
        }
        let mut idle = asking(now, &[]);
        assert_eq!(idle.on_key(KeyCode::Char('a'), now), []);
        assert_eq!(idle.lines(now), [" No questions. q quits."]);
        assert_eq!(idle.on_key(KeyCode::Char('q'), now), [Effect::Quit]);
    }

    #[test]
    fn decision_is_sent_once_and_a_lasting_one_is_saved() {
        let now = Instant::now();
        let mut dialog = asking(now, &[row(7, "a.example"), row(8, "b.example")]);
        let now = looked_at(&mut dialog, now);
        let effects = dialog.on_key(KeyCode::Char('s'), now);
        let [Effect::Ask { request: "decide", arguments, purpose }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!(arguments["question"], 7);
        dialog.on_sent(9, purpose.clone());
        // A second key meets no question, not the next one by surprise.
        assert_eq!(dialog.on_key(KeyCode::Char('s'), now), []);
        let answer = json!({ "rule": "allow a.example:443" });
        let effects = dialog.on_message(Message::Answer(9, Ok(answer)), now);
        assert_eq!(
            effects[..2],
            [
                Effect::Say(" a.example:443/tcp: allowed for the session".into()),
                Effect::Save("allow a.example:443".into()),
            ]
        );
        assert!(dialog.lines(now)[0].contains("b.example"));
        let effects = listed(&mut dialog, effects, now, &[row(8, "b.example")]);
        assert_eq!(effects, [], "an old question rings no bell");
        let now = looked_at(&mut dialog, now);
        let effects = dialog.on_key(KeyCode::Char('d'), now);
        let Some(Effect::Ask { purpose, .. }) = effects.first() else { panic!("{effects:?}") };
        dialog.on_sent(10, purpose.clone());
        let answer = json!({ "rule": "deny b.example:443" });
        let effects = dialog.on_message(Message::Answer(10, Ok(answer)), now);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save(_))), "{effects:?}");
    }

    #[test]
    fn key_for_a_question_that_goes_does_not_decide_about_the_next_one() {
        let now = Instant::now();
        let mut dialog = asking(now, &[row(7, "a.example"), row(8, "b.example")]);
        let pressed = KeyCode::Char('s');
        assert_eq!(dialog.on_key(pressed, now), [], "nobody has seen it yet");
        let now = looked_at(&mut dialog, now);
        // Another approver has decided while the finger moves.
        let event = json!({ "v": 1, "event": "decision", "question": 7, "verdict": "deny" });
        let effects = dialog.on_message(Message::Event(event), now);
        listed(&mut dialog, effects, now, &[row(8, "b.example")]);
        assert_eq!(dialog.on_key(pressed, now), []);
        let later = looked_at(&mut dialog, now);
        assert_eq!(dialog.on_key(pressed, later - std::time::Duration::from_millis(1)), []);
        let effects = dialog.on_key(pressed, later);
        let [Effect::Ask { arguments, .. }] = effects.as_slice() else { panic!("{effects:?}") };
        assert_eq!(arguments["question"], 8);
    }

    #[test]
    fn decisions_of_others_are_told() {
        let now = Instant::now();
        let mut dialog = asking(now, &[row(7, "a.example"), row(8, "b.example")]);
        let event = json!({ "v": 1, "event": "decision", "question": 7, "verdict": "deny",
            "by": { "uid": 1000, "pid": 88 } });
        let effects = dialog.on_message(Message::Event(event), now);
        let said = " a.example:443/tcp: deny, by {\"pid\":88,\"uid\":1000}".to_owned();
        assert_eq!(effects[0], Effect::Say(said));
        listed(&mut dialog, effects, now, &[row(8, "b.example")]);
        // Ours comes too late.
        let now = looked_at(&mut dialog, now);
        let effects = dialog.on_key(KeyCode::Char('a'), now);
        let Some(Effect::Ask { purpose, .. }) = effects.first() else { panic!("{effects:?}") };
        dialog.on_sent(9, purpose.clone());
        let words = Err("already decided: deny".to_owned());
        let effects = dialog.on_message(Message::Answer(9, words), now);
        assert_eq!(effects[0], Effect::Say(" b.example:443/tcp: already decided: deny".into()));
        listed(&mut dialog, effects, now, &[]);
        assert_eq!(dialog.lines(now), [" No questions. q quits."]);
        // The event may come behind the list in which the question is missing.
        let event = json!({ "v": 1, "event": "decision", "question": 8, "verdict": "deny",
            "cause": "ask-timeout" });
        let effects = dialog.on_message(Message::Event(event), now);
        assert_eq!(effects[0], Effect::Say(" b.example:443/tcp: deny, ask-timeout".into()));
    }

    #[test]
    fn bell_rings_for_new_questions_and_repeated_ones_are_counted() {
        let now = Instant::now();
        let mut dialog = asking(now, &[]);
        for id in [7, 8] {
            let effects = dialog.on_message(Message::Event(json!({ "event": "ask" })), now);
            assert_eq!(listed(&mut dialog, effects, now, &[row(id, "a.example")]), [Effect::Bell]);
        }
        assert!(dialog.lines(now)[0].contains(", asked 2 times, "));
        let effects = dialog.on_tick();
        assert_eq!(listed(&mut dialog, effects, now, &[row(8, "a.example")]), []);
    }

    #[test]
    fn explanation_is_shown_and_leaves_the_question_open() {
        let now = Instant::now();
        let mut dialog = asking(now, &[row(7, "a.example")]);
        let effects = dialog.on_key(KeyCode::Char('e'), now);
        let [Effect::Ask { request: "explain", arguments, purpose }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!(*arguments, json!({ "target": "tcp:a.example:443" }));
        dialog.on_sent(9, purpose.clone());
        let answer = json!({ "verdict": "ask", "cause": "rule", "rule": "policy.txt:9",
            "steps": ["policy.txt:9: ask .example"] });
        let effects = dialog.on_message(Message::Answer(9, Ok(answer)), now);
        let said = [
            " a.example:443/tcp:",
            "   ask, rule, policy.txt:9",
            "     policy.txt:9: ask .example",
        ];
        assert_eq!(effects, said.map(|line| Effect::Say(line.into())));
        assert!(dialog.lines(now)[0].contains("a.example"));
    }
}
