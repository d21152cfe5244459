//! Which resolver is asked when: order, failover, and memory of the silent ones.
//!
//! Owns the state of each resolver and the course of one query across them. Leaves single exchanges
//! to [`exchange`] and the list itself to [`resolv_conf`](super::resolv_conf). The theory of
//! operation is in the [parent](super).
//!
//! | a try ends with | the resolver is | next try |
//! | --- | --- | --- |
//! | answer | good; silent others are failed | none, the query is answered |
//! | SERVFAIL, NOTIMP, REFUSED | good, not asked again for this query | at once |
//! | unreachable | failed, not asked again for this query | at once |
//! | no socket | not judged, not asked again for this query | at once |
//! | silence | failed | has been running for long |
//! | no socket for a second try beside it | failed | at once, in its place |

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::DnsConfig;
use super::exchange::{self, ExchangeError, Outgoing, Verdict};
use super::resolv_conf::{ResolvConf, Settings, Source};
use crate::event::DnsTransport;
use crate::host::socket::descriptors::QUERIES_PER_SPARE_SOCKET;
use crate::host::socket::outbound::OutboundAddresses;

/// Exchanges that one query may have running. All but the first need a spare socket; a further
/// exchange replaces the oldest. With the defaults of resolv.conf two run at a time.
pub(super) const RUNNING_CAP: usize = 4;

/// The resolvers and their state.
#[derive(Debug)]
pub(super) struct Upstream {
    config: DnsConfig,
    /// `None` when the resolvers are fixed.
    resolv_conf: Option<ResolvConf>,
    servers: Vec<Server>,
    rotation: usize,
    /// Sockets that all queries together may have in addition to one each.
    spare_sockets: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug)]
struct Server {
    address: SocketAddr,
    answered_at: Option<Instant>,
    failed_at: Option<Instant>,
}

/// The plan for one query.
#[derive(Debug)]
struct Plan {
    /// Resolvers to ask, in order.
    servers: Vec<SocketAddr>,
    /// How many of `servers`, at its end, failed lately.
    failed: usize,
    timeout: Duration,
    failover_after: Duration,
    attempts: usize,
    ends_at: Instant,
    outbound: OutboundAddresses,
}

impl Upstream {
    /// Starts from `config`. The file is read when the first query arrives.
    pub(super) fn new(config: DnsConfig) -> Self {
        let resolv_conf = config
            .servers
            .is_empty()
            .then(|| ResolvConf::new(Source::of(&config), config.port, config.recheck_every));
        let spare = config.queries_cap.div_ceil(QUERIES_PER_SPARE_SOCKET);
        let spare_sockets = Arc::new(Semaphore::new(spare));
        Self { config, resolv_conf, servers: Vec::new(), rotation: 0, spare_sockets }
    }

    fn plan(&mut self, now: Instant) -> Plan {
        let settings = match &mut self.resolv_conf {
            Some(file) => file.refresh(now).clone(),
            None => Settings {
                servers: self.config.servers.clone(),
                timeout: self.config.timeout,
                attempts: self.config.attempts.max(1),
                rotate: false,
            },
        };
        self.adopt(&settings.servers);
        let mut order: Vec<_> = self.servers.clone();
        if settings.rotate {
            let first = self.rotation % order.len().max(1);
            order.rotate_left(first);
            self.rotation = self.rotation.wrapping_add(1);
        }
        let failed_for = self.config.failed_for;
        let has_failed = |server: &Server| {
            server.failed_at.is_some_and(|at| now.duration_since(at) < failed_for)
        };
        // The sort is stable: the order within each group stays.
        order.sort_by_key(has_failed);
        Plan {
            failed: order.iter().filter(|server| has_failed(server)).count(),
            servers: order.iter().map(|server| server.address).collect(),
            timeout: settings.timeout,
            failover_after: self.config.failover_after.min(settings.timeout),
            attempts: usize::try_from(settings.attempts).unwrap_or(1),
            ends_at: now + self.config.total_timeout,
            outbound: self.config.outbound.clone().unwrap_or_default(),
        }
    }

