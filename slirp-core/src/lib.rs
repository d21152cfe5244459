//! The network of a container or a virtual machine, without privileges: a user-mode TCP/IP stack
//! between a guest's Ethernet frames and ordinary host sockets.
//!
//! The guest sees a router with DHCP, a DNS relay and, where it is enabled, IPv6. Its TCP
//! connections, UDP datagrams and echo requests are terminated here and re-originated from host
//! sockets. Ports of the host can lead back to the guest. The guest's frames come from a TAP device
//! in its network namespace, or from a socket of a virtual machine.
//!
//! The crate has two sides with a wall between them:
//!
//! * The **pure side** decides. [`stack::Stack`] takes frames and what host sockets reported, and
//!   returns frames and orders to the host. It has no file descriptor, clock, thread, file or
//!   `unsafe`. Time is an argument and randomness is a seed, so the same inputs always give the
//!   same outputs. What it is told at its start is in [`config`], [`plan`] and [`policy`].
//! * The **host side** does. [`instance`] runs a stack on two threads of its own, over a [`link`]
//!   that [`netns`] can open in another namespace, with the addresses and routes of the host if
//!   [`mirror`] has read them. [`dns`] asks the host's resolvers, [`sandbox`]
//!   gives up what a running network does not need, and [`launch`] has the order of these steps.
//!
//! # The run loop
//!
//! [`instance::Builder`] has one, and most programs need no other. A program that drives a
//! [`Stack`](stack::Stack) itself repeats five steps; [`stack`] has the details:
//!
//! 1. [`handle_frame`](stack::Stack::handle_frame) for frames of the guest, and the other
//!    `handle_*` for what the host's sockets reported
//! 2. [`handle_timeout`](stack::Stack::handle_timeout) when
//!    [`poll_timeout`](stack::Stack::poll_timeout) is due
//! 3. [`poll_action`](stack::Stack::poll_action): connect, close, ask a resolver; where rates are
//!    limited, [`poll_datagram`](stack::Stack::poll_datagram): datagrams that had to wait
//! 4. [`poll_ready`](stack::Stack::poll_ready) names a flow: [`pump`](stack::Stack::pump) it with
//!    its host socket, and send what [`poll_frame`](stack::Stack::poll_frame) has for the guest
//! 5. wait for frames, sockets or the deadline
//!
//! # Example: a network for a child
//!
//! ```no_run
//! use slirp_core::instance::{Builder, Forward, ForwardProtocol};
//! use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
//! use slirp_core::plan::SlirpNetwork;
//!
//! # fn run(child: std::process::Child) -> Result<(), Box<dyn std::error::Error>> {
//! // `child` has a network namespace of its own. It gets a TAP device there, with 10.0.2.100/24
//! // and a default route, and is on the network when `spawn` returns.
//! let target = NamespaceTarget::of_pid(i32::try_from(child.id())?)?;
//! let configure = Some(Configuration::for_plan(&SlirpNetwork::default(), 1500));
//! let tap = open_tap(&target, &TapRequest { name: "tap0".into(), configure })?;
//! let network = Builder::new(tap).spawn()?;
//!
//! // Port 8080 of the host leads to its port 80. The methods of a handle are async as well.
//! let handle = network.handle();
//! let web = Forward::everywhere(ForwardProtocol::Tcp, 8080, "10.0.2.100:80".parse()?);
//! handle.blocking().add_forward(web)?;
//!
//! // … later, from any thread:
//! handle.shutdown();
//! network.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Example: several members on one network
//!
//! ```no_run
//! use std::net::Ipv4Addr;
//!
//! use slirp_core::instance::{Builder, NewMember};
//! use slirp_core::link::{Switchboard, Tap};
//! use slirp_core::member::Member;
//!
//! # fn run(web: Tap, client: Tap) -> Result<(), Box<dyn std::error::Error>> {
//! let network = Builder::new(Switchboard::new()?).spawn()?;
//! // `web` and `client` are TAP devices in two namespaces, opened as above with these addresses.
//! for (tap, name, last) in [(web, "web", 100), (client, "client", 101)] {
//!     let mac = tap.mac()?.ok_or("the device has no Ethernet address")?;
//!     let address = Ipv4Addr::new(10, 0, 2, last);
//!     let names = vec![name.parse()?];
//!     let member = Member { mac, address, address6: None, names, aliases: Vec::new() };
//!     let member = NewMember { tap, member, egress: None, rates: None, guard: None };
//!     network.handle().blocking().add_member(member)?;
//! }
//! // `client` can fetch http://web/ now. Members come and go while the network runs.
//! network.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Example: the stack alone, under a simulator
//!
//! ```
//! use std::time::Duration;
//!
//! use slirp_core::config::StackConfig;
//! use slirp_core::event::HostAction;
//! use slirp_core::stack::Stack;
//! use slirp_core::time::Instant;
//! use slirp_core::{HostStream, Transfer};
//!
//! /// A remote that accepts, takes everything and says nothing.
//! struct Remote;
//!
//! impl HostStream for Remote {
//!     fn send(&mut self, data: &[u8]) -> Transfer {
//!         Transfer::Moved(data.len())
//!     }
//!     fn recv(&mut self, _room: &mut [u8]) -> Transfer {
//!         Transfer::Blocked
//!     }
//!     fn shutdown_write(&mut self) {}
//! }
//!
//! let mut stack = Stack::new(StackConfig::default());
//! let mut now = Instant::ZERO;
//!
//! // The guest, 10.0.2.100:40000, opens a connection to 192.0.2.1:80: Ethernet, IPv4, a TCP SYN.
//! let mut syn = [
//!     0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00,
//!     0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x6c, 0x6b, 10, 0, 2, 100, 192, 0, 2, 1,
//!     0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xfa, 0xf0, 0x49, 0xfb, 0, 0,
//! ];
//! assert!(stack.handle_frame(&mut syn, now).is_none(), "it carries no datagram to send");
//!
//! // Nothing is promised to the guest before the remote has accepted.
//! let Some(HostAction::ConnectTcp { flow, remote, .. }) = stack.poll_action() else {
//!     unreachable!("a SYN asks for a connection");
//! };
//! assert_eq!(remote, "192.0.2.1:80".parse()?);
//! assert!(stack.poll_ready(now).is_none());
//!
//! // The world is a simulator: the remote accepts after 30 ms, and the guest gets its SYN|ACK.
//! now = now + Duration::from_millis(30);
//! stack.handle_tcp_connected(flow, Ok(()), now);
//! assert_eq!(stack.poll_ready(now), Some(flow));
//! stack.pump(flow, &mut Remote, now);
//! let frame = stack.poll_frame(now).expect("the guest is answered");
//! assert_eq!(frame[47], 0x12, "SYN and ACK");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/` has two whole programs: `embed` (containers of its own, blocking and async) and
//! `members` (two containers that reach each other by name).
//!
//! # Features
//!
//! * `host` (on by default): everything that touches the kernel, for Linux. Without it the crate
//!   is the pure side alone, has few dependencies, and builds for every target of Rust's standard
//!   library.
//!
//! # Panics
//!
//! No input of a guest or a remote may make this crate panic; one that does is a defect. Two fences
//! stand behind that promise. Calls into the TCP engine (smoltcp) are caught: a panic there resets
//! the flow and is counted as
//! [`TcpEngineFailed`](discard::DiscardReason::TcpEngineFailed). A panic elsewhere on an instance's
//! threads ends that instance with `RunError::Panicked`, and leaves the rest of the process alone.
//! Both need unwinding: with `panic = "abort"` the process ends.
//!
//! # Versions
//!
//! Rust 1.91 or newer. A newer minimum comes with a new minor version. Enums and structs that will
//! grow are `#[non_exhaustive]`. What is in the hidden module `internals` is shared with the
//! programs and tests of this workspace; no version promises to keep it.

