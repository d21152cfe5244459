//! What all rings together may hold, and what happens when they do.

use super::*;
use crate::member::{Member, MemberId};
use crate::tcp::tests::packet::{PSH, RST};
use crate::timer::TimerOwner;

const KIB: usize = 1024;

/// A stack whose rings may hold `ring_memory` bytes together.
fn ladder(ring_memory: usize) -> Ladder {
    let mut config = config();
    config.limits.ring_memory = ring_memory;
    Ladder::with(config)
}

fn talks(ladder: &mut Ladder, count: u16) -> Vec<Talk> {
    (0..count)
        .map(|index| {
            let syn = Talk::syn(false, LINUX_OPTIONS);
            let from = SocketAddr::new(syn.from.ip(), 30_000 + index);
            Talk::open_with(ladder, &Draft { from, ..syn })
        })
        .collect()
}

/// Sends up to `len` bytes to a remote that takes none; returns whether the flow was reset.
fn fill_window(ladder: &mut Ladder, talk: &mut Talk, len: usize) -> bool {
    ladder.host(talk.flow, |host| host.room = 0);
    let data = stream(len);
    for piece in data.chunks(60 * KIB) {
        let heard = talk.say(ladder, ACK | PSH, piece);
        if heard.iter().any(|heard| heard.tcp.as_ref().unwrap().has(RST)) {
            return true;
        }
    }
    false
}

#[test]
fn guest_that_fills_every_window_is_reset_at_the_cap_and_keeps_what_it_had() {
    const FULL: usize = 240 * KIB;
    let mut ladder = ladder(1024 * KIB);
    let mut talks = talks(&mut ladder, 12);
    let resets: Vec<_> =
        talks.iter_mut().map(|talk| fill_window(&mut ladder, talk, FULL)).collect();
    let expected: Vec<_> = (0..12).map(|index| index >= 4).collect();
    assert_eq!(resets, expected, "four rings of 256 KiB fit");
    assert_eq!(ladder.discards(DiscardReason::RingMemoryExhausted), 8);
    let closed: Vec<_> = ladder.closes.iter().map(|&(flow, is_reset)| (flow, is_reset)).collect();
    assert_eq!(closed, talks[4..].iter().map(|talk| (talk.flow, true)).collect::<Vec<_>>());
    for talk in &talks[..4] {
        ladder.host(talk.flow, |host| host.room = usize::MAX);
        assert!(ladder.taken(talk.flow) == stream(FULL), "nothing of it is lost");
    }
    // Two gave their memory back at once; then it was tight no longer, and the others have time.
    assert_eq!(ladder.stack.stats().tcp_parked, 2);
    ladder.pass(Duration::from_secs(5));
    assert_eq!(ladder.stack.stats().tcp_parked, 4);
    let mut again = Talk::open(&mut ladder);
    assert!(!fill_window(&mut ladder, &mut again, FULL));
}

#[test]
fn member_that_fills_every_window_pays_for_it_alone() {
    let mut config = config();
    config.is_shared = true;
    config.limits.ring_memory = 1024 * KIB;
    let mut ladder = Ladder::with(config);
    for last in [100, 101] {
        let member = Member {
            mac: MAC,
            address: [10, 0, 2, last].into(),
            address6: None,
            names: Vec::new(),
            aliases: Vec::new(),
        };
        ladder.stack.handle_member_added(MemberId(u64::from(last)), &member, ladder.now);
    }
    let syn = Talk::syn(false, LINUX_OPTIONS);
    assert_eq!(syn.from.ip().to_string(), "10.0.2.100");
    let from = SocketAddr::from(([10, 0, 2, 101], 7));
    let mut other = Talk::open_with(&mut ladder, &Draft { from, ..syn });
    ladder.host(other.flow, |host| host.room = 0);
    let mut flood = talks(&mut ladder, 12);
    let data = stream(240 * KIB);
    let mut is_reset = false;
    for (index, talk) in flood.iter_mut().enumerate() {
        fill_window(&mut ladder, talk, 240 * KIB);
        ladder.pass(Duration::from_millis(200));
        // Meanwhile the other one gets its own across, a piece at a time.
        let piece = &data[index * 20 * KIB..][..20 * KIB];
        let heard = other.say(&mut ladder, ACK | PSH, piece);
        is_reset |= heard.iter().any(|heard| heard.tcp.as_ref().unwrap().has(RST));
    }
    assert!(!is_reset, "the other member has done nothing");
    assert!(ladder.closes.iter().all(|&(flow, _)| flow != other.flow));
    assert!(ladder.closes.len() >= 9, "{} of twelve", ladder.closes.len());
    ladder.host(other.flow, |host| host.room = usize::MAX);
    assert!(ladder.taken(other.flow) == data, "nothing of it is lost");
}

#[test]
fn many_downloads_in_little_memory_all_arrive_and_none_is_reset() {
    const LEN: usize = 1024 * KIB;
    const FLOWS: u16 = 32;
    // Half a ring for each.
    let mut ladder = ladder(4 * 1024 * KIB);
    let mut talks = talks(&mut ladder, FLOWS);
    let data = stream(LEN);
    let mut heard: Vec<_> = talks
        .iter()
        .map(|talk| ladder.host(talk.flow, |host| host.to_guest.extend(&data)))
        .collect();
    let mut taken = vec![Vec::new(); usize::from(FLOWS)];
    while taken.iter().any(|taken| taken.len() < LEN) {
        for (index, talk) in talks.iter_mut().enumerate() {
            let bytes = talk.take(&heard[index]);
            let is_done = bytes.is_empty();
            taken[index].extend(bytes);
            assert!(!is_done || taken[index].len() == LEN, "{index} stands still");
            heard[index] = talk.acknowledge(&mut ladder);
        }
    }
    assert!(taken.iter().all(|taken| *taken == data));
    assert_eq!(ladder.discards(DiscardReason::RingMemoryExhausted), 0);
    assert!(ladder.closes.is_empty());
}

#[test]
fn engine_is_looked_at_while_there_are_connections_and_then_no_more() {
    let mut ladder = Ladder::new();
    let owners = |ladder: &mut Ladder| {
        let mut owners = Vec::new();
        for _ in 0..20 {
            let Some((at, owner)) = ladder.stack.poll_timeout() else { break };
            owners.push(owner);
            ladder.now = ladder.now.max(at);
            ladder.stack.handle_timeout(ladder.now);
            ladder.turn();
        }
        owners
    };
    assert!(!owners(&mut ladder).contains(&TimerOwner::Engine));
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK, b"request");
    assert!(owners(&mut ladder).contains(&TimerOwner::Engine));
    talk.say(&mut ladder, RST | ACK, &[]);
    assert_eq!(ladder.closes.len(), 1);
    ladder.pass(Duration::from_secs(8));
    assert!(!owners(&mut ladder).contains(&TimerOwner::Engine));
}
