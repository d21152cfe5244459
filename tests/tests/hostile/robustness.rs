//! Hostile guests and exhausted resources: the process survives, recovers, and serves the next
//! connection.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::errno::Errno;
use slirp_tests::*;

const RECOVERY: Duration = PATIENCE;

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"alive").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"alive");
}

fn assert_serves(world: &World, server: &TcpServer) {
    let stream = connect(&world.guest, server.address());
    echo(&mut stream.unwrap_or_else(|failure| panic!("{failure:?}")));
}

/// Packets that the process has read from the guest's tap so far, and those that the tap's queue
/// dropped.
fn left_the_guest(world: &World) -> (u64, u64) {
    let table = world.guest.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("tap0:")).expect("a tap0");
    let fields: Vec<u64> = line.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    (fields[9], fields[11])
}

/// Twenty thousand SYNs from as many source ports, as fast as the process takes them.
fn flood(world: &World, to: IpAddr) {
    const BATCH: u16 = 400;
    let IpAddr::V4(to) = to else { panic!("the flood is IPv4") };
    let socket = raw_ipv4_socket(&world.guest);
    let to = SocketAddrV4::new(to, 80);
    let (before, _) = left_the_guest(world);
    for number in 0..20_000_u16 {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 100), 1024 + number);
        let packet = syn_packet(from, to, u32::from(number) * 977);
        // A full queue of the tap drops a SYN: the flood is no smaller for it.
        let _ = socket.send_to(&packet, &SocketAddr::V4(to).into());
        if number % BATCH == BATCH - 1 {
            // The tap's queue holds 1,000 packets: more at once would be dropped unseen.
            let sent = u64::from(number) + 1;
            wait_until(PATIENCE, "the process reads its tap", || {
                let (read, dropped) = left_the_guest(world);
                read + dropped >= before + sent
            });
        }
    }
    let (after, dropped) = left_the_guest(world);
    assert!(after - before > 15_000, "the process saw {} SYNs, {dropped} lost", after - before);
}

/// Idle and modest again, by itself.
fn assert_recovers(slirp: &Slirp, memory_kib: u64) {
    let facts = slirp.facts();
    wait_until(RECOVERY, "the process is idle again", || {
        facts.cpu_time_during(Duration::from_secs(1)) < Duration::from_millis(50)
    });
    wait_until(RECOVERY, "the process is modest again", || facts.resident_kib() < memory_kib);
    assert!(facts.is_alive());
}

#[test]
fn syn_flood_to_a_black_hole_is_survived() {
    let world = needs!(World::root());
    world.remote.script("ip route add blackhole 192.0.2.0/24");
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().start();
    let mut old = connect(&world.guest, server.address()).unwrap();
    flood(&world, Ipv4Addr::new(192, 0, 2, 1).into());
    echo(&mut old);
    assert_recovers(&slirp, 40 * 1024);
    assert_serves(&world, &server);
    echo(&mut old);
}

#[test]
fn syn_flood_to_a_refusing_remote_is_survived() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().start();
    let mut old = connect(&world.guest, server.address()).unwrap();
    flood(&world, FAR);
    echo(&mut old);
    assert_recovers(&slirp, 40 * 1024);
    wait_until(RECOVERY, "the host sockets of the flood are closed", || {
        slirp.facts().open_files() < 60
    });
    assert_serves(&world, &server);
    echo(&mut old);
}

/// Fewer than the program needs for the flows that it would allow.
const SCARCE_DESCRIPTORS: usize = 30;

#[test]
fn exhausted_descriptors_refuse_new_flows_and_keep_old_ones() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let datagrams = UdpServer::echo(&world.remote, (FAR, 0).into());
    let limit = format!("--nofile={SCARCE_DESCRIPTORS}:{SCARCE_DESCRIPTORS}");
    let slirp = world.slirp().options(&["--publish=8080:80"]).behind(&["prlimit", &limit]).start();
    let mut old: Vec<TcpStream> =
        (0..5).map(|_| connect(&world.guest, server.address()).unwrap()).collect();
    let mut more = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        match connect(&world.guest, server.address()) {
            Ok(stream) => more.push(stream),
            Err(failure) => {
                assert!(failure.after < Duration::from_secs(5), "{failure:?}");
                // Not ECONNREFUSED: the remote does not refuse.
                assert_eq!(failure.errno, Errno::EHOSTUNREACH);
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "{SCARCE_DESCRIPTORS} descriptors cannot carry 45 connections");
    assert!(slirp.facts().open_files() >= SCARCE_DESCRIPTORS, "{}", slirp.facts().open_files());
    for _ in 0..20 {
        let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
        socket.send_to(b"no room", datagrams.address()).unwrap();
    }
    // New clients cannot be accepted either: they wait in the kernel.
    let _client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    old.iter_mut().for_each(echo);
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
    assert!(spent < Duration::from_millis(100), "it spins on EMFILE: {spent:?}");
    assert_eq!(slirp.stderr().matches("cannot accept").count(), 1, "{}", slirp.stderr());
    drop(more);
    wait_until(RECOVERY, "new flows are accepted again", || {
        connect(&world.guest, server.address()).is_ok()
    });
    old.iter_mut().for_each(echo);
    assert!(slirp.facts().is_alive());
}

