//! Namespace tests: the real binary, real namespaces, real peers.
//!
//! Owns the harness that the files in `tests/` share. Three network namespaces make one test's
//! world, so that tests are hermetic, run in parallel and leave the machine as it was:
//!
//! ```text
//!  remote  r0 198.51.100.2/24 ----- h0 198.51.100.1/24  host            tap0 10.0.2.100/24  guest
//!          lo 203.0.113.10/32                           slirp4netns ================
//! ```
//!
//! * [`World`] builds the three, [`SlirpBuilder`] runs the binary in the middle one. [`Online`]
//!   does both and records the guest's device.
//! * A test's own code acts in any of them with [`Namespace::enter`], which runs a closure on a
//!   thread of that network namespace; real programs run with [`Namespace::exec`].
//! * The binary under test is `SLIRP_TEST_BINARY` where set, otherwise the workspace's own build
//!   (see [`binary_under_test`]).
//! * `SLIRP_TEST_OPTIONS` holds options for every start, such as `--enable-sandbox
//!   --enable-seccomp`.
//! * A [`Session`] is a login of an ordinary user in the middle one, for programs that run the
//!   binary themselves.
//! * [`needs!`] skips a test with one loud `SKIPPED: why` line where the machine lacks something.
//!   Where `SLIRP_REQUIRE_NETNS=1` the test fails instead.
//!
//! [`side_by_side()`] runs one script in two worlds, through Debian's slirp4netns and through the
//! binary.
//!
//! [`sim`] is a world without any of these: the pure side alone, in virtual time.
//!
//! The tests alone say what the product should do.

mod api;
mod binary;
mod capture;
mod cni;
mod comparison;
mod control;
mod dns;
mod file_watch;
mod frame;
pub mod kernel;
mod name_server;
mod namespace;
mod oci;
mod online;
mod pasta;
mod payload;
mod picture;
mod podman;
mod process;
mod qemu;
mod recorder;
mod requirement;
mod server;
mod session;
mod shared;
pub mod sim;
mod slirp;
mod tcp;
mod terminal;
mod visitor;
mod wait;
mod world;

pub use api::Api;
pub use binary::{binary_under_test, pasta_under_test, pesto_under_test, plugin_under_test};
pub use capture::Capture;
pub use cni::{CniFailure, MiniCni};
pub use comparison::{Difference, Seen, Side, side_by_side};
pub use control::Control;
pub use dns::{CannedDns, Dnsmasq};
pub use file_watch::FileWatch;
pub use frame::{inject, raw_ipv4_socket, send_frames, syn_packet};
pub use name_server::{Asked, NameServer, record_type};
pub use namespace::{Account, Background, Namespace, Output};
pub use oci::{Oci, Setup};
pub use online::Online;
pub use pasta::Rootless;
pub use payload::{receive_exact, send_exact, verify_exact};
pub use picture::Picture;
pub use podman::{Podman, WHO};
pub use process::{ProcessFacts, output_within};
pub use qemu::{Machine, Qemu};
pub use recorder::{Arrival, Arrived, Recorder};
pub use requirement::{Missing, is_installed, is_there, say_skipped, skip};
pub use server::{TcpServer, UdpServer};
pub use session::{Session, SessionProcess};
pub use shared::{Container, keepers, network_processes};
pub use slirp::{Exit, Slirp, SlirpBuilder, is_sandboxed_anyway};
pub use tcp::{ConnectFailure, IO_LIMIT, bounded, connect, connect_from};
pub use terminal::Terminal;
pub use visitor::{ask_tcp, ask_udp, web_server};
pub use wait::{PATIENCE, wait_until};
pub use world::{
    FAR, FAR_V6, GATEWAY, GUEST, HOST, NAMESERVER, REMOTE, REMOTE_2, REMOTE_V6, World,
};

/// The program in README.md compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
