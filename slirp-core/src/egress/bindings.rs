//! The addresses that the DNS has tied to names.
//!
//! Owns which names an address was given for and for how long, all caps on that, and which
//! addresses have an open flow. Whether an address is a fit answer is decided in
//! [`judge`](super::judge).
//!
//! | cap | what goes |
//! | --- | --- |
//! | [`ADDRESSES_OF_NAME_CAP`] | the name's binding that ends first |
//! | [`NAMES_OF_ADDRESS_CAP`] | the address's binding that ends first |
//! | all bindings, [`Bindings::new`] | the binding that ends first |
//!
//! A binding in use never goes: while its address has an open flow, and [`USED_FOR`] after the last
//! one has closed. Where all are in use, or the first [`LOOKED_AT_CAP`] to end, the new one is not
//! kept.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};

use foldhash::quality::FixedState;
use slab::Slab;

use super::compile::NameClass;
use super::name::Name;
use super::rule::{Action, Source};
use crate::member::MemberId;
use crate::time::Instant;

/// Addresses that one name may have at a time (arbitrary: large object stores answer with hundreds
/// within minutes).
const ADDRESSES_OF_NAME_CAP: usize = 1024;

/// Names that one address may have at a time (arbitrary).
const NAMES_OF_ADDRESS_CAP: usize = 64;

/// The shortest and the longest lifetime of a binding. Programs keep addresses past their time to
/// live.
const LIFETIME: (Duration, Duration) = (Duration::from_mins(5), Duration::from_hours(24));

/// How long a binding stays in use after its last flow.
const USED_FOR: Duration = Duration::from_secs(300);

/// Bindings that are looked at for one to let go, besides as many as are wanted (arbitrary: some
/// 50 us). Where all of these are in use, the new one is not kept.
const LOOKED_AT_CAP: usize = 1024;

/// Unfit addresses that are remembered, so that a refusal can say why (arbitrary).
const UNFIT_CAP: usize = 64;

/// A name that a guest has learned addresses for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LearnedName {
    /// The member of a shared network that has learned it.
    pub member: Option<MemberId>,
    /// The name.
    pub name: Name,
    /// Its addresses, at most [`ADDRESSES_TOLD`].
    pub addresses: Vec<IpAddr>,
    /// What the policy makes of a lookup of the name.
    pub action: Action,
    /// The rule that decides that, if one does.
    pub rule: Option<Source>,
    /// Open flows to its addresses. Names that share an address have its flows together.
    pub flows: u32,
    /// When the last of its addresses is forgotten, unless it is in use by then.
    pub expires_in: Duration,
}

/// Addresses of one name that a [`LearnedName`] tells at most.
pub const ADDRESSES_TOLD: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Bindings {
    names: Slab<Bound>,
    by_name: HashMap<Name, usize, FixedState>,
    by_address: HashMap<IpAddr, Address, FixedState>,
    /// All bindings, the first to end first.
    ends: BTreeSet<(Instant, usize, IpAddr)>,
    cap: usize,
    /// Answers that were not bound, the oldest first.
    unfit: VecDeque<IpAddr>,
    /// Counts the bindings that have come and gone.
    revision: u64,
    /// Counts those that have made room for others.
    evicted: u64,
}

#[derive(Debug)]
struct Bound {
    name: Name,
    class: NameClass,
    addresses: Vec<IpAddr>,
}

/// An address that is bound.
#[derive(Default, Debug)]
struct Address {
    /// Flows to it.
    open: u32,
    /// When the last of them has not been open for [`USED_FOR`].
    used_until: Instant,
    ties: Vec<Tie>,
}

/// One of its names.
#[derive(Debug)]
struct Tie {
    name: usize,
    class: NameClass,
    ends: Instant,
}

impl Address {
    fn is_in_use(&self, now: Instant) -> bool {
        self.open > 0 || now < self.used_until
    }

    fn tie(&mut self, name: usize) -> Option<&mut Tie> {
        self.ties.iter_mut().find(|tie| tie.name == name)
    }
}

impl Bindings {
    /// No bindings, and never more than `cap`.
    pub(super) fn new(cap: usize, seed: u64) -> Self {
        Self {
            names: Slab::new(),
            by_name: HashMap::with_hasher(FixedState::with_seed(seed)),
            by_address: HashMap::with_hasher(FixedState::with_seed(seed)),
            ends: BTreeSet::new(),
            cap,
            unfit: VecDeque::new(),
            revision: 0,
            evicted: 0,
        }
    }

    /// The classes of the names of `address`.
    pub(super) fn classes(
        &self,
        address: IpAddr,
        now: Instant,
    ) -> impl Iterator<Item = NameClass> + Clone {
        let found = self.by_address.get(&address);
        let is_in_use = found.is_some_and(|address| address.is_in_use(now));
        let ties = found.map_or(&[][..], |address| &address.ties);
        ties.iter().filter(move |tie| is_in_use || now < tie.ends).map(|tie| tie.class)
    }

