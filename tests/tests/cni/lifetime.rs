//! The processes behind a CNI attachment: how they start, which events end them, and what they
//! leave behind.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slirp_tests::*;

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn await_end(pid: u32, what: &str) {
    wait_until(PATIENCE, what, || !ProcessFacts(pid).is_alive());
}

fn has_interface(namespace: &Namespace, name: &str) -> bool {
    namespace.exec(&["ip", "link", "show", name]).status.success()
}

fn state_folder(world: &World) -> PathBuf {
    world.folder().join("state")
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that were started for an attachment whose files are in the world's folder.
fn processes_of(world: &World) -> Vec<u32> {
    let folder = state_folder(world).display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        // Its stem and its scope, which is that folder, follow the word.
        let is_ours =
            ["keep-attachment", "run-attachment"].iter().any(|word| command.contains(word));
        is_ours && command.contains(&folder)
    })
    .collect()
}

fn assert_nothing_left(world: &World) {
    wait_until(PATIENCE, "no process is left", || processes_of(world).is_empty());
    assert_eq!(files_in(&state_folder(world)), Vec::<String>::new());
}

/// Changes the record of the only attachment.
fn edit_record(world: &World, edit: impl FnOnce(&mut Value)) {
    let name = files_in(&state_folder(world)).into_iter().find(|n| n.ends_with(".json")).unwrap();
    let path = state_folder(world).join(name);
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut record);
    std::fs::write(&path, record.to_string()).unwrap();
}

#[test]
fn deletion_succeeds_whatever_is_left_to_delete() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.del().unwrap();
    cni.add().unwrap();
    let without_netns = MiniCni::new(&world, &json!({})).netns("");
    without_netns.del().unwrap();
    assert!(!has_interface(&world.guest, "eth0"));
    without_netns.del().unwrap();
    let gone = MiniCni::new(&world, &json!({})).netns("/run/netns/never-was");
    gone.del().unwrap();
    assert_nothing_left(&world);
}

#[test]
fn end_of_the_container_ends_the_processes_and_leaves_no_file() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let cni = MiniCni::new(&world, &json!({}));
        cni.add().unwrap();
        let (keeper, engine) = (cni.keeper(), cni.engine());
        send(world.guest.pid(), Signal::SIGKILL);
        await_end(keeper, "the keeper ends with the container");
        await_end(engine, "the engine ends with the container");
        assert_nothing_left(&world);
        cni.del().unwrap();
    }
}

#[test]
fn second_process_in_the_namespace_keeps_the_network() {
    let world = needs!(World::ordinary());
    let log = world.folder().join("log");
    let cni = MiniCni::new(&world, &json!({ "logFile": log.display().to_string() }));
    cni.add().unwrap();
    let (keeper, engine) = (cni.keeper(), cni.engine());
    // As a container that joins the network namespace of another one.
    let joined = world.guest.spawn(&["sh", "-c", "exec cat"]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&world.guest, server.address()).expect("the network works");
    wait_until(PATIENCE, "the second process has joined", || {
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        of(joined.pid()) == of(world.guest.pid())
    });
    send(world.guest.pid(), Signal::SIGKILL);
    wait_until(PATIENCE, "the keeper has found the second process", || {
        std::fs::read_to_string(&log).unwrap().contains("held by another")
    });
    // The namespace is entered by a descriptor, so this works without any process in it.
    assert!(ProcessFacts(keeper).is_alive() && ProcessFacts(engine).is_alive());
    connect(&world.guest, server.address()).expect("the network still works");
    drop(joined);
    await_end(keeper, "the keeper ends with the last process");
    assert_nothing_left(&world);
}

#[test]
fn bound_namespace_keeps_the_network_until_it_is_removed() {
    for by_unmount_alone in [false, true] {
        let world = needs!(World::root());
        let folder = world.folder().display().to_string();
        let own = format!("/proc/{}/ns/net", world.guest.pid());
        world.host.script(&format!("touch {folder}/bound; mount --bind {own} {folder}/bound"));
        let path = format!("{folder}/bound");
        let cni = MiniCni::new(&world, &json!({})).netns(&path);
        cni.add().unwrap();
        let keeper = cni.keeper();
        send(world.guest.pid(), Signal::SIGKILL);
        cni.check().unwrap();
        let remove = if by_unmount_alone { "true" } else { "rm" };
        world.host.script(&format!("umount {path}; {remove} {path}"));
        await_end(keeper, "the keeper ends with the bound namespace");
        assert_nothing_left(&world);
    }
}

