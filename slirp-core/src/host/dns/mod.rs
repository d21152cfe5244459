//! The upstream half of the DNS service: it asks the host's resolvers, on the control thread.
//!
//! Owns the task that takes queries and gives answers, and its configuration. Modules below own the
//! list of resolvers (`resolv_conf`), the order in which they are asked (`upstream`), and one
//! exchange with one resolver (`exchange`). The pure side keeps the origin of a query, the guest's
//! message id, truncation to the guest's UDP size, and SERVFAIL when no resolver answered.
//!
//! # Theory of operation
//!
//! *Bytes are kept.* The guest's message goes upstream unchanged except for a fresh message id, and
//! the answer comes back unchanged. hickory's resolver pool cannot promise that: it re-encodes the
//! query (unknown EDNS options and the case of names may change), turns NXDOMAIN and error codes
//! into errors without their records, rejects answers that it cannot decode, and merges equal
//! queries. So hickory only decodes headers and questions here, to match answers with queries, and
//! draws message ids. Sockets, order and failover are our own. The parser of resolv.conf is the
//! crate that hickory uses. hickory's own conversion drops the scope of link-local addresses, the
//! `rotate` option, and the whole file when a search domain is odd.
//!
//! *One query* is tried at one resolver after the other, in the order of the file. A resolver that
//! refuses (ICMP, SERVFAIL, NOTIMP, REFUSED) is left at once; when a resolver is silent for
//! [`DnsConfig::failover_after`], the next one is asked as well. A late answer of the first is
//! still taken, so that a slow name is not lost. Every try ends after `timeout:` seconds, every
//! resolver is tried `attempts:` times, and the whole query ends after
//! [`DnsConfig::total_timeout`]. If every resolver refused, the last refusal is the answer.
//!
//! *A silent or unreachable resolver* goes to the end of the order for [`DnsConfig::failed_for`],
//! unless it answered another query in the meantime. Each query is a task, so no query waits for
//! the resolver of another.
//!
//! *Transport*: a query over UDP is asked over UDP, from a socket and port of its own (RFC 5452
//! section 9.2); a query over TCP is asked over TCP. The guest follows up a truncated answer
//! itself.
//!
//! *Limits*: [`DnsConfig::queries_cap`] tasks, each with one socket. Concurrent further tries share
//! an eighth as many sockets, at most `upstream::RUNNING_CAP` for one query. When these run out,
//! the next resolver is asked in place of the silent one. Further queries stay in their bounded
//! channel; its sender notices when it is full.
//!
//! Deliberately omitted: caching, encrypted transports, connection reuse, and zone transfers over
//! TCP, whose answers span several messages (answered with NOTIMP).
//!
//! RFC 1035 section 7, RFC 5452, RFC 7766, resolv.conf(5).

mod exchange;
mod resolv_conf;
mod upstream;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};

use super::socket::outbound::OutboundAddresses;
use crate::event::{DnsQueryId, DnsTransport};
use crate::host::outside::Outside;
use crate::sys::calls::{Arguments, INTERFACE_INDEX, IP, system_calls, word};
use exchange::Outgoing;
use upstream::Upstream;

/// Reading a file that exists.
const READ_ONLY: Arguments = Arguments::Bits(&[
    (0, 0xffff_ffff, word(libc::AT_FDCWD)),
    (
        2,
        word(
            libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE & !libc::O_DIRECTORY,
        ),
        0,
    ),
]);

system_calls! {
    SYS_openat if READ_ONLY => "resolv.conf";
    SYS_read => "resolv.conf";
    SYS_lseek => "resolv.conf";
    SYS_fstat => "resolv.conf";
    SYS_newfstatat => "what kind of file resolv.conf is";
    SYS_statx => "what kind of file resolv.conf is";
    SYS_socket if IP => "resolvers";
    SYS_bind => "source ports of queries";
    SYS_setsockopt => "source ports of queries";
    SYS_getsockopt => "the outcome of a connect";
    SYS_connect => "resolvers";
    SYS_getsockname => "resolvers";
    SYS_getpeername => "resolvers";
    SYS_sendto => "queries";
    SYS_recvfrom => "answers";
    SYS_sendmsg => "queries";
    SYS_recvmsg => "answers";
    SYS_shutdown => "the end of a connection to a resolver";
    SYS_getrandom => "message ids";
    SYS_ioctl if INTERFACE_INDEX => "the scope of an IPv6 resolver";
}

