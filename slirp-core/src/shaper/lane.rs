//! One direction of one guest: its bucket, its line, and the datagrams that wait.
//!
//! A connection keeps its bytes to itself, in its ring or in the host's kernel, and is
//! [woken](Next::Wake) when it is its turn. Datagrams have no such place: they are held here.

use core::mem;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::bucket::{Bucket, PACKET};
use super::line::Line;
use super::segments::Segments;
use crate::event::FlowId;
use crate::rates::Rate;
use crate::time::Instant;

/// What one flow may take in a round: what passes in so many microseconds. Each turn costs a call
/// of the host's socket. With this, rates up to 500 Mbit/s have no more than 1,000 turns a second;
/// a fifth of it made turns so long on a busy machine that a burst was over before they were.
const QUANTUM_MICROS: u64 = 1000;
/// The most that one flow may take in a round: one frame of the largest size.
const QUANTUM_CAP: u64 = 64 * 1024;
/// The least that a fresh connection waits for, in bytes: at low rates a keystroke need not wait
/// until a whole packet could leave (arbitrary).
const SPARSE: u64 = 256;
/// Datagrams are held for so long.
const HELD_FOR: Duration = Duration::from_millis(50);
/// Or for as long as so many packets take, where that is longer: at low rates a datagram would
/// never have a turn otherwise.
const HELD_PACKETS: u64 = 2;
/// Datagrams of one lane, in bytes of IP packets.
const HELD_CAP: u64 = 128 * 1024;
/// What a datagram counts for at least, for the memory that it takes besides its bytes.
const HELD_FLOOR: u64 = 256;
/// A limit that has not made anything wait for so long begins anew when it does.
const CALM: Duration = Duration::from_secs(1);

/// What is to be done next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Next<T> {
    /// The limit has begun to make traffic wait.
    Bound,
    /// It is the turn of this connection.
    Wake(FlowId),
    /// It is the turn of this datagram.
    Send(T),
}

/// What a lane has counted since it was asked last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    /// Datagrams that were dropped.
    pub(crate) dropped: u64,
    /// Microseconds in which traffic waited for tokens.
    pub(crate) limited_micros: u64,
}

