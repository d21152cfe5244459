//! The host's UDP socket of one guest address and port.
//!
//! Owns one unconnected socket: whatever the guest sends from one port leaves from one host port,
//! and any remote may answer (endpoint-independent mapping and filtering, RFC 4787 sections 4.1 and
//! 5), unless the port is the guest's own ([`kept`]). Leaves to [`datagram`](super::datagram) what
//! echo sockets do alike, and to the reactor when to read.
//!
//! # Fragmentation
//! What fits the path, as far as the host's kernel knows it, leaves with "don't fragment" set, so
//! that a router which cannot pass it says so; that answer comes back through the error queue with
//! the MTU, and the guest's path MTU discovery (RFC 1191, RFC 8201, RFC 8899) works as on a real
//! network. What does not fit is refused where the guest forbids to fragment it (`IP_PMTUDISC_DO`),
//! and the guest is told the MTU: a probe that was cut in two would have proved what is not so.
//! Everything else is fragmented by the kernel (`IP_PMTUDISC_WANT`, its default unless the
//! administrator has set `ip_no_pmtu_disc`): a guest may send up to 64 KB, because its own device's
//! MTU may be that large or because its fragments were reassembled here. `IP_PMTUDISC_PROBE` would
//! overlook the MTU that a route of the host's has been given; `DONT` would hide the path from the
//! guest.
//!
//! # Segmentation
//! Several datagrams of one length go out in one call (`UDP_SEGMENT`, Linux 4.18) and come in as
//! one (`UDP_GRO`, Linux 5.0). Where the kernel refuses the former, because a segment exceeds the
//! MTU or the device cannot, they are sent one by one.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, setsockopt, sockopt};
use smoltcp::wire::IpVersion;
use socket2::{Protocol, Socket, Type};

pub(crate) use super::datagram::SendError;
use super::datagram::{DatagramSocket, Message};
use super::kept::{self, Remotes};
use super::outbound;
use crate::event::{DatagramError, Envelope, HostError};
use crate::nat::unspecified;

/// How many datagrams one call may send: the kernel's own cap (`UDP_MAX_SEGMENTS`) as it was when
/// `UDP_SEGMENT` came; newer kernels take 128.
pub(crate) const SEGMENTS_CAP: usize = 64;

/// How many bytes one call may send: an IPv4 packet of 65,535 bytes without its headers. IPv6 would
/// take 20 bytes more.
pub(crate) const BATCH_LEN_CAP: usize = 65_535 - 20 - 8;

/// One unconnected UDP socket.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: DatagramSocket,
    /// Whether `UDP_SEGMENT` is still worth trying.
    segmentation: bool,
    /// The remotes that may answer; `None` if any may.
    remotes: Option<Remotes>,
    /// Whether it is bound to an interface, so that it does not reach the host itself.
    is_confined: bool,
    /// The socket of the same guest's port that is confined where this one is not, or the other way
    /// round.
    other: Option<Box<Self>>,
}

/// What came in: one datagram, or several of one length from one remote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Received<'a> {
    /// The remote.
    pub(crate) from: SocketAddr,
    /// The datagram, or several of `segment_len` bytes each (the last may be shorter).
    pub(crate) payload: &'a [u8],
    /// Length of each datagram when `payload` holds more than one.
    pub(crate) segment_len: Option<u16>,
    /// Our address that it was sent to, on a socket that [`UdpSocket::listen`] has made.
    pub(crate) local: Option<IpAddr>,
    /// TOS or traffic class on arrival, of each datagram where there are several.
    pub(crate) traffic_class: u8,
    /// Whether the buffer was too short and the rest is lost.
    pub(crate) truncated: bool,
    /// Whether the guest is told of it: any remote may answer, or the guest has written to this
    /// one.
    pub(crate) is_welcome: bool,
}

/// Some of the datagrams of one call were not sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotSent {
    /// Why the first of them was not.
    pub(crate) error: SendError,
    /// Where that one lies in the payload.
    pub(crate) first: Range<usize>,
    /// How many were not.
    pub(crate) count: u64,
}

