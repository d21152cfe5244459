//! The table of the callers: command lines word for word, and what the callers count on.

use slirp_tests::Picture;

use Guest::{Host, Own, Unconfigured};
use Older::{Lacks, Refuses, Same};

/// One caller and one of its command lines.
///
/// In a line, `NS` stands for the name of the network namespace, `PROC` for the path of the same in
/// `/proc`, `PIDFILE` and `SOCKET` for files, `CHILD` for the process id of a container of an
/// ordinary user.
pub(crate) struct Caller {
    pub(crate) name: &'static str,
    pub(crate) line: &'static str,
    pub(crate) guest: Guest,
    /// Ports of the host that are open as soon as the caller goes on.
    pub(crate) open: &'static [(&'static str, u16)],
    pub(crate) older: Older,
}

/// What the guest then has.
pub(crate) enum Guest {
    /// The addresses and routes of the host, on an interface of this name and size.
    Host(&'static str, u64),
    /// IPv4 of its own: interface, MTU, address, gateway.
    Own(&'static str, u64, &'static str, &'static str),
    /// An interface that is down.
    Unconfigured(&'static str),
}

/// What the pasta of 2023-03 does with the same line.
pub(crate) enum Older {
    /// It sets up the same, but for what it does not copy: it has one address and one route of each
    /// family.
    Same,
    /// It does not know this option. The caller leaves it away, if it can.
    Lacks(&'static str),
    /// It refuses the line with this text, even without the words that it does not know.
    Refuses(&'static str, &'static str),
}

impl Guest {
    /// The name of its interface.
    pub(crate) fn interface(&self) -> &'static str {
        let (Host(name, _) | Own(name, ..) | Unconfigured(name)) = *self;
        name
    }

    /// Checks what was seen of it; `host` is what the host has.
    pub(crate) fn assert_is(&self, seen: &Picture, host: &Picture, what: &str) {
        let text = |text: &str| Some(text.to_owned());
        let up = |name: &str| vec![name.to_owned()];
        match *self {
            Host(name, mtu) => {
                assert_eq!(*seen, Picture { up: up(name), mtu, ..host.clone() }, "{what}");
            }
            Own(name, mtu, address, gateway) => {
                let found = (&seen.up, seen.mtu, &seen.addresses, &seen.gateways, &seen.tentative);
                let expected = (
                    &up(name),
                    mtu,
                    &vec![address.to_owned()],
                    &[text(gateway), None],
                    &Vec::new(),
                );
                assert_eq!(found, expected, "{what}");
            }
            Unconfigured(_) => {
                assert!(seen.up.is_empty() && seen.addresses.is_empty(), "{what}: {seen:?}");
            }
        }
    }

    /// Checks that what the older program sets up is part of what we do.
    pub(crate) fn assert_is_part(older: &Picture, ours: &Picture, what: &str) {
        let same =
            |one: &Picture| (one.up.clone(), one.mtu, one.gateways.clone(), one.tentative.clone());
        assert_eq!(same(ours), same(older), "{what}");
        for is_ipv6 in [false, true] {
            let first = |one: &Picture| {
                one.addresses.iter().find(|address| address.contains(':') == is_ipv6).cloned()
            };
            assert_eq!(first(ours), first(older), "{what}");
        }
    }
}

/// Without `--quiet`, the program may tell what it does.
pub(crate) fn is_quiet(line: &str) -> bool {
    line.split(' ').any(|word| matches!(word, "-q" | "--quiet"))
}

pub(crate) const PODMAN: &[Caller] = &[
    Caller {
        name: "Podman 4.4",
        line: "--config-net -t 8081-8081:80-80 -u none -T none -U none --no-map-gw --netns NS",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081)],
        older: Same,
    },
    Caller {
        name: "Podman 4.5 with options",
        line: "--config-net -u 198.51.100.1/8081-8082:80-81 -I myname -m 1280 -t none -T none \
               -U none --no-map-gw --netns NS",
        guest: Host("myname", 1280),
        open: &[("udp", 8081), ("udp", 8082)],
        older: Same,
    },
    Caller {
        name: "Podman 4.6 to 4.9, Buildah 1.31",
        line: "--config-net -t 8081-8081:80-80 -u 8081-8081:80-80 -I myname --ns-mac-addr \
               9a:dd:31:ea:92:98 -T none -U none --no-map-gw --netns NS",
        guest: Host("myname", 65520),
        open: &[("tcp", 8081), ("udp", 8081)],
        older: Same,
    },
    Caller {
        name: "Podman 4.9 with the host's gateway",
        line: "--config-net -t none -u none -T none -U none --netns NS",
        guest: Host("h0", 65520),
        open: &[],
        older: Same,
    },
    Caller {
        name: "Podman 5.0",
        line: "--config-net -t 8081-8081:80-80 -u none -T none -U none --no-map-gw --dns none \
               --quiet --netns NS",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081)],
        older: Same,
    },
    Caller {
        name: "Podman 5.0 for a bridge",
        line: "--config-net --pid PIDFILE -t none -u none -T none -U none --no-map-gw --dns none \
               --quiet --netns NS",
        guest: Host("h0", 65520),
        open: &[],
        older: Same,
    },
    Caller {
        name: "Podman 5.1",
        line: "--config-net -t 8081-8081:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
               --no-map-gw --quiet --netns NS",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081)],
        older: Same,
    },
    Caller {
        name: "Podman 5.1 with a resolver",
        line: "--config-net --dns-forward 198.51.100.53 -t none -u none -T none -U none \
               --no-map-gw --quiet --netns NS",
        guest: Host("h0", 65520),
        open: &[],
        older: Same,
    },
    Caller {
        name: "Podman 5.2 with a request for details",
        line: "--config-net -d -t 8081-8081:80-80 --dns-forward 169.254.1.1 -u none -T none \
               -U none --no-map-gw --netns NS",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081)],
        older: Same,
    },
    Caller {
        name: "Podman 5.3 to 6.0, Buildah 1.38",
        line: "--config-net -t 127.0.0.1/8081-8082:80-81 -t ::1/8081-8081:80-80 -t \
               0.0.0.0/8083-8083:80-80 -u 8084-8084:53-53 --dns-forward 169.254.1.1 -T none \
               -U none --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081), ("tcp", 8082), ("tcp", 8083), ("udp", 8084)],
        older: Refuses("--map-guest-addr 169.254.1.2", "Overlapping port specifier ::1/8081"),
    },
    Caller {
        name: "Podman 5.3 for a bridge",
        line: "--config-net --pid PIDFILE --dns-forward 169.254.1.1 -t none -u none -T none \
               -U none --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[],
        older: Lacks("--map-guest-addr 169.254.1.2"),
    },
    Caller {
        name: "Podman 6.0 for a bridge, whose ports pesto opens",
        line: "--config-net --pid PIDFILE -c SOCKET --dns-forward 169.254.1.1 -t none -u none \
               -T none -U none --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[],
        older: Refuses("--map-guest-addr 169.254.1.2", "invalid option -- 'c'"),
    },
    Caller {
        name: "Podman of 2026-09",
        line: "--config-net -t 8081-8081:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
               --no-map-gw --quiet --map-guest-addr 169.254.1.2 --pid PIDFILE --netns NS",
        guest: Host("h0", 65520),
        open: &[("tcp", 8081)],
        older: Lacks("--map-guest-addr 169.254.1.2"),
    },
    Caller {
        name: "Buildah",
        line: "--config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none \
               --no-map-gw --quiet --netns PROC --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[],
        older: Refuses("--map-guest-addr 169.254.1.2", "Couldn't open network namespace /proc/"),
    },
    Caller {
        name: "Buildah with the options of its tests",
        line: "--config-net --mtu 2000 --ns-mac-addr 9a:dd:31:ea:92:98 --dns-forward 192.168.0.1 \
               -t none -u none -T none -U none --no-map-gw --quiet --netns PROC --map-guest-addr \
               169.254.1.2",
        guest: Host("h0", 2000),
        open: &[],
        older: Refuses("--map-guest-addr 169.254.1.2", "Couldn't open network namespace /proc/"),
    },
    Caller {
        name: "the manual of Podman: the picture of slirp4netns",
        line: "--config-net --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m \
               1500 --no-ndp --no-dhcpv6 --no-dhcp -t none -u none -T none -U none --no-map-gw \
               --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Own("h0", 1500, "10.0.2.0/24", "10.0.2.2"),
        open: &[],
        older: Lacks("--map-guest-addr 169.254.1.2"),
    },
    Caller {
        name: "the manual of Podman: a port of the container's loopback",
        line: "--config-net -T 5201 --dns-forward 169.254.1.1 -t none -u none -U none --no-map-gw \
               --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[],
        older: Lacks("--map-guest-addr 169.254.1.2"),
    },
    Caller {
        name: "the manual of Podman: automatic ports",
        line: "--config-net -t auto -u auto -T auto -U auto --dns-forward 169.254.1.1 --no-map-gw \
               --quiet --netns NS --map-guest-addr 169.254.1.2",
        guest: Host("h0", 65520),
        open: &[],
        older: Lacks("--map-guest-addr 169.254.1.2"),
    },
    Caller {
        name: "slirp4netns.sh",
        line: "-q --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 \
               --no-ndp --no-dhcpv6 --no-dhcp -P PIDFILE --config-net -I tap0 --netns NS",
        guest: Own("tap0", 1500, "10.0.2.0/24", "10.0.2.2"),
        open: &[],
        older: Same,
    },
    Caller {
        name: "slirp4netns.sh without --configure",
        line: "-q --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 \
               --no-ndp --no-dhcpv6 --no-dhcp -P PIDFILE -I tap0 --netns NS",
        guest: Unconfigured("tap0"),
        open: &[],
        older: Same,
    },
];

