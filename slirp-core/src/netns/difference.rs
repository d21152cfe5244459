//! From the setup that an interface has to another one, while the guest uses it.
//!
//! Owns the order of the changes. Only what a setup of ours has made is taken away: addresses and
//! routes that the guest has set itself are in none. Pure functions of messages.
//!
//! # Theory of operation
//! New addresses come first, because routes depend on them and the kernel takes all routes away
//! together with the last address. Old routes go before new ones come, since the kernel takes a
//! route to the same prefix for one that exists already. Old addresses go last. With such an
//! address the kernel takes away other addresses of its network and routes that it holds to depend
//! on it, so everything that is wanted is added again then: what is still there is left as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::setup::{self, Setup};
use crate::netlink::{Attributes, CHANGE, HEADER_LEN, Message, Messages, address};
use crate::sys::changes::{OnRefusal, Unknown, Work};

/// Lengths of `struct ifaddrmsg` and `rtmsg` in bytes.
const ADDRESS_LEN: usize = 8;
const ROUTE_LEN: usize = 12;

/// `IFLA_INET_CONF`, `IPV4_DEVCONF_PROMOTE_SECONDARIES` (linux/if_link.h, linux/ip.h).
const INET_CONF: u16 = 1;
const PROMOTE_SECONDARIES: u16 = 20;

/// The changes that lead from the setup `present` to the setup `wanted`. What both have stays
/// untouched, and so do links.
pub(crate) fn difference(present: &Setup, wanted: &Setup) -> Setup {
    let (before, after) = (Parts::of(present), Parts::of(wanted));
    let lost_addresses = missing(&before.addresses, &after.addresses);
    let mut changes = Setup::default();
    if lost_addresses.iter().any(|work| is_ipv4(work)) {
        // Otherwise an address goes together with others of its network, the guest's included.
        changes.push(promote_secondaries(), OnRefusal::Ignore);
    }
    add(&mut changes, missing(&after.addresses, &before.addresses));
    remove(&mut changes, &missing(&before.routes, &after.routes));
    add(&mut changes, missing(&after.routes, &before.routes));
    if !lost_addresses.is_empty() {
        remove(&mut changes, &lost_addresses);
        add(&mut changes, after.addresses);
        add(&mut changes, after.routes);
    }
    changes
}

/// The addresses and routes of a setup.
struct Parts<'s> {
    addresses: Vec<&'s Work>,
    routes: Vec<&'s Work>,
}

impl<'s> Parts<'s> {
    fn of(setup: &'s Setup) -> Self {
        let of = |wanted: u16| {
            let its = setup.works().filter(|work| kind(work) == Some(wanted));
            its.filter(|work| !is_link_local(work)).collect()
        };
        Self { addresses: of(libc::RTM_NEWADDR), routes: of(libc::RTM_NEWROUTE) }
    }
}

/// What `some` have and `others` lack, in the order of `some`.
fn missing<'s>(some: &[&'s Work], others: &[&'s Work]) -> Vec<&'s Work> {
    let others: BTreeSet<_> = others.iter().filter_map(|work| bytes(work)).collect();
    let is_missing = |work: &&&Work| bytes(work).is_some_and(|bytes| !others.contains(bytes));
    some.iter().filter(is_missing).copied().collect()
}

fn add<'s>(changes: &mut Setup, works: impl IntoIterator<Item = &'s Work>) {
    for work in works {
        changes.tell(work.clone(), describe(work));
    }
}

/// Removes in the opposite order, since later routes depend on earlier ones.
fn remove(changes: &mut Setup, works: &[&Work]) {
    for work in works.iter().rev() {
        if let Some(removal) = removal(work) {
            changes.tell(removal, format!("removal of {}", describe(work)));
        }
    }
}

/// The message that takes away what `work` has made.
fn removal(work: &Work) -> Option<Work> {
    let Work::Message(message, unknowns) = work else { return None };
    let removal = match kind(work)? {
        libc::RTM_NEWADDR => libc::RTM_DELADDR,
        libc::RTM_NEWROUTE => libc::RTM_DELROUTE,
        _ => return None,
    };
    let body = message.get(HEADER_LEN..)?;
    Some(Work::Message(Message::new(removal, CHANGE, body).finish(0), unknowns.clone()))
}

/// Has the kernel keep the other IPv4 addresses of a network when the first one goes.
fn promote_secondaries() -> Work {
    let mut settings = Message::new(0, 0, &[]);
    settings.attribute(PROMOTE_SECONDARIES, &1_u32.to_ne_bytes());
    let mut inet = Message::new(0, 0, &[]);
    inet.attribute(INET_CONF, attributes(&settings.finish(0)));
    let mut families = Message::new(0, 0, &[]);
    families.attribute(setup::family([0, 0, 0, 0].into()).into(), attributes(&inet.finish(0)));
    let mut message = setup::link(0, 0);
    message.attribute(libc::IFLA_AF_SPEC, attributes(&families.finish(0)));
    setup::on_interface(message)
}

/// The attributes of a message without a body.
fn attributes(message: &[u8]) -> &[u8] {
    message.get(HEADER_LEN..).unwrap_or_default()
}

fn bytes(work: &Work) -> Option<&[u8]> {
    match work {
        Work::Message(message, _) => Some(message),
        Work::Address(_) | Work::PrefixLen(_) | Work::StaticIpv6 | Work::AdvertisedIpv6 => None,
    }
}

