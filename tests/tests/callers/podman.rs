//! Rootless Podman, unmodified, with the binary under test as its `network_cmd_path`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_tests::*;

/// A resolver that Podman leaves out of a container's `resolv.conf`, so that only the virtual one
/// remains.
const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// The host as remotes know it.
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
const CURL: &str = "curl --silent --show-error --max-time 50";

fn resolver(world: &World) -> Dnsmasq {
    world.write_resolv_conf("nameserver 127.0.0.54\n");
    Dnsmasq::start(&world.host, RESOLVER, &[])
}

/// Every file below the user's runtime directory, where Podman keeps sockets, namespaces and pid
/// files. Not the names of dead API sockets: they cannot be removed from inside the sandbox that
/// Podman asks for.
fn runtime_files(session: &Session) -> Vec<PathBuf> {
    let is_dead = |path: &Path| {
        path.extension().is_some_and(|end| end == "net") && UnixStream::connect(path).is_err()
    };
    let mut files = Vec::new();
    let mut folders = vec![session.runtime_folder()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if !is_dead(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// What makes Podman's bridges.
const NETAVARK: &str = "/usr/lib/podman/netavark";

/// What runs and lies about in a session.
#[derive(Debug, PartialEq, Eq)]
struct Scene(Vec<SessionProcess>, Vec<PathBuf>);

impl Scene {
    fn of(podman: &Podman) -> Self {
        Self(podman.session.processes(), runtime_files(&podman.session))
    }

    /// The scene once Podman is done with what it was told before: only the process that keeps its
    /// user namespace is left.
    fn at_rest(podman: &Podman) -> Self {
        let rests = || podman.session.processes().len() == 1;
        wait_until(IO_LIMIT, "Podman has cleaned up", rests);
        Self::of(podman)
    }

    /// Podman cleans up behind a container in a process of its own.
    fn assert_restored(&self, podman: &Podman) {
        let started_at = Instant::now();
        while Self::of(podman) != *self && started_at.elapsed() < IO_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(*self, Self::of(podman), "(left: before, right: after)");
    }
}

#[test]
fn container_fetches_by_address_and_by_name() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _dns = resolver(world);
    let _far = web_server(&world.remote, (FAR, 80).into());
    let script = format!("{CURL} http://203.0.113.10/ http://www.example.test/");
    let text = podman.script("slirp4netns", &script);
    assert_eq!(text, "visitor 198.51.100.1\nvisitor 198.51.100.1\n");
}

#[test]
fn policy_of_the_environment_holds_for_containers() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _dns = resolver(world);
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _other = web_server(&world.remote, (REMOTE_2, 80).into());
    let file = podman.session.home().join("policy");
    std::fs::write(&file, "allow www.example.test\n").expect("the home is writable");
    let variable = format!("SLIRP_POLICY={}", file.display());
    let run = ["podman", "run", "--rm", "--volume=/usr:/usr:ro", "--network=slirp4netns", "box"];
    // By name; by an address that no rule allows; by a name that none allows.
    let script = format!(
        "{CURL} http://www.example.test/; {CURL} http://{REMOTE_2}/ || echo $?; \
         {CURL} http://other.example.test/ || echo $?"
    );
    let words = [&["env", &variable], &run[..], &["sh", "-uc", &script]].concat();
    assert_eq!(podman.session.succeed(&words), "visitor 198.51.100.1\n7\n6\n");
    // No policy, no network.
    std::fs::remove_file(&file).expect("it was written");
    let output = podman.session.exec(&[&["env", &variable], &run[..], &["true"]].concat());
    assert!(!output.status.success(), "{}", output.stdout);
}

#[test]
fn podman_asks_for_the_sandbox_and_gets_it() {
    let podman = needs!(Podman::build());
    podman.serve("web", &["--network=slirp4netns"], "0.0.0.0", &["80"]);
    let networks = podman.session.networks();
    assert_eq!(networks.len(), 1, "{networks:?}");
    for option in ["--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"] {
        assert!(networks[0].arguments.iter().any(|argument| argument == option), "{networks:?}");
    }
    let status = podman.session.proc(&format!("{}/status", networks[0].pid));
    for line in ["CapEff:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|said| said == line), "{line} in {status}");
    }
}

#[test]
fn host_loopback_is_open_only_where_the_option_says_so() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _dns = resolver(world);
    let _web = web_server(&world.host, (LOOPBACK, 8000).into());
    let script = format!("{CURL} http://10.0.2.2:8000/");
    assert_eq!(
        podman.script("slirp4netns:allow_host_loopback=true", &script),
        "visitor 127.0.0.1\n"
    );
    for network in ["slirp4netns", "slirp4netns:allow_host_loopback=false"] {
        let output = podman.run(network, &script);
        assert_eq!(output.status.code(), Some(7), "{}", output.stderr);
        // The resolver on the host's loopback answers all the same.
        let text = podman.script(network, "dig +short +time=50 www.example.test");
        assert_eq!(text, "203.0.113.10\n");
    }
}

