//! Which resolvers a guest is told of, and which of its addresses leads to the host's.
//!
//! Owns [`HostResolvers`], what resolv.conf(5) says of addresses and search domains, and
//! [`Resolvers`], what follows for a guest in one IP version. Pure functions. Asking the resolvers
//! is left to [`dns`](crate::dns).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use resolv_conf::{Config, ScopedIp};

/// Resolvers that a guest is told of at most, in one IP version: glibc takes as many.
const TOLD_CAP: usize = 3;

/// The host's resolvers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct HostResolvers {
    /// Their IPv4 addresses, in the order of the file.
    pub ipv4: Vec<Ipv4Addr>,
    /// Their IPv6 addresses, in the order of the file.
    pub ipv6: Vec<Ipv6Addr>,
    /// The search domains.
    pub search: Vec<String>,
}

impl HostResolvers {
    /// Reads the content of a resolv.conf(5). Lines that make no sense are skipped.
    pub fn parse(content: &[u8]) -> Self {
        let (config, _) = Config::parse_with_errors(content);
        let mut resolvers = Self::default();
        for address in &config.nameservers {
            match address {
                ScopedIp::V4(v4) => resolvers.ipv4.push(*v4),
                ScopedIp::V6(v6, _) => resolvers.ipv6.push(*v6),
            }
        }
        let search = config.get_last_search_or_domain();
        resolvers.search = search.map(ToOwned::to_owned).collect();
        resolvers
    }
}

/// What a person has chosen in one IP version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverChoice<A> {
    /// The guest is told of these, instead of the host's.
    pub told: Option<Vec<A>>,
    /// Queries to this address go to the host's resolvers.
    pub forwarded: Option<A>,
    /// The address of the guest's network that leads to the host's loopback.
    pub loopback: Option<A>,
}

impl<A> Default for ResolverChoice<A> {
    fn default() -> Self {
        Self { told: None, forwarded: None, loopback: None }
    }
}

/// The guest's resolvers in one IP version.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Resolvers<A> {
    /// The guest is told of these, at most three.
    pub told: Vec<A>,
    /// Queries to this address go to the host's resolvers.
    pub forwarded: Option<A>,
}

impl<A: Copy + PartialEq + Into<IpAddr>> Resolvers<A> {
    /// What follows from the host's resolvers of this IP version and a choice.
    ///
    /// A resolver on the host's loopback, or one that the guest's address for that loopback hides,
    /// is out of the guest's reach. Queries to the address for the loopback go to the host's
    /// resolvers then, unless another address is chosen for that. The guest is told of the address
    /// that queries may go to, in the place of the resolver.
    pub fn new(host: &[A], choice: ResolverChoice<A>) -> Self {
        let is_hidden =
            |resolver: &A| choice.loopback == Some(*resolver) || is_near_host((*resolver).into());
        let has_hidden = host.iter().any(is_hidden);
        let forwarded = choice.forwarded.or(choice.loopback.filter(|_| has_hidden));
        let told = choice.told.unwrap_or_else(|| {
            let seen = |resolver: &A| {
                if is_hidden(resolver) { forwarded } else { Some(*resolver) }
            };
            host.iter().filter_map(seen).collect()
        });
        let mut distinct: Vec<A> = Vec::new();
        for resolver in told {
            if distinct.len() < TOLD_CAP && !distinct.contains(&resolver) {
                distinct.push(resolver);
            }
        }
        Self { told: distinct, forwarded }
    }
}

/// Whether only the host reaches the address: on its loopback, or on one of its links.
fn is_near_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(addresses: &[[u8; 4]]) -> Vec<Ipv4Addr> {
        addresses.iter().map(|&address| address.into()).collect()
    }

    #[test]
    fn resolvers_of_the_host_are_told_and_hidden_ones_are_replaced() {
        const NEAR: [u8; 4] = [127, 0, 0, 53];
        const FAR: [u8; 4] = [192, 0, 2, 53];
        const GATEWAY: [u8; 4] = [192, 0, 2, 1];
        const CHOSEN: [u8; 4] = [169, 254, 1, 1];
        type Row<'a> =
            (&'a [[u8; 4]], Option<[u8; 4]>, Option<[u8; 4]>, &'a [[u8; 4]], Option<[u8; 4]>);
        let rows: [Row<'_>; 8] = [
            // Host's resolvers, chosen address, address for the loopback; told, forwarded.
            (&[FAR], None, Some(GATEWAY), &[FAR], None),
            (&[NEAR], None, Some(GATEWAY), &[GATEWAY], Some(GATEWAY)),
            (&[NEAR], None, None, &[], None),
            (&[NEAR], Some(CHOSEN), None, &[CHOSEN], Some(CHOSEN)),
            (&[NEAR, FAR, NEAR], Some(CHOSEN), Some(GATEWAY), &[CHOSEN, FAR], Some(CHOSEN)),
            (&[GATEWAY], None, Some(GATEWAY), &[GATEWAY], Some(GATEWAY)),
            (&[GATEWAY], None, None, &[GATEWAY], None),
            (&[], Some(CHOSEN), None, &[], Some(CHOSEN)),
        ];
        for (host, forwarded, loopback, told, leads) in rows {
            let choice = ResolverChoice {
                told: None,
                forwarded: forwarded.map(Ipv4Addr::from),
                loopback: loopback.map(Ipv4Addr::from),
            };
            let found = Resolvers::new(&v4(host), choice);
            assert_eq!(found.told, v4(told), "{host:?} {forwarded:?} {loopback:?}");
            assert_eq!(found.forwarded, leads.map(Ipv4Addr::from), "{host:?} {forwarded:?}");
        }
    }

    #[test]
    fn chosen_resolvers_stand_for_the_hosts_and_three_are_told() {
        let five: Vec<_> = (1..=5).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
        let choice = ResolverChoice { told: Some(five.clone()), ..ResolverChoice::default() };
        let found = Resolvers::new(&v4(&[[127, 0, 0, 1]]), choice);
        assert_eq!(found.told, five[..3]);
        let none = ResolverChoice { told: Some(Vec::new()), ..ResolverChoice::default() };
        assert!(Resolvers::new(&five, none).told.is_empty());
    }

    #[test]
    fn file_has_resolvers_and_domains() {
        let parsed = HostResolvers::parse(
            b"search example.org lan\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnonsense\n\
              nameserver 2001:db8::53\n",
        );
        assert_eq!(parsed.ipv4, [Ipv4Addr::new(127, 0, 0, 53)]);
        let v6: [Ipv6Addr; 2] = ["fe80::1".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        assert_eq!(parsed.ipv6, v6);
        assert_eq!(parsed.search, ["example.org", "lan"]);
        // The first is on a link of the host, where the guest is not.
        let found = Resolvers::new(&parsed.ipv6, ResolverChoice::default());
        assert_eq!(found.told, v6[1..]);
    }
}
