//! IPv6 with `-6`: router advertisement, virtual addresses, remotes, names.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use slirp_tests::*;

const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

fn echo_tcp(world: &World, to: SocketAddr) {
    let mut stream = connect(&world.guest, to).unwrap_or_else(|f| panic!("{to}: {f:?}"));
    stream.write_all(b"six").unwrap();
    let mut back = [0; 3];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"six");
}

#[test]
fn guest_configures_itself_from_the_router_advertisement() {
    let world = needs!(World::root()).online_with_ipv6(&[]);
    let routes = world.guest.script("ip -6 route show default");
    assert!(routes.contains("via fe80::2 dev tap0 proto ra"), "{routes}");
}

#[test]
fn rdisc6_is_told_the_prefix_the_nameserver_and_the_search_domains() {
    needs!(is_installed("rdisc6"));
    let world = needs!(World::ordinary());
    let options =
        ["--enable-ipv6", "--mtu=9000", "--cidr6=fd77::/64", "--search-domain=example.org"];
    let world = world.online(&options);
    world.wait_for_ipv6("fd77:");
    let output = world.guest.exec(&["rdisc6", "-1", "tap0"]);
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
    // "Name  :  value (in hexadecimal) unit"
    let told: Vec<(&str, &str)> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.split(" (").next().unwrap_or(value).trim()))
        .collect();
    for fact in [
        ("Hop limit", "64"),
        ("Stateful address conf.", "No"),
        ("Stateful other conf.", "No"),
        ("Router lifetime", "1800"),
        ("MTU", "9000 bytes"),
        ("Prefix", "fd77::/64"),
        ("Autonomous address conf.", "Yes"),
        ("Valid time", "86400"),
        ("Pref. time", "14400"),
        ("Recursive DNS server", "fd77::3"),
        ("DNS server lifetime", "1800"),
        ("DNS search list", "example.org"),
        ("Source link-layer address", "52:56:00:00:00:02"),
    ] {
        assert!(told.contains(&fact), "{fact:?} in {}", output.stdout);
    }
    assert!(output.stdout.ends_with(" from fe80::2\n"), "{}", output.stdout);
}

#[test]
fn tcp_reaches_host_loopback_and_a_remote() {
    let world = needs!(World::ordinary());
    let loopback = TcpServer::echo(&world.host, (Ipv6Addr::LOCALHOST, 0).into());
    let far = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
    let world = world.online_with_ipv6(&[]);
    echo_tcp(&world, (GATEWAY_V6, loopback.address().port()).into());
    echo_tcp(&world, far.address());
    let refused = connect(&world.guest, (FAR_V6, 9).into()).expect_err("nobody listens");
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
}

#[test]
fn large_transfer_is_byte_exact() {
    let world = needs!(World::root()).online_with_ipv6(&[]);
    let server = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
    let stream = connect(&world.guest, server.address()).unwrap();
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&stream, 6, 16 << 20));
        receive_exact(&stream, 6, 16 << 20).unwrap();
        sent.join().unwrap().unwrap();
    });
}

#[test]
fn unreachable_destination_is_told() {
    let world = needs!(World::root());
    world.host.script("ip route add unreachable 2001:db8:9::/48");
    world.remote.script("ip route add unreachable 2001:db8:a::/48");
    let world = world.online_with_ipv6(&[]);
    for to in ["2001:db8:9::1", "2001:db8:a::1"] {
        let to = SocketAddr::new(to.parse().unwrap(), 80);
        let failure = connect(&world.guest, to).expect_err("no way there");
        let told = [Errno::EHOSTUNREACH, Errno::ENETUNREACH].contains(&failure.errno);
        assert!(told && failure.after < Duration::from_secs(5), "{to}: {failure:?}");
    }
}

#[test]
fn udp_reaches_host_loopback_and_a_remote_at_every_size() {
    let world = needs!(World::root());
    let loopback = UdpServer::echo(&world.host, (Ipv6Addr::LOCALHOST, 0).into());
    let far = UdpServer::echo(&world.remote, (FAR_V6, 0).into());
    let world = world.online_with_ipv6(&[]);
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let gateway = SocketAddr::new(GATEWAY_V6, loopback.address().port());
    for len in [1_usize, 1000, 1452, 8000, 60000] {
        for to in [gateway, far.address()] {
            let mut text = vec![0; len];
            send_exact(&mut text[..], 2, len).unwrap();
            socket.send_to(&text, to).unwrap();
            let mut buffer = vec![0; 65536];
            let (got, from) =
                socket.recv_from(&mut buffer).unwrap_or_else(|e| panic!("{len} to {to}: {e}"));
            assert_eq!((got, from), (len, to));
            verify_exact(&buffer[..got], 2).unwrap();
        }
    }
}

#[test]
fn udp_to_a_closed_port_is_refused() {
    let world = needs!(World::root()).online_with_ipv6(&[]);
    for to in [GATEWAY_V6, FAR_V6] {
        let socket = world.guest.enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((to, 9)).unwrap();
        socket.send(b"anybody?").unwrap();
        let error = socket.recv(&mut [0; 16]).expect_err("nobody is there");
        assert_eq!(error.raw_os_error(), Some(Errno::ECONNREFUSED as i32), "{to}: {error}");
    }
}

#[test]
fn virtual_addresses_answer_ping() {
    let world = needs!(World::ordinary()).online_with_ipv6(&[]);
    for address in ["fd00::2", "fd00::3", "fe80::2%tap0", "fe80::3%tap0"] {
        let output = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "20", address]);
        assert!(output.status.success(), "{address}: {}{}", output.stdout, output.stderr);
    }
}

#[test]
fn remote_answers_ping() {
    let world = needs!(World::root());
    world.let_root_ping();
    let world = world.online_with_ipv6(&[]);
    let output = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "20", "2001:db8:2::10"]);
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
}

