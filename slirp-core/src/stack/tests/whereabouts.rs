//! Where a guest is that chooses its addresses itself.

use super::*;
use crate::mac::MacAddr;
use crate::plan::{AddressPlan, Mirrored, MirroredFamily};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn plan(is_fixed: bool) -> AddressPlan {
    let v4 = MirroredFamily { is_fixed, ..MirroredFamily::new(Ipv4Addr::new(192, 0, 2, 77), 24) };
    let six = "2001:db8::77".parse().unwrap();
    let v6 = MirroredFamily { is_fixed, ..MirroredFamily::new(six, 64) };
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    AddressPlan::mirrored(&mirrored).unwrap()
}

#[test]
fn rule_follows_the_guest_to_the_address_that_it_was_last_heard_with() {
    let mut whereabouts = Whereabouts::new(&plan(false));
    let (four, six) = (socket("192.0.2.77:80"), socket("[2001:db8::77]:80"));
    assert_eq!((whereabouts.current(four), whereabouts.current(six)), (four, six));
    for (heard, v4, v6) in [
        ("192.0.2.9", "192.0.2.9:80", "[2001:db8::77]:80"),
        ("2001:db8::9", "192.0.2.9:80", "[2001:db8::9]:80"),
        ("fe80::9", "192.0.2.9:80", "[2001:db8::9]:80"),
        ("198.51.100.1", "198.51.100.1:80", "[2001:db8::9]:80"),
        ("192.0.2.77", "192.0.2.77:80", "[2001:db8::9]:80"),
    ] {
        whereabouts.note(ip(heard));
        assert_eq!(whereabouts.current(four), socket(v4), "after {heard}");
        assert_eq!(whereabouts.current(six), socket(v6), "after {heard}");
    }
    // A rule that names another address means it.
    for named in [socket("192.0.2.5:80"), socket("[2001:db8::5]:80")] {
        assert_eq!(whereabouts.current(named), named);
    }
}

#[test]
fn fixed_guest_and_that_of_slirp4netns_stay_where_the_plan_has_them() {
    let guest = socket("192.0.2.77:80");
    let mut fixed = Whereabouts::new(&plan(true));
    let mut slirp = Whereabouts::new(&AddressPlan::default());
    for heard in ["192.0.2.9", "10.0.2.15", "2001:db8::9", "fe80::9"] {
        fixed.note(ip(heard));
        slirp.note(ip(heard));
    }
    assert_eq!(fixed.current(guest), guest);
    let guest = socket("10.0.2.100:80");
    assert_eq!(slirp.current(guest), guest);
    let link_local = ip("fe80::1");
    let guest = socket("[fd00::100]:80");
    assert_eq!(slirp.facing(slirp.current(guest), link_local), guest);
}

#[test]
fn link_local_remote_reaches_the_link_local_address() {
    let mut whereabouts = Whereabouts::new(&plan(false));
    let guest = socket("[2001:db8::77]:80");
    assert_eq!(whereabouts.facing(guest, ip("fe80::1")), guest, "it was not heard yet");
    whereabouts.note(ip("fe80::9"));
    for (to, seen, expected) in [
        ("[2001:db8::77]:80", "fe80::1", "[fe80::9]:80"),
        ("[2001:db8::77]:80", "2001:db8::1", "[2001:db8::77]:80"),
        ("[2001:db8::77]:80", "fe80::9", "[2001:db8::77]:80"),
        ("[2001:db8::5]:80", "fe80::1", "[2001:db8::5]:80"),
        ("192.0.2.77:80", "192.0.2.1", "192.0.2.77:80"),
    ] {
        let reached = whereabouts.facing(whereabouts.current(socket(to)), ip(seen));
        assert_eq!(reached, socket(expected), "{seen} to {to}");
    }
}

#[test]
fn guest_without_a_network_is_found_by_its_link_local_address() {
    let v6 = MirroredFamily::<Ipv6Addr>::local(MacAddr::default());
    let planned = SocketAddr::new(v6.guest.into(), 80);
    let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
    let mut whereabouts = Whereabouts::new(&AddressPlan::mirrored(&mirrored).unwrap());
    assert_eq!(whereabouts.current(planned), planned);
    whereabouts.note(ip("fe80::9"));
    assert_eq!(whereabouts.current(planned), socket("[fe80::9]:80"));
    assert_eq!(whereabouts.facing(socket("[fe80::9]:80"), ip("fe80::1")), socket("[fe80::9]:80"));
    whereabouts.note(ip("2001:db8::9"));
    assert_eq!(whereabouts.current(planned), socket("[2001:db8::9]:80"));
    whereabouts.note(ip("192.0.2.1"));
    assert_eq!(whereabouts.current(socket("192.0.2.77:80")), socket("192.0.2.77:80"));
}

#[test]
fn rule_leads_to_the_guest_of_another_plan() {
    let local = |v6: MirroredFamily<Ipv6Addr>| {
        let v4 = MirroredFamily { is_fixed: true, ..MirroredFamily::<Ipv4Addr>::local() };
        let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
        AddressPlan::mirrored(&mirrored).unwrap()
    };
    let v6 = MirroredFamily::<Ipv6Addr>::local(MacAddr::default());
    let six = SocketAddr::new(v6.guest.into(), 80);
    let (four, before) = (socket("169.254.2.1:80"), local(v6));
    let mut whereabouts = Whereabouts::new(&before);
    whereabouts.note(ip("fe80::9"));
    assert_eq!(whereabouts.current(six), socket("[fe80::9]:80"));
    let after = plan(false);
    whereabouts.adopt_plan(&before, &after);
    for (rule, expected) in [
        (four, "192.0.2.77:80"),
        (six, "[2001:db8::77]:80"),
        (socket("192.0.2.77:80"), "192.0.2.77:80"),
        (socket("192.0.2.78:80"), "192.0.2.78:80"),
    ] {
        assert_eq!(whereabouts.current(rule), socket(expected), "{rule}");
    }
    // Where the guest was heard, unless the plan has taken that address from it.
    whereabouts.note(ip("192.0.2.77"));
    whereabouts.note(ip("2001:db8::5"));
    whereabouts.adopt_plan(&after, &before);
    assert_eq!(whereabouts.current(four), four);
    assert_eq!(whereabouts.current(six), socket("[2001:db8::5]:80"));
}
