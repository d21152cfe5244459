//! Texts about a command line: warnings, and why it is refused.
//!
//! Owns the texts, which callers of slirp4netns know. The parent module decides when each is due.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::dialect::getopt::GrammarError;
use crate::dialect::slirp4netns::values::ValueError;

/// A warning, after which the run goes on; printed on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Warning {
    /// `--enable-ipv6`.
    #[error("WARNING: Support for IPv6 is experimental")]
    Ipv6Experimental,
    /// `--no-host-loopback`.
    #[error("WARNING: --no-host-loopback is deprecated, use --disable-host-loopback instead")]
    NoHostLoopbackDeprecated,
    /// `--create-sandbox`.
    #[error("WARNING: --create-sandbox is deprecated, use --enable-sandbox instead")]
    CreateSandboxDeprecated,
    /// `--enable-seccomp`.
    #[error("WARNING: Support for seccomp is experimental")]
    SeccompExperimental,
    /// `--target-type=bess`.
    #[error("WARNING: BESS mode is experimental")]
    BessExperimental,
    /// `--outbound-addr`.
    #[error("WARNING: Support for --outbound-addr is experimental")]
    OutboundAddrExperimental,
    /// `--outbound-addr6`.
    #[error("WARNING: Support for --outbound-addr6 is experimental")]
    OutboundAddr6Experimental,
    /// More operands than two.
    #[error("WARNING: too many arguments")]
    TooManyArguments,
    /// `-c` with a descriptor: its device is in a namespace that we cannot enter.
    #[error("WARNING: --configure has no effect with --netns-type=tapfd")]
    ConfigureWithTapFd,
    /// `--dns` with `--disable-dns`.
    #[error("WARNING: --dns has no effect with --disable-dns")]
    DnsDisabled,
}

/// Why a command line was refused. The exit code is 1 for all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ArgumentError {
    /// A violation of the grammar; the text begins with the name of the program.
    Grammar(GrammarError),
    /// An operand is missing. Only the usage is shown.
    OperandMissing,
    /// `--mtu`.
    Mtu,
    /// `--exit-fd`.
    ExitFd,
    /// `--ready-fd`.
    ReadyFd,
    /// `--control-fd`.
    ControlFd,
    /// `--userns-path`.
    UsernsPath(PathBuf),
    /// `--target-type`.
    TargetType,
    /// `--macaddress` without `--configure`.
    MacWithoutConfigure,
    /// The operand of `--netns-type=pid`.
    Pid,
    /// The operand of `--netns-type=path`.
    NetnsPath(Errno),
    /// The operand of `--netns-type=tapfd`.
    TapFd,
    /// Two options, or an option and a value, that exclude each other.
    Conflict(&'static str, &'static str),
    /// More operands than `--target-type=bess` takes.
    TooManyArguments,
    /// An option without another one that it needs.
    Without(&'static str, &'static str),
    /// A refused value; the usage is not shown.
    Value(ValueError),
}

impl ArgumentError {
    /// An IPv6 option without `--enable-ipv6`.
    pub(crate) const fn without_ipv6(option: &'static str) -> Self {
        Self::Without(option, "--enable-ipv6 or -6")
    }

    /// The line for stderr, without its end; `None` if only the usage is shown.
    pub(crate) fn text(&self, program: &OsStr) -> Option<Vec<u8>> {
        let with_program = |text: &[u8]| [program.as_bytes(), b": ", text].concat();
        Some(match self {
            Self::Grammar(error) => with_program(&error.text()),
            Self::OperandMissing => return None,
            Self::Mtu => b"MTU must be a positive integer (< 65522)".to_vec(),
            Self::ExitFd => b"exit-fd must be a non-negative integer".to_vec(),
            Self::ReadyFd => b"ready-fd must be a non-negative integer".to_vec(),
            Self::ControlFd => b"control-fd must be a non-negative integer".to_vec(),
            Self::UsernsPath(path) => {
                [b"userns path doesn't exist: ", path.as_os_str().as_bytes()].concat()
            }
            Self::TargetType => b"--target-type must be either \"netns\" or \"bess\"".to_vec(),
            Self::MacWithoutConfigure => {
                b"--macaddr cannot be specified when --configure or -c is not specified".to_vec()
            }
            Self::Without(option, needed) => {
                format!("{option} cannot be specified when {needed} is not specified").into_bytes()
            }
            Self::Pid => b"PID must be a positive integer".to_vec(),
            Self::NetnsPath(errno) => {
                format!("existing path expected when --netns-type=path: {}", errno.desc())
                    .into_bytes()
            }
            Self::TapFd => b"TAPFD must a file descriptor".to_vec(),
            Self::Conflict(option, other) => {
                format!("{option} conflicts with {other}").into_bytes()
            }
            Self::TooManyArguments => b"too many arguments".to_vec(),
            Self::Value(error) => error.to_string().into_bytes(),
        })
    }

    /// Whether a line feed follows the text. Two texts of slirp4netns have none.
    pub(crate) const fn ends_line(&self) -> bool {
        !matches!(self, Self::Value(ValueError::OutboundAddr | ValueError::OutboundAddr6))
    }

    /// Whether the usage follows on stdout.
    pub(crate) const fn shows_usage(&self) -> bool {
        !matches!(self, Self::Value(_))
    }
}

impl From<GrammarError> for ArgumentError {
    fn from(error: GrammarError) -> Self {
        Self::Grammar(error)
    }
}

impl From<ValueError> for ArgumentError {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}
