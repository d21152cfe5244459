//! `--outbound-addr` and `--outbound-addr6`: the host's address that remotes see.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use slirp_tests::*;

/// A second address on the link to the remote, and one on an interface of its own.
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
const APART: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
const SECOND_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 9));
const APART_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

/// Gives the host the addresses above.
fn add_addresses(world: &World) {
    world.host.script(
        "ip addr add 198.51.100.9/24 dev h0
        ip addr add 2001:db8:1::9/64 dev h0 nodad preferred_lft 0
        ip link add out0 type veth peer name out1
        ip link set out0 up
        ip link set out1 up
        ip addr add 192.0.2.9/32 dev out0
        ip addr add 192.0.2.10/32 dev out0
        ip addr add 2001:db8:9::9/128 dev out0 nodad",
    );
    world.remote.script(
        "ip route add 192.0.2.0/24 via 198.51.100.1
        ip route add 2001:db8:9::/48 via 2001:db8:1::1",
    );
}

/// A server that tells each client its source address.
struct Mirror {
    tcp: TcpServer,
    udp: UdpServer,
}

impl Mirror {
    fn start(namespace: &Namespace, at: IpAddr) -> Self {
        let tcp = TcpServer::start(namespace, (at, 0).into(), |mut stream| {
            let peer = stream.peer_addr().expect("it is connected").ip();
            // A client that left hears nothing.
            let _ = stream.write_all(peer.to_string().as_bytes());
        });
        let udp = UdpServer::start(namespace, (at, 0).into(), |socket, _, from| {
            let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
        });
        Self { tcp, udp }
    }

    /// The source addresses that it sees when the guest asks it under `address`, by TCP and by UDP.
    fn sees(&self, world: &World, address: IpAddr) -> [IpAddr; 2] {
        let mut stream = connect(&world.guest, (address, self.tcp.address().port()).into())
            .unwrap_or_else(|failure| panic!("{address}: {failure:?}"));
        let mut over_tcp = String::new();
        stream.read_to_string(&mut over_tcp).unwrap();
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = world.guest.enter(|| UdpSocket::bind((any, 0))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"who am I?", (address, self.udp.address().port())).unwrap();
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{address}: {error}"));
        let over_udp = std::str::from_utf8(&buffer[..len]).unwrap();
        [over_tcp.parse().unwrap(), over_udp.parse().unwrap()]
    }
}

/// A nameserver that answers with nothing and notes the source of each query.
struct Nameserver {
    askers: Arc<Mutex<Vec<IpAddr>>>,
    _servers: (TcpServer, UdpServer),
}

impl Nameserver {
    fn start(namespace: &Namespace, at: IpAddr) -> Self {
        let askers = Arc::new(Mutex::new(Vec::new()));
        let (of_tcp, of_udp) = (Arc::clone(&askers), Arc::clone(&askers));
        let tcp = TcpServer::start(namespace, (at, 53).into(), move |mut stream| {
            let peer = stream.peer_addr().expect("it is connected").ip();
            let mut len = [0; 2];
            if stream.read_exact(&mut len).is_err() {
                return;
            }
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            if stream.read_exact(&mut query).is_ok() {
                of_tcp.lock().expect("no holder panics").push(peer);
                query[2] |= 0x80;
                let _ = stream.write_all(&[&len[..], &query].concat());
            }
        });
        let udp = UdpServer::start(namespace, (at, 53).into(), move |socket, query, from| {
            of_udp.lock().expect("no holder panics").push(from.ip());
            let mut answer = query.to_vec();
            answer[2] |= 0x80;
            let _ = socket.send_to(&answer, from);
        });
        Self { askers, _servers: (tcp, udp) }
    }

    /// The sources that it sees when the guest asks its own nameserver, by UDP and by TCP.
    fn sees(&self, world: &World) -> Vec<IpAddr> {
        for transport in ["+notcp", "+tcp"] {
            let output = world.guest.exec(&[
                "dig",
                "@10.0.2.3",
                "+tries=1",
                "+time=50",
                "+noedns",
                transport,
                "a.example.test",
            ]);
            let text = output.stdout;
            assert!(text.contains("status: NOERROR"), "{transport}: {text}{}", output.stderr);
        }
        std::mem::take(&mut self.askers.lock().expect("no holder panics"))
    }
}

/// Has the remote answer echo requests only when they come from `source`.
fn answer_pings_only_of(world: &World, source: IpAddr) {
    let (family, icmp) = if source.is_ipv4() { ("ip", "icmp") } else { ("ip6", "icmpv6") };
    world.remote.script(&format!(
        "nft add table {family} pings
        nft add chain {family} pings in '{{ type filter hook input priority 0; }}'
        nft add rule {family} pings in {icmp} type echo-request {family} saddr != {source} drop"
    ));
}

