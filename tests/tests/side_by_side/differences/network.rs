//! Differences that the guest sees, and clients of forwarded ports.

use super::{Row, seen};

pub(super) const ROWS: &[Row] = &[
    Row {
        topic: "TCP connect that fails late: a host, router or firewall reports that there is no \
            way, or a neighbour is silent",
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
        theirs: "its peer sees an orderly end",
        ours: "its peer sees the reset (RFC 9293)",
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
        ours: "are unreachable: every spelling of the host's loopback is closed",
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
        topic: "UDP to a destination that the host's routes call unreachable",
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
        ours: "the TTL that they arrived with",
        seen: &[
            seen(
                "ping: ping remote",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, \
                 0% packet loss",
            ),
            seen(
                "ping: ping remote, in fragments",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 \
                 received, 0% packet loss",
            ),
            seen(
                "ping: ping host",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, \
                 0% packet loss",
            ),
            seen(
                "ping socket: ping remote",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, \
                 0% packet loss",
            ),
            seen(
                "ping socket: ping remote, in fragments",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "4008 bytes from 203.0.113.10: icmp_seq=1 ttl=64; 1 packets transmitted, 1 \
                 received, 0% packet loss",
            ),
            seen(
                "ping socket: ping host",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "64 bytes from 198.51.100.1: icmp_seq=1 ttl=64; 1 packets transmitted, 1 received, \
                 0% packet loss",
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
                "64 bytes from 203.0.113.77: icmp_seq=0 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "From 198.51.100.2 icmp_seq=1 Destination Host Unreachable; 1 packets transmitted, \
                 0 received, +1 errors, 100% packet loss",
            ),
            seen(
                "ping socket: ping host that a router knows to be unreachable",
                "1 packets transmitted, 0 received, 100% packet loss",
                "From 198.51.100.2 icmp_seq=1 Destination Host Unreachable; 1 packets transmitted, \
                 0 received, +1 errors, 100% packet loss",
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
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "From 10.0.2.2 icmp_seq=1 Time to live exceeded; 1 packets transmitted, 0 \
                 received, +1 errors, 100% packet loss",
            ),
            seen(
                "ping socket: ping remote, TTL 1",
                "64 bytes from 203.0.113.10: icmp_seq=1 ttl=255; 1 packets transmitted, 1 \
                 received, 0% packet loss",
                "From 10.0.2.2 icmp_seq=1 Time to live exceeded; 1 packets transmitted, 0 \
                 received, +1 errors, 100% packet loss",
            ),
        ],
    },
    Row {
        topic: "Echo request to a remote, if the host denies the process a ping socket",
        theirs: "is sent as UDP to port 7 instead",
        ours: "is not answered; a warning on stderr names the sysctl",
        seen: &[seen(
            "ping refused: ping remote",
            "From 203.0.113.10 icmp_seq=1 Destination Port Unreachable; 1 packets transmitted, 0 \
             received, +1 errors, 100% packet loss",
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
        topic: "Resolver of the host that refuses or does not exist",
        theirs: "silence, or a refused connection",
        ours: "SERVFAIL, at once if the resolver refuses",
        seen: &[
            seen("resolver: refusing", "timed out", "SERVFAIL"),
            seen("resolver: refusing, TCP", "connection refused", "SERVFAIL"),
        ],
    },
    Row {
        topic: "Second and further nameserver lines of resolv.conf(5)",
        theirs: "never asked",
        ours: "asked when the resolvers before them fail",
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
        ours: "the host's loopback is asked, as resolv.conf(5) says",
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
        topic: "Clients on the host's loopback of a forwarded UDP port, with \
            --disable-host-loopback",
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
        topic: "TTL of a datagram to a group",
        theirs: "1 on the host's network, whatever it was; a datagram sent with 1 is dropped",
        ours: "as it was sent: service discovery uses 1",
        seen: &[
            seen("udp data: TTL at a group of a datagram with 1", "nothing", "1"),
            seen("udp data: TTL at a group of a datagram with 7", "1", "7"),
        ],
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
        ours: "moves to it, and is offered it again",
        seen: &[
            seen("dhcp: asked for .31", "10.0.2.15", "10.0.2.30"),
            seen("dhcp: another network", "10.0.2.15", "10.0.2.30"),
            seen("dhcp: another client", "10.0.2.16", "10.0.2.15"),
        ],
    },
    Row {
        topic: "DHCP client that renews its lease",
        theirs: "is answered by broadcast, which a socket at the client's address does not hear",
        ours: "is answered at its address (RFC 2131)",
        seen: &[seen("dhcp: renewal", "nothing", "5 10.0.2.15")],
    },
    Row {
        topic: "DHCP client after sixteen others",
        theirs: "gets no address, although the offered ones were not taken up",
        ours: "gets an address whose offer was not taken up, or whose lease has run out",
        seen: &[seen("dhcp: client after 16 that were offered an address", "False", "True")],
    },
    Row {
        topic: "DHCP option for the nameserver with --disable-dns",
        theirs: "names the nameserver's address, which does not answer then",
        ours: "is left out",
        seen: &[seen("dhcp without dns: lease dns", "10.0.2.3", "none")],
    },
    Row {
        topic: "TFTP request to write",
        theirs: "silence",
        ours: "error 2, access violation, as for a request to read",
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
        topic: "Guest that turns IPv6 forwarding on, with --configure and --enable-ipv6",
        theirs: "loses its default route: accept_ra is 1",
        ours: "keeps it: accept_ra is 2",
        seen: &[
            seen("ipv6: accept_ra", "1", "2"),
            seen("ipv6: default route of a guest that forwards", "false", "true"),
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
];
