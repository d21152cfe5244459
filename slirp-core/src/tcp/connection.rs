//! One TCP connection with the guest, awake or parked.
//!
//! Owns the smoltcp socket, and the record of our promises to the guest (the edge of the window,
//! the end of the sent bytes), which the [`fence`] keeps. The engine drives it; the flow lends it
//! bytes.
//!
//! | state | who may write into the rings | ends by |
//! | --- | --- | --- |
//! | handshaking | none | the guest's ACK or SYN\|ACK, a reset, the flow's time limit |
//! | open, half-closed | guest by segments, flow by `lend_room` | both FINs, a reset, `abort` |
//! | parked | none; it has no rings | `unpark` by a segment or by host data |
//! | dead | none | the flow drops it |

mod fence;

use core::net::SocketAddr;

use smoltcp::iface::{Context, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::IpListenEndpoint;

use super::memory::Lease;
use super::rings::{RingedSocket, Rings};
use super::segment::{Segment, SynOptions};
use crate::time::Instant;

/// How often a SYN is sent anew because the guest answers it from an older connection. The first
/// reset ends the older connection; the other two are for lost resets.
const REOPENINGS: u8 = 3;

/// See the [module](self).
pub(crate) struct Connection {
    socket: RingedSocket,
    /// The memory that the rings hold; the [engine](super::Engine) counts it.
    pub(super) lease: Lease,
    guest: SocketAddr,
    remote: SocketAddr,
    isn: u32,
    options: SynOptions,
    guest_mss: u16,
    /// Bytes of the largest segment that the engine sends.
    segment_len: usize,
    /// Added to the engine's sequence numbers to get the guest's.
    offset: u32,
    /// The sequence number that the guest sees first.
    our_isn: u32,
    pub(super) reopenings_left: u8,
    /// The right edge of the guest's send window: its first sequence number that it may not send
    /// yet. Known once a segment was sent.
    edge: Option<u32>,
    /// Whether the engine's view of the window edge equals the advertised edge (defect B1);
    /// otherwise segments wholly beyond the edge are discarded.
    is_edge_exact: bool,
    /// The engine's sequence number after everything that was sent.
    sent_end: Option<u32>,
    /// The last acknowledgement that was sent: the next byte that we expect.
    guest_next: u32,
    /// The guest's sequence number after every byte that it sent.
    guest_end: u32,
    /// The guest's sequence number at the start of the ring.
    guest_start: u32,
    /// Bytes that were put into the ring to the guest.
    pub(super) given: usize,
    /// The window field that the guest sent last.
    guest_window: u16,
    /// The guest's window in bytes, counted from `acked_end`. After a SYN|ACK it may differ from
    /// `guest_window` scaled.
    guest_window_len: u32,
    /// The engine's sequence number after everything that the guest has acknowledged.
    acked_end: Option<u32>,
    /// The value of `acked_end` since `progress_at`.
    progress: Option<u32>,
    progress_at: Instant,
    pub(super) empty_segments: u8,
    /// The guest's sequence number after its FIN, once the FIN was taken.
    guest_fin_end: Option<u32>,
    is_killed: bool,
}

/// The full state of an established connection with nothing queued or in flight.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(super) guest: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) options: SynOptions,
    pub(super) guest_mss: u16,
    pub(super) guest_next: u32,
    pub(super) window: u16,
    our_next: u32,
    edge: u32,
}

impl Parked {
    /// The guest's MSS in bytes.
    pub(crate) const fn mss(&self) -> u16 {
        self.guest_mss
    }

    /// A SYN without an MSS option means the default MSS; waking must not raise it.
    pub(super) fn engine_mss_cap(&self) -> u16 {
        if self.options.mss.is_some() { u16::MAX } else { self.guest_mss }
    }

    /// A synthetic SYN that would lead to this connection.
    pub(super) const fn opening(&self) -> Segment {
        Segment::syn(self.guest, self.remote, self.guest_next.wrapping_sub(1), self.window)
    }
}

