//! The process that carries an attachment's traffic.
//!
//! Owns its start: the request and descriptors from its keeper, files that are opened by name, the
//! way into the sandbox, the host's ports. slirp-core does everything else. The engine ends when
//! its keeper does.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::dup2_stdin;
use slirp_core::instance::ApiSocket;
use slirp_core::instance::{
    BackgroundInstance, Builder, Forward, ForwardError, Handle, OpenForwards,
};
use slirp_core::internals::process::{inherited_fd, receive_fd, reset_signals};
use slirp_core::launch::{self, Confinement, LaunchError, Prepared};
use slirp_core::link::Tap;
use slirp_core::sandbox::Sandbox;
use slirp_core::sandbox::seccomp::SystemCall;

use super::child::hang_up;
use super::{log, name_process, operator};
use crate::attachment::error::Error;
use crate::attachment::message::{self, Done, EngineOrder};
use crate::attachment::ports;
use crate::attachment::request::Request;

/// How long the engine may take to end before we exit without it (arbitrary; it takes milliseconds,
/// and the keeper waits longer).
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// The system calls of this module once the filter applies.
const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_ppoll, "the wait for the end"),
    #[cfg(target_arch = "x86_64")]
    SystemCall::new(libc::SYS_poll, "the wait for the end"),
    SystemCall::new(libc::SYS_write, "what the keeper is told, log lines"),
    SystemCall::new(libc::SYS_shutdown, "the keeper is told no more"),
];

/// Runs as an engine. Its request comes over standard input, which is a socket.
pub(crate) fn run() -> ExitCode {
    let Ok(keeper) = take_over(c"slirp-engine") else { return ExitCode::FAILURE };
    let running = match start(&keeper) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "the network cannot start");
            // The keeper may have gone.
            let _ = message::answer::<Done>(&keeper, Err(error));
            return ExitCode::FAILURE;
        }
    };
    if message::answer(&keeper, Ok(Done {})).is_ok() {
        wait_for(&running, &keeper);
    }
    stop(&running);
    ExitCode::SUCCESS
}

/// Takes over the socket to the keeper, and the name that ps(1) shows.
pub(super) fn take_over(name: &CStr) -> io::Result<UnixStream> {
    reset_signals()?;
    name_process(name);
    let keeper = inherited_fd(0)?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(keeper.into())
}

fn start(keeper: &UnixStream) -> Result<BackgroundInstance, Error> {
    let untold = |error: io::Error| Error::failed(format!("the engine got no request: {error}"));
    let order: EngineOrder = message::receive_order(keeper).map_err(untold)??;
    let request = order.request;
    if request.log_file.is_some() {
        log::to_stderr();
    }
    let tap = receive_fd(keeper.as_fd()).map_err(untold)?;
    let tap = Tap::adopt(tap).map_err(|error| Error::failed(error.to_string()))?;
    let user_namespace = order.user_namespace.then(|| receive_fd(keeper.as_fd())).transpose();
    let user_namespace = user_namespace.map_err(untold)?;
    let api = api_socket(&order.api_socket)?;
    launch::raise_descriptor_limit();
    let mut builder = configured(Builder::new(tap), &request).rates(request.rates).api_socket(api);
    if let Some(policy) = request.egress_policy()? {
        builder = builder.egress(policy);
    }
    let running = start_confined(builder, &request, user_namespace, core::iter::empty())?;
    publish(&request, running.handle())?;
    Ok(running)
}

pub(super) fn api_socket(path: &Path) -> Result<ApiSocket, Error> {
    ApiSocket::bind(path).map_err(|error| Error::failed(format!("{}: {error}", path.display())))
}

/// Applies a request to the settings of an instance, except for the egress policy and the rates: on
/// a shared network each member has its own.
pub(super) fn configured(builder: Builder, request: &Request) -> Builder {
    builder
        .plan(request.plan)
        .mtu(request.mtu)
        .policy(request.policy)
        .outbound(request.outbound.clone())
        .search_domains(request.search_domains.iter().cloned())
}

/// Starts an engine from `builder`, which holds everything with a name except what the operator
/// wants: that is opened here. If the request wants a sandbox, the engine runs in one, which allows
/// `more` system calls besides the calls of every engine.
pub(super) fn start_confined(
    builder: Builder,
    request: &Request,
    user_namespace: Option<OwnedFd>,
    more: impl Iterator<Item = &'static SystemCall>,
) -> Result<BackgroundInstance, Error> {
    let sandbox = Sandbox::new().user_namespace(user_namespace);
    let (builder, sandbox) = operator::open(&request.operator, builder, sandbox)?;
    let mut confinement = Confinement::none();
    if request.sandbox {
        confinement = confinement.sandbox(sandbox).filter(SYSTEM_CALLS.iter().chain(more));
    }
    let confined = Prepared::new(builder).confine(confinement).map_err(|error| {
        let known = if let LaunchError::Sandbox(error) = &error { error.hint() } else { None };
        let hint = known.unwrap_or("set \"sandbox\": false to run without");
        Error::failed(error.to_string()).with_hint(Some(hint))
    })?;
    confined.start().map_err(|error| Error::failed(error.to_string()))
}

