//! `pasta` as its callers know it: the daemon's start and end, ports, their changes by `pesto`, and
//! the command lines of known callers.
//!
//! The program confines itself always, so `.ci/run` has no second run of this binary.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

mod bridge;
mod callers;
mod command;
mod control;
mod forwards;
mod identity;
mod lifecycle;
mod lifetime;
mod loopback_alone;
mod machines;
mod outbound;
mod policy;
mod ports;
mod qemu;
mod rootlesskit;
mod settings;
mod vectors;

/// Options of a guest with addresses of its own, so that tests do not depend on the host's, and
/// without datagrams to it and the ports of its loopback.
const GUEST: &[&str] = &[
    "--config-net",
    "-q",
    "-4",
    "-a",
    "10.0.2.100",
    "-n",
    "24",
    "-g",
    "10.0.2.2",
    "-I",
    "tap0",
    "-u",
    "none",
    "-T",
    "none",
    "-U",
    "none",
];
