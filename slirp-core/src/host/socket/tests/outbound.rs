//! Sources: which one a remote gets, and what is found at an interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::host::socket::outbound::{OutboundAddresses, OutboundError};
use crate::host::tests::{addr, in_new_netns, ip};

const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn v4(text: &str) -> OutboundAddresses {
    OutboundAddresses { ipv4: Some(text.parse().unwrap()), ..OutboundAddresses::default() }
}

fn v6(text: &str) -> OutboundAddresses {
    OutboundAddresses { ipv6: Some(text.parse().unwrap()), ..OutboundAddresses::default() }
}

#[test]
fn remotes_get_the_source_of_their_version() {
    let both = OutboundAddresses { ipv6: v6("2001:db8::1").ipv6, ..v4("192.0.2.1") };
    let table: [(&str, &OutboundAddresses, Option<SocketAddr>); 8] = [
        ("198.51.100.1", &both, Some(addr("192.0.2.1:0"))),
        ("127.0.0.1", &both, Some(addr("192.0.2.1:0"))),
        ("2001:db8:1::1", &both, Some(addr("[2001:db8::1]:0"))),
        ("::1", &both, Some(addr("[2001:db8::1]:0"))),
        ("198.51.100.1", &v6("2001:db8::1"), None),
        ("2001:db8:1::1", &v4("192.0.2.1"), None),
        ("198.51.100.1", &v4("0.0.0.0"), None),
        ("2001:db8:1::1", &v6("::"), None),
    ];
    for (remote, outbound, source) in table {
        assert_eq!(outbound.source_for(remote.parse().unwrap()), source, "{remote} {outbound:?}");
    }
}

#[test]
fn resolvers_nearby_are_asked_from_where_routes_say() {
    let both = OutboundAddresses { ipv6: v6("2001:db8::1").ipv6, ..v4("192.0.2.1") };
    for resolver in ["127.0.0.53", "::1", "fe80::1", "169.254.1.1"] {
        assert_eq!(both.source_for_resolver(resolver.parse().unwrap()), None, "{resolver}");
    }
    for resolver in ["198.51.100.1", "192.0.2.1", "2001:db8:1::1", "fd00::1"] {
        assert!(both.source_for_resolver(resolver.parse().unwrap()).is_some(), "{resolver}");
    }
}

#[test]
fn interface_gives_its_first_addresses() {
    in_new_netns(|| {
        ip("link add out0 type veth peer name out1");
        ip("link set out0 up");
        ip("link set out1 up");
        let nothing = OutboundAddresses::default();
        assert_eq!(OutboundAddresses::of_interface("none").unwrap(), nothing);
        ip("addr flush dev out1");
        assert_eq!(OutboundAddresses::of_interface("out1").unwrap(), nothing);
        ip("addr flush dev out0");
        ip("addr add fe80::1/64 dev out0 nodad");
        let index = nix::net::if_::if_nametoindex("out0").unwrap();
        let scoped = OutboundAddresses {
            ipv6: Some(LINK_LOCAL),
            ipv6_scope: index,
            ..OutboundAddresses::default()
        };
        assert_eq!(OutboundAddresses::of_interface("out0").unwrap(), scoped);
        scoped.verify().unwrap();
        let source = scoped.source_for(Ipv6Addr::LOCALHOST.into()).unwrap();
        assert!(matches!(source, SocketAddr::V6(v6) if v6.scope_id() == index), "{source:?}");

        ip("addr add 192.0.2.1/24 dev out0");
        ip("addr add 192.0.2.2/24 dev out0");
        ip("addr add 2001:db8::1/64 dev out0 nodad");
        let found = OutboundAddresses::of_interface("out0").unwrap();
        assert_eq!(found, OutboundAddresses { ipv6: v6("2001:db8::1").ipv6, ..v4("192.0.2.1") });
        found.verify().unwrap();
        let lo = OutboundAddresses::of_interface("lo").unwrap();
        assert_eq!((lo.ipv4, lo.ipv6), (Some(Ipv4Addr::LOCALHOST), Some(Ipv6Addr::LOCALHOST)));
    });
}

#[test]
fn addresses_that_the_host_cannot_send_from_are_named() {
    in_new_netns(|| {
        OutboundAddresses::default().verify().unwrap();
        v4("0.0.0.0").verify().unwrap();
        v6("::").verify().unwrap();
        v4("127.0.0.1").verify().unwrap();
        v6("::1").verify().unwrap();
        for (outbound, text) in [
            (v4("192.0.2.77"), "no interface of the host has the outbound address 192.0.2.77"),
            (v6("2001:db8::7"), "no interface of the host has the outbound address 2001:db8::7"),
            (v4("224.0.0.1"), "the outbound address 224.0.0.1 is not that of a single host"),
            (
                v4("255.255.255.255"),
                "the outbound address 255.255.255.255 is not that of a single host",
            ),
            (v6("ff02::1"), "the outbound address ff02::1 is not that of a single host"),
            (
                v6("fe80::1"),
                "the outbound address fe80::1 is link-local: give the name of its \
                 interface instead",
            ),
        ] {
            assert_eq!(outbound.verify().unwrap_err().to_string(), text);
        }
        let mapped = v6("::ffff:127.0.0.1").verify().unwrap_err();
        let address: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        assert!(
            matches!(mapped, OutboundError::Refused { address: of, .. } if of == address),
            "{mapped}"
        );
    });
}

#[test]
fn remotes_are_reached_by_the_interface_of_their_version_but_not_the_host_itself() {
    let outbound = OutboundAddresses {
        ipv4_interface: Some("out4".to_owned()),
        ipv6_interface: Some("out6".to_owned()),
        ..v4("192.0.2.1")
    };
    for (remote, interface) in [
        ("198.51.100.1:9", Some("out4")),
        ("224.0.0.251:5353", Some("out4")),
        ("127.0.0.53:53", None),
        ("[2001:db8::1]:9", Some("out6")),
        ("[::1]:9", None),
        ("[fe80::1%2]:9", None),
    ] {
        assert_eq!(outbound.interface_for(addr(remote)), interface, "{remote}");
        assert_eq!(v4("192.0.2.1").interface_for(addr(remote)), None);
    }
}

#[test]
fn interface_that_the_host_lacks_is_named() {
    in_new_netns(|| {
        let by = |name: &str| OutboundAddresses {
            ipv6_interface: Some(name.to_owned()),
            ..OutboundAddresses::default()
        };
        ip("link add abcdefghijklmno type veth peer name far");
        by("lo").verify().unwrap();
        by("abcdefghijklmno").verify().unwrap();
        for name in ["out0", "", "abcdefghijklmnop"] {
            let text = format!("no interface of the host is called {name}");
            assert_eq!(by(name).verify().unwrap_err().to_string(), text);
        }
    });
}
