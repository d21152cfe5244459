//! Addresses and packets: every spelling of what is closed, by every protocol.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use nix::errno::Errno;
use slirp_tests::*;

use crate::hello::hello;
use crate::scene::*;

/// Sends a SYN, a datagram and an echo request to each of `addresses` (IPv4 and IPv6), past the
/// guest's kernel.
const PROBE: &str = "
def probe(addresses, port=7777):
    for number, text in enumerate(addresses.split()):
        if ':' in text:
            source, destination, packet = a6('fd00::1234'), a6(text), ipv6
            echo = 58, icmp6(source, destination, 128, 0, bytes([0, 9, 0, 1]) + b'echo')
        else:
            source, destination, packet = a('10.0.2.100'), a(text), ipv4
            echo = 1, icmp(8, 0, bytes([0, 9, 0, 1]) + b'echo')
        local = 20000 + number
        for protocol, body in (
                (6, tcp(source, destination, local, port, 2)),
                (17, udp(source, destination, local, port)),
                echo):
            send(packet(source, destination, protocol, body))
";

fn probe(scene: &Scene, addresses: &str) {
    send_frames(&scene.online, &format!("{PROBE}\nprobe('{addresses}')"));
}

/// Sockets of the host that must not be reached.
struct HostSockets {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl HostSockets {
    fn open(scene: &Scene) -> Self {
        let (tcp, udp) = scene.host.enter(|| {
            (TcpListener::bind("[::]:7777").unwrap(), UdpSocket::bind("[::]:7777").unwrap())
        });
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self { tcp, udp }
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        assert!(self.tcp.accept().is_err(), "{what}: a connection came to the host");
        assert!(self.udp.recv(&mut [0; 16]).is_err(), "{what}: a datagram came to the host");
    }
}

/// Addresses that only a rule which names them opens.
const PROTECTED_V4: &str = "127.0.0.1 127.1.2.3 127.255.255.255 0.0.0.0 0.1.2.3 10.0.2.2 \
    255.255.255.255 169.254.169.254 169.254.170.2 169.254.1.1 \
    100.100.100.200 168.63.129.16 192.0.0.192 224.0.0.1 239.1.1.1";
const PROTECTED_V6: &str = "::1 :: ::ffff:127.0.0.1 ::ffff:0.0.0.0 ::ffff:169.254.169.254 \
    ::ffff:10.0.2.2 ::127.0.0.1 ::169.254.169.254 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 \
    64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 64:ff9b:1:7f00:0:100:: 2002:7f00:1::1 \
    2002:a9fe:a9fe::1 2001:0:7f00:1::1 2001::80ff:fffe fd00:ec2::254 fd00::2 fe80::1 fe80::2 \
    ff02::1 ff05::1 ff0e::1";

#[test]
fn no_spelling_of_a_protected_address_is_opened_by_any() {
    for policy in ["allow any", "allow any\nset mode audit"] {
        let scene = Scene::with_ipv6(needs!(World::root()), policy);
        let loopback = Recorder::start(&scene.host, "lo");
        let host = HostSockets::open(&scene);
        probe(&scene, PROTECTED_V4);
        probe(&scene, PROTECTED_V6);
        scene.assert_silence();
        host.assert_untouched(policy);
        assert_eq!(loopback.arrived(), [], "{policy}: on the host's loopback");
        // The probe itself is fine.
        probe(&scene, "203.0.113.66 2001:db8:2::66");
        scene.settle();
        for address in ["203.0.113.66", "2001:db8:2::66"] {
            let arrived = scene.outside.arrived_at(address.parse().unwrap());
            let kinds = [Arrival::Tcp, Arrival::Udp, Arrival::Icmp];
            for kind in kinds {
                assert!(arrived.iter().any(|packet| packet.kind == kind), "{address}: {kind:?}");
            }
        }
    }
}

#[test]
fn host_and_private_networks_are_not_the_internet() {
    let scene = Scene::with_ipv6(needs!(World::root()), "allow internet");
    let loopback = Recorder::start(&scene.host, "lo");
    let host = HostSockets::open(&scene);
    probe(&scene, PROTECTED_V4);
    probe(&scene, PROTECTED_V6);
    probe(
        &scene,
        "10.0.2.255 10.0.2.0 10.0.2.3 10.0.2.77 198.51.100.1 10.1.2.3 172.16.0.1 192.168.1.1 \
         100.64.0.1 198.18.0.1 192.0.0.1 240.0.0.1 2001:db8:1::1 fc00::1 fd12::1 fec0::1 \
         64:ff9b::a01:203 2002:c0a8:101::1 2002:c633:6401::1",
    );
    scene.assert_silence();
    host.assert_untouched("at first");
    // An address that the host gets while it runs is the host's.
    assert!(connect(&scene.guest, "203.0.113.200:22".parse().unwrap()).is_ok());
    scene.host.script("ip addr add 203.0.113.200/32 dev h0; ip addr add 2001:db8:2::200 dev h0");
    wait_until(PATIENCE, "the new address is known", || {
        connect(&scene.guest, "203.0.113.200:7778".parse().unwrap())
            .is_err_and(|failure| failure.errno == Errno::EHOSTUNREACH)
    });
    probe(&scene, "203.0.113.200 2001:db8:2::200");
    scene.settle();
    host.assert_untouched("an address of later");
    assert!(loopback.arrived().iter().all(|packet| packet.to.port() != 7777), "{loopback:?}");
}

#[test]
fn datagrams_are_judged_each_and_strangers_do_not_get_in() {
    let scene = Scene::new(needs!(World::root()), "allow udp:203.0.113.66:5000");
    let allowed = SocketAddr::new(NOBODY, 5000);
    let socket = scene.guest.enter(|| UdpSocket::bind("0.0.0.0:6000")).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket.send_to(b"allowed", allowed).unwrap();
    for other in ["203.0.113.67:5000", "203.0.113.66:5001", "203.0.113.66:53", "8.8.8.8:443"] {
        socket.send_to(b"other", other).unwrap();
        socket.send_to(b"again", other).unwrap();
    }
    socket.send_to(b"allowed again", allowed).unwrap();
    scene.settle();
    assert_eq!(scene.outside.datagrams(allowed), [b"allowed".to_vec(), b"allowed again".to_vec()]);
    scene.assert_only(&[NOBODY]);
    let arrived = scene.outside.arrived_at(NOBODY);
    assert!(arrived.iter().all(|packet| packet.to == allowed), "{arrived:?}");
    // Datagrams from outside to the same socket of the host.
    let outer = arrived[0].from;
    let send = |from: &str, text: &[u8]| {
        let from: SocketAddr = from.parse().unwrap();
        let socket = scene.remote.enter(|| UdpSocket::bind(from)).unwrap();
        socket.send_to(text, outer).unwrap();
    };
    send("203.0.113.67:5000", b"a stranger");
    send("203.0.113.66:5001", b"another port");
    send("203.0.113.66:5000", b"the remote");
    let mut buffer = [0; 64];
    let received = loop {
        // Errors tell of the refused ones.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            break (buffer[..len].to_vec(), from);
        }
    };
    assert_eq!(received, (b"the remote".to_vec(), allowed));
}

