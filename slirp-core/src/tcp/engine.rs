//! The engine: smoltcp's interface, and the buffer in which packets to the guest are built.
//!
//! Owns every call into smoltcp that takes a packet or produces one, and what the fence does to
//! packets on the way: the guard on the way in; sequence translation, checksum and segmentation
//! offload ([`mod@seal`]) on the way out. Parking and the memory of connections are in [`resting`].

mod resting;
mod seal;

use core::hash::BuildHasher as _;
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use foldhash::quality::FixedState;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::HardwareAddress;

use super::clock;
use super::connection::Connection;
use super::device::Slot;
use super::memory::RingMemory;
use super::rings::RingPool;
use super::segment::{self, Segment, Syn, SynOptions};
use crate::config::Offload;
use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::frame::{ETHERNET_HEADER_LEN, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpHeader};
use crate::wire::tcp::TCP_HEADER_LEN;
use crate::wire::vnet::VNET_HEADER_LEN;
use seal::{finish_packet, seal};

pub(crate) use seal::checksum_and_segment;

/// Largest IP packet; also the engine's MTU when the device segments.
const PACKET_CAP: usize = 65_535;
/// Room in front of a packet for the virtio-net and the Ethernet header.
const HEADROOM: usize = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
/// RFC 9293 section 3.7.1: the MSS of a peer that announces none; also the smallest MSS for which
/// super-segments are built, so that a guest cannot make its own kernel cut 64 KiB into crumbs.
const DEFAULT_MSS: u16 = 536;
/// How much larger the ring to the guest is in a connection that moves bulk data. The host can then
/// be read while the guest still processes earlier bytes (measured: eight took 6 to 9 % less
/// processor time than four and four less than two; sixteen took more than eight).
const BULK_FACTOR: usize = 8;
/// Empty segments in a row that a connection may emit without having received anything. A correct
/// connection emits a window update each time the window has doubled, at most one per bit of the
/// ring's length; defect B3 emits empty segments for ever.
const EMPTY_SEGMENT_CAP: u8 = 32;

/// Interval of the ring pool's ticks. A ring that no connection has needed between two ticks is
/// freed (arbitrary; pages should be freed within seconds once they are idle).
const TICK: Duration = Duration::from_secs(1);

/// The settings of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineConfig {
    pub(crate) mtu: u16,
    pub(crate) offload: Offload,
    pub(crate) ring_len: usize,
    pub(crate) bulk_flows: usize,
    pub(crate) ring_memory: usize,
    /// A member's part of `bulk_flows` and `ring_memory` is one in this many; 1 with a single
    /// guest.
    pub(crate) parts: usize,
    pub(crate) seed: u64,
}

/// The link-layer addresses of a frame to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkAddresses {
    pub(crate) guest: MacAddr,
    pub(crate) ours: MacAddr,
}

/// See the [module](self).
pub(crate) struct Engine {
    interface: Interface,
    config: EngineConfig,
    rng: Rng,
    /// Keys the offsets of initial sequence numbers.
    sequences: FixedState,
    frame: Box<[u8]>,
    mtu: usize,
    memory: RingMemory,
    pub(super) pool: RingPool,
    tick_at: Option<Instant>,
}

impl Engine {
    pub(crate) fn new(config: EngineConfig) -> Self {
        let mtu =
            if config.offload.tcp_segmentation { PACKET_CAP } else { usize::from(config.mtu) };
        let mut rng = Rng::new(config.seed);
        let sequences = FixedState::with_seed(rng.next_u64());
        let mut frame = vec![0; HEADROOM + PACKET_CAP].into_boxed_slice();
        let interface = new_interface(&mut rng, &mut frame, mtu);
        let memory = RingMemory::new(config.ring_memory, config.bulk_flows, config.parts);
        let pool = RingPool::new(config.ring_len, BULK_FACTOR * config.ring_len);
        Self { interface, config, rng, sequences, frame, mtu, memory, pool, tick_at: None }
    }

