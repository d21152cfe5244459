//! The host side: everything that touches the kernel.
//!
//! Owns the event loop of the data thread (`reactor`) with the way to it from other threads
//! (`mailbox`, `handle`), the guest's link (`link`), the host sockets of the flows (`socket`), the
//! forwarded ports (`forward`), what is joined past the link (`inner`, `bridge`), the host's own
//! addresses (`addresses`), the reading of policy files (`policy_file`) and, on the control thread,
//! the exchange with the host's resolvers (`dns`). What to do with a packet is decided on the pure
//! side.

#![expect(clippy::disallowed_methods, reason = "clocks, threads and files live on this side")]

pub(crate) mod addresses;
pub(crate) mod audit;
pub(crate) mod bridge;
pub mod dns;
pub(crate) mod events;
pub(crate) mod forward;
pub(crate) mod handle;
pub(crate) mod inner;
pub mod link;
pub(crate) mod mailbox;
pub(crate) mod outside;
pub(crate) mod policy_file;
pub(crate) mod reactor;
pub(crate) mod socket;
pub(crate) mod token;

#[cfg(test)]
mod tests;
