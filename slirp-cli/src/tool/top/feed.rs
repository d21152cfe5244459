//! What is known of a network: answers and events, summed up.
//!
//! Owns the numbers that the panes show. Flows and names are read anew with each refresh. The bytes
//! of a destination are those of its flows, open and ended; what a flow had at its end comes with
//! its event, or is what was seen last. All text is escaped on its way in, and every collection is
//! bounded, since a guest can open and look up what it likes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tool::question::Question;
use crate::tool::record::Record;
use crate::tool::shown::foreign;

/// Rows of each collection (arbitrary).
const ROWS_CAP: usize = 4096;
/// Characters of a text.
const TEXT_CAP: usize = 253;

/// The text at a key, escaped.
fn text(row: &Value, key: &str) -> Option<String> {
    row.get(key).and_then(Value::as_str).map(|text| foreign(text, TEXT_CAP))
}

fn number(row: &Value, key: &str) -> Option<u64> {
    row.get(key).and_then(Value::as_u64)
}

fn span(row: &Value, key: &str) -> Duration {
    Duration::from_millis(number(row, key).unwrap_or(0))
}

fn texts(row: &Value, key: &str) -> Vec<String> {
    let texts = row.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    texts.iter().filter_map(Value::as_str).map(|text| foreign(text, TEXT_CAP)).collect()
}

/// The rows of an answer.
fn rows<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Bytes both ways, seen from the guest.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Bytes {
    pub(super) out: u64,
    pub(super) back: u64,
}

impl Bytes {
    fn plus(self, other: Self) -> Self {
        Self { out: self.out.saturating_add(other.out), back: self.back.saturating_add(other.back) }
    }

    fn minus(self, other: Self) -> Self {
        Self { out: self.out.saturating_sub(other.out), back: self.back.saturating_sub(other.back) }
    }

    /// A second's share of what came in `span`.
    fn per_second(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
        let share = |bytes: u64| bytes.saturating_mul(1000) / millis;
        Self { out: share(self.out), back: share(self.back) }
    }
}

/// An open flow.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) id: String,
    pub(super) guest: String,
    pub(super) member: Option<u64>,
    pub(super) proto: String,
    pub(super) remote: String,
    /// The destination that it counts for.
    pub(super) place: String,
    pub(super) port: u64,
    pub(super) verdict: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) state: String,
    pub(super) is_inbound: bool,
    pub(super) age: Duration,
    pub(super) idle: Duration,
    pub(super) bytes: Bytes,
    pub(super) rate: Bytes,
}

/// A name or address that the guest talks to, has talked to, or may.
#[derive(Clone, Default, Debug)]
pub(super) struct Place {
    pub(super) ports: BTreeSet<u64>,
    pub(super) flows: u64,
    pub(super) verdict: Option<String>,
    pub(super) rule: Option<String>,
    pub(super) addresses: Vec<String>,
    /// What its ended flows had.
    ended: Bytes,
    pub(super) bytes: Bytes,
    pub(super) rate: Bytes,
    /// When something last happened.
    pub(super) active_at: Option<Instant>,
}

/// Equal refusals, or equal lookups.
#[derive(Clone, Debug)]
pub(super) struct Repeated {
    pub(super) guest: String,
    pub(super) cause: String,
    pub(super) count: u64,
    pub(super) last_at: Instant,
}

/// A rule in force.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) expires: Option<Duration>,
}

/// What `info` says.
#[derive(Clone, Default, Debug)]
pub(super) struct Info {
    pub(super) version: String,
    pub(super) uptime: Duration,
    /// Revision, rules, default and mode of the policy in force.
    pub(super) policy: Option<(u64, u64, String, String)>,
    pub(super) flows: u64,
    pub(super) denied: u64,
    /// Numbers of members, and their addresses.
    pub(super) members: Vec<(u64, Vec<String>)>,
}

/// See the [module](self).
#[derive(Default, Debug)]
pub(super) struct Feed {
    pub(super) info: Info,
    pub(super) flows: Vec<Flow>,
    pub(super) places: BTreeMap<String, Place>,
    /// By destination, port and protocol.
    pub(super) denied: BTreeMap<(String, u64, String), Repeated>,
    pub(super) denied_at: Option<Instant>,
    /// By name and type.
    pub(super) lookups: BTreeMap<(String, String), Repeated>,
    pub(super) rules: Vec<Rule>,
    /// Members that the rules are not in force for: they have policies of their own.
    pub(super) exceptions: Vec<u64>,
    pub(super) questions: Vec<Question>,
    pub(super) rate: Bytes,
    /// Events that did not reach us.
    pub(super) lost: u64,
    /// Flows that have ended lately, by their ids: where they went and what has been counted.
    ended: BTreeMap<String, (String, Bytes)>,
    /// Where flows go whose events came before their rows.
    bound_for: BTreeMap<String, String>,
    read_at: Option<Instant>,
}

