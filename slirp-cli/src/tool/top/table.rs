//! The panes as tables: rows, and how they are sorted and filtered.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use super::columns::{Column, Pane, Sort, columns};
use super::feed::{Bytes, Feed};
use crate::tool::shown::{amount, brief};

/// A cell: what is shown, and what it is sorted by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    pub(super) shown: String,
    number: Option<u64>,
}

impl Cell {
    fn text(text: impl Into<String>) -> Self {
        Self { shown: text.into(), number: None }
    }

    fn amount(number: u64) -> Self {
        Self { shown: amount(number), number: Some(number) }
    }

    fn span(span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self { shown: brief(span), number: Some(millis) }
    }

    fn since(then: Option<Instant>, now: Instant) -> Self {
        match then {
            Some(then) => Self::span(now.saturating_duration_since(then)),
            None => Self { shown: "-".into(), number: Some(u64::MAX) },
        }
    }

    /// Nothing flows there.
    fn none() -> Self {
        Self { shown: "-".into(), number: Some(0) }
    }

    fn order(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => self.shown.cmp(&other.shown),
        }
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    /// What stays the same from one refresh to the next.
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    /// What more is to be said of it.
    pub(super) details: Vec<String>,
    /// A rule's target, for `+` and `-`.
    pub(super) target: Option<String>,
    /// The flow that `x` cuts.
    pub(super) flow: Option<String>,
}

/// A pane's rows in no particular order.
#[derive(Clone, Default, Debug)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// The rows that contain `filter` in some column, sorted.
    pub(super) fn view(&self, sort: Sort, filter: &str) -> Vec<&Row> {
        let filter = filter.to_ascii_lowercase();
        let is_meant = |row: &&Row| {
            let contains = |cell: &Cell| cell.shown.to_ascii_lowercase().contains(&filter);
            filter.is_empty() || row.cells.iter().any(contains)
        };
        let mut rows: Vec<_> = self.rows.iter().filter(is_meant).collect();
        let is_number = self.columns.get(sort.column).is_some_and(|column| column.is_number);
        rows.sort_by(|a, b| {
            let order = match (a.cells.get(sort.column), b.cells.get(sort.column)) {
                (Some(a), Some(b)) => a.order(b),
                _ => Ordering::Equal,
            };
            let order = if is_number != sort.is_reversed { order.reverse() } else { order };
            order.then_with(|| a.key.cmp(&b.key))
        });
        rows
    }
}

/// The rows of a pane.
pub(super) fn table(pane: Pane, feed: &Feed, now: Instant) -> Table {
    let rows = match pane {
        Pane::Names => names(feed, now),
        Pane::Flows => flows(feed),
        Pane::Denied => denied(feed, now),
        Pane::Dns => lookups(feed, now),
        Pane::Rules => rules(feed),
        Pane::Questions => questions(feed, now),
        Pane::Members => members(feed),
    };
    Table { columns: columns(pane).0, rows }
}

/// A rule's target for a destination: nothing for an address in parentheses without a port.
fn target(place: &str, ports: &[u64], proto: &str) -> String {
    let host = place.trim_start_matches('(').trim_end_matches(')');
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let proto = match proto {
        "udp" => "udp:",
        "icmp" => "icmp:",
        _ => "",
    };
    let ports: Vec<_> = ports.iter().filter(|&&port| port > 0).map(u64::to_string).collect();
    if ports.is_empty() || proto == "icmp:" {
        format!("{proto}{host}")
    } else {
        format!("{proto}{host}:{}", ports.join(","))
    }
}

fn traffic(bytes: Bytes) -> [Cell; 2] {
    [Cell::amount(bytes.out), Cell::amount(bytes.back)]
}

fn names(feed: &Feed, now: Instant) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, place) in &feed.places {
        let ports: Vec<u64> = place.ports.iter().copied().filter(|&port| port > 0).collect();
        let shown = ports.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let verdict = place.verdict.clone().unwrap_or_else(|| "-".into());
        let rule = place.rule.clone().unwrap_or_else(|| "default".into());
        let [out, back] = traffic(place.bytes);
        let [out_rate, back_rate] = traffic(place.rate);
        rows.push(Row {
            key: name.clone(),
            details: vec![
                format!("name       {name}"),
                format!("addresses  {}", place.addresses.join(" ")),
                format!("ports      {shown}"),
                format!("verdict    {verdict}, {rule}"),
                format!("traffic    {} out, {} in", out.shown, back.shown),
            ],
            target: Some(target(name, &ports, "tcp")),
            flow: None,
            cells: vec![
                Cell::text(name),
                Cell::text(shown),
                Cell::amount(place.flows),
                Cell::text(verdict),
                Cell::text(rule),
                out_rate,
                back_rate,
                out,
                back,
                Cell::since(place.active_at, now),
            ],
        });
    }
    // What was refused altogether has no traffic.
    for ((name, port, proto), row) in &feed.denied {
        if feed.places.contains_key(name) {
            continue;
        }
        rows.push(Row {
            key: format!("{name}:{port}/{proto}"),
            details: vec![
                format!("name     {name}"),
                format!("refused  {} times at port {port}/{proto}: {}", row.count, row.cause),
            ],
            target: Some(target(name, &[*port], proto)),
            flow: None,
            cells: vec![
                Cell::text(name),
                Cell::text(port.to_string()),
                Cell::amount(0),
                Cell::text("deny"),
                Cell::text(&row.cause),
                Cell::none(),
                Cell::none(),
                Cell::none(),
                Cell::none(),
                Cell::since(Some(row.last_at), now),
            ],
        });
    }
    rows
}

