//! The fence of one connection: it checks segments into the engine and translates segments out of
//! it.
//!
//! Owns the guards against the engine's defects (see [`tcp`](crate::tcp)), the record of what guest
//! and engine have announced to each other, and the translation between the engine's sequence
//! numbers and the guest's.

use core::time::Duration;

use super::Connection;
use crate::discard::DiscardReason;
use crate::tcp::segment::{Segment, emit_ack, is_before};
use crate::time::Instant;

/// How long bytes may be in flight before the fence makes the engine send them again. The engine's
/// own timer is due after 200 ms; this covers defects that lose that timer.
const STALL: Duration = Duration::from_secs(1);

impl Connection {
    /// Whether the segment is a duplicate acknowledgement that only our FIN is missing; if so, it
    /// is not shown to the engine. Three of them would stop the engine's retransmission timer for
    /// good (defect B11), and the timer does not need them.
    pub(in crate::tcp) fn is_fin_missed(&self, segment: &Segment) -> bool {
        segment.is_ack()
            && segment.is_empty()
            && segment.seq == self.guest_next
            && !self.is_handshaking()
            && self.queued_to_guest() == 0
            && self
                .sent_end
                .is_some_and(|end| segment.ack.wrapping_sub(self.offset).wrapping_add(1) == end)
    }

    /// Whether the segment is a keep-alive probe: it repeats the byte before the next one, or only
    /// its number (RFC 1122 section 4.2.3.6).
    pub(crate) fn is_probed_by(&self, segment: &Segment) -> bool {
        segment.is_ack()
            && !segment.is_rst()
            && segment.sequence_len() == segment.payload_len
            && segment.payload_len <= 1
            && segment.seq == self.guest_next.wrapping_sub(1)
            && !self.is_handshaking()
    }

