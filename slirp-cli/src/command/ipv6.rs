//! Whether the host has IPv6.

use std::fs;

/// Whether an interface of the host other than the loopback has an IPv6 address that reaches beyond
/// its link.
pub(crate) fn host_has_ipv6() -> bool {
    has_global(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
}

/// The same of the text of `/proc/net/if_inet6`: address, index, length of the prefix, scope, flags
/// and name of the interface.
fn has_global(addresses: &str) -> bool {
    const GLOBAL: &str = "00";
    addresses.lines().any(|line| {
        let mut words = line.split_whitespace().skip(3);
        words.next() == Some(GLOBAL) && words.nth(1).is_some_and(|name| name != "lo")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_addresses_count() {
        const LO: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";
        const LINK: &str = "fe800000000000005054fffe000001 02 40 20 80     eth0\n";
        const GLOBAL: &str = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        const ON_LO: &str = "20010db8000000000000000000000001 01 80 00 80       lo\n";
        assert!(!has_global(""));
        assert!(!has_global(&[LO, LINK, ON_LO].concat()));
        assert!(has_global(&[LO, LINK, GLOBAL].concat()));
    }
}
