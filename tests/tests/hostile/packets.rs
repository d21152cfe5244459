//! Well-formed packets that no honest guest sends: they are forgotten, errors are told only as far
//! as the standards allow, and the network goes on.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::time::Duration;

use slirp_tests::*;

/// The process is as it was: it serves, it sleeps, and it has not grown.
fn assert_unimpressed(world: &World, slirp: &Slirp) {
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let mut stream = connect(&world.guest, server.address()).unwrap();
    stream.write_all(b"alive").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"alive");
    let facts = slirp.facts();
    wait_until(PATIENCE, "the process is idle", || {
        facts.cpu_time_during(Duration::from_secs(1)) < Duration::from_millis(50)
    });
    assert!(facts.resident_kib() < 40 * 1024, "{} KiB", facts.resident_kib());
}

#[test]
fn errors_are_never_answered_with_errors() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--enable-ipv6"]).start();
    let said = inject(
        &world,
        "
guest, far, gateway, nameserver = map(a, '10.0.2.100 203.0.113.10 10.0.2.2 10.0.2.3'.split())
guest6, far6, gateway6, router6 = map(a6, 'fd00::1234 2001:db8:2::10 fd00::2 fe80::2'.split())
for number in range(4000):
    quoted = ipv4(far, guest, 17, udp(far, guest, 9, 4000))[14:]
    error = icmp(rng.choice([3, 4, 5, 11, 12]), rng.randrange(16),
            rng.randbytes(4) + quoted[:rng.randrange(29)])
    source = rng.choice([guest, guest, gateway, nameserver,
            a('127.0.0.1'), a('255.255.255.255'), a('224.0.0.1')])
    # A TTL of 1 would end at the gateway.
    destination = rng.choice([far, gateway, nameserver,
            a('10.0.2.255'), a('255.255.255.255'), a('224.0.0.1')])
    send(ipv4(source, destination, 1, error, rng.choice([1, 64])))
    quoted = ipv6(far6, guest6, 17, udp(far6, guest6, 9, 4000))[14:]
    source = rng.choice([guest6, gateway6])
    destination = rng.choice([far6, gateway6, router6, a6('ff02::1')])
    error = icmp6(source, destination, rng.choice([1, 2, 3, 4]), 0,
            rng.randbytes(4) + quoted[:rng.randrange(49)])
    send(ipv6(source, destination, 58, error, rng.choice([1, 64])))
    # What would be answered with an error, from nobody in particular, is not.
    for nobody in '0.0.0.0', '255.255.255.255', '224.0.0.1', '127.0.0.1':
        send(ipv4(a(nobody), nameserver, 17, udp(a(nobody), nameserver, 4000, 99)))
    if number % 100 == 99:
        # The answer to this shows that everything before it has been seen.
        send(ipv4(guest, gateway, 1, icmp(8, 0, struct.pack('!HH', 7, number))))
        for frame in answers():
            if frame[12:14] == b'\\x08\\x00' and frame[23] == 1:
                if frame[34] == 0: break
                sys.exit('error %d/%d about %s' % (frame[34], frame[35], frame[42:].hex()))
            if frame[12:14] == b'\\x86\\xdd' and frame[20] == 58 and frame[54] < 128:
                sys.exit('error %d/%d about %s' % (frame[54], frame[55], frame[62:].hex()))
print('no errors')
",
    );
    assert_eq!(said, "no errors");
    assert_unimpressed(&world, &slirp);
}

#[test]
fn sources_that_cannot_be_are_survived() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    inject(
        &world,
        "
sources = ('10.0.2.2 10.0.2.3 203.0.113.10 0.0.0.0 255.255.255.255 127.0.0.1 224.0.0.1 '
    '10.0.2.0 10.0.2.255 240.0.0.1')
places = ('10.0.2.2 10.0.2.3 203.0.113.10 10.0.2.100 10.0.2.255 255.255.255.255 '
    '224.0.0.251 127.0.0.1 0.0.0.0')
for number in range(20000):
    source, destination = a(rng.choice(sources.split())), a(rng.choice(places.split()))
    # Often from the place itself to itself.
    source = rng.choice([source, destination])
    source_port = rng.randrange(200)
    port = rng.choice([0, 53, 67, 68, 69, 9, source_port])
    text = bytes(rng.choice([0, 20, 1400]))
    send(ipv4(source, destination, 17, udp(source, destination, source_port, port, text)))
    flags = rng.choice([2, 2, 4, 18, 63])
    send(ipv4(source, destination, 6, tcp(source, destination, source_port, port, flags)))
    send(ipv4(source, destination, 1, icmp(8, 0, bytes(rng.choice([4, 20])))))
",
    );
    assert_unimpressed(&world, &slirp);
}

