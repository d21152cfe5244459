//! Guests that want more than they get, in virtual time.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::bucket::burst_of;
use super::lane::Tally;
use super::*;
use crate::rng::Rng;

const TO: RateDirection = RateDirection::ToGuest;
const SEGMENTS: Segments = Segments::of(1460, 40);

fn rate(bits_per_second: u64) -> Rate {
    Rate { bits_per_second, burst: None }
}

fn flow(index: usize) -> FlowId {
    let index = u32::try_from(index).unwrap();
    FlowId { index, generation: index + 1 }
}

/// Numbers below the given ones.
struct Dice(Rng);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0.next_u64() % most
    }

    fn index(&mut self, most: usize) -> usize {
        usize::from(self.0.next_u16()) % most
    }
}

/// A datagram: its flow, its number and its length.
type Letter = (FlowId, usize, u64);

/// One guest that receives.
struct Scene {
    shaper: Shaper<Letter>,
    now: Instant,
    ready: VecDeque<FlowId>,
    /// What each connection still has to move.
    wanted: BTreeMap<FlowId, usize>,
    /// IP packets that have passed: when, of which flow, and how many bytes.
    passed: Vec<(Instant, FlowId, u64)>,
    arrived: Vec<Letter>,
    tally: Tally,
    bound: u32,
    ticks: u32,
}

impl Scene {
    fn new(rate: Rate) -> Self {
        Self {
            shaper: Shaper::new(Rates::new(Some(rate), None)),
            now: Instant::from_micros(1_000_000),
            ready: VecDeque::new(),
            wanted: BTreeMap::new(),
            passed: Vec::new(),
            arrived: Vec::new(),
            tally: Tally::default(),
            bound: 0,
            ticks: 0,
        }
    }

    fn lane(&mut self) -> &mut Lane<Letter> {
        self.shaper.lane(None, TO, self.now).unwrap()
    }

    /// A connection has `bytes` more to move.
    fn want(&mut self, flow: FlowId, bytes: usize) {
        *self.wanted.entry(flow).or_default() += bytes;
        self.ready.push_back(flow);
        self.turn();
    }

    fn send(&mut self, flow: FlowId, number: usize, len: u64) {
        let now = self.now;
        if self.lane().admits(flow, len, true, now) {
            self.passed.push((now, flow, len));
            self.arrived.push((flow, number, len));
        } else {
            self.lane().hold(flow, len, (flow, number, len), now);
        }
        self.turn();
    }

    fn turn(&mut self) {
        let now = self.now;
        loop {
            self.serve();
            let Some(flow) = self.ready.pop_front() else { return };
            let allowed = self.lane().allowance(flow, SEGMENTS, now);
            let Some(wanted) = self.wanted.get_mut(&flow) else { continue };
            let moved = (*wanted).min(allowed);
            *wanted -= moved;
            let wants = *wanted > 0;
            self.lane().note_moved(flow, SEGMENTS, moved, wants);
            if moved > 0 {
                self.passed.push((now, flow, SEGMENTS.len_of(moved)));
            }
        }
    }

    fn serve(&mut self) {
        let now = self.now;
        while let Some(next) = self.lane().poll(now) {
            match next {
                Next::Bound => self.bound += 1,
                Next::Wake(flow) => self.ready.push_back(flow),
                Next::Send(letter) => {
                    self.passed.push((now, letter.0, letter.2));
                    self.arrived.push(letter);
                }
            }
        }
        let Tally { dropped, limited_micros } = self.lane().take_tally();
        self.tally.dropped += dropped;
        self.tally.limited_micros += limited_micros;
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.shaper.poll_timeout().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.ticks += 1;
            self.shaper.tick(self.now);
            self.turn();
        }
        self.now = until;
    }

    fn total(&self) -> u64 {
        self.passed.iter().map(|&(_, _, len)| len).sum()
    }

    fn total_of(&self, flow: FlowId) -> u64 {
        self.passed.iter().filter(|(_, other, _)| *other == flow).map(|&(_, _, len)| len).sum()
    }
}

/// How equal parts are (Jain, 1984): 1 if all are.
fn jain(parts: &[u64]) -> f64 {
    let sum: f64 = parts.iter().map(|&part| part as f64).sum();
    let squares: f64 = parts.iter().map(|&part| (part as f64).powi(2)).sum();
    sum * sum / (parts.len() as f64 * squares)
}

