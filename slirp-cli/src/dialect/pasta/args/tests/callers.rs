//! The command lines of known callers, word for word, and what they mean.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use slirp_core::MacAddr;

use super::{ports, read, run, run_words};
use crate::dialect::pasta::args::Command;
use crate::dialect::pasta::options::{
    Families, PastaOptions, Place, ProcessOptions, Target, Userns, Verbosity,
};
use crate::dialect::pasta::ports::rules::PortRules;

/// A path as Podman's, in `$XDG_RUNTIME_DIR`.
const NS: &str = "/run/user/1000/netns/netns-5c1cd3b2-8e2b-4dd9-a5ca-b1f5a3b7d9e2";

const CLOSED: [&str; 4] = [""; 4];
const AUTO: [&str; 4] = ["auto"; 4];

/// What Podman and Buildah have in common.
fn podman(change: impl FnOnce(&mut PastaOptions)) -> PastaOptions {
    let mut options = PastaOptions {
        target: Target {
            place: Place::Netns(NS.into()),
            userns: Userns::Callers,
            quits_with_netns: true,
        },
        process: ProcessOptions { verbosity: Verbosity::Quiet, ..ProcessOptions::default() },
        ..PastaOptions::default()
    };
    options.guest.configure = true;
    options.services.router_advertisements = false;
    options.mapping.maps_gateway = false;
    change(&mut options);
    options
}

/// What RootlessKit asks for in every version.
fn rootlesskit(change: impl FnOnce(&mut PastaOptions)) -> PastaOptions {
    let mut options = PastaOptions {
        target: Target {
            place: Place::Process(42),
            userns: Userns::OfPlace,
            quits_with_netns: true,
        },
        ..PastaOptions::default()
    };
    options.guest.interface = Some("tap0".to_owned());
    options.addresses.guest.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 100));
    options.addresses.ipv4_prefix_len = Some(24);
    options.addresses.gateway.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 2));
    options.addresses.dns_forward.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 3));
    options.services.router_advertisements = false;
    change(&mut options);
    options
}

#[track_caller]
fn check(line: &str, expected_ports: [&str; 4], expected: PastaOptions) {
    let line = line.replace("NS", NS);
    let mut options = run(&line);
    assert_eq!(ports(&options), expected_ports, "{line}");
    options.ports = PortRules::default();
    assert_eq!(options, expected, "{line}");
    let words = line.split_whitespace().collect::<Vec<_>>();
    assert_eq!(read(&words).warnings, [], "{line}");
}

fn dns_forward(options: &mut PastaOptions) {
    options.addresses.dns_forward.ipv4 = Some(Ipv4Addr::new(169, 254, 1, 1));
}

fn map_guest_addr(options: &mut PastaOptions) {
    dns_forward(options);
    options.addresses.host_address.ipv4 = Some(Ipv4Addr::new(169, 254, 1, 2));
}

#[test]
fn podman_4() {
    let loud = |options: &mut PastaOptions| options.process.verbosity = Verbosity::Normal;
    check(
        "--config-net -t 8080-8080:80-80 -u 127.0.0.1/5353-5353:53-53 -T none -U none --no-map-gw \
         --netns NS",
        ["[*]:8080  =>  80", "[127.0.0.1]:5353  =>  53", "", ""],
        podman(loud),
    );
    // Without ports.
    check(
        "--config-net -t none -u none -T none -U none --no-map-gw --netns NS",
        CLOSED,
        podman(loud),
    );
    // With --map-gw, a word of Podman's own, and all directions given by the user.
    check(
        "--config-net -t auto -u auto -T auto -U auto --netns NS",
        AUTO,
        podman(|options| {
            loud(options);
            options.mapping.maps_gateway = true;
        }),
    );
    // 4.6 to 4.9, with containers.conf.
    check(
        "--config-net -t 8080-8080:80-80 --mtu 1500 -u none -T none -U none --no-map-gw --netns NS",
        ["[*]:8080  =>  80", "", "", ""],
        podman(|options| {
            loud(options);
            options.guest.mtu = Some(1500);
        }),
    );
}

