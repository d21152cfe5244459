//! The addresses of the host's interfaces, and when they change: rtnetlink(7).
//!
//! Owns a socket that is opened before a sandbox or filter forbids it, and the reading of dumps and
//! notifications. Only an egress policy asks for the addresses: its set `host` is any of them.
//!
//! A notification says only that something has changed. The whole list is read again then, which
//! costs the kernel microseconds, and a lost notification costs nothing but one more reading.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use super::token::Source;

/// Room for what one recv(2) gives: the kernel's dumps come in pieces of up to 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;
/// How often the list is read again because it has changed meanwhile (arbitrary).
const READINGS_CAP: u32 = 16;
/// Length of `struct nlmsghdr` in bytes: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;
/// Length of `struct ifaddrmsg` in bytes: family, prefix, flags, scope, index.
const BODY_LEN: usize = 8;
/// Length of the header of an attribute in bytes: length, type.
const ATTRIBUTE_LEN: usize = 4;
/// `NLM_F_REQUEST | NLM_F_DUMP` (netlink(7)).
const DUMP: u16 = 0x1 | 0x300;
/// The list has changed while it was read (`NLM_F_DUMP_INTR`).
const INTERRUPTED: u16 = 0x10;

crate::sys::calls::system_calls! {
    SYS_sendto => "asks for the host's addresses";
    SYS_recvfrom => "the host's addresses, and that they have changed";
    SYS_epoll_ctl => "the poller is told of their socket";
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct HostAddresses {
    socket: OwnedFd,
    sequence: u32,
}

/// What one reading has found.
#[derive(Default)]
struct Reading {
    addresses: Vec<IpAddr>,
    is_whole: bool,
    /// Whether something has changed meanwhile.
    is_stale: bool,
}

impl HostAddresses {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Has `registry` watch for changes.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn register(&self, registry: &Registry) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        registry.register(&mut SourceFd(&fd), Source::Addresses.token()?, Interest::READABLE)
    }

    /// Reads all addresses, and all notifications of changes that led to them.
    ///
    /// # Errors
    /// Those of the kernel; [`io::ErrorKind::Other`] if the list does not hold still.
    pub(crate) fn read(&mut self) -> io::Result<Vec<IpAddr>> {
        for _ in 0..READINGS_CAP {
            self.sequence = self.sequence.wrapping_add(1);
            let fd = self.socket.as_raw_fd();
            send(fd, &request(self.sequence), MsgFlags::empty())?;
            let reading = self.collect()?;
            if !reading.is_whole {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !reading.is_stale {
                return Ok(reading.addresses);
            }
        }
        Err(io::Error::other("the addresses change all the time"))
    }

    /// Reads until there is nothing more: the kernel makes the pieces of a dump as they are taken.
    fn collect(&self) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => reading.take(&buffer[..len], self.sequence)?,
                Err(Errno::EAGAIN) => return Ok(reading),
                Err(Errno::EINTR) => {}
                // Notifications were lost.
                Err(Errno::ENOBUFS) => reading.is_stale = true,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Reading {
    /// Takes the messages of one recv(2); those of the dump have its sequence number.
    fn take(&mut self, mut messages: &[u8], sequence: u32) -> io::Result<()> {
        while let Some((kind, flags, number, message)) = next_message(&mut messages) {
            if number != sequence {
                self.is_stale = true;
                continue;
            }
            self.is_stale |= flags & INTERRUPTED != 0;
            if kind == libc::RTM_NEWADDR {
                self.addresses.extend(address_of(message));
            } else if i32::from(kind) == libc::NLMSG_DONE {
                self.is_whole = true;
            } else if i32::from(kind) == libc::NLMSG_ERROR {
                let error = message.first_chunk().map_or(0, |error| i32::from_ne_bytes(*error));
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
        }
        Ok(())
    }
}

/// Asks for the addresses of all interfaces.
fn request(sequence: u32) -> [u8; HEADER_LEN + BODY_LEN] {
    let mut request = [0; HEADER_LEN + BODY_LEN];
    let len = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETADDR.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request
}

/// Type, flags, sequence number and body of the next message; `None` behind the last.
fn next_message<'m>(messages: &mut &'m [u8]) -> Option<(u16, u16, u32, &'m [u8])> {
    let &[l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] =
        messages.first_chunk::<HEADER_LEN>()?;
    let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = messages.get(HEADER_LEN..len)?;
    *messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
    let (kind, flags) = (u16::from_ne_bytes([k0, k1]), u16::from_ne_bytes([f0, f1]));
    Some((kind, flags, u32::from_ne_bytes([s0, s1, s2, s3]), body))
}

/// The host's own address in a message: `IFA_LOCAL`, which `IFA_ADDRESS` stands for where there is
/// no other end.
fn address_of(message: &[u8]) -> Option<IpAddr> {
    let mut attributes = message.get(BODY_LEN..)?;
    let mut found = None;
    while let Some(&[l0, l1, k0, k1]) = attributes.first_chunk::<ATTRIBUTE_LEN>() {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = attributes.get(ATTRIBUTE_LEN..len)?;
        let kind = u16::from_ne_bytes([k0, k1]);
        if kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && found.is_none()) {
            found = address(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::ifaddrs::getifaddrs;

    use super::*;

    /// The same by another way.
    fn of_libc() -> BTreeSet<IpAddr> {
        let addresses = getifaddrs().unwrap().filter_map(|interface| interface.address);
        addresses
            .filter_map(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
            })
            .collect()
    }

    #[test]
    fn all_addresses_are_read_as_often_as_wanted() {
        let mut addresses = HostAddresses::open().unwrap();
        for _ in 0..3 {
            let read: BTreeSet<_> = addresses.read().unwrap().into_iter().collect();
            assert_eq!(read, of_libc());
        }
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(HEADER_LEN + body.len()).unwrap();
        let mut message = len.to_ne_bytes().to_vec();
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&[0; 2]);
        message.extend_from_slice(&sequence.to_ne_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(body);
        message
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(ATTRIBUTE_LEN + value.len()).unwrap();
        [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    }

    #[test]
    fn own_end_of_a_tunnel_counts_whatever_comes_first() {
        let ends = [attribute(libc::IFA_ADDRESS, &[10, 0, 0, 2]), attribute(2, &[10, 0, 0, 1])];
        for order in [[0, 1], [1, 0]] {
            let body = [&[0; BODY_LEN][..], &ends[order[0]], &ends[order[1]]].concat();
            assert_eq!(address_of(&body), Some([10, 0, 0, 1].into()));
        }
    }

    #[test]
    fn change_within_a_dump_makes_it_stale_and_broken_messages_end_it() {
        let body = [&[0; BODY_LEN][..], &attribute(libc::IFA_ADDRESS, &[192, 0, 2, 1])].concat();
        let entry = message(libc::RTM_NEWADDR, 7, &body);
        let news = message(libc::RTM_NEWADDR, 0, &body);
        let done = message(3, 7, &[0; 4]);
        let mut reading = Reading::default();
        reading.take(&[&entry[..], &done].concat(), 7).unwrap();
        assert_eq!(reading.addresses, [IpAddr::from([192, 0, 2, 1])]);
        assert!(reading.is_whole && !reading.is_stale);
        reading.take(&news, 7).unwrap();
        assert!(reading.is_stale);
        for len in 0..entry.len() {
            let mut reading = Reading::default();
            reading.take(&entry[..len], 7).unwrap();
            assert!(reading.addresses.is_empty() && !reading.is_whole);
        }
    }
}
