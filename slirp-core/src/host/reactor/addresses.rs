//! The egress policy's view of the host, and its exchange at run time.
//!
//! Owns when the host's addresses are read: they are from the first policy on. The socket belongs
//! to [`addresses`](crate::host::addresses); what a policy makes of them is the stack's.

use std::io;

use super::Reactor;
use crate::egress::EgressPolicy;
use crate::host::addresses::HostAddresses;
use crate::host::mailbox::EgressError;
use crate::member::MemberId;
use crate::stack::{EgressState, Established, Revision};

impl Reactor {
    /// Takes the socket that was opened before the loop, or the reason why it could not be. If a
    /// policy is in force, the host's addresses are read now.
    pub(crate) fn adopt_addresses(
        &mut self,
        opened: Option<io::Result<HostAddresses>>,
    ) -> io::Result<()> {
        self.addresses = opened;
        if self.stack.has_egress() { self.watch_addresses() } else { Ok(()) }
    }

    /// Reads the host's addresses from now on.
    pub(super) fn watch_addresses(&mut self) -> io::Result<()> {
        if self.is_watching_addresses {
            return Ok(());
        }
        let opened = self.addresses.get_or_insert_with(HostAddresses::open);
        let addresses = match opened {
            Ok(addresses) => addresses,
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        let list = addresses.read()?;
        // What has changed since is reported at once.
        addresses.register(self.poll.registry())?;
        self.is_watching_addresses = true;
        self.stack.set_host_addresses(&list, self.now());
        Ok(())
    }

    /// The host's addresses have changed.
    pub(super) fn renew_addresses(&mut self) {
        let Some(Ok(addresses)) = &mut self.addresses else { return };
        match addresses.read() {
            Ok(list) => self.stack.set_host_addresses(&list, self.now()),
            // The next change is another chance.
            Err(error) => tracing::warn!(%error, "cannot read the addresses of the host"),
        }
    }

    /// The policy in force for a member, or for the guest.
    pub(super) fn egress(
        &mut self,
        member: Option<MemberId>,
    ) -> Result<Option<EgressState>, EgressError> {
        if let Some(id) = member {
            let board = self.link.switchboard().ok_or(EgressError::UnknownMember)?;
            board.member(id).ok_or(EgressError::UnknownMember)?;
        }
        Ok(self.stack.egress(member))
    }

    pub(super) fn set_egress(
        &mut self,
        member: Option<MemberId>,
        policy: EgressPolicy,
        established: Established,
        replaced: Option<Revision>,
    ) -> Result<Revision, EgressError> {
        let before = self.egress(member)?.map_or(Revision(0), |state| state.revision);
        if replaced.is_some_and(|expected| expected != before) {
            return Err(EgressError::Changed(before));
        }
        self.watch_addresses().map_err(EgressError::HostAddresses)?;
        let revision = self.stack.set_egress(member, policy, established, self.now());
        self.on_egress_set(established);
        tracing::info!(member = member.map(|id| id.0), revision = revision.0, "egress policy set");
        Ok(revision)
    }
}
