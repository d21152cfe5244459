//! The guest: a TCP/IP stack of its own with programs that talk.
//!
//! Owns a smoltcp interface on Ethernet, its TCP sockets and the programs behind them. Datagrams
//! are made and read by hand, fragments included.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use slirp_core::MacAddr;
use slirp_core::internals::wire::fragments;
use slirp_core::internals::wire::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IpHeader,
};
use slirp_core::internals::wire::{HeaderFields, IpPair, Located};
use slirp_core::plan::AddressPlan;
use slirp_core::time::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, IpCidr, IpProtocol, checksum};

/// MAC address of the guest.
pub const GUEST_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Receive buffer of a guest's socket. No larger, so that its windows are exact: a larger one would
/// bring the defects of smoltcp's scaled windows into the guest.
const RECEIVE_LEN: usize = 65_535;
const SEND_LEN: usize = 128 * 1024;

/// What a program of the guest does with its connection.
#[derive(Clone, Debug)]
pub struct Program {
    /// The remote that it talks to.
    pub remote: SocketAddr,
    /// What it says, each part after a silence that begins with the end of the part before it.
    pub parts: Vec<(Duration, Vec<u8>)>,
    /// How many bytes must have arrived before the silence in front of each part begins.
    pub awaits: Vec<usize>,
    /// Whether it ends its direction only after the remote has ended.
    pub closes_last: bool,
    /// Bytes that it reads a millisecond; none for all.
    pub reads: Option<usize>,
    /// Whether it resets the connection after its last part instead of ending it.
    pub aborts: bool,
}

impl Program {
    /// A program that says `data` at once and reads everything.
    pub fn new(remote: SocketAddr, data: Vec<u8>) -> Self {
        Self {
            remote,
            parts: vec![(Duration::ZERO, data)],
            awaits: vec![0],
            closes_last: false,
            reads: None,
            aborts: false,
        }
    }
}

/// How a program fared.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// What it received.
    pub received: Vec<u8>,
    /// Whether the handshake was finished.
    pub is_connected: bool,
    /// Whether the remote ended in order.
    pub is_ended: bool,
    /// Whether it was reset before both directions had ended.
    pub is_reset: bool,
    /// When there was nothing left to do.
    pub done_at: Option<Instant>,
}

struct App {
    handle: SocketHandle,
    program: Program,
    fate: Fate,
    unsent: VecDeque<u8>,
    next_part: usize,
    part_at: Option<Instant>,
    is_closed: bool,
    read_at: Instant,
    /// Whether the remote's end has arrived, behind bytes that may still wait to be read.
    is_fin_seen: bool,
    /// Highest acknowledgement number of a pure acknowledgement.
    last_ack: Option<u32>,
}

/// A datagram or ICMP message that the guest received: protocol, addresses and what follows the IP
/// header.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Source and destination.
    pub pair: IpPair,
    /// IP protocol number.
    pub protocol: u8,
    /// Everything behind the IP header.
    pub body: Vec<u8>,
}

/// A guest with an IP stack of its own.
pub struct Guest {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    /// Frames that smoltcp has not seen yet.
    pending: VecDeque<Vec<u8>>,
    apps: Vec<App>,
    letters: Vec<Letter>,
    pieces: BTreeMap<u32, Vec<(usize, bool, Vec<u8>)>>,
    plan: AddressPlan,
    mtu: u16,
    next_port: u16,
}

