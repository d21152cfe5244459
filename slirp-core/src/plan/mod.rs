//! The address plan: which addresses the guest sees, and what each of them means.
//!
//! Owns [`AddressPlan`], which is plain data: per IP version the guest's own address and network,
//! its gateway, and a short list of addresses with a [`Meaning`]. It also owns the virtual MAC
//! addresses. [`SlirpNetwork`] fills a plan with the numbers of slirp4netns, [`Mirrored`] with the
//! host's own addresses. How a destination is translated follows from the list alone (`nat`); what
//! a guest may *do* with an address is decided in [`policy`](crate::policy).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::mac::MacAddr;

pub use self::error::PlanError;
pub use self::family::{Family, Meaning, Meanings, OTHER_GUESTS_CAP, Others, Unlisted};
pub(crate) use self::family::{POOL_CAP, can_be_resolver, is_unicast};
pub use self::mirrored::{MIRROR_MAC, Mirrored, MirroredFamily};
pub use self::slirp::{Ipv6Plan, SlirpNetwork};

mod error;
mod family;
mod mirrored;
mod slirp;

/// For which addresses ARP requests and neighbour solicitations are answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Answers {
    /// For the addresses with a [`Meaning`]. The other addresses of the guest's network are left to
    /// whoever has them, so that a guest's probe for its own address finds no conflict.
    #[default]
    OnlyOurs,
    /// For every address but the guest's own: the guest reaches its neighbours through us as well.
    EveryoneElse,
}

/// Which addresses the guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressPlan {
    ipv4: Option<Family<Ipv4Addr>>,
    ipv6: Option<Family<Ipv6Addr>>,
    answers: Answers,
    /// Source of frames to the guest, by IP version.
    macs: [MacAddr; 2],
    /// The MAC address of all our addresses, unless each has its own.
    one_mac: Option<MacAddr>,
    /// Whether a loopback address that the guest wrote stands for the host's loopback.
    passes_loopback: bool,
    /// The host's interface whose link is the guest's.
    host_link: Option<u32>,
    /// Whether an address means [`Meaning::HostItself`], so that an address outside the list has a
    /// second name inside it.
    renames_host: bool,
}

impl AddressPlan {
    /// A plan of these families; either may be missing.
    ///
    /// # Errors
    /// What [`PlanError`] lists, for the first address that does not fit.
    pub fn new(
        ipv4: Option<Family<Ipv4Addr>>,
        ipv6: Option<Family<Ipv6Addr>>,
        answers: Answers,
    ) -> Result<Self, PlanError> {
        if let Some(family) = &ipv4 {
            family.validate()?;
        }
        if let Some(family) = &ipv6 {
            family.validate()?;
        }
        if ipv4.is_none() && ipv6.is_none() {
            return Err(PlanError::NoFamily);
        }
        Ok(Self::assemble(ipv4, ipv6, answers))
    }

    /// The plan that slirp4netns(1) has for `network`.
    pub fn slirp(network: SlirpNetwork) -> Self {
        let ipv6 = network.ipv6().map(Ipv6Plan::family);
        Self::assemble(Some(network.family()), ipv6, Answers::OnlyOurs)
    }

    /// The same plan with the IPv6 side that slirp4netns(1) has for `ipv6`.
    #[must_use]
    pub fn with_ipv6(self, ipv6: Ipv6Plan) -> Self {
        Self::assemble(self.ipv4, Some(ipv6.family()), self.answers)
    }

