//! Log lines of the long-lived processes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::unistd::dup2_stderr;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::attachment::error::Error;

/// Sends log lines and panics of this process and its children to the end of `file`.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn start(file: Option<&Path>) -> Result<(), Error> {
    let Some(path) = file else { return Ok(()) };
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A FIFO without a reader stops neither the attachment nor its traffic.
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path);
    let shown = |error: io::Error| Error::failed(format!("logFile {}: {error}", path.display()));
    dup2_stderr(opened.map_err(shown)?).map_err(|errno| shown(errno.into()))?;
    to_stderr();
    Ok(())
}

/// Sends log lines to standard error.
pub(super) fn to_stderr() {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    // A second subscriber is refused, which leaves the first one at work.
    let _ = tracing_subscriber::registry().with(LevelFilter::INFO).with(lines).try_init();
}
