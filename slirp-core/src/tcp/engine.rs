//! The engine: smoltcp's interface and the one buffer that packets to the guest are built in.
//!
//! Owns every call into smoltcp that takes a packet or produces one, and what the fence does to
//! packets on the way: the guard on the way in; sequence translation, checksum and segmentation
//! offload on the way out.

use core::hash::BuildHasher as _;
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foldhash::quality::FixedState;
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{HardwareAddress, IpProtocol, checksum};

use super::clock;
use super::connection::{Connection, Parked};
use super::device::Slot;
use super::memory::{LEAST, RingMemory};
use super::rings::{RingSupply, Rings};
use super::segment::{self, Segment, SynOptions};
use crate::config::Offload;
use crate::discard::DiscardReason;
use crate::member::MemberId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::MacAddr;
use crate::wire::frame::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader, IPV4_HEADER_LEN,
    IPV6_HEADER_LEN, IpHeader, pseudo_header_sum,
};
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};

/// Largest IP packet; also the MTU that the engine believes in where the device segments.
const PACKET_CAP: usize = 65_535;
/// Room in front of a packet for the virtio-net and the Ethernet header.
const HEADROOM: usize = VNET_HEADER_LEN + ETHERNET_HEADER_LEN;
const TCP_HEADER_LEN: usize = 20;
/// RFC 9293 section 3.7.1: the MSS of a peer that names none; also the smallest one for which
/// super-segments are built, so that a guest cannot make its own kernel cut 64 KiB into crumbs.
const DEFAULT_MSS: u16 = 536;
/// How much larger the ring to the guest is in a connection that moves bulk data: then the host can be
/// read while the guest still works on what it got before (measured: eight took 6 to 9 % less processor
/// time than four and four less than two; sixteen took more than eight).
const BULK_FACTOR: usize = 8;
/// Empty segments in a row that a connection may emit without having received anything. An honest
/// one emits a window update each time the window has doubled, at most one per bit of the ring;
/// defect B3 emits them for ever.
const EMPTY_SEGMENT_CAP: u8 = 32;

/// How often rings that wait are looked at: those that no connection has needed for so long are given up
/// (arbitrary; the pages of what has become idle are to be back within seconds).
const SPARE_FOR: Duration = Duration::from_secs(1);

