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

    /// Whether a socket has broken from which nothing is read any more, or not yet. Asked when the
    /// poller reports an error.
    pub(crate) fn has_broken(&mut self) -> bool {
        let Far::Joined(far) = &mut self.far else { return self.near.has_broken() };
        (self.outward.is_read() && self.near.has_broken())
            || (self.homeward.is_read() && far.has_broken())
    }

    /// Whether a socket has broken from which nothing is read because the other one takes nothing.
    pub(crate) fn is_forsaken(&mut self) -> bool {
        let Far::Joined(far) = &mut self.far else { return false };
        (!far.has_room() && self.near.has_broken()) || (!self.near.has_room() && far.has_broken())
    }

    /// Whether the far socket is not connected yet.
    pub(crate) const fn is_opening(&self) -> bool {
        match &self.far {
            Far::Held(_) | Far::Connecting { .. } => true,
            Far::Joined(_) => false,
        }
    }

    /// Whether one of the two directions has ended, although its end may not have been read.
    pub(crate) const fn is_closing(&self) -> bool {
        match &self.far {
            Far::Held(_) | Far::Connecting { .. } => false,
            Far::Joined(far) => self.near.is_ending() || far.is_ending(),
        }
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
            Far::Held(_) => {}
            // The server may have accepted it by now.
            Far::Connecting { stream, .. } => stream.reset(),
            Far::Joined(far) => far.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _};
    use std::net::{SocketAddr, TcpListener, TcpStream as Client};
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    fn pair() -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap()).unwrap();
        (client, TcpStream::accepted(listener.accept().unwrap().0.into()).unwrap())
    }

    fn bridge() -> (Client, TcpBridge) {
        let (client, near) = pair();
        let first = SocketAddr::from(([127, 0, 0, 1], 1));
        (client, TcpBridge::new(near, Targets { first, other: None }))
    }

    fn reset(client: Client) {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }

    #[test]
    fn client_that_gives_up_is_noticed_before_the_far_side_has_answered() {
        let (client, mut bridge) = bridge();
        assert!(!bridge.has_broken());
        reset(client);
        assert!(bridge.has_broken());
    }

    #[test]
    fn server_that_has_accepted_a_connection_that_was_not_joined_yet_sees_a_reset() {
        let (_client, mut bridge) = bridge();
        let (mut server, stream) = pair();
        let targets = Targets { first: ([127, 0, 0, 1], 1).into(), other: None };
        bridge.far = Far::Connecting { stream, targets };
        bridge.reset();
        let error = server.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn client_that_gives_up_is_noticed_behind_a_far_side_that_takes_nothing() {
        let (client, mut bridge) = bridge();
        let (_reader, mut far) = pair();
        let piece = [0; 65_536];
        while let Ok(len) = far.send(&piece)
            && len > 0
        {}
        bridge.join(far);
        reset(client);
        assert!(!bridge.is_forsaken(), "there may be room");
        let Far::Joined(far) = &mut bridge.far else { panic!("it was joined") };
        assert_eq!(crate::flow::HostStream::send(far, &piece), crate::flow::Transfer::Blocked);
        assert!(bridge.is_forsaken());
    }
}