    /// Takes over a list of resolvers, and keeps the state of resolvers that stay on it.
    fn adopt(&mut self, addresses: &[SocketAddr]) {
        if self.servers.iter().map(|server| &server.address).eq(addresses) {
            return;
        }
        let known = std::mem::take(&mut self.servers);
        self.servers = addresses
            .iter()
            .map(|&address| {
                let same = known.iter().find(|server| server.address == address);
                same.copied().unwrap_or(Server { address, answered_at: None, failed_at: None })
            })
            .collect();
    }

    fn on_answered(&mut self, address: SocketAddr, now: Instant) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.address == address) {
            server.answered_at = Some(now);
            server.failed_at = None;
        }
    }

    /// A try that began at `tried_at` failed. A resolver that has answered since then is only slow
    /// for this name.
    fn on_failed(&mut self, address: SocketAddr, tried_at: Instant, now: Instant) {
        let server = self.servers.iter_mut().find(|server| {
            server.address == address && server.answered_at.is_none_or(|at| at < tried_at)
        });
        if let Some(server) = server {
            tracing::debug!(resolver = %address, "resolver does not answer");
            server.failed_at = Some(now);
        }
    }
}

/// Asks until there is an answer, and returns it as it came; `None` when no resolver answered.
pub(super) async fn resolve(
    upstream: &RefCell<Upstream>,
    transport: DnsTransport,
    query: &Outgoing,
) -> Option<Vec<u8>> {
    let plan = upstream.borrow_mut().plan(Instant::now());
    let ends_at = plan.ends_at;
    let mut search = Search {
        upstream,
        transport,
        query,
        plan,
        next: 0,
        running: Vec::new(),
        spent: Vec::new(),
        declined: None,
    };
    match timeout_at(ends_at, search.run()).await {
        Ok(Some(answer)) => Some(answer),
        Ok(None) | Err(_) => search.declined,
    }
}

/// One query on its way across the resolvers.
struct Search<'a> {
    upstream: &'a RefCell<Upstream>,
    transport: DnsTransport,
    query: &'a Outgoing,
    plan: Plan,
    /// Number of the next try: every resolver once, then every resolver again.
    next: usize,
    running: Vec<Try<'a>>,
    /// Resolvers that are not asked again for this query.
    spent: Vec<SocketAddr>,
    /// The last refusal; another resolver may have a better answer.
    declined: Option<Vec<u8>>,
}

struct Try<'a> {
    server: SocketAddr,
    /// `None` for the one socket that every query may have.
    spare: Option<OwnedSemaphorePermit>,
    began_at: Instant,
    exchange: Pin<Box<dyn Future<Output = Result<Vec<u8>, ExchangeError>> + 'a>>,
}