impl NotSent {
    /// There is no socket to send `payload` from, because of `error`.
    pub(crate) fn all(error: HostError, payload: &[u8], segment_len: Option<u16>) -> Self {
        let len = segment_len.map_or(payload.len(), usize::from).clamp(1, payload.len().max(1));
        let count = u64::try_from(payload.len().div_ceil(len)).unwrap_or(u64::MAX).max(1);
        Self { error: SendError::Host(error), first: 0..len.min(payload.len()), count }
    }
}

impl UdpSocket {
    /// Opens a socket for remotes of IP version `version`, sending from `source` where one is given
    /// (of the same version, with port 0 for one of the kernel's choice). With `coalesce` the
    /// kernel may join incoming datagrams of one remote (`UDP_GRO`); a kernel that cannot is not an
    /// error.
    ///
    /// # Errors
    /// What the kernel said, as the guest is to be told.
    pub(crate) fn open(
        version: IpVersion,
        source: Option<SocketAddr>,
        coalesce: bool,
    ) -> Result<Self, HostError> {
        Self::try_open(version, source, coalesce).map_err(|error| HostError::from_io(&error))
    }

    /// Opens a socket that sends to `remote` from the guest's `port`, as [`open`](Self::open) does,
    /// by `interface` if it is [confined](Self::confine) to one later; `None` if the port is not
    /// free, or not one that is [`kept`].
    pub(crate) fn open_kept(
        port: u16,
        source: Option<SocketAddr>,
        interface: Option<&str>,
        remote: SocketAddr,
        coalesce: bool,
    ) -> Option<Self> {
        let place = kept::place(port, source, interface, remote)?;
        let version = match place {
            SocketAddr::V4(_) => IpVersion::Ipv4,
            SocketAddr::V6(_) => IpVersion::Ipv6,
        };
        // A port that another program has, or another guest address, is not waited for.
        let opened = Self::open(version, Some(place), coalesce).ok()?;
        Some(Self { remotes: Some(Remotes::default()), ..opened })
    }

