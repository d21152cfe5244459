//! Packets that no kernel socket would send: raw IPv4 with a header of our own, and whole frames.

use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;
use crate::world::World;

/// `IPPROTO_RAW`: the caller brings the IPv4 header.
const IPPROTO_RAW: i32 = 255;

/// What the programs of [`inject`] begin with.
const PRELUDE: &str = r"
import errno, random, socket, struct, sys, time
rng = random.Random(20240607)
plain = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
plain.bind(('tap0', 0))
vnet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
vnet.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
vnet.bind(('tap0', 0))
sent = 0
def send(frame, header=b''):
    global sent
    try:
        (vnet if header else plain).send(header + frame)
        sent += 1
    except OSError as error:
        # The kernel refuses the worst by itself; a tap that is gone is another matter.
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENETDOWN):
            sys.exit(f'after {sent} frames: {error}')
def answers(limit=50):
    plain.settimeout(limit)
    while True:
        frame = plain.recv(65536)
        if frame[6:8] in (b'\x52\x55', b'\x52\x56'):
            yield frame
ethernet = bytes.fromhex('52550a000202 020000000001 0800'.replace(' ', ''))
a, a6 = socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text)
def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ((total & 0xffff) + (total >> 16)) ^ 0xffff
def filled(data, at, pseudo=b''):
    return data[:at] + struct.pack('!H', checksum(pseudo + data)) + data[at + 2:]
def ipv4(source, destination, protocol, body, ttl=64):
    header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), 1, 0, ttl, protocol, 0)
    return ethernet + filled(header + source + destination, 10) + body
def ipv6(source, destination, protocol, body, hops=64):
    header = struct.pack('!IHBB', 0x60000000, len(body), protocol, hops)
    return ethernet[:12] + b'\x86\xdd' + header + source + destination + body
def transport(source, destination, protocol, body, at):
    return filled(body, at, source + destination + struct.pack('!HH', protocol, len(body)))
def udp(source, destination, source_port, port, text=b'hello'):
    header = struct.pack('!HHHH', source_port, port, 8 + len(text), 0)
    return transport(source, destination, 17, header + text, 6)
def tcp(source, destination, source_port, port, flags, sequence=1, acknowledged=0):
    header = struct.pack('!HHIIBBHHH',
            source_port, port, sequence, acknowledged, 0x50, flags, 9999, 0, 0)
    return transport(source, destination, 6, header, 16)
def icmp(kind, code, rest):
    return filled(struct.pack('!BBH', kind, code, 0) + rest, 2)
def icmp6(source, destination, kind, code, rest):
    return transport(source, destination, 58, struct.pack('!BBH', kind, code, 0) + rest, 2)
";

/// Injects frames through a packet socket on the guest's tap and hands back what the program
/// printed before it ended.
///
/// `body` is Python with `send(frame, header)`, where `header` is a virtio-net header or nothing,
/// the seeded generator `rng`, `answers()`, which are the frames that come from virtual addresses,
/// and functions that make packets.
///
/// # Panics
/// When it fails, or the kernel lets hardly any frame through.
pub fn inject(world: &World, body: &str) -> String {
    let said = send_frames(world, &format!("{body}\nprint(sent)"));
    let (said, sent) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    let sent: u32 = sent.parse().expect("the last line is a number");
    assert!(sent > 100, "only {sent} frames were taken");
    said.to_owned()
}

/// The same for a program that sends a few frames.
///
/// # Panics
/// When it fails.
pub fn send_frames(world: &World, body: &str) -> String {
    let program = format!("{PRELUDE}\n{body}\n");
    let output = world.guest.exec(&["/usr/bin/python3", "-c", &program]);
    assert!(output.status.success(), "{}", output.stderr);
    output.stdout
}

/// A raw socket in `namespace` whose packets start with their own IPv4 header.
///
/// # Panics
/// When the namespace refuses raw sockets to root.
pub fn raw_ipv4_socket(namespace: &Namespace) -> Socket {
    namespace
        .enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW))))
        .expect("root may open raw sockets")
}

/// A SYN with valid checksums; the kernel fills the IPv4 one.
pub fn syn_packet(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> [u8; 40] {
    let mut packet = [0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x02;
    packet[34..36].copy_from_slice(&64240_u16.to_be_bytes());
    let checksum = tcp_checksum(*from.ip(), *to.ip(), &packet[20..]);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 9293 section 3.1: ones' complement over pseudo header and segment.
fn tcp_checksum(from: Ipv4Addr, to: Ipv4Addr, segment: &[u8]) -> u16 {
    let len = u16::try_from(segment.len()).expect("segments are short");
    let mut pseudo = Vec::from(from.octets());
    pseudo.extend(to.octets());
    pseudo.extend([0, 6]);
    pseudo.extend(len.to_be_bytes());
    pseudo.extend(segment);
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("folded twice")
}
