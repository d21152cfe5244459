//! The command lines of known callers, word for word, and what they look at afterwards: status and
//! output, addresses and routes, the PID file, open ports.
//!
//! Where the distribution's pasta takes a line as well, it runs the same line on the same host, and
//! what both set up is compared.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use slirp_tests::{
    Background, FAR, HOST, PATIENCE, Picture, Podman, Rootless, World, ask_tcp, connect, needs,
    wait_until,
};

use crate::vectors::{Caller, Guest, Older, PODMAN, is_quiet};

/// Who runs a line, and what the line means for them.
struct Scene<'w> {
    world: &'w World,
    rootless: Rootless<'w>,
    distribution: Option<PathBuf>,
    pid_file: PathBuf,
}

impl<'w> Scene<'w> {
    fn new(world: &'w World) -> Self {
        // More than one of everything: Podman shows what is first, and all of it is copied.
        world.host.script(
            "ip addr add 192.0.2.7/28 dev h0; ip addr add 2001:db8:1::7/64 dev h0 nodad
             ip route add 198.18.0.0/15 via 198.51.100.3",
        );
        let distribution = world.reachable_distribution_pasta().ok();
        let pid_file = world.folder().join("pid");
        Self { world, rootless: Rootless::new(world), distribution, pid_file }
    }

    fn host(&self) -> Picture {
        Picture::of("h0", |script| self.world.host.script(script))
    }

    /// Runs a line and says what there is then; the end of the namespace ends the network.
    fn set_up(&self, caller: &Caller, number: usize, line: &str, binary: &Path) -> Picture {
        let what = format!("{} by {}: {line}", caller.name, binary.display());
        let netns = self.rootless.netns(&format!("netns-{number}"));
        let (line, holder) = self.fill_in(line, &netns);
        let words: Vec<_> = line.split_whitespace().collect();
        let output = self.rootless.run(binary, &words);
        let is_ours = binary == self.rootless.binary();
        let said = (output.status.code(), output.stdout.as_str());
        assert_eq!(said, (Some(0), ""), "{what}: {}", output.stderr);
        if is_ours {
            assert_eq!(is_quiet(&line), output.stderr.is_empty(), "{what}: {}", output.stderr);
        }
        if caller.line.contains("PIDFILE") {
            let text = std::fs::read_to_string(&self.pid_file).unwrap();
            let number = text.strip_suffix('\n').and_then(|number| number.parse().ok());
            let number: u32 = number.unwrap_or_else(|| panic!("{what}: {text:?}"));
            assert!(Rootless::processes_of(binary).contains(&number), "{what}: {number}");
            std::fs::remove_file(&self.pid_file).unwrap();
        }
        assert_eq!(self.open_ports(), caller.open.iter().copied().collect(), "{what}");
        let inside = |script: &str| self.rootless.inside(&netns, script);
        let picture = Picture::of(caller.guest.interface(), inside);
        // Debian's passes nothing on in the background when `-d` is there.
        if is_ours && !matches!(caller.guest, Guest::Unconfigured(_)) {
            self.assert_way_to_the_remote(&netns, &what);
        }
        drop(holder);
        self.rootless.remove_netns(&netns);
        wait_until(PATIENCE, &format!("end of the network of {what}"), || {
            Rootless::processes_of(binary).is_empty()
        });
        wait_until(PATIENCE, &format!("end of the ports of {what}"), || {
            self.open_ports().is_empty()
        });
        picture
    }

    /// The line for this network namespace, and the process that `PROC` is about.
    fn fill_in(&self, line: &str, netns: &str) -> (String, Option<Background>) {
        let holder = line.contains("PROC").then(|| self.hold(netns));
        let proc = holder.as_ref().map(|holder| format!("/proc/{}/ns/net", holder.pid()));
        let pid_file = self.pid_file.display().to_string();
        let socket = self.world.folder().join("pasta.sock").display().to_string();
        let line = line.replace("PIDFILE", &pid_file).replace("SOCKET", &socket);
        let line = line.replace("NS", netns);
        (line.replace("PROC", proc.as_deref().unwrap_or_default()), holder)
    }

    /// Checks that the distribution's pasta fails with a text.
    fn assert_refused(&self, caller: &Caller, line: &str, text: &str) {
        let Some(distribution) = &self.distribution else { return };
        let netns = self.rootless.netns("refused");
        let (line, _holder) = self.fill_in(line, &netns);
        let words: Vec<_> = line.split_whitespace().collect();
        let output = self.rootless.run(distribution, &words);
        assert_eq!(output.status.code(), Some(1), "{}", caller.name);
        assert!(output.stderr.contains(text), "{}: {}", caller.name, output.stderr);
        self.rootless.remove_netns(&netns);
    }

