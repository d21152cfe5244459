//! A token bucket.
//!
//! Owns the arithmetic. One byte is 8,000,000 tokens (bits times microseconds), so that no fraction
//! of a byte is lost at any rate, and 128 bits hold what a rate of 2^64 bits a second earns in 2^64
//! microseconds.

use core::time::Duration;

use crate::rates::Rate;
use crate::time::Instant;

/// Tokens of one byte.
const BYTE: i128 = 8_000_000;
/// The least burst that is made of a rate without one (as `tc` examples have it: one large frame).
const BURST_DEFAULT: u64 = 64 * 1024;
/// One packet on most links: the smallest burst, and what a flow takes at a time at low rates.
pub(super) const PACKET: u64 = 1500;
/// A burst is at least what passes in so many milliseconds: two of the shaper's
/// [ticks](super::TICK), so that one that comes late costs nothing.
const BURST_FLOOR_MS: u64 = 10;
/// Without a burst, it is what passes in so many milliseconds.
const BURST_DEFAULT_MS: u64 = 50;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Bucket {
    /// Bits a second: tokens a microsecond.
    rate: u64,
    /// Tokens that it holds.
    cap: i128,
    /// Negative after a datagram that is larger than the burst.
    level: i128,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        let cap = cap_of(rate);
        Self { rate: rate.bits_per_second.max(1), cap, level: cap, filled_at: now }
    }

    /// Goes on with another rate, and with no more tokens than there were.
    pub(super) fn set(&mut self, rate: Rate, now: Instant) {
        self.refill(now);
        self.rate = rate.bits_per_second.max(1);
        self.cap = cap_of(rate);
        self.level = self.level.min(self.cap);
    }

    /// Adds what was earned until `now`.
    pub(super) fn refill(&mut self, now: Instant) {
        let elapsed = now.as_micros().saturating_sub(self.filled_at.as_micros());
        self.filled_at = self.filled_at.max(now);
        let earned = u128::from(self.rate) * u128::from(elapsed);
        let earned = i128::try_from(earned).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(earned).min(self.cap);
    }

    /// Bytes that may pass now.
    pub(super) fn available(&self) -> u64 {
        u64::try_from(self.level / BYTE).unwrap_or(if self.level < 0 { 0 } else { u64::MAX })
    }

    /// Whether `bytes` may pass now. What is larger than the burst may, if the bucket is full.
    pub(super) fn has(&self, bytes: u64) -> bool {
        self.level >= self.wanted(bytes)
    }

    /// `bytes` have passed.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(tokens(bytes));
    }

    /// When it [`has`](Self::has) so many bytes, if nothing is spent meanwhile.
    pub(super) fn ready_at(&self, bytes: u64) -> Instant {
        let missing = self.wanted(bytes).saturating_sub(self.level).max(0);
        let rate = i128::from(self.rate);
        let micros = missing / rate + i128::from(missing % rate != 0);
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.filled_at + Duration::from_micros(micros)
    }

    fn wanted(&self, bytes: u64) -> i128 {
        tokens(bytes).min(self.cap)
    }
}

/// The burst of `rate` in bytes.
pub(super) fn burst_of(rate: Rate) -> u64 {
    let in_ms = |ms: u64| {
        let bytes = u128::from(rate.bits_per_second) * u128::from(ms) / 8000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let burst = rate.burst.unwrap_or_else(|| in_ms(BURST_DEFAULT_MS).max(BURST_DEFAULT));
    burst.max(in_ms(BURST_FLOOR_MS)).max(PACKET)
}

fn cap_of(rate: Rate) -> i128 {
    tokens(burst_of(rate))
}

fn tokens(bytes: u64) -> i128 {
    i128::from(bytes) * BYTE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(bits_per_second: u64, burst: Option<u64>) -> Rate {
        Rate { bits_per_second, burst }
    }

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn burst_is_what_passes_in_50_ms_unless_it_is_given() {
        for (bits, given, burst) in [
            (64_000, None, 65_536),
            (1_000_000_000, None, 6_250_000),
            (1_000_000, Some(0), 1500),
            (1_000_000_000, Some(10), 1_250_000),
            (1_000_000, Some((1 << 31) - 1), (1 << 31) - 1),
            (u64::MAX, Some(u64::MAX), u64::MAX),
            (u64::MAX, None, 115_292_150_460_684_697),
        ] {
            assert_eq!(burst_of(rate(bits, given)), burst, "{bits} {given:?}");
        }
    }

    #[test]
    fn bucket_earns_to_the_bit() {
        // One byte in 125 microseconds.
        let mut bucket = Bucket::new(rate(64_000, Some(1500)), at(0));
        bucket.spend(1500);
        for micros in 1..=125 {
            assert_eq!(bucket.available(), 0);
            bucket.refill(at(micros));
        }
        assert_eq!(bucket.available(), 1);
        assert!(bucket.has(1) && !bucket.has(2));
        assert_eq!(bucket.ready_at(2), at(250));
        assert_eq!(bucket.ready_at(1), at(125));
        bucket.refill(at(100));
        assert_eq!(bucket.available(), 1, "time does not go back");
        bucket.refill(at(u64::MAX));
        assert_eq!(bucket.available(), 1500);
    }

    #[test]
    fn what_is_larger_than_the_burst_waits_for_a_full_bucket_and_is_paid_for() {
        let mut bucket = Bucket::new(rate(8_000_000, Some(10_000)), at(0));
        bucket.spend(1);
        assert!(!bucket.has(60_000));
        assert_eq!(bucket.ready_at(60_000), at(1));
        bucket.refill(at(1));
        assert!(bucket.has(60_000));
        bucket.spend(60_000);
        assert_eq!(bucket.available(), 0);
        assert_eq!(bucket.ready_at(1), at(50_002));
    }

    #[test]
    fn another_rate_lends_nothing() {
        let mut bucket = Bucket::new(rate(8_000_000, Some(10_000)), at(0));
        bucket.spend(9000);
        bucket.set(rate(80_000_000, Some(1_000_000)), at(0));
        assert_eq!(bucket.available(), 1000);
        bucket.set(rate(8_000, Some(1500)), at(1_000_000));
        assert_eq!(bucket.available(), 1500);
    }

    #[test]
    fn absurd_rates_do_not_overflow() {
        let rates = [rate(u64::MAX, Some(u64::MAX)), rate(1, Some(u64::MAX)), rate(0, Some(0))];
        for rate in rates {
            let mut bucket = Bucket::new(rate, at(0));
            for micros in [1, 1_000_000, u64::MAX] {
                bucket.spend(u64::MAX);
                let _ = (bucket.ready_at(u64::MAX), bucket.available(), bucket.has(u64::MAX));
                bucket.refill(at(micros));
                bucket.set(rate, at(micros));
            }
        }
    }
}
