//! A user-mode TCP/IP stack between a TAP device and ordinary host sockets.
//!
//! The crate has two sides with a wall between them. The pure side decides: it knows no file
//! descriptor, clock, thread, file or `unsafe`, takes time as an argument and randomness as a seed.
//! The host side (feature `host`, on by default) touches the kernel.

pub mod config;
#[cfg(feature = "host")]
mod control;
pub mod discard;
pub mod event;
mod flow;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "host")]
pub mod instance;
#[doc(hidden)]
pub mod internals;
#[cfg(feature = "host")]
pub mod launch;
mod mac;
pub mod member;
mod nat;
#[cfg(feature = "host")]
pub mod netns;
pub mod plan;
pub mod policy;
mod rng;
#[cfg(feature = "host")]
pub mod sandbox;
mod service;
mod share;
pub mod stack;
pub mod stats;
mod switch;
#[cfg(feature = "host")]
mod sys;
mod tcp;
pub mod time;
mod timer;
mod wire;

pub use flow::{FlowState, FlowSummary, HostStream, Traffic, Transfer};
#[cfg(feature = "host")]
pub use host::{dns, link};
pub use mac::MacAddr;
