//! Below and beside TCP: datagrams, echo, what routers say, and the addresses that a packet leaves from and may go to.

mod icmp;
mod offload;
mod outbound;
mod path;
mod policy;
mod udp;
