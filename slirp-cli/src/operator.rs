//! How an operator watches and steers a running network: audit log, control socket, metrics.
//!
//! Owns their options, the checks of them, and the order in which they are opened: descriptors are
//! taken over first, then the log and a metrics port are opened together with everything else that
//! is checked, and sockets with a name are bound last. Formats and requests are in `slirp_core`.

use std::borrow::Cow;
use std::fs::symlink_metadata;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{SockType, getsockopt, sockopt};

use slirp_core::instance::{AuditLevel, AuditLog, Builder, ControlSocket, MetricsSocket};
use slirp_core::internals::process::inherited_fd;
use slirp_core::sandbox::Sandbox;

use crate::checks::may_bind;
use crate::failure::hint_of_file;
use crate::options::SOCKET_PATH_CAP;
use crate::wording::MetricsAddress;

/// What the options say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct OperatorOptions {
    /// Where the audit log is written.
    pub(crate) audit_log: Option<AuditTarget>,
    /// How much the log has, if not the default.
    pub(crate) audit_level: Option<AuditLevel>,
    /// Whether new flows are refused while the log cannot be written.
    pub(crate) is_audit_required: bool,
    /// Path of the control socket.
    pub(crate) control_socket: Option<PathBuf>,
    /// Number of the descriptor of the only client of the control socket.
    pub(crate) control_fd: Option<i32>,
    /// Where metrics are served.
    pub(crate) metrics: Option<MetricsAddress>,
    /// Whether the members of a shared network are counted one by one.
    pub(crate) has_member_metrics: bool,
}

/// Where an audit log is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum AuditTarget {
    /// The end of this file.
    File(PathBuf),
    /// A descriptor of the caller.
    Descriptor(i32),
}