#[test]
fn echo_requests_are_judged_each() {
    let scene = Scene::with_ipv6(needs!(World::root()), "allow icmp:203.0.113.66");
    send_frames(
        &scene.online,
        "
source, good, evil = a('10.0.2.100'), a('203.0.113.66'), a('203.0.113.67')
request = icmp(8, 0, struct.pack('!HH', 7, 1) + b'payload that is to leave')
for destination in good, evil, good, evil, evil:
    send(ipv4(source, destination, 1, request))
source, evil = a6('fd00::1234'), a6('2001:db8:2::66')
for kind in 128, 129, 1, 2, 3, 4, 139:
    send(ipv6(source, evil, 58, icmp6(source, evil, kind, 0, bytes([0, 7, 0, 1]) + b'payload')))",
    );
    scene.assert_only(&[NOBODY]);
    let requests = scene.outside.arrived_at(NOBODY);
    assert_eq!(requests.len(), 2, "{requests:?}");
    let ping = scene.guest.exec(&["ping", "-n", "-c1", "-W20", "203.0.113.66"]);
    assert!(ping.status.success(), "{}", ping.stdout);
}

#[test]
fn refused_datagrams_are_told_of_at_a_bounded_rate() {
    let scene = Scene::new(needs!(World::root()), "allow index.example");
    send_frames(
        &scene.online,
        "
source, destination = a('10.0.2.100'), a('203.0.113.66')
for number in range(500):
    send(ipv4(source, destination, 17, udp(source, destination, 20000 + number, 9)))
    send(ipv4(source, destination, 1, icmp(8, 0, struct.pack('!HH', number, 1) + b'out')))",
    );
    scene.assert_silence();
    let told = scene.online.capture.packets("icmp[0] == 3 and icmp[1] == 13").len();
    assert!((1..=100).contains(&told), "{told} errors");
}

