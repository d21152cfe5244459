//! Client side of TCP inside a namespace, with every wait bounded.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
        .enter(|| connect_within(tcp_socket(to)?, to))
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
            let socket = tcp_socket(to)?;
            socket.set_reuse_address(true)?;
            let any: SocketAddr = match to {
                SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
                SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            };
            socket.bind(&SockAddr::from(any))?;
            connect_within(socket, to)
        })
        .map(bounded)
        .map_err(|error| failure(&error, started_at))
}

fn tcp_socket(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
}

/// Connects within [`IO_LIMIT`].
///
/// Linux wakes those who wait for a connecting socket when it queues an ICMP error
/// (`sock_queue_err_skb` in `tcp_v4_err`), and sets the socket's error only then. Who is quick
/// finds a broken socket without an error; `connect_timeout` of the standard library and of socket2
/// then return one of their own, without a number. Here the error is waited for.
fn connect_within(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    let until = Instant::now() + IO_LIMIT;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        outcome => outcome?,
    }
    loop {
        let rest = until.saturating_duration_since(Instant::now());
        let limit = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, limit)? == 0 || rest.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP;
        if fds[0].revents().is_some_and(|events| !events.intersects(broken)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

fn failure(error: &io::Error, started_at: Instant) -> ConnectFailure {
    let errno = match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno),
        None if error.kind() == io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
        None => panic!("after {:?}, not a word of the kernel: {error:?}", started_at.elapsed()),
    };
    ConnectFailure { errno, after: started_at.elapsed() }
}
