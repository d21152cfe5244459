//! The host's ICMP socket of one guest address and echo identifier.
//!
//! Owns the choice between a ping socket, which needs `net.ipv4.ping_group_range` to cover one of
//! our groups, and a raw socket, which needs `CAP_NET_RAW`; and the echo header on the host's wire.
//! The guest's identifier is restored on the pure side, so what it is out here matters only for
//! telling replies apart: a ping socket's is the kernel's choice, a raw socket's is the one asked
//! for. See icmp(7), raw(7); RFC 792, RFC 4443 section 4.
//!
//! A raw socket sees the answers to everybody's requests. A socket filter discards them in the
//! kernel, so that a second pinging process costs us no wake-ups; errors come through the error
//! queue, where the filter does not reach, and are sorted here.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use smoltcp::wire::{IpVersion, checksum};
use socket2::{Protocol, SockFilter, Type};

use super::datagram::{DatagramSocket, Message, SendError};
use super::error_queue::{QueuedError, SKIP_CAP};
use super::outbound;
use crate::event::{DatagramError, Envelope, HostError};
use crate::wire::icmp::ICMP_HEADER_LEN;

/// Offset of the identifier in an echo header.
const IDENT_OFFSET: u32 = 4;

/// What kind of socket carries the echo requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EchoKind {
    /// An unprivileged ping socket (`SOCK_DGRAM`).
    Ping,
    /// A raw socket.
    Raw,
}

/// Why there is no echo socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EchoOpenError {
    /// The host allows neither kind of socket.
    #[error(
        "the host permits neither ping nor raw sockets; to let guests ping, set \
         net.ipv4.ping_group_range to a range that covers this process' group"
    )]
    NotPermitted,
    /// The host has no file descriptor or memory for it, or lacks the IP version or the source.
    #[error("the host could not open an echo socket: {0:?}")]
    Host(HostError),
}

/// One unconnected socket that sends echo requests and receives the replies.
#[derive(Debug)]
pub(crate) struct EchoSocket {
    socket: DatagramSocket,
    kind: EchoKind,
    ident: u16,
    /// Index of the interface on whose link link-local remotes are; 0 for none.
    link: u32,
}

/// A reply to one of our requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EchoReply<'a> {
    /// The host that replied.
    pub(crate) from: IpAddr,
    /// Sequence number of the request.
    pub(crate) sequence: u16,
    /// Echo data.
    pub(crate) payload: &'a [u8],
    /// TTL or hop limit on arrival here, where the kernel told.
    pub(crate) hop_limit: Option<u8>,
}

/// An error that an echo request has met on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EchoError {
    /// What happened; the remote's port is 0.
    pub(crate) error: DatagramError,
    /// Sequence number of the request, where the error quotes that much of it.
    pub(crate) sequence: Option<u16>,
}

impl EchoSocket {
    /// Opens a socket for remotes of IP version `version`, sending from `source` where one is given
    /// (of the same version, with port 0). A raw socket sends `ident` as its identifier.
    ///
    /// # Errors
    /// See [`EchoOpenError`].
    pub(crate) fn open(
        version: IpVersion,
        source: Option<SocketAddr>,
        ident: u16,
    ) -> Result<Self, EchoOpenError> {
        let opened = match Self::open_as(EchoKind::Ping, version, source, ident) {
            Err(error) if is_refusal(&error) => {
                Self::open_as(EchoKind::Raw, version, source, ident)
            }
            opened @ (Ok(_) | Err(_)) => opened,
        };
        opened.map_err(|error| {
            if is_refusal(&error) {
                EchoOpenError::NotPermitted
            } else {
                EchoOpenError::Host(HostError::from_io(&error))
            }
        })
    }

