//! On machines that lack one thing: it is told, with its remedy, and nothing else is blamed.

use std::net::{Ipv4Addr, UdpSocket};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use slirp_tests::*;

use crate::scene::Scene;

/// What is not tried without user namespaces.
const WITHOUT_NAMESPACES: [&str; 4] = ["tun", "offloads", "sandbox", "network"];
/// Inside a new user namespace, as its root.
const NESTED: [&str; 4] = ["unshare", "--user", "--map-root-user", "--"];

#[test]
fn device_that_is_missing() {
    let scene = needs!(Scene::after(Account::Ordinary, "rm /dev/net/tun"));
    scene.report().assert_one(
        "tun",
        "failure",
        ["/dev/net/tun is missing", "as root: mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c"],
        &["offloads", "network"],
    );
}

#[test]
fn device_that_is_not_accessible() {
    let scene = needs!(Scene::after(Account::Ordinary, "chmod 0600 /dev/net/tun"));
    scene.report().assert_one(
        "tun",
        "failure",
        ["/dev/net/tun: Permission denied: its mode is 0600", "as root: chmod 0666 /dev/net/tun"],
        &["offloads", "network"],
    );
}

#[test]
fn device_on_a_file_system_without_devices() {
    let scene = needs!(Scene::after(Account::Ordinary, "mount -o remount,nodev /dev/net"));
    scene.report().assert_one(
        "tun",
        "failure",
        ["mounted with nodev", "remount,dev"],
        &["offloads", "network"],
    );
}

#[test]
fn file_in_place_of_the_device() {
    let script = "rm /dev/net/tun; touch /dev/net/tun; chmod 0666 /dev/net/tun";
    let scene = needs!(Scene::after(Account::Ordinary, script));
    scene.report().assert_one(
        "tun",
        "failure",
        ["/dev/net/tun is no device", "as root: rm /dev/net/tun && mknod"],
        &["offloads", "network"],
    );
}

#[test]
fn user_namespaces_that_are_forbidden() {
    let scene = needs!(Scene::of(Account::Ordinary));
    // The limit of a namespace is its own.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    scene.report_within(&NESTED, script).assert_one(
        "user-namespaces",
        "failure",
        [
            "unshare(CLONE_NEWUSER): No space left on device: forbidden \
             (user.max_user_namespaces is 0)",
            "sysctl -w user.max_user_namespaces=32768",
        ],
        &WITHOUT_NAMESPACES,
    );
}

#[test]
fn user_namespaces_that_an_outer_namespace_forbids() {
    needs!(is_installed("bwrap"));
    let scene = needs!(Scene::of(Account::Ordinary));
    let outer =
        ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "1500", "--disable-userns"];
    scene.report_by(&outer).assert_one(
        "user-namespaces",
        "failure",
        ["forbidden by an outer namespace", "run outside of it (bwrap: without --disable-userns)"],
        &WITHOUT_NAMESPACES,
    );
}

#[test]
fn network_namespaces_that_are_forbidden() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let script = "echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"";
    scene.report_within(&NESTED, script).assert_one(
        "user-namespaces",
        "failure",
        ["unshare(CLONE_NEWNET): No space", "sysctl -w user.max_net_namespaces=32768"],
        &WITHOUT_NAMESPACES,
    );
}

/// Has unshare(2) fail for this thread and for programs that it starts, as containers have it.
fn forbid_unshare() {
    let filter = SeccompFilter::new(
        [(libc::SYS_unshare, Vec::new())].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into().expect("an architecture that is tested"),
    );
    let program: BpfProgram =
        filter.expect("the filter is sound").try_into().expect("the filter compiles");
    seccompiler::apply_filter(&program).expect("the kernel has filters");
}

#[test]
fn filter_of_system_calls_that_forbids_unshare() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let report = std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            forbid_unshare();
            scene.report()
        });
        filtered.join().expect("the doctor runs")
    });
    report.assert_one(
        "user-namespaces",
        "failure",
        ["Operation not permitted: forbidden by a filter of system calls", "seccomp=unconfined"],
        &WITHOUT_NAMESPACES,
    );
}

