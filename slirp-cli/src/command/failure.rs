//! Why COMMAND could not be run, and what to do about it.

use core::fmt;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use slirp_core::netns::AttachError;

use crate::doctor::{Step, hint_of_namespaces};

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
    #[expect(clippy::wildcard_enum_match_arm, reason = "errors without a hint")]
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::ForeignProc => {
                Some("mount -t proc proc /proc, as unshare --mount-proc does".to_owned())
            }
            Self::Start(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("/proc/self/exe is missing: mount /proc".to_owned())
            }
            Self::Maps(error) => match errno_of(error) {
                errno @ (Errno::EPERM | Errno::EACCES) => {
                    Some(hint_of_namespaces(Step::MapIds, errno))
                }
                _ => None,
            },
            Self::Start(error) => hint_of_limit(errno_of(error)),
            Self::Signals(errno) | Self::Pipe(errno) | Self::Wait(errno) => hint_of_limit(*errno),
        }
    }
}

/// A step on the way into the namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EntryStep {
    MakeUser,
    MakeNetwork,
    MakeMounts,
    MakeMachine,
    Split,
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
            Self::MakeMachine => "cannot make namespaces of processes, IPC and the host name",
            Self::Split => "cannot start a process in the new namespaces",
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
        "{} and {} are words of slirp alone; call slirp run or pasta",
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
            Self::Step(step, errno) => hint_of_step(*step, *errno),
            Self::Target(error) => error.hint().map(str::to_owned),
            Self::Execute(command, Errno::ENOENT) => {
                hint_of_missing(command, &env::var_os("PATH").unwrap_or_default())
            }
            Self::NotForPeople | Self::GivenUp | Self::Execute(..) => None,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "errors without a hint")]
fn hint_of_step(step: EntryStep, errno: Errno) -> Option<String> {
    let (asked, is_made) = match step {
        EntryStep::MakeUser => (Step::MakeUser, true),
        EntryStep::MakeNetwork => (Step::MakeNetwork, true),
        EntryStep::MakeMounts => (Step::MakeMounts, true),
        EntryStep::Split => return hint_of_limit(errno),
        // What forbids one of them forbids mount namespaces as well.
        EntryStep::MakeMachine => (Step::MakeMounts, false),
        EntryStep::Enter if errno == Errno::EPERM => {
            return Some("only its owner or root can enter it".to_owned());
        }
        EntryStep::TakeIds => {
            return Some(
                "the caller has no id there: call slirp run as the owner of it".to_owned(),
            );
        }
        EntryStep::Mounts if errno == Errno::EINVAL => {
            return Some(
                "this root is no mount: bind its folder onto itself (mount --bind) before \
                 chroot(1), or leave the host's /etc/resolv.conf with --no-dns"
                    .to_owned(),
            );
        }
        // What forbids mounts forbids namespaces for them.
        EntryStep::Mounts | EntryStep::ResolvConf => (Step::MakeMounts, false),
        EntryStep::Enter => (Step::MakeUser, false),
    };
    match errno {
        Errno::ENOSPC | Errno::EUSERS | Errno::EINVAL | Errno::ENOSYS if !is_made => None,
        Errno::EPERM | Errno::EACCES if step == EntryStep::ResolvConf => {
            let hint = hint_of_namespaces(asked, errno);
            Some(format!("{hint}; or leave the host's with --no-dns"))
        }
        Errno::EPERM
        | Errno::EACCES
        | Errno::ENOSPC
        | Errno::EUSERS
        | Errno::EINVAL
        | Errno::ENOSYS => Some(hint_of_namespaces(asked, errno)),
        _ => None,
    }
}

/// What to do about a command that is not there, as far as execve(2) tells; `path` is `$PATH`.
fn hint_of_missing(command: &Path, path: &OsStr) -> Option<String> {
    let is_name = !command.to_string_lossy().contains('/');
    let found = if is_name {
        env::split_paths(path).map(|folder| folder.join(command)).find(|file| file.is_file())
    } else {
        command.is_file().then(|| command.to_owned())
    };
    match found {
        Some(file) => Some(format!(
            "{} is there, but what starts it is not: the interpreter in its first line, or the \
             loader of a program of another distribution or machine",
            file.display()
        )),
        None => is_name.then(|| "no folder of $PATH has it".to_owned()),
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// What to do about a limit of this process.
#[expect(clippy::wildcard_enum_match_arm, reason = "errors without a hint")]
fn hint_of_limit(errno: Errno) -> Option<String> {
    let hint = match errno {
        Errno::EMFILE => "too many descriptors are open: raise the limit with ulimit -n",
        Errno::ENFILE => "the whole machine has too many open files: raise the sysctl fs.file-max",
        Errno::EAGAIN => {
            "too many processes of this user or container: raise the limit with ulimit -u, or \
             pids.max of the container (--pids-limit)"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn statuses_are_those_of_env() {
        let of = |errno| EntryFailure::Execute("x".into(), errno).status();
        assert_eq!((of(Errno::ENOENT), of(Errno::EACCES), of(Errno::ENOEXEC)), (127, 126, 126));
        assert_eq!(EntryFailure::GivenUp.status(), 125);
    }

    #[test]
    fn steps_have_the_hints_of_the_doctor() {
        let hint = |step, errno| hint_of_step(step, errno).unwrap();
        let text = hint(EntryStep::MakeNetwork, Errno::ENOSPC);
        assert!(text.contains("raise the sysctl user.max_net_namespaces"), "{text}");
        let text = hint(EntryStep::MakeMounts, Errno::ENOSPC);
        assert!(text.contains("raise the sysctl user.max_mnt_namespaces"), "{text}");
        let text = hint(EntryStep::Enter, Errno::EPERM);
        assert_eq!(text, "only its owner or root can enter it");
        let text = hint(EntryStep::ResolvConf, Errno::EACCES);
        assert!(text.ends_with("--no-dns"), "{text}");
        for errno in [Errno::ENOMEM, Errno::ENOSPC] {
            assert_eq!(hint_of_step(EntryStep::Mounts, errno), None);
        }
    }

    #[test]
    fn missing_interpreter_is_not_a_missing_command() {
        let folder = env::temp_dir().join(format!("slirp-missing-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let script = folder.join("script");
        fs::write(&script, "#!/no/such\n").unwrap();
        let path = env::join_paths([Path::new("/no/folder"), &folder]).unwrap();
        let hint = |command: &Path| hint_of_missing(command, &path);
        for command in [Path::new("script"), &script] {
            let text = hint(command).unwrap();
            assert!(text.starts_with(script.to_str().unwrap()), "{text}");
            assert!(text.contains("the interpreter in its first line"), "{text}");
        }
        assert_eq!(hint(Path::new("nothing")).as_deref(), Some("no folder of $PATH has it"));
        assert_eq!(hint(&folder.join("nothing")), None);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn limits_are_named() {
        let start = CommandFailure::Start(io::Error::from_raw_os_error(Errno::EAGAIN as i32));
        assert!(start.hint().unwrap().contains("ulimit -u"));
        assert!(CommandFailure::Pipe(Errno::EMFILE).hint().unwrap().contains("ulimit -n"));
        assert_eq!(CommandFailure::Wait(Errno::EIO).hint(), None);
    }
}
