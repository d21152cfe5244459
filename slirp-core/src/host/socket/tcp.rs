//! The host's TCP socket of one flow.
//!
//! Owns how such a socket is made, connected, half-closed and reset. Leaves the connection itself
//! to the host's kernel, the guest's end of it to the pure side, and readiness to
//! [`TcpHost`](super::table::TcpHost), through which a flow uses the socket. See tcp(7), ip(7),
//! connect(2); RFC 9293 section 3.10.5 for the abort.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::outbound;
use crate::event::HostError;

crate::sys::calls::system_calls! {
    SYS_socket if crate::sys::calls::IP => "the remote of a flow";
    SYS_setsockopt => "no delay, acknowledgements, pacing, urgent data, keep-alive, interface";
    SYS_bind => "outbound addresses";
    SYS_connect => "the remote of a flow";
    SYS_getsockopt => "the outcome of a connect";
    SYS_sendto => "bytes of the guest";
    SYS_recvfrom => "bytes for the guest";
    SYS_shutdown => "the end of the guest's direction";
}

/// The longest idleness that the kernel takes (`MAX_TCP_KEEPIDLE`, linux/tcp.h).
const KEEP_ALIVE_MOST: Duration = Duration::from_secs(32_767);
/// Time between probes that are not answered, which a guest whose own ones always are does not
/// tell: Linux's default (tcp(7)), or the idleness where that is shorter, as most programs have it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(75);

/// A socket whose connect has been started.
#[derive(Debug)]
pub(crate) enum Connecting {
    /// The connection is there already, as it may be on the host's loopback.
    Done(TcpStream),
    /// The poller will say when to call [`TcpStream::finish_connect`].
    InProgress(TcpStream),
}

/// When the remote hears that its SYN has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandshakeAck {
    /// As soon as it has.
    AtOnce,
    /// With the first bytes or the end of our direction, with [`TcpStream::acknowledge`], or after
    /// the kernel's longest delay of an acknowledgement (200 ms). A server on Linux knows of no
    /// connection before.
    WithData,
}

/// A TCP socket, non-blocking and close-on-exec.
///
/// Sends without delay (`TCP_NODELAY`), because the guest's own stack has already decided how to
/// cut its stream.
#[derive(Debug)]
pub(crate) struct TcpStream {
    socket: Socket,
    delay: Delay,
}

/// Whether the kernel would hold back a small segment (RFC 9293 section 3.7.4, Nagle's algorithm).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delay {
    /// Nothing was sent yet. What is sent first leaves as a whole, since Linux holds a small
    /// segment back only while an earlier small one is unacknowledged (Minshall's variant,
    /// `tcp_nagle_check`). Most connections send once, and are spared a call.
    Unused,
    /// Something was sent: the next segment might be.
    Possible,
    Off,
}

/// Starts to connect to `remote`, from `source` where one is given (of the same IP version,
/// with port 0 for one of the kernel's choice), and by `interface` where one is given.
///
/// The socket has `SO_OOBINLINE`, so that urgent data arrives in its place in the stream
/// (RFC 6093 section 2.1 wants just that).
///
/// # Errors
/// What the kernel said, when it knows at once.
pub(crate) fn connect(
    remote: SocketAddr,
    source: Option<SocketAddr>,
    interface: Option<&str>,
    ack: HandshakeAck,
) -> Result<Connecting, HostError> {
    try_connect(remote, source, interface, ack).map_err(|error| HostError::from_io(&error))
}

fn try_connect(
    remote: SocketAddr,
    source: Option<SocketAddr>,
    interface: Option<&str>,
    ack: HandshakeAck,
) -> io::Result<Connecting> {
    let socket = open(Domain::for_address(remote))?;
    if ack == HandshakeAck::WithData {
        // Not permanent (tcp(7)): the kernel acknowledges the bytes that follow as it always does.
        socket.set_tcp_quickack(false)?;
    }
    outbound::bind_to(&socket, interface)?;
    if let Some(source) = source {
        // Without this the port is chosen before the remote is known, and 28,000 connections from
        // one source are all there can be, instead of as many to each remote (ip(7)).
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        outbound::bind(&socket, source)?;
    }
    start_connect(socket, remote)
}

/// A socket in the network namespace of the calling thread, with `SO_OOBINLINE`, that is not
/// connected yet.
///
/// # Errors
/// Those of socket(2) and setsockopt(2).
pub(crate) fn open(domain: Domain) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(domain, kind, Some(Protocol::TCP))?;
    socket.set_out_of_band_inline(true)?;
    Ok(socket)
}

