//! Detaching a container from its network.

use super::error::{Error, Kind};
use super::key::Key;
use super::stop::{stop, stop_unrecorded};
use super::store::Candidates;

/// Detaches a container, in whichever folder its record is. A container that is not attached is not
/// an error. When this returns, the interface and the host's ports are free.
///
/// # Errors
/// When its processes cannot be ended, or another process holds its lock.
pub(crate) fn detach(key: &Key, candidates: &Candidates) -> Result<(), Error> {
    let mut was_written_down = false;
    for store in candidates.existing() {
        let files = store.files(key);
        if !files.exist() {
            continue;
        }
        let lock = files.lock()?;
        if let Some(record) = files.record()
            && record.request.key != *key
        {
            continue;
        }
        was_written_down |= files.record().is_some();
        stop(&files)?;
        files.remove();
        lock.remove();
    }
    if !was_written_down {
        stop_unrecorded(&key.file_stem(), candidates.scope())?;
    }
    Ok(())
}

/// Detaches every container of `network` for which `is_wanted` says no. Attachments that another
/// process has locked are left alone.
///
/// # Errors
/// All failures in one, after everything was tried.
pub(crate) fn collect(
    candidates: &Candidates,
    network: &str,
    is_wanted: impl Fn(&super::record::Record) -> bool,
) -> Result<(), Error> {
    let mut failures = Vec::new();
    for store in candidates.existing() {
        for record in store.records() {
            if record.request.network != network || is_wanted(&record) {
                continue;
            }
            let files = store.files(&record.request.key);
            let outcome = match files.try_lock() {
                Ok(Some(lock)) => stop(&files).map(|()| {
                    files.remove();
                    lock.remove();
                }),
                Ok(None) => Ok(()),
                Err(error) => Err(Error::new(Kind::Failed, error.to_string())),
            };
            if let Err(error) = outcome {
                failures.push(format!("{}: {error}", record.request.key));
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Error::failed(failures.join("; "))) }
}
