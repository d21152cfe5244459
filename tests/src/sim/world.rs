//! The hosts that the guest talks to, by script.
//!
//! Owns the far end of every flow: the result of a connect, the bytes that a remote takes and
//! sends, and when. It stands where the product has host sockets, so its streams block and wake as
//! those do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use slirp_core::event::{Datagram, FlowId, HostAction, HostError};
use slirp_core::internals::Rng;
use slirp_core::stack::Stack;
use slirp_core::time::Instant;
use slirp_core::{HostStream, Transfer};

/// What a remote does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Sends everything back; ends after the guest.
    Echo,
    /// Takes everything; ends after the guest.
    Sink,
    /// Like [`Sink`](Self::Sink), but takes at most this many bytes a millisecond.
    SlowSink(usize),
    /// Sends this and ends at once; takes what the guest sends, also after that.
    Source(Vec<u8>),
    /// Says each of these after the given silence, and ends after the last.
    Caller(Vec<(Duration, Vec<u8>)>),
    /// Breaks after it has taken this many bytes.
    ResetAfter(usize),
    /// Refuses the connection.
    Refuses,
    /// Cannot be reached.
    Unreachable,
    /// Never answers the connect.
    Silent,
}

/// What the guest did to one remote.
#[derive(Clone, Debug, Default)]
pub struct Visit {
    /// What arrived.
    pub received: Vec<u8>,
    /// How often the guest ended its direction.
    pub ends: u32,
    /// How the flow was closed; `true` for a reset.
    pub closed: Option<bool>,
}

/// See the [module](self).
pub(super) struct World {
    rng: Rng,
    remotes: BTreeMap<SocketAddr, Remote>,
    hosts: HashMap<FlowId, Host>,
    visits: BTreeMap<SocketAddr, Vec<Visit>>,
    agenda: BTreeMap<(Instant, u64), Item>,
    planned: u64,
    pub(super) connects: u64,
    /// How many of them were to wait for the guest's first bytes.
    pub(super) unaware: u64,
}

enum Item {
    Connected(FlowId, Result<(), HostError>),
    Wake(FlowId),
    Say(FlowId, Vec<u8>),
    Datagram { flow: FlowId, remote: SocketAddr, payload: Vec<u8> },
}

/// One connection's far end.
struct Host {
    remote: SocketAddr,
    script: Remote,
    outbox: VecDeque<u8>,
    /// Utterances that are still to come.
    unsaid: usize,
    visit: Visit,
    rng: Rng,
    budget: usize,
    is_blocked: bool,
    /// The acknowledgement of its SYN is held, so it knows of no connection yet.
    is_unaware: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            remotes: BTreeMap::new(),
            hosts: HashMap::new(),
            visits: BTreeMap::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            connects: 0,
            unaware: 0,
        }
    }

    pub(super) fn add(&mut self, at: SocketAddr, remote: Remote) {
        self.remotes.insert(at, remote);
    }

    /// What has happened to the remote at `at`, one entry per connection that was made.
    pub(super) fn visits(&self, at: SocketAddr) -> Vec<Visit> {
        self.visits.get(&at).cloned().unwrap_or_default()
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.agenda.first_key_value().map(|(&(at, _), _)| at)
    }

    fn plan(&mut self, at: Instant, item: Item) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), item);
    }

    pub(super) fn handle_action(&mut self, action: HostAction, now: Instant) {
        match action {
            HostAction::ConnectTcp { flow, remote, is_guest_eager, .. } => {
                self.connects += 1;
                self.unaware += u64::from(is_guest_eager);
                let script = self.remotes.get(&remote).cloned().unwrap_or(Remote::Refuses);
                let later = now + Duration::from_micros(self.rng.next_u64() % 50_000);
                match script {
                    Remote::Refuses => {
                        self.plan(later, Item::Connected(flow, Err(HostError::Refused)));
                    }
                    Remote::Unreachable => {
                        self.plan(later, Item::Connected(flow, Err(HostError::HostUnreachable)));
                    }
                    Remote::Silent => {}
                    script @ (Remote::Echo
                    | Remote::Sink
                    | Remote::SlowSink(_)
                    | Remote::Source(_)
                    | Remote::Caller(_)
                    | Remote::ResetAfter(_)) => {
                        let mut host = Host::new(remote, script, self.rng.next_u64());
                        host.is_unaware = is_guest_eager;
                        self.hosts.insert(flow, host);
                        self.plan(later, Item::Connected(flow, Ok(())));
                    }
                }
            }
            HostAction::AskElsewhere { .. } => unreachable!("no rule has two addresses"),
            HostAction::Close { flow, reset, .. } => {
                if let Some(mut host) = self.hosts.remove(&flow) {
                    host.visit.closed = Some(reset);
                    self.visits.entry(host.remote).or_default().push(host.visit);
                }
            }
            HostAction::QueryDns { .. } | HostAction::CancelDns { .. } => {}
        }
    }

    /// A datagram is sent back after a while.
    pub(super) fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        if let Datagram::Udp { flow, remote, payload, .. } = *datagram {
            let later = now + Duration::from_micros(self.rng.next_u64() % 20_000);
            self.plan(later, Item::Datagram { flow, remote, payload: payload.to_vec() });
        }
    }

    pub(super) fn handle_timeout(&mut self, stack: &mut Stack, now: Instant) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > now {
                return;
            }
            match entry.remove() {
                Item::Connected(flow, outcome) => {
                    let said = self.hosts.get_mut(&flow).map(Host::utterances);
                    let mut at = now;
                    for (silence, words) in said.unwrap_or_default() {
                        at = at + silence;
                        self.plan(at, Item::Say(flow, words));
                    }
                    stack.handle_tcp_connected(flow, outcome, now);
                }
                Item::Wake(flow) => stack.wake_flow(flow),
                Item::Say(flow, words) => {
                    if let Some(host) = self.hosts.get_mut(&flow) {
                        host.unsaid -= 1;
                        host.outbox.extend(words);
                        stack.wake_flow(flow);
                    }
                }
                Item::Datagram { flow, remote, payload } => {
                    stack.handle_udp_from_host(flow, remote, &payload, None, 0, now);
                }
            }
        }
    }

    pub(super) fn pump(&mut self, stack: &mut Stack, flow: FlowId, now: Instant) {
        let Some(host) = self.hosts.get_mut(&flow) else {
            return;
        };
        stack.pump(flow, host, now);
        if core::mem::take(&mut host.is_blocked) {
            host.budget = usize::MAX;
            let mut pause = host.rng.next_u64() % 3000;
            if let Remote::SlowSink(rate) = host.script {
                host.budget = rate;
                pause = 1000;
            }
            self.plan(now + Duration::from_micros(pause), Item::Wake(flow));
        }
    }
}

