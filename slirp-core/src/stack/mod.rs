//! The pure side's front door: frames of the guest in, frames to the guest and actions out.
//!
//! Owns the order in which its components are asked, and the counters. It holds no socket and knows
//! no clock.
//!
//! | component | what it owns |
//! | --- | --- |
//! | `FlowTable` | the flows |
//! | `Admission` | every count of flows: which may open, and which makes room |
//! | `Engine` | TCP towards the guest |
//! | `Outbox` | finished frames that do not come from the engine |
//! | `Schedule` | when each owner of a deadline is to be looked at |
//! | `Turns` | which flow may send |
//! | `LinkServices` | ARP to TFTP, and the place of every guest address; owns no flow |
//! | `Whereabouts` | which addresses the guest has now, where it chooses them |
//! | `DnsRelay` | queries in flight and connections to the DNS service; owns no flow |
//! | `Reassembly` | fragments of the guest |
//! | `Shaping` | the limits of rates, if there are any, and the datagrams that wait for them |
//! | `Egress` | the egress policy in force, if there is one: who judges which guest |
//! | `Events` | what a listener is told, if there is one |
//! | `EagerRemotes` | which remotes wait for the guest to speak first |
//!
//! The stack's own methods stand in files by the side that they serve: `from_guest` and
//! `tcp_from_guest` (frames), `from_host` (sockets and resolvers), `inbound` (what remotes begin),
//! and `lifecycle` (how flows and members come and go).
//!
//! Table, engine, schedule, turns, outbox and actions belong together: each of several data threads
//! would have its own. Link services and DNS know no table, so that one of each could serve them
//! all.
//!
//! # Order of calls
//!
//! One turn of the loop that drives a [`Stack`]:
//!
//! 1. [`handle_frame`](Stack::handle_frame) for each frame of the guest; send the datagram that it
//!    lends, if any, and do what [`poll_action`](Stack::poll_action) says before the next frame: a
//!    flow may get the index of one that is to be closed. Any of the other `handle_*` for what host
//!    sockets reported, and [`wake_flow`](Stack::wake_flow) for TCP sockets that became readable or
//!    writable.
//! 2. [`handle_timeout`](Stack::handle_timeout), when [`poll_timeout`](Stack::poll_timeout) is due.
//! 3. [`poll_action`](Stack::poll_action) until there is none, and
//!    [`poll_datagram`](Stack::poll_datagram), which lends datagrams of the guest that had to wait
//!    for its [`Rates`](crate::Rates).
//! 4. [`poll_ready`](Stack::poll_ready) until there is none; each flow that it names is given to
//!    [`pump`](Stack::pump) with its host socket, and then [`poll_frame`](Stack::poll_frame) is
//!    called until there is none.
//! 5. [`poll_event`](Stack::poll_event) until there is none, if [`set_detail`](Stack::set_detail)
//!    has asked for events.
//! 6. Wait for frames, host sockets or the deadline; not at all while
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
mod dns;
mod egress;
mod events;
mod from_guest;
mod from_host;
mod inbound;
mod lifecycle;
mod link;
mod outbox;
mod rates;
mod reassembly;
mod snapshot;
mod tcp_from_guest;
mod turns;
mod whereabouts;

use std::collections::VecDeque;

use crate::config::{Personality, StackConfig};
use crate::discard::DiscardReason;
use crate::event::{FlowId, HostAction};
use crate::flow::eager::EagerRemotes;
use crate::flow::table::FlowTable;
use crate::flow::{Allowance, FlowSummary, HostStream};
use crate::journal::{Detail, PacketEnds, Report};
use crate::plan::AddressPlan;
use crate::policy::Protocol;
use crate::rng::Rng;
use crate::share::PARTS;
use crate::stats::Stats;
use crate::tcp::{Engine, EngineConfig};
use crate::time::Instant;
use crate::timer::Schedule;
pub use crate::timer::TimerOwner;
use admission::Admission;
use dns::DnsRelay;
use egress::{Approvers, Egress};
pub use egress::{AuditDuty, EgressState, Established, Revision};
use events::Events;
use link::LinkServices;
use outbox::Outbox;
use rates::Shaping;
use reassembly::Reassembly;
use turns::Turns;
use whereabouts::Whereabouts;