#[test]
fn podman_5_and_6() {
    // 5.0
    check(
        "--config-net -t ::1/8080-8080:80-80 -u none -T none -U none --no-map-gw --dns none \
         --quiet --netns NS",
        ["[::1]:8080  =>  80", "", "", ""],
        podman(|options| options.services.resolvers = Some(Vec::new())),
    );
    // 5.1, 5.2
    check(
        "--config-net -t 8080-8089:8080-8089 --dns-forward 169.254.1.1 -u none -T none -U none \
         --no-map-gw --quiet --netns NS",
        ["[*]:8080-8089  =>  8080-8089", "", "", ""],
        podman(dns_forward),
    );
    check(
        "--config-net --debug -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none \
         -U none --no-map-gw --netns NS",
        ["[*]:8080  =>  80", "", "", ""],
        podman(|options| {
            dns_forward(options);
            options.process.verbosity = Verbosity::Debug;
        }),
    );
    // 5.3 to 5.8, 6.0
    check(
        "--config-net -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
         --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        ["[*]:8080  =>  80", "", "", ""],
        podman(map_guest_addr),
    );
    // The same with options of the user.
    check(
        "--config-net -I myname --ns-mac-addr 9a:dd:31:ea:92:98 --ns-mac-addr aa:bb:cc:dd:ee:ff \
         -t 127.0.0.1%lo/8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
         --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        ["[127.0.0.1%lo]:8080  =>  80", "", "", ""],
        podman(|options| {
            map_guest_addr(options);
            options.guest.interface = Some("myname".to_owned());
            options.guest.mac = Some(MacAddr([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]));
        }),
    );
    // main, 2026-09
    check(
        "--config-net -t 8080-8080:80-80 --dns-forward 169.254.1.1 -u none -T none -U none \
         --no-map-gw --quiet --map-guest-addr 169.254.1.2 --pid /tmp/x/pasta.pid --netns NS",
        ["[*]:8080  =>  80", "", "", ""],
        podman(|options| {
            map_guest_addr(options);
            options.process.pid_file = Some("/tmp/x/pasta.pid".into());
        }),
    );
}

#[test]
fn podman_for_bridge_networks() {
    let pid = "/run/user/1000/containers/networks/rootless-netns/rootless-netns-conn.pid";
    let line = format!(
        "--config-net --pid {pid} --dns-forward 169.254.1.1 -t none -u none -T none -U none \
         --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2"
    );
    let expected = |options: &mut PastaOptions| {
        map_guest_addr(options);
        options.process.pid_file = Some(pid.into());
    };
    check(&line, CLOSED, podman(expected));

    // With rootless_port_forwarder="pasta".
    let socket = "/run/user/1000/containers/networks/rootless-netns/pasta.sock";
    let line = line.replace(pid, &format!("{pid} -c {socket}"));
    let expected = |options: &mut PastaOptions| {
        expected(options);
        options.process.control_socket = Some(socket.into());
    };
    check(&line, CLOSED, podman(expected));
}

#[test]
fn podman_with_the_options_of_its_manual() {
    check(
        "--config-net --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 \
         --no-ndp --no-dhcpv6 --no-dhcp -t none -u none -T none -U none --no-map-gw --quiet \
         --netns NS --map-guest-addr 169.254.1.2",
        CLOSED,
        podman(|options| {
            map_guest_addr(options);
            options.families = Families::Ipv4;
            options.addresses.guest.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 0));
            options.addresses.ipv4_prefix_len = Some(24);
            options.addresses.gateway.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 2));
            options.addresses.dns_forward.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 3));
            options.guest.mtu = Some(1500);
            options.services.ndp = false;
            options.services.dhcp = false;
            options.services.dhcpv6 = false;
        }),
    );
    check(
        "--config-net -T 5201 --dns-forward 169.254.1.1 -t none -u none -U none --no-map-gw \
         --quiet --netns NS --map-guest-addr 169.254.1.2",
        ["", "", "[*]:5201  =>  5201", ""],
        podman(map_guest_addr),
    );
    // An entry of containers.conf that is one word.
    let options = run_words(&[
        "--config-net",
        "-T 80,443",
        "-t",
        "none",
        "-u",
        "none",
        "-U",
        "none",
        "--netns",
        NS,
    ]);
    assert_eq!(ports(&options), ["", "", "[*]:80  =>  80; [*]:443  =>  443", ""]);
}

#[test]
fn buildah() {
    check(
        "--config-net --dns-forward 169.254.1.1 -t none -u none -T none -U none --no-map-gw \
         --quiet --netns /proc/4242/ns/net --map-guest-addr 169.254.1.2",
        CLOSED,
        podman(|options| {
            map_guest_addr(options);
            options.target.place = Place::Netns("/proc/4242/ns/net".into());
        }),
    );
    check(
        "--config-net --mtu 2000 --ns-mac-addr aa:bb:cc:dd:ee:fe --dns-forward 169.254.1.1 -t none \
         -u none -T none -U none --no-map-gw --quiet --netns NS --map-guest-addr 169.254.1.2",
        CLOSED,
        podman(|options| {
            map_guest_addr(options);
            options.guest.mtu = Some(2000);
            options.guest.mac = Some(MacAddr([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xfe]));
        }),
    );
}

