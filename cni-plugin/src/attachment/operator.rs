//! What an operator watches and steers an attachment by: audit log, control socket, metrics.
//!
//! Owns the values as they travel and are recorded. The engine opens what they name, before it is
//! confined. What they mean is in `slirp_core::instance`.

use core::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slirp_cli::wording::MetricsAddress;
use slirp_core::instance::AuditLevel;

/// What an operator wants of an attachment, or of a shared network.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Operator {
    /// The audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) audit: Option<Audit>,
    /// Path of the control socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_socket: Option<PathBuf>,
    /// Where metrics are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<Metrics>,
}

/// An audit log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) file: PathBuf,
    pub(crate) level: Level,
    /// Whether new flows are refused while it cannot be written.
    pub(crate) required: bool,
}

/// How much an audit log has.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Denied,
    #[default]
    Decisions,
    All,
}

impl Level {
    /// The level that the engine knows it by.
    pub(crate) const fn of_log(self) -> AuditLevel {
        match self {
            Self::Denied => AuditLevel::Denied,
            Self::Decisions => AuditLevel::Decisions,
            Self::All => AuditLevel::All,
        }
    }
}

/// A socket on which metrics are served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Metrics {
    #[serde(flatten)]
    pub(crate) address: Address,
    /// Whether members are counted one by one.
    pub(crate) members: bool,
}

/// Where metrics are served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Address {
    /// A socket of this path.
    Unix(PathBuf),
    /// A port of a loopback address.
    Loopback(SocketAddr),
}

impl Address {
    /// The address as the engine binds it.
    pub(crate) fn of_socket(&self) -> MetricsAddress {
        match self {
            Self::Unix(path) => MetricsAddress::Unix(path.clone()),
            Self::Loopback(address) => MetricsAddress::Loopback(*address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

impl From<MetricsAddress> for Address {
    fn from(address: MetricsAddress) -> Self {
        match address {
            MetricsAddress::Unix(path) => Self::Unix(path),
            MetricsAddress::Loopback(address) => Self::Loopback(address),
        }
    }
}

impl Operator {
    /// Whether nothing is wanted.
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
