//! The addresses of the pool and the clients that have them.
//!
//! Owns one slot per address. A client is known by its hardware address and has at most one slot.
//! It keeps the slot for as long as others are free: a guest that sleeps for days finds its address
//! again, as with slirp4netns. In a full pool a new client gets the address that was offered
//! longest ago and never requested, or else the one whose lease expired first. The pool is also the
//! bound: a guest that invents hardware addresses fills its own pool, and only that guest is
//! refused then.

use core::net::Ipv4Addr;
use core::time::Duration;

use super::LEASE_SECONDS;
use crate::mac::MacAddr;
use crate::plan::{Family, POOL_CAP};
use crate::time::Instant;

/// The slots of the pool.
#[derive(Debug)]
pub(super) struct LeasePool {
    begin: Ipv4Addr,
    /// One for each address (24 bytes).
    slots: Vec<Option<Lease>>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    client: MacAddr,
    /// Whether the client has requested what it was offered; if not, the address is merely offered.
    is_taken: bool,
    /// When it was offered or leased last.
    since: Instant,
}

impl Lease {
    fn is_over(&self, now: Instant) -> bool {
        self.is_taken && now >= self.since + Duration::from_secs(LEASE_SECONDS.into())
    }

    /// Whether another client may have the address when it is needed.
    fn is_spare(&self, now: Instant) -> bool {
        !self.is_taken || self.is_over(now)
    }
}

impl LeasePool {
    /// The pool of the plan's IPv4 side; empty without one.
    pub(super) fn new(plan: Option<&Family<Ipv4Addr>>) -> Self {
        let Some((begin, last)) = plan.map(Family::leases) else {
            return Self { begin: Ipv4Addr::UNSPECIFIED, slots: Vec::new() };
        };
        let len = last.to_bits().saturating_sub(begin.to_bits()) as usize + 1;
        Self { begin, slots: vec![None; len.min(POOL_CAP)] }
    }

    /// Gives `wanted` to `client`, which gives back the address that it had. Fails when `wanted`
    /// lies outside the pool or another client has it. It is merely offered unless it `is_taken`.
    pub(super) fn try_claim(
        &mut self,
        client: MacAddr,
        wanted: Ipv4Addr,
        is_taken: bool,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        let offset = wanted.to_bits().checked_sub(self.begin.to_bits())?;
        let slot = usize::try_from(offset).ok()?;
        let owner = *self.slots.get(slot)?;
        if owner.is_some_and(|owner| owner.client != client && !owner.is_over(now)) {
            return None;
        }
        for other in &mut self.slots {
            if other.is_some_and(|other| other.client == client) {
                *other = None;
            }
        }
        // A client that holds a lease and asks for an offer keeps the lease.
        let own = owner.filter(|owner| owner.client == client && !is_taken);
        self.slots[slot] = own.or(Some(Lease { client, is_taken, since: now }));
        Some(wanted)
    }

    /// The address that `client` has, or else the first free one, or else one that can be spared.
    /// Fails when there is none.
    pub(super) fn try_allocate(
        &mut self,
        client: MacAddr,
        is_taken: bool,
        now: Instant,
    ) -> Option<Ipv4Addr> {
        let slots = self.slots.iter();
        let own = slots.clone().position(|slot| slot.is_some_and(|lease| lease.client == client));
        let spare = || {
            let leases = slots.clone().enumerate().filter_map(|(at, slot)| Some((at, (*slot)?)));
            let spare = leases.filter(|(_, lease)| lease.is_spare(now));
            spare.min_by_key(|(_, lease)| (lease.is_taken, lease.since)).map(|(at, _)| at)
        };
        let slot = own.or_else(|| slots.clone().position(Option::is_none)).or_else(spare)?;
        let address = Ipv4Addr::from_bits(self.begin.to_bits() + u32::try_from(slot).ok()?);
        if own.is_none() {
            self.slots[slot] = None;
        }
        self.try_claim(client, address, is_taken, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::AddressPlan;

    const NOW: Instant = Instant::ZERO;

    const fn client(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, last])
    }

    const fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 2, last)
    }

    fn pool() -> LeasePool {
        LeasePool::new(AddressPlan::default().ipv4())
    }

    #[test]
    fn pool_is_exactly_that_of_the_plan() {
        assert_eq!(pool().slots.len(), 16);
        for (wanted, expected) in
            [(14, None), (15, Some(15)), (30, Some(30)), (31, None), (0, None), (100, None)]
        {
            let claimed = pool().try_claim(client(1), address(wanted), true, NOW);
            assert_eq!(claimed, expected.map(address), "{wanted}");
        }
    }

    #[test]
    fn full_pool_keeps_its_clients_and_takes_no_other() {
        let mut pool = pool();
        for last in 0..16 {
            let given = pool.try_allocate(client(last), true, NOW);
            assert_eq!(given, Some(address(15 + last)));
        }
        // Not even when they look for an address once more.
        assert_eq!(pool.try_allocate(client(3), false, NOW), Some(address(18)));
        assert_eq!(pool.try_allocate(client(16), true, NOW), None);
        assert_eq!(pool.try_claim(client(16), address(15), true, NOW), None);
        assert_eq!(pool.try_allocate(client(7), true, NOW), Some(address(22)));
    }

    #[test]
    fn newcomer_to_a_full_pool_gets_what_was_offered_in_vain_or_has_run_out() {
        let mut pool = pool();
        let at = |seconds: u64| NOW + Duration::from_secs(seconds);
        for last in 0..16 {
            let is_taken = !matches!(last, 5 | 9);
            pool.try_allocate(client(last), is_taken, at(u64::from(16 - last)));
        }
        assert_eq!(pool.try_allocate(client(20), true, at(20)), Some(address(24)));
        assert_eq!(pool.try_allocate(client(21), true, at(20)), Some(address(20)));
        assert_eq!(pool.try_allocate(client(22), true, at(20)), None);
        // The client that was too late is told so, and looks for another.
        assert_eq!(pool.try_claim(client(9), address(24), true, at(20)), None);
        let expired = u64::from(LEASE_SECONDS) + 2;
        pool.try_claim(client(15), address(30), true, at(expired));
        assert_eq!(pool.try_claim(client(22), address(29), true, at(expired)), Some(address(29)));
        assert_eq!(pool.try_allocate(client(23), true, at(expired)), None);
        assert_eq!(pool.try_allocate(client(23), true, at(expired + 1)), Some(address(28)));
    }

    #[test]
    fn client_that_moves_gives_its_address_back() {
        let mut pool = pool();
        pool.try_allocate(client(1), true, NOW);
        assert_eq!(pool.try_claim(client(1), address(20), true, NOW), Some(address(20)));
        assert_eq!(pool.try_allocate(client(2), true, NOW), Some(address(15)));
        assert_eq!(pool.try_claim(client(2), address(20), true, NOW), None);
        assert_eq!(pool.try_allocate(client(1), true, NOW), Some(address(20)));
    }
}
