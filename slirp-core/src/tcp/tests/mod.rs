//! The fence against hostile guests, segment by segment.
//!
//! Owns the [`Peer`]: a guest that sends exactly the segments that a test dictates, to an engine
//! with or without the fence around it.

mod by_construction;
mod growth;
mod guards;
pub(crate) mod packet;
mod rings;

use core::net::SocketAddr;
use core::time::Duration;

use self::packet::{ACK, Draft, SYN, Seen, open_frame};
use super::{Connection, Engine, EngineConfig, LinkAddresses, Segment, Syn};
use crate::config::Offload;
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::time::Instant;
use crate::wire::frame::{ETHERNET_HEADER_LEN, IpHeader};
use crate::wire::vnet::{VNET_HEADER_LEN, VnetHeader};

const ISN: u32 = 0xffff_f000;

/// The guest's side of a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) ring_len: usize,
    pub(crate) ring_memory: usize,
    pub(crate) bulk_flows: usize,
    pub(crate) offload: Offload,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) is_ipv6: bool,
    /// Whether the fence stands between the guest and smoltcp.
    pub(crate) is_guarded: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            ring_len: 128 * 1024,
            ring_memory: usize::MAX,
            bulk_flows: 1,
            offload: Offload::default(),
            window: 65_535,
            options: packet::LINUX_OPTIONS.to_vec(),
            is_ipv6: false,
            is_guarded: true,
        }
    }
}

fn engine(opening: &Opening) -> Engine {
    Engine::new(EngineConfig {
        mtu: 1500,
        offload: opening.offload,
        ring_len: opening.ring_len,
        bulk_flows: opening.bulk_flows,
        ring_memory: opening.ring_memory,
        parts: 1,
        seed: 42,
    })
}

/// The connection that the engine makes from a SYN's IP packet.
fn accept(engine: &mut Engine, packet: &[u8], now: Instant) -> Option<Connection> {
    let segment = Segment::parse(&IpHeader::parse(packet).unwrap(), packet).unwrap();
    assert!(segment.is_opening());
    engine.accept(&Syn::new(&segment, packet), now)
}

/// See the [module](self).
pub(crate) struct Peer {
    pub(crate) engine: Engine,
    pub(crate) connection: Connection,
    pub(crate) now: Instant,
    offload: Offload,
    is_guarded: bool,
    from: SocketAddr,
    to: SocketAddr,
    window: u16,
    /// Shift of the stack's windows.
    shift: u8,
    /// First sequence number of the guest's data.
    start: u32,
    /// First sequence number of the stack's data.
    stack_start: u32,
    /// The stack's last acknowledgement, and the edge of the window that it advertised.
    acked: u32,
    edge: u32,
    /// Headers of the last frame.
    vnet: VnetHeader,
    reasons: Vec<DiscardReason>,
    is_engine_failed: bool,
}

impl Peer {
    /// A guest whose handshake is done.
    pub(crate) fn open(opening: &Opening) -> Self {
        Self::open_with(engine(opening), opening)
    }

    /// As [`open`](Self::open), with an engine that has served other connections.
    fn open_with(engine: Engine, opening: &Opening) -> Self {
        let (mut peer, syn_ack) = Self::half_open_with(engine, opening);
        assert!(syn_ack.has(SYN | ACK));
        assert!(peer.send(ACK, 0, 0, &[]).is_none());
        assert!(peer.connection.is_open_both_ways());
        peer
    }

    /// A guest that has seen the SYN|ACK and not answered yet.
    fn half_open(opening: &Opening) -> (Self, Seen) {
        Self::half_open_with(engine(opening), opening)
    }

    fn half_open_with(mut engine: Engine, opening: &Opening) -> (Self, Seen) {
        let (from, to) = if opening.is_ipv6 {
            ("[fd00::64]:40000", "[2001:db8::1]:80")
        } else {
            ("10.0.2.100:40000", "192.0.2.1:80")
        };
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let syn = Draft {
            seq: ISN,
            flags: SYN,
            window: opening.window,
            options: opening.options.clone(),
            ..Draft::new(from, to)
        };
        let now = Instant::from_micros(1_000_000);
        let connection = accept(&mut engine, &syn.packet(), now).unwrap();
        let mut peer = Self {
            engine,
            connection,
            now,
            offload: opening.offload,
            is_guarded: opening.is_guarded,
            from,
            to,
            window: opening.window,
            shift: 0,
            start: ISN.wrapping_add(1),
            stack_start: 0,
            acked: ISN.wrapping_add(1),
            edge: 0,
            vnet: VnetHeader::default(),
            reasons: Vec::new(),
            is_engine_failed: false,
        };
        let syn_ack = peer.poll().unwrap();
        peer.stack_start = syn_ack.seq.wrapping_add(1);
        peer.shift = syn_ack.window_scale.unwrap_or(0);
        (peer, syn_ack)
    }

