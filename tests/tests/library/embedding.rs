//! The library inside other programs: the shipped examples, and instances in this process.
//!
//! A thread in the world's host namespace makes the instances, so that their sockets live there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use slirp_core::instance::{
    Builder, Instance, OutboundAddresses, OutboundError, RunError, StartError,
};
use slirp_core::link::{FrameSocket, Recording};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_core::policy::Policy;
use slirp_tests::{
    Account, FAR, GATEWAY, Namespace, PATIENCE, ProcessFacts, TcpServer, World, connect, needs,
    receive_exact, send_exact, wait_until,
};

use crate::turn;

/// An instance of this process for `guest`, on the network of the world's host.
fn embed(world: &World, guest: &Namespace, policy: Policy) -> Instance {
    try_embed(world, guest, |builder| builder.policy(policy)).expect("the instance starts")
}

fn try_embed(
    world: &World,
    guest: &Namespace,
    change: impl FnOnce(Builder) -> Builder + Send,
) -> Result<Instance, StartError> {
    world.host.enter(|| {
        let plan = SlirpNetwork::default();
        let pid = i32::try_from(guest.pid()).expect("process ids fit");
        let target = NamespaceTarget::of_pid(pid).expect("the guest is there");
        let configure = Some(Configuration::for_plan(&plan, 1500));
        let tap = open_tap(&target, &TapRequest { name: "tap0".to_owned(), configure })
            .expect("the device opens");
        change(Builder::new(tap).plan(plan)).spawn()
    })
}

/// One small exchange over a connection that stays open.
fn echo(guest: &Namespace, to: SocketAddr) -> TcpStream {
    let mut stream = connect(guest, to).expect("the guest is on the network");
    send_exact(&mut stream, 7, 10_000).expect("the guest may send");
    receive_exact(&mut stream, 7, 10_000).expect("all of it comes back");
    stream
}

fn open_files() -> usize {
    ProcessFacts(std::process::id()).open_files()
}

/// Threads of instances in this process.
fn instance_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("slirp-"))
        .count()
}

/// Children of this process, zombies included.
fn children() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let mut children: Vec<String> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    children.sort();
    children
}

pub(crate) fn build_example(example: &str) -> PathBuf {
    // <target>/<profile folder>/deps/<test binary>
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.ancestors().nth(2).expect("test binaries live in <target>/<profile>/deps");
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("debug");
    let profile = if name == "debug" { "dev" } else { name };
    let target = folder.parent().expect("the profile folder has a parent");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--workspace", "--example", example])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "building the example failed");
    folder.join("examples").join(example)
}

