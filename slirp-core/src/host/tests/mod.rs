//! Harness of the socket tests: waiting for readiness and networks of their own.
//!
//! Sockets only talk over loopback or inside a network namespace that the test has made.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};

/// Longest wait for an event that has to come; only a failing test ever waits that long.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const V4: &str = "127.0.0.1:0";
pub(super) const V6: &str = "[::1]:0";

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Waits for `events` (errors are always among them) and returns what there is.
pub(super) fn wait(fd: &impl AsFd, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, timeout).unwrap(), 1, "nothing happened within {PATIENCE:?}");
    fds[0].revents().unwrap()
}

/// Repeats `attempt` on each event of `fd` until it succeeds.
pub(super) fn eventually<S: AsFd, T>(
    socket: &mut S,
    events: PollFlags,
    mut attempt: impl FnMut(&mut S) -> Option<T>,
) -> T {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        wait(socket, events);
        if let Some(value) = attempt(socket) {
            return value;
        }
    }
    panic!("did not happen within {PATIENCE:?}");
}

/// Runs `body` on a thread in a new network namespace whose loopback is up.
///
/// Skipped, or failed when `SLIRP_REQUIRE_NETNS=1`, where that is not permitted.
pub(super) fn in_new_netns(body: impl FnOnce() + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            skip(&format!("a new network namespace: {errno}"));
            return;
        }
        ip("link set lo up");
        body();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

pub(super) fn skip(why: &str) {
    assert!(
        std::env::var_os("SLIRP_REQUIRE_NETNS").is_none_or(|value| value != "1"),
        "required, but not possible here: {why}"
    );
    eprintln!("SKIPPED: {why}");
}

/// Runs ip(8) in the namespace of this thread.
pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip(8)");
    assert!(status.success(), "ip {arguments}");
}

/// Makes a link in the namespace of this thread to a network where nobody answers, with 192.0.2.1
/// on it. `retrans_ms` is how long each of the three questions for an address waits.
pub(super) fn silent_network(retrans_ms: u32) {
    ip("link add silent type veth peer name far");
    let knob = "/proc/sys/net/ipv4/neigh/silent/retrans_time_ms";
    std::fs::write(knob, retrans_ms.to_string()).unwrap();
    ip("addr add 192.0.2.1/24 dev silent");
    ip("link set silent up");
    ip("link set far up");
}
