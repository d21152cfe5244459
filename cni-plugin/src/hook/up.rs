//! Attaching a container.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use slirp_core::netns::NamespaceId;

use super::options::{Arguments, Options};
use super::state::{Bundle, State};
use super::{Failure, inside, log};
use crate::attachment::attach::{attach, find_namespace};
use crate::attachment::error::{Error, Kind};
use crate::attachment::open;
use crate::attachment::store::Candidates;
use crate::config::settings::settings;
use crate::config::{Header, policy};
use crate::protocol::environment::{Environment, validate_ifname};
use crate::protocol::version::Version;

/// How long the program of a running container may take to be started after its runtime let it
/// (arbitrary; it is one execve(2)).
const EXEC_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is checked (arbitrary).
const EXEC_PAUSE: Duration = Duration::from_millis(5);

/// Attaches the container, if the hook is responsible for its network.
pub(super) fn up(
    state: &State,
    arguments: &Arguments,
    candidates: &Candidates,
) -> Result<(), Failure> {
    let (bundle, options) = read(state, arguments)?;
    if bundle.joined.is_some() && !options.attaches_shared()? {
        // The namespace's creator has given it a network, or wants none.
        return Ok(());
    }
    let pid = state.pid.ok_or_else(|| Failure("the container has no process".to_owned()))?;
    validate_ifname(options.ifname())?;
    // A joined namespace is named by the path in the configuration, because that path tells how
    // long it lives.
    let netns = bundle
        .joined
        .as_deref()
        .map_or_else(|| format!("/proc/{pid}/ns/net"), |path| path.display().to_string());
    let id = if is_readable(Path::new(&netns), state.status == "running") {
        let id = find_namespace(Path::new(&netns), false).map_err(of_namespace)?;
        if is_served(candidates, id) {
            return Ok(());
        }
        Some(id)
    } else if bundle.joined.is_none() && has_second_stage(&bundle) {
        None
    } else {
        return Err(Failure(format!(
            "{netns}: permission denied: the runtime protects the container's process from its own \
             user (use this hook as \"createContainer\" as well, as rootless crun needs it, or as \
             \"poststart\" instead, or give the path of an existing network namespace)"
        )));
    };
    let header = Header {
        version: Version::NEWEST,
        name: super::NETWORK.to_owned(),
        state_dir: arguments.state_dir.clone(),
        object: options.configuration()?,
    };
    let environment = Environment {
        container_id: state.id.clone(),
        netns,
        ifname: options.ifname().to_owned(),
        ..Environment::default()
    };
    let mut settings = settings(&header, &environment, id)?;
    let request = &mut settings.request;
    request.rates = options.rates()?;
    let texts = options.policy(policy::of_environment()?)?;
    request.egress = policy::checked(texts, &request.policy)?;
    attach(&settings.request, candidates)?.commit()?;
    if id.is_some() {
        log::note(&settings.request);
    }
    Ok(())
}

/// The second stage, in the container's own namespaces, if the hook is responsible for its network.
pub(super) fn second_stage(
    state: &State,
    arguments: &Arguments,
    candidates: &Candidates,
) -> Result<(), Failure> {
    let (bundle, options) = read(state, arguments)?;
    if bundle.joined.is_some() {
        // The first stage had access to it.
        return Ok(());
    }
    inside::enter(state, &options, candidates)
}

/// The container's bundle, and the options of its network.
fn read(state: &State, arguments: &Arguments) -> Result<(Bundle, Options), Failure> {
    let bundle = state.bundle.as_deref().map(Bundle::read).unwrap_or_default();
    let has_annotations = !state.annotations.is_empty();
    let annotations = if has_annotations { &state.annotations } else { &bundle.annotations };
    let options = Options::new(arguments, annotations)?;
    Ok((bundle, options))
}

fn of_namespace(error: Error) -> Failure {
    match error.kind {
        Kind::OwnNamespace => Failure(
            "the container has no network namespace of its own, and that of the host is left alone \
             (add {\"type\": \"network\"} to linux.namespaces of config.json)"
                .to_owned(),
        ),
        Kind::ContainerGone
        | Kind::NotNamespace
        | Kind::Busy
        | Kind::Unsupported
        | Kind::Failed => error.into(),
    }
}

/// Whether the bundle also calls this program in the container's own namespaces; a keeper then
/// waits for that.
fn has_second_stage(bundle: &Bundle) -> bool {
    let file = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let own = file(Path::new("/proc/self/exe"));
    own.is_some() && bundle.inner_hooks.iter().any(|path| file(path) == own)
}

/// Whether this namespace has a network of ours: a second hook of the same container, or a
/// container that joined another's.
fn is_served(candidates: &Candidates, id: NamespaceId) -> bool {
    candidates
        .existing()
        .flat_map(|store| store.records())
        .any(|record| record.request.netns_id == Some(id) && record.is_alive())
}

/// Whether we may enter the namespace. A process that its runtime made unreadable (crun:
/// PR_SET_DUMPABLE of prctl(2)) is readable again once it runs the container's program; if that is
/// about to happen, this waits for it. Other problems are reported when the namespace is opened
/// next.
fn is_readable(netns: &Path, is_running: bool) -> bool {
    let started_at = Instant::now();
    let is_denied =
        || open::open(netns).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    while is_denied() {
        if !is_running || started_at.elapsed() > EXEC_TIMEOUT {
            return false;
        }
        thread::sleep(EXEC_PAUSE);
    }
    true
}
