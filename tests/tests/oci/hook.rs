//! The OCI hook under the real runtimes, runc and crun, as root and as an ordinary user.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;
use slirp_tests::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runtimes and users that can use `createRuntime`.
const RUNTIMES: [(Account, &str); 3] =
    [(Account::Root, "runc"), (Account::Ordinary, "runc"), (Account::Root, "crun")];

fn assert_clean_soon(oci: &Oci) {
    wait_until(PATIENCE, "nothing is left behind", || oci.is_clean());
}

#[test]
fn container_has_a_network_from_its_start_to_its_end() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        for stage in ["createRuntime", "prestart"] {
            let setup = Setup { stages: vec![stage, "poststop"], ..Setup::default() };
            let id = format!("c-{stage}");
            oci.run(&id, &setup).unwrap();
            let shown = oci.exec(&id, &["ip", "addr", "show", "eth0"]);
            assert!(shown.contains("inet 10.0.2.100/24") && shown.contains("mtu 1500"), "{shown}");
            let routes = oci.exec(&id, &["ip", "route"]);
            assert!(routes.contains("default via 10.0.2.2 dev eth0"), "{routes}");
            oci.exec(&id, &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
            oci.delete(&id);
            assert!(oci.is_clean(), "{:?} {:?}", oci.networks(), oci.attachments());
        }
    }
}

/// What the container behind a port of the host says.
fn said_by(oci: &Oci, port: u16) -> String {
    let mut said = String::new();
    wait_until(PATIENCE, "the container answers", || {
        said.clear();
        let stream = connect(&oci.session.world.host, (LOCALHOST, port).into());
        // Refused or reset until the container's program listens.
        stream.is_ok_and(|mut stream| stream.read_to_string(&mut said).is_ok()) && !said.is_empty()
    });
    said
}

#[test]
fn port_of_the_host_leads_into_the_container_by_annotation() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let setup = Setup {
            annotations: json!({ "org.slirp.ports": "18081:80/tcp, 127.0.0.1:18082:80" }),
            process: vec!["nc", "-ll", "-p", "80", "-e", "echo", "hello"],
            ..Setup::default()
        };
        oci.run("c8179", &setup).unwrap();
        assert_eq!(said_by(&oci, 18081), "hello\n");
        assert_eq!(said_by(&oci, 18082), "hello\n");
        oci.delete("c8179");
        let after = connect(&oci.session.world.host, (LOCALHOST, 18081).into());
        assert!(after.is_err(), "the port is free when the runtime has deleted the container");
        assert!(oci.is_clean());
    }
}

#[test]
fn arguments_say_what_the_network_is_like() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let words = [
        "slirp",
        "--mtu=9000",
        "--cidr",
        "10.77.0.0/16",
        "--ipv6",
        "--ifname=net1",
        "--mac=02:00:00:00:07:07",
        "--dns=false",
        "--disable-host-loopback",
    ];
    let setup = Setup {
        arguments: ["slirp-oci-hook"].iter().chain(&words[1..]).map(|w| (*w).to_owned()).collect(),
        // Arguments win.
        annotations: json!({ "org.slirp.mtu": "1600" }),
        ..Setup::default()
    };
    oci.run("c", &setup).unwrap();
    let shown = oci.exec("c", &["ip", "addr", "show", "net1"]);
    for part in ["mtu 9000", "02:00:00:00:07:07", "inet 10.77.0.100/16", "inet6 fd00::100/64"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let server = TcpServer::echo(&oci.session.world.host, (LOCALHOST, 0).into());
    let port = server.address().port().to_string();
    let reached = oci.call(&["exec", "c", "nc", "-w", "5", "10.77.0.2", &port]);
    assert!(!reached.status.success(), "the host's loopback is closed");
    oci.run("open", &Setup::default()).unwrap();
    oci.exec("open", &["nc", "-w", "5", "10.0.2.2", &port]);
    oci.delete("c");
    oci.delete("open");
    assert!(oci.is_clean());
}

#[test]
fn second_container_shares_the_first_ones_network() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.run("first", &Setup::default()).unwrap();
        let joins = oci.pid("first");
        // Of IPv6 it says whether the address is still being tried out, which changes.
        let show = ["sh", "-c", "ip link show eth0; ip -4 addr show eth0"];
        let address = oci.exec("first", &show);
        // With the hook left in, which is a trap for other hooks, and without.
        for stages in [vec!["createRuntime", "poststop"], vec![]] {
            oci.run("second", &Setup { joins, stages, ..Setup::default() }).unwrap();
            assert_eq!(oci.exec("second", &show), address);
            oci.delete("second");
            oci.exec("first", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
        }
        oci.run("second", &Setup { joins, ..Setup::default() }).unwrap();
        // The network outlives the one that it was made for while another needs it.
        oci.kill(joins);
        oci.exec("second", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
        oci.kill(oci.pid("second"));
        assert_clean_soon(&oci);
    }
}

#[test]
fn joined_namespace_gets_a_network_where_that_is_asked_for() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    oci.run("pause", &Setup { stages: vec![], ..Setup::default() }).unwrap();
    let joins = oci.pid("pause");
    let plain = Setup { joins, ..Setup::default() };
    oci.run("left-alone", &plain).unwrap();
    assert!(oci.is_clean());
    let annotations = json!({ "org.slirp.attach-shared": "true" });
    for id in ["first", "second"] {
        oci.run(id, &Setup { annotations: annotations.clone(), ..plain.clone() }).unwrap();
        oci.exec("pause", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
        assert_eq!(oci.attachments().len(), 1, "a namespace is served once");
    }
    oci.delete("second");
    assert_eq!(oci.attachments().len(), 1, "it is the first one's");
    oci.delete("first");
    assert!(oci.is_clean());
}

