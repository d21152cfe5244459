//! The DNS service on the virtual address: a relay, not a resolver.
//!
//! Owns the queries in flight: their origin, message id and deadline. Leaves datagrams and streams
//! to the flows, and the exchange with upstream resolvers to the host side, which gets each message
//! ([`HostAction::QueryDns`]): unchanged, unless an egress policy is in force.
//!
//! # Theory of operation
//!
//! A query is copied once, gets a [`DnsQueryId`] and waits for exactly one of: an answer, the
//! report that no resolver answered (SERVFAIL), or its deadline (SERVFAIL as well). Answers are not
//! changed, with two exceptions: the message id becomes the guest's own again (upstream has a fresh
//! one, RFC 5452 section 4.3), and an answer over UDP that exceeds what the guest takes is cut to
//! header, question and OPT with TC set.
//!
//! A guest that repeats a UDP query while it is in flight waits for the same answer: retransmission
//! towards the resolvers is the host side's business. A malformed query is answered with FORMERR
//! here; unknown opcodes, classes, types and EDNS options are upstream's to judge.
//!
//! On a shared network a member has a quarter of all queries in flight, and in a full table the
//! member with most queries loses one to a member with fewer: that query fails at once, and the
//! host side, if it has the query already, is told to stop ([`HostAction::CancelDns`]).
//!
//! A closed TCP connection does not free its queries: they still cost work upstream, and a guest
//! must not be able to raise that cost by opening and closing connections.
//!
//! On a shared network a question about a member is answered here ([`MemberNames`]) and never
//! passed on.
//!
//! Where an egress policy is in force for the guest, its [`Judge`] is asked about every other
//! question first. What may be asked is asked in our own words ([`rebuild`]); everything else is
//! answered here ([`gate`]). Before the guest gets the answer, its addresses are bound to the name
//! that was asked for ([`answers`]), so that the guest's next packet already finds them bound. An
//! answer that leads through a denied name is replaced by NXDOMAIN.
//!
//! A name that somebody is to be asked about is answered with an address that stands for it. Once
//! somebody has said yes, the stack looks the name up by a query of its own
//! ([`resolve`](DnsService::resolve)).
//!
//! Deliberately omitted: caching, search domains, rewriting of EDNS options, and zone transfers,
//! which span several messages.
//!
//! RFC 1035 section 4, RFC 2181 section 9, RFC 5452, RFC 6891, RFC 7766.

mod answers;
mod framer;
mod gate;
mod message;
mod names;
mod question;
mod rebuild;

#[cfg(test)]
mod tests;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::egress::{Action, Judge, ManyNames, Name};
use crate::event::{DnsQueryId, DnsTransport, HostAction, QueryOrigin};
use crate::journal::{Event, Lookup};
use crate::member::MemberId;
use crate::share::{Holder, Shares};
use crate::stats::{Answered, NameStats};
use crate::time::Instant;

pub(crate) use answers::read_own;
pub use answers::{Chain, read_chain};
pub(crate) use framer::DnsTcpFramer;
use gate::Passage;
use message::{QueryShape, ResponseCode, TYPE_A, TYPE_AAAA};
pub(crate) use names::MemberNames;

/// What identifies a repeated UDP query.
type UdpKey = (SocketAddr, SocketAddr, u16);

/// Queries in flight; at most [`Limits::dns_queries`](crate::config::Limits::dns_queries), each
/// with a copy of its message.
#[derive(Debug)]
pub(crate) struct DnsService {
    cap: usize,
    /// How many each member has in flight.
    shares: Shares,
    timeout: Duration,
    next_id: u64,
    /// Ordered by age, and so by deadline.
    in_flight: BTreeMap<u64, InFlight>,
    /// The youngest query in flight under each key.
    udp: BTreeMap<UdpKey, u64>,
    /// Queries that the host side has not taken yet, and those that it is to stop.
    to_host: VecDeque<HostAction>,
    /// Answers that were made here.
    made_here: VecDeque<(QueryOrigin, Vec<u8>)>,
    /// What a listener is to hear, if there is one.
    events: Option<VecDeque<Event>>,
    /// Whether what is looked up under an egress policy fails, since the log that has to have it
    /// cannot be written.
    pub is_unaudited: bool,
    /// What became of the queries that are over.
    pub stats: NameStats,
    /// Names that are answered here.
    pub names: MemberNames,
}

#[derive(Debug)]
struct InFlight {
    origin: QueryOrigin,
    holder: Holder,
    message: Vec<u8>,
    shape: QueryShape,
    /// Whether an egress policy has let it pass.
    is_judged: bool,
    /// The name that addresses of the answer are bound to, under a policy.
    name: Option<Name>,
    /// What the policy says of it, if the guest does not have to obey.
    would: Option<Action>,
    asked_at: Instant,
    expires_at: Instant,
}

