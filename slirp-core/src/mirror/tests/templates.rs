//! Which interface is copied, and what of it.

use super::*;

/// Name, main address, prefix length and gateway.
fn summary(family: Option<&TemplateFamily>) -> Option<(&str, String, Option<String>)> {
    family.map(|family| {
        let address = format!("{}/{}", family.address, family.prefix_len);
        (family.interface.as_str(), address, family.gateway.map(|gateway| gateway.to_string()))
    })
}

fn of(
    interface: &str,
    address: &str,
    gateway: &str,
) -> Option<(&'static str, String, Option<String>)> {
    let interface = match interface {
        "eth1" => "eth1",
        "tun0" => "tun0",
        _ => "eth0",
    };
    let gateway = (!gateway.is_empty()).then(|| gateway.to_owned());
    Some((interface, address.to_owned(), gateway))
}

#[test]
fn default_route_with_the_lowest_metric_names_the_interface() {
    for (recorded, v4, v6) in [
        (
            PLAIN,
            of("eth0", "192.0.2.10/24", "192.0.2.1"),
            of("eth0", "2001:db8:0:1::10/64", "fe80::1"),
        ),
        (
            SEVERAL,
            of("eth1", "192.0.2.10/24", "192.0.2.1"),
            of("eth1", "2001:db8:0:1::10/64", "2001:db8:0:1::1"),
        ),
        (
            OFF_LINK,
            of("eth0", "192.0.2.10/32", "198.51.100.1"),
            of("eth0", "2001:db8:0:1::10/128", "2001:db8:0:2::1"),
        ),
        // Of several hops the heaviest.
        (
            MULTIPATH,
            of("eth0", "192.0.2.10/24", "192.0.2.2"),
            of("eth0", "2001:db8:0:1::10/64", "fe80::2"),
        ),
        // Of several interfaces the first.
        (SPLIT_DEFAULT, of("eth0", "192.0.2.10/24", "192.0.2.1"), None),
        // Neither a bridge without a carrier nor a multicast route counts.
        (NO_DEFAULT, of("eth0", "192.0.2.10/24", ""), of("eth0", "2001:db8:0:1::10/64", "")),
        (POINT_TO_POINT, of("tun0", "10.64.0.2/32", ""), None),
        (IPV6_ONLY, None, of("eth0", "2001:db8:0:1::10/64", "fe80::1")),
        (NEXT_HOP_OBJECTS, of("eth0", "192.0.2.10/24", "192.0.2.1"), None),
        // Its gateway has no IPv4 address.
        (VIA_IPV6, of("eth0", "192.0.2.10/32", ""), None),
        (LOOPBACK_ONLY, None, None),
    ] {
        let template = template(recorded);
        assert_eq!(summary(template.ipv4()), v4);
        assert_eq!(summary(template.ipv6()), v6);
    }
}

#[test]
fn named_interface_counts_for_the_family_that_it_is_named_for() {
    let template = Template::of_dump(SEVERAL, Some("eth0"), None).unwrap();
    assert_eq!(summary(template.ipv4()), of("eth0", "198.51.100.7/24", "198.51.100.1"));
    assert_eq!(summary(template.ipv6()), of("eth1", "2001:db8:0:1::10/64", "2001:db8:0:1::1"));
    // It has no usable IPv6 address.
    let template = Template::of_dump(SEVERAL, None, Some("eth0")).unwrap();
    assert_eq!(summary(template.ipv6()), None);
    let unknown = Template::of_dump(SEVERAL, Some("eth9"), None).unwrap_err();
    assert_eq!(unknown.to_string(), "the host has no interface eth9");
}

#[test]
fn interface_without_routes_can_be_named() {
    let tables = Tables::parse(PLAIN);
    let bare = Tables { routes: Vec::new(), ..tables.of_family(libc::AF_INET) };
    let found = TemplateFamily::choose(&bare, Some(5));
    assert_eq!(summary(found.as_ref()), of("eth0", "192.0.2.10/24", ""));
    assert!(TemplateFamily::choose(&bare, None).is_none());
}

