//! Guests with the host's own addresses.

use core::net::IpAddr;

use super::*;

const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// What Podman asks for.
fn podman() -> MirroredFamily<Ipv4Addr> {
    MirroredFamily {
        gateway: Some(GATEWAY),
        host_itself: Some(HOST),
        resolver: Some(RESOLVER),
        ..MirroredFamily::new(GUEST, 24)
    }
}

fn plan_of(v4: MirroredFamily<Ipv4Addr>) -> Result<AddressPlan, PlanError> {
    AddressPlan::mirrored(&Mirrored { ipv4: Some(v4), ..Mirrored::default() })
}

fn list(plan: &AddressPlan) -> Vec<(Ipv4Addr, Meaning<Ipv4Addr>)> {
    plan.ipv4().unwrap().list().collect()
}

#[test]
fn each_name_of_the_host_means_what_the_caller_says() {
    use Meaning::{Forwarder, HostItself, HostLoopback, Router};
    assert_eq!(
        list(&plan_of(podman()).unwrap()),
        [(RESOLVER, Forwarder(None)), (HOST, HostItself(GUEST)), (GATEWAY, Router)]
    );
    let mapped = MirroredFamily {
        gateway: Some(GATEWAY),
        is_gateway_host: true,
        resolver: Some(GATEWAY),
        secure_resolver: Some(Ipv4Addr::new(9, 9, 9, 9)),
        ..MirroredFamily::new(GUEST, 24)
    };
    let secure = Forwarder(Some(Ipv4Addr::new(9, 9, 9, 9)));
    let listed = list(&plan_of(mapped.clone()).unwrap());
    assert_eq!(listed, [(GATEWAY, secure), (GATEWAY, HostLoopback)]);
    // A resolver on the host's loopback has both of its ports, too.
    let stub = Some(Ipv4Addr::new(127, 0, 0, 53));
    let listed =
        list(&plan_of(MirroredFamily { secure_resolver: stub, ..mapped.clone() }).unwrap());
    assert_eq!(listed, [(GATEWAY, Forwarder(stub)), (GATEWAY, HostLoopback)]);
    let nobody = Some(Ipv4Addr::UNSPECIFIED);
    let listed = list(&plan_of(MirroredFamily { secure_resolver: nobody, ..mapped }).unwrap());
    assert_eq!(listed, [(GATEWAY, Forwarder(None)), (GATEWAY, HostLoopback)]);
    // The address of the host and of the guest may differ, and names may come twice.
    let (host, other) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(203, 0, 113, 1));
    let crowded = MirroredFamily {
        host,
        host_loopback: vec![other, HOST, other],
        host_itself: Some(HOST),
        gateway: Some(HOST),
        ..MirroredFamily::new(GUEST, 24)
    };
    let plan = plan_of(crowded).unwrap();
    assert_eq!(list(&plan), [(other, HostLoopback), (HOST, HostLoopback)]);
    assert!(plan.is_router(HOST.into()));
}

#[test]
fn everyone_else_is_answered_for_with_one_mac_address() {
    let other = Ipv4Addr::new(192, 0, 2, 78);
    let v6 = MirroredFamily {
        gateway: Some("fe80::1".parse().unwrap()),
        ..MirroredFamily::new("2001:db8::77".parse().unwrap(), 64)
    };
    let v4 = MirroredFamily { others: vec![other], ..podman() };
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (target, asker, is_answered) in [
        ("192.0.2.1", "192.0.2.77", true),
        ("192.0.2.5", "192.0.2.77", true),
        ("203.0.113.9", "192.0.2.77", true),
        ("192.0.2.5", "0.0.0.0", true),
        ("192.0.2.77", "0.0.0.0", false),
        ("192.0.2.78", "0.0.0.0", false),
        ("192.0.2.79", "192.0.2.79", false),
        ("fe80::1", "fe80::5", true),
        ("2001:db8::1", "2001:db8::77", true),
        ("2001:db8::77", "fe80::5", false),
        ("2001:db8::5", "::", false),
    ] {
        assert_eq!(plan.answers_for(ip(target), ip(asker)), is_answered, "{target} for {asker}");
        assert_eq!(plan.mac_for(ip(target)), MIRROR_MAC);
        assert_eq!(plan.our_mac(ip(target)), MIRROR_MAC);
    }
    let mac = MacAddr([2, 0, 0, 0, 0, 9]);
    let plan = AddressPlan::mirrored(&Mirrored { our_mac: mac, ..mirrored }).unwrap();
    assert_eq!((plan.mac_for(GATEWAY.into()), plan.our_mac(ip("::"))), (mac, mac));
    // Nothing of that holds for slirp4netns.
    let slirp = AddressPlan::default();
    assert_eq!(slirp.mac_for(ip("10.0.2.3")), MacAddr([0x52, 0x55, 10, 0, 2, 3]));
    assert!(slirp.passes_loopback() && !plan.passes_loopback());
}

