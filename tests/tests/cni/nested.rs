//! User-mode networking as in ctnr's documentation: an ordinary user's container is on the plugin's
//! network. Inside it are containers on the plugin's network and on a bridge, which reach each
//! other and the world.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use slirp_tests::*;

/// Where the outer container has the program under test.
const PLUGIN: &str = "/opt/cni/slirp";
/// Debian's.
const BRIDGE: &str = "/usr/lib/cni/bridge";
/// What a container engine gives to a privileged container of an ordinary user.
const CAPABILITIES: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL \
    MKNOD NET_ADMIN \
    NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_CHROOT \
    SYS_PTRACE SYS_RESOURCE";

/// An ordinary user's container `outer` that may make containers.
struct Outer {
    oci: Oci,
}

impl Outer {
    fn open() -> Result<Self, Missing> {
        for program in ["runc", "iptables"] {
            is_installed(program)?;
        }
        is_there(BRIDGE)?;
        let oci = Oci::open(Account::Ordinary, "runc")?;
        oci.prepare("outer", &Setup { stages: vec![], ..Setup::default() });
        let plugins = oci.session.world.folder().join("tools/cni");
        let hook = oci.hook();
        let plugin = plugins.display();
        let made = oci.session.exec_as(
            Account::Root,
            &["sh", "-euc", &format!("mkdir {plugin}; cp {hook} {plugin}/slirp")],
        );
        assert!(made.status.success(), "{}", made.stderr);
        oci.script(
            "cd outer/rootfs; mkdir -p usr opt/cni etc/alternatives dev/net
            for folder in lib lib64 sbin; do ln -s usr/$folder $folder; done",
        );
        let this = Self { oci };
        this.oci.edit("outer", |config| {
            let all: Vec<String> =
                CAPABILITIES.split_whitespace().map(|name| format!("CAP_{name}")).collect();
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(all);
            }
            config["process"]["env"] = json!(["PATH=/bin:/usr/sbin:/usr/bin:/sbin"]);
            // An inner /proc cannot be mounted where parts of the outer one are hidden.
            config["linux"]["maskedPaths"] = json!([]);
            config["linux"]["readonlyPaths"] = json!([]);
            let mounts = config["mounts"].as_array_mut().expect("mounts are listed");
            let plugins = plugins.to_str().expect("temporary folders have plain names");
            for (source, destination, options) in [
                ("/usr", "/usr", json!(["rbind", "ro"])),
                ("/etc/alternatives", "/etc/alternatives", json!(["rbind", "ro"])),
                ("/dev/net", "/dev/net", json!(["bind"])),
                (plugins, "/opt/cni", json!(["bind", "ro"])),
            ] {
                mounts.push(json!({
                    "source": source, "destination": destination,
                    "type": "bind", "options": options,
                }));
            }
        });
        this.oci.start("outer").expect("the outer container runs");
        Ok(this)
    }

    /// Calls the plugin for the outer container.
    fn attach(&self, command: &str, netns: &str) -> String {
        let plugin = self.oci.session.world.folder().join("tools/cni/slirp");
        self.oci.script(&format!(
            "echo '{SLIRP}' | CNI_COMMAND={command} CNI_CONTAINERID=outer CNI_NETNS={netns} \
             CNI_IFNAME=cni0 CNI_PATH=/opt/cni {}",
            plugin.display()
        ))
    }

    /// Runs a script in the outer container.
    fn script(&self, script: &str) -> String {
        self.oci.exec("outer", &["sh", "-euc", script])
    }

    /// Starts a container in the outer one, without any network yet.
    fn create(&self, id: &str, process: &[&str]) {
        self.oci.prepare(id, &Setup { stages: vec![], ..Setup::default() });
        self.oci.edit(id, |config| {
            config["process"]["args"] = json!(process);
            for mappings in ["uidMappings", "gidMappings"] {
                config["linux"][mappings] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
            }
        });
        self.oci.script(&format!("mv {id} outer/rootfs/tmp/"));
        self.script(&format!(
            "cd /tmp/{id}; runc --rootless=true --root /tmp/runc create {id} </dev/null >said 2>&1 \
             || {{ cat said; exit 1; }}"
        ));
    }

    fn runc(&self, arguments: &str) -> String {
        self.script(&format!("runc --rootless=true --root /tmp/runc {arguments}"))
    }

    /// Calls a plugin in the outer container for an inner one, whose namespace is told unless it is
    /// to be deleted.
    fn call(&self, command: &str, id: &str, ifname: &str, plugin: &str, config: &str) -> String {
        let netns = if command == "DEL" {
            String::new()
        } else {
            let state: Value =
                serde_json::from_str(&self.runc(&format!("state {id}"))).expect("a state");
            format!("/proc/{}/ns/net", state["pid"])
        };
        self.script(&format!(
            "echo '{config}' | CNI_COMMAND={command} CNI_CONTAINERID={id} CNI_NETNS={netns} \
             CNI_IFNAME={ifname} CNI_PATH=/opt/cni:/usr/lib/cni {plugin}"
        ))
    }

    fn in_inner(&self, id: &str, command: &str) -> String {
        self.runc(&format!("exec {id} {command}"))
    }
}

/// ctnr's own configurations.
const SLIRP: &str = r#"{"name":"slirp","type":"slirp","mtu":1500}"#;