    fn assemble(
        ipv4: Option<Family<Ipv4Addr>>,
        ipv6: Option<Family<Ipv6Addr>>,
        answers: Answers,
    ) -> Self {
        let v4 = ipv4.and_then(|family| family.stand_in()).map(IpAddr::V4);
        let v6 = ipv6.and_then(|family| family.stand_in()).map(IpAddr::V6);
        let mac_of = |own: Option<IpAddr>, other: Option<IpAddr>| {
            Self::mac_of(own.or(other).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
        };
        let renames_host = ipv4.is_some_and(|family| family.renames_host())
            || ipv6.is_some_and(|family| family.renames_host());
        Self {
            ipv4,
            ipv6,
            answers,
            macs: [mac_of(v4, v6), mac_of(v6, v4)],
            one_mac: None,
            passes_loopback: true,
            host_link: None,
            renames_host,
        }
    }

    /// The IPv4 side of the plan, if there is IPv4.
    pub const fn ipv4(&self) -> Option<&Family<Ipv4Addr>> {
        self.ipv4.as_ref()
    }

    /// The IPv6 side of the plan, if there is IPv6.
    pub const fn ipv6(&self) -> Option<&Family<Ipv6Addr>> {
        self.ipv6.as_ref()
    }

    /// Whether `address` has a meaning, and so belongs to us.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4().is_some_and(|family| family.is_ours(v4)),
            IpAddr::V6(v6) => self.ipv6().is_some_and(|family| family.is_ours(v6)),
        }
    }

    /// Every address with a meaning; an address with two is named twice.
    pub(crate) fn ours(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.ipv4().into_iter().flat_map(Family::list).map(|(ours, _)| IpAddr::V4(ours));
        let v6 = self.ipv6().into_iter().flat_map(Family::list).map(|(ours, _)| IpAddr::V6(ours));
        v4.chain(v6)
    }

    pub(crate) const fn renames_host(&self) -> bool {
        self.renames_host
    }

    /// Whether a loopback address that the guest wrote stands for the host's loopback. Otherwise it
    /// leads nowhere.
    pub(crate) const fn passes_loopback(&self) -> bool {
        self.passes_loopback
    }

    /// Whether any destination of the guest stands for the host's loopback.
    #[cfg(feature = "host")]
    pub(crate) fn leads_to_loopback(&self) -> bool {
        self.passes_loopback
            || self.ipv4().is_some_and(Family::leads_to_loopback)
            || self.ipv6().is_some_and(Family::leads_to_loopback)
    }

    /// The addresses of the host that stand behind another one, one for each IP version.
    #[cfg(feature = "host")]
    pub(crate) fn host_itself(&self) -> [Option<IpAddr>; 2] {
        let ipv4 = self.ipv4().and_then(Family::host_itself).map(IpAddr::V4);
        [ipv4, self.ipv6().and_then(Family::host_itself).map(IpAddr::V6)]
    }

    /// Index of the host's interface whose link is the guest's, if one is.
    pub(crate) const fn host_link(&self) -> Option<u32> {
        self.host_link
    }

    /// Whether the plan gives `address` to the guest.
    pub(crate) fn is_guests(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4().is_some_and(|family| family.is_guests(v4)),
            IpAddr::V6(v6) => self.ipv6().is_some_and(|family| family.is_guests(v6)),
        }
    }

    /// Whether we answer for all addresses but the guest's own, so that the guest reaches every
    /// remote under its own address.
    pub(crate) fn answers_for_everyone_else(&self) -> bool {
        self.answers == Answers::EveryoneElse
    }

    /// Whether `address` is the guest's router.
    pub(crate) fn is_router(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4().is_some_and(|family| family.gateway == Some(v4)),
            IpAddr::V6(v6) => self
                .ipv6()
                .is_some_and(|family| family.gateway == Some(v6) || family.link_local == Some(v6)),
        }
    }

    /// Whether `address` is ours and stands for something other than itself, as a mere router does
    /// not. We answer echo requests to such an address ourselves.
    pub fn stands_for_another(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4().is_some_and(|family| family.stands_for_another(v4)),
            IpAddr::V6(v6) => self.ipv6().is_some_and(|family| family.stands_for_another(v6)),
        }
    }

    /// Whether ARP and neighbour discovery answer with our MAC address for `target`, which `asker`
    /// asks for. One that we do not own is never answered to its own announcement (RFC 5227
    /// section 3) or to a probe of duplicate address detection, which in IPv6 comes from `::`.
    pub(crate) fn answers_for(&self, target: IpAddr, asker: IpAddr) -> bool {
        if self.is_ours(target) {
            return true;
        }
        let is_probe = asker.is_ipv6() && asker.is_unspecified();
        let is_own = match target {
            IpAddr::V4(v4) => self.ipv4().is_none_or(|family| family.is_guests(v4)),
            IpAddr::V6(v6) => self.ipv6().is_none_or(|family| family.is_guests(v6)),
        };
        match self.answers {
            Answers::OnlyOurs => false,
            Answers::EveryoneElse => is_unicast(target) && !is_own && !is_probe && asker != target,
        }
    }

    /// Whether `address` lies in the guest's own network.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.ipv4().is_some_and(|family| family.contains(v4)),
            IpAddr::V6(v6) => self.ipv6().is_some_and(|family| family.contains(v6)),
        }
    }

    /// Whether `address`, which the list translates to nothing, stands for the host's loopback
    /// because it lies in the guest's network.
    pub(crate) fn is_unlisted_host(&self, address: IpAddr) -> bool {
        let unlisted = match address {
            IpAddr::V4(_) => self.ipv4().map(|family| family.unlisted),
            IpAddr::V6(_) => self.ipv6().map(|family| family.unlisted),
        };
        unlisted == Some(Unlisted::HostLoopback) && self.contains(address)
    }

    /// Whether the guest takes `address` for a neighbour that we do not answer for, so that it
    /// would ask the link in vain.
    pub(crate) fn is_unreachable_neighbor(&self, address: IpAddr) -> bool {
        self.answers == Answers::OnlyOurs && self.contains(address)
    }

    /// The address of the station on the link that packets for `guest` go to. Where we stand for
    /// all neighbours there is one guest, and it is the router of networks that are not the link's.
    pub(crate) fn next_hop(&self, guest: IpAddr) -> IpAddr {
        let (is_on_link, router) = match guest {
            IpAddr::V4(v4) => (v4.is_link_local(), self.ipv4().map(|it| IpAddr::V4(it.guest))),
            IpAddr::V6(v6) => {
                (v6.is_unicast_link_local(), self.ipv6().map(|it| IpAddr::V6(it.guest)))
            }
        };
        let is_behind =
            self.answers == Answers::EveryoneElse && !is_on_link && !self.contains(guest);
        router.filter(|_| is_behind).unwrap_or(guest)
    }

    /// Whether a guest can have `address`, so that ports of the host may lead there: none of ours,
    /// no group, and of an IP version that there is.
    pub(crate) fn is_guest_address(&self, address: IpAddr) -> bool {
        let has_family = match address {
            IpAddr::V4(_) => self.ipv4.is_some(),
            IpAddr::V6(_) => self.ipv6.is_some(),
        };
        !address.is_unspecified()
            && !address.is_multicast()
            && !address.is_loopback()
            && !self.is_ours(address)
            && has_family
    }

    /// The address that stands for us as a router in the family of `like`: the source of errors,
    /// and of what the guest could not address otherwise.
    pub(crate) fn stand_in(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.ipv4().and_then(Family::stand_in).map(IpAddr::V4),
            IpAddr::V6(_) => self.ipv6().and_then(Family::stand_in).map(IpAddr::V6),
        }
    }

    /// The same for a client of `guest`. The IPv6 gateway may be a remote, which the client is not:
    /// a guest on the link sees our link-local address, which no remote has.
    pub(crate) fn stand_in_for_client(&self, guest: IpAddr) -> Option<IpAddr> {
        let is_on_link = guest.is_ipv6() && self.next_hop(guest) == guest;
        let own = self.ipv6().and_then(|family| family.link_local).map(IpAddr::V6);
        let own = own.filter(|_| self.answers_for_everyone_else() && is_on_link);
        own.or_else(|| self.stand_in(guest))
    }

    /// The virtual MAC address that belongs to one of our addresses: `52:55:<IPv4>` or
    /// `52:56:<last four bytes of the IPv6 address>`.
    pub(crate) const fn mac_of(address: IpAddr) -> MacAddr {
        match address {
            IpAddr::V4(v4) => {
                let o = v4.octets();
                MacAddr([0x52, 0x55, o[0], o[1], o[2], o[3]])
            }
            IpAddr::V6(v6) => {
                let o = v6.octets();
                MacAddr([0x52, 0x56, o[12], o[13], o[14], o[15]])
            }
        }
    }

    /// The MAC address with which we answer for `address`.
    pub(crate) const fn mac_for(&self, address: IpAddr) -> MacAddr {
        match self.one_mac {
            Some(mac) => mac,
            None => Self::mac_of(address),
        }
    }

    /// The source of every frame to the guest in the family of `like`: the gateway's MAC address,
    /// as a router's frames have it.
    pub const fn our_mac(&self, like: IpAddr) -> MacAddr {
        match like {
            IpAddr::V4(_) => self.macs[0],
            IpAddr::V6(_) => self.macs[1],
        }
    }
}

