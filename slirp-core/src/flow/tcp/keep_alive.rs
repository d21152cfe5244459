//! The guest's keep-alive probes, passed on to the host's kernel.
//!
//! A guest's probes (RFC 1122 section 4.2.3.6) are answered by the engine, which says nothing of
//! the remote. So the first probe makes the host's kernel probe the remote after the same time of
//! idleness. A remote that is gone breaks the host's socket, and that resets the guest.

use core::time::Duration;

/// Idleness from which on a segment that repeats the last byte may be a keep-alive probe: the least
/// that Linux lets a program ask for is 1 s (tcp(7)), and clocks differ.
const KEEP_ALIVE_LEAST: Duration = Duration::from_millis(900);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// Seconds of idleness after which the guest probes; zero while it does not.
    seconds: u32,
    /// What the host was told.
    told: u32,
}

impl KeepAlive {
    pub(super) const fn new() -> Self {
        Self { seconds: 0, told: 0 }
    }

    /// Whether a segment that comes after `idle_for` may be a probe.
    pub(super) fn may_be_probe(idle_for: Duration) -> bool {
        idle_for >= KEEP_ALIVE_LEAST
    }

    /// The guest has probed after `idle_for`.
    pub(super) fn on_probe(&mut self, idle_for: Duration) {
        // To the nearest second, which is what the host's kernel counts in.
        let seconds = (idle_for + Duration::from_millis(500)).as_secs();
        self.seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    }

    /// What the host is to be told, once.
    pub(super) fn take_report(&mut self) -> Option<Duration> {
        if self.seconds == self.told {
            return None;
        }
        self.told = self.seconds;
        Some(Duration::from_secs(self.seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_told_in_whole_seconds_and_only_when_it_changes() {
        let mut keep_alive = KeepAlive::new();
        assert_eq!(keep_alive.take_report(), None);
        for (millis, report) in [(10_400, Some(10)), (9600, None), (20_500, Some(21))] {
            keep_alive.on_probe(Duration::from_millis(millis));
            assert_eq!(keep_alive.take_report(), report.map(Duration::from_secs), "{millis} ms");
            assert_eq!(keep_alive.take_report(), None);
        }
    }

    #[test]
    fn segment_soon_after_another_is_no_probe() {
        assert!(!KeepAlive::may_be_probe(Duration::from_millis(899)));
        assert!(KeepAlive::may_be_probe(Duration::from_millis(900)));
    }
}
