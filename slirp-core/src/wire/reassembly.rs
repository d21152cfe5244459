//! The reassembler of fragments that the guest sends.
//!
//! Owns the unfinished datagrams of both families (RFC 791 section 3.2, RFC 8200 section 4.5).
//! Fragments may arrive in any order; an exact repetition is ignored; any other overlap ends the
//! whole datagram, fragments that are yet to come included (RFC 5722, for IPv4 as well, like
//! Linux). Bounded in datagrams, in allocated bytes, and in time. The oldest datagram is evicted;
//! where fragments have several owners, the oldest of the owner with most. Reporting and counting
//! are left to the caller.

use core::mem::size_of;
use std::collections::BTreeMap;

use super::ip::{
    FRAGMENT_HEADER_LEN, FragmentInfo, IPV6_HEADER_LEN, IpPair, Located, fill_ipv4_checksum,
};
use crate::config::{Limits, Timeouts};
use crate::discard::DiscardReason;
use crate::time::Instant;

/// Longest payload of a datagram in bytes; with an IPv4 header less fits.
const PAYLOAD_CAP: usize = u16::MAX as usize;
/// What an unfinished datagram costs beside its buffers: its entry in both maps, at the worst
/// filling of a B-tree's nodes (about half).
const ENTRY_COST: usize = 2 * (2 * size_of::<Key>() + size_of::<Unfinished>() + size_of::<u64>());
/// Least size of a datagram's buffer in bytes (arbitrary: one Ethernet frame).
const BUFFER_MIN: usize = 2048;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    source: [u8; 16],
    destination: [u8; 16],
    is_ipv6: bool,
    /// Zero with IPv6, whose key has no protocol (RFC 8200 section 4.5).
    protocol: u8,
    ident: u32,
}

impl Key {
    fn new(located: &Located<'_>, ident: u32) -> Self {
        let (source, destination, is_ipv6) = match located.pair {
            IpPair::V4(source, destination) => {
                (source.to_ipv6_mapped().octets(), destination.to_ipv6_mapped().octets(), false)
            }
            IpPair::V6(source, destination) => (source.octets(), destination.octets(), true),
        };
        let protocol = if is_ipv6 { 0 } else { located.protocol };
        Self { source, destination, is_ipv6, protocol, ident }
    }
}

/// Bounds of one fragment in the datagram's payload, end exclusive.
type Range = (u16, u16);

#[derive(Debug)]
struct Unfinished {
    /// Order of arrival; the key of the other map.
    order: u64,
    /// Owner of the datagram.
    owner: u64,
    expires_at: Instant,
    /// A fragment contradicted another: everything of this datagram is discarded until it expires.
    is_ruined: bool,
    /// Headers of the first fragment up to its payload.
    header: Vec<u8>,
    /// Offset in `header` of the field that names the payload.
    next_header_at: usize,
    /// The next header that the first fragment's fragment header names (IPv6).
    next_header: u8,
    /// Length of the whole payload, once the last fragment is there.
    payload_len: Option<usize>,
    received: usize,
    ranges: Vec<Range>,
    payload: Vec<u8>,
}

impl Unfinished {
    const fn new(order: u64, owner: u64, expires_at: Instant) -> Self {
        Self {
            order,
            owner,
            expires_at,
            is_ruined: false,
            header: Vec::new(),
            next_header_at: 0,
            next_header: 0,
            payload_len: None,
            received: 0,
            ranges: Vec::new(),
            payload: Vec::new(),
        }
    }

    const fn cost(&self) -> usize {
        ENTRY_COST
            + self.header.capacity()
            + self.payload.capacity()
            + self.ranges.capacity() * size_of::<Range>()
    }

    /// Capacities of header, payload and ranges that the fragment `located` asks for.
    fn capacities_with(&self, located: &Located<'_>, start: usize, end: usize) -> [usize; 3] {
        let header = if start == 0 { located.payload_at } else { 0 };
        let payload = if end <= self.payload.capacity() {
            self.payload.capacity()
        } else {
            end.next_power_of_two().max(BUFFER_MIN)
        };
        let ranges = if self.ranges.len() < self.ranges.capacity() {
            self.ranges.capacity()
        } else {
            (self.ranges.len() * 2).max(4)
        };
        [self.header.capacity().max(header), payload, ranges]
    }

