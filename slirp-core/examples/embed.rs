//! Embeds the library as a container runtime would: this program makes containers with a network
//! namespace of their own and is their network, all in one process.
//!
//! Owns two small containers and a web server on the host's loopback, which both of them fetch as
//! `http://10.0.2.2:PORT/`. The first instance is driven by blocking calls, the second one from an
//! async runtime; they run side by side and know nothing of each other.
//!
//! ```text
//! cargo run -p slirp-core --example embed
//! ```
//!
//! Needs unshare(1), curl(1), a kernel that lets the user make user namespaces, and `/dev/net/tun`
//! that the user may open. It works as root and as an ordinary user.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "an embedding program lives on the host side")]

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use slirp_core::instance::{Builder, Instance};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_core::stats::Stats;

/// What the web server says.
const GREETING: &str = "hello from the host\n";
/// How many containers fetch it, one request each.
const CONTAINERS: usize = 2;
const MTU: u16 = 1500;

fn main() -> Result<(), Box<dyn Error>> {
    let (address, server) = start_web_server()?;
    let url = format!("http://{}:{}/", SlirpNetwork::default().gateway(), address.port());

    let first = Container::start(&["curl", "-sS", "--max-time", "20", &url])?;
    let second = Container::start(&["curl", "-sS", "--max-time", "20", &url])?;
    let first_network = connect(&first)?;
    let second_network = connect(&second)?;

    run_blocking(first, first_network)?;
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(run_async(second, second_network))?;

    server.join().map_err(|_| "the web server panicked")??;
    println!("bye");
    Ok(())
}

/// Puts a TAP device into the container's network namespace and serves it from two threads of this
/// process. The container has its network when this returns.
fn connect(container: &Container) -> Result<Instance, Box<dyn Error>> {
    let plan = SlirpNetwork::default();
    let target = NamespaceTarget::of_pid(i32::try_from(container.process.id())?)?;
    let configure = Some(Configuration::for_plan(&plan, MTU));
    let tap = open_tap(&target, &TapRequest { name: "tap0".to_owned(), configure })?;
    Ok(Builder::new(tap).plan(plan).mtu(MTU).spawn()?)
}

/// Lets the container run; every call waits on this thread.
fn run_blocking(container: Container, network: Instance) -> Result<(), Box<dyn Error>> {
    let said = container.run()?;
    let handle = network.handle();
    let stats = handle.blocking().stats().ok_or("the network ended early")?;
    report("first", &said, &stats);
    handle.shutdown();
    network.wait()?;
    Ok(())
}

/// The same from a runtime: handle and instance are futures there, and any runtime will do.
async fn run_async(container: Container, network: Instance) -> Result<(), Box<dyn Error>> {
    // A real program would run the container with its runtime's own means.
    let said = container.run()?;
    let handle = network.handle();
    let stats = handle.stats().await.ok_or("the network ended early")?;
    report("second", &said, &stats);
    handle.shutdown();
    network.join().await?;
    Ok(())
}

fn report(name: &str, said: &str, stats: &Stats) {
    println!("{name} container said: {}", said.trim_end());
    println!(
        "{name} network: {} frames from the guest, {} to it, {} TCP connections, {} discards",
        stats.frames_from_guest,
        stats.frames_to_guest,
        stats.tcp_opened,
        stats.discards.total(),
    );
}

/// A process in namespaces of its own, which waits before its first step until it has a network.
struct Container {
    process: Child,
    gate: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Container {
    fn start(argv: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "--"])
            .args(["sh", "-c", "echo born && read -r _ && exec \"$@\"", "sh"])
            .args(argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let gate = process.stdin.take().ok_or("no standard input")?;
        let mut stdout = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if line != "born\n" {
            // It has printed why, and ends by itself.
            process.wait()?;
            return Err("unshare made no namespaces".into());
        }
        Ok(Self { process, gate, stdout })
    }

    /// Lets the process go and returns what it printed.
    fn run(mut self) -> Result<String, Box<dyn Error>> {
        self.gate.write_all(b"go\n")?;
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        if !status.success() {
            return Err(format!("the container ended with {status}").into());
        }
        Ok(said)
    }
}

/// Serves one request per container on the host's loopback, then ends.
fn start_web_server() -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let thread = std::thread::spawn(move || {
        for _ in 0..CONTAINERS {
            let (stream, _) = listener.accept()?;
            answer(&stream)?;
        }
        Ok(())
    });
    Ok((address, thread))
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut line = String::new();
    let mut request = BufReader::new(stream);
    // The request ends with an empty line.
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{GREETING}", GREETING.len())
}
