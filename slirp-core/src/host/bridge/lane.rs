//! One direction of a joined connection.
//!
//! # Theory of operation
//! Bytes go from one socket to the other through a buffer that all bridges of a thread share. What
//! the receiving socket does not take stays here, and nothing more is read until it is gone: a
//! reader that stops is felt by the writer, and a direction holds one buffer at most, or a page
//! where all of them together hold much.
//!
//! A direction that has received much at once goes on through a pipe, as long as there is one:
//! splice(2) hands pages over instead of copying them (measured: half as much again, and round
//! trips of one byte as before). It sends without pacing from then on, too. The end of the sender's
//! direction (FIN) is passed on behind the last byte.

use std::cell::Cell;
use std::rc::Rc;

use super::pipe::{Pipe, Pipes};
use crate::flow::{HostStream, Transfer};
use crate::host::socket::table::TcpHost;

/// Bytes that one direction moves before others get their turn (arbitrary).
const SHARE: usize = 1 << 20;

/// Bytes that were received at once by a direction that moves much (arbitrary).
const BULK: usize = 64 * 1024;

/// Bytes that all directions together may hold in memory before each one takes pieces of
/// [`PIECE`] alone (arbitrary; a guest that reads nothing has one of its own in each connection).
const HELD_CAP: usize = 64 << 20;
/// See [`HELD_CAP`] (arbitrary: a page).
const PIECE: usize = 4096;

/// See the [module](self).
#[derive(Default, Debug)]
pub(crate) struct Lane {
    /// What was received and not sent yet.
    held: Held,
    /// Whether it has received [`BULK`] bytes at once.
    is_bulk: bool,
    end: End,
    /// Bytes that have been sent.
    moved: u64,
}

/// Where bytes are between the sockets.
#[derive(Default, Debug)]
enum Held {
    #[default]
    Nothing,
    /// In memory, from `start` on.
    Memory { bytes: Kept, start: usize },
    /// In a pipe, so many.
    Pipe { pipe: Pipe, len: usize },
}

/// Bytes in memory, which count among those of all directions.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    all: Rc<Cell<usize>>,
}

impl Kept {
    fn new(bytes: &[u8], all: &Rc<Cell<usize>>) -> Self {
        all.set(all.get() + bytes.len());
        Self { bytes: bytes.to_vec(), all: Rc::clone(all) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.bytes.len()));
    }
}

/// How far the end of a direction has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum End {
    #[default]
    Open,
    Arrived,
    Relayed,
}

/// How a direction stands after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// It waits for an event of a socket, or is over.
    Waits,
    /// Its share is used up.
    HasMore,
    /// One of the sockets is broken.
    Broken,
}

/// What all bridges of a thread move bytes through.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) pipes: Pipes,
    /// Bytes that all directions hold in memory.
    pub(crate) held: Rc<Cell<usize>>,
}

impl Means {
    /// How many bytes a direction may receive into the buffer.
    fn piece(&self) -> usize {
        if self.held.get() < HELD_CAP { self.buffer.len() } else { PIECE.min(self.buffer.len()) }
    }
}

impl Lane {
    /// Whether the end of the direction was passed on.
    pub(crate) fn is_over(&self) -> bool {
        self.end == End::Relayed
    }

    /// Whether the sender's end has arrived, so that nothing is read any more.
    pub(crate) fn is_read(&self) -> bool {
        self.end != End::Open
    }

    /// Bytes that were passed on.
    pub(crate) const fn moved(&self) -> u64 {
        self.moved
    }

    /// Moves what can be moved now.
    pub(crate) fn pump(
        &mut self,
        from: &mut TcpHost,
        to: &mut TcpHost,
        means: &mut Means,
    ) -> Progress {
        let mut left = SHARE;
        loop {
            match self.send_held(to) {
                Transfer::Moved(_) => {}
                Transfer::Blocked => return Progress::Waits,
                Transfer::Ended | Transfer::Failed => return Progress::Broken,
            }
            if self.end == End::Arrived {
                to.shutdown_write();
                self.end = End::Relayed;
                if let Held::Pipe { pipe, .. } = core::mem::take(&mut self.held) {
                    means.pipes.put(pipe);
                }
            }
            if self.end == End::Relayed || !to.has_room() {
                return Progress::Waits;
            }
            if left == 0 {
                return if from.has_input() { Progress::HasMore } else { Progress::Waits };
            }
            match self.receive(from, to, means) {
                Transfer::Moved(len) => left = left.saturating_sub(len),
                Transfer::Blocked => return Progress::Waits,
                Transfer::Ended => self.end = End::Arrived,
                Transfer::Failed => return Progress::Broken,
            }
        }
    }

