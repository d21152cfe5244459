//! What other threads tell the inner thread.
//!
//! Owns the messages, and the ends of the channel that belong to other threads.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use mio::Waker;
use tokio::sync::oneshot;

use super::inward::{Inward, Targets};
use super::listening::SocketDiag;
use super::pool::Batch;
use super::ports::OwnPorts;
use super::settings::{SpliceRules, SplicesError};
use crate::config::Timeouts;
use crate::event::{FlowId, ForwardId, Origin};
use crate::host::forward::Forward;
use crate::host::mailbox::{FlowPage, JudgedFlowPage, Mailbox};
use crate::host::socket::tcp::TcpStream;
use crate::stats::Stats;

/// See the [module](self).
pub(crate) enum Order {
    /// Something to do before the work.
    Run(Box<dyn FnOnce() + Send>),
    /// Start to work.
    Start(Box<Start>),
    /// A client on the host's loopback has connected to a forwarded port.
    Accepted { stream: TcpStream, origin: Origin, targets: Targets, passing: Passing },
    /// A client on the host's loopback has sent to a forwarded port.
    Datagram(Box<Datagram>),
    /// Sockets of the host.
    HostSockets(Batch),
    /// Ports of the host at which this instance listens now.
    OwnPorts(Box<OwnPorts>),
    /// Rules for ports that were found in use are in force, but for these.
    ScannedOpen { failed: Vec<Forward> },
    /// Other rules are to hold.
    SetRules { rules: SpliceRules, reply: oneshot::Sender<Result<(), SplicesError>> },
    /// These forward rules have ended.
    RulesRemoved(Vec<ForwardId>),
    /// What the egress policy says of a bridge.
    Verdict { bridge: FlowId, is_allowed: bool },
    /// Another egress policy is in force, and ends bridges that it does not allow.
    JudgeAnew,
    /// Asks for these counters with those of bridges.
    Stats { stats: Box<Stats>, reply: oneshot::Sender<Stats> },
    /// Asks for bridges, from this place of the table on.
    ListFlows { first: u32, reply: oneshot::Sender<FlowPage> },
    /// The same, for those who want verdicts as well.
    ListJudgedFlows { first: u32, reply: oneshot::Sender<JudgedFlowPage> },
    /// A bridge is to end.
    Cut { bridge: FlowId, reply: oneshot::Sender<bool> },
}

/// What the thread works with.
pub(crate) struct Start {
    pub(crate) rules: SpliceRules,
    pub(crate) mailbox: Mailbox,
    pub(crate) signs: Arc<Signs>,
    /// Sockets of the host to begin with.
    pub(crate) batches: Vec<Batch>,
    /// Tells the ports in use on the host; only needed where ports are scanned.
    pub(crate) host_ports: Option<SocketDiag>,
    /// Listeners of the instance on the host that no guest may reach.
    pub(crate) closed: Vec<SocketAddr>,
    /// Ports of the host at which the instance listens already.
    pub(crate) own: Box<OwnPorts>,
    /// Descriptors that bridges may have.
    pub(crate) descriptors: usize,
    /// How long bridges may be idle.
    pub(crate) timeouts: Timeouts,
    /// Gets the waker, and the rules for ports that are in use already.
    pub(crate) done: mpsc::SyncSender<Result<Started, SplicesError>>,
}

/// What has come of a start.
pub(crate) struct Started {
    pub(crate) waker: Arc<Waker>,
    pub(crate) scanned: Vec<Forward>,
}

/// What came from a client on the host's loopback before it has a socket of its own.
pub(crate) struct Datagram {
    pub(crate) origin: Origin,
    pub(crate) targets: Targets,
    /// The rule's socket.
    pub(crate) listener: Arc<OwnedFd>,
    /// Held for as long as it is under way.
    #[expect(dead_code, reason = "its drop gives the place back")]
    pub(crate) passing: Passing,
    pub(crate) payload: Vec<u8>,
    pub(crate) segment_len: Option<u16>,
}

/// Datagrams that are under way from the data thread to bridges at most (arbitrary); others are
/// lost.
const DATAGRAMS_CAP: usize = 256;

/// Connections that are under way from the data thread to bridges at most (arbitrary: the backlog
/// of a port on most hosts); others wait in the port's queue.
const CONNECTIONS_CAP: usize = 4096;
/// Divisor: of the descriptors of what is joined, these connections have one in this many at most
/// (arbitrary).
const CONNECTIONS_PART: usize = 8;

