//! Why an address plan was refused.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// The plan has neither IPv4 nor IPv6.
    #[error("the plan has no addresses: it needs IPv4, IPv6 or both")]
    NoFamily,
    /// The prefix is longer than an address.
    #[error("the prefix of {guest} is at most {longest} bits long, not {given}")]
    PrefixTooLong {
        /// The guest's address.
        guest: IpAddr,
        /// The prefix length as it was given.
        given: u8,
        /// The longest prefix of its IP version.
        longest: u8,
    },
    /// The address cannot belong to a single station.
    #[error("{0} is not the address of a single station")]
    NotUnicast(IpAddr),
    /// The guest's own address has another meaning in the plan.
    #[error("{0} is the guest's own address and cannot mean anything else")]
    GuestHasMeaning(IpAddr),
    /// The gateway, or our link-local address, has no meaning, so it would never be answered for.
    #[error("the gateway {0} has no meaning: list it as a router or as the host's loopback")]
    GatewayHasNoMeaning(IpAddr),
    /// An address means two things, and neither is the resolver, which takes its own port alone.
    #[error("{0} has two meanings")]
    TwoMeanings(IpAddr),
    /// More addresses have a meaning than a plan may list.
    #[error("more than {} addresses have a meaning", super::family::MEANINGS_CAP)]
    TooManyMeanings,
    /// The DHCP pool is empty, too large, or lies partly outside the guest's network.
    #[error(
        "the DHCP pool {first} to {last} is not 1 to {} addresses of the guest's network",
        super::family::POOL_CAP
    )]
    Pool {
        /// First address.
        first: IpAddr,
        /// Last address.
        last: IpAddr,
    },
}
