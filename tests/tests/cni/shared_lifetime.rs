//! The processes behind a shared network: how they start, which events end them, and what they
//! leave behind.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use slirp_tests::*;

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

fn has_interface(namespace: &Namespace) -> bool {
    namespace.exec(&["ip", "link", "show", "eth0"]).status.success()
}

fn files_of(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.folder().join("state")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn assert_nothing_left(world: &World) {
    wait_until(PATIENCE, "no process is left", || {
        network_processes(world).is_empty() && keepers(world).is_empty()
    });
    assert_eq!(files_of(world), Vec::<String>::new());
}

fn the_process(world: &World) -> u32 {
    let found = network_processes(world);
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// The process that keeps a container's attachment.
fn keeper_of(container: &Container<'_>, id: &str) -> u32 {
    let list = container.cni.attachments();
    let entry = list.iter().find(|entry| entry["containerID"] == id).unwrap();
    u32::try_from(entry["pid"].as_u64().unwrap()).unwrap()
}

#[test]
fn connections_of_others_live_on_and_the_last_deletion_ends_the_process() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        // The first one has started the process.
        let first = Container::join(&world, "a", &json!({})).unwrap();
        let second = Container::join(&world, "b", &json!({})).unwrap();
        let third = Container::join(&world, "c", &json!({})).unwrap();
        let process = the_process(&world);
        let near = TcpServer::echo(&third.namespace, third.at(0));
        let far = TcpServer::echo(&world.remote, (FAR, 0).into());
        let to_near = connect(&second.namespace, near.address()).unwrap();
        let to_far = connect(&second.namespace, far.address()).unwrap();
        let of_first = connect(&first.namespace, far.address()).unwrap();
        for container in [&first, &second] {
            for stream in [&to_near, &to_far] {
                send_exact(stream, 5, 1 << 18).unwrap();
                receive_exact(stream, 5, 1 << 18).unwrap();
            }
            if std::ptr::eq(container, &first) {
                first.cni.del().unwrap();
                assert!(!has_interface(&first.namespace));
                drop(of_first.try_clone().unwrap());
            }
        }
        second.cni.del().unwrap();
        assert_eq!(the_process(&world), process);
        assert!(has_interface(&third.namespace));
        third.cni.del().unwrap();
        assert_nothing_left(&world);
    }
}

#[test]
fn remotes_of_a_container_that_leaves_see_a_reset() {
    let world = needs!(World::ordinary());
    let first = Container::join(&world, "a", &json!({})).unwrap();
    let _second = Container::join(&world, "b", &json!({})).unwrap();
    let (ends, end) = std::sync::mpsc::channel();
    let server = TcpServer::start(&world.remote, (FAR, 0).into(), move |stream| {
        let outcome = std::io::Read::read(&mut &stream, &mut [0; 16]);
        // The test may be over.
        let _ = ends.send(outcome.map_err(|error| error.kind()));
    });
    let _stream = connect(&first.namespace, server.address()).unwrap();
    first.cni.del().unwrap();
    let outcome = end.recv_timeout(PATIENCE).unwrap();
    assert_eq!(outcome, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn process_is_confined_in_no_members_namespace() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let first = Container::join(&world, "a", &json!({})).unwrap();
        let process = the_process(&world);
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let value = |name: &str| {
            status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned()
        };
        assert_eq!(value("Seccomp:"), "2");
        assert_eq!(value("CapEff:"), "0000000000000400");
        let user = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
        assert_ne!(user(process), user(first.namespace.pid()));
        for number in [0, 1, 2] {
            let target = std::fs::read_link(format!("/proc/{process}/fd/{number}")).unwrap();
            assert!(number == 2 || target == std::path::Path::new("/dev/null"), "{target:?}");
        }
    }
}

#[test]
fn end_of_a_container_ends_its_membership_alone() {
    let world = needs!(World::ordinary());
    let first = Container::join(&world, "a", &json!({})).unwrap();
    let second = Container::join(&world, "b", &json!({})).unwrap();
    send(first.namespace.pid(), Signal::SIGKILL);
    wait_until(PATIENCE, "the attachment has ended", || second.cni.attachments().len() == 1);
    second.cni.check().unwrap();
    let third = Container::join(&world, "c", &json!({})).unwrap();
    assert_eq!(third.address(), Ipv4Addr::new(10, 0, 2, 100), "its address is free");
    for container in [&second, &third] {
        send(container.namespace.pid(), Signal::SIGKILL);
    }
    assert_nothing_left(&world);
}