#[test]
fn our_link_local_address_is_the_gateways_or_made_from_our_mac() {
    let guest = "2001:db8::77".parse().unwrap();
    for (gateway, expected) in [
        (Some("fe80::1"), "fe80::1"),
        (Some("2001:db8::1"), "fe80::9855:9aff:fe55:9a55"),
        (None, "fe80::9855:9aff:fe55:9a55"),
    ] {
        let gateway = gateway.map(|text| text.parse().unwrap());
        let v6 = MirroredFamily { gateway, ..MirroredFamily::new(guest, 64) };
        let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
        let plan = AddressPlan::mirrored(&mirrored).unwrap();
        let link_local: Ipv6Addr = expected.parse().unwrap();
        assert_eq!(plan.ipv6().unwrap().link_local, Some(link_local));
        assert!(plan.is_ours(link_local.into()) && plan.is_router(link_local.into()));
        assert!(!plan.stands_for_another(link_local.into()));
    }
}

#[test]
fn guest_may_have_any_address_of_its_network() {
    // As Podman documents: `-a 10.0.2.0 -n 24 -g 10.0.2.2`.
    let guest = Ipv4Addr::new(10, 0, 2, 0);
    let gateway = Some(Ipv4Addr::new(10, 0, 2, 2));
    for prefix_len in [0, 8, 24, 31, 32] {
        let v4 =
            MirroredFamily { gateway, is_fixed: true, ..MirroredFamily::new(guest, prefix_len) };
        let plan = plan_of(v4).unwrap();
        let family = plan.ipv4().unwrap();
        assert!(plan.is_guest_address(guest.into()) && !family.may_move);
        assert_eq!(family.leases(), (guest, guest));
    }
    assert!(plan_of(podman()).unwrap().ipv4().unwrap().may_move);
    let many: Vec<_> = (100..200).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
    let plan = plan_of(MirroredFamily { others: many.clone(), ..podman() }).unwrap();
    let known = many.iter().filter(|&&other| plan.is_guests(other.into())).count();
    assert_eq!(known, crate::plan::OTHER_GUESTS_CAP);
}

#[test]
fn without_a_network_the_guest_has_local_addresses() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut v4 = MirroredFamily::<Ipv4Addr>::local();
    v4.is_gateway_host = true;
    let v6 = MirroredFamily::<Ipv6Addr>::local(mac);
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let (v4, v6) = (plan.ipv4().unwrap(), plan.ipv6().unwrap());
    assert_eq!((v4.guest, v4.prefix_len), (Ipv4Addr::new(169, 254, 2, 1), 16));
    let gateway = Ipv4Addr::new(169, 254, 2, 2);
    assert_eq!(v4.address_of(Meaning::HostLoopback), Some(gateway));
    assert_eq!(v4.gateway, Some(gateway));
    assert_eq!(v6.guest, "fe80::ff:fe00:1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(v6.gateway, Some("fe80::1".parse().unwrap()));
    assert_eq!(v6.gateway, v6.link_local);
    // A caller that does not know the guest's Ethernet address does not harm the plan.
    let unknown = MirroredFamily::<Ipv6Addr>::local(MacAddr::default());
    let mirrored = Mirrored { ipv6: Some(unknown), ..Mirrored::default() };
    assert!(AddressPlan::mirrored(&mirrored).is_ok());
}

#[test]
fn impossible_names_are_refused_with_the_reason() {
    let ours = vec![GUEST];
    let many: Vec<_> = (1..8).map(|last| Ipv4Addr::new(203, 0, 113, last)).collect();
    for (v4, expected) in [
        (
            MirroredFamily { host_loopback: ours, ..podman() },
            "192.0.2.77 is the guest's own address and cannot mean anything else",
        ),
        (
            MirroredFamily { others: vec![HOST], ..podman() },
            "169.254.1.2 is the guest's own address and cannot mean anything else",
        ),
        (
            MirroredFamily { gateway: Some(GUEST), ..podman() },
            "192.0.2.77 is the guest's own address and cannot mean anything else",
        ),
        (
            MirroredFamily { resolver: Some(Ipv4Addr::LOCALHOST), ..podman() },
            "127.0.0.1 is not the address of a single station",
        ),
        (
            MirroredFamily { host_loopback: many, ..podman() },
            "more than 6 addresses have a meaning",
        ),
    ] {
        assert_eq!(plan_of(v4).unwrap_err().to_string(), expected);
    }
    let none = AddressPlan::mirrored(&Mirrored::default()).unwrap_err();
    assert_eq!(none, PlanError::NoFamily);
}

#[test]
fn rules_lead_to_the_planned_address_of_a_guest_that_is_followed() {
    use crate::plan::AssumedGuest;
    let guest: Ipv6Addr = "2001:db8::77".parse().unwrap();
    let v6 = Some(MirroredFamily::new(guest, 64));
    let mirrored = Mirrored { ipv4: Some(podman()), ipv6: v6, ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let assumed = AssumedGuest::new(plan, Some(MacAddr([2, 0, 0, 0, 0, 1])));
    assert_eq!(assumed, AssumedGuest { ipv4: GUEST, ipv6: Some(guest) });
}
