//! Request and response: one byte there, one byte back, as often as time allows.
//!
//! Owns both ends of the latency measurement. Question to the client: `run MILLISECONDS`; the
//! answer holds the number of round trips and the quantiles in nanoseconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{ANY_PORT, EXCHANGE_TIMEOUT, arg, everywhere_at, nanos, operand};
use crate::worker::{self, Reply};

pub(crate) const SERVER: &str = "round-trip-server";
pub(crate) const CLIENT: &str = "round-trip-client";

/// At most this many round trips are kept: 8 MB of samples, far above what a window holds.
const SAMPLES_CAP: usize = 1_000_000;

/// Serves on the loopback, or with the argument `all` on every address, at a port if one follows.
pub(crate) fn serve(args: &[String]) -> anyhow::Result<()> {
    let is_for_all = args.first().is_some_and(|arg| arg == "all");
    let own = if is_for_all { everywhere_at(args.get(1))? } else { ANY_PORT };
    let listener = TcpListener::bind(own).context("bind")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo(stream));
        }
    });
    worker::serve(&Reply::default().with("port", port.into()), |_| Ok(Reply::default()))
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0_u8];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

pub(crate) fn call(args: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arg(args, 0)?.parse().context("odd address")?;
    let mut stream = TcpStream::connect_timeout(&address, EXCHANGE_TIMEOUT).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    worker::serve(&Reply::default(), |question| {
        let window = Duration::from_millis(operand(question)?);
        let mut samples = Vec::with_capacity(SAMPLES_CAP);
        let started_at = Instant::now();
        let mut before = started_at;
        while samples.len() < SAMPLES_CAP && before.duration_since(started_at) < window {
            let mut byte = [7_u8];
            stream.write_all(&byte).context("request")?;
            stream.read_exact(&mut byte).context("response")?;
            let after = Instant::now();
            samples.push(nanos(after.duration_since(before)));
            before = after;
        }
        let elapsed = before.duration_since(started_at);
        samples.sort_unstable();
        Ok(Reply::default()
            .with("count", u64::try_from(samples.len())?)
            .with("nanos", nanos(elapsed))
            .with("p50", quantile(&samples, 50))
            .with("p99", quantile(&samples, 99)))
    })
}

/// The sample below which `percent` of the sorted samples lie; 0 without samples.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let index = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(index).copied().unwrap_or_default()
}
