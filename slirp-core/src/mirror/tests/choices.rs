//! What a person chooses in place of the host's.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::*;

type Changed = fn(&mut FamilyChoice<Ipv4Addr>, &mut FamilyChoice<Ipv6Addr>);

fn chosen(recorded: &[u8], change: Changed) -> Guest {
    let (mut ipv4, mut ipv6) = (FamilyChoice::default(), FamilyChoice::default());
    change(&mut ipv4, &mut ipv6);
    let choice = Choice { ipv4: Some(ipv4), ipv6: Some(ipv6), ..Choice::default() };
    Guest::new(&template(recorded), &choice)
}

#[test]
fn guest_is_described_for_its_address_plan() {
    let guest = guest(SEVERAL);
    assert_eq!(guest.interface, "eth1");
    let ipv4 = guest.ipv4.unwrap();
    assert_eq!(ipv4.address, Some(Ipv4Addr::new(192, 0, 2, 10)));
    assert_eq!(ipv4.prefix_len, 24);
    assert_eq!(ipv4.others, [Ipv4Addr::new(203, 0, 113, 5), Ipv4Addr::new(192, 0, 2, 11)]);
    assert_eq!(ipv4.gateway, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(ipv4.host, Some(Ipv4Addr::new(192, 0, 2, 10)));
    let ipv6 = guest.ipv6.unwrap();
    let [main, other] = ["2001:db8:0:1::10", "fd00:5::10"].map(|text| text.parse::<Ipv6Addr>());
    assert_eq!(ipv6.address, main.ok());
    assert_eq!(ipv6.others, [other.unwrap()]);
}

#[test]
fn host_without_a_network_gives_a_link_of_its_own() {
    let guest = guest(LOOPBACK_ONLY);
    assert_eq!(guest.interface, "tap0");
    let ipv4 = guest.ipv4.unwrap();
    assert_eq!(ipv4.address, Some(Ipv4Addr::new(169, 254, 2, 1)));
    assert_eq!((ipv4.prefix_len, ipv4.host), (16, None));
    assert_eq!(ipv4.gateway, Some(Ipv4Addr::new(169, 254, 2, 2)));
    let ipv6 = guest.ipv6.unwrap();
    assert_eq!((ipv6.address, ipv6.host), (None, None));
    assert_eq!(ipv6.gateway, Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)));
}

#[test]
fn default_route_without_a_gateway_has_none_made_up() {
    let ipv4 = guest(POINT_TO_POINT).ipv4.unwrap();
    assert_eq!(ipv4.gateway, None);
    let ipv4 = guest(NO_DEFAULT).ipv4.unwrap();
    assert_eq!(ipv4.gateway, Some(Ipv4Addr::new(169, 254, 2, 2)));
    assert!(ipv4.host.is_some());
}

#[test]
fn each_choice_replaces_its_part_of_the_host() {
    let rows: [(Changed, &[&str]); 6] = [
        // An address of another network, whose host's gateway is on the link by a copied route.
        (
            |v4, _| (v4.address, v4.prefix_len) = (Some(Ipv4Addr::new(10, 0, 2, 0)), Some(24)),
            &["address 10.0.2.0/24", "192.0.2.0/24", "default via 192.0.2.1 metric 100"],
        ),
        (
            |v4, _| v4.gateway = Some(Ipv4Addr::new(192, 0, 2, 7)),
            &["address 192.0.2.10/24", "default via 192.0.2.7"],
        ),
        (
            |v4, _| v4.gateway = Some(Ipv4Addr::new(10, 9, 8, 7)),
            &["address 192.0.2.10/24", "default via 10.9.8.7 onlink"],
        ),
        (|v4, _| v4.copies_routes = false, &["address 192.0.2.10/24", "default via 192.0.2.1"]),
        (
            |v4, _| v4.copies_addresses = false,
            &["address 192.0.2.10/24", "192.0.2.0/24", "default via 192.0.2.1 metric 100"],
        ),
        (
            |v4, _| {
                v4.address = Some(Ipv4Addr::new(10, 0, 2, 100));
                v4.gateway = Some(Ipv4Addr::new(10, 0, 2, 2));
            },
            &["address 10.0.2.100/32", "default via 10.0.2.2 onlink"],
        ),
    ];
    for (change, expected) in rows {
        let mut lines = lines(&chosen(PLAIN, change).setup);
        lines.retain(|line| !line.contains(':'));
        assert_eq!(lines, expected);
    }
}

#[test]
fn chosen_ipv6_address_and_gateway_leave_ipv4_alone() {
    let change: Changed = |_, v6| {
        v6.address = Some(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 3));
        v6.gateway = Some(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1));
    };
    let lines = lines(&chosen(NEXT_HOP_OBJECTS, change).setup);
    assert_eq!(
        lines,
        [
            "address ::/64 nodad",
            "address 192.0.2.10/24",
            "address fc00::3/64 nodad",
            "192.0.2.0/24",
            "default via 192.0.2.1",
            "default via fc00::1",
        ]
    );
}

#[test]
fn network_route_of_an_address_is_made_where_the_hosts_is_not_copied() {
    let lines = lines(&chosen(SEVERAL, |v4, _| v4.copies_routes = false).setup);
    assert!(lines.contains(&"address 203.0.113.5/28".to_owned()), "{lines:?}");
}

#[test]
fn family_that_is_left_out_gets_nothing() {
    let template = template(PLAIN);
    let guest = Guest::new(&template, &Choice { ipv6: None, ..Choice::default() });
    assert!(guest.ipv6.is_none());
    assert_eq!(
        lines(&guest.setup),
        ["address 192.0.2.10/24", "192.0.2.0/24", "default via 192.0.2.1 metric 100"]
    );
    let guest = Guest::new(&template, &Choice { ipv4: None, ..Choice::default() });
    assert!(guest.ipv4.is_none());
    assert!(lines(&guest.setup).iter().all(|line| line.contains(':')));
}

#[test]
fn name_is_the_chosen_one_or_that_of_either_family() {
    assert_eq!(guest(IPV6_ONLY).interface, "eth0");
    let choice = Choice { interface: Some("myname".to_owned()), ..Choice::default() };
    assert_eq!(Guest::new(&template(PLAIN), &choice).interface, "myname");
}