#[test]
fn guest_that_opens_all_it_can_leaves_descriptors_to_the_host() {
    let world = needs!(World::root());
    let datagrams = UdpServer::echo(&world.remote, (FAR, 0).into());
    let api = Api::new(&world);
    let slirp =
        world.slirp().options(&[&api.option()]).behind(&["prlimit", "--nofile=256:256"]).start();
    let sockets: Vec<_> = (0..400)
        .map(|_| world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap())
        .collect();
    // A datagram may be dropped by a queue, but not all of them.
    for socket in sockets.iter().chain(&sockets) {
        socket.send_to(b"mine", datagrams.address()).unwrap();
    }
    let open = || slirp.facts().open_files();
    wait_until(RECOVERY, "the guest has all that it gets", || open() > 192);
    let add = "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp\",\"host_port\":8080,\
               \"guest_port\":80}}";
    assert_eq!(api.ask(add), "{\"return\":{\"id\":1}}");
    wait_until(RECOVERY, "older mappings make room", || {
        let info = api.ask("{\"execute\":\"info\"}");
        info.contains("\"flows\":192") && !info.contains("\"mapping_evicted\":0")
    });
    assert!(open() < 256, "{}", open());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    assert_serves(&world, &server);
}

/// Asks `server` from so many new ports of the guest, one after the other, as a resolver does.
fn ask_from_new_ports(world: &World, server: &UdpServer, questions: usize) {
    world.guest.enter(|| {
        for number in 0..questions {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"who", server.address()).unwrap();
            let mut answer = [0; 3];
            let heard = socket.recv(&mut answer);
            assert!(heard.is_ok(), "question {number}: {heard:?}");
        }
    });
}

#[test]
fn guest_that_asks_from_new_ports_all_the_time_keeps_connecting() {
    for descriptors in [1_024, 4_096] {
        let world = needs!(World::root());
        let names = UdpServer::echo(&world.remote, (FAR, 0).into());
        let server = TcpServer::echo(&world.remote, (FAR, 0).into());
        let limit = format!("--nofile={descriptors}:{descriptors}");
        let slirp = world.slirp().behind(&["prlimit", &limit]).start();
        let mut old = connect(&world.guest, server.address()).unwrap();
        for _ in 0..10 {
            ask_from_new_ports(&world, &names, descriptors / 8);
            assert_serves(&world, &server);
        }
        assert!(slirp.facts().open_files() > descriptors / 2, "the table is full of mappings");
        echo(&mut old);
    }
}

#[test]
fn guest_that_sends_from_every_port_leaves_ports_to_the_host() {
    let world = needs!(World::root());
    world.host.script("echo 40000 40199 > /proc/sys/net/ipv4/ip_local_port_range");
    let names = UdpServer::echo(&world.remote, (FAR, 0).into());
    let _slirp = world.slirp().start();
    ask_from_new_ports(&world, &names, 400);
    let own = world.host.enter(|| {
        (0..90).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).collect::<Result<Vec<_>, _>>()
    });
    assert!(own.is_ok(), "{own:?}");
    // And no more than half for the guest, which goes on.
    ask_from_new_ports(&world, &names, 200);
}

#[test]
fn remotes_leave_the_guest_half_of_its_flows() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let api = Api::new(&world);
    let slirp =
        world.slirp().options(&[&api.option()]).behind(&["prlimit", "--nofile=256:256"]).start();
    // No host has these addresses, so none of these connections is ever answered.
    api.forward(
        "{\"proto\":\"tcp\",\"host_port\":8080,\"guest_addr\":\"10.0.2.150\",\"guest_port\":80}",
    );
    let remotes: Vec<_> =
        (0..300).map(|_| connect(&world.remote, (HOST, 8080).into()).unwrap()).collect();
    wait_until(RECOVERY, "the oldest make room", || {
        !api.ask("{\"execute\":\"info\"}").contains("\"half_open_limit\":0")
    });
    let own: Vec<_> = (0..90).map(|_| connect(&world.guest, server.address()).unwrap()).collect();
    assert!(slirp.facts().open_files() < 256);
    drop((remotes, own));
}

