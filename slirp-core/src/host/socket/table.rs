//! The host sockets of the flows, in an array with the flow table's indices.
//!
//! Owns the sockets, their registration with the poller, and what is known of their readiness.
//! Sockets are registered once and edge-triggered, so readiness is a flag here: set by an event,
//! cleared when a call moved less than it could. [`TcpHost`] is a connected TCP socket with these
//! flags, and what the pure side knows as a [`HostStream`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use smoltcp::wire::IpVersion;
use socket2::SockRef;

use super::echo::{EchoOpenError, EchoSocket};
use super::outbound::OutboundAddresses;
use super::tcp::{self, Connecting, HandshakeAck, TcpStream};
use super::udp::UdpSocket;
use crate::event::{FlowId, HostError};
use crate::flow::{HostStream, Transfer};
use crate::host::token::Source;
use crate::plan::AddressPlan;
use crate::sys::splice::splice;

crate::sys::calls::system_calls! {
    SYS_epoll_ctl => "the poller is told of a socket";
    SYS_getsockname => "the host's side of a flow, for the list of flows";
}

/// A host socket with its state. The rarer kinds are boxed, so that each TCP flow does not take as
/// much as they do.
#[derive(Debug)]
pub(crate) enum HostSocket {
    Connecting(TcpStream),
    Tcp(TcpHost),
    Udp(Box<UdpSocket>),
    Echo(Box<EchoSocket>),
}

impl AsFd for HostSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Connecting(stream) => stream.as_fd(),
            Self::Tcp(host) => host.stream.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Echo(socket) => socket.as_fd(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    flow: FlowId,
    socket: HostSocket,
    is_queued: bool,
}

/// Sockets by flow.
#[derive(Debug)]
pub(crate) struct SocketTable {
    slots: Vec<Option<Slot>>,
    registry: Registry,
    coalesce_udp: bool,
    outbound: OutboundAddresses,
    /// Whether datagrams leave from the port that the guest sent them from, where it is free.
    pub(crate) keeps_udp_ports: bool,
    /// Whether members of a group on this host hear what the guest sends to the group.
    is_heard_by_host: bool,
    /// Index of the interface on whose link the guest's link-local remotes are; 0 for none.
    link: u32,
    /// The host's own addresses by which the guest reaches it: not by an interface.
    itself: [Option<IpAddr>; 2],
    /// UDP sockets that flows have besides one each.
    seconds: usize,
}

/// UDP sockets that flows may have besides one each (arbitrary: few programs speak to the host and
/// to remotes from one port). Beyond it the host is exhausted for such a datagram.
const SECONDS_CAP: usize = 16;

impl SocketTable {
    /// An empty table. `coalesce_udp` says whether the guest's device takes several datagrams in
    /// one frame; sockets are bound to `outbound`.
    pub(crate) const fn new(
        registry: Registry,
        coalesce_udp: bool,
        outbound: OutboundAddresses,
    ) -> Self {
        Self {
            slots: Vec::new(),
            registry,
            coalesce_udp,
            outbound,
            keeps_udp_ports: false,
            is_heard_by_host: true,
            link: 0,
            itself: [None; 2],
            seconds: 0,
        }
    }

    /// Follows `plan`: a guest that is kept away from the host's loopback does not reach the host's
    /// own members of groups either. Other stations of the host's link hear it.
    pub(crate) fn adopt_plan(&mut self, plan: &AddressPlan) {
        self.is_heard_by_host = plan.leads_to_loopback();
        self.link = plan.host_link().unwrap_or(0);
        self.itself = plan.host_itself();
    }

    /// The interface by which a socket towards `remote` leaves, if one was chosen.
    pub(crate) fn interface_for(&self, remote: SocketAddr) -> Option<&str> {
        let interface = self.outbound.interface_for(remote)?;
        (!self.itself.contains(&Some(remote.ip()))).then_some(interface)
    }

