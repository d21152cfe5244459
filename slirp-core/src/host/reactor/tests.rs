//! The loop turn by turn, with a real poller and a guest behind a socket. This file tests the wait.

mod datagrams;
mod egress;
mod forwards;
mod inner;
mod members;
mod scene;

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};

use super::*;
use crate::config::StackConfig;
use crate::host::link::FrameSocket;

/// When the guest sends a frame; late enough for a sleeping thread to be asleep.
const PAUSE: Duration = Duration::from_millis(50);

fn reactor(busy_poll: BusyPoll) -> (Reactor, OwnedFd) {
    let (ours, guest) = pair();
    let link = FrameSocket::adopt(ours).unwrap().into();
    let (reactor, _) = reactor_on(link, StackConfig::default(), busy_poll);
    (reactor, guest)
}

fn reactor_on(link: Link, config: StackConfig, busy_poll: BusyPoll) -> (Reactor, Mailbox) {
    let stack = Stack::new(config);
    let (queries, _) = tokio::sync::mpsc::channel(1);
    let outbound = OutboundAddresses::default();
    Reactor::new(link, None, stack, outbound, queries, busy_poll, None).unwrap()
}

/// Sockets that carry frames.
fn pair() -> (OwnedFd, OwnedFd) {
    let kind = SockType::SeqPacket;
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// A `BusyPoll` that has seen enough close turns to poll for up to `limit`.
fn looking(limit: Duration) -> BusyPoll {
    let mut busy_poll = BusyPoll::new(limit, 2);
    while busy_poll.span().is_none() {
        busy_poll.note_turn(false, Instant::ZERO);
    }
    busy_poll
}

/// Waits for a frame that comes after [`PAUSE`]. Returns how often the thread slept.
fn sleeps(reactor: &mut Reactor, guest: OwnedFd) -> i64 {
    let mut events = Events::with_capacity(8);
    let sleeps_so_far = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches();
    let speaking = thread::spawn(move || {
        thread::sleep(PAUSE);
        send(guest.as_raw_fd(), &[0; 60], MsgFlags::empty()).unwrap();
        guest
    });
    let before = sleeps_so_far();
    reactor.wait(&mut events).unwrap();
    let slept = sleeps_so_far() - before;
    assert!(
        events
            .iter()
            .any(|event| Source::of(event.token()) == Some(Source::Link) && event.is_readable())
    );
    drop(speaking.join().unwrap());
    slept
}

#[test]
fn thread_that_looks_does_not_sleep() {
    let (mut reactor, guest) = reactor(looking(Duration::from_secs(60)));
    assert_eq!(sleeps(&mut reactor, guest), 0);
}

#[test]
fn thread_that_looked_in_vain_sleeps_and_misses_nothing() {
    let (mut reactor, guest) = reactor(looking(Duration::from_millis(1)));
    assert!(sleeps(&mut reactor, guest) > 0);
}

#[test]
fn thread_sleeps_where_much_gathers() {
    let busy_poll = || looking(Duration::from_secs(60));
    let (mut bulk, guest) = reactor(busy_poll());
    send(guest.as_raw_fd(), &[0; BULK_FRAME], MsgFlags::empty()).unwrap();
    bulk.read_frames(Instant::ZERO).unwrap();
    assert!(sleeps(&mut bulk, guest) > 0);

    let (mut crowded, guest) = reactor(busy_poll());
    crowded
        .timer
        .set(Expiration::OneShot(TimeSpec::new(0, 1)), TimerSetTimeFlags::empty())
        .unwrap();
    send(guest.as_raw_fd(), &[0; 60], MsgFlags::empty()).unwrap();
    let mut events = Events::with_capacity(8);
    while events.iter().count() < 2 {
        crowded.wait(&mut events).unwrap();
    }
    crowded.note_events(&events, Instant::ZERO);
    crowded.read_frames(Instant::ZERO).unwrap();
    assert!(sleeps(&mut crowded, guest) > 0);
}

#[test]
fn thread_that_must_not_look_sleeps() {
    let (mut reactor, guest) = reactor(BusyPoll::new(Duration::ZERO, 2));
    assert!(sleeps(&mut reactor, guest) > 0);
}
