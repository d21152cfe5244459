//! Addresses that stand for names that are asked about.
//!
//! Owns which address stands for which name, so that nothing about a name leaves before somebody
//! has allowed it: the lookup is answered with the placeholder, and a flow to the placeholder opens
//! the question. Also keeps where an allowed name led last, so that not every flow has to look it
//! up again.
//!
//! A name keeps its placeholder while it is in the table. In a full table the name that was used
//! longest ago goes, unless it is in use: while a connection to it is open, and [`USED_FOR`] after
//! the last use. Addresses are handed out in turn, so that one comes back to another name as late
//! as possible.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::collections::{BTreeSet, HashMap};

use foldhash::quality::FixedState;

use super::name::Name;
use super::rule::Prefix;
use super::sets::contains;
use crate::time::Instant;

/// How long a placeholder is in use after its last flow or datagram: as long as a UDP mapping is.
const USED_FOR: Duration = Duration::from_secs(300);
/// Placeholders that are looked at for one to let go (arbitrary: more than connections can wait).
/// Where all of these are in use, the name gets none.
const LOOKED_AT_CAP: usize = 512;

/// Where placeholders lie if the policy does not say: in the first of these networks, all /18, in
/// which the guest has no address. They are parts of those for benchmarks (RFC 2544) and of that
/// for carriers (RFC 6598).
const NETWORKS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 19, 192, 0), Ipv4Addr::new(198, 18, 0, 0), Ipv4Addr::new(100, 127, 192, 0)];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Placeholders {
    network: Prefix,
    cap: usize,
    by_name: HashMap<Name, Ipv4Addr, FixedState>,
    by_address: HashMap<Ipv4Addr, Standing, FixedState>,
    /// All placeholders, the one that was used longest ago first.
    order: BTreeSet<(u64, Ipv4Addr)>,
    /// Counts the uses.
    uses: u64,
    /// Where the search for a free address begins.
    next: u32,
}

/// A name that an address stands for.
#[derive(Debug)]
struct Standing {
    name: Name,
    /// Connections to it.
    open: u32,
    used_until: Instant,
    /// Its place in the order.
    used: u64,
    /// Where the name led, and until when that is believed.
    found: Option<(Vec<IpAddr>, Instant)>,
}

impl Placeholders {
    /// No placeholders, and never more than `cap`, out of the network that the policy `wants` or
    /// one of [`NETWORKS`], for a guest that has the addresses `taken`.
    pub(super) fn beside(taken: &[Prefix], wants: Option<Prefix>, cap: usize, seed: u64) -> Self {
        let overlap = |a: Prefix, b: Prefix| contains(a, b.address) || contains(b, a.address);
        let is_free = |&network: &Prefix| !taken.iter().any(|&taken| overlap(taken, network));
        let usual = NETWORKS.map(|address| Prefix { address: address.into(), len: 18 });
        match wants.into_iter().chain(usual).find(is_free) {
            Some(network) => Self::new(network, cap, seed),
            // The guest has addresses everywhere: no name gets a placeholder.
            None => Self::new(usual[0], 0, seed),
        }
    }

    /// No placeholders, and never more than `cap`, out of `network`.
    fn new(network: Prefix, cap: usize, seed: u64) -> Self {
        Self {
            network,
            cap,
            by_name: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_address: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: BTreeSet::new(),
            uses: 0,
            next: 0,
        }
    }

    pub(super) const fn network(&self) -> Prefix {
        self.network
    }

    /// Whether `address` is a placeholder or could be one.
    pub(super) fn may_be(&self, address: IpAddr) -> bool {
        contains(self.network, address)
    }

    /// The name that `address` stands for.
    pub(super) fn name(&self, address: IpAddr) -> Option<&Name> {
        self.standing(address).map(|standing| &standing.name)
    }

    /// The address that stands for `name`. `None` if all are in use.
    pub(super) fn address(&mut self, name: &Name, now: Instant) -> Option<Ipv4Addr> {
        if let Some(&address) = self.by_name.get(name) {
            self.touch(address);
            return Some(address);
        }
        // The first and the last address of a network are not those of a host.
        let size = 1_u32 << (32 - u32::from(self.network.len)).min(24);
        let usable = size - 2;
        let cap = self.cap.min(usize::try_from(usable).unwrap_or(usize::MAX));
        if self.by_name.len() >= cap {
            self.release_one(now)?;
        }
        let IpAddr::V4(base) = self.network.address else { return None };
        let address = loop {
            let address = Ipv4Addr::from_bits(base.to_bits() + 1 + self.next);
            self.next = (self.next + 1) % usable;
            if !self.by_address.contains_key(&address) {
                break address;
            }
        };
        let (open, used_until, used, found) = (0, Instant::ZERO, self.uses, None);
        let standing = Standing { name: name.clone(), open, used_until, used, found };
        self.by_address.insert(address, standing);
        self.by_name.insert(name.clone(), address);
        self.order.insert((used, address));
        self.uses += 1;
        Some(address)
    }

