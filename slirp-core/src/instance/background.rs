//! An instance for a program that waits for other events besides its end.
//!
//! Owns the thread that waits for the instance, and the descriptor that reports its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::running::Instance;
use crate::host::handle::Handle;
use crate::host::reactor::RunError;

crate::sys::calls::system_calls! {
    SYS_pipe2 => "the end of the instance";
}

/// A running stack, with a thread that waits for its end. Its descriptor ([`AsFd`]) hangs up, in
/// the sense of poll(2), once the stack has ended. Dropping it shuts the stack down without
/// waiting.
///
/// ```no_run
/// # fn example(instance: slirp_core::instance::Instance) -> std::io::Result<()> {
/// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
/// use std::os::fd::AsFd as _;
/// use std::time::Duration;
///
/// let network = instance.into_background()?;
/// let stdin = std::io::stdin();
/// let mut polled = [
///     PollFd::new(network.as_fd(), PollFlags::empty()),
///     PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
/// ];
/// poll(&mut polled, PollTimeout::NONE)?;
/// println!("{:?}", network.stop(Duration::from_secs(3)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BackgroundInstance {
    handle: Handle,
    outcome: mpsc::Receiver<Result<(), RunError>>,
    /// Hangs up when the instance has ended.
    end: io::PipeReader,
}

impl Instance {
    /// Starts a thread that waits for the instance.
    ///
    /// # Errors
    /// The errors of pipe(2) and of starting a thread; the instance has ended then.
    pub fn into_background(self) -> io::Result<BackgroundInstance> {
        let handle = self.handle();
        let (end, at_end) = io::pipe()?;
        let (sender, outcome) = mpsc::sync_channel(1);
        thread::Builder::new().name("slirp-wait".to_owned()).spawn(move || {
            // The receiver may be gone; then the outcome is not needed.
            let _ = sender.send(self.wait());
            drop(at_end);
        })?;
        Ok(BackgroundInstance { handle, outcome, end })
    }
}

impl BackgroundInstance {
    /// A handle, which may go to any thread or task.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How the instance has ended; `None` when it has not ended within `timeout`, and when the
    /// outcome was returned before.
    pub fn outcome(&self, timeout: Duration) -> Option<Result<(), RunError>> {
        self.outcome.recv_timeout(timeout).ok()
    }

    /// Asks the instance to end, and returns [its outcome](Self::outcome).
    pub fn stop(&self, timeout: Duration) -> Option<Result<(), RunError>> {
        self.handle.shutdown();
        self.outcome(timeout)
    }
}

impl AsFd for BackgroundInstance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Drop for BackgroundInstance {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}