#[test]
fn rate_is_kept_to_three_percent_from_64_kbit_to_a_gigabit() {
    for bits in [64_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000] {
        for flows in [1, 32] {
            let mut scene = Scene::new(rate(bits));
            for index in 0..flows {
                scene.want(flow(index), usize::MAX / 64);
            }
            // Behind the burst.
            scene.pass(Duration::from_secs(1));
            let (before, ticks) = (scene.total(), scene.ticks);
            scene.pass(Duration::from_secs(10));
            let (moved, expected) = (scene.total() - before, bits / 8 * 10);
            let off = moved.abs_diff(expected) as f64 / expected as f64;
            assert!(off < 0.03, "{bits} bit/s: {moved} instead of {expected} bytes");
            assert!(scene.ticks - ticks <= 2001, "{bits} bit/s: {} ticks", scene.ticks - ticks);
            assert_eq!(scene.bound, 1, "it begins once");
            let limited = Duration::from_micros(scene.tally.limited_micros);
            assert!(limited > Duration::from_millis(10_500), "{bits} bit/s: {limited:?}");
        }
    }
}

#[test]
fn equal_flows_get_equal_parts_and_a_late_one_too() {
    for bits in [1_000_000, 100_000_000, 1_000_000_000] {
        let mut scene = Scene::new(rate(bits));
        for index in 0..31 {
            scene.want(flow(index), usize::MAX / 64);
        }
        scene.pass(Duration::from_secs(5));
        scene.want(flow(31), usize::MAX / 64);
        let before: Vec<_> = (0..32).map(|index| scene.total_of(flow(index))).collect();
        scene.pass(Duration::from_secs(20));
        let parts: Vec<_> =
            (0..).zip(before).map(|(index, it)| scene.total_of(flow(index)) - it).collect();
        assert!(jain(&parts) > 0.99, "{bits} bit/s: {parts:?}");
    }
}

#[test]
fn flow_that_is_fed_piece_by_piece_gets_no_more_than_others() {
    // A window of one segment: it never has more to move than that, but always something soon.
    let mut scene = Scene::new(rate(10_000_000));
    for index in 0..4 {
        scene.want(flow(index), usize::MAX / 64);
    }
    for _ in 0..30_000 {
        if scene.wanted.get(&flow(9)).is_none_or(|&wanted| wanted == 0) {
            scene.want(flow(9), 1460);
        }
        scene.pass(Duration::from_micros(100));
    }
    let parts: Vec<_> = [0, 1, 2, 3, 9].map(|index| scene.total_of(flow(index))).into();
    assert!(jain(&parts) > 0.98, "{parts:?}");
}

#[test]
fn keystroke_beside_downloads_waits_for_a_few_milliseconds() {
    for (bits, most) in [(64_000, 40), (1_000_000, 10), (10_000_000, 6)] {
        let mut scene = Scene::new(rate(bits));
        for index in 0..32 {
            scene.want(flow(index), usize::MAX / 64);
        }
        scene.pass(Duration::from_secs(20));
        for _ in 0..20 {
            let (before, since) = (scene.total_of(flow(99)), scene.now);
            scene.want(flow(99), 36);
            while scene.total_of(flow(99)) == before {
                scene.pass(Duration::from_millis(1));
            }
            let waited = scene.now.saturating_since(since);
            assert!(waited <= Duration::from_millis(most), "{bits} bit/s: {waited:?}");
            // By then it would have been its turn again.
            scene.pass(Duration::from_secs(32 * 1500 * 8 / bits + 1));
        }
    }
}

