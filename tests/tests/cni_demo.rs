//! The walks of two documents: the original plugin's two terminals, and the CNI demo: `runc spec --rootless`, a container that waits to be started, and the plugin called by hand, by
//! environment variables, through the symbolic link that makes `ip netns` work.

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

#[test]
fn demo_with_rootless_runc_from_create_to_delete() {
    let oci = match Oci::open(Account::Ordinary, "runc") {
        Ok(oci) => oci,
        Err(missing) => return skip(&missing),
    };
    oci.prepare("demo", &Setup { stages: vec![], ..Setup::default() });
    oci.script("cd demo; runc create demo </dev/null >said 2>&1");
    let before = oci.exec("demo", &["ip", "-o", "address"]);
    assert!(!before.contains("eth0"), "{before}");
    let link = format!("mkdir -p /var/run/netns; ln -s {} /var/run/netns/demo", netns(&oci));
    let linked = oci.session.exec_as(Account::Root, &["sh", "-euc", &link]);
    assert!(linked.status.success(), "{}", linked.stderr);
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
    oci.exec("demo", &["ping", "-c", "1", "-W", "5", "10.0.2.2"]);

    let started = oci.call(&["start", "demo"]);
    assert!(started.status.success(), "{}", started.stderr);
    oci.exec("demo", &["ping", "-c", "1", "-W", "5", "10.0.2.2"]);
    assert_eq!(call("DEL"), "", "DEL prints nothing");
    let after = oci.call(&["exec", "demo", "ip", "-o", "address", "show", "eth0"]);
    assert!(!after.status.success(), "{}", after.stdout);
    assert_eq!(call("DEL"), "", "and once more");
    oci.delete("demo");
    assert!(oci.is_clean());
}

#[test]
fn two_terminals_an_unshared_shell_and_a_runtime_of_the_same_user() {
    let world = world!(Account::Ordinary);
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
        let curl = "curl --silent --show-error --max-time 10";
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
