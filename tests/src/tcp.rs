//! Client side of TCP inside a namespace, with every wait bounded.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::namespace::Namespace;
use crate::wait::PATIENCE;

/// Longest time that one read or write of a test may stall.
pub const IO_LIMIT: Duration = PATIENCE;

/// A connect that failed.
#[derive(Clone, Copy, Debug)]
pub struct ConnectFailure {
    /// The error as the application sees it; `ETIMEDOUT` when it was still waiting at the limit.
    pub errno: Errno,
    /// How long it took to learn of it.
    pub after: Duration,
}

/// Gives a stream the harness's time limits.
///
/// # Panics
/// Never for an open socket.
pub fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(IO_LIMIT)).expect("an open socket takes a timeout");
    stream.set_write_timeout(Some(IO_LIMIT)).expect("an open socket takes a timeout");
    stream
}

/// Connects from `namespace`.
///
/// # Errors
/// How and when the connect failed.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream, ConnectFailure> {
    let started_at = Instant::now();
    namespace
        .enter(|| TcpStream::connect_timeout(&to, IO_LIMIT))
        .map(bounded)
        .map_err(|error| failure(&error, started_at))
}

/// Connects from `namespace` with a chosen source port, which may still be in TIME-WAIT.
///
/// # Errors
/// How and when the connect failed.
pub fn connect_from(
    namespace: &Namespace,
    port: u16,
    to: SocketAddr,
) -> Result<TcpStream, ConnectFailure> {
    let started_at = Instant::now();
    namespace
        .enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            let any: SocketAddr = match to {
                SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            };
            socket.bind(&SockAddr::from(any))?;
            socket.connect_timeout(&SockAddr::from(to), IO_LIMIT)?;
            io::Result::Ok(TcpStream::from(socket))
        })
        .map(bounded)
        .map_err(|error| failure(&error, started_at))
}

fn failure(error: &io::Error, started_at: Instant) -> ConnectFailure {
    let errno = match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno),
        None if error.kind() == io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        None => panic!("after {:?}, not a word of the kernel: {error:?}", started_at.elapsed()),
    };
    ConnectFailure { errno, after: started_at.elapsed() }
}
