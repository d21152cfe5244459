//! Callers that cannot be run here: their command lines word by word, their descriptors, and what
//! they do next.

use std::net::{IpAddr, Ipv4Addr};

use nix::sys::signal::Signal;
use slirp_tests::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CURL: &str = "curl --silent --show-error --max-time 50";

/// Starts exactly these words and waits for the one byte.
fn start<'w>(world: &'w World, argv: &[&str]) -> SlirpBuilder<'w> {
    world.slirp().bare().positionals(argv)
}

fn ready(builder: SlirpBuilder<'_>) -> Slirp {
    let mut slirp = builder.spawn();
    assert_eq!(slirp.read_ready_fd(), b"1", "{}", slirp.stderr());
    slirp
}

fn fetch(world: &World) -> String {
    world.guest.script(&format!("{CURL} http://203.0.113.10/"))
}

const SEEN: &str = "visitor 198.51.100.1\n";

/// Words may come in any order, and short options in bundles.
#[test]
fn callers_order_their_words_as_they_like() {
    let orders: &[&[&str]] = &[
        &["-c", "-m", "1500", "-r", "3", "PID", "tap0"],
        &["PID", "tap0", "--configure", "--mtu", "1500", "--ready-fd=3"],
        &["-c", "PID", "--mtu=1500", "tap0", "-r3"],
        &["PID", "-cm1500", "--cidr", "10.0.2.0/24", "tap0", "--ready=3"],
        &["--configure", "--mtu=1500", "--ready-fd=3", "--", "PID", "tap0"],
    ];
    for order in orders {
        let world = needs!(World::ordinary());
        let _far = web_server(&world.remote, (FAR, 80).into());
        let pid = world.guest.pid().to_string();
        let argv: Vec<_> =
            order.iter().map(|&word| if word == "PID" { pid.as_str() } else { word }).collect();
        let _slirp = ready(start(&world, &argv));
        assert!(world.guest.script("ip link show tap0").contains("mtu 1500"), "{order:?}");
        assert_eq!(fetch(&world), SEEN, "{order:?}");
    }
}

/// A CNI plugin that wraps it: any interface name, one byte, SIGTERM, and the process must be gone.
#[test]
fn cni_wrappers_name_the_interface_and_end_it_by_signal() {
    let world = needs!(World::root());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let pid = world.guest.pid().to_string();
    let slirp = ready(start(&world, &["-c", "-m", "1500", "-r", "3", &pid, "eth0"]));
    assert!(world.guest.script("ip -4 -brief addr show eth0").contains("10.0.2.100/24"));
    assert_eq!(fetch(&world), SEEN);
    let facts = slirp.facts();
    slirp.signal(Signal::SIGTERM);
    wait_until(PATIENCE, "it is gone", || !facts.is_alive());
}

/// RootlessKit 2 with `--detach-netns`, as Docker and nerdctl use it, and k3s's network: the
/// namespace is a file in the child's mount namespace, the device is made beforehand, and its user
/// namespace comes by path.
#[test]
fn rootlesskit_with_a_detached_namespace_gives_both_by_path() {
    let world = needs!(World::ordinary());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let pid = world.guest.pid();
    let file = world.folder().join("detached");
    let file = file.to_str().unwrap();
    world.guest.script(&format!(
        "touch {file}; unshare --net={file} sh -c '
            ip link set lo up; ip tuntap add name tap0 mode tap; ip link set tap0 mtu 65520 up'"
    ));
    let api = Api::new(&world);
    let socket = api.path().to_str().unwrap();
    let users = format!("--userns-path=/proc/{pid}/ns/user");
    let namespace = format!("/proc/{pid}/root{file}");
    let argv = ["--mtu", "65520", "-r", "3", "--disable-host-loopback", "--cidr", "10.41.0.0/16"];
    let rest = ["--api-socket", socket, "--enable-ipv6", &users, "--netns-type=path"];
    let _slirp =
        ready(start(&world, &[&argv as &[_], &rest, &[namespace.as_str(), "tap0"]].concat()));
    let text = world.guest.script(&format!(
        "nsenter --net={file} sh -euc '
            ip addr add 10.41.0.100/16 dev tap0; ip route add default via 10.41.0.2
            {CURL} http://203.0.113.10/'"
    ));
    assert_eq!(text, SEEN);
    // A port comes and goes, as RootlessKit's port manager asks for it.
    let add = "{\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\"host_port\":8080,\
        \"guest_addr\":\"10.41.0.100\",\"guest_port\":80}";
    let id = api.forward(add);
    let remove = format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{id}}}}}\n");
    assert_eq!(api.ask(&remove), "{\"return\":{}}");
}