/// Starts to connect `socket` to `remote`, in the network namespace in which it was opened.
///
/// # Errors
/// What the kernel said, when it knows at once.
pub(crate) fn start_connect(socket: Socket, remote: SocketAddr) -> io::Result<Connecting> {
    let connected = socket.connect(&SockAddr::from(remote));
    let stream = TcpStream::new(socket);
    match connected {
        Ok(()) => return Ok(Connecting::Done(stream)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // On loopback the answer is usually processed before connect(2) returns: asking now saves the
    // flow a turn of the event loop.
    if remote.ip().is_loopback() && stream.is_connected()? {
        return Ok(Connecting::Done(stream));
    }
    Ok(Connecting::InProgress(stream))
}

impl TcpStream {
    const fn new(socket: Socket) -> Self {
        Self { socket, delay: Delay::Unused }
    }

    /// A connection that a listener has accepted, set up like one that was connected.
    ///
    /// # Errors
    /// Those of fcntl(2) and setsockopt(2).
    pub(crate) fn accepted(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_out_of_band_inline(true)?;
        Ok(Self::new(socket))
    }

    /// How the connect went; to be called when the poller reports the socket writable or failed.
    /// `Ok(false)` means that it is still under way (a stale event): wait for the next one.
    ///
    /// # Errors
    /// Why there is no connection. The socket is of no further use.
    pub(crate) fn finish_connect(&self) -> Result<bool, HostError> {
        self.is_connected().map_err(|error| HostError::from_io(&error))
    }

    fn is_connected(&self) -> io::Result<bool> {
        // Asked first because it answers the common case in one call, and because `SO_ERROR` alone
        // cannot tell a connection from an attempt.
        if self.socket.peer_addr().is_ok() {
            return Ok(true);
        }
        match self.socket.take_error()? {
            None => Ok(false),
            // The remote may have greeted before it reset the connection.
            Some(_) if self.has_unread() => Ok(true),
            Some(error) => Err(error),
        }
    }

    /// What has broken the connection, if that is known and was not told before.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.socket.take_error().ok().flatten()
    }

    /// Whether bytes of the remote wait, as they may even behind a reset.
    pub(crate) fn has_unread(&self) -> bool {
        self.socket.peek(&mut [MaybeUninit::uninit()]).is_ok_and(|len| len > 0)
    }

    /// Sends as much of `data` as the kernel takes now; returns how much that was.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; otherwise the connection is over. Raises no signal.
    pub(crate) fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.delay == Delay::Possible {
            self.socket.set_tcp_nodelay(true)?;
            self.delay = Delay::Off;
        }
        let sent = self.socket.send_with_flags(data, libc::MSG_NOSIGNAL)?;
        if self.delay == Delay::Unused {
            self.delay = Delay::Possible;
        }
        Ok(sent)
    }

    /// Receives what has arrived into `buf`; 0 is the end of the remote's direction.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has; otherwise the connection is over.
    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.socket).read(buf)
    }

    /// Ends our direction once everything is sent (FIN); the remote may go on.
    ///
    /// # Errors
    /// The connection is over already (`ENOTCONN`).
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    /// Has the kernel send an acknowledgement that it holds, such as one of
    /// [`HandshakeAck::WithData`].
    pub(crate) fn acknowledge(&self) {
        if let Err(error) = self.socket.set_tcp_quickack(true) {
            tracing::debug!(%error, "an acknowledgement is late");
        }
    }

    /// Has the kernel send without pacing, for a connection that leads over a loopback interface.
    ///
    /// BBR, which some hosts have as their default, holds pieces back with a timer each: two fifths
    /// of the processor time of a byte (measured with eight connections). Reno sets none, and is
    /// the one congestion control that each kernel has and anyone may choose (tcp(7)).
    pub(crate) fn send_unpaced(&self) {
        if let Err(error) = self.socket.set_tcp_congestion(b"reno") {
            tracing::debug!(%error, "a connection over loopback may be paced");
        }
    }

    /// Has the kernel probe the remote when nothing has come from it for `idle_for`, and end the
    /// connection (`ETIMEDOUT`) when it does not answer nine times in a row.
    pub(crate) fn keep_alive(&self, idle_for: Duration) {
        let idle_for = idle_for.min(KEEP_ALIVE_MOST);
        let interval = idle_for.min(KEEP_ALIVE_INTERVAL);
        let probes = TcpKeepalive::new().with_time(idle_for).with_interval(interval);
        if let Err(error) = self.socket.set_tcp_keepalive(&probes) {
            tracing::debug!(%error, "a remote is not probed");
        }
    }

    /// Ends both directions; the poller reports that as an end and an error.
    pub(crate) fn shutdown_both(&self) {
        if let Err(error) = self.socket.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "shutdown");
        }
    }

    /// Closes the socket so that the remote sees a reset (RST), discarding what is unsent.
    pub(crate) fn reset(self) {
        // A linger time of zero is what makes close(2) abort (socket(7)). Should the kernel refuse
        // it, the remote sees an orderly end instead: nothing else is left to do.
        if let Err(error) = self.socket.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "closed in order instead of reset");
        }
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
