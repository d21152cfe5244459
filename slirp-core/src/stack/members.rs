//! Members of a shared network, as far as the stack knows of them.
//!
//! Owns what begins and ends with a member: its DHCP reservation, its names, its place among the
//! neighbours, its quota, its flows. Which packets of which member get here is decided by the
//! [`switch`](crate::switch).

use core::net::IpAddr;

use super::Stack;
use crate::member::{Member, MemberId};
use crate::share::Holder;
use crate::switch::Released;

impl Stack {
    /// A member has come. Whatever others have begun with its addresses before ends.
    pub fn handle_member_added(&mut self, id: MemberId, member: &Member) {
        let own: Vec<_> = member.own_addresses(&self.config.plan).collect();
        let released = Released { macs: vec![member.mac], addresses: own };
        self.forget_guest(&released);
        self.dns.names.add(id, member);
        let own = released.addresses.iter().copied();
        self.admission.assign(id, own.clone());
        self.engine.handle_member(id, own);
        self.link.add_member(id, member);
    }

    /// A member has gone, and with it everything that it was known by: `released`.
    pub fn handle_member_removed(&mut self, id: MemberId, member: &Member, released: &Released) {
        self.link.remove_member(member);
        self.dns.names.remove(id);
        self.forget_guest(released);
        self.admission.unassign(id);
        self.engine.handle_member_removed(id);
    }

    /// Counts what a guest with `address` does as that of the `member` that uses the address, if
    /// one does.
    pub(super) fn learn_address(&mut self, member: Holder, address: IpAddr) {
        if let Some(member) = member
            && self.admission.learn(member, address)
        {
            self.engine.handle_member(member, core::iter::once(address));
        }
    }

    /// Ends all flows of a guest; their remotes see a reset.
    fn forget_guest(&mut self, released: &Released) {
        self.link.forget(released);
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
