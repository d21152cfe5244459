//! The one place that decides what a guest may reach.
//!
//! Owns the refusal of destinations, by what the plan makes of them (`nat`) and by
//! [`Policy`]. TCP, UDP and ICMP echo go through the same rules, so a rule cannot hold for one
//! protocol and leak through another.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub use crate::config::Policy;
use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::nat::{self, Translation};
pub use crate::protocol::Protocol;

/// Where TCP and UDP of the guest go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// To this address from a host socket.
    Host(SocketAddr),
    /// To the built-in DNS service.
    Resolver,
}

/// Where echo requests of the guest go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EchoTarget {
    /// To this address from a host socket, which knows the link of link-local ones.
    Host(IpAddr),
    /// Nowhere: we answer ourselves.
    Ours,
}

impl StackConfig {
    /// Where TCP or UDP to `original_dst`, as the guest wrote it, goes.
    ///
    /// # Errors
    /// Why it goes nowhere. The guest is told that the network is unreachable, but for
    /// [`DiscardReason::DestinationUnroutable`], which is silent.
    pub(crate) fn target(
        &self,
        protocol: Protocol,
        original_dst: SocketAddr,
    ) -> Result<Target, DiscardReason> {
        // Most destinations have no meaning, and this is asked for each datagram.
        if !self.plan.is_ours(original_dst.ip()) {
            return self.elsewhere(protocol, original_dst).map(Target::Host);
        }
        match nat::translated_dst(&self.plan, original_dst, self.policy.dns_service) {
            Translation::Resolver => Ok(Target::Resolver),
            Translation::NoService => Err(DiscardReason::ServiceUnavailable),
            Translation::HostLoopback(to) => self.loopback(protocol, to).map(Target::Host),
            Translation::HostItself(to) => Ok(Target::Host(to)),
            Translation::None => self.elsewhere(protocol, original_dst).map(Target::Host),
        }
    }

    /// Where an echo request to `original_dst` goes.
    ///
    /// # Errors
    /// As for [`target`](Self::target).
    pub(crate) fn echo_target(&self, original_dst: IpAddr) -> Result<EchoTarget, DiscardReason> {
        if self.plan.stands_for_another(original_dst) {
            return Ok(EchoTarget::Ours);
        }
        let remote = self.elsewhere(Protocol::Echo, SocketAddr::new(original_dst, 0))?;
        Ok(EchoTarget::Host(remote.ip()))
    }

    /// The host side's destination where the plan translates none.
    fn elsewhere(
        &self,
        protocol: Protocol,
        original_dst: SocketAddr,
    ) -> Result<SocketAddr, DiscardReason> {
        match original_dst.ip() {
            ip if !self.plan.passes_loopback() && leads_to_this_host(ip) => {
                Err(DiscardReason::DestinationUnroutable)
            }
            IpAddr::V4(v4) if v4.is_broadcast() => match protocol {
                // A host service that listens for broadcasts is as close as a user-mode stack gets.
                Protocol::Udp => self.loopback(protocol, nat::host_loopback(original_dst)),
                Protocol::Tcp | Protocol::Echo => Err(DiscardReason::DestinationUnroutable),
            },
            // To the host's kernel this means its loopback, but no TCP segment can come from it.
            ip if ip.is_unspecified()
                && protocol == Protocol::Tcp
                && self.policy.allow_host_loopback =>
            {
                Err(DiscardReason::DestinationUnroutable)
            }
            // Members reach each other directly. What comes here instead is for an address that no
            // member has.
            IpAddr::V4(v4) if self.is_shared && self.plan.contains(v4.into()) => {
                Err(DiscardReason::DestinationNotAllowed)
            }
            IpAddr::V4(v4) if is_ipv4_loopback(v4) => self.loopback(protocol, original_dst),
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => {
                self.loopback(protocol, original_dst)
            }
            // Groups of the host's own link, or of its loopback even (RFC 5771 section 4; RFC 4291
            // section 2.7): no router passes them on, and among their members are the host's own
            // services.
            IpAddr::V4(v4) if is_ipv4_link_group(v4) && protocol != Protocol::Tcp => {
                self.loopback(protocol, original_dst)
            }
            IpAddr::V6(v6) if v6.is_multicast() && protocol != Protocol::Tcp => {
                match group_scope(v6) {
                    0..=SCOPE_INTERFACE => Err(DiscardReason::DestinationNotAllowed),
                    SCOPE_LINK => self.loopback(protocol, original_dst),
                    _ => Ok(original_dst),
                }
            }
            // Without a scope the host could not say which link is meant.
            IpAddr::V6(v6) if is_ipv6_link_local(v6) => match self.plan.host_link() {
                Some(scope) => Ok(SocketAddrV6::new(v6, original_dst.port(), 0, scope).into()),
                None => Err(DiscardReason::DestinationNotAllowed),
            },
            // A v4-mapped address never belongs on the wire (RFC 4942 section 2.2) but would reach
            // IPv4 destinations past every rule that is written for them.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Err(DiscardReason::DestinationNotAllowed)
            }
            IpAddr::V6(v6) if self.is_shared && self.plan.contains(v6.into()) => {
                Err(DiscardReason::DestinationNotAllowed)
            }
            ip if self.plan.is_unlisted_host(ip) => {
                self.loopback(protocol, nat::host_loopback(original_dst))
            }
            ip if ip.is_multicast() && protocol == Protocol::Tcp => {
                Err(DiscardReason::DestinationUnroutable)
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(original_dst),
        }
    }

