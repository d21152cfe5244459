//! What comes out of a run: samples by row and stack, and their medians.
//!
//! Owns the collected numbers; how they look is `text`'s, `csv`'s and `svg`'s, what they mean against the
//! promises is `bars`'.

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

/// One line of the report.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) metric: Metric,
    /// Round, stack, value; in the order measured.
    pub(crate) samples: Vec<(u32, StackKind, f64)>,
}

impl Row {
    /// The median over the rounds of `stack`.
    pub(crate) fn median(&self, stack: StackKind) -> Option<f64> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter(|(_, measured, _)| *measured == stack)
            .map(|(_, _, value)| *value)
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        let upper = *values.get(values.len() / 2)?;
        if values.len() % 2 == 1 {
            return Some(upper);
        }
        values.get(values.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
    }

    /// `stack` as a multiple of `base`; nothing where either is missing or the base is not above zero.
    pub(crate) fn ratio(&self, stack: StackKind, base: StackKind) -> Option<f64> {
        let base = self.median(base)?;
        (base > 0.0).then(|| self.median(stack).map(|value| value / base)).flatten()
    }
}

impl Results {
    pub(crate) fn new(stacks: Vec<StackKind>) -> Self {
        Self { stacks, rows: Vec::new(), failures: Vec::new() }
    }

    pub(crate) fn record(&mut self, round: u32, stack: StackKind, samples: Vec<Sample>) {
        for sample in samples {
            let known = self
                .rows
                .iter_mut()
                .find(|row| row.name == sample.row && row.metric == sample.metric);
            match known {
                Some(row) => row.samples.push((round, stack, sample.value)),
                None => self.rows.push(Row {
                    name: sample.row,
                    metric: sample.metric,
                    samples: vec![(round, stack, sample.value)],
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

    fn row(values: &[f64]) -> Row {
        let samples = values.iter().map(|value| (0, StackKind::Ours, *value)).collect();
        Row { name: "row".into(), metric: Metric::Rate, samples }
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_both_middles() {
        assert_eq!(row(&[9.0, 1.0, 5.0]).median(StackKind::Ours), Some(5.0));
        assert_eq!(row(&[4.0, 1.0, 9.0, 2.0]).median(StackKind::Ours), Some(3.0));
        assert_eq!(row(&[1.0]).median(StackKind::Pasta), None);
    }

    #[test]
    fn ratio_needs_a_base_above_zero() {
        let mut row = row(&[6.0]);
        assert_eq!(row.ratio(StackKind::Ours, StackKind::Slirp4netns), None);
        row.samples.push((0, StackKind::Slirp4netns, 0.0));
        assert_eq!(row.ratio(StackKind::Ours, StackKind::Slirp4netns), None);
        row.samples.push((1, StackKind::Slirp4netns, 4.0));
        assert_eq!(row.ratio(StackKind::Ours, StackKind::Slirp4netns), Some(3.0));
    }
}
