//! One IP version of an address plan.
//!
//! Owns the data ([`Family`]), what can be wrong with it, and the look-up of an address, which
//! compares it with a few entries and allocates nothing: it happens for every packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{PlanError, interface_identifier};
use crate::mac::MacAddr;

/// Addresses with a meaning in one family (router, host's loopback, this host and resolver, of
/// which two have a link-local address as well in IPv6).
pub(super) const MEANINGS_CAP: usize = 6;
/// Further addresses of the guest that a family lists (arbitrary: 17 bytes each in IPv6, and a host
/// with an address for each of its services has dozens).
pub const OTHER_GUESTS_CAP: usize = 63;
/// Addresses that DHCP hands out at most (those of slirp4netns, `.15` to `.30`).
pub(crate) const POOL_CAP: usize = 16;

/// What an address stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Meaning<A> {
    /// A router and nothing more: what is sent to it goes to that address on the host's side too.
    Router,
    /// The host's loopback of the same IP version.
    HostLoopback,
    /// This host under that address, which the guest has itself or cannot reach otherwise.
    HostItself(A),
    /// The resolver, on its own port. Its address may have another meaning for the other ports.
    Resolver,
    /// The resolver on its own port, and on port 853 (DNS over TLS) this address, if there is one.
    /// The other ports are those of the address as the guest wrote it, unless it has another
    /// meaning for them.
    Forwarder(Option<A>),
}

/// What the addresses of the guest's network stand for that have no meaning of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Unlisted {
    /// Themselves: the host side uses the address that the guest wrote.
    #[default]
    AsWritten,
    /// The host's loopback, as libslirp has it in IPv6.
    HostLoopback,
}

/// The addresses of one IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family<A> {
    /// The guest's own address.
    pub guest: A,
    /// Whether the guest may take another address, to which rules for `guest` lead from then on.
    pub may_move: bool,
    /// Other addresses that the guest has; see [`with_others`](Self::with_others).
    pub others: Others<A>,
    /// Length of the prefix of the guest's network in bits, 0..=32 or 0..=128.
    pub prefix_len: u8,
    /// The guest's default gateway. It may lie outside the guest's network. It needs a meaning.
    pub gateway: Option<A>,
    /// Our link-local address, source of router advertisements (IPv6). It needs a meaning.
    pub link_local: Option<A>,
    /// First and last address that DHCP hands out; `None` for the guest's address alone.
    pub pool: Option<(A, A)>,
    /// What the other addresses of the guest's network stand for.
    pub unlisted: Unlisted,
    /// Which addresses mean something; see [`with_meanings`](Self::with_meanings).
    pub meanings: Meanings<A>,
}

/// A short list of further addresses of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Others<A>([Option<A>; OTHER_GUESTS_CAP]);

/// A short list of addresses and what they mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meanings<A>([Option<(A, Meaning<A>)>; MEANINGS_CAP]);

impl<A> Meaning<A> {
    const fn is_resolver(&self) -> bool {
        match self {
            Self::Resolver | Self::Forwarder(_) => true,
            Self::Router | Self::HostLoopback | Self::HostItself(_) => false,
        }
    }
}

impl<A: Copy + PartialEq> Family<A> {
    /// A guest at `guest` in a network with a prefix of `prefix_len` bits, in which nothing else
    /// has a meaning.
    pub const fn new(guest: A, prefix_len: u8) -> Self {
        Self {
            guest,
            may_move: false,
            others: Others([None; OTHER_GUESTS_CAP]),
            prefix_len,
            gateway: None,
            link_local: None,
            pool: None,
            unlisted: Unlisted::AsWritten,
            meanings: Meanings([None; MEANINGS_CAP]),
        }
    }

    /// The same with a guest that has these addresses too, as far as there is room for them.
    #[must_use]
    pub fn with_others(mut self, others: &[A]) -> Self {
        self.others = Others([None; OTHER_GUESTS_CAP]);
        for (place, &other) in self.others.0.iter_mut().zip(others) {
            *place = Some(other);
        }
        self
    }

