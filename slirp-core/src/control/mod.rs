//! The control plane for programs: the API socket of slirp4netns(1).
//!
//! Owns the language that is spoken there ([`protocol`], [`reply`]) and the socket ([`server`]).
//! Everything that a request asks for goes through the same [`Handle`](crate::instance::Handle)
//! that embedders have. It runs on the control thread, so no client can hold up a packet.

#![expect(clippy::disallowed_methods, reason = "sockets and files live on this side")]

pub(crate) mod protocol;
pub(crate) mod reply;
pub(crate) mod server;