fn is_answered(world: &World, address: IpAddr) -> bool {
    let address = address.to_string();
    world.guest.exec(&["ping", "-n", "-c", "1", "-W", "2", &address]).status.success()
}

#[test]
fn without_the_options_routes_choose_the_source() {
    let world = needs!(World::root());
    add_addresses(&world);
    let (four, six) = (Mirror::start(&world.remote, FAR), Mirror::start(&world.remote, FAR_V6));
    let world = world.online_with_ipv6(&[]);
    assert_eq!(four.sees(&world, FAR), [HOST; 2]);
    assert_eq!(six.sees(&world, FAR_V6), [HOST_V6; 2]);
    assert!(!world.slirp.stdout().contains("Outbound"), "{}", world.slirp.stdout());
}

#[test]
fn connections_datagrams_pings_and_queries_leave_from_the_ipv4_address() {
    let world = needs!(World::root());
    world.let_root_ping();
    add_addresses(&world);
    answer_pings_only_of(&world, SECOND);
    world.write_resolv_conf("nameserver 203.0.113.10\n");
    let nameserver = Nameserver::start(&world.remote, FAR);
    let (four, six) = (Mirror::start(&world.remote, FAR), Mirror::start(&world.remote, FAR_V6));
    let world = world.online_with_ipv6(&["--outbound-addr=198.51.100.9"]);
    let stdout = world.slirp.stdout();
    assert!(stdout.contains("WARNING: Support for --outbound-addr is experimental\n"), "{stdout}");
    assert!(stdout.contains("\n* Outbound IPv4:    198.51.100.9\n"), "{stdout}");
    assert_eq!(four.sees(&world, FAR), [SECOND; 2]);
    assert_eq!(six.sees(&world, FAR_V6), [HOST_V6; 2], "the other version is left alone");
    assert!(is_answered(&world, FAR));
    assert_eq!(nameserver.sees(&world), [SECOND; 2]);
}

#[test]
fn connections_datagrams_pings_and_queries_leave_from_the_ipv6_address() {
    let world = needs!(World::root());
    world.let_root_ping();
    add_addresses(&world);
    answer_pings_only_of(&world, SECOND_V6);
    world.write_resolv_conf("nameserver 2001:db8:2::10\n");
    let nameserver = Nameserver::start(&world.remote, FAR_V6);
    let (four, six) = (Mirror::start(&world.remote, FAR), Mirror::start(&world.remote, FAR_V6));
    let world = world.online_with_ipv6(&["--outbound-addr6=2001:db8:1::9"]);
    let stdout = world.slirp.stdout();
    assert!(stdout.contains("WARNING: Support for --outbound-addr6 is experimental\n"), "{stdout}");
    assert!(stdout.contains("\n* Outbound IPv6:    2001:db8:1::9\n"), "{stdout}");
    assert_eq!(six.sees(&world, FAR_V6), [SECOND_V6; 2]);
    assert_eq!(four.sees(&world, FAR), [HOST; 2], "the other version is left alone");
    assert!(is_answered(&world, FAR_V6));
    assert_eq!(nameserver.sees(&world), [SECOND_V6; 2]);
}

#[test]
fn ping_sockets_of_an_ordinary_user_are_bound_too() {
    let world = needs!(World::ordinary());
    world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
    add_addresses(&world);
    answer_pings_only_of(&world, SECOND);
    answer_pings_only_of(&world, SECOND_V6);
    let options = ["--outbound-addr=198.51.100.9", "--outbound-addr6=2001:db8:1::9"];
    let world = world.online_with_ipv6(&options);
    assert!(is_answered(&world, FAR));
    assert!(is_answered(&world, FAR_V6));
}

#[test]
fn an_interface_stands_for_its_first_address_of_the_version() {
    for (options, expected, expected_v6) in [
        (&["--outbound-addr=out0", "--outbound-addr6=out0"][..], APART, APART_V6),
        (&["--outbound-addr=out0"], APART, HOST_V6),
        (&["--outbound-addr6=out0"], HOST, APART_V6),
        (&["--outbound-addr=198.51.100.9", "--outbound-addr6=out0"], SECOND, APART_V6),
    ] {
        let world = needs!(World::root());
        add_addresses(&world);
        let (four, six) = (Mirror::start(&world.remote, FAR), Mirror::start(&world.remote, FAR_V6));
        let world = world.online_with_ipv6(options);
        assert_eq!(four.sees(&world, FAR), [expected; 2], "{options:?}");
        assert_eq!(six.sees(&world, FAR_V6), [expected_v6; 2], "{options:?}");
    }
}