    /// Whether the plan gives `address` to the guest.
    pub(crate) fn is_guests(&self, address: A) -> bool {
        // They are listed from the front on.
        let mut others = self.others.0.iter().map_while(|other| *other);
        self.guest == address || others.any(|other| other == address)
    }

    /// The same with these meanings. For the translation to the guest, the first address with a
    /// meaning counts.
    ///
    /// # Errors
    /// [`PlanError::TooManyMeanings`].
    pub fn with_meanings(mut self, meanings: &[(A, Meaning<A>)]) -> Result<Self, PlanError> {
        self.meanings = Meanings([None; MEANINGS_CAP]);
        let places = self.meanings.0.get_mut(..meanings.len());
        let places = places.ok_or(PlanError::TooManyMeanings)?;
        for (place, &meaning) in places.iter_mut().zip(meanings) {
            *place = Some(meaning);
        }
        Ok(self)
    }

    /// The same with the meanings in `list`, which fit.
    pub(super) const fn listing(mut self, list: [Option<(A, Meaning<A>)>; 4]) -> Self {
        let [a, b, c, d] = list;
        self.meanings = Meanings([a, b, c, d, None, None]);
        self
    }

    /// Every address with a meaning, in order.
    pub fn list(&self) -> impl Iterator<Item = (A, Meaning<A>)> {
        self.entries().copied()
    }

    /// The list in place, for look-ups.
    fn entries(&self) -> impl Iterator<Item = &(A, Meaning<A>)> {
        self.meanings.0.iter().map_while(Option::as_ref)
    }

    /// What `address` stands for, at most two meanings.
    pub fn meanings_of(&self, address: A) -> impl Iterator<Item = Meaning<A>> {
        self.entries().filter(move |(ours, _)| *ours == address).map(|&(_, meaning)| meaning)
    }

    /// The first address with this `meaning`.
    pub fn address_of(&self, meaning: Meaning<A>) -> Option<A> {
        self.list().find(|&(_, listed)| listed == meaning).map(|(address, _)| address)
    }

    /// Whether an address of the guest's network stands for the host's loopback.
    #[cfg(feature = "host")]
    pub(super) fn leads_to_loopback(&self) -> bool {
        self.unlisted == Unlisted::HostLoopback || self.address_of(Meaning::HostLoopback).is_some()
    }

    /// The first address of the resolver.
    pub(crate) fn resolver(&self) -> Option<A> {
        self.list().find(|(_, meaning)| meaning.is_resolver()).map(|(address, _)| address)
    }

    /// Whether `address` has a meaning.
    pub(crate) fn is_ours(&self, address: A) -> bool {
        self.entries().any(|(ours, _)| *ours == address)
    }

    pub(super) fn renames_host(&self) -> bool {
        self.host_itself().is_some()
    }

    /// The address of the host that another one stands for.
    pub(super) fn host_itself(&self) -> Option<A> {
        self.list().find_map(|(_, meaning)| match meaning {
            Meaning::HostItself(host) => Some(host),
            Meaning::Router | Meaning::HostLoopback | Meaning::Resolver | Meaning::Forwarder(_) => {
                None
            }
        })
    }

    pub(super) fn stands_for_another(&self, address: A) -> bool {
        self.meanings_of(address).any(|meaning| match meaning {
            Meaning::HostLoopback | Meaning::HostItself(_) | Meaning::Resolver => true,
            Meaning::Router | Meaning::Forwarder(_) => false,
        })
    }

    /// The address that stands for us as a router.
    pub(crate) const fn stand_in(&self) -> Option<A> {
        match self.gateway {
            Some(gateway) => Some(gateway),
            None => self.link_local,
        }
    }