    /// Lets the placeholder go that was used longest ago. Those in use move back in the order, so
    /// that they are not looked at again and again.
    fn release_one(&mut self, now: Instant) -> Option<()> {
        for _ in 0..LOOKED_AT_CAP {
            let &(_, address) = self.order.first()?;
            let standing = self.by_address.get(&address)?;
            if standing.open == 0 && standing.used_until <= now {
                self.order.remove(&(standing.used, address));
                self.by_name.remove(&standing.name);
                self.by_address.remove(&address);
                return Some(());
            }
            self.touch(address);
        }
        None
    }

    fn touch(&mut self, address: Ipv4Addr) {
        if let Some(standing) = self.by_address.get_mut(&address) {
            self.order.remove(&(standing.used, address));
            standing.used = self.uses;
            self.order.insert((standing.used, address));
            self.uses += 1;
        }
    }

    fn standing(&self, address: IpAddr) -> Option<&Standing> {
        let IpAddr::V4(address) = address else { return None };
        self.by_address.get(&address)
    }

    fn standing_mut(&mut self, address: IpAddr) -> Option<&mut Standing> {
        let IpAddr::V4(address) = address else { return None };
        self.by_address.get_mut(&address)
    }

    /// A connection to `address` was opened.
    pub(super) fn open(&mut self, address: IpAddr) {
        if let Some(standing) = self.standing_mut(address) {
            standing.open = standing.open.saturating_add(1);
        }
        self.touch_any(address);
    }

    /// A connection to `address` has closed.
    pub(super) fn close(&mut self, address: IpAddr, now: Instant) {
        if let Some(standing) = self.standing_mut(address) {
            standing.open = standing.open.saturating_sub(1);
            standing.used_until = now + USED_FOR;
        }
    }

    /// A datagram goes to `address`.
    pub(super) fn note_datagram(&mut self, address: IpAddr, now: Instant) {
        if let Some(standing) = self.standing_mut(address) {
            standing.used_until = now + USED_FOR;
        }
    }

