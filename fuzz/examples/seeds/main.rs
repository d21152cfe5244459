//! Writes the seeds of the corpus: real traffic shapes and the triggers of known defects.
//!
//! Owns the seeds only; inputs that fuzzing adds to the corpus are kept beside them. Run from the
//! root of the workspace: `cargo run -p slirp-fuzz --example seeds`.

mod control_lines;
mod dns_answer;
mod first_bytes;
mod members;
mod ports;
mod rules;

use core::net::{IpAddr, SocketAddr};
use std::path::Path;

use slirp_fuzz::Op::{self, *};
use slirp_fuzz::packet::{
    self, ACK, PSH, SYN, Tcp, UDP, URG, VNET_LEN, echo, ethernet, ethernet_of, icmp, ipv4,
    ipv6_fragment, tcp, udp, udp_segment,
};
use slirp_fuzz::{FIX_CHECKSUMS, STEP_TIME};

/// Full offload with IPv6, MTU 1500.
const FULL: u8 = 4;
/// A plain device without IPv6.
const PLAIN: u8 = 3;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets = [
        ("dns_answer", dns_answer::seeds()),
        ("flow_script", scripts()),
        ("frame", frames()),
        ("members", members::seeds()),
        ("ports", ports::seeds()),
        ("ports_wire", ports::wire_seeds()),
        ("rule", rules::seeds()),
    ];
    for (folder, seeds) in targets {
        let folder = corpus.join(folder);
        std::fs::create_dir_all(&folder)?;
        for (name, choice, body) in seeds {
            let mut input = vec![choice];
            input.extend_from_slice(&body);
            std::fs::write(folder.join(name), input)?;
        }
    }
    let folder = corpus.join("control_line");
    std::fs::create_dir_all(&folder)?;
    for (name, line) in control_lines::seeds() {
        std::fs::write(folder.join(name), line)?;
    }
    let folder = corpus.join("http_head");
    std::fs::create_dir_all(&folder)?;
    for (name, input) in first_bytes::seeds() {
        std::fs::write(folder.join(name), input)?;
    }
    Ok(())
}

