//! Log lines on stderr.

use std::env;
use std::io::{self, IsTerminal as _};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::console::Log;

/// The environment variable that chooses what is logged, such as `debug` or `slirp_core=trace`.
pub(crate) const LOG_VARIABLE: &str = "SLIRP_LOG";

/// Sends log lines to stderr. The command line's `level` decides what is logged, else the
/// environment, else warnings are logged.
pub(crate) fn start(level: Option<LevelFilter>) {
    let wanted = if level.is_none() { env::var(LOG_VARIABLE).ok() } else { None };
    let default = Targets::new().with_default(level.unwrap_or(LevelFilter::WARN));
    let (filter, error) = match wanted.as_deref().map(str::parse::<Targets>) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (default, Some(error)),
        None => (default, None),
    };
    let lines =
        tracing_subscriber::fmt::layer().with_writer(|| Log).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Some(error) = error {
        tracing::warn!(%error, "{LOG_VARIABLE} is not understood");
    }
}
