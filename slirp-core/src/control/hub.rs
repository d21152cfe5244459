//! Events on their way to the clients of the control socket.
//!
//! Owns who hears of what, and what becomes of a client that does not read: each has a queue of
//! [`QUEUE_CAP`] events. When it is full the oldest go, and the client is told how many; questions
//! that are open are the last to go. Also counts the clients who may decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::egress::QuestionId;

/// Events that wait for one client (arbitrary; at most 2 KiB each).
const QUEUE_CAP: usize = 1024;
/// Events that are kept for clients that come back (arbitrary, as above).
const KEPT_CAP: usize = 1024;

/// The kinds of events. A name that is not among them is refused.
pub(super) const KINDS: [&str; 12] = [
    "start", "stop", "policy", "dns", "flow", "verify", "end", "ask", "decision", "rate",
    "dns_many", "lost",
];
/// A question was asked.
const ASK: &str = "ask";
/// A question is over.
const DECISION: &str = "decision";

/// An event as clients get it.
#[derive(Debug)]
pub(super) struct Told {
    /// Its number.
    pub(super) seq: u64,
    /// One of [`KINDS`].
    pub(super) kind: &'static str,
    /// The question that it is about, if it is about one.
    pub(super) question: Option<u64>,
    /// The whole line.
    pub(super) line: String,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    approvers: watch::Sender<usize>,
}

#[derive(Default, Debug)]
struct State {
    seq: u64,
    /// The last events, the oldest first.
    kept: VecDeque<Arc<Told>>,
    queues: BTreeMap<u64, Arc<Queue>>,
    next: u64,
}

/// What one client has not got yet.
#[derive(Debug)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// `None` for all kinds.
    kinds: Option<BTreeSet<&'static str>>,
    has_news: Notify,
}

#[derive(Default, Debug)]
struct Waiting {
    told: VecDeque<Entry>,
    lost: u64,
}

#[derive(Debug)]
struct Entry {
    told: Arc<Told>,
    /// Whether it is a question that may still be open.
    is_question: bool,
}

impl Waiting {
    /// A question is not open any more.
    fn unmark(&mut self, question: Option<u64>) {
        for entry in self.told.iter_mut().filter(|entry| entry.told.question == question) {
            entry.is_question = false;
        }
    }
}

impl Queue {
    fn push(&self, told: &Arc<Told>) {
        let mut waiting = lock(&self.waiting);
        if told.kind == DECISION {
            // Whether the client hears of it or not.
            waiting.unmark(told.question);
        }
        if self.kinds.as_ref().is_some_and(|kinds| !kinds.contains(told.kind)) {
            return;
        }
        if waiting.told.len() >= QUEUE_CAP {
            let oldest = waiting.told.iter().position(|entry| !entry.is_question).unwrap_or(0);
            waiting.told.remove(oldest);
            waiting.lost += 1;
        }
        let is_question = told.kind == ASK;
        waiting.told.push_back(Entry { told: Arc::clone(told), is_question });
        drop(waiting);
        self.has_news.notify_one();
    }
}

impl Hub {
    /// A hub, and where the number of clients can be followed who may decide.
    pub(super) fn new() -> (Self, watch::Receiver<usize>) {
        let (approvers, followed) = watch::channel(0);
        (Self { state: Mutex::default(), approvers }, followed)
    }

    /// Tells an event. `object` makes its text from its number: an object as the audit log has it,
    /// if there is one for the event.
    pub(super) fn tell(&self, object: impl FnOnce(u64) -> Option<String>) {
        let mut state = lock(&self.state);
        let seq = state.seq + 1;
        let Some(object) = object(seq) else { return };
        let Some(kind) = kind_of(&object) else { return };
        state.seq = seq;
        let question = question_of(&object);
        let line = format!("{{\"event\":{object}}}\n");
        let told = Arc::new(Told { seq, kind, question, line });
        if state.kept.len() >= KEPT_CAP {
            state.kept.pop_front();
        }
        state.kept.push_back(Arc::clone(&told));
        for queue in state.queues.values() {
            queue.push(&told);
        }
    }

    /// A question is over, and word of that was lost.
    pub(super) fn forget_question(&self, question: QuestionId) {
        for queue in lock(&self.state).queues.values() {
            lock(&queue.waiting).unmark(Some(question.0));
        }
    }