#[test]
fn killed_keeper_is_noticed_until_its_container_is_deleted() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    cni.status().unwrap();
    let (keeper, engine) = (cni.keeper(), cni.engine());
    send(keeper, Signal::SIGKILL);
    await_end(keeper, "the keeper is killed");
    let failure = cni.check().unwrap_err();
    assert!(failure.message.contains("does not answer"), "{failure:?}");
    let failure = cni.status().unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (51, "containers that have lost their network: c1 eth0")
    );
    cni.del().unwrap();
    assert!(!ProcessFacts(engine).is_alive(), "the engine has ended when DEL returns");
    assert!(!has_interface(&world.guest, "eth0"));
    cni.status().unwrap();
    cni.add().unwrap();
    cni.check().unwrap();
}

#[test]
fn killed_engine_ends_the_attachment_and_check_says_so() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let keeper = cni.keeper();
    send(cni.engine(), Signal::SIGKILL);
    await_end(keeper, "the keeper ends with its engine");
    let failure = cni.check().unwrap_err();
    assert_eq!(failure.message, "check slirp eth0: the container is not attached");
    assert_nothing_left(&world);
    cni.del().unwrap();
}

#[test]
fn stale_record_of_a_killed_keeper_makes_way_for_an_addition() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let keeper = cni.keeper();
    send(keeper, Signal::SIGKILL);
    await_end(keeper, "the keeper is killed");
    cni.add().unwrap();
    cni.check().unwrap();
    // What stays outside of a sandbox ends by itself, after its engine.
    wait_until(PATIENCE, "a keeper, an engine, and what stays outside of its sandbox", || {
        processes_of(&world).len() == 3
    });
}

#[test]
fn record_of_another_boot_or_process_hurts_nobody() {
    for other_boot in [true, false] {
        let world = needs!(World::root());
        let cni = MiniCni::new(&world, &json!({}));
        cni.add().unwrap();
        let keeper = cni.keeper();
        send(keeper, Signal::SIGKILL);
        await_end(keeper, "the keeper is killed");
        let stranger = world.host.spawn(&["cat"]);
        // The number was given to another process since.
        edit_record(&world, |record| {
            for role in ["keeper", "engine"] {
                record[role]["pid"] = json!(stranger.pid());
                if other_boot {
                    record[role]["bootID"] = json!("00000000-0000-0000-0000-000000000000");
                }
            }
        });
        cni.del().unwrap();
        assert!(ProcessFacts(stranger.pid()).is_alive(), "it is not ours to kill");
        assert_nothing_left(&world);
    }
}

#[test]
fn processes_are_found_when_their_files_have_vanished() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let (keeper, engine) = (cni.keeper(), cni.engine());
    // As logind does at a user's last logout.
    std::fs::remove_dir_all(state_folder(&world)).unwrap();
    cni.del().unwrap();
    assert!(!ProcessFacts(keeper).is_alive() && !ProcessFacts(engine).is_alive());
    assert!(!has_interface(&world.guest, "eth0"));
}

#[test]
fn addition_that_is_killed_leaves_nothing_behind() {
    let world = needs!(World::ordinary());
    // An engine that never becomes ready holds the addition up.
    let program = world.folder().join("never-ready");
    std::fs::write(&program, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let cni =
        MiniCni::new(&world, &json!({})).variable("SLIRP4NETNS", &program.display().to_string());
    let adding = cni.start("ADD", &[]);
    wait_until(PATIENCE, "the keeper runs", || processes_of(&world).len() == 1);
    send(adding.pid(), Signal::SIGKILL);
    drop(adding);
    wait_until(PATIENCE, "nothing is left", || processes_of(&world).is_empty());
    cni.del().unwrap();
    assert_nothing_left(&world);
    assert!(!has_interface(&world.guest, "eth0"));
}

#[test]
fn result_that_nobody_reads_leaves_nothing_behind() {
    let world = needs!(World::ordinary());
    let cni = MiniCni::new(&world, &json!({}));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = cni
        .command("ADD")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(writer))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(cni.input(&[]).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("error printing slirp result"), "{said}");
    assert!(!has_interface(&world.guest, "eth0"));
    cni.del().unwrap();
    assert_nothing_left(&world);
}