#[test]
fn guest_gets_all_addresses_and_routes_of_one_interface() {
    let expected: [(&[u8], &[&str]); 11] = [
        (
            PLAIN,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "address 2001:db8:0:1::10/64 nodad",
                "192.0.2.0/24",
                "default via 192.0.2.1 metric 100",
                "2001:db8:0:1::/64 metric 256",
                "fe80::/64 metric 256",
                "default via fe80::1 metric 100",
            ],
        ),
        (
            SEVERAL,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "address 203.0.113.5/28 noprefixroute",
                "address 192.0.2.11/24",
                // Neither the deprecated one nor the link-local ones.
                "address 2001:db8:0:1::10/64 nodad",
                "address fd00:5::10/128 nodad",
                "169.254.0.0/16",
                "192.0.2.0/24",
                "203.0.113.0/28 metric 9",
                // Neither routes of other interfaces nor those of other tables, nor what drops.
                "default via 192.0.2.1 metric 50",
                "10.0.0.0/8 via 192.0.2.254",
                "2001:db8:0:1::/64 metric 256",
                "fd00:5::10/128 metric 256",
                "fe80::/64 metric 256",
                "2001:db8:ff::/48 via fe80::99 metric 1024",
                "default via 2001:db8:0:1::1 metric 70",
            ],
        ),
        (
            OFF_LINK,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/32",
                "address 2001:db8:0:1::10/128 nodad",
                "198.51.100.1/32",
                "default via 198.51.100.1",
                "10.0.0.0/8 via 203.0.113.77 onlink",
                "2001:db8:0:1::10/128 metric 256",
                "fe80::/64 metric 256",
                "default via 2001:db8:0:2::1 onlink metric 1024",
            ],
        ),
        (
            MULTIPATH,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "address 2001:db8:0:1::10/64 nodad",
                // Not the route whose second hop is through another interface.
                "192.0.2.0/24",
                "default via 192.0.2.1 via 192.0.2.2 weight 7",
                "2001:db8:0:1::/64 metric 256",
                "fe80::/64 metric 256",
                "default via fe80::1 via fe80::2 weight 3 metric 1024",
            ],
        ),
        (
            SPLIT_DEFAULT,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "192.0.2.0/24",
                // The route cannot be copied as a whole.
                "default via 192.0.2.1",
                "default via fe80::1",
            ],
        ),
        (
            NO_DEFAULT,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "address 2001:db8:0:1::10/64 nodad",
                "192.0.2.0/24",
                "default via 169.254.2.2 onlink",
                "2001:db8:0:1::/64 metric 256",
                "fe80::/64 metric 256",
                "default via fe80::1",
            ],
        ),
        (
            POINT_TO_POINT,
            &[
                "address ::/64 nodad",
                "address 10.64.0.2 peer 10.64.0.1/32",
                "default",
                "10.64.0.1/32",
                "default via fe80::1",
            ],
        ),
        (
            IPV6_ONLY,
            &[
                "address ::/64 nodad",
                "address 169.254.2.1/16",
                "address 2001:db8:0:1::10/64 nodad",
                "default via 169.254.2.2",
                "2001:db8:0:1::/64 metric 256",
                "fe80::/64 metric 256",
                "default via fe80::1 metric 1024",
            ],
        ),
        (
            NEXT_HOP_OBJECTS,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/24",
                "192.0.2.0/24",
                "default via 192.0.2.1",
                "default via fe80::1",
            ],
        ),
        (
            VIA_IPV6,
            &[
                "address ::/64 nodad",
                "address 192.0.2.10/32",
                "default via fe80::1",
                "default via fe80::1",
            ],
        ),
        (
            LOOPBACK_ONLY,
            &[
                "address ::/64 nodad",
                "address 169.254.2.1/16",
                "default via 169.254.2.2",
                "default via fe80::1",
            ],
        ),
    ];
    for (recorded, lines) in expected {
        assert_eq!(super::lines(&guest(recorded).setup), lines);
    }
}

#[test]
fn preferred_source_and_object_number_of_a_route_are_left_out() {
    const LEFT_OUT: [u16; 2] = [7, 30];
    let kinds = |setup: &Setup| {
        let bodies = setup.messages().flat_map(Messages);
        let routes = bodies.filter(|message| message.kind == libc::RTM_NEWROUTE);
        let attributes = routes.flat_map(|route| crate::netlink::Attributes(&route.body[12..]));
        attributes.map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    for recorded in [PLAIN, SEVERAL, NEXT_HOP_OBJECTS] {
        let kinds = kinds(&guest(recorded).setup);
        assert!(kinds.iter().all(|kind| !LEFT_OUT.contains(kind)), "{kinds:?}");
    }
    // Its metrics are copied, here an MTU.
    assert!(kinds(&guest(SEVERAL).setup).contains(&libc::RTA_METRICS));
}