/// Makes room in a full map: the half goes in which nothing has happened for longest.
fn make_room<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, last_at: impl Fn(&V) -> Option<Instant>) {
    if map.len() < ROWS_CAP {
        return;
    }
    let mut ages: Vec<_> = map.iter().map(|(key, row)| (last_at(row), key.clone())).collect();
    ages.sort_unstable();
    for (_, key) in ages.drain(..ROWS_CAP / 2) {
        map.remove(&key);
    }
}

impl Feed {
    /// An answer to `info`.
    pub(super) fn on_info(&mut self, answer: &Value) {
        let policy = answer.get("policy").filter(|policy| policy.is_object()).map(|policy| {
            let word = |key| text(policy, key).unwrap_or_default();
            let count = |key| number(policy, key).unwrap_or(0);
            (count("revision"), count("rules"), word("default"), word("mode"))
        });
        let members = rows(answer, "members").iter().take(ROWS_CAP);
        self.info = Info {
            version: text(answer, "version").unwrap_or_default(),
            uptime: span(answer, "uptime_ms"),
            policy,
            flows: number(answer, "flows").unwrap_or(0),
            denied: number(answer, "denied").unwrap_or(0),
            members: members
                .filter_map(|row| Some((number(row, "member")?, texts(row, "addresses"))))
                .collect(),
        };
    }

    /// All rows of `questions`.
    pub(super) fn on_questions(&mut self, answer: &Value, now: Instant) {
        self.questions = Question::list(answer, now);
    }

    /// All rows of `policy_get`.
    pub(super) fn on_rules(&mut self, rules: &[Value]) {
        let rule = |row: &Value| {
            let expires = number(row, "expires_s").map(Duration::from_secs);
            Some(Rule { id: text(row, "id")?, text: text(row, "text")?, expires })
        };
        self.rules = rules.iter().filter_map(rule).collect();
    }

    /// An answer to `policy_get`.
    pub(super) fn on_policy(&mut self, answer: &Value) {
        let members = rows(answer, "exceptions").iter().take(ROWS_CAP);
        self.exceptions = members.filter_map(Value::as_u64).collect();
    }

    /// All rows of `names` and `flows`, which belong together.
    pub(super) fn on_traffic(&mut self, names: &[Value], flows: &[Value], now: Instant) {
        let span = self.read_at.map(|before| now.saturating_duration_since(before));
        self.read_at = Some(now);
        let before: BTreeMap<String, (String, Bytes)> =
            self.flows.drain(..).map(|flow| (flow.id, (flow.place, flow.bytes))).collect();
        let mut is_open = BTreeSet::new();
        for row in flows.iter().take(4 * ROWS_CAP) {
            let Some(mut flow) = flow(row) else { continue };
            if self.ended.contains_key(&flow.id) {
                continue;
            }
            is_open.insert(flow.id.clone());
            self.bound_for.remove(&flow.id);
            if let Some(span) = span {
                let seen = before.get(&flow.id).map(|(_, bytes)| *bytes).unwrap_or_default();
                flow.rate = flow.bytes.minus(seen).per_second(span);
            }
            self.flows.push(flow);
        }
        for (id, (place, bytes)) in before {
            if !is_open.contains(&id) && !self.ended.contains_key(&id) {
                self.end(id, place, bytes, now);
            }
        }
        let totals: BTreeMap<String, Bytes> =
            self.places.iter().map(|(name, place)| (name.clone(), place.bytes)).collect();
        for place in self.places.values_mut() {
            (place.flows, place.bytes) = (0, place.ended);
            place.addresses.clear();
        }
        let mut is_named = BTreeSet::new();
        for row in names.iter().take(ROWS_CAP) {
            let Some(name) = text(row, "name") else { continue };
            let place = self.place(&name);
            let (verdict, rule) = (text(row, "verdict"), text(row, "rule"));
            // Another member may have another policy.
            let is_other =
                !is_named.insert(name) && (&place.verdict, &place.rule) != (&verdict, &rule);
            (place.verdict, place.rule) =
                if is_other { (Some("mixed".into()), Some("-".into())) } else { (verdict, rule) };
            for address in texts(row, "addresses") {
                if !place.addresses.contains(&address) {
                    place.addresses.push(address);
                }
            }
        }
        for flow in std::mem::take(&mut self.flows) {
            let place = self.place(&flow.place);
            place.flows += 1;
            place.ports.insert(flow.port);
            place.bytes = place.bytes.plus(flow.bytes);
            place.active_at = place.active_at.max(now.checked_sub(flow.idle));
            if flow.verdict.is_some() || flow.rule.is_some() {
                place.verdict.clone_from(&flow.verdict);
                place.rule.clone_from(&flow.rule);
            }
            self.flows.push(flow);
        }
        self.rate = Bytes::default();
        let Some(span) = span else { return };
        for (name, place) in &mut self.places {
            let seen = totals.get(name).copied().unwrap_or_default();
            place.rate = place.bytes.minus(seen).per_second(span);
            self.rate = self.rate.plus(place.rate);
        }
    }

