//! The target `members`: a shared network whose members send arbitrary frames, and forwarded ports.
//!
//! Owns the language of its inputs, and the promises beyond every target's:
//!
//! * no member sends from an address that was assigned to another one;
//! * a frame for a device without offloads is cut into whole packets with correct checksums;
//! * no member has more than its quarter of the flow table;
//! * once all members, remotes and resolvers are gone, no state of them is left.
//!
//! Byte 0 chooses the policy. Then moves follow: the number of an [`MemberOp`] (modulo how many
//! there are), a byte of flags whose high bit is the member's port, and two bytes `b`. A frame, a
//! payload or an answer follows its move; `b` is its length.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use slirp_core::MacAddr;
use slirp_core::config::{Offload, StackConfig};
use slirp_core::discard::DiscardReason;
use slirp_core::event::{
    Datagram, DatagramError, DnsQueryId, FlowId, ForwardId, HostAction, HostError, Origin,
};
use slirp_core::internals::switch::{Recipients, Switch};
use slirp_core::internals::wire::{ETHERNET_HEADER_LEN, IpHeader, is_transport_checksum_valid};
use slirp_core::internals::wire::{FLAG_NEEDS_CSUM, VNET_HEADER_LEN, VnetHeader};
use slirp_core::internals::wire::{SEGMENTS_CAP, cut, is_covered};
use slirp_core::member::{Member, MemberId};
use slirp_core::plan::{AddressPlan, Ipv6Plan};
use slirp_core::stack::Stack;
use slirp_core::time::Instant;
use slirp_core::{HostStream, Transfer};

use crate::INPUT_CAP;
use crate::check::judge;
use crate::packet::fix_checksums;

/// Members at a time.
const MEMBERS: u8 = 2;
/// Flows at one time; low, so that inputs reach the cap, and four times a quarter.
const FLOWS_CAP: usize = 40;
/// How often one turn may find more work without time passing, and frames that it may emit.
const ROUNDS_CAP: usize = 20_000;
const FRAMES_CAP: usize = 200_000;
/// Bytes that a host socket takes before it blocks.
const ROOM: usize = 100_000;

/// The member's frame comes from its own Ethernet address.
pub const OWN_MAC: u8 = 0x01;
/// The member's frame goes to the gateway's Ethernet address.
pub const TO_GATEWAY: u8 = 0x02;
/// The frame's checksums are corrected.
pub const RIGHT_CHECKSUMS: u8 = 0x04;
/// The host answers the frame's request; otherwise the request fails.
pub const ANSWERED: u8 = 0x08;
/// The move is the second member's.
pub const SECOND: u8 = 0x80;

/// One move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberOp {
    /// A member sends the `b` bytes that follow, a frame with its virtio-net header.
    Frame = 0,
    /// Remote number `b` connects to a port that leads to the member.
    Accept,
    /// Remote number `b` sends a datagram to such a port, by rule `flags & 3`; with [`ANSWERED`] it
    /// is large, and several in one.
    Forwarded,
    /// The newest query is answered with the `b` bytes that follow, or not at all without
    /// [`ANSWERED`].
    Answer,
    /// `b` times 7 milliseconds pass, or seconds with [`ANSWERED`].
    Step,
    /// The member leaves, and joins again.
    Rejoin,
    /// The network reports an error about flow number `b` of the flows that were seen.
    Error,
    /// The remote of flow number `b` leaves; with [`ANSWERED`] its socket breaks as well.
    Leave,
    /// Rule `flags & 3` is removed.
    Unforward,
    /// All sockets have more bytes and more room.
    Host,
    /// The list of flows is read.
    List,
}

impl MemberOp {
    /// All moves, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Frame,
        Self::Accept,
        Self::Forwarded,
        Self::Answer,
        Self::Step,
        Self::Rejoin,
        Self::Error,
        Self::Leave,
        Self::Unforward,
        Self::Host,
        Self::List,
    ];

    /// The head of this move in an input.
    pub const fn emit(self, flags: u8, b: u16) -> [u8; 4] {
        let [b0, b1] = b.to_be_bytes();
        [self as u8, flags, b0, b1]
    }
}

