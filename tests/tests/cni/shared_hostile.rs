//! A hostile member of a shared network: addresses that it claims, packets that it sends, and the
//! effect on other members.
//!
//! It is root in a container of its own and sends whatever frames it likes through a packet socket.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use slirp_tests::*;

/// The network of a test: a victim, the victim's peer, and the attacker.
struct Scene<'w> {
    world: &'w World,
    victim: Container<'w>,
    peer: Container<'w>,
    attacker: Container<'w>,
}

impl<'w> Scene<'w> {
    fn new(world: &'w World) -> Self {
        let config = json!({ "enableIPv6": true });
        let join = |id: &str| Container::join(world, id, &config).unwrap();
        Self { world, victim: join("victim"), peer: join("peer"), attacker: join("attacker") }
    }

    /// What was counted under a name so far.
    fn counter(&self, name: &str) -> u64 {
        let folder = self.world.folder().join("state");
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let path = entries.map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "api"));
        let reply = Api::at(&path.unwrap()).ask("{\"execute\":\"info\"}");
        let reply: Value = serde_json::from_str(&reply).unwrap();
        find(&reply, name).unwrap_or_default()
    }

    /// A Python program of the attacker: `send(frame, header)`, where `header` is a virtio-net
    /// header or nothing, and the addresses of all by name.
    fn program(&self, body: &str) -> String {
        let of = |name: &str, container: &Container<'_>| {
            format!(
                "{name}_mac = bytes.fromhex('{}'); {name} = socket.inet_aton('{}')
{name}6 = socket.inet_pton(socket.AF_INET6, '{}')
",
                container.mac().replace(':', ""),
                container.address(),
                container.address6(),
            )
        };
        format!(
            "import errno, random, socket, struct, sys, time
rng = random.Random(20240608)
plain = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
plain.bind(('eth0', 0))
vnet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
vnet.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
vnet.bind(('eth0', 0))
def send(frame, header=b''):
    try:
        (vnet if header else plain).send(header + frame)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENETDOWN):
            sys.exit(str(error))
def checksum(data):
    data += b'\\0' * (len(data) % 2)
    total = sum(struct.unpack(f'!{{len(data) // 2}}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def arp(kind, sender_mac, sender, target, to, source=None):
    return (to + (source or sender_mac) + b'\\x08\\x06\\0\\1\\x08\\0\\6\\4'
        + struct.pack('!H', kind)
        + sender_mac + sender + b'\\0' * 6 + target)
def udp(source_mac, to_mac, source, to, ports, payload):
    datagram = struct.pack('!HHHH', *ports, 8 + len(payload), 0) + payload
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, source, to)
    head = head[:10] + struct.pack('!H', checksum(head)) + head[12:]
    return to_mac + source_mac + b'\\x08\\0' + head + datagram
def advertisement(mac, target, source):
    icmp = bytes([136, 0, 0, 0, 0x20, 0, 0, 0]) + target + bytes([2, 1]) + mac
    group = socket.inet_pton(socket.AF_INET6, 'ff02::1')
    sum_of = checksum(source + group + struct.pack('!II', len(icmp), 58) + icmp)
    icmp = icmp[:2] + struct.pack('!H', sum_of) + icmp[4:]
    return (bytes.fromhex('333300000001') + mac + b'\\x86\\xdd'
        + struct.pack('!IHBB', 6 << 28, len(icmp), 58, 255) + source + group + icmp)
gateway, dns = socket.inet_aton('10.0.2.2'), socket.inet_aton('10.0.2.3')
gateway_mac, dns_mac = bytes.fromhex('52550a000202'), bytes.fromhex('52550a000203')
gateway6 = socket.inet_pton(socket.AF_INET6, 'fd00::2')
everybody = b'\\xff' * 6
{}{}{}
{body}
",
            of("victim", &self.victim),
            of("peer", &self.peer),
            of("own", &self.attacker),
        )
    }

    fn attack(&self, body: &str) {
        let program = self.program(body);
        let output = self.attacker.namespace.exec(&["/usr/bin/python3", "-c", &program]);
        assert!(output.status.success(), "{}", output.stderr);
    }

    /// Victim, peer and remotes talk as if nothing was.
    fn assert_unharmed(&self) {
        let near = TcpServer::echo(&self.peer.namespace, self.peer.at(0));
        let far = TcpServer::echo(&self.world.remote, (FAR, 0).into());
        for to in [near.address(), far.address()] {
            let stream = connect(&self.victim.namespace, to).expect("the victim is not cut off");
            send_exact(&stream, 2, 1 << 16).unwrap();
            receive_exact(&stream, 2, 1 << 16).unwrap();
        }
    }
}

