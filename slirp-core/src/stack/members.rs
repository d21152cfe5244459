//! Members of a shared network, as far as the stack knows of them.
//!
//! Owns what begins and ends with a member: its DHCP reservation, its names, its place among the
//! neighbours, its quota, its flows. Which packets of which member get here is decided by the
//! [`switch`](crate::switch).

use std::collections::BTreeMap;

use super::Stack;
use super::quota::PARTS;
use crate::discard::DiscardReason;
use crate::event::FlowId;
use crate::flow::Flow;
use crate::member::{Member, MemberId};
use crate::service::dns::Asker;
use crate::switch::Released;
use crate::time::Instant;

impl Stack {
    /// A member has come. Whatever others have begun with its addresses before ends.
    pub fn handle_member_added(&mut self, id: MemberId, member: &Member) {
        let released = Released { macs: vec![member.mac], addresses: member.addresses().collect() };
        self.forget_guest(&released);
        self.dhcp.reserve(member.mac, member.address);
        self.dns.names.add(id, member);
        if let Some(quotas) = &mut self.quotas {
            quotas.assign(id, member.addresses());
        }
        self.engine.handle_member_added(member.addresses());
        for address in member.addresses() {
            self.neighbors.learn(address, member.mac);
        }
    }

    /// A member has gone, and with it everything that it was known by: `released`.
    pub fn handle_member_removed(&mut self, id: MemberId, member: &Member, released: &Released) {
        self.dhcp.release(member.mac);
        self.dns.names.remove(id);
        self.forget_guest(released);
        if let Some(quotas) = &mut self.quotas {
            quotas.unassign(id);
        }
        self.engine.handle_member_removed(member.addresses());
    }

    /// Whether a member may have one more DNS query in flight; always so where there are no
    /// members.
    pub(super) fn has_dns_quota(&self, asker: &Asker) -> bool {
        let Some(quotas) = &self.quotas else { return true };
        let guest_of = |asker: &Asker| match *asker {
            Asker::Udp { guest, .. } => Some(guest.ip()),
            Asker::Tcp { flow } => self.flows.entry(flow).map(|entry| entry.key.guest.ip()),
        };
        let holder_of = |asker: &Asker| guest_of(asker).and_then(|guest| quotas.holder(guest));
        let holder = holder_of(asker);
        let count = self.dns.askers().filter(|other| holder_of(other) == holder).count();
        count < (self.config.limits.dns_queries / PARTS).max(1)
    }

    /// While the rings' memory is tight no member may hold more than its part of it: the
    /// connections that hold most are reset until it does not. Nothing where there are no members.
    pub(super) fn relieve_memory(&mut self, now: Instant) {
        let Some(quotas) = &mut self.quotas else { return };
        if !self.engine.is_memory_tight() || !quotas.is_time_to_look(now) {
            return;
        }
        let part = self.config.limits.ring_memory / PARTS;
        let mut holders: BTreeMap<Option<MemberId>, Vec<(usize, FlowId)>> = BTreeMap::new();
        for entry in self.flows.iter() {
            if let Flow::Tcp(flow) = &entry.flow {
                let holder = quotas.holder(entry.key.guest.ip());
                holders.entry(holder).or_default().push((flow.held(), entry.id));
            }
        }
        for mut flows in holders.into_values() {
            let mut held: usize = flows.iter().map(|(held, _)| held).sum();
            flows.sort_unstable();
            while held > part
                && let Some((most, id)) = flows.pop()
            {
                held -= most;
                self.stats.discards.count(DiscardReason::RingMemoryExhausted);
                if let Some(entry) = self.flows.entry_mut(id)
                    && let Flow::Tcp(flow) = &mut entry.flow
                {
                    flow.abort();
                }
                self.wake_flow(id);
            }
        }
    }

    /// Ends all flows of a guest; their remotes see a reset.
    fn forget_guest(&mut self, released: &Released) {
        self.neighbors.forget(|address, mac| {
            released.macs.contains(&mac) || released.addresses.contains(&address)
        });
        let is_its = |entry: &&crate::flow::table::Entry| {
            let guest = entry.flow.guest();
            released.macs.contains(&guest.mac) || released.addresses.contains(&guest.address.ip())
        };
        let flows: Vec<_> = self.flows.iter().filter(is_its).map(|entry| entry.id).collect();
        for id in flows {
            self.remove_flow(id, true);
        }
    }
}

#[cfg(test)]
#[path = "tests/members.rs"]
mod tests;
