//! What a guest gets of the host's network, and what a person has chosen instead.
//!
//! Owns [`Choice`] and [`Guest`], the made-up addresses of local mode, and the order of the changes
//! to the guest's interface. Pure functions of a [`Template`].

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::family::{TemplateAddress, TemplateFamily};
use super::route::{TemplateRoute, is_within};
use super::template::Template;
use crate::mac::MacAddr;
use crate::netns::Setup;
use crate::netns::setup::{self, ON_LINK};
use crate::sys::changes::{OnRefusal, Work};
use crate::sys::step::AttachStep;

/// Name of the interface where the host has none to copy.
const LOCAL_INTERFACE: &str = "tap0";

/// Addresses of a link without a template: link-local ones (RFC 3927, RFC 4291 section 2.5.6). In
/// IPv6 the guest has only the address that its kernel makes.
const LOCAL4: Local = Local {
    address: Some(IpAddr::V4(Ipv4Addr::new(169, 254, 2, 1))),
    prefix_len: 16,
    gateway: IpAddr::V4(Ipv4Addr::new(169, 254, 2, 2)),
};
const LOCAL6: Local = Local {
    address: None,
    prefix_len: 64,
    gateway: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
};

/// What is left of the local mode's IPv4 address once there is a network: connections from it live
/// on. Its scope keeps the kernel from choosing it for anything that leaves the link.
pub(super) fn local_remainder() -> Option<(Work, Work)> {
    let address = LOCAL4.address?;
    let mut message = setup::address_message(address, 32, 0, libc::RT_SCOPE_LINK);
    message.attribute(libc::IFA_LOCAL, &setup::octets(address));
    message.attribute(libc::IFA_ADDRESS, &setup::octets(address));
    Some((setup::address(address, LOCAL4.prefix_len), setup::on_interface(message)))
}

struct Local {
    address: Option<IpAddr>,
    prefix_len: u8,
    gateway: IpAddr,
}

/// What a person has chosen for a guest. The default copies everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Name of the guest's interface, instead of the host's.
    pub interface: Option<String>,
    /// Ethernet address of the guest's interface; with `None` the kernel picks a random one.
    pub mac: Option<MacAddr>,
    /// MTU of the guest's interface in bytes, at most 65521; with `None` it stays as it is.
    pub mtu: Option<u16>,
    /// IPv4; `None` leaves it out.
    pub ipv4: Option<FamilyChoice<Ipv4Addr>>,
    /// IPv6; `None` leaves it out.
    pub ipv6: Option<FamilyChoice<Ipv6Addr>>,
}

impl Default for Choice {
    fn default() -> Self {
        let (ipv4, ipv6) = (Some(FamilyChoice::default()), Some(FamilyChoice::default()));
        Self { interface: None, mac: None, mtu: None, ipv4, ipv6 }
    }
}

/// What a person has chosen in one IP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FamilyChoice<A> {
    /// The guest's only address, instead of the host's.
    pub address: Option<A>,
    /// Length of its network's prefix in bits. Without it the host's, or for a chosen address 32 or
    /// 64.
    pub prefix_len: Option<u8>,
    /// The default gateway, and the only route besides those of the addresses, instead of the
    /// host's routes.
    pub gateway: Option<A>,
    /// Whether the guest gets all addresses of the host's interface, or one.
    pub copies_addresses: bool,
    /// Whether the guest gets all routes through the host's interface, or only a default route.
    pub copies_routes: bool,
}

impl<A> Default for FamilyChoice<A> {
    fn default() -> Self {
        Self {
            address: None,
            prefix_len: None,
            gateway: None,
            copies_addresses: true,
            copies_routes: true,
        }
    }
}

/// What a guest gets.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Guest {
    /// Name of its interface.
    pub interface: String,
    /// Its IPv4 addresses, unless IPv4 is left out.
    pub ipv4: Option<GuestFamily<Ipv4Addr>>,
    /// Its IPv6 addresses, unless IPv6 is left out.
    pub ipv6: Option<GuestFamily<Ipv6Addr>>,
    /// The configuration of its interface, for [`open_tap_with`](crate::netns::open_tap_with).
    pub setup: Setup,
}