    fn touch_any(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.touch(address);
        }
    }

    /// Where the name of a placeholder was found to lead.
    pub(super) fn found(&self, name: &Name, now: Instant) -> Option<&[IpAddr]> {
        let standing = self.by_address.get(self.by_name.get(name)?)?;
        let (addresses, until) = standing.found.as_ref()?;
        (now < *until).then_some(&addresses[..])
    }

    /// A name has been found to lead to `addresses`.
    pub(super) fn note_found(&mut self, name: &Name, addresses: Vec<IpAddr>, until: Instant) {
        if let Some(address) = self.by_name.get(name)
            && let Some(standing) = self.by_address.get_mut(address)
        {
            standing.found = Some((addresses, until));
        }
    }

    /// Forgets where names have led.
    pub(super) fn forget_found(&mut self) {
        self.by_address.values_mut().for_each(|standing| standing.found = None);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn network(len: u8) -> Prefix {
        Prefix { address: [198, 19, 192, 0].into(), len }
    }

    fn table(len: u8, cap: usize) -> Placeholders {
        Placeholders::new(network(len), cap, 7)
    }

    fn name(number: usize) -> Name {
        Name::new(&format!("n{number}.example")).unwrap()
    }

    #[test]
    fn name_keeps_its_address_and_the_address_leads_to_it_alone() {
        let mut table = table(18, 4096);
        let first = table.address(&name(1), NOW).unwrap();
        let second = table.address(&name(2), NOW).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.address(&name(1), NOW), Some(first));
        assert_eq!(table.name(first.into()), Some(&name(1)));
        let guessed = IpAddr::from([198, 19, 200, 200]);
        assert!(table.may_be(guessed) && table.name(guessed).is_none());
        assert!(!table.may_be([198, 19, 191, 255].into()));
    }

    #[test]
    fn least_recently_used_goes_and_its_address_comes_back_late() {
        let mut table = table(18, 4);
        let addresses: Vec<_> =
            (0..4).map(|number| table.address(&name(number), NOW).unwrap()).collect();
        table.address(&name(0), NOW).unwrap();
        let new = table.address(&name(4), NOW).unwrap();
        assert!(!addresses.contains(&new));
        assert_eq!(table.name(addresses[1].into()), None);
        assert_eq!(table.name(addresses[0].into()), Some(&name(0)));
        assert_eq!((table.by_name.len(), table.order.len(), table.by_address.len()), (4, 4, 4));
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut table = table(18, 2);
        let (one, two) = (table.address(&name(1), NOW), table.address(&name(2), NOW));
        let (one, two) = (IpAddr::from(one.unwrap()), IpAddr::from(two.unwrap()));
        table.open(one);
        table.note_datagram(two, NOW);
        assert_eq!(table.address(&name(3), NOW), None, "both are in use");
        let later = NOW + USED_FOR;
        assert!(table.address(&name(3), later).is_some());
        assert_eq!((table.name(one), table.name(two)), (Some(&name(1)), None));
        table.close(one, later);
        assert!(table.address(&name(4), later).is_some());
        assert_eq!(table.name(one), Some(&name(1)), "it was open just now");
        assert!(table.address(&name(5), later + USED_FOR).is_some());
    }

    #[test]
    fn those_in_use_are_not_in_the_way_of_others() {
        let mut table = table(18, 1024);
        for number in 0..1024 {
            let address = table.address(&name(number), NOW).unwrap();
            if number < 300 {
                table.open(address.into());
            }
        }
        for number in 1024..5000 {
            assert!(table.address(&name(number), NOW).is_some(), "{number}");
        }
    }

    #[test]
    fn small_networks_have_as_many_as_they_have_hosts() {
        let mut table = table(30, 4096);
        let all: BTreeSet<_> =
            (0..20).map(|number| table.address(&name(number), NOW).unwrap()).collect();
        let expected = [Ipv4Addr::new(198, 19, 192, 1), Ipv4Addr::new(198, 19, 192, 2)];
        assert!(all.iter().eq(&expected), "{all:?}");
        assert_eq!(table.by_name.len(), 2);
    }

    #[test]
    fn where_a_name_led_is_believed_for_a_time() {
        let mut table = table(18, 4096);
        let until = NOW + Duration::from_secs(5);
        let addresses = vec![IpAddr::from([203, 0, 113, 7])];
        table.note_found(&name(1), addresses.clone(), until);
        assert_eq!(table.found(&name(1), NOW), None, "it has no placeholder");
        table.address(&name(1), NOW).unwrap();
        table.note_found(&name(1), addresses.clone(), until);
        assert_eq!(table.found(&name(1), NOW), Some(&addresses[..]));
        assert_eq!(table.found(&name(1), until), None);
        table.forget_found();
        assert_eq!(table.found(&name(1), NOW), None);
    }

    proptest! {
        #[test]
        fn each_address_stands_for_one_name_and_the_cap_holds(
            steps in prop::collection::vec((0_u8..4, 0_usize..64), 0..400),
        ) {
            const CAP: usize = 16;
            let mut table = table(27, CAP);
            let (mut now, mut open) = (NOW, Vec::new());
            for (step, number) in steps {
                match step {
                    0 | 1 => {
                        if let Some(address) = table.address(&name(number), now) {
                            prop_assert_eq!(table.name(address.into()), Some(&name(number)));
                            if step == 1 {
                                table.open(address.into());
                                open.push((name(number), IpAddr::from(address)));
                            }
                        }
                    }
                    2 => {
                        if let Some((_, address)) = open.pop() {
                            table.close(address, now);
                        }
                    }
                    _ => now = now + Duration::from_secs(100),
                }
                prop_assert!(table.by_name.len() <= CAP);
                prop_assert_eq!(table.by_name.len(), table.by_address.len());
                prop_assert_eq!(table.by_name.len(), table.order.len());
                for (name, address) in &open {
                    prop_assert_eq!(table.name(*address), Some(name), "it is in use");
                }
                let is_mutual = table.by_name.iter().all(|(name, address)| {
                    table.by_address.get(address).is_some_and(|standing| standing.name == *name)
                });
                prop_assert!(is_mutual);
            }
        }
    }
}
