//! A Unix socket at which virtual machines connect, one after the other.
//!
//! Owns the change from one peer to the next. While there is a peer, others are refused; while
//! there is none, frames for it are dropped. A machine that starts again finds its network as it
//! left it. A server for one peer ends with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::frame_socket::{FrameListener, FrameSocket};

crate::sys::calls::system_calls! {
    SYS_accept4 => "the next virtual machine";
    SYS_epoll_ctl => "the next virtual machine";
}

/// A Unix socket at which virtual machines connect, one after the other. While there is one, others
/// are refused; while there is none, frames for it are dropped.
#[derive(Debug)]
pub struct FrameServer {
    listener: FrameListener,
    peer: Option<FrameSocket>,
    /// The next peer, until it is known whether the present one is still there.
    next: Option<FrameSocket>,
    /// Whether the first peer is the only one.
    ends_with_peer: bool,
    /// Whether the peer is not the one that [`FrameServer::has_changed`] was asked about last.
    has_changed: bool,
}

impl FrameServer {
    /// A server that has no peer yet.
    pub const fn new(listener: FrameListener) -> Self {
        Self { listener, peer: None, next: None, ends_with_peer: false, has_changed: false }
    }

    /// The same server for a single peer, whose end is the end of the network.
    #[must_use]
    pub fn ends_with_peer(self) -> Self {
        Self { ends_with_peer: true, ..self }
    }

    /// Reads one frame. A peer that comes is put into `epoll` as `token`.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, those of accept(2) and epoll_ctl(2), and
    /// [`io::ErrorKind::UnexpectedEof`] when the only peer has gone.
    pub(super) fn read(&mut self, buf: &mut [u8], epoll: &Epoll, token: u64) -> io::Result<usize> {
        loop {
            let read = match &mut self.peer {
                Some(peer) => peer.read(buf),
                None => {
                    let peer = self.next.take().map_or_else(|| self.listener.accept(), Ok)?;
                    epoll.add(&peer, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
                    tracing::info!("a peer has connected");
                    self.change(Some(peer));
                    continue;
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    if self.ends_with_peer {
                        return Err(error);
                    }
                    tracing::info!("the peer has hung up: the next one is awaited");
                    self.change(None);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.next.take().is_some() {
                        tracing::warn!("another peer is refused: there is one");
                    }
                    match self.listener.accept() {
                        // The present peer may have hung up before this one has come.
                        Ok(next) => self.next = Some(next),
                        Err(_) => return Err(error),
                    }
                }
                read => return read,
            }
        }
    }

    /// Writes one frame. Without a peer it is lost.
    ///
    /// # Errors
    /// As [`FrameSocket::write`], but for a peer that has gone.
    pub(super) fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        match peer.write(frame) {
            // Reading notices it, too.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => other,
        }
    }

    /// Whether there is another peer, or none any more, since this was asked last: what waited for
    /// the one before is to be forgotten.
    pub(super) fn has_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    fn change(&mut self, peer: Option<FrameSocket>) {
        self.peer = peer;
        self.has_changed = true;
    }
}

/// What takes frames: the peer, or the socket at which the next one arrives.
impl AsFd for FrameServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.peer.as_ref().map_or_else(|| self.listener.as_fd(), FrameSocket::as_fd)
    }
}