type Seed = (&'static str, u8, Vec<u8>);

fn end(text: &str) -> SocketAddr {
    text.parse().expect("a constant")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant")
}

/// A record of the target `frame`.
fn record(flags: u16, frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(VNET_LEN + frame.len()).expect("seeds are small");
    let mut record = (flags | len).to_be_bytes().to_vec();
    record.extend_from_slice(&[0; VNET_LEN]);
    record.extend_from_slice(frame);
    record
}

fn records(packets: &[Vec<u8>]) -> Vec<u8> {
    packets.iter().flat_map(|packet| record(FIX_CHECKSUMS, &ethernet(packet))).collect()
}

fn frames() -> Vec<Seed> {
    let mut seeds = vec![];
    let (v4, gateway, far) = (address("10.0.2.100"), address("10.0.2.2"), address("192.0.2.1"));
    let (v6, router) = (address("fd00::100"), address("fd00::2"));
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend_from_slice(&packet::GUEST_MAC);
    arp.extend_from_slice(&[10, 0, 2, 100, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    let arp = ethernet_of(0x0806, &arp);
    seeds.push(("arp", FULL, record(0, &arp)));
    seeds.push(("arp_truncated", FULL, (14..42).flat_map(|len| record(0, &arp[..len])).collect()));
    for (name, from, to) in [
        ("echo_gateway", v4, gateway),
        ("echo_far", v4, far),
        ("echo6_gateway", v6, router),
        ("echo6_far", v6, address("2001:db8::1")),
    ] {
        seeds.push((name, FULL, records(&[echo(from, to, 7, 1, b"0123456789abcdef")])));
    }
    let mut lying = echo(v6, router, 7, 1, &[1; 16]);
    lying[5] = 200;
    seeds.push(("echo6_length_beyond_packet", FULL, record(0, &ethernet(&lying))));
    let ttl: Vec<u8> = [0, 1]
        .into_iter()
        .flat_map(|ttl| {
            let mut packet = echo(v4, far, 7, 1, &[0; 8]);
            packet[8] = ttl;
            record(FIX_CHECKSUMS, &ethernet(&packet))
        })
        .collect();
    seeds.push(("echo_hop_limit", FULL, ttl));
    for (name, port) in [("udp_short_67", 67), ("udp_short_69", 69), ("udp_short_53", 53)] {
        let packets: Vec<_> = [0, 1, 7, 43, 235]
            .into_iter()
            .map(|len| {
                let to = if port == 53 { "10.0.2.3" } else { "10.0.2.2" };
                udp(end("10.0.2.100:68"), SocketAddr::new(address(to), port), &vec![1; len])
            })
            .collect();
        seeds.push((name, FULL, records(&packets)));
    }
    let mut discover = vec![1, 1, 6, 0, 1, 2, 3, 4];
    discover.resize(236, 0);
    discover.extend_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 250, 1]);
    let nobody = udp(end("0.0.0.0:68"), end("255.255.255.255:67"), &discover);
    seeds.push(("dhcp_option_beyond_end", FULL, records(&[nobody])));
    seeds.push((
        "udp_from_nobody",
        FULL,
        records(&[
            udp(end("0.0.0.0:0"), end("192.0.2.1:0"), b"x"),
            udp(end("0.0.0.0:9"), end("192.0.2.1:9"), b"x"),
        ]),
    ));
    seeds.push((
        "udp_mixed",
        FULL,
        records(&[
            udp(end("10.0.2.100:5000"), end("10.0.2.2:9"), &[7; 1400]),
            udp(end("10.0.2.100:5000"), end("192.0.2.1:9"), b""),
            udp(end("[fd00::100]:5000"), end("[fd00::2]:9"), &[7; 1000]),
        ]),
    ));
    let large = ethernet(&udp(end("10.0.2.100:5000"), end("192.0.2.1:9"), &[3; 4000]));
    let mut gso = record(FIX_CHECKSUMS, &large);
    gso[2..12].copy_from_slice(&[1, 5, 42, 0, 0xe8, 3, 34, 0, 6, 0]);
    seeds.push(("udp_gso", FULL, gso));
    seeds.push(("fragments", FULL, fragments(v4, far, &[(0, 800), (800, 800), (1600, 408)])));
    seeds.push((
        "fragments_reversed",
        PLAIN,
        fragments(v4, far, &[(1600, 408), (800, 800), (0, 800)]),
    ));
    seeds.push((
        "fragments_overlap",
        FULL,
        fragments(v4, far, &[(0, 800), (400, 800), (1600, 408)]),
    ));
    seeds.push((
        "fragments_first_large",
        FULL,
        fragments(v4, far, &[(0, 2000), (8, 16), (2000, 8)]),
    ));
    let beyond = ipv4(v4, far, UDP, 7, 0x1fff, &[0; 1000]);
    seeds.push(("fragment_beyond_64k", FULL, records(&[beyond])));
    let first = ipv4(v4, far, UDP, 9, 0x2000, &[0; 16]);
    let mut late = record(FIX_CHECKSUMS, &ethernet(&first));
    late.extend_from_slice(&record(
        STEP_TIME | FIX_CHECKSUMS,
        &ethernet(&echo(v4, far, 1, 1, &[0; 1])),
    ));
    seeds.push(("fragment_timed_out", FULL, late));
    let whole = udp_segment(end("[fd00::100]:5000"), end("[2001:db8::1]:9"), &[5; 1000]);
    let to = address("2001:db8::1");
    seeds.push((
        "fragments6",
        FULL,
        records(&[
            ipv6_fragment(v6, to, UDP, 0, true, &whole[..504]),
            ipv6_fragment(v6, to, UDP, 504, false, &whole[504..]),
        ]),
    ));
    let mut solicit = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicit.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1]);
    solicit.extend_from_slice(&packet::GUEST_MAC);
    let mut short = solicit.clone();
    short[25] = 0;
    seeds.push((
        "ndp",
        FULL,
        records(&[
            icmp(v6, address("ff02::1:ff00:2"), &solicit),
            icmp(v6, address("ff02::1:ff00:2"), &short),
            icmp(address("fe80::1"), address("ff02::2"), &[133, 0, 0, 0, 0, 0, 0, 0]),
            icmp(v6, router, &solicit[..10]),
        ]),
    ));
    let segment = |flags, seq, urgent, payload| {
        tcp(&Tcp {
            from: end("10.0.2.100:40000"),
            to: end("10.0.2.2:113"),
            seq,
            ack: 1,
            flags,
            window: 0xffff,
            urgent,
            options: &[2, 4, 5, 180, 1, 3, 3, 7],
            payload,
        })
    };
    seeds.push((
        "tcp_urgent_beyond_data",
        FULL,
        records(&[segment(SYN, 100, 0, b""), segment(ACK | PSH | URG, 101, 0xffff, b"USERID")]),
    ));
    seeds.push(("tcp_syn_with_data", PLAIN, records(&[segment(SYN, 100, 0, b"early")])));
    seeds.push((
        "tcp_flag_combinations",
        FULL,
        (0..64).flat_map(|flags| records(&[segment(flags, 100, 0, b"")])).collect(),
    ));
    let mut bad = segment(SYN, 5, 0, b"");
    bad[32] = 0xf0;
    seeds.push(("tcp_header_beyond_packet", FULL, records(&[bad])));
    seeds
}

