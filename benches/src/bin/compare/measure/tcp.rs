//! TCP throughput, and the processor time the stack spends on it.
//!
//! Owns the measured window: two marks at the receiver, the stack's processor time between the same
//! two moments. One stream and eight streams share an arena and take turns, since they are
//! compared. `crowd`, `forward` and `memory` reuse the stream.

use std::thread;
use std::time::Duration;

use anyhow::bail;

use super::{Direction, Metric, SETTLE, Sample, Trial, pause, through_gateway};
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

/// Numbers of streams that are measured.
pub(crate) const STREAMS: [u32; 2] = [1, 8];

pub(crate) fn name(direction: Direction, mtu: u32) -> String {
    format!("tcp {} mtu {mtu}", direction.label())
}

/// One stream and eight.
pub(crate) struct Bulk {
    streams: Vec<(String, Stream)>,
    arena: Arena,
}

impl Bulk {
    pub(crate) fn open(
        options: &Options,
        stack: &Stack,
        direction: Direction,
        mtu: u32,
    ) -> anyhow::Result<Self> {
        let arena = Arena::open(options, stack, mtu)?;
        let mut streams = Vec::new();
        for count in STREAMS {
            let mut stream = Stream::open(&arena, direction, count)?;
            stream.warm_up(options)?;
            streams.push((row(direction, count, mtu), stream));
        }
        Ok(Self { streams, arena })
    }
}

impl Trial for Bulk {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for (row, stream) in &mut self.streams {
            samples.extend(stream.turn(&self.arena, len)?.samples(row));
        }
        Ok(samples)
    }
}

/// The bytes and the processor time of one window.
pub(crate) struct Window {
    pub(crate) bytes: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

impl Window {
    /// The window between two marks.
    pub(crate) fn between(before: &Reply, after: &Reply, cpu_seconds: f64) -> anyhow::Result<Self> {
        let bytes = after.number("bytes")? - before.number("bytes")?;
        let nanos = after.number("nanos")? - before.number("nanos")?;
        if nanos == 0 {
            bail!("the clock stands still");
        }
        Ok(Self { bytes: bytes as f64, seconds: nanos as f64 / 1e9, cpu_seconds })
    }

    pub(crate) fn gigabits_per_second(&self) -> f64 {
        self.bytes * 8.0 / 1e9 / self.seconds
    }

    /// The rate, and its cost unless no byte arrived.
    pub(crate) fn samples(&self, row: &str) -> Vec<Sample> {
        let mut samples = vec![Sample::new(row, Metric::Rate, self.gigabits_per_second())];
        if self.bytes > 0.0 {
            let cost = self.cpu_seconds / (self.bytes / 1e9);
            samples.push(Sample::new(row, Metric::CpuPerGigabyte, cost));
        }
        samples
    }
}

/// Both ends of a bulk transfer.
pub(crate) struct Stream {
    guest: Worker,
    host: Worker,
    direction: Direction,
}

impl Stream {
    /// Connects every stream; the sender is paused.
    pub(crate) fn open(arena: &Arena, direction: Direction, streams: u32) -> anyhow::Result<Self> {
        let (guest_role, host_role) = direction.roles();
        let streams = streams.to_string();
        let (host, ready) =
            arena.host(LOAD, &["listen".into(), host_role.into(), streams.clone()])?;
        let address = through_gateway(ready.number("port")?);
        let (guest, _) = arena.guest(LOAD, &[address, guest_role.into(), streams])?;
        Ok(Self::between(guest, host, direction))
    }

    /// Two connected workers; the sender is paused.
    pub(crate) const fn between(guest: Worker, host: Worker, direction: Direction) -> Self {
        Self { guest, host, direction }
    }

    /// Lets the sender go for the first time: slow start, first touches of memory.
    pub(crate) fn warm_up(&mut self, options: &Options) -> anyhow::Result<()> {
        self.resume()?;
        thread::sleep(options.warm_up);
        self.pause()
    }

    /// Lets the sender go for one window and measures at the receiver.
    pub(crate) fn turn(&mut self, arena: &Arena, len: Duration) -> anyhow::Result<Window> {
        self.resume()?;
        thread::sleep(SETTLE);
        let window = self.measure(arena, len);
        self.pause()?;
        window
    }

    fn measure(&mut self, arena: &Arena, window: Duration) -> anyhow::Result<Window> {
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

    /// Stops the sender, and waits for bytes in flight; the connection stays.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        let (sender, receiver) = match self.direction {
            Direction::Up => (&mut self.guest, &mut self.host),
            Direction::Down => (&mut self.host, &mut self.guest),
        };
        pause(sender, receiver)
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