/// The guest's addresses in one IP version.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GuestFamily<A> {
    /// Its address, if there are several the main one; `None` when it has only the link-local
    /// address that its kernel makes (IPv6).
    pub address: Option<A>,
    /// Length of the prefix of the address's network in bits.
    pub prefix_len: u8,
    /// Its other addresses.
    pub others: Vec<A>,
    /// Its default gateway; `None` when the host's default route leads out of the interface without
    /// one.
    pub gateway: Option<A>,
    /// The host's own address; `None` when the host has no interface to copy.
    pub host: Option<A>,
}

impl<A: Copy> FamilyChoice<A> {
    fn untyped(self) -> FamilyChoice<IpAddr>
    where
        A: Into<IpAddr>,
    {
        FamilyChoice {
            address: self.address.map(Into::into),
            prefix_len: self.prefix_len,
            gateway: self.gateway.map(Into::into),
            copies_addresses: self.copies_addresses,
            copies_routes: self.copies_routes,
        }
    }
}

impl GuestFamily<IpAddr> {
    fn typed<A>(self, of: impl Fn(IpAddr) -> Option<A>) -> GuestFamily<A> {
        GuestFamily {
            address: self.address.and_then(&of),
            prefix_len: self.prefix_len,
            others: self.others.into_iter().filter_map(&of).collect(),
            gateway: self.gateway.and_then(&of),
            host: self.host.and_then(&of),
        }
    }
}

impl Guest {
    /// What a guest gets of `template`, as far as `choice` does not say otherwise.
    pub fn new(template: &Template, choice: &Choice) -> Self {
        let v4 = choice.ipv4.map(|choice| Part::new(template.ipv4(), choice.untyped(), LOCAL4));
        let v6 = choice.ipv6.map(|choice| Part::new(template.ipv6(), choice.untyped(), LOCAL6));
        let named = v4.iter().chain(&v6).find_map(|part| part.template);
        let name = || named.map_or(LOCAL_INTERFACE, |template| template.interface.as_str());
        let interface = choice.interface.clone().unwrap_or_else(|| name().to_owned());

        let must = OnRefusal::Fail;
        let mut setup = Setup::loopback();
        if let Some(mtu) = choice.mtu {
            setup.push(setup::mtu(mtu), must(AttachStep::SetMtu));
        }
        setup.push(setup::queue_len(true), OnRefusal::Ignore);
        if let Some(mac) = choice.mac {
            setup.push(setup::mac(mac), must(AttachStep::SetMac));
        }
        if v6.is_some() {
            // A kernel without IPv6 is told of by what the guest lacks.
            setup.push(setup::link_local(), OnRefusal::Ignore);
        }
        for (work, _) in v4.iter().flat_map(Part::addresses) {
            setup.push(work, must(AttachStep::SetAddress));
        }
        // The kernel lists IPv6 addresses from the newest to the oldest.
        let addresses = v6.iter().flat_map(Part::addresses).collect::<Vec<_>>();
        for (work, what) in addresses.into_iter().rev() {
            setup.tell(work, what);
        }
        setup.push(setup::up(), must(AttachStep::SetUp));
        for part in v4.iter().chain(&v6) {
            for (work, what) in part.routes() {
                // Where the host has no IPv6, nobody misses it.
                if part.template.is_none() {
                    setup.push(work, OnRefusal::Ignore);
                } else {
                    setup.tell(work, what);
                }
            }
        }
        let ipv4 = v4.map(|part| {
            part.family.typed(|address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
        });
        let ipv6 = v6.map(|part| {
            part.family.typed(|address| match address {
                IpAddr::V6(v6) => Some(v6),
                IpAddr::V4(_) => None,
            })
        });
        Self { interface, ipv4, ipv6, setup }
    }
}

/// What a guest gets in one IP version.
struct Part<'t> {
    template: Option<&'t TemplateFamily>,
    family: GuestFamily<IpAddr>,
    copies_addresses: bool,
    routes: Vec<&'t TemplateRoute>,
}

