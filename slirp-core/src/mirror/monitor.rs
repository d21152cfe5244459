//! News of the host's links, addresses and routes: rtnetlink(7).
//!
//! Owns two sockets of the host's network namespace that are opened before a sandbox or filter
//! forbids it: one hears that something has changed, the other reads the lists. A notification says
//! only *that* something has changed; a lost one costs nothing but one more reading.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::dump;

/// What is heard of. libc has no name for all of them on every target.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// Room for one notification; what does not fit is cut, and does not matter.
const BUFFER_LEN: usize = 4096;

crate::sys::calls::system_calls! {
    SYS_recvfrom => "changes of the host's network";
    SYS_sendto => "asks for the host's network";
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Monitor {
    news: OwnedFd,
    lists: OwnedFd,
    sequence: u32,
}

impl Monitor {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let route = SockProtocol::NetlinkRoute;
        let news = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        bind(news.as_raw_fd(), &NetlinkAddr::new(0, GROUPS.cast_unsigned()))?;
        Ok(Self { news, lists: dump::open()?, sequence: 0 })
    }

    /// The descriptor that is readable while there is news.
    pub(crate) fn news(&self) -> RawFd {
        self.news.as_raw_fd()
    }

    /// Forgets the news that there is.
    ///
    /// # Errors
    /// The kernel's, but not that news was lost.
    pub(crate) fn drain(&self) -> io::Result<()> {
        let mut buffer = [0; BUFFER_LEN];
        loop {
            match recv(self.news.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads the lists.
    ///
    /// # Errors
    /// Those of the kernel; [`io::ErrorKind::Other`] if the lists do not hold still.
    pub(super) fn read(&mut self) -> io::Result<Vec<u8>> {
        dump::read_over(&self.lists, &mut self.sequence)
    }
}
