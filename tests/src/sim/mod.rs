//! A world in one process: a guest, a bad link, the pure stack, and remotes by script.
//!
//! Owns the order of events in virtual time. Everything follows from one seed, the bytes of every
//! frame included; [`Sim::digest`] is a fingerprint of them.
//!
//! ```text
//!  Guest (smoltcp, Ethernet) -- Link (loss, delay, order) -- Stack (under test) -- World (scripts)
//! ```

mod guest;
mod link;
mod segmentation;
mod world;

pub use guest::{Fate, GUEST_MAC, Guest, Letter, Program};
pub use link::Weather;
pub use world::{Remote, Visit};

use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use link::Link;
use slirp_core::config::StackConfig;
use slirp_core::internals::Rng;
use slirp_core::stack::Stack;
use slirp_core::stack::TimerOwner;
use slirp_core::stats::Stats;
use slirp_core::time::Instant;
use world::World;

/// Events at one instant after which the simulation counts as stuck.
const STANDSTILL: u32 = 10_000;

/// See the [module](self).
pub struct Sim {
    stack: Stack,
    guest: Guest,
    world: World,
    up: Link,
    down: Link,
    now: Instant,
    digest: DefaultHasher,
    at_once: u32,
}

impl Sim {
    /// A world in which nothing has happened yet; `config.seed` is the seed of everything.
    pub fn new(config: StackConfig, weather: Weather) -> Self {
        let mut rng = Rng::new(config.seed ^ 0x5117_ab1e);
        Self {
            guest: Guest::new(config.plan, config.mtu, rng.next_u64()),
            world: World::new(rng.next_u64()),
            up: Link::new(weather, rng.next_u64()),
            down: Link::new(weather, rng.next_u64()),
            stack: Stack::new(config),
            now: Instant::ZERO,
            digest: DefaultHasher::new(),
            at_once: 0,
        }
    }

    /// Changes what the link does from now on.
    pub const fn set_weather(&mut self, weather: Weather) {
        self.up.set_weather(weather);
        self.down.set_weather(weather);
    }

    /// Puts a remote into the world.
    pub fn add(&mut self, at: SocketAddr, remote: Remote) {
        self.world.add(at, remote);
    }

    /// Starts a program of the guest; returns its number.
    pub fn run(&mut self, program: Program) -> usize {
        self.guest.run(program, self.now)
    }

    /// How the program of that number fares.
    pub fn fate(&self, number: usize) -> &Fate {
        self.guest.fate(number)
    }

    /// What has happened to a remote, one entry per connection that is over.
    pub fn visits(&self, at: SocketAddr) -> Vec<Visit> {
        self.world.visits(at)
    }

    /// Connects that the stack has asked for.
    pub const fn connects(&self) -> u64 {
        self.world.connects
    }

    /// How many of them left the remote unaware until the guest spoke, or was given up on.
    pub const fn unaware(&self) -> u64 {
        self.world.unaware
    }

    /// Sends a UDP datagram of the guest.
    pub fn send_udp(&mut self, from_port: u16, to: SocketAddr, payload: &[u8]) {
        self.guest.send_udp(from_port, to, payload);
    }

    /// Sends an ICMP message of the guest; its checksum is filled in.
    pub fn send_icmp(&mut self, to: SocketAddr, message: &[u8]) {
        self.guest.send_icmp(to, message);
    }

    /// Puts a plain frame on the guest's end of the link.
    pub fn send_frame(&mut self, frame: Vec<u8>) {
        self.transmit(frame);
    }

    /// The datagrams and ICMP messages that the guest has received.
    pub fn take_letters(&mut self) -> Vec<Letter> {
        let mut letters = self.guest.take_letters();
        letters.retain(|letter| letter.protocol != u8::MAX);
        letters
    }

    /// The stack's counters.
    pub const fn stats(&self) -> &Stats {
        self.stack.stats()
    }

    /// Virtual time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Fingerprint of all frames so far, with their times.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Lets `time` pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until every program is done, at most for `limit`; says whether they are.
    pub fn finish(&mut self, limit: Duration) -> bool {
        let until = self.now + limit;
        loop {
            if self.guest.is_done() {
                return true;
            }
            if !self.step(until) {
                return false;
            }
        }
    }

    /// Where everything stands that is not finished, for a failure's message.
    pub fn standing(&mut self) -> String {
        let timer = self.stack.poll_timeout();
        let stats = self.stack.stats();
        let discards: Vec<_> = stats.discards.iter().filter(|&(_, count)| count > 0).collect();
        format!(
            "{:?}: next timer {timer:?}, {} flows, {discards:?}\n{}",
            self.now,
            stats.flows,
            self.guest.standing()
        )
    }

    /// Whether the stack waits for nothing but its own router advertisements.
    pub fn is_stack_idle(&mut self) -> bool {
        !self.stack.has_work()
            && self
                .stack
                .poll_timeout()
                .is_none_or(|(_, owner)| owner == TimerOwner::RouterAdvertisement)
    }

    /// Everything that happens at the next instant before `until`; `false` when there is none.
    fn step(&mut self, until: Instant) -> bool {
        self.turn();
        let next = [
            self.up.next_at(),
            self.down.next_at(),
            self.world.next_at(),
            self.stack.poll_timeout().map(|(at, _)| at),
            self.guest.poll_at(self.now),
            self.stack.has_work().then_some(self.now),
        ];
        let Some(at) = next.into_iter().flatten().min().filter(|&at| at <= until) else {
            return false;
        };
        self.at_once = if at > self.now { 0 } else { self.at_once + 1 };
        assert!(self.at_once < STANDSTILL, "time stands still at {:?}", self.now);
        self.now = self.now.max(at);
        true
    }

    fn turn(&mut self) {
        let now = self.now;
        let offload = self.stack.config().offload;
        for mut frame in segmentation::transmit(self.up.arrivals(now), offload) {
            if let Some(datagram) = self.stack.handle_frame(&mut frame, now) {
                self.world.handle_datagram(&datagram, now);
            }
            // Frames arrive in batches, but the answers to ARP and the like must not pile up.
            self.write_frames();
        }
        for frame in self.down.arrivals(now) {
            self.guest.handle_frame(frame);
        }
        self.world.handle_timeout(&mut self.stack, now);
        if self.stack.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.stack.handle_timeout(now);
        }
        loop {
            while let Some(action) = self.stack.poll_action() {
                self.world.handle_action(action, now);
            }
            while let Some(datagram) = self.stack.poll_datagram(now) {
                self.world.handle_datagram(&datagram, now);
            }
            let Some(flow) = self.stack.poll_ready(now) else {
                break;
            };
            self.world.pump(&mut self.stack, flow, now);
            self.write_frames();
        }
        self.write_frames();
        for frame in self.guest.poll(now) {
            self.transmit(frame);
        }
    }

    fn transmit(&mut self, frame: Vec<u8>) {
        self.digest.write_u64(self.now.as_micros());
        self.digest.write(&frame);
        self.up.send(frame, self.now);
    }

    fn write_frames(&mut self) {
        let (offload, mtu) = (self.stack.config().offload, self.stack.config().mtu);
        while let Some(frame) = self.stack.poll_frame(self.now) {
            self.digest.write_u64(self.now.as_micros());
            self.digest.write(frame);
            for one in segmentation::receive(frame, offload, usize::from(mtu)) {
                self.down.send(one, self.now);
            }
        }
    }
}
