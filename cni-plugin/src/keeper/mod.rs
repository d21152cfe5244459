//! The long-lived processes behind an attachment.
//!
//! # Theory of operation
//! There are two. The *keeper* ([`run`]) lives in the caller's namespaces with the caller's rights
//! and sees no packet: it opens the TAP device, watches the container, answers on its socket, and
//! cleans up. The *engine* ([`engine`]) is its child. It has the device, and gives up everything
//! else before the first packet. Each ends with the other: the keeper waits for the engine, and the
//! engine reads a socket whose other end the keeper holds.
//!
//! On a shared network one process takes the place of all keepers' engines ([`network`]); each
//! gives it the device of its container ([`lease`]).
//!
//! Life of a keeper:
//!
//! | state | what ends it |
//! | --- | --- |
//! | starting | any failure, which is reported to the caller |
//! | [`waiting`] for the container's namespace | the container's end, a request, a signal, time |
//! | uncommitted: the network works, its caller has not confirmed it yet | the caller's end |
//! | serving | a request, a signal, the end of the container, the end of the engine |
//!
//! Whatever the reason, the end is the same: the engine ends first, and with it interface and host
//! ports, then the socket and record are removed, and finally the requester is answered.

mod child;
mod door;
pub(crate) mod engine;
mod lease;
mod log;
pub(crate) mod network;
mod operator;
pub(crate) mod program;
mod roster;
mod serve;
mod terms;
mod waiting;
mod watch;

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stdin, setsid};
use slirp_core::MacAddr;
use slirp_core::egress::EgressPolicy;
use slirp_core::internals::process::{
    ProcessFd, close_descriptors_on_exec, inherited_fd, reset_signals,
};
use slirp_core::link::Tap;
use slirp_core::netns::{
    AttachError, AttachStep, NamespaceId, NamespaceTarget, TapRequest, create_tap,
};

use crate::attachment::attach::of_namespace;
use crate::attachment::error::{Error, Kind};
use crate::attachment::frame;
use crate::attachment::identity::ProcessIdentity;
use crate::attachment::message::{self, Done, KEPT, Started};
use crate::attachment::record::{Form, Record};
use crate::attachment::request::Request;
use crate::attachment::store::Files;
use child::Engine;
use lease::NetworkLease;
use serve::{Backend, Keeper};
use watch::Watch;

/// How long the caller may take to confirm the attachment (arbitrary; runtimes give a plugin a
/// minute or more, and it prints one object).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs as a keeper. The arguments are stem, scope and folder of the attachment's files; the
/// request comes over standard input, which is a socket.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut text = || arguments.next().and_then(|argument| argument.into_string().ok());
    let (Some(stem), Some(scope), Some(folder)) = (text(), text(), text()) else {
        return ExitCode::FAILURE;
    };
    let Ok(mut caller) = detach_from_caller() else { return ExitCode::FAILURE };
    let files = Files::new(PathBuf::from(folder), stem, scope);
    let Ok(request) = message::receive_order::<Request>(&caller) else { return ExitCode::FAILURE };
    let is_awaited = request.as_ref().is_ok_and(|request| request.netns_id.is_none());
    let started = match request {
        Ok(request) if is_awaited => match waiting::wait(&request, &files, &caller) {
            Ok(Some(entered)) => {
                caller = entered.hook;
                let place = Place::Entered(entered.namespace, entered.process);
                start(request, &files, &caller, place)
            }
            Ok(None) => return ExitCode::SUCCESS,
            Err(error) => Err(error),
        },
        Ok(request) => start(request, &files, &caller, Place::Named),
        Err(error) => Err(error),
    };
    let (mut keeper, mac) = match started {
        Ok(started) => started,
        Err(error) => {
            files.remove();
            if is_awaited {
                remove_unless_locked(&files);
            }
            // The caller may have gone.
            let _ = message::answer::<Done>(&caller, Err(error));
            return ExitCode::FAILURE;
        }
    };
    let started = Started { addresses: Some(keeper.addresses()), mac };
    if agree(&caller, &started).is_ok() {
        drop(caller);
        tracing::info!("serving");
        keeper.serve();
    } else {
        tracing::info!("the caller has gone before the attachment was committed");
        keeper.end();
        if is_awaited {
            remove_unless_locked(&files);
        }
    }
    ExitCode::SUCCESS
}

/// Reports that the network works, or that the keeper waits for the container, and waits for the
/// caller's confirmation.
fn agree(caller: &UnixStream, started: &Started) -> io::Result<()> {
    caller.set_read_timeout(Some(COMMIT_TIMEOUT))?;
    frame::send(caller, started)?;
    let _commit: String = frame::receive(caller)?;
    frame::send(caller, &KEPT)
}

