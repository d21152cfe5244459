//! A port that pasta's command line publishes, reached by a client on the host's loopback: the
//! stack joins both sockets, and no packet crosses the TAP device.
//!
//! Owns the port, which has the same number on both sides. One stream and eight share an arena and
//! take turns.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::{Asked, Direction, MTU_JUMBO, Sample, Trial, latency, tcp};
use crate::arena::Arena;
use crate::load::{round_trip, tcp_stream};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::Reply;

pub(crate) const LATENCY_ROW: &str = "spliced latency of 1 byte there and back";

pub(crate) fn name(direction: Direction, mtu: u32) -> String {
    let direction = match direction {
        Direction::Up => "out of the guest",
        Direction::Down => "into the guest",
    };
    format!("spliced {direction} mtu {mtu}")
}

pub(crate) fn row(direction: Direction, streams: u32, mtu: u32) -> String {
    let plural = if streams == 1 { "" } else { "s" };
    format!("{} {streams} stream{plural}", name(direction, mtu))
}

/// Streams from a host's client to a guest's server, or back.
pub(crate) struct Spliced {
    streams: Vec<(String, tcp::Stream)>,
    /// One for each number of streams.
    arenas: Vec<Arena>,
}

impl Spliced {
    pub(crate) fn open(
        options: &Options,
        stack: &Stack,
        direction: Direction,
        mtu: u32,
    ) -> anyhow::Result<Self> {
        let (guest_role, host_role) = direction.roles();
        let mut spliced = Self { streams: Vec::new(), arenas: Vec::new() };
        for count in tcp::STREAMS {
            let port = free_port()?;
            let arena = Arena::open_publishing(options, stack, mtu, port)?;
            let (port, streams) = (port.to_string(), count.to_string());
            let arguments = ["listen-all", guest_role, &streams, &port].map(str::to_owned);
            let (guest, _) = arena.guest(tcp_stream::LOAD, &arguments)?;
            let address = format!("127.0.0.1:{port}");
            let arguments = [&address, host_role, &streams].map(str::to_owned);
            let (host, _) = arena.host(tcp_stream::LOAD, &arguments)?;
            let mut stream = tcp::Stream::between(guest, host, direction);
            stream.warm_up(options)?;
            spliced.streams.push((row(direction, count, mtu), stream));
            spliced.arenas.push(arena);
        }
        Ok(spliced)
    }
}

impl Trial for Spliced {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for ((row, stream), arena) in self.streams.iter_mut().zip(&self.arenas) {
            samples.extend(stream.turn(arena, len)?.samples(row));
        }
        Ok(samples)
    }
}

pub(crate) fn open_latency(options: &Options, stack: &Stack) -> anyhow::Result<Asked> {
    let port = free_port()?;
    let arena = Arena::open_publishing(options, stack, MTU_JUMBO, port)?;
    let (server, _) = arena.guest(round_trip::SERVER, &["all".to_owned(), port.to_string()])?;
    let (client, _) = arena.host(round_trip::CLIENT, &[format!("127.0.0.1:{port}")])?;
    let read = |answer: &Reply| latency::samples(LATENCY_ROW, answer);
    Asked::new(options, client, server, arena, Box::new(read))
}

/// A port that is free at this moment; no other program on this machine is expected to take it.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
