//! Connections and their bytes: to remotes, to the host as the gateway, to closed and unreachable
//! ports.

use std::net::{Ipv4Addr, Shutdown};
use std::time::Instant;

use nix::errno::Errno;

use super::*;

/// What counts as at once on a loaded machine, for answers that need no timer.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A web server of Python's own, with one file.
fn web_server(world: &World, namespace: &Namespace, address: &str) -> Background {
    let folder = world.folder().join("web");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("file"), "the file's text\n").unwrap();
    let server = namespace.spawn(&[
        "/usr/bin/python3",
        "-m",
        "http.server",
        "--bind",
        address,
        "--directory",
        folder.to_str().unwrap(),
        "80",
    ]);
    let at = SocketAddr::new(address.parse().unwrap(), 80);
    wait_until(PATIENCE, "the web server listens", || connect(namespace, at).is_ok());
    server
}

fn curl(world: &World, url: &str) -> String {
    let output = world.guest.exec(&["curl", "-sS", "--max-time", "50", url]);
    assert!(output.status.success(), "curl {url}: {}", output.stderr);
    output.stdout
}

#[test]
fn curl_fetches_by_address() {
    let world = needs!(World::root()).online(&[]);
    let _server = web_server(&world, &world.remote, "203.0.113.10");
    assert_eq!(curl(&world, "http://203.0.113.10/file"), "the file's text\n");
}

#[test]
fn curl_fetches_from_host_loopback_as_gateway() {
    let world = needs!(World::root()).online(&[]);
    let _server = web_server(&world, &world.host, "127.0.0.1");
    assert_eq!(curl(&world, "http://10.0.2.2/file"), "the file's text\n");
}

#[test]
fn curl_fetches_by_name() {
    let world = needs!(World::root());
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let world = world.online(&[]);
    let _server = web_server(&world, &world.remote, "203.0.113.10");
    assert_eq!(curl(&world, "http://www.example.test/file"), "the file's text\n");
}

#[test]
fn ordinary_user_fetches_by_address_gateway_and_name() {
    let world = needs!(World::ordinary());
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let world = world.online(&["--mtu=1500"]);
    let _far = web_server(&world, &world.remote, "203.0.113.10");
    let _near = web_server(&world, &world.host, "127.0.0.1");
    for host in ["203.0.113.10", "10.0.2.2", "www.example.test"] {
        assert_eq!(curl(&world, &format!("http://{host}/file")), "the file's text\n");
    }
}

#[test]
fn connect_to_closed_port_is_refused_at_once() {
    let world = needs!(World::root()).online(&[]);
    for address in [GATEWAY, HOST, REMOTE, FAR] {
        let failure = connect(&world.guest, (address, 9).into()).expect_err("nobody listens");
        assert_eq!(failure.errno, Errno::ECONNREFUSED, "{address}");
        assert!(failure.after < AT_ONCE, "{address}: {failure:?}");
    }
}

fn assert_unreachable(world: &World, to: IpAddr, limit: Duration) {
    let failure = connect(&world.guest, (to, 80).into()).expect_err("nobody is there");
    let told = [Errno::EHOSTUNREACH, Errno::ENETUNREACH].contains(&failure.errno);
    assert!(told && failure.after < limit, "{to}: {failure:?}");
}

#[test]
fn routes_that_refuse_make_the_destination_unreachable_at_once() {
    let world = needs!(World::root());
    world.host.script(
        "ip route add unreachable 203.0.113.21; ip route add prohibit 203.0.113.22
        ip route add blackhole 203.0.113.23; ip route add throw 203.0.113.24; ip route del default",
    );
    let world = world.online(&[]);
    for last in [21, 22, 23, 24, 25] {
        assert_unreachable(&world, Ipv4Addr::new(203, 0, 113, last).into(), AT_ONCE);
    }
}

#[test]
fn unreachable_from_a_router_reaches_the_guest() {
    let world = needs!(World::root());
    world.remote.script("ip route add unreachable 192.0.2.1; ip route add prohibit 192.0.2.2");
    let world = world.online(&[]);
    assert_unreachable(&world, Ipv4Addr::new(192, 0, 2, 1).into(), AT_ONCE);
    assert_unreachable(&world, Ipv4Addr::new(192, 0, 2, 2).into(), AT_ONCE);
}

