//! The pure side in a simulated world: bad links, odd remotes, virtual time, many seeds.
//!
//! A failure prints its seed. `SLIRP_SIM_SEED=n` runs that one alone, `SLIRP_SIM_RUNS=n` multiplies
//! the number of seeds.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]
#![expect(clippy::print_stderr, reason = "a failure says how to repeat it")]

use std::net::SocketAddr;
use std::time::Duration;

use slirp_core::config::{Offload, StackConfig};
use slirp_core::discard::DiscardReason;
use slirp_core::internals::Rng;
use slirp_core::plan::{AddressPlan, Ipv6Plan};
use slirp_core::{Rate, Rates};
use slirp_tests::sim::{Program, Remote, Sim, Weather};

const SECOND: Duration = Duration::from_secs(1);
/// Virtual time in which every transfer below is over, with retransmissions backed off to a minute.
const PATIENCE: Duration = Duration::from_secs(900);
/// A stack has forgotten everything after this: longer than any of its timeouts.
const OBLIVION: Duration = Duration::from_secs(400);

/// Runs `test` for some seeds, or for the one that is asked for.
fn over_seeds(runs: u64, test: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SLIRP_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..runs * number("SLIRP_SIM_RUNS").unwrap_or(1) + 1,
    };
    for seed in seeds {
        let on_failure = Replay(seed);
        test(seed);
        drop(on_failure);
    }
}

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SLIRP_SIM_SEED={}", self.0);
        }
    }
}

fn config(seed: u64) -> StackConfig {
    let mut config = StackConfig::default();
    config.seed = seed;
    config.plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    config
}

const CHECKSUM_ONLY: Offload =
    Offload { vnet_header: true, checksum: true, tcp_segmentation: false, udp_segmentation: false };

/// A device and a link of any quality that this product promises to cope with.
fn any_circumstances(seed: u64) -> (StackConfig, Weather) {
    let mut rng = Rng::new(seed);
    let mut pick = |upto: u64| rng.next_u64() % upto;
    let mut config = config(seed);
    let offloads = [Offload::default(), CHECKSUM_ONLY, Offload::FULL];
    config.offload = offloads[usize::try_from(pick(3)).unwrap()];
    config.mtu = [1280, 1500, 9000, 65_520][usize::try_from(pick(4)).unwrap()];
    let weather = Weather {
        loss: pick(51),
        duplicate: pick(51),
        reorder: pick(201),
        delay: Duration::from_micros(50 + pick(5000)),
        jitter: Duration::from_micros(pick(2000)),
    };
    // Half of the runs live in memory that is tight once 1 MiB is held, and never exhausted by what
    // they hold.
    if pick(2) == 0 {
        config.limits.ring_memory = 2 * 1024 * 1024;
    }
    (config, weather)
}

