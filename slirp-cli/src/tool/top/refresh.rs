//! The requests of one round, and which answer belongs to which.
//!
//! Owns the order: an overview and the questions, names and flows page by page, and the rules
//! whenever their revision is another one. A round begins when the one before is over, so that a
//! slow network is not asked faster than it answers.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::feed::Feed;
use crate::tool::client::{ClientError, Requests};

/// Pages that one round reads of each list (256 rows each).
const PAGES_CAP: usize = 64;

/// What an answer came to, for the person who asked.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Answered {
    Nothing,
    /// What was done, or why not.
    Told(String),
    Explained(Value),
    /// The rules in force, for a file.
    Rules {
        path: String,
        text: String,
    },
}

/// What a request is for.
#[derive(Clone, PartialEq, Debug)]
enum Purpose {
    Info,
    Questions,
    Page(List),
    Person(Answered),
}

/// Lists that come in pages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum List {
    Names,
    Flows,
    Rules,
}

impl List {
    /// The request, and the key of its rows.
    pub(super) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Names => ("names", "names"),
            Self::Flows => ("flows", "flows"),
            Self::Rules => ("policy_get", "rules"),
        }
    }
}

/// The rows of an answer, and the arguments of the request for the next page.
pub(super) fn page(list: List, answer: &Value, pages: usize) -> (Vec<Value>, Option<Value>) {
    let rows = answer.get(list.words().1).and_then(Value::as_array).cloned().unwrap_or_default();
    let next = answer.get("next").filter(|next| next.is_u64() && pages < PAGES_CAP);
    (rows, next.map(|next| json!({ "from": next })))
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Refresh {
    waiting: BTreeMap<u64, Purpose>,
    rows: BTreeMap<List, (usize, Vec<Value>)>,
    /// The revision whose rules are known.
    revision: Option<u64>,
    is_under_way: bool,
}

impl Refresh {
    /// A request that a person wanted has gone out.
    pub(super) fn expect(&mut self, number: u64, answered: Answered) {
        self.waiting.insert(number, Purpose::Person(answered));
    }

    /// Begins a round, unless one is under way.
    pub(super) fn begin(&mut self, requests: &mut Requests) -> Result<(), ClientError> {
        if self.is_under_way {
            return Ok(());
        }
        self.is_under_way = true;
        self.rows.clear();
        let mut ask = |request, purpose| {
            requests.send(request, json!({})).map(|number| self.waiting.insert(number, purpose))
        };
        ask("info", Purpose::Info)?;
        ask("questions", Purpose::Questions)?;
        ask("names", Purpose::Page(List::Names))?;
        // The last one, so that its answer ends the round.
        ask("flows", Purpose::Page(List::Flows))?;
        Ok(())
    }

    /// An answer has come.
    pub(super) fn on_answer(
        &mut self,
        number: u64,
        answer: Result<Value, String>,
        requests: &mut Requests,
        feed: &mut Feed,
        now: Instant,
    ) -> Result<Answered, ClientError> {
        let Some(purpose) = self.waiting.remove(&number) else { return Ok(Answered::Nothing) };
        let answer = match (answer, &purpose) {
            (Ok(answer), _) => answer,
            (Err(words), Purpose::Person(Answered::Nothing)) => {
                return Err(ClientError::Refused(words));
            }
            (Err(words), Purpose::Person(_)) => return Ok(Answered::Told(words)),
            // Without a policy there are no names, rules and questions.
            (Err(_), Purpose::Info | Purpose::Questions | Purpose::Page(_)) => json!({}),
        };
        match purpose {
            Purpose::Info => {
                feed.on_info(&answer);
                let revision = feed.info.policy.as_ref().map(|(revision, ..)| *revision);
                // Rules that end have another time left each second.
                let has_ends = feed.rules.iter().any(|rule| rule.expires.is_some());
                if revision.is_some() && (revision != self.revision || has_ends) {
                    self.revision = revision;
                    self.ask(List::Rules, json!({}), requests)?;
                }
            }
            Purpose::Questions => feed.on_questions(&answer, now),
            Purpose::Page(list) => {
                if list == List::Rules {
                    feed.on_policy(&answer);
                }
                let (pages, rows) = self.rows.entry(list).or_default();
                *pages += 1;
                let (new, next) = page(list, &answer, *pages);
                rows.extend(new);
                match next {
                    Some(arguments) => self.ask(list, arguments, requests)?,
                    None => self.end(list, feed, now),
                }
            }
            Purpose::Person(Answered::Explained(_)) => return Ok(Answered::Explained(answer)),
            Purpose::Person(Answered::Rules { path, .. }) => {
                return Ok(match answer.get("text").and_then(Value::as_str) {
                    Some(text) => Answered::Rules { path, text: text.to_owned() },
                    None => Answered::Told("the network does not hand its rules out".into()),
                });
            }
            Purpose::Person(answered) => return Ok(answered),
        }
        Ok(Answered::Nothing)
    }

    fn ask(
        &mut self,
        list: List,
        arguments: Value,
        requests: &mut Requests,
    ) -> Result<(), ClientError> {
        let number = requests.send(list.words().0, arguments)?;
        self.waiting.insert(number, Purpose::Page(list));
        Ok(())
    }

    /// A list is complete.
    fn end(&mut self, list: List, feed: &mut Feed, now: Instant) {
        let mut take = |list| self.rows.remove(&list).map(|(_, rows)| rows).unwrap_or_default();
        if list == List::Rules {
            feed.on_rules(&take(List::Rules));
            return;
        }
        let is_waiting =
            |list| self.waiting.values().any(|purpose| *purpose == Purpose::Page(list));
        if is_waiting(List::Names) || is_waiting(List::Flows) {
            return;
        }
        feed.on_traffic(&take(List::Names), &take(List::Flows), now);
        self.is_under_way = false;
    }
}
