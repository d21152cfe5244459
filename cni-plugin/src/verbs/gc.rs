//! `GC`: detaches containers that a runtime does not know any more.

use crate::attachment::detach::collect;
use crate::attachment::store::Candidates;
use crate::config::Header;
use crate::protocol::error::CniError;

/// Detaches all containers of this network except the ones that the configuration lists. Without a
/// list, it detaches containers whose processes have ended.
///
/// # Errors
/// All failures in one, after everything was tried.
pub(super) fn gc(header: &Header) -> Result<(), CniError> {
    let valid = header.valid_attachments()?;
    let candidates = Candidates::new(header.state_dir.as_deref());
    let collected = collect(&candidates, &header.name, |record| match &valid {
        Some(valid) => valid.contains(&record.request.key),
        None => record.is_alive(),
    });
    Ok(collected?)
}