fn stream(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The remote number `number`, of either family.
fn at(number: u16) -> SocketAddr {
    let text = if number.is_multiple_of(2) {
        format!("198.51.100.{number}:7")
    } else {
        format!("[2001:db8::{number}]:7")
    };
    text.parse().unwrap()
}

/// Whatever happened, nothing of it is left in the stack, and nothing went wrong inside.
fn assert_forgotten(sim: &mut Sim) {
    sim.pass(OBLIVION);
    assert_eq!(sim.stats().flows, 0, "flows are left: {:?}", sim.stats());
    assert!(sim.is_stack_idle());
    for reason in [DiscardReason::TcpEngineFailed, DiscardReason::TcpEngineStuck] {
        assert_eq!(sim.stats().discards.value(reason), 0, "{}", reason.as_str());
    }
}

fn same(one: &[u8], other: &[u8], what: &str) {
    let equal = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    assert!(one == other, "{what}: {} and {} bytes, {equal} equal", one.len(), other.len());
}

/// Six conversations at once over a link of any quality.
fn converse(seed: u64) -> u64 {
    converse_in(any_circumstances(seed), seed)
}

fn converse_in((config, weather): (StackConfig, Weather), seed: u64) -> u64 {
    let mut sim = Sim::new(config, weather);
    let data = stream(seed, 150_000);
    let far = stream(!seed, 140_000);
    sim.add(at(1), Remote::Echo);
    sim.add(at(2), Remote::Sink);
    sim.add(at(3), Remote::Source(far.clone()));
    sim.add(at(4), Remote::Source(far.clone()));
    sim.add(at(5), Remote::SlowSink(1000));
    sim.add(at(6), Remote::Echo);
    let echo = sim.run(Program::new(at(1), data.clone()));
    let sink = sim.run(Program::new(at(2), data.clone()));
    let source = sim.run(Program { closes_last: true, ..Program::new(at(3), Vec::new()) });
    // The remote ends at once; the guest goes on talking for some seconds after that.
    let late = sim.run(Program {
        parts: vec![(SECOND, data[..1000].to_vec()), (SECOND, data[1000..].to_vec())],
        awaits: vec![far.len(), far.len()],
        ..Program::new(at(4), Vec::new())
    });
    let slow_sink = sim.run(Program::new(at(5), data.clone()));
    let slow_reader = sim.run(Program { reads: Some(1000), ..Program::new(at(6), data.clone()) });

    assert!(sim.finish(PATIENCE), "stalled at {}", sim.standing());
    for (number, expected) in [
        (echo, &data[..]),
        (sink, &[]),
        (source, &far[..]),
        (late, &far[..]),
        (slow_sink, &[]),
        (slow_reader, &data[..]),
    ] {
        let fate = sim.fate(number);
        same(&fate.received, expected, &format!("program {number}"));
        let ending = (fate.is_connected, fate.is_ended, fate.is_reset);
        assert_eq!(ending, (true, true, false), "program {number} connects and ends in order");
    }
    assert_forgotten(&mut sim);
    for (number, expected) in
        [(1, &data[..]), (2, &data), (3, &[]), (4, &data), (5, &data), (6, &data)]
    {
        let visits = sim.visits(at(number));
        assert_eq!(visits.len(), 1, "remote {number}");
        same(&visits[0].received, expected, &format!("remote {number}"));
        assert_eq!(visits[0].ends, 1, "the end reaches remote {number} once");
        assert_eq!(visits[0].closed, Some(false), "remote {number} sees an orderly end");
    }
    sim.digest()
}

#[test]
fn streams_arrive_exactly_over_bad_links() {
    over_seeds(24, |seed| {
        converse(seed);
    });
}

#[test]
fn streams_arrive_exactly_under_limits() {
    over_seeds(12, |seed| {
        let (mut config, weather) = any_circumstances(seed);
        let mut rng = Rng::new(!seed);
        let mut rate = || {
            let bits_per_second = [256_000, 1_000_000, 20_000_000, 1_000_000_000, u64::MAX];
            let bits_per_second = bits_per_second[usize::from(rng.next_u16() % 5)];
            let burst = [None, Some(1), Some(10_000)][usize::from(rng.next_u16() % 3)];
            (!rng.next_u16().is_multiple_of(4)).then_some(Rate { bits_per_second, burst })
        };
        config.rates = Rates::new(rate(), rate());
        converse_in((config, weather), seed);
    });
}

#[test]
fn same_seed_gives_the_same_bytes() {
    over_seeds(3, |seed| {
        assert_eq!(converse(seed), converse(seed));
        assert_ne!(converse(seed), converse(seed + 1000));
    });
}

#[test]
fn remotes_that_fail_are_reported_as_they_fail() {
    over_seeds(12, |seed| {
        let (config, mut weather) = any_circumstances(seed);
        // One lost ICMP message is lost for good: the guest's next SYN asks again.
        weather.loss /= 2;
        let mut sim = Sim::new(config, weather);
        let data = stream(seed, 100_000);
        sim.add(at(2), Remote::Refuses);
        sim.add(at(3), Remote::Refuses);
        sim.add(at(4), Remote::ResetAfter(50_000));
        sim.add(at(5), Remote::ResetAfter(50_000));
        for number in 2..=5 {
            sim.run(Program::new(at(number), data.clone()));
        }
        assert!(sim.finish(PATIENCE), "a program waits for ever");
        for number in 0..4 {
            let fate = sim.fate(number);
            assert!(fate.is_reset && !fate.is_ended && fate.received.is_empty());
            assert_eq!(fate.is_connected, number >= 2, "program {number}");
        }
        assert_forgotten(&mut sim);
        assert_eq!(sim.stats().tcp_failed + 2, sim.stats().tcp_opened);
        for number in [4, 5] {
            let visits = sim.visits(at(number));
            same(&visits[0].received, &data[..visits[0].received.len()], "before the reset");
            assert_eq!((visits[0].ends, visits[0].closed), (0, Some(true)));
        }
    });
}

#[test]
fn guest_that_resets_resets_its_remote() {
    over_seeds(6, |seed| {
        let (config, weather) = any_circumstances(seed);
        let mut sim = Sim::new(config, weather);
        sim.add(at(2), Remote::Sink);
        let program = Program::new(at(2), Vec::new());
        sim.run(Program {
            parts: vec![(Duration::ZERO, stream(seed, 1000)), (SECOND, vec![1])],
            awaits: vec![0, 0],
            aborts: true,
            ..program
        });
        assert!(sim.finish(PATIENCE));
        // A lost reset leaves a remote that says nothing: it costs a parked flow, and no more.
        sim.pass(OBLIVION);
        for visit in sim.visits(at(2)) {
            assert_eq!(visit.closed, Some(true));
        }
        assert_eq!(sim.stats().flows + sim.visits(at(2)).len() as u64, 1);
        assert!(sim.is_stack_idle());
    });
}

#[test]
fn unreachable_remote_is_told_by_icmp() {
    let mut sim = Sim::new(config(1), Weather::FAIR);
    sim.add(at(2), Remote::Unreachable);
    sim.run(Program::new(at(2), vec![1]));
    sim.pass(Duration::from_millis(500));
    let letters = sim.take_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].protocol, &letters[0].body[..2]), (1, &[3, 1][..]), "host unreachable");
}