#[test]
fn failing_hook_leaves_nothing_but_its_reason() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let server = TcpServer::echo(&oci.session.world.host, (LOCALHOST, 18083).into());
        for (annotation, value, reason) in [
            ("org.slirp.ports", "x:80", "ports: \"x:80\" is not of the form"),
            ("org.slirp.ports", "127.0.0.1:18083:80", "port mapping 127.0.0.1:18083->80/tcp: "),
            ("org.slirp.mtu", "100", "invalid MTU value 100 configured. 1500 <= MTU <= 65521"),
            ("org.slirp.cidr", "10.0.2.1/24", "cidr: invalid network \"10.0.2.1/24\""),
            ("org.slirp.ifname", "a/b", "interface name contains /"),
            ("org.slirp.port", "1:2", "annotation org.slirp.port is not known"),
        ] {
            let setup = Setup { annotations: json!({ annotation: value }), ..Setup::default() };
            let said = oci.run("c", &setup).unwrap_err();
            let escaped = reason.replace('"', "\\\"");
            // crun throws away what a hook says.
            let is_told = said.contains(reason) || said.contains(&escaped) || runtime == "crun";
            assert!(is_told, "{reason}: {said}");
            assert!(oci.log().contains(&format!("slirp oci-hook: c: {reason}")), "{}", oci.log());
            assert!(oci.is_clean(), "{:?}", oci.networks());
            assert!(!oci.call(&["state", "c"]).status.success(), "there is no container");
        }
        drop(server);
    }
}

#[test]
fn network_of_the_host_is_left_alone() {
    let oci = needs!(Oci::open(Account::Root, "runc"));
    let setup = Setup { has_network: false, ..Setup::default() };
    let said = oci.run("c", &setup).unwrap_err();
    assert!(said.contains("the container has no network namespace of its own"), "{said}");
    assert!(!oci.session.world.host.exec(&["ip", "link", "show", "eth0"]).status.success());
    assert!(oci.is_clean());
}

#[test]
fn network_ends_with_a_container_that_nobody_deletes() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.run("c", &Setup::default()).unwrap();
        assert_eq!(oci.networks().len(), 2, "a keeper and an engine");
        oci.kill(oci.pid("c"));
        assert_clean_soon(&oci);
        oci.delete("c");
    }
}

#[test]
fn nothing_of_the_runtime_is_left_in_the_long_lived_processes() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.run("c", &Setup::default()).unwrap();
        let networks = oci.networks();
        assert_eq!(networks.len(), 2, "{networks:?}");
        for process in networks {
            // The keeper reads SIGHUP, SIGINT and SIGTERM from a descriptor.
            let is_keeper = process.arguments[1].starts_with("keep");
            let expected = if is_keeper { 1 | 1 << 1 | 1 << 14 } else { 0 };
            assert_eq!(oci.blocked_signals(&process), expected, "{process:?}");
            for number in 0..3 {
                let leads_to = oci.descriptor(&process, number);
                assert_eq!(leads_to, "/dev/null", "{number} of {process:?}");
            }
        }
        oci.delete("c");
    }
}

#[test]
fn rootless_crun_says_what_to_do_and_that_works() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    oci.run("c", &Setup::default()).unwrap_err();
    let log = oci.log();
    for part in ["use this hook as \"createContainer\" as well", "or as \"poststart\" instead"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(oci.is_clean());
    oci.run("d", &Setup { stages: vec!["poststart", "poststop"], ..Setup::default() }).unwrap();
    oci.exec("d", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
    oci.delete("d");
    assert!(oci.is_clean());
}

#[test]
fn hook_at_two_stages_and_at_the_wrong_end_does_no_harm() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    let setup = Setup { stages: vec!["prestart", "createRuntime", "poststop"], ..Setup::default() };
    oci.run("c", &setup).unwrap();
    assert_eq!(oci.attachments().len(), 1);
    oci.delete("c");
    assert!(oci.is_clean());
    let state = json!({ "ociVersion": "1.0.2", "id": "never", "status": "stopped" });
    oci.script(&format!("echo '{state}' | {}", oci.hook()));
}

#[test]
fn second_container_of_the_same_id_does_not_end_the_first_ones_network() {
    let oci = needs!(Oci::open(Account::Ordinary, "runc"));
    oci.run("c", &Setup::default()).unwrap();
    let script = "cd ~/c; mkdir ~/other
        ! runc --root ~/other run --detach c </dev/null >other 2>&1; cat other";
    let said = oci.script(script);
    assert!(said.contains("is already running for netns"), "{said}");
    oci.exec("c", &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
    oci.delete("c");
    assert!(oci.is_clean());
}

#[test]
fn program_without_word_knows_a_containers_state() {
    let oci = needs!(Oci::open(Account::Root, "runc"));
    oci.script(&format!("cp {} /run/slirp-bin", oci.hook()));
    let state = json!({ "ociVersion": "1.0.2", "id": "c", "status": "created", "pid": 1 });
    for words in ["/run/slirp-bin", "/run/slirp-bin oci-hook"] {
        let script = format!("echo '{state}' | {words} 2>&1 || echo status $?");
        let said = oci.script(&script);
        assert!(
            said.contains("slirp oci-hook: c: the container has no network namespace"),
            "{said}"
        );
        assert!(said.ends_with("status 1\n"), "{said}");
    }
    let about = oci.script("/run/slirp-bin </dev/null 2>&1");
    assert!(about.starts_with("CNI plugin slirp v"), "{about}");
}