/// See the [module](self).
pub struct Stack {
    config: StackConfig,
    stats: Stats,
    events: Events,
    flows: FlowTable,
    admission: Admission,
    engine: Engine,
    outbox: Outbox,
    schedule: Schedule,
    turns: Turns,
    actions: VecDeque<HostAction>,
    link: LinkServices,
    whereabouts: Whereabouts,
    dns: DnsRelay,
    egress: Option<Box<Egress>>,
    approvers: Approvers,
    shaping: Option<Box<Shaping>>,
    reassembly: Reassembly,
    eager_remotes: EagerRemotes,
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
            parts: if config.is_shared { PARTS } else { 1 },
            seed: rng.next_u64(),
        });
        let link = LinkServices::new(&config, rng.next_u64());
        let mut stack = Self {
            stats: Stats::default(),
            events: Events::default(),
            flows: FlowTable::new(rng.next_u64()),
            admission: Admission::new(&config.limits, config.is_shared),
            engine,
            outbox: Outbox::new(&config, rng.next_u64()),
            schedule: Schedule::default(),
            turns: Turns::default(),
            actions: VecDeque::new(),
            link,
            whereabouts: Whereabouts::new(&config.plan),
            dns: DnsRelay::new(&config),
            egress: config.egress.is_some().then(|| Box::new(Egress::new(&config))),
            approvers: Approvers::default(),
            shaping: Shaping::new(config.rates),
            reassembly: Reassembly::new(&config),
            eager_remotes: EagerRemotes::new(rng.next_u64()),
            config,
        };
        stack.schedule_link();
        stack
    }

    /// The counters so far, without what is looked up in a [`snapshot`](Self::snapshot).
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
        self.discard(reason, || None);
    }

    /// Chooses how much [`poll_event`](Self::poll_event) tells from now on: nothing at first. What
    /// waits already is forgotten.
    pub fn set_detail(&mut self, detail: Detail) {
        self.events.set_detail(detail);
        self.dns.set_heard(self.events.has_listener());
    }

    /// The next event that is worth a line in a log. Up to 1,024 wait; what happens while as many
    /// do is lost, and counted in the report behind it.
    pub fn poll_event(&mut self) -> Option<Report> {
        self.events.poll()
    }

    /// How many events were lost behind the last one, once that was polled. The next report does
    /// not count them again.
    pub const fn take_lost_events(&mut self) -> u64 {
        self.events.take_lost()
    }

    /// Counts a discard, and tells the listener, or the log, of it.
    fn discard(&mut self, reason: DiscardReason, packet: impl FnOnce() -> Option<PacketEnds>) {
        if self.events.discarded(reason, packet) {
            self.stats.discards.count_silently(reason);
        } else {
            self.stats.discards.count(reason);
        }
    }

    /// Counts the discard that `outcome` tells of, if it does.
    pub(crate) fn note(&mut self, outcome: Result<(), DiscardReason>) {
        if let Err(reason) = outcome {
            self.note_discard(reason);
        }
    }

    /// Replaces the address plan, on a link with a single guest, and what the guest is told besides
    /// its address. Flows go on with the addresses that they have, and forward rules for the
    /// guest's address lead to its address in the new plan. An IP version that the plan at the
    /// start did not have stays switched off.
    pub fn adopt_plan(
        &mut self,
        plan: AddressPlan,
        personality: Personality,
        search_domains: Vec<String>,
        now: Instant,
    ) {
        let before = core::mem::replace(&mut self.config.plan, plan);
        self.config.personality = personality;
        self.config.search_domains = search_domains;
        self.outbox.adopt_plan(plan);
        self.link.adopt_plan(&self.config, now);
        self.whereabouts.adopt_plan(&before, &plan);
        if let Some(egress) = &mut self.egress {
            egress.adopt_plan(&plan);
        }
        self.schedule_link();
    }

    /// What the stack was told at its start, and its address plan now.
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
        let id = self.turns.begin(&mut self.flows)?;
        self.pump_dns(id, now);
        if self.egress.is_some() {
            self.pump_refused(id, now);
        }
        Some(id)
    }

    /// Has a flow looked at again: its TCP host socket may have become readable, writable or
    /// broken, or the caller has a reason of its own.
    pub fn wake_flow(&mut self, id: FlowId) {
        if let Some(entry) = self.flows.entry_mut(id) {
            self.turns.wake(&mut entry.meta);
        }
    }

    /// Moves bytes between the guest's side of a TCP flow and its host socket.
    pub fn pump(&mut self, id: FlowId, host: &mut impl HostStream, now: Instant) {
        if self.egress.is_some() && !self.verify(id, now) {
            return;
        }
        let mut allowance = Allowance::UNLIMITED;
        if self.shaping.is_some() {
            allowance = self.allowance(id, now);
        }
        if let Some((meta, flow)) = self.flows.tcp_mut(id) {
            let before = meta.traffic;
            let pumped = flow.pump(host, &mut self.engine, &mut meta.traffic, allowance, now);
            self.stats.traffic[Protocol::Tcp].add_growth(before, meta.traffic);
            if self.egress.is_some() && flow.has_unseen() {
                self.turns.wake(meta);
            }
            if let Some(is_eager) = flow.first_speaker.take_report() {
                self.eager_remotes.note(meta.key.remote, is_eager);
            }
            self.note(pumped.map(|_| ()));
            if self.shaping.is_some() {
                self.note_pumped(id, before, pumped.unwrap_or_default(), now);
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
        let (id, may_send) = self.turns.current()?;
        if !may_send {
            self.wake_flow(id);
        } else if let Some((_, flow)) = self.flows.tcp_mut(id) {
            match flow.poll_segment(&mut self.engine, now) {
                Ok(Some(range)) => {
                    self.turns.note_frame();
                    self.stats.frames_to_guest += 1;
                    self.stats.bytes_to_guest += range.len() as u64;
                    return Some(self.engine.frame(range));
                }
                Ok(None) => {}
                Err(reason) => self.note_discard(reason),
            }
        }
        self.turns.end();
        self.settle(id, now);
        if self.shaping.is_some() {
            self.end_shaped_turn(id, now);
        }
        None
    }

    /// Whether a turn now would find something to do.
    pub fn has_work(&self) -> bool {
        self.turns.has_work()
            || !self.actions.is_empty()
            || self.outbox.has_next()
            || self.shaping.as_ref().is_some_and(|shaping| shaping.has_datagrams())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next, and for which owner.
    ///
    /// Forgets hints that have been overtaken, so that the caller's timer is not set for them. A
    /// flow that has only moved its deadline keeps its hint: it is likely to move it back with the
    /// next packet, and to set a timer costs more than one that fires in vain once in a while.
    pub fn poll_timeout(&mut self) -> Option<(Instant, TimerOwner)> {
        self.schedule.next()
    }

    /// Looks at everything whose deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(owner) = self.schedule.pop_due(now) {
            let (outbox, discards) = (&mut self.outbox, &mut self.stats.discards);
            match owner {
                TimerOwner::Flow(id) => self.on_flow_timer(id, now),
                TimerOwner::Reassembly => {
                    let mac_of = |source| self.link.mac_of(source);
                    self.reassembly.handle_timeout(mac_of, outbox, discards, now);
                    self.schedule.ask(owner, self.reassembly.poll_timeout());
                }
                TimerOwner::Dns => {
                    self.dns.handle_timeout(&mut self.stats, now);
                    self.deliver_dns(now);
                }
                TimerOwner::Inquiries => {
                    let is_unanswered =
                        |id| self.flows.tcp(id).is_some_and(|(_, flow)| flow.is_unanswered());
                    self.link.handle_inquiry_timeout(is_unanswered, outbox, discards, now);
                    self.schedule.ask(owner, self.link.ask_at());
                }
                TimerOwner::RouterAdvertisement => {
                    discards.note(self.link.handle_advertiser_timeout(outbox, now));
                    self.schedule.ask(owner, self.link.advertise_at());
                }
                TimerOwner::Engine => {
                    self.engine.handle_timeout(now);
                    self.schedule.ask(owner, self.engine.poll_timeout());
                }
                TimerOwner::Egress => self.on_egress_timer(now),
                TimerOwner::Shaper => self.on_shaper_timer(now),
            }
        }
        self.schedule.tidy();
    }
}

#[cfg(test)]
mod tests;
