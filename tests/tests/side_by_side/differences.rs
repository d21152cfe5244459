//! The one table of differences that are meant.
//!
//! Each row says in words what is in the manual page (see [`crate::manual`]), and holds the
//! observations that prove it. What is older than our model's current release says so.

use slirp_tests::Difference;

/// The first half of every observation's name.
pub(crate) const THEMES: &[&str] = &[
    "tcp",
    "tcp ends",
    "tcp data",
    "loopback",
    "udp",
    "udp data",
    "udp loopback",
    "ping",
    "ping socket",
    "ping refused",
    "dns",
    "resolver",
    "dns disabled",
    "forwarded tcp",
    "forwarded refusal",
    "forwarded udp",
    "link",
    "link options",
    "dhcp",
    "dhcp without dns",
    "ipv6",
    "api",
    "api clients",
    "api crash",
    "api file",
    "output",
    "stdout",
    "refused",
    "start",
    "help",
    "end",
    "device",
    "peer",
    "nested",
];

/// A row of the manual's table.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it is about.
    pub(crate) topic: &'static str,
    /// What Debian's slirp4netns does.
    pub(crate) theirs: &'static str,
    /// What ours does, and why where that is not plain.
    pub(crate) ours: &'static str,
    /// What of it is seen.
    pub(crate) seen: &'static [Difference],
}

const fn seen(at: &'static str, theirs: &'static str, ours: &'static str) -> Difference {
    Difference { at, theirs, ours }
}

/// Every difference that is declared.
pub(crate) fn declared() -> Vec<Difference> {
    ROWS.iter().flat_map(|row| row.seen).copied().collect()
}

/// The five rules that the script has added, in the order of their ids.
macro_rules! entries {
    () => {
        concat!(
            "[{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,",
            "\"guest_addr\":\"10.0.2.100\",\"guest_port\":80},",
            "{\"id\":2,\"proto\":\"udp\",\"host_addr\":\"127.0.0.1\",\"host_port\":8080,",
            "\"guest_addr\":\"10.0.2.15\",\"guest_port\":53},",
            "{\"id\":3,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8081,",
            "\"guest_addr\":\"10.0.2.100\",\"guest_port\":80},",
            "{\"id\":4,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8082,",
            "\"guest_addr\":\"10.0.2.100\",\"guest_port\":80},",
            "{\"id\":5,\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8083,",
            "\"guest_addr\":\"10.0.2.100\",\"guest_port\":80}]",
        )
    };
}

const LIST_THEIRS: &str = concat!("{\"entries\":", entries!(), "}");
const LIST_OURS: &str =
    concat!("{\"return\":{\"entries\":", entries!(), "},\"entries\":", entries!(), "}");

