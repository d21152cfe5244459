//! Podman's CNI backend, unmodified, as root and as an ordinary user, with the plugin under test as
//! a network.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use serde_json::Value;
use slirp_tests::*;

const ACCOUNTS: [Account; 2] = [Account::Root, Account::Ordinary];

/// Podman's own listeners for published ports would take them first.
const UNRESERVED: &str = "enable_port_reservation = false";

/// A resolver that Podman leaves out of a container's `resolv.conf`, so that only the virtual one
/// remains.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54));
const CURL: &str = "curl --silent --show-error --max-time 50";

/// Files left in the folders where Podman and the plugin keep the state of a running container.
/// Inside the network namespace of a rootless user's Podman these are folders of that user's
/// runtime directory.
fn files_of_running_containers(podman: &Podman) -> String {
    let runtime = "$XDG_RUNTIME_DIR/libpod/tmp/rootless-netns $XDG_RUNTIME_DIR/netns \
        $XDG_RUNTIME_DIR/rootless-netns";
    let folders = format!(
        "/run/netns /run/slirp /var/lib/cni /dev/shm/slirp-* /tmp/slirp-0 /tmp/slirp-1500 {runtime}"
    );
    let script = format!("find {folders} -not -type d -not -path '*/libpod_*' 2>/dev/null; true");
    podman.session.exec_as(Account::Root, &["sh", "-c", &script]).stdout
}

/// Nothing runs but the process that keeps a rootless user's namespace, and nothing lies about.
fn assert_clean_soon(podman: &Podman) {
    let keepers = if podman.account == Account::Root { 0 } else { 1 };
    wait_until(IO_LIMIT, "Podman has cleaned up", || podman.session.processes().len() <= keepers);
    assert_eq!(files_of_running_containers(podman), "", "{:?}", podman.session.processes());
    let links = podman.session.world.host.script("ip -brief link");
    let names: Vec<_> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["lo", "h0@if8"], "{links}");
}

fn inspect(podman: &Podman, name: &str) -> Value {
    let text = podman.succeed(&["inspect", name]);
    let list: Value = serde_json::from_str(&text).expect("Podman prints JSON");
    list[0]["NetworkSettings"].clone()
}

