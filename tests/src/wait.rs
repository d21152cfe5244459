//! Bounded polling of a condition, for facts that nothing announces.

use std::time::{Duration, Instant};

/// Longest wait for something that is expected to happen.
///
/// Arbitrary, and far more than an idle machine takes: a test that passes does not wait for it, and
/// a machine with other work on every core must not reach it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `condition` every few milliseconds until it holds.
///
/// # Panics
/// When `limit` passes first; `what` names the condition in the message.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started_at = Instant::now();
    while !condition() {
        assert!(started_at.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
