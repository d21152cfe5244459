//! Translation of addresses between the two sides of a flow.
//!
//! Owns both directions over one table, the list of meanings in the [`AddressPlan`]:
//! [`translated_dst`] on the way to the host and [`as_seen_by_guest`] on the way back. Both are
//! pure, and ports stay as they are. Whether a destination is allowed is decided in
//! [`policy`](crate::policy), and a flow keeps what it was opened with.
//!
//! # The sides of a flow
//!
//! Each side has an address that is ours and one that is theirs:
//!
//! | side | ours | theirs |
//! | --- | --- | --- |
//! | guest | the original destination, or a remote as the guest sees it | the guest |
//! | host | a host socket's | the translated destination, or a remote as the host sees it |
//!
//! A listed address that means a place on the host comes back as itself, or as the first address in
//! the list with the same meaning. A remote that the guest could not address appears as the
//! gateway, which stands in for it. The guest's answer to the gateway then finds its remote by the
//! flow, not by the address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::plan::{AddressPlan, Family, Meaning};

/// The port of the resolver.
pub(crate) const DNS_PORT: u16 = 53;
/// The port of DNS over TLS and DNS over QUIC (RFC 7858 section 3.1, RFC 9250 section 4.1.1).
const DNS_OVER_TLS_PORT: u16 = 853;

/// Destinations of one flow that are remembered because their address differs on the host's side;
/// the oldest is forgotten (arbitrary: a program that uses more loopback services from one port is
/// not known).
const REMEMBERED_CAP: usize = 8;

/// What the plan makes of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Translation {
    /// The built-in resolver.
    Resolver,
    /// A port on which the resolver's address offers nothing.
    NoService,
    /// The host's loopback: the guest may be kept from it.
    HostLoopback(SocketAddr),
    /// This host, or its resolver, under an address that is not a loopback address.
    HostItself(SocketAddr),
    /// No address of ours, or one that means itself.
    None,
}

/// Who has begun a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opener {
    /// The guest: it can address the remote, since it has.
    Guest,
    /// A remote, by way of a forward rule: the guest must be able to answer.
    Remote,
}

/// From the guest to the host: what `original_dst` means. Without a resolver its address means
/// nothing.
pub(crate) fn translated_dst(
    plan: &AddressPlan,
    original_dst: SocketAddr,
    has_resolver: bool,
) -> Translation {
    match original_dst {
        SocketAddr::V4(v4) => translate(plan.ipv4(), *v4.ip(), original_dst, has_resolver),
        SocketAddr::V6(v6) => translate(plan.ipv6(), *v6.ip(), original_dst, has_resolver),
    }
}

fn translate<A: Copy + PartialEq + Into<IpAddr>>(
    family: Option<&Family<A>>,
    address: A,
    original_dst: SocketAddr,
    has_resolver: bool,
) -> Translation {
    let (mut is_bare_resolver, mut found) = (false, Translation::None);
    let Some(family) = family else { return Translation::None };
    for meaning in family.meanings_of(address) {
        match meaning {
            Meaning::Resolver | Meaning::Forwarder(_) if !has_resolver => {}
            Meaning::Resolver | Meaning::Forwarder(_) if original_dst.port() == DNS_PORT => {
                return Translation::Resolver;
            }
            Meaning::Forwarder(Some(secure)) if original_dst.port() == DNS_OVER_TLS_PORT => {
                let secure = SocketAddr::new(secure.into(), DNS_OVER_TLS_PORT);
                return Translation::HostItself(secure);
            }
            Meaning::Forwarder(_) => {}
            Meaning::Resolver => is_bare_resolver = true,
            Meaning::Router => return Translation::None,
            Meaning::HostLoopback => found = Translation::HostLoopback(host_loopback(original_dst)),
            Meaning::HostItself(host) => {
                let host = SocketAddr::new(host.into(), original_dst.port());
                found = Translation::HostItself(host);
            }
        }
    }
    if is_bare_resolver && found == Translation::None { Translation::NoService } else { found }
}

/// The unspecified address of the same family.
pub(crate) const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The same port of the host's loopback, in the same family.
pub(crate) const fn host_loopback(like: SocketAddr) -> SocketAddr {
    let ip = match like {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, like.port())
}

/// From the host to the guest: the address by which `guest` sees what the host side calls
/// `translated_src`. `None` where there is none, because the plan has no gateway that could stand
/// in or, in a conversation of the guest's own, the IP versions differ.
pub(crate) fn as_seen_by_guest(
    plan: &AddressPlan,
    opener: Opener,
    guest: IpAddr,
    translated_src: IpAddr,
) -> Option<IpAddr> {
    let listed = match translated_src {
        address if !may_be_listed(plan, address) => None,
        IpAddr::V4(v4) => {
            address_of(opener, plan.ipv4(), v4, v4 == Ipv4Addr::LOCALHOST).map(IpAddr::V4)
        }
        IpAddr::V6(v6) => {
            address_of(opener, plan.ipv6(), v6, v6 == Ipv6Addr::LOCALHOST).map(IpAddr::V6)
        }
    };
    let is_foreign = translated_src.is_ipv4() != guest.is_ipv4();
    match (opener, listed) {
        (Opener::Guest, _) if is_foreign => None,
        (Opener::Guest | Opener::Remote, Some(listed)) if !is_foreign => Some(listed),
        (Opener::Guest, _) if translated_src.is_loopback() => plan.stand_in(guest),
        (Opener::Remote, _)
            if is_foreign
                || translated_src == guest
                || plan.is_guests(translated_src)
                || is_near(plan, translated_src)
                || plan.is_unreachable_neighbor(translated_src) =>
        {
            plan.stand_in_for_client(guest)
        }
        (Opener::Remote, _) if plan.stands_for_another(translated_src) => plan.stand_in(guest),
        (Opener::Guest | Opener::Remote, _) => Some(translated_src),
    }
}