#[test]
fn processes_inherit_neither_descriptors_nor_signals_nor_environment() {
    let world = needs!(World::ordinary());
    // A runtime that holds a pipe, blocks and ignores signals, and has few descriptors.
    let script = "import os,signal,sys,resource\n\
        r,w=os.pipe(); os.dup2(w,77,inheritable=True)\n\
        signal.pthread_sigmask(signal.SIG_BLOCK,range(1,32))\n\
        signal.signal(signal.SIGTERM,signal.SIG_IGN)\n\
        resource.setrlimit(resource.RLIMIT_NOFILE,(128,1024))\n\
        os.environ['SECRET']='x'\n\
        os.execv(sys.argv[1],sys.argv[1:])";
    let cni = MiniCni::new(&world, &json!({ "logFile": null })).behind(&[
        "/usr/bin/python3",
        "-c",
        script,
    ]);
    cni.add().unwrap();
    let (keeper, engine) = (cni.keeper(), cni.engine());
    for pid in [keeper, engine] {
        assert!(!Path::new(&format!("/proc/{pid}/fd/77")).exists(), "an inherited descriptor");
        for number in [0, 1, 2] {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
            assert_eq!(target, Path::new("/dev/null"), "standard stream {number}");
        }
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        // Signals 1, 2 and 15 are held for a descriptor, others not at all; SIGPIPE is ignored.
        assert_eq!(mask("SigBlk:") & !0x4003, 0, "{status}");
        assert_eq!(mask("SigIgn:") & 0x4003, 0, "{status}");
    }
    let session = std::fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let session = session.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, keeper.to_string(), "a session of its own");
    let folder = std::fs::read_link(format!("/proc/{keeper}/cwd")).unwrap();
    assert_eq!(folder, Path::new("/"));
    send(keeper, Signal::SIGTERM);
    await_end(keeper, "SIGTERM ends the keeper");
    assert_nothing_left(&world);
}

#[test]
fn plugin_works_without_standard_streams_of_its_caller() {
    let world = needs!(World::ordinary());
    let script = "import os,sys\nos.close(2)\nos.execv(sys.argv[1],sys.argv[1:])";
    let cni = MiniCni::new(&world, &json!({})).behind(&["/usr/bin/python3", "-c", script]);
    cni.add().unwrap();
    cni.check().unwrap();
    cni.del().unwrap();
}

#[test]
fn engine_runs_in_a_sandbox_unless_it_is_turned_off() {
    for account in [Account::Root, Account::Ordinary] {
        for sandbox in [true, false] {
            let world = needs!(World::of(account));
            let cni = MiniCni::new(&world, &json!({ "sandbox": sandbox }));
            cni.add().unwrap();
            let status = std::fs::read_to_string(format!("/proc/{}/status", cni.engine())).unwrap();
            let value = |name: &str| {
                status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned()
            };
            assert_eq!(value("Seccomp:") == "2", sandbox, "{status}");
            assert_eq!(value("NoNewPrivs:") == "1", sandbox, "{status}");
            // CAP_NET_BIND_SERVICE is all that is left.
            let is_confined = value("CapEff:") == "0000000000000400";
            assert_eq!(is_confined, sandbox, "{status}");
        }
    }
}

#[test]
fn addition_and_deletion_find_each_other_from_different_environments() {
    let world = needs!(World::ordinary());
    let folder = world.folder().join("runtime");
    std::fs::create_dir(&folder).unwrap();
    nix::unistd::chown(&folder, Some(1500.into()), Some(1500.into())).unwrap();
    let folder = folder.display().to_string();
    let id = format!("env-{}", std::process::id());
    let config = json!({ "stateDir": null });
    let with = MiniCni::new(&world, &config).container(&id).variable("XDG_RUNTIME_DIR", &folder);
    let without = MiniCni::new(&world, &config).container(&id);
    without.add().unwrap();
    with.del().unwrap();
    assert!(!has_interface(&world.guest, "eth0"));
    // The other way round the record is out of sight, but the processes are not.
    with.add().unwrap();
    without.behind(&["/usr/bin/env", "--chdir=/"]).del().unwrap();
    assert!(!has_interface(&world.guest, "eth0"));
    with.del().unwrap();
}

#[test]
fn deletion_works_from_a_pid_namespace_in_which_the_processes_cannot_be_seen() {
    let world = needs!(World::root());
    let cni = MiniCni::new(&world, &json!({}));
    cni.add().unwrap();
    let keeper = cni.keeper();
    let elsewhere = MiniCni::new(&world, &json!({})).behind(&[
        "unshare",
        "--pid",
        "--fork",
        "--mount",
        "--mount-proc",
        "--",
    ]);
    elsewhere.del().unwrap();
    assert!(!has_interface(&world.guest, "eth0"));
    await_end(keeper, "the keeper has ended");
    assert_nothing_left(&world);
}