/// Blocks the signals that ask for an end, and returns a descriptor that reports them.
fn hold_signals() -> io::Result<SignalFd> {
    let held: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    held.thread_block()?;
    Ok(SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Removes the record with its lock, unless a process that asked for our end does so.
fn remove_unless_locked(files: &Files) {
    // The holder of the lock is about to remove everything, after we have ended.
    if let Ok(Some(lock)) = files.try_lock() {
        files.remove();
        lock.remove();
    }
}

/// Drops what was inherited from the caller: session, folder, signals, descriptors. Takes over the
/// socket to the caller.
fn detach_from_caller() -> io::Result<UnixStream> {
    reset_signals()?;
    // Kernels before 5.11 lack this; there the caller marks its descriptors itself, or they are
    // harmless to a keeper.
    let _ = close_descriptors_on_exec();
    let caller = inherited_fd(0)?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    name_process(c"slirp-keeper");
    // Each of these may be refused by an outer sandbox, and none is worth failing for.
    let _ = setsid();
    let _ = chdir("/");
    let _ = prctl::set_pdeathsig(None);
    // A runtime may protect itself from the OOM killer or make its children its first victims; a
    // keeper is an ordinary process.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    umask(Mode::from_bits_truncate(0o077));
    Ok(caller.into())
}

/// Sets the name that ps(1) and top(1) show, which would otherwise be `exe`.
fn name_process(name: &CStr) {
    // It never fails.
    let _ = prctl::set_name(name);
}

/// Where the container's network namespace is.
enum Place {
    /// At the path of the request.
    Named,
    /// Received as a descriptor. The container's process, which is not accessible yet, keeps it
    /// alive.
    Entered(OwnedFd, ProcessFd),
}

impl Place {
    /// Opens the namespace and watches it. Its identity is stored in the request.
    fn open(self, request: &mut Request) -> Result<(NamespaceTarget, Watch), Error> {
        let failed =
            |what: &'static str| move |error: io::Error| Error::failed(format!("{what}: {error}"));
        let path = match &self {
            Self::Named => request.netns.clone(),
            Self::Entered(namespace, _) => {
                format!("/proc/self/fd/{}", namespace.as_raw_fd()).into()
            }
        };
        let target = NamespaceTarget::of_path(&path).map_err(|error| of_namespace(&error))?;
        let id = target.network_id().map_err(failed("cannot look at the network namespace"))?;
        let watch = match self {
            Self::Entered(_, process) => {
                let own = NamespaceId::of_path(Path::new("/proc/self/ns/net"));
                if own.is_ok_and(|own| own == id) {
                    let message = "the container has no network namespace of its own";
                    return Err(Error::new(Kind::OwnNamespace, message));
                }
                request.netns_id = Some(id);
                Watch::of_hidden_process(&request.netns, process, id)
            }
            Self::Named if Some(id) != request.netns_id => {
                let message = format!("{} is another namespace by now", request.netns.display());
                return Err(Error::new(Kind::ContainerGone, message));
            }
            Self::Named => Watch::start(&request.netns, id)
                .map_err(failed("cannot watch the container"))?
                .ok_or_else(|| Error::new(Kind::ContainerGone, "the container has ended"))?,
        };
        // Whether it may be our own was checked before.
        Ok((target.even_our_own(), watch))
    }
}

/// Brings the network up.
fn start(
    mut request: Request,
    files: &Files,
    caller: &UnixStream,
    place: Place,
) -> Result<(Keeper, String), Error> {
    log::start(request.log_file.as_deref())?;
    let egress = request.egress_policy()?;
    for warning in egress.iter().flat_map(EgressPolicy::warnings) {
        tracing::warn!("{warning}");
    }
    let (target, watch) = place.open(&mut request)?;
    let (backend, mac) = match &request.program {
        Some(program) => {
            let (engine, mac) = program::start(program, &request, &target, files, caller)?;
            (Backend::Engine(engine), mac)
        }
        None if request.shared.is_some() => {
            let lease = NetworkLease::take(&request, files, caller)?;
            request = request.with_addresses(lease.addresses);
            let (tap, mac) = make_tap(&target, &request)?;
            lease.give(&tap, mac, caller)?;
            (Backend::Network(lease), mac)
        }
        None => {
            let (tap, mac) = make_tap(&target, &request)?;
            let engine = Engine::start(&tap, target.user(), &request, files, caller)?;
            (Backend::Engine(engine), mac)
        }
    };
    let mac = mac.map_or_else(String::new, |mac| mac.to_string());
    let record = Record {
        form: Form,
        keeper: ProcessIdentity::of_pid(std::process::id().cast_signed())
            .ok_or_else(|| Error::failed("/proc is not readable"))?,
        engine: backend.pid().and_then(ProcessIdentity::of_pid),
        request: Request { egress: None, ..request },
        mac: mac.clone(),
    };
    let keeper = Keeper::new(record, files.clone(), backend, watch)
        .map_err(|error| Error::failed(format!("{}: {error}", files.socket().display())))?;
    Ok((keeper, mac))
}

/// Checks the host's ports and addresses, then opens the container's device; also returns its
/// Ethernet address.
fn make_tap(target: &NamespaceTarget, request: &Request) -> Result<(Tap, Option<MacAddr>), Error> {
    engine::verify(request)?;
    let tap =
        TapRequest { name: request.key.ifname.clone(), configure: Some(request.configuration()) };
    let tap = create_tap(target, &tap).map_err(|error| of_tap(&error, request))?;
    let mac = tap.mac().ok().flatten().or(request.mac);
    Ok((tap, mac))
}

/// The error for a device that could not be opened.
fn of_tap(error: &AttachError, request: &Request) -> Error {
    if let AttachError::Step { step: AttachStep::CheckName, source } = error
        && source.raw_os_error() == Some(nix::libc::EEXIST)
    {
        let (ifname, netns) = (&request.key.ifname, request.netns.display());
        return Error::failed(format!("interface {ifname} exists already in {netns}"));
    }
    Error::failed(error.to_string()).with_hint(error.hint())
}
