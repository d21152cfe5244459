//! The host sockets of the flows.
//!
//! Owns one socket type for each protocol ([`tcp`], [`udp`], [`echo`]) and what datagram sockets
//! share, the sockets of all flows with their readiness ([`table`]), the source addresses
//! ([`outbound`]), which ports are the guest's own ([`kept`]), what errors of the host mean for the
//! guest ([`errno`], [`error_queue`]), and how many descriptors and ports flows may take
//! ([`descriptors`], [`ports`]).

pub(crate) mod control;
pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod echo;
mod errno;
mod error_queue;
mod kept;
pub(crate) mod outbound;
pub(crate) mod ports;
pub(crate) mod table;
pub(crate) mod tcp;
pub(crate) mod udp;

#[cfg(test)]
mod tests;
