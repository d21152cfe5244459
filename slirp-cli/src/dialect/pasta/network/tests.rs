//! Orders of command lines, for a host without a network.

use std::ffi::OsString;

use nix::unistd::{getegid, geteuid};

use super::super::args::{self, Command};
use super::super::options::Mode;
use super::super::ports::rules::EPHEMERAL;
use super::super::progress::interfaces;
use super::*;

/// The orders on a host without a network.
fn of(line: &str) -> Result<(Target, Options), NetworkFailure> {
    let words = line.split_whitespace().map(OsString::from);
    match args::parse(Mode::Pasta, words, &EPHEMERAL).command {
        Ok(Command::Run(options)) => orders(&options, &Host::default()),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn namespaces_are_those_of_a_process_or_of_paths() {
    let path = |netns: &str, userns: Option<&str>| Target::Path {
        netns: netns.into(),
        userns: userns.map(Into::into),
        tap: "tap0".to_owned(),
    };
    for (line, expected) in [
        ("42", Target::Pid { pid: 42, userns: None, tap: "tap0".to_owned() }),
        ("--netns-only 42", path("/proc/42/ns/net", None)),
        (
            "--userns /u 42",
            Target::Pid { pid: 42, userns: Some("/u".into()), tap: "tap0".to_owned() },
        ),
        ("--netns /n", path("/n", None)),
        ("--netns /n --userns /u", path("/n", Some("/u"))),
    ] {
        assert_eq!(of(line).unwrap().0, expected, "{line}");
    }
    assert!(matches!(of("ls"), Err(NetworkFailure::Command)));
}

#[test]
fn options_that_cannot_be_carried_out_are_refused_by_name() {
    let refusal = |line: &str| of(line).unwrap_err().to_string();
    for (line, text) in [
        (
            "--runas -no-such-user 42",
            "Invalid --runas option: -no-such-user (there is no such user or group)",
        ),
        ("-i h0 42", "External interface not usable: h0 has no IPv4 or IPv6 address"),
        ("-6 -i h0 42", "External interface not usable: h0 has no IPv6 address"),
        ("-6 -i lo -a 192.0.2.1 42", "External interface not usable: lo has no IPv6 address"),
        ("--outbound-if4 h0 42", "External interface not usable: h0 has no IPv4 address"),
        ("--outbound-if6 h0 42", "External interface not usable: h0 has no IPv6 address"),
        (
            "-6 -t 127.0.0.1/18096 42",
            "Cannot forward TCP [127.0.0.1]:18096  =>  18096: the guest has no IPv4",
        ),
        (
            "-4 -u ::1/18081:2001:db8::1 42",
            "Cannot forward UDP [::1]:18081  =>  [2001:db8::1]:18081: the guest has no IPv6",
        ),
    ] {
        assert_eq!(refusal(line), text, "{line}");
    }
    let own = format!("--runas {}:{} 42", geteuid(), getegid());
    assert_eq!(of(&own).unwrap().1.identity, None);
    assert!(of("-6 --outbound-if4 h0 42").is_ok());
}

#[test]
fn host_without_a_network_is_no_obstacle() {
    let orders = of("--config-net 42").unwrap().1;
    let own = orders.own_plan.as_ref().unwrap();
    let ipv4 = own.plan.ipv4().unwrap();
    assert_eq!((ipv4.guest, ipv4.prefix_len), (Ipv4Addr::new(169, 254, 2, 1), 16));
    assert_eq!(ipv4.gateway, Some(Ipv4Addr::new(169, 254, 2, 2)));
    assert!(own.plan.ipv6().unwrap().guest.is_unicast_link_local());
    assert!(orders.mac.is_some_and(|mac| mac.is_valid_source()));
    assert!(own.silence.router_advertisements && !own.silence.dhcp);
    assert!(!orders.policy.dns_service, "nothing was asked for, and no resolver is known");
    assert!(of("--dns-forward 169.254.1.1 42").unwrap().1.policy.dns_service);
}

#[test]
fn loopbacks_are_joined_where_a_rule_needs_that() {
    let splicing = |line: &str| of(line).unwrap().1.own_plan.unwrap().splicing;
    assert_eq!(splicing("-t none -u none -T none -U none 42"), None);
    assert_eq!(splicing("--no-splice -t 80 -u none -T none -U none 42"), None);
    for (line, ports) in [("-t auto -T none", (1, 0)), ("-t 80 -T 5201", (0, 1))] {
        let found = splicing(&format!("-4 --no-splice -u none -U none {line} 42")).unwrap();
        assert_eq!((found.scanned.len(), found.to_host.len()), ports, "{line}");
        assert!(!found.joins_clients);
    }
    let line = "-4 -t 80 -u auto -T 5201-5202:5301-5302 -U none --host-lo-to-ns-lo 42";
    let found = splicing(line).unwrap();
    assert!(found.to_guest_loopback);
    assert!(found.scanned.iter().all(|rule| rule.protocol == ForwardProtocol::Udp));
    let protocol = ForwardProtocol::Tcp;
    let (guest, host, ports) = (5201, 5301, 2);
    let expected = HostPorts { protocol, guest, host, ports, is_weak: false, is_scanned: false };
    assert_eq!(found.to_host, [expected]);
}

#[test]
fn protocol_that_is_off_has_no_ports() {
    let rules = "-4 -t 80 -t 90,auto -u 53 -u 54,auto -T 80 -U 53";
    for (off, left) in [("--no-tcp", ForwardProtocol::Udp), ("--no-udp", ForwardProtocol::Tcp)] {
        let orders = of(&format!("{rules} {off} 42")).unwrap().1;
        let splicing = orders.own_plan.unwrap().splicing.unwrap();
        for published in [&orders.publish, &splicing.scanned] {
            assert!(!published.is_empty() && published.iter().all(|it| it.protocol == left));
        }
        assert_eq!(splicing.to_host.iter().map(|it| it.protocol).collect::<Vec<_>>(), [left]);
    }
    let orders = of(&format!("{rules} --no-tcp --no-udp 42")).unwrap().1;
    assert_eq!(orders.own_plan.unwrap().splicing, None);
}

#[test]
fn chosen_addresses_replace_those_of_the_host() {
    let line = "--config-net -4 -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 \
                --no-map-gw --map-guest-addr 169.254.1.2 -m 1500 42";
    let orders = of(line).unwrap().1;
    let plan = orders.address_plan();
    let ipv4 = plan.ipv4().unwrap();
    assert_eq!((ipv4.guest, ipv4.prefix_len), (Ipv4Addr::new(10, 0, 2, 0), 24));
    assert_eq!((ipv4.gateway, orders.mtu), (Some(Ipv4Addr::new(10, 0, 2, 2)), 1500));
    assert!(plan.ipv6().is_none());
    let stands = |address: [u8; 4]| plan.stands_for_another(IpAddr::from(address));
    assert!(stands([169, 254, 1, 2]) && !stands([10, 0, 2, 2]));
}

#[test]
fn interface_without_addresses_will_do_where_the_address_is_chosen() {
    for line in ["-i lo -a 192.0.2.2 -n 24 -g 192.0.2.1 42", "--outbound-if4 h0 -a 192.0.2.2 42"] {
        let (target, orders) = of(line).unwrap();
        let plan = orders.address_plan();
        assert_eq!(plan.ipv4().unwrap().guest, Ipv4Addr::new(192, 0, 2, 2));
        assert!(plan.ipv6().unwrap().guest.is_unicast_link_local(), "as without an interface");
        assert_eq!(target, Target::Pid { pid: 42, userns: None, tap: "tap0".to_owned() });
    }
    assert!(of("-6 -i lo -a 2001:db8::2 42").is_ok());
}

#[test]
fn ports_are_opened_in_the_families_of_the_guest() {
    let hosts = |line: &str| -> Vec<_> {
        let publish = of(line).unwrap().1.publish;
        let host = |it: &Publish| it.host.map_or("both".to_owned(), |host| host.to_string());
        publish.iter().map(host).collect()
    };
    assert_eq!(hosts("-4 -t 80 -u none 42"), ["0.0.0.0"]);
    assert_eq!(hosts("-6 -t 80 -u none 42"), ["::"]);
    assert_eq!(hosts("-t 80 -u none -a 2001:db8::2 42"), ["both"]);
    assert_eq!(hosts("-t ::1/80 -u none -a 2001:db8::2 42"), ["::1"]);
    assert_eq!(hosts("42"), [""; 0], "scanned ports are no rules");
    let publish = of("-t 127.0.0.1%lo/5000-5009:80-89 --freebind -u none 42").unwrap().1.publish;
    let opening =
        Opening { interface: Some("lo".to_owned()), freebind: true, ..Opening::default() };
    assert_eq!(publish[0].host_ports, 5000..=5009);
    assert_eq!((publish[0].guest_port, &publish[0].opening), (80, &opening));
    assert!(of("-t all -u none 42").unwrap().1.publish.iter().all(|it| it.opening.is_weak));
}

#[test]
fn family_that_is_switched_off_is_not_said_to_be_missing() {
    let missing = |line: &str| {
        let parsed = args::parse(Mode::Pasta, [line, "42"].map(OsString::from), &EPHEMERAL);
        let Ok(Command::Run(options)) = parsed.command else { panic!("{line}") };
        interfaces(&options, &Host::default())
    };
    let line =
        |family: &str| format!("{family}: no external interface as template, use local mode");
    assert_eq!(missing("-q"), [line("IPv4"), line("IPv6")]);
    assert_eq!(missing("-4"), [line("IPv4")]);
    assert_eq!(missing("-6"), [line("IPv6")]);
}