#[test]
fn fragments_and_extension_headers_hide_no_destination() {
    let world = needs!(World::root());
    let policy = "allow udp:203.0.113.66:5000\nallow udp:[2001:db8:2::66]:5000";
    let scene = Scene::with_ipv6(world, policy);
    send_frames(
        &scene.online,
        "
source, evil, good = a('10.0.2.100'), a('203.0.113.67'), a('203.0.113.66')
def fragment(destination, number, offset, more, body, protocol=17):
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), number,
            (0x2000 if more else 0) | offset // 8, 64, protocol, 0)
    send(ethernet + filled(header + source + destination, 10) + body)
def whole(destination, port, text=b'x' * 40):
    return udp(source, destination, 4000, port, text)
# A denied remote: in order, backwards, the ports alone, and the first one twice.
for number, order in enumerate(((0, 1), (1, 0), (0, 0, 1))):
    datagram = whole(evil, 5000)
    pieces = (0, True, datagram[:8]), (8, False, datagram[8:])
    for piece in order:
        fragment(evil, 100 + number, *pieces[piece])
# A denied port: split behind the ports, and hidden by an overlap.
datagram = whole(good, 5001)
fragment(good, 200, 0, True, datagram[:8])
fragment(good, 200, 8, False, datagram[8:])
allowed = whole(good, 5000)
for first, second in (allowed, datagram), (datagram, allowed):
    fragment(good, 201, 0, True, first[:24])
    fragment(good, 201, 0, True, second[:24])
    fragment(good, 201, 24, False, second[24:])
    fragment(good, 202, 8, False, first[8:])
    fragment(good, 202, 0, True, first[:16])
    fragment(good, 202, 0, True, second[:8])
# A SYN whose flags are in the second fragment, and one in pieces of 8 bytes.
syn = tcp(source, evil, 4001, 443, 2)
fragment(evil, 300, 0, True, syn[:8], 6)
fragment(evil, 300, 8, False, syn[8:], 6)
fragment(evil, 301, 16, False, syn[16:], 6)
fragment(evil, 301, 8, True, syn[8:16], 6)
fragment(evil, 301, 0, True, syn[:8], 6)
echo = icmp(8, 0, bytes(4) + b'payload that is to leave')
fragment(evil, 400, 0, True, echo[:8], 1)
fragment(evil, 400, 8, False, echo[8:], 1)
# IPv6: chains of headers in front of a datagram, and fragments.
source, evil = a6('fd00::1234'), a6('2001:db8:2::67')
datagram = udp(source, evil, 4000, 5000)
options = lambda following: bytes([following, 0, 1, 4, 0, 0, 0, 0])
routing = lambda following: bytes([following, 2, 0, 1, 0, 0, 0, 0]) + a6('2001:db8:2::66')
pieces = lambda following, offset, more: struct.pack('!BBHI', following, 0, offset | more, 7)
send(ipv6(source, evil, 0, options(17) + datagram))
send(ipv6(source, evil, 60, options(17) + datagram))
send(ipv6(source, evil, 0, options(60) + options(43) + routing(17) + datagram))
send(ipv6(source, evil, 44, pieces(17, 0, 0) + datagram))
send(ipv6(source, evil, 44, pieces(17, 0, 1) + datagram[:8]))
send(ipv6(source, evil, 44, pieces(17, 8, 0) + datagram[8:]))
send(ipv6(source, a6('2001:db8:2::66'), 43, routing(17)[:8] + evil + datagram))
syn = tcp(source, evil, 4001, 443, 2)
send(ipv6(source, evil, 60, options(6) + syn))
send(ipv6(source, evil, 44, pieces(6, 0, 0) + syn))
# Other transports.
for protocol in 2, 4, 41, 47, 50, 132, 136:
    send(ipv6(source, evil, protocol, datagram))
    send(ipv4(a('10.0.2.100'), a('203.0.113.67'), protocol, datagram))",
    );
    scene.settle();
    let open: [SocketAddr; 2] =
        ["203.0.113.66:5000".parse().unwrap(), "[2001:db8:2::66]:5000".parse().unwrap()];
    scene.assert_only(&open.map(|to| to.ip()));
    for packet in scene.outside.arrived() {
        let is_open = packet.to.port() == 9 || packet.to.port() == 53 || open.contains(&packet.to);
        assert!(is_open, "{packet:?}");
    }
}

