//! Why COMMAND could not be run, and what to do about it.

use core::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use slirp_core::netns::AttachError;

/// Why the supervisor gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandFailure {
    #[error("this /proc is of another PID namespace")]
    ForeignProc,
    #[error("cannot prepare for signals: {}", .0.desc())]
    Signals(Errno),
    #[error("cannot make a pipe: {}", .0.desc())]
    Pipe(Errno),
    #[error("cannot start this program again: {0}")]
    Start(#[source] io::Error),
    #[error("cannot map ids into the new user namespace: {0}")]
    Maps(#[source] io::Error),
    #[error("cannot wait for the command: {}", .0.desc())]
    Wait(Errno),
}

impl CommandFailure {
    /// A hint about what to do, if that is not obvious.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::ForeignProc => {
                Some("mount -t proc proc /proc, as unshare --mount-proc does".to_owned())
            }
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("/proc/self/exe is missing: mount /proc".to_owned())
            }
            Self::Maps(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some(Obstacles::look().about_rights())
            }
            Self::Signals(_) | Self::Pipe(_) | Self::Start(_) | Self::Maps(_) | Self::Wait(_) => {
                None
            }
        }
    }
}

/// A step on the way into the namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryStep {
    MakeUser,
    MakeNetwork,
    MakeMounts,
    Enter,
    TakeIds,
    Mounts,
    ResolvConf,
}

impl fmt::Display for EntryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MakeUser => "cannot make a user namespace",
            Self::MakeNetwork => "cannot make a network namespace",
            Self::MakeMounts => "cannot make a mount namespace",
            Self::Enter => "cannot enter the network namespace",
            Self::TakeIds => "cannot become the root of its user namespace",
            Self::Mounts => "cannot keep mounts from the host",
            Self::ResolvConf => "cannot put our /etc/resolv.conf in place",
        })
    }
}

/// Why the process inside did not become COMMAND.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryFailure {
    /// Somebody called the private word by hand.
    #[error(
        "{} and {} are words of slirp alone; call slirp run",
        super::INSIDE_WORD,
        super::NETWORK_WORD
    )]
    NotForPeople,
    /// The supervisor has given up, and has told why.
    #[error("the start was given up")]
    GivenUp,
    #[error("{step}: {why}", step = .0, why = .1.desc())]
    Step(EntryStep, Errno),
    #[error(transparent)]
    Target(#[from] AttachError),
    /// COMMAND cannot be executed.
    #[error("{command}: {why}", command = .0.display(), why = .1.desc())]
    Execute(PathBuf, Errno),
}

impl EntryFailure {
    /// The exit status, as env(1) has it.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Execute(_, Errno::ENOENT) => 127,
            Self::Execute(..) => 126,
            Self::NotForPeople | Self::GivenUp | Self::Step(..) | Self::Target(_) => 125,
        }
    }

    /// A hint about what to do, if that is not obvious.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Step(step, errno) => hint_of_step(*step, *errno, &Obstacles::look()),
            Self::Target(error) => error.hint().map(str::to_owned),
            Self::Execute(command, Errno::ENOENT) if !command.to_string_lossy().contains('/') => {
                Some("no folder of $PATH has it".to_owned())
            }
            Self::NotForPeople | Self::GivenUp | Self::Execute(..) => None,
        }
    }
}

/// What this host is known to put in the way.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Obstacles {
    /// AppArmor takes all rights from unprivileged user namespaces (Ubuntu 23.10 and later).
    apparmor: bool,
    /// The sysctl of Debian's kernels forbids them.
    sysctl: bool,
    /// A filter of system calls is in force, as in containers.
    filter: bool,
}

