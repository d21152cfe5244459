//! One direction of a joined connection.
//!
//! # Theory of operation
//! Bytes go from one socket to the other through a buffer that all bridges of a thread share. What
//! the receiving socket does not take stays here, and nothing more is read until it is gone: a
//! reader that stops is felt by the writer, and a direction holds one buffer at most. The end of
//! the sender's direction (FIN) is passed on behind the last byte.

use crate::flow::{HostStream, Transfer};
use crate::host::socket::table::TcpHost;

/// Bytes that one direction moves before others get their turn (arbitrary).
const SHARE: usize = 1 << 20;

/// See the [module](self).
#[derive(Default, Debug)]
pub(crate) struct Lane {
    /// What was received and not sent yet, from `start` on.
    rest: Vec<u8>,
    start: usize,
    end: End,
    /// Bytes that have been sent.
    moved: u64,
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

    /// Moves what can be moved now, through `buffer`.
    pub(crate) fn pump(
        &mut self,
        from: &mut TcpHost,
        to: &mut TcpHost,
        buffer: &mut [u8],
    ) -> Progress {
        let mut left = SHARE;
        loop {
            match self.send_rest(to) {
                Ok(true) => {}
                Ok(false) => return Progress::Waits,
                Err(progress) => return progress,
            }
            if self.end == End::Arrived {
                to.shutdown_write();
                self.end = End::Relayed;
            }
            if self.end == End::Relayed || !to.has_room() {
                return Progress::Waits;
            }
            if left == 0 {
                return if from.has_input() { Progress::HasMore } else { Progress::Waits };
            }
            match from.recv(buffer) {
                Transfer::Moved(len) => {
                    left = left.saturating_sub(len);
                    if let Err(progress) = self.send(to, &buffer[..len]) {
                        return progress;
                    }
                }
                Transfer::Blocked => return Progress::Waits,
                Transfer::Ended => self.end = End::Arrived,
                Transfer::Failed => return Progress::Broken,
            }
        }
    }

    /// Sends what has waited. Returns whether all of it is gone.
    fn send_rest(&mut self, to: &mut TcpHost) -> Result<bool, Progress> {
        while self.start < self.rest.len() {
            match to.send(&self.rest[self.start..]) {
                Transfer::Moved(len) => {
                    self.start += len;
                    self.moved += len as u64;
                }
                Transfer::Blocked => return Ok(false),
                Transfer::Ended | Transfer::Failed => return Err(Progress::Broken),
            }
        }
        if self.start > 0 {
            (self.rest, self.start) = (Vec::new(), 0);
        }
        Ok(true)
    }

    /// Sends `data`, and keeps what is not taken.
    fn send(&mut self, to: &mut TcpHost, data: &[u8]) -> Result<(), Progress> {
        let sent = match to.send(data) {
            Transfer::Moved(len) => len,
            Transfer::Blocked => 0,
            Transfer::Ended | Transfer::Failed => return Err(Progress::Broken),
        };
        self.moved += sent as u64;
        self.rest.extend_from_slice(&data[sent..]);
        Ok(())
    }
}