impl DnsService {
    /// A service without queries, with the limits, timeouts and policy of `config`.
    pub(crate) fn new(config: &StackConfig) -> Self {
        let cap = config.limits.dns_queries;
        Self {
            cap,
            shares: Shares::new(cap, config.is_shared),
            timeout: config.timeouts.dns,
            next_id: 0,
            in_flight: BTreeMap::new(),
            udp: BTreeMap::new(),
            to_host: VecDeque::new(),
            made_here: VecDeque::new(),
            events: None,
            is_unaudited: false,
            stats: NameStats::default(),
            names: MemberNames::default(),
        }
    }

    /// Takes a query: one datagram, or one message of a TCP stream without its length prefix. On a
    /// shared network it counts for the member `holder`, or for all traffic without a member.
    /// `judge` decides for the guest that asks, if a policy is in force for it.
    ///
    /// Afterwards [`poll_action`](Self::poll_action) and [`poll_answer`](Self::poll_answer) may
    /// have something. Returns the id of the query: for a repeated query the id of the first, and
    /// for a query that was answered at once an id that is no longer in flight.
    ///
    /// # Errors
    /// [`DiscardReason::DnsMessageInvalid`] when this is not a query, and
    /// [`DiscardReason::DnsQueriesExhausted`] at the cap, or at that of `holder`: see
    /// [`surplus`](Self::surplus).
    pub(crate) fn handle_query(
        &mut self,
        origin: QueryOrigin,
        holder: Option<MemberId>,
        judge: Option<&mut Judge>,
        message: &[u8],
        now: Instant,
    ) -> Result<DnsQueryId, DiscardReason> {
        if !message::is_query(message) {
            return Err(DiscardReason::DnsMessageInvalid);
        }
        let key = udp_key(&origin, message);
        if let Some(id) = key.and_then(|key| self.udp.get(&key))
            && self.in_flight.get(id).is_some_and(|first| first.message == message)
        {
            let query = DnsQueryId(*id);
            self.tell_asked(query, origin, holder, message);
            return Ok(query);
        }
        if self.made_here.len() >= self.cap {
            return Err(DiscardReason::DnsQueriesExhausted);
        }
        let id = self.next_id;
        self.next_id += 1;
        let Some(shape) = message::read_query(message) else {
            let answer = message::make_answer(message, None, ResponseCode::FormatError);
            self.answer_here(DnsQueryId(id), origin, holder, message, answer, None);
            return Ok(DnsQueryId(id));
        };
        if let Some(answer) = self.names.answer(message, &shape) {
            let answer = fitted(&origin, &shape, answer);
            self.answer_here(DnsQueryId(id), origin, holder, message, answer, None);
            return Ok(DnsQueryId(id));
        }
        let is_judged = judge.is_some();
        let is_unaudited = self.is_unaudited;
        let passage = judge.map(|judge| match is_unaudited {
            true => gate::unaudited(message, &shape),
            false => gate::judge_query(judge, message, &shape, now),
        });
        let (upstream, name, would) = match passage {
            None => (message.to_vec(), None, None),
            Some(Passage::Ask { upstream, name, would, many }) => {
                if let Some(ManyNames { rule, pattern, count }) = many {
                    self.tell(|| Event::ManyNames { member: holder, rule, pattern, count });
                }
                (upstream, name, would)
            }
            Some(Passage::Answer { answer, lookup }) => {
                self.answer_here(DnsQueryId(id), origin, holder, message, answer, Some(lookup));
                return Ok(DnsQueryId(id));
            }
        };
        if self.in_flight.len() + self.made_here.len() >= self.cap
            || self.shares.crowded_by(holder, 1).is_some()
        {
            return Err(DiscardReason::DnsQueriesExhausted);
        }
        if let Some(key) = key {
            self.udp.insert(key, id);
        }
        let message = message.to_vec();
        let asked = InFlight {
            origin,
            holder,
            message,
            shape,
            is_judged,
            name,
            would,
            asked_at: now,
            expires_at: now + self.timeout,
        };
        Ok(self.send(id, asked, upstream))
    }

    /// Has the resolvers answer a query.
    fn send(&mut self, id: u64, asked: InFlight, upstream: Vec<u8>) -> DnsQueryId {
        let transport = match asked.origin {
            QueryOrigin::Udp { .. } | QueryOrigin::Own { .. } => DnsTransport::Udp,
            QueryOrigin::Tcp { .. } => DnsTransport::Tcp,
        };
        let query = DnsQueryId(id);
        self.tell_asked(query, asked.origin, asked.holder, &asked.message);
        self.to_host.push_back(HostAction::QueryDns { query, transport, message: upstream });
        self.shares.add(asked.holder, 1);
        self.in_flight.insert(id, asked);
        query
    }