    /// A connection that will answer the guest's `syn`.
    pub(crate) fn accept(&mut self, syn: &Syn, now: Instant) -> Option<Connection> {
        let Syn { segment, options, .. } = syn;
        let sizes = self.segment_sizes(options, segment.destination.ip());
        // smoltcp drops a segment with any malformed option; the guest's SYN is not shown to it.
        let packet = segment::emit_syn(
            segment.source,
            segment.destination,
            segment.seq,
            segment.window,
            &options.emit(told_mss(options, sizes)),
        );
        let lent = self.lend_rings(segment.source);
        let connection = Connection::answering(segment, *options, sizes, lent);
        self.bring_up(connection, |engine, connection| {
            connection.listen()?;
            engine.ingress(connection, &packet, now).ok()?;
            connection.is_handshaking().then_some(())
        })
    }

    /// A connection that `remote` opens to `guest`. Its SYN leaves with the first poll.
    pub(crate) fn connect(&mut self, guest: SocketAddr, remote: SocketAddr) -> Option<Connection> {
        let sizes = self.segment_sizes(&SynOptions::with_mss(u16::MAX), guest.ip());
        let lent = self.lend_rings(guest);
        let connection = Connection::opening((guest, remote), sizes, lent);
        self.bring_up(connection, |engine, connection| {
            connection.connect(engine.interface.context())
        })
    }

    /// Returns `connection` once `begin` has succeeded, and retires it otherwise.
    fn bring_up(
        &mut self,
        mut connection: Connection,
        begin: impl FnOnce(&mut Self, &mut Connection) -> Option<()>,
    ) -> Option<Connection> {
        if begin(self, &mut connection).is_some() {
            return Some(connection);
        }
        self.retire(connection);
        None
    }

    /// Lends room for bytes to the guest: `fill` sees contiguous room and returns how many bytes it
    /// wrote.
    pub(crate) fn lend_room(
        &mut self,
        connection: &mut Connection,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let filled = connection.lend_room(fill);
        self.memory.note_to_guest(&mut connection.lease, connection.given);
        filled
    }

    /// The guest's MSS, and the MSS that the engine is told.
    fn segment_sizes(&self, options: &SynOptions, address: IpAddr) -> (u16, u16) {
        let headers = TCP_HEADER_LEN + ip_header_len(address);
        let own = usize::from(self.config.mtu).saturating_sub(headers).max(1);
        let own = u16::try_from(own).unwrap_or(u16::MAX);
        let guest = options.mss.filter(|&mss| mss != 0).unwrap_or(DEFAULT_MSS);
        let guest = guest.min(own);
        if !self.config.offload.tcp_segmentation || guest < DEFAULT_MSS {
            return (guest, guest);
        }
        let largest = u16::try_from(PACKET_CAP - headers).unwrap_or(u16::MAX);
        (guest, largest / guest * guest)
    }

    /// Hands a segment of the guest to its connection. `packet` is its IP packet without padding,
    /// which may be modified. Returns the range of the frame that answers it at once, if there is
    /// one.
    ///
    /// # Errors
    /// The reason why the segment did not reach the engine, or why the connection is dead now.
    /// After [`DiscardReason::RingMemoryExhausted`] poll once more for the reset.
    pub(crate) fn handle_segment(
        &mut self,
        connection: &mut Connection,
        mut segment: Segment,
        packet: &mut [u8],
        link: LinkAddresses,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        let mut answer;
        let mut packet = packet;
        if connection.is_answered_by(&segment) {
            let options = SynOptions::parse(&segment, packet);
            let sizes = self.segment_sizes(&options, segment.source.ip());
            // As with a guest's SYN: malformed options and data are not shown to smoltcp.
            answer = segment::emit_answer(&segment, &options.emit(told_mss(&options, sizes)));
            segment = Segment::parse(&IpHeader::parse(&answer)?, &answer)?;
            packet = &mut answer;
            connection.note_answer(&segment, options, sizes);
        }
        if connection.is_forgotten_by(&segment) {
            return self.reopen(connection, &segment, link).map(Some);
        }
        if connection.is_fin_missed(&segment) {
            return Ok(None);
        }
        let packet = connection.guard(&mut segment, packet)?;
        let before = connection.held();
        connection.note_received(&segment);
        let received = connection.received();
        self.memory.note_from_guest(&mut connection.lease, received);
        if self.is_memory_exhausted(connection, before) {
            connection.abort();
            return Err(DiscardReason::RingMemoryExhausted);
        }
        let written = self.ingress(connection, packet, now)?;
        connection.note_state(&segment);
        Ok(written.map(|len| self.finish(connection, len, link, now)))
    }

