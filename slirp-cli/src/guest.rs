//! The guest's link: a TAP device in its namespaces, an open TAP device, or a socket.
//!
//! Owns the two steps on the way there: [`find`] looks for what the target names and makes nothing,
//! [`open`] makes or waits for the connection. Between them the run checks what else it needs
//! ([`checks`](crate::checks)), so that a start that fails there leaves nothing behind.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use slirp_core::MacAddr;
use slirp_core::internals::process::inherited_fd;
use slirp_core::link::{
    FrameListener, FrameServer, FrameSocket, FrameSocketError, Framing, Link, NoLink, Tap,
};
use slirp_core::netns::{
    NamespaceTarget, TapRequest, TargetWatch, bring_loopback_up, open_tap, open_tap_with,
};
use slirp_core::sandbox::RemovedFile;

use crate::failure::RunFailure;
use crate::lifetime::{self, End, Sources};
use crate::milestone::{Milestone, Report};
use crate::options::{Options, Target};

/// The target, once found.
pub(crate) enum Found<'a> {
    /// A device that the caller has opened.
    Tap(Tap),
    /// The path of a socket that a peer is to connect to.
    Socket(&'a Path, Framing),
    /// A socket that has a peer.
    Connected(FrameSocket),
    /// The path of a socket that peers connect to while the network runs, and whether the first one
    /// is the only one.
    Server(Option<&'a Path>, bool),
    /// Namespaces, the name of the device to open there, and the watch of the target.
    Namespaces(NamespaceTarget, &'a str, Option<TargetWatch>),
}

/// Finds `target`, and makes nothing.
pub(crate) fn find<'a>(target: &'a Target, options: &Options) -> Result<Found<'a>, RunFailure> {
    let (namespaces, name) = match target {
        Target::TapFd(number) => {
            let fd =
                inherited_fd(*number).map_err(|error| RunFailure::TapFdClosed(*number, error))?;
            let tap = Tap::adopt(fd).map_err(|error| RunFailure::TapFd(*number, error))?;
            return Ok(Found::Tap(tap));
        }
        Target::Socket(path, framing) => return Ok(Found::Socket(path, *framing)),
        Target::Server { path, ends_with_peer } => {
            return Ok(Found::Server(path.as_deref(), *ends_with_peer));
        }
        Target::SocketFd(number) => {
            let closed = |source| FrameSocketError::Call { call: "fcntl", source };
            let fd = inherited_fd(*number).map_err(closed);
            let socket = fd.and_then(FrameSocket::adopt);
            let socket = socket.map_err(|error| RunFailure::SocketFd(*number, error))?;
            if socket.framing() != Framing::Lengths {
                return Err(RunFailure::SocketFdOfPackets(*number));
            }
            return Ok(Found::Connected(socket));
        }
        Target::Pid { pid, userns: None, tap } => (NamespaceTarget::of_pid(*pid)?, tap),
        Target::Pid { pid, userns: Some(userns), tap } => {
            let netns = format!("/proc/{pid}/ns/net");
            (NamespaceTarget::from_paths(netns.as_ref(), Some(userns))?, tap)
        }
        Target::Path { netns, userns, tap } => {
            (NamespaceTarget::from_paths(netns, userns.as_deref())?, tap)
        }
    };
    // slirp4netns(1) tries without a user namespace that cannot be joined.
    if let (
        Some(_),
        Target::Pid { userns: Some(path), .. } | Target::Path { userns: Some(path), .. },
    ) = (&options.own_plan, target)
    {
        namespaces.verify_user(path)?;
    }
    let watch = options.exit_with_netns.then(|| namespaces.watch()).transpose()?;
    Ok(Found::Namespaces(namespaces, name, watch))
}

/// The guest's open link, and what is known about the guest.
pub(crate) struct Opened {
    pub(crate) link: Link,
    pub(crate) mac: Option<MacAddr>,
    /// Name of the device in the guest's network namespace.
    pub(crate) name: Option<String>,
    /// The guest's network namespace.
    pub(crate) network: Option<OwnedFd>,
    /// The guest's user namespace.
    pub(crate) userns: Option<OwnedFd>,
    pub(crate) watch: Option<TargetWatch>,
    /// The file of the socket that peers connect to, which is removed at the end.
    pub(crate) file: Option<RemovedFile>,
}

impl Opened {
    fn bare(link: impl Into<Link>) -> Self {
        let link = link.into();
        let (name, network, userns, watch, file) = (None, None, None, None, None);
        Self { link, mac: None, name, network, userns, watch, file }
    }

