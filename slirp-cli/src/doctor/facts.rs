//! What is known about this machine and this process.
//!
//! Owns the values between [`gather`](super::gather), which reads the world, and
//! [`judge`](super::judge), which does not. A test writes any world down as one of these.

use std::time::Duration;

use nix::errno::Errno;
use slirp_core::config::Offload;

/// Everything that the checks look at.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) user: User,
    /// Release of the kernel, as uname(1) has it.
    pub(super) kernel: Option<String>,
    /// Whether `/proc` tells of this process.
    pub(super) has_proc: bool,
    pub(super) namespaces: Namespaces,
    pub(super) tun: Tun,
    pub(super) sandbox: Attempt,
    pub(super) filter: Attempt,
    pub(super) subordinate: Subordinate,
    pub(super) ping: Ping,
    pub(super) resolvers: Resolvers,
    /// Whether the host's own address 127.0.0.1 can be used.
    pub(super) loopback: Result<(), Errno>,
    pub(super) ipv4: Ipv4,
    pub(super) ipv6: Ipv6,
    /// Hard limit of open descriptors; the soft limit is raised to it.
    pub(super) descriptors: Option<u64>,
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub(super) first_free_port: Option<u32>,
}

/// The user that runs the doctor.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: u32,
    pub(super) name: Option<String>,
}

impl User {
    pub(super) fn is_root(&self) -> bool {
        self.id == 0
    }

    /// What a person types as root.
    pub(super) fn as_root(&self, command: &str) -> String {
        if self.is_root() { command.to_owned() } else { format!("as root: {command}") }
    }
}

/// How something ended that was tried in a process of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    Worked,
    /// What failed, why, and the hint of the library where it has one.
    Failed(String, Option<String>),
    /// It was not tried, since what it takes is missing.
    Skipped,
}

/// A step on the way into namespaces of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    MakeUser,
    MapIds,
    MakeNetwork,
    MakeMounts,
}

impl Step {
    pub(super) const ALL: [Self; 4] =
        [Self::MakeUser, Self::MapIds, Self::MakeNetwork, Self::MakeMounts];

    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::MakeUser => "unshare(CLONE_NEWUSER)",
            Self::MapIds => "writing the id maps",
            Self::MakeNetwork => "unshare(CLONE_NEWNET)",
            Self::MakeMounts => "unshare(CLONE_NEWNS)",
        }
    }
}

/// Why there are no namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NoNamespaces {
    /// A step failed.
    Step(Step, Errno),
    /// The process that tried has not told.
    Silent(String),
    /// It was not tried, since there is no `/proc`.
    Skipped,
}

/// User and network namespaces.
#[derive(Clone, Debug)]
pub(super) struct Namespaces {
    pub(super) outcome: Result<(), NoNamespaces>,
    /// `user.max_user_namespaces`.
    pub(super) user_cap: Option<u64>,
    /// `user.max_net_namespaces`.
    pub(super) network_cap: Option<u64>,
    /// `user.max_mnt_namespaces`.
    pub(super) mount_cap: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub(super) clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu's kernels have.
    pub(super) apparmor: Option<u64>,
    /// Whether a filter of system calls applies to us (seccomp(2)).
    pub(super) is_filtered: bool,
    /// Whether our root directory is that of chroot(2).
    pub(super) is_in_chroot: bool,
    /// Whether we have CAP_SETFCAP, without which root cannot be mapped.
    pub(super) maps_root: bool,
}

/// `/dev/net/tun` as a file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) is_device: bool,
    pub(super) mode: u32,
    /// Whether its mode lets us in.
    pub(super) is_permitted: bool,
}

/// The device of the kernel's TUN/TAP driver.
#[derive(Clone, Debug)]
pub(super) struct Tun {
    pub(super) node: Result<Node, Errno>,
    /// Whether the driver is loaded, as far as `/proc/misc` tells.
    pub(super) has_driver: Option<bool>,
    /// What open(2) says.
    pub(super) open: Result<(), Errno>,
    /// What a TAP device in the namespaces can do, or why there is none.
    pub(super) attach: Result<Offload, Attempt>,
}

/// Ids that a container usually maps.
pub(super) const CONTAINER_IDS: u64 = 65_536;

/// Ids that containers of an ordinary user may use.
#[derive(Clone, Debug)]
pub(super) struct Subordinate {
    pub(super) uids: u64,
    pub(super) gids: u64,
    /// The first of as many ids as a container takes that are nobody's, neither as users nor as
    /// groups.
    pub(super) free: u64,
    /// Whether newuidmap(1) and newgidmap(1) are in `PATH`.
    pub(super) has_tools: bool,
}

/// The host's sockets for echo requests.
#[derive(Clone, Debug)]
pub(super) struct Ping {
    pub(super) socket: Result<(), Errno>,
    /// `net.ipv4.ping_group_range`.
    pub(super) range: Option<String>,
    pub(super) group: u32,
}

/// The resolvers of `/etc/resolv.conf`.
#[derive(Clone, Debug)]
pub(super) struct Resolvers {
    /// Whether the file could be read.
    pub(super) file: Result<(), Errno>,
    /// Each in the order of the file; none where it names none.
    pub(super) asked: Vec<Asked>,
}

/// A resolver, and what became of a question to it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) address: String,
    pub(super) outcome: Result<Answer, Silence>,
}

/// What a resolver has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) after: Duration,
    /// The response code (RFC 1035 section 4.1.1).
    pub(super) code: u8,
}

/// Why a resolver has not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    /// It is no address.
    NoAddress,
    /// No answer came in time.
    Late,
    /// The kernel told that it cannot be reached.
    Unreachable(Errno),
}

/// The way out over IPv4.
#[derive(Clone, Debug)]
pub(super) struct Ipv4 {
    /// MTU of the way to the internet in bytes, or why there is no way.
    pub(super) mtu: Result<u32, Errno>,
    /// The interface of the default route.
    pub(super) interface: Option<String>,
}

/// The way out over IPv6.
#[derive(Clone, Debug)]
pub(super) struct Ipv6 {
    /// Whether the host's own address ::1 can be used.
    pub(super) loopback: Result<(), Errno>,
    /// The source address on the way to the internet, or why there is no way.
    pub(super) source: Result<String, Errno>,
    /// `net.ipv6.conf.lo.disable_ipv6`; absent where the kernel has no IPv6.
    pub(super) disabled: Option<u64>,
}
