//! A command with a network of its own: the processes of `slirp run` and of `pasta COMMAND`.
//!
//! ```text
//!  caller ── supervisor ─┬─ inside, then COMMAND    its own namespaces
//!                        └─ network                 the engine, sandboxed
//! ```
//!
//! * The supervisor stays where the caller started it, and does what makes COMMAND look as if it
//!   ran there itself: signals, job control, exit status ([`supervisor`], [`signals`]). It sees no
//!   byte of the network, keeps the caller's rights, and is neither sandboxed nor filtered.
//! * `inside` enters the namespaces, prepares them and becomes COMMAND ([`inside`], [`names`]).
//! * The network is [`run`](crate::run) in a process and session of its own, so that nothing that
//!   is typed reaches it, and nothing that a guest could do to it reaches the caller.
//!
//! The last two are this program again, started with a private word and the same arguments.
//! What the two dialects do differently is data: [`Conduct`] and [`Place`].
//!
//! # The order of a start
//! 1. supervisor: starts the other two, which load side by side
//! 2. inside: user namespace and network namespace, and those of a machine of its own where it is
//!    to have one ([`machine`]); "entered"
//! 3. supervisor: maps of ids ([`identity`]); "mapped"; lets the network attach to the process
//!    inside
//! 4. inside, meanwhile: settings of its network namespace, mount namespace, `/etc/resolv.conf`
//! 5. network: ready; supervisor: "go"; inside: executes COMMAND
//!
//! # Ends
//! When COMMAND ends, the network is told by the hang-up of a pipe and waited for, so that its
//! files are complete and its ports are free when the supervisor ends. When the supervisor is
//! killed, COMMAND is killed by the kernel (PR_SET_PDEATHSIG) and the pipe hangs up. When the
//! network ends too early, COMMAND goes on without one.

mod failure;
mod identity;
mod inside;
mod ipv6;
mod machine;
mod names;
mod occupant;
mod signals;
mod supervisor;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub(crate) use failure::EntryFailure;
pub(crate) use inside::{Handover, Program, enter, shell};
pub(crate) use ipv6::host_has_ipv6;
pub(crate) use supervisor::{Conduct, Ending, end_like, supervise};

/// The word that makes this program the process inside. The number of the connection to the
/// supervisor, the supervisor's process number, and signals follow, then the caller's arguments.
pub const INSIDE_WORD: &str = "become-command";

/// The word that makes this program the network. The supervisor's process number follows, then the
/// caller's arguments. Its standard input lets it attach by the number of the process inside
/// (`process_inside`) and ends it by its hang-up; a byte to its standard output says that it is
/// ready. Standard streams stay open until it has ended, so that it has told a failure before the
/// supervisor hears of it.
pub const NETWORK_WORD: &str = "connect-command";

/// Where COMMAND runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In new namespaces.
    New {
        /// The ids of the new user namespace. With `None` there is none: the caller has the rights
        /// for the others.
        ids: Option<Ids>,
        /// The host name of a machine of its own: with it COMMAND has process numbers, IPC, mounts
        /// and a host name apart from the caller's.
        machine: Option<OsString>,
    },
    /// In the network namespace of this process, and the user namespace that owns it.
    OfProcess(i32),
    /// In the network namespace at this path, and the user namespace that owns it.
    OfPath(PathBuf),
}

/// Which ids a new user namespace has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ids {
    /// The caller's own, or all if it may give all away.
    Kept,
    /// The caller is root there; a caller that is root already keeps all ids.
    Root,
    /// The caller is root there, and there is no other id.
    RootAlone,
}

/// Takes the supervisor's number off the front of the network's arguments; `None` if it is not
/// there.
pub(crate) fn take_supervisor(arguments: &mut impl Iterator<Item = OsString>) -> Option<i32> {
    arguments.next()?.into_string().ok()?.parse().ok()
}

/// The process inside, as the network is told at its standard input; `None` if the supervisor has
/// given up.
pub(crate) fn process_inside() -> Option<i32> {
    let mut number = [0; size_of::<i32>()];
    io::stdin().read_exact(&mut number).ok()?;
    Some(i32::from_ne_bytes(number))
}

/// How names are looked up inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// The resolver of `/etc/resolv.conf`.
    pub(crate) resolver: Ipv4Addr,
    /// Where short names are looked up; with none, where the host looks them up.
    pub(crate) domains: Vec<String>,
}