    /// Sends `payload` at `offset` of the guest's stream, acknowledging `acked` bytes of the
    /// stack's. Returns the stack's immediate answer.
    pub(crate) fn send(
        &mut self,
        flags: u8,
        offset: u32,
        acked: u32,
        payload: &[u8],
    ) -> Option<Seen> {
        let draft = Draft {
            seq: self.start.wrapping_add(offset),
            ack: self.stack_start.wrapping_add(acked),
            flags,
            window: self.window,
            payload: payload.to_vec(),
            ..Draft::new(self.from, self.to)
        };
        let mut bytes = draft.packet();
        if !self.is_guarded {
            let answer = self.engine.ingress(&mut self.connection, &bytes, self.now);
            let segment = Segment::parse(&IpHeader::parse(&bytes).unwrap(), &bytes).unwrap();
            self.connection.note_state(&segment);
            return self.unfenced(answer);
        }
        let ip = IpHeader::parse(&bytes).unwrap();
        let segment = Segment::parse(&ip, &bytes).unwrap();
        let answer =
            self.engine.handle_segment(&mut self.connection, segment, &mut bytes, LINK, self.now);
        self.fenced(answer)
    }

    /// The next segment of the stack.
    pub(crate) fn poll(&mut self) -> Option<Seen> {
        if !self.is_guarded {
            let answer = self.engine.egress(&mut self.connection, self.now);
            return self.unfenced(answer);
        }
        let answer = self.engine.poll_segment(&mut self.connection, LINK, self.now);
        self.fenced(answer)
    }

    fn poll_all(&mut self) -> Vec<Seen> {
        core::iter::from_fn(|| self.poll()).take(10_000).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Queues `data` for the guest, as much as there is room for. Returns how many bytes were
    /// queued.
    pub(crate) fn queue(&mut self, data: &[u8]) -> usize {
        self.engine.lend_room(&mut self.connection, |room| {
            let len = data.len().min(room.len());
            room[..len].copy_from_slice(&data[..len]);
            len
        })
    }

    /// Takes everything that the guest has sent.
    pub(crate) fn drain(&mut self, into: &mut Vec<u8>) {
        while self.connection.lend_data(|data| {
            into.extend_from_slice(data);
            data.len()
        }) > 0
        {}
    }

    fn unfenced(&mut self, answer: Result<Option<usize>, DiscardReason>) -> Option<Seen> {
        let Ok(answer) = answer else {
            self.is_engine_failed = true;
            return None;
        };
        let at = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
        let seen = Seen::of_packet(self.engine.frame(at..at + answer?));
        Some(self.note(seen))
    }

    fn fenced(
        &mut self,
        answer: Result<Option<core::ops::Range<usize>>, DiscardReason>,
    ) -> Option<Seen> {
        match answer {
            Ok(range) => {
                let frame = self.engine.frame(range?);
                let (vnet, ethernet, at) = open_frame(frame, self.offload.vnet_header);
                assert_eq!(ethernet.destination, LINK.guest);
                let seen = Seen::of_packet(&frame[at..]);
                self.vnet = vnet;
                Some(self.note(seen))
            }
            Err(reason) => {
                self.is_engine_failed |= reason == DiscardReason::TcpEngineFailed;
                self.reasons.push(reason);
                None
            }
        }
    }

    fn note(&mut self, seen: Seen) -> Seen {
        if seen.has(ACK) {
            let shift = if seen.has(SYN) { 0 } else { self.shift };
            self.acked = seen.ack;
            self.edge = seen.ack.wrapping_add(u32::from(seen.window) << shift);
        }
        seen
    }
}

const LINK: LinkAddresses =
    LinkAddresses { guest: MacAddr([2, 0, 0, 0, 0, 1]), ours: MacAddr([0x52, 0x55, 10, 0, 2, 2]) };