    /// An event.
    pub(super) fn on_event(&mut self, event: &Value, now: Instant) {
        let Some(record) = Record::of(event) else { return };
        let guest = foreign(record.guest.as_deref().unwrap_or_default(), 64);
        let cause = foreign(record.cause.as_deref().unwrap_or_default(), 32);
        match record.event.as_str() {
            "lost" => self.lost = self.lost.saturating_add(record.count),
            "dns" => {
                let shown =
                    |text: &Option<String>| foreign(text.as_deref().unwrap_or("?"), TEXT_CAP);
                let key = (shown(&record.name), shown(&record.qtype));
                let cause = shown(&record.answer);
                repeat(&mut self.lookups, key, guest, cause, record.count, now);
            }
            "end" => {
                let bytes = Bytes { out: record.bytes_out, back: record.bytes_in };
                let Some(id) = record.flow.as_deref().map(|id| foreign(id, 40)) else { return };
                let open = self.flows.iter().position(|flow| flow.id == id);
                let place = open.map(|at| self.flows.remove(at).place);
                let place = place.or_else(|| self.bound_for.remove(&id));
                let place = place.unwrap_or_else(|| place_of(&record));
                self.end(id, place, bytes, now);
            }
            "flow" | "verify" => {
                let place = place_of(&record);
                let port = u64::from(record.port);
                if record.verdict == Some(slirp_core::egress::Action::Deny) {
                    let proto = foreign(record.proto.as_deref().unwrap_or_default(), 8);
                    let cause = if record.is_enforced { cause } else { format!("would: {cause}") };
                    let key = (place.clone(), port, proto);
                    repeat(&mut self.denied, key, guest, cause, record.count, now);
                    self.denied_at = Some(now);
                }
                if let Some(flow) = record.flow.as_deref().filter(|_| !record.is_refused()) {
                    make_room(&mut self.bound_for, |_| None);
                    self.bound_for.insert(foreign(flow, 40), place.clone());
                    let place = self.place(&place);
                    place.ports.insert(port);
                    place.active_at = Some(now);
                }
            }
            _ => {}
        }
    }

    /// Counts what an ended flow had, once: of an event and of rows that lack it, the event tells
    /// the last byte.
    fn end(&mut self, id: String, name: String, bytes: Bytes, now: Instant) {
        let counted = self.ended.get(&id).map(|(_, bytes)| *bytes).unwrap_or_default();
        let place = self.place(&name);
        place.ended = place.ended.plus(bytes.minus(counted));
        place.active_at = Some(now);
        make_room(&mut self.ended, |_| None);
        self.ended.insert(id, (name, bytes));
    }

    fn place(&mut self, name: &str) -> &mut Place {
        if !self.places.contains_key(name) {
            make_room(&mut self.places, |place| place.active_at);
        }
        self.places.entry(name.to_owned()).or_default()
    }
}

fn repeat<K: Ord + Clone>(
    map: &mut BTreeMap<K, Repeated>,
    key: K,
    guest: String,
    cause: String,
    count: u64,
    now: Instant,
) {
    if !map.contains_key(&key) {
        make_room(map, |row| Some(row.last_at));
    }
    let fresh = Repeated { guest: String::new(), cause: String::new(), count: 0, last_at: now };
    let row = map.entry(key).or_insert(fresh);
    *row = Repeated { guest, cause, count: row.count.saturating_add(count), last_at: now };
}

fn flow(row: &Value) -> Option<Flow> {
    let remote = text(row, "remote").unwrap_or_default();
    let address = text(row, "dst").unwrap_or_else(|| {
        remote.rsplit_once(':').map_or(remote.as_str(), |(host, _)| host).to_owned()
    });
    let port = number(row, "port")
        .or_else(|| remote.rsplit_once(':').and_then(|(_, port)| port.parse().ok()));
    let name = texts(row, "names").into_iter().next();
    Some(Flow {
        id: text(row, "flow")?,
        guest: text(row, "guest").unwrap_or_default(),
        member: number(row, "member"),
        proto: text(row, "proto").unwrap_or_default(),
        place: name.unwrap_or_else(|| format!("({address})")),
        remote,
        port: port.unwrap_or(0),
        verdict: text(row, "verdict"),
        rule: text(row, "rule"),
        cause: text(row, "cause"),
        state: text(row, "state").unwrap_or_default(),
        is_inbound: row.get("inbound").and_then(Value::as_bool).unwrap_or(false),
        age: span(row, "age_ms"),
        idle: span(row, "idle_ms"),
        bytes: Bytes {
            out: number(row, "bytes_out").unwrap_or(0),
            back: number(row, "bytes_in").unwrap_or(0),
        },
        rate: Bytes::default(),
    })
}

/// The destination that an event is about: a name, or an address in parentheses.
fn place_of(record: &Record) -> String {
    match (record.names.first().or(record.claim.as_ref()), record.dst) {
        (Some(name), _) => foreign(name, TEXT_CAP),
        (None, Some(address)) => format!("({address})"),
        (None, None) => "?".to_owned(),
    }
}