#[test]
fn silent_remote_is_told_after_75_seconds() {
    let mut sim = Sim::new(config(1), Weather::FAIR);
    sim.add(at(2), Remote::Silent);
    sim.run(Program::new(at(2), vec![1]));
    sim.pass(Duration::from_secs(74));
    assert!(sim.take_letters().is_empty());
    sim.pass(Duration::from_secs(2));
    assert_eq!(sim.take_letters().len(), 1);
    assert_eq!(sim.stats().discards.value(DiscardReason::HostConnectTimedOut), 1);
}

/// Short exchanges with long silences between them.
fn chat(seed: u64, weather: Weather) {
    const ROUNDS: usize = 5;
    let (config, _) = any_circumstances(seed);
    let mut sim = Sim::new(config, weather);
    let words = |round: usize| stream(seed + round as u64, 1 + round * 700);
    let silence = |round: usize| Duration::from_secs(3 + round as u64);

    // The guest breaks the silence, and waits for the echo before the next one begins.
    let parts: Vec<_> = (0..ROUNDS).map(|round| (silence(round), words(round))).collect();
    let mut awaits = vec![0];
    for round in 1..ROUNDS {
        awaits.push(awaits[round - 1] + words(round - 1).len());
    }
    sim.add(at(1), Remote::Echo);
    sim.add(at(2), Remote::Echo);
    let all: Vec<u8> = (0..ROUNDS).flat_map(words).collect();
    for number in 1..=2 {
        let program = Program::new(at(number), Vec::new());
        sim.run(Program { parts: parts.clone(), awaits: awaits.clone(), ..program });
    }
    // The remote breaks the silence.
    for number in 3..=4 {
        sim.add(at(number), Remote::Caller(parts.clone()));
        sim.run(Program { closes_last: true, ..Program::new(at(number), Vec::new()) });
    }
    assert!(sim.finish(PATIENCE), "stalled at {}", sim.standing());
    for number in 0..4 {
        let fate = sim.fate(number);
        same(&fate.received, &all, &format!("program {number}"));
        assert!(fate.is_ended && !fate.is_reset, "program {number}");
    }
    assert_forgotten(&mut sim);
    for number in 1..=2 {
        let visits = sim.visits(at(number));
        same(&visits[0].received, &all, &format!("remote {number}"));
        assert_eq!((visits[0].ends, visits[0].closed), (1, Some(false)));
    }
    let stats = sim.stats();
    assert!(stats.tcp_parked >= 12, "{} flows slept", stats.tcp_parked);
    assert_eq!(stats.tcp_parked, stats.tcp_unparked, "all of them woke up");
}