fn find(value: &Value, name: &str) -> Option<u64> {
    match value {
        Value::Object(object) => object
            .iter()
            .find_map(|(key, value)| if key == name { value.as_u64() } else { find(value, name) }),
        Value::Array(list) => list.iter().find_map(|value| find(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[test]
fn claims_to_be_somebody_else_change_nothing() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    scene.assert_unharmed();
    scene.attack(
        "
for _ in range(15):  # 810 frames are less than the device's queue holds, so that each is counted
    for claimed in (victim, peer, gateway, dns):
        for to in (everybody, victim_mac, peer_mac):
            send(arp(1, own_mac, claimed, claimed, to))
            send(arp(2, own_mac, claimed, victim, to))
            send(arp(2, own_mac, claimed, peer, to))
    for mac in (victim_mac, peer_mac, gateway_mac, dns_mac):
        send(arp(1, mac, own, own, everybody))
        send(arp(1, mac, own, own, everybody, own_mac))
        send(udp(mac, gateway_mac, own, gateway, (1, 9), b'x'))
    for claimed in (victim6, peer6, gateway6):
        send(advertisement(own_mac, claimed, claimed))
        send(advertisement(own_mac, claimed, own6))
",
    );
    // Each of them is seen and counted.
    wait_until(PATIENCE, "the claims to be counted", || {
        scene.counter("member_address_foreign") >= 15 * 4 * 9
            && scene.counter("member_mac_foreign") >= 15 * 4 * 3
    });
    let neighbors = scene.victim.namespace.script("ip neigh show dev eth0");
    assert!(!neighbors.contains(scene.attacker.mac()), "{neighbors}");
    assert!(neighbors.contains("10.0.2.2 lladdr 52:55:0a:00:02:02"), "{neighbors}");
    let of_peer = format!("{} lladdr {}", scene.peer.address(), scene.peer.mac());
    assert!(neighbors.contains(&of_peer), "{neighbors}");
    scene.assert_unharmed();
}

#[test]
fn nobody_speaks_to_remotes_in_the_name_of_another() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    let strangers = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&strangers);
    let remote = UdpServer::start(&world.remote, (FAR, 0).into(), move |socket, datagram, from| {
        if datagram == b"forged" {
            heard.fetch_add(1, Ordering::Relaxed);
        }
        let _ = socket.send_to(datagram, from);
    });
    let victim = &scene.victim;
    let socket = victim.namespace.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5000))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let exchange = |text: &[u8]| {
        socket.send_to(text, remote.address()).unwrap();
        let mut buffer = [0; 64];
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], text);
    };
    exchange(b"before");
    let port = remote.address().port();
    scene.attack(&format!(
        "
remote = socket.inet_aton('{FAR}')
for _ in range(50):
    send(udp(own_mac, gateway_mac, victim, remote, (5000, {port}), b'forged'))
    send(udp(victim_mac, gateway_mac, victim, remote, (5000, {port}), b'forged'))
"
    ));
    wait_until(PATIENCE, "the forgeries to be counted", || {
        scene.counter("member_address_foreign") >= 50
    });
    // Replies still go to the owner of the flow.
    exchange(b"after");
    assert_eq!(strangers.load(Ordering::Relaxed), 0);
}