/// Podman 4.4 to 5 and Buildah: root of Podman's user namespace on the host's network, the
/// container's namespace by path.
#[test]
fn podman_5_runs_it_as_root_of_its_user_namespace() {
    let world = needs!(World::ordinary());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let pid = world.guest.pid().to_string();
    let namespace = format!("/proc/{pid}/ns/net");
    let podman = ["nsenter", "--target", &pid, "--user", "--preserve-credentials", "--"];
    let api = Api::new(&world);
    let head = ["--disable-host-loopback", "--mtu=65520", "--enable-sandbox", "--enable-seccomp"];
    let middle = ["--enable-ipv6", "-c", "-r", "3", "-e", "4", "--api-socket"];
    let tail = [api.path().to_str().unwrap(), "--netns-type=path", &namespace, "tap0"];
    let argv = [&head as &[_], &middle, &tail].concat();
    let mut slirp = ready(start(&world, &argv).behind(&podman));
    assert_eq!(fetch(&world), SEEN);
    // What Podman asks of the socket: one read has to bring the whole answer.
    let reply = api.ask(
        "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp\",\"host_addr\":\"0.0.0.0\",\
         \"host_port\":8080,\"guest_addr\":\"\",\"guest_port\":80}}\n",
    );
    assert_eq!(reply, "{\"return\":{\"id\":1}}");
    slirp.close_exit_fd();
    assert_eq!(slirp.wait().code, Some(0));
}

/// nsjail and others that bring their own resolver.
#[test]
fn nameserver_address_is_nobodys_where_dns_is_disabled() {
    let world = needs!(World::ordinary());
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _dns = Dnsmasq::start(&world.host, Ipv4Addr::new(127, 0, 0, 53).into(), &[]);
    let pid = world.guest.pid().to_string();
    let api = Api::new(&world);
    let socket = api.path().to_str().unwrap();
    let argv = ["--disable-dns", "--configure", "--api-socket", socket, "-r3", &pid, "tap0"];
    let _slirp = ready(start(&world, &argv));
    assert_eq!(fetch(&world), SEEN);
    let dig = ["dig", "+time=1", "+tries=1", "www.example.test"];
    assert!(!world.guest.exec(&dig).status.success());
}

/// A container whose process has gone into a further user namespace, as bubblewrap's does after it
/// has made `/dev`.
#[test]
fn user_namespace_within_the_one_that_owns_the_network_is_no_obstacle() {
    for account in [Account::Ordinary, Account::Root] {
        let world = needs!(World::of(account));
        let _web = web_server(&world.host, (LOOPBACK, 8000).into());
        let inner = world.guest.spawn(&[
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo in >\"$0\"; read end",
            world.folder().join("inner").to_str().unwrap(),
        ]);
        wait_until(IO_LIMIT, "the inner namespace is there", || {
            world.folder().join("inner").exists()
        });
        let pid = inner.pid().to_string();
        let _slirp = ready(start(&world, &["-c", "-r", "3", &pid, "tap0"]));
        let text = world.guest.script(&format!("{CURL} http://10.0.2.2:8000/"));
        assert_eq!(text, "visitor 127.0.0.1\n");
        inner.finish();
    }
}
