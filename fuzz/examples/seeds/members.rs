//! Seeds of the target `members`.

use core::net::SocketAddr;

use slirp_fuzz::members::{ANSWERED, MemberOp, OWN_MAC, RIGHT_CHECKSUMS, SECOND, TO_GATEWAY};
use slirp_fuzz::packet::{
    ACK, FIN, PSH, RST, SYN, Tcp, VNET_LEN, echo, ethernet, ethernet_of, icmp, tcp, udp,
};

use crate::{Seed, address, end};

/// A frame as an honest member sends it to the gateway.
const HONEST: u8 = OWN_MAC | TO_GATEWAY | RIGHT_CHECKSUMS;

fn frame(flags: u8, ethernet: &[u8]) -> Vec<u8> {
    let len = u16::try_from(VNET_LEN + ethernet.len()).expect("seeds are small");
    let mut bytes = MemberOp::Frame.emit(flags, len).to_vec();
    bytes.extend_from_slice(&[0; VNET_LEN]);
    bytes.extend_from_slice(ethernet);
    bytes
}

fn packet(flags: u8, packet: &[u8]) -> Vec<u8> {
    frame(flags | HONEST, &ethernet(packet))
}

/// A frame that goes to the other member.
fn to_member(flags: u8, number: u8, packet: &[u8]) -> Vec<u8> {
    let mut ethernet = ethernet(packet);
    ethernet[..6].copy_from_slice(&[2, 0, 0, 0, 0, number]);
    frame(flags | OWN_MAC | RIGHT_CHECKSUMS, &ethernet)
}

fn op(op: MemberOp, flags: u8, b: u16) -> Vec<u8> {
    op.emit(flags, b).to_vec()
}

fn answer(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("seeds are small");
    let mut answer = op(MemberOp::Answer, ANSWERED, len);
    answer.extend_from_slice(bytes);
    answer
}

fn segment(from: &str, to: &str, (seq, ack): (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp(&Tcp {
        from: end(from),
        to: end(to),
        seq,
        ack,
        flags,
        window: 0xffff,
        urgent: 0,
        options: &[2, 4, 5, 180, 1, 3, 3, 7],
        payload,
    })
}

fn query(name: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(name);
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

fn arp(operation: u8, mac: u8, sender: u8, target: [u8; 4]) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, mac, 10, 0, 2, sender];
    arp.extend_from_slice(&[0; 6]);
    arp.extend_from_slice(&target);
    ethernet_of(0x0806, &arp)
}