/// The host's end of one TCP flow.
#[derive(Default)]
struct Host {
    ready: usize,
    room: usize,
    is_ended: bool,
    is_failed: bool,
}

impl HostStream for Host {
    fn send(&mut self, data: &[u8]) -> Transfer {
        if self.is_failed {
            return Transfer::Failed;
        }
        let len = data.len().min(self.room);
        if len == 0 {
            return Transfer::Blocked;
        }
        // An echo server, so that both rings are used.
        self.room -= len;
        self.ready += len;
        Transfer::Moved(len)
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        if self.is_failed {
            return Transfer::Failed;
        }
        let len = room.len().min(self.ready);
        if len == 0 {
            return if self.is_ended { Transfer::Ended } else { Transfer::Blocked };
        }
        room[..len].fill(7);
        self.ready -= len;
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {
        self.is_ended = true;
    }
}

/// Plays one input on a new network. Panics when a promise is broken.
pub fn members(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_CAP)];
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let mut network = Network::new(choice);
    while let Some((&[op, flags, b0, b1], behind)) = rest.split_first_chunk() {
        let b = u16::from_be_bytes([b0, b1]);
        let op = MemberOp::ALL[usize::from(op) % MemberOp::ALL.len()];
        let body_len = match op {
            MemberOp::Frame | MemberOp::Answer => usize::from(b).min(behind.len()),
            MemberOp::Accept
            | MemberOp::Forwarded
            | MemberOp::Step
            | MemberOp::Rejoin
            | MemberOp::Error
            | MemberOp::Leave
            | MemberOp::Unforward
            | MemberOp::Host
            | MemberOp::List => 0,
        };
        let (body, behind) = behind.split_at(body_len);
        rest = behind;
        network.play(op, flags, b, body);
        network.turn();
    }
    network.finish();
}

fn member(port: usize) -> Member {
    let number = u8::try_from(port + 1).expect("a port of few");
    Member {
        mac: MacAddr([2, 0, 0, 0, 0, number]),
        address: Ipv4Addr::new(10, 0, 2, 100 + number),
        address6: Some(format!("fd00::1{number:02}").parse().expect("an address")),
        names: vec![format!("m{number}").parse().expect("a name")],
        aliases: vec!["service".parse().expect("a name")],
    }
}

struct Network {
    stack: Stack,
    switch: Switch,
    now: Instant,
    /// The member on each port.
    ids: [MemberId; MEMBERS as usize],
    last_id: u64,
    hosts: BTreeMap<FlowId, Host>,
    queries: Vec<DnsQueryId>,
    /// Flows that were seen; most of them have ended.
    seen: Vec<FlowId>,
}

impl Network {
    fn new(choice: u8) -> Self {
        let mut config = StackConfig::default();
        config.plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        config.offload = Offload::FULL;
        config.seed = u64::from(choice);
        config.is_shared = true;
        config.policy.allow_host_loopback = choice & 1 == 0;
        let limits = &mut config.limits;
        limits.flows = FLOWS_CAP;
        limits.half_open = 12;
        limits.echo_flows = 8;
        limits.inbound_udp = 8;
        limits.dns_queries = 8;
        limits.dns_connections = 3;
        limits.reassembly_datagrams = 4;
        limits.ring_memory = 4 * 1024 * 1024;
        limits.ring_len = 64 * 1024;
        let plan = config.plan;
        let mut network = Self {
            stack: Stack::new(config),
            switch: Switch::new(plan),
            now: Instant::from_micros(1_000_000),
            ids: [MemberId(0); MEMBERS as usize],
            last_id: 0,
            hosts: BTreeMap::new(),
            queries: Vec::new(),
            seen: Vec::new(),
        };
        (0..usize::from(MEMBERS)).for_each(|port| network.join(port));
        network
    }

    fn join(&mut self, port: usize) {
        let member = member(port);
        assert_eq!(self.switch.connect(&member), Ok(port), "a free port and free addresses");
        self.last_id += 1;
        self.ids[port] = MemberId(self.last_id);
        self.stack.handle_member_added(self.ids[port], &member, self.now);
    }

