//! The one table of intended differences.
//!
//! Each row has the words of the manual page (see [`crate::manual`]) and the observations that
//! prove it. A row about a release older than the current slirp4netns says so.

mod network;
mod process;

use slirp_tests::Difference;

/// The first half of every observation's name.
pub(crate) const THEMES: &[&str] = &[
    "tcp",
    "tcp ends",
    "tcp data",
    "loopback",
    "udp",
    "udp data",
    "udp loopback",
    "ping",
    "ping socket",
    "ping refused",
    "dns",
    "resolver",
    "dns disabled",
    "forwarded tcp",
    "forwarded refusal",
    "forwarded udp",
    "link",
    "link options",
    "dhcp",
    "dhcp without dns",
    "ipv6",
    "api",
    "api clients",
    "api crash",
    "api file",
    "output",
    "stdout",
    "refused",
    "start",
    "help",
    "end",
    "device",
    "peer",
    "nested",
];

/// A row of the manual's table.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it is about.
    pub(crate) topic: &'static str,
    /// What Debian's slirp4netns does.
    pub(crate) theirs: &'static str,
    /// What ours does, and why where that is not plain.
    pub(crate) ours: &'static str,
    /// What of it is seen.
    pub(crate) seen: &'static [Difference],
}

const fn seen(at: &'static str, theirs: &'static str, ours: &'static str) -> Difference {
    Difference { at, theirs, ours }
}

/// The rows, in the order of the manual.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    network::ROWS.iter().chain(process::ROWS)
}

/// Every difference that is declared.
pub(crate) fn declared() -> Vec<Difference> {
    rows().flat_map(|row| row.seen).copied().collect()
}
