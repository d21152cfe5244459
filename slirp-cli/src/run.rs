//! One run, from the options to the exit status.
//!
//! Owns the order of the start and of the end, and is the only place that drives the engine. The
//! lines it prints and the moments at which it prints them are those of slirp4netns(1).
//!
//! 1. take over the caller's descriptors, before anything of ours can get their numbers
//! 2. open the TAP device (stderr: `sent tapfd`, `received tapfd`)
//! 3. print the summary
//! 4. allow as many descriptors as the hard limit does, hold signals back, bind the API socket
//! 5. enter the sandbox, then filter system calls, both while there is a single thread: whatever
//!    has to be opened by name is open by now
//! 6. start the engine, open the published ports
//! 7. tell the ready descriptor
//! 8. wait for the exit descriptor (status 0), a signal (killed by it, after cleaning up) or the
//!    engine's own end (status 1)

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::libc::SYS_pipe2;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use slirp_core::control::server::ApiSocket;
use slirp_core::host::dns::DnsConfig;
use slirp_core::host::tap::{Tap, TapError};
use slirp_core::inherited_fd;
use slirp_core::instance::{self, Builder, ForwardError, Handle, Instance, RunError, StartError};
use slirp_core::netns::{AttachError, Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::sandbox::seccomp::{self, SeccompError, SystemCall};
use slirp_core::sandbox::{Sandbox, SandboxError};

use crate::banner;
use crate::console::{complain, say};
use crate::inherited::{self, ExitFd, ReadyFd};
use crate::lifetime::{self, End, Signals};
use crate::options::{Options, Target};

/// Smallest MTU that the engine works with: every host must take IPv4 packets of 68 bytes
/// (RFC 791, section 3.2).
const MIN_MTU: u16 = 68;

/// Size of a Unix socket's path with its final NUL (unix(7)).
const MAX_API_PATH: usize = 108;

/// How long the engine may take to end before we leave without it (arbitrary; it takes
/// milliseconds).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What this module asks of the kernel once the network runs.
const SYSTEM_CALLS: &[SystemCall] = &[SystemCall::new(SYS_pipe2, "the end of the instance")];

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
enum RunFailure {
    #[error("the MTU is {0}, but the smallest that works is {MIN_MTU}")]
    MtuTooSmall(u16),
    #[error("descriptor {0} is given for two purposes")]
    DescriptorTwice(i32),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("TAPFD {0} is not open: {1}")]
    TapFdClosed(i32, #[source] io::Error),
    #[error("TAPFD {0}: {1}")]
    TapFd(i32, #[source] TapError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the specified API socket path is too long (>= {MAX_API_PATH})")]
    ApiPathTooLong,
    #[error("api_bindlisten: bind: {}", text_of(.0))]
    ApiBind(io::Error),
    #[error("cannot prepare for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot watch the network: {0}")]
    Watch(#[source] io::Error),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Carries `options` out and returns when the run is over.
pub(crate) fn run(options: &Options) -> ExitCode {
    match connect(options) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure);
            if let RunFailure::Attach(error) = &failure {
                if let Some(hint) = error.hint() {
                    complain(format_args!("hint: {hint}"));
                }
                // The helper that works inside the namespaces has exited with 1.
                complain("child failed(1)");
            }
            if let RunFailure::Sandbox(error) = &failure {
                if let Some(hint) = error.hint() {
                    complain(format_args!("hint: {hint}"));
                }
                complain("parent failed");
            }
            ExitCode::FAILURE
        }
    }
}

fn connect(options: &Options) -> Result<ExitCode, RunFailure> {
    if options.mtu < MIN_MTU {
        return Err(RunFailure::MtuTooSmall(options.mtu));
    }
    if let Target::TapFd(fd) = options.target
        && [options.ready_fd, options.exit_fd].contains(&Some(fd))
    {
        return Err(RunFailure::DescriptorTwice(fd));
    }
    let ready = options.ready_fd.and_then(ReadyFd::take);
    let exit = options.exit_fd.map(|number| {
        // We are about to close it ourselves.
        if options.ready_fd == Some(number) { ExitFd::Closed } else { ExitFd::take(number) }
    });

    if let Some(path) = &options.api_socket
        && path.as_os_str().len() >= MAX_API_PATH
    {
        return Err(RunFailure::ApiPathTooLong);
    }

    let (tap, userns) = open(options)?;
    for line in banner::lines(options, tap.mac().ok().flatten()) {
        say(line);
    }
    raise_descriptor_limit();
    let signals = Signals::hold().map_err(RunFailure::Signals)?;
    let mut builder = builder(options, tap);
    if let Some(path) = &options.api_socket {
        builder = builder.api_socket(bind_api(path, options.sandbox)?);
    }
    // After everything that is opened by name (TAP device, API socket), before the first thread and
    // the first packet.
    confine(options, userns)?;
    let running = Running::start(builder.spawn()?).map_err(RunFailure::Watch)?;
    if let Err(error) = publish(options, &running.handle) {
        running.stop()?;
        return Err(error.into());
    }
    if let Some(ready) = ready {
        ready.tell();
    }
    tracing::info!("ready");

    match lifetime::wait(exit.as_ref(), &signals, running.end.as_fd()).map_err(RunFailure::Watch)? {
        End::ExitFd => {
            complain("exitfd event");
            complain("do_slirp is exiting");
            running.stop()?;
        }
        End::Signal(signal) => {
            tracing::info!(%signal, "shutting down");
            running.stop()?;
            signals.release(signal);
        }
        End::Instance => running.result()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The network as the options describe it.
fn builder(options: &Options, tap: Tap) -> Builder {
    let mut dns = DnsConfig::default();
    dns.servers.clone_from(&options.dns);
    Builder::new(tap)
        .plan(options.plan)
        .mtu(options.mtu)
        .policy(options.policy)
        .outbound(options.outbound)
        .dns(dns)
        .search_domains(options.search_domains.iter().cloned())
}

/// Binds the API socket, and sees to it that its file is removed at the end.
fn bind_api(path: &Path, is_sandboxed: bool) -> Result<ApiSocket, RunFailure> {
    let mut socket = ApiSocket::bind(path).map_err(RunFailure::ApiBind)?;
    if is_sandboxed && let Err(error) = socket.remove_from_outside() {
        tracing::warn!("the API socket's file will stay behind at the end: {error}");
    }
    Ok(socket)
}

/// The kernel's words alone.
fn text_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| nix::errno::Errno::from_raw(number).desc().to_owned(),
    )
}

/// Gives up what a running network does not need, as far as that is asked for.
fn confine(options: &Options, userns: Option<OwnedFd>) -> Result<(), RunFailure> {
    if options.sandbox {
        let entered = Sandbox::new().user_namespace(userns).enter()?;
        if let Some(path) = entered.outer_resolv_conf.filter(|_| options.dns.is_empty()) {
            complain(format_args!(
                "sandbox: /etc/resolv.conf is {}, outside of /etc and /run: it is followed when it \
                 is rewritten, not when it is replaced by another file",
                path.display()
            ));
        }
    }
    if options.seccomp {
        let ours = lifetime::SYSTEM_CALLS.iter().chain(inherited::SYSTEM_CALLS).chain(SYSTEM_CALLS);
        seccomp::apply(instance::system_calls().chain(ours))?;
    }
    Ok(())
}

/// Opens the TAP device and says so. The guest's user namespace comes along where it is known.
fn open(options: &Options) -> Result<(Tap, Option<OwnedFd>), RunFailure> {
    let (target, name) = match &options.target {
        Target::TapFd(number) => {
            let fd =
                inherited_fd(*number).map_err(|error| RunFailure::TapFdClosed(*number, error))?;
            let tap = Tap::adopt(fd).map_err(|error| RunFailure::TapFd(*number, error))?;
            return Ok((tap, None));
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
    let configure = options.configure.then(|| {
        let mut configuration = Configuration::for_plan(&options.plan, options.mtu);
        configuration.mac = options.mac;
        configuration
    });
    let tap = open_tap(&target, &TapRequest { name: name.clone(), configure })?;
    let fd = tap.as_fd().as_raw_fd();
    complain(format_args!("sent tapfd={fd} for {}", tap.name()));
    complain(format_args!("received tapfd={fd}"));
    Ok((tap, target.into_user_namespace()))
}

/// Opens the ports that are to lead to the guest from the start.
fn publish(options: &Options, handle: &Handle) -> Result<(), ForwardError> {
    let guest = options.plan.recommended_guest();
    for forward in options.publish.iter().flat_map(|publish| publish.forwards(guest)) {
        handle.blocking_add_forward(forward)?;
    }
    Ok(())
}

/// Every flow has a socket, and soft limits are low for the sake of select(2), which we do not use.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "cannot raise the limit of open descriptors");
    }
}

/// A started instance and the thread that waits for its end.
struct Running {
    handle: Handle,
    result: mpsc::Receiver<Result<(), RunError>>,
    /// Hangs up when the instance has ended.
    end: io::PipeReader,
}

impl Running {
    fn start(instance: Instance) -> io::Result<Self> {
        let handle = instance.handle();
        let (end, at_end) = io::pipe()?;
        let (sender, result) = mpsc::sync_channel(1);
        thread::Builder::new().name("instance-wait".to_owned()).spawn(move || {
            let _ = sender.send(instance.wait());
            drop(at_end);
        })?;
        Ok(Self { handle, result, end })
    }

    /// Asks the instance to end and waits until it has.
    fn stop(&self) -> Result<(), RunError> {
        self.handle.shutdown();
        self.result()
    }

    fn result(&self) -> Result<(), RunError> {
        match self.result.recv_timeout(SHUTDOWN_TIMEOUT) {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(%error, "the network did not end in time");
                Ok(())
            }
        }
    }
}