#[test]
fn rootlesskit_2_0() {
    check(
        "--foreground --stderr --ns-ifname=tap0 --mtu=65520 --no-dhcp --no-ra \
         --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw \
         --ipv4-only --tcp-ports=auto --udp-ports=auto 42",
        AUTO,
        rootlesskit(|options| {
            options.process.is_foreground = true;
            options.services.dhcp = false;
            options.mapping.maps_gateway = false;
            options.families = Families::Ipv4;
        }),
    );
    check(
        "--foreground --stderr --ns-ifname=tap0 --mtu=65520 --no-dhcp --no-ra \
         --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 \
         --tcp-ports=none --udp-ports=none 42",
        ["", "", "auto", "auto"],
        rootlesskit(|options| {
            options.process.is_foreground = true;
            options.services.dhcp = false;
        }),
    );
}

#[test]
fn rootlesskit_2_3_and_3() {
    let line = "--stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
                --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 --no-map-gw --ipv4-only \
                --tcp-ports=auto --udp-ports=auto --host-lo-to-ns-lo";
    let expected = |options: &mut PastaOptions| {
        options.guest.configure = true;
        options.mapping.maps_gateway = false;
        options.mapping.keeps_loopback = true;
        options.families = Families::Ipv4;
    };
    check(&format!("{line} 42"), AUTO, rootlesskit(expected));
    check(
        &format!("{line} --userns=/proc/42/ns/user --netns=/run/user/1000/dockerd-rootless/netns"),
        AUTO,
        rootlesskit(|options| {
            expected(options);
            options.target.place = Place::Netns("/run/user/1000/dockerd-rootless/netns".into());
            options.target.userns = Userns::Path("/proc/42/ns/user".into());
        }),
    );
    // --port-driver=pesto
    check(
        &format!("{} -c /run/s 42", line.replace("=auto", "=none")),
        ["", "", "auto", "auto"],
        rootlesskit(|options| {
            expected(options);
            options.process.control_socket = Some("/run/s".into());
        }),
    );
}

#[test]
fn rootlesskit_asks_for_features() {
    for line in [
        &["--version"][..],
        &["--host-lo-to-ns-lo", "--version"],
        &["--map-guest-addr", "169.254.1.2", "--version"],
        // Operands and ports are not looked at before the end of the line.
        &["-t", "bad", "--version", "--nope"],
    ] {
        assert_eq!(read(line).command, Ok(Command::Version), "{line:?}");
    }
    assert!(read(&["--no-such-feature", "--version"]).command.is_err());
}

#[test]
fn script_slirp4netns_sh() {
    let expected = |options: &mut PastaOptions| {
        options.process = ProcessOptions {
            verbosity: Verbosity::Quiet,
            pid_file: Some(PathBuf::from("/tmp/p")),
            ..ProcessOptions::default()
        };
        options.target.place = Place::Netns("/proc/42/ns/net".into());
        options.target.userns = Userns::Callers;
        options.addresses.guest.ipv4 = Some(Ipv4Addr::new(10, 0, 2, 0));
        options.families = Families::Ipv4;
        options.guest.mtu = Some(1500);
        options.guest.configure = true;
        options.services.ndp = false;
        options.services.dhcp = false;
        options.services.dhcpv6 = false;
    };
    check(
        "-q --ipv4-only -a 10.0.2.0 -n 24 -g 10.0.2.2 --dns-forward 10.0.2.3 -m 1500 --no-ndp \
         --no-dhcpv6 --no-dhcp -P /tmp/p --config-net -I tap0 --netns /proc/42/ns/net",
        AUTO,
        rootlesskit(expected),
    );
}

#[test]
fn people() {
    let options = run("--config-net ip -4 address show");
    let command = ["ip", "-4", "address", "show"].map(Into::into).to_vec();
    assert_eq!(options.target.place, Place::Command(command));
    assert!(options.guest.configure && options.process.is_foreground);
    assert_eq!(options.process.verbosity, Verbosity::Quiet);
    assert_eq!(ports(&options), AUTO);

    let options = run("--config-net -a 2001:db8::2 -g 2001:db8::1 -a 192.0.2.2 -g 192.0.2.1");
    let ipv6 = |text: &str| text.parse::<Ipv6Addr>().ok();
    assert_eq!(options.addresses.guest.ipv4, Some(Ipv4Addr::new(192, 0, 2, 2)));
    assert_eq!(options.addresses.guest.ipv6, ipv6("2001:db8::2"));
    assert_eq!(options.addresses.gateway.ipv6, ipv6("2001:db8::1"));
    assert_eq!(options.addresses.ipv4_prefix_len, Some(24));
    assert_eq!(options.addresses.ipv6_prefix_len, Some(64));
}