impl Search<'_> {
    async fn run(&mut self) -> Option<Vec<u8>> {
        let mut next_at = Instant::now();
        loop {
            if (self.running.is_empty() || next_at <= Instant::now())
                && let Some(server) = self.take_candidate()
            {
                self.begin(server);
                next_at = Instant::now() + self.plan.failover_after;
            }
            if self.running.is_empty() {
                return None;
            }
            let has_more = self.candidate().is_some();
            tokio::select! {
                (ended, result) = first_of(&mut self.running) => {
                    match self.on_ended(&ended, result) {
                        Step::Answered(answer) => return Some(answer),
                        Step::Next => next_at = Instant::now(),
                        Step::Wait => {}
                    }
                }
                () = sleep_until(next_at), if has_more => {}
            }
        }
    }

    fn begin(&mut self, server: SocketAddr) {
        let spare = self.make_room();
        let Plan { outbound, timeout, .. } = &self.plan;
        let source = outbound.source_for_resolver(server.ip());
        let interface = outbound.interface_for(server).map(str::to_owned);
        let (transport, query, timeout) = (self.transport, self.query, *timeout);
        let exchange =
            Box::pin(exchange::ask(server, source, interface, transport, query, timeout));
        self.running.push(Try { server, spare, began_at: Instant::now(), exchange });
    }

    /// The permit for the socket of one more try. When no permit is left, and at [`RUNNING_CAP`],
    /// the oldest try is dropped to make room: it has been silent for the longest time.
    fn make_room(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.running.iter().all(|running| running.spare.is_some()) {
            return None;
        }
        if self.running.len() < RUNNING_CAP {
            let spare_sockets = Arc::clone(&self.upstream.borrow().spare_sockets);
            if let Ok(spare) = spare_sockets.try_acquire_owned() {
                return Some(spare);
            }
        }
        let oldest = self.running.remove(0);
        if self.transport == DnsTransport::Udp {
            let mut upstream = self.upstream.borrow_mut();
            upstream.on_failed(oldest.server, oldest.began_at, Instant::now());
        }
        oldest.spare
    }

    fn on_ended(&mut self, ended: &Ended, result: Result<Vec<u8>, ExchangeError>) -> Step {
        let now = Instant::now();
        let mut upstream = self.upstream.borrow_mut();
        // A resolver that refuses TCP may still answer datagrams, so only failures over UDP count
        // against it.
        let is_proof = self.transport == DnsTransport::Udp;
        match result {
            Ok(answer) => {
                upstream.on_answered(ended.server, now);
                if exchange::verdict(&answer) == Verdict::Declined {
                    self.spent.push(ended.server);
                    self.declined = Some(answer);
                    return Step::Next;
                }
                let patience = self.plan.failover_after;
                for silent in &self.running {
                    let was_patient = now.duration_since(silent.began_at) >= patience;
                    if is_proof && was_patient && silent.server != ended.server {
                        upstream.on_failed(silent.server, silent.began_at, now);
                    }
                }
                Step::Answered(answer)
            }
            Err(error) => {
                tracing::debug!(resolver = %ended.server, %error, "try failed");
                let is_silence = matches!(error, ExchangeError::TimedOut);
                let is_ours = matches!(error, ExchangeError::NoSocket(_));
                if is_proof && !is_ours {
                    upstream.on_failed(ended.server, ended.began_at, now);
                }
                if is_silence {
                    return Step::Wait;
                }
                self.spent.push(ended.server);
                Step::Next
            }
        }
    }

    /// The number of the next useful try.
    fn candidate(&self) -> Option<usize> {
        let count = self.plan.servers.len();
        (self.next..count * self.plan.attempts).find(|number| {
            let position = number % count;
            // With an answer in hand it is not worth waiting for a resolver that failed lately.
            let is_hopeless = self.declined.is_some() && position >= count - self.plan.failed;
            !is_hopeless && !self.spent.contains(&self.plan.servers[position])
        })
    }

    fn take_candidate(&mut self) -> Option<SocketAddr> {
        let number = self.candidate()?;
        self.next = number + 1;
        Some(self.plan.servers[number % self.plan.servers.len()])
    }
}

/// The next step after a try has ended.
enum Step {
    Answered(Vec<u8>),
    Next,
    Wait,
}

/// A try that is over.
struct Ended {
    server: SocketAddr,
    began_at: Instant,
}

/// Waits for the first try to end and takes it out.
async fn first_of(running: &mut Vec<Try<'_>>) -> (Ended, Result<Vec<u8>, ExchangeError>) {
    poll_fn(|context| {
        for index in 0..running.len() {
            if let Poll::Ready(result) = running[index].exchange.as_mut().poll(context) {
                let Try { server, began_at, .. } = running.remove(index);
                return Poll::Ready((Ended { server, began_at }, result));
            }
        }
        Poll::Pending
    })
    .await
}
