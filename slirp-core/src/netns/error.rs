//! Why there is no TAP device in the target's namespaces.
//!
//! Owns [`AttachError`]: its text, which scripts match and which follows slirp4netns(1), and a hint
//! about what to do.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::host::link::TapError;
use crate::sys::attach;
use crate::sys::errno::errno_of;
use crate::sys::fork;
use crate::sys::step::AttachStep;

/// Why there is no TAP device in the target's namespaces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A namespace could not be opened.
    #[error("{}: {}", path.display(), system_text(source))]
    OpenNamespace {
        /// Path of the namespace.
        path: PathBuf,
        /// The error of open(2).
        source: io::Error,
    },
    /// A user namespace could not be opened, or the path does not lead to one (`EINVAL`).
    #[error("{}: {}", path.display(), system_text(source))]
    OpenUserNamespace {
        /// Path of the namespace.
        path: PathBuf,
        /// The error of open(2).
        source: io::Error,
    },
    /// The network namespace is our own.
    #[error("{} is the network namespace that we run in ourselves", .0.display())]
    OwnNamespace(PathBuf),
    /// The path does not lead to a network namespace.
    #[error("{} is not a network namespace", .0.display())]
    NotNetwork(PathBuf),
    /// The network namespace belongs to a user namespace that is neither ours nor below it.
    #[error("{} belongs to a user namespace that is not ours to enter", .0.display())]
    ForeignOwner(PathBuf),
    /// A step failed inside the namespaces.
    #[error("{step}: {}", system_text(source))]
    Step {
        /// Which one.
        step: AttachStep,
        /// The error of the system call.
        source: io::Error,
    },
    /// The helper process could not be started.
    #[error("cannot start the helper process: {}", system_text(.0))]
    HelperNotStarted(#[source] io::Error),
    /// A signal of this number ended the helper process.
    #[error("the helper process was killed by {}", name_of_signal(*.0))]
    HelperKilled(i32),
    /// The helper process ended without a report, with this status where it is known.
    #[error("the helper process ended without a report")]
    HelperSilent(Option<i32>),
    /// The device was opened but cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
}

impl AttachError {
    /// What a person can do about it, where that is not obvious; goes on a line of its own.
    pub fn hint(&self) -> Option<&'static str> {
        let (step, errno) = match self {
            Self::Step { step, source } => (*step, errno_of(source)),
            Self::OpenUserNamespace { source, .. } if errno_of(source) == Errno::EINVAL => {
                return Some("the path is not that of a user namespace");
            }
            Self::OpenNamespace { path, source } | Self::OpenUserNamespace { path, source } => {
                let is_gone = errno_of(source) == Errno::ENOENT && path.starts_with("/proc");
                let is_foreign = errno_of(source) == Errno::EACCES;
                return is_foreign
                    .then_some("only the owner of a process or root can attach to it")
                    .or(is_gone.then_some("there is no process of this number, or it has ended"));
            }
            Self::ForeignOwner(_) => return Some("run as the owner of the container, or as root"),
            Self::OwnNamespace(_) => {
                return Some(
                    "a network there would take away ours: give a process or a path of another \
                     network namespace, such as unshare --net makes",
                );
            }
            Self::NotNetwork(_)
            | Self::HelperNotStarted(_)
            | Self::HelperKilled(_)
            | Self::HelperSilent(_)
            | Self::Tap(_) => return None,
        };
        match (step, errno) {
            (AttachStep::OpenTun, Errno::ENOENT) => {
                Some("the device is missing: load the tun module, or pass the device in")
            }
            (AttachStep::OpenTun, Errno::ENODEV | Errno::ENXIO) => {
                Some("the kernel has no TUN/TAP driver: load the tun module")
            }
            (AttachStep::OpenTun, Errno::EACCES | Errno::EPERM) => {
                Some("load the tun module and make /dev/net/tun accessible (mode 0666)")
            }
            (AttachStep::EnterNetwork, Errno::EPERM) => Some(
                "the network namespace belongs to a user namespace that is not ours to enter; give \
                 the path of that user namespace, too",
            ),
            (AttachStep::EnterNetwork, Errno::EINVAL) => {
                Some("the path is not that of a network namespace")
            }
            (AttachStep::CreateTap, Errno::EBUSY) => {
                Some("another process is attached to the interface of this name")
            }
            (AttachStep::CreateTap, Errno::EPERM) => {
                Some("no right to create interfaces in this network namespace")
            }
            (AttachStep::CreateTap, Errno::EINVAL) => {
                Some("the name is not valid, or belongs to an interface that is not a TAP device")
            }
            (AttachStep::SetMac, Errno::EADDRNOTAVAIL) => Some(
                "an interface has an address of its own: not zero, and with an even first byte, \
                 such as 02:00:00:00:00:01",
            ),
            (AttachStep::CheckName, Errno::EEXIST) => {
                Some("the network namespace has an interface of this name already")
            }
            (AttachStep::SetAddress6, Errno::EACCES | Errno::EOPNOTSUPP) => Some(
                "IPv6 is disabled in the network namespace (net.ipv6.conf.all.disable_ipv6), and \
                 /proc/sys cannot be written to change that",
            ),
            (AttachStep::SetAddress6, _) => Some("the kernel may have no IPv6 (ipv6.disable=1)"),
            _ => None,
        }
    }
}

