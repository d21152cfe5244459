//! From the data thread's events to the clients of the control socket.
//!
//! Owns when that begins: with the first client that wants to hear of any, since it costs something
//! for each flow. It goes on from then on, so that clients can come back for what they have missed.
//!
//! A flood may cost events before they come here. A question must not be lost by that: nobody would
//! be asked. So with each loss the open questions are read, and those that were not told are told.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::hub::Hub;
use crate::egress::PendingQuestion;
use crate::host::audit::{AuditLevel, line};
use crate::host::events::{EventStream, Observed};
use crate::host::handle::Handle;
use crate::journal::Event;

/// Events that may wait for the control thread (arbitrary: some hundred bytes each).
const OBSERVED_CAP: usize = 4096;

/// The way from the first subscription to [`follow`].
#[derive(Debug)]
pub(super) struct Beginning(Mutex<Option<oneshot::Sender<EventStream>>>);

impl Beginning {
    /// The beginning, and what [`follow`] waits for.
    pub(super) fn new() -> (Self, oneshot::Receiver<EventStream>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// From when this returns on, everything is told.
    pub(super) async fn begin(&self, handle: &Handle) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let observed = handle.observe(OBSERVED_CAP, |event| AuditLevel::All.has(event));
            // Its receiver waits for as long as there are clients.
            let _ = sender.send(observed);
            // Messages are read in their order.
            let _ = handle.list_forwards().await;
        }
    }
}

/// Tells `hub` what happens, from the beginning to the end of the instance. `questions` reads those
/// that are open.
pub(super) async fn follow<F>(
    begun: oneshot::Receiver<EventStream>,
    hub: &Hub,
    questions: impl Fn() -> F,
) where
    F: Future<Output = Option<Vec<PendingQuestion>>>,
{
    let Ok(mut observed) = begun.await else { return };
    // What was told and is not over.
    let mut told = BTreeSet::new();
    while let Some(Observed { at, lost, event }) = observed.next().await {
        if lost > 0 {
            hub.tell(|seq| Some(line::lost(at, seq, lost)));
            let open = questions().await.unwrap_or_default();
            let ids: BTreeSet<_> = open.iter().map(|question| question.id).collect();
            for over in told.difference(&ids) {
                hub.forget_question(*over);
            }
            told.retain(|id| ids.contains(id));
            for question in open.into_iter().filter(|question| told.insert(question.id)) {
                let event = Event::QuestionOpened(Box::new(question));
                hub.tell(|seq| line::of_event(at, seq, &event, 1));
            }
        }
        let Some(event) = event else { continue };
        if let Event::QuestionOpened(question) = &event
            && !told.insert(question.id)
        {
            // It was found among the open ones before.
            continue;
        }
        if let Event::QuestionEnded { question, .. } = &event {
            told.remove(&question.id);
        }
        hub.tell(|seq| line::of_event(at, seq, &event, 1));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::egress::{QuestionId, Subject};
    use crate::host::events::Observer;
    use crate::journal::{QuestionEnding, Report};
    use crate::protocol::Protocol;

    fn question(id: u64) -> PendingQuestion {
        PendingQuestion {
            id: QuestionId(id),
            member: None,
            guest: [10, 0, 2, 100].into(),
            subject: Subject::Address([192, 0, 2, 1].into()),
            port: 443,
            protocol: Protocol::Tcp,
            rule: None,
            held: Duration::ZERO,
            expires_in: Duration::from_secs(60),
            flows: 1,
        }
    }

    #[test]
    fn question_whose_event_was_lost_is_told_once() {
        let (hub, _approvers) = Hub::new();
        let hub = Arc::new(hub);
        let (subscription, _) = hub.subscribe(None, None);
        let (mut observer, stream) = Observer::new(8, |_| true);
        let (begin, begun) = oneshot::channel();
        begin.send(stream).unwrap();
        let opened = |id| Event::QuestionOpened(Box::new(question(id)));
        let mut tell = |lost, event| observer.tell(SystemTime::now(), &Report { lost, event });
        tell(0, opened(1));
        tell(3, opened(3));
        let (question_3, ending) = (Box::new(question(3)), QuestionEnding::TimedOut);
        tell(0, Event::QuestionEnded { question: question_3, ending });
        tell(0, opened(4));
        observer.note_lost(1);
        drop(observer);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told: Vec<_> = runtime.block_on(async {
            // The first one is over, and so is word of it among what was lost.
            follow(begun, &hub, async || Some(vec![question(2), question(3)])).await;
            let mut told = Vec::new();
            for _ in 0..8 {
                let line: serde_json::Value =
                    serde_json::from_str(&subscription.next().await).unwrap();
                let event = &line["event"];
                told.push((
                    event["event"].as_str().unwrap().to_owned(),
                    event["question"].as_u64(),
                ));
            }
            told
        });
        let told: Vec<_> = told.iter().map(|(kind, id)| (kind.as_str(), *id)).collect();
        assert_eq!(
            told,
            [
                ("ask", Some(1)),
                ("lost", None),
                ("ask", Some(2)),
                ("ask", Some(3)),
                ("decision", Some(3)),
                ("ask", Some(4)),
                ("lost", None),
                ("ask", Some(3)),
            ]
        );
    }
}
