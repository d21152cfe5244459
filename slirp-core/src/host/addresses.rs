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
use crate::netlink::{Attributes, DUMP, INTERRUPTED, Message, Messages, address};

/// Room for what one recv(2) gives: the kernel's dumps come in pieces of up to 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;
/// How often the list is read again because it has changed meanwhile (arbitrary).
const READINGS_CAP: u32 = 16;
/// Length of `struct ifaddrmsg` in bytes: family, prefix, flags, scope, index.
const BODY_LEN: usize = 8;

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
    fn take(&mut self, messages: &[u8], sequence: u32) -> io::Result<()> {
        for message in Messages(messages) {
            if message.sequence != sequence {
                self.is_stale = true;
                continue;
            }
            self.is_stale |= message.flags & INTERRUPTED != 0;
            if message.kind == libc::RTM_NEWADDR {
                self.addresses.extend(address_of(message.body));
            } else if message.is_end() {
                self.is_whole = true;
            } else if let Some(error) = message.error() {
                return Err(io::Error::from_raw_os_error(error));
            }
        }
        Ok(())
    }
}

/// Asks for the addresses of all interfaces.
fn request(sequence: u32) -> Vec<u8> {
    Message::new(libc::RTM_GETADDR, DUMP, &[0; BODY_LEN]).finish(sequence)
}

/// The host's own address in a message: `IFA_LOCAL`, which `IFA_ADDRESS` stands for where there is
/// no other end.
fn address_of(message: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for (kind, value) in Attributes(message.get(BODY_LEN..)?) {
        if kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && found.is_none()) {
            found = address(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nix::ifaddrs::getifaddrs;

    use super::*;
    use crate::netlink::HEADER_LEN;

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

    fn body(attributes: &[(u16, [u8; 4])]) -> Vec<u8> {
        let mut message = Message::new(0, 0, &[0; BODY_LEN]);
        for (kind, value) in attributes {
            message.attribute(*kind, value);
        }
        message.finish(0)[HEADER_LEN..].to_vec()
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        Message::new(kind, 0, body).finish(sequence)
    }

    #[test]
    fn own_end_of_a_tunnel_counts_whatever_comes_first() {
        let ends = [(libc::IFA_ADDRESS, [10, 0, 0, 2]), (libc::IFA_LOCAL, [10, 0, 0, 1])];
        for order in [[0, 1], [1, 0]] {
            let body = body(&order.map(|end: usize| ends[end]));
            assert_eq!(address_of(&body), Some([10, 0, 0, 1].into()));
        }
    }

    #[test]
    fn change_within_a_dump_makes_it_stale_and_broken_messages_end_it() {
        let body = body(&[(libc::IFA_ADDRESS, [192, 0, 2, 1])]);
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
