//! One bulk flow beside a crowd of idle ones: does a packet cost the same with 10,000 flows?
//!
//! Owns the steps 0, 1,000 and 10,000 within one arena, so that the ratio is the same stack against itself.
//! Peers stop at 1,000: slirp4netns walks all its sockets for every event and would take minutes.

use std::thread;
use std::time::Duration;

use super::memory::idle_client;
use super::tcp::Stream;
use super::{Direction, MTU_ETHERNET, Metric, Sample};
use crate::arena::Arena;
use crate::machine;
use crate::options::Options;
use crate::stack::{Stack, StackKind};

/// Idle flows beside the bulk flow.
const STEPS: [u64; 3] = [0, 1_000, 10_000];
/// The largest crowd peers are measured with.
const PEER_CROWD_CAP: u64 = 1_000;
/// Descriptors every process needs beside its flows.
const SPARE_DESCRIPTORS: u64 = 200;
/// What has just been opened is not idle yet: our stack puts a flow to sleep after 2 s without traffic.
const FALL_ASLEEP_FOR: Duration = Duration::from_secs(3);
/// Windows of our own stack at each step, since a step is held against another: one stream differs by a
/// sixth from window to window with no crowd at all (measured), and a bar is a tenth.
const WINDOWS: usize = 3;
/// Opening the crowd may take this long.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn name(direction: Direction) -> String {
    format!("crowd {}", direction.label())
}

pub(crate) fn row(direction: Direction, idle: u64) -> String {
    format!("crowd {} beside {idle} idle flows", direction.label())
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    direction: Direction,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (mut client, _server) = idle_client(&arena)?;
    let mut stream = Stream::open(&arena, direction, 1)?;
    let mut samples = Vec::new();
    let mut open = 0;
    let windows = match stack.kind {
        StackKind::Ours => WINDOWS,
        StackKind::Slirp4netns | StackKind::Pasta => 1,
    };
    for idle in STEPS {
        let too_many = match stack.kind {
            StackKind::Ours => idle + SPARE_DESCRIPTORS > machine::file_limit(),
            StackKind::Slirp4netns | StackKind::Pasta => idle > PEER_CROWD_CAP,
        };
        if too_many {
            break;
        }
        if idle > open {
            stream.pause()?;
            client.ask(&format!("open {}", idle - open), OPEN_WITHIN)?;
            open = idle;
            stream.resume()?;
            thread::sleep(FALL_ASLEEP_FOR);
        }
        thread::sleep(options.warm_up);
        let row = row(direction, idle);
        for _ in 0..windows {
            let window = stream.window(&arena, options.window)?;
            let (rate, cost) = (window.gigabits_per_second(), window.cpu_per_gigabyte());
            samples.push(Sample::new(row.clone(), Metric::Rate, rate));
            samples.push(Sample::new(row.clone(), Metric::CpuPerGigabyte, cost));
        }
    }
    Ok(samples)
}
