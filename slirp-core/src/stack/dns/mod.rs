//! The DNS service with its connections.
//!
//! Owns the way of a query from a datagram or a TCP connection to the [`DnsService`], and of the
//! answer back, and which query or connection makes room when there are too many. Owns no flow:
//! what is to be done with flows, frames and resolvers is a [`Want`] for the
//! [`Stack`](super::Stack).

mod stream;

use core::net::SocketAddr;
use std::collections::VecDeque;

use crate::config::StackConfig;
use crate::discard::DiscardReason;
use crate::egress::{Judge, Name};
use crate::event::{DnsQueryId, FlowId, HostAction, QueryOrigin};
use crate::journal::Event;
use crate::mac::MacAddr;
use crate::member::{Member, MemberId};
use crate::service::dns::DnsService;
use crate::share::Holder;
use crate::stats::{NameStats, Stats};
use crate::time::Instant;
use stream::{DnsStream, DnsStreams};

/// What the service asks for.
#[derive(Debug)]
pub(super) enum Want {
    /// A datagram for the guest.
    Answer { from: SocketAddr, to: SocketAddr, mac: MacAddr, answer: Vec<u8> },
    /// A connection has something to say.
    Wake(FlowId),
    /// A connection is to be reset, to make room for others.
    Reset(FlowId),
    /// An own lookup has an answer.
    Found { lookup: u64, answer: Vec<u8> },
    /// Something for the resolvers.
    Host(HostAction),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct DnsRelay {
    service: DnsService,
    streams: DnsStreams,
    wants: VecDeque<Want>,
}

impl DnsRelay {
    pub(super) fn new(config: &StackConfig) -> Self {
        let streams = DnsStreams::new(config.limits.dns_connections, config.is_shared);
        Self { service: DnsService::new(config), streams, wants: VecDeque::new() }
    }

    /// Passes a query on, which counts for `holder`, if the `judge` of the guest that asks lets it.
    /// In a full table the member with most queries may have to give one up.
    ///
    /// # Errors
    /// Why it was discarded.
    pub(super) fn ask(
        &mut self,
        origin: QueryOrigin,
        holder: Holder,
        mut judge: Option<&mut Judge>,
        message: &[u8],
        stats: &mut Stats,
        now: Instant,
    ) -> Result<(), DiscardReason> {
        let by = judge.as_deref_mut();
        let mut asked = self.service.handle_query(origin, holder, by, message, now);
        if asked == Err(DiscardReason::DnsQueriesExhausted)
            && let Some(query) = self.service.surplus(holder)
        {
            stats.discards.count(DiscardReason::DnsQueriesExhausted);
            self.handle_answer(query, None, |_| None, now);
            self.service.withdraw(query);
            asked = self.service.handle_query(origin, holder, judge, message, now);
        }
        asked?;
        stats.dns_queries += 1;
        Ok(())
    }

    /// Looks up a name for a flow that waits; see [`DnsService::resolve`].
    pub(super) fn resolve(
        &mut self,
        lookup: u64,
        holder: Holder,
        name: &Name,
        now: Instant,
    ) -> usize {
        self.service.resolve(lookup, holder, name, now)
    }

    /// What the resolvers have answered; `None` when no resolver gave an answer. `judge_of` finds
    /// the judge of the guest that asked.
    pub(super) fn handle_answer<'a>(
        &mut self,
        query: DnsQueryId,
        answer: Option<Vec<u8>>,
        judge_of: impl FnOnce(Holder) -> Option<&'a mut Judge>,
        now: Instant,
    ) {
        if let Some((origin, answer)) = self.service.handle_answer(query, answer, judge_of, now) {
            self.answer(origin, answer);
        }
    }

    /// The guest opens a connection, which counts for `holder`.
    pub(super) fn open(&mut self, flow: FlowId, holder: Holder, now: Instant) {
        if let Some(surplus) = self.streams.surplus(holder) {
            self.end(surplus);
        }
        self.streams.insert(DnsStream::new(flow, holder, now));
    }

    /// The service's end of a connection, if `flow` is one.
    pub(super) fn stream(&mut self, flow: FlowId) -> Option<&mut DnsStream> {
        self.streams.get_mut(flow)
    }

