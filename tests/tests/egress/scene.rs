//! The scene of these tests: a guest under a policy, and an outside that records every packet.
//!
//! ```text
//!  outside: every address of 203.0.113.0/24, 2001:db8:2::/48 and of networks that are closed
//!    :53   name server (203.0.113.53 only)      :80   HTTP, answers each head with 200
//!    :443  TCP, answers first bytes with SEEN   :22, :8443  the same as :443
//! ```
//!
//! What a test asserts is what arrived outside. Before it looks, [`Scene::settle`] sends a datagram
//! that a rule allows, and waits until that has arrived.

#![expect(clippy::unwrap_used, reason = "the scene fails as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::Deref;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_tests::*;

/// The name server that the program asks.
pub(crate) const NAME_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
/// Where index.example is.
pub(crate) const INDEX: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
/// An address that no name has.
pub(crate) const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
/// Where datagrams may go that show that everything before them has been handled.
pub(crate) const SETTLED: &str = "203.0.113.250:9";
/// The first bytes of every answer of the outside.
pub(crate) const SEEN: &[u8] = b"SEEN\n";
/// A refusal is told within this time. Programs are promised one second. A kernel that is still
/// busy with its own SYN takes the error lightly and hears of it with the next SYN, a second later;
/// the rest is for a busy machine.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(3);
/// The alert of a refused ClientHello: fatal, `access_denied`.
pub(crate) const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 49];

/// A guest under a policy.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) online: Online,
    pub(crate) dns: NameServer,
    pub(crate) outside: Recorder,
    _servers: Vec<TcpServer>,
}

/// What a lookup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Addresses(Vec<IpAddr>),
    NoData,
    NoSuchName,
    /// Another code.
    Code(u8),
}

impl Scene {
    /// A guest that is on the network by IPv4 under `policy`, and index.example at [`INDEX`].
    pub(crate) fn new(world: World, policy: &str) -> Self {
        Self::with(world, policy, &[], &[80, 443, 22, 8443])
    }

    /// The same, with options, and servers at these ports only.
    pub(crate) fn with(world: World, policy: &str, options: &[&str], ports: &[u16]) -> Self {
        Self::begin(world, policy, ports, |world, shared| world.online(&[shared, options].concat()))
    }

    /// The same with IPv6.
    pub(crate) fn with_ipv6(world: World, policy: &str) -> Self {
        Self::begin(world, policy, &[80, 443, 22, 8443], |world, shared| {
            world.online_with_ipv6(shared)
        })
    }

    fn begin(
        world: World,
        policy: &str,
        ports: &[u16],
        online: impl FnOnce(World, &[&str]) -> Online,
    ) -> Self {
        world.let_root_ping();
        world.remote.script(OUTSIDE_SCRIPT);
        let servers = ports.iter().map(|&port| server(&world.remote, port)).collect();
        let dns = NameServer::start(&world.remote, NAME_SERVER);
        dns.set_address("index.example", "203.0.113.7");
        let outside = Recorder::start(&world.remote, "r0");
        let file = world.folder().join("policy");
        std::fs::write(&file, format!("{policy}\nallow udp:{SETTLED} log=no\n")).unwrap();
        let file = format!("--policy={}", file.display());
        let dns_option = format!("--dns={NAME_SERVER}");
        let online = online(world, &[&file, &dns_option]);
        Self { online, dns, outside, _servers: servers }
    }

    /// Waits until everything that the guest has sent so far has been handled.
    pub(crate) fn settle(&self) {
        let to: SocketAddr = SETTLED.parse().unwrap();
        let before = self.outside.datagrams(to).len();
        let socket = self.udp(to);
        socket.send(b"settled").unwrap();
        let arrived = || self.outside.datagrams(to).len() > before;
        wait_until(PATIENCE, "the allowed datagram arrives", arrived);
    }

