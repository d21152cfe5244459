//! Which clients of forwarded ports are joined to the guest's sockets, and at which address.
//!
//! Owns the choice between the link and the namespace's loopback or own address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses to try, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Targets {
    pub(crate) first: SocketAddr,
    /// Tried if nothing listens at the first one: a client of `localhost` tries IPv6 first, and a
    /// service may be there in IPv4 alone.
    pub(crate) other: Option<SocketAddr>,
}

/// Where clients on the host's loopback are led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inward {
    to_guest_loopback: bool,
    guest: (Option<Ipv4Addr>, Option<Ipv6Addr>),
}

impl Inward {
    pub(crate) const fn new(
        to_guest_loopback: bool,
        guest: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    ) -> Self {
        Self { to_guest_loopback, guest }
    }

    /// Where in the namespace `client` is led to, that used the address `local` of the host and
    /// a forward rule to `guest`; `None` if that is left to the link. `current` says where a guest
    /// that has taken another address is now.
    pub(crate) fn targets(
        &self,
        client: IpAddr,
        local: IpAddr,
        guest: SocketAddr,
        current: impl Fn(SocketAddr) -> SocketAddr,
    ) -> Option<Targets> {
        let is_ours = match guest.ip() {
            IpAddr::V4(v4) => v4.is_unspecified() || self.guest.0.is_none_or(|own| own == v4),
            IpAddr::V6(v6) => v6.is_unspecified() || self.guest.1.is_none_or(|own| own == v6),
        };
        if !client.is_loopback() || !is_ours {
            return None;
        }
        let (ipv4, ipv6) = if self.to_guest_loopback {
            (Some(Ipv4Addr::LOCALHOST), Some(Ipv6Addr::LOCALHOST))
        } else {
            match guest.ip() {
                IpAddr::V4(v4) => (self.guest.0.or(Some(v4)), self.guest.1),
                IpAddr::V6(v6) => (self.guest.0, self.guest.1.or(Some(v6))),
            }
        };
        let used = Some(local).filter(|local| self.to_guest_loopback && local.is_loopback());
        let (ipv4, ipv6) = (ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6));
        let (own, other) = if client.is_ipv4() { (ipv4, ipv6) } else { (ipv6, ipv4) };
        let at = |ip: IpAddr| current(SocketAddr::new(ip, guest.port()));
        let is_real = |ip: &IpAddr| !ip.is_unspecified();
        let mut found = used.or(own).into_iter().chain(other).filter(is_real).map(at);
        Some(Targets { first: found.next()?, other: found.next() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(inward: &Inward, client: &str, local: &str, guest: &str) -> Option<Vec<String>> {
        let guest = guest.parse().unwrap();
        let (client, local) = (client.parse().unwrap(), local.parse().unwrap());
        let moved = |at: SocketAddr| {
            let is_moved = at.ip() == IpAddr::from([10, 0, 2, 55]);
            if is_moved { SocketAddr::new([10, 0, 2, 56].into(), at.port()) } else { at }
        };
        let found = inward.targets(client, local, guest, moved)?;
        Some([Some(found.first), found.other].iter().flatten().map(SocketAddr::to_string).collect())
    }

    #[test]
    fn loopback_clients_reach_the_guest_in_their_ip_version_first() {
        let guest = (Some([10, 0, 2, 100].into()), Some("2001:db8::9".parse().unwrap()));
        let inward = Inward { to_guest_loopback: false, guest };
        let of = |client, local, guest| targets(&inward, client, local, guest);
        let both = |list: [&str; 2]| Some(list.map(str::to_owned).to_vec());
        assert_eq!(
            of("127.0.0.1", "127.0.0.1", "10.0.2.100:80"),
            both(["10.0.2.100:80", "[2001:db8::9]:80"])
        );
        assert_eq!(
            of("::1", "::1", "10.0.2.100:80"),
            both(["[2001:db8::9]:80", "10.0.2.100:80"]),
            "an IPv6 client of a rule for both versions"
        );
        assert_eq!(of("127.0.0.1", "127.0.0.1", "10.0.2.7:80"), None, "another address");
        assert_eq!(of("192.0.2.1", "192.0.2.1", "10.0.2.100:80"), None, "not on loopback");
        let single = Inward { guest: (guest.0, None), ..inward };
        assert_eq!(
            targets(&single, "::1", "::1", "0.0.0.0:80"),
            Some(vec!["10.0.2.100:80".to_owned()])
        );
    }

    #[test]
    fn loopback_clients_follow_a_guest_that_has_moved() {
        let guest = (Some([10, 0, 2, 55].into()), None);
        for (to_guest_loopback, expected) in [(false, "10.0.2.56:80"), (true, "127.0.0.1:80")] {
            let inward = Inward { to_guest_loopback, guest };
            let found = targets(&inward, "127.0.0.1", "127.0.0.1", "10.0.2.55:80").unwrap();
            assert_eq!(found[0], expected);
        }
    }

    #[test]
    fn loopback_clients_keep_the_address_that_they_used_where_loopback_is_reached() {
        let guest = (Some([10, 0, 2, 100].into()), None);
        let inward = Inward { to_guest_loopback: true, guest };
        let of = |client, local| targets(&inward, client, local, "10.0.2.100:80").unwrap();
        assert_eq!(of("127.0.0.1", "127.0.0.5"), ["127.0.0.5:80", "[::1]:80"]);
        assert_eq!(of("::1", "::1"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(of("127.0.0.1", "192.0.2.1"), ["127.0.0.1:80", "[::1]:80"]);
    }
}
