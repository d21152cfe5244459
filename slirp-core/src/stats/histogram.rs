//! How long something took, counted in buckets.
//!
//! Owns the bounds, which do not change: collectors add histograms of several programs up.

use core::time::Duration;

/// The upper bounds of the buckets in microseconds, for waits on the network and on people: 1 ms to
/// 2 minutes, in steps of two and two and a half. What took longer is in the last bucket.
const BOUNDS: [u64; 16] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// How often durations fell between fixed bounds.
#[derive(Clone, Default, Debug)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// Counts something that took `time`.
    pub(crate) fn note(&mut self, time: Duration) {
        let bucket = BOUNDS.partition_point(|&bound| Duration::from_micros(bound) < time);
        self.buckets[bucket] += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// For each upper bound how often something took that long or less. Without the last bucket:
    /// [`count`](Self::count) has it too.
    pub fn cumulated(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS.iter().map(|&bound| Duration::from_micros(bound));
        bounds.zip(&self.buckets).scan(0, |total, (bound, &count)| {
            *total += count;
            Some((bound, *total))
        })
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (own, more) in self.buckets.iter_mut().zip(other.buckets) {
            *own += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How often something was counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long all of that took together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_the_rest_to_the_last() {
        let mut histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 120_000_000, 120_000_001, u64::MAX] {
            histogram.note(Duration::from_micros(micros));
        }
        let cumulated: Vec<_> = histogram.cumulated().map(|(_, count)| count).collect();
        assert_eq!((cumulated[0], cumulated[1], cumulated[14], cumulated[15]), (2, 3, 3, 4));
        assert_eq!(histogram.count(), 6);
        assert_eq!(
            histogram.sum(),
            Duration::from_micros(u64::MAX) + Duration::from_micros(240_002_002)
        );
    }
}
