//! A joined connection.
//!
//! Owns its two sockets and directions. The near socket was accepted; the far one is connected on
//! its behalf. The connection is over when both directions are, and broken when one socket is:
//! then both are reset.

use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Event;

use super::lane::{Lane, Means, Progress};
use crate::flow::FlowState;
use crate::host::inner::inward::Targets;
use crate::host::socket::table::TcpHost;
use crate::host::socket::tcp::TcpStream;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct TcpBridge {
    near: TcpHost,
    pub(crate) far: Far,
    /// From the near socket to the far one.
    outward: Lane,
    homeward: Lane,
}

/// The far socket.
#[derive(Debug)]
pub(crate) enum Far {
    /// It waits for a verdict.
    Held(Targets),
    /// It is being connected.
    Connecting {
        /// The socket.
        stream: TcpStream,
        /// Where it goes, and where another one goes if it is refused.
        targets: Targets,
    },
    /// It is connected.
    Joined(TcpHost),
}

/// How a bridge stands after its turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It waits for events.
    Waits,
    /// It has more to move.
    HasMore,
    /// Both directions have ended.
    Over,
    /// It is to be reset.
    Broken,
}

impl TcpBridge {
    /// A bridge for an accepted connection.
    pub(crate) fn new(near: TcpStream, targets: Targets) -> Self {
        Self {
            near: TcpHost::new(near),
            far: Far::Held(targets),
            outward: Lane::default(),
            homeward: Lane::default(),
        }
    }

    /// Notes an event of the near socket.
    pub(crate) fn on_near_event(&mut self, event: &Event) {
        self.near.on_event(event);
    }

    /// Notes an event of the far socket, if it is connected.
    pub(crate) fn on_far_event(&mut self, event: &Event) {
        if let Far::Joined(far) = &mut self.far {
            far.on_event(event);
        }
    }

    /// The far socket is connected.
    pub(crate) fn join(&mut self, far: TcpStream) {
        self.far = Far::Joined(TcpHost::new(far));
    }

    /// Moves what can be moved now.
    pub(crate) fn pump(&mut self, means: &mut Means) -> Standing {
        let Self { near, far: Far::Joined(far), outward, homeward } = self else {
            return Standing::Waits;
        };
        let there = outward.pump(near, far, means);
        if there == Progress::Broken {
            return Standing::Broken;
        }
        let back = homeward.pump(far, near, means);
        match (there, back) {
            (_, Progress::Broken) | (Progress::Broken, _) => Standing::Broken,
            _ if outward.is_over() && homeward.is_over() => Standing::Over,
            (Progress::HasMore, _) | (_, Progress::HasMore) => Standing::HasMore,
            (Progress::Waits, Progress::Waits) => Standing::Waits,
        }
    }

    /// Whether a socket has broken from which nothing is read any more. Asked when the poller
    /// reports an error.
    pub(crate) fn has_broken(&mut self) -> bool {
        let Far::Joined(far) = &mut self.far else { return false };
        (self.outward.is_read() && self.near.has_broken())
            || (self.homeward.is_read() && far.has_broken())
    }

    /// Bytes that went from the near socket to the far one, and back.
    pub(crate) const fn moved(&self) -> (u64, u64) {
        (self.outward.moved(), self.homeward.moved())
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> FlowState {
        match &self.far {
            Far::Held(_) => FlowState::Asking,
            Far::Connecting { .. } => FlowState::Connecting,
            Far::Joined(_) if self.outward.is_read() || self.homeward.is_read() => {
                FlowState::Closing
            }
            Far::Joined(_) => FlowState::Open,
        }
    }

    /// The near socket.
    pub(crate) fn near(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }

    /// The far socket, if there is one.
    pub(crate) fn far(&self) -> Option<BorrowedFd<'_>> {
        match &self.far {
            Far::Held(_) => None,
            Far::Connecting { stream, .. } => Some(stream.as_fd()),
            Far::Joined(far) => Some(far.as_fd()),
        }
    }

    /// Resets both connections.
    pub(crate) fn reset(self) {
        self.near.reset();
        match self.far {
            Far::Held(_) | Far::Connecting { .. } => {}
            Far::Joined(far) => far.reset(),
        }
    }
}
