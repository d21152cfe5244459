//! A user-mode TCP/IP stack between a TAP device and ordinary host sockets.
//!
//! The crate has two sides with a wall between them. The pure side decides: it knows no file
//! descriptor, clock, thread, file or `unsafe`, takes time as an argument and randomness as a seed.
//! The host side (feature `host`, on by default) touches the kernel.

pub mod config;
#[cfg(feature = "host")]
pub mod control;
pub mod discard;
pub mod event;
mod flow;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod instance;
#[cfg(feature = "host")]
pub mod launch;
pub mod mac;
pub mod member;
pub mod nat;
#[cfg(feature = "host")]
pub mod netns;
pub mod plan;
pub mod policy;
pub mod rng;
#[cfg(feature = "host")]
pub mod sandbox;
pub mod service;
mod share;
pub mod stack;
pub mod stats;
pub mod switch;
#[cfg(feature = "host")]
mod sys;
mod tcp;
pub mod time;
pub mod timer;
pub mod wire;

pub use flow::{FlowState, FlowSummary, HostStream, Traffic, Transfer};
#[cfg(feature = "host")]
pub use sys::{
    LargeAlloc, ProcessFd, close_descriptors_on_exec, close_inherited_fds, inherited_fd,
    receive_fd, reset_signals, send_fd,
};