    /// A connection has exchanged bytes with its [stream](Self::stream): passes queries on that
    /// have become whole, as [`ask`](Self::ask) does. `judge_of` finds the guest's judge.
    pub(super) fn handle_pumped<'a>(
        &mut self,
        flow: FlowId,
        judge_of: impl FnOnce(Holder) -> Option<&'a mut Judge>,
        stats: &mut Stats,
        now: Instant,
    ) {
        let Some(stream) = self.streams.get_mut(flow) else { return };
        let (holder, messages) = (stream.holder, stream.take_messages());
        self.streams.recount(flow);
        if messages.is_empty() {
            return;
        }
        let mut judge = judge_of(holder);
        for message in messages {
            let (origin, judge) = (QueryOrigin::Tcp { flow }, judge.as_deref_mut());
            if let Err(reason) = self.ask(origin, holder, judge, &message, stats, now) {
                stats.discards.count(reason);
                if let Some(stream) = self.streams.get_mut(flow) {
                    stream.handle_discard();
                }
            }
        }
    }

    /// A flow has ended, whatever it was.
    pub(super) fn forget(&mut self, flow: FlowId) {
        self.streams.remove(flow);
    }

    /// The next thing to be done.
    pub(super) fn poll(&mut self) -> Option<Want> {
        loop {
            if let Some(want) = self.wants.pop_front() {
                return Some(want);
            }
            let Some((origin, answer)) = self.service.poll_answer() else {
                return self.service.poll_action().map(Want::Host);
            };
            self.answer(origin, answer);
        }
    }

    /// Chooses whether [`poll_event`](Self::poll_event) tells anything from now on.
    pub(super) fn set_heard(&mut self, is_heard: bool) {
        self.service.set_heard(is_heard);
    }

    /// The next thing that a listener is to hear.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.service.poll_event()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.service.poll_timeout()
    }

    /// See [`DnsService::is_unaudited`].
    pub(super) const fn set_unaudited(&mut self, is_unaudited: bool) {
        self.service.is_unaudited = is_unaudited;
    }

    /// What became of the queries that are over.
    pub(super) const fn stats(&self) -> &NameStats {
        &self.service.stats
    }

    /// Gives up queries whose time is over.
    pub(super) fn handle_timeout(&mut self, stats: &mut Stats, now: Instant) {
        for _ in 0..self.service.handle_timeout(now) {
            stats.discards.count(DiscardReason::DnsTimedOut);
        }
    }

    /// A member has come, with its names.
    pub(super) fn add_member(&mut self, id: MemberId, member: &Member) {
        self.service.names.add(id, member);
    }

    /// A member has gone, and with it its names and what it has asked.
    pub(super) fn remove_member(&mut self, id: MemberId, now: Instant) {
        self.service.remove_member(id, now);
    }

    fn answer(&mut self, origin: QueryOrigin, answer: Vec<u8>) {
        match origin {
            QueryOrigin::Udp { guest, server, guest_mac } => {
                let answer = Want::Answer { from: server, to: guest, mac: guest_mac, answer };
                self.wants.push_back(answer);
            }
            QueryOrigin::Own { lookup } => self.wants.push_back(Want::Found { lookup, answer }),
            QueryOrigin::Tcp { flow } => {
                let Some(holder) = self.streams.get_mut(flow).map(|stream| stream.holder) else {
                    return;
                };
                while let Some(surplus) = self.streams.surplus_of_answers(holder, answer.len()) {
                    self.end(surplus);
                    if surplus == flow {
                        return;
                    }
                }
                if let Some(stream) = self.streams.get_mut(flow) {
                    stream.handle_answer(&answer);
                    self.streams.recount(flow);
                    self.wants.push_back(Want::Wake(flow));
                }
            }
        }
    }

    fn end(&mut self, flow: FlowId) {
        self.streams.remove(flow);
        self.wants.push_back(Want::Reset(flow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::{EgressPolicy, JudgeConfig};
    use crate::flow::{HostStream, Transfer};
    use crate::service::dns::DnsTcpFramer;

    const NOW: Instant = Instant::ZERO;

    fn flow(index: u32) -> FlowId {
        FlowId { index, generation: 1 }
    }

    fn wants(relay: &mut DnsRelay) -> Vec<Want> {
        core::iter::from_fn(|| relay.poll()).collect()
    }

    /// A query with this message id.
    fn query(id: u8) -> Vec<u8> {
        let mut query = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x01a\0\0\x01\0\x01");
        query
    }

    #[test]
    fn datagram_is_answered_to_its_sender() {
        let mut relay = DnsRelay::new(&StackConfig::default());
        let (guest, server) = (([10, 0, 2, 100], 4000).into(), ([10, 0, 2, 3], 53).into());
        let guest_mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let (mut stats, origin) = (Stats::default(), QueryOrigin::Udp { guest, server, guest_mac });
        relay.ask(origin, None, None, &query(7), &mut stats, NOW).unwrap();
        assert_eq!(stats.dns_queries, 1);
        let asked = wants(&mut relay);
        let [Want::Host(HostAction::QueryDns { query: id, .. })] = asked[..] else {
            panic!("{asked:?}");
        };
        let mut answer = query(9);
        answer[2] |= 0x80;
        relay.handle_answer(id, Some(answer), |_| None, NOW);
        let told = wants(&mut relay);
        let [Want::Answer { from, to, mac, ref answer }] = told[..] else { panic!("{told:?}") };
        assert_eq!((from, to, mac, answer[1]), (server, guest, guest_mac, 7));
    }

    #[test]
    fn query_that_is_given_up_before_the_host_has_it_is_not_asked() {
        let mut config = StackConfig { is_shared: true, ..StackConfig::default() };
        config.limits.dns_queries = 8;
        let mut relay = DnsRelay::new(&config);
        let mut stats = Stats::default();
        let mut ask = |relay: &mut DnsRelay, member: u64, id: u8| {
            let guest = ([10, 0, 2, 100 + u8::try_from(member).unwrap()], 4000).into();
            let server = ([10, 0, 2, 3], 53).into();
            let origin = QueryOrigin::Udp { guest, server, guest_mac: MacAddr([2; 6]) };
            let holder = Some(MemberId(member));
            relay.ask(origin, holder, None, &query(id), &mut stats, NOW).unwrap();
        };
        for member in 1..5 {
            ask(&mut relay, member, 0);
            ask(&mut relay, member, 1);
        }
        // The host side has the first one, the others wait.
        let Some(Want::Host(HostAction::QueryDns { query: first, .. })) = relay.poll() else {
            panic!("the first query");
        };
        ask(&mut relay, 5, 0);
        ask(&mut relay, 6, 0);
        let (mut asked, mut cancelled) = (vec![first], Vec::new());
        for want in wants(&mut relay) {
            match want {
                Want::Host(HostAction::QueryDns { query, .. }) => asked.push(query),
                Want::Host(HostAction::CancelDns { query }) => {
                    assert!(asked.contains(&query), "{query:?} has not been asked");
                    cancelled.push(query);
                }
                Want::Answer { answer, .. } => assert_eq!(answer[3] & 15, 2, "SERVFAIL"),
                Want::Wake(_) | Want::Found { .. } | Want::Reset(_) | Want::Host(_) => {
                    panic!("{want:?}")
                }
            }
        }
        assert_eq!(asked.len() - cancelled.len(), 8, "as many as may be in flight");
    }

    #[test]
    fn connection_at_the_cap_resets_the_oldest_and_a_forgotten_one_is_not_woken() {
        let mut config = StackConfig::default();
        config.limits.dns_connections = 2;
        let mut relay = DnsRelay::new(&config);
        for index in 0..3 {
            relay.open(flow(index), None, Instant::from_micros(index.into()));
        }
        let reset = wants(&mut relay);
        assert!(matches!(reset[..], [Want::Reset(id)] if id == flow(0)), "{reset:?}");
        assert!(relay.stream(flow(0)).is_none() && relay.stream(flow(2)).is_some());
        let mut stats = Stats::default();
        for index in [1, 2] {
            let origin = QueryOrigin::Tcp { flow: flow(index) };
            relay.ask(origin, None, None, &query(1), &mut stats, NOW).unwrap();
        }
        relay.forget(flow(1));
        assert_eq!(wants(&mut relay).len(), 2);
        relay.handle_timeout(&mut stats, NOW + config.timeouts.dns);
        assert_eq!(stats.discards.value(DiscardReason::DnsTimedOut), 2);
        let woken = wants(&mut relay);
        assert!(matches!(woken[..], [Want::Wake(id)] if id == flow(2)), "{woken:?}");
    }

    #[test]
    fn each_message_of_a_connection_is_judged() {
        let mut relay = DnsRelay::new(&StackConfig::default());
        let policy = EgressPolicy::parse("allow b.", "policy").unwrap();
        let mut judge = Judge::new(policy, JudgeConfig::default());
        relay.open(flow(1), None, NOW);
        let messages = [b'a', b'b', b'c'].map(|label| {
            let mut message = query(label);
            message[13] = label;
            message
        });
        let stream = relay.stream(flow(1)).unwrap();
        for message in &messages {
            let framed = DnsTcpFramer::frame(message).unwrap();
            assert_eq!(stream.send(&framed), Transfer::Moved(framed.len()));
        }
        let mut stats = Stats::default();
        relay.handle_pumped(flow(1), |_| Some(&mut judge), &mut stats, NOW);
        let mut asked = Vec::new();
        for want in wants(&mut relay) {
            match want {
                Want::Host(HostAction::QueryDns { ref message, .. }) => asked.push(message.clone()),
                Want::Wake(id) => assert_eq!(id, flow(1)),
                Want::Answer { .. } | Want::Found { .. } | Want::Reset(_) | Want::Host(_) => {
                    panic!("{want:?}")
                }
            }
        }
        assert_eq!(asked, [messages[1].clone()]);
        let mut answers = [0; 256];
        let len = relay.stream(flow(1)).unwrap().recv(&mut answers);
        assert_eq!(len, Transfer::Moved(2 * (2 + messages[0].len())));
        assert_eq!((answers[5] & 15, answers[5 + 2 + messages[0].len()] & 15), (3, 3));
    }
}
