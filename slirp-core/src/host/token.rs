//! What the poller watches, as the number that it reports.
//!
//! Owns the layout of a token: the two highest bits are the kind of a [`Source`], the others say
//! which source of that kind it is.

use std::io;

use mio::Token;

/// What may have something for the event loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The guest's link.
    Link,
    /// The mailbox.
    Mailbox,
    /// The timer of the next deadline.
    Timer,
    /// The host's addresses.
    Addresses,
    /// The host socket of the flow in this slot of the flow table.
    Flow(u32),
    /// The socket of a forwarded port, by the number of the port among all that there ever were.
    Port(usize),
}

/// Where the bits of the kind begin.
const KIND_SHIFT: u32 = usize::BITS - 2;
/// The bits of the number.
const NUMBER: usize = (1 << KIND_SHIFT) - 1;

const FLOW: usize = 0;
const PORT: usize = 1;
/// Sources of which there is one each.
const SINGLE: usize = 2;
const LINK: usize = 0;
const MAILBOX: usize = 1;
const TIMER: usize = 2;
const ADDRESSES: usize = 3;

impl Source {
    /// The token that stands for it.
    ///
    /// # Errors
    /// `QuotaExceeded` for a number that has no room in a token (2^62 where a pointer has 64 bits).
    pub(crate) fn token(self) -> io::Result<Token> {
        let (kind, number) = match self {
            Self::Link => (SINGLE, LINK),
            Self::Mailbox => (SINGLE, MAILBOX),
            Self::Timer => (SINGLE, TIMER),
            Self::Addresses => (SINGLE, ADDRESSES),
            Self::Flow(slot) => (FLOW, usize::try_from(slot).unwrap_or(usize::MAX)),
            Self::Port(number) => (PORT, number),
        };
        if number > NUMBER {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Token((kind << KIND_SHIFT) | number))
    }

    /// What `token` stands for; `None` if no source has it.
    pub(crate) fn of(token: Token) -> Option<Self> {
        match (token.0 >> KIND_SHIFT, token.0 & NUMBER) {
            (FLOW, slot) => u32::try_from(slot).ok().map(Self::Flow),
            (PORT, number) => Some(Self::Port(number)),
            (SINGLE, LINK) => Some(Self::Link),
            (SINGLE, MAILBOX) => Some(Self::Mailbox),
            (SINGLE, TIMER) => Some(Self::Timer),
            (SINGLE, ADDRESSES) => Some(Self::Addresses),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_source_comes_back_from_a_token_of_its_own() {
        let slots = [0, 1, u32::MAX - 1, u32::MAX].map(Source::Flow);
        let ports = [0, 1, u32::MAX as usize, NUMBER - 1, NUMBER].map(Source::Port);
        let singles = [Source::Link, Source::Mailbox, Source::Timer, Source::Addresses];
        let sources: Vec<Source> = slots.into_iter().chain(ports).chain(singles).collect();
        let tokens: BTreeSet<Token> = sources.iter().map(|it| it.token().unwrap()).collect();
        assert_eq!(tokens.len(), sources.len());
        for source in sources {
            assert_eq!(Source::of(source.token().unwrap()), Some(source));
        }
    }

    #[test]
    fn number_without_room_has_no_token() {
        for number in [NUMBER + 1, usize::MAX] {
            let refused = Source::Port(number).token().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        }
    }

    #[test]
    fn other_tokens_are_nobodys() {
        let beyond_slots = usize::try_from(u64::from(u32::MAX) + 1).unwrap();
        let unnamed = [(FLOW, beyond_slots), (SINGLE, ADDRESSES + 1), (SINGLE, NUMBER), (3, 0)];
        for (kind, number) in unnamed {
            assert_eq!(Source::of(Token((kind << KIND_SHIFT) | number)), None, "{kind} {number}");
        }
        assert_eq!(Source::of(Token(usize::MAX)), None);
    }
}
