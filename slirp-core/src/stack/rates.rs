//! Limits of the rates at which guests send and receive, where there are any.
//!
//! Owns the way of a connection and of a datagram through the [`shaper`](crate::shaper), and the
//! datagrams that wait there. Without a limit there is no [`Shaping`], and each packet costs one
//! comparison more.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

use super::Stack;
use super::from_guest::LentKind;
use super::outbox::UdpToGuest;
use crate::discard::DiscardReason;
use crate::event::{Datagram, Envelope, FlowId};
use crate::flow::{Allowance, Flow, Wants};
use crate::journal::Event;
use crate::member::MemberId;
use crate::rates::{RateDirection, Rates};
use crate::shaper::{Next, Shaper, datagrams_len};
use crate::share::Holder;
use crate::time::Instant;
use crate::timer::TimerOwner;
use crate::traffic::Traffic;

/// A datagram that waits for its part of a rate.
#[derive(Debug)]
pub(super) struct Held {
    flow: FlowId,
    /// On the host's side: whom it goes to, or comes from.
    remote: SocketAddr,
    kind: HeldKind,
}

#[derive(Debug)]
enum HeldKind {
    /// For the host.
    Datagram { kind: LentKind, payload: Vec<u8>, envelope: Envelope },
    /// For the guest.
    Udp { from: SocketAddr, payload: Vec<u8>, traffic_class: u8 },
    /// An echo reply for the guest, as an IP packet.
    Reply(Vec<u8>),
}

/// See the [module](self).
pub(super) struct Shaping {
    shaper: Shaper<Held>,
    /// Datagrams for the host whose time has come.
    departing: VecDeque<Held>,
    /// The one that is lent.
    lent: Option<Held>,
    /// Whether there are no limits or settings any more: what is departing is the last.
    is_ending: bool,
}

impl Shaping {
    /// `None` if nothing is limited.
    pub(super) fn new(rates: Rates) -> Option<Box<Self>> {
        (!rates.is_unlimited()).then(|| Box::new(Self::of(rates)))
    }

    const fn of(rates: Rates) -> Self {
        let departing = VecDeque::new();
        Self { shaper: Shaper::new(rates), departing, lent: None, is_ending: false }
    }

    pub(super) fn has_datagrams(&self) -> bool {
        !self.departing.is_empty()
    }
}

impl Stack {
    /// Limits a member of a shared network, or all guests that have no limits of their own. Another
    /// limit goes on with what is left of the burst.
    pub fn set_rates(&mut self, member: Option<MemberId>, rates: Rates, now: Instant) {
        let shaping = self.shaping.get_or_insert_with(|| Box::new(Shaping::of(Rates::default())));
        let freed = shaping.shaper.set(member, rates, now);
        shaping.is_ending = shaping.shaper.is_idle();
        for flow in freed.flows {
            self.wake_flow(flow);
        }
        for (_, held) in freed.held {
            self.release(held, now);
        }
        // A higher rate has tokens sooner.
        let lanes = self.shaping.as_ref().map(|shaping| shaping.shaper.lanes());
        for (holder, direction) in lanes.unwrap_or_default() {
            self.serve(holder, direction, now);
        }
    }

    /// The limits of a member, or of the guests that have none of their own.
    pub fn rates(&self, member: Option<MemberId>) -> Rates {
        self.shaping.as_ref().map_or(Rates::default(), |shaping| shaping.shaper.rates(member))
    }

