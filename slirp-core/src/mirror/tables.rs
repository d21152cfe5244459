//! Links, addresses and routes in the kernel's words: rtnetlink(7).
//!
//! Owns the parsing of the lists that [`dump`](super::dump) has read. Messages that are too short
//! or of other types are skipped. Routes are kept if a packet to a single host may take them: those
//! of the main table that lead out of an interface.

use core::net::IpAddr;

use crate::netlink::{Attributes, Messages, address, number};

/// Lengths of `struct ifinfomsg`, `ifaddrmsg`, `rtmsg` and `rtnexthop` in bytes.
const LINK_LEN: usize = 16;
pub(super) const ADDRESS_LEN: usize = 8;
pub(super) const ROUTE_LEN: usize = 12;
const HOP_LEN: usize = 8;

/// `RTA_VIA`: a gateway of another IP version, after the number of its family.
pub(super) const VIA: u16 = 18;

/// `IFF_LOOPBACK` (netdevice(7)).
const LOOPBACK: u32 = 0x8;
/// `RTM_F_CLONED`: an entry of a cache.
const CLONED: u32 = 0x200;
/// `RTNH_F_DEAD | RTNH_F_LINKDOWN`: the interface is down, or has no carrier.
const DOWN: u8 = 0x01 | 0x10;

/// What the host has, in the kernel's order.
#[derive(Debug, Default)]
pub(super) struct Tables<'d> {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address<'d>>,
    pub(super) routes: Vec<Route<'d>>,
}

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) is_loopback: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address<'d> {
    /// Number of the interface.
    pub(super) index: u32,
    /// The host's own address.
    pub(super) local: IpAddr,
    /// The address whose prefix is on the link: the other end of a point-to-point link, otherwise
    /// the same.
    pub(super) peer: IpAddr,
    pub(super) prefix_len: u8,
    pub(super) scope: u8,
    /// `IFA_F_*` (linux/if_addr.h).
    pub(super) flags: u32,
    /// The attributes of the message.
    pub(super) attributes: &'d [u8],
}

/// A route to a prefix.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Route<'d> {
    pub(super) family: u8,
    /// The prefix; `None` for a default route.
    pub(super) destination: Option<(IpAddr, u8)>,
    pub(super) metric: u32,
    pub(super) hops: Vec<Hop>,
    /// The body of the message.
    pub(super) body: &'d [u8],
}

/// One way that a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hop {
    /// Number of the interface.
    pub(super) index: u32,
    /// The next router; of either IP version.
    pub(super) gateway: Option<IpAddr>,
    /// Its share of the packets, in proportion to the other hops.
    pub(super) weight: u16,
    /// `RTNH_F_*` (linux/rtnetlink.h).
    pub(super) flags: u8,
}

impl<'d> Tables<'d> {
    /// Parses what [`dump`](super::dump) has read.
    pub(super) fn parse(dump: &'d [u8]) -> Self {
        let mut tables = Self::default();
        for message in Messages(dump) {
            match message.kind {
                libc::RTM_NEWLINK => tables.links.extend(Link::parse(message.body)),
                libc::RTM_NEWADDR => tables.addresses.extend(Address::parse(message.body)),
                libc::RTM_NEWROUTE => tables.routes.extend(Route::parse(message.body)),
                _ => {}
            }
        }
        tables
    }

    /// The same without the other IP version.
    pub(super) fn of_family(&self, family: libc::c_int) -> Self {
        let is_v4 = family == libc::AF_INET;
        let addresses = self.addresses.iter().filter(|address| address.local.is_ipv4() == is_v4);
        let routes = self.routes.iter().filter(|route| i32::from(route.family) == family);
        Self {
            links: self.links.clone(),
            addresses: addresses.copied().collect(),
            routes: routes.cloned().collect(),
        }
    }
}