#[test]
fn flows_that_keep_coming_leave_each_old_one_its_part() {
    // Connections of one packet: one after the other, each as soon as the last one is through; or
    // so many percent of what the rate allows.
    for load in [None, Some(20), Some(100), Some(200)] {
        for old in [1, 8, 32] {
            let mut scene = Scene::new(rate(10_000_000));
            for index in 0..old {
                scene.want(flow(index), usize::MAX / 64);
            }
            scene.pass(Duration::from_secs(1));
            let before: Vec<_> = (0..old).map(|index| scene.total_of(flow(index))).collect();
            let (mut came, mut share) = (0, 0.0);
            for tick in 0..4000 {
                let (last, step) = (old + came, Duration::from_millis(1));
                let is_through = scene.wanted.get(&flow(last)).is_none_or(|&wanted| wanted == 0);
                if load.map_or(is_through, |load| tick * load / 120 > came) {
                    came += 1;
                    scene.want(flow(old + came), 1460);
                }
                scene.wanted.retain(|_, wanted| *wanted > 0);
                share += 1250.0 / scene.wanted.len() as f64;
                scene.pass(step);
            }
            let parts: Vec<_> =
                (0..).zip(before).map(|(index, it)| scene.total_of(flow(index)) - it).collect();
            let least = *parts.iter().min().unwrap() as f64;
            assert!(least > 0.7 * share, "{load:?} {old} {came}: {least} instead of {share}");
        }
    }
}

#[test]
fn no_window_has_more_than_the_rate_and_a_burst() {
    for seed in 0..30 {
        let mut dice = Dice(Rng::new(seed));
        let bits = [1, 9_600, 64_000, 1_000_000, 25_000_000, 1_000_000_000][dice.index(6)];
        let burst = [None, Some(0), Some(5000), Some(1 << 20), Some(u64::MAX)][dice.index(5)];
        let rate = Rate { bits_per_second: bits, burst };
        let mut scene = Scene::new(rate);
        for number in 0..150 {
            match dice.below(4) {
                0 => scene.want(flow(dice.index(5)), dice.index(60_000)),
                1 | 2 => scene.send(flow(10 + dice.index(5)), number, 28 + dice.below(1472)),
                _ => scene.pass(Duration::from_micros(dice.below(200_000))),
            }
        }
        scene.pass(Duration::from_secs(3));
        for (index, &(from, ..)) in scene.passed.iter().enumerate() {
            let mut sum = 0u128;
            for &(to, _, len) in &scene.passed[index..] {
                sum += u128::from(len);
                let micros = to.saturating_since(from).as_micros();
                let allowed = u128::from(bits) * micros / 8_000_000 + u128::from(burst_of(rate));
                assert!(sum <= allowed + 1, "seed {seed}: {sum} bytes in {micros} us");
            }
        }
    }
}

#[test]
fn every_datagram_arrives_in_order_or_is_counted() {
    for seed in 0..30 {
        let mut dice = Dice(Rng::new(seed));
        let mut scene = Scene::new(rate([64_000, 1_000_000, 10_000_000][dice.index(3)]));
        let (mut sent, mut gone) = (0, 0);
        for number in 0..2000 {
            if dice.below(20) == 0 {
                scene.pass(Duration::from_millis(dice.below(80)));
            }
            if dice.below(50) == 0 {
                let left = flow(dice.index(5));
                scene.lane().forget(left);
                scene.turn();
                gone += 1;
            }
            sent += 1;
            scene.send(flow(dice.index(5)), number, 28 + dice.below(1472));
        }
        scene.pass(Duration::from_secs(60));
        assert_eq!(scene.arrived.len() as u64 + scene.tally.dropped, sent, "seed {seed} {gone}");
        let mut last = BTreeMap::new();
        for &(flow, number, _) in &scene.arrived {
            assert!(last.insert(flow, number).is_none_or(|before| before < number));
        }
        assert_eq!(scene.shaper.poll_timeout(), None);
    }
}

#[test]
fn flood_of_datagrams_leaves_room_for_a_call() {
    // 100 Mbit/s into 1 Mbit/s, and 50 small datagrams a second.
    let mut scene = Scene::new(rate(1_000_000));
    let mut calls = 0;
    for tick in 0..30_000 {
        scene.send(flow(1), tick, 1500);
        if tick % 200 == 0 {
            calls += 1;
            scene.send(flow(2), tick, 200);
        }
        scene.pass(Duration::from_micros(100));
    }
    let heard = scene.arrived.iter().filter(|letter| letter.0 == flow(2)).count();
    assert!(heard >= calls - 1, "{heard} of {calls}");
    assert!(scene.tally.dropped > 25_000);
}

