//! How fast a guest may send and receive: plain values.
//!
//! Owns [`Rates`]. What keeps a guest to them is the `shaper`.

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
}

/// A token bucket: so much per second, and so much at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Bits a second; at least 1.
    pub bits_per_second: u64,
    /// Bytes that may pass at once after a pause; `None` for what passes in 50 ms, and at least
    /// 64 KiB.
    pub burst: Option<u64>,
}
