//! How the descriptors of what is joined past the link are shared out.
//!
//! Owns the parts. Bridges have what the others leave, so each port that opens takes from them, and
//! each that closes gives back:
//!
//! | part | for |
//! | --- | --- |
//! | an eighth, few | pipes of directions that move much |
//! | an eighth, few | connections on their way to the thread |
//! | few | sockets of the host that wait for their use |
//! | a quarter, or what all others leave | open ports of the namespace; scanned ones of the host |
//! | the rest | bridges |
//!
//! A port that is opened because something is in use is opened by a guest, or by programs of the
//! host, so such ports of either side have a half of the part of ports at most, and none where
//! bridges have the descriptors already. The ports that rules name are not refused here: bridges
//! keep a little beside them, however many they are.

use super::order::connections_within;
use super::pool;

/// Descriptors of bridges at most (arbitrary: as many as there are flows).
const BRIDGES_CAP: usize = 65_536;
/// Divisor: the part of open ports (arbitrary).
const PORTS_PART: usize = 4;
/// Divisor: what bridges keep beside ports that rules name (arbitrary).
const LEAST_PART: usize = 8;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    descriptors: usize,
    /// Those of everything but ports and bridges.
    others: usize,
    /// Those of ports of one side that nobody has named.
    side_cap: usize,
}

impl Account {
    /// Shares out so many descriptors, of which `pipes` are for pipes.
    pub(super) fn new(descriptors: usize, pipes: usize) -> Self {
        let others = pipes + pool::DESCRIPTORS_CAP + connections_within(descriptors);
        let spare = descriptors.saturating_sub(others + BRIDGES_CAP);
        let ports = (descriptors / PORTS_PART).max(spare);
        Self { descriptors, others, side_cap: ports / 2 }
    }

    /// How many descriptors bridges may have beside so many of ports.
    pub(super) fn bridges(&self, ports: usize) -> usize {
        let left = self.descriptors.saturating_sub(self.others + ports);
        left.max(self.descriptors / LEAST_PART).min(BRIDGES_CAP)
    }

    /// How many descriptors more a side may have for ports that nobody has named. It has `own`,
    /// both sides have `ports`, and the bridges that exist have `bridges`.
    pub(super) fn room(&self, own: usize, ports: usize, bridges: usize) -> usize {
        let free = self.descriptors.saturating_sub(self.others + ports + bridges);
        self.side_cap.saturating_sub(own).min(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::bridge::pipe::Pipes;

    fn account(descriptors: usize) -> Account {
        Account::new(descriptors, Pipes::within(descriptors).descriptors())
    }

    #[test]
    fn all_parts_together_fit_whatever_opens_first() {
        for descriptors in (256..5_000).chain([9_476, 100_000, usize::MAX / 2]) {
            let account = account(descriptors);
            let (mut inside, mut outside, mut bridges) = (0, 0, 0);
            // Bridges first, as many as may be, and then ports; and the other way round.
            for is_ports_first in [false, true] {
                for is_ports in [is_ports_first, !is_ports_first] {
                    if is_ports {
                        outside += account.room(outside, inside + outside, bridges);
                        inside += account.room(inside, inside + outside, bridges);
                    } else {
                        bridges = bridges.max(account.bridges(inside + outside));
                    }
                }
                let all = account.others + inside + outside + bridges;
                assert!(all <= descriptors, "{descriptors}: {all}");
                assert!(inside.max(outside) <= account.side_cap);
                (inside, outside, bridges) = (0, 0, 0);
            }
        }
    }

    #[test]
    fn ports_take_from_bridges_and_give_back() {
        let account = account(1_024);
        let [none, some, many] = [0, 100, 5_000].map(|ports| account.bridges(ports));
        assert_eq!((none - some, many), (100, 1_024 / LEAST_PART));
        assert_eq!(account.room(0, 0, 0), 1_024 / PORTS_PART / 2);
        assert_eq!(account.room(100, 100, 0), 28);
        assert_eq!(account.room(0, 0, none - 10), 10);
        assert_eq!(account.room(0, 0, none), 0);
    }

    #[test]
    fn every_port_fits_where_descriptors_are_plenty() {
        let account = account(523_764);
        assert_eq!(account.bridges(0), BRIDGES_CAP);
        assert!(account.side_cap > 2 * 65_535);
    }
}
