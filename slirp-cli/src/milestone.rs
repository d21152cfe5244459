//! The events of a run that its caller is told about, without their wording.
//!
//! Owns [`Milestone`]; a [`dialect`](crate::dialect) words it.

use std::os::fd::RawFd;
use std::path::Path;

use slirp_core::MacAddr;
use slirp_core::egress::EgressPolicy;
use slirp_core::instance::{Forward, Handle};

/// Reports a milestone to the caller of the program.
pub(crate) type Report<'a> = &'a dyn Fn(Milestone<'_>);

/// An event that the caller of the program is told about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Milestone<'a> {
    /// The ready descriptor of this number is not open for writing; the run goes on without it.
    ReadyFdClosed(i32),
    /// The exit descriptor of this number is not open, or it is the ready descriptor, which is
    /// about to be closed. The run ends once the network works.
    ExitFdClosed(i32),
    /// The socket of this path is bound and waits for a peer.
    PeerAwaited(&'a Path),
    /// A peer has connected to the socket of this path and is on this descriptor.
    PeerConnected(&'a Path, RawFd),
    /// The TAP device of this name is open on this descriptor.
    DeviceOpened(&'a str, RawFd),
    /// The network works; the ready descriptor is told next.
    Started {
        /// Address of the TAP device, if it is known.
        mac: Option<MacAddr>,
        /// Rules whose ports the system has picked.
        picked: &'a [Forward],
        /// The egress policy in force.
        egress: Option<&'a EgressPolicy>,
        /// What the network can be asked by.
        handle: &'a Handle,
    },
    /// The exit descriptor has hung up: the run ends.
    ExitFdHungUp,
    /// The target is gone, which ends the run. The text describes the target to a person.
    TargetGone(&'a str),
    /// The peer of the socket of this path has hung up: the run ends.
    PeerGone(&'a Path),
}