    /// The guest has answered our SYN from an older connection between these ports: it is in
    /// TIME-WAIT, or the guest missed its end. Returns the reset that ends it (RFC 9293 section
    /// 3.10.7.3). A new SYN leaves with the next poll, unless that has happened too often.
    fn reopen(
        &mut self,
        connection: &mut Connection,
        segment: &Segment,
        link: LinkAddresses,
    ) -> Result<Range<usize>, DiscardReason> {
        let (guest, remote) = connection.ends();
        let reset = segment::emit_reset(segment).ok_or(DiscardReason::TcpAckUnsent)?;
        if let Some(reopenings_left) = connection.reopenings_left.checked_sub(1)
            && let Some(mut again) = self.connect(guest, remote)
        {
            again.reopenings_left = reopenings_left;
            self.replace(connection, again);
        }
        self.finish_own(&reset, link)
    }

    /// Builds a keep-alive probe, which the guest's kernel answers by itself, and returns the range
    /// of its frame. The engine does not see the probe, and takes the answer for an acknowledgement
    /// without news.
    ///
    /// # Errors
    /// [`DiscardReason::TcpEngineFailed`] for a connection on which nothing was sent.
    pub(crate) fn ask(
        &mut self,
        connection: &Connection,
        link: LinkAddresses,
    ) -> Result<Range<usize>, DiscardReason> {
        let question = connection.question().ok_or(DiscardReason::TcpEngineFailed)?;
        self.finish_own(&question, link)
    }

    /// Turns a packet of the fence, which has the guest's sequence numbers already, into a frame.
    fn finish_own(
        &mut self,
        own: &[u8],
        link: LinkAddresses,
    ) -> Result<Range<usize>, DiscardReason> {
        let ip = IpHeader::parse(own)?;
        let segment = Segment::parse(&ip, own)?;
        let frame = &mut self.frame[..HEADROOM + own.len()];
        let packet = &mut frame[HEADROOM..];
        packet.copy_from_slice(own);
        let offload = self.config.offload;
        let vnet = checksum_and_segment(&ip, &segment, u16::MAX, packet, offload);
        Ok(seal(frame, vnet, link, offload))
    }

    /// The bytes of the last frame, in the range that was returned for it.
    pub(crate) fn frame(&self, range: Range<usize>) -> &[u8] {
        &self.frame[range]
    }

    /// Builds the next frame of `connection` to the guest, and returns its range.
    ///
    /// # Errors
    /// The reason why the connection is dead now.
    pub(crate) fn poll_segment(
        &mut self,
        connection: &mut Connection,
        link: LinkAddresses,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        if connection.empty_segments > EMPTY_SEGMENT_CAP {
            connection.kill();
            return Err(DiscardReason::TcpEngineStuck);
        }
        let written = self.egress(connection, now)?;
        Ok(written.map(|len| self.finish(connection, len, link, now)))
    }

    /// When the engine wants to be polled for `connection`; [`Instant::ZERO`] means at once.
    pub(crate) fn poll_at(&mut self, connection: &Connection, now: Instant) -> Option<Instant> {
        let now = clock::to_engine(now);
        connection.with_set(|set| self.interface.poll_at(now, set)).map(clock::from_engine)
    }

    /// Revives a connection that has data to send and no timer to send it.
    ///
    /// Without any timer (defect B12), a repeated acknowledgement makes the engine check the window
    /// again. If data in flight stays unacknowledged although the window is open (defect B14),
    /// three duplicate acknowledgements make the engine retransmit its first segment, which sets
    /// the timer as well.
    pub(crate) fn revive(&mut self, connection: &mut Connection, now: Instant) {
        if connection.queued_to_guest() == 0 || connection.is_dead() {
            return;
        }
        let is_stalled = connection.is_stalled(now);
        if self.poll_at(connection, now).is_some() {
            // The engine has its own timer, which backs off (RFC 6298 section 5.5).
            return;
        }
        let nudges = if is_stalled {
            connection.duplicate_acks()
        } else {
            connection.repeated_ack().into_iter().collect()
        };
        for nudge in nudges {
            if self.ingress(connection, &nudge, now).is_err() {
                // A panic has ended the connection; its flow finds out by itself.
                return;
            }
        }
    }