pub mod config;
#[cfg(feature = "host")]
mod control;
pub mod discard;
pub mod egress;
pub mod event;
mod flow;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "host")]
pub mod instance;
#[doc(hidden)]
pub mod internals;
pub mod journal;
#[cfg(feature = "host")]
pub mod launch;
mod mac;
pub mod member;
#[cfg(feature = "host")]
pub mod mirror;
mod nat;
#[cfg(feature = "host")]
mod netlink;
#[cfg(feature = "host")]
pub mod netns;
mod personality;
pub mod plan;
pub mod policy;
mod protocol;
mod rates;
mod rng;
#[cfg(feature = "host")]
pub mod sandbox;
mod service;
mod shaper;
mod share;
pub mod stack;
pub mod stats;
mod switch;
mod switches;
#[cfg(feature = "host")]
mod sys;
mod tcp;
pub mod time;
mod timer;
mod traffic;
mod wire;
mod words;

pub use flow::{FlowState, FlowSummary, HostStream, JudgedFlow, Transfer};
#[cfg(feature = "host")]
pub use host::{dns, link};
pub use mac::MacAddr;
pub use rates::{Rate, RateDirection, Rates};
pub use traffic::Traffic;

/// The program in README.md compiles.
#[cfg(all(doctest, feature = "host"))]
#[doc = include_str!("../README.md")]
struct Readme;
