//! The side of the house that touches the kernel.

pub mod datagram;
pub mod echo;
pub mod errno;
pub mod error_queue;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;
