//! Members of a shared network, from outside.

use super::Handle;
use crate::host::mailbox::Message;
use crate::host::switchboard::NewMember;
use crate::member::{Member, MemberError, MemberId};

impl Handle {
    /// Connects a member to the network, as a future of any runtime. It is on the network when this
    /// returns; forward rules to its address may be added from then on, and end with it.
    ///
    /// The membership ends by [`remove_member`](Self::remove_member), when its device is gone, or
    /// with the instance.
    ///
    /// # Errors
    /// See [`MemberError`]; the device is closed.
    pub async fn add_member(&self, member: NewMember) -> Result<MemberId, MemberError> {
        let answer = self.ask(|reply| Message::AddMember { member: Box::new(member), reply });
        answer.ok_or(MemberError::Ended)?.await.unwrap_or(Err(MemberError::Ended))
    }

    /// The same as [`add_member`](Self::add_member), blocking.
    ///
    /// # Errors
    /// See [`MemberError`].
    pub fn blocking_add_member(&self, member: NewMember) -> Result<MemberId, MemberError> {
        let answer = self.ask(|reply| Message::AddMember { member: Box::new(member), reply });
        answer.ok_or(MemberError::Ended)?.blocking_recv().unwrap_or(Err(MemberError::Ended))
    }

    /// Disconnects a member, as a future of any runtime. Its device, its forward rules and its
    /// names are gone and its connections reset when this returns.
    ///
    /// # Errors
    /// [`MemberError::NotShared`], [`MemberError::Unknown`] and [`MemberError::Ended`].
    pub async fn remove_member(&self, id: MemberId) -> Result<(), MemberError> {
        let answer = self.ask(|reply| Message::RemoveMember { id, reply });
        answer.ok_or(MemberError::Ended)?.await.unwrap_or(Err(MemberError::Ended))
    }

    /// The same as [`remove_member`](Self::remove_member), blocking.
    ///
    /// # Errors
    /// [`MemberError::NotShared`], [`MemberError::Unknown`] and [`MemberError::Ended`].
    pub fn blocking_remove_member(&self, id: MemberId) -> Result<(), MemberError> {
        let answer = self.ask(|reply| Message::RemoveMember { id, reply });
        answer.ok_or(MemberError::Ended)?.blocking_recv().unwrap_or(Err(MemberError::Ended))
    }

    /// The members by the order in which they came, as a future of any runtime; `None` when the
    /// instance has ended. There are none where it has a single guest.
    pub async fn members(&self) -> Option<Vec<(MemberId, Member)>> {
        self.ask(Message::ListMembers)?.await.ok()
    }

    /// The same as [`members`](Self::members), blocking.
    pub fn blocking_members(&self) -> Option<Vec<(MemberId, Member)>> {
        self.ask(Message::ListMembers)?.blocking_recv().ok()
    }
}