#[test]
fn deleted_interface_ends_its_membership_alone() {
    let world = needs!(World::ordinary());
    let first = Container::join(&world, "a", &json!({})).unwrap();
    let second = Container::join(&world, "b", &json!({})).unwrap();
    first.namespace.script("ip link delete eth0");
    wait_until(PATIENCE, "the attachment has ended", || second.cni.attachments().len() == 1);
    second.cni.check().unwrap();
    assert!(first.cni.check().unwrap_err().message.contains("not attached"));
}

#[test]
fn killed_keeper_takes_its_member_with_it_and_no_other() {
    let world = needs!(World::ordinary());
    let config = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
    let first = Container::join(&world, "a", &config).unwrap();
    let second = Container::join(&world, "b", &json!({})).unwrap();
    send(keeper_of(&first, "a"), Signal::SIGKILL);
    first.cni.del().unwrap();
    assert!(!has_interface(&first.namespace), "gone when DEL returns");
    let again = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)));
    again.expect("the port is free when DEL returns");
    second.cni.check().unwrap();
    let third = Container::join(&world, "a", &json!({})).unwrap();
    assert_eq!(third.address(), first.address());
    send(keeper_of(&second, "b"), Signal::SIGKILL);
    send(keeper_of(&third, "a"), Signal::SIGKILL);
    wait_until(PATIENCE, "the process has ended", || network_processes(&world).is_empty());
    second.cni.del().unwrap();
    third.cni.del().unwrap();
    assert_nothing_left(&world);
}

#[test]
fn network_begins_anew_after_its_process_is_killed() {
    let world = needs!(World::ordinary());
    let first = Container::join(&world, "a", &json!({})).unwrap();
    let second = Container::join(&world, "b", &json!({})).unwrap();
    send(the_process(&world), Signal::SIGKILL);
    assert_nothing_left(&world);
    let failure = first.cni.check().unwrap_err();
    assert_eq!(failure.message, "check slirp eth0: the container is not attached");
    first.cni.del().unwrap();
    first.cni.add().unwrap();
    second.cni.add().unwrap();
    let server = TcpServer::echo(&first.namespace, first.at(0));
    connect(&second.namespace, server.address()).unwrap();
}

#[test]
fn addition_that_fails_leaves_nothing_behind() {
    let world = needs!(World::ordinary());
    let namespace = Container::alone(&world, Account::Ordinary);
    namespace.script("ip link add eth0 type veth peer name other");
    let runtime = Container::runtime(&world, &namespace, "a", &json!({}));
    let failure = runtime.add().unwrap_err();
    assert!(failure.message.contains("interface eth0 exists already"), "{failure:?}");
    assert_nothing_left(&world);
    // The network refuses an impossible request, and has no member then either.
    let busy = world.host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080))).unwrap();
    let config = json!({ "portMappings": [{ "hostPort": 8080, "containerPort": 80 }] });
    let failure = Container::join(&world, "p", &config).unwrap_err();
    assert!(failure.message.contains("port mapping 0.0.0.0:8080->80/tcp"), "{failure:?}");
    assert_nothing_left(&world);
    drop(busy);
    // The same while others are there: they do not notice.
    let other = Container::join(&world, "b", &json!({})).unwrap();
    runtime.add().unwrap_err();
    assert_eq!(other.cni.attachments().len(), 1);
    let next = Container::join(&world, "c", &json!({})).unwrap();
    assert_eq!(next.address(), Ipv4Addr::new(10, 0, 2, 101), "no address was lost");
}

#[test]
fn result_that_nobody_reads_leaves_nothing_behind() {
    let world = needs!(World::ordinary());
    let other = Container::join(&world, "b", &json!({})).unwrap();
    let namespace = Container::alone(&world, Account::Ordinary);
    let runtime = Container::runtime(&world, &namespace, "a", &json!({}));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = runtime
        .command("ADD")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(writer))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, runtime.input(&[]).as_bytes()).unwrap();
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!has_interface(&namespace));
    assert_eq!(other.cni.attachments().len(), 1);
    other.cni.check().unwrap();
    let next = Container::join(&world, "c", &json!({})).unwrap();
    assert_eq!(next.address(), Ipv4Addr::new(10, 0, 2, 101), "its address is free");
}

