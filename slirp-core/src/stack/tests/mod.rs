//! Packet ladders: a guest's frames in, frames and actions out, in virtual time.
//!
//! Owns the [`Ladder`], which plays guest and host around one [`Stack`], and the [`Talk`], one TCP
//! connection of the guest, segment by segment.

mod acknowledgement;
mod admission;
mod closing;
mod datagrams;
mod dns;
mod eager;
mod egress;
mod events;
mod from_host;
mod hostile;
mod link;
mod list;
mod memory;
mod mirrored;
mod opening;
mod rates;
mod segmentation;
mod window;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::Stack;
use crate::config::{Offload, StackConfig};
use crate::discard::DiscardReason;
use crate::event::{DnsQueryId, FlowId, ForwardId, HostAction, HostError, Origin};
use crate::flow::{HostStream, Transfer};
use crate::journal::Ending;
use crate::mac::MacAddr;
use crate::member::MemberId;
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::tcp::tests::packet::{
    ACK, Draft, LINUX_OPTIONS, SYN, Seen, frame_around, open_frame, stream,
};
use crate::time::Instant;
use crate::wire::frame::{EthernetHeader, IpHeader};
use crate::wire::vnet::{VNET_HEADER_LEN, VnetHeader};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ISN: u32 = 0xffff_ff00;

/// The host's end of one flow.
#[derive(Default)]
struct Script {
    /// What it will say.
    to_guest: VecDeque<u8>,
    /// Whether it ends behind that.
    is_ended: bool,
    /// Whether it breaks behind that; it takes nothing any more.
    is_broken: bool,
    /// How much more it takes.
    room: usize,
    taken: Vec<u8>,
    is_shut: bool,
    /// How often it was told to wait for the guest no longer.
    acknowledged: u32,
    /// What it was told of the guest's probes.
    keep_alive: Vec<Duration>,
}

impl HostStream for Script {
    fn send(&mut self, data: &[u8]) -> Transfer {
        if self.is_broken {
            return Transfer::Failed;
        }
        assert!(!self.is_shut, "bytes behind the end");
        let len = data.len().min(self.room);
        if len == 0 {
            return Transfer::Blocked;
        }
        self.room -= len;
        self.taken.extend_from_slice(&data[..len]);
        Transfer::Moved(len)
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        if self.to_guest.is_empty() && self.is_broken {
            return Transfer::Failed;
        }
        if self.to_guest.is_empty() {
            return if self.is_ended { Transfer::Ended } else { Transfer::Blocked };
        }
        let len = room.len().min(self.to_guest.len());
        for (place, byte) in room.iter_mut().zip(self.to_guest.drain(..len)) {
            *place = byte;
        }
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {
        assert!(!self.is_shut, "the end is told once");
        self.is_shut = true;
    }

    fn acknowledge(&mut self) {
        self.acknowledged += 1;
    }

    fn keep_alive(&mut self, idle_for: Duration) {
        self.keep_alive.push(idle_for);
    }
}

/// A frame that the guest has received.
#[derive(Clone, Debug)]
struct Heard {
    ethernet: EthernetHeader,
    vnet: VnetHeader,
    packet: Vec<u8>,
    /// Present unless it is something else than TCP.
    tcp: Option<Seen>,
}

/// See the [module](self).
struct Ladder {
    stack: Stack,
    now: Instant,
    mac: MacAddr,
    /// Who says it, on a shared network.
    member: Option<MemberId>,
    hosts: BTreeMap<FlowId, Script>,
    connects: Vec<(FlowId, SocketAddr)>,
    /// Whether the guest was said to be eager at the last of them.
    is_guest_eager: bool,
    closes: Vec<(FlowId, bool)>,
    /// Queries that resolvers are to answer.
    queries: Vec<(DnsQueryId, Vec<u8>)>,
    /// Frames of the last turn may not be more than this.
    most_frames: usize,
}

fn config() -> StackConfig {
    StackConfig {
        plan: AddressPlan::default().with_ipv6(Ipv6Plan::default()),
        ..StackConfig::default()
    }
}

impl Ladder {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: StackConfig) -> Self {
        Self {
            stack: Stack::new(config),
            now: Instant::from_micros(1_000_000),
            mac: MAC,
            member: None,
            hosts: BTreeMap::new(),
            connects: Vec::new(),
            is_guest_eager: false,
            closes: Vec::new(),
            queries: Vec::new(),
            most_frames: usize::MAX,
        }
    }