#[test]
fn resolvers_that_are_dead() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let silent = scene.world.host.enter(|| UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 54), 53)));
    let _silent = silent.expect("the port is free");
    scene.world.write_resolv_conf("nameserver 127.0.0.54\nnameserver 127.0.0.55\n");
    let report = scene.report();
    report.assert_one(
        "resolver",
        "warning",
        ["127.0.0.54 does not answer", "--dns=ADDRESS, or mend 127.0.0.54 in /etc/resolv.conf"],
        &[],
    );
    report.assert_driven();
    let checks = report.object["checks"].as_array().expect("it is a list");
    let resolvers: Vec<_> = checks.iter().filter(|found| found["check"] == "resolver").collect();
    assert_eq!(resolvers.len(), 2, "{resolvers:?}");
    assert_eq!(resolvers[1]["what"], "127.0.0.55: Connection refused");
}

#[test]
fn resolv_conf_without_resolvers() {
    let scene = needs!(Scene::of(Account::Root));
    for (script, what) in [
        ("echo search example > /etc/resolv.conf", "/etc/resolv.conf names no resolver"),
        ("rm /etc/resolv.conf", "/etc/resolv.conf: No such file or directory"),
    ] {
        scene.world.host.script(script);
        let report = scene.report();
        report.assert_one("resolver", "warning", [what, "echo 'nameserver ADDRESS' >>"], &[]);
        report.assert_driven();
    }
}

#[test]
fn host_without_ipv6() {
    let script = "for each in all default lo h0; do
        echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done";
    let scene = needs!(Scene::after(Account::Ordinary, script));
    scene.report().assert_one(
        "ipv6",
        "warning",
        ["IPv6 is off", "as root: sysctl -w net.ipv6.conf.all.disable_ipv6=0"],
        &["tcp-ipv6"],
    );
}

#[test]
fn host_without_a_way_out() {
    let script = "ip route del default; ip -6 route del default";
    let scene = needs!(Scene::after(Account::Ordinary, script));
    let report = scene.report();
    report.assert_one(
        "ipv4",
        "warning",
        ["no way out: Network is unreachable", "connect the host to a network"],
        &["ipv6"],
    );
    // The guests of such a host reach the host.
    report.assert_driven();
}

#[test]
fn link_with_a_tiny_mtu() {
    let scene = needs!(Scene::after(Account::Ordinary, "ip link set h0 mtu 1000"));
    // The kernel takes IPv6 away from such a link.
    scene.report().assert_one(
        "ipv4",
        "warning",
        ["MTU 1000 of h0", "as root: ip link set dev h0 mtu 1500"],
        &["ipv6"],
    );
}

#[test]
fn few_descriptors() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let report = scene.report_by(&["prlimit", "--nofile=64:64"]);
    report.assert_one(
        "descriptors",
        "warning",
        ["the hard limit is 64", "'tester hard nofile 524288' >> /etc/security/limits.conf"],
        &[],
    );
    report.assert_driven();
}