    /// The names of `address` that count, with their classes.
    pub(super) fn live(
        &self,
        address: IpAddr,
        now: Instant,
    ) -> impl Iterator<Item = (NameClass, &Name)> {
        let found = self.by_address.get(&address);
        let is_in_use = found.is_some_and(|address| address.is_in_use(now));
        let ties = found.map_or(&[][..], |address| &address.ties);
        let live = ties.iter().filter(move |tie| is_in_use || now < tie.ends);
        live.filter_map(|tie| Some((tie.class, &self.names.get(tie.name)?.name)))
    }

    /// The names of `address`.
    pub(super) fn names(&self, address: IpAddr) -> impl Iterator<Item = &Name> {
        let ties = self.by_address.get(&address).map_or(&[][..], |address| &address.ties);
        ties.iter().filter_map(|tie| self.names.get(tie.name)).map(|bound| &bound.name)
    }

    /// Binds `addresses`, each with its time to live in seconds, to a name.
    pub(super) fn bind(
        &mut self,
        name: &Name,
        class: NameClass,
        addresses: impl Iterator<Item = (IpAddr, u32)>,
        now: Instant,
    ) {
        let mut new = Vec::new();
        let known = self.by_name.get(name).copied();
        for (address, ttl) in addresses {
            let lifetime = Duration::from_secs(ttl.into()).clamp(LIFETIME.0, LIFETIME.1);
            let is_known = known.is_some_and(|known| self.extend(known, address, now + lifetime));
            if !is_known && new.len() < ADDRESSES_OF_NAME_CAP {
                new.push((address, now + lifetime));
            }
        }
        new.sort_unstable_by_key(|&(address, _)| address);
        new.dedup_by_key(|(address, _)| *address);
        if new.is_empty() {
            return;
        }
        if let Some(known) = known {
            self.make_room_of_name(known, new.len(), now);
        }
        self.make_room(new.len(), now);
        // Room was made by letting bindings go, the name's own last one perhaps.
        let name = self.by_name.get(name).copied().unwrap_or_else(|| {
            let bound = Bound { name: name.clone(), class, addresses: Vec::new() };
            let number = self.names.insert(bound);
            self.by_name.insert(name.clone(), number);
            number
        });
        for (address, ends) in new {
            self.insert(name, class, address, ends, now);
        }
        self.forget_if_unbound(name);
    }

    /// Keeps a binding until `ends` at least. Returns whether there is one.
    fn extend(&mut self, name: usize, address: IpAddr, ends: Instant) -> bool {
        let Some(tie) = self.by_address.get_mut(&address).and_then(|found| found.tie(name)) else {
            return false;
        };
        if tie.ends < ends {
            self.ends.remove(&(tie.ends, name, address));
            self.ends.insert((ends, name, address));
            tie.ends = ends;
        }
        true
    }

    fn insert(
        &mut self,
        name: usize,
        class: NameClass,
        address: IpAddr,
        ends: Instant,
        now: Instant,
    ) {
        let addresses = self.names.get(name).map_or(0, |bound| bound.addresses.len());
        if self.ends.len() >= self.cap || addresses >= ADDRESSES_OF_NAME_CAP {
            return;
        }
        if let Some(found) = self.by_address.get(&address)
            && found.ties.len() >= NAMES_OF_ADDRESS_CAP
        {
            let first = found.ties.iter().min_by_key(|tie| tie.ends).map(|tie| tie.name);
            match first {
                Some(first) if !found.is_in_use(now) => self.evict(first, address),
                Some(_) | None => return,
            }
        }
        let Some(bound) = self.names.get_mut(name) else { return };
        let ties = &mut self.by_address.entry(address).or_default().ties;
        // Most names have one address, and most addresses one name.
        if bound.addresses.is_empty() {
            bound.addresses.reserve_exact(1);
        }
        if ties.is_empty() {
            ties.reserve_exact(1);
        }
        bound.addresses.push(address);
        ties.push(Tie { name, class, ends });
        self.ends.insert((ends, name, address));
        self.revision += 1;
    }

    /// Lets bindings of a name go until it may have `wanted` more addresses.
    fn make_room_of_name(&mut self, name: usize, wanted: usize, now: Instant) {
        let Some(bound) = self.names.get(name) else { return };
        let excess = (bound.addresses.len() + wanted).saturating_sub(ADDRESSES_OF_NAME_CAP);
        if excess == 0 {
            return;
        }
        let ends_of = |&address: &IpAddr| {
            let found = self.by_address.get(&address).filter(|found| !found.is_in_use(now))?;
            let tie = found.ties.iter().find(|tie| tie.name == name)?;
            Some((tie.ends, address))
        };
        let mut free: Vec<_> = bound.addresses.iter().filter_map(ends_of).collect();
        free.sort_unstable();
        for (_, address) in free.into_iter().take(excess) {
            self.evict(name, address);
        }
    }

    /// Lets bindings go until there is room for `wanted` more.
    fn make_room(&mut self, wanted: usize, now: Instant) {
        let excess = (self.ends.len() + wanted).saturating_sub(self.cap);
        if excess == 0 {
            return;
        }
        let is_free = |address| {
            !self.by_address.get(address).is_some_and(|found: &Address| found.is_in_use(now))
        };
        let first = self.ends.iter().take(excess + LOOKED_AT_CAP);
        let free = first.filter(|(_, _, address)| is_free(address));
        let free: Vec<_> = free.take(excess).copied().collect();
        for (_, name, address) in free {
            self.evict(name, address);
        }
    }

