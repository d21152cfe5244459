//! The one order in which a program starts a network: open, confine, start.
//!
//! # Theory of operation
//! Inside a sandbox no host file has a name, and a system call filter forbids opening files. So
//! everything with a name is opened before: device, sockets, ports, recording. Both apply to the
//! calling thread and to threads that it starts later, so the engine's threads are started
//! afterwards. Each step consumes the one before it, so the compiler enforces the order:
//!
//! | state | what is true | next |
//! | --- | --- | --- |
//! | [`Prepared`] | everything with a name is open; there is one thread | [`Prepared::confine`] |
//! | [`Confined`] | sandbox and filter apply as far as they were requested | [`Confined::start`] |
//! | [`BackgroundInstance`] | the engine runs | |

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::instance::{self, BackgroundInstance, Builder, SplicesError, StartError};
use crate::netns::TargetWatch;
use crate::sandbox::seccomp::{self, SeccompError, SystemCall};
use crate::sandbox::{Sandbox, SandboxError};
pub use crate::sys::InheritedFds;

/// Why a network could not be launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The descriptors that the caller left open could not be closed.
    #[error("cannot close the descriptors that the caller left open: {0}")]
    Inherited(#[source] io::Error),
    /// The sandbox could not be entered.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// System calls could not be filtered.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// The engine could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The guest's network namespace could not be entered.
    #[error(transparent)]
    Splices(#[from] SplicesError),
    /// The end of the engine could not be watched.
    #[error("cannot watch the network: {0}")]
    Watch(#[source] io::Error),
}

/// Raises the soft limit of open descriptors to the hard limit. Call it before [`Prepared::new`],
/// which reads the limit.
///
/// Every flow has a socket. Soft limits are low because of select(2), which is not used here.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "cannot raise the limit of open descriptors");
    }
}

/// What a running network gives up.
#[derive(Debug, Default)]
#[must_use]
pub struct Confinement {
    sandbox: Option<Sandbox>,
    allowed: Option<Vec<&'static SystemCall>>,
    inherited: Option<InheritedFds>,
}

impl Confinement {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Everything that `sandbox` takes away.
    pub fn sandbox(self, sandbox: Sandbox) -> Self {
        Self { sandbox: Some(sandbox), ..self }
    }

    /// What the caller may have left open, listed before this process opened much of its own.
    pub fn inherited(self, inherited: InheritedFds) -> Self {
        Self { inherited: Some(inherited), ..self }
    }

    /// All system calls except the engine's and `more`, which are the program's.
    pub fn filter(self, more: impl IntoIterator<Item = &'static SystemCall>) -> Self {
        Self { allowed: Some(instance::system_calls().chain(more).collect()), ..self }
    }
}

/// A network before its first thread. Everything with a name is open.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    builder: Builder,
}

impl Prepared {
    /// Prepares the network of `builder`, which holds everything with a name. Reads the limits of
    /// the host and the process, because a confined process cannot read them.
    pub fn new(builder: Builder) -> Self {
        Self { builder: builder.measure_host() }
    }

    /// Gives up what `confinement` says, for good. If there is anything to give up, descriptors
    /// that the caller left open are closed. A file that was named through one of them
    /// (`/proc/self/fd/N`) is open by now.
    ///
    /// # Errors
    /// The first step that fails; the process may be confined in part.
    pub fn confine(self, confinement: Confinement) -> Result<Confined, LaunchError> {
        let Confinement { sandbox, allowed, inherited } = confinement;
        if sandbox.is_some() || allowed.is_some() {
            let inherited = inherited.map_or_else(InheritedFds::find, Ok);
            inherited.map_err(LaunchError::Inherited)?.close();
        }
        let (builder, target) = match sandbox {
            Some(sandbox) => {
                let identity = sandbox.identity_to_be();
                let (entered, builder) =
                    sandbox.enter_after(|| self.builder.enter_inner(identity))?;
                (builder?.outside(entered.outside), entered.target)
            }
            None if allowed.is_some() => (self.builder.enter_inner(None)?, None),
            None => (self.builder, None),
        };
        let confined = Confined { builder, target };
        if let Some(allowed) = allowed {
            let of_inner = allowed.clone();
            let applied = confined.builder.within_inner(move || seccomp::apply(of_inner));
            applied.collect::<Result<(), _>>()?;
            seccomp::apply(allowed)?;
        }
        Ok(confined)
    }
}

/// A network that has given up what it does not need.
#[derive(Debug)]
#[must_use]
pub struct Confined {
    builder: Builder,
    target: Option<TargetWatch>,
}

impl Confined {
    /// Takes the watch that [`Sandbox::target`] was given, in its form inside the sandbox.
    pub fn take_target(&mut self) -> Option<TargetWatch> {
        self.target.take()
    }

    /// Starts the engine in the background.
    ///
    /// # Errors
    /// [`LaunchError::Start`] and [`LaunchError::Watch`]; no thread is left then.
    pub fn start(self) -> Result<BackgroundInstance, LaunchError> {
        self.builder.spawn()?.into_background().map_err(LaunchError::Watch)
    }
}
