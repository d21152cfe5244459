//! From the data thread's events to the clients of the control socket.
//!
//! Owns when that begins: with the first client that wants to hear of any, since it costs something
//! for each flow. It goes on from then on, so that clients can come back for what they have missed.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::hub::Hub;
use crate::host::audit::{AuditLevel, line};
use crate::host::events::Observed;
use crate::host::handle::Handle;

/// Events that may wait for the control thread (arbitrary: some hundred bytes each).
const OBSERVED_CAP: usize = 4096;

/// The way from the first subscription to [`follow`].
#[derive(Debug)]
pub(super) struct Beginning(Mutex<Option<oneshot::Sender<mpsc::Receiver<Observed>>>>);

impl Beginning {
    /// The beginning, and what [`follow`] waits for.
    pub(super) fn new() -> (Self, oneshot::Receiver<mpsc::Receiver<Observed>>) {
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

/// Tells `hub` what happens, from the beginning to the end of the instance.
pub(super) async fn follow(begun: oneshot::Receiver<mpsc::Receiver<Observed>>, hub: &Hub) {
    let Ok(mut observed) = begun.await else { return };
    while let Some(Observed { at, lost, event }) = observed.recv().await {
        if lost > 0 {
            hub.tell(|seq| Some(line::lost(at, seq, lost)));
        }
        hub.tell(|seq| line::of_event(at, seq, &event, 1));
    }
}
