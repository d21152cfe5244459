//! The inner thread's event loop.
//!
//! # Theory of operation
//! *A turn.* Wait; note which sockets are ready; read the orders; accept connections and datagrams
//! on the namespace's loopback; move the bytes of each bridge that is ready, a share each; once a
//! second, end bridges that are idle for too long and look which ports are in use. Sockets are
//! edge-triggered.
//!
//! *Limits.* Bridges of either way have half of the descriptors that are meant for bridges. Beyond
//! that, those that are idle for longest make room, but for open connections. If all are open,
//! connections are reset and datagrams dropped.
//!
//! *Errors.* An error of one bridge ends that bridge. Only the loss of the poller ends the loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Waker};

use super::account::Account;
use super::ask::{Ask, Bridged, SocketKind};
use super::listeners::Listeners;
use super::listening::SocketDiag;
use super::order::{Datagram, Order, Signs, Start};
use super::pool::{HostSocket, Pool};
use super::ports::OwnPorts;
use super::scan::Scan;
use super::settings::{HostPorts, SpliceRules, SplicesError};
use super::token::Source;
use crate::config::Timeouts;
use crate::discard::DiscardReason;
use crate::event::HostError;
use crate::host::bridge::lane::Means;
use crate::host::bridge::pipe::Pipes;
use crate::host::bridge::table::{Bridge, Bridges, Entry};
use crate::host::bridge::tcp::{Far, Standing};
use crate::host::bridge::udp::{Relayed, Strays};
use crate::host::mailbox::{FlowPage, JudgedFlowPage, Mailbox, Message};
use crate::journal::{Ending, Event};
use crate::stats::Stats;

/// Events that one wait reports at most (arbitrary).
const EVENTS_CAP: usize = 1024;
/// Bytes that are moved at a time. A datagram has 65,535 bytes at most.
const BUFFER_LEN: usize = 128 * 1024;
/// How often ports and idle bridges are looked at.
const TICK: Duration = Duration::from_secs(1);

crate::sys::calls::system_calls! {
    SYS_epoll_create1 => "the inner thread's event loop";
    SYS_epoll_ctl => "the inner thread's event loop";
    SYS_epoll_pwait => "the inner thread's event loop";
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "the inner thread's event loop";
    SYS_eventfd2 => "orders wake the inner thread";
    SYS_connect => "the far sockets of bridges";
    SYS_getsockname => "the addresses of bridges";
}

/// See the [module](self).
pub(super) struct Worker {
    pub(super) poll: Poll,
    orders: mpsc::Receiver<Order>,
    /// Kept so that its last signal is not closed with it before it is seen.
    _waker: Arc<Waker>,
    pub(super) mailbox: Mailbox,
    pub(super) signs: Arc<Signs>,
    pub(super) bridges: Bridges,
    pub(super) account: Account,
    /// Places of bridges that have something to do.
    ready: VecDeque<usize>,
    /// Places of UDP bridges, by whether they are inbound, client, and the address that the client
    /// sends to.
    pub(super) clients: BTreeMap<(bool, SocketAddr, SocketAddr), usize>,
    pub(super) pool: Pool,
    pub(super) listeners: Listeners,
    pub(super) scan: Option<Scan>,
    /// Ports of the host at which this instance listens.
    pub(super) own: OwnPorts,
    pub(super) closed: Vec<SocketAddr>,
    /// What waits for sockets of the host.
    pub(super) waiting: VecDeque<Datagram>,
    /// The same, received by bridges that they are not for.
    pub(super) waiting_strays: Vec<(Bridged, SocketAddr, Strays)>,
    timeouts: Timeouts,
    tick_at: Option<Instant>,
    pub(super) means: Means,
    pub(super) is_full_logged: bool,
    pub(super) is_short_logged: bool,
    /// What bridges have done and are, as the stack counts flows.
    pub(super) stats: Stats,
}

