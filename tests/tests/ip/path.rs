//! Messages of the routers between host and remote, as the guest receives them: hop limits and
//! MTUs.
//!
//! The world gets two more namespaces behind the remote, which becomes the first of two routers:
//!
//! ```text
//!  guest === slirp4netns (host) --- remote --- middle --- end
//!  10.0.2.2  198.51.100.1       .2  192.0.2.1  .2 .5      .6
//!  fd00::2   2001:db8:1::1     ::2  2001:db8:10::1  ::2   2001:db8:11::2
//! ```

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::errno::Errno;
use slirp_tests::*;

const END: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 6));
const END_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x11, 0, 0, 0, 0, 2));
/// The way there from the guest, hop by hop.
const HOPS: [&str; 4] = ["10.0.2.2", "198.51.100.2", "192.0.2.2", "192.0.2.6"];
const HOPS_V6: [&str; 4] = ["fd00::2", "2001:db8:1::2", "2001:db8:10::2", "2001:db8:11::2"];

/// Settings of a router that answers every probe.
const ROUTER: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
    echo 0 > /proc/sys/net/ipv6/icmp/ratelimit";

/// The two namespaces behind the remote.
struct Chain {
    middle: Namespace,
    end: Namespace,
}

impl Chain {
    fn behind(world: &World) -> Self {
        let (middle, end) = (Namespace::plain(), Namespace::plain());
        world.remote.script(&format!(
            "ip link add m0 index 11 type veth peer name m1 index 12 netns {}
            ip addr add 192.0.2.1/30 dev m0
            ip addr add 2001:db8:10::1/64 dev m0 nodad
            ip link set m0 up
            ip route add 192.0.2.4/30 via 192.0.2.2
            ip route add 2001:db8:11::/64 via 2001:db8:10::2",
            middle.pid()
        ));
        middle.script(&format!(
            "ip link set lo up
            ip link add e0 index 13 type veth peer name e1 index 14 netns {}
            ip addr add 192.0.2.2/30 dev m1
            ip addr add 2001:db8:10::2/64 dev m1 nodad
            ip addr add 192.0.2.5/30 dev e0
            ip addr add 2001:db8:11::1/64 dev e0 nodad
            ip link set m1 up
            ip link set e0 up
            ip route add default via 192.0.2.1
            ip route add default via 2001:db8:10::1
            {ROUTER}",
            end.pid()
        ));
        end.script(&format!(
            "ip link set lo up
            ip addr add 192.0.2.6/30 dev e1
            ip addr add 2001:db8:11::2/64 dev e1 nodad
            ip link set e1 up
            ip route add default via 192.0.2.5
            ip route add default via 2001:db8:11::1
            {ROUTER}"
        ));
        // Links come up one by one; no probe is to be lost to that.
        for end in ["192.0.2.6", "2001:db8:11::2"] {
            wait_until(PATIENCE, "the end of the chain", || {
                world.host.exec(&["ping", "-n", "-c", "1", "-W", "1", end]).status.success()
            });
        }
        Self { middle, end }
    }

    /// Makes the last link narrower than all before it.
    fn narrow(&self, mtu: u16) {
        self.middle.script(&format!("ip link set e0 mtu {mtu}"));
        self.end.script(&format!("ip link set e1 mtu {mtu}"));
    }
}

