//! The table for people: medians over all windows, and ratios: to slirp4netns, to ours without
//! a policy, or of our pasta to pasta.

use super::{Results, short};
use crate::stack::StackKind;

/// Columns are two spaces apart; numbers are right-aligned.
pub(crate) fn table(results: &Results) -> String {
    let stacks = results.stacks();
    let base_of = |stack: &StackKind| match stack {
        StackKind::Policy | StackKind::Run => StackKind::Ours,
        StackKind::Door => StackKind::Pasta,
        StackKind::Ours | StackKind::Slirp4netns | StackKind::Pasta => StackKind::Slirp4netns,
    };
    let compared: Vec<(StackKind, StackKind)> = stacks
        .iter()
        .map(|stack| (*stack, base_of(stack)))
        .filter(|(stack, base)| stack != base && stacks.contains(base))
        .collect();
    let mut lines = Vec::new();
    let mut head = vec!["measurement (median)".to_owned(), "unit".to_owned()];
    head.extend(stacks.iter().map(|stack| stack.label().to_owned()));
    let of = |(stack, base): &(StackKind, StackKind)| format!("{}/{}", stack.label(), base.label());
    head.extend(compared.iter().map(of));
    lines.push(head);
    for row in results.rows() {
        let mut line = vec![format!("{}: {}", row.name, row.metric.label())];
        line.push(row.metric.unit().to_owned());
        line.extend(
            stacks.iter().map(|stack| row.median(*stack).map_or_else(|| "-".to_owned(), short)),
        );
        line.extend(compared.iter().map(|&(stack, base)| {
            row.multiple(stack, base)
                .map_or_else(|| "-".to_owned(), |ratio| format!("{}x", short(ratio)))
        }));
        lines.push(line);
    }
    align(&lines)
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut cells = Vec::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Names and units to the left, numbers to the right.
            cells.push(if column < 2 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            });
        }
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
