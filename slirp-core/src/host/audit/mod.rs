//! The audit log: what an egress policy has decided, one JSON object a line.
//!
//! Owns the log's file, how much is written there, and the data thread's end of it.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `line` | what a line says |
//! | `held` | equal refusals that become one line |
//! | `writer` | the thread that writes |
//! | `digest` | the SHA-256 of a policy's text |
//!
//! # Theory of operation
//! The data thread formats nothing and waits for nobody: it puts each event that the log has into a
//! queue of [`QUEUE_CAP`] places. A thread of its own makes lines of them and writes. While a write
//! fails (no space, a FIFO without a reader or with a slow one) it keeps the lines that it has and
//! tries again each second; events that find no place in the queue meanwhile are counted, and a
//! line `lost` says how many. The network feels none of that.
//!
//! An operator who wants the opposite makes the log [required](AuditLog::required): while it cannot
//! be written, or its queue is almost full, whatever begins is refused, and lookups fail. So is
//! what begins behind more events than the stack keeps in one turn. What is open goes on.

#![expect(clippy::disallowed_methods, reason = "a file, a thread and the time of day")]

mod digest;
mod held;
pub(crate) mod line;
mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use super::events::Observer;
use crate::egress::{Action, EgressPolicy};
use crate::journal::{Event, Lookup, Report};
use crate::stack::AuditDuty;
use crate::stats::AuditStats;
use writer::{Shared, Writer};

/// Events that may wait to be written: three seconds' worth at 5,000 a second.
const QUEUE_CAP: usize = 16_384;
/// Places that are kept for the events of one turn of the event loop where the log is required: as
/// many as the stack keeps.
const TURN_CAP: usize = 1024;

crate::sys::calls::system_calls! {
    SYS_write => "lines of the audit log";
    SYS_ppoll => "a reader of the audit log that is slow";
    #[cfg(target_arch = "x86_64")]
    SYS_poll => "a reader of the audit log that is slow";
}

/// How much an audit log has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
#[non_exhaustive]
pub enum AuditLevel {
    /// What was refused, or would have been.
    Denied,
    /// Every verdict about a flow, and refused lookups.
    #[default]
    Decisions,
    /// Every lookup, and every name in first bytes, too.
    All,
}

impl AuditLevel {
    /// Whether a log of this level has a line about `event`.
    pub(crate) fn has(self, event: &Event) -> bool {
        match event {
            Event::Judged { judgement, .. } => {
                self >= Self::Decisions || judgement.action != Action::Allow
            }
            Event::Verified { judgement, .. } => {
                self == Self::All || judgement.action != Action::Allow
            }
            Event::Closed { judged, .. } | Event::Refused { flow: Some(_), judged, .. } => {
                self >= Self::Decisions && judged.is_some()
            }
            Event::Answered { lookup: Some(lookup), would, .. } => {
                self == Self::All
                    || (self == Self::Decisions && *lookup == Lookup::Unfit)
                    || line::is_denied(*lookup)
                    || would.is_some()
            }
            Event::PolicySet { .. } => true,
            Event::ManyNames { .. } | Event::QuestionOpened(_) | Event::RateLimited { .. } => {
                self >= Self::Decisions
            }
            Event::QuestionEnded { ending, .. } => {
                self >= Self::Decisions || ending.action() == Some(Action::Deny)
            }
            Event::Opened { .. }
            | Event::Connected { .. }
            | Event::Refused { flow: None, .. }
            | Event::Unsent { .. }
            | Event::Asked { .. }
            | Event::Answered { lookup: None, .. }
            | Event::Discarded { .. } => false,
        }
    }

    fn filter(self) -> fn(&Event) -> bool {
        match self {
            Self::Denied => |event| Self::Denied.has(event),
            Self::Decisions => |event| Self::Decisions.has(event),
            Self::All => |event| Self::All.has(event),
        }
    }
}

/// A file that what an egress policy decides is written to.
#[derive(Debug)]
pub struct AuditLog {
    file: File,
    level: AuditLevel,
    is_required: bool,
}

