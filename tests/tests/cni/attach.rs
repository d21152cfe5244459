//! The CNI plugin gives containers a network: results, configuration, refusals.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use serde_json::{Value, json};
use slirp_tests::*;

const ACCOUNTS: [Account; 2] = [Account::Root, Account::Ordinary];

/// The guest reaches a server of the remote.
fn assert_connected(world: &World) {
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let stream = connect(&world.guest, server.address()).expect("the container is on the network");
    send_exact(&stream, 1, 1 << 16).unwrap();
    receive_exact(&stream, 1, 1 << 16).unwrap();
}

fn interface_is_gone(world: &World, name: &str) -> bool {
    !world.guest.exec(&["ip", "link", "show", name]).status.success()
}

#[test]
fn walk_of_the_original_plugin_add_use_del_and_once_more() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let config = json!({ "name": "slirp", "type": "slirp", "mtu": 1500, "cniVersion": null });
        let cni = MiniCni::new(&world, &config);
        for _ in 0..2 {
            let result = cni.add().unwrap();
            assert_eq!(
                result,
                json!({
                    "cniVersion": "0.1.0",
                    "ip4": {
                        "ip": "10.0.2.100/24",
                        "gateway": "10.0.2.2",
                        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.2.2" }],
                    },
                    "dns": { "nameservers": ["10.0.2.3"] },
                })
            );
            let shown = world.guest.script("ip addr show eth0; ip link show lo");
            assert!(shown.contains("inet 10.0.2.100/24 brd 10.0.2.255"), "{shown}");
            assert!(shown.contains("LOOPBACK,UP"), "{shown}");
            assert_connected(&world);
            cni.del().unwrap();
            assert!(interface_is_gone(&world, "eth0"));
            assert!(cni.attachments().is_empty());
        }
    }
}

#[test]
fn result_has_the_shape_of_the_configurations_version() {
    let world = needs!(World::ordinary());
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let cni = MiniCni::new(&world, &json!({ "cniVersion": version }));
        let result = cni.add().unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"]["nameservers"], json!(["10.0.2.3"]));
        let mac = world.guest.script("ip link show eth0");
        match version {
            "0.1.0" | "0.2.0" => assert_eq!(result["ip4"]["ip"], "10.0.2.100/24"),
            _ => {
                assert_eq!(result["ips"][0]["address"], "10.0.2.100/24");
                assert_eq!(result["ips"][0]["interface"], 0);
                assert_eq!(result["interfaces"][0]["name"], "eth0");
                assert!(mac.contains(result["interfaces"][0]["mac"].as_str().unwrap()), "{mac}");
                let sandbox = format!("/proc/{}/ns/net", world.guest.pid());
                assert_eq!(result["interfaces"][0]["sandbox"], sandbox.as_str());
                let has_family = result["ips"][0].get("version").is_some();
                assert_eq!(has_family, version < "1.0.0");
                let has_mtu = result["interfaces"][0].get("mtu").is_some();
                assert_eq!(has_mtu, version == "1.1.0");
            }
        }
        if version >= "0.4.0" {
            cni.check().unwrap();
        }
        cni.del().unwrap();
    }
}

#[test]
fn ipv6_is_static_exact_and_usable_at_once() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let cni = MiniCni::new(&world, &json!({ "enableIPv6": true }));
        let result = cni.add().unwrap();
        assert_eq!(result["ips"][1]["address"], "fd00::100/64");
        assert_eq!(result["ips"][1]["gateway"], "fd00::2");
        assert_eq!(result["routes"][1], json!({ "dst": "::/0", "gw": "fd00::2" }));
        assert_eq!(result["dns"]["nameservers"], json!(["10.0.2.3", "fd00::3"]));
        let server = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
        connect(&world.guest, server.address()).expect("IPv6 works at once");
        let shown = world.guest.script("ip -6 addr show eth0 scope global");
        assert_eq!(shown.matches("inet6").count(), 1, "only the address of the result: {shown}");
        assert!(!shown.contains("tentative"), "{shown}");
        cni.check().unwrap();
        cni.del().unwrap();
    }
}

#[test]
fn ipv6_comes_up_where_new_interfaces_have_it_disabled() {
    let world = needs!(World::root());
    world.guest.script("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6");
    let cni = MiniCni::new(&world, &json!({ "enableIPv6": true }));
    cni.add().unwrap();
    assert!(world.guest.script("ip -6 addr show eth0").contains("fd00::100/64"));
}

