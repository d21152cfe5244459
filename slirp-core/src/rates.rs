//! How fast a guest may send and receive: plain values.
//!
//! Owns [`Rates`]. What keeps a guest to them is the [`shaper`](crate::shaper).

/// The limits of one guest; none by default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Rates {
    /// What the guest receives from outside.
    pub to_guest: Option<Rate>,
    /// What the guest sends to outside.
    pub from_guest: Option<Rate>,
}

impl Rates {
    /// Limits for both directions.
    pub const fn new(to_guest: Option<Rate>, from_guest: Option<Rate>) -> Self {
        Self { to_guest, from_guest }
    }

    /// Whether there is no limit in either direction.
    pub const fn is_unlimited(&self) -> bool {
        self.to_guest.is_none() && self.from_guest.is_none()
    }

    pub(crate) const fn of(&self, direction: RateDirection) -> Option<Rate> {
        match direction {
            RateDirection::ToGuest => self.to_guest,
            RateDirection::FromGuest => self.from_guest,
        }
    }
}

/// A token bucket: so much per second, and so much at once. What counts are bytes of IP packets,
/// headers included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Bits a second; 0 counts as 1.
    pub bits_per_second: u64,
    /// Bytes that may pass at once after a pause; `None` for what passes in 50 ms, and at least
    /// 64 KiB. A burst of less than one packet (1,500 bytes), or of less than what passes in 10 ms,
    /// is raised to that: the rate could not be reached with it.
    pub burst: Option<u64>,
}

/// A direction that is limited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RateDirection {
    /// What the guest receives from outside.
    ToGuest,
    /// What the guest sends to outside.
    FromGuest,
}

impl RateDirection {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ToGuest, Self::FromGuest];

    /// The word for it at every door: `in` is to the guest, `out` from the guest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToGuest => "in",
            Self::FromGuest => "out",
        }
    }
}
