//! How much of one table each member of a shared network holds.
//!
//! Owns the count by holder, and the rule about who makes room: a holder with a quarter of the
//! table makes room for itself; in a full table the one that holds most makes room. What is in the
//! table, and which entry of a holder goes first, is the table's business.

use std::collections::BTreeMap;

use crate::member::MemberId;

/// One member may hold this part of a table (arbitrary: enough for a busy container, and three of
/// them cannot leave a fourth one without).
pub(crate) const PARTS: usize = 4;

/// A member; `None` stands for all traffic that is no member's. That is everything where the
/// network has one guest.
pub(crate) type Holder = Option<MemberId>;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shares {
    cap: usize,
    part: usize,
    total: usize,
    held: BTreeMap<Holder, usize>,
}

impl Shares {
    /// Shares of a table of `cap`; all of it may be one holder's unless it `is_shared`.
    pub(crate) fn new(cap: usize, is_shared: bool) -> Self {
        let part = if is_shared { cap / PARTS } else { cap };
        Self { cap, part: part.max(1), total: 0, held: BTreeMap::new() }
    }

    /// How much is held altogether.
    #[cfg(test)]
    pub(crate) const fn total(&self) -> usize {
        self.total
    }

    /// How much `holder` has.
    pub(crate) fn held(&self, holder: Holder) -> usize {
        self.held.get(&holder).copied().unwrap_or_default()
    }

    /// Who has to give something up before `holder` can have `amount` more; `None` when there is
    /// room.
    pub(crate) fn crowded_by(&self, holder: Holder, amount: usize) -> Option<Holder> {
        if self.held(holder) + amount > self.part {
            return Some(holder);
        }
        if self.total + amount <= self.cap {
            return None;
        }
        // Among equals the one that wants more.
        let most = self.held.iter().max_by_key(|&(&other, &held)| (held, other == holder));
        Some(most.map_or(holder, |(&most, _)| most))
    }

    pub(crate) fn add(&mut self, holder: Holder, amount: usize) {
        self.total += amount;
        *self.held.entry(holder).or_default() += amount;
    }

    /// Takes back what was added for `holder`.
    pub(crate) fn remove(&mut self, holder: Holder, amount: usize) {
        self.total = self.total.saturating_sub(amount);
        if let Some(held) = self.held.get_mut(&holder) {
            *held = held.saturating_sub(amount);
            if *held == 0 {
                self.held.remove(&holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Holder = Some(MemberId(1));
    const B: Holder = Some(MemberId(2));

    #[test]
    fn holder_of_a_quarter_makes_room_for_itself() {
        let mut shares = Shares::new(8, true);
        assert_eq!(shares.crowded_by(A, 2), None);
        shares.add(A, 2);
        assert_eq!(shares.crowded_by(A, 1), Some(A));
        assert_eq!(shares.crowded_by(B, 1), None);
        shares.remove(A, 1);
        assert_eq!(shares.crowded_by(A, 1), None);
    }

    #[test]
    fn holder_of_most_makes_room_in_a_full_table() {
        let mut shares = Shares::new(8, true);
        for member in 1..=3 {
            shares.add(Some(MemberId(member)), 2);
        }
        shares.add(None, 1);
        shares.add(Some(MemberId(4)), 1);
        let most = shares.crowded_by(Some(MemberId(5)), 1);
        assert!(matches!(most, Some(Some(MemberId(1..=3)))), "{most:?}");
        // A newcomer is never turned out by those who have more.
        assert_ne!(shares.crowded_by(None, 1), Some(None));
    }

    #[test]
    fn single_guest_has_the_whole_table() {
        let mut shares = Shares::new(8, false);
        shares.add(None, 8);
        assert_eq!(shares.crowded_by(None, 1), Some(None));
        shares.remove(None, 1);
        assert_eq!(shares.crowded_by(None, 1), None);
        assert_eq!(shares.total(), 7);
    }
}
