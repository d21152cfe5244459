//! Where the stack's events go: the observers, and the lines of the log about flows, names and
//! discards.
//!
//! Owns what is asked of the stack's events, and how each becomes one line of the log: flows and
//! names at debug, discards at trace. Guest addresses and names are in lines of these two levels
//! alone, and payload in none. What the events mean is in [`journal`](crate::journal).

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::SystemTime;

use smoltcp::wire::IpProtocol;
use tracing::field::{DisplayValue, display};
use tracing::{Level, debug, enabled, trace};

use super::Reactor;
use crate::event::{FlowId, QueryOrigin};
use crate::host::audit::Audit;
use crate::host::events::Observer;
use crate::journal::{Detail, Ends, Event, Lookup, PacketEnds, Peer, Question, Refusal};
use crate::policy::Protocol;

impl Reactor {
    /// Asks the stack for as much as the log and the observers take. A level of the log that is
    /// turned on later goes unnoticed.
    pub(super) fn choose_detail(&mut self) {
        let detail = if enabled!(Level::TRACE) {
            Detail::Discards
        } else if enabled!(Level::DEBUG) {
            Detail::Flows
        } else {
            Detail::Nothing
        };
        self.is_logging = detail > Detail::Nothing;
        let audit = if self.audit.is_some() { Detail::Flows } else { Detail::Nothing };
        let detail = detail.max(self.observers.detail()).max(audit);
        self.stack.set_detail(detail);
        if let Some(inner) = &self.inner {
            inner.set_heard(detail >= Detail::Flows);
        }
    }

    /// Writes what happens to `audit`, from the start.
    pub(crate) fn adopt_audit(&mut self, audit: Option<Audit>) {
        self.audit = audit;
    }

    /// Has nothing new begin that an audit log would have to have and cannot have.
    pub(super) fn obey_audit(&mut self) {
        if let Some(audit) = &self.audit {
            self.stack.set_audit_duty(audit.duty());
        }
    }

    /// Has the audit log go on in another file. Returns whether there is a log.
    pub(super) fn reopen_audit(&self, file: OwnedFd) -> bool {
        if let Some(audit) = &self.audit {
            audit.reopen(file);
        }
        self.audit.is_some()
    }

    /// Has `observer` hear what happens from now on.
    pub(super) fn add_observer(&mut self, observer: Observer) {
        // What has happened before is for the others.
        self.tell_events();
        self.obey_audit();
        self.observers.add(observer);
        self.choose_detail();
    }

    /// Tells the log and the observers what has happened since the last turn.
    pub(super) fn tell_events(&mut self) {
        // Read once a turn, and only if something has happened.
        let mut at = None;
        while let Some(report) = self.stack.poll_event() {
            let at = *at.get_or_insert_with(SystemTime::now);
            if let Some(audit) = &mut self.audit {
                audit.tell(at, &report);
            }
            self.observers.tell(at, &report);
            if self.is_logging {
                if report.lost > 0 {
                    debug!(lost = report.lost, "events are missing here: too many in one turn");
                }
                write(report.event);
            }
        }
        self.tell_losses();
        if at.is_some() && self.observers.forget_gone() {
            self.choose_detail();
        }
    }

    /// Tells of events that are missing, even if none follows them.
    fn tell_losses(&mut self) {
        let lost = self.stack.take_lost_events();
        if lost > 0 && self.is_logging {
            debug!(lost, "events are missing here: too many in one turn");
        }
        let audit = self.audit.as_mut().and_then(Audit::observer);
        for observer in audit.into_iter().chain(self.observers.iter_mut()) {
            observer.note_lost(lost);
            if observer.is_behind() {
                observer.tell_lost(SystemTime::now());
            }
        }
    }

    /// Whether somebody is still to be told of events that are missing.
    pub(super) fn has_untold_losses(&self) -> bool {
        self.audit.as_ref().is_some_and(Audit::is_behind) || self.observers.are_behind()
    }
}