    /// A UDP socket of the guest with this remote.
    pub(crate) fn udp(&self, to: SocketAddr) -> UdpSocket {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = self.guest.enter(|| UdpSocket::bind((any, 0))).unwrap();
        socket.set_read_timeout(Some(AT_ONCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    /// Sends a datagram that is refused, and hands back the error that the guest gets.
    pub(crate) fn refused_datagram(&self, to: SocketAddr) -> Errno {
        let socket = self.udp(to);
        socket.send(b"out").unwrap();
        let error = socket.recv(&mut [0; 16]).expect_err("a datagram came back");
        error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
    }

    /// Connects in vain, and hands back the error that the guest gets at once.
    pub(crate) fn refused(&self, to: SocketAddr) -> Errno {
        let failure = connect(&self.guest, to).expect_err("the connection was accepted");
        assert!(failure.after < AT_ONCE, "told after {:?}", failure.after);
        failure.errno
    }

    /// Looks a name up at the guest's name server.
    pub(crate) fn lookup(&self, name: &str, kind: &str) -> Found {
        let answer = self.ask(NAMESERVER, &query(name, kind)).expect("an answer");
        read_answer(&answer)
    }

    /// Sends a query to any server by UDP.
    pub(crate) fn ask(&self, server: IpAddr, query: &[u8]) -> Option<Vec<u8>> {
        let socket = self.udp((server, 53).into());
        socket.send(query).unwrap();
        let mut buffer = vec![0; 65536];
        socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    }

    /// Sends bytes on a new connection, one write for each piece, and hands back everything that
    /// comes until the remote's first answer or the end.
    pub(crate) fn exchange(&self, to: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
        let mut stream = connect(&self.guest, to).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            // What is refused early ends the connection under the rest.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        answer(&mut stream)
    }

    /// The same, and ends the guest's direction behind the bytes.
    pub(crate) fn exchange_and_end(&self, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let mut stream = connect(&self.guest, to).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        answer(&mut stream)
    }

    /// What arrived outside as payload of TCP at `to`.
    pub(crate) fn arrived_bytes(&self, to: SocketAddr) -> Vec<u8> {
        self.settle();
        self.outside.stream(to)
    }

    /// Asserts that no packet arrived outside but those of the name server, and those that settle.
    pub(crate) fn assert_silence(&self) {
        self.assert_only(&[]);
    }

    /// Asserts that what arrived outside went to these addresses, the name server, or settles.
    pub(crate) fn assert_only(&self, addresses: &[IpAddr]) {
        self.settle();
        let settled: SocketAddr = SETTLED.parse().unwrap();
        for packet in self.outside.arrived() {
            let is_known = packet.to == settled
                || packet.to == (NAME_SERVER, 53).into()
                || addresses.contains(&packet.to.ip());
            assert!(is_known, "{packet:?} arrived outside");
        }
    }
}

impl Deref for Scene {
    type Target = World;

    fn deref(&self) -> &World {
        &self.online
    }
}

/// Every address of these networks is the outside's.
pub(crate) const OUTSIDE_SCRIPT: &str =
    "for network in 203.0.113.0/24 8.8.8.0/24 10.0.0.0/8 169.254.0.0/16 \
        192.168.0.0/16 100.64.0.0/10 198.18.0.0/15 168.63.129.16 198.41.0.4; do
        ip route replace local $network dev lo
    done
    for network in 2001:db8:2::/48 64:ff9b::/96 2002::/16 fd00:ec2::/64; do
        ip -6 route replace local $network dev lo
    done";

/// A server at every address of the outside.
pub(crate) fn server(remote: &Namespace, port: u16) -> TcpServer {
    TcpServer::start(remote, (Ipv6Addr::UNSPECIFIED, port).into(), move |mut stream| {
        let mut bytes: Vec<u8> = Vec::new();
        let mut answered = 0;
        let mut buffer = vec![0; 65536];
        while let Ok(len) = stream.read(&mut buffer) {
            if len == 0 {
                return;
            }
            bytes.extend(&buffer[..len]);
            let heads = bytes.windows(4).filter(|window| window == b"\r\n\r\n").count();
            let due = if port == 80 { heads } else { 1 };
            for _ in answered..due {
                let text: &[u8] = match port {
                    80 => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSEEN\n",
                    _ => SEEN,
                };
                // The client may have gone.
                let _ = stream.write_all(text);
            }
            answered = due;
        }
    })
}

/// Reads until the outside has answered or the connection ends.
pub(crate) fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let started_at = Instant::now();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.windows(SEEN.len()).any(|window| window == SEEN) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(len) => bytes.extend(&buffer[..len]),
        }
    }
    assert!(started_at.elapsed() < AT_ONCE, "answered after {:?}", started_at.elapsed());
    bytes
}

/// Whether the outside has answered.
pub(crate) fn is_seen(answer: &[u8]) -> bool {
    answer.windows(SEEN.len()).any(|window| window == SEEN)
}

/// An uncompressed name.
pub(crate) fn wire_name(labels: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels {
        name.push(u8::try_from(label.len()).unwrap());
        name.extend(*label);
    }
    name.push(0);
    name
}

/// A question without its header.
pub(crate) fn question(name: &str, kind: u16) -> Vec<u8> {
    let labels: Vec<_> = name.split('.').map(str::as_bytes).collect();
    let mut question = wire_name(&labels);
    question.extend(kind.to_be_bytes());
    question.extend([0, 1]);
    question
}

/// A query with the id 0x1234, RD, and an OPT record of 1,232 bytes.
pub(crate) fn query(name: &str, kind: &str) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
    query.extend(question(name, record_type(kind)));
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    query
}

/// Reads the code and, from answers of the tests' own name server, the addresses.
pub(crate) fn read_answer(answer: &[u8]) -> Found {
    assert_eq!(answer[..2], [0x12, 0x34], "the query's id");
    match answer[3] & 0x0f {
        0 => {}
        3 => return Found::NoSuchName,
        code => return Found::Code(code),
    }
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut at = 12;
    skip_name(answer, &mut at);
    at += 4;
    let mut addresses = Vec::new();
    for _ in 0..count {
        skip_name(answer, &mut at);
        let len = usize::from(u16::from_be_bytes([answer[at + 8], answer[at + 9]]));
        let data = &answer[at + 10..at + 10 + len];
        match len {
            4 => addresses.push(<[u8; 4]>::try_from(data).unwrap().into()),
            16 => addresses.push(<[u8; 16]>::try_from(data).unwrap().into()),
            _ => {}
        }
        at += 10 + len;
    }
    if count == 0 { Found::NoData } else { Found::Addresses(addresses) }
}

fn skip_name(message: &[u8], at: &mut usize) {
    while message[*at] != 0 {
        if message[*at] >= 0xc0 {
            *at += 2;
            return;
        }
        *at += 1 + usize::from(message[*at]);
    }
    *at += 1;
}