#[test]
fn idle_flows_sleep_and_wake_from_either_side() {
    over_seeds(6, |seed| chat(seed, Weather::FAIR));
}

#[test]
fn idle_flows_sleep_and_wake_over_bad_links() {
    over_seeds(12, |seed| chat(seed, any_circumstances(seed).1));
}

/// Remotes that the guest spoke to first, and that then speak first themselves.
#[test]
fn remotes_are_heard_whoever_spoke_first_before() {
    over_seeds(20, |seed| {
        let (config, _) = any_circumstances(seed);
        let mut sim = Sim::new(config, Weather::FAIR);
        let (question, greeting) = (stream(seed, 700), stream(seed + 1, 5000));
        for round in 0..3 {
            sim.add(at(1), Remote::Echo);
            for number in [4 * round, 4 * round + 1] {
                sim.run(Program::new(at(1), question.clone()));
                assert!(sim.finish(PATIENCE), "stalled at {}", sim.standing());
                same(&sim.fate(number).received, &question, "echo");
            }
            assert_eq!(
                sim.unaware(),
                2 * round as u64 + 1,
                "the second one came to an eager guest's"
            );
            let speakers = [
                Remote::Source(greeting.clone()),
                Remote::Caller(vec![(SECOND, greeting.clone())]),
            ];
            let number = 4 * round + 2;
            sim.add(at(1), speakers[round % 2].clone());
            for number in [number, number + 1] {
                sim.run(Program { closes_last: true, ..Program::new(at(1), Vec::new()) });
                assert!(sim.finish(PATIENCE), "stalled at {}", sim.standing());
                same(&sim.fate(number).received, &greeting, "greeting");
            }
            assert_eq!(sim.unaware(), 2 * round as u64 + 2, "it was not taken for one again");
        }
        assert_forgotten(&mut sim);
    });
}

#[test]
fn datagrams_are_answered_from_where_they_went() {
    over_seeds(4, |seed| {
        let (mut config, _) = any_circumstances(seed);
        config.mtu = 1280;
        let mut sim = Sim::new(config, Weather::FAIR);
        // Below the MTU, and in fragments both ways.
        for len in [0, 1, 1200, 5000, 60_000] {
            for number in [1, 2] {
                let data = stream(seed, len);
                sim.send_udp(5000, at(number), &data);
                sim.pass(SECOND);
                let letters = sim.take_letters();
                assert_eq!(letters.len(), 1, "{len} bytes to {}", at(number));
                let letter = &letters[0];
                assert_eq!(&letter.body[..4], &[0, 7, 0x13, 0x88], "the ports");
                same(&letter.body[8..], &data, "the echo");
                let slirp_core::internals::wire::IpPair::V4(from, _) = letter.pair else {
                    assert_eq!(number, 1);
                    continue;
                };
                assert_eq!(SocketAddr::from((from, 7)), at(2));
            }
        }
    });
}

