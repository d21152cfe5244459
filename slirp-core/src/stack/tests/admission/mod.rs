//! Who may open a flow, and who makes room.
//!
//! Owns the [`Crowd`], a guest or members and whoever comes to them.

mod mappings;
mod members;
mod remotes;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::came_through;
use crate::config::{Limits, StackConfig};
use crate::discard::DiscardReason;
use crate::event::{Datagram, FlowId, ForwardId, HostAction, Origin};
use crate::flow::Flow;
use crate::flow::permit::Kind;
use crate::mac::MacAddr;
use crate::member::{Member, MemberId};
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::rng::Rng;
use crate::stack::Stack;
use crate::switch::Released;
use crate::tcp::tests::packet::{ACK, Draft, SYN, Seen, frame_around};
use crate::time::Instant;
use crate::wire::frame::IpHeader;
use crate::wire::udp::emit_datagram;

const SECOND: Duration = Duration::from_secs(1);
const REMOTE: &str = "192.0.2.1:9";
const ICMP_PROHIBITED: [u8; 2] = [3, 13];

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A guest at 10.0.2.100, or members at 10.0.2.100 and up, and whoever comes to them.
struct Crowd {
    stack: Stack,
    now: Instant,
}

impl Crowd {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        Self::of(0, change)
    }

    /// With so many members.
    fn of(members: u8, change: impl FnOnce(&mut Limits)) -> Self {
        let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
        let mut config = StackConfig { plan, seed: 7, ..StackConfig::default() };
        config.is_shared = members > 0;
        change(&mut config.limits);
        let mut crowd = Self { stack: Stack::new(config), now: Instant::from_micros(1_000_000) };
        for last in 100..100 + members {
            crowd.stack.handle_member_added(MemberId(last.into()), &member(last), crowd.now);
        }
        crowd
    }

    fn frame(&mut self, from: IpAddr, mut frame: Vec<u8>) -> Option<FlowId> {
        // A nested network is behind the first member.
        let last = match from {
            IpAddr::V4(v4) if v4.octets()[0] == 10 => v4.octets()[3],
            IpAddr::V4(_) | IpAddr::V6(_) => 100,
        };
        let id = MemberId(last.into());
        let member = self.stack.config().is_shared.then_some(id);
        match self.stack.handle_frame_of(member, &mut frame, self.now)? {
            Datagram::Udp { flow, .. } | Datagram::Echo { flow, .. } => Some(flow),
            Datagram::InboundUdp { .. } => None,
        }
    }

    /// The guest sends a datagram.
    fn send(&mut self, from: &str, to: &str) -> Option<FlowId> {
        let from = address(from);
        let mut frame = frame_around(&[0x45], mac_of(from.ip()));
        frame.truncate(14);
        emit_datagram(&mut frame, from, address(to), 64, 0, b"ask").unwrap();
        self.frame(from.ip(), frame)
    }

    /// It sends one, and is answered.
    fn exchange(&mut self, from: &str) -> FlowId {
        let flow = self.send(from, REMOTE).unwrap();
        self.stack.handle_udp_from_host(flow, address(REMOTE), b"answer", None, 0, self.now);
        assert_eq!(self.heard().len(), 1);
        flow
    }

    /// A conversation of more than a request and its answer.
    fn converse(&mut self, from: &str) -> FlowId {
        for _ in 0..5 {
            self.exchange(from);
        }
        self.exchange(from)
    }

    /// The guest begins to open a connection; what it hears at once.
    fn open(&mut self, from: &str) -> Vec<Vec<u8>> {
        self.open_to(from, REMOTE)
    }

    fn open_to(&mut self, from: &str, to: &str) -> Vec<Vec<u8>> {
        let syn = Draft { flags: SYN, seq: 9, ..Draft::new(address(from), address(to)) };
        assert_eq!(self.frame(syn.from.ip(), syn.frame(mac_of(syn.from.ip()))), None);
        self.heard()
    }

    /// It opens one, up to the end of the handshake.
    fn open_fully(&mut self, from: &str) {
        assert_eq!(self.open(from), Vec::<Vec<u8>>::new());
        let flow = self.tcp(from).unwrap();
        self.stack.handle_tcp_connected(flow, Ok(()), self.now);
        let answer = Seen::of_packet(&self.heard()[0]);
        let (from, to) = (address(from), address(REMOTE));
        let ack = Draft { seq: 10, ack: answer.seq.wrapping_add(1), ..Draft::new(from, to) };
        self.frame(from.ip(), ack.frame(mac_of(from.ip())));
        self.heard();
    }

    /// The packets for the guest.
    fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        loop {
            let is_ready = self.stack.poll_ready(self.now).is_some();
            while let Some(frame) = self.stack.poll_frame(self.now) {
                if frame[12..14] != [8, 6] && frame[12..14] != [0x86, 0xdd] || frame[20] == 58 {
                    heard.push(frame[14..].to_vec());
                }
            }
            if !is_ready {
                return heard;
            }
        }
    }

    /// The connection from `from`, if it lives.
    fn tcp(&self, from: &str) -> Option<FlowId> {
        self.flow(address(from), Kind::Opening).or_else(|| self.flow(address(from), Kind::Open))
    }

    fn flow(&self, guest: SocketAddr, kind: Kind) -> Option<FlowId> {
        let is_it = |entry: &&crate::flow::table::Entry| {
            entry.meta.key.guest == guest && entry.meta.permit.kind == kind
        };
        self.stack.flows.iter().find(is_it).map(|entry| entry.meta.id)
    }

    /// A remote connects to a published port of 10.0.2.`last`.
    fn accept(&mut self, port: u16, last: u8) -> Result<FlowId, DiscardReason> {
        let remote = SocketAddr::from(([198, 51, 100, 2], port));
        let guest = SocketAddr::from(([10, 0, 2, last], 80));
        let accepted = self.stack.handle_tcp_accepted(came_through(1, remote), guest, self.now);
        self.heard();
        accepted
    }

    /// A remote's connection to a guest that nobody has heard of.
    fn accept_for(&mut self, guest: [u8; 4]) -> Result<FlowId, DiscardReason> {
        let remote = SocketAddr::from(([198, 51, 100, 2], 5000));
        let guest = SocketAddr::from((guest, 80));
        self.stack.handle_tcp_accepted(came_through(1, remote), guest, self.now)
    }

    /// The guest takes such a connection.
    fn take(&mut self, port: u16) -> FlowId {
        let mac = mac_of([10, 0, 2, 100].into());
        self.stack.on_neighbor([10, 0, 2, 100].into(), mac);
        let remote = SocketAddr::from(([198, 51, 100, 2], port));
        let guest = SocketAddr::from(([10, 0, 2, 100], 80));
        let flow =
            self.stack.handle_tcp_accepted(came_through(1, remote), guest, self.now).unwrap();
        let syn = Seen::of_packet(self.heard().last().unwrap());
        let ack = syn.seq.wrapping_add(1);
        let answer = Draft { flags: SYN | ACK, seq: 5, ack, ..Draft::new(guest, remote) };
        self.frame(guest.ip(), answer.frame(mac));
        self.heard();
        flow
    }

    /// A remote sends a datagram to a published port of 10.0.2.`last`.
    fn receive(&mut self, port: u16, last: u8) -> bool {
        let client = SocketAddr::from(([198, 51, 100, 2], port));
        let local = SocketAddr::from(([198, 51, 100, 1], 80));
        let origin = Origin { rule: ForwardId(1), client, local };
        let guest = SocketAddr::from(([10, 0, 2, last], 80));
        self.stack.handle_inbound_udp(origin, guest, b"ask", None, 0, self.now);
        self.heard();
        self.has_client(port, last)
    }

    fn has_client(&self, port: u16, last: u8) -> bool {
        let guest = SocketAddr::from(([10, 0, 2, last], 80));
        self.stack.flows.iter().any(|entry| {
            entry.meta.permit.kind == Kind::InboundUdp
                && entry.meta.key.guest == guest
                && entry.meta.key.remote.port() == port
        })
    }

    fn lives(&self, flow: FlowId) -> bool {
        self.stack.flows.entry(flow).is_some()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn count(&self, kind: Kind) -> usize {
        self.stack.admission.count(kind)
    }

    fn discards(&self, reason: DiscardReason) -> u64 {
        self.stack.stats().discards.value(reason)
    }

    /// What is counted is what is there, and everything stands where it can be found.
    fn assert_consistent(&self) {
        for kind in Kind::ALL {
            let flows: Vec<_> =
                self.stack.flows.iter().filter(|entry| entry.meta.permit.kind == kind).collect();
            assert_eq!(self.count(kind), flows.len(), "{kind:?}");
            let mut ordered: Vec<_> = self.stack.admission.flows_of(kind).collect();
            let mut expected: Vec<_> = flows.iter().map(|entry| entry.meta.id).collect();
            ordered.sort();
            expected.sort();
            assert_eq!(ordered, if kind.is_evictable() { expected } else { Vec::new() });
            for entry in flows {
                let is_inbound = match &entry.flow {
                    Flow::Tcp(flow) => flow.is_inbound(),
                    Flow::Udp(_) | Flow::Echo(_) => false,
                    Flow::InboundUdp(_) => true,
                };
                assert_eq!(is_inbound, kind.is_inbound());
            }
        }
    }
}

