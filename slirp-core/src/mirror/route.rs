//! Routes of the host that are sent again in the guest's network namespace.
//!
//! Owns what of a route is kept: everything but the interface, the preferred source, the numbers of
//! next-hop objects, state and lifetimes. rtnetlink(7).

use core::fmt;
use core::net::IpAddr;

use super::tables::{self, Hop, ROUTE_LEN, Route};
use crate::netlink::{Attributes, CHANGE, CREATE, EXCLUSIVE, Message};
use crate::netns::setup::ON_LINK;
use crate::sys::changes::{Unknown, Work};

/// Attributes that are copied as they are. Those without a name in libc are a router's preference
/// (`RTA_PREF`, RFC 4191) and what packets are wrapped in (`RTA_ENCAP_TYPE`, `RTA_ENCAP`).
const COPIED: [u16; 10] = [
    libc::RTA_DST,
    libc::RTA_GATEWAY,
    libc::RTA_PRIORITY,
    libc::RTA_METRICS,
    libc::RTA_FLOW,
    libc::RTA_TABLE,
    tables::VIA,
    20,
    21,
    22,
];

/// Places in `struct rtmsg` and `struct rtnexthop`.
const ROUTE_FLAGS_AT: usize = 8;
const HOP_FLAGS_AT: usize = 2;
const HOP_INDEX_AT: usize = 4;

/// A route through the template's interface alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TemplateRoute {
    /// The prefix; `None` for a default route.
    pub(super) destination: Option<(IpAddr, u8)>,
    hops: Vec<Hop>,
    body: Vec<u8>,
}

impl TemplateRoute {
    /// Takes a route, unless packets may leave through another interface than that of `index`.
    pub(super) fn of(route: &Route<'_>, index: u32) -> Option<Self> {
        route.hops.iter().all(|hop| hop.index == index).then(|| Self {
            destination: route.destination,
            hops: route.hops.clone(),
            body: route.body.to_vec(),
        })
    }

    /// Whether its destinations are on the link, so that it depends on no other route.
    pub(super) fn is_direct(&self) -> bool {
        self.hops.iter().all(|hop| hop.gateway.is_none())
    }

    /// Whether the route says that `gateway` is on the link.
    pub(super) fn puts_on_link(&self, gateway: IpAddr) -> bool {
        let covers = |(prefix, len): (IpAddr, u8)| is_within(gateway, prefix, len);
        self.is_direct() && self.destination.is_some_and(covers)
    }

    /// Adds the route to a guest's interface. Gateways that `is_on_link` does not know are marked.
    pub(super) fn work(&self, is_on_link: impl Fn(IpAddr) -> bool) -> Work {
        let flags = |hop: &Hop| {
            let is_unknown = hop.gateway.is_some_and(|gateway| !is_on_link(gateway));
            if is_unknown { ON_LINK } else { hop.flags & ON_LINK }
        };
        let (header, attributes) = self.body.split_at(ROUTE_LEN.min(self.body.len()));
        let mut header = header.to_vec();
        let own = match *self.hops {
            [ref hop] => flags(hop),
            _ => 0,
        };
        header.splice(ROUTE_FLAGS_AT.., u32::from(own).to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWROUTE, CHANGE | CREATE | EXCLUSIVE, &header);
        let mut unknowns = Vec::new();
        for (kind, value) in Attributes(attributes) {
            match kind {
                libc::RTA_OIF => {
                    unknowns.push((message.attribute(kind, &[0; 4]), Unknown::Index));
                }
                libc::RTA_MULTIPATH => {
                    let mut value = value.to_vec();
                    let hops: Vec<_> = tables::hops_in(&value).collect();
                    for (at, hop) in &hops {
                        if let Some(byte) = value.get_mut(at + HOP_FLAGS_AT) {
                            *byte = flags(hop);
                        }
                    }
                    let begin = message.attribute(kind, &value);
                    unknowns.extend(
                        hops.iter().map(|(at, _)| (begin + at + HOP_INDEX_AT, Unknown::Index)),
                    );
                }
                _ if COPIED.contains(&kind) => {
                    message.attribute(kind, value);
                }
                _ => {}
            }
        }
        Work::Message(message.finish(0), unknowns)
    }
}

impl fmt::Display for TemplateRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            None => write!(f, "default route")?,
            Some((prefix, len)) => write!(f, "route to {prefix}/{len}")?,
        }
        let gateways = self.hops.iter().filter_map(|hop| hop.gateway);
        for (gateway, between) in
            gateways.zip(std::iter::once(" via ").chain(std::iter::repeat(", ")))
        {
            write!(f, "{between}{gateway}")?;
        }
        Ok(())
    }
}

/// Whether `address` lies in the network of `prefix`.
pub(super) fn is_within(address: IpAddr, prefix: IpAddr, prefix_len: u8) -> bool {
    let len = u32::from(prefix_len);
    match (address, prefix) {
        (IpAddr::V4(address), IpAddr::V4(prefix)) => {
            let differing = address.to_bits() ^ prefix.to_bits();
            len <= 32 && differing.leading_zeros() >= len
        }
        (IpAddr::V6(address), IpAddr::V6(prefix)) => {
            let differing = address.to_bits() ^ prefix.to_bits();
            len <= 128 && differing.leading_zeros() >= len
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