#[test]
fn address_mac_name_server_and_ports_are_as_asked_for() {
    for account in ACCOUNTS {
        let podman = needs!(Podman::with_plugin(account, UNRESERVED));
        let world = &podman.session.world;
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        let _dns = Dnsmasq::start(&world.host, RESOLVER, &[]);
        let _far = web_server(&world.remote, (FAR, 80).into());
        let options = [
            "--network=slirpnet",
            "--ip=10.0.2.55",
            "--mac-address=02:00:00:00:00:55",
            "--publish=18091:80",
            "--publish=127.0.0.1:18092:80/udp",
        ];
        podman.serve("web", &options, "0.0.0.0", &["80"]);
        let exec = |script: &str| podman.succeed(&["exec", "web", "sh", "-euc", script]);
        let shown = exec("ip address show eth0; ip route");
        for part in ["inet 10.0.2.55/24", "02:00:00:00:00:55", "default via 10.0.2.2 dev eth0"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let resolv_conf = exec("cat /etc/resolv.conf");
        assert!(resolv_conf.lines().any(|line| line == "nameserver 10.0.2.3"), "{resolv_conf}");
        let pages = exec(&format!("{CURL} http://203.0.113.10/ http://www.example.test/"));
        assert_eq!(pages, "visitor 198.51.100.1\nvisitor 198.51.100.1\n");
        assert!(ask_tcp(&world.remote, (HOST, 18091).into()).starts_with("tcp "));
        let local = (IpAddr::V4(Ipv4Addr::LOCALHOST), 18092).into();
        assert!(ask_udp(&world.host, local).starts_with("udp "));
        let settings = inspect(&podman, "web");
        let network = &settings["Networks"]["slirpnet"];
        assert_eq!(network["IPAddress"], "10.0.2.55");
        assert_eq!(network["Gateway"], "10.0.2.2");
        assert_eq!(network["MacAddress"], "02:00:00:00:00:55");
        assert!(
            files_of_running_containers(&podman).contains("/slirp/"),
            "it looks where they are"
        );
        podman.succeed(&["rm", "--force", "--time=0", "web"]);
        assert_clean_soon(&podman);
    }
}

#[test]
fn policy_of_the_environment_holds_for_containers() {
    for account in ACCOUNTS {
        let podman = needs!(Podman::with_plugin(account, UNRESERVED));
        let world = &podman.session.world;
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        let _dns = Dnsmasq::start(&world.host, RESOLVER, &[]);
        let _far = web_server(&world.remote, (FAR, 80).into());
        let _other = web_server(&world.remote, (REMOTE_2, 80).into());
        let file = world.folder().join("policy");
        std::fs::write(&file, "allow www.example.test\n").expect("the folder is the test's own");
        let variable = format!("SLIRP_POLICY={}", file.display());
        let script = format!(
            "{CURL} http://www.example.test/; {CURL} http://{REMOTE_2}/ || echo $?; \
             {CURL} http://other.example.test/ || echo $?"
        );
        let run = ["env", &variable, "podman", "run", "--rm", "--volume=/usr:/usr:ro"];
        let words = [&run[..], &["--network=slirpnet", "box", "sh", "-uc", &script]].concat();
        let output = podman.session.exec_as(account, &words);
        assert_eq!(output.stdout, "visitor 198.51.100.1\n7\n6\n", "{}", output.stderr);
        assert_clean_soon(&podman);
    }
}

#[test]
fn stopped_container_frees_its_ports_and_starts_in_a_new_namespace() {
    for account in ACCOUNTS {
        let podman = needs!(Podman::with_plugin(account, UNRESERVED));
        let host = &podman.session.world.host;
        podman.serve("web", &["--network=slirpnet", "--publish=18091:80"], "0.0.0.0", &["80"]);
        let mut namespaces = vec![inspect(&podman, "web")["SandboxKey"].clone()];
        for _ in 0..2 {
            podman.succeed(&["stop", "--time=0", "web"]);
            // The port is free at once, except where a helper of rootless Podman holds it.
            let is_free = || host.script("ss -Htln sport = :18091").is_empty();
            assert!(account != Account::Root || is_free(), "the port is still open");
            wait_until(IO_LIMIT, "the port is free again", is_free);
            podman.succeed(&["start", "web"]);
            wait_until(IO_LIMIT, "the container serves again", || {
                connect(host, (HOST, 18091).into()).is_ok()
            });
            let namespace = inspect(&podman, "web")["SandboxKey"].clone();
            assert!(!namespaces.contains(&namespace), "{namespaces:?}");
            namespaces.push(namespace);
        }
        podman.succeed(&["rm", "--force", "--time=0", "web"]);
        assert_clean_soon(&podman);
    }
}

#[test]
fn containers_that_end_by_themselves_or_are_killed_leave_nothing() {
    for account in ACCOUNTS {
        let podman = needs!(Podman::with_plugin(account, UNRESERVED));
        podman.script("slirpnet", "ip address show eth0 | grep 10.0.2.100");
        assert_clean_soon(&podman);
        podman.serve("web", &["--network=slirpnet", "--publish=18091:80"], "0.0.0.0", &["80"]);
        podman.succeed(&["kill", "web"]);
        assert_clean_soon(&podman);
        podman.succeed(&["rm", "web"]);
    }
}

#[test]
fn containers_of_one_network_are_apart_and_joined_ones_share() {
    for account in ACCOUNTS {
        let podman = needs!(Podman::with_plugin(account, UNRESERVED));
        let world = &podman.session.world;
        for (name, port) in [("one", "18091"), ("two", "18092")] {
            let publish = format!("--publish={port}:80");
            podman.serve(name, &["--network=slirpnet", &publish], "0.0.0.0", &["80"]);
        }
        for port in [18091, 18092] {
            assert!(ask_tcp(&world.remote, (HOST, port).into()).starts_with("tcp "));
        }
        let joined =
            podman.script("container:one", "ip address show eth0; curl -s telnet://127.0.0.1:80");
        assert!(joined.contains("10.0.2.100/24") && joined.contains("tcp 127.0.0.1"), "{joined}");
        podman.succeed(&["rm", "--force", "--time=0", "one"]);
        assert!(ask_tcp(&world.remote, (HOST, 18092).into()).starts_with("tcp "));
        podman.succeed(&["rm", "--force", "--time=0", "two"]);
        assert_clean_soon(&podman);
    }
}

#[test]
fn port_in_use_fails_in_words_and_leaves_nothing() {
    let podman = needs!(Podman::with_plugin(Account::Root, UNRESERVED));
    let host = &podman.session.world.host;
    let taken = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 18091)));
    let run =
        ["run", "--rm", "--network=slirpnet", "--publish=18091:80", "box", "/busybox", "true"];
    let output = podman.exec(&run);
    assert!(!output.status.success());
    let reason = "port mapping 0.0.0.0:18091->80/tcp: cannot listen on 0.0.0.0:18091";
    assert!(output.stderr.contains(reason), "{}", output.stderr);
    assert_clean_soon(&podman);
    drop(taken);
    host.wait_for_free_port(18091);
    podman.succeed(&run);
    assert_clean_soon(&podman);
}

#[test]
fn podman_that_reserves_ports_is_in_the_way_of_published_ones() {
    let podman = needs!(Podman::with_plugin(Account::Root, ""));
    let run =
        ["run", "--rm", "--network=slirpnet", "--publish=18091:80", "box", "/busybox", "true"];
    let output = podman.exec(&run);
    assert!(output.stderr.contains("address already in use"), "{}", output.stderr);
    assert_clean_soon(&podman);
}
