//! Published ports as Podman's own tests check them: 48 ways to publish, 16 transfers, and the real
//! socat at both ends.
//!
//! One network has all rules: each case owns a block of ten ports.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use slirp_tests::{
    HOST, PATIENCE, REMOTE, Rootless, World, is_installed, needs, receive_exact, send_exact,
    verify_exact,
};

const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// Made from the MAC address that stands for the host.
const OUR_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x9855, 0x9aff, 0xfe55, 0x9a55);
/// The largest datagram of Podman's tests: a quarter of the kernel's default send buffer.
const LARGE_DATAGRAM: usize = 53_248;
const LARGE_STREAM: usize = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Publish {
    Single,
    Range,
    Translated,
    TranslatedRange,
    AddressBound,
    InterfaceBound,
}

/// A rule, the clients that use it and what each of them sends.
#[derive(Clone, Copy, Debug)]
struct Case {
    transport: Transport,
    publish: Publish,
    /// Where clients on the host connect: an address of the host's interface or of its loopback.
    address: IpAddr,
    port: u16,
    len: usize,
}

fn cases() -> Vec<Case> {
    use Publish::{AddressBound, InterfaceBound, Range, Single, Translated, TranslatedRange};
    let mut cases = Vec::new();
    let mut port = 5_000;
    let addresses = [HOST, HOST_V6, Ipv4Addr::LOCALHOST.into(), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for transport in [Transport::Tcp, Transport::Udp] {
        let large = match transport {
            Transport::Tcp => LARGE_STREAM,
            Transport::Udp => LARGE_DATAGRAM,
        };
        for address in addresses {
            let ways = [Single, Range, Translated, TranslatedRange, AddressBound, InterfaceBound];
            let forwards = ways.map(|publish| (publish, 1));
            let transfers = [(Single, 2_000), (Single, large)];
            for (publish, len) in forwards.into_iter().chain(transfers) {
                cases.push(Case { transport, publish, address, port, len });
                port += 10;
            }
        }
    }
    cases
}

impl Case {
    /// Ports of the host and the ports of the guest that they lead to.
    fn ports(&self) -> Vec<(u16, u16)> {
        use Publish::{AddressBound, InterfaceBound, Range, Single, Translated, TranslatedRange};
        let (count, shift) = match self.publish {
            Single | AddressBound | InterfaceBound => (1, 0),
            Range => (3, 0),
            Translated => (1, 1),
            TranslatedRange => (3, 1),
        };
        (self.port..self.port + count).map(|port| (port, port + shift)).collect()
    }

    /// Option and value, as Podman writes them.
    fn option(&self) -> [String; 2] {
        let (first, last) = (self.ports()[0], self.ports()[self.ports().len() - 1]);
        let ranges = format!("{}-{}:{}-{}", first.0, last.0, first.1, last.1);
        let interface = if self.address.is_loopback() { "lo" } else { "h0" };
        let at = match self.publish {
            Publish::AddressBound => format!("{}/", self.address),
            Publish::InterfaceBound => format!("{}%{interface}/", self.address),
            Publish::Single | Publish::Range | Publish::Translated | Publish::TranslatedRange => {
                String::new()
            }
        };
        let option = match self.transport {
            Transport::Tcp => "-t",
            Transport::Udp => "-u",
        };
        [option.to_owned(), at + &ranges]
    }

    /// Sends to each port, and says what was wrong with what arrived; the addresses are those that
    /// the guest saw.
    fn run(
        &self,
        rootless: &Rootless<'_>,
        netns: &str,
        limit: Duration,
    ) -> Result<Vec<IpAddr>, String> {
        let mut peers = Vec::new();
        for (port, guest_port) in self.ports() {
            let server = rootless
                .enter(netns, || Server::bind(self.transport, self.address, guest_port))
                .map_err(|error| format!("guest's port {guest_port}: {error}"))?;
            let to = SocketAddr::new(self.address, port);
            let outcome = std::thread::scope(|scope| {
                let send = || rootless.world().host.enter(|| self.send(to, limit));
                let sending = scope.spawn(send);
                let received = server.receive(self.len, usize::from(port), limit);
                let sent = sending.join().expect("sending does not panic");
                sent.map_err(|error| format!("sending to {to}: {error}"))
                    .and(received.map_err(|error| format!("guest's port {guest_port}: {error}")))
            });
            peers.push(outcome?);
        }
        Ok(peers)
    }

    fn send(&self, to: SocketAddr, limit: Duration) -> io::Result<()> {
        let seed = usize::from(to.port());
        match self.transport {
            Transport::Tcp => {
                let mut stream = TcpStream::connect_timeout(&to, limit)?;
                stream.set_write_timeout(Some(limit))?;
                send_exact(&mut stream, seed, self.len)?;
                stream.flush()
            }
            Transport::Udp => {
                let mut datagram = Vec::new();
                send_exact(&mut datagram, seed, self.len)?;
                let socket = UdpSocket::bind(any_like(to.ip(), 0))?;
                socket.connect(to)?;
                socket.send(&datagram)?;
                // As socat's `shut-null` does: an empty datagram is the end.
                socket.send(&[]).map(drop)
            }
        }
    }
}

/// The wildcard address of the same IP version.
fn any_like(address: IpAddr, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// A socket of the guest.
enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Server {
    fn bind(transport: Transport, client: IpAddr, port: u16) -> io::Result<Self> {
        let at = any_like(client, port);
        match transport {
            Transport::Tcp => TcpListener::bind(at).map(Self::Tcp),
            Transport::Udp => UdpSocket::bind(at).map(Self::Udp),
        }
    }

    /// Takes exactly `len` bytes of the stream `seed` and their end; hands back their sender.
    fn receive(self, len: usize, seed: usize, limit: Duration) -> io::Result<IpAddr> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
        match self {
            Self::Tcp(listener) => {
                let listener = socket2::Socket::from(listener);
                // It limits the wait for a connection as well.
                listener.set_read_timeout(Some(limit))?;
                let (stream, peer) = TcpListener::from(listener).accept()?;
                stream.set_read_timeout(Some(limit))?;
                let mut stream = stream;
                receive_exact(&mut stream, seed, len)?;
                match stream.read(&mut [0])? {
                    0 => Ok(peer.ip()),
                    _ => Err(invalid("more than was sent")),
                }
            }
            Self::Udp(socket) => {
                socket.set_read_timeout(Some(limit))?;
                let mut buffer = vec![0; 65_536];
                let (count, peer) = socket.recv_from(&mut buffer)?;
                if count != len {
                    return Err(invalid("a datagram of another length"));
                }
                verify_exact(&buffer[..count], seed)?;
                match socket.recv_from(&mut buffer)? {
                    (0, again) if again == peer => Ok(peer.ip()),
                    _ => Err(invalid("no end, or one from somebody else")),
                }
            }
        }
    }
}

#[test]
fn ports_are_published_as_podman_publishes_them() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let cases = cases();
    let options: Vec<_> = cases.iter().flat_map(Case::option).collect();
    let options = options.iter().map(String::as_str);
    let line: Vec<_> = ["--config-net"].into_iter().chain(options).collect();
    let rest = [
        "--dns-forward",
        "169.254.1.1",
        "-T",
        "none",
        "-U",
        "none",
        "--no-map-gw",
        "--quiet",
        "--netns",
        &netns,
        "--map-guest-addr",
        "169.254.1.2",
    ];
    let output = rootless.pasta(&[&line[..], &rest].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    assert_eq!(cases.len(), 64);
    let mut wrong = Vec::new();
    for case in &cases {
        // Over the loopback the guest sees itself. A client with the address that host and guest
        // share is shown by its alias, and where it has none as our link-local address.
        let is_right = |peer: &IpAddr| match (case.address.is_loopback(), peer) {
            (true, _) => *peer == if case.address.is_ipv4() { HOST } else { HOST_V6 },
            (false, IpAddr::V4(peer)) => *peer == Ipv4Addr::new(169, 254, 1, 2),
            (false, IpAddr::V6(peer)) => *peer == OUR_LINK_LOCAL,
        };
        match case.run(&rootless, &netns, PATIENCE / 3) {
            Ok(peers) if peers.iter().all(is_right) => {}
            Ok(peers) => wrong.push(format!("{case:?}: from {peers:?}")),
            Err(error) => wrong.push(format!("{case:?}: {error}")),
        }
    }
    assert_eq!(wrong, [""; 0]);
}

/// The guest has all addresses of its host, and would take what comes from one of them for its own.
#[test]
fn host_with_dozens_of_addresses_reaches_its_guest_under_each() {
    let world = needs!(World::ordinary());
    world.host.script(
        "for last in $(seq 100 140); do
             ip addr add 198.51.100.$last/24 dev h0
             ip addr add 2001:db8:1::$last/64 dev h0 nodad
         done",
    );
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let output =
        rootless.pasta(&["--config-net", "-u", "5000", "-t", "none", "--quiet", "--netns", &netns]);
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    for (any, prefix, seen) in
        [("0.0.0.0", "198.51.100.", REMOTE), ("::", "2001:db8:1::", OUR_LINK_LOCAL.into())]
    {
        let any: IpAddr = any.parse().unwrap();
        let server = rootless.enter(&netns, || UdpSocket::bind((any, 5_000))).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for last in [1].into_iter().chain(100..=140) {
            let own: IpAddr = format!("{prefix}{last}").parse().unwrap();
            let client = world.host.enter(|| UdpSocket::bind((own, 0))).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send_to(b"who am I", (own, 5_000)).unwrap();
            let mut buffer = [0; 16];
            let (count, peer) = server.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], peer.ip()), (&b"who am I"[..], seen), "{own}");
            server.send_to(b"you", peer).unwrap();
            let (count, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..count], from.ip()), (&b"you"[..], own));
        }
    }
    rootless.remove_netns(&netns);
}

