//! Capabilities, the user of one thread, and access to abstract UNIX sockets: calls that no safe
//! crate wraps.
//!
//! Owns prctl(2) and capset(2) as far as capabilities(7) go, setresuid(2) and its kin for a single
//! thread, landlock(7) as far as abstract UNIX sockets go, and the order in which a thread gives
//! its privileges up ([`give_up_privileges`]). [`sandbox`](crate::sandbox) decides which ones.

use core::ffi::{c_int, c_long, c_ulong};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::prctl;

/// `_LINUX_CAPABILITY_VERSION_3` (`linux/capability.h`): sets of 64 bits.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Numbers of capabilities end below this: their sets have 64 bits.
const CAPABILITIES_END: u8 = 64;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    /// 0 is the calling thread.
    pid: c_int,
}

/// `struct __user_cap_data_struct`, one half of the three sets.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// A user and a group, as the process's user namespace numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: u32,
    /// The user's only group.
    pub group: u32,
}

/// A step on the way to fewer privileges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveUpStep {
    /// Emptying the bounding set; needs CAP_SETPCAP.
    BoundingSet,
    /// Forbidding new privileges.
    NewPrivileges,
    /// Emptying the ambient set.
    AmbientSet,
    /// Becoming another user and group; needs CAP_SETUID and CAP_SETGID.
    Identity,
    /// Reducing the effective, permitted and inheritable sets.
    Capabilities,
}

/// Keeps the capabilities of these numbers and nothing else, for the calling thread and every
/// thread that it starts, and takes on `identity`.
///
/// # Errors
/// The step that the kernel has refused.
pub(crate) fn give_up_privileges(
    kept: &[u8],
    identity: Option<Identity>,
) -> Result<(), (GiveUpStep, Errno)> {
    drop_bounding_set_except(kept).map_err(|errno| (GiveUpStep::BoundingSet, errno))?;
    prctl::set_no_new_privs().map_err(|errno| (GiveUpStep::NewPrivileges, errno))?;
    match clear_ambient_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(errno) => return Err((GiveUpStep::AmbientSet, errno)),
    }
    if let Some(identity) = identity {
        become_other(identity).map_err(|errno| (GiveUpStep::Identity, errno))?;
    }
    keep_only(kept).map_err(|errno| (GiveUpStep::Capabilities, errno))
}

/// Takes every capability but those of the numbers `kept` out of the bounding set of the calling
/// thread.
///
/// # Errors
/// `EPERM` without CAP_SETPCAP.
fn drop_bounding_set_except(kept: &[u8]) -> Result<(), Errno> {
    for capability in (0..CAPABILITIES_END).filter(|capability| !kept.contains(capability)) {
        // SAFETY: PR_CAPBSET_DROP takes a number and changes nothing but the bounding set.
        let done = unsafe {
            libc::prctl(libc::PR_CAPBSET_DROP, c_ulong::from(capability), 0_u64, 0_u64, 0_u64)
        };
        match Errno::result(done) {
            Ok(_) => {}
            // The kernel knows no capability of this number, hence none above it.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Empties the ambient set of the calling thread.
///
/// # Errors
/// `EINVAL` before Linux 4.3, which has no such set.
fn clear_ambient_set() -> Result<(), Errno> {
    // SAFETY: PR_CAP_AMBIENT_CLEAR_ALL takes no pointer and changes nothing but the ambient set.
    let done = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong,
            0_u64,
            0_u64,
            0_u64,
        )
    };
    Errno::result(done).map(drop)
}

/// Makes the capabilities of the numbers `kept` the only effective, permitted and inheritable ones
/// of the calling thread.
///
/// # Errors
/// `EPERM` when the thread does not have one of them.
pub(crate) fn keep_only(kept: &[u8]) -> Result<(), Errno> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut bits = 0;
    for &number in kept {
        bits |= 1_u64.checked_shl(u32::from(number)).ok_or(Errno::EINVAL)?;
    }
    let half = |bits: u64| {
        let bits = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        CapabilityHalf { effective: bits, permitted: bits, inheritable: bits }
    };
    let halves = [half(bits), half(bits >> 32)];
    // SAFETY: the kernel reads one header and, for version 3, two halves (capset(2)); both live
    // until the call returns.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Makes user and group of `identity` the real, effective and saved ones of the calling thread
/// alone, without any other group. The thread keeps its permitted capabilities; the effective ones
/// are empty.
///
/// The functions of the C library would do the same to all threads, and abort the process where one
/// of them may not.
///
/// # Errors
/// `EPERM` without CAP_SETUID and CAP_SETGID; `EINVAL` for an id that the user namespace lacks.
fn become_other(identity: Identity) -> Result<(), Errno> {
    let (user, group) = (c_ulong::from(identity.user), c_ulong::from(identity.group));
    let no_groups: *const libc::gid_t = core::ptr::null();
    // SAFETY: setgroups(2) reads as many groups as its first argument says: none.
    match Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, 0_usize, no_groups) }) {
        // In a user namespace that an ordinary user has made, nobody may give groups up
        // (user_namespaces(7)). A lack of rights is told by the next call.
        Ok(_) | Err(Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    // SAFETY: setresgid(2) takes three numbers and touches no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, group, group, group) })?;
    prctl::set_keepcaps(true)?;
    // SAFETY: setresuid(2) takes three numbers and touches no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
    prctl::set_keepcaps(false)
}

/// Bars the calling thread, and threads that it starts, from abstract UNIX sockets of other
/// processes. Needs no_new_privs.
///
/// # Errors
/// Before Linux 6.12 (ABI 6 of Landlock): `E2BIG`, `EINVAL`, `ENOSYS` or `EOPNOTSUPP`.
pub(crate) fn scope_abstract_sockets() -> Result<(), Errno> {
    /// `struct landlock_ruleset_attr` of Linux 6.12 (`linux/landlock.h`).
    #[repr(C)]
    struct RulesetAttributes {
        handled_files: u64,
        handled_network: u64,
        scoped: u64,
    }
    /// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
    const ABSTRACT_UNIX_SOCKET: u64 = 1;
    const NO_FLAGS: c_long = 0;
    let attributes =
        RulesetAttributes { handled_files: 0, handled_network: 0, scoped: ABSTRACT_UNIX_SOCKET };
    // SAFETY: the kernel reads a structure of the length that is given with it, and makes a
    // descriptor.
    let made = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            NO_FLAGS,
        )
    })?;
    let number = RawFd::try_from(made).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns its number.
    let ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    // SAFETY: landlock_restrict_self(2) takes a descriptor and flags, and touches no memory.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, c_long::from(ruleset.as_raw_fd()), NO_FLAGS)
    };
    Errno::result(done).map(drop)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a thread gives up its way to sockets")]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::*;

    #[test]
    fn abstract_sockets_of_others_are_out_of_reach() {
        let name = format!("slirp-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let _host = UnixListener::bind_addr(&address).unwrap();
        let confined = std::thread::spawn(move || {
            prctl::set_no_new_privs().unwrap();
            scope_abstract_sockets().map(|()| {
                UnixStream::pair().expect("pairs are not concerned");
                UnixStream::connect_addr(&address).unwrap_err().raw_os_error()
            })
        });
        match confined.join().unwrap() {
            Ok(refused) => assert_eq!(refused, Some(libc::EPERM)),
            Err(errno) => eprintln!("SKIPPED: this kernel scopes no sockets: {errno}"),
        }
    }
}
