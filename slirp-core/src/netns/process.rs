//! A process that namespaces are taken from.
//!
//! Owns the guard against reused process numbers: a process is identified by its folder in `/proc`,
//! held open. A look-up through that folder finds this process or fails, even if the number has
//! been reused meanwhile (proc(5)).

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::sys::process::open_process;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    folder: OwnedFd,
}

/// The process and the rest of the path, if `path` is of the form `/proc/PID/REST`.
pub(super) fn in_proc(path: &Path) -> Option<(i32, &Path)> {
    let below = path.strip_prefix("/proc").ok()?;
    let first = below.iter().next()?.to_str()?;
    let pid: i32 = first.parse().ok()?;
    (pid.to_string() == first).then_some((pid, below.strip_prefix(first).ok()?))
}

impl Process {
    /// The process that has the number `pid` now.
    pub(super) fn open(pid: i32) -> Result<Self, Errno> {
        let path = format!("/proc/{pid}");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { pid, folder: open(path.as_str(), flags, Mode::empty())? })
    }

    /// Opens a file below the process's folder; `ESRCH` or `ENOENT` when the process has ended.
    pub(super) fn file(&self, name: &Path) -> Result<OwnedFd, Errno> {
        open_file(&self.folder, name)
    }

    /// A descriptor that becomes readable when the process has ended.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, Errno> {
        let descriptor = open_process(self.pid)?;
        // The process still has its number, so it had it when the descriptor was made.
        drop(self.file(Path::new("status"))?);
        // `/proc` may show the processes of an outer PID namespace, where a number means another
        // process.
        if number_of(&descriptor) == Some(self.pid) { Ok(descriptor) } else { Err(Errno::ESRCH) }
    }
}

/// Opens a file that may not be a namespace: on a FIFO, open(2) would wait for a writer.
pub(super) fn open_file(folder: impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::empty())
}

/// The process number that `/proc` reports for a descriptor.
fn number_of(descriptor: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn is_ended(descriptor: &OwnedFd) -> bool {
        let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn paths_of_processes_are_told_from_others() {
        for (path, expected) in [
            ("/proc/42/ns/net", Some((42, "ns/net"))),
            ("/proc/42", Some((42, ""))),
            ("/proc/self/ns/net", None),
            ("/proc/042/ns/net", None),
            ("/proc/+4/ns/net", None),
            ("/run/netns/x", None),
            ("proc/42/ns/net", None),
            ("/proc", None),
        ] {
            assert_eq!(
                in_proc(Path::new(path)),
                expected.map(|(pid, rest)| (pid, Path::new(rest)))
            );
        }
    }

    #[test]
    fn nothing_is_found_through_a_process_that_has_ended() {
        let mut child = child();
        let process = Process::open(child.id().try_into().unwrap()).unwrap();
        assert!(process.file(Path::new("ns/net")).is_ok());
        let descriptor = process.descriptor().unwrap();
        assert!(!is_ended(&descriptor));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(is_ended(&descriptor));
        // Another process may have its number by now.
        for name in ["ns/net", "ns/user"] {
            let errno = process.file(Path::new(name)).unwrap_err();
            assert!(matches!(errno, Errno::ESRCH | Errno::ENOENT), "{errno}");
        }
        assert!(process.descriptor().is_err());
    }
}
