//! The library inside other programs: instances in this process, with one guest and with several.
//!
//! One test runs at a time ([`turn`]), because some count threads, children and descriptors that
//! the process has left.

mod embedding;
mod members;
mod spliced;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The only running test of this binary holds it.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
