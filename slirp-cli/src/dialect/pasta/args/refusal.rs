//! Texts about a command line: warnings, and why it is refused.
//!
//! Owns the texts, which callers of pasta(1) and people search for. The parent module decides when
//! each is due.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use slirp_core::instance::{MTU_MAX, MTU_MIN};

use crate::dialect::getopt::GrammarError;
use crate::dialect::pasta::ports::rules::PortError;

/// A warning, after which the run goes on; printed on stderr.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Warning {
    /// An option that does nothing here.
    #[error("{0} has no effect")]
    NoEffect(&'static str),
    /// `--no-copy-routes`, `--no-copy-addrs`.
    #[error("{0} will be dropped soon")]
    Deprecated(&'static str),
    /// An MTU below the minimum of IPv6 (RFC 8200).
    #[error("MTU {0} is too small for IPv6 (min {1})")]
    SmallMtu(u16, u16),
}

/// Why a command line was refused. The exit status is 1 for all of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ArgumentError {
    /// A violation of the grammar; the text begins with the name of the program, and the usage
    /// follows.
    #[error("{}", String::from_utf8_lossy(&.0.text()))]
    Grammar(GrammarError),
    /// A value is not what the option takes: what is said about it, and the value.
    #[error("{0} {1}")]
    Value(&'static str, String),
    /// An MTU beyond the device's largest frame.
    #[error("MTU {0} too large (max {MTU_MAX})")]
    MtuTooLarge(u64),
    /// An MTU below the minimum of IPv4 (RFC 791).
    #[error("MTU {0} too small (min {MTU_MIN})")]
    MtuTooSmall(u64),
    /// `--netmask` for an address with a length of its own.
    #[error("Redundant prefix length specification")]
    PrefixLenTwice,
    /// An option that passt(1) alone has.
    #[error("--{0} is for passt mode only")]
    ForPasst(&'static str),
    /// An option that pasta(1) alone has.
    #[error("--{0} is for pasta mode only")]
    ForPasta(&'static str),
    /// An option of passt(1) for what is not offered here.
    #[error("--{0} is not supported: connect the machine to the socket of --socket or --fd")]
    Unsupported(&'static str),
    /// An operand, where there is none.
    #[error("Extra non-option argument: {0}")]
    Extra(String),
    /// Ports that are to be found in the guest's namespace.
    #[error("'auto' port forwarding is only allowed for pasta")]
    AutoForPasta,
    /// Both name the network namespace.
    #[error("Both --netns and PID or command given")]
    NetnsAndOperand,
    /// Both name the user namespace.
    #[error("Both --userns and --netns-only given")]
    UsernsAndNetnsOnly,
    /// Two options that exclude each other.
    #[error("{0} conflicts with {1}")]
    Conflict(&'static str, &'static str),
    /// An option without another one that it needs.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
    /// Ports.
    #[error(transparent)]
    Ports(#[from] PortError),
}

impl ArgumentError {
    /// The line for stderr, without its end. `program` is the program's name as it was called.
    pub(crate) fn text(&self, program: &OsStr) -> Vec<u8> {
        match self {
            Self::Grammar(error) => [program.as_bytes(), b": ", &error.text()].concat(),
            Self::Value(..)
            | Self::MtuTooLarge(_)
            | Self::MtuTooSmall(_)
            | Self::PrefixLenTwice
            | Self::ForPasst(_)
            | Self::ForPasta(_)
            | Self::Unsupported(_)
            | Self::Extra(_)
            | Self::AutoForPasta
            | Self::NetnsAndOperand
            | Self::UsernsAndNetnsOnly
            | Self::Conflict(..)
            | Self::Needs(..)
            | Self::Ports(_) => self.to_string().into_bytes(),
        }
    }

    /// Whether the usage follows, on stderr.
    pub(crate) const fn shows_usage(&self) -> bool {
        matches!(self, Self::Grammar(_))
    }
}

impl From<GrammarError> for ArgumentError {
    fn from(error: GrammarError) -> Self {
        Self::Grammar(error)
    }
}
