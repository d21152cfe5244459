//! The address plan: which addresses the guest sees and what each of them stands for.
//!
//! Owns the virtual IPv4 network (10.0.2.0/24 by default), the optional virtual IPv6 network
//! (fd00::/64 by default) and the virtual MAC addresses. What a guest may *do* with an address is
//! decided in [`policy`](crate::policy).
//!
//! The numbers are those of slirp4netns(1): gateway `.2`, DNS `.3`, DHCP pool `.15`-`.30`,
//! recommended guest address `.100`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::mac::MacAddr;

/// Why an address plan was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The prefix length is outside 1..=25, so the recommended guest address would not fit.
    #[error("prefix length needs to be 1-25")]
    PrefixLength(u8),
    /// Bits right of the prefix are set.
    #[error(
        "CIDR needs to be a network address like {expected}/{prefix}, not like {given}/{prefix}"
    )]
    HostBits {
        /// The address as it was given.
        given: Ipv4Addr,
        /// The network address that it belongs to.
        expected: Ipv4Addr,
        /// The prefix length as it was given.
        prefix: u8,
    },
    /// Not of the form `prefix/64`.
    #[error("expected an IPv6 network such as fd00::/64")]
    Ipv6Syntax,
    /// The prefix is not a /64, the only one in which hosts make their own addresses (RFC 4862
    /// section 5.5.3, RFC 4291 section 2.5.4).
    #[error("the prefix length needs to be 64, not {0}: guests make their addresses in a /64")]
    Ipv6PrefixLength(u8),
    /// The network means something of its own to every host: loopback, unspecified, v4-mapped and
    /// v4-compatible addresses (all in ::/64), link-local and multicast addresses (RFC 4291).
    #[error("{0}/64 cannot be a guest's network: it is loopback, link-local or multicast")]
    Ipv6Reserved(Ipv6Addr),
    /// Bits right of the /64 are set in an IPv6 prefix.
    #[error("needs to be a network address like {expected}/64, not like {given}/64")]
    Ipv6HostBits {
        /// The address as it was given.
        given: Ipv6Addr,
        /// The network address that it belongs to.
        expected: Ipv6Addr,
    },
}

/// The addresses of the virtual IPv6 network; always a /64.
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

    /// A plan for the /64 network `prefix`. It may be a unique local one (RFC 4193) or any other that
    /// the guest does not have to reach: all of it stands for this host.
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

    /// The address that a guest with this Ethernet address makes for itself from our router
    /// advertisements, unless it was told to hide the Ethernet address (RFC 4862 section 5.5.3 with the
    /// modified EUI-64 of RFC 4291 appendix A; Linux' `addr_gen_mode` 0, which new namespaces have).
    pub const fn address_made_from(&self, mac: MacAddr) -> Ipv6Addr {
        let s = self.prefix.segments();
        let [i0, i1, i2, i3] = interface_identifier(mac);
        Ipv6Addr::new(s[0], s[1], s[2], s[3], i0, i1, i2, i3)
    }

    /// The link-local address that a guest with this Ethernet address makes for itself in the same
    /// way (RFC 4291 section 2.5.6).
    pub const fn link_local_made_from(mac: MacAddr) -> Ipv6Addr {
        let [i0, i1, i2, i3] = interface_identifier(mac);
        Ipv6Addr::new(0xfe80, 0, 0, 0, i0, i1, i2, i3)
    }

    /// Whether `address` lies in the virtual network.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        address.segments()[..4] == self.prefix.segments()[..4]
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

/// What a virtual address stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtualHost {
    /// The gateway: the host's loopback, and the router of the guest.
    Gateway,
    /// The built-in DNS service.
    Dns,
}

/// Which addresses the guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressPlan {
    network: Ipv4Addr,
    prefix_len: u8,
    ipv6: Option<Ipv6Plan>,
}

impl AddressPlan {
    /// A plan for the IPv4 network `network`/`prefix_len`, without IPv6.
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

    /// The same plan with the IPv6 network `ipv6`.
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

    /// The IPv6 side of the plan, if IPv6 is enabled.
    pub const fn ipv6(&self) -> Option<&Ipv6Plan> {
        self.ipv6.as_ref()
    }

