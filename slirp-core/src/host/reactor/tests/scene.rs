//! A loop that is turned by hand, and its guest.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use super::*;
use crate::host::forward::{Forward, ForwardProtocol};
use crate::wire::frame::IpHeader;
use crate::wire::udp::emit_datagram;

pub(super) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Longest wait for an event that has to come; only a failing test ever waits that long.
const PATIENCE_MS: u16 = 10_000;

/// See the [module](self).
pub(super) struct Scene {
    pub(super) reactor: Reactor,
    guest: OwnedFd,
}

/// A rule that leads to 10.0.2.100.
pub(super) fn rule(protocol: ForwardProtocol, host: SocketAddr, guest_port: u16) -> Forward {
    Forward::new(protocol, host, ([10, 0, 2, 100], guest_port).into())
}

/// A free port of a loopback address that no other test uses. It was found by opening the other
/// protocol's port of this number, so this one was never in use.
pub(super) fn free_port(address: [u8; 4], protocol: ForwardProtocol) -> SocketAddr {
    let any = SocketAddr::from((address, 0));
    match protocol {
        ForwardProtocol::Tcp => UdpSocket::bind(any).unwrap().local_addr().unwrap(),
        ForwardProtocol::Udp => TcpListener::bind(any).unwrap().local_addr().unwrap(),
    }
}

impl Scene {
    pub(super) fn new(config: StackConfig) -> Self {
        let (ours, guest) = pair();
        let link = FrameSocket::adopt(ours).unwrap().into();
        let (reactor, _) = reactor_on(link, config, BusyPoll::new(Duration::ZERO, 1));
        Self { reactor, guest }
    }

    /// The guest sends a frame.
    pub(super) fn say(&mut self, frame: &[u8]) {
        self.utter(frame);
        self.listen();
    }

    fn utter(&self, frame: &[u8]) {
        let sent = send(self.guest.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
        assert_eq!(sent, Ok(frame.len()));
    }

    /// The loop takes what the guest has sent.
    fn listen(&mut self) {
        self.reactor.read_frames(self.reactor.now()).unwrap();
        self.reactor.turn(self.reactor.now()).unwrap();
    }

    /// The guest sends a datagram.
    pub(super) fn send(&mut self, from: u16, to: SocketAddr, payload: &[u8]) {
        self.send_each(&[from], to, payload);
    }

    /// The guest sends the datagram from several ports; the loop reads them as one batch.
    pub(super) fn send_each(&mut self, from: &[u16], to: SocketAddr, payload: &[u8]) {
        for &from in from {
            let mut frame = [&[0x52, 0x55, 10, 0, 2, 2][..], &GUEST_MAC, &[8, 0]].concat();
            emit_datagram(&mut frame, ([10, 0, 2, 100], from).into(), to, 64, 0, payload).unwrap();
            self.utter(&frame);
        }
        self.listen();
    }

    /// The guest announces its address.
    pub(super) fn tell_address(&mut self) {
        let arp = [0, 1, 8, 0, 6, 4, 0, 2];
        let frame = [
            &[0x52, 0x55, 10, 0, 2, 2][..],
            &GUEST_MAC,
            &[8, 6],
            &arp,
            &GUEST_MAC,
            &[10, 0, 2, 100, 0x52, 0x55, 10, 0, 2, 2, 10, 0, 2, 2],
        ];
        self.say(&frame.concat());
    }

    /// The IPv4 packets that the guest has received.
    pub(super) fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let mut room = [0; 70_000];
        loop {
            match recv(self.guest.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Ok(len) if room[12..14] == [8, 0] => heard.push(room[14..len].to_vec()),
                Ok(_) => {}
                Err(Errno::EAGAIN) => return heard,
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    /// Waits until something has happened, and notes what.
    pub(super) fn note(&mut self) {
        let mut events = Events::with_capacity(64);
        let patience = Some(Duration::from_millis(PATIENCE_MS.into()));
        self.reactor.poll(&mut events, patience).unwrap();
        assert!(!events.is_empty(), "nothing happened");
        self.reactor.note_events(&events, self.reactor.now());
    }

    /// Turns the loop until the guest has received `count` packets.
    pub(super) fn turn_until(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut heard = self.heard();
        while heard.len() < count {
            if self.reactor.backlog.is_empty() && self.reactor.forwards.is_idle() {
                self.note();
            }
            self.serve();
            heard.append(&mut self.heard());
        }
        heard
    }

    /// Serves ready host sockets, as a turn does.
    pub(super) fn serve(&mut self) {
        let now = self.reactor.now();
        self.reactor.serve_backlog(now).unwrap();
        self.reactor.serve_forwards(now).unwrap();
        self.reactor.turn(now).unwrap();
    }

    pub(super) fn discards(&self, reason: DiscardReason) -> u64 {
        self.reactor.stack.stats().discards.value(reason)
    }

    pub(super) fn flows(&self) -> u64 {
        self.reactor.stack.stats().flows
    }
}

/// Waits until something can be read.
pub(super) fn await_readable(socket: &impl std::os::fd::AsFd) {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(PATIENCE_MS)), Ok(1), "nothing happened");
}

/// The sender of an IPv4 packet.
pub(super) fn source(packet: &[u8]) -> SocketAddr {
    let ip = IpHeader::parse(packet).unwrap();
    let at = ip.header_len;
    SocketAddr::new(ip.source, u16::from_be_bytes([packet[at], packet[at + 1]]))
}
