//! Who has this address? What waits until a guest has told where it is.
//!
//! Owns the guest addresses that are being asked for, the connections and datagrams of remotes
//! that wait for an answer (RFC 826; RFC 4861 section 7.2), and when to ask again. What was heard
//! is in the [`NeighborTable`](crate::service::neighbor::NeighborTable).
//!
//! A guest is at the MAC address that it told last, by ARP, neighbour discovery or a datagram of
//! its own. A guest that only listens tells nothing, so it is asked again now and then
//! ([`DOUBT_INTERVAL`](crate::service::neighbor::DOUBT_INTERVAL)).
//!
//! # Limits
//! Datagrams wait for at most [`ASK_INTERVAL`] and no more than [`HELD_CAP`] of them. Guests are
//! asked for as long as something waits, [`INQUIRIES_CAP`] addresses at a time. On a shared network
//! a silent member has a part of both ([`Shares`]). A connection is told of its guest's place once
//! per question, so that a guest that tells it a thousand times a second costs no more.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::discard::DiscardReason;
use crate::event::FlowId;
use crate::share::{Holder, Shares};
use crate::stack::outbox::UdpToGuest;
use crate::time::Instant;

/// How often a guest is asked for its MAC address (RFC 4861 section 10: `RETRANS_TIMER`).
pub(in crate::stack) const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// Guest addresses that are asked for at one time: both addresses of all members of a network
/// ([`MEMBERS_CAP`](crate::member::MEMBERS_CAP)), and as many others (about 150 bytes each).
const INQUIRIES_CAP: usize = 1_024;
/// Datagrams that wait for a MAC address (64 KiB each at most, typically 1 KiB).
pub(in crate::stack) const HELD_CAP: usize = 64;

/// What waits for one guest address.
#[derive(Debug)]
struct Inquiry {
    holder: Holder,
    /// Connections that are told as soon as the guest is found.
    waiting: Vec<FlowId>,
    /// Connections that were told since the guest was asked last: it might move once more.
    told: Vec<FlowId>,
    /// Number of datagrams that wait.
    held: usize,
}

/// A datagram that waits.
#[derive(Debug)]
pub(in crate::stack) struct HeldDatagram {
    pub(in crate::stack) flow: FlowId,
    pub(in crate::stack) payload: Vec<u8>,
    pub(in crate::stack) segment_len: Option<u16>,
    pub(in crate::stack) traffic_class: u8,
    guest: IpAddr,
    holder: Holder,
    expires_at: Instant,
}

/// What has waited for a guest that was found.
#[derive(Debug, Default)]
pub(in crate::stack) struct Found {
    /// Connections of remotes.
    pub(in crate::stack) flows: Vec<FlowId>,
    /// Datagrams of remotes, the oldest first.
    pub(in crate::stack) datagrams: Vec<HeldDatagram>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Inquiries {
    inquiries: BTreeMap<IpAddr, Inquiry>,
    inquiry_shares: Shares,
    /// Datagrams in the order in which they expire.
    held: VecDeque<HeldDatagram>,
    held_shares: Shares,
    ask_at: Option<Instant>,
}

impl Inquiries {
    pub(super) fn new(is_shared: bool) -> Self {
        Self {
            inquiries: BTreeMap::new(),
            inquiry_shares: Shares::new(INQUIRIES_CAP, is_shared),
            held: VecDeque::new(),
            held_shares: Shares::new(HELD_CAP, is_shared),
            ask_at: None,
        }
    }

    /// Whether `guest` is being asked for.
    pub(super) fn is_asked(&self, guest: IpAddr) -> bool {
        self.inquiries.contains_key(&guest)
    }

