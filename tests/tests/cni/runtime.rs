//! `CHECK`, `GC` and `STATUS` of a CNI runtime, plugin chains, and the tool for people.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};
use slirp_tests::*;

fn second<'w>(world: &'w World, other: &Namespace, name: &str) -> MiniCni<'w> {
    MiniCni::new(world, &json!({ "name": name }))
        .container("c2")
        .netns(&format!("/proc/{}/ns/net", other.pid()))
}

fn containers(cni: &MiniCni<'_>) -> Vec<String> {
    let list = cni.attachments();
    list.iter().map(|one| one["containerID"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn check_tolerates_what_was_added() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "enableIPv6": true }));
    cni.add().unwrap();
    // What later plugins of a chain may do.
    world.guest.script(
        "ip addr add 192.0.2.7/24 dev eth0; ip route add 198.18.0.0/15 via 10.0.2.2
        ip link set eth0 mtu 1400; ip link set eth0 address 02:00:00:00:00:99",
    );
    cni.check().unwrap();
}

#[test]
fn check_finds_what_is_missing() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "enableIPv6": true }));
    cni.add().unwrap();
    for (family, gateway) in [("-4", "10.0.2.2"), ("-6", "fd00::2")] {
        let change = |verb: &str, table: &str| {
            let route = format!("default via {gateway} dev eth0 table {table}");
            world.guest.script(&format!("ip {family} route {verb} {route}"));
        };
        change("add", "100");
        change("del", "main");
        cni.check().unwrap();
        change("del", "100");
        let missing = format!("there is no default route via {gateway} through eth0");
        assert_eq!(cni.check().unwrap_err().message, format!("check slirp eth0: {missing}"));
        change("add", "main");
    }
    for (script, undo, message) in [
        (
            "ip route del default via 10.0.2.2",
            "ip route add default via 10.0.2.2",
            "there is no default route via 10.0.2.2 through eth0",
        ),
        (
            "ip addr del fd00::100/64 dev eth0",
            "ip addr add fd00::100/64 dev eth0 nodad; ip -6 route replace default via fd00::2 dev \
             eth0",
            "interface eth0 does not have the address fd00::100",
        ),
        ("ip link set eth0 down", "ip link set eth0 up", "interface eth0 is down"),
    ] {
        world.guest.script(script);
        let failure = cni.check().unwrap_err();
        assert_eq!(failure.message, format!("check slirp eth0: {message}"));
        world.guest.script(undo);
    }
}

/// Debian's plugins write what they remember there.
const OTHERS_FOLDERS: &str = "mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib";

/// `ADD` by ours and then by other plugins, a `CHECK` of each, and `DEL` in the other order. Other
/// plugins are Debian's, by their configurations. portmap's own `CHECK` is left out: that of Debian
/// 12 looks for rules of IPv4 among those of IPv6 and fails behind any plugin.
fn assert_chain_works(world: &World, ours: &Value, configs: &[Value]) {
    world.host.script(OTHERS_FOLDERS);
    let first = MiniCni::new(world, ours);
    let others: Vec<MiniCni<'_>> = configs
        .iter()
        .map(|config| {
            // The newest version that Debian 12's know.
            let mut config = config.clone();
            config["cniVersion"] = json!("1.0.0");
            let name = config["type"].as_str().unwrap().to_owned();
            let path = Path::new("/usr/lib/cni").join(name);
            MiniCni::new(world, &config).program(&path)
        })
        .collect();
    let mut result = first.add().unwrap();
    for other in &others {
        result = other.call("ADD", &[("prevResult", result)]).unwrap().unwrap();
    }
    first.check_against(result.clone()).unwrap();
    for (other, _) in others.iter().zip(configs).filter(|(_, config)| config["type"] != "portmap") {
        other.check_against(result.clone()).unwrap();
    }
    for other in others.iter().rev() {
        other.call("DEL", &[("prevResult", result.clone())]).unwrap();
    }
    first.call("DEL", &[("prevResult", result)]).unwrap();
    assert!(first.attachments().is_empty());
}