#[test]
fn state_folder_that_cannot_be_trusted_is_not_used() {
    let world = needs!(World::ordinary());
    let root = world.folder().display().to_string();
    world.host.script(&format!(
        "mkdir {root}/foreign; mkdir {root}/open; chown 1500 {root}/open; chmod 0777 {root}/open
        mkdir {root}/real; chown 1500 {root}/real; chmod 0700 {root}/real; ln -s real {root}/link
        touch {root}/file; mkdir {root}/closed; chmod 0755 {root}/closed"
    ));
    for (name, problem) in [
        ("foreign", "it belongs to another user"),
        ("open", "others may write to it"),
        ("link", "not a folder"),
        ("file", "not a folder"),
        ("closed/state", "Permission denied"),
    ] {
        let config = json!({ "stateDir": format!("{root}/{name}") });
        let failure = MiniCni::new(&world, &config).add().unwrap_err();
        assert!(failure.message.contains(problem), "{name}: {failure:?}");
        assert_eq!(failure.details, "name one with stateDir");
    }
    let long = format!("{root}/{}", "x".repeat(90));
    let failure = MiniCni::new(&world, &json!({ "stateDir": long })).add().unwrap_err();
    assert!(failure.message.contains("too long"), "{failure:?}");
    assert!(!has_interface(&world.guest, "eth0"));
}

#[test]
fn missing_device_is_named_and_status_says_it_first() {
    let world = needs!(World::ordinary());
    world.host.script("rm /dev/net/tun");
    let cni = MiniCni::new(&world, &json!({}));
    let failure = cni.add().unwrap_err();
    assert_eq!(
        failure.message,
        "add slirp eth0: open(\"/dev/net/tun\"): No such file or directory"
    );
    assert!(failure.details.contains("tun module"), "{failure:?}");
    let failure = cni.status().unwrap_err();
    assert!(failure.code == 50 && failure.message.contains("/dev/net/tun"), "{failure:?}");
    cni.del().unwrap();
    assert_nothing_left(&world);
}

#[test]
fn many_containers_come_and_go_in_parallel() {
    const COUNT: usize = 50;
    let world = needs!(World::root());
    let containers: Vec<Namespace> =
        (0..COUNT).map(|_| Namespace::container(&world.host, Account::Root)).collect();
    // Additions overlap each other, and so do deletions.
    let all_are_added = std::sync::Barrier::new(COUNT);
    std::thread::scope(|scope| {
        for (number, container) in containers.iter().enumerate() {
            let (world, all_are_added) = (&world, &all_are_added);
            scope.spawn(move || {
                let config = json!({ "portMappings": [
                    { "hostPort": 20_000 + number, "containerPort": 80 },
                ] });
                let cni = MiniCni::new(world, &config)
                    .container(&format!("c{number}"))
                    .netns(&format!("/proc/{}/ns/net", container.pid()));
                let added = cni.add();
                let running = all_are_added.wait().is_leader().then(|| processes_of(world).len());
                all_are_added.wait();
                added.unwrap();
                if let Some(running) = running {
                    assert_eq!(
                        running,
                        3 * COUNT,
                        "keepers, engines, and what stays outside of sandboxes"
                    );
                }
                cni.check().unwrap();
                cni.del().unwrap();
                assert!(!has_interface(container, "eth0"));
                let port = (Ipv4Addr::UNSPECIFIED, 20_000 + u16::try_from(number).unwrap());
                drop(world.host.enter(|| TcpListener::bind(port)).expect("the port is free again"));
            });
        }
    });
    assert_nothing_left(&world);
}

#[test]
fn log_file_gets_what_happens_and_the_result_stays_alone() {
    let world = needs!(World::ordinary());
    let path = world.folder().join("log");
    let cni = MiniCni::new(&world, &json!({ "logFile": path.display().to_string() }));
    cni.add().unwrap();
    cni.del().unwrap();
    let mut text = String::new();
    std::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("serving") && text.contains("asked to end"), "{text}");
    let unusable = json!({ "logFile": "/proc/no-such-folder/log" });
    let failure = MiniCni::new(&world, &unusable).add().unwrap_err();
    assert!(failure.message.contains("logFile /proc/no-such-folder/log"), "{failure:?}");
}
