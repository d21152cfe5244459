//! Which member holds which address.
//!
//! Owns the two tables from an address to a port, and their rules: an assigned address belongs to
//! its member, and any other address to the member that used it first, until that member leaves.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::{PortIndex, Released};
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::member::{Member, MemberError};
use crate::plan::AddressPlan;

/// Ethernet addresses of one member, its own included (arbitrary: stations that it bridges here;
/// some 40 bytes each).
pub(crate) const MACS_CAP: usize = 64;
/// IP addresses of one member, its own included (arbitrary: hosts of networks nested behind it;
/// some 60 bytes each).
pub(crate) const ADDRESSES_CAP: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Holding {
    port: PortIndex,
    is_assigned: bool,
}

/// How much one port holds.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    macs: usize,
    addresses: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Tenure {
    plan: AddressPlan,
    virtual_macs: Vec<MacAddr>,
    macs: BTreeMap<[u8; 6], Holding>,
    addresses: BTreeMap<IpAddr, Holding>,
    counts: BTreeMap<PortIndex, Count>,
}

impl Tenure {
    pub(super) fn new(plan: AddressPlan) -> Self {
        Self {
            plan,
            virtual_macs: plan.ours().map(|ours| plan.mac_for(ours)).collect(),
            macs: BTreeMap::new(),
            addresses: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn is_virtual_mac(&self, mac: MacAddr) -> bool {
        self.virtual_macs.contains(&mac)
    }

    pub(super) fn holder_of_mac(&self, mac: MacAddr) -> Option<PortIndex> {
        self.macs.get(&mac.0).map(|holding| holding.port)
    }

    /// Assigns its member's addresses to `port`: all of them or, on an error, none.
    pub(super) fn assign(&mut self, port: PortIndex, member: &Member) -> Result<(), MemberError> {
        let plan = self.plan;
        if self.is_virtual_mac(member.mac) {
            return Err(MemberError::Mac(member.mac));
        }
        if self.macs.get(&member.mac.0).is_some_and(|holding| holding.is_assigned) {
            return Err(MemberError::MacTaken(member.mac));
        }
        for address in member.own_addresses(&plan) {
            if self.addresses.get(&address).is_some_and(|holding| holding.is_assigned) {
                return Err(MemberError::AddressTaken(address));
            }
        }
        let holding = Holding { port, is_assigned: true };
        if let Some(old) = self.macs.insert(member.mac.0, holding) {
            self.count(old.port).macs -= 1;
        }
        self.count(port).macs += 1;
        for address in member.own_addresses(&plan) {
            if let Some(old) = self.addresses.insert(address, holding) {
                self.count(old.port).addresses -= 1;
            }
            self.count(port).addresses += 1;
        }
        Ok(())
    }

    /// Releases everything that `port` holds.
    pub(super) fn release(&mut self, port: PortIndex) -> Released {
        let mut released = Released::default();
        self.macs.retain(|&mac, holding| {
            let stays = holding.port != port;
            if !stays {
                released.macs.push(MacAddr(mac));
            }
            stays
        });
        self.addresses.retain(|&address, holding| {
            let stays = holding.port != port;
            if !stays {
                released.addresses.push(address);
            }
            stays
        });
        self.counts.remove(&port);
        released
    }

    /// Makes sure that `port` holds `mac`.
    ///
    /// # Errors
    /// [`DiscardReason::MemberMacForeign`] and [`DiscardReason::MemberAddressesExhausted`].
    pub(super) fn hold_mac(&mut self, port: PortIndex, mac: MacAddr) -> Result<(), DiscardReason> {
        match self.macs.get(&mac.0) {
            Some(holding) if holding.port == port => return Ok(()),
            Some(_) => return Err(DiscardReason::MemberMacForeign),
            None => {}
        }
        if self.is_virtual_mac(mac) || !mac.is_valid_source() {
            return Err(DiscardReason::MemberMacForeign);
        }
        let count = self.count(port);
        if count.macs >= MACS_CAP {
            return Err(DiscardReason::MemberAddressesExhausted);
        }
        count.macs += 1;
        self.macs.insert(mac.0, Holding { port, is_assigned: false });
        Ok(())
    }

    /// Makes sure that `port` holds `address`.
    ///
    /// # Errors
    /// [`DiscardReason::MemberAddressForeign`] and [`DiscardReason::MemberAddressesExhausted`].
    pub(super) fn hold_address(
        &mut self,
        port: PortIndex,
        address: IpAddr,
    ) -> Result<(), DiscardReason> {
        match self.addresses.get(&address) {
            Some(holding) if holding.port == port => return Ok(()),
            Some(_) => return Err(DiscardReason::MemberAddressForeign),
            None => {}
        }
        let is_nobodys = match address {
            IpAddr::V4(_) => self.plan.contains(address),
            IpAddr::V6(_) => self.plan.is_ours(address),
        };
        if is_nobodys {
            return Err(DiscardReason::MemberAddressForeign);
        }
        let count = self.count(port);
        if count.addresses >= ADDRESSES_CAP {
            return Err(DiscardReason::MemberAddressesExhausted);
        }
        count.addresses += 1;
        self.addresses.insert(address, Holding { port, is_assigned: false });
        Ok(())
    }

    fn count(&mut self, port: PortIndex) -> &mut Count {
        self.counts.entry(port).or_default()
    }
}