    /// Passes only what the engine handles correctly; see the guards B1, B2, B6, B7, B10 and B13.
    /// Returns the packet, which may have become shorter.
    ///
    /// # Errors
    /// [`DiscardReason::TcpAckUnsent`] and [`DiscardReason::TcpBeyondWindow`].
    pub(in crate::tcp) fn guard<'p>(
        &self,
        segment: &mut Segment,
        packet: &'p mut [u8],
    ) -> Result<&'p [u8], DiscardReason> {
        if segment.is_ack() {
            let ack = segment.ack.wrapping_sub(self.offset);
            if self.sent_end.is_none_or(|end| is_before(end, ack)) && !segment.is_rst() {
                return Err(DiscardReason::TcpAckUnsent);
            }
            segment.set_ack(packet, ack);
        }
        let payload_end = segment.seq.wrapping_add(segment.payload_len);
        if segment.is_fin() && segment.payload_len > 0 && payload_end == self.guest_next {
            // The engine took the payload out of order, and forgot the FIN.
            let len = segment.behead(packet);
            return Ok(&packet[..len]);
        }
        if let Some(fin_end) = self.guest_fin_end
            && is_before(fin_end, segment.end())
            && segment.payload_len > 0
        {
            return Err(DiscardReason::TcpBeyondWindow);
        }
        let Some(edge) = self.edge else {
            return Ok(packet);
        };
        if !is_before(edge, segment.end()) {
            return Ok(packet);
        }
        if is_before(segment.seq, edge) {
            let keep = edge.wrapping_sub(segment.seq).min(segment.payload_len);
            let len = segment.truncate(packet, keep);
            return Ok(&packet[..len]);
        }
        if self.is_edge_exact {
            // Wholly beyond the edge; a window probe asks for an ACK. The engine may still assume a
            // larger window (its own probe advertises one that it does not record), but it always
            // answers old data.
            if segment.payload_len > 0 {
                segment.set_seq(packet, self.guest_next.wrapping_sub(segment.payload_len));
            }
            return Ok(packet);
        }
        Err(DiscardReason::TcpBeyondWindow)
    }

    /// Records a segment that goes into the engine. The engine does not tell whether it takes the
    /// segment, so only facts that hold either way are recorded. A reset tells nothing, nor does
    /// the window of an acknowledgement older than the last one (RFC 9293 section 3.10.7.4,
    /// SND.WL2).
    pub(in crate::tcp) fn note_received(&mut self, segment: &Segment) {
        self.empty_segments = 0;
        if segment.is_rst() {
            return;
        }
        let end = segment.seq.wrapping_add(segment.payload_len);
        // Bytes beyond the edge were cut off; a segment without bytes may have any sequence number.
        if segment.payload_len > 0 && is_before(self.guest_end, end) {
            self.guest_end = end;
        }
        if segment.is_ack() && self.acked_end.is_none_or(|end| !is_before(segment.ack, end)) {
            self.acked_end = Some(segment.ack);
            let shift = self.guest_shift();
            let window = u32::from(segment.window);
            // The window of a SYN|ACK is not scaled (RFC 7323 section 2.2); all later ones are.
            (self.guest_window, self.guest_window_len) = if segment.is_syn() {
                (segment.window >> shift, window)
            } else {
                (segment.window, window << shift)
            };
        }
    }

    /// Bytes that the guest has sent, at least as many as were written to the ring. After one whole
    /// round the entire ring is counted, so a difference that wraps around adds nothing.
    pub(in crate::tcp) fn received(&self) -> usize {
        usize::try_from(self.guest_end.wrapping_sub(self.guest_start)).unwrap_or(usize::MAX)
    }

    /// An acknowledgement for the guest that repeats the number before the next one, and so must be
    /// answered: a keep-alive probe (RFC 1122 section 4.2.3.6).
    pub(in crate::tcp) fn question(&self) -> Option<Vec<u8>> {
        let seq = self.sent_end?.wrapping_add(self.offset).wrapping_sub(1);
        let window = self.edge?.wrapping_sub(self.guest_next) >> self.window_shift();
        let window = u16::try_from(window).unwrap_or(u16::MAX);
        Some(emit_ack(self.remote, self.guest, seq, self.guest_next, window))
    }

    /// The guest's last acknowledgement again, as an IP packet for the engine.
    pub(in crate::tcp) fn repeated_ack(&self) -> Option<Vec<u8>> {
        self.ack_with_window(self.guest_window)
    }

    /// The acknowledgements that make the engine send the first unacknowledged bytes again: one
    /// with another window, so that the engine starts to count anew, and three duplicates of it.
    pub(in crate::tcp) fn duplicate_acks(&self) -> Vec<Vec<u8>> {
        let other =
            if self.guest_window == u16::MAX { u16::MAX - 1 } else { self.guest_window + 1 };
        let windows =
            [other, self.guest_window, self.guest_window, self.guest_window, self.guest_window];
        windows.into_iter().filter_map(|window| self.ack_with_window(window)).collect()
    }

    fn ack_with_window(&self, window: u16) -> Option<Vec<u8>> {
        Some(emit_ack(self.guest, self.remote, self.guest_next, self.acked_end?, window))
    }

    /// Whether bytes are in flight that the guest has not acknowledged for [`STALL`] although its
    /// window is open. True at most once per [`STALL`]; the fence then revives the connection.
    pub(in crate::tcp) fn is_stalled(&mut self, now: Instant) -> bool {
        let is_in_flight = match (self.acked_end, self.sent_end) {
            (Some(acked), Some(sent)) => is_before(acked, sent),
            (None, _) | (_, None) => false,
        };
        if !is_in_flight || self.guest_window == 0 || self.progress != self.acked_end {
            self.progress = self.acked_end;
            self.progress_at = now;
            return false;
        }
        let is_stalled = now >= self.progress_at + STALL;
        if is_stalled {
            self.progress_at = now;
        }
        is_stalled
    }

    /// When [`is_stalled`](Self::is_stalled) is to be asked again, while bytes wait for the guest.
    /// `None` for a dead connection, whose bytes for the host may outlive it.
    pub(crate) fn stalled_at(&self) -> Option<Instant> {
        (self.queued_to_guest() > 0 && !self.is_dead()).then(|| self.progress_at + STALL)
    }

    /// Cuts a segment that leaves the engine at the edge of the guest's window (defect B16). A
    /// segment wholly beyond it is cut to one byte, which may probe a closed window (RFC 9293
    /// section 3.8.6.1). Returns the length of the packet.
    pub(in crate::tcp) fn keep_within_window(
        &self,
        segment: &mut Segment,
        packet: &mut [u8],
    ) -> usize {
        let Some(acked_end) = self.acked_end.filter(|_| segment.payload_len > 1) else {
            return packet.len();
        };
        let edge = acked_end.wrapping_add(self.guest_window_len);
        if !is_before(edge, segment.seq.wrapping_add(segment.payload_len)) {
            return packet.len();
        }
        let keep = if is_before(segment.seq, edge) { edge.wrapping_sub(segment.seq) } else { 1 };
        segment.truncate(packet, keep)
    }

    /// Records a segment that leaves the engine and translates it for the guest.
    pub(in crate::tcp) fn note_emitted(&mut self, segment: &mut Segment, packet: &mut [u8]) {
        if self.is_unheard() {
            self.offset = self.our_isn.wrapping_sub(segment.seq);
        }
        if segment.is_empty() {
            self.empty_segments = self.empty_segments.saturating_add(1);
        } else {
            self.empty_segments = 0;
        }
        if self.sent_end.is_none_or(|end| is_before(end, segment.end())) {
            self.sent_end = Some(segment.end());
        }
        if segment.is_ack() && !segment.is_rst() {
            let shift = if segment.is_syn() { 0 } else { self.window_shift() };
            self.guest_next = segment.ack;
            self.edge = Some(segment.ack.wrapping_add(u32::from(segment.window) << shift));
            self.is_edge_exact |= !segment.is_syn();
        }
        segment.set_seq(packet, segment.seq.wrapping_add(self.offset));
    }

    /// The shift of the guest's windows, at most 14.
    pub(super) fn guest_shift(&self) -> u32 {
        self.options.window_scale.unwrap_or(0).into()
    }

    /// The shift of our windows: zero unless the guest offered one (RFC 7323 section 2.2), else the
    /// value that smoltcp derives from the ring: the bits of its length beyond the sixteen of the
    /// window field.
    fn window_shift(&self) -> u32 {
        if self.options.window_scale.is_none() {
            return 0;
        }
        (usize::BITS - self.lease.receive_len().leading_zeros()).saturating_sub(16)
    }
}
