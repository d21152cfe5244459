//! The OCI hook in two stages, `createRuntime` and `createContainer`. Rootless crun needs both,
//! because it hides the container's process from its user. Other runtimes work with both as well.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use serde_json::{Value, json};
use slirp_tests::*;

/// Both runtimes, both kinds of user.
const RUNTIMES: [(Account, &str); 4] = [
    (Account::Ordinary, "crun"),
    (Account::Root, "crun"),
    (Account::Ordinary, "runc"),
    (Account::Root, "runc"),
];

fn two_stages() -> Setup {
    Setup { stages: vec!["createRuntime", "createContainer", "poststop"], ..Setup::default() }
}

fn assert_clean_soon(oci: &Oci) {
    wait_until(IO_LIMIT, "nothing is left behind", || oci.is_clean());
}

fn assert_connected(oci: &Oci, id: &str) {
    oci.exec(id, &["ping", "-c", "1", "-W", "20", "10.0.2.2"]);
}

/// The same from outside, for containers in which rootless crun runs nothing: containers that wait
/// for their start, and those that joined a user namespace.
fn assert_pings(oci: &Oci, pid: u32) {
    let net = format!("--net=/proc/{pid}/ns/net");
    let ping = ["nsenter", &net, "ping", "-c", "1", "-W", "20", "10.0.2.2"];
    let output = oci.session.exec_as(Account::Root, &ping);
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
}

#[test]
fn same_configuration_works_for_both_runtimes_and_accounts() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let setup = Setup {
            annotations: json!({ "org.slirp.ports": "18081:80" }),
            process: vec!["nc", "-ll", "-p", "80", "-e", "echo", "hello"],
            ..two_stages()
        };
        for _ in 0..2 {
            oci.run("c", &setup).unwrap();
            let shown = oci.exec("c", &["ip", "addr", "show", "eth0"]);
            assert!(shown.contains("inet 10.0.2.100/24"), "{shown}");
            let routes = oci.exec("c", &["ip", "route"]);
            assert!(routes.contains("default via 10.0.2.2 dev eth0"), "{routes}");
            assert_connected(&oci, "c");
            wait_until(IO_LIMIT, "the container answers", || {
                let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), 18081).into();
                let stream = connect(&oci.session.world.host, address);
                let mut said = String::new();
                // Refused or reset until the container's program listens.
                let is_read = stream.is_ok_and(|mut s| s.read_to_string(&mut said).is_ok());
                is_read && said == "hello\n"
            });
            assert_eq!(oci.networks().len(), 2, "a keeper and an engine");
            oci.delete("c");
            assert!(oci.is_clean(), "{:?} {:?}", oci.networks(), oci.attachments());
        }
    }
}

#[test]
fn engine_of_a_hidden_container_runs_in_the_sandbox() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    oci.run("c", &two_stages()).unwrap();
    let networks = oci.networks();
    let engine = networks.iter().find(|process| process.arguments[1].starts_with("run-")).unwrap();
    let status = oci.session.proc(&format!("{}/status", engine.pid));
    for line in ["CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|said| said == line), "{line} in {status}");
    }
    oci.delete("c");
    assert!(oci.is_clean());
}

#[test]
fn network_lasts_from_before_the_program_to_the_last_container_in_it() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.prepare("c", &two_stages());
        oci.create("c").unwrap();
        let joins = oci.pid("c");
        assert_pings(&oci, joins);
        oci.start_created("c");
        assert_connected(&oci, "c");
        oci.run("joined", &Setup { joins, ..two_stages() }).unwrap();
        let joined = oci.pid("joined");
        oci.kill(joins);
        assert_pings(&oci, joined);
        oci.kill(joined);
        assert_clean_soon(&oci);
    }
}

#[test]
fn container_that_is_killed_before_its_program_starts_leaves_nothing() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    oci.prepare("c", &two_stages());
    oci.create("c").unwrap();
    assert_eq!(oci.networks().len(), 2);
    oci.kill(oci.pid("c"));
    assert_clean_soon(&oci);
}