    fn reserve(&mut self, [header, payload, ranges]: [usize; 3]) {
        self.header.reserve_exact(header.saturating_sub(self.header.len()));
        self.payload.reserve_exact(payload.saturating_sub(self.payload.len()));
        self.ranges.reserve_exact(ranges.saturating_sub(self.ranges.len()));
    }

    fn ruin(&mut self) {
        self.is_ruined = true;
        self.header = Vec::new();
        self.ranges = Vec::new();
        self.payload = Vec::new();
    }

    /// Whether `range`, last of the datagram or not, agrees with what is there.
    fn is_consistent(&self, (start, end): Range, more: bool) -> bool {
        let furthest = self.ranges.last().map_or(0, |&(_, end)| end);
        let at = self.ranges.partition_point(|&(other, _)| other < start);
        let clear_of_previous = at == 0 || self.ranges[at - 1].1 <= start;
        let clear_of_next = self.ranges.get(at).is_none_or(|&(next, _)| end <= next);
        let end_agrees = match self.payload_len {
            Some(len) => more && usize::from(end) <= len,
            None => more || furthest <= end,
        };
        clear_of_previous && clear_of_next && end_agrees
    }

    /// Whether exactly this fragment is there already.
    fn is_repetition(&self, range: Range, more: bool, data: &[u8]) -> bool {
        let ends_here = self.payload_len == Some(usize::from(range.1));
        self.ranges.binary_search(&range).is_ok()
            && (more || ends_here)
            && self.payload[usize::from(range.0)..usize::from(range.1)] == *data
    }

    fn insert(&mut self, located: &Located<'_>, range: Range, more: bool) {
        let (start, end) = (usize::from(range.0), usize::from(range.1));
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload[start..end].copy_from_slice(located.payload());
        let at = self.ranges.partition_point(|&other| other < range);
        self.ranges.insert(at, range);
        self.received += end - start;
        if !more {
            self.payload_len = Some(end);
        }
        if start == 0 {
            self.header.extend_from_slice(&located.packet[..located.payload_at]);
            self.next_header_at = located.next_header_at;
            self.next_header = located.protocol;
        }
    }

    /// The whole packet, or `None` when it would be longer than a packet can be.
    fn assemble(self, is_ipv6: bool) -> Option<Vec<u8>> {
        let header_len =
            if is_ipv6 { self.header.len() - FRAGMENT_HEADER_LEN } else { self.header.len() };
        let total = header_len + self.payload.len();
        let mut packet = Vec::with_capacity(total);
        packet.extend_from_slice(&self.header[..header_len]);
        packet.extend_from_slice(&self.payload);
        if is_ipv6 {
            let announced = u16::try_from(total - IPV6_HEADER_LEN).ok()?;
            packet[4..6].copy_from_slice(&announced.to_be_bytes());
            packet[self.next_header_at] = self.next_header;
        } else {
            let announced = u16::try_from(total).ok()?;
            packet[2..4].copy_from_slice(&announced.to_be_bytes());
            packet[6..8].fill(0);
            fill_ipv4_checksum(&mut packet[..header_len]);
        }
        Some(packet)
    }

    /// The first fragment as it arrived, if it did.
    fn first_fragment(&self) -> Option<Vec<u8>> {
        let &(0, end) = self.ranges.first()? else { return None };
        let mut packet = self.header.clone();
        packet.extend_from_slice(&self.payload[..usize::from(end)]);
        Some(packet)
    }
}

/// A datagram that did not become whole in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExpiredDatagram {
    /// The first fragment as it arrived, from its IP header on; without it no error is sent
    /// (RFC 792 "time exceeded", RFC 8200 section 4.5).
    pub first_fragment: Option<Vec<u8>>,
}