impl<'t> Part<'t> {
    fn new(
        template: Option<&'t TemplateFamily>,
        choice: FamilyChoice<IpAddr>,
        local: Local,
    ) -> Self {
        let of_host = template.map(|template| (template.address, template.prefix_len));
        let (address, prefix_len) = match (choice.address, of_host) {
            (Some(IpAddr::V4(chosen)), _) => (Some(IpAddr::V4(chosen)), 32),
            (Some(IpAddr::V6(chosen)), _) => (Some(IpAddr::V6(chosen)), 64),
            (None, Some((address, prefix_len))) => (Some(address), prefix_len),
            (None, None) => (local.address, local.prefix_len),
        };
        let copies_routes = choice.gateway.is_none() && choice.copies_routes;
        let copied = template.filter(|_| copies_routes).map(|template| &template.routes);
        // Those that depend on others come last.
        let (mut routes, indirect): (Vec<_>, Vec<_>) =
            copied.into_iter().flatten().partition(|route| route.is_direct());
        routes.extend(indirect);
        let has_default = routes.iter().any(|route| route.destination.is_none());
        let known = choice.gateway.or(template.and_then(|template| template.gateway));
        let made_up = (!has_default).then_some(local.gateway);
        let copies_addresses = choice.address.is_none() && choice.copies_addresses;
        let copied = template.filter(|_| copies_addresses).map(|template| &template.addresses);
        let others = copied.into_iter().flatten().map(|copied| copied.local);
        let family = GuestFamily {
            address,
            prefix_len: choice.prefix_len.unwrap_or(prefix_len),
            others: others.filter(|&other| Some(other) != address).collect(),
            gateway: known.or(made_up),
            host: template.map(|template| template.address),
        };
        Self { template, family, copies_addresses, routes }
    }

    /// Addresses that are copied. Without any, the guest has the one of the family.
    fn copied_addresses(&self) -> impl Iterator<Item = &'t TemplateAddress> {
        let template = self.template.filter(|_| self.copies_addresses);
        template.into_iter().flat_map(|template| &template.addresses)
    }

    /// The changes that set the addresses up, and their names.
    fn addresses(&self) -> Vec<(Work, String)> {
        let name = |address, len| format!("{} address {address}/{len}", self.ip());
        let has_routes = !self.routes.is_empty();
        let mut works: Vec<_> = self
            .copied_addresses()
            .map(|copied| (copied.work(has_routes), name(copied.local, copied.prefix_len)))
            .collect();
        if let (true, Some(address)) = (works.is_empty(), self.family.address) {
            let len = self.family.prefix_len;
            works.push((setup::address(address, len), name(address, len)));
        }
        works
    }

    /// The changes that set the routes up, and their names.
    fn routes(&self) -> Vec<(Work, String)> {
        let mut works: Vec<_> = self
            .routes
            .iter()
            .map(|route| {
                let work = route.work(|gateway| self.is_on_link(gateway));
                (work, format!("{} {route}", self.ip()))
            })
            .collect();
        if let Some(gateway) = self.family.gateway
            && self.routes.iter().all(|route| route.destination.is_some())
        {
            let flags = if self.is_on_link(gateway) { 0 } else { ON_LINK };
            let name = format!("{} default route via {gateway}", self.ip());
            works.push((setup::default_route(gateway, None, flags), name));
        }
        works
    }

    /// Whether the guest's kernel takes `gateway` for a neighbour without being told.
    fn is_on_link(&self, gateway: IpAddr) -> bool {
        let is_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let mut copied = self.copied_addresses().peekable();
        let is_near = match (copied.peek(), self.family.address) {
            (Some(_), _) => copied.any(|copied| is_within(gateway, copied.peer, copied.prefix_len)),
            (None, Some(own)) => is_within(gateway, own, self.family.prefix_len),
            (None, None) => false,
        };
        is_local || is_near || self.routes.iter().any(|route| route.puts_on_link(gateway))
    }

    fn ip(&self) -> &'static str {
        let gateway = self.family.gateway.or(self.family.address);
        if gateway.is_some_and(|address| address.is_ipv4()) { "IPv4" } else { "IPv6" }
    }
}
