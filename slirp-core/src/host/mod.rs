//! The host side: everything that touches the kernel.

pub mod dns;
