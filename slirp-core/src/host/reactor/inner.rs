//! The data thread's dealings with the thread in the guest's network namespace.
//!
//! Owns what is handed over to it (clients on the host's loopback), and what it asks for: sockets
//! of the host, verdicts, rules for scanned ports. See [`inner`](crate::host::inner).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use socket2::SockRef;
use tokio::sync::oneshot;

use super::Reactor;
use super::mail::Next;
use crate::discard::DiscardReason;
use crate::event::{FlowId, ForwardId, Origin};
use crate::host::bridge::table::FIRST;
use crate::host::forward::{Forward, ForwardProtocol, Forwards, PortId};
use crate::host::inner::ask::{Ask, Bridged};
use crate::host::inner::inward::Targets;
use crate::host::inner::order::{Datagram, Order, Orders, Passing};
use crate::host::inner::pool::Batch;
use crate::host::inner::ports::OwnPorts;
use crate::host::inner::settings::{SpliceRules, SplicesError};
use crate::host::mailbox::{FlowPage, JudgedFlowPage};
use crate::host::socket::tcp::TcpStream;
use crate::policy::Protocol;
use crate::stack::{Established, Stack};
use crate::stats::Stats;
use crate::time::Instant;

/// The way to the thread, and the rules that it has asked for.
pub(super) struct InnerLink {
    orders: Orders,
    /// Rules for scanned ports, by protocol and where the host listens.
    scanned: BTreeMap<(ForwardProtocol, SocketAddr), ForwardId>,
    /// Copies of the sockets at which datagrams came that are under way.
    listeners: BTreeMap<PortId, Weak<OwnedFd>>,
}

impl InnerLink {
    pub(super) fn set_heard(&self, is_heard: bool) {
        self.orders.signs.set_heard(is_heard);
    }

    /// Whether the thread keeps up with its clients. More of them would take the descriptors of all
    /// flows.
    pub(super) fn has_room(&self) -> bool {
        self.orders.signs.has_room()
    }

    /// Where a client is led to past the link; `None` if the link is its way.
    pub(super) fn targets(
        &self,
        client: SocketAddr,
        local: IpAddr,
        guest: SocketAddr,
        stack: &Stack,
    ) -> Option<Targets> {
        self.orders.inward?.targets(client.ip(), local, guest, |it| stack.current_guest(it))
    }

    /// Passes on what a client has sent to a port.
    ///
    /// # Errors
    /// [`DiscardReason::BridgesFull`] and [`DiscardReason::HostResourcesExhausted`]; it is lost.
    pub(super) fn pass(
        &mut self,
        id: PortId,
        forwards: &Forwards,
        origin: Origin,
        targets: Targets,
        payload: &[u8],
        segment_len: Option<u16>,
    ) -> Result<(), DiscardReason> {
        let passing = Passing::datagram(&self.orders.signs).ok_or(DiscardReason::BridgesFull)?;
        let Some(listener) = self.listener(id, forwards) else { return Ok(()) };
        let listener = listener.map_err(|error| {
            tracing::debug!(%error, "a datagram over loopback was lost");
            DiscardReason::HostResourcesExhausted
        })?;
        let payload = payload.to_vec();
        let datagram = Datagram { origin, targets, listener, passing, payload, segment_len };
        self.orders.send(Order::Datagram(Box::new(datagram)));
        Ok(())
    }

    /// A copy of a port's socket, which all datagrams that are under way share.
    fn listener(&mut self, id: PortId, forwards: &Forwards) -> Option<io::Result<Arc<OwnedFd>>> {
        let socket = forwards.socket(id)?;
        if let Some(listener) = self.listeners.get(&id).and_then(Weak::upgrade) {
            return Some(Ok(listener));
        }
        let listener = socket.try_clone_to_owned().map(Arc::new);
        if let Ok(listener) = &listener {
            self.listeners.retain(|_, other| other.strong_count() > 0);
            self.listeners.insert(id, Arc::downgrade(listener));
        }
        Some(listener)
    }
}

impl Reactor {
    /// Takes the way to the thread, and opens the ports that are in use in the namespace already.
    pub(crate) fn adopt_inner(&mut self, orders: Orders, scanned: &[Forward]) {
        orders.signs.set_judged(self.stack.has_egress());
        self.inner =
            Some(InnerLink { orders, scanned: BTreeMap::new(), listeners: BTreeMap::new() });
        self.open_scanned(scanned);
    }

