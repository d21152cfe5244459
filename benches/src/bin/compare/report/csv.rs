//! Every sample and every median as comma-separated values (RFC 4180 quoting), the machine's facts
//! as comments.

use super::Results;

pub(crate) fn render(facts: &str, results: &Results) -> String {
    let mut text = String::new();
    for fact in facts.lines() {
        text.push_str(&format!("# {fact}\n"));
    }
    text.push_str("measurement,metric,unit,stack,round,window,value\n");
    for row in results.rows() {
        let prefix = format!("\"{}\",{},{}", row.name, row.metric.label(), row.metric.unit());
        for (at, stack, value) in &row.samples {
            let (round, window) = (at.round + 1, at.window + 1);
            text.push_str(&format!("{prefix},{},{round},{window},{value}\n", stack.label()));
        }
        for stack in results.stacks() {
            if let Some(median) = row.median(*stack) {
                text.push_str(&format!("{prefix},{},median,,{median}\n", stack.label()));
            }
        }
    }
    text
}