    /// Whether `address` lies in the virtual IPv4 network.
    pub const fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask_bits() == self.network.to_bits()
    }

    /// Whether a guest can have `address`, so that ports of the host may lead there: none of ours,
    /// no group, and of an IP version that there is.
    pub fn is_guest_address(&self, address: IpAddr) -> bool {
        !address.is_unspecified()
            && !address.is_multicast()
            && !address.is_loopback()
            && self.virtual_host(address).is_none()
            && (address.is_ipv4() || self.ipv6().is_some())
    }

    /// What `address` stands for when it is one of ours.
    pub fn virtual_host(&self, address: IpAddr) -> Option<VirtualHost> {
        match address {
            IpAddr::V4(v4) if v4 == self.gateway() => Some(VirtualHost::Gateway),
            IpAddr::V4(v4) if v4 == self.dns() => Some(VirtualHost::Dns),
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => {
                let plan = self.ipv6.as_ref()?;
                if v6 == plan.gateway() || v6 == Ipv6Plan::GATEWAY_LINK_LOCAL {
                    Some(VirtualHost::Gateway)
                } else if v6 == plan.dns() || v6 == Ipv6Plan::DNS_LINK_LOCAL {
                    Some(VirtualHost::Dns)
                } else {
                    None
                }
            }
        }
    }

    /// The virtual MAC address that belongs to one of our addresses: `52:55:<IPv4>` or
    /// `52:56:<last four bytes of the IPv6 address>`.
    pub const fn mac_of(address: IpAddr) -> MacAddr {
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

    /// The MAC address that is the source of every IPv4 frame to the guest: the gateway's.
    pub const fn gateway_mac(&self) -> MacAddr {
        Self::mac_of(IpAddr::V4(self.gateway()))
    }

    const fn mask_bits(&self) -> u32 {
        u32::MAX << (32 - self.prefix_len as u32)
    }

    const fn host(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + offset)
    }
}