#[test]
fn silent_neighbour_is_unreachable_when_the_host_gives_up() {
    let world = needs!(World::root()).online(&[]);
    assert_unreachable(&world, Ipv4Addr::new(198, 51, 100, 77).into(), PATIENCE);
}

#[test]
fn data_flows_to_the_guest_after_the_guest_half_closes() {
    let world = needs!(World::root()).online(&[]);
    let (mut guest, mut remote) = pair(&world);
    guest.write_all(b"question").unwrap();
    guest.shutdown(Shutdown::Write).unwrap();
    let mut question = String::new();
    remote.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    let answered = std::thread::spawn(move || send_exact(&remote, 3, 2_000_000));
    receive_exact(&guest, 3, 2_000_000).unwrap();
    answered.join().unwrap().unwrap();
    assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn data_flows_to_the_remote_after_the_remote_half_closes() {
    let world = needs!(World::root()).online(&[]);
    let (mut guest, mut remote) = pair(&world);
    remote.write_all(b"greeting").unwrap();
    remote.shutdown(Shutdown::Write).unwrap();
    let mut greeting = String::new();
    guest.read_to_string(&mut greeting).unwrap();
    assert_eq!(greeting, "greeting");
    let sent = std::thread::spawn(move || send_exact(&guest, 5, 2_000_000));
    receive_exact(&remote, 5, 2_000_000).unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!(remote.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn all_data_before_a_close_arrives() {
    let world = needs!(World::root()).online(&[]);
    let (guest, remote) = pair(&world);
    let sent = std::thread::spawn(move || send_exact(&remote, 1, 1_000_000));
    receive_exact(&guest, 1, 1_000_000).unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!((&guest).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn reset_by_the_remote_resets_the_guest() {
    let world = needs!(World::root()).online(&[]);
    let (mut guest, remote) = pair(&world);
    reset(remote);
    let error = guest.read(&mut [0; 1]).expect_err("a reset is no end of stream");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn reset_by_the_guest_resets_the_remote() {
    let world = needs!(World::root()).online(&[]);
    let (guest, mut remote) = pair(&world);
    reset(guest);
    let error = remote.read(&mut [0; 1]).expect_err("a reset is no end of stream");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// `len` bytes each way at the same time, compared byte by byte.
fn exchange(world: &World, len: usize) {
    let (guest, remote) = pair(world);
    std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| {
                send_exact(&guest, 11, len)?;
                guest.shutdown(Shutdown::Write)
            }),
            scope.spawn(|| {
                send_exact(&remote, 22, len)?;
                remote.shutdown(Shutdown::Write)
            }),
            scope.spawn(|| receive_exact(&guest, 22, len)),
            scope.spawn(|| receive_exact(&remote, 11, len)),
        ];
        for (number, thread) in threads.into_iter().enumerate() {
            thread.join().unwrap().unwrap_or_else(|error| panic!("stream {number}: {error}"));
        }
    });
    assert_eq!((&guest).read(&mut [0; 1]).unwrap(), 0);
    assert_eq!((&remote).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn large_transfers_both_ways_at_once_are_byte_exact() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    exchange(&world, 64 << 20);
}

#[test]
fn transfers_are_byte_exact_at_every_mtu() {
    let world = needs!(World::root());
    for mtu in ["576", "1280", "9000", "65520", "65521"] {
        let slirp = world.slirp().options(&["--mtu", mtu]).start();
        assert!(world.guest.script("ip link show tap0").contains(&format!("mtu {mtu} ")));
        exchange(&world, 3 << 20);
        drop(slirp);
    }
}

#[test]
fn urgent_data_arrives_in_line_both_ways() {
    let world = needs!(World::root()).online(&[]);
    let (guest, remote) = pair(&world);
    for (from, to) in [(&guest, &remote), (&remote, &guest)] {
        SockRef::from(to).set_out_of_band_inline(true).unwrap();
        SockRef::from(from).send(b"before").unwrap();
        SockRef::from(from).send_out_of_band(b"!").unwrap();
        SockRef::from(from).send(b"after").unwrap();
        let mut text = [0; 12];
        (&*to).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"before!after");
    }
}

fn echo_once(world: &World, to: SocketAddr, text: &[u8]) {
    let mut stream = connect(&world.guest, to).unwrap_or_else(|failure| panic!("{failure:?}"));
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn five_hundred_connections_one_after_another_leave_nothing_behind() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    echo_once(&world, server.address(), b"first");
    let files = slirp.facts().open_files();
    for number in 0_u32..500 {
        echo_once(&world, server.address(), &number.to_be_bytes());
    }
    wait_until(PATIENCE, "every host socket is closed", || slirp.facts().open_files() <= files + 2);
}

#[test]
fn hundred_connections_at_once_keep_their_bytes_apart() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let streams: Vec<TcpStream> =
        (0..100).map(|_| connect(&world.guest, server.address()).unwrap()).collect();
    std::thread::scope(|scope| {
        for (number, stream) in streams.iter().enumerate() {
            scope.spawn(move || {
                let sender = std::thread::scope(|inner| {
                    let sender = inner.spawn(|| send_exact(stream, number * 1000, 100_000));
                    receive_exact(stream, number * 1000, 100_000).unwrap();
                    sender.join().unwrap()
                });
                sender.unwrap();
            });
        }
    });
}

#[test]
fn network_nested_behind_the_guest_works_without_masquerading() {
    let world = needs!(World::root()).online(&[]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let nested = Namespace::container(&world.guest, Account::Root);
    world.guest.script(&format!(
        "ip link add bridge type bridge; ip addr add 10.2.0.1/24 dev bridge
        ip link set bridge up
        ip link add out type veth peer name in; ip link set out master bridge up
        echo 1 > /proc/sys/net/ipv4/ip_forward
        ip link set in netns {}",
        nested.pid()
    ));
    nested.script(
        "ip link set lo up; ip addr add 10.2.0.9/24 dev in; ip link set in up
        ip route add default via 10.2.0.1",
    );
    let mut stream = connect(&nested, server.address()).unwrap_or_else(|f| panic!("{f:?}"));
    stream.write_all(b"from the nested one").unwrap();
    let mut back = [0; 19];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"from the nested one");
}

/// What a guest may do to reach the host's loopback by its own addresses.
fn route_loopback_to_the_tap(world: &World) {
    world.guest.script(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
        ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null || true
        ip route add 127.0.0.0/8 dev tap0 via 10.0.2.2 src 10.0.2.100",
    );
}

#[test]
fn host_loopback_is_unreachable_when_disabled() {
    let world = needs!(World::root());
    let _loopback = TcpServer::echo(&world.host, ([127, 0, 0, 1], 7777).into());
    let world = world.online(&["--disable-host-loopback"]);
    route_loopback_to_the_tap(&world);
    for address in ["10.0.2.2", "127.0.0.1", "127.1.2.3"] {
        let to = SocketAddr::new(address.parse().unwrap(), 7777);
        let failure = connect(&world.guest, to).expect_err(address);
        assert_eq!(failure.errno, Errno::ENETUNREACH, "{address}: {failure:?}");
        assert!(failure.after < AT_ONCE, "{address}: {failure:?}");
    }
}

#[test]
fn host_loopback_stays_reachable_as_routed_127_when_allowed() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.host, ([127, 0, 0, 1], 0).into());
    let world = world.online(&[]);
    echo_once(&world, (GATEWAY, server.address().port()).into(), b"as gateway");
    route_loopback_to_the_tap(&world);
    echo_once(&world, server.address(), b"as itself");
}

#[test]
fn nameserver_address_serves_dns_only() {
    let world = needs!(World::root()).online(&[]);
    let failure = connect(&world.guest, (NAMESERVER, 80).into()).expect_err("only DNS is there");
    assert!(failure.after < AT_ONCE, "{failure:?}");
}

#[test]
fn host_and_remote_see_connections_from_their_own_side() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let listener = listen(&world.remote, FAR);
    let _guest = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), HOST);
}

#[test]
fn idle_connection_costs_no_processor_time() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    let (mut guest, mut remote) = pair(&world);
    guest.write_all(b"x").unwrap();
    remote.read_exact(&mut [0; 1]).unwrap();
    let started_at = Instant::now();
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
    assert!(spent <= Duration::from_millis(50), "{spent:?} of {:?}", started_at.elapsed());
}
