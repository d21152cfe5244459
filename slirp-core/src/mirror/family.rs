//! One IP version of the template: which interface it is, and what of it can be copied.
//!
//! Owns the choice of the interface, of its gateway and of its addresses. Pure functions of the
//! kernel's lists.

use core::net::IpAddr;

use super::route::TemplateRoute;
use super::tables::{Address, Route, Tables};
use crate::netlink::Attributes;
use crate::netns::setup;
use crate::sys::changes::Work;

/// Attributes of an address that are copied besides the address itself: the address of its
/// broadcasts and the metric of its network's route (`IFA_RT_PRIORITY`).
const COPIED: [u16; 2] = [libc::IFA_BROADCAST, 9];

/// The address is kept for what uses it already (`IFA_F_DEPRECATED`).
const DEPRECATED: u32 = 0x20;
/// Another station has the address (`IFA_F_DADFAILED`).
const DUPLICATE: u32 = 0x08;
/// The address is given up after a while, for privacy (`IFA_F_TEMPORARY`); in IPv4 it is one of
/// several in a network (`IFA_F_SECONDARY`).
const TEMPORARY: u32 = 0x01;
/// The kernel makes no route to the address's network (`IFA_F_NOPREFIXROUTE`).
const NO_PREFIX_ROUTE: u32 = 0x200;

/// The host's network in one IP version, as far as a guest can have the same.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TemplateFamily {
    /// Name of the interface.
    pub interface: String,
    /// Number of the interface.
    pub index: u32,
    /// The host's address there: the first one, in IPv6 rather a global one than one of a unique
    /// local network (RFC 4193), and rather a lasting one than a temporary one (RFC 8981).
    pub address: IpAddr,
    /// Length of the prefix of the address's network in bits.
    pub prefix_len: u8,
    /// The default gateway, if a default route has one.
    pub gateway: Option<IpAddr>,
    /// All addresses, in the kernel's order.
    pub(super) addresses: Vec<TemplateAddress>,
    pub(super) routes: Vec<TemplateRoute>,
}

/// An address that a guest can have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TemplateAddress {
    pub(super) local: IpAddr,
    /// The address whose prefix is on the link.
    pub(super) peer: IpAddr,
    pub(super) prefix_len: u8,
    scope: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl TemplateFamily {
    /// Chooses among `tables`, which have one IP version. `wanted` is the number of the only
    /// interface that counts.
    pub(super) fn choose(tables: &Tables<'_>, wanted: Option<u32>) -> Option<Self> {
        let candidate = |index: u32| {
            let link = tables.links.iter().find(|link| link.index == index)?;
            let is_possible = wanted.is_none_or(|wanted| wanted == index) && !link.is_loopback;
            let addresses: Vec<_> = tables
                .addresses
                .iter()
                .filter(|address| address.index == index && is_usable(address))
                .collect();
            (is_possible && !addresses.is_empty()).then_some((link, addresses))
        };
        let routes = in_order(&tables.routes);
        let by_routes = routes.iter().flat_map(|route| &route.hops).map(|hop| hop.index);
        let (link, addresses) = by_routes.chain(wanted).find_map(candidate)?;
        let main = addresses.iter().min_by_key(|address| rank(address))?;
        let gateway = routes
            .iter()
            .filter(|route| route.destination.is_none())
            .find_map(|route| gateway_through(route, link.index));
        let routes = tables.routes.iter();
        Some(Self {
            interface: link.name.clone(),
            index: link.index,
            address: main.local,
            prefix_len: main.prefix_len,
            gateway,
            addresses: addresses.iter().map(|address| TemplateAddress::of(address)).collect(),
            routes: routes.filter_map(|route| TemplateRoute::of(route, link.index)).collect(),
        })
    }
}

