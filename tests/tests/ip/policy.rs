//! `--disable-host-loopback`: every spelling and every protocol is closed; other addresses stay
//! open.

use std::net::{TcpListener, UdpSocket};

use slirp_tests::*;

/// The port of the services on the host's loopback that must stay unreachable.
const PORT: u16 = 7777;

/// Sends one packet of each protocol to each spelling of the host's loopback from a raw socket,
/// since the guest's kernel would not, and prints what the guest is told about each.
const PROBE: &str = "
import socket, struct, time
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
tap.bind(('tap0', 0))
tap.settimeout(0.1)
mac = tap.getsockname()[4]
def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ((total & 0xffff) + (total >> 16)) ^ 0xffff
def filled(data, at, pseudo=b''):
    return data[:at] + struct.pack('!H', checksum(pseudo + data)) + data[at + 2:]
def transport(protocol, source, destination):
    pseudo = lambda number, body: source + destination + struct.pack('!HH', number, len(body))
    if protocol == 'tcp':
        body = struct.pack('!HHIIBBHHH', 40000, PORT, 1, 0, 0x50, 2, 65535, 0, 0)
        return 6, filled(body, 16, pseudo(6, body))
    if protocol == 'udp':
        body = struct.pack('!HHHH', 40000, PORT, 12, 0) + b'ping'
        return 17, filled(body, 6, pseudo(17, body))
    if len(source) == 4:
        return 1, filled(struct.pack('!BBHHH', 8, 0, 0, 7, 1) + b'echo', 2)
    body = struct.pack('!BBHHH', 128, 0, 0, 7, 1) + b'echo'
    return 58, filled(body, 2, pseudo(58, body))
def packet(protocol, text):
    if ':' in text:
        source = socket.inet_pton(socket.AF_INET6, 'fd00::1234')
        destination = socket.inet_pton(socket.AF_INET6, text)
        number, body = transport(protocol, source, destination)
        header = struct.pack('!IHBB', 0x60000000, len(body), number, 64) + source + destination
        return b'\\x86\\xdd', header + body
    source, destination = socket.inet_aton('10.0.2.100'), socket.inet_aton(text)
    number, body = transport(protocol, source, destination)
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), 1, 0, 64, number, 0)
    return b'\\x08\\x00', filled(header + source + destination, 10) + body
def told(sent):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            frame = tap.recv(65536)
        except socket.timeout:
            continue
        if frame[:6] != mac:
            continue
        is_echo = b'echo' in sent and frame.endswith(b'echo')
        if is_echo and frame[34 if sent[0] < 96 else 54] in (0, 129):
            return 'answered'
        if frame[12:14] == b'\\x08\\x00' and frame[23] == 1 and frame[42:][12:20] == sent[12:20]:
            return '%d/%d' % (frame[34], frame[35])
        if frame[12:14] == b'\\x86\\xdd' and frame[20] == 58 and frame[62:][8:40] == sent[8:40]:
            return '%d/%d' % (frame[54], frame[55])
    return 'silence'
for text in SPELLINGS.split():
    for protocol in 'tcp', 'udp', 'icmp':
        ethertype, sent = packet(protocol, text)
        tap.send(bytes.fromhex('52550a000202') + mac + ethertype + sent)
        print(protocol, text, told(sent))
";

fn probe(world: &World, spellings: &str) -> Vec<String> {
    probe_within(world, spellings, 5)
}

fn probe_within(world: &World, spellings: &str, seconds: u32) -> Vec<String> {
    let program = PROBE
        .replace("PORT", &PORT.to_string())
        .replace("PATIENCE", &seconds.to_string())
        .replace("SPELLINGS", &format!("'{spellings}'"));
    let output = world.guest.exec(&["python3", "-c", &program]);
    assert!(output.status.success(), "{}", output.stderr);
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn every_spelling_of_host_loopback_is_unreachable_for_every_protocol() {
    let world = needs!(World::root());
    world.let_root_ping();
    let listeners = world
        .host
        .enter(|| ["127.0.0.1", "[::1]"].map(|at| TcpListener::bind(format!("{at}:{PORT}"))));
    let sockets = world
        .host
        .enter(|| ["127.0.0.1", "[::1]"].map(|at| UdpSocket::bind(format!("{at}:{PORT}"))));
    let world = world.online(&["-6", "--disable-host-loopback"]);
    let v4 = "127.0.0.1 127.1.2.3 127.255.255.255 0.0.0.0 0.1.2.3";
    for line in probe(&world, v4) {
        assert!(line.ends_with(" 3/0"), "{line}");
    }
    let v6 = "::1 :: ::ffff:127.0.0.1 ::ffff:0.0.0.0 fd00::99";
    for line in probe(&world, v6) {
        assert!(line.ends_with(" 1/0"), "{line}");
    }
    // The gateway stands for the host's loopback; as a router it answers pings nevertheless.
    for (address, refused) in [("10.0.2.2", "3/0"), ("fd00::2", "1/0")] {
        let expected = [
            format!("tcp {address} {refused}"),
            format!("udp {address} {refused}"),
            format!("icmp {address} answered"),
        ];
        assert_eq!(probe(&world, address), expected);
    }
    // Broadcasts, groups, and addresses with one of loopback inside: the answers differ and are not
    // waited for. An answer to the probe behind them shows that they have been handled.
    probe_within(&world, "255.255.255.255 127.0.0.0 224.0.0.1 10.0.2.255 10.0.2.0 10.0.2.100", 0);
    let embedded = "ff01::1 ff02::1 fe80::1 fe80::2 ::127.0.0.1 ::ffff:0:127.0.0.1 \
        64:ff9b::127.0.0.1 2002:7f00:1::1";
    probe_within(&world, embedded, 0);
    assert_eq!(probe(&world, "127.0.0.1").len(), 3);
    for listener in listeners {
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "{listener:?} was reached");
    }
    for socket in sockets {
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 16]).is_err(), "{socket:?} was reached");
    }
}
