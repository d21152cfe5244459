//! What a guest did, summed up by destination.
//!
//! Owns how the events of one flow are joined, and which destination a flow counts for. A flow that
//! the guest was not refused counts for the name in its first bytes and for the name that led it to
//! its address; without a name it counts for the address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use slirp_core::egress::{Action, Name};

use crate::tool::record::Record;

/// Flows of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Sum {
    pub(super) connections: u64,
    pub(super) bytes_out: u64,
}

impl Sum {
    pub(super) fn add(&mut self, other: Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
    }
}

/// Where a flow went.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Name(Name),
    Address(IpAddr),
    /// What no rule can name, escaped.
    Odd(String),
}

/// A protocol, as rules write it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Proto {
    Tcp,
    Udp,
    Icmp,
}

/// A destination that one rule may be about, but for its ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Destination {
    pub(super) place: Place,
    pub(super) proto: Proto,
    /// Whether the first bytes had no name although the port's should have one.
    pub(super) is_nameless: bool,
    /// Whether a name led to a private address.
    pub(super) is_private: bool,
}

/// Flows to one destination, by port. ICMP has none: 0.
pub(super) type Ports = BTreeMap<u16, Sum>;

/// All flows of some logs.
#[derive(Default, Debug)]
pub(super) struct Tally {
    /// What the guest was not refused.
    pub(super) passed: BTreeMap<Destination, Ports>,
    /// What it was refused.
    pub(super) refused: BTreeMap<Destination, Ports>,
    /// Names that were looked up, and how often.
    pub(super) lookups: BTreeMap<String, u64>,
    /// TLS connections that hid their names, or looked as if they did.
    pub(super) hidden: u64,
    /// Events that the logs lack.
    pub(super) lost: u64,
    /// Flows that have not ended yet.
    open: BTreeMap<(Option<String>, Option<u64>, String), Flow>,
}

/// What has been read about one flow.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Flow {
    proto: Option<Proto>,
    dst: Option<IpAddr>,
    port: u16,
    names: Vec<String>,
    /// Names in its first bytes: one, or one for each HTTP request.
    claims: Vec<String>,
    is_nameless: bool,
    is_inbound: bool,
    is_refused: bool,
    /// Whether it waits for a decision.
    is_asked: bool,
    sum: Sum,
}

impl Tally {
    /// Adds an event. The events of a flow have to come in order.
    pub(super) fn add(&mut self, record: &Record) {
        match record.event.as_str() {
            "start" => self.finish(),
            "lost" => self.lost = self.lost.saturating_add(record.count),
            "dns" => {
                if let Some(name) = &record.name {
                    let count = self.lookups.entry(name.clone()).or_default();
                    *count = count.saturating_add(record.count);
                }
            }
            "decision" => self.decide(record),
            "flow" | "verify" => self.join(record),
            "end" => self.end(record),
            _ => {}
        }
    }

    /// Counts all flows that have not ended.
    pub(super) fn finish(&mut self) {
        for (_, flow) in std::mem::take(&mut self.open) {
            self.count(flow);
        }
    }

    fn join(&mut self, record: &Record) {
        let is_hidden = record.event == "verify" && record.cause.as_deref() == Some("ech");
        self.hidden += u64::from(is_hidden);
        let key = |flow: &String| (record.guest.clone(), record.member, flow.clone());
        let Some(key) = record.flow.as_ref().map(key) else {
            // It was refused before it became a flow; the line may stand for several.
            let mut flow = Flow::default();
            flow.join(record);
            flow.sum.connections = record.count;
            return self.count(flow);
        };
        let flow = self.open.entry(key).or_default();
        flow.join(record);
        flow.sum.connections = 1;
    }

    /// A flow is over. One that began before the log has no names and does not count.
    fn end(&mut self, record: &Record) {
        let Some(flow) = &record.flow else { return };
        let key = (record.guest.clone(), record.member, flow.clone());
        if let Some(mut flow) = self.open.remove(&key) {
            flow.sum.bytes_out = record.bytes_out;
            // It was let through even if the log lacks the decision.
            flow.is_asked &= record.bytes_out == 0 && record.bytes_in == 0;
            self.count(flow);
        }
    }

    /// A question was answered: flows that wait for it pass or not.
    fn decide(&mut self, record: &Record) {
        let is_allowed = record.verdict == Some(Action::Allow);
        let proto = proto(record);
        for flow in self.open.values_mut().filter(|flow| flow.is_asked) {
            let is_it = flow.names == record.names && flow.port == record.port;
            if is_it && flow.proto == proto && (record.dst.is_none() || record.dst == flow.dst) {
                flow.is_asked = false;
                flow.is_refused |= !is_allowed;
            }
        }
    }

    fn count(&mut self, flow: Flow) {
        let Some(proto) = flow.proto.filter(|&proto| proto == Proto::Icmp || flow.port > 0) else {
            return;
        };
        // What comes in by published ports was opened by the operator.
        if flow.is_inbound {
            return;
        }
        let is_refused = flow.is_refused || flow.is_asked;
        let sums = if is_refused { &mut self.refused } else { &mut self.passed };
        let is_private = flow.dst.is_some_and(is_private);
        let mut add = |place: Place, is_nameless| {
            let is_private = is_private && matches!(place, Place::Name(_));
            let destination = Destination { place, proto, is_nameless, is_private };
            sums.entry(destination).or_default().entry(flow.port).or_default().add(flow.sum);
        };
        // Each name of the first bytes has to be allowed, and a name that led to the address.
        let led = flow.names.first();
        for claim in flow.claims.iter().filter(|_| led.is_some()) {
            add(named(claim), false);
        }
        match (led, flow.dst) {
            (Some(_), _) if flow.names.iter().any(|name| flow.claims.contains(name)) => {}
            (Some(name), _) => add(named(name), flow.is_nameless && flow.claims.is_empty()),
            // A name in first bytes opens no address that nobody has looked up.
            (None, Some(address)) => add(Place::Address(address), false),
            (None, None) => {}
        }
    }
}

impl Flow {
    fn join(&mut self, record: &Record) {
        self.proto = self.proto.or_else(|| proto(record));
        self.dst = self.dst.or(record.dst);
        if self.port == 0 {
            self.port = record.port;
        }
        if self.names.is_empty() {
            self.names.clone_from(&record.names);
        }
        match &record.claim {
            Some(claim) if !self.claims.contains(claim) => self.claims.push(claim.clone()),
            Some(_) => {}
            None => {
                self.is_nameless |=
                    record.event == "verify" && record.verdict != Some(Action::Allow);
            }
        }
        self.is_inbound |= record.is_inbound;
        self.is_refused |= record.is_refused();
        self.is_asked |=
            record.event == "flow" && record.is_enforced && record.verdict == Some(Action::Ask);
    }
}

fn proto(record: &Record) -> Option<Proto> {
    match record.proto.as_deref()? {
        "tcp" => Some(Proto::Tcp),
        "udp" => Some(Proto::Udp),
        "icmp" | "echo" => Some(Proto::Icmp),
        _ => None,
    }
}

fn named(name: &str) -> Place {
    match Name::new(name) {
        Some(name) => Place::Name(name),
        None => Place::Odd(crate::tool::shown::foreign(name, 80)),
    }
}

/// Whether only a name whose rule says `private=yes` may lead there. 198.18/15 is private too, but
/// any name may lead there (RFC 2544; proxies on a host answer lookups with it).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => matches!(v6.segments()[0], 0xfc00..=0xfdff | 0xfec0..=0xfeff),
    }
}