#[derive(Debug)]
struct Held<T> {
    /// Bytes of its IP packet.
    len: u64,
    expires_at: Instant,
    item: T,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lane<T> {
    bucket: Bucket,
    line: Line,
    queues: BTreeMap<FlowId, VecDeque<Held<T>>>,
    held_len: u64,
    held_for: Duration,
    /// The connection that was woken and has not had its turn yet.
    called: Option<FlowId>,
    /// When there are tokens for the first in the line, where there are not yet.
    due_at: Option<Instant>,
    limited_since: Option<Instant>,
    /// When traffic waited last.
    limited_at: Option<Instant>,
    tally: Tally,
}

impl<T> Lane<T> {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(rate, now),
            line: Line::new(quantum_of(rate)),
            queues: BTreeMap::new(),
            held_len: 0,
            held_for: held_for(rate),
            called: None,
            due_at: None,
            limited_since: None,
            limited_at: None,
            tally: Tally::default(),
        }
    }

    pub(super) fn set_rate(&mut self, rate: Rate, now: Instant) {
        self.bucket.set(rate, now);
        self.line.set_quantum(quantum_of(rate));
        self.held_for = held_for(rate);
    }

    /// How many bytes of payload a connection may move now.
    pub(crate) fn allowance(&mut self, flow: FlowId, segments: Segments, now: Instant) -> usize {
        self.bucket.refill(now);
        if !self.line.is_turn_of(flow) {
            return 0;
        }
        let bytes = self.line.credit(flow).min(self.bucket.available());
        if bytes < self.needed(flow) { 0 } else { segments.payload_in(bytes) }
    }

    /// A connection has moved `payload` bytes, and `wants` to move more if it were not limited.
    pub(crate) fn note_moved(
        &mut self,
        flow: FlowId,
        segments: Segments,
        payload: usize,
        wants: bool,
    ) {
        self.called.take_if(|called| *called == flow);
        let bytes = segments.len_of(payload);
        self.bucket.spend(bytes);
        self.line.note(flow, bytes, wants);
    }

    /// A connection that was woken does not move anything, now or later.
    pub(crate) fn note_unused(&mut self, flow: FlowId) {
        if self.called.take_if(|called| *called == flow).is_some() {
            self.line.note(flow, 0, false);
        }
    }

    /// Whether datagrams that take `len` bytes may pass at once: all of them, or one that `is_one`.
    /// If they may, they are paid for.
    pub(crate) fn admits(&mut self, flow: FlowId, len: u64, is_one: bool, now: Instant) -> bool {
        self.bucket.refill(now);
        let is_turn = !self.queues.contains_key(&flow) && self.line.is_turn_of(flow);
        let is_fair = !self.line.has_others(flow) || len <= self.line.credit(flow);
        // Several that are larger than the burst together need not pass together.
        let is_paid = self.bucket.available() >= len || (is_one && self.bucket.has(len));
        let may_pass = is_turn && is_fair && is_paid;
        if may_pass {
            self.bucket.spend(len);
            self.line.note(flow, len, false);
        }
        may_pass
    }

    /// Holds a datagram that takes `len` bytes. If there is no room, the oldest datagram of the
    /// flow with most of them is dropped.
    pub(crate) fn hold(&mut self, flow: FlowId, len: u64, item: T, now: Instant) {
        let counted = len.max(HELD_FLOOR);
        if self.held_len + counted > HELD_CAP {
            self.drop_expired(now);
        }
        while self.held_len + counted > HELD_CAP {
            let Some(&longest) = self.longest() else {
                self.tally.dropped += 1;
                return;
            };
            self.drop_first(longest);
        }
        self.held_len += counted;
        let expires_at = now + self.held_for;
        self.queues.entry(flow).or_default().push_back(Held { len, expires_at, item });
        self.line.note(flow, 0, true);
    }

    /// What is to be done next; `None` if that has to wait for [`poll_timeout`](Self::poll_timeout)
    /// or for the connection that was woken last.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Next<T>> {
        self.bucket.refill(now);
        self.due_at = None;
        if self.called.is_some() {
            return None;
        }
        while let Some(flow) = self.line.head() {
            let Some(queue) = self.queues.get_mut(&flow) else {
                if self.line.credit(flow) < PACKET {
                    self.line.rotate(flow);
                    continue;
                }
                let needed = self.needed(flow);
                if !self.bucket.has(needed) {
                    return self.wait_for(needed, now);
                }
                self.called = Some(flow);
                self.end_wait(now);
                return Some(Next::Wake(flow));
            };
            while queue.front().is_some_and(|held| held.expires_at <= now) {
                pop(queue, &mut self.held_len);
                self.tally.dropped += 1;
            }
            let Some(len) = queue.front().map(|held| held.len) else {
                self.queues.remove(&flow);
                self.line.note(flow, 0, false);
                continue;
            };
            if len > self.line.credit(flow) {
                self.line.rotate(flow);
            } else if !self.bucket.has(len) {
                return self.wait_for(len, now);
            } else if let Some(held) = pop(queue, &mut self.held_len) {
                let wants = !queue.is_empty();
                if !wants {
                    self.queues.remove(&flow);
                }
                self.bucket.spend(len);
                self.line.note(flow, len, wants);
                self.end_wait(now);
                return Some(Next::Send(held.item));
            }
        }
        self.end_wait(now);
        None
    }

    /// When [`poll`](Self::poll) is due.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due_at
    }

    /// A flow has ended. What it has here is dropped.
    pub(crate) fn forget(&mut self, flow: FlowId) {
        self.called.take_if(|called| *called == flow);
        self.line.remove(flow);
        while self.drop_first(flow) {}
    }

    /// The limit ends: every connection that waits, and every datagram.
    pub(super) fn into_waiting(mut self) -> (Vec<FlowId>, Vec<T>) {
        let queues = mem::take(&mut self.queues);
        let flows = self.line.waiting().filter(|flow| !queues.contains_key(flow)).collect();
        let held = queues.into_values().flatten().map(|held| held.item);
        (flows, held.collect())
    }

    /// What was counted since the last call.
    pub(crate) const fn take_tally(&mut self) -> Tally {
        mem::replace(&mut self.tally, Tally { dropped: 0, limited_micros: 0 })
    }

    /// Bytes that a connection takes at least.
    fn needed(&self, flow: FlowId) -> u64 {
        if self.line.is_fresh(flow) { SPARSE } else { PACKET }
    }

    /// Traffic waits for `bytes`. Tells when that begins.
    fn wait_for(&mut self, bytes: u64, now: Instant) -> Option<Next<T>> {
        self.count_wait(now);
        let is_news = self.limited_at.is_none_or(|at| now >= at + CALM);
        self.limited_since = Some(now);
        self.limited_at = Some(now);
        if is_news {
            return Some(Next::Bound);
        }
        self.due_at = Some(self.bucket.ready_at(bytes));
        None
    }

    fn end_wait(&mut self, now: Instant) {
        if self.limited_since.is_some() {
            self.count_wait(now);
            self.limited_since = None;
            self.limited_at = Some(now);
        }
    }

    fn count_wait(&mut self, now: Instant) {
        if let Some(since) = self.limited_since {
            let waited = now.saturating_since(since).as_micros();
            self.tally.limited_micros += u64::try_from(waited).unwrap_or(u64::MAX);
        }
    }

    fn longest(&self) -> Option<&FlowId> {
        let len = |queue: &VecDeque<Held<T>>| queue.iter().map(|held| held.len).sum::<u64>();
        self.queues.iter().max_by_key(|(_, queue)| len(queue)).map(|(flow, _)| flow)
    }

    fn drop_expired(&mut self, now: Instant) {
        let is_expired =
            |queue: &VecDeque<Held<T>>| queue.front().is_some_and(|held| held.expires_at <= now);
        let flows: Vec<_> = self.queues.keys().copied().collect();
        for flow in flows {
            while self.queues.get(&flow).is_some_and(is_expired) {
                self.drop_first(flow);
            }
        }
    }

    /// Drops the oldest datagram of `flow`; returns whether there was one.
    fn drop_first(&mut self, flow: FlowId) -> bool {
        let Some(queue) = self.queues.get_mut(&flow) else { return false };
        let is_dropped = pop(queue, &mut self.held_len).is_some();
        self.tally.dropped += u64::from(is_dropped);
        if queue.is_empty() {
            self.queues.remove(&flow);
            self.line.note(flow, 0, false);
        }
        is_dropped
    }
}

fn pop<T>(queue: &mut VecDeque<Held<T>>, held_len: &mut u64) -> Option<Held<T>> {
    let held = queue.pop_front()?;
    *held_len -= held.len.max(HELD_FLOOR);
    Some(held)
}

fn quantum_of(rate: Rate) -> u64 {
    (rate.bits_per_second / 8_000_000).saturating_mul(QUANTUM_MICROS).clamp(PACKET, QUANTUM_CAP)
}

fn held_for(rate: Rate) -> Duration {
    let micros = HELD_PACKETS * PACKET * 8_000_000 / rate.bits_per_second.max(1);
    HELD_FOR.max(Duration::from_micros(micros))
}
