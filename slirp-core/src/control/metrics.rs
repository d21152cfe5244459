//! Counters for Prometheus and other collectors that read OpenMetrics.
//!
//! Owns the listening socket, and the few lines of HTTP/1.0 that a collector needs: one request a
//! connection, `GET /metrics`, nothing else. What the page says is in [`page`].
//!
//! # Theory of operation
//! Each scrape asks the data thread for one snapshot of its counters, and each connection is a task
//! of the control thread, so that no collector delays a packet. A connection is closed after
//! [`REQUEST_TIMEOUT`]; at [`CONNECTIONS_CAP`] the oldest one is closed.
//!
//! The guest never reaches a listener on the host's loopback: the stack refuses its address
//! ([`StackConfig::own_listeners`](crate::config::StackConfig::own_listeners)). A UNIX socket
//! serves whom the control socket does: our own user and root, in our network namespace.
//!
//! RFC 1945 sections 5 and 6; OpenMetrics 1.0; Prometheus text format 0.0.4.

mod page;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use self::page::Dialect;
use super::clients::{Clients, PAUSE};
use super::own_file::{admitted, listen_at};
use crate::host::handle::Handle;
use crate::host::outside::RemovedFile;
use crate::sys::file::OwnFile;
use crate::sys::peer::network_of;

/// Connections at one time (one descriptor and a page each; one collector needs one).
const CONNECTIONS_CAP: usize = 16;
/// How long a collector may take for its request and for taking the page (arbitrary; Prometheus
/// gives up after 10 s).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request with all its header fields (arbitrary).
const HEAD_CAP: usize = 8 * 1024;
/// How many reads discard what a collector sent after its request, before the connection is closed
/// (arbitrary).
const LEFTOVERS_CAP: usize = 16;

crate::sys::calls::system_calls! {
    SYS_accept4 => "collectors";
    SYS_recvfrom => "requests";
    SYS_sendto => "pages";
    SYS_shutdown => "the end of a page";
    SYS_getsockopt => "who a collector is, and whether it has gone";
    SYS_geteuid => "who we are";
    SYS_newfstatat => "whether the file is still ours";
    SYS_statx => "whether the file is still ours";
    SYS_unlinkat if crate::sys::calls::BY_NAME => "the file at the end";
    #[cfg(target_arch = "x86_64")]
    SYS_unlink => "the file at the end";
}

/// A socket on which metrics are served; dropping it removes its file.
#[derive(Debug)]
pub struct MetricsSocket {
    door: Door,
    per_member: bool,
}

#[derive(Debug)]
enum Door {
    /// Removed before the listener is closed.
    Unix {
        file: OwnFile,
        listener: UnixListener,
    },
    Tcp {
        address: SocketAddr,
        listener: TcpListener,
    },
}

impl MetricsSocket {
    /// Binds `path`, in place of a socket that nobody serves. Its mode is 0600.
    ///
    /// # Errors
    /// `AddrInUse` if there is another file, and the errors of bind(2) and listen(2).
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (file, listener) = listen_at(path)?;
        Ok(Self { door: Door::Unix { file, listener }, per_member: false })
    }

    /// Binds a port of 127.0.0.1 or ::1. Every process of the host can read the metrics then.
    ///
    /// # Errors
    /// `InvalidInput` if `address` is another one, and the errors of bind(2), listen(2) and
    /// getsockname(2).
    pub fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        if ![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(&address.ip())
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { door: Door::Tcp { address, listener }, per_member: false })
    }

    /// Whether members of a shared network are counted one by one (default: together).
    #[must_use]
    pub fn per_member(self, per_member: bool) -> Self {
        Self { per_member, ..self }
    }

    /// The socket's file, if it has one, for a process that is about to enter a sandbox.
    pub fn file(&self) -> Option<RemovedFile> {
        match &self.door {
            Door::Unix { file, .. } => {
                Some(RemovedFile { path: file.path().to_owned(), identity: file.identity()? })
            }
            Door::Tcp { .. } => None,
        }
    }

    /// The address and port of the socket, if it has one; for port 0, the port that was picked.
    pub const fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.door {
            Door::Unix { .. } => None,
            Door::Tcp { address, .. } => Some(*address),
        }
    }

    /// Serves collectors, until it is dropped.
    pub(crate) async fn serve(self, handle: Handle) {
        let Self { door, per_member } = self;
        let source = Source { handle, per_member, started_at: SystemTime::now() };
        let served = match door {
            Door::Unix { file: _file, listener } => serve_unix(listener, source).await,
            Door::Tcp { listener, .. } => serve_tcp(listener, source).await,
        };
        if let Err(error) = served {
            tracing::error!(%error, "the metrics socket is not usable");
        }
    }
}