    /// A process in the network namespace of this name.
    fn hold(&self, netns: &str) -> Background {
        let holder = self.rootless.spawn_inside(netns, &["cat"]);
        let (pid, outside) = (holder.pid(), self.world.host.pid());
        let network = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        wait_until(PATIENCE, "the process is inside", || {
            let program = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            network(pid) != network(outside) && program.is_ok_and(|name| name == "cat\n")
        });
        holder
    }

    /// Checks for the text by which Podman knows what it has to leave away.
    fn assert_unknown(&self, binary: &Path, words: &str) {
        let words: Vec<_> = words.split(' ').collect();
        let output = self.rootless.run(binary, &words);
        let text = format!("unrecognized option '{}", words[0]);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(output.stderr.contains(&text), "{words:?}: {}", output.stderr);
    }

    fn open_ports(&self) -> BTreeSet<(&'static str, u16)> {
        let listed = self.world.host.script("ss -Htuln '( sport >= 8000 and sport <= 8999 )'");
        let port = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let protocol = if words[0] == "tcp" { "tcp" } else { "udp" };
            (protocol, words[4].rsplit_once(':').unwrap().1.parse().unwrap())
        };
        listed.lines().map(port).collect()
    }

    fn assert_way_to_the_remote(&self, netns: &str, what: &str) {
        let listener = self.world.remote.enter(|| TcpListener::bind((FAR, 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        let client = format!("TCP:{FAR}:{port},connect-timeout=20");
        let net = format!("--net={netns}");
        let argv = ["nsenter", &net, "--", "socat", "-u", "/dev/null", &client];
        let output = self.rootless.exec(&argv);
        assert!(output.status.success(), "{what}: {}", output.stderr);
        assert_eq!(listener.accept().unwrap().1.ip(), HOST, "{what}");
    }
}

#[test]
fn podman_and_those_who_call_as_it_does() {
    let world = needs!(World::ordinary());
    let scene = Scene::new(&world);
    let host = scene.host();
    for (number, caller) in PODMAN.iter().enumerate() {
        let ours = scene.set_up(caller, number, caller.line, scene.rootless.binary());
        caller.guest.assert_is(&ours, &host, caller.name);
        let Some(distribution) = &scene.distribution else { continue };
        let line = match caller.older {
            Older::Same => caller.line.to_owned(),
            Older::Lacks(words) => {
                scene.assert_unknown(distribution, words);
                caller.line.replace(words, "")
            }
            Older::Refuses(words, text) => {
                scene.assert_refused(caller, &caller.line.replace(words, ""), text);
                continue;
            }
        };
        let older = scene.set_up(caller, number, &line, distribution);
        Guest::assert_is_part(&older, &ours, caller.name);
    }
}

#[test]
fn callers_that_ask_for_features() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    assert_eq!(rootless.pasta(&["--host-lo-to-ns-lo", "--version"]).status.code(), Some(0));
    let output = rootless.pasta(&["--map-guest-addrs", "169.254.1.2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("unrecognized option '--map-guest-addrs"), "{}", output.stderr);
}

/// Makes a network namespace as Podman 5 does, and its network.
const MAKE: &str = r#"touch "$1"
    unshare --net -- mount --bind /proc/self/ns/net "$1"
    exec "$0" --config-net -t 8080-8080:80-80 -t 127.0.0.1/8081-8081:80-80 \
        --dns-forward 169.254.1.1 -u none -T none -U none \
        --no-map-gw --quiet --netns "$1" --map-guest-addr 169.254.1.2"#;

#[test]
fn container_of_podman_in_a_namespace_of_this_network() {
    let podman = needs!(Podman::build());
    let world = &podman.session.world;
    let binary = world.reachable_pasta().display().to_string();
    let netns = world.folder().join("podman-netns").display().to_string();
    let said = podman.succeed(&["unshare", "sh", "-euc", MAKE, &binary, &netns]);
    assert_eq!(said, "");
    podman.serve("web", &["--network", &format!("ns:{netns}")], "0.0.0.0", &["80"]);
    let told = ask_tcp(&world.remote, (HOST, 8080).into());
    assert_eq!(told, "tcp 198.51.100.2", "the client's own address");
    // A port of the host's loopback is for clients of the host alone.
    let local = (IpAddr::V4(Ipv4Addr::LOCALHOST), 8081).into();
    assert_eq!(ask_tcp(&world.host, local), "tcp 198.51.100.1", "the container itself");
    let refused = connect(&world.remote, (HOST, 8081).into()).unwrap_err();
    assert_eq!(refused.errno, Errno::ECONNREFUSED);
    podman.succeed(&["rm", "--force", "--time", "0", "web"]);
    let remove = "umount --lazy \"$0\"; rm \"$0\"";
    podman.succeed(&["unshare", "sh", "-euc", remove, &netns]);
    wait_until(PATIENCE, "the port is closed", || {
        world.host.script("ss -Htln sport = :8080").is_empty()
    });
}
