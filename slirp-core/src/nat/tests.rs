use super::*;
use crate::config::StackConfig;
use crate::plan::{Answers, Ipv6Plan, Mirrored, MirroredFamily, SlirpNetwork};
use crate::policy::{Protocol, Target};
use crate::rng::Rng;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn answer_comes_from_what_the_guest_wrote_even_when_two_names_share_a_port() {
    let (plan, guest) = (AddressPlan::default(), "10.0.2.100".parse().unwrap());
    let mut translations = Translations::new();
    for (original, translated) in [
        ("10.0.2.2:7", "127.0.0.1:7"),
        ("192.0.2.1:7", "192.0.2.1:7"),
        ("127.0.0.9:9", "127.0.0.9:9"),
    ] {
        translations.note(&plan, address(original), address(translated));
    }
    for (remote, expected) in [
        ("127.0.0.1:7", "10.0.2.2:7"),
        ("192.0.2.1:7", "192.0.2.1:7"),
        ("127.0.0.9:9", "127.0.0.9:9"),
        ("127.0.0.1:8", "10.0.2.2:8"),
        ("198.51.100.1:8", "198.51.100.1:8"),
    ] {
        let seen = translations.as_seen_by_guest(&plan, guest, address(remote));
        assert_eq!(seen, Some(address(expected)), "{remote}");
    }
    let foreign = translations.as_seen_by_guest(&plan, guest, address("[2001:db8::1]:8"));
    assert_eq!(foreign, None);
}

#[test]
fn remembered_destinations_are_bounded_and_the_oldest_goes() {
    let (plan, guest) = (AddressPlan::default(), "10.0.2.100".parse().unwrap());
    let mut translations = Translations::new();
    for port in 1..=20 {
        let written = SocketAddr::from(([127, 0, 0, 1], port));
        translations.note(&plan, written, written);
    }
    assert_eq!(translations.pairs.len(), REMEMBERED_CAP);
    for (remote, expected) in [("127.0.0.1:20", "127.0.0.1:20"), ("127.0.0.1:1", "10.0.2.2:1")] {
        let seen = translations.as_seen_by_guest(&plan, guest, address(remote));
        assert_eq!(seen, Some(address(expected)));
    }
}

/// The host's own address in the plan of [`mirrored`], which its guest has too.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

/// A guest that has the host's address, with a mapped gateway, an alias of the host, and a resolver
/// that is the gateway in one family and on its own in the other.
fn mirrored(has_loopback: bool) -> AddressPlan {
    let gateway = Ipv4Addr::new(192, 0, 2, 1);
    let meaning = if has_loopback { Meaning::HostLoopback } else { Meaning::Router };
    let v4 = Family { gateway: Some(gateway), ..Family::new(HOST, 24) }
        .with_meanings(&[
            (gateway, Meaning::Resolver),
            (gateway, meaning),
            (Ipv4Addr::new(198, 51, 100, 9), Meaning::HostItself(HOST)),
        ])
        .unwrap();
    let gateway = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let meaning = if has_loopback { Meaning::HostLoopback } else { Meaning::Router };
    let v6 = Family { gateway: Some(gateway), ..Family::new(HOST6, 128) }
        .with_meanings(&[
            ("2001:db8::53".parse().unwrap(), Meaning::Resolver),
            (gateway, meaning),
            ("2001:db8::99".parse().unwrap(), Meaning::HostItself(HOST6)),
        ])
        .unwrap();
    AddressPlan::new(Some(v4), Some(v6), Answers::EveryoneElse).unwrap()
}

/// Pasta's plan with every name that the host may get, or with the gateway alone.
fn pasta(is_gateway_host: bool) -> AddressPlan {
    let ip4 = |text: &str| -> Ipv4Addr { text.parse().unwrap() };
    let ip6 = |text: &str| -> Ipv6Addr { text.parse().unwrap() };
    let mut v4 = MirroredFamily { is_gateway_host, ..MirroredFamily::new(HOST, 24) };
    v4.gateway = Some(ip4("192.0.2.1"));
    let mut v6 = MirroredFamily { is_gateway_host, ..MirroredFamily::new(HOST6, 64) };
    v6.gateway = Some(ip6("fe80::1"));
    if !is_gateway_host {
        v4.others = vec![ip4("192.0.2.132")];
        v4.host_loopback = vec![ip4("198.51.100.3")];
        v4.host_itself = Some(ip4("198.51.100.9"));
        v4.resolver = Some(ip4("198.51.100.53"));
        v4.secure_resolver = Some(ip4("8.8.8.8"));
        v6.host_loopback = vec![ip6("fd00::3")];
        v6.host_itself = Some(ip6("fd00::9"));
        v6.resolver = Some(ip6("fd00::53"));
    }
    let mirrored = Mirrored { ipv4: Some(v4), ipv6: Some(v6), ..Mirrored::default() };
    AddressPlan::mirrored(&mirrored).unwrap()
}