impl Guest {
    pub(super) fn new(plan: AddressPlan, mtu: u16, seed: u64) -> Self {
        let mut wire = Wire { inbox: None, outbox: Vec::new(), mtu: usize::from(mtu) };
        let mut config = Config::new(EthernetAddress(GUEST_MAC.0).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, to_smoltcp(Instant::ZERO));
        let v4 = plan.ipv4().expect("the plan has IPv4");
        let gateway = v4.gateway.expect("it has a gateway");
        let routed = interface.routes_mut().add_default_ipv4_route(gateway);
        assert!(routed.is_ok());
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(v4.guest.into(), v4.prefix_len));
        });
        if let Some(v6) = plan.ipv6() {
            let gateway = v6.gateway.expect("it has a gateway");
            let routed = interface.routes_mut().add_default_ipv6_route(gateway);
            assert!(routed.is_ok());
            interface.update_ip_addrs(|addresses| {
                let _ = addresses.push(IpCidr::new(guest_v6(&plan).into(), 64));
            });
        }
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            pending: VecDeque::new(),
            apps: Vec::new(),
            letters: Vec::new(),
            pieces: BTreeMap::new(),
            plan,
            mtu,
            next_port: 49_152,
        }
    }

    /// Starts a program; returns its number.
    pub(super) fn run(&mut self, program: Program, now: Instant) -> usize {
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; RECEIVE_LEN]),
            SocketBuffer::new(vec![0; SEND_LEN]),
        );
        socket.set_nagle_enabled(false);
        let port = self.next_port;
        self.next_port += 1;
        socket
            .connect(self.interface.context(), (program.remote.ip(), program.remote.port()), port)
            .expect("a route to the remote");
        let handle = self.sockets.add(socket);
        let part_at = (program.awaits.first() == Some(&0))
            .then(|| program.parts.first().map(|&(silence, _)| now + silence))
            .flatten();
        self.apps.push(App {
            handle,
            program,
            fate: Fate::default(),
            unsent: VecDeque::new(),
            next_part: 0,
            part_at,
            is_closed: false,
            read_at: now,
            is_fin_seen: false,
            last_ack: None,
        });
        self.apps.len() - 1
    }

    pub(super) fn fate(&self, number: usize) -> &Fate {
        &self.apps[number].fate
    }

    /// Where the unfinished programs stand, for a failure's message.
    pub(super) fn standing(&self) -> String {
        let mut text = String::new();
        for (number, app) in self.apps.iter().enumerate() {
            if app.fate.done_at.is_some() {
                continue;
            }
            let socket: &Socket<'_> = self.sockets.get(app.handle);
            let (state, queue) = (socket.state(), socket.send_queue());
            let (unsent, received) = (app.unsent.len(), app.fate.received.len());
            text += &format!(
                "program {number}: {state}, {unsent} bytes unsent, {queue} queued, {received} \
                 received\n"
            );
        }
        text
    }

    pub(super) fn is_done(&self) -> bool {
        self.apps.iter().all(|app| app.fate.done_at.is_some())
    }

    pub(super) fn take_letters(&mut self) -> Vec<Letter> {
        core::mem::take(&mut self.letters)
    }

    /// Sends a UDP datagram, fragmented where it is larger than the MTU.
    pub(super) fn send_udp(&mut self, from_port: u16, to: SocketAddr, payload: &[u8]) {
        let mut udp = Vec::new();
        udp.extend_from_slice(&from_port.to_be_bytes());
        udp.extend_from_slice(&to.port().to_be_bytes());
        let len = u16::try_from(8 + payload.len()).expect("a datagram's length");
        udp.extend_from_slice(&len.to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        let pair = self.pair_to(to);
        let sum = !checksum::combine(&[pair.pseudo_header_sum(17, len), checksum::data(&udp)]);
        udp[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        self.send_packet(pair, IpProtocol::Udp.into(), &udp);
    }

    /// Sends an ICMP message whose checksum is still to be computed.
    pub(super) fn send_icmp(&mut self, to: SocketAddr, message: &[u8]) {
        let pair = self.pair_to(to);
        let mut icmp = message.to_vec();
        let (protocol, pseudo) = match pair {
            IpPair::V4(..) => (1, 0),
            IpPair::V6(..) => {
                let len = u16::try_from(icmp.len()).expect("a message's length");
                (58, pair.pseudo_header_sum(58, len))
            }
        };
        let sum = !checksum::combine(&[pseudo, checksum::data(&icmp)]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        self.send_packet(pair, protocol, &icmp);
    }

    fn pair_to(&self, to: SocketAddr) -> IpPair {
        match to {
            SocketAddr::V4(to) => {
                let guest = self.plan.ipv4().expect("the plan has IPv4").guest;
                IpPair::V4(guest, *to.ip())
            }
            SocketAddr::V6(to) => IpPair::V6(guest_v6(&self.plan), *to.ip()),
        }
    }

    fn send_packet(&mut self, pair: IpPair, protocol: u8, body: &[u8]) {
        let fields = HeaderFields { protocol, hop_limit: 64, traffic_class: 0 };
        let mut packet = Vec::new();
        pair.emit_header(&mut packet, fields, body.len());
        packet.extend_from_slice(body);
        let ethertype = match pair {
            IpPair::V4(..) => ETHERTYPE_IPV4,
            IpPair::V6(..) => ETHERTYPE_IPV6,
        };
        let destination = self.plan.our_mac(std::net::Ipv4Addr::UNSPECIFIED.into());
        let header = EthernetHeader { destination, source: GUEST_MAC, ethertype }.emit();
        let ident = u32::try_from(self.wire.outbox.len()).unwrap_or(0) + u32::from(self.next_port);
        self.next_port += 1;
        for fragment in fragments(&packet, self.mtu, ident) {
            let mut frame = header.to_vec();
            frame.extend_from_slice(&fragment);
            self.wire.outbox.push(frame);
        }
    }

    /// A plain frame of the stack.
    pub(super) fn handle_frame(&mut self, frame: Vec<u8>) {
        let packet = &frame[ETHERNET_HEADER_LEN..];
        if let Ok(located) = Located::parse(packet)
            && IpHeader::parse(packet).is_ok()
            && let Some(letter) = self.letter(&located)
        {
            self.letters.push(letter);
            return;
        }
        self.pending.push_back(frame);
    }

    /// Whether a segment only says again that the guest's FIN is missing. Real guests repeat a FIN
    /// by timer; three of these would stop smoltcp's.
    fn is_fin_missed(&mut self, packet: &[u8]) -> bool {
        let Ok(ip) = IpHeader::parse(packet) else { return false };
        let segment = &packet[ip.header_len..];
        if ip.protocol != IpProtocol::Tcp || segment.len() != 20 || segment[13] != 0x10 {
            return false;
        }
        let port = u16::from_be_bytes([segment[2], segment[3]]);
        let ack = u32::from_be_bytes([segment[8], segment[9], segment[10], segment[11]]);
        let sockets = &self.sockets;
        self.apps.iter_mut().any(|app| {
            let socket: &Socket<'_> = sockets.get(app.handle);
            if socket.local_endpoint().is_none_or(|local| local.port != port) {
                return false;
            }
            let is_closing =
                matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
            let is_new = app.last_ack.is_none_or(|last| last.wrapping_sub(ack) > u32::MAX / 2);
            if is_new {
                app.last_ack = Some(ack);
            }
            !is_new && is_closing && socket.send_queue() == 0
        })
    }

    /// A datagram, ICMP message or completed set of fragments; TCP and neighbour discovery go to
    /// smoltcp.
    fn letter(&mut self, located: &Located<'_>) -> Option<Letter> {
        let body = located.payload().to_vec();
        let Located { pair, protocol, .. } = *located;
        if let Some(fragment) = located.fragment {
            let pieces = self.pieces.entry(fragment.ident).or_default();
            pieces.push((fragment.offset, fragment.more, body));
            pieces.sort();
            pieces.dedup();
            let mut whole = Vec::new();
            for (offset, more, piece) in pieces.iter() {
                if *offset != whole.len() {
                    break;
                }
                whole.extend_from_slice(piece);
                if !more {
                    let body = whole;
                    self.pieces.remove(&fragment.ident);
                    return Some(Letter { pair, protocol, body });
                }
            }
            // Swallowed: nothing whole yet.
            return Some(Letter { pair, protocol: u8::MAX, body: Vec::new() });
        }
        let is_ndp = protocol == 58 && body.first().is_some_and(|kind| (133..=137).contains(kind));
        (protocol != 6 && !is_ndp).then_some(Letter { pair, protocol, body })
    }

    /// Lets smoltcp and the programs do what they can; returns the frames for the stack.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        for _ in 0..4 {
            let at = to_smoltcp(now);
            while let Some(frame) = self.pending.pop_front() {
                if self.is_fin_missed(&frame[ETHERNET_HEADER_LEN..]) {
                    continue;
                }
                self.wire.inbox = Some(frame);
                self.interface.poll_ingress_single(at, &mut self.wire, &mut self.sockets);
            }
            for app in &mut self.apps {
                app.poll(self.sockets.get_mut(app.handle), now);
            }
            for _ in 0..64 {
                let before = self.wire.outbox.len();
                self.interface.poll_egress(at, &mut self.wire, &mut self.sockets);
                if self.wire.outbox.len() == before {
                    break;
                }
            }
        }
        core::mem::take(&mut self.wire.outbox)
    }

    pub(super) fn poll_at(&mut self, now: Instant) -> Option<Instant> {
        let engine = self.interface.poll_at(to_smoltcp(now), &self.sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            // An engine that wants to be polled and says nothing must not stop time.
            Instant::from_micros(micros.max(now.as_micros() + 1000))
        });
        let apps = self.apps.iter().filter_map(|app| app.wake_at(now));
        apps.chain(engine).min()
    }
}