/// Puts fragments together.
#[derive(Debug)]
pub(crate) struct Reassembler {
    datagrams: BTreeMap<Key, Unfinished>,
    /// Oldest first; as all live equally long, also in the order of expiry.
    order: BTreeMap<u64, Key>,
    next_order: u64,
    bytes: usize,
    bytes_cap: usize,
    datagrams_cap: usize,
    lifetime: core::time::Duration,
    evicted: u64,
    /// Whether fragments of more than the default owner have been seen.
    has_owners: bool,
}

impl Reassembler {
    /// An empty reassembler with the caps `reassembly_bytes` and `reassembly_datagrams` of
    /// `limits` and the lifetime `reassembly` of `timeouts`.
    pub(crate) const fn new(limits: &Limits, timeouts: &Timeouts) -> Self {
        Self {
            datagrams: BTreeMap::new(),
            order: BTreeMap::new(),
            next_order: 0,
            bytes: 0,
            bytes_cap: limits.reassembly_bytes,
            datagrams_cap: limits.reassembly_datagrams,
            lifetime: timeouts.reassembly,
            evicted: 0,
            has_owners: false,
        }
    }

    /// Takes one packet of the only guest.
    #[cfg(test)]
    pub(crate) fn handle_fragment(
        &mut self,
        packet: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, DiscardReason> {
        self.handle_fragment_of(0, packet, now)
    }

    /// Takes one IP packet of `owner`, one of several guests; gives the whole packet that it
    /// completes.
    ///
    /// A packet that is not a fragment, or a fragment that is a whole datagram (RFC 6946), is
    /// returned at once. The caller checks the IPv4 header checksum.
    ///
    /// # Errors
    /// The reason for which this fragment (and what was there of its datagram) was discarded.
    pub(crate) fn handle_fragment_of(
        &mut self,
        owner: u64,
        packet: &[u8],
        now: Instant,
    ) -> Result<Option<Vec<u8>>, DiscardReason> {
        self.has_owners |= owner != 0;
        let located = Located::parse(packet)?;
        let Some(FragmentInfo { offset, more, ident }) = located.fragment else {
            return Ok(Some(located.packet.to_vec()));
        };
        let key = Key::new(&located, ident);
        if offset == 0 && !more {
            let mut whole = Unfinished::new(0, owner, now);
            whole.insert(&located, (0, length_of(&located)?), false);
            return whole.assemble(key.is_ipv6).map(Some).ok_or(DiscardReason::FragmentInvalid);
        }
        let data = located.payload();
        let end = offset + data.len();
        if data.is_empty() || (more && !data.len().is_multiple_of(8)) || end > PAYLOAD_CAP {
            return Err(DiscardReason::FragmentInvalid);
        }
        let bound = |at: usize| u16::try_from(at).map_err(|_| DiscardReason::FragmentInvalid);
        let range = (bound(offset)?, bound(end)?);

        let mut unfinished = self.take(&key, owner, now);
        if unfinished.is_ruined {
            self.put(key, unfinished);
            return Err(DiscardReason::FragmentInvalid);
        }
        if unfinished.is_repetition(range, more, data) {
            self.put(key, unfinished);
            return Ok(None);
        }
        if !unfinished.is_consistent(range, more) {
            unfinished.ruin();
            if self.make_room(unfinished.cost()) {
                self.put(key, unfinished);
            }
            return Err(DiscardReason::FragmentInvalid);
        }
        let capacities = unfinished.capacities_with(&located, offset, end);
        let [header, payload, ranges] = capacities;
        let planned = ENTRY_COST + header + payload + ranges * size_of::<Range>();
        if !self.make_room(planned) {
            return Err(DiscardReason::FragmentMemoryExhausted);
        }
        unfinished.reserve(capacities);
        unfinished.insert(&located, range, more);
        if unfinished.payload_len == Some(unfinished.received) {
            return unfinished
                .assemble(key.is_ipv6)
                .map(Some)
                .ok_or(DiscardReason::FragmentInvalid);
        }
        self.put(key, unfinished);
        Ok(None)
    }

    /// When the oldest datagram expires.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let (_, key) = self.order.first_key_value()?;
        self.datagrams.get(key).map(|unfinished| unfinished.expires_at)
    }

