//! Messages of a hook, and where they go.
//!
//! Failures go to standard error, which runc shows and crun throws away, and to a file: the
//! requested one, or else `oci-hook.log` beside the attachments.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::getpid;

use super::Failure;
use crate::attachment::key::Key;
use crate::attachment::ports;
use crate::attachment::request::Request;
use crate::attachment::store::Candidates;

/// The file's name in the folder of attachments.
const FILE_NAME: &str = "oci-hook.log";
/// Length in bytes at which the file is started anew (arbitrary: some thousand failures).
const LEN_CAP: u64 = 256 * 1024;

/// Reports why the hook failed.
pub(super) fn complain(
    candidates: &Candidates,
    chosen: Option<&Path>,
    id: &str,
    failure: &Failure,
) {
    let whom = if id.is_empty() { String::new() } else { format!("{id}: ") };
    // An id is the caller's text; a line stays one line.
    let line: String = format!("slirp oci-hook: {whom}{failure}")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    say(&format!("{line}\n"));
    let Some(path) = chosen.map(Path::to_owned).or_else(|| usual(candidates)) else { return };
    // There is no place left to report that this fails, too.
    let _ = append(&path, &format!("{} {line}\n", seconds()));
}

/// Logs that a network works, if a log file was requested.
pub(super) fn note(request: &Request) {
    let Some(path) = &request.log_file else { return };
    let shown: Vec<String> = request.ports.iter().map(ports::shown).collect();
    let line = format!("{} slirp oci-hook: {}: up {}\n", seconds(), request.key, shown.join(","));
    // The network works even if this line cannot be written.
    let _ = append(path, line.as_str());
}

/// Writes a text to standard error.
fn say(text: &str) {
    // If it is not read, that cannot be reported either.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn usual(candidates: &Candidates) -> Option<PathBuf> {
    let store = candidates.create().ok()?;
    let nobody = Key { container_id: String::new(), ifname: String::new() };
    Some(store.files(&nobody).folder().join(FILE_NAME))
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let is_full = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > LEN_CAP);
    OpenOptions::new()
        .append(!is_full)
        .write(true)
        .truncate(is_full)
        .create(true)
        .mode(0o600)
        // A FIFO without a reader does not stop the hook.
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)?
        .write_all(line.as_bytes())
}

/// The start of a log line: seconds since the epoch, and the program's name.
fn seconds() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{} [{}]", now.unwrap_or_default().as_secs(), getpid())
}
