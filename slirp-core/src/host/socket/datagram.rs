//! What UDP and echo sockets have in common.
//!
//! Owns how such a socket is opened (non-blocking, close-on-exec, error queue on), how the options
//! that stand for the guest's IP header are kept up to date, and the rule that an error which
//! belongs to an earlier datagram neither loses the present one nor hides data that has arrived.
//! Leaves headers and segmentation to [`udp`](super::udp) and [`echo`](super::echo).
//!
//! With `IP_RECVERR` the kernel does two things with an ICMP error: it puts the details on the
//! error queue, and it sets a pending error that the next call on the socket returns, whatever that
//! call wanted (ip(7)). The details are all we need, so the pending error is swallowed here.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use smoltcp::wire::IpVersion;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::control::{ControlBuffer, socket_addr};
use super::error_queue::{self, QueuedError};
use super::outbound;
use crate::event::{Envelope, HostError};
use crate::sys::mtu_discovery::set_dont_fragment;

/// How many pending errors of earlier datagrams one receive call swallows. There is at most one at
/// a time; more can only arrive while the call runs. Arbitrary.
const PENDING_ERRORS_CAP: usize = 8;

/// Errors of other datagrams that are kept while the MTU that one exceeds is looked for (arbitrary;
/// those beyond it are lost, as ICMP messages may be).
const SET_ASIDE_CAP: usize = 16;

crate::sys::calls::system_calls! {
    SYS_socket if crate::sys::calls::IP => "the remotes of a flow";
    SYS_setsockopt => "hop limit, traffic class, fragmentation, error queue, coalescing, filter";
    SYS_getsockopt => "what the kernel offers";
    SYS_bind => "outbound addresses, forwarded ports";
    SYS_sendmsg => "datagrams with their source and segment size";
    SYS_recvmsg => "datagrams with their addresses, and the error queue";
}

/// Why a datagram was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The socket's send buffer or the device's queue is full (`EAGAIN`, `ENOBUFS`): the datagram
    /// is lost, as it may be on any network.
    #[error("the send buffer is full")]
    WouldBlock,
    /// The kernel refused; the guest is told.
    #[error("the host refused to send: {0:?}")]
    Host(HostError),
}

impl From<Errno> for SendError {
    fn from(errno: Errno) -> Self {
        if errno == Errno::EAGAIN || errno == Errno::ENOBUFS {
            return Self::WouldBlock;
        }
        Self::Host(HostError::from_errno(errno as i32))
    }
}

/// A datagram socket of one IP version with its error queue switched on.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    socket: Socket,
    version: IpVersion,
    told: Told,
    /// Entries of the error queue that were found while another was looked for, oldest first.
    set_aside: VecDeque<QueuedError>,
}

/// What the socket was last told to send with.
#[derive(Debug, Default)]
struct Told {
    /// `None` while it has the system's default.
    hop_limit: Option<u8>,
    /// The same towards groups.
    group_hop_limit: Option<u8>,
    traffic_class: u8,
    dont_fragment: bool,
}

/// What one receive call returned.
pub(crate) struct Message {
    /// How many bytes of the buffer are filled.
    pub(crate) len: usize,
    /// The sender.
    pub(crate) from: SocketAddr,
    /// Whether the buffer was too short.
    pub(crate) truncated: bool,
    /// Length of each datagram when the kernel has joined several.
    pub(crate) segment_len: Option<u16>,
    /// Our address that it was sent to, when the socket was told to report it.
    pub(crate) local: Option<IpAddr>,
    /// TTL or hop limit on arrival, when the socket was told to report it.
    pub(crate) hop_limit: Option<u8>,
    /// TOS or traffic class on arrival; 0 unless the socket was told to report it.
    pub(crate) traffic_class: u8,
}