    /// Keeps what is sent to groups from their members on this host.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(crate) fn leave_host_out(&self) -> io::Result<()> {
        match self.socket.version() {
            IpVersion::Ipv4 => self.socket.socket().set_multicast_loop_v4(false),
            IpVersion::Ipv6 => self.socket.socket().set_multicast_loop_v6(false),
        }
    }

    /// Has everything leave by the interface of this name.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub(crate) fn confine(&mut self, interface: &str) -> io::Result<()> {
        self.is_confined = true;
        outbound::bind_to(self.socket.socket(), Some(interface))
    }

    /// Whether there is one of the two.
    pub(crate) const fn has_one_that_is(&self, confined: bool) -> bool {
        self.is_confined == confined || self.other.is_some()
    }

    /// The socket that is confined to an interface, or the one that is not.
    pub(crate) fn that_is(&mut self, confined: bool) -> Option<&mut Self> {
        if self.is_confined == confined { Some(self) } else { self.other.as_deref_mut() }
    }

    /// Adds the socket that [`that_is`](Self::that_is) has not found. What it receives, and its
    /// errors, are those of this one.
    pub(crate) fn add_other(&mut self, other: Self) {
        self.other = Some(other.into());
    }

    /// Whether there are two.
    pub(crate) const fn is_double(&self) -> bool {
        self.other.is_some()
    }

    /// Opens a socket that receives at `address`. `prepare` may set more options before it is
    /// bound.
    ///
    /// # Errors
    /// Those of socket(2), setsockopt(2) and bind(2).
    pub(crate) fn listen(
        address: SocketAddr,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let version = match address {
            SocketAddr::V4(_) => IpVersion::Ipv4,
            SocketAddr::V6(_) => IpVersion::Ipv6,
        };
        let opened = Self::try_open(version, None, false)?;
        prepare(opened.socket.socket())?;
        opened.socket.listen(address)?;
        Ok(opened)
    }

    /// Opens a socket that is not bound yet.
    ///
    /// # Errors
    /// Those of socket(2) and setsockopt(2).
    pub(crate) fn open_unbound(version: IpVersion) -> io::Result<Self> {
        Self::try_open(version, None, true)
    }

    /// Receives at `address`, and reports at which of our own each datagram arrived.
    ///
    /// # Errors
    /// Those of setsockopt(2) and bind(2).
    pub(crate) fn receive_at(&self, address: SocketAddr) -> io::Result<()> {
        self.socket.listen(address)
    }

    /// Lets the kernel join incoming datagrams of one remote (`UDP_GRO`); a kernel that cannot is
    /// not an error.
    pub(crate) fn coalesce(&self) {
        if let Err(errno) = setsockopt(self.socket.socket(), sockopt::UdpGroSegment, &true) {
            tracing::debug!(%errno, "kernel joins no UDP datagrams");
        }
    }

    fn try_open(
        version: IpVersion,
        source: Option<SocketAddr>,
        coalesce: bool,
    ) -> io::Result<Self> {
        let socket = DatagramSocket::open(version, Type::DGRAM, Protocol::UDP)?;
        match version {
            // The guest may send to a directed broadcast of a network behind the host.
            IpVersion::Ipv4 => socket.socket().set_broadcast(true)?,
            IpVersion::Ipv6 => socket.socket().set_only_v6(true)?,
        }
        if let Err(error) = socket.report_traffic_class() {
            tracing::debug!(%error, "marks of datagrams from the network are not seen");
        }
        if let Some(source) = source {
            socket.bind(source)?;
        }
        let opened =
            Self { socket, segmentation: true, remotes: None, is_confined: false, other: None };
        if coalesce {
            opened.coalesce();
        }
        Ok(opened)
    }

    /// Sends `payload` to `remote`: one datagram, or with `segment_len` as many of that length as
    /// it takes (the last may be shorter), each in `envelope`.
    ///
    /// Never blocks. An error that an earlier datagram has caused stays on the error queue and
    /// does not lose this one; nor does an error of one of several lose the others.
    ///
    /// # Errors
    /// What was not sent.
    pub(crate) fn send(
        &mut self,
        remote: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        envelope: Envelope,
    ) -> Result<(), NotSent> {
        self.send_from(Departure::default(), remote, payload, segment_len, envelope)
    }

    /// The same, leaving `from` there (`IP_PKTINFO`, ip(7)).
    ///
    /// # Errors
    /// As those of [`send`](Self::send).
    pub(crate) fn send_from(
        &mut self,
        from: Departure,
        remote: SocketAddr,
        payload: &[u8],
        segment_len: Option<u16>,
        envelope: Envelope,
    ) -> Result<(), NotSent> {
        if let Some(remotes) = &mut self.remotes {
            remotes.note(remote);
        }
        let mut message = Outgoing { from, remote, envelope, not_sent: None };
        let segment_len = segment_len.map_or(0, usize::from);
        if segment_len == 0 || payload.len() <= segment_len {
            self.send_one(&mut message, payload, 0..payload.len());
        } else {
            let segments = (BATCH_LEN_CAP / segment_len).clamp(1, SEGMENTS_CAP);
            let mut start = 0;
            for batch in payload.chunks(segment_len * segments) {
                let end = start + batch.len();
                self.send_batch(&mut message, payload, start..end, segment_len);
                start = end;
            }
        }
        message.not_sent.map_or(Ok(()), Err)
    }

    fn send_one(&mut self, message: &mut Outgoing, payload: &[u8], range: Range<usize>) {
        if let Err(errno) = self.try_send(message, &payload[range.clone()], None) {
            let error = self.socket.explain(errno);
            message.note(error, range, 1);
        }
    }

    fn send_batch(
        &mut self,
        message: &mut Outgoing,
        payload: &[u8],
        range: Range<usize>,
        segment_len: usize,
    ) {
        if self.segmentation
            && range.len() > segment_len
            && let Ok(gso_size) = u16::try_from(segment_len)
        {
            match self.try_send(message, &payload[range.clone()], Some(gso_size)) {
                Ok(()) => return,
                Err(full @ (Errno::EAGAIN | Errno::ENOBUFS)) => {
                    let first = range.start..range.start + segment_len;
                    let count = range.len().div_ceil(segment_len);
                    message.note(full.into(), first, u64::try_from(count).unwrap_or(u64::MAX));
                    return;
                }
                // The route's device cannot; it will not learn it while this socket lives.
                Err(Errno::EIO) => self.segmentation = false,
                // A segment exceeds the MTU (EINVAL or EMSGSIZE), or nothing gets there: true for
                // this batch, and each of them hears of it.
                Err(_) => {}
            }
        }
        for start in range.clone().step_by(segment_len) {
            self.send_one(message, payload, start..range.end.min(start + segment_len));
        }
    }

    fn try_send(
        &mut self,
        message: &Outgoing,
        payload: &[u8],
        segment_len: Option<u16>,
    ) -> Result<(), Errno> {
        let parts = [IoSlice::new(payload)];
        let source = Source::new(message.from, message.remote);
        let (remote, envelope) = (message.remote, message.envelope);
        match (&source, &segment_len) {
            (None, None) => self.socket.send(&parts, &[], remote, envelope),
            (Some(source), None) => self.socket.send(&parts, &[source.message()], remote, envelope),
            (None, Some(len)) => {
                let control = [ControlMessage::UdpGsoSegments(len)];
                self.socket.send(&parts, &control, remote, envelope)
            }
            (Some(source), Some(len)) => {
                let control = [ControlMessage::UdpGsoSegments(len), source.message()];
                self.socket.send(&parts, &control, remote, envelope)
            }
        }
    }

    /// Receives what the kernel has next, into `buf`: 64 KiB are enough for anything.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing. Any other error leaves the socket usable.
    pub(crate) fn recv<'a>(&self, buf: &'a mut [u8]) -> io::Result<Received<'a>> {
        let (message, remotes) = match (self.socket.recv(buf), &self.other) {
            (Err(error), Some(other)) if error.kind() == io::ErrorKind::WouldBlock => {
                (other.socket.recv(buf)?, &other.remotes)
            }
            (message, _) => (message?, &self.remotes),
        };
        let Message { len, from, truncated, segment_len, local, traffic_class, hop_limit: _ } =
            message;
        let is_welcome = remotes.as_ref().is_none_or(|remotes| remotes.contains(from));
        let payload = &buf[..len];
        let segment_len = segment_len.filter(|&segment_len| usize::from(segment_len) < len);
        Ok(Received { from, payload, segment_len, local, traffic_class, truncated, is_welcome })
    }

    /// The next error that a datagram has met on its way, oldest first; `None` when there is none.
    /// That several datagrams of one call are too large may appear here as well as in the answer to
    /// the call: without an offender and, for IPv4, without the remote's port.
    pub(crate) fn take_error(&mut self) -> Option<DatagramError> {
        let entry = self.socket.take_error();
        let entry = entry.or_else(|| self.other.as_mut()?.socket.take_error());
        entry.map(|entry| entry.error)
    }
}

