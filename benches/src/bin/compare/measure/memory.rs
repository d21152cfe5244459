//! Resident memory: idle, per idle flow, and after a flow that moved gigabytes fell idle.
//!
//! Owns the moments at which memory is read. A first flow runs before every baseline, so that code
//! and buffers that every stack touches once are not charged to the flows.

use std::thread;
use std::time::{Duration, Instant};

use super::tcp::Stream;
use super::{Direction, MTU_ETHERNET, Metric, Sample, through_gateway};
use crate::arena::Arena;
use crate::load::idle::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::{PATIENCE, Worker};

pub(crate) const IDLE_ROW: &str = "memory without flows";
pub(crate) const FLOWS_ROW: &str = "memory with 1000 idle flows";
/// Flows that are opened to find the cost of one.
const FLOWS: u32 = 1000;
/// Rest before memory is read: timers of the handshake are over. Arbitrary.
const SETTLE: Duration = Duration::from_secs(1);
/// The memory of a stack that is too slow for the requested bytes is read after this long, and
/// reported as it is.
const BULK_WITHIN: Duration = Duration::from_secs(30);
/// How often the progress of a bulk flow is checked.
const PROGRESS_STEP: Duration = Duration::from_millis(50);
/// Opening a thousand flows takes the slowest peer a few seconds.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn bulk_row(direction: Direction) -> String {
    format!("memory after a bulk flow {}", direction.label())
}

pub(crate) fn measure_flows(options: &Options, stack: &Stack) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    thread::sleep(SETTLE);
    let mut samples = vec![Sample::new(IDLE_ROW, Metric::Resident, arena.resident_kib()?)];
    if let Some(kib) = arena.proportional_kib() {
        samples.push(Sample::new(IDLE_ROW, Metric::Proportional, kib));
    }
    let (mut client, _server) = idle_client(&arena)?;
    client.ask("open 1", OPEN_WITHIN)?;
    thread::sleep(SETTLE);
    let before = arena.resident_kib()?;
    client.ask(&format!("open {FLOWS}"), OPEN_WITHIN)?;
    thread::sleep(SETTLE);
    let after = arena.resident_kib()?;
    samples.push(Sample::new(FLOWS_ROW, Metric::Resident, after));
    let per_flow = (after - before) / f64::from(FLOWS);
    samples.push(Sample::new(FLOWS_ROW, Metric::PerFlow, per_flow));
    Ok(samples)
}

pub(crate) fn measure_bulk(
    options: &Options,
    stack: &Stack,
    direction: Direction,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (mut client, _server) = idle_client(&arena)?;
    client.ask("open 1", PATIENCE)?;
    thread::sleep(SETTLE);
    let before = arena.resident_kib()?;
    let mut stream = Stream::open(&arena, direction, 1)?;
    stream.resume()?;
    let started_at = Instant::now();
    while stream.arrived()? < options.bulk_bytes && started_at.elapsed() < BULK_WITHIN {
        thread::sleep(PROGRESS_STEP);
    }
    stream.pause()?;
    thread::sleep(options.idle_for);
    let after = arena.resident_kib()?;
    let row = bulk_row(direction);
    Ok(vec![
        Sample::new(row.clone(), Metric::Resident, after),
        Sample::new(row, Metric::Kept, after - before),
    ])
}

/// The two ends of idle flows; the client has none open yet.
pub(crate) fn idle_client(arena: &Arena) -> anyhow::Result<(Worker, Worker)> {
    let (server, ready) = arena.host(SERVER, &[])?;
    let (client, _) = arena.guest(CLIENT, &[through_gateway(ready.number("port")?)])?;
    Ok((client, server))
}