    /// A destination that is the host's loopback, or as close to the host.
    fn loopback(
        &self,
        protocol: Protocol,
        destination: SocketAddr,
    ) -> Result<SocketAddr, DiscardReason> {
        let is_own = |own: &SocketAddr| {
            own.port() == destination.port() && own.is_ipv4() == destination.is_ipv4()
        };
        let is_closed = protocol == Protocol::Tcp && self.own_listeners.iter().any(is_own);
        if self.policy.allow_host_loopback && !is_closed {
            Ok(destination)
        } else {
            Err(DiscardReason::DestinationNotAllowed)
        }
    }
}

/// Loopback in any spelling, and the broadcast address, which leads to services of the host.
const fn leads_to_this_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_ipv4_loopback(v4) || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
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
    use crate::plan::{Ipv6Plan, SlirpNetwork};

    const OPEN: Policy = Policy { allow_host_loopback: true, dns_service: true };
    const CLOSED: Policy = Policy { allow_host_loopback: false, ..OPEN };

    /// Where anything goes, in one type for the tables below.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Verdict {
        Host(SocketAddr),
        Dns,
        LocalEcho,
        Refused(DiscardReason),
    }

    fn target(policy: Policy, protocol: Protocol, destination: &str) -> Verdict {
        judge(false, policy, protocol, destination)
    }

    fn judge(is_shared: bool, policy: Policy, protocol: Protocol, destination: &str) -> Verdict {
        let plan = SlirpNetwork::default().with_ipv6(Ipv6Plan::default()).into();
        let config = StackConfig { plan, policy, is_shared, ..StackConfig::default() };
        let destination: SocketAddr = destination.parse().unwrap();
        let judged = match protocol {
            Protocol::Tcp | Protocol::Udp => config.target(protocol, destination),
            Protocol::Echo => match config.echo_target(destination.ip()) {
                Ok(EchoTarget::Ours) => return Verdict::LocalEcho,
                Ok(EchoTarget::Host(ip)) => {
                    Ok(Target::Host(SocketAddr::new(ip, destination.port())))
                }
                Err(reason) => Err(reason),
            },
        };
        match judged {
            Ok(Target::Host(remote)) => Verdict::Host(remote),
            Ok(Target::Resolver) => Verdict::Dns,
            Err(reason) => Verdict::Refused(reason),
        }
    }

    fn host(address: &str) -> Verdict {
        Verdict::Host(address.parse().unwrap())
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
                    Verdict::Refused(DiscardReason::DestinationNotAllowed),
                    "{destination}"
                );
            }
        }
        assert_eq!(
            target(CLOSED, Protocol::Udp, "255.255.255.255:80"),
            Verdict::Refused(DiscardReason::DestinationNotAllowed)
        );
        assert_eq!(
            target(CLOSED, Protocol::Echo, "127.0.0.1:0"),
            Verdict::Refused(DiscardReason::DestinationNotAllowed)
        );
    }

    #[test]
    fn our_own_listeners_are_closed_in_every_spelling_that_leads_to_them() {
        let plan = SlirpNetwork::default().with_ipv6(Ipv6Plan::default()).into();
        let ipv4 = ["10.0.2.2", "127.0.0.1", "127.1.2.3", "0.1.2.3"];
        let ipv6 = ["[::1]", "[fd00::2]", "[fd00::99]"];
        for (own, closed, open) in
            [("127.0.0.1:9100", &ipv4[..], &ipv6[..]), ("[::1]:9100", &ipv6[..], &ipv4[..])]
        {
            let config = StackConfig {
                plan,
                policy: OPEN,
                own_listeners: vec![own.parse().unwrap()],
                ..StackConfig::default()
            };
            let is_open = |protocol, ip: &str, port: u16| {
                config.target(protocol, format!("{ip}:{port}").parse().unwrap()).is_ok()
            };
            for ip in closed {
                assert!(!is_open(Protocol::Tcp, ip, 9100), "{own} by {ip}");
                assert!(is_open(Protocol::Tcp, ip, 9101), "another port of {ip}");
                assert!(is_open(Protocol::Udp, ip, 9100), "{ip} by UDP, where it does not listen");
            }
            for ip in open.iter().chain(&["192.0.2.1", "[2001:db8::1]"]) {
                assert!(is_open(Protocol::Tcp, ip, 9100), "{ip} does not lead to {own}");
            }
            for ip in ["[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
                assert!(!is_open(Protocol::Tcp, ip, 9100), "{ip} leads nowhere");
            }
        }
    }

    #[test]
    fn groups_of_the_hosts_link_are_as_closed_as_its_loopback() {
        let refused = Verdict::Refused(DiscardReason::DestinationNotAllowed);
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
            let unroutable = Verdict::Refused(DiscardReason::DestinationUnroutable);
            assert_eq!(target(CLOSED, Protocol::Tcp, destination), unroutable, "{destination}");
        }
    }

    #[test]
    fn addresses_of_a_shared_network_are_never_the_hosts() {
        for destination in ["10.0.2.101:80", "10.0.2.255:80", "[fd00::101]:80"] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Echo] {
                let refused = Verdict::Refused(DiscardReason::DestinationNotAllowed);
                assert_eq!(judge(true, OPEN, protocol, destination), refused, "{destination}");
            }
        }
        assert_eq!(judge(true, OPEN, Protocol::Tcp, "10.0.2.2:80"), host("127.0.0.1:80"));
        assert_eq!(judge(true, OPEN, Protocol::Tcp, "192.0.2.1:80"), host("192.0.2.1:80"));
        let closed = Policy { dns_service: false, ..OPEN };
        let refused = Verdict::Refused(DiscardReason::DestinationNotAllowed);
        assert_eq!(judge(true, closed, Protocol::Udp, "10.0.2.3:53"), refused);
    }

    /// A guest with the host's own addresses; its gateway is the host's.
    fn mirrored() -> StackConfig {
        use crate::plan::{AddressPlan, Mirrored, MirroredFamily};
        let v4 = MirroredFamily {
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
            ..MirroredFamily::new(Ipv4Addr::new(192, 0, 2, 77), 24)
        };
        let v6 = MirroredFamily {
            gateway: Some("fe80::1".parse().unwrap()),
            is_gateway_host: true,
            ..MirroredFamily::new("2001:db8::77".parse().unwrap(), 64)
        };
        let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
        let plan = AddressPlan::mirrored(&mirrored).unwrap();
        StackConfig { plan, policy: OPEN, ..StackConfig::default() }
    }

    #[test]
    fn loopback_that_a_mirrored_guest_writes_leads_nowhere() {
        let config = mirrored();
        for nowhere in
            ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "255.255.255.255", "::1", "::"]
        {
            let ip: IpAddr = nowhere.parse().unwrap();
            let unroutable = DiscardReason::DestinationUnroutable;
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let target = config.target(protocol, SocketAddr::new(ip, 80));
                assert_eq!(target, Err(unroutable), "{nowhere}");
            }
            assert_eq!(config.echo_target(ip), Err(unroutable), "{nowhere}");
        }
        let mapped = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert!(config.target(Protocol::Tcp, mapped).is_err());
    }

    #[test]
    fn link_local_destination_is_on_the_hosts_link_where_that_is_the_guests() {
        let refused = Err(DiscardReason::DestinationNotAllowed);
        let written = "[fe80::5]:53".parse().unwrap();
        let mut config = mirrored();
        assert_eq!(config.target(Protocol::Udp, written), refused);
        assert_eq!(config.echo_target(written.ip()), Err(DiscardReason::DestinationNotAllowed));
        let link = crate::plan::Mirrored {
            ipv6: Some(crate::plan::MirroredFamily::new("2001:db8::77".parse().unwrap(), 64)),
            host_link: Some(7),
            ..crate::plan::Mirrored::default()
        };
        config.plan = crate::plan::AddressPlan::mirrored(&link).unwrap();
        let scoped = Ok(Target::Host("[fe80::5%7]:53".parse().unwrap()));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(config.target(protocol, written), scoped);
        }
        assert_eq!(config.echo_target(written.ip()), Ok(EchoTarget::Host(written.ip())));
    }

    #[test]
    fn mirrored_guest_reaches_the_gateway_and_its_neighbors_themselves() {
        let config = mirrored();
        for destination in ["192.0.2.1:80", "192.0.2.5:80", "198.51.100.1:80", "[2001:db8::5]:80"] {
            let destination: SocketAddr = destination.parse().unwrap();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let target = config.target(protocol, destination);
                assert_eq!(target, Ok(Target::Host(destination)));
            }
            let ping = config.echo_target(destination.ip());
            assert_eq!(ping, Ok(EchoTarget::Host(destination.ip())), "{destination}");
        }
        let loopback = config.target(Protocol::Tcp, "[fe80::1]:80".parse().unwrap());
        assert_eq!(loopback, Ok(Target::Host("[::1]:80".parse().unwrap())));
        let ping = config.echo_target("fe80::1".parse().unwrap());
        assert_eq!(ping, Ok(EchoTarget::Ours));
    }

    #[test]
    fn dns_address_serves_port_53_only_even_with_closed_loopback() {
        for policy in [OPEN, CLOSED] {
            assert_eq!(target(policy, Protocol::Udp, "10.0.2.3:53"), Verdict::Dns);
            assert_eq!(target(policy, Protocol::Tcp, "[fd00::3]:53"), Verdict::Dns);
            assert_eq!(
                target(policy, Protocol::Tcp, "10.0.2.3:80"),
                Verdict::Refused(DiscardReason::ServiceUnavailable)
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
            assert_eq!(target(policy, Protocol::Echo, "10.0.2.2:0"), Verdict::LocalEcho);
            assert_eq!(target(policy, Protocol::Echo, "[fe80::3]:0"), Verdict::LocalEcho);
        }
    }

    #[test]
    fn v4_mapped_destinations_are_refused_even_with_open_loopback() {
        for destination in ["[::ffff:192.0.2.1]:80", "[::ffff:127.0.0.1]:80"] {
            assert_eq!(
                target(OPEN, Protocol::Tcp, destination),
                Verdict::Refused(DiscardReason::DestinationNotAllowed)
            );
        }
    }

    #[test]
    fn the_rest_of_the_world_is_passed_on_as_written() {
        assert_eq!(target(CLOSED, Protocol::Tcp, "192.0.2.1:443"), host("192.0.2.1:443"));
        assert_eq!(target(CLOSED, Protocol::Udp, "[2001:db8::1]:443"), host("[2001:db8::1]:443"));
        assert_eq!(
            target(OPEN, Protocol::Tcp, "224.0.0.1:80"),
            Verdict::Refused(DiscardReason::DestinationUnroutable)
        );
        for nobody in ["0.0.0.0:80", "[::]:80"] {
            assert_eq!(
                target(OPEN, Protocol::Tcp, nobody),
                Verdict::Refused(DiscardReason::DestinationUnroutable)
            );
        }
        assert_eq!(
            target(OPEN, Protocol::Udp, "[fe80::99]:80"),
            Verdict::Refused(DiscardReason::DestinationNotAllowed)
        );
    }
}
