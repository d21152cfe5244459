//! Which MAC address a guest address has.
//!
//! Owns a small table of both families. A guest can claim as many addresses as it likes, so the
//! address that was heard of longest ago makes room.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::time::Instant;
use crate::wire::MacAddr;

/// Guest addresses that are remembered (about 64 bytes each; libslirp remembers 16 per family,
/// which networks nested behind the guest outgrow).
pub const NEIGHBORS_CAP: usize = 256;

/// How long an address is used without hearing from its owner before it is asked for again: as long as
/// a neighbour that is spoken to may be silent (RFC 4861 section 10: `DELAY_FIRST_PROBE_TIME`).
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(5);

/// Guest addresses with their MAC addresses.
#[derive(Debug, Default)]
pub struct NeighborTable {
    entries: BTreeMap<IpAddr, Neighbor>,
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
struct Neighbor {
    mac: MacAddr,
    heard: u64,
    /// When it was first used since it was heard of, or asked for since.
    used_at: Option<Instant>,
}

impl NeighborTable {
    /// Remembers that `address` is at `mac`. What can belong to no single guest is ignored.
    pub fn learn(&mut self, address: IpAddr, mac: MacAddr) {
        if !mac.is_valid_source() || !is_single_guest(address) {
            return;
        }
        self.heard += 1;
        let neighbor = Neighbor { mac, heard: self.heard, used_at: None };
        if self.entries.insert(address, neighbor).is_none() && self.entries.len() > NEIGHBORS_CAP {
            let oldest = self.entries.iter().min_by_key(|(_, neighbor)| neighbor.heard);
            if let Some(address) = oldest.map(|(&address, _)| address) {
                self.entries.remove(&address);
            }
        }
    }

    /// Forgets everything for which `is_gone` says so.
    pub fn forget(&mut self, is_gone: impl Fn(IpAddr, MacAddr) -> bool) {
        self.entries.retain(|&address, neighbor| !is_gone(address, neighbor.mac));
    }

    /// Where `address` was last heard.
    pub fn lookup(&self, address: IpAddr) -> Option<MacAddr> {
        self.entries.get(&address).map(|neighbor| neighbor.mac)
    }

    /// Notes that `address` is used. Returns whether its owner is to be asked for again, because nothing
    /// was heard of it for [`DOUBT_INTERVAL`] of use: it may have another MAC address by now.
    pub fn is_doubtful(&mut self, address: IpAddr, now: Instant) -> bool {
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
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no address is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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
    use core::net::Ipv4Addr;

    fn address(index: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + index))
    }

    #[test]
    fn full_table_forgets_what_was_heard_longest_ago() {
        let mut table = NeighborTable::default();
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        for index in 0..256 {
            table.learn(address(index), mac);
        }
        table.learn(address(0), MacAddr([2, 0, 0, 0, 0, 2]));
        table.learn(address(256), mac);
        assert_eq!(table.len(), NEIGHBORS_CAP);
        assert_eq!(table.lookup(address(0)), Some(MacAddr([2, 0, 0, 0, 0, 2])));
        assert_eq!(table.lookup(address(1)), None);
        assert_eq!(table.lookup(address(256)), Some(mac));
    }

    #[test]
    fn impossible_neighbors_are_never_learnt() {
        let mut table = NeighborTable::default();
        for address in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1"] {
            table.learn(address.parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 1]));
        }
        table.learn(address(1), MacAddr::BROADCAST);
        table.learn(address(1), MacAddr([0; 6]));
        assert!(table.is_empty());
    }
}
