//! One run, from the options to the exit status.
//!
//! Owns the order of the start and of the end, and is the only place that drives the engine.
//! Progress is reported as a [`Milestone`]; a dialect words it.
//!
//! 1. take over the caller's descriptors, before our own files can get their numbers; hold signals
//!    back
//! 2. raise the limit of descriptors to the hard limit; find the target; check everything else that
//!    the options name ([`checks`]) before anything is made, and open the published ports
//! 3. open the TAP device, or wait for the peer of a socket
//! 4. empty the recording, bind the API socket, the control socket and the socket of metrics
//! 5. close descriptors that the caller left open, enter the sandbox, then filter system calls,
//!    both while there is a single thread: every file that is opened by name is open by now
//! 6. start the engine, which takes the published ports over
//! 7. report that the engine has started; a daemon leaves the caller's streams; then write to the
//!    ready descriptor: nothing can fail any more
//! 8. wait for the exit descriptor, the end of the target or of a socket's peer (status 0), a
//!    signal (killed by it after cleaning up, or status 0, as the dialect has it) or an end of the
//!    engine by itself (status 1)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use slirp_core::dns::DnsConfig;
use slirp_core::instance::ApiSocket;
use slirp_core::instance::{Builder, Forward, MTU_MIN, RunError};
use slirp_core::launch::{self, Confinement, InheritedFds, LaunchError, Prepared};
use slirp_core::link::Link;
use slirp_core::netns::TargetWatch;
use slirp_core::plan::AssumedGuest;
use slirp_core::sandbox::Sandbox;

use crate::checks::{self, Checked};
use crate::console;
use crate::egress;
use crate::failure::RunFailure;
use crate::guest;
use crate::inherited::{self, ExitFd, ReadyFd};
use crate::lifetime::{self, End, Signals, Sources};
use crate::milestone::{Milestone, Report};
use crate::options::{Options, Target};

