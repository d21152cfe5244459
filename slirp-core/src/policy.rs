//! The one place that decides what a guest may reach.
//!
//! Owns the mapping from the address that the guest used to the address that the host side uses,
//! and the refusal of destinations. TCP, UDP and ICMP echo ask the same function, so a rule cannot
//! hold for one protocol and leak through another.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use crate::config::Policy;
use crate::discard::DiscardReason;
use crate::plan::{AddressPlan, VirtualHost};

/// The port of the DNS service.
const DNS_PORT: u16 = 53;

/// The protocol that asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo; its "port" is not looked at.
    Echo,
}

/// Where traffic of the guest goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// To this address from a host socket.
    Host(SocketAddr),
    /// To the built-in DNS service.
    Dns,
    /// An echo request that we answer ourselves.
    LocalEcho,
    /// Nowhere; the guest is told that the network is unreachable unless the reason is
    /// [`DiscardReason::DestinationUnroutable`], which is silent.
    Refused(DiscardReason),
}

impl Policy {
    /// Where `protocol` traffic to `destination`, as the guest wrote it, goes.
    pub fn target(
        &self,
        plan: &AddressPlan,
        protocol: Protocol,
        destination: SocketAddr,
    ) -> Target {
        match plan.virtual_host(destination.ip()) {
            Some(_) if protocol == Protocol::Echo => Target::LocalEcho,
            Some(VirtualHost::Dns) if self.dns_service => {
                if destination.port() == DNS_PORT {
                    Target::Dns
                } else {
                    Target::Refused(DiscardReason::ServiceUnavailable)
                }
            }
            Some(VirtualHost::Gateway) => self.loopback(destination),
            Some(VirtualHost::Dns) | None => self.elsewhere(plan, protocol, destination),
        }
    }

