//! Hosts of many makes, and what their guests get.

use std::net::{Ipv4Addr, SocketAddr};

use slirp_core::MacAddr;
use slirp_core::instance::{Builder, Instance};
use slirp_core::mirror::{Choice, FamilyChoice, Guest, Template};
use slirp_core::netns::Setup;
use slirp_core::plan::{AddressPlan, Answers, Family, Meaning};
use slirp_tests::{FAR, TcpServer, World, connect, needs, receive_exact, send_exact};

use crate::{Mirrored, addresses, gateway, json, open, routes};

const HOSTS: [(&str, &str); 9] = [
    ("as it is", ""),
    (
        "several addresses, some of which are not to be copied",
        "ip addr add 198.51.100.9/24 dev h0; ip addr add 192.0.2.9/28 dev h0
         ip addr add 169.254.9.9/16 scope link dev h0
         ip addr add fd00:9::9/64 dev h0 nodad
         ip addr add 2001:db8:1::bad/64 dev h0 nodad preferred_lft 0
         ip addr add 2001:db8:1::9/64 dev h0 nodad",
    ),
    (
        "routes that depend on each other, with metrics",
        "ip route add 10.1.0.0/16 via 198.51.100.77 metric 7 mtu lock 1400
         ip route add 10.2.0.1 dev h0 scope link
         ip route add 10.3.0.0/16 via 10.2.0.1
         ip route add 10.7.0.0/16 via inet6 fe80::7 dev h0
         ip -6 route add 2001:db8:a::1 dev h0
         ip -6 route add 2001:db8:b::/48 via 2001:db8:a::1 metric 9
         ip route add unreachable 10.4.0.0/16; ip route add blackhole 10.5.0.0/16",
    ),
    (
        "network manager's own routes",
        "ip addr add 203.0.113.77/28 dev h0 noprefixroute
         ip route add 203.0.113.64/28 dev h0 proto kernel scope link metric 100
         ip addr add 2001:db8:77::7/64 dev h0 nodad noprefixroute
         ip -6 route add 2001:db8:77::/64 dev h0 proto ra metric 100",
    ),
    (
        "policy routes",
        "ip route add default via 198.51.100.3 table 100; ip rule add from 198.51.100.1 table 100
         ip route add 10.6.0.0/16 via 198.51.100.3 table 100",
    ),
    (
        "several hops",
        "ip route del default; ip route add default nexthop via 198.51.100.2 weight 1 nexthop via \
         198.51.100.3 weight 4
         ip -6 route add 2001:db8:c::/48 nexthop via 2001:db8:1::2 dev h0 nexthop via \
         2001:db8:1::3 dev h0",
    ),
    (
        "objects for its hops",
        "ip route del default; ip nexthop add id 5 via 198.51.100.2 dev h0
         ip route add default nhid 5",
    ),
    (
        "a gateway outside of its network",
        "ip -4 addr flush dev h0; ip -6 addr flush dev h0 scope global
         ip -6 route del default
         ip addr add 192.0.2.9/32 dev h0
         ip route add 198.51.100.2 dev h0 scope link; ip route add default via 198.51.100.2
         ip addr add 2001:db8:1::1/128 dev h0 nodad
         ip -6 route add default via 2001:db8:2::1 dev h0 onlink",
    ),
    (
        "an interface with two ends",
        "ip -4 addr flush dev h0; ip -6 addr flush dev h0 scope global
         ip -6 route del default
         ip addr add 192.0.2.9 peer 198.51.100.2/32 dev h0
         ip route add default dev h0",
    ),
];

#[test]
fn guest_has_the_addresses_and_routes_of_its_host() {
    for (what, script) in HOSTS {
        let world = needs!(World::root());
        world.host.script(script);
        let mirrored = Mirrored::open(&world, &Choice::default());
        assert_eq!(mirrored.refused(), [""; 0], "{what}");
        assert_eq!(mirrored.guest.interface, "h0", "{what}");
        let seen = addresses(&world.guest, "h0");
        assert_eq!(seen, addresses(&world.host, "h0"), "{what}");
        let mut seen = routes(&world.guest, "h0");
        let expected = routes(&world.host, "h0");
        // A host without an IPv6 network gives a guest a default route all the same.
        seen.retain(|route| route["gateway"] != "fe80::1");
        assert_eq!(seen, expected, "{what}");
        let tentative = world.guest.script("ip addr show tentative");
        assert_eq!(tentative, "", "{what}");
    }
}

