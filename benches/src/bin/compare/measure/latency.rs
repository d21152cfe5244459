//! Latency of one-byte requests on an otherwise quiet connection.

use super::{Asked, MTU_ETHERNET, Metric, Sample, through_gateway};
use crate::arena::Arena;
use crate::load::round_trip::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::Reply;

pub(crate) const ROW: &str = "latency of 1 byte there and back";

pub(crate) fn open(options: &Options, stack: &Stack) -> anyhow::Result<Asked> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (server, ready) = arena.host(SERVER, &[])?;
    let (client, _) = arena.guest(CLIENT, &[through_gateway(ready.number("port")?)])?;
    Asked::new(options, client, server, arena, Box::new(|answer| samples(ROW, answer)))
}

/// The samples in a client's answer.
pub(crate) fn samples(row: &str, answer: &Reply) -> anyhow::Result<Vec<Sample>> {
    let seconds = answer.number("nanos")? as f64 / 1e9;
    let micros = |nanos: u64| nanos as f64 / 1e3;
    Ok(vec![
        Sample::new(row, Metric::LatencyMedian, micros(answer.number("p50")?)),
        Sample::new(row, Metric::LatencyTail, micros(answer.number("p99")?)),
        Sample::new(row, Metric::RoundTrips, answer.number("count")? as f64 / seconds),
    ])
}