impl Connection {
    /// A connection that will [`listen`](Self::listen) for exactly `syn`.
    pub(super) fn answering(
        syn: &Segment,
        options: SynOptions,
        sizes: (u16, u16),
        lent: (Rings, Lease),
    ) -> Self {
        let guest_next = syn.seq.wrapping_add(1);
        Self {
            isn: syn.seq,
            options,
            guest_next,
            guest_end: guest_next,
            guest_start: guest_next,
            guest_window: syn.window,
            guest_window_len: syn.window.into(),
            ..Self::opening((syn.source, syn.destination), sizes, lent)
        }
    }

    /// A connection that will [`connect`](Self::connect) to the guest. The segment sizes (the
    /// guest's and the engine's) are a guess until the guest's SYN|ACK arrives.
    pub(super) fn opening(
        (guest, remote): (SocketAddr, SocketAddr),
        (guest_mss, engine_mss): (u16, u16),
        (rings, lease): (Rings, Lease),
    ) -> Self {
        let segment_len = usize::from(engine_mss).clamp(1, lease.send_len());
        Self {
            socket: RingedSocket::closed(rings, segment_len),
            lease,
            guest,
            remote,
            isn: 0,
            options: SynOptions::default(),
            guest_mss,
            segment_len,
            offset: 0,
            our_isn: 0,
            reopenings_left: REOPENINGS,
            edge: None,
            is_edge_exact: false,
            sent_end: None,
            guest_next: 0,
            guest_end: 0,
            guest_start: 0,
            given: 0,
            guest_window: 0,
            guest_window_len: 0,
            acked_end: None,
            progress: None,
            progress_at: Instant::ZERO,
            empty_segments: 0,
            guest_fin_end: None,
            is_killed: false,
        }
    }

    /// Waits for the guest's SYN.
    pub(super) fn listen(&mut self) -> Option<()> {
        let at = endpoint(self.remote);
        self.with_socket_mut(|socket| socket.listen(at)).ok()
    }

    /// Opens the connection; the SYN leaves with the first poll.
    pub(super) fn connect(&mut self, context: &mut Context) -> Option<()> {
        let (guest, from) = ((self.guest.ip(), self.guest.port()), endpoint(self.remote));
        self.with_socket_mut(|socket| socket.connect(context, guest, from)).ok()
    }

    /// The rings without the socket, for [`Engine::retire`](super::Engine::retire).
    pub(super) fn into_rings(self) -> (Rings, Lease) {
        (self.socket.into_rings(), self.lease)
    }

    /// Whether `segment` is the SYN|ACK that answers our SYN.
    pub(super) fn is_answered_by(&self, segment: &Segment) -> bool {
        self.is_opening()
            && segment.is_syn()
            && segment.is_ack()
            && self.sent_end == Some(segment.ack.wrapping_sub(self.offset))
    }

    /// Whether `segment` is from an older connection: it acknowledges something other than our SYN,
    /// or comes before our SYN was sent.
    pub(super) fn is_forgotten_by(&self, segment: &Segment) -> bool {
        self.is_opening()
            && segment.is_ack()
            && !segment.is_rst()
            && self.sent_end.is_none_or(|end| segment.ack.wrapping_sub(self.offset) != end)
    }