    /// When [`review`](Self::review) is due.
    pub(super) const fn ask_at(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Whether something for `guest`, which counts for `holder`, may wait.
    ///
    /// # Errors
    /// [`DiscardReason::GuestQueueFull`].
    pub(super) fn check(&self, guest: IpAddr, holder: Holder) -> Result<(), DiscardReason> {
        if !self.is_asked(guest) && self.inquiry_shares.crowded_by(holder, 1).is_some() {
            return Err(DiscardReason::GuestQueueFull);
        }
        Ok(())
    }

    /// Adds a connection that waits for `guest`, or that was told its place already if `is_told`.
    pub(super) fn add_flow(
        &mut self,
        guest: IpAddr,
        holder: Holder,
        flow: FlowId,
        is_told: bool,
        now: Instant,
    ) {
        let inquiry = self.inquiry(guest, holder, now);
        if is_told { &mut inquiry.told } else { &mut inquiry.waiting }.push(flow);
    }

    /// Adds a datagram that waits for `guest`. At the cap the oldest makes room, of the member that
    /// has most; returns the reason for which that one is discarded.
    ///
    /// # Errors
    /// [`DiscardReason::GuestQueueFull`]: the new one cannot wait.
    pub(super) fn hold(
        &mut self,
        flow: FlowId,
        guest: IpAddr,
        holder: Holder,
        udp: UdpToGuest<'_>,
        now: Instant,
    ) -> Result<Option<DiscardReason>, DiscardReason> {
        self.check(guest, holder)?;
        let inquiry = self.inquiry(guest, holder, now);
        inquiry.held += 1;
        let holder = inquiry.holder;
        let crowder = self.held_shares.crowded_by(holder, 1);
        let oldest =
            crowder.and_then(|crowder| self.held.iter().position(|held| held.holder == crowder));
        let evicted = oldest.and_then(|oldest| self.take_held(oldest));
        self.held_shares.add(holder, 1);
        let UdpToGuest { payload, segment_len, traffic_class, .. } = udp;
        let (payload, expires_at) = (payload.to_vec(), now + ASK_INTERVAL);
        let held =
            HeldDatagram { flow, payload, segment_len, traffic_class, guest, holder, expires_at };
        self.held.push_back(held);
        Ok(evicted.map(|_| DiscardReason::GuestQueueFull))
    }

    /// `guest` has told its place. Returns what has waited for that.
    pub(super) fn found(&mut self, guest: IpAddr) -> Found {
        let Some(inquiry) = self.inquiries.get_mut(&guest) else {
            return Found::default();
        };
        let flows = core::mem::take(&mut inquiry.waiting);
        inquiry.told.extend_from_slice(&flows);
        let mut left = inquiry.held;
        let mut datagrams = Vec::with_capacity(left);
        let mut index = 0;
        while left > 0 && index < self.held.len() {
            if self.held[index].guest != guest {
                index += 1;
            } else if let Some(held) = self.take_held(index) {
                left -= 1;
                datagrams.push(held);
            }
        }
        Found { flows, datagrams }
    }

    /// Gives up datagrams that have waited too long. Returns their number.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while self.held.front().is_some_and(|held| held.expires_at <= now) {
            self.take_held(0);
            expired += 1;
        }
        expired
    }

    /// Gives up connections for which `is_waiting` is false. Returns the guests that are to be
    /// asked for again, because something still waits for them.
    pub(super) fn review(
        &mut self,
        is_waiting: impl Fn(FlowId) -> bool,
        now: Instant,
    ) -> Vec<IpAddr> {
        let shares = &mut self.inquiry_shares;
        self.inquiries.retain(|_, inquiry| {
            inquiry.waiting.append(&mut inquiry.told);
            inquiry.waiting.retain(|&flow| is_waiting(flow));
            let is_needed = !inquiry.waiting.is_empty() || inquiry.held > 0;
            if !is_needed {
                shares.remove(inquiry.holder, 1);
            }
            is_needed
        });
        self.ask_at = (!self.inquiries.is_empty()).then(|| now + ASK_INTERVAL);
        self.inquiries.keys().copied().collect()
    }

    fn inquiry(&mut self, guest: IpAddr, holder: Holder, now: Instant) -> &mut Inquiry {
        self.ask_at.get_or_insert(now + ASK_INTERVAL);
        let shares = &mut self.inquiry_shares;
        self.inquiries.entry(guest).or_insert_with(|| {
            shares.add(holder, 1);
            Inquiry { holder, waiting: Vec::new(), told: Vec::new(), held: 0 }
        })
    }

    /// Takes the datagram at `index` back.
    fn take_held(&mut self, index: usize) -> Option<HeldDatagram> {
        let held = self.held.remove(index)?;
        self.held_shares.remove(held.holder, 1);
        if let Some(inquiry) = self.inquiries.get_mut(&held.guest) {
            inquiry.held -= 1;
        }
        Some(held)
    }
}
