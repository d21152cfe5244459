//! One TCP flow of the guest.
//!
//! # Theory of operation
//!
//! *Goals.* The guest sees what it would see if it had connected itself: a handshake only after the
//! remote accepted, a reset when it refused, bytes and ends in both directions exactly as sent. Bulk
//! bytes are lent, not queued: the host socket reads straight into the ring that segments are cut
//! from, and writes straight out of the one that they arrive in.
//!
//! *Life cycle.*
//!
//! | state | allowed operations | left by |
//! | --- | --- | --- |
//! | connecting | swallow repeats of the SYN | the host's answer, a time limit, another SYN, a reset |
//! | locating | none; a remote has come first and the guest's MAC address is not known | it becomes known, a time limit |
//! | awake | segments in and out, `pump` | both directions ended, a reset from either side, a time limit |
//! | parked | none | any segment or host data: awake |
//!
//! A host that breaks ends both directions, but what it said before still reaches the guest, as it
//! would from the guest's own kernel: the guest is reset behind the last byte that it acknowledges.
//! A flow that is over is dropped once its last segment is out. TIME-WAIT is not kept: the guest has
//! closed already, and a repeated FIN of its meets a reset that it no longer cares about.
//!
//! *Timers.* One deadline, the earliest of: the engine's (retransmission, zero-window probe), a held
//! acknowledgement, parking, giving up. See [`deadlines`] and [`Timeouts`].
//!
//! *Held acknowledgements.* A request of at most one segment is usually answered within microseconds,
//! and the answer carries the acknowledgement. So that of a small segment is held for
//! [`ACK_HOLD`]. When the time passes without an answer, the flow acknowledges at once for a
//! while, longer each time, as the guest might be waiting for it (Nagle's algorithm against RFC 1122
//! section 4.2.3.2, whose limit is 500 ms). The one that completes the handshake with the remote may
//! be held as well: see [`eager`](super::eager).
//!
//! *Limits.* Two rings of [`Limits::ring_len`](crate::config::Limits::ring_len), allocated when the
//! handshake starts; none while connecting or parked. The one to the guest grows once a flow turns out
//! to move bulk data: with a larger one the host is read while the guest works on what it got before.
//! What all rings hold together is bounded by [`Limits::ring_memory`](crate::config::Limits::ring_memory).
//!
//! *Keep-alive.* A guest's probes (RFC 1122 section 4.2.3.6) are answered here, which says nothing
//! of the remote. So the first one has the host's kernel probe the remote after the same time of
//! idleness; a remote that is gone breaks the host's socket, and that resets the guest. We send no
//! probes of our own accord while both directions are open: an idle flow costs little, and ends with
//! its host socket.
//!
//! *Forgotten connections.* A guest that has half a connection left is [asked](super::question) for it
//! now and then. One that has forgotten it behind its own end leaves the host's socket closed in order:
//! a reset would take away what the host's kernel has not sent yet.

mod deadlines;

use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

use super::GuestSide;
use super::eager::FirstWord;
use super::question::Question;
use super::summary::FlowState;
use super::traffic::Traffic;
use super::transfer::{HostStream, Transfer, drain_to_host, fill_from_host};
use crate::config::Timeouts;
use crate::discard::DiscardReason;
use crate::tcp::{Connection, Engine, LinkAddresses, Parked, Segment, TIGHT_LEN};
use crate::time::Instant;
use crate::wire::MacAddr;

/// How long the acknowledgement of a small segment waits for data that could carry it. Long against
/// the answer of a local service, short against anything that a person or a timer would notice.
pub(crate) const ACK_HOLD: Duration = Duration::from_millis(5);
/// Segments that are acknowledged at once after a held acknowledgement went out alone; doubles up to
/// [`QUICK_CAP`] (arbitrary; Linux starts with 16 as well).
const QUICK_START: u16 = 16;
const QUICK_CAP: u16 = 4096;
/// A flow that has been given this many bytes in one go moves bulk data, and its ring to the guest grows
/// (1 MiB: by then the few dozen microseconds that this takes are nothing).
const GROW_AFTER: usize = 1024 * 1024;