    fn leave(&mut self, port: usize) {
        let released = self.switch.disconnect(port);
        self.stack.handle_member_removed(self.ids[port], &member(port), &released, self.now);
    }

    fn keep(&mut self, opened: Result<FlowId, DiscardReason>) -> Option<FlowId> {
        let flow = opened.ok()?;
        self.hosts.insert(flow, Host { ready: 3000, room: ROOM, ..Host::default() });
        self.seen.push(flow);
        Some(flow)
    }

    fn play(&mut self, op: MemberOp, flags: u8, b: u16, body: &[u8]) {
        let port = usize::from(flags & SECOND != 0);
        let is_answered = flags & ANSWERED != 0;
        let [b0, b1] = b.to_be_bytes();
        let remote = SocketAddr::from(([192, 0, 2, b0], 1024 + u16::from(b1)));
        let guest = IpAddr::V4(member(port).address);
        match op {
            MemberOp::Frame => self.frame(port, flags, body),
            MemberOp::Accept => {
                let guest = SocketAddr::new(guest, 80);
                let origin = Origin { rule: ForwardId(1), client: remote, local: remote };
                let opened = self.stack.handle_tcp_accepted(origin, guest, self.now);
                if let Some(flow) = self.keep(opened) {
                    let other = SocketAddr::new(IpAddr::V4(member(1 - port).address), 80);
                    self.stack.set_other_guest(flow, other);
                }
            }
            MemberOp::Forwarded => {
                let rule = ForwardId(u64::from(flags & 3));
                let local = (Ipv4Addr::LOCALHOST, 53).into();
                let origin = Origin { rule, client: remote, local };
                let len = if is_answered { 200 * usize::from(b1) } else { usize::from(b1) };
                let segment_len = is_answered.then_some(u16::from(b0)).filter(|&len| len != 0);
                let guest = SocketAddr::new(guest, 53);
                let payload = vec![1; len];
                self.stack.handle_inbound_udp(origin, guest, &payload, segment_len, 0, self.now);
            }
            MemberOp::Answer => {
                if let Some(query) = self.queries.pop() {
                    let answer = is_answered.then(|| body.to_vec());
                    self.stack.handle_dns_answer(query, answer, self.now);
                }
            }
            MemberOp::Step => {
                let millis = u64::from(b) * if is_answered { 1000 } else { 7 };
                self.now = self.now + Duration::from_millis(millis);
            }
            MemberOp::Rejoin => {
                self.leave(port);
                self.join(port);
            }
            MemberOp::Error => {
                let error = DatagramError {
                    remote,
                    offender: is_answered.then(|| IpAddr::V4(Ipv4Addr::new(b1, 1, 1, 1))),
                    icmp_type: b0,
                    icmp_code: b1,
                    info: u32::from(b),
                    error: HostError::HostUnreachable,
                };
                if let Some(flow) = self.seen_flow(b) {
                    self.stack.handle_udp_undelivered(flow, &error, &[b0; 600]);
                    self.stack.handle_echo_undelivered(flow, &error, b);
                }
            }
            MemberOp::Leave => {
                if let Some(flow) = self.seen_flow(b) {
                    self.stack.handle_remote_gone(flow);
                    if let Some(host) = self.hosts.get_mut(&flow) {
                        host.is_failed = is_answered;
                        host.is_ended = true;
                    }
                    self.stack.wake_flow(flow);
                }
            }
            MemberOp::Unforward => {
                self.stack
                    .handle_forwards_removed(&[ForwardId(u64::from(flags & 3))].into(), self.now);
            }
            MemberOp::Host => {
                for (&flow, host) in &mut self.hosts {
                    host.ready += 70_000;
                    host.room = ROOM;
                    self.stack.wake_flow(flow);
                }
            }
            MemberOp::List => assert_eq!(
                u64::try_from(self.flows().len()),
                Ok(self.stack.stats().flows),
                "the list is complete"
            ),
        }
    }

    fn seen_flow(&self, number: u16) -> Option<FlowId> {
        self.seen.get(usize::from(number) % self.seen.len().max(1)).copied()
    }

