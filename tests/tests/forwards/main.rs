//! Ports of the host that lead to the guest: by the API socket, by options, and what clients of
//! them see.

mod api;
mod forwarding;
mod published;