impl Worker {
    /// Sets everything up, opens the ports of the namespace's loopback, and returns the waker.
    pub(super) fn new(
        start: Start,
        orders: mpsc::Receiver<Order>,
        inside: io::Result<SocketDiag>,
    ) -> Result<(Self, Arc<Waker>), SplicesError> {
        let poll = Poll::new().map_err(SplicesError::SetUp)?;
        let waker = Waker::new(poll.registry(), Source::Orders.token());
        let waker = Arc::new(waker.map_err(SplicesError::SetUp)?);
        let pipes = Pipes::within(start.descriptors);
        let account = Account::new(start.descriptors, pipes.descriptors());
        let mut listeners = Listeners::default();
        let SpliceRules { scanned: forwards, to_host } = start.rules;
        let (scanned, open) = divide(to_host)?;
        listeners.follow(poll.registry(), &open, &BTreeSet::new(), account.room(0, 0, 0))?;
        let scan = match start.host_ports {
            Some(host) => {
                let inside = inside.map_err(SplicesError::SetUp)?;
                Some(Scan::new(host, inside, forwards, scanned))
            }
            None => None,
        };
        let mut pool = Pool::default();
        start.batches.into_iter().for_each(|batch| pool.put(batch));
        let worker = Self {
            poll,
            orders,
            _waker: Arc::clone(&waker),
            mailbox: start.mailbox,
            signs: start.signs,
            bridges: Bridges::new(account.bridges(listeners.len())),
            account,
            ready: VecDeque::new(),
            clients: BTreeMap::new(),
            pool,
            listeners,
            scan,
            own: *start.own,
            closed: start.closed,
            waiting: VecDeque::new(),
            waiting_strays: Vec::new(),
            timeouts: start.timeouts,
            tick_at: None,
            means: Means {
                buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
                pipes,
                held: Rc::default(),
            },
            is_full_logged: false,
            is_short_logged: false,
            stats: Stats::default(),
        };
        Ok((worker, waker))
    }

