//! Connect, send one byte, read the answer, close: as often as time allows.
//!
//! Owns both ends. Ephemeral ports must not limit the measurement: the server closes with a reset,
//! so that no TIME-WAIT stays on the host's side of the stack; it listens on several ports, and the
//! guest's namespace gets the widest port range and reuses its own TIME-WAIT tuples. Question to
//! the client: `run MILLISECONDS`.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use socket2::SockRef;

use super::{ANY_PORT, EXCHANGE_TIMEOUT, arg, nanos, operand};
use crate::worker::{self, Reply};

pub(crate) const SERVER: &str = "connect-server";
pub(crate) const CLIENT: &str = "connect-client";

/// Server ports: with 60,000 guest ports each, TIME-WAIT never fills a tuple space within a run.
const PORTS: usize = 16;
/// A client thread stops after this many connections, whatever time is left.
const CONNECTIONS_CAP: u64 = 100_000;

pub(crate) fn serve(args: &[String]) -> anyhow::Result<()> {
    let answer_len: usize = arg(args, 0)?.parse().context("odd length of an answer")?;
    let mut ready = Reply::default();
    for _ in 0..PORTS {
        let listener = TcpListener::bind(ANY_PORT).context("bind")?;
        ready = ready.with("port", listener.local_addr()?.port().into());
        thread::spawn(move || {
            let text = vec![7_u8; answer_len];
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that failed counts on its own side.
                let _ = answer(stream, &text);
            }
        });
    }
    worker::serve(&ready, |_| Ok(Reply::default()))
}

fn answer(mut stream: TcpStream, text: &[u8]) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut byte = [0_u8];
    stream.read_exact(&mut byte)?;
    stream.write_all(text)?;
    // The client closes first; then closing here resets and leaves nothing behind.
    stream.read(&mut byte).map(drop)
}

pub(crate) fn call(args: &[String]) -> anyhow::Result<()> {
    let gateway: IpAddr = arg(args, 0)?.parse().context("odd address")?;
    let clients: usize = arg(args, 1)?.parse().context("odd number of clients")?;
    let answer_len: usize = arg(args, 2)?.parse().context("odd length of an answer")?;
    let mut servers = Vec::new();
    for port in args.get(3..).unwrap_or_default() {
        servers.push(SocketAddr::new(gateway, port.parse().context("odd port")?));
    }
    if clients == 0 || clients > servers.len() {
        bail!("{clients} clients need as many ports, got {}", servers.len());
    }
    // This worker runs inside the guest's namespace: its settings end with it.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "2000 65000").context("port range")?;
    fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1").context("tcp_tw_reuse")?;
    worker::serve(&Reply::default(), |question| {
        let window = Duration::from_millis(operand(question)?);
        let started_at = Instant::now();
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                // Each client owns its ports, so no server thread ever serves two at once.
                let own: Vec<_> = servers.iter().skip(client).step_by(clients).copied().collect();
                thread::spawn(move || connect_for(&own, answer_len, started_at, window))
            })
            .collect();
        let mut count = 0;
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            count += done?;
        }
        let elapsed = nanos(started_at.elapsed());
        Ok(Reply::default().with("count", count).with("nanos", elapsed))
    })
}

fn connect_for(
    servers: &[SocketAddr],
    answer_len: usize,
    started_at: Instant,
    window: Duration,
) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut answer = vec![0; answer_len];
    for server in servers.iter().cycle() {
        if started_at.elapsed() >= window || count >= CONNECTIONS_CAP {
            break;
        }
        let mut stream = TcpStream::connect_timeout(server, EXCHANGE_TIMEOUT).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
        stream.write_all(&[7]).context("request")?;
        stream.read_exact(&mut answer).context("response")?;
        count += 1;
    }
    Ok(count)
}