#[test]
fn range_of_pinging_groups_that_is_empty() {
    let script = "echo '1 0' > /proc/sys/net/ipv4/ping_group_range";
    let scene = needs!(Scene::after(Account::Ordinary, script));
    let report = scene.report();
    report.assert_one(
        "ping",
        "warning",
        [
            "net.ipv4.ping_group_range is 1 0, our group is 1500",
            "as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        ],
        &[],
    );
    report.assert_driven();
}

#[test]
fn loopback_that_is_down() {
    let scene = needs!(Scene::after(Account::Ordinary, "ip link set lo down"));
    scene.report().assert_one(
        "loopback",
        "warning",
        ["127.0.0.1 cannot be used", "as root: ip link set lo up"],
        &["resolver", "network"],
    );
}

#[test]
fn ports_that_are_privileged() {
    let script = "echo 20000 > /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let scene = needs!(Scene::after(Account::Ordinary, script));
    scene.report().assert_one(
        "ports",
        "warning",
        [
            "no port below 20000 can be published",
            "as root: sysctl -w net.ipv4.ip_unprivileged_port_start=1024",
        ],
        &[],
    );
}

#[test]
fn user_without_subordinate_ids() {
    let scene = needs!(Scene::after(Account::Ordinary, "echo 'bob:150000:65536' > /etc/subuid"));
    scene.report().assert_one(
        "subordinate-ids",
        "warning",
        [
            "tester has 0 in /etc/subuid, 65536 in /etc/subgid",
            "usermod --add-subuids 215536-281071 --add-subgids 215536-281071 tester",
        ],
        &[],
    );
}

#[test]
fn process_file_system_that_is_not_mounted() {
    let scene = needs!(Scene::of(Account::Root));
    let script = "mount -t tmpfs tmpfs /proc; exec \"$@\"";
    let dependent =
        ["kernel", "user-namespaces", "tun", "offloads", "sandbox", "filter", "network"];
    scene.report_within(&["unshare", "--mount", "--"], script).assert_one(
        "proc",
        "failure",
        ["/proc is not mounted", "mount -t proc proc /proc"],
        &dependent,
    );
}

#[test]
fn remedies_work_as_they_are_written() {
    const FAULTS: [(&str, &str); 6] = [
        ("tun", "chmod 0600 /dev/net/tun"),
        ("ping", "echo '1 0' > /proc/sys/net/ipv4/ping_group_range"),
        ("ports", "echo 20000 > /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        ("subordinate-ids", ": > /etc/subuid; : > /etc/subgid"),
        ("loopback", "ip link set lo down"),
        ("ipv4", "ip link set h0 mtu 1000"),
    ];
    // sysctl(8) is not installed everywhere.
    const SYSCTL: &str =
        "sysctl() { printf %s \"${2#*=}\" > /proc/sys/$(printf %s \"${2%%=*}\" | tr . /); }";
    let scene = needs!(Scene::of(Account::Ordinary));
    scene.world.host.script(&FAULTS.map(|(_, script)| script).join("\n"));
    let report = scene.report();
    for (check, _) in FAULTS {
        let remedy = report.finding(check)["remedy"].as_str().unwrap_or_default();
        let command = remedy.strip_prefix("as root: ").expect("it is a command of root's");
        scene.world.host.script(&format!("{SYSCTL}\n{command}"));
    }
    // The kernel had taken the addresses away with the MTU.
    scene.world.host.script(
        "ip addr add 2001:db8:1::1/64 dev h0 nodad; ip route add default via 2001:db8:1::2",
    );
    let report = scene.report();
    report.assert_driven();
    assert_eq!(report.object["worst"], "ok", "{:#}", report.object);
}

#[test]
fn device_that_is_missing_is_made_by_its_remedy() {
    let scene = needs!(Scene::after(Account::Root, "rm /dev/net/tun"));
    let report = scene.report();
    let remedy = report.finding("tun")["remedy"].as_str().unwrap_or_default();
    let (command, _) = remedy.split_once(", or").expect("a command comes first");
    scene.world.host.script(command);
    scene.report().assert_driven();
}

/// Without CAP_SYS_ADMIN, as in a container, root has no sandbox of its own.
#[test]
fn root_without_the_right_to_a_mount_namespace() {
    let scene = needs!(Scene::of(Account::Root));
    let report = scene.report_by(&["setpriv", "--bounding-set=-sys_admin", "--"]);
    report.assert_one(
        "sandbox",
        "failure",
        ["sandbox: unshare(CLONE_NEWNS): Operation not permitted", "slirp run --no-sandbox"],
        &[],
    );
    report.assert_driven();
    let what = report.finding("network")["what"].as_str().unwrap_or_default();
    assert!(what.ends_with(" ms, without sandbox"), "{what}");
}

/// As in a container that is not privileged.
#[test]
fn settings_of_the_kernel_that_are_read_only() {
    let scene = needs!(Scene::of(Account::Ordinary));
    let script = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    scene.world.host.script(script);
    scene.report().assert_one(
        "ping-gateway",
        "warning",
        ["the command may not ping, as /proc/sys is read-only", "--security-opt=unmask=ALL"],
        &[],
    );
}
