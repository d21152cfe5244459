//! Attaching a container to its network.
//!
//! Owns the start of the long-lived process and the two-phase agreement with it. The process
//! reports that the network works, its caller passes that on, and then tells the process to stay.
//! If the caller ends in between, for whatever reason, the network ends as well.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use slirp_core::netns::{AttachError, NamespaceId, NamespaceTarget};

use super::error::{Error, Kind};
use super::frame;
use super::message::{COMMIT, Started, receive_answer};
use super::mixture::refuse_mixture;
use super::request::{Addresses, Request};
use super::stop::{KEEPER_ARGUMENT, is_served, stop};
use super::store::{Candidates, Files, Lock};

/// How long the network may take to come up (arbitrary; it takes some 50 ms).
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The executable of this process, even if its path has changed.
const OURSELVES: &str = "/proc/self/exe";

/// A working attachment. Dropping this value ends it, unless it is committed.
#[derive(Debug)]
pub(crate) struct Pending {
    keeper: Child,
    stream: UnixStream,
    /// The interface's Ethernet address.
    pub(crate) mac: String,
    /// The container's addresses: the request's, or the ones that a shared network assigned.
    pub(crate) addresses: Addresses,
    _lock: Lock,
}

impl Pending {
    /// Lets the attachment stay until its container ends or it is detached.
    ///
    /// # Errors
    /// When the process behind it has ended meanwhile.
    pub(crate) fn commit(self) -> Result<(), Error> {
        let gone = |error: io::Error| Error::failed(format!("the network has ended: {error}"));
        frame::send(&self.stream, &COMMIT).map_err(gone)?;
        frame::receive::<String>(&self.stream).map(drop).map_err(gone)
    }

    /// Ends the attachment and waits until it has.
    pub(crate) fn abort(mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        // The keeper ends by itself, within its engine's time limit.
        let _ = self.keeper.wait();
    }
}

/// Identifies the network namespace at `path`, which must not be our own.
///
/// # Errors
/// When it does not exist, is not a network namespace or belongs to another user, or when it is our
/// own and `may_be_own` is false.
pub(crate) fn find_namespace(path: &Path, may_be_own: bool) -> Result<NamespaceId, Error> {
    let target = NamespaceTarget::of_path(path).map_err(|error| of_namespace(&error))?;
    let unreadable = |error: io::Error| Error::failed(format!("{}: {error}", path.display()));
    let id = target.network_id().map_err(unreadable)?;
    let own = NamespaceId::of_path(Path::new("/proc/self/ns/net")).map_err(unreadable)?;
    if id == own && !may_be_own {
        return Err(Error::new(
            Kind::OwnNamespace,
            "plugin's netns and netns from CNI_NETNS should not be the same",
        ));
    }
    Ok(id)
}

/// The error for a namespace that could not be opened.
pub(crate) fn of_namespace(error: &AttachError) -> Error {
    let is_gone = |source: &io::Error| {
        use nix::libc::{ENOENT, ENOTDIR, ESRCH};
        matches!(source.raw_os_error(), Some(ENOENT | ESRCH | ENOTDIR))
    };
    let kind = if let AttachError::OpenNamespace { source, .. } = error
        && is_gone(source)
    {
        Kind::ContainerGone
    } else if matches!(error, AttachError::NotNetwork(_)) {
        Kind::NotNamespace
    } else {
        Kind::Failed
    };
    Error::new(kind, error.to_string()).with_hint(error.hint())
}

/// Attaches a container. Remains of an earlier attachment of this name are removed first.
///
/// # Errors
/// When the container is attached already, and when its network does not work. Nothing is left
/// behind then.
pub(crate) fn attach(request: &Request, candidates: &Candidates) -> Result<Pending, Error> {
    let store = candidates.create()?;
    let files = store.files(&request.key);
    let lock = files.lock()?;
    for other in candidates.existing() {
        let files = other.files(&request.key);
        if !files.exist() {
            continue;
        }
        if let Some(pid) = is_served(&files) {
            return Err(Error::failed(format!(
                "a slirp4netns process ({pid}) is already running for netns (containerID: {}, \
                 interface: {})",
                request.key.container_id, request.key.ifname
            )));
        }
        stop(&files)?;
        files.remove();
    }
    match start(request, &files, candidates) {
        Ok((keeper, stream, Started { addresses, mac })) => {
            let addresses = addresses.unwrap_or(request.addresses());
            Ok(Pending { keeper, stream, mac, addresses, _lock: lock })
        }
        Err(error) => {
            files.remove();
            lock.remove();
            Err(error)
        }
    }
}

/// Starts the keeper and waits until the network works.
fn start(
    request: &Request,
    files: &Files,
    candidates: &Candidates,
) -> Result<(Child, UnixStream, Started), Error> {
    refuse_mixture(request, candidates)?;
    let failed = |error: io::Error| Error::failed(format!("cannot start {OURSELVES}: {error}"));
    let (stream, theirs) = UnixStream::pair().map_err(failed)?;
    stream.set_read_timeout(Some(START_TIMEOUT)).map_err(failed)?;
    let mut keeper = Command::new(OURSELVES)
        .arg0("slirp")
        .args([KEEPER_ARGUMENT, files.stem(), files.scope()])
        .arg(files.folder())
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = frame::send(&stream, request).and_then(|()| receive_answer(&stream));
    let error = match answer {
        // Checked again: an addition that began at the same moment had no record before.
        Ok(Ok(started)) => match refuse_mixture(request, candidates) {
            Ok(()) => return Ok((keeper, stream, started)),
            Err(error) => error,
        },
        Ok(Err(error)) => error,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => {
            // The child has not been waited for, so its number is not reused.
            let _ = keeper.kill();
            Error::failed("the network did not start in time")
        }
        Err(error) => Error::failed(format!("the process of the network has ended: {error}")),
    };
    drop(stream);
    // The keeper ends when its caller has gone; waiting reaps it.
    let _ = keeper.wait();
    Err(error)
}