#[test]
fn tuples_that_are_used_again_are_judged_again() {
    let scene = Scene::new(needs!(World::root()), "allow index.example\nallow udp:203.0.113.66:9");
    let to = SocketAddr::new(INDEX, 443);
    // Refused, looked up, and opened, always from one port; then the wrong name on the same tuple.
    let failure = connect_from(&scene.guest, 7000, to).unwrap_err();
    assert_eq!(failure.errno, Errno::EHOSTUNREACH);
    assert_ne!(scene.lookup("index.example", "A"), Found::NoSuchName);
    for name in ["index.example", "evil.example", "index.example"] {
        let mut stream = connect_from(&scene.guest, 7000, to).unwrap();
        std::io::Write::write_all(&mut stream, &hello(name)).unwrap();
        let answer = answer(&mut stream);
        assert_eq!(is_seen(&answer), name == "index.example", "{}", answer.escape_ascii());
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        scene.guest.wait_for_free_port(7000);
    }
    let arrived = scene.arrived_bytes(to);
    assert_eq!(arrived, hello("index.example").repeat(2));
    // Segments on a tuple that was denied, as if it had been accepted.
    send_frames(
        &scene.online,
        "
source, destination = a('10.0.2.100'), a('203.0.113.66')
for flags in 2, 2, 0x10, 0x18, 0x11, 4, 2, 0x12, 0:
    for port in 443, 22, 80:
        segment = tcp(source, destination, 7001, port, flags, sequence=77, acknowledged=88)
        send(ipv4(source, destination, 6, segment))
        segment = transport(source, destination, 6, segment[:16] + bytes(4) + b'payload', 16)
        send(ipv4(source, destination, 6, segment))",
    );
    scene.assert_only(&[INDEX]);
}

#[test]
fn datagrams_in_odd_frames_are_judged_as_well() {
    let scene = Scene::new(needs!(World::root()), "allow udp:203.0.113.66:5000");
    send_frames(
        &scene.online,
        "
source, evil, good = a('10.0.2.100'), a('203.0.113.67'), a('203.0.113.66')
# No checksum at all, and a wrong one.
bare = struct.pack('!HHHH', 4000, 5000, 12, 0) + b'bare'
send(ipv4(source, evil, 17, bare))
send(ipv4(source, evil, 17, bare[:6] + b'xx' + bare[8:]))
send(ipv4(source, good, 17, bare))
# Several datagrams in one frame (UDP_L4 is 5), to a denied remote and a denied port.
for destination, port in (evil, 5000), (good, 5001):
    text = b'datagram' * 100
    body = struct.pack('!HHHH', 4000, port, 8 + len(text), 0) + text
    header = struct.pack('<BBHHHHH', 1, 5, 42, 80, 34, 6, 0)
    send(ipv4(source, destination, 17, body), header[:10])
# A segment of many for a connection that nobody has opened.
text = b'segment!' * 400
body = struct.pack('!HHIIBBHHH', 4001, 443, 5, 6, 0x50, 0x18, 9999, 0, 0) + text
send(ipv4(source, evil, 6, body), struct.pack('<BBHHHHH', 1, 1, 54, 1000, 34, 16, 0)[:10])
# Echo requests with data, by other sources of the guest's own network and from nowhere.
for address in '10.0.2.100', '10.0.2.77', '172.30.1.1', '0.0.0.0', '127.0.0.1', '203.0.113.66':
    send(ipv4(a(address), evil, 1, icmp(8, 0, bytes(4) + b'payload that is to leave')))
    send(ipv4(a(address), evil, 17, udp(a(address), evil, 4000, 5000)))
# Source routes by way of the allowed remote, loose and strict, in front of a datagram.
for kind in 131, 137:
    body = udp(source, good, 4000, 5001)
    route = bytes([kind, 7, 4]) + evil + b'\\0'
    header = struct.pack('!BBHHHBBH', 0x47, 0, 28 + len(body), 1, 0, 64, 17, 0)
    send(ethernet + filled(header + source + good + route, 10) + body)
# Behind tags of VLANs, and in a tunnel.
inner = ipv4(source, evil, 17, udp(source, evil, 4000, 5000))
send(inner[:12] + bytes.fromhex('8100 0001') + inner[12:])
send(inner[:12] + bytes.fromhex('88a8 0001 8100 0002') + inner[12:])
send(inner[:12] + bytes.fromhex('8864 1100 0001') + struct.pack('!HH', len(inner) - 12, 0x21)
    + inner[14:])
send(ipv4(source, good, 4, inner[14:]))
# Other messages than echo requests, and errors about packets that nobody has sent.
about = ipv4(evil, source, 17, udp(evil, source, 5000, 4000))[14:]
for kind in 0, 3, 4, 5, 11, 12, 13, 15, 17:
    send(ipv4(source, evil, 1, icmp(kind, 0, bytes(4) + about)))",
    );
    scene.assert_only(&[NOBODY]);
    let allowed = scene.outside.datagrams((NOBODY, 5000).into());
    assert_eq!(allowed, [b"bare".to_vec()]);
}