/// A UDP datagram in fragments `(offset, length)` of its IP payload of 2008 bytes.
fn fragments(from: IpAddr, to: IpAddr, cuts: &[(usize, usize)]) -> Vec<u8> {
    let whole = udp_segment(SocketAddr::new(from, 5000), SocketAddr::new(to, 9), &[5; 2000]);
    let packets: Vec<_> = cuts
        .iter()
        .map(|&(at, len)| {
            let end = (at + len).min(whole.len());
            let more = if end < whole.len() { 0x2000 } else { 0 };
            let field = u16::try_from(at / 8).expect("small") | more;
            ipv4(from, to, UDP, 7, field, &whole[at..end])
        })
        .collect();
    records(&packets)
}

fn script(moves: &[(Op, u8, u8, u16)]) -> Vec<u8> {
    moves.iter().flat_map(|&(op, which, a, b)| op.emit(which, a, b)).collect()
}

/// Open, connect, acknowledge, and then `rest`.
fn opened(which: u8, options: u8, rest: &[(Op, u8, u8, u16)]) -> Vec<u8> {
    let mut moves =
        vec![(Open, which, options, 7), (Connected, 0, 0, 0), (Acknowledge, which, 0, 0xffff)];
    moves.extend_from_slice(rest);
    script(&moves)
}

