//! The socket over which the kernel is asked to change interfaces, addresses and routes:
//! rtnetlink(7).
//!
//! Owns sending a message and waiting for its acknowledgement. Messages are made elsewhere, before
//! the fork. Nothing here allocates, so a forked child may use all of it.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A socket of rtnetlink(7), in the network namespace that it was opened in.
#[derive(Debug)]
pub(super) struct Rtnetlink(OwnedFd);

impl Rtnetlink {
    pub(super) fn open() -> Result<Self, Errno> {
        let route = SockProtocol::NetlinkRoute;
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Netlink, SockType::Raw, flags, route).map(Self)
    }

    /// Sends a message that asks for an acknowledgement, and waits for that.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn carry_out(&self, message: &[u8]) -> Result<(), Errno> {
        send(self.0.as_raw_fd(), message, MsgFlags::empty())?;
        // An error repeats the message that it is about. What does not fit is dropped.
        let mut answer = [0_u8; 64];
        let len = loop {
            match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        // struct nlmsghdr (16 bytes, the type after the length), then the error, negative or 0.
        match (len, answer) {
            (20.., [_, _, _, _, t0, t1, _, _, _, _, _, _, _, _, _, _, e0, e1, e2, e3, ..])
                if i32::from(u16::from_ne_bytes([t0, t1])) == libc::NLMSG_ERROR =>
            {
                match i32::from_ne_bytes([e0, e1, e2, e3]) {
                    0 => Ok(()),
                    error => Err(Errno::from_raw(error.wrapping_neg())),
                }
            }
            _ => Err(Errno::EBADMSG),
        }
    }
}
