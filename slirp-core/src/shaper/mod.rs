//! Limits of the rates at which guests send and receive.
//!
//! # Theory of operation
//!
//! *Goals.* A guest moves no more than its [`Rate`] and one burst; bytes of connections are never
//! lost, only late; flows that want more than there is get equal parts of it, and one that wants
//! little does not wait for them.
//!
//! *What counts.* IP packets of traffic with the outside, through published ports too: payload and
//! headers, each TCP segment and each datagram with its own. Not what the services of the link and
//! the DNS service say, nor what members of a shared network say to each other, nor
//! acknowledgements, ends and repetitions of a connection.
//!
//! *Steps.* Each guest has a [`Lane`] for each direction that is limited: a [bucket](bucket), a
//! [line](line) of flows that want tokens, and the datagrams that wait.
//!
//! | who | asks by | when there is nothing |
//! | --- | --- | --- |
//! | a connection that is pumped | [`Lane::allowance`], [`Lane::note_moved`] | its bytes stay |
//! | a datagram | [`Lane::admits`] | it is held ([`Lane::hold`]), and dropped in the end |
//!
//! Bytes that stay are in the ring from the guest, whose window closes, or in the host's kernel,
//! which closes the remote's. The connection is woken when it has its turn.
//!
//! [`Lane::poll`] gives the turn to the first of the line, one flow after the other: a connection
//! that was woken has its turn before the next one is.
//!
//! *Timers.* [`Shaper::poll_timeout`]: when there are tokens for the first of a line, but no more
//! than 200 times a second ([`TICK`]). What is pumped meanwhile for other reasons takes its part
//! without waiting for the tick.
//!
//! *Limits.* 128 KiB of datagrams for each lane. An entry of a line for each flow.
//!
//! *Omissions.* Frames that wait for a guest which does not read were paid for already: when it
//! reads again it gets them at once, up to a ring of each connection.

mod bucket;
mod lane;
mod line;
mod segments;

use core::time::Duration;
use std::collections::BTreeMap;

use crate::event::FlowId;
use crate::member::MemberId;
use crate::rates::{Rate, RateDirection, Rates};
use crate::share::Holder;
use crate::time::Instant;
pub(crate) use lane::{Lane, Next};
pub(crate) use segments::{Segments, datagrams_len};

/// The least time between two looks at the lines.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// What is limited for one guest.
#[derive(Debug)]
struct Guest<T> {
    /// Its own limits; `None` for those that all guests have.
    own: Option<Rates>,
    to_guest: Option<Lane<T>>,
    from_guest: Option<Lane<T>>,
}

impl<T> Guest<T> {
    fn new(own: Option<Rates>, rates: Rates, now: Instant) -> Self {
        let lane = |rate: Option<Rate>| rate.map(|rate| Lane::new(rate, now));
        Self { own, to_guest: lane(rates.to_guest), from_guest: lane(rates.from_guest) }
    }

    const fn lane(&mut self, direction: RateDirection) -> &mut Option<Lane<T>> {
        match direction {
            RateDirection::ToGuest => &mut self.to_guest,
            RateDirection::FromGuest => &mut self.from_guest,
        }
    }

    fn set(&mut self, rates: Rates, freed: &mut Freed<T>, now: Instant) {
        for direction in RateDirection::ALL {
            let lane = self.lane(direction);
            match (rates.of(direction), &mut *lane) {
                (Some(rate), Some(lane)) => lane.set_rate(rate, now),
                (Some(rate), None) => *lane = Some(Lane::new(rate, now)),
                (None, _) => {
                    if let Some(lane) = lane.take() {
                        let (flows, held) = lane.into_waiting();
                        freed.flows.extend(flows);
                        freed.held.extend(held.into_iter().map(|item| (direction, item)));
                    }
                }
            }
        }
    }
}

/// What a limit that has ended does not hold back any more.
#[derive(Debug)]
pub(crate) struct Freed<T> {
    /// Connections that are to be woken.
    pub(crate) flows: Vec<FlowId>,
    /// Datagrams.
    pub(crate) held: Vec<(RateDirection, T)>,
}

/// See the [module](self). `T` is a datagram that is held.
#[derive(Debug)]
pub(crate) struct Shaper<T> {
    /// The limits of every guest that has none of its own.
    rates: Rates,
    guests: BTreeMap<Holder, Guest<T>>,
    ticked_at: Option<Instant>,
}

impl<T> Shaper<T> {
    pub(crate) const fn new(rates: Rates) -> Self {
        Self { rates, guests: BTreeMap::new(), ticked_at: None }
    }

    /// Whether nobody is limited, and no member is free of limits that might come for all.
    pub(crate) fn is_idle(&self) -> bool {
        self.rates.is_unlimited() && self.guests.values().all(|guest| guest.own.is_none())
    }

    /// The limits of `holder`.
    pub(crate) fn rates(&self, holder: Holder) -> Rates {
        self.guests.get(&holder).and_then(|guest| guest.own).unwrap_or(self.rates)
    }

    /// Limits a member; all guests that have no limits of their own if there is none. Returns what
    /// does not have to wait any more.
    pub(crate) fn set(&mut self, member: Option<MemberId>, rates: Rates, now: Instant) -> Freed<T> {
        let mut freed = Freed { flows: Vec::new(), held: Vec::new() };
        if member.is_some() {
            let new = || Guest::new(Some(rates), rates, now);
            let guest = self.guests.entry(member).or_insert_with(new);
            guest.own = Some(rates);
            guest.set(rates, &mut freed, now);
            return freed;
        }
        self.rates = rates;
        for guest in self.guests.values_mut().filter(|guest| guest.own.is_none()) {
            guest.set(rates, &mut freed, now);
        }
        freed
    }

    /// The lane of a guest; `None` if that direction is not limited.
    pub(crate) fn lane(
        &mut self,
        holder: Holder,
        direction: RateDirection,
        now: Instant,
    ) -> Option<&mut Lane<T>> {
        let rates = self.rates;
        let guest = self.guests.entry(holder).or_insert_with(|| Guest::new(None, rates, now));
        guest.lane(direction).as_mut()
    }

    /// Every lane.
    pub(crate) fn lanes(&self) -> Vec<(Holder, RateDirection)> {
        let both = self.guests.keys().flat_map(|&holder| RateDirection::ALL.map(|to| (holder, to)));
        both.collect()
    }

    /// Every lane whose time has come.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<(Holder, RateDirection)> {
        self.ticked_at = Some(now);
        let mut due = Vec::new();
        for (&holder, guest) in &mut self.guests {
            for direction in RateDirection::ALL {
                let at = guest.lane(direction).as_ref().and_then(Lane::poll_timeout);
                if at.is_some_and(|at| at <= now) {
                    due.push((holder, direction));
                }
            }
        }
        due
    }

    /// When a lane that waits for `at` is to be looked at.
    pub(crate) fn tick_at(&self, at: Instant) -> Instant {
        self.ticked_at.map_or(at, |ticked_at| at.max(ticked_at + TICK))
    }

    /// When the next lane is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let lanes = self.guests.values().flat_map(|guest| [&guest.to_guest, &guest.from_guest]);
        let at = lanes.filter_map(|lane| lane.as_ref()?.poll_timeout()).min()?;
        Some(self.tick_at(at))
    }

    /// A member has gone, and its flows before.
    pub(crate) fn forget_member(&mut self, member: MemberId) {
        self.guests.remove(&Some(member));
    }
}

#[cfg(test)]
mod tests;