#[test]
fn audit_mode_lets_pass_all_but_protected_sets() {
    let scene = Scene::new(needs!(World::root()), "allow index.example\nset mode audit");
    let listener = scene.host.enter(|| TcpListener::bind("127.0.0.1:8000")).unwrap();
    listener.set_nonblocking(true).unwrap();
    scene.dns.set_address("evil.example", "203.0.113.66");
    assert_eq!(scene.lookup("evil.example", "A"), Found::Addresses(vec![NOBODY]));
    assert_eq!(scene.exchange((NOBODY, 443).into(), &[&hello("evil.example")]), SEEN);
    assert_eq!(scene.exchange((NOBODY, 443).into(), &[b"SSH-2.0-x\r\n"]), SEEN);
    assert_eq!(scene.exchange((INDEX, 22).into(), &[b"never looked up"]), SEEN);
    scene.udp((NOBODY, 4433).into()).send(b"datagram").unwrap();
    scene.settle();
    assert_eq!(scene.outside.datagrams((NOBODY, 4433).into()), [b"datagram".to_vec()]);
    for closed in ["169.254.169.254:80", "100.100.100.200:80", "10.0.2.2:8000"] {
        assert_eq!(scene.refused(closed.parse().unwrap()), Errno::EHOSTUNREACH, "{closed}");
    }
    // What was learnt must hold later: no keys that hide names.
    assert_eq!(scene.lookup("evil.example", "HTTPS"), Found::NoData);
    assert!(listener.accept().is_err(), "the host's loopback was reached");
    scene.assert_only(&[NOBODY, INDEX]);
}

#[test]
fn published_port_takes_the_clients_that_an_in_rule_allows() {
    let world = needs!(World::root());
    let policy = "allow in 198.51.100.2:8080";
    let scene = Scene::with(world, policy, &["--publish=8080:80", "--publish=8081:80"], &[]);
    let server = TcpServer::start(&scene.guest, "0.0.0.0:80".parse().unwrap(), |mut stream| {
        let _ = std::io::Write::write_all(&mut stream, SEEN);
    });
    let visit = |from: IpAddr, port: u16| {
        let mut answer = Vec::new();
        scene.remote.enter(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
            let connected = socket.connect_timeout(&SocketAddr::new(HOST, port).into(), AT_ONCE);
            if connected.is_ok() {
                let mut stream = bounded(socket.into());
                // Refused: the end, or a reset.
                let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
            }
        });
        answer
    };
    assert_eq!(visit(REMOTE, 8080), SEEN, "{}", server.address());
    assert_eq!(visit(REMOTE_2, 8080), b"", "another client");
    assert_eq!(visit(REMOTE, 8081), b"", "another port");
    // Who may come in may be answered; nothing else goes out.
    assert_eq!(scene.refused((REMOTE, 8080).into()), Errno::EHOSTUNREACH);
}
