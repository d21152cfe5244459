//! The plan of a guest that has the host's own addresses, as pasta(1) gives them.
//!
//! Owns which addresses of such a plan mean something. Nothing is renumbered: the guest's network
//! is the host's, and we answer for everybody else in it. What the guest cannot reach under its own
//! name is the host itself, for which it gets other names: the gateway, or addresses of the
//! caller's choice. Where the host's addresses come from is left to the caller.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::family::{Family, Meaning};
use super::{AddressPlan, Answers, PlanError, link_local_made_from};
use crate::mac::MacAddr;

/// Our MAC address by default; pasta's.
pub const MIRROR_MAC: MacAddr = MacAddr([0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55]);

/// A guest that has the host's own addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirrored {
    /// The IPv4 side, if the guest has IPv4.
    pub ipv4: Option<MirroredFamily<Ipv4Addr>>,
    /// The IPv6 side, if the guest has IPv6.
    pub ipv6: Option<MirroredFamily<Ipv6Addr>>,
    /// Our MAC address, which stands for every address but the guest's.
    pub our_mac: MacAddr,
    /// Index of the host's interface whose link is the guest's: link-local IPv6 addresses that the
    /// guest writes are on that link. `None` if there is none; then they lead nowhere.
    pub host_link: Option<u32>,
}

impl Default for Mirrored {
    /// Neither family yet, [`MIRROR_MAC`], and no link of the host.
    fn default() -> Self {
        Self { ipv4: None, ipv6: None, our_mac: MIRROR_MAC, host_link: None }
    }
}

/// One IP version of a guest that has the host's own addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MirroredFamily<A> {
    /// The guest's address: the one that DHCP hands out, and that ports of the host lead to until
    /// the guest is heard with another.
    pub guest: A,
    /// Length of the prefix of the guest's network in bits, 0..=32 or 0..=128.
    pub prefix_len: u8,
    /// Whether ports of the host lead to `guest` even after the guest was heard with another
    /// address (default false).
    pub is_fixed: bool,
    /// Other addresses that the guest gets (default none). Those beyond the first
    /// [`OTHER_GUESTS_CAP`](super::OTHER_GUESTS_CAP) are not known as the guest's own before the
    /// guest was heard with them.
    pub others: Vec<A>,
    /// The guest's default gateway (default none). It may lie outside the guest's network.
    pub gateway: Option<A>,
    /// Whether the gateway stands for the host's loopback (default false). Otherwise it is the
    /// host's own gateway and can be reached like any other address.
    pub is_gateway_host: bool,
    /// Addresses that stand for the host's loopback besides (default none). A client from the
    /// host's loopback appears as the first, or as the gateway where that stands for it and there
    /// is no other.
    pub host_loopback: Vec<A>,
    /// The host's own address, to which `host_itself` leads (default: the guest's).
    pub host: A,
    /// The address that stands for the host itself (default none).
    pub host_itself: Option<A>,
    /// The address whose port 53 is the resolver (default none). Its other ports are reached as the
    /// guest wrote them.
    pub resolver: Option<A>,
    /// Where port 853 of the resolver leads (DNS over TLS; default: to the address that the guest
    /// wrote). Ignored unless it is the address of one station; that may be the host's loopback.
    pub secure_resolver: Option<A>,
}

impl<A: Copy + PartialEq + Into<IpAddr>> MirroredFamily<A> {
    /// A guest at `guest` in a network with a prefix of `prefix_len` bits, without a gateway and
    /// without another name for the host.
    pub const fn new(guest: A, prefix_len: u8) -> Self {
        Self {
            guest,
            prefix_len,
            is_fixed: false,
            others: Vec::new(),
            gateway: None,
            is_gateway_host: false,
            host_loopback: Vec::new(),
            host: guest,
            host_itself: None,
            resolver: None,
            secure_resolver: None,
        }
    }

    /// The family of the plan. Where an address is named twice, the first that is named here has
    /// it: resolver, host's loopback, host itself, gateway, `link_local`. The resolver leaves its
    /// other ports to the second.
    fn family(&self, link_local: Option<A>) -> Result<Family<A>, PlanError> {
        let mut meanings = Vec::new();
        if let Some(resolver) = self.resolver {
            let can_be_reached = |&address: &A| super::can_be_resolver(address.into());
            let secure = self.secure_resolver.filter(can_be_reached);
            meanings.push((resolver, Meaning::Forwarder(secure)));
        }
        let gateway_meaning =
            if self.is_gateway_host { Meaning::HostLoopback } else { Meaning::Router };
        let loopbacks = self.host_loopback.iter().map(|&address| (address, Meaning::HostLoopback));
        let itself = self.host_itself.map(|address| (address, Meaning::HostItself(self.host)));
        let gateway = self.gateway.map(|address| (address, gateway_meaning));
        let link_local_router = link_local.map(|address| (address, Meaning::Router));
        for (address, meaning) in loopbacks.chain(itself).chain(gateway).chain(link_local_router) {
            let is_taken = meanings.iter().any(|&(other, listed)| {
                other == address && !matches!(listed, Meaning::Forwarder(_))
            });
            if !is_taken {
                meanings.push((address, meaning));
            }
        }
        Family {
            gateway: self.gateway,
            link_local,
            may_move: !self.is_fixed,
            ..Family::new(self.guest, self.prefix_len)
        }
        .with_others(&self.others)
        .with_meanings(&meanings)
    }
}

impl MirroredFamily<Ipv4Addr> {
    /// The addresses of a guest whose host has no IPv4 (yet): 169.254.2.1/16, and the gateway
    /// 169.254.2.2.
    pub fn local() -> Self {
        let gateway = Some(Ipv4Addr::new(169, 254, 2, 2));
        Self { gateway, ..Self::new(Ipv4Addr::new(169, 254, 2, 1), 16) }
    }
}

impl MirroredFamily<Ipv6Addr> {
    /// The addresses of a guest whose host has no IPv6 (yet): the link-local address that it makes
    /// from `guest_mac`, and the gateway fe80::1.
    pub fn local(guest_mac: MacAddr) -> Self {
        let gateway = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
        Self { gateway, ..Self::new(link_local_made_from(guest_mac), 64) }
    }

    /// Our link-local address: the gateway's if that is one, else the one that belongs to
    /// `our_mac`.
    fn link_local(&self, our_mac: MacAddr) -> Ipv6Addr {
        let gateway = self.gateway.filter(Ipv6Addr::is_unicast_link_local);
        gateway.unwrap_or_else(|| link_local_made_from(our_mac))
    }
}

impl AddressPlan {
    /// The plan of a guest that has the host's own addresses. We answer for everybody else, and
    /// loopback addresses in the guest's packets lead nowhere.
    ///
    /// # Errors
    /// As for [`new`](Self::new), and [`PlanError::TooManyMeanings`].
    pub fn mirrored(mirrored: &Mirrored) -> Result<Self, PlanError> {
        let mac = mirrored.our_mac;
        let v4 = mirrored.ipv4.as_ref().map(|v4| v4.family(None)).transpose()?;
        let v6 =
            mirrored.ipv6.as_ref().map(|v6| v6.family(Some(v6.link_local(mac)))).transpose()?;
        let plan = Self::new(v4, v6, Answers::EveryoneElse)?;
        let host_link = mirrored.host_link;
        Ok(Self { macs: [mac; 2], one_mac: Some(mac), passes_loopback: false, host_link, ..plan })
    }
}

#[cfg(test)]
#[path = "tests/mirrored.rs"]
mod tests;
