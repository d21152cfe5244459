//! The host side: everything that touches the kernel.
//!
//! Owns the event loop of the data thread, the guest's link, the host sockets of the flows and, on
//! the control thread, the exchange with the host's resolvers. What to do with a packet is decided
//! on the pure side.

#![expect(clippy::disallowed_methods, reason = "clocks, threads and files live on this side")]

pub mod dns;
pub(crate) mod forward;
pub(crate) mod handle;
pub mod link;
pub(crate) mod mailbox;
pub(crate) mod reactor;
pub(crate) mod socket;
pub(crate) mod token;

#[cfg(test)]
mod tests;
