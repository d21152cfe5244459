//! The bars: this product's promises about speed and memory, compared with the run.
//!
//! Owns the promises as data. A verdict is information for the reader of a run; it never changes
//! the exit code, because a number measured on a busy machine is not a test.

use super::{Results, Row, short};
use crate::measure::{
    Direction, MTU_ETHERNET, MTU_JUMBO, Metric, connect::Errand, crowd, forward, latency, memory,
    rates, spliced, start, tcp, udp,
};
use crate::stack::StackKind;

/// The base of a comparison.
enum Base {
    /// slirp4netns in the same row.
    Slirp4netns,
    /// pasta in the same row.
    Pasta,
    /// Ourselves in another row.
    Own(String),
    /// Ourselves in the same row, compared with ourselves under an egress policy.
    WithoutPolicy,
    /// Ourselves in the same row, compared with `slirp run`.
    WithoutRun,
    /// Our program as pasta, compared with pasta in the same row.
    DoorToPasta,
    /// Our program as pasta, compared with the better of pasta's rows: its directions.
    DoorToBest([String; 2]),
    /// Nothing: the median itself, in its unit.
    Absolute,
    /// The same of our program as pasta.
    AbsoluteDoor,
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Bar {
    row: String,
    metric: Metric,
    base: Base,
    bound: Bound,
}

fn bars() -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut bar = |row: String, metric, base, bound| bars.push(Bar { row, metric, base, bound });
    for (direction, faster, cheaper) in [(Direction::Up, 10.0, 0.1), (Direction::Down, 5.0, 0.2)] {
        let row = tcp::row(direction, 1, MTU_ETHERNET);
        bar(row.clone(), Metric::Rate, Base::Slirp4netns, Bound::AtLeast(faster));
        bar(row, Metric::CpuPerGigabyte, Base::Slirp4netns, Bound::AtMost(cheaper));
    }
    for direction in Direction::BOTH {
        let row = tcp::row(direction, 1, MTU_JUMBO);
        bar(row, Metric::Rate, Base::Slirp4netns, Bound::AtLeast(1.8));
    }
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        for direction in Direction::BOTH {
            let own = Base::Own(tcp::row(direction, 1, mtu));
            bar(tcp::row(direction, 8, mtu), Metric::Rate, own, Bound::AtLeast(0.8));
        }
    }
    bar(latency::ROW.into(), Metric::LatencyMedian, Base::Slirp4netns, Bound::AtMost(1.0));
    for errand in Errand::PLAIN {
        bar(errand.row(), Metric::Connections, Base::Slirp4netns, Bound::AtLeast(1.3));
    }
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        for direction in Direction::BOTH {
            let row = forward::row(direction, mtu);
            bar(row, Metric::Rate, Base::Slirp4netns, Bound::AtLeast(2.0));
        }
    }
    let row = udp::row(Direction::Up, false);
    bar(row.clone(), Metric::Rate, Base::Slirp4netns, Bound::AtLeast(2.0));
    bar(row, Metric::Rate, Base::Pasta, Bound::AtLeast(1.0));
    let row = forward::LATENCY_ROW.into();
    bar(row, Metric::LatencyMedian, Base::Slirp4netns, Bound::AtMost(1.0));
    for direction in Direction::BOTH {
        let own = Base::Own(crowd::row(direction, 0));
        bar(crowd::row(direction, 10_000), Metric::Rate, own, Bound::AtLeast(0.9));
    }
    // One round trip takes some 50 us, of which the promised microsecond is a fiftieth.
    let row = latency::ROW.to_owned();
    bar(row, Metric::LatencyMedian, Base::WithoutPolicy, Bound::AtMost(1.02));
    for errand in Errand::PLAIN {
        bar(errand.row(), Metric::Connections, Base::WithoutPolicy, Bound::AtLeast(0.97));
    }
    for direction in Direction::BOTH {
        let row = tcp::row(direction, 1, MTU_ETHERNET);
        bar(row, Metric::Rate, Base::WithoutPolicy, Bound::AtLeast(0.99));
        for mtu in [MTU_ETHERNET, MTU_JUMBO] {
            let row = tcp::row(direction, 1, mtu);
            bar(row, Metric::Rate, Base::WithoutRun, Bound::AtLeast(0.97));
        }
    }
    for (limit, _) in rates::LIMITS {
        for direction in Direction::BOTH {
            for streams in rates::STREAMS {
                let row = rates::row(direction, limit, streams);
                bar(row.clone(), Metric::OfLimit, Base::Absolute, Bound::AtLeast(0.97));
                bar(row.clone(), Metric::OfLimit, Base::Absolute, Bound::AtMost(1.03));
                if streams > 1 {
                    bar(row, Metric::Equality, Base::Absolute, Bound::AtLeast(0.95));
                }
            }
        }
    }
    bar(rates::LOGIN_ROW.into(), Metric::LatencyTail, Base::Absolute, Bound::AtMost(50_000.0));
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        for direction in Direction::BOTH {
            for streams in tcp::STREAMS {
                let row = spliced::row(direction, streams, mtu);
                bar(row, Metric::Rate, Base::DoorToPasta, Bound::AtLeast(1.0));
            }
            let best = Direction::BOTH.map(|direction| tcp::row(direction, 1, mtu));
            let faster = if mtu == MTU_ETHERNET { 5.0 } else { 1.2 };
            let row = tcp::row(direction, 1, mtu);
            bar(row, Metric::Rate, Base::DoorToBest(best), Bound::AtLeast(faster));
        }
    }
    let row = spliced::LATENCY_ROW.to_owned();
    bar(row, Metric::LatencyMedian, Base::DoorToPasta, Bound::AtMost(1.0));
    bar(start::ROW.into(), Metric::Ready, Base::DoorToPasta, Bound::AtMost(1.0));
    let row = start::ROW.to_owned();
    bar(row, Metric::Resident, Base::AbsoluteDoor, Bound::AtMost(8e6 / 1024.0));
    bar(start::PORTS_ROW.into(), Metric::Ready, Base::AbsoluteDoor, Bound::AtMost(10.0));
    let row = start::PORTS_ROW.to_owned();
    bar(row, Metric::Resident, Base::AbsoluteDoor, Bound::AtMost(2e6 / 1024.0));
    // Ten megabytes, and ten kilobytes a flow.
    bar(memory::IDLE_ROW.into(), Metric::Resident, Base::Absolute, Bound::AtMost(1e7 / 1024.0));
    bar(memory::FLOWS_ROW.into(), Metric::PerFlow, Base::Absolute, Bound::AtMost(1e4 / 1024.0));
    for direction in Direction::BOTH {
        // "Gives its pages back": keeps less than one 256 KiB ring.
        let row = memory::bulk_row(direction);
        bar(row, Metric::Kept, Base::Absolute, Bound::AtMost(256.0));
    }
    bars
}