    /// Drops datagrams that have expired at `now` and returns the ones that were still incomplete,
    /// oldest first. Datagrams that were discarded earlier because of a contradiction are not among
    /// them.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<ExpiredDatagram> {
        let mut expired = Vec::new();
        while self.poll_timeout().is_some_and(|at| at <= now) {
            if let Some(unfinished) = self.take_oldest()
                && !unfinished.is_ruined
            {
                expired.push(ExpiredDatagram { first_fragment: unfinished.first_fragment() });
            }
        }
        expired
    }

    /// How many datagrams were evicted since the last call; each is a
    /// [`DiscardReason::FragmentMemoryExhausted`].
    pub(crate) const fn take_evicted(&mut self) -> u64 {
        core::mem::replace(&mut self.evicted, 0)
    }

    /// How many datagrams are unfinished, discarded ones that still wait for their end included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether nothing is unfinished.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes that the unfinished datagrams have allocated.
    #[cfg(test)]
    pub(crate) const fn bytes_held(&self) -> usize {
        self.bytes
    }

    /// Removes the datagram from the tables, or starts a new one. A datagram that has expired but
    /// was not yet collected by [`handle_timeout`](Self::handle_timeout) may still be completed.
    fn take(&mut self, key: &Key, owner: u64, now: Instant) -> Unfinished {
        if let Some(unfinished) = self.datagrams.remove(key) {
            self.order.remove(&unfinished.order);
            self.bytes -= unfinished.cost();
            return unfinished;
        }
        let order = self.next_order;
        self.next_order += 1;
        Unfinished::new(order, owner, now + self.lifetime)
    }

    fn put(&mut self, key: Key, unfinished: Unfinished) {
        self.bytes += unfinished.cost();
        self.order.insert(unfinished.order, key);
        self.datagrams.insert(key, unfinished);
    }

    fn take_oldest(&mut self) -> Option<Unfinished> {
        let (&order, _) = self.order.first_key_value()?;
        self.take_at(order)
    }

    /// The oldest datagram of the owner that holds most of the exhausted resource.
    fn take_of_heaviest(&mut self, weight: impl Fn(&Unfinished) -> usize) -> Option<Unfinished> {
        let mut weights: BTreeMap<u64, usize> = BTreeMap::new();
        for unfinished in self.datagrams.values() {
            *weights.entry(unfinished.owner).or_default() += weight(unfinished);
        }
        let (&heaviest, _) = weights.iter().max_by_key(|&(_, weight)| weight)?;
        let is_its = |key: &Key| self.datagrams.get(key).is_some_and(|d| d.owner == heaviest);
        let (&order, _) = self.order.iter().find(|(_, key)| is_its(key))?;
        self.take_at(order)
    }

    fn take_at(&mut self, order: u64) -> Option<Unfinished> {
        let key = self.order.remove(&order)?;
        let unfinished = self.datagrams.remove(&key)?;
        self.bytes -= unfinished.cost();
        Some(unfinished)
    }

    /// Evicts the oldest datagram of the heaviest owner until one more of `cost` bytes fits.
    /// Returns whether it fits.
    fn make_room(&mut self, cost: usize) -> bool {
        if cost > self.bytes_cap || self.datagrams_cap == 0 {
            return false;
        }
        while self.bytes + cost > self.bytes_cap || self.datagrams.len() >= self.datagrams_cap {
            let evicted = if !self.has_owners {
                self.take_oldest()
            } else if self.bytes + cost > self.bytes_cap {
                self.take_of_heaviest(Unfinished::cost)
            } else {
                self.take_of_heaviest(|_| 1)
            };
            match evicted {
                Some(unfinished) if !unfinished.is_ruined => self.evicted += 1,
                Some(_) => {}
                None => break,
            }
        }
        true
    }
}

fn length_of(located: &Located<'_>) -> Result<u16, DiscardReason> {
    u16::try_from(located.payload().len()).map_err(|_| DiscardReason::FragmentInvalid)
}

#[cfg(test)]
#[path = "tests/reassembly.rs"]
mod tests;