impl Link {
    fn parse(body: &[u8]) -> Option<Self> {
        let &[_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = body.first_chunk::<LINK_LEN>()?;
        let mut attributes = Attributes(body.get(LINK_LEN..)?);
        let (_, name) = attributes.find(|&(kind, _)| kind == libc::IFLA_IFNAME)?;
        let name = name.split(|&byte| byte == 0).next()?;
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            name: String::from_utf8_lossy(name).into_owned(),
            is_loopback: u32::from_ne_bytes([f0, f1, f2, f3]) & LOOPBACK != 0,
        })
    }
}

impl<'d> Address<'d> {
    fn parse(body: &'d [u8]) -> Option<Self> {
        let &[_, prefix_len, flags, scope, i0, i1, i2, i3] = body.first_chunk::<ADDRESS_LEN>()?;
        let attributes = body.get(ADDRESS_LEN..)?;
        let (mut local, mut peer, mut flags) = (None, None, u32::from(flags));
        for (kind, value) in Attributes(attributes) {
            match kind {
                libc::IFA_LOCAL => local = address(value),
                libc::IFA_ADDRESS => peer = address(value),
                libc::IFA_FLAGS => flags = number(value)?,
                _ => {}
            }
        }
        let local = local.or(peer)?;
        Some(Self {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            local,
            peer: peer.unwrap_or(local),
            prefix_len,
            scope,
            flags,
            attributes,
        })
    }
}

impl<'d> Route<'d> {
    fn parse(body: &'d [u8]) -> Option<Self> {
        let &[family, prefix_len, source_len, _, table, _, _, kind, f0, f1, f2, f3] =
            body.first_chunk::<ROUTE_LEN>()?;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let mut table = u32::from(table);
        let (mut prefix, mut metric, mut hops) = (None, 0, Vec::new());
        let (mut index, mut gateway) = (None, None);
        for (kind, value) in Attributes(body.get(ROUTE_LEN..)?) {
            match kind {
                libc::RTA_DST => prefix = Some(address(value)?),
                libc::RTA_TABLE => table = number(value)?,
                libc::RTA_PRIORITY => metric = number(value)?,
                libc::RTA_OIF => index = number(value),
                libc::RTA_GATEWAY | VIA => gateway = router(kind, value),
                libc::RTA_MULTIPATH => hops.extend(hops_in(value).map(|(_, hop)| hop)),
                _ => {}
            }
        }
        if let Some(index) = index
            && hops.is_empty()
        {
            let [flags, ..] = flags.to_le_bytes();
            hops.push(Hop { index, gateway, weight: 1, flags });
        }
        let destination = match prefix_len {
            0 => None,
            _ => Some((prefix?, prefix_len)),
        };
        let is_usable = table == u32::from(libc::RT_TABLE_MAIN)
            && kind == libc::RTN_UNICAST
            && source_len == 0
            && flags & CLONED == 0
            && !hops.is_empty();
        is_usable.then_some(Self { family, destination, metric, hops, body })
    }

    /// Whether no packet can take it now.
    pub(super) fn is_down(&self) -> bool {
        self.hops.iter().all(|hop| hop.flags & DOWN != 0)
    }
}

/// The next router in an attribute.
fn router(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => address(value),
        VIA => address(value.get(2..)?),
        _ => None,
    }
}

/// The hops in the value of an `RTA_MULTIPATH`, and where each begins.
pub(super) fn hops_in(value: &[u8]) -> impl Iterator<Item = (usize, Hop)> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let rest = value.get(at..)?;
        let &[l0, l1, flags, weight, i0, i1, i2, i3] = rest.first_chunk::<HOP_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let attributes = rest.get(HOP_LEN..len)?;
        let mut gateways = Attributes(attributes).filter_map(|(kind, value)| router(kind, value));
        let begin = at;
        at += len.next_multiple_of(4);
        let hop = Hop {
            index: u32::from_ne_bytes([i0, i1, i2, i3]),
            gateway: gateways.next(),
            weight: u16::from(weight) + 1,
            flags,
        };
        Some((begin, hop))
    })
}