    /// Looks `name` up for the stack itself: once for each IP version, as the lookup of this
    /// number. The answers come as those of a guest do, unjudged. Returns how many queries went
    /// out.
    pub(crate) fn resolve(
        &mut self,
        lookup: u64,
        holder: Option<MemberId>,
        name: &Name,
        now: Instant,
    ) -> usize {
        let mut sent = 0;
        for kind in [TYPE_A, TYPE_AAAA] {
            if self.in_flight.len() + self.made_here.len() >= self.cap
                || self.shares.crowded_by(holder, 1).is_some()
            {
                return sent;
            }
            let message = message::make_query(name, kind);
            let Some(shape) = message::read_query(&message) else { return sent };
            let (id, origin) = (self.next_id, QueryOrigin::Own { lookup });
            self.next_id += 1;
            let upstream = message.clone();
            let asked = InFlight {
                origin,
                holder,
                message,
                shape,
                is_judged: false,
                name: None,
                would: None,
                asked_at: now,
                expires_at: now + self.timeout,
            };
            self.send(id, asked, upstream);
            sent += 1;
        }
        sent
    }

    /// The query to give up so that a refused one of `holder` fits: the oldest of the member with
    /// most. `None` if the two members would only change places; otherwise members that all want
    /// more would make us ask the resolvers ever faster.
    pub(crate) fn surplus(&self, holder: Option<MemberId>) -> Option<DnsQueryId> {
        let crowder = self.shares.crowded_by(holder, 1)?;
        if self.shares.held(crowder) <= self.shares.held(holder) + 1 {
            return None;
        }
        let mut of_crowder = self.in_flight.iter().filter(|(_, query)| query.holder == crowder);
        of_crowder.next().map(|(&id, _)| DnsQueryId(id))
    }

    /// Stops the exchange of `query` with the resolvers: it is taken back if the host side has not
    /// got it yet, and else the host side is told. The query stays in flight until
    /// [`handle_answer`](Self::handle_answer) ends it.
    pub(crate) fn withdraw(&mut self, query: DnsQueryId) {
        let waiting = self.to_host.iter().position(|action| {
            let HostAction::QueryDns { query: asked, .. } = action else { return false };
            *asked == query
        });
        match waiting {
            Some(at) => drop(self.to_host.remove(at)),
            None => self.to_host.push_back(HostAction::CancelDns { query }),
        }
    }

    /// A member has gone: its names are not answered any more, and its queries are stopped.
    pub(crate) fn remove_member(&mut self, id: MemberId, now: Instant) {
        self.names.remove(id);
        let its = self.in_flight.iter().filter(|(_, query)| query.holder == Some(id));
        let its: Vec<_> = its.map(|(&query, _)| query).collect();
        for query in its {
            if let Some(done) = self.take(query) {
                let lookup = done.is_judged.then_some(Lookup::Asked);
                self.tell_answered(DnsQueryId(query), &done, None, lookup, now);
                self.withdraw(DnsQueryId(query));
            }
        }
    }