impl Obstacles {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let says = |path: &str, value: &str| read(path).trim() == value;
        let status = read("/proc/self/status");
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            apparmor: says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            sysctl: says("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            filter: mode.is_some_and(|mode| mode.trim() != "0"),
        }
    }

    /// What to do where a right is missing.
    fn about_rights(&self) -> String {
        let known = [
            (
                self.sysctl,
                "user namespaces are for root alone here: sysctl \
                 kernel.unprivileged_userns_clone=1",
            ),
            (
                self.apparmor,
                "AppArmor leaves no rights in user namespaces here: install the profile of this \
                 program, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            (
                self.filter,
                "a filter of system calls is in force, as in a container: allow unshare(2) and \
                 mount(2) there (docker run --security-opt seccomp=unconfined, podman run \
                 --privileged)",
            ),
        ];
        let found: Vec<_> = known.iter().filter(|(is_so, _)| *is_so).map(|(_, say)| *say).collect();
        if found.is_empty() {
            "a security module or a chroot(1) forbids it: run outside of it, or allow user \
             namespaces there"
                .to_owned()
        } else {
            found.join("; ")
        }
    }
}

fn hint_of_step(step: EntryStep, errno: Errno, obstacles: &Obstacles) -> Option<String> {
    let limit = match step {
        EntryStep::MakeUser => Some("user.max_user_namespaces"),
        EntryStep::MakeNetwork => Some("user.max_net_namespaces"),
        EntryStep::MakeMounts => Some("user.max_mnt_namespaces"),
        EntryStep::Enter | EntryStep::TakeIds | EntryStep::Mounts | EntryStep::ResolvConf => None,
    };
    match (errno, limit) {
        (Errno::ENOSPC | Errno::EUSERS, Some(limit)) => {
            Some(format!("no more of them are allowed: raise the sysctl {limit}"))
        }
        (Errno::EINVAL | Errno::ENOSYS, Some(_)) => {
            Some("the kernel lacks them (CONFIG_USER_NS, CONFIG_NET_NS)".to_owned())
        }
        (Errno::EPERM, None) if step == EntryStep::Enter => {
            Some("only its owner or root can enter it".to_owned())
        }
        (_, None) if step == EntryStep::TakeIds => {
            Some("the caller has no id there: call slirp run as the owner of it".to_owned())
        }
        (Errno::EINVAL, None) if step == EntryStep::Mounts => Some(
            "this root is no mount: bind its folder onto itself (mount --bind) before chroot(1), \
             or leave the host's /etc/resolv.conf with --no-dns"
                .to_owned(),
        ),
        (Errno::EPERM | Errno::EACCES, _) if step == EntryStep::ResolvConf => {
            Some(format!("{}; or leave the host's with --no-dns", obstacles.about_rights()))
        }
        (Errno::EPERM | Errno::EACCES, _) => Some(obstacles.about_rights()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_env() {
        let of = |errno| EntryFailure::Execute("x".into(), errno).status();
        assert_eq!((of(Errno::ENOENT), of(Errno::EACCES), of(Errno::ENOEXEC)), (127, 126, 126));
        assert_eq!(EntryFailure::GivenUp.status(), 125);
    }

    #[test]
    fn each_obstacle_has_its_remedy() {
        let none = Obstacles::default();
        let hint =
            |step, errno, obstacles: &Obstacles| hint_of_step(step, errno, obstacles).unwrap();
        let text = hint(EntryStep::MakeUser, Errno::ENOSPC, &none);
        assert!(text.contains("user.max_user_namespaces"), "{text}");
        let forbidden = Obstacles { sysctl: true, ..none.clone() };
        let text = hint(EntryStep::MakeUser, Errno::EPERM, &forbidden);
        assert!(text.contains("kernel.unprivileged_userns_clone=1"), "{text}");
        let ubuntu = Obstacles { apparmor: true, ..none.clone() };
        let text = hint(EntryStep::MakeNetwork, Errno::EPERM, &ubuntu);
        assert!(text.contains("apparmor_restrict_unprivileged_userns=0"), "{text}");
        let container = Obstacles { filter: true, ..none.clone() };
        let text = hint(EntryStep::MakeUser, Errno::EPERM, &container);
        assert!(text.contains("seccomp=unconfined"), "{text}");
        let text = hint(EntryStep::ResolvConf, Errno::EACCES, &none);
        assert!(text.ends_with("--no-dns"), "{text}");
        assert_eq!(hint_of_step(EntryStep::Mounts, Errno::ENOMEM, &none), None);
    }
}
