//! The summary that is printed on stdout before the network starts.
//!
//! Owns its lines, which people and scripts read. They match the table in slirp4netns's man page.

use std::net::IpAddr;

use slirp_core::MacAddr;
use slirp_core::egress::EgressPolicy;

use crate::options::Options;

/// The lines of the summary. `mac` is the TAP device's address if it is known, `egress` the policy
/// in force.
pub(crate) fn lines(
    options: &Options,
    mac: Option<MacAddr>,
    egress: Option<&EgressPolicy>,
) -> Vec<String> {
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
    let gateway = plan.gateway();
    let ipv6 = plan.ipv6().map(|ipv6| ipv6.gateway().into());
    let gateways: Vec<IpAddr> = [gateway.into()].into_iter().chain(ipv6).collect();
    match egress {
        _ if !options.policy.allow_host_loopback => {}
        None => lines.push(format!(
            "WARNING: 127.0.0.1:* on the host is accessible as {gateway} \
             (give --disable-host-loopback to forbid that)"
        )),
        Some(policy) if policy.opens_host_loopback(&gateways) => lines.push(format!(
            "WARNING: the loopback of the host (127.0.0.1 as {gateway}) is accessible \
             at the ports that the egress policy allows"
        )),
        Some(_) => {}
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
        assert_eq!(lines(&options, Some(mac), None).join("\n"), expected);
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
        assert_eq!(lines(&options, Some(MacAddr::default()), None)[9..13], expected);
    }

    #[test]
    fn the_filter_of_system_calls_is_said_what_it_does() {
        let options = Options { seccomp: true, ..Options::default() };
        assert!(lines(&options, None, None).last().unwrap().starts_with("seccomp: only "));
    }

    #[test]
    fn open_host_loopback_is_warned_about() {
        let lines = lines(&Options::default(), None, None);
        let start = "WARNING: 127.0.0.1:* on the host is accessible as 10.0.2.2 ";
        assert!(lines.last().unwrap().starts_with(start));
    }
    #[test]
    fn host_loopback_that_a_policy_closes_is_not_warned_about() {
        let mut options = Options { seccomp: false, ..Options::default() };
        let last = |options: &Options, text: &str| {
            let policy = EgressPolicy::parse(text, "policy").unwrap();
            lines(options, None, Some(&policy)).pop().unwrap()
        };
        for closed in ["", "allow any", "deny host-loopback"] {
            assert_eq!(last(&options, closed), "* Recommended IP:  10.0.2.100", "{closed}");
        }
        for open in ["allow host-loopback:11434", "allow 10.0.2.2:80"] {
            let warning = "WARNING: the loopback of the host (127.0.0.1 as 10.0.2.2) is \
                           accessible at the ports that the egress policy allows";
            assert_eq!(last(&options, open), warning);
        }
        options.policy.allow_host_loopback = false;
        assert_eq!(last(&options, "allow 10.0.2.2:80"), "* Recommended IP:  10.0.2.100");
    }
}