    /// The guest's address of every flow.
    fn flows(&self) -> Vec<IpAddr> {
        let (mut guests, mut first) = (Vec::new(), Some(0));
        while let Some(from) = first {
            let (flows, next) = self.stack.flows(from, 7, self.now);
            guests.extend(flows.map(|flow| flow.guest.ip()));
            first = next;
        }
        guests
    }

    /// A member sends a frame, through the switch.
    fn frame(&mut self, port: usize, flags: u8, body: &[u8]) {
        let mut frame = body.to_vec();
        if let Some(ethernet) = frame.get_mut(VNET_HEADER_LEN..) {
            if flags & RIGHT_CHECKSUMS != 0 {
                fix_checksums(ethernet);
            }
            if flags & OWN_MAC != 0
                && let Some(source) = ethernet.get_mut(6..12)
            {
                source.copy_from_slice(&member(port).mac.0);
            }
            if flags & TO_GATEWAY != 0
                && let Some(destination) = ethernet.get_mut(..6)
            {
                destination.copy_from_slice(&crate::packet::GATEWAY_MAC);
            }
        }
        let Ok(route) = self.switch.handle_frame(port, &frame) else {
            return;
        };
        assert_not_spoofed(port, &frame);
        if route.to != Recipients::Nobody {
            cut_for_plain_devices(&frame);
        }
        if route.to_stack {
            self.hand_to_stack(port, &mut frame, flags & ANSWERED != 0);
        }
    }

    fn hand_to_stack(&mut self, port: usize, frame: &mut [u8], is_answered: bool) {
        match self.stack.handle_frame_of(Some(self.ids[port]), frame, self.now) {
            Some(Datagram::Udp { flow, remote, payload, segment_len, .. }) => {
                let payload = payload.to_vec();
                self.seen.push(flow);
                if is_answered {
                    let now = self.now;
                    self.stack.handle_udp_from_host(flow, remote, &payload, segment_len, 0, now);
                } else {
                    let len = payload.len();
                    let error = HostError::TooLarge(Some(u16::try_from(len).unwrap_or(u16::MAX)));
                    self.stack.handle_udp_unsent(flow, remote, error, &payload, len, 1);
                }
            }
            Some(Datagram::Echo { flow, remote, sequence, payload, .. }) => {
                let payload = payload.to_vec();
                self.seen.push(flow);
                if is_answered {
                    self.stack.handle_echo_reply(flow, remote, sequence, &payload, None, self.now);
                }
            }
            Some(Datagram::InboundUdp { .. }) | None => {}
        }
    }

    /// All work of a host side before it waits.
    fn turn(&mut self) {
        let mut frames = 0;
        for _ in 0..ROUNDS_CAP {
            if self.is_due() {
                self.stack.handle_timeout(self.now);
            }
            self.take_actions();
            let ready = self.stack.poll_ready(self.now);
            if let Some(flow) = ready
                && let Some(host) = self.hosts.get_mut(&flow)
            {
                self.stack.pump(flow, host, self.now);
            }
            while let Some(frame) = self.stack.poll_frame(self.now).map(<[u8]>::to_vec) {
                frames += 1;
                assert!(frames <= FRAMES_CAP, "one turn emits frames without end");
                judge(self.stack.config(), &frame);
                cut_for_plain_devices(&frame);
                // Its receiver may be gone by now.
                let _ = self.switch.route_from_stack(&frame);
            }
            if ready.is_none() && !self.stack.has_work() && !self.is_due() {
                self.judge();
                return;
            }
        }
        panic!("a turn does not end: {:?}", self.stack.stats());
    }

