//! How many different names a guest has looked up under each wildcard: a sign of a tunnel.
//!
//! Owns one counter for each wildcard rule that is in use, at most [`COUNTERS_CAP`], each of 1 KiB.
//! A counter is a set of bits, of which each name sets one (linear counting, Whang et al. 1990), so
//! a name that is looked up again counts once, and the number is right within a few per cent. Where
//! there are too many counters, the one with the fewest names makes room: rules that are seldom
//! used cannot hide one that many names go through.

use core::hash::BuildHasher as _;
use core::time::Duration;

use foldhash::quality::FixedState;

use super::name::Name;
use crate::time::Instant;

/// Wildcard rules that are counted at a time (arbitrary).
const COUNTERS_CAP: usize = 64;
/// Bits of a counter: eight times as many as names are worth an event, so that few names share one.
const BITS: usize = 8192;
/// Bits that 1,000 names set in the mean: 8192 · (1 − e^(−1000/8192)).
const MANY: u32 = 941;
/// Time that names are counted for.
const WITHIN: Duration = Duration::from_hours(1);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Distinct {
    counters: Vec<Counter>,
    hasher: FixedState,
}

#[derive(Debug)]
struct Counter {
    rule: u32,
    since: Instant,
    bits: Box<[u64; BITS / 64]>,
    /// How many of them are set.
    set: u32,
}

impl Counter {
    fn new(rule: u32, now: Instant) -> Self {
        Self { rule, since: now, bits: Box::new([0; BITS / 64]), set: 0 }
    }

    /// How many names have set the bits, as a rule.
    fn estimate(&self) -> u32 {
        let bits = BITS as f64;
        let names = -bits * (1.0 - f64::from(self.set) / bits).max(1.0 / bits).ln();
        #[expect(clippy::cast_possible_truncation, reason = "at most 8192 · ln 8192")]
        #[expect(clippy::cast_sign_loss, reason = "a logarithm of at most 1")]
        let names = names.round() as u32;
        names
    }
}

impl Distinct {
    pub(super) fn new(seed: u64) -> Self {
        Self { counters: Vec::new(), hasher: FixedState::with_seed(seed) }
    }

    /// The rules have changed, and their numbers mean others.
    pub(super) fn clear(&mut self) {
        self.counters.clear();
    }

    /// A name was looked up that the wildcard `rule` allows. Returns how many there are within the
    /// hour, once that are many: once an hour.
    pub(super) fn note(&mut self, rule: u32, name: &Name, now: Instant) -> Option<u32> {
        let counter = self.counter(rule, now);
        let hash = usize::try_from(self.hasher.hash_one(name) % BITS as u64).unwrap_or(0);
        let counter = self.counters.get_mut(counter)?;
        let (word, bit) = (counter.bits.get_mut(hash / 64)?, 1 << (hash % 64));
        if *word & bit != 0 {
            return None;
        }
        *word |= bit;
        counter.set += 1;
        (counter.set == MANY).then(|| counter.estimate())
    }

    /// The most names under one wildcard.
    pub(super) fn most(&self) -> u32 {
        self.counters.iter().map(Counter::estimate).max().unwrap_or(0)
    }

    /// The place of the counter of `rule`, which begins anew after an hour.
    fn counter(&mut self, rule: u32, now: Instant) -> usize {
        let new = Counter::new(rule, now);
        let known = self.counters.iter().position(|counter| counter.rule == rule);
        if let Some(at) = known {
            if now.saturating_since(self.counters[at].since) >= WITHIN {
                self.counters[at] = new;
            }
            return at;
        }
        if self.counters.len() < COUNTERS_CAP {
            self.counters.push(new);
            return self.counters.len() - 1;
        }
        let is_over = |counter: &Counter| now.saturating_since(counter.since) >= WITHIN;
        let least = self.counters.iter().enumerate();
        let least = least.min_by_key(|(_, counter)| if is_over(counter) { 0 } else { counter.set });
        let at = least.map_or(0, |(at, _)| at);
        self.counters[at] = new;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(distinct: &mut Distinct, rule: u32, numbers: core::ops::Range<u32>) -> Vec<(u32, u32)> {
        let told = |number| {
            let name = Name::new(&format!("n{number}.wild.test")).unwrap();
            distinct.note(rule, &name, Instant::ZERO).map(|count| (number, count))
        };
        numbers.filter_map(told).collect()
    }

    #[test]
    fn a_thousand_names_are_told_once_and_a_repeated_name_counts_once() {
        for seed in 0..8 {
            let mut distinct = Distinct::new(seed);
            for _ in 0..5 {
                assert_eq!(note(&mut distinct, 1, 0..900), []);
            }
            let told = note(&mut distinct, 1, 900..9000);
            let [(number, count)] = told[..] else { panic!("{told:?}") };
            assert_eq!(count, 1000);
            assert!((930..1070).contains(&number), "{number}");
            assert!((8000..10_000).contains(&distinct.most()), "{}", distinct.most());
        }
    }

    #[test]
    fn next_hour_is_counted_anew() {
        let mut distinct = Distinct::new(1);
        note(&mut distinct, 1, 0..900);
        let name = Name::new("late.wild.test").unwrap();
        assert_eq!(distinct.note(1, &name, Instant::ZERO + WITHIN), None);
        assert_eq!(distinct.most(), 1);
    }

    #[test]
    fn rules_with_few_names_do_not_hide_one_with_many() {
        let mut distinct = Distinct::new(1);
        assert_eq!(note(&mut distinct, 0, 0..500), []);
        for rule in 1..200 {
            note(&mut distinct, rule, 0..20);
        }
        assert_eq!(distinct.counters.len(), COUNTERS_CAP);
        assert_eq!(note(&mut distinct, 0, 500..1200).len(), 1);
    }
}
