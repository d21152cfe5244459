//! Counters of the DNS service.

use super::histogram::Histogram;
use crate::journal::Lookup;

/// What became of a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Answered {
    /// No resolver gave an answer.
    Failed,
    /// No policy was asked, and the resolvers' answer was passed on.
    Relayed,
    /// No policy was asked, and the answer was made here: the name of a member, or a malformed
    /// query.
    Here,
    /// What an egress policy made of it.
    Judged(Lookup),
}

impl Answered {
    const COUNT: usize = 3 + Lookup::ALL.len();

    fn all() -> impl Iterator<Item = Self> {
        let judged = Lookup::ALL.iter().map(|&lookup| Self::Judged(lookup));
        [Self::Failed, Self::Relayed, Self::Here].into_iter().chain(judged)
    }

    const fn index(self) -> usize {
        match self {
            Self::Failed => 0,
            Self::Relayed => 1,
            Self::Here => 2,
            Self::Judged(lookup) => 3 + lookup as usize,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Relayed => "relayed",
            Self::Here => "here",
            Self::Judged(lookup) => lookup.as_str(),
        }
    }
}

/// Queries of guests that are over.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct NameStats {
    answered: [u64; Answered::COUNT],
    /// How long the resolvers took to answer.
    pub upstream: Histogram,
}

impl NameStats {
    pub(crate) const fn count(&mut self, answered: Answered) {
        self.answered[answered.index()] += 1;
    }

    /// How often each answer was given.
    pub fn iter(&self) -> impl Iterator<Item = (Answered, u64)> {
        Answered::all().zip(self.answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn answers_have_a_place_and_a_word_each() {
        for (index, answered) in Answered::all().enumerate() {
            assert_eq!(answered.index(), index);
        }
        let words: BTreeSet<_> = Answered::all().map(Answered::as_str).collect();
        assert_eq!(words.len(), Answered::COUNT);
        let mut stats = NameStats::default();
        stats.count(Answered::Judged(Lookup::Bound));
        let counted: Vec<_> = stats.iter().filter(|&(_, count)| count > 0).collect();
        assert_eq!(counted, [(Answered::Judged(Lookup::Bound), 1)]);
    }
}
