//! One bulk flow beside a crowd of idle ones: does a packet cost the same with 10,000 flows?
//!
//! Owns the crowds of 0, 1,000 and 10,000: each has its own arena, and the bulk flows beside them
//! take turns, since they are compared. Peers stop at 1,000: slirp4netns walks all its sockets for
//! every event and would take minutes.

use std::thread;
use std::time::Duration;

use super::memory::idle_client;
use super::tcp::Stream;
use super::{Direction, MTU_ETHERNET, Sample, Trial};
use crate::arena::Arena;
use crate::machine;
use crate::options::Options;
use crate::stack::{Stack, StackKind};
use crate::worker::Worker;

/// Idle flows beside the bulk flow.
const STEPS: [u64; 3] = [0, 1_000, 10_000];
/// The largest crowd for peers.
const PEER_CROWD_CAP: u64 = 1_000;
/// Descriptors every process needs beside its flows.
const SPARE_DESCRIPTORS: u64 = 200;
/// A new flow is not idle yet: our stack parks a flow after 2 s without traffic.
const FALL_ASLEEP_FOR: Duration = Duration::from_secs(3);
/// Opening the crowd may take this long.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn name(direction: Direction) -> String {
    format!("crowd {}", direction.label())
}

pub(crate) fn row(direction: Direction, idle: u64) -> String {
    format!("crowd {} beside {idle} idle flows", direction.label())
}

/// Bulk flows, each beside its crowd.
pub(crate) struct Crowds(Vec<Crowd>);

struct Crowd {
    row: String,
    stream: Stream,
    /// Both ends of the idle flows, which live as long as these.
    _idle: (Worker, Worker),
    arena: Arena,
}

impl Crowds {
    pub(crate) fn open(
        options: &Options,
        stack: &Stack,
        direction: Direction,
    ) -> anyhow::Result<Self> {
        let is_fit = |idle: &u64| match stack.kind {
            StackKind::Ours | StackKind::Policy | StackKind::Run | StackKind::Door => {
                idle + SPARE_DESCRIPTORS <= machine::file_limit()
            }
            StackKind::Slirp4netns | StackKind::Pasta => *idle <= PEER_CROWD_CAP,
        };
        let mut crowds = Vec::new();
        for idle in STEPS.into_iter().filter(is_fit) {
            let arena = Arena::open(options, stack, MTU_ETHERNET)?;
            let (mut client, server) = idle_client(&arena)?;
            client.ask(&format!("open {idle}"), OPEN_WITHIN)?;
            thread::sleep(FALL_ASLEEP_FOR);
            let mut stream = Stream::open(&arena, direction, 1)?;
            stream.warm_up(options)?;
            let row = row(direction, idle);
            crowds.push(Crowd { row, stream, _idle: (client, server), arena });
        }
        Ok(Self(crowds))
    }
}

impl Trial for Crowds {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for crowd in &mut self.0 {
            samples.extend(crowd.stream.turn(&crowd.arena, len)?.samples(&crowd.row));
        }
        Ok(samples)
    }
}
