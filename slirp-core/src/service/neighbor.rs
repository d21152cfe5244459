//! Which MAC address a guest address has.
//!
//! Owns a table of both families. A guest can claim any number of addresses, so a full table evicts
//! the address that was heard longest ago. On a shared network it evicts from the member at its cap
//! of a quarter of the table, or from the member with most entries.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::mac::MacAddr;
use crate::share::{Holder, Shares};
use crate::time::Instant;

/// Guest addresses that are remembered: those of all members of a network
/// ([`MEMBERS_CAP`](crate::member::MEMBERS_CAP)) in both families, and as many of networks nested
/// behind guests (about 130 bytes each).
pub(crate) const NEIGHBORS_CAP: usize = 1_024;

/// How long an address is used, without a sign of its owner, before the owner is asked again: the
/// time for which an active neighbour may be silent (RFC 4861 section 10:
/// `DELAY_FIRST_PROBE_TIME`).
pub(crate) const DOUBT_INTERVAL: Duration = Duration::from_secs(5);

/// Guest addresses with their MAC addresses.
#[derive(Debug)]
pub(crate) struct NeighborTable {
    entries: BTreeMap<IpAddr, Neighbor>,
    /// The addresses of each holder, the one that was heard longest ago first.
    by_age: BTreeMap<(Holder, u64), IpAddr>,
    shares: Shares,
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    mac: MacAddr,
    holder: Holder,
    heard: u64,
    /// When it was first used since it was heard of, or asked for since.
    used_at: Option<Instant>,
}

impl NeighborTable {
    /// An empty table. If the network `is_shared`, each member has its share of it.
    pub(crate) fn new(is_shared: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_age: BTreeMap::new(),
            shares: Shares::new(NEIGHBORS_CAP, is_shared),
            heard: 0,
        }
    }

    /// Remembers that `holder`'s `address` is at `mac`. Addresses that no single guest can have are
    /// ignored.
    pub(crate) fn learn(&mut self, address: IpAddr, mac: MacAddr, holder: Holder) {
        if !mac.is_valid_source() || !is_single_guest(address) {
            return;
        }
        if let Some(latest) = self.entries.get_mut(&address)
            && (latest.heard, latest.holder) == (self.heard, holder)
        {
            // No other was heard since: it is the youngest already.
            (latest.mac, latest.used_at) = (mac, None);
            return;
        }
        self.remove(address);
        if let Some(crowder) = self.shares.crowded_by(holder, 1)
            && let Some((_, &oldest)) = self.by_age.range((crowder, 0)..).next()
        {
            self.remove(oldest);
        }
        self.heard += 1;
        self.entries.insert(address, Neighbor { mac, holder, heard: self.heard, used_at: None });
        self.by_age.insert((holder, self.heard), address);
        self.shares.add(holder, 1);
    }

    /// Forgets every address for which `is_gone` holds.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(IpAddr, MacAddr) -> bool) {
        let is_gone = |&(&address, neighbor): &(&IpAddr, &Neighbor)| is_gone(address, neighbor.mac);
        let gone: Vec<_> =
            self.entries.iter().filter(is_gone).map(|(&address, _)| address).collect();
        for address in gone {
            self.remove(address);
        }
    }

    /// The MAC address that `address` was last heard from.
    pub(crate) fn lookup(&self, address: IpAddr) -> Option<MacAddr> {
        self.entries.get(&address).map(|neighbor| neighbor.mac)
    }

    /// Notes that `address` is used. Returns whether its owner is to be asked again: it was used
    /// for [`DOUBT_INTERVAL`] without a sign of the owner, which may have another MAC address by
    /// now.
    pub(crate) fn is_doubtful(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(neighbor) = self.entries.get_mut(&address) else {
            return false;
        };
        let used_at = *neighbor.used_at.get_or_insert(now);
        let is_doubtful = now.saturating_since(used_at) >= DOUBT_INTERVAL;
        if is_doubtful {
            neighbor.used_at = Some(now);
        }
        is_doubtful
    }

    /// How many addresses are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no address is remembered.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, address: IpAddr) {
        if let Some(Neighbor { holder, heard, .. }) = self.entries.remove(&address) {
            self.by_age.remove(&(holder, heard));
            self.shares.remove(holder, 1);
        }
    }
}

/// Whether one guest can have `address`: neither unspecified, loopback, group nor broadcast.
pub(super) fn is_single_guest(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !is_broadcast
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::{MEMBERS_CAP, MemberId};
    use core::net::Ipv4Addr;

    fn address(index: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + index))
    }

    #[test]
    fn full_table_forgets_what_was_heard_longest_ago() {
        let mut table = NeighborTable::new(false);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        for index in 0..1_024 {
            table.learn(address(index), mac, None);
        }
        table.learn(address(0), MacAddr([2, 0, 0, 0, 0, 2]), None);
        table.learn(address(1_024), mac, None);
        assert_eq!(table.len(), NEIGHBORS_CAP);
        assert_eq!(table.lookup(address(0)), Some(MacAddr([2, 0, 0, 0, 0, 2])));
        assert_eq!(table.lookup(address(1)), None);
        assert_eq!(table.lookup(address(1_024)), Some(mac));
    }

    #[test]
    fn member_with_many_addresses_pushes_out_its_own() {
        let mut table = NeighborTable::new(true);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let holder = |id| Some(MemberId(id));
        let members = u32::try_from(MEMBERS_CAP).unwrap();
        for member in 0..members {
            table.learn(address(member), mac, holder(u64::from(member)));
        }
        for index in 1_000..10_000 {
            table.learn(address(index), mac, holder(7));
        }
        assert_eq!(table.len(), MEMBERS_CAP - 1 + NEIGHBORS_CAP / 4);
        for member in (0..members).filter(|&member| member != 7) {
            assert!(table.lookup(address(member)).is_some(), "{member}");
        }
        // Once members fill the table between them, those with most make room for the others.
        for index in 10_000..20_000 {
            table.learn(address(index), mac, holder(8 + u64::from(index) % 5));
        }
        assert_eq!(table.len(), NEIGHBORS_CAP);
        assert!(table.lookup(address(200)).is_some());
        table.forget(|_, _| true);
        assert!(table.is_empty() && table.by_age.is_empty() && table.shares.total() == 0);
    }

    #[test]
    fn impossible_neighbors_are_never_learnt() {
        let mut table = NeighborTable::new(false);
        for address in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1"] {
            table.learn(address.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]), None);
        }
        table.learn(address(1), MacAddr::BROADCAST, None);
        table.learn(address(1), MacAddr([0; 6]), None);
        assert!(table.is_empty());
    }
}