#[test]
fn host_loopback_sees_the_address_and_a_resolver_there_does_not() {
    let world = needs!(World::root());
    add_addresses(&world);
    let nameserver = Nameserver::start(&world.host, "127.0.0.53".parse().unwrap());
    let four = Mirror::start(&world.host, Ipv4Addr::LOCALHOST.into());
    let six = Mirror::start(&world.host, Ipv6Addr::LOCALHOST.into());
    let options = ["--outbound-addr=198.51.100.9", "--outbound-addr6=2001:db8:1::9"];
    let world = world.online_with_ipv6(&options);
    assert_eq!(four.sees(&world, GATEWAY), [SECOND; 2]);
    assert_eq!(six.sees(&world, GATEWAY_V6), [SECOND_V6; 2]);
    assert_eq!(nameserver.sees(&world), [IpAddr::V4(Ipv4Addr::LOCALHOST); 2]);
}

#[test]
fn an_address_that_goes_away_is_missed_until_it_is_back() {
    let world = needs!(World::root());
    add_addresses(&world);
    let far = Mirror::start(&world.remote, FAR);
    let world = world.online(&["--outbound-addr=out0"]);
    assert_eq!(far.sees(&world, FAR), [APART; 2]);
    world.host.script("ip addr del 192.0.2.9/32 dev out0");
    let failure = connect(&world.guest, far.tcp.address()).expect_err("there is no source");
    assert_eq!(failure.errno, Errno::ENETUNREACH);
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Without it Linux reports only final refusals (udp(7)).
    setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
    socket.connect(far.udp.address()).unwrap();
    socket.send(b"who am I?").unwrap();
    let error = socket.recv(&mut [0; 64]).expect_err("there is no source");
    assert_eq!(error.raw_os_error(), Some(Errno::ENETUNREACH as i32), "{error}");
    world.host.script("ip addr add 192.0.2.9/32 dev out0");
    assert_eq!(far.sees(&world, FAR), [APART; 2]);
}

#[test]
fn an_address_of_the_loopback_interface_leads_nowhere_else() {
    let world = needs!(World::root());
    let loopback = Mirror::start(&world.host, Ipv4Addr::LOCALHOST.into());
    let far = Mirror::start(&world.remote, FAR);
    let world = world.online(&["--outbound-addr=lo"]);
    assert_eq!(loopback.sees(&world, GATEWAY), [IpAddr::V4(Ipv4Addr::LOCALHOST); 2]);
    let failure = connect(&world.guest, far.tcp.address()).expect_err("no way out");
    assert_eq!(failure.errno, Errno::ENETUNREACH);
}

#[test]
fn forwarded_ports_keep_the_address_that_the_client_used() {
    let world = needs!(World::root());
    add_addresses(&world);
    let guest = UdpServer::echo(&world.guest, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7000)));
    let options = ["--outbound-addr=198.51.100.9", "--publish=udp:7000:7000"];
    let world = world.online(&options);
    let client = world.remote.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"hello", (HOST, guest.address().port())).unwrap();
    let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, SocketAddr::new(HOST, 7000));
}

#[test]
fn an_address_that_the_host_does_not_have_ends_the_start() {
    let world = needs!(World::root());
    for (option, reason) in [
        ("--outbound-addr=192.0.2.77", "no interface of the host has the outbound address"),
        ("--outbound-addr6=2001:db8:7::7", "no interface of the host has the outbound address"),
        ("--outbound-addr=224.0.0.1", "is not that of a single host"),
        ("--outbound-addr6=fe80::1", "give the name of its interface instead"),
    ] {
        let mut slirp = world.slirp().options(&[option, "--ready-fd=3"]).spawn();
        assert_eq!(slirp.read_ready_fd(), b"", "{option}");
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(1), "{option}: {}", exit.stderr);
        assert!(exit.stderr.contains(reason), "{option}: {}", exit.stderr);
    }
}

#[test]
fn an_interface_without_an_address_of_the_version_is_refused() {
    let world = needs!(World::root());
    world.host.script(
        "ip link add bare0 type veth peer name bare1
        echo 1 > /proc/sys/net/ipv6/conf/bare0/disable_ipv6",
    );
    for (option, reason) in [
        ("--outbound-addr=bare0", "outbound-addr has to be valid ipv4 address or interface name."),
        (
            "--outbound-addr6=bare0",
            "outbound-addr6 has to be valid ipv6 address or interface name.",
        ),
    ] {
        let exit = world.slirp().options(&[option]).run();
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(1), reason));
    }
}