    /// The guest's end and the remote's.
    pub(super) const fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.guest, self.remote)
    }

    /// Whether nothing has been sent to the guest.
    pub(super) const fn is_unheard(&self) -> bool {
        self.sent_end.is_none()
    }

    /// Sets the first sequence number that the guest sees, whatever the engine begins with.
    pub(super) const fn begin_at(&mut self, isn: u32) {
        self.our_isn = isn;
    }

    /// The guest has answered our SYN: from here on its sequence numbers, segment sizes and shift
    /// are known. The guest knows our window from the SYN, whose window field is never scaled.
    pub(super) fn note_answer(
        &mut self,
        answer: &Segment,
        options: SynOptions,
        (guest_mss, engine_mss): (u16, u16),
    ) {
        self.isn = answer.seq;
        self.options = options;
        self.guest_mss = guest_mss;
        self.segment_len =
            usize::from(engine_mss).clamp(1, self.with_socket(|socket| socket.send_capacity()));
        self.guest_next = answer.seq.wrapping_add(1);
        self.guest_end = self.guest_next;
        self.guest_start = self.guest_next;
        let window =
            u32::try_from(self.lease.receive_len()).unwrap_or(u32::MAX).min(u16::MAX.into());
        self.edge = Some(self.guest_next.wrapping_add(window));
        self.is_edge_exact = false;
    }

    /// Calls `look` with the set that holds only the connection's socket.
    pub(super) fn with_set<R>(&self, look: impl FnOnce(&SocketSet<'_>) -> R) -> R {
        self.socket.with_dependent(|_, one| look(&one.set))
    }

    /// Calls `work` with the set that holds only the connection's socket.
    pub(super) fn with_set_mut<R>(&mut self, work: impl FnOnce(&mut SocketSet<'_>) -> R) -> R {
        self.socket.with_dependent_mut(|_, one| work(&mut one.set))
    }

    /// The guest's MSS in bytes.
    pub(crate) const fn guest_mss(&self) -> u16 {
        self.guest_mss
    }

    /// The state to park the connection with; `None` while it is half-closed, or bytes are queued,
    /// in flight or missing.
    pub(super) fn parked(&self) -> Option<Parked> {
        let is_quiet = self.state() == State::Established
            && self.queued_to_guest() == 0
            && self.queued_to_host() == 0
            && self.guest_end == self.guest_next;
        if !is_quiet {
            return None;
        }
        Some(Parked {
            guest: self.guest,
            remote: self.remote,
            options: self.options,
            guest_mss: self.guest_mss,
            guest_next: self.guest_next,
            window: self.guest_window,
            our_next: self.sent_end?.wrapping_add(self.offset),
            edge: self.edge?,
        })
    }

    /// Continues from `parked`; `engine_next` is the engine's next sequence number.
    pub(super) fn resume(&mut self, parked: &Parked, engine_next: u32) -> bool {
        self.offset = parked.our_next.wrapping_sub(engine_next);
        self.sent_end = Some(engine_next);
        self.acked_end = Some(engine_next);
        self.guest_next = parked.guest_next;
        self.guest_end = parked.guest_next;
        self.guest_start = parked.guest_next;
        self.guest_window = parked.window;
        self.guest_window_len = u32::from(parked.window) << self.guest_shift();
        self.edge = Some(parked.edge);
        // The engine takes the window of its synthetic SYN|ACK as advertised, but the guest knows
        // another one.
        self.is_edge_exact = false;
        self.empty_segments = 0;
        self.state() == State::Established
    }

    /// Whether the ring to the guest has its larger size.
    pub(crate) const fn is_grown(&self) -> bool {
        self.lease.is_grown()
    }

    /// Lends bytes of the guest: `take` sees the next contiguous bytes and returns how many it
    /// took.
    pub(crate) fn lend_data(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        self.with_socket_mut(|socket| {
            if socket.recv_queue() == 0 {
                return 0;
            }
            socket
                .recv(|data| {
                    let taken = take(data).min(data.len());
                    (taken, taken)
                })
                .unwrap_or(0)
        })
    }

    /// Lets `look` see up to `cap` bytes of the guest in one piece, and leaves them where they are.
    pub(crate) fn peek<R>(&mut self, cap: usize, look: impl FnOnce(&[u8]) -> R) -> R {
        self.with_socket_mut(|socket| {
            let len = socket.recv_queue().min(cap);
            let first = socket.peek(len).unwrap_or_default();
            if first.len() == len {
                return look(first);
            }
            // They lie around the end of the ring.
            let mut whole = vec![0; len];
            let len = socket.peek_slice(&mut whole).unwrap_or_default();
            look(&whole[..len])
        })
    }

    /// Gives bytes to the guest; see [`Engine::lend_room`](super::Engine::lend_room), which counts
    /// the memory.
    pub(super) fn lend_room(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let filled = self.with_socket_mut(|socket| {
            socket
                .send(|room| {
                    let filled = fill(room).min(room.len());
                    (filled, filled)
                })
                .unwrap_or(0)
        });
        self.given = self.given.saturating_add(filled);
        filled
    }

    /// Bytes of memory that the rings hold.
    pub(crate) const fn held(&self) -> usize {
        self.lease.held()
    }

    /// Bytes from the guest that wait for the host.
    pub(crate) fn queued_to_host(&self) -> usize {
        self.with_socket(|socket| socket.recv_queue())
    }

    /// Whether the guest can send no more before some of its bytes are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.with_socket(|socket| socket.recv_queue() == socket.recv_capacity())
    }

    /// Bytes for the guest that are unsent or unacknowledged.
    pub(crate) fn queued_to_guest(&self) -> usize {
        self.with_socket(|socket| socket.send_queue())
    }

    /// Whether bytes to the guest can be lent: the direction is open, and there is room for a whole
    /// segment. With less room it is better to wait for the acknowledgement that is on its way.
    pub(crate) fn has_room(&self) -> bool {
        self.with_socket(|socket| {
            let queued = socket.send_queue();
            let is_enough = queued == 0 || socket.send_capacity() - queued >= self.segment_len;
            socket.may_send() && is_enough
        })
    }

    /// Ends our direction after the queued bytes.
    pub(crate) fn close(&mut self) {
        self.with_socket_mut(|socket| socket.close());
    }

    /// Resets the connection; the reset leaves with the next segment.
    pub(crate) fn abort(&mut self) {
        self.with_socket_mut(|socket| socket.abort());
    }

    /// Ends the connection without a segment to the guest: the engine has failed it.
    pub(super) const fn kill(&mut self) {
        self.is_killed = true;
    }

    /// Whether the engine has failed the connection.
    pub(crate) const fn is_killed(&self) -> bool {
        self.is_killed
    }

    /// Whether the guest has not finished the handshake.
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(self.state(), State::SynReceived | State::SynSent)
    }

    /// Whether our SYN waits for the guest's answer.
    pub(crate) fn is_opening(&self) -> bool {
        self.state() == State::SynSent
    }

    /// Whether the handshake is not finished and was opened by a SYN with this sequence number.
    pub(crate) fn is_handshaking_with(&self, seq: u32) -> bool {
        self.state() == State::SynReceived && self.isn == seq
    }

    /// Whether bytes flow in both directions.
    pub(crate) fn is_open_both_ways(&self) -> bool {
        self.state() == State::Established
    }

    /// Whether the guest has ended its direction, and we have not ended ours (the state
    /// CLOSE-WAIT).
    pub(crate) fn is_ended_by_guest(&self) -> bool {
        self.state() == State::CloseWait
    }

    /// Whether the guest has ended its direction: its FIN was taken, now or earlier. Bytes that
    /// came before it may still be queued.
    pub(crate) const fn is_guest_finished(&self) -> bool {
        self.guest_fin_end.is_some()
    }

    /// Records the guest's FIN, which later states no longer show; `segment` was taken last.
    pub(super) fn note_state(&mut self, segment: &Segment) {
        let is_finished = matches!(
            self.state(),
            State::CloseWait | State::Closing | State::LastAck | State::TimeWait
        );
        if is_finished && self.guest_fin_end.is_none() {
            self.guest_fin_end = Some(segment.end());
        }
    }

    /// Whether both directions have ended in order.
    pub(crate) fn is_time_wait(&self) -> bool {
        self.state() == State::TimeWait
    }

    /// Whether the connection is over: reset, closed, or a handshake that a reset has put back to
    /// listening.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_killed || matches!(self.state(), State::Closed | State::Listen)
    }

    fn state(&self) -> State {
        self.with_socket(|socket| socket.state())
    }

    fn with_socket<R>(&self, look: impl FnOnce(&Socket<'_>) -> R) -> R {
        self.socket.with_dependent(|_, one| look(one.get()))
    }

    fn with_socket_mut<R>(&mut self, work: impl FnOnce(&mut Socket<'_>) -> R) -> R {
        self.socket.with_dependent_mut(|_, one| work(one.get_mut()))
    }
}

fn endpoint(address: SocketAddr) -> IpListenEndpoint {
    IpListenEndpoint { addr: Some(address.ip().into()), port: address.port() }
}