#[test]
fn debians_pasta_publishes_ports_in_the_same_ways() {
    needs!(is_installed("pasta"));
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let cases = cases();
    let options: Vec<_> = cases.iter().flat_map(Case::option).collect();
    let options = options.iter().map(String::as_str);
    let line: Vec<_> =
        ["env", "--default-signal", "pasta", "--config-net"].into_iter().chain(options).collect();
    let rest = ["-T", "none", "-U", "none", "--quiet", "--netns", &netns];
    let output = rootless.exec(&[&line[..], &rest].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    rootless.inside(&netns, "while ip -6 addr show tentative | grep -q inet6; do sleep 0.1; done");
    let limit = Duration::from_secs(3);
    let failed: Vec<_> = std::thread::scope(|scope| {
        let run = |case: Case| {
            let (rootless, netns) = (&rootless, &netns);
            scope.spawn(move || case.run(rootless, netns, limit).err().map(|error| (case, error)))
        };
        let running: Vec<_> = cases.iter().map(|&case| run(case)).collect();
        running.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    rootless.remove_netns(&netns);
    assert_eq!(
        failed.iter().map(|(case, error)| format!("{case:?}: {error}")).collect::<Vec<_>>(),
        [""; 0]
    );
}

#[test]
fn bytes_of_socat_arrive_at_socat() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let line = "--config-net -t 5000-5000:5000-5000 -u 5000-5000:5000-5000 -T none -U none \
                --no-map-gw --quiet --netns";
    let words: Vec<_> = line.split_whitespace().chain([netns.as_str()]).collect();
    let output = rootless.pasta(&words);
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    for (listen, list, connect) in [
        ("TCP4-LISTEN:5000", "-Htln", "TCP4:198.51.100.1:5000"),
        ("UDP4-LISTEN:5000,null-eof", "-Huln", "UDP4:198.51.100.1:5000,shut-null"),
        ("TCP6-LISTEN:5000", "-Htln", "TCP6:[::1]:5000"),
        ("UDP6-LISTEN:5000,null-eof", "-Huln", "UDP6:[::1]:5000,shut-null"),
    ] {
        let server = rootless.spawn_inside(&netns, &["socat", "-u", listen, "STDOUT"]);
        let is_open = format!("until ss {list} sport = :5000 | grep -q .; do sleep 0.01; done");
        rootless.inside(&netns, &is_open);
        world.host.script(&format!("printf x | socat -u STDIN {connect}"));
        assert_eq!(server.finish().stdout, "x", "{connect}");
    }
}

#[test]
fn service_of_one_ip_version_is_reached_in_either() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let line = "--config-net -t 5000-5001 -u none -T none -U none --quiet --netns";
    let words: Vec<_> = line.split_whitespace().chain([netns.as_str()]).collect();
    let output = rootless.pasta(&words);
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let listens = ["TCP4-LISTEN:5000,fork", "TCP6-LISTEN:5001,ipv6only=1,fork"];
    let _servers = listens.map(|listen| {
        rootless.spawn_inside(&netns, &["socat", listen, "SYSTEM:read word && echo got $word"])
    });
    let is_open = "for port in 5000 5001; do
        until ss -Htln sport = :$port | grep -q .; do sleep 0.01; done
    done";
    rootless.inside(&netns, is_open);
    for host in ["198.51.100.1", "[2001:db8:1::1]", "127.0.0.1", "[::1]"] {
        for port in [5000, 5001] {
            let ask = format!("echo word | socat -t 20 - TCP:{host}:{port}");
            assert_eq!(world.host.script(&ask), "got word\n", "{host}:{port}");
        }
    }
}
