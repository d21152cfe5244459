//! Wire formats that `smoltcp::wire` lacks.
//!
//! Owns the virtio-net header, the classification of a frame down to its transport header, ICMP
//! messages, UDP datagrams and IP fragmentation, with the lengths and numbers of their headers.
//! Everything that smoltcp parses well is taken from there.

pub mod fragmentation;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod reassembly;
pub mod segmentation;
pub mod tcp;
pub mod udp;
pub mod vnet;

pub use crate::mac::MacAddr;