    /// The ports of the host at which the instance listens.
    pub(crate) fn own_ports(&self) -> OwnPorts {
        let mut own = OwnPorts::default();
        self.forwards.list().iter().for_each(|(_, rule)| own.add(rule));
        own
    }

    /// Tells the thread of the ports of the host at which the instance listens, with those that it
    /// is about to open.
    pub(super) fn tell_own_ports(&self, more: &[Forward]) {
        if let Some(inner) = &self.inner {
            let mut own = self.own_ports();
            more.iter().for_each(|rule| own.add(rule));
            inner.orders.send(Order::OwnPorts(Box::new(own)));
        }
    }

    /// Tells the thread of rules that have ended.
    pub(super) fn tell_rules_removed(&self, rules: &BTreeSet<ForwardId>) {
        if let Some(inner) = &self.inner {
            inner.orders.send(Order::RulesRemoved(rules.iter().copied().collect()));
            self.tell_own_ports(&[]);
        }
    }

    /// Another egress policy is in force.
    pub(super) fn on_egress_set(&self, established: Established) {
        if let Some(inner) = &self.inner {
            inner.orders.signs.set_judged(self.stack.has_egress());
            if established == Established::Cut {
                inner.orders.send(Order::JudgeAnew);
            }
        }
    }

    /// Hands an accepted connection over to the thread. Returns it if its way is the link.
    pub(super) fn hand_over(
        &mut self,
        stream: TcpStream,
        origin: Origin,
        guest: SocketAddr,
        now: Instant,
    ) -> Option<TcpStream> {
        let Some(inner) = &self.inner else { return Some(stream) };
        if !origin.client.ip().is_loopback() {
            return Some(stream);
        }
        let used = SockRef::from(&stream).local_addr().ok().and_then(|it| it.as_socket());
        let used = used.unwrap_or(origin.local).ip().to_canonical();
        let Some(targets) = inner.targets(origin.client, used, guest, &self.stack) else {
            return Some(stream);
        };
        let passing = Passing::connection(&inner.orders.signs);
        if self.stack.judge_inbound_bridge(Protocol::Tcp, &origin, targets.first, now) {
            inner.orders.send(Order::Accepted { stream, origin, targets, passing });
        } else {
            stream.reset();
        }
        None
    }

    /// Does what the thread asks for.
    pub(super) fn obey(&mut self, ask: Ask, now: Instant) -> Next {
        match ask {
            Ask::HostSockets(kind) => self.order(Order::HostSockets(Batch::make(kind))),
            Ask::Judge { bridge, bridged } => {
                let is_allowed = match bridged {
                    Bridged::Inbound { protocol, origin, guest } => {
                        self.stack.judge_inbound_bridge(of(protocol), &origin, guest, now)
                    }
                    Bridged::Outbound { protocol, guest, reached } => {
                        let protocol = of(protocol);
                        self.stack.judge_outbound_bridge(bridge, protocol, guest, reached, now)
                    }
                };
                self.order(Order::Verdict { bridge, is_allowed });
            }
            Ask::Stray { origin, payload, segment_len } => {
                self.on_stray(origin, &payload, segment_len, now);
            }
            Ask::Tell(event) => self.stack.tell_of_bridge(*event),
            Ask::Scanned { open, close } => {
                self.close_scanned(&close, now);
                self.open_scanned(&open);
            }
            Ask::Panicked => return Next::End,
        }
        Next::GoOn
    }

    /// Treats what a bridge was not to receive as if the forwarded port had received it.
    fn on_stray(&mut self, origin: Origin, payload: &[u8], segment_len: Option<u16>, now: Instant) {
        let Some(id) = self.forwards.port_of(&origin) else { return };
        let Some(guest) = self.forwards.guest(id) else { return };
        if let Some(inner) = &mut self.inner
            && let Some(targets) =
                inner.targets(origin.client, origin.local.ip(), guest, &self.stack)
        {
            if self.stack.judge_inbound_bridge(Protocol::Udp, &origin, targets.first, now) {
                let passed = inner.pass(id, &self.forwards, origin, targets, payload, segment_len);
                self.stack.note(passed);
            }
        } else {
            self.stack.handle_inbound_udp(origin, guest, payload, segment_len, 0, now);
        }
    }