#[test]
fn container_that_never_reaches_the_second_stage_leaves_nothing() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        for stage in ["createRuntime", "createContainer"] {
            // Without poststop, the waiting process is not told.
            for stages in [two_stages().stages, vec!["createRuntime", "createContainer"]] {
                oci.prepare("c", &Setup { stages, ..Setup::default() });
                oci.edit("c", |config| {
                    let hooks = config["hooks"][stage].as_array_mut().expect("hooks are listed");
                    let fails = json!({ "path": "/bin/false" });
                    hooks.insert(usize::from(stage == "createRuntime"), fails);
                });
                oci.start("c").unwrap_err();
                assert_clean_soon(&oci);
            }
        }
    }
}

#[test]
fn failure_at_the_second_stage_leaves_nothing_but_its_reason() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    let taken =
        oci.session.world.host.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 18083))).unwrap();
    let annotations = json!({ "org.slirp.ports": "127.0.0.1:18083:80" });
    let setup = Setup { annotations, ..two_stages() };
    oci.run("c", &setup).unwrap_err();
    let log = oci.log();
    let reason = "slirp oci-hook: c: port mapping 127.0.0.1:18083->80/tcp: cannot listen on";
    assert!(log.contains(reason), "{log}");
    assert_clean_soon(&oci);
    drop(taken);
    oci.session.world.host.wait_for_free_port(18083);
    oci.run("c", &setup).unwrap();
    assert_connected(&oci, "c");
    oci.delete("c");
    assert!(oci.is_clean());
}

#[test]
fn hook_without_a_first_stage_touches_nothing() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.run("c", &Setup { stages: vec!["createContainer"], ..Setup::default() }).unwrap_err();
        let log = oci.log();
        assert!(log.contains("this stage is the second of two"), "{log}");
        let links = oci.session.world.host.script("ip -brief link");
        assert!(!links.contains("eth0"), "the host's own network is left alone: {links}");
        assert!(oci.is_clean());
    }
}

#[test]
fn hooks_at_every_stage_and_at_some_twice_do_no_harm() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let stages = vec!["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
        oci.prepare("c", &Setup { stages, ..Setup::default() });
        oci.edit("c", |config| {
            for stage in ["createRuntime", "createContainer"] {
                let hooks = config["hooks"][stage].as_array_mut().expect("hooks are listed");
                hooks.push(hooks[0].clone());
            }
        });
        oci.start("c").unwrap();
        assert_connected(&oci, "c");
        assert_eq!(oci.attachments().len(), 1);
        oci.delete("c");
        assert!(oci.is_clean());
    }
}

/// Holds the runtime up between the stages, until the file `state` in the bundle is removed.
fn prepare_held(oci: &Oci, setup: &Setup) {
    oci.prepare("c", setup);
    oci.edit("c", |config| {
        let script = "cat > state; while test -e state; do sleep 0.02; done";
        let holds = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
        config["hooks"]["createRuntime"].as_array_mut().expect("hooks are listed").push(holds);
    });
}

/// Does `work` between the stages, with the state that the first one was given; hands back how the
/// start ended.
fn between_the_stages(oci: &Oci, work: impl FnOnce(&Value)) -> Result<(), String> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| oci.start("c"));
        let file = oci.bundle("c").join("state");
        let mut state = Value::Null;
        wait_until(IO_LIMIT, "the container is between the stages", || {
            state = std::fs::read(&file)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
                .unwrap_or_default();
            !state.is_null()
        });
        assert_eq!(oci.networks().len(), 1, "a keeper that waits");
        let list = oci.attachments();
        assert_eq!((list.len(), &list[0]["state"]), (1, &json!("waiting")), "{list:?}");
        work(&state);
        std::fs::remove_file(&file).expect("the bundle is writable");
        running.join().expect("the runtime is run")
    })
}

#[test]
fn namespace_is_taken_from_nobody_but_the_container() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    prepare_held(&oci, &two_stages());
    let started = between_the_stages(&oci, |_| {
        // Of the same user, with the same state, in another network namespace.
        oci.script(&format!(
            "cd c; {hook} < state; unshare --user --map-root-user --net {hook} < state
            ! unshare --user --map-root-user --net --pid --fork {hook} < state",
            hook = oci.hook()
        ));
        let log = oci.log();
        assert!(log.contains("this is not the container that the process"), "{log}");
        assert_eq!(oci.networks().len(), 1, "it still waits");
    });
    started.unwrap();
    assert_connected(&oci, "c");
    oci.delete("c");
    assert!(oci.is_clean());
}

