//! The thread that writes an audit log.
//!
//! Owns the file, the numbers of the lines, and what becomes of lines that cannot be written. A
//! line that was written in part is finished before the next; in [another file](Shared::reopen) it
//! begins anew.
//!
//! The file may be one that blocks. So it is asked before each write whether it takes some bytes,
//! and gets no more than a pipe takes at a time then ([`PIECE`]).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::error::TryRecvError;

use super::held::{Held, Waiting};
use super::line;
use crate::egress::EgressPolicy;
use crate::host::events::{EventStream, Observed};

/// Bytes of lines that are gathered before they are written (arbitrary).
const GATHERED_CAP: usize = 64 * 1024;
/// Bytes of one write: a pipe that poll(2) calls writable takes as many without blocking (pipe(7),
/// `PIPE_BUF`).
const PIECE: usize = 4096;
/// When a write that has failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often a thread that waits for a reader looks whether the end has come (arbitrary).
const PATIENCE_MS: u8 = 100;
/// How long a file may take nothing at the end (arbitrary).
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the end may be delayed by a file that takes little (arbitrary; programs that run us
/// give the end 5 seconds).
const END_CAP: Duration = Duration::from_secs(3);

/// What other threads know of the writing one, and tell it.
#[derive(Default, Debug)]
pub(super) struct Shared {
    is_failing: AtomicBool,
    /// The file to go on in.
    next: Mutex<Option<File>>,
    has_next: Notify,
}

impl Shared {
    /// Whether the last write has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Has the thread go on in `file`.
    pub(super) fn reopen(&self, file: File) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        self.has_next.notify_one();
    }

    fn take_next(&self) -> Option<File> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the thread does next.
enum Next {
    Event(Observed),
    /// A refusal has waited long enough, or there is another file.
    Look,
    End,
}

/// See the [module](self).
pub(super) struct Writer {
    file: File,
    shared: Arc<Shared>,
    /// Lines that are to be written, of which the first `written` bytes are.
    lines: Vec<u8>,
    written: usize,
    held: Held,
    seq: u64,
    /// Since when the file does not take everything although the queue has ended.
    ending_since: Option<Instant>,
}

impl Writer {
    /// A writer whose first line says that `policy` is in force.
    pub(super) fn new(file: File, shared: Arc<Shared>, policy: Option<&EgressPolicy>) -> Self {
        let (lines, held) = (Vec::new(), Held::default());
        let mut writer = Self { file, shared, lines, written: 0, held, seq: 1, ending_since: None };
        writer.push(&line::start(SystemTime::now(), 1, policy));
        writer
    }

    /// Writes until the queue of events ends. Tells `begun` when it has tried for the first time.
    pub(super) fn run(
        mut self,
        runtime: &Runtime,
        mut events: EventStream,
        begun: &mpsc::Sender<()>,
    ) {
        hold_signals_back();
        let outcome = self.write();
        self.note(outcome.as_ref().err());
        // Whoever has waited for it may have gone.
        let _ = begun.send(());
        loop {
            if !self.write_all(runtime, &events) {
                return;
            }
            match self.next(runtime, &mut events) {
                Next::Event(observed) => {
                    self.take(observed);
                    while self.lines.len() < GATHERED_CAP
                        && let Ok(observed) = events.queue.try_recv()
                    {
                        self.take(observed);
                    }
                }
                Next::Look => {}
                Next::End => break,
            }
            let now = Instant::now();
            while let Some(waiting) = self.held.poll(now) {
                self.write_down(&waiting);
            }
        }
        while let Some(waiting) = self.held.pop() {
            self.write_down(&waiting);
        }
        let now = SystemTime::now();
        self.note_lost(now, events.take_last_lost());
        let seq = self.next_seq();
        self.push(&line::stop(now, seq));
        self.write_all(runtime, &events);
    }

    fn next(&self, runtime: &Runtime, events: &mut EventStream) -> Next {
        match events.queue.try_recv() {
            Ok(observed) => return Next::Event(observed),
            Err(TryRecvError::Disconnected) => return Next::End,
            Err(TryRecvError::Empty) => {}
        }
        runtime.block_on(async {
            let due = async {
                match self.held.due_at() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                event = events.queue.recv() => event.map_or(Next::End, Next::Event),
                () = due => Next::Look,
                () = self.shared.has_next.notified() => Next::Look,
            }
        })
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn take(&mut self, Observed { at, lost, event }: Observed) {
        self.note_lost(at, lost);
        if let Some(event) = event
            && let Some(waiting) = self.held.hold(at, event, Instant::now())
        {
            self.write_down(&waiting);
        }
    }

    fn note_lost(&mut self, at: SystemTime, count: u64) {
        if count > 0 {
            // Each event that has no line takes a number.
            self.seq = self.seq.saturating_add(count);
            let seq = self.next_seq();
            self.push(&line::lost(at, seq, count));
        }
    }

    fn write_down(&mut self, Waiting { at, event, count, .. }: &Waiting) {
        if let Some(line) = line::of_event(*at, self.seq + 1, event, *count) {
            self.seq += 1;
            self.push(&line);
        }
    }

    fn push(&mut self, line: &str) {
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
    }

    /// Writes all lines, however long that takes; once the queue has ended, as long as the file
    /// takes something, and [`END_CAP`] at most. Returns whether they are written.
    fn write_all(&mut self, runtime: &Runtime, events: &EventStream) -> bool {
        let began_at = Instant::now();
        let mut taken_at = began_at;
        loop {
            let before = self.written;
            let Err(error) = self.write() else {
                self.note(None);
                return true;
            };
            let is_slow = error.kind() == io::ErrorKind::WouldBlock;
            let now = Instant::now();
            if !is_slow || now >= began_at + RETRY {
                self.note(Some(&error));
            }
            if self.written != before || !events.queue.is_closed() {
                taken_at = now;
            }
            // There may be events in the queue nevertheless.
            let is_over = events.queue.is_closed()
                && (taken_at + END_TIMEOUT <= now
                    || *self.ending_since.get_or_insert(now) + END_CAP <= now);
            if is_over {
                let lines = self.lines[self.written..].iter().filter(|&&byte| byte == b'\n');
                let (lines, events) = (lines.count(), events.queue.len());
                tracing::warn!(lines, events, "these are missing at the end of the audit log");
                return false;
            }
            if !is_slow {
                self.wait(runtime, events);
            }
        }
    }

    /// Waits until a write that has failed is worth another attempt.
    fn wait(&self, runtime: &Runtime, events: &EventStream) {
        let retry_at = Instant::now() + RETRY;
        let patience = Duration::from_millis(PATIENCE_MS.into());
        runtime.block_on(async {
            loop {
                let has_next = tokio::time::timeout(patience, self.shared.has_next.notified());
                let is_over = has_next.await.is_ok() || events.queue.is_closed();
                if is_over || Instant::now() >= retry_at {
                    return;
                }
            }
        });
    }

    /// Writes all lines.
    ///
    /// # Errors
    /// Why some are left. [`io::ErrorKind::WouldBlock`] after [`PATIENCE_MS`].
    fn write(&mut self) -> io::Result<()> {
        if let Some(next) = self.shared.take_next() {
            self.file = next;
            let whole = &self.lines[..self.written];
            self.written = whole.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        }
        while self.written < self.lines.len() {
            let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut polled, PollTimeout::from(PATIENCE_MS))? == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let rest = &self.lines[self.written..];
            match self.file.write(&rest[..rest.len().min(PIECE)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.lines.clear();
        self.written = 0;
        Ok(())
    }

    /// Notes whether writing goes well.
    fn note(&self, error: Option<&io::Error>) {
        let was_failing = self.shared.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match (was_failing, error) {
            (false, Some(error)) => tracing::warn!(
                %error,
                "the audit log cannot be written: it is tried again, and events that do not fit \
                 into memory are lost"
            ),
            (true, None) => tracing::warn!("the audit log can be written again"),
            (true, Some(_)) | (false, None) => {}
        }
    }
}

/// A reader that left and a file that reached its largest size are errors of write(2); the signals
/// that come with them would end the process.
fn hold_signals_back() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.add(Signal::SIGXFSZ);
    if let Err(errno) = signals.thread_block() {
        tracing::debug!(%errno, "signals of the audit log are not held back");
    }
}
