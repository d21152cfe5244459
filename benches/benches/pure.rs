//! The cost of the pure side, without device, socket or clock.
//!
//! Owns the measurements of single steps; `compare` measures whole stacks.

use core::hint::black_box;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use slirp_core::config::{Offload, StackConfig};
use slirp_core::egress::{EgressPolicy, Name};
use slirp_core::event::{FlowId, HostAction};
use slirp_core::internals::egress::{Judge, JudgeConfig};
use slirp_core::internals::wire::{FLAG_DATA_VALID, VNET_HEADER_LEN};
use slirp_core::policy::Protocol;
use slirp_core::stack::Stack;
use slirp_core::time::Instant;
use slirp_core::{HostStream, Transfer};

const GUEST: [u8; 4] = [10, 0, 2, 100];
const REMOTE: [u8; 4] = [192, 0, 2, 1];
const IP_AT: usize = VNET_HEADER_LEN + 14;
const TCP_AT: usize = IP_AT + 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const BULK: usize = 64_000;

/// A host that takes all bytes and sends a given number of bytes.
#[derive(Default)]
struct Host {
    ready: usize,
}

impl HostStream for Host {
    fn send(&mut self, data: &[u8]) -> Transfer {
        Transfer::Moved(black_box(data).len())
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        let len = room.len().min(self.ready);
        if len == 0 {
            return Transfer::Blocked;
        }
        room[..len].fill(7);
        self.ready -= len;
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {}
}

/// A frame with a verified transport checksum, as the guest's kernel hands it over.
fn frame(protocol: u8, transport: &[u8], fragment: u16, ident: u16) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER_LEN];
    frame[0] = FLAG_DATA_VALID;
    frame.extend_from_slice(&[0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0]);
    let len = u16::try_from(20 + transport.len()).expect("at most 64 KiB").to_be_bytes();
    frame.extend_from_slice(&[0x45, 0, len[0], len[1]]);
    frame.extend_from_slice(&ident.to_be_bytes());
    frame.extend_from_slice(&fragment.to_be_bytes());
    frame.extend_from_slice(&[64, protocol, 0, 0]);
    frame.extend_from_slice(&GUEST);
    frame.extend_from_slice(&REMOTE);
    let mut sum: u32 = frame[IP_AT..]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let [.., c0, c1] = (!sum).to_be_bytes();
    frame[IP_AT + 10..IP_AT + 12].copy_from_slice(&[c0, c1]);
    frame.extend_from_slice(transport);
    frame
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = port.to_be_bytes().to_vec();
    udp.extend_from_slice(&[0, 9]);
    udp.extend_from_slice(&u16::try_from(8 + payload.len()).expect("small").to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    udp
}

fn tcp(port: u16, seq: u32, ack: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = port.to_be_bytes().to_vec();
    tcp.extend_from_slice(&[0, 80]);
    tcp.extend_from_slice(&seq.to_be_bytes());
    tcp.extend_from_slice(&ack.to_be_bytes());
    tcp.extend_from_slice(&[
        if flags & SYN == 0 { 0x50 } else { 0x70 },
        flags,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    if flags & SYN != 0 {
        tcp.extend_from_slice(&[2, 4, 0x05, 0xb4, 1, 3, 3, 7]);
    }
    tcp.extend_from_slice(payload);
    frame(6, &tcp, 0, 0)
}

/// A stack with connections of the guest, and the guest's end of the last one.
struct World {
    stack: Stack,
    host: Host,
    flow: Option<FlowId>,
    port: u16,
    now: Instant,
    next: u32,
    heard: u32,
}

impl World {
    fn new() -> Self {
        let mut config = StackConfig::default();
        config.offload = Offload::FULL;
        Self {
            stack: Stack::new(config),
            host: Host::default(),
            flow: None,
            port: 0,
            now: Instant::from_micros(1),
            next: 0,
            heard: 0,
        }
    }

    fn open(&mut self, port: u16) {
        (self.port, self.next) = (port, 1000);
        self.send(SYN, &[]);
        while let Some(action) = self.stack.poll_action() {
            if let HostAction::ConnectTcp { flow, .. } = action {
                self.flow = Some(flow);
                self.stack.handle_tcp_connected(flow, Ok(()), self.now);
            }
        }
        self.next += 1;
        self.turn();
        self.send(ACK, &[]);
    }

    fn send(&mut self, flags: u8, payload: &[u8]) {
        let mut frame = tcp(self.port, self.next, self.heard, flags, payload);
        black_box(self.stack.handle_frame(&mut frame, self.now));
        self.next = self.next.wrapping_add(u32::try_from(payload.len()).expect("small"));
        self.turn();
    }

    /// One turn; notes the end of the bytes that the guest was sent.
    fn turn(&mut self) {
        while let Some(flow) = self.stack.poll_ready(self.now) {
            self.stack.pump(flow, &mut self.host, self.now);
            while let Some(frame) = self.stack.poll_frame(self.now) {
                if frame.len() >= TCP_AT + 20 && frame[IP_AT + 9] == 6 {
                    let tcp = &frame[TCP_AT..];
                    let header_len = usize::from(tcp[12] >> 4) * 4;
                    let len = tcp.len() - header_len + usize::from(tcp[13] & 3 != 0);
                    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                    self.heard = seq.wrapping_add(u32::try_from(len).expect("small"));
                }
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.stack.handle_timeout(self.now);
        self.turn();
    }
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut world = World::new();
    let datagram = frame(17, &udp(5000, &[1; 1400]), 0, 0);
    group.bench_function("udp_1400", |bencher| {
        bencher.iter(|| {
            let mut frame = datagram.clone();
            black_box(world.stack.handle_frame(&mut frame, world.now).is_some())
        });
    });
    let mut arp = vec![0; VNET_HEADER_LEN];
    arp.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 8, 6]);
    arp.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 2, 100]);
    arp.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    group.bench_function("arp", |bencher| {
        bencher.iter(|| {
            let mut frame = arp.clone();
            black_box(world.stack.handle_frame(&mut frame, world.now).is_some());
            black_box(world.stack.poll_frame(world.now).map(<[u8]>::len))
        });
    });
    world.open(40_000);
    group.bench_function("tcp_1400", |bencher| bencher.iter(|| world.send(ACK, &[1; 1400])));
    group.finish();
}

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Bytes(64_000));
    let mut world = World::new();
    world.open(40_000);
    let payload = vec![1; BULK];
    group.bench_function("from_guest_64k", |bencher| bencher.iter(|| world.send(ACK, &payload)));
    group.bench_function("to_guest_64k", |bencher| {
        bencher.iter(|| {
            world.host.ready = BULK;
            world.stack.wake_flow(world.flow.expect("opened above"));
            world.turn();
            world.send(ACK, &[]);
        });
    });
    group.finish();
    criterion.bench_function("turn/1_byte_each_way", |bencher| {
        bencher.iter(|| {
            world.host.ready = 1;
            world.send(ACK, b"?");
        });
    });
}

fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flows");
    for count in [1_u16, 1_000, 10_000, 50_000] {
        let mut world = World::new();
        for port in 1..=count {
            let mut frame = frame(17, &udp(port, b"x"), 0, 0);
            black_box(world.stack.handle_frame(&mut frame, world.now).is_some());
        }
        let mut port = 0_u16;
        group.bench_function(BenchmarkId::new("udp_1", count), |bencher| {
            bencher.iter(|| {
                // A stride without a common divisor visits all connections in a scattered order.
                port = port.wrapping_add(7919) % count;
                let mut frame = frame(17, &udp(port + 1, b"x"), 0, 0);
                black_box(world.stack.handle_frame(&mut frame, world.now).is_some())
            });
        });
    }
    group.finish();
}

fn park(criterion: &mut Criterion) {
    let mut world = World::new();
    world.open(40_000);
    // A connection is parked only after the guest was sent a window update since the handshake.
    world.send(ACK, b"x");
    let mut is_measured = false;
    criterion.bench_function("park/sleep_and_wake", |bencher| {
        is_measured = true;
        bencher.iter(|| {
            world.wait(Duration::from_secs(1));
            world.wait(Duration::from_secs(3));
            world.send(ACK, b"x");
        });
    });
    let stats = world.stack.stats();
    assert!(!is_measured || stats.tcp_unparked > 0, "the flow slept and woke: {stats:?}");
}

fn reassembly(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reassembly");
    group.throughput(Throughput::Bytes(8000));
    let whole = udp(5000, &[1; 7992]);
    let mut world = World::new();
    let mut ident = 0_u16;
    group.bench_function("8000_in_six", |bencher| {
        bencher.iter(|| {
            ident = ident.wrapping_add(1);
            let mut is_whole = false;
            for (at, part) in (0_u16..).step_by(185).zip(whole.chunks(1480)) {
                let more = if part.len() == 1480 { 0x2000 } else { 0 };
                let mut frame = frame(17, part, at | more, ident);
                is_whole = world.stack.handle_frame(&mut frame, world.now).is_some();
            }
            assert!(is_whole, "the last fragment completes the datagram");
        });
    });
    group.finish();
}

/// A judge of so many rules, half of them about names and half about addresses, whose guest has
/// learned so many names, each with an address of its own.
fn judge_of(rules: u32, names: u32) -> Judge {
    let mut text = String::from("allow *.names.example\n");
    for number in 0..rules / 2 {
        let (high, low) = (number / 256, number % 256);
        text.push_str(&format!("allow host{number}.example.org:443,8443-8500\n"));
        text.push_str(&format!("deny 198.51.{high}.{low}:1-1024\n"));
    }
    let policy = EgressPolicy::parse(&text, "policy").expect("these are rules");
    let mut judge = Judge::new(policy, JudgeConfig::default());
    for number in 0..names {
        let name = Name::new(&format!("n{number}.names.example")).expect("a name");
        let address = (address_of(number), 3600);
        assert!(judge.on_answer(&name, &[], &[address], Instant::from_micros(1)));
    }
    judge
}

fn address_of(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(20, 0, 0, 0).to_bits() + number))
}

fn judge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    for rules in [0, 100, 1_000] {
        for names in [100, 10_000] {
            let judge = judge_of(rules, names);
            let now = Instant::from_micros(2);
            let ask = |number: u32| {
                // One flow in two is to an address that no name has.
                let reached = SocketAddr::new(address_of(number % (2 * names)), 443);
                judge.on_flow(Protocol::Tcp, reached, reached, now)
            };
            let words = [0, names].map(|number| format!("{:?}", ask(number)));
            assert!(words[0].contains("Pass") && words[1].contains("NoName"), "{words:?}");
            let mut number = 0_u32;
            group.bench_function(format!("{rules}x{names}"), |bencher| {
                bencher.iter(|| {
                    number = number.wrapping_add(7919);
                    black_box(ask(black_box(number)))
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
        .configure_from_args();
    frames(&mut criterion);
    engine(&mut criterion);
    flows(&mut criterion);
    park(&mut criterion);
    reassembly(&mut criterion);
    judge(&mut criterion);
    criterion.final_summary();
}