    fn check(&self, longest: u8) -> Result<(), PlanError>
    where
        A: Into<IpAddr>,
    {
        let guest = self.guest.into();
        if self.prefix_len > longest {
            return Err(PlanError::PrefixTooLong { guest, given: self.prefix_len, longest });
        }
        let unicast = |address: A| match is_unicast(address.into()) {
            true => Ok(()),
            false => Err(PlanError::NotUnicast(address.into())),
        };
        unicast(self.guest)?;
        for (index, (address, meaning)) in self.list().enumerate() {
            unicast(address)?;
            if let Meaning::HostItself(host) = meaning {
                unicast(host)?;
            }
            if let Meaning::Forwarder(Some(secure)) = meaning
                && !can_be_resolver(secure.into())
            {
                return Err(PlanError::NotUnicast(secure.into()));
            }
            if self.is_guests(address) {
                return Err(PlanError::GuestHasMeaning(address.into()));
            }
            let contradicts = |(other, listed): (A, Meaning<A>)| {
                other == address && listed.is_resolver() == meaning.is_resolver()
            };
            if self.list().take(index).any(contradicts) {
                return Err(PlanError::TwoMeanings(address.into()));
            }
        }
        for router in [self.gateway, self.link_local].into_iter().flatten() {
            if router == self.guest {
                return Err(PlanError::GuestHasMeaning(guest));
            }
            if !self.is_ours(router) {
                return Err(PlanError::GatewayHasNoMeaning(router.into()));
            }
        }
        Ok(())
    }
}

impl Family<Ipv4Addr> {
    pub(super) fn validate(&self) -> Result<(), PlanError> {
        self.check(32)?;
        let Some((first, last)) = self.pool else { return Ok(()) };
        let len = last.to_bits().checked_sub(first.to_bits());
        let is_possible = len.is_some_and(|len| (len as usize) < POOL_CAP)
            && self.contains(first)
            && self.contains(last);
        if is_possible {
            Ok(())
        } else {
            Err(PlanError::Pool { first: first.into(), last: last.into() })
        }
    }

    /// First and last address that DHCP hands out.
    pub(crate) fn leases(&self) -> (Ipv4Addr, Ipv4Addr) {
        self.pool.unwrap_or((self.guest, self.guest))
    }

    /// The address of the guest's network.
    pub const fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.guest.to_bits() & self.mask())
    }

    /// The netmask.
    pub const fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask())
    }

    /// The network's directed broadcast address; networks of one or two addresses have none (RFC
    /// 3021).
    pub const fn broadcast(&self) -> Option<Ipv4Addr> {
        if self.prefix_len > 30 {
            return None;
        }
        Some(Ipv4Addr::from_bits(self.guest.to_bits() | !self.mask()))
    }

    /// Whether `address` lies in the guest's network.
    pub(crate) const fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.guest.to_bits()) & self.mask() == 0
    }

    const fn mask(&self) -> u32 {
        match u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix_len as u32)) {
            Some(mask) => mask,
            None => 0,
        }
    }
}

impl Family<Ipv6Addr> {
    pub(super) fn validate(&self) -> Result<(), PlanError> {
        self.check(128)
    }

    /// The prefix of the guest's network.
    pub const fn network(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.guest.to_bits() & self.mask())
    }

    /// Whether `address` lies in the guest's network.
    pub(crate) const fn contains(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.guest.to_bits()) & self.mask() == 0
    }

    /// The address that a guest with this Ethernet address makes for itself from our router
    /// advertisements, unless it was told to hide the Ethernet address (RFC 4862 section 5.5.3 with
    /// the modified EUI-64 of RFC 4291 appendix A; Linux' `addr_gen_mode` 0, which new namespaces
    /// have). `None` where the network is not a /64, in which alone guests do so.
    pub(crate) const fn address_made_from(&self, mac: MacAddr) -> Option<Ipv6Addr> {
        if self.prefix_len != 64 {
            return None;
        }
        let s = self.guest.segments();
        let [i0, i1, i2, i3] = interface_identifier(mac);
        Some(Ipv6Addr::new(s[0], s[1], s[2], s[3], i0, i1, i2, i3))
    }

    const fn mask(&self) -> u128 {
        match u128::MAX.checked_shl(128_u32.saturating_sub(self.prefix_len as u32)) {
            Some(mask) => mask,
            None => 0,
        }
    }
}

/// Whether `address` can belong to a single station that is not the host's loopback.
pub(crate) fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && !is_broadcast
        && !is_mapped
}

/// Whether `address` can belong to the host's resolver, which may be on its loopback.
pub(crate) fn can_be_resolver(address: IpAddr) -> bool {
    address.is_loopback() || is_unicast(address)
}