    fn open_as(
        kind: EchoKind,
        version: IpVersion,
        source: Option<SocketAddr>,
        ident: u16,
    ) -> io::Result<Self> {
        let protocol = match version {
            IpVersion::Ipv4 => Protocol::ICMPV4,
            IpVersion::Ipv6 => Protocol::ICMPV6,
        };
        let socket = match kind {
            EchoKind::Ping => DatagramSocket::open(version, Type::DGRAM, protocol)?,
            EchoKind::Raw => DatagramSocket::open(version, Type::RAW, protocol)?,
        };
        if kind == EchoKind::Raw {
            socket.socket().attach_filter(&reply_filter(version, ident))?;
        }
        match version {
            IpVersion::Ipv4 => setsockopt(socket.socket(), sockopt::Ipv4RecvTtl, &true)?,
            IpVersion::Ipv6 => setsockopt(socket.socket(), sockopt::Ipv6RecvHopLimit, &true)?,
        }
        if let Some(source) = source {
            socket.bind(source)?;
        }
        Ok(Self { socket, kind, ident, link: 0 })
    }

    /// The same, leaving by the interface of this name, if there is one.
    ///
    /// # Errors
    /// What the kernel said, as the guest is to be told.
    pub(crate) fn confined(self, interface: Option<&str>) -> Result<Self, EchoOpenError> {
        let bound = outbound::bind_to(self.socket.socket(), interface);
        bound.map_err(|error| EchoOpenError::Host(HostError::from_io(&error)))?;
        Ok(self)
    }

    /// The same, with link-local remotes on the link of the interface with this index.
    pub(crate) fn on_link(mut self, link: u32) -> Self {
        self.link = link;
        self
    }

    /// Which kind of socket it became.
    #[cfg(test)]
    pub(crate) const fn kind(&self) -> EchoKind {
        self.kind
    }

    /// Sends an echo request to `remote` in `envelope`. Never blocks.
    ///
    /// # Errors
    /// Why it was not sent.
    pub(crate) fn send(
        &mut self,
        remote: IpAddr,
        sequence: u16,
        payload: &[u8],
        envelope: Envelope,
    ) -> Result<(), SendError> {
        let mut header = [0; ICMP_HEADER_LEN];
        header[0] = request_type(self.socket.version());
        header[4..6].copy_from_slice(&self.ident.to_be_bytes());
        header[6..8].copy_from_slice(&sequence.to_be_bytes());
        // A raw ICMPv4 socket sends the checksum as it is; everywhere else the kernel fills it in.
        if self.kind == EchoKind::Raw && self.socket.version() == IpVersion::Ipv4 {
            let sum = checksum::combine(&[checksum::data(&header), checksum::data(payload)]);
            header[2..4].copy_from_slice(&(!sum).to_be_bytes());
        }
        let parts = [IoSlice::new(&header), IoSlice::new(payload)];
        let remote = match remote {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, 0, 0, self.link).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(remote, 0),
        };
        let sent = self.socket.send(&parts, &[], remote, envelope);
        sent.map_err(|errno| self.socket.explain(errno))
    }

    /// Receives what the kernel has next, into `buf`: 64 KiB are enough for anything. `Ok(None)` is
    /// a message that does not answer a request of this socket, or one that `buf` is too short for.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing. Any other error leaves the socket usable.
    pub(crate) fn recv<'a>(&self, buf: &'a mut [u8]) -> io::Result<Option<EchoReply<'a>>> {
        let message = self.socket.recv(buf)?;
        if message.truncated {
            return Ok(None);
        }
        Ok(self.parse(&message, &buf[..message.len]))
    }

    fn parse<'a>(&self, message: &Message, bytes: &'a [u8]) -> Option<EchoReply<'a>> {
        let raw = self.kind == EchoKind::Raw;
        let icmp = if raw && self.socket.version() == IpVersion::Ipv4 {
            let icmp = bytes.get(usize::from(bytes.first()? & 0xf) * 4..)?;
            // A raw socket gets its copy before the kernel has verified the checksum.
            (checksum::data(icmp) == u16::MAX).then_some(icmp)?
        } else {
            bytes
        };
        let (header, payload) = icmp.split_first_chunk::<ICMP_HEADER_LEN>()?;
        let [kind, code, _, _, ident @ .., sequence_high, sequence_low] = *header;
        let answers = kind == reply_type(self.socket.version()) && code == 0;
        if !answers || (raw && u16::from_be_bytes(ident) != self.ident) {
            return None;
        }
        let sequence = u16::from_be_bytes([sequence_high, sequence_low]);
        let hop_limit = message.hop_limit;
        Some(EchoReply { from: message.from.ip(), sequence, payload, hop_limit })
    }

    /// The next error that a request has met on its way, oldest first; `None` when there is none.
    pub(crate) fn take_error(&mut self) -> Option<EchoError> {
        for _ in 0..SKIP_CAP {
            let entry = self.socket.take_error()?;
            if let Some(error) = self.own_error(&entry) {
                return Some(error);
            }
        }
        None
    }

    /// The error, unless it is about a request of another socket.
    fn own_error(&self, entry: &QueuedError) -> Option<EchoError> {
        let error = entry.error;
        let Some(header) = entry.quoted().first_chunk::<ICMP_HEADER_LEN>() else {
            // An error of the local kernel quotes nothing, and is always ours. One of the network
            // cannot be told apart on a raw socket, but can on a ping socket, by the kernel.
            let own = self.kind == EchoKind::Ping || error.offender.is_none();
            return own.then_some(EchoError { error, sequence: None });
        };
        let [kind, _, _, _, ident @ .., sequence_high, sequence_low] = *header;
        let own = kind == request_type(self.socket.version())
            && (self.kind == EchoKind::Ping || u16::from_be_bytes(ident) == self.ident);
        let sequence = Some(u16::from_be_bytes([sequence_high, sequence_low]));
        own.then_some(EchoError { error, sequence })
    }
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.socket().as_fd()
    }
}

