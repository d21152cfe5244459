//! The keeper before it knows which namespace the container has.
//!
//! # Theory of operation
//! crun hides a container's process from the user who starts it (PR_SET_DUMPABLE of prctl(2)) until
//! the container's program runs, so whoever is beside the runtime cannot look into its namespaces.
//! Somebody who is in them can pass them on. So a hook beside the runtime starts the keeper, which
//! listens, and a hook in the container ([`hook::inside`](crate::hook)) connects and sends a
//! descriptor of its own network namespace. From there on everything is as usual, with the second
//! hook as the caller.
//!
//! What comes in is believed if it comes from a process of our own user that descends from the
//! container's. Waiting ends with the container, on request, by a signal, and after a time; nothing
//! is left behind then.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use slirp_core::{ProcessFd, receive_fd};

use super::child::hang_up;
use super::watch::process_of;
use super::{COMMIT_TIMEOUT, log};
use crate::attachment::error::{Error, Kind};
use crate::attachment::frame;
use crate::attachment::identity::{ProcessIdentity, parent};
use crate::attachment::record::Record;
use crate::attachment::request::Request;
use crate::attachment::store::Files;

/// How long the second hook may take to come (arbitrary: there is nothing between the two but other
/// hooks, and runtimes give those seconds).
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may hold the keeper up (arbitrary; clients are processes of ours).
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Processes between the container's first and the hook (arbitrary: a shell or two).
const DESCENT_CAP: usize = 8;

/// What the second hook has brought.
#[derive(Debug)]
pub(super) struct Entered {
    /// The way back to it.
    pub(super) hook: UnixStream,
    /// The container's network namespace.
    pub(super) namespace: OwnedFd,
    /// The container's first process, which cannot be looked into yet.
    pub(super) process: ProcessFd,
}

/// Says that we wait, and does so. `None` when there is nothing to wait for any more; what was
/// written down is removed then.
///
/// # Errors
/// When waiting is not possible.
pub(super) fn wait(
    request: &Request,
    files: &Files,
    caller: &UnixStream,
) -> Result<Option<Entered>, Error> {
    log::start(request.log_file.as_deref())?;
    let failed = |error: io::Error| Error::failed(format!("{}: {error}", files.socket().display()));
    let pid = process_of(&request.netns)
        .ok_or_else(|| Error::new(Kind::NotNamespace, "no process to wait for"))?;
    let process = ProcessFd::open(pid)
        .map_err(|error| Error::new(Kind::ContainerGone, format!("process {pid}: {error}")))?;
    let waiting = Waiting::open(request, files, pid, process).map_err(failed)?;
    if say_so(caller).is_err() {
        tracing::info!("the caller has gone before the attachment was committed");
        files.remove();
        return Ok(None);
    }
    tracing::info!(pid, "waiting for the container");
    Ok(waiting.wait(files))
}

/// Both phases of the agreement with the first hook: that we wait is all that it is told.
fn say_so(caller: &UnixStream) -> io::Result<()> {
    caller.set_read_timeout(Some(COMMIT_TIMEOUT))?;
    frame::send(caller, &json!({ "mac": "" }))?;
    let _commit: Value = frame::receive(caller)?;
    frame::send(caller, &json!("kept"))
}

#[derive(Debug)]
struct Waiting {
    pid: i32,
    process: ProcessFd,
    listener: UnixListener,
    signals: SignalFd,
}

/// What a client wants.
#[derive(Debug)]
enum Wish {
    Enter(OwnedFd),
    End,
    /// Something that is answered already.
    Nothing,
}

impl Waiting {
    /// Writes the attachment down and makes its socket.
    fn open(request: &Request, files: &Files, pid: i32, process: ProcessFd) -> io::Result<Self> {
        let held: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        held.thread_block()?;
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // What a keeper that was killed left behind.
        let _ = std::fs::remove_file(files.socket());
        let listener = UnixListener::bind(files.socket())?;
        listener.set_nonblocking(true)?;
        let keeper = ProcessIdentity::of_pid(std::process::id().cast_signed())
            .ok_or(io::ErrorKind::NotFound)?;
        let request = request.clone();
        files.write_record(&Record { request, keeper, engine: None, mac: String::new() })?;
        Ok(Self { pid, process, listener, signals })
    }

    fn wait(self, files: &Files) -> Option<Entered> {
        let started_at = Instant::now();
        loop {
            let left = WAIT_TIMEOUT.saturating_sub(started_at.elapsed());
            match self.next(left) {
                Ok(Some(client)) => match self.wish(&client) {
                    Ok(Wish::Enter(namespace)) => {
                        return Some(Entered { hook: client, namespace, process: self.process });
                    }
                    Ok(Wish::End) => {
                        tracing::info!("asked to end");
                        files.remove();
                        // Who asked may have gone.
                        let _ = frame::send(&client, &json!({ "ended": true }));
                        return None;
                    }
                    Ok(Wish::Nothing) => hang_up(&client),
                    Err(error) => tracing::warn!(%error, "a client is not understood"),
                },
                Ok(None) => {
                    tracing::info!("the container does not come");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "cannot wait");
                    break;
                }
            }
        }
        forget(files);
        None
    }

    /// The next client; `None` when the container has ended, a signal came or the time is over.
    fn next(&self, left: Duration) -> io::Result<Option<UnixStream>> {
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut polled = [
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.process.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            match poll(&mut polled, timeout) {
                Err(Errno::EINTR) => {}
                other => break other.map(drop)?,
            }
        }
        let [client, signal, container] = polled.map(|one| one.any() == Some(true));
        // A container that has ended sends nobody any more.
        if !client || signal || container {
            return Ok(None);
        }
        match self.listener.accept() {
            Ok((client, _)) => Ok(Some(client)),
            Err(error) => Err(error),
        }
    }

    fn wish(&self, client: &UnixStream) -> io::Result<Wish> {
        let peer = getsockopt(&client.as_fd(), PeerCredentials)?;
        if peer.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
        client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let answer = match frame::receive(client)?["execute"].as_str() {
            Some("end") => return Ok(Wish::End),
            Some("enter") => {
                let namespace = receive_fd(client.as_fd())?;
                if descends(peer.pid(), self.pid) {
                    return Ok(Wish::Enter(namespace));
                }
                // Another hook of the same container, beside its runtime.
                json!({ "waiting": true })
            }
            Some("info") => json!({ "waiting": true }),
            Some(_) | None => json!({ "error": { "message": "unknown request" } }),
        };
        frame::send(client, &answer)?;
        Ok(Wish::Nothing)
    }
}

/// Removes what is written down where nobody else does: the first hook has gone, and the second one
/// holds no lock.
pub(super) fn forget(files: &Files) {
    // Whoever has the lock is about to remove everything, after we have ended.
    if let Ok(Some(lock)) = files.try_lock() {
        files.remove();
        lock.remove();
    }
}

/// Whether `pid` is `ancestor` or below it.
fn descends(pid: i32, ancestor: i32) -> bool {
    let line = core::iter::successors(Some(pid).filter(|&pid| pid > 0), |&pid| parent(pid));
    line.take(DESCENT_CAP).any(|pid| pid == ancestor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descent_is_followed_upwards_only() {
        let own = std::process::id().cast_signed();
        let up = parent(own).unwrap();
        assert!(descends(own, own) && descends(own, up));
        assert!(!descends(up, own), "a parent does not descend from its child");
        assert!(!descends(0, 0), "a process that cannot be seen is nobody");
    }
}
