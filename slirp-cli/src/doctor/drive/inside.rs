//! The guest's side: a process in the namespaces, which talks to the servers through the network.
//!
//! Owns what is driven and how long each step may take. It tells on its standard output, one JSON
//! object a line: `{"at": "ready"}` and `{"at": "published"}` when it listens and when it waits for
//! a visitor, and for each check either `bytes` and `microseconds` or an `error`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use serde_json::{Value, json};
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};

use super::super::finding::Moved;
use super::stream::{PATIENCE, SPAN, send, take};
use super::{Check, GUEST_PORT, servers};

/// How long an answer to one datagram may take, and how often it is asked for.
const ANSWER_PATIENCE: Duration = Duration::from_millis(400);
const TRIES: usize = 5;
/// How long the guest's IPv6 address may take: the kernel looks for duplicates of it first (RFC
/// 4862 section 5.4).
const IPV6_PATIENCE: Duration = Duration::from_secs(4);
/// Bytes of a datagram: as large as the first packets of QUIC.
const DATAGRAM_LEN: usize = 1200;
/// A question for the address of `doctor.test` (RFC 1035 section 4).
const QUESTION: &[u8] = b"\x51\x1f\x01\0\0\x01\0\0\0\0\0\0\x06doctor\x04test\0\0\x01\0\x01";

/// Ports of the servers on the host.
#[derive(Clone, Copy, Debug)]
struct Ports {
    sink: u16,
    source: u16,
    echo: u16,
    sink6: Option<u16>,
}

impl Ports {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut next = || arguments.next()?.to_str()?.parse::<u16>().ok();
        let (sink, source, echo) = (next()?, next()?, next()?);
        Some(Self { sink, source, echo, sink6: next() })
    }
}

/// Drives everything, in a bounded time.
pub(in super::super) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(ports) = Ports::parse(arguments) else { return ExitCode::FAILURE };
    match drive(ports) {
        Ok(()) => ExitCode::SUCCESS,
        // The doctor is not there any more, or will see which check is missing.
        Err(_) => ExitCode::FAILURE,
    }
}

fn drive(ports: Ports) -> io::Result<()> {
    let network = SlirpNetwork::default();
    let gateway = IpAddr::V4(network.gateway());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, GUEST_PORT))?;
    tell(&json!({ "at": "ready" }))?;
    told(Check::TcpOut, connect((gateway, ports.sink)).and_then(|stream| send(stream, SPAN)))?;
    told(Check::TcpIn, connect((gateway, ports.source)).and_then(take).map(|()| NOTHING))?;
    told(Check::Udp, echo((gateway, ports.echo).into()))?;
    told(Check::Dns, look_up((network.dns(), 53).into()))?;
    told(Check::Ping, ping(gateway))?;
    tell(&json!({ "at": "published" }))?;
    told(Check::Published, visitor(&listener).and_then(take).map(|()| NOTHING))?;
    if let Some(port) = ports.sink6 {
        let gateway = IpAddr::V6(Ipv6Plan::default().gateway());
        let sent = connect_at_last((gateway, port)).and_then(|stream| send(stream, SPAN / 2));
        told(Check::Ipv6, sent)?;
    }
    Ok(())
}

/// The sender has the figures.
const NOTHING: Moved = Moved { bytes: 0, span: Duration::ZERO };

fn told(check: Check, outcome: io::Result<Moved>) -> io::Result<()> {
    tell(&match outcome {
        Ok(Moved { bytes, span }) => {
            let microseconds = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
            json!({ "check": check.name(), "bytes": bytes, "microseconds": microseconds })
        }
        Err(error) => json!({ "check": check.name(), "error": text(&error) }),
    })
}

/// An error without its number.
pub(super) fn text(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return "no answer in time".to_owned();
    }
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

fn tell(line: &Value) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

fn connect(address: (IpAddr, u16)) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.into(), PATIENCE)
}

/// Connects as soon as the guest has an address of this kind.
fn connect_at_last(address: (IpAddr, u16)) -> io::Result<TcpStream> {
    const PAUSE: Duration = Duration::from_millis(20);
    let began = Instant::now();
    loop {
        match connect(address) {
            Err(error) if began.elapsed() < IPV6_PATIENCE && is_too_early(&error) => {
                thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn is_too_early(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
    [AddrNotAvailable, HostUnreachable, NetworkUnreachable].contains(&error.kind())
}

/// The first client of `listener`.
fn visitor(listener: &TcpListener) -> io::Result<TcpStream> {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    listener.accept().map(|(stream, _)| stream)
}

/// Sends `message` until something comes for which `is_answer` holds; tells how long the last try
/// took.
fn ask(socket: &UdpSocket, message: &[u8], is_answer: impl Fn(&[u8]) -> bool) -> io::Result<Moved> {
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut room = [0; 2048];
    let mut last = io::ErrorKind::TimedOut.into();
    for _ in 0..TRIES {
        let began = Instant::now();
        socket.send(message)?;
        match socket.recv(&mut room) {
            Ok(len) if is_answer(&room[..len]) => {
                return Ok(Moved { bytes: len as u64, span: began.elapsed() });
            }
            Ok(_) => last = io::Error::other("another answer than expected"),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn echo(server: SocketAddr) -> io::Result<Moved> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(server)?;
    let message: Vec<u8> = (0..=255).cycle().take(DATAGRAM_LEN).collect();
    ask(&socket, &message, |answer| answer == message)
}

fn look_up(resolver: SocketAddr) -> io::Result<Moved> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(resolver)?;
    ask(&socket, QUESTION, |answer| {
        answer.starts_with(&QUESTION[..2]) && answer.ends_with(&servers::ANSWER.octets())
    })
}

/// Sends an echo request (RFC 792). The kernel fills in its identifier and its checksum.
fn ping(address: IpAddr) -> io::Result<Moved> {
    const REQUEST: [u8; 16] = [8, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    let (family, kind) = (AddressFamily::Inet, SockType::Datagram);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
    let socket = UdpSocket::from(socket);
    socket.connect((address, 0))?;
    ask(&socket, &REQUEST, |reply| reply.first() == Some(&0) && reply.ends_with(&REQUEST[8..]))
}