impl From<attach::Failure> for AttachError {
    fn from(failure: attach::Failure) -> Self {
        match failure {
            attach::Failure::Step(step, errno) => Self::Step { step, source: errno.into() },
            attach::Failure::Helper(fork::Failure::NotStarted(errno)) => {
                Self::HelperNotStarted(errno.into())
            }
            attach::Failure::Helper(fork::Failure::Killed(signal)) => {
                Self::HelperKilled(signal as i32)
            }
            attach::Failure::Helper(fork::Failure::Silent(status)) => Self::HelperSilent(status),
        }
    }
}

fn name_of_signal(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string())
}

/// The text of strerror(3) alone, which scripts match: `io::Error` would append the error number.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_ones_that_scripts_know() {
        use AttachStep as Step;
        for (step, number, text) in [
            (Step::EnterNetwork, Errno::EPERM, "setns(CLONE_NEWNET): Operation not permitted"),
            (Step::OpenTun, Errno::ENOENT, "open(\"/dev/net/tun\"): No such file or directory"),
            (Step::OpenTun, Errno::EACCES, "open(\"/dev/net/tun\"): Permission denied"),
            (Step::CreateTap, Errno::EBUSY, "ioctl(TUNSETIFF): Device or resource busy"),
            (Step::SetUp, Errno::EPERM, "cannot set device up: Operation not permitted"),
            (Step::SetMtu, Errno::EINVAL, "cannot set MTU: Invalid argument"),
            (
                Step::SetMac,
                Errno::EADDRNOTAVAIL,
                "cannot set MAC address: Cannot assign requested address",
            ),
            (Step::SetAddress, Errno::EINVAL, "cannot set device address: Invalid argument"),
            (Step::SetNetmask, Errno::EINVAL, "cannot set device netmask: Invalid argument"),
            (Step::AddRoute, Errno::ENETUNREACH, "set route: Network is unreachable"),
        ] {
            let error = AttachError::from(attach::Failure::Step(step, number));
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn hint_says_what_to_do_about_the_device() {
        let hint =
            |number| AttachError::from(attach::Failure::Step(AttachStep::OpenTun, number)).hint();
        assert!(hint(Errno::EACCES).is_some_and(|text| text.contains("0666")));
        assert!(hint(Errno::ENOENT).is_some_and(|text| text.contains("missing")));
        assert_eq!(hint(Errno::EMFILE), None);
    }
}