#[test]
fn cidr_moves_the_container_its_gateway_and_its_nameserver() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _dns = resolver(world);
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _web = web_server(&world.host, (LOOPBACK, 8000).into());
    let text = podman.script(
        "slirp4netns:cidr=10.5.6.0/24,allow_host_loopback=true",
        &format!(
            "ip -4 -brief addr show tap0; grep --max-count=1 nameserver /etc/resolv.conf
            {CURL} http://www.example.test/ http://10.5.6.2:8000/"
        ),
    );
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][2], "10.5.6.100/24", "{text}");
    assert_eq!(lines[1], ["nameserver", "10.5.6.3"], "{text}");
    assert_eq!(lines[2..], [["visitor", "198.51.100.1"], ["visitor", "127.0.0.1"]], "{text}");
}

#[test]
fn mtu_is_the_taps_and_bulk_passes_at_it() {
    const LEN: usize = 4 << 20;
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _far = TcpServer::start(&world.remote, (FAR, 80).into(), |mut stream| {
        // Ends early only where the download fails, which the test sees.
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        let _ = send_exact(&stream, 7, LEN);
    });
    for mtu in ["1280", "1500", "65520"] {
        let text = podman.script(
            &format!("slirp4netns:mtu={mtu}"),
            &format!("cat /sys/class/net/tap0/mtu; {CURL} http://203.0.113.10/ | sha256sum"),
        );
        let mut expected = Vec::new();
        send_exact(&mut expected, 7, LEN).unwrap();
        std::fs::write(podman.session.home().join("expected"), expected).unwrap();
        let sum = podman.session.succeed(&["sh", "-c", "sha256sum < expected"]);
        assert_eq!(text, format!("{mtu}\n{sum}"));
    }
}

#[test]
fn ipv6_is_there_unless_it_is_switched_off() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _dns = resolver(world);
    let _far = web_server(&world.remote, (FAR_V6, 80).into());
    for network in ["slirp4netns", "slirp4netns:enable_ipv6=true"] {
        let script = format!("{CURL} -6 http://[2001:db8:2::10]/ http://www.example.test/");
        let text = podman.script(network, &script);
        assert_eq!(text, "visitor 2001:db8:1::1\nvisitor 2001:db8:1::1\n");
    }
    let text = podman.script(
        "slirp4netns:enable_ipv6=false",
        "ip -6 route show default; ip -6 -o addr show scope global",
    );
    assert_eq!(text, "");
}

#[test]
fn published_ports_show_the_clients_address() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    podman.serve(
        "web",
        &[
            "--network=slirp4netns:port_handler=slirp4netns",
            "--publish=8080:80/tcp",
            "--publish=8081:81/udp",
            "--publish=127.0.0.1:8082:80/tcp",
            "--publish=[::1]:8083:80/tcp",
            "--publish=[::1]:8083:81/udp",
        ],
        "0.0.0.0",
        &["80", "81"],
    );
    assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
    assert_eq!(ask_udp(&world.remote, (HOST, 8081).into()), "udp 198.51.100.2");
    // A client of the host's own loopback is the gateway.
    assert_eq!(ask_tcp(&world.host, (LOOPBACK, 8080).into()), "tcp 10.0.2.2");
    assert_eq!(ask_tcp(&world.host, (LOOPBACK, 8082).into()), "tcp 10.0.2.2");
    let refused = connect(&world.remote, (HOST, 8082).into()).unwrap_err();
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
    // One of IPv6 as well: the container's own IPv4 has no room for its address.
    for port in [8080, 8083] {
        assert_eq!(ask_tcp(&world.host, (LOOPBACK_V6, port).into()), "tcp 10.0.2.2");
    }
    for port in [8081, 8083] {
        assert_eq!(ask_udp(&world.host, (LOOPBACK_V6, port).into()), "udp 10.0.2.2");
    }
    let refused = connect(&world.remote, (HOST_V6, 8083).into()).unwrap_err();
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
    assert_eq!(ask_tcp(&world.remote, (HOST_V6, 8080).into()), "tcp 10.0.2.2");
    let network = &podman.session.networks()[0];
    assert!(network.arguments.iter().any(|argument| argument == "--api-socket"), "{network:?}");
    podman.succeed(&["rm", "--force", "--time=0", "web"]);
    let gone = connect(&world.remote, (HOST, 8080).into()).unwrap_err();
    assert_eq!(gone.errno, Errno::ECONNREFUSED);
}

