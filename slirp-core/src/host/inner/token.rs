//! What the inner thread's poller watches, as the number that it reports.

use mio::Token;

/// What may have something for the inner thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Orders have arrived.
    Orders,
    /// A listener, by its place.
    Listener(usize),
    /// The near socket of a bridge, by the bridge's place.
    Near(usize),
    /// The far socket.
    Far(usize),
}

impl Source {
    /// The token that stands for it: the two lowest bits are the kind.
    pub(super) const fn token(self) -> Token {
        let (kind, place) = match self {
            Self::Orders => (0, 0),
            Self::Listener(place) => (1, place),
            Self::Near(place) => (2, place),
            Self::Far(place) => (3, place),
        };
        Token(place << 2 | kind)
    }

    /// What `token` stands for.
    pub(super) const fn of(token: Token) -> Self {
        let place = token.0 >> 2;
        match token.0 & 3 {
            0 => Self::Orders,
            1 => Self::Listener(place),
            2 => Self::Near(place),
            _ => Self::Far(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_comes_back_from_its_token() {
        for place in [0, 1, 65_535] {
            for source in [Source::Listener(place), Source::Near(place), Source::Far(place)] {
                assert_eq!(Source::of(source.token()), source);
            }
        }
        assert_eq!(Source::of(Source::Orders.token()), Source::Orders);
    }
}
