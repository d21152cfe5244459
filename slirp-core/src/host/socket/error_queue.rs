//! Reads one entry of a datagram socket's error queue.
//!
//! Owns the translation of a `sock_extended_err` into a [`DatagramError`]. Leaves the choice of
//! which entries matter to the socket that asks. The queue itself is bounded by the kernel: its
//! entries are charged to the socket's receive buffer. See ip(7) `IP_RECVERR`, ipv6(7)
//! `IPV6_RECVERR` and recvmsg(2) `MSG_ERRQUEUE`.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

use super::control::{ControlBuffer, socket_addr};
use crate::event::{DatagramError, HostError};

/// How many bytes of the datagram that caused an error are kept: an ICMP header, which names the
/// echo request. RFC 792 promises no more than that.
pub(crate) const QUOTE_CAP: usize = 8;

/// How many entries one question may skip because they are of no interest. More than fit into a
/// receive buffer of the default size (208 KiB, at least 768 bytes an entry).
pub(crate) const SKIP_CAP: usize = 280;

/// One entry of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueuedError {
    /// What happened to which remote.
    pub(crate) error: DatagramError,
    /// How much of `quoted` is there; nothing for an error of the local kernel.
    quoted_len: usize,
    quoted: [u8; QUOTE_CAP],
}

impl QueuedError {
    /// The first bytes of what was sent, after the IP header (ICMP) or the UDP header (UDP).
    pub(crate) fn quoted(&self) -> &[u8] {
        &self.quoted[..self.quoted_len]
    }
}

/// Takes the next error of the network or of the local kernel; `None` when the queue is empty.
pub(crate) fn take(fd: BorrowedFd<'_>) -> Option<QueuedError> {
    for _ in 0..SKIP_CAP {
        match take_entry(fd) {
            Ok(Some(entry)) => return Some(entry),
            Ok(None) | Err(Errno::EINTR) => {}
            // EAGAIN is the end of the queue. Anything else is a socket without a queue.
            Err(_) => return None,
        }
    }
    None
}

/// Takes one entry; `Ok(None)` when it is not about a datagram that went wrong (a timestamp).
fn take_entry(fd: BorrowedFd<'_>) -> Result<Option<QueuedError>, Errno> {
    let mut quoted = [0; QUOTE_CAP];
    let mut control = ControlBuffer::new();
    let mut parts = [IoSliceMut::new(&mut quoted)];
    let message = recvmsg::<SockaddrStorage>(
        fd.as_raw_fd(),
        &mut parts,
        Some(control.as_mut()),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )?;
    let quoted_len = message.bytes;
    let Ok(mut control_messages) = message.cmsgs() else { return Ok(None) };
    let found = control_messages.find_map(|control_message| {
        if let ControlMessageOwned::Ipv4RecvErr(error, offender) = control_message {
            Some((error, offender.map(|addr| IpAddr::from(addr.sin_addr.s_addr.to_ne_bytes()))))
        } else if let ControlMessageOwned::Ipv6RecvErr(error, offender) = control_message {
            Some((error, offender.map(|addr| IpAddr::from(addr.sin6_addr.s6_addr))))
        } else {
            None
        }
    });
    let Some((extended, offender)) = found else { return Ok(None) };
    let (icmp_type, icmp_code, offender) = match extended.ee_origin {
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => {
            (extended.ee_type, extended.ee_code, offender)
        }
        libc::SO_EE_ORIGIN_LOCAL => (0, 0, None),
        // Timestamps and zero-copy completions; the kernel fills in no address for them.
        _ => return Ok(None),
    };
    let Some(remote) = message.address.as_ref().and_then(socket_addr) else { return Ok(None) };
    let error = DatagramError {
        remote,
        offender,
        icmp_type,
        icmp_code,
        info: extended.ee_info,
        error: host_error(extended.ee_errno, extended.ee_info, remote),
    };
    Ok(Some(QueuedError { error, quoted_len, quoted }))
}

/// The plain error, with the MTU of a "packet too big". An IPv6 path that says it is smaller than
/// 1280 bytes is believed to the letter: RFC 8200 section 5 leaves that to the sender, who is the
/// guest.
fn host_error(errno: u32, info: u32, remote: SocketAddr) -> HostError {
    let error = i32::try_from(errno).map_or(HostError::NetworkUnreachable, HostError::from_errno);
    if let HostError::TooLarge(_) = error {
        tracing::debug!(%remote, mtu = info, "path takes no larger packet");
        return HostError::TooLarge(u16::try_from(info).ok().filter(|&mtu| mtu != 0));
    }
    error
}
