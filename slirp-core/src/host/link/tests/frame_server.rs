//! A socket at which virtual machines connect, in front of a real instance.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::link::{FrameListener, FrameServer, Framing};
use crate::instance::{Builder, Instance};

/// Longest wait for an event that has to come; only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(10);

fn start(name: &str) -> (Instance, PathBuf) {
    let path = std::env::temp_dir().join(format!("slirp-{name}-{}", std::process::id()));
    let server = FrameServer::new(FrameListener::bind(&path, Framing::Lengths).unwrap());
    (Builder::new(server).spawn().unwrap(), path)
}

/// Ends a connection. Another test may fork just now, and its process have the socket for a moment.
fn hang_up(peer: UnixStream) {
    peer.shutdown(Shutdown::Both).unwrap();
}

fn connect(path: &Path) -> UnixStream {
    let peer = UnixStream::connect(path).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer
}

/// Who has 10.0.2.2? Tell 10.0.2.100.
fn ask(mut peer: &UnixStream) {
    let mut request = [0, 0, 0, 42].to_vec();
    request.extend([0xff; 6]);
    request.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend([2, 0, 0, 0, 0, 1, 10, 0, 2, 100, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
    peer.write_all(&request).unwrap();
}

fn next_frame(mut peer: &UnixStream) -> Vec<u8> {
    let mut prefix = [0; 4];
    peer.read_exact(&mut prefix).unwrap();
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap();
    assert!((60..=1514).contains(&len), "out of step: {len}");
    let mut frame = vec![0; len];
    peer.read_exact(&mut frame).unwrap();
    frame
}

/// Asks until there is an answer, as a machine does: what was under way for the one before may have
/// taken the place of the first.
fn assert_answers(peer: &UnixStream) {
    let began_at = Instant::now();
    while began_at.elapsed() < PATIENCE {
        ask(peer);
        let has_frame = || {
            let mut polled = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::from(200_u8)).unwrap() == 1
        };
        while has_frame() {
            if next_frame(peer)[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] {
                return;
            }
        }
    }
    panic!("no answer");
}

#[test]
fn one_machine_after_the_other_is_served_and_never_two() {
    let (_instance, path) = start("frame-server");
    let first = connect(&path);
    assert_answers(&first);
    let mut second = connect(&path);
    assert_eq!(second.read(&mut [0; 64]).unwrap_or_default(), 0, "it is refused");
    assert_answers(&first);
    hang_up(first);
    assert_answers(&connect(&path));
}

#[test]
fn frame_that_waited_for_one_machine_is_not_sent_to_the_next() {
    let (_instance, path) = start("frame-server-full");
    let mut first = connect(&path);
    assert_answers(&first);
    // Frames of 1,400 bytes to the gateway, whose answers nobody reads.
    let mut echo = [0, 0, 5, 120].to_vec();
    echo.extend([0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    echo.extend([0x45, 0, 5, 106, 0, 1, 0, 0, 64, 1, 0x5d, 0x2d, 10, 0, 2, 100, 10, 0, 2, 2]);
    echo.extend([8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    echo.resize(4 + 1400, 0);
    for _ in 0..2000 {
        first.write_all(&echo).unwrap();
    }
    hang_up(first);
    let second = connect(&path);
    for _ in 0..10 {
        assert_answers(&second);
    }
}

#[test]
fn machine_that_follows_another_at_once_is_served() {
    let (_instance, path) = start("frame-server-swift");
    for _ in 0..20_000 {
        // It goes while the server looks whether another one waits.
        hang_up(connect(&path));
        let machine = connect(&path);
        ask(&machine);
        next_frame(&machine);
        hang_up(machine);
    }
}
