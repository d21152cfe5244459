//! Time as the pure side sees it: a number that somebody else counts.
//!
//! Owns the [`Instant`] newtype. The clock that produces it lives on the other side of the wall
//! (or in a simulator), so the same inputs always give the same outputs.

use core::ops::Add;
use core::time::Duration;

/// A point in time, in microseconds since an epoch that the caller chose.
///
/// Only differences matter. The product counts from the start of the instance, simulators from
/// zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The epoch.
    pub const ZERO: Self = Self(0);

    /// An instant `micros` microseconds after the epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, or zero when `earlier` is not earlier.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_saturates_instead_of_wrapping() {
        let late = Instant::from_micros(u64::MAX - 1);
        assert_eq!(late + Duration::from_secs(1), Instant::from_micros(u64::MAX));
    }

    #[test]
    fn difference_to_a_later_instant_is_zero() {
        assert_eq!(Instant::ZERO.saturating_since(Instant::from_micros(5)), Duration::ZERO);
        assert_eq!(
            Instant::from_micros(5).saturating_since(Instant::ZERO),
            Duration::from_micros(5)
        );
    }
}
