//! The host side: everything that touches the kernel.
//!
//! Owns the event loop of the data thread, the guest's link, the host sockets of the flows and, on
//! the control thread, the exchange with the host's resolvers. What to do with a packet is decided
//! on the pure side.

#![expect(clippy::disallowed_methods, reason = "clocks, threads and files live on this side")]

mod acceptance;
pub mod datagram;
pub(crate) mod descriptors;
pub mod dns;
pub mod echo;
pub mod errno;
pub mod error_queue;
pub mod forward;
pub mod frame_socket;
pub mod link;
pub(crate) mod mailbox;
pub mod outbound;
pub(crate) mod ports;
pub(crate) mod reactor;
pub mod recording;
pub(crate) mod sockets;
pub mod switchboard;
pub mod tap;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;
