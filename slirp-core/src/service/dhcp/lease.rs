//! The addresses of the pool and who has them.
//!
//! Owns one slot per address. A client is known by its hardware address and has at most one slot;
//! slots are never taken back, as in slirp4netns: a guest that sleeps for days finds its address
//! again. That is also the bound: a guest that invents hardware addresses fills its own pool, and
//! only it is refused then.

use core::net::Ipv4Addr;

use crate::plan::AddressPlan;
use crate::wire::MacAddr;

/// Addresses in the pool: `.15` to `.30` (8 bytes each).
pub const POOL_LEN: usize = 16;

/// Who has which address.
#[derive(Debug)]
pub(super) struct LeasePool {
    begin: Ipv4Addr,
    clients: [Option<MacAddr>; POOL_LEN],
}

impl LeasePool {
    pub(super) const fn new(plan: &AddressPlan) -> Self {
        Self { begin: plan.dhcp_begin(), clients: [None; POOL_LEN] }
    }

    /// The address that `client` has.
    pub(super) fn lookup(&self, client: MacAddr) -> Option<Ipv4Addr> {
        let slot = self.clients.iter().position(|&owner| owner == Some(client))?;
        self.address(slot)
    }

    /// Gives `wanted` to `client`, who gives back what it had; fails when it lies outside the pool
    /// or is somebody else's.
    pub(super) fn try_claim(&mut self, client: MacAddr, wanted: Ipv4Addr) -> Option<Ipv4Addr> {
        let offset = wanted.to_bits().checked_sub(self.begin.to_bits())?;
        let slot = usize::try_from(offset).ok()?;
        let owner = *self.clients.get(slot)?;
        if owner.is_some_and(|owner| owner != client) {
            return None;
        }
        for slot in &mut self.clients {
            if *slot == Some(client) {
                *slot = None;
            }
        }
        self.clients[slot] = Some(client);
        Some(wanted)
    }

    /// The address that `client` has or else the first that nobody has; fails when there is none.
    pub(super) fn try_allocate(&mut self, client: MacAddr) -> Option<Ipv4Addr> {
        if let Some(address) = self.lookup(client) {
            return Some(address);
        }
        let slot = self.clients.iter().position(Option::is_none)?;
        self.clients[slot] = Some(client);
        self.address(slot)
    }

    fn address(&self, slot: usize) -> Option<Ipv4Addr> {
        let offset = u32::try_from(slot).ok()?;
        Some(Ipv4Addr::from_bits(self.begin.to_bits() + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn client(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    const fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    fn pool() -> LeasePool {
        LeasePool::new(&AddressPlan::default())
    }

    #[test]
    fn pool_is_exactly_that_of_the_plan() {
        let plan = AddressPlan::default();
        let len = plan.dhcp_end().to_bits() - plan.dhcp_begin().to_bits() + 1;
        assert_eq!(usize::try_from(len).unwrap(), POOL_LEN);
        for (wanted, expected) in
            [(14, None), (15, Some(15)), (30, Some(30)), (31, None), (0, None), (100, None)]
        {
            let claimed = pool().try_claim(client(1), address(wanted));
            assert_eq!(claimed, expected.map(address), "{wanted}");
        }
    }

    #[test]
    fn full_pool_keeps_its_clients_and_takes_no_other() {
        let mut pool = pool();
        for last in 0..16 {
            assert_eq!(pool.try_allocate(client(last)), Some(address(15 + last)));
        }
        assert_eq!(pool.try_allocate(client(16)), None);
        assert_eq!(pool.try_claim(client(16), address(15)), None);
        assert_eq!(pool.try_allocate(client(7)), Some(address(22)));
    }

    #[test]
    fn client_that_moves_gives_its_address_back() {
        let mut pool = pool();
        pool.try_allocate(client(1));
        assert_eq!(pool.try_claim(client(1), address(20)), Some(address(20)));
        assert_eq!(pool.lookup(client(1)), Some(address(20)));
        assert_eq!(pool.try_allocate(client(2)), Some(address(15)));
        assert_eq!(pool.try_claim(client(2), address(20)), None);
        assert_eq!(pool.lookup(client(2)), Some(address(15)));
    }
}
