//! TCP from the guest, through the real binary, to real peers.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_tests::*;
use socket2::SockRef;

/// What counts as at once on a loaded machine, for answers that need no timer.
const AT_ONCE: Duration = Duration::from_secs(2);

fn listen(namespace: &Namespace, address: IpAddr) -> TcpListener {
    namespace.enter(|| TcpListener::bind((address, 0))).expect("the namespace has this address")
}

/// A listener's next connection.
fn accept(listener: &TcpListener) -> TcpStream {
    bounded(listener.accept().expect("a connection comes").0)
}

/// A connection from the guest to a listener of the remote.
fn pair(world: &World) -> (TcpStream, TcpStream) {
    let listener = listen(&world.remote, FAR);
    let guest = connect(&world.guest, listener.local_addr().unwrap()).expect("it connects");
    (guest, accept(&listener))
}

/// Keeps the kernel's own buffers of new TCP sockets at 1 MiB each, so that what is in flight says how much we hold. By
/// default a receive buffer may grow to 32 MiB (tcp(7), `tcp_rmem`), even one that nobody reads: frames out of order
/// are enough.
fn bound_kernel_buffers(world: &World) {
    for namespace in [&world.guest, &world.host, &world.remote] {
        namespace.script(
            "echo 4096 131072 1048576 >/proc/sys/net/ipv4/tcp_rmem
             echo 4096 16384 1048576 >/proc/sys/net/ipv4/tcp_wmem",
        );
    }
}

/// The most that [`bound_kernel_buffers`] and we may hold of one stream: four buffers of the kernel's, a ring of 2 MiB,
/// and 2 MiB more for what a socket takes beyond its limit.
const IN_FLIGHT_MAX: usize = 8 << 20;

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

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
    wait_until(Duration::from_secs(15), "the web server listens", || {
        connect(namespace, at).is_ok()
    });
    server
}

fn curl(world: &World, url: &str) -> String {
    let output = world.guest.exec(&["curl", "-sS", "--max-time", "20", url]);
    assert!(output.status.success(), "curl {url}: {}", output.stderr);
    output.stdout
}

#[test]
fn curl_fetches_by_address() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let _server = web_server(&world, &world.remote, "203.0.113.10");
    assert_eq!(curl(&world, "http://203.0.113.10/file"), "the file's text\n");
}

#[test]
fn curl_fetches_from_host_loopback_as_gateway() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let _server = web_server(&world, &world.host, "127.0.0.1");
    assert_eq!(curl(&world, "http://10.0.2.2/file"), "the file's text\n");
}

#[test]
fn curl_fetches_by_name() {
    let world = world!();
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let _server = web_server(&world, &world.remote, "203.0.113.10");
    assert_eq!(curl(&world, "http://www.example.test/file"), "the file's text\n");
}

#[test]
fn ordinary_user_fetches_by_address_gateway_and_name() {
    let world = world!(Account::Ordinary);
    let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
    let _slirp = world.slirp().options(&["--mtu=1500"]).start();
    let _capture = world.capture();
    let _far = web_server(&world, &world.remote, "203.0.113.10");
    let _near = web_server(&world, &world.host, "127.0.0.1");
    for host in ["203.0.113.10", "10.0.2.2", "www.example.test"] {
        assert_eq!(curl(&world, &format!("http://{host}/file")), "the file's text\n");
    }
}

#[test]
fn connect_to_closed_port_is_refused_at_once() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    world.host.script(
        "ip route add unreachable 203.0.113.21; ip route add prohibit 203.0.113.22
        ip route add blackhole 203.0.113.23; ip route add throw 203.0.113.24; ip route del default",
    );
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    for last in [21, 22, 23, 24, 25] {
        assert_unreachable(&world, Ipv4Addr::new(203, 0, 113, last).into(), AT_ONCE);
    }
}

#[test]
fn unreachable_from_a_router_reaches_the_guest() {
    let world = world!();
    world.remote.script("ip route add unreachable 192.0.2.1; ip route add prohibit 192.0.2.2");
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    assert_unreachable(&world, Ipv4Addr::new(192, 0, 2, 1).into(), AT_ONCE);
    assert_unreachable(&world, Ipv4Addr::new(192, 0, 2, 2).into(), AT_ONCE);
}

