//! One direction of a joined connection.
//!
//! # Theory of operation
//! Bytes go from one socket to the other through a buffer that all bridges of a thread share. What
//! the receiving socket does not take stays here, and nothing more is read until it is gone: a
//! reader that stops is felt by the writer, and a direction holds one buffer at most.
//!
//! A direction that has received much at once goes on through a pipe, as long as there is one:
//! splice(2) hands pages over instead of copying them (measured: half as much again, and round
//! trips of one byte as before). The end of the sender's direction (FIN) is passed on behind the
//! last byte.

use super::pipe::{Pipe, Pipes};
use crate::flow::{HostStream, Transfer};
use crate::host::socket::table::TcpHost;

/// Bytes that one direction moves before others get their turn (arbitrary).
const SHARE: usize = 1 << 20;

/// Bytes that were received at once by a direction that moves much (arbitrary).
const BULK: usize = 64 * 1024;

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
#[derive(Debug)]
enum Held {
    /// In memory, from `start` on.
    Memory { bytes: Vec<u8>, start: usize },
    /// In a pipe, so many.
    Pipe { pipe: Pipe, len: usize },
}

impl Default for Held {
    fn default() -> Self {
        Self::Memory { bytes: Vec::new(), start: 0 }
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
                Held::Memory { bytes, start } => {
                    let rest = bytes.get(*start..).unwrap_or_default();
                    if rest.is_empty() {
                        if *start > 0 {
                            self.held = Held::default();
                        }
                        return Transfer::Moved(0);
                    }
                    let sent = to.send(rest);
                    if let Transfer::Moved(sent) = sent {
                        *start += sent;
                    }
                    sent
                }
                Held::Pipe { len: 0, .. } => return Transfer::Moved(0),
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
            && let Held::Memory { .. } = self.held
            && let Some(pipe) = means.pipes.take()
        {
            self.held = Held::Pipe { pipe, len: 0 };
        }
        let bytes = match &mut self.held {
            Held::Pipe { pipe, len } => {
                let received = from.recv_into(pipe.writer(), SHARE);
                if let Transfer::Moved(received) = received {
                    *len = received;
                }
                return received;
            }
            Held::Memory { bytes, .. } => bytes,
        };
        let received = from.recv(&mut means.buffer);
        let Transfer::Moved(len) = received else { return received };
        let data = &means.buffer[..len];
        let sent = match to.send(data) {
            Transfer::Moved(sent) => sent,
            Transfer::Blocked => 0,
            Transfer::Ended | Transfer::Failed => return Transfer::Failed,
        };
        self.moved += sent as u64;
        bytes.extend_from_slice(&data[sent..]);
        self.is_bulk |= len >= BULK;
        received
    }
}
