//! Tests of host sockets against the kernel's own, over loopback and in network namespaces.

mod echo;
mod outbound;
mod tcp;
mod udp;