#[test]
fn silent_neighbour_is_unreachable_when_the_host_gives_up() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    assert_unreachable(&world, Ipv4Addr::new(198, 51, 100, 77).into(), Duration::from_secs(8));
}

#[test]
fn connect_is_not_answered_before_the_host_has_an_answer() {
    let world = world!();
    world.remote.script("ip route add blackhole 192.0.2.0/24");
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let error = world
        .guest
        .enter(|| {
            let to = SocketAddr::from(([192, 0, 2, 1], 80));
            TcpStream::connect_timeout(&to, Duration::from_millis(1500))
        })
        .expect_err("nobody answers");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn data_flows_to_the_guest_after_the_guest_half_closes() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let (guest, remote) = pair(&world);
    let sent = std::thread::spawn(move || send_exact(&remote, 1, 1_000_000));
    receive_exact(&guest, 1, 1_000_000).unwrap();
    sent.join().unwrap().unwrap();
    assert_eq!((&guest).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn reset_by_the_remote_resets_the_guest() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let (mut guest, remote) = pair(&world);
    reset(remote);
    let error = guest.read(&mut [0; 1]).expect_err("a reset is no end of stream");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn reset_by_the_guest_resets_the_remote() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    let _slirp = world.slirp().start();
    exchange(&world, 64 << 20);
}

#[test]
fn transfers_are_byte_exact_at_every_mtu() {
    let world = world!();
    for mtu in ["576", "1280", "9000", "65520", "65521"] {
        let slirp = world.slirp().options(&["--mtu", mtu]).start();
        assert!(world.guest.script("ip link show tap0").contains(&format!("mtu {mtu} ")));
        exchange(&world, 3 << 20);
        drop(slirp);
    }
}

#[test]
fn slow_reader_stalls_the_sender_and_loses_nothing() {
    const LEN: usize = 16 << 20;
    let world = world!();
    bound_kernel_buffers(&world);
    let _slirp = world.slirp().start();
    for guest_sends in [true, false] {
        let (guest, remote) = pair(&world);
        let (sender, receiver) = if guest_sends { (guest, remote) } else { (remote, guest) };
        // The stall is seen, not timed: nothing more is taken for a while.
        sender.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
        let mut sent = 0;
        let mut chunk = vec![0; 65536];
        let stalled = loop {
            let len = chunk.len().min(LEN - sent);
            send_exact(&mut chunk[..len], 77 + sent, len).unwrap();
            match (&sender).write(&chunk[..len]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
            assert!(
                sent <= IN_FLIGHT_MAX,
                "{sent} bytes vanished into buffers: nothing pushes back"
            );
        };
        assert_eq!(stalled.kind(), std::io::ErrorKind::WouldBlock);
        sender.set_write_timeout(Some(IO_LIMIT)).unwrap();
        std::thread::scope(|scope| {
            let rest = scope.spawn(|| send_exact(&sender, 77 + sent, LEN - sent));
            receive_exact(&receiver, 77, LEN).unwrap();
            rest.join().unwrap().unwrap();
        });
    }
}

#[test]
fn bytes_before_the_guests_end_survive_a_slow_remote_that_ended_first() {
    let world = world!();
    bound_kernel_buffers(&world);
    let slirp = world.slirp().start();
    let (guest, remote) = pair(&world);
    remote.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&guest).read(&mut [0; 1]).unwrap(), 0);
    guest.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    let mut chunk = vec![0; 65536];
    loop {
        send_exact(&mut chunk[..], 9 + sent, 65536).unwrap();
        match (&guest).write(&chunk) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
        assert!(sent <= IN_FLIGHT_MAX, "{sent} bytes vanished into buffers: nothing pushes back");
    }
    drop(guest);
    // Longer than any TIME-WAIT of ours; the process has nothing to do meanwhile.
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(3));
    assert!(spent < Duration::from_millis(100), "it spins while the remote is slow: {spent:?}");
    receive_exact(&remote, 9, sent).unwrap();
    assert_eq!((&remote).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn tiny_receive_window_of_the_guest_is_respected() {
    let world = world!();
    let _slirp = world.slirp().start();
    let listener = listen(&world.remote, FAR);
    let to = listener.local_addr().unwrap();
    let guest = world.guest.enter(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect_timeout(&to.into(), IO_LIMIT).unwrap();
        bounded(TcpStream::from(socket))
    });
    let remote = accept(&listener);
    let sent = std::thread::spawn(move || send_exact(&remote, 9, 1_000_000));
    receive_exact(&guest, 9, 1_000_000).unwrap();
    sent.join().unwrap().unwrap();
}