    /// Runs until the other end of the channel is gone.
    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_CAP);
        loop {
            let patience = self.patience();
            match self.poll.poll(&mut events, patience) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "the inner thread's event loop failed");
                    self.ask(Ask::Panicked);
                    return;
                }
            }
            let now = Instant::now();
            let mut is_woken = false;
            for event in &events {
                match Source::of(event.token()) {
                    Source::Orders => is_woken = true,
                    Source::Listener(at) => self.listeners.queue(at),
                    Source::Near(at) => self.on_near_event(at, event, now),
                    Source::Far(at) => self.on_far_event(at, event, now),
                }
            }
            if is_woken && !self.read_orders(now) {
                return;
            }
            self.serve_listeners(now);
            self.pump_ready(now);
            if self.tick_at.is_some_and(|at| at <= now) {
                self.tick(now);
            }
        }
    }

    /// How long the next wait may take.
    fn patience(&mut self) -> Option<Duration> {
        if !self.ready.is_empty() || !self.listeners.is_idle() {
            return Some(Duration::ZERO);
        }
        let has_clock = self.scan.as_ref().is_some_and(Scan::has_rules)
            || !self.bridges.is_empty()
            || !self.waiting.is_empty()
            || !self.waiting_strays.is_empty()
            || self.listeners.has_held();
        if !has_clock {
            self.tick_at = None;
            return None;
        }
        let now = Instant::now();
        let at = *self.tick_at.get_or_insert(now + TICK);
        Some(at.saturating_duration_since(now))
    }

    /// Returns whether the thread goes on.
    pub(super) fn read_orders(&mut self, now: Instant) -> bool {
        loop {
            let order = match self.orders.try_recv() {
                Ok(order) => order,
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            };
            match order {
                // Both are for a thread that has not started to work.
                Order::Run(_) | Order::Start(_) => {}
                Order::Accepted { stream, origin, targets, passing } => {
                    drop(passing);
                    self.on_accepted(stream, origin, targets, now);
                }
                Order::Datagram(datagram) => self.on_datagram(*datagram, now),
                Order::HostSockets(batch) => {
                    self.pool.put(batch);
                    self.listeners.resume();
                    for datagram in core::mem::take(&mut self.waiting) {
                        self.on_datagram(datagram, now);
                    }
                    for (bridged, local, strays) in core::mem::take(&mut self.waiting_strays) {
                        self.receive_strays(bridged, local, strays, now);
                    }
                }
                Order::OwnPorts(own) => self.own = *own,
                Order::ScannedOpen { failed } => {
                    if let Some(scan) = &mut self.scan {
                        scan.on_answer(&failed, now);
                    }
                    self.share_out();
                }
                Order::SetRules { rules, reply } => {
                    let _ = reply.send(self.set_rules(rules, now));
                }
                Order::RulesRemoved(rules) => {
                    self.end_clients(Ending::ForwardRemoved, now, |_, entry| {
                        entry.bridged.rule().is_some_and(|rule| rules.contains(&rule))
                    });
                }
                Order::Verdict { bridge, is_allowed } => {
                    self.on_verdict(bridge, is_allowed, now);
                }
                Order::JudgeAnew => self.judge_anew(),
                Order::Stats { mut stats, reply } => {
                    stats.add(&self.stats);
                    let _ = reply.send(*stats);
                }
                Order::ListFlows { first, reply } => {
                    let (rows, next) = self.bridges.page(first, |entry| entry.summary(now));
                    let _ = reply.send(FlowPage { flows: rows, next });
                }
                Order::ListJudgedFlows { first, reply } => {
                    let (rows, next) = self.bridges.page(first, |entry| entry.judged(now));
                    let _ = reply.send(JudgedFlowPage { flows: rows, next });
                }
                Order::Cut { bridge, reply } => {
                    let place = self.bridges.place(bridge);
                    if let Some(at) = place {
                        self.end(at, Ending::Revoked, now);
                    }
                    let _ = reply.send(place.is_some());
                }
            }
        }
    }

    fn on_near_event(&mut self, at: usize, event: &mio::event::Event, now: Instant) {
        let Some(entry) = self.bridges.at(at) else { return };
        if let Bridge::Tcp(tcp) = &mut entry.bridge {
            tcp.on_near_event(event);
            if event.is_error() && tcp.has_broken() {
                return self.end(at, Ending::HostFailed, now);
            }
        }
        self.wake(at);
    }

    pub(super) fn on_far_event(&mut self, at: usize, event: &mio::event::Event, now: Instant) {
        let Some(entry) = self.bridges.at(at) else { return };
        if let Bridge::Tcp(tcp) = &mut entry.bridge {
            if matches!(tcp.far, Far::Connecting { .. }) {
                return self.finish_connect(at, event, now);
            }
            tcp.on_far_event(event);
            if event.is_error() && tcp.has_broken() {
                return self.end(at, Ending::HostFailed, now);
            }
        }
        self.wake(at);
    }

    /// Notes that a bridge has something to do.
    pub(super) fn wake(&mut self, at: usize) {
        if let Some(entry) = self.bridges.at(at)
            && !core::mem::replace(&mut entry.is_ready, true)
        {
            self.ready.push_back(at);
        }
    }

    /// Gives each bridge that is ready its turn.
    fn pump_ready(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(at) = self.ready.pop_front() else { return };
            let Some(entry) = self.bridges.at(at).filter(|entry| entry.is_ready) else { continue };
            entry.is_ready = false;
            let before = entry.traffic();
            let (bridged, mut local, mut strays) = (entry.bridged, None, Strays::new());
            let standing = match &mut entry.bridge {
                Bridge::Tcp(tcp) => tcp.pump(&mut self.means),
                Bridge::Udp(udp) => {
                    local = Some(udp.local());
                    let stray = |client, payload: &[u8], segment_len| {
                        strays.push((client, payload.to_vec(), segment_len));
                    };
                    match udp.relay(&mut self.means.buffer, stray) {
                        Relayed::All => Standing::Waits,
                        Relayed::Some => Standing::HasMore,
                        Relayed::Refused => Standing::Broken,
                    }
                }
            };
            let after = entry.traffic();
            if after != before {
                entry.active_at = now;
                self.stats.traffic[entry.protocol()].add_growth(before, after);
            }
            match standing {
                Standing::Waits => {}
                Standing::HasMore => self.wake(at),
                Standing::Over => self.end(at, Ending::Orderly, now),
                Standing::Broken => self.end(at, Ending::HostFailed, now),
            }
            // Afterwards, because the bridge may have to make room for them.
            if let Some(local) = local {
                self.receive_strays(bridged, local, strays, now);
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.tick_at = Some(now + TICK);
        self.pool.retry();
        self.listeners.resume();
        // They have waited for sockets that the host does not have.
        self.waiting.clear();
        self.waiting_strays.clear();
        for (at, ending) in self.bridges.overdue(&self.timeouts, now) {
            if self.bridges.at(at).is_some_and(|entry| entry.is_opening()) {
                self.stats.discards.count(DiscardReason::HostConnectTimedOut);
                self.refuse(at, HostError::TimedOut);
            } else {
                self.end(at, ending, now);
            }
        }
        self.scan_ports(now);
    }

    /// Ends UDP bridges.
    pub(super) fn end_clients(
        &mut self,
        ending: Ending,
        now: Instant,
        is_over: impl Fn(&(bool, SocketAddr, SocketAddr), &Entry) -> bool,
    ) {
        let (clients, bridges) = (&self.clients, &mut self.bridges);
        let over: Vec<usize> = clients
            .iter()
            .filter(|&(key, &at)| bridges.at(at).is_some_and(|entry| is_over(key, entry)))
            .map(|(_, &at)| at)
            .collect();
        over.into_iter().for_each(|at| self.end(at, ending, now));
    }

    /// Ends a bridge.
    pub(super) fn end(&mut self, at: usize, ending: Ending, now: Instant) {
        let Some(entry) = self.bridges.remove(at) else { return };
        self.tell(|| entry.closed(ending, now));
        self.forget(entry, ending.is_reset());
    }

    /// Closes the sockets of a bridge that was taken out of the table.
    pub(super) fn forget(&mut self, entry: Entry, is_reset: bool) {
        self.stats.open[entry.protocol()] -= 1;
        self.stats.flows -= 1;
        match entry.bridge {
            Bridge::Tcp(tcp) if is_reset => tcp.reset(),
            Bridge::Tcp(_) => {}
            Bridge::Udp(udp) => {
                let key = (entry.bridged.is_inbound(), udp.client(), udp.local());
                self.clients.remove(&key);
            }
        }
    }

    /// A socket of the host.
    pub(super) fn host_socket(&mut self, kind: SocketKind) -> Option<HostSocket> {
        let socket = self.pool.take(kind);
        self.ask_for_more(kind);
        socket
    }

    /// Asks for sockets of the host, unless that was done.
    pub(super) fn ask_for_more(&mut self, kind: SocketKind) {
        if self.pool.needs(kind) {
            self.ask(Ask::HostSockets(kind));
        }
    }

    pub(super) fn ask(&self, ask: Ask) {
        // If the data thread has ended, this thread ends as well.
        self.mailbox.send(Message::Inner(ask));
    }

    /// Tells what has become of a bridge, if somebody hears it.
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.signs.is_heard() {
            self.ask(Ask::Tell(Box::new(event())));
        }
    }
}

/// What is heard of a connection. Room is told once it was missed.
pub(super) const STREAM: Interest =
    Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// Has the poller watch a socket of a bridge.
pub(super) fn watch(
    registry: &Registry,
    socket: BorrowedFd<'_>,
    source: Source,
    interest: Interest,
) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), source.token(), interest)
}

/// The rules whose ports are scanned, and those whose ports are open.
///
/// # Errors
/// [`SplicesError::Range`].
pub(super) fn divide(
    rules: Vec<HostPorts>,
) -> Result<(Vec<HostPorts>, Vec<HostPorts>), SplicesError> {
    if !rules.iter().all(is_in_range) {
        return Err(SplicesError::Range);
    }
    Ok(rules.into_iter().partition(|ports| ports.is_scanned))
}

fn is_in_range(ports: &HostPorts) -> bool {
    let fits =
        |first: u16| first != 0 && first.checked_add(ports.ports.saturating_sub(1)).is_some();
    ports.ports != 0 && fits(ports.guest) && fits(ports.host)
}
