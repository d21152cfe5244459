//! RootlessKit's part, played by a script: the child with subordinate ids, the question for an
//! option, the command lines, and the ports that follow the child's programs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slirp_tests::{
    Account, Background, HOST, Output, PATIENCE, Picture, REMOTE, Rootless, Session, TcpServer,
    World, ask_tcp, ask_udp, connect, needs, wait_until,
};

use crate::vectors::{Older, ROOTLESSKIT, is_quiet};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a line of RootlessKit's for the world's guest, on the host.
fn run(world: &World, binary: &str, line: &str) -> Output {
    let mut argv = world.account().prefix().to_vec();
    argv.extend(["env", "--default-signal", binary]);
    argv.extend(line.split_whitespace());
    world.host.exec(&argv)
}

/// Ends all processes of a program, as RootlessKit does, and waits until they are gone.
fn end(binary: &std::path::Path, signal: Signal) {
    for pid in Rootless::processes_of(binary) {
        // It may have gone by itself.
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
    }
    wait_until(PATIENCE, "the end", || Rootless::processes_of(binary).is_empty());
}

fn assert_reaches_the_remote(world: &World, binary: &std::path::Path) {
    let server = TcpServer::echo(&world.remote, (REMOTE, 0).into());
    if let Err(failure) = connect(&world.guest, server.address()) {
        let guest = world.guest.script("ip -s link show tap0; ip neigh; ip route");
        let host = world.host.script("ss -tanp; ip neigh; ip route");
        panic!("{}: {failure:?}\n{guest}\n{host}", binary.display());
    }
}

#[test]
fn every_line_sets_up_the_child() {
    for account in [Account::Ordinary, Account::Root] {
        let world = needs!(World::of(account));
        let pid = world.guest.pid().to_string();
        let ours = world.reachable_pasta();
        let host = Picture::of("h0", |script| world.host.script(script));
        let distribution = world.reachable_distribution_pasta().ok();
        // As root, Debian's becomes nobody, and cannot join.
        let distribution = distribution.filter(|_| account == Account::Ordinary);
        for caller in ROOTLESSKIT {
            let set_up = |line: &str, binary: &std::path::Path| {
                let line = line.replace("CHILD", &pid);
                let output = run(&world, &binary.display().to_string(), &line);
                let what = format!("{account:?}, {}: {}", caller.name, output.stderr);
                assert_eq!((output.status.code(), output.stdout.as_str()), (Some(0), ""), "{what}");
                assert!(!is_quiet(&line));
                let picture = Picture::of("tap0", |script| world.guest.script(script));
                caller.guest.assert_is(&picture, &host, &what);
                assert_reaches_the_remote(&world, binary);
                end(binary, Signal::SIGTERM);
                wait_until(PATIENCE, "the end of the device", || {
                    world.guest.script("ip -br link").lines().count() == 1
                });
            };
            set_up(caller.line, &ours);
            let Some(distribution) = &distribution else { continue };
            match caller.older {
                Older::Same => set_up(caller.line, distribution),
                Older::Lacks(option) | Older::Refuses(option, _) => {
                    // The question that RootlessKit asks.
                    let binary = distribution.display().to_string();
                    let output = run(&world, &binary, &format!("{option} --version"));
                    assert_eq!(output.status.code(), Some(1), "{}", caller.name);
                    set_up(&caller.line.replace(option, ""), distribution);
                }
            }
        }
    }
}

