//! Why a run failed, in words.
//!
//! Owns [`RunFailure`] and what is said of it on stderr. When what can fail is written in
//! [`run`](crate::run).

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use nix::libc;
use slirp_core::host::link::{FrameSocketError, RecordingError, TapError};
use slirp_core::instance::{ForwardError, MTU_MIN, OutboundError, RunError, StartError};
use slirp_core::netns::{AttachError, WatchError};
use slirp_core::sandbox::SandboxError;
use slirp_core::sandbox::seccomp::SeccompError;

use crate::console::complain;
use crate::run::MAX_API_PATH;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunFailure {
    #[error("the MTU is {0}, but the smallest that works is {MTU_MIN}")]
    MtuTooSmall(u16),
    #[error("descriptor {0} is given for two purposes")]
    DescriptorTwice(i32),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("TAPFD {0} is not open: {1}")]
    TapFdClosed(i32, #[source] io::Error),
    #[error("TAPFD {0}: {1}")]
    TapFd(i32, #[source] TapError),
    #[error("the specified BESS socket path is too long (>= {MAX_API_PATH})")]
    BessPathTooLong,
    #[error("child_bess: {0}")]
    Bess(#[source] FrameSocketError),
    #[error("cannot take the peer of {path}: {source}", path = .0.display(), source = .1)]
    BessPeer(PathBuf, #[source] io::Error),
    #[error("--exit-with-netns: {0}")]
    TargetWatch(#[from] WatchError),
    #[error("cannot record in {path}: {source}", path = .0.display(), source = .1)]
    Recording(PathBuf, #[source] RecordingError),
    #[error("cannot close the descriptors that the caller left open: {0}")]
    Inherited(#[source] io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the specified API socket path is too long (>= {MAX_API_PATH})")]
    ApiPathTooLong,
    #[error("api_bindlisten: bind: {}", text_of(.1))]
    ApiBind(PathBuf, #[source] io::Error),
    #[error("cannot prepare for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot watch the network: {0}")]
    Watch(#[source] io::Error),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl RunFailure {
    /// Says it on stderr, in the lines that readers of slirp4netns(1) know, with a hint where there is one.
    pub(crate) fn tell(&self) {
        complain(self);
        if let Some(hint) = self.hint() {
            complain(format_args!("hint: {hint}"));
        }
        for line in self.known_end() {
            complain(line);
        }
    }

    /// What a person can do about it, where that is not obvious; goes on a line of its own.
    fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Attach(error) => error.hint().map(Into::into),
            Self::Sandbox(error) => error.hint().map(Into::into),
            Self::Forward(error) => hint_of_port(error).map(Into::into),
            Self::Start(error) => hint_of_start(error).map(Into::into),
            Self::ApiBind(path, error) => {
                hint_of_file(error).map(|hint| format!("{}: {hint}", path.display()).into())
            }
            Self::Recording(_, RecordingError::Open(error))
            | Self::Bess(FrameSocketError::Call { source: error, .. }) => {
                hint_of_file(error).map(Into::into)
            }
            Self::ApiPathTooLong | Self::BessPathTooLong => {
                Some("change into a folder near it and give a relative path".into())
            }
            Self::MtuTooSmall(_)
            | Self::DescriptorTwice(_)
            | Self::TapFdClosed(..)
            | Self::TapFd(..)
            | Self::Bess(_)
            | Self::BessPeer(..)
            | Self::TargetWatch(_)
            | Self::Recording(..)
            | Self::Inherited(_)
            | Self::Seccomp(_)
            | Self::Signals(_)
            | Self::Watch(_)
            | Self::Run(_) => None,
        }
    }

    /// The lines by which slirp4netns(1) ends such a start: its helper process opens the device, and
    /// what comes after that is the parent's.
    const fn known_end(&self) -> &'static [&'static str] {
        match self {
            Self::Attach(_) | Self::BessPathTooLong | Self::Bess(_) => &["child failed(1)"],
            Self::ApiPathTooLong | Self::ApiBind(..) => {
                &["do_slirp is exiting", "do_slirp failed", "parent failed"]
            }
            Self::Sandbox(_) => &[
                "create_sandbox failed",
                "do_slirp is exiting",
                "do_slirp failed",
                "parent failed",
            ],
            Self::Seccomp(_) => &[
                "enable_seccomp failed",
                "do_slirp is exiting",
                "do_slirp failed",
                "parent failed",
            ],
            Self::MtuTooSmall(_)
            | Self::DescriptorTwice(_)
            | Self::TapFdClosed(..)
            | Self::TapFd(..)
            | Self::BessPeer(..)
            | Self::TargetWatch(_)
            | Self::Recording(..)
            | Self::Inherited(_)
            | Self::Start(_)
            | Self::Signals(_)
            | Self::Watch(_)
            | Self::Forward(_)
            | Self::Run(_) => &[],
        }
    }
}

fn hint_of_port(error: &ForwardError) -> Option<&'static str> {
    let ForwardError::Bind { source, .. } = error else { return None };
    (source.raw_os_error() == Some(libc::EADDRINUSE)).then_some(
        "another socket of the host has this port, which ss -tulnp shows: publish another, or end \
         that program",
    )
}

fn hint_of_start(error: &StartError) -> Option<&'static str> {
    let StartError::Outbound(OutboundError::NotAvailable(_)) = error else { return None };
    Some("ip address shows which addresses it has; the name of an interface will do as well")
}

/// What to do about a file that cannot be made.
fn hint_of_file(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::ENOENT => Some("the folder does not exist: make it first"),
        libc::ENOTDIR => Some("a part of the path is not a folder"),
        libc::EACCES | libc::EPERM | libc::EROFS => {
            Some("we may not write there: give a path where we may")
        }
        libc::EISDIR => Some("it is a folder: give the path of a file in it"),
        libc::EADDRINUSE => {
            Some("what is there cannot be replaced by a socket: remove it, or give another path")
        }
        _ => None,
    }
}

/// The kernel's words alone.
fn text_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| nix::errno::Errno::from_raw(number).desc().to_owned(),
    )
}
