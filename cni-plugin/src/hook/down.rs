//! Detaching a container.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use slirp_core::netns::NamespaceId;

use super::options::{Arguments, Direction};
use super::state::{Bundle, State};
use super::{Failure, NETWORK};
use crate::attachment::detach::detach;
use crate::attachment::record::Record;
use crate::attachment::store::Candidates;

/// How long the container's process may take to end (arbitrary; it has been killed).
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is checked (arbitrary).
const END_PAUSE: Duration = Duration::from_millis(5);

/// Detaches every interface that hooks gave to the container. Finding none is not an error.
///
/// Two containers of one user may share an id, with different runtimes or root folders. If the
/// second one fails to start because of that, its runtime calls this hook as well. So an attachment
/// whose container still lives is left alone, unless the word `down` was given.
pub(super) fn down(
    state: &State,
    arguments: &Arguments,
    candidates: &Candidates,
) -> Result<(), Failure> {
    let bundle = state.bundle.as_deref().map(Bundle::read).unwrap_or_default();
    // A joined namespace lives on, so it does not tell whether the container does.
    let is_certain = arguments.direction == Some(Direction::Down) || bundle.joined.is_some();
    let is_ours = |record: &Record| {
        record.request.network == NETWORK && record.request.key.container_id == state.id
    };
    let records: Vec<Record> =
        candidates.existing().flat_map(|store| store.records()).filter(is_ours).collect();
    let mut failures = Vec::new();
    for record in records {
        if !is_certain && is_in_use(&record) {
            continue;
        }
        if let Err(error) = detach(&record.request.key, candidates) {
            failures.push(format!("{}: {error}", record.request.key));
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure(failures.join("; "))) }
}

/// Whether the process for which the network was made still exists after a while.
fn is_in_use(record: &Record) -> bool {
    let request = &record.request;
    let is_there = || match NamespaceId::of_path(&request.netns) {
        Ok(found) => Some(found) == request.netns_id,
        // There is a process that its runtime hides until it runs the container's program.
        Err(error) => request.netns_id.is_some() && error.kind() == io::ErrorKind::PermissionDenied,
    };
    let started_at = Instant::now();
    while is_there() {
        if started_at.elapsed() > END_TIMEOUT {
            return true;
        }
        thread::sleep(END_PAUSE);
    }
    false
}
