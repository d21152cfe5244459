//! The shared state of a load's threads: a count of bytes, and the gate at which paused senders
//! wait.
//!
//! A paused load costs nothing: while one stack is measured, the senders of all others are paused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use anyhow::bail;

use super::nanos;
use crate::worker::Reply;

pub(crate) struct Progress {
    bytes: AtomicU64,
    /// A copy of the gate's flag, for senders that need not wait.
    is_paused: AtomicBool,
    gate: Mutex<bool>,
    opened: Condvar,
    started_at: Instant,
}

impl Progress {
    /// Nothing counted; paused, so that every end is connected before the first sender fills the
    /// queues.
    pub(crate) fn new() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            is_paused: AtomicBool::new(true),
            gate: Mutex::new(true),
            opened: Condvar::new(),
            started_at: Instant::now(),
        }
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// A sender calls this before its next bytes. Waits while the load is paused.
    pub(crate) fn pass(&self) {
        if !self.is_paused.load(Ordering::Relaxed) {
            return;
        }
        // No thread panics while it holds the gate.
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(gate, |is_paused| *is_paused));
    }

    fn set_paused(&self, is_paused: bool) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = is_paused;
        self.is_paused.store(is_paused, Ordering::Relaxed);
        self.opened.notify_all();
    }

    /// Answers `mark`, `pause` and `resume` with the bytes so far and the clock of the same
    /// instant.
    pub(crate) fn answer(&self, question: &str) -> anyhow::Result<Reply> {
        match question {
            "mark" => {}
            "pause" => self.set_paused(true),
            "resume" => self.set_paused(false),
            other => bail!("unknown question {other}"),
        }
        let bytes = self.bytes.load(Ordering::Relaxed);
        Ok(Reply::default().with("bytes", bytes).with("nanos", nanos(self.started_at.elapsed())))
    }
}