async fn serve_unix(listener: UnixListener, source: Source) -> io::Result<()> {
    let ours = network_of(listener.as_fd()).ok();
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut clients = Clients::new(CONNECTIONS_CAP, REQUEST_TIMEOUT);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match admitted(stream.as_fd(), ours) {
                Ok(_) => clients.serve(serve_client(stream, source.clone())),
                Err(unwelcome) => tracing::debug!(%unwelcome, "a collector was refused"),
            },
            Err(error) => pause(&error).await,
        }
    }
}

async fn serve_tcp(listener: TcpListener, source: Source) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut clients = Clients::new(CONNECTIONS_CAP, REQUEST_TIMEOUT);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => clients.serve(serve_client(stream, source.clone())),
            Err(error) => pause(&error).await,
        }
    }
}

/// The page in OpenMetrics, for the control socket; `None` when the instance has ended.
pub(super) async fn text(handle: Handle, started_at: SystemTime) -> Option<String> {
    Source { handle, per_member: false, started_at }.page(Dialect::OpenMetrics).await
}

async fn pause(error: &io::Error) {
    tracing::debug!(%error, "accept");
    tokio::time::sleep(PAUSE).await;
}

/// Where the numbers come from.
#[derive(Clone)]
struct Source {
    handle: Handle,
    per_member: bool,
    started_at: SystemTime,
}

impl Source {
    /// The page; `None` when the instance has ended.
    async fn page(&self, dialect: Dialect) -> Option<String> {
        let stats = if self.per_member {
            self.handle.stats_by_member().await?
        } else {
            self.handle.stats().await?
        };
        let started_at = self.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Some(page::write(&stats, started_at, dialect))
    }
}

async fn serve_client(mut stream: impl AsyncRead + AsyncWrite + Unpin, source: Source) {
    let mut head = [0; HEAD_CAP];
    let Some(asked) = read_head(&mut stream, &mut head).await else { return };
    let reply = match asked {
        Ok(dialect) => match source.page(dialect).await {
            Some(page) => reply("200 OK", dialect.content_type(), "", &page),
            None => reply("503 Service Unavailable", PLAIN, "", "the network has ended\n"),
        },
        Err(refusal) => refusal.reply(),
    };
    if stream.write_all(reply.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
    // Closing a socket with unread data would reset the connection before the page was read.
    for _ in 0..LEFTOVERS_CAP {
        if !matches!(stream.read(&mut head).await, Ok(1..)) {
            break;
        }
    }
}

/// Reads a request up to its empty line. `None` when the collector has gone.
async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    head: &mut [u8; HEAD_CAP],
) -> Option<Result<Dialect, Refused>> {
    let mut len = 0;
    loop {
        let count = stream.read(&mut head[len..]).await.ok().filter(|&count| count > 0)?;
        len += count;
        let text = &head[..len];
        let is_end = |bytes: &[u8]| bytes == b"\r\n\r\n";
        if text.windows(4).any(is_end) || text.windows(2).any(|bytes| bytes == b"\n\n") {
            return Some(parse(text));
        }
        if len == HEAD_CAP {
            return Some(Err(Refused::Malformed));
        }
    }
}

/// Why there is no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refused {
    Malformed,
    NotFound,
    Method,
}

const PLAIN: &str = "text/plain; charset=utf-8";

impl Refused {
    fn reply(self) -> String {
        match self {
            Self::Malformed => reply("400 Bad Request", PLAIN, "", "this is no HTTP request\n"),
            Self::NotFound => reply("404 Not Found", PLAIN, "", "there is only /metrics\n"),
            Self::Method => {
                reply("405 Method Not Allowed", PLAIN, "Allow: GET\r\n", "GET is enough\n")
            }
        }
    }
}

fn reply(status: &str, content_type: &str, fields: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n\
         {fields}Connection: close\r\n\r\n{body}"
    )
}

/// What a request asks for.
fn parse(head: &[u8]) -> Result<Dialect, Refused> {
    let head = core::str::from_utf8(head).map_err(|_| Refused::Malformed)?;
    let mut lines = head.lines();
    let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return Err(Refused::Malformed) };
    if !version.starts_with("HTTP/1.") || method.is_empty() {
        return Err(Refused::Malformed);
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path != "/metrics" {
        return Err(Refused::NotFound);
    }
    if method != "GET" {
        return Err(Refused::Method);
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut accepted = fields.filter(|(name, _)| name.eq_ignore_ascii_case("accept"));
    let is_plain = accepted.any(|(_, types)| Dialect::of(types) == Dialect::Prometheus);
    Ok(if is_plain { Dialect::Prometheus } else { Dialect::OpenMetrics })
}

#[cfg(test)]
mod tests;