#[test]
fn udp_clients_on_the_hosts_loopback_get_their_answers() {
    let podman = needs!(Podman::build());
    // Podman asks for a closed host loopback here.
    podman.serve(
        "web",
        &["--network=slirp4netns:port_handler=slirp4netns", "--publish=8081:81/udp"],
        "0.0.0.0",
        &["81"],
    );
    let world = &podman.session.world;
    assert_eq!(ask_udp(&world.host, (LOOPBACK, 8081).into()), "udp 10.0.2.2");
}

#[test]
fn rootlessport_publishes_ports_beside_the_network() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    podman.serve(
        "web",
        &[
            "--network=slirp4netns:port_handler=rootlesskit",
            "--publish=8080:80/tcp",
            "--publish=8081:81/udp",
        ],
        "0.0.0.0",
        &["80", "81"],
    );
    // It connects from inside the container's namespace.
    assert!(ask_tcp(&world.remote, (HOST, 8080).into()).starts_with("tcp "));
    assert!(ask_udp(&world.remote, (HOST, 8081).into()).starts_with("udp "));
}

#[test]
fn taken_host_port_fails_the_container() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _taken = web_server(&world.host, (LOOPBACK, 8080).into());
    let scene = Scene::at_rest(&podman);
    let output = podman.exec(&[
        "run",
        "--rm",
        "--network=slirp4netns:port_handler=slirp4netns",
        "--publish=127.0.0.1:8080:80",
        "--volume=/usr:/usr:ro",
        "box",
        "true",
    ]);
    assert!(!output.status.success());
    let text = "bad request: add_hostfwd: slirp_add_hostfwd failed";
    assert!(output.stderr.contains(text), "{}", output.stderr);
    podman.succeed(&["rm", "--all", "--force"]);
    scene.assert_restored(&podman);
}

#[test]
fn stop_start_and_rm_leave_nothing_behind() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    // The first container makes what all of them share.
    podman.script("slirp4netns:port_handler=slirp4netns", "true");
    let scene = Scene::at_rest(&podman);
    let options = ["--network=slirp4netns:port_handler=slirp4netns", "--publish=8080:80"];
    podman.serve("web", &options, "0.0.0.0", &["80"]);
    podman.serve("other", &["--network=slirp4netns"], "0.0.0.0", &["80"]);
    assert_eq!(podman.session.networks().len(), 2);
    for verb in ["restart", "stop", "start"] {
        if verb != "start" {
            assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
        }
        let served = podman.succeed(&["logs", "web"]).len();
        podman.succeed(
            &[&[verb] as &[_], &["--time=0"][usize::from(verb == "start")..], &["web"]].concat(),
        );
        if verb == "stop" {
            // The other container keeps its own.
            wait_until(IO_LIMIT, "one network is left", || podman.session.networks().len() == 1);
        } else {
            wait_until(IO_LIMIT, "it serves again", || {
                podman.succeed(&["logs", "web"]).len() > served
            });
            assert_eq!(podman.session.networks().len(), 2);
        }
    }
    assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
    podman.succeed(&["rm", "--force", "--time=0", "web", "other"]);
    scene.assert_restored(&podman);
}