/// How many connections may be under way where so many descriptors are for what is joined. There is
/// always one: without a place, no port would ever be served again.
pub(super) fn connections_within(descriptors: usize) -> usize {
    (descriptors / CONNECTIONS_PART).clamp(1, CONNECTIONS_CAP)
}

/// A place among the datagrams or the connections that are under way.
pub(crate) struct Passing(Arc<AtomicUsize>);

impl Passing {
    /// A place for a datagram, if one is free.
    pub(crate) fn datagram(signs: &Signs) -> Option<Self> {
        let (others, place) = Self::take(&signs.datagrams);
        (others < DATAGRAMS_CAP).then_some(place)
    }

    /// A place for a connection; [`Signs::has_room`] says whether one is free.
    pub(crate) fn connection(signs: &Signs) -> Self {
        Self::take(&signs.connections).1
    }

    /// A place, and how many others are taken.
    fn take(taken: &Arc<AtomicUsize>) -> (usize, Self) {
        (taken.fetch_add(1, Ordering::Relaxed), Self(Arc::clone(taken)))
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the inner thread looks up before it bothers the data thread.
#[derive(Default)]
pub(crate) struct Signs {
    /// Whether somebody hears of flows.
    is_heard: AtomicBool,
    /// Whether an egress policy is in force.
    is_judged: AtomicBool,
    /// How many datagrams are under way.
    datagrams: Arc<AtomicUsize>,
    /// How many connections are under way.
    connections: Arc<AtomicUsize>,
    connections_cap: usize,
}

impl Signs {
    /// Signs of a thread that may have so many descriptors.
    pub(crate) fn new(descriptors: usize) -> Self {
        Self { connections_cap: connections_within(descriptors), ..Self::default() }
    }

    /// Whether a connection has a place on its way to the thread.
    pub(crate) fn has_room(&self) -> bool {
        self.connections.load(Ordering::Relaxed) < self.connections_cap
    }

    pub(crate) fn set_heard(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Ordering::Release);
    }

    pub(crate) fn set_judged(&self, is_judged: bool) {
        self.is_judged.store(is_judged, Ordering::Release);
    }

    pub(crate) fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Acquire)
    }

    pub(crate) fn is_judged(&self) -> bool {
        self.is_judged.load(Ordering::Acquire)
    }
}

/// The data thread's end of the way to the inner thread, which ends when this is dropped.
pub(crate) struct Orders {
    /// Taken when this is dropped.
    sender: Option<mpsc::Sender<Order>>,
    waker: Arc<Waker>,
    pub(crate) signs: Arc<Signs>,
    pub(crate) inward: Option<Inward>,
}

impl Orders {
    pub(crate) const fn new(
        sender: mpsc::Sender<Order>,
        waker: Arc<Waker>,
        signs: Arc<Signs>,
        inward: Option<Inward>,
    ) -> Self {
        Self { sender: Some(sender), waker, signs, inward }
    }

    /// Sends an order. If the thread has ended, which ends the instance as well, it is lost.
    pub(crate) fn send(&self, order: Order) {
        if let Some(sender) = &self.sender
            && sender.send(order).is_ok()
        {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the thread in the guest's network namespace");
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.sender = None;
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_datagrams_and_connections_are_under_way_at_a_time() {
        type Take = fn(&Signs) -> Option<Passing>;
        let connection = |signs: &Signs| signs.has_room().then(|| Passing::connection(signs));
        let signs = Signs::new(usize::MAX);
        let kinds: [(Take, usize); 2] =
            [(Passing::datagram, DATAGRAMS_CAP), (connection, CONNECTIONS_CAP)];
        assert_eq!(Signs::new(1_024).connections_cap, 1_024 / CONNECTIONS_PART);
        assert!(Signs::new(0).has_room(), "one client at a time");
        let mut held = Vec::new();
        for (take, cap) in kinds {
            let mut all: Vec<Passing> = core::iter::from_fn(|| take(&signs)).collect();
            assert_eq!(all.len(), cap);
            assert!(take(&signs).is_none());
            all.pop();
            all.extend(take(&signs));
            assert!(all.len() == cap && take(&signs).is_none());
            held.push(all);
        }
        drop(held);
        assert!(kinds.iter().all(|(take, _)| take(&signs).is_some()));
    }
}