/// RootlessKit 2.0 to 2.2: the program stays in the foreground, and says nothing of its start; the
/// child configures the interface by itself.
#[test]
fn line_of_the_foreground_leaves_the_interface_to_the_child() {
    for account in [Account::Ordinary, Account::Root] {
        let world = needs!(World::of(account));
        let binary = world.reachable_pasta();
        let line = format!(
            "{} --foreground --stderr --ns-ifname=tap0 --mtu=65520 --no-dhcp --no-ra \
             --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 \
             --no-map-gw --ipv4-only --tcp-ports=auto --udp-ports=auto {}",
            binary.display(),
            world.guest.pid()
        );
        let mut argv = account.prefix().to_vec();
        argv.extend(line.split_whitespace());
        let running = world.host.spawn(&argv);
        let links = || world.guest.script("ip -br link");
        wait_until(PATIENCE, "the interface", || links().contains("tap0 "));
        let shown = world.guest.script("ip -br addr show tap0");
        assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["tap0", "DOWN"]);
        world.guest.script(
            "ip link set tap0 up; ip link set dev tap0 mtu 65520
             ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2 dev tap0",
        );
        assert_reaches_the_remote(&world, &binary);
        assert!(Rootless::processes_of(&binary).contains(&running.pid()), "no daemon");
        kill(Pid::from_raw(running.pid().cast_signed()), Signal::SIGKILL).unwrap();
        wait_until(PATIENCE, "the end", || Rootless::processes_of(&binary).is_empty());
        assert!(!links().contains("tap0"), "{}", links());
    }
}

/// A child of RootlessKit's kind in a session: user, network and mount namespaces with subordinate
/// ids.
struct Child<'s> {
    session: &'s Session,
    binary: String,
    pid: String,
    _holder: Background,
}

impl<'s> Child<'s> {
    fn new(session: &'s Session) -> Self {
        session.write_image();
        let binary = session.world.reachable_pasta().display().to_string();
        let told = session.home().join("child");
        // The ids are mapped before the program starts.
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec cat", told.display());
        let holder = session.spawn(&[
            "unshare",
            "--user",
            "--map-root-user",
            "--map-auto",
            "--net",
            "--mount",
            "--",
            "sh",
            "-euc",
            &script,
        ]);
        wait_until(PATIENCE, "the child", || told.exists());
        let pid = std::fs::read_to_string(&told).unwrap().trim_end().to_owned();
        Self { session, binary, pid, _holder: holder }
    }

    /// Runs the line as RootlessKit does, and waits for its exit.
    fn network(&self, ports: &str, more: &str) {
        let line = format!(
            "{} --stderr --ns-ifname=tap0 --mtu=65520 --config-net --address=10.0.2.100 \
             --netmask=24 --gateway=10.0.2.2 --dns-forward=10.0.2.3 {more} --ipv4-only \
             --tcp-ports={ports} --udp-ports={ports} --host-lo-to-ns-lo {}",
            self.binary, self.pid
        );
        let output = self.session.exec(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(
            (output.status.code(), output.stdout.as_str()),
            (Some(0), ""),
            "{}",
            output.stderr
        );
    }

    fn argv<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        let enter = ["nsenter", "-t", &self.pid, "-U", "-n", "--preserve-credentials", "--"];
        [&enter, argv].concat()
    }

    /// Starts a server on both protocols in the child; returns once it listens.
    fn serve(&self, address: &str, port: &str) -> (Background, Instant) {
        let server = self.argv(&["python3", "who.py", address, port]);
        let server = self.session.spawn(&server);
        let list = format!("ss -Htuln sport = :{port} src {address}");
        let listens = || self.session.succeed(&self.argv(&["sh", "-euc", &list])).lines().count();
        wait_until(PATIENCE, "the server listens", || listens() == 2);
        (server, Instant::now())
    }
}