#[test]
fn guest_of_an_offline_host_has_a_link_of_its_own() {
    let world = needs!(World::root());
    world.host.script("ip link del h0");
    let mirrored = Mirrored::open(&world, &Choice::default());
    assert_eq!(mirrored.guest.interface, "tap0");
    assert_eq!(addresses(&world.guest, "tap0"), ["169.254.2.1 16"]);
    assert_eq!(gateway(&world.guest, "-4").as_deref(), Some("169.254.2.2"));
    assert_eq!(gateway(&world.guest, "-6").as_deref(), Some("fe80::1"));
    let own = json(&world.guest, "-6 addr show dev tap0 scope link -tentative");
    assert_eq!(own.len(), 1, "it has a link-local address at once");
    assert_eq!(mirrored.refused(), [""; 0]);
}

#[test]
fn each_family_has_a_network_of_its_own() {
    for (script, expected, gateways) in [
        // IPv6 only.
        (
            "ip -4 addr flush dev h0",
            vec!["169.254.2.1 16", "2001:db8:1::1 64"],
            ["169.254.2.2", "2001:db8:1::2"],
        ),
        // IPv4 only, and no IPv6 in its kernel as far as it can see.
        (
            "echo 1 > /proc/sys/net/ipv6/conf/h0/disable_ipv6",
            vec!["198.51.100.1 24"],
            ["198.51.100.2", "fe80::1"],
        ),
        // No default routes.
        (
            "ip route del default; ip -6 route del default",
            vec!["198.51.100.1 24", "2001:db8:1::1 64"],
            ["169.254.2.2", "fe80::1"],
        ),
        // The IPv6 network is behind another interface.
        (
            "ip -6 addr flush dev h0 scope global; ip -6 route del default
             ip link add h1 type veth peer name r1
             ip link set r1 up; ip link set h1 up; ip addr add 2001:db8:9::1/64 dev h1 nodad
             ip -6 route add default via fe80::77 dev h1",
            vec!["198.51.100.1 24", "2001:db8:9::1 64"],
            ["198.51.100.2", "fe80::77"],
        ),
    ] {
        let world = needs!(World::root());
        world.host.script(script);
        let mirrored = Mirrored::open(&world, &Choice::default());
        assert_eq!(mirrored.refused(), [""; 0], "{script}");
        assert_eq!(mirrored.guest.interface, "h0");
        assert_eq!(addresses(&world.guest, "h0"), expected, "{script}");
        let found = ["-4", "-6"].map(|family| gateway(&world.guest, family).unwrap_or_default());
        assert_eq!(found, gateways, "{script}");
    }
}

#[test]
fn choices_are_seen_on_the_interface() {
    let world = needs!(World::root());
    let mac = MacAddr([0x9a, 0x55, 0, 0, 0, 7]);
    let choice = Choice {
        interface: Some("myname".to_owned()),
        mac: Some(mac),
        mtu: Some(65_520),
        ipv4: Some(FamilyChoice {
            address: Some(Ipv4Addr::new(10, 0, 2, 0)),
            prefix_len: Some(24),
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
            ..FamilyChoice::default()
        }),
        ipv6: None,
    };
    let mirrored = Mirrored::open(&world, &choice);
    assert_eq!(mirrored.refused(), [""; 0]);
    let links = json(&world.guest, "link show");
    let link = links.iter().find(|link| link["ifname"] == "myname").expect("it is there");
    assert_eq!(link["mtu"], 65_520);
    assert_eq!(link["address"], mac.to_string());
    assert!(links.iter().any(|link| link["ifname"] == "lo" && link["flags"][1] == "UP"));
    assert_eq!(addresses(&world.guest, "myname"), ["10.0.2.0 24"]);
    assert_eq!(gateway(&world.guest, "-4").as_deref(), Some("10.0.2.2"));
}

#[test]
fn loopback_alone_leaves_the_interface_down() {
    let world = needs!(World::root());
    let (_tap, refusals) = open(&world, "tap0", Setup::loopback());
    assert!(refusals.is_empty());
    let links = json(&world.guest, "link show up");
    let names: Vec<_> = links.iter().filter_map(|link| link["ifname"].as_str()).collect();
    assert_eq!(names, ["lo"]);
}

