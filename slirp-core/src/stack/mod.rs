//! The pure side's front door: frames of the guest in, frames to the guest and actions out.
//!
//! Owns the order in which everything below is asked, the counters, and the timers. It holds no
//! socket and knows no clock.
//!
//! # Order of calls
//!
//! One turn of whoever drives a [`Stack`]:
//!
//! 1. [`handle_frame`](Stack::handle_frame) for each frame of the guest; send the datagram that it
//!    lends, if any, and do what [`poll_action`](Stack::poll_action) says before the next frame: a
//!    flow may get the index of one that is to be closed. Any of the other `handle_*` for what host
//!    sockets reported, and [`wake_flow`](Stack::wake_flow) for TCP sockets that became readable or
//!    writable.
//! 2. [`handle_timeout`](Stack::handle_timeout), when [`poll_timeout`](Stack::poll_timeout) is due.
//! 3. [`poll_action`](Stack::poll_action) until there is none.
//! 4. [`poll_ready`](Stack::poll_ready) until there is none; each flow that it names is given to
//!    [`pump`](Stack::pump) with its host socket, and then [`poll_frame`](Stack::poll_frame) is
//!    called until there is none.
//! 5. Wait for frames, host sockets or the deadline; not at all while
//!    [`has_work`](Stack::has_work) says so.
//!
//! ```
//! use slirp_core::config::StackConfig;
//! use slirp_core::stack::Stack;
//! use slirp_core::time::Instant;
//!
//! let mut stack = Stack::new(StackConfig::default());
//! let now = Instant::ZERO;
//! // The guest asks who 10.0.2.2 is (ARP, RFC 826).
//! let mut frame = Vec::new();
//! frame.extend_from_slice(&[0xff; 6]);
//! frame.extend_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
//! frame.extend_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
//! frame.extend_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 10, 0, 2, 100]);
//! frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
//! assert!(stack.handle_frame(&mut frame, now).is_none());
//! while let Some(flow) = stack.poll_ready(now) {
//!     unreachable!("ARP opens no flow, but here is {flow:?}");
//! }
//! let reply = stack.poll_frame(now).expect("the gateway answers");
//! assert_eq!(&reply[22..28], &[0x52, 0x55, 10, 0, 2, 2]);
//! ```

mod admission;
mod dns_stream;
mod from_guest;
mod from_host;
mod inbound;
mod link;
mod members;
mod outbox;
mod tcp_from_guest;

use std::collections::VecDeque;

use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::event::{FlowId, HostAction};
use crate::flow::eager::EagerRemotes;
use crate::flow::permit::Kind;
use crate::flow::table::FlowTable;
use crate::flow::tcp::Ending;
use crate::flow::{Flow, FlowKey, FlowSummary, HostStream};
use crate::rng::Rng;
use crate::service::dns::DnsService;
use crate::share::PARTS;
use crate::stats::Stats;
use crate::tcp::{Engine, EngineConfig};
use crate::time::Instant;
use crate::timer::{TimerHeap, TimerOwner};
use crate::wire::reassembly::Reassembler;
use admission::Admission;
use dns_stream::DnsStreams;
use link::LinkServices;
use outbox::Outbox;

/// Frames that one flow may send in a row before others get their turn: a full ring of 64 KiB
/// frames is four, one of MTU-sized ones 180.
const FLOW_FRAMES_CAP: u32 = 64;
/// Hints in the timer heap beyond two a flow before those are cleared away that an earlier one of their
/// owner has overtaken: 32 bytes each (arbitrary).
const OVERTAKEN_HINTS_CAP: usize = 1024;

/// See the [module](self).
pub struct Stack {
    config: StackConfig,
    stats: Stats,
    engine: Engine,
    engine_hinted_at: Option<Instant>,
    flows: FlowTable,
    admission: Admission,
    eager_remotes: EagerRemotes,
    timers: TimerHeap,
    ready: VecDeque<FlowId>,
    /// The flow that `poll_ready` named last and how many frames it has sent since.
    speaking: Option<(FlowId, u32)>,
    actions: VecDeque<HostAction>,
    outbox: Outbox,
    reassembler: Reassembler,
    reassembly_hinted_at: Option<Instant>,
    /// The datagram that was reassembled last; lent out of here.
    reassembled: Vec<u8>,
    link: LinkServices,
    inquiries_hinted_at: Option<Instant>,
    dns: DnsService,
    dns_hinted_at: Option<Instant>,
    /// The service's end of TCP flows to it.
    dns_streams: DnsStreams,
    advertiser_hinted_at: Option<Instant>,
}

