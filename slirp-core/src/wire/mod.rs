//! Wire formats that `smoltcp::wire` lacks.
//!
//! Owns the virtio-net header, the classification of a frame down to its transport header, ICMP
//! error messages, UDP datagrams and IP fragmentation. Everything that smoltcp parses well is taken from there.

pub mod fragmentation;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod reassembly;
pub mod segmentation;
pub mod udp;
pub mod vnet;

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

impl core::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
