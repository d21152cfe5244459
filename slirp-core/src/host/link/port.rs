//! The guest's link: whatever Ethernet frames come from and go to.
//!
//! Owns [`Link`], which is a TAP device, a socket or the devices of several members, and what the
//! event loop does with either of them: its place in the poller, the one frame that waits for a
//! link that is full, and the recording of everything that crosses it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mio::{Registry, Token};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::acceptance::Author;
use super::frame_server::FrameServer;
use super::frame_socket::FrameSocket;
use super::nothing::NoLink;
use super::recording::Recorder;
use super::switchboard::Switchboard;
use super::tap::Tap;
use crate::config::Offload;
use crate::member::MemberId;

/// What connects the guest.
#[derive(Debug)]
#[non_exhaustive]
pub enum Link {
    /// A TAP device, usually in the guest's network namespace.
    Tap(Tap),
    /// A socket that carries frames, usually to a virtual machine.
    Socket(FrameSocket),
    /// A socket at which virtual machines connect, one after the other.
    Server(FrameServer),
    /// The devices of several guests on one network.
    Members(Box<Switchboard>),
    /// No interface of the guest.
    Nothing(NoLink),
}

impl From<Tap> for Link {
    fn from(tap: Tap) -> Self {
        Self::Tap(tap)
    }
}

impl From<FrameSocket> for Link {
    fn from(socket: FrameSocket) -> Self {
        Self::Socket(socket)
    }
}

impl From<FrameServer> for Link {
    fn from(server: FrameServer) -> Self {
        Self::Server(server)
    }
}

impl From<NoLink> for Link {
    fn from(nothing: NoLink) -> Self {
        Self::Nothing(nothing)
    }
}

impl From<Switchboard> for Link {
    fn from(board: Switchboard) -> Self {
        Self::Members(Box::new(board))
    }
}

impl Link {
    /// What the link does for us.
    pub const fn offload(&self) -> Offload {
        match self {
            Self::Tap(tap) => tap.offload(),
            Self::Socket(_) | Self::Server(_) | Self::Nothing(_) => Offload::NOTHING,
            // What a member's device lacks is done for it.
            Self::Members(_) => Offload::FULL,
        }
    }

    /// Reads one frame. Another peer is put into `epoll` as `token`.
    fn read(&mut self, buf: &mut [u8], epoll: &Epoll, token: u64) -> io::Result<usize> {
        match self {
            Self::Tap(tap) => tap.read(buf),
            Self::Socket(socket) => socket.read(buf),
            Self::Server(server) => server.read(buf, epoll, token),
            Self::Members(board) => board.read(buf),
            Self::Nothing(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes one frame. `room` is for the packets of one that the device does not take.
    fn write(&mut self, frame: &[u8], room: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tap(tap) if tap.offload().vnet_header => {
                Ok(tap.write_or_cut(Author::Stack, frame, room)?)
            }
            Self::Tap(tap) => tap.write(frame),
            Self::Socket(socket) => socket.write(frame),
            Self::Server(server) => server.write(frame),
            Self::Members(board) => {
                board.write(frame);
                Ok(())
            }
            Self::Nothing(_) => Ok(()),
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
            Self::Server(server) => server.as_fd(),
            Self::Members(board) => board.as_fd(),
            Self::Nothing(nothing) => nothing.as_fd(),
        }
    }
}

/// A link in an event loop.
///
/// It is level-triggered, which mio does not offer: it is put into mio's own epoll instance.
#[derive(Debug)]
pub(crate) struct LinkPort {
    /// Dropped first, and so complete: the kernel may take seconds to remove a device.
    recorder: Option<Recorder>,
    link: Link,
    epoll: Epoll,
    token: u64,
    /// The frame that the link has not taken yet. No other is written before it.
    waiting: Option<Vec<u8>>,
    /// Where packets are put together for a device that refuses an offload.
    room: Vec<u8>,
}

impl LinkPort {
    /// Puts `link` into the poller behind `registry`, where it is reported as `token`.
    pub(crate) fn new(
        link: Link,
        recorder: Option<Recorder>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let epoll = Epoll(registry.as_fd().try_clone_to_owned()?);
        let token = u64::try_from(token.0).unwrap_or(u64::MAX);
        epoll.add(&link, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(Self { recorder, link, epoll, token, waiting: None, room: Vec::new() })
    }

    /// Whether the guest has no interface of ours.
    pub(crate) const fn is_nothing(&self) -> bool {
        matches!(self.link, Link::Nothing(_))
    }

    /// The members' devices, where there are members.
    pub(crate) fn switchboard(&mut self) -> Option<&mut Switchboard> {
        match &mut self.link {
            Link::Members(board) => Some(board),
            Link::Tap(_) | Link::Socket(_) | Link::Server(_) | Link::Nothing(_) => None,
        }
    }

    /// Reads one frame, with its virtio-net header where there is one; `EAGAIN` when there is none.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.link.read(buf, &self.epoll, self.token);
        if let Link::Server(server) = &mut self.link
            && server.has_changed()
        {
            self.waiting = None;
        }
        let len = read?;
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&buf[..len]);
        }
        Ok(len)
    }

    /// The member whose frame was read last, where there are members.
    pub(crate) const fn sender(&self) -> Option<MemberId> {
        match &self.link {
            Link::Members(board) => board.sender(),
            Link::Tap(_) | Link::Socket(_) | Link::Server(_) | Link::Nothing(_) => None,
        }
    }

    /// Writes one frame, or keeps it until the link takes it.
    ///
    /// Nothing may be written while a frame [waits](Self::is_full).
    pub(crate) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        match self.link.write(frame, &mut self.room) {
            Ok(()) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.record(frame);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wait_for(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
                self.waiting = Some(frame.to_vec());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a frame waits, so that no other can be written.
    pub(crate) const fn is_full(&self) -> bool {
        self.waiting.is_some()
    }

    /// Tries again to write the frame that waits. A frame that is refused is lost.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(frame) = self.waiting.take() else {
            return Ok(());
        };
        let written = self.write(&frame);
        if self.waiting.is_none() {
            self.wait_for(EpollFlags::EPOLLIN)?;
        }
        written
    }

    fn wait_for(&self, events: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(&self.link, &mut EpollEvent::new(events, self.token))?)
    }
}
