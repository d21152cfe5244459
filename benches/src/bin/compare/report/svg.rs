//! The plot: every row as a group of bars, as multiples of slirp4netns on a logarithmic axis.
//!
//! Owns the drawing; SVG 1.1, self-contained, readable on a light and a dark page. If slirp4netns
//! was not measured, the first stack of the run is the base.

use super::{Results, Row, short};
use crate::stack::StackKind;

/// Pixels: the picture's width, the labels' column, a bar, the gap between groups, the head.
const WIDTH: f64 = 1100.0;
const LABELS: f64 = 400.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
const HEAD: f64 = 62.0;
/// Room for the value behind the longest bar.
const TAIL: f64 = 120.0;

pub(crate) fn render(results: &Results) -> String {
    let stacks = results.stacks();
    let base = stacks
        .iter()
        .copied()
        .find(|stack| *stack == StackKind::Slirp4netns)
        .or_else(|| stacks.first().copied())
        .unwrap_or(StackKind::Ours);
    // A ratio exists for rows where the base measured something above zero.
    let rows: Vec<&Row> = results
        .rows()
        .iter()
        .filter(|row| stacks.iter().any(|stack| positive_ratio(row, *stack, base).is_some()))
        .collect();
    let axis = Axis::over(&rows, stacks, base);
    let group = BAR * stacks.len() as f64 + GAP;
    let height = HEAD + group * rows.len() as f64 + 20.0;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    svg.push_str(&text(10.0, 20.0, "start", &format!("Multiples of {} (1x)", base.label()), 15));
    svg.push_str(&legend(stacks));
    svg.push_str(&axis.grid(height));
    let mut top = HEAD;
    for row in rows {
        svg.push_str(&draw_row(row, stacks, base, &axis, top));
        top += group;
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_row(row: &Row, stacks: &[StackKind], base: StackKind, axis: &Axis, top: f64) -> String {
    let better = if row.metric.more_is_better() { "more is better" } else { "less is better" };
    let middle = top + BAR * stacks.len() as f64 / 2.0;
    let mut svg =
        text(LABELS - 8.0, middle, "end", &format!("{}: {}", row.name, row.metric.label()), 11);
    svg.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" font-size=\"9\" \
         fill=\"#777777\">{better}</text>\n",
        LABELS - 8.0,
        middle + 11.0,
    ));
    let origin = axis.at(1.0);
    for (index, stack) in stacks.iter().enumerate() {
        let (Some(value), Some(ratio)) = (row.median(*stack), positive_ratio(row, *stack, base))
        else {
            continue;
        };
        let y = top + BAR * index as f64;
        let end = axis.at(ratio);
        let left = origin.min(end);
        svg.push_str(&format!(
            "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n",
            (origin - end).abs().max(1.5),
            BAR - 2.0,
            color(*stack),
        ));
        let label = format!("{} {} ({}x)", short(value), row.metric.unit(), short(ratio));
        svg.push_str(&text(origin.max(end) + 4.0, y + BAR - 4.0, "start", &label, 10));
    }
    svg
}

fn positive_ratio(row: &Row, stack: StackKind, base: StackKind) -> Option<f64> {
    let ratio = row.multiple(stack, base)?;
    (ratio > 0.0 && ratio.is_finite()).then_some(ratio)
}

/// Decades from left to right.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(rows: &[&Row], stacks: &[StackKind], base: StackKind) -> Self {
        let mut axis = Self { low: -1.0, high: 1.0 };
        for row in rows {
            for ratio in stacks.iter().filter_map(|stack| positive_ratio(row, *stack, base)) {
                axis.low = axis.low.min(ratio.log10().floor());
                axis.high = axis.high.max(ratio.log10().ceil());
            }
        }
        axis
    }

    fn at(&self, ratio: f64) -> f64 {
        let share = (ratio.log10() - self.low) / (self.high - self.low);
        LABELS + share * (WIDTH - LABELS - TAIL)
    }

    fn grid(&self, height: f64) -> String {
        let mut svg = String::new();
        let mut decade = self.low;
        while decade <= self.high {
            let ratio = 10_f64.powf(decade);
            let x = self.at(ratio);
            let stroke = if decade == 0.0 { "#555555" } else { "#dddddd" };
            svg.push_str(&format!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" \
                 stroke=\"{stroke}\"/>\n",
                HEAD - 6.0,
                height - 15.0,
            ));
            svg.push_str(&text(x, HEAD - 10.0, "middle", &format!("{ratio}x"), 10));
            decade += 1.0;
        }
        svg
    }
}

fn legend(stacks: &[StackKind]) -> String {
    let mut svg = String::new();
    for (index, stack) in stacks.iter().enumerate() {
        let x = LABELS + 130.0 * index as f64;
        svg.push_str(&format!(
            "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{}\"/>\n",
            color(*stack),
        ));
        svg.push_str(&text(x + 18.0, 20.0, "start", stack.label(), 12));
    }
    svg
}

/// Row names are this tool's own and hold no character that XML reserves.
fn text(x: f64, y: f64, anchor: &str, words: &str, size: u32) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
         fill=\"#222222\">{words}</text>\n"
    )
}

fn color(stack: StackKind) -> &'static str {
    match stack {
        StackKind::Ours => "#d9622b",
        StackKind::Policy => "#8f3f9c",
        StackKind::Run => "#3f9c8f",
        StackKind::Door => "#b5942b",
        StackKind::Slirp4netns => "#7a8794",
        StackKind::Pasta => "#3f7fb5",
    }
}
