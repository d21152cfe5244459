//! The options, as data.
//!
//! Owns the one table that drives the parser, `--help` and all other code that needs the list of
//! options. The parent module decides what an option *does*;
//! [`getopt`](crate::dialect::getopt) cuts a command line into options.
//!
//! Callers detect our features by searching `--help` for an option's name, so an option is listed
//! only once it works. The left column is a contract; the descriptions are our own.
//!
//! Our own options come after slirp4netns's and give way to them. The order of an error about an
//! ambiguous prefix differs from the order of `--help`; both follow slirp4netns.

use crate::dialect::getopt::Origin::{Ours, Upstream};
use crate::dialect::getopt::{self, options};
use crate::words::Offers::{Files, Interfaces, Words};
use crate::words::values::{LEVELS, RATES, SETS};

options! {
    Configure: Upstream(0), [b'c'] "configure",
        "set the tap up: addresses, route, MTU, link up";
    ExitFd: Upstream(1), [b'e'] "exit-fd" = "FD",
        "exit when the other end of this descriptor is closed";
    ReadyFd: Upstream(2), [b'r'] "ready-fd" = "FD",
        "write \"1\" to this descriptor once the network is ready";
    Mtu: Upstream(3), [b'm'] "mtu" = "MTU" of Words(&["1500", "65520"]),
        "MTU of the tap (default=1500, max=65521)";
    EnableIpv6: Upstream(10), [b'6'] "enable-ipv6",
        "offer IPv6 as well (experimental)";
    ApiSocket: Upstream(9), [b'a'] "api-socket" = "PATH" of Files,
        "path of the socket that takes requests, such as port forwards";
    Cidr: Upstream(4), "cidr" = "CIDR",
        "network that the guest lives in (default=10.0.2.0/24)";
    DisableHostLoopback: Upstream(5), "disable-host-loopback",
        "keep the guest away from the host's 127.0.0.1:*";
    NoHostLoopback: Upstream(6), "no-host-loopback";
    NetnsType: Upstream(7), "netns-type" = "TYPE" of Words(&["pid", "path", "tapfd"]),
        "what the first argument is ([path|pid|tapfd], default=pid)";
    UsernsPath: Upstream(8), "userns-path" = "PATH" of Files,
        "user namespace to enter before the network namespace";
    EnableSandbox: Upstream(11), "enable-sandbox",
        "own read-only root, no capability but CAP_NET_BIND_SERVICE";
    CreateSandbox: Upstream(12), "create-sandbox";
    EnableSeccomp: Upstream(13), "enable-seccomp",
        "allow only the system calls that are needed (experimental)";
    OutboundAddr: Upstream(16), "outbound-addr" = "IPv4" of Interfaces,
        "address or interface that IPv4 leaves from (experimental)";
    OutboundAddr6: Upstream(17), "outbound-addr6" = "IPv6" of Interfaces,
        "address or interface that IPv6 leaves from (experimental)";
    DisableDns: Upstream(18), "disable-dns",
        "do not answer DNS queries at 10.0.2.3 (or .3 of the CIDR)";
    MacAddress: Upstream(19), "macaddress" = "MAC",
        "MAC address of the tap (only with -c)";
    TargetType: Upstream(20), "target-type" = "TYPE" of Words(&["netns", "bess", "stream"]),
        "what the guest is connected by ([netns|bess], default=netns)";
    Help: Upstream(14), [b'h'] "help",
        "print this text and exit";
    Version: Upstream(15), [b'v'] "version",
        "print the version and exit";
    Cidr6: Ours, "cidr6" = "PREFIX/64",
        "IPv6 network that the guest lives in (default=fd00::/64, needs -6)";
    Publish: Ours, "publish" = "SPEC",
        "[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT of the host lead to the guest";
    Dns: Ours, "dns" = "ADDR[:PORT]",
        "ask this resolver instead of /etc/resolv.conf (repeatable)";
    SearchDomain: Ours, "search-domain" = "DOMAIN",
        "tell the guest to look up short names there (repeatable)";
    LogLevel: Ours, "log-level" = "LEVEL" of Words(LEVELS),
        "log error, warn (default), info, debug or trace and above on stderr";
    Pcap: Ours, "pcap" = "FILE" of Files,
        "record the guest's frames in a file or FIFO, for Wireshark or tcpdump";
    ExitWithNetns: Ours, "exit-with-netns",
        "exit when the process PID has ended, or PATH is gone";
    BusyPoll: Ours, "busy-poll" = "USEC" of Words(&["0", "20"]),
        "poll for events this long before sleeping (default=20, max=1000, 0: never)";
    Allow: Ours, "allow" = "RULE" of Words(SETS),
        "let the guest go there, and nowhere else that no rule allows (repeatable)";
    Deny: Ours, "deny" = "RULE" of Words(SETS),
        "keep the guest away from there, whatever else is allowed (repeatable)";
    Ask: Ours, "ask" = "RULE" of Words(SETS),
        "have somebody decide whether the guest may go there (repeatable)";
    Policy: Ours, "policy" = "FILE" of Files,
        "read rules from a file (repeatable; $SLIRP_POLICY names one more)";
    PolicyMode: Ours, "policy-mode" = "MODE" of Words(&["enforce", "audit"]),
        "obey the rules or only tell of them ([enforce|audit], default=enforce)";
    AuditLog: Ours, "audit-log" = "FILE" of Files,
        "append what the rules decide to a file, or to a descriptor: fd:N";
    Audit: Ours, "audit" = "LEVEL" of Words(&["denied", "decisions", "all"]),
        "how much the log has ([denied|decisions|all], default=decisions)";
    AuditRequired: Ours, "audit-required",
        "refuse new connections and lookups while the log cannot be written";
    ControlSocket: Ours, "control-socket" = "PATH" of Files,
        "path of the socket for policy, questions, events and rates";
    ControlFd: Ours, "control-fd" = "FD",
        "the same for this descriptor alone, one end of a socket pair";
    RateIn: Ours, "rate-in" = "RATE" of Words(RATES),
        "let the guest receive this many bits a second: N[k|M|G][,burst=BYTES]";
    RateOut: Ours, "rate-out" = "RATE" of Words(RATES),
        "let the guest send this many bits a second: N[k|M|G][,burst=BYTES]";
    Metrics: Ours, "metrics" = "ADDRESS" of Words(&["unix:", "127.0.0.1:9100"]),
        "serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT";
    MetricsMembers: Ours, "metrics-members",
        "count the members of a shared network one by one";
}

