//! Which ports are in use in a network namespace: sock_diag(7).
//!
//! Owns the request and the reading of its answers. The kernel looks at listening TCP sockets and
//! unconnected UDP sockets alone, however many connections there are; a dump of a few sockets takes
//! some 50 us (measured). The socket asks about the namespace of the thread that has opened it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::ports::PortSet;
use crate::host::forward::ForwardProtocol;

/// Room for what one recv(2) gives: the kernel's dumps come in pieces of up to 32 KiB.
const BUFFER_LEN: usize = 32 * 1024;
/// Length of `struct nlmsghdr` in bytes: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;
/// Length of `struct inet_diag_req_v2`: family, protocol, two bytes, states, `struct
/// inet_diag_sockid` (48 bytes).
const REQUEST_LEN: usize = 56;
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` (netlink(7)).
const DUMP: u16 = 0x1 | 0x300;
/// The bits of the states `TCP_LISTEN` and `TCP_CLOSE`; an unconnected UDP socket is in the latter
/// (include/net/tcp_states.h).
const LISTENING: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;

crate::sys::calls::system_calls! {
    SYS_sendto => "asks which ports are in use";
    SYS_recvfrom => "which ports are in use";
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct SocketDiag {
    socket: OwnedFd,
    sequence: u32,
}

/// Which sockets count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// All of them.
    Anywhere,
    /// Those that can be reached at a loopback address.
    Loopback,
}

impl SocketDiag {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Those of socket(2).
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let diag = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, diag)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The ports at which something receives.
    ///
    /// # Errors
    /// Those of the kernel: `ENOENT` without `CONFIG_INET_DIAG` or `CONFIG_INET_UDP_DIAG`.
    pub(crate) fn ports(&mut self, protocol: ForwardProtocol, reach: Reach) -> io::Result<PortSet> {
        let mut ports = PortSet::default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(family, protocol, self.sequence);
            send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
            self.collect(reach, &mut ports)?;
        }
        Ok(ports)
    }

    /// Reads a dump to its end: the kernel makes its pieces as they are taken.
    fn collect(&self, reach: Reach, ports: &mut PortSet) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => {
                    if take(&buffer[..len], self.sequence, reach, ports)? {
                        return Ok(());
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Takes the messages of one recv(2). Returns whether the dump is over.
fn take(mut messages: &[u8], sequence: u32, reach: Reach, ports: &mut PortSet) -> io::Result<bool> {
    while let Some(&[l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, ..]) =
        messages.first_chunk::<HEADER_LEN>()
    {
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let Some(body) = messages.get(HEADER_LEN..len) else { break };
        messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
        // The rest of an earlier dump that was given up.
        if u32::from_ne_bytes([s0, s1, s2, s3]) != sequence {
            continue;
        }
        match i32::from(u16::from_ne_bytes([k0, k1])) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let error = body.first_chunk().map_or(0, |error| i32::from_ne_bytes(*error));
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
            _ => {
                if let Some((address, port)) = local(body)
                    && (reach == Reach::Anywhere || is_at_loopback(address))
                {
                    ports.insert(port);
                }
            }
        }
    }
    Ok(false)
}

/// Address and port of a socket, from a `struct inet_diag_msg`: family, three bytes, ports in
/// network order, the local address.
fn local(message: &[u8]) -> Option<(IpAddr, u16)> {
    let &[family, _, _, _, p0, p1, _, _] = message.first_chunk()?;
    let address = message.get(8..)?;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::from(*address.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(*address.first_chunk::<16>()?),
        _ => return None,
    };
    Some((address, u16::from_be_bytes([p0, p1])))
}

fn is_at_loopback(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback()
        || address == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        || address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

fn request(
    family: libc::c_int,
    protocol: ForwardProtocol,
    sequence: u32,
) -> [u8; HEADER_LEN + REQUEST_LEN] {
    let byte = |number: libc::c_int| u8::try_from(number).unwrap_or_default();
    let (protocol, states) = match protocol {
        ForwardProtocol::Tcp => (libc::IPPROTO_TCP, LISTENING),
        ForwardProtocol::Udp => (libc::IPPROTO_UDP, UNCONNECTED),
    };
    let mut request = [0; HEADER_LEN + REQUEST_LEN];
    let len = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&len.to_ne_bytes());
    request[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request[16..18].copy_from_slice(&[byte(family), byte(protocol)]);
    request[20..24].copy_from_slice(&states.to_ne_bytes());
    request
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn bound_ports_are_found_and_connected_ones_are_not() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let client = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let mut diag = SocketDiag::open().unwrap();
        let found = diag.ports(ForwardProtocol::Tcp, Reach::Loopback).unwrap();
        assert!(found.contains(tcp.local_addr().unwrap().port()));
        assert!(!found.contains(client.local_addr().unwrap().port()));
        let found = diag.ports(ForwardProtocol::Udp, Reach::Loopback).unwrap();
        assert!(found.contains(udp.local_addr().unwrap().port()));
        let port = tcp.local_addr().unwrap().port();
        drop(tcp);
        assert!(!diag.ports(ForwardProtocol::Tcp, Reach::Anywhere).unwrap().contains(port));
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(HEADER_LEN + body.len()).unwrap();
        [
            &len.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &[0; 2],
            &sequence.to_ne_bytes(),
            &[0; 4],
            body,
        ]
        .concat()
    }

    fn entry(family: u8, port: u16, address: &[u8]) -> Vec<u8> {
        let mut body = vec![family, 10, 0, 0];
        body.extend_from_slice(&port.to_be_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(address);
        body.resize(72, 0);
        message(BY_FAMILY, 7, &body)
    }

    #[test]
    fn sockets_at_loopback_are_those_that_loopback_reaches() {
        let mapped = "::ffff:127.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
        let dump = [
            entry(2, 80, &[0; 4]),
            entry(2, 81, &[127, 0, 0, 9]),
            entry(2, 82, &[192, 0, 2, 1]),
            entry(10, 83, &[0; 16]),
            entry(10, 84, &Ipv6Addr::LOCALHOST.octets()),
            entry(10, 85, &mapped),
            entry(10, 86, &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets()),
            message(BY_FAMILY, 6, &[2, 10, 0, 0, 0, 99]),
        ]
        .concat();
        for (reach, expected) in [
            (Reach::Loopback, vec![80, 81, 83, 84, 85]),
            (Reach::Anywhere, vec![80, 81, 82, 83, 84, 85, 86]),
        ] {
            let mut ports = PortSet::default();
            assert!(!take(&dump, 7, reach, &mut ports).unwrap());
            assert_eq!(ports.iter().collect::<Vec<_>>(), expected);
        }
        assert!(
            take(&message(3, 7, &[0; 4]), 7, Reach::Anywhere, &mut PortSet::default()).unwrap()
        );
    }

    #[test]
    fn broken_messages_are_left_out_and_refusals_are_errors() {
        let whole = entry(10, 83, &[0; 16]);
        for len in 0..whole.len() {
            let mut ports = PortSet::default();
            assert!(!take(&whole[..len], 7, Reach::Anywhere, &mut ports).unwrap());
            assert_eq!(ports.iter().count(), 0);
        }
        for len in 0..24 {
            let short = message(BY_FAMILY, 7, &[10; 24][..len]);
            assert!(!take(&short, 7, Reach::Anywhere, &mut PortSet::default()).unwrap());
        }
        let refused = message(2, 7, &(-libc::ENOENT).to_ne_bytes());
        let error = take(&refused, 7, Reach::Anywhere, &mut PortSet::default()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
