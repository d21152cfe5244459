//! What the rules about one destination say, by protocol and port.
//!
//! Owns the tables of ports: disjoint ranges in order, each with the strictest action. A look-up is
//! a binary search, however many rules there are.

use core::cmp::Ordering;

use super::rule::{Action, PortRange, Verify};
use crate::protocol::Protocol;

/// What the rules say where they say something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Said {
    /// The strictest action.
    pub(super) action: Action,
    /// `Off` if a rule with this action says so.
    pub(super) verify: Verify,
    /// The first of the rules with this action.
    pub(super) rule: u32,
}

/// Both together: deny before ask before allow.
pub(super) fn both(a: Option<Said>, b: Option<Said>) -> Option<Said> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    Some(match a.action.cmp(&b.action) {
        Ordering::Greater => a,
        Ordering::Less => b,
        Ordering::Equal => Said {
            verify: if a.verify == Verify::Off { a.verify } else { b.verify },
            rule: a.rule.min(b.rule),
            ..a
        },
    })
}

/// From one port to the next cell.
#[derive(Clone, Copy, Debug)]
struct Cell {
    first: u16,
    /// Of an address that any name may have, and of any address in a rule about addresses.
    public: Option<Said>,
    /// Of a private address that a name has: only rules with `private=yes` allow it.
    private: Option<Said>,
}

/// One protocol's ports.
#[derive(Default, Debug)]
struct Ports {
    /// In order. Nothing is said about ports before the first.
    cells: Box<[Cell]>,
    /// Whether some port is allowed.
    opens: bool,
    /// Whether some port is allowed of a private address that a name has.
    opens_private: bool,
    /// Whether a rule asks about some port, even if another one denies it.
    asks: bool,
    /// Whether such a rule says `private=yes`.
    asks_private: bool,
}

/// A rule's share in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) said: Said,
    /// `private=yes`.
    pub(super) private: bool,
    pub(super) kind: Kind,
    pub(super) ports: PortRange,
}

/// What a table is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Echo,
    /// Looking a name up.
    Lookup,
}

/// All ports, the reserved port 0 included.
pub(super) const ALL_PORTS: PortRange = PortRange { first: 0, last: u16::MAX };

impl From<Protocol> for Kind {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Echo => Self::Echo,
        }
    }
}

/// All protocols and ports of one destination.
#[derive(Default, Debug)]
pub(super) struct Access([Ports; 4]);

impl Access {
    pub(super) fn new(entries: &[Entry]) -> Self {
        Self([Kind::Tcp, Kind::Udp, Kind::Echo, Kind::Lookup].map(|kind| Ports::new(entries, kind)))
    }

    /// What is said about `port`, of a `private` address that a name has or of any other.
    pub(super) fn at(&self, kind: Kind, port: u16, private: bool) -> Option<Said> {
        let cells = &self.0[kind as usize].cells;
        let behind = cells.partition_point(|cell| cell.first <= port);
        let cell = cells.get(behind.checked_sub(1)?)?;
        if private { cell.private } else { cell.public }
    }

    /// What is said about looking a name up.
    pub(super) fn lookup(&self) -> Option<Said> {
        self.at(Kind::Lookup, 0, false)
    }

    /// Whether some port of a protocol is allowed.
    pub(super) fn opens(&self, kind: Kind, private: bool) -> bool {
        let ports = &self.0[kind as usize];
        if private { ports.opens_private } else { ports.opens }
    }

    /// Whether some port of any protocol is allowed.
    pub(super) fn opens_any(&self, private: bool) -> bool {
        [Kind::Tcp, Kind::Udp, Kind::Echo].into_iter().any(|kind| self.opens(kind, private))
    }

    /// Whether something is said about some port of a private address that a name has.
    pub(super) fn counts_at_private(&self) -> bool {
        [Kind::Tcp, Kind::Udp, Kind::Echo]
            .into_iter()
            .any(|kind| self.0[kind as usize].cells.iter().any(|cell| cell.private.is_some()))
    }

    /// Whether a rule asks about some port of any protocol, even if another one denies it.
    pub(super) fn asks(&self) -> bool {
        self.0.iter().any(|ports| ports.asks)
    }

    /// Whether a rule with `private=yes` asks about some port of any protocol.
    pub(super) fn asks_private(&self) -> bool {
        self.0.iter().any(|ports| ports.asks_private)
    }

    /// The ports at which what is said changes.
    pub(super) fn turns(&self, kind: Kind) -> impl Iterator<Item = u16> {
        self.0[kind as usize].cells.iter().map(|cell| cell.first)
    }
}

impl Ports {
    fn new(entries: &[Entry], kind: Kind) -> Self {
        let of = |wanted: &dyn Fn(&Entry) -> bool| {
            let entries = entries.iter().filter(|entry| entry.kind == kind && wanted(entry));
            disjoint(entries.copied().collect())
        };
        // Within each of these lists one entry is as good as another.
        let allowed = |entry: &Entry| entry.said.action == Action::Allow;
        let all = [
            of(&|entry| entry.said.action == Action::Deny),
            of(&|entry| entry.said.action == Action::Ask),
            of(&|entry| allowed(entry) && entry.private && entry.said.verify == Verify::Off),
            of(&|entry| allowed(entry) && entry.private && entry.said.verify == Verify::Auto),
            of(&|entry| allowed(entry) && !entry.private && entry.said.verify == Verify::Off),
            of(&|entry| allowed(entry) && !entry.private && entry.said.verify == Verify::Auto),
        ];
        let mut turns: Vec<u16> = all
            .iter()
            .flatten()
            .flat_map(|(ports, _)| [Some(ports.first), ports.last.checked_add(1)])
            .flatten()
            .collect();
        turns.sort_unstable();
        turns.dedup();
        let cell = |first: u16| {
            let mut cell = Cell { first, public: None, private: None };
            for ranges in &all {
                let behind = ranges.partition_point(|(ports, _)| ports.first <= first);
                let Some((ports, entry)) = behind.checked_sub(1).and_then(|at| ranges.get(at))
                else {
                    continue;
                };
                if ports.last < first {
                    continue;
                }
                cell.public = both(cell.public, Some(entry.said));
                if entry.private || entry.said.action != Action::Allow {
                    cell.private = both(cell.private, Some(entry.said));
                }
            }
            cell
        };
        let mut cells: Vec<Cell> = turns.into_iter().map(cell).collect();
        cells.dedup_by(|b, a| (a.public, a.private) == (b.public, b.private));
        let [_, asked, ..] = &all;
        let allows = |said: Option<Said>| said.is_some_and(|said| said.action == Action::Allow);
        Self {
            opens: cells.iter().any(|cell| allows(cell.public)),
            opens_private: cells.iter().any(|cell| allows(cell.private)),
            asks: !asked.is_empty(),
            asks_private: entries.iter().any(|entry| {
                entry.kind == kind && entry.said.action == Action::Ask && entry.private
            }),
            cells: cells.into(),
        }
    }
}

/// The ranges of `entries` in order, without overlap.
fn disjoint(mut entries: Vec<Entry>) -> Vec<(PortRange, Entry)> {
    entries.sort_unstable_by_key(|entry| (entry.ports.first, entry.said.rule));
    let mut disjoint: Vec<(PortRange, Entry)> = Vec::with_capacity(entries.len());
    let mut next = Some(0);
    for entry in entries {
        let Some(first) = next.map(|next: u16| next.max(entry.ports.first)) else { break };
        if first <= entry.ports.last {
            disjoint.push((PortRange { first, last: entry.ports.last }, entry));
            next = entry.ports.last.checked_add(1);
        }
    }
    disjoint
}