#[test]
fn chains_of_extension_headers_are_survived() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--enable-ipv6"]).start();
    inject(
        &world,
        "
places = 'fd00::2 fd00::3 fe80::2 2001:db8:2::10 ff02::1 ff02::2 ff02::16 ff02::1:2 ::1 ::'
for number in range(20000):
    kinds = [rng.choice([0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 253])
            for _ in range(rng.randrange(1, 40))]
    headers = b''
    for at, kind in enumerate(kinds):
        next_kind = kinds[at + 1] if at + 1 < len(kinds) else rng.choice([6, 17, 58, 59])
        blocks = rng.choice([0, 0, 0, 1, 2, 255])
        if kind == 44:
            headers += struct.pack('!BBHI', next_kind, 0, rng.choice([0, 1, 8, 9, 0xfff8]), number)
        else:
            rest = 6 + 8 * (blocks if blocks < 255 else 0)
            headers += bytes([next_kind, blocks]) + rng.randbytes(rest)
    destination = a6(rng.choice(places.split()))
    body = headers + bytes(rng.randrange(60))
    frame = bytearray(ipv6(a6('fd00::1234'), destination, kinds[0], body))
    if rng.random() < 0.2: frame[18:20] = rng.choice([b'\\0\\0', b'\\xff\\xff', b'\\0\\x08'])
    send(bytes(frame))
",
    );
    assert_unimpressed(&world, &slirp);
}

#[test]
fn thousands_of_neighbours_and_leases_are_survived() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--enable-ipv6"]).start();
    inject(
        &world,
        "
gateway, all_nodes = a('10.0.2.2'), a6('ff02::1')
for number in range(20000):
    hardware = rng.randbytes(6)
    address = rng.choice([rng.randbytes(4), bytes([10, 0, 2, rng.randrange(256)])])
    # Requests, replies, announcements, and what is cut or of another kind.
    target = rng.choice([gateway, address, a('10.0.2.3')])
    arp = struct.pack('!HHBBH', rng.choice([1, 1, 1, 7]), 0x800,
            rng.choice([6, 6, 6, 255]), 4, rng.choice([1, 1, 2, 3]))
    arp += hardware + address + bytes(6) + target
    send(b'\\xff' * 6 + hardware + b'\\x08\\x06' + arp[:rng.choice([28, 28, 28, 27, 8, 0])])
    address6 = a6('fd00::')[:8] + rng.randbytes(8)
    body = bytes([0x60, 0, 0, 0]) + rng.choice([address6, a6('fd00::2')]) + b'\\x02\\x01' + hardware
    kind = rng.choice([133, 134, 135, 136, 137])
    source = rng.choice([address6, a6('fe80::9'), a6('::')])
    send(ipv6(source, all_nodes, 58, icmp6(source, all_nodes, kind, 0, body), 255))
    # DHCP of as many clients, some of it garbage behind the cookie.
    nobody, everybody = a('0.0.0.0'), a('255.255.255.255')
    message = bytes([1, 1, 6, 0]) + bytes(24) + hardware + bytes(202) + bytes([99, 130, 83, 99])
    message += bytes([53, 1, rng.choice([1, 3, 4, 7, 8])])
    message += rng.randbytes(rng.choice([0, 1, 2, 60]))
    message = message[:rng.choice([400, 400, 241, 239, 0])]
    send(ipv4(nobody, everybody, 17, udp(nobody, everybody, 68, 67, message)))
",
    );
    assert_unimpressed(&world, &slirp);
}