fn plans() -> [AddressPlan; 7] {
    let six = Ipv6Plan::default();
    let small = SlirpNetwork::new(Ipv4Addr::new(172, 16, 0, 128), 25).unwrap();
    let alone = AddressPlan::default().with_ipv6(six).ipv6().copied();
    let alone = AddressPlan::new(None, alone, Answers::OnlyOurs).unwrap();
    [
        AddressPlan::default().with_ipv6(six),
        AddressPlan::slirp(small),
        alone,
        mirrored(true),
        mirrored(false),
        pasta(true),
        pasta(false),
    ]
}

/// An address of a world in which most of them are special to the plans above.
fn any_address(rng: &mut Rng) -> IpAddr {
    const V4: [[u8; 4]; 9] = [
        [10, 0, 2, 0],
        [172, 16, 0, 128],
        [192, 0, 2, 0],
        [198, 51, 100, 0],
        [127, 0, 0, 0],
        [169, 254, 1, 0],
        [0, 0, 0, 0],
        [255, 255, 255, 0],
        [8, 8, 8, 0],
    ];
    const V6: [[u16; 4]; 5] =
        [[0xfd00, 0, 0, 0], [0x2001, 0xdb8, 0, 0], [0xfe80, 0, 0, 0], [0; 4], [0x2606, 0, 0, 1]];
    const LAST: [u8; 12] = [0, 1, 2, 3, 9, 53, 77, 99, 100, 130, 131, 255];
    let mut pick = |len: usize| usize::from(rng.next_u16()) % len;
    let last = LAST[pick(LAST.len())];
    if pick(2) == 0 {
        let [a, b, c, base] = V4[pick(V4.len())];
        IpAddr::from([a, b, c, base | last])
    } else {
        let [a, b, c, d] = V6[pick(V6.len())];
        let hexadecimal = u16::from_str_radix(&last.to_string(), 16).unwrap();
        IpAddr::from([a, b, c, d, 0, 0, 0, hexadecimal])
    }
}

/// To the host with the default policy; `None` where nothing goes there.
fn to_host(plan: &AddressPlan, original_dst: SocketAddr) -> Option<SocketAddr> {
    let config = StackConfig { plan: *plan, ..StackConfig::default() };
    match config.target(Protocol::Udp, original_dst) {
        Ok(Target::Host(translated)) => Some(translated),
        Ok(Target::Resolver) | Err(_) => None,
    }
}

#[test]
fn there_and_back_is_the_identity_for_what_the_guest_sends() {
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        for plan in plans() {
            let mut translations = Translations::new();
            let original = SocketAddr::new(any_address(&mut rng), 80 + rng.next_u16() % 3);
            let guest = original.ip();
            let Some(translated) = to_host(&plan, original) else { continue };
            assert_eq!(translated.port(), original.port(), "seed {seed}");
            translations.note(&plan, original, translated);
            let back = translations.as_seen_by_guest(&plan, guest, translated);
            assert_eq!(back, Some(original), "seed {seed}: {original} is {translated}");
        }
    }
}

#[test]
fn there_and_back_is_the_identity_for_what_the_plan_lists() {
    for plan in plans() {
        for ours in plan.ours() {
            let original = SocketAddr::new(ours, 80);
            let translated = match translated_dst(&plan, original, true) {
                Translation::HostLoopback(translated) | Translation::HostItself(translated) => {
                    translated
                }
                Translation::Resolver | Translation::NoService | Translation::None => continue,
            };
            for opener in [Opener::Guest, Opener::Remote] {
                let seen = as_seen_by_guest(&plan, opener, ours, translated.ip()).unwrap();
                // The link-local gateway comes second in a list, and is the same host.
                let again = translated_dst(&plan, SocketAddr::new(seen, 80), true);
                assert_eq!(again, translated_dst(&plan, original, true), "{ours}");
            }
        }
    }
}

#[test]
fn back_and_there_is_the_identity_for_remotes_without_a_stand_in() {
    let mut reversible = 0;
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        for plan in plans() {
            let remote = any_address(&mut rng);
            let guest = any_address(&mut rng);
            // Nothing comes from a broadcast address.
            if !plan.is_guest_address(guest) || remote == IpAddr::V4(Ipv4Addr::BROADCAST) {
                continue;
            }
            let Some(seen) = as_seen_by_guest(&plan, Opener::Remote, guest, remote) else {
                assert_eq!(plan.stand_in(guest), None, "seed {seed}");
                continue;
            };
            assert_eq!(seen.is_ipv4(), guest.is_ipv4(), "seed {seed}");
            assert_ne!(seen, guest, "seed {seed}: the guest would take it for itself");
            let is_localhost = remote == IpAddr::V4(Ipv4Addr::LOCALHOST)
                || remote == IpAddr::V6(Ipv6Addr::LOCALHOST);
            let back = translated_dst(&plan, SocketAddr::new(seen, 80), true);
            let is_listed = is_localhost && matches!(back, Translation::HostLoopback(_));
            if Some(seen) == plan.stand_in(guest) && !is_listed {
                continue;
            }
            if let Some(there) = to_host(&plan, SocketAddr::new(seen, 80))
                && remote.is_ipv4() == guest.is_ipv4()
            {
                assert_eq!(there.ip(), remote, "seed {seed}: seen as {seen}");
                reversible += 1;
            }
        }
    }
    assert!(reversible > 1_000, "{reversible} were looked at");
}