fn scripts() -> Vec<Seed> {
    let mut seeds: Vec<Seed> = vec![];
    let exchange = [
        (Send, 0, 0, 100),
        (HostBytes, 0, 0, 5000),
        (Acknowledge, 0, 0, 0xffff),
        (HostEnd, 0, 0, 0),
        (Acknowledge, 0, 0, 0xffff),
        (End, 0, 0, 0),
        (Acknowledge, 0, 0, 0xffff),
    ];
    for (name, choice) in [
        ("exchange_full", FULL),
        ("exchange_plain", PLAIN),
        ("exchange_tiny_mtu", 0x28 | PLAIN),
        ("exchange_huge_mtu", 0x38),
    ] {
        seeds.push((name, choice, opened(0, 7, &exchange)));
    }
    let six: Vec<_> =
        exchange.map(|(op, which, a, b)| (op, if which == 0 { 2 } else { which }, a, b)).into();
    seeds.push(("exchange_ipv6", FULL, opened(2, 7, &six)));
    seeds.push((
        "fin_beyond_window",
        FULL,
        opened(
            0,
            7,
            &[
                (HostRoom, 0, 0, 0),
                (Send, 0, 0, 40_000),
                (Send, 0, 1, 60_000),
                (HostRoom, 0, 0, 0xffff),
                (Step, 0, 0, 100),
                (SendAt, 0, 255, 0x8000),
            ],
        ),
    ));
    seeds.push((
        "flood_beyond_window",
        0x80 | FULL,
        opened(
            0,
            7,
            &[
                (HostRoom, 0, 0, 0),
                (Send, 0, 0, 60_000),
                (Send, 0, 0, 60_000),
                (Send, 0, 0, 60_000),
                (Send, 0, 0, 60_000),
                (Send, 0, 0, 60_000),
                (Send, 0, 0, 60_000),
                (HostRoom, 0, 0, 0xffff),
            ],
        ),
    ));
    seeds.push((
        "window_shrinks_below_flight",
        FULL,
        opened(
            0,
            1,
            &[
                (HostBytes, 0, 0, 20_000),
                (Acknowledge, 0, 0, 0),
                (HostEnd, 0, 0, 0),
                (AcknowledgeAt, 0, 0, 0xffff),
                (Step, 0, 0, 0xffff),
                (Acknowledge, 0, 0, 0),
                (Step, 0, 0, 0xffff),
            ],
        ),
    ));
    seeds.push((
        "acknowledges_unsent_data",
        FULL,
        opened(
            0,
            7,
            &[
                (AcknowledgeAt, 0, 0, 100),
                (HostBytes, 0, 0, 30_000),
                (AcknowledgeAt, 0, 1, 500),
                (End, 0, 0, 3),
                (AcknowledgeAt, 0, 1, 1),
            ],
        ),
    ));
    seeds.push((
        "parks_and_wakes",
        FULL,
        opened(
            0,
            7,
            &[
                (Send, 0, 0, 10),
                (Jump, 0, 0, 50),
                (Step, 0, 0, 0xffff),
                (Send, 0, 0, 10),
                (Jump, 0, 0, 50),
                (HostBytes, 0, 0, 900),
                (Acknowledge, 0, 0, 99),
                (Jump, 0, 0, 50),
                (Reset, 0, 0, 0),
            ],
        ),
    ));
    // The stack probes a connection whose half the guest has closed, and which the guest has
    // forgotten.
    seeds.push((
        "half_closed_and_forgotten",
        FULL,
        opened(
            0,
            7,
            &[
                (End, 0, 0, 10),
                (HostBytes, 0, 0, 900),
                (Acknowledge, 0, 0, 99),
                (Jump, 0, 0, 760),
                (Acknowledge, 0, 0, 99),
                (Jump, 0, 0, 1_510),
                (Step, 0, 0, 0xffff),
                (Reset, 0, 4, 0),
            ],
        ),
    ));
    for (name, kind) in
        [("refused", 1), ("reset", 3), ("unreachable", 5), ("timed_out", 9), ("exhausted", 15)]
    {
        seeds.push((
            name,
            FULL,
            script(&[
                (Open, 1, 7, 1),
                (Connected, 0, kind, 0),
                (Open, 2, 7, 1),
                (Connected, 0, kind, 0),
            ]),
        ));
    }
    seeds.push((
        "never_connects",
        FULL,
        script(&[(Open, 0, 7, 1), (Open, 0, 7, 1), (Jump, 0, 0, 800)]),
    ));
    seeds.push((
        "handshake_unfinished",
        FULL,
        script(&[(Open, 0, 7, 1), (Connected, 0, 0, 0), (Step, 0, 0, 0xffff), (Jump, 0, 0, 250)]),
    ));
    seeds.push((
        "opens_anew",
        FULL,
        opened(
            0,
            7,
            &[(Open, 0, 6, 9), (Connected, 0, 0, 0), (Acknowledge, 0, 0, 9), (Open, 0, 4, 0xffff)],
        ),
    ));
    seeds.push((
        "guest_silent",
        FULL,
        opened(0, 7, &[(HostBytes, 0, 0, 9000), (Step, 0, 0, 0xffff), (Jump, 0, 0, 1300)]),
    ));
    seeds.push((
        "host_breaks",
        FULL,
        opened(1, 3, &[(Send, 1, 0, 100), (HostFail, 0, 0, 0), (Send, 1, 0, 100)]),
    ));
    seeds.push((
        "urgent_and_odd_flags",
        PLAIN,
        opened(
            0,
            7,
            &[
                (Flags, 0, ACK | URG, 0xffff),
                (Flags, 0, 0, 0),
                (Flags, 0, PSH, 0),
                (Flags, 0, 0xf8, 1),
                (Reset, 0, 0, 1),
                (Reset, 0, ACK, 9),
            ],
        ),
    ));
    seeds.push((
        "out_of_order",
        FULL,
        opened(
            0,
            7,
            &[
                (SendAt, 0, 10, 100),
                (SendAt, 0, 10, 400),
                (SendAt, 0, 10, 0),
                (Send, 0, 0, 600),
                (SendAt, 0, 40, 0xff00),
                (End, 0, 0, 1),
            ],
        ),
    ));
    seeds.push((
        "policy_cuts",
        FULL,
        opened(
            1,
            7,
            &[
                (Send, 1, 0, 100),
                (Policy, 0, 2, 0),
                (Send, 1, 0, 100),
                (Udp, 1, 1, 100),
                (Policy, 1, 5, 0),
                (Open, 1, 7, 9),
                (Open, 2, 7, 9),
                (Policy, 1, 0, 0),
                (Open, 0, 7, 9),
            ],
        ),
    ));
    for (name, decide) in [("asked_and_allowed", 1 | 6), ("asked_and_denied", 0)] {
        seeds.push((
            name,
            FULL,
            script(&[
                (Policy, 0, 3, 1),
                (Open, 1, 7, 7),
                (Open, 2, 7, 7),
                (Udp, 1, 1, 100),
                (Echo, 1, 0, 0),
                (Decide, 0, decide, 0),
                (Decide, 0, decide | 8, 0),
                (Decide, 0, decide, 0),
                (Connected, 0, 0, 0),
                (Connected, 0, 0, 0),
                (Acknowledge, 1, 0, 0xffff),
                (Send, 1, 0, 100),
                (Udp, 1, 1, 100),
                (HostUdp, 0, 0, 100),
                (Policy, 1, 4, 1),
                (HostUdp, 0, 0, 100),
                (Open, 1, 7, 7),
                (Jump, 0, 0, 100),
                (Policy, 1, 1, 0),
            ]),
        ));
    }
    seeds.push((
        "asked_without_anybody",
        FULL,
        script(&[
            (Policy, 0, 3, 1),
            (Open, 1, 7, 7),
            (Policy, 0, 4, 0),
            (Step, 0, 0, 0xffff),
            (Open, 1, 7, 7),
            (Udp, 1, 1, 100),
        ]),
    ));
    for (name, rate) in [("limited", 100), ("limited_to_almost_nothing", 0)] {
        seeds.push((
            name,
            FULL,
            opened(
                0,
                7,
                &[
                    (Rates, 0, 3 | 4 << 2, rate),
                    (Send, 0, 0, 30_000),
                    (HostBytes, 0, 0, 30_000),
                    (Udp, 1, 1, 1000),
                    (Udp, 1, 1, 1000),
                    (Udp, 1, 2, 1000),
                    (HostUdp, 0, 0, 30_000),
                    (Step, 0, 0, 3000),
                    (Acknowledge, 0, 0, 0xffff),
                    (Policy, 1, 2, 0),
                    (Step, 0, 0, 3000),
                    (Rates, 0, 1, 50),
                    (Rates, 0, 0, 0),
                    (HostEnd, 0, 0, 0),
                ],
            ),
        ));
    }
    seeds.push((
        "udp",
        FULL,
        script(&[
            (Udp, 0, 1, 100),
            (HostUdp, 0, 0, 1400),
            (HostUdp, 0, 0, 60_000),
            (HostUdp, 0, 100, 30_000),
            (HostUdp, 0, 0x81, 100),
            (HostUdpError, 0, 2, 0),
            (HostUdpError, 0, 0x83, 0),
            (Jump, 0, 0, 4000),
            (HostUdp, 0, 0, 1),
        ]),
    ));
    seeds.push((
        "udp6_plain",
        PLAIN | 4,
        script(&[
            (Udp, 2, 1, 100),
            (HostUdp, 0, 0, 9000),
            (HostUdp, 0, 100, 3000),
            (HostUdpError, 0, 0x85, 0),
        ]),
    ));
    seeds.push((
        "udp_flood",
        FULL,
        script(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|port| (Udp, 1, port, 9))),
    ));
    seeds.push((
        "echo",
        FULL,
        script(&[
            (Echo, 1, 1, 1),
            (HostEcho, 0, 0, 1000),
            (HostEcho, 0, 1, 0),
            (HostEcho, 0, 2, 0),
            (Echo, 2, 2, 1),
            (HostEcho, 1, 0, 9000),
            (HostEcho, 0, 3, 0),
        ]),
    ));
    seeds.push((
        "dns",
        FULL,
        script(&[
            (Dns, 0, 1, 1),
            (DnsAnswer, 0, 0, 300),
            (Dns, 0, 1, 2),
            (DnsAnswer, 0, 0, 9000),
            (Dns, 0, 2, 3),
            (DnsAnswer, 0, 1, 0),
            (Dns, 0, 1, 4),
            (Jump, 0, 0, 900),
        ]),
    ));
    seeds.push((
        "dns_over_tcp",
        FULL,
        script(&[
            (Open, 3, 7, 1),
            (Acknowledge, 3, 0, 0xffff),
            (Send, 3, 0, 9000),
            (DnsAnswer, 0, 0, 5000),
            (Acknowledge, 3, 0, 0xffff),
            (End, 3, 0, 0),
        ]),
    ));
    seeds.push((
        "fragments",
        FULL,
        script(&[
            (Fragment, 1, 0, 0x8320),
            (Fragment, 1, 100, 0x8320),
            (Fragment, 1, 50, 0x8320),
            (Fragment, 1, 200, 0x0fff),
            (Jump, 0, 0, 400),
        ]),
    ));
    seeds
}