#[test]
fn killed_container_takes_its_network_along() {
    let podman = needs!(Podman::build());
    podman.script("slirp4netns", "true");
    let scene = Scene::at_rest(&podman);
    podman.serve("web", &["--rm", "--network=slirp4netns"], "0.0.0.0", &["80"]);
    podman.succeed(&["kill", "--signal=KILL", "web"]);
    scene.assert_restored(&podman);
}

#[test]
fn podman_reports_which_network_program_it_uses() {
    let podman = needs!(Podman::build());
    let text = podman.succeed(&[
        "info",
        "--format",
        "{{.Host.Slirp4NetNS.Executable}}\n{{.Host.Slirp4NetNS.Version}}",
    ]);
    let binary = podman.session.world.reachable_binary();
    assert!(text.starts_with(binary.to_str().unwrap()), "{text}");
    assert!(text.contains("slirp4netns version 1."), "{text}");
}

#[test]
fn outbound_addresses_are_the_sources_that_remotes_see() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _far = web_server(&world.remote, (FAR, 80).into());
    let _far_v6 = web_server(&world.remote, (FAR_V6, 80).into());
    world.host.script(
        "ip addr add 198.51.100.77/24 dev h0; ip addr add 2001:db8:1::77/64 dev h0 nodad
        ip link add second type bridge; ip addr add 198.51.100.88/32 dev second;
        ip link set second up",
    );
    let script = format!("{CURL} http://203.0.113.10/");
    let by_address = podman.script("slirp4netns:outbound_addr=198.51.100.77", &script);
    assert_eq!(by_address, "visitor 198.51.100.77\n");
    let by_name = podman.script("slirp4netns:outbound_addr=second", &script);
    assert_eq!(by_name, "visitor 198.51.100.88\n");
    let script = format!("{CURL} http://[2001:db8:2::10]/");
    let by_address = podman.script("slirp4netns:outbound_addr6=2001:db8:1::77", &script);
    assert_eq!(by_address, "visitor 2001:db8:1::77\n");
}

#[test]
fn containers_of_a_pod_share_one_network() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    podman.succeed(&[
        "pod",
        "create",
        "--name=pod",
        "--network=slirp4netns:port_handler=slirp4netns",
        "--publish=8080:80",
        "--infra-image=box",
        "--infra-command=/busybox sleep 120",
    ]);
    podman.serve("web", &["--pod=pod"], "0.0.0.0", &["80"]);
    assert_eq!(podman.session.networks().len(), 1);
    assert_eq!(ask_tcp(&world.remote, (HOST, 8080).into()), "tcp 198.51.100.2");
    let client = "import socket; print(socket.create_connection(('127.0.0.1', 80)).recv(99))";
    let run = ["run", "--rm", "--volume=/usr:/usr:ro", "--pod=pod", "box"];
    let text = podman.succeed(&[&run as &[_], &["/usr/bin/python3", "-c", client]].concat());
    assert_eq!(text, "b'tcp 127.0.0.1'\n");
    podman.succeed(&["pod", "rm", "--force", "--time=0", "pod"]);
    wait_until(IO_LIMIT, "the network is gone", || podman.session.networks().is_empty());
}

/// Podman's own bridges live in one more namespace, which one network serves for all of them.
#[test]
fn containers_on_a_bridge_reach_out_through_the_network_of_their_user() {
    needs!(is_there(NETAVARK));
    needs!(is_installed("iptables"));
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let _far = web_server(&world.remote, (FAR, 80).into());
    let resting = podman.session.processes();
    podman.succeed(&["network", "create", "shared"]);
    podman.serve("web", &["--network=shared"], "0.0.0.0", &["80"]);
    podman.serve("other", &["--network=shared"], "0.0.0.0", &["80"]);
    let networks = podman.session.networks();
    assert_eq!(networks.len(), 1, "{networks:?}");
    assert!(networks[0].arguments.iter().any(|word| word == "--netns-type=path"), "{networks:?}");
    for name in ["web", "other"] {
        let text = podman.succeed(&["exec", name, "curl", "-sS", "-m15", "http://203.0.113.10/"]);
        assert_eq!(text, "visitor 198.51.100.1\n");
    }
    podman.succeed(&["rm", "--force", "--time=0", "web", "other"]);
    wait_until(IO_LIMIT, "the network is gone", || podman.session.processes() == resting);
}
