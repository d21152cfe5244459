//! The stack's events on their way to other threads.
//!
//! Owns [`Observed`]. The data thread formats nothing and waits for nobody: an observer that is too
//! slow loses events, and is told how many.

use std::time::SystemTime;

use crate::journal::Event;

/// An event as an observer gets it.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// When it happened.
    pub(crate) at: SystemTime,
    /// Events that were lost between the last one and this one.
    pub(crate) lost: u64,
    /// What happened.
    pub(crate) event: Event,
}
