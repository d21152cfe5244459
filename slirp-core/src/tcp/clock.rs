//! The engine's clock, which runs faster than time.
//!
//! smoltcp's retransmission timer has a floor of one second (RFC 6298 section 2.4) and no knob. The
//! link to the guest is a queue in the same kernel with a round trip of some 50 us; Linux itself
//! uses a floor of 200 ms. Counting [`DILATION`] engine microseconds per microsecond gives that
//! floor and scales everything else that the engine times: initial RTO 200 ms, largest RTO 12 s,
//! zero-window probes from 200 ms on, challenge ACKs five a second.

use crate::time::Instant;

/// Engine microseconds per microsecond.
pub(super) const DILATION: u64 = 5;

/// The time as the engine sees it.
pub(super) fn to_engine(now: Instant) -> smoltcp::time::Instant {
    let micros = now.as_micros().saturating_mul(DILATION);
    smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// The real time of an engine instant, rounded up so that no timer fires early.
pub(super) fn from_engine(at: smoltcp::time::Instant) -> Instant {
    let micros = u64::try_from(at.total_micros()).unwrap_or(0);
    Instant::from_micros(micros.div_ceil(DILATION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_the_engine_is_a_fifth_of_a_second() {
        let now = Instant::from_micros(1_000_000);
        assert_eq!(to_engine(now).total_micros(), 5_000_000);
        let later = to_engine(now) + smoltcp::time::Duration::from_secs(1);
        assert_eq!(from_engine(later), Instant::from_micros(1_200_000));
    }

    #[test]
    fn rounding_never_makes_a_timer_early() {
        let at = smoltcp::time::Instant::from_micros(5_000_001);
        assert!(to_engine(from_engine(at)) >= at);
    }
}