    fn elsewhere(&self, plan: &AddressPlan, protocol: Protocol, destination: SocketAddr) -> Target {
        match destination.ip() {
            IpAddr::V4(v4) if v4.is_broadcast() => match protocol {
                // A host service that listens for broadcasts is as close as a user-mode stack gets.
                Protocol::Udp => self.loopback(destination),
                Protocol::Tcp | Protocol::Echo => {
                    Target::Refused(DiscardReason::DestinationUnroutable)
                }
            },
            // To the host's kernel this means its loopback, but no TCP segment can come from it.
            ip if ip.is_unspecified() && protocol == Protocol::Tcp && self.allow_host_loopback => {
                Target::Refused(DiscardReason::DestinationUnroutable)
            }
            // Members are reached directly. What comes to the gateway instead is for nobody who is
            // there.
            IpAddr::V4(v4) if self.is_shared && plan.contains(v4) => {
                Target::Refused(DiscardReason::DestinationNotAllowed)
            }
            IpAddr::V4(v4) if is_ipv4_loopback(v4) => self.as_written(destination),
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => {
                self.as_written(destination)
            }
            // Groups of the host's own link, or of its loopback even (RFC 5771 section 4; RFC 4291
            // section 2.7): no router passes them on, and among their members are the host's own
            // services.
            IpAddr::V4(v4) if is_ipv4_link_group(v4) && protocol != Protocol::Tcp => {
                self.as_written(destination)
            }
            IpAddr::V6(v6) if v6.is_multicast() && protocol != Protocol::Tcp => {
                match group_scope(v6) {
                    0..=SCOPE_INTERFACE => Target::Refused(DiscardReason::DestinationNotAllowed),
                    SCOPE_LINK => self.as_written(destination),
                    _ => Target::Host(destination),
                }
            }
            IpAddr::V6(v6) if is_ipv6_link_local(v6) || v6.to_ipv4_mapped().is_some() => {
                // Without a scope the host could not say which link is meant; and a v4-mapped
                // address never belongs on the wire (RFC 4942 section 2.2) but would reach IPv4
                // destinations past every rule that is written for them.
                Target::Refused(DiscardReason::DestinationNotAllowed)
            }
            IpAddr::V6(v6) if plan.ipv6().is_some_and(|p| p.contains(v6)) => {
                if self.is_shared {
                    return Target::Refused(DiscardReason::DestinationNotAllowed);
                }
                self.loopback(destination)
            }
            ip if ip.is_multicast() && protocol == Protocol::Tcp => {
                Target::Refused(DiscardReason::DestinationUnroutable)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Target::Host(destination),
        }
    }

    /// The virtual gateway: the host's loopback of the same family.
    const fn loopback(&self, destination: SocketAddr) -> Target {
        let ip = match destination {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        self.as_written(SocketAddr::new(ip, destination.port()))
    }

    const fn as_written(&self, destination: SocketAddr) -> Target {
        if self.allow_host_loopback {
            Target::Host(destination)
        } else {
            Target::Refused(DiscardReason::DestinationNotAllowed)
        }
    }
}

/// Loopback in any spelling that Linux delivers locally: 127/8, and 0/8 which connect(2) takes as
/// "this host".
const fn is_ipv4_loopback(address: Ipv4Addr) -> bool {
    matches!(address.octets()[0], 0 | 127)
}

/// fe80::/10 (RFC 4291 section 2.5.6).
const fn is_ipv6_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// 224.0.0.0/24 (RFC 5771 section 4).
const fn is_ipv4_link_group(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [224, 0, 0, _])
}

/// Scopes of IPv6 groups (RFC 4291 section 2.7). Zero is reserved.
const SCOPE_INTERFACE: u16 = 1;
const SCOPE_LINK: u16 = 2;

const fn group_scope(address: Ipv6Addr) -> u16 {
    address.segments()[0] & 0x000f
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ipv6Plan;

    const OPEN: Policy = Policy { allow_host_loopback: true, dns_service: true, is_shared: false };
    const CLOSED: Policy = Policy { allow_host_loopback: false, ..OPEN };

    fn target(policy: Policy, protocol: Protocol, destination: &str) -> Target {
        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        policy.target(&plan, protocol, destination.parse().unwrap())
    }

    fn host(address: &str) -> Target {
        Target::Host(address.parse().unwrap())
    }

    #[test]
    fn gateway_is_the_host_loopback() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(target(OPEN, protocol, "10.0.2.2:80"), host("127.0.0.1:80"));
            assert_eq!(target(OPEN, protocol, "[fd00::2]:80"), host("[::1]:80"));
            assert_eq!(target(OPEN, protocol, "[fd00::99]:80"), host("[::1]:80"));
        }
    }

    #[test]
    fn closed_loopback_is_closed_in_every_spelling_and_protocol() {
        for destination in [
            "10.0.2.2:80",
            "127.0.0.1:80",
            "127.255.3.4:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:0.0.0.0]:80",
            "[fd00::2]:80",
            "[fd00::99]:80",
        ] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(
                    target(CLOSED, protocol, destination),
                    Target::Refused(DiscardReason::DestinationNotAllowed),
                    "{destination}"
                );
            }
        }
        assert_eq!(
            target(CLOSED, Protocol::Udp, "255.255.255.255:80"),
            Target::Refused(DiscardReason::DestinationNotAllowed)
        );
        assert_eq!(
            target(CLOSED, Protocol::Echo, "127.0.0.1:0"),
            Target::Refused(DiscardReason::DestinationNotAllowed)
        );
    }

    #[test]
    fn groups_of_the_hosts_link_are_as_closed_as_its_loopback() {
        let refused = Target::Refused(DiscardReason::DestinationNotAllowed);
        for (destination, is_open, is_closed_open) in [
            ("[ff02::fb]:5353", true, false),
            ("[ff12::1]:80", true, false),
            ("224.0.0.251:5353", true, false),
            ("224.0.0.1:80", true, false),
            ("[ff01::1]:80", false, false),
            ("[ff31::1]:80", false, false),
            ("[ff00::1]:80", false, false),
            ("[ff05::1:3]:547", true, true),
            ("[ff0e::1]:80", true, true),
            ("239.255.255.250:1900", true, true),
            ("224.0.1.1:123", true, true),
        ] {
            for protocol in [Protocol::Udp, Protocol::Echo] {
                for (policy, is_open) in [(OPEN, is_open), (CLOSED, is_closed_open)] {
                    let expected = if is_open { host(destination) } else { refused };
                    assert_eq!(target(policy, protocol, destination), expected, "{destination}");
                }
            }
        }
        for destination in ["[ff02::fb]:80", "[ff01::1]:80", "224.0.0.251:80"] {
            let unroutable = Target::Refused(DiscardReason::DestinationUnroutable);
            assert_eq!(target(CLOSED, Protocol::Tcp, destination), unroutable, "{destination}");
        }
    }

    #[test]
    fn addresses_of_a_shared_network_are_never_the_hosts() {
        let shared = Policy { is_shared: true, ..OPEN };
        for destination in ["10.0.2.101:80", "10.0.2.255:80", "[fd00::101]:80"] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Echo] {
                let refused = Target::Refused(DiscardReason::DestinationNotAllowed);
                assert_eq!(target(shared, protocol, destination), refused, "{destination}");
            }
        }
        assert_eq!(target(shared, Protocol::Tcp, "10.0.2.2:80"), host("127.0.0.1:80"));
        assert_eq!(target(shared, Protocol::Tcp, "192.0.2.1:80"), host("192.0.2.1:80"));
        let closed = Policy { dns_service: false, ..shared };
        let refused = Target::Refused(DiscardReason::DestinationNotAllowed);
        assert_eq!(target(closed, Protocol::Udp, "10.0.2.3:53"), refused);
    }

    #[test]
    fn dns_address_serves_port_53_only_even_with_closed_loopback() {
        for policy in [OPEN, CLOSED] {
            assert_eq!(target(policy, Protocol::Udp, "10.0.2.3:53"), Target::Dns);
            assert_eq!(target(policy, Protocol::Tcp, "[fd00::3]:53"), Target::Dns);
            assert_eq!(
                target(policy, Protocol::Tcp, "10.0.2.3:80"),
                Target::Refused(DiscardReason::ServiceUnavailable)
            );
        }
    }

    #[test]
    fn without_dns_service_its_address_is_an_ordinary_one() {
        let policy = Policy { dns_service: false, ..OPEN };
        assert_eq!(target(policy, Protocol::Udp, "10.0.2.3:53"), host("10.0.2.3:53"));
    }

    #[test]
    fn virtual_addresses_always_answer_echo() {
        for policy in [OPEN, CLOSED] {
            assert_eq!(target(policy, Protocol::Echo, "10.0.2.2:0"), Target::LocalEcho);
            assert_eq!(target(policy, Protocol::Echo, "[fe80::3]:0"), Target::LocalEcho);
        }
    }

    #[test]
    fn v4_mapped_destinations_are_refused_even_with_open_loopback() {
        for destination in ["[::ffff:192.0.2.1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(
                target(OPEN, Protocol::Tcp, destination),
                Target::Refused(DiscardReason::DestinationNotAllowed)
            );
        }
    }

    #[test]
    fn the_rest_of_the_world_is_passed_on_as_written() {
        assert_eq!(target(CLOSED, Protocol::Tcp, "192.0.2.1:443"), host("192.0.2.1:443"));
        assert_eq!(target(CLOSED, Protocol::Udp, "[2001:db8::1]:443"), host("[2001:db8::1]:443"));
        assert_eq!(
            target(OPEN, Protocol::Tcp, "224.0.0.1:80"),
            Target::Refused(DiscardReason::DestinationUnroutable)
        );
        for nobody in ["0.0.0.0:80", "[::]:80"] {
            assert_eq!(
                target(OPEN, Protocol::Tcp, nobody),
                Target::Refused(DiscardReason::DestinationUnroutable)
            );
        }
        assert_eq!(
            target(OPEN, Protocol::Udp, "[fe80::99]:80"),
            Target::Refused(DiscardReason::DestinationNotAllowed)
        );
    }
}
