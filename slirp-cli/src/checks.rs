//! Checks of the host before the guest's device is made.
//!
//! Owns the order of these checks. A port, an address or a file that is not available is reported
//! before anything was made or printed, so the guest's namespace is not touched. Ports, the
//! recording and the audit log are open from here on, so that no other program takes them. Sockets
//! with a path are bound later; if another program has bound one by then, the bind reports it.

use std::fs::{Metadata, metadata, symlink_metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use slirp_core::egress::EgressPolicy;
use slirp_core::instance::{Forward, ForwardError, OpenForwards, Opening, StartError};
use slirp_core::link::Recording;
use slirp_core::plan::{AddressPlan, AssumedGuest};

use crate::failure::RunFailure;
use crate::operator::{Opened, Taken};
use crate::options::{Options, SOCKET_PATH_CAP};

/// What the checks have opened.
pub(crate) struct Checked {
    /// The published ports.
    pub(crate) ports: OpenForwards,
    /// Where the guest may go, if any door says so.
    pub(crate) egress: Option<EgressPolicy>,
    /// The recording; its file is unchanged so far.
    pub(crate) recording: Option<Recording>,
    /// What the operator watches and steers by, as far as it is open.
    pub(crate) operator: Opened,
}

/// Checks everything on the host that `options` name. `taken` are descriptors of the caller.
pub(crate) fn check(options: &Options, taken: Taken) -> Result<Checked, RunFailure> {
    let egress = options.egress.load(&options.policy)?;
    options.outbound.verify().map_err(StartError::Outbound)?;
    // The address that an IPv6 guest derives from its MAC address is not known yet, and not checked
    // here.
    let plan = options.address_plan();
    let guest = AssumedGuest::new(plan, options.mac);
    let rules = options.publish.iter();
    let rules: Vec<_> =
        rules.map(|publish| (publish.forward(guest), publish.opening.clone())).collect();
    let ports = open_ports(&rules, plan, options.port_patience)?;
    if let Some(path) = &options.api_socket {
        if path.as_os_str().len() >= SOCKET_PATH_CAP {
            return Err(RunFailure::ApiPathTooLong);
        }
        may_bind(path)
            .map_err(|errno| RunFailure::ApiBind(path.clone(), io::Error::from(errno)))?;
    }
    // Last, because these create missing files.
    let recording = options.pcap.as_ref().map(|path| {
        Recording::open(path).map_err(|error| RunFailure::Recording(path.clone(), error))
    });
    let recording = recording.transpose()?;
    let operator = options.operator.open(taken)?;
    Ok(Checked { ports, egress, recording, operator })
}

/// How often a port that is in use is tried again (arbitrary; bind(2) takes microseconds).
const PORT_INTERVAL: Duration = Duration::from_millis(20);

/// Opens the ports of all rules, or none. Waits up to `patience` for a port that is in use.
fn open_ports(
    rules: &[(Forward, Opening)],
    plan: AddressPlan,
    patience: Duration,
) -> Result<OpenForwards, ForwardError> {
    let began = Instant::now();
    loop {
        match OpenForwards::open_as(rules, plan) {
            Err(error) if error.is_in_use() && began.elapsed() < patience => {
                thread::sleep(PORT_INTERVAL);
            }
            opened => return opened,
        }
    }
}

/// Checks whether a socket can be bound at `path` in place of the present file; the errors follow
/// bind(2). Binding for a trial would remove a socket that another program may serve, for a start
/// that may fail.
pub(crate) fn may_bind(path: &Path) -> Result<(), Errno> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let is_folder = metadata(folder).map_or(true, |folder| folder.is_dir());
    if !is_folder {
        return Err(Errno::ENOTDIR);
    }
    // Other obstacles are left to bind(2): an outer system call filter may forbid the check.
    if let Err(
        errno @ (Errno::EACCES | Errno::EROFS | Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP),
    ) = eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)
    {
        return Err(errno);
    }
    let Ok(there) = symlink_metadata(path) else { return Ok(()) };
    if there.is_dir() || is_kept(&there, folder) {
        return Err(Errno::EADDRINUSE);
    }
    Ok(())
}

/// Whether `file` cannot be removed: another user's file in a sticky folder (inode(7)) such as
/// `/tmp`.
fn is_kept(file: &Metadata, folder: &Path) -> bool {
    let user = geteuid();
    let is_ours = |owner: u32| owner == user.as_raw();
    metadata(folder).is_ok_and(|folder| {
        folder.mode() & libc::S_ISVTX != 0
            && !user.is_root()
            && !is_ours(file.uid())
            && !is_ours(folder.uid())
    })
}