/// How long the engine may take to end before we exit without it (arbitrary; it takes
/// milliseconds).
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Carries `options` out and returns when the run is over.
pub(crate) fn run(
    target: &Target,
    options: &Options,
    report: Report<'_>,
) -> Result<ExitCode, RunFailure> {
    if options.mtu < MTU_MIN {
        return Err(RunFailure::MtuTooSmall(options.mtu));
    }
    refuse_shared_descriptor(target, options)?;
    let ready = options.ready_fd.and_then(ReadyFd::take);
    let exit = options.exit_fd.map(|number| {
        // We are about to close it ourselves.
        if options.ready_fd == Some(number) { ExitFd::Closed } else { ExitFd::take(number) }
    });
    let taken = options.operator.take_over()?;
    // Neither is an error: the network works without them.
    if let (Some(number), None) = (options.ready_fd, &ready) {
        report(Milestone::ReadyFdClosed(number));
    }
    if let (Some(number), Some(ExitFd::Closed)) = (options.exit_fd, &exit) {
        report(Milestone::ExitFdClosed(number));
    }

    let signals = Signals::hold(options.good_ends).map_err(RunFailure::Signals)?;
    let sources = Sources { exit: exit.as_ref(), target: None, signals: &signals };
    launch::raise_descriptor_limit();
    let mut confinement = confinement(options)?;
    let found = guest::find(target, options)?;
    let Checked { mut ports, egress: policy, recording, operator } = checks::check(options, taken)?;
    let opened = match guest::open(found, options, sources, report)? {
        Ok(opened) => opened,
        Err(end) => {
            announce(end, None, report);
            return Ok(leave(end, signals, options));
        }
    };
    // From its MAC address a guest makes an IPv6 address unless it has a fixed one.
    let made_from = opened.mac.filter(|_| !options.has_fixed_ipv6);
    let guest = AssumedGuest::new(options.address_plan(), made_from);
    ports.lead_like(options.publish.iter().map(|publish| publish.forward(guest)));
    let published: Vec<Forward> = ports.rules().collect();
    let mut builder = builder(options, opened.link).assumed_guest(guest).forwards(ports);
    if let Some(own) = &options.own_plan
        && let Some(following) = &own.following
    {
        let place = match (&opened.network, own.follows_inside) {
            (Some(network), true) => Some(network.try_clone().map_err(RunFailure::Watch)?),
            (Some(_), false) | (None, _) => None,
        };
        let place = place.zip(opened.name.clone());
        builder = builder.follows(following.clone(), place);
    }
    let splicing = options.own_plan.as_ref().and_then(|own| own.splicing.as_ref());
    if let Some((splicing, network)) = splicing.zip(opened.network) {
        builder = builder.splices(splicing.splices(network, &options.address_plan(), guest));
    }
    if let Some(policy) = &policy {
        for warning in policy.warnings() {
            tracing::warn!("{warning}");
        }
        if egress::asks(policy) && !options.operator.has_control() {
            // The other dialect has no such options.
            let without = match &options.own_plan {
                None => " without --control-socket or --control-fd",
                Some(_) => "",
            };
            tracing::warn!("nobody can be asked{without}: what the rules ask about is refused");
        }
        builder = builder.egress(policy.clone());
    }
    if let (Some(recording), Some(path)) = (recording, &options.pcap) {
        let failed = |error| RunFailure::Recording(path.clone(), error);
        builder = builder.recording(recording.emptied().map_err(failed)?);
    }
    let api = options.api_socket.as_deref().map(bind_api).transpose()?;
    let mut sandbox = Sandbox::new()
        .user_namespace(opened.userns.filter(|_| options.enters_userns))
        .removed_file(api.as_ref().and_then(ApiSocket::file))
        .removed_file(options.removed_file.clone())
        .removed_file(opened.file)
        .identity(options.identity);
    let is_asked = options.dns.is_empty() && options.policy.dns_service;
    let is_followed = options.own_plan.as_ref().is_some_and(|own| own.following.is_some());
    if !is_asked && !is_followed {
        sandbox = sandbox.resolv_conf(None);
    }
    if let Some(api) = api {
        builder = builder.api_socket(api);
    }
    (builder, sandbox) = options.operator.bind(operator, builder, sandbox)?;
    // Inside the sandbox no file can be opened.
    let null = options.detaches.then(open_null).transpose().map_err(RunFailure::Detach)?;
    let mut watch = opened.watch;
    if options.sandbox {
        confinement = confinement.sandbox(sandbox.target(watch.take()));
    }
    let mut confined = Prepared::new(builder).confine(confinement)?;
    let watch = watch.or(confined.take_target());
    let running = confined.start()?;
    // A caller that waits for the network is told here that there is none.
    if options.detaches
        && let Some(watch) = watch.as_ref().filter(|watch| watch.is_gone())
    {
        outcome(running.stop(SHUTDOWN_TIMEOUT))?;
        return Err(RunFailure::TargetGone(watch.what().to_owned()));
    }
    // The command line does not tell which port the system picked.
    let picked = options.publish.iter().zip(published).filter(|(wanted, _)| wanted.is_picked());
    let picked: Vec<Forward> = picked.map(|(_, rule)| rule).collect();
    let egress = policy.as_ref();
    let handle = running.handle();
    report(Milestone::Started { mac: opened.mac, picked: &picked, egress, handle });
    if let Some(null) = null {
        console::leave(&null).map_err(RunFailure::Detach)?;
    }
    if let Some(ready) = ready {
        // A full pipe without a reader must not keep a signal from ending the run.
        let is_told =
            signals.allow_write(ready.as_fd()).map_err(RunFailure::Watch)? && ready.tell();
        if options.detaches && !is_told {
            outcome(running.stop(SHUTDOWN_TIMEOUT))?;
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!("ready");

    let sources = Sources { target: watch.as_ref(), ..sources };
    let end = lifetime::wait(sources, running.as_fd()).map_err(RunFailure::Watch)?;
    announce(end, watch.as_ref(), report);
    if options.lingers && end == End::ExitFd {
        lifetime::linger(running.handle());
    }
    let result = match end {
        End::Awaited => outcome(running.outcome(SHUTDOWN_TIMEOUT)),
        End::ExitFd | End::Target | End::Signal(_) => outcome(running.stop(SHUTDOWN_TIMEOUT)),
    };
    match (result, target) {
        // A virtual machine ends this way.
        (Err(RunError::PeerGone), Target::Socket(path, _)) => report(Milestone::PeerGone(path)),
        (Err(RunError::PeerGone), Target::SocketFd(_) | Target::Server { .. }) => {
            tracing::info!("Client connection closed, exiting");
        }
        (result, _) => result?,
    }
    Ok(leave(end, signals, options))
}

/// Refuses a descriptor that is given for two purposes. The exit descriptor may be the ready
/// descriptor: callers of slirp4netns have done so, and it counts as closed.
fn refuse_shared_descriptor(target: &Target, options: &Options) -> Result<(), RunFailure> {
    let device = match *target {
        Target::TapFd(fd) | Target::SocketFd(fd) => Some(fd),
        Target::Pid { .. } | Target::Path { .. } | Target::Socket(..) | Target::Server { .. } => {
            None
        }
    };
    let told = options.exit_fd.filter(|_| options.exit_fd != options.ready_fd);
    let mut seen = Vec::new();
    let numbers = [device, options.ready_fd, told].into_iter().flatten();
    for number in numbers.chain(options.operator.descriptors()) {
        if seen.contains(&number) {
            return Err(RunFailure::DescriptorTwice(number));
        }
        seen.push(number);
    }
    Ok(())
}

/// Reports why the run is over.
fn announce(end: End, watch: Option<&TargetWatch>, report: Report<'_>) {
    match end {
        End::ExitFd => report(Milestone::ExitFdHungUp),
        End::Target => {
            report(Milestone::TargetGone(watch.map(TargetWatch::what).unwrap_or_default()));
        }
        End::Signal(signal) => tracing::info!(%signal, "shutting down"),
        End::Awaited => {}
    }
}

/// The exit status of a run that is over, unless a signal ends the process.
fn leave(end: End, signals: Signals, options: &Options) -> ExitCode {
    if let End::Signal(signal) = end
        && !options.good_ends.contains(&signal)
    {
        console::flush();
        signals.release(signal);
    }
    ExitCode::SUCCESS
}

/// The network as the options describe it.
fn builder(options: &Options, link: Link) -> Builder {
    let mut dns = DnsConfig::default();
    dns.servers.clone_from(&options.dns);
    let builder = Builder::new(link)
        .plan(options.address_plan())
        .mtu(options.mtu)
        .policy(options.policy)
        .rates(options.rates)
        .outbound(options.outbound.clone())
        .dns(dns)
        .search_domains(options.search_domains.iter().cloned())
        .busy_poll(options.busy_poll)
        .keeps_udp_ports(options.keeps_udp_ports);
    match &options.own_plan {
        Some(own) => builder.personality(own.personality.clone()).silence(own.silence),
        None => builder,
    }
}

fn open_null() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// Binds the API socket.
fn bind_api(path: &Path) -> Result<ApiSocket, RunFailure> {
    ApiSocket::bind(path).map_err(|error| RunFailure::ApiBind(path.to_owned(), error))
}

/// What a running network gives up besides what a sandbox takes away, as far as the options say.
fn confinement(options: &Options) -> Result<Confinement, LaunchError> {
    let mut confinement = Confinement::none();
    if options.sandbox || options.seccomp {
        // Before there are ports, which may be thousands. Where nothing is given up, /proc may be
        // missing.
        let inherited = InheritedFds::find().map_err(LaunchError::Inherited)?;
        confinement = confinement.inherited(inherited);
    }
    if options.seccomp {
        let ours = [lifetime::SYSTEM_CALLS, inherited::SYSTEM_CALLS, console::SYSTEM_CALLS];
        let ours = ours.into_iter().flatten();
        confinement = confinement.filter(ours.chain(options.system_calls.iter().copied()));
    }
    Ok(confinement)
}

/// How the engine has ended; it takes a bounded time to end.
fn outcome(outcome: Option<Result<(), RunError>>) -> Result<(), RunError> {
    outcome.unwrap_or_else(|| {
        tracing::warn!("the network did not end in time");
        Ok(())
    })
}