/// The plugins of others, and what they run.
fn others() -> Result<(), Missing> {
    is_there("/usr/lib/cni/sbr").and_then(|()| is_installed("iptables"))
}

#[test]
fn default_routes_may_be_moved_to_another_table_by_source_based_routing() {
    needs!(others());
    let world = needs!(World::root());
    let ours = json!({ "cniVersion": "1.0.0", "enableIPv6": true });
    assert_chain_works(&world, &ours, &[json!({ "type": "sbr" })]);
}

#[test]
fn other_plugins_of_a_chain_may_change_what_they_are_for() {
    needs!(others());
    let world = needs!(World::root());
    let tuning = json!({
        "type": "tuning",
        "mac": "02:00:00:00:00:99",
        "mtu": 1400,
        "promisc": true,
        "sysctl": { "net.ipv4.conf.eth0.rp_filter": "2" },
    });
    let port = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let portmap = json!({ "type": "portmap", "runtimeConfig": { "portMappings": port } });
    let ours = json!({ "cniVersion": "1.0.0", "enableIPv6": true, "portMappings": port });
    let others = [tuning, portmap, json!({ "type": "firewall" }), json!({ "type": "sbr" })];
    assert_chain_works(&world, &ours, &others);
}

#[test]
fn check_needs_the_result_and_a_version_that_has_it() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    let failure = cni.check().unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (7, "check slirp eth0: required prevResult missing")
    );
    for (version, command) in [("0.3.1", "CHECK"), ("1.0.0", "GC"), ("1.0.0", "STATUS")] {
        let old = MiniCni::new(&world, &json!({ "cniVersion": version }));
        let failure = old.call(command, &[]).unwrap_err();
        let message = format!("config version does not allow {command}");
        assert_eq!((failure.code, failure.message), (1, message));
    }
}

#[test]
fn check_of_a_port_that_is_not_forwarded_names_it() {
    let world = needs!(World::ordinary());
    let with =
        |ports: Value| MiniCni::new(&world, &json!({ "enableIPv6": true, "portMappings": ports }));
    let port = |address: &str| json!({ "hostPort": 8080, "containerPort": 80, "hostIP": address });
    let present = with(json!([port("127.0.0.1"), port("::1")]));
    let result = present.add().unwrap();
    present.check().unwrap();
    let mut udp = port("127.0.0.1");
    udp["protocol"] = json!("udp");
    for (absent, shown) in [
        (json!({ "hostPort": 8081, "containerPort": 80 }), "0.0.0.0:8081->80/tcp"),
        (port("198.51.100.1"), "198.51.100.1:8080->80/tcp"),
        (port("2001:db8:1::1"), "[2001:db8:1::1]:8080->80/tcp"),
        (udp, "127.0.0.1:8080->80/udp"),
    ] {
        let failure = with(json!([absent])).check_against(result.clone()).unwrap_err();
        let message = format!("check slirp eth0: port mapping {shown} is not there");
        assert_eq!(failure.message, message);
    }
}

#[test]
fn collection_removes_what_the_runtime_does_not_list() {
    let world = needs!(World::ordinary());
    let other = Namespace::container(&world.host, Account::Ordinary);
    let first = MiniCni::new(&world, &json!({}));
    let another_network = second(&world, &other, "another");
    first.add().unwrap();
    another_network.add().unwrap();
    first.gc(Some(json!([{ "containerID": "c1", "ifname": "eth0" }]))).unwrap();
    assert_eq!(containers(&first).len(), 2);
    first.gc(None).unwrap();
    assert_eq!(containers(&first).len(), 2, "without a list, what lives stays");
    first.gc(Some(json!([]))).unwrap();
    assert_eq!(containers(&first), ["c2"], "another network is not touched");
    assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success());
    another_network.check().unwrap();
}