fn flows(feed: &Feed) -> Vec<Row> {
    let row = |flow: &super::feed::Flow| {
        let [out, back] = traffic(flow.bytes);
        let [out_rate, back_rate] = traffic(flow.rate);
        let guest = match flow.member {
            Some(member) => format!("{member}: {}", flow.guest),
            None => flow.guest.clone(),
        };
        let to = format!("{}:{}", flow.place, flow.port);
        let verdict = flow.verdict.as_deref().unwrap_or("-");
        let rule = flow.rule.clone().unwrap_or_else(|| "default".into());
        let direction = if flow.is_inbound { ", through a published port" } else { "" };
        Row {
            key: flow.id.clone(),
            details: vec![
                format!("flow     {}, {}{direction}", flow.id, flow.proto),
                format!("guest    {guest}"),
                format!("to       {to}, written {}", flow.remote),
                format!("verdict  {verdict}, {}, {rule}", flow.cause.as_deref().unwrap_or("-")),
                format!(
                    "state    {}, {} old, idle {}",
                    flow.state,
                    brief(flow.age),
                    brief(flow.idle)
                ),
                format!("traffic  {} out, {} in", out.shown, back.shown),
            ],
            target: Some(target(&flow.place, &[flow.port], &flow.proto)),
            flow: Some(flow.id.clone()),
            cells: vec![
                Cell::text(&flow.id),
                Cell::text(guest),
                Cell::text(to),
                Cell::text(&flow.proto),
                Cell::text(&flow.state),
                Cell::text(rule),
                out_rate,
                back_rate,
                out,
                back,
                Cell::span(flow.age),
                Cell::span(flow.idle),
            ],
        }
    };
    feed.flows.iter().map(row).collect()
}

fn denied(feed: &Feed, now: Instant) -> Vec<Row> {
    let rows = feed.denied.iter().map(|((place, port, proto), row)| Row {
        key: format!("{place}:{port}/{proto}"),
        details: vec![format!("{place}:{port}/{proto}: {}, {} times", row.cause, row.count)],
        target: Some(target(place, &[*port], proto)),
        flow: None,
        cells: vec![
            Cell::text(place),
            Cell { shown: port.to_string(), number: Some(*port) },
            Cell::text(proto),
            Cell::text(&row.cause),
            Cell::text(&row.guest),
            Cell::amount(row.count),
            Cell::since(Some(row.last_at), now),
        ],
    });
    rows.collect()
}

fn lookups(feed: &Feed, now: Instant) -> Vec<Row> {
    let rows = feed.lookups.iter().map(|((name, kind), row)| Row {
        key: format!("{name} {kind}"),
        details: vec![format!("{name} {kind}: {}, {} times", row.cause, row.count)],
        target: Some(name.clone()),
        flow: None,
        cells: vec![
            Cell::text(name),
            Cell::text(kind),
            Cell::text(&row.cause),
            Cell::text(&row.guest),
            Cell::amount(row.count),
            Cell::since(Some(row.last_at), now),
        ],
    });
    rows.collect()
}

fn rules(feed: &Feed) -> Vec<Row> {
    let row = |rule: &super::feed::Rule| {
        let places = feed.places.values().filter(|place| place.rule.as_ref() == Some(&rule.id));
        let (mut flows, mut bytes) = (0, Bytes::default());
        for place in places {
            flows += place.flows;
            bytes.out = bytes.out.saturating_add(place.bytes.out);
            bytes.back = bytes.back.saturating_add(place.bytes.back);
        }
        let [out, back] = traffic(bytes);
        let ends = rule.expires.map_or_else(Cell::none, Cell::span);
        Row {
            key: rule.id.clone(),
            details: vec![rule.text.clone(), format!("from {}", rule.id)],
            target: None,
            flow: None,
            cells: vec![
                Cell::text(&rule.text),
                Cell::text(&rule.id),
                Cell::amount(flows),
                out,
                back,
                ends,
            ],
        }
    };
    let exceptions = feed.exceptions.iter().map(|member| {
        let shown = format!("(member {member} has other rules)");
        Row {
            key: format!("member {member}"),
            details: vec![format!("Member {member} has a policy of its own, which is not shown.")],
            target: None,
            flow: None,
            cells: vec![
                Cell::text(shown),
                Cell::text("-"),
                Cell::none(),
                Cell::none(),
                Cell::none(),
                Cell::none(),
            ],
        }
    });
    feed.rules.iter().map(row).chain(exceptions).collect()
}

fn questions(feed: &Feed, now: Instant) -> Vec<Row> {
    let rows = feed.questions.iter().map(|question| Row {
        key: question.id.to_string(),
        details: vec![question.target(), question.status(now)],
        target: None,
        flow: None,
        cells: vec![
            Cell::text(question.target()),
            Cell::text(&question.guest),
            // The oldest first, which has the lowest number.
            Cell { shown: question.status(now), number: Some(question.id) },
        ],
    });
    rows.collect()
}

fn members(feed: &Feed) -> Vec<Row> {
    let rows = feed.info.members.iter().map(|(member, addresses)| {
        let of_it = feed.flows.iter().filter(|flow| flow.member == Some(*member));
        let (mut flows, mut bytes) = (0, Bytes::default());
        for flow in of_it {
            flows += 1;
            bytes.out = bytes.out.saturating_add(flow.bytes.out);
            bytes.back = bytes.back.saturating_add(flow.bytes.back);
        }
        let [out, back] = traffic(bytes);
        Row {
            key: member.to_string(),
            details: vec![format!("member {member}: {}", addresses.join(" "))],
            target: None,
            flow: None,
            cells: vec![
                Cell { shown: member.to_string(), number: Some(*member) },
                Cell::text(addresses.join(" ")),
                Cell::amount(flows),
                out,
                back,
            ],
        }
    });
    rows.collect()
}
