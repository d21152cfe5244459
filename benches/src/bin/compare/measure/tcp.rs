//! TCP throughput, and the processor time the stack spends on it.
//!
//! Owns the measured window: warm-up, two marks at the receiver, the stack's processor time between the same
//! two moments. `crowd` and `memory` reuse the stream.

use std::thread;
use std::time::Duration;

use anyhow::bail;

use super::{Direction, Metric, Sample, through_gateway};
use crate::arena::Arena;
use crate::load::tcp_stream::LOAD;
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::{PATIENCE, Reply, Worker};

pub(crate) fn row(direction: Direction, streams: u32, mtu: u32) -> String {
    let direction = direction.label();
    let plural = if streams == 1 { "" } else { "s" };
    format!("tcp {direction} {streams} stream{plural} mtu {mtu}")
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    direction: Direction,
    streams: u32,
    mtu: u32,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, mtu)?;
    let mut stream = Stream::open(&arena, direction, streams)?;
    thread::sleep(options.warm_up);
    let window = stream.window(&arena, options.window)?;
    let row = row(direction, streams, mtu);
    let mut samples = vec![Sample::new(row.clone(), Metric::Rate, window.gigabits_per_second())];
    samples.push(Sample::new(row, Metric::CpuPerGigabyte, window.cpu_per_gigabyte()));
    Ok(samples)
}

/// What went through in a window of time.
pub(crate) struct Window {
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

impl Window {
    /// What lies between two marks; an error if nothing arrived.
    pub(crate) fn between(before: &Reply, after: &Reply, cpu_seconds: f64) -> anyhow::Result<Self> {
        let bytes = after.number("bytes")? - before.number("bytes")?;
        let nanos = after.number("nanos")? - before.number("nanos")?;
        if bytes == 0 || nanos == 0 {
            bail!("nothing arrived in the window");
        }
        Ok(Self { bytes: bytes as f64, seconds: nanos as f64 / 1e9, cpu_seconds })
    }

    pub(crate) fn gigabits_per_second(&self) -> f64 {
        self.bytes * 8.0 / 1e9 / self.seconds
    }

    pub(crate) fn cpu_per_gigabyte(&self) -> f64 {
        self.cpu_seconds / (self.bytes / 1e9)
    }
}

/// Both ends of a bulk transfer.
pub(crate) struct Stream {
    guest: Worker,
    host: Worker,
    direction: Direction,
}

impl Stream {
    /// Connects every stream, then lets the sender go.
    pub(crate) fn open(arena: &Arena, direction: Direction, streams: u32) -> anyhow::Result<Self> {
        let (guest_role, host_role) = direction.roles();
        let streams = streams.to_string();
        let (host, ready) =
            arena.host(LOAD, &["listen".into(), host_role.into(), streams.clone()])?;
        let address = through_gateway(ready.number("port")?);
        let (guest, _) = arena.guest(LOAD, &[address, guest_role.into(), streams])?;
        Self::between(guest, host, direction)
    }

    /// Lets the sender of two connected workers go.
    pub(crate) fn between(
        guest: Worker,
        host: Worker,
        direction: Direction,
    ) -> anyhow::Result<Self> {
        let mut stream = Self { guest, host, direction };
        stream.resume()?;
        Ok(stream)
    }

    /// Measures for `window` at the receiver.
    pub(crate) fn window(&mut self, arena: &Arena, window: Duration) -> anyhow::Result<Window> {
        let cpu_before = arena.cpu_seconds()?;
        let before = self.receiver().ask("mark", PATIENCE)?;
        thread::sleep(window);
        let after = self.receiver().ask("mark", PATIENCE)?;
        Window::between(&before, &after, arena.cpu_seconds()? - cpu_before)
    }

    /// Bytes that have arrived so far.
    pub(crate) fn arrived(&mut self) -> anyhow::Result<u64> {
        self.receiver().ask("mark", PATIENCE)?.number("bytes")
    }

    /// Stops the sender; what is under way still arrives, the connection stays.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.sender().ask("pause", PATIENCE).map(drop)
    }

    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.sender().ask("resume", PATIENCE).map(drop)
    }

    fn receiver(&mut self) -> &mut Worker {
        match self.direction {
            Direction::Up => &mut self.host,
            Direction::Down => &mut self.guest,
        }
    }

    fn sender(&mut self) -> &mut Worker {
        match self.direction {
            Direction::Up => &mut self.guest,
            Direction::Down => &mut self.host,
        }
    }
}
