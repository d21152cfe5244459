//! How the descriptors of the process are shared out.
//!
//! Every flow has a host socket, so a guest that opens flows takes descriptors. Whatever else needs
//! one must not depend on its mercy: clients of the API socket, ports that are opened later, the
//! embedding program's own files. So flows end where a reserve begins, as if the table of flows
//! were full there. DNS queries, which a guest makes as well, and clients of the API socket have
//! parts of the reserve, so that all caps together stay below the limit:
//!
//! | part of the reserve | for |
//! | --- | --- |
//! | a half | DNS queries, one socket each |
//! | an eighth of that | second sockets of DNS queries, while a resolver is silent |
//! | a quarter | clients of the API socket |
//! | the rest | what is open while nothing happens, forward rules, the embedding program |

use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that flows leave to everything else: twice as many as there are DNS
/// queries by default, and those of an idle process.
const RESERVE_CAP: usize = 1_048;
/// The same where there are few: a quarter of them, but no less than this (arbitrary), unless that
/// were more than half.
const RESERVE_MIN: usize = 48;
/// Descriptors of a process with an instance while nothing happens (some 20 were counted).
const IDLE: usize = 24;
/// DNS queries for each socket that all of them together may have besides one each (arbitrary).
pub(crate) const QUERIES_PER_SPARE_SOCKET: usize = 8;

/// What is allowed at most, each within its part of the process's descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Allotment {
    pub(crate) flows: usize,
    pub(crate) dns_queries: usize,
    pub(crate) api_clients: usize,
}

impl Allotment {
    /// As much of this as there are descriptors for. `limit` is that of the process.
    pub(crate) fn within(self, limit: Option<usize>) -> Self {
        let Some(limit) = limit else { return self };
        let reserve = reserve(limit);
        let spare = reserve.saturating_sub(IDLE);
        let dns_queries = self.dns_queries.min((spare / 2).max(1));
        let dns_sockets = dns_queries + dns_queries.div_ceil(QUERIES_PER_SPARE_SOCKET);
        let left = spare.saturating_sub(dns_sockets);
        let api_clients = self.api_clients.min((reserve / 4).min(left).max(1));
        Self { flows: self.flows.min(limit - reserve), dns_queries, api_clients }
    }
}

fn reserve(limit: usize) -> usize {
    (limit / 4).clamp(RESERVE_MIN, RESERVE_CAP).min(limit / 2)
}

/// How many descriptors flows and forwarded ports may have.
pub(crate) fn left_to_flows(limit: Option<usize>) -> usize {
    limit.map_or(usize::MAX, |limit| limit - reserve(limit))
}

/// How many descriptors what is joined past the link may have: a half of those that flows would
/// have.
/// `flows` is lowered to the other half.
pub(crate) fn take_for_bridges(limit: Option<usize>, flows: &mut usize) -> usize {
    let half = left_to_flows(limit) / 2;
    *flows = (*flows).min(half);
    half
}

/// The process's limit as it is now; `None` where there is none, or it cannot be told.
pub(crate) fn limit() -> Option<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    usize::try_from(soft).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Allotment = Allotment { flows: 65_536, dns_queries: 512, api_clients: 256 };

    #[test]
    fn flows_leave_descriptors_to_others() {
        for (limit, flows, dns_queries, api_clients) in [
            (Some(30), 15, 1, 1),
            (Some(64), 32, 4, 3),
            (Some(256), 192, 20, 16),
            (Some(1_024), 768, 116, 64),
            (Some(20_000), 18_952, 512, 256),
            (Some(usize::MAX), 65_536, 512, 256),
            (Some(0), 0, 1, 1),
            (None, 65_536, 512, 256),
        ] {
            let expected = Allotment { flows, dns_queries, api_clients };
            assert_eq!(WANTED.within(limit), expected, "{limit:?}");
        }
        let few = Allotment { flows: 100, dns_queries: 10, api_clients: 10 };
        assert_eq!(few.within(Some(1_024)), few);
    }

    #[test]
    fn bridges_and_flows_share_what_is_left_to_them() {
        for (limit, flows, bridges) in
            [(Some(1_024), 384, 384), (Some(20_000), 9_476, 9_476), (None, 65_536, usize::MAX / 2)]
        {
            let mut left = WANTED.within(limit).flows;
            assert_eq!(take_for_bridges(limit, &mut left), bridges, "{limit:?}");
            assert_eq!(left, flows, "{limit:?}");
        }
    }

    #[test]
    fn all_caps_together_fit_into_the_limit() {
        for limit in 64..10_000 {
            let Allotment { flows, dns_queries, api_clients } = WANTED.within(Some(limit));
            let dns = dns_queries + dns_queries.div_ceil(QUERIES_PER_SPARE_SOCKET);
            assert!(IDLE + flows + dns + api_clients <= limit, "{limit}");
        }
    }
}
