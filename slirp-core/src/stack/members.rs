//! Members of a shared network, as far as the stack knows of them.
//!
//! Owns what begins and ends with a member: its DHCP reservation, its names, its place among the
//! neighbours, its quota, its flows. Which packets of which member get here is decided by the
//! [`switch`](crate::switch).

use super::Stack;
use super::admission::PARTS;
use crate::member::{Member, MemberId};
use crate::service::dns::Asker;
use crate::switch::Released;

impl Stack {
    /// A member has come. Whatever others have begun with its addresses before ends.
    pub fn handle_member_added(&mut self, id: MemberId, member: &Member) {
        let released = Released { macs: vec![member.mac], addresses: member.addresses().collect() };
        self.forget_guest(&released);
        self.dhcp.reserve(member.mac, member.address);
        self.dns.names.add(id, member);
        self.admission.assign(id, member.addresses());
        self.engine.handle_member(id, member.addresses());
        for address in member.addresses() {
            self.neighbors.learn(address, member.mac);
        }
    }

    /// A member has gone, and with it everything that it was known by: `released`.
    pub fn handle_member_removed(&mut self, id: MemberId, member: &Member, released: &Released) {
        self.dhcp.release(member.mac);
        self.dns.names.remove(id);
        self.forget_guest(released);
        self.admission.unassign(id);
        self.engine.handle_member_removed(id);
    }

    /// Whether a member may have one more DNS query in flight; always so where there are no
    /// members.
    pub(super) fn has_dns_quota(&self, asker: &Asker) -> bool {
        if !self.config.policy.is_shared {
            return true;
        }
        let guest_of = |asker: &Asker| match *asker {
            Asker::Udp { guest, .. } => Some(guest.ip()),
            Asker::Tcp { flow } => self.flows.entry(flow).map(|entry| entry.key.guest.ip()),
        };
        let admission = &self.admission;
        let holder_of = |asker: &Asker| guest_of(asker).and_then(|guest| admission.holder(guest));
        let holder = holder_of(asker);
        let count = self.dns.askers().filter(|other| holder_of(other) == holder).count();
        count < (self.config.limits.dns_queries / PARTS).max(1)
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
