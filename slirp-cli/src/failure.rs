//! Why a run failed.
//!
//! Owns [`RunFailure`] and its hints. A [`dialect`](crate::dialect) prints it, possibly in other
//! words.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use nix::libc;
use slirp_core::instance::{ForwardError, MTU_MIN, OutboundError, RunError, StartError};
use slirp_core::launch::LaunchError;
use slirp_core::link::{FrameSocketError, RecordingError, TapError};
use slirp_core::netns::{AttachError, WatchError};

use crate::egress::EgressFailure;
use crate::operator::OperatorFailure;
use crate::options::SOCKET_PATH_CAP;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunFailure {
    #[error("the MTU is {0}, but the smallest that works is {MTU_MIN}")]
    MtuTooSmall(u16),
    #[error("descriptor {0} is given for two purposes")]
    DescriptorTwice(i32),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("descriptor {0} is not open: {1}")]
    TapFdClosed(i32, #[source] io::Error),
    #[error("descriptor {0}: {1}")]
    TapFd(i32, #[source] TapError),
    #[error("descriptor {0}: {1}")]
    SocketFd(i32, #[source] FrameSocketError),
    #[error("descriptor {0}: its frames are packets, without their lengths")]
    SocketFdOfPackets(i32),
    #[error("the path of the frame socket is too long (>= {SOCKET_PATH_CAP})")]
    SocketPathTooLong,
    #[error(transparent)]
    Socket(FrameSocketError),
    #[error("cannot take the peer of {path}: {source}", path = .0.display(), source = .1)]
    SocketPeer(PathBuf, #[source] io::Error),
    #[error(transparent)]
    TargetWatch(#[from] WatchError),
    #[error("{0} is gone")]
    TargetGone(String),
    #[error("cannot record in {path}: {source}", path = .0.display(), source = .1)]
    Recording(PathBuf, #[source] RecordingError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the path of the API socket is too long (>= {SOCKET_PATH_CAP})")]
    ApiPathTooLong,
    #[error("{path}: {source}", path = .0.display(), source = .1)]
    ApiBind(PathBuf, #[source] io::Error),
    #[error("cannot prepare for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("cannot watch the network: {0}")]
    Watch(#[source] io::Error),
    #[error("cannot leave the caller's streams: {0}")]
    Detach(#[source] io::Error),
    #[error(transparent)]
    Egress(#[from] EgressFailure),
    #[error(transparent)]
    Operator(#[from] OperatorFailure),
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error(transparent)]
    Run(#[from] RunError),
}

impl RunFailure {
    /// A hint about what to do, if that is not obvious.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Attach(error) => error.hint().map(Into::into),
            Self::Launch(LaunchError::Sandbox(error)) => error.hint().map(Into::into),
            Self::Forward(error) => hint_of_port(error).map(Into::into),
            Self::Start(error) | Self::Launch(LaunchError::Start(error)) => {
                hint_of_start(error).map(Into::into)
            }
            Self::ApiBind(path, error) => {
                hint_of_file(error).map(|hint| format!("{}: {hint}", path.display()).into())
            }
            Self::Recording(_, RecordingError::Open(error))
            | Self::Socket(FrameSocketError::Call { source: error, .. }) => {
                hint_of_file(error).map(Into::into)
            }
            Self::Egress(error) => error.hint().map(Into::into),
            Self::Operator(error) => error.hint(),
            Self::ApiPathTooLong | Self::SocketPathTooLong => {
                Some("change into a folder near it and give a relative path".into())
            }
            Self::MtuTooSmall(_)
            | Self::DescriptorTwice(_)
            | Self::TapFdClosed(..)
            | Self::TapFd(..)
            | Self::SocketFd(..)
            | Self::SocketFdOfPackets(_)
            | Self::Socket(_)
            | Self::SocketPeer(..)
            | Self::TargetWatch(_)
            | Self::TargetGone(_)
            | Self::Recording(..)
            | Self::Launch(_)
            | Self::Signals(_)
            | Self::Watch(_)
            | Self::Detach(_)
            | Self::Run(_) => None,
        }
    }
}

fn hint_of_port(error: &ForwardError) -> Option<&'static str> {
    let ForwardError::Bind { source, .. } = error else { return None };
    match source.raw_os_error()? {
        libc::EADDRINUSE => Some(
            "another socket of the host has this port, which ss -tulnp shows: publish another, or \
             end that program",
        ),
        libc::EACCES => Some(
            "ports below net.ipv4.ip_unprivileged_port_start (1024) are for root: publish another, \
             or lower that sysctl",
        ),
        _ => None,
    }
}

fn hint_of_start(error: &StartError) -> Option<&'static str> {
    let StartError::Outbound(OutboundError::NotAvailable(_)) = error else { return None };
    Some("ip address shows which addresses it has; the name of an interface will do as well")
}

/// A hint for a file that cannot be created.
pub(crate) fn hint_of_file(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::ENOENT => Some("the folder does not exist: make it first"),
        libc::ENOTDIR => Some("a part of the path is not a folder"),
        libc::EACCES | libc::EPERM | libc::EROFS => {
            Some("we may not write there: give a path where we may")
        }
        libc::EISDIR => Some("it is a folder: give the path of a file in it"),
        libc::EADDRINUSE => {
            Some("the file there cannot be replaced by a socket: remove it, or give another path")
        }
        _ => None,
    }
}