/// Waits until the host has the port open on both protocols, which takes about a second.
fn wait_for_port(world: &World, port: u16, since: Instant) {
    wait_until(PATIENCE, "the port is open", || {
        let listed = world.host.script(&format!("ss -Htuln sport = :{port}"));
        listed.contains("tcp") && listed.contains("udp")
    });
    // Read once a second; the rest is for machines with other work on every core.
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

fn assert_refused(result: Result<std::net::TcpStream, slirp_tests::ConnectFailure>) {
    match result {
        // Accepted on the way, before the child is asked, and then reset.
        Err(failure) => {
            assert!(
                matches!(failure.errno, Errno::ECONNREFUSED | Errno::ECONNRESET),
                "{failure:?}"
            );
        }
        Ok(mut stream) => {
            let ended = std::io::Read::read(&mut stream, &mut [0; 1]);
            assert!(ended.as_ref().map_or(true, |len| *len == 0), "{ended:?}");
        }
    }
}

#[test]
fn ports_of_the_implicit_driver_follow_the_programs_of_the_child() {
    let session = needs!(Session::open(&["newuidmap", "python3"]));
    let world = &session.world;
    let child = Child::new(&session);
    let asked = session.exec(&[&child.binary, "--host-lo-to-ns-lo", "--version"]);
    assert_eq!((asked.status.code(), asked.stderr.as_str()), (Some(0), ""));
    child.network("auto", "--no-map-gw");

    // `docker run -p 127.0.0.1:8080:80`.
    let (local, since) = child.serve("127.0.0.1", "8080");
    wait_for_port(world, 8080, since);
    assert_eq!(ask_tcp(&world.host, (LOOPBACK, 8080).into()), "tcp 127.0.0.1");
    assert_eq!(ask_udp(&world.host, (LOOPBACK, 8080).into()), "udp 127.0.0.1");
    assert_refused(connect(&world.remote, (HOST, 8080).into()));

    // `docker run -p 8081:80`.
    let (public, since) = child.serve("0.0.0.0", "8081");
    wait_for_port(world, 8081, since);
    assert_eq!(ask_tcp(&world.host, (LOOPBACK, 8081).into()), "tcp 127.0.0.1");
    assert_eq!(ask_udp(&world.host, (LOOPBACK, 8081).into()), "udp 127.0.0.1");
    assert_eq!(ask_tcp(&world.remote, (HOST, 8081).into()), "tcp 198.51.100.2");
    assert_eq!(ask_udp(&world.remote, (HOST, 8081).into()), "udp 198.51.100.2");

    // The ports go with the programs.
    drop((local, public));
    for pid in session.processes().iter().filter(|one| one.arguments.iter().any(|a| a == "who.py"))
    {
        session.exec(&["kill", "-KILL", &pid.pid.to_string()]);
    }
    wait_until(PATIENCE, "the ports are closed", || {
        world.host.script("ss -Htuln '( sport = :8080 or sport = :8081 )'").is_empty()
    });
}

/// `--disable-host-loopback` is `--no-map-gw`: the gateway is not the host's loopback. The ports of
/// the child's own loopback lead there all the same, unless `-T none` and `-U none` are there.
#[test]
fn loopback_of_the_host_is_closed_by_two_options() {
    let session = needs!(Session::open(&["newuidmap", "python3"]));
    let world = &session.world;
    let gateway: SocketAddr = "10.0.2.2:8000".parse().unwrap();
    let server = TcpServer::echo(&world.host, (LOOPBACK, 8000).into());
    for (more, by_gateway, by_loopback) in [
        ("", true, true),
        ("--no-map-gw", false, true),
        ("--no-map-gw -T none -U none", false, false),
    ] {
        let child = Child::new(&session);
        child.network("none", more);
        let reaches = |to: SocketAddr| {
            let to = format!("TCP:{to},connect-timeout=20");
            let client = child.argv(&["socat", "-t", "20", "-", &to]);
            let mut argv = vec!["sh", "-euc", "echo hello | \"$@\"", "sh"];
            argv.extend(client);
            session.exec(&argv).stdout == "hello\n"
        };
        assert_eq!(reaches(gateway), by_gateway, "{more}");
        let loopback = (LOOPBACK, 8000).into();
        if by_loopback {
            wait_until(PATIENCE, "the port of the child's loopback", || reaches(loopback));
        } else {
            assert!(!reaches(loopback), "{more}");
        }
        drop(child);
        std::fs::remove_file(session.home().join("child")).unwrap();
    }
    drop(server);
}
