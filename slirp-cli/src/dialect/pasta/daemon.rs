//! The daemon: the caller's process ends once the network is ready.
//!
//! Owns the two processes of a start and what passes between them.
//!
//! # Theory of operation
//! The caller's process forks before anything is made and while it has one thread. The child makes
//! the network. It still has the caller's streams, so it tells by itself why a start fails. Once
//! everything works it leaves these streams, so that nobody who waits for the end of a pipe waits
//! for the daemon, and then sends one byte. Before that the child writes its number to the PID
//! file, through a descriptor of the parent. With the byte the parent ends with status 0. Without
//! it the parent waits for the child's end and fails as well.
//!
//! If the parent ends first, for whatever reason, the byte finds no reader, and the child ends: a
//! start that was given up leaves no network behind. Once the byte has found a reader the PID file
//! is complete, so a daemon that stays can always be found.

use std::io::{self, Read as _};
use std::os::fd::{IntoRawFd as _, RawFd};
use std::process::ExitCode;

use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe, setsid};
use slirp_core::internals::process::{fork_process, set_ignored};

use super::pid_file::PidFile;

/// Signals of a terminal, which a daemon has none of. Only SIGTERM, SIGQUIT and SIGKILL end it.
const IGNORED: [i32; 2] = [libc::SIGINT, libc::SIGHUP];

/// Runs `network` in a daemon, which writes the PID file and reports on the descriptor of the
/// number that `network` gets. Returns in both processes: in the daemon at its end, in the caller's
/// process once the daemon is ready or has failed.
///
/// # Errors
/// The errors of pipe(2) and fork(2).
pub(super) fn start(
    pid_file: Option<PidFile>,
    network: impl FnOnce(RawFd, Option<PidFile>) -> ExitCode,
) -> io::Result<ExitCode> {
    // Handed over by number, as a caller's ready descriptor is.
    let begun = pipe().map_err(io::Error::from).and_then(|ends| Ok((ends, fork_process()?)));
    let ((ready, tell), child) =
        begun.inspect_err(|_| pid_file.iter().for_each(PidFile::discard))?;
    let Some(child) = child else {
        drop(ready);
        // We are no leader of a process group, so this cannot fail.
        let _ = setsid();
        IGNORED.into_iter().for_each(|signal| set_ignored(signal, true));
        return Ok(network(tell.into_raw_fd(), pid_file));
    };
    drop(tell);
    let child = Pid::from_raw(child);
    let is_ready = io::PipeReader::from(ready).read_exact(&mut [0]).is_ok();
    if !is_ready {
        if let Some(pid_file) = pid_file {
            pid_file.discard();
        }
        if let Ok(WaitStatus::Signaled(_, signal, _)) = waitpid(child, None) {
            tracing::error!("The network was killed by {signal}");
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
