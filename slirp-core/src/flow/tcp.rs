//! One TCP flow of the guest.
//!
//! # Theory of operation
//!
//! *Goals.* The guest sees what it would see if it had connected itself: a handshake only after the
//! remote accepted, a reset when it refused, bytes and ends in both directions exactly as sent.
//! Bulk bytes are lent, not queued: the host socket reads straight into the ring that segments are
//! cut from, and writes straight out of the ring that they arrive in.
//!
//! *Life cycle.*
//!
//! | state | allowed operations | who may write bytes | left by |
//! | --- | --- | --- | --- |
//! | asking | `connect_until`, `take_syn` | nobody | stack's decision, SYN, RST |
//! | connecting | `on_connected`, `take_syn` | nobody | host's answer, SYN, RST, time limit |
//! | locating | `locate` | nobody | guest's MAC address, time limit |
//! | awake | `on_segment`, `pump`, `poll_segment` | guest, host | both ends, RST, time limit |
//! | parked | none | nobody | segment, host data |
//! | broken | `ending` | nobody | removal by the stack |
//!
//! An asking flow waits until an egress policy lets it connect. Like a connecting flow it swallows
//! repeats of its SYN. A locating flow was opened by a remote whose
//! guest is being looked for on the link. While awake the guest writes by segments and the host by
//! `pump`. A parked flow has no rings; a segment or host data wakes it.
//!
//! A host that breaks ends both directions, but what it said before still reaches the guest, as it
//! would from the guest's own kernel: the guest is reset behind the last byte that it acknowledges.
//! A flow that is over is dropped once its last segment is out. TIME-WAIT is not kept: the guest
//! has closed already, and a repeated FIN is answered by a reset that the guest no longer cares
//! about.
//!
//! *Timers.* One deadline, the earliest of: the engine's (retransmission, zero-window probe), a
//! held acknowledgement, parking, giving up. See [`deadlines`] and [`Timeouts`].
//!
//! *Held acknowledgements.* See [`acknowledgement`]. The acknowledgement that completes the
//! handshake with the remote may be held as well: see [`eager`](super::eager).
//!
//! *Limits.* Two rings of [`Limits::ring_len`](crate::config::Limits::ring_len), taken when the
//! handshake starts; none while connecting or parked. The ring to the guest [grows](growth) once a
//! flow turns out to move bulk data. What all rings hold together is bounded by
//! [`Limits::ring_memory`](crate::config::Limits::ring_memory).
//!
//! *Keep-alive.* The guest's probes are [passed on](keep_alive). We send no probes of our own while
//! both directions are open: an idle flow costs little, and ends with its host socket.
//!
//! *Egress.* Where a policy wants to see the first bytes of the guest, a [`gate`] stands between
//! the guest's ring and the host. It keeps no bytes of its own, and it survives parking.
//!
//! *Forgotten connections.* A guest that has half a connection left is [asked](super::question) for
//! it now and then. If the guest has forgotten it behind its own end, the host's socket is closed
//! in order: a reset would take away what the host's kernel has not sent yet.

mod acknowledgement;
mod awake;
mod deadlines;
mod ends;
mod gate;
mod growth;
mod keep_alive;

use core::mem;
use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

use self::acknowledgement::HeldAck;
use self::awake::{Awake, Turn};
use self::gate::Gate;
use self::keep_alive::KeepAlive;
use super::GuestSide;
use super::eager::FirstSpeaker;
use super::state::FlowState;
use super::transfer::{Allowance, HostStream, Wants};
use crate::config::Timeouts;
use crate::discard::DiscardReason;
use crate::egress::Name;
use crate::event::Origin;
use crate::journal::Ending;
use crate::mac::MacAddr;
use crate::shaper::Segments;
use crate::tcp::{Engine, LinkAddresses, Parked, Segment, Syn};
use crate::time::Instant;
use crate::traffic::Traffic;

pub(crate) use acknowledgement::ACK_HOLD;
pub(crate) use gate::Passage;

enum State {
    /// Boxed, so that the others stay small.
    Asking(Box<Syn>),
    Connecting(Syn),
    Locating {
        remote: SocketAddr,
    },
    Awake(Box<Awake>),
    Parked(Parked),
    /// The connection is over without a last segment: the host did not connect, the remote has
    /// gone, or the engine failed.
    Broken(Ending),
}