    /// Starts to connect to `remote`; the socket is not in the table yet.
    pub(crate) fn connect(
        &self,
        remote: SocketAddr,
        ack: HandshakeAck,
    ) -> Result<Connecting, HostError> {
        let source = self.outbound.source_for(remote.ip());
        tcp::connect(remote, source, self.interface_for(remote), ack)
    }

    /// Registers `socket` for `flow` and keeps it.
    pub(crate) fn insert(&mut self, flow: FlowId, socket: HostSocket) -> io::Result<()> {
        let fd = socket.as_fd().as_raw_fd();
        let index = slot(flow.index);
        // A datagram socket that cannot send loses the datagram, so no flow waits for it to become
        // writable. A connected one is writable, and to say so would cost each flow a wake-up: see
        // `watch_room`. Urgent data is what a stream's reads stop at.
        let interest = match &socket {
            HostSocket::Connecting(_) => STREAM_INTEREST.add(Interest::WRITABLE),
            HostSocket::Tcp(_) => STREAM_INTEREST,
            HostSocket::Udp(_) | HostSocket::Echo(_) => Interest::READABLE,
        };
        self.registry.register(&mut SourceFd(&fd), Source::Flow(flow.index).token()?, interest)?;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Slot { flow, socket, is_queued: false });
        Ok(())
    }

    /// Has the poller say when there is room again in the socket of `flow`, if a write waits for
    /// it.
    pub(crate) fn watch_room(&mut self, flow: FlowId) {
        let Some(entry) = self.slots.get_mut(slot(flow.index)).and_then(Option::as_mut) else {
            return;
        };
        let HostSocket::Tcp(host) = &mut entry.socket else {
            return;
        };
        if entry.flow != flow || !host.wants_to_write || host.is_room_watched {
            return;
        }
        // Should there be room by now, this reports it: a change arms the edge anew.
        let interest = STREAM_INTEREST.add(Interest::WRITABLE);
        let fd = host.stream.as_fd().as_raw_fd();
        let token = Source::Flow(flow.index).token();
        let watched =
            token.and_then(|it| self.registry.reregister(&mut SourceFd(&fd), it, interest));
        match watched {
            Ok(()) => host.is_room_watched = true,
            Err(error) => {
                // The room would never be reported. The end of both directions is reported, and
                // ends the flow.
                tracing::warn!(%error, "a connection was lost");
                host.stream.shutdown_both();
            }
        }
    }

    /// The socket in slot `index`, whichever flow it belongs to.
    pub(crate) fn at(&mut self, index: u32) -> Option<(FlowId, &mut HostSocket)> {
        self.slots.get_mut(slot(index))?.as_mut().map(|slot| (slot.flow, &mut slot.socket))
    }

    /// The host's side of the socket of `flow`, where it has one that is open.
    pub(crate) fn local_address(&self, flow: FlowId) -> Option<SocketAddr> {
        let entry = self.slots.get(slot(flow.index))?.as_ref().filter(|slot| slot.flow == flow)?;
        SockRef::from(&entry.socket).local_addr().ok()?.as_socket()
    }

    /// Notes whether `flow` stands in the reactor's backlog; returns whether that has changed.
    pub(crate) fn set_queued(&mut self, flow: FlowId, is_queued: bool) -> bool {
        let entry = self.slots.get_mut(slot(flow.index)).and_then(Option::as_mut);
        entry.filter(|slot| slot.flow == flow).is_some_and(|slot| {
            let was_queued = core::mem::replace(&mut slot.is_queued, is_queued);
            was_queued != is_queued
        })
    }

    /// Turns the connecting socket of `flow` into a connected one.
    pub(crate) fn connected(&mut self, flow: FlowId) -> Option<&mut TcpHost> {
        self.of(flow)?;
        let entry = self.slots.get_mut(slot(flow.index))?;
        let taken = entry.take()?;
        let socket = match taken.socket {
            HostSocket::Connecting(stream) => {
                HostSocket::Tcp(TcpHost { is_room_watched: true, ..TcpHost::new(stream) })
            }
            other @ (HostSocket::Tcp(_) | HostSocket::Udp(_) | HostSocket::Echo(_)) => other,
        };
        match &mut entry.insert(Slot { socket, ..taken }).socket {
            HostSocket::Tcp(host) => Some(host),
            HostSocket::Connecting(_) | HostSocket::Udp(_) | HostSocket::Echo(_) => None,
        }
    }

    /// The socket of `flow`.
    pub(crate) fn of(&mut self, flow: FlowId) -> Option<&mut HostSocket> {
        let (owner, socket) = self.at(flow.index)?;
        (owner == flow).then_some(socket)
    }

    /// Takes the connection of `flow` out, so that another flow can have it.
    pub(crate) fn release(&mut self, flow: FlowId) -> Option<TcpStream> {
        let HostSocket::Tcp(TcpHost { stream, .. }) = self.remove(flow)? else { return None };
        let fd = stream.as_fd().as_raw_fd();
        self.registry.deregister(&mut SourceFd(&fd)).ok().map(|()| stream)
    }

    /// Takes the socket of `flow` out. Dropping it closes it, which also ends its registration.
    pub(crate) fn remove(&mut self, flow: FlowId) -> Option<HostSocket> {
        self.of(flow)?;
        let Slot { socket, .. } = self.slots[slot(flow.index)].take()?;
        if let HostSocket::Udp(udp) = &socket {
            self.seconds -= usize::from(udp.is_double());
        }
        while self.slots.last().is_some_and(Option::is_none) {
            self.slots.pop();
        }
        if self.slots.capacity() > 4096 && self.slots.capacity() / 8 > self.slots.len() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        Some(socket)
    }

    /// Nothing went from `flow` to `remote`. Closes its sockets if the interface that they are
    /// bound to is gone: the next one is bound to whatever has the name then.
    pub(crate) fn on_unsent(&mut self, flow: FlowId, remote: SocketAddr) {
        if self.interface_for(remote).is_none() {
            return;
        }
        let is_lost = match self.of(flow) {
            Some(HostSocket::Udp(socket)) => {
                socket.that_is(true).is_some_and(|it| SockRef::from(&*it).device().is_err())
            }
            Some(HostSocket::Echo(socket)) => SockRef::from(&**socket).device().is_err(),
            Some(HostSocket::Connecting(_) | HostSocket::Tcp(_)) | None => false,
        };
        if is_lost {
            drop(self.remove(flow));
        }
    }

    /// The UDP socket of `flow`, opened if there is none yet. `port` is the guest's.
    pub(crate) fn udp(
        &mut self,
        flow: FlowId,
        port: u16,
        remote: SocketAddr,
    ) -> Result<&mut UdpSocket, HostError> {
        if self.of(flow).is_none() {
            let socket = self.open_udp(port, remote)?;
            self.insert(flow, HostSocket::Udp(socket.into()))
                .map_err(|e| HostError::from_io(&e))?;
        }
        let is_confined = self.interface_for(remote).is_some();
        match self.of(flow) {
            Some(HostSocket::Udp(socket)) if !socket.has_one_that_is(is_confined) => {
                self.add_second(flow, port, remote)?;
            }
            Some(_) | None => {}
        }
        match self.of(flow) {
            Some(HostSocket::Udp(socket)) => {
                socket.that_is(is_confined).ok_or(HostError::Exhausted)
            }
            Some(HostSocket::Connecting(_) | HostSocket::Tcp(_) | HostSocket::Echo(_)) | None => {
                Err(HostError::Exhausted)
            }
        }
    }

    fn open_udp(&self, port: u16, remote: SocketAddr) -> Result<UdpSocket, HostError> {
        let source = self.outbound.source_for(remote.ip());
        let interface = self.interface_for(remote);
        let coalesce = self.coalesce_udp;
        let kept = self
            .keeps_udp_ports
            .then(|| UdpSocket::open_kept(port, source, interface, remote, coalesce));
        let mut socket = match kept.flatten() {
            Some(kept) => kept,
            None => UdpSocket::open(version_of(remote.ip()), source, coalesce)?,
        };
        let left_out = if self.is_heard_by_host { Ok(()) } else { socket.leave_host_out() };
        let confined = interface.map_or(Ok(()), |name| socket.confine(name));
        left_out.and(confined).map_err(|e| HostError::from_io(&e))?;
        Ok(socket)
    }

    /// Opens a second UDP socket for `flow`, whose first one does not reach `remote`: the host
    /// itself, or what lies behind the chosen interface. The poller reports both as the flow's.
    fn add_second(&mut self, flow: FlowId, port: u16, remote: SocketAddr) -> Result<(), HostError> {
        if self.seconds >= SECONDS_CAP {
            return Err(HostError::Exhausted);
        }
        let second = self.open_udp(port, remote)?;
        let fd = second.as_fd().as_raw_fd();
        let token = Source::Flow(flow.index).token();
        token
            .and_then(|it| self.registry.register(&mut SourceFd(&fd), it, Interest::READABLE))
            .map_err(|e| HostError::from_io(&e))?;
        if let Some(HostSocket::Udp(first)) = self.of(flow) {
            first.add_other(second);
            self.seconds += 1;
        }
        Ok(())
    }

    /// The echo socket of `flow`, opened if there is none yet.
    pub(crate) fn echo(
        &mut self,
        flow: FlowId,
        remote: IpAddr,
        ident: u16,
    ) -> Result<&mut EchoSocket, EchoOpenError> {
        if self.of(flow).is_none() {
            let source = self.outbound.source_for(remote);
            let interface = self.outbound.interface_for(SocketAddr::new(remote, 0));
            let socket = EchoSocket::open(version_of(remote), source, ident)?
                .confined(interface)?
                .on_link(self.link);
            self.insert(flow, HostSocket::Echo(socket.into()))
                .map_err(|e| EchoOpenError::Host(HostError::from_io(&e)))?;
        }
        match self.of(flow) {
            Some(HostSocket::Echo(socket)) => Ok(socket),
            Some(HostSocket::Connecting(_) | HostSocket::Tcp(_) | HostSocket::Udp(_)) | None => {
                Err(EchoOpenError::Host(HostError::Exhausted))
            }
        }
    }
}