    /// The guest sends; returns what it hears at once.
    fn guest(&mut self, draft: &Draft) -> Vec<Heard> {
        self.frame(&draft.frame(self.mac))
    }

    /// The guest sends a frame without virtio-net header.
    fn frame(&mut self, frame: &[u8]) -> Vec<Heard> {
        let mut bytes = Vec::new();
        if self.stack.config().offload.vnet_header {
            bytes.extend_from_slice(&VnetHeader::default().emit());
            assert_eq!(bytes.len(), VNET_HEADER_LEN);
        }
        bytes.extend_from_slice(frame);
        assert!(self.stack.handle_frame_of(self.member, &mut bytes, self.now).is_none());
        self.turn()
    }

    /// The host side reports how a connect went.
    fn connected(&mut self, flow: FlowId, outcome: Result<(), HostError>) -> Vec<Heard> {
        if outcome.is_ok() {
            self.hosts.insert(flow, Script { room: usize::MAX, ..Script::default() });
        }
        self.stack.handle_tcp_connected(flow, outcome, self.now);
        self.turn()
    }

    /// Changes the host's end of a flow, and wakes it.
    fn host(&mut self, flow: FlowId, change: impl FnOnce(&mut Script)) -> Vec<Heard> {
        change(self.hosts.get_mut(&flow).unwrap());
        self.stack.wake_flow(flow);
        self.turn()
    }

    fn taken(&self, flow: FlowId) -> &[u8] {
        &self.hosts[&flow].taken
    }

    /// Lets time pass; returns what the guest hears meanwhile.
    fn pass(&mut self, time: Duration) -> Vec<Heard> {
        let until = self.now + time;
        let mut heard = Vec::new();
        let mut is_woken = 0;
        while let Some((at, _)) = self.stack.poll_timeout().filter(|&(at, _)| at <= until) {
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            heard.append(&mut self.turn());
            is_woken += 1;
            assert!(is_woken < 100_000, "a timer never rests");
        }
        self.now = until;
        heard.retain(|heard| heard.tcp.is_some() || heard.packet[0] >> 4 == 4);
        heard
    }

    fn turn(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        loop {
            while let Some(action) = self.stack.poll_action() {
                match action {
                    HostAction::ConnectTcp { flow, remote, is_guest_eager } => {
                        self.connects.push((flow, remote));
                        self.is_guest_eager = is_guest_eager;
                    }
                    HostAction::Close { flow, reset } => self.closes.push((flow, reset)),
                    HostAction::AskElsewhere { .. } => unreachable!("no guest has two addresses"),
                    HostAction::QueryDns { query, message, .. } => {
                        self.queries.push((query, message));
                    }
                    HostAction::CancelDns { query } => {
                        self.queries.retain(|&(other, _)| other != query);
                    }
                }
            }
            let Some(flow) = self.stack.poll_ready(self.now) else {
                break;
            };
            if let Some(host) = self.hosts.get_mut(&flow) {
                self.stack.pump(flow, host, self.now);
            }
            self.take_frames(&mut heard);
        }
        self.take_frames(&mut heard);
        heard
    }

    fn take_frames(&mut self, heard: &mut Vec<Heard>) {
        let has_vnet = self.stack.config().offload.vnet_header;
        while let Some(frame) = self.stack.poll_frame(self.now) {
            let (vnet, ethernet, at) = open_frame(frame, has_vnet);
            let packet = frame[at..].to_vec();
            let is_tcp = IpHeader::parse(&packet)
                .is_ok_and(|ip| ip.protocol == smoltcp::wire::IpProtocol::Tcp);
            let tcp = is_tcp.then(|| Seen::of_packet(&packet));
            heard.push(Heard { ethernet, vnet, packet, tcp });
            assert!(heard.len() <= self.most_frames, "a turn without end");
        }
    }

    fn discards(&self, reason: DiscardReason) -> u64 {
        self.stack.stats().discards.value(reason)
    }
}

/// One TCP connection of the guest.
#[derive(Clone, Debug)]
struct Talk {
    flow: FlowId,
    from: SocketAddr,
    to: SocketAddr,
    /// Next sequence number of the guest.
    seq: u32,
    /// Next sequence number that the guest expects.
    ack: u32,
    window: u16,
    syn_ack: Seen,
}