#[test]
fn conversations_of_others_are_not_overheard() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    scene.assert_unharmed();
    let received = || -> u64 {
        // Its own namespace's counters, whoever mounted /sys.
        let text = scene.attacker.namespace.script("cat /proc/net/dev");
        let line = text.lines().find(|line| line.trim_start().starts_with("eth0:"));
        let bytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        bytes.unwrap_or_else(|| panic!("{text}"))
    };
    let before = received();
    let near = TcpServer::echo(&scene.peer.namespace, scene.peer.at(0));
    let stream = connect(&scene.victim.namespace, near.address()).unwrap();
    for _ in 0..16 {
        send_exact(&stream, 2, 1 << 16).unwrap();
        receive_exact(&stream, 2, 1 << 16).unwrap();
    }
    let heard = received() - before;
    assert!(heard < 10_000, "{heard} bytes of 2 MiB between others");
}

#[test]
fn impossible_offload_headers_between_members_are_survived() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    scene.attack(
        "
for number in range(4000):
    length = rng.choice([20, 40, 60, 1480, 9000, 40000])
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + length, number & 0xffff, 0, 64,
        rng.choice([6, 6, 17]), 0, own, rng.choice([victim, peer]))
    ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
    tcp = struct.pack('!HHIIBBHHH', 2000 + number, 9, rng.getrandbits(32), rng.getrandbits(32),
        rng.choice([0x50, 0xf0, 0x00]), rng.choice([2, 16, 24, 41, 4]),
        65535, 0, rng.getrandbits(16))
    frame = rng.choice([victim_mac, peer_mac, everybody]) + own_mac + b'\\x08\\0' + ip
    frame += (tcp + bytes(length))[:length]
    header = struct.pack('<BBHHHH', rng.choice([0, 1, 1, 1, 2]), rng.choice([0, 1, 3, 4, 5, 0x81]),
        rng.choice([0, 34, 54, 66, len(frame), 65535]), rng.choice([0, 1, 8, 536, 1448, 65535]),
        rng.choice([0, 14, 34, 34, 34, len(frame) - 1, 65535]), rng.choice([0, 6, 16, 16, 65535]))
    send(frame, header)
",
    );
    wait_until(PATIENCE, "a header to be refused", || scene.counter("vnet_header_invalid") > 0);
    scene.assert_unharmed();
}

#[test]
fn flood_of_one_member_does_not_cut_the_others_off() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    let mut path = world.folder().to_owned();
    path.push("flooding");
    let program = scene.program(&format!(
        "
open('{}', 'w').close()
frames = [
    udp(own_mac, everybody, own, socket.inet_aton('10.0.2.255'), (1, 9), bytes(1400)),
    udp(own_mac, victim_mac, own, victim, (1, 9), bytes(1400)),
    udp(own_mac, gateway_mac, victim, gateway, (1, 9), bytes(1400)),
    arp(1, own_mac, peer, peer, everybody),
    bytes(60),
]
end = time.time() + 150
while time.time() < end:
    for frame in frames * 10:
        send(frame)
    if rng.random() < 0.2:
        mac = bytes([6]) + rng.randbytes(5)
        source = bytes([172, 16]) + rng.randbytes(2)
        send(udp(mac, gateway_mac, source, gateway, (1, 9), b'x'))
",
        path.display()
    ));
    let flood = scene.attacker.namespace.spawn(&["/usr/bin/python3", "-c", &program]);
    wait_until(PATIENCE, "the flood has begun", || path.exists());
    let started_at = Instant::now();
    for _ in 0..5 {
        scene.assert_unharmed();
    }
    assert!(started_at.elapsed() < PATIENCE, "the others are held up");
    assert!(ProcessFacts(flood.pid()).is_alive(), "it lasted all the time");
    drop(flood);
    let newcomer = Container::join(&world, "newcomer", &json!({ "enableIPv6": true })).unwrap();
    let near = TcpServer::echo(&newcomer.namespace, newcomer.at(0));
    connect(&scene.victim.namespace, near.address()).unwrap();
}

