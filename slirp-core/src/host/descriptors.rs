//! How many of the process's descriptors the flows of one instance may take.
//!
//! Every flow has a host socket, so a guest that opens flows takes descriptors. Whatever else needs
//! one must not depend on its mercy: clients of the API socket, DNS queries, ports that are opened
//! later, the embedding program's own files. So flows end where this reserve begins, as if the
//! table of flows were full there.

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that flows leave to everything else: as many as all DNS queries and API clients
/// together take by default, and as many again for other uses (arbitrary).
const RESERVE_CAP: usize = 1_024;
/// The same where there are few: a quarter of them, but no less than this (arbitrary; a process with
/// an instance has some 20 open while nothing happens), unless that were more than half.
const RESERVE_MIN: usize = 32;

/// Flows for which there are descriptors, at most `wanted`. `limit` is that of the process.
pub(crate) fn flows_within(limit: Option<usize>, wanted: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let reserve = (limit / 4).clamp(RESERVE_MIN, RESERVE_CAP).min(limit / 2);
    wanted.min(limit - reserve)
}

/// The process's limit as it is now; `None` where there is none, or it cannot be told.
pub(crate) fn limit() -> Option<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    usize::try_from(soft).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_leave_descriptors_to_others() {
        for (limit, flows) in [
            (Some(30), 15),
            (Some(64), 32),
            (Some(256), 192),
            (Some(1_024), 768),
            (Some(20_000), 18_976),
            (Some(524_288), 65_536),
            (Some(usize::MAX), 65_536),
            (Some(0), 0),
            (None, 65_536),
        ] {
            assert_eq!(flows_within(limit, 65_536), flows, "{limit:?}");
        }
        assert_eq!(flows_within(Some(1_024), 100), 100);
    }
}