impl Stack {
    /// A stack that has seen nothing yet.
    pub fn new(config: StackConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        let engine = Engine::new(EngineConfig {
            mtu: config.mtu,
            offload: config.offload,
            ring_len: config.limits.ring_len,
            bulk_flows: config.limits.bulk_flows,
            ring_memory: config.limits.ring_memory,
            parts: if config.policy.is_shared { PARTS } else { 1 },
            seed: rng.next_u64(),
        });
        let link = LinkServices::new(&config, rng.next_u64());
        let mut stack = Self {
            stats: Stats::default(),
            engine,
            engine_hinted_at: None,
            flows: FlowTable::new(rng.next_u64()),
            admission: Admission::new(&config.limits, config.policy.is_shared),
            timers: TimerHeap::default(),
            ready: VecDeque::new(),
            speaking: None,
            actions: VecDeque::new(),
            outbox: Outbox::new(&config, rng.next_u64()),
            reassembler: Reassembler::new(&config.limits, &config.timeouts),
            reassembly_hinted_at: None,
            reassembled: Vec::new(),
            link,
            inquiries_hinted_at: None,
            dns: DnsService::new(&config),
            dns_hinted_at: None,
            dns_streams: DnsStreams::new(config.limits.dns_connections, config.policy.is_shared),
            advertiser_hinted_at: None,
            eager_remotes: EagerRemotes::new(rng.next_u64()),
            config,
        };
        stack.hint_services();
        stack
    }

    /// The counters so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The flows in `count` slots of the table from slot `first` on, and the slot to go on from;
    /// `None` when there are no more. Flows that come and go meanwhile may be missed.
    ///
    /// Costs as much as there are slots asked for, so that a long list can be read in pieces.
    pub fn flows(
        &self,
        first: u32,
        count: u32,
        now: Instant,
    ) -> (impl Iterator<Item = FlowSummary>, Option<u32>) {
        let (entries, next) = self.flows.in_slots(first, count);
        let timeouts = &self.config.timeouts;
        let flows = entries.map(move |entry| FlowSummary::of(entry, timeouts, now));
        (flows, next)
    }

    /// Counts a discard that happened on the host side.
    pub fn note_discard(&mut self, reason: DiscardReason) {
        self.stats.discards.count(reason);
    }

    /// What the stack was told at its start.
    pub const fn config(&self) -> &StackConfig {
        &self.config
    }

    /// The next thing that the host side is asked to do.
    pub fn poll_action(&mut self) -> Option<HostAction> {
        self.actions.pop_front()
    }

    /// The next flow whose host socket is to be [`pump`](Self::pump)ed and whose frames are to be
    /// taken with [`poll_frame`](Self::poll_frame).
    pub fn poll_ready(&mut self, now: Instant) -> Option<FlowId> {
        while let Some(id) = self.ready.pop_front() {
            let Some(entry) = self.flows.entry_mut(id) else {
                continue;
            };
            entry.is_ready = false;
            self.speaking = Some((id, 0));
            self.pump_dns(id, now);
            return Some(id);
        }
        None
    }

    /// A TCP host socket may have become readable, writable or broken, or the caller wants the flow
    /// to be looked at again for a reason of its own.
    pub fn wake_flow(&mut self, id: FlowId) {
        if let Some(entry) = self.flows.entry_mut(id)
            && !entry.is_ready
        {
            entry.is_ready = true;
            self.ready.push_back(id);
        }
    }

    /// The same, ahead of everything else that is ready: the guest is waiting for this one to open,
    /// and nobody waits for the end of an old one.
    fn wake_flow_first(&mut self, id: FlowId) {
        if let Some(entry) = self.flows.entry_mut(id)
            && !entry.is_ready
        {
            entry.is_ready = true;
            self.ready.push_front(id);
        }
    }

    /// Moves bytes between the guest's side of a TCP flow and its host socket.
    pub fn pump(&mut self, id: FlowId, host: &mut impl HostStream, now: Instant) {
        if let Some(entry) = self.flows.entry_mut(id)
            && let Flow::Tcp(flow) = &mut entry.flow
        {
            let pumped = flow.pump(host, &mut self.engine, &mut entry.traffic, now);
            if let Some(is_eager) = flow.first_word.take_news() {
                self.eager_remotes.note(entry.key.remote, is_eager);
            }
            if let Err(reason) = pumped {
                self.stats.discards.count(reason);
            }
        }
    }

