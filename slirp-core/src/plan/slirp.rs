//! The numbers of slirp4netns(1) in a network of the caller's choice.
//!
//! Owns what `--cidr` and `--cidr6` choose and the offsets from there: gateway `.2`, DNS `.3`, DHCP
//! pool `.15`-`.30`, recommended guest address `.100`. The gateway stands for the host's loopback.
//! The stack is told the [`AddressPlan`](super::AddressPlan) that follows.

use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use super::PlanError;
use super::family::{Family, Meaning, Unlisted};

/// An IPv4 network with the numbers of slirp4netns, and an IPv6 network beside it where one is
/// wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlirpNetwork {
    network: Ipv4Addr,
    prefix_len: u8,
    ipv6: Option<Ipv6Plan>,
}

impl SlirpNetwork {
    /// The IPv4 network `network`/`prefix_len`, without IPv6.
    ///
    /// # Errors
    /// [`PlanError::PrefixLength`] when `prefix_len` is not in 1..=25 and, checked after that,
    /// [`PlanError::HostBits`] when `network` is not a network address.
    pub fn new(network: Ipv4Addr, prefix_len: u8) -> Result<Self, PlanError> {
        if !(1..=25).contains(&prefix_len) {
            return Err(PlanError::PrefixLength(prefix_len));
        }
        let plan = Self { network, prefix_len, ipv6: None };
        let expected = Ipv4Addr::from_bits(network.to_bits() & plan.mask_bits());
        if expected != network {
            return Err(PlanError::HostBits { given: network, expected, prefix: prefix_len });
        }
        Ok(plan)
    }

    /// The same with the IPv6 network `ipv6`.
    #[must_use]
    pub const fn with_ipv6(mut self, ipv6: Ipv6Plan) -> Self {
        self.ipv6 = Some(ipv6);
        self
    }

    /// The IPv4 network address.
    pub const fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Length of the IPv4 prefix in bits.
    pub const fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The IPv4 netmask.
    pub const fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.mask_bits())
    }

    /// The subnet's directed broadcast address.
    pub const fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !self.mask_bits())
    }

    /// The IPv4 gateway, `.2`; stands for the host's loopback.
    pub const fn gateway(&self) -> Ipv4Addr {
        self.host(2)
    }

    /// The IPv4 DNS service, `.3`.
    pub const fn dns(&self) -> Ipv4Addr {
        self.host(3)
    }

    /// First address of the DHCP pool, `.15`.
    pub const fn dhcp_begin(&self) -> Ipv4Addr {
        self.host(15)
    }

    /// Last address of the DHCP pool, `.30`.
    pub const fn dhcp_end(&self) -> Ipv4Addr {
        self.host(30)
    }

    /// The address that `--configure` gives the guest, `.100`.
    pub const fn recommended_guest(&self) -> Ipv4Addr {
        self.host(100)
    }

    /// The IPv6 network, if IPv6 is enabled.
    pub const fn ipv6(&self) -> Option<&Ipv6Plan> {
        self.ipv6.as_ref()
    }

    /// Whether `address` lies in the IPv4 network.
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask_bits() == self.network.to_bits()
    }

    pub(super) fn family(&self) -> Family<Ipv4Addr> {
        Family {
            gateway: Some(self.gateway()),
            pool: Some((self.dhcp_begin(), self.dhcp_end())),
            ..Family::new(self.recommended_guest(), self.prefix_len)
        }
        .listing([
            Some((self.gateway(), Meaning::HostLoopback)),
            Some((self.dns(), Meaning::Resolver)),
            None,
            None,
        ])
    }

    const fn mask_bits(&self) -> u32 {
        u32::MAX << (32 - self.prefix_len as u32)
    }

    const fn host(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + offset)
    }
}

impl Default for SlirpNetwork {
    /// 10.0.2.0/24 without IPv6.
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 0, 2, 0), prefix_len: 24, ipv6: None }
    }
}

/// The IPv6 half of a [`SlirpNetwork`]; always a /64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv6Plan {
    prefix: Ipv6Addr,
}

impl Ipv6Plan {
    /// The link-local address of the gateway, source of router advertisements.
    pub const GATEWAY_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    /// The link-local address of the DNS service.
    pub const DNS_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3);
    /// Length of the prefix in bits.
    pub const PREFIX_LEN: u8 = 64;

    /// A plan for the /64 network `prefix`. It may be a unique local one (RFC 4193) or any other
    /// that the guest does not have to reach: all of it stands for this host.
    ///
    /// # Errors
    /// [`PlanError::Ipv6Reserved`] and, checked after that, [`PlanError::Ipv6HostBits`] when any of
    /// the last 64 bits is set.
    pub fn new(prefix: Ipv6Addr) -> Result<Self, PlanError> {
        let [a, b, c, d, ..] = prefix.segments();
        let expected = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
        let is_reserved =
            expected.is_unspecified() || prefix.is_unicast_link_local() || prefix.is_multicast();
        if is_reserved {
            return Err(PlanError::Ipv6Reserved(expected));
        }
        if expected != prefix {
            return Err(PlanError::Ipv6HostBits { given: prefix, expected });
        }
        Ok(Self { prefix })
    }

    /// The network address.
    pub const fn prefix(&self) -> Ipv6Addr {
        self.prefix
    }

    /// The gateway, `prefix::2`; stands for the host's loopback.
    pub const fn gateway(&self) -> Ipv6Addr {
        self.host(2)
    }

    /// The DNS service, `prefix::3`.
    pub const fn dns(&self) -> Ipv6Addr {
        self.host(3)
    }

    /// The address that a guest with a fixed one is to have, `prefix::100`. Others make their own.
    pub const fn recommended_guest(&self) -> Ipv6Addr {
        self.host(0x100)
    }

    /// Whether `address` lies in the virtual network.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.segments()[..4] == self.prefix.segments()[..4]
    }

    pub(super) fn family(&self) -> Family<Ipv6Addr> {
        Family {
            gateway: Some(self.gateway()),
            link_local: Some(Self::GATEWAY_LINK_LOCAL),
            unlisted: Unlisted::HostLoopback,
            ..Family::new(self.recommended_guest(), Self::PREFIX_LEN)
        }
        .listing([
            Some((self.gateway(), Meaning::HostLoopback)),
            Some((self.dns(), Meaning::Resolver)),
            Some((Self::GATEWAY_LINK_LOCAL, Meaning::HostLoopback)),
            Some((Self::DNS_LINK_LOCAL, Meaning::Resolver)),
        ])
    }

    const fn host(&self, last: u16) -> Ipv6Addr {
        let s = self.prefix.segments();
        Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, last)
    }
}

impl FromStr for Ipv6Plan {
    type Err = PlanError;

    /// Reads `prefix/64`.
    ///
    /// # Errors
    /// [`PlanError::Ipv6Syntax`], [`PlanError::Ipv6PrefixLength`] and those of [`new`](Self::new).
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (prefix, len) = text.split_once('/').ok_or(PlanError::Ipv6Syntax)?;
        let prefix = prefix.parse().map_err(|_| PlanError::Ipv6Syntax)?;
        if len.is_empty() || len.len() > 3 || !len.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PlanError::Ipv6Syntax);
        }
        let len = len.parse().map_err(|_| PlanError::Ipv6Syntax)?;
        if len != Self::PREFIX_LEN {
            return Err(PlanError::Ipv6PrefixLength(len));
        }
        Self::new(prefix)
    }
}

impl Default for Ipv6Plan {
    fn default() -> Self {
        Self { prefix: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0) }
    }
}