pub(crate) const ROOTLESSKIT: &[Caller] = &[
    Caller {
        name: "RootlessKit 2.3",
        line: "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
               --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
               --tcp-ports=auto --udp-ports=auto CHILD",
        guest: Own("tap0", 65520, "10.0.2.100/24", "10.0.2.2"),
        open: &[],
        older: Same,
    },
    Caller {
        name: "RootlessKit 2.3.2 to 3.0",
        line: "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
               --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
               --tcp-ports=auto --udp-ports=auto --host-lo-to-ns-lo CHILD",
        guest: Own("tap0", 65520, "10.0.2.100/24", "10.0.2.2"),
        open: &[],
        older: Lacks("--host-lo-to-ns-lo"),
    },
    Caller {
        name: "RootlessKit 3.0 with a port driver of its own",
        line: "--stderr --ns-ifname=tap0 --mtu=1500 --config-net --address=10.0.2.100 \
               --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --ipv4-only \
               --tcp-ports=none --udp-ports=none --host-lo-to-ns-lo CHILD",
        guest: Own("tap0", 1500, "10.0.2.100/24", "10.0.2.2"),
        open: &[],
        older: Lacks("--host-lo-to-ns-lo"),
    },
    Caller {
        name: "RootlessKit 3.0 that detaches the network",
        line: "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
               --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
               --tcp-ports=none --udp-ports=none --host-lo-to-ns-lo \
               --userns=/proc/CHILD/ns/user --netns=/proc/CHILD/ns/net",
        guest: Own("tap0", 65520, "10.0.2.100/24", "10.0.2.2"),
        open: &[],
        older: Lacks("--host-lo-to-ns-lo"),
    },
];
