//! The same script runs through Debian's slirp4netns and through ours. Programs see the same on
//! both, except for the rows of one table, which the manual page shows as well.

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

/// After so long, what has not come is noted as not coming. Answers that do come take milliseconds,
/// or about a second where the host waits for a neighbour.
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
        uninterrupted(|| socket.connect(&SockAddr::from(to)))?;
        Ok(patient(socket.into()))
    })
}

/// Repeats a call that was interrupted: with a time limit of its socket it is even by a stop that
/// nobody handles, such as that of a debugger (signal(7)). A connect goes on where it was.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lets the remote answer what goes to these addresses as routers do: unreachable, forbidden,
/// silence. By its firewall, because errors of routes share a rate limit
/// (`net.ipv4.route.error_cost`).
const ROUTER: &str = "nft 'add table ip router
    add chain ip router in { type filter hook prerouting priority 0; }
    add rule ip router in ip daddr 203.0.113.66 drop
    add rule ip router in ip daddr 203.0.113.77 reject with icmp type host-unreachable
    add rule ip router in ip daddr 203.0.113.78 reject with icmp type admin-prohibited'";

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The next bytes of a stream, its end, or what went wrong.
fn next(mut stream: &TcpStream) -> String {
    let mut buffer = [0; 4096];
    match uninterrupted(|| stream.read(&mut buffer)) {
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
    match uninterrupted(|| socket.recv_from(&mut buffer)) {
        Ok((len, _)) => text(&buffer[..len]),
        Err(error) => errno(&error),
    }
}

/// The role of an address, in words that do not depend on chance.
fn whose(address: SocketAddr) -> String {
    address.ip().to_string()
}
