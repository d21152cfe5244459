//! Time as the pure side sees it: a number that somebody else counts.
//!
//! Owns the [`Instant`] newtype. The clock that produces it lives on the other side of the wall
//! (or in a simulator), so the same inputs always give the same outputs.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::Add;
use core::time::Duration;

/// A point in time, in microseconds since an epoch that the caller chose.
///
/// Only differences matter. The product counts from the start of the instance, simulators from
/// zero. The last instant is `u64::MAX - 1` microseconds after the epoch.
// One more than the microseconds, so that `Option<Instant>` takes 8 bytes instead of 16: each flow
// has several.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The epoch.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// An instant `micros` microseconds after the epoch, or the last one.
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// Time since `earlier`, or zero when `earlier` is not earlier.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.as_micros()).finish()
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
        assert_eq!(Instant::ZERO + Duration::MAX, late);
    }

    #[test]
    fn instant_has_room_for_none() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
        for micros in [0, 1, u64::MAX - 1] {
            let instant = Instant::from_micros(micros);
            assert_eq!(instant.as_micros(), micros);
            assert_eq!(format!("{instant:?}"), format!("Instant({micros})"));
        }
        assert_eq!(Instant::from_micros(u64::MAX).as_micros(), u64::MAX - 1);
        assert_eq!((Instant::default(), Instant::ZERO), (Instant::ZERO, Instant::from_micros(0)));
        assert!(None < Some(Instant::ZERO) && Instant::ZERO < Instant::from_micros(1));
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
