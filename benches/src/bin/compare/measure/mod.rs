//! The measurements: the table of cases, and their metrics.
//!
//! Owns the names of rows (no commas: `--only` takes a list), which the report and the bars refer
//! to, and the order within a case: it is set up with every stack, and then the stacks take turns
//! in short windows. On a shared machine a core may run at half its speed for seconds and then at
//! full speed again; adjacent windows see equal speed. Each case has arenas of its own, so earlier
//! work of a stack does not affect it.

pub(crate) mod connect;
pub(crate) mod crowd;
pub(crate) mod forward;
pub(crate) mod iperf;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod rates;
pub(crate) mod spliced;
pub(crate) mod start;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::thread;
use std::time::{Duration, Instant};

use self::connect::Errand;
use crate::arena::Arena;
use crate::options::Options;
use crate::stack::{Stack, StackKind};
use crate::worker::{PATIENCE, Reply, Worker};

/// Traffic before each window: caches, congestion windows. Arbitrary.
pub(crate) const SETTLE: Duration = Duration::from_millis(150);

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
    OfLimit,
    Equality,
    Ready,
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
            Self::OfLimit => "part of the limit",
            Self::Equality => "Jain index",
            Self::Ready => "ready",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rate | Self::IperfRate => "Gbit/s",
            Self::Lost => "%",
            Self::OfLimit | Self::Equality => "",
            Self::CpuPerGigabyte => "s/GB",
            Self::Ready => "ms",
            Self::LatencyMedian | Self::LatencyTail => "us",
            Self::RoundTrips | Self::Connections => "1/s",
            Self::Resident | Self::Proportional | Self::PerFlow | Self::Kept => "KiB",
        }
    }

    /// Whether a larger number is the better one.
    pub(crate) fn more_is_better(self) -> bool {
        match self {
            Self::Rate
            | Self::IperfRate
            | Self::RoundTrips
            | Self::Connections
            | Self::OfLimit
            | Self::Equality => true,
            Self::Lost
            | Self::CpuPerGigabyte
            | Self::LatencyMedian
            | Self::LatencyTail
            | Self::Resident
            | Self::Proportional
            | Self::PerFlow
            | Self::Kept
            | Self::Ready => false,
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

/// Longest wait for bytes in flight after a sender pauses. A connection of pasta that waits for its
/// retransmission timer takes longer, but uses no processor time meanwhile. Arbitrary.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// A count that has not changed for this long is final. Arbitrary.
const AT_REST: Duration = Duration::from_millis(40);

/// Pauses `sender` and waits until `receiver` has read everything in the queues between them: a
/// stack that still works would disturb the next stack's window.
pub(crate) fn pause(sender: &mut Worker, receiver: &mut Worker) -> anyhow::Result<()> {
    sender.ask("pause", PATIENCE)?;
    let started_at = Instant::now();
    let mut arrived = None;
    while started_at.elapsed() < DRAIN_WITHIN {
        let now = receiver.ask("mark", PATIENCE)?.number("bytes")?;
        if arrived.replace(now) == Some(now) {
            break;
        }
        thread::sleep(AT_REST);
    }
    Ok(())
}

/// A case that has been set up with one stack and does nothing until its turn.
pub(crate) trait Trial {
    /// Runs the case for one window, of length `len` if that can be chosen.
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>>;
}

/// Reads the samples from an answer.
type Reading = Box<dyn Fn(&Reply) -> anyhow::Result<Vec<Sample>>>;

/// A client that works for a while when asked, and the reading of its answer.
pub(crate) struct Asked {
    client: Worker,
    _server: Worker,
    _arena: Arena,
    read: Reading,
}

impl Asked {
    pub(crate) fn new(
        options: &Options,
        client: Worker,
        server: Worker,
        arena: Arena,
        read: Reading,
    ) -> anyhow::Result<Self> {
        let mut trial = Self { client, _server: server, _arena: arena, read };
        trial.ask(options.warm_up)?;
        Ok(trial)
    }

    fn ask(&mut self, window: Duration) -> anyhow::Result<Reply> {
        self.client.ask(&format!("run {}", window.as_millis()), window + PATIENCE)
    }
}

impl Trial for Asked {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        self.ask(SETTLE)?;
        let answer = self.ask(len)?;
        (self.read)(&answer)
    }
}

/// A case that does all of its work in its only window.
struct Whole<F>(F);

impl<F: Fn() -> anyhow::Result<Vec<Sample>>> Trial for Whole<F> {
    fn window(&mut self, _: Duration) -> anyhow::Result<Vec<Sample>> {
        (self.0)()
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    Tcp { direction: Direction, mtu: u32 },
    Iperf { direction: Direction, streams: u32, mtu: u32 },
    Latency,
    Connect(Errand),
    Udp { direction: Direction, gso: bool },
    MemoryOfFlows,
    MemoryAfterBulk { direction: Direction },
    Crowd { direction: Direction },
    Forward { direction: Direction, mtu: u32 },
    ForwardLatency,
    Rate { direction: Direction, limit: usize, streams: u32 },
    RateLogin,
    Spliced { direction: Direction, mtu: u32 },
    SplicedLatency,
    Start,
}

impl Case {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Tcp { direction, mtu } => tcp::name(direction, mtu),
            Self::Iperf { direction, streams, mtu } => iperf::row(direction, streams, mtu),
            Self::Latency => latency::ROW.to_owned(),
            Self::Connect(errand) => errand.row(),
            Self::Udp { direction, gso } => udp::row(direction, gso),
            Self::MemoryOfFlows => memory::FLOWS_ROW.to_owned(),
            Self::MemoryAfterBulk { direction } => memory::bulk_row(direction),
            Self::Crowd { direction } => crowd::name(direction),
            Self::Forward { direction, mtu } => forward::row(direction, mtu),
            Self::ForwardLatency => forward::LATENCY_ROW.to_owned(),
            Self::Rate { direction, limit, streams } => {
                rates::row(direction, rates::LIMITS[limit].0, streams)
            }
            Self::RateLogin => rates::LOGIN_ROW.to_owned(),
            Self::Spliced { direction, mtu } => spliced::name(direction, mtu),
            Self::SplicedLatency => spliced::LATENCY_ROW.to_owned(),
            Self::Start => start::ROW.to_owned(),
        }
    }

    /// Whether the case measures memory, which hardly varies, and not time.
    const fn is_of_memory(self) -> bool {
        matches!(self, Self::MemoryOfFlows | Self::MemoryAfterBulk { .. })
    }

    /// The most rounds that are useful; further rounds would only take time.
    pub(crate) const fn rounds_cap(self) -> u32 {
        if self.is_of_memory() { 2 } else { u32::MAX }
    }

    /// Whether `stack` takes turns with others. pasta does where no frame can be lost.
    pub(crate) const fn takes_turns(self, stack: &Stack) -> bool {
        stack.kind.takes_turns()
            || matches!(self, Self::Spliced { .. } | Self::SplicedLatency | Self::Start)
    }

    /// Whether the whole case runs in one window.
    pub(crate) const fn is_whole(self) -> bool {
        self.is_of_memory() || matches!(self, Self::Iperf { .. } | Self::Rate { .. })
    }

    /// After how many of a round's windows the case is set up anew. If threads wake each other for
    /// every byte, the result depends on which of them the kernel puts on one core, and they tend
    /// to stay there.
    pub(crate) const fn windows_at_once(self, windows: usize) -> usize {
        match self {
            Self::Latency
            | Self::ForwardLatency
            | Self::SplicedLatency
            | Self::RateLogin
            | Self::Connect(_) => 2,
            Self::Tcp { .. }
            | Self::Rate { .. }
            | Self::Iperf { .. }
            | Self::Udp { .. }
            | Self::MemoryOfFlows
            | Self::MemoryAfterBulk { .. }
            | Self::Crowd { .. }
            | Self::Forward { .. }
            | Self::Spliced { .. }
            | Self::Start => windows,
        }
    }

    /// Whether `stack` can take part.
    pub(crate) const fn is_for(self, stack: &Stack) -> bool {
        match self {
            Self::Forward { .. } | Self::ForwardLatency => forward::is_supported(stack),
            Self::Spliced { .. } | Self::SplicedLatency | Self::Start => {
                matches!(stack.kind, StackKind::Door | StackKind::Pasta)
            }
            // Peers have no limits.
            Self::Rate { .. } | Self::RateLogin => matches!(stack.kind, StackKind::Ours),
            Self::Tcp { .. }
            | Self::Iperf { .. }
            | Self::Latency
            | Self::Connect(_)
            | Self::Udp { .. }
            | Self::MemoryOfFlows
            | Self::MemoryAfterBulk { .. }
            | Self::Crowd { .. } => true,
        }
    }

    /// Sets the case up with `stack`.
    pub(crate) fn open(self, options: &Options, stack: &Stack) -> anyhow::Result<Box<dyn Trial>> {
        let (owned_options, owned) = (options.clone(), stack.clone());
        Ok(match self {
            Self::Tcp { direction, mtu } => {
                Box::new(tcp::Bulk::open(options, stack, direction, mtu)?)
            }
            Self::Iperf { direction, streams, mtu } => Box::new(Whole(move || {
                iperf::measure(&owned_options, &owned, direction, streams, mtu)
            })),
            Self::Latency => Box::new(latency::open(options, stack)?),
            Self::Connect(errand) => Box::new(connect::open(options, stack, errand)?),
            Self::Udp { direction, gso } => {
                Box::new(udp::Flood::open(options, stack, direction, gso)?)
            }
            Self::MemoryOfFlows => {
                Box::new(Whole(move || memory::measure_flows(&owned_options, &owned)))
            }
            Self::MemoryAfterBulk { direction } => {
                Box::new(Whole(move || memory::measure_bulk(&owned_options, &owned, direction)))
            }
            Self::Crowd { direction } => Box::new(crowd::Crowds::open(options, stack, direction)?),
            Self::Forward { direction, mtu } => {
                Box::new(forward::Forwarded::open(options, stack, direction, mtu)?)
            }
            Self::ForwardLatency => Box::new(forward::open_latency(options, stack)?),
            Self::Rate { direction, limit, streams } => Box::new(Whole(move || {
                let limit = rates::LIMITS[limit];
                rates::measure(&owned_options, &owned, direction, limit, streams)
            })),
            Self::RateLogin => Box::new(rates::Login::open(options, stack)?),
            Self::Spliced { direction, mtu } => {
                Box::new(spliced::Spliced::open(options, stack, direction, mtu)?)
            }
            Self::SplicedLatency => Box::new(spliced::open_latency(options, stack)?),
            Self::Start => Box::new(start::Start::of(options, stack)),
        })
    }
}

