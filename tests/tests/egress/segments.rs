//! Segments that no kernel would send: out of order, twice with other bytes, past the window.

use std::net::SocketAddr;

use slirp_tests::*;

use crate::hello::*;
use crate::scene::*;

/// A client of TCP that sends pieces of its stream in any order: `talk(port, pieces)` opens a
/// connection to the allowed name's address, sends each `(offset, bytes)`, and returns what the
/// other side has sent until it ended, reset, or fell silent.
const CLIENT: &str = "
source, destination = a('10.0.2.100'), a('203.0.113.7')
def segment(local, flags, sequence, acknowledged, data=b''):
    header = struct.pack('!HHIIBBHHH', local, remote,
            sequence & 0xffffffff, acknowledged & 0xffffffff, 0x50, flags, 60000, 0, 0)
    send(ipv4(source, destination, 6, transport(source, destination, 6, header + data, 16)))
def segments(local, limit):
    try:
        for frame in answers(limit):
            packet = frame[14:]
            if frame[12:14] == b'\\x08\\x00' and packet[9] == 6 and packet[12:16] == destination:
                end = struct.unpack('!H', packet[2:4])[0]
                body = packet[20:end]
                if struct.unpack('!H', body[2:4])[0] == local:
                    sequence, acknowledged = struct.unpack('!II', body[4:12])
                    yield body[13], sequence, acknowledged, body[(body[12] >> 4) * 4:]
    except socket.timeout:
        return
def talk(local, pieces, pause=0.02):
    segment(local, 2, 1000, 0)
    for flags, sequence, acknowledged, _ in segments(local, 20):
        if flags & 0x12 == 0x12:
            break
    theirs = sequence + 1
    segment(local, 0x10, 1001, theirs)
    for offset, data in pieces:
        segment(local, 0x18, 1001 + offset, theirs, data)
        time.sleep(pause)
    said = b''
    for flags, sequence, _, data in segments(local, 1):
        if sequence == theirs and data:
            said, theirs = said + data, theirs + len(data)
            segment(local, 0x10, 1001 + pieces[-1][0] + len(pieces[-1][1]), theirs)
        if flags & 5 or said.endswith(b'SEEN\\n'):
            break
    segment(local, 4, 1001 + max(offset + len(data) for offset, data in pieces), theirs)
    return said
";

fn python_bytes(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("bytes.fromhex('{digits}')")
}

#[test]
fn bytes_that_were_looked_at_are_those_that_leave() {
    let scene = Scene::new(needs!(World::root()), "allow index.example");
    assert_eq!(scene.lookup("index.example", "A"), Found::Addresses(vec![INDEX]));
    // The kernel knows nothing of these connections, and would reset them.
    scene.guest.script(
        "nft add table ip quiet
         nft 'add chain ip quiet out { type filter hook output priority 0; }'
         nft add rule ip quiet out tcp flags \\& rst == rst drop",
    );
    let good = hello("index.example");
    let evil = hello("evil1.example");
    assert_eq!(good.len(), evil.len(), "one may stand in for the other");
    let program = format!(
        "{CLIENT}
remote = 443
good, evil = {}, {}
half = len(good) // 2
print('a', talk(40001, [(half, good[half:]), (0, good[:half])]))
print('b', talk(40002, [(0, good[:half]), (0, evil), (half, evil[half:])]))
print('c', talk(40003, [(half, evil[half:]), (0, good)]))
print('d', talk(40004, [(1, evil[1:]), (0, good)]))
print('e', talk(40005, [(0, good), (0, evil), (1, evil[1:]), (len(good) - 1, b'!')]))
print('f', talk(40006, [(0, evil[:half]), (0, good[:half]), (half, evil[half:])]))
print('g', talk(40007, [(70000, evil), (0, evil), (-5, b'x' * 5 + evil)]))
for end in range(1, len(good), 40):
    talk(41000 + end, [(0, good[:end]), (0, good[:end]), (end, evil[end:])], pause=0)",
        python_bytes(&good),
        python_bytes(&evil)
    );
    let said = send_frames(&scene.online, &program);
    assert!(said.contains("a b'SEEN"), "{said}");
    assert!(!said.contains("g b'SEEN"), "{said}");
    let to: SocketAddr = (INDEX, 443).into();
    scene.settle();
    // Each connection brought the good hello, whole, or nothing.
    let mut ports: Vec<_> =
        scene.outside.arrived_at(INDEX).into_iter().map(|packet| packet.from).collect();
    ports.sort_unstable();
    ports.dedup();
    for from in ports {
        let of_one = scene.outside.arrived_at(INDEX).into_iter().filter(|p| p.from == from);
        let bytes: Vec<u8> = of_one.flat_map(|packet| packet.payload).collect();
        let is_known = bytes.is_empty() || bytes.starts_with(&good);
        assert!(is_known, "{said}{from} > {to}: {}", bytes.escape_ascii());
        let is_evil = bytes.windows(5).any(|window| window == b"evil1");
        assert!(!is_evil, "{said}{from} > {to}: {}", bytes.escape_ascii());
    }
}