/// The rows, in the order of the manual.
pub(crate) const ROWS: &[Row] = &[
    Row {
        topic: "TCP connect that fails late: a host, router or firewall reports that there is no way, or a neighbour is silent",
        theirs: "waits for its own timeout",
        ours: "fails as the host's connect(2) did: EHOSTUNREACH, ENETUNREACH or ECONNREFUSED",
        seen: &[
            seen(
                "tcp: connect to a host that a router knows to be unreachable",
                "nothing",
                "EHOSTUNREACH",
            ),
            seen("tcp: connect to a host that a router forbids", "nothing", "EHOSTUNREACH"),
            seen(
                "tcp: connect to a port that a firewall calls unreachable",
                "nothing",
                "ECONNREFUSED",
            ),
            seen("tcp: connect to a port that a firewall forbids", "nothing", "EHOSTUNREACH"),
            seen("tcp: connect to a silent neighbour of the host", "nothing", "EHOSTUNREACH"),
            seen("ipv6: connect, a router says unreachable", "nothing", "ENETUNREACH"),
        ],
    },
    Row {
        topic: "Connection that the guest resets",
        theirs: "ends in order for its peer",
        ours: "is reset for its peer, too (RFC 9293)",
        seen: &[
            seen("tcp ends: remote, guest resets: then", "end", "ECONNRESET"),
            seen("tcp ends: remote, guest closes with data unread", "end", "ECONNRESET"),
            seen("forwarded tcp: client, guest resets: then", "end", "ECONNRESET"),
        ],
    },
    Row {
        topic: "TCP window scaling",
        theirs: "none",
        ours: "agreed on, for windows beyond 64 KiB (RFC 7323)",
        seen: &[seen("tcp data: TCP option wscale", "none", "agreed on")],
    },
    Row {
        topic: "Urgent data of the guest",
        theirs: "stays urgent, outside of the stream",
        ours: "arrives in its place (RFC 6093 advises against using it)",
        seen: &[seen("tcp data: remote reads without the guest's urgent byte", "data", "!data")],
    },
    Row {
        topic: "Addresses 127.0.0.0/8 as the guest's destination with --disable-host-loopback",
        theirs: "lead to the host's loopback",
        ours: "are unreachable: whatever names the host's loopback is closed",
        seen: &[
            seen("loopback: disabled, connect to the 127.0.0.1", "connected", "ENETUNREACH"),
            seen("loopback: disabled, connect to the 127.1.2.3", "ECONNREFUSED", "ENETUNREACH"),
            seen("udp loopback: disabled, send to the 127.0.0.1", "nothing", "ENETUNREACH"),
            seen("udp loopback: disabled, arrived for the 127.0.0.1", "anybody?", "nothing"),
        ],
    },
    Row {
        topic: "UDP to a closed port of the host's loopback",
        theirs: "silence: the ICMP error comes from 127.0.0.1, which the guest's kernel drops",
        ours: "port unreachable, from the gateway",
        seen: &[
            seen("udp: send to a closed port of the host's loopback", "nothing", "ECONNREFUSED"),
            seen("ipv6: send to a closed port of the host's loopback", "nothing", "ECONNREFUSED"),
        ],
    },
    Row {
        topic: "UDP to what the host's routes call unreachable",
        theirs: "network unreachable",
        ours: "host unreachable, as the host's kernel says",
        seen: &[seen(
            "udp: send to a host unreachable by the host's routes",
            "ENETUNREACH",
            "EHOSTUNREACH",
        )],
    },
    Row {
        topic: "TTL of echo replies of remotes",
        theirs: "always 255",
        ours: "the one that they arrived with",
        seen: &[
            seen(
                "ping: ping remote",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
            seen(
                "ping: ping remote, in fragments",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
            seen(
                "ping: ping host",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
            seen(
                "ping socket: ping remote",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
            seen(
                "ping socket: ping remote, in fragments",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
            seen(
                "ping socket: ping host",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, 0% packet loss",
            ),
        ],
    },
    Row {
        topic: "ICMP error about an echo request",
        theirs: "silence, or an echo reply that the remote never sent",
        ours: "the error, from the router that reports it",
        seen: &[
            seen(
                "ping: ping host that a router knows to be unreachable",
                "64 bytes from 203.0.113.77: icmp_seq=0 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "From 198.51.100.2 icmp_seq=1 Destination Host Unreachable; 1 packets transmitted, 0 received, +1 errors, 100% packet loss",
            ),
            seen(
                "ping socket: ping host that a router knows to be unreachable",
                "1 packets transmitted, 0 received, 100% packet loss",
                "From 198.51.100.2 icmp_seq=1 Destination Host Unreachable; 1 packets transmitted, 0 received, +1 errors, 100% packet loss",
            ),
        ],
    },
    Row {
        topic: "TTL of echo requests",
        theirs: "not passed on",
        ours: "passed on, one less: traceroute(8) with ICMP works",
        seen: &[
            seen(
                "ping: ping remote, TTL 1",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "From 10.0.2.2 icmp_seq=1 Time to live exceeded; 1 packets transmitted, 0 received, +1 errors, 100% packet loss",
            ),
            seen(
                "ping socket: ping remote, TTL 1",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 received, 0% packet loss",
                "From 10.0.2.2 icmp_seq=1 Time to live exceeded; 1 packets transmitted, 0 received, +1 errors, 100% packet loss",
            ),
        ],
    },
    Row {
        topic: "Echo request to a remote where the host lets the process have no ping socket",
        theirs: "is sent as UDP to port 7 instead",
        ours: "is not answered; a warning on stderr names the sysctl",
        seen: &[seen(
            "ping refused: ping remote",
            "From 203.0.113.10 icmp_seq=1 Destination Port Unreachable; 1 packets transmitted, 0 received, +1 errors, 100% packet loss",
            "1 packets transmitted, 0 received, 100% packet loss",
        )],
    },
    Row {
        topic: "Echo request to an IPv6 remote",
        theirs: "is not passed on (since libslirp 4.8 it is)",
        ours: "is passed on",
        seen: &[seen("ipv6: ping remote", "false", "true")],
    },
    Row {
        topic: "Resolver of the host that refuses or is not there",
        theirs: "silence, or a refused connection",
        ours: "SERVFAIL, at once where the resolver refuses",
        seen: &[
            seen("resolver: refusing", "timed out", "SERVFAIL"),
            seen("resolver: refusing, TCP", "connection refused", "SERVFAIL"),
        ],
    },
    Row {
        topic: "Second and further nameserver lines of resolv.conf(5)",
        theirs: "never asked",
        ours: "asked when those before them fail",
        seen: &[
            seen("resolver: refusing first, working second", "timed out", "NOERROR 203.0.113.10"),
            seen(
                "resolver: refusing first, working second, TCP",
                "connection refused",
                "NOERROR 203.0.113.10",
            ),
        ],
    },
    Row {
        topic: "resolv.conf(5) without a nameserver",
        theirs: "no answer (since libslirp 4.8 as here)",
        ours: "the host's loopback is asked, as that page has it",
        seen: &[
            seen("resolver: none named", "timed out", "NOERROR 203.0.113.10"),
            seen("resolver: none named, TCP", "connection refused", "NOERROR 203.0.113.10"),
        ],
    },
    Row {
        topic: "Client of a forwarded port that is closed in the guest",
        theirs: "sees an orderly end",
        ours: "is reset",
        seen: &[seen("forwarded refusal: closed port of the guest", "end", "ECONNRESET")],
    },
    Row {
        topic: "Source of a forwarded UDP service's answers",
        theirs: "the host's main address",
        ours: "the address that the client used",
        seen: &[seen(
            "forwarded udp: client of the remote of the host's second address: answer",
            "from 198.51.100.1",
            "from 198.51.100.77",
        )],
    },
    Row {
        topic: "Clients on the host's loopback of a forwarded UDP port, with --disable-host-loopback",
        theirs: "are cut off",
        ours: "are served, and appear as the gateway",
        seen: &[
            seen("forwarded udp: client of the host's loopback: address", "none", "10.0.2.2"),
            seen("forwarded udp: client of the host's loopback: its own port", "none", "true"),
            seen("forwarded udp: client of the host's loopback: answer", "none", "from 127.0.0.1"),
        ],
    },
    Row {
        topic: "Flag MULTICAST of the device with --configure",
        theirs: "is cleared",
        ours: "is kept, so that multicast and mDNS can be sent",
        seen: &[seen(
            "link: flags",
            "<BROADCAST,UP,LOWER_UP>",
            "<BROADCAST,MULTICAST,UP,LOWER_UP>",
        )],
    },
    Row {
        topic: "DHCP options MTU, broadcast address and search domains",
        theirs: "never sent",
        ours: "sent to a client that asks for them (RFC 2132, RFC 3397)",
        seen: &[
            seen("dhcp: lease broadcast", "none", "10.0.2.255"),
            seen("dhcp without dns: lease broadcast", "none", "10.0.2.255"),
            seen("dhcp: lease with all asked for broadcast", "none", "10.0.2.255"),
            seen("dhcp: lease with all asked for mtu", "none", "1500"),
        ],
    },
    Row {
        topic: "DHCP client that asks for another address than its own",
        theirs: "holds both, and is offered the first again",
        ours: "moves, and is offered what it holds",
        seen: &[
            seen("dhcp: asked for .31", "10.0.2.15", "10.0.2.30"),
            seen("dhcp: another network", "10.0.2.15", "10.0.2.30"),
            seen("dhcp: another client", "10.0.2.16", "10.0.2.15"),
        ],
    },
    Row {
        topic: "DHCP option for the nameserver with --disable-dns",
        theirs: "names the address where nobody answers then",
        ours: "is left out",
        seen: &[seen("dhcp without dns: lease dns", "10.0.2.3", "none")],
    },
    Row {
        topic: "TFTP request to write",
        theirs: "silence",
        ours: "error 2, access violation, as for one to read",
        seen: &[seen("dhcp: tftp -p", "tftp: timeout", "tftp: server error: (2) Access violation")],
    },
    Row {
        topic: "Router advertisement",
        theirs: "without MTU; DNS address for 1200000 seconds",
        ours: "with MTU; DNS address for as long as the router lives, 1800 seconds (RFC 8106)",
        seen: &[
            seen("ipv6: RA mtu", "none", "000000000578"),
            seen(
                "ipv6: RA rdnss",
                "000000124f80fd000000000000000000000000000003",
                "000000000708fd000000000000000000000000000003",
            ),
        ],
    },
    Row {
        topic: "DHCPv6 reply",
        theirs: "from fd00::2, without a server identifier",
        ours: "from fe80::2, with one (RFC 8415)",
        seen: &[
            seen("ipv6: DHCPv6 source", "fd00::2", "fe80::2"),
            seen("ipv6: DHCPv6 options", "[1, 23]", "[1, 2, 23]"),
        ],
    },
    Row {
        topic: "API: list_hostfwd",
        theirs: "has its entries where its manual does not say",
        ours: "has them there and where the manual says",
        seen: &[
            seen(
                "api: list of nothing",
                "{\"entries\":[]}",
                "{\"return\":{\"entries\":[]},\"entries\":[]}",
            ),
            seen("api: list", LIST_THEIRS, LIST_OURS),
        ],
    },
    Row {
        topic: "API: IPv6",
        theirs: "tcp6 and udp6 are refused",
        ours: "they are forwarded",
        seen: &[seen(
            "ipv6: API tcp6",
            "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.proto\"}}",
            "{\"return\":{\"id\":1}}",
        )],
    },
    Row {
        topic: "API: ports beyond 65535",
        theirs: "wrap around",
        ours: "are refused",
        seen: &[
            seen(
                "api: host port beyond the range",
                "{\"return\":{\"id\":7}}",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.host_port\"}}",
            ),
            seen(
                "api: guest port beyond the range",
                "{\"return\":{\"id\":8}}",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.guest_port\"}}",
            ),
        ],
    },
    Row {
        topic: "API: request without a protocol",
        theirs: "crashes the process",
        ours: "is refused",
        seen: &[
            seen(
                "api crash: no protocol",
                "",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.proto\"}}",
            ),
            seen("api crash: alive", "false", "true"),
        ],
    },
    Row {
        topic: "API: JSON object that has a key twice",
        theirs: "is no JSON",
        ours: "counts with the last of them (RFC 8259 leaves it open)",
        seen: &[seen(
            "api: execute twice",
            "{\"error\":{\"desc\":\"bad request: cannot parse JSON\"}}",
            "{\"error\":{\"desc\":\"bad request: unknown execute\"}}",
        )],
    },
    Row {
        topic: "API: client that connects and says nothing",
        theirs: "stops the network until it leaves",
        ours: "holds nobody up",
        seen: &[seen("api clients: the network lives while a client is silent", "false", "true")],
    },
    Row {
        topic: "API: file of the socket after SIGTERM, SIGINT and SIGHUP",
        theirs: "stays behind",
        ours: "is removed",
        seen: &[seen("api file: still there after SIGTERM", "true", "false")],
    },
    Row {
        topic: "Output on stdout that is no terminal",
        theirs: "appears when the process ends, warnings about options twice",
        ours: "appears at once, and once",
        seen: &[
            seen("stdout: lines of the summary while it runs", "0", "9"),
            seen(
                "output: ipv6: stdout WARNING: Support",
                "WARNING: Support for IPv6 is experimental\nWARNING: Support for IPv6 is experimental",
                "WARNING: Support for IPv6 is experimental",
            ),
            seen(
                "output: sandbox: stdout WARNING: Support",
                "WARNING: Support for seccomp is experimental\nWARNING: Support for seccomp is experimental",
                "WARNING: Support for seccomp is experimental",
            ),
        ],
    },
    Row {
        topic: "MAC address in the summary",
        theirs: "shown with --macaddress only",
        ours: "always shown",
        seen: &[
            seen("output: plain: summary", "without MAC address", "with MAC address"),
            seen("output: no loopback: summary", "without MAC address", "with MAC address"),
            seen("output: network: summary", "without MAC address", "with MAC address"),
            seen("output: ipv6: summary", "without MAC address", "with MAC address"),
            seen("output: deprecated: summary", "without MAC address", "with MAC address"),
            seen("output: sandbox: summary", "without MAC address", "with MAC address"),
        ],
    },
    Row {
        topic: "Errors at the start",
        theirs: "the failed call",
        ours: "the failed call, and a line with a hint what to do",
        seen: &[seen(
            "end: device that is taken: stderr",
            "ioctl(TUNSETIFF): Device or resource busy\nchild failed(1)",
            "ioctl(TUNSETIFF): Device or resource busy\nhint: another process is attached to the interface of this name\nchild failed(1)",
        )],
    },
    Row {
        topic: "MAC address with other separators than colons",
        theirs: "is cut at the first",
        ours: "is refused",
        seen: &[seen(
            "refused: slirp4netns -c --macaddress=02-11-22-33-44-55 99999999 tap0: stderr",
            "/proc/99999999/ns/net: No such file or directory",
            "\"02-11-22-33-44-55\" is an invalid MAC address.",
        )],
    },
    Row {
        topic: "Text about a wrong --outbound-addr6",
        theirs: "names --outbound-addr",
        ours: "names --outbound-addr6",
        seen: &[seen(
            "refused: slirp4netns --outbound-addr6=10.0.0.1 1 tap0: stderr",
            "outbound-addr has to be valid ipv4 address or iterface name.",
            "outbound-addr6 has to be valid ipv6 address or interface name.",
        )],
    },
    Row {
        topic: "Text about a --cidr that is no network",
        theirs: "always the same example",
        ours: "the network that was meant, and what was given",
        seen: &[seen(
            "refused: slirp4netns --cidr=192.168.5.7/24 1 tap0: stderr",
            "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24",
            "CIDR needs to be a network address like 192.168.5.0/24, not like 192.168.5.7/24",
        )],
    },
    Row {
        topic: "PID or descriptor beyond 31 bits",
        theirs: "is cut, and may be another one",
        ours: "is refused",
        seen: &[
            seen(
                "refused: slirp4netns 9999999999 tap0: stderr",
                "/proc/1410065407/ns/net: No such file or directory",
                "PID must be a positive integer",
            ),
            seen("refused: slirp4netns 9999999999 tap0: usages on stdout", "0", "1"),
        ],
    },
    Row {
        topic: "PID in a further user namespace than its network",
        theirs: "is refused by the kernel",
        ours: "is served: the user namespace that owns the network is entered",
        seen: &[
            seen("nested: ready", "false", "true"),
            seen(
                "nested: stderr",
                "setns(CLONE_NEWNET): Operation not permitted",
                "sent tapfd=FD for tap0",
            ),
        ],
    },
    Row {
        topic: "Device that is deleted in the namespace",
        theirs: "the process spins and fills its stderr",
        ours: "the process ends with status 1",
        seen: &[
            seen("device: alive", "true", "false"),
            seen("device: busy for nothing", "true", "false"),
            seen("device: status", "None", "Some(1)"),
        ],
    },
    Row {
        topic: "Peer of --target-type=bess that hangs up",
        theirs: "the process spins and fills its stderr",
        ours: "the process ends with status 0",
        seen: &[
            seen("peer: busy for nothing", "true", "false"),
            seen("peer: status", "None", "Some(0)"),
        ],
    },
    Row {
        topic: "First argument a descriptor (--netns-type=tapfd)",
        theirs: "unknown (since 1.3)",
        ours: "understood",
        seen: &[
            seen(
                "help: first line",
                "Usage: slirp4netns [OPTION]... PID|PATH [TAPNAME]",
                "Usage: slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]",
            ),
            seen(
                "refused: slirp4netns --cidr=10.0.2.0/24 --netns-type=tapfd x: stderr",
                "",
                "TAPFD must a file descriptor",
            ),
        ],
    },
];