#[test]
fn network_address_mac_mtu_and_metric_are_as_configured() {
    let world = needs!(World::ordinary());
    let config = json!({
        "cidr": "10.77.0.0/16", "mtu": 9000, "metric": 42, "disableDNS": true,
        "capabilities": { "ips": true, "mac": true },
    });
    let cni = MiniCni::new(&world, &config)
        .capability("ips", json!(["10.77.3.4/16"]))
        .capability("mac", json!("02:00:00:00:07:07"));
    let result = cni.add().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.77.3.4/16");
    assert_eq!(result["ips"][0]["gateway"], "10.77.0.2");
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:07:07");
    assert_eq!(result["interfaces"][0]["mtu"], 9000);
    assert_eq!(result["routes"][0]["priority"], 42);
    assert_eq!(result.get("dns"), None);
    let shown = world.guest.script("ip addr show eth0; ip route");
    for part in [
        "mtu 9000",
        "02:00:00:00:07:07",
        "inet 10.77.3.4/16",
        "default via 10.77.0.2 dev eth0",
        "metric 42",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_connected(&world);
}

#[test]
fn arguments_of_podman_and_nerdctl_choose_address_and_mac() {
    let world = needs!(World::root());
    let cni = MiniCni::new(&world, &json!({ "cniVersion": "0.4.0" }))
        .arguments("IgnoreUnknown=1;K8S_POD_NAME=a;IP=10.0.2.55;MAC=02:00:00:00:00:55");
    let result = cni.add().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.0.2.55/24");
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:55");
    assert_connected(&world);
}

#[test]
fn ports_lead_into_the_container_and_are_free_when_del_returns() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let config = json!({ "capabilities": { "portMappings": true } });
        // As containerd's go-cni sends it.
        let mapping =
            json!([{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }]);
        let cni = MiniCni::new(&world, &config).capability("portMappings", mapping);
        for _ in 0..3 {
            cni.add().unwrap();
            let _server =
                TcpServer::echo(&world.guest, ("10.0.2.100".parse::<IpAddr>().unwrap(), 80).into());
            // The container has IPv4 alone.
            let near = IpAddr::V6(Ipv6Addr::LOCALHOST);
            for (namespace, host) in [(&world.remote, HOST), (&world.host, near)] {
                let stream = connect(namespace, (host, 8080).into()).expect("the port is open");
                send_exact(&stream, 3, 1 << 16).unwrap();
                receive_exact(&stream, 3, 1 << 16).unwrap();
            }
            cni.check().unwrap();
            cni.del().unwrap();
            // Nothing waits for anything here: it is free, or the test fails.
            let again = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)));
            again.expect("the port is free again");
        }
    }
}

#[test]
fn busy_port_fails_the_whole_addition_and_is_named() {
    let world = needs!(World::ordinary());
    let config = json!({ "portMappings": [
        { "hostPort": 8080, "containerPort": 80 },
        { "hostPort": 8081, "containerPort": 80 },
    ] });
    let taken = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8081))).unwrap();
    let cni = MiniCni::new(&world, &config);
    let before = world.guest.next_interface();
    let failure = cni.add().unwrap_err();
    assert_eq!(world.guest.next_interface(), before + 1, "no device was made");
    assert_eq!(failure.code, 999);
    let start = "add slirp eth0: port mapping 0.0.0.0:8081->80/tcp: cannot listen on 0.0.0.0:8081";
    assert!(failure.message.starts_with(start), "{failure:?}");
    assert!(interface_is_gone(&world, "eth0") && cni.attachments().is_empty());
    let other = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)));
    other.expect("the port that could be opened is closed again");
    drop(taken);
    for port in [8080, 8081] {
        world.host.wait_for_free_port(port);
    }
    cni.add().unwrap();
}

#[test]
fn privileged_port_of_an_ordinary_user_is_refused_with_a_hint() {
    let world = needs!(World::ordinary());
    let config = json!({ "portMappings": [{ "hostPort": 80, "containerPort": 80 }] });
    let failure = MiniCni::new(&world, &config).add().unwrap_err();
    assert!(failure.message.contains("net.ipv4.ip_unprivileged_port_start"), "{failure:?}");
}

#[test]
fn host_loopback_is_open_unless_disabled() {
    for (disabled, config) in [(false, json!({})), (true, json!({ "disableHostLoopback": true }))] {
        let world = needs!(World::ordinary());
        MiniCni::new(&world, &config).add().unwrap();
        let server =
            TcpServer::echo(&world.host, ("127.0.0.1".parse::<IpAddr>().unwrap(), 0).into());
        let reached = connect(&world.guest, (GATEWAY, server.address().port()).into());
        assert_eq!(reached.is_err(), disabled);
    }
}

