//! Giving up privileges, to limit what a compromised process can do.
//!
//! Owns which ones the process keeps, and what protects its memory. capabilities(7).

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::SandboxStep as Step;
use crate::sys::privilege::{GiveUpStep, Identity, give_up_privileges};

/// CAP_NET_BIND_SERVICE: forwarded ports below 1024 can be asked for at any time.
const NET_BIND_SERVICE: u8 = 10;

/// Keeps CAP_NET_BIND_SERVICE and nothing else, for this thread and every thread that it starts,
/// and takes on `identity`.
pub(super) fn keep_only_net_bind_service(identity: Option<Identity>) -> Result<(), (Step, Errno)> {
    give_up_privileges(&[NET_BIND_SERVICE], identity).map_err(|(step, errno)| {
        let step = match step {
            GiveUpStep::BoundingSet => Step::DropBoundingSet,
            GiveUpStep::NewPrivileges => Step::NoNewPrivileges,
            GiveUpStep::AmbientSet => Step::ClearAmbientSet,
            GiveUpStep::Identity => Step::ChangeIdentity,
            GiveUpStep::Capabilities => Step::SetCapabilities,
        };
        (step, errno)
    })
}

/// Protects our memory: no core file, and no ptrace(2) or `/proc/PID/mem` for other processes of
/// the user, which include the guest's.
pub(super) fn forbid_memory_dumps() -> Result<(), (Step, Errno)> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| (Step::LimitCore, errno))?;
    prctl::set_dumpable(false).map_err(|errno| (Step::SetDumpable, errno))
}