    /// Sends what is held. `Moved` says that all of it is gone.
    fn send_held(&mut self, to: &mut TcpHost) -> Transfer {
        loop {
            let sent = match &mut self.held {
                Held::Nothing | Held::Pipe { len: 0, .. } => return Transfer::Moved(0),
                Held::Memory { bytes, start } => {
                    let rest = bytes.bytes.get(*start..).unwrap_or_default();
                    if rest.is_empty() {
                        self.held = Held::Nothing;
                        return Transfer::Moved(0);
                    }
                    let sent = to.send(rest);
                    if let Transfer::Moved(sent) = sent {
                        *start += sent;
                    }
                    sent
                }
                Held::Pipe { pipe, len } => {
                    let sent = to.send_from(pipe.reader(), *len);
                    if let Transfer::Moved(sent) = sent {
                        *len = len.saturating_sub(sent);
                    }
                    sent
                }
            };
            match sent {
                Transfer::Moved(sent) => self.moved += sent as u64,
                Transfer::Blocked | Transfer::Ended | Transfer::Failed => return sent,
            }
        }
    }

    /// Receives what there is, and sends it as far as it goes at once. Nothing is held before.
    fn receive(&mut self, from: &mut TcpHost, to: &mut TcpHost, means: &mut Means) -> Transfer {
        if self.is_bulk
            && let Held::Nothing = self.held
            && let Some(pipe) = means.pipes.take()
        {
            self.held = Held::Pipe { pipe, len: 0 };
        }
        if let Held::Pipe { pipe, len } = &mut self.held {
            let received = from.recv_into(pipe.writer(), SHARE);
            if let Transfer::Moved(received) = received {
                *len = received;
            }
            return received;
        }
        let piece = means.piece();
        let received = from.recv(&mut means.buffer[..piece]);
        let Transfer::Moved(len) = received else { return received };
        let data = &means.buffer[..len];
        let sent = match to.send(data) {
            Transfer::Moved(sent) => sent,
            Transfer::Blocked => 0,
            Transfer::Ended | Transfer::Failed => return Transfer::Failed,
        };
        self.moved += sent as u64;
        if let Some(rest) = data.get(sent..).filter(|rest| !rest.is_empty()) {
            self.held = Held::Memory { bytes: Kept::new(rest, &means.held), start: 0 };
        }
        if len >= BULK && !self.is_bulk {
            self.is_bulk = true;
            to.send_unpaced();
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream as Client};
    use std::os::fd::{AsFd as _, AsRawFd as _};

    use mio::unix::SourceFd;
    use socket2::SockRef;

    use super::*;
    use crate::host::socket::tcp::TcpStream;

    fn pair() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        (client, TcpStream::accepted(listener.accept().unwrap().0.into()).unwrap())
    }

    /// Waits until there is something to read.
    fn note_input(socket: &mut TcpHost) {
        let (mut poll, mut events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(1));
        let fd = socket.as_fd().as_raw_fd();
        let interest = mio::Interest::READABLE;
        poll.registry().register(&mut SourceFd(&fd), mio::Token(0), interest).unwrap();
        poll.poll(&mut events, None).unwrap();
        events.iter().for_each(|event| _ = socket.on_event(event));
    }

    #[test]
    fn direction_that_moves_much_is_not_paced() {
        let control = |socket: &TcpHost| {
            let mut name = SockRef::from(&socket.as_fd()).tcp_congestion().unwrap();
            name.retain(|byte| *byte != 0);
            String::from_utf8(name).unwrap()
        };
        let default = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        for (len, expected) in [(1000, default.trim()), (BULK, "reno")] {
            let (mut writer, near) = pair();
            let (_reader, far) = pair();
            let (mut near, mut far) = (TcpHost::new(near), TcpHost::new(far));
            writer.write_all(&vec![0; len]).unwrap();
            let buffer = vec![0; 2 * BULK].into_boxed_slice();
            let mut means = Means { buffer, pipes: Pipes::within(0), held: Rc::default() };
            let mut lane = Lane::default();
            note_input(&mut near);
            assert_eq!(lane.pump(&mut near, &mut far, &mut means), Progress::Waits);
            assert_eq!((lane.moved(), control(&far).as_str()), (len as u64, expected));
        }
    }

    #[test]
    fn directions_hold_less_where_all_together_hold_much() {
        for (before, least, most) in [(0, PIECE + 1, 32_768), (HELD_CAP, 1, PIECE)] {
            let (mut writer, near) = pair();
            let (reader, mut far) = pair();
            // Neither grows then, so what is full stays full.
            SockRef::from(&reader).set_recv_buffer_size(4096).unwrap();
            SockRef::from(&far).set_send_buffer_size(4096).unwrap();
            while let Ok(len) = far.send(&[0; 65_536])
                && len > 0
            {}
            writer.write_all(&[0; 32_768]).unwrap();
            let held = Rc::new(Cell::new(before));
            let buffer = vec![0; 65_536].into_boxed_slice();
            let mut means = Means { buffer, pipes: Pipes::within(0), held: Rc::clone(&held) };
            let mut lane = Lane::default();
            let (mut near, mut far) = (TcpHost::new(near), TcpHost::new(far));
            note_input(&mut near);
            assert_eq!(lane.pump(&mut near, &mut far, &mut means), Progress::Waits);
            let kept = held.get() - before;
            assert!((least..=most).contains(&kept), "{kept}");
            drop(lane);
            assert_eq!(held.get(), before);
        }
    }
}