#[test]
fn datagrams_wait_for_50_ms_and_longer_where_the_rate_is_lower() {
    for (bits, most) in [(10_000_000, 55), (64_000, 400)] {
        let mut scene = Scene::new(rate(bits));
        scene.want(flow(0), usize::MAX / 64);
        scene.pass(Duration::from_secs(20));
        for number in 0..20 {
            scene.send(flow(1), number, 1500);
        }
        let since = scene.now;
        scene.pass(Duration::from_secs(30));
        let last = scene.passed.iter().filter(|(_, of, _)| *of == flow(1)).map(|it| it.0).max();
        let waited = last.unwrap().saturating_since(since);
        assert!(waited <= Duration::from_millis(most), "{bits} bit/s: {waited:?}");
        assert_eq!(scene.arrived.len() as u64 + scene.tally.dropped, 20);
    }
}

#[test]
fn datagrams_that_wait_are_bounded_in_bytes_and_number() {
    for len in [28, 1500, 65_000] {
        let mut scene = Scene::new(Rate { bits_per_second: 1, burst: None });
        for number in 0..3000 {
            scene.send(flow(number % 7), number, len);
        }
        let held = 3000 - scene.arrived.len() as u64 - scene.tally.dropped;
        assert!(held * len.max(256) <= 128 * 1024, "{held} of {len} bytes");
        assert!(held >= 1);
    }
}

#[test]
fn datagram_larger_than_the_burst_passes_a_full_bucket() {
    let mut scene = Scene::new(Rate { bits_per_second: 8_000_000, burst: Some(1500) });
    scene.send(flow(1), 1, 60_000);
    assert_eq!(scene.arrived.len(), 1);
    scene.send(flow(1), 2, 1500);
    scene.pass(Duration::from_millis(40));
    assert_eq!(scene.arrived.len(), 1, "the first is paid for");
    scene.pass(Duration::from_millis(40));
    assert_eq!((scene.arrived.len(), scene.tally.dropped), (1, 1), "and that took too long");
}

#[test]
fn flow_that_was_woken_and_does_nothing_holds_nobody_up() {
    let mut scene = Scene::new(rate(1_000_000));
    scene.want(flow(0), usize::MAX / 64);
    scene.pass(Duration::from_secs(1));
    for (index, is_gone) in [(1, true), (2, false)] {
        // It wants something, and is never pumped again.
        scene.lane().note_moved(flow(index), SEGMENTS, 0, true);
        let before = scene.total();
        for _ in 0..1000 {
            scene.pass(Duration::from_millis(1));
            while let Some(position) = scene.ready.iter().position(|it| *it == flow(index)) {
                scene.ready.remove(position);
            }
            if is_gone {
                scene.lane().forget(flow(index));
            } else {
                scene.lane().note_unused(flow(index));
            }
            scene.turn();
        }
        assert!(scene.total() > before + 100_000);
    }
}

#[test]
fn limits_come_change_and_go() {
    let (a, b) = (Some(MemberId(1)), Some(MemberId(2)));
    let at = Instant::from_micros(5);
    let mut shaper: Shaper<Letter> = Shaper::new(Rates::default());
    assert!(shaper.is_idle() && shaper.lane(a, TO, at).is_none());
    let all = Rates::new(Some(rate(1_000_000)), None);
    shaper.set(None, all, at);
    assert!(shaper.lane(a, TO, at).is_some() && shaper.lane(b, TO, at).is_some());
    assert!(shaper.lane(a, RateDirection::FromGuest, at).is_none());
    // One gets more, and nothing of the others is touched.
    let own = Rates::new(None, Some(rate(64_000)));
    let lane = shaper.lane(a, TO, at).unwrap();
    lane.note_moved(flow(1), SEGMENTS, 0, true);
    lane.hold(flow(2), 1500, (flow(2), 7, 1500), at);
    let freed = shaper.set(a, own, at);
    assert_eq!((freed.flows, freed.held), (vec![flow(1)], vec![(TO, (flow(2), 7, 1500))]));
    assert!(shaper.lane(a, TO, at).is_none() && shaper.lane(b, TO, at).is_some());
    assert_eq!((shaper.rates(a), shaper.rates(b), shaper.rates(None)), (own, all, all));
    // All others are free again.
    shaper.set(None, Rates::default(), at);
    assert!(shaper.lane(b, TO, at).is_none() && !shaper.is_idle());
    shaper.forget_member(MemberId(1));
    assert!(shaper.is_idle());
}