/// What the poller is asked to say about every TCP socket.
const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::PRIORITY);

fn slot(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

const fn version_of(address: IpAddr) -> IpVersion {
    match address {
        IpAddr::V4(_) => IpVersion::Ipv4,
        IpAddr::V6(_) => IpVersion::Ipv6,
    }
}

/// A connected TCP socket with its readiness.
#[derive(Debug)]
pub(crate) struct TcpHost {
    stream: TcpStream,
    is_readable: bool,
    is_writable: bool,
    /// The end of the remote's direction, or an error, has been announced: a short read is no
    /// reason to stop reading.
    is_ending: bool,
    /// Urgent data has been announced: a read stops short at its mark although there is more
    /// (tcp(7)), so only one that finds nothing is the last.
    is_urgent: bool,
    wants_to_write: bool,
    /// Whether the poller says when there is room to write.
    is_room_watched: bool,
    /// The kernel has reported the end of the connection: there is nothing left to reset.
    is_broken: bool,
}

impl TcpHost {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            is_readable: false,
            is_writable: true,
            is_ending: false,
            is_urgent: false,
            wants_to_write: false,
            is_room_watched: false,
            is_broken: false,
        }
    }

    /// Notes an event. Returns whether the flow is to be looked at: news that change nothing for
    /// it (more bytes behind those that wait already, room that was not waited for) are kept.
    pub(crate) fn on_event(&mut self, event: &mio::event::Event) -> bool {
        let is_ending = event.is_read_closed() || event.is_error() || event.is_write_closed();
        let is_news = (event.is_readable() && !self.is_readable)
            || (is_ending && !self.is_ending)
            || (event.is_writable() && self.wants_to_write);
        self.is_readable |= event.is_readable() || is_ending;
        self.is_writable |= event.is_writable() || is_ending;
        self.is_ending |= is_ending;
        self.is_urgent |= event.is_priority();
        is_news
    }

    /// Whether bytes of the remote wait.
    pub(crate) fn has_unread(&self) -> bool {
        self.stream.has_unread()
    }

    /// Whether the end of the remote's direction, or an error, has been announced.
    pub(crate) const fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whether a send may move something.
    pub(crate) const fn has_room(&self) -> bool {
        self.is_writable
    }

    /// As [`TcpStream::send_unpaced`].
    pub(crate) fn send_unpaced(&self) {
        self.stream.send_unpaced();
    }

    /// Moves what has arrived into a pipe that is empty, up to `len` bytes.
    pub(crate) fn recv_into(&mut self, pipe: BorrowedFd<'_>, len: usize) -> Transfer {
        if !self.is_readable {
            return Transfer::Blocked;
        }
        match splice(self.stream.as_fd(), pipe, len) {
            Ok(0) => {
                self.is_readable = false;
                Transfer::Ended
            }
            // However much it was: a full pipe takes less than has arrived.
            Ok(moved) => Transfer::Moved(moved),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                self.is_urgent = false;
                Transfer::Blocked
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Sends up to `len` bytes, at least one, out of a pipe that has as many.
    pub(crate) fn send_from(&mut self, pipe: BorrowedFd<'_>, len: usize) -> Transfer {
        if !self.is_writable {
            return Transfer::Blocked;
        }
        match splice(pipe, self.stream.as_fd(), len) {
            Ok(0) => Transfer::Failed,
            Ok(moved) => Transfer::Moved(moved),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                self.wants_to_write = true;
                Transfer::Blocked
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Whether the connection has broken since the last send or receive. Asked when the poller
    /// reports an error and nothing is received any more.
    pub(crate) fn has_broken(&mut self) -> bool {
        let broken = self.stream.take_error();
        broken.is_some_and(|error| self.fail(&error) == Transfer::Failed)
    }

    /// Closes the socket so that the remote sees a reset.
    pub(crate) fn reset(self) {
        if !self.is_broken {
            self.stream.reset();
        }
    }

    fn fail(&mut self, error: &io::Error) -> Transfer {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut};
        self.is_broken = matches!(error.kind(), ConnectionReset | BrokenPipe | TimedOut);
        // What had arrived before is still to be received (measured: a reset leaves the receive
        // queue alone), whether or not the poller has said so yet.
        self.is_readable = true;
        self.is_ending = true;
        Transfer::Failed
    }
}

impl AsFd for TcpHost {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl HostStream for TcpHost {
    fn send(&mut self, data: &[u8]) -> Transfer {
        if !self.is_writable {
            return Transfer::Blocked;
        }
        match self.stream.send(data) {
            Ok(sent) => {
                self.is_writable = sent == data.len();
                self.wants_to_write = !self.is_writable;
                if sent == 0 { Transfer::Blocked } else { Transfer::Moved(sent) }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                self.wants_to_write = true;
                Transfer::Blocked
            }
            // A signal came in between; the next event or turn tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Transfer::Blocked,
            Err(error) => self.fail(&error),
        }
    }

    fn has_input(&self) -> bool {
        self.is_readable
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        if !self.is_readable {
            return Transfer::Blocked;
        }
        match self.stream.recv(room) {
            Ok(0) => {
                self.is_readable = false;
                Transfer::Ended
            }
            Ok(received) => {
                self.is_readable = received == room.len() || self.is_ending || self.is_urgent;
                Transfer::Moved(received)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                self.is_urgent = false;
                Transfer::Blocked
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Transfer::Blocked,
            Err(error) => self.fail(&error),
        }
    }

    fn shutdown_write(&mut self) {
        if let Err(error) = self.stream.shutdown_write() {
            // The connection is over already; the next receive says how.
            tracing::debug!(%error, "shutdown");
        }
    }

    fn acknowledge(&mut self) {
        self.stream.acknowledge();
    }

    fn keep_alive(&mut self, idle_for: Duration) {
        self.stream.keep_alive(idle_for);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_takes_32_bytes() {
        assert_eq!(size_of::<Option<Slot>>(), 32);
    }
}