fn run_example(world: &World, program: &Path) -> String {
    let mut child = world
        .host
        .command(&[program.to_str().expect("the path is text")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the example starts");
    let facts = ProcessFacts(child.id());
    wait_until(PATIENCE, "end of the example", || !facts.is_alive());
    let status = child.wait().expect("the child is ours");
    let (mut said, mut complained) = (String::new(), String::new());
    child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut complained).expect("text");
    assert!(status.success(), "{status}: {complained}");
    assert_eq!(complained, "");
    said
}

#[test]
fn example_puts_two_containers_on_one_network_and_ends_cleanly() {
    let _turn = turn();
    let world = needs!(World::root());
    let said = run_example(&world, &build_example("members"));
    assert_eq!(said, "web says: listening\nclient says: hello from web\nstill there: 1\nbye\n");
}

#[test]
fn example_serves_two_containers_and_ends_cleanly() {
    let _turn = turn();
    let world = needs!(World::root());
    let said = run_example(&world, &build_example("embed"));
    for name in ["first", "second"] {
        assert!(said.contains(&format!("{name} container said: hello from the host\n")), "{said}");
        let counted = format!("{name} network: ");
        let line =
            said.lines().find(|line| line.starts_with(&counted)).expect("a line of counters");
        assert!(line.contains(" 1 TCP connections"), "{line}");
    }
    assert!(said.ends_with("bye\n"), "{said}");
}

#[test]
fn two_instances_of_one_process_serve_two_guests() {
    let _turn = turn();
    let world = needs!(World::root());
    let other = Namespace::container(&world.host, Account::Root);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let first = embed(&world, &world.guest, Policy::default());
    let second = embed(&world, &other, Policy::default());
    let _from_first = echo(&world.guest, server.address());
    let _from_second = echo(&other, server.address());
    let flows = |instance: &Instance| {
        instance.handle().blocking().stats().expect("the instance runs").tcp_opened
    };
    assert_eq!((flows(&first), flows(&second)), (1, 1));

    first.handle().shutdown();
    first.wait().expect("a clean end");
    let _still_served = echo(&other, server.address());
    second.handle().shutdown();
    second.wait().expect("a clean end");
}

#[test]
fn instances_have_their_own_policies() {
    let _turn = turn();
    let world = needs!(World::root());
    let other = Namespace::container(&world.host, Account::Root);
    let server = TcpServer::echo(&world.host, "127.0.0.1:0".parse().expect("an address"));
    let to = SocketAddr::new(GATEWAY, server.address().port());
    let mut closed = Policy::default();
    closed.allow_host_loopback = false;
    let _open = embed(&world, &world.guest, Policy::default());
    let _closed = embed(&world, &other, closed);
    let _stream = echo(&world.guest, to);
    connect(&other, to).expect_err("this guest may not reach the host's loopback");
}

#[test]
fn instances_have_their_own_source_addresses() {
    let _turn = turn();
    let world = needs!(World::root());
    let other = Namespace::container(&world.host, Account::Root);
    world.host.script("ip addr add 198.51.100.9/24 dev h0");
    let server = TcpServer::start(&world.remote, (FAR, 0).into(), |mut stream| {
        let peer = stream.peer_addr().expect("it is connected").ip();
        // A client that left hears nothing.
        let _ = stream.write_all(peer.to_string().as_bytes());
    });
    let from = |address: &str| {
        let address = address.parse().expect("an address");
        OutboundAddresses { ipv4: Some(address), ..OutboundAddresses::default() }
    };
    let second = from("198.51.100.9");
    let _first = embed(&world, &world.guest, Policy::default());
    let _second = try_embed(&world, &other, |builder| builder.outbound(second)).expect("it starts");
    for (guest, expected) in [(&world.guest, "198.51.100.1"), (&other, "198.51.100.9")] {
        let mut seen = String::new();
        let mut stream = connect(guest, server.address()).expect("the guest is on the network");
        stream.read_to_string(&mut seen).expect("the server says whom it sees");
        assert_eq!(seen, expected);
    }
    let third = Namespace::container(&world.host, Account::Root);
    let foreign = from("192.0.2.77");
    let refused = try_embed(&world, &third, |builder| builder.outbound(foreign));
    let error = refused.expect_err("the host does not have it");
    assert!(matches!(error, StartError::Outbound(OutboundError::NotAvailable(_))), "{error}");
}

#[test]
fn twenty_instances_with_open_connections_leave_nothing_behind() {
    let _turn = turn();
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let (files, family) = (open_files(), children());
    for round in 0..20 {
        let instance = embed(&world, &world.guest, Policy::default());
        let stream = echo(&world.guest, server.address());
        // A thread gives itself its name, and one that has been joined may be listed for a moment
        // longer.
        wait_until(PATIENCE, "two threads", || instance_threads() == 2);
        if round % 2 == 0 {
            instance.handle().shutdown();
            instance.wait().expect("a clean end");
        } else {
            drop(instance);
        }
        drop(stream);
    }
    wait_until(PATIENCE, "the end of all threads", || instance_threads() == 0);
    wait_until(PATIENCE, "closed descriptors", || open_files() <= files);
    assert_eq!(children(), family, "a helper process was left behind");
}

#[test]
fn handle_outlives_its_instance() {
    let _turn = turn();
    let world = needs!(World::root());
    let instance = embed(&world, &world.guest, Policy::default());
    let handle = instance.handle();
    drop(instance);
    assert!(handle.blocking().stats().is_none());
    handle.shutdown();
}

#[test]
fn deleted_device_ends_the_instance_with_an_error() {
    let _turn = turn();
    let world = needs!(World::root());
    let instance = embed(&world, &world.guest, Policy::default());
    world.guest.script("ip link delete tap0");
    let error = instance.wait().expect_err("the device is gone");
    assert!(matches!(error, RunError::TapGone(_)), "{error}");
}

#[test]
fn guest_of_a_socket_pair_is_served_and_recorded_until_it_hangs_up() {
    let _turn = turn();
    let world = needs!(World::root());
    let files = open_files();
    let (here, there) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .expect("a pair of sockets");
    let file = world.folder().join("embedded.pcap");
    let instance = world.host.enter(|| {
        let link = FrameSocket::adopt(here).expect("one end of a pair");
        let recording = Recording::create(&file).expect("a new file");
        Builder::new(link).recording(recording).spawn().expect("the instance starts")
    });
    // A thread gives itself its name.
    wait_until(PATIENCE, "the third thread", || instance_threads() == 3);
    // Who has 10.0.2.2?
    let question = b"\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x08\x06\0\x01\x08\0\x06\x04\0\x01\
        \x02\0\0\0\0\x01\x0a\0\x02\x64\0\0\0\0\0\0\x0a\0\x02\x02";
    send(there.as_raw_fd(), question, MsgFlags::empty()).expect("the instance listens");
    wait_until(PATIENCE, "the answer", || {
        let stats = instance.handle().blocking().stats().expect("the instance runs");
        stats.frames_to_guest == 1
    });
    drop(there);
    let error = instance.wait().expect_err("the guest has gone");
    assert!(matches!(error, RunError::PeerGone), "{error}");
    // Header, question and answer, whole by now.
    let len = std::fs::metadata(&file).expect("the recording is there").len();
    assert_eq!(len, 24 + 16 + 42 + 16 + 42);
    wait_until(PATIENCE, "the end of all threads", || instance_threads() == 0);
    wait_until(PATIENCE, "closed descriptors", || open_files() <= files);
}

#[test]
fn end_of_a_target_is_told() {
    let _turn = turn();
    let mut world = needs!(World::root());
    let pid = i32::try_from(world.guest.pid()).expect("process ids fit");
    let target = NamespaceTarget::of_pid(pid).expect("the guest is there");
    let watch = target.watch().expect("the kernel has descriptors of processes");
    assert!(!watch.is_gone());
    world.guest.kill_holder();
    assert!(watch.is_gone());
    let late = target.watch().expect_err("it is gone").to_string();
    assert_eq!(late, format!("cannot watch process {pid}: it is gone"));
}

#[test]
fn end_of_an_instance_can_be_polled_for() {
    let _turn = turn();
    let world = needs!(World::root());
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let (files, threads) = (open_files(), instance_threads());
    let network = embed(&world, &world.guest, Policy::default()).into_background().unwrap();
    drop(echo(&world.guest, server.address()));
    let has_ended = |timeout: u16| {
        let mut polled = [PollFd::new(network.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::from(timeout)).expect("a descriptor can be polled") == 1
    };
    assert!(!has_ended(0), "it runs");
    assert!(network.outcome(Duration::ZERO).is_none());
    network.handle().shutdown();
    assert!(has_ended(60_000), "it tells by itself");
    assert!(matches!(network.stop(PATIENCE), Some(Ok(()))), "and how");
    drop(network);
    let dropped = embed(&world, &world.guest, Policy::default()).into_background().unwrap();
    drop(dropped);
    wait_until(PATIENCE, "nothing is left of either", || {
        instance_threads() <= threads && open_files() <= files
    });
}