    fn is_due(&mut self) -> bool {
        self.stack.poll_timeout().is_some_and(|(at, _)| at <= self.now)
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.stack.poll_action() {
            match action {
                HostAction::ConnectTcp { flow, .. } => {
                    self.hosts.insert(flow, Host { room: ROOM, ..Host::default() });
                    self.seen.push(flow);
                    self.stack.handle_tcp_connected(flow, Ok(()), self.now);
                }
                HostAction::Close { flow, .. } => {
                    self.hosts.remove(&flow);
                }
                HostAction::AskElsewhere { flow, origin, guest, .. } => {
                    self.hosts.remove(&flow);
                    let opened = self.stack.handle_tcp_refused(origin, guest, self.now);
                    self.keep(opened);
                }
                HostAction::QueryDns { query, .. } => self.queries.push(query),
                HostAction::CancelDns { query, .. } => self.queries.retain(|&other| other != query),
            }
        }
    }

    fn judge(&self) {
        let stats = self.stack.stats();
        assert_eq!(
            stats.discards.value(DiscardReason::TcpEngineFailed),
            0,
            "the engine never panics and never refuses what was checked"
        );
        let guests = self.flows();
        assert!(guests.len() <= FLOWS_CAP, "{} flows", guests.len());
        // Every address belongs to a member, including addresses of networks behind it.
        let parts = usize::from(MEMBERS) * (FLOWS_CAP / 4);
        assert!(guests.len() <= parts, "{} flows of members", guests.len());
        for port in 0..usize::from(MEMBERS) {
            let member = member(port);
            let own = guests.iter().filter(|&&guest| member.addresses().any(|own| own == guest));
            assert!(own.count() <= FLOWS_CAP / 4, "a member has a quarter, and no more");
        }
    }

    /// Members, remotes and resolvers leave; no state of them may be left.
    fn finish(mut self) {
        (0..usize::from(MEMBERS)).for_each(|port| self.leave(port));
        for query in core::mem::take(&mut self.queries) {
            self.stack.handle_dns_answer(query, None, self.now);
        }
        for (&flow, host) in &mut self.hosts {
            host.is_failed = true;
            self.stack.wake_flow(flow);
        }
        for _ in 0..40 {
            self.turn();
            self.now = self.now + Duration::from_secs(300);
        }
        self.turn();
        assert_eq!(self.stack.stats().flows, 0, "a flow is left: {:?}", self.stack.stats());
        assert!(self.hosts.is_empty(), "every socket was closed");
    }
}

/// Asserts that a member does not send from an address that was assigned to another one.
fn assert_not_spoofed(port: usize, frame: &[u8]) {
    let Some((ethernet, packet)) =
        frame.get(VNET_HEADER_LEN..).and_then(|frame| frame.split_at_checked(ETHERNET_HEADER_LEN))
    else {
        return;
    };
    if !matches!(ethernet[12..], [0x08, 0x00] | [0x86, 0xdd]) {
        return;
    }
    if let Ok(ip) = IpHeader::parse(packet) {
        for other in (0..usize::from(MEMBERS)).filter(|&other| other != port) {
            assert!(
                member(other).addresses().all(|address| address != ip.source),
                "the frame of port {port} is from {}",
                ip.source
            );
        }
    }
}

/// A device without some of the offloads gets whole packets.
fn cut_for_plain_devices(frame: &[u8]) {
    let header = frame.first_chunk().expect("a frame has its virtio-net header");
    let vnet = VnetHeader::parse(header).expect("a known header");
    let bare = Offload { vnet_header: true, ..Offload::NOTHING };
    for offload in [Offload::NOTHING, bare, Offload { checksum: true, ..bare }] {
        if is_covered(&vnet, offload) {
            continue;
        }
        let (mut room, mut packets) = (Vec::new(), 0);
        // A frame that cannot be cut is discarded and counted.
        let _ = cut(&vnet, &frame[VNET_HEADER_LEN..], &mut room, |packet| {
            packets += 1;
            if vnet.flags & FLAG_NEEDS_CSUM == 0 {
                return;
            }
            let packet = &packet[ETHERNET_HEADER_LEN..];
            let ip = IpHeader::parse(packet).expect("a packet that was cut parses");
            assert!(
                ip.is_fragment
                    || is_transport_checksum_valid(&ip, &packet[ip.header_len..ip.packet_len]),
                "the checksum of a packet that was cut is right: {packet:02x?}"
            );
        });
        assert!(packets <= SEGMENTS_CAP, "{packets} packets of one frame");
    }
}