impl AuditLog {
    /// Appends to the file at `path`. A new one gets the mode 0600. A FIFO must have a reader.
    ///
    /// # Errors
    /// The errors of open(2).
    pub fn append(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        // Without O_NONBLOCK a FIFO would make us wait for its reader.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        Ok(Self::to(options.open(path)?.into()))
    }

    /// A log in a file or pipe that is open for writing.
    pub fn to(fd: OwnedFd) -> Self {
        Self { file: fd.into(), level: AuditLevel::default(), is_required: false }
    }

    /// How much it has (default [`AuditLevel::Decisions`]).
    #[must_use]
    pub fn level(self, level: AuditLevel) -> Self {
        Self { level, ..self }
    }

    /// Whether new flows are refused, and lookups fail, while it cannot be written (default: it
    /// loses lines and says how many).
    #[must_use]
    pub fn required(self, is_required: bool) -> Self {
        Self { is_required, ..self }
    }

    /// Starts the thread that writes. The first line, which says that `policy` is in force, is
    /// written when this returns, if it can be.
    pub(crate) fn start(self, policy: Option<&EgressPolicy>) -> io::Result<Audit> {
        let Self { file, level, is_required } = self;
        let shared = Arc::new(Shared::default());
        let (observer, events) = Observer::new(QUEUE_CAP, level.filter());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let writer = Writer::new(file, Arc::clone(&shared), policy);
        let (begun, has_begun) = std::sync::mpsc::channel();
        let writing = std::thread::Builder::new()
            .name("slirp-audit".into())
            .spawn(move || writer.run(&runtime, events, &begun))?;
        // A thread that has panicked is noticed at the end.
        let _ = has_begun.recv();
        Ok(Audit { observer: Some(observer), is_required, shared, writing: Some(writing) })
    }
}

/// The data thread's end of an audit log. Dropping it writes out what there is.
#[derive(Debug)]
pub(crate) struct Audit {
    /// `None` at the end.
    observer: Option<Observer>,
    is_required: bool,
    shared: Arc<Shared>,
    writing: Option<JoinHandle<()>>,
}

impl Audit {
    /// Takes what the stack has told.
    pub(crate) fn tell(&mut self, at: SystemTime, report: &Report) {
        if let Some(observer) = &mut self.observer {
            observer.tell(at, report);
        }
    }

    /// What it was given, and what it had no room for.
    pub(crate) fn stats(&self) -> AuditStats {
        self.observer.as_ref().map(Observer::sum).unwrap_or_default()
    }

    /// Where the data thread's losses are told.
    pub(crate) fn observer(&mut self) -> Option<&mut Observer> {
        self.observer.as_mut()
    }

    /// Whether the log does not know yet of all that it has lost.
    pub(crate) fn is_behind(&self) -> bool {
        self.observer.as_ref().is_some_and(Observer::is_behind)
    }

    /// What the stack owes to the log.
    pub(crate) fn duty(&self) -> AuditDuty {
        match (self.is_required, self.forbids()) {
            (false, _) => AuditDuty::Free,
            (true, false) => AuditDuty::Required,
            (true, true) => AuditDuty::Failing,
        }
    }

    /// Whether nothing new may begin, because it could not be written down.
    pub(crate) fn forbids(&self) -> bool {
        let has_room = || {
            let queue = self.observer.as_ref();
            queue.is_some_and(|queue| !queue.is_gone() && queue.room() >= TURN_CAP)
        };
        self.is_required && (self.shared.is_failing() || !has_room())
    }

    /// Goes on in another file, as after a rotation: with the line that is next, as a whole.
    pub(crate) fn reopen(&self, fd: OwnedFd) {
        self.shared.reopen(fd.into());
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        // The end of the queue is the end of the thread.
        drop(self.observer.take());
        if let Some(writing) = self.writing.take()
            && writing.join().is_err()
        {
            tracing::error!("the audit log's thread panicked; please report this");
        }
    }
}

#[cfg(test)]
mod tests;
