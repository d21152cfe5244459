//! What is measured: the table of cases and the metrics they yield.
//!
//! Owns the names of rows (no commas: `--only` takes a list), which the report and the bars refer to. Each case opens its own arena, so nothing
//! a stack did before weighs on it.

pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod forward;
pub(crate) mod iperf;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::time::Duration;

use crate::options::Options;
use crate::stack::Stack;

/// The MTU of ordinary containers.
pub(crate) const MTU_ETHERNET: u32 = 1500;
/// The MTU that RootlessKit and Podman choose for slirp4netns.
pub(crate) const MTU_JUMBO: u32 = 65_520;

/// Which way the payload flows, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The roles of the guest's and of the host's worker.
    pub(crate) fn roles(self) -> (&'static str, &'static str) {
        match self {
            Self::Up => ("send", "receive"),
            Self::Down => ("receive", "send"),
        }
    }
}

/// A quantity with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Rate,
    Lost,
    CpuPerGigabyte,
    LatencyMedian,
    LatencyTail,
    RoundTrips,
    Connections,
    Resident,
    Proportional,
    PerFlow,
    Kept,
    IperfRate,
}

impl Metric {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Lost => "lost",
            Self::CpuPerGigabyte => "stack CPU",
            Self::LatencyMedian => "p50",
            Self::LatencyTail => "p99",
            Self::RoundTrips => "round trips",
            Self::Connections => "connections",
            Self::Resident => "resident",
            Self::Proportional => "proportional",
            Self::PerFlow => "per flow",
            Self::Kept => "kept above idle",
            Self::IperfRate => "iperf3 rate",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::IperfRate => "Gbit/s",
            Self::Lost => "%",
            Self::CpuPerGigabyte => "s/GB",
            Self::LatencyMedian | Self::LatencyTail => "us",
            Self::RoundTrips | Self::Connections => "1/s",
            Self::Resident | Self::Proportional | Self::PerFlow | Self::Kept => "KiB",
        }
    }

    /// Whether a larger number is the better one.
    pub(crate) fn more_is_better(self) -> bool {
        match self {
            Self::Rate | Self::IperfRate | Self::RoundTrips | Self::Connections => true,
            Self::Lost
            | Self::CpuPerGigabyte
            | Self::LatencyMedian
            | Self::LatencyTail
            | Self::Resident
            | Self::Proportional
            | Self::PerFlow
            | Self::Kept => false,
        }
    }
}

/// One measured number: the row it belongs to and its value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) row: String,
    pub(crate) metric: Metric,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn new(row: impl Into<String>, metric: Metric, value: f64) -> Self {
        Self { row: row.into(), metric, value }
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    Tcp { direction: Direction, streams: u32, mtu: u32 },
    Iperf { direction: Direction, streams: u32, mtu: u32 },
    Latency,
    Connect { clients: u32 },
    Udp { direction: Direction, gso: bool },
    MemoryOfFlows,
    MemoryAfterBulk { direction: Direction },
    Crowd { direction: Direction },
    Forward { direction: Direction, mtu: u32 },
    ForwardLatency,
}

impl Case {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tcp { direction, streams, mtu } => tcp::row(direction, streams, mtu),
            Self::Iperf { direction, streams, mtu } => iperf::row(direction, streams, mtu),
            Self::Latency => latency::ROW.to_owned(),
            Self::Connect { clients } => connect::row(clients),
            Self::Udp { direction, gso } => udp::row(direction, gso),
            Self::MemoryOfFlows => memory::FLOWS_ROW.to_owned(),
            Self::MemoryAfterBulk { direction } => memory::bulk_row(direction),
            Self::Crowd { direction } => crowd::name(direction),
            Self::Forward { direction, mtu } => forward::row(direction, mtu),
            Self::ForwardLatency => forward::LATENCY_ROW.to_owned(),
        }
    }

    /// Rounds beyond this add time but no knowledge: memory hardly varies.
    pub(crate) fn rounds_cap(self) -> u32 {
        match self {
            Self::MemoryOfFlows | Self::MemoryAfterBulk { .. } => 2,
            Self::Tcp { .. }
            | Self::Iperf { .. }
            | Self::Latency
            | Self::Connect { .. }
            | Self::Udp { .. }
            | Self::Crowd { .. }
            | Self::Forward { .. }
            | Self::ForwardLatency => u32::MAX,
        }
    }

    /// Whether `stack` can take part.
    pub(crate) fn is_for(self, stack: &Stack) -> bool {
        match self {
            Self::Forward { .. } | Self::ForwardLatency => forward::is_supported(stack),
            Self::Tcp { .. }
            | Self::Iperf { .. }
            | Self::Latency
            | Self::Connect { .. }
            | Self::Udp { .. }
            | Self::MemoryOfFlows
            | Self::MemoryAfterBulk { .. }
            | Self::Crowd { .. } => true,
        }
    }

    pub(crate) fn run(self, options: &Options, stack: &Stack) -> anyhow::Result<Vec<Sample>> {
        match self {
            Self::Tcp { direction, streams, mtu } => {
                tcp::measure(options, stack, direction, streams, mtu)
            }
            Self::Iperf { direction, streams, mtu } => {
                iperf::measure(options, stack, direction, streams, mtu)
            }
            Self::Latency => latency::measure(options, stack),
            Self::Connect { clients } => connect::measure(options, stack, clients),
            Self::Udp { direction, gso } => udp::measure(options, stack, direction, gso),
            Self::MemoryOfFlows => memory::measure_flows(options, stack),
            Self::MemoryAfterBulk { direction } => memory::measure_bulk(options, stack, direction),
            Self::Crowd { direction } => crowd::measure(options, stack, direction),
            Self::Forward { direction, mtu } => forward::measure(options, stack, direction, mtu),
            Self::ForwardLatency => forward::measure_latency(options, stack),
        }
    }
}

/// The cases of a run, in the order of the report.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        for streams in [1, 8] {
            for direction in Direction::BOTH {
                cases.push(Case::Tcp { direction, streams, mtu });
                if options.iperf {
                    cases.push(Case::Iperf { direction, streams, mtu });
                }
            }
        }
    }
    cases.push(Case::Latency);
    cases.extend([1, 8].map(|clients| Case::Connect { clients }));
    for gso in [false, true] {
        cases.extend(Direction::BOTH.map(|direction| Case::Udp { direction, gso }));
    }
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        cases.extend(Direction::BOTH.map(|direction| Case::Forward { direction, mtu }));
    }
    cases.push(Case::ForwardLatency);
    cases.push(Case::MemoryOfFlows);
    cases.extend(Direction::BOTH.map(|direction| Case::MemoryAfterBulk { direction }));
    cases.extend(Direction::BOTH.map(|direction| Case::Crowd { direction }));
    if !options.only.is_empty() {
        cases.retain(|case| options.only.iter().any(|word| case.name().contains(word.as_str())));
    }
    cases
}

/// Whole milliseconds for a worker's question.
pub(crate) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// `ADDRESS:PORT` at which the guest reaches a server of the host.
pub(crate) fn through_gateway(port: u64) -> String {
    format!("{}:{port}", crate::arena::GATEWAY)
}