/// Whether the host forbids this kind of socket. Raw sockets answer `EPERM`, ping sockets `EACCES`,
/// and a kernel without ping sockets `EPROTONOSUPPORT`.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EPROTONOSUPPORT))
}

const fn request_type(version: IpVersion) -> u8 {
    match version {
        IpVersion::Ipv4 => 8,
        IpVersion::Ipv6 => 128,
    }
}

const fn reply_type(version: IpVersion) -> u8 {
    match version {
        IpVersion::Ipv4 => 0,
        IpVersion::Ipv6 => 129,
    }
}

/// A socket filter that passes echo replies to `ident` and nothing else. A raw IPv4 socket shows it
/// the packet from its IP header on, a raw IPv6 socket from the ICMPv6 header on.
fn reply_filter(version: IpVersion, ident: u16) -> [SockFilter; 7] {
    let (index, reply) = match version {
        // X = length of the IPv4 header.
        IpVersion::Ipv4 => (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, reply_type(version)),
        // X = 0.
        IpVersion::Ipv6 => (libc::BPF_LDX | libc::BPF_IMM, reply_type(version)),
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let load = libc::BPF_LD | libc::BPF_IND;
    let ret = libc::BPF_RET | libc::BPF_K;
    [
        instruction(index, 0, 0),
        instruction(load | libc::BPF_B, 0, 0),
        instruction(equal, 3, reply.into()),
        instruction(load | libc::BPF_H, 0, IDENT_OFFSET),
        instruction(equal, 1, ident.into()),
        instruction(ret, 0, u32::MAX),
        instruction(ret, 0, 0),
    ]
}

/// One instruction; a comparison that fails skips `otherwise` instructions.
const fn instruction(code: u32, otherwise: u8, operand: u32) -> SockFilter {
    #[expect(clippy::cast_possible_truncation, reason = "all classic BPF codes are below 256")]
    let code = code as u16;
    SockFilter::new(code, 0, otherwise, operand)
}