    /// The next datagram of a guest that had to wait for its rate, to be sent as one that
    /// [`handle_frame`](Self::handle_frame) lends. The egress policy that is in force now has let
    /// it through.
    pub fn poll_datagram(&mut self, now: Instant) -> Option<Datagram<'_>> {
        self.shaping.as_deref_mut()?.lent = None;
        while let Some(held) = self.shaping.as_deref_mut()?.departing.pop_front() {
            // Without its flow it would open a socket that nobody closes.
            if self.flows.entry(held.flow).is_none() {
                self.stats.rate_dropped_from_guest += 1;
                self.note_discard(DiscardReason::RateExceeded);
            } else if self.is_still_allowed(&held, now) {
                self.shaping.as_deref_mut()?.lent = Some(held);
                break;
            }
        }
        let shaping = self.shaping.as_deref_mut()?;
        if shaping.lent.is_none() && shaping.is_ending {
            self.shaping = None;
            return None;
        }
        match self.shaping.as_ref()?.lent.as_ref()? {
            Held { flow, kind: HeldKind::Datagram { kind, payload, envelope }, .. } => {
                Some(kind.lend(*flow, payload, *envelope))
            }
            Held { kind: HeldKind::Udp { .. } | HeldKind::Reply(_), .. } => None,
        }
    }

    /// What a connection may move in this turn.
    pub(super) fn allowance(&mut self, id: FlowId, now: Instant) -> Allowance {
        let mut allowance = Allowance::UNLIMITED;
        let (Some(shaping), Some((meta, flow))) = (&mut self.shaping, self.flows.tcp(id)) else {
            return allowance;
        };
        let (holder, segments) = (meta.permit.holder, flow.segments());
        let mut allowed = |direction| {
            let lane = shaping.shaper.lane(holder, direction, now);
            lane.map_or(usize::MAX, |lane| lane.allowance(id, segments, now))
        };
        allowance.from_guest = allowed(RateDirection::FromGuest);
        allowance.to_guest = allowed(RateDirection::ToGuest);
        allowance
    }

    /// A connection has had its turn. `before` is what it had moved up to then.
    pub(super) fn note_pumped(&mut self, id: FlowId, before: Traffic, wants: Wants, now: Instant) {
        let (Some(shaping), Some((meta, flow))) = (&mut self.shaping, self.flows.tcp(id)) else {
            return;
        };
        let (holder, segments) = (meta.permit.holder, flow.segments());
        let Traffic { from_guest, to_guest } = meta.traffic;
        for (direction, after, before, wants) in [
            (RateDirection::FromGuest, from_guest, before.from_guest, wants.from_guest),
            (RateDirection::ToGuest, to_guest, before.to_guest, wants.to_guest),
        ] {
            if let Some(lane) = shaping.shaper.lane(holder, direction, now) {
                let payload = usize::try_from(after - before).unwrap_or(usize::MAX);
                lane.note_moved(id, segments, payload, wants);
            }
        }
        self.serve_both(holder, now);
    }

    /// The turn of a flow has ended. If it was woken to move something, and has not been pumped, it
    /// makes room for the next one.
    pub(super) fn end_shaped_turn(&mut self, id: FlowId, now: Instant) {
        let (Some(shaping), Some(entry)) = (&mut self.shaping, self.flows.entry(id)) else {
            return;
        };
        // Otherwise the turn for which it was woken is still to come.
        if !entry.meta.is_ready {
            let holder = entry.meta.permit.holder;
            for direction in RateDirection::ALL {
                if let Some(lane) = shaping.shaper.lane(holder, direction, now) {
                    lane.note_unused(id);
                }
            }
            self.serve_both(holder, now);
        }
    }

    /// Whether a datagram of the guest may leave at once. If not, it is held.
    pub(super) fn admits_datagram(
        &mut self,
        id: FlowId,
        kind: LentKind,
        payload: &[u8],
        envelope: Envelope,
        now: Instant,
    ) -> bool {
        let (remote, each, single) = match kind {
            LentKind::Udp { guest, remote, segment_len } => {
                (remote, segment_len, LentKind::Udp { guest, remote, segment_len: None })
            }
            LentKind::InboundUdp { origin, segment_len } => {
                (origin.client, segment_len, LentKind::InboundUdp { origin, segment_len: None })
            }
            LentKind::Echo { remote, .. } => (SocketAddr::new(remote, 0), None, kind),
        };
        self.admits(id, RateDirection::FromGuest, payload, each, now, |payload| Held {
            flow: id,
            remote,
            kind: HeldKind::Datagram { kind: single, payload: payload.to_vec(), envelope },
        })
    }

    /// Whether datagrams of `remote` for the guest may be sent at once. If not, they are held.
    pub(super) fn admits_udp(
        &mut self,
        id: FlowId,
        remote: SocketAddr,
        udp: UdpToGuest<'_>,
        now: Instant,
    ) -> bool {
        let UdpToGuest { from, payload, segment_len, traffic_class, .. } = udp;
        self.admits(id, RateDirection::ToGuest, payload, segment_len, now, |payload| Held {
            flow: id,
            remote,
            kind: HeldKind::Udp { from, payload: payload.to_vec(), traffic_class },
        })
    }

    /// Whether an echo reply of `remote` for the guest, an IP packet, may be sent at once. If not,
    /// it is held.
    pub(super) fn admits_reply(
        &mut self,
        id: FlowId,
        remote: IpAddr,
        packet: &[u8],
        now: Instant,
    ) -> bool {
        // ICMP's header is as long as UDP's.
        let headers = datagrams_len(0, None, packet.first().is_some_and(|first| first >> 4 == 4));
        let payload = &packet[usize::try_from(headers).unwrap_or(0).min(packet.len())..];
        self.admits(id, RateDirection::ToGuest, payload, None, now, |_| Held {
            flow: id,
            remote: SocketAddr::new(remote, 0),
            kind: HeldKind::Reply(packet.to_vec()),
        })
    }

    fn admits(
        &mut self,
        id: FlowId,
        direction: RateDirection,
        payload: &[u8],
        each: Option<u16>,
        now: Instant,
        held: impl Fn(&[u8]) -> Held,
    ) -> bool {
        let (Some(shaping), Some(entry)) = (self.shaping.as_deref_mut(), self.flows.entry(id))
        else {
            return true;
        };
        let (holder, is_ipv4) = (entry.meta.permit.holder, entry.meta.key.guest.is_ipv4());
        let mut lane = shaping.shaper.lane(holder, direction, now);
        let len = datagrams_len(payload.len(), each, is_ipv4);
        let each = each.map_or(payload.len(), usize::from).max(1);
        let is_one = payload.len() <= each;
        // What departs was sent before.
        let is_next = direction == RateDirection::ToGuest
            || !shaping.departing.iter().any(|held| held.flow == id);
        if is_next && lane.as_mut().is_none_or(|lane| lane.admits(id, len, is_one, now)) {
            return true;
        }
        // An empty datagram is one as well.
        for start in (0..payload.len().max(1)).step_by(each) {
            let payload = &payload[start..payload.len().min(start + each)];
            match &mut lane {
                Some(lane) => {
                    let len = datagrams_len(payload.len(), None, is_ipv4);
                    lane.hold(id, len, held(payload), now);
                }
                None => shaping.departing.push_back(held(payload)),
            }
        }
        self.serve(holder, direction, now);
        false
    }

    /// Whether the egress policy lets go on what had to wait; otherwise it is counted. A
    /// conversation that a remote has begun ends itself when it may not go on.
    fn is_still_allowed(&mut self, held: &Held, now: Instant) -> bool {
        let is_judged = self.egress.is_some()
            && self.flows.entry(held.flow).is_some_and(|entry| match entry.flow {
                Flow::Udp(_) | Flow::Echo(_) => true,
                Flow::Tcp(_) | Flow::InboundUdp(_) => false,
            });
        let is_allowed = !is_judged || self.may_answer(held.flow, held.remote, now);
        if !is_allowed {
            self.note_discard(DiscardReason::EgressDenied);
        }
        is_allowed
    }

    /// A flow of `holder` has ended.
    pub(super) fn forget_shaped(&mut self, id: FlowId, holder: Holder, now: Instant) {
        if let Some(shaping) = &mut self.shaping {
            for direction in RateDirection::ALL {
                if let Some(lane) = shaping.shaper.lane(holder, direction, now) {
                    lane.forget(id);
                }
            }
            self.serve_both(holder, now);
        }
    }

    /// Forgets the limits of a member that has gone.
    pub(super) fn forget_rates(&mut self, member: MemberId) {
        if let Some(shaping) = &mut self.shaping {
            shaping.shaper.forget_member(member);
            shaping.is_ending = shaping.shaper.is_idle();
        }
    }

    /// There may be tokens for flows that wait.
    pub(super) fn on_shaper_timer(&mut self, now: Instant) {
        let due = self.shaping.as_mut().map(|shaping| shaping.shaper.tick(now));
        for (holder, direction) in due.unwrap_or_default() {
            self.serve(holder, direction, now);
        }
        if let Some(shaping) = &self.shaping {
            self.schedule.ask(TimerOwner::Shaper, shaping.shaper.poll_timeout());
        }
    }

    fn serve_both(&mut self, holder: Holder, now: Instant) {
        for direction in RateDirection::ALL {
            self.serve(holder, direction, now);
        }
    }

    /// Gives their turns to the flows that wait, as far as there are tokens.
    fn serve(&mut self, holder: Holder, direction: RateDirection, now: Instant) {
        loop {
            let Some(shaping) = &mut self.shaping else { return };
            let Some(lane) = shaping.shaper.lane(holder, direction, now) else { return };
            let next = lane.poll(now);
            let (tally, at) = (lane.take_tally(), lane.poll_timeout());
            let tick_at = at.map(|at| shaping.shaper.tick_at(at));
            let (dropped, micros) = match direction {
                RateDirection::ToGuest => {
                    let stats = &mut self.stats;
                    (&mut stats.rate_dropped_to_guest, &mut stats.rate_limited_micros_to_guest)
                }
                RateDirection::FromGuest => {
                    let stats = &mut self.stats;
                    (&mut stats.rate_dropped_from_guest, &mut stats.rate_limited_micros_from_guest)
                }
            };
            *dropped += tally.dropped;
            *micros += tally.limited_micros;
            for _ in 0..tally.dropped {
                self.note_discard(DiscardReason::RateExceeded);
            }
            match next {
                Some(Next::Wake(flow)) => self.wake_flow(flow),
                Some(Next::Send(held)) => self.release(held, now),
                Some(Next::Bound) => {
                    self.events.tell(|| Event::RateLimited { member: holder, direction });
                }
                None => {
                    self.schedule.ask(TimerOwner::Shaper, tick_at);
                    return;
                }
            }
        }
    }

    /// Sends a datagram whose time has come.
    fn release(&mut self, held: Held, now: Instant) {
        let Some(entry) = self.flows.entry(held.flow) else { return };
        let guest = entry.flow.guest();
        match held.kind {
            HeldKind::Datagram { .. } => {
                if let Some(shaping) = &mut self.shaping {
                    shaping.departing.push_back(held);
                }
            }
            HeldKind::Udp { .. } | HeldKind::Reply(_) if !self.is_still_allowed(&held, now) => {}
            HeldKind::Udp { from, payload, traffic_class } => {
                let udp = UdpToGuest {
                    from,
                    to: guest.address,
                    mac: guest.mac,
                    payload: &payload,
                    segment_len: None,
                    traffic_class,
                };
                let sent = self.deliver(held.flow, udp, now);
                self.note(sent);
            }
            HeldKind::Reply(packet) => {
                let sent = self.outbox.push_packet(&packet, guest.mac);
                self.note(sent);
            }
        }
    }
}