/// The addresses that answered the probes of a traceroute, by hop.
fn trace(world: &World, options: &[&str], to: IpAddr) -> Vec<String> {
    let to = to.to_string();
    let mut argv = vec!["traceroute", "-n", "-q", "1", "-w", "5", "-m", "8"];
    argv.extend(options);
    argv.push(&to);
    let output = world.guest.exec(&argv);
    assert!(output.status.success(), "{argv:?}: {}{}", output.stdout, output.stderr);
    let hops = output.stdout.lines().skip(1);
    hops.map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn traceroute_with_datagrams_names_every_router() {
    let world = needs!(World::ordinary());
    let _chain = Chain::behind(&world);
    let world = world.online_with_ipv6(&[]);
    assert_eq!(trace(&world, &[], END), HOPS);
    assert_eq!(trace(&world, &["-6"], END_V6), HOPS_V6);
}

#[test]
fn traceroute_with_echo_requests_names_every_router() {
    let world = needs!(World::root());
    world.let_root_ping();
    let _chain = Chain::behind(&world);
    let world = world.online_with_ipv6(&[]);
    assert_eq!(trace(&world, &["-I"], END), HOPS);
    assert_eq!(trace(&world, &["-6", "-I"], END_V6), HOPS_V6);
}

#[test]
fn traceroute_with_echo_requests_works_over_an_ordinary_users_ping_sockets() {
    let world = needs!(World::ordinary());
    world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
    let _chain = Chain::behind(&world);
    let world = world.online_with_ipv6(&[]);
    assert_eq!(trace(&world, &["-I"], END), HOPS);
    assert_eq!(trace(&world, &["-6", "-I"], END_V6), HOPS_V6);
}

#[test]
fn unreachable_told_by_a_router_far_away_comes_from_that_router() {
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    chain.middle.script("ip route add unreachable 192.0.2.6/32");
    let world = world.online_with_ipv6(&[]);
    let guest = world.guest.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    guest.send_to(b"anybody?", (END, 9)).unwrap();
    wait_until(PATIENCE, "the router's message", || {
        !world.capture.packets("icmp[0] == 3 and icmp[1] == 1 and src host 192.0.2.2").is_empty()
    });
}

/// What the guest's kernel believes the path's MTU to be.
fn path_mtu(world: &World, to: IpAddr) -> Option<u16> {
    let route = world.guest.script(&format!("ip route get {to}"));
    let mut words = route.split_whitespace();
    words.find(|&word| word == "mtu")?;
    words.next()?.parse().ok()
}

fn assert_learns_the_mtu(world: &World, chain: &Chain, to: IpAddr, any: IpAddr, headers: usize) {
    const MTU: u16 = 1400;
    let largest = usize::from(MTU) - headers;
    let server = UdpServer::echo(&chain.end, (to, 0).into());
    let guest = world.guest.enter(|| UdpSocket::bind((any, 0))).unwrap();
    guest.set_read_timeout(Some(IO_LIMIT)).unwrap();
    guest.connect(server.address()).unwrap();
    let mut buffer = vec![0; 2000];
    let mut echo = |len: usize| {
        guest.send(&vec![7; len]).unwrap();
        assert_eq!(guest.recv(&mut buffer).unwrap(), len);
    };
    echo(largest);
    assert_eq!(path_mtu(world, to), None, "nobody has said anything yet");
    // Fits the guest's link, so its kernel forbids to fragment it.
    guest.send(&vec![7; 1500 - headers]).unwrap();
    wait_until(PATIENCE, "the router's MTU in the guest", || path_mtu(world, to) == Some(MTU));
    // The application hears of it as on any network, and from now on the guest's kernel cuts what
    // is too large.
    let error = guest.take_error().unwrap().unwrap();
    assert_eq!(error.raw_os_error(), Some(Errno::EMSGSIZE as i32));
    echo(1500 - headers);
    echo(largest);
    let from: SocketAddr = guest.peer_addr().unwrap();
    assert_eq!(from, server.address());
}

#[test]
fn guest_learns_the_mtu_of_a_narrow_link_behind_the_host() {
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    chain.narrow(1400);
    let world = world.online_with_ipv6(&[]);
    assert_learns_the_mtu(&world, &chain, END, Ipv4Addr::UNSPECIFIED.into(), 28);
    let told = world.capture.packets("icmp[0] == 3 and icmp[1] == 4 and src host 192.0.2.2");
    assert!(!told.is_empty(), "the router itself says so");
}

#[test]
fn guest_learns_the_mtu_of_a_narrow_ipv6_link_behind_the_host() {
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    chain.narrow(1400);
    let world = world.online_with_ipv6(&[]);
    assert_learns_the_mtu(&world, &chain, END_V6, Ipv6Addr::UNSPECIFIED.into(), 48);
    let told = world.capture.packets("icmp6 and ip6[40] == 2 and src host 2001:db8:10::2");
    assert!(!told.is_empty(), "the router itself says so");
}

#[test]
fn tcp_passes_a_narrow_link_behind_the_host() {
    const LEN: usize = 4 << 20;
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    chain.narrow(1280);
    let world = world.online_with_ipv6(&[]);
    for to in [END, END_V6] {
        let server = TcpServer::echo(&chain.end, (to, 0).into());
        let stream = connect(&world.guest, server.address()).unwrap();
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| send_exact(&stream, 3, LEN));
            receive_exact(&stream, 3, LEN).unwrap();
            sent.join().unwrap().unwrap();
        });
    }
}