#[test]
fn hostile_offload_headers_are_survived() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().start();
    let _capture = world.capture();
    inject(
        &world,
        "
for number in range(4000):
    length = rng.choice([20, 40, 60, 1480, 9000, 40000])
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + length, number & 0xffff, 0, 64,
        rng.choice([6, 6, 17]), 0, bytes([10, 0, 2, 100]), bytes([203, 0, 113, 10]))
    tcp = struct.pack('!HHIIBBHHH', 2000 + number, 9, rng.getrandbits(32), rng.getrandbits(32),
        rng.choice([0x50, 0xf0, 0x00]), rng.choice([2, 16, 24, 41, 4]),
        65535, 0, rng.getrandbits(16))
    frame = ethernet + ip + (tcp + bytes(length))[:length]
    header = struct.pack('<BBHHHH', rng.choice([0, 1, 1, 1, 2]), rng.choice([0, 1, 3, 4, 5, 0x81]),
        rng.choice([0, 34, 54, 66, len(frame), 65535]), rng.choice([0, 1, 8, 536, 1448, 65535]),
        rng.choice([0, 14, 34, 34, 34, len(frame) - 1, 65535]), rng.choice([0, 6, 16, 16, 65535]))
    send(frame, header)
",
    );
    assert_serves(&world, &server);
    assert_recovers(&slirp, 60 * 1024);
}

#[test]
fn loopback_spelled_in_raw_frames_is_refused_when_disabled() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let forbidden: Vec<TcpListener> = world
        .host
        .enter(|| ["[::1]:7777", "127.0.0.1:7777"].map(|at| TcpListener::bind(at).unwrap()).into());
    let world = world.online(&["-6", "--disable-host-loopback"]);
    inject(
        &world,
        "
def syn(source, destination, port):
    tcp = struct.pack('!HHIIBBHHH', port, 7777, 1, 0, 0x50, 2, 65535, 0, 0)
    total = checksum(source + destination + struct.pack('!HH', 6, len(tcp)) + tcp)
    return tcp[:16] + struct.pack('!H', total) + tcp[18:]
port = 20000
for round in range(20):
    for text in '127.0.0.1 127.9.9.9 0.0.0.0 10.0.2.2'.split():
        port += 1
        source, destination = socket.inet_aton('10.0.2.100'), socket.inet_aton(text)
        send(ipv4(source, destination, 6, syn(source, destination, port)))
    for text in '::1 :: ::ffff:127.0.0.1 ::127.0.0.1 fd00::2 fd00::99'.split():
        port += 1
        source = socket.inet_pton(socket.AF_INET6, 'fd00::1234')
        destination = socket.inet_pton(socket.AF_INET6, text)
        send(ipv6(source, destination, 6, syn(source, destination, port)))
",
    );
    // Once this connection's SYN is handled, those before it are, too.
    assert_serves(&world, &server);
    for listener in &forbidden {
        listener.set_nonblocking(true).unwrap();
        let accepted = listener.accept();
        assert!(accepted.is_err(), "{listener:?} was reached: {accepted:?}");
    }
    assert!(world.slirp.facts().is_alive());
}

#[test]
fn flood_of_random_frames_is_survived() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().options(&["--enable-ipv6"]).start();
    let mut old = connect(&world.guest, server.address()).unwrap();
    inject(
        &world,
        "
kinds = '0800 0800 0800 86dd 86dd 0806 8100 88f8 0026'
kinds = [bytes.fromhex(kind) for kind in kinds.split()]
for number in range(20000):
    size = rng.choice([0, 1, 13, 14, 20, 28, 34, 42, 54, 60, 74, 200, 1500])
    frame = bytearray(rng.randbytes(size))
    kind = rng.choice(kinds)
    if len(frame) > 30 and kind == kinds[0]:
        frame[0] = rng.choice([0x45, 0x45, 0x45, 0x4f, 0x40, 0x65])
        frame[9] = rng.choice([1, 2, 6, 6, 17, 17, 47])
        if rng.random() < 0.7: frame[2:4] = struct.pack('!H', len(frame))
        if rng.random() < 0.5: frame[6:8] = b'\\0\\0'
        if rng.random() < 0.5: frame[12:20] = bytes([10, 0, 2, 100, 10, 0, 2, rng.choice([2, 3])])
        if rng.random() < 0.8 and frame[0] == 0x45:
            frame[10:12] = b'\\0\\0'
            total = sum(struct.unpack('!10H', frame[:20]))
            total = (total & 0xffff) + (total >> 16)
            total = (total & 0xffff) + (total >> 16)
            frame[10:12] = struct.pack('!H', total ^ 0xffff)
    elif len(frame) > 50 and kind == kinds[3]:
        frame[0] = 0x60
        frame[4:6] = struct.pack('!H', len(frame) - 40)
        frame[6] = rng.choice([0, 6, 17, 43, 44, 58, 58, 60])
    send(ethernet[:12] + kind + bytes(frame))
",
    );
    echo(&mut old);
    assert_serves(&world, &server);
    // Datagrams of the flood may have opened host sockets that idle for minutes: memory, not their
    // number, is asked.
    assert_recovers(&slirp, 60 * 1024);
}