    /// Lets one binding go for another.
    fn evict(&mut self, name: usize, address: IpAddr) {
        self.release(name, address);
        self.evicted += 1;
    }

    /// Lets one binding go.
    fn release(&mut self, name: usize, address: IpAddr) {
        let Some(found) = self.by_address.get_mut(&address) else { return };
        let Some(at) = found.ties.iter().position(|tie| tie.name == name) else { return };
        let tie = found.ties.swap_remove(at);
        if found.ties.is_empty() {
            self.by_address.remove(&address);
        }
        self.ends.remove(&(tie.ends, name, address));
        self.revision += 1;
        if let Some(bound) = self.names.get_mut(name)
            && let Some(at) = bound.addresses.iter().position(|&bound| bound == address)
        {
            bound.addresses.swap_remove(at);
        }
        self.forget_if_unbound(name);
    }

    fn forget_if_unbound(&mut self, name: usize) {
        if self.names.get(name).is_some_and(|bound| bound.addresses.is_empty()) {
            let bound = self.names.remove(name);
            self.by_name.remove(&bound.name);
        }
    }

    /// Remembers an address that was answered and is not bound.
    pub(super) fn note_unfit(&mut self, address: IpAddr) {
        if !self.is_unfit(address) {
            if self.unfit.len() >= UNFIT_CAP {
                self.unfit.pop_front();
            }
            self.unfit.push_back(address);
        }
    }

    /// Whether an answer with `address` is remembered as unfit.
    pub(super) fn is_unfit(&self, address: IpAddr) -> bool {
        self.unfit.contains(&address)
    }

    /// A flow to `address` was opened.
    pub(super) fn open(&mut self, address: IpAddr) {
        if let Some(found) = self.by_address.get_mut(&address) {
            found.open = found.open.saturating_add(1);
        }
    }

    /// A flow to `address` has closed.
    pub(super) fn close(&mut self, address: IpAddr, now: Instant) {
        if let Some(found) = self.by_address.get_mut(&address) {
            // A flow may be older than the binding.
            found.open = found.open.saturating_sub(1);
            found.used_until = now + USED_FOR;
        }
    }

    /// The names in `count` slots from slot `first` on, each with its class, and the slot to go on
    /// from; `None` at the end. Costs as much as there are slots and addresses in the range.
    pub(super) fn in_slots(
        &self,
        first: usize,
        count: usize,
        now: Instant,
    ) -> (impl Iterator<Item = (LearnedName, NameClass)>, Option<usize>) {
        let end = first.saturating_add(count);
        let bound = (first..end).filter_map(|slot| Some((slot, self.names.get(slot)?)));
        let rows = bound.map(move |(slot, Bound { name, class, addresses })| {
            let found = addresses.iter().filter_map(|address| self.by_address.get(address));
            let ends = found.clone().filter_map(|found| {
                let tie = found.ties.iter().find(|tie| tie.name == slot)?;
                Some(tie.ends.max(found.used_until))
            });
            let row = LearnedName {
                member: None,
                name: name.clone(),
                addresses: addresses.iter().take(ADDRESSES_TOLD).copied().collect(),
                action: Action::Deny,
                rule: None,
                flows: found.map(|found| found.open).fold(0, u32::saturating_add),
                expires_in: ends.max().unwrap_or(now).saturating_since(now),
            };
            (row, *class)
        });
        (rows, (end < self.names.capacity()).then_some(end))
    }

    /// Finds the classes of all names anew.
    pub(super) fn classify(&mut self, class: impl Fn(&Name) -> NameClass) {
        for (number, bound) in &mut self.names {
            bound.class = class(&bound.name);
            for address in &bound.addresses {
                if let Some(tie) = self.by_address.get_mut(address).and_then(|at| at.tie(number)) {
                    tie.class = bound.class;
                }
            }
        }
    }

    /// When the first binding ends, unless it is in use.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends.first().map(|&(ends, ..)| ends)
    }

    /// Lets bindings go that have ended.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(ends, name, address)) = self.ends.first()
            && ends <= now
        {
            match self.by_address.get(&address) {
                Some(found) if found.open > 0 => self.extend(name, address, now + USED_FOR),
                Some(found) if now < found.used_until => {
                    self.extend(name, address, found.used_until)
                }
                Some(_) | None => {
                    self.release(name, address);
                    true
                }
            };
        }
    }

    /// Counts the bindings that have come and gone.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Never more than `cap` from now on; those that there are stay.
    pub(super) const fn set_cap(&mut self, cap: usize) {
        self.cap = cap;
    }

    /// Lets the `count` bindings go that end first, in use or not.
    pub(super) fn give_up(&mut self, count: usize) {
        for _ in 0..count {
            let Some(&(_, name, address)) = self.ends.first() else { return };
            self.evict(name, address);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many names have one.
    pub(super) fn names_len(&self) -> usize {
        self.names.len()
    }

    /// How many have made room for others.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}
