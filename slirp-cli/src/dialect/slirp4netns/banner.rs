//! The summary that is printed on stdout before the network starts.
//!
//! Owns its lines, which people and scripts read. They match the table in slirp4netns's man page.

use slirp_core::MacAddr;

use crate::options::Options;

/// The lines of the summary. `mac` is the TAP device's address if it is known.
pub(crate) fn lines(options: &Options, mac: Option<MacAddr>) -> Vec<String> {
    let plan = &options.plan;
    let row =
        |name: &str, value: &dyn std::fmt::Display| format!("{:<18} {value}", format!("* {name}:"));
    let mut lines = vec![
        "Starting slirp".to_owned(),
        row("MTU", &options.mtu),
        row("Network", &plan.network()),
        row("Netmask", &plan.netmask()),
        row("Gateway", &plan.gateway()),
        row("DNS", &plan.dns()),
        row("DHCP begin", &plan.dhcp_begin()),
        row("DHCP end", &plan.dhcp_end()),
        row("Recommended IP", &plan.recommended_guest()),
    ];
    lines.extend(options.api_socket.iter().map(|path| row("API Socket", &path.display())));
    // One column further right than the others, as readers know it.
    let outbound = |version: &str, address: &dyn std::fmt::Display| {
        format!("* Outbound IPv{version}:    {address}")
    };
    lines.extend(options.outbound.ipv4.map(|address| outbound("4", &address)));
    lines.extend(options.outbound.ipv6.map(|address| outbound("6", &address)));
    lines.extend(mac.map(|mac| row("MAC address", &mac)));
    if options.policy.allow_host_loopback {
        lines.push(format!(
            "WARNING: 127.0.0.1:* on the host is accessible as {} \
             (give --disable-host-loopback to forbid that)",
            plan.gateway()
        ));
    }
    if options.seccomp {
        lines.push(
            "seccomp: only the system calls that the network needs are allowed, any other kills \
             the process (execve, ptrace, mount, setns, unshare, bpf, ...)"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_columns_that_readers_know() {
        let mut options = Options::default();
        options.policy.allow_host_loopback = false;
        let mac = MacAddr([0x0e, 0xd4, 0x18, 0xd9, 0x38, 0xfb]);
        let expected = "\
Starting slirp
* MTU:             1500
* Network:         10.0.2.0
* Netmask:         255.255.255.0
* Gateway:         10.0.2.2
* DNS:             10.0.2.3
* DHCP begin:      10.0.2.15
* DHCP end:        10.0.2.30
* Recommended IP:  10.0.2.100
* MAC address:     0e:d4:18:d9:38:fb";
        assert_eq!(lines(&options, Some(mac)).join("\n"), expected);
    }

    #[test]
    fn outbound_addresses_stand_between_the_socket_and_the_mac_address() {
        let mut options = Options { api_socket: Some("/tmp/s".into()), ..Options::default() };
        options.outbound.ipv4 = Some("192.0.2.1".parse().unwrap());
        options.outbound.ipv6 = Some("2001:db8::1".parse().unwrap());
        let expected = [
            "* API Socket:      /tmp/s",
            "* Outbound IPv4:    192.0.2.1",
            "* Outbound IPv6:    2001:db8::1",
            "* MAC address:     00:00:00:00:00:00",
        ];
        assert_eq!(lines(&options, Some(MacAddr::default()))[9..13], expected);
    }

    #[test]
    fn the_filter_of_system_calls_is_said_what_it_does() {
        let options = Options { seccomp: true, ..Options::default() };
        assert!(lines(&options, None).last().unwrap().starts_with("seccomp: only "));
    }

    #[test]
    fn open_host_loopback_is_warned_about() {
        let lines = lines(&Options::default(), None);
        let start = "WARNING: 127.0.0.1:* on the host is accessible as 10.0.2.2 ";
        assert!(lines.last().unwrap().starts_with(start));
    }
}