#[test]
fn resolver_takes_its_own_port_and_leaves_the_others_to_the_second_meaning() {
    let plan = mirrored(true);
    let to = |text: &str, has_resolver| translated_dst(&plan, address(text), has_resolver);
    assert_eq!(to("192.0.2.1:53", true), Translation::Resolver);
    assert_eq!(to("192.0.2.1:80", true), Translation::HostLoopback(address("127.0.0.1:80")));
    assert_eq!(to("192.0.2.1:53", false), Translation::HostLoopback(address("127.0.0.1:53")));
    assert_eq!(to("[2001:db8::53]:80", true), Translation::NoService);
    assert_eq!(to("[2001:db8::53]:53", false), Translation::None);
    assert_eq!(to("198.51.100.9:22", true), Translation::HostItself(address("192.0.2.77:22")));
    assert_eq!(to("192.0.2.5:80", true), Translation::None);
    let unmapped = mirrored(false);
    assert_eq!(translated_dst(&unmapped, address("192.0.2.1:80"), true), Translation::None);
}

#[test]
fn remote_is_shown_as_itself_unless_the_guest_could_not_answer() {
    let slirp = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let mirrored = mirrored(true);
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (plan, guest, remote, expected) in [
        (&slirp, "10.0.2.100", "198.51.100.1", "198.51.100.1"),
        (&slirp, "10.0.2.100", "127.0.0.1", "10.0.2.2"),
        (&slirp, "10.0.2.100", "127.0.0.9", "10.0.2.2"),
        (&slirp, "10.0.2.100", "169.254.1.1", "10.0.2.2"),
        (&slirp, "10.0.2.100", "10.0.2.55", "10.0.2.2"),
        (&slirp, "10.0.2.100", "10.0.2.100", "10.0.2.2"),
        (&slirp, "10.0.2.100", "2001:db8::1", "10.0.2.2"),
        (&slirp, "fd00::100", "198.51.100.1", "fd00::2"),
        (&slirp, "fd00::100", "::1", "fd00::2"),
        (&slirp, "fd00::100", "fe80::5", "fd00::2"),
        // A neighbour of the host stays itself where we answer for everyone.
        (&mirrored, "192.0.2.77", "192.0.2.5", "192.0.2.5"),
        (&mirrored, "192.0.2.77", "127.0.0.1", "192.0.2.1"),
        (&mirrored, "192.0.2.77", "192.0.2.77", "198.51.100.9"),
        (&mirrored, "2001:db8::77", "2001:db8::77", "2001:db8::99"),
        // A remote that has an address of ours, which the guest would take for the host.
        (&mirrored, "192.0.2.77", "198.51.100.9", "192.0.2.1"),
    ] {
        let seen = as_seen_by_guest(plan, Opener::Remote, ip(guest), ip(remote));
        assert_eq!(seen, Some(ip(expected)), "{remote} for {guest}");
    }
}

