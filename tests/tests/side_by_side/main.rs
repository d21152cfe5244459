//! The same script through Debian's slirp4netns and through ours: what programs see is equal, but for
//! the rows of one table, which the manual page shows as well.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

mod api;
mod datagrams;
mod differences;
mod dns;
mod forwarding;
mod link;
mod manual;
mod process;
mod tcp;

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use slirp_tests::*;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// After so long, what has not come is noted as not coming. Answers that do come take milliseconds, or
/// about a second where the host waits for a neighbour.
const PATIENCE: Duration = Duration::from_secs(4);

/// Runs a script of root's under everything that is declared.
fn run(theme: &str, script: impl Fn(&Side, &mut Seen) + Sync) {
    run_as(Account::Root, theme, script);
}

fn run_as(account: Account, theme: &str, script: impl Fn(&Side, &mut Seen) + Sync) {
    assert!(differences::THEMES.contains(&theme), "{theme} is not among the table's themes");
    side_by_side(theme, account, &differences::declared(), script);
}

/// The name of what went wrong.
fn errno(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN | Errno::EINPROGRESS) => "nothing".to_owned(),
        Some(errno) => format!("{errno:?}"),
        None if error.kind() == io::ErrorKind::TimedOut => "nothing".to_owned(),
        None => error.to_string(),
    }
}

fn text(bytes: &[u8]) -> String {
    match bytes {
        [] => "end".to_owned(),
        bytes if bytes.len() <= 64 => String::from_utf8_lossy(bytes).into_owned(),
        bytes => format!("{} bytes", bytes.len()),
    }
}

/// Connects and says how that went. Blocks in connect(2), as most programs do.
fn connecting(namespace: &Namespace, to: SocketAddr) -> String {
    match connect_patiently(namespace, to) {
        Ok(_) => "connected".to_owned(),
        Err(error) => errno(&error),
    }
}

fn connect_patiently(namespace: &Namespace, to: SocketAddr) -> io::Result<TcpStream> {
    namespace.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        // It bounds connect(2) as well, which then says EINPROGRESS (socket(7)).
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&SockAddr::from(to))?;
        Ok(patient(socket.into()))
    })
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The next bytes of a stream, its end, or what went wrong.
fn next(mut stream: &TcpStream) -> String {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(len) => text(&buffer[..len]),
        Err(error) => errno(&error),
    }
}

fn listen(namespace: &Namespace, at: IpAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind((at, 0))).unwrap()
}

/// The next connection and where it came from.
fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    (patient(stream), from)
}

/// A connected pair: a client in `namespace`, and its peer.
fn pair(namespace: &Namespace, listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = connect(namespace, to).expect("it connects");
    (patient(client), accept(listener).0)
}

fn udp(namespace: &Namespace, at: impl Into<SocketAddr>) -> UdpSocket {
    let at = at.into();
    let socket = namespace.enter(|| UdpSocket::bind(at)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The next datagram, or what went wrong.
fn datagram(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65536];
    match socket.recv_from(&mut buffer) {
        Ok((len, _)) => text(&buffer[..len]),
        Err(error) => errno(&error),
    }
}

/// Who an address is, in words that do not depend on chance.
fn whose(address: SocketAddr) -> String {
    address.ip().to_string()
}
