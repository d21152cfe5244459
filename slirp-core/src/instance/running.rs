//! A running stack: its threads, and waiting for them.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::host::handle::Handle;
use crate::host::mailbox::Mailbox;
use crate::host::reactor::{Reactor, RunError};
use crate::mirror::thread::End;

#[derive(Debug)]
struct Threads {
    data: JoinHandle<Result<(), RunError>>,
    control: JoinHandle<()>,
    /// Those that end with the data thread.
    others: Vec<JoinHandle<()>>,
}

impl Threads {
    fn join(self) -> Result<(), RunError> {
        let data = self.data.join();
        let control = self.control.join();
        let others = self.others.into_iter().map(JoinHandle::join).fold(Ok(()), Result::and);
        match (data, control, others) {
            (Ok(outcome), Ok(()), Ok(())) => outcome,
            (Err(_), _, _) | (_, Err(_), _) | (_, _, Err(_)) => Err(RunError::Panicked),
        }
    }
}

/// A running stack. Dropping it shuts it down and waits for its threads.
#[derive(Debug)]
pub struct Instance {
    handle: Handle,
    threads: Option<Threads>,
    has_ended: oneshot::Receiver<()>,
}

impl Instance {
    /// Starts both threads. The control thread runs `control`, which ends after the event loop.
    /// `others` run already: threads in the guest's network namespace, which end with the event
    /// loop; dropping `end` ends the one that follows the host.
    pub(super) fn start(
        mut reactor: Reactor,
        mailbox: Mailbox,
        control: impl FnOnce() + Send + 'static,
        others: Vec<JoinHandle<()>>,
        end: Option<End>,
    ) -> io::Result<Self> {
        let (ended, has_ended) = oneshot::channel();
        let control = thread::Builder::new().name("slirp-control".into()).spawn(control)?;
        let data = thread::Builder::new().name("slirp-data".into()).spawn(move || {
            let outcome = reactor.run();
            drop((reactor, end));
            // The receiver may be gone; then no task is waiting.
            let _ = ended.send(());
            outcome
        })?;
        let threads = Some(Threads { data, control, others });
        Ok(Self { handle: Handle::new(mailbox), threads, has_ended })
    }

    /// A handle, which may go to any thread or task.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits, blocking, until the instance has ended.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn wait(mut self) -> Result<(), RunError> {
        self.threads.take().map_or(Ok(()), Threads::join)
    }

    /// Waits, as a future of any runtime, until the instance has ended. Dropping the future shuts
    /// the instance down.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub async fn join(mut self) -> Result<(), RunError> {
        // An error means that the thread ended without a message; joining it yields the reason.
        let _ = (&mut self.has_ended).await;
        self.wait()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            self.handle.shutdown();
            if let Err(error) = threads.join() {
                tracing::error!(%error, "instance ended with an error");
            }
        }
    }
}
