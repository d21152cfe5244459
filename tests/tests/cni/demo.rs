//! Two documents, step by step. One is the original plugin's, with two terminals. The other is the
//! CNI demo: `runc spec --rootless`, a container that waits to be started, and the plugin called by
//! hand with environment variables, through the symbolic link that makes `ip netns` work. The
//! demo's own plugin is `bridge`; both pass the same checks.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use slirp_tests::*;

/// The demo's variables; the rest of a command line comes behind them.
const VARIABLES: &str = "export CNI_PATH=/opt/cni/bin/ CNI_CONTAINERID=demo \
                         CNI_NETNS=/var/run/netns/demo CNI_IFNAME=eth0";

/// The container's path of its network namespace, as runc writes it down.
fn netns(oci: &Oci) -> String {
    let state = oci.script("cat $XDG_RUNTIME_DIR/runc/demo/state.json");
    let state: Value = serde_json::from_str(&state).expect("runc writes JSON");
    state["namespace_paths"]["NEWNET"].as_str().expect("runc knows its namespaces").to_owned()
}

/// Runs a script as root on the host, as the demo does with sudo.
fn sudo(oci: &Oci, script: &str) -> String {
    let output = oci.session.exec_as(Account::Root, &["sh", "-euc", script]);
    assert!(output.status.success(), "{script}: {}{}", output.stdout, output.stderr);
    output.stdout
}

/// Creates the container `demo` and makes `ip netns` know it.
fn create_demo(oci: &Oci) {
    oci.prepare("demo", &Setup { stages: vec![], ..Setup::default() });
    oci.script("cd demo; runc create demo </dev/null >said 2>&1");
    let listed = oci.script("runc list");
    assert!(listed.lines().any(|l| l.starts_with("demo ") && l.contains("created")), "{listed}");
    let before = oci.exec("demo", &["ip", "-o", "a", "s"]);
    assert!(before.contains("inet 127.0.0.1/8 scope host lo"), "{before}");
    assert!(before.lines().all(|line| line.starts_with("1: lo")), "{before}");
    sudo(oci, &format!("mkdir -p /var/run/netns; ln -s {} /var/run/netns/demo", netns(oci)));
}

/// The demo's configuration of a bridge, word for word.
const BRIDGE_CONFIG: &str = r#"{
    "cniVersion": "0.4.0",
    "name": "connet",
    "type": "bridge",
    "bridge": "cbr0",
    "isGateway": true,
    "ipMasq": true,
    "ipam": {
        "type": "host-local",
        "ranges": [
          [
            {
              "subnet": "192.168.199.0/24"
            }
          ],
          [
            {
              "subnet": "fde4:8dba:82e1::/64"
            }
          ]
        ],
        "routes": [
            { "dst": "0.0.0.0/0" },
            { "dst": "fde4:8dba:82e1::1/64" }
        ],
     "dataDir": "/run/ipam-state"
    },
    "dns": {
      "nameservers": [ "8.8.8.8" ]
    }
}"#;

/// The same configuration for the plugin under test.
const SLIRP_CONFIG: &str = r#"{
    "cniVersion": "0.4.0",
    "name": "connet",
    "type": "slirp",
    "cidr": "192.168.199.0/24",
    "enableIPv6": true,
    "cidr6": "fde4:8dba:82e1::/64",
    "portMappings": [ { "hostPort": 8080, "containerPort": 80 } ],
    "dns": {
      "nameservers": [ "8.8.8.8" ]
    }
}"#;