impl App {
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.fate.done_at.is_some() {
            return None;
        }
        let read_at = self.program.reads.map(|_| self.read_at);
        [self.part_at, read_at].into_iter().flatten().filter(|&at| at > now).min()
    }

    fn poll(&mut self, socket: &mut Socket<'static>, now: Instant) {
        if self.fate.done_at.is_some() {
            return;
        }
        self.fate.is_connected |= socket.may_send() || socket.may_recv();
        if !self.fate.is_connected && socket.state() != State::Closed {
            return;
        }
        self.read(socket, now);
        self.is_fin_seen |= matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        self.fate.is_ended |= self.is_fin_seen && !socket.can_recv();
        self.write(socket, now);
        let is_closed = socket.state() == State::Closed;
        // A reset after both ends is the answer to a repeated FIN: it harms no connection.
        self.fate.is_reset |= is_closed && !(self.is_fin_seen && self.is_closed);
        let is_over = is_closed || socket.state() == State::TimeWait;
        if is_over && !socket.can_recv() {
            self.fate.done_at = Some(now);
        }
    }

    fn read(&mut self, socket: &mut Socket<'static>, now: Instant) {
        let mut room = usize::MAX;
        if let Some(rate) = self.program.reads {
            if now < self.read_at {
                return;
            }
            room = rate;
            self.read_at = now + Duration::from_millis(1);
        }
        while room > 0 && socket.can_recv() {
            let taken = socket.recv(|data| {
                let len = data.len().min(room);
                self.fate.received.extend_from_slice(&data[..len]);
                (len, len)
            });
            room -= taken.unwrap_or(room);
        }
    }

    fn write(&mut self, socket: &mut Socket<'static>, now: Instant) {
        if self.part_at.is_none()
            && self.unsent.is_empty()
            && let Some(&awaited) = self.program.awaits.get(self.next_part)
            && self.fate.received.len() >= awaited
        {
            self.part_at = Some(now + self.program.parts[self.next_part].0);
        }
        if self.part_at.is_some_and(|at| at <= now) {
            self.part_at = None;
            self.unsent.extend(&self.program.parts[self.next_part].1);
            self.next_part += 1;
        }
        while !self.unsent.is_empty() && socket.can_send() {
            let data = self.unsent.make_contiguous();
            let sent = socket.send_slice(data).unwrap_or(0);
            self.unsent.drain(..sent);
        }
        let has_said_all = self.unsent.is_empty() && self.next_part == self.program.parts.len();
        if has_said_all && !self.is_closed && (self.fate.is_ended || !self.program.closes_last) {
            self.is_closed = true;
            if self.program.aborts {
                socket.abort();
            } else {
                socket.close();
            }
        }
    }
}

/// The guest's network interface.
struct Wire {
    inbox: Option<Vec<u8>>,
    outbox: Vec<Vec<u8>>,
    mtu: usize,
}

struct Incoming(Vec<u8>);

struct Outgoing<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Wire {
    type RxToken<'t> = Incoming;
    type TxToken<'t> = Outgoing<'t>;

    fn receive(
        &mut self,
        _now: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.inbox.take()?;
        Some((Incoming(frame), Outgoing(&mut self.outbox)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        Some(Outgoing(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_LEN;
        capabilities
    }
}

impl smoltcp::phy::RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let outcome = f(&mut frame);
        self.0.push(frame);
        outcome
    }
}

fn guest_v6(plan: &AddressPlan) -> std::net::Ipv6Addr {
    let [a, b, c, d, ..] = plan.ipv6().map_or([0; 8], |v6| v6.network().segments());
    std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0x64)
}

fn to_smoltcp(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
