//! A port of the host that leads to a server in the guest: throughput in both directions, and
//! latency.
//!
//! Owns the request on the stack's API socket that opens the port. pasta has no such socket, and it
//! forwards loopback ports around its TAP device, so it does not take part.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{Asked, Direction, MTU_ETHERNET, Sample, Trial, latency, tcp};
use crate::arena::Arena;
use crate::load::{EXCHANGE_TIMEOUT, round_trip, tcp_stream};
use crate::options::Options;
use crate::stack::{Stack, StackKind};
use crate::worker::Reply;

/// Address of the guest's server behind the TAP device.
const GUEST: &str = "10.0.2.100";

/// How often the API socket is tried.
const LOOK_EVERY: Duration = Duration::from_millis(2);

pub(crate) const LATENCY_ROW: &str = "forward latency of 1 byte there and back";

pub(crate) fn row(direction: Direction, mtu: u32) -> String {
    let direction = match direction {
        Direction::Up => "out of the guest",
        Direction::Down => "into the guest",
    };
    format!("forward {direction} mtu {mtu}")
}

/// Whether `stack` has an API socket.
pub(crate) const fn is_supported(stack: &Stack) -> bool {
    matches!(stack.kind, StackKind::Ours | StackKind::Policy | StackKind::Slirp4netns)
}

/// One stream through a port.
pub(crate) struct Forwarded {
    row: String,
    stream: tcp::Stream,
    arena: Arena,
}

impl Forwarded {
    pub(crate) fn open(
        options: &Options,
        stack: &Stack,
        direction: Direction,
        mtu: u32,
    ) -> anyhow::Result<Self> {
        let arena = Arena::open_with_api(options, stack, mtu)?;
        let (guest_role, host_role) = direction.roles();
        let arguments = ["listen-all", guest_role, "1"].map(str::to_owned);
        let (guest, ready) = arena.guest(tcp_stream::LOAD, &arguments)?;
        let address = open_port(arena.api_socket(), ready.number("port")?)?;
        let arguments = [address.as_str(), host_role, "1"].map(str::to_owned);
        let (host, _) = arena.host(tcp_stream::LOAD, &arguments)?;
        let mut stream = tcp::Stream::between(guest, host, direction);
        stream.warm_up(options)?;
        Ok(Self { row: row(direction, mtu), stream, arena })
    }
}

impl Trial for Forwarded {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        Ok(self.stream.turn(&self.arena, len)?.samples(&self.row))
    }
}

pub(crate) fn open_latency(options: &Options, stack: &Stack) -> anyhow::Result<Asked> {
    let arena = Arena::open_with_api(options, stack, MTU_ETHERNET)?;
    let (server, ready) = arena.guest(round_trip::SERVER, &["all".to_owned()])?;
    let address = open_port(arena.api_socket(), ready.number("port")?)?;
    let (client, _) = arena.host(round_trip::CLIENT, &[address])?;
    let read = |answer: &Reply| latency::samples(LATENCY_ROW, answer);
    Asked::new(options, client, server, arena, Box::new(read))
}

/// Connects to the API socket, which appears some time after the guest is configured.
fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let started_at = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(_) if started_at.elapsed() < EXCHANGE_TIMEOUT => thread::sleep(LOOK_EVERY),
            Err(error) => {
                let place = socket.display();
                return Err(error).with_context(|| format!("cannot connect to {place}"));
            }
        }
    }
}

/// Makes the stack forward a free port of the host's loopback to `guest_port`; returns its address.
fn open_port(socket: &Path, guest_port: u64) -> anyhow::Result<String> {
    // The port is free at this moment; no other program on this machine is expected to take it.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let request = format!(
        concat!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"tcp","host_addr":"127.0.0.1","#,
            r#""host_port":{port},"guest_addr":"{guest}","guest_port":{guest_port}}}}}"#
        ),
        guest = GUEST,
        port = port,
        guest_port = guest_port
    );
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).context("no reply on the API socket")?;
    if !reply.contains("\"return\"") {
        bail!("the stack refused to open a port: {reply}");
    }
    Ok(format!("127.0.0.1:{port}"))
}