    /// The same, of a guest in the namespaces of `target`.
    fn of(self, target: NamespaceTarget) -> Result<Self, RunFailure> {
        let network = target.network().try_clone_to_owned().map_err(RunFailure::Watch)?;
        Ok(Self { network: Some(network), userns: target.into_user_namespace(), ..self })
    }
}

fn socket_failure(error: FrameSocketError) -> RunFailure {
    if matches!(error, FrameSocketError::PathTooLong) {
        RunFailure::SocketPathTooLong
    } else {
        RunFailure::Socket(error)
    }
}

/// Most sockets of passt(1) that one machine has without names of their own.
const SERVERS: u32 = 64;

/// Binds a socket that peers connect to while the network runs. A listener of another program
/// stays.
fn serve(path: Option<&Path>, report: Report<'_>) -> Result<FrameListener, RunFailure> {
    let bind = |path: &Path| FrameListener::bind_unused(path, Framing::Lengths);
    let (listener, path) = match path {
        Some(path) => (bind(path), path.to_owned()),
        None => {
            let of = |number| PathBuf::from(format!("/tmp/passt_{number}.socket"));
            let mut found = (bind(&of(1)), of(1));
            // One of another user cannot even be asked. The last error stands for all.
            for number in 2..=SERVERS {
                if found.0.is_ok() {
                    break;
                }
                found = (bind(&of(number)), of(number));
            }
            found
        }
    };
    let listener = listener.map_err(socket_failure)?;
    report(Milestone::PeerAwaited(&path));
    Ok(listener)
}

/// Waits for the peer that connects to a socket at `path`, or for an early end of the run. The
/// socket's file exists while we wait.
fn await_peer(
    path: &Path,
    framing: Framing,
    sources: Sources<'_>,
    report: Report<'_>,
) -> Result<Result<Opened, End>, RunFailure> {
    let listener = FrameListener::bind(path, framing).map_err(socket_failure)?;
    report(Milestone::PeerAwaited(path));
    let socket = loop {
        match lifetime::wait(sources, listener.as_fd()).map_err(RunFailure::Watch)? {
            End::Awaited => {}
            end @ (End::ExitFd | End::Target | End::Signal(_)) => return Ok(Err(end)),
        }
        match listener.accept() {
            Ok(socket) => break socket,
            // The peer has gone again: wait for the next one.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => return Err(RunFailure::SocketPeer(path.to_owned(), error)),
        }
    };
    report(Milestone::PeerConnected(path, socket.as_fd().as_raw_fd()));
    Ok(Ok(Opened::bare(socket)))
}

/// Opens the TAP device, or waits for the peer of a socket, and reports it. Opens nothing if the
/// run has ended meanwhile.
pub(crate) fn open(
    found: Found<'_>,
    options: &Options,
    sources: Sources<'_>,
    report: Report<'_>,
) -> Result<Result<Opened, End>, RunFailure> {
    let (target, name, watch) = match found {
        Found::Tap(tap) => {
            return Ok(Ok(Opened { mac: tap.mac().ok().flatten(), ..Opened::bare(tap) }));
        }
        Found::Socket(path, framing) => return await_peer(path, framing, sources, report),
        Found::Connected(socket) => return Ok(Ok(Opened::bare(socket))),
        Found::Server(path, ends_with_peer) => {
            let listener = serve(path, report)?;
            let file = listener.file();
            let server = FrameServer::new(listener);
            let server = if ends_with_peer { server.ends_with_peer() } else { server };
            return Ok(Ok(Opened { file, ..Opened::bare(server) }));
        }
        Found::Namespaces(target, name, watch) => (target, name, watch),
    };
    if options.own_plan.as_ref().is_some_and(|own| !own.has_interface) {
        bring_loopback_up(&target)?;
        let link = NoLink::new().map_err(RunFailure::Watch)?;
        return Ok(Ok(Opened { watch, ..Opened::bare(link).of(target)? }));
    }
    let tap = match &options.own_plan {
        None => {
            let request = TapRequest { name: name.to_owned(), configure: options.configuration() };
            open_tap(&target, &request)?
        }
        Some(own) => {
            let (tap, refusals) = open_tap_with(&target, name, own.setup.clone())?;
            refusals.iter().for_each(|refusal| tracing::warn!("{refusal}"));
            tap
        }
    };
    report(Milestone::DeviceOpened(tap.name(), tap.as_fd().as_raw_fd()));
    let mac = tap.mac().ok().flatten();
    let name = Some(tap.name().to_owned());
    Ok(Ok(Opened { mac, name, watch, ..Opened::bare(tap).of(target)? }))
}