    /// Takes the host side's result for `query`: an answer as it came from upstream, or `None` when
    /// no resolver answered. `judge_of` finds the judge of the guest that asked, if a policy is in
    /// force for it: the answer's addresses are bound there before the guest has them. Returns the
    /// answer and its destination; nothing when the query has expired.
    pub(crate) fn handle_answer<'a>(
        &mut self,
        query: DnsQueryId,
        answer: Option<Vec<u8>>,
        judge_of: impl FnOnce(Holder) -> Option<&'a mut Judge>,
        now: Instant,
    ) -> Option<(QueryOrigin, Vec<u8>)> {
        let done = self.take(query.0)?;
        let mut answer = answer.filter(|answer| message::is_answer(answer));
        let mut lookup = done.is_judged.then_some(Lookup::Asked);
        if let (Some(name), Some(given)) = (&done.name, &mut answer)
            && let Some(judge) = judge_of(done.holder)
        {
            let (asked, shape) = (&done.message, &done.shape);
            let outcome = gate::judge_answer(judge, name, asked, shape, given, now);
            if outcome == Lookup::NoSuchName {
                *given = gate::blocked(asked, shape, None);
            }
            lookup = Some(outcome);
        }
        self.tell_answered(query, &done, answer.as_deref(), lookup, now);
        let Some(mut answer) = answer else {
            return Some(done.into_failure());
        };
        answer[..2].copy_from_slice(&message::message_id(&done.message).to_be_bytes());
        Some((done.origin, fitted(&done.origin, &done.shape, answer)))
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|(_, oldest)| oldest.expires_at)
    }

    /// Gives up expired queries; each gets a SERVFAIL from
    /// [`poll_answer`](Self::poll_answer). Returns how many there were, to be counted as
    /// [`DiscardReason::DnsTimedOut`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> usize {
        let mut expired = 0;
        while let Some((&id, oldest)) = self.in_flight.first_key_value()
            && oldest.expires_at <= now
            && let Some(done) = self.take(id)
        {
            let lookup = done.is_judged.then_some(Lookup::Asked);
            self.tell_answered(DnsQueryId(id), &done, None, lookup, now);
            self.made_here.push_back(done.into_failure());
            expired += 1;
        }
        expired
    }

    /// The next query that the host side has to ask or to stop.
    pub(crate) fn poll_action(&mut self) -> Option<HostAction> {
        self.to_host.pop_front()
    }

    /// The next answer that was made without the host side.
    pub(crate) fn poll_answer(&mut self) -> Option<(QueryOrigin, Vec<u8>)> {
        self.made_here.pop_front()
    }

    /// Queries in flight.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether no query is in flight.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Chooses whether [`poll_event`](Self::poll_event) tells anything from now on.
    pub(crate) fn set_heard(&mut self, is_heard: bool) {
        self.events = is_heard.then(VecDeque::new);
    }

    /// The next thing that a listener is to hear.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.as_mut()?.pop_front()
    }

    fn answer_here(
        &mut self,
        query: DnsQueryId,
        origin: QueryOrigin,
        member: Holder,
        message: &[u8],
        answer: Vec<u8>,
        lookup: Option<Lookup>,
    ) {
        self.stats.count(lookup.map_or(Answered::Here, Answered::Judged));
        self.tell_asked(query, origin, member, message);
        self.tell(|| Event::Answered {
            query,
            origin,
            guest: guest_of(&origin),
            member,
            question: message::first_question(message),
            answer: message::read_answer(&answer),
            lookup,
            would: None,
            after: Duration::ZERO,
        });
        self.made_here.push_back((origin, answer));
    }

    fn tell_asked(
        &mut self,
        query: DnsQueryId,
        origin: QueryOrigin,
        member: Holder,
        message: &[u8],
    ) {
        self.tell(|| {
            let question = message::first_question(message);
            Event::Asked { query, origin, member, question }
        });
    }

    fn tell_answered(
        &mut self,
        query: DnsQueryId,
        done: &InFlight,
        answer: Option<&[u8]>,
        lookup: Option<Lookup>,
        now: Instant,
    ) {
        let after = now.saturating_since(done.asked_at);
        if answer.is_some() {
            self.stats.count(lookup.map_or(Answered::Relayed, Answered::Judged));
            self.stats.upstream.note(after);
        } else {
            self.stats.count(Answered::Failed);
        }
        self.tell(|| Event::Answered {
            query,
            origin: done.origin,
            guest: guest_of(&done.origin),
            member: done.holder,
            question: message::first_question(&done.message),
            answer: answer.and_then(message::read_answer),
            lookup,
            would: done.would,
            after,
        });
    }

    fn tell(&mut self, event: impl FnOnce() -> Event) {
        if let Some(events) = &mut self.events {
            events.push_back(event());
        }
    }

    fn take(&mut self, id: u64) -> Option<InFlight> {
        let done = self.in_flight.remove(&id)?;
        self.shares.remove(done.holder, 1);
        if let Some(key) = udp_key(&done.origin, &done.message)
            && self.udp.get(&key) == Some(&id)
        {
            self.udp.remove(&key);
        }
        Some(done)
    }
}

impl InFlight {
    fn into_failure(self) -> (QueryOrigin, Vec<u8>) {
        let code = ResponseCode::ServerFailure;
        let answer = message::make_answer(&self.message, Some(&self.shape), code);
        (self.origin, fitted(&self.origin, &self.shape, answer))
    }
}

/// An answer, cut to what the guest takes over UDP.
fn fitted(origin: &QueryOrigin, shape: &QueryShape, answer: Vec<u8>) -> Vec<u8> {
    match origin {
        QueryOrigin::Udp { .. } => message::truncate_answer(answer, shape.udp_answer_cap()),
        QueryOrigin::Tcp { .. } | QueryOrigin::Own { .. } => answer,
    }
}

/// The guest's address, where the origin has it.
fn guest_of(origin: &QueryOrigin) -> Option<IpAddr> {
    match origin {
        QueryOrigin::Udp { guest, .. } => Some(guest.ip()),
        QueryOrigin::Tcp { .. } | QueryOrigin::Own { .. } => None,
    }
}

fn udp_key(origin: &QueryOrigin, message: &[u8]) -> Option<UdpKey> {
    match *origin {
        QueryOrigin::Udp { guest, server, .. } => {
            Some((guest, server, message::message_id(message)))
        }
        QueryOrigin::Tcp { .. } | QueryOrigin::Own { .. } => None,
    }
}
