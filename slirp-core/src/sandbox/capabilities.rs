//! Giving up privileges, to limit what a compromised process can do.
//!
//! Owns the order: bounding set first (it needs CAP_SETPCAP), then no_new_privs and the ambient
//! set, then the effective, permitted and inheritable sets. capabilities(7).

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use super::SandboxStep as Step;
use crate::sys::privilege::{clear_ambient_set, drop_bounding_set_except, keep_only};

/// CAP_NET_BIND_SERVICE: forwarded ports below 1024 can be asked for at any time.
const NET_BIND_SERVICE: u8 = 10;

/// Keeps CAP_NET_BIND_SERVICE and nothing else, for this thread and every thread that it starts.
pub(super) fn drop_all_but_net_bind_service() -> Result<(), (Step, Errno)> {
    drop_bounding_set_except(&[NET_BIND_SERVICE])
        .map_err(|errno| (Step::DropBoundingSet, errno))?;
    prctl::set_no_new_privs().map_err(|errno| (Step::NoNewPrivileges, errno))?;
    match clear_ambient_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err((Step::ClearAmbientSet, errno)),
    }
    keep_only(&[NET_BIND_SERVICE]).map_err(|errno| (Step::SetCapabilities, errno))
}

/// Protects our memory: no core file, and no ptrace(2) or `/proc/PID/mem` for other processes of
/// the user, which include the guest's.
pub(super) fn forbid_memory_dumps() -> Result<(), (Step, Errno)> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|errno| (Step::LimitCore, errno))?;
    prctl::set_dumpable(false).map_err(|errno| (Step::SetDumpable, errno))
}