#[test]
fn names_resolve_over_ipv6() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, Ipv6Addr::LOCALHOST.into(), &[]);
    world.write_resolv_conf("nameserver ::1\n");
    let world = world.online_with_ipv6(&[]);
    for extra in ["+notcp", "+tcp"] {
        let argv = ["dig", "@fd00::3", "+tries=1", "+time=50", "+short", extra, "www.example.test"];
        let output = world.guest.exec(&argv);
        assert_eq!(output.stdout, "203.0.113.10\n", "{extra}: {}", output.stderr);
    }
}

#[test]
fn names_resolve_over_ipv6_where_the_host_has_an_ipv4_nameserver_only() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let world = world.online_with_ipv6(&[]);
    let argv = ["dig", "@fd00::3", "+tries=1", "+time=50", "+short", "www.example.test"];
    let output = world.guest.exec(&argv);
    assert_eq!(output.stdout, "203.0.113.10\n", "{}{}", output.stdout, output.stderr);
}

#[test]
fn chosen_network_replaces_the_usual_one() {
    let world = needs!(World::root());
    let loopback = TcpServer::echo(&world.host, (Ipv6Addr::LOCALHOST, 7777).into());
    let far = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
    let _dns = Dnsmasq::start(&world.host, Ipv4Addr::new(127, 0, 0, 53).into(), &[]);
    let world = world.online(&["--enable-ipv6", "--cidr6=fd12:3456:789a:1::/64"]);
    world.wait_for_ipv6("fd12:3456:789a:1:");
    let addresses = world.guest.script("ip -6 addr show dev tap0 scope global");
    assert!(!addresses.contains("fd00:"), "{addresses}");
    for last in ["2", "3"] {
        let address = format!("fd12:3456:789a:1::{last}");
        let output = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "20", &address]);
        assert!(output.status.success(), "{address}: {}{}", output.stdout, output.stderr);
    }
    let gateway: IpAddr = "fd12:3456:789a:1::2".parse().unwrap();
    echo_tcp(&world, (gateway, loopback.address().port()).into());
    echo_tcp(&world, far.address());
    for extra in ["+notcp", "+tcp"] {
        let at = "@fd12:3456:789a:1::3";
        let argv = ["dig", at, "+tries=1", "+time=50", "+short", extra, "www.example.test"];
        let output = world.guest.exec(&argv);
        assert_eq!(output.stdout, "203.0.113.10\n", "{extra}: {}", output.stderr);
    }
    // The usual gateway is an address like any other now, and no host has it.
    let failure = connect(&world.guest, (GATEWAY_V6, 7777).into()).expect_err("nobody is there");
    let told = [Errno::EHOSTUNREACH, Errno::ENETUNREACH].contains(&failure.errno);
    assert!(told, "{failure:?}");
}

#[test]
fn a_fixed_address_of_the_chosen_network_works() {
    let world = needs!(World::root());
    let far = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
    let options = [
        "--enable-ipv6",
        "--cidr6=2001:db8:77::/64",
        "--publish=[::1]:7000:[2001:db8:77::100]:7000",
    ];
    let guest = SocketAddr::new("2001:db8:77::100".parse().unwrap(), 7000);
    world.guest.script("echo 0 > /proc/sys/net/ipv6/conf/default/accept_ra");
    let _slirp = world.slirp().options(&options).start();
    world.guest.script(
        "ip addr add 2001:db8:77::100/64 dev tap0 nodad
        ip route add default via 2001:db8:77::2",
    );
    let _capture = world.capture();
    echo_tcp(&world, far.address());
    let _server = TcpServer::echo(&world.guest, guest);
    let mut stream = connect(&world.host, (Ipv6Addr::LOCALHOST, 7000).into()).unwrap();
    stream.write_all(b"in").unwrap();
    let mut back = [0; 2];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"in");
}

#[test]
fn default_route_stays_where_the_guest_forwards_packets() {
    let world = needs!(World::root()).online_with_ipv6(&[]);
    let route = || world.guest.script("ip -6 route show default");
    let before = route();
    assert!(before.contains("via fe80::2"), "{before}");
    world.guest.script("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    let after = route();
    assert!(after.contains("via fe80::2"), "{after}");
}

#[test]
fn advertisements_that_the_guest_does_not_listen_to_are_not_forced_on_it() {
    let world = needs!(World::root());
    world.guest.script("echo 0 > /proc/sys/net/ipv6/conf/default/accept_ra");
    let _slirp = world.slirp().options(&["--enable-ipv6"]).start();
    let setting = world.guest.script("cat /proc/sys/net/ipv6/conf/tap0/accept_ra");
    assert_eq!(setting.trim(), "0");
}

#[test]
fn host_loopback_is_unreachable_when_disabled() {
    let world = needs!(World::root());
    let _loopback = TcpServer::echo(&world.host, (Ipv6Addr::LOCALHOST, 7777).into());
    let world = world.online_with_ipv6(&["--disable-host-loopback"]);
    for address in ["fd00::2", "fd00::7"] {
        let to = SocketAddr::new(address.parse().unwrap(), 7777);
        let failure = connect(&world.guest, to).expect_err(address);
        let told = [Errno::EHOSTUNREACH, Errno::ENETUNREACH].contains(&failure.errno);
        assert!(told, "{address}: {failure:?}");
    }
}

#[test]
fn without_the_option_no_router_is_advertised() {
    let world = needs!(World::root()).online(&[]);
    let output = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "1", "fe80::2%tap0"]);
    assert!(!output.status.success(), "{}", output.stdout);
    assert!(world.capture.packets("ip6 and ether src 52:56:00:00:00:02").is_empty());
}
