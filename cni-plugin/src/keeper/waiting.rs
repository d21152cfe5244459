//! The keeper before it knows the container's namespace.
//!
//! # Theory of operation
//! crun hides a container's process from the user that starts it (PR_SET_DUMPABLE of prctl(2))
//! until the container's program runs, so a process beside the runtime cannot access its
//! namespaces. A process inside of them can pass them on. So a hook beside the runtime starts the
//! keeper, which listens, and a hook in the container ([`hook::inside`](crate::hook)) connects and
//! sends a descriptor of its own network namespace. From there on everything is as usual, with the
//! second hook as the caller.
//!
//! A namespace is accepted only from a process of our own user that descends from the container's.
//! Waiting ends with the container, on request, by a signal, and after [`WAIT_TIMEOUT`]; nothing is
//! left behind then.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use slirp_core::internals::process::{ProcessFd, receive_fd};

use super::door::{Connection, Door};
use super::watch::process_of;
use super::{agree, hold_signals, log, remove_unless_locked};
use crate::attachment::error::{Error, Kind};
use crate::attachment::identity::{ProcessIdentity, parent};
use crate::attachment::message::{ClientRequest, Ended, Info, Started};
use crate::attachment::record::{Form, Record};
use crate::attachment::request::Request;
use crate::attachment::store::Files;

/// How long the second hook may take to connect (arbitrary: only other hooks run between the two,
/// and runtimes give them seconds).
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Most generations of processes between the container's first one and the hook (arbitrary: a shell
/// or two).
const DESCENT_CAP: usize = 8;

/// What the second hook has handed over.
#[derive(Debug)]
pub(super) struct Entered {
    /// The connection to the hook.
    pub(super) hook: UnixStream,
    /// The container's network namespace.
    pub(super) namespace: OwnedFd,
    /// The container's first process, which is not accessible yet.
    pub(super) process: ProcessFd,
}

/// Reports that the keeper waits, and waits. `None` when there is nothing to wait for any more; the
/// record is removed then.
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
    // The first hook is only told that the keeper waits.
    if agree(caller, &Started { addresses: None, mac: String::new() }).is_err() {
        tracing::info!("the caller has gone before the attachment was committed");
        files.remove();
        return Ok(None);
    }
    tracing::info!(pid, "waiting for the container");
    Ok(waiting.wait(files))
}

#[derive(Debug)]
struct Waiting {
    pid: i32,
    process: ProcessFd,
    door: Door,
    signals: SignalFd,
}

/// The next step after a request.
#[derive(Debug)]
enum Next {
    Enter(OwnedFd),
    End,
    Wait,
}

impl Waiting {
    /// Writes the attachment's record and makes its socket.
    fn open(request: &Request, files: &Files, pid: i32, process: ProcessFd) -> io::Result<Self> {
        let signals = hold_signals()?;
        let door = Door::open(&files.socket())?;
        let keeper = ProcessIdentity::of_pid(std::process::id().cast_signed())
            .ok_or(io::ErrorKind::NotFound)?;
        let request = Request { egress: None, ..request.clone() };
        let (engine, mac) = (None, String::new());
        files.write_record(&Record { form: Form, request, keeper, engine, mac })?;
        Ok(Self { pid, process, door, signals })
    }

    fn wait(self, files: &Files) -> Option<Entered> {
        let started_at = Instant::now();
        loop {
            let left = WAIT_TIMEOUT.saturating_sub(started_at.elapsed());
            match self.next(left) {
                Ok(Some(client)) => match self.serve(&client) {
                    Ok(Next::Enter(namespace)) => {
                        let (hook, process) = (client.into_stream(), self.process);
                        return Some(Entered { hook, namespace, process });
                    }
                    Ok(Next::End) => {
                        tracing::info!("asked to end");
                        files.remove();
                        client.answer(Ok(Ended { ended: true }));
                        return None;
                    }
                    Ok(Next::Wait) => client.hang_up(),
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
        remove_unless_locked(files);
        None
    }

    /// The next client; `None` when the container has ended, a signal came or the time is over.
    fn next(&self, left: Duration) -> io::Result<Option<Connection>> {
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        loop {
            let mut polled = [
                PollFd::new(self.door.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.process.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, timeout) {
                Err(Errno::EINTR) => continue,
                other => other.map(drop)?,
            }
            let [client, signal, container] = polled.map(|one| one.any() == Some(true));
            // No hook comes from a container that has ended.
            if !client || signal || container {
                return Ok(None);
            }
            if let Some(client) = self.door.accept()? {
                return Ok(Some(client));
            }
        }
    }

    fn serve(&self, client: &Connection) -> io::Result<Next> {
        let answer = match client.receive()? {
            Ok(ClientRequest::End) => return Ok(Next::End),
            Ok(ClientRequest::Enter) => {
                let namespace = receive_fd(client.as_fd())?;
                if descends(client.pid, self.pid) {
                    return Ok(Next::Enter(namespace));
                }
                // Another hook of the same container, beside its runtime.
                Ok(Info::Waiting { waiting: true })
            }
            Ok(ClientRequest::Info) => Ok(Info::Waiting { waiting: true }),
            Err(error) => Err(error),
        };
        client.answer(answer);
        Ok(Next::Wait)
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
        assert!(!descends(0, 0), "an invisible process has no descendants");
    }
}