/// A datagram of each of these lengths to an echo server: the length of the answer, or the error.
/// What the guest's kernel knows of the path, it does not use; it forbids to fragment any of them,
/// or none (ip(7), ipv6(7): `IP_PMTUDISC_PROBE`, `IP_PMTUDISC_DONT`).
const PROBE: &str = "import errno, socket, sys
to, port, mode, *lens = sys.argv[1:]
is_ipv6 = ':' in to
probe = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
probe.settimeout(50)
probe.setsockopt(*((41, 23) if is_ipv6 else (0, 10)), {'PROBE': 3, 'DONT': 0}[mode])
probe.connect((to, int(port)))
for length in map(int, lens):
    try:
        probe.send(bytes(length))
        print(len(probe.recv(2000)))
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))";

fn probe(world: &World, to: SocketAddr, mode: &str, lens: &[usize]) -> Vec<String> {
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let lens: Vec<String> = lens.iter().map(usize::to_string).collect();
    let mut argv = vec!["python3", "-c", PROBE, &address, &port, mode];
    argv.extend(lens.iter().map(String::as_str));
    let output = world.guest.exec(&argv);
    assert!(output.status.success(), "{}", output.stderr);
    output.stdout.lines().map(str::to_owned).collect()
}

/// Probes as QUIC makes them (RFC 8899), while only `MTU` bytes pass.
fn assert_probes_tell_the_truth(world: &World, chain: &Chain) {
    const MTU: usize = 1400;
    const FRAGMENTS: &str = "(ip[6:2] & 0x3fff != 0) or ip6[6] == 44";
    for (to, headers) in [(END, 28), (END_V6, 48)] {
        let server = UdpServer::echo(&chain.end, (to, 0).into());
        let (host, end) = (Capture::start(&world.host, "h0"), Capture::start(&chain.end, "e1"));
        let fits = MTU - headers;
        let lens = [fits, 1500 - headers, fits + 1, fits, 1500 - headers, fits];
        let fits = fits.to_string();
        assert_eq!(
            probe(world, server.address(), "PROBE", &lens),
            [&fits, "EMSGSIZE", "EMSGSIZE", &fits, "EMSGSIZE", &fits],
        );
        for (name, capture) in [("host", &host), ("end", &end)] {
            let all = format!("udp dst port {}", server.address().port());
            wait_until(PATIENCE, "the probes in the capture", || capture.packets(&all).len() >= 3);
            assert_eq!(capture.packets(FRAGMENTS), [""; 0], "{name}");
        }
        // Whoever permits it gets it through in pieces. IPv6 has no such permission on the wire.
        if to.is_ipv4() {
            let lens = [1500 - headers, 1500 - headers];
            let through = (1500 - headers).to_string();
            assert_eq!(probe(world, server.address(), "DONT", &lens), [&*through, &through]);
            assert!(!end.packets(FRAGMENTS).is_empty());
        }
    }
}

#[test]
fn probes_hear_of_the_mtu_of_the_hosts_own_link() {
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    world.host.script("ip link set h0 mtu 1400");
    world.remote.script("ip link set r0 mtu 1400");
    // What comes back is not to be lost to the search for the way back's MTU.
    chain.end.script("ip route change default via 192.0.2.5 mtu 1400");
    let world = world.online_with_ipv6(&[]);
    assert_probes_tell_the_truth(&world, &chain);
}

#[test]
fn probes_hear_of_the_mtu_of_a_narrow_link_behind_the_host() {
    let world = needs!(World::root());
    let chain = Chain::behind(&world);
    chain.narrow(1400);
    let world = world.online_with_ipv6(&[]);
    assert_probes_tell_the_truth(&world, &chain);
}