impl Default for AddressPlan {
    /// That of slirp4netns for 10.0.2.0/24, without IPv6.
    fn default() -> Self {
        Self::slirp(SlirpNetwork::default())
    }
}

impl From<SlirpNetwork> for AddressPlan {
    fn from(network: SlirpNetwork) -> Self {
        Self::slirp(network)
    }
}

/// The link-local address that a guest with this Ethernet address makes for itself (RFC 4291
/// section 2.5.6 and appendix A).
pub(crate) const fn link_local_made_from(mac: MacAddr) -> Ipv6Addr {
    let [i0, i1, i2, i3] = interface_identifier(mac);
    Ipv6Addr::new(0xfe80, 0, 0, 0, i0, i1, i2, i3)
}

/// The modified EUI-64 of RFC 4291 appendix A.
const fn interface_identifier(mac: MacAddr) -> [u16; 4] {
    const UNIVERSAL: u8 = 0x02;
    let MacAddr([a, b, c, d, e, f]) = mac;
    [
        u16::from_be_bytes([a ^ UNIVERSAL, b]),
        u16::from_be_bytes([c, 0xff]),
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f]),
    ]
}

/// Where a guest is taken to be by a rule that leads a port of the host to it and does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AssumedGuest {
    /// Its IPv4 address; `0.0.0.0`, which no rule can lead to, where the plan has no IPv4.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the plan has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl AssumedGuest {
    /// The guest's addresses in the plan. In a /64 the IPv6 address is the one that a guest makes
    /// for itself from the Ethernet address `mac` of its interface, where that is known and the
    /// guest is not followed to the address that it takes.
    pub fn new(plan: impl Into<AddressPlan>, mac: Option<MacAddr>) -> Self {
        let plan = plan.into();
        let made = |family: &Family<Ipv6Addr>| {
            let made = mac.filter(|_| !family.may_move);
            made.and_then(|mac| family.address_made_from(mac)).unwrap_or(family.guest)
        };
        let ipv4 = plan.ipv4().map_or(Ipv4Addr::UNSPECIFIED, |family| family.guest);
        Self { ipv4, ipv6: plan.ipv6().map(made) }
    }
}

#[cfg(test)]
mod tests;
