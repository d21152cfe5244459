//! Load generators: the work of this binary when it is re-executed as a worker.
//!
//! Owns the table of loads by name. Each load is plain blocking sockets and threads, kept simple so
//! that the generator stays well ahead of what it measures; each answers questions over `worker`'s
//! line protocol.

pub(crate) mod connect;
mod gate;
pub(crate) mod idle;
pub(crate) mod names;
pub(crate) mod round_trip;
pub(crate) mod tcp_stream;
pub(crate) mod udp;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::unistd::setsid;

use crate::{arena, worker};

/// A connection attempt or a single exchange that takes longer has failed; arbitrary.
pub(crate) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Servers bind here: the host's loopback, any free port.
pub(crate) const ANY_PORT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

/// Runs the worker described by `PLACE LOAD ARGS...`.
pub(crate) fn work(args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let outcome = dispatch(args);
    if let Err(error) = &outcome {
        worker::report_failure(error);
    }
    outcome
}

fn dispatch(mut args: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let place = args.next().context("no place")?;
    let load = args.next().context("no load")?;
    let args: Vec<String> = args.collect();
    if place != "host" {
        // Before any thread exists: a user namespace can only be entered alone.
        arena::enter(place.parse().context("odd holder")?)?;
    }
    worker::die_with_parent()?;
    // In real use a container, its network and the host's servers do not share a session, and the
    // scheduler divides a core among sessions first (sched(7), autogroups).
    setsid().context("setsid")?;
    match load.as_str() {
        tcp_stream::LOAD => tcp_stream::work(&args),
        round_trip::SERVER => round_trip::serve(&args),
        round_trip::CLIENT => round_trip::call(&args),
        connect::SERVER => connect::serve(&args),
        connect::CLIENT => connect::call(&args),
        udp::LOAD => udp::work(&args),
        idle::SERVER => idle::serve(),
        idle::CLIENT => idle::call(&args),
        names::SERVER => names::serve(),
        names::CLIENT => names::call(&args),
        other => bail!("unknown load {other}"),
    }
}

/// Every address, where servers in the guest that are reached through its TAP device bind: at this
/// port, without one at any free port.
fn everywhere_at(port: Option<&String>) -> anyhow::Result<SocketAddrV4> {
    let port = port.map_or(Ok(0), |port| port.parse()).context("odd port")?;
    Ok(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
}

/// The `index`th argument.
pub(crate) fn arg(args: &[String], index: usize) -> anyhow::Result<&str> {
    args.get(index).map(String::as_str).with_context(|| format!("argument {index} is missing"))
}

/// The number after the verb of a question such as `run 2000`.
pub(crate) fn operand(question: &str) -> anyhow::Result<u64> {
    let word = question.split_whitespace().nth(1).context("the question lacks its number")?;
    word.parse().context("odd number in the question")
}

/// Nanoseconds as a number for a reply; saturates after 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