/// Why something that an operator wants does not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorFailure {
    #[error("{0}: descriptor {1} is not open: {2}")]
    Closed(&'static str, i32, #[source] io::Error),
    #[error("--audit-log: descriptor {0} is not open for writing")]
    ReadOnly(i32),
    #[error("--control-fd: descriptor {0} is no stream socket of the UNIX domain")]
    NoStream(i32),
    #[error("cannot write the audit log {path}: {source}", path = .0.display(), source = .1)]
    AuditLog(PathBuf, #[source] io::Error),
    #[error("{0}: the path of the socket is too long (>= {SOCKET_PATH_CAP})")]
    PathTooLong(&'static str),
    #[error("{0}: {path}: {source}", path = .1.display(), source = .2)]
    Bind(&'static str, PathBuf, #[source] io::Error),
    #[error("--metrics: cannot listen at {0}: {1}")]
    Listen(String, #[source] io::Error),
    #[error("--control-fd: descriptor {0} has no peer: it listens, or was never connected")]
    NoPeer(i32),
    #[error("--control-fd: {0}")]
    Control(#[source] io::Error),
}

impl OperatorFailure {
    /// A hint about what to do, if that is not obvious.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::AuditLog(_, error) if error.raw_os_error() == Some(libc::ENXIO) => {
                Some("a FIFO needs a reader first".into())
            }
            Self::AuditLog(_, error) => hint_of_file(error).map(Into::into),
            Self::Bind(_, path, error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                let path = path.display();
                Some(
                    format!("{path}: a program serves it, or it is no socket: give another").into(),
                )
            }
            Self::Bind(_, path, error) => {
                hint_of_file(error).map(|hint| format!("{}: {hint}", path.display()).into())
            }
            Self::PathTooLong(_) => {
                Some("change into a folder near it and give a relative path".into())
            }
            Self::Listen(_, error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {
                Some("another program has this port, which ss -tlnp shows".into())
            }
            Self::NoStream(_) => Some("give one end of socketpair(AF_UNIX, SOCK_STREAM)".into()),
            Self::NoPeer(_) => Some(
                "give one end of socketpair(AF_UNIX, SOCK_STREAM); several clients are served at \
                 --control-socket=PATH"
                    .into(),
            ),
            Self::Closed(..) | Self::ReadOnly(_) | Self::Listen(..) | Self::Control(_) => None,
        }
    }
}

/// Descriptors of the caller.
#[derive(Debug)]
pub(crate) struct Taken {
    log: Option<AuditLog>,
    control: Option<ControlSocket>,
}

/// What was opened together with everything else that is checked.
#[derive(Debug)]
pub(crate) struct Opened {
    log: Option<AuditLog>,
    control: Option<ControlSocket>,
    metrics: Option<MetricsSocket>,
}

impl OperatorOptions {
    /// The first option that says nothing without another one that is missing, and that one.
    pub(crate) fn lacking(&self) -> Option<(&'static str, &'static str)> {
        let (log, metrics) = (self.audit_log.is_some(), self.metrics.is_some());
        [
            (self.audit_level.is_some(), "--audit", log, "--audit-log"),
            (self.is_audit_required, "--audit-required", log, "--audit-log"),
            (self.has_member_metrics, "--metrics-members", metrics, "--metrics"),
        ]
        .into_iter()
        .find(|(is_given, _, is_there, _)| *is_given && !is_there)
        .map(|(_, option, _, needed)| (option, needed))
    }

    /// The numbers of the caller's descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> {
        let log = match self.audit_log {
            Some(AuditTarget::Descriptor(number)) => Some(number),
            Some(AuditTarget::File(_)) | None => None,
        };
        log.into_iter().chain(self.control_fd)
    }

    /// Takes the caller's descriptors over, before our own files can get their numbers.
    pub(crate) fn take_over(&self) -> Result<Taken, OperatorFailure> {
        let log = match self.audit_log {
            Some(AuditTarget::Descriptor(number)) => {
                let fd = taken("--audit-log", number)?;
                let flags = fcntl(&fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
                if flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDONLY) {
                    return Err(OperatorFailure::ReadOnly(number));
                }
                Some(AuditLog::to(fd))
            }
            Some(AuditTarget::File(_)) | None => None,
        };
        let control = self.control_fd.map(|number| {
            let stream = UnixStream::from(taken("--control-fd", number)?);
            // The address of a socket of another domain is an error.
            let is_stream = getsockopt(&stream, sockopt::SockType) == Ok(SockType::Stream);
            if !is_stream || stream.local_addr().is_err() {
                return Err(OperatorFailure::NoStream(number));
            }
            ControlSocket::from_stream(stream.into()).map_err(|error| {
                if error.kind() == io::ErrorKind::NotConnected {
                    OperatorFailure::NoPeer(number)
                } else {
                    OperatorFailure::Control(error)
                }
            })
        });
        Ok(Taken { log, control: control.transpose()? })
    }

    /// Checks the paths of sockets, and opens the log and the port of metrics. A log that is
    /// missing is created.
    pub(crate) fn open(&self, taken: Taken) -> Result<Opened, OperatorFailure> {
        let sockets = [
            ("--control-socket", self.control_socket.as_deref()),
            ("--metrics", self.metrics.as_ref().and_then(MetricsAddress::path)),
        ];
        for (option, path) in sockets {
            let Some(path) = path else { continue };
            if path.as_os_str().len() >= SOCKET_PATH_CAP {
                return Err(OperatorFailure::PathTooLong(option));
            }
            let refused =
                |errno: Errno| OperatorFailure::Bind(option, path.to_owned(), errno.into());
            may_bind(path).map_err(refused)?;
            // Unlike the API socket, these replace a socket without a server and nothing else.
            if symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
                return Err(refused(Errno::EADDRINUSE));
            }
        }
        let metrics = match &self.metrics {
            Some(address @ MetricsAddress::Loopback(shown)) => {
                let listen = |error| OperatorFailure::Listen(shown.to_string(), error);
                Some(address.bind().map_err(listen)?)
            }
            Some(MetricsAddress::Unix(_)) | None => None,
        };
        let log = match &self.audit_log {
            Some(AuditTarget::File(path)) => {
                let failed = |error| OperatorFailure::AuditLog(path.clone(), error);
                Some(AuditLog::append(path).map_err(failed)?)
            }
            Some(AuditTarget::Descriptor(_)) | None => taken.log,
        };
        Ok(Opened { log, control: taken.control, metrics })
    }

    /// Binds the sockets with a name, and hands everything over. The files of the sockets are
    /// removed from outside of `sandbox`.
    pub(crate) fn bind(
        &self,
        opened: Opened,
        mut builder: Builder,
        mut sandbox: Sandbox,
    ) -> Result<(Builder, Sandbox), OperatorFailure> {
        let bound = |option, path: &Path| {
            let path = path.to_owned();
            move |error| OperatorFailure::Bind(option, path, error)
        };
        let Opened { log, mut control, mut metrics } = opened;
        if let Some(path) = &self.control_socket {
            control = Some(ControlSocket::bind(path).map_err(bound("--control-socket", path))?);
        }
        if let Some(address @ MetricsAddress::Unix(path)) = &self.metrics {
            metrics = Some(address.bind().map_err(bound("--metrics", path))?);
        }
        if let Some(log) = log {
            let level = self.audit_level.unwrap_or_default();
            builder = builder.audit(log.level(level).required(self.is_audit_required));
        }
        if let Some(control) = control {
            sandbox = sandbox.removed_file(control.file());
            builder = builder.control(control);
        }
        if let Some(metrics) = metrics {
            sandbox = sandbox.removed_file(metrics.file());
            builder = builder.metrics(metrics.per_member(self.has_member_metrics));
        }
        Ok((builder, sandbox))
    }

    /// Whether somebody can be asked.
    pub(crate) fn has_control(&self) -> bool {
        self.control_socket.is_some() || self.control_fd.is_some()
    }
}

fn taken(option: &'static str, number: i32) -> Result<OwnedFd, OperatorFailure> {
    inherited_fd(number).map_err(|error| OperatorFailure::Closed(option, number, error))
}