#[test]
fn killed_keeper_makes_way_for_a_container_of_the_other_kind() {
    let world = needs!(World::ordinary());
    let [first, second] = [(); 2].map(|()| Container::alone(&world, Account::Ordinary));
    let netns = |namespace: &Namespace| format!("/proc/{}/ns/net", namespace.pid());
    for is_shared in [false, true] {
        let runtime = MiniCni::new(&world, &json!({ "shared": is_shared })).netns(&netns(&first));
        runtime.add().unwrap();
        let keeper = runtime.keeper();
        send(keeper, Signal::SIGKILL);
        // It has lost its command line before.
        wait_until(PATIENCE, "the keeper is gone", || !ProcessFacts(keeper).is_alive());
        let other = MiniCni::new(&world, &json!({ "shared": !is_shared }));
        let other = other.container("c2").netns(&netns(&second));
        other.add().unwrap();
        // Having both at once does not prevent a deletion.
        runtime.del().unwrap();
        other.check().unwrap();
        other.del().unwrap();
        assert_nothing_left(&world);
    }
}

#[test]
fn of_two_at_once_that_disagree_about_sharing_at_most_one_stays() {
    let world = needs!(World::ordinary());
    let namespaces = [(); 2].map(|()| Container::alone(&world, Account::Ordinary));
    let runtimes: Vec<MiniCni<'_>> = [(0, true), (1, false)]
        .map(|(index, shared)| {
            MiniCni::new(&world, &json!({ "shared": shared }))
                .container(&format!("c{index}"))
                .netns(&format!("/proc/{}/ns/net", namespaces[index].pid()))
        })
        .into();
    for _ in 0..10 {
        let started: Vec<_> = runtimes.iter().map(|runtime| runtime.start("ADD", &[])).collect();
        let outputs = started.into_iter().map(Background::finish);
        let added = outputs.filter(|output| output.status.success()).count();
        assert!(added < 2, "both are there");
        assert_eq!(runtimes[0].attachments().len(), added);
        for runtime in &runtimes {
            runtime.del().unwrap();
        }
        assert_nothing_left(&world);
    }
}

#[test]
fn twenty_containers_join_at_once_and_leave_at_once() {
    const COUNT: usize = 20;
    let world = needs!(World::root());
    let namespaces: Vec<Namespace> =
        (0..COUNT).map(|_| Container::alone(&world, Account::Root)).collect();
    let addresses = std::sync::Mutex::new(BTreeSet::new());
    let all = |work: &(dyn Fn(&MiniCni<'_>) + Sync)| {
        std::thread::scope(|scope| {
            for (number, namespace) in namespaces.iter().enumerate() {
                let world = &world;
                scope.spawn(move || {
                    let config = json!({});
                    let cni = Container::runtime(world, namespace, &format!("c{number}"), &config);
                    work(&cni);
                });
            }
        });
    };
    all(&|cni| {
        let result = cni.add().unwrap();
        let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
        assert!(addresses.lock().unwrap().insert(address), "nobody else has it");
    });
    assert_eq!(addresses.lock().unwrap().len(), COUNT);
    assert_eq!(network_processes(&world).len(), 1);
    let some = Container::runtime(&world, &namespaces[0], "c0", &json!({}));
    assert_eq!(some.attachments().len(), COUNT);
    all(&|cni| cni.del().unwrap());
    assert_nothing_left(&world);
}

#[test]
fn joining_while_the_last_one_leaves_finds_or_starts_a_process() {
    let world = needs!(World::root());
    let namespaces: Vec<Namespace> =
        (0..2).map(|_| Container::alone(&world, Account::Root)).collect();
    std::thread::scope(|scope| {
        for (number, namespace) in namespaces.iter().enumerate() {
            let world = &world;
            scope.spawn(move || {
                let config = json!({});
                let cni = Container::runtime(world, namespace, &format!("c{number}"), &config);
                for _ in 0..15 {
                    cni.add().unwrap();
                    assert!(!network_processes(world).is_empty());
                    cni.del().unwrap();
                    assert!(!has_interface(namespace));
                }
            });
        }
    });
    assert_nothing_left(&world);
}

#[test]
fn users_do_not_share_a_network_of_the_same_name() {
    let world = needs!(World::root());
    let folder = world.folder().display().to_string();
    let of = |account: Account, user: &str| {
        let config = json!({ "stateDir": format!("{folder}/state-{user}") });
        let namespace = Container::alone(&world, account);
        Container::join_with(&world, namespace, "c", &config, |cni| cni.account(account)).unwrap()
    };
    let (root, user) = (of(Account::Root, "root"), of(Account::Ordinary, "user"));
    assert_eq!(root.address(), user.address());
    assert_eq!(network_processes(&world).len(), 2);
    // Nor does one get into the other's by its folder.
    let config = json!({ "stateDir": format!("{folder}/state-root") });
    let namespace = Container::alone(&world, Account::Ordinary);
    let failure =
        Container::join_with(&world, namespace, "d", &config, |cni| cni.account(Account::Ordinary))
            .unwrap_err();
    assert!(failure.message.contains("it belongs to another user"), "{failure:?}");
}
