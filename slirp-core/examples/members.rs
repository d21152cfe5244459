//! Puts two containers on one network: they reach each other by name, through this process.
//!
//! Owns a container `web` with a small server and a container `client` that fetches
//! `http://web:8000/`. Both are members of one instance, added from an async runtime. Nobody needs
//! a bridge, or privileges.
//!
//! ```text
//! cargo run -p slirp-core --example members
//! ```
//!
//! Needs unshare(1), mount(8), curl(1), python3, a kernel that lets the user make user namespaces,
//! and `/dev/net/tun` that the user may open.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "an embedding program lives on the host side")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use slirp_core::instance::{Builder, Handle, Member, MemberId, NewMember, Switchboard};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;

const MTU: u16 = 1500;
/// Answers one request.
const SERVER: &str = "
import socket
listener = socket.create_server(('', 8000))
print('listening', flush=True)
stream, _ = listener.accept()
stream.recv(4096)
stream.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello from web\\n')
";
/// Asks for names where the network answers them.
const CLIENT: &str = "
file=$(mktemp) && echo nameserver 10.0.2.3 >$file
mount --bind $file /etc/resolv.conf && rm -f $file
exec curl -sS --max-time 20 http://web:8000/
";

fn main() -> Result<(), Box<dyn Error>> {
    let web = Container::start(&["python3", "-c", SERVER])?;
    let client = Container::start(&["sh", "-c", CLIENT])?;
    let network = Builder::new(Switchboard::new()?).mtu(MTU).spawn()?;
    tokio::runtime::Builder::new_current_thread().build()?.block_on(serve(
        web,
        client,
        network.handle(),
    ))?;
    network.handle().shutdown();
    network.wait()?;
    println!("bye");
    Ok(())
}

async fn serve(
    mut web: Container,
    client: Container,
    network: Handle,
) -> Result<(), Box<dyn Error>> {
    let id = join(&network, &web, "web", 100).await?;
    join(&network, &client, "client", 101).await?;
    web.go()?;
    // A real program would wait by its runtime's own means.
    println!("web says: {}", web.line()?.trim_end());
    println!("client says: {}", client.run()?.trim_end());
    network.remove_member(id).await?;
    let members = network.members().await.ok_or("the network ended early")?;
    println!("still there: {}", members.len());
    web.end()
}

/// Gives the container a device, the address `.LAST`, and a name on the network.
async fn join(
    network: &Handle,
    container: &Container,
    name: &str,
    last: u8,
) -> Result<MemberId, Box<dyn Error>> {
    let plan = SlirpNetwork::default();
    let address = Ipv4Addr::new(10, 0, 2, last);
    let target = NamespaceTarget::of_pid(i32::try_from(container.process.id())?)?;
    let configure = Configuration { address, ..Configuration::for_plan(&plan, MTU) };
    let request = TapRequest { name: "tap0".to_owned(), configure: Some(configure) };
    let tap = open_tap(&target, &request)?;
    let mac = tap.mac()?.ok_or("the device has no Ethernet address")?;
    let member =
        Member { mac, address, address6: None, names: vec![name.parse()?], aliases: Vec::new() };
    Ok(network
        .add_member(NewMember { tap, member, egress: None, rates: None, guard: None })
        .await?)
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
        let stdout = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut container = Self { process, gate, stdout };
        if container.line()? != "born\n" {
            // It has printed why, and ends by itself.
            container.process.wait()?;
            return Err("unshare made no namespaces".into());
        }
        Ok(container)
    }

    fn go(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.gate.write_all(b"go\n")?)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }

    /// Lets the process go and returns what it printed.
    fn run(mut self) -> Result<String, Box<dyn Error>> {
        self.go()?;
        let mut said = String::new();
        self.stdout.read_to_string(&mut said)?;
        self.end()?;
        Ok(said)
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        let status = self.process.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("a container ended with {status}").into())
        }
    }
}