/// See the [module](self).
pub(crate) struct TcpFlow {
    state: State,
    guest: GuestSide,
    our_mac: MacAddr,
    /// How the connection came, if the guest did not open it.
    arrival: Option<Box<Arrival>>,
    /// What stands between the guest's bytes and the host, if anything does.
    gate: Option<Box<Gate>>,
    /// The name that the guest's first bytes had, where a policy has looked at them.
    claim: Option<Name>,
    ack: HeldAck,
    keep_alive: KeepAlive,
    /// When the flow was opened; once the host is connected, since when it is.
    opened_at: Instant,
    active_at: Instant,
    wake_at: Option<Instant>,
    /// Who spoke first; taken by the stack for its memory of remotes.
    pub(crate) first_speaker: FirstSpeaker,
    /// How often the flow was unparked; taken by the stack for its counter.
    pub(crate) unparked: u32,
}

/// How a connection of a remote came.
struct Arrival {
    origin: Origin,
    /// How long the guest may take to be found and to answer.
    patience: Duration,
    /// Where the guest is to be asked next, should it refuse.
    other_guest: Option<SocketAddr>,
}

impl TcpFlow {
    /// A flow that waits for the host. `is_guest_eager` says whether the host was told so.
    pub(crate) fn connecting(
        guest: GuestSide,
        our_mac: MacAddr,
        syn: Syn,
        is_guest_eager: bool,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Self {
        Self {
            wake_at: Some(now + timeouts.host_connect),
            first_speaker: FirstSpeaker::Unknown { is_ack_held: is_guest_eager },
            ..Self::new(State::Connecting(syn), guest, our_mac, now)
        }
    }

    /// A flow that waits for the stack to have it [connected](Self::connect_until).
    pub(crate) fn asking(guest: GuestSide, our_mac: MacAddr, syn: Syn, now: Instant) -> Self {
        Self {
            first_speaker: FirstSpeaker::Unknown { is_ack_held: false },
            ..Self::new(State::Asking(Box::new(syn)), guest, our_mac, now)
        }
    }

    /// The host is told to connect, once more perhaps, and has time until `deadline`.
    pub(crate) fn connect_until(&mut self, deadline: Instant) {
        if let Some(syn) = self.take_syn() {
            self.state = State::Connecting(syn);
            self.wake_at = Some(deadline);
        }
    }

    /// Whether it waits for the stack to have it connected.
    pub(crate) const fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    /// A flow that the client of `origin` has opened; the guest knows it as `remote`. The flow is
    /// to be [`locate`](Self::locate)d, then the guest is to answer, both within `patience`.
    pub(crate) fn accepted(
        guest: GuestSide,
        our_mac: MacAddr,
        remote: SocketAddr,
        origin: Origin,
        patience: Duration,
        now: Instant,
    ) -> Self {
        Self {
            arrival: Some(Box::new(Arrival { origin, patience, other_guest: None })),
            wake_at: Some(now + patience),
            ..Self::new(State::Locating { remote }, guest, our_mac, now)
        }
    }

    const fn new(state: State, guest: GuestSide, our_mac: MacAddr, now: Instant) -> Self {
        Self {
            state,
            guest,
            our_mac,
            arrival: None,
            gate: None,
            claim: None,
            ack: HeldAck::new(),
            keep_alive: KeepAlive::new(),
            opened_at: now,
            active_at: now,
            wake_at: None,
            first_speaker: FirstSpeaker::Reported,
            unparked: 0,
        }
    }

    /// The guest of a flow that a remote has opened is at `mac`. It is sent a SYN; if it has been
    /// sent one that it has not answered, the SYN is repeated to its new place.
    pub(crate) fn locate(&mut self, engine: &mut Engine, mac: MacAddr) {
        if !self.is_unanswered() {
            return;
        }
        self.guest.mac = mac;
        if let State::Locating { remote } = self.state {
            let connection = engine.connect(self.guest.address, remote);
            self.state = State::awake(connection);
        }
    }

    /// Whether a remote waits for the guest's answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        match &self.state {
            State::Locating { .. } => true,
            State::Awake(awake) => awake.connection.is_opening(),
            State::Asking(_) | State::Connecting(_) | State::Parked(_) | State::Broken(_) => false,
        }
    }

    /// The stack gives the flow up.
    pub(crate) fn abort(&mut self, why: Ending) {
        match &mut self.state {
            State::Awake(awake) => awake.abort(why),
            State::Asking(_) | State::Locating { .. } | State::Connecting(_) | State::Parked(_) => {
                self.state = State::Broken(why);
            }
            State::Broken(_) => {}
        }
    }

    /// Gives the rings back, where there are any. To be called before the flow is dropped.
    pub(crate) fn retire(self, engine: &mut Engine) {
        if let State::Awake(awake) = self.state {
            engine.retire(awake.connection);
        }
    }

    /// The state that people see.
    pub(crate) fn state(&self) -> FlowState {
        match &self.state {
            State::Asking(_) => FlowState::Asking,
            State::Connecting(_) => FlowState::Connecting,
            State::Locating { .. } => FlowState::Locating,
            State::Awake(awake) if awake.connection.is_handshaking() => FlowState::Handshaking,
            State::Awake(awake)
                if awake.connection.is_open_both_ways() && awake.ends.is_host_open() =>
            {
                FlowState::Open
            }
            State::Parked(_) => FlowState::Parked,
            State::Awake(_) | State::Broken(_) => FlowState::Closing,
        }
    }

    /// The remote's client and the host's port, if the remote opened the connection.
    pub(crate) fn opener(&self) -> Option<(SocketAddr, u16)> {
        let Arrival { origin, .. } = self.arrival.as_deref()?;
        Some((origin.client, origin.local.port()))
    }

    /// Has the guest be asked at another address, should it refuse a connection of a remote.
    pub(crate) fn set_other_guest(&mut self, guest: SocketAddr) {
        if let Some(arrival) = &mut self.arrival {
            arrival.other_guest = Some(guest);
        }
    }

    /// Where else a connection is to be led that the guest has refused.
    pub(crate) fn elsewhere(&self) -> Option<(Origin, SocketAddr)> {
        let Arrival { origin, other_guest, .. } = self.arrival.as_deref()?;
        let is_refused = self.ending() == Some(Ending::GuestReset);
        other_guest.filter(|_| is_refused).map(|guest| (*origin, guest))
    }

    /// Whether the remote opened the connection.
    pub(crate) const fn is_inbound(&self) -> bool {
        self.arrival.is_some()
    }

    /// When either side was active last.
    pub(crate) const fn active_at(&self) -> Instant {
        self.active_at
    }

    pub(crate) const fn guest(&self) -> GuestSide {
        self.guest
    }

    pub(crate) const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Whether the host has not answered yet, or was not told to connect.
    pub(crate) const fn is_connecting(&self) -> bool {
        matches!(self.state, State::Asking(_) | State::Connecting(_))
    }

    /// The guest's SYN, if the host has not answered yet: it is to be refused, and the flow is
    /// over.
    pub(crate) fn take_syn(&mut self) -> Option<Syn> {
        if !self.is_connecting() {
            return None;
        }
        match mem::replace(&mut self.state, State::Broken(Ending::HostFailed)) {
            State::Asking(syn) => Some(*syn),
            State::Connecting(syn) => Some(syn),
            State::Locating { .. } | State::Awake(_) | State::Parked(_) | State::Broken(_) => None,
        }
    }

    /// Whether either side has not finished opening the connection.
    pub(crate) fn is_half_open(&self) -> bool {
        match &self.state {
            State::Asking(_) | State::Connecting(_) | State::Locating { .. } => true,
            State::Awake(awake) => awake.connection.is_handshaking(),
            State::Parked(_) | State::Broken(_) => false,
        }
    }

    pub(crate) const fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_))
    }

    /// Whether both sides have opened the connection, and neither it nor they have failed.
    pub(crate) fn is_established(&self) -> bool {
        let is_aborted = matches!(&self.state, State::Awake(awake) if awake.ends.is_aborted());
        !self.is_half_open() && !is_aborted && self.ending().is_none()
    }

    /// Whether an opening segment with this sequence number repeats the SYN that made this flow.
    pub(crate) fn is_same_opening(&self, seq: u32) -> bool {
        match &self.state {
            State::Asking(syn) => syn.segment.seq == seq,
            State::Connecting(syn) => syn.segment.seq == seq,
            State::Awake(awake) => awake.connection.is_handshaking_with(seq),
            State::Locating { .. } | State::Parked(_) | State::Broken(_) => false,
        }
    }

    /// The host is connected: the guest's SYN goes into the engine now. Returns whether the engine
    /// took it.
    pub(crate) fn on_connected(&mut self, engine: &mut Engine, now: Instant) -> bool {
        let State::Connecting(syn) = &self.state else {
            return false;
        };
        let Some(connection) = engine.accept(syn, now) else {
            return false;
        };
        self.state = State::awake(Some(connection));
        self.opened_at = now;
        self.active_at = now;
        true
    }

    /// A segment of the guest that does not open a connection; `packet` is its IP packet. Returns
    /// where the frame lies that answers it at once, if there is one.
    ///
    /// # Errors
    /// Why the segment was discarded.
    pub(crate) fn on_segment(
        &mut self,
        engine: &mut Engine,
        segment: Segment,
        packet: &mut [u8],
        guest: GuestSide,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        self.guest = guest;
        let idle_for = now.saturating_since(self.active_at);
        self.active_at = now;
        self.wake(engine, now);
        let link = self.link();
        if segment.is_syn()
            && let Some(arrival) = &mut self.arrival
        {
            // It has answered.
            arrival.other_guest = None;
        }
        let State::Awake(awake) = &mut self.state else {
            return Err(DiscardReason::TcpNoFlow);
        };
        awake.watch.on_heard(&segment);
        if KeepAlive::may_be_probe(idle_for) && awake.connection.is_probed_by(&segment) {
            self.keep_alive.on_probe(idle_for);
        }
        self.ack.on_segment(&segment);
        let outcome = engine.handle_segment(&mut awake.connection, segment, packet, link, now);
        match outcome {
            // The answer carried an acknowledgement; the next one is not held for this segment.
            Ok(Some(_)) => self.ack.on_sent(),
            Err(DiscardReason::RingMemoryExhausted) => awake.ends.abort(Ending::MemoryExhausted),
            Ok(None) | Err(_) => {}
        }
        outcome
    }

    /// What its payload takes as IP packets. Before both sides are there it has none to move.
    pub(crate) fn segments(&self) -> Segments {
        let mss = match &self.state {
            State::Awake(awake) => awake.connection.guest_mss(),
            State::Parked(parked) => parked.mss(),
            State::Asking(_) | State::Connecting(_) | State::Locating { .. } | State::Broken(_) => {
                1
            }
        };
        Segments::new(mss, self.guest.address.is_ipv4())
    }

    /// Moves bytes between the guest's rings and its host, as many as `allowance` says; `traffic`
    /// counts them. Returns whether it would have moved more.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(crate) fn pump(
        &mut self,
        host: &mut impl HostStream,
        engine: &mut Engine,
        traffic: &mut Traffic,
        allowance: Allowance,
        now: Instant,
    ) -> Result<Wants, DiscardReason> {
        self.wake(engine, now);
        let State::Awake(awake) = &mut self.state else {
            return Ok(Wants::default());
        };
        let limit = self.gate.as_deref().map_or(usize::MAX, Gate::limit);
        let mut turn = Turn {
            host,
            engine,
            traffic,
            first_speaker: &mut self.first_speaker,
            keep_alive: &mut self.keep_alive,
            is_late: now >= self.opened_at + ACK_HOLD,
            limit,
            allowance,
            wants: Wants::default(),
            now,
            moved: 0,
        };
        let outcome = awake.pump(&mut turn);
        if let Some(gate) = &mut self.gate {
            gate.note_left((limit - turn.limit) as u64);
        }
        if turn.moved > 0 {
            self.active_at = now;
        }
        outcome.map(|()| turn.wants)
    }

    /// Where the next frame to the guest lies.
    ///
    /// # Errors
    /// Why the connection is dead now.
    pub(crate) fn poll_segment(
        &mut self,
        engine: &mut Engine,
        now: Instant,
    ) -> Result<Option<Range<usize>>, DiscardReason> {
        let link = self.link();
        let State::Awake(awake) = &mut self.state else {
            return Ok(None);
        };
        let may_hold = self.ack.is_small(awake.connection.guest_mss()) && awake.is_answer_likely();
        if self.ack.holds(may_hold, now) {
            return Ok(None);
        }
        if awake.ends.is_lingering && awake.connection.is_time_wait() {
            return Ok(None);
        }
        if !awake.ends.is_aborted() && awake.watch.question.is_due(now) {
            return engine.ask(&awake.connection, link).map(Some);
        }
        let frame = engine.poll_segment(&mut awake.connection, link, now)?;
        awake.ends.is_lingering = frame.is_none() && awake.connection.is_time_wait();
        if frame.is_some() {
            self.ack.on_sent();
        }
        Ok(frame)
    }

    /// How the flow ended, if it did and has nothing more to say.
    pub(crate) fn ending(&self) -> Option<Ending> {
        match &self.state {
            State::Asking(_) | State::Connecting(_) | State::Locating { .. } | State::Parked(_) => {
                None
            }
            State::Awake(awake) => awake.ending(),
            State::Broken(why) => Some(*why),
        }
    }

    const fn link(&self) -> LinkAddresses {
        LinkAddresses { guest: self.guest.mac, ours: self.our_mac }
    }

    fn park(&mut self, engine: &mut Engine, parked: Parked) {
        if let State::Awake(awake) = mem::replace(&mut self.state, State::Parked(parked)) {
            engine.retire(awake.connection);
        }
        self.wake_at = None;
    }

    fn wake(&mut self, engine: &mut Engine, now: Instant) {
        let State::Parked(parked) = &self.state else {
            return;
        };
        self.state = State::awake(engine.unpark(parked, now));
        self.active_at = now;
        self.unparked += 1;
    }
}

impl State {
    /// An engine that gives no connection has a defect of ours.
    fn awake(connection: Option<crate::tcp::Connection>) -> Self {
        connection.map_or(Self::Broken(Ending::EngineFailed), |connection| {
            Self::Awake(Box::new(Awake::new(connection)))
        })
    }
}
