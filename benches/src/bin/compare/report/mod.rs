//! The results of a run: samples by row and stack, their medians, and comparisons of stacks.
//!
//! Owns the collected numbers. Stacks that took turns are compared window by window: a ratio is the
//! median of the ratios within each window, so a core that changes its speed between windows does
//! not decide it. `text`, `csv` and `svg` format the numbers; `bars` compares them with the
//! promises.

pub(crate) mod bars;
pub(crate) mod csv;
pub(crate) mod svg;
pub(crate) mod text;

use crate::measure::{Metric, Sample};
use crate::stack::StackKind;

/// Every number of a run.
pub(crate) struct Results {
    stacks: Vec<StackKind>,
    rows: Vec<Row>,
    failures: Vec<String>,
}

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) round: u32,
    /// Within the round.
    pub(crate) window: u32,
}

/// One line of the report.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) metric: Metric,
    /// In the order measured; at most one for each window and stack.
    pub(crate) samples: Vec<(At, StackKind, f64)>,
}

/// A comparison: the quartiles of the ratios.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    /// Half of the ratios lie between these two.
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: usize,
}

impl Row {
    fn of(&self, stack: StackKind) -> impl Iterator<Item = (At, f64)> {
        self.samples
            .iter()
            .filter(move |(_, measured, _)| *measured == stack)
            .map(|(at, _, value)| (*at, *value))
    }

    /// The median over all windows of `stack`.
    pub(crate) fn median(&self, stack: StackKind) -> Option<f64> {
        let mut values: Vec<f64> = self.of(stack).map(|(_, value)| value).collect();
        values.sort_unstable_by(f64::total_cmp);
        quartile(&values, 2)
    }

    /// `stack` as a multiple of `base`: window by window if both took turns, and have as many
    /// windows, else by the medians. `None` if either is missing or the base is not above zero.
    pub(crate) fn multiple(&self, stack: StackKind, base: StackKind) -> Option<f64> {
        if self.of(stack).count() == self.of(base).count() {
            return Some(self.ratio_to(stack, self, base)?.median);
        }
        let base = self.median(base).filter(|base| *base > 0.0)?;
        Some(self.median(stack)? / base)
    }

    /// `stack` as a multiple of `base` in another row, which may be this one, window by window.
    pub(crate) fn ratio_to(
        &self,
        stack: StackKind,
        other: &Self,
        base: StackKind,
    ) -> Option<Ratio> {
        let mut ratios: Vec<f64> = self
            .of(stack)
            .filter_map(|(at, value)| {
                let (_, base) = other.of(base).find(|(other, _)| *other == at)?;
                (base > 0.0).then_some(value / base)
            })
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        Some(Ratio {
            median: quartile(&ratios, 2)?,
            lower: quartile(&ratios, 1)?,
            upper: quartile(&ratios, 3)?,
            count: ratios.len(),
        })
    }
}

/// The value below which that many quarters of the sorted values lie, interpolated between
/// neighbours.
fn quartile(sorted: &[f64], quarters: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let (below, rest) = (quarters * last / 4, quarters * last % 4);
    let (low, high) = (sorted.get(below)?, sorted.get((below + 1).min(last))?);
    Some(low + (high - low) * rest as f64 / 4.0)
}

impl Results {
    pub(crate) fn new(stacks: Vec<StackKind>) -> Self {
        Self { stacks, rows: Vec::new(), failures: Vec::new() }
    }

    pub(crate) fn record(&mut self, at: At, stack: StackKind, samples: Vec<Sample>) {
        for sample in samples {
            let known = self
                .rows
                .iter_mut()
                .find(|row| row.name == sample.row && row.metric == sample.metric);
            match known {
                Some(row) => row.samples.push((at, stack, sample.value)),
                None => self.rows.push(Row {
                    name: sample.row,
                    metric: sample.metric,
                    samples: vec![(at, stack, sample.value)],
                }),
            }
        }
    }

    pub(crate) fn record_failure(&mut self, failure: String) {
        self.failures.push(failure);
    }

    pub(crate) fn stacks(&self) -> &[StackKind] {
        &self.stacks
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn row(&self, name: &str, metric: Metric) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name && row.metric == metric)
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// A number with about three significant digits.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], theirs: &[f64]) -> Row {
        let of = |stack, values: &[f64]| -> Vec<(At, StackKind, f64)> {
            let number = |(window, value): (usize, &f64)| {
                (At { round: 0, window: u32::try_from(window).unwrap() }, stack, *value)
            };
            values.iter().enumerate().map(number).collect()
        };
        let mut samples = of(StackKind::Ours, ours);
        samples.extend(of(StackKind::Slirp4netns, theirs));
        Row { name: "row".into(), metric: Metric::Rate, samples }
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_both_middles() {
        assert_eq!(row(&[9.0, 1.0, 5.0], &[]).median(StackKind::Ours), Some(5.0));
        assert_eq!(row(&[4.0, 1.0, 9.0, 2.0], &[]).median(StackKind::Ours), Some(3.0));
        assert_eq!(row(&[1.0], &[]).median(StackKind::Pasta), None);
    }

    #[test]
    fn ratio_needs_a_base_above_zero() {
        let of = |row: Row| row.ratio_to(StackKind::Ours, &row, StackKind::Slirp4netns);
        assert_eq!(of(row(&[6.0], &[])), None);
        assert_eq!(of(row(&[6.0], &[0.0])), None);
        let ratio = of(row(&[6.0, 6.0], &[0.0, 4.0])).unwrap();
        assert!((ratio.median, ratio.count) == (1.5, 1));
    }

    #[test]
    fn what_was_measured_side_by_side_is_compared() {
        // The core of three windows is twice as fast: by the medians of either, 20 to 10.
        let row = row(&[20.0, 10.0, 20.0, 10.0, 20.0], &[16.0, 8.0, 10.0, 8.0, 16.0]);
        let ratio = row.ratio_to(StackKind::Ours, &row, StackKind::Slirp4netns).unwrap();
        let expected = Ratio { median: 1.25, lower: 1.25, upper: 1.25, count: 5 };
        assert_eq!(ratio, expected);
    }

    #[test]
    fn what_was_measured_by_itself_is_compared_by_medians() {
        let mut row = row(&[], &[8.0, 12.0, 10.0]);
        row.samples.push((At { round: 0, window: 0 }, StackKind::Pasta, 4.0));
        assert_eq!(row.multiple(StackKind::Pasta, StackKind::Slirp4netns), Some(0.4));
        assert_eq!(row.multiple(StackKind::Ours, StackKind::Slirp4netns), None);
    }

    #[test]
    fn half_of_the_ratios_lie_between_the_quartiles() {
        let row = row(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0; 6]);
        let ratio = row.ratio_to(StackKind::Ours, &row, StackKind::Slirp4netns).unwrap();
        assert_eq!((ratio.lower, ratio.median, ratio.upper), (2.25, 3.5, 4.75));
    }
}
