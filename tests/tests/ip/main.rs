//! Beside TCP: datagrams, echo, offloads, messages of routers, source addresses, and the policy for
//! destinations.

mod icmp;
mod offload;
mod outbound;
mod path;
mod policy;
mod udp;