#[test]
fn collection_without_a_list_removes_what_has_died() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let keeper = cni.keeper();
    world.host.script(&format!("kill -9 {keeper}"));
    wait_until(PATIENCE, "the keeper is killed", || !ProcessFacts(keeper).is_alive());
    assert_eq!(cni.attachments()[0]["state"], "dead");
    cni.gc(None).unwrap();
    assert!(cni.attachments().is_empty());
}

#[test]
fn status_refuses_a_configuration_that_could_not_be_added() {
    let world = needs!(World::ordinary());
    MiniCni::new(&world, &json!({})).status().unwrap();
    let failure = MiniCni::new(&world, &json!({ "mtu": 1 })).status().unwrap_err();
    assert_eq!(failure.code, 7);
    let failure = MiniCni::new(&world, &json!({}))
        .variable("SLIRP4NETNS", "/no/such/program")
        .status()
        .unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (50, "SLIRP4NETNS: /no/such/program cannot be run")
    );
}

#[test]
fn tool_lists_and_removes_attachments() {
    let world = needs!(World::ordinary());
    let config = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
    let cni = MiniCni::new(&world, &config);
    cni.add().unwrap();
    let listed = cni.tool(&["ls"]).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("CONTAINER  INTERFACE  NETWORK"), "{listed}");
    for part in ["c1", "eth0", "slirp", "10.0.2.100", "running", "0.0.0.0:8080->80/tcp"] {
        assert!(lines[1].contains(part), "{part}: {listed}");
    }
    let removed = cni.tool(&["rm", "c1"]);
    assert!(removed.status.success(), "{}", removed.stderr);
    assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success());
    let again = cni.tool(&["rm", "c1"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains("c1 has no attachment"), "{}", again.stderr);
    assert_eq!(cni.tool(&["ls", "--wrong"]).status.code(), Some(2));
}

#[test]
fn another_program_serves_where_the_variable_names_one() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        for program in [binary_under_test().to_str().unwrap(), "slirp4netns"] {
            let config = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
            let cni = MiniCni::new(&world, &config).variable("SLIRP4NETNS", program);
            let result = cni.add().unwrap();
            let shown = world.guest.script("ip addr show eth0");
            let mac = result["interfaces"][0]["mac"].as_str().unwrap();
            assert!(shown.contains(mac) && shown.contains("10.0.2.100/24"), "{shown}");
            let guest: IpAddr = GUEST;
            let _server = TcpServer::echo(&world.guest, (guest, 80).into());
            connect(&world.remote, (HOST, 8080).into()).expect("the port is forwarded");
            let command = std::fs::read(format!("/proc/{}/cmdline", cni.engine())).unwrap();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            assert!(command.starts_with("slirp4netns -c -m 1500 -r "), "{command}");
            cni.check().unwrap();
            cni.del().unwrap();
            assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success());
            assert!(cni.attachments().is_empty());
        }
    }
}

#[test]
fn program_that_does_not_become_ready_is_an_error() {
    let world = needs!(World::ordinary());
    for (program, message) in [
        ("/bin/true", "await ready message from slirp4netns: EOF"),
        ("/no/such/program", "/no/such/program: No such file or directory (os error 2)"),
        ("no-such-program", "cannot find no-such-program in path"),
        ("", "SLIRP4NETNS is set to nothing (hint: unset it to use the built-in engine)"),
    ] {
        let cni = MiniCni::new(&world, &json!({})).variable("SLIRP4NETNS", program);
        let failure = cni.add().unwrap_err();
        assert_eq!(failure.message, format!("add slirp eth0: {message}"));
        cni.del().unwrap();
    }
}

#[test]
fn version_is_answered_to_a_runtime_that_sends_next_to_nothing() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "cniVersion": "1.0.0" })).netns("dummy");
    let answer = cni.call("VERSION", &[]).unwrap().unwrap();
    assert_eq!(answer["cniVersion"], "1.0.0");
    assert_eq!(answer["supportedVersions"].as_array().unwrap().len(), 7);
}