#[test]
fn container_that_ends_between_the_stages_ends_the_waiting_process() {
    let oci = needs!(Oci::open(Account::Ordinary, "crun"));
    prepare_held(&oci, &Setup { stages: vec!["createRuntime", "createContainer"], ..two_stages() });
    let started = between_the_stages(&oci, |state| {
        let pid = state["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a process id");
        oci.kill(pid);
        assert_clean_soon(&oci);
    });
    started.expect_err("there is no container");
    assert_clean_soon(&oci);
}

#[test]
fn second_stage_notices_that_the_waiting_process_was_ended() {
    for by_signal in [true, false] {
        let oci = needs!(Oci::open(Account::Ordinary, "crun"));
        prepare_held(&oci, &two_stages());
        let started = between_the_stages(&oci, |_| {
            if by_signal {
                oci.script(&format!("kill {}", oci.networks()[0].pid));
            } else {
                oci.script(&format!("ln -s {} slirp; ./slirp rm c", oci.hook()));
            }
            assert_clean_soon(&oci);
        });
        started.expect_err("a container without its network does not start");
        assert!(oci.log().contains("nobody waits to make one"), "{}", oci.log());
        assert_clean_soon(&oci);
    }
}

#[test]
fn second_stage_finds_its_work_done_where_the_container_has_other_users() {
    for runtime in ["runc", "crun"] {
        let oci = needs!(Oci::open(Account::Root, runtime));
        oci.prepare("c", &two_stages());
        let rootfs = oci.bundle("c").join("rootfs");
        oci.script(&format!("chown -R 100000:100000 {}", rootfs.display()));
        oci.edit("c", |config| {
            let linux = &mut config["linux"];
            let user = json!({ "type": "user" });
            linux["namespaces"].as_array_mut().expect("namespaces are listed").push(user);
            for mappings in ["uidMappings", "gidMappings"] {
                linux[mappings] = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
            }
        });
        oci.start("c").unwrap();
        let net = format!("--net=/proc/{}/ns/net", oci.pid("c"));
        let shown = oci.script(&format!("nsenter {net} ip address show eth0"));
        assert!(shown.contains("inet 10.0.2.100/24"), "{shown}");
        assert_connected(&oci, "c");
        oci.delete("c");
        assert!(oci.is_clean());
    }
}

#[test]
fn second_stage_is_known_without_a_pid_namespace_too() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        oci.prepare("c", &two_stages());
        oci.edit("c", |config| {
            let namespaces =
                config["linux"]["namespaces"].as_array_mut().expect("namespaces are listed");
            namespaces.retain(|namespace| namespace["type"] != "pid");
            // A new /proc is that of a PID namespace of one's own.
            let proc = config["mounts"].as_array_mut().and_then(|mounts| mounts.first_mut());
            *proc.expect("mounts are listed") = json!({
                "source": "/proc", "destination": "/proc", "type": "bind", "options": ["rbind"],
            });
        });
        oci.start("c").unwrap();
        assert_connected(&oci, "c");
        assert_eq!(oci.attachments().len(), 1);
        // Without that namespace, and without a control group, crun does not end what runs.
        oci.kill(oci.pid("c"));
        oci.delete("c");
        assert_clean_soon(&oci);
    }
}

#[test]
fn log_file_says_once_that_the_network_is_up() {
    for (account, runtime) in RUNTIMES {
        let oci = needs!(Oci::open(account, runtime));
        let log = oci.bundle("c.log");
        let words = ["slirp-hook".to_owned(), format!("--log-file={}", log.display())];
        oci.run("c", &Setup { arguments: words.to_vec(), ..two_stages() }).unwrap();
        let text = std::fs::read_to_string(&log).expect("the home can be read");
        assert_eq!(text.matches("slirp oci-hook: c eth0: up").count(), 1, "{text}");
        oci.delete("c");
        assert!(oci.is_clean());
    }
}