#[test]
fn outbound_address_is_that_of_the_configuration() {
    let world = needs!(World::ordinary());
    world.host.script("ip addr add 198.51.100.9/24 dev h0");
    MiniCni::new(&world, &json!({ "outboundAddr": "198.51.100.9" })).add().unwrap();
    let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
    let _stream = connect(&world.guest, listener.local_addr().unwrap()).unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), "198.51.100.9".parse::<IpAddr>().unwrap());
}

#[test]
fn result_of_the_plugin_before_is_kept() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "cniVersion": "1.0.0" }));
    let sandbox = format!("/proc/{}/ns/net", world.guest.pid());
    let before = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox }],
        "ips": [{ "interface": 0, "address": "127.0.0.1/8" }],
    });
    let result = cni.call("ADD", &[("prevResult", before)]).unwrap().unwrap();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["ips"][1]["interface"], 1);
    cni.check_against(result).unwrap();
}

#[test]
fn large_result_of_plugins_before_is_taken() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "cniVersion": "1.1.0" }));
    let many: Vec<Value> = (0..5_000).map(|n| json!({ "name": format!("if{n}") })).collect();
    let before = json!({ "cniVersion": "1.1.0", "interfaces": many });
    let result = cni.call("ADD", &[("prevResult", before)]).unwrap().unwrap();
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 5_001);
    assert_eq!(result["ips"][0]["interface"], 5_000);
    cni.check_against(result).unwrap();
}

#[test]
fn namespace_is_found_by_bind_mount_and_symbolic_link() {
    let world = needs!(World::root());
    let folder = world.folder().display().to_string();
    let own = format!("/proc/{}/ns/net", world.guest.pid());
    world.host.script(&format!(
        "mkdir {folder}/netns; touch {folder}/netns/bound; mount --bind {own} {folder}/netns/bound
        ln -s {folder}/netns/bound {folder}/a; ln -s a {folder}/b; ln -s {own} {folder}/c"
    ));
    for path in ["netns/bound", "b", "c"] {
        let path = format!("{folder}/{path}");
        let cni = MiniCni::new(&world, &json!({})).netns(&path);
        let result = cni.add().unwrap();
        assert_eq!(result["interfaces"][0]["sandbox"], path.as_str());
        assert_connected(&world);
        cni.check().unwrap();
        cni.del().unwrap();
    }
    // The mount would keep the namespace, and the folder, alive.
    world.host.script(&format!("umount {folder}/netns/bound"));
}

#[test]
fn what_is_no_container_is_refused() {
    let world = needs!(World::ordinary());
    let folder = world.folder().display().to_string();
    std::fs::write(world.folder().join("file"), "").unwrap();
    let user = format!("/proc/{}/ns/user", world.guest.pid());
    let missing = format!("{folder}/missing");
    world.host.script(&format!("mkfifo -m 0666 {folder}/fifo"));
    for (netns, code, part) in [
        (format!("/proc/{}/ns/net", world.host.pid()), 999, "Permission denied"),
        ("/proc/self/ns/net".to_owned(), 8, "netns from CNI_NETNS should not be the same"),
        (user, 4, "is not a network namespace"),
        (format!("{folder}/file"), 4, "is not a network namespace"),
        (format!("{folder}/fifo"), 4, "is not a network namespace"),
        ("/dev/null".to_owned(), 4, "is not a network namespace"),
        (missing, 3, "No such file or directory"),
        ("/proc/999999999/ns/net".to_owned(), 3, "No such file or directory"),
    ] {
        let failure = MiniCni::new(&world, &json!({})).netns(&netns).add().unwrap_err();
        assert!(failure.code == code && failure.message.contains(part), "{netns}: {failure:?}");
        assert!(failure.message.starts_with("add slirp eth0: "), "{failure:?}");
    }
}

#[test]
fn namespace_of_a_foreign_owner_is_refused_in_words() {
    let world = needs!(World::root());
    let folder = world.folder().display().to_string();
    // Readable by everybody, owned by the machine's root.
    let own = format!("/proc/{}/ns/net", world.remote.pid());
    world.host.script(&format!("touch {folder}/foreign; mount --bind {own} {folder}/foreign"));
    let cni = MiniCni::new(&world, &json!({}))
        .account(Account::Ordinary)
        .netns(&format!("{folder}/foreign"));
    let failure = cni.add().unwrap_err();
    assert_eq!(failure.code, 999, "{failure:?}");
    assert!(
        failure.message.contains("Operation not permitted") || failure.message.contains("not ours"),
        "{failure:?}"
    );
    assert!(!failure.details.is_empty(), "{failure:?}");
    world.host.script(&format!("umount {folder}/foreign"));
}