#[test]
fn guest_that_never_finishes_its_fragments_is_survived() {
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().start();
    inject(
        &world,
        "
for number in range(20000):
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1500, number & 0xffff,
            0x2000 | (number & 7) * 185, 64, 17, 0,
        bytes([10, 0, 2, 100]), bytes([203, 0, 113, 10]))
    total = sum(struct.unpack('!10H', ip))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack('!H', total ^ 0xffff) + ip[12:]
    send(ethernet + ip + bytes(1480))
",
    );
    assert!(slirp.facts().resident_kib() < 40 * 1024, "{} KiB", slirp.facts().resident_kib());
    assert_serves(&world, &server);
    assert_recovers(&slirp, 40 * 1024);
}

#[test]
fn hundreds_of_stalled_readers_do_not_stall_the_next_connection() {
    let world = needs!(World::root());
    let source = TcpServer::start(&world.remote, (FAR, 0).into(), |stream| {
        // Ends when the guest goes away.
        let _ = send_exact(&stream, 0, 64 << 20);
    });
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let slirp = world.slirp().start();
    let stalled: Vec<TcpStream> =
        (0..200).map(|_| connect(&world.guest, source.address()).unwrap()).collect();
    for _ in 0..20 {
        assert_serves(&world, &server);
    }
    drop(stalled);
    assert_recovers(&slirp, 60 * 1024);
}

/// Both streams and the ready-fd are one full pipe without a reader.
#[test]
fn unread_output_stops_neither_network_nor_signals() {
    let world = needs!(World::root());
    let path = world.folder().join("unread");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut unread = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    while unread.write(&[b'.'; 4096]).is_ok() {}
    let redirect = format!("exec 1<>{0} 2<>{0} \"$@\"", path.display());
    let slirp = world
        .slirp()
        .options(&["--log-level=trace"])
        .behind(&["bash", "-c", &redirect, "bash"])
        .start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    for _ in 0..100 {
        assert_serves(&world, &server);
    }
    // Room for some lines: what comes next says how many are missing.
    unread.read_exact(&mut [0; 32 * 4096]).unwrap_or_default();
    assert_serves(&world, &server);
    slirp.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(slirp.wait().signal, Some(nix::sys::signal::Signal::SIGTERM as i32));
    let mut text = Vec::new();
    let _ = unread.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(" lines were lost: they were not read\n"), "{text}");
}

/// The pipe that readiness goes to is full: the caller can still end the run.
#[test]
fn full_ready_pipe_does_not_keep_a_signal_from_ending_it() {
    let world = needs!(World::root());
    let path = world.folder().join("full");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut full = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    while full.write(&[b'.'; 4096]).is_ok() {}
    let redirect = format!("exec 9<>{} \"$@\"", path.display());
    let slirp =
        world.slirp().options(&["--ready-fd=9"]).behind(&["bash", "-c", &redirect, "bash"]).spawn();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    wait_until(PATIENCE, "the network works", || connect(&world.guest, server.address()).is_ok());
    slirp.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(slirp.wait().signal, Some(nix::sys::signal::Signal::SIGTERM as i32));
}

/// A log line that cannot be written because its reader has gone ends nothing.
#[test]
fn reader_of_the_log_that_has_gone_ends_nothing() {
    let world = needs!(World::root());
    let slirp = world
        .slirp()
        .options(&["--log-level=trace"])
        .behind(&["bash", "-c", "exec 2> >(exec head -c1 >/dev/null) \"$@\"", "bash"])
        .start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    for _ in 0..20 {
        assert_serves(&world, &server);
    }
    assert!(slirp.facts().is_alive());
}