/// Idleness from which on a segment that repeats the last byte may be a keep-alive probe: the least
/// that Linux lets a program ask for is 1 s (tcp(7)), and clocks differ.
const KEEP_ALIVE_LEAST: Duration = Duration::from_millis(900);

/// How a flow ended, for its host socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Both directions in order.
    Orderly,
    /// By a reset from either side, or by a time limit.
    Reset,
}

enum State {
    Connecting {
        syn: Box<[u8]>,
        isn: u32,
    },
    Locating {
        remote: SocketAddr,
    },
    Awake(Connection),
    Parked(Parked),
    /// The engine could not take a parked connection up again; that would be a defect of ours.
    Broken,
}

/// See the [module](self).
pub(crate) struct TcpFlow {
    state: State,
    guest: GuestSide,
    link: LinkAddresses,
    /// Whether the remote opened the connection.
    is_inbound: bool,
    is_guest_end_relayed: bool,
    is_host_ended: bool,
    /// Whether the engine knows that the host has ended.
    is_host_end_relayed: bool,
    /// Since when the host is known to be broken. What it had said goes to the guest, then a reset.
    failed_at: Option<Instant>,
    /// Whether we have reset the connection: the host failed, or a time limit passed.
    is_aborted: bool,
    /// Whether TIME-WAIT was reached and its acknowledgement is out: the engine is not polled any
    /// more, since the end of TIME-WAIT would throw away what the host has not taken yet.
    is_lingering: bool,
    /// Sequence numbers (payload bytes, the end) that arrived since a segment left.
    unacknowledged: u32,
    /// Bytes that the guest was given since the flow woke or tried to grow.
    given: usize,
    /// Segments that are still to be acknowledged at once.
    quick: u16,
    quick_next: u16,
    /// Seconds of idleness after which the guest probes, zero while it does not; and what the host
    /// was told of that.
    keep_alive: u64,
    keep_alive_told: u64,
    opened_at: Instant,
    /// Since when the guest has owed an answer, to the engine or to the question.
    waiting_since: Option<Instant>,
    question: Question,
    active_at: Instant,
    engine_at: Option<Instant>,
    ack_at: Option<Instant>,
    wake_at: Option<Instant>,
    /// Who spoke first; taken by the stack for its memory of remotes.
    pub(crate) first_word: FirstWord,
    /// How often the flow was taken up again; taken by the stack for its counter.
    pub(crate) unparked: u32,
}

impl TcpFlow {
    /// A flow that waits for the host; `syn` is the guest's IP packet. `is_guest_eager` says whether
    /// the host was told so.
    pub(crate) fn connecting(
        guest: GuestSide,
        link: LinkAddresses,
        (isn, syn): (u32, &[u8]),
        is_guest_eager: bool,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Self {
        Self {
            state: State::Connecting { syn: syn.into(), isn },
            guest,
            link,
            is_inbound: false,
            is_guest_end_relayed: false,
            is_host_ended: false,
            is_host_end_relayed: false,
            failed_at: None,
            is_aborted: false,
            is_lingering: false,
            unacknowledged: 0,
            given: 0,
            quick: 0,
            quick_next: QUICK_START,
            keep_alive: 0,
            keep_alive_told: 0,
            opened_at: now,
            waiting_since: None,
            question: Question::new(),
            active_at: now,
            engine_at: None,
            ack_at: None,
            wake_at: Some(now + timeouts.host_connect),
            first_word: FirstWord::Awaited { is_ack_held: is_guest_eager },
            unparked: 0,
        }
    }

    /// A flow that `remote` has opened: it is to be [`locate`](Self::locate)d, then the guest is
    /// to answer, both within `timeouts.guest_connect`.
    pub(crate) fn accepted(
        guest: GuestSide,
        link: LinkAddresses,
        remote: SocketAddr,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Self {
        let flow = Self::connecting(guest, link, (0, &[]), false, timeouts, now);
        Self {
            state: State::Locating { remote },
            is_inbound: true,
            first_word: FirstWord::Told,
            wake_at: Some(now + timeouts.guest_connect),
            ..flow
        }
    }

    /// The guest of a flow that a remote has opened is at `mac`: it is sent a SYN, or hears of the
    /// one that it has not answered at its new place.
    pub(crate) fn locate(&mut self, engine: &mut Engine, mac: MacAddr) {
        if !self.is_unanswered() {
            return;
        }
        self.guest.mac = mac;
        self.link.guest = mac;
        if let State::Locating { remote } = self.state {
            let connection = engine.connect(self.guest.address, remote);
            self.state = connection.map_or(State::Broken, State::Awake);
        }
    }

    /// Whether a remote waits for the guest's answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        match &self.state {
            State::Locating { .. } => true,
            State::Awake(connection) => connection.is_opening(),
            State::Connecting { .. } | State::Parked(_) | State::Broken => false,
        }
    }