/// The cases of a run, in the order of the report.
pub(crate) fn cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        for direction in Direction::BOTH {
            cases.push(Case::Tcp { direction, mtu });
            if options.iperf {
                cases.extend([1, 8].map(|streams| Case::Iperf { direction, streams, mtu }));
            }
        }
    }
    cases.push(Case::Latency);
    cases.extend(Errand::PLAIN.into_iter().chain(Errand::FETCHES).map(Case::Connect));
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
    if options.with_door {
        for mtu in [MTU_ETHERNET, MTU_JUMBO] {
            cases.extend(Direction::BOTH.map(|direction| Case::Spliced { direction, mtu }));
        }
        cases.extend([Case::SplicedLatency, Case::Start]);
    }
    if options.rates {
        for limit in 0..rates::LIMITS.len() {
            for direction in Direction::BOTH {
                let streams = rates::STREAMS.into_iter();
                cases.extend(streams.map(|streams| Case::Rate { direction, limit, streams }));
            }
        }
        cases.push(Case::RateLogin);
    }
    if !options.only.is_empty() {
        cases.retain(|case| options.only.iter().any(|word| case.name().contains(word.as_str())));
    }
    cases
}

/// `ADDRESS:PORT` at which the guest reaches a server of the host.
pub(crate) fn through_gateway(port: u64) -> String {
    format!("{}:{port}", crate::arena::GATEWAY)
}
