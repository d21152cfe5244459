//! `slirp run`, as data.

use super::Offers::{Command, Files, Interfaces, Processes, Words};
use super::values::{LEVELS, RATES, SETS};
use super::{Flag, Group, Word};

/// `slirp run`
pub(crate) const RUN: Word = Word {
    name: "run",
    about: "run a command on a network of its own",
    usage: &["[OPTION]... [--] [COMMAND [ARG]...]"],
    text: "Runs COMMAND (default: $SHELL) on a network of its own, which ends with it.\n",
    groups: &[
        Group {
            heading: "Ports, names and addresses",
            flags: &[
                Flag::value(
                    "publish",
                    "SPEC",
                    "[PROTO:][ADDR:]PORT[-PORT]:PORT, of the host to it",
                )
                .repeatable()
                .or('p'),
                Flag::switch("host-loopback", "let it reach the host's own 127.0.0.1, at 10.0.2.2"),
                Flag::switch("no-ipv6", "IPv4 alone (default: IPv6 too if the host has it)").rare(),
                Flag::switch("ipv6", "IPv6 too, whatever the host has").rare(),
                Flag::value("dns", "ADDR[:PORT]", "ask this resolver instead of the host's")
                    .repeatable(),
                Flag::switch(
                    "no-dns",
                    "answer no DNS queries, and leave /etc/resolv.conf as it is",
                )
                .rare(),
                Flag::value(
                    "search-domain",
                    "DOMAIN",
                    "look up short names there instead of in the host's domains",
                )
                .repeatable()
                .rare(),
                Flag::value("mtu", "MTU", "MTU of its interface (default=65520)")
                    .offers(Words(&["1500", "65520"]))
                    .rare(),
                Flag::value("cidr", "CIDR", "its IPv4 network (default=10.0.2.0/24)").rare(),
                Flag::value("cidr6", "PREFIX/64", "its IPv6 network (default=fd00::/64)").rare(),
                Flag::value(
                    "outbound-addr",
                    "IPv4",
                    "address or interface of the host that IPv4 leaves from",
                )
                .offers(Interfaces)
                .rare(),
                Flag::value(
                    "outbound-addr6",
                    "IPv6",
                    "address or interface of the host that IPv6 leaves from",
                )
                .offers(Interfaces)
                .rare(),
                Flag::value(
                    "rate-in",
                    "RATE",
                    "let it receive this many bits a second: N[k|M|G][,burst=BYTES]",
                )
                .offers(Words(RATES))
                .rare(),
                Flag::value(
                    "rate-out",
                    "RATE",
                    "let it send this many bits a second: N[k|M|G][,burst=BYTES]",
                )
                .offers(Words(RATES))
                .rare(),
            ],
        },
        Group {
            heading: "Where it may go",
            flags: &[
                Flag::value("allow", "RULE", "there, and nowhere else that no rule allows")
                    .repeatable()
                    .offers(Words(SETS)),
                Flag::value("deny", "RULE", "not there, whatever else is allowed")
                    .repeatable()
                    .offers(Words(SETS)),
                Flag::value("ask", "RULE", "have somebody decide, by the control socket")
                    .repeatable()
                    .offers(Words(SETS))
                    .rare(),
                Flag::value("policy", "FILE", "rules from a file").repeatable().offers(Files),
                Flag::value(
                    "policy-mode",
                    "MODE",
                    "obey the rules or only tell of them ([enforce|audit], default=enforce)",
                )
                .offers(Words(&["enforce", "audit"]))
                .rare(),
                Flag::value(
                    "control-socket",
                    "PATH",
                    "path of the socket for policy, questions, events and rates",
                )
                .offers(Files)
                .rare(),
            ],
        },
        Group {
            heading: "What can be seen",
            flags: &[
                Flag::value("pcap", "FILE", "record its packets, for Wireshark or tcpdump")
                    .offers(Files),
                Flag::value(
                    "audit-log",
                    "FILE",
                    "append what the rules decide, to a file or to fd:N",
                )
                .offers(Files),
                Flag::value(
                    "audit",
                    "LEVEL",
                    "how much that log has ([denied|decisions|all], default=decisions)",
                )
                .offers(Words(&["denied", "decisions", "all"]))
                .rare(),
                Flag::switch(
                    "audit-required",
                    "refuse new connections and lookups while that log cannot be written",
                )
                .rare(),
                Flag::value(
                    "metrics",
                    "ADDRESS",
                    "serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT",
                )
                .offers(Words(&["unix:", "127.0.0.1:9100"]))
                .rare(),
                Flag::value(
                    "log-level",
                    "LEVEL",
                    "what it logs: error, warn (default), info, debug, ...",
                )
                .offers(Words(LEVELS))
                .rare(),
            ],
        },
        Group {
            heading: "Where it runs",
            flags: &[
                Flag::switch("map-root", "be root inside (default: the same user)"),
                Flag::value("net-of", "PID|PATH", "in this network namespace instead of a new one")
                    .offers(Processes),
                Flag::switch(
                    "no-sandbox",
                    "leave the host's files and rights to the process that carries packets",
                )
                .rare(),
                Flag::switch("no-seccomp", "allow that process all system calls").rare(),
            ],
        },
    ],
    notes: "",
    subwords: &[],
    operands: Command,
    ends_at_operand: true,
};