fn member(last: u8) -> Member {
    Member {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        address: [10, 0, 2, last].into(),
        address6: None,
        names: Vec::new(),
        aliases: Vec::new(),
    }
}

fn mac_of(guest: IpAddr) -> MacAddr {
    match guest {
        IpAddr::V4(v4) if v4.octets()[0] == 10 => member(v4.octets()[3]).mac,
        IpAddr::V4(_) | IpAddr::V6(_) => member(100).mac,
    }
}

fn guest(port: u16) -> String {
    format!("10.0.2.100:{port}")
}

#[test]
fn counts_hold_whatever_comes_and_goes() {
    let mut crowd = Crowd::of(3, |limits| {
        limits.flows = 24;
        limits.half_open = 8;
        limits.inbound_udp = 6;
        limits.udp_mappings = 12;
    });
    let mut rng = Rng::new(0xad_317);
    for _ in 0..5_000 {
        let port = 1 + rng.next_u16() % 40;
        let last = 100 + u8::try_from(rng.next_u16() % 3).unwrap();
        let from = match rng.next_u16() % 4 {
            0 => format!("172.16.0.{}:{port}", rng.next_u16() % 9),
            _ => format!("10.0.2.{last}:{port}"),
        };
        match rng.next_u16() % 8 {
            0 => drop(crowd.open(&from)),
            1 => {
                let flow = crowd.flow(address(&from), Kind::Opening);
                let flow = flow.or_else(|| crowd.flow(address(&from), Kind::Open));
                if let Some(flow) = flow {
                    crowd.stack.handle_tcp_connected(flow, Ok(()), crowd.now);
                    crowd.heard();
                }
            }
            2 => drop(crowd.accept(port, last)),
            3 => drop(crowd.receive(port, last)),
            4 => drop(crowd.send(&format!("10.0.2.{last}:80"), &format!("198.51.100.2:{port}"))),
            5 => {
                if let Some(flow) = crowd.send(&from, REMOTE) {
                    crowd.stack.handle_udp_from_host(
                        flow,
                        address(REMOTE),
                        b"a",
                        None,
                        0,
                        crowd.now,
                    );
                }
            }
            6 => drop(crowd.send(&from, REMOTE)),
            _ => {
                crowd.pass(SECOND / 4);
                crowd.stack.handle_timeout(crowd.now);
            }
        }
        assert!(crowd.stack.flows.len() <= 24);
        let inbound = [Kind::InboundOpening, Kind::InboundOpen, Kind::InboundUdp];
        assert!(inbound.iter().map(|&kind| crowd.count(kind)).sum::<usize>() <= 12);
        while crowd.stack.poll_action().is_some() {}
        crowd.heard();
    }
    crowd.assert_consistent();
    crowd.pass(Duration::from_secs(400));
    crowd.stack.handle_timeout(crowd.now);
    crowd.heard();
    crowd.assert_consistent();
}
