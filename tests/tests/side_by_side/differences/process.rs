//! Differences that the caller of the program sees: the API socket, texts, the events that end it.

use super::{Row, seen};

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

pub(super) const ROWS: &[Row] = &[
    Row {
        topic: "API: list_hostfwd",
        theirs: "has its entries in another place than its manual says",
        ours: "has them in both places",
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
        theirs: "tcp6, udp6 and IPv6 addresses are refused",
        ours: "they are forwarded",
        seen: &[
            seen(
                "ipv6: API tcp6",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.proto\"}}",
                "{\"return\":{\"id\":1}}",
            ),
            seen(
                "api: host address of IPv6",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.host_addr\"}}",
                "{\"return\":{\"id\":7}}",
            ),
        ],
    },
    Row {
        topic: "API: host address 0.0.0.0, or none",
        theirs: "is IPv4 alone",
        ours: "is IPv6 as well; with tcp4 and udp4 IPv4 alone",
        seen: &[seen("api: 0.0.0.0 takes IPv6", "false", "true")],
    },
    Row {
        topic: "API: host_port 0",
        theirs: "is refused",
        ours: "lets the system pick a port; the reply has it",
        seen: &[seen(
            "api: host port 0",
            "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.host_port\"}}",
            "{\"return\":{\"id\":8,",
        )],
    },
    Row {
        topic: "API: port that cannot be opened",
        theirs: "the reason is not told",
        ours: "the reason follows their text",
        seen: &[
            seen(
                "api: the same again",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed\"}}",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: cannot \
                 listen on 0.0.0.0:8080 for TCP: Address already in use (os error 98)\"}}",
            ),
            seen(
                "api: address that the host has not",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed\"}}",
                "{\"error\":{\"desc\":\"bad request: add_hostfwd: slirp_add_hostfwd failed: cannot \
                 listen on 192.0.2.1:8084 for TCP: Cannot assign requested address (os error 99) \
                 (no \
                 interface of the host has this address)\"}}",
            ),
        ],
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
        topic: "API: guest address that no guest can have, such as the gateway's",
        theirs: "is accepted, and leads nowhere",
        ours: "is refused",
        seen: &[seen(
            "api: guest address that is the gateway's",
            "{\"return\":{\"id\":9}}",
            "{\"error\":{\"desc\":\"bad request: add_hostfwd: bad arguments.guest_addr\"}}",
        )],
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
        theirs: "is rejected as invalid JSON",
        ours: "the last one counts (RFC 8259 leaves it open)",
        seen: &[seen(
            "api: execute twice",
            "{\"error\":{\"desc\":\"bad request: cannot parse JSON\"}}",
            "{\"error\":{\"desc\":\"bad request: unknown execute\"}}",
        )],
    },
    Row {
        topic: "API: client that connects and says nothing",
        theirs: "stops the network until it leaves",
        ours: "delays no other client",
        seen: &[seen("api clients: the network lives while a client is silent", "false", "true")],
    },
    Row {
        topic: "API: file of the socket after SIGTERM, SIGINT and SIGHUP",
        theirs: "stays behind",
        ours: "is removed",
        seen: &[seen("api file: still there after SIGTERM", "true", "false")],
    },
    Row {
        topic: "Output on stdout that is not a terminal",
        theirs: "appears when the process ends, warnings about options twice",
        ours: "appears at once, and once",
        seen: &[
            seen("stdout: lines of the summary while it runs", "0", "9"),
            seen(
                "output: ipv6: stdout WARNING: Support",
                "WARNING: Support for IPv6 is experimental\nWARNING: Support for IPv6 is \
                 experimental",
                "WARNING: Support for IPv6 is experimental",
            ),
            seen(
                "output: sandbox: stdout WARNING: Support",
                "WARNING: Support for seccomp is experimental\nWARNING: Support for seccomp is \
                 experimental",
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
        ours: "the failed call, and a hint what to do",
        seen: &[seen(
            "end: device that is taken: stderr",
            "ioctl(TUNSETIFF): Device or resource busy\nchild failed(1)",
            "ioctl(TUNSETIFF): Device or resource busy\nhint: another process is attached to the \
             interface of this name\nchild failed(1)",
        )],
    },
    Row {
        topic: "File of the API socket that cannot be made",
        theirs: "is reported after the device is made and the summary printed",
        ours: "is reported before both, like ports, addresses and recordings",
        seen: &[
            seen(
                "start: API socket in no folder: stderr",
                "sent tapfd=FD for tap0\nreceived tapfd=FD\napi_bindlisten: bind: No such file or \
                 directory\ndo_slirp is exiting\ndo_slirp failed\nparent failed",
                "api_bindlisten: bind: No such file or directory\ndo_slirp is exiting\ndo_slirp \
                 failed\nparent failed",
            ),
            seen(
                "start: API socket with a long name: stderr",
                "sent tapfd=FD for tap0\nreceived tapfd=FD\nthe specified API socket path is too \
                 long (>= 108)\ndo_slirp is exiting\ndo_slirp failed\nparent failed",
                "the specified API socket path is too long (>= 108)\ndo_slirp is exiting\ndo_slirp \
                 failed\nparent failed",
            ),
        ],
    },
    Row {
        topic: "Descriptor of --ready-fd or --exit-fd that is not open",
        theirs: "is not mentioned",
        ours: "is warned about",
        seen: &[seen(
            "end: exit descriptor that is not open: stderr",
            "sent tapfd=FD for tap0\nreceived tapfd=FD\nexitfd event\ndo_slirp is exiting",
            "WARNING: --exit-fd=77 is not open, or is the ready descriptor: the network ends as \
             soon as it is ready\nsent tapfd=FD for tap0\nreceived tapfd=FD\nexitfd \
             event\ndo_slirp is exiting",
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
        topic: "Text about a --cidr that is not a network",
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
        topic: "PID or path of the network namespace that the program runs in itself",
        theirs: "is served: the host loses its network",
        ours: "is refused before anything is changed",
        seen: &[seen(
            "start: own network namespace: stderr",
            "open(\"/dev/net/tun\"): No such file or directory\nchild failed(1)",
            "/proc/self/ns/net is the network namespace that we run in ourselves\nchild failed(1)",
        )],
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
