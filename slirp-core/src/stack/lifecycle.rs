//! How flows and members come and go.
//!
//! Owns the only places where a flow begins ([`open_flow`](Stack::open_flow)) and ends
//! ([`close_flow`](Stack::close_flow)), what is looked at when a flow has nothing more to say or
//! its deadline has passed, and what begins and ends with a member of a shared network: its DHCP
//! reservation, its names, its place among the neighbours, its part of every limit, its flows.
//! Which packets of which member get here is decided by the [`switch`](crate::switch).

use core::net::{IpAddr, SocketAddr};

use super::Stack;
use crate::discard::DiscardReason;
use crate::event::{FlowId, HostAction, HostError};
use crate::flow::permit::Kind;
use crate::flow::table::Entry;
use crate::flow::{Flow, FlowKey};
use crate::journal::{Ending, Ends, Peer, Refusal};
use crate::member::{Member, MemberId};
use crate::share::Holder;
use crate::switch::Released;
use crate::time::Instant;
use crate::timer::TimerOwner;

impl Stack {
    /// Adds a flow as one of `kind`, counts it, and starts its clock. Others may have to make room
    /// for it. Its first packet goes to or comes from `remote`, as the guest knows it, behind which
    /// stands `peer`.
    ///
    /// # Errors
    /// [`DiscardReason::FlowTableFull`], and then none of them has.
    pub(super) fn open_flow(
        &mut self,
        kind: Kind,
        key: FlowKey,
        flow: Flow,
        (remote, peer): (SocketAddr, Peer),
        now: Instant,
    ) -> Result<FlowId, DiscardReason> {
        let guest = key.guest.ip();
        let ends = Ends::new(key.protocol, key.guest, remote);
        let evicted = match self.admission.make_room(&mut self.flows, kind, guest, now) {
            Ok(evicted) => evicted,
            Err(reason) => {
                self.events.refused(ends, Refusal::by_stack(reason));
                return Err(reason);
            }
        };
        // The clock of a mapping starts with the packet that the caller notes next.
        let wake_at = flow.wake_at().filter(|&at| at > now);
        let permit = |id| self.admission.admit(kind, guest, id, now);
        let id = self.flows.insert(key, flow, permit, now);
        // Only now, so that the new flow's slot is none where the host side has a socket to close.
        for evicted in evicted {
            self.evict(evicted, now);
        }
        let opened = match kind {
            Kind::Opening | Kind::Open => &mut self.stats.tcp_opened,
            Kind::InboundOpening | Kind::InboundOpen => &mut self.stats.tcp_accepted,
            Kind::Udp => &mut self.stats.udp_opened,
            Kind::InboundUdp => &mut self.stats.udp_accepted,
            Kind::Echo => &mut self.stats.echo_opened,
        };
        *opened += 1;
        self.stats.flows = self.flows.len() as u64;
        self.schedule_flow(id, wake_at);
        self.events.opened(id, ends, peer);
        Ok(id)
    }

    /// Ends a flow.
    pub(super) fn close_flow(&mut self, id: FlowId, ending: Ending, now: Instant) {
        if let Some(entry) = self.flows.entry(id) {
            // A listener has heard of a refusal already.
            if !matches!(&entry.flow, Flow::Tcp(flow) if flow.is_refused()) {
                self.events.closed(entry, ending, now);
            }
            self.remove_flow(id, ending.is_reset(), now);
        }
    }

    /// Ends a flow that has come to nothing.
    pub(super) fn refuse_flow(&mut self, id: FlowId, by: Refusal) {
        if let Some(entry) = self.flows.entry(id) {
            self.events.flow_refused(entry, by);
            // Nothing has come of it since it began.
            let began_at = entry.meta.created_at;
            self.remove_flow(id, true, began_at);
        }
    }

    /// Forgets a flow, which was in use until `used_at`, and asks for its host socket to be closed,
    /// by a reset if `reset` and it has such a thing.
    fn remove_flow(&mut self, id: FlowId, reset: bool, used_at: Instant) {
        let Some(entry) = self.flows.remove(id) else {
            return;
        };
        self.schedule.forget(TimerOwner::Flow(id));
        self.admission.release(&entry.meta.permit, id);
        if let Some(egress) = &mut self.egress {
            egress.forget_flow(&entry.meta, &entry.flow, used_at);
            self.schedule.ask(TimerOwner::Egress, egress.on_closed(&entry.meta, used_at));
        }
        let is_tcp = matches!(entry.flow, Flow::Tcp(_));
        let mut elsewhere = None;
        if let Flow::Tcp(flow) = entry.flow {
            elsewhere = flow.elsewhere();
            flow.retire(&mut self.engine);
        }
        debug_assert!(self.flows.len() > 0 || !self.engine.is_in_use(), "rings are given back");
        self.dns.forget(id);
        if self.shaping.is_some() {
            self.forget_shaped(id, entry.meta.permit.holder, used_at);
        }
        self.stats.flows = self.flows.len() as u64;
        self.actions.push_back(match elsewhere {
            Some((origin, guest)) => HostAction::AskElsewhere { flow: id, origin, guest },
            None => HostAction::Close { flow: id, reset: reset && is_tcp },
        });
    }