#[test]
fn mappings_of_datagrams_expire() {
    over_seeds(4, |seed| {
        let (config, _) = any_circumstances(seed);
        let mut sim = Sim::new(config, Weather::FAIR);
        for number in [1, 2, 1, 2] {
            sim.send_udp(5000, at(number), &[7]);
            sim.pass(SECOND);
        }
        // One mapping per family: the guest's port decides, not the remote.
        assert_eq!((sim.stats().flows, sim.stats().udp_opened), (2, 2));
        sim.pass(Duration::from_secs(297));
        assert_eq!(sim.stats().flows, 2);
        sim.pass(Duration::from_secs(4));
        assert_eq!(sim.stats().flows, 0);

        sim.send_udp(5000, "198.51.100.9:53".parse().unwrap(), &[1]);
        sim.pass(Duration::from_secs(9));
        assert_eq!((sim.stats().flows, sim.stats().udp_opened), (1, 3));
        sim.pass(Duration::from_secs(2));
        assert_eq!(sim.stats().flows, 0);
        assert!(sim.is_stack_idle());
    });
}

#[test]
fn fragments_that_never_become_whole_are_forgotten() {
    let mut config = config(1);
    config.mtu = 1280;
    let lossy = Weather { loss: 500, ..Weather::FAIR };
    let mut sim = Sim::new(config, lossy);
    for _ in 0..50 {
        sim.send_udp(5000, at(2), &[7; 8000]);
    }
    sim.pass(SECOND);
    assert!(!sim.is_stack_idle());
    assert_forgotten(&mut sim);
    assert!(sim.stats().discards.value(DiscardReason::FragmentTimedOut) > 20);
}

#[test]
fn virtual_addresses_answer_echo_requests() {
    let mut sim = Sim::new(config(1), Weather::FAIR);
    for (to, kinds) in [("10.0.2.2", [8, 0]), ("10.0.2.3", [8, 0]), ("fd00::2", [128, 129])] {
        let to = SocketAddr::new(to.parse().unwrap(), 0);
        let mut message = vec![kinds[0], 0, 0, 0, 0x12, 0x34, 0, 9];
        message.extend_from_slice(b"payload");
        sim.send_icmp(to, &message);
        sim.pass(SECOND);
        let letters = sim.take_letters();
        assert_eq!(letters.len(), 1, "{to}");
        assert_eq!(letters[0].body[0], kinds[1]);
        assert_eq!(letters[0].body[4..], message[4..], "{to}");
    }
    assert_eq!(sim.stats().flows, 0);
}

#[test]
fn full_flow_table_refuses_new_flows_and_keeps_old_ones() {
    let mut config = config(1);
    config.limits.flows = 3;
    let mut sim = Sim::new(config, Weather::FAIR);
    let data = stream(1, 50_000);
    let words = vec![(5 * SECOND, data.clone()), (5 * SECOND, data.clone())];
    for number in [2, 4, 6] {
        sim.add(at(number), Remote::Echo);
        let program = Program::new(at(number), Vec::new());
        sim.run(Program { parts: words.clone(), awaits: vec![0, 50_000], ..program });
    }
    sim.pass(SECOND);
    assert_eq!(sim.stats().flows, 3);
    sim.add(at(8), Remote::Echo);
    let refused = sim.run(Program::new(at(8), data.clone()));
    sim.pass(SECOND / 2);
    // Not by a reset, which would be the remote's word.
    assert!(!sim.fate(refused).is_reset && !sim.fate(refused).is_connected);
    let letters = sim.take_letters();
    assert!(letters.iter().all(|letter| letter.body[..2] == [3, 13]), "{letters:?}");
    let refusals = sim.stats().discards.value(DiscardReason::FlowTableFull);
    assert_eq!((letters.len() as u64, refusals), (1, 1));
    sim.send_udp(5000, at(2), &[1]);
    sim.pass(Duration::from_millis(100));
    assert_eq!(sim.stats().discards.value(DiscardReason::FlowTableFull), 2);
    assert!(sim.finish(PATIENCE));
    same(&sim.fate(refused).received, &data, "the refused one, whose guest went on asking");
    for number in 0..3 {
        let twice = [&data[..], &data].concat();
        same(&sim.fate(number).received, &twice, "an old flow");
        assert!(sim.fate(number).is_ended);
    }
    let late = sim.run(Program::new(at(8), data.clone()));
    assert!(sim.finish(PATIENCE));
    same(&sim.fate(late).received, &data, "a flow after the crowd");
    assert_forgotten(&mut sim);
}