/// Whether the list may have another name for `host`. Most plans have one for the host's loopback
/// alone, so that the list need not be read for each datagram.
fn may_be_listed(plan: &AddressPlan, host: IpAddr) -> bool {
    host.is_loopback() || plan.renames_host()
}

/// The first address in the list that is translated to `host`. A remote that has one of the guest's
/// own addresses is this host under that address.
fn address_of<A: Copy + PartialEq>(
    opener: Opener,
    family: Option<&Family<A>>,
    host: A,
    is_localhost: bool,
) -> Option<A> {
    let family = family?;
    family.list().find_map(|(address, meaning)| {
        let is_it = match meaning {
            Meaning::HostLoopback => is_localhost,
            Meaning::HostItself(itself) => {
                itself == host || opener == Opener::Remote && family.is_guests(host)
            }
            Meaning::Router | Meaning::Resolver | Meaning::Forwarder(_) => false,
        };
        is_it.then_some(address)
    })
}

/// Whether an address means something to the host alone, or to its link where the guest does not
/// take the host's link for its own.
fn is_near(plan: &AddressPlan, address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let is_here = address.is_loopback() || address.is_unspecified();
    is_here || is_link_local && !plan.answers_for_everyone_else()
}

/// The address from which `guest` gets an ICMP error about what it sent to `original_dst`, which
/// was `translated_dst` on the host's side. It is that of the router that complained, where the
/// guest can make something of it: a loopback address would be dropped as a martian.
pub(crate) fn offender_as_seen_by_guest(
    plan: &AddressPlan,
    guest: IpAddr,
    offender: Option<IpAddr>,
    translated_dst: IpAddr,
    original_dst: IpAddr,
) -> Option<IpAddr> {
    match offender {
        Some(offender) if offender == translated_dst => Some(original_dst),
        Some(offender) => {
            as_seen_by_guest(plan, Opener::Guest, guest, offender).or_else(|| plan.stand_in(guest))
        }
        None => plan.stand_in(guest),
    }
}

/// The destinations of one guest endpoint as both sides know them, where the two differ: the memory
/// that makes an answer come from the address that was asked.
#[derive(Debug, Default)]
pub(crate) struct Translations {
    /// `(translated, original)`, the oldest first.
    pairs: Vec<(SocketAddr, SocketAddr)>,
}

impl Translations {
    pub(crate) const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// Notes that the guest has written `original_dst` for `translated_dst`. An address that is the
    /// same on both sides is remembered only if the plan would give it another name on the way
    /// back.
    pub(crate) fn note(
        &mut self,
        plan: &AddressPlan,
        original_dst: SocketAddr,
        translated_dst: SocketAddr,
    ) {
        let known = self.pairs.iter().position(|&(translated, _)| translated == translated_dst);
        if let Some(known) = known {
            if self.pairs[known].1 == original_dst {
                return;
            }
            self.pairs.remove(known);
        } else if original_dst == translated_dst && !is_renamed(plan, translated_dst.ip()) {
            return;
        }
        if self.pairs.len() == REMEMBERED_CAP {
            self.pairs.remove(0);
        }
        self.pairs.push((translated_dst, original_dst));
    }

    /// What the guest has written for `translated`, where that is remembered.
    pub(crate) fn original(&self, translated: SocketAddr) -> Option<SocketAddr> {
        self.pairs.iter().find(|&&(host, _)| host == translated).map(|&(_, original)| original)
    }

    /// Where what the guest has written last led, where that is remembered.
    pub(crate) fn translated(&self, original: SocketAddr) -> Option<SocketAddr> {
        let mut latest = self.pairs.iter().rev();
        latest.find(|&&(_, written)| written == original).map(|&(translated, _)| translated)
    }

    /// How the guest sees `remote`, remembered or by the plan.
    pub(crate) fn as_seen_by_guest(
        &self,
        plan: &AddressPlan,
        guest: IpAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        if let Some(original) = self.original(remote) {
            return Some(original);
        }
        if !may_be_listed(plan, remote.ip()) {
            return (remote.is_ipv4() == guest.is_ipv4()).then_some(remote);
        }
        let seen = as_seen_by_guest(plan, Opener::Guest, guest, remote.ip())?;
        Some(if seen == remote.ip() { remote } else { SocketAddr::new(seen, remote.port()) })
    }
}

/// Whether the plan alone shows `address` to its guest under another name.
fn is_renamed(plan: &AddressPlan, address: IpAddr) -> bool {
    address.is_loopback()
        || plan.renames_host()
            && as_seen_by_guest(plan, Opener::Guest, address, address) != Some(address)
}

#[cfg(test)]
mod tests;