    /// Closes a flow that is to make room for another one.
    fn evict(&mut self, id: FlowId, now: Instant) {
        let is_tcp = self.flows.tcp(id).is_some();
        self.note_discard(if is_tcp {
            DiscardReason::HalfOpenLimit
        } else {
            DiscardReason::MappingEvicted
        });
        self.close_flow(id, Ending::Evicted, now);
    }

    /// Works out what becomes of a flow that has nothing more to say for now.
    pub(super) fn settle(&mut self, id: FlowId, now: Instant) {
        let Some((meta, flow)) = self.flows.tcp_mut(id) else {
            return;
        };
        self.stats.tcp_unparked += u64::from(core::mem::take(&mut flow.unparked));
        if meta.permit.kind == Kind::InboundOpening && flow.is_established() {
            self.events.connected(meta, now);
        }
        if !flow.is_half_open() {
            self.admission.note_open(&mut meta.permit, id);
        }
        if let Some(ending) = flow.ending() {
            self.close_flow(id, ending, now);
            return;
        }
        let was_parked = flow.is_parked();
        flow.settle(&mut self.engine, &self.config.timeouts, now);
        self.stats.tcp_parked += u64::from(flow.is_parked() && !was_parked);
        let wake_at = flow.wake_at();
        self.schedule_flow(id, wake_at);
    }

    /// Has a flow looked at by `wake_at`, and the engine when it wants to be.
    pub(super) fn schedule_flow(&mut self, id: FlowId, wake_at: Option<Instant>) {
        self.schedule.ask(TimerOwner::Engine, self.engine.poll_timeout());
        self.schedule.ask(TimerOwner::Flow(id), wake_at);
    }

    /// Has the services of the link looked at when they want to be.
    pub(super) fn schedule_link(&mut self) {
        self.schedule.ask(TimerOwner::Inquiries, self.link.ask_at());
        self.schedule.ask(TimerOwner::RouterAdvertisement, self.link.advertise_at());
    }

    /// A flow has asked to be looked at by now. Its deadline may be a later one meanwhile.
    pub(super) fn on_flow_timer(&mut self, id: FlowId, now: Instant) {
        let Some(Entry { meta, flow }) = self.flows.entry_mut(id) else {
            return;
        };
        let wake_at = flow.wake_at();
        if wake_at.is_none_or(|at| at > now) {
            self.schedule_flow(id, wake_at);
            return;
        }
        let Flow::Tcp(flow) = flow else {
            self.close_flow(id, Ending::Idle, now);
            return;
        };
        let was_parked = flow.is_parked();
        match flow.on_timer(&mut self.engine, &self.config.timeouts, now) {
            Ok(()) if flow.is_parked() && !was_parked => self.stats.tcp_parked += 1,
            Ok(()) => self.turns.wake(meta),
            Err(reason) => {
                self.note_discard(reason);
                if reason == DiscardReason::HostConnectTimedOut {
                    if self.egress.is_none() || !self.try_next(id, now) {
                        self.fail_connect(id, HostError::TimedOut);
                    }
                } else {
                    self.wake_flow(id);
                }
            }
        }
    }

    /// A member has come. Flows that other stations have begun with its addresses end.
    #[doc(hidden)]
    pub fn handle_member_added(&mut self, id: MemberId, member: &Member, now: Instant) {
        let own: Vec<_> = member.own_addresses(&self.config.plan).collect();
        let released = Released { macs: vec![member.mac], addresses: own };
        self.forget_guest(&released, now);
        self.dns.add_member(id, member);
        let own = released.addresses.iter().copied();
        self.admission.assign(id, own.clone());
        self.engine.handle_member(id, own);
        self.link.add_member(id, member);
    }

    /// A member has gone, and so have its addresses: `released`.
    #[doc(hidden)]
    pub fn handle_member_removed(
        &mut self,
        id: MemberId,
        member: &Member,
        released: &Released,
        now: Instant,
    ) {
        self.link.remove_member(member);
        self.dns.remove_member(id, now);
        self.deliver_dns(now);
        self.forget_guest(released, now);
        self.forget_judge(id, now);
        self.forget_rates(id);
        self.admission.unassign(id);
        self.engine.handle_member_removed(id);
    }

    /// A `member` has used `address`: the flows and the memory of that address count for it.
    pub(super) fn learn_address(&mut self, member: Holder, address: IpAddr) {
        if let Some(member) = member
            && self.admission.learn(member, address)
        {
            self.engine.handle_member(member, core::iter::once(address));
        }
    }

    /// Ends all flows of a guest; their remotes see a reset.
    fn forget_guest(&mut self, released: &Released, now: Instant) {
        self.link.forget(released);
        let is_its = |entry: &&Entry| {
            let guest = entry.flow.guest();
            released.macs.contains(&guest.mac) || released.addresses.contains(&guest.address.ip())
        };
        let flows: Vec<_> = self.flows.iter().filter(is_its).map(|entry| entry.meta.id).collect();
        for id in flows {
            self.close_flow(id, Ending::MemberLeft, now);
        }
    }
}

#[cfg(test)]
#[path = "tests/members.rs"]
mod tests;
