use super::*;

#[test]
fn default_plan_has_the_documented_addresses() {
    let plan = SlirpNetwork::default();
    assert_eq!(plan.gateway(), Ipv4Addr::new(10, 0, 2, 2));
    assert_eq!(plan.dns(), Ipv4Addr::new(10, 0, 2, 3));
    assert_eq!(plan.dhcp_begin(), Ipv4Addr::new(10, 0, 2, 15));
    assert_eq!(plan.dhcp_end(), Ipv4Addr::new(10, 0, 2, 30));
    assert_eq!(plan.recommended_guest(), Ipv4Addr::new(10, 0, 2, 100));
    assert_eq!(plan.netmask(), Ipv4Addr::new(255, 255, 255, 0));
    assert_eq!(plan.broadcast(), Ipv4Addr::new(10, 0, 2, 255));
    let router = IpAddr::V4(plan.gateway());
    assert_eq!(AddressPlan::from(plan).our_mac(router), MacAddr([0x52, 0x55, 10, 0, 2, 2]));
}

#[test]
fn prefix_is_checked_before_host_bits() {
    let odd = Ipv4Addr::new(10, 0, 2, 100);
    assert_eq!(SlirpNetwork::new(odd, 26), Err(PlanError::PrefixLength(26)));
    assert_eq!(SlirpNetwork::new(odd, 0), Err(PlanError::PrefixLength(0)));
    assert_eq!(
        SlirpNetwork::new(odd, 24).unwrap_err().to_string(),
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
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let made: Ipv6Addr = "fd00::3656:78ff:fe9a:bcde".parse().unwrap();
    assert_eq!(plan.ipv6().unwrap().address_made_from(mac), Some(made));
    let recommended = Some("fd00::100".parse().unwrap());
    assert_eq!(AssumedGuest::new(plan, Some(mac)).ipv6, Some(made));
    assert_eq!(AssumedGuest::new(plan, None).ipv6, recommended);
    let without = AssumedGuest::new(AddressPlan::default(), Some(mac));
    assert_eq!((without.ipv4, without.ipv6), (Ipv4Addr::new(10, 0, 2, 100), None));
}

#[test]
fn other_ipv6_networks_are_refused_with_the_reason() {
    const SYNTAX: &str = "expected an IPv6 network such as fd00::/64";
    for bad in ["", "fd00::", "fd00::/", "fd00::/+64", "fd00::/0064", "fd00::/999", "10.0.2.0/64"] {
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
fn our_addresses_of_both_families_are_known() {
    use Meaning::{HostLoopback, Resolver};
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let v4 = |text: &str| -> Vec<_> {
        plan.ipv4().unwrap().meanings_of(text.parse().unwrap()).collect()
    };
    let v6 = |text: &str| -> Vec<_> {
        plan.ipv6().unwrap().meanings_of(text.parse().unwrap()).collect()
    };
    assert_eq!(v4("10.0.2.2"), [HostLoopback]);
    assert_eq!(v4("10.0.2.3"), [Resolver]);
    assert_eq!(v4("10.0.2.4"), []);
    assert_eq!(v6("fd00::2"), [HostLoopback]);
    assert_eq!(v6("fe80::2"), [HostLoopback]);
    assert_eq!(v6("fd00::3"), [Resolver]);
    assert_eq!(v6("fe80::3"), [Resolver]);
    assert_eq!(v6("fd00::4"), []);
    for (address, is_router) in [("10.0.2.2", true), ("10.0.2.3", false), ("fe80::2", true)] {
        assert_eq!(plan.is_router(address.parse().unwrap()), is_router, "{address}");
    }
    assert_eq!(plan.ours().count(), 6);
    assert!(!AddressPlan::default().is_ours("fd00::2".parse().unwrap()));
}

/// A guest with the host's own address: its default gateway stands for the host's loopback, another
/// address for the host itself, and a third one for the resolver.
fn mirrored() -> Family<Ipv4Addr> {
    let gateway = Ipv4Addr::new(192, 0, 2, 1);
    let host = Ipv4Addr::new(192, 0, 2, 77);
    Family { gateway: Some(gateway), ..Family::new(host, 24) }
        .with_meanings(&[
            (gateway, Meaning::Resolver),
            (gateway, Meaning::HostLoopback),
            (Ipv4Addr::new(198, 51, 100, 9), Meaning::HostItself(host)),
        ])
        .unwrap()
}

#[test]
fn guest_is_the_router_of_what_is_behind_it_where_it_is_alone() {
    let family = mirrored();
    let alone = AddressPlan::new(Some(mirrored()), None, Answers::EveryoneElse).unwrap();
    let guest = IpAddr::V4(family.guest);
    let behind: IpAddr = "10.89.0.2".parse().unwrap();
    assert!(!alone.contains(behind));
    assert_eq!(alone.next_hop(behind), guest);
    for on_link in [guest, "169.254.7.7".parse().unwrap(), "fe80::7".parse().unwrap()] {
        assert_eq!(alone.next_hop(on_link), on_link);
    }
    let among_others = AddressPlan::new(Some(mirrored()), None, Answers::OnlyOurs).unwrap();
    assert_eq!(among_others.next_hop(behind), behind);
}

#[test]
fn guest_may_have_the_hosts_own_address() {
    let plan = AddressPlan::new(Some(mirrored()), None, Answers::EveryoneElse).unwrap();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (address, is_ours) in [
        ("192.0.2.1", true),
        ("198.51.100.9", true),
        ("192.0.2.77", false),
        ("192.0.2.5", false),
        ("fd00::2", false),
    ] {
        assert_eq!(plan.is_ours(ip(address)), is_ours, "{address}");
    }
    let guest = ip("192.0.2.77");
    for (target, asker, is_answered) in [
        ("192.0.2.1", guest, true),
        ("192.0.2.5", guest, true),
        ("203.0.113.1", guest, true),
        // An announcement, the guest's probe for its own address, and a group.
        ("192.0.2.5", ip("192.0.2.5"), false),
        ("192.0.2.77", ip("0.0.0.0"), false),
        ("224.0.0.1", guest, false),
        ("fd00::1", ip("fd00::77"), false),
    ] {
        assert_eq!(plan.answers_for(ip(target), asker), is_answered, "{target}");
    }
    assert!(!plan.is_unreachable_neighbor(ip("192.0.2.5")));
    assert!(AddressPlan::default().is_unreachable_neighbor(ip("10.0.2.5")));
    assert_eq!(AssumedGuest::new(plan, None).ipv4, Ipv4Addr::new(192, 0, 2, 77));
}

#[test]
fn prefix_may_be_anything_and_the_gateway_anywhere_or_nowhere() {
    let guest = Ipv4Addr::new(10, 0, 2, 0);
    for (prefix_len, network, broadcast) in [
        (0, Ipv4Addr::UNSPECIFIED, Some(Ipv4Addr::BROADCAST)),
        (24, guest, Some(Ipv4Addr::new(10, 0, 2, 255))),
        (31, guest, None),
        (32, guest, None),
    ] {
        let family = Family::new(guest, prefix_len);
        let plan = AddressPlan::new(Some(family), None, Answers::OnlyOurs).unwrap();
        assert_eq!((family.network(), family.broadcast()), (network, broadcast), "{prefix_len}");
        assert!(plan.contains(guest.into()));
        assert_eq!(plan.contains(Ipv4Addr::new(10, 0, 2, 1).into()), prefix_len < 32);
        assert_eq!(plan.stand_in(guest.into()), None);
        assert_eq!(family.leases(), (guest, guest));
    }
    let far = Ipv4Addr::new(169, 254, 2, 2);
    let routed = Family { gateway: Some(far), ..Family::new(guest, 32) };
    let routed = routed.with_meanings(&[(far, Meaning::Router)]).unwrap();
    let plan = AddressPlan::new(Some(routed), None, Answers::OnlyOurs).unwrap();
    assert!(plan.is_ours(far.into()) && plan.is_router(far.into()));
    assert!(!plan.stands_for_another(far.into()), "a router alone is not pinged here");

    let six: Ipv6Addr = "2001:db8::5".parse().unwrap();
    for prefix_len in [0, 64, 127, 128] {
        let family = Family::new(six, prefix_len);
        assert_eq!(AddressPlan::new(None, Some(family), Answers::OnlyOurs).map(drop), Ok(()));
        assert_eq!(family.contains("2001:db8::4".parse().unwrap()), prefix_len < 128);
        let made = family.address_made_from(MacAddr([2, 0, 0, 0, 0, 1]));
        assert_eq!(made.is_some(), prefix_len == 64);
    }
}

#[test]
fn plan_of_ipv6_alone_has_no_ipv4() {
    let family = Ipv6Plan::default().family();
    let plan = AddressPlan::new(None, Some(family), Answers::OnlyOurs).unwrap();
    assert!(plan.ipv4().is_none() && plan.ipv6().is_some());
    assert!(!plan.is_guest_address(Ipv4Addr::new(10, 0, 2, 100).into()));
    assert_eq!(plan.stand_in(Ipv4Addr::LOCALHOST.into()), None);
    let gateway = IpAddr::V6(Ipv6Plan::default().gateway());
    assert_eq!(plan.our_mac(gateway), AddressPlan::mac_of(gateway));
    assert_eq!(plan.our_mac(Ipv4Addr::LOCALHOST.into()), AddressPlan::mac_of(gateway));
}

#[test]
fn plan_of_slirp4netns_is_a_valid_one() {
    let networks = [
        SlirpNetwork::default().with_ipv6(Ipv6Plan::default()),
        SlirpNetwork::new(Ipv4Addr::new(10, 0, 2, 128), 25).unwrap(),
        SlirpNetwork::new(Ipv4Addr::new(128, 0, 0, 0), 1).unwrap(),
    ];
    for network in networks {
        let plan = AddressPlan::slirp(network);
        let again = AddressPlan::new(plan.ipv4().copied(), plan.ipv6().copied(), Answers::OnlyOurs);
        assert_eq!(again, Ok(plan));
    }
}

#[test]
fn impossible_plans_are_refused_with_the_reason() {
    let (guest, gateway) = (Ipv4Addr::new(10, 0, 2, 100), Ipv4Addr::new(10, 0, 2, 2));
    let family = Family::new(guest, 24);
    let with = |meanings: &[(Ipv4Addr, Meaning<Ipv4Addr>)]| family.with_meanings(meanings).unwrap();
    let (router, loopback) = (Meaning::Router, Meaning::HostLoopback);
    for (family, expected) in [
        (Family::new(guest, 33), "the prefix of 10.0.2.100 is at most 32 bits long, not 33"),
        (Family::new(Ipv4Addr::LOCALHOST, 8), "127.0.0.1 is not the address of a single station"),
        (
            with(&[(Ipv4Addr::BROADCAST, router)]),
            "255.255.255.255 is not the address of a single station",
        ),
        (
            with(&[(gateway, Meaning::HostItself(Ipv4Addr::UNSPECIFIED))]),
            "0.0.0.0 is not the address of a single station",
        ),
        (
            with(&[(guest, loopback)]),
            "10.0.2.100 is the guest's own address and cannot mean anything else",
        ),
        (
            Family { gateway: Some(guest), ..family },
            "10.0.2.100 is the guest's own address and cannot mean anything else",
        ),
        (
            Family { gateway: Some(gateway), ..family },
            "the gateway 10.0.2.2 has no meaning: list it as a router or as the host's loopback",
        ),
        (with(&[(gateway, router), (gateway, loopback)]), "10.0.2.2 has two meanings"),
        (
            with(&[(gateway, Meaning::Resolver), (gateway, Meaning::Resolver)]),
            "10.0.2.2 has two meanings",
        ),
        (
            Family { pool: Some((gateway, guest)), ..family },
            "the DHCP pool 10.0.2.2 to 10.0.2.100 is not 1 to 16 addresses of the guest's network",
        ),
        (
            Family { pool: Some((guest, gateway)), ..family },
            "the DHCP pool 10.0.2.100 to 10.0.2.2 is not 1 to 16 addresses of the guest's network",
        ),
    ] {
        let error = AddressPlan::new(Some(family), None, Answers::OnlyOurs).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let none = AddressPlan::new(None, None, Answers::OnlyOurs).unwrap_err().to_string();
    assert_eq!(none, "the plan has no addresses: it needs IPv4, IPv6 or both");
    let long = Family::new("2001:db8::1".parse().unwrap(), 129);
    let long = AddressPlan::new(None, Some(long), Answers::OnlyOurs).unwrap_err().to_string();
    assert_eq!(long, "the prefix of 2001:db8::1 is at most 128 bits long, not 129");
    let many = family.with_meanings(&[(gateway, router); 7]);
    assert_eq!(many.unwrap_err().to_string(), "more than 6 addresses have a meaning");
}
