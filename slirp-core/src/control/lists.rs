//! The lists of names and flows, for replies.
//!
//! Owns how they are read: in parts, so that none keeps the data thread busy. A reply has the next
//! rows of a list in no order, or else the first rows of the whole list in an order, of which no
//! more than a part is kept besides meanwhile.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::requests::{FlowOrder, NameOrder, Part, Refusal};
use super::rows;
use crate::egress::LearnedName;
use crate::flow::JudgedFlow;
use crate::host::handle::Handle;
use crate::member::MemberId;

/// `names`.
pub(super) async fn names(
    handle: &Handle,
    member: Option<MemberId>,
    part: Part<NameOrder>,
) -> Result<Value, Refusal> {
    let (from, limit) = match part {
        Part::Next { from, limit } => (from, limit),
        Part::First { .. } => (0, usize::MAX),
    };
    let key = |row: &LearnedName, order| {
        let flows = match order {
            NameOrder::Name => 0,
            NameOrder::Flows => row.flows,
        };
        (Reverse(flows), row.name.as_str().to_owned(), row.member)
    };
    let mut top = Top::default();
    let mut names = Vec::new();
    let mut next = Some(from);
    while let Some(first) = next
        && let room @ 1.. = limit - names.len()
    {
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let page = handle.learned_names(member, first, room).await.ok_or(Refusal::Ended)?;
        next = page.next;
        match part {
            Part::Next { .. } => names.extend(page.names.iter().map(rows::name)),
            Part::First { order, limit } => {
                top.add(page.names.into_iter().map(|row| (key(&row, order), row)), limit);
            }
        }
    }
    Ok(match part {
        Part::Next { .. } => json!({ "names": names, "next": next }),
        Part::First { .. } => top.reply("names", rows::name),
    })
}

/// `flows`.
pub(super) async fn flows(handle: &Handle, part: Part<FlowOrder>) -> Result<Value, Refusal> {
    let key = |row: &JudgedFlow, order| {
        let flow = &row.summary;
        let rank = match order {
            FlowOrder::Bytes => {
                u128::from(flow.traffic.from_guest) + u128::from(flow.traffic.to_guest)
            }
            FlowOrder::Age => flow.age.as_micros(),
            FlowOrder::Idle => flow.idle.as_micros(),
        };
        (Reverse(rank), flow.id.index)
    };
    let mut top = Top::default();
    let mut rows = Vec::new();
    let mut next = match part {
        Part::Next { from, .. } => Some(from),
        Part::First { .. } => Some(0),
    };
    while let Some(first) = next {
        let page = handle.judged_flows(first).await.ok_or(Refusal::Ended)?;
        next = page.next;
        match part {
            Part::Next { limit, .. } => {
                for flow in &page.flows {
                    if rows.len() == limit {
                        next = Some(flow.summary.id.index);
                        return Ok(json!({ "flows": rows, "next": next }));
                    }
                    rows.push(rows::flow(flow));
                }
            }
            Part::First { order, limit } => {
                top.add(page.flows.into_iter().map(|row| (key(&row, order), row)), limit);
            }
        }
    }
    Ok(match part {
        Part::Next { .. } => json!({ "flows": rows, "next": next }),
        Part::First { .. } => top.reply("flows", rows::flow),
    })
}

/// The first rows of a list in an order.
struct Top<K, R> {
    rows: Vec<(K, R)>,
    /// Rows that are not among them.
    left_out: usize,
}

impl<K, R> Default for Top<K, R> {
    fn default() -> Self {
        Self { rows: Vec::new(), left_out: 0 }
    }
}

impl<K: Ord, R> Top<K, R> {
    /// Adds a part of the list, and forgets what is behind the first `limit` rows.
    fn add(&mut self, part: impl Iterator<Item = (K, R)>, limit: usize) {
        self.rows.extend(part);
        self.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.left_out += self.rows.len().saturating_sub(limit);
        self.rows.truncate(limit);
    }

    fn reply(&self, list: &str, row: impl Fn(&R) -> Value) -> Value {
        let rows: Vec<_> = self.rows.iter().map(|(_, of)| row(of)).collect();
        json!({ list: rows, "next": null, "left_out": self.left_out })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_rows_of_all_parts_are_kept_in_order_and_the_others_counted() {
        let mut top = Top::default();
        for part in [[3, 1, 4], [1, 5, 9], [2, 6, 5]] {
            top.add(part.map(|number| (Reverse(number), number)).into_iter(), 4);
            assert!(top.rows.len() <= 4);
        }
        let reply = top.reply("list", |&number| number.into());
        assert_eq!(reply, json!({ "list": [9, 6, 5, 5], "next": null, "left_out": 5 }));
    }
}