impl TemplateFamily {
    /// The same with those addresses of the template `before` that the host still has, on whatever
    /// interface: connections from them live on. They are alone in their network and come last, so
    /// that nothing new is sent from them.
    pub(super) fn keeping(mut self, before: &Self, tables: &Tables<'_>) -> Self {
        let is_hosts = |local: IpAddr| {
            tables.addresses.iter().any(|address| address.local == local && is_usable(address))
        };
        for local in before.addresses.iter().map(|address| address.local) {
            if self.addresses.iter().all(|address| address.local != local) && is_hosts(local) {
                self.addresses.push(TemplateAddress::alone(local));
            }
        }
        self
    }
}

impl TemplateAddress {
    /// An address that says nothing about a network.
    fn alone(local: IpAddr) -> Self {
        Self {
            local,
            peer: local,
            prefix_len: if local.is_ipv4() { 32 } else { 128 },
            scope: libc::RT_SCOPE_UNIVERSE,
            flags: NO_PREFIX_ROUTE,
            attributes: Vec::new(),
        }
    }

    fn of(address: &Address<'_>) -> Self {
        let copied = Attributes(address.attributes).filter(|(kind, _)| COPIED.contains(kind));
        Self {
            local: address.local,
            peer: address.peer,
            prefix_len: address.prefix_len,
            scope: address.scope,
            flags: address.flags,
            attributes: copied.map(|(kind, value)| (kind, value.to_vec())).collect(),
        }
    }

    /// Gives a guest's interface the address, to be used at once and for ever. Without the host's
    /// routes the kernel makes the one to the address's network.
    pub(super) fn work(&self, has_routes: bool) -> Work {
        let detection = if self.local.is_ipv6() { setup::NO_DETECTION } else { 0 };
        let route = if has_routes { self.flags & NO_PREFIX_ROUTE } else { 0 };
        let mut message = setup::address_message(self.local, self.prefix_len, 0, self.scope);
        message.attribute(libc::IFA_LOCAL, &setup::octets(self.local));
        message.attribute(libc::IFA_ADDRESS, &setup::octets(self.peer));
        message.attribute(libc::IFA_FLAGS, &(u32::from(detection) | route).to_ne_bytes());
        for (kind, value) in &self.attributes {
            message.attribute(*kind, value);
        }
        setup::on_interface(message)
    }
}

/// The routes that can lead to an interface, the best first: default routes, then what is up, then
/// the lowest metric, then the kernel's order.
fn in_order<'r, 'd>(routes: &'r [Route<'d>]) -> Vec<&'r Route<'d>> {
    let is_local = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    };
    let mut routes: Vec<_> = routes
        .iter()
        .filter(|route| route.destination.is_none_or(|(prefix, _)| !is_local(prefix)))
        .collect();
    routes.sort_by_key(|route| match route.destination {
        None => (false, route.is_down(), route.metric),
        Some(_) => (true, route.is_down(), 0),
    });
    routes
}

/// The gateway of the heaviest hop through an interface, if it has an address of the route's own IP
/// version.
fn gateway_through(route: &Route<'_>, index: u32) -> Option<IpAddr> {
    let is_possible = |gateway: IpAddr| setup::family(gateway) == route.family;
    let hops = route.hops.iter().filter(|hop| hop.index == index);
    hops.filter(|hop| hop.gateway.is_some_and(is_possible))
        .max_by_key(|hop| hop.weight)
        .and_then(|hop| hop.gateway)
}

/// Whether a guest can have the address and reach others by it.
fn is_usable(address: &Address<'_>) -> bool {
    address.scope < libc::RT_SCOPE_LINK
        && address.flags & (DEPRECATED | DUPLICATE) == 0
        && !address.local.is_loopback()
        && !address.local.is_unspecified()
        && !address.local.is_multicast()
}

/// The lower, the better the address stands for the host.
fn rank(address: &Address<'_>) -> (bool, bool) {
    match address.local {
        IpAddr::V4(_) => (false, false),
        IpAddr::V6(v6) => (v6.is_unique_local(), address.flags & TEMPORARY != 0),
    }
}
