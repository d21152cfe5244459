//! How many of the host's UDP ports the flows of one instance may take.
//!
//! A UDP mapping of the guest holds one of the ports that the host's kernel hands out to sockets
//! which are not bound (`ip_local_port_range`, ip(7)). There are 28,232 by default for all programs
//! of a network namespace, and without one none of them can send a datagram, a DNS query included.
//! So an instance leaves the others half of them.

use std::fs::read_to_string;

/// The range for both families, in the network namespace of the thread that asks.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// An instance may take this part of the range (arbitrary).
const PART: usize = 2;

/// UDP mappings for which there are ports, at most `wanted`. The host hands out `ports` of them.
pub(crate) fn mappings_within(ports: Option<usize>, wanted: usize) -> usize {
    ports.map_or(wanted, |ports| wanted.min((ports / PART).max(1)))
}

/// How many ports the host hands out; `None` where that cannot be told.
pub(crate) fn handed_out() -> Option<usize> {
    count(&read_to_string(RANGE).ok()?)
}

/// The size of a range that is written as its first and its last port.
fn count(range: &str) -> Option<usize> {
    let mut ports = range.split_ascii_whitespace().map(str::parse::<usize>);
    let (Some(Ok(first)), Some(Ok(last)), None) = (ports.next(), ports.next(), ports.next()) else {
        return None;
    };
    (first <= last).then(|| last - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_leave_the_host_half_of_its_ports() {
        for (range, mappings) in [
            ("32768\t60999\n", 14_116),
            ("32768 40000", 3_616),
            ("1024\t65535\n", 20_000),
            ("40000 40000", 1),
            ("40001 40000", 20_000),
            ("1 2 3", 20_000),
            ("", 20_000),
        ] {
            assert_eq!(mappings_within(count(range), 20_000), mappings, "{range:?}");
        }
        assert!(handed_out().is_some_and(|ports| ports > 0));
    }
}