impl Talk {
    fn addresses(is_ipv6: bool) -> (SocketAddr, SocketAddr) {
        if is_ipv6 {
            ("[fd00::64]:40000".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap())
        } else {
            ("10.0.2.100:40000".parse().unwrap(), "192.0.2.1:80".parse().unwrap())
        }
    }

    fn syn(is_ipv6: bool, options: &[u8]) -> Draft {
        let (from, to) = Self::addresses(is_ipv6);
        Draft { seq: ISN, flags: SYN, options: options.to_vec(), ..Draft::new(from, to) }
    }

    /// A connection whose handshake is done.
    fn open(ladder: &mut Ladder) -> Self {
        Self::open_with(ladder, &Self::syn(false, LINUX_OPTIONS))
    }

    fn open_with(ladder: &mut Ladder, syn: &Draft) -> Self {
        assert!(ladder.guest(syn).is_empty());
        let (flow, remote) = ladder.connects.pop().unwrap();
        assert_eq!(remote, syn.to);
        let heard = ladder.connected(flow, Ok(()));
        assert_eq!(heard.len(), 1);
        let syn_ack = heard[0].tcp.clone().unwrap();
        assert!(syn_ack.has(SYN | ACK));
        assert_eq!(syn_ack.ack, syn.seq.wrapping_add(1));
        let talk = Self::answering(syn, syn_ack, flow);
        assert!(ladder.guest(&talk.draft(ACK, &[])).is_empty());
        talk
    }

    /// A guest that has heard `syn_ack` and not answered yet.
    fn answering(syn: &Draft, syn_ack: Seen, flow: FlowId) -> Self {
        Self {
            flow,
            from: syn.from,
            to: syn.to,
            seq: syn_ack.ack,
            ack: syn_ack.seq.wrapping_add(1),
            window: 65_535,
            syn_ack,
        }
    }

    fn draft(&self, flags: u8, payload: &[u8]) -> Draft {
        Draft {
            seq: self.seq,
            ack: self.ack,
            flags,
            window: self.window,
            payload: payload.to_vec(),
            ..Draft::new(self.from, self.to)
        }
    }

    /// Sends, and moves on behind what was sent.
    fn say(&mut self, ladder: &mut Ladder, flags: u8, payload: &[u8]) -> Vec<Heard> {
        let heard = ladder.guest(&self.draft(flags, payload));
        let len = u32::try_from(payload.len()).unwrap() + u32::from(flags & 1);
        self.seq = self.seq.wrapping_add(len);
        heard
    }

    /// Takes what was heard, in order, and says nothing yet.
    fn take(&mut self, heard: &[Heard]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for seen in heard.iter().filter_map(|heard| heard.tcp.as_ref()) {
            if seen.seq == self.ack {
                bytes.extend_from_slice(&seen.payload);
                self.ack = seen.end();
            }
        }
        bytes
    }

    /// Says nothing but where it stands.
    fn acknowledge(&self, ladder: &mut Ladder) -> Vec<Heard> {
        ladder.guest(&self.draft(ACK, &[]))
    }
}

/// The origin of what `client` sends to the port of `rule`.
pub(super) fn came_through(rule: u64, client: SocketAddr) -> Origin {
    Origin { rule: ForwardId(rule), client, local: client }
}

/// The only TCP segment of a turn.
fn only(heard: &[Heard]) -> &Seen {
    assert_eq!(heard.len(), 1, "{heard:?}");
    heard[0].tcp.as_ref().unwrap()
}

/// ICMP type and code of the only packet of a turn, and the packet that it quotes.
fn only_icmp(heard: &[Heard]) -> (u8, u8, &[u8]) {
    assert_eq!(heard.len(), 1, "{heard:?}");
    let packet = &heard[0].packet;
    let ip = IpHeader::parse(packet).unwrap();
    let gateway: IpAddr = match ip.destination {
        IpAddr::V4(_) => "10.0.2.2".parse().unwrap(),
        IpAddr::V6(_) => "fd00::2".parse().unwrap(),
    };
    assert_eq!(ip.source, gateway);
    let icmp = &packet[ip.header_len..];
    (icmp[0], icmp[1], &icmp[8..])
}
