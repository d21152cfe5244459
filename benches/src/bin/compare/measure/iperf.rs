//! Cross-check of the TCP rates with iperf3, if it is installed and requested.
//!
//! Owns iperf3's command line and the parsing of its report. The numbers stand beside our own
//! generator's, and no bar refers to them.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Direction, Metric, Sample, tcp};
use crate::arena::{Arena, GATEWAY, Program};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::{self, PATIENCE};

/// How often a condition of iperf3 is checked.
const POLL_EVERY: Duration = Duration::from_millis(5);

pub(crate) fn row(direction: Direction, streams: u32, mtu: u32) -> String {
    format!("iperf3 {}", tcp::row(direction, streams, mtu))
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    direction: Direction,
    streams: u32,
    mtu: u32,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, mtu)?;
    let seconds = options.measured.as_secs_f64().ceil();
    let report = run(options, &arena, direction, streams, seconds)?;
    let bits = bits_per_second(&report, "/end/sum_received")?;
    Ok(vec![Sample::new(row(direction, streams, mtu), Metric::IperfRate, bits / 1e9)])
}

/// The report of streams that have run for so many seconds, and one before.
pub(super) fn run(
    options: &Options,
    arena: &Arena,
    direction: Direction,
    streams: u32,
    seconds: f64,
) -> anyhow::Result<serde_json::Value> {
    // iperf3 cannot report a port it chose; a port that was free a moment ago serves.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let server = Command::new(std::env::current_exe()?)
        .args([worker::EXEC, "iperf3", "--server", "--one-off", "--bind", "127.0.0.1"])
        .args(["--port", &port])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start iperf3")?;
    let mut server = Program(server);
    wait_until_listening(&mut server, &port)?;

    let mut args = vec!["--client".to_owned(), GATEWAY.to_owned(), "--port".to_owned(), port];
    args.extend(["--time", &seconds.to_string(), "--omit", "1", "--json"].map(str::to_owned));
    args.extend(["--connect-timeout".to_owned(), "5000".to_owned()]);
    args.extend(["--parallel".to_owned(), streams.to_string()]);
    if direction == Direction::Down {
        args.push("--reverse".into());
    }
    let path = options.out.join("iperf3.json");
    let output =
        File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut client = arena.guest_program("iperf3", &args, output)?;
    wait_until_over(&mut client, Duration::try_from_secs_f64(seconds)? + PATIENCE)?;
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path)?).context("iperf3 sent no JSON report")?;
    if let Some(error) = report.get("error").and_then(serde_json::Value::as_str) {
        bail!("iperf3: {error}");
    }
    Ok(report)
}

/// The rate in one part of a report.
pub(super) fn bits_per_second(report: &serde_json::Value, part: &str) -> anyhow::Result<f64> {
    report
        .pointer(&format!("{part}/bits_per_second"))
        .and_then(serde_json::Value::as_f64)
        .with_context(|| format!("iperf3's report has no rate in {part}"))
}

fn wait_until_over(client: &mut Program, within: Duration) -> anyhow::Result<()> {
    let started_at = Instant::now();
    while started_at.elapsed() < within {
        if client.0.try_wait()?.is_some() {
            return Ok(());
        }
        std::thread::sleep(POLL_EVERY);
    }
    bail!("iperf3 did not end within {} s", within.as_secs())
}

/// Checks the host's socket table instead of connecting, because the one-off server serves a single
/// client.
fn wait_until_listening(server: &mut Program, port: &str) -> anyhow::Result<()> {
    let port: u16 = port.parse()?;
    // proc(5), net/tcp: local address and port in hexadecimal; state 0A is LISTEN.
    let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
    for _ in 0..1000 {
        if let Some(status) = server.0.try_wait()? {
            bail!("iperf3 ended at once: {status} (is it installed?)");
        }
        if std::fs::read_to_string("/proc/net/tcp")?.contains(&wanted) {
            return Ok(());
        }
        std::thread::sleep(POLL_EVERY);
    }
    bail!("iperf3 does not listen")
}