impl Default for AddressPlan {
    /// 10.0.2.0/24 without IPv6.
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 0, 2, 0), prefix_len: 24, ipv6: None }
    }
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
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the plan has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl AssumedGuest {
    /// The recommended IPv4 address, as slirp4netns(1) has it. In IPv6 the one that a guest makes for
    /// itself from the Ethernet address `mac` of its interface, or the recommended one where that is unknown.
    pub fn new(plan: &AddressPlan, mac: Option<MacAddr>) -> Self {
        let made = |ipv6: &Ipv6Plan| match mac {
            Some(mac) => ipv6.address_made_from(mac),
            None => ipv6.recommended_guest(),
        };
        Self { ipv4: plan.recommended_guest(), ipv6: plan.ipv6().map(made) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_plan_has_the_documented_addresses() {
        let plan = AddressPlan::default();
        assert_eq!(plan.gateway(), Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(plan.dns(), Ipv4Addr::new(10, 0, 2, 3));
        assert_eq!(plan.dhcp_begin(), Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(plan.dhcp_end(), Ipv4Addr::new(10, 0, 2, 30));
        assert_eq!(plan.recommended_guest(), Ipv4Addr::new(10, 0, 2, 100));
        assert_eq!(plan.netmask(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(plan.broadcast(), Ipv4Addr::new(10, 0, 2, 255));
        assert_eq!(plan.gateway_mac(), MacAddr([0x52, 0x55, 10, 0, 2, 2]));
    }

    #[test]
    fn prefix_is_checked_before_host_bits() {
        let odd = Ipv4Addr::new(10, 0, 2, 100);
        assert_eq!(AddressPlan::new(odd, 26), Err(PlanError::PrefixLength(26)));
        assert_eq!(AddressPlan::new(odd, 0), Err(PlanError::PrefixLength(0)));
        assert_eq!(
            AddressPlan::new(odd, 24).unwrap_err().to_string(),
            "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24"
        );
    }

    #[test]
    fn ipv6_network_is_any_64_that_hosts_do_not_use_themselves() {
        let plan: Ipv6Plan = "fd12:3456:789a:1::/64".parse().unwrap();
        assert_eq!(plan.gateway(), "fd12:3456:789a:1::2".parse::<Ipv6Addr>().unwrap());
        assert_eq!(plan.dns(), "fd12:3456:789a:1::3".parse::<Ipv6Addr>().unwrap());
        assert_eq!(plan.recommended_guest(), "fd12:3456:789a:1::100".parse::<Ipv6Addr>().unwrap());
        assert!(plan.contains("fd12:3456:789a:1:ffff::".parse().unwrap()));
        assert!(!plan.contains("fd12:3456:789a:2::".parse().unwrap()));
        assert_eq!("fd00::/64".parse(), Ok(Ipv6Plan::default()));
        for good in ["2001:db8::/64", "fec0::/64", "64:ff9b::/064"] {
            assert!(good.parse::<Ipv6Plan>().is_ok(), "{good}");
        }
    }

    #[test]
    fn an_address_that_a_guest_makes_itself_is_known_beforehand() {
        // The example of RFC 2464 section 4, in a network of ours.
        let mac = MacAddr([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
        let made = Ipv6Plan::default().address_made_from(mac);
        assert_eq!(made, "fd00::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap());

        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        let recommended = Some("fd00::100".parse().unwrap());
        assert_eq!(AssumedGuest::new(&plan, Some(mac)).ipv6, Some(made));
        assert_eq!(AssumedGuest::new(&plan, None).ipv6, recommended);
        let without = AssumedGuest::new(&AddressPlan::default(), Some(mac));
        assert_eq!((without.ipv4, without.ipv6), (Ipv4Addr::new(10, 0, 2, 100), None));
    }

    #[test]
    fn other_ipv6_networks_are_refused_with_the_reason() {
        const SYNTAX: &str = "expected an IPv6 network such as fd00::/64";
        for bad in
            ["", "fd00::", "fd00::/", "fd00::/+64", "fd00::/0064", "fd00::/999", "10.0.2.0/64"]
        {
            assert_eq!(bad.parse::<Ipv6Plan>().unwrap_err().to_string(), SYNTAX, "{bad}");
        }
        for len in [0, 48, 63, 65, 128] {
            let text = format!("fd00::/{len}");
            assert_eq!(text.parse::<Ipv6Plan>(), Err(PlanError::Ipv6PrefixLength(len)));
        }
        for bad in ["::", "::1", "::ffff:10.0.2.0", "::10.0.2.0", "fe80::", "febf::1", "ff02::1"] {
            let error = format!("{bad}/64").parse::<Ipv6Plan>().unwrap_err();
            assert!(matches!(error, PlanError::Ipv6Reserved(_)), "{bad}: {error}");
        }
        assert_eq!(
            "fd00::1/64".parse::<Ipv6Plan>().unwrap_err().to_string(),
            "needs to be a network address like fd00::/64, not like fd00::1/64"
        );
    }

    #[test]
    fn guest_has_none_of_our_addresses_and_no_group() {
        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        for (address, expected) in [
            ("10.0.2.100", true),
            ("192.0.2.1", true),
            ("fd00::100", true),
            ("10.0.2.2", false),
            ("10.0.2.3", false),
            ("0.0.0.0", false),
            ("127.0.0.1", false),
            ("224.0.0.1", false),
            ("fd00::2", false),
            ("fe80::2", false),
            ("::1", false),
            ("ff02::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(plan.is_guest_address(address), expected, "{address}");
        }
        assert!(!AddressPlan::default().is_guest_address("fd00::100".parse().unwrap()));
    }

    #[test]
    fn virtual_hosts_of_both_families_are_known() {
        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        for (address, expected) in [
            ("10.0.2.2", Some(VirtualHost::Gateway)),
            ("10.0.2.3", Some(VirtualHost::Dns)),
            ("10.0.2.4", None),
            ("fd00::2", Some(VirtualHost::Gateway)),
            ("fe80::2", Some(VirtualHost::Gateway)),
            ("fd00::3", Some(VirtualHost::Dns)),
            ("fe80::3", Some(VirtualHost::Dns)),
            ("fd00::4", None),
        ] {
            assert_eq!(plan.virtual_host(address.parse().unwrap()), expected, "{address}");
        }
        assert_eq!(AddressPlan::default().virtual_host("fd00::2".parse().unwrap()), None);
    }
}