/// What the engine is told once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineConfig {
    pub(crate) mtu: u16,
    pub(crate) offload: Offload,
    pub(crate) ring_len: usize,
    pub(crate) bulk_flows: usize,
    pub(crate) ring_memory: usize,
    /// Into how many parts, one for a member, both are split; 1 where there is one guest.
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
    pub(super) supply: Arc<RingSupply>,
    release_at: Option<Instant>,
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
        let supply = RingSupply::new(config.ring_len, BULK_FACTOR * config.ring_len);
        Self { interface, config, rng, sequences, frame, mtu, memory, supply, release_at: None }
    }

    /// A connection that has received `packet`, the guest's SYN, and will answer it.
    pub(crate) fn accept(&mut self, packet: &[u8], now: Instant) -> Option<Connection> {
        let ip = IpHeader::parse(packet).ok()?;
        let packet = packet.get(..ip.packet_len)?;
        let segment = Segment::parse(&ip, packet).ok()?;
        if !segment.is_opening() {
            return None;
        }
        let options = SynOptions::parse(&segment, packet);
        let (guest_mss, engine_mss) = self.segment_sizes(&options, ip.destination);
        let told = told_mss(&options, (guest_mss, engine_mss));
        // smoltcp drops a segment with any malformed option; the guest's SYN is not shown to it.
        let syn = segment::emit_syn(
            segment.source,
            segment.destination,
            segment.seq,
            segment.window,
            &options.emit(told),
        );
        let rings = self.rings(segment.source);
        let sizes = (guest_mss, engine_mss);
        let mut connection = Connection::listening(&segment, options, sizes, rings)?;
        self.ingress(&mut connection, &syn, now)?;
        connection.is_handshaking().then_some(connection)
    }

    /// A connection that `remote` opens to `guest`. Its SYN leaves with the first poll.
    pub(crate) fn connect(&mut self, guest: SocketAddr, remote: SocketAddr) -> Option<Connection> {
        let sizes = self.segment_sizes(&SynOptions::with_mss(u16::MAX), guest.ip());
        let rings = self.rings(guest);
        let context = self.interface.context();
        Connection::connecting(context, (guest, remote), sizes, rings)
    }

    /// The guest's true MSS and the one that the engine is told.
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

    /// Hands a segment of the guest to its connection. `packet` is its IP packet without padding;
    /// it is changed. Returns where the frame lies that answers it at once, if there is one.
    ///
    /// # Errors
    /// The reason why the segment did not reach the engine, or why the connection is dead now. With
    /// [`DiscardReason::RingMemoryExhausted`] a reset is still to be polled.
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
        if connection.is_memory_exhausted(before) {
            connection.abort();
            return Err(DiscardReason::RingMemoryExhausted);
        }
        let written = self.ingress(connection, packet, now);
        let written = written.ok_or(DiscardReason::TcpEngineFailed)?;
        connection.note_state(&segment);
        Ok(written.map(|len| self.finish(connection, len, link, now)))
    }

    /// The guest has answered our SYN from an older connection between the same ports, which it has not
    /// finished with (TIME-WAIT) or has not heard the end of. The reset that ends it is returned (RFC 9293
    /// section 3.10.7.3), and a new SYN leaves with the next poll, unless that has happened too often.
    fn reopen(
        &mut self,
        connection: &mut Connection,
        segment: &Segment,
        link: LinkAddresses,
    ) -> Result<Range<usize>, DiscardReason> {
        let (guest, remote) = connection.ends();
        let reset = segment::emit_reset(segment).ok_or(DiscardReason::TcpAckUnsent)?;
        if let Some(again) = self.connect(guest, remote).and_then(|again| again.after(connection)) {
            *connection = again;
        }
        self.finish_own(&reset, link)
    }

    /// Where the frame lies that asks the guest whether it still has `connection`, which its kernel
    /// answers by itself. The engine does not hear of the question, and takes the answer for an
    /// acknowledgement that says nothing new.
    ///
    /// # Errors
    /// [`DiscardReason::TcpEngineFailed`] for a connection that nothing was sent on.
    pub(crate) fn ask(
        &mut self,
        connection: &Connection,
        link: LinkAddresses,
    ) -> Result<Range<usize>, DiscardReason> {
        let question = connection.question().ok_or(DiscardReason::TcpEngineFailed)?;
        self.finish_own(&question, link)
    }

    /// Turns a packet of the fence, which bears the guest's sequence numbers, into a frame.
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

    /// The bytes of the frame that was built last.
    pub(crate) fn frame(&self, range: Range<usize>) -> &[u8] {
        &self.frame[range]
    }

    /// Where the next frame of `connection` to the guest lies.
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
        let written = self.egress(connection, now).ok_or(DiscardReason::TcpEngineFailed)?;
        Ok(written.map(|len| self.finish(connection, len, link, now)))
    }

    /// When the engine wants to be polled for `connection`; [`Instant::ZERO`] means at once.
    pub(crate) fn poll_at(&mut self, connection: &Connection, now: Instant) -> Option<Instant> {
        let now = clock::to_engine(now);
        connection.with_set(|set| self.interface.poll_at(now, set)).map(clock::from_engine)
    }

    /// Gets a connection going again that has data and does nothing about it.
    ///
    /// Without any timer (defect B12), an acknowledgement of what is acknowledged already makes the
    /// engine look at the window again. With data in flight that nobody acknowledges although the
    /// window is open (defect B14), three duplicate acknowledgements make it send the first of it
    /// again, which sets its timer as well.
    pub(crate) fn revive(&mut self, connection: &mut Connection, now: Instant) {
        if connection.queued_to_guest() == 0 || connection.is_dead() {
            return;
        }
        let is_stalled = connection.is_stalled(now);
        if self.poll_at(connection, now).is_some() {
            // It has a timer of its own, which backs off (RFC 6298 section 5.5).
            return;
        }
        let nudges = if is_stalled {
            connection.duplicate_acks()
        } else {
            connection.repeated_ack().into_iter().collect()
        };
        for nudge in nudges {
            if self.ingress(connection, &nudge, now).is_none() {
                // A panic has ended the connection, which its flow finds out by itself.
                return;
            }
        }
    }

    /// Gives the socket and rings of an idle connection back, if it is fully described without them.
    pub(crate) fn park(&mut self, connection: &Connection, now: Instant) -> Option<Parked> {
        if self.poll_at(connection, now).is_some() {
            return None;
        }
        connection.parked()
    }

    /// Wakes a parked connection: a new socket is led through a handshake with itself.
    pub(crate) fn unpark(&mut self, parked: &Parked, now: Instant) -> Option<Connection> {
        let rings = self.rings(parked.guest);
        self.resume(parked, rings, now)
    }

    /// Gives a connection a larger ring to the guest, if it is quiet at this moment. To the guest
    /// nothing changes.
    pub(crate) fn grow(&mut self, connection: &mut Connection, now: Instant) {
        let Some(parked) = self.park(connection, now) else {
            return;
        };
        let share = self.memory.share(parked.guest.ip());
        let rings = self.supply.grown_rings(share);
        if let Some(grown) = self.resume(&parked, rings, now) {
            *connection = grown;
        }
    }

    /// Exchanges the rings of a connection that is quiet at this moment for new ones, if memory is tight
    /// and that would help, or if the connection has no need of what it holds. To the guest nothing changes.
    pub(crate) fn renew_early(&mut self, connection: &mut Connection, now: Instant) {
        let parked = if connection.is_excessive() {
            self.park(connection, now)
        } else {
            self.park_early(connection, now)
        };
        let Some(parked) = parked else {
            return;
        };
        let rings = self.supply.new_rings(self.memory.share(parked.guest.ip()));
        if let Some(renewed) = self.resume(&parked, rings, now) {
            *connection = renewed;
        }
    }

    fn rings(&self, guest: SocketAddr) -> Rings {
        self.supply.rings(self.memory.share(guest.ip()))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.release_at
    }

    /// Gives up rings that nobody needs any more. It is due every second while there are connections.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.release_at = self.supply.release_unused().then(|| now + SPARE_FOR);
    }

    /// A member of a shared network has come, or is known by more addresses: it has its own part of
    /// the memory.
    pub(crate) fn handle_member(&mut self, id: MemberId, addresses: impl Iterator<Item = IpAddr>) {
        self.memory.assign(id, addresses);
    }

    /// It has gone.
    pub(crate) fn handle_member_removed(&mut self, id: MemberId) {
        self.memory.unassign(id);
    }

    /// [`park`](Self::park)s a connection before its time if memory is tight and that would help.
    pub(crate) fn park_early(&mut self, connection: &Connection, now: Instant) -> Option<Parked> {
        let is_worth_it = connection.is_memory_tight() && connection.held() > LEAST;
        if is_worth_it { self.park(connection, now) } else { None }
    }

    /// A new socket is led through a handshake with itself, to where `parked` was left.
    fn resume(&mut self, parked: &Parked, rings: Rings, now: Instant) -> Option<Connection> {
        let (_, engine_mss) = self.segment_sizes(&parked.options, parked.remote.ip());
        let engine_mss = engine_mss.min(parked.engine_mss_cap());
        let syn = segment::emit_syn(
            parked.guest,
            parked.remote,
            parked.guest_next.wrapping_sub(1),
            parked.window,
            &parked.options.emit(engine_mss),
        );
        let ip = IpHeader::parse(&syn).ok()?;
        let opening = Segment::parse(&ip, &syn).ok()?;
        let mut connection =
            Connection::listening(&opening, parked.options, (parked.guest_mss, engine_mss), rings)?;
        self.ingress(&mut connection, &syn, now)?;
        let len = self.egress(&mut connection, now)??;
        let answer = &self.frame[HEADROOM..HEADROOM + len];
        let answer = Segment::parse(&IpHeader::parse(answer).ok()?, answer).ok()?;
        let ack = segment::emit_ack(
            parked.guest,
            parked.remote,
            parked.guest_next,
            answer.seq.wrapping_add(1),
            parked.window,
        );
        self.ingress(&mut connection, &ack, now)?;
        connection.resume(parked, answer.seq.wrapping_add(1)).then_some(connection)
    }

    /// One packet into smoltcp. `None` when it panicked, else the length of its answer in the frame.
    #[expect(
        clippy::option_option,
        reason = "the outer None ends the connection, the inner does not"
    )]
    pub(super) fn ingress(
        &mut self,
        connection: &mut Connection,
        packet: &[u8],
        now: Instant,
    ) -> Option<Option<usize>> {
        self.fenced(connection, Some(packet), now, |interface, slot, set| {
            interface.poll_ingress_single(clock::to_engine(now), slot, set);
        })
    }

    /// At most one packet out of smoltcp.
    #[expect(
        clippy::option_option,
        reason = "the outer None ends the connection, the inner does not"
    )]
    pub(super) fn egress(
        &mut self,
        connection: &mut Connection,
        now: Instant,
    ) -> Option<Option<usize>> {
        self.fenced(connection, None, now, |interface, slot, set| {
            interface.poll_egress(clock::to_engine(now), slot, set);
        })
    }

    #[expect(
        clippy::option_option,
        reason = "the outer None ends the connection, the inner does not"
    )]
    fn fenced(
        &mut self,
        connection: &mut Connection,
        packet: Option<&[u8]>,
        now: Instant,
        call: impl FnOnce(&mut Interface, &mut Slot<'_>, &mut SocketSet<'_>),
    ) -> Option<Option<usize>> {
        self.release_at.get_or_insert(now + SPARE_FOR);
        let mut slot =
            Slot { packet, out: &mut self.frame[HEADROOM..], written: None, mtu: self.mtu };
        let interface = &mut self.interface;
        let outcome = connection
            .with_set_mut(|set| catch_unwind(AssertUnwindSafe(|| call(interface, &mut slot, set))));
        let written = slot.written;
        if outcome.is_err() {
            // A panic is a defect that the guard does not know. It must not take the other flows
            // along: this connection ends, and the interface, which may be half-changed, is new.
            connection.kill();
            self.interface = new_interface(&mut self.rng, &mut self.frame, self.mtu);
            return None;
        }
        Some(written)
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

    /// The sequence number that a connection begins with: a clock of 4 us, and an offset for each pair of ends
    /// (RFC 9293 section 3.4.1, RFC 6528 section 3). So the next connection between the same ports begins
    /// above where the last one ended, which a guest in TIME-WAIT asks for. The hash need not be more than
    /// seeded: nobody but the guest and we are on this link.
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

/// The MSS in the SYN that the engine sees. One without that option stands for the default, which
/// must not be raised.
const fn told_mss(options: &SynOptions, (guest_mss, engine_mss): (u16, u16)) -> u16 {
    if options.mss.is_some() { engine_mss } else { guest_mss }
}

const fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}