    /// Passes other rules on to the thread.
    pub(super) fn set_splices(
        &self,
        rules: SpliceRules,
        reply: oneshot::Sender<Result<(), SplicesError>>,
    ) {
        let mut guests = rules.scanned.iter().flat_map(Forward::guests);
        match &self.inner {
            Some(inner) if guests.all(|guest| self.stack.is_forwardable(guest)) => {
                inner.orders.send(Order::SetRules { rules, reply });
            }
            Some(_) => drop(reply.send(Err(SplicesError::Range))),
            None => drop(reply.send(Err(SplicesError::Unchangeable))),
        }
    }

    /// Answers with the counters. The thread adds those of its bridges.
    pub(super) fn tell_stats(&self, stats: Stats, reply: oneshot::Sender<Stats>) {
        match &self.inner {
            Some(inner) => inner.orders.send(Order::Stats { stats: Box::new(stats), reply }),
            // The requester may have gone.
            None => drop(reply.send(stats)),
        }
    }

    fn order(&self, order: Order) {
        if let Some(inner) = &self.inner {
            inner.orders.send(order);
        }
    }

    /// Opens ports one by one, and answers.
    fn open_scanned(&mut self, rules: &[Forward]) {
        let mut failed = Vec::new();
        // Before they are open, or they might be taken for foreign ones.
        self.tell_own_ports(rules);
        for rule in rules {
            let rules = core::slice::from_ref(rule);
            let verified = self.verify_guests(rules.iter().copied());
            match verified.and_then(|()| self.forwards.add_all(rules)) {
                Ok(added) => {
                    tracing::debug!(rules = ?added, "forward added");
                    if let Some(inner) = &mut self.inner {
                        let key = (rule.protocol, rule.host);
                        inner.scanned.extend(added.iter().map(|&(id, _)| (key, id)));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a port that is in use in the namespace was left out");
                    failed.push(*rule);
                }
            }
        }
        self.tell_own_ports(&[]);
        self.order(Order::ScannedOpen { failed });
    }

    fn close_scanned(&mut self, rules: &[Forward], now: Instant) {
        let Some(inner) = &mut self.inner else { return };
        let mut removed = BTreeSet::new();
        for rule in rules {
            if let Some(id) = inner.scanned.remove(&(rule.protocol, rule.host))
                // Somebody else may have removed it.
                && let Ok(ids) = self.forwards.remove_all(id.0..=id.0)
            {
                removed.extend(ids);
            }
        }
        if !removed.is_empty() {
            tracing::debug!(?removed, "forwards removed");
            self.stack.handle_forwards_removed(&removed, now);
            self.tell_rules_removed(&removed);
        }
    }

    /// A part of the list of flows: the flow table comes before the bridges.
    pub(super) fn list_all_flows(
        &mut self,
        first: u32,
        reply: oneshot::Sender<FlowPage>,
        now: Instant,
    ) {
        match &self.inner {
            Some(inner) if first >= FIRST => inner.orders.send(Order::ListFlows { first, reply }),
            inner => {
                let bridges = inner.is_some().then_some(FIRST);
                let page = self.list_flows(first, now);
                let _ = reply.send(FlowPage { next: page.next.or(bridges), ..page });
            }
        }
    }

    /// The same, with verdicts.
    pub(super) fn list_all_judged_flows(
        &mut self,
        first: u32,
        reply: oneshot::Sender<JudgedFlowPage>,
        now: Instant,
    ) {
        match &self.inner {
            Some(inner) if first >= FIRST => {
                inner.orders.send(Order::ListJudgedFlows { first, reply });
            }
            inner => {
                let bridges = inner.is_some().then_some(FIRST);
                let page = self.list_judged_flows(first, now);
                let _ = reply.send(JudgedFlowPage { next: page.next.or(bridges), ..page });
            }
        }
    }

    /// Ends a flow or a bridge.
    pub(super) fn cut(&mut self, flow: FlowId, reply: oneshot::Sender<bool>, now: Instant) {
        match &self.inner {
            Some(inner) if flow.index >= FIRST => {
                inner.orders.send(Order::Cut { bridge: flow, reply });
            }
            Some(_) | None => {
                let _ = reply.send(self.stack.cut(flow, now));
            }
        }
    }
}

const fn of(protocol: ForwardProtocol) -> Protocol {
    match protocol {
        ForwardProtocol::Tcp => Protocol::Tcp,
        ForwardProtocol::Udp => Protocol::Udp,
    }
}
