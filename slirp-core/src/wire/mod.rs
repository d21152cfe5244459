//! Wire formats that `smoltcp::wire` lacks.
//!
//! Owns the virtio-net header, the classification of a frame down to its transport header, ICMP
//! messages, UDP datagrams and IP fragmentation, with the lengths and numbers of their headers.
//! Everything that smoltcp parses well is taken from there.

pub(crate) mod fragmentation;
pub(crate) mod frame;
pub(crate) mod icmp;
pub(crate) mod ip;
pub(crate) mod reassembly;
pub(crate) mod segmentation;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod vnet;
