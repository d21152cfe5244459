//! The link between guest and stack: late, lossy, out of order, twice.
//!
//! Owns frames in flight in one direction. It does not look into frames.

use std::collections::BTreeMap;
use std::time::Duration;

use slirp_core::internals::Rng;
use slirp_core::time::Instant;

/// What a link does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Frames lost, per mille.
    pub loss: u64,
    /// Frames that arrive twice, per mille.
    pub duplicate: u64,
    /// Frames that are overtaken by later ones, per mille.
    pub reorder: u64,
    /// Time that every frame takes.
    pub delay: Duration,
    /// Largest addition to it; the order of frames stays.
    pub jitter: Duration,
}

impl Weather {
    /// A quiet link: 50 us, nothing lost, all in order.
    pub const FAIR: Self = Self {
        loss: 0,
        duplicate: 0,
        reorder: 0,
        delay: Duration::from_micros(50),
        jitter: Duration::ZERO,
    };
}

/// See the [module](self).
pub(super) struct Link {
    weather: Weather,
    rng: Rng,
    in_flight: BTreeMap<(Instant, u64), Vec<u8>>,
    sent: u64,
    /// When the last frame that is in order arrives.
    tail_at: Instant,
}

impl Link {
    pub(super) const fn new(weather: Weather, seed: u64) -> Self {
        Self {
            weather,
            rng: Rng::new(seed),
            in_flight: BTreeMap::new(),
            sent: 0,
            tail_at: Instant::ZERO,
        }
    }

    pub(super) const fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(super) fn send(&mut self, frame: Vec<u8>, now: Instant) {
        if self.happens(self.weather.loss) {
            return;
        }
        if self.happens(self.weather.duplicate) {
            let late = self.upto(self.weather.delay * 3);
            self.put(frame.clone(), now + self.weather.delay + late);
        }
        let at = now + self.weather.delay + self.upto(self.weather.jitter);
        if self.happens(self.weather.reorder) {
            let late = self.upto(self.weather.delay * 4 + Duration::from_millis(1));
            self.put(frame, at + late);
        } else {
            self.tail_at = self.tail_at.max(at);
            self.put(frame, self.tail_at);
        }
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|(&(at, _), _)| at)
    }

    /// The frames that have arrived, in order.
    pub(super) fn arrivals(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(entry) = self.in_flight.first_entry() {
            if entry.key().0 > now {
                break;
            }
            frames.push(entry.remove());
        }
        frames
    }

    fn put(&mut self, frame: Vec<u8>, at: Instant) {
        self.sent += 1;
        self.in_flight.insert((at, self.sent), frame);
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.rng.next_u64() % 1000 < per_mille
    }

    fn upto(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.rng.next_u64() % (micros + 1))
    }
}
