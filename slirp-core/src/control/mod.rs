//! The control plane for programs: the API socket of slirp4netns(1).
//!
//! Owns the language that is spoken there ([`protocol`], [`reply`]) and the socket ([`server`]),
//! and the page that collectors read ([`metrics`]).
//! Every request goes through the [`Handle`](crate::instance::Handle) that embedders use. The API
//! socket runs on the control thread, so no client can delay a packet.

#![expect(clippy::disallowed_methods, reason = "sockets and files live on this side")]

mod clients;
pub(crate) mod metrics;
mod own_file;
pub(crate) mod protocol;
pub(crate) mod reply;
pub(crate) mod server;
pub(crate) mod socket;
