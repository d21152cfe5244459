//! What touches the kernel while packets flow.
//!
//! Owns the devices and sockets of the data thread. What a packet means is decided below the wall,
//! in the pure modules; how a device comes to be is in [`netns`](crate::netns).

pub mod tap;