    /// The remote has gone.
    pub(crate) fn abort(&mut self) {
        self.is_aborted = true;
        match &mut self.state {
            State::Awake(connection) => connection.abort(),
            State::Locating { .. }
            | State::Connecting { .. }
            | State::Parked(_)
            | State::Broken => self.state = State::Broken,
        }
    }

    /// Where the flow stands.
    pub(crate) fn state(&self) -> FlowState {
        match &self.state {
            State::Connecting { .. } => FlowState::Connecting,
            State::Locating { .. } => FlowState::Locating,
            State::Awake(connection) if connection.is_handshaking() => FlowState::Handshaking,
            State::Awake(connection)
                if connection.is_open_both_ways()
                    && !self.is_host_ended
                    && self.failed_at.is_none() =>
            {
                FlowState::Open
            }
            State::Parked(_) => FlowState::Parked,
            State::Awake(_) | State::Broken => FlowState::Closing,
        }
    }

    /// Whether the remote opened the connection.
    pub(crate) const fn is_inbound(&self) -> bool {
        self.is_inbound
    }

    /// When something was heard of or said by either side last.
    pub(crate) const fn active_at(&self) -> Instant {
        self.active_at
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The guest's SYN while the host is being connected; errors quote it.
    pub(crate) fn pending_syn(&self) -> Option<&[u8]> {
        match &self.state {
            State::Connecting { syn, .. } => Some(syn),
            State::Locating { .. } | State::Awake(_) | State::Parked(_) | State::Broken => None,
        }
    }

    /// Whether either side has not finished opening the connection.
    pub(crate) fn is_half_open(&self) -> bool {
        match &self.state {
            State::Connecting { .. } | State::Locating { .. } => true,
            State::Awake(connection) => connection.is_handshaking(),
            State::Parked(_) | State::Broken => false,
        }
    }

    pub(crate) const fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_))
    }

    /// Whether an opening segment with this sequence number repeats the one that made this flow.
    pub(crate) fn is_same_opening(&self, seq: u32) -> bool {
        match &self.state {
            State::Connecting { isn, .. } => *isn == seq,
            State::Awake(connection) => connection.is_handshaking_with(seq),
            State::Locating { .. } | State::Parked(_) | State::Broken => false,
        }
    }

    /// The host is connected: the guest's SYN goes into the engine now.
    pub(crate) fn on_connected(&mut self, engine: &mut Engine, now: Instant) -> bool {
        let State::Connecting { syn, .. } = &self.state else {
            return false;
        };
        let Some(connection) = engine.accept(syn, now) else {
            return false;
        };
        self.state = State::Awake(connection);
        self.opened_at = now;
        self.active_at = now;
        true
    }

    /// A segment of the guest that does not open a connection; `packet` is its IP packet.
    ///
    /// # Errors
    /// Why it was discarded.
    pub(crate) fn on_segment(
        &mut self,
        engine: &mut Engine,
        segment: Segment,
        packet: &mut [u8],
        guest: GuestSide,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        self.guest = guest;
        self.link.guest = guest.mac;
        self.waiting_since = None;
        if !segment.is_rst() {
            self.question.on_heard();
        }
        let idle_for = now.saturating_since(self.active_at);
        self.active_at = now;
        self.wake(engine, now);
        let State::Awake(connection) = &mut self.state else {
            return Err(DiscardReason::TcpNoFlow);
        };
        if idle_for >= KEEP_ALIVE_LEAST && connection.is_probed_by(&segment) {
            // To the nearest second, which is what the host's kernel counts in.
            self.keep_alive = (idle_for + Duration::from_millis(500)).as_secs();
        }
        let taken = segment.payload_len.saturating_add(u32::from(segment.is_fin()));
        self.unacknowledged = self.unacknowledged.saturating_add(taken);
        self.quick =
            if segment.payload_len > 0 { self.quick.saturating_sub(1) } else { self.quick };
        let outcome = engine.handle_segment(connection, segment, packet, self.link, now);
        self.is_aborted |= matches!(outcome, Err(DiscardReason::RingMemoryExhausted));
        if matches!(outcome, Ok(Some(_))) {
            // The answer carried an acknowledgement; what comes next is not to be held for it.
            self.unacknowledged = 0;
        }
        outcome
    }

    /// Moves bytes between the guest's rings and its host; `traffic` counts them.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(crate) fn pump(
        &mut self,
        host: &mut impl HostStream,
        engine: &mut Engine,
        traffic: &mut Traffic,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        self.wake(engine, now);
        let State::Awake(connection) = &mut self.state else {
            return Ok(());
        };
        let before = connection.held();
        let is_late = now >= self.opened_at + ACK_HOLD;
        let mut moved = 0;
        // What a guest sends behind its own end is nobody's (RFC 9293 section 3.10.7.4).
        if connection.queued_to_host() > 0 && !self.is_guest_end_relayed && self.failed_at.is_none()
        {
            let (bytes, outcome) = drain_to_host(connection, host);
            traffic.add_from_guest(bytes);
            moved += bytes;
            if bytes > 0 {
                self.first_word.heard(!is_late);
            }
            if outcome == Transfer::Failed {
                self.failed_at = Some(now);
            }
        }
        if connection.is_guest_finished()
            && self.failed_at.is_none()
            && connection.queued_to_host() == 0
            && !self.is_guest_end_relayed
        {
            self.is_guest_end_relayed = true;
            self.first_word.heard(false);
            host.shutdown_write();
        }
        let mut is_drained = self.is_host_ended;
        if !self.is_host_ended && !connection.is_handshaking() {
            let wants_growth = self.given >= GROW_AFTER && connection.may_grow();
            if wants_growth && connection.queued_to_guest() == 0 {
                self.given = 0;
                engine.grow(connection, now);
            }
            // A flow that is to grow lets its ring run empty, once. While memory is tight all do, and go
            // on with new ones: the guest's acknowledgement has them looked at again.
            engine.renew_early(connection, now);
            let is_tight = connection.is_memory_tight();
            let is_to_run_empty =
                (wants_growth && self.given > 0) || (is_tight && connection.queued_to_guest() > 0);
            let limit = match (is_to_run_empty, is_tight) {
                (true, _) => 0,
                (false, true) => TIGHT_LEN,
                (false, false) => usize::MAX,
            };
            let (bytes, outcome) = fill_from_host(connection, host, limit);
            traffic.add_to_guest(bytes);
            moved += bytes;
            if bytes > 0 {
                self.first_word.heard(false);
            }
            self.given = self.given.saturating_add(bytes);
            if outcome == Some(Transfer::Failed) {
                self.failed_at.get_or_insert(now);
            }
            is_drained = outcome.is_some();
            // Behind a failed send the kernel speaks of a reset as of an end.
            self.is_host_ended |= outcome == Some(Transfer::Ended) && self.failed_at.is_none();
        }
        if self.keep_alive != self.keep_alive_told {
            self.keep_alive_told = self.keep_alive;
            host.keep_alive(Duration::from_secs(self.keep_alive));
        }
        if is_late && self.first_word.is_ack_held() {
            self.first_word.heard(false);
            host.acknowledge();
        }
        // Once both directions are closing (LAST-ACK) the engine is deaf to window updates (defect
        // B15): it is told of the second end when the guest has acknowledged everything before.
        let may_end = !connection.is_guest_finished() || connection.queued_to_guest() == 0;
        if self.is_host_ended && !self.is_host_end_relayed && may_end {
            self.is_host_end_relayed = true;
            connection.close();
        }
        if moved > 0 {
            self.active_at = now;
            self.question.on_moved();
        }
        let is_exhausted = connection.is_memory_exhausted(before);
        let is_told = is_drained && connection.queued_to_guest() == 0;
        if (self.failed_at.is_some() && is_told) || is_exhausted {
            self.is_aborted = true;
            connection.abort();
        }
        if is_exhausted { Err(DiscardReason::RingMemoryExhausted) } else { Ok(()) }
    }

    /// The next frame to the guest.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(crate) fn poll_segment(
        &mut self,
        engine: &mut Engine,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        if self.may_hold_acknowledgement() {
            if self.ack_at.is_none_or(|at| at > now) {
                self.ack_at.get_or_insert(now + ACK_HOLD);
                return Ok(None);
            }
            self.quick = self.quick_next;
            self.quick_next = (self.quick_next * 2).min(QUICK_CAP);
        }
        self.ack_at = None;
        let State::Awake(connection) = &mut self.state else {
            return Ok(None);
        };
        if self.is_lingering && connection.is_time_wait() {
            return Ok(None);
        }
        if !self.is_aborted && self.question.is_due(now) {
            return engine.ask(connection, self.link).map(Some);
        }
        let frame = engine.poll_segment(connection, self.link, now)?;
        self.is_lingering = frame.is_none() && connection.is_time_wait();
        if frame.is_some() {
            self.unacknowledged = 0;
        }
        Ok(frame)
    }

    /// Whether the only thing to say is the acknowledgement of a small segment or of the guest's end,
    /// and an answer that could carry it (the remote's end in the latter case) is likely.
    fn may_hold_acknowledgement(&self) -> bool {
        let State::Awake(connection) = &self.state else {
            return false;
        };
        self.unacknowledged > 0
            && self.quick == 0
            && self.unacknowledged <= u32::from(connection.guest_mss())
            && !self.is_host_ended
            && (connection.is_open_both_ways() || connection.is_ended_by_guest())
            && connection.queued_to_guest() == 0
            && connection.queued_to_host() == 0
    }

    /// How the flow ended, if it did and has nothing more to say. Both directions may have ended on
    /// the guest's side while its last bytes still wait for a slow host: those are delivered first.
    pub(crate) fn ending(&self) -> Option<Ending> {
        let connection = match &self.state {
            State::Connecting { .. } | State::Locating { .. } | State::Parked(_) => return None,
            State::Broken => return Some(Ending::Reset),
            State::Awake(connection) => connection,
        };
        if !connection.is_dead() && !connection.is_time_wait() {
            return None;
        }
        if self.is_guest_end_relayed && self.question.is_open() {
            // The guest has ended in order and forgotten the rest.
            return Some(Ending::Orderly);
        }
        if self.is_aborted || !self.is_host_ended || !connection.is_guest_finished() {
            return Some(Ending::Reset);
        }
        // The end is told only behind the last byte.
        self.is_guest_end_relayed.then_some(Ending::Orderly)
    }

    fn park(&mut self, parked: Parked) {
        self.state = State::Parked(parked);
        self.engine_at = None;
        self.wake_at = None;
    }

    fn wake(&mut self, engine: &mut Engine, now: Instant) {
        let State::Parked(parked) = &self.state else {
            return;
        };
        self.state = engine.unpark(parked, now).map_or(State::Broken, State::Awake);
        self.given = 0;
        self.active_at = now;
        self.unparked += 1;
    }
}