#[test]
fn host_is_shown_by_our_link_local_address_to_whom_can_answer_that() {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let gateway = Some("2001:db8::1".parse().unwrap());
    let v6 = MirroredFamily { gateway, is_gateway_host: true, ..MirroredFamily::new(HOST6, 64) };
    let mirrored = Mirrored { ipv6: Some(v6), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let (guest, ours) = (HOST6.to_string(), "fe80::9855:9aff:fe55:9a55");
    for (guest, remote, expected) in [
        (&*guest, &*guest, ours),
        (&guest, "::", ours),
        (&guest, "::1", "2001:db8::1"),
        // The gateway itself has come, and a neighbour.
        (&guest, "2001:db8::1", "2001:db8::1"),
        (&guest, "fe80::5", "fe80::5"),
        // Behind the guest nothing is sent to another link's addresses.
        ("fd00::2", &guest, "2001:db8::1"),
    ] {
        let seen = as_seen_by_guest(&plan, Opener::Remote, ip(guest), ip(remote));
        assert_eq!(seen, Some(ip(expected)), "{remote} for {guest}");
    }
}

#[test]
fn error_comes_from_the_router_that_complained_unless_that_is_a_martian() {
    let plan = AddressPlan::default();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let (guest, translated, original) = (ip("10.0.2.100"), ip("127.0.0.1"), ip("10.0.2.2"));
    for (offender, expected) in [
        (Some("127.0.0.1"), "10.0.2.2"),
        (Some("127.0.0.9"), "10.0.2.2"),
        (Some("192.0.2.254"), "192.0.2.254"),
        (Some("2001:db8::1"), "10.0.2.2"),
        (None, "10.0.2.2"),
    ] {
        let from = offender_as_seen_by_guest(&plan, guest, offender.map(ip), translated, original);
        assert_eq!(from, Some(ip(expected)), "{offender:?}");
    }
}

#[test]
fn guest_reaches_what_pasta_maps_and_the_rest_as_written() {
    let (named, plain) = (pasta(false), pasta(true));
    let loopback = |text: &str| Translation::HostLoopback(address(text));
    let itself = |text: &str| Translation::HostItself(address(text));
    for (plan, to, expected) in [
        (&plain, "192.0.2.1:80", loopback("127.0.0.1:80")),
        (&plain, "[fe80::1]:80", loopback("[::1]:80")),
        (&named, "192.0.2.1:80", Translation::None),
        (&named, "198.51.100.3:80", loopback("127.0.0.1:80")),
        (&named, "198.51.100.9:80", itself("192.0.2.77:80")),
        (&named, "198.51.100.53:53", Translation::Resolver),
        (&named, "198.51.100.53:853", itself("8.8.8.8:853")),
        (&named, "198.51.100.53:80", Translation::None),
        (&named, "[fd00::3]:80", loopback("[::1]:80")),
        (&named, "[fd00::9]:80", itself("[2001:db8::77]:80")),
        (&named, "[fd00::53]:53", Translation::Resolver),
        (&named, "[fd00::53]:853", Translation::None),
        (&named, "192.0.2.5:80", Translation::None),
    ] {
        assert_eq!(translated_dst(plan, address(to), true), expected, "{to}");
    }
    let off = translated_dst(&named, address("198.51.100.53:53"), false);
    assert_eq!(off, Translation::None);
}

#[test]
fn host_is_shown_under_the_names_that_pasta_gives_it() {
    let (named, plain) = (pasta(false), pasta(true));
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (plan, guest, remote, expected) in [
        (&plain, "192.0.2.77", "127.0.0.1", "192.0.2.1"),
        (&plain, "192.0.2.77", "127.0.0.9", "192.0.2.1"),
        (&plain, "192.0.2.77", "0.0.0.0", "192.0.2.1"),
        (&plain, "192.0.2.77", "192.0.2.77", "192.0.2.1"),
        (&plain, "2001:db8::77", "::1", "fe80::1"),
        (&plain, "2001:db8::77", "2001:db8::77", "fe80::1"),
        (&plain, "2001:db8::77", "fe80::5", "fe80::5"),
        (&plain, "192.0.2.77", "169.254.7.7", "169.254.7.7"),
        (&named, "192.0.2.77", "127.0.0.1", "198.51.100.3"),
        (&named, "192.0.2.77", "127.0.0.9", "192.0.2.1"),
        (&named, "192.0.2.77", "192.0.2.77", "198.51.100.9"),
        // Another address that the guest shares with the host, or has given up.
        (&named, "192.0.2.77", "192.0.2.132", "198.51.100.9"),
        (&named, "192.0.2.99", "192.0.2.77", "198.51.100.9"),
        (&named, "192.0.2.99", "192.0.2.99", "192.0.2.1"),
        (&named, "2001:db8::77", "2001:db8::77", "fd00::9"),
        (&named, "192.0.2.77", "192.0.2.5", "192.0.2.5"),
        (&named, "192.0.2.77", "203.0.113.5", "203.0.113.5"),
        (&named, "192.0.2.77", "198.51.100.53", "198.51.100.53"),
    ] {
        let seen = as_seen_by_guest(plan, Opener::Remote, ip(guest), ip(remote));
        assert_eq!(seen, Some(ip(expected)), "{remote} for {guest}");
    }
}

#[test]
fn without_a_gateway_the_host_has_no_name() {
    let v4 = MirroredFamily::new(HOST, 24);
    let mirrored = Mirrored { ipv4: Some(v4), ..Mirrored::default() };
    let plan = AddressPlan::mirrored(&mirrored).unwrap();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    for (remote, expected) in
        [("127.0.0.1", None), ("192.0.2.77", None), ("192.0.2.5", Some(ip("192.0.2.5")))]
    {
        let seen = as_seen_by_guest(&plan, Opener::Remote, HOST.into(), ip(remote));
        assert_eq!(seen, expected, "{remote}");
    }
}