    /// The next frame to the guest, with its virtio-net header where the device has one.
    pub fn poll_frame(&mut self, now: Instant) -> Option<&[u8]> {
        if self.outbox.has_next() {
            let frame = self.outbox.pop()?;
            self.stats.frames_to_guest += 1;
            self.stats.bytes_to_guest += frame.len() as u64;
            return Some(frame);
        }
        let (id, sent) = self.speaking?;
        if sent < FLOW_FRAMES_CAP
            && let Some(entry) = self.flows.entry_mut(id)
            && let Flow::Tcp(flow) = &mut entry.flow
        {
            match flow.poll_segment(&mut self.engine, now) {
                Ok(Some(range)) => {
                    self.speaking = Some((id, sent + 1));
                    self.stats.frames_to_guest += 1;
                    self.stats.bytes_to_guest += range.len() as u64;
                    return Some(self.engine.frame(range));
                }
                Ok(None) => {}
                Err(reason) => self.stats.discards.count(reason),
            }
        } else if sent == FLOW_FRAMES_CAP {
            self.wake_flow(id);
        }
        self.speaking = None;
        self.settle(id, now);
        None
    }

    /// Whether a turn now would find something to do.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.actions.is_empty()
            || self.outbox.has_next()
            || self.speaking.is_some()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next, and for whom.
    ///
    /// Forgets hints that nobody waits for any more, so that the caller's timer is not set for them. A
    /// flow that has only moved its deadline keeps its hint: it is likely to move it back with the
    /// next packet, and to set a timer costs more than to have it go off in vain once in a while.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimerOwner)> {
        loop {
            let (at, owner) = self.timers.next()?;
            if self.is_awaited(at, owner) {
                return Some((at, owner));
            }
            self.timers.pop();
        }
    }

    /// Whether this is the earliest hint of its owner, and not one that an earlier one has overtaken.
    fn is_awaited(&self, at: Instant, owner: TimerOwner) -> bool {
        let hinted_at = match owner {
            TimerOwner::Flow(id) => self.flows.entry(id).and_then(|entry| entry.hinted_at),
            TimerOwner::Reassembly => self.reassembly_hinted_at,
            TimerOwner::Dns => self.dns_hinted_at,
            TimerOwner::Inquiries => self.inquiries_hinted_at,
            TimerOwner::RouterAdvertisement => self.advertiser_hinted_at,
            TimerOwner::Engine => self.engine_hinted_at,
        };
        hinted_at == Some(at)
    }

    /// Looks at everything whose deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, owner)) = self.timers.pop_due(now) {
            if !self.is_awaited(at, owner) {
                continue;
            }
            match owner {
                TimerOwner::Flow(id) => self.on_flow_timer(id, now),
                TimerOwner::Reassembly => self.on_reassembly_timer(now),
                TimerOwner::Dns => self.on_dns_timer(now),
                TimerOwner::Inquiries => self.on_inquiry_timer(now),
                TimerOwner::RouterAdvertisement => self.on_advertiser_timer(now),
                TimerOwner::Engine => self.on_engine_timer(now),
            }
        }
        if self.timers.len() > 2 * self.flows.len() + OVERTAKEN_HINTS_CAP {
            let mut timers = core::mem::take(&mut self.timers);
            timers.retain(|at, owner| self.is_awaited(at, owner));
            self.timers = timers;
        }
        self.timers.shrink();
    }

    fn on_flow_timer(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.flows.entry_mut(id) else {
            return;
        };
        entry.hinted_at = None;
        if entry.flow.wake_at().is_none_or(|at| at > now) {
            self.schedule(id);
            return;
        }
        match &mut entry.flow {
            Flow::Udp(_) | Flow::Echo(_) | Flow::Forwarded(_) => self.remove_flow(id, false),
            Flow::Tcp(flow) => {
                let was_parked = flow.is_parked();
                match flow.on_timer(&mut self.engine, &self.config.timeouts, now) {
                    Ok(()) => {
                        if flow.is_parked() && !was_parked {
                            self.stats.tcp_parked += 1;
                        } else {
                            self.wake_flow(id);
                        }
                    }
                    Err(DiscardReason::HostConnectTimedOut) => {
                        self.stats.discards.count(DiscardReason::HostConnectTimedOut);
                        self.fail_connect(id, crate::event::HostError::TimedOut);
                    }
                    Err(reason) => {
                        self.stats.discards.count(reason);
                        self.wake_flow(id);
                    }
                }
            }
        }
    }

    fn on_engine_timer(&mut self, now: Instant) {
        self.engine_hinted_at = None;
        self.engine.handle_timeout(now);
        self.hint_engine();
    }

    fn hint_engine(&mut self) {
        if self.engine_hinted_at.is_none()
            && let Some(at) = self.engine.poll_timeout()
        {
            self.engine_hinted_at = Some(at);
            self.timers.push(at, TimerOwner::Engine);
        }
    }

    /// Works out what becomes of a flow that has nothing more to say for now.
    fn settle(&mut self, id: FlowId, now: Instant) {
        let Some(entry) = self.flows.entry_mut(id) else {
            return;
        };
        let Flow::Tcp(flow) = &mut entry.flow else {
            return;
        };
        self.stats.tcp_unparked += u64::from(core::mem::take(&mut flow.unparked));
        if !flow.is_half_open() {
            self.admission.note_open(&mut entry.permit, id);
        }
        if let Some(ending) = flow.ending() {
            self.remove_flow(id, ending == Ending::Reset);
            return;
        }
        let was_parked = flow.is_parked();
        flow.settle(&mut self.engine, &self.config.timeouts, now);
        self.stats.tcp_parked += u64::from(flow.is_parked() && !was_parked);
        self.schedule(id);
    }

    /// Leaves a hint for the flow's deadline, unless an earlier one is there already.
    fn schedule(&mut self, id: FlowId) {
        self.hint_engine();
        let Some(entry) = self.flows.entry_mut(id) else {
            return;
        };
        let Some(at) = entry.flow.wake_at() else {
            return;
        };
        if entry.hinted_at.is_none_or(|hinted| at < hinted) {
            entry.hinted_at = Some(at);
            self.timers.push(at, TimerOwner::Flow(id));
        }
    }

    /// Forgets a flow and asks for its host socket to be closed.
    fn remove_flow(&mut self, id: FlowId, reset: bool) {
        let Some(entry) = self.flows.remove(id) else {
            return;
        };
        self.admission.release(&entry.permit, id);
        self.dns_streams.remove(id);
        self.stats.flows = self.flows.len() as u64;
        self.actions.push_back(HostAction::Close { flow: id, reset });
    }

    /// Adds a flow as one of `kind` and starts its clock. Others may have to make room for it.
    ///
    /// # Errors
    /// [`DiscardReason::FlowTableFull`], and then none of them has.
    fn insert_flow(
        &mut self,
        kind: Kind,
        key: FlowKey,
        flow: Flow,
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        let guest = key.guest.ip();
        let evicted = self.admission.make_room(&mut self.flows, kind, guest, now)?;
        let permit = |id| self.admission.admit(kind, guest, id, now);
        let id = self.flows.insert(key, flow, permit, now);
        // Only now, so that the new flow's slot is none where the host side has a socket to close.
        for evicted in evicted {
            self.evict(evicted);
        }
        self.stats.flows = self.flows.len() as u64;
        self.schedule(id);
        Ok(id)
    }

    /// Removes a flow that is to make room for another one.
    fn evict(&mut self, id: FlowId) {
        let is_tcp = self.flows.entry(id).is_some_and(|entry| match &entry.flow {
            Flow::Tcp(_) => true,
            Flow::Udp(_) | Flow::Echo(_) | Flow::Forwarded(_) => false,
        });
        self.stats.discards.count(if is_tcp {
            DiscardReason::HalfOpenLimit
        } else {
            DiscardReason::MappingEvicted
        });
        self.remove_flow(id, is_tcp);
    }

    /// Leaves hints for the services that have deadlines of their own.
    fn hint_services(&mut self) {
        for (at, hinted_at, owner) in [
            (
                self.reassembler.poll_timeout(),
                &mut self.reassembly_hinted_at,
                TimerOwner::Reassembly,
            ),
            (self.dns.poll_timeout(), &mut self.dns_hinted_at, TimerOwner::Dns),
            (self.link.ask_at(), &mut self.inquiries_hinted_at, TimerOwner::Inquiries),
            (
                self.link.advertise_at(),
                &mut self.advertiser_hinted_at,
                TimerOwner::RouterAdvertisement,
            ),
        ] {
            if let Some(at) = at
                && hinted_at.is_none_or(|hinted| at < hinted)
            {
                *hinted_at = Some(at);
                self.timers.push(at, owner);
            }
        }
    }
}

#[cfg(test)]
mod tests;
