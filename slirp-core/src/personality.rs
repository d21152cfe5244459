//! How the services of the link speak to a guest, and which of them are silent.
//!
//! Owns plain values: [`Personality`] with what is [`Told`], and [`Silence`]. The messages are in
//! the services. Published in [`config`](crate::config).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How DHCP, DHCPv6 and router advertisements give a guest its configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Personality {
    /// As slirp4netns(1) does: DHCP leases addresses of a pool for a day, DHCPv6 has no addresses,
    /// and guests make their own from router advertisements. The plan's resolver is told.
    #[default]
    Pool,
    /// As pasta(1) does: DHCP and DHCPv6 give every client the guest's address in the plan, for
    /// ever.
    Single(Told),
}

/// What a guest is told besides its address and its gateway.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Told {
    /// MTU of the guest's interface in bytes (default: none is told).
    pub mtu: Option<u16>,
    /// Addresses of resolvers; the first three of each IP version are told (default none).
    pub dns: Vec<IpAddr>,
    /// The guest's host name (DHCP option 12; default none).
    pub host_name: Option<String>,
    /// The guest's fully qualified domain name, told to clients that ask for it or tell their own
    /// (DHCP option 81, DHCPv6 option 39; default none). An invalid name is skipped.
    pub fqdn: Option<String>,
}

/// Resolvers of one IP version that are told (arbitrary: resolv.conf holds as many).
const DNS_CAP: usize = 3;

impl Told {
    /// The IPv4 addresses of resolvers that are told.
    pub(crate) fn dns4(&self) -> impl Iterator<Item = Ipv4Addr> {
        let dns = self.dns.iter().filter_map(|&address| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        dns.take(DNS_CAP)
    }

    /// The IPv6 addresses of resolvers that are told.
    pub(crate) fn dns6(&self) -> impl Iterator<Item = Ipv6Addr> {
        let dns = self.dns.iter().filter_map(|&address| match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        });
        dns.take(DNS_CAP)
    }
}

/// What of a guest's packets is dropped silently (default: nothing).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Silence {
    /// Whether TCP is dropped.
    pub tcp: bool,
    /// Whether UDP is dropped, but for the services of the link.
    pub udp: bool,
    /// Whether echo requests are dropped.
    pub echo: bool,
    /// Whether DHCP requests are dropped.
    pub dhcp: bool,
    /// Whether DHCPv6 messages are dropped.
    pub dhcpv6: bool,
    /// Whether neighbour solicitations are dropped. What they say of the guest is learnt all the
    /// same.
    pub ndp: bool,
    /// Whether no router advertisement is sent, asked for or not.
    pub router_advertisements: bool,
}
