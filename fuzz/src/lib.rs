//! Fuzz targets: bytes in, broken promises out.
//!
//! Owns the bodies of the targets as plain functions, so that the same code runs under libFuzzer,
//! in the replay of the corpus and in a seeded random loop on stable. A target panics when the
//! stack breaks one of these promises:
//!
//! * no input makes it panic, and none reaches smoltcp's panics (they would be counted as
//!   [`TcpEngineFailed`](slirp_core::discard::DiscardReason::TcpEngineFailed));
//! * every poll loop ends, and emits a bounded number of frames;
//! * every frame to the guest parses, fits the MTU or tells how to segment it, and has the
//!   checksums that its virtio-net header promises;
//! * the flow table keeps its cap, and is empty once guest and remotes are gone;
//! * nothing leaves that the egress policy in force does not let out, and nothing goes on that it
//!   has cut ([`flow_script`]);
//! * bytes arrive as sent and in order, in both directions, and so do their ends ([`flow_script`]);
//! * an answer of a resolver binds to a name what a second, naive reader finds ([`dns_answer`]).
//! * a policy that is written and read again is the same, and errors point into its text
//!   ([`rule()`]).
//! * a line of a client of the control socket is granted or refused in one line ([`control_line`]).
//! * ports and rules for ports that are written and read again are the same ([`ports()`]).
//!
//! What a guest says first on a connection has its own promises: [`client_hello`], [`http_head`].
//!
//! The layout of an input is the doc of its target. Inputs are bounded, as libFuzzer bounds them.

mod check;
mod control_line;
mod dns_answer;
mod driver;
mod egress;
mod first_bytes;
mod flow_script;
mod frame;
mod guest;
pub mod members;
pub mod packet;
pub mod ports;
pub mod rule;

pub use control_line::control_line;
pub use dns_answer::dns_answer;
pub use first_bytes::{client_hello, http_head};
pub use flow_script::{Op, flow_script};
pub use frame::{FIX_CHECKSUMS, STEP_TIME, frame};
pub use members::members;
pub use ports::{ports, ports_wire};
pub use rule::rule;

/// Bytes of an input that are used; the rest is ignored.
pub const INPUT_CAP: usize = 8 * 1024;