#[test]
fn networks_behind_a_member_use_its_own_part() {
    let world = needs!(World::ordinary());
    let asked = Arc::new(AtomicUsize::new(0));
    let asked_too = Arc::clone(&asked);
    // It never answers, so that queries stay in flight.
    let _resolver = UdpServer::start(&world.remote, (FAR, 53).into(), move |_, query, _| {
        asked_too.fetch_add(
            usize::from(query.ends_with(b"\x07example\0\0\x01\0\x01")),
            Ordering::Relaxed,
        );
    });
    world.write_resolv_conf(&format!("nameserver {FAR}\n"));
    let scene = Scene::new(&world);
    let questions = |who: &str, network: u8, count: usize| {
        format!(
            "
for number in range({count}):
    query = struct.pack('!HHHHHH', number, 0x100, 1, 0, 0, 0)
    query += b'\\x06{network:02}%04d\\x07example\\0\\0\\1\\0\\1' % number
    source = socket.inet_aton(f'172.{network}.0.{{number % 250 + 1}}')
    send(udp({who}_mac, dns_mac, source, dns, (4000, 53), query))
"
        )
    };
    scene.attack(&questions("own", 16, 600));
    wait_until(PATIENCE, "the attacker has its part", || {
        scene.counter("dns_queries_exhausted") > 0
    });
    let before = asked.load(Ordering::Relaxed);
    assert!(before < 512 / 2, "{before} queries of one member, of 512");
    let program = scene.program(&questions("victim", 17, 20));
    let output = scene.victim.namespace.exec(&["/usr/bin/python3", "-c", &program]);
    assert!(output.status.success(), "{}", output.stderr);
    wait_until(PATIENCE, "a network behind another member is served", || {
        asked.load(Ordering::Relaxed) >= before + 20
    });
}

#[test]
fn clients_of_one_member_do_not_push_out_those_of_another() {
    let world = needs!(World::ordinary());
    let join = |id: &str, port: u16| {
        let mapping = json!({ "hostPort": port, "containerPort": 80, "protocol": "udp" });
        Container::join(&world, id, &json!({ "portMappings": [mapping] })).unwrap()
    };
    let (victim, attacker) = (join("victim", 8081), join("attacker", 8082));
    let (at, other) = (victim.at(80), attacker.at(80));
    let service = victim.namespace.enter(|| UdpSocket::bind(at)).unwrap();
    service.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = world.remote.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 16];
    client.send_to(b"hello", (HOST, 8081)).unwrap();
    let (_, peer) = service.recv_from(&mut buffer).unwrap();
    service.send_to(b"first", peer).unwrap();
    client.recv_from(&mut buffer).unwrap();
    // An accomplice of the other member comes from all the ports that it has.
    let heard = attacker.namespace.enter(|| UdpSocket::bind(other)).unwrap();
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    world.remote.enter(|| {
        for port in 20_000..26_000 {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            socket.send_to(b"x", (HOST, 8082)).unwrap();
            heard.recv_from(&mut buffer).unwrap();
        }
    });
    service.send_to(b"second", peer).unwrap();
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (&b"second"[..], (HOST, 8081).into()));
}

#[test]
fn address_used_too_early_goes_to_its_assigned_member() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    // The next two free addresses.
    scene.attack(
        "
squatted6 = socket.inet_pton(socket.AF_INET6, 'fd00::103')
for last in (103, 104):
    squatted = socket.inet_aton(f'10.0.2.{last}')
    send(arp(1, own_mac, squatted, squatted, everybody))
send(advertisement(own_mac, squatted6, squatted6))
",
    );
    let newcomer = Container::join(&world, "newcomer", &json!({ "enableIPv6": true })).unwrap();
    assert_eq!(newcomer.address6().to_string(), "fd00::103");
    for address in [IpAddr::V4(newcomer.address()), IpAddr::V6(newcomer.address6())] {
        let near = TcpServer::echo(&newcomer.namespace, (address, 0).into());
        let stream = connect(&scene.victim.namespace, near.address()).unwrap();
        send_exact(&stream, 2, 1 << 16).unwrap();
        receive_exact(&stream, 2, 1 << 16).unwrap();
    }
}