#[test]
fn interface_that_exists_is_refused_and_left_alone() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        for script in
            ["ip tuntap add name eth0 mode tap", "ip link add eth0 type veth peer name v1"]
        {
            world.guest.script(script);
            let cni = MiniCni::new(&world, &json!({}));
            let failure = cni.add().unwrap_err();
            assert!(
                failure
                    .message
                    .starts_with("add slirp eth0: interface eth0 exists already in /proc/"),
                "{failure:?}"
            );
            cni.del().unwrap();
            assert!(!interface_is_gone(&world, "eth0"), "it is not ours to remove");
            world.guest.script("ip link del eth0");
        }
    }
}

#[test]
fn second_addition_is_refused_in_the_original_words() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let failure = cni.add().unwrap_err();
    let start = "add slirp eth0: a slirp4netns process (";
    assert!(failure.message.starts_with(start), "{failure:?}");
    assert!(
        failure.message.contains("is already running for netns (containerID: c1"),
        "{failure:?}"
    );
    assert_connected(&world);
}

#[test]
fn two_networks_of_one_container_have_their_own_interfaces() {
    let world = needs!(World::ordinary());
    let first = MiniCni::new(&world, &json!({ "name": "one" })).ifname("cni0");
    let second =
        MiniCni::new(&world, &json!({ "name": "two", "cidr": "10.9.0.0/24", "metric": 9 }))
            .ifname("cni1");
    first.add().unwrap();
    second.add().unwrap();
    let shown = world.guest.script("ip -4 -o addr");
    assert!(shown.contains("cni0") && shown.contains("cni1"), "{shown}");
    assert_connected(&world);
    first.del().unwrap();
    assert!(interface_is_gone(&world, "cni0") && !interface_is_gone(&world, "cni1"));
    second.check().unwrap();
}

#[test]
fn bad_configuration_fails_addition_but_not_deletion() {
    let world = needs!(World::ordinary());
    let good = MiniCni::new(&world, &json!({}));
    good.add().unwrap();
    for (config, code, message) in [
        (json!({ "mtu": 1499 }), 7, "invalid MTU value 1499 configured. 1500 <= MTU <= 65521"),
        (json!({ "ipam": { "type": "host-local" } }), 7, "ipam plugin not supported within slirp"),
        (
            json!({ "cidr": "x" }),
            7,
            "cidr: invalid network \"x\": expected one such as 10.0.2.0/24",
        ),
    ] {
        let bad = MiniCni::new(&world, &config);
        let failure = bad.add().unwrap_err();
        let expected = format!("add slirp eth0: {message}");
        assert_eq!((failure.code, failure.message), (code, expected));
        assert_eq!(bad.del(), Ok(()));
        assert!(interface_is_gone(&world, "eth0"), "deletion works whatever the rest says");
    }
}

#[test]
fn host_namespaces_of_two_containers_do_not_mix() {
    let world = needs!(World::ordinary());
    let other = Namespace::container(&world.host, Account::Ordinary);
    let first = MiniCni::new(&world, &json!({}));
    let second = MiniCni::new(&world, &json!({}))
        .container("c2")
        .netns(&format!("/proc/{}/ns/net", other.pid()));
    first.add().unwrap();
    second.add().unwrap();
    first.del().unwrap();
    second.check().unwrap();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&other, server.address()).expect("the second container is on the network");
    let left: Vec<Value> = second.attachments();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["containerID"], "c2");
}

#[test]
fn runtime_in_a_container_attaches_containers_of_its_own() {
    for account in ACCOUNTS {
        let world = needs!(World::of(account));
        let outer = MiniCni::new(&world, &json!({ "name": "outer" })).ifname("cni0");
        outer.add().unwrap();
        let nested = Namespace::container(&world.guest, Account::Root);
        let inner = MiniCni::new(&world, &json!({}))
            .inside(&world.guest)
            .container("nested")
            .netns(&format!("/proc/{}/ns/net", nested.pid()));
        inner.add().unwrap();
        let server = TcpServer::echo(&world.remote, (FAR, 0).into());
        let stream = connect(&nested, server.address()).expect("the way out leads through both");
        send_exact(&stream, 1, 1 << 16).unwrap();
        receive_exact(&stream, 1, 1 << 16).unwrap();
        inner.check().unwrap();
        inner.del().unwrap();
        assert!(!nested.exec(&["ip", "link", "show", "eth0"]).status.success());
        outer.check().unwrap();
    }
}