/// A plugin in the demo, and what only it needs.
struct Played {
    config: &'static str,
    /// What the host has to have.
    prepare: &'static str,
    /// The user that calls the plugin.
    by_root: bool,
    addresses: [&'static str; 2],
    gateways: [&'static str; 2],
    /// How the host reaches a web server in the container.
    reached: &'static str,
}

const PLAYED: [Played; 3] = [
    Played {
        config: BRIDGE_CONFIG,
        prepare: "ip link add name cbr0 type bridge
            ip addr add 192.168.199.1/24 dev cbr0
            ip addr add fde4:8dba:82e1::1/64 dev cbr0
            ip link set dev cbr0 up",
        by_root: true,
        addresses: ["192.168.199.2/24", "fde4:8dba:82e1::2/64"],
        gateways: ["192.168.199.1", "fde4:8dba:82e1::1"],
        reached: "http://192.168.199.2/",
    },
    Played {
        config: SLIRP_CONFIG,
        prepare: "",
        by_root: true,
        addresses: ["192.168.199.100/24", "fde4:8dba:82e1::100/64"],
        gateways: ["192.168.199.2", "fde4:8dba:82e1::2"],
        reached: "http://127.0.0.1:8080/",
    },
    Played {
        config: SLIRP_CONFIG,
        prepare: "",
        by_root: false,
        addresses: ["192.168.199.100/24", "fde4:8dba:82e1::100/64"],
        gateways: ["192.168.199.2", "fde4:8dba:82e1::2"],
        reached: "http://127.0.0.1:8080/",
    },
];

#[test]
fn bridge_and_slirp_pass_the_checks_of_the_demo_side_by_side() {
    needs!(is_there("/usr/lib/cni/bridge"));
    for played in PLAYED {
        let oci = needs!(Oci::open(Account::Ordinary, "runc"));
        create_demo(&oci);
        sudo(&oci, played.prepare);
        let folders = "/opt/cni/bin /opt/cni/netconfs";
        sudo(
            &oci,
            &format!(
                "mount -t tmpfs -o mode=0755 tmpfs /opt; mkdir -p {folders}
            cp /usr/lib/cni/bridge /usr/lib/cni/host-local /opt/cni/bin; cp {} /opt/cni/bin/slirp
            cat > /opt/cni/netconfs/10-connet.conf <<'EOF'\n{}\nEOF\n",
                oci.hook(),
                played.config
            ),
        );
        let kind: Value = serde_json::from_str(played.config).expect("it is JSON");
        let kind = kind["type"].as_str().expect("it has a type").to_owned();
        let call = |command: &str| {
            let script = format!(
                "{VARIABLES} CNI_COMMAND={command}; cat /opt/cni/netconfs/10-connet.conf | \
                 $CNI_PATH/{kind}"
            );
            if played.by_root { sudo(&oci, &script) } else { oci.script(&script) }
        };

        let result: Value = serde_json::from_str(&call("ADD")).expect("a result");
        assert_eq!(result["cniVersion"], "0.4.0");
        let interfaces = result["interfaces"].as_array().expect("interfaces are listed");
        let index = interfaces.iter().position(|one| one["name"] == "eth0").expect("eth0 is one");
        assert_eq!(interfaces[index]["sandbox"], "/var/run/netns/demo");
        let expected: Vec<Value> = ["4", "6"]
            .into_iter()
            .zip(played.addresses)
            .zip(played.gateways)
            .map(|((version, address), gateway)| {
                json!({
                    "version": version, "interface": index, "address": address, "gateway": gateway,
                })
            })
            .collect();
        assert_eq!(result["ips"], json!(expected));
        assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");
        assert_eq!(result["dns"]["nameservers"][0], "8.8.8.8");

        let shown = sudo(&oci, "ip netns exec demo ip -o a s eth0");
        let of_link = format!("inet {} brd 192.168.199.255 scope global eth0", played.addresses[0]);
        let global = format!("inet6 {} scope global", played.addresses[1]);
        for part in [&*of_link, &*global, "inet6 fe80:"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let mac = interfaces[index]["mac"].as_str().expect("a MAC address");
        let link = sudo(&oci, "ip netns exec demo ip link show eth0");
        assert!(link.contains(mac), "{mac}: {link}");
        let routes = sudo(&oci, "ip netns exec demo ip route");
        let default = format!("default via {} dev eth0", played.gateways[0]);
        assert!(
            routes.contains(&default) && routes.contains("192.168.199.0/24 dev eth0"),
            "{routes}"
        );
        for gateway in played.gateways {
            sudo(&oci, &format!("ip netns exec demo ping -c 1 -W 20 {gateway}"));
        }
        // The demo pings the container from the host. That of a user-mode network is behind ports,
        // not addresses.
        sudo(
            &oci,
            "mkdir /run/www; echo of demo > /run/www/index.html
            ip netns exec demo busybox httpd -p 80 -h /run/www",
        );
        let page =
            sudo(&oci, &format!("curl --silent --show-error --max-time 50 {}", played.reached));
        assert_eq!(page, "of demo\n");

        assert_eq!(call("DEL"), "", "there is no output expected");
        let after = oci
            .session
            .exec_as(Account::Root, &["ip", "netns", "exec", "demo", "ip", "-o", "a", "s", "eth0"]);
        assert_eq!(after.stderr.trim(), "Device \"eth0\" does not exist.");
        assert_eq!(call("DEL"), "", "and once more");
        oci.delete("demo");
        assert!(oci.is_clean());
    }
}

#[test]
fn demo_with_rootless_runc_from_create_to_delete() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    create_demo(&oci);
    let config = json!({
        "cniVersion": "0.4.0", "name": "connet", "type": "slirp", "enableIPv6": true,
        "dns": { "nameservers": ["8.8.8.8"] },
    });
    oci.script(&format!("echo '{config}' > connet.conf; ln -s {} slirp", oci.hook()));
    let call = |command: &str| {
        oci.script(&format!("{VARIABLES}; CNI_COMMAND={command} ./slirp < connet.conf"))
    };

    let result: Value = serde_json::from_str(&call("ADD")).expect("a result");
    let mac = &result["interfaces"][0]["mac"];
    let expected = json!({
        "cniVersion": "0.4.0",
        "interfaces": [{ "name": "eth0", "mac": mac, "sandbox": "/var/run/netns/demo" }],
        "ips": [
            { "version": "4", "interface": 0, "address": "10.0.2.100/24", "gateway": "10.0.2.2" },
            { "version": "6", "interface": 0, "address": "fd00::100/64", "gateway": "fd00::2" },
        ],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.2.2" }, { "dst": "::/0", "gw": "fd00::2" }],
        "dns": { "nameservers": ["8.8.8.8", "10.0.2.3", "fd00::3"] },
    });
    assert_eq!(result, expected);
    let shown = oci.exec("demo", &["ip", "-o", "address", "show", "eth0"]);
    assert!(shown.contains("10.0.2.100/24") && shown.contains("fd00::100/64"), "{shown}");
    let routes = oci.exec("demo", &["ip", "route"]);
    assert!(routes.contains("default via 10.0.2.2 dev eth0"), "{routes}");
    let link = oci.exec("demo", &["ip", "link", "show", "eth0"]);
    assert!(link.contains(mac.as_str().expect("a MAC address")), "{link}");
    oci.exec("demo", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);

    oci.start_created("demo");
    oci.exec("demo", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
    assert_eq!(call("DEL"), "", "DEL prints nothing");
    let after = oci.call(&["exec", "demo", "ip", "-o", "address", "show", "eth0"]);
    assert!(!after.status.success(), "{}", after.stdout);
    assert_eq!(call("DEL"), "", "and once more");
    oci.delete("demo");
    assert!(oci.is_clean());
}

#[test]
fn two_terminals_an_unshared_shell_and_a_runtime_of_the_same_user() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({ "name": "slirp", "mtu": 1500, "cniVersion": null }));
    let page = web_server(&world.host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _dns = Dnsmasq::start(&world.host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)), &[]);
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    let port = page.address().port();
    for _ in 0..2 {
        cni.add().expect("the network is added");
        let shown = world.guest.script("ip addr show eth0");
        assert!(shown.contains("mtu 1500") && shown.contains("10.0.2.100/24"), "{shown}");
        let curl = "curl --silent --show-error --max-time 50";
        let host = world.guest.script(&format!("{curl} http://10.0.2.2:{port}/"));
        assert_eq!(host, "visitor 127.0.0.1\n");
        assert_eq!(
            world.guest.script(&format!("{curl} http://www.example.test")),
            "visitor 198.51.100.1\n"
        );
        cni.del().expect("the network is removed");
        assert!(!world.guest.exec(&["ip", "link", "show", "eth0"]).status.success());
    }
}