    /// One packet into smoltcp. Returns the length of its answer, which lies in the frame.
    ///
    /// # Errors
    /// [`DiscardReason::TcpEngineFailed`] when smoltcp panicked; the connection is dead now.
    pub(super) fn ingress(
        &mut self,
        connection: &mut Connection,
        packet: &[u8],
        now: Instant,
    ) -> Result<Option<usize>, DiscardReason> {
        self.fenced(connection, Some(packet), now, |interface, slot, set| {
            interface.poll_ingress_single(clock::to_engine(now), slot, set);
        })
    }

    /// At most one packet out of smoltcp. Returns its length; it lies in the frame.
    ///
    /// # Errors
    /// As [`ingress`](Self::ingress).
    pub(super) fn egress(
        &mut self,
        connection: &mut Connection,
        now: Instant,
    ) -> Result<Option<usize>, DiscardReason> {
        self.fenced(connection, None, now, |interface, slot, set| {
            interface.poll_egress(clock::to_engine(now), slot, set);
        })
    }

    fn fenced(
        &mut self,
        connection: &mut Connection,
        packet: Option<&[u8]>,
        now: Instant,
        call: impl FnOnce(&mut Interface, &mut Slot<'_>, &mut SocketSet<'_>),
    ) -> Result<Option<usize>, DiscardReason> {
        self.tick_at.get_or_insert(now + TICK);
        let mut slot =
            Slot { packet, out: &mut self.frame[HEADROOM..], written: None, mtu: self.mtu };
        let interface = &mut self.interface;
        let outcome = connection
            .with_set_mut(|set| catch_unwind(AssertUnwindSafe(|| call(interface, &mut slot, set))));
        let written = slot.written;
        if outcome.is_err() {
            // A panic is a defect that the guards do not know. It must not affect other flows: this
            // connection ends, and the interface, which may be inconsistent, is replaced.
            connection.kill();
            self.interface = new_interface(&mut self.rng, &mut self.frame, self.mtu);
            return Err(DiscardReason::TcpEngineFailed);
        }
        Ok(written)
    }

    /// Turns the packet of `len` bytes that smoltcp wrote into a frame for the guest.
    fn finish(
        &mut self,
        connection: &mut Connection,
        len: usize,
        link: LinkAddresses,
        now: Instant,
    ) -> Range<usize> {
        if connection.is_unheard() {
            connection.begin_at(self.initial_sequence(connection, now));
        }
        let packet = &mut self.frame[HEADROOM..HEADROOM + len];
        let (vnet, len) = finish_packet(connection, packet, self.config.offload);
        seal(&mut self.frame[..HEADROOM + len], vnet, link, self.config.offload)
    }

    /// The sequence number that a connection begins with: a clock of 4 us, and an offset for each
    /// pair of ends (RFC 9293 section 3.4.1, RFC 6528 section 3). So the next connection between
    /// these ports begins above the end of the last one, as a guest in TIME-WAIT requires. A seeded
    /// hash is enough: only the guest and we are on this link.
    fn initial_sequence(&self, connection: &Connection, now: Instant) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let (ticks, offset) =
            ((now.as_micros() / 4) as u32, self.sequences.hash_one(connection.ends()) as u32);
        ticks.wrapping_add(offset)
    }
}

fn new_interface(rng: &mut Rng, frame: &mut [u8], mtu: usize) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = rng.next_u64();
    let mut slot = Slot { packet: None, out: frame, written: None, mtu };
    let mut interface = Interface::new(config, &mut slot, smoltcp::time::Instant::from_micros(0));
    interface.set_any_ip(true);
    interface
}

/// The MSS in the SYN that the engine sees. A SYN without that option means the default, which must
/// not be raised.
const fn told_mss(options: &SynOptions, (guest_mss, engine_mss): (u16, u16)) -> u16 {
    if options.mss.is_some() { engine_mss } else { guest_mss }
}

const fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}