fn write(event: Event) {
    match event {
        Event::Opened { flow, ends, peer } => {
            let Ends { guest, remote, .. } = ends;
            let (flow, protocol) = (number(flow), protocol(ends.protocol));
            match peer {
                Peer::Host(to) => debug!(flow, protocol, %guest, %remote, %to, "flow opened"),
                Peer::Resolver => {
                    debug!(flow, protocol, %guest, %remote, to = "dns", "flow opened")
                }
                Peer::Inbound { rule, client } => {
                    let rule = rule.0;
                    debug!(flow, protocol, %guest, %remote, %client, rule, "inbound flow opened");
                }
            }
        }
        Event::Connected { flow, ends: Ends { guest, remote, .. }, after } => {
            debug!(flow = number(flow), %guest, %remote, ?after, "flow connected");
        }
        Event::Refused { flow, ends, by, .. } => {
            let Ends { guest, remote, .. } = ends;
            let (flow, protocol) = (flow.map(number), protocol(ends.protocol));
            let (by, reason) = match by {
                Refusal::Policy(reason) => ("policy", reason.as_str()),
                Refusal::Egress(cause) => ("egress", cause.as_str()),
                Refusal::Limit(reason) => ("limit", reason.as_str()),
                Refusal::Host(error) => ("host", error.as_str()),
                Refusal::EchoNotPermitted => ("host", "echo_not_permitted"),
            };
            debug!(flow, protocol, %guest, %remote, by, reason, "flow refused");
        }
        Event::Unsent { flow, ends, error, count } => {
            let Ends { guest, remote, .. } = ends;
            let (flow, protocol, reason) = (number(flow), protocol(ends.protocol), error.as_str());
            debug!(flow, protocol, %guest, %remote, reason, count, "datagrams not sent");
        }
        Event::Closed { flow, ends, ending, age, traffic, .. } => {
            let Ends { guest, remote, .. } = ends;
            let (flow, protocol, reason) = (number(flow), protocol(ends.protocol), ending.as_str());
            let (to_guest, to_host) = (traffic.to_guest, traffic.from_guest);
            debug!(
                flow, protocol, %guest, %remote, reason, ?age, to_guest, to_host, "flow closed"
            );
        }
        // What a policy refuses is a flow refused, too; the rest is for the audit log.
        Event::Judged { .. }
        | Event::Verified { .. }
        | Event::PolicySet { .. }
        | Event::QuestionOpened(_)
        | Event::QuestionEnded { .. } => {}
        Event::ManyNames { member, rule, count, .. } => {
            let (member, rule) = (member.map(|member| member.0), rule.to_string());
            debug!(member, rule, count, "many names under one wildcard");
        }
        Event::Asked { query, origin, member, question } => {
            let (guest, flow, transport) = source_of(&origin);
            let (query, member) = (query.0, member.map(|member| member.0));
            let (name, kind) = words(question.as_ref());
            debug!(query, guest, flow, member, transport, name, kind, "name asked");
        }
        Event::Answered { query, origin, member, question, answer, lookup, after, .. } => {
            let (guest, flow, _) = source_of(&origin);
            let lookup = lookup.map(Lookup::as_str);
            let (query, member) = (query.0, member.map(|member| member.0));
            let (name, kind) = words(question.as_ref());
            match answer {
                Some(answer) => {
                    let (code, records) = (answer.code, answer.records);
                    debug!(
                        query,
                        guest,
                        flow,
                        member,
                        name,
                        kind,
                        code,
                        records,
                        lookup,
                        ?after,
                        "name answered"
                    );
                }
                None => {
                    debug!(
                        query,
                        guest,
                        flow,
                        member,
                        name,
                        kind,
                        lookup,
                        ?after,
                        "name not answered"
                    );
                }
            }
        }
        Event::RateLimited { member, direction } => {
            let (member, direction) = (member.map(|member| member.0), direction.as_str());
            debug!(member, direction, "rate limited");
        }
        Event::Discarded { reason, packet } => {
            let reason = reason.as_str();
            match packet {
                Some(PacketEnds { protocol, source, destination, ports }) => {
                    let protocol = display(IpProtocol::from(protocol));
                    let (from, to) = ports.unzip();
                    let (source, destination) = (with(source, from), with(destination, to));
                    trace!(reason, protocol, source, destination, "discard");
                }
                None => trace!(reason, "discard"),
            }
        }
    }
}

/// The part of a flow's name that is not used again.
const fn number(flow: FlowId) -> u32 {
    flow.generation
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Echo => "icmp",
    }
}

/// The guest's address or its flow, and the transport.
fn source_of(
    origin: &QueryOrigin,
) -> (Option<DisplayValue<SocketAddr>>, Option<u32>, &'static str) {
    match *origin {
        QueryOrigin::Udp { guest, .. } => (Some(display(guest)), None, "udp"),
        QueryOrigin::Tcp { flow } => (None, Some(number(flow)), "tcp"),
        QueryOrigin::Own { .. } => (None, None, "own"),
    }
}

/// The name and the number of the type that were asked for.
fn words(question: Option<&Question>) -> (&str, Option<u16>) {
    question.map_or(("(unreadable)", None), |question| (&question.name, Some(question.kind)))
}

/// An address, with the port where there is one.
fn with(address: IpAddr, port: Option<u16>) -> DisplayValue<String> {
    display(
        port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string()),
    )
}