    /// Lets a client hear of `kinds`, or of everything, from now on; with `since`, of what came
    /// after that number, too. Returns the number of the last event.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        kinds: Option<BTreeSet<&'static str>>,
        since: Option<u64>,
    ) -> (Subscription, u64) {
        let mut state = lock(&self.state);
        let queue = Arc::new(Queue { waiting: Mutex::default(), kinds, has_news: Notify::new() });
        if let Some(since) = since {
            let first = state.kept.front().map_or(state.seq + 1, |told| told.seq);
            lock(&queue.waiting).lost = first.saturating_sub(since.saturating_add(1));
            for told in state.kept.iter().filter(|told| told.seq > since) {
                queue.push(told);
            }
        }
        let id = state.next;
        state.next += 1;
        state.queues.insert(id, Arc::clone(&queue));
        (Subscription { hub: Arc::clone(self), queue, id }, state.seq)
    }

    /// Counts a client who may decide, for as long as the guard exists.
    pub(super) fn approver(self: &Arc<Self>) -> Approver {
        self.approvers.send_modify(|count| *count += 1);
        Approver { hub: Arc::clone(self) }
    }

    /// How many clients may decide.
    pub(super) fn approvers(&self) -> usize {
        *self.approvers.borrow()
    }
}

/// A client that hears of events.
#[derive(Debug)]
pub(super) struct Subscription {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    id: u64,
}

impl Subscription {
    /// The next line. Nothing is lost if the future is dropped.
    pub(super) async fn next(&self) -> String {
        loop {
            if let Some(line) = self.take() {
                return line;
            }
            self.queue.has_news.notified().await;
        }
    }

    fn take(&self) -> Option<String> {
        let mut waiting = lock(&self.queue.waiting);
        if waiting.lost > 0 {
            let count = std::mem::take(&mut waiting.lost);
            let mut line = String::from("{\"event\":{\"event\":\"lost\",\"count\":");
            // Writing to a string cannot fail.
            let _ = writeln!(line, "{count}}}}}");
            return Some(line);
        }
        waiting.told.pop_front().map(|entry| entry.told.line.clone())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.hub.state).queues.remove(&self.id);
    }
}

/// A client who may decide.
#[derive(Debug)]
pub(super) struct Approver {
    hub: Arc<Hub>,
}

impl Drop for Approver {
    fn drop(&mut self) {
        self.hub.approvers.send_modify(|count| *count -= 1);
    }
}

/// The kind of an event. Only numbers and a time stand before it.
fn kind_of(object: &str) -> Option<&'static str> {
    let (_, rest) = object.split_once("\"event\":\"")?;
    let (kind, _) = rest.split_once('"')?;
    KINDS.into_iter().find(|&known| known == kind)
}

/// The question that an event is about. Text of a guest has no quotes that are not escaped.
fn question_of(object: &str) -> Option<u64> {
    let (_, rest) = object.split_once("\"question\":")?;
    let (digits, _) = rest.split_once(|byte: char| !byte.is_ascii_digit())?;
    digits.parse().ok()
}

