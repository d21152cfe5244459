//! Ethernet addresses.
//!
//! Owns [`MacAddr`], a plain value on the ground floor. Which address stands for which of ours is
//! decided by [`plan`](crate::plan).

use core::fmt;

/// A MAC address (IEEE 802).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether frames may come from this address: neither a group address nor all zero.
    pub fn is_valid_source(self) -> bool {
        !self.is_group() && self.0 != [0; 6]
    }

    /// Whether it stands for several stations (IEEE 802: the first bit on the wire).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
