//! Clients that are served side by side.
//!
//! Owns their number and their time: where there are as many as there may be, the oldest one has to
//! go, and a client that takes too long, too.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

/// How long accepting pauses when descriptors have run out (arbitrary).
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Clients, each of them a task; dropping this ends all of them.
pub(super) struct Clients {
    cap: usize,
    timeout: Duration,
    tasks: JoinSet<()>,
    /// The oldest first.
    order: VecDeque<AbortHandle>,
}

impl Clients {
    /// No clients so far, and never more than `cap`, each of which has `timeout`.
    pub(super) fn new(cap: usize, timeout: Duration) -> Self {
        Self { cap, timeout, tasks: JoinSet::new(), order: VecDeque::new() }
    }

    /// Serves one more.
    pub(super) fn serve(&mut self, serving: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|task| !task.is_finished());
        if self.order.len() >= self.cap
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        let timeout = self.timeout;
        self.order.push_back(self.tasks.spawn(async move {
            if tokio::time::timeout(timeout, serving).await.is_err() {
                tracing::debug!("a client took too long");
            }
        }));
    }
}