fn bridge(masquerades: bool) -> String {
    json!({
        "cniVersion": "0.3.1", "type": "bridge", "name": "bridge", "bridge": "ctnr-bridge",
        "ipMasq": masquerades, "isGateway": true,
        "ipam": {
            "type": "host-local", "subnet": "10.2.0.0/24", "dataDir": "/tmp/ipam",
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
        "dns": { "nameservers": ["10.2.0.1"] },
    })
    .to_string()
}

#[test]
fn container_reaches_host_and_world_but_not_the_other_way_around() {
    let outer = needs!(Outer::open());
    let world = &outer.oci.session.world;
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    let _dns = Dnsmasq::start(&world.host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)), &[]);
    let _far = web_server(&world.remote, (FAR, 80).into());
    let host = web_server(&world.host, (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into());
    let netns = format!("/proc/{}/ns/net", outer.oci.pid("outer"));
    let result: Value = serde_json::from_str(&outer.attach("ADD", &netns)).expect("a result");
    let server = result["dns"]["nameservers"][0].as_str().expect("a name server");
    outer.script(&format!("echo nameserver {server} > /etc/resolv.conf"));
    let shown = outer.script("ip addr");
    for part in ["lo: <LOOPBACK,UP", "cni0: <", "mtu 1500", "inet 10.0.2.100/24 brd 10.0.2.255"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    outer.script("wget -q --spider http://www.example.test");
    let port = host.address().port();
    let page = outer.script(&format!("wget -q -O - http://10.0.2.2:{port}/"));
    assert_eq!(page, "visitor 127.0.0.1\n");
    outer.script(
        "nc -ll -p 8080 -e echo hello >/dev/null 2>&1 </dev/null &
        until nc 127.0.0.1 8080; do sleep 0.1; done",
    );
    assert!(connect(&world.host, (GUEST, 8080).into()).is_err());
    outer.attach("DEL", "");
    let left = outer.script("ip link");
    assert!(!left.contains("cni0"), "{left}");
    assert!(outer.oci.is_clean());
}

#[test]
fn nested_containers_reach_everyone_with_masquerading_or_without() {
    for masquerades in [true, false] {
        let outer = needs!(Outer::open());
        let world = &outer.oci.session.world;
        let _far = web_server(&world.remote, (FAR, 80).into());
        world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
        outer.attach("ADD", &format!("/proc/{}/ns/net", outer.oci.pid("outer")));
        let bridge = bridge(masquerades);
        outer.create("n1", &["nc", "-ll", "-p", "8080", "-e", "echo", "hello"]);
        outer.create("n2", &["sleep", "600"]);
        outer.create("n3", &["sleep", "600"]);
        for id in ["n1", "n2"] {
            outer.call("ADD", id, "cni0", PLUGIN, SLIRP);
            outer.call("ADD", id, "cni1", BRIDGE, &bridge);
        }
        outer.call("ADD", "n3", "cni0", BRIDGE, &bridge);
        for id in ["n1", "n2", "n3"] {
            outer.runc(&format!("start {id}"));
        }
        let route = outer.in_inner("n1", "ip -4 route get 10.2.0.0");
        assert!(route.contains("dev cni1  src 10.2.0.2"), "{route}");
        let said = outer.script(
            "until runc --rootless=true --root /tmp/runc exec n2 nc 10.2.0.2 8080; do sleep 0.1; \
             done",
        );
        assert_eq!(said, "hello\n");
        for id in ["n1", "n2", "n3"] {
            let page = outer.in_inner(id, "sh -c 'echo GET / | nc -w 50 203.0.113.10 80'");
            assert!(page.ends_with("visitor 198.51.100.1\n"), "{id}: {page}");
        }
        // Over the bridge alone.
        outer.runc("exec --cap CAP_NET_RAW n3 ping -c 1 -W 20 203.0.113.10");
        assert_eq!(outer.oci.networks().len(), 2 * 3, "keepers and engines of outer, n1 and n2");
        // Once while the container runs, and once when it has gone.
        assert_eq!(outer.call("DEL", "n2", "cni0", PLUGIN, SLIRP), "");
        assert!(!outer.in_inner("n2", "ip link").contains("cni0"));
        assert_eq!(outer.in_inner("n2", "nc 10.2.0.2 8080"), "hello\n");
        for id in ["n1", "n2", "n3"] {
            outer.runc(&format!("delete --force {id}"));
        }
        assert_eq!(outer.call("DEL", "n1", "cni0", PLUGIN, SLIRP), "");
        for id in ["n1", "n2"] {
            assert_eq!(outer.call("DEL", id, "cni1", BRIDGE, &bridge), "");
        }
        outer.call("DEL", "n3", "cni0", BRIDGE, &bridge);
        // The kernel takes its time over the namespaces of containers that have ended.
        wait_until(IO_LIMIT, "their ends of the bridge are gone", || {
            !outer.script("ip link").contains("veth")
        });
        let leases = outer.script("ls /tmp/ipam/bridge");
        assert!(!leases.contains("10.2.0."), "{leases}");
        assert_eq!(outer.oci.networks().len(), 2, "keeper and engine of the outer container");
        outer.attach("DEL", "");
        assert!(outer.oci.is_clean());
    }
}