#[test]
fn ethernet_address_is_set_without_anything_else() {
    let world = needs!(World::root());
    let mac = MacAddr([0x9a, 0x55, 0, 0, 0, 7]);
    let (_tap, refusals) = open(&world, "tap0", Setup::unconfigured(Some(mac)));
    assert!(refusals.is_empty());
    let links = json(&world.guest, "link show");
    let link = links.iter().find(|link| link["ifname"] == "tap0").expect("it is there");
    assert_eq!(link["address"], mac.to_string());
    assert!(!link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP"));
}

#[test]
fn refused_route_is_told_and_everything_else_is_there() {
    let world = needs!(World::root());
    // A gateway that is the broadcast address of the guest's network.
    let ipv4 = FamilyChoice {
        address: Some(Ipv4Addr::new(198, 51, 100, 1)),
        prefix_len: Some(30),
        gateway: Some(Ipv4Addr::new(198, 51, 100, 3)),
        ..FamilyChoice::default()
    };
    let mirrored = Mirrored::open(&world, &Choice { ipv4: Some(ipv4), ..Choice::default() });
    let refused = mirrored.refused();
    assert_eq!(refused, ["IPv4 default route via 198.51.100.3: Invalid argument"]);
    assert_eq!(addresses(&world.guest, "h0"), ["198.51.100.1 30", "2001:db8:1::1 64"]);
    assert_eq!(gateway(&world.guest, "-6").as_deref(), Some("2001:db8:1::2"));
}

#[test]
fn guest_whose_kernel_has_ipv6_off_is_told_of_and_has_ipv4() {
    let world = needs!(World::root());
    world.guest.script("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    let mirrored = Mirrored::open(&world, &Choice::default());
    let refused = mirrored.refused();
    assert!(
        refused.contains(&"IPv6 address 2001:db8:1::1/64: Permission denied".to_owned()),
        "{refused:?}"
    );
    assert!(refused.iter().all(|line| line.starts_with("IPv6 ")), "{refused:?}");
    assert_eq!(addresses(&world.guest, "h0"), ["198.51.100.1 24"]);
    assert_eq!(gateway(&world.guest, "-4").as_deref(), Some("198.51.100.2"));
}

#[test]
fn thousands_of_routes_are_copied() {
    let world = needs!(World::root());
    world.host.script(
        "for a in $(seq 0 19); do for b in $(seq 0 249); do
             echo route add 10.$a.$b.0/24 via 198.51.100.3
         done; done | ip -batch -",
    );
    let mirrored = Mirrored::open(&world, &Choice::default());
    assert_eq!(mirrored.refused(), [""; 0]);
    assert_eq!(routes(&world.guest, "h0").len(), routes(&world.host, "h0").len());
}

#[test]
fn guest_reaches_the_world_by_the_hosts_own_address_and_gateway() {
    for script in ["", HOSTS[7].1, HOSTS[8].1, "ip route del default; ip route add default dev h0"]
    {
        let world = needs!(World::root());
        world.host.script(script);
        if !script.is_empty() {
            // The host's neighbours know the way back.
            world.remote.script("ip route add 192.0.2.9 dev r0; ip addr add 192.0.2.1/32 dev r0");
        }
        let _instance = serve(&world);
        assert_echo(&world);
    }
}

#[test]
fn network_of_the_host_that_comes_later_is_used() {
    let world = needs!(World::root());
    world.host.script("ip -4 addr flush dev h0; ip -6 addr flush dev h0; ip link set h0 down");
    let _instance = serve(&world);
    let server = TcpServer::echo(&world.remote, SocketAddr::new(FAR, 0));
    connect(&world.guest, server.address()).expect_err("there is no way yet");
    world.host.script(
        "ip link set h0 up; ip addr add 198.51.100.1/24 dev h0
         ip route add default via 198.51.100.2",
    );
    assert_echo(&world);
}

/// Puts the guest on the network of its host, with IPv4.
fn serve(world: &World) -> Instance {
    let template = world.host.enter(|| Template::read(None, None)).expect("the host is read");
    let choice = Choice { mtu: Some(65_520), ..Choice::default() };
    let guest = Guest::new(&template, &choice);
    let ipv4 = guest.ipv4.as_ref().expect("there is IPv4");
    let mut family = Family::new(ipv4.address.expect("it has one"), ipv4.prefix_len);
    if let Some(gateway) = ipv4.gateway {
        family = family.with_meanings(&[(gateway, Meaning::Router)]).expect("one fits");
        family.gateway = Some(gateway);
    }
    let plan = AddressPlan::new(Some(family), None, Answers::EveryoneElse).expect("a plan");
    let (tap, _) = open(world, &guest.interface, guest.setup.clone());
    let builder = || Builder::new(tap).plan(plan).mtu(65_520).spawn();
    world.host.enter(builder).expect("the network starts")
}

fn assert_echo(world: &World) {
    let server = TcpServer::echo(&world.remote, SocketAddr::new(FAR, 0));
    let mut stream = connect(&world.guest, server.address()).expect("there is a way");
    send_exact(&mut stream, 7, 10_000).expect("the guest may send");
    receive_exact(&mut stream, 7, 10_000).expect("all of it comes back");
}