impl DatagramSocket {
    /// Opens a socket; errors are those of socket(2) and setsockopt(2).
    pub(crate) fn open(version: IpVersion, kind: Type, protocol: Protocol) -> io::Result<Self> {
        let domain = match version {
            IpVersion::Ipv4 => Domain::IPV4,
            IpVersion::Ipv6 => Domain::IPV6,
        };
        let socket = Socket::new_raw(domain, kind.nonblocking().cloexec(), Some(protocol))?;
        match version {
            IpVersion::Ipv4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            IpVersion::Ipv6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        Ok(Self { socket, version, told: Told::default(), set_aside: VecDeque::new() })
    }

    /// Fixes the source of everything that is sent; port 0 is one of the kernel's choice.
    pub(crate) fn bind(&self, source: SocketAddr) -> io::Result<()> {
        outbound::bind(&self.socket, source)
    }

    /// Receives at `address`, and reports at which of our own each datagram arrived.
    pub(crate) fn listen(&self, address: SocketAddr) -> io::Result<()> {
        match self.version {
            IpVersion::Ipv4 => setsockopt(&self.socket, sockopt::Ipv4PacketInfo, &true)?,
            IpVersion::Ipv6 => setsockopt(&self.socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        self.socket.bind(&SockAddr::from(address))
    }

    /// The socket, for options that only one protocol has.
    pub(crate) const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// IP version of the remotes.
    pub(crate) const fn version(&self) -> IpVersion {
        self.version
    }

    /// Sends one message, repeating it once if the first answer may belong to an earlier datagram.
    pub(crate) fn send(
        &mut self,
        parts: &[IoSlice<'_>],
        control: &[ControlMessage<'_>],
        remote: SocketAddr,
        envelope: Envelope,
    ) -> Result<(), Errno> {
        self.tell(remote.ip().is_multicast(), envelope)?;
        let remote = SockaddrStorage::from(remote);
        let send = || {
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            sendmsg(self.socket.as_raw_fd(), parts, control, flags, Some(&remote)).map(drop)
        };
        match send() {
            Ok(()) => Ok(()),
            Err(full @ (Errno::EAGAIN | Errno::ENOBUFS)) => Err(full),
            // Returning the error has cleared it, so a second failure is this datagram's own.
            Err(_) => send(),
        }
    }

    /// Why a datagram was not sent: what [`send`](Self::send) has returned, with the MTU that it
    /// exceeds, which the kernel has put on the error queue.
    pub(crate) fn explain(&mut self, errno: Errno) -> SendError {
        if errno != Errno::EMSGSIZE {
            return errno.into();
        }
        let mut mtu = None;
        for _ in 0..error_queue::SKIP_CAP {
            let Some(entry) = error_queue::take(self.socket.as_fd()) else {
                break;
            };
            if let (None, HostError::TooLarge(known)) = (entry.error.offender, entry.error.error) {
                mtu = known.or(mtu);
            } else if self.set_aside.len() < SET_ASIDE_CAP {
                self.set_aside.push_back(entry);
            }
        }
        SendError::Host(HostError::TooLarge(mtu))
    }

    /// Sets the options that differ from what the socket was last told.
    ///
    /// A hop limit of 0 is sent as 1: such a datagram should have died on the pure side, and the
    /// kernel knows no way to send it.
    fn tell(&mut self, is_group: bool, envelope: Envelope) -> Result<(), Errno> {
        let Envelope { hop_limit, traffic_class, dont_fragment } = envelope;
        let hop_limit = hop_limit.max(1);
        let (socket, told) = (&self.socket, &mut self.told);
        let hops = if is_group { &mut told.group_hop_limit } else { &mut told.hop_limit };
        if *hops != Some(hop_limit) {
            match (self.version, is_group) {
                (IpVersion::Ipv4, false) => {
                    setsockopt(socket, sockopt::Ipv4Ttl, &hop_limit.into())?;
                }
                (IpVersion::Ipv4, true) => {
                    setsockopt(socket, sockopt::IpMulticastTtl, &hop_limit)?;
                }
                (IpVersion::Ipv6, false) => {
                    setsockopt(socket, sockopt::Ipv6Ttl, &hop_limit.into())?;
                }
                (IpVersion::Ipv6, true) => {
                    setsockopt(socket, sockopt::Ipv6MulticastHops, &hop_limit.into())?;
                }
            }
            *hops = Some(hop_limit);
        }
        if told.traffic_class != traffic_class {
            let set = match self.version {
                IpVersion::Ipv4 => setsockopt(socket, sockopt::Ipv4Tos, &traffic_class.into()),
                IpVersion::Ipv6 => setsockopt(socket, sockopt::Ipv6TClass, &traffic_class.into()),
            };
            if let Err(errno) = set {
                tracing::debug!(%errno, traffic_class, "the host does not mark datagrams so");
            }
            told.traffic_class = traffic_class;
        }
        if told.dont_fragment != dont_fragment {
            let is_ipv6 = self.version == IpVersion::Ipv6;
            if let Err(error) = set_dont_fragment(socket.as_fd(), is_ipv6, dont_fragment) {
                tracing::debug!(%error, "path MTU discovery stays as it is");
            }
            told.dont_fragment = dont_fragment;
        }
        Ok(())
    }

    /// Has the kernel report the TOS or traffic class of what arrives.
    pub(crate) fn report_traffic_class(&self) -> io::Result<()> {
        match self.version {
            IpVersion::Ipv4 => setsockopt(&self.socket, sockopt::IpRecvTos, &true)?,
            IpVersion::Ipv6 => setsockopt(&self.socket, sockopt::Ipv6RecvTClass, &true)?,
        }
        Ok(())
    }

    /// Receives one message into `buf`.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else leaves the socket usable.
    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<Message> {
        let mut last = Errno::EAGAIN;
        for _ in 0..PENDING_ERRORS_CAP {
            match recv_message(self.socket.as_fd(), buf) {
                Ok(message) => return Ok(message),
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN.into()),
                Err(errno) => last = errno,
            }
        }
        Err(last.into())
    }

    /// The next entry of the error queue.
    pub(crate) fn take_error(&mut self) -> Option<QueuedError> {
        self.set_aside.pop_front().or_else(|| error_queue::take(self.socket.as_fd()))
    }
}

fn recv_message(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Message, Errno> {
    let mut control = ControlBuffer::new();
    let mut parts = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut parts, Some(control.as_mut()), flags)?;
    let from = received.address.as_ref().and_then(socket_addr).ok_or(Errno::EAFNOSUPPORT)?;
    let truncated = received.flags.contains(MsgFlags::MSG_TRUNC);
    let mut message = Message {
        len: received.bytes,
        from,
        truncated,
        segment_len: None,
        local: None,
        hop_limit: None,
        traffic_class: 0,
    };
    for control_message in received.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(len) = control_message {
            message.segment_len = u16::try_from(len).ok().filter(|&len| len != 0);
        } else if let ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) =
            control_message
        {
            message.hop_limit = u8::try_from(hops).ok();
        } else if let ControlMessageOwned::Ipv4Tos(class) = control_message {
            message.traffic_class = class;
        } else if let ControlMessageOwned::Ipv6TClass(class) = control_message {
            message.traffic_class = u8::try_from(class).unwrap_or(0);
        } else if let ControlMessageOwned::Ipv4PacketInfo(info) = control_message {
            message.local = Some(IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()));
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = control_message {
            // An answer to what was sent to a group leaves from where the kernel likes.
            message.local =
                Some(IpAddr::from(info.ipi6_addr.s6_addr)).filter(|local| !local.is_multicast());
        }
    }
    Ok(message)
}