impl Host {
    fn new(remote: SocketAddr, script: Remote, seed: u64) -> Self {
        let mut outbox = VecDeque::new();
        let mut unsaid = 0;
        let mut budget = usize::MAX;
        match &script {
            Remote::Source(data) => outbox.extend(data),
            Remote::Caller(words) => unsaid = words.len(),
            Remote::SlowSink(rate) => budget = *rate,
            Remote::Echo
            | Remote::Sink
            | Remote::ResetAfter(_)
            | Remote::Refuses
            | Remote::Unreachable
            | Remote::Silent => {}
        }
        let rng = Rng::new(seed);
        let visit = Visit::default();
        Self {
            remote,
            script,
            outbox,
            unsaid,
            visit,
            rng,
            budget,
            is_blocked: false,
            is_unaware: false,
        }
    }

    fn utterances(&mut self) -> Vec<(Duration, Vec<u8>)> {
        if let Remote::Caller(words) = &self.script { words.clone() } else { Vec::new() }
    }

    /// Now and then a socket takes or gives less than asked for, or nothing.
    fn share(&mut self, len: usize) -> usize {
        match self.rng.next_u64() % 8 {
            0 => 0,
            1 | 2 => len.min(1 + usize::from(self.rng.next_u16()) % 3000),
            _ => len,
        }
    }
}

impl HostStream for Host {
    fn send(&mut self, data: &[u8]) -> Transfer {
        assert!(!data.is_empty() && self.visit.ends == 0, "bytes behind the end");
        let len = self.share(data.len()).min(self.budget);
        if len == 0 {
            self.is_blocked = true;
            return Transfer::Blocked;
        }
        self.is_unaware = false;
        self.budget = self.budget.saturating_sub(len);
        self.visit.received.extend_from_slice(&data[..len]);
        if let Remote::ResetAfter(limit) = self.script
            && self.visit.received.len() > limit
        {
            return Transfer::Failed;
        }
        if self.script == Remote::Echo {
            self.outbox.extend(&data[..len]);
        }
        Transfer::Moved(len)
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        if self.is_unaware {
            return Transfer::Blocked;
        }
        if self.outbox.is_empty() {
            let is_over = match self.script {
                Remote::Source(_) => true,
                Remote::Caller(_) => self.unsaid == 0,
                Remote::Echo
                | Remote::Sink
                | Remote::SlowSink(_)
                | Remote::ResetAfter(_)
                | Remote::Refuses
                | Remote::Unreachable
                | Remote::Silent => self.visit.ends > 0,
            };
            return if is_over { Transfer::Ended } else { Transfer::Blocked };
        }
        let len = self.share(room.len().min(self.outbox.len()));
        if len == 0 {
            self.is_blocked = true;
            return Transfer::Blocked;
        }
        for (place, byte) in room.iter_mut().zip(self.outbox.drain(..len)) {
            *place = byte;
        }
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {
        self.visit.ends += 1;
        self.is_unaware = false;
    }

    fn acknowledge(&mut self) {
        self.is_unaware = false;
        // Looked at again: what it had to say can be had now.
        self.is_blocked = true;
    }
}