/// Notes what the engine has promised, translates sequence numbers, and fills in the checksum. The packet
/// may become shorter: returns its length as well.
fn finish_packet(
    connection: &mut Connection,
    packet: &mut [u8],
    offload: Offload,
) -> (VnetHeader, usize) {
    let parsed = IpHeader::parse(packet).and_then(|ip| Ok((ip, Segment::parse(&ip, packet)?)));
    let Ok((ip, mut segment)) = parsed else {
        // smoltcp emits well-formed packets; a frame without offload is dropped by the guest at worst.
        return (VnetHeader::default(), packet.len());
    };
    let len = connection.keep_within_window(&mut segment, packet);
    let packet = &mut packet[..len];
    connection.note_emitted(&mut segment, packet);
    (checksum_and_segment(&ip, &segment, connection.guest_mss(), packet, offload), len)
}

/// Fills in the TCP checksum, or leaves it to the device, and says how the frame is segmented.
pub(crate) fn checksum_and_segment(
    ip: &IpHeader,
    segment: &Segment,
    mss: u16,
    packet: &mut [u8],
    offload: Offload,
) -> VnetHeader {
    let at = segment.at;
    // An IP packet is at most 65,535 bytes plus the IPv6 header.
    let tcp_len = u32::try_from(packet.len() - at).unwrap_or(u32::MAX);
    let pseudo = pseudo_header_sum(ip.source, ip.destination, IpProtocol::Tcp, tcp_len);
    if !offload.checksum {
        segment.set_checksum(packet, 0);
        let sum = !checksum::combine(&[pseudo, checksum::data(&packet[at..])]);
        segment.set_checksum(packet, sum);
        return VnetHeader::default();
    }
    segment.set_checksum(packet, pseudo);
    let start = u16::try_from(ETHERNET_HEADER_LEN + at).unwrap_or(0);
    let mut vnet = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: start,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    if segment.payload_len > u32::from(mss) && offload.tcp_segmentation {
        vnet.gso = match ip.source {
            IpAddr::V4(_) => Gso::TcpV4,
            IpAddr::V6(_) => Gso::TcpV6,
        };
        vnet.gso_size = mss;
        vnet.hdr_len = start + u16::try_from(segment.header_len).unwrap_or(0);
    }
    vnet
}

/// Writes the headers in front of the packet; returns which part the device is to be given.
fn seal(frame: &mut [u8], vnet: VnetHeader, link: LinkAddresses, offload: Offload) -> Range<usize> {
    let ethertype = match frame[HEADROOM] >> 4 {
        4 => ETHERTYPE_IPV4,
        _ => ETHERTYPE_IPV6,
    };
    let ethernet = EthernetHeader { destination: link.guest, source: link.ours, ethertype };
    frame[VNET_HEADER_LEN..HEADROOM].copy_from_slice(&ethernet.emit());
    if offload.vnet_header {
        frame[..VNET_HEADER_LEN].copy_from_slice(&vnet.emit());
        0..frame.len()
    } else {
        VNET_HEADER_LEN..frame.len()
    }
}
