//! Members of a shared network: how they are added, and what is removed with them.
//!
//! Owns the order: the rules of a member end before its device and its flows do. The devices belong
//! to the switchboard; what a member has in the stack is the stack's.

use std::collections::BTreeSet;

use super::Reactor;
use crate::event::ForwardId;
use crate::host::mailbox::NewMember;
use crate::member::{Member, MemberError, MemberId};
use crate::rates::Rates;
use crate::stack::Established;

impl Reactor {
    pub(super) fn add_member(&mut self, new: NewMember) -> Result<MemberId, MemberError> {
        if self.link.switchboard().is_none() {
            return Err(MemberError::NotShared);
        }
        let (egress, rates) = (new.egress.clone(), new.rates);
        if egress.is_some() {
            self.watch_addresses().map_err(|error| {
                tracing::warn!(%error, "cannot read the addresses of the host");
                MemberError::HostAddresses
            })?;
        }
        let board = self.link.switchboard().ok_or(MemberError::NotShared)?;
        let member = new.member.clone();
        let id = board.add(new)?;
        self.stack.handle_member_added(id, &member, self.now());
        if let Some(policy) = egress {
            self.stack.set_egress(Some(id), policy, Established::Keep, self.now());
        }
        if let Some(rates) = rates {
            self.stack.set_rates(Some(id), rates, self.now());
        }
        tracing::info!(member = id.0, "member added");
        Ok(id)
    }

    /// Removes a member with its forward rules, its flows and its names.
    pub(super) fn remove_member(&mut self, id: MemberId) -> Result<(), MemberError> {
        let board = self.link.switchboard().ok_or(MemberError::NotShared)?;
        let member = board.member(id).ok_or(MemberError::Unknown)?.clone();
        let mut removed = BTreeSet::new();
        for ForwardId(rule) in self.rules_of(&member) {
            // The rule was listed a moment ago, so it exists.
            removed.extend(self.forwards.remove_all(rule..=rule).unwrap_or_default());
        }
        self.on_forwards_removed(&removed);
        let board = self.link.switchboard().ok_or(MemberError::NotShared)?;
        let (member, released) = board.remove(id).ok_or(MemberError::Unknown)?;
        self.stack.handle_member_removed(id, &member, &released, self.now());
        tracing::info!(member = id.0, "member removed");
        Ok(())
    }

    pub(super) fn members(&mut self) -> Vec<(MemberId, Member)> {
        self.link.switchboard().map(|board| board.members()).unwrap_or_default()
    }

    /// Limits a member, or all guests that have no limits of their own. Returns whether there is
    /// such a member.
    pub(super) fn set_rates(&mut self, member: Option<MemberId>, rates: Rates) -> bool {
        let is_known = self.is_known(member);
        if is_known {
            self.stack.set_rates(member, rates, self.now());
        }
        is_known
    }

    /// The limits of a member, or of the guests that have none of their own.
    pub(super) fn rates(&mut self, member: Option<MemberId>) -> Option<Rates> {
        self.is_known(member).then(|| self.stack.rates(member))
    }

    fn is_known(&mut self, member: Option<MemberId>) -> bool {
        let board = self.link.switchboard();
        member.is_none_or(|id| board.is_some_and(|board| board.member(id).is_some()))
    }

    fn rules_of(&self, member: &Member) -> Vec<ForwardId> {
        let is_its = |address| member.addresses().any(|own| own == address);
        let rules = self.forwards.list().into_iter();
        rules.filter(|(_, rule)| is_its(rule.guest.ip())).map(|(id, _)| id).collect()
    }
}