/// Checks that the host has the addresses and free ports of a request, before there is a device.
/// The ports are closed again: the engine, another process, opens them for good.
pub(super) fn verify(request: &Request) -> Result<(), Error> {
    launch::raise_descriptor_limit();
    request.outbound.verify().map_err(|error| Error::failed(error.to_string()))?;
    for forward in &request.ports {
        OpenForwards::open(&[*forward], request.plan).map_err(refused(forward))?;
    }
    Ok(())
}

/// Opens all of the host's ports. After a failure the engine ends, which closes them again.
pub(super) fn publish(request: &Request, handle: &Handle) -> Result<(), Error> {
    for forward in &request.ports {
        handle.blocking().add_forward(*forward).map_err(refused(forward))?;
    }
    Ok(())
}

fn refused(forward: &Forward) -> impl FnOnce(ForwardError) -> Error {
    move |error| Error::failed(format!("port mapping {}: {error}", ports::shown(forward)))
}

/// Waits until the keeper or the network has ended.
fn wait_for(network: &BackgroundInstance, keeper: &UnixStream) {
    let mut polled = [
        PollFd::new(keeper.as_fd(), PollFlags::POLLIN),
        PollFd::new(network.as_fd(), PollFlags::empty()),
    ];
    while let Err(Errno::EINTR) = poll(&mut polled, PollTimeout::NONE) {}
    hang_up(keeper);
}

/// Ends the network, in a bounded time.
pub(super) fn stop(network: &BackgroundInstance) {
    match network.stop(END_TIMEOUT) {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::error!(%error, "the network has ended"),
        None => tracing::warn!("the network did not end in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use serde_json::json;
    use slirp_core::instance::{Forward, ForwardProtocol, OutboundAddresses, Switchboard};
    use slirp_core::internals::process::send_fd;

    use super::*;
    use crate::attachment::frame;
    use crate::attachment::request::tests::example;
    use crate::attachment::store::tests::Scratch;

    /// The answer of an engine that gets this request, and these files in place of its device.
    fn refusal(order: Option<serde_json::Value>, files: &[&str]) -> String {
        let (ours, theirs) = UnixStream::pair().unwrap();
        if let Some(order) = order {
            frame::send(&ours, &order).unwrap();
        }
        for file in files {
            send_fd(ours.as_fd(), std::fs::File::open(file).unwrap().as_fd()).unwrap();
        }
        drop(ours);
        start(&theirs).unwrap_err().message
    }

    #[test]
    fn engine_without_request_or_device_does_not_start() {
        let mut request = example();
        request.log_file = None;
        let order = json!({ "request": request, "apiSocket": "/none", "userNamespace": false });
        assert!(refusal(None, &[]).starts_with("the engine got no request: "));
        assert_eq!(
            refusal(Some(json!({})), &[]),
            "the request cannot be read: missing field `request` at line 1 column 2"
        );
        assert!(refusal(Some(order.clone()), &[]).starts_with("the engine got no request: "));
        assert!(refusal(Some(order), &["/dev/null"]).contains("TAP"));
    }

    #[test]
    fn port_that_is_taken_is_named_and_those_before_it_end_with_the_network() {
        // A loopback address on which no other test has ports.
        let bind = || TcpListener::bind("127.0.77.1:0").unwrap();
        let mut request = Request { outbound: OutboundAddresses::default(), ..example() };
        let board = Builder::new(Switchboard::new().unwrap());
        request.sandbox = false;
        let builder = configured(board, &request);
        let running = start_confined(builder, &request, None, core::iter::empty()).unwrap();
        let taken = bind();
        let guest = "10.9.0.7:80".parse().unwrap();
        let forward = |host: SocketAddr| Forward::new(ForwardProtocol::Tcp, host, guest);
        let free = bind().local_addr().unwrap();
        request.ports = vec![forward(free), forward(taken.local_addr().unwrap())];
        let error = publish(&request, running.handle()).unwrap_err();
        let named = format!("port mapping {}: ", ports::shown(&request.ports[1]));
        assert!(error.message.starts_with(&named), "{}", error.message);
        assert!(TcpListener::bind(free).is_err(), "the first one is open");
        stop(&running);
        TcpListener::bind(free).unwrap();
    }

    #[test]
    fn api_socket_that_cannot_be_made_is_named() {
        let scratch = Scratch::new("api");
        let path = scratch.0.join("missing").join("socket");
        let error = api_socket(&path).map(drop).unwrap_err();
        assert!(error.message.starts_with(&format!("{}: ", path.display())), "{}", error.message);
    }
}