/// All of it is on one thread, and what a panic has left behind is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> (Arc<Hub>, watch::Receiver<usize>) {
        let (hub, approvers) = Hub::new();
        (Arc::new(hub), approvers)
    }

    fn tell(hub: &Hub, kind: &'static str, question: Option<u64>) {
        hub.tell(|seq| Some(object(seq, kind, question)));
    }

    fn object(seq: u64, kind: &str, question: Option<u64>) -> String {
        let question = question.map(|question| format!(",\"question\":{question}"));
        format!("{{\"seq\":{seq},\"event\":\"{kind}\"{}}}", question.unwrap_or_default())
    }

    fn all(subscription: &Subscription) -> Vec<String> {
        std::iter::from_fn(|| subscription.take()).collect()
    }

    fn event(seq: u64) -> String {
        format!("{{\"event\":{}}}\n", object(seq, "flow", None))
    }

    #[test]
    fn kind_and_question_are_found_and_text_of_a_guest_is_not() {
        let hostile = r#"{"seq":1,"event":"dns","name":"\"event\":\"ask\",\"question\":7,"}"#;
        assert_eq!((kind_of(hostile), question_of(hostile)), (Some("dns"), None));
        let asked = object(1, ASK, Some(7));
        assert_eq!((kind_of(&asked), question_of(&asked)), (Some("ask"), Some(7)));
        assert_eq!(kind_of(r#"{"seq":1,"event":"other"}"#), None);
        let (hub, _) = hub();
        hub.tell(|_| None);
        assert_eq!(hub.subscribe(None, None).1, 0);
    }

    #[test]
    fn client_that_does_not_read_loses_the_oldest_but_no_open_question() {
        let (hub, _) = hub();
        let (subscription, seq) = hub.subscribe(None, None);
        assert_eq!(seq, 0);
        tell(&hub, ASK, Some(1));
        tell(&hub, ASK, Some(2));
        tell(&hub, DECISION, Some(2));
        for _ in 0..QUEUE_CAP {
            tell(&hub, "flow", None);
        }
        let got = all(&subscription);
        assert_eq!(got.len(), QUEUE_CAP + 1);
        assert_eq!(got[0], "{\"event\":{\"event\":\"lost\",\"count\":3}}\n");
        let first = format!("{{\"event\":{}}}\n", object(1, ASK, Some(1)));
        assert_eq!(got[1], first, "nobody has decided it");
        // The second question, its end and one flow are gone.
        assert_eq!(got[2], event(5));
        assert_eq!(got[QUEUE_CAP], event(3 + 1024));
        assert!(subscription.take().is_none());
    }

    #[test]
    fn client_that_hears_of_questions_alone_keeps_those_that_are_open() {
        let (hub, _) = hub();
        let (subscription, _) = hub.subscribe(Some(BTreeSet::from([ASK])), None);
        tell(&hub, ASK, Some(1));
        tell(&hub, ASK, Some(2));
        tell(&hub, DECISION, Some(2));
        for question in 3..3 + 1023 {
            tell(&hub, ASK, Some(question));
        }
        let got = all(&subscription);
        assert_eq!(got[0], "{\"event\":{\"event\":\"lost\",\"count\":1}}\n");
        let first = format!("{{\"event\":{}}}\n", object(1, ASK, Some(1)));
        assert_eq!(got[1], first, "the decided question has made room");
    }

    #[test]
    fn queue_of_questions_alone_is_bounded_too() {
        let (hub, _) = hub();
        let (subscription, _) = hub.subscribe(None, None);
        for question in 0..2 * 1024 {
            tell(&hub, ASK, Some(question));
        }
        assert_eq!(all(&subscription).len(), QUEUE_CAP + 1);
    }

    #[test]
    fn clients_hear_of_what_they_asked_for() {
        let (hub, _) = hub();
        let (flows, _) = hub.subscribe(Some(BTreeSet::from(["flow"])), None);
        tell(&hub, "dns", None);
        tell(&hub, "flow", None);
        assert_eq!(all(&flows), [event(2)]);
        drop(flows);
        assert!(lock(&hub.state).queues.is_empty());
    }

    #[test]
    fn client_that_comes_back_gets_what_it_has_missed() {
        let (hub, _) = hub();
        for _ in 0..5 {
            tell(&hub, "flow", None);
        }
        let (again, seq) = hub.subscribe(None, Some(3));
        assert_eq!((all(&again), seq), (vec![event(4), event(5)], 5));
        for _ in 0..KEPT_CAP {
            tell(&hub, "flow", None);
        }
        let (late, _) = hub.subscribe(None, Some(3));
        let got = all(&late);
        assert_eq!(got[0], "{\"event\":{\"event\":\"lost\",\"count\":2}}\n");
        assert_eq!((got[1].clone(), got.len()), (event(6), KEPT_CAP + 1));
    }

    #[test]
    fn clients_that_may_decide_are_counted() {
        let (hub, approvers) = hub();
        let (one, two) = (hub.approver(), hub.approver());
        assert_eq!((hub.approvers(), *approvers.borrow()), (2, 2));
        drop(one);
        assert_eq!(*approvers.borrow(), 1);
        drop(two);
        assert_eq!(*approvers.borrow(), 0);
    }
}