/// Where one datagram leaves from. The default leaves it to the socket and the host's routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Departure {
    /// Our address, of the remote's IP version.
    pub(crate) local: Option<IpAddr>,
    /// Index of the interface; 0 for none. IPv6 prefers it only, where there is an address as well.
    pub(crate) interface: u32,
}

/// What one call sends, and what became of it.
struct Outgoing {
    from: Departure,
    remote: SocketAddr,
    envelope: Envelope,
    not_sent: Option<NotSent>,
}

impl Outgoing {
    fn note(&mut self, error: SendError, first: Range<usize>, count: u64) {
        self.not_sent.get_or_insert(NotSent { error, first, count: 0 }).count += count;
    }
}

/// [`Departure`] as the kernel takes it.
enum Source {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Source {
    fn new(from: Departure, remote: SocketAddr) -> Option<Self> {
        let Departure { local, interface } = from;
        if from == Departure::default() {
            return None;
        }
        Some(match local.unwrap_or_else(|| unspecified(remote.ip())) {
            IpAddr::V4(v4) => Self::V4(libc::in_pktinfo {
                ipi_ifindex: interface.cast_signed(),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(v4.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }),
            IpAddr::V6(v6) => Self::V6(libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: v6.octets() },
                ipi6_ifindex: interface,
            }),
        })
    }

    const fn message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.socket().as_fd()
    }
}