/// One line per bar that this run can judge; the others are counted.
pub(crate) fn verdicts(results: &Results) -> String {
    let mut text = String::new();
    let mut unmeasured = 0;
    for bar in bars() {
        let Some((measured, words)) = measured(results, &bar) else {
            unmeasured += 1;
            continue;
        };
        let (holds, relation, limit) = match bar.bound {
            Bound::AtLeast(limit) => (measured >= limit, ">=", limit),
            Bound::AtMost(limit) => (measured <= limit, "<=", limit),
        };
        let verdict = if holds { "PASS" } else { "FAIL" };
        text.push_str(&format!(
            "{verdict}  {}: {}  measured {words}, bar {relation} {}\n",
            bar.row,
            bar.metric.label(),
            short(limit),
        ));
    }
    if unmeasured > 0 {
        text.push_str(&format!("{unmeasured} bars not measured in this run\n"));
    }
    text
}

/// The measured value that is compared with the bar, as a number and in words.
fn measured(results: &Results, bar: &Bar) -> Option<(f64, String)> {
    let row = results.row(&bar.row, bar.metric)?;
    let (ratio, of) = match &bar.base {
        Base::Slirp4netns => {
            (row.ratio_to(StackKind::Ours, row, StackKind::Slirp4netns)?, "slirp4netns".to_owned())
        }
        Base::Pasta => (row.ratio_to(StackKind::Ours, row, StackKind::Pasta)?, "pasta".to_owned()),
        Base::Own(other) => {
            let base = results.row(other, bar.metric)?;
            let ratio = row.ratio_to(StackKind::Ours, base, StackKind::Ours)?;
            (ratio, format!("\"{other}\""))
        }
        Base::WithoutPolicy => {
            let ratio = row.ratio_to(StackKind::Policy, row, StackKind::Ours)?;
            (ratio, "without a policy".to_owned())
        }
        Base::WithoutRun => {
            let ratio = row.ratio_to(StackKind::Run, row, StackKind::Ours)?;
            (ratio, "slirp4netns of ours".to_owned())
        }
        Base::DoorToPasta => {
            (row.ratio_to(StackKind::Door, row, StackKind::Pasta)?, "pasta".to_owned())
        }
        Base::DoorToBest(rows) => {
            // pasta was measured by itself, so medians are compared.
            let medians = rows
                .iter()
                .filter_map(|row| results.row(row, bar.metric)?.median(StackKind::Pasta));
            let best = medians.reduce(f64::max)?;
            let multiple = row.median(StackKind::Door)? / best;
            return Some((multiple, format!("{}x pasta's better direction", short(multiple))));
        }
        Base::Absolute => return absolute(row, StackKind::Ours),
        Base::AbsoluteDoor => return absolute(row, StackKind::Door),
    };
    let (lower, upper) = (short(ratio.lower), short(ratio.upper));
    let count = ratio.count;
    let spread = format!("half of {count} windows {lower} to {upper}");
    Some((ratio.median, format!("{}x {of} ({spread})", short(ratio.median))))
}

/// The median of that stack, as a number and in words.
fn absolute(row: &Row, stack: StackKind) -> Option<(f64, String)> {
    let median = row.median(stack)?;
    Some((median, format!("{} {}", short(median), row.metric.unit())))
}