#[test]
fn urgent_data_arrives_in_line_both_ways() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    let slirp = world.slirp().start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    echo_once(&world, server.address(), b"first");
    let files = slirp.facts().open_files();
    for number in 0_u32..500 {
        echo_once(&world, server.address(), &number.to_be_bytes());
    }
    wait_until(Duration::from_secs(20), "every host socket is closed", || {
        slirp.facts().open_files() <= files + 2
    });
}

#[test]
fn hundred_connections_at_once_keep_their_bytes_apart() {
    let world = world!();
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
fn new_connection_on_a_reset_tuple_works() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    for round in 0_u8..5 {
        let mut stream = connect_from(&world.guest, 40000, server.address()).unwrap();
        stream.write_all(&[round]).unwrap();
        let mut back = [0];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [round]);
        reset(stream);
    }
}

#[test]
fn new_connection_on_a_tuple_that_the_remote_closed_works() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let listener = listen(&world.remote, FAR);
    for _ in 0..3 {
        let mut guest = connect_from(&world.guest, 40001, listener.local_addr().unwrap()).unwrap();
        // The remote closes first, so that TIME-WAIT is not the guest's.
        accept(&listener).write_all(b"bye").unwrap();
        let mut text = String::new();
        guest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        drop(guest);
        wait_until(Duration::from_secs(5), "the guest's socket is gone", || {
            world.guest.script("ss -tanH sport = 40001").trim().is_empty()
        });
    }
}

#[test]
fn new_syn_of_a_guest_that_forgot_its_connection_works() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    // The first connection is made and forgotten without a word on the wire: the tap drops the reset.
    let stream = connect_from(&world.guest, 40002, server.address()).unwrap();
    world.guest.script(
        "nft add table t; nft add chain t o '{ type filter hook output priority 0; }'
        nft add rule t o tcp sport 40002 drop",
    );
    reset(stream);
    world.guest.script("nft delete table t");
    let mut again = connect_from(&world.guest, 40002, server.address()).unwrap();
    again.write_all(b"again").unwrap();
    let mut back = [0; 5];
    again.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");
}

#[test]
fn window_scaling_is_negotiated() {
    let world = world!();
    let _slirp = world.slirp().start();
    let capture = world.capture();
    let (_guest, _remote) = pair(&world);
    let filter = "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)";
    wait_until(Duration::from_secs(5), "the SYN|ACK is recorded", || {
        !capture.packets(filter).is_empty()
    });
    let syn_ack = &capture.packets(filter)[0];
    assert!(syn_ack.contains("wscale"), "{syn_ack}");
}

#[test]
fn network_nested_behind_the_guest_works_without_masquerading() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
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
    let world = world!();
    let _loopback = TcpServer::echo(&world.host, ([127, 0, 0, 1], 7777).into());
    let _slirp = world.slirp().options(&["--disable-host-loopback"]).start();
    let _capture = world.capture();
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
    let world = world!();
    let server = TcpServer::echo(&world.host, ([127, 0, 0, 1], 0).into());
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    echo_once(&world, (GATEWAY, server.address().port()).into(), b"as gateway");
    route_loopback_to_the_tap(&world);
    echo_once(&world, server.address(), b"as itself");
}

#[test]
fn nameserver_address_serves_dns_only() {
    let world = world!();
    let _slirp = world.slirp().start();
    let _capture = world.capture();
    let failure = connect(&world.guest, (NAMESERVER, 80).into()).expect_err("only DNS is there");
    assert!(failure.after < AT_ONCE, "{failure:?}");
}

#[test]
fn host_and_remote_see_connections_from_their_own_side() {
    let world = world!();
    let _slirp = world.slirp().start();
    let listener = listen(&world.remote, FAR);
    let _guest = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), HOST);
}

#[test]
fn idle_connection_costs_no_processor_time() {
    let world = world!();
    let slirp = world.slirp().start();
    let (mut guest, mut remote) = pair(&world);
    guest.write_all(b"x").unwrap();
    remote.read_exact(&mut [0; 1]).unwrap();
    let started_at = Instant::now();
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
    assert!(spent <= Duration::from_millis(50), "{spent:?} of {:?}", started_at.elapsed());
}