pub(crate) fn seeds() -> Vec<Seed> {
    let (first, second) = ("10.0.2.101:40000", "10.0.2.102:40000");
    let web = "192.0.2.1:80";
    let open = |from: &str, to: &str| segment(from, to, (100, 0), SYN, b"");
    let mut seeds: Vec<Seed> = Vec::new();

    let streams = [
        packet(0, &open(first, web)),
        packet(SECOND, &open(second, web)),
        packet(0, &segment(first, web, (101, 1), ACK | PSH, b"GET / HTTP/1.0\r\n\r\n")),
        op(MemberOp::Host, 0, 0),
        packet(0, &segment(first, web, (119, 1), ACK | FIN, b"")),
        packet(SECOND, &segment(second, web, (101, 1), RST, b"")),
        op(MemberOp::List, 0, 0),
        op(MemberOp::Step, ANSWERED, 60),
    ];
    seeds.push(("streams", 0, streams.concat()));

    let many: Vec<Vec<u8>> = (0..30)
        .map(|port| {
            let from = SocketAddr::new(address("10.0.2.101"), 41_000 + port);
            packet(0, &open(&from.to_string(), web))
        })
        .chain([packet(SECOND, &open(second, web)), op(MemberOp::List, 0, 0)])
        .collect();
    seeds.push(("more_than_a_quarter", 0, many.concat()));

    let nested: Vec<Vec<u8>> =
        (0..30).map(|host| packet(0, &open(&format!("172.17.0.{}:5000", 2 + host), web))).collect();
    seeds.push(("networks_behind_a_member", 0, nested.concat()));

    let accepted: Vec<Vec<u8>> = (0..16)
        .map(|remote| op(MemberOp::Accept, 0, remote << 8 | 9))
        .chain([
            op(MemberOp::Accept, SECOND, 0x0101),
            packet(0, &segment("10.0.2.101:80", "192.0.2.0:1033", (1, 1), SYN | ACK, b"")),
            op(MemberOp::Leave, ANSWERED, 3),
            op(MemberOp::Leave, 0, 4),
            op(MemberOp::Step, ANSWERED, 30),
        ])
        .collect();
    seeds.push(("remotes_connect", 0, accepted.concat()));

    let forwarded: Vec<Vec<u8>> = (0..12)
        .map(|remote| op(MemberOp::Forwarded, 1, remote << 8 | 40))
        .chain([
            op(MemberOp::Forwarded, SECOND | ANSWERED | 2, 0xff20),
            packet(0, &udp(end("10.0.2.101:53"), end("192.0.2.0:1064"), b"answer")),
            op(MemberOp::Unforward, 1, 0),
            op(MemberOp::Rejoin, SECOND, 0),
        ])
        .collect();
    seeds.push(("remotes_send_datagrams", 0, forwarded.concat()));

    let dns = "10.0.2.3:53";
    let names = [
        packet(0, &udp(end(first), end(dns), &query(b"\x02m2\x05slirp"))),
        packet(0, &udp(end(first), end(dns), &query(b"\x07service"))),
        packet(0, &udp(end(first), end(dns), &query(b"\x07example\x03org"))),
        answer(&query(b"\x07example\x03org")),
        packet(SECOND, &udp(end(second), end(dns), &query(b"\x01a\xc0\x0c"))),
        op(MemberOp::Answer, 0, 0),
    ];
    seeds.push(("names", 0, names.concat()));

    let mut stream = vec![0, 29];
    stream.extend_from_slice(&query(b"\x07example\x03org"));
    let over_tcp = [
        packet(0, &open(first, dns)),
        packet(0, &segment(first, dns, (101, 1), ACK | PSH, &stream)),
        answer(&[7; 3000]),
        packet(0, &segment(first, dns, (132, 1), ACK | FIN, b"")),
    ];
    seeds.push(("names_over_tcp", 0, over_tcp.concat()));

    let mut large = to_member(0, 2, &udp(end(first), end("10.0.2.102:9"), &[3; 4000]));
    // A virtio-net header that asks for datagrams of 1000 bytes.
    large[4..14].copy_from_slice(&[1, 5, 42, 0, 0xe8, 3, 34, 0, 6, 0]);
    let mut small = to_member(0, 2, &segment(first, "10.0.2.102:80", (1, 1), ACK, &[3; 3000]));
    small[4..14].copy_from_slice(&[1, 1, 62, 0, 100, 0, 34, 0, 16, 0]);
    let among = [
        to_member(0, 2, &echo(address("10.0.2.101"), address("10.0.2.102"), 1, 1, b"ping")),
        large,
        small,
        to_member(SECOND, 1, &udp(end("10.0.2.101:9"), end("10.0.2.101:9"), b"spoofed")),
    ];
    seeds.push(("among_members", 0, among.concat()));

    let claims = [
        frame(OWN_MAC, &arp(1, 1, 101, [10, 0, 2, 2])),
        frame(0, &arp(2, 1, 2, [10, 0, 2, 102])),
        frame(SECOND, &arp(2, 2, 101, [10, 0, 2, 2])),
        packet(0, &icmp(address("fe80::1"), address("ff02::2"), &[133, 0, 0, 0, 0, 0, 0, 0])),
        packet(0, &echo(address("fd00::101"), address("fd00::2"), 1, 1, b"ping")),
        packet(0, &echo(address("fd00::101"), address("2001:db8::1"), 1, 1, b"ping")),
        op(MemberOp::Error, ANSWERED, 0x0301),
    ];
    seeds.push(("claims", 1, claims.concat()));
    seeds
}