/// How the host's resolvers are found and asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DnsConfig {
    /// File that names the resolvers (default `/etc/resolv.conf`); changes are followed while
    /// running.
    pub resolv_conf: PathBuf,
    /// For a sandboxed process: the process outside that reads the resolvers' file. It reads the
    /// file that it was started for, not `resolv_conf` (default `None`: the process of the
    /// instance, see [`Builder::outside`](crate::instance::Builder::outside)).
    pub outside: Option<Outside>,
    /// Resolvers to ask instead of the file's, in this order (default none).
    pub servers: Vec<SocketAddr>,
    /// Port of the resolvers in the file (default 53).
    pub port: u16,
    /// How long one try at one of `servers` may take; the file has its own `timeout:` option
    /// (default 5 s, as in resolv.conf(5)).
    pub timeout: Duration,
    /// How often each of `servers` is tried; the file has its own `attempts:` option (default 2, as
    /// in resolv.conf(5)).
    pub attempts: u32,
    /// Silence after which the next resolver is asked too (default 3 s: a guest with musl gives up
    /// after 5 s, so the guest does not notice one silent resolver).
    pub failover_after: Duration,
    /// How long one query may take altogether (default 30 s, half of
    /// [`Timeouts::dns`](crate::config::Timeouts::dns)).
    pub total_timeout: Duration,
    /// For how long a silent or unreachable resolver is put last in the order (default 30 s,
    /// arbitrary).
    pub failed_for: Duration,
    /// Shortest interval between two checks of the file, which happen when queries arrive (default
    /// 1 s, as in slirp4netns).
    pub recheck_every: Duration,
    /// Queries in progress at one time (default 512, as
    /// [`Limits::dns_queries`](crate::config::Limits::dns_queries)).
    pub queries_cap: usize,
    /// Source addresses of queries, except to loopback and link-local resolvers, and their way
    /// (default `None`: those of the instance, see
    /// [`Builder::outbound`](crate::instance::Builder::outbound)).
    pub outbound: Option<OutboundAddresses>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            outside: None,
            servers: Vec::new(),
            port: 53,
            timeout: Duration::from_secs(5),
            attempts: 2,
            failover_after: Duration::from_secs(3),
            total_timeout: Duration::from_secs(30),
            failed_for: Duration::from_secs(30),
            recheck_every: Duration::from_secs(1),
            queries_cap: 512,
            outbound: None,
        }
    }
}

/// Reads the file that names the resolvers of `config`, whenever it is called.
pub(crate) fn resolv_conf_reader(config: &DnsConfig) -> impl Fn() -> io::Result<Vec<u8>> + use<> {
    let source = resolv_conf::Source::of(config);
    move || source.read()
}

/// One query of the guest.
#[derive(Debug)]
pub(crate) struct Query {
    /// Its name, which comes back with the answer.
    pub(crate) id: DnsQueryId,
    /// The transport of the guest's query, which is also used upstream.
    pub(crate) transport: DnsTransport,
    /// The message, without a TCP length prefix.
    pub(crate) message: Vec<u8>,
    /// Closed when the answer is no longer wanted; the query then ends without one.
    pub(crate) is_wanted: oneshot::Receiver<Infallible>,
}

/// Asks the host's resolvers until `queries` is closed; needs a tokio runtime with I/O and time on
/// the current thread.
///
/// `answer` is called once per query: with the answer as it came (its message id differs from the
/// query's), or with `None` when no resolver answered. Queries that are no longer wanted, and
/// queries in flight when the channel closes, are dropped without a call.
pub(crate) async fn run<A>(config: DnsConfig, mut queries: mpsc::Receiver<Query>, answer: A)
where
    A: Fn(DnsQueryId, Option<Vec<u8>>) + 'static,
{
    let tasks_cap = config.queries_cap.max(1);
    let upstream = Rc::new(RefCell::new(Upstream::new(config)));
    let answer = Rc::new(answer);
    let serve = async move {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        // The pure side's deadline answers for it.
                        tracing::error!(%error, "a DNS query was lost");
                    }
                }
                query = queries.recv(), if tasks.len() < tasks_cap => {
                    let Some(query) = query else { return };
                    let upstream = Rc::clone(&upstream);
                    let answer = Rc::clone(&answer);
                    tasks.spawn_local(async move {
                        tokio::select! {
                            biased;
                            _ = query.is_wanted => {}
                            bytes = resolve(&upstream, query.transport, query.message) => {
                                answer(query.id, bytes);
                            }
                        }
                    });
                }
            }
        }
    };
    LocalSet::new().run_until(serve).await;
}

async fn resolve(
    upstream: &RefCell<Upstream>,
    transport: DnsTransport,
    message: Vec<u8>,
) -> Option<Vec<u8>> {
    let query = Outgoing::new(message)?;
    if transport == DnsTransport::Tcp && query.is_zone_transfer() {
        return Some(query.make_not_implemented());
    }
    upstream::resolve(upstream, transport, &query).await
}