/// Whether this is the link-local address of the interface, which every setup has or none: it takes
/// a call to make it, and nothing takes it away.
fn is_link_local(work: &Work) -> bool {
    match work {
        Work::Message(_, unknowns) => {
            unknowns.iter().any(|&(_, unknown)| unknown == Unknown::LinkLocal)
        }
        Work::Address(_) | Work::PrefixLen(_) | Work::StaticIpv6 | Work::AdvertisedIpv6 => false,
    }
}

fn kind(work: &Work) -> Option<u16> {
    Messages(bytes(work)?).next().map(|message| message.kind)
}

fn is_ipv4(work: &Work) -> bool {
    let family = bytes(work).and_then(|message| message.get(HEADER_LEN)).copied();
    family.map(i32::from) == Some(libc::AF_INET)
}

/// An address or a route in words.
fn describe(work: &Work) -> String {
    let ip = if is_ipv4(work) { "IPv4" } else { "IPv6" };
    let Some(message) = bytes(work).and_then(|message| Messages(message).next()) else {
        return String::new();
    };
    let len = message.body.get(1).copied().unwrap_or_default();
    let (is_address, body_len) = match message.kind {
        libc::RTM_NEWADDR => (true, ADDRESS_LEN),
        _ => (false, ROUTE_LEN),
    };
    let found = |wanted: u16| -> Option<IpAddr> {
        let attributes = message.body.get(body_len..)?;
        Attributes(attributes).find(|&(kind, _)| kind == wanted).and_then(|(_, it)| address(it))
    };
    if is_address {
        return match found(libc::IFA_LOCAL) {
            Some(local) => format!("{ip} address {local}/{len}"),
            None => format!("{ip} address"),
        };
    }
    let to = match found(libc::RTA_DST) {
        Some(prefix) => format!("{ip} route to {prefix}/{len}"),
        None => format!("{ip} default route"),
    };
    match found(libc::RTA_GATEWAY) {
        Some(gateway) => format!("{to} via {gateway}"),
        None => to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::setup::{address, default_route, mtu};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A setup with these addresses, of 24 bits, and these gateways.
    fn setup(addresses: &[&str], gateways: &[&str]) -> Setup {
        let mut setup = Setup::loopback();
        setup.push(mtu(1500), OnRefusal::Ignore);
        for one in addresses {
            setup.push(address(ip(one), 24), OnRefusal::Ignore);
        }
        for gateway in gateways {
            setup.push(default_route(ip(gateway), None, 0), OnRefusal::Ignore);
        }
        setup
    }

    /// The changes in short words.
    fn lines(setup: &Setup) -> Vec<String> {
        let line = |work: &Work| match kind(work)? {
            libc::RTM_NEWADDR | libc::RTM_NEWROUTE => Some(format!("+ {}", describe(work))),
            libc::RTM_NEWLINK => Some("promote".to_owned()),
            libc::RTM_DELADDR => Some(format!("- {}", describe(&as_new(work)))),
            libc::RTM_DELROUTE => Some(format!("- {}", describe(&as_new(work)))),
            other => panic!("{other}"),
        };
        setup.works().filter_map(line).collect()
    }

    fn as_new(work: &Work) -> Work {
        let Work::Message(message, unknowns) = work else { panic!("a message") };
        let kind = kind(work).unwrap() - 1;
        Work::Message(Message::new(kind, 0, &message[HEADER_LEN..]).finish(0), unknowns.clone())
    }

    #[test]
    fn same_setup_needs_no_change() {
        let one = setup(&["192.0.2.9", "2001:db8::9"], &["192.0.2.1", "fe80::1"]);
        assert!(difference(&one, &one.clone()).is_empty());
    }

    #[test]
    fn what_is_new_comes_before_what_is_old_goes() {
        let before = setup(&["192.0.2.9", "2001:db8::9"], &["192.0.2.1"]);
        let after = setup(&["198.51.100.9", "2001:db8::9"], &["198.51.100.1"]);
        assert_eq!(
            lines(&difference(&before, &after)),
            [
                "promote",
                "+ IPv4 address 198.51.100.9/24",
                "- IPv4 default route via 192.0.2.1",
                "+ IPv4 default route via 198.51.100.1",
                "- IPv4 address 192.0.2.9/24",
                // As far as the kernel has taken them away with it.
                "+ IPv4 address 198.51.100.9/24",
                "+ IPv6 address 2001:db8::9/24",
                "+ IPv4 default route via 198.51.100.1",
            ]
        );
    }

    #[test]
    fn address_that_comes_touches_nothing_else() {
        let before = setup(&["192.0.2.9"], &["192.0.2.1"]);
        let after = setup(&["192.0.2.9", "2001:db8::9"], &["192.0.2.1", "fe80::1"]);
        assert_eq!(
            lines(&difference(&before, &after)),
            ["+ IPv6 address 2001:db8::9/24", "+ IPv6 default route via fe80::1"]
        );
        assert_eq!(
            lines(&difference(&after, &before)),
            [
                "- IPv6 default route via fe80::1",
                "- IPv6 address 2001:db8::9/24",
                "+ IPv4 address 192.0.2.9/24",
                "+ IPv4 default route via 192.0.2.1",
            ]
        );
    }
}