#[test]
fn half_open_flows_are_capped_apart() {
    let mut config = config(1);
    config.limits.half_open = 4;
    let mut sim = Sim::new(config, Weather::FAIR);
    for number in 1..=10 {
        sim.add(at(number * 2), Remote::Silent);
        sim.run(Program::new(at(number * 2), vec![1]));
    }
    sim.pass(SECOND / 2);
    // The newest are kept: each of the ten was tried, and the oldest six made room.
    assert_eq!((sim.stats().flows, sim.connects()), (4, 10));
    assert_eq!(sim.stats().discards.value(DiscardReason::HalfOpenLimit), 6);
    // Only what is being opened is capped.
    sim.send_udp(5000, at(2), &[1]);
    sim.pass(SECOND / 4);
    assert_eq!(sim.stats().flows, 5);
}

#[test]
fn stack_recovers_from_a_syn_flood_by_itself() {
    let mut config = config(1);
    config.limits.half_open = 2000;
    let mut sim = Sim::new(config, Weather::FAIR);
    // Remotes that accept at once, so that the stack sends SYN|ACKs without an answer.
    sim.add(at(2), Remote::Sink);
    sim.add(at(4), Remote::Silent);
    for number in 0..5000_u16 {
        let to = if number % 2 == 0 { 2 } else { 4 };
        sim.send_frame(syn(10_000 + number, to));
        if number % 100 == 0 {
            sim.pass(Duration::from_millis(1));
        }
    }
    sim.pass(SECOND / 10);
    assert_eq!(sim.stats().flows, 2000);
    assert!(sim.stats().discards.value(DiscardReason::HalfOpenLimit) >= 3000);
    sim.pass(Duration::from_secs(76));
    assert_eq!(sim.stats().flows, 0);
    assert_forgotten(&mut sim);
    // And serves as before.
    let data = stream(1, 10_000);
    sim.add(at(6), Remote::Echo);
    let program = sim.run(Program::new(at(6), data.clone()));
    assert!(sim.finish(PATIENCE));
    same(&sim.fate(program).received, &data, "after the flood");
}

/// A SYN from an address that no host has.
fn syn(port: u16, to: u8) -> Vec<u8> {
    use slirp_core::internals::wire::pseudo_header_sum;
    use slirp_core::internals::wire::{HeaderFields, IpPair};
    use smoltcp::wire::{IpProtocol, checksum};
    let (from, to) = ([10, 0, 2, 77].into(), [198, 51, 100, to].into());
    let mut packet = Vec::new();
    let fields = HeaderFields { protocol: 6, hop_limit: 64, traffic_class: 0 };
    IpPair::V4(from, to).emit_header(&mut packet, fields, 20);
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&[0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = pseudo_header_sum(from.into(), to.into(), IpProtocol::Tcp, 20);
    let sum = !checksum::combine(&[pseudo, checksum::data(&packet[20..])]);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0x52, 0x55, 10, 0, 2, 2];
    frame.extend_from_slice(&slirp_tests::sim::GUEST_MAC.0);
    frame.extend_from_slice(&[8, 0]);
    frame.extend_from_slice(&packet);
    frame
}
