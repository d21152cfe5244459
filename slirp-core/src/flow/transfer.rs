//! Bytes between a connection's rings and its host.
//!
//! Owns [`HostStream`], the interface of a TCP flow's host socket, and the two loops that lend the
//! rings to it. The flow decides when bytes are moved.

use core::time::Duration;

use crate::tcp::{Connection, Engine};

/// The host's end of a TCP flow, as far as the pure side needs it.
///
/// The product implements it over a non-blocking socket, simulators over a script.
pub trait HostStream {
    /// Takes bytes of the guest, as many as it can.
    fn send(&mut self, data: &[u8]) -> Transfer;
    /// Fills `room` with the bytes for the guest that are there. What arrived before the
    /// connection broke is there still, even after a failed [`send`](Self::send).
    fn recv(&mut self, room: &mut [u8]) -> Transfer;
    /// The guest will send nothing more.
    fn shutdown_write(&mut self);
    /// The guest has said nothing yet: the acknowledgement of the remote's SYN, held because of
    /// [`ConnectTcp::is_guest_eager`](crate::event::HostAction::ConnectTcp::is_guest_eager), waits
    /// no longer. Does nothing by default, for hosts that hold none.
    fn acknowledge(&mut self) {}
    /// The guest probes the connection once it has been idle for so long, in whole seconds: the
    /// host is to do the same, and fails with [`Transfer::Failed`] once the remote is gone. Does
    /// nothing by default, for hosts whose remote cannot vanish.
    fn keep_alive(&mut self, idle_for: Duration) {
        let _ = idle_for;
    }
    /// Whether [`recv`](Self::recv) may find something. Asked where a limit of the rate keeps it
    /// from being called; `true` by default, which costs a call in vain now and then.
    fn has_input(&self) -> bool {
        true
    }
}

/// What came of one transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// This many bytes were moved; at least one.
    Moved(usize),
    /// Nothing can be moved now; the stack is told by `wake_flow` when it can.
    Blocked,
    /// The remote has ended its direction.
    Ended,
    /// The connection is broken, and there is nothing more to receive if this was said of that.
    Failed,
}

/// How many bytes of payload a flow may move in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allowance {
    pub(crate) from_guest: usize,
    pub(crate) to_guest: usize,
}

impl Allowance {
    pub(crate) const UNLIMITED: Self = Self { from_guest: usize::MAX, to_guest: usize::MAX };
}

/// Whether a flow would have moved more if its [`Allowance`] had been larger.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wants {
    pub(crate) from_guest: bool,
    pub(crate) to_guest: bool,
}

/// Gives the host what the guest has sent, up to `limit` bytes and as far as the host takes it.
/// Returns how much that was, and why it was no more.
pub(super) fn drain_to_host(
    connection: &mut Connection,
    host: &mut impl HostStream,
    limit: usize,
) -> (usize, Transfer) {
    let mut moved = 0;
    loop {
        let mut outcome = Transfer::Blocked;
        if moved == limit {
            return (moved, outcome);
        }
        let taken = connection.lend_data(|data| {
            outcome = host.send(&data[..data.len().min(limit - moved)]);
            match outcome {
                Transfer::Moved(bytes) => bytes,
                Transfer::Blocked | Transfer::Ended | Transfer::Failed => 0,
            }
        });
        moved += taken;
        if taken == 0 {
            return (moved, outcome);
        }
    }
}

/// Takes from the host what the guest has room for, up to `limit` bytes. Returns how much that was,
/// and why it was no more: the host's reason, or `None` where there is no room.
pub(super) fn fill_from_host(
    connection: &mut Connection,
    host: &mut impl HostStream,
    engine: &mut Engine,
    limit: usize,
) -> (usize, Option<Transfer>) {
    let mut moved = 0;
    loop {
        if !connection.has_room() || moved >= limit {
            return (moved, None);
        }
        let mut outcome = Transfer::Blocked;
        let filled = engine.lend_room(connection, |room| {
            let len = room.len().min(limit - moved);
            outcome = host.recv(&mut room[..len]);
            match outcome {
                Transfer::Moved(bytes) => bytes,
                Transfer::Blocked | Transfer::Ended | Transfer::Failed => 0,
            }
        });
        moved += filled;
        if filled == 0 {
            return (moved, Some(outcome));
        }
    }
}
