//! Limited rates: how exactly they are kept, how equal the parts of equal streams are, and what a
//! login beside a download feels of it.
//!
//! Owns the options that limit the stack, which peers do not have, and the comparison of iperf3's
//! report with the limit. A limit counts IP packets and iperf3 counts payload: the row has the rate
//! of whole packets as a multiple of the limit.

use anyhow::Context;

use super::iperf::{bits_per_second, run};
use super::tcp::Stream;
use super::{Asked, Direction, MTU_ETHERNET, Metric, Sample, Trial, latency, through_gateway};
use crate::arena::Arena;
use crate::load::round_trip::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::Reply;

/// Limits that are measured: how the option has them, and in bits a second.
pub(crate) const LIMITS: [(&str, f64); 4] = [("1M", 1e6), ("10M", 1e7), ("100M", 1e8), ("1G", 1e9)];
/// Numbers of streams that are measured.
pub(crate) const STREAMS: [u32; 2] = [1, 32];
/// The limit of the download that a login goes on beside.
const LOGIN_LIMIT: &str = "10M";
/// Seconds for which a rate is measured, behind the first one with its burst.
const SECONDS: f64 = 10.0;
/// An IP packet and its payload in bytes, at the MTU of ordinary containers.
const PACKET: (f64, f64) = (1500.0, 1460.0);

pub(crate) const LOGIN_ROW: &str = "rates 10M latency of 1 byte there and back beside a download";

pub(crate) fn row(direction: Direction, limit: &str, streams: u32) -> String {
    let plural = if streams == 1 { "" } else { "s" };
    format!("rates {limit} {} {streams} stream{plural}", direction.label())
}

/// The options of a stack that is limited.
fn limited(options: &Options, limit: &str) -> Options {
    let mut options = options.clone();
    options.ours_args.extend(["in", "out"].map(|way| format!("--rate-{way}={limit}")));
    options
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    direction: Direction,
    (limit, bits): (&str, f64),
    streams: u32,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(&limited(options, limit), stack, MTU_ETHERNET)?;
    let seconds = options.measured.as_secs_f64().max(SECONDS);
    let report = run(options, &arena, direction, streams, seconds)?;
    let row = row(direction, limit, streams);
    let (packet, payload) = PACKET;
    let rate = bits_per_second(&report, "/end/sum_received")? * packet / payload;
    let mut samples = vec![Sample::new(row.clone(), Metric::OfLimit, rate / bits)];
    if streams > 1 {
        let parts = (0..streams)
            .map(|stream| bits_per_second(&report, &format!("/end/streams/{stream}/receiver")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        samples.push(Sample::new(row, Metric::Equality, jain(&parts)));
    }
    Ok(samples)
}

/// How equal parts are (Jain, 1984): 1 if all are, and 1/n if one is all.
fn jain(parts: &[f64]) -> f64 {
    let sum: f64 = parts.iter().sum();
    let squares: f64 = parts.iter().map(|part| part * part).sum();
    sum * sum / (parts.len() as f64 * squares)
}

/// One byte there and back, while a download wants all of the rate.
pub(crate) struct Login {
    // Dropped first: the requests go on in the arena of the other.
    _download: Stream,
    asked: Asked,
}

impl Login {
    pub(crate) fn open(options: &Options, stack: &Stack) -> anyhow::Result<Self> {
        let arena = Arena::open(&limited(options, LOGIN_LIMIT), stack, MTU_ETHERNET)?;
        let mut download = Stream::open(&arena, Direction::Down, 1)?;
        download.resume().context("the download does not begin")?;
        let (server, ready) = arena.host(SERVER, &[])?;
        let (client, _) = arena.guest(CLIENT, &[through_gateway(ready.number("port")?)])?;
        let read = |answer: &Reply| latency::samples(LOGIN_ROW, answer);
        let asked = Asked::new(options, client, server, arena, Box::new(read))?;
        Ok(Self { _download: download, asked })
    }
}

impl Trial for Login {
    fn window(&mut self, len: std::time::Duration) -> anyhow::Result<Vec<Sample>> {
        self.asked.window(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_are_one() {
        assert!((jain(&[3.0; 32]) - 1.0).abs() < 1e-9);
        assert!((jain(&[1.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    }
}