/// The width of the left column of `--help`: descriptions start in the column after it.
const LEFT_COLUMN: usize = 25;

/// The lines of `--help` below its head, one for each listed option.
pub(crate) fn listing() -> String {
    getopt::listing(OPTIONS, LEFT_COLUMN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::getopt::by_long;

    #[test]
    fn every_option_has_its_own_names() {
        for (i, a) in OPTIONS.iter().enumerate() {
            for b in &OPTIONS[i + 1..] {
                assert_ne!(a.id, b.id);
                assert_ne!(a.long, b.long);
                assert!(a.short.is_none() || a.short != b.short, "{} {}", a.long, b.long);
            }
        }
    }

    #[test]
    fn options_of_slirp4netns_come_first_and_have_the_ranks_0_to_20() {
        let ours = OPTIONS.iter().position(|option| option.origin == Ours).unwrap();
        let mut ranks = Vec::new();
        for (at, option) in OPTIONS.iter().enumerate() {
            match option.origin {
                Upstream(rank) => {
                    assert!(at < ours, "{} stands among ours", option.long);
                    ranks.push(rank);
                }
                Ours => assert!(at >= ours && option.short.is_none(), "{}", option.long),
            }
        }
        ranks.sort_unstable();
        assert_eq!(ranks, (0..=20).collect::<Vec<_>>());
    }

    #[test]
    fn a_prefix_means_what_it_would_without_our_own_options() {
        for option in OPTIONS.iter().filter(|option| option.origin != Ours) {
            for end in 0..option.long.len() {
                let prefix = &option.long[..end];
                let known = || OPTIONS.iter().filter(|known| known.origin != Ours);
                let mut expected: Vec<_> = known().filter(|known| known.long == prefix).collect();
                if expected.is_empty() {
                    expected = known().filter(|known| known.long.starts_with(prefix)).collect();
                    expected.sort_by_key(|known| known.origin);
                }
                let expected: Vec<_> = expected.iter().map(|known| known.long).collect();
                let found = by_long(OPTIONS, prefix.as_bytes());
                let found: Vec<_> = found.iter().map(|found| found.long).collect();
                assert_eq!(found, expected, "--{prefix}");
            }
        }
    }

    #[test]
    fn our_own_options_have_the_names_and_prefixes_that_are_left() {
        let found = |name: &str| -> Vec<_> {
            by_long(OPTIONS, name.as_bytes()).iter().map(|option| option.long).collect()
        };
        for (name, long) in [
            ("cidr6", "cidr6"),
            ("cidr", "cidr"),
            ("cid", "cidr"),
            ("dns", "dns"),
            ("dn", "dns"),
            ("pu", "publish"),
            ("pc", "pcap"),
            ("exit-w", "exit-with-netns"),
            ("exit", "exit-fd"),
            ("s", "search-domain"),
            ("l", "log-level"),
            ("b", "busy-poll"),
            ("al", "allow"),
            ("as", "ask"),
            ("de", "deny"),
            ("audit", "audit"),
            ("audit-r", "audit-required"),
            ("rate-i", "rate-in"),
            ("metrics", "metrics"),
            ("metrics-m", "metrics-members"),
            ("r", "ready-fd"),
            ("outbound-addr", "outbound-addr"),
        ] {
            assert_eq!(found(name), [long], "--{name}");
        }
        assert_eq!(found("d"), ["disable-host-loopback", "disable-dns"]);
        assert_eq!(found("out"), ["outbound-addr", "outbound-addr6"]);
        assert!(found("cidr66").is_empty());
    }

    #[test]
    fn descriptions_start_in_column_26() {
        for line in listing().lines() {
            assert_eq!(line.as_bytes()[24], b' ', "{line}");
            assert_ne!(line.as_bytes()[25], b' ', "{line}");
        }
    }
}
