//! The control plane for programs: the API socket of slirp4netns(1), the control socket, metrics.
//!
//! Owns the language of the API socket ([`protocol`], [`reply`]) and the socket ([`server`]). It
//! stays as slirp4netns has it, and decides nothing about egress: that is for the control socket
//! ([`socket`] and what it names). Collectors read the page of [`metrics`]. Every request goes
//! through the [`Handle`](crate::instance::Handle) that embedders use. All of them run on the
//! control thread, so no client can delay a packet.

#![expect(clippy::disallowed_methods, reason = "sockets and files live on this side")]

mod clients;
mod connection;
mod follow;
mod hub;
mod lines;
mod lists;
pub(crate) mod metrics;
pub(crate) mod own_file;
pub(crate) mod protocol;
pub(crate) mod reply;
mod requests;
pub use requests::refusal_of;
mod rows;
mod rules;
pub(crate) mod server;
pub(crate) mod socket;
mod verdicts;
